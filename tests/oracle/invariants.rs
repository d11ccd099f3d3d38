//! What must hold of every element, also of those whose bound says too little to judge them, and of every finding.

use crate::chain;
use graphsmith::case::Case;
use graphsmith::dtype::DType;
use graphsmith::finding::{Blame, symptom};
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input::{self, Input};
use graphsmith::reference::{self, Precision};
use graphsmith::tensor::TensorData;

/// Cases that run on every backend of this build.
const CASES: u64 = 200;

/// A chain of operators on given inputs, each of six elements.
fn on(operators: &[(&str, usize)], inputs: &[[f64; 6]]) -> Case {
    let model = chain(operators).model;
    let data = inputs.iter().map(|input| TensorData::from_f64(DType::F32, &[2, 3], input)).collect();
    let wide = reference::run(&model, &data, Precision::Wide).expect("the reference follows its specification");
    Case::with_data(model, data, wide).expect("the reference follows its specification")
}

/// What the judge says of an answer whose first element is another one than the reference's.
fn with_first(case: &Case, first: f64) -> Option<String> {
    let expected = &case.expectation.outputs[0];
    let mut answer = expected.exact.clone();
    answer[0] = first;
    let answer = Ok(vec![TensorData::from_f64(expected.dtype, &expected.shape, &answer)]);
    case.expectation.judge(&answer).map(|wrong| symptom(case, &wrong))
}

#[test]
fn no_result_is_beyond_what_its_operator_can_give() {
    let _no_grad = reference::init();
    let above_one = f64::from(1.0f32.next_up());
    let case = on(&[("Tanh", 1)], &[[20.0, 1.0, -1.0, 0.5, 2.0, -20.0]]);
    assert_eq!(with_first(&case, 1.0), None);
    assert!(with_first(&case, above_one).is_some_and(|told| told.contains("beyond -1 and 1")));
    // The bound alone would let it pass.
    assert_eq!(with_first(&on(&[("Identity", 1), ("Tanh", 1), ("Neg", 1)], &[[-20.0; 6]]), above_one), None);
    // The end of a range is one of the type's own numbers.
    let case = on(&[("Acos", 1)], &[[-1.0, 0.0, 0.5, 0.1, 0.2, 0.3]]);
    assert_eq!(with_first(&case, f64::from(std::f32::consts::PI)), None);
}

#[test]
fn what_is_not_judged_must_be_a_number_all_the_same() {
    let _no_grad = reference::init();
    // The sum is off by up to 0.5, and the difference is 0.3.
    let case = on(&[("Add", 2), ("Sub", 2)], &[[1e7; 6], [0.3; 6], [1e7; 6]]);
    assert_eq!(case.expectation.judged, 0);
    assert_eq!(with_first(&case, 1.0), None);
    for no_number in [f64::NAN, f64::INFINITY] {
        assert!(with_first(&case, no_number).is_some_and(|told| told.contains("or another number")));
    }
}

/// Where all backends contradict the reference in one, it is our specification that is to be suspected.
#[test]
fn the_reference_never_stands_alone() {
    let _no_grad = reference::init();
    let mut harness = Harness::new().expect("the backends of this build");
    let mut answered = 0;
    for seed in 0..CASES {
        let mut input: Input = input::random(seed, 4);
        // Cases that every backend takes, where several answer.
        input.header[1] = 0;
        let Ok(case) = Case::build(&input).expect("the reference follows its specification") else { continue };
        let answers = harness.answers(&case);
        answered += usize::from(answers.first.iter().filter(|outcome| outcome.result.is_ok()).count() >= 4);
        if let Verdict::Bug(finding) = harness.verdict(&case, &answers).expect("the specification is followed") {
            assert_ne!(finding.blame, Blame::Reference, "seed {seed}: {finding}");
        }
    }
    assert!(answered >= 40, "only {answered} cases were answered by two backends");
}
