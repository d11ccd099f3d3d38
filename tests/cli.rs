//! The `graphsmith` command as a user meets it: what it prints, and how it fails.

use graphsmith::case::{self, Case};
use graphsmith::dtype::DType;
use graphsmith::input;
use graphsmith::known::Known;
use graphsmith::npz::{self, Arrays};
use graphsmith::onnx;
use graphsmith::onnx::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use graphsmith::oracle::Kind;
use graphsmith::tensor::TensorData;
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

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

#[test]
fn locality_reports_every_mutation() {
    let report = print(&["locality", "--count", "3", "--records", "4"]);
    let rows = graphsmith::mutate::TABLE.len();
    assert_eq!(report.lines().count(), rows + 3, "headings, one byte, and all as drawn: {report}");
    assert!(graphsmith::mutate::TABLE.iter().all(|row| report.contains(row.doc)), "{report}");
    assert_eq!(report, print(&["locality", "--count", "3", "--records", "4"]), "the same on every run");
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

#[test]
fn every_command_explains_itself() {
    let help = print(&["--help"]);
    for command in ["gen", "show", "run", "replay", "minimise", "triage", "ops", "backends", "probe", "dictionary"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        assert!(print(&[command, "--help"]).contains("Example"), "{command}");
    }
    assert!(!help.contains("-worker"));
    assert_eq!(run(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let mut child = Command::new(PROGRAM).arg("ops").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success() && errors.is_empty(), "{errors}");
}

#[test]
fn a_full_output_is_an_error() {
    let Ok(full) = File::create("/dev/full") else { return };
    let output = Command::new(PROGRAM).arg("ops").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("standard output"));
}

#[test]
fn operators_are_listed() {
    let all = json(&["ops", "--json"]);
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), graphsmith::ops::ALL.len());
    let (table, page) = (print(&["ops"]), print(&["ops", "--markdown"]));
    for operator in all {
        let name = operator["name"].as_str().unwrap();
        assert!(table.contains(&format!(" {name} ")) && page.contains(&format!("| {name} |")), "{name}");
    }
}

#[test]
fn backends_are_listed_also_without_the_library() {
    let all = json(&["backends", "--json"]);
    for backend in all.as_array().unwrap() {
        assert!(backend["version"].as_str().unwrap().contains('.'), "{backend}");
    }
    let output = Command::new(PROGRAM).arg("backends").env("ORT_DYLIB_PATH", "/nonexistent").output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success() && shown.contains("ORT_DYLIB_PATH") && shown.contains("\ntract "), "{shown}");
}

#[test]
fn a_missing_library_is_named_and_can_be_done_without() {
    let folder = Folder::new();
    let input = folder.file("input", input::random(3, 5).encode());
    let call = |more: &[&str]| {
        Command::new(PROGRAM).args(["run", &input]).args(more).env("ORT_DYLIB_PATH", "/nonexistent").output().unwrap()
    };
    let output = call(&[]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        errors.lines().count() == 1 && errors.contains("ORT_DYLIB_PATH") && errors.contains("--backend"),
        "{errors}"
    );
    assert_ne!(call(&["--backend", "tract"]).status.code(), Some(2));
    fails(&["run", &input, "--backend", "none"], &["`none`"]);
}

#[test]
fn the_committed_dictionary_is_fresh() {
    let committed = include_str!("../dictionaries/graph_diff.dict");
    let fresh = print(&["dictionary"]);
    assert!(committed == fresh, "run: cargo run -- dictionary > dictionaries/graph_diff.dict");
    for line in fresh.lines().filter(|line| !line.starts_with('#')) {
        let (_, record) = line.split_once('=').unwrap();
        assert_eq!(record.matches("\\x").count(), input::RECORD_BYTES, "{line}");
    }
}

