//! What no correct backend does is caught: `graphsmith audit` on a few cases.

use crate::cases;
use graphsmith::audit::{self, Score, Subject};
use graphsmith::reference;
use graphsmith::tensor::TensorData;
use std::collections::BTreeMap;

/// Kinds of faults below which the list would have lost some.
const KINDS: usize = 60;
/// Below so many noticeable faults a share says little.
const ENOUGH: usize = 20;

#[test]
fn faults_are_caught() {
    let _no_grad = reference::init();
    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    let mut left_over: Vec<TensorData> = Vec::new();
    let with_lane = |(seed, case)| {
        let cases = audit::with_lane(case, seed).expect("the reference follows its specification");
        cases.into_iter().map(move |case| (seed, case))
    };
    for (seed, case) in cases(10_000..10_400).flat_map(with_lane) {
        let mut subject = Subject::new(&case, &left_over, seed).expect("the reference follows its specification");
        for fault in audit::faults() {
            if let Some(answer) = subject.faulty(fault) {
                scores.entry(fault.name).or_default().add(&subject, &answer);
            }
        }
        left_over = subject.honest;
    }
    assert!(scores.len() >= KINDS, "only {} kinds of faults were injected", scores.len());
    let often: Vec<_> = scores.iter().filter(|(_, score)| score.noticeable >= ENOUGH).collect();
    assert!(often.len() >= KINDS / 2, "only {} kinds of faults were noticeable often: {scores:#?}", often.len());
    for (name, score) in often {
        assert!(score.caught * 100 >= score.noticeable * 99, "{name} escapes: {score:?}");
        // Bounds that are too wide would hide everything from the assertion above.
        assert!(score.noticeable * 100 >= score.changed * 80, "the bounds hide {name}: {score:?}");
    }
}
