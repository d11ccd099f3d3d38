//! Operators that repeat, join and divide tensors, or tell their shape.

use super::common::one;
use super::movement::{axis_of, set_axis};
use crate::dtype::DType;
use crate::limits::{MAX_RANK, MAX_SIZE};
use crate::spec::{ANY_RANK, Args, Builder, Exceptional, Numerics, OpSpec, Outputs, Skip};
use crate::term::{Term, product};
use tch::{Kind, Tensor};

pub const TABLE: &[&OpSpec] = &[&TILE, &CONCAT, &SPLIT, &SHAPE, &SIZE];

/// ONNX Tile, opset 13.
pub const TILE: OpSpec = OpSpec {
    code: 0x86,
    name: "Tile",
    exceptional: Exceptional::Moved,
    doc: "Repeats the tensor along each axis.",
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        let least = b.smallest_size();
        let repeats: Vec<Term> = x.shape.iter().map(|_| b.free(least..=3)).collect();
        b.constant(repeats.iter().copied());
        b.output(x.dtype, x.shape.iter().zip(repeats).map(|(&dim, repeat)| dim * repeat).collect::<Vec<_>>());
        Ok(())
    },
    eval: |a| {
        // By one copy, in place of libtorch's many views.
        let (shape, repeats) = (a.shape(0), a.list(1).unwrap_or_default());
        let sizes = || shape.iter().zip(&repeats);
        let apart: Vec<i64> = sizes().flat_map(|(&size, _)| [1, size]).collect();
        let repeated: Vec<i64> = sizes().flat_map(|(&size, &repeat)| [repeat, size]).collect();
        let together: Vec<i64> = sizes().map(|(size, repeat)| size * repeat).collect();
        one(a.x(0).f_reshape(apart)?.f_expand(repeated, false)?.f_reshape(together))
    },
    ..OpSpec::BASE
};

/// ONNX Concat, opset 13.
pub const CONCAT: OpSpec = OpSpec {
    code: 0x87,
    name: "Concat",
    exceptional: Exceptional::Moved,
    doc: "Joins tensors along an axis.",
    build: |b| {
        let first = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let axis = b.axis(first.rank());
        let count = b.one_of(&[2, 3, 2, 4, 2, 3, 2, 1]);
        let mut shape = first.shape.clone();
        let mut elements = first.elements.clone();
        for _ in 1..count {
            let mut wanted: Vec<Option<Term>> = first.shape.iter().copied().map(Some).collect();
            wanted[axis] = None;
            let next = b.input_shaped(first.dtype, &wanted);
            shape[axis] = shape[axis] + next.shape[axis];
            elements = elements.zip(next.elements).map(|(all, more)| [all, more].concat());
        }
        let written = b.signed_axis(axis, first.rank());
        b.set_int("axis", written);
        b.output(first.dtype, shape);
        if let Some(elements) = elements.filter(|_| first.rank() == 1) {
            b.elements(elements);
        }
        Ok(())
    },
    eval: |a| {
        let parts: Vec<_> = a.operands.iter().flatten().collect();
        one(Tensor::f_cat(&parts, axis_of(a, 0, a.rank(0))))
    },
    ..OpSpec::BASE
};

/// ONNX Split. Up to opset 17 the number of equal parts is that of the outputs.
pub const SPLIT: OpSpec = OpSpec {
    code: 0x88,
    name: "Split",
    exceptional: Exceptional::Moved,
    since: 13,
    doc: "Cuts along an axis into `num_outputs` equal parts (the last may be smaller) or parts of given sizes.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let axis = b.axis(x.rank());
        let parts = if b.coin() { sized_parts(b, x.shape[axis]) } else { equal_parts(b, x.shape[axis]) };
        set_axis(b, axis, x.rank(), 0);
        for part in parts {
            let mut shape = x.shape.clone();
            shape[axis] = part;
            b.output(x.dtype, shape);
        }
        Ok(())
    },
    eval: |a| {
        let axis = axis_of(a, 0, a.rank(0));
        let size = a.shape(0)[axis as usize];
        let parts = a.list(1).unwrap_or_else(|| {
            let count = a.int("num_outputs", a.output_dtypes.len() as i64).max(1);
            let part = (size + count - 1) / count;
            (0..count).map(|i| part.min((size - i * part).max(0))).collect()
        });
        let mut start = 0;
        let mut part = |length| {
            start += length;
            a.x(0).f_narrow(axis, start - length, length)
        };
        parts.into_iter().map(&mut part).collect()
    },
    ..OpSpec::BASE
};

