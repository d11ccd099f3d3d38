//! Growing control flow: which nodes of the flat graph an If, a Loop or a Scan will hold.

use super::{Graph, Leaf, Operator, ValueId, Vertex, Wire};
use crate::dtype::DType;
use crate::input::{Record, Use, Uses};
use crate::limits::MAX_OPERATORS;
use crate::model::{self, Control, Model, Region, Repeat};
use crate::ops::control::{BINARY_BODIES, Construct, UNARY_BODIES};
use crate::ops::{indexing, joining, movement};
use crate::schema;
use crate::spec::{Attribute, Domain, Draft, OpSpec, Role, Skip, TensorType};
use crate::support::Focus;
use crate::swarm::Swarm;
use crate::tensor::TensorData;
use crate::term::Term;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use std::collections::BTreeMap;

/// The most records that one If holds.
const MAX_BRANCH: usize = 4;
/// The most iterations of a Loop or Scan: each is there in the flat graph.
const MAX_TRIPS: usize = 3;

/// A region of the growing graph.
#[derive(Debug)]
pub(super) struct RegionDraft {
    nodes: Vec<NodeIndex>,
    control: ControlDraft,
}

#[derive(Debug)]
enum ControlDraft {
    If {
        taken: bool,
        known: bool,
        /// How many more records go into the branch.
        open: usize,
    },
    Repeat {
        bodies: Vec<Vec<NodeIndex>>,
        initial: ValueId,
        scanned: Option<(ValueId, Vec<ValueId>)>,
        collected: Option<(Vec<ValueId>, ValueId)>,
        /// A Loop has a condition, too.
        conditional: bool,
        /// Trip count and condition are constants of the model.
        known: bool,
    },
}

/// What is read of a record of control flow, besides what the operators of the body read.
fn uses(construct: Construct) -> Uses {
    let mut uses = Uses::default();
    match construct {
        Construct::If => [1, 2, 5].into_iter().for_each(|at| uses[at] = Some(Use::Choice)),
        Construct::Loop | Construct::Scan => {
            uses[1] = Some(Use::Operand);
            uses[3..9].fill(Some(Use::Choice));
        }
    }
    uses
}

impl Graph {
    /// Begins or grows what a record of control flow asks for. Its operator, if it has placed one itself.
    pub(super) fn insert_control(
        &mut self,
        construct: Construct,
        record: &Record,
        swarm: &Swarm,
    ) -> Result<Option<NodeIndex>, Skip> {
        let known = record[5] >= 160;
        super::grow::note(&mut self.uses, &uses(construct));
        if construct == Construct::If {
            let open = 1 + usize::from(record[1]) * MAX_BRANCH / 256;
            let control = ControlDraft::If { taken: record[2] < 128, known, open };
            self.regions.push(RegionDraft { nodes: Vec::new(), control });
            return Ok(None);
        }
        let count = self.dag.node_count();
        let (assignment, law_count, value_count) = (self.vars.snapshot(), self.laws.len(), self.values.len());
        let result = self.grow_repeat(construct, record, swarm, known);
        if result.is_err() {
            self.vars.restore(assignment);
            self.laws.truncate(law_count);
            self.values.truncate(value_count);
            self.types.truncate(value_count);
            // From the end, so that no index of another vertex changes.
            (count..self.dag.node_count()).rev().for_each(|index| {
                self.dag.remove_node(NodeIndex::new(index));
            });
        }
        result.map(Some)
    }

    /// Puts the operators that a record has placed into the If that is open.
    pub(super) fn fill_branch(&mut self, placed: &[NodeIndex]) {
        let Some(RegionDraft { nodes, control: ControlDraft::If { open, .. } }) = self.regions.last_mut() else {
            return;
        };
        if *open > 0 && !placed.is_empty() {
            *open -= 1;
            nodes.extend(placed);
        }
    }

