//! Sums of products of quantised tensors: integers out, or quantised again.

use super::common::{as_output, one, wide};
use super::conv::{add_bias, convolved, declare_group};
use super::matmul::{self, parameter_shape, product_shape, second_matrix};
use super::quantize::{extreme, in_precision};
use super::rounding::{REACH, defined, error_of, gamma, unless};
use super::scales::{BYTES, scales, values, zero_points};
use super::windows::{self, Text};
use crate::dtype::{DType, DTypes};
use crate::spec::{Args, Builder, Domain, Numerics, OpSpec, Operand, Outputs, Skip};
use crate::term::{Term, product};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&CONV_INTEGER, &QLINEAR_MATMUL, &QLINEAR_CONV];

/// ONNX ConvInteger. Padding is of zero points, which count as 0.
pub const CONV_INTEGER: OpSpec = OpSpec {
    code: 0x73,
    name: "ConvInteger",
    since: 10,
    dtypes: BYTES,
    doc: "The int32 convolution of 8-bit tensors less their zero points, of which the filter may have one for each output channel.",
    numerics: Numerics::Unfiltered(|a, errors, exact| {
        let doubtful = doubts(a, errors, CONV_INTEGER_AT, &exact[0])?;
        one(unless(&doubtful, &doubtful.f_to_kind(Kind::Double)?.f_zeros_like()?))
    }),
    build: |b| {
        let values = values(b);
        let x = b.input_in_domain(b.dtypes(), 3..=5, values)?;
        let convolution = convolution(b, &x);
        let dtype = b.one_of(&[DType::U8, DType::I8]);
        b.weight_in(dtype, convolution.kernel, values(dtype));
        let (first, second) = (b.coin(), b.coin());
        match first {
            true => zero_point(b, x.dtype, []),
            false if second => b.absent(),
            false => {}
        }
        if second {
            let shape = if b.chance(96) { vec![convolution.maps] } else { Vec::new() };
            zero_point(b, dtype, shape);
        }
        b.output(DType::I32, convolution.output);
        Ok(())
    },
    eval: |a| as_output(a, accumulated(a, CONV_INTEGER_AT)?),
    can_overflow: true,
    ..OpSpec::BASE
};

/// ONNX QLinearMatMul.
pub const QLINEAR_MATMUL: OpSpec = OpSpec {
    code: 0x74,
    name: "QLinearMatMul",
    since: 10,
    dtypes: BYTES,
    doc: "The matrix product of 8-bit matrices with scales and zero points, quantised again.",
    numerics: Numerics::Unfiltered(|a, errors, _| error_of_requantized(a, errors, QLINEAR_MATMUL_AT)),
    build: build_qlinear_matmul,
    eval: |a| requantized(a, QLINEAR_MATMUL_AT),
    ..OpSpec::BASE
};

/// ONNX QLinearConv. The bias has the scale of the products, and the zero point 0.
pub const QLINEAR_CONV: OpSpec = OpSpec {
    code: 0x75,
    name: "QLinearConv",
    since: 10,
    dtypes: BYTES,
    doc: "The convolution of 8-bit tensors with scales and zero points, with an optional int32 bias, quantised again.",
    numerics: Numerics::Unfiltered(|a, errors, _| error_of_requantized(a, errors, QLINEAR_CONV_AT)),
    build: build_qlinear_conv,
    eval: |a| requantized(a, QLINEAR_CONV_AT),
    ..OpSpec::BASE
};

/// Which operands play which part.
#[derive(Clone, Copy)]
struct Places {
    convolves: bool,
    w: usize,
    x_zero: usize,
    w_zero: usize,
    /// The scales of x, w and y, and the zero point of y, where the result is quantised.
    scales: [usize; 3],
    y_zero: usize,
    bias: usize,
}

const CONV_INTEGER_AT: Places =
    Places { convolves: true, w: 1, x_zero: 2, w_zero: 3, scales: [0; 3], y_zero: 0, bias: NEVER };
