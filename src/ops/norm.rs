//! Normalisation.

use super::common::{magnitude, one};
use super::movement::{axis_of, refuse, set_axis};
use super::reduce::{norm, norm_errors};
use super::rounding::{defined, error_of, gamma, of_reciprocal, underflow, unless_overflow};
use crate::dtype::{DType, DTypes, FLOATS};
use crate::limits::MAX_RANK;
use crate::spec::{Args, Builder, Domain, Numerics, OpSpec, Outputs};
use crate::term::{Term, product};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&BATCH, &LAYER, &INSTANCE, &MEAN_VARIANCE, &LP];

/// The attribute `epsilon`, sometimes left out at its default.
pub(super) fn set_epsilon(b: &mut Builder) {
    let epsilon = b.one_of(&[1e-5, 1e-3, 1e-2, 0.1, 1e-5]);
    if epsilon != 1e-5 || b.coin() {
        b.set_float("epsilon", epsilon);
    }
}

/// The shape that lays one value per channel along axis 1.
pub(super) fn per_channel(rank: usize) -> Vec<i64> {
    (0..rank).map(|axis| if axis == 1 { -1 } else { 1 }).collect()
}

/// ONNX BatchNormalization in inference.
pub const BATCH: OpSpec = OpSpec {
    code: 0xc4,
    name: "BatchNormalization",
    since: 9,
    dtypes: FLOATS,
    doc: "(x - mean) / sqrt(var + epsilon) * scale + B, with given statistics of each channel.",
    numerics: Numerics::Custom(batch_errors),
    build: |b| {
        let x = b.input(b.dtypes(), 2..=MAX_RANK)?;
        let channels = [x.shape[1]];
        b.weight(x.dtype, channels);
        b.weight(x.dtype, channels);
        b.weight(x.dtype, channels);
        b.weight_in(x.dtype, channels, Domain::Range(0.25, 4.0));
        set_epsilon(b);
        if b.mostly() {
            b.set_float("momentum", 0.5);
        }
        if b.opset() >= 14 && b.chance(64) {
            b.set_int("training_mode", 0);
        }
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        // Before opset 14 the number of outputs said it.
        if a.int("training_mode", 0) != 0 || a.output_dtypes.len() > 1 {
            return refuse("BatchNormalization in training");
        }
        let [scale, bias, mean, variance] = channel_operands(a, |i| Ok(a.x(i).shallow_clone()))?;
        let deviation = variance.f_add_scalar(a.float("epsilon", 1e-5))?.f_sqrt()?;
        let standard = a.x(0).f_sub(&mean)?.f_div(&deviation)?;
        one(standard.f_mul(&scale)?.f_add(&bias)?.f_to_kind(a.output_kind(0)))
    },
    guard: Some(|a| one(a.x(4).f_add_scalar(a.float("epsilon", 1e-5) - 1e-3))),
    ..OpSpec::BASE
};

/// Operands 1 to 4, or what `of` makes of them, laid along the channels.
fn channel_operands(a: &Args, of: impl Fn(usize) -> Result<Tensor, TchError>) -> Result<[Tensor; 4], TchError> {
    // A one-dimensional x has one channel.
    let shape = if a.rank(0) < 2 { vec![1] } else { per_channel(a.rank(0)) };
    let operand = |i| of(i)?.f_reshape(&shape);
    Ok([operand(1)?, operand(2)?, operand(3)?, operand(4)?])
}

fn batch_errors(a: &Args, errors: &[Option<Tensor>], _: &[Tensor]) -> Outputs {
    let dtype = a.output_dtypes[0];
    let u = dtype.unit_roundoff();
    let [scale, bias, mean, variance] = channel_operands(a, |i| Ok(a.x(i).shallow_clone()))?;
    let [scale_error, bias_error, mean_error, variance_error] = channel_operands(a, |i| error_of(errors, i, a.x(i)))?;
    let (x, x_error) = (a.x(0), error_of(errors, 0, a.x(0))?);
    let variance = variance + a.float("epsilon", 1e-5);
    // The root halves the share, which its reciprocal may at most undo.
    let share = of_reciprocal(&((variance_error + underflow(dtype)) / &variance + 2.0 * u))?;
    let inverse = variance.f_rsqrt()?;
    let distance_error = x_error + mean_error;
    let distance = (x - &mean).f_abs()? + &distance_error;
    let scaled = scale.f_abs()? + &scale_error;
    let moved = &scaled * &inverse * (&share + 1.0) * distance_error
        + scale_error * &inverse * (&share + 1.0) * &distance
        + &scaled * &inverse * share * distance
        + &bias_error;
    // Scale and shift may also be worked out first: then x and the mean are rounded on their own.
    let magnitude = scaled * inverse * (x.f_abs()? + mean.f_abs()?) + bias.f_abs()? + bias_error;
    one(defined(moved + magnitude * (8.0 * u)))
}

