//! Operators that give the elements of a tensor another shape or order: nothing is computed.

use super::common::one;
use crate::spec::{ANY_RANK, Args, Builder, Numerics, OpSpec, Operand, Outputs, Skip};
use crate::term::{Term, product};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] =
    &[&TRANSPOSE, &RESHAPE, &FLATTEN, &SQUEEZE, &UNSQUEEZE, &EXPAND, &TILE, &CONCAT, &SPLIT, &SHAPE, &SIZE];

/// `axis` as the attribute `axis`, sometimes left out where it is `default`.
pub fn set_axis(b: &mut Builder, axis: usize, rank: usize, default: i64) {
    let written = b.signed_axis(axis, rank);
    let is_default = Args::from_front(default, rank) == axis as i64;
    if !is_default || !b.chance(96) {
        b.set_int("axis", written);
    }
}

/// The attribute `axis` counted from the front, for a tensor of rank `rank`.
pub fn axis_of(a: &Args, default: i64, rank: usize) -> i64 {
    Args::from_front(a.int("axis", default), rank)
}

/// The elements of an `axes` operand counted from the front.
pub fn axes_of(a: &Args, operand: usize, rank: usize) -> Option<Vec<usize>> {
    let axes = a.list(operand)?;
    Some(axes.into_iter().map(|axis| Args::from_front(axis, rank) as usize).collect())
}

/// `axes` as they may be written in an operand: signed, in any order.
pub fn written_axes(b: &mut Builder, axes: &[usize], rank: usize) -> Vec<Term> {
    let order = b.permutation(axes.len());
    order.into_iter().map(|i| b.signed_axis(axes[i], rank).into()).collect()
}

/// A refusal of attributes that ONNX does not allow or that graphsmith does not follow.
pub fn refuse<T>(reason: &str) -> Result<T, TchError> {
    Err(TchError::Torch(reason.to_owned()))
}

/// ONNX Transpose, opset 13.
pub const TRANSPOSE: OpSpec = OpSpec {
    code: 0x80,
    name: "Transpose",
    doc: "Permutes the axes.",
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        let mut order: Vec<usize> = (0..x.rank()).rev().collect();
        if !b.chance(48) {
            order = b.permutation(x.rank());
            // The identity is worth testing, but not in half of the matrices.
            if order.is_sorted() && b.chance(128) {
                order.reverse();
            }
            b.set_ints("perm", order.iter().map(|&axis| axis as i64));
        }
        b.output(x.dtype, order.iter().map(|&axis| x.shape[axis]).collect::<Vec<_>>());
        Ok(())
    },
    eval: |a| {
        let reversed: Vec<i64> = (0..a.rank(0) as i64).rev().collect();
        one(a.x(0).f_permute(a.ints("perm").unwrap_or(&reversed)))
    },
    ..OpSpec::BASE
};

/// ONNX Reshape, opset 14.
pub const RESHAPE: OpSpec = OpSpec {
    code: 0x81,
    name: "Reshape",
    since: 14,
    doc: "The same elements in another shape: dimensions merged, split, exchanged, copied (0) or inferred (-1).",
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        let shape = refactored(b, &x.shape);
        let empty = shape.iter().any(|&dim| b.value(dim) == 0);
        let allow_zero = empty || b.chance(48);
        // With an explicit 0 there must not be a -1 at all.
        let inferred = (!empty && !shape.is_empty() && b.coin()).then(|| b.axis(shape.len()));
        let copy = b.chance(96);
        let mut written = Vec::new();
        for (i, &dim) in shape.iter().enumerate() {
            if inferred == Some(i) {
                written.push(Term::constant(-1));
                continue;
            }
            if !allow_zero || inferred.is_some() {
                b.require(dim.at_least(1));
            }
            let copies = copy && !allow_zero && x.shape.get(i) == Some(&dim);
            written.push(if copies { Term::constant(0) } else { dim });
        }
        b.constant(written);
        if allow_zero || b.coin() {
            b.set_int("allowzero", i64::from(allow_zero));
        }
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let from = a.shape(0);
        let copies = a.int("allowzero", 0) == 0;
        let mut shape = a.list(1).unwrap_or_default();
        for (i, dim) in shape.iter_mut().enumerate() {
            if *dim == 0 && copies {
                *dim = from.get(i).copied().unwrap_or(0);
            }
        }
        one(a.x(0).f_reshape(shape))
    },
    ..OpSpec::BASE
};

