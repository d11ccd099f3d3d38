//! Normalisation of groups of channels, and by the root of the mean square.

use super::ball::{Balled, Operands, radii, values};
use super::common::one;
use super::movement::{axis_of, refuse, set_axis};
use super::norm::{Normalized, affine_errors, broadcast_weight, centred, normalized, per_channel, set_epsilon};
use super::rounding::error_of;
use crate::dtype::{DType, FLOATS};
use crate::limits::MAX_RANK;
use crate::spec::{Args, Builder, Numerics, OpSpec, Outputs};
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&GROUP, &RMS];

/// The attribute `stash_type`: the type of the first stage.
fn set_stash_type(b: &mut Builder) {
    if b.chance(192) {
        let code = b.one_of(&[DType::F32, DType::F64, DType::F64, DType::F64]).onnx_code();
        b.set_int("stash_type", i64::from(code));
    }
}

/// The type in which the first stage is rounded at the coarsest. That a backend does not use f64 for the sake of f32 is
/// not worth a report.
fn stage_one(a: &Args) -> DType {
    match DType::from_onnx_code(a.int("stash_type", 1) as i32) {
        Some(DType::F64) if a.dtype(0) == DType::F64 => DType::F64,
        Some(half) if half.is_half() => half,
        _ => DType::F32,
    }
}

/// ONNX GroupNormalization, opset 21. The version of opset 18, with a scale for each group, is deprecated.
pub const GROUP: OpSpec = OpSpec {
    code: 0x64,
    name: "GroupNormalization",
    since: 21,
    dtypes: FLOATS,
    doc: "Zero mean and unit variance of each group of channels, then scale and shift of each channel.",
    numerics: Numerics::Custom(group_errors),
    build: |b| {
        let x = b.input(b.dtypes(), 3..=MAX_RANK)?;
        let channels = b.value(x.shape[1]);
        let fitting: Vec<i64> = (1..=channels.max(1)).rev().filter(|groups| channels % groups == 0).collect();
        let groups = b.one_of(&fitting[..fitting.len().min(16)]);
        x.shape[1..].iter().for_each(|dim| b.require(dim.at_least(1)));
        b.require(x.shape[1].divisible_by(groups));
        b.set_int("num_groups", groups);
        b.weight(x.dtype, [x.shape[1]]);
        b.weight(x.dtype, [x.shape[1]]);
        set_epsilon(b);
        set_stash_type(b);
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        let (centred, variance) = centred(&grouped(a, a.x(0))?, &[2])?;
        let deviation = variance.f_add_scalar(a.float("epsilon", 1e-5))?.f_sqrt()?;
        let lay = |i: usize| a.x(i).f_reshape(per_channel(a.rank(0)));
        one(centred.f_div(&deviation)?.f_reshape(a.shape(0))?.f_mul(&lay(1)?)?.f_add(&lay(2)?))
    },
    ..OpSpec::BASE
};

/// `x` as batch, groups and the elements of a group.
fn grouped(a: &Args, x: &Tensor) -> Result<Tensor, TchError> {
    let size = x.size();
    let groups = a.int("num_groups", 1);
    if groups < 1 {
        return refuse("GroupNormalization without groups");
    }
    x.f_reshape([size[0], groups, size[1..].iter().product::<i64>() / groups])
}

fn group_errors(a: &Args, errors: &[Option<Tensor>], _: &[Tensor]) -> Outputs {
    // The second stage of f64 is treated as that of LayerNormalization.
    let (x, dtype) = (a.x(0), if a.output_dtypes[0] == DType::F64 { stage_one(a) } else { a.output_dtypes[0] });
    let (error, shape) = (grouped(a, &error_of(errors, 0, x)?)?, a.shape(0));
    let of_groups = normalized(&grouped(a, x)?, &error, &[2], a.float("epsilon", 1e-5), stage_one(a), dtype)?;
    let normalized = Normalized {
        value: of_groups.value.f_reshape(&shape)?,
        error: of_groups.error.f_reshape(&shape)?,
        folding: of_groups.folding.f_reshape(&shape)?,
    };
    let lay = |x: Tensor| x.f_reshape(per_channel(a.rank(0)));
    let operand = |i: usize| lay(a.x(i).shallow_clone());
    let error = |i: usize| lay(error_of(errors, i, a.x(i))?);
    affine_errors(normalized, [&operand(1)?, &error(1)?], Some([&operand(2)?, &error(2)?]), dtype)
}

/// ONNX RMSNormalization, opset 23. The function's body is wrong where x and scale have different types.
pub const RMS: OpSpec = OpSpec {
    code: 0x63,
    name: "RMSNormalization",
    since: 23,
    dtypes: FLOATS,
    doc: "x divided by the root of its mean square over the axes from `axis` on, then scaled.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, vec![rms(&Operands::inexact(a, errors))?])),
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let axis = b.axis(x.rank());
        let inner = x.shape[axis..].to_vec();
        inner.iter().for_each(|dim| b.require(dim.at_least(1)));
        let shape = match b.below(8) {
            7 => broadcast_weight(b, &inner),
            6 => inner[b.below(inner.len())..].to_vec(),
            _ => inner.clone(),
        };
        b.weight(x.dtype, shape);
        set_axis(b, axis, x.rank(), -1);
        set_epsilon(b);
        set_stash_type(b);
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| values(a, vec![rms(&Operands::exact(a))?]),
    ..OpSpec::BASE
};

fn rms(o: &Operands) -> Balled {
    let a = o.args;
    let axes: Vec<i64> = (axis_of(a, -1, a.rank(0))..a.rank(0) as i64).collect();
    let x = o.ball(0)?.cast(stage_one(a))?;
    let mean_square = x.mul(&x)?.mean(&axes)?.affine(1.0, a.float("epsilon", 1e-5))?;
    x.mul(&mean_square.reciprocal_root()?)?.cast(a.output_dtypes[0])?.mul(&o.ball(1)?)
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval_all, ramp};
    use super::*;
    use crate::dtype::DType::F32;
    use crate::spec::Attribute::Int;

    // Numbers of the reference implementation in the onnx package.
    #[test]
    fn examples_of_onnx() {
        let rms = eval_all(&RMS, &[ramp(&[2, 3], -0.5), ramp(&[3], 0.5)], &[], &[F32]);
        assert_near(&rms[0], &[-0.612_354, -0.587_86, -0.514_377, -0.774_364, -0.464_619, 0.0]);
        let operands = [ramp(&[1, 4, 2], -0.5), ramp(&[4], 0.5), ramp(&[4], -0.5)];
        let group = eval_all(&GROUP, &operands, &[("num_groups", Int(2))], &[F32]);
        let expected = [-1.170_552, -0.723_517, -0.131_779, 0.404_663, -0.223_172, 0.084_138, 0.590_226, -1.517_044];
        assert_near(&group[0], &expected);
    }
}
