//! Quantisation: numbers as small integers with a scale and a zero point, and back.

use super::common::{one, wide};
use super::movement::set_axis;
use super::rounding::{REACH, defined, error_of, stored, unless};
use super::windows::unsupported;
use crate::dtype::{DType, DTypes};
use crate::limits::MAX_SIZE;
use crate::spec::{ANY_RANK, Args, Builder, Domain, Numerics, OpSpec, Operand, Outputs, Skip};
use crate::term::{Term, product};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&QUANTIZE, &DEQUANTIZE, &DYNAMIC_QUANTIZE];

/// The element types of an 8-bit quantised tensor.
pub(super) const BYTES: DTypes = DTypes::of(&[DType::U8, DType::I8]);
const WORDS: DTypes = DTypes::of(&[DType::U16, DType::I16]);
/// The float types that have a place in quantisation, all but f64.
pub(super) const SCALES: DTypes = DTypes::of(&[DType::F32, DType::F16, DType::BF16]);

/// ONNX QuantizeLinear. The sum with the zero point comes after the rounding.
pub const QUANTIZE: OpSpec = OpSpec {
    code: 0x70,
    name: "QuantizeLinear",
    dtypes: SCALES.or(DTypes::of(&[DType::I32])),
    doc: "x / scale, rounded to the nearest even integer, plus a zero point, saturated; each for all of x, an axis or blocks.",
    numerics: Numerics::Unfiltered(error_of_quantize),
    build: build_quantize,
    eval: |a| {
        let precision = precision(a);
        let scale = in_precision(a, &laid(a, a.x(1))?, precision)?;
        let quotient = in_precision(a, &in_precision(a, a.x(0), precision)?.f_div(&scale)?, precision)?;
        one(rounded(a, &quotient)?.f_to_kind(a.output_kind(0)))
    },
    ..OpSpec::BASE
};

/// ONNX DequantizeLinear. The difference to the zero point is one of integers.
pub const DEQUANTIZE: OpSpec = OpSpec {
    code: 0x71,
    name: "DequantizeLinear",
    dtypes: BYTES.or(WORDS).or(DTypes::of(&[DType::I32])),
    doc: "(x - zero point) * scale, with scales and zero points for all of x, an axis or blocks.",
    numerics: Numerics::Unfiltered(error_of_dequantize),
    build: build_dequantize,
    eval: |a| {
        let to = a.output_dtypes[0];
        let scale = in_precision(a, &laid(a, a.x(1))?, to)?;
        one(in_precision(a, &above_zero_point(a)?, to)?.f_mul(&scale))
    },
    ..OpSpec::BASE
};

/// ONNX DynamicQuantizeLinear. Of nothing but zeros the text divides 0 by 0.
pub const DYNAMIC_QUANTIZE: OpSpec = OpSpec {
    code: 0x72,
    name: "DynamicQuantizeLinear",
    since: 11,
    dtypes: DTypes::of(&[DType::F32]),
    doc: "x as u8 with the scale and the zero point by which its range, with 0, fills u8; and these two.",
    numerics: Numerics::Unfiltered(error_of_dynamic_quantize),
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        b.require(product(&x.shape).at_least(1));
        b.output(DType::U8, x.shape);
        b.output(DType::F32, []);
        b.output(DType::U8, []);
        Ok(())
    },
    eval: |a| {
        let (least, most) = range(a.x(0))?;
        let width = most.f_sub(&least)?;
        // The reference implementation of ONNX takes a width of 1 where there is none.
        let scale = width.f_masked_fill(&width.f_eq(0.0)?, 1.0)? / LEVELS;
        let zero = least.f_neg()?.f_div(&scale)?.f_clamp(0.0, LEVELS)?.f_round()?;
        let y = a.x(0).f_div(&scale)?.f_round()?.f_add(&zero)?.f_clamp(0.0, LEVELS)?;
        Ok(vec![y.f_to_kind(Kind::Uint8)?, scale, zero.f_to_kind(Kind::Uint8)?])
    },
    guard: Some(|a| {
        let (least, most) = range(a.x(0))?;
        one(most.f_sub(&least)?.f_sub_scalar((-10f64).exp2()))
    }),
    ..OpSpec::BASE
};

/// The largest u8.
const LEVELS: f64 = 255.0;

