//! Convolution over taps that are moved.

use super::common::{one, wide};
use super::movement::refuse;
use super::rounding::{defined, error_of, gamma, unless_overflow};
use super::taps::{self, Axis, Padding};
use super::windows::Windows;
use crate::dtype::FLOATS;
use crate::spec::{Args, Builder, Domain, Numerics, OpSpec, Outputs, Skip};
use crate::term::Term;
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&DEFORM_CONV];

/// ONNX DeformConv, opset 19, of images.
pub const DEFORM_CONV: OpSpec = OpSpec {
    code: 0xe7,
    name: "DeformConv",
    since: 19,
    dtypes: FLOATS,
    doc: "A convolution whose taps are moved by offsets, interpolated linearly, and weighted by a mask.",
    numerics: Numerics::Custom(deform_errors),
    build: build_deform,
    eval: |a| {
        let deform = Deform::of(a)?;
        let positions = deform.positions(a.x(2))?;
        let x = deform.by_offset_group(a.x(0))?;
        let taps = deform.axes.iter().zip(&positions).map(|(axis, x)| axis.linear(x)).collect::<Result<Vec<_>, _>>()?;
        let mut read = taps::weighted(&x, &deform.axes, &taps)?;
        if let Some(mask) = a.opt(4) {
            read = read.f_mul(&deform.mask(mask)?)?;
        }
        let y = deform.convolve(&read, a.x(1))?;
        one(match a.opt(3) {
            Some(bias) => y.f_add(&bias.f_reshape([1, -1, 1, 1])?),
            None => Ok(y),
        })
    },
    ..OpSpec::BASE
};

fn build_deform(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 4..=4)?;
    let [n, c, h, w] = x.nchw();
    let channels = b.value(c).max(1);
    let divisors: Vec<i64> = (1..=4).filter(|divisor| channels % divisor == 0).collect();
    let [group, offset_group] = ["group", "offset_group"].map(|name| {
        let count = match () {
            () if !b.chance(192) => 1,
            () if divisors.len() > 1 => b.one_of(&divisors[1..]),
            // The solver has to move the channels.
            () => b.one_of(&[1, 2, 3]),
        };
        if count != 1 || b.coin() {
            b.set_int(name, count);
        }
        b.require(c.divisible_by(count));
        count
    });
    b.require(c.at_least(1));
    let maps = b.free(1..=3) * group;
    let mut output = [h, w];
    let kernel: [i64; 2] = [0, 1].map(|_| b.one_of(&[1, 2, 3, 2, 3, 2, 3]));
    let (padded, strided, dilated) = (b.chance(208), b.chance(208), b.chance(224));
    let mut attributes = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for (size, &taps) in output.iter_mut().zip(&kernel) {
        let mut choose = |chosen: bool, choices: &[i64]| if chosen { b.one_of(choices) } else { choices[0] };
        let (begin, end) = (choose(padded, &[0, 1, 2, 1]), choose(padded, &[0, 1, 2, 1]));
        let (stride, dilation) = (choose(strided, &[1, 2, 3, 2]), choose(dilated, &[1, 2, 2]));
        let dilation = dilation.min((b.value(*size) + begin + end - 1) / (taps - 1).max(1)).max(1);
        // One element has no distance to scale by, which the reference implementation divides by.
        b.require(size.at_least(2));
        let slack = *size + begin + end - dilation * (taps - 1) - 1;
        b.require(slack.at_least(0));
        *size = slack / stride + 1;
        for (list, value) in attributes.iter_mut().zip([begin, end, stride, dilation]) {
            list.push(value);
        }
    }
    let [begin, end, strides, dilations] = attributes;
    let taps: i64 = kernel.iter().product();
    b.weight(x.dtype, [maps, c / group, kernel[0].into(), kernel[1].into()]);
    let shape = |each: i64| [n, Term::constant(offset_group * taps * each), output[0], output[1]];
    // Mostly into the image, and never so far that all is 0.
    b.leaf(x.dtype, shape(2), Domain::Range(-2.0, 2.0));
    let (bias, mask) = (b.coin(), b.coin());
    if bias {
        b.weight(x.dtype, [maps]);
    } else if mask {
        b.absent();
    }
    if mask {
        b.input_like(x.dtype, shape(1));
    }
    if b.coin() {
        b.set_ints("kernel_shape", kernel);
    }
    if padded || b.coin() {
        b.set_ints("pads", begin.into_iter().chain(end));
    }
    if strided || b.coin() {
        b.set_ints("strides", strides);
    }
    if dilated || b.coin() {
        b.set_ints("dilations", dilations);
    }
    b.accumulate((c / group) * (taps * 4) + 1);
    b.output(x.dtype, [n, maps, output[0], output[1]]);
    Ok(())
}

