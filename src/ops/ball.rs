//! Balls: tensors with a bound on how far any legal evaluation may be from them. An operator written on balls needs one
//! text for both its `eval` (the values) and its error rule (the radii).

use super::rounding::{REACH, defined, error_of, gamma, underflow, unless, unless_overflow};
use crate::dtype::DType;
use crate::spec::{Args, Outputs};
use tch::{Kind, TchError, Tensor};

/// Values, and the radius around each; rounded in `dtype`.
pub struct Ball {
    pub value: Tensor,
    /// In f64; `None` when only the values are wanted.
    radius: Option<Tensor>,
    dtype: DType,
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
        Ok(Ball { value, radius, dtype: self.args.dtype(index) })
    }

    /// An operand that may be absent.
    pub fn optional(&self, index: usize) -> Result<Option<Ball>, TchError> {
        self.args.opt(index).map(|_| self.ball(index)).transpose()
    }

    /// Certain values, as exact as an operand of type `dtype`.
    pub fn certain(&self, value: Tensor, dtype: DType) -> Balled {
        let radius = self.errors.map(|_| value.f_zeros_like()).transpose()?;
        Ok(Ball { value, radius, dtype })
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
                let spread = spread(radius)?;
                let rounding = (value.f_abs()? + &spread) * (ulps * self.dtype.unit_roundoff());
                let magnitude = value.f_abs()? + &spread;
                Some(unless_overflow(spread + rounding + underflow(self.dtype), &magnitude, self.dtype)?)
            }
            None => None,
        };
        Ok(Ball { value, radius, dtype: self.dtype })
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
        Ok(Ball { value: step(&self.value)?, radius, dtype: self.dtype })
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
        Ok(Ball { value, radius: radii.map(|radii| join(&radii)).transpose()?, dtype: parts[0].dtype })
    }

    pub fn copy(&self) -> Ball {
        let radius = self.radius.as_ref().map(Tensor::shallow_clone);
        Ball { value: self.value.shallow_clone(), radius, dtype: self.dtype }
    }

    pub fn add(&self, other: &Ball) -> Balled {
        self.derived(self.value.f_add(&other.value)?, 1.0, |radius| radius.f_add(other.other()))
    }

    pub fn sub(&self, other: &Ball) -> Balled {
        self.derived(self.value.f_sub(&other.value)?, 1.0, |radius| radius.f_add(other.other()))
    }

    /// `1 - x`.
    pub fn complement(&self) -> Balled {
        let one = self.value.f_ones_like()?;
        self.derived(one.f_sub(&self.value)?, 1.0, |radius| Ok(radius.shallow_clone()))
    }

    /// Elementwise.
    pub fn mul(&self, other: &Ball) -> Balled {
        self.derived(self.value.f_mul(&other.value)?, 1.0, |radius| {
            let reached = other.value.f_abs()? + other.other();
            Ok(self.value.f_abs()? * other.other() + radius * reached)
        })
    }

    /// `factor * x + shift`, whose attributes are rounded, too.
    pub fn affine(&self, factor: f64, shift: f64) -> Balled {
        let scaled = self.derived(self.value.f_mul_scalar(factor)?, 2.0, |radius| Ok(radius * factor.abs()))?;
        if shift == 0.0 {
            return Ok(scaled);
        }
        let size = scaled.value.f_full_like(shift.abs())?;
        scaled.derived(scaled.value.f_add_scalar(shift)?, 1.0, |radius| Ok(radius.shallow_clone()))?.rounded(&size, 1.0)
    }

    /// Within `[low, high]`.
    pub fn clamp(&self, low: f64, high: f64) -> Balled {
        let value = self.value.f_clamp(low, high)?;
        Ok(Ball { value, radius: self.radius.as_ref().map(Tensor::shallow_clone), dtype: self.dtype })
    }

    /// The sum of matrix products and of terms, in any order and any association.
    pub fn sum_of_products(products: &[(&Ball, &Ball)], terms: &[&Ball]) -> Balled {
        let sum = |product: &dyn Fn(&Ball, &Ball) -> Result<Tensor, TchError>,
                   term: &dyn Fn(&Ball) -> Result<Tensor, TchError>| {
            let (x, y) = products[0];
            let sum = products[1..].iter().try_fold(product(x, y)?, |sum, (x, y)| sum.f_add(&product(x, y)?))?;
            terms.iter().try_fold(sum, |sum, x| sum.f_add(&term(x)?))
        };
        let first = products[0].0;
        let value = sum(&|x, y| x.value.f_matmul(&y.value), &|x| Ok(x.value.shallow_clone()))?;
        if first.radius.is_none() {
            return Ok(Ball { value, radius: None, dtype: first.dtype });
        }
        let reached = |x: &Ball| x.value.f_abs()?.f_add(x.other());
        let spread =
            sum(&|x, y| x.value.f_abs()?.f_matmul(y.other())?.f_add(&x.other().f_matmul(&reached(y)?)?), &|x| {
                Ok(x.other().shallow_clone())
            })?;
        let magnitude = sum(&|x, y| reached(x)?.f_matmul(&reached(y)?), &reached)?;
        let depth = products.iter().map(|(x, _)| x.value.size_dim(-1)).sum::<i64>() as f64;
        let count = depth + terms.len() as f64;
        let rounding = &magnitude * gamma(count + 1.0, first.dtype) + (count + 1.0) * underflow(first.dtype);
        let radius = unless_overflow(defined(spread + rounding)?, &magnitude, first.dtype)?;
        Ok(Ball { value, radius: Some(radius), dtype: first.dtype })
    }

    /// The mean along `axes`, which stay.
    pub fn mean(&self, axes: &[i64]) -> Balled {
        let mean = |x: &Tensor| x.f_mean_dim(axes, true, x.kind());
        let value = mean(&self.value)?;
        let count = axes.iter().map(|&axis| self.value.size_dim(axis)).product::<i64>() as f64;
        let Some(radius) = &self.radius else { return Ok(Ball { value, radius: None, dtype: self.dtype }) };
        let reached = mean(&(self.value.f_abs()? + radius))?;
        let error = mean(radius)? + &reached * gamma(count + 1.0, self.dtype) + 2.0 * underflow(self.dtype);
        let radius = unless_overflow(error, &(reached * count), self.dtype)?;
        Ok(Ball { value, radius: Some(radius), dtype: self.dtype })
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
        let size = ball.value.f_full_like(absolute)?;
        ball.rounded(&size, ulps)
    }

    /// With a radius greater by `error`.
    pub fn widened(self, error: &Tensor) -> Balled {
        let radius = self.radius.map(|radius| radius.f_add(&error.f_abs()?)).transpose()?;
        Ok(Ball { value: self.value, radius, dtype: self.dtype })
    }

    /// With the rounding of intermediate results as large as `magnitude`, `ulps` times.
    pub fn rounded(self, magnitude: &Tensor, ulps: f64) -> Balled {
        let error = magnitude * (ulps * self.dtype.unit_roundoff());
        self.widened(&error)
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
        Ok(Ball { value, radius, dtype: self.dtype })
    }

    /// Certainly `filling` where `condition` holds.
    pub fn filled(&self, condition: &Tensor, filling: f64) -> Balled {
        let value = self.value.f_masked_fill(&condition, filling)?;
        let radius = self.radius.as_ref().map(|radius| radius.f_masked_fill(&condition, 0.0)).transpose()?;
        Ok(Ball { value, radius, dtype: self.dtype })
    }

    /// With `count` further elements at the end of the last axis, certainly `filling`.
    pub fn padded(&self, count: i64, filling: f64) -> Balled {
        let mut size = self.value.size();
        *size.last_mut().expect("a mask has an axis") = count;
        let options = (self.value.kind(), self.value.device());
        let more = Tensor::f_full(&size, filling, options)?;
        let radius = self.radius.as_ref().map(|_| more.f_zeros_like()).transpose()?;
        let more = Ball { value: more, radius, dtype: self.dtype };
        Ball::joined(&[self.copy(), more], |parts| Tensor::f_cat(parts, -1))
    }

    /// Softmax along the last axis, where minus infinity has the weight 0, also if there is nothing else.
    pub fn softmax(&self) -> Balled {
        let masked = self.value.f_eq(f64::NEG_INFINITY)?;
        let most = self.value.f_amax([-1], true)?;
        let most = most.f_masked_fill(&most.f_eq(f64::NEG_INFINITY)?, 0.0)?;
        let exponentials = (&self.value - &most).f_exp()?.f_masked_fill(&masked, 0.0)?;
        let sum = exponentials.f_sum_dim_intlist([-1].as_slice(), true, self.value.kind())?;
        let value = exponentials.f_div(&sum.f_masked_fill(&sum.f_eq(0.0)?, 1.0)?)?;
        let Some(radius) = &self.radius else { return Ok(Ball { value, radius: None, dtype: self.dtype }) };
        // How far off each exponent may be, and the mean of it weighted with the results.
        let size = self.value.f_masked_fill(&masked, 0.0)?.f_abs()? + most.f_abs()?;
        let share = (radius + size * (2.0 * self.dtype.unit_roundoff())).f_masked_fill(&masked, 0.0)?;
        let mean = (&value * &share).f_sum_dim_intlist([-1].as_slice(), true, Kind::Double)?;
        let count = value.size_dim(-1) as f64;
        let rounding = gamma(count + 8.0, self.dtype);
        let error = &value * (share + mean).f_expm1()? + &value * rounding + underflow(self.dtype);
        let radius = error.f_masked_fill(&masked, 0.0)?;
        Ok(Ball { value, radius: Some(defined(radius)?), dtype: self.dtype })
    }

    /// Unbounded where `value` is so near to `step` that a legal evaluation may be on its other side.
    pub fn doubtful_near(self, value: &Ball, step: f64) -> Balled {
        let near = |radius: Tensor| {
            let distance = value.value.f_sub_scalar(step)?.f_abs()?;
            unless(&distance.f_le_tensor(&(value.other() * REACH))?, &radius)
        };
        let radius = self.radius.map(near).transpose()?;
        Ok(Ball { value: self.value, radius, dtype: self.dtype })
    }

    /// Unbounded where `condition` holds.
    pub fn unbounded_where(self, condition: &Tensor) -> Balled {
        let radius = self.radius.map(|radius| unless(&condition.f_expand_as(&radius)?, &radius)).transpose()?;
        Ok(Ball { value: self.value, radius, dtype: self.dtype })
    }

    pub fn tanh(&self) -> Balled {
        self.function([4.0, 1.0], Tensor::f_tanh, |x, radius| {
            let tanh = nearest(x, radius)?.f_tanh()?;
            tanh.f_ones_like()?.f_sub(&tanh.f_square()?)
        })
    }

    pub fn exp(&self) -> Balled {
        let ball = self.function([4.0, 0.0], Tensor::f_exp, |x, radius| (x + radius).f_exp())?;
        // Exponents may also be added up first.
        let size = &ball.value * &self.value;
        ball.rounded(&size.f_abs()?, 2.0)
    }

    pub fn sigmoid(&self) -> Balled {
        self.function([4.0, 1.0], Tensor::f_sigmoid, |x, radius| {
            let nearest = nearest(x, radius)?;
            nearest.f_sigmoid()?.f_mul(&nearest.f_neg()?.f_sigmoid()?)
        })
    }

    /// ln(exp(x) + 1), where the exponential may leave the range.
    pub fn softplus(&self) -> Balled {
        let ln = |x: &Tensor| x.f_logaddexp(&x.f_zeros_like()?);
        let ball = self.function([8.0, 0.5], ln, |x, radius| (x + radius).f_sigmoid())?;
        let Some(radius) = &self.radius else { return Ok(ball) };
        ball.unbounded_where(&(&self.value + radius).f_gt(self.dtype.max().ln() - 0.5)?)
    }

    /// `1 / sqrt(x)` of positive values.
    pub fn reciprocal_root(&self) -> Balled {
        self.function([4.0, 0.0], Tensor::f_rsqrt, |x, radius| {
            let least = x.f_sub(radius)?.f_clamp_min(0.0)?;
            Ok(least.f_pow_tensor_scalar(-1.5)? * 0.5)
        })
    }
}

/// The least magnitude within the radius.
pub fn nearest(x: &Tensor, radius: &Tensor) -> Result<Tensor, TchError> {
    x.f_abs()?.f_sub(radius)?.f_clamp_min(0.0)
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
