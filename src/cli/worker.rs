//! The child process of `graphsmith probe`: runs the cases of one operator and reports each run on stdout, so that a
//! backend that takes the process with it costs one run.

use super::{Error, Exit, Result, harness};
use graphsmith::backend::{Failure, Level};
use graphsmith::case::{Case, Generated};
use graphsmith::dtype::ANY;
use graphsmith::graph;
use graphsmith::harness::{Harness, Target};
use graphsmith::input;
use graphsmith::known::Place;
use graphsmith::ops::control::Construct;
use graphsmith::ops::{Choice, math};
use graphsmith::reference::largest_integer;
use graphsmith::schema;
use graphsmith::support::Focus;
use graphsmith::swarm::Swarm;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};

/// Runs the probes of one operator
#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    pub operator: String,
    /// The version of the operator
    #[arg(long)]
    pub version: i64,
    #[arg(long)]
    pub backend: Vec<String>,
    #[arg(long)]
    pub count: u64,
    /// The case to begin with
    #[arg(long)]
    pub case: u64,
    /// The run of that case to begin with
    #[arg(long)]
    pub run: usize,
}

/// One line of the report. What is begun and not followed by an end has taken the process with it.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// Making a case begins.
    Case(u64),
    /// A run begins: its number within the case, and what it probes.
    Run { run: usize, backend: String, form: String },
    /// How the run ended.
    End(End),
}

/// What a backend made of a model.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    Ran,
    Refused(String),
    /// Says nothing about support: a crash, or an answer that is no tensor.
    Broke(String),
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let unknown = || Error::Usage(format!("there is no operator `{}`", arguments.operator));
    let subject = Choice::by_name(&arguments.operator).ok_or_else(unknown)?;
    let harness = harness(&arguments.backend, false)?;
    for number in arguments.case..arguments.count {
        say(out, &Line::Case(number))?;
        // A defect of the specification is found by its own tests.
        let Ok(Ok(case)) = Case::new(generate(subject, arguments.version, number)) else { continue };
        let first = if number == arguments.case { arguments.run } else { 0 };
        probe(&harness, &case, first, out)?;
    }
    Ok(Exit::Fine)
}

/// A model of one operator; the same number gives the same model. Every other one has any element type, with equal chance.
fn generate(subject: Choice, version: i64, number: u64) -> Generated {
    let records = if matches!(subject, Choice::Control(_)) { 2 } else { 1 };
    let mut input = input::random(number << 8 | u64::from(subject.code()), records);
    // Forms that a table now excludes must be probed again.
    // Records are told apart by their text.
    input.records[0][0] = 0;
    let first = input.records[0];
    let plain = Swarm::new(&input.header);
    let opsets: Vec<i64> = schema::opsets(subject.name(), version).filter(|&opset| opset >= subject.since()).collect();
    let opset = opsets[number as usize % opsets.len()];
    let dtypes = if number.is_multiple_of(2) { plain.dtypes } else { ANY };
    let swarm = Swarm { focus: Focus::NONE, opset, dtypes, ..plain };
    // Control flow needs a value to begin with, and a branch something to hold.
    let company = Choice::Operator(&math::ADD);
    let graph = match subject {
        Choice::Control(Construct::If) => {
            graph::grow_with(&swarm, &input.records, |record| if record == &first { subject } else { company })
        }
        Choice::Control(_) => {
            graph::grow_with(&swarm, &input.records, |record| if record == &first { company } else { subject })
        }
        _ => graph::grow_with(&swarm, &input.records, |_| subject),
    };
    Generated::new(graph, &swarm)
}

fn probe(harness: &Harness, case: &Case, first: usize, out: &mut dyn Write) -> io::Result<()> {
    let form = match case.model.regions.first() {
        Some(region) => region.form(&case.model),
        None => case.model.form(&case.model.nodes[0]),
    };
    let inputs = case.model.input_data(&case.data);
    let largest = largest_integer(&case.model, &case.wide);
    let runs = harness.targets.iter().flat_map(|target| Level::ALL.map(|level| (target, level)));
    for (run, (target, level)) in runs.enumerate().skip(first) {
        let beyond = target.backend.integer_limit().is_some_and(|limit| largest > limit);
        if beyond || known_fatal(harness, target, level, case) {
            continue;
        }
        let backend = target.backend.id().to_owned();
        say(out, &Line::Run { run, backend, form: form.clone() })?;
        let result = target.backend.compile(&case.onnx, level).and_then(|mut session| session.run(&inputs));
        let end = match result {
            Ok(_) => End::Ran,
            Err(Failure::Refused(reason) | Failure::Unsupported(reason)) => End::Refused(reason),
            Err(failure) => End::Broke(failure.to_string()),
        };
        say(out, &Line::End(end))?;
    }
    Ok(())
}

fn known_fatal(harness: &Harness, target: &Target, level: Level, case: &Case) -> bool {
    let at = Place { backend: target.backend.id(), version: &target.version, level };
    harness.known.clone().forbids(at, &case.model).is_some()
}

fn say(out: &mut dyn Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    writeln!(out)?;
    out.flush()
}
