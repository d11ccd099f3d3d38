//! Operators that give the elements of a tensor another shape or order: nothing is computed.

use super::common::one;
use crate::limits::MAX_RANK;
use crate::spec::{ANY_RANK, Args, Builder, Exceptional, OpSpec, Operand};
use crate::term::{Term, product};
use tch::TchError;

pub const TABLE: &[&OpSpec] = &[&TRANSPOSE, &RESHAPE, &FLATTEN, &SQUEEZE, &UNSQUEEZE, &EXPAND];

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
    exceptional: Exceptional::Moved,
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

/// ONNX Reshape. Before opset 14 a 0 in the shape always copies a dimension.
pub const RESHAPE: OpSpec = OpSpec {
    code: 0x81,
    name: "Reshape",
    exceptional: Exceptional::Moved,
    since: 5,
    doc: "The same elements in another shape: dimensions merged, split, exchanged, copied (0) or inferred (-1).",
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        if let Some(list) = b.computed_list(|b, list| reshapes(b, &x.shape, list)) {
            let shape = computed_shape(b, &x.shape, &list);
            output_moved(b, &x, shape);
            return Ok(());
        }
        let shape = refactored(b, &x.shape);
        let empty = shape.iter().any(|&dim| b.value(dim) == 0);
        let allow_zero = b.opset() >= 14 && (empty || b.chance(136));
        // With an explicit 0 there must not be a -1 at all.
        let inferred = (!empty && !shape.is_empty() && b.coin()).then(|| b.axis(shape.len()));
        let copy = b.chance(96) || empty;
        let mut written = Vec::new();
        for (i, &dim) in shape.iter().enumerate() {
            if inferred == Some(i) {
                written.push(Term::constant(-1));
                continue;
            }
            let copies = copy && !allow_zero && x.shape.get(i) == Some(&dim);
            if !allow_zero && !copies || inferred.is_some() {
                b.require(dim.at_least(1));
            }
            written.push(if copies { Term::constant(0) } else { dim });
        }
        b.constant(written);
        if allow_zero || b.opset() >= 14 && b.coin() {
            b.set_int("allowzero", i64::from(allow_zero));
        }
        output_moved(b, &x, shape);
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

/// An output with the elements of `x` in the same order.
fn output_moved(b: &mut Builder, x: &Operand, shape: Vec<Term>) {
    b.output(x.dtype, shape);
    if let Some(elements) = &x.elements {
        b.elements(elements.iter().copied());
    }
}

/// Whether a tensor with the sizes `from` now has as many elements as the operand `list` of Reshape asks for.
fn reshapes(b: &Builder, from: &[Term], list: &[Term]) -> bool {
    let total: i64 = from.iter().map(|&dim| b.value(dim)).product();
    let inferred = list.iter().filter(|dim| dim.as_const() == Some(-1)).count();
    let size = |(axis, &dim): (usize, &Term)| match dim.as_const() {
        Some(-1) => 1,
        Some(0) => from.get(axis).map_or(0, |&copied| b.value(copied)),
        _ => b.value(dim),
    };
    let sizes: Vec<i64> = list.iter().enumerate().map(size).collect();
    let known: i64 = sizes.iter().product();
    let divides = if inferred == 0 { known == total } else { known > 0 && total > 0 && total % known == 0 };
    list.len() <= MAX_RANK && inferred <= 1 && divides && sizes.iter().all(|&size| size >= 1)
}

/// The shape that a computed operand `list` of Reshape gives, and the laws that make it one.
fn computed_shape(b: &mut Builder, from: &[Term], list: &[Term]) -> Vec<Term> {
    let (mut left, mut asked) = (from.to_vec(), Vec::new());
    let mut shape = Vec::new();
    for (axis, &dim) in list.iter().enumerate() {
        let dim = if dim.as_const() == Some(0) { from[axis] } else { dim };
        shape.push(dim);
        if dim.as_const() == Some(-1) {
            continue;
        }
        b.require(dim.at_least(1));
        // What stands on both sides cancels, and leaves simpler laws.
        match left.iter().position(|&other| other.is(dim)) {
            Some(at) => {
                left.swap_remove(at);
            }
            None => asked.push(dim),
        }
    }
    let (left, asked) = (product(&left), product(&asked));
    match shape.iter().position(|dim| dim.as_const() == Some(-1)) {
        Some(inferred) => {
            b.require(left.divisible_by(asked));
            shape[inferred] = left / asked;
        }
        None => b.require(left.equals(asked)),
    }
    shape
}

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
            3..6 if !shape.is_empty() && shape.len() < MAX_RANK => {
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
            7 if shape.len() < MAX_RANK => {
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
    exceptional: Exceptional::Moved,
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
    exceptional: Exceptional::Moved,
    doc: "Removes axes of size 1: those in the operand `axes`, or all of them.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
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
        output_moved(b, &x, shape);
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
    exceptional: Exceptional::Moved,
    doc: "Inserts axes of size 1.",
    build: |b| {
        let x = b.input(b.dtypes(), 0..=MAX_RANK - 1)?;
        let added = 1 + b.below(2.min(MAX_RANK - x.rank()));
        let rank = x.rank() + added;
        let mut axes = b.permutation(rank);
        axes.truncate(added);
        let written = written_axes(b, &axes, rank);
        b.constant(written);
        let mut dims = x.shape.iter().copied();
        let dim = |axis| if axes.contains(&axis) { None } else { dims.next() };
        let shape: Vec<Term> = (0..rank).map(dim).map(|dim| dim.unwrap_or(Term::constant(1))).collect();
        output_moved(b, &x, shape);
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

/// Whether a tensor with the sizes `from` can now be broadcast with the shape `list`, which has no 0.
fn expands(b: &Builder, from: &[Term], list: &[Term]) -> bool {
    let meets = |(&dim, &entry): (&Term, &Term)| {
        let (dim, entry) = (b.value(dim), b.value(entry));
        dim == entry || dim == 1 || entry == 1
    };
    list.len() <= MAX_RANK
        && list.iter().all(|&entry| b.value(entry) >= 1)
        && from.iter().rev().zip(list.iter().rev()).all(meets)
}

/// ONNX Expand, opset 13: the broadcast goes both ways.
pub const EXPAND: OpSpec = OpSpec {
    code: 0x85,
    name: "Expand",
    exceptional: Exceptional::Moved,
    doc: "Broadcasts to the operand `shape`, which may have 1 where the tensor is larger.",
    build: |b| {
        let x = b.input(b.dtypes(), ANY_RANK)?;
        if let Some(list) = b.computed_list(|b, list| expands(b, &x.shape, list)) {
            let shape = b.broadcast(&[&x.shape, &list]);
            b.output(x.dtype, shape);
            return Ok(());
        }
        let rank = b.below(MAX_RANK + 1);
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
