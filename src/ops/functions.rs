//! Elementary functions of one float operand.
//!
//! The error bounds allow for textbook formulas such as log(x + sqrt(x * x + 1)), whose intermediate results of about 1
//! leave an absolute error however small the result is.
//!
//! ONNX says nothing of accuracy, so the allowed errors are those that others demand or measure, in units in the last place
//! (two of the unit roundoffs `u` that [`Numerics`] counts in; the judge widens all bounds by 4, so that `ULPS` comes to 16):
//!
//! | | here | OpenCL, full profile, f32 and f64 | limit of glibc's own tests |
//! |---|---|---|---|
//! | Exp, Log | 16 | 3 | 9 |
//! | Sin, Cos, Sinh, Cosh, Asin, Acos, Asinh, Acosh | 16 | 4 | 9 |
//! | Tan, Atan, Tanh, Atanh | 16 | 5 | 9 |
//! | Erf | 16 | 16 | 9 |
//! | Pow | 32 | 16 | 9 |
//! | Sqrt | 4 | 3 (f64: rounded correctly) | rounded correctly |
//! | Div, Reciprocal | 2 | 2.5 (f64: rounded correctly) | rounded correctly |
//!
//! Sources: "Relative Error as ULPs" in the OpenCL SPIR-V environment specification (`env/numerical_compliance.asciidoc` of
//! KhronosGroup/OpenCL-Docs); "Errors in Math Functions" in the manual of the GNU C library; for what libraries reach in fact,
//! mostly below 3, Gladman, Innocente, Mather and Zimmermann, "Accuracy of Mathematical Functions in Single, Double, Double
//! Extended, and Quadruple Precision".

use super::common::{UNARY, approximate, magnitude, one, wide};
use super::rounding::{error_of, unless};
use crate::dtype::FLOATS;
use crate::spec::{Args, Exceptional, Numerics, OpSpec, Outputs};
use std::f64::consts::{FRAC_PI_2, PI};
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] =
    &[&SQRT, &EXP, &LOG, &SIN, &COS, &TAN, &ASIN, &ACOS, &ATAN, &SINH, &COSH, &TANH, &ASINH, &ACOSH, &ATANH, &ERF];

/// Unit roundoffs that an implementation of a function may be off; see the top of this file.
const ULPS: f64 = 8.0;
/// For results near 0 computed from intermediate results near 1.
const THROUGH_ONE: Numerics = Numerics::Elementwise { ulps: ULPS, absolute: 0.5 };

const FUNCTION: OpSpec = OpSpec { dtypes: FLOATS, numerics: approximate(ULPS), ..UNARY };

pub const SQRT: OpSpec = OpSpec {
    code: 0x15,
    name: "Sqrt",
    range: Some((0.0, f64::INFINITY)),
    exceptional: Exceptional::Text("If x is negative, then it will return NaN."),
    doc: "The square root of x.",
    numerics: Numerics::Elementwise { ulps: 2.0, absolute: 0.0 },
    eval: |a| one(a.x(0).f_sqrt()),
    guard: Some(|a| Ok(vec![a.x(0).shallow_clone()])),
    ..FUNCTION
};

pub const EXP: OpSpec = OpSpec {
    code: 0x16,
    name: "Exp",
    range: Some((0.0, f64::INFINITY)),
    doc: "e to the power of x.",
    numerics: Numerics::Elementwise { ulps: ULPS, absolute: 0.0 },
    eval: |a| one(a.x(0).f_exp()),
    ..FUNCTION
};

pub const LOG: OpSpec = OpSpec {
    code: 0x17,
    name: "Log",
    doc: "The natural logarithm of x.",
    eval: |a| one(a.x(0).f_log()),
    guard: Some(|a| one(a.x(0).f_sub_scalar(1e-3))),
    ..FUNCTION
};

/// An argument that every range reduction in single precision still takes.
const LARGEST_ANGLE: f64 = 1e4;

pub const SIN: OpSpec = OpSpec {
    code: 0x18,
    name: "Sin",
    range: Some((-1.0, 1.0)),
    since: 7,
    doc: "The sine of x in radians.",
    numerics: Numerics::Custom(error_of_wave),
    eval: |a| one(a.x(0).f_sin()),
    guard: Some(|a| one(margin(a, LARGEST_ANGLE))),
    ..FUNCTION
};

pub const COS: OpSpec = OpSpec {
    code: 0x19,
    name: "Cos",
    range: Some((-1.0, 1.0)),
    since: 7,
    doc: "The cosine of x in radians.",
    numerics: Numerics::Custom(error_of_wave),
    eval: |a| one(a.x(0).f_cos()),
    guard: Some(|a| one(margin(a, LARGEST_ANGLE))),
    ..FUNCTION
};

pub const TAN: OpSpec = OpSpec {
    code: 0x1a,
    name: "Tan",
    since: 7,
    doc: "The tangent of x in radians.",
    numerics: Numerics::Custom(error_of_tan),
    eval: |a| one(a.x(0).f_tan()),
    // Away from the poles.
    guard: Some(|a| Ok(vec![margin(a, LARGEST_ANGLE)?, a.x(0).f_cos()?.f_abs()?.f_sub_scalar(0.05)?])),
    ..FUNCTION
};

