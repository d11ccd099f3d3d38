//! What makes data valid.

use crate::dtype::DType;
use crate::elements;
use crate::limits::EXACT;
use crate::model::{Model, Node};
use crate::reference::{self, Defect, Precision, Values};
use crate::spec::Args;
use tch::{Kind, Tensor};

/// The share of a type's range that values may use: backends may round differently near its end.
pub const RANGE_SHARE: f64 = 0.5;

/// Whether wide reference values are free of exceptional values, by the rules of [`crate::search`].
pub fn is_valid(model: &Model, values: &Values) -> Result<bool, Defect> {
    let leaves = (0..model.leaves.len()).all(|leaf| leaf_is_valid(model, leaf, values));
    model.nodes.iter().try_fold(leaves, |valid, node| Ok(valid && node_is_valid(model, node, values)?))
}

pub fn leaf_is_valid(model: &Model, leaf: usize, values: &Values) -> bool {
    fits(model, model.leaves[leaf].value, values)
}

/// Whether a node's operands are where it is defined, and its results free of exceptional values.
pub fn node_is_valid(model: &Model, node: &Node, values: &Values) -> Result<bool, Defect> {
    if !node.outputs.iter().all(|&output| fits(model, output, values)) {
        return Ok(false);
    }
    if node.spec.guard.is_none() && !node.spec.can_overflow {
        return Ok(true);
    }
    let args = reference::args(model, node, values, Precision::Wide);
    Ok(guards(model, node, &args)?.iter().all(|guard| all(guard, |element| element >= 0.0))
        && !overflows(model, node, &args)?)
}

/// Whether no integer result leaves the range of its type.
pub fn integers_fit(model: &Model, values: &Values) -> Result<bool, Defect> {
    model.nodes.iter().try_fold(true, |fit, node| {
        Ok(fit && !overflows(model, node, &reference::args(model, node, values, Precision::Wide))?)
    })
}

fn fits(model: &Model, value: usize, values: &Values) -> bool {
    in_range(values[value].as_ref().expect("the value was computed"), model.values[value].dtype)
}

/// Whether a condition holds for every element, seen in f64.
pub fn all(value: &Tensor, condition: impl Fn(f64) -> bool) -> bool {
    !elements::any([value], |[element]| !condition(element)).expect("every tensor can be read in f64")
}

/// Whether a value is in the part of its type's range that is used.
pub fn in_range(value: &Tensor, dtype: DType) -> bool {
    let most = dtype.max();
    match dtype {
        // Held in wider, signed types, so that what leaves the range does not wrap by itself.
        DType::U16 | DType::U32 => all(value, |element| (0.0..=most).contains(&element)),
        DType::U64 => all(value, |element| element >= 0.0),
        // A NaN fails the comparison.
        float if float.is_float() => all(value, |element| element.abs() <= most * RANGE_SHARE),
        _ => true,
    }
}

/// What must be at least 0, where an operator is not defined everywhere.
pub fn guards(model: &Model, node: &Node, args: &Args) -> Result<Vec<Tensor>, Defect> {
    // Nothing is undefined where nothing is computed.
    let computes = node.outputs.iter().any(|&output| !model.values[output].is_empty());
    let Some(guard) = node.spec.guard.filter(|_| computes) else { return Ok(Vec::new()) };
    guard(args).map_err(|source| Defect::Eval { operator: node.spec.name, source })
}

/// Whether an integer result leaves its type's range, seen by computing it on f64 copies of the operands.
fn overflows(model: &Model, node: &Node, args: &Args) -> Result<bool, Defect> {
    let dtype = model.values[node.outputs[0]].dtype;
    if !node.spec.can_overflow || !dtype.is_int() {
        return Ok(false);
    }
    // Sums of products of bytes less their zero points, as in ConvInteger, need more terms than models have to overflow.
    let bytes = args.operand_dtypes.iter().flatten().all(|dtype| matches!(dtype, DType::I8 | DType::U8));
    if bytes && dtype == DType::I32 && node.accumulate.is_some_and(|terms| terms <= i64::from(i32::MAX) / (255 * 255)) {
        return Ok(false);
    }
    let args = Args {
        operands: args.operands.iter().map(|x| x.as_ref().map(|x| x.to_kind(Kind::Double))).collect(),
        operand_dtypes: args.operand_dtypes.iter().map(|dtype| dtype.map(|_| DType::F64)).collect(),
        attributes: args.attributes,
        opset: args.opset,
        output_dtypes: args.output_dtypes.iter().map(|_| DType::F64).collect(),
        wide: true,
        accumulate: args.accumulate,
    };
    let outputs = (node.spec.eval)(&args).map_err(|source| Defect::Eval { operator: node.spec.name, source })?;
    // ONNX asks for no precision of integers, and ONNX Runtime deliberately sums i64 in double (`ReduceAggregatorSum` in
    // core/providers/cpu/reduction/reduction_ops.h); nor are greater ones told apart here.
    let (least, most) = (dtype.min().max(-EXACT), dtype.max().min(EXACT));
    Ok(!all(&outputs[0], |element| (least..=most).contains(&element)))
}
