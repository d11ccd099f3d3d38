//! Operators that change nothing, put between others: what an optimiser removes, merges or moves.

use crate::dtype::DType;
use crate::input::Stream;
use crate::model::{Leaf, LeafData, Model, Node, Value};
use crate::ops;
use crate::schema;
use crate::spec::{Attribute, Domain, Role};
use crate::tensor::TensorData;
use std::borrow::Cow;

/// Operators that one edge may get.
const MOST: usize = 3;

/// One operator of a rewrite: its main operand is the result of the one before.
struct Step {
    operator: &'static str,
    /// Constants after the main operand.
    constants: Vec<TensorData>,
    attributes: Vec<(&'static str, Attribute<i64>)>,
    dtype: DType,
    shape: Vec<usize>,
}

/// Operators that give back a value of this type, if the rule fits it.
type Rule = fn(&Value) -> Option<Vec<Step>>;

const RULES: &[Rule] = &[
    |x| Some(vec![plain("Identity", x)]),
    double_transpose,
    unsqueezed,
    flattened,
    |x| with_scalar("Add", x, 0.0),
    |x| with_scalar("Sub", x, 0.0),
    |x| with_scalar("Mul", x, 1.0),
    |x| with_scalar("Div", x, 1.0),
    |x| (x.dtype.min() < 0.0).then(|| vec![plain("Neg", x), plain("Neg", x)]),
    |x| (x.dtype == DType::Bool).then(|| vec![plain("Not", x), plain("Not", x)]),
    widened,
    sliced,
    |x| (!x.shape.is_empty()).then(|| vec![with("Concat", x, vec![], vec![("axis", Attribute::Int(0))])]),
    expanded,
];

fn with(
    operator: &'static str,
    x: &Value,
    constants: Vec<TensorData>,
    attributes: Vec<(&'static str, Attribute<i64>)>,
) -> Step {
    Step { operator, constants, attributes, dtype: x.dtype, shape: x.shape.clone() }
}

fn plain(operator: &'static str, x: &Value) -> Step {
    with(operator, x, Vec::new(), Vec::new())
}

fn integers(values: impl IntoIterator<Item = i64>) -> TensorData {
    let values: Vec<i64> = values.into_iter().collect();
    TensorData::new(&[values.len()], &values)
}

fn sizes(shape: &[usize]) -> TensorData {
    integers(shape.iter().map(|&size| size as i64))
}

/// The axes reversed, and back.
fn double_transpose(x: &Value) -> Option<Vec<Step>> {
    let rank = x.shape.len();
    let reversed = || vec![("perm", Attribute::Ints((0..rank as i64).rev().collect()))];
    let mut first = with("Transpose", x, vec![], reversed());
    first.shape.reverse();
    (rank >= 2).then(|| vec![first, with("Transpose", x, vec![], reversed())])
}

fn unsqueezed(x: &Value) -> Option<Vec<Step>> {
    let mut first = with("Unsqueeze", x, vec![integers([0])], vec![]);
    first.shape.insert(0, 1);
    (x.shape.len() < crate::limits::MAX_RANK).then(|| vec![first, with("Squeeze", x, vec![integers([0])], vec![])])
}

/// A list, and again the shape that was.
fn flattened(x: &Value) -> Option<Vec<Step>> {
    let mut first = with("Reshape", x, vec![integers([-1])], vec![]);
    first.shape = vec![x.len()];
    // A 0 would copy a size of the list.
    (!x.is_empty()).then(|| vec![first, with("Reshape", x, vec![sizes(&x.shape)], vec![])])
}

fn with_scalar(operator: &'static str, x: &Value, scalar: f64) -> Option<Vec<Step>> {
    (x.dtype != DType::Bool)
        .then(|| vec![with(operator, x, vec![TensorData::from_f64(x.dtype, &[], &[scalar])], vec![])])
}

/// A wider type that holds every value exactly, and back.
fn widened(x: &Value) -> Option<Vec<Step>> {
    let wider = match x.dtype {
        DType::F16 | DType::BF16 => DType::F32,
        DType::F32 => DType::F64,
        DType::I8 | DType::U8 | DType::Bool => DType::I32,
        DType::I32 | DType::U32 | DType::I16 | DType::U16 => DType::I64,
        DType::F64 | DType::I64 | DType::U64 => return None,
    };
    let to = |dtype: DType| vec![("to", Attribute::Int(dtype.onnx_code().into()))];
    let mut first = with("Cast", x, vec![], to(wider));
    first.dtype = wider;
    Some(vec![first, with("Cast", x, vec![], to(x.dtype))])
}

/// All of the first axis, by an end far beyond it.
fn sliced(x: &Value) -> Option<Vec<Step>> {
    let bounds = vec![integers([0]), integers([i64::MAX]), integers([0])];
    (!x.shape.is_empty()).then(|| vec![with("Slice", x, bounds, vec![])])
}

fn expanded(x: &Value) -> Option<Vec<Step>> {
    Some(vec![with("Expand", x, vec![sizes(&x.shape)], vec![])])
}

/// Puts operators on one to three edges between an input or a node and a node.
pub fn insert(model: &mut Model, data: &mut LeafData, stream: &mut Stream) -> bool {
    let mut changed = false;
    for _ in 0..1 + stream.below(MOST as u64) {
        let edges = edges(model);
        if edges.is_empty() {
            break;
        }
        let (node, slot, value) = edges[stream.below(edges.len() as u64) as usize];
        let rule = RULES[stream.below(RULES.len() as u64) as usize];
        let Some(steps) = rule(&model.values[value]).filter(|steps| legal(model, value, steps)) else { continue };
        let (result, added) = append(model, data, node, value, steps);
        model.nodes[node + added].operands[slot] = Some(result);
        changed = true;
    }
    changed
}

/// Operands of nodes outside of control flow, as node, slot and value. A constant stays where a backend may ask for one.
fn edges(model: &Model) -> Vec<(usize, usize, usize)> {
    let constant = |value: usize| {
        model.leaves.iter().any(|leaf| leaf.value == value && (leaf.role != Role::Input || leaf.content.is_some()))
    };
    let mut edges = Vec::new();
    for (index, node) in model.nodes.iter().enumerate() {
        if model.regions.iter().any(|region| region.nodes.contains(&index)) {
            continue;
        }
        let present = node.operands.iter().enumerate().filter_map(|(slot, value)| Some((index, slot, (*value)?)));
        edges.extend(present.filter(|&(_, _, value)| !constant(value)));
    }
    edges
}

/// Whether the opset has every step with its element types.
fn legal(model: &Model, value: usize, steps: &[Step]) -> bool {
    let mut dtype = model.values[value].dtype;
    steps.iter().all(|step| {
        let operands = std::iter::once(Some(dtype)).chain(step.constants.iter().map(|constant| Some(constant.dtype)));
        let signature = schema::signature(step.operator, model.opset);
        let spec = ops::by_name(step.operator).filter(|spec| spec.since <= model.opset);
        let allowed = spec.is_some() && signature.is_some_and(|signature| signature.allows(operands, [step.dtype]));
        dtype = step.dtype;
        allowed
    })
}

/// Adds the steps before the node at `at`. The value that the last one computes, and how many nodes were added.
fn append(model: &mut Model, data: &mut LeafData, at: usize, mut value: usize, steps: Vec<Step>) -> (usize, usize) {
    let count = steps.len();
    for (index, step) in steps.into_iter().enumerate() {
        let mut operands = vec![Some(value)];
        for constant in step.constants {
            operands.push(Some(add_value(model, constant.dtype, constant.shape.clone())));
            let value = model.values.len() - 1;
            let (role, domain) = (Role::Constant, Domain::Any);
            model.leaves.push(Leaf { value, role, domain, content: Some(constant.clone()), constant_node: false });
            data.push(constant);
        }
        value = add_value(model, step.dtype, step.shape);
        let node = Node {
            spec: ops::by_name(step.operator).expect("a step was checked"),
            name: format!("rewritten_{value}"),
            operands,
            outputs: vec![value],
            attributes: step.attributes.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect(),
            accumulate: None,
        };
        model.insert_node(at + index, node);
    }
    (value, count)
}

fn add_value(model: &mut Model, dtype: DType, shape: Vec<usize>) -> usize {
    let name = format!("r{}", model.values.len());
    model.values.push(Value { name, dtype, shape });
    model.values.len() - 1
}
