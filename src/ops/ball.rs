//! Balls: tensors with a bound on how far any legal evaluation may be from them. An operator written on balls needs one
//! text for both its `eval` (the values) and its error rule (the radii).

use super::rounding::{REACH, defined, error_of, gamma, underflow, unless, unless_overflow};
use crate::dtype::DType;
use crate::elements::zip;
use crate::spec::{Args, Outputs};
use tch::{TchError, Tensor};

mod functions;
mod sum;

pub use functions::nearest;
pub use sum::Sum;

/// The share of a type's range beyond which a result may legally overflow.
const NEAR_OVERFLOW: f64 = 0.9;

/// Values, and the radius around each; rounded in `dtype`.
pub struct Ball {
    pub value: Tensor,
    /// In f64; `None` when only the values are wanted.
    radius: Option<Tensor>,
    dtype: DType,
    /// Every radius is 0.
    certain: bool,
}

pub type Balled = Result<Ball, TchError>;

/// The operands of one application, as balls.
pub struct Operands<'a> {
    pub args: &'a Args<'a>,
    errors: Option<&'a [Option<Tensor>]>,
}

impl<'a> Operands<'a> {
    /// For the values alone.
    pub fn exact(args: &'a Args<'a>) -> Self {
        Operands { args, errors: None }
    }

    /// For the radii, too.
    pub fn inexact(args: &'a Args<'a>, errors: &'a [Option<Tensor>]) -> Self {
        Operands { args, errors: Some(errors) }
    }

    /// A required operand.
    pub fn ball(&self, index: usize) -> Balled {
        let value = self.args.x(index).shallow_clone();
        let radius = self.errors.map(|errors| error_of(errors, index, &value)).transpose()?;
        let certain = self.errors.is_some_and(|errors| !matches!(errors.get(index), Some(Some(_))));
        Ok(Ball { value, radius, dtype: self.args.dtype(index), certain })
    }

    /// An operand that may be absent.
    pub fn optional(&self, index: usize) -> Result<Option<Ball>, TchError> {
        self.args.opt(index).map(|_| self.ball(index)).transpose()
    }

    /// Certain values, as exact as an operand of type `dtype`.
    pub fn certain(&self, value: Tensor, dtype: DType) -> Balled {
        let radius = self.errors.map(|_| value.f_zeros_like()).transpose()?;
        Ok(Ball { value, radius, dtype, certain: true })
    }
}

/// The values: the result of an `eval`. Outputs that were not asked for are left out.
pub fn values(a: &Args, balls: Vec<Ball>) -> Outputs {
    let of_output = |(index, ball): (usize, Ball)| ball.value.f_to_kind(a.output_kind(index));
    balls.into_iter().take(a.output_dtypes.len()).enumerate().map(of_output).collect()
}

/// The radii: the result of an error rule.
pub fn radii(a: &Args, balls: Vec<Ball>) -> Outputs {
    let radius = |ball: Ball| defined(ball.radius.expect("made from operands with errors"));
    balls.into_iter().take(a.output_dtypes.len()).map(radius).collect()
}

impl Ball {
    /// A new value, and a radius made only if this ball has one: `spread` gives what operands' radii make of it, on
    /// which the rounding of `ulps` results of that size is laid.
    fn derived(&self, value: Tensor, ulps: f64, spread: impl FnOnce(&Tensor) -> Result<Tensor, TchError>) -> Balled {
        let radius = match &self.radius {
            Some(radius) => {
                let (unit, flushed) = (ulps * self.dtype.unit_roundoff(), underflow(self.dtype));
                let most = NEAR_OVERFLOW * self.dtype.max();
                Some(zip([&value, &spread(radius)?], |[value, spread]| {
                    let magnitude = value.abs() + spread;
                    if magnitude > most { f64::INFINITY } else { spread + (magnitude * unit + flushed) }
                })?)
            }
            None => None,
        };
        Ok(Ball { value, radius, dtype: self.dtype, certain: false })
    }

    /// The type in which it is rounded.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The radius of the other operand of a binary operation.
    fn other(&self) -> &Tensor {
        self.radius.as_ref().expect("both operands have radii, or none")
    }

