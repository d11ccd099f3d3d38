//! Scales and zero points of quantised tensors, as operators declare them.

use super::movement::set_axis;
use crate::dtype::{DType, DTypes};
use crate::limits::MAX_SIZE;
use crate::spec::{Builder, Domain, Operand};
use crate::term::Term;

/// The element types of an 8-bit quantised tensor.
pub const BYTES: DTypes = DTypes::of(&[DType::U8, DType::I8]);
pub const WORDS: DTypes = DTypes::of(&[DType::U16, DType::I16]);
/// The float types that have a place in quantisation, all but f64.
pub const SCALES: DTypes = DTypes::of(&[DType::F32, DType::F16, DType::BF16]);

/// Scales of an element type: one power of two, by which every backend divides exactly, or any others.
pub fn scales(b: &mut Builder, dtype: DType) -> Domain {
    match () {
        () if !dtype.is_float() => Domain::Range(1.0, 4.0),
        () if b.in_exact_lane() || b.coin() => {
            // New floats are odd multiples of 1/128: over the second of these they all lie between two integers.
            let scale = b.one_of(&[1.0 / 32.0, 1.0 / 64.0, 0.5, 1.0 / 16.0, 2.0, 1.0 / 64.0]);
            Domain::Range(scale, scale)
        }
        () => {
            let (low, high) = b.one_of(&[(0.01, 0.05), (0.05, 0.3), (0.01, 1.5)]);
            Domain::Range(low, high)
        }
    }
}

/// Zero points of an element type: 0, some about the middle of the type, or any.
pub fn zero_points(b: &mut Builder, dtype: DType) -> Domain {
    let middle = ((dtype.min() + dtype.max()) / 2.0).ceil();
    match b.below(4) {
        0 => Domain::Range(0.0, 0.0),
        1 => Domain::Range(middle - 10.0, middle + 10.0),
        2 => Domain::Range(middle, middle),
        _ => Domain::Range(dtype.min(), dtype.max()),
    }
}

/// What new quantised leaves hold: all values of their type, or now and then such as other leaves do.
pub fn values(b: &mut Builder) -> fn(DType) -> Domain {
    if b.chance(72) {
        return |_| Domain::Any;
    }
    |dtype| match dtype {
        // Such as the bias of a convolution.
        DType::I32 => Domain::Range(-30_000.0, 30_000.0),
        _ => Domain::Range(dtype.min(), dtype.max()),
    }
}

/// Declares the scale of `x` and, if it has a type, the zero point, with the attributes that say for what they are.
pub fn parameters(b: &mut Builder, x: &Operand, scale: DType, zero_point: Option<DType>) {
    let shape = granularity(b, x);
    let domain = scales(b, scale);
    b.weight_in(scale, shape.clone(), domain);
    if let Some(dtype) = zero_point {
        // "In the case of dequantizing int32, there's no zero point (zero point is supposed to be 0)."
        let domain = if dtype == DType::I32 { Domain::Range(0.0, 0.0) } else { zero_points(b, dtype) };
        b.weight_in(dtype, shape, domain);
    }
}

/// The shape of a scale of `x`: one for all, for each index of an axis, or for each block along one.
fn granularity(b: &mut Builder, x: &Operand) -> Vec<Term> {
    let rank = x.rank();
    let pick = b.below(16);
    let blocks = b.opset() >= 21;
    // Since opset 21 a scale of a one-dimensional x is said to be one for all of it.
    if rank == 0 || pick < 6 || (blocks && rank == 1) {
        if rank > 0 && b.chance(64) {
            let ignored = b.axis(rank);
            set_axis(b, ignored, rank, 1);
        }
        // Strictly one element is a vector for an axis of one index; all backends and the node tests take it for a scalar.
        return if pick % 6 == 5 { vec![Term::constant(1)] } else { Vec::new() };
    }
    let axis = b.axis(rank);
    set_axis(b, axis, rank, 1);
    if !blocks || pick < 11 {
        if blocks && b.chance(40) {
            b.set_int("block_size", 0);
        }
        return vec![x.shape[axis]];
    }
    let size = b.value(x.shape[axis]).clamp(1, 8);
    let hint = 1 + b.below(size as usize) as i64;
    let block = b.free_near(1..=MAX_SIZE, hint);
    b.set_int("block_size", block);
    let mut shape = x.shape.clone();
    shape[axis] = shape[axis].div_ceil(block);
    shape
}
