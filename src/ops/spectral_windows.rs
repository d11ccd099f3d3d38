//! Weights for spectra: windows that are sums of cosines, and triangular filters on the mel scale.

use super::common::as_output;
use super::movement::refuse;
use super::rounding::{REACH, unless};
use crate::dtype::{DType, FLOATS, NUMBERS};
use crate::spec::{Args, Builder, Numerics, OpSpec, Outputs, Skip};
use crate::term::Term;
use std::f64::consts::{LN_10, TAU};
use tch::{Device, Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&HAMMING, &HANN, &BLACKMAN, &MEL];

/// Half of a transform of the length 1024, one of the commonest.
const MOST_ROWS: i64 = 513;

/// What is summed up: `a[0] - a[1] * cos(t) + a[2] * cos(2 * t)`, with t from 0 to a turn.
type Coefficients = [f64; 3];

const HAMMING_SUM: Coefficients = [25.0 / 46.0, 21.0 / 46.0, 0.0];
const HANN_SUM: Coefficients = [0.5, 0.5, 0.0];
const BLACKMAN_SUM: Coefficients = [0.42, 0.5, 0.08];

/// The element types are those of the result: other ones than floats may be asked for by an attribute only.
const WINDOW: OpSpec = OpSpec { since: 17, dtypes: FLOATS, build: build_window, ..OpSpec::BASE };

/// ONNX HammingWindow, opset 17.
pub const HAMMING: OpSpec = OpSpec {
    code: 0x78,
    name: "HammingWindow",
    doc: "A Hamming window: one arch of a cosine on a pedestal, for a signal of a given length.",
    numerics: Numerics::Unfiltered(|a, errors, exact| window_errors(a, errors, exact, HAMMING_SUM)),
    eval: |a| window(a, HAMMING_SUM),
    ..WINDOW
};

/// ONNX HannWindow, opset 17.
pub const HANN: OpSpec = OpSpec {
    code: 0x79,
    name: "HannWindow",
    doc: "A Hann window: one arch of a cosine, for a signal of a given length.",
    numerics: Numerics::Unfiltered(|a, errors, exact| window_errors(a, errors, exact, HANN_SUM)),
    eval: |a| window(a, HANN_SUM),
    ..WINDOW
};

/// ONNX BlackmanWindow, opset 17.
pub const BLACKMAN: OpSpec = OpSpec {
    code: 0x7a,
    name: "BlackmanWindow",
    doc: "A Blackman window: the sum of two cosines, for a signal of a given length.",
    numerics: Numerics::Unfiltered(|a, errors, exact| window_errors(a, errors, exact, BLACKMAN_SUM)),
    eval: |a| window(a, BLACKMAN_SUM),
    ..WINDOW
};

/// The type of the result, declared by `output_datatype`. Of integers nearly all are 0.
fn output_datatype(b: &mut Builder) -> DType {
    let dtypes = if b.chance(80) { NUMBERS } else { FLOATS };
    let dtype = b.leaf_dtype(dtypes);
    if dtype != DType::F32 || b.coin() {
        b.set_int("output_datatype", i64::from(dtype.onnx_code()));
    }
    dtype
}

/// A scalar on which a shape depends: known to every compiler, or the data of an input.
fn scalar(b: &mut Builder, dtype: DType, value: Term, known: bool) {
    if known {
        b.constant_scalar(dtype, value);
    } else {
        b.fixed(dtype, [], [value], 1);
    }
}

fn build_window(b: &mut Builder) -> Result<(), Skip> {
    let dtype = output_datatype(b);
    let periodic = b.one_of(&[None, Some(0), Some(1), Some(0)]);
    // ONNX's shape inference refuses a window of no elements; the symmetric one of one element is 0 / 0.
    let least = if periodic == Some(0) { 2 } else { 1 };
    let mut size = b.size(1);
    if b.value(size) < least {
        size = b.size(1) + least;
    }
    b.require(size.at_least(least));
    if let Some(periodic) = periodic {
        b.set_int("periodic", periodic);
    }
    let index = b.one_of(&[DType::I64, DType::I64, DType::I32]);
    let known = !b.chance(128);
    scalar(b, index, size, known);
    b.output(dtype, [size]);
    Ok(())
}

