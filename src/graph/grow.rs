//! Records to graph: each record puts one operator behind existing values, or in front of a graph input.

use super::{Graph, Leaf, Operator, ValueId, Vertex, Wire};
use crate::input::{Input, Picks, Record};
use crate::limits::{MAX_ELEMENTS, MAX_OPERATORS, MAX_TOTAL_ELEMENTS, MAX_WORK};
use crate::ops;
use crate::schema;
use crate::spec::{Builder, Domain, Draft, LeafDraft, OpSpec, Role, Skip, Source, TensorType};
use crate::support::form_of;
use crate::swarm::Swarm;
use crate::term::{self, product};
use petgraph::graph::NodeIndex;
use petgraph::visit::{Bfs, Walker};

/// Grows the graph that an input describes. Starts a new generation of terms: earlier graphs become invalid.
pub fn grow(input: &Input) -> Graph {
    let swarm = Swarm::new(&input.header);
    let choose = |record: &Record| ops::choose(record[0], &swarm);
    grow_with(&swarm, &input.records, choose)
}

/// Like [`grow`], with the operator of each record chosen by the caller.
pub fn grow_with(swarm: &Swarm, records: &[Record], choose: impl Fn(&Record) -> &'static OpSpec) -> Graph {
    term::reset();
    let mut graph = Graph { opset: swarm.opset, constant_nodes: swarm.constant_nodes, ..Graph::default() };
    for record in records {
        let fate = graph.insert(choose(record), record, swarm);
        graph.fates.push(fate);
    }
    graph
}

/// Whether the standard, and the backends that the case is for, take an application whose reused operands come from a
/// pool with these types.
fn check_form(spec: &OpSpec, draft: &Draft, pool: &[TensorType], swarm: &Swarm) -> Result<(), Skip> {
    let dtype = |operand: &Source| match *operand {
        Source::Reused(pooled) => Some(pool[pooled].dtype),
        Source::Leaf(leaf) => Some(draft.leaves[leaf].ty.dtype),
        Source::Absent => None,
    };
    let operands = || draft.operands.iter().map(dtype);
    let outputs = || draft.outputs.iter().map(|output| output.dtype);
    // Where a case admits no operator at all, any may have been chosen.
    let signature = schema::signature(spec.name, swarm.opset).filter(|_| spec.since <= swarm.opset);
    let signature = signature.ok_or(Skip::DType)?;
    if !signature.allows(operands(), outputs()) {
        return Err(Skip::DType);
    }
    let admitted = swarm.focus.admits(spec.name, signature.version, &form_of(operands(), outputs()));
    if admitted { Ok(()) } else { Err(Skip::Unsupported) }
}

impl Graph {
    fn insert(&mut self, spec: &'static OpSpec, record: &Record, swarm: &Swarm) -> Result<NodeIndex, Skip> {
        if self.operators().count() >= MAX_OPERATORS {
            return Err(Skip::TooMany);
        }
        let mut picks = Picks::new(record);
        let place = picks.byte();
        let open: Vec<NodeIndex> = self.dag.node_indices().filter(|&index| self.is_open(index)).collect();
        // The highest bytes, so that the zero byte is the plain case.
        if usize::from(place) + usize::from(swarm.backward) >= 256 && !open.is_empty() {
            let target = open[usize::from(place) % open.len()];
            let inserted = self.attempt(spec, record, swarm, Some(target));
            if inserted.is_ok() {
                return inserted;
            }
        }
        self.attempt(spec, record, swarm, None)
    }

    /// A graph input whose values nothing constrains may be computed by an operator instead.
    fn is_open(&self, index: NodeIndex) -> bool {
        matches!(&self.dag[index], Vertex::Leaf(Leaf { role: Role::Input, domain: Domain::Any, content: None, .. }))
    }

    /// Builds the operator and keeps it if all laws can hold; otherwise leaves the graph as it was.
    fn attempt(
        &mut self,
        spec: &'static OpSpec,
        record: &Record,
        swarm: &Swarm,
        target: Option<NodeIndex>,
    ) -> Result<NodeIndex, Skip> {
        let (assignment, law_count) = (self.vars.snapshot(), self.laws.len());
        let result = self.try_attempt(spec, record, swarm, target);
        if result.is_err() {
            self.vars.restore(assignment);
            self.laws.truncate(law_count);
        }
        result
    }

