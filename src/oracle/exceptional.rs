//! The lane of NaN and infinity: what a correct backend makes of them is judged where the standard says it, by the
//! sentence that [`Exceptional`] names, and not at all where it is silent.

use super::bounds::{change_floats, unknown, with_operands};
use crate::dtype::DType;
use crate::model::{LeafData, Model, Node};
use crate::reference::{Defect, Values};
use crate::spec::{Args, Exceptional, Numerics, Outputs};
use crate::tensor::TensorData;
use tch::{Kind, TchError, Tensor};

/// Whether there is an exceptional value among the data of the leaves. A valid case without one has none anywhere.
pub fn concerns(data: &[TensorData]) -> bool {
    data.iter().any(|data| data.dtype.is_float() && data.to_f64().iter().any(|value| !value.is_finite()))
}

/// Whether there are exceptional values, and no integer or bool follows from one of which the standard says nothing: it
/// might be an index, a size or a divisor.
pub fn is_judgeable(model: &Model, data: &LeafData, wide: &Values) -> Result<bool, Defect> {
    if !concerns(data) {
        return Ok(false);
    }
    let integers: Vec<usize> = (0..model.values.len()).filter(|&value| !model.values[value].dtype.is_float()).collect();
    let errors = super::bounds::errors(model, data, wide, &integers)?;
    Ok(integers.iter().all(|&value| errors[value].is_none()))
}

/// Whether a node meets exceptional values: among its operands or results, or as operands where it is undefined.
pub fn met(args: &Args, exact: &[Tensor], node: &Node) -> Result<bool, TchError> {
    for value in args.operands.iter().flatten().chain(exact) {
        if has_exceptional(value)? {
            return Ok(true);
        }
    }
    let Some(guard) = node.spec.guard else { return Ok(false) };
    guard(args)?.iter().try_fold(false, |found, guard| Ok(found || !truth(guard.f_ge(0.0)?.f_all()?)?))
}

/// The errors of a node that meets exceptional values. `found` are those of its rule for numbers, which know nothing of
/// them.
pub fn errors(args: &Args, errors: &[Option<Tensor>], exact: &[Tensor], node: &Node, found: Vec<Tensor>) -> Outputs {
    let y = &exact[0];
    match (node.spec.exceptional, node.spec.numerics) {
        // The errors have moved with the elements.
        (Exceptional::Moved, _) => Ok(found),
        (Exceptional::Silent, Numerics::Elementwise { .. }) => {
            found.into_iter().map(|error| error.f_masked_fill(&places(args, y)?, f64::INFINITY)).collect()
        }
        (Exceptional::Silent, _) => Ok(exact.iter().map(unknown).collect()),
        _ if !args.output_dtypes[0].is_float() && args.output_dtypes[0] != DType::Bool => {
            Ok(vec![found[0].f_masked_fill(&places(args, y)?, f64::INFINITY)?])
        }
        (_, Numerics::Accumulated) => {
            let unbounded = |error: &Tensor| error.f_isinf()?.f_to_kind(Kind::Double);
            let operands = args.operands.iter().zip(errors).map(|(x, error)| match (x, error) {
                (Some(x), Some(error)) if is_float(x) => unbounded(error).map(Some),
                (Some(x), _) if is_float(x) => Ok(Some(x.zeros_like())),
                (x, _) => Ok(x.as_ref().map(Tensor::shallow_clone)),
            });
            let doubtful = (node.spec.eval)(&with_operands(args, operands.collect::<Result<_, TchError>>()?))?;
            settle(&found[0], &exceptional(y)?, &doubtful[0].f_gt(0.0)?)
        }
        _ => settle(&found[0], &places(args, y)?, &flips(args, errors, y, node)?),
    }
}

/// Where there is an exceptional value: no error, or any where it may be another one.
fn settle(found: &Tensor, places: &Tensor, doubtful: &Tensor) -> Outputs {
    let settled = found.zeros_like().f_masked_fill(doubtful, f64::INFINITY)?;
    Ok(vec![settled.f_where_self(places, found)?])
}

/// Which elements of an elementwise result are made of an exceptional value, or are one.
fn places(args: &Args, y: &Tensor) -> Result<Tensor, TchError> {
    // Of the second operand of CastLike only the type counts.
    let floats = args.operands.iter().flatten().filter(|x| is_float(x) && broadcasts(x, y));
    floats.map(exceptional).try_fold(exceptional(y)?, |all, x| all.f_logical_or(&x?.f_expand(y.size(), false)?))
}

/// Which elements of an elementwise result are another one at some corner of the error boxes of the operands.
fn flips(args: &Args, errors: &[Option<Tensor>], y: &Tensor, node: &Node) -> Result<Tensor, TchError> {
    let inexact: Vec<usize> =
        (0..args.count()).filter(|&i| errors[i].is_some() && args.operands[i].as_ref().is_some_and(is_float)).collect();
    let mut flips = y.zeros_like().f_to_kind(Kind::Bool)?;
    for corner in 0..1usize << inexact.len() {
        let sign = |i: usize| {
            let position = inexact.iter().position(|&inexact| inexact == i)?;
            Some(if corner >> position & 1 == 1 { 1.0 } else { -1.0 })
        };
        let at = change_floats(args, errors, |i, x, error| match sign(i).zip(error) {
            Some((sign, error)) => x.f_add(&(error * sign)),
            None => Ok(x.shallow_clone()),
        })?;
        let moved = (node.spec.eval)(&at)?.swap_remove(0);
        flips = flips.f_logical_or(&same(&moved, y)?.f_logical_not()?)?;
    }
    // What may be anything may be another exceptional value.
    for error in inexact.iter().filter_map(|&i| errors[i].as_ref()).filter(|error| broadcasts(error, y)) {
        flips = flips.f_logical_or(&error.f_isinf()?.f_expand(y.size(), false)?)?;
    }
    Ok(flips)
}

/// Whether elements are equal, or both no number.
fn same(x: &Tensor, y: &Tensor) -> Result<Tensor, TchError> {
    x.f_eq_tensor(y)?.f_logical_or(&x.f_isnan()?.f_logical_and(&y.f_isnan()?)?)
}

fn broadcasts(x: &Tensor, y: &Tensor) -> bool {
    let (from, to) = (x.size(), y.size());
    from.len() <= to.len() && from.iter().rev().zip(to.iter().rev()).all(|(from, to)| *from == 1 || from == to)
}

fn exceptional(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_isfinite()?.f_logical_not()
}

fn has_exceptional(x: &Tensor) -> Result<bool, TchError> {
    Ok(is_float(x) && truth(exceptional(x)?.f_any()?)?)
}

fn is_float(x: &Tensor) -> bool {
    x.kind() == Kind::Double
}

fn truth(scalar: Tensor) -> Result<bool, TchError> {
    bool::try_from(scalar)
}
