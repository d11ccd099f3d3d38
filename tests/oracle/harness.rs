//! The harness around the oracle: what known issues and support tables excuse, and nothing more.

use crate::canary::{Behaviour, Canary};
use crate::chain;
use graphsmith::backend::{Failure, Level};
use graphsmith::case::{self, Case, Check, NoCase};
use graphsmith::dtype::DType;
use graphsmith::finding::{Blame, blame};
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input;
use graphsmith::known::Known;
use graphsmith::model::{Leaf, Model, Value};
use graphsmith::onnx;
use graphsmith::oracle::{Expectation, Kind};
use graphsmith::reference;
use graphsmith::schema;
use graphsmith::support::{Forms, Table, key, lacks::lacks};
use graphsmith::tensor::TensorData;

const RELU_TANH: &[(&str, usize)] = &[("Relu", 1), ("Tanh", 1)];

fn known(text: &str) -> Known {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Known::read(file.path()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// One known issue that explains a wrong value after Relu and Tanh, with `changes` of single lines.
fn issue(changes: &[(&str, &str)]) -> String {
    let mut lines = vec![
        ("backend", "\"canary\""),
        ("versions", "\">=1.2, <1.3\""),
        ("level", "\"on\""),
        ("kinds", "[\"wrong-value\"]"),
        ("chain", "[{ operator = \"Relu\" }, { operator = \"Tanh\", dtypes = [\"f32\"], ranks = [2], operands = 1 }]"),
    ];
    for change in changes {
        lines.retain(|(key, _)| *key != change.0);
        lines.push(*change);
    }
    let lines: Vec<String> = lines.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("[[issue]]\nid = \"the-issue\"\nreason = \"for this test\"\n{}\n", lines.join("\n"))
}

fn wrong_when_optimised() -> Canary {
    Canary { level: Some(Level::On), ..Canary::new(Behaviour::NotANumber) }
}

fn judge(harness: &mut Harness, canary: &Canary, case: &Case) -> Verdict {
    canary.expect(case);
    harness.judge(case).expect("the reference follows its specification")
}

fn verdict(canary: Canary, known: Known, case: &Case) -> Verdict {
    let mut harness = Harness::with(vec![Box::new(canary.clone())], known);
    judge(&mut harness, &canary, case)
}

#[test]
fn each_known_issue_has_a_name_of_its_own() {
    let known = Known::built_in().unwrap_or_else(|error| panic!("{error}"));
    let mut names = std::collections::BTreeSet::new();
    for (issue, _) in known.iter() {
        assert!(names.insert(&issue.id), "{} stands twice", issue.id);
    }
}

#[test]
fn a_known_issue_explains_exactly_what_it_describes() {
    let _no_grad = reference::init();
    let case = chain(RELU_TANH);
    let explained =
        |changes: &[(&str, &str)], canary: Canary, case: &Case| match verdict(canary, known(&issue(changes)), case) {
            Verdict::Known(ids) => ids == ["the-issue"],
            Verdict::Bug(_) => false,
            _ => panic!("a wrong answer went unnoticed"),
        };
    let canary = wrong_when_optimised;
    assert!(explained(&[], canary(), &case));
    // Every x86-64 processor has it.
    assert!(explained(&[("cpu", "\"sse2\"")], canary(), &case));
    for (key, value) in [
        ("cpu", "\"of-no-processor\""),
        ("backend", "\"magpie\""),
        ("versions", "\"<1.2\""),
        ("level", "\"off\""),
        ("kinds", "[\"crashed\", \"wrong-shape\"]"),
        ("chain", "[{ operator = \"Tanh\" }, { operator = \"Relu\" }]"),
        ("chain", "[{ operator = \"Tanh\", dtypes = [\"f16\", \"f64\"] }]"),
        ("chain", "[{ operator = \"Tanh\", output_dtypes = [\"f64\"] }]"),
        ("chain", "[{ operator = \"Tanh\", output_ranks = [1, 3] }]"),
        ("chain", "[{ operator = \"Tanh\", ranks = [0, 1, 3] }]"),
        ("chain", "[{ operator = \"Tanh\", operands = 2 }]"),
        ("chain", "[{ operator = \"Tanh\", empty = true }]"),
        ("chain", "[{ operator = \"Tanh\", attributes = { axis = [0] } }]"),
        ("chain", "[{ operator = \"Tanh\" }, { operator = \"Tanh\" }]"),
        ("chain", "[{ operator = [\"Relu6\", \"Neg\"] }]"),
        ("chain", "[{ operator = \"Tanh\", with = [{ operand = 0, constant = true }] }]"),
        ("chain", "[{ operator = \"Tanh\", with = [{ operand = [0, 1], ranks = [3] }] }]"),
        ("chain", "[{ operator = \"Tanh\", with = [{ operand = 1, present = true }] }]"),
        ("chain", "[{ operator = \"Tanh\", with = [{ operand = 1, empty = false }] }]"),
        ("chain", "[{ operator = \"Tanh\", second_shorter_off_axis = true }]"),
        ("chain", "[{ operator = [\"Relu\", \"Softmax\"], outputs = 2 }]"),
        ("chain", "[{ operator = \"Relu\", first_broadcast = true }]"),
        ("chain", "[{ operator = \"Relu\", with = [{ operand = 0, negative = true }] }]"),
        ("chain", "[{ operator = \"Relu\", with = [{ operand = 1, unordered_axes = false }] }]"),
        ("chain", "[{ operator = \"Relu\", with = [{ operand = 0, computed = true }] }]"),
        ("chain", "[{ operator = \"Tanh\", with = [{ operand = 0, computed = false }] }]"),
        ("chain", "[{ operator = \"Relu\", attributes_present = [\"alpha\"] }]"),
        ("chain", "[{ operator = \"Relu\", with = [{ operand = 0, size = [-2, 3] }] }]"),
        ("chain", "[{ operator = \"Relu\", with = [{ operand = 0, size = [2, 2] }] }]"),
        ("chain", "[{ operator = \"Relu\", with = [{ operand = 1, size = [0, 2] }] }]"),
        ("chain", "[{ operator = \"Relu\", inside = \"If\" }]"),
        ("chain", "[{ operator = \"Relu\", taken = false }]"),
        ("chain", "[{ operator = \"Relu\", attributes_containing = { equation = \"...\" } }]"),
        ("chain", "[{ operator = \"Relu\", repeated_label = false }]"),
        ("symbolic", "true"),
        ("chain", "[{ empty = true }]"),
        ("message", "\"\""),
        ("chain", "[]"),
    ] {
        assert!(!explained(&[(key, value)], canary(), &case), "{key} = {value} must not fit");
    }
    for (key, value) in [
        ("kinds", "[\"crashed\", \"wrong-value\"]"),
        ("chain", "[{ operator = \"Relu\" }]"),
        ("chain", "[{ operator = [\"Softmax\", \"Relu\"], outputs = 1, first_broadcast = false }, {}]"),
        ("chain", "[{ operator = \"Relu\", with = [{ operand = 0, size = [-2, 2] }] }]"),
        ("chain", "[{ operator = \"Relu\", output_ranks = [3, 2] }]"),
        ("chain", "[{ operator = \"Relu\", attributes_absent = [\"alpha\"] }]"),
        ("chain", "[{ operator = \"Relu\", with = [{ operand = 0, negative = false, unordered_axes = false }] }]"),
        ("chain", "[{ operator = \"Tanh\", empty = false, attributes_not = { axis = [0] } }]"),
        ("chain", "[{ operator = [\"Tanh\", \"Neg\"], with = [{ operand = [3, 0], ranks = [2], constant = false }] }]"),
        (
            "chain",
            "[{ operator = \"Tanh\", with = [{ operand = 1, present = false }, { operand = 2, empty = true }] }]",
        ),
        ("chain", "[{ operator = \"Relu\" }, { operator = \"Tanh\", distant = true }]"),
    ] {
        assert!(explained(&[(key, value)], canary(), &case), "{key} = {value} must fit");
    }
    // Wrong at both levels, known at one.
    assert!(!explained(&[], Canary::new(Behaviour::NotANumber), &case));
    assert!(!explained(&[], canary(), &chain(&[("Tanh", 1), ("Relu", 1)])), "the chain is in another order");
    let between = chain(&[("Relu", 1), ("Neg", 1), ("Tanh", 1)]);
    let distant = [("chain", "[{ operator = \"Relu\" }, { operator = \"Tanh\", distant = true }]")];
    assert!(!explained(&[], canary(), &between) && explained(&distant, canary(), &between));
}

#[test]
fn a_known_issue_excuses_only_what_is_computed_from_its_operators() {
    let _no_grad = reference::init();
    let case = chain(RELU_TANH);
    let mut early = case.model.clone();
    early.outputs = early.nodes[0].outputs.clone();
    let case = Case::with_data(early, case.data, case.wide).unwrap();
    let verdict = |chain| verdict(wrong_when_optimised(), known(&issue(&[("chain", chain)])), &case);
    assert!(matches!(verdict("[{ operator = \"Relu\" }]"), Verdict::Known(_)));
    assert!(matches!(verdict("[{ operator = \"Tanh\" }]"), Verdict::Bug(_)));
}

#[test]
fn a_known_issue_may_be_of_what_follows_the_wrong_output() {
    let _no_grad = reference::init();
    let case = chain(RELU_TANH);
    let mut early = case.model.clone();
    early.outputs = early.nodes[0].outputs.clone();
    let early = Case::with_data(early, case.data.clone(), chain(RELU_TANH).wide).unwrap();
    let explained = |case: &Case, chain| {
        let changes = [("chain", chain), ("behind", "true")];
        matches!(verdict(wrong_when_optimised(), known(&issue(&changes)), case), Verdict::Known(_))
    };
    assert!(explained(&early, "[{}, { operator = \"Tanh\" }]"));
    assert!(!explained(&early, "[{}, { operator = \"Relu\" }]"));
    assert!(!explained(&early, "[{ operator = \"Tanh\" }]"));
    assert!(!explained(&case, "[{ operator = \"Relu\" }, { operator = \"Tanh\" }]"));
}

#[test]
fn a_known_issue_explains_a_failure_by_its_message() {
    let _no_grad = reference::init();
    let case = chain(RELU_TANH);
    let explained = |message| {
        let changes = [("kinds", "[\"crashed\"]"), ("level", "\"on\""), ("message", message)];
        let canary = Canary { level: Some(Level::On), ..Canary::new(Behaviour::Crash) };
        matches!(verdict(canary, known(&issue(&changes)), &case), Verdict::Known(_))
    };
    assert!(explained("\"canary.rs\""));
    assert!(!explained("\"magpie.rs\""));
}

#[test]
fn a_known_issue_with_an_unknown_field_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), issue(&[("operator", "\"Relu\"")])).unwrap();
    let error = Known::read(file.path()).unwrap_err().to_string();
    assert!(error.contains("is not a list of known issues") && error.contains("operator"), "{error}");
    assert!(Known::read("/nowhere/known.toml".as_ref()).unwrap_err().to_string().contains("/nowhere/known.toml"));
}

