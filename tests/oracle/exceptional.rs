//! The lane of NaN and infinity: judged where the standard speaks, silent elsewhere.

use crate::canary::{Behaviour, Canary};
use graphsmith::case::Case;
use graphsmith::dtype::DType;
use graphsmith::graph;
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input::{self, Input};
use graphsmith::known::Known;
use graphsmith::metamorphic::EXCEPTIONAL;
use graphsmith::model::{Leaf, Model, Node, Value};
use graphsmith::ops::{self, Choice};
use graphsmith::oracle::exceptional;
use graphsmith::reference::{self, Precision};
use graphsmith::spec::{Domain, Exceptional, OpSpec, Role};
use graphsmith::support::Focus;
use graphsmith::swarm::Swarm;
use graphsmith::tensor::TensorData;

/// Random inputs tried for each operator.
const CASES: u64 = 400;

/// `x` and further inputs of the same type through one operator.
fn alone(operator: &str, inputs: &[&[f64]], output: DType) -> Case {
    let mut model = Model { opset: 18, ..Model::default() };
    let value = |name: String, dtype| Value { name, dtype, shape: vec![inputs[0].len()] };
    let leaf = |value| Leaf { value, role: Role::Input, domain: Domain::Any, content: None, constant_node: false };
    model.values = (0..inputs.len()).map(|index| value(format!("x{index}"), DType::F32)).collect();
    model.leaves = (0..inputs.len()).map(leaf).collect();
    model.values.push(value("y".to_owned(), output));
    model.nodes = vec![Node {
        spec: ops::by_name(operator).expect("an operator of the catalogue"),
        name: "n".to_owned(),
        operands: (0..inputs.len()).map(Some).collect(),
        outputs: vec![inputs.len()],
        attributes: Vec::new(),
        accumulate: None,
    }];
    model.outputs = vec![inputs.len()];
    let data = inputs.iter().map(|x| TensorData::from_f64(DType::F32, &[x.len()], x)).collect();
    let wide = reference::run(&model, &data, Precision::Wide).expect("the reference follows its specification");
    Case::with_data(model, data, wide).expect("the reference follows its specification")
}

const X: &[f64] = &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.5, 0.0];

/// Whether an answer is right.
fn agrees(case: &Case, answer: &[f64]) -> bool {
    let expected = &case.expectation.outputs[0];
    case.expectation.judge(&Ok(vec![TensorData::from_f64(expected.dtype, &expected.shape, answer)])).is_none()
}

#[test]
fn what_a_sentence_says_is_judged() {
    let _no_grad = reference::init();
    let (nan, infinite) = (f64::NAN, f64::INFINITY);
    let one = [1.0; 5];
    for (operator, inputs, output, right) in [
        ("Floor", &[X][..], DType::F32, [nan, infinite, -infinite, -2.0, 0.0]),
        ("Sqrt", &[X], DType::F32, [nan, infinite, nan, nan, 0.0]),
        ("IsNaN", &[X], DType::Bool, [1.0, 0.0, 0.0, 0.0, 0.0]),
        ("Less", &[X, &one], DType::Bool, [0.0, 0.0, 1.0, 1.0, 1.0]),
        ("Div", &[&one, X], DType::F32, [nan, 0.0, 0.0, -1.0 / 1.5, infinite]),
        ("Mul", &[X, &[0.0; 5]], DType::F32, [nan, nan, nan, 0.0, 0.0]),
    ] {
        let case = alone(operator, inputs, output);
        assert!(agrees(&case, &right), "{operator} {:?}", case.expectation.outputs[0].exact);
        for (index, value) in right.iter().enumerate() {
            let mut wrong = right;
            wrong[index] = if output == DType::Bool {
                1.0 - value
            } else if value.is_nan() {
                0.0
            } else {
                nan
            };
            assert!(!agrees(&case, &wrong), "{operator}: {wrong:?} is not {right:?}");
        }
    }
}

