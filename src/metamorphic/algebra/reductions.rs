//! Reductions, softmax and what is built of them.

use super::{Rule, Site, ints, rule};
use crate::dtype::DType;
use crate::metamorphic::draft::{Draft, Wire};
use crate::spec::{Args, Attribute};

const REDUCTIONS: &[&str] = &[
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
];
/// Those that may go over one axis after another.
const REPEATABLE: &[&str] =
    &["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSumExp"];

/// A reduction over at least one axis, in the form of the model's opset. The axes stay if they are to be kept.
pub fn reduce(d: &Draft, operator: &str, x: Wire, axes: &[usize], keep: bool) -> Wire {
    let written: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
    let keep = ("keepdims", Attribute::Int(keep.into()));
    match () {
        () if axes.is_empty() => None,
        () if operator == "ReduceSum" || d.model.opset >= 18 => {
            d.with(operator, &[x, d.integers(&written)], vec![keep])
        }
        () => d.with(operator, &[x], vec![("axes", ints(written)), keep]),
    }
}

/// The reduced axes in ascending order, and whether they are kept. None where it reduces nothing.
fn reduced(s: &Site) -> Option<(Vec<usize>, bool)> {
    let rank = s.rank(s.x(0))?;
    let written = match s.a.ints("axes") {
        Some(axes) => axes.to_vec(),
        None if s.x(1).is_some() => s.list(s.x(1))?,
        None => Vec::new(),
    };
    let all = written.is_empty() && s.a.int("noop_with_empty_axes", 0) == 0;
    let mut axes: Vec<usize> = if all {
        (0..rank).collect()
    } else {
        written.iter().map(|&axis| Args::from_front(axis, rank) as usize).collect()
    };
    axes.sort_unstable();
    (!axes.is_empty()).then(|| (axes, s.a.int("keepdims", 1) != 0))
}

/// The same axes reduced by another operator.
fn instead(s: &Site, operator: &str, x: Wire) -> Wire {
    let (axes, keep) = reduced(s)?;
    reduce(s, operator, x, &axes, keep)
}

fn remove(s: &Site, x: Wire, axes: &[usize], keep: bool) -> Wire {
    if keep { x } else { s.op("Squeeze", &[x, s.sizes(axes)]) }
}

/// How many elements are reduced to one.
fn count(s: &Site) -> Option<f64> {
    let (shape, (axes, _)) = (s.shape(s.x(0))?, reduced(s)?);
    Some(axes.iter().map(|&axis| shape[axis]).product::<usize>() as f64)
}

fn spatial(rank: usize) -> Vec<usize> {
    (2..rank).collect()
}