#[test]
fn a_fatal_issue_keeps_the_backend_from_running() {
    let _no_grad = reference::init();
    let canary = Canary::new(Behaviour::Crash);
    let fatal = [("kinds", "[\"crashed\"]"), ("fatal", "true")];
    let mut harness = Harness::with(vec![Box::new(canary.clone())], known(&issue(&fatal)));
    let case = chain(RELU_TANH);
    canary.expect(&case);
    let outcomes = harness.run(&case.model, &case.onnx, &case.model.input_data(&case.data), 0);
    // The issue is only at level on.
    assert_eq!(canary.compiled.get(), 1);
    assert!(matches!(outcomes[0].result, Err(Failure::Crashed(_))), "{outcomes:?}");
    assert!(matches!(outcomes[1].result, Err(Failure::Unsupported(_))), "{outcomes:?}");
    assert!(harness.summary().contains("the-issue"), "{}", harness.summary());
}

/// A support table that has every form of the model in one list.
fn table(model: &Model, list: impl Fn(&mut Forms) -> &mut Vec<String>) -> Table {
    let mut table = Table::default();
    for node in &model.nodes {
        let version = schema::signature(node.spec.name, model.opset).expect("an operator of the opset").version;
        list(table.operators.entry(key(node.spec.name, version)).or_default()).push(model.form(node));
    }
    table
}

