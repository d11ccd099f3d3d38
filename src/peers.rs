//! Backends judged by each other, where there is no reference.

use crate::backend::Failure;
use crate::dtype::DType;
use crate::harness::Harness;
use crate::model::{LeafData, Model};
use crate::oracle::Outcome;
use crate::tensor::TensorData;

/// The answers of all backends and levels to a model of which only the inputs are known.
pub fn answers(harness: &mut Harness, onnx: &[u8], inputs: &Model, data: &LeafData) -> Vec<Outcome> {
    let integers = data.iter().filter(|data| data.dtype == DType::I64).flat_map(TensorData::to_f64);
    let largest = integers.fold(0.0, |largest: f64, value| largest.max(value.abs())) as i64;
    // The model of the inputs alone has no operator that a support table could name.
    harness.run(inputs, onnx, data, largest)
}

/// Whether an outcome is wrong whatever the model means: a crash where others answer, or a refusal at one level of what
/// runs at another. Where nobody answers, the model or its inputs may be at fault.
pub fn breaks(outcome: &Outcome, all: &[Outcome]) -> bool {
    match &outcome.result {
        Err(Failure::Crashed(_) | Failure::TimedOut) => all.iter().any(|other| other.result.is_ok()),
        Err(Failure::Refused(_)) => all.iter().any(|other| other.backend == outcome.backend && other.result.is_ok()),
        _ => false,
    }
}

/// Indices of answers that agree with the first of their group; the largest group first.
pub fn groups(outcomes: &[Outcome]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        let Ok(outputs) = &outcome.result else { continue };
        match groups.iter_mut().find(|group| difference(answer_of(outcomes, group), outputs).is_none()) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

/// The answer that stands for a group.
pub fn answer_of<'a>(outcomes: &'a [Outcome], group: &[usize]) -> &'a [TensorData] {
    outcomes[group[0]].result.as_deref().unwrap_or(&[])
}

/// How far apart two floats may be: relative, and absolute. Integers and bools must be equal.
fn tolerance(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (2e-2, 1e-3),
        DType::F32 => (1e-3, 1e-5),
        DType::F64 => (1e-7, 1e-10),
        _ => (0.0, 0.0),
    }
}

/// The first difference in words.
pub fn difference(expected: &[TensorData], got: &[TensorData]) -> Option<String> {
    if expected.len() != got.len() {
        return Some(format!("{} outputs, group A has {}", got.len(), expected.len()));
    }
    expected.iter().zip(got).enumerate().find_map(|(output, (expected, got))| {
        if (expected.dtype, &expected.shape) != (got.dtype, &got.shape) {
            let ty = |data: &TensorData| format!("{}{:?}", data.dtype, data.shape);
            return Some(format!("output {output} is {}, group A has {}", ty(got), ty(expected)));
        }
        if expected.bytes == got.bytes {
            return None;
        }
        let (relative, absolute) = tolerance(got.dtype);
        let (wanted, values) = (expected.to_f64(), got.to_f64());
        let far = |&index: &usize| {
            let (x, y) = (wanted[index], values[index]);
            let near = (x - y).abs() <= absolute + relative * x.abs().max(y.abs());
            // Equal infinities have no difference that is a number, unequal ones an infinite tolerance.
            let same = x == y || x.is_nan() && y.is_nan();
            !same && !(near && x.is_finite() && y.is_finite())
        };
        // Integers beyond 2^53 are told apart by their bits alone.
        let size = got.dtype.size_bytes();
        let bits = |&index: &usize| expected.bytes[index * size..][..size] != got.bytes[index * size..][..size];
        let differs = |index: &usize| if got.dtype.is_float() { far(index) } else { bits(index) };
        let mut wrong = (0..values.len()).filter(differs);
        let first = wrong.next()?;
        let (total, more) = (values.len(), wrong.count());
        let (got, wanted) = (got.element_text(first), expected.element_text(first));
        Some(format!("output {output}, element {first} is {got}, group A has {wanted}; {} of {total} differ", more + 1))
    })
}
