//! Conversions between element types, and operators that only hand their operand on.

use super::common::{UNARY, as_output, one, operand, wide};
use super::rounding::{REACH, error_of, stored, unless};
use crate::dtype::{ANY, DType, DTypes, FLOATS, SIGNED_INTS};
use crate::spec::args::kind_of;
use crate::spec::{ANY_RANK, Args, Builder, Domain, Exceptional, Numerics, OpSpec, Outputs, Skip};
use crate::term::Term;
use tch::{Kind, Tensor};

pub const TABLE: &[&OpSpec] = &[&CAST, &CAST_LIKE, &BIT_CAST, &IDENTITY, &DROPOUT];

/// Floats become integers by rounding toward zero, and must lie in the target's range; wider integers lose their upper
/// bits; bool is x != 0. Follows the rules in the text of Cast-13.
pub const CAST: OpSpec = OpSpec {
    code: 0x42,
    name: "Cast",
    exceptional: Exceptional::Text(
        "Casting from floating point to floating point: +/- infinity if out of range; to bool: {+/- 0.0} to False; all else to True.",
    ),
    dtypes: ANY,
    doc: "x converted to the element type `to`.",
    numerics: Numerics::Custom(error_of_cast),
    build: |b| {
        let x = input_from_any(b)?;
        let to = b.dtype_in_any_lane(targets(b, x.dtype))?;
        b.set_int("to", i64::from(to.onnx_code()));
        set_unused(b);
        b.output(to, x.shape);
        // Sizes fit both of these.
        if let Some(elements) = x.elements.filter(|_| matches!(to, DType::I32 | DType::I64)) {
            b.elements(elements);
        }
        Ok(())
    },
    eval: |a| as_output(a, a.x(0).shallow_clone()),
    guard: Some(guard_cast),
    ..OpSpec::BASE
};

pub const CAST_LIKE: OpSpec = OpSpec {
    name: "CastLike",
    exceptional: Exceptional::Text(
        "Casting from floating point to floating point: +/- infinity if out of range; to bool: {+/- 0.0} to False; all else to True.",
    ),
    code: 0x43,
    since: 15,
    doc: "x converted to the element type of a second operand, whose values do not matter.",
    build: |b| {
        let x = input_from_any(b)?;
        let to = targets(b, x.dtype);
        let like = b.input_in_any_lane(to, ANY_RANK)?;
        set_unused(b);
        b.output(like.dtype, x.shape);
        Ok(())
    },
    ..CAST
};

/// ONNX BitCast, opset 26. Bits that make floats of ordinary size come from leaves of their own: of other integers most
/// would make NaN or subnormal numbers.
pub const BIT_CAST: OpSpec = OpSpec {
    code: 0xd8,
    name: "BitCast",
    since: 26,
    doc: "The bits of x as an element type of the same size.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let x = wide(a, 0)?;
        let mut doubtful = error_of(errors, 0, &x)?.f_gt(0.0)?;
        if a.dtype(0).is_float() {
            // Zeros of either sign are one value, whose bits differ.
            doubtful = doubtful.f_logical_or(&x.f_eq(0.0)?)?;
        }
        one(unless(&doubtful, &exact[0].f_to_kind(Kind::Double)?.f_zeros_like()?))
    }),
    build: build_bit_cast,
    eval: |a| {
        let stored = a.x(0).detach().f_to_kind(bits_kind(a.dtype(0)))?;
        let bits = stored.f_view_dtype(bits_kind(a.output_dtypes[0]))?;
        as_output(a, bits.f_to_kind(a.output_kind(0))?)
    },
    ..OpSpec::BASE
};

pub const IDENTITY: OpSpec = OpSpec {
    code: 0x44,
    name: "Identity",
    exceptional: Exceptional::Moved,
    since: 1,
    doc: "x.",
    numerics: Numerics::Exact,
    eval: operand,
    ..UNARY
};

/// At inference Dropout is the identity, whatever the ratio.
pub const DROPOUT: OpSpec = OpSpec {
    code: 0x45,
    name: "Dropout",
    exceptional: Exceptional::Moved,
    dtypes: FLOATS,
    doc: "x, for training_mode is false; and a mask of all true.",
    build: build_dropout,
    eval: |a| {
        let mut outputs = operand(a)?;
        let training = a.opt(2).map_or(Ok(false), |mode| bool::try_from(mode.f_any()?))?;
        let ratio = a.opt(1).map_or(Ok(0.5), |ratio| f64::try_from(ratio.f_sum(Kind::Double)?))?;
        if training && ratio != 0.0 {
            return Err(tch::TchError::Kind("Dropout in training mode is random".to_owned()));
        }
        if a.output_dtypes.len() > 1 {
            outputs.push(a.x(0).f_ones_like()?.f_to_kind(Kind::Bool)?);
        }
        Ok(outputs)
    },
    ..OpSpec::BASE
};

