//! Operators that make a tensor from a description of it.

use super::common::one;
use super::indexing::positions;
use super::joining::OF_SHAPE;
use super::movement::refuse;
use crate::dtype::{ANY, DType, DTypes, FLOATS};
use crate::elements;
use crate::limits::MAX_RANK;
use crate::spec::{Args, Builder, Numerics, OpSpec, Outputs, Skip};
use crate::tensor::TensorData;
use crate::term::Term;
use tch::{Device, Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&RANGE, &EYE_LIKE, &CONSTANT_OF_SHAPE];

/// ONNX Range, opset 11; f16 and bf16 came with opset 27, where they are computed in f32.
pub const RANGE: OpSpec = OpSpec {
    code: 0xd1,
    name: "Range",
    since: 11,
    dtypes: FLOATS.or(DTypes::of(&[DType::I16, DType::I32, DType::I64])),
    doc: "start, start + delta, start + 2 * delta and so on, as far as they lie before the limit.",
    numerics: Numerics::Custom(range_errors),
    build: build_range,
    eval: |a| {
        let kind = a.output_kind(0);
        let steps = Tensor::f_arange(range_length(a)?, (Kind::Int64, Device::Cpu))?.f_to_kind(kind)?;
        let scalar = |index: usize| a.x(index).f_reshape(&[] as &[i64]);
        one(steps.f_mul(&scalar(2)?)?.f_add(&scalar(0)?))
    },
    ..OpSpec::BASE
};

fn range_length(a: &Args) -> Result<i64, TchError> {
    if a.dtype(0).is_float() {
        let scalar = |index: usize| -> Result<f64, TchError> { Ok(elements::read(a.x(index))?.iter().sum()) };
        return Ok((((scalar(1)? - scalar(0)?) / scalar(2)?).ceil() as i64).max(0));
    }
    let scalar = |index: usize| -> Result<i64, TchError> { Ok(elements::integers(a.x(index))?.iter().sum()) };
    let (distance, delta) = (scalar(1)? - scalar(0)?, scalar(2)?);
    if delta == 0 {
        return refuse("Range in steps of 0");
    }
    // The quotient rounded up.
    Ok((-(-distance * delta.signum()).div_euclid(delta.abs())).max(0))
}

/// The limit lies so that the number of elements is certain, however it is computed.
fn build_range(b: &mut Builder) -> Result<(), Skip> {
    let dtype = match &b.wanted {
        Some(wanted) if b.dtypes().contains(wanted.dtype) => wanted.dtype,
        _ => b.leaf_dtype(b.legal(b.dtypes())),
    };
    // Eighths are exact, tenths are not.
    let (denominator, largest) = match dtype {
        DType::BF16 => (8, 1 << 8),
        DType::F16 => (8, 1 << 11),
        _ if !dtype.is_float() => (1, 1 << 14),
        _ if b.in_exact_lane() || b.coin() => (8, 1 << 20),
        _ => (10, 1 << 20),
    };
    let span = if largest == 1 << 8 { 32 } else { 256 };
    let start = b.below(span) as i64 - span as i64 / 2;
    let most = if largest == 1 << 8 { 3 } else { 24 };
    let magnitude = (b.one_of(&[1, 2, 8, 3, 10, 5, 24, 13, 4, 17]) as i64).min(most);
    // Half a step before the limit, where neither a tenth nor its multiples are exact.
    let magnitude = if denominator == 10 { magnitude + magnitude % 2 } else { magnitude };
    let before = if denominator == 10 { magnitude / 2 } else { b.below(magnitude as usize) as i64 };
    let sign = if b.coin() { -1 } else { 1 };
    let empty = b.smallest_size() == 0 && b.chance(64);
    let count = if empty { Term::constant(0) } else { b.size(1) };
    // Nothing lies between the start and a limit behind it.
    let behind = if empty { sign * b.below(20) as i64 } else { 0 };
    let limit = count * (sign * magnitude) + (start - sign * before - behind);
    b.require(limit.at_most(largest));
    b.require(limit.at_least(-largest));
    for content in [Term::constant(start), limit, Term::constant(sign * magnitude)] {
        b.fixed(dtype, [], [content], denominator);
    }
    if dtype.is_half() && b.coin() {
        b.set_int("stash_type", i64::from(DType::F32.onnx_code()));
    }
    b.output(dtype, [count]);
    Ok(())
}

