//! Where on an axis the elements of Resize's output lie.

use super::filters::COORDINATE_ROUNDOFF;
use super::windows::unsupported;
use crate::spec::Args;
use tch::TchError;

/// Where the elements of an output axis lie on the input axis: at `offset + (index + shift) * numerator / denominator`.
pub struct Line {
    offset: f64,
    shift: f64,
    numerator: f64,
    denominator: f64,
    /// Of the numbers that the offset is computed from.
    magnitude: f64,
    /// f32 computes every coordinate exactly.
    exact: bool,
}

impl Line {
    /// For an axis whose lengths are `input` and `output`, and its region of interest if coordinates depend on it.
    pub fn of(a: &Args, input: i64, output: i64, scale: f64, region: Option<(f64, f64)>) -> Result<Line, TchError> {
        let (size, last) = (input as f64, (input - 1) as f64);
        let line = |offset: f64, shift: f64, numerator: f64, denominator: f64| {
            let magnitude = offset.abs();
            Line { offset, shift, numerator, denominator, magnitude, exact: false }
        };
        let mut line = match a.text("coordinate_transformation_mode", "half_pixel") {
            "half_pixel" => line(-0.5, 0.5, 1.0, scale),
            "asymmetric" => line(0.0, 0.0, 1.0, scale),
            "align_corners" => {
                // The ONNX node tests take the length before it is rounded down to the output's size.
                let length = scale * size;
                let rounded = length.round();
                let length = if (length - rounded).abs() < 1e-6 { rounded } else { length };
                if length == 1.0 { line(0.0, 0.0, 0.0, 1.0) } else { line(0.0, 0.0, last, length - 1.0) }
            }
            "pytorch_half_pixel" if output <= 1 => line(0.0, 0.0, 0.0, 1.0),
            "pytorch_half_pixel" => line(-0.5, 0.5, 1.0, scale),
            "half_pixel_symmetric" => {
                let offset = size / 2.0 * (1.0 - output as f64 / (scale * size)) - 0.5;
                Line { magnitude: size / 2.0 + 0.5, ..line(offset, 0.5, 1.0, scale) }
            }
            "tf_crop_and_resize" => {
                let (start, end) = region.unwrap_or((0.0, 1.0));
                if output > 1 {
                    line(start * last, 0.0, (end - start) * last, (output - 1) as f64)
                } else {
                    let magnitude = 0.5 * (start.abs() + end.abs()) * last;
                    Line { magnitude, ..line(0.5 * (start + end) * last, 0.0, 0.0, 1.0) }
                }
            }
            _ => return Err(unsupported("Resize with other coordinates")),
        };
        line.exact = line.is_exact(output);
        Ok(line)
    }

    /// Whether all numbers on the way from the index to the coordinate are multiples of 2^-6 that f32 holds.
    fn is_exact(&self, output: i64) -> bool {
        const UNIT: f64 = 1.0 / (1 << 6) as f64;
        let all = [self.offset, self.magnitude, self.numerator, self.denominator, self.numerator / self.denominator];
        let largest = all.into_iter().map(f64::abs).fold(0.0, f64::max) * output.max(1) as f64;
        all.into_iter().all(|it| (it / UNIT).fract() == 0.0) && largest < UNIT / COORDINATE_ROUNDOFF
    }

    /// The input coordinate of output element `index`.
    pub fn at(&self, index: i64) -> f64 {
        self.offset + (index as f64 + self.shift) * self.numerator / self.denominator
    }

    /// By how much f32 arithmetic may miss it.
    pub fn error(&self, index: i64) -> f64 {
        let path = self.magnitude + ((index as f64 + self.shift) * self.numerator / self.denominator).abs();
        if self.exact { 0.0 } else { 8.0 * COORDINATE_ROUNDOFF * path }
    }
}
