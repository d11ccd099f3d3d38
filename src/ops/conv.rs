//! Convolutions.

use super::common::one;
use super::windows::{self, Text, Windows, free_up_to, unsupported};
use crate::dtype::FLOATS;
use crate::spec::{Args, Attribute, Builder, Numerics, OpSpec, Outputs, Skip};
use crate::term::{Term, product};
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&CONV, &CONV_TRANSPOSE];

pub const CONV: OpSpec = OpSpec {
    code: 0x50,
    name: "Conv",
    since: 11,
    dtypes: FLOATS,
    doc: "Grouped, strided, dilated, padded convolution over one to three spatial axes, with an optional bias.",
    numerics: Numerics::Accumulated,
    build: |b| {
        let x = b.input(b.dtypes(), 3..=5)?;
        let (n, c, spatial) = (x.shape[0], x.shape[1], &x.shape[2..]);
        let group = declare_group(b, c, x.rank());
        let windows = windows::declare(b, spatial, Text::Conv);
        b.weight(x.dtype, [&[group.maps, c / group.count], &windows.kernel[..]].concat());
        if b.coin() {
            b.weight(x.dtype, [group.maps]);
        }
        b.accumulate((product(&windows.kernel) * c) / group.count + 1);
        b.output(x.dtype, [&[n, group.maps], &windows.output[..]].concat());
        Ok(())
    },
    eval: convolve,
    ..OpSpec::BASE
};

pub const CONV_TRANSPOSE: OpSpec = OpSpec {
    code: 0x51,
    name: "ConvTranspose",
    since: 11,
    dtypes: FLOATS,
    doc: "Grouped, strided, dilated transposed convolution over one to three spatial axes, with an optional bias.",
    numerics: Numerics::Accumulated,
    build: build_transposed,
    eval: convolve_transposed,
    ..OpSpec::BASE
};

/// The groups of a convolution, and its output channels.
pub(super) struct Group {
    pub count: Term,
    pub maps: Term,
}

/// Chooses `group`: one, a few, or one for each channel (depthwise).
pub(super) fn declare_group(b: &mut Builder, channels: Term, rank: usize) -> Group {
    let value = b.value(channels).max(1);
    let pick = b.below(16);
    let count = match pick {
        0..6 => Term::constant(1),
        6..12 => {
            let divisors: Vec<i64> = (2..=8).filter(|divisor| value % divisor == 0).collect();
            // With another number the solver has to move the channels.
            let hint = if divisors.is_empty() || b.chance(24) { 1 + b.below(4) as i64 } else { b.one_of(&divisors) };
            b.free_near(1..=8, hint)
        }
        _ => channels,
    };
    if pick >= 6 || b.coin() {
        b.set_int("group", count);
    }
    b.require(count.at_least(1));
    b.require(channels.divisible_by(count));
    // Some output channels for each group, so that there are about as many as one would give an ungrouped layer.
    let size = b.size(rank);
    let each = (b.value(size) / b.value(count).max(1)).max(1 + b.below(2) as i64);
    let each = b.free_near(1..=64, each);
    Group { count, maps: each * count }
}

fn convolve(a: &Args) -> Outputs {
    one(add_bias(convolved(a, a.x(0), a.x(1))?, a.opt(2)))
}

/// `x` convolved with `w` as the attributes say.
pub(super) fn convolved(a: &Args, x: &Tensor, w: &Tensor) -> Result<Tensor, TchError> {
    let (shape, kernel) = (x.size(), w.size());
    if shape.len() < 3 || kernel.len() != shape.len() {
        return Err(unsupported("a convolution without spatial axes"));
    }
    let windows = Windows::of(a, &shape[2..], &kernel[2..])?;
    let (images, maps, group) = (shape[0], kernel[0], a.int("group", 1));
    let result = [&[images, maps], &windows.output[..]].concat();
    if x.numel() == 0 || w.numel() == 0 || windows.output.contains(&0) {
        return Tensor::f_zeros(result, (x.kind(), x.device()));
    }
    if group < 1 || maps % group != 0 || kernel[1] * group != shape[1] {
        return Err(unsupported("groups that do not divide the channels"));
    }
    // One product for each image and group: libtorch's own convolutions of f64 take longer at these sizes.
    let axes = windows.output.len() as i64;
    let taps = windows.unfolded(x, 0.0)?;
    let split = [&[images, group, kernel[1]], &taps.size()[2..]].concat();
    let order: Vec<i64> = [0, 1].into_iter().chain(3..3 + axes).chain([2]).chain(3 + axes..3 + 2 * axes).collect();
    let (each, terms) = (maps / group, kernel[1..].iter().product::<i64>());
    let columns = taps.f_reshape(split)?.f_permute(order)?.f_reshape([images, group, -1, terms])?;
    let products = columns.f_matmul(&w.f_reshape([group, each, terms])?.f_transpose(1, 2)?)?;
    products.f_transpose(2, 3)?.f_reshape(result)
}

