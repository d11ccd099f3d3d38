//! Running error bounds: for every element of every value, how far a legal evaluation in the declared types may be from
//! the exact value, to first order.

use super::exceptional;
use crate::dtype::DType;
use crate::elements::{any, zip};
use crate::model::{LeafData, Model, Node};
use crate::ops::reduce;
use crate::reference::{self, Defect, Precision, Values};
use crate::spec::{Args, Attribute, Attributes, Numerics, Outputs};
use std::borrow::Cow;
use tch::{Kind, TchError, Tensor};

/// Values nearer to the end of their type's range than this share may legally overflow.
const RANGE_SHARE: f64 = 0.99;

/// Errors of f64 operands are multiplied by this before they are added to their operands, and the change that they cause
/// is divided by it: added as they are, rounding would swallow them. A large error, after a jump, must be added as it is as
/// well: far away a function may be flat that is steep nearby.
const WIDE_SCALE: f64 = 1024.0;

/// No error anywhere.
pub fn none(model: &Model) -> Values {
    (0..model.values.len()).map(|_| None).collect()
}

/// The error bounds in f64 of `wanted` and of the values that these are computed from; `None` where every legal evaluation
/// gives the same bits. An integer or bool element has the bound 0, or infinity where it may legally differ.
pub fn errors(model: &Model, data: &LeafData, wide: &Values, wanted: &[usize]) -> Result<Values, Defect> {
    let mut errors = none(model);
    let exceptional = exceptional::concerns(data);
    let (ancestors, together) = (model.ancestors(wanted), summed_together(model));
    for node in model.nodes.iter().zip(ancestors).filter_map(|(node, needed)| needed.then_some(node)) {
        let source = |source| Defect::Eval { operator: node.spec.name, source };
        let mut args = reference::args(model, node, wide, Precision::Wide);
        let more = together[node.outputs[0]];
        if more > 1.0 && reduce::sums(node.spec) {
            args.accumulate = Some(args.accumulate.unwrap_or_else(|| shrinks_by(model, node)) * more);
        }
        let outputs = node_errors(node, args, wide, &errors, exceptional).map_err(source)?;
        for (&value, error) in node.outputs.iter().zip(outputs) {
            errors[value] = error;
        }
    }
    Ok(errors)
}

/// For each value how many of its elements end in one sum, of sums of sums. An optimiser may merge these, as tract does, and
/// then rounds as often as there are terms in all.
fn summed_together(model: &Model) -> Vec<f64> {
    let mut together = vec![1.0f64; model.values.len()];
    for node in model.nodes.iter().rev() {
        let Some(&Some(operand)) = node.operands.first() else { continue };
        let (less, after) = (shrinks_by(model, node), together[node.outputs[0]]);
        let elementwise = matches!(node.spec.numerics, Numerics::Exact | Numerics::Elementwise { .. });
        if reduce::sums(node.spec) || elementwise && less == 1.0 {
            together[operand] = together[operand].max(less * after);
        }
    }
    together
}

/// The elements of the first operand for each of the result.
fn shrinks_by(model: &Model, node: &Node) -> f64 {
    let count = |value: usize| model.values[value].len().max(1) as f64;
    node.operands.first().copied().flatten().map_or(1.0, |operand| count(operand) / count(node.outputs[0]))
}

