//! The symbolic graph: operators and leaves whose sizes are terms.

use crate::dtype::DType;
use crate::input::{Uses, mix};
use crate::model::{self, Model};
use crate::solve::Laws;
use crate::spec::{Attribute, Domain, OpSpec, Role, Skip, TensorType};
use crate::support::Focus;
use crate::tensor::TensorData;
use crate::term::{Term, Vars};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;
use std::borrow::Cow;

mod control;
mod grow;
mod rebind;
mod text;

use control::Places;
pub use grow::{grow, grow_with};
pub use text::{dot, text};

/// A leaf or an operator.
#[derive(Debug)]
pub enum Vertex {
    Leaf(Leaf),
    Operator(Operator),
}

/// A value that no operator computes.
#[derive(Debug)]
pub struct Leaf {
    pub ty: TensorType,
    pub role: Role,
    pub domain: Domain,
    pub content: Option<Vec<Term>>,
    /// The content is in units of one over this.
    pub denominator: i64,
}

/// One application of an operator.
#[derive(Clone, Debug)]
pub struct Operator {
    pub spec: &'static OpSpec,
    pub attributes: Vec<(&'static str, Attribute<Term>)>,
    /// How many operands are written, absent ones included; the present ones are edges.
    pub operand_count: usize,
    pub outputs: Vec<TensorType>,
    /// Indices into `outputs`: those that are left out.
    pub omitted: Vec<usize>,
    pub accumulate: Option<Term>,
    /// Its first output is a graph output even when it is used.
    pub exposed: bool,
}

/// Output `from` of the source is operand `to` of the target.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    pub from: usize,
    pub to: usize,
}

/// A value: an output of a vertex.
pub type ValueId = (NodeIndex, usize);

/// A graph with an assignment of its variables that fulfils every law.
#[derive(Default, Debug)]
pub struct Graph {
    /// See [`Model::opset`].
    pub opset: i64,
    /// See [`Model::symbolic`].
    symbolic: bool,
    /// The backends that control flow must be fit for.
    focus: Focus,
    /// See [`Swarm::constant_nodes`](crate::swarm::Swarm::constant_nodes).
    pub constant_nodes: bool,
    pub dag: DiGraph<Vertex, Wire>,
    pub vars: Vars,
    pub laws: Laws,
    /// For every record in order: the operator it became (none where it only begins a branch), or why it became none.
    pub fates: Vec<Result<Option<NodeIndex>, Skip>>,
    /// For every record in order: what its bytes decide, whether it was kept or not.
    pub uses: Vec<Uses>,
    regions: Vec<control::RegionDraft>,
    /// The values that further records may use, oldest first, with their types.
    values: Vec<ValueId>,
    types: Vec<TensorType>,
}

