//! Pooling over regions of images.

use super::common::one;
use super::movement::refuse;
use super::rounding::{REACH, defined, error_of, gamma};
use crate::dtype::{DType, FLOATS};
use crate::spec::{Args, Builder, Domain, Numerics, OpSpec, Operand, Outputs, Skip};
use crate::term::Term;
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&MAX_ROI_POOL, &ROI_ALIGN];

/// The corners of regions are written in units of one over this.
const FRACTION: i64 = 16;

/// ONNX MaxRoiPool. The text leaves the rule to the paper on Fast R-CNN: corners are rounded and belong to the region,
/// which has at least one element; bins reach from a rounded down to a rounded up position; empty ones give 0.
pub const MAX_ROI_POOL: OpSpec = OpSpec {
    code: 0xe5,
    name: "MaxRoiPool",
    since: 1,
    dtypes: FLOATS,
    doc: "The maxima of the bins of regions of images.",
    numerics: Numerics::Custom(|a, errors, _| {
        let (error, rois) = (error_of(errors, 0, a.x(0))?, error_of(errors, 1, a.x(1))?);
        one(max_roi_pool(a, &error, Some(&rois)))
    }),
    build: |b| {
        let x = b.input(b.dtypes(), 4..=4)?;
        let [n, _, h, w] = x.nchw();
        [n, h, w].into_iter().for_each(|dim| b.require(dim.at_least(1)));
        let scale = declare_scale(b);
        let regions = regions(b, &x, scale);
        let images = b.value(n).max(1);
        b.require(n.at_least(images));
        let mut content = Vec::new();
        for corners in &regions {
            content.push(b.below(images.min(256) as usize) as i64 * FRACTION);
            content.extend(corners);
        }
        b.constant_fractions_leaf(x.dtype, &[regions.len() as i64, 5], &content, FRACTION);
        let pooled = [b.one_of(&[2, 1, 4, 3, 2, 5]), b.one_of(&[2, 1, 4, 3, 2, 7])];
        b.set_ints("pooled_shape", pooled);
        b.output(x.dtype, [Term::constant(regions.len() as i64), x.shape[1], pooled[0].into(), pooled[1].into()]);
        Ok(())
    },
    eval: |a| one(max_roi_pool(a, a.x(0), None)),
    ..OpSpec::BASE
};

/// The attribute `spatial_scale`.
fn declare_scale(b: &mut Builder) -> f64 {
    let scale = b.one_of(&[1.0, 0.5, 0.25, 1.0, 2.0]);
    if scale != 1.0 || b.coin() {
        b.set_float("spatial_scale", scale);
    }
    scale.into()
}

/// One to four regions that mostly lie in the image, before scaling: x1, y1, x2, y2 in units of one over [`FRACTION`].
fn regions(b: &mut Builder, x: &Operand, scale: f64) -> Vec<[i64; 4]> {
    let count = 1 + b.below(4);
    let [_, _, h, w] = x.nchw().map(|dim| b.value(dim).max(1));
    let range = |b: &mut Builder, size: i64| {
        let units = ((size * FRACTION) as f64 / scale) as i64;
        // Not at a half, where roundings differ.
        let at = |pick: usize| (pick as i64 - 16) * units / 224 / 2 * 2 + 1;
        let (first, second) = (at(b.below(256)), at(b.below(256)));
        if first > second && !b.chance(24) { (second, first) } else { (first, second) }
    };
    (0..count)
        .map(|_| {
            let ((x1, x2), (y1, y2)) = (range(b, w), range(b, h));
            [x1, y1, x2, y2]
        })
        .collect()
}

/// The elements `start..end` of each bin of one axis, and whether that is certain.
fn bins(first: f64, second: f64, count: i64, size: i64, doubt: f64) -> Vec<(i64, i64, bool)> {
    let rounded = [first.round(), second.round()];
    let near_half = |x: f64| (x - x.floor() - 0.5).abs() <= doubt;
    let certain = !near_half(first) && !near_half(second);
    let length = (rounded[1] - rounded[0] + 1.0).max(1.0);
    let step = length / count as f64;
    // Products with an inexact step may pass an integer.
    let exact = (step * 1024.0).fract() == 0.0;
    let whole = |position: f64| (position - position.round()).abs() < 1e-3;
    let bin = |i: i64| {
        let (low, high) = (i as f64 * step, (i + 1) as f64 * step);
        let certain = certain && (exact || !(i > 0 && whole(low)) && !whole(high));
        let clamp = |position: f64| (position + rounded[0]).clamp(0.0, size as f64) as i64;
        (clamp(low.floor()), clamp(high.ceil()), certain)
    };
    (0..count).map(bin).collect()
}

