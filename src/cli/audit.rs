//! `graphsmith audit`: the oracle's own test.

use super::{Exit, Result, json, progress, table};
use graphsmith::audit::{self, Score, Subject};
use graphsmith::backend::Answer;
use graphsmith::case::Case;
use graphsmith::finding::symptom;
use graphsmith::graph;
use graphsmith::input;
use graphsmith::oracle::exceptional;
use graphsmith::tensor::TensorData;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;

/// What of the noticeable faults must be caught.
const GOAL: f64 = 0.99;

/// Test the oracle: invented wrong answers must be caught, and what a correct backend may answer must not be
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith audit --count 2000
  graphsmith audit --count 100000 --honest      only the search for false alarms

A fault is noticeable where it moves an element that is judged by more than two correct backends could differ.
Needs no backend. Exit code 1 when less than 99 % of the noticeable faults are caught, or when there is a false alarm.")]
pub struct Arguments {
    /// The first input's seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many random inputs
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Records of each input: at most so many operators
    #[arg(long, default_value_t = 6)]
    records: usize,
    /// Invent no faults, only answers of correct backends
    #[arg(long)]
    honest: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was counted.
#[derive(Default)]
struct Counts {
    cases: usize,
    elements: usize,
    judged: usize,
    faults: BTreeMap<&'static str, Score>,
    /// By honest variation: answers, and those called wrong.
    honest: BTreeMap<&'static str, (usize, usize)>,
    /// The first false alarm of each variation.
    alarms: Vec<String>,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let mut counts = Counts::default();
    let mut left_over: Vec<TensorData> = Vec::new();
    let bar = progress(arguments.count, "cases");
    for seed in arguments.seed..arguments.seed + arguments.count {
        bar.inc(1);
        let mut input = input::random(seed, arguments.records);
        // The case alone, not its other forms.
        input.header[11] = 0;
        let Ok(case) = Case::build(&input)? else { continue };
        for case in audit::with_lane(case, seed)? {
            left_over = counts.add(&case, seed, &left_over, arguments.honest)?;
        }
    }
    bar.finish_and_clear();
    if arguments.json {
        json(out, &counts.json())?;
    } else {
        counts.print(out)?;
    }
    let fine = counts.alarms.is_empty() && (arguments.honest || counts.score() >= GOAL);
    Ok(if fine { Exit::Fine } else { Exit::Finding })
}

impl Counts {
    /// Adds a case; gives its outputs, which a stale buffer still holds in the next one.
    fn add(&mut self, case: &Case, seed: u64, left_over: &[TensorData], only_honest: bool) -> Result<Vec<TensorData>> {
        let mut subject = Subject::new(case, left_over, seed)?;
        self.cases += 1;
        // Of exceptional values much is silent, and says nothing of the bounds.
        if !exceptional::concerns(&case.data) {
            self.elements += case.expectation.elements;
            self.judged += case.expectation.judged;
        }
        for variation in audit::honest() {
            if let Some(answer) = subject.varied(variation)? {
                self.add_honest(case, seed, variation.name, &answer);
            }
        }
        for fault in audit::faults().filter(|_| !only_honest) {
            let score = self.faults.entry(fault.name).or_default();
            if let Some(answer) = subject.faulty(fault) {
                score.add(&subject, &answer);
            }
        }
        Ok(subject.honest)
    }

    fn add_honest(&mut self, case: &Case, seed: u64, name: &'static str, answer: &Answer) {
        let counts = self.honest.entry(name).or_default();
        counts.0 += 1;
        if let Some(wrong) = case.expectation.judge(answer) {
            counts.1 += 1;
            if counts.1 == 1 {
                let told = symptom(case, &wrong);
                self.alarms.push(format!("{name}, seed {seed}: {told}\n{}", graph::text(&case.model)));
            }
        }
    }

    /// The share of the noticeable faults that are caught.
    fn score(&self) -> f64 {
        self.sum(|score| score.caught) / self.sum(|score| score.noticeable).max(1.0)
    }

    fn sum(&self, count: fn(&Score) -> usize) -> f64 {
        self.faults.values().map(count).sum::<usize>() as f64
    }

    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let cells = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
        let mut rows = vec![cells(["fault", "injected", "changed", "noticeable", "caught"])];
        rows.extend(self.faults.iter().map(|(name, score)| {
            let [injected, changed, noticeable, caught] =
                [score.injected, score.changed, score.noticeable, score.caught].map(|count| count.to_string());
            vec![(*name).to_owned(), injected, changed, noticeable, caught]
        }));
        if !self.faults.is_empty() {
            table(out, &rows)?;
            let hidden = 1.0 - self.sum(|score| score.noticeable) / self.sum(|score| score.changed).max(1.0);
            writeln!(
                out,
                "caught {:.2} % of the noticeable faults of {} kinds; {:.2} % of what changes a judged element is within the bounds\n",
                100.0 * self.score(),
                self.faults.len(),
                100.0 * hidden
            )?;
        }
        let mut rows = vec![["correct backend that", "answers", "false alarms"].map(str::to_owned).to_vec()];
        rows.extend(
            self.honest
                .iter()
                .map(|(name, (answers, alarms))| vec![(*name).to_owned(), answers.to_string(), alarms.to_string()]),
        );
        table(out, &rows)?;
        let share = 100.0 * self.judged as f64 / self.elements.max(1) as f64;
        writeln!(
            out,
            "{} cases; {share:.2} % of the output elements are judged where no input is exceptional",
            self.cases
        )?;
        for alarm in &self.alarms {
            writeln!(out, "\nfalse alarm: {alarm}")?;
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let faults = self.faults.iter().map(|(name, score)| {
            json!({
                "fault": name, "injected": score.injected, "changed": score.changed,
                "noticeable": score.noticeable, "caught": score.caught,
            })
        });
        let honest = self
            .honest
            .iter()
            .map(|(name, (answers, alarms))| json!({ "variation": name, "answers": answers, "false_alarms": alarms }));
        json!({
            "cases": self.cases, "elements": self.elements, "judged": self.judged, "score": self.score(),
            "faults": faults.collect::<Vec<_>>(), "honest": honest.collect::<Vec<_>>(), "false_alarms": self.alarms,
        })
    }
}
