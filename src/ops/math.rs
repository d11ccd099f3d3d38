//! Elementwise arithmetic, rounding and selection. ONNX multidirectional broadcasting throughout.

use super::common::{
    BINARY, UNARY, VARIADIC, as_output, build_variadic, error_of_jumps, fold, is_float, magnitude, one, operand, wide,
};
use super::rounding::{REACH, error_of, unless};
use crate::dtype::{DType, FLOATS, INTS, NUMBERS, SIGNED_INTS};
use crate::spec::{ANY_RANK, Args, Builder, Domain, Numerics, OpSpec, Operand, Outputs, Skip};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[
    &ADD,
    &SUB,
    &MUL,
    &DIV,
    &POW,
    &MOD,
    &NEG,
    &ABS,
    &SIGN,
    &RECIPROCAL,
    &FLOOR,
    &CEIL,
    &ROUND,
    &MIN,
    &MAX,
    &SUM,
    &MEAN,
    &CLIP,
];

pub const ADD: OpSpec = OpSpec {
    code: 0x02,
    name: "Add",
    since: 14,
    dtypes: NUMBERS,
    doc: "x + y.",
    eval: |a| one(a.x(0).f_add(a.x(1))),
    can_overflow: true,
    ..BINARY
};

pub const SUB: OpSpec = OpSpec {
    code: 0x06,
    name: "Sub",
    since: 14,
    dtypes: NUMBERS,
    doc: "x - y.",
    build: build_sub,
    eval: |a| one(a.x(0).f_sub(a.x(1))),
    can_overflow: true,
    ..BINARY
};

pub const MUL: OpSpec = OpSpec {
    code: 0x03,
    name: "Mul",
    since: 14,
    dtypes: NUMBERS,
    doc: "x * y.",
    eval: |a| one(a.x(0).f_mul(a.x(1))),
    can_overflow: true,
    ..BINARY
};

pub const DIV: OpSpec = OpSpec {
    code: 0x04,
    name: "Div",
    since: 14,
    dtypes: NUMBERS,
    doc: "x / y; rounded toward zero for integers.",
    build: |b| build_divided(b).map(|_| ()),
    eval: eval_div,
    guard: Some(|a| away_from_zero(a, 1e-3)),
    // The least integer divided by -1.
    can_overflow: true,
    ..BINARY
};

pub const POW: OpSpec = OpSpec {
    code: 0x0b,
    name: "Pow",
    since: 15,
    dtypes: FLOATS.or(crate::dtype::INDICES),
    doc: "x to the power of y, which may have another type; in the type of x.",
    // Through exp(y * log x) the relative error grows with the exponent of the result.
    numerics: Numerics::Elementwise { ulps: 16.0, absolute: 0.0 },
    build: build_pow,
    eval: eval_pow,
    guard: Some(guard_pow),
    can_overflow: true,
    ..BINARY
};

pub const MOD: OpSpec = OpSpec {
    code: 0x0c,
    name: "Mod",
    since: 13,
    dtypes: NUMBERS,
    doc: "The remainder of x / y: with the sign of y, or with fmod = 1 with the sign of x.",
    numerics: Numerics::Custom(error_mod),
    build: |b| {
        let x = build_divided(b)?;
        let fmod = i64::from(x.dtype.is_float() || b.coin());
        if fmod == 1 || b.coin() {
            b.set_int("fmod", fmod);
        }
        Ok(())
    },
    eval: eval_mod,
    guard: Some(|a| away_from_zero(a, 1e-2)),
    ..BINARY
};

pub const NEG: OpSpec = OpSpec {
    code: 0x07,
    name: "Neg",
    dtypes: FLOATS.or(SIGNED_INTS),
    doc: "-x.",
    numerics: Numerics::SELECTING,
    eval: |a| one(a.x(0).f_neg()),
    can_overflow: true,
    ..UNARY
};

pub const ABS: OpSpec = OpSpec {
    code: 0x08,
    name: "Abs",
    dtypes: NUMBERS,
    doc: "|x|.",
    numerics: Numerics::SELECTING,
    eval: |a| one(a.x(0).f_abs()),
    can_overflow: true,
    ..UNARY
};

pub const SIGN: OpSpec = OpSpec {
    code: 0x09,
    name: "Sign",
    dtypes: NUMBERS,
    doc: "-1, 0 or 1, as x is negative, 0 or positive.",
    numerics: Numerics::Custom(|a, errors, exact| error_of_jumps(a, errors, exact, SIGN.eval)),
    eval: |a| one(a.x(0).f_sign()),
    proxy: Some(operand),
    ..UNARY
};

