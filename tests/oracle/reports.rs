//! Report folders: what they hold, and that their scripts are short and name what is wrong.

use crate::canary::{Behaviour, Canary};
use crate::chain;
use graphsmith::backend::Level;
use graphsmith::case::Case;
use graphsmith::dtype::DType;
use graphsmith::finding::Finding;
use graphsmith::harness::{Form, Harness, Verdict};
use graphsmith::known::Known;
use graphsmith::metamorphic;
use graphsmith::npz;
use graphsmith::oracle::Kind;
use graphsmith::reference;
use graphsmith::report::{EXPECTED, INPUT, INPUTS, MODEL, PICTURE, README, Report, Style};
use graphsmith::tensor::TensorData;
use std::fs;

/// Lines that a maintainer reads.
const LINES: usize = 25;

const CHAIN: &[(&str, usize)] = &[("Relu", 1), ("Div", 2)];

fn find(case: &Case, canary: Canary) -> Finding {
    canary.expect(case);
    match Harness::with(vec![Box::new(canary)], Known::default()).judge(case).unwrap() {
        Verdict::Bug(finding) => *finding,
        _ => panic!("the fault was not found"),
    }
}

fn wrong_value(id: &'static str) -> (Case, Finding) {
    let case = chain(CHAIN);
    let finding =
        find(&case, Canary { id, operator: Some("Div"), level: Some(Level::On), ..Canary::new(Behaviour::NotANumber) });
    (case, finding)
}

#[test]
fn a_folder_has_all_that_a_maintainer_needs() {
    let _no_grad = reference::init();
    let (case, finding) = wrong_value("ort");
    let folder = tempfile::tempdir().unwrap();
    let path = |file: &str| folder.path().join(file);
    Report::new(&case, &finding).write(folder.path(), Some(b"bytes"), Style::Inline).unwrap();
    assert_eq!(fs::read(path(MODEL)).unwrap(), case.onnx);
    assert_eq!(fs::read(path(INPUT)).unwrap(), b"bytes");
    assert!(fs::read_to_string(path(PICTURE)).unwrap().contains("</svg>"));
    let inputs = npz::read(&path(INPUTS)).unwrap();
    assert_eq!(inputs.into_values().collect::<Vec<_>>(), case.model.input_data(&case.data));
    let expected = npz::read(&path(EXPECTED)).unwrap();
    let output = &case.expectation.outputs[0];
    assert_eq!(expected[&output.name].dtype, output.dtype);
    assert_eq!(expected[&format!("{}.exact", output.name)].to_f64(), output.exact);
    assert_eq!(expected[&format!("{}.allowed", output.name)].to_f64(), output.allowed);
    let readme = fs::read_to_string(path(README)).unwrap();
    for part in [
        "# [ort optimiser] Div: gives NaN in place of",
        "| ort | off | agrees |",
        "[Div-14](https://onnx.ai/onnx/operators/onnx__Div.html)",
        "pip install onnx numpy onnxruntime==1.2.3",
        "= Div(",
    ] {
        assert!(readme.contains(part), "{part} is not in\n{readme}");
    }
}

#[test]
fn a_script_stands_alone() {
    let _no_grad = reference::init();
    let (case, finding) = wrong_value("ort");
    let script = Report::new(&case, &finding).reproducer(Style::Inline).unwrap().text;
    for part in [
        "h.make_node(\"Div\", [\"v1\", \"v2\"], [\"v3\"])",
        "opset_imports=[h.make_opsetid(\"\", 18)]",
        "\"v0\": np.array([",
        "ORT_ENABLE_ALL",
        "sys.exit(int(wrong.any()))",
    ] {
        assert!(script.contains(part), "{part} is not in\n{script}");
    }
    assert!(!script.contains("here +"), "{script}");
    let files = Report::new(&case, &finding).reproducer(Style::Files).unwrap().text;
    assert!(files.contains("onnx.load(here + \"model.onnx\")") && !files.contains("make_node"), "{files}");
}

#[test]
fn scripts_are_short_for_every_kind_and_form() {
    let _no_grad = reference::init();
    let (mut case, finding) = wrong_value("ort");
    let data = case.model.sample(8, 0);
    let wide = reference::run(&case.model, &data, reference::Precision::Wide).unwrap();
    case.again = Some(Box::new(Case::with_data(case.model.clone(), data, wide).unwrap()));
    let axis = |name| Form::Variant(metamorphic::by_name(name).unwrap());
    let forms = [
        (Form::First, "session.run(["),
        (Form::Again, "session.run(None, before)"),
        (axis("threads"), "op_num_threads = 3"),
        (axis("reloaded"), "optimized_model_filepath"),
    ];
    for (form, part) in forms {
        let finding = Finding { form, ..finding.clone() };
        for style in [Style::Inline, Style::Files] {
            let script = Report::new(&case, &finding).reproducer(style).unwrap().text;
            assert!(script.lines().count() <= LINES && script.contains(part), "{form:?} {style:?}\n{script}");
        }
    }
    for (kind, part) in [
        (Kind::WrongCount, "outputs, expected 1"),
        (Kind::WrongDtype, "got.dtype != np.float32"),
        (Kind::WrongShape, "got.shape != (2, 3)"),
        (Kind::Refused, "except Exception"),
        (Kind::Crashed, "subprocess.run("),
        (Kind::TimedOut, "timeout=60"),
        (Kind::OutOfMemory, "RLIMIT_AS"),
        (Kind::Protocol, "got.shape"),
        (Kind::NonDeterministic, "array_equal"),
    ] {
        let finding = Finding { kind, ..finding.clone() };
        let script = Report::new(&case, &finding).reproducer(Style::Inline).unwrap().text;
        assert!(script.lines().count() <= LINES && script.contains(part), "{kind}\n{script}");
    }
}

#[test]
fn large_data_are_read_from_files() {
    let _no_grad = reference::init();
    let (mut case, finding) = wrong_value("ort");
    for (leaf, data) in case.model.leaves.iter().zip(&mut case.data) {
        let values: Vec<f64> = (1..=400).map(f64::from).collect();
        *data = TensorData::from_f64(DType::F32, &[20, 20], &values);
        case.model.values[leaf.value].shape = vec![20, 20];
    }
    let script = Report::new(&case, &finding).reproducer(Style::Inline).unwrap().text;
    assert!(script.contains("np.load(here + \"inputs.npz\")"), "{script}");
    assert!(script.len() < 3000, "{script}");
}

#[test]
fn backends_in_rust_have_a_program() {
    let _no_grad = reference::init();
    for (id, part) in [("tract", "into_optimized()"), ("rten", "enable_optimization(true)")] {
        let (case, finding) = wrong_value(id);
        let reproducer = Report::new(&case, &finding).reproducer(Style::Inline).unwrap();
        let text = reproducer.text;
        assert_eq!(reproducer.file, "repro.rs");
        assert!(text.contains(part) && text.contains("=1.2.3"), "{text}");
    }
    let (case, finding) = wrong_value("canary");
    assert!(Report::new(&case, &finding).reproducer(Style::Inline).is_none());
}
