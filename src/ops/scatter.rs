//! Operators that write updates at indices.

use super::common::one;
use super::indexing::{element_offsets, index_dtype, index_shape, offsets, positions, smallest};
use super::movement::{axis_of, set_axis};
use super::rounding::{defined, error_of, underflow, unless_overflow};
use crate::dtype::{DType, NUMBERS};
use crate::limits::MAX_RANK;
use crate::spec::{Args, Builder, Domain, Exceptional, Numerics, OpSpec, Operand, Outputs, Skip};
use crate::term::Term;
use tch::{Device, Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&SCATTER_ELEMENTS, &SCATTER_ND, &TENSOR_SCATTER];

/// The attribute `reduction`, of opset 16; arithmetic is not defined for bool.
fn reduction(b: &mut Builder, dtype: DType) -> &'static str {
    if b.opset() < 16 {
        return "none";
    }
    let reduction = match NUMBERS.contains(dtype) {
        true if b.opset() < 18 => b.one_of(&["none", "add", "mul", "none"]),
        true => b.one_of(&["none", "add", "max", "none", "mul", "add", "min", "none"]),
        false => "none",
    };
    if reduction != "none" || b.coin() {
        b.set_text("reduction", reduction);
    }
    reduction
}

/// ONNX ScatterElements.
pub const SCATTER_ELEMENTS: OpSpec = OpSpec {
    code: 0xa0,
    name: "ScatterElements",
    since: 11,
    doc: "The data with each update written, or combined, at its index along `axis` and its own position elsewhere.",
    numerics: Numerics::Custom(|a, errors, _| scatter_errors(a, errors, &elements(a)?)),
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let axis = b.axis(x.rank());
        let dtype = index_dtype(b);
        let reduction = reduction(b, x.dtype);
        b.require(x.shape[axis].at_least(1));
        let shape = match reduction {
            "none" if b.coin() => distinct_elements(b, &x, axis, dtype),
            _ => {
                let mut shape = index_shape(b, &x, axis);
                if reduction == "none" {
                    // One index along the axis: no two updates can meet.
                    shape[axis] = Term::constant(1);
                }
                b.leaf(dtype, shape, Domain::Index(x.shape[axis])).shape
            }
        };
        b.input_like(x.dtype, shape);
        set_axis(b, axis, x.rank(), 0);
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| scatter(a, a.x(0), &elements(a)?, a.x(2)),
    can_overflow: true,
    ..OpSpec::BASE
};

fn elements(a: &Args) -> Result<Tensor, TchError> {
    element_offsets(a.x(1), &a.shape(0), axis_of(a, 0, a.rank(0)) as usize)
}

/// `count` different indices into a dimension of at least `size` elements, some counted from the end.
fn distinct(b: &mut Builder, dim: Term, size: i64, first: usize, count: i64) -> Vec<Term> {
    let signs = b.below(256);
    let index = |i: i64| (first as i64 + i) % size;
    (0..count)
        .map(|i| if signs >> (i % 8) & 1 == 1 { Term::constant(index(i)) - dim } else { index(i).into() })
        .collect()
}

/// Constant indices that do not collide; returns their shape.
fn distinct_elements(b: &mut Builder, data: &Operand, axis: usize, dtype: DType) -> Vec<Term> {
    let size = b.value(data.shape[axis]).max(1);
    b.require(data.shape[axis].at_least(size));
    let mut lengths = Vec::new();
    for (i, &dim) in data.shape.iter().enumerate() {
        let most = if i == axis { 4 } else { 2 };
        let length = 1 + b.below(b.value(dim).clamp(1, most) as usize) as i64;
        b.require(dim.at_least(length));
        lengths.push(length);
    }
    let first = b.below(size.min(256) as usize);
    let inner: i64 = lengths[axis + 1..].iter().product();
    let line = distinct(b, data.shape[axis], size, first, lengths[axis]);
    let count: i64 = lengths.iter().product();
    let content = (0..count).map(|i| line[(i / inner % lengths[axis]) as usize]).collect();
    let shape: Vec<Term> = lengths.into_iter().map(Term::constant).collect();
    b.constant_leaf(dtype, shape.clone(), content);
    shape
}

