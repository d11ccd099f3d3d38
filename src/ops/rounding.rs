//! What error rules share. All tensors are f64; an error is an absolute bound for each element.

use crate::dtype::DType;
use tch::{Kind, TchError, Tensor};

/// How many times the first-order bound an operand may be off before a step counts as safe: for what is of higher order,
/// and so that f64 does not swallow the error when it is added.
pub const REACH: f64 = 4.0;

/// The relative error of `terms` roundings in a row, infinite where the bound means nothing.
pub fn gamma(terms: f64, dtype: DType) -> f64 {
    let rounding = terms * dtype.unit_roundoff();
    if rounding < 0.5 { rounding / (1.0 - rounding) } else { f64::INFINITY }
}

/// The largest absolute error of a result that is flushed to zero, or rounded, below the normal numbers.
pub fn underflow(dtype: DType) -> f64 {
    // CPUs compute f16 in f32, and keep its subnormal numbers.
    dtype.min_positive() * if dtype == DType::F16 { dtype.unit_roundoff() } else { 1.0 }
}

/// `error`, infinite where a `magnitude` met on the way may leave the range of `dtype`.
pub fn unless_overflow(error: Tensor, magnitude: &Tensor, dtype: DType) -> Result<Tensor, TchError> {
    error.f_masked_fill(&magnitude.f_gt(0.9 * dtype.max())?, f64::INFINITY)
}

/// `x` rounded to the float type `dtype`, in the kind of `x`.
pub fn stored(x: &Tensor, dtype: DType) -> Result<Tensor, TchError> {
    let kind = match dtype {
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::F32 => Kind::Float,
        _ => Kind::Double,
    };
    x.f_to_kind(kind)?.f_to_kind(x.kind())
}

/// The errors of operand `index` whose value is `x`; 0 where it is exact.
pub fn error_of(errors: &[Option<Tensor>], index: usize, x: &Tensor) -> Result<Tensor, TchError> {
    match errors.get(index) {
        Some(Some(error)) => Ok(error.shallow_clone()),
        _ => x.f_zeros_like(),
    }
}

/// `error` with infinity in place of NaN, such as 0 times infinity.
pub fn defined(error: Tensor) -> Result<Tensor, TchError> {
    error.f_nan_to_num(f64::INFINITY, f64::INFINITY, f64::INFINITY)
}

/// `error`, infinite wherever `doubtful` is true.
pub fn unless(doubtful: &Tensor, error: &Tensor) -> Result<Tensor, TchError> {
    error.f_masked_fill(doubtful, f64::INFINITY)
}

/// How much 1 / x may be off relative to its value, when x > 0 may be off by the share `share` of its own.
pub fn of_reciprocal(share: &Tensor) -> Result<Tensor, TchError> {
    let share = share.f_clamp_max(1.0)?;
    // tch computes 1 - 1 as -0, by which the bound would be minus infinity, and count for nothing.
    let least: Tensor = 1.0 - &share;
    (share / least).f_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reciprocal_of_what_may_be_zero_is_unbounded() {
        let shares = of_reciprocal(&Tensor::from_slice(&[0.0, 0.5, 1.0, 3.0, f64::INFINITY])).unwrap();
        let shares = Vec::<f64>::try_from(defined(shares).unwrap()).unwrap();
        assert_eq!(shares, [0.0, 1.0, f64::INFINITY, f64::INFINITY, f64::INFINITY]);
    }
}
