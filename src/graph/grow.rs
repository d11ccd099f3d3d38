//! Records to graph: each record puts one operator behind existing values, or in front of a graph input.

use super::{Graph, Leaf, Operator, ValueId, Vertex, Wire};
use crate::input::{Input, Picks, Record, Uses};
use crate::limits::{MAX_ELEMENTS, MAX_OPERATORS, MAX_TOTAL_ELEMENTS, MAX_WORK};
use crate::ops::patterns::{Link, Pattern, Step};
use crate::ops::{self, Choice};
use crate::schema;
use crate::spec::{Builder, Domain, Draft, LeafDraft, OpSpec, Role, Skip, Source, TensorType};
use crate::support::form_of;
use crate::swarm::Swarm;
use crate::term::{self, Law, Term, product};
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::{Bfs, EdgeRef, Walker};

/// Grows the graph that an input describes. Starts a new generation of terms: earlier graphs become invalid.
pub fn grow(input: &Input) -> Graph {
    let swarm = Swarm::new(&input.header);
    let choose = |record: &Record| ops::choose(record[0], &swarm);
    grow_with(&swarm, &input.records, choose)
}

/// Like [`grow`], with what each record becomes chosen by the caller.
pub fn grow_with(swarm: &Swarm, records: &[Record], choose: impl Fn(&Record) -> Choice) -> Graph {
    term::reset();
    let mut graph = Graph {
        opset: swarm.opset,
        focus: swarm.focus,
        symbolic: swarm.symbolic,
        constant_nodes: swarm.constant_nodes,
        ..Graph::default()
    };
    for record in records {
        graph.uses.push(Uses::default());
        let fate = match choose(record) {
            Choice::Operator(spec) => graph.insert(spec, record, swarm).map(|node| vec![node]),
            Choice::Pattern(pattern) => graph.insert_pattern(pattern, record, swarm),
            Choice::Control(construct) => {
                let fate = graph.insert_control(construct, record, swarm);
                graph.fates.push(fate);
                continue;
            }
        };
        if let Ok(placed) = &fate {
            graph.fill_branch(placed);
        }
        let fate = fate.map(|placed| placed.first().copied());
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
    let signature =
        schema::signature(spec.name, swarm.opset).filter(|_| spec.since <= swarm.opset).ok_or(Skip::DType)?;
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
            let inserted = self.attempt(spec, record, swarm, Some(target), &[]);
            if inserted.is_ok() {
                return inserted;
            }
        }
        self.attempt(spec, record, swarm, None, &[])
    }

    /// Places the steps of a pattern until one does not fit. At least one operator.
    fn insert_pattern(&mut self, pattern: &Pattern, record: &Record, swarm: &Swarm) -> Result<Vec<NodeIndex>, Skip> {
        let mut placed: Vec<NodeIndex> = Vec::new();
        for (index, step) in pattern.steps.iter().enumerate() {
            if self.operators().count() >= MAX_OPERATORS {
                break;
            }
            let linked: Vec<ValueId> = if index == 0 { Vec::new() } else { self.linked(step, &placed) };
            // Other picks for each step, each of them a function of the same byte.
            let shift = if step.same_picks { 0 } else { (index as u8).wrapping_mul(37) };
            let varied = record.map(|byte| byte.wrapping_add(shift));
            match self.attempt(step.spec, &varied, swarm, None, &linked) {
                Ok(node) => placed.push(node),
                Err(skip) if placed.is_empty() => return Err(skip),
                Err(_) => break,
            }
        }
        if placed.is_empty() { Err(Skip::TooMany) } else { Ok(placed) }
    }

    /// The values that a step of a pattern must use.
    fn linked(&self, step: &Step, placed: &[NodeIndex]) -> Vec<ValueId> {
        let operand = |node: NodeIndex, slot: usize| {
            let mut edges = self.dag.edges_directed(node, Direction::Incoming);
            let edge = edges.find(|edge| edge.weight().to == slot).expect("patterns name operands that are there");
            (edge.source(), edge.weight().from)
        };
        let value = |link: &Link| match *link {
            Link::Previous => (placed[placed.len() - 1], 0),
            Link::Output(step) => (placed[step], 0),
            Link::Operand(step, slot) => operand(placed[step], slot),
        };
        step.operands.iter().map(value).collect()
    }

    /// A graph input whose values nothing constrains may be computed by an operator instead.
    fn is_open(&self, index: NodeIndex) -> bool {
        matches!(&self.dag[index], Vertex::Leaf(Leaf { role: Role::Input, domain: Domain::Any, content: None, .. }))
    }

    /// Builds the operator, using the values `linked`, and keeps it if all laws can hold; otherwise leaves the graph as it
    /// was.
    pub(super) fn attempt(
        &mut self,
        spec: &'static OpSpec,
        record: &Record,
        swarm: &Swarm,
        target: Option<NodeIndex>,
        linked: &[ValueId],
    ) -> Result<NodeIndex, Skip> {
        let (assignment, law_count) = (self.vars.snapshot(), self.laws.len());
        let result = self.try_attempt(spec, record, swarm, target, linked);
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
        linked: &[ValueId],
    ) -> Result<NodeIndex, Skip> {
        let first_new = self.vars.len();
        let limited = target.map(|target| self.pool(target));
        let (values, types) = match &limited {
            Some((values, types)) => (values, types),
            None => (&self.values, &self.types),
        };
        let wanted = target.map(|index| self.output_type((index, 0)).clone());
        let mut picks = Picks::new(record);
        picks.byte();
        let position = |value: &ValueId| values.iter().position(|known| known == value).ok_or(Skip::Pattern);
        let forced = linked.iter().map(position).collect::<Result<_, _>>()?;
        let mut builder = Builder::new(spec, picks, swarm, types, &mut self.vars, wanted, forced);
        let built = (spec.build)(&mut builder);
        let mut draft = std::mem::take(&mut builder.draft);
        let uses = *builder.picks.uses();
        note(&mut self.uses, &uses);
        built?;
        if let Some(skip) = draft.failed {
            return Err(skip);
        }
        check_form(spec, &draft, types, swarm)?;
        let reused = |operand: &Source| if let Source::Reused(pooled) = *operand { Some(values[pooled]) } else { None };
        let reused: Vec<Option<ValueId>> = draft.operands.iter().map(reused).collect();
        let fixed = draft.operands.iter().all(|operand| match *operand {
            Source::Reused(pooled) => types[pooled].fixed,
            Source::Leaf(leaf) => draft.leaves[leaf].ty.fixed,
            Source::Absent => true,
        });
        draft.outputs.iter_mut().for_each(|output| output.fixed = fixed || output.elements.is_some());
        self.laws.admit(&mut self.vars, std::mem::take(&mut draft.laws), first_new)?;
        if self.check_limits(&draft).is_err() {
            self.shrink(&draft, first_new)?;
        }
        // The record's last byte: the operator's own choices seldom reach it.
        let exposed = usize::from(record[record.len() - 1]) + usize::from(swarm.extra_outputs) >= 256;
        Ok(self.commit(spec, draft, &reused, target, exposed))
    }

    /// The values that do not depend on `target`.
    fn pool(&self, target: NodeIndex) -> (Vec<ValueId>, Vec<TensorType>) {
        let mut depends = vec![false; self.dag.node_count()];
        Bfs::new(&self.dag, target).iter(&self.dag).for_each(|index| depends[index.index()] = true);
        let free = |(value, _): &(&ValueId, &TensorType)| !depends[value.0.index()];
        self.values.iter().zip(&self.types).filter(free).map(|(value, ty)| (*value, ty.clone())).unzip()
    }

    pub(super) fn output_type(&self, (index, slot): ValueId) -> &TensorType {
        match &self.dag[index] {
            Vertex::Leaf(leaf) => &leaf.ty,
            Vertex::Operator(operator) => &operator.outputs[slot],
        }
    }

    fn types(&self) -> impl Iterator<Item = &TensorType> {
        self.dag.node_weights().flat_map(|vertex| match vertex {
            Vertex::Leaf(leaf) => std::slice::from_ref(&leaf.ty),
            Vertex::Operator(operator) => &operator.outputs,
        })
    }

    fn elements(&self, ty: &TensorType) -> Option<i64> {
        ty.shape.iter().try_fold(1i64, |count, dim| count.checked_mul(dim.eval(&self.vars)?))
    }

    /// Solving may have moved any size, so everything is checked again.
    pub(super) fn check_limits(&self, draft: &Draft) -> Result<(), Skip> {
        let elements = |ty: &TensorType| self.elements(ty).filter(|&count| count <= MAX_ELEMENTS);
        let mut total = 0;
        for ty in self.types().chain(draft.leaves.iter().map(|leaf| &leaf.ty)).chain(&draft.outputs) {
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

    /// Moves sizes so that the bounds hold, too.
    fn shrink(&mut self, draft: &Draft, first_new: usize) -> Result<(), Skip> {
        let elements = |ty: &TensorType| product(&ty.shape);
        let leaves = draft.leaves.iter().map(|leaf| elements(&leaf.ty));
        let results: Vec<Term> = draft.outputs.iter().map(elements).collect();
        let sum = |terms: &[Term]| terms.iter().fold(Term::constant(0), |sum, &term| sum + term);
        let work = draft.accumulate.map(|terms| (terms * sum(&results)).at_most(MAX_WORK));
        let all: Vec<Term> = leaves.chain(results).collect();
        let each = all.iter().map(|count| count.at_most(MAX_ELEMENTS));
        let others: i64 = self.types().filter_map(|ty| self.elements(ty)).sum();
        let total = sum(&all).at_most(MAX_TOTAL_ELEMENTS - others);
        let bounds: Vec<Law> = each.chain([total]).chain(work).collect();
        self.laws.repair(&mut self.vars, &bounds, first_new);
        self.check_limits(draft)
    }

    fn commit(
        &mut self,
        spec: &'static OpSpec,
        draft: Draft,
        reused: &[Option<ValueId>],
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
        let (outputs, omitted) = (draft.outputs.clone(), draft.omitted.clone());
        let vertex = Vertex::Operator(Operator {
            spec,
            attributes: draft.attributes,
            operand_count: draft.operands.len(),
            outputs: draft.outputs,
            omitted: draft.omitted,
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
        for (to, (operand, reused)) in draft.operands.iter().zip(reused).enumerate() {
            let (source, from) = match (*operand, *reused) {
                (Source::Leaf(leaf), _) => (leaves[leaf], 0),
                (_, Some(value)) => value,
                (_, None) => continue,
            };
            self.dag.add_edge(source, index, Wire { from, to });
        }
        for (slot, ty) in outputs.into_iter().enumerate().skip(usize::from(target.is_some())) {
            if !omitted.contains(&slot) {
                self.offer((index, slot), ty);
            }
        }
        index
    }

    pub(super) fn offer(&mut self, value: ValueId, ty: TensorType) {
        self.values.push(value);
        self.types.push(ty);
    }
}

/// Adds to what the bytes of the record at hand decide.
pub(super) fn note(noted: &mut [Uses], uses: &Uses) {
    let last = noted.last_mut().expect("a record is at hand");
    last.iter_mut().zip(uses).for_each(|(noted, &decided)| *noted = noted.or(decided));
}
