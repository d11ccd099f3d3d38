//! Smooth activations that gate their own operand.

use super::activation::build_with;
use super::ball::{Ball, Balled, Operands, radii, values};
use super::common::float_attribute;
use crate::dtype::{DType, FLOATS};
use crate::spec::{ANY_RANK, Numerics, OpSpec};
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&GELU, &SWISH, &SWI_GLU];

/// No slope of these functions is steeper, whatever alpha is.
const STEEPEST: f64 = 1.13;

pub const GELU: OpSpec = OpSpec {
    code: 0x65,
    name: "Gelu",
    since: 20,
    dtypes: FLOATS,
    doc: "x times the normal distribution function of x, or times its approximation by tanh.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, vec![gelu(&Operands::inexact(a, errors))?])),
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        match b.one_of(&["", "tanh", "none", "tanh"]) {
            "" => {}
            approximation => b.set_text("approximate", approximation),
        }
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| values(a, vec![gelu(&Operands::exact(a))?]),
    ..OpSpec::BASE
};

fn gelu(o: &Operands) -> Balled {
    let x = o.ball(0)?;
    let approximation = o.args.text("approximate", "none");
    let ball = gated(&x, |x| x.f_gelu(approximation))?;
    // The function's body in the ONNX text has 2 / pi and 0.044715 as f32: legal in f64 too.
    let rounded = if approximation == "tanh" && o.args.dtype(0) == DType::F64 { 1e-7 } else { 0.0 };
    ball.widened(rounded, || Ok(x.value.shallow_clone()))
}

/// A function x * gate(x), whose gate is rounded as if it were about 1.
fn gated(x: &Ball, f: impl FnOnce(&Tensor) -> Result<Tensor, TchError>) -> Balled {
    // Step by step there are two and a half; approximations in wider types may take more, which bf16 has no room for.
    let roundings = if x.dtype() == DType::BF16 { 3.0 } else { 8.0 };
    x.function([roundings, 0.0], f, |x, _| x.f_full_like(STEEPEST))?.rounded(roundings, || Ok(x.value.shallow_clone()))
}

pub(super) fn swish(x: &Ball, alpha: f64) -> Balled {
    gated(x, |x| x.f_mul(&x.f_mul_scalar(alpha)?.f_sigmoid()?))
}

const ALPHAS: &[f32] = &[1.0, 0.5, 1.702, 2.0, -1.0, 0.25];

pub const SWISH: OpSpec = OpSpec {
    code: 0x66,
    name: "Swish",
    since: 24,
    dtypes: FLOATS,
    doc: "x * sigmoid(alpha * x).",
    numerics: Numerics::Custom(|a, errors, _| radii(a, vec![swish_of(&Operands::inexact(a, errors))?])),
    build: |b| build_with(b, &[("alpha", ALPHAS)]),
    eval: |a| values(a, vec![swish_of(&Operands::exact(a))?]),
    ..OpSpec::BASE
};

fn swish_of(o: &Operands) -> Balled {
    swish(&o.ball(0)?, o.args.float("alpha", 1.0))
}

pub const SWI_GLU: OpSpec = OpSpec {
    code: 0x67,
    name: "SwiGLU",
    since: 28,
    dtypes: FLOATS,
    doc: "Swish(a) * b of two operands of one shape.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, vec![swi_glu(&Operands::inexact(a, errors))?])),
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        b.input_like(x.dtype, x.shape.clone());
        float_attribute(b, "alpha", ALPHAS);
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| values(a, vec![swi_glu(&Operands::exact(a))?]),
    ..OpSpec::BASE
};

fn swi_glu(o: &Operands) -> Balled {
    swish_of(o)?.mul(&o.ball(1)?)
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval};
    use super::*;
    use crate::dtype::DType::F32;
    use crate::spec::Attribute::{Float, Text};

    // The node tests gelu_default_1, gelu_tanh_1, swish and swiglu of ONNX.
    #[test]
    fn examples_of_onnx() {
        let x: (DType, &[f64]) = (F32, &[-1.0, 0.0, 1.0]);
        assert_near(&eval(&GELU, &[x], &[], F32), &[-0.158_655_3, 0.0, 0.841_344_7]);
        let tanh = [("approximate", Text("tanh".to_owned()))];
        assert_near(&eval(&GELU, &[x], &tanh, F32), &[-0.158_808, 0.0, 0.841_192]);
        assert_near(&eval(&SWISH, &[x], &[], F32), &[-0.268_941_4, 0.0, 0.731_058_6]);
        let alpha = [("alpha", Float(2.0))];
        assert_near(&eval(&SWISH, &[x], &alpha, F32), &[-0.119_202_9, 0.0, 0.880_797_1]);
        assert_near(&eval(&SWI_GLU, &[x, (F32, &[3.0, 5.0, -2.0])], &alpha, F32), &[-0.357_608_8, 0.0, -1.761_594_2]);
    }
}
