//! Activation functions.

use super::common::{UNARY, as_output, error_of_jumps, float_attribute, is_float, one, operand, wide};
use super::rounding::{error_of, unless};
use crate::dtype::{FLOATS, NUMBERS, SIGNED_INTS, WIDE_INTS};
use crate::spec::{ANY_RANK, Args, Builder, Numerics, OpSpec, Outputs, Skip};
use crate::term::Term;
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[
    &RELU,
    &LEAKY_RELU,
    &PRELU,
    &ELU,
    &SELU,
    &CELU,
    &THRESHOLDED_RELU,
    &HARD_SIGMOID,
    &HARD_SWISH,
    &SIGMOID,
    &SOFTPLUS,
    &SOFTSIGN,
    &MISH,
    &SHRINK,
];

/// Two or three roundings; the attributes are rounded to f16 too.
const SHORT: Numerics = Numerics::Elementwise { ulps: 4.0, absolute: 0.0 };
/// The same, of intermediate results of about 1.
const THROUGH_ONE: Numerics = Numerics::Elementwise { ulps: 4.0, absolute: 1.0 };

const ACTIVATION: OpSpec = OpSpec { dtypes: FLOATS, ..UNARY };

pub const RELU: OpSpec = OpSpec {
    code: 0x01,
    name: "Relu",
    range: Some((0.0, f64::INFINITY)),
    since: 6,
    dtypes: FLOATS.or(SIGNED_INTS),
    doc: "max(x, 0).",
    numerics: Numerics::SELECTING,
    eval: |a| one(a.x(0).f_relu()),
    proxy: Some(|a| one(a.x(0).f_leaky_relu())),
    ..UNARY
};

pub const LEAKY_RELU: OpSpec = OpSpec {
    code: 0x24,
    name: "LeakyRelu",
    since: 6,
    doc: "x where x >= 0, else alpha * x.",
    numerics: SHORT,
    build: |b| build_with(b, &[("alpha", &[0.25, 0.01, 0.1, 0.5, 1.5, 0.0, -0.5])]),
    eval: |a| {
        let x = a.x(0);
        one(below_zero(x, &x.f_mul_scalar(a.float("alpha", 0.01))?, x))
    },
    ..ACTIVATION
};

pub const PRELU: OpSpec = OpSpec {
    code: 0x2e,
    name: "PRelu",
    since: 9,
    dtypes: FLOATS.or(WIDE_INTS),
    doc: "x where x >= 0, else slope * x; slope is broadcast to x.",
    numerics: Numerics::ROUNDED,
    build: build_prelu,
    eval: |a| {
        let x = a.x(0);
        one(below_zero(x, &x.f_mul(a.x(1))?, x))
    },
    can_overflow: true,
    ..UNARY
};

pub const ELU: OpSpec = OpSpec {
    code: 0x25,
    name: "Elu",
    since: 6,
    doc: "x where x >= 0, else alpha * (exp(x) - 1).",
    numerics: THROUGH_ONE,
    build: |b| build_with(b, &[("alpha", &[0.5, 1.0, 1.5, 0.25, 2.0])]),
    eval: |a| {
        let x = a.x(0);
        one(below_zero(x, &falling_exp(x)?.f_mul_scalar(a.float("alpha", 1.0))?, x))
    },
    ..ACTIVATION
};

pub const SELU: OpSpec = OpSpec {
    code: 0x26,
    name: "Selu",
    since: 6,
    doc: "gamma * x where x > 0, else gamma * alpha * (exp(x) - 1).",
    numerics: Numerics::Elementwise { ulps: 4.0, absolute: 2.0 },
    build: |b| build_with(b, &[("alpha", &[1.5, 1.673_263_2, 0.5, 2.0]), ("gamma", &[0.5, 1.050_701, 1.25, 2.0])]),
    eval: |a| {
        let (x, alpha, gamma) = (a.x(0), a.float("alpha", 1.673_263_2), a.float("gamma", 1.050_701));
        let negative = falling_exp(x)?.f_mul_scalar(alpha)?;
        one(below_zero(x, &negative, x)?.f_mul_scalar(gamma))
    },
    ..ACTIVATION
};