const QLINEAR_MATMUL_AT: Places =
    Places { convolves: false, w: 3, x_zero: 2, w_zero: 5, scales: [1, 4, 6], y_zero: 7, bias: NEVER };
const QLINEAR_CONV_AT: Places = Places { convolves: true, bias: 8, ..QLINEAR_MATMUL_AT };
/// The index of no operand.
const NEVER: usize = usize::MAX;

/// The shapes of a quantised convolution.
struct Convolution {
    kernel: Vec<Term>,
    maps: Term,
    output: Vec<Term>,
    terms: Term,
}

/// Declares the attributes of a convolution of `x`.
fn convolution(b: &mut Builder, x: &Operand) -> Convolution {
    let (n, c, spatial) = (x.shape[0], x.shape[1], &x.shape[2..]);
    let group = declare_group(b, c, x.rank());
    let windows = windows::declare(b, spatial, Text::Conv);
    let terms = (product(&windows.kernel) * c) / group.count;
    b.accumulate(terms + 1);
    Convolution {
        kernel: [&[group.maps, c / group.count], &windows.kernel[..]].concat(),
        maps: group.maps,
        output: [&[n, group.maps], &windows.output[..]].concat(),
        terms,
    }
}

fn zero_point(b: &mut Builder, dtype: DType, shape: impl Into<Vec<Term>>) {
    let domain = zero_points(b, dtype);
    b.weight_in(dtype, shape, domain);
}

/// Declares a scale and a zero point for elements of type `dtype`, and returns about what the scale is.
fn scale_and_zero_point(b: &mut Builder, scale: DType, dtype: DType, shape: Vec<Term>) -> f64 {
    let domain = scales(b, scale);
    b.weight_in(scale, shape.clone(), domain);
    zero_point(b, dtype, shape);
    match domain {
        Domain::Range(low, high) => (low + high) / 2.0,
        _ => 1.0,
    }
}

/// The element type of a quantised result: mostly that of the first operand, which is all that most kernels know.
fn result_dtype(b: &mut Builder, first: DType) -> Result<DType, Skip> {
    let same = !b.chance(72) && b.wanted.is_none();
    b.dtype(if same { DTypes::of(&[first]) } else { BYTES })
}

/// Declares the scale and the zero point of a sum of `terms` products that are about `unit` large for a difference of one
/// of both factors from their zero points.
fn result_parameters(b: &mut Builder, scale: DType, dtype: DType, terms: Term, unit: f64) {
    // Evenly distributed bytes are off their mean by 74.
    let deviation = unit * 74.0 * 74.0 * (b.value(terms).max(1) as f64).sqrt();
    let share = b.one_of(&[64.0, 128.0, 16.0]);
    let middle = (deviation / share).clamp((-9f64).exp2(), 1024.0);
    b.weight_in(scale, [], Domain::Range(middle * 0.75, middle * 1.25));
    zero_point(b, dtype, []);
}

fn build_qlinear_matmul(b: &mut Builder) -> Result<(), Skip> {
    let values = values(b);
    let x = b.input_in_domain(b.dtypes(), 1..=4, values)?;
    let scale = match b.opset() {
        ..21 => DType::F32,
        _ => b.one_of(&[DType::F32, DType::F32, DType::F16, DType::BF16]),
    };
    let shape = parameter_shape(b, &x, true);
    let x_scale = scale_and_zero_point(b, scale, x.dtype, shape);
    let dtype = b.one_of(&[DType::U8, DType::I8]);
    let w = second_matrix(b, &x, dtype, values(dtype));
    let shape = parameter_shape(b, &w, false);
    let w_scale = scale_and_zero_point(b, scale, dtype, shape);
    let to = result_dtype(b, x.dtype)?;
    let terms = x.shape[x.rank() - 1];
    result_parameters(b, scale, to, terms, x_scale * w_scale);
    b.accumulate(terms);
    let shape = product_shape(b, &x, &w);
    b.output(to, shape);
    Ok(())
}