/// Nothing is rounded where start and delta are eighths, and the element and its distance from the start are exact. Else an element is the sum of rounded
/// products, or of as many rounded steps.
fn range_errors(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let dtype = a.output_dtypes[0];
    let y = exact[0].f_to_kind(Kind::Double)?;
    if errors.iter().any(Option::is_some) {
        return one(y.f_full_like(f64::INFINITY));
    }
    if !dtype.is_float() {
        return one(y.f_zeros_like());
    }
    let stored = match dtype {
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::F32 => Kind::Float,
        _ => Kind::Double,
    };
    let start = a.x(0).f_to_kind(Kind::Double)?;
    let distance = y.f_sub(&start)?;
    let steps = Tensor::f_arange(y.numel() as i64, (Kind::Double, Device::Cpu))?;
    // Of eighths all distances are eighths.
    let eighths = |x: &Tensor| -> Result<Tensor, TchError> { (x * 8.0).f_frac()?.f_eq(0.0) };
    let fits = |x: &Tensor| x.f_to_kind(stored)?.f_to_kind(Kind::Double)?.f_eq_tensor(x);
    let certain = eighths(&start)?.f_logical_and(&eighths(a.x(2))?)?;
    let certain = certain.f_logical_and(&fits(&y)?)?.f_logical_and(&fits(&distance)?)?;
    let largest = start.f_abs()? + distance.f_abs()?;
    one(((steps + 2.0) * largest * dtype.unit_roundoff()).f_masked_fill(&certain, 0.0))
}

