//! Reductions along axes, and running sums. The axes are an attribute up to opset 17, then an optional operand.

use super::common::{as_output, is_float, one};
use super::movement::axes_of;
use super::order::keep_dims;
use super::rounding::{defined, error_of, gamma, underflow, unless_overflow};
use crate::dtype::{ANY, DType, DTypes, FLOATS, INTS, NUMBERS, WIDE_INTS};
use crate::limits::EXACT;
use crate::spec::{ANY_RANK, Args, Builder, Exceptional, Numerics, OpSpec, Outputs, Skip};
use crate::term::{Term, product};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&SUM, &MEAN, &MAX, &MIN, &PROD, &L1, &L2, &SUM_SQUARE, &LOG_SUM, &LOG_SUM_EXP];

/// What ONNX allows for most reductions, without the narrow integers.
const SUMMED: DTypes = FLOATS.or(WIDE_INTS);

/// What a reduction without axes may be made to do.
#[derive(Clone, Copy, PartialEq)]
enum EmptyAxes {
    /// Reduce all axes, or none.
    NoneOrAll,
    /// Only reduce all axes. With `noop_with_empty_axes` the text of opset 18 long said that the operand is returned as
    /// it is; now it says that the steps other than the sum, such as squaring, still happen.
    All,
}

/// How the axes are given before opset 18.
#[derive(Clone, Copy, PartialEq)]
enum Axes {
    Attribute,
    Operand,
}

const NOTHING: DTypes = DTypes::of(&[]);

const REDUCTION: OpSpec = OpSpec {
    since: 1,
    dtypes: SUMMED,
    build: |b| build(b, NUMBERS, EmptyAxes::NoneOrAll),
    can_overflow: true,
    ..OpSpec::BASE
};
/// A reduction that is only made of floats: what it would round an integer to, ONNX does not say.
const OF_FLOATS: OpSpec =
    OpSpec { dtypes: FLOATS, build: |b| build(b, NOTHING, EmptyAxes::All), can_overflow: false, ..REDUCTION };

/// Declares the operands, the attributes and the output of a reduction. Of elements of a type in `empty` there may
/// be none: of others ONNX leaves the result undefined (a mean) or makes it infinite (a maximum of floats).
fn build(b: &mut Builder, empty: DTypes, empty_axes: EmptyAxes) -> Result<(), Skip> {
    build_with(b, empty, empty_axes, Axes::Attribute)
}

fn build_with(b: &mut Builder, empty: DTypes, empty_axes: EmptyAxes, form: Axes) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let axes = reduced(b, x.rank(), empty_axes, form);
    let keep = keep_dims(b);
    let mut shape = Vec::new();
    let mut merged = Vec::new();
    for (axis, &dim) in x.shape.iter().enumerate() {
        if axes.contains(&axis) {
            merged.push(dim);
            shape.extend(keep.then(|| Term::constant(1)));
        } else {
            shape.push(dim);
        }
    }
    if !empty.contains(x.dtype) {
        merged.iter().for_each(|dim| b.require(dim.at_least(1)));
    }
    b.accumulate(product(&merged));
    b.output(x.dtype, shape);
    Ok(())
}

/// The axes reduced: by an attribute `axes`, or the optional operand `axes` and the attribute `noop_with_empty_axes`.
fn reduced(b: &mut Builder, rank: usize, empty_axes: EmptyAxes, form: Axes) -> Vec<usize> {
    let operand = form == Axes::Operand || b.opset() >= 18;
    let form = b.below(16);
    let mut axes = b.axes(rank);
    if axes.is_empty() && rank > 0 {
        axes.push(b.axis(rank));
    }
    if rank == 0 || form >= 11 {
        axes.clear();
    }
    if !operand {
        if axes.is_empty() {
            return (0..rank).collect();
        }
        let order = b.permutation(axes.len());
        let written: Vec<i64> = order.into_iter().map(|i| b.signed_axis(axes[i], rank)).collect();
        b.set_ints("axes", written);
        return axes;
    }
    let none = axes.is_empty() && form >= 14 && empty_axes == EmptyAxes::NoneOrAll;
    if axes.is_empty() {
        // Absent, or without elements: the same thing.
        if form.is_multiple_of(2) {
            b.constant([]);
        }
    } else {
        let written = super::movement::written_axes(b, &axes, rank);
        b.constant(written);
    }
    if none || !b.chance(16) {
        // With axes it means nothing.
        let noop = none || !axes.is_empty() && !b.chance(8);
        b.set_int("noop_with_empty_axes", i64::from(noop));
    }
    if axes.is_empty() && !none { (0..rank).collect() } else { axes }
}

