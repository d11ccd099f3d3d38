//! Functions of balls.

use super::super::rounding::{defined, gamma, underflow};
use super::{Ball, Balled, Sizes};
use crate::elements::zip;
use tch::{Kind, TchError, Tensor};

impl Ball {
    pub fn tanh(&self) -> Balled {
        self.function([4.0, 1.0], Tensor::f_tanh, |x, radius| {
            let tanh = nearest(x, radius)?.f_tanh()?;
            zip([&tanh], |[tanh]| 1.0 - tanh * tanh)
        })
    }

    pub fn exp(&self) -> Balled {
        let ball = self.function([4.0, 0.0], Tensor::f_exp, |x, radius| (x + radius).f_exp())?;
        // Exponents may also be added up first.
        let value = ball.value.shallow_clone();
        ball.rounded(2.0, || zip([&value, &self.value], |[exponential, x]| exponential * x))
    }

    pub fn sigmoid(&self) -> Balled {
        self.function([4.0, 1.0], Tensor::f_sigmoid, |x, radius| {
            // At most a half, so that nothing is lost of what it lacks to 1.
            let least = nearest(x, radius)?.f_neg()?.f_sigmoid()?;
            zip([&least], |[least]| least * (1.0 - least))
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

    /// Softmax along the last axis, where minus infinity has the weight 0, also if there is nothing else.
    pub fn softmax(&self) -> Balled {
        let masked = self.value.f_eq(f64::NEG_INFINITY)?;
        let most = self.value.f_amax([-1], true)?;
        let most = most.f_masked_fill(&most.f_eq(f64::NEG_INFINITY)?, 0.0)?;
        let exponentials = (&self.value - &most).f_exp()?.f_masked_fill(&masked, 0.0)?;
        let sum = exponentials.f_sum_dim_intlist([-1].as_slice(), true, self.value.kind())?;
        let value = exponentials.f_div(&sum.f_masked_fill(&sum.f_eq(0.0)?, 1.0)?)?;
        let Some(radius) = &self.radius else {
            return Ok(Ball { value, radius: None, dtype: self.dtype, certain: false });
        };
        // How far off each exponent may be, and the mean of it weighted with the results.
        let size = self.value.f_masked_fill(&masked, 0.0)?.f_abs()? + most.f_abs()?;
        let share = (radius + size * (2.0 * self.dtype.unit_roundoff())).f_masked_fill(&masked, 0.0)?;
        let mean = (&value * &share).f_sum_dim_intlist([-1].as_slice(), true, Kind::Double)?;
        let count = value.size_dim(-1) as f64;
        let rounding = gamma(count + 8.0, self.dtype);
        let error = &value * (share + mean).f_expm1()? + &value * rounding + underflow(self.dtype);
        let radius = error.f_masked_fill(&masked, 0.0)?;
        Ok(Ball { value, radius: Some(defined(radius)?), dtype: self.dtype, certain: false })
    }
}

/// The least magnitude within the radius.
pub fn nearest(x: &Tensor, radius: &Tensor) -> Result<Tensor, TchError> {
    zip([x, radius], |[x, radius]| {
        let least = x.abs() - radius;
        // A NaN stays one.
        if least < 0.0 { 0.0 } else { least }
    })
}
