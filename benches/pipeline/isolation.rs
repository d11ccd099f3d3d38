//! What it costs a case, at the levels that the fuzzer runs it at, that backends run in processes of their own.

use crate::clock;
use crate::{Subject, run_backend};
use graphsmith::backend::process::{Isolated, Limits};
use graphsmith::backend::{self, Backend, Level};
use graphsmith::harness::Harness;
use graphsmith::known::Known;
use std::time::{Duration, Instant};

/// Each way is timed so often in turn, and the median counts.
const ROUNDS: usize = 5;

/// A harness whose children are there already. To be called before any backend has run in this process.
pub fn harness() -> Result<Harness, backend::Error> {
    let isolated = |backend| Box::new(Isolated::new(backend, Limits::DEFAULT)) as Box<dyn Backend>;
    let backends: Vec<Box<dyn Backend>> = backend::all()?.into_iter().map(isolated).collect();
    // What no backend can read starts the child all the same.
    backends.iter().for_each(|backend| drop(backend.compile(&[0], Level::Off)));
    Ok(Harness::with(backends, Known::default()))
}

/// Prints a table. Two processes have a part in it, one at a time, so that this is not CPU time.
pub fn print(direct: &Harness, isolated: &Harness, subjects: &[Subject]) {
    let [mut here, mut there, mut more] = [const { Vec::new() }; 3];
    for subject in subjects {
        let rounds: Vec<[Duration; 2]> =
            (0..ROUNDS).map(|_| [direct, isolated].map(|harness| time(harness, subject))).collect();
        let median = |way: usize| {
            let mut times: Vec<Duration> = rounds.iter().map(|round| round[way]).collect();
            times.sort_unstable();
            times[ROUNDS / 2]
        };
        here.push(median(0));
        there.push(median(1));
        more.push(median(1).saturating_sub(median(0)));
    }
    clock::heading("levels of the case, wall time");
    for (name, mut times) in [("in one process", here), ("in their own", there), ("difference", more)] {
        times.sort_unstable();
        clock::row(name, &times);
    }
    println!();
}

fn time(harness: &Harness, subject: &Subject) -> Duration {
    let start = Instant::now();
    (0..harness.targets.len()).for_each(|index| run_backend(harness, index, &subject.case, subject.case.levels));
    start.elapsed()
}