/// The axes that a reduction runs over.
fn reduced_axes(a: &Args) -> Vec<usize> {
    let rank = a.rank(0);
    let attribute =
        || Some(a.ints("axes")?.iter().map(|&axis| Args::from_front(axis, rank) as usize).collect::<Vec<_>>());
    match axes_of(a, 1, rank).or_else(attribute) {
        Some(axes) if !axes.is_empty() => axes,
        _ if a.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        _ => (0..rank).collect(),
    }
}

/// `reduce`, which removes the last axis, applied to the reduced axes merged into one.
fn along(a: &Args, operands: &[&Tensor], reduce: impl Fn(&[Tensor]) -> Result<Tensor, TchError>) -> Outputs {
    let (shape, axes) = (a.shape(0), reduced_axes(a));
    let kept: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
    let order: Vec<i64> = kept.iter().chain(&axes).map(|&axis| axis as i64).collect();
    let mut lines: Vec<i64> = kept.iter().map(|&axis| shape[axis]).collect();
    lines.push(axes.iter().map(|&axis| shape[axis]).product());
    let merged = |x: &&Tensor| x.f_permute(&order)?.f_reshape(&lines);
    let y = reduce(&operands.iter().map(merged).collect::<Result<Vec<_>, _>>()?)?;
    let keep = a.int("keepdims", 1) != 0;
    let size = |(axis, &size): (usize, &i64)| if axes.contains(&axis) { keep.then_some(1) } else { Some(size) };
    one(y.f_reshape(shape.iter().enumerate().filter_map(size).collect::<Vec<_>>()))
}

/// Reduces the operand, in f64 if it is of integers that `reduce` cannot take.
fn of_floats(a: &Args, reduce: impl Fn(&Tensor) -> Result<Tensor, TchError>) -> Outputs {
    let x = if is_float(a.x(0).kind()) { a.x(0).shallow_clone() } else { a.x(0).f_to_kind(Kind::Double)? };
    let y = along(a, &[&x], |lines| reduce(&lines[0]))?.swap_remove(0);
    as_output(a, y)
}

/// An error rule: from lines of operands and of their errors, and the number of terms that may be summed at once.
fn errors_along(
    a: &Args,
    errors: &[Option<Tensor>],
    rule: impl Fn(&Tensor, &Tensor, f64) -> Result<Tensor, TchError>,
) -> Outputs {
    let error = error_of(errors, 0, a.x(0))?;
    along(a, &[a.x(0), &error], |lines| {
        let terms = length(&lines[0]);
        defined(rule(&lines[0], &lines[1], a.accumulate.map_or(terms, |together| together.max(terms)))?)
    })
}

/// The elements of a line.
fn length(lines: &Tensor) -> f64 {
    lines.size().last().copied().unwrap_or(1) as f64
}

/// Whether an operator sums along axes.
pub fn sums(spec: &OpSpec) -> bool {
    let reduces = TABLE.iter().any(|reduction| reduction.code == spec.code);
    reduces && ![MAX.code, MIN.code, PROD.code].contains(&spec.code)
}

fn sum(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_sum_dim_intlist([-1].as_slice(), false, x.kind())
}

/// The sum of squares as it may come out: its magnitude, and its error by rounding alone.
fn squares(x: &Tensor, error: &Tensor, terms: f64, dtype: DType) -> Result<(Tensor, Tensor), TchError> {
    let most = sum(&(x.f_abs()? + error).f_square()?)?;
    let rounding = &most * gamma(terms + 2.0, dtype) + terms * underflow(dtype);
    Ok((most, rounding))
}

/// ONNX ReduceSum, whose axes have been an operand since opset 13.
pub const SUM: OpSpec = OpSpec {
    code: 0xb0,
    name: "ReduceSum",
    exceptional: Exceptional::Ieee754,
    doc: "The sum along axes.",
    numerics: Numerics::Accumulated,
    build: |b| build_with(b, NUMBERS, EmptyAxes::NoneOrAll, Axes::Operand),
    eval: |a| along(a, &[a.x(0)], |lines| lines[0].f_sum_dim_intlist([-1].as_slice(), false, a.output_kind(0))),
    ..REDUCTION
};

/// ONNX ReduceMean.
pub const MEAN: OpSpec = OpSpec {
    code: 0xb1,
    name: "ReduceMean",
    doc: "The mean along axes.",
    numerics: Numerics::Custom(|a, errors, _| {
        let dtype = a.output_dtypes[0];
        errors_along(a, errors, |x, error, terms| {
            let most = sum(&(x.f_abs()? + error))?;
            unless_overflow((sum(error)? + &most * gamma(terms + 2.0, dtype)) / length(x), &most, dtype)
        })
    }),
    build: |b| build(b, NOTHING, EmptyAxes::NoneOrAll),
    eval: |a| of_floats(a, |x| x.f_mean_dim([-1].as_slice(), false, x.kind())),
    ..OF_FLOATS
};