/// The maxima of `x`; with the errors of the regions, infinite where it is in doubt which elements a bin has.
fn max_roi_pool(a: &Args, x: &Tensor, errors: Option<&Tensor>) -> Result<Tensor, TchError> {
    let rois = Rois::of(a.x(1), errors, a.float("spatial_scale", 1.0))?;
    let (Some([height, width]), &[images, channels, h, w]) = (a.ints("pooled_shape"), x.size().as_slice()) else {
        return refuse("MaxRoiPool without a pooled shape of an image");
    };
    let u = a.dtype(1).unit_roundoff().max(DType::F32.unit_roundoff());
    let mut all = Vec::new();
    for (index, region) in rois.regions.iter().enumerate() {
        let [image, x1, y1, x2, y2] = region[..] else {
            return refuse("MaxRoiPool of regions without five numbers");
        };
        if !(0.0..images as f64).contains(&image) {
            return refuse("a region of an image that does not exist");
        }
        let doubt = rois.errors[index].iter().copied().fold(0.0, f64::max) * REACH
            + (x1.abs() + x2.abs() + y1.abs() + y2.abs()) * 8.0 * u;
        let plane = x.f_select(0, image as i64)?;
        for (top, bottom, sure) in bins(y1, y2, *height, h, doubt) {
            for (left, right, certain) in bins(x1, x2, *width, w, doubt) {
                let mut y = match top < bottom && left < right {
                    true => {
                        plane.f_narrow(1, top, bottom - top)?.f_narrow(2, left, right - left)?.f_amax([1, 2], false)?
                    }
                    false => plane.f_new_zeros([channels], (x.kind(), x.device()))?,
                };
                if errors.is_some() && !(sure && certain) {
                    y = y.f_full_like(f64::INFINITY)?;
                }
                all.push(y);
            }
        }
    }
    let shape = [rois.regions.len() as i64, *height, *width, channels];
    if all.is_empty() {
        return x.f_new_zeros([0, channels, *height, *width], (x.kind(), x.device()));
    }
    Tensor::f_stack(&all, 0)?.f_reshape(shape)?.f_permute([0, 3, 1, 2])
}

/// The rows of an operand of regions, whose corners are scaled; and the errors of those.
struct Rois {
    regions: Vec<Vec<f64>>,
    errors: Vec<Vec<f64>>,
}

impl Rois {
    /// The last four numbers of a row are corners.
    fn of(rois: &Tensor, errors: Option<&Tensor>, scale: f64) -> Result<Rois, TchError> {
        let width = rois.size().get(1).copied().unwrap_or(0).max(1) as usize;
        let rows = |x: &Tensor| -> Result<Vec<Vec<f64>>, TchError> {
            let flat: Vec<f64> = Vec::try_from(&x.f_detach()?.f_to_kind(Kind::Double)?.f_reshape([-1])?)?;
            let scaled = |row: &[f64]| {
                let corner = |(i, x): (usize, &f64)| if i + 4 < width { *x } else { x * scale };
                row.iter().enumerate().map(corner).collect()
            };
            Ok(flat.chunks(width).map(scaled).collect())
        };
        let regions = rows(rois)?;
        let errors = match errors {
            Some(errors) => rows(errors)?,
            None => regions.iter().map(|row| vec![0.0; row.len()]).collect(),
        };
        Ok(Rois { regions, errors })
    }
}

/// ONNX RoiAlign. Up to opset 15 the corners are not shifted by half an element.
pub const ROI_ALIGN: OpSpec = OpSpec {
    code: 0xe6,
    name: "RoiAlign",
    since: 10,
    dtypes: FLOATS,
    doc: "The means or maxima of interpolated points in the bins of regions of images.",
    numerics: Numerics::Custom(align_errors),
    build: build_align,
    eval: |a| {
        let align = Align::of(a, None)?;
        let kind = a.x(0).kind();
        align.collect(a, |region, plane| {
            let matrix = |matrix: &Tensor| matrix.f_to_kind(kind);
            if align.largest {
                return region.maxima(
                    &plane.f_matmul(&matrix(&region.x.points)?.f_transpose(0, 1)?)?,
                    &matrix(&region.y.points)?,
                );
            }
            matrix(&region.y.mean()?)?.f_matmul(&plane)?.f_matmul(&matrix(&region.x.mean()?)?.f_transpose(0, 1)?)
        })
    },
    ..OpSpec::BASE
};

