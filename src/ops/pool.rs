//! Pools over windows and over whole images, and local response normalization.

use super::common::{as_output, is_float, one};
use super::windows::{self, Text, Windows, unsupported};
use crate::dtype::{DType, DTypes, FLOATS};
use crate::spec::{Args, Builder, Numerics, OpSpec, Outputs, Skip};
use crate::term::{Term, product};
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] =
    &[&MAX_POOL, &AVERAGE_POOL, &LP_POOL, &GLOBAL_AVERAGE_POOL, &GLOBAL_MAX_POOL, &GLOBAL_LP_POOL, &LRN];

pub const MAX_POOL: OpSpec = OpSpec {
    code: 0x52,
    name: "MaxPool",
    since: 12,
    dtypes: FLOATS.or(DTypes::of(&[DType::I8, DType::U8])),
    doc: "The maximum of each window, and on demand its index in the flattened input.",
    // The maximum of the errors of a window bounds the error of its maximum. Padding never wins.
    numerics: Numerics::Exact,
    build: |b| {
        let x = b.input(b.dtypes(), 3..=5)?;
        let windows = windows::declare(b, &x.shape[2..], Text::MaxPool);
        let indices = b.chance(100);
        // It is the order in which the indices count.
        let columns = indices && b.mostly();
        if columns || b.chance(48) {
            b.set_int("storage_order", i64::from(columns));
        }
        b.accumulate(product(&windows.kernel));
        let shape: Vec<Term> = x.shape[..2].iter().chain(&windows.output).map(|&dim| b.named(dim)).collect();
        b.output(x.dtype, shape.clone());
        if indices {
            b.output(DType::I64, shape);
        }
        Ok(())
    },
    eval: max_pool,
    ..OpSpec::BASE
};

pub const AVERAGE_POOL: OpSpec = OpSpec {
    code: 0x53,
    name: "AveragePool",
    since: 11,
    dtypes: FLOATS,
    doc: "The mean of each window, with or without its padding.",
    numerics: Numerics::Accumulated,
    build: |b| build_pool(b, Text::AveragePool),
    eval: |a| {
        let windows = pool_windows(a)?;
        let divisor = windows.present(a.int("count_include_pad", 0) != 0)?.f_to_kind(a.x(0).kind())?;
        let sum = windows.unfolded(a.x(0), 0.0)?.f_sum_dim_intlist(windows.kernel_axes(), false, None)?;
        one(sum.f_div(&divisor))
    },
    ..OpSpec::BASE
};

pub const LP_POOL: OpSpec = OpSpec {
    code: 0x54,
    name: "LpPool",
    range: Some((0.0, f64::INFINITY)),
    since: 11,
    dtypes: FLOATS,
    doc: "The Lp norm of each window.",
    numerics: Numerics::Custom(|a, errors, _| {
        let windows = pool_windows(a)?;
        let x = windows.taps(a.x(0), 0.0)?;
        let error = errors[0].as_ref().map(|error| windows.taps(error, 0.0)).transpose()?;
        one(norm_error(a, &x, error.as_ref()))
    }),
    build: |b| {
        declare_norm(b);
        build_pool(b, Text::LpPool)
    },
    eval: |a| one(norm(&pool_windows(a)?.taps(a.x(0), 0.0)?, a.int("p", 2))),
    ..OpSpec::BASE
};

pub const GLOBAL_AVERAGE_POOL: OpSpec = OpSpec {
    code: 0x55,
    name: "GlobalAveragePool",
    since: 1,
    dtypes: FLOATS,
    doc: "The mean of each channel.",
    numerics: Numerics::Accumulated,
    build: build_global,
    eval: |a| global(a, |x| x.f_mean_dim(-1, false, None)),
    ..OpSpec::BASE
};

pub const GLOBAL_MAX_POOL: OpSpec = OpSpec {
    code: 0x56,
    name: "GlobalMaxPool",
    since: 1,
    dtypes: FLOATS,
    doc: "The maximum of each channel.",
    build: build_global,
    eval: |a| global(a, |x| x.f_amax(-1, false)),
    ..OpSpec::BASE
};