fn build_qlinear_conv(b: &mut Builder) -> Result<(), Skip> {
    let values = values(b);
    let x = b.input_in_domain(b.dtypes(), 3..=5, values)?;
    let x_scale = scale_and_zero_point(b, DType::F32, x.dtype, Vec::new());
    let convolution = convolution(b, &x);
    let dtype = b.one_of(&[DType::U8, DType::I8]);
    b.weight_in(dtype, convolution.kernel, values(dtype));
    let shape = if b.coin() { vec![convolution.maps] } else { Vec::new() };
    let w_scale = scale_and_zero_point(b, DType::F32, dtype, shape);
    let to = result_dtype(b, x.dtype)?;
    result_parameters(b, DType::F32, to, convolution.terms, x_scale * w_scale);
    if b.coin() {
        b.weight_in(DType::I32, [convolution.maps], Domain::Range(-20_000.0, 20_000.0));
    }
    b.output(to, convolution.output);
    Ok(())
}

/// `parameter` laid along the output channels of a tensor of rank `rank`, which are on axis `axis`.
fn along_channels(parameter: &Tensor, rank: usize, axis: usize) -> Result<Tensor, TchError> {
    if parameter.numel() == 1 {
        return parameter.f_reshape(&[] as &[i64]);
    }
    let mut shape = vec![1; rank];
    shape[axis] = -1;
    parameter.f_reshape(shape)
}

/// The product or the convolution of `x` and `w`.
fn products(a: &Args, at: Places, x: &Tensor, w: &Tensor) -> Result<Tensor, TchError> {
    if at.convolves { convolved(a, x, w) } else { x.f_matmul(w) }
}

/// The sums of products of the differences from the zero points, without a bias, in f64, where they are exact.
fn sums(a: &Args, at: Places) -> Result<Tensor, TchError> {
    let shifted = |index: usize, zero: usize| -> Result<Tensor, TchError> {
        let x = wide(a, index)?;
        let Some(zero) = a.opt(zero) else { return Ok(x) };
        let zero = zero.f_to_kind(Kind::Double)?;
        let zero = if at.convolves { along_channels(&zero, x.dim(), 0)? } else { matmul::laid(&zero, index == 0)? };
        x.f_sub(&zero)
    };
    products(a, at, &shifted(0, at.x_zero)?, &shifted(at.w, at.w_zero)?)
}

/// The sums with the bias.
fn accumulated(a: &Args, at: Places) -> Result<Tensor, TchError> {
    let bias = a.opt(at.bias).map(|bias| bias.f_to_kind(Kind::Double)).transpose()?;
    add_bias(sums(a, at)?, bias.as_ref())
}

/// `of` each of the scales of x, w and y, such that they broadcast against the result of rank `rank`.
fn scales_of(
    a: &Args,
    at: Places,
    rank: usize,
    of: impl Fn(usize) -> Result<Tensor, TchError>,
) -> Result<[Tensor; 3], TchError> {
    let lay = |place: usize, first: bool| -> Result<Tensor, TchError> {
        let scale = of(at.scales[place])?;
        if at.convolves {
            return along_channels(&scale, rank, 1);
        }
        let laid = matmul::laid(&scale, first)?;
        // The axis of a vector is not there in the result.
        let vector = a.rank(if first { at.w } else { 0 }) == 1;
        if vector && laid.dim() > 1 { laid.f_squeeze_dim(if first { -1 } else { -2 }) } else { Ok(laid) }
    };
    Ok([lay(0, true)?, lay(1, false)?, lay(2, false)?])
}

/// The results, as floats, for sums in units of the scale of y.
fn requantize(a: &Args, at: Places, x: &Tensor) -> Result<Tensor, TchError> {
    let to = a.output_dtypes[0];
    let zero = a.x(at.y_zero).f_to_kind(x.kind())?.f_reshape(&[] as &[i64])?;
    x.f_round()?.f_add(&zero)?.f_clamp(to.min(), to.max())
}

