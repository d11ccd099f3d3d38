//! `ModelProto` to [`Model`].

use super::proto::{
    AttributeProto, AttributeType, DataLocation, DimensionValue, GraphProto, ModelProto, NodeProto, TensorProto,
    ValueInfoProto,
};
use crate::dtype::DType;
use crate::limits::OLDEST_OPSET;
use crate::model::{Leaf, Model, Node, Value};
use crate::ops;
use crate::schema;
use crate::spec::{Attribute, Domain, Role};
use crate::tensor::TensorData;
use prost::Message;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this is not an ONNX model: {0}")]
    NotOnnx(String),
    #[error("the model has no graph")]
    NoGraph,
    #[error("`{value}` has the element type {code}, which graphsmith does not know")]
    UnknownDType { value: String, code: i32 },
    #[error("the input `{0}` is not a tensor of known rank")]
    NotTensor(String),
    #[error("the constant `{0}` keeps its data in another file; only self-contained models can be read")]
    ExternalData(String),
    #[error("the constant `{name}` has {bytes} bytes of data for its type {ty}")]
    BrokenData { name: String, bytes: usize, ty: String },
    #[error("the operator {0} is not among graphsmith's; see `graphsmith ops`")]
    UnknownOperator(String),
    #[error("the model declares opset {model}, but {operator} is known only in its form since opset {since}")]
    OldOpset { operator: &'static str, since: i64, model: i64 },
    #[error("the attribute `{attribute}` of {operator} is of a kind that graphsmith does not read")]
    AttributeKind { operator: String, attribute: String },
    #[error("the operator {operator} uses `{value}`, which nothing before it defines")]
    Undefined { operator: String, value: String },
    #[error("the type of `{0}` is not declared")]
    Untyped(String),
}

/// A model read from a file. Initializers and constants become [`Role::Constant`] leaves.
#[derive(Debug)]
pub struct Imported {
    pub model: Model,
}

/// Decodes a serialized model; says why when it is none.
pub fn decode(bytes: &[u8]) -> Result<ModelProto, Error> {
    let model = ModelProto::decode(bytes).map_err(|error| Error::NotOnnx(error.to_string()))?;
    // Short texts and empty files often are valid protobuf without any known field.
    if model.graph.is_none() { Err(Error::NoGraph) } else { Ok(model) }
}

/// Reads a model whose every operator graphsmith knows. `types` gives the types of values that the model leaves
/// undeclared; symbolic dimensions of inputs become `symbol_size`.
pub fn import(proto: &ModelProto, types: &BTreeMap<String, Value>, symbol_size: usize) -> Result<Imported, Error> {
    let graph = proto.graph.as_ref().ok_or(Error::NoGraph)?;
    let opset = proto.opset_import.iter().find(|opset| is_onnx(&opset.domain)).map_or(1, |opset| opset.version);
    let model = Model { opset, ..Model::default() };
    let mut importer = Importer { model, types: types.clone(), ..Default::default() };
    for info in graph.value_info.iter().chain(&graph.output) {
        if let Ok(value) = value(info, symbol_size) {
            importer.types.entry(info.name.clone()).or_insert(value);
        }
    }
    for tensor in &graph.initializer {
        importer.constant(tensor.name.clone(), tensor_data(tensor)?, false);
    }
    for info in graph.input.iter().filter(|info| !graph.initializer.iter().any(|tensor| tensor.name == info.name)) {
        let value = importer.define(value(info, symbol_size)?);
        importer.model.leaves.push(Leaf {
            value,
            role: Role::Input,
            domain: Domain::Any,
            content: None,
            constant_node: false,
        });
    }
    for node in &graph.node {
        importer.node(node)?;
    }
    importer.outputs(graph)?;
    // Whatever is known only from a later opset on was refused above.
    importer.model.opset = opset.max(OLDEST_OPSET);
    Ok(Imported { model: importer.model })
}