#[test]
fn support_tables_decide_what_a_refusal_means() {
    let _no_grad = reference::init();
    let mut case = chain(RELU_TANH);
    let refuse_case = |case: &Case, support: Option<Table>| {
        let canary = Canary::new(Behaviour::Refusal);
        let mut harness = Harness::with(vec![Box::new(canary.clone())], Known::default());
        if let Some(support) = support {
            harness.targets[0].support = support;
        }
        let verdict = judge(&mut harness, &canary, case);
        (verdict, canary.compiled.get())
    };
    let refuse = |support| refuse_case(&case, support);
    let (never_run, compiled) = refuse(Some(table(&case.model, |forms| &mut forms.no)));
    assert!(matches!(never_run, Verdict::Agree) && compiled == 0, "what is not supported must not be run");
    let (partial, compiled) = refuse(Some(table(&case.model, |forms| &mut forms.partial)));
    assert!(matches!(partial, Verdict::Agree) && compiled == 2, "what is partly supported may be refused");
    let (unprobed, compiled) = refuse(None);
    assert!(matches!(unprobed, Verdict::Agree) && compiled == 2, "what was never probed may be refused");
    match refuse(Some(table(&case.model, |forms| &mut forms.yes))).0 {
        Verdict::Bug(finding) => assert_eq!(finding.kind, Kind::Refused),
        _ => panic!("what is supported must not be refused"),
    }
    let mut mixed = table(&case.model, |forms| &mut forms.yes);
    mixed.operators.remove(&key("Tanh", 13));
    assert!(matches!(refuse(Some(mixed)).0, Verdict::Agree), "a model has the least support of its nodes");
    let yes = table(&case.model, |forms| &mut forms.yes);
    let (last, value) = (case.model.leaves[0].clone(), case.model.values.len());
    case.model.values.push(Value { name: "idle".to_owned(), ..case.model.values[last.value].clone() });
    case.model.leaves.push(Leaf { value, ..last });
    case.data.push(case.data[0].clone());
    case.onnx = onnx::encode(&case.model, &case.data);
    let (idle, compiled) = refuse_case(&case, Some(yes));
    assert!(
        matches!(idle, Verdict::Agree) && compiled == 2,
        "of inputs that no operator reads the tables know nothing"
    );
}

