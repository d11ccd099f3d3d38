//! What a correct backend may do: round more or less often, add in another order, approximate functions.

use super::Honest;
use crate::dtype::DType;
use crate::input::Stream;
use crate::model::{LeafData, Model, Node};
use crate::reference::{self, Defect, Precision, Values};
use crate::spec::Numerics;
use crate::tensor::TensorData;
use tch::Tensor;

pub const TABLE: &[Honest] = &[
    Honest { name: "copy", compute: |model, data, _| reference::run(model, data, Precision::Declared).map(Some) },
    // As accelerators do that keep what they fuse in wide registers.
    Honest { name: "wide", compute: |model, data, _| reference::run(model, data, Precision::Wide).map(Some) },
    Honest { name: "rounded-once-per-operator", compute: rounded_once },
    Honest { name: "f16-in-f32", compute: half_in_single },
    Honest {
        name: "other-order-of-sums",
        compute: |model, data, stream| stepping(model, data, rounds, |_| stream.below(3) as i64 - 1),
    },
    Honest { name: "blocked-sums", compute: blocked },
    Honest { name: "functions-one-place-off", compute: |model, data, _| stepping(model, data, is_function, |_| 1) },
    Honest { name: "functions-one-place-below", compute: |model, data, _| stepping(model, data, is_function, |_| -1) },
    Honest { name: "flush-to-zero", compute: flush_to_zero },
];

/// Whether a correct backend may round more than once. Basic arithmetic and roots it may not: the next number is wrong.
fn rounds(node: &Node) -> bool {
    matches!(node.spec.numerics, Numerics::Accumulated) || is_function(node)
}

fn is_function(node: &Node) -> bool {
    matches!(node.spec.numerics, Numerics::Elementwise { ulps, .. } if ulps > 2.0)
}

/// The reference in the declared types, with each node's results changed.
fn declared(
    model: &Model,
    data: &LeafData,
    mut change: impl FnMut(&Node, TensorData) -> TensorData,
) -> Result<Values, Defect> {
    node_by_node(model, data, |node, values| {
        let results = reference::run_node(model, node, values, Precision::Declared)?;
        let changed = results.iter().zip(&node.outputs).map(|(result, &output)| {
            reference::to_tensor(&change(node, reference::to_data(result, model.values[output].dtype)), false)
        });
        Ok(changed.collect())
    })
}

/// Every value in the declared types, with the results of a node from `compute`.
fn node_by_node(
    model: &Model,
    data: &LeafData,
    mut compute: impl FnMut(&Node, &Values) -> Result<Vec<Tensor>, Defect>,
) -> Result<Values, Defect> {
    let mut values: Values = (0..model.values.len()).map(|_| None).collect();
    for (leaf, data) in model.leaves.iter().zip(data) {
        values[leaf.value] = Some(reference::to_tensor(data, false));
    }
    for node in &model.nodes {
        let results = compute(node, &values)?;
        node.outputs.iter().zip(results).for_each(|(&output, result)| values[output] = Some(result));
    }
    Ok(values)
}

/// Each operator in f64 on rounded operands, as fused multiply-adds and wide accumulators come close to.
fn rounded_once(model: &Model, data: &LeafData, _: &mut Stream) -> Result<Option<Values>, Defect> {
    node_by_node(model, data, |node, values| {
        let wide: Values = values
            .iter()
            .zip(&model.values)
            .map(|(value, ty)| value.as_ref().map(|it| reference::to_tensor(&reference::to_data(it, ty.dtype), true)))
            .collect();
        let results = reference::run_node(model, node, &wide, Precision::Wide)?;
        let rounded = results.iter().zip(&node.outputs);
        Ok(rounded
            .map(|(result, &output)| {
                reference::to_tensor(&reference::to_data(result, model.values[output].dtype), false)
            })
            .collect())
    })
    .map(Some)
}

/// Everything that is f16 in f32, rounded only at the end.
fn half_in_single(model: &Model, data: &LeafData, _: &mut Stream) -> Result<Option<Values>, Defect> {
    // The bits of a number are those of its type.
    let has_half = model.values.iter().any(|value| value.dtype == DType::F16);
    if !has_half || model.nodes.iter().any(|node| node.spec.name == "BitCast") {
        return Ok(None);
    }
    let mut single = model.clone();
    single.values.iter_mut().filter(|value| value.dtype == DType::F16).for_each(|value| value.dtype = DType::F32);
    let convert = |data: &TensorData| match data.dtype {
        DType::F16 => TensorData::from_f64(DType::F32, &data.shape, &data.to_f64()),
        _ => data.clone(),
    };
    let data: LeafData = data.iter().map(convert).collect();
    reference::run(&single, &data, Precision::Declared).map(Some)
}