fn build_align(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 4..=4)?;
    let [n, _, h, w] = x.nchw();
    [n, h, w].into_iter().for_each(|dim| b.require(dim.at_least(1)));
    let scale = declare_scale(b);
    let ratio = b.one_of(&[2, 1, 3, 0, 0, 2]);
    if ratio != 0 || b.coin() {
        b.set_int("sampling_ratio", ratio);
    }
    let count = if b.coin() {
        let regions = regions(b, &x, scale);
        b.constant_fractions_leaf(x.dtype, &[regions.len() as i64, 4], &regions.concat(), FRACTION);
        Term::constant(regions.len() as i64)
    } else {
        // Corners in any order: a region of negative size.
        let (largest, count) = (b.value(h).max(b.value(w)) as f64 / scale, b.free(1..=4));
        b.leaf(x.dtype, [count, Term::constant(4)], Domain::Range(-0.5, largest.min(64.0)));
        count
    };
    let images = b.value(n).max(1);
    b.require(n.at_least(images));
    b.leaf(DType::I64, [count], Domain::Range(0.0, (images - 1) as f64));
    let size = ["output_height", "output_width"].map(|name| {
        let size = b.one_of(&[2, 1, 3, 4, 5]);
        if size != 1 || b.coin() {
            b.set_int(name, size);
        }
        Term::constant(size)
    });
    let largest = b.chance(132);
    if largest || b.coin() {
        b.set_text("mode", if largest { "max" } else { "avg" });
    }
    if b.opset() >= 16 && b.chance(208) {
        let mode = b.one_of(&["output_half_pixel", "half_pixel", "output_half_pixel"]);
        b.set_text("coordinate_transformation_mode", mode);
    }
    b.accumulate(4 * 16);
    b.output(x.dtype, [count, x.shape[1], size[0], size[1]]);
    Ok(())
}

/// One application of RoiAlign.
struct Align {
    regions: Vec<Region>,
    largest: bool,
    output: [i64; 2],
}

struct Region {
    image: i64,
    y: Line,
    x: Line,
}

/// The interpolated points of a region along one axis.
struct Line {
    /// The weights of every element of the axis in each point: `[bins * points, size]`.
    points: Tensor,
    /// How many points a bin has.
    count: i64,
    bins: i64,
    /// How far positions may be off.
    error: f64,
    /// Bins in which a point may lie on one or the other side of a step; or all.
    doubtful: Vec<bool>,
}

impl Line {
    /// The points between two corners; `error` is how far these may be off.
    fn of(corners: [f64; 2], bins: i64, size: i64, ratio: i64, shifted: bool, error: f64) -> Result<Line, TchError> {
        let [start, end] = corners;
        let length = if shifted { end - start } else { (end - start).max(1.0) };
        let bin = length / bins as f64;
        let adaptive = bin.ceil();
        // The number of points in a bin jumps.
        let unsure = ratio <= 0 && (bin - bin.round()).abs() <= error * REACH && bin > -0.5;
        let count = if ratio > 0 { ratio } else { adaptive.clamp(0.0, 1024.0) as i64 };
        let mut weights = vec![0.0; (bins * count * size) as usize];
        let mut doubtful = vec![unsure; bins as usize];
        for point in 0..bins * count {
            let (i, j) = (point / count, point % count);
            let position = start + i as f64 * bin + (j as f64 + 0.5) * bin / count as f64;
            let near = |end: f64| (position - end).abs() <= error * REACH;
            doubtful[i as usize] |= near(-1.0) || near(size as f64);
            if position < -1.0 || position > size as f64 {
                continue;
            }
            let inside = position.clamp(0.0, (size - 1) as f64);
            let (low, t) = (inside.floor() as i64, inside.fract());
            weights[(point * size + low) as usize] += 1.0 - t;
            if t > 0.0 {
                weights[(point * size + low + 1) as usize] += t;
            }
        }
        let points = Tensor::from_slice(&weights).f_reshape([bins * count, size])?;
        Ok(Line { points, count, bins, error, doubtful })
    }

    /// The weights in the means of the bins: `[bins, size]`.
    fn mean(&self) -> Result<Tensor, TchError> {
        let size = self.points.size()[1];
        let sum =
            self.points.f_reshape([self.bins, self.count, size])?.f_sum_dim_intlist([1].as_slice(), false, None)?;
        sum.f_div_scalar(self.count.max(1) as f64)
    }