/// The mean along `axes`, which stay; libtorch takes no axes for all axes.
fn mean(x: &Tensor, axes: &[i64]) -> Result<Tensor, TchError> {
    if axes.is_empty() { Ok(x.shallow_clone()) } else { x.f_mean_dim(axes, true, x.kind()) }
}

/// `x` minus its mean along `axes`, and its variance there.
pub(super) fn centred(x: &Tensor, axes: &[i64]) -> Result<(Tensor, Tensor), TchError> {
    let centred = x.f_sub(&mean(x, axes)?)?;
    let variance = mean(&centred.f_square()?, axes)?;
    Ok((centred, variance))
}

/// What normalised elements are, without scale and shift, and how far off they may be.
pub(super) struct Normalized {
    pub value: Tensor,
    pub error: Tensor,
    /// What is lost when scale and shift are worked out first, for a scale of 1.
    pub folding: Tensor,
}

/// `(x - mean) / sqrt(variance + epsilon)` along `axes` by any way of computing the variance, also by the mean of
/// squares minus the squared mean. Statistics are rounded as `inner`, elements as `outer`.
pub(super) fn normalized(
    x: &Tensor,
    error: &Tensor,
    axes: &[i64],
    epsilon: f64,
    inner: DType,
    outer: DType,
) -> Result<Normalized, TchError> {
    let terms = axes.iter().map(|&axis| x.size()[axis as usize]).product::<i64>() as f64;
    let u = inner.unit_roundoff().max(outer.unit_roundoff());
    let rounding = gamma(terms + 4.0, inner);
    let magnitude = x.f_abs()? + error;
    let (centred, variance) = centred(x, axes)?;
    let squares = mean(&magnitude.f_square()?, axes)?;
    let mean_error = mean(error, axes)? + mean(&magnitude, axes)? * rounding;
    let variance_error = mean(&((centred.f_abs()? * 2.0 + error) * error), axes)? + &squares * (3.0 * rounding);
    let variance = variance + epsilon;
    let share = of_reciprocal(&((variance_error + underflow(inner)) / &variance + 2.0 * inner.unit_roundoff()))?;
    let inverse = variance.f_rsqrt()?;
    let value = &centred * &inverse;
    let size = (&magnitude + mean(&magnitude, axes)?) * &inverse;
    let error = (error + mean_error) * &inverse * (&share + 1.0)
        + &size * (2.0 * inner.unit_roundoff())
        + value.f_abs()? * (share + 6.0 * u);
    let error = unless_overflow(error, &(squares * terms), inner)?;
    Ok(Normalized { value, error: defined(error)?, folding: size * (4.0 * outer.unit_roundoff()) })
}

/// The error of `normalized * scale + bias`.
pub(super) fn affine_errors(
    normalized: Normalized,
    [scale, scale_error]: [&Tensor; 2],
    bias: Option<[&Tensor; 2]>,
    dtype: DType,
) -> Outputs {
    let u = dtype.unit_roundoff();
    let scaled = scale.f_abs()? + scale_error;
    let reached = normalized.value.f_abs()? + &normalized.error;
    let mut error = &scaled * (&normalized.error + normalized.folding) + (scale_error + &scaled * (4.0 * u)) * reached;
    if let Some([bias, bias_error]) = bias {
        error = error + bias_error + (bias.f_abs()? + bias_error) * (4.0 * u);
    }
    one(defined(error))
}

/// ONNX LayerNormalization, opset 17. The optional statistics are computed too, for imported models.
pub const LAYER: OpSpec = OpSpec {
    code: 0xc5,
    name: "LayerNormalization",
    since: 17,
    dtypes: FLOATS,
    doc: "Zero mean and unit variance over the axes from `axis` on, then scale and shift.",
    numerics: Numerics::Custom(layer_errors),
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let axis = b.axis(x.rank());
        let inner = x.shape[axis..].to_vec();
        inner.iter().for_each(|dim| b.require(dim.at_least(1)));
        for required in [true, false] {
            if required || b.coin() {
                let shape = if b.chance(24) { broadcast_weight(b, &inner) } else { inner.clone() };
                b.weight(x.dtype, shape);
            }
        }
        set_axis(b, axis, x.rank(), -1);
        set_epsilon(b);
        if b.chance(64) {
            b.set_int("stash_type", 1);
        }
        b.accumulate(product(&inner));
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        let x = a.x(0);
        let axes = layer_axes(a);
        let (centred, variance) = centred(x, &axes)?;
        let inverse = variance.f_add_scalar(a.float("epsilon", 1e-5))?.f_rsqrt()?;
        let mut y = centred.f_mul(&inverse)?.f_mul(a.x(1))?;
        if let Some(bias) = a.opt(2) {
            y = y.f_add(bias)?;
        }
        let mut outputs = vec![y];
        for statistic in [mean(x, &axes)?, inverse].into_iter().take(a.output_dtypes.len() - 1) {
            outputs.push(statistic.f_to_kind(a.output_kind(outputs.len()))?);
        }
        Ok(outputs)
    },
    ..OpSpec::BASE
};