/// `shape` after one to three edits that keep the number of elements.
fn refactored(b: &mut Builder, shape: &[Term]) -> Vec<Term> {
    let mut shape = shape.to_vec();
    for _ in 0..1 + b.below(3) {
        let (edit, at) = (b.below(8), b.below(256));
        match edit {
            0..3 if shape.len() >= 2 => {
                let at = at % (shape.len() - 1);
                let next = shape.remove(at + 1);
                shape[at] = shape[at] * next;
            }
            3..6 if !shape.is_empty() && shape.len() < *ANY_RANK.end() => {
                let at = at % shape.len();
                let size = b.value(shape[at]);
                let divisors: Vec<i64> = (2..=16).filter(|divisor| size % divisor == 0).collect();
                let hint = if divisors.is_empty() { 2 } else { b.one_of(&divisors) };
                let factor = b.free_near(1..=16, hint);
                b.require(shape[at].divisible_by(factor));
                shape[at] = shape[at] / factor;
                let before = b.below(2);
                shape.insert(at + before, factor);
            }
            6 if shape.len() >= 2 => {
                let other = at / shape.len() % shape.len();
                let at = at % shape.len();
                shape.swap(at, other);
            }
            7 if shape.len() < *ANY_RANK.end() => {
                let at = at % (shape.len() + 1);
                shape.insert(at, Term::constant(1));
            }
            _ => {}
        }
    }
    shape
}

/// ONNX Flatten, opset 13.
pub const FLATTEN: OpSpec = OpSpec {
    code: 0x82,
    name: "Flatten",
    doc: "A matrix: the axes before `axis` merged, and those from it on.",
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        let axis = b.below(x.rank() + 1);
        if axis != 1 || !b.chance(96) {
            // Flatten also takes the rank itself, which has no negative form.
            let written = if axis < x.rank() { b.signed_axis(axis, x.rank()) } else { axis as i64 };
            b.set_int("axis", written);
        }
        b.output(x.dtype, [product(&x.shape[..axis]), product(&x.shape[axis..])]);
        Ok(())
    },
    eval: |a| {
        let shape = a.shape(0);
        let (rows, columns) = shape.split_at(axis_of(a, 1, shape.len()).clamp(0, shape.len() as i64) as usize);
        one(a.x(0).f_reshape([rows.iter().product::<i64>(), columns.iter().product()]))
    },
    ..OpSpec::BASE
};

/// ONNX Squeeze, opset 13.
pub const SQUEEZE: OpSpec = OpSpec {
    code: 0x83,
    name: "Squeeze",
    doc: "Removes axes of size 1: those in the operand `axes`, or all of them.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=*ANY_RANK.end())?;
        let mut axes: Vec<usize> = (0..x.rank()).filter(|&axis| b.value(x.shape[axis]) == 1).collect();
        let all = b.chance(80);
        if !all {
            let chosen = b.axes(x.rank());
            axes.retain(|axis| chosen.contains(axis));
            if axes.is_empty() {
                axes = vec![b.axis(x.rank())];
            }
            let written = written_axes(b, &axes, x.rank());
            b.constant(written);
        }
        let mut shape = Vec::new();
        for (axis, &dim) in x.shape.iter().enumerate() {
            if axes.contains(&axis) {
                b.require(dim.equals(1));
                continue;
            }
            if all {
                b.require(dim.differs(1));
            }
            shape.push(dim);
        }
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let axes = axes_of(a, 1, a.rank(0));
        let drop = |axis: usize, dim: i64| axes.as_ref().map_or(dim == 1, |axes| axes.contains(&axis));
        let kept = a.shape(0).into_iter().enumerate().filter(|&(axis, dim)| !drop(axis, dim));
        one(a.x(0).f_reshape(kept.map(|(_, dim)| dim).collect::<Vec<_>>()))
    },
    ..OpSpec::BASE
};

/// ONNX Unsqueeze, opset 13.
pub const UNSQUEEZE: OpSpec = OpSpec {
    code: 0x84,
    name: "Unsqueeze",
    doc: "Inserts axes of size 1.",
    build: |b| {
        let x = b.input(b.dtypes(), 0..=*ANY_RANK.end() - 1)?;
        let added = 1 + b.below(2.min(*ANY_RANK.end() - x.rank()));
        let rank = x.rank() + added;
        let mut axes = b.permutation(rank);
        axes.truncate(added);
        let written = written_axes(b, &axes, rank);
        b.constant(written);
        let mut dims = x.shape.iter().copied();
        let dim = |axis| if axes.contains(&axis) { None } else { dims.next() };
        let shape: Vec<Term> = (0..rank).map(dim).map(|dim| dim.unwrap_or(Term::constant(1))).collect();
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let rank = a.rank(0) + a.list(1).map_or(0, |axes| axes.len());
        let axes = axes_of(a, 1, rank).unwrap_or_default();
        let mut dims = a.shape(0).into_iter();
        let dim = |axis| if axes.contains(&axis) { Some(1) } else { dims.next() };
        one(a.x(0).f_reshape((0..rank).filter_map(dim).collect::<Vec<_>>()))
    },
    ..OpSpec::BASE
};

