//! Operators of sequences that hand on a state.

use super::attention::head_counts;
use super::ball::{Ball, Operands, radii, values};
use super::movement::refuse;
use super::smooth::swish;
use crate::dtype::{DType, DTypes};
use crate::spec::{Builder, Domain, Numerics, OpSpec, Skip};
use crate::term::Term;
use tch::{Device, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&LINEAR_ATTENTION, &CAUSAL_CONV];

/// Steps of a sequence: each costs dozens of calls to libtorch.
const MAX_STEPS: i64 = 9;
const MAX_KERNEL: i64 = 5;

const STATEFUL: OpSpec =
    OpSpec { since: 27, dtypes: DTypes::of(&[DType::F32, DType::F16, DType::BF16]), ..OpSpec::BASE };

/// ONNX LinearAttention, opset 27.
pub const LINEAR_ATTENTION: OpSpec = OpSpec {
    code: 0x6b,
    name: "LinearAttention",
    doc: "q' S, where the state S takes up k v' of each step, decays, or is corrected by what it already holds of v.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, attend(&Operands::inexact(a, errors))?)),
    build: build_attention,
    eval: |a| values(a, attend(&Operands::exact(a))?),
    ..STATEFUL
};

fn build_attention(b: &mut Builder) -> Result<(), Skip> {
    let dtypes = b.permitted(b.dtypes());
    let query = b.input_or(dtypes, 3..=3, |b| vec![b.size(3), b.free(1..=MAX_STEPS), b.size(3)])?;
    let [batch, steps, hidden] = query.dims();
    let (heads, key_heads) = head_counts(b, &query);
    b.require(steps.at_least(1));
    b.require(steps.at_most(MAX_STEPS));
    b.require(hidden.divisible_by(heads));
    let head = hidden / heads;
    b.require(head.at_least(1));
    let hint = b.one_of(&[3, 2, 4, 5, 1, 7, 8, 9]);
    let value_head = b.free_near(1..=16, hint);
    let dtype = query.dtype;
    // Small, as the text asks for, so that corrections do not amplify the state.
    b.leaf(dtype, [batch, steps, head * key_heads], Domain::Range(-0.5, 0.5));
    b.input_like(dtype, [batch, steps, value_head * key_heads]);
    let rule = b.one_of(&["linear", "gated", "", "delta", "gated_delta"]);
    let (gated, corrected) = (rule != "linear" && rule != "delta", rule != "linear" && rule != "gated");
    let state = [batch, Term::constant(key_heads), head, value_head];
    let state_dtype = match b.below(4) {
        0 | 1 if gated || corrected => {
            b.absent();
            dtype
        }
        0 | 1 => dtype,
        pick => {
            let held = if pick == 2 { dtype } else { DType::F32 };
            b.input_like(held, state);
            held
        }
    };
    if gated {
        let width = if b.coin() { head * key_heads } else { Term::constant(key_heads) };
        b.leaf(dtype, [batch, steps, width], Domain::Range(-1.0, 0.0));
    } else if corrected {
        b.absent();
    }
    if corrected {
        let width = if b.chance(96) { 1 } else { key_heads };
        b.leaf(dtype, [batch, steps, Term::constant(width)], Domain::Range(0.0, 1.0));
    }
    b.set_int("q_num_heads", heads);
    b.set_int("kv_num_heads", key_heads);
    if !rule.is_empty() {
        b.set_text("update_rule", rule);
    }
    if b.coin() {
        let scale = b.one_of(&[0.5, 1.0, 0.0, 0.25, 2.0]);
        b.set_float("scale", scale);
    }
    if b.chance(80) {
        let chunk = b.one_of(&[64, 16, 2, 1]);
        b.set_int("chunk_size", chunk);
    }
    b.accumulate(head * 4);
    b.output(dtype, [batch, steps, value_head * heads]);
    b.output(state_dtype, state);
    Ok(())
}

