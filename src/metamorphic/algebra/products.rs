//! Matrix products.

use super::reductions::reduce;
use super::{Rule, Site, rule};
use crate::metamorphic::draft::{Draft, Wire};
use crate::spec::Attribute;

/// The first `at` elements of an axis, and the others.
pub fn cut(d: &Draft, x: Wire, axis: usize, at: usize) -> (Wire, Wire) {
    if d.coin() {
        return (d.slice(x, axis, 0, at as i64), d.slice(x, axis, at as i64, i64::MAX));
    }
    let rest = d.shape(x).and_then(|shape| shape[axis].checked_sub(at));
    let parts = rest.and_then(|rest| {
        d.outputs("Split", &[Some(x?), d.sizes(&[at, rest])], vec![("axis", Attribute::Int(axis as i64))], 2)
    });
    parts.map_or((None, None), |parts| (Some(parts[0]), Some(parts[1])))
}

/// Somewhere within an axis; none where it has less than two elements.
pub fn inner(d: &Draft, x: Wire, axis: usize) -> Option<usize> {
    let size = *d.shape(x)?.get(axis)?;
    (size >= 2).then(|| 1 + d.below(size - 1))
}

/// The last two axes exchanged.
fn turned(d: &Draft, x: Wire) -> Wire {
    let rank = d.rank(x).filter(|&rank| rank >= 2)?;
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(rank - 2, rank - 1);
    d.transpose(x, &order)
}

fn matrices(s: &Site) -> Option<(Wire, Wire)> {
    let (a, b) = s.pair()?;
    (s.rank(a)? == 2 && s.rank(b)? == 2).then_some((a, b))
}

pub const RULES: &[Rule] = &[
    rule("product = with alpha and beta", &["MatMul"], |s| {
        let (a, b) = matrices(s)?;
        match s.below(3) {
            0 => s.with("Gemm", &[a, turned(s, b)], vec![("transB", Attribute::Int(1))]),
            1 => s.with("Gemm", &[turned(s, a), b], vec![("transA", Attribute::Int(1))]),
            _ => s.op("Gemm", &[a, b]),
        }
    }),
    rule("with alpha and beta = product", &["Gemm"], |s| {
        let laid = |index, name| if s.a.int(name, 0) != 0 { turned(s, s.x(index)) } else { s.x(index) };
        let scaled = |x, name| match s.a.float(name, 1.0) {
            1.0 => x,
            factor => s.op("Mul", &[x, s.number(x, factor)]),
        };
        let product = scaled(s.op("MatMul", &[laid(0, "transA"), laid(1, "transB")]), "alpha");
        if s.x(2).is_some() { s.op("Add", &[product, scaled(s.x(2), "beta")]) } else { product }
    }),
    rule("addend outside", &["Gemm"], |s| {
        let kept = ["transA", "transB"].map(|name| (name, Attribute::Int(s.a.int(name, 0))));
        let alpha = ("alpha", Attribute::Float(s.a.float("alpha", 1.0) as f32));
        let product = s.with("Gemm", &[s.x(0), s.x(1)], kept.into_iter().chain([alpha]).collect());
        let scaled = s.op("Mul", &[s.x(2), s.float(s.x(2), "beta", 1.0)]);
        s.op("Add", &[product, scaled])
    }),
    rule("A B = (B' A')'", &["MatMul"], |s| turned(s, s.op("MatMul", &[turned(s, s.x(1)), turned(s, s.x(0))]))),
    rule("sum of two products", &["MatMul"], |s| {
        let (a, b) = s.pair()?;
        let (last, row) = (s.rank(a)?.checked_sub(1)?, s.rank(b)?.saturating_sub(2));
        let at = inner(s, a, last)?;
        let ((a0, a1), (b0, b1)) = (cut(s, a, last, at), cut(s, b, row, at));
        s.op("Add", &[s.op("MatMul", &[a0, b0]), s.op("MatMul", &[a1, b1])])
    }),
    rule("two products side by side", &["MatMul"], |s| {
        let (a, b) = s.pair().filter(|&(_, b)| s.rank(b).is_some_and(|rank| rank >= 2))?;
        let column = s.rank(b)? - 1;
        let (b0, b1) = cut(s, b, column, inner(s, b, column)?);
        s.concat(&[s.op("MatMul", &[a, b0]), s.op("MatMul", &[a, b1])], s.output().shape.len() - 1)
    }),
    rule("two products below each other", &["MatMul"], |s| {
        let (a, b) = s.pair().filter(|&(a, _)| s.rank(a).is_some_and(|rank| rank >= 2))?;
        let row = s.rank(a)? - 2;
        let (a0, a1) = cut(s, a, row, inner(s, a, row)?);
        let axis = s.output().shape.len() - if s.rank(b)? > 1 { 2 } else { 1 };
        s.concat(&[s.op("MatMul", &[a0, b]), s.op("MatMul", &[a1, b])], axis)
    }),
    rule("batches below each other", &["MatMul"], |s| {
        let (a, b) = s.pair()?;
        let shape = s.shape(a).filter(|shape| shape.len() > 2 && s.rank(b) == Some(2))?;
        let (&terms, rows) = shape.split_last()?;
        let product = s.op("MatMul", &[s.reshape(a, &[rows.iter().product(), terms]), b]);
        s.reshape(product, &s.output().shape)
    }),
    rule("products, then their sum", &["MatMul"], |s| {
        let (a, b) = s.pair()?;
        let (m, n) = (s.rank(a).filter(|&rank| rank >= 2)?, s.rank(b).filter(|&rank| rank >= 2)?);
        let products =
            s.op("Mul", &[s.op("Unsqueeze", &[a, s.sizes(&[m])]), s.op("Unsqueeze", &[b, s.sizes(&[n - 2])])]);
        reduce(s, "ReduceSum", products, &[s.rank(products)? - 2], false)
    }),
    rule("vector = matrix of one row or column", &["MatMul"], |s| {
        let (a, b) = s.pair()?;
        let (row, column) = (s.rank(a) == Some(1), s.rank(b) == Some(1));
        let a = if row { s.op("Unsqueeze", &[a, s.integers(&[0])]) } else { a };
        let b = if column { s.op("Unsqueeze", &[b, s.integers(&[1])]) } else { b };
        let axes: Vec<i64> =
            [(row, -2), (column, -1)].into_iter().filter(|(is, _)| *is).map(|(_, axis)| axis).collect();
        s.op("Squeeze", &[s.op("MatMul", &[a, b]), s.integers(&axes)]).filter(|_| row || column)
    }),
    rule("product = its equation", &["MatMul"], |s| {
        // Every ellipsis must stand for the same number of axes.
        let (a, b) = s.pair().filter(|&(a, b)| s.rank(a) == s.rank(b) && s.rank(a).is_some_and(|rank| rank >= 2))?;
        let equation = if s.rank(a) == Some(2) { "mk,kn->mn" } else { "...mk,...kn->...mn" };
        let product = s.with("Einsum", &[a, b], vec![("equation", Attribute::Text(equation.to_owned()))]);
        s.sums(*s.shape(a)?.last()?, product)
    }),
    rule("equation = product", &["Einsum"], einsum),
    rule("equation of one = sum and order", &["Einsum"], |s| {
        let (operands, output) = equation(s)?;
        let [labels] = &operands[..] else { return None };
        let summed: Vec<usize> = (0..labels.len()).filter(|&axis| !output.contains(&labels[axis])).collect();
        let kept: Vec<char> = labels.iter().copied().filter(|label| output.contains(label)).collect();
        let total = if summed.is_empty() { s.x(0) } else { reduce(s, "ReduceSum", s.x(0), &summed, false) };
        s.transpose(total, &positions(&output, &kept)?)
    }),
];