    /// The same elements elsewhere.
    pub fn moved(&self, step: impl Fn(&Tensor) -> Result<Tensor, TchError>) -> Balled {
        let radius = self.radius.as_ref().map(&step).transpose()?;
        Ok(Ball { value: step(&self.value)?, radius, dtype: self.dtype, certain: self.certain })
    }

    /// Part `index` of `count` equal ones along `axis`.
    pub fn part(&self, axis: i64, index: i64, count: i64) -> Balled {
        let size = self.value.size_dim(axis) / count;
        self.moved(|x| x.f_narrow(axis, index * size, size))
    }

    /// Several side by side, by `f_cat` or `f_stack`.
    pub fn joined(parts: &[Ball], join: impl Fn(&[&Tensor]) -> Result<Tensor, TchError>) -> Balled {
        let value = join(&parts.iter().map(|part| &part.value).collect::<Vec<_>>())?;
        let radii: Option<Vec<&Tensor>> = parts.iter().map(|part| part.radius.as_ref()).collect();
        let certain = parts.iter().all(|part| part.certain);
        Ok(Ball { value, radius: radii.map(|radii| join(&radii)).transpose()?, dtype: parts[0].dtype, certain })
    }

    pub fn copy(&self) -> Ball {
        let radius = self.radius.as_ref().map(Tensor::shallow_clone);
        Ball { value: self.value.shallow_clone(), radius, dtype: self.dtype, certain: self.certain }
    }

    pub fn add(&self, other: &Ball) -> Balled {
        self.derived(self.value.f_add(&other.value)?, 1.0, |radius| radius.f_add(other.other()))
    }

    pub fn sub(&self, other: &Ball) -> Balled {
        self.derived(self.value.f_sub(&other.value)?, 1.0, |radius| radius.f_add(other.other()))
    }

    /// `1 - x`.
    pub fn complement(&self) -> Balled {
        self.derived(self.value.f_neg()?.f_add_scalar(1.0)?, 1.0, |radius| Ok(radius.shallow_clone()))
    }

    /// Elementwise.
    pub fn mul(&self, other: &Ball) -> Balled {
        self.derived(self.value.f_mul(&other.value)?, 1.0, |radius| {
            zip([&self.value, radius, &other.value, other.other()], |[x, radius, y, other]| {
                x.abs() * other + radius * (y.abs() + other)
            })
        })
    }

    /// `factor * x + shift`, whose attributes are rounded, too.
    pub fn affine(&self, factor: f64, shift: f64) -> Balled {
        let scaled = self.derived(self.value.f_mul_scalar(factor)?, 2.0, |radius| Ok(radius * factor.abs()))?;
        if shift == 0.0 {
            return Ok(scaled);
        }
        let shifted = scaled.derived(scaled.value.f_add_scalar(shift)?, 1.0, |radius| Ok(radius.shallow_clone()))?;
        shifted.off_by(shift.abs() * self.dtype.unit_roundoff())
    }

    /// Within `[low, high]`.
    pub fn clamp(&self, low: f64, high: f64) -> Balled {
        let value = self.value.f_clamp(low, high)?;
        Ok(Ball { value, radius: self.radius.as_ref().map(Tensor::shallow_clone), dtype: self.dtype, certain: false })
    }

    /// The sum of matrix products and of terms, in any order and any association.
    pub fn sum_of_products(products: &[(&Ball, &Ball)], terms: &[&Ball]) -> Balled {
        let ((x, y), rest) = products.split_first().expect("a product");
        let sum = rest.iter().try_fold(Sum::of(x, y)?, |sum, (x, y)| sum.plus(Sum::of(x, y)?))?;
        sum.ball(terms)
    }

    /// The largest magnitude within the radius.
    fn reached(&self) -> Result<Tensor, TchError> {
        if self.certain { self.value.f_abs() } else { zip([&self.value, self.other()], |[x, radius]| x.abs() + radius) }
    }

