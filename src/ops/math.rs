//! Elementwise arithmetic, rounding and selection. ONNX multidirectional broadcasting throughout.

use super::common::{BINARY, UNARY, VARIADIC, build_variadic, error_of_jumps, fold, one, operand};
use crate::dtype::{FLOATS, NUMBERS, SIGNED_INTS};
use crate::spec::{ANY_RANK, Builder, Domain, Exceptional, Numerics, OpSpec, Skip};
use tch::Tensor;

pub const TABLE: &[&OpSpec] =
    &[&ADD, &SUB, &MUL, &NEG, &ABS, &SIGN, &FLOOR, &CEIL, &ROUND, &MIN, &MAX, &SUM, &MEAN, &CLIP];

pub const ADD: OpSpec = OpSpec {
    code: 0x02,
    name: "Add",
    exceptional: Exceptional::Ieee754,
    since: 7,
    dtypes: NUMBERS,
    doc: "x + y.",
    eval: |a| one(a.x(0).f_add(a.x(1))),
    can_overflow: true,
    ..BINARY
};

pub const SUB: OpSpec = OpSpec {
    code: 0x06,
    name: "Sub",
    exceptional: Exceptional::Ieee754,
    since: 7,
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
    exceptional: Exceptional::Ieee754,
    since: 7,
    dtypes: NUMBERS,
    doc: "x * y.",
    eval: |a| one(a.x(0).f_mul(a.x(1))),
    can_overflow: true,
    ..BINARY
};

pub const NEG: OpSpec = OpSpec {
    code: 0x07,
    name: "Neg",
    exceptional: Exceptional::Ieee754,
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
    range: Some((0.0, f64::INFINITY)),
    exceptional: Exceptional::Ieee754,
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
    numerics: Numerics::Custom(|a, errors, exact| error_of_jumps(a, errors, exact, SIGN.eval, &[])),
    // libtorch has 0 for a NaN.
    eval: |a| one(a.x(0).f_where_self(&a.x(0).f_isnan()?, &a.x(0).f_sign()?)),
    proxy: Some(operand),
    ..UNARY
};

/// A function to the integers: it rounds nothing more, but an error of the operand may pass a step.
const STEP: OpSpec = OpSpec { dtypes: FLOATS, proxy: Some(operand), ..UNARY };

pub const FLOOR: OpSpec = OpSpec {
    code: 0x12,
    name: "Floor",
    exceptional: Exceptional::Text("If x is integral, +0, -0, NaN, or infinite, x itself is returned."),
    doc: "x rounded down.",
    numerics: Numerics::Custom(|a, errors, exact| error_of_jumps(a, errors, exact, FLOOR.eval, &[])),
    eval: |a| one(a.x(0).f_floor()),
    ..STEP
};

pub const CEIL: OpSpec = OpSpec {
    code: 0x13,
    name: "Ceil",
    exceptional: Exceptional::Text("If x is integral, +0, -0, NaN, or infinite, x itself is returned."),
    doc: "x rounded up.",
    numerics: Numerics::Custom(|a, errors, exact| error_of_jumps(a, errors, exact, CEIL.eval, &[])),
    eval: |a| one(a.x(0).f_ceil()),
    ..STEP
};

pub const ROUND: OpSpec = OpSpec {
    code: 0x14,
    name: "Round",
    exceptional: Exceptional::Text("If input x is integral, +0, -0, NaN, or infinite, x itself is returned."),
    since: 11,
    doc: "The nearest integer; of two the even one.",
    numerics: Numerics::Custom(|a, errors, exact| error_of_jumps(a, errors, exact, ROUND.eval, &[])),
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
    exceptional: Exceptional::Ieee754,
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

/// Subtraction of unsigned integers would mostly fall below 0: there the first operand is a new leaf of larger values.
fn build_sub(b: &mut Builder) -> Result<(), Skip> {
    let y = b.input(b.dtypes(), ANY_RANK)?;
    let x = if y.dtype.is_unsigned() {
        let shape = b.broadcastable_shape(&y.shape);
        b.leaf(y.dtype, shape, Domain::Range(30.0, 90.0))
    } else {
        b.input_broadcastable(y.dtype, &y.shape)
    };
    b.last_operand_first();
    let shape = b.broadcast(&[&x.shape, &y.shape]);
    b.output(x.dtype, shape);
    Ok(())
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
            let least = if x.dtype.is_unsigned() { 0.0 } else { f64::NEG_INFINITY };
            b.weight_in(x.dtype, [], Domain::Range(low.max(least), high.max(least)));
        }
    }
    b.output(x.dtype, x.shape);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::eval;
    use super::*;
    use crate::dtype::DType::F32;

    // The node tests round and clip_min_greater_than_max of ONNX.
    #[test]
    fn examples_of_onnx() {
        let rounded = eval(&ROUND, &[(F32, &[0.5, 1.5, 1.8, 2.5, -1.5, -2.5, -2.8])], &[], F32);
        assert_eq!(rounded, [0.0, 2.0, 2.0, 2.0, -2.0, -2.0, -3.0]);
        let bounds: [(_, &[f64]); 3] = [(F32, &[-2.0, 0.0, 6.0]), (F32, &[2.0]), (F32, &[1.0])];
        assert_eq!(eval(&CLIP, &bounds, &[], F32), [1.0, 1.0, 1.0]);
    }
}
