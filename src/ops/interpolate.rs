//! Interpolation along the axes of a tensor, as Resize defines it.

use super::common::one;
use super::coordinates::Line;
use super::filters::{Filter, Taps};
use super::windows::unsupported;
use crate::spec::{Args, Outputs};
use tch::{Kind, TchError, Tensor};

/// The data resized along every axis.
pub fn resize(a: &Args) -> Outputs {
    let mut y = a.x(0).shallow_clone();
    let axes = axes(a)?;
    for axis in &axes {
        y = axis.apply(&y, &axis.taps(a)?)?;
    }
    if axes.iter().any(|axis| axis.region.is_some()) {
        y = y.f_masked_fill(&outside(&y, &axes)?, extrapolation(a)?)?;
    }
    Ok(vec![y])
}

/// Which elements of the output `y` are extrapolated.
fn outside(y: &Tensor, axes: &[Axis]) -> Result<Tensor, TchError> {
    axes.iter().try_fold(y.f_zeros_like()?.f_to_kind(Kind::Bool)?, |mask, axis| {
        let flags: Vec<bool> = (0..axis.output).map(|index| axis.is_outside(axis.line.at(index))).collect();
        fill(&mask, axis, &flags, 1.0)
    })
}

/// `extrapolation_value`, where the elements' type has it.
fn extrapolation(a: &Args) -> Result<f64, TchError> {
    let value = a.float("extrapolation_value", 0.0);
    let dtype = a.output_dtypes[0];
    let fits = dtype.is_float() || (value.fract() == 0.0 && (dtype.min()..=dtype.max()).contains(&value));
    if fits { Ok(value) } else { Err(unsupported("an extrapolation_value that no element can have")) }
}

/// `x` with `value` wherever `flags` is true along the axis.
fn fill(x: &Tensor, axis: &Axis, flags: &[bool], value: f64) -> Result<Tensor, TchError> {
    let mut shape = vec![1; x.dim()];
    shape[axis.axis as usize] = axis.output;
    x.f_masked_fill(&Tensor::from_slice(flags).f_reshape(shape)?, value)
}

/// One resized axis.
struct Axis {
    axis: i64,
    input: i64,
    output: i64,
    scale: f64,
    /// Start and end of the region of interest; the whole axis is from 0 to 1.
    region: Option<(f64, f64)>,
    line: Line,
}

/// The axes along which anything happens.
fn axes(a: &Args) -> Result<Vec<Axis>, TchError> {
    let mut axes = all_axes(a)?;
    axes.retain(|axis| axis.scale != 1.0 || axis.input != axis.output || !axis.is_whole());
    Ok(axes)
}

/// All axes that are asked for, also those that keep their size.
fn all_axes(a: &Args) -> Result<Vec<Axis>, TchError> {
    let shape = a.shape(0);
    let rank = shape.len();
    let listed: Vec<usize> = match a.ints("axes") {
        Some(axes) => axes.iter().map(|&axis| Args::from_front(axis, rank) as usize).collect(),
        None => (0..rank).collect(),
    };
    if listed.iter().any(|&axis| axis >= rank) {
        return Err(unsupported("Resize of axes that there are not"));
    }
    let given = |index: usize| a.opt(index).filter(|operand| operand.numel() > 0);
    let (scales, sizes): (Vec<f64>, Vec<i64>) = match (given(2), given(3)) {
        (Some(scales), _) => {
            let scales = elements(scales)?;
            let sizes = listed.iter().zip(&scales).map(|(&axis, scale)| (shape[axis] as f64 * scale).floor() as i64);
            (scales.clone(), sizes.collect())
        }
        (None, Some(sizes)) => by_policy(a, &listed, &shape, Vec::try_from(&sizes.f_reshape([-1])?)?),
        (None, None) => return Err(unsupported("Resize without scales and sizes")),
    };
    let regions = regions(a, listed.len())?;
    if scales.len() != listed.len() || sizes.len() != listed.len() {
        return Err(unsupported("Resize with operands of a wrong length"));
    }
    let axis = |(i, &axis): (usize, &usize)| {
        let (input, output, scale, region) = (shape[axis], sizes[i], scales[i], regions[i]);
        let line = Line::of(a, input, output, scale, region)?;
        let axis = Axis { axis: axis as i64, input, output, scale, region, line };
        // The text multiplies by the region's length, of which the inference of shapes knows nothing.
        let agreed = given(2).is_none()
            || region.is_none_or(|(start, end)| (input as f64 * (end - start) * scale).floor() as i64 == output);
        if agreed { Ok(axis) } else { Err(unsupported("Resize of regions by scales whose result has two sizes")) }
    };
    listed.iter().enumerate().map(axis).collect()
}