    /// The mean along `axes`, which stay.
    pub fn mean(&self, axes: &[i64]) -> Balled {
        let mean = |x: &Tensor| x.f_mean_dim(axes, true, x.kind());
        let value = mean(&self.value)?;
        let count = axes.iter().map(|&axis| self.value.size_dim(axis)).product::<i64>() as f64;
        let Some(radius) = &self.radius else {
            return Ok(Ball { value, radius: None, dtype: self.dtype, certain: false });
        };
        let reached = mean(&(self.value.f_abs()? + radius))?;
        let error = mean(radius)? + &reached * gamma(count + 1.0, self.dtype) + 2.0 * underflow(self.dtype);
        let radius = unless_overflow(error, &(reached * count), self.dtype)?;
        Ok(Ball { value, radius: Some(radius), dtype: self.dtype, certain: false })
    }

    /// A function whose slope is at most `slope` of values and radii, computed to `ulps` units in the last place of
    /// its result plus `absolute`.
    pub fn function(
        &self,
        [ulps, absolute]: [f64; 2],
        f: impl FnOnce(&Tensor) -> Result<Tensor, TchError>,
        slope: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor, TchError>,
    ) -> Balled {
        let value = f(&self.value)?;
        let ball = self.derived(value, ulps, |radius| Ok(slope(&self.value, radius)? * radius))?;
        ball.off_by(absolute * ulps * self.dtype.unit_roundoff())
    }

    /// With a radius greater by the same everywhere.
    fn off_by(self, error: f64) -> Balled {
        if error == 0.0 {
            return Ok(self);
        }
        let radius = self.radius.map(|radius| radius.f_add_scalar(error)).transpose()?;
        Ok(Ball { value: self.value, radius, dtype: self.dtype, certain: false })
    }

    /// With a radius greater by `share` of `magnitude`.
    pub fn widened(self, share: f64, magnitude: impl FnOnce() -> Result<Tensor, TchError>) -> Balled {
        if share == 0.0 {
            return Ok(self);
        }
        let widen = |radius: Tensor| zip([&radius, &magnitude()?], |[radius, size]| radius + (size * share).abs());
        let radius = self.radius.map(widen).transpose()?;
        Ok(Ball { value: self.value, radius, dtype: self.dtype, certain: false })
    }

    /// With the rounding of intermediate results as large as `magnitude`, `ulps` times.
    pub fn rounded(self, ulps: f64, magnitude: impl FnOnce() -> Result<Tensor, TchError>) -> Balled {
        let unit = ulps * self.dtype.unit_roundoff();
        self.widened(unit, magnitude)
    }

    /// In another type from here on.
    pub fn cast(self, dtype: DType) -> Balled {
        let ulps = if dtype.unit_roundoff() > self.dtype.unit_roundoff() { 1.0 } else { 0.0 };
        let from = Ball { dtype, ..self };
        if ulps == 0.0 { Ok(from) } else { from.derived(from.value.shallow_clone(), ulps, |r| Ok(r.shallow_clone())) }
    }

    /// This where `condition` holds, `other` elsewhere.
    pub fn where_else(&self, condition: &Tensor, other: &Ball) -> Balled {
        let value = self.value.f_where_self(condition, &other.value)?;
        let radius = match &self.radius {
            Some(radius) => Some(radius.f_where_self(condition, other.other())?),
            None => None,
        };
        Ok(Ball { value, radius, dtype: self.dtype, certain: false })
    }

    /// Certainly `filling` where `condition` holds.
    pub fn filled(&self, condition: &Tensor, filling: f64) -> Balled {
        let value = self.value.f_masked_fill(condition, filling)?;
        let radius = self.radius.as_ref().map(|radius| radius.f_masked_fill(condition, 0.0)).transpose()?;
        Ok(Ball { value, radius, dtype: self.dtype, certain: false })
    }

    /// With `count` further elements at the end of the last axis, certainly `filling`.
    pub fn padded(&self, count: i64, filling: f64) -> Balled {
        let mut size = self.value.size();
        *size.last_mut().expect("a mask has an axis") = count;
        let options = (self.value.kind(), self.value.device());
        let more = Tensor::f_full(&size, filling, options)?;
        let radius = self.radius.as_ref().map(|_| more.f_zeros_like()).transpose()?;
        let more = Ball { value: more, radius, dtype: self.dtype, certain: false };
        Ball::joined(&[self.copy(), more], |parts| Tensor::f_cat(parts, -1))
    }