/// Whether every value of `from` has its exact counterpart in `to`, so that all backends agree to the bit.
fn is_exact(from: DType, to: DType) -> bool {
    use DType::{BF16, Bool, F16, F32, F64, I8, I16, I32, U8, U16, U32};
    match from {
        // Integers wrap, and floats are truncated, in one way only.
        _ if from == to || !to.is_float() => true,
        Bool | I8 | U8 => true,
        I32 | U32 | F32 => to == F64,
        I16 | U16 | F16 | BF16 => to == F32 || to == F64,
        _ => false,
    }
}

/// The types that an operand of type `from` may be cast to in this case.
fn targets(b: &Builder, from: DType) -> DTypes {
    // A negative number as u64 is beyond i64, in which the reference holds it.
    let held = |to: DType| to != DType::U64 || !SIGNED_INTS.contains(from);
    let fits = |to: &DType| held(*to) && (!b.in_exact_lane() || is_exact(from, *to));
    DTypes::of(&ANY.iter().filter(fits).collect::<Vec<_>>())
}

/// The libtorch type with the bits of `dtype`. Of the unsigned types that libtorch only stores it is the signed one, whose
/// upper bits [`as_output`] takes away.
fn bits_kind(dtype: DType) -> Kind {
    match dtype {
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::U16 => Kind::Int16,
        DType::U32 => Kind::Int,
        other => kind_of(other, false),
    }
}

fn build_bit_cast(b: &mut Builder) -> Result<(), Skip> {
    let to = match &b.wanted {
        Some(wanted) => wanted.dtype,
        None => b.one_of(&DType::ALL),
    };
    let sources: Vec<DType> = ANY.iter().filter(|from| from.size_bytes() == to.size_bytes() && *from != to).collect();
    // Every size has two types at least; a copy is worth a test, too.
    let from = if b.chance(16) { to } else { b.one_of(&sources) };
    let x = match bits_domain(b, from, to) {
        Some(domain) => {
            let rank = b.one_of(&[2, 3, 1, 4, 0]);
            let shape: Vec<Term> = match &b.wanted {
                Some(wanted) => wanted.shape.clone(),
                None => (0..rank).map(|_| b.size(rank)).collect(),
            };
            b.leaf(from, shape, domain)
        }
        None => b.input_in_any_lane(DTypes::of(&[from]), ANY_RANK)?,
    };
    b.set_int("to", i64::from(to.onnx_code()));
    b.output(to, x.shape);
    Ok(())
}

/// The integers whose bits are floats of magnitudes from 0.5 to 8, or bools; `None` where any bits will do.
fn bits_domain(b: &mut Builder, from: DType, to: DType) -> Option<Domain> {
    let (least, most): (i64, i64) = match to {
        // Beyond the largest i64 the reference does not follow.
        DType::U64 if from == DType::I64 => return Some(Domain::Range(0.0, 1000.0)),
        DType::U64 if from == DType::F64 => return Some(Domain::Range(0.5, 8.0)),
        _ if from == to || from.is_float() && !to.is_float() => return None,
        DType::Bool => return Some(Domain::Range(0.0, 1.0)),
        DType::F16 => (0x3800, 0x4800),
        DType::BF16 => (0x3f00, 0x4100),
        DType::F32 => (0x3f00_0000, 0x4100_0000),
        DType::F64 => (0x3fe0_0000_0000_0000, 0x4020_0000_0000_0000),
        _ => return None,
    };
    if from.is_float() {
        return None;
    }
    let (least, most) = (least as f64, most as f64);
    let sign = from.max() + 1.0;
    Some(match from.is_unsigned() {
        _ if from == DType::U64 || b.coin() => Domain::Range(least, most),
        // The sign is the uppermost bit, of half the weight of what lies behind the largest unsigned number.
        true => Domain::Range(sign / 2.0 + least, sign / 2.0 + most),
        false => Domain::Range(least - sign, most - sign),
    })
}

/// Attributes that mean something only for the float8 types, of which graphsmith has none.
fn set_unused(b: &mut Builder) {
    if b.opset() >= 19 && b.chance(24) {
        b.attr("saturate", 0..=1);
    }
    if b.opset() >= 24 && b.chance(24) {
        let mode = b.one_of(&["up", "down", "nearest"]);
        b.set_text("round_mode", mode);
    }
}

/// An operand that can be cast to the wanted type, if there is one.
fn input_from_any(b: &mut Builder) -> Result<crate::spec::Operand, Skip> {
    let Some(wanted) = b.wanted.as_ref().map(|wanted| wanted.dtype) else {
        return b.input_in_any_lane(ANY, ANY_RANK);
    };
    // A leaf would get the wanted type itself, and the cast would do nothing.
    let sources: Vec<DType> = ANY.iter().filter(|&from| !b.in_exact_lane() || is_exact(from, wanted)).collect();
    let source = b.one_of(&sources);
    b.input_in_any_lane(DTypes::of(&[source]), ANY_RANK)
}