/// The angle of each element, in the type that floats without a type of their own are computed in.
fn angles(a: &Args) -> Result<Tensor, TchError> {
    let size = a.list(0).and_then(|size| size.first().copied()).unwrap_or(-1);
    if size < 0 {
        return refuse("a window of negative length");
    }
    let turn = if a.int("periodic", 1) == 0 { size - 1 } else { size };
    let positions = Tensor::f_arange(size, (a.kind(DType::F32), Device::Cpu))?;
    positions.f_mul_scalar(TAU)?.f_div_scalar(turn as f64)
}

fn window(a: &Args, [a0, a1, a2]: Coefficients) -> Outputs {
    let angles = angles(a)?;
    let sum = angles.f_cos()?.f_mul_scalar(-a1)?.f_add_scalar(a0)?;
    as_output(a, sum.f_add(&(angles * 2.0).f_cos()?.f_mul_scalar(a2)?)?)
}

/// The unit roundoff of what is computed for a result of the float type `dtype`: for one of f64 it may be f32, as in the
/// bodies that the standard gives the windows as functions.
fn working_roundoff(dtype: DType) -> f64 {
    dtype.unit_roundoff().max(DType::F32.unit_roundoff())
}

fn window_errors(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor], sum: Coefficients) -> Outputs {
    let dtype = a.output_dtypes[0];
    if errors.iter().any(Option::is_some) {
        return exact.iter().map(|y| y.f_to_kind(Kind::Double)?.f_full_like(f64::INFINITY)).collect();
    }
    let u = if dtype.is_float() { working_roundoff(dtype) } else { DType::F32.unit_roundoff() };
    let angles = angles(a)?.f_to_kind(Kind::Double)?;
    let [a0, a1, a2] = sum;
    // An angle is a rounded product of a rounded quotient.
    let part = |times: f64, factor: f64| -> Result<Tensor, TchError> {
        let angle = &angles * times;
        let off = &angle * (8.0 * u);
        Ok((angle.f_sin()?.f_abs()? * &off + off.f_square()? * 0.5) * factor)
    };
    let error = part(1.0, a1)? + part(2.0, a2)? + 8.0 * u * (a0 + a1 + a2);
    if dtype.is_float() {
        return Ok(vec![error]);
    }
    let value = angles.f_cos()? * -a1 + (&angles * 2.0).f_cos()? * a2 + a0;
    let reach = error * REACH;
    let doubtful = (&value - &reach).f_trunc()?.f_ne_tensor(&(&value + &reach).f_trunc()?)?;
    Ok(vec![unless(&doubtful, &value.f_zeros_like()?)?])
}

/// ONNX MelWeightMatrix, opset 17.
pub const MEL: OpSpec = OpSpec {
    code: 0x7b,
    name: "MelWeightMatrix",
    since: 17,
    dtypes: FLOATS,
    doc: "Triangular filters, evenly spaced on the mel scale: how much each bin of a spectrum weighs in each band.",
    numerics: Numerics::Unfiltered(mel_errors),
    build: build_mel,
    eval: |a| {
        let filters = Filters::of(a)?;
        as_output(a, Tensor::from_slice(&filters.weights()?).f_reshape([filters.rows, filters.bands()])?)
    },
    ..OpSpec::BASE
};

