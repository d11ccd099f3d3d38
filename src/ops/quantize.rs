//! Quantisation: numbers as small integers with a scale and a zero point, and back.

use super::common::{one, wide};
use super::dynamic_quantize::DYNAMIC_QUANTIZE;
use super::rounding::{REACH, defined, error_of, stored, unless};
use super::scales::{BYTES, SCALES, WORDS, parameters, values};
use super::windows::unsupported;
use crate::dtype::{DType, DTypes};
use crate::spec::{ANY_RANK, Args, Builder, Numerics, OpSpec, Outputs, Skip};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&QUANTIZE, &DEQUANTIZE, &DYNAMIC_QUANTIZE];

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
    let typed = b.opset() >= 21 && b.chance(132);
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
    let typed = b.opset() >= 23 && b.chance(132);
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

#[cfg(test)]
mod tests {
    use super::super::common::testing::{eval_all, operand};
    use super::*;
    use crate::dtype::DType::{BF16, F16, F32, I8, I16, I32, U8, U16};
    use crate::spec::Attribute;
    use crate::tensor::TensorData;

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
