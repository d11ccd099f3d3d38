//! Reading tensors at computed positions: each output point is a weighted sum of the elements around its position.

use super::rounding::REACH;
use crate::elements;
use tch::{Kind, TchError, Tensor};

/// What positions outside an axis read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// One spatial axis that is read at positions.
#[derive(Clone, Copy)]
pub struct Axis {
    pub size: i64,
    pub padding: Padding,
    /// Positions are mirrored at the first and last element themselves, not half a step beyond them.
    pub corners: bool,
}

/// For every point one element along an axis.
pub struct Tap {
    /// Within the axis, int64.
    pub index: Tensor,
    /// False where the element counts as 0.
    pub inside: Tensor,
    pub weight: Tensor,
}

impl Axis {
    /// The ends beyond which positions are clamped or mirrored.
    pub fn ends(&self) -> (f64, f64) {
        if self.corners { (0.0, self.size as f64 - 1.0) } else { (-0.5, self.size as f64 - 0.5) }
    }

    /// Positions beyond the ends, brought back by the padding.
    pub fn settle(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (low, high) = self.ends();
        match self.padding {
            Padding::Zeros => Ok(x.shallow_clone()),
            Padding::Border => {
                let beyond = x.f_lt(low)?.f_logical_or(&x.f_gt(high)?)?;
                x.f_clamp(0.0, self.size as f64 - 1.0)?.f_where_self(&beyond, x)
            }
            Padding::Reflection => mirrored(x, low, high),
        }
    }

    /// The elements at whole positions `index`, which are floats.
    pub fn tap(&self, index: &Tensor, weight: Tensor) -> Result<Tap, TchError> {
        let last = self.size as f64 - 1.0;
        let (settled, inside) = match self.padding {
            Padding::Zeros => (index.shallow_clone(), index.f_ge(0.0)?.f_logical_and(&index.f_le(last)?)?),
            Padding::Border => (index.shallow_clone(), index.f_isfinite()?),
            Padding::Reflection => {
                let (low, high) = self.ends();
                (mirrored(index, low, high)?, index.f_isfinite()?)
            }
        };
        let index = settled.f_nan_to_num(0.0, 0.0, 0.0)?.f_clamp(0.0, last)?.f_to_kind(Kind::Int64)?;
        Ok(Tap { index, inside, weight })
    }

    /// The elements from `first` to `last` steps behind the one before each position; all weights are 1.
    pub fn around(&self, x: &Tensor, first: i64, last: i64) -> Result<Vec<Tap>, TchError> {
        let floor = x.f_floor()?;
        (first..=last).map(|step| self.tap(&floor.f_add_scalar(step)?, x.f_ones_like()?)).collect()
    }

    /// The two elements around each position, for linear interpolation.
    pub fn linear(&self, x: &Tensor) -> Result<Vec<Tap>, TchError> {
        let floor = x.f_detach()?.f_floor()?;
        let t = x.f_sub(&floor)?;
        Ok(vec![self.tap(&floor, 1.0 - &t)?, self.tap(&floor.f_add_scalar(1.0)?, t)?])
    }

    /// The four elements around each position, for the cubic convolution with coefficient -0.75.
    pub fn cubic(&self, x: &Tensor) -> Result<Vec<Tap>, TchError> {
        const A: f64 = -0.75;
        let floor = x.f_detach()?.f_floor()?;
        let t = x.f_sub(&floor)?;
        let near = |t: &Tensor| ((t * (A + 2.0) - (A + 3.0)) * t * t) + 1.0;
        let far = |t: Tensor| ((&t * A - 5.0 * A) * &t + 8.0 * A) * &t - 4.0 * A;
        let weights = [far(&t + 1.0), near(&t), near(&(1.0 - &t)), far(2.0 - &t)];
        (-1..).zip(weights).map(|(step, weight)| self.tap(&floor.f_add_scalar(step)?, weight)).collect()
    }

    /// Where positions that may be off by `error` are far enough beyond the ends for `settle` to matter, or may be.
    pub fn may_be_beyond(&self, x: &Tensor, error: &Tensor) -> Result<Tensor, TchError> {
        let (low, high) = self.ends();
        // At a corner element itself clamping changes nothing, half a step behind it much.
        let reach = error * if self.corners { 0.0 } else { REACH };
        x.f_add(&reach)?.f_gt(high)?.f_logical_or(&x.f_sub(&reach)?.f_lt(low)?)
    }
}

/// `x` mirrored at both ends until it lies between them.
fn mirrored(x: &Tensor, low: f64, high: f64) -> Result<Tensor, TchError> {
    if high <= low {
        return x.f_full_like(low.max(0.0));
    }
    let period = 2.0 * (high - low);
    let within = x.f_sub_scalar(low)?.f_remainder(period)?;
    let back: Tensor = period - &within;
    within.f_minimum(&back)?.f_add_scalar(low)
}

