//! Sliding windows over the spatial axes: what convolutions and pools share.

use crate::spec::{Args, Attribute, Builder};
use crate::term::Term;
use tch::{TchError, Tensor};

/// Whose text a window operator follows, where the texts differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Text {
    Conv,
    MaxPool,
    AveragePool,
    LpPool,
}

/// The kernel and the output's spatial sizes that [`declare`] found.
pub struct Declared {
    pub kernel: Vec<Term>,
    pub output: Vec<Term>,
}

/// Declares the window attributes of an operator over axes of these sizes, and the laws between them.
///
/// Only what the texts decide is declared: in a pool every window holds an element that is not padding,
/// `ceil_mode` starts no window behind the input, and automatic padding is nowhere negative.
pub fn declare(b: &mut Builder, spatial: &[Term], text: Text) -> Declared {
    let axes = spatial.len();
    let pool = text != Text::Conv;
    let sizes: Vec<i64> = spatial.iter().map(|&size| b.value(size)).collect();
    let automatic = b.chance(144);
    let mode = b.one_of(&["SAME_UPPER", "VALID", "SAME_LOWER", "VALID"]);
    let same = automatic && mode != "VALID";
    if automatic {
        b.set_text("auto_pad", mode);
    } else if b.chance(96) {
        b.set_text("auto_pad", "NOTSET");
    }

    let padded = !automatic && !b.chance(32);
    let pads: Vec<Term> = (0..2 * axes).map(|_| if padded { b.free(0..=2) } else { Term::constant(0) }).collect();
    if padded {
        b.set("pads", Attribute::Ints(pads.clone()));
    }
    let begin: Vec<i64> = pads[..axes].iter().map(|&pad| b.value(pad)).collect();
    let room: Vec<i64> = (0..axes).map(|i| begin[i] + b.value(pads[i + axes]) + if same { 2 } else { 0 }).collect();
    let dilates = match text {
        Text::Conv => !b.chance(24),
        // ONNX Runtime is known to leave the dilations out of automatic padding.
        Text::MaxPool => b.chance(if same { 96 } else { 240 }),
        Text::AveragePool => b.opset() >= 19 && b.chance(if same { 96 } else { 240 }),
        // The text leaves them out of automatic padding.
        Text::LpPool => b.opset() >= 18 && !automatic && !b.chance(16),
    };
    let least: Vec<i64> = (0..axes).map(|i| if pool { begin[i].max(b.value(pads[i + axes])) + 1 } else { 1 }).collect();
    // How far apart taps are to be, which the kernel leaves room for.
    let apart: Vec<i64> = (0..axes)
        .map(|i| {
            let most = (sizes[i] + room[i] - 1) / (least[i] - 1).max(1);
            let wanted = if dilates { b.one_of(&[1, 2, 3, 2, 2]) } else { 1 };
            wanted.min(if pool { most.min(sizes[i]) } else { most }).max(1)
        })
        .collect();
    let kernel: Vec<Term> = (0..axes)
        .map(|i| {
            let widest = 5.min((sizes[i] + room[i] - 1) / apart[i] + 1);
            // The distance of one tap from itself says nothing.
            let least = if apart[i] > 1 && widest > least[i] { least[i].max(2) } else { least[i] };
            let span = (widest - least + 1).max(1);
            let hint = least + b.below(span as usize) as i64;
            b.free_near(1..=5, hint)
        })
        .collect();
    if pool || !b.chance(56) {
        b.set("kernel_shape", Attribute::Ints(kernel.clone()));
    }

    let mut dilation = vec![Term::constant(1); axes];
    if dilates {
        for (term, &hint) in dilation.iter_mut().zip(&apart) {
            *term = b.free_near(1..=3, hint);
        }
        b.set("dilations", Attribute::Ints(dilation.clone()));
    }
    let extent: Vec<Term> = (0..axes).map(|i| (kernel[i] - 1) * dilation[i] + 1).collect();

    let rounds = pool && (text != Text::LpPool || b.opset() >= 18);
    let ceil = rounds && !automatic && b.mostly();
    if ceil || (rounds && b.chance(64)) {
        b.set_int("ceil_mode", i64::from(ceil));
    }
    // Before opset 19 the text on AveragePool rounds quotients in another direction than that on its attribute.
    let unclear = text == Text::AveragePool && b.opset() < 19;
    let count_pads = text == Text::AveragePool && b.mostly();
    if count_pads || (text == Text::AveragePool && b.coin()) {
        b.set_int("count_include_pad", i64::from(count_pads));
    }

    let mut stride = vec![Term::constant(1); axes];
    if !b.chance(16) {
        for (i, term) in stride.iter_mut().enumerate() {
            let (size, extent) = (sizes[i], b.value(extent[i]));
            let slack = size + room[i] - extent;
            let first = b.one_of(&[1, 2, 3, 2]);
            // The laws below, on current values.
            let legal = |stride: &i64| match () {
                () if same => !pool || extent >= *stride && (!unclear || size % stride == 0),
                () if automatic => !unclear || (slack + 1) % stride == 0,
                () if ceil && count_pads => slack % stride == 0,
                () if ceil => (slack + stride - 1) / stride * stride < size + begin[i],
                () => true,
            };
            let hint = (0..3).map(|step| (first + step - 1) % 3 + 1).find(legal).unwrap_or(first);
            *term = b.free_near(1..=3, hint);
        }
        b.set("strides", Attribute::Ints(stride.clone()));
    }

    let output = (0..axes)
        .map(|i| {
            let (size, stride) = (spatial[i], stride[i]);
            if pool {
                // The first window's taps reach the input, and none steps over all of it.
                b.require(size.at_least(dilation[i]));
                b.require(pads[i].at_most(kernel[i] - 1));
                b.require(pads[i + axes].at_most(kernel[i] - 1));
            }
            if same {
                let count = size.div_ceil(stride);
                b.require(size.at_least(1));
                if pool {
                    b.require(((count - 1) * stride + extent[i]).at_least(size));
                }
                if unclear {
                    b.require(size.divisible_by(stride));
                }
                return count;
            }
            let slack = size + pads[i] + pads[i + axes] - extent[i];
            b.require(slack.at_least(0));
            if automatic && unclear {
                b.require((slack + 1).divisible_by(stride));
            }
            if ceil && count_pads {
                // Whether the part of a window behind the padding counts is not said.
                b.require(slack.divisible_by(stride));
            }
            let steps = if ceil { slack.div_ceil(stride) } else { slack / stride };
            if ceil {
                b.require((steps * stride).at_most(size + pads[i] - 1));
            }
            steps + 1
        })
        .collect();
    Declared { kernel, output }
}

