//! Operators that pick elements by index.

use super::common::one;
use super::movement::{axis_of, set_axis};
use crate::dtype::{ANY, DType, INTS};
use crate::limits::MAX_RANK;
use crate::spec::{Builder, Domain, Exceptional, OpSpec, Operand};
use crate::term::Term;
use tch::{Device, Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&GATHER, &GATHER_ELEMENTS, &GATHER_ND, &ONE_HOT];

/// Indices into an axis of `size` elements, as int64 counted from the front.
pub fn from_front(index: &Tensor, size: i64) -> Result<Tensor, TchError> {
    let index = index.f_to_kind(Kind::Int64)?;
    index.f_where_self(&index.f_ge(0)?, &index.f_add_scalar(size)?)
}

/// `0..size` along `axis` of a tensor of rank `rank`.
pub fn positions(size: i64, axis: usize, rank: usize) -> Result<Tensor, TchError> {
    let mut shape = vec![1; rank];
    shape[axis] = size;
    Tensor::f_arange(size, (Kind::Int64, Device::Cpu))?.f_reshape(shape)
}

/// The type of indices, where ONNX leaves the choice.
pub fn index_dtype(b: &mut Builder) -> DType {
    b.one_of(&[DType::I64, DType::I64, DType::I32])
}

/// The shape of `indices` for GatherElements and ScatterElements: at most that of the data except along `axis`.
pub fn index_shape(b: &mut Builder, data: &Operand, axis: usize) -> Vec<Term> {
    let mut shape = data.shape.clone();
    let smaller = b.axes(data.rank());
    for (i, dim) in shape.iter_mut().enumerate() {
        if i == axis {
            *dim = b.size(data.rank());
        } else if smaller.contains(&i) && b.value(*dim) > 0 {
            let hint = 1 + b.below(b.value(*dim).min(256) as usize) as i64;
            let size = b.size_near(hint);
            b.require(size.at_most(*dim));
            *dim = size;
        }
    }
    shape
}

/// Row-major strides.
fn strides(shape: &[i64]) -> Vec<i64> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

/// The offset into the row-major elements of a tensor of shape `shape` that each tuple in the last axis of `tuples` names.
pub fn offsets(tuples: &Tensor, shape: &[i64]) -> Result<Tensor, TchError> {
    let outer = &tuples.size()[..tuples.dim() - 1];
    let mut offset = Tensor::f_zeros(outer, (Kind::Int64, Device::Cpu))?;
    for (i, stride) in strides(shape).into_iter().enumerate() {
        offset = offset.f_add(&from_front(&tuples.f_select(-1, i as i64)?, shape[i])?.f_mul_scalar(stride)?)?;
    }
    Ok(offset)
}

/// The offset into the row-major elements of `data` that each element of `index` names along `axis`.
pub fn element_offsets(index: &Tensor, data: &[i64], axis: usize) -> Result<Tensor, TchError> {
    let mut offset = from_front(index, data[axis])?.f_mul_scalar(strides(data)[axis])?;
    for (i, stride) in strides(data).into_iter().enumerate().filter(|&(i, _)| i != axis) {
        offset = offset.f_add(&positions(index.size()[i], i, data.len())?.f_mul_scalar(stride)?)?;
    }
    Ok(offset)
}

/// ONNX Gather, opset 13.
pub const GATHER: OpSpec = OpSpec {
    code: 0x98,
    name: "Gather",
    exceptional: Exceptional::Moved,
    doc: "The slices along `axis` that `indices` names.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        if let Some(elements) = x.elements.as_ref().filter(|elements| x.rank() == 1 && !elements.is_empty()) {
            pick_elements(b, x.dtype, elements);
            return Ok(());
        }
        let axis = b.axis(x.rank());
        let dtype = index_dtype(b);
        let rank = b.one_of(&[1, 1, 2, 0]).min(MAX_RANK + 1 - x.rank());
        let index: Vec<Term> = (0..rank).map(|_| b.size(x.rank() + rank)).collect();
        b.require(x.shape[axis].at_least(1));
        let index = b.leaf(dtype, index, Domain::Index(x.shape[axis]));
        set_axis(b, axis, x.rank(), 0);
        b.output(x.dtype, [&x.shape[..axis], &index.shape, &x.shape[axis + 1..]].concat());
        Ok(())
    },
    eval: |a| {
        let shape = a.shape(0);
        let axis = axis_of(a, 0, shape.len()) as usize;
        let index = from_front(a.x(1), shape[axis])?;
        let picked = a.x(0).f_index_select(axis as i64, &index.f_reshape([-1])?)?;
        one(picked.f_reshape([&shape[..axis], &index.size(), &shape[axis + 1..]].concat()))
    },
    ..OpSpec::BASE
};