pub const CELU: OpSpec = OpSpec {
    code: 0x27,
    name: "Celu",
    since: 12,
    // Other types than f32 came with opset 28.
    doc: "max(0, x) + min(0, alpha * (exp(x / alpha) - 1)).",
    numerics: THROUGH_ONE,
    build: |b| build_with(b, &[("alpha", &[0.5, 1.0, 1.5, 0.25, 2.0])]),
    eval: |a| {
        let (x, alpha) = (a.x(0), a.float("alpha", 1.0));
        let scaled = x.f_div_scalar(alpha)?;
        // Where alpha is positive only x < 0 matters, and exp must not overflow elsewhere.
        let exponential = if alpha > 0.0 { falling_exp(&scaled)? } else { scaled.f_expm1()? };
        one(x.f_clamp_min(0.0)?.f_add(&exponential.f_mul_scalar(alpha)?.f_clamp_max(0.0)?))
    },
    ..ACTIVATION
};

pub const THRESHOLDED_RELU: OpSpec = OpSpec {
    code: 0x28,
    name: "ThresholdedRelu",
    since: 10,
    doc: "x where x > alpha, else 0.",
    numerics: Numerics::Custom(|a, errors, exact| {
        error_of_jumps(a, errors, exact, THRESHOLDED_RELU.eval, &[a.float("alpha", 1.0)])
    }),
    build: |b| build_with(b, &[("alpha", &[0.5, 1.0, 0.0, 2.0, -0.5])]),
    eval: |a| {
        let x = a.x(0);
        one(x.f_where_self(&x.f_gt(a.float("alpha", 1.0))?, &x.f_zeros_like()?))
    },
    proxy: Some(operand),
    ..ACTIVATION
};

pub const HARD_SIGMOID: OpSpec = OpSpec {
    code: 0x29,
    name: "HardSigmoid",
    range: Some((0.0, 1.0)),
    since: 6,
    doc: "max(0, min(1, alpha * x + beta)).",
    numerics: Numerics::Elementwise { ulps: 4.0, absolute: 2.0 },
    build: |b| build_with(b, &[("alpha", &[0.25, 0.2, 1.0 / 6.0, 0.5, 1.0]), ("beta", &[0.25, 0.5, 0.0, 0.75, 1.0])]),
    eval: |a| one(slope(a, a.float("alpha", 0.2), a.float("beta", 0.5))?.f_clamp(0.0, 1.0)),
    proxy: Some(|a| one(slope(a, a.float("alpha", 0.2), 0.0))),
    ..ACTIVATION
};

pub const HARD_SWISH: OpSpec = OpSpec {
    code: 0x2a,
    name: "HardSwish",
    since: 14,
    doc: "x * max(0, min(1, x / 6 + 1/2)).",
    numerics: Numerics::Custom(error_of_hard_swish),
    eval: |a| one(a.x(0).f_mul(&slope(a, 1.0 / 6.0, 0.5)?.f_clamp(0.0, 1.0)?)),
    proxy: Some(operand),
    ..ACTIVATION
};

pub const SIGMOID: OpSpec = OpSpec {
    code: 0x2b,
    name: "Sigmoid",
    range: Some((0.0, 1.0)),
    doc: "1 / (1 + exp(-x)).",
    numerics: THROUGH_ONE,
    eval: |a| one(a.x(0).f_sigmoid()),
    ..ACTIVATION
};

pub const SOFTPLUS: OpSpec = OpSpec {
    code: 0x2c,
    name: "Softplus",
    range: Some((0.0, f64::INFINITY)),
    since: 1,
    doc: "ln(exp(x) + 1).",
    numerics: Numerics::Custom(error_of_softplus),
    // libtorch's own softplus is the identity beyond 20.
    eval: |a| one(a.x(0).f_logaddexp(&a.x(0).f_zeros_like()?)),
    ..ACTIVATION
};

pub const SOFTSIGN: OpSpec = OpSpec {
    code: 0x2d,
    name: "Softsign",
    range: Some((-1.0, 1.0)),
    since: 1,
    doc: "x / (1 + |x|).",
    numerics: SHORT,
    eval: |a| one(a.x(0).f_div(&a.x(0).f_abs()?.f_add_scalar(1.0)?)),
    ..ACTIVATION
};

