//! `graphsmith triage`: the artifacts of any number of runs, sorted into one report for each bug.

use super::{Error, Exit, Result, progress, read};
use child::{Limits, Worker};
use graphsmith::input::digest;
use graphsmith::known::Known;
use graphsmith::limits::MAX_INPUT_BYTES;
use graphsmith::report;
use indicatif::ProgressBar;
use reproduce::Python;
use state::{Entry, Ran, State, Written};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};
use worker::{Found, Job, Word};

mod child;
mod index;
mod reproduce;
mod state;
pub mod worker;

/// What libFuzzer calls the inputs that it saves.
const ARTIFACTS: [&str; 5] = ["crash-", "timeout-", "oom-", "leak-", "slow-unit-"];
/// How often the state is saved. What is lost with the process is judged again.
const SAVED_EVERY: Duration = Duration::from_secs(2);
/// The page of all reports.
const INDEX: &str = "index.html";

/// Sort what runs have found into one report for each bug
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith triage fuzz/artifacts --out findings
  graphsmith triage run1 run2 --out findings --python venv/bin/python

Takes files named crash-*, timeout-*, oom-*, leak-* and slow-unit-* in the folders and below, and any file that is named
itself. Each is judged in a child process that a backend may take with it. Files with one signature are one bug: the
smallest of them becomes a report folder, whose script is run if it can be. OUT/index.html lists all.

Stopped at any moment, it goes on where it was when it is called again. Exit code 1 when there is a finding.")]
pub struct Arguments {
    /// Folders with artifacts of libFuzzer, or files with inputs
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// The folder for the reports
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Files that are judged at the same time [default: one for each core]
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Seconds that one call of a backend may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// MiB that judging one file may take
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(256..))]
    memory: u64,
    /// The Python with onnx, numpy and onnxruntime that runs the scripts [default: .native/venv/bin/python, python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    #[command(flatten)]
    worker: worker::Arguments,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let files = artifacts(&arguments.dirs)?;
    fs::create_dir_all(&arguments.out).map_err(|source| Error::Write { path: arguments.out.clone(), source })?;
    let mut state = State::read(&arguments.out)?;
    let mut triage = Triage { arguments, judge: Vec::new() };
    triage.judge = triage.judge()?;
    if state.judge != triage.judge {
        // Other backends may say otherwise. Reports are written anew where they are needed.
        state = State { judge: triage.judge.clone(), reports: state.reports, ..State::default() };
        state.reports.values_mut().for_each(|written| written.input.clear());
    }
    let new = news(&files, &state)?;
    let (known_before, total) = (files.len() - new.len(), files.len());
    triage.judge_all(&mut state, new)?;
    triage.report_all(&mut state)?;
    let known = if arguments.worker.no_known { Known::default() } else { Known::built_in()? };
    state::replace(&arguments.out.join(INDEX), index::page(&state, &known, &arguments.out).as_bytes())?;
    tell(&state, total, known_before, &arguments.out, out)?;
    Ok(if state.bugs().is_empty() { Exit::Fine } else { Exit::Finding })
}