fn build_mel(b: &mut Builder) -> Result<(), Skip> {
    let dtype = output_datatype(b);
    let edges = if b.coin() { b.leaf_dtype(FLOATS) } else { DType::F32 };
    let index = b.one_of(&[DType::I64, DType::I64, DType::I32]);
    let bands = b.size(2);
    let hint = b.one_of(&[9, 17, 5, 33, 12, 65, 129, 200, 513]);
    let rows = b.free_near(1..=MOST_ROWS, hint);
    let odd = b.free(0..=1);
    let length = rows * 2 - 2 + odd;
    b.require(length.at_least(1));
    let rate: i64 = b.one_of(&[16_000, 8000, 44_100, 22_050, 1000, 11_025]);
    // Below half of the rate the last filter lies within the spectrum. Halves hold the first eight bits.
    let coarse = |hertz: i64| {
        let lost = if edges.is_half() { (64 - hertz.leading_zeros()).saturating_sub(8) } else { 0 };
        hertz >> lost << lost
    };
    let upper = coarse(rate * b.one_of(&[15, 8, 12, 4, 10, 2, 14]) / 32);
    let lower = coarse(upper * b.one_of(&[1, 0, 4, 2, 0, 9]) / 16);
    let known = !b.chance(128);
    for value in [bands, length, Term::constant(rate)] {
        scalar(b, index, value, known);
    }
    for edge in [lower, upper] {
        if known {
            b.constant_fractions_leaf(edges, &[], &[edge], 1);
        } else {
            b.fixed(edges, [], [Term::constant(edge)], 1);
        }
    }
    b.output(dtype, [rows, bands]);
    Ok(())
}

/// The triangles of a matrix.
struct Filters {
    rows: i64,
    /// The places in the spectrum of the lower ends, peaks and upper ends: each triangle begins at the peak of the one
    /// before it.
    points: Vec<f64>,
    /// How far off the points may be.
    errors: Vec<f64>,
}

impl Filters {
    fn of(a: &Args) -> Result<Filters, TchError> {
        let whole = |index: usize| a.list(index).and_then(|list| list.first().copied()).unwrap_or(0);
        let hertz = |index: usize| -> Result<f64, TchError> { f64::try_from(a.x(index).f_sum(Kind::Double)?) };
        let (bands, length, rate, lower, upper) = (whole(0), whole(1), whole(2), hertz(3)?, hertz(4)?);
        if bands < 0 || length < 0 || rate < 1 || !(0.0..=upper).contains(&lower) || !upper.is_finite() {
            return refuse("mel filters out of any spectrum");
        }
        let u = working_roundoff(a.dtype(3));
        let mel = |hertz: f64| 2595.0 * (hertz / 700.0).ln_1p() / LN_10;
        let (low, high) = (mel(lower), mel(upper));
        let step = (high - low) / (bands + 2) as f64;
        // A rounded logarithm of a rounded sum, for either edge.
        let mel_error = 4.0 * (2260.0 * u + 4.0 * u * high.abs()) + 4.0 * u * high.abs();
        let per_hertz = (length + 1) as f64 / rate as f64;
        let (mut points, mut errors) = (Vec::new(), Vec::new());
        for i in 0..bands + 2 {
            let exponent = (low + step * i as f64) / 2595.0 * LN_10;
            let hertz = 700.0 * exponent.exp_m1();
            let share = (mel_error / 2595.0 * LN_10 + 3.0 * u * exponent).exp_m1() + 4.0 * u;
            let point = hertz * per_hertz;
            // A logarithm of 1 and the power of 0 are exact.
            let exact = i == 0 && lower == 0.0;
            points.push(if exact { 0.0 } else { point });
            errors.push(if exact { 0.0 } else { (hertz + 700.0) * share * per_hertz + 4.0 * u * point });
        }
        Ok(Filters { rows: length / 2 + 1, points, errors })
    }

    fn bands(&self) -> i64 {
        self.points.len() as i64 - 2
    }

    /// `[rows, bands]` in row-major order.
    fn weights(&self) -> Result<Vec<f64>, TchError> {
        let places: Vec<i64> = self.points.iter().map(|point| point.floor() as i64).collect();
        if places.iter().any(|place| !(0..self.rows).contains(place)) {
            return refuse("mel filters beyond the spectrum");
        }
        let weight = |row: i64, ends: &[i64]| {
            let [low, peak, high] = ends else { return 0.0 };
            match row {
                _ if row == *peak => 1.0,
                _ if (*low..*peak).contains(&row) => (row - low) as f64 / (peak - low) as f64,
                _ if (*peak..*high).contains(&row) => (high - row) as f64 / (high - peak) as f64,
                _ => 0.0,
            }
        };
        Ok((0..self.rows).flat_map(|row| places.windows(3).map(move |ends| weight(row, ends))).collect())
    }