/// ONNX ScatterND.
pub const SCATTER_ND: OpSpec = OpSpec {
    code: 0xa1,
    name: "ScatterND",
    since: 11,
    doc: "The data with each update slice written, or combined, where an index tuple says.",
    numerics: Numerics::Custom(|a, errors, _| scatter_errors(a, errors, &slices(a)?)),
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let depth = 1 + b.below(x.rank());
        let reduction = reduction(b, x.dtype);
        let inner = &x.shape[..depth];
        let bound = smallest(inner);
        b.require(bound.at_least(1));
        let tuple = Term::constant(depth as i64);
        let outer: Vec<Term> = match reduction {
            "none" if b.coin() => distinct_tuples(b, inner),
            _ => {
                let rank = b.below(3).min(MAX_RANK - (x.rank() - depth)).min(MAX_RANK - 1);
                let size = |b: &mut Builder| if reduction == "none" { Term::constant(1) } else { b.size(rank + 1) };
                let outer: Vec<Term> = (0..rank).map(|_| size(b)).collect();
                b.leaf(DType::I64, [&outer[..], &[tuple]].concat(), Domain::Index(bound));
                outer
            }
        };
        b.input_like(x.dtype, [&outer, &x.shape[depth..]].concat());
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| scatter(a, a.x(0), &slices(a)?, a.x(2)),
    can_overflow: true,
    ..OpSpec::BASE
};

/// Constant index tuples that do not collide; returns the shape of the tensor of tuples.
fn distinct_tuples(b: &mut Builder, dims: &[Term]) -> Vec<Term> {
    let size = b.value(dims[0]).max(1);
    let count = 1 + b.below(size.min(5) as usize) as i64;
    let mut columns = Vec::new();
    for (i, &dim) in dims.iter().enumerate() {
        let size = b.value(dim).max(1);
        b.require(dim.at_least(size));
        let first = b.below(size.min(256) as usize);
        // The first component alone tells the tuples apart.
        let column =
            if i == 0 { distinct(b, dim, size, first, count) } else { vec![(first as i64).into(); count as usize] };
        columns.push(column);
    }
    let content = (0..count as usize).flat_map(|row| columns.iter().map(move |column| column[row])).collect();
    b.constant_leaf(DType::I64, vec![Term::constant(count), Term::constant(dims.len() as i64)], content);
    vec![Term::constant(count)]
}

fn slices(a: &Args) -> Result<Tensor, TchError> {
    let (shape, index) = (a.shape(0), a.x(1));
    let depth = index.size()[index.dim() - 1] as usize;
    let slice: i64 = shape[depth..].iter().product();
    let within = Tensor::f_arange(slice, (Kind::Int64, Device::Cpu))?;
    offsets(index, &shape[..depth])?.f_unsqueeze(-1)?.f_mul_scalar(slice)?.f_add(&within)
}

/// ONNX TensorScatter, opset 24.
pub const TENSOR_SCATTER: OpSpec = OpSpec {
    code: 0xd9,
    name: "TensorScatter",
    exceptional: Exceptional::Moved,
    since: 24,
    doc: "A cache with an update written along one axis, from an index of its own for each batch item on.",
    build: build_tensor_scatter,
    eval: |a| {
        let (past, update) = (a.x(0), a.x(1));
        let axis = axis_of(a, -2, past.dim());
        let length = past.size()[axis as usize];
        let mut place = positions(update.size()[axis as usize], axis as usize, past.dim())?;
        if let Some(start) = a.opt(2) {
            let mut shape = vec![1; past.dim()];
            shape[0] = -1;
            place = place.f_add(&start.f_to_kind(Kind::Int64)?.f_reshape(shape)?)?;
        }
        if a.text("mode", "linear") == "circular" {
            place = place.f_remainder(length)?;
        }
        one(past.f_scatter(axis, &place.f_expand(update.size(), false)?, update))
    },
    ..OpSpec::BASE
};