/// Scales of an element type: one power of two, by which every backend divides exactly, or any others.
pub(super) fn scales(b: &mut Builder, dtype: DType) -> Domain {
    match () {
        () if !dtype.is_float() => Domain::Range(1.0, 4.0),
        () if b.in_exact_lane() || b.coin() => {
            // New floats are odd multiples of 1/128: over the second of these they all lie between two integers.
            let scale = b.one_of(&[1.0 / 32.0, 1.0 / 64.0, 0.5, 1.0 / 16.0, 2.0, 1.0 / 64.0]);
            Domain::Range(scale, scale)
        }
        () => {
            let (low, high) = b.one_of(&[(0.01, 0.05), (0.05, 0.3), (0.01, 1.5)]);
            Domain::Range(low, high)
        }
    }
}

/// Zero points of an element type: 0, some about the middle of the type, or any.
pub(super) fn zero_points(b: &mut Builder, dtype: DType) -> Domain {
    let middle = ((dtype.min() + dtype.max()) / 2.0).ceil();
    match b.below(4) {
        0 => Domain::Range(0.0, 0.0),
        1 => Domain::Range(middle - 10.0, middle + 10.0),
        2 => Domain::Range(middle, middle),
        _ => Domain::Range(dtype.min(), dtype.max()),
    }
}

/// What new quantised leaves hold: all values of their type, or now and then such as other leaves do.
pub(super) fn values(b: &mut Builder) -> fn(DType) -> Domain {
    if b.chance(72) {
        return |_| Domain::Any;
    }
    |dtype| match dtype {
        // Such as the bias of a convolution.
        DType::I32 => Domain::Range(-30_000.0, 30_000.0),
        _ => Domain::Range(dtype.min(), dtype.max()),
    }
}

/// Declares the scale of `x` and, if it has a type, the zero point, with the attributes that say for what they are.
fn parameters(b: &mut Builder, x: &Operand, scale: DType, zero_point: Option<DType>) {
    let shape = granularity(b, x);
    let domain = scales(b, scale);
    b.weight_in(scale, shape.clone(), domain);
    if let Some(dtype) = zero_point {
        // "In the case of dequantizing int32, there's no zero point (zero point is supposed to be 0)."
        let domain = if dtype == DType::I32 { Domain::Range(0.0, 0.0) } else { zero_points(b, dtype) };
        b.weight_in(dtype, shape, domain);
    }
}

/// The shape of a scale of `x`: one for all, for each index of an axis, or for each block along one.
fn granularity(b: &mut Builder, x: &Operand) -> Vec<Term> {
    let rank = x.rank();
    let pick = b.below(16);
    let blocks = b.opset() >= 21;
    // Since opset 21 a scale of a one-dimensional x is said to be one for all of it.
    if rank == 0 || pick < 6 || (blocks && rank == 1) {
        if rank > 0 && b.chance(64) {
            let ignored = b.axis(rank);
            set_axis(b, ignored, rank, 1);
        }
        // Strictly one element is a vector for an axis of one index; all backends and the node tests take it for a scalar.
        return if pick % 6 == 5 { vec![Term::constant(1)] } else { Vec::new() };
    }
    let axis = b.axis(rank);
    set_axis(b, axis, rank, 1);
    if !blocks || pick < 11 {
        if blocks && b.chance(40) {
            b.set_int("block_size", 0);
        }
        return vec![x.shape[axis]];
    }
    let size = b.value(x.shape[axis]).clamp(1, 8);
    let hint = 1 + b.below(size as usize) as i64;
    let block = b.free_near(1..=MAX_SIZE, hint);
    b.set_int("block_size", block);
    let mut shape = x.shape.clone();
    shape[axis] = shape[axis].div_ceil(block);
    shape
}

fn build_quantize(b: &mut Builder) -> Result<(), Skip> {
    let to = b.dtype_in_any_lane(if b.opset() >= 21 { BYTES.or(WORDS) } else { BYTES })?;
    let x = b.input_in_any_lane(b.dtypes(), ANY_RANK)?;
    let scale = match b.opset() {
        ..19 => DType::F32,
        19..=22 => x.dtype,
        _ if x.dtype.is_float() && b.coin() => x.dtype,
        // What a quotient in the precision of int32 would be is not said.
        _ => b.one_of(&[DType::F32, DType::F16, DType::BF16]),
    };
    let default = to == DType::U8;
    let typed = b.opset() >= 21 && b.chance(96);
    let zero_point = !(default || typed) || !b.chance(96);
    if typed {
        b.set_int("output_dtype", i64::from(to.onnx_code()));
    }
    parameters(b, &x, scale, zero_point.then_some(to));
    if b.opset() >= 23 && b.chance(64) {
        let precision = b.one_of(&[DType::F32, DType::F16, DType::BF16]);
        b.set_int("precision", i64::from(precision.onnx_code()));
    }
    if b.opset() >= 19 && b.chance(24) {
        // Means something for 8-bit floats only.
        b.attr("saturate", 0..=1);
    }
    b.output(to, x.shape);
    Ok(())
}

