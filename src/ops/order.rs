//! Operators that depend on the order of elements: which is the largest, which come first.

use super::common::one;
use super::movement::{axis_of, set_axis};
use super::rounding::error_of;
use crate::dtype::{DType, NUMBERS};
use crate::limits::{MAX_RANK, MAX_SIZE};
use crate::spec::{Args, Builder, Numerics, OpSpec, Outputs, Skip};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&TOP_K, &ARG_MAX, &ARG_MIN];

/// How many times their errors two elements must be apart for their order to be certain.
const CLEAR: f64 = 2.0;

/// ONNX TopK, opset 11. With `sorted` 0 any order is legal, so that only 1 is made.
pub const TOP_K: OpSpec = OpSpec {
    code: 0xa8,
    name: "TopK",
    since: 11,
    dtypes: NUMBERS,
    doc: "The k largest or smallest elements along an axis and their indices; of equal ones the first.",
    numerics: Numerics::Custom(top_k_errors),
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let axis = b.axis(x.rank());
        let size = b.value(x.shape[axis]);
        let hint = 1 + b.below(size.clamp(1, 256) as usize) as i64;
        let k = b.free_near(1..=MAX_SIZE, hint);
        b.require(k.at_most(x.shape[axis]));
        b.constant([k]);
        set_axis(b, axis, x.rank(), -1);
        let largest = !b.mostly();
        if !largest || b.coin() {
            b.set_int("largest", i64::from(largest));
        }
        if b.coin() {
            b.set_int("sorted", 1);
        }
        let mut shape = x.shape;
        shape[axis] = k;
        b.output(x.dtype, shape.clone());
        b.output(DType::I64, shape);
        Ok(())
    },
    eval: |a| {
        let (axis, k, values, indices) = sorted(a)?;
        Ok(vec![values.f_narrow(axis, 0, k)?, indices.f_narrow(axis, 0, k)?])
    },
    ..OpSpec::BASE
};

/// The axis of a TopK, its k, and the operand sorted along the axis, with indices.
fn sorted(a: &Args) -> Result<(i64, i64, Tensor, Tensor), TchError> {
    let axis = axis_of(a, -1, a.rank(0));
    let k = a.list(1).and_then(|k| k.first().copied()).unwrap_or(0);
    // A stable sort keeps equal elements in the order of their indices, also descending.
    let (values, indices) = a.x(0).f_sort_stable(true, axis, a.int("largest", 1) != 0)?;
    Ok((axis, k, values, indices))
}

fn top_k_errors(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let (axis, k, values, _) = sorted(a)?;
    let zero = || exact[1].f_zeros_like()?.f_to_kind(Kind::Double);
    let Some(error) = &errors[0] else {
        return Ok(vec![zero()?, zero()?]);
    };
    if exact[0].numel() == 0 {
        return Ok(vec![zero()?, zero()?]);
    }
    // No order statistic moves further than the element that moves the furthest.
    let most = error.f_amax([axis], true)?;
    let size = values.size()[axis as usize];
    let near = (values.f_narrow(axis, 0, size - 1)? - values.f_narrow(axis, 1, size - 1)?)
        .f_abs()?
        .f_le_tensor(&(&most * (2.0 * CLEAR)))?
        .f_logical_and(&most.f_gt(0.0)?)?;
    let never = near.f_new_zeros(most.size(), (Kind::Bool, near.device()))?;
    let doubtful = Tensor::f_cat(&[&near, &never], axis)?.f_logical_or(&Tensor::f_cat(&[&never, &near], axis)?)?;
    let indices = zero()?.f_masked_fill(&doubtful.f_narrow(axis, 0, k)?, f64::INFINITY)?;
    Ok(vec![most.f_expand(exact[0].size(), false)?, indices])
}

/// The base of ArgMax and ArgMin.
const ARG: OpSpec = OpSpec { dtypes: NUMBERS, build: build_arg, ..OpSpec::BASE };

fn build_arg(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
    let axis = b.axis(x.rank());
    b.require(x.shape[axis].at_least(1));
    set_axis(b, axis, x.rank(), 0);
    let mut shape = x.shape;
    if keep_dims(b) {
        shape[axis] = 1.into();
    } else {
        shape.remove(axis);
    }
    let last = b.mostly();
    if last || b.coin() {
        b.set_int("select_last_index", i64::from(last));
    }
    b.output(DType::I64, shape);
    Ok(())
}