    fn try_attempt(
        &mut self,
        spec: &'static OpSpec,
        record: &Record,
        swarm: &Swarm,
        target: Option<NodeIndex>,
    ) -> Result<NodeIndex, Skip> {
        let first_new = self.vars.len();
        let (values, types) = self.pool(target);
        let wanted = target.map(|index| self.output_type((index, 0)).clone());
        let mut picks = Picks::new(record);
        picks.byte();
        let mut builder = Builder::new(spec, picks, swarm, &types, &mut self.vars, wanted);
        (spec.build)(&mut builder)?;
        let mut draft = std::mem::take(&mut builder.draft);
        if let Some(skip) = draft.failed {
            return Err(skip);
        }
        check_form(spec, &draft, &types, swarm)?;
        self.laws.admit(&mut self.vars, std::mem::take(&mut draft.laws), first_new)?;
        self.check_limits(&draft)?;
        // The record's last byte: the operator's own choices seldom reach it.
        let exposed = usize::from(record[record.len() - 1]) + usize::from(swarm.extra_outputs) >= 256;
        Ok(self.commit(spec, draft, &values, target, exposed))
    }

    /// The values that may be operands: all, or those that do not depend on `target`.
    fn pool(&self, target: Option<NodeIndex>) -> (Vec<ValueId>, Vec<TensorType>) {
        let Some(target) = target else { return (self.values.clone(), self.types.clone()) };
        let mut depends = vec![false; self.dag.node_count()];
        Bfs::new(&self.dag, target).iter(&self.dag).for_each(|index| depends[index.index()] = true);
        let free = |(value, _): &(&ValueId, &TensorType)| !depends[value.0.index()];
        self.values.iter().zip(&self.types).filter(free).map(|(value, ty)| (*value, ty.clone())).unzip()
    }

    fn output_type(&self, (index, slot): ValueId) -> &TensorType {
        match &self.dag[index] {
            Vertex::Leaf(leaf) => &leaf.ty,
            Vertex::Operator(operator) => &operator.outputs[slot],
        }
    }

    /// Solving may have moved any size, so everything is checked again.
    fn check_limits(&self, draft: &Draft) -> Result<(), Skip> {
        let elements = |ty: &TensorType| product(&ty.shape).eval(&self.vars).filter(|&count| count <= MAX_ELEMENTS);
        let mut total = 0;
        let leaves = self.dag.node_weights().flat_map(|vertex| match vertex {
            Vertex::Leaf(leaf) => std::slice::from_ref(&leaf.ty),
            Vertex::Operator(operator) => &operator.outputs,
        });
        for ty in leaves.chain(draft.leaves.iter().map(|leaf| &leaf.ty)).chain(&draft.outputs) {
            total += elements(ty).ok_or(Skip::TooLarge)?;
        }
        let works = self.operators().map(|operator| (&operator.accumulate, &operator.outputs));
        for (accumulate, outputs) in works.chain([(&draft.accumulate, &draft.outputs)]) {
            let terms = accumulate.map_or(Some(1), |term| term.eval(&self.vars)).ok_or(Skip::TooLarge)?;
            let count: i64 = outputs.iter().filter_map(elements).sum();
            if terms.saturating_mul(count) > MAX_WORK {
                return Err(Skip::TooLarge);
            }
        }
        if total > MAX_TOTAL_ELEMENTS { Err(Skip::TooLarge) } else { Ok(()) }
    }

    fn commit(
        &mut self,
        spec: &'static OpSpec,
        draft: Draft,
        values: &[ValueId],
        target: Option<NodeIndex>,
        exposed: bool,
    ) -> NodeIndex {
        let mut leaves = Vec::new();
        for leaf in draft.leaves {
            let reusable = leaf.role != Role::Constant;
            let ty = leaf.ty.clone();
            let LeafDraft { role, domain, content, denominator, .. } = leaf;
            let leaf = Leaf { ty: leaf.ty, role, domain, content, denominator };
            let index = self.dag.add_node(Vertex::Leaf(leaf));
            if reusable {
                self.offer((index, 0), ty);
            }
            leaves.push(index);
        }
        let outputs = draft.outputs.clone();
        let vertex = Vertex::Operator(Operator {
            spec,
            attributes: draft.attributes,
            operand_count: draft.operands.len(),
            outputs: draft.outputs,
            accumulate: draft.accumulate,
            exposed,
        });
        // In front of a graph input the operator takes its place: the edges to its users stay.
        let index = match target {
            Some(target) => {
                self.dag[target] = vertex;
                target
            }
            None => self.dag.add_node(vertex),
        };
        for (to, operand) in draft.operands.iter().enumerate() {
            let (source, from) = match *operand {
                Source::Reused(pooled) => values[pooled],
                Source::Leaf(leaf) => (leaves[leaf], 0),
                Source::Absent => continue,
            };
            self.dag.add_edge(source, index, Wire { from, to });
        }
        for (slot, ty) in outputs.into_iter().enumerate().skip(usize::from(target.is_some())) {
            self.offer((index, slot), ty);
        }
        index
    }

    fn offer(&mut self, value: ValueId, ty: TensorType) {
        self.values.push(value);
        self.types.push(ty);
    }
}