fn build_dequantize(b: &mut Builder) -> Result<(), Skip> {
    let values = values(b);
    let x = b.input_in_domain(b.dtypes(), ANY_RANK, values)?;
    let types = match b.opset() {
        ..19 => DTypes::of(&[DType::F32]),
        _ => SCALES,
    };
    let typed = b.opset() >= 23 && b.chance(96);
    let to = b.dtype_in_any_lane(types)?;
    let scale = if typed { b.one_of(&[DType::F32, DType::F16, DType::BF16]) } else { to };
    if typed {
        b.set_int("output_dtype", i64::from(to.onnx_code()));
    }
    let zero_point = b.chance(176).then_some(x.dtype);
    parameters(b, &x, scale, zero_point);
    b.output(to, x.shape);
    Ok(())
}

/// A scale, a zero point or what belongs to one, laid over operand 0: one element for all, for each index of an axis, or
/// for each block along it.
fn laid(a: &Args, parameter: &Tensor) -> Result<Tensor, TchError> {
    let shape = a.shape(0);
    if parameter.numel() == 1 {
        return parameter.f_reshape(&[] as &[i64]);
    }
    // Of one axis there is no other.
    let axis = if shape.len() == 1 { 0 } else { Args::from_front(a.int("axis", 1), shape.len()) };
    let index = usize::try_from(axis).ok().filter(|&axis| axis < shape.len());
    let index = index.ok_or_else(|| unsupported("an axis that is not there"))?;
    let block = a.int("block_size", 0);
    if block > 0 {
        return parameter.f_repeat_interleave_self_int(block, axis, None::<i64>)?.f_narrow(axis, 0, shape[index]);
    }
    let mut along = vec![1; shape.len()];
    along[index] = parameter.numel() as i64;
    parameter.f_reshape(along)
}

/// The float type in which QuantizeLinear divides.
fn precision(a: &Args) -> DType {
    let named = DType::from_onnx_code(a.int("precision", 0) as i32);
    named.or(a.operand_dtypes[1]).filter(|dtype| dtype.is_float()).unwrap_or(DType::F32)
}

/// `x` as a float of type `dtype`, in the kind that this evaluation holds it in.
pub(super) fn in_precision(a: &Args, x: &Tensor, dtype: DType) -> Result<Tensor, TchError> {
    let x = x.f_to_kind(a.kind(dtype))?;
    if a.wide { Ok(x) } else { stored(&x, dtype) }
}

/// The results of QuantizeLinear for quotients of operand 0, as floats.
fn rounded(a: &Args, quotient: &Tensor) -> Result<Tensor, TchError> {
    let to = a.output_dtypes[0];
    let y = quotient.f_round()?;
    let y = match a.opt(2) {
        Some(zero) => y.f_add(&laid(a, zero)?.f_to_kind(y.kind())?)?,
        None => y,
    };
    y.f_clamp(to.min(), to.max())
}

/// The elements of operand 0 less their zero points, as f64.
fn above_zero_point(a: &Args) -> Result<Tensor, TchError> {
    match a.opt(2) {
        Some(zero) => wide(a, 0)?.f_sub(&laid(a, &zero.f_to_kind(Kind::Double)?)?),
        None => wide(a, 0),
    }
}

/// Where `x` is no number of type `dtype`.
fn inexact(x: &Tensor, dtype: DType) -> Result<Tensor, TchError> {
    stored(x, dtype)?.f_ne_tensor(x)
}

/// The relative error of `roundings` (of each element) in a row.
fn share_of(roundings: Tensor, dtype: DType) -> Result<Tensor, TchError> {
    let share = roundings.f_to_kind(Kind::Double)? * dtype.unit_roundoff();
    let rest = share.f_neg()? + 1.0;
    share.f_div(&rest)
}

