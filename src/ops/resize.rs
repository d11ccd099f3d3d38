//! Resize of opset 18.

use super::common::one;
use super::windows::{free_up_to, unsupported};
use crate::dtype::{ANY, FLOATS};
use crate::spec::{Args, Builder, Numerics, OpSpec, Operand, Outputs, Skip};
use crate::term::Term;
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&RESIZE];

pub const RESIZE: OpSpec = OpSpec {
    code: 0x5b,
    name: "Resize",
    since: 18,
    dtypes: ANY,
    doc: "Nearest, linear or cubic interpolation to given sizes or by given scales, without antialiasing.",
    numerics: Numerics::Custom(resize_error),
    build,
    eval: |a| {
        let mut y = a.x(0).shallow_clone();
        for axis in axes(a)? {
            y = axis.apply(&y, &axis.taps(a)?)?;
        }
        Ok(vec![y])
    },
    ..OpSpec::BASE
};

/// The roundoff of the f32 arithmetic in which coordinates and weights are computed, whatever the data's type.
const COORDINATE_ROUNDOFF: f64 = 1.0 / (1 << 24) as f64;

/// How `build` maps output coordinates to input coordinates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coordinates {
    HalfPixel,
    Asymmetric,
    AlignCorners,
    PytorchHalfPixel,
}

/// What `build` chose: enough to tell on which sizes it is certain which element is nearest.
#[derive(Clone, Copy)]
struct Choice {
    coordinates: Coordinates,
    nearest: bool,
    /// `nearest_mode` is one of the two that round; else it is `floor` or `ceil`.
    rounds: bool,
    cubic: bool,
}

fn build(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 1..=5)?;
    let rank = x.rank();
    let mode =
        if FLOATS.contains(x.dtype) && rank == 4 { b.one_of(&["nearest", "linear", "cubic"]) } else { "nearest" };
    if mode != "nearest" || b.coin() {
        b.set_text("mode", mode);
    }
    let choice = declare_choice(b, mode);
    let resized = resized_axes(b, rank, mode == "nearest");
    for &dim in &x.shape {
        b.require(dim.at_least(1));
    }
    // Otherwise all axes are listed.
    let listed: Vec<usize> = if b.chance(80) { resized.clone() } else { (0..rank).collect() };
    if listed.len() < rank {
        let axes: Vec<i64> = listed.iter().map(|&axis| b.signed_axis(axis, rank)).collect();
        b.set_ints("axes", axes);
    }
    b.absent();
    let output = match scales(b, choice, resized.len()) {
        Some(scales) => by_scales(b, &x, &resized, &listed, &scales, choice),
        None => by_sizes(b, &x, &resized, &listed, choice),
    };
    let taps: i64 = match mode {
        "nearest" => 1,
        "linear" => 2,
        _ => 4,
    };
    b.accumulate(taps.pow(resized.len() as u32));
    b.output(x.dtype, output);
    Ok(())
}