/// Equal parts of a dimension: from opset 18 on by the attribute `num_outputs`, and then the last may be smaller.
fn equal_parts(b: &mut Builder, dim: Term) -> Vec<Term> {
    let size = b.value(dim);
    if b.opset() < 18 {
        let counts: Vec<i64> = (2..=4).filter(|count| size % count == 0).collect();
        let count = if counts.is_empty() { 1 } else { b.one_of(&counts) };
        b.require(dim.divisible_by(count));
        return vec![dim / count; count as usize];
    }
    // Otherwise no element would be left for the last part, of which the text does not speak.
    let leaves_some = |count: &i64| size - (count - 1) * ((size + count - 1) / count) >= 1;
    let counts: Vec<i64> = (2..=4).filter(leaves_some).collect();
    let count = if counts.is_empty() { 1 } else { b.one_of(&counts) };
    b.set_int("num_outputs", count);
    let part = dim.div_ceil(count);
    let last = dim - part * (count - 1);
    b.require(last.at_least(i64::from(size > 0)));
    (1..count).map(|_| part).chain([last]).collect()
}

/// Parts of a dimension by the operand `split`.
fn sized_parts(b: &mut Builder, dim: Term) -> Vec<Term> {
    let least = b.smallest_size();
    let mut left = b.value(dim);
    let mut last = dim;
    let mut parts = Vec::new();
    for _ in 0..1 + b.below(3) {
        if left < 2 * least {
            break;
        }
        let size = least + b.below((left - 2 * least + 1).clamp(1, 256) as usize) as i64;
        let part = b.free_near(least..=MAX_SIZE, size);
        left -= size;
        last = last - part;
        parts.push(part);
    }
    b.require(last.at_least(least.min(left)));
    parts.push(last);
    b.constant(parts.iter().copied());
    parts
}

/// The base of operators whose result depends on shapes only, which no error of the operand can change.
pub const OF_SHAPE: OpSpec = OpSpec {
    numerics: Numerics::Custom(|_, _, exact| exact.iter().map(|y| y.f_zeros_like()?.f_to_kind(Kind::Double)).collect()),
    ..OpSpec::BASE
};

/// ONNX Shape; `start` and `end` came with opset 15.
pub const SHAPE: OpSpec = OpSpec {
    code: 0x89,
    name: "Shape",
    since: 1,
    doc: "The dimensions, or those from `start` up to `end`, as a tensor.",
    build: build_shape,
    eval: |a| {
        let shape = a.shape(0);
        one(Ok(Tensor::from_slice(&shape[shape_range(a.int("start", 0), a.int("end", i64::MAX), shape.len())])))
    },
    ..OF_SHAPE
};

fn build_shape(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let rank = x.rank() as i64;
    let (mut start, mut end) = (0, rank);
    let part = b.opset() >= 15;
    let empty = b.smallest_size() == 0;
    if part && b.chance(184) {
        // Also out of range, where the axes are clamped.
        start = b.below(2 * x.rank() + if empty { 3 } else { 1 }) as i64 - rank - 1;
        b.set_int("start", start);
    }
    if part && b.chance(176) {
        end = if empty {
            b.below(2 * x.rank() + 3) as i64 - rank - 1
        } else {
            let first = shape_range(start, rank, x.rank()).start as i64;
            let behind = first + 1 + b.below((rank - first + 1) as usize) as i64;
            if behind < rank && b.coin() { behind - rank } else { behind }
        };
        b.set_int("end", end);
    }
    let axes = shape_range(start, end, x.rank());
    let count = axes.len() as i64;
    if count < b.smallest_size() {
        return Err(Skip::Rank);
    }
    b.output(DType::I64, [Term::constant(count)]);
    b.elements(x.shape[axes].iter().copied());
    Ok(())
}

/// Which axes `start` and `end` select.
fn shape_range(start: i64, end: i64, rank: usize) -> std::ops::Range<usize> {
    let clamp = |axis| Args::from_front(axis, rank).clamp(0, rank as i64) as usize;
    let (start, end) = (clamp(start), clamp(end));
    start..end.max(start)
}

/// ONNX Size, opset 13.
pub const SIZE: OpSpec = OpSpec {
    code: 0x8a,
    name: "Size",
    doc: "The number of elements.",
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        b.output(DType::I64, []);
        b.elements([product(&x.shape)]);
        Ok(())
    },
    eval: |a| -> Outputs { Ok(vec![Tensor::from(a.x(0).numel() as i64)]) },
    ..OF_SHAPE
};