fn build_tensor_scatter(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 2..=MAX_RANK)?;
    // Not the batch's.
    let axis = 1 + b.below(x.rank() - 1);
    let circular = b.mostly();
    let length = x.shape[axis];
    let size = b.value(length).max(1);
    let hint = 1 + b.below(size.min(256) as usize) as i64;
    let hint = if b.coin() { hint.min(2) } else { hint };
    let written = b.size_near(hint);
    b.require(length.at_least(1));
    b.require(written.at_most(length));
    let mut shape = x.shape.clone();
    shape[axis] = written;
    b.input_like(x.dtype, shape);
    if b.chance(192) {
        // Indices are data, so that their bound must be a number.
        let room = (size - hint).max(0);
        if !circular {
            b.require((length - written).at_least(room));
        }
        let most = if circular { size + 2 } else { room };
        b.leaf(DType::I64, [x.shape[0]], Domain::Range(0.0, most as f64));
    }
    if circular || b.coin() {
        b.set_text("mode", if circular { "circular" } else { "linear" });
    }
    set_axis(b, axis, x.rank(), -2);
    b.output(x.dtype, x.shape);
    Ok(())
}

/// Combines `updates` into `data` at offsets into its elements, by the attribute `reduction`.
fn scatter(a: &Args, data: &Tensor, offsets: &Tensor, updates: &Tensor) -> Outputs {
    one(combine(data, offsets, updates, a.text("reduction", "none")))
}

fn combine(data: &Tensor, offsets: &Tensor, updates: &Tensor, reduction: &str) -> Result<Tensor, TchError> {
    let flat = |x: &Tensor| x.f_reshape([-1]);
    let (from, to, new) = (flat(data)?, flat(offsets)?, flat(updates)?);
    let combined = match reduction {
        "none" => from.f_scatter(0, &to, &new)?,
        "add" => from.f_internal_scatter_reduce(0, &to, &new, "sum", true)?,
        "mul" => from.f_internal_scatter_reduce(0, &to, &new, "prod", true)?,
        "max" => from.f_internal_scatter_reduce(0, &to, &new, "amax", true)?,
        _ => from.f_internal_scatter_reduce(0, &to, &new, "amin", true)?,
    };
    combined.f_reshape(data.size())
}

fn scatter_errors(a: &Args, errors: &[Option<Tensor>], offsets: &Tensor) -> Outputs {
    let dtype = a.output_dtypes[0];
    let (data, updates) = (a.x(0), a.x(2));
    let (data_error, update_error) = (error_of(errors, 0, data)?, error_of(errors, 2, updates)?);
    let apply = |data: &Tensor, updates: &Tensor, reduction: &str| combine(data, offsets, updates, reduction);
    let reduction = a.text("reduction", "none");
    let moved = match reduction {
        "none" => return one(apply(&data_error, &update_error, "none")),
        // The largest error also bounds that of the least.
        "max" | "min" => return one(apply(&data_error, &update_error, "max")),
        _ => apply(&data.f_abs()?, &updates.f_abs()?, reduction)?,
    };
    let (data, updates) = (data.f_abs()? + data_error, updates.f_abs()? + update_error);
    let largest = apply(&data, &updates, reduction)?;
    let roundings = apply(&data.f_zeros_like()?, &updates.f_ones_like()?, "add")?;
    let mut error = &largest - moved + &largest * (&roundings * (2.0 * dtype.unit_roundoff()));
    let mut reached = largest;
    if reduction == "mul" {
        // Factors below 1 may come last.
        reached = apply(&data.f_clamp_min(1.0)?, &updates.f_clamp_min(1.0)?, "mul")?;
        error += roundings * &reached * underflow(dtype);
    }
    one(defined(unless_overflow(error, &reached, dtype)?))
}
