//! Operators that move elements, and functions of each element moved past them.

use super::{Rule, Site, rule};
use crate::metamorphic::draft::Wire;
use crate::metamorphic::rewrite::wider;
use crate::spec::{Args, Attribute};

/// Functions of each element whose further operands are scalars.
const FUNCTIONS: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
];
/// Operators that only move the elements of their first operand.
const MOVES: &[&str] = &[
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Reshape",
    "ReverseSequence",
    "Slice",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];
/// Functions of two elements.
const BINARY: &[&str] = &["Add", "Sub", "Mul", "Div", "Max", "Min", "And", "Or", "Xor", "Equal", "Less", "Greater"];

/// The operator of a site with another first operand.
fn on(s: &Site, x: Wire, shape: &[usize]) -> Wire {
    let mut operands = s.node.operands.clone();
    operands[0] = x;
    s.like(s.node, &operands, Some(shape))
}

/// The permutation of a Transpose.
fn order(s: &Site) -> Option<Vec<usize>> {
    let rank = s.rank(s.x(0))?;
    Some(
        s.a.ints("perm")
            .map_or_else(|| (0..rank).rev().collect(), |perm| perm.iter().map(|&axis| axis as usize).collect()),
    )
}

/// The axes of a Squeeze or Unsqueeze in ascending order, for a tensor of rank `rank` that has them.
fn axes(s: &Site, rank: usize) -> Option<Vec<usize>> {
    let mut axes: Vec<usize> = s.list(s.x(1))?.iter().map(|&axis| Args::from_front(axis, rank) as usize).collect();
    axes.sort_unstable();
    Some(axes)
}