fn attend(o: &Operands) -> Result<Vec<Ball>, TchError> {
    let a = o.args;
    let (heads, key_heads) = (a.int("q_num_heads", 1).max(1), a.int("kv_num_heads", 1).max(1));
    // To batch, steps, heads, 1, elements.
    let unpacked = |ball: Ball, count: i64| {
        let size = ball.value.size();
        ball.moved(|x| x.f_reshape([size[0], size[1], count, 1, size[2] / count]))
    };
    let (query, key, value) =
        (unpacked(o.ball(0)?, heads)?, unpacked(o.ball(1)?, key_heads)?, unpacked(o.ball(2)?, key_heads)?);
    let (head, value_head) = (key.value.size()[4], value.value.size()[4]);
    let dtype = a.dtype(0);
    let size = [a.shape(0)[0], key_heads, head, value_head];
    let mut state = match o.optional(3)? {
        Some(state) => state.cast(dtype)?,
        None => o.certain(Tensor::f_zeros(size, (query.value.kind(), Device::Cpu))?, dtype)?,
    };
    let rule = a.text("update_rule", "gated_delta");
    let (decay, rate) = match (rule, o.optional(4)?, o.optional(5)?) {
        ("linear", ..) => (None, None),
        ("gated", Some(decay), _) => (Some(decay), None),
        ("delta", _, Some(rate)) => (None, Some(rate)),
        ("gated_delta", Some(decay), Some(rate)) => (Some(decay), Some(rate)),
        _ => return refuse("an update rule of LinearAttention without its operands"),
    };
    // The elements of a decay go with those of a key.
    let column = |ball: Ball| unpacked(ball, key_heads)?.moved(|x| x.f_transpose(-1, -2));
    let decay = decay.map(column).transpose()?.map(|decay| decay.exp()).transpose()?;
    let rate = rate.map(|rate| rate.moved(|x| x.f_unsqueeze(-1)?.f_unsqueeze(-1))).transpose()?;
    let scale = match a.float("scale", 0.0) {
        0.0 => 1.0 / (head as f64).sqrt(),
        scale => scale,
    };
    let groups = heads / key_heads;
    let mut outputs = Vec::new();
    for step in 0..a.shape(0)[1] {
        let at = |ball: &Ball| ball.moved(|x| x.f_select(1, step));
        let (key, mut value) = (at(&key)?, at(&value)?);
        if let Some(decay) = &decay {
            state = state.mul(&at(decay)?)?;
        }
        if let Some(rate) = &rate {
            value = value.sub(&Ball::sum_of_products(&[(&key, &state)], &[])?)?.mul(&at(rate)?)?;
        }
        state = state.add(&key.moved(|x| x.f_transpose(-1, -2))?.mul(&value)?)?;
        let shared = state.moved(|x| x.f_repeat_interleave_self_int(groups, 1, None))?;
        outputs.push(Ball::sum_of_products(&[(&at(&query)?, &shared)], &[])?.affine(scale, 0.0)?);
    }
    let output = Ball::joined(&outputs, |parts| Tensor::f_stack(parts, 1))?.moved(|x| x.f_flatten(2, 4))?;
    let state = match a.output_dtypes.get(1) {
        Some(&held) => state.cast(held)?,
        None => state,
    };
    Ok(vec![output, state])
}

