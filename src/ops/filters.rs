//! The weights with which one output element of Resize samples an axis.

use super::windows::unsupported;
use crate::spec::Args;
use tch::TchError;

/// The roundoff of the f32 arithmetic in which coordinates and weights are computed, whatever the data's type.
pub const COORDINATE_ROUNDOFF: f64 = 1.0 / (1 << 24) as f64;

/// A weighted sum: indices, which may lie outside and then stand for the nearest element inside, and weights.
pub type Taps = Vec<(i64, f64)>;

/// The filter of one axis.
pub struct Filter<'a> {
    shape: Shape<'a>,
    /// What distances are multiplied by before the filter sees them: less than 1 where antialiasing stretches it.
    stretch: f64,
    /// Weights are divided by their sum.
    normalised: bool,
    /// Elements outside count for nothing.
    excludes: bool,
    /// The elements of the axis.
    size: i64,
}

enum Shape<'a> {
    /// With `nearest_mode`.
    Nearest(&'a str),
    Linear,
    /// With the coefficient `a` of the cubic convolution.
    Cubic(f64),
}

impl<'a> Filter<'a> {
    /// The filter for an axis of `size` elements that grows by the factor `scale`.
    pub fn of(a: &Args<'a>, size: i64, scale: f64) -> Result<Filter<'a>, TchError> {
        let shape = match a.text("mode", "nearest") {
            "linear" => Shape::Linear,
            "cubic" => Shape::Cubic(a.float("cubic_coeff_a", -0.75)),
            _ => Shape::Nearest(a.text("nearest_mode", "round_prefer_floor")),
        };
        let nearest = matches!(shape, Shape::Nearest(_));
        if !nearest && a.output_dtypes.iter().any(|dtype| !dtype.is_float()) {
            return Err(unsupported("interpolation of integers"));
        }
        let antialias = !nearest && a.int("antialias", 0) != 0;
        let excludes = !nearest && a.int("exclude_outside", 0) != 0;
        let stretch = if antialias { scale.min(1.0) } else { 1.0 };
        Ok(Filter { shape, stretch, normalised: antialias || excludes, excludes, size })
    }

    /// The elements that an output element at the input coordinate `x` is made of.
    pub fn taps(&self, x: f64) -> Taps {
        let mut taps = match self.shape {
            Shape::Nearest(_) => return vec![(self.nearest(x), 1.0)],
            _ => self.raw(x),
        };
        if self.normalised {
            let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
            taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        taps
    }

    /// By how much the weights around `x` may be off when all but the data is f32 and `x` may be off by `error`. Also the
    /// weights of neighbours that are then taken in; none where the element is the same whatever the rounding.
    pub fn doubt(&self, x: f64, error: f64) -> Taps {
        let weight = match self.shape {
            Shape::Nearest(_) => return Vec::new(),
            Shape::Linear => error * self.stretch + 8.0 * COORDINATE_ROUNDOFF,
            Shape::Cubic(a) => {
                let a = a.abs();
                (2.0 + 2.0 * a) * error * self.stretch + 64.0 * (1.0 + a) * COORDINATE_ROUNDOFF
            }
        };
        let window = self.window(x);
        let (first, last) = (window.start() - 1, window.end() + 1);
        let inside = |index: &i64| !self.excludes || (0..self.size).contains(index);
        if !self.normalised {
            return (first..=last).map(|index| (index, weight)).collect();
        }
        let raw = self.raw(x);
        let total: f64 = raw.iter().map(|(_, weight)| weight.abs()).sum();
        let sum = raw.iter().map(|(_, weight)| weight).sum::<f64>().abs();
        let count = (last - first + 1) as f64;
        let change = count * (weight + COORDINATE_ROUNDOFF * total);
        let largest = raw.iter().map(|(_, weight)| weight.abs()).fold(0.0, f64::max) / sum;
        let weight = if change < sum {
            (weight + largest * change) / (sum - change) + 2.0 * COORDINATE_ROUNDOFF * largest
        } else {
            f64::INFINITY
        };
        (first..=last).filter(inside).map(|index| (index, weight)).collect()
    }

    /// Whether another element may be the nearest when `x` may be off by `error`.
    pub fn jumps(&self, x: f64, error: f64) -> bool {
        let inside = |x: f64| self.nearest(x).clamp(0, self.size - 1);
        matches!(self.shape, Shape::Nearest(_)) && inside(x - error) != inside(x + error)
    }

    /// The weights that are not 0, before they are normalised.
    fn raw(&self, x: f64) -> Taps {
        let weight = |index: i64| self.weight((index as f64 - x).abs() * self.stretch);
        let all = || self.window(x).map(|index| (index, weight(index))).filter(|(_, weight)| *weight != 0.0);
        let inside: Taps = all().filter(|(index, _)| (0..self.size).contains(index)).collect();
        // Where no element lies inside, the text gives no weights to divide by.
        if self.excludes && !inside.is_empty() { inside } else { all().collect() }
    }

    /// The indices whose distance from `x` the filter reaches.
    fn window(&self, x: f64) -> std::ops::RangeInclusive<i64> {
        let reach = match self.shape {
            Shape::Nearest(_) => 0.5,
            Shape::Linear => 1.0,
            Shape::Cubic(_) => 2.0,
        } / self.stretch;
        (x - reach).ceil() as i64..=(x + reach).floor() as i64
    }

    /// The filter at a distance.
    fn weight(&self, t: f64) -> f64 {
        match self.shape {
            Shape::Nearest(_) => 1.0,
            Shape::Linear => (1.0 - t).max(0.0),
            Shape::Cubic(a) if t <= 1.0 => ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
            Shape::Cubic(a) if t < 2.0 => ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a,
            Shape::Cubic(_) => 0.0,
        }
    }

    fn nearest(&self, x: f64) -> i64 {
        let index = match self.shape {
            Shape::Nearest("round_prefer_ceil") => (x + 0.5).floor(),
            Shape::Nearest("floor") => x.floor(),
            Shape::Nearest("ceil") => x.ceil(),
            _ => (x - 0.5).ceil(),
        };
        index as i64
    }
}
