//! Whether a model stays within the element types of rten, so that a difference is a mistake and not its documented
//! limit: it turns f16 and f64 into f32, and i64 outside i32 into the nearest i32.

use crate::backend::Failure;
use crate::dtype::{DType, DTypes};
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

const DTYPES: DTypes = DTypes::of(&[DType::F32, DType::I32, DType::I64, DType::I8, DType::U8, DType::Bool]);

/// Attributes whose integer is an element type.
const DTYPE_ATTRIBUTES: [&str; 3] = ["to", "dtype", "output_dtype"];

/// `Unsupported` if any value, constant or attribute of the model has, or names, a type that rten does not have, or is
/// an i64 beyond i32.
pub fn check(model: &ModelProto) -> Result<(), Failure> {
    model.graph.iter().try_for_each(graph)?;
    model.functions.iter().flat_map(|function| &function.node).try_for_each(node)
}

/// An i64 as the i32 that rten keeps it in.
pub fn narrow(value: i64) -> Result<i32, Failure> {
    value.try_into().map_err(|_| Failure::Unsupported(format!("rten keeps i64 as i32, and {value} does not fit")))
}

pub fn no_type(dtype: DType) -> Failure {
    Failure::Unsupported(format!("rten has no {dtype}"))
}

fn graph(graph: &GraphProto) -> Result<(), Failure> {
    graph.input.iter().chain(&graph.output).chain(&graph.value_info).try_for_each(value_info)?;
    graph.initializer.iter().try_for_each(tensor)?;
    graph.node.iter().try_for_each(node)
}

fn node(node: &NodeProto) -> Result<(), Failure> {
    node.attribute.iter().try_for_each(attribute)
}

fn attribute(attribute: &AttributeProto) -> Result<(), Failure> {
    if let Some(code) = attribute.i.filter(|_| DTYPE_ATTRIBUTES.contains(&&*attribute.name)) {
        dtype(code.try_into().unwrap_or(-1))?;
    }
    // The values of a Constant node.
    if ["value_int", "value_ints"].contains(&&*attribute.name) {
        attribute.i.iter().chain(&attribute.ints).try_for_each(|&value| narrow(value).map(drop))?;
    }
    attribute.t.iter().chain(&attribute.tensors).try_for_each(tensor)?;
    attribute.g.iter().chain(&attribute.graphs).try_for_each(graph)
}

fn value_info(info: &ValueInfoProto) -> Result<(), Failure> {
    let tensor_type = info.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref());
    tensor_type.map_or(Ok(()), |tensor_type| dtype(tensor_type.elem_type))
}

fn tensor(tensor: &TensorProto) -> Result<(), Failure> {
    dtype(tensor.data_type)?;
    if tensor.data_type == DType::I64.onnx_code() {
        let (raw, _) = tensor.raw_data.as_deref().unwrap_or_default().as_chunks();
        let values = raw.iter().map(|&bytes| i64::from_le_bytes(bytes));
        values.chain(tensor.int64_data.iter().copied()).try_for_each(|value| narrow(value).map(drop))?;
    }
    Ok(())
}

/// 0 stands for a type that is not given.
fn dtype(code: i32) -> Result<(), Failure> {
    match DType::from_onnx_code(code) {
        Some(known) if DTYPES.contains(known) => Ok(()),
        Some(known) => Err(no_type(known)),
        None if code == 0 => Ok(()),
        None => Err(Failure::Unsupported(format!("rten has no type for the ONNX element type {code}"))),
    }
}
