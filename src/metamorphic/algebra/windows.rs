//! Convolutions and pools.

use super::normalisation::per_channel;
use super::products::{cut, inner};
use super::{Rule, Site, ints, rule};
use crate::metamorphic::draft::{Named, Wire};
use crate::spec::Attribute;
use std::borrow::Cow;

const WINDOWS: &[&str] = &["Conv", "MaxPool", "AveragePool"];

/// The sizes of the windows, and the padding at the beginning and the end of each axis, whichever way they are given.
struct Windows {
    kernel: Vec<i64>,
    begin: Vec<i64>,
    end: Vec<i64>,
}

impl Windows {
    fn of(s: &Site) -> Option<Windows> {
        let shape = s.shape(s.x(0))?;
        let axes = shape.len().checked_sub(2)?;
        let kernel: Vec<i64> = match s.a.ints("kernel_shape") {
            Some(kernel) => kernel.to_vec(),
            None => s.shape(s.x(1))?[2..].iter().map(|&size| size as i64).collect(),
        };
        let list = |name, count| {
            s.a.ints(name).map_or_else(|| vec![if count == axes { 1 } else { 0 }; count], <[i64]>::to_vec)
        };
        let (strides, dilations, pads) = (list("strides", axes), list("dilations", axes), list("pads", 2 * axes));
        let (mut begin, mut end) = (pads[..axes].to_vec(), pads[axes..].to_vec());
        let mode = s.a.text("auto_pad", "NOTSET");
        for axis in (0..axes).filter(|_| mode.starts_with("SAME")) {
            let size = shape[axis + 2] as i64;
            let steps = (size + strides[axis] - 1) / strides[axis];
            let reached = (steps - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1;
            let total = (reached - size).max(0);
            begin[axis] = if mode == "SAME_UPPER" { total / 2 } else { total - total / 2 };
            end[axis] = total - begin[axis];
        }
        Some(Windows { kernel, begin, end })
    }

    /// Whether no padding is as wide as the taps of a window: with more of it, as automatic padding of dilated windows may
    /// need, what a pool gives is not settled.
    fn padded_less_than_kernel(&self) -> bool {
        (0..self.kernel.len()).all(|axis| self.begin[axis].max(self.end[axis]) < self.kernel[axis])
    }

    fn pads(&self) -> Vec<i64> {
        [&self.begin[..], &self.end].concat()
    }
}

/// The attributes but those named, and others instead.
fn attributes(s: &Site, without: &[&str], more: Named) -> Named {
    let kept = s.node.attributes.iter().filter(|(name, _)| !without.contains(&name.as_ref()));
    // Every attribute of a window is named in the program text.
    let known = |name: &Cow<'static, str>| match name {
        Cow::Borrowed(name) => Some(*name),
        Cow::Owned(_) => None,
    };
    kept.filter_map(|(name, value)| Some((known(name)?, value.clone()))).chain(more).collect()
}

/// The same windows over other operands.
fn slide(s: &Site, operands: &[Wire], without: &[&str], more: Named) -> Wire {
    s.with(s.node.spec.name, operands, attributes(s, without, more))
}

/// A convolution of some channels with some filters and, if there is one, their bias.
fn convolve(s: &Site, x: Wire, w: Wire, bias: Option<Wire>, groups: usize) -> Wire {
    let operands: Vec<Wire> = [x, w].into_iter().chain(bias).collect();
    slide(s, &operands, &["group"], vec![("group", Attribute::Int(groups as i64))])
}

fn groups(s: &Site) -> usize {
    s.a.int("group", 1) as usize
}

/// The bias cut as the filters are, if there is one.
fn cut_bias(s: &Site, at: usize) -> Option<(Option<Wire>, Option<Wire>)> {
    let bias = s.x(2);
    if bias.is_none() {
        return Some((None, None));
    }
    let (first, second) = cut(s, bias, 0, at);
    (first.is_some() && second.is_some()).then_some((Some(first), Some(second)))
}