fn files(folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for model in fs::read_dir(folder).unwrap() {
        for file in fs::read_dir(model.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            all.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn generated_models_are_reproducible_and_judged() {
    let folder = Folder::new();
    let (first, second) = (folder.path("first"), folder.path("second"));
    for out in [&first, &second] {
        print(&["gen", "--count", "6", "--out", out, "--seed", "9", "--operators", "5"]);
    }
    let written = files(&first);
    assert_eq!(written.len(), 18);
    assert!(written == files(&second), "two runs with one seed differ");
    fails(&["gen", "--count", "1", "--out", &first], &["not empty", "--force"]);
    print(&["gen", "--count", "1", "--out", &first, "--seed", "10", "--force"]);
    assert_eq!(files(&first).len(), 18);
    let reports = json(&["run", "--json", &format!("{second}/0000"), &format!("{second}/0001")]);
    for report in reports.as_array().unwrap() {
        // Which of them a backend gets wrong is not this test's concern.
        assert!(["agree", "known", "finding"].contains(&report["verdict"].as_str().unwrap()), "{report:#}");
        assert!(report["answers"].as_array().unwrap().len() >= 2, "{report:#}");
    }
    let shown = print(&["show", &format!("{second}/0000/model.onnx")]);
    assert!(shown.contains("->"), "{shown}");
}

#[test]
fn what_is_expected_is_what_the_model_declares() {
    let folder = Folder::new();
    let out = folder.path("models");
    print(&["gen", "--count", "8", "--out", &out, "--operators", "3"]);
    for model in fs::read_dir(&out).unwrap() {
        let model = model.unwrap().path();
        let proto = graphsmith::onnx::decode(&fs::read(model.join("model.onnx")).unwrap()).unwrap();
        let graph = proto.graph.unwrap();
        for (file, infos) in [("inputs.npz", &graph.input), ("expected.npz", &graph.output)] {
            let arrays: Arrays = npz::read(&model.join(file)).unwrap();
            assert_eq!(arrays.len(), infos.len());
            for info in infos {
                let value = graphsmith::onnx::value(info, 0).unwrap();
                let array = &arrays[&info.name];
                assert_eq!((array.dtype, &array.shape), (value.dtype, &value.shape), "{}", info.name);
            }
        }
    }
}

#[test]
fn generation_needs_a_folder_it_can_write() {
    let folder = Folder::new();
    let file = folder.file("file", "");
    fails(&["gen", "--count", "1", "--out", &file], &[&file, "is a file"]);
    fails(&["gen", "--count", "1", "--out", &format!("{file}/below")], &["cannot write"]);
}

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

#[test]
fn support_tables_are_probed() {
    let folder = Folder::new();
    let out = folder.0.path().to_str().unwrap();
    let write = format!("--write={out}");
    let table = |operator: &str| {
        print(&["probe", "--backend", "tract", "--operator", operator, "--count", "20", &write]);
        fs::read_to_string(folder.path("tract.toml")).unwrap()
    };
    let first = table("Relu");
    assert!(first.starts_with("# Made by `graphsmith probe --write`; do not edit.\n"), "{first}");
    assert_eq!(first, table("Relu"));
    // The other operators' forms stay.
    let both = table("Add");
    assert!(both.contains("[operators.\"Add 1") && both.contains("[operators.\"Relu 1"), "{both}");
    fs::write(folder.path("tract.toml"), both.replace("version = \"", "version = \"9")).unwrap();
    fails(&["probe", "--backend", "tract", "--operator", "Add", "--count", "1", &write], &["probe all"]);
    fails(&["probe", "--operator", "NoSuchOperator"], &["NoSuchOperator"]);
    fails(&["probe", "--write=/nonexistent"], &["/nonexistent"]);
}

/// Random inputs as the fuzzer saves them, and other files beside them.
fn artifacts(folder: &Folder, seeds: std::ops::Range<u64>) -> String {
    let runs = folder.path("runs");
    for (seed, kind) in seeds.zip(["crash", "oom", "timeout", "slow-unit"].into_iter().cycle()) {
        let run = format!("{runs}/run{}", seed % 2);
        fs::create_dir_all(&run).unwrap();
        fs::write(format!("{run}/{kind}-{seed:040x}"), input::random(seed, 4).encode()).unwrap();
        fs::write(format!("{run}/notes"), "no artifact").unwrap();
    }
    runs
}

/// The state of a triage without what differs from run to run.
fn judged(out: &str) -> BTreeMap<String, String> {
    let state: Value = serde_json::from_slice(&fs::read(format!("{out}/state.json")).unwrap()).unwrap();
    let inputs = state["inputs"].as_object().unwrap();
    inputs.iter().map(|(digest, entry)| (digest.clone(), entry["word"].to_string())).collect()
}

#[test]
fn artifacts_become_reports() {
    let folder = Folder::new();
    let runs = artifacts(&folder, 0..80);
    let out = folder.path("findings");
    let call = |more: &[&str]| run(&[&["triage", &runs, "--out", &out, "--no-known"], more].concat());
    let first = call(&[]);
    assert!(matches!(first.status.code(), Some(0 | 1)), "{}", text(&first.stderr));
    let told = text(&first.stdout);
    assert!(told.starts_with("80 files, 0 of them judged before"), "{told}");
    let index = fs::read_to_string(format!("{out}/index.html")).unwrap();
    assert!(!index.contains("src=") && !index.contains("<link"), "the page needs something from elsewhere");
    let state: Value = serde_json::from_slice(&fs::read(format!("{out}/state.json")).unwrap()).unwrap();
    let reports = state["reports"].as_object().unwrap();
    for report in reports.values() {
        let name = report["folder"].as_str().unwrap();
        assert!(index.contains(&format!("href=\"{name}/README.md\"")), "{name}");
        let readme = fs::read_to_string(format!("{out}/{name}/README.md")).unwrap();
        assert!(readme.starts_with("# [") && readme.contains("## What the script printed"), "{readme}");
        assert!(!report["ran"].to_string().contains("shows-not"), "{readme}");
        // The input leads to the same finding.
        assert_eq!(run(&["run", "--no-known", &format!("{out}/{name}/input")]).status.code(), Some(1), "{name}");
    }
    // Nothing is judged twice, also where it is found under another name.
    let before = judged(&out);
    let copy = folder.file("crash-copy", fs::read(format!("{runs}/run0/crash-{:040x}", 0)).unwrap());
    let again = call(&[&copy]);
    assert!(text(&again.stdout).starts_with("81 files, 81 of them judged before"), "{}", text(&again.stdout));
    assert_eq!(before, judged(&out));
    // Other limits may give other words.
    let anew = call(&["--timeout", "30"]);
    assert!(text(&anew.stdout).starts_with("80 files, 0 of them judged before"), "{}", text(&anew.stdout));
}

#[test]
fn a_triage_that_is_killed_goes_on() {
    let folder = Folder::new();
    let runs = artifacts(&folder, 100..160);
    let (killed, whole) = (folder.path("killed"), folder.path("whole"));
    for milliseconds in [300, 900, 1500] {
        let mut child =
            Command::new(PROGRAM).args(["triage", &runs, "--out", &killed]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        // As kill -9 does.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for out in [&killed, &whole] {
        assert_ne!(run(&["triage", &runs, "--out", out]).status.code(), Some(2));
    }
    assert_eq!(judged(&killed), judged(&whole));
    let partial =
        fs::read_dir(&killed).unwrap().filter(|it| it.as_ref().unwrap().path().to_string_lossy().contains("partial"));
    assert_eq!(partial.count(), 0);
}

/// Some known issues take the process with them.
#[test]
fn a_backend_that_dies_is_a_finding() {
    let fatal = |issue: &&graphsmith::known::Issue| issue.fatal && issue.kinds.contains(&Kind::Crashed);
    let known = Known::built_in().unwrap();
    let issues: Vec<_> = known.iter().map(|(issue, _)| issue).filter(fatal).collect();
    let dies = |seed: &u64| {
        let model = case::generate(&input::random(*seed, 3)).model;
        issues.iter().any(|issue| issue.fits(&model))
    };
    let folder = Folder::new();
    let mut files = Vec::new();
    for seed in (0..20_000).filter(dies).take(6) {
        files.push(folder.file(&format!("crash-{seed}"), input::random(seed, 3).encode()));
    }
    let out = folder.path("findings");
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    if files.is_empty() {
        return;
    }
    let output = run(&[&["triage", "--out", &out, "--no-known", "--backend", "ort"], &files[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let words = judged(&out);
    assert_eq!(words.len(), files.len());
    assert!(words.values().all(|word| !word.contains("defect")), "{words:#?}");
    assert!(words.values().any(|word| word.contains("the process ended with")), "{words:#?}");
}

#[test]
fn triage_tells_what_it_cannot_use() {
    let folder = Folder::new();
    let out = folder.path("findings");
    fails(&["triage", &folder.path("missing"), "--out", &out], &["missing", "No such file"]);
    let empty = folder.path("empty");
    fs::create_dir(&empty).unwrap();
    assert!(print(&["triage", &empty, "--out", &out]).starts_with("0 files"));
    let file = folder.file("file", "");
    fails(&["triage", &empty, "--out", &file], &["cannot write", &file]);
    fs::write(format!("{out}/state.json"), "{").unwrap();
    fails(&["triage", &empty, "--out", &out], &["state.json", "remove it"]);
    fails(&["triage", &empty, "--out", &folder.path("other"), "--backend", "none"], &["`none`"]);
}

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
    assert_eq!(finding["signature"], "ort crashed GRU f32[empty] [the process was ended by signal 6]");
    let least = fs::read(Path::new(&out).join("model.onnx")).unwrap();
    assert_eq!(onnx::decode(&least).unwrap().graph.unwrap().node.len(), 1);
    fails(&call, &["least", "--force"]);
    // A known issue is not run at all.
    assert!(print(&["minimise", &file, "--backend", "ort"]).contains("nothing"));
}

/// The rows are the methods of [`graphsmith::search::METHODS`], for both kinds of models; the last is the whole method.
#[test]
fn ablation_compares_every_method() {
    let report = print(&["ablate", "--count", "4", "--records", "4"]);
    let valid = |line: &str| -> f64 {
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        cells[2].trim_end_matches(" %").parse().unwrap()
    };
    for kind in ["vulnerable", "default"] {
        let (_, table) = report.split_once(&format!("{kind} models of ")).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).take(graphsmith::search::METHODS.len()).collect();
        let names = graphsmith::search::METHODS.iter().map(|method| method.name);
        assert!(names.zip(&rows).all(|(name, row)| row.starts_with(name)), "{report}");
        let (first, whole) = (valid(rows[0]), valid(rows[rows.len() - 1]));
        assert!(first <= whole && whole > 0.0, "{report}");
    }
}

/// Clocks only measure: what is found does not depend on them.
#[test]
fn stages_of_a_sweep_add_up() {
    let call = ["sweep", "--count", "3", "--records", "4", "--seed", "7"];
    let plain = print(&call);
    let measured = print(&[&call[..], &["--stages"]].concat());
    let (found, stages) = measured.split_once("\nCPU milliseconds a case").unwrap();
    assert_eq!(found, plain);
    let row = |name: &str| stages.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{stages}"));
    let cells = |name: &str| -> Vec<f64> {
        let numbers = row(name)[name.len()..].split_whitespace().filter_map(|cell| cell.parse().ok());
        numbers.collect()
    };
    let parts = ["input search", "error bounds", "judging"].map(|name| cells(name)[0]);
    assert!(parts.iter().sum::<f64>() <= cells("all")[0], "{stages}");
    assert_eq!(cells("all")[2], 100.0, "{stages}");
    assert!(stages.lines().any(|line| line.starts_with("inside the backends")), "{stages}");
    assert_eq!(stages.lines().filter(|line| line.trim_start().starts_with("seed ")).count(), 3, "{stages}");
}