/// ONNX EyeLike, opset 9.
pub const EYE_LIKE: OpSpec = OpSpec {
    code: 0xd2,
    name: "EyeLike",
    since: 9,
    doc: "Ones on the diagonal `k` and zeros elsewhere, in the shape of a matrix.",
    build: |b| {
        let x = b.input_in_any_lane(b.dtypes(), 2..=2)?;
        let mut dtype = x.dtype;
        if b.chance(160) || b.wanted.as_ref().is_some_and(|wanted| wanted.dtype != dtype) {
            dtype = b.dtype_in_any_lane(ANY)?;
            b.set_int("dtype", i64::from(dtype.onnx_code()));
        }
        if !b.chance(80) {
            b.attr("k", -6..=6);
        }
        b.output(dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        let [rows, columns] = a.shape(0)[..] else { return refuse("EyeLike of another rank than 2") };
        let diagonal = positions(rows, 0, 2)?.f_add_scalar(a.int("k", 0))?;
        one(diagonal.f_eq_tensor(&positions(columns, 1, 2)?)?.f_to_kind(a.output_kind(0)))
    },
    ..OF_SHAPE
};

/// The operand that gives ConstantOfShape its shape, as a leaf.
fn wanted_shape(b: &mut Builder) -> Vec<Term> {
    let rank = b.wanted.as_ref().map(|wanted| wanted.rank());
    let rank = rank.unwrap_or_else(|| b.one_of(&[2, 3, 1, 4, 2, 3, 5, 0]));
    let shape: Vec<Term> = (0..rank).map(|_| b.size(rank)).collect();
    b.fixed(DType::I64, [Term::constant(rank as i64)], shape.clone(), 1);
    shape
}

/// ONNX ConstantOfShape, opset 9.
pub const CONSTANT_OF_SHAPE: OpSpec = OpSpec {
    code: 0xd3,
    name: "ConstantOfShape",
    since: 9,
    dtypes: ANY,
    doc: "A tensor whose shape is the operand's value, and whose elements are all the attribute `value`.",
    build: |b| {
        let value = !b.chance(48);
        let dtype = if value { b.dtype(ANY)? } else { DType::F32 };
        let shape = match b.computed_list(|b, list| list.len() <= MAX_RANK && list.iter().all(|&dim| b.value(dim) >= 0))
        {
            Some(list) => list,
            None => wanted_shape(b),
        };
        if value {
            let element: f64 = b.one_of(&[1.0, 2.0, -1.0, 0.5, 0.0, -2.5, 7.0, 100.0]);
            let element = if dtype.is_float() { element } else { element.trunc().max(dtype.min()) };
            // ONNX's shape inference refuses a scalar.
            b.set_tensor("value", TensorData::from_f64(dtype, &[1], &[element]));
        }
        b.output(dtype, shape);
        Ok(())
    },
    eval: |a| {
        let shape = a.list(0).unwrap_or_default();
        let kind = a.output_kind(0);
        let element = a.tensor("value").map_or(0.0, |value| value.to_f64().first().copied().unwrap_or(0.0));
        one(Tensor::f_full(shape, element, (kind, Device::Cpu)))
    },
    ..OpSpec::BASE
};

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval};
    use super::*;
    use crate::dtype::DType::{BF16, F32, I32, I64};
    use crate::spec::Attribute;

    #[test]
    fn examples_of_onnx() {
        let range = |dtype, operands: [f64; 3]| {
            let operands = operands.map(|operand| [operand]);
            eval(&RANGE, &[(dtype, &operands[0]), (dtype, &operands[1]), (dtype, &operands[2])], &[], dtype)
        };
        assert_eq!(range(I64, [3.0, 9.0, 3.0]), [3.0, 6.0]);
        assert_eq!(range(I64, [10.0, 4.0, -2.0]), [10.0, 8.0, 6.0]);
        assert_eq!(range(I32, [10.0, 6.0, -3.0]), [10.0, 7.0], "rounded up below 0, too");
        assert_eq!(range(I32, [10.0, 3.0, -3.0]), [10.0, 7.0, 4.0]);
        assert_eq!(range(I32, [1.0, 1.0, 2.0]), [0.0; 0]);
        assert_eq!(range(I32, [5.0, 1.0, 2.0]), [0.0; 0]);
        assert_near(&range(F32, [1.0, 5.0, 2.0]), &[1.0, 3.0]);
        assert_near(&range(F32, [0.5, 0.0, -0.125]), &[0.5, 0.375, 0.25, 0.125]);
        assert_eq!(range(BF16, [1.0, 4.0, 1.0]), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn constants_have_the_type_of_their_value() {
        let value = |data| [("value", Attribute::Tensor(data))];
        let ones = eval(&CONSTANT_OF_SHAPE, &[(I64, &[3.0])], &value(TensorData::new(&[1], &[-2i32])), I32);
        assert_eq!(ones, [-2.0; 3]);
        assert_eq!(eval(&CONSTANT_OF_SHAPE, &[(I64, &[2.0])], &[], F32), [0.0; 2]);
        assert_eq!(eval(&CONSTANT_OF_SHAPE, &[(I64, &[])], &[], F32), [0.0], "a scalar");
    }

    #[test]
    fn eyes_may_lie_off_the_diagonal() {
        let matrix = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        let eye = |k: i64| {
            let attributes = [("k".into(), Attribute::Int(k))];
            let args = Args {
                operands: vec![Some(matrix.shallow_clone())],
                operand_dtypes: vec![Some(F32)],
                attributes: &attributes,
                output_dtypes: vec![I32],
                opset: 22,
                wide: false,
                accumulate: None,
            };
            let y = (EYE_LIKE.eval)(&args).expect("a matrix").swap_remove(0);
            Vec::<i32>::try_from(y.reshape([-1])).expect("i32")
        };
        assert_eq!(eye(0), [1, 0, 0, 0, 1, 0]);
        assert_eq!(eye(1), [0, 1, 0, 0, 0, 1]);
        assert_eq!(eye(-1), [0, 0, 0, 1, 0, 0]);
        assert_eq!(eye(5), [0; 6]);
    }
}
