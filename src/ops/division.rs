//! Division, remainders and powers, with ONNX multidirectional broadcasting.

use super::common::{BINARY, UNARY, as_output, is_float, magnitude, one, wide};
use super::rounding::{REACH, error_of, unless};
use crate::dtype::{DType, FLOATS, INDICES, INTS, NUMBERS};
use crate::spec::{ANY_RANK, Args, Builder, Domain, Exceptional, Numerics, OpSpec, Operand, Outputs, Skip};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&DIV, &RECIPROCAL, &MOD, &POW];

pub const DIV: OpSpec = OpSpec {
    code: 0x04,
    name: "Div",
    exceptional: Exceptional::Ieee754,
    since: 7,
    dtypes: NUMBERS,
    doc: "x / y; rounded toward zero for integers.",
    build: |b| build_divided(b).map(|_| ()),
    eval: eval_div,
    // A product with the reciprocal rounds twice.
    numerics: Numerics::Elementwise { ulps: 2.5, absolute: 0.0 },
    guard: Some(|a| away_from_zero(a, 1e-3)),
    pole: Some(1),
    // The least integer divided by -1.
    can_overflow: true,
    ..BINARY
};

pub const RECIPROCAL: OpSpec = OpSpec {
    code: 0x0a,
    name: "Reciprocal",
    exceptional: Exceptional::Ieee754,
    dtypes: FLOATS,
    doc: "1 / x.",
    eval: |a| one(a.x(0).f_reciprocal()),
    guard: Some(|a| one(magnitude(a.x(0))?.f_sub_scalar(1e-3))),
    pole: Some(0),
    ..UNARY
};

pub const MOD: OpSpec = OpSpec {
    code: 0x0c,
    name: "Mod",
    exceptional: Exceptional::Text("If x is ±∞ and y is not NaN, NaN is returned."),
    since: 13,
    dtypes: NUMBERS,
    doc: "The remainder of x / y: with the sign of y, or with fmod = 1 with the sign of x.",
    numerics: Numerics::Custom(error_mod),
    build: |b| {
        let x = build_divided(b)?;
        // Of floats, that with the sign of y came with opset 28.
        let fmod = i64::from(x.dtype.is_float() && b.opset() < 28 || b.coin());
        if fmod == 1 || b.coin() {
            b.set_int("fmod", fmod);
        }
        Ok(())
    },
    eval: eval_mod,
    guard: Some(|a| away_from_zero(a, 1e-2)),
    ..BINARY
};

pub const POW: OpSpec = OpSpec {
    code: 0x0b,
    name: "Pow",
    since: 7,
    dtypes: FLOATS.or(INDICES),
    doc: "x to the power of y, which may have another type; in the type of x.",
    // Through exp(y * log x) the relative error grows with the exponent of the result.
    numerics: Numerics::Elementwise { ulps: 16.0, absolute: 0.0 },
    build: build_pow,
    eval: eval_pow,
    guard: Some(guard_pow),
    pole: Some(0),
    can_overflow: true,
    ..BINARY
};

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
    let fmod = a.int("fmod", 0) == 1;
    let whole = |quotient: Tensor| if fmod { quotient.f_trunc() } else { quotient.f_floor() };
    let quotient = whole(x.f_div(&y)?)?;
    // The remainder by truncation is exact; that by the formula of the text rounds at each step.
    let steps = if fmod { x.f_zeros_like()? } else { x.f_abs()? * (2.0 * a.output_dtypes[0].unit_roundoff()) };
    let mut doubtful = (&ey * REACH).f_ge_tensor(&y.f_abs()?)?;
    for (sx, sy) in [(REACH, REACH), (REACH, -REACH), (-REACH, REACH), (-REACH, -REACH)] {
        let corner = whole(x.f_add(&((&ex + &steps) * sx))?.f_div(&y.f_add(&(&ey * sy))?)?)?;
        doubtful = doubtful.f_logical_or(&corner.f_ne_tensor(&quotient)?)?;
    }
    let rounding = exact[0].f_abs()? * a.output_dtypes[0].unit_roundoff();
    one(unless(&doubtful, &(ex + quotient.f_abs()? * ey + rounding + steps)))
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
                let floats = FLOATS.iter().collect::<Vec<_>>();
                let ints = INTS.iter().collect::<Vec<_>>();
                let dtype = b.one_of(if other == 2 { &floats } else { &ints });
                let shape = b.broadcastable_shape(&x.shape);
                let least = if dtype.is_unsigned() { 0.0 } else { -2.0 };
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

    // The node tests pow_types_* of ONNX.
    #[test]
    fn powers_have_the_type_of_their_base() {
        let (base, exponent): (&[f64], &[f64]) = (&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]);
        for (dtype, other) in [(F32, I64), (I64, F32), (I32, I64), (F32, I32)] {
            assert_eq!(eval(&POW, &[(dtype, base), (other, exponent)], &[], dtype), [1.0, 32.0, 729.0]);
        }
    }
}
