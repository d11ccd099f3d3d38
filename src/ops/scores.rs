//! The meaning of Attention: scores, masks, softmax.

use super::ball::{Ball, Balled, Operands};
use crate::dtype::DType;
use crate::spec::Args;
use tch::{Device, Kind, TchError, Tensor};

/// The result, present keys and values, and the scores at the stage that `qk_matmul_output_mode` names.
pub fn attend(o: &Operands) -> Result<Vec<Ball>, TchError> {
    let a = o.args;
    let packed = a.rank(0) == 3;
    let query = heads(o, 0, "q_num_heads")?;
    let key = with_past(o, heads(o, 1, "kv_num_heads")?, 4)?;
    let value = with_past(o, heads(o, 2, "kv_num_heads")?, 5)?;
    let size = query.value.size();
    let (count, head) = (size[1], size[3]);
    // Both factors are scaled, by the root.
    let scale = match a.attribute("scale") {
        Some(_) => a.float("scale", 1.0),
        None => 1.0 / (head.max(1) as f64).sqrt(),
    };
    let shared = |x: &Ball| {
        let groups = count / x.value.size()[1].max(1);
        if groups == 1 { Ok(x.copy()) } else { x.moved(|x| x.f_repeat_interleave_self_int(groups, 1, None)) }
    };
    let scaled = |x: &Ball| {
        let scaled = x.affine(scale.sqrt(), 0.0)?;
        // In the function's body of the ONNX text the root is an f32: legal in f64 too.
        let rounded = if a.dtype(0) == DType::F64 { 2.0 * DType::F32.unit_roundoff() } else { 0.0 };
        let value = scaled.value.shallow_clone();
        scaled.widened(rounded, || Ok(value))
    };
    let transposed = scaled(&shared(&key)?)?.moved(|x| x.f_transpose(-1, -2))?;
    let products = Ball::sum_of_products(&[(&scaled(&query)?, &transposed)], &[])?;
    let capped = match a.float("softcap", 0.0) {
        cap if cap > 0.0 => products.affine(1.0 / cap, 0.0)?.tanh()?.affine(cap, 0.0)?,
        _ => products.copy(),
    };
    let total = key.value.size()[2];
    let allowed = Allowed::new(a, [size[2], total])?;
    let biased = match o.optional(3)? {
        Some(mask) if a.dtype(3).is_float() => capped.add(&padded(&mask, total, f64::NEG_INFINITY)?)?,
        _ => capped.copy(),
    };
    let masked = allowed.mask(&biased, f64::NEG_INFINITY)?;
    let weights = softmax(o, &biased, &allowed)?;
    let result = Ball::sum_of_products(&[(&weights, &shared(&value)?)], &[])?;
    let result = match packed {
        true => result.moved(|x| x.f_transpose(1, 2)?.f_flatten(2, 3))?,
        false => result,
    };
    let stage = match a.int("qk_matmul_output_mode", 0) {
        0 => products,
        1 => capped,
        2 => masked,
        _ => weights,
    };
    Ok(vec![result, key, value, stage])
}

/// Operand `index` as batch, heads, steps, elements.
fn heads(o: &Operands, index: usize, name: &str) -> Balled {
    let ball = o.ball(index)?;
    if o.args.rank(index) == 4 {
        return Ok(ball);
    }
    let [batch, steps, hidden] = <[i64; 3]>::try_from(o.args.shape(index)).expect("rank 3");
    let count = o.args.int(name, 1).max(1);
    ball.moved(|x| x.f_reshape([batch, steps, count, hidden / count])?.f_transpose(1, 2))
}

/// The past of operand `index`, if there is one, and then `now`.
fn with_past(o: &Operands, now: Ball, index: usize) -> Balled {
    match o.optional(index)? {
        Some(past) => Ball::joined(&[past, now], |parts| Tensor::f_cat(parts, 2)),
        None => Ok(now),
    }
}

/// A mask whose last dimension may be too short, filled up with `filling`.
fn padded(mask: &Ball, total: i64, filling: f64) -> Balled {
    let missing = total - mask.value.size().last().copied().unwrap_or(total);
    if missing <= 0 || missing + 1 == total {
        return Ok(mask.copy());
    }
    mask.padded(missing, filling)
}

/// Which keys each query may see; `None`: all.
struct Allowed(Option<Tensor>);

impl Allowed {
    fn new(a: &Args, [queries, total]: [i64; 2]) -> Result<Allowed, TchError> {
        let options = (Kind::Int64, Device::Cpu);
        let step = Tensor::f_arange(queries, options)?.f_unsqueeze(-1)?;
        let key = Tensor::f_arange(total, options)?;
        let lengths = a.opt(6).map(|lengths| lengths.f_to_kind(Kind::Int64)?.f_reshape([-1, 1, 1, 1])).transpose()?;
        // Where a query stands among the keys.
        let place = match (a.opt(4), &lengths) {
            (Some(past), _) => step.f_add_scalar(past.size()[2])?,
            (None, Some(lengths)) => step.f_add(&lengths.f_sub_scalar(queries)?)?,
            (None, None) => step,
        };
        let mut allowed: Option<Tensor> = None;
        let mut restrict = |condition: Tensor| -> Result<(), TchError> {
            allowed = Some(match allowed.take() {
                Some(allowed) => allowed.f_logical_and(&condition)?,
                None => condition,
            });
            Ok(())
        };
        let distance = key.f_sub(&place)?;
        if a.int("is_causal", 0) != 0 {
            restrict(distance.f_le(0)?)?;
        }
        let (left, right) = (a.int("left_window_size", -1), a.int("right_window_size", -1));
        if left >= 0 {
            restrict(distance.f_ge(-left)?)?;
        }
        if right >= 0 {
            restrict(distance.f_le(right)?)?;
        }
        if let Some(lengths) = &lengths {
            restrict(key.f_lt_tensor(lengths)?)?;
        }
        if let Some(mask) = a.opt(3).filter(|_| a.dtype(3) == DType::Bool) {
            let missing = total - mask.size().last().copied().unwrap_or(total);
            let pads = missing > 0 && missing + 1 != total;
            restrict(if pads { mask.f_constant_pad_nd([0, missing])? } else { mask.shallow_clone() })?;
        }
        Ok(Allowed(allowed))
    }

    /// `x` with `filling` where a key is not to be seen.
    fn mask(&self, x: &Ball, filling: f64) -> Balled {
        match &self.0 {
            Some(allowed) => x.filled(&allowed.f_logical_not()?, filling),
            None => Ok(x.copy()),
        }
    }
}

/// The weights: exponentials over their sum along the last axis; 0 where no key is allowed.
fn softmax(o: &Operands, scores: &Ball, allowed: &Allowed) -> Balled {
    let dtype = o.args.dtype(0);
    let precision = DType::from_onnx_code(o.args.int("softmax_precision", 0) as i32).unwrap_or(dtype);
    // A finer precision is not worth a report where it is not used.
    let coarser = if precision.unit_roundoff() > dtype.unit_roundoff() { precision } else { dtype };
    let scores = allowed.mask(&scores.copy().cast(coarser)?, f64::NEG_INFINITY)?;
    scores.softmax()?.cast(dtype)
}