    /// Infinite for doubtful bins, else 0.
    fn doubt(&self) -> Tensor {
        let doubt: Vec<f64> = self.doubtful.iter().map(|&unsure| if unsure { f64::INFINITY } else { 0.0 }).collect();
        Tensor::from_slice(&doubt)
    }
}

impl Region {
    /// The maxima over the points of each bin, of what has been interpolated along the last axis.
    fn maxima(&self, half: &Tensor, y: &Tensor) -> Result<Tensor, TchError> {
        let points = y.f_matmul(half)?;
        let channels = points.size()[0];
        if self.y.count * self.x.count == 0 {
            return points.f_new_zeros([channels, self.y.bins, self.x.bins], (points.kind(), points.device()));
        }
        points.f_reshape([channels, self.y.bins, self.y.count, self.x.bins, self.x.count])?.f_amax([2, 4], false)
    }
}

impl Align {
    fn of(a: &Args, errors: Option<&Tensor>) -> Result<Align, TchError> {
        let shape = a.shape(0);
        if shape.len() != 4 || shape.contains(&0) && shape[1] != 0 {
            return refuse("RoiAlign of no image");
        }
        let mode = a.text("coordinate_transformation_mode", "half_pixel");
        let shifted = a.opset >= 16 && mode == "half_pixel";
        let offset = if shifted { 0.5 } else { 0.0 };
        let ratio = a.int("sampling_ratio", 0);
        let output = [a.int("output_height", 1), a.int("output_width", 1)];
        let rois = Rois::of(a.x(1), errors, a.float("spatial_scale", 1.0))?;
        let images = a.list(2).unwrap_or_default();
        let u = a.dtype(0).unit_roundoff().max(DType::F32.unit_roundoff());
        let mut regions = Vec::new();
        for ((corners, errors), image) in rois.regions.iter().zip(&rois.errors).zip(images) {
            let (&[x1, y1, x2, y2], &[dx1, dy1, dx2, dy2]) = (corners.as_slice(), errors.as_slice()) else {
                return refuse("RoiAlign of regions without four corners");
            };
            if !(0..shape[0]).contains(&image) {
                return refuse("a region of an image that does not exist");
            }
            let line = |corners: [f64; 2], errors: [f64; 2], axis: usize| {
                let error = errors[0].max(errors[1]) + (corners[0].abs() + corners[1].abs() + 1.0) * (16.0 * u);
                Line::of(corners.map(|x| x - offset), output[axis], shape[2 + axis], ratio, shifted, error)
            };
            regions.push(Region { image, y: line([y1, y2], [dy1, dy2], 0)?, x: line([x1, x2], [dx1, dx2], 1)? });
        }
        Ok(Align { regions, largest: a.text("mode", "avg") == "max", output })
    }

    /// What `of` makes of each region and its image `[C, H, W]`, as one tensor.
    fn collect(&self, a: &Args, of: impl Fn(&Region, Tensor) -> Result<Tensor, TchError>) -> Outputs {
        let pooled: Vec<Tensor> = self
            .regions
            .iter()
            .map(|region| of(region, a.x(0).f_select(0, region.image)?))
            .collect::<Result<_, _>>()?;
        if pooled.is_empty() {
            let shape = [0, a.shape(0)[1], self.output[0], self.output[1]];
            return one(a.x(0).f_new_zeros(shape, (a.x(0).kind(), a.x(0).device())));
        }
        one(Tensor::f_stack(&pooled, 0))
    }
}

/// The errors of the elements and of the positions, and the rounding of a weighted sum.
///
/// By the text a point is interpolated and then a maximum is taken; the node tests take the largest of its weighted
/// elements instead. What both differ in is not judged.
fn align_errors(a: &Args, errors: &[Option<Tensor>], _: &[Tensor]) -> Outputs {
    let align = Align::of(a, Some(&error_of(errors, 1, a.x(1))?))?;
    let error = error_of(errors, 0, a.x(0))?;
    let dtype = a.dtype(0);
    align.collect(a, |region, plane| {
        let points = (region.y.count * region.x.count) as f64;
        let between = |y: &Tensor, x: &Tensor, plane: &Tensor| y.f_matmul(plane)?.f_matmul(&x.f_transpose(0, 1)?);
        let moved = |plane: &Tensor| match align.largest {
            true => region.maxima(&plane.f_matmul(&region.x.points.f_transpose(0, 1)?)?, &region.y.points),
            false => between(&region.y.mean()?, &region.x.mean()?, plane),
        };
        let own = error.f_select(0, region.image)?;
        let magnitude = plane.f_to_kind(Kind::Double)?.f_abs()? + &own;
        let most = match magnitude.numel() {
            0 => magnitude.f_new_zeros([magnitude.size()[0], 1, 1], (Kind::Double, magnitude.device()))?,
            _ => magnitude.f_amax([1, 2], true)?,
        };
        let shift = 2.0 * (region.y.error + region.x.error) + 8.0 * DType::F32.unit_roundoff();
        let mut bound = moved(&own)? + moved(&magnitude)? * gamma(4.0 * points + 16.0, dtype) + most * shift;
        if align.largest {
            bound += region.readings(&plane.f_to_kind(Kind::Double)?)?;
        }
        let doubt = region.y.doubt().f_unsqueeze(-1)?.f_add(&region.x.doubt())?;
        defined(bound.f_add(&doubt)?)
    })
}