fn node_errors(
    node: &Node,
    args: Args,
    wide: &Values,
    errors: &Values,
    exceptional: bool,
) -> Result<Vec<Option<Tensor>>, TchError> {
    let operand_errors: Vec<Option<Tensor>> =
        node.operands.iter().map(|value| value.and_then(|v| errors[v].as_ref().map(Tensor::shallow_clone))).collect();
    let exact: Vec<Tensor> =
        node.outputs.iter().map(|&v| wide[v].as_ref().expect("every value was computed").shallow_clone()).collect();
    let inexact = |i: usize| operand_errors[i].is_some();
    let float = |i: usize| args.operand_dtypes[i].is_some_and(DType::is_float);
    let any_inexact = (0..args.count()).any(inexact);
    let tainted = (0..args.count()).any(|i| inexact(i) && !float(i));
    let computes_floats = args.output_dtypes.iter().any(|dtype| dtype.is_float());
    let rounds = computes_floats && !matches!(node.spec.numerics, Numerics::Exact);
    let always = matches!(node.spec.numerics, Numerics::Unfiltered(_));
    let exceptional = exceptional && exceptional::met(&args, &exact, node)?;
    if !any_inexact && !rounds && !always && !exceptional {
        return Ok(exact.iter().map(|_| None).collect());
    }
    let found = match node.spec.numerics {
        Numerics::Elementwise { ulps, absolute } => elementwise(&args, &operand_errors, &exact, node, ulps, absolute)?,
        Numerics::Unfiltered(rule) => rule(&args, &operand_errors, &exact)?,
        // Which element a doubtful index or condition selects cannot be bounded.
        _ if tainted => exact.iter().map(unknown).collect(),
        Numerics::Exact => moved(&args, &operand_errors, &exact, node)?,
        Numerics::Accumulated => accumulated(&args, &operand_errors, node)?,
        Numerics::Custom(rule) => rule(&args, &operand_errors, &exact)?,
    };
    let found = if exceptional { exceptional::errors(&args, &operand_errors, &exact, node, found)? } else { found };
    let computes = match node.spec.numerics {
        Numerics::Elementwise { ulps, .. } => ulps > 0.0,
        Numerics::Accumulated => true,
        Numerics::Exact | Numerics::Custom(_) | Numerics::Unfiltered(_) => false,
    };
    let finish = |((error, exact), dtype): ((Tensor, &Tensor), &DType)| finish(error, exact, *dtype, computes);
    found.into_iter().zip(&exact).zip(&args.output_dtypes).map(finish).collect()
}

/// Adds the spacing of subnormal numbers, and gives up on values that may overflow. `None` where nothing is in doubt.
///
/// Certain values must not make what they index, select or are compared with doubtful: the integers of a doubtful
/// comparison, but also what Relu or Cast made of exact floats, and a 0 of Relu beside other elements. So unless the
/// operator computes `always`, the spacing goes only to what has an error, or may be flushed to 0.
fn finish(error: Tensor, exact: &Tensor, dtype: DType, always: bool) -> Result<Option<Tensor>, TchError> {
    if !dtype.is_float() {
        let doubtful = any([&error], |[error]| defined(error) > 0.0)?;
        return doubtful.then(|| zip([&error], |[error]| defined(error))).transpose();
    }
    let least = dtype.min_positive();
    let doubtful = |error: f64, exact: f64| error > 0.0 || exact != 0.0 && exact.abs() < least;
    if !always && !any([&error, exact], |[error, exact]| doubtful(defined(error), exact))? {
        return Ok(None);
    }
    let spacing = least * if dtype == DType::F16 { dtype.unit_roundoff() } else { 1.0 };
    let edge = dtype.max() * RANGE_SHARE;
    zip([&error, exact], |[error, exact]| {
        let error = defined(error);
        match () {
            // Nothing lies near a NaN or an infinity.
            () if !exact.is_finite() => error,
            () if exact.abs() + error > edge => f64::INFINITY,
            () if always || doubtful(error, exact) => error + spacing,
            () => error,
        }
    })
    .map(Some)
}

/// `error` with infinity in place of what is no number or below every number.
fn defined(error: f64) -> f64 {
    if error.is_finite() { error } else { f64::INFINITY }
}

pub fn unknown(exact: &Tensor) -> Tensor {
    Tensor::full(exact.size(), f64::INFINITY, (Kind::Double, tch::Device::Cpu))
}

fn copy(tensor: &Tensor) -> Result<Tensor, TchError> {
    Ok(tensor.shallow_clone())
}

/// `args` with other operands.
pub fn with_operands<'a>(args: &Args<'a>, operands: Vec<Option<Tensor>>) -> Args<'a> {
    Args {
        operands,
        operand_dtypes: args.operand_dtypes.clone(),
        attributes: args.attributes,
        opset: args.opset,
        output_dtypes: args.output_dtypes.clone(),
        wide: true,
        accumulate: args.accumulate,
    }
}

