//! Softmax and its kin.

use super::common::one;
use super::movement::{axis_of, set_axis};
use super::order::doubtful_maximum;
use super::rounding::{defined, error_of, gamma};
use crate::dtype::{DType, FLOATS};
use crate::limits::MAX_RANK;
use crate::spec::{Builder, Numerics, OpSpec, Skip};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&SOFTMAX, &LOG_SOFTMAX, &HARDMAX];

/// Along an axis, with the shape of the operand.
const ALONG: OpSpec = OpSpec { dtypes: FLOATS, build: build_along, ..OpSpec::BASE };

fn build_along(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
    let axis = b.axis(x.rank());
    set_axis(b, axis, x.rank(), -1);
    b.accumulate(x.shape[axis]);
    b.output(x.dtype, x.shape);
    Ok(())
}

/// ONNX Softmax, opset 13.
pub const SOFTMAX: OpSpec = OpSpec {
    code: 0xc0,
    name: "Softmax",
    range: Some((0.0, 1.0)),
    doc: "exp(x) divided by its sum along an axis.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let y = &exact[0];
        let (x, axis) = (a.x(0), axis_of(a, -1, a.rank(0)));
        let (shift, sum, terms) = exponent_errors(x, &error_of(errors, 0, x)?, y, axis, a.output_dtypes[0])?;
        let share = shift + sum;
        let rounding = gamma(terms, a.output_dtypes[0]) + 12.0 * a.output_dtypes[0].unit_roundoff();
        one(defined(y * share.f_expm1()? + y * rounding))
    }),
    eval: |a| one(a.x(0).f_softmax(axis_of(a, -1, a.rank(0)), a.x(0).kind())),
    ..ALONG
};

/// ONNX LogSoftmax, opset 13.
pub const LOG_SOFTMAX: OpSpec = OpSpec {
    code: 0xc1,
    name: "LogSoftmax",
    range: Some((f64::NEG_INFINITY, 0.0)),
    doc: "The logarithm of Softmax.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let (x, axis) = (a.x(0), axis_of(a, -1, a.rank(0)));
        one(log_softmax_errors(x, &error_of(errors, 0, x)?, &exact[0], axis, a.output_dtypes[0]))
    }),
    eval: |a| one(a.x(0).f_log_softmax(axis_of(a, -1, a.rank(0)), a.x(0).kind())),
    ..ALONG
};

/// The error of the LogSoftmax `y` along `axis` of what may be off by `error`, in type `dtype`.
pub fn log_softmax_errors(x: &Tensor, error: &Tensor, y: &Tensor, axis: i64, dtype: DType) -> Result<Tensor, TchError> {
    let (shift, sum, terms) = exponent_errors(x, error, &y.f_exp()?, axis, dtype)?;
    let u = dtype.unit_roundoff();
    defined(shift + sum + (y.f_abs()? * 4.0 + 12.0) * u + gamma(terms, dtype))
}

/// For a Softmax with result `y`: how far off each exponent may be, counting the rounding of the exponential, how far the
/// logarithm of their exponentials' sum, and the number of terms.
fn exponent_errors(
    x: &Tensor,
    error: &Tensor,
    y: &Tensor,
    axis: i64,
    dtype: DType,
) -> Result<(Tensor, Tensor, f64), TchError> {
    if x.numel() == 0 {
        return Ok((error.shallow_clone(), error.shallow_clone(), 0.0));
    }
    let u = dtype.unit_roundoff();
    let below = x.f_amax([axis], true)? - x;
    let shift = error + below * (2.0 * u) + 8.0 * u;
    // No less than the mean of the shifts weighted with `y`: one term of a small share may come to be the largest. All shifts
    // upwards move the sum at least as far as all downwards, since the logarithm of a sum of exponentials is convex.
    let sum = (shift.f_expm1()? * y).f_sum_dim_intlist([axis].as_slice(), true, Kind::Double)?.f_log1p()?;
    Ok((shift, sum, x.size()[axis as usize] as f64))
}

/// ONNX Hardmax, opset 13.
pub const HARDMAX: OpSpec = OpSpec {
    code: 0xab,
    name: "Hardmax",
    doc: "1 at the first maximum along an axis, 0 elsewhere.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let x = a.x(0);
        let doubtful = doubtful_maximum(x, &error_of(errors, 0, x)?, axis_of(a, -1, x.dim()), true)?;
        one(exact[0].f_zeros_like()?.f_masked_fill(&doubtful, f64::INFINITY))
    }),
    eval: |a| {
        let x = a.x(0);
        let axis = axis_of(a, -1, x.dim());
        if x.numel() == 0 {
            return one(x.f_zeros_like());
        }
        one(x.f_zeros_like()?.f_scatter_value(axis, &x.f_argmax(axis, true)?, 1.0))
    },
    ..ALONG
};
