//! Images out of columns, and images cut or padded around their centres.

use super::common::as_output;
use super::movement::refuse;
use super::windows::{free_up_to, unsupported};
use crate::dtype::{ANY, DType, NUMBERS};
use crate::limits::MAX_RANK;
use crate::spec::{Args, Attribute, Builder, Exceptional, Numerics, OpSpec, Outputs, Skip};
use crate::term::{Term, product};
use tch::{Device, Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&COL2IM, &CENTER_CROP_PAD];

/// ONNX Col2Im, opset 18. Sums of bools are not defined.
pub const COL2IM: OpSpec = OpSpec {
    code: 0xdb,
    name: "Col2Im",
    since: 18,
    dtypes: NUMBERS,
    doc: "Images in which each column's block is added at the place that it was cut from.",
    numerics: Numerics::Accumulated,
    build: build_col2im,
    eval: col2im,
    can_overflow: true,
    ..OpSpec::BASE
};

fn build_col2im(b: &mut Builder) -> Result<(), Skip> {
    let dtypes = b.legal(b.permitted(b.dtypes()));
    if dtypes.is_empty() {
        return Err(Skip::DType);
    }
    let dtype = b.leaf_dtype(dtypes);
    let axes = match &b.wanted {
        Some(wanted) if wanted.rank() >= 4 => wanted.rank() - 2,
        _ => b.one_of(&[2, 2, 3, 2]),
    };
    let [batch, channels] = [0; 2].map(|_| {
        let hint = b.one_of(&[2, 1, 3, 2, 4]);
        b.size_near(hint)
    });
    let image: Vec<Term> = (0..axes).map(|_| b.size(4)).collect();
    let padded = b.chance(160);
    let pads: Vec<Term> = (0..2 * axes).map(|_| if padded { b.free(0..=2) } else { Term::constant(0) }).collect();
    let room: Vec<i64> = (0..axes).map(|i| b.value(image[i] + pads[i] + pads[i + axes])).collect();
    let (dilates, strides) = (b.chance(208), !b.chance(80));
    // Blocks that leave room for a dilation.
    let widest = |room: i64| if dilates { (room - 1) / 2 + 1 } else { room };
    let block: Vec<Term> = room.iter().map(|&room| free_up_to(b, 4, widest(room))).collect();
    let one = Term::constant(1);
    let limits: Vec<i64> = (0..axes).map(|i| (room[i] - 1) / (b.value(block[i]) - 1).max(1)).collect();
    let dilation: Vec<Term> = limits.iter().map(|&limit| if dilates { free_up_to(b, 3, limit) } else { one }).collect();
    let stride: Vec<Term> = (0..axes).map(|_| if strides { b.free(1..=3) } else { one }).collect();
    let mut counts = Vec::new();
    for i in 0..axes {
        let slack = image[i] + pads[i] + pads[i + axes] - dilation[i] * (block[i] - 1) - 1;
        b.require(slack.at_least(0));
        b.require(image[i].at_least(1));
        counts.push(slack / stride[i] + 1);
    }
    b.input_like(dtype, [batch, channels * product(&block), product(&counts)]);
    for list in [&image, &block] {
        list_operand(b, DType::I64, list);
    }
    for (name, used, list) in
        [("pads", padded, &pads), ("dilations", dilates, &dilation), ("strides", strides, &stride)]
    {
        if used {
            b.set(name, Attribute::Ints(list.clone()));
        }
    }
    b.accumulate(product(&block));
    b.output(dtype, [&[batch, channels], &image[..]].concat());
    Ok(())
}

/// A list that a shape depends on: mostly an initializer that every compiler sees.
fn list_operand(b: &mut Builder, dtype: DType, list: &[Term]) {
    let length = Term::constant(list.len() as i64);
    if b.chance(64) {
        b.fixed(dtype, [length], list.to_vec(), 1);
    } else {
        b.constant_leaf(dtype, vec![length], list.to_vec());
    }
}

fn col2im(a: &Args) -> Outputs {
    let (image, block) = (a.list(1).unwrap_or_default(), a.list(2).unwrap_or_default());
    let axes = image.len();
    let list =
        |name: &str, default: i64, count: usize| a.ints(name).map_or_else(|| vec![default; count], <[i64]>::to_vec);
    let (pads, dilation, stride) = (list("pads", 0, 2 * axes), list("dilations", 1, axes), list("strides", 1, axes));
    if block.len() != axes || dilation.len() != axes || stride.len() != axes || pads.len() != 2 * axes {
        return Err(unsupported("lists of different lengths"));
    }
    let padded: Vec<i64> = (0..axes).map(|i| image[i] + pads[i] + pads[i + axes]).collect();
    let counts: Vec<i64> =
        (0..axes).map(|i| (padded[i] - dilation[i] * (block[i] - 1) - 1).div_euclid(stride[i]) + 1).collect();
    // The place in the padded image of each element of a channel: the offset within the block, then the block.
    let mut place = Tensor::f_zeros([1; 0], (Kind::Int64, Device::Cpu))?;
    for i in 0..axes {
        let positions = |axis: usize, size: i64, step: i64| -> Result<Tensor, TchError> {
            let mut shape = vec![1; 2 * axes];
            shape[axis] = size;
            Tensor::f_arange(size, (Kind::Int64, Device::Cpu))?.f_mul_scalar(step)?.f_reshape(shape)
        };
        let along = positions(i, block[i], dilation[i])?.f_add(&positions(axes + i, counts[i], stride[i])?)?;
        place = place.f_add(&along.f_mul_scalar(padded[i + 1..].iter().product::<i64>())?)?;
    }
    let [batch, rows, columns] = a.shape(0)[..] else { return Err(unsupported("columns of another rank than 3")) };
    let taps: i64 = block.iter().product();
    if taps == 0 || rows % taps != 0 || columns != counts.iter().product::<i64>() {
        return Err(unsupported("columns that do not fit the image"));
    }
    let channels = rows / taps;
    let x = a.x(0).f_reshape([batch * channels, taps * columns])?;
    let pixels: i64 = padded.iter().product();
    let sums = Tensor::f_zeros([batch * channels, pixels], (x.kind(), Device::Cpu))?;
    let sums = sums.f_index_add(1, &place.f_reshape([-1])?, &x)?;
    let mut y = sums.f_reshape([&[batch, channels], &padded[..]].concat())?;
    for i in 0..axes {
        y = y.f_narrow(2 + i as i64, pads[i], image[i])?;
    }
    as_output(a, y)
}