/// One application of DeformConv.
struct Deform {
    windows: Windows,
    axes: Vec<Axis>,
    batch: i64,
    channels: i64,
    group: i64,
    offset_group: i64,
}

impl Deform {
    fn of(a: &Args) -> Result<Deform, TchError> {
        let (shape, weight) = (a.shape(0), a.shape(1));
        let [batch, channels, ref sizes @ ..] = shape[..] else {
            return refuse("DeformConv of less than an image");
        };
        let (group, offset_group) = (a.int("group", 1), a.int("offset_group", 1));
        if sizes.len() != 2 || sizes.contains(&0) || weight.len() != 4 || channels == 0 {
            return refuse("DeformConv of another rank than 4, or of nothing");
        }
        if group < 1 || offset_group < 1 || weight[1] * group != channels || channels % offset_group != 0 {
            return refuse("DeformConv in groups that do not fit");
        }
        let windows = Windows::of(a, sizes, &weight[2..])?;
        let axis = |&size: &i64| Axis { size, padding: Padding::Zeros, corners: true };
        Ok(Deform { windows, axes: sizes.iter().map(axis).collect(), batch, channels, group, offset_group })
    }

    /// Batch items and their offset groups together: the shape of what is different for each.
    fn items(&self) -> i64 {
        self.batch * self.offset_group
    }

    fn points(&self) -> i64 {
        self.windows.output.iter().product()
    }

    /// The taps of all outputs.
    fn taps(&self) -> i64 {
        self.windows.count() * self.points()
    }

    fn by_offset_group(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let sizes: Vec<i64> = self.axes.iter().map(|axis| axis.size).collect();
        x.f_reshape([&[self.items(), self.channels / self.offset_group], &sizes[..]].concat())
    }

    /// Offsets or their errors along each axis: `[items, taps, outputs]`.
    fn columns(&self, offset: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let split = offset.f_reshape([self.items(), self.windows.count(), 2, self.points()])?;
        (0..2).map(|axis| split.f_select(2, axis)).collect()
    }

    /// Where each tap of each output reads, along each axis: `[items, taps * outputs]`.
    fn positions(&self, offset: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let windows = &self.windows;
        let [rows, columns] = [windows.output[0], windows.output[1]];
        let place = |(axis, offset): (usize, Tensor)| {
            let mut regular = Vec::new();
            for tap in 0..windows.count() {
                let tap = if axis == 0 { tap / windows.kernel[1] } else { tap % windows.kernel[1] };
                for point in 0..rows * columns {
                    let window = if axis == 0 { point / columns } else { point % columns };
                    let start = window * windows.stride[axis] - windows.begin[axis];
                    regular.push((start + tap * windows.dilation[axis]) as f64);
                }
            }
            let regular = Tensor::from_slice(&regular).f_reshape([1, windows.count(), rows * columns])?;
            offset.f_add(&regular.f_to_kind(offset.kind())?)?.f_reshape([self.items(), self.taps()])
        };
        self.columns(offset)?.into_iter().enumerate().map(place).collect()
    }

    /// A mask or its errors as `[items, 1, taps * outputs]`.
    fn mask(&self, mask: &Tensor) -> Result<Tensor, TchError> {
        mask.f_reshape([self.items(), 1, self.taps()])
    }

    /// The sums over channels and taps of what was read, `[items, channels, taps * outputs]`, times the weights.
    fn convolve(&self, read: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
        let inner = self.channels / self.group * self.windows.count();
        let columns = read.f_reshape([self.batch, self.group, inner, self.points()])?;
        let maps = weight.size()[0];
        let weight = weight.f_reshape([1, self.group, maps / self.group, inner])?;
        weight.f_matmul(&columns)?.f_reshape([&[self.batch, maps], &self.windows.output[..]].concat())
    }
}