    /// Unbounded where `value` is so near to `step` that a legal evaluation may be on its other side.
    pub fn doubtful_near(self, value: &Ball, step: f64) -> Balled {
        let near = |radius: Tensor| {
            let distance = value.value.f_sub_scalar(step)?.f_abs()?;
            unless(&distance.f_le_tensor(&(value.other() * REACH))?, &radius)
        };
        let radius = self.radius.map(near).transpose()?;
        Ok(Ball { value: self.value, radius, dtype: self.dtype, certain: false })
    }

    /// Unbounded where `condition` holds.
    pub fn unbounded_where(self, condition: &Tensor) -> Balled {
        let radius = self.radius.map(|radius| unless(&condition.f_expand_as(&radius)?, &radius)).transpose()?;
        Ok(Ball { value: self.value, radius, dtype: self.dtype, certain: false })
    }
}

trait Sizes {
    fn size_dim(&self, axis: i64) -> i64;
}

impl Sizes for Tensor {
    /// The size of a dimension, counted from the end when negative.
    fn size_dim(&self, axis: i64) -> i64 {
        self.size()[Args::from_front(axis, self.dim()) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use crate::tensor::TensorData;
    use tch::Kind;

    /// Operands of f32 in f64, with an error each, and another legal value of each.
    fn check(of: impl Fn(&[Ball]) -> Balled, shapes: &[&[i64]]) {
        let _no_grad = reference::init();
        let balls = |kind: Kind, off: f64| -> Vec<Ball> {
            let ball = |shape: &&[i64]| {
                let count: i64 = shape.iter().product();
                let value = (Tensor::arange(count, (Kind::Double, tch::Device::Cpu)) * 0.7).sin().reshape(*shape) * 3.0;
                let value = value.to_kind(Kind::Float).to_kind(Kind::Double);
                let signs =
                    (Tensor::arange(count, (Kind::Double, tch::Device::Cpu)) * 1.3).cos().sign().reshape(*shape);
                let radius = (kind == Kind::Double).then(|| value.full_like(1e-6));
                Ball { value: (value + signs * off).to_kind(kind), radius, dtype: DType::F32, certain: false }
            };
            shapes.iter().map(ball).collect()
        };
        let exact = of(&balls(Kind::Double, 0.0)).unwrap();
        let radius = exact.radius.as_ref().unwrap();
        let largest = f64::try_from(radius.max()).unwrap();
        assert!(largest < 1e-3, "a useless bound: {largest}");
        for off in [0.0, 1e-6, -1e-6] {
            let distance = (of(&balls(Kind::Float, off)).unwrap().value.to_kind(Kind::Double) - &exact.value).abs();
            // To first order: the oracle widens bounds.
            assert!(bool::try_from(distance.le_tensor(&(radius * 1.5)).all()).unwrap(), "{distance} beyond {radius}");
        }
    }

    #[test]
    fn other_legal_values_are_within_the_radius() {
        check(|x| x[0].mul(&x[1])?.add(&x[0])?.sub(&x[1]), &[&[40], &[40]]);
        check(|x| Ball::sum_of_products(&[(&x[0], &x[1])], &[&x[2]]), &[&[3, 20], &[20, 4], &[4]]);
        check(|x| x[0].tanh()?.add(&x[0].sigmoid()?)?.add(&x[0].softplus()?), &[&[40]]);
        check(|x| x[0].affine(2.5, -0.25)?.softmax(), &[&[4, 9]]);
        check(|x| x[0].mul(&x[0])?.mean(&[1])?.affine(1.0, 0.1)?.reciprocal_root(), &[&[5, 6]]);
        check(|x| x[0].exp()?.complement()?.clamp(-5.0, 0.5), &[&[30]]);
    }

    #[test]
    fn an_evaluation_near_a_step_is_unbounded() {
        let value = reference::to_tensor(&TensorData::from_f64(DType::F64, &[3], &[0.9, 1.0 + 1e-7, 1.1]), true);
        let ball = |value: &Tensor| Ball {
            value: value.shallow_clone(),
            radius: Some(value.full_like(1e-6)),
            dtype: DType::F32,
            certain: false,
        };
        let result = ball(&value).doubtful_near(&ball(&value), 1.0).unwrap().radius.unwrap();
        assert_eq!(Vec::<bool>::try_from(result.isfinite()).unwrap(), [true, false, true]);
    }
}
