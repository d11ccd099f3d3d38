//! Runs of the fuzz target without libFuzzer, for comparisons under the same meter: of random inputs, which nothing steers, and of
//! models that another tool has made.

use super::{Bytes, HARNESS, count, end_of_case, init, meter, test, timeout_seconds};
use crate::backend::isolate;
use crate::features;
use crate::harness::Harness;
use crate::input::{self, Stream};
use crate::onnx::{self, proto::ModelProto};
use crate::oracle::Outcome;
use crate::peers;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// When set, the seed of random inputs that are run after the given ones.
const BLIND: &str = "GRAPHSMITH_BLIND";
/// When set, a folder of ONNX models that are run once each.
const MODELS: &str = "GRAPHSMITH_MODELS";
/// The size of a symbolic dimension of a model.
const SYMBOL_SIZE: usize = 2;

/// Does what the environment asks for in place of fuzzing; false if it asks for nothing.
pub fn run(arguments: &[String]) -> bool {
    let seed = std::env::var(BLIND).ok();
    let folder = std::env::var_os(MODELS).map(PathBuf::from);
    if seed.is_none() && folder.is_none() {
        return false;
    }
    // There is no engine that could look at counters.
    init(|_, _| {});
    if let Some(folder) = folder {
        models(&folder);
        if seed.is_none() {
            meter::complete();
        }
    }
    if let Some(seed) = seed {
        match seed.parse() {
            Ok(seed) => blind(seed, arguments),
            Err(_) => fail(&format!("{BLIND} must be a whole number, and is `{seed}`")),
        }
    }
    true
}

fn fail(reason: &str) -> ! {
    eprintln!("graphsmith: {reason}");
    std::process::exit(2)
}

/// Runs the inputs in the given folders, then random ones for ever.
fn blind(seed: u64, arguments: &[String]) {
    for folder in arguments.iter().skip(1).filter(|argument| !argument.starts_with('-')) {
        for path in files(Path::new(folder)) {
            one(|| test(&Bytes(fs::read(path).unwrap_or_default())));
        }
    }
    let mut stream = Stream::new(seed);
    loop {
        let input = input::random_of_any_length(&mut stream);
        one(|| test(&Bytes(input.encode())));
    }
}

/// A case with clean counters. One that hangs ends the process, as libFuzzer does it.
fn one(case: impl FnOnce()) {
    meter::clear();
    // SAFETY: there is no handler that could be called.
    unsafe { libc::alarm(timeout_seconds()) };
    case();
}

/// The files of a folder and those below it, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| fail(&format!("cannot read {}: {error}", folder.display())));
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn models(folder: &Path) {
    let harness = HARNESS.get().expect("`init` was called");
    for path in files(folder).iter().filter(|path| path.extension().is_some_and(|extension| extension == "onnx")) {
        // Should a backend take the process with it, the last line tells which model it was.
        eprintln!("graphsmith: model {}", path.display());
        one(|| match model(&mut harness.borrow_mut(), path) {
            Ok(()) => end_of_case(),
            Err(reason) => eprintln!("graphsmith: {} is left out: {reason}", path.display()),
        });
    }
}

/// Runs a model with random inputs on all backends and levels. They are judged by each other: not every model has a reference.
fn model(harness: &mut Harness, path: &Path) -> Result<(), String> {
    let onnx = fs::read(path).map_err(|error| error.to_string())?;
    let proto = onnx::decode(&onnx).map_err(|error| error.to_string())?;
    let inputs = onnx::inputs(&proto, SYMBOL_SIZE).map_err(|error| error.to_string())?;
    harness.seen.clear();
    let outcomes = peers::answers(harness, &onnx, &inputs, &inputs.sample(0, 0));
    // What the importer does not know, or what is not valid, has no features but its pairs.
    let known = isolate(|| Ok(onnx::import(&proto, &BTreeMap::new(), 0).ok()));
    let found = known.ok().flatten().map(|imported| features::of_model(&imported.model));
    count(found.into_iter().flatten().chain(pairs(&proto)).collect());
    meter::seen(&harness.seen);
    disagreements(&outcomes).iter().for_each(|signature| {
        eprintln!("graphsmith: {}: {signature}", path.display());
        meter::finding(signature);
    });
    Ok(())
}

/// The counters of pairs of operators of a model's main graph.
fn pairs(proto: &ModelProto) -> BTreeSet<usize> {
    let mut producers: BTreeMap<&str, &str> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for node in proto.graph.iter().flat_map(|graph| &graph.node) {
        let producers_of_inputs = node.input.iter().filter_map(|input| producers.get(input.as_str()));
        // Constants are leaves in models of our own.
        let pairs =
            producers_of_inputs.filter(|from| **from != "Constant").map(|from| features::pair(from, &node.op_type));
        found.extend(pairs);
        node.output.iter().for_each(|output| {
            producers.insert(output, &node.op_type);
        });
    }
    found
}

/// Who is not with the majority, or fails where others answer: one sentence each.
fn disagreements(outcomes: &[Outcome]) -> BTreeSet<String> {
    let groups = peers::groups(outcomes);
    let minority = groups.iter().skip(1).flatten().map(|&index| &outcomes[index]);
    let minority = minority.map(|outcome| format!("{} {} disagrees", outcome.backend, outcome.level));
    let broken = outcomes.iter().filter(|outcome| peers::breaks(outcome, outcomes));
    minority.chain(broken.map(|outcome| format!("{} {} fails", outcome.backend, outcome.level))).collect()
}