/// ONNX CausalConvWithState, opset 27.
pub const CAUSAL_CONV: OpSpec = OpSpec {
    code: 0x6c,
    name: "CausalConvWithState",
    doc: "A convolution of each channel with what came before, kept in a state, and an activation.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, convolve(&Operands::inexact(a, errors))?)),
    build: |b| {
        let x = b.input(b.dtypes(), 3..=3)?;
        let [batch, channels, length] = x.dims();
        b.require(length.at_least(1));
        let hint = b.one_of(&[3, 4, 2, 1, 5]);
        let kernel = b.free_near(1..=MAX_KERNEL, hint);
        b.weight(x.dtype, [channels, Term::constant(1), kernel]);
        let (bias, past) = (b.coin(), b.coin());
        match bias {
            true => drop(b.weight(x.dtype, [channels])),
            false if past => b.absent(),
            false => {}
        }
        let state = [batch, channels, kernel - 1];
        if past {
            b.input_like(x.dtype, state);
        }
        match b.one_of(&["", "silu", "swish", "none"]) {
            "" => {}
            activation => b.set_text("activation", activation),
        }
        b.accumulate(kernel + 1);
        b.output(x.dtype, x.shape);
        b.output(x.dtype, state);
        Ok(())
    },
    eval: |a| values(a, convolve(&Operands::exact(a))?),
    ..STATEFUL
};

fn convolve(o: &Operands) -> Result<Vec<Ball>, TchError> {
    let x = o.ball(0)?;
    let weight = o.ball(1)?.moved(|w| w.f_transpose(1, 2))?;
    let (size, kernel) = (x.value.size(), weight.value.size()[1]);
    let past = match o.optional(3)? {
        Some(past) => past,
        None => {
            let zeros = Tensor::f_zeros([size[0], size[1], kernel - 1], (x.value.kind(), Device::Cpu))?;
            o.certain(zeros, o.args.dtype(0))?
        }
    };
    let all = Ball::joined(&[past, x], |parts| Tensor::f_cat(parts, 2))?;
    let state = all.moved(|x| x.f_narrow(2, size[2], kernel - 1))?;
    // Batch, channels, length, kernel.
    let windows = all.moved(|x| x.f_unfold(2, kernel, 1))?;
    let bias = o.optional(2)?.map(|bias| bias.moved(|x| x.f_reshape([-1, 1, 1]))).transpose()?;
    let sum = Ball::sum_of_products(&[(&windows, &weight)], &bias.iter().collect::<Vec<_>>())?;
    let sum = sum.moved(|x| x.f_squeeze_dim(-1))?;
    let output = match o.args.text("activation", "none") {
        "none" => sum,
        "silu" | "swish" => swish(&sum, 1.0)?,
        _ => return refuse("an activation of CausalConvWithState that ONNX does not name"),
    };
    Ok(vec![output, state])
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval_all, ramp};
    use super::*;
    use crate::dtype::DType::F32;
    use crate::spec::Attribute::{Float, Int, Text};

    // Numbers of the reference implementation in the onnx package.
    #[test]
    fn examples_of_onnx() {
        let operands = [
            ramp(&[1, 2, 4], -0.5),
            ramp(&[1, 2, 2], -0.2),
            ramp(&[1, 2, 1], 0.1),
            ramp(&[1, 1, 2, 1], 0.5),
            ramp(&[1, 2, 2], -0.7),
            ramp(&[1, 2, 1], 0.3),
        ];
        let attributes = [("q_num_heads", Int(2)), ("kv_num_heads", Int(1)), ("scale", Float(0.5))];
        let outputs = eval_all(&LINEAR_ATTENTION, &operands, &attributes, &[F32, F32]);
        assert_near(&outputs[0], &[-0.124_096, -0.067_982, -0.007_198, -0.048_849]);
        assert_near(&outputs[1], &[0.143_952, 0.224_188]);
        let operands = [ramp(&[1, 2, 3], -0.5), ramp(&[2, 1, 3], -0.2), ramp(&[2], 0.1), ramp(&[1, 2, 2], 0.3)];
        let outputs = eval_all(&CAUSAL_CONV, &operands, &[("activation", Text("silu".to_owned()))], &[F32, F32]);
        assert_near(&outputs[0], &[0.0, 0.036_224, 0.134_331, 0.178_834, 0.103_998, 0.086_386]);
        assert_near(&outputs[1], &[-0.4, -0.3, -0.1, 0.0]);
    }
}