/// The regions of interest of the listed axes; none where coordinates do not depend on them.
fn regions(a: &Args, count: usize) -> Result<Vec<Option<(f64, f64)>>, TchError> {
    if a.text("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize" {
        return Ok(vec![None; count]);
    }
    let roi = a.opt(1).map(elements).transpose()?.unwrap_or_default();
    if roi.len() != 2 * count || roi.iter().any(|bound| !bound.is_finite()) {
        return Err(unsupported("Resize without a region of interest for each axis"));
    }
    Ok((0..count).map(|i| Some((roi[i], roi[count + i]))).collect())
}

fn elements(x: &Tensor) -> Result<Vec<f64>, TchError> {
    Vec::try_from(&x.f_detach()?.f_to_kind(Kind::Double)?.f_reshape([-1])?)
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
    fn is_whole(&self) -> bool {
        self.region.is_none_or(|region| region == (0.0, 1.0))
    }

    /// Elements at the coordinate `x` are extrapolated.
    fn is_outside(&self, x: f64) -> bool {
        self.region.is_some() && !(0.0..=(self.input - 1) as f64).contains(&x)
    }

    /// The rounding of the coordinate decides what the output element is.
    fn is_doubtful(&self, filter: &Filter, index: i64) -> bool {
        let (x, error) = (self.line.at(index), self.line.error(index));
        self.is_outside(x - error) != self.is_outside(x + error) || (!self.is_outside(x) && filter.jumps(x, error))
    }

    fn filter<'a>(&self, a: &Args<'a>) -> Result<Filter<'a>, TchError> {
        Filter::of(a, self.input, self.scale)
    }

    /// The taps of every output element.
    fn taps(&self, a: &Args) -> Result<Vec<Taps>, TchError> {
        let filter = self.filter(a)?;
        Ok((0..self.output).map(|index| filter.taps(self.line.at(index))).collect())
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
}