fn requantized(a: &Args, at: Places) -> Outputs {
    let sums = accumulated(a, at)?;
    let precision = a.dtype(at.scales[0]);
    let [x, w, y] = scales_of(a, at, sums.dim(), |index| Ok(a.x(index).shallow_clone()))?;
    let factor = in_precision(a, &in_precision(a, &x.f_mul(&w)?, precision)?.f_div(&y)?, precision)?;
    one(requantize(a, at, &sums.f_to_kind(factor.kind())?.f_mul(&factor)?)?.f_to_kind(a.output_kind(0)))
}

/// Which results depend on doubtful elements of x or w, or are in doubt altogether for a zero point or the bias.
fn doubts(a: &Args, errors: &[Option<Tensor>], at: Places, results: &Tensor) -> Result<Tensor, TchError> {
    let mut doubtful = results.f_zeros_like()?.f_to_kind(Kind::Double)?;
    for (index, error) in errors.iter().enumerate().filter_map(|(index, error)| Some((index, error.as_ref()?))) {
        if a.dtype(index).is_float() {
            continue;
        }
        let mask = error.f_gt(0.0)?.f_to_kind(Kind::Double)?;
        doubtful = match index {
            0 => doubtful.f_add(&products(a, at, &mask, &wide(a, at.w)?.f_ones_like()?)?)?,
            w if w == at.w => doubtful.f_add(&products(a, at, &wide(a, 0)?.f_ones_like()?, &mask)?)?,
            _ => doubtful.f_add(&mask.f_sum(Kind::Double)?)?,
        };
    }
    doubtful.f_gt(0.0)
}

/// The roundings on the way from a sum to its share of the scale of y: of two quotients or products, a reciprocal, the sum itself
/// and the last product.
const ROUNDINGS: f64 = 6.0;

