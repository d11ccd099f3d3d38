//! What families share: the declarations of elementwise operators and small helpers for `eval`.

use crate::spec::{ANY_RANK, Args, Builder, Numerics, OpSpec, Outputs, Skip};
use tch::{Kind, TchError, Tensor};

/// One operand, one output of the same type and shape.
pub fn build_unary(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    b.output(x.dtype, x.shape);
    Ok(())
}

/// Two operands of one type, broadcast against each other; one output of that type.
pub fn build_binary(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let y = b.input_broadcastable(x.dtype, &x.shape);
    let shape = b.broadcast(&[&x.shape, &y.shape]);
    b.output(x.dtype, shape);
    Ok(())
}

/// The base of `[x] -> [f(x)]`.
pub const UNARY: OpSpec = OpSpec { build: build_unary, numerics: Numerics::ROUNDED, ..OpSpec::BASE };
/// The base of `[x, y] -> [f(x, y)]` with broadcasting.
pub const BINARY: OpSpec = OpSpec { build: build_binary, numerics: Numerics::ROUNDED, ..OpSpec::BASE };

/// A transcendental function: `ulps` units in the last place, with an absolute floor where the result is near 0.
pub const fn approximate(ulps: f64) -> Numerics {
    Numerics::Elementwise { ulps, absolute: 0.1 }
}

/// The result of an `eval` with one output.
pub fn one(result: Result<Tensor, TchError>) -> Outputs {
    Ok(vec![result?])
}

/// `x` in the kind of output 0.
pub fn as_output(a: &Args, x: Tensor) -> Outputs {
    one(x.f_to_kind(a.output_kind(0)))
}

/// |x| with the gradient 1 at 0, where that of `abs` is 0 and leaves the search without a direction.
pub fn magnitude(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_where_self(&x.f_ge(0.0)?, &x.f_neg()?)
}

/// Whether a libtorch kind is a float.
pub fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double)
}