pub const MISH: OpSpec = OpSpec {
    code: 0x2f,
    name: "Mish",
    since: 18,
    doc: "x * tanh(ln(exp(x) + 1)).",
    // Of a large negative x the tanh has an absolute error, multiplied by x. The slope is below 1.1.
    numerics: Numerics::Custom(|a, errors, exact| {
        let x = wide(a, 0)?;
        let error = error_of(errors, 0, &x)?;
        let rounding = (exact[0].f_abs()? + x.f_abs()? + &error) * (8.0 * a.output_dtypes[0].unit_roundoff());
        one(Ok(error * 1.1 + rounding))
    }),
    eval: |a| one(a.x(0).f_mul(&a.x(0).f_logaddexp(&a.x(0).f_zeros_like()?)?.f_tanh()?)),
    ..ACTIVATION
};

pub const SHRINK: OpSpec = OpSpec {
    code: 0x30,
    name: "Shrink",
    since: 9,
    dtypes: NUMBERS,
    doc: "x + bias where x < -lambd, x - bias where x > lambd, else 0.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let lambd = a.float("lambd", 0.5);
        error_of_jumps(a, errors, exact, SHRINK.eval, &[-lambd, lambd])
    }),
    build: build_shrink,
    eval: eval_shrink,
    proxy: Some(operand),
    can_overflow: true,
    ..ACTIVATION
};

