//! Blocks of pixels to channels and back.

use super::common::one;
use super::windows::{self, unsupported};
use crate::dtype::ANY;
use crate::spec::{Args, Builder, Exceptional, OpSpec, Operand};
use crate::term::Term;
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&DEPTH_TO_SPACE, &SPACE_TO_DEPTH];

pub const DEPTH_TO_SPACE: OpSpec = OpSpec {
    code: 0x5c,
    name: "DepthToSpace",
    exceptional: Exceptional::Moved,
    dtypes: ANY,
    doc: "Moves channels into blocks of pixels, depth-column-row (DCR) or column-row-depth (CRD).",
    build: |b| {
        let x = b.input_or(b.dtypes(), 4..=4, |b| {
            let [n, c, h, w] = new_sizes(b);
            let block = b.one_of(&[2, 3, 4, 2]);
            vec![n, c * (block * block), h, w]
        })?;
        let [n, c, h, w] = x.nchw();
        let block = declare_block(b, &x, |[_, c, _, _], block| c % (block * block) == 0);
        if !b.chance(48) {
            let mode = b.one_of(&["CRD", "DCR", "CRD"]);
            b.set_text("mode", mode);
        }
        b.require(c.divisible_by(block * block));
        b.output(x.dtype, [n, c / (block * block), h * block, w * block]);
        Ok(())
    },
    eval: |a| {
        let ([n, c, h, w], block) = sizes(a)?;
        let depth = c / (block * block);
        let columns = a.text("mode", "DCR") == "CRD";
        let split = if columns { [n, depth, block, block, h, w] } else { [n, block, block, depth, h, w] };
        let order = if columns { [0, 1, 4, 2, 5, 3] } else { [0, 3, 4, 1, 5, 2] };
        one(rearrange(a.x(0), split, order, [n, depth, h * block, w * block]))
    },
    ..OpSpec::BASE
};

pub const SPACE_TO_DEPTH: OpSpec = OpSpec {
    code: 0x5d,
    name: "SpaceToDepth",
    exceptional: Exceptional::Moved,
    dtypes: ANY,
    doc: "Moves blocks of pixels into channels, depth-column-row (DCR) or column-row-depth (CRD).",
    build: |b| {
        let x = b.input_or(b.dtypes(), 4..=4, |b| {
            let [n, c, h, w] = new_sizes(b);
            let block = b.one_of(&[2, 3, 4, 2, 3]);
            vec![n, c, h * block, w * block]
        })?;
        let [n, c, h, w] = x.nchw();
        let block = declare_block(b, &x, |[_, _, h, w], block| h % block == 0 && w % block == 0);
        // The attribute came with opset 28.
        if b.opset() >= 28 && !b.chance(64) {
            let mode = b.one_of(&["CRD", "DCR", "CRD"]);
            b.set_text("mode", mode);
        }
        b.require(h.divisible_by(block));
        b.require(w.divisible_by(block));
        b.output(x.dtype, [n, c * block * block, h / block, w / block]);
        Ok(())
    },
    eval: |a| {
        let ([n, c, h, w], block) = sizes(a)?;
        let (rows, columns) = (h / block, w / block);
        let split = [n, c, rows, block, columns, block];
        let order = if a.text("mode", "DCR") == "CRD" { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
        one(rearrange(a.x(0), split, order, [n, c * block * block, rows, columns]))
    },
    ..OpSpec::BASE
};

/// Sizes that leave room for a factor. The first may be 0 where the case allows that.
fn new_sizes(b: &mut Builder) -> [Term; 4] {
    std::array::from_fn(|i| if i == 0 { b.size(5) } else { windows::free_up_to(b, 64, 5) })
}

/// The attribute `blocksize`: one that the current sizes allow, where there is one above 1.
fn declare_block(b: &mut Builder, x: &Operand, fits: impl Fn([i64; 4], i64) -> bool) -> Term {
    let current = x.nchw().map(|dim| b.value(dim));
    let choices: Vec<i64> = (2..=4).filter(|&block| fits(current, block)).collect();
    let hint = match choices.is_empty() {
        true => b.one_of(&[2, 3, 4, 2, 3, 1]),
        false => b.one_of(&choices),
    };
    let block = b.free_near(1..=4, hint);
    b.set_int("blocksize", block);
    block
}

fn sizes(a: &Args) -> Result<([i64; 4], i64), TchError> {
    let shape = a.shape(0).try_into().map_err(|_| unsupported("blocks of a tensor that is not NCHW"))?;
    match a.int("blocksize", 0) {
        block if block > 0 => Ok((shape, block)),
        _ => Err(unsupported("a blocksize that is not positive")),
    }
}

fn rearrange(x: &Tensor, split: [i64; 6], order: [i64; 6], joined: [i64; 4]) -> Result<Tensor, TchError> {
    x.f_reshape(split)?.f_permute(order)?.f_reshape(joined)
}
