//! What no correct backend does is caught.

use crate::canary::{Behaviour, Canary, FAULTS};
use crate::cases;
use graphsmith::backend::Failure;
use graphsmith::case::Case;
use graphsmith::reference;
use graphsmith::tensor::TensorData;
use std::fmt;

/// What became of one fault over all cases.
#[derive(Clone, Copy, Default)]
struct Row {
    /// Cases with something to get wrong.
    injected: usize,
    /// Answers that differ from the honest one at all.
    changed: usize,
    /// Answers that no honest backend could give: an element that is judged moved by more than twice its bound.
    noticeable: usize,
    caught: usize,
}

struct Table(Vec<(Behaviour, Row)>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{:20} {:>9} {:>9} {:>10} {:>9}", "fault", "injected", "changed", "noticeable", "caught")?;
        for (fault, row) in &self.0 {
            let name = format!("{fault:?}");
            writeln!(f, "{name:20} {:9} {:9} {:10} {:9}", row.injected, row.changed, row.noticeable, row.caught)?;
        }
        Ok(())
    }
}

type Answer = Result<Vec<TensorData>, Failure>;

fn noticeable(case: &Case, honest: &Answer, faulty: &Answer) -> bool {
    let (Ok(honest), Ok(faulty)) = (honest, faulty) else { return true };
    honest.len() != faulty.len()
        || honest.iter().zip(faulty).zip(&case.expectation.outputs).any(|((honest, faulty), expected)| {
            honest.dtype != faulty.dtype || honest.shape != faulty.shape || {
                let far = |(i, (honest, faulty)): (usize, (&f64, &f64))| {
                    let allowed = expected.allowed.get(i).copied().unwrap_or(0.0);
                    // A NaN is not within any bound.
                    allowed.is_finite() && !(honest - faulty).abs().le(&(2.0 * allowed))
                };
                honest.to_f64().iter().zip(&faulty.to_f64()).enumerate().any(far)
            }
        })
}

#[test]
fn faults_are_caught() {
    let _no_grad = reference::init();
    let canary = Canary::new(Behaviour::Copy);
    let mut table = Table(FAULTS.map(|fault| (fault, Row::default())).to_vec());
    for (_, case) in cases(10_000..10_500) {
        canary.behaviour.set(Behaviour::Copy);
        let honest = canary.answer(&case);
        for (fault, row) in &mut table.0 {
            canary.behaviour.set(*fault);
            let answer = canary.answer(&case);
            if matches!(answer, Err(Failure::Unsupported(_))) {
                continue;
            }
            row.injected += 1;
            row.changed += usize::from(answer != honest);
            let noticeable = noticeable(&case, &honest, &answer);
            let caught = case.expectation.judge(&answer).is_some();
            row.noticeable += usize::from(noticeable);
            row.caught += usize::from(caught && noticeable);
        }
        canary.leave(&honest.expect("the canary answers honestly first"));
    }
    println!("{table}");
    for (fault, row) in &table.0 {
        assert!(row.noticeable >= 20, "{fault:?} was hardly tried\n{table}");
        assert!(row.caught * 100 >= row.noticeable * 99, "{fault:?} escapes\n{table}");
        // Bounds that are too wide would hide everything from the assertion above.
        assert!(row.noticeable * 100 >= row.changed * 85, "the bounds hide {fault:?}\n{table}");
    }
}