fn is_onnx(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

#[derive(Default)]
struct Importer {
    model: Model,
    types: BTreeMap<String, Value>,
    /// Names of values that are defined so far.
    defined: BTreeMap<String, usize>,
}

impl Importer {
    fn define(&mut self, value: Value) -> usize {
        let index = self.model.values.len();
        self.defined.insert(value.name.clone(), index);
        self.model.values.push(value);
        index
    }

    fn constant(&mut self, name: String, data: TensorData, constant_node: bool) {
        let value = self.define(Value { name, dtype: data.dtype, shape: data.shape.clone() });
        self.model.leaves.push(Leaf {
            value,
            role: Role::Constant,
            domain: Domain::Any,
            content: Some(data),
            constant_node,
        });
    }

    fn node(&mut self, node: &NodeProto) -> Result<(), Error> {
        if node.op_type == "Constant" && is_onnx(&node.domain) {
            let data = constant_node(node)?;
            self.constant(node.output.first().cloned().unwrap_or_default(), data, true);
            return Ok(());
        }
        let spec = ops::by_name(&node.op_type).filter(|_| is_onnx(&node.domain));
        let spec = spec.ok_or_else(|| Error::UnknownOperator(operator(node)))?;
        // An older opset may have the operator in the same version.
        let oldest = schema::signature(spec.name, spec.since).map_or(spec.since, |signature| signature.version);
        if self.model.opset < oldest {
            return Err(Error::OldOpset { operator: spec.name, since: spec.since, model: self.model.opset });
        }
        let operand = |name: &String| match self.defined.get(name) {
            Some(&value) => Ok(Some(value)),
            None if name.is_empty() => Ok(None),
            None => Err(Error::Undefined { operator: operator(node), value: name.clone() }),
        };
        let operands: Vec<Option<usize>> = node.input.iter().map(operand).collect::<Result<_, _>>()?;
        let attribute = |proto: &AttributeProto| Ok((Cow::Owned(proto.name.clone()), attribute(node, proto)?));
        let attributes = node.attribute.iter().map(attribute).collect::<Result<_, Error>>()?;
        let written = node.output.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        let mut outputs = Vec::new();
        for name in &node.output[..written] {
            if name.is_empty() {
                outputs.push(self.omitted(&operands));
                continue;
            }
            let ty = self.types.get(name).cloned().ok_or_else(|| Error::Untyped(name.clone()))?;
            outputs.push(self.define(ty));
        }
        let name = node.name.clone();
        self.model.nodes.push(Node { spec, name, operands, outputs, attributes, accumulate: None });
        Ok(())
    }

    /// An output that is left out before one that is not: a value without a name, of the first operand's element type.
    fn omitted(&mut self, operands: &[Option<usize>]) -> usize {
        let first = operands.iter().flatten().next();
        let dtype = first.map_or(DType::F32, |&operand| self.model.values[operand].dtype);
        self.model.values.push(Value { name: String::new(), dtype, shape: Vec::new() });
        self.model.values.len() - 1
    }

    fn outputs(&mut self, graph: &GraphProto) -> Result<(), Error> {
        for info in &graph.output {
            let undefined = || Error::Undefined { operator: "the graph's output".to_owned(), value: info.name.clone() };
            self.model.outputs.push(*self.defined.get(&info.name).ok_or_else(undefined)?);
        }
        Ok(())
    }
}

fn operator(node: &NodeProto) -> String {
    if is_onnx(&node.domain) { node.op_type.clone() } else { format!("{}.{}", node.domain, node.op_type) }
}

fn attribute(node: &NodeProto, proto: &AttributeProto) -> Result<Attribute<i64>, Error> {
    let unreadable = || Error::AttributeKind { operator: operator(node), attribute: proto.name.clone() };
    Ok(match proto.r#type() {
        AttributeType::Int => Attribute::Int(proto.i.unwrap_or(0)),
        AttributeType::Ints => Attribute::Ints(proto.ints.clone()),
        AttributeType::Float => Attribute::Float(proto.f.unwrap_or(0.0)),
        AttributeType::Floats => Attribute::Floats(proto.floats.clone()),
        AttributeType::String => {
            Attribute::Text(String::from_utf8(proto.s.clone().unwrap_or_default()).map_err(|_| unreadable())?)
        }
        AttributeType::Tensor => Attribute::Tensor(tensor_data(proto.t.as_ref().ok_or_else(unreadable)?)?),
        AttributeType::Strings => {
            let texts: Result<_, _> = proto.strings.iter().cloned().map(String::from_utf8).collect();
            Attribute::Texts(texts.map_err(|_| unreadable())?)
        }
        _ => return Err(unreadable()),
    })
}

