//! The `graphsmith` command as a user meets it: what it prints, and how it fails.

use graphsmith::dtype::DType;
use graphsmith::npz;
use graphsmith::onnx::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use graphsmith::tensor::TensorData;
use prost::Message;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

mod campaign;
mod figures;
mod general;
mod generate;
mod minimise;
mod releases;
mod replay;
mod show;
mod triage;

const PROGRAM: &str = env!("CARGO_BIN_EXE_graphsmith");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a successful call prints.
fn print(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&print(arguments)).unwrap()
}

/// A call must fail with one sentence that has all of `parts`.
fn fails(arguments: &[&str], parts: &[&str]) {
    let output = run(arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}{errors}", text(&output.stdout));
    assert!(errors.starts_with("graphsmith: ") && errors.lines().count() == 1, "{arguments:?}: {errors}");
    assert!(parts.iter().all(|part| errors.contains(part)), "{arguments:?}: {errors} has not all of {parts:?}");
}

/// A folder that a test may fill, and paths in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn npz(&self, name: &str, tensors: &[(&str, TensorData)]) -> String {
        let path = self.path(name);
        npz::write(Path::new(&path), tensors.iter().map(|(name, tensor)| (*name, tensor))).unwrap();
        path
    }
}

/// `f32` with these dimensions: numbers, or else symbols.
fn info(name: &str, dims: &[&str]) -> ValueInfoProto {
    let dimension = |dim: &&str| {
        let value = dim.parse().map_or_else(|_| DimensionValue::Symbol((*dim).to_owned()), DimensionValue::Size);
        Dimension { value: Some(value), ..Default::default() }
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dimension).collect() };
    let tensor = TensorTypeProto { elem_type: DType::F32.onnx_code(), shape: Some(shape) };
    let r#type = TypeProto { tensor_type: Some(tensor), ..Default::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(r#type), ..Default::default() }
}

fn node(operator: &str, operands: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        input: operands.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    }
}

fn model(inputs: &[ValueInfoProto], nodes: &[NodeProto], output: ValueInfoProto) -> Vec<u8> {
    let graph = GraphProto {
        name: "test".to_owned(),
        node: nodes.to_vec(),
        input: inputs.to_vec(),
        output: vec![output],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 18 }];
    ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
}

/// `tanh(a + b)` for `a: f32[N,3]` and `b: f32[3]`. The type of the sum is not declared.
fn sum() -> Vec<u8> {
    let inputs = [info("a", &["N", "3"]), info("b", &["3"])];
    model(&inputs, &[node("Add", &["a", "b"], "c"), node("Tanh", &["c"], "d")], info("d", &["N", "3"]))
}

/// Of an operator that no one knows.
fn foreign() -> Vec<u8> {
    model(&[info("a", &["3"])], &[node("NoSuchOperator", &["a"], "b")], info("b", &["3"]))
}

/// Has an operator that is not among graphsmith's: a graph as an attribute will not be.
fn conditional() -> Vec<u8> {
    let branch = |operator: &str| GraphProto {
        name: operator.to_owned(),
        node: vec![node(operator, &["a"], "r")],
        output: vec![info("r", &["3"])],
        ..Default::default()
    };
    let attribute = |name: &str, operator: &str| {
        let g = Some(branch(operator));
        AttributeProto { name: name.to_owned(), r#type: AttributeType::Graph as i32, g, ..Default::default() }
    };
    let mut choice = node("If", &["yes"], "d");
    choice.attribute = vec![attribute("then_branch", "Tanh"), attribute("else_branch", "Relu")];
    let mut condition = info("yes", &[]);
    condition.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = DType::Bool.onnx_code();
    model(&[info("a", &["3"]), condition], &[choice], info("d", &["3"]))
}

fn floats(shape: &[usize]) -> TensorData {
    TensorData::from_f64(DType::F32, shape, &vec![0.5; shape.iter().product()])
}
