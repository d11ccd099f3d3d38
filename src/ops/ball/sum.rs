//! Sums of matrix products, taken apart so that a part that is used often is computed once.

use super::super::rounding::{gamma, underflow};
use super::{Ball, Balled, NEAR_OVERFLOW, Sizes};
use crate::dtype::DType;
use crate::elements::zip;
use tch::{TchError, Tensor};

/// A sum of matrix products that is not rounded yet.
pub struct Sum {
    value: Tensor,
    reach: Option<Reach>,
    /// The number of terms.
    count: f64,
    dtype: DType,
}

/// How far a sum may be off by its terms' radii, and how large the sum of their magnitudes may be.
struct Reach {
    /// `None` where all terms are certain.
    spread: Option<Tensor>,
    magnitude: Tensor,
}

impl Sum {
    pub fn of(x: &Ball, y: &Ball) -> Result<Sum, TchError> {
        let reach = match &x.radius {
            None => None,
            Some(radius) => {
                let (x_reached, y_reached) = (x.reached()?, y.reached()?);
                let of_y = if y.certain { None } else { Some(x.value.f_abs()?.f_matmul(y.other())?) };
                let of_x = if x.certain { None } else { Some(radius.f_matmul(&y_reached)?) };
                Some(Reach { spread: either(of_y, of_x)?, magnitude: x_reached.f_matmul(&y_reached)? })
            }
        };
        let count = x.value.size_dim(-1) as f64;
        Ok(Sum { value: x.value.f_matmul(&y.value)?, reach, count, dtype: x.dtype })
    }

    pub fn count(&self) -> f64 {
        self.count
    }

    pub fn plus(self, other: Sum) -> Result<Sum, TchError> {
        let reach = match self.reach.zip(other.reach) {
            Some((one, other)) => Some(Reach {
                spread: either(one.spread, other.spread)?,
                magnitude: one.magnitude.f_add(&other.magnitude)?,
            }),
            None => None,
        };
        Ok(Sum { value: self.value.f_add(&other.value)?, reach, count: self.count + other.count, dtype: self.dtype })
    }

    /// The same elements elsewhere.
    pub fn moved(&self, step: impl Fn(&Tensor) -> Result<Tensor, TchError>) -> Result<Sum, TchError> {
        let reach = match &self.reach {
            Some(Reach { spread, magnitude }) => {
                Some(Reach { spread: spread.as_ref().map(&step).transpose()?, magnitude: step(magnitude)? })
            }
            None => None,
        };
        Ok(Sum { value: step(&self.value)?, reach, count: self.count, dtype: self.dtype })
    }

    /// With further terms, and rounded, in any order and any association.
    pub fn ball(mut self, terms: &[&Ball]) -> Balled {
        for term in terms {
            self.value = self.value.f_add(&term.value)?;
            if let Some(Reach { spread, magnitude }) = &mut self.reach {
                if !term.certain {
                    *spread = either(spread.take(), Some(term.other().shallow_clone()))?;
                }
                *magnitude = magnitude.f_add(&term.reached()?)?;
            }
        }
        let dtype = self.dtype;
        let Some(Reach { spread, magnitude }) = self.reach else {
            return Ok(Ball { value: self.value, radius: None, dtype, certain: false });
        };
        let count = self.count + terms.len() as f64 + 1.0;
        let (gamma, flushed, most) = (gamma(count, dtype), count * underflow(dtype), NEAR_OVERFLOW * dtype.max());
        let spread = spread.unwrap_or_else(|| Tensor::from(0.0));
        let radius = zip([&magnitude, &spread], |[magnitude, spread]| {
            let error = spread + (magnitude * gamma + flushed);
            if magnitude > most || !error.is_finite() { f64::INFINITY } else { error }
        })?;
        Ok(Ball { value: self.value, radius: Some(radius), dtype, certain: false })
    }
}

/// The sum of what there is.
fn either(one: Option<Tensor>, other: Option<Tensor>) -> Result<Option<Tensor>, TchError> {
    match (one, other) {
        (Some(one), Some(other)) => one.f_add(&other).map(Some),
        (one, other) => Ok(one.or(other)),
    }
}