pub const GLOBAL_LP_POOL: OpSpec = OpSpec {
    code: 0x57,
    name: "GlobalLpPool",
    range: Some((0.0, f64::INFINITY)),
    since: 2,
    dtypes: FLOATS,
    doc: "The Lp norm of each channel.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let error = errors[0].as_ref().map(spread).transpose()?;
        one(norm_error(a, &spread(a.x(0))?, error.as_ref())?.f_reshape(exact[0].size()))
    }),
    build: |b| {
        declare_norm(b);
        build_global(b)
    },
    eval: |a| global(a, |x| norm(x, a.int("p", 2))),
    ..OpSpec::BASE
};

pub const LRN: OpSpec = OpSpec {
    code: 0x5e,
    name: "LRN",
    dtypes: FLOATS,
    doc: "x / (bias + alpha / size * the sum of squares over `size` neighbouring channels) ^ beta.",
    numerics: Numerics::Custom(local_response_error),
    build: |b| {
        // Images, as most implementations want them; the text allows other ranks.
        let ranks = if b.chance(48) { 3..=5 } else { 4..=4 };
        let x = b.input(b.dtypes(), ranks)?;
        b.require(x.shape[1].at_least(1));
        // Few implementations take even sizes, though the text says what they mean.
        let size = if b.chance(48) { b.one_of(&[2, 4]) } else { b.one_of(&[1, 3, 3, 5, 7]) };
        b.set_int("size", size);
        for (name, choices) in
            [("alpha", [1e-4, 0.02, 0.5, 1.0]), ("beta", [0.75, 0.5, 1.0, 0.25]), ("bias", [1.0, 0.5, 2.0, 4.0])]
        {
            if !b.chance(40) {
                let value = b.one_of(&choices);
                b.set_float(name, value);
            }
        }
        b.accumulate(size);
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        let (x, base) = (a.x(0), local_response_base(a, a.x(0))?);
        one(x.f_mul(&base.f_pow_tensor_scalar(-a.float("beta", 0.75))?))
    },
    guard: Some(|a| one(local_response_base(a, a.x(0))?.f_sub_scalar(1e-3))),
    ..OpSpec::BASE
};

fn build_pool(b: &mut Builder, text: Text) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 3..=5)?;
    let windows = windows::declare(b, &x.shape[2..], text);
    b.accumulate(product(&windows.kernel));
    b.output(x.dtype, [&x.shape[..2], &windows.output[..]].concat());
    Ok(())
}

/// `[N, C, D1, ...]` to `[N, C, 1, ...]`.
fn build_global(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 3..=5)?;
    let (kept, spatial) = x.shape.split_at(2);
    for dim in spatial {
        b.require(dim.at_least(1));
    }
    b.accumulate(product(spatial));
    b.output(x.dtype, [kept, &vec![Term::constant(1); spatial.len()]].concat());
    Ok(())
}

fn declare_norm(b: &mut Builder) {
    if !b.chance(56) {
        let p = b.one_of(&[1, 2, 3, 4]);
        b.set_int("p", p);
    }
}

fn pool_windows(a: &Args) -> Result<Windows, TchError> {
    let shape = a.shape(0);
    let kernel = a.ints("kernel_shape").ok_or_else(|| unsupported("a pool without kernel_shape"))?;
    if shape.len() < 3 {
        return Err(unsupported("a pool without spatial axes"));
    }
    Windows::of(a, &shape[2..], kernel)
}

