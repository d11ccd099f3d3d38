//! Losses of classifiers.

use super::common::one;
use super::movement::refuse;
use super::rounding::{defined, error_of, gamma, of_reciprocal, underflow, unless_overflow};
use super::softmax::log_softmax_errors;
use crate::dtype::{DType, FLOATS};
use crate::limits::MAX_RANK;
use crate::spec::{Args, Builder, Domain, Numerics, OpSpec, Operand, Skip};
use crate::term::Term;
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&NEGATIVE_LOG_LIKELIHOOD, &SOFTMAX_CROSS_ENTROPY];

/// Elements of targets that are fixed.
const MOST: i64 = 128;

/// A loss of the batch and classes of the first operand.
const LOSS: OpSpec = OpSpec {
    dtypes: FLOATS,
    // A mean over weights of nearly nothing.
    guard: Some(|a| match a.text("reduction", "mean") {
        "mean" => one(Targets::of(a)?.weights(a)?.f_sum(a.x(0).kind())?.f_abs()?.f_sub_scalar(0.1)),
        _ => Ok(Vec::new()),
    }),
    ..OpSpec::BASE
};

/// ONNX NegativeLogLikelihoodLoss, opset 13; bf16 came with opset 22.
pub const NEGATIVE_LOG_LIKELIHOOD: OpSpec = OpSpec {
    code: 0x76,
    name: "NegativeLogLikelihoodLoss",
    doc: "The negative of the element at each target class, weighted; as it is, added up, or the weighted mean.",
    numerics: Numerics::Custom(|a, errors, exact| {
        one(loss_errors(a, a.x(0), &error_of(errors, 0, a.x(0))?, errors, &exact[0]))
    }),
    build: |b| build_loss(b).map(|_| ()),
    eval: |a| one(loss(a, a.x(0))),
    ..LOSS
};

/// ONNX SoftmaxCrossEntropyLoss, opset 13.
pub const SOFTMAX_CROSS_ENTROPY: OpSpec = OpSpec {
    code: 0x77,
    name: "SoftmaxCrossEntropyLoss",
    doc: "NegativeLogLikelihoodLoss of the LogSoftmax of scores; and that LogSoftmax.",
    numerics: Numerics::Custom(|a, errors, exact| {
        let x = a.x(0);
        let log_prob = x.f_log_softmax(1, x.kind())?;
        let error = log_softmax_errors(x, &error_of(errors, 0, x)?, &log_prob, 1, a.dtype(0))?;
        let loss = loss_errors(a, &log_prob, &error, errors, &exact[0])?;
        Ok([loss, error].into_iter().take(exact.len()).collect())
    }),
    build: |b| {
        let x = build_loss(b)?;
        // The function's body in the standard reshapes to [0, 0, -1], of which nothing is said for empty tensors.
        x.shape.iter().for_each(|dim| b.require(dim.at_least(1)));
        if b.chance(112) {
            b.output(x.dtype, x.shape);
        }
        Ok(())
    },
    eval: |a| {
        let log_prob = a.x(0).f_log_softmax(1, a.x(0).kind())?;
        let loss = loss(a, &log_prob)?;
        Ok([loss, log_prob].into_iter().take(a.output_dtypes.len()).collect())
    },
    ..LOSS
};

/// Declares all but the second output; returns the scores.
fn build_loss(b: &mut Builder) -> Result<Operand, Skip> {
    let x = b.input(b.dtypes(), 2..=MAX_RANK)?;
    let classes = x.shape[1];
    let shape = [&x.shape[..1], &x.shape[2..]].concat();
    // The default is as common as the others.
    let (written, reduction) =
        b.one_of(&[(false, "mean"), (true, "none"), (true, "sum"), (true, "mean"), (true, "none")]);
    b.require(classes.at_least(1));
    if reduction == "mean" {
        // Of nothing there is no mean.
        shape.iter().for_each(|dim| b.require(dim.at_least(1)));
    }
    targets(b, classes, &shape);
    if b.coin() {
        let domain = if reduction == "mean" { Domain::Range(0.25, 4.0) } else { Domain::Any };
        b.weight_in(x.dtype, [classes], domain);
    }
    if written {
        b.set_text("reduction", reduction);
    }
    b.output(x.dtype, if reduction == "none" { shape } else { Vec::new() });
    Ok(x)
}