pub(super) fn add_bias(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor, TchError> {
    let Some(bias) = bias else { return Ok(y) };
    let mut shape = vec![1; y.dim()];
    shape[1] = bias.numel() as i64;
    y.f_add(&bias.f_reshape(shape)?)
}

fn build_transposed(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 3..=5)?;
    let (n, c, spatial) = (x.shape[0], x.shape[1], &x.shape[2..]);
    let axes = spatial.len();
    let group = declare_group(b, c, x.rank());
    let list = |b: &mut Builder, name: &'static str, omit: u8, count: usize, choices: &[i64]| {
        let (least, most) = (choices[0], choices[2]);
        if b.chance(omit) {
            return vec![Term::constant(least); count];
        }
        let mut choose = || {
            let hint = b.one_of(choices);
            b.free_near(least..=most, hint)
        };
        let terms: Vec<Term> = (0..count).map(|_| choose()).collect();
        b.set(name, Attribute::Ints(terms.clone()));
        terms
    };
    let stride = list(b, "strides", 12, axes, &[1, 2, 3, 2, 3, 2, 3]);
    let dilation = list(b, "dilations", 24, axes, &[1, 2, 3, 2]);
    let padding = declare_padding(b);
    let pads = match padding {
        Padding::Given => list(b, "pads", 48, 2 * axes, &[0, 1, 2]),
        _ => vec![Term::constant(0); 2 * axes],
    };
    let kernel: Vec<Term> = (0..axes).map(|_| free_up_to(b, 4, 4)).collect();
    if !b.chance(56) {
        b.set("kernel_shape", Attribute::Ints(kernel.clone()));
    }
    // With SAME the onnx package infers sizes with the output padding, of which the text says nothing.
    let extra: Vec<Term> = if padding != Padding::Same && b.chance(240) {
        // The text wants less than "stride/dilation": less than the stride satisfies every reading that is in use.
        let extra: Vec<Term> = stride
            .iter()
            .map(|&stride| {
                let hint = b.one_of(&[0, 1, 2, 1, 2, 1, 2]).min(b.value(stride) - 1);
                b.free_near(0..=2, hint)
            })
            .collect();
        b.set("output_padding", Attribute::Ints(extra.clone()));
        extra
    } else {
        vec![Term::constant(0); axes]
    };
    let mut output = Vec::new();
    for i in 0..axes {
        b.require(extra[i].at_most(stride[i] - 1));
        b.require(spatial[i].at_least(1));
        let extent = (kernel[i] - 1) * dilation[i] + 1;
        let reached = (spatial[i] - 1) * stride[i] + extent + extra[i];
        let size = match padding {
            Padding::Given | Padding::None => reached - pads[i] - pads[i + axes],
            Padding::Same => spatial[i] * stride[i],
            Padding::ToShape => {
                let hint = (b.value(reached) - b.below(4) as i64).max(b.value(spatial[i]));
                let size = b.free_near(1..=256, hint);
                // Of shapes smaller than the input the onnx package infers less than the rank.
                b.require(size.at_least(spatial[i]));
                size
            }
        };
        // Padding that is worked out is nowhere negative.
        b.require(size.at_most(reached));
        b.require(size.at_least(1));
        output.push(size);
    }
    if padding == Padding::ToShape {
        b.set("output_shape", Attribute::Ints(output.clone()));
    }
    b.weight(x.dtype, [&[c, group.maps / group.count], &kernel[..]].concat());
    if b.coin() {
        b.weight(x.dtype, [group.maps]);
    }
    b.accumulate((product(&kernel) * c) / group.count + 1);
    b.output(x.dtype, [&[n, group.maps], &output[..]].concat());
    Ok(())
}

/// How a transposed convolution is padded.
#[derive(Clone, Copy, PartialEq)]
enum Padding {
    Given,
    None,
    /// So that each size is multiplied by the stride.
    Same,
    /// So that the output has the size that an attribute says.
    ToShape,
}

/// Chooses `auto_pad`.
fn declare_padding(b: &mut Builder) -> Padding {
    let form = b.one_of(&[Padding::Given, Padding::ToShape, Padding::Same, Padding::ToShape, Padding::None]);
    match form {
        Padding::None => b.set_text("auto_pad", "VALID"),
        Padding::Same | Padding::ToShape if form == Padding::Same || b.coin() => {
            // To a shape it says on which side an odd element goes.
            let mode = b.one_of(&["SAME_UPPER", "SAME_LOWER"]);
            b.set_text("auto_pad", mode);
        }
        _ if b.chance(96) => b.set_text("auto_pad", "NOTSET"),
        _ => {}
    }
    form
}