impl Region {
    /// By how much the two readings of a maximum differ.
    fn readings(&self, plane: &Tensor) -> Result<Tensor, TchError> {
        let text = self.maxima(&plane.f_matmul(&self.x.points.f_transpose(0, 1)?)?, &self.y.points)?;
        let mut largest: Option<Tensor> = None;
        // The elements before and behind each point have the odd and even columns, or the other way round.
        for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let part = |line: &Line, parity: i64| {
                let size = line.points.size()[1];
                let kept = Tensor::f_arange(size, (Kind::Int64, plane.device()))?.f_remainder(2)?.f_eq(parity)?;
                line.points.f_mul(&kept.f_to_kind(Kind::Double)?)
            };
            let of = self.maxima(&plane.f_matmul(&part(&self.x, x)?.f_transpose(0, 1)?)?, &part(&self.y, y)?)?;
            largest = Some(match largest {
                Some(largest) => largest.f_maximum(&of)?,
                None => of,
            });
        }
        match largest {
            Some(largest) => (largest - text).f_abs(),
            None => text.f_zeros_like(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::assert_near;
    use super::*;
    use crate::dtype::DType::{F32, I64};
    use crate::spec::Attribute;

    fn eval(
        spec: &OpSpec,
        operands: Vec<Tensor>,
        attributes: &[(&'static str, Attribute<i64>)],
        opset: i64,
    ) -> Vec<f64> {
        let attributes: Vec<_> = attributes.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        let args = Args {
            operand_dtypes: [Some(F32), Some(F32), Some(I64)][..operands.len()].to_vec(),
            operands: operands.into_iter().map(Some).collect(),
            attributes: &attributes,
            opset,
            output_dtypes: vec![F32],
            wide: false,
            accumulate: None,
        };
        let y = (spec.eval)(&args).expect("pooled regions").swap_remove(0);
        Vec::try_from(&y.reshape([-1]).to_kind(Kind::Double)).expect("values")
    }

    /// A ramp has the value of its position in the middle of the points.
    #[test]
    fn means_of_a_ramp_are_its_values_in_the_middle() {
        let ramp: Vec<f32> = (0..16).map(|i| (i % 4) as f32 + 10.0 * (i / 4) as f32).collect();
        let align = |mode: &str, opset: i64| {
            let rois = Tensor::from_slice(&[1.0f32, 0.5, 3.0, 2.5]).reshape([1, 4]);
            let operands = vec![Tensor::from_slice(&ramp).reshape([1, 1, 4, 4]), rois, Tensor::from_slice(&[0i64])];
            let attributes = [
                ("output_width", Attribute::Int(2)),
                ("sampling_ratio", Attribute::Int(2)),
                ("mode", Attribute::Text(mode.into())),
            ];
            eval(&ROI_ALIGN, operands, &attributes, opset)
        };
        assert_near(&align("avg", 16), &[11.0, 12.0]);
        assert_near(&align("avg", 13), &[16.5, 17.5]);
        assert_near(&align("max", 16), &[16.25, 17.25]);
    }

    #[test]
    fn bins_of_a_region_overlap() {
        let ramp: Vec<f32> = (0..16).map(|i| i as f32).collect();
        let rois = Tensor::from_slice(&[0.0f32, 0.2, 0.9, 2.1, 2.8]).reshape([1, 5]);
        let operands = vec![Tensor::from_slice(&ramp).reshape([1, 1, 4, 4]), rois];
        let y = eval(&MAX_ROI_POOL, operands, &[("pooled_shape", Attribute::Ints(vec![2, 2]))], 13);
        assert_eq!(y, [9.0, 10.0, 13.0, 14.0]);
    }
}