pub const RULES: &[Rule] = &[
    rule("mean along axes = sum / n", &["ReduceMean"], |s| {
        let sum = instead(s, "ReduceSum", s.x(0));
        s.op("Div", &[sum, s.number(sum, count(s)?)])
    }),
    rule("sum along axes = mean * n", &["ReduceSum"], |s| {
        let mean = instead(s, "ReduceMean", s.x(0).filter(|_| s.output().dtype.is_float()));
        s.op("Mul", &[mean, s.number(mean, count(s)?)])
    }),
    rule("sum of squares = sum of x * x", &["ReduceSumSquare"], |s| {
        instead(s, "ReduceSum", s.op("Mul", &[s.x(0), s.x(0)]))
    }),
    rule("sum of x * x = sum of squares", &["ReduceSum"], |s| {
        let (a, b) = s.behind(s.x(0), &["Mul"])?.pair()?;
        instead(s, "ReduceSumSquare", a.filter(|_| a == b))
    }),
    rule("sum of magnitudes = sum of |x|", &["ReduceL1"], |s| instead(s, "ReduceSum", s.op("Abs", &[s.x(0)]))),
    rule("norm = root of sum of squares", &["ReduceL2"], |s| s.op("Sqrt", &[instead(s, "ReduceSumSquare", s.x(0))])),
    rule("log-sum = log of sum", &["ReduceLogSum"], |s| s.op("Log", &[instead(s, "ReduceSum", s.x(0))])),
    rule("log-sum-exp = log-sum of exp", &["ReduceLogSumExp"], |s| instead(s, "ReduceLogSum", s.op("Exp", &[s.x(0)]))),
    rule("log-sum-exp less its maximum", &["ReduceLogSumExp"], |s| {
        let (axes, keep) = reduced(s)?;
        let most = reduce(s, "ReduceMax", s.x(0), &axes, true);
        let sum = reduce(s, "ReduceSum", s.op("Exp", &[s.op("Sub", &[s.x(0), most])]), &axes, true);
        remove(s, s.op("Add", &[s.op("Log", &[sum]), most]), &axes, keep)
    }),
    rule("maximum = -minimum of -x", &["ReduceMax", "ReduceMin"], |s| {
        let other = if s.node.spec.name == "ReduceMax" { "ReduceMin" } else { "ReduceMax" };
        s.op("Neg", &[instead(s, other, s.op("Neg", &[s.x(0)]))])
    }),
    rule("some axes, then all", REPEATABLE, |s| {
        let (axes, keep) = reduced(s).filter(|(axes, _)| axes.len() > 1)?;
        let first = 1 + s.below(axes.len() - 1);
        reduce(s, s.node.spec.name, reduce(s, s.node.spec.name, s.x(0), &axes[..first], true), &axes, keep)
    }),
    rule("one axis after another", REPEATABLE, |s| {
        let (axes, keep) = reduced(s).filter(|(axes, _)| axes.len() > 1)?;
        axes.iter().rev().fold(s.x(0), |x, &axis| reduce(s, s.node.spec.name, x, &[axis], keep))
    }),
    rule("axes removed = kept, then squeezed", REDUCTIONS, |s| {
        let (axes, _) = reduced(s).filter(|(_, keep)| !keep)?;
        remove(s, reduce(s, s.node.spec.name, s.x(0), &axes, true), &axes, false)
    }),
    rule("axes kept = removed, then back", REDUCTIONS, |s| {
        let (axes, _) = reduced(s).filter(|(_, keep)| *keep)?;
        let removed = reduce(s, s.node.spec.name, s.x(0), &axes, false);
        if s.coin() { s.op("Unsqueeze", &[removed, s.sizes(&axes)]) } else { s.reshape(removed, &s.output().shape) }
    }),
    rule("reduced axes last", REDUCTIONS, |s| {
        let (axes, _) = reduced(s).filter(|(_, keep)| !keep)?;
        let rank = s.rank(s.x(0))?;
        let kept = (0..rank).filter(|axis| !axes.contains(axis));
        let order: Vec<usize> = kept.chain(axes.iter().copied()).collect();
        let last: Vec<usize> = (rank - axes.len()..rank).collect();
        reduce(s, s.node.spec.name, s.transpose(s.x(0), &order), &last, false)
    }),
    rule("sum = product with ones", &["ReduceSum"], |s| {
        let (axes, keep) = reduced(s)?;
        let shape = s.shape(s.x(0))?;
        let (&last, rest) = shape.split_last()?;
        let ones = s.filled(s.x(0), &[last, 1], 1.0).filter(|_| axes == [rest.len()]);
        remove(s, s.op("MatMul", &[s.x(0), ones]), &axes, keep)
    }),
    rule("mean over the image = global pool", &["ReduceMean", "ReduceMax"], |s| {
        let (axes, _) = reduced(s).filter(|(_, keep)| *keep)?;
        let pool = if s.node.spec.name == "ReduceMean" { "GlobalAveragePool" } else { "GlobalMaxPool" };
        let images = spatial(s.rank(s.x(0))?);
        s.op(pool, &[s.x(0).filter(|_| axes.len() <= 3 && axes == images)])
    }),
    rule("global pool = mean over the image", &["GlobalAveragePool", "GlobalMaxPool"], |s| {
        let reduction = if s.node.spec.name == "GlobalMaxPool" { "ReduceMax" } else { "ReduceMean" };
        reduce(s, reduction, s.x(0), &spatial(s.rank(s.x(0))?), true)
    }),
    rule("global pool = pool over all", &["GlobalAveragePool", "GlobalMaxPool"], |s| {
        let kernel = s.shape(s.x(0))?[2..].iter().map(|&size| size as i64).collect::<Vec<_>>();
        let pool = if s.node.spec.name == "GlobalMaxPool" { "MaxPool" } else { "AveragePool" };
        s.with(pool, &[s.x(0)], vec![("kernel_shape", ints(kernel))])
    }),
    rule("softmax = exp / sum of exp", &["Softmax"], |s| {
        let axes = [s.axis(-1)?];
        let shifted = s.op("Sub", &[s.x(0), reduce(s, "ReduceMax", s.x(0), &axes, true)]);
        let exponential = s.op("Exp", &[if s.below(4) == 0 { s.x(0) } else { shifted }]);
        s.op("Div", &[exponential, reduce(s, "ReduceSum", exponential, &axes, true)])
    }),
    rule("softmax = exp of log-softmax", &["Softmax"], |s| {
        let axis = vec![("axis", Attribute::Int(s.axis(-1)? as i64))];
        s.op("Exp", &[s.with("LogSoftmax", &[s.x(0)], axis)])
    }),
    rule("log-softmax = log of softmax", &["LogSoftmax"], |s| {
        let axis = vec![("axis", Attribute::Int(s.axis(-1)? as i64))];
        s.op("Log", &[s.with("Softmax", &[s.x(0)], axis)])
    }),
    rule("log-softmax = x - log-sum-exp", &["LogSoftmax"], |s| {
        s.op("Sub", &[s.x(0), reduce(s, "ReduceLogSumExp", s.x(0), &[s.axis(-1)?], true)])
    }),
    rule("along the last axis", &["Softmax", "LogSoftmax", "Hardmax"], |s| {
        let (axis, rank) = (s.axis(-1)?, s.rank(s.x(0))?);
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(axis, rank - 1);
        let along = vec![("axis", Attribute::Int(-1))];
        let turned = s.with(s.node.spec.name, &[s.transpose(s.x(0), &order)], along);
        s.transpose(turned, &order).filter(|_| axis + 1 < rank)
    }),
    rule("index of the maximum = of the minimum of -x", &["ArgMax", "ArgMin"], |s| {
        let other = if s.node.spec.name == "ArgMax" { "ArgMin" } else { "ArgMax" };
        let attribute = |name, default| (name, Attribute::Int(s.a.int(name, default)));
        let attributes = vec![attribute("axis", 0), attribute("keepdims", 1), attribute("select_last_index", 0)];
        s.with(other, &[s.op("Neg", &[s.x(0)])], attributes)
    }),
    rule("running sum = product with a triangle", &["CumSum"], |s| {
        let shape = s.shape(s.x(0))?;
        let (&size, rest) = shape.split_last()?;
        let axis = s.fixed(s.x(1))?.to_f64().first().map(|&axis| Args::from_front(axis as i64, shape.len()))?;
        let (exclusive, reverse) = (s.a.int("exclusive", 0) != 0, s.a.int("reverse", 0) != 0);
        let counts = |from: usize, to: usize| {
            let (first, last) = if reverse { (to, from) } else { (from, to) };
            f64::from(u8::from(first < last || first == last && !exclusive))
        };
        let elements: Vec<f64> = (0..size * size).map(|at| counts(at / size, at % size)).collect();
        let data = crate::tensor::TensorData::from_f64(s.output().dtype, &[size, size], &elements);
        s.op("MatMul", &[s.x(0).filter(|_| axis == rest.len() as i64), s.constant(data)])
    }),
    rule("normalised by its norm = x / norm", &["LpNormalization"], |s| {
        let norm = if s.a.int("p", 2) == 1 { "ReduceL1" } else { "ReduceL2" };
        s.op("Div", &[s.x(0), reduce(s, norm, s.x(0), &[s.axis(-1)?], true)])
    }),
    rule("size = product of the shape", &["Size"], |s| {
        let shape = s.op("Shape", &[s.x(0).filter(|_| s.output().dtype == DType::I64)]);
        reduce(s, "ReduceProd", shape, &[0], false)
    }),
];