fn convolve_transposed(a: &Args) -> Outputs {
    let (x, w) = (a.x(0), a.x(1));
    let (shape, kernel) = (x.size(), w.size());
    let axes = shape.len().saturating_sub(2);
    if axes == 0 || kernel.len() != shape.len() {
        return Err(unsupported("a convolution without spatial axes"));
    }
    let list = |name, default: i64, count| a.ints(name).map_or_else(|| vec![default; count], <[i64]>::to_vec);
    let (stride, dilation) = (list("strides", 1, axes), list("dilations", 1, axes));
    let (pads, extra) = (list("pads", 0, 2 * axes), list("output_padding", 0, axes));
    if stride.len() != axes || dilation.len() != axes || pads.len() != 2 * axes || extra.len() != axes {
        return Err(unsupported("a window attribute of a wrong length"));
    }
    let mode = a.text("auto_pad", "NOTSET");
    let group = a.int("group", 1);
    // All that the input can reach, of which padding cuts and to which output padding adds.
    let full: Vec<i64> =
        (0..axes).map(|i| (shape[2 + i] - 1).max(0) * stride[i] + (kernel[2 + i] - 1) * dilation[i] + 1).collect();
    let mut around = Vec::new();
    for i in 0..axes {
        let given = match a.ints("output_shape") {
            Some(sizes) => Some(*sizes.get(i).ok_or_else(|| unsupported("an output_shape of a wrong length"))?),
            None if mode.starts_with("SAME") => Some(shape[2 + i] * stride[i]),
            None => None,
        };
        let (begin, end) = match given {
            Some(size) => {
                let total = full[i] + extra[i] - size;
                let half = total.div_euclid(2);
                let begin = if mode == "SAME_UPPER" { half } else { total - half };
                (begin, total - begin)
            }
            None if mode == "VALID" => (0, 0),
            None => (pads[i], pads[i + axes]),
        };
        around.push((-begin, extra[i] - end));
    }
    let none = None::<Tensor>;
    let (zeros, zero) = (vec![0i64; axes], 0i64);
    let y = match axes {
        _ if x.numel() == 0 || w.numel() == 0 => {
            let shape = [&[shape[0], kernel[1] * group], &full[..]].concat();
            Tensor::f_zeros(shape, (x.kind(), x.device()))?
        }
        1 => x.f_conv_transpose1d(w, none, &stride, zero, zero, group, &dilation)?,
        2 => x.f_conv_transpose2d(w, none, &stride, &zeros, &zeros, group, &dilation)?,
        3 => x.f_conv_transpose3d(w, none, &stride, &zeros, &zeros, group, &dilation)?,
        _ => return Err(unsupported("a convolution over more than three axes")),
    };
    one(add_bias(windows::pad_or_cut(&y, &around, 0.0)?, a.opt(2)))
}

#[cfg(test)]
mod tests {
    use super::super::windows::apply;
    use super::*;
    use crate::dtype::DType::F32;

    const NINE: [f32; 9] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];

    fn values(tensors: &[Tensor]) -> Vec<f32> {
        Vec::try_from(&tensors[0].reshape([-1])).expect("f32 values")
    }

    /// `test_conv_with_autopad_same` and `test_convtranspose_pads` of the ONNX node tests.
    #[test]
    fn the_examples_of_onnx() {
        let x: Vec<f32> = (0..25).map(|i| i as f32).collect();
        let attributes = [
            ("auto_pad", Attribute::Text("SAME_LOWER".to_owned())),
            ("kernel_shape", Attribute::Ints(vec![3, 3])),
            ("strides", Attribute::Ints(vec![2, 2])),
        ];
        let y = apply(&CONV, &[(&x, &[1, 1, 5, 5]), (&[1.0; 9], &[1, 1, 3, 3])], &attributes, &[F32]);
        assert_eq!(values(&y), [12.0, 27.0, 24.0, 63.0, 108.0, 81.0, 72.0, 117.0, 84.0]);
        let attributes = [("strides", Attribute::Ints(vec![3, 2])), ("pads", Attribute::Ints(vec![1, 2, 1, 2]))];
        let y = apply(&CONV_TRANSPOSE, &[(&NINE, &[1, 1, 3, 3]), (&[1.0; 18], &[1, 2, 3, 3])], &attributes, &[F32]);
        assert_eq!(y[0].size(), [1, 2, 7, 3]);
        assert_eq!(values(&y)[..9], [1.0, 1.0, 3.0, 1.0, 1.0, 3.0, 7.0, 4.0, 9.0]);
    }

    /// Padding that leaves nothing of the input, and output padding beyond all that the input reaches.
    #[test]
    fn cuts_go_beyond_the_input() {
        let attributes = [
            ("pads", Attribute::Ints(vec![2, 0])),
            ("strides", Attribute::Ints(vec![3])),
            ("kernel_shape", Attribute::Ints(vec![1])),
        ];
        let y = apply(&CONV, &[(&[7.0], &[1, 1, 1]), (&[1.0], &[1, 1, 1])], &attributes, &[F32]);
        assert_eq!(values(&y), [0.0]);
        let attributes = [
            ("pads", Attribute::Ints(vec![2, 0])),
            ("strides", Attribute::Ints(vec![3])),
            ("output_padding", Attribute::Ints(vec![2])),
        ];
        let operands: [(&[f32], &[i64]); 3] = [(&[7.0], &[1, 1, 1]), (&[1.0], &[1, 1, 1]), (&[0.5], &[1])];
        assert_eq!(values(&apply(&CONV_TRANSPOSE, &operands, &attributes, &[F32])), [0.5]);
    }
}