fn declare_choice(b: &mut Builder, mode: &str) -> Choice {
    let nearest = mode == "nearest";
    let transformations = [
        (Coordinates::HalfPixel, "half_pixel"),
        (Coordinates::Asymmetric, "asymmetric"),
        (Coordinates::AlignCorners, "align_corners"),
        (Coordinates::PytorchHalfPixel, "pytorch_half_pixel"),
    ];
    let (coordinates, name) = b.one_of(&transformations);
    if coordinates != Coordinates::HalfPixel || b.coin() {
        b.set_text("coordinate_transformation_mode", name);
    }
    let mut rounds = true;
    if nearest && !b.chance(48) {
        let name = b.one_of(&["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]);
        rounds = name.starts_with("round");
        b.set_text("nearest_mode", name);
    }
    if mode == "cubic" {
        if !b.chance(96) {
            let a = b.one_of(&[-0.5, -0.75, -0.3]);
            b.set_float("cubic_coeff_a", a);
        }
        let exclude = b.coin();
        if exclude || b.coin() {
            b.set_int("exclude_outside", i64::from(exclude));
        }
    }
    Choice { coordinates, nearest, rounds, cubic: mode == "cubic" }
}

/// Images are resized along their last two axes; nearest elements can be taken along any.
fn resized_axes(b: &mut Builder, rank: usize, nearest: bool) -> Vec<usize> {
    if nearest && b.chance(64) {
        let axes = b.axes(rank);
        if !axes.is_empty() {
            return axes;
        }
    }
    (rank.saturating_sub(2)..rank).collect()
}

/// Scales, in quarters, for `count` axes; none when the output's sizes are to be given.
fn scales(b: &mut Builder, choice: Choice, count: usize) -> Option<Vec<i64>> {
    // The ratio of aligned corners is no property of the scale, so only sizes can make it a safe one.
    let free = !choice.nearest || (choice.coordinates == Coordinates::AlignCorners && choice.rounds);
    if b.coin() || (choice.nearest && choice.coordinates == Coordinates::AlignCorners && !choice.rounds) {
        return None;
    }
    let safe: Vec<i64> =
        [8, 12, 16, 6, 2, 1, 4, 3, 20, 5].into_iter().filter(|&s| free || is_certain(s, choice)).collect();
    Some((0..count).map(|_| b.one_of(&safe)).collect())
}

/// Whether no output coordinate falls between two candidates for the nearest element, where the precision of the
/// coordinate would decide, or else all arithmetic on coordinates is exact. The scale is `quarters / 4`.
fn is_certain(quarters: i64, choice: Choice) -> bool {
    let common = [4, 2, 1].into_iter().find(|divisor| quarters % divisor == 0).unwrap_or(1);
    let (p, q) = (quarters / common, 4 / common);
    if p & (p - 1) == 0 {
        return true;
    }
    match (choice.coordinates, choice.rounds) {
        (Coordinates::Asymmetric, true) => p % 2 == 1,
        (Coordinates::Asymmetric, false) | (Coordinates::AlignCorners, _) => false,
        (_, true) => q % 2 == 1,
        (_, false) => p * q % 2 == 0,
    }
}

/// Emits `scales`. The sizes must be multiples: with others it depends on the reader whether the scale that
/// coordinates are divided by is the given one or that of the rounded sizes.
fn by_scales(
    b: &mut Builder,
    x: &Operand,
    resized: &[usize],
    listed: &[usize],
    scales: &[i64],
    choice: Choice,
) -> Vec<Term> {
    let mut quarters = vec![4; x.rank()];
    let mut output = x.shape.clone();
    for (&axis, &scale) in resized.iter().zip(scales) {
        quarters[axis] = scale;
        if scale != 4 {
            b.require((output[axis] * scale).divisible_by(4));
            output[axis] = (output[axis] * scale) / 4;
        }
        match choice.coordinates {
            Coordinates::AlignCorners if choice.nearest && scale != 4 => {
                b.require((output[axis] % 2).equals(0));
            }
            Coordinates::AlignCorners => b.require(output[axis].at_least(2)),
            Coordinates::PytorchHalfPixel if choice.cubic => b.require(output[axis].at_least(2)),
            _ => {}
        }
    }
    b.constant_fractions(listed.iter().map(|&axis| quarters[axis]), 4);
    output
}

/// Emits `sizes`, with laws that keep each nearest element certain.
fn by_sizes(b: &mut Builder, x: &Operand, resized: &[usize], listed: &[usize], choice: Choice) -> Vec<Term> {
    let mut output = x.shape.clone();
    for &axis in resized {
        let size = x.shape[axis];
        let now = b.value(size);
        output[axis] = match (choice.nearest, choice.coordinates, choice.rounds) {
            (true, Coordinates::Asymmetric, false) => {
                // Coprime sizes: the coordinate of no element but the first is an integer.
                let times = free_up_to(b, 3, 3);
                let more = if b.coin() { 1 } else { -1 };
                size * times + more
            }
            (true, Coordinates::AlignCorners, false) => {
                // Twice as dense: coordinates are multiples of one half.
                b.require(size.at_least(2));
                size * 2 - 1
            }
            _ => {
                let pick = b.below(8) as i64;
                let hint = [now + 1, now * 2, now * 2 + 1, now - 1, now / 2, now * 3 + 2, now + 3, now][pick as usize];
                b.free_near(1..=256, hint)
            }
        };
        let out = output[axis];
        b.require(out.at_least(1));
        if choice.coordinates == Coordinates::AlignCorners || choice.cubic {
            b.require(out.at_least(2));
        }
        if choice.nearest {
            match (choice.coordinates, choice.rounds) {
                (Coordinates::Asymmetric, true) => b.require((out % 2).equals(1)),
                (Coordinates::AlignCorners, true) => b.require((out % 2).equals(0)),
                (Coordinates::Asymmetric | Coordinates::AlignCorners, false) => {}
                (_, true) => b.require((size % 2).equals(1)),
                (_, false) => b.require(((size + out) % 2).equals(1)),
            }
        }
    }
    b.absent();
    b.constant(listed.iter().map(|&axis| output[axis]));
    output
}

/// One resized axis.
struct Axis {
    axis: i64,
    input: i64,
    output: i64,
    scale: f64,
}

/// One output element of an axis as a weighted sum: indices, which may lie outside, and weights.
type Taps = Vec<(i64, f64)>;

/// The axes along which anything happens.
fn axes(a: &Args) -> Result<Vec<Axis>, TchError> {
    let shape = a.shape(0);
    let rank = shape.len();
    let listed: Vec<usize> = match a.ints("axes") {
        Some(axes) => axes.iter().map(|&axis| Args::from_front(axis, rank) as usize).collect(),
        None => (0..rank).collect(),
    };
    let given = |index: usize| a.opt(index).filter(|operand| operand.numel() > 0);
    let (scales, sizes): (Vec<f64>, Vec<i64>) = match (given(2), given(3)) {
        (Some(scales), _) => {
            let scales: Vec<f64> = Vec::try_from(&scales.f_detach()?.f_to_kind(Kind::Double)?.f_reshape([-1])?)?;
            let sizes = listed.iter().zip(&scales).map(|(&axis, scale)| (shape[axis] as f64 * scale).floor() as i64);
            (scales.clone(), sizes.collect())
        }
        (None, Some(sizes)) => by_policy(a, &listed, &shape, Vec::try_from(&sizes.f_reshape([-1])?)?),
        (None, None) => return Err(unsupported("Resize without scales and sizes")),
    };
    if scales.len() != listed.len() || listed.iter().any(|&axis| axis >= rank) {
        return Err(unsupported("Resize of other axes than there are"));
    }
    if a.int("antialias", 0) != 0 || a.text("coordinate_transformation_mode", "") == "tf_crop_and_resize" {
        return Err(unsupported("Resize with antialiasing or regions of interest"));
    }
    let axis = |((&axis, &scale), &output): ((&usize, &f64), &i64)| Axis {
        axis: axis as i64,
        input: shape[axis],
        output,
        scale,
    };
    let all = listed.iter().zip(&scales).zip(&sizes).map(axis);
    Ok(all.filter(|axis| axis.scale != 1.0 || axis.input != axis.output).collect())
}

/// Scales and sizes that `keep_aspect_ratio_policy` makes of the wanted sizes.
fn by_policy(a: &Args, listed: &[usize], shape: &[i64], wanted: Vec<i64>) -> (Vec<f64>, Vec<i64>) {
    let scales: Vec<f64> = listed.iter().zip(&wanted).map(|(&axis, &size)| size as f64 / shape[axis] as f64).collect();
    let common = match a.text("keep_aspect_ratio_policy", "stretch") {
        "not_larger" => scales.iter().copied().fold(f64::INFINITY, f64::min),
        "not_smaller" => scales.iter().copied().fold(0.0, f64::max),
        _ => return (scales, wanted),
    };
    let sizes = listed.iter().map(|&axis| (common * shape[axis] as f64 + 0.5).floor() as i64).collect();
    (vec![common; listed.len()], sizes)
}

impl Axis {
    /// The input coordinate of output element `index`.
    fn coordinate(&self, a: &Args, index: i64) -> f64 {
        let x = index as f64;
        match a.text("coordinate_transformation_mode", "half_pixel") {
            "asymmetric" => x / self.scale,
            "align_corners" if self.output == 1 => 0.0,
            "align_corners" => x * (self.input - 1) as f64 / (self.output - 1) as f64,
            "pytorch_half_pixel" if self.output <= 1 => 0.0,
            _ => (x + 0.5) / self.scale - 0.5,
        }
    }

    /// The taps of every output element.
    fn taps(&self, a: &Args) -> Result<Vec<Taps>, TchError> {
        let mode = a.text("mode", "nearest");
        if mode != "nearest" && a.output_dtypes.iter().any(|dtype| !dtype.is_float()) {
            return Err(unsupported("interpolation of integers"));
        }
        Ok((0..self.output).map(|index| self.taps_at(a, mode, self.coordinate(a, index))).collect())
    }

    fn taps_at(&self, a: &Args, mode: &str, x: f64) -> Taps {
        let floor = x.floor();
        let (first, t) = (floor as i64, x - floor);
        let mut taps = match mode {
            "linear" => vec![(first, 1.0 - t), (first + 1, t)],
            "cubic" => {
                let weights = cubic_weights(t, a.float("cubic_coeff_a", -0.75));
                weights.into_iter().zip(first - 1..).map(|(weight, index)| (index, weight)).collect()
            }
            _ => {
                let index = match a.text("nearest_mode", "round_prefer_floor") {
                    "round_prefer_ceil" => (x + 0.5).floor(),
                    "floor" => floor,
                    "ceil" => x.ceil(),
                    _ => (x - 0.5).ceil(),
                };
                vec![(index as i64, 1.0)]
            }
        };
        if mode == "cubic" && a.int("exclude_outside", 0) != 0 {
            taps.retain(|(index, _)| (0..self.input).contains(index));
            let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
            taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        taps
    }

    /// The weighted sums of `x` along this axis.
    fn apply(&self, x: &Tensor, taps: &[Taps]) -> Result<Tensor, TchError> {
        if taps.iter().all(|taps| matches!(taps[..], [(_, weight)] if weight == 1.0)) {
            let indices: Vec<i64> = taps.iter().map(|taps| self.inside(taps[0].0)).collect();
            return x.f_index_select(self.axis, &Tensor::from_slice(&indices));
        }
        let mut matrix = vec![0.0f64; (self.input * self.output) as usize];
        for (column, taps) in taps.iter().enumerate() {
            for &(index, weight) in taps {
                matrix[(self.inside(index) * self.output) as usize + column] += weight;
            }
        }
        let matrix = Tensor::from_slice(&matrix).f_reshape([self.input, self.output])?.f_to_kind(x.kind())?;
        x.f_transpose(self.axis, -1)?.f_matmul(&matrix)?.f_transpose(self.axis, -1)
    }

    fn inside(&self, index: i64) -> i64 {
        index.clamp(0, self.input - 1)
    }

    /// By how much each tap's weight may be off when coordinates are computed in f32, with the neighbours that a
    /// coordinate next to an integer may take in.
    fn doubt(&self, a: &Args, index: i64, taps: &Taps) -> Taps {
        let coordinate = 8.0 * COORDINATE_ROUNDOFF * (self.coordinate(a, index).abs() + 1.0);
        let weight = match a.text("mode", "nearest") {
            "linear" => coordinate + 4.0 * COORDINATE_ROUNDOFF,
            "cubic" => {
                let a = a.float("cubic_coeff_a", -0.75).abs();
                (2.0 + 2.0 * a) * coordinate + 64.0 * (1.0 + a) * COORDINATE_ROUNDOFF
            }
            _ => return Vec::new(),
        };
        let (Some(first), Some(last)) = (taps.first(), taps.last()) else { return Vec::new() };
        (first.0 - 1..=last.0 + 1).map(|index| (index, weight)).collect()
    }
}

/// The four weights of the cubic convolution at a distance `t` behind the second element.
fn cubic_weights(t: f64, a: f64) -> [f64; 4] {
    let near = |t: f64| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// The operand's errors and the rounding of a sum of products, with the weights' magnitudes; and the inexact
/// weights, one axis at a time.
fn resize_error(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let axes = axes(a)?;
    let mut magnitudes = Vec::with_capacity(axes.len());
    let mut doubts = Vec::with_capacity(axes.len());
    let mut terms = 2.0;
    for axis in &axes {
        let taps = axis.taps(a)?;
        let widest = taps.iter().map(Vec::len).max().unwrap_or(1);
        terms = terms * widest as f64 + 3.0;
        doubts.push(taps.iter().zip(0..).map(|(taps, index)| axis.doubt(a, index, taps)).collect::<Vec<Taps>>());
        let magnitude = |taps: &Taps| taps.iter().map(|&(index, weight)| (index, weight.abs())).collect();
        magnitudes.push(taps.iter().map(magnitude).collect::<Vec<Taps>>());
    }
    let through = |x: &Tensor, doubtful: Option<usize>| {
        axes.iter().enumerate().try_fold(x.shallow_clone(), |y, (i, axis)| {
            axis.apply(&y, if doubtful == Some(i) { &doubts[i] } else { &magnitudes[i] })
        })
    };
    let mut bound = exact[0].f_to_kind(Kind::Double)?.f_zeros_like()?;
    let mut magnitude = a.x(0).f_to_kind(Kind::Double)?.f_abs()?;
    if let Some(error) = &errors[0] {
        bound += through(error, None)?;
        magnitude += error;
    }
    if a.text("mode", "nearest") != "nearest" {
        bound += through(&magnitude, None)? * (terms * a.output_dtypes[0].unit_roundoff());
        for i in 0..axes.len() {
            bound += through(&magnitude, Some(i))?;
        }
    }
    one(Ok(bound))
}