/// ONNX CenterCropPad, opset 18.
pub const CENTER_CROP_PAD: OpSpec = OpSpec {
    code: 0xda,
    name: "CenterCropPad",
    exceptional: Exceptional::Moved,
    since: 18,
    dtypes: ANY,
    doc: "Each axis cut, or padded with zeros, to a given size around its centre.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let mut axes: Vec<usize> = (0..x.rank()).collect();
        if b.chance(160) {
            axes = b.axes(x.rank());
            if axes.is_empty() {
                axes = vec![b.axis(x.rank())];
            }
            let order = b.permutation(axes.len());
            axes = order.into_iter().map(|i| axes[i]).collect();
            let written: Vec<i64> = axes.iter().map(|&axis| b.signed_axis(axis, x.rank())).collect();
            b.set_ints("axes", written);
        }
        let mut shape = x.shape.clone();
        for &axis in &axes {
            // Mostly near to what is there, on either side of it.
            let size = b.value(shape[axis]);
            let change = b.one_of(&[-1, 2, -3, 1, -2, 3, 5, 0]);
            let target =
                if b.chance(64) { b.size(x.rank()) } else { b.size_near((size + change).max(b.smallest_size())) };
            shape[axis] = target;
        }
        let dtype = b.one_of(&[DType::I64, DType::I64, DType::I32]);
        let targets: Vec<Term> = axes.iter().map(|&axis| shape[axis]).collect();
        list_operand(b, dtype, &targets);
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let rank = a.rank(0);
        let axes: Vec<i64> = a.ints("axes").map_or_else(|| (0..rank as i64).collect(), <[i64]>::to_vec);
        let targets = a.list(1).unwrap_or_default();
        if targets.len() != axes.len() {
            return refuse("CenterCropPad with another number of sizes than of axes");
        }
        let mut x = a.x(0).shallow_clone();
        for (axis, target) in axes.into_iter().map(|axis| Args::from_front(axis, rank)).zip(targets) {
            x = center(&x, axis, target)?;
        }
        Ok(vec![x])
    },
    ..OpSpec::BASE
};

fn center(x: &Tensor, axis: i64, target: i64) -> Result<Tensor, TchError> {
    let size = x.size()[axis as usize];
    if target <= size {
        return x.f_narrow(axis, (size - target) / 2, target);
    }
    let begin = (target - size) / 2;
    let zeros = |size| {
        let mut shape = x.size();
        shape[axis as usize] = size;
        Tensor::f_zeros(shape, (x.kind(), Device::Cpu))
    };
    Tensor::f_cat(&[zeros(begin)?, x.shallow_clone(), zeros(target - size - begin)?], axis)
}

#[cfg(test)]
mod tests {
    use super::super::windows::apply;
    use super::*;

    fn col2im(image: &[f32], block: &[f32], x: (&[f32], &[i64]), attributes: &[(&'static str, Vec<i64>)]) -> Vec<f32> {
        let attributes: Vec<_> = attributes.iter().map(|(name, list)| (*name, Attribute::Ints(list.clone()))).collect();
        let axes = image.len() as i64;
        let y = apply(&COL2IM, &[x, (image, &[axes]), (block, &[axes])], &attributes, &[DType::F32]).swap_remove(0);
        Vec::try_from(y.reshape([-1])).expect("f32")
    }

    #[test]
    fn examples_of_onnx() {
        let ones: Vec<f32> = (1..=25).map(|i| i as f32).collect();
        let y = col2im(&[5.0, 5.0], &[1.0, 5.0], (&ones, &[1, 5, 5]), &[]);
        let expected: Vec<f32> = (0..25).map(|i| (i % 5 * 5 + i / 5 + 1) as f32).collect();
        assert_eq!(y, expected);
        let strided: Vec<f32> =
            [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0].iter().flat_map(|&row| [row; 4]).collect();
        let y = col2im(&[5.0, 5.0], &[3.0, 3.0], (&strided, &[1, 9, 4]), &[("strides", vec![2, 2])]);
        let rows = [
            [0., 1., 1., 1., 1.],
            [1., 0., 1., 0., 0.],
            [0., 2., 1., 2., 1.],
            [1., 0., 1., 0., 0.],
            [0., 1., 0., 1., 0.],
        ];
        assert_eq!(y.chunks(5).map(<[f32]>::to_vec).collect::<Vec<_>>()[1..4], rows.map(|row| row.to_vec())[1..4]);
    }

    #[test]
    fn the_odd_element_is_cut_or_added_behind() {
        let x = Tensor::from_slice(&[1i64, 2, 3, 4, 5]);
        let centered = |target| Vec::<i64>::try_from(center(&x, 0, target).expect("a list")).expect("integers");
        assert_eq!(centered(4), [1, 2, 3, 4]);
        assert_eq!(centered(2), [2, 3]);
        assert_eq!(centered(8), [0, 1, 2, 3, 4, 5, 0, 0]);
        assert_eq!(centered(5), [1, 2, 3, 4, 5]);
    }
}
