//! Comparisons, logic, bits and selection.

use super::common::{BINARY, UNARY, one, wide, wrapped};
use super::rounding::{error_of, unless};
use crate::dtype::{ANY, BOOL, DType, DTypes, FLOATS, INTS, NUMBERS};
use crate::spec::{ANY_RANK, Args, Builder, Domain, Exceptional, Numerics, OpSpec, Outputs, Skip};
use tch::Tensor;

pub const TABLE: &[&OpSpec] = &[
    &EQUAL,
    &LESS,
    &LESS_OR_EQUAL,
    &GREATER,
    &GREATER_OR_EQUAL,
    &AND,
    &OR,
    &XOR,
    &NOT,
    &BIT_SHIFT,
    &BITWISE_AND,
    &BITWISE_OR,
    &BITWISE_XOR,
    &BITWISE_NOT,
    &WHERE,
    &IS_NAN,
    &IS_INF,
];

/// Two operands of one type, broadcast; a bool.
const COMPARISON: OpSpec =
    OpSpec { dtypes: NUMBERS, numerics: Numerics::SELECTING, build: build_comparison, ..OpSpec::BASE };

pub const EQUAL: OpSpec = OpSpec {
    code: 0x31,
    name: "Equal",
    exceptional: Exceptional::Ieee754,
    dtypes: ANY,
    doc: "Whether x = y.",
    numerics: Numerics::Custom(error_of_equality),
    eval: |a| one(a.x(0).f_eq_tensor(a.x(1))),
    ..COMPARISON
};

pub const LESS: OpSpec = OpSpec {
    code: 0x32,
    name: "Less",
    exceptional: Exceptional::Ieee754,
    doc: "Whether x < y.",
    eval: |a| one(a.x(0).f_lt_tensor(a.x(1))),
    ..COMPARISON
};

pub const LESS_OR_EQUAL: OpSpec = OpSpec {
    code: 0x33,
    name: "LessOrEqual",
    exceptional: Exceptional::Ieee754,
    since: 12,
    doc: "Whether x <= y.",
    eval: |a| one(a.x(0).f_le_tensor(a.x(1))),
    ..COMPARISON
};

pub const GREATER: OpSpec = OpSpec {
    code: 0x34,
    name: "Greater",
    exceptional: Exceptional::Ieee754,
    doc: "Whether x > y.",
    eval: |a| one(a.x(0).f_gt_tensor(a.x(1))),
    ..COMPARISON
};

pub const GREATER_OR_EQUAL: OpSpec = OpSpec {
    code: 0x35,
    name: "GreaterOrEqual",
    exceptional: Exceptional::Ieee754,
    since: 12,
    doc: "Whether x >= y.",
    eval: |a| one(a.x(0).f_ge_tensor(a.x(1))),
    ..COMPARISON
};

const CONNECTIVE: OpSpec = OpSpec { since: 7, dtypes: BOOL, numerics: Numerics::SELECTING, ..BINARY };

pub const AND: OpSpec =
    OpSpec { code: 0x36, name: "And", doc: "x and y.", eval: |a| one(a.x(0).f_logical_and(a.x(1))), ..CONNECTIVE };

pub const OR: OpSpec =
    OpSpec { code: 0x37, name: "Or", doc: "x or y.", eval: |a| one(a.x(0).f_logical_or(a.x(1))), ..CONNECTIVE };

pub const XOR: OpSpec = OpSpec {
    code: 0x38,
    name: "Xor",
    doc: "Either x or y.",
    eval: |a| one(a.x(0).f_logical_xor(a.x(1))),
    ..CONNECTIVE
};

pub const NOT: OpSpec = OpSpec {
    code: 0x39,
    name: "Not",
    since: 1,
    dtypes: BOOL,
    doc: "Not x.",
    numerics: Numerics::SELECTING,
    eval: |a| one(a.x(0).f_logical_not()),
    ..UNARY
};