/// The value of a Constant node (opset 13: one of several attributes).
fn constant_node(node: &NodeProto) -> Result<TensorData, Error> {
    let unreadable = |name: &str| Error::AttributeKind { operator: "Constant".to_owned(), attribute: name.to_owned() };
    let attribute = node.attribute.first().ok_or_else(|| unreadable("value"))?;
    Ok(match (attribute.name.as_str(), &attribute.t) {
        ("value", Some(tensor)) => tensor_data(tensor)?,
        ("value_int", _) => TensorData::new(&[], &[attribute.i.unwrap_or(0)]),
        ("value_ints", _) => TensorData::new(&[attribute.ints.len()], &attribute.ints),
        ("value_float", _) => TensorData::new(&[], &[attribute.f.unwrap_or(0.0)]),
        ("value_floats", _) => TensorData::new(&[attribute.floats.len()], &attribute.floats),
        (name, _) => return Err(unreadable(name)),
    })
}

/// The name, element type and shape of a declared value.
pub fn value(info: &ValueInfoProto, symbol_size: usize) -> Result<Value, Error> {
    let tensor = info.r#type.as_ref().and_then(|ty| ty.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| Error::NotTensor(info.name.clone()))?;
    let code = tensor.elem_type;
    let dtype = DType::from_onnx_code(code).ok_or_else(|| Error::UnknownDType { value: info.name.clone(), code })?;
    let shape = tensor.shape.as_ref().ok_or_else(|| Error::NotTensor(info.name.clone()))?;
    let size = |dimension: &super::proto::Dimension| match dimension.value {
        Some(DimensionValue::Size(size)) => usize::try_from(size).unwrap_or(symbol_size),
        _ => symbol_size,
    };
    Ok(Value { name: info.name.clone(), dtype, shape: shape.dim.iter().map(size).collect() })
}

/// A model of nothing but the inputs that have no default, in the order that backends take them.
pub fn inputs(proto: &ModelProto, symbol_size: usize) -> Result<Model, Error> {
    let graph = proto.graph.as_ref().ok_or(Error::NoGraph)?;
    let defaults: BTreeSet<&String> = graph.initializer.iter().map(|tensor| &tensor.name).collect();
    let mut model = Model::default();
    for info in graph.input.iter().filter(|info| !defaults.contains(&info.name)) {
        let value = model.values.len();
        model.values.push(self::value(info, symbol_size)?);
        let (role, domain) = (Role::Input, Domain::Any);
        model.leaves.push(Leaf { value, role, domain, content: None, constant_node: false });
    }
    Ok(model)
}

/// The elements of a constant, wherever in the message they are.
pub fn tensor_data(tensor: &TensorProto) -> Result<TensorData, Error> {
    let code = tensor.data_type;
    let unknown = || Error::UnknownDType { value: tensor.name.clone(), code };
    let dtype = DType::from_onnx_code(code).ok_or_else(unknown)?;
    if tensor.data_location() == DataLocation::External {
        return Err(Error::ExternalData(tensor.name.clone()));
    }
    let shape: Vec<usize> = tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
    let bytes = match &tensor.raw_data {
        Some(raw) => raw.clone(),
        None => typed_data(tensor, dtype),
    };
    let expected = shape.iter().try_fold(dtype.size_bytes(), |bytes, &dim| bytes.checked_mul(dim));
    if expected != Some(bytes.len()) {
        let ty = format!("{dtype}{shape:?}");
        return Err(Error::BrokenData { name: tensor.name.clone(), bytes: bytes.len(), ty });
    }
    Ok(TensorData { dtype, shape, bytes })
}

/// Little-endian elements out of the field that `onnx.proto` assigns to the type.
fn typed_data(tensor: &TensorProto, dtype: DType) -> Vec<u8> {
    let low_bytes = |value: &i32| value.to_le_bytes()[..dtype.size_bytes()].to_vec();
    match dtype {
        DType::F32 => tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::F64 => tensor.double_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::I64 => tensor.int64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::U64 => tensor.uint64_data.iter().flat_map(|value| value.to_le_bytes()).collect(),
        DType::U32 => tensor.uint64_data.iter().flat_map(|&value| (value as u32).to_le_bytes()).collect(),
        _ => tensor.int32_data.iter().flat_map(low_bytes).collect(),
    }
}