/// ONNX ReduceMax. Exact although it compares: a maximum moves no further than the largest error.
pub const MAX: OpSpec = OpSpec {
    code: 0xb2,
    name: "ReduceMax",
    // bool came with opset 20.
    dtypes: ANY,
    doc: "The maximum along axes.",
    build: |b| build(b, INTS, EmptyAxes::NoneOrAll),
    eval: |a| along(a, &[a.x(0)], |lines| extreme(&lines[0], a.output_dtypes[0], true)),
    can_overflow: false,
    ..REDUCTION
};

/// ONNX ReduceMin.
pub const MIN: OpSpec = OpSpec {
    code: 0xb3,
    name: "ReduceMin",
    // bool came with opset 20.
    dtypes: ANY,
    doc: "The minimum along axes.",
    numerics: Numerics::Custom(|a, errors, _| {
        errors_along(a, errors, |_, error, _| extreme(error, a.output_dtypes[0], true))
    }),
    build: |b| build(b, INTS, EmptyAxes::NoneOrAll),
    eval: |a| along(a, &[a.x(0)], |lines| extreme(&lines[0], a.output_dtypes[0], false)),
    can_overflow: false,
    ..REDUCTION
};

/// The maximum or minimum along the last axis; of no elements the least or greatest value of the type.
fn extreme(x: &Tensor, dtype: DType, largest: bool) -> Result<Tensor, TchError> {
    let shape = x.size();
    let (&terms, kept) = shape.split_last().unwrap_or((&1, &[]));
    if terms > 0 {
        return if largest { x.f_amax([-1], false) } else { x.f_amin([-1], false) };
    }
    let sign = if largest { -1.0 } else { 1.0 };
    let options = (x.kind(), x.device());
    match dtype {
        DType::I64 => Tensor::f_full(kept, if largest { i64::MIN } else { i64::MAX }, options),
        _ if dtype.is_float() => Tensor::f_full(kept, sign * f64::INFINITY, options),
        _ => Tensor::f_full(kept, if largest { dtype.min() } else { dtype.max() } as i64, options),
    }
}

/// ONNX ReduceProd.
pub const PROD: OpSpec = OpSpec {
    code: 0xb4,
    name: "ReduceProd",
    doc: "The product along axes.",
    numerics: Numerics::Custom(|a, errors, _| {
        let dtype = a.output_dtypes[0];
        errors_along(a, errors, |x, error, terms| {
            let product = |x: &Tensor| x.f_prod_dim_int(-1, false, Kind::Double);
            let magnitude = x.f_abs()?;
            let widened = &magnitude + error;
            let most = product(&widened)?;
            // Factors below 1 may come last, or first.
            let reached = product(&widened.f_clamp_min(1.0)?)?;
            let error =
                &most - product(&magnitude)? + most * gamma(terms, dtype) + &reached * (terms * underflow(dtype));
            unless_overflow(error, &reached, dtype)
        })
    }),
    eval: |a| along(a, &[a.x(0)], |lines| lines[0].f_prod_dim_int(-1, false, a.output_kind(0))),
    // A later 0 does not undo that the product has left the range of integers: it may wrap, or stay at the end.
    guard: Some(|a| {
        if a.dtype(0).is_float() {
            return Ok(Vec::new());
        }
        let most = a.dtype(0).max().min(EXACT);
        along(a, &[a.x(0)], |lines| {
            let reached = lines[0].f_to_kind(Kind::Double)?.f_abs()?.f_clamp_min(1.0)?;
            Ok(most - reached.f_prod_dim_int(-1, false, Kind::Double)?)
        })
    }),
    ..REDUCTION
};

/// ONNX ReduceL1.
pub const L1: OpSpec = OpSpec {
    code: 0xb5,
    name: "ReduceL1",
    range: Some((0.0, f64::INFINITY)),
    doc: "The sum of magnitudes along axes.",
    numerics: Numerics::Accumulated,
    build: |b| build(b, NUMBERS, EmptyAxes::All),
    eval: |a| {
        along(a, &[a.x(0)], |lines| lines[0].f_abs()?.f_sum_dim_intlist([-1].as_slice(), false, a.output_kind(0)))
    },
    ..REDUCTION
};