pub const RULES: &[Rule] = &[
    rule("f of moved elements = moved f of elements", FUNCTIONS, |s| {
        let moved = s.behind(s.x(0), MOVES)?;
        let inner = on(s, moved.x(0), &s.shape(moved.x(0))?);
        on(&moved, inner, &s.output().shape)
    }),
    rule("moved f of elements = f of moved elements", MOVES, |s| {
        let function = s.behind(s.x(0), FUNCTIONS)?;
        let shape = &s.output().shape;
        on(&function, on(s, function.x(0), shape), shape)
    }),
    rule("f of joined = joined f", FUNCTIONS, |s| {
        let joined = s.behind(s.x(0), &["Concat"])?;
        let parts: Option<Vec<Wire>> =
            joined.node.operands.iter().map(|&part| Some(on(s, part, &s.shape(part)?))).collect();
        joined.again(&parts?)
    }),
    rule("two operands moved = their result moved", MOVES, |s| {
        let binary = s.behind(s.x(0), BINARY)?;
        let (a, b) = binary.pair()?;
        let alike = s.shape(a) == s.shape(b);
        let shape = &s.output().shape;
        binary.again(&[on(s, a.filter(|_| alike), shape), on(s, b, shape)])
    }),
    rule("joined results = results of joined", BINARY, |s| {
        let (a, b) = s.pair()?;
        let (left, right) = (s.behind(a, &["Concat"])?, s.behind(b, &["Concat"])?);
        let shapes = |site: &Site| site.node.operands.iter().map(|&part| site.shape(part)).collect::<Vec<_>>();
        let same = left.node.attributes == right.node.attributes && shapes(&left) == shapes(&right);
        let parts = left.node.operands.iter().zip(&right.node.operands);
        let parts: Vec<Wire> = parts.map(|(&x, &y)| s.again(&[x, y])).collect();
        same.then(|| left.again(&parts))?
    }),
    rule("two orders = one", &["Transpose"], |s| {
        let inner = s.behind(s.x(0), &["Transpose"])?;
        let (first, second) = (order(&inner)?, order(s)?);
        s.transpose(inner.x(0), &second.iter().map(|&axis| first[axis]).collect::<Vec<_>>())
    }),
    rule("one order = two", &["Transpose"], |s| {
        let order = order(s).filter(|order| order.len() > 1)?;
        let mut first: Vec<usize> = (0..order.len()).collect();
        for axis in (1..first.len()).rev() {
            first.swap(axis, s.below(axis + 1));
        }
        let second: Option<Vec<usize>> =
            order.iter().map(|axis| first.iter().position(|other| other == axis)).collect();
        s.transpose(s.transpose(s.x(0), &first), &second?)
    }),
    rule("order of ones = shape", &["Transpose"], |s| {
        let shape = s.shape(s.x(0))?;
        let moved: Vec<usize> = order(s)?.into_iter().filter(|&axis| shape[axis] != 1).collect();
        moved.is_sorted().then(|| s.reshape(s.x(0), &s.output().shape))?
    }),
    rule("two shapes = one", &["Reshape", "Flatten", "Squeeze", "Unsqueeze"], |s| {
        let inner = s.behind(s.x(0), &["Reshape", "Flatten", "Squeeze", "Unsqueeze"])?;
        s.reshape(inner.x(0), &s.output().shape)
    }),
    rule("one shape = two", &["Reshape", "Flatten", "Squeeze", "Unsqueeze"], |s| {
        let list = s.reshape(s.x(0), &[s.output().len()]);
        s.reshape(list, &s.output().shape)
    }),
    rule("axes of ones = shape", &["Flatten", "Squeeze", "Unsqueeze"], |s| s.reshape(s.x(0), &s.output().shape)),
    rule("matrix = flattened", &["Reshape"], |s| {
        let (shape, wanted) = (s.shape(s.x(0))?, &s.output().shape);
        let fits = |axis: &usize| {
            let (rows, columns) = shape.split_at(*axis);
            *wanted == [rows.iter().product::<usize>(), columns.iter().product()]
        };
        let axis = (0..=shape.len()).find(fits)? as i64;
        s.with("Flatten", &[s.x(0)], vec![("axis", Attribute::Int(axis))])
    }),
    rule("one axis removed after another", &["Squeeze"], |s| {
        let axes = axes(s, s.rank(s.x(0))?).filter(|axes| axes.len() > 1)?;
        axes.iter().rev().fold(s.x(0), |x, &axis| s.op("Squeeze", &[x, s.sizes(&[axis])]))
    }),
    rule("one axis inserted after another", &["Unsqueeze"], |s| {
        let axes = axes(s, s.output().shape.len()).filter(|axes| axes.len() > 1)?;
        axes.iter().fold(s.x(0), |x, &axis| s.op("Unsqueeze", &[x, s.sizes(&[axis])]))
    }),
    rule("expanded = plus zeros", &["Expand"], |s| s.op("Add", &[s.x(0), s.filled(s.x(0), &s.output().shape, 0.0)])),
    rule("expanded = times ones", &["Expand"], |s| s.op("Mul", &[s.x(0), s.filled(s.x(0), &s.output().shape, 1.0)])),
    rule("expanded = repeated", &["Expand"], |s| {
        let (shape, wanted) = (s.shape(s.x(0))?, &s.output().shape);
        let ones = vec![1; wanted.len() - shape.len()];
        let full = [&ones[..], &shape].concat();
        let repeats: Vec<usize> = full.iter().zip(wanted).map(|(&size, &to)| if size == to { 1 } else { to }).collect();
        s.op("Tile", &[if ones.is_empty() { s.x(0) } else { s.reshape(s.x(0), &full) }, s.sizes(&repeats)])
    }),
    rule("repeated = joined with itself", &["Tile"], |s| {
        let repeats = s.list(s.x(1)).filter(|repeats| repeats.iter().all(|&times| times >= 1))?;
        let join =
            |x, (axis, &times): (usize, &i64)| if times == 1 { x } else { s.concat(&vec![x; times as usize], axis) };
        repeats.iter().enumerate().fold(s.x(0), join)
    }),
    rule("repeated = expanded", &["Tile"], |s| {
        let (shape, repeats) = (s.shape(s.x(0))?, s.list(s.x(1))?);
        let with = |inserted: &dyn Fn(usize) -> usize| -> Vec<usize> {
            shape.iter().enumerate().flat_map(|(axis, &size)| [inserted(axis), size]).collect()
        };
        let wide = s.op("Expand", &[s.reshape(s.x(0), &with(&|_| 1)), s.sizes(&with(&|axis| repeats[axis] as usize))]);
        s.reshape(wide, &s.output().shape)
    }),
    rule("depth to space = shapes and an order", &["DepthToSpace"], |s| {
        let [n, c, h, w] = s.shape(s.x(0))?.try_into().ok()?;
        let block = s.a.int("blocksize", 1) as usize;
        let depth = c / (block * block);
        let columns = s.a.text("mode", "DCR") == "CRD";
        let split = if columns { [n, depth, block, block, h, w] } else { [n, block, block, depth, h, w] };
        let order = if columns { [0, 1, 4, 2, 5, 3] } else { [0, 3, 4, 1, 5, 2] };
        s.reshape(s.transpose(s.reshape(s.x(0), &split), &order), &s.output().shape)
    }),
    rule("space to depth = shapes and an order", &["SpaceToDepth"], |s| {
        let [n, c, h, w] = s.shape(s.x(0))?.try_into().ok()?;
        let block = s.a.int("blocksize", 1) as usize;
        let order = if s.a.text("mode", "DCR") == "CRD" { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
        let split = s.reshape(s.x(0), &[n, c, h / block, block, w / block, block]);
        s.reshape(s.transpose(split, &order), &s.output().shape)
    }),
    rule("converted = by way of a wider type", &["Cast"], |s| {
        s.cast(s.cast(s.x(0), wider(s.dtype(s.x(0))?)?), s.output().dtype)
    }),
    rule("nothing dropped = the same", &["Dropout"], |s| s.x(0).filter(|_| s.node.outputs.len() == 1)),
    rule("of one axis = of the last", &["Gather"], |s| {
        let (axis, rank) = (s.axis(0)?, s.rank(s.x(0))?);
        let index = s.rank(s.x(1)).filter(|&rank| rank <= 1)?;
        let mut order: Vec<usize> = (0..rank).collect();
        order.remove(axis);
        order.push(axis);
        let last = s.with("Gather", &[s.transpose(s.x(0), &order), s.x(1)], vec![("axis", Attribute::Int(-1))]);
        if index == 0 {
            return last;
        }
        let mut back: Vec<usize> = (0..rank - 1).collect();
        back.insert(axis, rank - 1);
        s.transpose(last, &back)
    }),
    rule("one index = a list of one, squeezed", &["Gather"], |s| {
        let index = s.x(1).filter(|_| s.rank(s.x(1)) == Some(0));
        let axis = s.axis(0)?;
        let list = s.op("Unsqueeze", &[index, s.integers(&[0])]);
        let mut shape = s.output().shape.clone();
        shape.insert(axis, 1);
        s.op("Squeeze", &[s.like(s.node, &[s.x(0), list], Some(&shape)), s.sizes(&[axis])])
    }),
];
