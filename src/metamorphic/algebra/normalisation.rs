//! Normalisations by their defining formulas and by each other.

use super::reductions::reduce;
use super::{Rule, Site, rule};
use crate::dtype::DType;
use crate::metamorphic::draft::{Draft, Wire};
use crate::spec::Attribute;
use crate::tensor::TensorData;

/// One value for each channel, laid along axis 1 of a tensor of rank `rank`.
pub fn per_channel(d: &Draft, x: Wire, rank: usize) -> Wire {
    let shape = d.shape(x).filter(|shape| shape.len() == 1 && rank >= 2)?;
    let laid: Vec<usize> = shape.into_iter().chain(std::iter::repeat_n(1, rank - 2)).collect();
    if rank == 2 { x } else { d.reshape(x, &laid) }
}

/// The root of the variance, or of the mean square, with epsilon in it.
fn deviation(s: &Site, square: Wire) -> Wire {
    s.op("Sqrt", &[s.op("Add", &[square, s.float(square, "epsilon", 1e-5)])])
}

/// Zero mean and unit variance along axes.
fn standard(s: &Site, x: Wire, axes: &[usize]) -> Wire {
    let centred = s.op("Sub", &[x, reduce(s, "ReduceMean", x, axes, true)]);
    let square = if s.coin() { s.op("Mul", &[centred, centred]) } else { s.op("Pow", &[centred, s.number(x, 2.0)]) };
    s.op("Div", &[centred, deviation(s, reduce(s, "ReduceMean", square, axes, true))])
}

/// In the type that the text has the first stage computed in: f32 for types of half its size.
fn staged(s: &Site, of: impl FnOnce(Wire) -> Wire) -> Wire {
    let dtype = s.output().dtype;
    if dtype.is_half() { s.cast(of(s.cast(s.x(0), DType::F32)), dtype) } else { of(s.x(0)) }
}

/// Scale and shift of every channel.
fn affine(s: &Site, x: Wire, scale: Wire, bias: Wire) -> Wire {
    let rank = s.rank(x)?;
    s.op("Add", &[s.op("Mul", &[x, per_channel(s, scale, rank)]), per_channel(s, bias, rank)])
}

fn last_axes(s: &Site) -> Option<Vec<usize>> {
    Some((s.axis(-1)?..s.rank(s.x(0))?).collect())
}