/// The operand's errors and the rounding of a sum of products, with the weights' magnitudes; and the inexact
/// weights. What rounding of a coordinate may make another element is unbounded.
pub fn resize_error(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    // The cubic weights of an axis that keeps its size are 0 and 1 only but for rounding.
    let axes = if a.text("mode", "nearest") == "cubic" { all_axes(a)? } else { axes(a)? };
    let mut magnitudes = Vec::with_capacity(axes.len());
    let mut doubts = Vec::with_capacity(axes.len());
    let mut terms = 2.0;
    for axis in &axes {
        let filter = axis.filter(a)?;
        let taps = axis.taps(a)?;
        let widest = taps.iter().map(Vec::len).max().unwrap_or(1);
        terms = terms * widest as f64 + 3.0;
        let doubt = |index| filter.doubt(axis.line.at(index), axis.line.error(index));
        doubts.push((0..axis.output).map(doubt).collect::<Vec<Taps>>());
        let magnitude = |taps: &Taps| taps.iter().map(|&(index, weight)| (index, weight.abs())).collect();
        magnitudes.push(taps.iter().map(magnitude).collect::<Vec<Taps>>());
    }
    let through = |x: &Tensor, taps: &[Vec<Taps>]| {
        axes.iter().zip(taps).try_fold(x.shallow_clone(), |y, (axis, taps)| axis.apply(&y, taps))
    };
    let rounding = |magnitude: &Tensor| {
        // Also of what only the doubts of several axes take in together, where the weights themselves are 0.
        let (mut reached, mut doubtful) = (magnitude.shallow_clone(), magnitude.f_zeros_like()?);
        for (i, axis) in axes.iter().enumerate() {
            let in_doubt = axis.apply(&reached.f_add(&doubtful)?, &doubts[i])?;
            doubtful = axis.apply(&doubtful, &magnitudes[i])?.f_add(&in_doubt)?;
            reached = axis.apply(&reached, &magnitudes[i])?;
        }
        // A nearest element is only moved; but f16 and bf16 may not have an extrapolated value.
        let terms = if a.text("mode", "nearest") == "nearest" { 1.0 } else { terms };
        reached.f_add(&doubtful)?.f_mul_scalar(terms * a.output_dtypes[0].unit_roundoff())?.f_add(&doubtful)
    };
    let mut bound = exact[0].f_to_kind(Kind::Double)?.f_zeros_like()?;
    let mut magnitude = a.x(0).f_to_kind(Kind::Double)?.f_abs()?;
    if let Some(error) = &errors[0] {
        bound += through(error, &magnitudes)?;
        magnitude += error;
    }
    if a.text("mode", "nearest") != "nearest" {
        bound += rounding(&magnitude)?;
    }
    if axes.iter().any(|axis| axis.region.is_some()) {
        // What is extrapolated along one axis may still be interpolated along another.
        let value = magnitude.f_full_like(extrapolation(a)?.abs())?;
        bound = rounding(&value)?.f_where_self(&outside(&bound, &axes)?, &bound)?;
    }
    for axis in &axes {
        let filter = axis.filter(a)?;
        let doubtful: Vec<bool> = (0..axis.output).map(|index| axis.is_doubtful(&filter, index)).collect();
        bound = fill(&bound, axis, &doubtful, f64::INFINITY)?;
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
        let attributes = [
            (Cow::Borrowed("mode"), text("cubic")),
            (Cow::Borrowed("coordinate_transformation_mode"), text("align_corners")),
        ];
        let bound = |x: [f64; 6], sizes: [i64; 2]| {
            let x = Tensor::from_slice(&x).reshape([2, 3]);
            let args = Args {
                operands: vec![Some(x), None, None, Some(Tensor::from_slice(&sizes))],
                operand_dtypes: vec![Some(F32), None, None, Some(I64)],
                attributes: &attributes,
                opset: 18,
                output_dtypes: vec![F32],
                wide: true,
                accumulate: None,
            };
            let exact = (RESIZE.eval)(&args).unwrap();
            super::resize_error(&args, &[None, None, None, None], &exact).unwrap().swap_remove(0)
        };
        // The first row is 0 all over, and so is every term of it.
        assert!(f64::try_from(bound([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [2, 5]).select(0, 0).min()).unwrap() > 0.0);
        // What differs from 0 is next to it only across a corner.
        assert!(f64::try_from(bound([0.0, 0.0, 0.0, 0.0, 1.0, 0.0], [2, 3]).get(0).get(0)).unwrap() > 0.0);
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

    /// `test_resize_downsample_sizes_linear_antialias`, `test_resize_downsample_scales_cubic_antialias` and
    /// `test_resize_tf_crop_and_resize_extrapolation_value` of the ONNX node tests.
    #[test]
    fn the_antialiased_and_cropped_examples_of_onnx() {
        let x: Vec<f32> = (1..=16).map(|i| i as f32).collect();
        let text = |text: &str| Attribute::Text(text.to_owned());
        let none: (&[f32], &[i64]) = (&[], &[0]);
        let (image, four): ((&[f32], &[i64]), &[i64]) = ((&x, &[1, 1, 4, 4]), &[4]);
        let near = |operands: &[(&[f32], &[i64])], attributes: &[(&'static str, Attribute<i64>)], wanted: &[f32]| {
            let y = apply(&RESIZE, operands, attributes, &[F32]);
            let y = Vec::<f32>::try_from(&y[0].reshape([-1])).expect("f32 values");
            let near = |(got, wanted): (&f32, &f32)| (got - wanted).abs() < 1e-5;
            assert!(y.len() == wanted.len() && y.iter().zip(wanted).all(near), "{y:?}, not {wanted:?}");
        };
        let scales: (&[f32], &[i64]) = (&[1.0, 1.0, 0.6, 0.6], four);
        let linear = [("mode", text("linear")), ("antialias", Attribute::Int(1))];
        near(&[image, none, scales], &linear, &[2.875, 4.5, 9.375, 11.0]);
        let cubic = [("mode", text("cubic")), ("antialias", Attribute::Int(1))];
        near(&[image, none, scales], &cubic, &[2.518_072, 4.285_886_3, 9.589_329, 11.357_142]);
        let crop = [
            ("mode", text("linear")),
            ("coordinate_transformation_mode", text("tf_crop_and_resize")),
            ("extrapolation_value", Attribute::Float(10.0)),
        ];
        let roi: (&[f32], &[i64]) = (&[0.0, 0.0, 0.4, 0.6, 1.0, 1.0, 1.2, 1.7], &[8]);
        let sizes: (&[f32], &[i64]) = (&[1.0, 1.0, 3.0, 3.0], four);
        let wanted = [7.6, 10.0, 10.0, 12.4, 10.0, 10.0, 10.0, 10.0, 10.0];
        near(&[image, roi, none, sizes], &crop, &wanted);
    }

    /// Rounding decides whether the last element of a region that ends with the input is extrapolated, and which of two
    /// elements is the nearest; where all arithmetic is exact it does not.
    #[test]
    fn what_a_rounded_coordinate_decides_is_not_judged() {
        let text = |text: &str| Attribute::Text(text.to_owned());
        let unbounded = |mode: &str, size: i64, end: f32| {
            let attributes = [
                (Cow::Borrowed("mode"), text(mode)),
                (Cow::Borrowed("coordinate_transformation_mode"), text("tf_crop_and_resize")),
            ];
            let args = Args {
                operands: vec![
                    Some(Tensor::from_slice(&[0.0, 1.0, 2.0, 3.0, 4.0])),
                    Some(Tensor::from_slice(&[0.0, end])),
                    None,
                    Some(Tensor::from_slice(&[size])),
                ],
                operand_dtypes: vec![Some(F32), Some(F32), None, Some(I64)],
                attributes: &attributes,
                opset: 18,
                output_dtypes: vec![F32],
                wide: true,
                accumulate: None,
            };
            let exact = (RESIZE.eval)(&args).unwrap();
            let bound = super::resize_error(&args, &[None, None, None, None], &exact).unwrap();
            Vec::<bool>::try_from(bound[0].isinf()).unwrap()
        };
        assert_eq!(unbounded("linear", 4, 1.0), [false, false, false, true]);
        assert_eq!(unbounded("linear", 9, 1.0), [false; 9]);
        // At 0, 1.5 and 3.
        assert_eq!(unbounded("nearest", 3, 0.75), [false; 3]);
        // At 0, 0.5, 1, 1.5, 2, 2.5 and 3, but for the rounding of the steps.
        assert_eq!(unbounded("nearest", 7, 0.75 - 1e-7), [false, true, false, true, false, true, false]);
    }
}
