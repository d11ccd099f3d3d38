//! `graphsmith minimise`.

use crate::{Folder, fails, print, run, text};
use graphsmith::dtype::DType;
use graphsmith::onnx;
use graphsmith::onnx::proto::{AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
use prost::Message;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A GRU of a batch of 0, behind an operator that has no part in it, ends ONNX Runtime 1.32's process.
#[test]
fn what_ends_a_process_is_minimised() {
    let folder = Folder::new();
    let typed = |name: &str, shape: &[usize]| {
        onnx::export_type(&graphsmith::model::Value { name: name.to_owned(), dtype: DType::F32, shape: shape.to_vec() })
    };
    let node = |operator: &str, inputs: &[&str], outputs: &[&str]| NodeProto {
        op_type: operator.to_owned(),
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: outputs.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    };
    let mut gru = node("GRU", &["y", "w", "r"], &["", "h"]);
    let mut hidden = AttributeProto { name: "hidden_size".to_owned(), i: Some(1), ..Default::default() };
    hidden.set_type(AttributeType::Int);
    gru.attribute.push(hidden);
    let graph = GraphProto {
        name: "crash".to_owned(),
        node: vec![node("Relu", &["x"], &["y"]), gru],
        input: vec![typed("x", &[1, 0, 1]), typed("w", &[1, 3, 1]), typed("r", &[1, 3, 1])],
        output: vec![typed("h", &[1, 0, 1])],
        value_info: vec![typed("y", &[1, 0, 1])],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 18 };
    let model = ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..Default::default() };
    let file = folder.file("model.onnx", model.encode_to_vec());
    let out = folder.path("least");
    let call = ["minimise", &file, "--backend", "ort", "--no-known", "--out", &out, "--json"];
    let output = run(&call);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let finding = &report[0]["finding"];
    assert_eq!(finding["kind"], "crashed", "{finding}");
    let ended = "ort crashed GRU f32[empty] [the process died of SIGABRT (terminate called";
    assert!(finding["signature"].as_str().unwrap().starts_with(ended), "{finding}");
    let least = fs::read(Path::new(&out).join("model.onnx")).unwrap();
    assert_eq!(onnx::decode(&least).unwrap().graph.unwrap().node.len(), 1);
    fails(&call, &["least", "--force"]);
    // A known issue is not run at all.
    assert!(print(&["minimise", &file, "--backend", "ort"]).contains("nothing"));
}
