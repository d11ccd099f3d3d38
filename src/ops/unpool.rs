//! The partial inverse of a maximum pool.

use super::common::one;
use super::movement::refuse;
use crate::dtype::{DType, FLOATS};
use crate::spec::{Args, Builder, OpSpec, Operand, Skip};
use crate::term::Term;
use tch::TchError;

pub const TABLE: &[&OpSpec] = &[&MAX_UNPOOL];

/// Indices are data of the specification: larger ones would fill whole models.
const MOST_INDICES: i64 = 1 << 10;

/// ONNX MaxUnpool. Where `output_shape` is not that of the attributes, texts and implementations differ in what the
/// indices count.
pub const MAX_UNPOOL: OpSpec = OpSpec {
    code: 0xe4,
    name: "MaxUnpool",
    since: 11,
    dtypes: FLOATS,
    doc: "Zeros, with each element at its index in the flattened output.",
    build: build_unpool,
    eval: |a| {
        let (x, inferred) = (a.x(0), unpooled(a)?);
        let count: i64 = inferred.iter().product();
        let flat = x.f_new_zeros([count], (x.kind(), x.device()))?;
        let y = flat.f_scatter(0, &a.x(1).f_reshape([-1])?, &x.f_reshape([-1])?)?.f_reshape(&inferred)?;
        let Some(wanted) = a.list(2).filter(|wanted| *wanted != inferred) else {
            return Ok(vec![y]);
        };
        if wanted.len() != inferred.len() || wanted.iter().zip(&inferred).any(|(wanted, least)| wanted < least) {
            return refuse("MaxUnpool to a smaller shape");
        }
        // As in the node tests, the inferred output lies in the corner of a larger one.
        let pads = wanted.iter().zip(&inferred).rev().flat_map(|(wanted, least)| [0, wanted - least]);
        one(y.f_constant_pad_nd(pads.collect::<Vec<_>>()))
    },
    ..OpSpec::BASE
};

/// The shape that the attributes give.
fn unpooled(a: &Args) -> Result<Vec<i64>, TchError> {
    let shape = a.shape(0);
    let axes = shape.len().saturating_sub(2);
    let Some(kernel) = a.ints("kernel_shape").filter(|kernel| axes > 0 && kernel.len() == axes) else {
        return refuse("MaxUnpool without a kernel for each axis");
    };
    let stride = a.ints("strides").map_or_else(|| vec![1; axes], <[i64]>::to_vec);
    let pads = a.ints("pads").map_or_else(|| vec![0; 2 * axes], <[i64]>::to_vec);
    if stride.len() != axes || pads.len() != 2 * axes {
        return refuse("MaxUnpool with attributes of other lengths");
    }
    let size = |i: usize| (shape[2 + i] - 1) * stride[i] - pads[i] - pads[axes + i] + kernel[i];
    Ok(shape[..2].iter().copied().chain((0..axes).map(size)).collect())
}

/// How one axis is unpooled.
struct Line {
    stride: i64,
    begin: i64,
    output: i64,
    /// The place of each element's index among its taps, the same for all or, in windows that do not meet, varied.
    taps: Vec<i64>,
}

