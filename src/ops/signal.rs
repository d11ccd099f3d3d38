//! Discrete Fourier transforms. Complex numbers are pairs along the last axis.

use super::common::{one, wide};
use super::movement::refuse;
use super::rounding::{defined, error_of, gamma, unless_overflow};
use crate::dtype::{DType, FLOATS};
use crate::limits::MAX_RANK;
use crate::spec::{Args, Builder, Numerics, OpSpec, Skip};
use crate::term::Term;
use std::f64::consts::TAU;
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&DFT, &STFT];

/// ONNX DFT. The axis is an attribute up to opset 19, then an operand with another default.
pub const DFT: OpSpec = OpSpec {
    code: 0xe2,
    name: "DFT",
    since: 17,
    dtypes: FLOATS,
    doc: "The discrete Fourier transform of real or complex numbers along an axis, or its inverse; whole or one-sided.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let plan = Plan::of(a)?;
        let lines = |x: &Tensor| magnitudes(&plan.lines(x, plan.taken())?);
        let most = lines(a.x(0))?;
        let error = transform_error(&most, &lines(&error_of(errors, 0, a.x(0))?)?, plan.length, a.output_dtypes[0])?;
        let error = if plan.inverse { error / plan.length as f64 } else { error };
        let error = error.f_unsqueeze(-1)?.f_transpose(plan.axis, -2)?;
        one(error.f_expand(exact[0].size(), false)?.f_add(&exact[0].f_zeros_like()?))
    }),
    build: build_dft,
    eval: |a| {
        let plan = Plan::of(a)?;
        let x = plan.lines(a.x(0), plan.taken())?;
        let y = match (plan.onesided, plan.inverse) {
            (true, true) => real_signal(&x, plan.length)?,
            (onesided, inverse) => spectrum(&x, plan.length, onesided, inverse)?,
        };
        one(y.f_transpose(plan.axis, -2))
    },
    ..OpSpec::BASE
};

fn build_dft(b: &mut Builder) -> Result<(), Skip> {
    let inverse = b.mostly();
    // Forward of real numbers only, backward of complex ones only.
    let complex = inverse != b.chance(56);
    let onesided = complex == inverse && b.chance(192);
    let last = Term::constant(if complex { 2 } else { 1 });
    let operand = b.opset() >= 20;
    let dtype = b.dtypes();
    let dtype = b.dtype(dtype)?;
    let rank = if operand && b.chance(40) { 2 } else { 3 + b.below(MAX_RANK - 3) };
    let mut wanted = vec![None; rank];
    wanted[rank - 1] = Some(last);
    let x = b.input_shaped(dtype, &wanted);
    let default = if operand { rank - 2 } else { 1 };
    let axis = if b.chance(64) { default } else { b.axis(rank - 1) };
    let size = x.shape[axis];
    b.require(size.at_least(if onesided && inverse { 2 } else { 1 }));
    let mut length = if onesided && inverse { (size - 1) * 2 } else { size };
    let (told, axis_given) = (b.coin(), axis != default || b.coin());
    if told {
        // Shorter or longer signals are cut, or filled up with zeros.
        let now = b.value(length);
        let pick = b.below(8);
        let hint = [now, now + 1, now / 2, now * 2, 8, 16, now - 1, 7][pick].max(1);
        length = b.free_near(1..=64, hint);
        let dtype = b.one_of(&[DType::I64, DType::I64, DType::I32]);
        b.constant_scalar(dtype, length);
    } else if operand && axis_given {
        b.absent();
    }
    let written = b.signed_axis(axis, rank);
    match axis_given {
        true if operand => b.constant_scalar(DType::I64, written),
        true => b.set_int("axis", written),
        false => {}
    }
    for (name, set) in [("inverse", inverse), ("onesided", onesided)] {
        if set || b.coin() {
            b.set_int(name, i64::from(set));
        }
    }
    let mut shape = x.shape;
    shape[axis] = if onesided && !inverse { length / 2 + 1 } else { length };
    shape[rank - 1] = Term::constant(if onesided && inverse { 1 } else { 2 });
    b.accumulate(length * 2);
    b.output(dtype, shape);
    Ok(())
}

/// One application of DFT.
struct Plan {
    axis: i64,
    length: i64,
    inverse: bool,
    onesided: bool,
}

