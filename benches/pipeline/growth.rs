//! How the cost of the stages before the backends grows with the number of operators.

use crate::clock;
use graphsmith::case::{self, Generated};
use graphsmith::input::{self, Input};
use graphsmith::limits::MAX_OPERATORS;
use graphsmith::model::{LeafData, Model};
use graphsmith::oracle::Expectation;
use graphsmith::reference::{self, Precision};
use graphsmith::solve::Tally;
use graphsmith::spec::Skip;
use graphsmith::{onnx, search};
use std::hint::black_box;

const OPERATORS: [usize; 6] = [5, 10, 20, 40, 80, 200];
/// Inputs of each size have so many operators together, but there are not more than [`MAX_INPUTS`].
const OPERATORS_IN_ALL: usize = 3200;
const MAX_INPUTS: usize = 256;

struct Subject {
    bytes: Vec<u8>,
    generated: Generated,
    /// The model with what the search found and cut off, if it found anything.
    valid: Option<(Model, LeafData)>,
}

/// A stage by name.
type Stage = (&'static str, fn(&Subject));

/// Prints one table for each stage, and how often each way of solving was needed.
pub fn print() {
    let sizes: Vec<(usize, Vec<Subject>)> =
        OPERATORS.iter().map(|&operators| (operators, subjects(operators))).collect();
    let stages: [Stage; 3] =
        [("bytes to ONNX", to_onnx), ("input search", search_inputs), ("reference and bounds", expect)];
    for (name, stage) in stages {
        clock::heading(&format!("{name}, by operators"));
        for (operators, subjects) in &sizes {
            clock::row(&operators.to_string(), &clock::times(subjects, stage));
        }
        println!();
    }
    println!(
        "{:>9} {:>12} {:>14} {:>10} {:>10} {:>8} {:>8} {:>8}",
        "operators", "records kept", "held by hints", "repaired", "narrowed", "refused", "Z3", "valid"
    );
    for (operators, subjects) in &sizes {
        println!("{operators:>9} {}", ways(subjects));
    }
    println!("records kept: of those that could be placed; refused: by narrowing; Z3: cases in which it was asked\n");
}

/// The first inputs in order of their seeds that, cut short, have so many operators.
fn subjects(operators: usize) -> Vec<Subject> {
    let subject = |seed| {
        let whole = input::random(seed, (operators * 3 / 2 + 2).min(MAX_OPERATORS));
        let cut = |records: usize| Input { records: whole.records[..records].to_vec(), ..whole };
        let nodes = |records: usize| case::generate(&cut(records)).model.nodes.len();
        // A longer input never has fewer operators.
        let lengths: Vec<usize> = (0..=whole.records.len()).collect();
        let records = lengths.partition_point(|&records| nodes(records) < operators);
        if records > whole.records.len() {
            return None;
        }
        let input = cut(records);
        let generated = case::generate(&input);
        if generated.model.nodes.len() != operators {
            return None;
        }
        let mut model = generated.model.clone();
        let found = search::fit(&mut model, generated.seed).expect("the reference follows its specification");
        Some(Subject { bytes: input.encode(), generated, valid: found.values.map(|_| (model, found.data)) })
    };
    (0..).filter_map(subject).take((OPERATORS_IN_ALL / operators).min(MAX_INPUTS)).collect()
}

fn to_onnx(subject: &Subject) {
    let Generated { model, seed, .. } = case::generate(&Input::decode(&subject.bytes));
    black_box(onnx::encode(&model, &model.sample(seed, 0)));
}

fn search_inputs(Subject { generated, .. }: &Subject) {
    let _ = black_box(search::fit(&mut generated.model.clone(), generated.seed));
}

fn expect(Subject { valid, .. }: &Subject) {
    if let Some((model, data)) = valid {
        let defect = "the reference follows its specification";
        let wide = reference::run(model, data, Precision::Wide).expect(defect);
        black_box(Expectation::new(model, data, &wide).expect(defect));
    }
}

/// The shares of the last table.
fn ways(subjects: &[Subject]) -> String {
    let fates = || subjects.iter().flat_map(|subject| &subject.generated.fates);
    let kept = fates().filter(|fate| fate.is_ok()).count();
    let lost = |skip: &Skip| matches!(skip, Skip::Unsolvable | Skip::SolverGaveUp | Skip::TooLarge | Skip::Pattern);
    let lost = fates().filter(|fate| fate.as_ref().is_err_and(lost)).count();
    let tallies = || subjects.iter().map(|subject| subject.generated.tally);
    let questions = |tally: Tally| tally.by_solver + tally.refused_by_solver;
    let sum = |count: fn(Tally) -> usize| tallies().map(count).sum::<usize>();
    let by_hints = sum(|tally| tally.by_hints);
    let by_repair = sum(|tally| tally.by_repair);
    let by_narrowing = sum(|tally| tally.by_narrowing);
    let hopeless = sum(|tally| tally.hopeless);
    let all = by_hints + by_repair + by_narrowing + hopeless + tallies().map(questions).sum::<usize>();
    let asked = tallies().filter(|&tally| questions(tally) > 0).count();
    let valid = subjects.iter().filter(|subject| subject.valid.is_some()).count();
    let percent = |part: usize, whole: usize| format!("{:.1} %", 100.0 * part as f64 / whole as f64);
    format!(
        "{:>12} {:>14} {:>10} {:>10} {:>8} {:>8} {:>8}",
        percent(kept, kept + lost),
        percent(by_hints, all),
        percent(by_repair, all),
        percent(by_narrowing, all),
        percent(hopeless, all),
        percent(asked, subjects.len()),
        percent(valid, subjects.len())
    )
}
