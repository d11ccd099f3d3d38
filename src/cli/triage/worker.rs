//! The child process of `graphsmith triage`: judges the files that it is told on stdin, one after the other, with backends
//! in processes of their own, and says its word on stdout.

use super::super::{self as cli, Error, Exit, Result, one_line};
use graphsmith::backend::Level;
use graphsmith::backend::process::Limits;
use graphsmith::case::{self, Case};
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input::Input;
use graphsmith::limits::MAX_INPUT_BYTES;
use graphsmith::minimise::{self, Minimised, Subject};
use graphsmith::oracle::Kind;
use graphsmith::report::{Report, Style, title};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Judges the files named on standard input
#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    pub backend: Vec<String>,
    /// Report known issues as well
    #[arg(long)]
    pub no_known: bool,
    /// Seconds that one call of a backend may take
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::DEFAULT.time.as_secs(), value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// MiB that a backend may take
    #[arg(long, value_name = "MIB", default_value_t = Limits::DEFAULT.memory_bytes >> 20, value_parser = clap::value_parser!(u64).range(256..))]
    pub memory: u64,
}

impl Arguments {
    /// For one call of a backend.
    pub fn limits(&self) -> Limits {
        Limits { time: Duration::from_secs(self.timeout), memory_bytes: self.memory << 20 }
    }
}

/// What the child is told: one line of JSON.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Job {
    pub file: PathBuf,
    /// Makes the finding as small as it can be, and writes its report into this folder, which is there; the script has the
    /// model in it, or reads it.
    pub report: Option<(PathBuf, bool)>,
}

/// What the child says: one line of JSON.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The child is ready, with the versions of its backends.
    Ready(Vec<(String, String)>),
    /// It is still at work.
    Alive,
    /// The word on the file.
    Word(Word),
}

/// The word on one file.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    Agree,
    /// Every difference is explained by these known issues.
    Known(Vec<String>),
    /// The input gives no case.
    Skip(String),
    Finding(Box<Found>),
    /// graphsmith is at fault.
    Defect(String),
}

/// A finding in short.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The signature of the input's own finding, which is quickly told.
    pub bucket: String,
    /// That of the minimised one in a report, else the same.
    pub signature: String,
    pub title: String,
    pub backend: String,
    pub version: String,
    pub level: Level,
    pub kind: Kind,
    pub culprit: Option<String>,
    /// The part of the backend that is to blame, in a report.
    pub cause: Option<String>,
    pub operators: usize,
    pub symptom: String,
    pub context: Option<String>,
}

pub fn main(arguments: &Arguments, _: &mut dyn Write) -> Result<Exit> {
    let mut harness = cli::isolated_harness(&arguments.backend, arguments.no_known, arguments.limits())?;
    say(&Line::Ready(
        harness.targets.iter().map(|target| (target.backend.id().to_owned(), target.version.clone())).collect(),
    ))?;
    for job in jobs() {
        let word = one(&mut harness, &job).unwrap_or_else(|error| Word::Defect(one_line(&error.to_string())));
        say(&Line::Word(word))?;
    }
    Ok(Exit::Fine)
}

/// What stdin says. Its end ends the process, also one that hangs: nobody listens to it any more.
fn jobs() -> mpsc::Receiver<Job> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(io::Result::ok) {
            if let Ok(job) = serde_json::from_str(&line) {
                let _ = sender.send(job);
            }
        }
        std::process::exit(0)
    });
    receiver
}

fn say(line: &Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    // A library may have left half a line.
    let text = serde_json::to_string(line)?;
    writeln!(out, "\n{text}")?;
    out.flush()
}

fn one(harness: &mut Harness, job: &Job) -> Result<Word> {
    let bytes = cli::read(&job.file, MAX_INPUT_BYTES)?;
    let input = Input::decode(&bytes);
    let case = match Case::new(case::generate(&input))? {
        Ok(case) => case,
        Err(reason) => return Ok(Word::Skip(reason.to_string())),
    };
    let mut verdict = harness.judge(&case)?;
    // What has taken its process with it must do so in a new one, that no earlier file has harmed.
    if matches!(&verdict, Verdict::Bug(finding) if finding.kind.ends_process()) {
        verdict = harness.judge(&case)?;
    }
    let finding = match verdict {
        Verdict::Agree => return Ok(Word::Agree),
        Verdict::Skip(reason) => return Ok(Word::Skip(reason.to_string())),
        Verdict::Known(ids) => return Ok(Word::Known(ids)),
        Verdict::Bug(finding) => finding,
    };
    let bucket = finding.signature.clone();
    let Some((folder, inline)) = &job.report else {
        return Ok(Word::Finding(Box::new(found(&Report::new(&case, &finding), bucket))));
    };
    let least = minimise(harness, input)?.filter(|least| least.finding.backend == finding.backend);
    let report = match &least {
        Some(least) => Report::new(&least.case, &least.finding),
        None => Report::new(&case, &finding),
    };
    let style = if *inline { Style::Inline } else { Style::Files };
    report.write(folder, Some(&bytes), style).map_err(|source| unwritten(folder, source))?;
    Ok(Word::Finding(Box::new(found(&report, bucket))))
}

/// None where the minimiser finds nothing, as with what does not come again.
fn minimise(harness: &mut Harness, input: Input) -> Result<Option<Minimised>> {
    // The limit on time is one for each run.
    let alive = |_| drop(say(&Line::Alive));
    match minimise::minimise(harness, Subject::Input(input), alive) {
        Ok(minimised) => Ok(Some(minimised)),
        Err(minimise::Error::Nothing(_)) => Ok(None),
        Err(minimise::Error::Defect(defect)) => Err(Error::Defect(defect)),
    }
}

fn unwritten(path: &Path, source: io::Error) -> Error {
    Error::Write { path: path.to_owned(), source }
}

fn found(report: &Report, bucket: String) -> Found {
    let finding = report.finding;
    Found {
        bucket,
        signature: finding.signature.clone(),
        title: title(report),
        backend: finding.backend.clone(),
        version: finding.version.clone(),
        level: finding.level,
        kind: finding.kind,
        culprit: finding.culprit.clone(),
        cause: finding.cause.clone(),
        operators: report.case.model.nodes.len(),
        symptom: one_line(&finding.symptom),
        context: finding.context.clone(),
    }
}