impl Plan {
    fn of(a: &Args) -> Result<Plan, TchError> {
        let shape = a.shape(0);
        let rank = shape.len();
        let (inverse, onesided) = (a.int("inverse", 0) != 0, a.int("onesided", 0) != 0);
        let axis = match a.list(2) {
            Some(axis) => axis.first().copied().unwrap_or(-2),
            None => a.int("axis", if a.opset >= 20 { -2 } else { 1 }),
        };
        let axis = Args::from_front(axis, rank);
        if rank < 2 || !(0..rank as i64 - 1).contains(&axis) {
            return refuse("DFT along an axis that does not exist");
        }
        if onesided && (shape[rank - 1] == 2) != inverse {
            return refuse("one-sided DFT from complex numbers, or back from real ones");
        }
        let size = shape[axis as usize];
        let default = if onesided && inverse { 2 * (size - 1) } else { size };
        let length = a.list(1).and_then(|length| length.first().copied()).unwrap_or(default);
        if length < 1 {
            return refuse("DFT of nothing");
        }
        Ok(Plan { axis, length, inverse, onesided })
    }

    /// How many elements along the axis are used.
    fn taken(&self) -> i64 {
        if self.onesided && self.inverse { self.length / 2 + 1 } else { self.length }
    }

    /// `x` as `[..., n, 1 or 2]` with the axis second to last, cut or filled up to n elements.
    fn lines(&self, x: &Tensor, n: i64) -> Result<Tensor, TchError> {
        let x = x.f_transpose(self.axis, -2)?;
        let size = x.size()[x.dim() - 2];
        if n <= size { x.f_narrow(-2, 0, n) } else { x.f_constant_pad_nd([0, 0, 0, n - size]) }
    }
}

/// |re| + |im| of the elements of `[..., n, 1 or 2]`.
fn magnitudes(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_abs()?.f_sum_dim_intlist([-1].as_slice(), false, tch::Kind::Double)
}

/// cos and sin of the angles `n * k / length` of a turn: `[rows, columns]` each, in the type of `like`.
fn turns(rows: i64, columns: i64, length: i64, like: &Tensor) -> Result<[Tensor; 2], TchError> {
    let angles: Vec<f64> =
        (0..rows * columns).map(|i| TAU * ((i / columns) * (i % columns) % length) as f64 / length as f64).collect();
    let angles = Tensor::from_slice(&angles).f_reshape([rows, columns])?;
    Ok([angles.f_cos()?.f_to_kind(like.kind())?, angles.f_sin()?.f_to_kind(like.kind())?])
}

/// The real and, if there is one, the imaginary part of `[..., 1 or 2]`.
fn parts(x: &Tensor) -> Result<(Tensor, Option<Tensor>), TchError> {
    let imaginary = if x.size().last() == Some(&2) { Some(x.f_select(-1, 1)?) } else { None };
    Ok((x.f_select(-1, 0)?, imaginary))
}

/// The transform of `[..., length, 1 or 2]`, or its inverse.
fn spectrum(x: &Tensor, length: i64, onesided: bool, inverse: bool) -> Result<Tensor, TchError> {
    let bins = if onesided { length / 2 + 1 } else { length };
    let [cos, sin] = turns(length, bins, length, x)?;
    let sin = if inverse { sin.f_neg()? } else { sin };
    let (re, im) = parts(x)?;
    let (mut real, mut imaginary) = (re.f_matmul(&cos)?, re.f_matmul(&sin)?.f_neg()?);
    if let Some(im) = im {
        real = real.f_add(&im.f_matmul(&sin)?)?;
        imaginary = imaginary.f_add(&im.f_matmul(&cos)?)?;
    }
    let y = Tensor::f_stack(&[real, imaginary], -1)?;
    if inverse { y.f_div_scalar(length as f64) } else { Ok(y) }
}

