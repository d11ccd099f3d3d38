//! Interpolation along the axes of a tensor, as Resize defines it.

use super::common::one;
use super::windows::unsupported;
use crate::spec::{Args, Outputs};
use tch::{Kind, TchError, Tensor};

/// The roundoff of the f32 arithmetic in which coordinates and weights are computed, whatever the data's type.
const COORDINATE_ROUNDOFF: f64 = 1.0 / (1 << 24) as f64;

/// The data resized along every axis.
pub fn resize(a: &Args) -> Outputs {
    let mut y = a.x(0).shallow_clone();
    for axis in axes(a)? {
        y = axis.apply(&y, &axis.taps(a)?)?;
    }
    Ok(vec![y])
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
    Ok(all_axes(a)?.into_iter().filter(|axis| axis.scale != 1.0 || axis.input != axis.output).collect())
}

/// All axes that are asked for, also those that keep their size.
fn all_axes(a: &Args) -> Result<Vec<Axis>, TchError> {
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
    let coordinates = a.text("coordinate_transformation_mode", "half_pixel");
    if a.int("antialias", 0) != 0
        || !["half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners", "pytorch_half_pixel"]
            .contains(&coordinates)
    {
        return Err(unsupported("Resize with antialiasing, regions of interest or other coordinates"));
    }
    let axis = |((&axis, &scale), &output): ((&usize, &f64), &i64)| Axis {
        axis: axis as i64,
        input: shape[axis],
        output,
        scale,
    };
    Ok(listed.iter().zip(&scales).zip(&sizes).map(axis).collect())
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
            "align_corners" => {
                // The ONNX node tests take the length before it is rounded down to the output's size.
                let length = self.scale * self.input as f64;
                let rounded = length.round();
                let length = if (length - rounded).abs() < 1e-6 { rounded } else { length };
                if length == 1.0 { 0.0 } else { x * (self.input - 1) as f64 / (length - 1.0) }
            }
            "pytorch_half_pixel" if self.output <= 1 => 0.0,
            "half_pixel_symmetric" => {
                let adjustment = self.output as f64 / (self.scale * self.input as f64);
                self.input as f64 / 2.0 * (1.0 - adjustment) + (x + 0.5) / self.scale - 0.5
            }
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
pub fn resize_error(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    // The cubic weights of an axis that keeps its size are 0 and 1 only but for rounding.
    let axes = if a.text("mode", "nearest") == "cubic" { all_axes(a)? } else { axes(a)? };
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

#[cfg(test)]
mod tests {
    use super::super::resize::RESIZE;
    use super::super::windows::apply;
    use crate::dtype::DType::{F32, I64};
    use crate::spec::{Args, Attribute};
    use std::borrow::Cow;
    use tch::Tensor;

    /// Along an axis that keeps its size a backend's cubic weights are not exactly 0 beside the element itself.
    #[test]
    fn cubic_weights_round_also_where_nothing_moves() {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let x = Tensor::from_slice(&[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).reshape([2, 3]);
        let attributes = [
            (Cow::Borrowed("mode"), text("cubic")),
            (Cow::Borrowed("coordinate_transformation_mode"), text("align_corners")),
        ];
        let args = Args {
            operands: vec![Some(x), None, None, Some(Tensor::from_slice(&[2i64, 5]))],
            operand_dtypes: vec![Some(F32), None, None, Some(I64)],
            attributes: &attributes,
            opset: 18,
            output_dtypes: vec![F32],
            wide: true,
            accumulate: None,
        };
        let exact = (RESIZE.eval)(&args).unwrap();
        let bound = super::resize_error(&args, &[None, None, None, None], &exact).unwrap();
        // The first row is 0 all over, and so is every term of it.
        assert!(f64::try_from(bound[0].select(0, 0).min()).unwrap() > 0.0);
    }

    /// `test_resize_downsample_scales_linear` and `test_resize_upsample_scales_cubic_A_n0p5_exclude_outside` of the
    /// ONNX node tests, the latter's first row.
    #[test]
    fn the_examples_of_onnx() {
        let x: Vec<f32> = (1..=16).map(|i| i as f32).collect();
        let none: (&[f32], &[i64]) = (&[], &[0]);
        let resize = |shape: &[i64], scale: f32, attributes: &[(&'static str, Attribute<i64>)]| {
            let x = &x[..shape.iter().product::<i64>() as usize];
            let y = apply(&RESIZE, &[(x, shape), none, (&[1.0, 1.0, scale, scale], &[4])], attributes, &[F32]);
            Vec::<f32>::try_from(&y[0].reshape([-1])).expect("f32 values")
        };
        let text = |text: &str| Attribute::Text(text.to_owned());
        assert_eq!(resize(&[1, 1, 2, 4], 0.6, &[("mode", text("linear"))]), [2.666_666_5, 4.333_333]);
        let attributes = [
            ("mode", text("cubic")),
            ("cubic_coeff_a", Attribute::Float(-0.5)),
            ("exclude_outside", Attribute::Int(1)),
        ];
        let row = [0.558_823_5, 0.814_942_06, 1.356_982_5, 1.897_058_8];
        for (got, want) in resize(&[1, 1, 4, 4], 2.0, &attributes).iter().zip(row) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }
}