/// Classes, among them often some that `ignore_index` names; it may also be none of the classes.
fn targets(b: &mut Builder, classes: Term, shape: &[Term]) {
    let dtype = b.one_of(&[DType::I64, DType::I64, DType::I32]);
    let last = classes - 1;
    match b.below(6) {
        1 if b.value(classes) > 1 => {
            let named = b.below(b.value(classes).min(256) as usize) as i64;
            b.require(classes.at_least(named.max(1) + 1));
            b.set_int("ignore_index", named);
            b.leaf(dtype, shape, Domain::Between(0, last));
        }
        2 => {
            b.set_int("ignore_index", -1);
            b.leaf(dtype, shape, Domain::Between(-1, last));
        }
        3 => {
            b.set_int("ignore_index", classes);
            b.leaf(dtype, shape, Domain::Between(0, classes));
        }
        4 => fixed_targets(b, dtype, classes, shape),
        _ => {
            b.leaf(dtype, shape, Domain::Between(0, last));
        }
    }
}

/// Targets of which some are far from every class; the first is not.
fn fixed_targets(b: &mut Builder, dtype: DType, classes: Term, shape: &[Term]) {
    let sizes: Vec<i64> = shape.iter().map(|&dim| b.value(dim)).collect();
    let known = b.value(classes).max(1);
    let count: i64 = sizes.iter().product();
    if count > MOST {
        b.leaf(dtype, shape, Domain::Between(0, classes - 1));
        return;
    }
    let ignored = b.one_of(&[-100, 255, -2, 1000, i64::from(i32::MIN)]);
    let mut stream = b.stream();
    let mut target = |i| if i > 0 && stream.below(4) == 0 { ignored } else { stream.below(known as u64) as i64 };
    let content: Vec<Term> = (0..count).map(|i| Term::constant(target(i))).collect();
    for (&dim, size) in shape.iter().zip(sizes) {
        b.require(dim.equals(size));
    }
    // A class of this number would be ignored, too, which is worth nothing here.
    b.require(classes.at_least(known));
    b.require(classes.at_most(255));
    b.set_int("ignore_index", ignored);
    b.fixed(dtype, shape, content, 1);
}

/// The classes asked for.
struct Targets {
    /// 0 where they are ignored.
    class: Tensor,
    ignored: Tensor,
}

impl Targets {
    fn of(a: &Args) -> Result<Targets, TchError> {
        let class = a.x(1).f_to_kind(Kind::Int64)?;
        let ignored = match a.attribute("ignore_index") {
            Some(_) => class.f_eq(a.int("ignore_index", 0))?,
            None => class.f_zeros_like()?.f_to_kind(Kind::Bool)?,
        };
        Ok(Targets { class: class.f_masked_fill(&ignored, 0)?, ignored })
    }

    /// The element of `x` at each class; 0 where it is ignored.
    fn picked(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let picked = x.f_gather(1, &self.class.f_unsqueeze(1)?, false)?;
        picked.f_squeeze_dim(1)?.f_masked_fill(&self.ignored, 0.0)
    }

    /// What `weight` has for each class; 0 where it is ignored.
    fn of_classes(&self, weight: &Tensor) -> Result<Tensor, TchError> {
        let flat = weight.f_index_select(0, &self.class.f_reshape([-1])?)?;
        flat.f_reshape(self.class.size())?.f_masked_fill(&self.ignored, 0.0)
    }

    /// The weight of each class, 1 if there are none.
    fn weights(&self, a: &Args) -> Result<Tensor, TchError> {
        match a.opt(2) {
            Some(weight) => self.of_classes(weight),
            None => self.ignored.f_logical_not()?.f_to_kind(a.x(0).kind()),
        }
    }
}

/// Where something is ignored the mean is that of the rest, also without weights: "divided by the sum of applied weights".
fn loss(a: &Args, log_prob: &Tensor) -> Result<Tensor, TchError> {
    let targets = Targets::of(a)?;
    let weights = targets.weights(a)?;
    let loss = targets.picked(log_prob)?.f_neg()?.f_mul(&weights)?;
    match a.text("reduction", "mean") {
        "none" => Ok(loss),
        "sum" => loss.f_sum(loss.kind()),
        "mean" => loss.f_sum(loss.kind())?.f_div(&weights.f_sum(loss.kind())?),
        _ => refuse("a loss with an unknown reduction"),
    }
}