    /// For each band whether an end or the peak may lie in another bin.
    fn doubtful(&self) -> Vec<bool> {
        let near = |(point, error): (&f64, &f64)| {
            let reach = error * REACH;
            (point - reach).floor() != (point + reach).floor()
        };
        let near: Vec<bool> = self.points.iter().zip(&self.errors).map(near).collect();
        near.windows(3).map(|ends| ends.contains(&true)).collect()
    }
}

fn mel_errors(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let y = exact[0].f_to_kind(Kind::Double)?;
    if errors.iter().any(Option::is_some) {
        return Ok(vec![y.f_full_like(f64::INFINITY)?]);
    }
    let dtype = a.output_dtypes[0];
    let rounding = if dtype.is_float() { y.f_abs()? * (2.0 * working_roundoff(dtype)) } else { y.f_zeros_like()? };
    // What is 1 or 0 is certain.
    let rounding = rounding.f_masked_fill(&y.f_eq(1.0)?, 0.0)?;
    Ok(vec![unless(&Tensor::from_slice(&Filters::of(a)?.doubtful()), &rounding)?])
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval};
    use super::*;
    use crate::dtype::DType::{F16, F32, F64, I8, I32, I64};
    use crate::spec::Attribute::Int;

    #[test]
    fn examples_of_onnx() {
        let window = |spec: &OpSpec, size: f64, periodic: i64| {
            eval(spec, &[(I32, &[size])], &[("periodic", Int(periodic))], F32)
        };
        assert_near(&window(&HANN, 4.0, 1), &[0.0, 0.5, 1.0, 0.5]);
        assert_near(&window(&HANN, 5.0, 0), &[0.0, 0.5, 1.0, 0.5, 0.0]);
        assert_near(&window(&HAMMING, 4.0, 0), &[4.0 / 46.0, 0.771_739_13, 0.771_739_13, 4.0 / 46.0]);
        assert_near(&window(&BLACKMAN, 4.0, 1), &[0.0, 0.34, 1.0, 0.34]);
        assert_near(&window(&BLACKMAN, 4.0, 0), &[0.0, 0.63, 0.63, 0.0]);
        assert_near(&eval(&HANN, &[(I64, &[2.0])], &[], F16), &[0.0, 1.0]);
        assert_eq!(eval(&BLACKMAN, &[(I64, &[6.0])], &[("periodic", Int(0))], I8), [0.0; 6]);
        assert_eq!(eval(&HANN, &[(I64, &[0.0])], &[], F64), [0.0; 0]);
    }

    /// The matrix of the node test of ONNX.
    #[test]
    fn filters_are_triangles_on_the_mel_scale() {
        let operands: [(DType, &[f64]); 5] =
            [(I64, &[8.0]), (I64, &[16.0]), (I64, &[8192.0]), (F32, &[0.0]), (F32, &[4096.0])];
        let mut expected = [[0.0; 8]; 9];
        for (column, row) in [0, 0, 1, 1, 2, 3, 4, 5].into_iter().enumerate() {
            expected[row][column] = 1.0;
        }
        assert_eq!(eval(&MEL, &operands, &[], F32), expected.as_flattened());
        // Of the reference implementation in the onnx package.
        let operands: [(DType, &[f64]); 5] =
            [(I64, &[2.0]), (I64, &[20.0]), (I64, &[8000.0]), (F32, &[500.0]), (F32, &[3500.0])];
        let mut wide = [[0.0; 2]; 11];
        wide[2..6].copy_from_slice(&[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.0, 0.5]]);
        assert_eq!(eval(&MEL, &operands, &[], F32), wide.as_flattened());
    }
}