pub const RECIPROCAL: OpSpec = OpSpec {
    code: 0x0a,
    name: "Reciprocal",
    dtypes: FLOATS,
    doc: "1 / x.",
    eval: |a| one(a.x(0).f_reciprocal()),
    guard: Some(|a| one(magnitude(a.x(0))?.f_sub_scalar(1e-3))),
    ..UNARY
};

/// A function to the integers: it rounds nothing more, but an error of the operand may pass a step.
const STEP: OpSpec = OpSpec { dtypes: FLOATS, proxy: Some(operand), ..UNARY };

pub const FLOOR: OpSpec = OpSpec {
    code: 0x12,
    name: "Floor",
    doc: "x rounded down.",
    numerics: Numerics::Custom(|a, errors, exact| error_of_jumps(a, errors, exact, FLOOR.eval)),
    eval: |a| one(a.x(0).f_floor()),
    ..STEP
};

pub const CEIL: OpSpec = OpSpec {
    code: 0x13,
    name: "Ceil",
    doc: "x rounded up.",
    numerics: Numerics::Custom(|a, errors, exact| error_of_jumps(a, errors, exact, CEIL.eval)),
    eval: |a| one(a.x(0).f_ceil()),
    ..STEP
};

pub const ROUND: OpSpec = OpSpec {
    code: 0x14,
    name: "Round",
    since: 11,
    doc: "The nearest integer; of two the even one.",
    numerics: Numerics::Custom(|a, errors, exact| error_of_jumps(a, errors, exact, ROUND.eval)),
    eval: |a| one(a.x(0).f_round()),
    ..STEP
};

pub const MIN: OpSpec = OpSpec {
    code: 0x0d,
    name: "Min",
    dtypes: NUMBERS,
    doc: "The smallest of all operands.",
    eval: |a| one(fold(a, Tensor::f_minimum)),
    ..VARIADIC
};

pub const MAX: OpSpec = OpSpec {
    code: 0x0e,
    name: "Max",
    dtypes: NUMBERS,
    doc: "The largest of all operands.",
    eval: |a| one(fold(a, Tensor::f_maximum)),
    ..VARIADIC
};

pub const SUM: OpSpec = OpSpec {
    code: 0x0f,
    name: "Sum",
    dtypes: FLOATS,
    doc: "The sum of all operands.",
    numerics: Numerics::Accumulated,
    build: build_variadic,
    eval: |a| one(fold(a, Tensor::f_add)),
    ..OpSpec::BASE
};

pub const MEAN: OpSpec = OpSpec {
    code: 0x10,
    name: "Mean",
    dtypes: FLOATS,
    doc: "The mean of all operands.",
    numerics: Numerics::Accumulated,
    build: build_variadic,
    eval: |a| one(fold(a, Tensor::f_add)?.f_div_scalar(a.count() as f64)),
    ..OpSpec::BASE
};

pub const CLIP: OpSpec = OpSpec {
    code: 0x11,
    name: "Clip",
    dtypes: NUMBERS,
    doc: "min(high, max(x, low)); either bound may be absent.",
    numerics: Numerics::SELECTING,
    build: build_clip,
    eval: |a| {
        let raised = a.opt(1).map_or_else(|| Ok(a.x(0).shallow_clone()), |low| a.x(0).f_maximum(low))?;
        one(a.opt(2).map_or_else(|| Ok(raised.shallow_clone()), |high| raised.f_minimum(high)))
    },
    proxy: Some(operand),
    ..OpSpec::BASE
};

/// Subtraction of u8 would mostly fall below 0: there the first operand is a new leaf of larger values.
fn build_sub(b: &mut Builder) -> Result<(), Skip> {
    let y = b.input(b.dtypes(), ANY_RANK)?;
    let x = if y.dtype == DType::U8 {
        let shape = b.broadcastable_shape(&y.shape);
        b.leaf(DType::U8, shape, Domain::Range(30.0, 90.0))
    } else {
        b.input_broadcastable(y.dtype, &y.shape)
    };
    b.last_operand_first();
    let shape = b.broadcast(&[&x.shape, &y.shape]);
    b.output(x.dtype, shape);
    Ok(())
}

/// Division of any kind: integers are divided by a leaf without zeros. The dividend.
fn build_divided(b: &mut Builder) -> Result<Operand, Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let y = if x.dtype.is_int() {
        let shape = b.broadcastable_shape(&x.shape);
        b.leaf(x.dtype, shape, Domain::NonZero)
    } else {
        b.input_broadcastable(x.dtype, &x.shape)
    };
    let shape = b.broadcast(&[&x.shape, &y.shape]);
    b.output(x.dtype, shape);
    Ok(x)
}

