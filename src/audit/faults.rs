//! Faults of one result: what a kernel gets wrong.

use super::{Fault, Inject, Place};
use crate::dtype::DType;
use crate::input::Stream;
use crate::reference;
use crate::spec::Numerics;
use crate::tensor::TensorData;

type Change = fn(&Place, &TensorData, &mut Stream) -> Option<TensorData>;

const fn fault(name: &'static str, change: Change) -> Fault {
    Fault { name, inject: Inject::Result(change) }
}

pub const TABLE: &[Fault] = &[
    fault("one-wrong-element", |_, it, stream| {
        let off = |dtype: DType, value: f64| match dtype {
            DType::Bool => 1.0 - value,
            dtype if dtype.is_float() => value * 1.01 + dtype.min_positive(),
            _ => value + 1.0,
        };
        element(it, stream, |value| off(it.dtype, value))
    }),
    fault("not-a-number", |_, it, stream| if it.dtype.is_float() { element(it, stream, |_| f64::NAN) } else { None }),
    fault("sign-lost", |_, it, _| each(it, it.dtype.min() < 0.0, f64::abs)),
    fault("negated", |_, it, _| each(it, it.dtype.min() < 0.0, |value| -value)),
    fault("inverted-bool", |_, it, _| each(it, it.dtype == DType::Bool, |value| 1.0 - value)),
    fault("off-by-one-element", |_, it, _| rows(it, |row, size| row.rotate_left(size))),
    fault("reversed-rows", |_, it, _| {
        rows(it, |row, size| {
            let reversed: Vec<u8> = row.chunks(size).rev().flatten().copied().collect();
            row.copy_from_slice(&reversed);
        })
    }),
    fault("last-column-left-out", |_, it, _| {
        rows(it, |row, size| {
            let last = row.len() - size;
            row[last..].fill(0);
        })
    }),
    fault("lost-broadcast", |_, it, _| {
        rows(it, |row, size| {
            let first = row[..size].to_vec();
            row.chunks_mut(size).for_each(|element| element.copy_from_slice(&first));
        })
    }),
    fault("tail-of-vector-loop", |_, it, _| {
        // The elements after the last whole vector of eight.
        let rest = it.len() % 8;
        let from = (it.len() - rest) * it.dtype.size_bytes();
        let mut changed = it.clone();
        changed.bytes[from..].fill(0);
        (rest > 0).then_some(changed)
    }),
    fault("f16-accumulator", |place, it, _| match place.node.spec.numerics {
        Numerics::Accumulated => narrowed(it, DType::F16),
        _ => None,
    }),
    fault("bf16-results", |_, it, _| narrowed(it, DType::BF16)),
    fault("f32-for-f64", |_, it, _| if it.dtype == DType::F64 { narrowed(it, DType::F32) } else { None }),
    fault("coarse-function", |place, it, _| match place.node.spec.numerics {
        Numerics::Elementwise { ulps, .. } if ulps > 1.0 => each(it, it.dtype.is_float(), |value| value * 1.001),
        _ => None,
    }),
    fault("integers-as-i8", |_, it, _| {
        each(it, matches!(it.dtype, DType::I32 | DType::I64), |value| f64::from(value as i64 as i8))
    }),
    fault("integers-through-f16", |_, it, _| {
        each(it, matches!(it.dtype, DType::I32 | DType::I64), |value| f64::from(half::f16::from_f64(value)))
    }),
    fault("truncated-for-floor", |place, it, _| rounded(place, it, "Floor", f64::trunc)),
    fault("half-away-from-zero", |place, it, _| rounded(place, it, "Round", f64::round)),
    fault("floor-for-ceil", |place, it, _| rounded(place, it, "Ceil", f64::floor)),
    fault("nan-as-zero", |_, it, _| exceptional(it, f64::is_nan, |_| 0.0)),
    fault("nan-as-infinity", |_, it, _| exceptional(it, f64::is_nan, |_| f64::INFINITY)),
    fault("infinity-as-nan", |_, it, _| exceptional(it, f64::is_infinite, |_| f64::NAN)),
    fault("infinity-as-largest-number", |_, it, _| {
        exceptional(it, f64::is_infinite, |value| value.signum() * it.dtype.max())
    }),
    fault("sign-of-infinity-lost", |_, it, _| exceptional(it, |value| value == f64::NEG_INFINITY, |_| f64::INFINITY)),
    fault("nan-in-the-next-lane", |_, it, _| {
        let values = it.to_f64();
        let nan = values.iter().position(|value| value.is_nan())?;
        let next = (nan + 1) % values.len();
        let spread = |(index, value): (usize, f64)| if index == next { f64::NAN } else { value };
        let values: Vec<f64> = values.into_iter().enumerate().map(spread).collect();
        Some(TensorData::from_f64(it.dtype, &it.shape, &values))
    }),
];

fn element(it: &TensorData, stream: &mut Stream, change: impl Fn(f64) -> f64) -> Option<TensorData> {
    let mut values = it.to_f64();
    let at = stream.below(values.len().max(1) as u64) as usize;
    let value = values.get_mut(at)?;
    *value = change(*value);
    Some(TensorData::from_f64(it.dtype, &it.shape, &values))
}

fn each(it: &TensorData, suits: bool, change: impl Fn(f64) -> f64) -> Option<TensorData> {
    let changed =
        || TensorData::from_f64(it.dtype, &it.shape, &it.to_f64().into_iter().map(change).collect::<Vec<_>>());
    (suits && !it.is_empty()).then(changed)
}

/// Changes exceptional values of one kind; a tensor without one is right.
fn exceptional(it: &TensorData, kind: fn(f64) -> bool, change: impl Fn(f64) -> f64) -> Option<TensorData> {
    let has = it.dtype.is_float() && it.to_f64().into_iter().any(kind);
    each(it, has, |value| if kind(value) { change(value) } else { value })
}

/// Changes every row along the last axis; `change` gets the bytes of a row and the size of an element.
fn rows(it: &TensorData, change: impl Fn(&mut [u8], usize)) -> Option<TensorData> {
    let size = it.dtype.size_bytes();
    let length = *it.shape.last().filter(|&&length| length > 1)?;
    let mut changed = it.clone();
    changed.bytes.chunks_exact_mut(length * size).for_each(|row| change(row, size));
    Some(changed)
}

/// Rounded to a narrower type on the way.
fn narrowed(it: &TensorData, to: DType) -> Option<TensorData> {
    let narrower = it.dtype.is_float() && it.dtype.size_bytes() > to.size_bytes();
    let through = || TensorData::from_f64(to, &it.shape, &it.to_f64()).to_f64();
    (narrower && !it.is_empty()).then(|| TensorData::from_f64(it.dtype, &it.shape, &through()))
}

/// The result of a rounding operator by another rule.
fn rounded(place: &Place, it: &TensorData, operator: &str, rule: fn(f64) -> f64) -> Option<TensorData> {
    let operand = place.node.operands.first().copied().flatten().filter(|_| place.node.spec.name == operator)?;
    let values = reference::to_data(place.values[operand].as_ref()?, it.dtype).to_f64();
    Some(TensorData::from_f64(it.dtype, &it.shape, &values.into_iter().map(rule).collect::<Vec<_>>()))
}
