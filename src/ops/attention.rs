//! Scaled dot product attention.

use super::ball::{Operands, radii, values};
use super::rotary::ROTARY_EMBEDDING;
use super::scores::attend;
use crate::dtype::{DType, FLOATS};
use crate::spec::{Builder, Domain, Numerics, OpSpec, Operand, Skip};
use crate::term::Term;

pub const TABLE: &[&OpSpec] = &[&ROTARY_EMBEDDING, &ATTENTION];

/// ONNX Attention, opset 23; windows and lengths without padding came later. Value and key have one type here: of what
/// the product of different ones is, the text says nothing.
pub const ATTENTION: OpSpec = OpSpec {
    code: 0x6a,
    name: "Attention",
    since: 23,
    dtypes: FLOATS,
    doc: "softmax(q k' * scale, capped, masked) v of several heads, with keys and values of the past.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, attend(&Operands::inexact(a, errors))?)),
    build,
    eval: |a| values(a, attend(&Operands::exact(a))?),
    ..OpSpec::BASE
};

/// The sizes of one application.
struct Sizes {
    batch: Term,
    heads: i64,
    key_heads: i64,
    queries: Term,
    keys: Term,
    past: Option<Term>,
    head: Term,
    value_head: Term,
}

impl Sizes {
    fn total(&self) -> Term {
        self.past.map_or(self.keys, |past| self.keys + past)
    }
}

/// The head counts of query and key: a multiple that fits the query where its sizes are fixed already.
pub(super) fn head_counts(b: &mut Builder, query: &Operand) -> (i64, i64) {
    let packed = query.rank() == 3;
    let size = b.value(query.shape[if packed { 2 } else { 1 }]);
    let wanted = b.one_of(&[2, 4, 1, 3, 6, 8]);
    let heads = if packed {
        [wanted, 4, 3, 2].into_iter().find(|heads| size % heads == 0 && size > 0).unwrap_or(1)
    } else {
        size.max(1)
    };
    let groups = b.one_of(&[1, 2, 1, 3, heads, 2]);
    (heads, if heads % groups == 0 { heads / groups } else { heads })
}

fn build(b: &mut Builder) -> Result<(), Skip> {
    let query = b.input(b.dtypes(), 3..=4)?;
    let packed = query.rank() == 3;
    let (heads, key_heads) = head_counts(b, &query);
    let mut sizes = if packed {
        let [batch, queries, hidden] = query.dims();
        b.require(hidden.divisible_by(heads));
        let head = hidden / heads;
        let value_head = b.size(4);
        let key = b.input_shaped(query.dtype, &[Some(batch), None, Some(head * key_heads)]);
        let keys = key.shape[1];
        b.input_like(query.dtype, [batch, keys, value_head * key_heads]);
        b.set_int("q_num_heads", heads);
        b.set_int("kv_num_heads", key_heads);
        Sizes { batch, heads, key_heads, queries, keys, past: None, head, value_head }
    } else {
        let [batch, all_heads, queries, head] = query.nchw();
        b.require(all_heads.equals(heads));
        let count = Term::constant(key_heads);
        let key = b.input_shaped(query.dtype, &[Some(batch), Some(count), None, Some(head)]);
        let keys = key.shape[2];
        let value = b.input_shaped(query.dtype, &[Some(batch), Some(count), Some(keys), None]);
        let value_head = value.shape[3];
        Sizes { batch, heads, key_heads, queries, keys, past: None, head, value_head }
    };
    [sizes.head, sizes.keys, sizes.value_head].iter().for_each(|size| b.require(size.at_least(1)));
    sizes.past = b.chance(96).then(|| b.size(4));
    let masked = optional_operands(b, query.dtype, &sizes);
    let masked = set_attributes(b) || masked;
    b.accumulate(sizes.total() + sizes.head);
    outputs(b, query.dtype, &sizes, packed, masked);
    Ok(())
}

/// Mask, past and lengths; whether some scores may be masked out.
fn optional_operands(b: &mut Builder, dtype: DType, sizes: &Sizes) -> bool {
    let mask = b.one_of(&["", "bool", "float", "float", "bool"]);
    let lengths = b.opset() >= 24 && sizes.past.is_none() && b.chance(64);
    if mask.is_empty() && sizes.past.is_none() && !lengths {
        return false;
    }
    let mut masked = mask == "bool" || lengths;
    match mask {
        "" => b.absent(),
        mask => {
            let (shape, short) = mask_shape(b, sizes);
            masked |= short;
            if mask == "bool" {
                b.input_like(DType::Bool, shape)
            } else {
                b.input_like(dtype, shape)
            };
        }
    }
    if let Some(past) = sizes.past {
        let count = Term::constant(sizes.key_heads);
        b.input_like(dtype, [sizes.batch, count, past, sizes.head]);
        b.input_like(dtype, [sizes.batch, count, past, sizes.value_head]);
    } else if lengths {
        b.absent();
        b.absent();
        b.leaf(DType::I64, [sizes.batch], Domain::Between(1, sizes.keys));
    }
    masked
}

