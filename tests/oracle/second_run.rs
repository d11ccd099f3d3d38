//! A model whose sizes are symbols is compiled once and run twice, with inputs of other sizes the second time.

use graphsmith::backend::{Backend, Failure, Level, Session};
use graphsmith::case::Case;
use graphsmith::dtype::DType;
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input;
use graphsmith::known::Known;
use graphsmith::oracle::Kind;
use graphsmith::reference::{self, Precision};
use graphsmith::tensor::TensorData;

/// A backend that gives these answers, one in each run of a session.
struct Parrot(Vec<Vec<TensorData>>);

impl Backend for Parrot {
    fn id(&self) -> &'static str {
        "parrot"
    }

    fn version(&self) -> String {
        "1.0.0".to_owned()
    }

    fn compile(&self, _onnx: &[u8], _level: Level) -> Result<Box<dyn Session>, Failure> {
        Ok(Box::new(Talk(self.0.clone().into_iter())))
    }
}

struct Talk(std::vec::IntoIter<Vec<TensorData>>);

impl Session for Talk {
    fn run(&mut self, _inputs: &[TensorData]) -> Result<Vec<TensorData>, Failure> {
        self.0.next().ok_or_else(|| Failure::Crashed("the parrot has no more to say".to_owned()))
    }
}

fn right_answer(case: &Case) -> Vec<TensorData> {
    let values = reference::run(&case.model, &case.data, Precision::Declared).expect("the specification is followed");
    reference::outputs(&case.model, &values)
}

/// Another answer that is right as well: one float is the next one.
fn nearby(case: &Case, answer: &[TensorData]) -> Option<Vec<TensorData>> {
    (0..answer.len()).find_map(|output| {
        let mut values = answer[output].to_f64();
        let first = values.first_mut().filter(|_| answer[output].dtype == DType::F32)?;
        *first = f64::from((*first as f32).next_up());
        let mut other = answer.to_vec();
        other[output] = TensorData::from_f64(DType::F32, &answer[output].shape, &values);
        case.expectation.judge(&Ok(other.clone())).is_none().then_some(other)
    })
}

fn verdict(case: &Case, answers: [Vec<TensorData>; 2]) -> Verdict {
    // The first inputs come once more at the end.
    let [first, second] = answers;
    said(case, vec![first.clone(), second, first])
}

fn said(case: &Case, answers: Vec<Vec<TensorData>>) -> Verdict {
    let mut harness = Harness::with(vec![Box::new(Parrot(answers))], Known::default());
    harness.judge(case).expect("the reference follows its specification")
}

#[test]
fn what_is_right_only_in_the_first_run_is_found() {
    let _no_grad = reference::init();
    let (mut tried, mut steady) = (0, 0);
    for seed in 0..300 {
        let mut input = input::random(seed, 4);
        input.header[7] |= 7;
        input.header[11] = 0;
        let Ok(case) = Case::build(&input).expect("the reference follows its specification") else { continue };
        let Some(again) = &case.again else { continue };
        let (first, second) = (right_answer(&case), right_answer(again));
        assert!(matches!(verdict(&case, [first.clone(), second.clone()]), Verdict::Agree), "seed {seed}");
        let shapes = |outputs: &[TensorData]| outputs.iter().map(|output| output.shape.clone()).collect::<Vec<_>>();
        if shapes(&first) == shapes(&second) {
            continue;
        }
        tried += 1;
        if let Some(other) = nearby(&case, &first) {
            steady += 1;
            match said(&case, vec![first.clone(), second.clone(), other]) {
                Verdict::Bug(finding) => assert_eq!(finding.kind, Kind::NonDeterministic, "seed {seed}: {finding}"),
                _ => panic!("seed {seed}: other bits in a third run passed for those of the first"),
            }
        }
        match verdict(&case, [first.clone(), first.clone()]) {
            Verdict::Bug(finding) => assert!(finding.context.is_some(), "seed {seed}: {finding}"),
            _ => panic!("seed {seed}: the outputs of the first run passed for those of the second"),
        }
        match verdict(&case, [second.clone(), second]) {
            Verdict::Bug(finding) => assert!(finding.context.is_none(), "seed {seed}: {finding}"),
            _ => panic!("seed {seed}: the outputs of the second run passed for those of the first"),
        }
    }
    assert!(tried >= 100, "{tried} cases give outputs of other sizes in their second run");
    assert!(steady >= 20, "{steady} cases have another answer that the bounds allow");
}