/// The attribute `keepdims`, sometimes left out at its default 1.
pub fn keep_dims(b: &mut Builder) -> bool {
    let keep = !b.mostly();
    if !keep || b.coin() {
        b.set_int("keepdims", i64::from(keep));
    }
    keep
}

/// ONNX ArgMax, opset 13.
pub const ARG_MAX: OpSpec = OpSpec {
    code: 0xa9,
    name: "ArgMax",
    doc: "The index of the first or last maximum along an axis.",
    numerics: Numerics::Custom(|a, errors, _| arg_errors(a, errors, a.x(0))),
    eval: |a| one(arg_max(a, a.x(0))),
    ..ARG
};

/// ONNX ArgMin, opset 13.
pub const ARG_MIN: OpSpec = OpSpec {
    code: 0xaa,
    name: "ArgMin",
    doc: "The index of the first or last minimum along an axis.",
    numerics: Numerics::Custom(|a, errors, _| arg_errors(a, errors, &a.x(0).f_neg()?)),
    eval: |a| one(arg_max(a, &descending(a.x(0))?)),
    ..ARG
};

/// `x` with its order reversed, without overflow.
fn descending(x: &Tensor) -> Result<Tensor, TchError> {
    // -1 - x is the bitwise complement, of signed and unsigned integers alike.
    if x.is_floating_point() { x.f_neg() } else { x.f_bitwise_not() }
}

fn arg_max(a: &Args, x: &Tensor) -> Result<Tensor, TchError> {
    let axis = axis_of(a, 0, x.dim());
    let keep = a.int("keepdims", 1) != 0;
    if a.int("select_last_index", 0) == 0 {
        return x.f_argmax(axis, keep);
    }
    x.f_flip([axis])?.f_argmax(axis, keep)?.f_neg()?.f_add_scalar(x.size()[axis as usize] - 1)
}

fn arg_errors(a: &Args, errors: &[Option<Tensor>], x: &Tensor) -> Outputs {
    let doubtful = doubtful_maximum(x, &error_of(errors, 0, x)?, axis_of(a, 0, x.dim()), a.int("keepdims", 1) != 0)?;
    one(doubtful.f_to_kind(Kind::Double)?.f_masked_fill(&doubtful, f64::INFINITY))
}

/// Where along `axis` elements may change places with the maximum. Equal elements without error do not.
pub fn doubtful_maximum(x: &Tensor, error: &Tensor, axis: i64, keep: bool) -> Result<Tensor, TchError> {
    if x.numel() == 0 {
        let shape = x.f_sum_dim_intlist([axis].as_slice(), keep, Kind::Double)?;
        return shape.f_to_kind(Kind::Bool);
    }
    let error = error * CLEAR;
    let certain = (x - &error).f_amax([axis], true)?;
    let candidate = (x + &error).f_ge_tensor(&certain)?;
    let several = candidate.f_sum_dim_intlist([axis].as_slice(), keep, Kind::Int64)?.f_gt(1)?;
    let inexact =
        (error * candidate.f_to_kind(Kind::Double)?).f_nan_to_num(0.0, None, None)?.f_amax([axis], keep)?.f_gt(0.0)?;
    several.f_logical_and(&inexact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Attribute;

    #[test]
    fn ties_go_to_the_first_or_the_last() {
        let tied = Tensor::from_slice(&[1i32, 7, 3, 7, 1]);
        let index = |last: i64, x: &Tensor| {
            let attributes = [("select_last_index".into(), Attribute::Int(last))];
            let args = Args {
                operands: vec![Some(x.shallow_clone())],
                operand_dtypes: vec![Some(DType::I32)],
                attributes: &attributes,
                opset: crate::limits::NEWEST_OPSET,
                output_dtypes: vec![DType::I64],
                wide: true,
                accumulate: None,
            };
            i64::try_from(arg_max(&args, x).expect("an index").reshape([] as [i64; 0])).expect("one index")
        };
        let low = descending(&tied).expect("a complement");
        assert_eq!([index(0, &tied), index(1, &tied), index(0, &low), index(1, &low)], [1, 3, 0, 4]);
    }
}
