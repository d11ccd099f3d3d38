//! Steps of patterns as models have them that were quantised after training: every operator between tensors that are
//! dequantised before it and quantised behind it, which optimisers turn into one operator on integers.

use super::conv::CONV;
use super::quantize::{DEQUANTIZE, QUANTIZE};
use super::scales::{BYTES, SCALES, scales, values, zero_points};
use crate::dtype::{DType, DTypes};
use crate::spec::{ANY_RANK, Builder, Domain, OpSpec, Skip};
use crate::term::{Term, product};

const SINGLE: DTypes = DTypes::of(&[DType::F32]);

/// Declares a scale and a zero point of this shape.
fn parameters(b: &mut Builder, scale: DType, dtype: DType, shape: Vec<Term>) {
    let domain = scales(b, scale);
    b.weight_in(scale, shape.clone(), domain);
    let domain = zero_points(b, dtype);
    b.weight_in(dtype, shape, domain);
}

/// QuantizeLinear by a scale and a zero point for all of x or, now and then, for each channel.
pub const QUANTIZED: OpSpec = OpSpec {
    build: |b| {
        let x = b.input_in_any_lane(SCALES, ANY_RANK)?;
        let to = b.one_of(&[DType::U8, DType::I8]);
        let shape = if x.rank() > 1 && b.chance(64) { vec![x.shape[1]] } else { Vec::new() };
        parameters(b, x.dtype, to, shape);
        b.output(to, x.shape);
        Ok(())
    },
    ..QUANTIZE
};

/// DequantizeLinear by the scale and the zero point of a [`QUANTIZED`].
pub const DEQUANTIZED: OpSpec = OpSpec {
    build: |b| {
        let x = b.input_in_any_lane(BYTES, ANY_RANK)?;
        let scale = b.input_in_any_lane(SCALES, 0..=1)?;
        b.input_in_any_lane(BYTES, 0..=1)?;
        b.output(scale.dtype, x.shape);
        Ok(())
    },
    ..DEQUANTIZE
};

/// Images out of a quantised tensor.
pub const DEQUANTIZED_IMAGES: OpSpec = OpSpec {
    build: |b| {
        let values = values(b);
        let x = b.input_in_domain(BYTES, 4..=4, values)?;
        parameters(b, DType::F32, x.dtype, Vec::new());
        b.output(DType::F32, x.shape);
        Ok(())
    },
    ..DEQUANTIZE
};

/// The kernel of a convolution out of quantised weights, with a scale for all or for each output channel.
pub const DEQUANTIZED_KERNEL: OpSpec = OpSpec {
    build: |b| {
        let shape = vec![b.size(4), b.size(4), b.free(1..=3), b.free(1..=3)];
        let dtype = b.one_of(&[DType::I8, DType::I8, DType::U8]);
        b.weight_in(dtype, shape.clone(), Domain::Range(dtype.min(), dtype.max()));
        let each = b.coin();
        if each {
            b.set_int("axis", 0);
        }
        parameters(b, DType::F32, dtype, if each { vec![shape[0]] } else { Vec::new() });
        b.output(DType::F32, shape);
        Ok(())
    },
    ..DEQUANTIZE
};

/// The convolution of existing images with an existing kernel.
pub const KERNEL_CONV: OpSpec = OpSpec { build: build_convolution, ..CONV };

fn build_convolution(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(SINGLE, 4..=4)?;
    let w = b.input(SINGLE, 4..=4)?;
    let ([n, channels, height, width], [maps, depth, rows, columns]) = (x.nchw(), w.nchw());
    b.require(depth.equals(channels));
    let pads = b.attr_list("pads", 4, 0..=1);
    let strides = b.attr_list("strides", 2, 1..=2);
    if !b.chance(64) {
        b.set_ints("dilations", [1, 1]);
    }
    let mut output = vec![n, maps];
    for (axis, (size, kernel)) in [(height, rows), (width, columns)].into_iter().enumerate() {
        let slack = size + pads[axis] + pads[axis + 2] - kernel;
        b.require(slack.at_least(0));
        output.push(slack / strides[axis] + 1);
    }
    b.accumulate(product(&[channels, rows, columns]) + 1);
    b.output(x.dtype, output);
    Ok(())
}