/// Calls `visit` with the values `[N, C, P]` and the weights `[N, 1, P]` of every combination of one tap of each axis.
/// `x` is `[N, C, axes...]`, the tensors of the taps are `[N, P]`.
pub fn each(
    x: &Tensor,
    axes: &[Axis],
    taps: &[Vec<Tap>],
    mut visit: impl FnMut(Tensor, Tensor) -> Result<(), TchError>,
) -> Result<(), TchError> {
    let shape = x.size();
    let flat = x.f_reshape([shape[0], shape[1], axes.iter().map(|axis| axis.size).product()])?;
    let count: usize = taps.iter().map(Vec::len).product();
    for combination in 0..count {
        let mut rest = combination;
        let mut joint: Option<(Tensor, Tensor, Tensor)> = None;
        for (axis, taps) in axes.iter().zip(taps) {
            let tap = &taps[rest % taps.len()];
            rest /= taps.len();
            joint = Some(match joint {
                None => (tap.index.shallow_clone(), tap.inside.shallow_clone(), tap.weight.shallow_clone()),
                Some((index, inside, weight)) => (
                    index.f_mul_scalar(axis.size)?.f_add(&tap.index)?,
                    inside.f_logical_and(&tap.inside)?,
                    weight.f_mul(&tap.weight)?,
                ),
            });
        }
        let Some((index, inside, weight)) = joint else { continue };
        let index = index.f_unsqueeze(1)?;
        let [n, _, p] = index.size()[..] else { continue };
        let value = flat.f_gather(-1, &index.f_expand([n, shape[1], p], false)?, false)?;
        let value = value.f_masked_fill(&inside.f_logical_not()?.f_unsqueeze(1)?, 0)?;
        visit(value, weight.f_unsqueeze(1)?)?;
    }
    Ok(())
}

/// The weighted sums `[N, C, P]`.
pub fn weighted(x: &Tensor, axes: &[Axis], taps: &[Vec<Tap>]) -> Result<Tensor, TchError> {
    let mut sum: Option<Tensor> = None;
    each(x, axes, taps, |value, weight| {
        let term = value.f_mul(&weight)?;
        sum = Some(match sum.take() {
            Some(sum) => sum.f_add(&term)?,
            None => term,
        });
        Ok(())
    })?;
    sum.ok_or_else(|| TchError::Torch("an interpolation without taps".to_owned()))
}

/// The largest of the elements `[N, C, P]`, which are not negative; NaN where one of them is.
pub fn largest(x: &Tensor, axes: &[Axis], taps: &[Vec<Tap>]) -> Result<Tensor, TchError> {
    let Some(first) = taps.first().and_then(|taps| taps.first()) else {
        return Err(TchError::Torch("an interpolation without taps".to_owned()));
    };
    let [batch, points] = first.index.size()[..] else {
        return Err(TchError::Torch("taps without a batch".to_owned()));
    };
    let channels = x.size()[1] as usize;
    let size = axes.iter().map(|axis| axis.size as usize).product::<usize>();
    let places = axes.iter().zip(taps).map(|(axis, taps)| places(axis, taps)).collect::<Result<Vec<_>, TchError>>()?;
    let (elements, points) = (elements::read(x)?, points as usize);
    let mut most = vec![0.0f64; batch as usize * channels * points];
    let mut offsets = Vec::new();
    let count = if size == 0 { 0 } else { batch as usize * points };
    for place in 0..count {
        joint_offsets(&places, place, &mut offsets);
        for channel in 0..channels {
            let row = place / points * channels + channel;
            let image = &elements[row * size..][..size];
            let most = &mut most[row * points + place % points];
            for &offset in &offsets {
                let value = image[offset];
                // A NaN wins, and stays.
                if value > *most || value.is_nan() {
                    *most = value;
                }
            }
        }
    }
    Tensor::f_from_slice(&most)?.f_reshape([batch, channels as i64, points as i64])
}

/// One axis, and for each of its taps and each point the index; none where the element counts as 0.
struct Places {
    size: usize,
    taps: Vec<Vec<Option<usize>>>,
}

fn places(axis: &Axis, taps: &[Tap]) -> Result<Places, TchError> {
    let of = |tap: &Tap| {
        let index = elements::integers(&tap.index)?;
        let inside = Vec::<bool>::try_from(&tap.inside.f_flatten(0, -1)?)?;
        let place = |(index, inside): (i64, bool)| inside.then_some(index as usize);
        Ok(index.into_iter().zip(inside).map(place).collect())
    };
    Ok(Places { size: axis.size as usize, taps: taps.iter().map(of).collect::<Result<_, TchError>>()? })
}

/// Where in an image the taps of one point read, in every combination.
fn joint_offsets(places: &[Places], point: usize, offsets: &mut Vec<usize>) {
    offsets.clear();
    offsets.push(0);
    for axis in places {
        let indices = || axis.taps.iter().filter_map(|tap| tap[point]);
        let joint: Vec<usize> =
            offsets.iter().flat_map(|&offset| indices().map(move |index| offset * axis.size + index)).collect();
        *offsets = joint;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn the_largest_is_that_of_every_combination() {
        let x = Tensor::from_slice(&[1.0, 5.0, 2.0, 7.0, 0.5, 3.0, f64::INFINITY, 0.0]).reshape([1, 2, 2, 2]);
        let axis = Axis { size: 2, padding: Padding::Zeros, corners: true };
        let positions = Tensor::from_slice(&[-1.0, 0.0, 1.0]).reshape([1, 3]);
        let taps = |positions: &Tensor| axis.around(positions, 0, 1).unwrap();
        let options = (Kind::Double, Device::Cpu);
        let both = [taps(&positions), taps(&Tensor::zeros([1, 3], options))];
        let most = largest(&x, &[axis, axis], &both).unwrap();
        // The first point reads row 0 alone, the second both rows, the third row 1 alone.
        assert_eq!(elements::read(&most).unwrap(), [5.0, 7.0, 7.0, 3.0, f64::INFINITY, f64::INFINITY]);
    }
}