/// The real signal of which `[..., length / 2 + 1, 2]` is the first half of the spectrum.
fn real_signal(x: &Tensor, length: i64) -> Result<Tensor, TchError> {
    let bins = length / 2 + 1;
    let [cos, sin] = turns(bins, length, length, x)?;
    // Each bin stands also for its mirror image, but for the first and that in the middle.
    let twice: Vec<f64> = (0..bins).map(|k| if k == 0 || 2 * k == length { 1.0 } else { 2.0 }).collect();
    let twice = Tensor::from_slice(&twice).f_to_kind(x.kind())?;
    let (re, im) = parts(x)?;
    let mut y = re.f_mul(&twice)?.f_matmul(&cos)?;
    if let Some(im) = im {
        y = y.f_sub(&im.f_mul(&twice)?.f_matmul(&sin)?)?;
    }
    y.f_div_scalar(length as f64)?.f_unsqueeze(-1)
}

/// A bound for every bin of a transform of `[..., n]` magnitudes with their errors: `[..., 1]`.
///
/// Direct summation rounds `length` times, and an angle that is not reduced first is off by its own roundoff. A fast
/// transform of a length that is no power of two is a convolution with a chirp of at least twice the length, whose
/// own spectrum is of the order of the root of its length.
fn transform_error(most: &Tensor, error: &Tensor, length: i64, dtype: DType) -> Result<Tensor, TchError> {
    let n = length as f64;
    let terms = 16.0 * n + 16.0 * n.sqrt() * (4.0 * n).log2() + 16.0;
    // One-sided spectra stand for both sides.
    let sum = |x: &Tensor| Ok::<_, TchError>(x.f_sum_dim_intlist([-1].as_slice(), true, tch::Kind::Double)? * 2.0);
    let (most, error) = (sum(most)?, sum(error)?);
    let reached = &most + &error;
    unless_overflow(defined(error + &reached * gamma(terms, dtype))?, &(reached * n.sqrt()), dtype)
}

/// ONNX STFT, opset 17.
pub const STFT: OpSpec = OpSpec {
    code: 0xe3,
    name: "STFT",
    since: 17,
    dtypes: FLOATS,
    doc: "The discrete Fourier transforms of frames of a signal, weighted with a window.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let frames = Frames::of(a)?;
        let (x, dx) = (frames.cut(&wide(a, 0)?.f_abs()?)?, frames.cut(&error_of(errors, 0, a.x(0))?)?);
        let (most, error) = match a.opt(2) {
            Some(window) => {
                let (w, dw) = (window.f_abs()?.f_unsqueeze(-1)?, error_of(errors, 2, window)?.f_unsqueeze(-1)?);
                let error = &dx * (&w + &dw) + &x * dw;
                (x * w, error)
            }
            None => (x, dx),
        };
        let error = transform_error(&magnitudes(&most)?, &magnitudes(&error)?, frames.length, a.output_dtypes[0])?;
        one(error.f_unsqueeze(-1)?.f_expand(exact[0].size(), false)?.f_add(&exact[0].f_zeros_like()?))
    }),
    build: build_stft,
    eval: |a| {
        let frames = Frames::of(a)?;
        let x = frames.cut(a.x(0))?;
        let x = match a.opt(2) {
            Some(window) => x.f_mul(&window.f_unsqueeze(-1)?)?,
            None => x,
        };
        one(spectrum(&x, frames.length, a.int("onesided", 1) != 0, false))
    },
    ..OpSpec::BASE
};

fn build_stft(b: &mut Builder) -> Result<(), Skip> {
    let complex = b.chance(96);
    let dtypes = b.dtypes();
    let dtype = b.dtype(dtypes)?;
    let x = b.input_shaped(dtype, &[None, None, Some(Term::constant(if complex { 2 } else { 1 }))]);
    let size = x.shape[1];
    let (step, windowed, told) = (b.free(1..=4), b.chance(176), b.coin());
    let index = b.one_of(&[DType::I64, DType::I64, DType::I32]);
    b.constant_scalar(index, step);
    let length = if windowed || told {
        let hint = 1 + b.below(b.value(size).clamp(1, 24) as usize) as i64;
        b.free_near(1..=64, hint)
    } else {
        size
    };
    b.require(size.at_least(length));
    b.require(length.at_least(1));
    if windowed {
        b.weight(dtype, [length]);
    } else if told {
        b.absent();
    }
    if told {
        b.constant_scalar(index, length);
    }
    let onesided = !complex && b.coin();
    // Always written: the text's default is 1, and the onnx package infers shapes as if it were 0.
    b.set_int("onesided", i64::from(onesided));
    let bins = if onesided { length / 2 + 1 } else { length };
    b.accumulate(length * 2);
    b.output(dtype, [x.shape[0], (size - length) / step + 1, bins, Term::constant(2)]);
    Ok(())
}

