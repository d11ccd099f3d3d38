//! Faults of an answer as a whole.

use super::{Answer, Fault, Inject, Subject, pick};
use crate::backend::Failure;
use crate::dtype::DType;
use crate::tensor::TensorData;

const fn fault(name: &'static str, change: fn(&mut Subject) -> Option<Answer>) -> Fault {
    Fault { name, inject: Inject::Answer(change) }
}

pub const TABLE: &[Fault] = &[
    fault("crash", |_| Some(Err(Failure::Crashed("invented".to_owned())))),
    fault("refusal", |_| Some(Err(Failure::Refused("invented".to_owned())))),
    fault("hang", |_| Some(Err(Failure::TimedOut))),
    fault("out-of-memory", |_| Some(Err(Failure::OutOfMemory))),
    fault("missing-output", |s| Some(Ok(s.honest[1..].to_vec()))),
    fault("extra-output", |s| Some(Ok([&s.honest[..], &s.honest[..1]].concat()))),
    fault("swapped-outputs", swapped),
    fault("wrong-element-type", |s| {
        one(s, |honest| {
            let to = if honest.dtype == DType::F32 { DType::F64 } else { DType::F32 };
            TensorData::from_f64(to, &honest.shape, &honest.to_f64())
        })
    }),
    fault("extra-axis", |s| one(s, |it| TensorData { shape: [&it.shape[..], &[1]].concat(), ..it.clone() })),
    fault("lost-axis", |s| {
        let output = s.honest.iter().position(|it| it.shape.contains(&1))?;
        let mut outputs = s.honest.clone();
        let axis = outputs[output].shape.iter().position(|&size| size == 1)?;
        outputs[output].shape.remove(axis);
        Some(Ok(outputs))
    }),
    fault("stale-buffer", stale),
    fault("uninitialised-tail", |s| {
        let mut outputs = s.honest.clone();
        let filled: Vec<usize> = (0..outputs.len()).filter(|&i| outputs[i].bytes.len() >= 2).collect();
        let output = &mut outputs[*pick(&filled, &mut s.stream)?];
        let tail = output.bytes.len() - output.dtype.size_bytes();
        match output.dtype {
            DType::Bool => output.bytes[tail] ^= 1,
            _ => s.stream.fill(&mut output.bytes[tail..]),
        }
        Some(Ok(outputs))
    }),
];

/// The answer with one output changed.
fn one(subject: &mut Subject, change: impl Fn(&TensorData) -> TensorData) -> Option<Answer> {
    let mut outputs = subject.honest.clone();
    let output = subject.stream.below(outputs.len() as u64) as usize;
    outputs[output] = change(&outputs[output]);
    Some(Ok(outputs))
}

fn swapped(subject: &mut Subject) -> Option<Answer> {
    let mut outputs = subject.honest.clone();
    let same = |i: usize, j: usize| outputs[i].dtype == outputs[j].dtype && outputs[i].shape == outputs[j].shape;
    let pairs: Vec<(usize, usize)> =
        (0..outputs.len()).flat_map(|i| (0..i).map(move |j| (i, j))).filter(|&(i, j)| same(i, j)).collect();
    let &(i, j) = pick(&pairs, &mut subject.stream)?;
    outputs.swap(i, j);
    Some(Ok(outputs))
}

/// An output holds what an earlier case has left there; zeros where that was of another type.
fn stale(subject: &mut Subject) -> Option<Answer> {
    let left_over = subject.left_over;
    one(subject, |honest| {
        let fits = |left: &&TensorData| left.dtype == honest.dtype && left.bytes.len() >= honest.bytes.len();
        match left_over.iter().find(fits) {
            Some(left) => TensorData { bytes: left.bytes[..honest.bytes.len()].to_vec(), ..honest.clone() },
            None => TensorData::zeros(honest.dtype, &honest.shape),
        }
    })
}