#[test]
fn a_model_that_every_backend_lacks_is_left_out_before_its_inputs_are_sought() {
    let _no_grad = reference::init();
    let mut harness = Harness::with(vec![Box::new(Canary::new(Behaviour::Copy))], Known::default());
    let generate = || case::generate(&input::random(1, 4));
    let model = generate().model;
    for (support, is_taken) in
        [(table(&model, |forms| &mut forms.no), false), (table(&model, |forms| &mut forms.partial), true)]
    {
        harness.targets[0].support = support;
        match harness.case(generate()).unwrap() {
            Ok(_) => assert!(is_taken),
            Err(reason) => assert!(!is_taken && reason == NoCase::Unsupported, "{reason}"),
        }
    }
}

#[test]
fn uses_that_a_backend_lacks_are_of_a_release_and_of_types() {
    let _no_grad = reference::init();
    let mut model = chain(RELU_TANH).model;
    assert_eq!(lacks("ort", "1.32.0", &model), None);
    model.values[0].dtype = DType::I64;
    assert!(lacks("ort", "1.32.0", &model).is_some_and(|says| says.ends_with("for Relu")));
    assert_eq!([lacks("ort", "1.33.0", &model), lacks("tract", "0.23.9", &model)], [None; 2]);
}

#[test]
fn bounds_are_computed_for_answers_that_are_not_equal_to_the_reference() {
    let _no_grad = reference::init();
    let mut case = chain(RELU_TANH);
    case.check = Check::Later;
    case.expectation = Expectation::equal(&case.model, &case.wide).unwrap();
    let right = [case.expectation.outputs[0].reference()];
    assert!(case.bounded([&right[..]].into_iter()).unwrap().is_none());
    let mut near = right[0].to_f64();
    *near.iter_mut().find(|value| **value != 0.0).expect("some input is above 0") *= 1.0 - 4e-7;
    let near = vec![TensorData::from_f64(DType::F32, &right[0].shape, &near)];
    let bounded = case.bounded([&right[..], &near[..]].into_iter()).unwrap().expect("one answer is not equal");
    assert!(bounded.judge(&Ok(near.clone())).is_none() && case.expectation.judge(&Ok(near)).is_some());
}

