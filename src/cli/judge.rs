//! Verdicts as tables and as JSON.

use super::{Exit, Result, json, one_line, table};
use graphsmith::backend::Failure;
use graphsmith::backend::process::Limits;
use graphsmith::case::Case;
use graphsmith::finding::{Finding, symptom};
use graphsmith::harness::{Harness, Part, Verdict};
use graphsmith::known::Place;
use graphsmith::oracle::{Kind, Outcome, Wrong};
use graphsmith::tensor::TensorData;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What every command that judges takes.
#[derive(clap::Args)]
pub struct Arguments {
    /// Use only this backend (may be repeated)
    #[arg(long, value_name = "ID")]
    pub backend: Vec<String>,
    /// Report known issues as well
    #[arg(long)]
    pub no_known: bool,
    /// Run backends in this process, for a debugger; by default each has a process of its own, which it may take with it
    #[arg(long)]
    in_process: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn harness(&self) -> Result<Harness> {
        match self.in_process {
            true => super::harness(&self.backend, self.no_known),
            false => super::isolated_harness(&self.backend, self.no_known, Limits::DEFAULT),
        }
    }
}

/// The word on one file.
pub struct Report {
    /// One of `agree`, `known`, `skip`, `finding`, `disagree`.
    pub verdict: &'static str,
    pub notes: Vec<String>,
    pub rows: Vec<Row>,
    pub finding: Option<Box<Finding>>,
}

/// The answer of one backend at one level.
#[derive(serde::Serialize)]
pub struct Row {
    pub backend: String,
    /// This and the level are empty for outputs that another runtime has computed.
    pub version: String,
    pub level: String,
    /// `agrees`, `differs`, `unsupported` or `known`; without a reference `group A`, `refused` and so on.
    pub answer: String,
    /// How it differs, why it is unsupported, or the id of the known issue.
    pub detail: String,
    /// The kind of the difference.
    pub kind: Option<Kind>,
}

impl Row {
    pub fn new(harness: &Harness, outcome: &Outcome, answer: impl Into<String>, detail: String) -> Row {
        let version = harness.target(outcome.backend).version.clone();
        let level = outcome.level.to_string();
        Row {
            backend: outcome.backend.to_owned(),
            version,
            level,
            answer: answer.into(),
            detail: one_line(&detail),
            kind: None,
        }
    }
}

/// Runs a case everywhere and judges it.
pub fn case(harness: &mut Harness, case: &Case) -> Result<Report> {
    let answers = harness.answers(case);
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    for part in answers.parts(case) {
        let context = part.context().map_or_else(String::new, |context| format!(", {context}"));
        notes.push(format!("{}{context}", judged(part.case)));
        rows.extend(self::rows(harness, &part));
    }
    let (verdict, finding) = match harness.verdict(case, &answers)? {
        Verdict::Agree => ("agree", None),
        Verdict::Known(_) => ("known", None),
        Verdict::Skip(_) => ("skip", None),
        Verdict::Bug(finding) => ("finding", Some(finding)),
    };
    Ok(Report { verdict, notes, rows, finding })
}

fn judged(case: &Case) -> String {
    format!("{} of {} output elements are judged", case.expectation.judged, case.expectation.elements)
}

/// Judges what another runtime has computed: a row for each output that is wrong. The known issues are those of the
/// backends of this build and explain nothing here.
pub fn foreign(case: &Case, runtime: String, outputs: Vec<TensorData>) -> Report {
    let row = |answer: &str, detail: String, kind| Row {
        backend: runtime.clone(),
        version: String::new(),
        level: String::new(),
        answer: answer.to_owned(),
        detail,
        kind,
    };
    let wrong = case.expectation.judge_each(&Ok(outputs));
    let differing = wrong.iter().map(|wrong| row("differs", symptom(case, wrong), Some(wrong.kind())));
    let (verdict, rows) = match wrong.is_empty() {
        true => ("agree", vec![row("agrees", String::new(), None)]),
        false => ("finding", differing.collect()),
    };
    Report { verdict, notes: vec![judged(case)], rows, finding: None }
}

