//! The concrete model: every size and attribute a number, every value named.

use crate::dtype::DType;
use crate::input::Stream;
use crate::schema;
use crate::spec::{Attribute, Domain, OpSpec, Role};
use crate::support::{Needs, Support, form_of};
use crate::tensor::TensorData;
use std::borrow::Cow;
use std::collections::BTreeSet;

mod cut;
mod region;

pub use cut::Cut;
pub use region::{Control, Region, Repeat};

/// A model whose nodes are in topological order.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The version of the ONNX operator set that the nodes are taken from.
    pub opset: i64,
    /// The dimensions of graph inputs and outputs that are not 1 are exported as symbols, so that a compiler learns the
    /// sizes only when the model runs.
    pub symbolic: bool,
    pub values: Vec<Value>,
    pub leaves: Vec<Leaf>,
    pub nodes: Vec<Node>,
    /// Control flow, by ascending nodes.
    pub regions: Vec<Region>,
    /// Indices into `values`, in the order of `graph.output`.
    pub outputs: Vec<usize>,
}

/// A named tensor of known type. The name of an output that is left out is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

/// A value that no node computes.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Index into [`Model::values`].
    pub value: usize,
    pub role: Role,
    pub domain: Domain<i64>,
    /// The elements of a [`Role::Constant`], and of a graph input whose data are always the same.
    pub content: Option<TensorData>,
    /// It is the output of a `Constant` node rather than an initializer.
    pub constant_node: bool,
}

/// One application of an operator.
#[derive(Clone, Debug)]
pub struct Node {
    pub spec: &'static OpSpec,
    pub name: String,
    /// Indices into [`Model::values`]; `None` where an optional operand is absent.
    pub operands: Vec<Option<usize>>,
    pub outputs: Vec<usize>,
    pub attributes: Vec<(Cow<'static, str>, Attribute<i64>)>,
    /// Products summed for one output element, where the operator declared it.
    pub accumulate: Option<i64>,
}

/// The data of every leaf, in the order of [`Model::leaves`].
pub type LeafData = Vec<TensorData>;

impl Value {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Model {
    /// The form of a node, as support tables name it.
    pub fn form(&self, node: &Node) -> String {
        let dtype = |value: usize| self.values[value].dtype;
        form_of(node.operands.iter().map(|operand| operand.map(dtype)), node.outputs.iter().map(|&value| dtype(value)))
    }

    /// What nodes and control flow read, as often as they do.
    fn operands(&self) -> impl Iterator<Item = usize> {
        let nodes = self.nodes.iter().flat_map(|node| node.operands.iter().copied());
        nodes.chain(self.regions.iter().flat_map(Region::operands)).flatten()
    }

    /// What a backend must take for the model.
    pub fn needs(&self) -> Needs {
        let version = |operator| schema::signature(operator, self.opset).map(|signature| signature.version);
        let nodes = self.nodes.iter().map(|node| (node.spec.name, self.form(node)));
        let regions = self.regions.iter().map(|region| (region.operator(), region.form(self)));
        let forms = nodes.chain(regions).map(|(operator, form)| (operator, version(operator), form)).collect();
        // The tables were made with fixed sizes, and know nothing of types that no operator reads.
        let read: BTreeSet<usize> = self.operands().collect();
        let special = self.symbolic || self.leaves.iter().any(|leaf| !read.contains(&leaf.value));
        Needs { forms, most: if special { Support::Partial } else { Support::Yes } }
    }

    /// Puts a node before the one at `at`, which must not be within control flow.
    pub fn insert_node(&mut self, at: usize, node: Node) {
        self.nodes.insert(at, node);
        for region in &mut self.regions {
            region.shift(at, 1);
        }
    }

    /// Takes away the node at `at`, which must not be within control flow.
    pub fn remove_node(&mut self, at: usize) {
        self.nodes.remove(at);
        for region in &mut self.regions {
            region.shift(at, -1);
        }
    }

    /// Whether the node at `at` is within control flow.
    pub fn in_region(&self, at: usize) -> bool {
        self.regions.iter().any(|region| region.nodes.contains(&at))
    }

    /// Whether each node computes something that `values` are computed from, or one of them.
    pub fn ancestors(&self, values: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.values.len()];
        values.iter().for_each(|&value| needed[value] = true);
        let mut ancestors = vec![false; self.nodes.len()];
        for (node, ancestor) in self.nodes.iter().zip(&mut ancestors).rev() {
            *ancestor = node.outputs.iter().any(|&output| needed[output]);
            if *ancestor {
                node.operands.iter().flatten().for_each(|&operand| needed[operand] = true);
            }
        }
        ancestors
    }

    /// The leaves that are graph inputs, in the order of `graph.input`.
    pub fn inputs(&self) -> impl Iterator<Item = (usize, &Leaf)> {
        self.leaves.iter().enumerate().filter(|(_, leaf)| leaf.role == Role::Input)
    }