fn max_pool(a: &Args) -> Outputs {
    let (x, windows) = (a.x(0), pool_windows(a)?);
    let lowest = match x.kind() {
        Kind::Int8 => f64::from(i8::MIN),
        Kind::Uint8 => 0.0,
        kind if is_float(kind) => f64::NEG_INFINITY,
        _ => return Err(unsupported("MaxPool of this type")),
    };
    if a.output_dtypes.len() < 2 {
        return one(windows.unfolded(x, lowest)?.f_amax(windows.kernel_axes(), false));
    }
    let taps = windows.taps(x, lowest)?;
    let largest = taps.f_amax(-1, false)?;
    let shape = x.size();
    let (images, spatial) = (shape[0] * shape[1], &shape[2..]);
    let options = (Kind::Int64, x.device());
    let volume: i64 = spatial.iter().product();
    let mut position = Tensor::f_arange(volume, options)?;
    if a.int("storage_order", 0) == 1 {
        // Position (d1, d2, ...) becomes d1 + D1 * (d2 + ...).
        let reversed: Vec<i64> = spatial.iter().rev().copied().collect();
        let order: Vec<i64> = (0..spatial.len() as i64).rev().collect();
        position = position.f_reshape(reversed)?.f_permute(order)?;
    }
    let position = position.f_reshape([&[1, 1], spatial].concat())?;
    // Padding has no position. The first of equal elements is taken, as all known implementations do.
    let position = windows.taps(&position, -1.0)?;
    let found = taps.f_eq_tensor(&largest.f_unsqueeze(-1)?)?.f_logical_and(&position.f_ge(0)?)?;
    let first = found.f_to_kind(Kind::Uint8)?.f_argmax(-1, true)?;
    let within = position.f_expand_as(&taps)?.f_gather(-1, &first, false)?.f_squeeze_dim(-1)?;
    let mut leading = vec![1; shape.len()];
    leading[..2].copy_from_slice(&shape[..2]);
    let image = (Tensor::f_arange(images, options)? * volume).f_reshape(leading)?;
    Ok(vec![largest, within.f_add(&image)?])
}

/// `[N, C, everything else]`.
fn spread(x: &Tensor) -> Result<Tensor, TchError> {
    let shape = x.size();
    if shape.len() < 3 {
        return Err(unsupported("a pool without spatial axes"));
    }
    x.f_reshape([shape[0], shape[1], shape[2..].iter().product()])
}

fn global(a: &Args, reduce: impl FnOnce(&Tensor) -> Result<Tensor, TchError>) -> Outputs {
    let reduced = reduce(&spread(a.x(0))?)?;
    let shape: Vec<i64> = reduced.size().into_iter().chain(vec![1; a.rank(0) - 2]).collect();
    as_output(a, reduced.f_reshape(shape)?)
}

/// The Lp norm over the last axis; with the gradient 0, not NaN, where all is 0.
fn norm(x: &Tensor, p: i64) -> Result<Tensor, TchError> {
    let sum = x.f_abs()?.f_pow_tensor_scalar(p)?.f_sum_dim_intlist(-1, false, None)?;
    let empty = sum.f_eq(0.0)?;
    sum.f_masked_fill(&empty, 1.0)?.f_pow_tensor_scalar(1.0 / p as f64)?.f_masked_fill(&empty, 0.0)
}

/// The error of [`norm`] over the last axis. The norm of the errors bounds what they change; the powers and the sum
/// round, the root has an inexact exponent, and small powers may be flushed to 0.
fn norm_error(a: &Args, x: &Tensor, error: Option<&Tensor>) -> Result<Tensor, TchError> {
    let p = a.int("p", 2);
    let dtype = a.dtype(0);
    let count = x.size().last().copied().unwrap_or(1) as f64;
    let sum = x.f_abs()?.f_pow_tensor_scalar(p)?.f_sum_dim_intlist(-1, false, None)?;
    let root = |sum: &Tensor| sum.f_pow_tensor_scalar(1.0 / p as f64);
    let value = root(&sum)?;
    let flushed = root(&(&sum + count * dtype.min_positive()))? - &value;
    let logarithm = sum.f_clamp_min(dtype.min_positive())?.f_log()?.f_abs()?;
    let rounding = (logarithm + (count + 8.0 + p as f64) / p as f64 + 8.0) * dtype.unit_roundoff();
    let mut bound = &value * rounding + flushed;
    if let Some(error) = error {
        bound += norm(error, p)?;
    }
    // The powers may overflow where their root does not.
    bound.f_masked_fill(&sum.f_gt(dtype.max() * 0.5)?, f64::INFINITY)
}

/// The sum of `x` over the neighbouring channels that LRN's `size` names.
fn neighbours(a: &Args, x: &Tensor) -> Result<Tensor, TchError> {
    let size = a.int("size", 1);
    let before = (size - 1).div_euclid(2);
    let mut pads = vec![0; 2 * (x.dim() - 1)];
    let last = pads.len();
    pads[last - 2..].copy_from_slice(&[before, size - 1 - before]);
    x.f_pad(pads, "constant", 0.0)?.f_unfold(1, size, 1)?.f_sum_dim_intlist(-1, false, None)
}

