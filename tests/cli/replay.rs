//! `graphsmith replay`.

use crate::{Folder, conditional, fails, floats, foreign, info, json, model, node, print, run, sum, text};
use graphsmith::dtype::DType;
use graphsmith::onnx::proto::{ModelProto, TensorProto};
use graphsmith::tensor::TensorData;
use prost::Message;
use serde_json::Value;
use std::fs;

#[test]
fn models_are_replayed_against_the_reference() {
    let folder = Folder::new();
    let file = folder.file("model.onnx", sum());
    for more in [&[][..], &["--seed", "7"], &["--dim", "N=4"], &["--symbol-size", "5"]] {
        let report = &json(&[&["replay", &file, "--json"], more].concat())[0];
        assert_eq!(report["verdict"], "agree", "{report:#}");
        assert!(report["notes"][0].as_str().unwrap().contains("are judged"), "{report:#}");
    }
    let inputs = folder.npz("inputs.npz", &[("a", floats(&[2, 3])), ("b", floats(&[3]))]);
    assert!(print(&["replay", &file, "--inputs", &inputs]).contains("6 of 6"));
    fails(&["replay", &file, "--dim", "M=4"], &["`M`", "`N`"]);
    fails(&["replay", &file, "--dim", "N=1000000000"], &["--dim", "bytes"]);
    assert!(print(&["show", &file]).contains("c: f32[2,3] = Add(a, b)"));
}

#[test]
fn inputs_that_do_not_fit_are_told() {
    let folder = Folder::new();
    let file = folder.file("model.onnx", sum());
    let (a, b) = (floats(&[2, 3]), floats(&[3]));
    let wide = TensorData::zeros(DType::F64, &[2, 3]);
    let cases: [(&[(&str, TensorData)], &str); 5] = [
        (&[("a", a.clone())], "no array `b`"),
        (&[("a", a.clone()), ("b", b.clone()), ("z", b.clone())], "no input `z`"),
        (&[("a", wide), ("b", b.clone())], "`a` is f64"),
        (&[("a", floats(&[2, 4])), ("b", b.clone())], "[2, 4]"),
        (&[("a", b.clone()), ("b", b.clone())], "[N, 3]"),
    ];
    for (arrays, part) in cases {
        let inputs = folder.npz("inputs.npz", arrays);
        fails(&["replay", &file, "--inputs", &inputs], &["inputs.npz", part]);
    }
    let good = fs::read(folder.npz("inputs.npz", &[("a", a), ("b", b)])).unwrap();
    for (name, content) in [("cut.npz", &good[..good.len() / 2]), ("text.npz", b"some text"), ("empty.npz", b"")] {
        let inputs = folder.file(name, content);
        fails(&["replay", &file, "--inputs", &inputs], &[name, "not an archive"]);
    }
    fails(&["replay", &file, "--inputs", &folder.path("missing.npz")], &["missing.npz", "No such file"]);
    fails(&["replay", &file, "--inputs", folder.0.path().to_str().unwrap()], &["is a folder"]);
}

#[test]
fn outputs_of_another_runtime_are_judged() {
    let folder = Folder::new();
    let file = folder.file("model.onnx", sum());
    let inputs = folder.npz("inputs.npz", &[("a", floats(&[2, 3])), ("b", floats(&[3]))]);
    let judge = |outputs: &[(&str, TensorData)], more: &[&str]| {
        let outputs = folder.npz("outputs.npz", outputs);
        run(&[&["replay", &file, "--inputs", &inputs, "--outputs", &outputs], more].concat())
    };
    let right = TensorData::from_f64(DType::F32, &[2, 3], &[1f64.tanh(); 6]);
    let output = judge(&[("d", right.clone())], &[]);
    let shown = text(&output.stdout);
    assert!(output.status.success() && shown.contains("all answers agree") && shown.contains("outputs.npz"), "{shown}");
    let mut off = right.to_f64();
    off[4] += 1e-3;
    for (wrong, part) in [
        (TensorData::from_f64(DType::F32, &[2, 3], &off), "d[1, 1] is 0.76259"),
        (TensorData::zeros(DType::F32, &[3, 2]), "d has the shape [3, 2]"),
        (TensorData::zeros(DType::F64, &[2, 3]), "d has the element type f64"),
    ] {
        let output = judge(&[("d", wrong)], &["--runtime", "other 1.2", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &report[0]["verdict"]), (Some(1), &"finding".into()), "{report:#}");
        let answer = &report[0]["answers"][0];
        assert_eq!((&answer["backend"], &answer["answer"]), (&"other 1.2".into(), &"differs".into()), "{report:#}");
        assert!(answer["detail"].as_str().unwrap().contains(part), "{report:#}");
    }
    let fail = |outputs: &str, part: &str| {
        fails(&["replay", &file, "--inputs", &inputs, "--outputs", outputs], &[outputs, part]);
    };
    fail(&folder.npz("empty.npz", &[]), "no array `d`");
    fail(&folder.npz("extra.npz", &[("d", right.clone()), ("c", right)]), "no output `c`");
    fail(&folder.file("text.npz", "some text"), "not an archive");
    fail(&folder.path("missing.npz"), "No such file");
    assert_eq!(run(&["replay", &file, "--outputs", &inputs]).status.code(), Some(2), "judged without the inputs");
}

#[test]
fn given_nans_and_infinities_are_judged_where_the_standard_speaks() {
    let folder = Folder::new();
    let exceptional = TensorData::from_f64(DType::F32, &[3], &[f64::NAN, f64::INFINITY, 1.0]);
    let inputs = folder.npz("inputs.npz", &[("a", exceptional)]);
    for (operator, judged) in [("Neg", "3 of 3"), ("Tanh", "1 of 3")] {
        let whole = model(&[info("a", &["3"])], &[node(operator, &["a"], "b")], info("b", &["3"]));
        let file = folder.file("model.onnx", whole);
        let report = &json(&["replay", &file, "--inputs", &inputs, "--json"])[0];
        assert!(report["notes"][0].as_str().unwrap().starts_with(judged), "{report:#}");
    }
    let weight = model(&[info("a", &["3"])], &[node("Add", &["a", "w"], "b")], info("b", &["3"]));
    let mut weight = ModelProto::decode(&*weight).unwrap();
    weight.graph.as_mut().unwrap().initializer.push(TensorProto {
        name: "w".to_owned(),
        dims: vec![1],
        data_type: DType::F32.onnx_code(),
        float_data: vec![f32::INFINITY],
        ..Default::default()
    });
    let inputs = folder.npz("inputs.npz", &[("a", floats(&[3]))]);
    let report =
        &json(&["replay", &folder.file("weight.onnx", weight.encode_to_vec()), "--inputs", &inputs, "--json"])[0];
    assert!(report["notes"][0].as_str().unwrap().starts_with("no reference: the inputs lead to NaN"), "{report:#}");
}

#[test]
fn models_without_a_reference_compare_backends() {
    let folder = Folder::new();
    let file = folder.file("if.onnx", conditional());
    let report = &json(&["replay", &file, "--json"])[0];
    assert_eq!(report["verdict"], "agree", "{report:#}");
    assert!(report["notes"][0].as_str().unwrap().starts_with("no reference: the operator If"), "{report:#}");
    let file = folder.file("foreign.onnx", foreign());
    let report = &json(&["replay", &file, "--json"])[0];
    assert_eq!(report["verdict"], "skip", "{report:#}");
    let shown = print(&["show", &file, "--svg", &folder.path("out.svg")]);
    assert!(shown.contains("b = NoSuchOperator(a)") && shown.contains("NoSuchOperator is not among"), "{shown}");
}