#[test]
fn where_the_standard_is_silent_nothing_is_judged() {
    let _no_grad = reference::init();
    for operator in ["Relu", "Exp", "Sigmoid"] {
        let case = alone(operator, &[X], DType::F32);
        let mut values = case.expectation.outputs[0].exact.clone();
        values[..3].copy_from_slice(&[0.7; 3]);
        assert!(agrees(&case, &values), "{operator} of NaN and infinity is judged");
        // Below what all three can give.
        values[0] = -0.1;
        assert!(agrees(&case, &values), "{operator} of NaN is judged by its range");
        values[1] = -0.1;
        assert!(!agrees(&case, &values), "{operator} of infinity has a range");
        values[..2].copy_from_slice(&[0.7; 2]);
        values[4] += 0.1;
        assert!(!agrees(&case, &values), "{operator} of a number is not judged");
    }
    let case = alone("Sign", &[X], DType::F32);
    assert!(case.expectation.outputs[0].exact[0].is_nan(), "as in every backend: what follows from it is in doubt");
    // What is made of a value in doubt is in doubt.
    let case = alone("Max", &[X, &[f64::NEG_INFINITY; 5]], DType::F32);
    assert!(agrees(&case, &[7.0; 5]));
}

/// Graphs of one operator that may have this form.
fn alone_at_random(spec: &'static OpSpec, seed: u64) -> Option<Case> {
    let Input { mut header, records } = input::random(seed << 8 | u64::from(spec.code), 1);
    (header[6], header[11]) = (0, 0);
    let swarm = Swarm { focus: Focus::NONE, exact: false, ..Swarm::new(&header) };
    let swarm = Swarm { opset: swarm.opset.max(spec.since), ..swarm };
    let graph = graph::grow_with(&swarm, &records, |_| Choice::Operator(spec));
    let generated = graphsmith::case::Generated::new(graph, &swarm);
    let case = Case::new(generated).expect("the reference follows its specification").ok()?;
    let variant = case.vary(EXCEPTIONAL, seed).expect("the reference follows its specification")?;
    assert!(exceptional::concerns(&variant.case.data));
    Some(*variant.case)
}

#[test]
fn every_operator_with_a_sentence_is_judged_by_it() {
    let _no_grad = reference::init();
    for spec in ops::ALL.iter().copied().filter(|spec| spec.exceptional != Exceptional::Silent) {
        let shows = |case: &Case| {
            let outputs = case.expectation.outputs.iter();
            outputs.flat_map(|it| it.exact.iter().enumerate().map(move |(i, exact)| (it, i, exact))).any(
                |(it, i, exact)| {
                    let judged = it.allowed.get(i).is_none_or(|allowed| allowed.is_finite());
                    judged && (!exact.is_finite() || it.dtype == DType::Bool)
                },
            )
        };
        let found = (0..CASES).filter_map(|seed| alone_at_random(spec, seed)).find(shows);
        assert!(found.is_some(), "{} was never judged on an exceptional value", spec.name);
    }
}

/// A backend that makes a number of NaN is found out in the lane, and nowhere else.
#[test]
fn a_backend_that_is_wrong_about_nan_is_found() {
    let _no_grad = reference::init();
    let (mut tried, mut found) = (0, 0);
    for seed in 0..300 {
        let mut input = input::random(seed, 3);
        input.header[7] &= !7;
        input.header[11] = 168;
        let Ok(mut case) = Case::build(&input).expect("the reference follows its specification") else { continue };
        let Some(lane) = &case.again else { continue };
        let judged = |it: &graphsmith::oracle::Expected| {
            let judged = |i: usize| it.allowed.get(i).is_none_or(|allowed| allowed.is_finite());
            it.exact.iter().enumerate().any(|(i, exact)| exact.is_nan() && judged(i))
        };
        if !lane.expectation.outputs.iter().any(judged) {
            continue;
        }
        tried += 1;
        let canary = Canary::new(Behaviour::NanAsZero);
        canary.expect(&case);
        let mut harness = Harness::with(vec![Box::new(canary)], Known::default());
        if let Ok(Verdict::Bug(finding)) = harness.judge(&case) {
            assert!(finding.context.is_some_and(|context| context.contains("NaN")), "seed {seed}");
            found += 1;
        }
        case.again = None;
        assert!(matches!(harness.judge(&case), Ok(Verdict::Agree)), "seed {seed}: the case itself is right");
    }
    assert!(tried >= 10 && found == tried, "{found} of {tried} found");
}