/// One operand and float attributes, each with its possible values.
pub(super) fn build_with(b: &mut Builder, attributes: &[(&'static str, &[f32])]) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    for (name, values) in attributes {
        float_attribute(b, name, values);
    }
    b.output(x.dtype, x.shape);
    Ok(())
}

/// `negative` where x < 0, else `other`.
fn below_zero(x: &Tensor, negative: &Tensor, other: &Tensor) -> Result<Tensor, TchError> {
    negative.f_where_self(&x.f_lt(0.0)?, other)
}

/// exp(x) - 1 for x < 0, and 0 from there on: no overflow in the branch that is not taken.
fn falling_exp(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_clamp_max(0.0)?.f_expm1()
}

/// The text and the function's body take the exponential as it is, which may leave the range long before its logarithm.
fn error_of_softplus(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let x = wide(a, 0)?;
    let error = error_of(errors, 0, &x)?;
    let dtype = a.output_dtypes[0];
    let highest = &x + &error;
    let rounding = (exact[0].f_abs()? + 0.5) * (8.0 * dtype.unit_roundoff());
    let overflows = highest.f_gt(dtype.max().ln() - 0.5)?;
    one(unless(&overflows, &(error * highest.f_sigmoid()? + rounding)))
}

/// The function's body in the ONNX text has 1/6 as an attribute, which is an f32: legal in f64 too.
fn error_of_hard_swish(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let x = wide(a, 0)?;
    let rounded_sixth = x.f_square()?.f_clamp_max(9.0)? * (1.0 / 6.0 - f64::from(1f32 / 6.0)).abs();
    let rounding = (exact[0].f_abs()? + 1.0) * (4.0 * a.output_dtypes[0].unit_roundoff());
    // The steepest slope, at x = 3.
    one(Ok(error_of(errors, 0, &x)? * 1.5 + rounding + rounded_sixth))
}

/// alpha * x + beta.
fn slope(a: &Args, alpha: f64, beta: f64) -> Result<Tensor, TchError> {
    a.x(0).f_mul_scalar(alpha)?.f_add_scalar(beta)
}

/// The slope has some trailing dimensions of x, any of them 1 instead: typically one value per channel.
fn build_prelu(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let dropped = b.below(x.rank() + 1);
    let shared = b.axes(x.rank());
    let dim = |axis: usize| if shared.contains(&axis) { Term::constant(1) } else { x.shape[axis] };
    let shape: Vec<Term> = (dropped..x.rank()).map(dim).collect();
    if b.chance(64) {
        b.input_like(x.dtype, shape);
    } else {
        b.weight(x.dtype, shape);
    }
    b.output(x.dtype, x.shape);
    Ok(())
}

/// Integers get whole attributes: ONNX does not say how a fraction would be rounded. What is subtracted from an unsigned one is
/// never more than the threshold it has passed.
fn build_shrink(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let whole = x.dtype.is_int();
    let lambd = b.one_of(if whole { &[2.0, 1.0, 3.0, 0.0] } else { &[1.0, 0.5, 1.5, 0.0, 2.0] });
    let bias = match x.dtype {
        unsigned if unsigned.is_unsigned() => b.one_of(&[1.0, 0.0, 2.0, 3.0f32]).min(lambd),
        _ if whole => b.one_of(&[1.0, 0.0, 2.0, 5.0, -1.0]),
        _ => b.one_of(&[0.5, 0.0, 1.5, 2.0, -0.25]),
    };
    if whole || !b.chance(40) {
        b.set_float("lambd", lambd);
    }
    if bias != 0.0 || b.coin() {
        b.set_float("bias", bias);
    }
    b.output(x.dtype, x.shape);
    Ok(())
}

fn eval_shrink(a: &Args) -> Outputs {
    let (x, lambd, bias) = (a.x(0), a.float("lambd", 0.5), a.float("bias", 0.0));
    // A scalar with a fraction would turn integers into floats.
    let whole = lambd.fract() == 0.0 && bias.fract() == 0.0;
    let (below, above) = if whole && !is_float(x.kind()) {
        (x.f_add_scalar(bias as i64)?, x.f_sub_scalar(bias as i64)?)
    } else {
        (x.f_add_scalar(bias)?, x.f_sub_scalar(bias)?)
    };
    let inner = above.f_where_self(&x.f_gt(lambd)?, &above.f_zeros_like()?)?;
    as_output(a, below.f_where_self(&x.f_lt(-lambd)?, &inner)?)
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, bound, eval};
    use super::super::rounding::REACH;
    use super::*;
    use crate::dtype::DType::{F32, I32};
    use crate::spec::Attribute::Float;

    // The node tests shrink_soft, thresholdedrelu, hardsigmoid, selu, elu and celu of ONNX.
    #[test]
    fn examples_of_onnx() {
        let x: &[f64] = &[-2.0, -1.0, 0.0, 1.0, 2.0];
        let soft = [("lambd", Float(1.5)), ("bias", Float(1.5))];
        assert_near(&eval(&SHRINK, &[(F32, x)], &soft, F32), &[-0.5, 0.0, 0.0, 0.0, 0.5]);
        assert_eq!(eval(&SHRINK, &[(I32, x)], &[("bias", Float(1.0))], I32), [-1.0, 0.0, 0.0, 0.0, 1.0]);
        let thresholded = eval(&THRESHOLDED_RELU, &[(F32, &[-1.5, 1.2, 2.0, 2.2])], &[("alpha", Float(2.0))], F32);
        assert_near(&thresholded, &[0.0, 0.0, 0.0, 2.2]);
        let x: &[f64] = &[-1.0, 0.0, 1.0];
        let hard = [("alpha", Float(0.5)), ("beta", Float(0.6))];
        assert_near(&eval(&HARD_SIGMOID, &[(F32, x)], &hard, F32), &[0.1, 0.6, 1.0]);
        let scaled = [("alpha", Float(2.0)), ("gamma", Float(3.0))];
        assert_near(&eval(&SELU, &[(F32, x)], &scaled, F32), &[-3.792_723_2, 0.0, 3.0]);
        assert_near(&eval(&ELU, &[(F32, x)], &[("alpha", Float(2.0))], F32), &[-1.264_241_1, 0.0, 1.0]);
        // 2 * (exp(-1 / 2) - 1).
        assert_near(&eval(&CELU, &[(F32, x)], &[("alpha", Float(2.0))], F32), &[-0.786_938_7, 0.0, 1.0]);
    }

    #[test]
    fn large_operands_do_not_overflow_on_the_way() {
        let x: &[f64] = &[-200.0, 200.0];
        assert_near(&eval(&SOFTPLUS, &[(F32, x)], &[], F32), &[0.0, 200.0]);
        assert_near(&eval(&MISH, &[(F32, x)], &[], F32), &[0.0, 200.0]);
        assert_near(&eval(&CELU, &[(F32, x)], &[], F32), &[-1.0, 200.0]);
    }

    /// Shrink leaves 0 for -1.5 at once, and is back at 0 where x is 1.5: no error there says nothing of what lies between.
    #[test]
    fn a_jump_before_the_end_of_the_error_counts() {
        let attributes = [("lambd", Float(0.0)), ("bias", Float(1.5))];
        assert!(bound(&SHRINK, &[0.0], &[1.5 / REACH], &attributes)[0] >= 1.5);
        assert!(bound(&SHRINK, &[5.0], &[1.5 / REACH], &attributes)[0] < 2.0);
        assert_eq!(bound(&SHRINK, &[0.0], &[0.0], &attributes), [0.0]);
        // The result is 0 at both ends, and -0.5 behind the threshold.
        assert!(bound(&THRESHOLDED_RELU, &[-0.75], &[0.75 / REACH], &[("alpha", Float(-0.5))])[0] > 0.49);
    }
}