fn layer_axes(a: &Args) -> Vec<i64> {
    let rank = a.rank(0);
    (axis_of(a, -1, rank)..rank as i64).collect()
}

/// A shape that broadcasts to `shape` with a 1 in it.
pub(super) fn broadcast_weight(b: &mut Builder, shape: &[Term]) -> Vec<Term> {
    let mut shape = shape.to_vec();
    let at = b.below(shape.len());
    shape[at] = Term::constant(1);
    shape
}

fn layer_errors(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    // Stage one is in f32 whatever the type of x. Stage two should not be, but of f64 that is hardly worth a report.
    let (x, dtype) = (a.x(0), if a.output_dtypes[0] == DType::F64 { DType::F32 } else { a.output_dtypes[0] });
    let normalized =
        normalized(x, &error_of(errors, 0, x)?, &layer_axes(a), a.float("epsilon", 1e-5), DType::F32, dtype)?;
    let scale = [a.x(1), &error_of(errors, 1, a.x(1))?];
    let mut outputs = match a.opt(2) {
        Some(bias) => affine_errors(normalized, scale, Some([bias, &error_of(errors, 2, bias)?]), dtype)?,
        None => affine_errors(normalized, scale, None, dtype)?,
    };
    // Statistics are not judged: no operator that graphsmith makes has them.
    for statistic in &exact[1..] {
        outputs.push(statistic.f_full_like(f64::INFINITY)?);
    }
    Ok(outputs)
}

/// ONNX InstanceNormalization, opset 6.
pub const INSTANCE: OpSpec = OpSpec {
    code: 0xc6,
    name: "InstanceNormalization",
    since: 6,
    dtypes: FLOATS,
    doc: "Zero mean and unit variance of each channel of each batch item, then scale and shift.",
    numerics: Numerics::Custom(|a, errors, _| {
        let (x, dtype) = (a.x(0), a.output_dtypes[0]);
        let error = error_of(errors, 0, x)?;
        let normalized = normalized(x, &error, &spatial(a), a.float("epsilon", 1e-5), dtype, dtype)?;
        let lay = |x: Tensor| x.f_reshape(per_channel(a.rank(0)));
        let operand = |i: usize| lay(a.x(i).shallow_clone());
        let error = |i: usize| lay(error_of(errors, i, a.x(i))?);
        affine_errors(normalized, [&operand(1)?, &error(1)?], Some([&operand(2)?, &error(2)?]), dtype)
    }),
    build: |b| {
        let x = b.input(b.dtypes(), 3..=MAX_RANK)?;
        x.shape[2..].iter().for_each(|dim| b.require(dim.at_least(1)));
        b.weight(x.dtype, [x.shape[1]]);
        b.weight(x.dtype, [x.shape[1]]);
        set_epsilon(b);
        b.accumulate(product(&x.shape[2..]));
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        let (centred, variance) = centred(a.x(0), &spatial(a))?;
        let lay = |i: usize| a.x(i).f_reshape(per_channel(a.rank(0)));
        let deviation = variance.f_add_scalar(a.float("epsilon", 1e-5))?.f_sqrt()?;
        one(centred.f_div(&deviation)?.f_mul(&lay(1)?)?.f_add(&lay(2)?))
    },
    ..OpSpec::BASE
};

fn spatial(a: &Args) -> Vec<i64> {
    (2..a.rank(0) as i64).collect()
}