fn build_unpool(b: &mut Builder) -> Result<(), Skip> {
    let dtypes = b.permitted(b.dtypes());
    let x = b.input_or(dtypes, 3..=5, |b| {
        let rank = b.one_of(&[4, 3, 4, 5]);
        (0..rank).map(|_| b.free(1..=4)).collect()
    })?;
    let sizes: Vec<i64> = x.shape.iter().map(|&dim| b.value(dim)).collect();
    let count: i64 = sizes.iter().product();
    if count > MOST_INDICES {
        return Err(Skip::TooLarge);
    }
    // The indices are numbers, and so are the sizes.
    x.shape.iter().zip(&sizes).for_each(|(dim, &size)| b.require(dim.equals(size)));
    sizes[2..].iter().for_each(|&size| b.require(Term::constant(size).at_least(1)));
    let (padded, strided) = (b.chance(208), !b.chance(40));
    let mut kernel = Vec::new();
    let (mut begins, mut ends) = (Vec::new(), Vec::new());
    let mut lines = Vec::new();
    for &size in &sizes[2..] {
        let stride = if strided { 1 + b.below(3) as i64 } else { 1 };
        let taps = 1 + b.below(3) as i64;
        let (begin, end) = if padded { (b.one_of(&[0, 1, 2, 1]), b.one_of(&[0, 1, 1])) } else { (0, 0) };
        let pick = b.below(256) as i64;
        kernel.push(taps + begin + end);
        begins.push(begin);
        ends.push(end);
        let output = (size - 1) * stride + taps;
        let varied = |i: i64| begin + if stride >= taps { (pick >> (i % 7)) % taps } else { pick % taps };
        lines.push(Line { stride, begin, output, taps: (0..size).map(varied).collect() });
    }
    indices(b, &x, &sizes, &lines);
    let output: Vec<Term> =
        sizes[..2].iter().copied().chain(lines.iter().map(|line| line.output)).map(Term::constant).collect();
    if b.chance(96) {
        b.constant(output.iter().copied());
    }
    b.set_ints("kernel_shape", kernel);
    if padded {
        b.set_ints("pads", begins.into_iter().chain(ends));
    }
    if strided || b.coin() {
        b.set_ints("strides", lines.iter().map(|line| line.stride).collect::<Vec<_>>());
    }
    b.output(x.dtype, output);
    Ok(())
}

/// The operand of indices: a tap of its own for every element.
fn indices(b: &mut Builder, x: &Operand, sizes: &[i64], lines: &[Line]) {
    let count: i64 = sizes.iter().product();
    let index = |element: i64| {
        let mut rest = element;
        let mut position = vec![0; sizes.len()];
        for (axis, &size) in sizes.iter().enumerate().rev() {
            position[axis] = rest % size;
            rest /= size;
        }
        let plane = position[0] * sizes[1] + position[1];
        position[2..]
            .iter()
            .zip(lines)
            .fold(plane, |index, (&i, line)| index * line.output + i * line.stride - line.begin + line.taps[i as usize])
    };
    b.constant_leaf(DType::I64, x.shape.clone(), (0..count).map(index).map(Term::constant).collect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType::{F32, I64};
    use crate::spec::Attribute::Ints;
    use tch::Tensor;

    /// The node tests `test_maxunpool_export_without_output_shape` and `_with_output_shape` of ONNX.
    #[test]
    fn the_examples_of_onnx() {
        let unpool = |x: [f32; 4], index: [i64; 4], shape: Option<[i64; 4]>| {
            let attributes = [("kernel_shape".into(), Ints(vec![2, 2])), ("strides".into(), Ints(vec![2, 2]))];
            let mut operands = vec![
                Some(Tensor::from_slice(&x).reshape([1, 1, 2, 2])),
                Some(Tensor::from_slice(&index).reshape([1, 1, 2, 2])),
            ];
            operands.extend(shape.map(|shape| Some(Tensor::from_slice(&shape))));
            let args = Args {
                operand_dtypes: [Some(F32), Some(I64), Some(I64)][..operands.len()].to_vec(),
                operands,
                attributes: &attributes,
                opset: crate::limits::NEWEST_OPSET,
                output_dtypes: vec![F32],
                wide: false,
                accumulate: None,
            };
            let y = (MAX_UNPOOL.eval)(&args).expect("an unpooled image").swap_remove(0);
            Vec::<f32>::try_from(&y.reshape([-1])).expect("values")
        };
        let y = unpool([1.0, 2.0, 3.0, 4.0], [5, 7, 13, 15], None);
        assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 4.0]);
        let y = unpool([5.0, 6.0, 7.0, 8.0], [5, 7, 13, 15], Some([1, 1, 5, 5]));
        assert_eq!(y[5..15], [0.0, 5.0, 0.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(y[15..20], [0.0, 7.0, 0.0, 8.0, 0.0]);
    }
}