/// Keeps a float inside the range of an integer target: beyond it the result is undefined.
fn guard_cast(a: &Args) -> Outputs {
    let to = a.output_dtypes[0];
    if !a.dtype(0).is_float() || !to.is_int() {
        return Ok(Vec::new());
    }
    let x = a.x(0);
    // A little less than 2^31 and 2^63, which are not the largest integers but their successors.
    let largest = if to.size_bytes() > 1 { to.max() * (1.0 - (-20f64).exp2()) } else { to.max() };
    Ok(vec![x.f_sub_scalar(to.min())?, x.f_neg()?.f_add_scalar(largest)?])
}

/// The error of the operand, and its rounding unless the value fits; for steps, whether the operand may pass one.
fn error_of_cast(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let (from, to) = (a.dtype(0), a.output_dtypes[0]);
    let x = wide(a, 0)?;
    let error = error_of(errors, 0, &x)?;
    if to.is_float() {
        if is_exact(from, to) {
            return Ok(vec![error]);
        }
        let fits = stored(&exact[0], to)?.f_eq_tensor(&exact[0])?;
        let fits = fits.f_logical_and(&error.f_eq(0.0)?)?;
        let rounding = (exact[0].f_abs()? * to.unit_roundoff()).f_masked_fill(&fits, 0.0)?;
        return Ok(vec![error + rounding]);
    }
    let doubtful = if to == DType::Bool {
        x.f_abs()?.f_le_tensor(&error)?.f_logical_and(&error.f_gt(0.0)?)?
    } else {
        let reach = &error * REACH;
        x.f_sub(&reach)?.f_trunc()?.f_ne_tensor(&x.f_add(&reach)?.f_trunc()?)?
    };
    one(unless(&doubtful, &error.f_zeros_like()?))
}

fn build_dropout(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let operands = b.one_of(&[1, 2, 3, 3, 2]);
    if operands > 1 {
        if operands == 3 && b.coin() {
            b.absent();
        } else {
            let ratio = b.one_of(&[DType::F32, x.dtype]);
            b.weight_in(ratio, [], Domain::Range(0.0, 0.75));
        }
    }
    if operands > 2 {
        b.constant_scalar(DType::Bool, 0);
    }
    if b.mostly() {
        b.attr("seed", 0..=100);
    }
    b.output(x.dtype, x.shape.clone());
    if b.chance(85) {
        b.output(DType::Bool, x.shape);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::eval;
    use super::*;
    use crate::dtype::DType::{BF16, Bool, F16, F32, F64, I8, I32, I64, U8, U16, U32};

    #[test]
    fn the_rules_of_the_onnx_text() {
        let cast = |from, x: &[f64], to| eval(&CAST, &[(from, x)], &[], to);
        assert_eq!(cast(F32, &[1.9, -1.9, 0.5], I32), [1.0, -1.0, 0.0], "toward zero");
        assert_eq!(cast(I64, &[200.0, -129.0, 256.0], I8), [-56.0, 127.0, 0.0], "upper bits are lost");
        assert_eq!(cast(I8, &[-1.0], U8), [255.0]);
        assert_eq!(cast(F32, &[0.5, 0.0, -0.0, -3.0], Bool), [1.0, 0.0, 0.0, 1.0]);
        assert_eq!(cast(I32, &[256.0, 0.0], Bool), [1.0, 0.0], "bool keeps no bits");
        assert_eq!(cast(Bool, &[1.0, 0.0], F16), [1.0, 0.0]);
        assert_eq!(cast(F64, &[2049.0], F16), [2048.0], "to the nearest even");
    }

    #[test]
    fn bits_are_kept() {
        let bits = |from, x: &[f64], to| eval(&BIT_CAST, &[(from, x)], &[], to);
        assert_eq!(bits(F32, &[1.0, -2.5], I32), [1065353216.0, -1071644672.0], "examples of ONNX");
        assert_eq!(bits(F32, &[-1.0], U32), [3212836864.0]);
        assert_eq!(bits(I32, &[1065353216.0], F32), [1.0]);
        assert_eq!(bits(F16, &[1.0, -1.0], U16), [15360.0, 48128.0]);
        assert_eq!(bits(U16, &[48128.0], F16), [-1.0]);
        assert_eq!(bits(BF16, &[1.0], F16), [1.875]);
        assert_eq!(bits(I8, &[-1.0], U8), [255.0]);
        assert_eq!(bits(F64, &[1.0], I64), [4607182418800017408.0]);
        assert_eq!(bits(Bool, &[1.0, 0.0], U8), [1.0, 0.0]);
    }

    #[test]
    fn exact_casts_can_be_undone() {
        for from in DType::ALL.into_iter().filter(|dtype| dtype.size_bytes() <= 4) {
            for to in FLOATS.iter().filter(|&to| is_exact(from, to)) {
                let extremes = [from.min(), from.max(), 0.0, 1.0];
                let there = eval(&CAST, &[(from, &extremes)], &[], to);
                assert_eq!(there, extremes, "{from} to {to}");
            }
        }
        assert!(!is_exact(I64, F64) && !is_exact(I32, F32) && !is_exact(F32, F16));
    }
}
