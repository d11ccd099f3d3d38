//! Faults of the graph: another operator, or other operands.

use super::{Fault, Inject, pick};
use crate::input::Stream;
use crate::model::{LeafData, Model, Value};
use crate::ops;
use crate::tensor::TensorData;

const fn fault(name: &'static str, change: fn(&mut Model, &mut LeafData, &mut Stream) -> Option<()>) -> Fault {
    Fault { name, inject: Inject::Model(change) }
}

pub const TABLE: &[Fault] = &[
    fault("swapped-operands", swapped),
    fault("skipped-operator", skipped),
    fault("repeated-operator", repeated),
    fault("operand-of-another-node", rewired),
    fault("missing-bias", |model, data, stream| {
        without_operand(model, data, stream, &["Conv", "ConvTranspose", "Gemm"])
    }),
    fault("missing-shift", |model, data, stream| {
        without_operand(model, data, stream, &["LayerNormalization", "InstanceNormalization", "GroupNormalization"])
    }),
    fault("wrong-padding-value", |model, data, stream| {
        let pads = nodes(model, |name, count| name == "Pad" && count > 2);
        let value = model.nodes[*pick(&pads, stream)?].operands[2]?;
        change_leaf(model, data, value, |element| element + 1.0)
    }),
    fault("minimum-for-maximum", |model, _, stream| {
        sibling(model, stream, &[("Max", "Min"), ("ReduceMax", "ReduceMin"), ("ArgMax", "ArgMin")])
    }),
    fault("maximum-for-minimum", |model, _, stream| {
        sibling(model, stream, &[("Min", "Max"), ("ReduceMin", "ReduceMax"), ("ArgMin", "ArgMax")])
    }),
    fault("mean-for-sum", |model, _, stream| sibling(model, stream, &[("ReduceSum", "ReduceMean"), ("Sum", "Mean")])),
    fault("sum-for-mean", |model, _, stream| sibling(model, stream, &[("ReduceMean", "ReduceSum"), ("Mean", "Sum")])),
    fault("equality-lost", |model, _, stream| {
        sibling(model, stream, &[("LessOrEqual", "Less"), ("GreaterOrEqual", "Greater")])
    }),
    fault("equality-added", |model, _, stream| {
        sibling(model, stream, &[("Less", "LessOrEqual"), ("Greater", "GreaterOrEqual")])
    }),
    fault("other-logic", |model, _, stream| {
        sibling(model, stream, &[("And", "Or"), ("Or", "Xor"), ("Xor", "And"), ("BitwiseAnd", "BitwiseOr")])
    }),
    fault("other-arithmetic", |model, _, stream| {
        sibling(model, stream, &[("Add", "Sub"), ("Sub", "Add"), ("Mul", "Add")])
    }),
    fault("other-activation", |model, _, stream| {
        sibling(
            model,
            stream,
            &[("Relu", "Abs"), ("Sigmoid", "HardSigmoid"), ("Softmax", "LogSoftmax"), ("Elu", "Selu")],
        )
    }),
];

/// The nodes whose operator and number of operands suit.
fn nodes(model: &Model, suits: impl Fn(&str, usize) -> bool) -> Vec<usize> {
    (0..model.nodes.len()).filter(|&at| suits(model.nodes[at].spec.name, model.nodes[at].operands.len())).collect()
}

fn same_type(one: &Value, other: &Value) -> bool {
    one.dtype == other.dtype && one.shape == other.shape
}

/// Two operands of one type of a node.
fn swapped(model: &mut Model, _: &mut LeafData, stream: &mut Stream) -> Option<()> {
    let mut candidates = Vec::new();
    for (node, operands) in model.nodes.iter().map(|node| &node.operands).enumerate() {
        let present: Vec<(usize, usize)> =
            operands.iter().enumerate().filter_map(|(i, it)| Some((i, (*it)?))).collect();
        for &(i, one) in &present {
            let others = present
                .iter()
                .filter(|&&(j, other)| j > i && one != other && same_type(&model.values[one], &model.values[other]));
            candidates.extend(others.map(|&(j, _)| (node, i, j)));
        }
    }
    let &(node, i, j) = pick(&candidates, stream)?;
    model.nodes[node].operands.swap(i, j);
    Some(())
}