/// The distance of a float divisor from 0.
fn away_from_zero(a: &Args, distance: f64) -> Outputs {
    if a.dtype(1).is_float() { one(magnitude(a.x(1))?.f_sub_scalar(distance)) } else { Ok(Vec::new()) }
}

fn eval_div(a: &Args) -> Outputs {
    let (x, y) = (a.x(0), a.x(1));
    if is_float(x.kind()) {
        return one(x.f_div(y));
    }
    let (divisor, minus) = without_minus_one(y)?;
    let quotient = x.f_div_tensor_mode(&divisor, "trunc")?;
    one(match minus {
        Some(minus) => x.f_neg()?.f_where_self(&minus, &quotient),
        None => Ok(quotient),
    })
}

fn eval_mod(a: &Args) -> Outputs {
    let (x, y) = (a.x(0), a.x(1));
    let fmod = a.int("fmod", 0) == 1;
    let remainder = |y: &Tensor| if fmod { x.f_fmod_tensor(y) } else { x.f_remainder_tensor(y) };
    one(if is_float(x.kind()) { remainder(y) } else { remainder(&without_minus_one(y)?.0) })
}

/// An integer divisor with 1 in place of -1, and where that was: the processor traps on the least integer divided
/// by -1, also where only the remainder is wanted. (The remainder of both is 0.)
fn without_minus_one(y: &Tensor) -> Result<(Tensor, Option<Tensor>), TchError> {
    if y.kind() == Kind::Uint8 {
        return Ok((y.shallow_clone(), None));
    }
    let minus = y.f_eq(-1)?;
    Ok((y.f_masked_fill(&minus, 1)?, Some(minus)))
}

/// While the integral quotient is the same all over the operands' error boxes, the remainder is linear.
fn error_mod(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let (x, y) = (wide(a, 0)?, wide(a, 1)?);
    let (ex, ey) = (error_of(errors, 0, &x)?, error_of(errors, 1, &y)?);
    let quotient = x.f_div(&y)?.f_trunc()?;
    let mut doubtful = (&ey * REACH).f_ge_tensor(&y.f_abs()?)?;
    for (sx, sy) in [(REACH, REACH), (REACH, -REACH), (-REACH, REACH), (-REACH, -REACH)] {
        let corner = x.f_add(&(&ex * sx))?.f_div(&y.f_add(&(&ey * sy))?)?.f_trunc()?;
        doubtful = doubtful.f_logical_or(&corner.f_ne_tensor(&quotient)?)?;
    }
    let rounding = exact[0].f_abs()? * a.output_dtypes[0].unit_roundoff();
    one(unless(&doubtful, &(ex + quotient.f_abs()? * ey + rounding)))
}

/// A float base takes exponents of any type and sign; an integer base small integers from 0 on, because ONNX does not
/// say how other results become integers.
fn build_pow(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let exponent = if x.dtype.is_int() {
        let dtype = b.one_of(&[x.dtype, DType::I32, DType::I64, DType::U8, DType::I8]);
        let shape = b.broadcastable_shape(&x.shape);
        b.leaf(dtype, shape, Domain::Range(0.0, 4.0))
    } else {
        match b.below(4) {
            // The exponents that optimizers rewrite.
            0 => {
                let value = b.one_of(&[2.0, 0.5, 3.0, -1.0, 1.0, 0.0, -0.5, 4.0, 1.5]);
                b.weight_in(x.dtype, [], Domain::Range(value, value))
            }
            1 => b.input_broadcastable(x.dtype, &x.shape),
            other => {
                let floats = [DType::F32, DType::F64, DType::F16];
                let ints = INTS.iter().collect::<Vec<_>>();
                let dtype = b.one_of(if other == 2 { &floats } else { &ints });
                let shape = b.broadcastable_shape(&x.shape);
                let least = if dtype == DType::U8 { 0.0 } else { -2.0 };
                b.leaf(dtype, shape, Domain::Range(least, 3.0))
            }
        }
    };
    let shape = b.broadcast(&[&x.shape, &exponent.shape]);
    b.output(x.dtype, shape);
    Ok(())
}

fn eval_pow(a: &Args) -> Outputs {
    let (x, y) = (a.x(0), a.x(1));
    // An integer exponent joins the type of the base; a wider float one keeps its digits until the end.
    let y = if is_float(y.kind()) { y.shallow_clone() } else { y.f_to_kind(x.kind())? };
    as_output(a, x.f_pow(&y)?)
}