#[test]
fn bounds_are_checked_before_a_difference_is_believed() {
    let _no_grad = reference::init();
    for (check, is_bug) in [(Check::Later, false), (Check::Now, true)] {
        let mut case = chain(RELU_TANH);
        case.check = check;
        // As if it had been computed wrongly.
        let output = case.wide[case.model.outputs[0]].as_mut().expect("every value was computed");
        *output = &*output + 1.0;
        match check {
            Check::Now => case.expectation.outputs[0].exact.iter_mut().for_each(|exact| *exact += 1.0),
            Check::Later => case.expectation = Expectation::equal(&case.model, &case.wide).unwrap(),
        }
        let found = matches!(verdict(Canary::new(Behaviour::Copy), Known::default(), &case), Verdict::Bug(_));
        assert_eq!(found, is_bug, "{check:?}");
    }
    let mut wrong = chain(RELU_TANH);
    wrong.check = Check::Later;
    wrong.expectation = Expectation::equal(&wrong.model, &wrong.wide).unwrap();
    let found = verdict(Canary::new(Behaviour::NotANumber), Known::default(), &wrong);
    assert!(matches!(found, Verdict::Bug(_)), "what is wrong by the checked bounds too is a finding");
}

#[test]
fn a_crash_is_a_finding_whatever_the_support() {
    let _no_grad = reference::init();
    match verdict(Canary::new(Behaviour::Crash), Known::default(), &chain(RELU_TANH)) {
        Verdict::Bug(finding) => {
            assert_eq!(finding.kind, Kind::Crashed);
            assert!(finding.symptom.contains("falls from its perch at tests/oracle/canary.rs"), "{}", finding.symptom);
        }
        _ => panic!("the crash was not found"),
    }
}

#[test]
fn integers_beyond_the_backends_own_are_not_its_fault() {
    let _no_grad = reference::init();
    let mut canary = Canary::new(Behaviour::Copy);
    canary.integer_limit = Some(1000);
    let case = chain(RELU_TANH);
    canary.expect(&case);
    let mut harness = Harness::with(vec![Box::new(canary)], Known::default());
    let inputs = case.model.input_data(&case.data);
    let mut unsupported = |largest| {
        let outcomes = harness.run(&case.model, &case.onnx, &inputs, largest);
        outcomes.iter().filter(|outcome| matches!(outcome.result, Err(Failure::Unsupported(_)))).count()
    };
    assert_eq!((unsupported(1000), unsupported(1001)), (0, 2));
}

#[test]
fn blame_falls_by_company() {
    let _no_grad = reference::init();
    let case = chain(RELU_TANH);
    let blamed = |behaviours: [Behaviour; 2], levels: [Option<Level>; 2]| {
        let mut magpie = Canary::new(behaviours[1]);
        magpie.id = "magpie";
        let mut canaries = [Canary::new(behaviours[0]), magpie];
        canaries.iter_mut().zip(levels).for_each(|(canary, level)| canary.level = level);
        canaries.iter().for_each(|canary| canary.expect(&case));
        let backends = canaries.map(|canary| Box::new(canary) as _).into_iter().collect();
        let mut harness = Harness::with(backends, Known::default());
        let inputs: Vec<TensorData> = case.model.input_data(&case.data);
        let outcomes = harness.run(&case.model, &case.onnx, &inputs, 0);
        blame(&case, &outcomes)
    };
    use Behaviour::{Copy, Crash, NotANumber, WrongShape};
    let anywhere = [None, None];
    assert_eq!(blamed([NotANumber, NotANumber], anywhere), Blame::Reference);
    let canary_alone = Blame::Backend { wrong: "canary".to_owned(), right: vec!["magpie".to_owned()] };
    assert_eq!(blamed([NotANumber, Copy], anywhere), canary_alone);
    assert_eq!(blamed([Crash, Copy], anywhere), canary_alone);
    assert_eq!(blamed([NotANumber, Crash], anywhere), Blame::Unconfirmed, "one answer alone is no majority");
    assert_eq!(blamed([WrongShape, WrongShape], anywhere), Blame::Unconfirmed, "a shape says nothing about values");
    // Both are right without optimisation.
    assert_eq!(blamed([NotANumber, NotANumber], [Some(Level::On), Some(Level::On)]), Blame::Unconfirmed);
}