pub const ASIN: OpSpec = OpSpec {
    code: 0x1b,
    name: "Asin",
    range: Some((-FRAC_PI_2, FRAC_PI_2)),
    since: 7,
    doc: "The inverse of the sine.",
    numerics: THROUGH_ONE,
    eval: |a| one(a.x(0).f_asin()),
    guard: Some(|a| one(margin(a, 1.0))),
    ..FUNCTION
};

pub const ACOS: OpSpec = OpSpec {
    code: 0x1c,
    name: "Acos",
    range: Some((0.0, PI)),
    since: 7,
    doc: "The inverse of the cosine.",
    numerics: THROUGH_ONE,
    eval: |a| one(a.x(0).f_acos()),
    guard: Some(|a| one(margin(a, 1.0))),
    ..FUNCTION
};

pub const ATAN: OpSpec = OpSpec {
    code: 0x1d,
    name: "Atan",
    range: Some((-FRAC_PI_2, FRAC_PI_2)),
    since: 7,
    doc: "The inverse of the tangent.",
    eval: |a| one(a.x(0).f_atan()),
    ..FUNCTION
};

pub const SINH: OpSpec = OpSpec {
    code: 0x1e,
    name: "Sinh",
    since: 9,
    doc: "The hyperbolic sine of x.",
    numerics: THROUGH_ONE,
    eval: |a| one(a.x(0).f_sinh()),
    ..FUNCTION
};

pub const COSH: OpSpec = OpSpec {
    code: 0x1f,
    name: "Cosh",
    range: Some((1.0, f64::INFINITY)),
    since: 9,
    doc: "The hyperbolic cosine of x.",
    eval: |a| one(a.x(0).f_cosh()),
    ..FUNCTION
};

pub const TANH: OpSpec = OpSpec {
    code: 0x05,
    name: "Tanh",
    range: Some((-1.0, 1.0)),
    doc: "The hyperbolic tangent of x.",
    numerics: THROUGH_ONE,
    eval: |a| one(a.x(0).f_tanh()),
    ..FUNCTION
};

pub const ASINH: OpSpec = OpSpec {
    code: 0x20,
    name: "Asinh",
    since: 9,
    doc: "The inverse of the hyperbolic sine.",
    // Of a negative x the textbook formula takes the logarithm of a difference.
    numerics: Numerics::Elementwise { ulps: ULPS, absolute: 1.0 },
    eval: |a| one(a.x(0).f_asinh()),
    ..FUNCTION
};

pub const ACOSH: OpSpec = OpSpec {
    code: 0x21,
    name: "Acosh",
    range: Some((0.0, f64::INFINITY)),
    since: 9,
    doc: "The inverse of the hyperbolic cosine.",
    numerics: THROUGH_ONE,
    eval: |a| one(a.x(0).f_acosh()),
    // Near 1 the textbook formula loses half of the digits.
    guard: Some(|a| one(a.x(0).f_sub_scalar(1.01))),
    ..FUNCTION
};

pub const ATANH: OpSpec = OpSpec {
    code: 0x22,
    name: "Atanh",
    since: 9,
    doc: "The inverse of the hyperbolic tangent.",
    numerics: THROUGH_ONE,
    eval: |a| one(a.x(0).f_atanh()),
    guard: Some(|a| one(margin(a, 0.99))),
    ..FUNCTION
};

pub const ERF: OpSpec = OpSpec {
    code: 0x23,
    name: "Erf",
    range: Some((-1.0, 1.0)),
    doc: "The error function of x.",
    // Common approximations in single precision have an absolute error of 1e-6.
    numerics: Numerics::Elementwise { ulps: ULPS, absolute: 1.5 },
    eval: |a| one(a.x(0).f_erf()),
    ..FUNCTION
};

/// How far |x| is below `limit`.
fn margin(a: &Args, limit: f64) -> Result<Tensor, TchError> {
    magnitude(a.x(0))?.f_neg()?.f_add_scalar(limit)
}

/// The rounding of `exact`, a function's value.
fn rounding(a: &Args, exact: &Tensor) -> Result<Tensor, TchError> {
    exact.f_abs()?.f_add_scalar(0.25)?.f_mul_scalar(ULPS * a.output_dtypes[0].unit_roundoff())
}

/// Sine and cosine change by no more than their operand. (Their values at the ends of a wide interval may agree.)
/// Of an operand that may be infinite nothing is known.
fn error_of_wave(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let error = error_of(errors, 0, &wide(a, 0)?)?;
    let bounded = error.f_clamp_max(2.0)?.f_masked_fill(&error.f_isinf()?, f64::INFINITY)?;
    one(Ok(bounded + rounding(a, &exact[0])?))
}

/// As long as no pole is near: the cosine changes by less than a quarter, the slope by less than a factor of two.
fn error_of_tan(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let x = wide(a, 0)?;
    let error = error_of(errors, 0, &x)?;
    let doubtful = (&error * 4.0).f_gt_tensor(&x.f_cos()?.f_abs()?)?;
    let change = exact[0].f_square()?.f_add_scalar(1.0)? * error * 2.0;
    one(unless(&doubtful, &(change + rounding(a, &exact[0])?)))
}
