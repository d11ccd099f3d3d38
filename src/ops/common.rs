//! What families share: the declarations of elementwise operators and small helpers for `eval`.

use super::rounding::{REACH, error_of};
use crate::dtype::DType;
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

/// One to four operands of one type, all broadcast together; one output of that type.
pub fn build_variadic(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    let mut shape = x.shape;
    // Two operands are what most models have.
    let further = b.one_of(&[1, 1, 2, 1, 3, 2, 0]);
    for _ in 0..further {
        let y = b.input_broadcastable(x.dtype, &shape);
        shape = b.broadcast(&[&shape, &y.shape]);
    }
    b.accumulate(further + 1);
    b.output(x.dtype, shape);
    Ok(())
}

/// A float attribute with one of `values`, or now and then left out. Values that f16 holds exactly keep thresholds
/// the same in every type.
pub fn float_attribute(b: &mut Builder, name: &'static str, values: &[f32]) {
    if !b.chance(40) {
        let value = b.one_of(values);
        b.set_float(name, value);
    }
}

/// The base of `[x] -> [f(x)]`.
pub const UNARY: OpSpec = OpSpec { build: build_unary, numerics: Numerics::ROUNDED, ..OpSpec::BASE };
/// The base of `[x, y] -> [f(x, y)]` with broadcasting.
pub const BINARY: OpSpec = OpSpec { build: build_binary, numerics: Numerics::ROUNDED, ..OpSpec::BASE };

/// The base of `[x0, x1, ...] -> [f(x0, x1, ...)]` with broadcasting.
pub const VARIADIC: OpSpec = OpSpec { build: build_variadic, numerics: Numerics::SELECTING, ..OpSpec::BASE };

/// A transcendental function: `ulps` units in the last place, with an absolute floor where the result is near 0.
pub const fn approximate(ulps: f64) -> Numerics {
    Numerics::Elementwise { ulps, absolute: 0.1 }
}

/// The result of an `eval` with one output.
pub fn one(result: Result<Tensor, TchError>) -> Outputs {
    Ok(vec![result?])
}

/// `x` in the kind of output 0. What is too large for an integer type loses its upper bits.
pub fn as_output(a: &Args, x: Tensor) -> Outputs {
    one(wrapped(x.f_to_kind(a.output_kind(0))?, a.output_dtypes[0]))
}

/// Integers of a type that is held in a wider one (see `kind_of`), without the bits that the type does not have. u64 is
/// held in i64 and stays as it is: a negative result is not judged.
pub fn wrapped(x: Tensor, dtype: DType) -> Result<Tensor, TchError> {
    match dtype {
        DType::U16 => x.f_bitwise_and(0xffff),
        DType::U32 => x.f_bitwise_and(0xffff_ffff),
        _ => Ok(x),
    }
}

/// |x| with the gradient 1 at 0, where that of `abs` is 0 and leaves the search without a direction.
pub fn magnitude(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_where_self(&x.f_ge(0.0)?, &x.f_neg()?)
}

/// All operands, two at a time from the left.
pub fn fold(a: &Args, combine: impl Fn(&Tensor, &Tensor) -> Result<Tensor, TchError>) -> Result<Tensor, TchError> {
    (1..a.count()).try_fold(a.x(0).shallow_clone(), |all, index| combine(&all, a.x(index)))
}

/// Operand 0: an `eval` that changes nothing, and a proxy for steps such as Floor.
pub fn operand(a: &Args) -> Outputs {
    Ok(vec![a.x(0).shallow_clone()])
}

/// Operand `index` in f64.
pub fn wide(a: &Args, index: usize) -> Result<Tensor, TchError> {
    a.x(index).f_to_kind(Kind::Double)
}

/// The error rule of a function of one operand that may jump: the largest change around the operand, and one rounding.
/// Between `turns` the function is monotone.
pub fn error_of_jumps(
    a: &Args,
    errors: &[Option<Tensor>],
    exact: &[Tensor],
    eval: fn(&Args) -> Outputs,
    turns: &[f64],
) -> Outputs {
    let x = wide(a, 0)?;
    let reach = error_of(errors, 0, &x)? * REACH;
    let change = |at: &Tensor| {
        let moved = Args {
            operands: vec![Some(at.shallow_clone())],
            operand_dtypes: a.operand_dtypes.clone(),
            attributes: a.attributes,
            opset: a.opset,
            output_dtypes: a.output_dtypes.clone(),
            wide: true,
            accumulate: None,
        };
        eval(&moved)?.swap_remove(0).f_sub(&exact[0])?.f_abs()
    };
    let (low, high) = (x.f_sub(&reach)?, x.f_add(&reach)?);
    let mut most = change(&low)?.f_maximum(&change(&high)?)?;
    for turn in turns.iter().flat_map(|turn| [turn.next_down(), *turn, turn.next_up()]) {
        let at = low.f_full_like(turn)?.f_maximum(&low)?.f_minimum(&high)?;
        most = most.f_maximum(&change(&at)?)?;
    }
    // What may be anything may also be NaN.
    let most = most.f_masked_fill(&reach.f_isinf()?, f64::INFINITY)?;
    one(Ok(most + exact[0].f_abs()? * a.output_dtypes[0].unit_roundoff()))
}

