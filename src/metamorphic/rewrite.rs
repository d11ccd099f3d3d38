//! Operators that change nothing, put between others: what an optimiser removes, merges or moves.

use super::draft::{Draft, Wire};
use crate::dtype::DType;
use crate::input::Stream;
use crate::limits::MAX_RANK;
use crate::model::{LeafData, Model};
use crate::spec::Role;

/// Operators that one edge may get.
const MOST: usize = 3;

/// Operators that give back the value that they are given, if the rule fits it.
type Rule = fn(&Draft, Wire) -> Wire;

const RULES: &[Rule] = &[
    |d, x| d.op("Identity", &[x]),
    double_transpose,
    unsqueezed,
    flattened,
    |d, x| d.op("Add", &[x, d.number(x, 0.0)]),
    |d, x| d.op("Sub", &[x, d.number(x, 0.0)]),
    |d, x| d.op("Mul", &[x, d.number(x, 1.0)]),
    |d, x| d.op("Div", &[x, d.number(x, 1.0)]),
    |d, x| d.op("Neg", &[d.op("Neg", &[x])]),
    |d, x| d.op("Not", &[d.op("Not", &[x])]),
    widened,
    // All of the first axis, by an end far beyond it.
    |d, x| (d.rank(x)? > 0).then(|| d.slice(x, 0, 0, i64::MAX))?,
    |d, x| (d.rank(x)? > 0).then(|| d.concat(&[x], 0))?,
    |d, x| d.op("Expand", &[x, d.sizes(&d.shape(x)?)]),
];

/// The axes reversed, and back.
fn double_transpose(d: &Draft, x: Wire) -> Wire {
    let reversed: Vec<usize> = (0..d.rank(x)?).rev().collect();
    (reversed.len() >= 2).then(|| d.transpose(d.transpose(x, &reversed), &reversed))?
}

fn unsqueezed(d: &Draft, x: Wire) -> Wire {
    let axis = d.integers(&[0]).filter(|_| d.rank(x).is_some_and(|rank| rank < MAX_RANK));
    d.op("Squeeze", &[d.op("Unsqueeze", &[x, axis]), d.integers(&[0])])
}

/// A list, and again the shape that was.
fn flattened(d: &Draft, x: Wire) -> Wire {
    let shape = d.shape(x)?;
    // A 0 would copy a size of the list.
    let list = (!shape.contains(&0)).then(|| d.op("Reshape", &[x, d.integers(&[-1])]))?;
    d.reshape(list, &shape)
}

fn widened(d: &Draft, x: Wire) -> Wire {
    let dtype = d.dtype(x)?;
    d.cast(d.cast(x, wider(dtype)?), dtype)
}

/// A wider type that holds every value exactly.
pub fn wider(dtype: DType) -> Option<DType> {
    match dtype {
        DType::F16 | DType::BF16 => Some(DType::F32),
        DType::F32 => Some(DType::F64),
        DType::I8 | DType::U8 | DType::Bool => Some(DType::I32),
        DType::I32 | DType::U32 | DType::I16 | DType::U16 => Some(DType::I64),
        DType::F64 | DType::I64 | DType::U64 => None,
    }
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
        let draft = Draft::new(model, data, stream);
        let Some(result) = rule(&draft, Some(value)) else { continue };
        let (added, result) = draft.finish().insert("neutral", model, data, node, &[], result);
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
    for (index, node) in model.nodes.iter().enumerate().filter(|(index, _)| !model.in_region(*index)) {
        let present = node.operands.iter().enumerate().filter_map(|(slot, value)| Some((index, slot, (*value)?)));
        edges.extend(present.filter(|&(_, _, value)| !constant(value)));
    }
    edges
}