impl Graph {
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.dag.node_weights().filter_map(|vertex| match vertex {
            Vertex::Operator(operator) => Some(operator),
            Vertex::Leaf(_) => None,
        })
    }

    /// The element types of an operator's operands (none where one is absent) and of its outputs.
    pub fn form(&self, index: NodeIndex) -> Option<(Vec<Option<DType>>, Vec<DType>)> {
        let Vertex::Operator(operator) = &self.dag[index] else { return None };
        let mut operands = vec![None; operator.operand_count];
        for edge in self.dag.edges_directed(index, Direction::Incoming) {
            operands[edge.weight().to] = Some(self.output_type((edge.source(), edge.weight().from)).dtype);
        }
        Some((operands, operator.outputs.iter().map(|output| output.dtype).collect()))
    }

    fn size(&self, term: Term) -> i64 {
        term.eval(&self.vars).expect("the assignment fulfils every law")
    }

    fn shape(&self, ty: &TensorType) -> Vec<usize> {
        ty.shape.iter().map(|&dim| self.size(dim) as usize).collect()
    }

    /// The concrete model. Cannot fail: every law has been checked.
    pub fn model(&self) -> Model {
        let (order, regions) = self.order();
        let mut model = Model { opset: self.opset, symbolic: self.symbolic, ..Model::default() };
        let nowhere = || vec![usize::MAX; self.dag.node_count()];
        let mut places = Places { node: nowhere(), first_value: nowhere() };
        for &index in &order {
            places.first_value[index.index()] = model.values.len();
            places.node[index.index()] = model.nodes.len();
            match &self.dag[index] {
                Vertex::Leaf(leaf) => self.add_leaf(&mut model, leaf),
                Vertex::Operator(operator) => self.add_node(&mut model, index, operator, &places.first_value),
            }
        }
        regions.into_iter().for_each(|region| self.add_region(&mut model, region, &places, self.focus));
        model.regions.sort_by_key(|region| region.nodes.start);
        model
    }

    fn add_leaf(&self, model: &mut Model, leaf: &Leaf) {
        let prefix = match leaf.role {
            Role::Input => "x",
            Role::Initializer => "w",
            Role::Constant => "c",
        };
        let shape = self.shape(&leaf.ty);
        let content = leaf.content.as_ref().map(|terms| {
            let elements: Vec<f64> =
                terms.iter().map(|&term| self.size(term) as f64 / leaf.denominator as f64).collect();
            TensorData::from_f64(leaf.ty.dtype, &shape, &elements)
        });
        let domain = match leaf.domain {
            Domain::Index(bound) => Domain::Index(self.size(bound)),
            Domain::Between(low, high) => Domain::Between(low, self.size(high)),
            Domain::Any => Domain::Any,
            Domain::NonZero => Domain::NonZero,
            Domain::Range(low, high) => Domain::Range(low, high),
        };
        let value = model.values.len();
        let constant_node = self.constant_nodes && leaf.role != Role::Input && mix(value as u64).is_multiple_of(2);
        model.leaves.push(model::Leaf { value, role: leaf.role, domain, content, constant_node });
        let name = format!("{prefix}{}", model.values.len());
        model.values.push(model::Value { name, dtype: leaf.ty.dtype, shape });
    }

    fn add_node(&self, model: &mut Model, index: NodeIndex, operator: &Operator, first_value: &[usize]) {
        let mut operands = vec![None; operator.operand_count];
        for edge in self.dag.edges_directed(index, Direction::Incoming) {
            operands[edge.weight().to] = Some(first_value[edge.source().index()] + edge.weight().from);
        }
        let mut outputs = Vec::new();
        for (slot, ty) in operator.outputs.iter().enumerate() {
            let value = model.values.len();
            let omitted = operator.omitted.contains(&slot);
            let name = if omitted { String::new() } else { format!("t{value}") };
            model.values.push(model::Value { name, dtype: ty.dtype, shape: self.shape(ty) });
            outputs.push(value);
            if omitted {
                continue;
            }
            let used = self.dag.edges(index).any(|edge| edge.weight().from == slot);
            if !used || (slot == 0 && operator.exposed) {
                model.outputs.push(value);
            }
        }
        let concrete = |value: &Attribute<Term>| match value {
            Attribute::Int(term) => Attribute::Int(self.size(*term)),
            Attribute::Ints(terms) => Attribute::Ints(terms.iter().map(|&term| self.size(term)).collect()),
            Attribute::Float(value) => Attribute::Float(*value),
            Attribute::Floats(values) => Attribute::Floats(values.clone()),
            Attribute::Text(value) => Attribute::Text(value.clone()),
            Attribute::Tensor(value) => Attribute::Tensor(value.clone()),
            Attribute::Texts(values) => Attribute::Texts(values.clone()),
        };
        model.nodes.push(model::Node {
            spec: operator.spec,
            name: format!("n{}", model.nodes.len()),
            operands,
            outputs,
            attributes: operator.attributes.iter().map(|(k, v)| (Cow::Borrowed(*k), concrete(v))).collect(),
            accumulate: operator.accumulate.map(|term| self.size(term)),
        });
    }
}