pub const RULES: &[Rule] = &[
    rule("batch normalisation = its formula", &["BatchNormalization"], |s| {
        let rank = s.rank(s.x(0))?;
        let of = |x| per_channel(s, x, rank);
        let centred = s.op("Sub", &[s.x(0), of(s.x(3))]);
        let factor = s.op("Div", &[s.x(1), deviation(s, s.x(4))]);
        s.op("Add", &[s.op("Mul", &[centred, of(factor)]), of(s.x(2))])
    }),
    rule("batch normalisation = one product and one sum", &["BatchNormalization"], |s| {
        let fixed = |index| s.fixed(s.x(index)).map(TensorData::to_f64);
        let (scale, bias, mean, variance) = (fixed(1)?, fixed(2)?, fixed(3)?, fixed(4)?);
        let epsilon = s.a.float("epsilon", 1e-5);
        let factor: Vec<f64> = scale.iter().zip(&variance).map(|(scale, v)| scale / (v + epsilon).sqrt()).collect();
        let shift: Vec<f64> = (0..bias.len()).map(|channel| bias[channel] - mean[channel] * factor[channel]).collect();
        let constant = |values: &[f64]| s.constant(TensorData::from_f64(s.output().dtype, &[values.len()], values));
        affine(s, s.x(0), constant(&factor), constant(&shift))
    }),
    rule("instance normalisation = its formula", &["InstanceNormalization"], |s| {
        let axes: Vec<usize> = (2..s.rank(s.x(0))?).collect();
        affine(s, standard(s, s.x(0), &axes), s.x(1), s.x(2))
    }),
    rule("instance normalisation = with a group for each channel", &["InstanceNormalization"], |s| {
        // There are no groups of no channels.
        let channels = Some(s.shape(s.x(0))?[1] as i64).filter(|&channels| channels > 0)?;
        let groups = ("num_groups", Attribute::Int(channels));
        let epsilon = ("epsilon", Attribute::Float(s.a.float("epsilon", 1e-5) as f32));
        s.with("GroupNormalization", &[s.x(0), s.x(1), s.x(2)], vec![groups, epsilon])
    }),
    rule("group normalisation = its formula", &["GroupNormalization"], |s| {
        let (shape, groups) = (s.shape(s.x(0))?, s.a.int("num_groups", 1) as usize);
        let grouped = [shape[0], groups, shape[1..].iter().product::<usize>() / groups];
        let normal = staged(s, |x| s.reshape(standard(s, s.reshape(x, &grouped), &[2]), &shape));
        affine(s, normal, s.x(1), s.x(2))
    }),
    rule("group normalisation = of instances", &["GroupNormalization"], |s| {
        let (shape, groups) = (s.shape(s.x(0))?, s.a.int("num_groups", 1) as usize);
        let grouped = [shape[0], groups, shape[1..].iter().product::<usize>() / groups];
        let epsilon = vec![("epsilon", Attribute::Float(s.a.float("epsilon", 1e-5) as f32))];
        let (one, zero) = (s.filled(s.x(0), &[groups], 1.0), s.filled(s.x(0), &[groups], 0.0));
        let normal = s.with("InstanceNormalization", &[s.reshape(s.x(0), &grouped), one, zero], epsilon);
        affine(s, s.reshape(normal, &shape), s.x(1), s.x(2))
    }),
    rule("layer normalisation = its formula", &["LayerNormalization"], |s| {
        let axes = last_axes(s)?;
        let scaled = s.op("Mul", &[staged(s, |x| standard(s, x, &axes)), s.x(1)]);
        if s.x(2).is_some() { s.op("Add", &[scaled, s.x(2)]) } else { scaled }
    }),
    rule("layer normalisation = of instances", &["LayerNormalization"], |s| {
        let (shape, axes) = (s.shape(s.x(0))?, last_axes(s)?);
        let (rows, columns) = shape.split_at(*axes.first()?);
        let flat = [1, rows.iter().product(), columns.iter().product()];
        let epsilon = vec![("epsilon", Attribute::Float(s.a.float("epsilon", 1e-5) as f32))];
        let (one, zero) = (s.filled(s.x(0), &[flat[1]], 1.0), s.filled(s.x(0), &[flat[1]], 0.0));
        let normal = s.with("InstanceNormalization", &[s.reshape(s.x(0), &flat), one, zero], epsilon);
        let scaled = s.op("Mul", &[s.reshape(normal, &shape), s.x(1)]);
        if s.x(2).is_some() { s.op("Add", &[scaled, s.x(2)]) } else { scaled }
    }),
    rule("root mean square normalisation = its formula", &["RMSNormalization"], |s| {
        let axes = last_axes(s)?;
        let normal = |x| s.op("Div", &[x, deviation(s, reduce(s, "ReduceMean", s.op("Mul", &[x, x]), &axes, true))]);
        s.op("Mul", &[staged(s, normal), s.x(1)])
    }),
    rule("mean-variance normalisation = its formula", &["MeanVarianceNormalization"], |s| {
        let rank = s.rank(s.x(0))? as i64;
        let axes = s.a.ints("axes").unwrap_or(&[0, 2, 3]);
        let axes: Vec<usize> = axes.iter().map(|&axis| axis.rem_euclid(rank.max(1)) as usize).collect();
        let centred = s.op("Sub", &[s.x(0), reduce(s, "ReduceMean", s.x(0), &axes, true)]);
        let variance = reduce(s, "ReduceMean", s.op("Mul", &[centred, centred]), &axes, true);
        let root = s.op("Sqrt", &[variance]);
        s.op("Div", &[centred, s.op("Add", &[root, s.number(root, 1e-9)])])
    }),
];