/// A free integer in `1..=most`, for now at most `limit`.
pub fn free_up_to(b: &mut Builder, most: i64, limit: i64) -> Term {
    free_up_to_from(b, 1, most, limit)
}

/// A free integer in `least..=most`, for now at most `limit`.
fn free_up_to_from(b: &mut Builder, least: i64, most: i64, limit: i64) -> Term {
    let span = (most.min(limit) - least + 1).max(1);
    let hint = least + b.below(span as usize) as i64;
    b.free_near(least..=most, hint)
}

/// The concrete windows of one application, a number for each spatial axis.
pub struct Windows {
    pub kernel: Vec<i64>,
    pub stride: Vec<i64>,
    pub dilation: Vec<i64>,
    /// Padding at the beginning and at the end, as the attributes say.
    pub begin: Vec<i64>,
    pub end: Vec<i64>,
    pub output: Vec<i64>,
    sizes: Vec<i64>,
}

impl Windows {
    /// Reads the window attributes for axes of these sizes.
    pub fn of(a: &Args, sizes: &[i64], kernel: &[i64]) -> Result<Windows, TchError> {
        let axes = sizes.len();
        let list = |name, default: i64, count: usize| -> Result<Vec<i64>, TchError> {
            let values = a.ints(name).map_or_else(|| vec![default; count], <[i64]>::to_vec);
            if values.len() == count { Ok(values) } else { Err(unsupported("a window attribute of a wrong length")) }
        };
        let (stride, dilation) = (list("strides", 1, axes)?, list("dilations", 1, axes)?);
        let pads = list("pads", 0, 2 * axes)?;
        if kernel.len() != axes || stride.iter().chain(&dilation).chain(kernel).any(|&value| value < 1) {
            return Err(unsupported("windows that are not positive"));
        }
        let (mut begin, mut end) = (pads[..axes].to_vec(), pads[axes..].to_vec());
        let mut output = Vec::with_capacity(axes);
        for i in 0..axes {
            let (size, stride, extent) = (sizes[i], stride[i], (kernel[i] - 1) * dilation[i] + 1);
            let count = match a.text("auto_pad", "NOTSET") {
                mode @ ("SAME_UPPER" | "SAME_LOWER") => {
                    let count = (size + stride - 1) / stride;
                    let total = ((count - 1) * stride + extent - size).max(0);
                    begin[i] = if mode == "SAME_UPPER" { total / 2 } else { total - total / 2 };
                    end[i] = total - begin[i];
                    count
                }
                "VALID" => {
                    (begin[i], end[i]) = (0, 0);
                    (size - extent).div_euclid(stride) + 1
                }
                _ => {
                    let slack = size + begin[i] + end[i] - extent;
                    let ceil = a.int("ceil_mode", 0) != 0;
                    let steps = if ceil { (slack + stride - 1).div_euclid(stride) } else { slack.div_euclid(stride) };
                    // A window that would start behind the input is left out.
                    let surplus = ceil && steps * stride >= size + begin[i];
                    steps + 1 - i64::from(surplus)
                }
            };
            if count < 0 {
                return Err(unsupported("a window larger than its input"));
            }
            output.push(count);
        }
        Ok(Windows { kernel: kernel.to_vec(), stride, dilation, begin, end, output, sizes: sizes.to_vec() })
    }

