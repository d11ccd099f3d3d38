//! Smaller sizes: leaves are sliced, and everything that follows from their sizes is computed anew.

use super::draft::Form;
use super::simplify::{names_type, resample};
use super::{Search, Trust};
use crate::case::Case;
use crate::spec::{Attribute, Domain};
use crate::tensor::TensorData;

/// Sizes that are tried one by one; above, they are halved first.
const STEPS_BELOW: usize = 9;
/// Pairs of axes beyond which coincidences of sizes are not looked at.
const MOST_PAIRS: usize = 24;

/// Which elements along an axis are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

/// What is kept, and whether other data take its place.
const CHOICES: [(End, Option<u64>); 3] = [(End::First, None), (End::Last, None), (End::First, Some(1))];

/// An axis of a leaf.
type Axis = (usize, usize);

impl Search<'_> {
    pub fn least_sizes(&mut self, mut case: Case) -> Case {
        let mut next = sizes(&case);
        while let Some(size) = next.pop() {
            for smaller in smaller(size) {
                // Sizes that are equal are most often so for a reason, and attributes and constants may name them.
                let done = [false, true].into_iter().any(|named| {
                    self.edit(&mut case, Trust::Confirm, &|form, _| {
                        let axes = axes_of(form, size);
                        resize(form, &axes, smaller, End::First) | (named && rename(form, size, smaller))
                    })
                });
                if done {
                    break;
                }
            }
        }
        for leaf in 0..case.model.leaves.len() {
            for axis in 0..case.data[leaf].shape.len() {
                self.least_axes(&mut case, &[(leaf, axis)]);
            }
        }
        for pair in pairs(&case) {
            self.least_axes(&mut case, &pair);
        }
        case
    }

    fn least_axes(&mut self, case: &mut Case, axes: &[Axis]) {
        loop {
            let size = case.data[axes[0].0].shape[axes[0].1];
            let done = smaller(size).into_iter().any(|smaller| {
                CHOICES.iter().any(|&(end, seed)| {
                    self.edit(case, Trust::Confirm, &|form, _| {
                        resize(form, axes, smaller, end) && seed.is_none_or(|seed| resample(form, seed))
                    })
                })
            });
            if !done {
                return;
            }
        }
    }
}

/// Different sizes above 1, ascending.
fn sizes(case: &Case) -> Vec<usize> {
    let mut sizes: Vec<usize> = case.data.iter().flat_map(|data| data.shape.iter().copied()).collect();
    sizes.retain(|&size| size > 1);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// The sizes to try in place of one.
fn smaller(size: usize) -> Vec<usize> {
    let mut choices =
        if size > STEPS_BELOW { vec![1, 2, 3, size / 4, size / 2, size - 1] } else { (1..size).collect() };
    choices.retain(|&choice| choice > 0 && choice < size);
    choices.sort_unstable();
    choices.dedup();
    choices
}

fn axes_of(form: &Form, size: usize) -> Vec<Axis> {
    let of = |(leaf, data): (usize, &TensorData)| {
        let fits: Vec<Axis> =
            (0..data.shape.len()).filter(|&axis| data.shape[axis] == size).map(|axis| (leaf, axis)).collect();
        fits
    };
    form.data.iter().enumerate().flat_map(of).collect()
}

/// Pairs of axes of different leaves that have the same size.
fn pairs(case: &Case) -> Vec<[Axis; 2]> {
    let mut pairs = Vec::new();
    for (one, first) in case.data.iter().enumerate() {
        for (other, second) in case.data.iter().enumerate().skip(one + 1) {
            for (i, &size) in first.shape.iter().enumerate() {
                let alike = (0..second.shape.len()).filter(|&j| size > 1 && second.shape[j] == size);
                pairs.extend(alike.map(|j| [(one, i), (other, j)]));
            }
        }
    }
    pairs.truncate(MOST_PAIRS);
    pairs
}

/// Cuts leaves off along axes. Lengths and indices stay within what is left.
fn resize(form: &mut Form, axes: &[Axis], size: usize, end: End) -> bool {
    for &(leaf, axis) in axes {
        let data = &form.data[leaf];
        if data.shape[axis] <= size {
            return false;
        }
        let cut = part_along(data, axis, size, end);
        let leaf_of = &mut form.model.leaves[leaf];
        if leaf_of.content.is_some() {
            leaf_of.content = Some(cut.clone());
        }
        form.data[leaf] = cut;
    }
    let most = size as f64;
    for (leaf, data) in form.model.leaves.iter_mut().zip(&mut form.data) {
        let limit = match &mut leaf.domain {
            Domain::Index(_) => most - 1.0,
            Domain::Between(_, _) => most,
            _ => continue,
        };
        let values: Vec<f64> = data.to_f64().into_iter().map(|value| value.clamp(-limit - 1.0, limit)).collect();
        if leaf.content.is_none() {
            *data = TensorData::from_f64(data.dtype, &data.shape, &values);
        }
    }
    !axes.is_empty()
}

/// Attributes and constants that are equal to a size name the smaller one.
fn rename(form: &mut Form, from: usize, to: usize) -> bool {
    let (from, to) = (from as i64, to as i64);
    let mut renamed = false;
    let mut change = |value: &mut i64| {
        if *value == from {
            *value = to;
            renamed = true;
        }
    };
    let attributes = form.model.nodes.iter_mut().flat_map(|node| &mut node.attributes);
    for (_, attribute) in attributes.filter(|(name, _)| !names_type(name)) {
        match attribute {
            Attribute::Int(value) => change(value),
            Attribute::Ints(values) => values.iter_mut().for_each(&mut change),
            _ => {}
        }
    }
    for (leaf, data) in form.model.leaves.iter_mut().zip(&mut form.data) {
        if leaf.content.is_none() || !data.dtype.is_int() {
            continue;
        }
        let mut values: Vec<i64> = data.to_f64().into_iter().map(|value| value as i64).collect();
        values.iter_mut().for_each(&mut change);
        let values: Vec<f64> = values.into_iter().map(|value| value as f64).collect();
        *data = TensorData::from_f64(data.dtype, &data.shape, &values);
        leaf.content = Some(data.clone());
    }
    renamed
}

/// The first or last elements along an axis.
fn part_along(data: &TensorData, axis: usize, size: usize, end: End) -> TensorData {
    let inner: usize = data.shape[axis + 1..].iter().product::<usize>() * data.dtype.size_bytes();
    let row = data.shape[axis] * inner;
    let from = if end == End::Last { row - size * inner } else { 0 };
    let mut shape = data.shape.clone();
    shape[axis] = size;
    let bytes = match row {
        0 => Vec::new(),
        row => data.bytes.chunks_exact(row).flat_map(|row| row[from..][..size * inner].iter().copied()).collect(),
    };
    TensorData { dtype: data.dtype, shape, bytes }
}