/// Sums of products in two blocks: those of the even elements of the first operand, and those of the odd ones.
fn blocked(model: &Model, data: &LeafData, _: &mut Stream) -> Result<Option<Values>, Defect> {
    let mut split = false;
    let values = node_by_node(model, data, |node, values| {
        let whole = reference::run_node(model, node, values, Precision::Declared)?;
        let operand = node.operands.first().copied().flatten();
        // A third operand is a bias, which the sum of two halves would have twice.
        let blocks = matches!(node.spec.numerics, Numerics::Accumulated) && node.operands.len() <= 2;
        let Some(operand) = operand.filter(|&it| blocks && model.values[it].dtype.is_float()) else { return Ok(whole) };
        let x = values[operand].as_ref().expect("topological order");
        let odd = Tensor::arange(x.numel() as i64, (tch::Kind::Int64, x.device())).remainder(2).reshape(x.size());
        let half = |mask: Tensor| {
            let mut values: Values = values.iter().map(|it| it.as_ref().map(Tensor::shallow_clone)).collect();
            // Not a product: 0 times infinity is no 0.
            values[operand] = Some(x.where_self(&mask.to_kind(tch::Kind::Bool), &x.zeros_like()));
            reference::run_node(model, node, &values, Precision::Declared)
        };
        let (even, odd) = (half(1 - &odd)?, half(odd)?);
        // Only what is linear in its first operand is the sum of both.
        if whole.len() != 1 || !linear(node) {
            return Ok(whole);
        }
        split = true;
        let dtype = model.values[node.outputs[0]].dtype;
        let sum = &even[0] + &odd[0];
        Ok(vec![reference::to_tensor(&reference::to_data(&sum, dtype), false)])
    })?;
    Ok(split.then_some(values))
}

fn linear(node: &Node) -> bool {
    let squares = node.operands.len() == 2 && node.operands[0] == node.operands[1];
    matches!(node.spec.name, "MatMul" | "Gemm" | "Conv" | "ConvTranspose" | "ReduceSum" | "AveragePool") && !squares
}

/// Finite floats of some nodes moved by some units in the last place, away from 0 for a positive number. Zeros stay: no
/// order of summation makes anything else of `x - x`.
fn stepping(
    model: &Model,
    data: &LeafData,
    suits: impl Fn(&Node) -> bool,
    mut places: impl FnMut(usize) -> i64,
) -> Result<Option<Values>, Defect> {
    if !model.nodes.iter().any(&suits) {
        return Ok(None);
    }
    let step = |node: &Node, tensor: TensorData| match node.spec.range_in(tensor.dtype) {
        _ if !suits(node) => tensor,
        None => stepped(tensor, &mut places),
        Some((least, largest)) => {
            let stepped = stepped(tensor, &mut places);
            let within: Vec<f64> = stepped.to_f64().into_iter().map(|value| value.clamp(least, largest)).collect();
            TensorData::from_f64(stepped.dtype, &stepped.shape, &within)
        }
    };
    declared(model, data, step).map(Some)
}

fn stepped(mut tensor: TensorData, places: &mut impl FnMut(usize) -> i64) -> TensorData {
    if !tensor.dtype.is_float() {
        return tensor;
    }
    let movable: Vec<bool> = tensor.to_f64().iter().map(|value| value.is_finite() && *value != 0.0).collect();
    let size = tensor.dtype.size_bytes();
    for (i, bytes) in tensor.bytes.chunks_exact_mut(size).enumerate() {
        let mut bits = [0; 8];
        bits[..size].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(bits);
        let magnitude = (1u64 << (8 * size - 1)) - 1;
        let moved = (bits & magnitude).saturating_add_signed(if movable[i] { places(i) } else { 0 });
        bytes.copy_from_slice(&(bits & !magnitude | moved).to_le_bytes()[..size]);
    }
    tensor
}

/// Subnormal results become 0; f16 is computed in f32 everywhere, so its own stay.
fn flush_to_zero(model: &Model, data: &LeafData, _: &mut Stream) -> Result<Option<Values>, Defect> {
    let flush = |node: &Node, tensor: TensorData| {
        if !rounds(node) || !matches!(tensor.dtype, DType::F32 | DType::F64) {
            return tensor;
        }
        let least = tensor.dtype.min_positive();
        let values: Vec<f64> = tensor.to_f64().into_iter().map(|it| if it.abs() < least { 0.0 } else { it }).collect();
        TensorData::from_f64(tensor.dtype, &tensor.shape, &values)
    };
    declared(model, data, flush).map(Some)
}