/// Certain where the quotient is clear of every step, or far outside. Ties are never certain: where the zero point is odd it
/// matters whether it is added before the rounding, about which texts and reference implementations differ.
fn error_of_requantized(a: &Args, errors: &[Option<Tensor>], at: Places) -> Outputs {
    let (sums, all) = (sums(a, at)?, accumulated(a, at)?);
    let precision = a.dtype(at.scales[0]);
    let [x, w, y] = scales_of(a, at, all.dim(), |index| wide(a, index))?;
    let [x_error, w_error, y_error] = scales_of(a, at, all.dim(), |index| error_of(errors, index, &wide(a, index)?))?;
    let share = |error: &Tensor, scale: &Tensor| error.f_div(&(scale.f_abs()? - error).f_clamp_min(0.0)?);
    let moved = share(&x_error, &x)? + share(&w_error, &w)? + share(&y_error, &y)?;
    let product = x.f_mul(&w)?;
    let factor = product.f_div(&y)?;
    let bias = (&all - &sums).f_abs()?;
    let magnitude = (sums.f_abs()? + bias) * factor.f_abs()?;
    let reach = defined(magnitude * (moved * REACH + gamma(ROUNDINGS, precision)))?;
    let mut doubtful = doubts(a, errors, at, &all)?;
    for unusual in [extreme(&product, precision)?, extreme(&factor, precision)?, all.f_abs()?.f_gt(DType::I32.max())?] {
        doubtful = doubtful.f_logical_or(&unusual)?;
    }
    let exact = all * factor;
    let ends = (requantize(a, at, &(&exact - &reach))?, requantize(a, at, &(&exact + &reach))?);
    doubtful = doubtful.f_logical_or(&ends.0.f_ne_tensor(&ends.1)?)?;
    one(unless(&doubtful, &reach.f_zeros_like()?))
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{eval_all, operand};
    use super::*;
    use crate::dtype::DType::{F32, I8, I32, U8};
    use crate::spec::Attribute;
    use crate::tensor::TensorData;

    /// `test_convinteger_without_padding` and `_with_padding`.
    #[test]
    fn the_examples_of_onnx() {
        let x = || operand(U8, &[1, 1, 3, 3], &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        let one = || operand(U8, &[], &[1.0]);
        let w = operand(U8, &[1, 1, 2, 2], &[1.0; 4]);
        let y = eval_all(&CONV_INTEGER, &[x(), w, one()], &[], &[I32]).swap_remove(0);
        assert_eq!(y, [12.0, 16.0, 24.0, 28.0]);
        let (w, zeros) = (operand(U8, &[2, 1, 2, 2], &[1.0; 8]), operand(U8, &[2], &[0.0, 1.0]));
        let attributes = [("pads", Attribute::Ints(vec![1, 1, 1, 1]))];
        let y = eval_all(&CONV_INTEGER, &[x(), w, one(), zeros], &attributes, &[I32]).swap_remove(0);
        assert_eq!(y[..8], [1.0, 3.0, 5.0, 3.0, 5.0, 12.0, 16.0, 9.0]);
        assert_eq!(y[16..], [0.0; 16], "of a filter that is its zero point");
    }

    /// `test_qlinearmatmul_2D_uint8_float32` and `_int8`.
    #[test]
    fn the_products_of_onnx() {
        let a = [208.0, 236.0, 0.0, 238.0, 3.0, 214.0, 255.0, 29.0];
        let b = [152.0, 51.0, 244.0, 60.0, 26.0, 255.0, 0.0, 127.0, 246.0, 127.0, 254.0, 247.0];
        let product = |dtype: DType, shift: f64| {
            // The test wraps 128 around.
            let shifted = |shape: &[usize], values: &[f64]| {
                let wrapped = |value: &f64| if value - shift > dtype.max() { dtype.min() } else { value - shift };
                operand(dtype, shape, &values.iter().map(wrapped).collect::<Vec<_>>())
            };
            let scale = |value| operand(F32, &[1], &[value]);
            let operands = [
                shifted(&[2, 4], &a),
                scale(0.0066),
                shifted(&[1], &[113.0]),
                shifted(&[4, 3], &b),
                scale(0.00705),
                shifted(&[1], &[114.0]),
                scale(0.0107),
                shifted(&[1], &[118.0]),
            ];
            eval_all(&QLINEAR_MATMUL, &operands, &[], &[dtype]).swap_remove(0)
        };
        assert_eq!(product(U8, 0.0), [168.0, 115.0, 255.0, 1.0, 66.0, 151.0]);
        assert_eq!(product(I8, 127.0), [41.0, -12.0, -9.0, 1.0, -75.0, -128.0]);
    }

    /// The first row of `test_qlinearconv`, and a bias.
    #[test]
    fn the_convolution_of_onnx() {
        let scalar = |dtype, value| operand(dtype, &[], &[value]);
        let mut operands = vec![
            operand(U8, &[1, 1, 1, 7], &[255.0, 174.0, 162.0, 25.0, 203.0, 168.0, 58.0]),
            scalar(F32, 0.003_692_046_97),
            scalar(U8, 132.0),
            operand(U8, &[1, 1, 1, 1], &[0.0]),
            operand(F32, &[1], &[0.001_727_945_75]),
            operand(U8, &[1], &[255.0]),
            scalar(F32, 0.001_626_812_62),
            scalar(U8, 123.0),
        ];
        let convolve = |operands: &[Option<TensorData>]| eval_all(&QLINEAR_CONV, operands, &[], &[U8]).swap_remove(0);
        assert_eq!(convolve(&operands), [0.0, 81.0, 93.0, 230.0, 52.0, 87.0, 197.0]);
        operands.push(operand(I32, &[1], &[2550.0]));
        assert_eq!(convolve(&operands)[1], 91.0, "ten more");
    }
}
