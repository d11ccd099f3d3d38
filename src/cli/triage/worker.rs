//! The child process of `graphsmith triage`: judges the files that it is told on stdin, one after the other, and says on
//! stdout which backend it is about to enter, so that one that takes the process with it is known by name.

use super::super::{self as cli, Error, Exit, Result, one_line};
use graphsmith::backend::{Backend, Failure, Level, Session, Setting};
use graphsmith::case::{self, Case};
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input::{self, Input};
use graphsmith::limits::MAX_INPUT_BYTES;
use graphsmith::minimise::{self, Minimised, Subject};
use graphsmith::oracle::Kind;
use graphsmith::report::{Report, Style, title};
use graphsmith::tensor::TensorData;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

/// Judges the files named on standard input
#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    pub backend: Vec<String>,
    #[arg(long)]
    pub no_known: bool,
}

/// What the child is told: one line of JSON.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Job {
    pub file: PathBuf,
    /// Steps that an earlier child did not survive: they are not taken again.
    pub lost: Vec<Lost>,
    /// Makes the finding as small as it can be, and writes its report into this folder, which is there; the script has the
    /// model in it, or reads it.
    pub report: Option<(PathBuf, bool)>,
}

/// What the child says: one line of JSON. A step that is not followed by another line has taken the process with it.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The child is ready, with the versions of its backends.
    Ready(Vec<(String, String)>),
    /// A backend is entered.
    Step(Step),
    /// It has come back.
    Back,
    /// The word on the file.
    Word(Word),
}

/// One call of a backend.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The digest of the ONNX bytes.
    model: String,
    pub backend: String,
    pub level: Level,
    /// The number of the setting, 0 for none.
    setting: u8,
    /// 0 compiles, and n is the n-th run.
    run: usize,
}

/// A step that took the process with it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    pub step: Step,
    pub death: Death,
}

/// How a child ended.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Death {
    Crashed(String),
    TimedOut,
    OutOfMemory,
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
    let lost: Rc<RefCell<Vec<Lost>>> = Rc::default();
    let Harness { targets, known, .. } = cli::harness(&arguments.backend, arguments.no_known)?;
    let watched = |backend| Box::new(Watched { backend, lost: lost.clone() }) as Box<dyn Backend>;
    let mut harness = Harness::with(targets.into_iter().map(|target| watched(target.backend)).collect(), known);
    say(&Line::Ready(
        harness.targets.iter().map(|target| (target.backend.id().to_owned(), target.version.clone())).collect(),
    ))?;
    let mut minimiser = Minimiser { arguments, harness: None };
    for job in jobs() {
        lost.replace(job.lost.clone());
        let word =
            one(&mut harness, &mut minimiser, &job).unwrap_or_else(|error| Word::Defect(one_line(&error.to_string())));
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

fn one(harness: &mut Harness, minimiser: &mut Minimiser, job: &Job) -> Result<Word> {
    let bytes = cli::read(&job.file, MAX_INPUT_BYTES)?;
    let input = Input::decode(&bytes);
    let case = match Case::new(case::generate(&input))? {
        Ok(case) => case,
        Err(reason) => return Ok(Word::Skip(reason.to_string())),
    };
    let finding = match harness.judge(&case)? {
        Verdict::Agree => return Ok(Word::Agree),
        Verdict::Skip(reason) => return Ok(Word::Skip(reason.to_string())),
        Verdict::Known(ids) => return Ok(Word::Known(ids)),
        Verdict::Bug(finding) => finding,
    };
    let bucket = finding.signature.clone();
    let Some((folder, inline)) = &job.report else {
        return Ok(Word::Finding(Box::new(found(&Report::new(&case, &finding), bucket))));
    };
    let least = minimiser.minimise(input)?.filter(|least| least.finding.backend == finding.backend);
    let report = match &least {
        Some(least) => Report::new(&least.case, &least.finding),
        None => Report::new(&case, &finding),
    };
    let style = if *inline { Style::Inline } else { Style::Files };
    report.write(folder, Some(&bytes), style).map_err(|source| unwritten(folder, source))?;
    Ok(Word::Finding(Box::new(found(&report, bucket))))
}

/// Backends in processes of their own, since on its way to the least case a crash is met again and again.
struct Minimiser<'a> {
    arguments: &'a Arguments,
    harness: Option<Harness>,
}