/// The factor by which the errors of these operands are to be seen larger; see [`WIDE_SCALE`].
fn scale(args: &Args, errors: &[Option<Tensor>]) -> f64 {
    let narrower = |(dtype, error): (&Option<DType>, &Option<Tensor>)| {
        error.is_some() && dtype.is_some_and(|dtype| dtype.is_float() && dtype != DType::F64)
    };
    if args.operand_dtypes.iter().zip(errors).any(narrower) { 1.0 } else { WIDE_SCALE }
}

/// `args` with each float operand replaced by `change` of its index, value and error (`None` where it is exact).
pub fn change_floats<'a>(
    args: &Args<'a>,
    errors: &[Option<Tensor>],
    change: impl Fn(usize, &Tensor, Option<&Tensor>) -> Result<Tensor, TchError>,
) -> Result<Args<'a>, TchError> {
    let mut operands = Vec::with_capacity(args.count());
    for (i, operand) in args.operands.iter().enumerate() {
        operands.push(match operand {
            Some(x) if args.operand_dtypes[i].is_some_and(DType::is_float) => Some(change(i, x, errors[i].as_ref())?),
            other => other.as_ref().map(Tensor::shallow_clone),
        });
    }
    Ok(with_operands(args, operands))
}

/// Errors move as the elements do.
fn moved(args: &Args, errors: &[Option<Tensor>], exact: &[Tensor], node: &Node) -> Outputs {
    let moved =
        (node.spec.eval)(&change_floats(args, errors, |_, x, error| error.map_or_else(|| x.f_zeros_like(), copy))?)?;
    // Integer outputs, such as the indices of a maximum, may be any.
    let float = |i: usize| args.output_dtypes[i].is_float();
    let error = |(i, (moved, exact)): (usize, (Tensor, &Tensor))| if float(i) { Ok(moved) } else { Ok(unknown(exact)) };
    moved.into_iter().zip(exact).enumerate().map(error).collect()
}

/// Rounding of the result, and the largest change over the corners of the operands' error boxes.
fn elementwise(
    args: &Args,
    errors: &[Option<Tensor>],
    exact: &[Tensor],
    node: &Node,
    ulps: f64,
    absolute: f64,
) -> Outputs {
    let y = &exact[0];
    let dtype = args.output_dtypes[0];
    let exact_f64 = y.f_to_kind(Kind::Double)?;
    let mut change = exact_f64.zeros_like();
    let float = |i: usize| args.operand_dtypes[i].is_some_and(DType::is_float);
    let inexact: Vec<usize> = (0..args.count()).filter(|&i| errors[i].is_some() && float(i)).collect();
    // All corners for up to three inexact operands; for more, one operand at a time, added up.
    let joint = inexact.len() <= 3;
    let widest = scale(args, errors);
    let scales: &[f64] = if widest == 1.0 { &[1.0] } else { &[widest, 1.0] };
    let corners = if joint { 1 << inexact.len() } else { 2 * inexact.len() };
    // The greater of `change` and the distance that the operator moves.
    let further = |change: &Tensor, at: &Args, scale: f64| {
        let moved = (node.spec.eval)(at)?.swap_remove(0);
        zip([change, &moved, &exact_f64], |[change, moved, exact]| change.max(defined(((moved - exact) / scale).abs())))
    };
    for corner in 0..corners {
        if inexact.is_empty() {
            break;
        }
        let sign = |i: usize| {
            let position = inexact.iter().position(|&inexact| inexact == i)?;
            match joint {
                true => Some(if corner >> position & 1 == 1 { 1.0 } else { -1.0 }),
                false if corner / 2 == position => Some(if corner % 2 == 1 { 1.0 } else { -1.0 }),
                false => None,
            }
        };
        let mut furthest = if joint { change.shallow_clone() } else { change.f_zeros_like()? };
        for &scale in scales {
            let at = change_floats(args, errors, |i, x, error| match sign(i).zip(error) {
                Some((sign, error)) => zip([x, error], |[x, error]| x + error * (sign * scale)),
                None => Ok(x.shallow_clone()),
            })?;
            furthest = further(&furthest, &at, scale)?;
        }
        change = if joint { furthest } else { change + furthest };
    }
    let infinite =
        |i: &usize| errors[*i].as_ref().map_or(Ok(false), |error| any([error], |[error]| error.is_infinite()));
    if inexact.iter().try_fold(false, |found, i| Ok::<_, TchError>(found || infinite(i)?))? {
        // What may be anything may also be NaN, of which no function is bounded.
        let at = change_floats(args, errors, |_, x, error| match error {
            Some(error) => zip([x, error], |[x, error]| if error.is_infinite() { f64::NAN } else { x }),
            None => Ok(x.shallow_clone()),
        })?;
        change = further(&change, &at, 1.0)?;
    }
    if let Some((index, error)) = node.spec.pole.and_then(|index| Some((index, errors[index].as_ref()?))) {
        let inside = args.x(index).f_to_kind(Kind::Double)?.f_abs()?.f_le_tensor(error)?;
        change = change.f_masked_fill(&inside.f_expand(y.size(), false)?, f64::INFINITY)?;
    }
    let mut error = if dtype.is_float() {
        let unit = ulps * dtype.unit_roundoff();
        zip([&change, &exact_f64], |[change, exact]| change + (exact.abs() + absolute) * unit)?
    } else {
        // An integer or a bool that may differ at all says nothing.
        zip([&change], |[change]| if change > 0.0 { f64::INFINITY } else { change })?
    };
    for (i, doubtful) in errors.iter().enumerate() {
        if let Some(doubtful) = doubtful.as_ref().filter(|_| !float(i)) {
            let mask = doubtful.f_gt(0.0)?.f_expand(y.size(), false)?;
            error = error.f_masked_fill(&mask, f64::INFINITY)?;
        }
    }
    // Further outputs, such as the mask of Dropout, do not depend on float operands.
    let rest = exact[1..].iter().map(|exact| exact.zeros_like().to_kind(Kind::Double));
    Ok(std::iter::once(error).chain(rest).collect())
}