    fn grow_repeat(
        &mut self,
        construct: Construct,
        record: &Record,
        swarm: &Swarm,
        known: bool,
    ) -> Result<NodeIndex, Skip> {
        let trips = 1 + usize::from(record[3]) * MAX_TRIPS / 256;
        let steps = 1 + usize::from(record[4]) % 2;
        if self.values.is_empty() || self.operators().count() + trips * (steps + 3) + 1 > MAX_OPERATORS {
            return Err(if self.values.is_empty() { Skip::Rank } else { Skip::TooMany });
        }
        let offered = self.values.len();
        let first = self.dag.node_count();
        // The newest value is what further records would most likely use.
        let back = usize::from(record[1]) * usize::from(record[1]) * offered / (256 * 256);
        let initial = self.values[offered - 1 - back];
        let state_type = &self.types[offered - 1 - back];
        // An iteration changes the elements.
        let state_type = TensorType::new(state_type.dtype, state_type.shape.clone());
        let scanned = (construct == Construct::Scan).then(|| self.sequence(&state_type, trips, swarm));
        let mut body = Vec::new();
        for step in 0..steps {
            let state = body.last().map_or(initial, |&node| (node, 0));
            let mut linked = vec![state];
            let specs: &[&'static OpSpec] = match &scanned {
                Some((_, elements)) if step == 0 => {
                    linked.push(elements[0]);
                    BINARY_BODIES
                }
                _ => UNARY_BODIES,
            };
            let spec = specs[usize::from(record[6 + step]) * specs.len() / 256];
            let node = self.attempt(spec, record, swarm, None, &linked)?;
            // Nothing leaves an iteration but its state.
            if let Vertex::Operator(operator) = &mut self.dag[node] {
                operator.exposed = false;
            }
            body.push(node);
        }
        let shape = |graph: &Graph, ty: &TensorType| graph.shape(ty);
        let after = self.output_type((body[steps - 1], 0));
        let after = TensorType::new(after.dtype, after.shape.clone());
        if after.dtype != state_type.dtype || shape(self, &after) != shape(self, &state_type) {
            return Err(Skip::Pattern);
        }
        let mut bodies = vec![body];
        for iteration in 1..trips {
            let body = self.iterate(&bodies[iteration - 1], &bodies[0], initial, scanned.as_ref(), iteration);
            bodies.push(body);
        }
        let collected = (record[7].is_multiple_of(2) || scanned.is_some()).then(|| self.collect(&bodies, &after));
        self.check_limits(&Draft::default())?;
        let last = bodies[trips - 1][steps - 1];
        let nodes: Vec<NodeIndex> = (first..self.dag.node_count())
            .map(NodeIndex::new)
            .filter(|&index| matches!(self.dag[index], Vertex::Operator(_)))
            .collect();
        self.withdraw(offered);
        self.offer((last, 0), after);
        if let Some((_, list)) = &collected {
            let ty = self.output_type(*list).clone();
            self.offer(*list, ty);
        }
        let control = ControlDraft::Repeat {
            bodies,
            initial,
            scanned,
            collected,
            conditional: record[8].is_multiple_of(2),
            known,
        };
        self.regions.push(RegionDraft { nodes, control });
        Ok(last)
    }

    /// What is computed inside an iteration is of no use outside: only the leaves that came with it remain on offer.
    fn withdraw(&mut self, offered: usize) {
        let (values, types) = (self.values.split_off(offered), self.types.split_off(offered));
        for (value, ty) in values.into_iter().zip(types) {
            if matches!(self.dag[value.0], Vertex::Leaf(_)) {
                self.offer(value, ty);
            }
        }
    }

    fn leaf(&mut self, ty: TensorType, role: Role, content: Option<Vec<Term>>) -> ValueId {
        let leaf = Leaf { ty, role, domain: Domain::Any, content, denominator: 1 };
        (self.dag.add_node(Vertex::Leaf(leaf)), 0)
    }