/// Whether a libtorch kind is a float.
pub fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double)
}

/// What tests of `eval` share.
#[cfg(test)]
pub mod testing {
    use crate::dtype::DType;
    use crate::elements;
    use crate::reference;
    use crate::spec::{Args, Attribute, Numerics, OpSpec};
    use crate::tensor::TensorData;
    use std::borrow::Cow;
    use tch::Tensor;

    /// A present operand for [`eval_all`].
    pub fn operand(dtype: DType, shape: &[usize], values: &[f64]) -> Option<TensorData> {
        Some(TensorData::from_f64(dtype, shape, values))
    }

    /// The first output of an operator on one-dimensional operands.
    pub fn eval(
        spec: &OpSpec,
        operands: &[(DType, &[f64])],
        attributes: &[(&'static str, Attribute<i64>)],
        output: DType,
    ) -> Vec<f64> {
        let tensor = |(dtype, values): &(DType, &[f64])| Some(TensorData::from_f64(*dtype, &[values.len()], values));
        eval_all(spec, &operands.iter().map(tensor).collect::<Vec<_>>(), attributes, &[output]).swap_remove(0)
    }

    /// All outputs of an operator, of the types `outputs`, on operands of any shape that may be absent.
    pub fn eval_all(
        spec: &OpSpec,
        operands: &[Option<TensorData>],
        attributes: &[(&'static str, Attribute<i64>)],
        outputs: &[DType],
    ) -> Vec<Vec<f64>> {
        let attributes: Vec<_> = attributes.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone())).collect();
        let args = Args {
            operands: operands.iter().map(|x| x.as_ref().map(|x| reference::to_tensor(x, false))).collect(),
            operand_dtypes: operands.iter().map(|x| x.as_ref().map(|x| x.dtype)).collect(),
            attributes: &attributes,
            opset: crate::limits::NEWEST_OPSET,
            output_dtypes: outputs.to_vec(),
            wide: false,
            accumulate: None,
        };
        let results = (spec.eval)(&args).expect("the operands are legal");
        assert_eq!(results.len(), outputs.len());
        results.iter().enumerate().for_each(|(index, result)| assert_eq!(result.kind(), args.output_kind(index)));
        results.iter().zip(outputs).map(|(result, &dtype)| reference::to_data(result, dtype).to_f64()).collect()
    }

    /// The bound that an operator's own rule gives for a one-dimensional f64 operand with errors.
    pub fn bound(spec: &OpSpec, x: &[f64], errors: &[f64], attributes: &[(&'static str, Attribute<i64>)]) -> Vec<f64> {
        let Numerics::Custom(rule) = spec.numerics else { panic!("{} has no rule of its own", spec.name) };
        let attributes: Vec<_> = attributes.iter().map(|(name, value)| (Cow::Borrowed(*name), value.clone())).collect();
        let args = Args {
            operands: vec![Some(Tensor::from_slice(x))],
            operand_dtypes: vec![Some(DType::F64)],
            attributes: &attributes,
            opset: crate::limits::NEWEST_OPSET,
            output_dtypes: vec![DType::F64],
            wide: true,
            accumulate: None,
        };
        let exact = (spec.eval)(&args).expect("the operand is legal");
        let bounds = rule(&args, &[Some(Tensor::from_slice(errors))], &exact).expect("the operand is legal");
        elements::read(&bounds[0]).expect("a bound is a tensor of f64")
    }

    /// An f32 operand whose elements go up from `start` in steps of 0.1, and start again after seven.
    pub fn ramp(shape: &[usize], start: f64) -> Option<TensorData> {
        let values: Vec<f64> = (0..shape.iter().product()).map(|i: usize| start + 0.1 * (i % 7) as f64).collect();
        Some(TensorData::from_f64(DType::F32, shape, &values))
    }

    /// Asserts that two lists are equal to about the precision of f32.
    pub fn assert_near(got: &[f64], expected: &[f64]) {
        let near = |(got, expected): (&f64, &f64)| (got - expected).abs() <= 1e-6 * (1.0 + expected.abs());
        assert!(got.len() == expected.len() && got.iter().zip(expected).all(near), "{got:?}, not {expected:?}");
    }
}
