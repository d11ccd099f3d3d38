//! Exceptional values among valid data.

use crate::input::Stream;
use crate::model::{LeafData, Model};
use crate::spec::{Domain, Role};
use crate::tensor::TensorData;

/// Zeros are among them because a division by one is an infinity, which may come late.
const VALUES: [f64; 6] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::NAN];
/// Elements of one tensor that become exceptional, at most.
const MOST: u64 = 3;

/// Puts up to three exceptional values each into one or two float inputs. Not into weights, which optimisers multiply into
/// each other: `(a + b) * w` with an infinite `w` is another number than `a * w + b * w`, and no standard forbids that. Not
/// into models with control flow, whose conditions might change.
pub fn plant(model: &Model, data: &mut LeafData, stream: &mut Stream) -> bool {
    let free = |index: &usize| {
        let (leaf, data) = (&model.leaves[*index], &data[*index]);
        let input = leaf.role == Role::Input && leaf.content.is_none() && leaf.domain == Domain::Any;
        input && data.dtype.is_float() && !data.is_empty()
    };
    let candidates: Vec<usize> = (0..model.leaves.len()).filter(free).collect();
    if candidates.is_empty() || !model.regions.is_empty() {
        return false;
    }
    for _ in 0..=stream.below(2) {
        let data = &mut data[candidates[stream.below(candidates.len() as u64) as usize]];
        let mut values = data.to_f64();
        for _ in 0..=stream.below(MOST) {
            let at = stream.below(values.len() as u64) as usize;
            values[at] = VALUES[stream.below(VALUES.len() as u64) as usize];
        }
        *data = TensorData::from_f64(data.dtype, &data.shape, &values);
    }
    true
}