/// A fractional exponent needs a positive base, a negative one a base away from 0.
fn guard_pow(a: &Args) -> Outputs {
    if !a.dtype(0).is_float() {
        return Ok(Vec::new());
    }
    let (x, y) = (a.x(0), a.x(1).f_to_kind(Kind::Double)?);
    let fractional = y.f_ne_tensor(&y.f_floor()?)?;
    let free = x.f_ones_like()?.f_where_self(&y.f_ge(0.0)?, &magnitude(x)?.f_sub_scalar(0.05)?)?;
    one(x.f_sub_scalar(0.05)?.f_where_self(&fractional, &free))
}

/// Scalar bounds: often those of the well-known activations, sometimes crossing, in which case the upper one holds.
fn build_clip(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let present = b.one_of(&[3, 3, 1, 2, 3, 3, 2, 1, 0]);
    let ranges: [(f64, f64); 2] =
        b.one_of(&[[(-3.0, 1.0), (0.0, 4.0)], [(0.0, 0.0), (6.0, 6.0)], [(-1.0, -1.0), (1.0, 1.0)]]);
    for (bit, (low, high)) in ranges.into_iter().enumerate() {
        if present >> bit & 1 == 0 {
            // What is absent at the end is simply not written.
            if present >> bit != 0 {
                b.absent();
            }
        } else if b.chance(64) {
            b.input_like(x.dtype, []);
        } else {
            let least = if x.dtype == DType::U8 { 0.0 } else { f64::NEG_INFINITY };
            b.weight_in(x.dtype, [], Domain::Range(low.max(least), high.max(least)));
        }
    }
    b.output(x.dtype, x.shape);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval};
    use super::*;
    use crate::dtype::DType::{F32, I32, I64};
    use crate::spec::Attribute::Int;

    #[test]
    fn integers_divide_toward_zero_and_never_trap() {
        let quotient = eval(&DIV, &[(I32, &[-7.0, 7.0, 7.0]), (I32, &[2.0, -2.0, -1.0])], &[], I32);
        assert_eq!(quotient, [-3.0, -3.0, -7.0]);
        let least = f64::from(i32::MIN);
        assert_eq!(eval(&DIV, &[(I32, &[least]), (I32, &[-1.0])], &[], I32), [least], "wraps, and is not judged");
        assert_eq!(eval(&MOD, &[(I32, &[least]), (I32, &[-1.0])], &[], I32), [0.0]);
    }

    // The node tests mod_mixed_sign_* of ONNX.
    #[test]
    fn remainders_have_the_sign_of_the_divisor_or_with_fmod_of_the_dividend() {
        let integers: [(_, &[f64]); 2] =
            [(I64, &[-4.0, 7.0, 5.0, 4.0, -7.0, 8.0]), (I64, &[2.0, -3.0, 8.0, -2.0, 3.0, 5.0])];
        assert_eq!(eval(&MOD, &integers, &[], I64), [0.0, -2.0, 5.0, 0.0, 2.0, 3.0]);
        assert_eq!(eval(&MOD, &integers, &[("fmod", Int(1))], I64), [0.0, 1.0, 5.0, 0.0, -1.0, 3.0]);
        let floats: [(_, &[f64]); 2] = [(F32, &[-4.3, 7.2, 5.0, 8.0]), (F32, &[2.1, -3.4, 8.0, 5.0])];
        assert_near(&eval(&MOD, &floats, &[("fmod", Int(1))], F32), &[-0.1, 0.4, 5.0, 3.0]);
    }

    // The node tests round, pow_types_* and clip_min_greater_than_max of ONNX.
    #[test]
    fn examples_of_onnx() {
        let rounded = eval(&ROUND, &[(F32, &[0.5, 1.5, 1.8, 2.5, -1.5, -2.5, -2.8])], &[], F32);
        assert_eq!(rounded, [0.0, 2.0, 2.0, 2.0, -2.0, -2.0, -3.0]);
        let (base, exponent): (&[f64], &[f64]) = (&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]);
        for (dtype, other) in [(F32, I64), (I64, F32), (I32, I64), (F32, I32)] {
            assert_eq!(eval(&POW, &[(dtype, base), (other, exponent)], &[], dtype), [1.0, 32.0, 729.0]);
        }
        let bounds: [(_, &[f64]); 3] = [(F32, &[-2.0, 0.0, 6.0]), (F32, &[2.0]), (F32, &[1.0])];
        assert_eq!(eval(&CLIP, &bounds, &[], F32), [1.0, 1.0, 1.0]);
    }
}