/// The files to be judged, sorted.
fn artifacts(dirs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for dir in dirs {
        if dir.is_file() {
            files.push(dir.clone());
        } else {
            below(dir, &mut files)?;
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn below(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |source| Error::Read { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A link to a folder above would never end.
        if path.is_dir() && !path.is_symlink() {
            below(&path, files)?;
        } else if path.is_file() && ARTIFACTS.iter().any(|artifact| name.starts_with(artifact)) {
            files.push(path);
        }
    }
    Ok(())
}

/// An input that the state does not know.
struct New {
    file: PathBuf,
    digest: String,
    bytes: u64,
    seen: u64,
}

fn news(files: &[PathBuf], state: &State) -> Result<Vec<New>> {
    let mut new: BTreeMap<String, New> = BTreeMap::new();
    for file in files {
        let bytes = read(file, MAX_INPUT_BYTES)?;
        let digest = digest(&bytes);
        let changed = fs::metadata(file).and_then(|data| data.modified()).ok();
        let seen = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |time| time.as_secs());
        if !state.inputs.contains_key(&digest) {
            let input = New { file: file.clone(), digest: digest.clone(), bytes: bytes.len() as u64, seen };
            new.entry(digest).or_insert(input);
        }
    }
    Ok(new.into_values().collect())
}

struct Triage<'a> {
    arguments: &'a Arguments,
    judge: Vec<String>,
}

impl Triage<'_> {
    fn limits(&self) -> Limits {
        Limits { time: Duration::from_secs(self.arguments.timeout), memory_bytes: self.arguments.memory << 20 }
    }

    /// What judges: with other versions or another list of known issues every input is judged anew.
    fn judge(&self) -> Result<Vec<String>> {
        let mut worker = Worker::new(&self.arguments.worker, self.limits());
        worker.start()?;
        let mut judge = vec![format!("graphsmith {}", env!("CARGO_PKG_VERSION"))];
        judge.extend(worker.backends.iter().map(|(backend, version)| format!("{backend} {version}")));
        let known = if self.arguments.worker.no_known { "none".to_owned() } else { digest(Known::TEXT.as_bytes()) };
        judge.push(format!("known issues {known}"));
        judge.push(format!("limits {} s, {} MiB", self.arguments.timeout, self.arguments.memory));
        Ok(judge)
    }

    /// Does `work` on each item, with a child process for each core; `done` gets the results as they come.
    fn each<T: Send, R: Send>(
        &self,
        items: Vec<T>,
        work: impl Fn(&mut Worker, T) -> Result<R> + Sync,
        mut done: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let jobs = self.arguments.jobs.map_or(cores, NonZero::get).min(items.len());
        let queue = Mutex::new(items.into_iter());
        let (sender, results) = mpsc::sync_channel(jobs.max(1));
        thread::scope(|scope| {
            for _ in 0..jobs {
                let (sender, queue, work) = (sender.clone(), &queue, &work);
                scope.spawn(move || {
                    let mut worker = Worker::new(&self.arguments.worker, self.limits());
                    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    while let Some(item) = next() {
                        let result = work(&mut worker, item);
                        if sender.send(result).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            // The first error ends all: the others find nobody who takes their results.
            let outcome = results.iter().try_for_each(|result| done(result?));
            drop(results);
            outcome
        })
    }

    fn judge_all(&self, state: &mut State, new: Vec<New>) -> Result<()> {
        let bar = progress(new.len() as u64, "files");
        let mut saved = Instant::now();
        let work = |worker: &mut Worker, new: New| {
            let job = Job { file: new.file.clone(), lost: Vec::new(), report: None };
            let (word, lost) = worker.judge(job)?;
            Ok((new.digest, Entry { file: new.file, bytes: new.bytes, seen: new.seen, word, lost }))
        };
        self.each(new, work, |(digest, entry): (String, Entry)| {
            state.inputs.insert(digest, entry);
            bar.inc(1);
            bar.set_message(format!("{} signatures", state.buckets().len()));
            if saved.elapsed() > SAVED_EVERY {
                state.write(&self.arguments.out)?;
                saved = Instant::now();
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        state.write(&self.arguments.out)
    }

    /// Writes the report of every bucket whose smallest input has no report yet.
    fn report_all(&self, state: &mut State) -> Result<()> {
        self.remove_old(state)?;
        let current = |signature: &str, input: &str| {
            let written = state.reports.get(signature);
            written
                .is_some_and(|it| it.input == input && self.arguments.out.join(&it.folder).join("README.md").exists())
        };
        let missing: Vec<Wanted> = state
            .buckets()
            .into_iter()
            .filter(|(signature, bucket)| !current(signature, bucket.digest))
            .map(|(signature, bucket)| Wanted {
                signature: signature.to_owned(),
                digest: bucket.digest.to_owned(),
                job: Job { file: bucket.smallest.file.clone(), lost: bucket.smallest.lost.clone(), report: None },
            })
            .collect();
        let bar = progress(missing.len() as u64, "reports");
        let python = Python::find(self.arguments.python.as_deref());
        let work = |worker: &mut Worker, wanted: Wanted| {
            let written = self.report(worker, &wanted, &python)?;
            Ok((wanted, written))
        };
        self.each(missing, work, |(wanted, written): (Wanted, Option<(Ran, Found)>)| {
            bar.inc(1);
            let Some((ran, found)) = written else { return self.tell_lost(&wanted, &bar) };
            let folder = folder_name(&found.signature, &wanted.signature);
            let old = state.reports.get(&wanted.signature).filter(|old| old.folder != folder);
            old.map_or(Ok(()), |old| remove(&self.arguments.out.join(&old.folder)))?;
            let written = Written { folder, input: wanted.digest, ran, found };
            state.reports.insert(wanted.signature, written);
            state.write(&self.arguments.out)
        })?;
        bar.finish_and_clear();
        Ok(())
    }

    fn tell_lost(&self, wanted: &Wanted, bar: &ProgressBar) -> Result<()> {
        let file = wanted.job.file.display();
        bar.suspend(|| writeln!(io::stderr(), "{file}: found otherwise the second time, or gone: it has no report"))
            .map_err(Error::Output)
    }

    /// Removes the reports of buckets that are no more: their bugs are known now, or gone with a new version.
    fn remove_old(&self, state: &mut State) -> Result<()> {
        let kept: Vec<String> = state.buckets().into_keys().map(str::to_owned).collect();
        let gone: Vec<String> = state.reports.keys().filter(|&it| !kept.contains(it)).cloned().collect();
        for signature in gone {
            if let Some(written) = state.reports.remove(&signature) {
                remove(&self.arguments.out.join(written.folder))?;
            }
        }
        Ok(())
    }

    /// Writes a report under another name, runs its script, and then gives it its name, so that a folder that is there is
    /// whole. None: the input is found otherwise the second time.
    fn report(
        &self,
        worker: &mut Worker,
        wanted: &Wanted,
        python: &std::result::Result<Python, String>,
    ) -> Result<Option<(Ran, Found)>> {
        let partial = self.arguments.out.join(format!(".{}.partial", digest(wanted.signature.as_bytes())));
        let failed = |source| Error::Write { path: partial.clone(), source };
        let mut told = None;
        // What needs the very bytes of the model is shown by the second script.
        for inline in [true, false] {
            remove(&partial)?;
            fs::create_dir_all(&partial).map_err(failed)?;
            let job = Job { report: Some((partial.clone(), inline)), ..wanted.job.clone() };
            let (Word::Finding(found), _) = worker.judge(job)? else { break };
            if found.bucket != wanted.signature {
                break;
            }
            let ran = run(&partial, &found, python).map_err(failed)?;
            let again = matches!(ran, Ran::ShowsNot(_));
            told = Some((ran, *found));
            if !again {
                break;
            }
        }
        let Some((ran, found)) = told else {
            remove(&partial)?;
            return Ok(None);
        };
        reproduce::tell(&partial, &ran, &needs(&partial, &found)).map_err(failed)?;
        let whole = self.arguments.out.join(folder_name(&found.signature, &wanted.signature));
        remove(&whole)?;
        fs::rename(&partial, &whole).map_err(failed)?;
        Ok(Some((ran, found)))
    }
}

/// A report to be written.
struct Wanted {
    signature: String,
    digest: String,
    job: Job,
}

fn run(folder: &Path, found: &Found, python: &std::result::Result<Python, String>) -> io::Result<Ran> {
    if !folder.join(reproduce::SCRIPT).exists() {
        return Ok(Ran::NotRun(format!("it would have to be built with the crates of {}", found.backend)));
    }
    match python {
        Ok(python) => python.run(folder, &found.version),
        Err(reason) => Ok(Ran::NotRun(reason.clone())),
    }
}

fn needs(folder: &Path, found: &Found) -> String {
    if folder.join(reproduce::SCRIPT).exists() {
        format!("`pip install onnx numpy onnxruntime=={}` and `python {}`", found.version, reproduce::SCRIPT)
    } else {
        format!("make a package of it as its first lines say, and `cargo run` that beside {}", report::MODEL)
    }
}

/// A name for a folder that tells the signature of a report, and is no other bucket's.
fn folder_name(signature: &str, bucket: &str) -> String {
    const LONGEST: usize = 60;
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let words: String = signature.chars().map(plain).collect();
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
    let words: String = words.join("-").chars().take(LONGEST).collect();
    format!("{words}-{}", &digest(bucket.as_bytes())[..6])
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Write { path: folder.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn tell(state: &State, total: usize, judged_before: usize, folder: &Path, out: &mut dyn Write) -> Result<()> {
    let count = |is: fn(&Word) -> bool| state.inputs.values().filter(|entry| is(&entry.word)).count();
    let findings = count(|word| matches!(word, Word::Finding(_)));
    let known = count(|word| matches!(word, Word::Known(_)));
    let fine = count(|word| matches!(word, Word::Agree | Word::Skip(_)));
    let defects = count(|word| matches!(word, Word::Defect(_)));
    writeln!(
        out,
        "{total} files, {judged_before} of them judged before or twice there; {} inputs in all",
        state.inputs.len()
    )?;
    writeln!(
        out,
        "{findings} findings, {known} with known issues only, {fine} agree, {defects} defects of graphsmith"
    )?;
    let bugs = state.bugs();
    let shown = |is: fn(&Ran) -> bool| bugs.iter().filter_map(|bug| bug.written).filter(|it| is(&it.ran)).count();
    writeln!(
        out,
        "{} bugs: {} scripts show theirs, {} do not, {} were not run",
        bugs.len(),
        shown(|ran| *ran == Ran::Shows),
        shown(|ran| matches!(ran, Ran::ShowsNot(_))),
        shown(|ran| matches!(ran, Ran::NotRun(_)))
    )?;
    for bug in &bugs {
        let report = bug.written.map_or("no report", |written| &written.folder);
        writeln!(out, "{:6}  {}  {report}", bug.meetings, bug.found.signature)?;
    }
    writeln!(out, "{}", folder.join(INDEX).display())?;
    Ok(())
}