/// Some of the known `elements` of a list, by constant indices, so that the result is known as well.
fn pick_elements(b: &mut Builder, dtype: DType, elements: &[Term]) {
    let scalar = b.coin();
    let count = if scalar { 1 } else { 1 + b.below(3) };
    let picked: Vec<usize> = (0..count).map(|_| b.axis(elements.len())).collect();
    let written = picked.iter().map(|&index| b.signed_axis(index, elements.len()).into()).collect();
    let shape = if scalar { Vec::new() } else { vec![Term::constant(count as i64)] };
    let index = index_dtype(b);
    b.constant_leaf(index, shape.clone(), written);
    set_axis(b, 0, 1, 0);
    b.output(dtype, shape);
    b.elements(picked.into_iter().map(|index| elements[index]));
}

/// ONNX GatherElements, opset 13.
pub const GATHER_ELEMENTS: OpSpec = OpSpec {
    code: 0x99,
    name: "GatherElements",
    exceptional: Exceptional::Moved,
    doc: "For each index the element at it along `axis` and at its own position along the others.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let axis = b.axis(x.rank());
        let dtype = index_dtype(b);
        let shape = index_shape(b, &x, axis);
        b.require(x.shape[axis].at_least(1));
        let index = b.leaf(dtype, shape, Domain::Index(x.shape[axis]));
        set_axis(b, axis, x.rank(), 0);
        b.output(x.dtype, index.shape);
        Ok(())
    },
    eval: |a| {
        let shape = a.shape(0);
        let axis = axis_of(a, 0, shape.len());
        one(a.x(0).f_gather(axis, &from_front(a.x(1), shape[axis as usize])?, false))
    },
    ..OpSpec::BASE
};

/// The smallest of `dims`: an index below it fits each of them.
pub fn smallest(dims: &[Term]) -> Term {
    dims.iter().copied().reduce(|least, dim| least.min(dim)).unwrap_or(Term::constant(1))
}

/// ONNX GatherND, opset 13.
pub const GATHER_ND: OpSpec = OpSpec {
    code: 0x9a,
    name: "GatherND",
    exceptional: Exceptional::Moved,
    doc: "The slices that index tuples name, after `batch_dims` axes shared with `indices`.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let rank = x.rank();
        let batch = if rank > 1 && b.chance(160) { 1 + b.below(rank.min(3) - 1) } else { 0 };
        let depth = 1 + b.below(rank - batch);
        let inner = &x.shape[batch..batch + depth];
        let outer = b.below(3).min(MAX_RANK - (rank - depth)).min(MAX_RANK - 1 - batch);
        let mut index = x.shape[..batch].to_vec();
        index.extend((0..outer).map(|_| b.size(outer + 1 + batch)).collect::<Vec<_>>());
        let picked = index.clone();
        index.push(Term::constant(depth as i64));
        let bound = smallest(inner);
        b.require(bound.at_least(1));
        b.leaf(DType::I64, index, Domain::Index(bound));
        if batch > 0 || b.coin() {
            b.set_int("batch_dims", batch as i64);
        }
        b.output(x.dtype, [&picked, &x.shape[batch + depth..]].concat());
        Ok(())
    },
    eval: |a| {
        let (shape, index) = (a.shape(0), a.x(1));
        let batch = a.int("batch_dims", 0) as usize;
        let (outer, depth) = (index.size(), index.size()[index.dim() - 1] as usize);
        let outer = &outer[..outer.len() - 1];
        let (indexed, slice) = shape[batch..].split_at(depth);
        let size: i64 = indexed.iter().product();
        let mut offset = offsets(index, indexed)?;
        let batches = strides(&shape[..batch]);
        for (axis, stride) in batches.into_iter().enumerate() {
            offset = offset.f_add(&positions(shape[axis], axis, outer.len())?.f_mul_scalar(stride * size)?)?;
        }
        let rows = shape[..batch].iter().product::<i64>() * size;
        let flat = a.x(0).f_reshape([rows, slice.iter().product()])?;
        one(flat.f_index_select(0, &offset.f_reshape([-1])?)?.f_reshape([outer, slice].concat()))
    },
    ..OpSpec::BASE
};

