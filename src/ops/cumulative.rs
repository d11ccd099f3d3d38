//! Running sums and products along an axis.

use super::common::{as_output, one};
use super::rounding::{error_of, gamma, underflow, unless_overflow};
use crate::dtype::{DType, FLOATS, WIDE_INTS};
use crate::limits::{EXACT, MAX_RANK};
use crate::spec::{Args, Builder, Numerics, OpSpec, Skip};
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&CUM_SUM, &CUM_PROD];

const CUMULATIVE: OpSpec = OpSpec { build, can_overflow: true, ..OpSpec::BASE };

fn build(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
    let axis = b.axis(x.rank());
    let dtype = b.one_of(&[DType::I64, DType::I32]);
    let written = b.signed_axis(axis, x.rank());
    b.constant_scalar(dtype, written);
    for name in ["exclusive", "reverse"] {
        let set = b.mostly();
        if set || b.coin() {
            b.set_int(name, i64::from(set));
        }
    }
    b.accumulate(x.shape[axis]);
    b.output(x.dtype, x.shape);
    Ok(())
}

/// What `step` makes of the elements from one end of the axis on; `neutral` stands before the first.
fn running(
    a: &Args,
    x: &Tensor,
    neutral: f64,
    step: impl Fn(&Tensor, i64) -> Result<Tensor, TchError>,
) -> Result<Tensor, TchError> {
    let axis = a.list(1).and_then(|axis| axis.first().copied()).unwrap_or(0);
    let axis = Args::from_front(axis, x.dim());
    let reversed = a.int("reverse", 0) != 0;
    let mut x = if reversed { x.f_flip([axis])? } else { x.shallow_clone() };
    let size = x.size()[axis as usize];
    if a.int("exclusive", 0) != 0 && size > 0 {
        let first = x.f_narrow(axis, 0, 1)?.f_full_like(neutral)?;
        x = Tensor::f_cat(&[first, x.f_narrow(axis, 0, size - 1)?], axis)?;
    }
    let y = step(&x, axis)?;
    if reversed { y.f_flip([axis]) } else { Ok(y) }
}

/// ONNX CumSum, opset 14.
pub const CUM_SUM: OpSpec = OpSpec {
    code: 0xba,
    name: "CumSum",
    since: 11,
    dtypes: FLOATS.or(WIDE_INTS),
    doc: "The running sum along an axis, from either end, with or without the element itself.",
    numerics: Numerics::Accumulated,
    eval: |a| one(running(a, a.x(0), 0.0, |x, axis| x.f_cumsum(axis, a.output_kind(0)))),
    ..CUMULATIVE
};

/// ONNX CumProd, opset 26.
pub const CUM_PROD: OpSpec = OpSpec {
    code: 0x68,
    name: "CumProd",
    since: 26,
    dtypes: FLOATS.or(WIDE_INTS),
    doc: "The running product along an axis, from either end, with or without the element itself.",
    numerics: Numerics::Custom(|a, errors, _| {
        let (x, dtype) = (a.x(0), a.output_dtypes[0]);
        let terms = a.accumulate.unwrap_or(x.numel() as f64);
        let magnitude = x.f_abs()?;
        let widened = &magnitude + error_of(errors, 0, x)?;
        let most = product(a, &widened)?;
        // Factors below 1 may come last, or first.
        let reached = product(a, &widened.f_clamp_min(1.0)?)?;
        let error =
            &most - product(a, &magnitude)? + most * gamma(terms, dtype) + &reached * (terms * underflow(dtype));
        one(unless_overflow(error, &reached, dtype))
    }),
    eval: |a| as_output(a, product(a, a.x(0))?),
    // A later 0 does not undo that the product has left the range of integers: it may wrap, or stay at the end.
    guard: Some(|a| {
        if a.dtype(0).is_float() {
            return Ok(Vec::new());
        }
        let most = a.dtype(0).max().min(EXACT);
        let reached = a.x(0).f_to_kind(tch::Kind::Double)?.f_abs()?.f_clamp_min(1.0)?;
        Ok(vec![most - product(a, &reached)?])
    }),
    ..CUMULATIVE
};

fn product(a: &Args, x: &Tensor) -> Result<Tensor, TchError> {
    running(a, x, 1.0, |x, axis| x.f_cumprod(axis, x.kind()))
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::eval;
    use super::*;
    use crate::dtype::DType::{F32, I32, I64, U32};
    use crate::spec::Attribute::Int;

    // The examples in the text of CumProd.
    #[test]
    fn examples_of_onnx() {
        let operands: &[(DType, &[f64])] = &[(F32, &[1.0, 2.0, 3.0]), (I64, &[0.0])];
        let run = |attributes: &[(&'static str, _)]| eval(&CUM_PROD, operands, attributes, F32);
        assert_eq!(run(&[]), [1.0, 2.0, 6.0]);
        assert_eq!(run(&[("exclusive", Int(1))]), [1.0, 1.0, 2.0]);
        assert_eq!(run(&[("reverse", Int(1))]), [6.0, 6.0, 3.0]);
        assert_eq!(run(&[("reverse", Int(1)), ("exclusive", Int(1))]), [6.0, 3.0, 1.0]);
        assert_eq!(eval(&CUM_SUM, operands, &[("exclusive", Int(1))], F32), [0.0, 1.0, 3.0]);
    }

    #[test]
    fn integers_keep_their_type() {
        assert_eq!(eval(&CUM_PROD, &[(I32, &[3.0, -4.0]), (I32, &[-1.0])], &[], I32), [3.0, -12.0]);
        assert_eq!(eval(&CUM_PROD, &[(U32, &[3.0, 4.0]), (I32, &[-1.0])], &[], U32), [3.0, 12.0]);
    }
}