    /// The distance between the first and behind the last tap of a window.
    fn extent(&self, axis: usize) -> i64 {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// `x` padded with `value`, or cut, so that the windows just fit.
    pub fn pad(&self, x: &Tensor, value: f64) -> Result<Tensor, TchError> {
        let around = (0..self.sizes.len()).map(|axis| {
            let needed = (self.output[axis] - 1).max(0) * self.stride[axis] + self.extent(axis);
            (self.begin[axis], needed - self.sizes[axis] - self.begin[axis])
        });
        pad_or_cut(x, &around.collect::<Vec<_>>(), value)
    }

    /// The elements of every window in row-major order: `[N, C, output..., taps]`. Taps in the padding are `value`.
    pub fn taps(&self, x: &Tensor, value: f64) -> Result<Tensor, TchError> {
        let windows = self.unfolded(x, value)?;
        let shape: Vec<i64> = windows.size()[..2 + self.sizes.len()].iter().copied().chain([self.count()]).collect();
        windows.f_reshape(shape)
    }

    /// Every window as a view: `[N, C, output..., kernel...]`. Taps in the padding are `value`.
    pub fn unfolded(&self, x: &Tensor, value: f64) -> Result<Tensor, TchError> {
        if self.output.contains(&0) {
            return Err(unsupported("a pool without windows"));
        }
        let mut windows = self.pad(x, value)?;
        for axis in 0..self.sizes.len() {
            windows = windows.f_unfold(2 + axis as i64, self.extent(axis), self.stride[axis])?;
            if self.dilation[axis] > 1 {
                windows = windows.f_slice(-1, None, None, self.dilation[axis])?;
            }
        }
        Ok(windows)
    }

    /// The axes of [`Windows::unfolded`] that make one window.
    pub fn kernel_axes(&self) -> Vec<i64> {
        (-(self.sizes.len() as i64)..0).collect()
    }

    /// The taps of one window.
    pub fn count(&self) -> i64 {
        self.kernel.iter().product()
    }

    /// How many taps of each window lie within the input, or within the input and its padding: `[output...]`, as f64.
    pub fn present(&self, with_pads: bool) -> Result<Tensor, TchError> {
        let mut all = Tensor::from(1.0f64);
        for axis in 0..self.sizes.len() {
            let (low, high) = if with_pads { (self.begin[axis], self.end[axis]) } else { (0, 0) };
            let within = |position: &i64| (-low..self.sizes[axis] + high).contains(position);
            let counts: Vec<f64> = (0..self.output[axis])
                .map(|window| {
                    let start = window * self.stride[axis] - self.begin[axis];
                    (0..self.kernel[axis]).map(|tap| start + tap * self.dilation[axis]).filter(within).count() as f64
                })
                .collect();
            all = all.f_unsqueeze(-1)?.f_mul(&Tensor::from_slice(&counts))?;
        }
        Ok(all)
    }
}

/// Adds elements before and behind each spatial axis of `x`, or takes some away where the numbers are negative.
pub fn pad_or_cut(x: &Tensor, around: &[(i64, i64)], value: f64) -> Result<Tensor, TchError> {
    // libtorch counts from the last axis.
    let pads: Vec<i64> = around.iter().rev().flat_map(|&(begin, end)| [begin.max(0), end.max(0)]).collect();
    let mut y = if pads.iter().all(|&pad| pad == 0) { x.shallow_clone() } else { x.f_pad(pads, "constant", value)? };
    // Cutting comes second: what is cut at one end may lie in the padding of the other.
    for (axis, &(begin, end)) in (2..).zip(around) {
        if begin < 0 || end < 0 {
            let start = (-begin).max(0);
            y = y.f_narrow(axis, start, y.size()[axis as usize] - start + end.min(0))?;
        }
    }
    Ok(y)
}

/// The error of an `eval` for what it does not compute.
pub fn unsupported(what: &str) -> TchError {
    TchError::Convert(format!("unsupported: {what}"))
}

/// Applies an operator to f32 tensors, in f32, for the literal examples of families' tests.
#[cfg(test)]
pub fn apply(
    spec: &crate::spec::OpSpec,
    operands: &[(&[f32], &[i64])],
    attributes: &[(&'static str, Attribute<i64>)],
    outputs: &[crate::dtype::DType],
) -> Vec<Tensor> {
    let attributes: Vec<_> = attributes.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    let operand =
        |&(values, shape): &(&[f32], &[i64])| (!values.is_empty()).then(|| Tensor::from_slice(values).reshape(shape));
    let args = Args {
        operands: operands.iter().map(operand).collect(),
        operand_dtypes: operands.iter().map(|_| Some(crate::dtype::DType::F32)).collect(),
        attributes: &attributes,
        opset: crate::limits::NEWEST_OPSET,
        output_dtypes: outputs.to_vec(),
        wide: false,
        accumulate: None,
    };
    (spec.eval)(&args).expect("a legal application")
}