/// ONNX MeanVarianceNormalization, opset 13. The constants in its function body are of f32, so that ONNX's checker
/// refuses the other types that the text allows.
pub const MEAN_VARIANCE: OpSpec = OpSpec {
    code: 0xc7,
    name: "MeanVarianceNormalization",
    dtypes: DTypes::of(&[DType::F32]),
    doc: "(x - mean) / standard deviation over `axes`.",
    numerics: Numerics::Custom(|a, errors, _| {
        let (x, dtype) = (a.x(0), a.output_dtypes[0]);
        let normalized = normalized(x, &error_of(errors, 0, x)?, &mean_variance_axes(a), 0.0, dtype, dtype)?;
        // The 1e-9 of the function body is below the roundoff of the deviations that the guard admits, but for f64.
        one(defined(normalized.error + normalized.folding + normalized.value.f_abs()? * 1e-8))
    }),
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let mut axes = b.axes(x.rank());
        if axes.is_empty() {
            axes.push(b.axis(x.rank()));
        }
        if x.rank() == 4 && b.chance(80) {
            axes = vec![0, 2, 3];
        }
        // Never left out: ONNX's checker does not hand the default down to the function body.
        let written: Vec<i64> = axes.iter().map(|&axis| b.signed_axis(axis, x.rank())).collect();
        b.set_ints("axes", written);
        let reduced: Vec<Term> = axes.iter().map(|&axis| x.shape[axis]).collect();
        // A single element has no deviation to divide by.
        b.require(product(&reduced).at_least(2));
        b.accumulate(product(&reduced));
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        let (centred, variance) = centred(a.x(0), &mean_variance_axes(a))?;
        one(centred.f_div(&variance.f_sqrt()?.f_add_scalar(1e-9)?))
    },
    guard: Some(|a| one(centred(a.x(0), &mean_variance_axes(a))?.1.f_sub_scalar(1e-2))),
    ..OpSpec::BASE
};

fn mean_variance_axes(a: &Args) -> Vec<i64> {
    let axes = a.ints("axes").unwrap_or(&[0, 2, 3]);
    axes.iter().map(|&axis| Args::from_front(axis, a.rank(0))).collect()
}

/// ONNX LpNormalization, opset 1: the axis is -1 or counted from the front.
pub const LP: OpSpec = OpSpec {
    code: 0xc8,
    name: "LpNormalization",
    since: 1,
    dtypes: FLOATS,
    doc: "x divided by its norm of order 1 or 2 along an axis.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let (x, dtype) = (a.x(0), a.output_dtypes[0]);
        let axis = axis_of(a, -1, x.dim());
        if x.numel() == 0 {
            return one(x.f_zeros_like());
        }
        let error = error_of(errors, 0, x)?;
        let terms = x.size()[axis as usize] as f64;
        let norm = lp_norm(a)?;
        let norm_error = if a.int("p", 2) == 1 {
            let total = |x: &Tensor| x.f_sum_dim_intlist([axis].as_slice(), true, Kind::Double);
            let rounding = total(&(x.f_abs()? + &error))? * gamma(terms, dtype);
            total(&error)? + rounding
        } else {
            norm_errors(&x.f_transpose(axis, -1)?, &error.f_transpose(axis, -1)?, terms, dtype)?
                .f_unsqueeze(-1)?
                .f_transpose(axis, -1)?
        };
        let share = of_reciprocal(&(norm_error / &norm))?;
        let y = exact[0].f_abs()?;
        one(defined(error / norm * (&share + 1.0) + y * (share + 4.0 * dtype.unit_roundoff())))
    }),
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let axis = b.axis(x.rank());
        let last = axis + 1 == x.rank();
        match last && b.coin() {
            true if b.coin() => b.set_int("axis", -1),
            true => {}
            false => b.set_int("axis", axis as i64),
        }
        let order = if b.mostly() { 1 } else { 2 };
        if order == 1 || b.coin() {
            b.set_int("p", order);
        }
        b.accumulate(x.shape[axis]);
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        let norm = lp_norm(a)?;
        let zero = norm.f_eq(0.0)?;
        one(a.x(0).f_div(&norm.f_masked_fill(&zero, 1.0)?)?.f_masked_fill(&zero, 0.0))
    },
    guard: Some(|a| one(lp_norm(a)?.f_sub_scalar(1e-2))),
    ..OpSpec::BASE
};

/// The norm along the axis, which stays.
fn lp_norm(a: &Args) -> Result<Tensor, TchError> {
    let x = a.x(0);
    let axis = axis_of(a, -1, x.dim());
    match a.int("p", 2) {
        1 => magnitude(x)?.f_sum_dim_intlist([axis].as_slice(), true, x.kind()),
        2 => norm(&x.f_transpose(axis, -1)?)?.f_unsqueeze(-1)?.f_transpose(axis, -1),
        _ => refuse("LpNormalization of an order other than 1 and 2"),
    }
}