fn local_response_base(a: &Args, x: &Tensor) -> Result<Tensor, TchError> {
    if a.rank(0) < 2 || a.int("size", 0) < 1 {
        return Err(unsupported("LRN of less than a batch of channels"));
    }
    let scale = a.float("alpha", 1e-4) / a.int("size", 1) as f64;
    neighbours(a, &x.f_square()?)?.f_mul_scalar(scale)?.f_add_scalar(a.float("bias", 1.0))
}

fn local_response_error(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let dtype = a.dtype(0);
    let (u, size) = (dtype.unit_roundoff(), a.int("size", 1) as f64);
    let (alpha, beta, bias) = (a.float("alpha", 1e-4), a.float("beta", 0.75), a.float("bias", 1.0));
    let x = a.x(0);
    let error = errors[0].as_ref().map_or_else(|| x.f_zeros_like(), |error| Ok(error.shallow_clone()))?;
    let base = local_response_base(a, x)?;
    let squares = neighbours(a, &x.f_square()?)?;
    let moved = neighbours(a, &(x.f_abs()? * &error * 2.0 + error.f_square()?))?;
    let scale = (alpha / size).abs();
    // The sum of one channel may be made from that of the channel before, by adding one square and subtracting another:
    // then the roundings of all channels' sums add up.
    let every = x.f_square()?.f_sum_dim_intlist([1].as_slice(), true, None)?;
    let running = (every * (scale * size) + bias.abs() * x.size()[1] as f64) * (2.0 * u);
    let change = moved * scale
        + (&squares * scale + bias.abs()) * ((size + 6.0) * u)
        + running
        + size * scale * dtype.min_positive();
    // At or below 0 nothing can be said.
    let low = &base - &change;
    let doubtful = low.f_le(0.0)?.f_logical_or(&squares.f_gt(dtype.max() * 0.5)?)?;
    // By the mean value theorem: a difference of two powers would vanish in rounding where the change is small.
    let low = low.f_clamp_min(f64::MIN_POSITIVE)?;
    let widest = low.f_pow_tensor_scalar(-beta)?.f_maximum(&(&base + &change).f_pow_tensor_scalar(-beta)?)?;
    let spread = &widest * change / low * beta.abs();
    let rounding = (base.f_abs()?.f_clamp_min(f64::MIN_POSITIVE)?.f_log()?.f_abs()? * beta.abs() + 16.0) * u;
    let bound = (x.f_abs()? + &error) * spread + error * widest + exact[0].f_abs()? * rounding;
    one(bound.f_masked_fill(&doubtful, f64::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::super::windows::apply;
    use super::*;
    use crate::dtype::DType::{F32, I64};
    use crate::spec::Attribute;

    /// `test_maxpool_2d_ceil`, `test_averagepool_2d_ceil` and `test_maxpool_with_argmax_2d_precomputed_strides` of the
    /// ONNX node tests.
    #[test]
    fn the_examples_of_onnx() {
        let x: Vec<f32> = (1..=25).map(|i| i as f32).collect();
        let attributes = [
            ("kernel_shape", Attribute::Ints(vec![3, 3])),
            ("strides", Attribute::Ints(vec![2, 2])),
            ("ceil_mode", Attribute::Int(1)),
        ];
        let values =
            |tensor: &Tensor| Vec::<f64>::try_from(&tensor.reshape([-1]).to_kind(Kind::Double)).expect("values");
        let pool = |spec| values(&apply(spec, &[(&x[..16], &[1, 1, 4, 4])], &attributes, &[F32])[0]);
        assert_eq!(pool(&MAX_POOL), [11.0, 12.0, 15.0, 16.0]);
        assert_eq!(pool(&AVERAGE_POOL), [6.0, 7.5, 12.0, 13.5]);
        let attributes = [
            ("kernel_shape", Attribute::Ints(vec![2, 2])),
            ("strides", Attribute::Ints(vec![2, 2])),
            ("storage_order", Attribute::Int(1)),
        ];
        let y = apply(&MAX_POOL, &[(&x, &[1, 1, 5, 5])], &attributes, &[F32, I64]);
        assert_eq!(values(&y[0]), [7.0, 9.0, 17.0, 19.0]);
        assert_eq!(values(&y[1]), [6.0, 16.0, 8.0, 18.0]);
    }
}