    fn operator(
        &mut self,
        spec: &'static OpSpec,
        operands: &[ValueId],
        attributes: Vec<(&'static str, Attribute<Term>)>,
        output: TensorType,
    ) -> ValueId {
        let vertex = Operator {
            spec,
            attributes,
            operand_count: operands.len(),
            outputs: vec![output],
            omitted: Vec::new(),
            accumulate: None,
            exposed: false,
        };
        let index = self.dag.add_node(Vertex::Operator(vertex));
        for (to, &(source, from)) in operands.iter().enumerate() {
            self.dag.add_edge(source, index, Wire { from, to });
        }
        (index, 0)
    }

    fn integers(&mut self, shape: &[i64], elements: &[i64]) -> ValueId {
        let shape: Vec<Term> = shape.iter().copied().map(Term::constant).collect();
        let content = elements.iter().copied().map(Term::constant).collect();
        self.leaf(TensorType::new(DType::I64, shape), Role::Constant, Some(content))
    }

    /// A new sequence of values like the state, and its elements.
    fn sequence(&mut self, element: &TensorType, length: usize, swarm: &Swarm) -> (ValueId, Vec<ValueId>) {
        let mut shape = vec![Term::constant(length as i64)];
        shape.extend(&element.shape);
        let ty = TensorType::new(element.dtype, shape);
        let role = if swarm.initializers > 64 { Role::Initializer } else { Role::Input };
        let sequence = self.leaf(ty.clone(), role, None);
        self.offer(sequence, ty);
        let elements = (0..length as i64).map(|index| {
            let index = self.integers(&[], &[index]);
            let axis = vec![("axis", Attribute::Int(Term::constant(0)))];
            self.operator(&indexing::GATHER, &[sequence, index], axis, element.clone())
        });
        let elements: Vec<ValueId> = elements.collect();
        // For the body's first step; withdrawn afterwards.
        self.offer(elements[0], element.clone());
        (sequence, elements)
    }

    /// One more iteration: the operators of the first with the state of the `previous` one.
    fn iterate(
        &mut self,
        previous: &[NodeIndex],
        model: &[NodeIndex],
        initial: ValueId,
        scanned: Option<&(ValueId, Vec<ValueId>)>,
        iteration: usize,
    ) -> Vec<NodeIndex> {
        let state = previous.last().map(|&node| (node, 0)).expect("a body has a step");
        let mut body: Vec<NodeIndex> = Vec::new();
        for (step, &original) in model.iter().enumerate() {
            let Vertex::Operator(operator) = &self.dag[original] else { unreachable!("bodies hold operators") };
            let copy = operator.clone();
            let edges = self.dag.edges_directed(original, Direction::Incoming);
            let edges: Vec<(ValueId, usize)> =
                edges.map(|edge| ((edge.source(), edge.weight().from), edge.weight().to)).collect();
            let index = self.dag.add_node(Vertex::Operator(copy));
            for (value, to) in edges {
                let element = scanned.and_then(|(_, elements)| (value == elements[0]).then(|| elements[iteration]));
                let inner = model[..step].iter().position(|&node| node == value.0).map(|at| (body[at], value.1));
                // The first step's main operand is the state; the same value elsewhere is a captured one.
                let carried = (step == 0 && to == 0 && value == initial).then_some(state);
                let (source, from) = element.or(inner).or(carried).unwrap_or(value);
                self.dag.add_edge(source, index, Wire { from, to });
            }
            body.push(index);
        }
        body
    }

    /// The results of all first steps as one list along a new first axis.
    fn collect(&mut self, bodies: &[Vec<NodeIndex>], element: &TensorType) -> (Vec<ValueId>, ValueId) {
        let element = TensorType::new(self.output_type((bodies[0][0], 0)).dtype, element.shape.clone());
        let mut row = vec![Term::constant(1)];
        row.extend(&element.shape);
        let each: Vec<ValueId> = bodies.iter().map(|body| (body[0], 0)).collect();
        let rows: Vec<ValueId> = each
            .iter()
            .map(|&value| {
                let axes = self.integers(&[1], &[0]);
                let ty = TensorType::new(element.dtype, row.clone());
                self.operator(&movement::UNSQUEEZE, &[value, axes], Vec::new(), ty)
            })
            .collect();
        row[0] = Term::constant(bodies.len() as i64);
        let axis = vec![("axis", Attribute::Int(Term::constant(0)))];
        let list = self.operator(&joining::CONCAT, &rows, axis, TensorType::new(element.dtype, row));
        (each, list)
    }

    /// An order of all vertices in which the operators of every region follow each other, and the regions that have
    /// one. A region that something outside it lies between is given up, the youngest first.
    pub(super) fn order(&self) -> (Vec<NodeIndex>, Vec<&RegionDraft>) {
        let flat = petgraph::algo::toposort(&self.dag, None).expect("insertion keeps the graph acyclic");
        let mut regions: Vec<&RegionDraft> = self.regions.iter().filter(|region| !region.nodes.is_empty()).collect();
        loop {
            if regions.is_empty() {
                return (flat, regions);
            }
            // Each region as one vertex.
            let mut group: Vec<usize> = (0..self.dag.node_count()).collect();
            for region in &regions {
                region.nodes.iter().for_each(|node| group[node.index()] = region.nodes[0].index());
            }
            let mut condensed: DiGraph<(), ()> = DiGraph::new();
            (0..self.dag.node_count()).for_each(|_| {
                condensed.add_node(());
            });
            for edge in self.dag.raw_edges() {
                let (from, to) = (group[edge.source().index()], group[edge.target().index()]);
                if from != to {
                    condensed.add_edge(NodeIndex::new(from), NodeIndex::new(to), ());
                }
            }
            if let Ok(order) = petgraph::algo::toposort(&condensed, None) {
                let mut members: BTreeMap<usize, Vec<NodeIndex>> = BTreeMap::new();
                flat.iter().for_each(|&node| members.entry(group[node.index()]).or_default().push(node));
                return (
                    order.iter().flat_map(|vertex| members.remove(&vertex.index()).unwrap_or_default()).collect(),
                    regions,
                );
            }
            regions.pop();
        }
    }

    /// Adds a region to the model that holds its nodes, unless the opset or a backend of `focus` lacks it.
    pub(super) fn add_region(&self, model: &mut Model, draft: &RegionDraft, place: &Places, focus: Focus) {
        let at = |node: &NodeIndex| place.node[node.index()];
        let value = |(node, slot): ValueId| place.first_value[node.index()] + slot;
        let start = draft.nodes.iter().map(at).min().expect("regions without nodes are left out");
        let (values, leaves) = (model.values.len(), model.leaves.len());
        let control = match &draft.control {
            ControlDraft::If { taken, known, .. } => {
                let condition = add_scalar(model, TensorData::new(&[], &[*taken]), *known);
                Control::If { condition, taken: *taken }
            }
            ControlDraft::Repeat { bodies, initial, scanned, collected, conditional, known } => {
                let all = |list: &Vec<ValueId>| list.iter().map(|&id| value(id)).collect::<Vec<_>>();
                let last = |body: &Vec<NodeIndex>| value((body[body.len() - 1], 0));
                let is_loop = scanned.is_none();
                let trips = TensorData::new(&[], &[bodies.len() as i64]);
                Control::Repeat(Repeat {
                    trips: is_loop.then(|| add_scalar(model, trips, *known)),
                    condition: (is_loop && *conditional)
                        .then(|| add_scalar(model, TensorData::new(&[], &[true]), *known)),
                    bodies: bodies.iter().map(|body| body.iter().map(at).collect()).collect(),
                    initial: value(*initial),
                    states: bodies.iter().map(last).collect(),
                    scanned: scanned.as_ref().map(|(sequence, elements)| (value(*sequence), all(elements))),
                    collected: collected.as_ref().map(|(each, list)| (all(each), value(*list))),
                })
            }
        };
        let region = Region { nodes: start..start + draft.nodes.len(), control };
        let operands = region.operands().into_iter().map(|operand| operand.map(|value| model.values[value].dtype));
        let legal = schema::signature(region.operator(), self.opset)
            .filter(|signature| signature.allows(operands, region.output_dtypes(model)))
            .is_some_and(|signature| focus.admits(region.operator(), signature.version, &region.form(model)));
        if legal {
            model.regions.push(region);
        } else {
            model.values.truncate(values);
            model.leaves.truncate(leaves);
        }
    }
}

/// Where the vertices of a graph are in its model.
pub(super) struct Places {
    pub node: Vec<usize>,
    pub first_value: Vec<usize>,
}

fn add_scalar(model: &mut Model, content: TensorData, known: bool) -> usize {
    let value = model.values.len();
    let (role, prefix) = if known { (Role::Constant, 'c') } else { (Role::Input, 'x') };
    let name = format!("{prefix}{value}");
    model.values.push(model::Value { name, dtype: content.dtype, shape: Vec::new() });
    model.leaves.push(model::Leaf { value, role, domain: Domain::Any, content: Some(content), constant_node: false });
    value
}
