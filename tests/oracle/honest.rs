//! What a correct backend may do is never called wrong.

use crate::cases;
use graphsmith::audit::{self, Subject};
use graphsmith::backend::Answer;
use graphsmith::case::Case;
use graphsmith::dtype::DType;
use graphsmith::reference::{self, Precision};
use graphsmith::spec::Domain;
use graphsmith::tensor::TensorData;
use graphsmith::{graph, search};

#[track_caller]
fn assert_agrees(name: &str, seed: u64, case: &Case, answer: &Answer) {
    if let Some(wrong) = case.expectation.judge(answer) {
        panic!("{name} is called wrong for seed {seed}: {wrong:?}\n{}", graph::text(&case.model));
    }
}

#[test]
fn correct_backends_are_never_called_wrong() {
    let _no_grad = reference::init();
    let mut judged = 0;
    let mut elements = [0; 2];
    let mut lane = 0;
    let with_lane = |(seed, case)| {
        let cases = audit::with_lane(case, seed).expect("the reference follows its specification");
        cases.into_iter().map(move |case| (seed, case)).enumerate()
    };
    for (form, (seed, case)) in cases(0..1000).flat_map(with_lane) {
        let mut subject = Subject::new(&case, &[], seed).expect("the reference follows its specification");
        for variation in audit::honest() {
            let answer = subject.varied(variation).expect("the reference follows its specification");
            if let Some(answer) = answer {
                assert_agrees(variation.name, seed, &case, &answer);
                judged += 1;
            }
        }
        lane += form;
        // Of exceptional values much is silent.
        if form == 0 {
            elements[0] += case.expectation.judged;
            elements[1] += case.expectation.elements;
        }
    }
    assert!(lane >= 100, "only {lane} cases had exceptional values");
    assert!(judged >= 4000, "only {judged} answers were judged");
    // An oracle that judges nothing never raises a false alarm.
    assert!(elements[0] * 100 >= elements[1] * 95, "only {} of {} elements are judged", elements[0], elements[1]);
}

#[test]
fn flushing_subnormals_to_zero_is_not_flagged() {
    let _no_grad = reference::init();
    let flush = audit::honest().iter().find(|it| it.name == "flush-to-zero").expect("a variation");
    let (mut tried, mut flushed) = (0, 0);
    for (seed, mut case) in cases(1000..1400) {
        let free = case.model.leaves.iter().map(|leaf| leaf.content.is_none() && leaf.domain == Domain::Any);
        for (data, free) in case.data.iter_mut().zip(free) {
            if !free || !matches!(data.dtype, DType::F32 | DType::F64) {
                continue;
            }
            let scale = data.dtype.min_positive() / 8.0;
            let tiny: Vec<f64> = data.to_f64().iter().map(|value| value * scale).collect();
            *data = TensorData::from_f64(data.dtype, &data.shape, &tiny);
        }
        let wide = reference::run(&case.model, &case.data, Precision::Wide).unwrap();
        if !search::is_valid(&case.model, &wide).unwrap() {
            continue;
        }
        let case = Case::with_data(case.model, case.data, wide).unwrap();
        tried += 1;
        let mut subject = Subject::new(&case, &[], seed).unwrap();
        let answer = subject.varied(flush).unwrap().expect("every model can be computed so");
        flushed += usize::from(answer != Ok(subject.honest));
        assert_agrees(flush.name, seed, &case, &answer);
    }
    assert!(flushed >= 20, "only {flushed} of {tried} cases had anything to flush");
}