/// How a signal is cut.
struct Frames {
    step: i64,
    length: i64,
}

impl Frames {
    fn of(a: &Args) -> Result<Frames, TchError> {
        let first = |index| a.list(index).and_then(|list| list.first().copied());
        let window = a.opt(2).map(|window| window.size()[0]);
        let length = first(3).or(window).unwrap_or(a.shape(0)[1]);
        let step = first(1).unwrap_or(0);
        if step < 1 || length < 1 || length > a.shape(0)[1] || window.is_some_and(|window| window != length) {
            return refuse("STFT with frames that do not fit");
        }
        Ok(Frames { step, length })
    }

    /// `[batch, size, 1 or 2]` to `[batch, frames, length, 1 or 2]`.
    fn cut(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_unfold(1, self.length, self.step)?.f_transpose(-1, -2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::assert_near;
    use super::*;
    use crate::dtype::DType::F32;
    use crate::spec::Attribute;

    fn eval(
        spec: &OpSpec,
        operands: Vec<Option<Tensor>>,
        attributes: &[(&'static str, i64)],
        opset: i64,
    ) -> (Vec<i64>, Vec<f64>) {
        let attributes: Vec<_> = attributes.iter().map(|&(name, value)| (name.into(), Attribute::Int(value))).collect();
        let args = Args {
            operand_dtypes: operands.iter().map(|_| Some(F32)).collect(),
            operands,
            attributes: &attributes,
            opset,
            output_dtypes: vec![F32],
            wide: false,
            accumulate: None,
        };
        let y = (spec.eval)(&args).expect("a transform").swap_remove(0);
        let values = Vec::try_from(&y.reshape([-1]).to_kind(tch::Kind::Double)).expect("values");
        (y.size(), values)
    }

    fn real(values: &[f32]) -> Option<Tensor> {
        Some(Tensor::from_slice(values).reshape([1, -1, 1]))
    }

    #[test]
    fn transforms_of_the_text_and_back() {
        let x = [1.0, 2.0, -1.0, 0.5];
        let whole = [2.5, 0.0, 2.0, -1.5, -2.5, 0.0, 2.0, 1.5];
        let (shape, y) = eval(&DFT, vec![real(&x)], &[], 17);
        assert_eq!(shape, [1, 4, 2]);
        assert_near(&y, &whole);
        let (shape, y) = eval(&DFT, vec![real(&x)], &[("onesided", 1)], 20);
        assert_eq!(shape, [1, 3, 2]);
        assert_near(&y, &whole[..6]);
        let half: Vec<f32> = whole[..6].iter().map(|&x| x as f32).collect();
        let half = || Some(Tensor::from_slice(&half).reshape([1, 3, 2]));
        let (shape, y) = eval(&DFT, vec![half()], &[("onesided", 1), ("inverse", 1)], 20);
        assert_eq!(shape, [1, 4, 1]);
        assert_near(&y, &x.map(f64::from));
        // The axis as an operand, and a signal that is filled up.
        let (length, axis) = (Some(Tensor::from(2i64)), Some(Tensor::from(0i64)));
        let (shape, y) = eval(&DFT, vec![real(&x), length, axis], &[], 20);
        assert_eq!(shape, [2, 4, 2]);
        assert_near(&y, &[1.0, 0.0, 2.0, 0.0, -1.0, 0.0, 0.5, 0.0, 1.0, 0.0, 2.0, 0.0, -1.0, 0.0, 0.5, 0.0]);
    }

    #[test]
    fn frames_are_weighted_and_transformed() {
        let window = Some(Tensor::from_slice(&[0.5f32, 1.0]));
        let (shape, y) = eval(&STFT, vec![real(&[2.0, 1.0, 4.0, 3.0]), Some(Tensor::from(2i64)), window], &[], 17);
        assert_eq!(shape, [1, 2, 2, 2]);
        assert_near(&y, &[2.0, 0.0, 0.0, 0.0, 5.0, 0.0, -1.0, 0.0]);
    }
}
