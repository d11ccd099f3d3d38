//! Quantisation by the range of the data.

use super::common::{one, wide};
use super::rounding::{REACH, defined, error_of, unless};
use super::windows::unsupported;
use crate::dtype::{DType, DTypes};
use crate::spec::{ANY_RANK, Args, Numerics, OpSpec, Outputs};
use crate::term::product;
use tch::{Kind, TchError, Tensor};

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
    use crate::dtype::DType::{F32, U8};
    use crate::tensor::TensorData;

    /// `test_dynamicquantizelinear` and `_min_adjusted`.
    #[test]
    fn ranges_contain_zero() {
        let quantize = |x: &[f64]| {
            eval_all(&DYNAMIC_QUANTIZE, &[Some(TensorData::from_f64(F32, &[x.len()], x))], &[], &[U8, F32, U8])
        };
        let results = quantize(&[0.0, 2.0, -3.0, -2.5, 1.34, 0.5]);
        assert_eq!((&results[0], &results[2]), (&vec![153.0, 255.0, 0.0, 26.0, 221.0, 179.0], &vec![153.0]));
        assert_near(&results[1], &[0.019_607_843_137]);
        let results = quantize(&[1.0, 2.1, 1.3, 2.5, 3.34, 4.0]);
        assert_eq!((&results[0], &results[2]), (&vec![64.0, 134.0, 83.0, 159.0, 213.0, 255.0], &vec![0.0]));
    }
}