/// What uses a node's result uses its operand instead.
fn skipped(model: &mut Model, _: &mut LeafData, stream: &mut Stream) -> Option<()> {
    let alike = |at: &usize| {
        let (operands, outputs) = (&model.nodes[*at].operands, &model.nodes[*at].outputs);
        let operand = operands.first().copied().flatten();
        operand.is_some_and(|operand| same_type(&model.values[operand], &model.values[outputs[0]]))
    };
    let candidates: Vec<usize> = (0..model.nodes.len()).filter(alike).collect();
    let at = *pick(&candidates, stream)?;
    let (operand, output) = (model.nodes[at].operands[0]?, model.nodes[at].outputs[0]);
    let replace = |value: &mut usize| {
        if *value == output {
            *value = operand;
        }
    };
    model.nodes[at + 1..].iter_mut().flat_map(|node| node.operands.iter_mut().flatten()).for_each(replace);
    model.outputs.iter_mut().for_each(replace);
    Some(())
}

/// A node of one operand takes the place of its own operand as well.
fn repeated(model: &mut Model, _: &mut LeafData, stream: &mut Stream) -> Option<()> {
    let alike = |at: &usize| match (&model.nodes[*at].operands[..], &model.nodes[*at].outputs[..]) {
        (&[Some(operand)], &[output]) => same_type(&model.values[operand], &model.values[output]),
        _ => false,
    };
    let candidates: Vec<usize> = (0..model.nodes.len()).filter(alike).collect();
    let at = *pick(&candidates, stream)?;
    let mut again = model.nodes[at].clone();
    let output = model.nodes[at].outputs[0];
    let between = Value { name: "between".to_owned(), ..model.values[output].clone() };
    model.values.push(between);
    model.nodes[at].outputs[0] = model.values.len() - 1;
    again.operands[0] = Some(model.values.len() - 1);
    model.insert_node(at + 1, again);
    Some(())
}

/// An operand is another value of the same type that is already there.
fn rewired(model: &mut Model, _: &mut LeafData, stream: &mut Stream) -> Option<()> {
    let mut candidates = Vec::new();
    let mut known: Vec<usize> = model.leaves.iter().map(|leaf| leaf.value).collect();
    for (at, node) in model.nodes.iter().enumerate() {
        for (slot, operand) in node.operands.iter().enumerate() {
            let Some(operand) = *operand else { continue };
            let like = |&&other: &&usize| other != operand && same_type(&model.values[other], &model.values[operand]);
            candidates.extend(known.iter().filter(like).map(|&other| (at, slot, other)));
        }
        known.extend(&node.outputs);
    }
    let &(at, slot, other) = pick(&candidates, stream)?;
    model.nodes[at].operands[slot] = Some(other);
    Some(())
}

/// The third operand of one of these operators is zeros.
fn without_operand(model: &mut Model, data: &mut LeafData, stream: &mut Stream, operators: &[&str]) -> Option<()> {
    let candidates = nodes(model, |name, count| operators.contains(&name) && count > 2);
    let at = *pick(&candidates, stream)?;
    let value = model.nodes[at].operands[2]?;
    change_leaf(model, data, value, |_| 0.0)
}

fn change_leaf(model: &Model, data: &mut LeafData, value: usize, change: impl Fn(f64) -> f64) -> Option<()> {
    let leaf = model.leaves.iter().position(|leaf| leaf.value == value)?;
    let elements: Vec<f64> = data[leaf].to_f64().into_iter().map(change).collect();
    data[leaf] = TensorData::from_f64(data[leaf].dtype, &data[leaf].shape, &elements);
    Some(())
}

/// Another operator of the same form.
fn sibling(model: &mut Model, stream: &mut Stream, pairs: &[(&str, &str)]) -> Option<()> {
    let other = |name: &str| pairs.iter().find(|(from, _)| *from == name).map(|(_, to)| *to);
    let candidates = nodes(model, |name, _| other(name).is_some());
    let at = *pick(&candidates, stream)?;
    model.nodes[at].spec = ops::by_name(other(model.nodes[at].spec.name)?)?;
    Some(())
}