/// Which elements of a float type are too near to the end of its normal numbers for them and their reciprocals.
pub(super) fn extreme(x: &Tensor, dtype: DType) -> Result<Tensor, TchError> {
    let magnitude = x.f_abs()?;
    let least = 4.0 * dtype.min_positive();
    magnitude.f_lt(least)?.f_logical_or(&magnitude.f_gt(1.0 / least)?)
}

/// Certain where the quotient, by whatever division of the right precision, is clear of every step, or far outside.
fn error_of_quantize(a: &Args, errors: &[Option<Tensor>], _: &[Tensor]) -> Outputs {
    let dtype = precision(a);
    let (x, given) = (wide(a, 0)?, wide(a, 1)?);
    let scale = laid(a, &given)?;
    let (x_error, scale_error) = (error_of(errors, 0, &x)?, laid(a, &error_of(errors, 1, &given)?)?);
    let quotient = x.f_div(&scale)?;
    let size = quotient.f_abs()?;
    let moved = (x_error + &size * &scale_error) / (scale.f_abs()? - &scale_error).f_clamp_min(0.0)?;
    // By division, or by multiplication with the reciprocal.
    let rough = [inexact(&x, dtype)?, inexact(&scale, dtype)?, inexact(&quotient, dtype)?];
    let share = share_of(rough[0].f_to_kind(Kind::Double)? + rough[1].f_to_kind(Kind::Double)? + 2.0, dtype)?;
    let power = scale.f_abs()?.f_frexp()?.0.f_eq(0.5)?;
    let exact = rough.iter().try_fold(power, |exact, rough| exact.f_logical_and(&rough.f_logical_not()?))?;
    let rounding = (&size * share).f_masked_fill(&exact, 0.0)?;
    let reach = unless(&extreme(&scale, dtype)?, &defined(moved * REACH + rounding)?)?;
    // What overflows on the way comes out at the same end of the type, or further in.
    let overflows = x.f_abs()?.f_maximum(&size)?.f_gt(0.9 * dtype.max())?;
    let end = |sign: f64| -> Result<Tensor, TchError> {
        let outwards = overflows.f_logical_and(&(&quotient * sign).f_gt(0.0)?)?;
        rounded(a, &quotient.f_add(&(&reach * sign))?.f_masked_fill(&outwards, sign * f64::INFINITY)?)
    };
    let mut doubtful = end(-1.0)?.f_ne_tensor(&end(1.0)?)?;
    if let Some(Some(zero_error)) = errors.get(2) {
        doubtful = doubtful.f_logical_or(&laid(a, zero_error)?.f_gt(0.0)?)?;
    }
    one(unless(&doubtful, &x.f_zeros_like()?))
}

/// Roundings of the difference, the scale and the product where there are any, and the operands' errors.
fn error_of_dequantize(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let to = a.output_dtypes[0];
    let (difference, given) = (above_zero_point(a)?, wide(a, 1)?);
    let scale = laid(a, &given)?;
    let rough = [inexact(&difference, to)?, inexact(&scale, to)?, inexact(&exact[0], to)?];
    let roundings = rough.iter().try_fold(exact[0].f_zeros_like()?, |all, rough| all.f_add(rough))?;
    let rounding = exact[0].f_abs()? * share_of(roundings, to)?;
    let moved = difference.f_abs()? * laid(a, &error_of(errors, 1, &given)?)?;
    let mut doubtful = difference.f_abs()?.f_gt(0.9 * to.max())?.f_logical_or(&extreme(&scale, to)?)?;
    doubtful = doubtful.f_logical_or(&error_of(errors, 0, &difference)?.f_gt(0.0)?)?;
    if let Some(Some(zero_error)) = errors.get(2) {
        doubtful = doubtful.f_logical_or(&laid(a, zero_error)?.f_gt(0.0)?)?;
    }
    one(unless(&doubtful, &defined(rounding + moved * 2.0)?))
}

/// The least and the largest element of `x`, with 0 among them.
fn range(x: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    if x.numel() == 0 {
        return Err(unsupported("the range of nothing"));
    }
    Ok((x.f_min()?.f_clamp_max(0.0)?, x.f_max()?.f_clamp_min(0.0)?))
}

/// The roundings on the way to a quotient by a scale that was itself computed, and those of the reciprocals that may stand for
/// divisions.
const DYNAMIC_ROUNDINGS: f64 = 6.0;