pub const BIT_SHIFT: OpSpec = OpSpec {
    code: 0x3a,
    name: "BitShift",
    since: 11,
    // Signed ones came with opset 28.
    dtypes: INTS,
    doc: "x shifted by y bits; bits shifted out are lost, and a negative x stays negative when shifted right.",
    numerics: Numerics::SELECTING,
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        let shape = b.broadcastable_shape(&x.shape);
        let bits = (8 * x.dtype.size_bytes()) as f64;
        // What shifts by more bits or by less than none give was first said in opset 28.
        let (low, high) = if b.opset() >= 28 && b.chance(96) { (-2.0, bits + 2.0) } else { (0.0, bits - 1.0) };
        let y = b.leaf(x.dtype, shape, Domain::Range(if x.dtype.is_unsigned() { 0.0 } else { low }, high));
        let direction = b.one_of(&["RIGHT", "LEFT"]);
        b.set_text("direction", direction);
        let shape = b.broadcast(&[&x.shape, &y.shape]);
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let (x, y) = (a.x(0), a.x(1));
        let left = a.text("direction", "") == "LEFT";
        let shifted = if left { x.f_bitwise_left_shift(y) } else { x.f_bitwise_right_shift(y) }?;
        // The type that holds the integers may be wider than their own.
        let bits = 8 * a.output_dtypes[0].size_bytes() as i64;
        let within = y.f_ge(0)?.f_logical_and(&y.f_lt(bits)?)?;
        let fill = if left { x.f_zeros_like() } else { x.f_clamp(-1, 0) }?;
        one(wrapped(shifted.f_where_self(&within, &fill)?, a.output_dtypes[0]))
    },
    ..OpSpec::BASE
};

const BITWISE: OpSpec = OpSpec { since: 18, dtypes: INTS, numerics: Numerics::SELECTING, ..BINARY };

pub const BITWISE_AND: OpSpec = OpSpec {
    code: 0x3b,
    name: "BitwiseAnd",
    doc: "The bits that are set in x and y.",
    eval: |a| one(a.x(0).f_bitwise_and_tensor(a.x(1))),
    ..BITWISE
};

pub const BITWISE_OR: OpSpec = OpSpec {
    code: 0x3c,
    name: "BitwiseOr",
    doc: "The bits that are set in x or y.",
    eval: |a| one(a.x(0).f_bitwise_or_tensor(a.x(1))),
    ..BITWISE
};

pub const BITWISE_XOR: OpSpec = OpSpec {
    code: 0x3d,
    name: "BitwiseXor",
    doc: "The bits that differ between x and y.",
    eval: |a| one(a.x(0).f_bitwise_xor_tensor(a.x(1))),
    ..BITWISE
};

pub const BITWISE_NOT: OpSpec = OpSpec {
    code: 0x3e,
    name: "BitwiseNot",
    since: 18,
    // The complement of a small u64 is beyond i64, in which the reference holds it.
    dtypes: INTS.without(DTypes::of(&[DType::U64])),
    doc: "The bits that are not set in x.",
    numerics: Numerics::SELECTING,
    eval: |a| one(wrapped(a.x(0).f_bitwise_not()?, a.output_dtypes[0])),
    ..UNARY
};

pub const WHERE: OpSpec = OpSpec {
    code: 0x3f,
    name: "Where",
    exceptional: Exceptional::Moved,
    since: 9,
    dtypes: ANY,
    doc: "x where the condition holds, else y.",
    build: build_where,
    eval: |a| one(a.x(1).f_where_self(a.x(0), a.x(2))),
    ..OpSpec::BASE
};

pub const IS_NAN: OpSpec = OpSpec {
    code: 0x40,
    name: "IsNaN",
    exceptional: Exceptional::Text("Returns which elements of the input are NaN."),
    dtypes: FLOATS,
    doc: "Whether x is not a number.",
    numerics: Numerics::SELECTING,
    build: build_test,
    eval: |a| one(a.x(0).f_isnan()),
    ..OpSpec::BASE
};

