//! ONNX, the only form in which a model reaches a backend: [`export`] writes it without any per-operator code,
//! [`import`] reads models of our own and of others.

pub mod proto;

mod control;
mod import;

pub use import::{Error, Imported, decode, import, inputs, tensor_data, value};

use crate::dtype::DType;
use crate::limits::{IR_VERSIONS, OLDEST_OPSET};
use crate::model::{LeafData, Model, Node, Value};
use crate::spec::{Attribute, Role};
use crate::tensor::TensorData;
use prost::Message;
use proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// The serialized model, with `data` in its initializers. The same model and data give the same bytes.
pub fn encode(model: &Model, data: &LeafData) -> Vec<u8> {
    export(model, data).encode_to_vec()
}

/// The model as a message, with `data` in its initializers.
pub fn export(model: &Model, data: &LeafData) -> ModelProto {
    let constants = || model.leaves.iter().zip(data).filter(|(leaf, _)| leaf.role != Role::Input);
    let initializers = constants().filter(|(leaf, _)| !leaf.constant_node);
    let nodes = constants().filter(|(leaf, _)| leaf.constant_node);
    let nodes = nodes.map(|(leaf, data)| export_constant(&model.values[leaf.value].name, leaf.value, data));
    let graph = GraphProto {
        node: nodes.chain(export_nodes(model)).collect(),
        name: "graphsmith".to_owned(),
        initializer: initializers.map(|(leaf, data)| export_tensor(&model.values[leaf.value].name, data)).collect(),
        input: model.inputs().map(|(_, leaf)| export_input(model, leaf.value)).collect(),
        output: model.outputs.iter().map(|&output| export_output(model, output)).collect(),
        ..Default::default()
    };
    ModelProto {
        ir_version: IR_VERSIONS[(model.opset - OLDEST_OPSET) as usize],
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: model.opset }],
        producer_name: "graphsmith".to_owned(),
        graph: Some(graph),
        ..Default::default()
    }
}

fn export_nodes(model: &Model) -> Vec<NodeProto> {
    let mut nodes = Vec::new();
    let mut index = 0;
    while index < model.nodes.len() {
        match model.regions.iter().position(|region| region.nodes.start == index) {
            Some(number) => {
                nodes.push(control::export_region(model, &model.regions[number], number));
                index = model.regions[number].nodes.end;
            }
            None => {
                nodes.push(export_node(model, &model.nodes[index]));
                index += 1;
            }
        }
    }
    nodes
}

fn export_node(model: &Model, node: &Node) -> NodeProto {
    let operands = node.operands.iter().map(|operand| operand.map_or("", |value| &model.values[value].name));
    NodeProto {
        input: operands.map(str::to_owned).collect(),
        output: node.outputs.iter().map(|&value| model.values[value].name.clone()).collect(),
        name: node.name.clone(),
        op_type: node.spec.name.to_owned(),
        attribute: node.attributes.iter().map(|(name, value)| export_attribute(name, value)).collect(),
        ..Default::default()
    }
}

/// A Constant node; every other one of the types that have an attribute of their own uses that.
fn export_constant(name: &str, index: usize, data: &TensorData) -> NodeProto {
    let (attribute, value) = match (data.dtype, data.shape.len()) {
        (DType::I64, 0) if index % 4 < 2 => ("value_int", Attribute::Int(data.values::<i64>()[0])),
        (DType::I64, 1) if index % 4 < 2 => ("value_ints", Attribute::Ints(data.values())),
        (DType::F32, 0) if index % 4 < 2 => ("value_float", Attribute::Float(data.values::<f32>()[0])),
        (DType::F32, 1) if index % 4 < 2 => ("value_floats", Attribute::Floats(data.values())),
        _ => ("value", Attribute::Tensor(data.clone())),
    };
    NodeProto {
        output: vec![name.to_owned()],
        name: format!("constant_{name}"),
        op_type: "Constant".to_owned(),
        attribute: vec![export_attribute(attribute, &value)],
        ..Default::default()
    }
}

fn export_attribute(name: &str, value: &Attribute<i64>) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), ..Default::default() };
    let kind = match value {
        Attribute::Int(value) => {
            attribute.i = Some(*value);
            AttributeType::Int
        }
        Attribute::Ints(values) => {
            attribute.ints = values.clone();
            AttributeType::Ints
        }
        Attribute::Float(value) => {
            attribute.f = Some(*value);
            AttributeType::Float
        }
        Attribute::Floats(values) => {
            attribute.floats = values.clone();
            AttributeType::Floats
        }
        Attribute::Text(value) => {
            attribute.s = Some(value.clone().into_bytes());
            AttributeType::String
        }
        Attribute::Tensor(value) => {
            attribute.t = Some(export_tensor("", value));
            AttributeType::Tensor
        }
        Attribute::Texts(values) => {
            attribute.strings = values.iter().map(|value| value.clone().into_bytes()).collect();
            AttributeType::Strings
        }
    };
    attribute.set_type(kind);
    attribute
}

/// A named constant with these elements.
pub fn export_tensor(name: &str, data: &TensorData) -> TensorProto {
    TensorProto {
        dims: data.shape.iter().map(|&dim| dim as i64).collect(),
        data_type: data.dtype.onnx_code(),
        name: name.to_owned(),
        raw_data: Some(data.bytes.clone()),
        ..Default::default()
    }
}

fn export_input(model: &Model, value: usize) -> ValueInfoProto {
    let Value { name, .. } = &model.values[value];
    // A symbol of its own for each dimension: which of them must be equal is for the compiler to find out.
    free_sizes(model, &model.values[value], |axis| Some(DimensionValue::Symbol(format!("{name}_{axis}"))))
}

fn export_output(model: &Model, value: usize) -> ValueInfoProto {
    unnamed_sizes(model, &model.values[value])
}

/// The type of a value; in a symbolic model without its sizes, which are for the compiler to infer.
fn unnamed_sizes(model: &Model, value: &Value) -> ValueInfoProto {
    free_sizes(model, value, |_| None)
}

/// The type of a value; in a symbolic model with `free` in place of every size but 1, on which broadcasting depends.
fn free_sizes(model: &Model, value: &Value, free: impl Fn(usize) -> Option<DimensionValue>) -> ValueInfoProto {
    let mut info = export_type(value);
    let tensor_type = info.r#type.as_mut().and_then(|ty| ty.tensor_type.as_mut());
    let shape = tensor_type.and_then(|ty| ty.shape.as_mut()).filter(|_| model.symbolic);
    for (axis, dim) in shape.into_iter().flat_map(|shape| &mut shape.dim).enumerate() {
        if dim.value != Some(DimensionValue::Size(1)) {
            dim.value = free(axis);
        }
    }
    info
}

/// The name, element type and shape of a value.
pub fn export_type(value: &Value) -> ValueInfoProto {
    let dimension = |&size: &usize| Dimension { value: Some(DimensionValue::Size(size as i64)), ..Default::default() };
    let shape = TensorShapeProto { dim: value.shape.iter().map(dimension).collect() };
    let tensor_type = TensorTypeProto { elem_type: value.dtype.onnx_code(), shape: Some(shape) };
    let r#type = TypeProto { tensor_type: Some(tensor_type), ..Default::default() };
    ValueInfoProto { name: value.name.clone(), r#type: Some(r#type), ..Default::default() }
}