/// The error of a loss `exact` of `log_prob` that may be off by `error`.
fn loss_errors(
    a: &Args,
    log_prob: &Tensor,
    error: &Tensor,
    errors: &[Option<Tensor>],
    exact: &Tensor,
) -> Result<Tensor, TchError> {
    let dtype = a.output_dtypes[0];
    let (u, tiny) = (dtype.unit_roundoff(), underflow(dtype));
    let targets = Targets::of(a)?;
    let (picked, picked_error) = (targets.picked(log_prob)?.f_abs()?, targets.picked(error)?);
    let weights = targets.weights(a)?.f_abs()?;
    let (weights_error, rounding) = match a.opt(2) {
        Some(weight) => (targets.of_classes(&error_of(errors, 2, weight)?)?, u),
        None => (weights.f_zeros_like()?, 0.0),
    };
    let reached = (&picked + &picked_error) * (&weights + &weights_error);
    let spread = &reached - &picked * &weights;
    let each = spread + &reached * rounding + if rounding > 0.0 { tiny } else { 0.0 };
    let reduction = a.text("reduction", "mean");
    if reduction == "none" {
        return defined(unless_overflow(each, &reached, dtype)?.f_masked_fill(&targets.ignored, 0.0)?);
    }
    let count = reached.numel() as f64;
    let sum = |x: &Tensor| x.f_sum(Kind::Double);
    let most = sum(&reached)?;
    let total = sum(&each)? + &most * gamma(count, dtype) + count * tiny;
    if reduction == "sum" {
        return defined(unless_overflow(total, &most, dtype)?);
    }
    let divisor = sum(&targets.weights(a)?)?.f_abs()?;
    let divisor_error = sum(&weights_error)? + sum(&(&weights + &weights_error))? * gamma(count, dtype);
    // Each loss may be divided by itself, or its weight before all.
    let share = of_reciprocal(&(divisor_error / &divisor + 2.0 * u))?;
    let quotient = exact.f_abs()?;
    let propagated = (total + 2.0 * count * tiny) / &divisor * (&share + 1.0) + &quotient * share;
    defined(unless_overflow(propagated + quotient * (2.0 * u) + tiny, &most, dtype)?)
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval_all, operand};
    use super::*;
    use crate::dtype::DType::{F32, I64};
    use crate::spec::Attribute::{Int, Text};
    use crate::tensor::TensorData;

    /// The numbers of the examples in the text.
    #[test]
    fn examples_of_onnx() {
        let x = operand(F32, &[2, 3, 2], &[1.0, 2.0, 2.0, 2.0, 3.0, 2.0, 0.0, 1.0, 2.0, 2.0, 1.0, 2.0]);
        let target = operand(I64, &[2, 2], &[2.0, 1.0, 0.0, 2.0]);
        let weight = operand(F32, &[3], &[0.2, 0.3, 0.1]);
        let loss = |operands: &[Option<TensorData>], reduction: &str, ignored: Option<i64>| {
            let mut attributes = vec![("reduction", Text(reduction.to_owned()))];
            attributes.extend(ignored.map(|index| ("ignore_index", Int(index))));
            eval_all(&NEGATIVE_LOG_LIKELIHOOD, operands, &attributes, &[F32]).swap_remove(0)
        };
        let plain = [x.clone(), target.clone()];
        let weighted = [x.clone(), target, weight.clone()];
        assert_near(&loss(&plain, "none", None), &[-3.0, -2.0, 0.0, -2.0]);
        assert_near(&loss(&weighted, "sum", None), &[-1.1]);
        assert_near(&loss(&weighted, "mean", None), &[-1.1 / 0.7]);
        assert_near(&loss(&plain, "mean", None), &[-7.0 / 4.0]);
        assert_near(&loss(&plain, "mean", Some(0)), &[-7.0 / 3.0]);
        let beyond = [x, operand(I64, &[2, 2], &[-1.0, 1.0, 0.0, -1.0]), weight];
        assert_near(&loss(&beyond, "none", Some(-1)), &[0.0, -0.6, 0.0, 0.0]);
        assert_near(&loss(&beyond, "mean", Some(-1)), &[-1.2]);
    }

    #[test]
    fn scores_are_normalised_along_the_classes() {
        let scores = operand(F32, &[2, 3], &[1.0, 2.0, 3.0, 0.0, 0.0, 0.0]);
        let labels = operand(I64, &[2], &[2.0, 0.0]);
        let attributes = [("reduction", Text("none".to_owned()))];
        let outputs = eval_all(&SOFTMAX_CROSS_ENTROPY, &[scores, labels], &attributes, &[F32, F32]);
        assert_near(&outputs[0], &[0.407_605_96, 1.098_612_3]);
        let third = -1.098_612_3;
        assert_near(&outputs[1], &[-2.407_606, -1.407_606, -0.407_605_96, third, third, third]);
    }
}
