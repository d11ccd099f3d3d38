//! `graphsmith show` and `graphsmith run`, and files that they cannot use.

use crate::{Folder, fails, info, json, model, node, print, run, sum, text};
use graphsmith::case::Case;
use graphsmith::input;
use graphsmith::onnx::proto::{AttributeProto, AttributeType, ModelProto};
use prost::Message;
use std::fs::{self, File};

#[test]
fn inputs_of_the_fuzzer_are_shown_and_run() {
    let folder = Folder::new();
    let _no_gradients = graphsmith::reference::init();
    let valid = |seed: &u64| matches!(Case::build(&input::random(*seed, 6)), Ok(Ok(_)));
    let seed = (0..100).find(valid).expect("one input in a hundred is valid");
    let file = folder.file("input", input::random(seed, 6).encode());
    let shown = json(&["show", &file, "--json"]);
    assert_eq!(shown["records"].as_array().unwrap().len(), 6);
    assert!(shown["validity"].as_str().unwrap().starts_with("valid inputs found"), "{shown:#}");
    let svg = folder.path("out.svg");
    assert!(print(&["show", &file, "--svg", &svg]).contains("6 records"));
    assert!(fs::read_to_string(&svg).unwrap().contains("</svg>"));
    fails(&["show", &file, "--svg", "/nonexistent/out.svg"], &["cannot write"]);
    let output = run(&["run", &file]);
    assert!(matches!(output.status.code(), Some(0 | 1)));
    assert!(text(&output.stdout).contains("\n  tract "));
}

#[test]
fn any_bytes_are_an_input() {
    let folder = Folder::new();
    for content in ["", "some text", "a longer text, of more than two whole records of sixteen bytes"] {
        let file = folder.file("input", content);
        print(&["show", &file]);
        assert_ne!(run(&["run", &file]).status.code(), Some(2));
    }
    let empty = folder.file("empty", "");
    assert!(print(&["run", &empty]).contains("no operator"));
    fails(&["show", &empty, "--svg", &folder.path("out.svg")], &["nothing to draw"]);
}

#[test]
fn pictures_have_attributes_parallel_edges_and_scalars() {
    let folder = Folder::new();
    let mut relu = node("Relu", &["a"], "b");
    let attribute = |name: &str| AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Ints as i32,
        ints: vec![1, 2],
        ..Default::default()
    };
    relu.attribute = vec![attribute("first"), attribute("second")];
    let mut nodes = vec![relu, node("Mul", &["b", "b"], "c")];
    nodes[1].name = "n \"quoted\"".to_owned();
    let mut proto = ModelProto::decode(&*model(&[info("a", &[])], &nodes, info("c", &[]))).unwrap();
    proto.graph.as_mut().unwrap().value_info.push(info("b", &[]));
    let (file, svg) = (folder.file("model.onnx", proto.encode_to_vec()), folder.path("out.svg"));
    print(&["show", &file, "--svg", &svg]);
    let picture = fs::read_to_string(svg).unwrap();
    assert!(["first=[1, 2]", "second=[1, 2]", "b: f32[]"].iter().all(|part| picture.contains(part)), "{picture}");
}

#[test]
fn files_that_are_no_models_are_told() {
    let folder = Folder::new();
    let whole = sum();
    let text = folder.file("text.onnx", "some text that is no model\n");
    let cut = folder.file("cut.onnx", &whole[..whole.len() / 2]);
    let empty = folder.file("empty.onnx", "");
    let below = folder.path("below");
    fs::create_dir(&below).unwrap();
    for command in ["show", "replay"] {
        fails(&[command, &text], &["text.onnx"]);
        fails(&[command, &cut], &["cut.onnx", "not an ONNX model"]);
        fails(&[command, &empty], &["empty.onnx", "no graph"]);
        fails(&[command, &below], &["below", "is a folder"]);
        fails(&[command, &folder.path("missing.onnx")], &["missing.onnx", "No such file"]);
    }
    fails(&["run", &below], &["model.onnx", "No such file"]);
    fails(&["run", &folder.path("missing")], &["missing", "No such file"]);
    fails(&["run", &folder.file("model.onnx", whole)], &["graphsmith replay"]);
}

#[test]
fn huge_files_are_refused_before_they_are_read() {
    let folder = Folder::new();
    for (name, command) in [("big.onnx", "show"), ("big.onnx", "replay"), ("big", "show"), ("big", "run")] {
        let path = folder.path(name);
        File::create(&path).unwrap().set_len(1 << 31).unwrap();
        fails(&[command, &path], &["2147483648 bytes"]);
    }
}