/// ONNX OneHot, opset 11. Indices and depth may also be floats, cast to int64, which only `eval` knows. ONNX's shape
/// inference refuses indices of rank 0.
pub const ONE_HOT: OpSpec = OpSpec {
    code: 0x9b,
    name: "OneHot",
    exceptional: Exceptional::Moved,
    since: 11,
    doc: "A new axis of size `depth` with `values[1]` at each index and `values[0]` elsewhere.",
    build: |b| {
        let dtype = b.dtype(ANY)?;
        let depth = b.size(4);
        // The text has nothing to say of no classes at all; most refuse them.
        b.require(depth.at_least(1));
        let index = if b.coin() {
            // Indices out of range are legal, and give no `values[1]`.
            b.input(INTS, 1..=MAX_RANK - 1)?
        } else {
            let dtype = if b.chance(40) {
                b.one_of(&[DType::I8, DType::U8, DType::I16, DType::U16, DType::U32, DType::U64])
            } else {
                index_dtype(b)
            };
            let rank = b.one_of(&[1, 2, 3, 1, 2, 4]);
            let shape: Vec<Term> = (0..rank).map(|_| b.size(rank + 1)).collect();
            // Narrow types hold no larger index, and unsigned ones no negative.
            let domain = match dtype {
                unsigned if unsigned.is_unsigned() => Domain::Range(0.0, 6.0),
                DType::I8 => Domain::Range(-6.0, 6.0),
                _ => Domain::Index(depth),
            };
            b.leaf(dtype, shape, domain)
        };
        let depth_dtype = b.one_of(&[DType::I64, DType::I64, DType::I32, DType::I64]);
        match b.coin() {
            true => b.constant_scalar(depth_dtype, depth),
            false => {
                b.constant_leaf(depth_dtype, vec![Term::constant(1)], vec![depth]);
            }
        }
        b.weight(dtype, [Term::constant(2)]);
        let axis = b.axis(index.rank() + 1);
        set_axis(b, axis, index.rank() + 1, -1);
        let mut shape = index.shape;
        shape.insert(axis, depth);
        b.output(dtype, shape);
        Ok(())
    },
    eval: |a| {
        let depth = a.list(1).and_then(|depth| depth.first().copied()).unwrap_or(0);
        let rank = a.rank(0) + 1;
        let axis = axis_of(a, -1, rank);
        let index = from_front(a.x(0), depth)?.f_unsqueeze(axis)?;
        let hot = index.f_eq_tensor(&positions(depth, axis as usize, rank)?)?;
        let value = |i| a.x(2).f_reshape([2])?.f_select(0, i);
        one(value(1)?.f_where_self(&hot, &value(0)?))
    },
    ..OpSpec::BASE
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_either_end() {
        let tuples = Tensor::from_slice(&[0i64, 1, -1, -3]).reshape([2, 2]);
        let offset = offsets(&tuples, &[2, 3]).expect("offsets");
        assert_eq!(Vec::<i64>::try_from(&offset).expect("integers"), [1, 3]);
        let index = Tensor::from_slice(&[1i64, -1, 0, 0]).reshape([2, 2]);
        let offset = element_offsets(&index, &[2, 3], 1).expect("offsets").reshape([-1]);
        assert_eq!(Vec::<i64>::try_from(&offset).expect("integers"), [1, 2, 3, 3]);
    }
}