impl Minimiser<'_> {
    /// None where the minimiser finds nothing, as with what does not come again.
    fn minimise(&mut self, input: Input) -> Result<Option<Minimised>> {
        if self.harness.is_none() {
            self.harness = Some(cli::isolated_harness(&self.arguments.backend, self.arguments.no_known)?);
        }
        let harness = self.harness.as_mut().expect("it was just made");
        // A sign of life: the limit on time is one for each run.
        let alive = |_| drop(say(&Line::Back));
        match minimise::minimise(harness, Subject::Input(input), alive) {
            Ok(minimised) => Ok(Some(minimised)),
            Err(minimise::Error::Nothing(_)) => Ok(None),
            Err(minimise::Error::Defect(defect)) => Err(Error::Defect(defect)),
        }
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

/// A backend that says when it is entered.
struct Watched {
    backend: Box<dyn Backend>,
    lost: Rc<RefCell<Vec<Lost>>>,
}

impl Watched {
    fn open(
        &self,
        step: Step,
        compile: impl FnOnce() -> std::result::Result<Box<dyn Session>, Failure>,
    ) -> std::result::Result<Box<dyn Session>, Failure> {
        let session = watch(&self.lost, &step, compile)?;
        Ok(Box::new(WatchedSession { session, step, lost: self.lost.clone() }))
    }

    fn step(&self, onnx: &[u8], level: Level, setting: u8) -> Step {
        let model = input::digest(onnx);
        Step { model, backend: self.backend.id().to_owned(), level, setting, run: 0 }
    }
}

struct WatchedSession {
    session: Box<dyn Session>,
    step: Step,
    lost: Rc<RefCell<Vec<Lost>>>,
}

/// Takes a step that no child has died of, else fails as that child did.
fn watch<T>(
    lost: &RefCell<Vec<Lost>>,
    step: &Step,
    run: impl FnOnce() -> std::result::Result<T, Failure>,
) -> std::result::Result<T, Failure> {
    if let Some(lost) = lost.borrow().iter().find(|lost| lost.step == *step) {
        return Err(match &lost.death {
            Death::Crashed(how) => Failure::Crashed(how.clone()),
            Death::TimedOut => Failure::TimedOut,
            Death::OutOfMemory => Failure::OutOfMemory,
        });
    }
    // Whoever listened is gone: the next read of stdin ends the process.
    let _ = say(&Line::Step(step.clone()));
    let result = run();
    let _ = say(&Line::Back);
    result
}

impl Backend for Watched {
    fn id(&self) -> &'static str {
        self.backend.id()
    }

    fn version(&self) -> String {
        self.backend.version()
    }

    fn library(&self) -> Option<PathBuf> {
        self.backend.library()
    }

    fn integer_limit(&self) -> Option<i64> {
        self.backend.integer_limit()
    }

    fn compile(&self, onnx: &[u8], level: Level) -> std::result::Result<Box<dyn Session>, Failure> {
        self.open(self.step(onnx, level, 0), || self.backend.compile(onnx, level))
    }

    fn compile_with(&self, onnx: &[u8], setting: Setting) -> Option<std::result::Result<Box<dyn Session>, Failure>> {
        let number = match setting {
            Setting::Threads => 1,
            Setting::Reloaded => 2,
        };
        let absent = RefCell::new(false);
        let session = self.open(self.step(onnx, Level::On, number), || {
            self.backend.compile_with(onnx, setting).unwrap_or_else(|| {
                absent.replace(true);
                Err(Failure::Unsupported(String::new()))
            })
        });
        (!absent.take()).then_some(session)
    }
}

impl Session for WatchedSession {
    fn run(&mut self, inputs: &[TensorData]) -> std::result::Result<Vec<TensorData>, Failure> {
        self.step.run += 1;
        watch(&self.lost, &self.step, || self.session.run(inputs))
    }
}