    /// The data that a backend is given, out of that of all leaves.
    pub fn input_data(&self, data: &LeafData) -> Vec<TensorData> {
        self.inputs().map(|(index, _)| data[index].clone()).collect()
    }

    /// Values for every leaf within its domain: a start for the input search. See [`Model::sample_leaf`].
    pub fn sample(&self, seed: u64, attempt: u32) -> LeafData {
        (0..self.leaves.len()).map(|leaf| self.sample_leaf(leaf, seed, attempt)).collect()
    }

    /// Values for one leaf within its domain. A higher `attempt` keeps the values closer to 0, where products and powers
    /// overflow less, and an odd one makes them positive, as logarithms and roots want. The sixth and seventh keep integers
    /// at 0, and floats below 0 and above 1, as Acosh wants.
    pub fn sample_leaf(&self, index: usize, seed: u64, attempt: u32) -> TensorData {
        let leaf = &self.leaves[index];
        if let Some(content) = &leaf.content {
            return content.clone();
        }
        let value = &self.values[leaf.value];
        let mut stream = Stream::new(seed ^ (index as u64) << 32);
        let ties = stream.below(TIES) == 0 && value.dtype.is_float() && leaf.domain == Domain::Any;
        let values = match ties && attempt == 0 {
            true => drawn(value.len(), || tie(&mut stream)),
            false => sample_elements(value.len(), value.dtype, leaf.domain, attempt, &mut stream),
        };
        TensorData::from_f64(value.dtype, &value.shape, &values)
    }
}

/// By how much the floats of a sample are multiplied, by `attempt % 8`.
const SCALES: [f64; 8] = [1.0, 1.0, 1.0 / 4.0, 1.0 / 4.0, 1.0 / 64.0, 1.0 / 64.0, 1.0, 1.0];

/// By how much the floats of a sample are multiplied. After eight attempts it starts again.
pub fn sample_scale(attempt: u32) -> f64 {
    SCALES[(attempt % 8) as usize]
}

/// One float leaf in so many has nothing but integers and halves: what rounding has to break, and what is equal to others.
const TIES: u64 = 8;

/// A multiple of 1/2 within 4 of 0, and not 0.
fn tie(stream: &mut Stream) -> f64 {
    let magnitude = (1 + stream.below(8)) as f64 / 2.0;
    if stream.below(2) == 0 { magnitude } else { -magnitude }
}

/// So many elements. Small integers and multiples of 1/64 keep much of a model exactly representable, also in f16.
fn sample_elements(count: usize, dtype: DType, domain: Domain<i64>, attempt: u32, stream: &mut Stream) -> Vec<f64> {
    match domain {
        Domain::Index(bound) => drawn(count, || stream.below(2 * bound.max(1) as u64) as f64 - bound as f64),
        Domain::Between(low, high) => {
            let choices = (high - low + 1).max(1) as u64;
            drawn(count, || low as f64 + stream.below(choices) as f64)
        }
        Domain::Range(low, high) if dtype.is_float() => drawn(count, || low + (high - low) * stream.unit()),
        Domain::Range(low, high) => drawn(count, || (low + ((high - low + 1.0) * stream.unit()).floor()).min(high)),
        Domain::NonZero => {
            let signed = dtype.min() < 0.0;
            drawn(count, || {
                let magnitude = 1.0 + stream.below(6) as f64;
                if signed && stream.below(2) == 1 { -magnitude } else { magnitude }
            })
        }
        Domain::Any => sample_any(count, dtype, attempt % 8, stream),
    }
}

/// Elements that may be anything, for an attempt below 8.
fn sample_any(count: usize, dtype: DType, attempt: u32, stream: &mut Stream) -> Vec<f64> {
    let spread = 6u64 >> (attempt / 2);
    if dtype == DType::Bool {
        return drawn(count, || stream.below(2) as f64);
    }
    if dtype.is_unsigned() {
        return drawn(count, || stream.below((2 * spread).max(2) - 1) as f64);
    }
    let mut elements = if dtype.is_int() {
        drawn(count, || stream.below(2 * spread + 1) as f64 - spread as f64)
    } else {
        let scale = sample_scale(attempt);
        drawn(count, || ((stream.below(513) as f64 - 256.0) / 64.0 + 1.0 / 128.0) * scale)
    };
    match attempt {
        6 if dtype.is_float() => elements.iter_mut().for_each(|element| *element = -element.abs()),
        7 if dtype.is_float() => elements.iter_mut().for_each(|element| *element = element.abs() + 1.0),
        attempt if attempt % 2 == 1 => elements.iter_mut().for_each(|element| *element = element.abs()),
        _ => {}
    }
    elements
}

fn drawn(count: usize, mut draw: impl FnMut() -> f64) -> Vec<f64> {
    (0..count).map(|_| draw()).collect()
}