pub const IS_INF: OpSpec = OpSpec {
    code: 0x41,
    name: "IsInf",
    exceptional: Exceptional::Text("Map infinity to true and other values to false."),
    since: 10,
    // f16 came with opset 20.
    dtypes: FLOATS,
    doc: "Whether x is infinite, of the signs asked for.",
    numerics: Numerics::SELECTING,
    build: |b| {
        for name in ["detect_negative", "detect_positive"] {
            let asked = !b.mostly();
            b.set_int(name, i64::from(asked));
        }
        build_test(b)
    },
    eval: |a| {
        let asked = |sign: &str, found: Tensor| found.f_logical_and(&found.f_full_like(a.int(sign, 1))?);
        let negative = asked("detect_negative", a.x(0).f_isneginf()?)?;
        one(negative.f_logical_or(&asked("detect_positive", a.x(0).f_isposinf()?)?))
    },
    ..OpSpec::BASE
};

fn build_comparison(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let y = b.input_broadcastable(x.dtype, &x.shape);
    let shape = b.broadcast(&[&x.shape, &y.shape]);
    b.output(DType::Bool, shape);
    Ok(())
}

fn build_test(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    b.output(DType::Bool, x.shape);
    Ok(())
}

/// The condition is declared last: it goes along with the values, whose types decide.
fn build_where(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let y = b.input_broadcastable(x.dtype, &x.shape);
    let values = b.broadcast(&[&x.shape, &y.shape]);
    let condition = b.input_broadcastable(DType::Bool, &values);
    b.last_operand_first();
    let shape = b.broadcast(&[&values, &condition.shape]);
    b.output(x.dtype, shape);
    Ok(())
}

/// Operands that may be equal but are not, or the other way round. (At the corners of their error boxes unequal
/// operands stay unequal, however near they are.)
fn error_of_equality(a: &Args, errors: &[Option<Tensor>], _: &[Tensor]) -> Outputs {
    let (x, y) = (wide(a, 0)?, wide(a, 1)?);
    let distance = x.f_sub(&y)?.f_abs()?;
    let reach = error_of(errors, 0, &x)?.f_add(&error_of(errors, 1, &y)?)?;
    let doubtful = distance.f_le_tensor(&reach)?.f_logical_and(&reach.f_gt(0.0)?)?;
    one(unless(&doubtful, &distance.f_zeros_like()?))
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::eval;
    use super::*;
    use crate::dtype::DType::{Bool, F32, I8, I64, U8};
    use crate::spec::Attribute::{Int, Text};

    #[test]
    fn shifted_bits_are_lost() {
        let operands: [(_, &[f64]); 2] = [(U8, &[16.0, 4.0, 255.0]), (U8, &[1.0, 0.0, 7.0])];
        assert_eq!(eval(&BIT_SHIFT, &operands, &[("direction", Text("LEFT".into()))], U8), [32.0, 4.0, 128.0]);
        assert_eq!(eval(&BIT_SHIFT, &operands, &[("direction", Text("RIGHT".into()))], U8), [8.0, 4.0, 1.0]);
        // The rules of opset 28.
        let operands: [(_, &[f64]); 2] = [(I8, &[-8.0, -8.0, 8.0, -8.0, 64.0]), (I8, &[1.0, 9.0, 8.0, -1.0, 1.0])];
        let right = [-4.0, -1.0, 0.0, -1.0, 32.0];
        assert_eq!(eval(&BIT_SHIFT, &operands, &[("direction", Text("RIGHT".into()))], I8), right);
        let left = [-16.0, 0.0, 0.0, 0.0, -128.0];
        assert_eq!(eval(&BIT_SHIFT, &operands, &[("direction", Text("LEFT".into()))], I8), left);
    }

    #[test]
    fn infinities_are_found_by_sign() {
        let x: &[f64] = &[-1.7, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(eval(&IS_INF, &[(F32, x)], &[], Bool), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(eval(&IS_INF, &[(F32, x)], &[("detect_negative", Int(0))], Bool), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(eval(&IS_INF, &[(F32, x)], &[("detect_positive", Int(0))], Bool), [0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_condition_comes_first() {
        let operands: [(_, &[f64]); 3] = [(Bool, &[1.0, 0.0]), (I64, &[1.0, 2.0]), (I64, &[3.0, 4.0])];
        assert_eq!(eval(&WHERE, &operands, &[], I64), [1.0, 4.0]);
    }
}