pub const RULES: &[Rule] = &[
    rule("bias added after", &["Conv", "ConvTranspose"], |s| {
        let product = slide(s, &[s.x(0), s.x(1)], &[], Vec::new());
        let product = if s.node.spec.name == "Conv" { product } else { s.sums(s.node.accumulate? as usize, product) };
        s.op("Add", &[product, per_channel(s, s.x(2), s.rank(s.x(0))?)])
    }),
    rule("convolution of points = product", &["Conv"], |s| {
        let windows = Windows::of(s)?;
        let ones = |list: Option<&[i64]>| list.is_none_or(|list| list.iter().all(|&number| number == 1));
        let plain = ones(Some(&windows.kernel)) && ones(s.a.ints("strides")) && groups(s) == 1;
        let (shape, maps) = (s.shape(s.x(0))?, s.output().shape[1]);
        let x = s.reshape(s.x(0), &[shape[0], shape[1], shape[2..].iter().product()]);
        let w = s.reshape(s.x(1), &[maps, shape[1]]).filter(|_| plain && windows.pads().iter().all(|&pad| pad == 0));
        let product = s.reshape(s.op("MatMul", &[w, x]), &s.output().shape);
        if s.x(2).is_some() { s.op("Add", &[product, per_channel(s, s.x(2), shape.len())]) } else { product }
    }),
    rule("some filters, then the others", &["Conv"], |s| {
        let at = inner(s, s.x(1), 0).filter(|_| groups(s) == 1)?;
        let ((w0, w1), (b0, b1)) = (cut(s, s.x(1), 0, at), cut_bias(s, at)?);
        s.concat(&[convolve(s, s.x(0), w0, b0, 1), convolve(s, s.x(0), w1, b1, 1)], 1)
    }),
    rule("some groups, then the others", &["Conv"], |s| {
        let groups = groups(s);
        let first = (groups > 1).then(|| 1 + s.below(groups - 1))?;
        let share = |size: usize| size / groups * first;
        let (channels, maps) = (share(s.shape(s.x(0))?[1]), share(s.output().shape[1]));
        let ((x0, x1), (w0, w1)) = (cut(s, s.x(0), 1, channels), cut(s, s.x(1), 0, maps));
        let (b0, b1) = cut_bias(s, maps)?;
        s.concat(&[convolve(s, x0, w0, b0, first), convolve(s, x1, w1, b1, groups - first)], 1)
    }),
    rule("some channels and the others added", &["Conv"], |s| {
        let at = inner(s, s.x(0), 1).filter(|_| groups(s) == 1)?;
        let ((x0, x1), (w0, w1)) = (cut(s, s.x(0), 1, at), cut(s, s.x(1), 1, at));
        let bias = s.x(2).map(Some);
        s.op("Add", &[convolve(s, x0, w0, bias, 1), convolve(s, x1, w1, None, 1)])
    }),
    rule("some images, then the others", &["Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"], |s| {
        let (x0, x1) = cut(s, s.x(0), 0, inner(s, s.x(0), 0)?);
        let rest = &s.node.operands[1..];
        let of = |x| s.again(&[&[x], rest].concat());
        (s.node.outputs.len() == 1).then(|| s.concat(&[of(x0), of(x1)], 0))?
    }),
    rule("automatic padding written out", WINDOWS, |s| {
        let windows = Windows::of(s).filter(|_| s.node.outputs.len() == 1 && s.a.int("ceil_mode", 0) == 0)?;
        let legal = s.node.spec.name == "Conv" || windows.padded_less_than_kernel();
        let pads = vec![("pads", ints(windows.pads()))];
        let written = s.a.attribute("auto_pad").is_some() && legal;
        written.then(|| slide(s, &s.node.operands, &["auto_pad", "pads"], pads))?
    }),
    rule("padding before", WINDOWS, |s| {
        let windows = Windows::of(s).filter(|_| s.node.outputs.len() == 1 && s.a.int("ceil_mode", 0) == 0)?;
        let dtype = s.output().dtype;
        let value = match s.node.spec.name {
            "AveragePool" if s.a.int("count_include_pad", 0) == 0 => return None,
            // Below every valid element.
            "MaxPool" if dtype.is_float() => dtype.min() / 2.0,
            "MaxPool" => dtype.min(),
            _ => 0.0,
        };
        let pads = [&[0, 0], &windows.begin[..], &[0, 0], &windows.end].concat();
        let fill = if value == 0.0 && s.coin() { Vec::new() } else { vec![s.number(s.x(0), value)] };
        let padded = s.op("Pad", &[&[s.x(0), s.integers(&pads)], &fill[..]].concat());
        let needed = windows.pads().iter().any(|&pad| pad > 0);
        let operands = [&[padded.filter(|_| needed)], &s.node.operands[1..]].concat();
        slide(s, &operands, &["auto_pad", "pads"], Vec::new())
    }),
    rule("along a line = over an image", &["Conv", "MaxPool", "AveragePool", "LpPool"], |s| {
        let windows = Windows::of(s).filter(|windows| windows.kernel.len() == 1 && s.node.outputs.len() == 1)?;
        let axis = 2 + s.below(2);
        let widened = |name: &'static str, neutral: i64| {
            let list = s.a.ints(name)?;
            let insert = |number: i64| if axis == 2 { [neutral, number] } else { [number, neutral] };
            let first = insert(list[0]);
            Some((name, ints(first.into_iter().chain(list.get(1).into_iter().flat_map(|&end| insert(end))))))
        };
        let lists = [("strides", 1), ("dilations", 1), ("pads", 0)];
        let mut more: Named = lists.into_iter().filter_map(|(name, neutral)| widened(name, neutral)).collect();
        let kernel = if axis == 2 { [1, windows.kernel[0]] } else { [windows.kernel[0], 1] };
        more.push(("kernel_shape", ints(kernel)));
        let flat = |x| s.op("Unsqueeze", &[x, s.integers(&[axis as i64])]);
        let mut operands = s.node.operands.clone();
        operands.iter_mut().take(2).for_each(|x| *x = flat(*x));
        let image = slide(s, &operands, &["strides", "dilations", "pads", "kernel_shape"], more);
        s.op("Squeeze", &[image, s.integers(&[axis as i64])])
    }),
    rule("mean of windows = convolution of each channel", &["AveragePool"], |s| {
        let windows = Windows::of(s).filter(|_| s.a.int("ceil_mode", 0) == 0)?;
        let counted = s.a.int("count_include_pad", 0) != 0 || windows.pads().iter().all(|&pad| pad == 0);
        let channels = s.shape(s.x(0))?[1];
        let taps: i64 = windows.kernel.iter().product();
        let shape: Vec<usize> =
            [channels, 1].into_iter().chain(windows.kernel.iter().map(|&size| size as usize)).collect();
        let weights = s.filled(s.x(0), &shape, 1.0 / taps as f64).filter(|_| counted && channels > 0);
        let group = vec![("group", Attribute::Int(channels as i64))];
        s.with("Conv", &[s.x(0), weights], attributes(s, &["ceil_mode", "count_include_pad"], group))
    }),
    rule("maximum of windows = half that of 2 x", &["MaxPool"], |s| {
        let double = s.op("Mul", &[s.x(0), s.number(s.x(0), 2.0)]);
        let pooled = s.again(&[double.filter(|_| s.output().dtype.is_float() && s.node.outputs.len() == 1)]);
        s.op("Mul", &[pooled, s.number(pooled, 0.5)])
    }),
];