/// ONNX Expand, opset 13: the broadcast goes both ways.
pub const EXPAND: OpSpec = OpSpec {
    code: 0x85,
    name: "Expand",
    doc: "Broadcasts to the operand `shape`, which may have 1 where the tensor is larger.",
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        let rank = b.below(*ANY_RANK.end() + 1);
        let mut written = Vec::new();
        let mut shape = x.shape[..x.rank() - rank.min(x.rank())].to_vec();
        for i in 0..rank {
            let Some(&dim) = (x.rank() + i).checked_sub(rank).and_then(|axis| x.shape.get(axis)) else {
                let size = b.size(rank);
                written.push(size);
                shape.push(size);
                continue;
            };
            let stretches = if b.value(dim) == 1 { !b.chance(48) } else { b.chance(64) };
            if stretches {
                b.require(dim.equals(1));
            }
            let entry = match stretches {
                true => b.size(rank),
                false if b.chance(80) => Term::constant(1),
                false => dim,
            };
            written.push(entry);
            shape.push(if stretches { entry } else { dim });
        }
        b.constant(written);
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let (mut shape, mut wanted) = (a.shape(0), a.list(1).unwrap_or_default());
        let rank = shape.len().max(wanted.len());
        for list in [&mut shape, &mut wanted] {
            list.splice(0..0, vec![1; rank - list.len()]);
        }
        let broadcast = |(&dim, &want): (&i64, &i64)| if dim == 1 { want } else { dim };
        one(a.x(0).f_expand(shape.iter().zip(&wanted).map(broadcast).collect::<Vec<_>>(), false))
    },
    ..OpSpec::BASE
};

/// ONNX Tile, opset 13.
pub const TILE: OpSpec = OpSpec {
    code: 0x86,
    name: "Tile",
    doc: "Repeats the tensor along each axis.",
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        let least = b.smallest_size();
        let repeats: Vec<Term> = x.shape.iter().map(|_| b.free(least..=3)).collect();
        b.constant(repeats.iter().copied());
        b.output(x.dtype, x.shape.iter().zip(repeats).map(|(&dim, repeat)| dim * repeat).collect::<Vec<_>>());
        Ok(())
    },
    eval: |a| one(a.x(0).f_repeat(a.list(1).unwrap_or_default())),
    ..OpSpec::BASE
};

/// ONNX Concat, opset 13.
pub const CONCAT: OpSpec = OpSpec {
    code: 0x87,
    name: "Concat",
    doc: "Joins tensors along an axis.",
    build: |b| {
        let first = b.input(b.dtypes(), 1..=*ANY_RANK.end())?;
        let axis = b.axis(first.rank());
        let count = b.one_of(&[2, 3, 2, 4, 2, 3, 2, 1]);
        let mut shape = first.shape.clone();
        for _ in 1..count {
            let mut wanted: Vec<Option<Term>> = first.shape.iter().copied().map(Some).collect();
            wanted[axis] = None;
            let next: Operand = b.input_shaped(first.dtype, &wanted);
            shape[axis] = shape[axis] + next.shape[axis];
        }
        let written = b.signed_axis(axis, first.rank());
        b.set_int("axis", written);
        b.output(first.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let parts: Vec<_> = a.operands.iter().flatten().collect();
        one(Tensor::f_cat(&parts, axis_of(a, 0, a.rank(0))))
    },
    ..OpSpec::BASE
};

/// ONNX Split, opset 18.
pub const SPLIT: OpSpec = OpSpec {
    code: 0x88,
    name: "Split",
    since: 18,
    doc: "Cuts along an axis into `num_outputs` equal parts (the last may be smaller) or parts of given sizes.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=*ANY_RANK.end())?;
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

/// Parts of a dimension by the attribute `num_outputs`.
fn equal_parts(b: &mut Builder, dim: Term) -> Vec<Term> {
    let size = b.value(dim);
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
        let part = b.free_near(least..=crate::limits::MAX_SIZE, size);
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
const OF_SHAPE: OpSpec = OpSpec {
    numerics: Numerics::Custom(|_, _, exact| exact.iter().map(|y| y.f_zeros_like()?.f_to_kind(Kind::Double)).collect()),
    ..OpSpec::BASE
};

/// ONNX Shape, opset 15.
pub const SHAPE: OpSpec = OpSpec {
    code: 0x89,
    name: "Shape",
    since: 15,
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
    if b.coin() {
        // Also out of range, where the axes are clamped.
        start = b.below(2 * x.rank() + 3) as i64 - rank - 1;
        b.set_int("start", start);
    }
    if b.coin() {
        end = b.below(2 * x.rank() + 3) as i64 - rank - 1;
        b.set_int("end", end);
    }
    let count = shape_range(start, end, x.rank()).len() as i64;
    if count < b.smallest_size() {
        return Err(Skip::Rank);
    }
    b.output(crate::dtype::DType::I64, [Term::constant(count)]);
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
        b.input(b.dtypes(), ANY_RANK)?;
        b.output(crate::dtype::DType::I64, []);
        Ok(())
    },
    eval: |a| -> Outputs { Ok(vec![Tensor::from(a.x(0).numel() as i64)]) },
    ..OF_SHAPE
};