/// A shape that broadcasts to the scores. Since opset 24 the last dimension may be shorter and is padded; whether it is if it
/// is 1, or broadcast, is left open. And whether it is shorter.
fn mask_shape(b: &mut Builder, sizes: &Sizes) -> (Vec<Term>, bool) {
    let short = b.opset() >= 24 && b.chance(40) && b.value(sizes.total()) > 2;
    if short {
        b.require(sizes.total().at_least(3));
    }
    let last = if short { sizes.total() - 1 } else { sizes.total() };
    let full = [sizes.batch, Term::constant(sizes.heads), sizes.queries, last];
    let rank = b.one_of(&[2, 4, 4, 3]);
    let ones = b.one_of(&[0, 1, 0, 2, 3, 0, 4, 7]);
    let dim = |axis: usize| if axis < 3 && ones >> axis & 1 == 1 { Term::constant(1) } else { full[axis] };
    ((4 - rank..4).map(dim).collect(), short)
}

/// Whether some scores are masked out.
fn set_attributes(b: &mut Builder) -> bool {
    let causal = b.mostly();
    if causal || b.chance(64) {
        b.set_int("is_causal", i64::from(causal));
    }
    if b.mostly() {
        let scale = b.one_of(&[0.5, 0.25, 1.0, 2.0]);
        b.set_float("scale", scale);
    }
    if b.chance(184) {
        let cap = b.one_of(&[2.0, 1.0, 4.0, 0.5, 0.0]);
        b.set_float("softcap", cap);
    }
    if b.mostly() {
        let precision = b.one_of(&[DType::F32, DType::F64, DType::F16, DType::F32]);
        b.set_int("softmax_precision", i64::from(precision.onnx_code()));
    }
    let mut masked = causal;
    if b.opset() >= 25 && b.chance(208) {
        for name in ["left_window_size", "right_window_size"] {
            if !b.chance(32) {
                let size = b.one_of(&[1, -1, 0, 2, 3]);
                masked |= size >= 0;
                b.set_int(name, size);
            }
        }
    }
    masked
}

/// The result, and of the others as many as the record wants. Masked scores are minus infinity, so that they are no
/// output then.
fn outputs(b: &mut Builder, dtype: DType, sizes: &Sizes, packed: bool, masked: bool) {
    let heads = Term::constant(sizes.heads);
    let shape = if packed {
        vec![sizes.batch, sizes.queries, sizes.value_head * sizes.heads]
    } else {
        vec![sizes.batch, heads, sizes.queries, sizes.value_head]
    };
    b.output(dtype, shape);
    if sizes.past.is_none() {
        return;
    }
    let (count, total) = (Term::constant(sizes.key_heads), sizes.total());
    b.output(dtype, [sizes.batch, count, total, sizes.head]);
    b.output(dtype, [sizes.batch, count, total, sizes.value_head]);
    if b.chance(208) {
        let mode = b.one_of(if masked { &[3, 1, 0] } else { &[3, 1, 2, 0] });
        b.set_int("qk_matmul_output_mode", mode);
        b.output(dtype, [sizes.batch, heads, sizes.queries, total]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval_all, ramp};
    use super::*;
    use crate::dtype::DType::{Bool, F32, I64};
    use crate::spec::Attribute::{Float, Int};
    use crate::tensor::TensorData;

    // Numbers of the reference implementation in the onnx package.
    #[test]
    fn examples_of_onnx() {
        let operands = [
            ramp(&[1, 2, 2, 2], -0.5),
            ramp(&[1, 1, 2, 2], -0.2),
            ramp(&[1, 1, 2, 1], 0.1),
            None,
            ramp(&[1, 1, 1, 2], 0.7),
            ramp(&[1, 1, 1, 1], -1.0),
        ];
        let attributes = [("is_causal", Int(1)), ("softcap", Float(2.0)), ("qk_matmul_output_mode", Int(3))];
        let outputs = eval_all(&ATTENTION, &operands, &attributes, &[F32; 4]);
        assert_near(&outputs[0], &[-0.298_882, -0.166_222, -0.432_508, -0.179]);
        assert_near(&outputs[1], &[0.7, 0.8, -0.2, -0.1, 0.0, 0.1]);
        assert_near(&outputs[2], &[-1.0, 0.1, 0.2]);
        assert_near(&outputs[3][..6], &[0.362_62, 0.637_38, 0.0, 0.273_86, 0.375_898, 0.350_242]);
    }

    #[test]
    fn a_query_without_keys_gives_zero() {
        let mask = TensorData::from_f64(Bool, &[2, 3], &[1.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        let operands = [ramp(&[1, 2, 2], -0.5), ramp(&[1, 3, 2], -0.2), ramp(&[1, 3, 1], 0.1), Some(mask)];
        let attributes = [("q_num_heads", Int(1)), ("kv_num_heads", Int(1)), ("scale", Float(1.0))];
        assert_near(&eval_all(&ATTENTION, &operands, &attributes, &[F32])[0], &[0.182_192, 0.0]);
    }

    #[test]
    fn pairs_are_rotated() {
        let positions = Some(TensorData::from_f64(I64, &[1, 2], &[2.0, 0.0]));
        let operands = [ramp(&[1, 1, 2, 4], -0.5), ramp(&[3, 2], 0.3), ramp(&[3, 2], -0.6), positions];
        let halves = eval_all(&ROTARY_EMBEDDING, &operands, &[], &[F32]);
        assert_near(&halves[0], &[-0.41, -0.34, -0.11, -0.12, 0.03, -0.25, 0.09, -0.2]);
        let interleaved = eval_all(&ROTARY_EMBEDDING, &operands, &[("interleaved", Int(1))], &[F32]);
        assert_near(&interleaved[0], &[-0.43, -0.18, -0.26, -0.13, -0.03, 0.06, -0.21, -0.25]);
    }
}