/// `gamma(n) * sum of |products|` and the operands' errors through the absolute operator.
fn accumulated(args: &Args, errors: &[Option<Tensor>], node: &Node) -> Outputs {
    let attributes: Vec<(Cow<'static, str>, Attribute<i64>)> = node
        .attributes
        .iter()
        .map(|(name, value)| match value {
            // Scale factors such as the alpha of Gemm enter by magnitude.
            Attribute::Float(value) => (name.clone(), Attribute::Float(value.abs())),
            other => (name.clone(), other.clone()),
        })
        .collect();
    let absolute =
        |args: Args| -> Outputs { (node.spec.eval)(&Args { attributes: &attributes as &Attributes, ..args }) };
    let magnitude = absolute(change_floats(args, errors, |_, x, _| x.f_abs())?)?;
    let scale = scale(args, errors);
    let inexact = errors.iter().any(Option::is_some);
    let widened = match inexact {
        true => absolute(change_floats(args, errors, |_, x, error| match error {
            Some(error) => zip([x, error], |[x, error]| x.abs() + error * scale),
            None => x.f_abs(),
        })?)?,
        false => magnitude.iter().map(Tensor::shallow_clone).collect(),
    };
    let largest = args.operands.iter().flatten().map(Tensor::numel).max().unwrap_or(1) as f64;
    let terms = args.accumulate.unwrap_or(largest) + 2.0;
    let bound = |((magnitude, widened), dtype): ((Tensor, Tensor), &DType)| {
        let rounding = terms * dtype.unit_roundoff();
        let gamma = if rounding < 0.5 { rounding / (1.0 - rounding) } else { f64::INFINITY };
        zip([&magnitude, &widened], |[magnitude, widened]| {
            let propagated = if inexact { (widened - magnitude) / scale } else { 0.0 };
            let propagated = defined(propagated);
            propagated + (magnitude + propagated) * gamma
        })
    };
    magnitude.into_iter().zip(widened).zip(&args.output_dtypes).map(bound).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Case;
    use crate::elements;
    use crate::input::{self, Stream};
    use crate::model::{Leaf, Value};
    use crate::ops;
    use crate::oracle::SAFETY;
    use crate::reference;
    use crate::spec::{Domain, Role};
    use crate::tensor::TensorData;

    /// 1 / ((x + y) - z) in f32: where the difference may be off by more than it is, there is no bound on either side of
    /// the pole.
    #[test]
    fn a_pole_within_the_error_is_not_judged() {
        let _no_grad = reference::init();
        let mut model = Model { opset: 21, ..Model::default() };
        let value = |name: &str| Value { name: name.to_owned(), dtype: DType::F32, shape: vec![1] };
        model.values = ["x", "y", "z", "one", "sum", "difference", "quotient"].map(value).to_vec();
        let leaf = |value| Leaf { value, role: Role::Input, domain: Domain::Any, content: None, constant_node: false };
        model.leaves = (0..4).map(leaf).collect();
        let node = |name: &str, operands: [usize; 2], output| Node {
            spec: ops::by_name(name).expect("an operator of the catalogue"),
            name: name.to_owned(),
            operands: operands.map(Some).to_vec(),
            outputs: vec![output],
            attributes: Vec::new(),
            accumulate: None,
        };
        model.nodes = vec![node("Add", [0, 1], 4), node("Sub", [4, 2], 5), node("Div", [3, 5], 6)];
        model.outputs = vec![6];
        let bound = |z: f32| {
            let data = [1e7, 0.3, z, 1.0].map(|element| TensorData::new(&[1], &[element])).to_vec();
            let wide = reference::run(&model, &data, Precision::Wide).unwrap();
            let errors = errors(&model, &data, &wide, &model.outputs).unwrap();
            f64::try_from(errors[6].as_ref().unwrap().sum(Kind::Double)).unwrap()
        };
        assert!(bound(9e6).is_finite());
        assert!(bound(1e7).is_infinite(), "the sum is off by up to 0.6, and the difference is 0.3");
    }

    /// Means of means are as far off as the mean of all may be, which an optimiser may make of them. The sums cancel, so
    /// that the error cannot be told from what is summed last.
    #[test]
    fn sums_of_sums_may_be_merged() {
        let _no_grad = reference::init();
        let (rows, columns) = (60usize, 80usize);
        let data: Vec<f32> = (0..rows * columns).map(|i| if i % 2 == 0 { 3.0 } else { -2.5 }).collect();
        let data = vec![TensorData::new(&[rows, columns], &data)];
        let bound = |operators: &[(&str, &[i64])]| {
            let mut model = Model { opset: 13, outputs: vec![operators.len()], ..Model::default() };
            let value = |shape: Vec<usize>| Value { name: "value".to_owned(), dtype: DType::F32, shape };
            model.values.push(value(vec![rows, columns]));
            model.leaves =
                vec![Leaf { value: 0, role: Role::Input, domain: Domain::Any, content: None, constant_node: false }];
            for (number, (name, axes)) in operators.iter().enumerate() {
                let mut shape = model.values[number].shape.clone();
                axes.iter().for_each(|&axis| shape[axis as usize] = 1);
                model.values.push(value(shape));
                model.nodes.push(Node {
                    spec: ops::by_name(name).expect("an operator of the catalogue"),
                    name: (*name).to_owned(),
                    operands: vec![Some(number)],
                    outputs: vec![number + 1],
                    attributes: match axes {
                        [] => Vec::new(),
                        axes => vec![("axes".into(), Attribute::Ints(axes.to_vec()))],
                    },
                    accumulate: None,
                });
            }
            let wide = reference::run(&model, &data, Precision::Wide).unwrap();
            let errors = errors(&model, &data, &wide, &model.outputs).unwrap();
            f64::try_from(errors[operators.len()].as_ref().unwrap().sum(Kind::Double)).unwrap()
        };
        let whole = bound(&[("ReduceMean", &[0, 1])]);
        assert!(bound(&[("ReduceMean", &[1]), ("ReduceMean", &[0])]) >= whole);
        assert!(bound(&[("ReduceMean", &[1]), ("Neg", &[]), ("ReduceMean", &[0])]) >= whole);
        // Nothing is merged over a function of sums.
        assert!(bound(&[("ReduceMean", &[1]), ("ReduceMax", &[0])]) < whole / 10.0);
    }

    /// Sigmoid(Round(Sigmoid(0))) in f64: Round may jump from 0 to 1, which moves the result by 0.23.
    #[test]
    fn a_jump_of_f64_is_seen_through_what_saturates() {
        let _no_grad = reference::init();
        let mut model = Model { opset: 21, ..Model::default() };
        let value = |name: &str| Value { name: name.to_owned(), dtype: DType::F64, shape: vec![1] };
        model.values = ["x", "half", "jumps", "result"].map(value).to_vec();
        model.leaves =
            vec![Leaf { value: 0, role: Role::Input, domain: Domain::Any, content: None, constant_node: false }];
        let node = |name: &str, operand: usize| Node {
            spec: ops::by_name(name).expect("an operator of the catalogue"),
            name: name.to_owned(),
            operands: vec![Some(operand)],
            outputs: vec![operand + 1],
            attributes: Vec::new(),
            accumulate: None,
        };
        model.nodes = vec![node("Sigmoid", 0), node("Round", 1), node("Sigmoid", 2)];
        model.outputs = vec![3];
        let data = vec![TensorData::new(&[1], &[0.0f64])];
        let wide = reference::run(&model, &data, Precision::Wide).unwrap();
        let error =
            f64::try_from(errors(&model, &data, &wide, &model.outputs).unwrap()[3].as_ref().unwrap().sum(Kind::Double))
                .unwrap();
        assert!(error > 0.2, "{error}");
    }

    /// Whatever operands are within their errors, a result is within its bound, as far as it is judged. Errors of all sizes
    /// are made up, also such as only jumps upstream would lead to.
    #[test]
    fn results_of_moved_operands_are_within_bounds() {
        let _no_grad = reference::init();
        let mut judged = 0;
        for seed in 0..1500 {
            let built = Case::build(&input::random(seed, 8)).expect("the reference follows its specification");
            let Ok(Case { model, wide, .. }) = built else { continue };
            let stream = &mut Stream::new(seed);
            // What the specification of an operator fixes is never computed.
            let fixed = |value| model.leaves.iter().any(|leaf| leaf.value == value && leaf.content.is_some());
            for node in &model.nodes {
                let size = [1e-6, 1e-3, 0.1, 1.0, 4.0, f64::INFINITY][stream.below(6) as usize];
                let mut errors = none(&model);
                for &value in node.operands.iter().flatten() {
                    if model.values[value].dtype.is_float() && !fixed(value) && stream.below(4) > 0 {
                        let x = wide[value].as_ref().unwrap().to_kind(Kind::Double);
                        errors[value] = Some((x.abs() + 1e-3) * size);
                    }
                }
                let args = reference::args(&model, node, &wide, Precision::Wide);
                let bounds = node_errors(node, args, &wide, &errors, false).unwrap();
                for _ in 0..4 {
                    let mut move_by = |value: &Option<Tensor>, error: &Option<Tensor>| match (value, error) {
                        // What may be anything may also be NaN.
                        (Some(value), Some(_)) if size.is_infinite() => Some(value * f64::NAN),
                        (Some(value), Some(error)) => {
                            let ways: Vec<f64> = (0..error.numel()).map(|_| stream.unit() * 2.0 - 1.0).collect();
                            Some(value + elements::tensor(&error.size(), &ways).unwrap() * error)
                        }
                        (value, _) => value.as_ref().map(Tensor::shallow_clone),
                    };
                    let moved: Values = wide.iter().zip(&errors).map(|(value, error)| move_by(value, error)).collect();
                    // Where nothing is defined so far away, nothing is said.
                    let args = reference::args(&model, node, &moved, Precision::Wide);
                    let Ok(outputs) = (node.spec.eval)(&args) else { continue };
                    for ((output, &value), bound) in outputs.iter().zip(&node.outputs).zip(&bounds) {
                        let exact = wide[value].as_ref().unwrap();
                        let none = exact.zeros_like().to_kind(Kind::Double);
                        let bound = bound.as_ref().unwrap_or(&none);
                        let beyond = any([output, exact, bound], |[output, exact, bound]| {
                            let rounding = 1e-9 * exact.abs() + 1e-12;
                            let near = (output - exact).abs() <= SAFETY * bound + rounding;
                            bound.is_finite() && !near
                        });
                        let name = node.spec.name;
                        assert!(!beyond.unwrap(), "seed {seed}: {name} {:?} with errors of {size}", node.attributes);
                        judged += 1;
                    }
                }
            }
        }
        assert!(judged >= 30_000, "only {judged} results were judged");
    }
}