fn error_of_dynamic_quantize(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let u = DType::F32.unit_roundoff();
    let x = wide(a, 0)?;
    let x_error = error_of(errors, 0, &x)?;
    let ((low, high), (least, most)) = (range(&x.f_sub(&x_error)?)?, range(&x.f_add(&x_error)?)?);
    let scale = &exact[1];
    // Either end may be off by the distance between what it is with all errors down and with all errors up.
    let scale_error = (&most - high + &least - &low) / LEVELS;
    let divisor = (scale - &scale_error).f_clamp_min(0.0)?;
    let reach = |size: &Tensor, error: &Tensor| {
        let moved = (error + size * &scale_error) / &divisor;
        defined(moved * REACH + size * (DYNAMIC_ROUNDINGS * u))
    };
    let start = range(&x)?.0.f_neg()?.f_div(scale)?;
    let start_reach = reach(&start, &(&least - &low))?;
    let zero = |at: Tensor| at.f_clamp(0.0, LEVELS)?.f_round();
    let zero_doubtful = zero(&start - &start_reach)?.f_ne_tensor(&zero(&start + &start_reach)?)?;
    let quotient = x.f_div(scale)?;
    let step = reach(&quotient.f_abs()?, &x_error)?;
    let at = |at: Tensor| at.f_round()?.f_add(&exact[2])?.f_clamp(0.0, LEVELS);
    let doubtful = at(&quotient - &step)?.f_ne_tensor(&at(&quotient + &step)?)?.f_logical_or(&zero_doubtful)?;
    let none = start.f_zeros_like()?;
    Ok(vec![
        unless(&doubtful, &x.f_zeros_like()?)?,
        defined(scale_error + scale * (3.0 * u))?,
        unless(&zero_doubtful, &none)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval_all};
    use super::*;
    use crate::dtype::DType::{BF16, F16, F32, I8, I16, I32, U8, U16};
    use crate::spec::Attribute;
    use crate::tensor::TensorData;

    fn operand(dtype: DType, shape: &[usize], values: &[f64]) -> Option<TensorData> {
        Some(TensorData::from_f64(dtype, shape, values))
    }

    /// `test_quantizelinear`, `_axis`, `_blocked_asymmetric`, `_uint16`, and ties.
    #[test]
    fn the_examples_of_onnx() {
        let quantize = |operands: &[Option<TensorData>], attributes: &[(&'static str, Attribute<i64>)], to| {
            eval_all(&QUANTIZE, operands, attributes, &[to]).swap_remove(0)
        };
        let x = operand(F32, &[6], &[0.0, 2.0, 3.0, 1000.0, -254.0, -1000.0]);
        let y = quantize(&[x, operand(F32, &[], &[2.0]), operand(U8, &[], &[128.0])], &[], U8);
        assert_eq!(y, [128.0, 129.0, 130.0, 255.0, 1.0, 0.0]);
        let x = operand(F32, &[1, 3, 2], &[-162.0, 10.0, -76.0, 0.0, 245.0, -485.0]);
        let (scale, zero) = (operand(F32, &[3], &[2.0, 4.0, 5.0]), operand(U8, &[3], &[84.0, 24.0, 196.0]));
        assert_eq!(quantize(&[x, scale, zero], &[], U8), [3.0, 89.0, 5.0, 24.0, 245.0, 99.0]);
        let x = operand(F32, &[2, 3], &[6.0, 12.0, 50.0, 5.0, 1.0, 250.0]);
        let (scale, zero) = (operand(F32, &[2, 2], &[1.5, 2.5, 3.0, 4.9]), operand(U8, &[2, 2], &[0.0, 1.0, 2.0, 3.0]));
        let blocks = [("axis", Attribute::Int(-1)), ("block_size", Attribute::Int(2))];
        assert_eq!(quantize(&[x, scale, zero], &blocks, U8), [4.0, 8.0, 21.0, 4.0, 2.0, 54.0]);
        let x = operand(F32, &[3], &[0.0, -128.0, 98_048.0]);
        let y = quantize(&[x, operand(F32, &[], &[2.0]), operand(U16, &[], &[32767.0])], &[], U16);
        assert_eq!(y, [32767.0, 32703.0, 65535.0]);
        let ties = operand(F16, &[5], &[0.5, 1.5, 2.5, -0.5, -1.5]);
        let y = quantize(&[ties, operand(F16, &[], &[1.0]), operand(I8, &[], &[1.0])], &[], I8);
        assert_eq!(y, [1.0, 3.0, 3.0, 1.0, -1.0], "rounded to even before the zero point is added");
    }

    #[test]
    fn the_examples_of_onnx_go_back() {
        let dequantize = |operands: &[Option<TensorData>], attributes: &[(&'static str, Attribute<i64>)], to| {
            eval_all(&DEQUANTIZE, operands, attributes, &[to]).swap_remove(0)
        };
        let x = operand(U8, &[4], &[0.0, 3.0, 128.0, 255.0]);
        let y = dequantize(&[x, operand(F32, &[], &[2.0]), operand(U8, &[], &[128.0])], &[], F32);
        assert_eq!(y, [-256.0, -250.0, 0.0, 254.0]);
        let x = operand(I16, &[4], &[-300.0, -30.0, -1025.0, 1270.0]);
        let y = dequantize(&[x, operand(F32, &[], &[2.0]), operand(I16, &[], &[-1024.0])], &[], F32);
        assert_eq!(y, [1448.0, 1988.0, -2.0, 4588.0]);
        let x = operand(U8, &[2, 3], &[3.0, 89.0, 34.0, 200.0, 5.0, 24.0]);
        let blocks = [("block_size", Attribute::Int(2))];
        let y = dequantize(&[x, operand(F32, &[2, 2], &[2.0, 4.0, 5.0, 1.0])], &blocks, F32);
        assert_eq!(y, [6.0, 178.0, 136.0, 1000.0, 25.0, 24.0]);
        let x = operand(I32, &[1], &[257.0]);
        assert_eq!(dequantize(&[x, operand(F32, &[], &[1.0])], &[], BF16), [256.0], "in the type of the output");
    }

    /// `test_dynamicquantizelinear` and `_min_adjusted`.
    #[test]
    fn ranges_contain_zero() {
        let quantize = |x: &[f64]| eval_all(&DYNAMIC_QUANTIZE, &[operand(F32, &[x.len()], x)], &[], &[U8, F32, U8]);
        let results = quantize(&[0.0, 2.0, -3.0, -2.5, 1.34, 0.5]);
        assert_eq!((&results[0], &results[2]), (&vec![153.0, 255.0, 0.0, 26.0, 221.0, 179.0], &vec![153.0]));
        assert_near(&results[1], &[0.019_607_843_137]);
        let results = quantize(&[1.0, 2.1, 1.3, 2.5, 3.34, 4.0]);
        assert_eq!((&results[0], &results[2]), (&vec![64.0, 134.0, 83.0, 159.0, 213.0, 255.0], &vec![0.0]));
    }
    /// Which of the elements of x, quantised by this scale, are judged when x may be off by `error`.
    fn judged(x: &[f64], scale: f64, zero: f64, error: f64) -> Vec<bool> {
        let tensor = |values: &[f64]| Tensor::from_slice(values);
        let a = Args {
            operands: vec![Some(tensor(x)), Some(tensor(&[scale])), Some(Tensor::from_slice(&[zero as u8]))],
            operand_dtypes: vec![Some(F32), Some(F32), Some(U8)],
            attributes: &[],
            output_dtypes: vec![U8],
            opset: 21,
            wide: true,
            accumulate: None,
        };
        let errors = [Some(tensor(x).full_like(error)), None, None];
        let bounds = error_of_quantize(&a, &errors, &[]).expect("legal operands").swap_remove(0);
        Vec::<f64>::try_from(bounds).expect("a vector").iter().map(|bound| bound.is_finite()).collect()
    }

    #[test]
    fn steps_are_not_judged() {
        assert_eq!(judged(&[1.25, 1.75, 1.24], 0.5, 0.0, 0.0), [true; 3], "ties that every division meets");
        assert_eq!(
            judged(&[0.25, 0.35, 0.251, 0.3], 0.1, 0.0, 0.0),
            [false, false, true, true],
            "ties by a rounded scale"
        );
        assert_eq!(judged(&[1.25, 1.75, 1.3], 0.5, 0.0, 1e-3), [false, false, true]);
        assert_eq!(judged(&[1.25, 1.0], 0.5, 0.0, f64::INFINITY), [false, false]);
        assert_eq!(judged(&[1000.25, -0.26, -300.0, 1e30], 0.5, 0.0, 1e-3), [true; 4], "beyond the ends of the type");
        assert_eq!(judged(&[127.25, 127.75], 0.5, 128.0, 1e-3), [true, true], "the zero point moves the ends");
    }
}