/// A row for each answer.
fn rows(harness: &mut Harness, part: &Part) -> Vec<Row> {
    let case = part.case;
    let mut rows = Vec::new();
    for outcome in part.outcomes {
        let version = harness.target(outcome.backend).version.clone();
        let at = Place { backend: outcome.backend, version: &version, level: outcome.level };
        let wrong = case.expectation.judge_each(&outcome.result);
        let unexplained = wrong.iter().find(|wrong| harness.known.explaining(at, wrong, &case.model).is_none());
        let (answer, detail) = match (&outcome.result, unexplained, wrong.first()) {
            (Err(Failure::Unsupported(reason)), _, _) => ("unsupported", reason.clone()),
            (_, _, None) => ("agrees", String::new()),
            (_, Some(wrong), _) => ("differs", symptom(case, wrong)),
            (_, None, Some(wrong)) => {
                let id = harness.known.explain(at, wrong, &case.model).map_or("", |issue| &issue.id);
                ("known", format!("{id}: {}", symptom(case, wrong)))
            }
        };
        let kind = unexplained.or(wrong.first()).map(Wrong::kind);
        rows.push(Row { kind, ..Row::new(harness, outcome, answer, detail) });
    }
    rows
}

/// Reports on each file. The exit code is that of the worst.
pub fn files(
    files: &[PathBuf],
    arguments: &Arguments,
    out: &mut dyn Write,
    mut one: impl FnMut(&Path) -> Result<Report>,
) -> Result<Exit> {
    let mut exit = Exit::Fine;
    let mut all = Vec::new();
    for file in files {
        let report = one(file)?;
        exit = exit.max(report.exit());
        if arguments.json {
            all.push(report.json(file));
        } else {
            report.print(file, out)?;
            // The next file may take long, or a backend may take the process with it.
            out.flush()?;
        }
    }
    if arguments.json {
        json(out, &Value::from(all))?;
    }
    Ok(exit)
}

impl Report {
    pub fn skipped(reason: &str) -> Report {
        Report { verdict: "skip", notes: vec![reason.to_owned()], rows: Vec::new(), finding: None }
    }

    fn exit(&self) -> Exit {
        if matches!(self.verdict, "finding" | "disagree") { Exit::Finding } else { Exit::Fine }
    }

    fn print(&self, file: &Path, out: &mut dyn Write) -> io::Result<()> {
        let verdict = match self.verdict {
            "agree" => "all answers agree",
            "known" => "known issues only",
            "skip" => "nothing judged",
            "finding" => "FINDING",
            _ => "DISAGREEMENT",
        };
        writeln!(out, "{}: {verdict}", file.display())?;
        for note in &self.notes {
            writeln!(out, "  {note}")?;
        }
        let cells = |row: &Row| {
            [&format!("  {}", row.backend), &row.version, &row.level, &row.answer, &row.detail]
                .map(String::from)
                .to_vec()
        };
        table(out, &self.rows.iter().map(cells).collect::<Vec<_>>())?;
        match &self.finding {
            Some(finding) => writeln!(out, "\n{finding}"),
            None => Ok(()),
        }
    }

    fn json(&self, file: &Path) -> Value {
        let finding = self.finding.as_ref().map(|finding| {
            json!({
                "backend": finding.backend, "version": finding.version, "level": finding.level, "kind": finding.kind,
                "signature": finding.signature, "symptom": finding.symptom, "culprit": finding.culprit,
                "cause": finding.cause,
                "graph": finding.graph, "blame": finding.blame, "context": finding.context,
            })
        });
        json!({
            "file": file, "verdict": self.verdict, "notes": self.notes, "answers": self.rows, "finding": finding,
        })
    }
}