/// The operands' errors through the products, and the rounding of the sum; a moved position changes what is read by at
/// most twice the largest element around.
fn deform_errors(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let deform = Deform::of(a)?;
    let dtype = a.dtype(0);
    let positions = deform.positions(&wide(a, 2)?)?;
    let given = deform.columns(&error_of(errors, 2, a.x(2))?)?;
    let (mut shift, mut around) = (positions[0].f_zeros_like()?, Vec::new());
    for ((position, given), axis) in positions.iter().zip(given).zip(&deform.axes) {
        let rounding = (position.f_abs()? + axis.size as f64) * (8.0 * dtype.unit_roundoff());
        let error = given.f_reshape(position.size())? + rounding;
        shift += error.f_masked_fill(&error.f_gt(0.25)?, f64::INFINITY)?;
        around.push(axis.around(position, -1, 2)?);
    }
    let x = deform.by_offset_group(&wide(a, 0)?.f_abs()?)?;
    let most = taps::largest(&x, &deform.axes, &around)?;
    let own = taps::largest(&deform.by_offset_group(&error_of(errors, 0, a.x(0))?)?, &deform.axes, &around)?;
    let reach = &most + &own;
    let moved = own + &reach * (shift.f_unsqueeze(1)? * 2.0 + gamma(8.0, dtype));
    let moved = defined(moved)?;
    let (read, change) = match a.opt(4) {
        Some(mask) => {
            let (mask, error) = (deform.mask(&mask.f_abs()?)?, deform.mask(&error_of(errors, 4, mask)?)?);
            let change = &moved * (&mask + &error) + &reach * &error;
            (reach * (mask + error), change)
        }
        None => (reach, moved),
    };
    let (weight, error) = (wide(a, 1)?.f_abs()?, error_of(errors, 1, a.x(1))?);
    let mut magnitude = deform.convolve(&read, &(&weight + &error))?;
    // An infinite change times a weight of 0 would be NaN.
    let mut bound = defined(deform.convolve(&change, &(weight + &error))?)? + defined(deform.convolve(&read, &error)?)?;
    if let Some(bias) = a.opt(3) {
        magnitude += bias.f_abs()?.f_reshape([1, -1, 1, 1])?;
        bound += error_of(errors, 3, bias)?.f_reshape([1, -1, 1, 1])?;
    }
    let terms = (deform.channels / deform.group * deform.windows.count()) as f64 + 6.0;
    let bound = &bound + (&magnitude + &bound) * gamma(terms, dtype);
    one(defined(unless_overflow(bound, &magnitude, dtype)?)?.f_reshape(exact[0].size()))
}

#[cfg(test)]
mod tests {
    use super::super::windows::apply;
    use super::*;
    use crate::dtype::DType::F32;

    /// `test_basic_deform_conv_without_padding` and `test_deform_conv_with_mask_bias` of the ONNX node tests.
    #[test]
    fn the_examples_of_onnx() {
        let x: Vec<f32> = (0..9).map(|i| i as f32).collect();
        let mut offset = [0.0f32; 32];
        // A tap of the first window reads half an element further down, one of the second a tenth to the left.
        (offset[0], offset[21]) = (0.5, -0.1);
        let weight = [1.0f32; 4];
        let operands: [(&[f32], &[i64]); 3] = [(&x, &[1, 1, 3, 3]), (&weight, &[1, 1, 2, 2]), (&offset, &[1, 8, 2, 2])];
        let values = |y: &Tensor| Vec::<f32>::try_from(&y.reshape([-1])).expect("values");
        assert_eq!(values(&apply(&DEFORM_CONV, &operands, &[], &[F32])[0]), [9.5, 11.9, 20.0, 24.0]);
        let mut mask = [1.0f32; 16];
        mask[11] = 0.2;
        let [x, weight, offset] = operands;
        let y = apply(&DEFORM_CONV, &[x, weight, offset, (&[1.0], &[1]), (&mask, &[1, 4, 2, 2])], &[], &[F32]);
        for (got, want) in values(&y[0]).iter().zip([10.5, 12.9, 21.0, 19.4]) {
            assert!((got - want).abs() < 1e-5, "{got}, not {want}");
        }
    }
}