/// The labels of the operands and of the output, of an equation that writes these and nothing but them, each once a term.
fn equation(s: &Site) -> Option<(Vec<Vec<char>>, Vec<char>)> {
    let text: String = s.a.text("equation", "").chars().filter(|letter| *letter != ' ').collect();
    let (operands, output) = text.split_once("->")?;
    let labels = |term: &str| {
        let labels: Vec<char> = term.chars().collect();
        let once = |at: usize| labels[at].is_alphabetic() && !labels[..at].contains(&labels[at]);
        (0..labels.len()).all(once).then_some(labels)
    };
    Some((operands.split(',').map(labels).collect::<Option<_>>()?, labels(output)?))
}

/// Where each of the `wanted` labels is in `labels`.
fn positions(wanted: &[char], labels: &[char]) -> Option<Vec<usize>> {
    wanted.iter().map(|label| labels.iter().position(|other| other == label)).collect()
}

/// An equation of two operands as one batched product: labels are those of batches, rows, columns or terms.
fn einsum(s: &Site) -> Wire {
    let (operands, output) = equation(s)?;
    let [left, right] = &operands[..] else { return None };
    let of = |labels: &[char], in_other: &[char], shared: bool, kept: bool| -> Vec<char> {
        let fits = |label: &&char| in_other.contains(label) == shared && output.contains(label) == kept;
        labels.iter().filter(fits).copied().collect()
    };
    let (batch, terms) = (of(left, right, true, true), of(left, right, true, false));
    let (rows, columns) = (of(left, right, false, true), of(right, left, false, true));
    let alone = of(left, right, false, false).len() + of(right, left, false, false).len();
    let (left_shape, right_shape) = (s.shape(s.x(0))?, s.shape(s.x(1))?);
    let sizes = |labels: &[char]| -> Option<Vec<usize>> {
        let size = |label: &char| match left.iter().position(|other| other == label) {
            Some(axis) => Some(left_shape[axis]),
            None => Some(right_shape[right.iter().position(|other| other == label)?]),
        };
        labels.iter().map(size).collect()
    };
    let count = |labels: &[char]| sizes(labels).map(|sizes| sizes.iter().product::<usize>());
    let (b, m, k, n) = (count(&batch)?, count(&rows)?, count(&terms)?, count(&columns)?);
    let a = s.transpose(s.x(0), &positions(&[&batch[..], &rows, &terms].concat(), left)?);
    let c = s.transpose(s.x(1), &positions(&[&batch[..], &terms, &columns].concat(), right)?);
    let product = s.op("MatMul", &[s.reshape(a, &[b, m, k]), s.reshape(c, &[b, k, n])]).filter(|_| alone == 0);
    let all = [&batch[..], &rows, &columns].concat();
    s.transpose(s.reshape(product, &sizes(&all)?), &positions(&output, &all)?)
}
