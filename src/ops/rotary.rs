//! Rotary position embeddings.

use super::ball::{Ball, Balled, Operands, radii, values};
use crate::dtype::{DType, DTypes};
use crate::spec::{Builder, Domain, Numerics, OpSpec, Operand, Skip};
use crate::term::Term;
use tch::{Kind, Tensor};

/// ONNX RotaryEmbedding, opset 23.
pub const ROTARY_EMBEDDING: OpSpec = OpSpec {
    code: 0x69,
    name: "RotaryEmbedding",
    since: 23,
    dtypes: DTypes::of(&[DType::F32, DType::F16, DType::BF16]),
    doc: "Pairs of elements of each head, rotated by the angles of their positions.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, vec![rotate(&Operands::inexact(a, errors))?])),
    build,
    eval: |a| values(a, vec![rotate(&Operands::exact(a))?]),
    ..OpSpec::BASE
};

fn build(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 3..=4)?;
    let (batch, steps, head) = heads(b, &x);
    b.require(head.divisible_by(2));
    b.require(head.at_least(2));
    let half = if b.mostly() {
        // Only the first elements of each head are rotated.
        let half = b.free_near(1..=128, (b.value(head) / 4).max(1));
        b.require((half * 2).at_most(head));
        b.set_int("rotary_embedding_dim", half * 2);
        half
    } else {
        if b.chance(48) {
            b.set_int("rotary_embedding_dim", 0);
        }
        head / 2
    };
    if !b.chance(32) {
        let interleaved = b.chance(168);
        b.set_int("interleaved", i64::from(interleaved));
    }
    let by_position = b.coin();
    let positions = b.size(2);
    let shape = if by_position { vec![positions, half] } else { vec![batch, steps, half] };
    b.weight_in(x.dtype, shape.clone(), Domain::Range(-1.0, 1.0));
    b.weight_in(x.dtype, shape, Domain::Range(-1.0, 1.0));
    if by_position {
        b.require(positions.at_least(1));
        b.leaf(DType::I64, [batch, steps], Domain::Between(0, positions - 1));
    }
    b.output(x.dtype, x.shape);
    Ok(())
}

/// Batch, steps and elements of a head of operand x, whose heads may lie side by side in its last dimension.
fn heads(b: &mut Builder, x: &Operand) -> (Term, Term, Term) {
    if x.rank() == 4 {
        let [batch, heads, steps, head] = x.nchw();
        if b.chance(64) {
            b.set_int("num_heads", heads);
        }
        return (batch, steps, head);
    }
    let [batch, steps, hidden] = x.dims();
    let wanted = b.one_of(&[2, 4, 1, 3, 8]);
    // Fewer heads where the sizes are fixed already.
    let fitting = [wanted, 4, 3, 2, 1].into_iter().find(|heads| b.value(hidden) % (heads * 2) == 0);
    let heads = fitting.unwrap_or(wanted);
    b.set_int("num_heads", heads);
    b.require(hidden.divisible_by(heads));
    (batch, steps, hidden / heads)
}

fn rotate(o: &Operands) -> Balled {
    let a = o.args;
    let shape = a.shape(0);
    // To batch, steps, heads, elements.
    let x = if shape.len() == 4 {
        o.ball(0)?.moved(|x| x.f_transpose(1, 2))?
    } else {
        let heads = a.int("num_heads", 1).max(1);
        o.ball(0)?.moved(|x| x.f_reshape([shape[0], shape[1], heads, shape[2] / heads]))?
    };
    let head = x.value.size()[3];
    let rotated = match a.int("rotary_embedding_dim", 0) {
        0 => head,
        rotated => rotated,
    };
    let half = rotated / 2;
    let cache = |index: usize| -> Balled {
        let cache = o.ball(index)?;
        let by_position = match a.opt(3) {
            Some(positions) => {
                let size = positions.size();
                let flat = positions.f_to_kind(Kind::Int64)?.f_reshape([-1])?;
                cache.moved(|cache| cache.f_index_select(0, &flat)?.f_reshape([size[0], size[1], half]))?
            }
            None => cache,
        };
        by_position.moved(|cache| cache.f_unsqueeze(2))
    };
    let (cos, sin) = (cache(1)?, cache(2)?);
    let interleaved = a.int("interleaved", 0) != 0;
    let part = |index: i64| match interleaved {
        true => x.moved(|x| x.f_slice(3, index, rotated, 2)),
        false => x.moved(|x| x.f_narrow(3, index * half, half)),
    };
    let (first, second) = (part(0)?, part(1)?);
    let real = cos.mul(&first)?.sub(&sin.mul(&second)?)?;
    let imaginary = sin.mul(&first)?.add(&cos.mul(&second)?)?;
    let joined = match interleaved {
        true => Ball::joined(&[real, imaginary], |parts| Tensor::f_stack(parts, -1)?.f_flatten(3, 4))?,
        false => Ball::joined(&[real, imaginary], |parts| Tensor::f_cat(parts, -1))?,
    };
    let rest = x.moved(|x| x.f_narrow(3, rotated, head - rotated))?;
    let y = Ball::joined(&[joined, rest], |parts| Tensor::f_cat(parts, -1))?;
    if shape.len() == 4 { y.moved(|y| y.f_transpose(1, 2)) } else { y.moved(|y| y.f_reshape(&shape)) }
}