/// ONNX ReduceL2.
pub const L2: OpSpec = OpSpec {
    code: 0xb6,
    name: "ReduceL2",
    range: Some((0.0, f64::INFINITY)),
    doc: "The Euclidean norm along axes.",
    numerics: Numerics::Custom(|a, errors, _| {
        errors_along(a, errors, |x, error, terms| norm_errors(x, error, terms, a.output_dtypes[0]))
    }),
    build: |b| build(b, NUMBERS, EmptyAxes::All),
    eval: |a| of_floats(a, norm),
    ..OF_FLOATS
};

/// The Euclidean norm along the last axis. Unlike the root of the sum it has a gradient at 0.
pub fn norm(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_norm_scalaropt_dim(2.0, [-1], false)
}

/// The errors of [`norm`], whatever way it is computed.
pub fn norm_errors(x: &Tensor, error: &Tensor, terms: f64, dtype: DType) -> Result<Tensor, TchError> {
    let y = norm(x)?;
    let (most, rounding) = squares(x, error, terms, dtype)?;
    // The root of s + d is off by at most d / root(s), and by at most root(d).
    let rooted = (&rounding / &y).f_minimum(&rounding.f_sqrt()?)?;
    unless_overflow(norm(error)? + rooted + y * (4.0 * dtype.unit_roundoff()), &most, dtype)
}

/// ONNX ReduceSumSquare.
pub const SUM_SQUARE: OpSpec = OpSpec {
    code: 0xb7,
    name: "ReduceSumSquare",
    range: Some((0.0, f64::INFINITY)),
    doc: "The sum of squares along axes.",
    numerics: Numerics::Custom(|a, errors, _| {
        errors_along(a, errors, |x, error, terms| {
            let (_, rounding) = squares(x, error, terms, a.output_dtypes[0])?;
            Ok(sum(&((x.f_abs()? * 2.0 + error) * error))? + rounding)
        })
    }),
    build: |b| build(b, NUMBERS, EmptyAxes::All),
    eval: |a| {
        along(a, &[a.x(0)], |lines| lines[0].f_square()?.f_sum_dim_intlist([-1].as_slice(), false, a.output_kind(0)))
    },
    ..REDUCTION
};

/// ONNX ReduceLogSum.
pub const LOG_SUM: OpSpec = OpSpec {
    code: 0xb8,
    name: "ReduceLogSum",
    doc: "The logarithm of the sum along axes.",
    numerics: Numerics::Custom(|a, errors, _| {
        let dtype = a.output_dtypes[0];
        errors_along(a, errors, |x, error, terms| {
            let (total, most) = (sum(x)?, sum(&(x.f_abs()? + error))?);
            let share = (sum(error)? + &most * gamma(terms, dtype)) / &total;
            // log s - log(s - d) is more than log(s + d) - log s.
            let moved = share.f_clamp_max(1.0)?.f_neg()?.f_log1p()?.f_neg()?;
            unless_overflow(moved + (total.f_log()?.f_abs()? + 1.0) * (8.0 * dtype.unit_roundoff()), &most, dtype)
        })
    }),
    eval: |a| of_floats(a, |x| sum(x)?.f_log()),
    guard: Some(|a| along(a, &[a.x(0)], |lines| sum(&lines[0])?.f_sub_scalar(1e-2))),
    ..OF_FLOATS
};

/// ONNX ReduceLogSumExp.
pub const LOG_SUM_EXP: OpSpec = OpSpec {
    code: 0xb9,
    name: "ReduceLogSumExp",
    doc: "The logarithm of the sum of exponentials along axes.",
    numerics: Numerics::Custom(|a, errors, _| {
        let dtype = a.output_dtypes[0];
        let u = dtype.unit_roundoff();
        errors_along(a, errors, |x, error, terms| {
            let y = x.f_logsumexp([-1], false)?;
            let largest = x.f_amax([-1], true)?;
            // The subtraction of the largest rounds, and so does the exponential; both act like errors of x.
            let shift = error + (x - &largest).f_abs()? * (2.0 * u) + 8.0 * u;
            let (up, down) = ((x + &shift).f_logsumexp([-1], false)? - &y, &y - (x - &shift).f_logsumexp([-1], false)?);
            let largest = largest.f_squeeze_dim(-1)?.f_abs()?;
            let error = up.f_maximum(&down)? + gamma(terms, dtype) + (y.f_abs()? + largest + 1.0) * (8.0 * u);
            // The text does not ask for the largest to be taken out, without which the exponentials leave the range.
            let highest = dtype.max().ln() - 1.0;
            error.f_masked_fill(&y.f_gt(highest)?.f_logical_or(&y.f_lt(dtype.min_positive().ln())?)?, f64::INFINITY)
        })
    }),
    eval: |a| of_floats(a, |x| x.f_logsumexp([-1], false)),
    ..OF_FLOATS
};
