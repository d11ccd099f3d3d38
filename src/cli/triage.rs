//! `graphsmith triage`: the artifacts of any number of runs, sorted into one report for each bug.

use super::{Error, Exit, Result, progress};
use artifacts::{Artifacts, New, news};
use child::Worker;
use graphsmith::input::digest;
use graphsmith::known::Known;
use graphsmith::report;
use indicatif::ProgressBar;
use reproduce::Runners;
use state::{Bucket, Entry, Fickle, Ran, State, Written};
use std::fs;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use worker::{Found, Job, Word};

mod artifacts;
mod child;
mod index;
mod program;
mod releases;
mod reproduce;
mod state;
pub mod worker;

/// How often the state is saved. What is lost with the process is judged again.
const SAVED_EVERY: Duration = Duration::from_secs(2);
/// The page of all reports.
const INDEX: &str = "index.html";
/// The folder of what does not show again.
const FICKLE: &str = "fickle";
/// How the name of a folder ends that is being written.
const PARTIAL: &str = ".partial";

/// Sort what runs have found into one report for each bug
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith triage fuzz/artifacts --out findings
  graphsmith triage run1 run2 --out findings --releases

Takes files named crash-*, timeout-*, oom-*, leak-*, slow-unit-* and running-* in the folders and below, and any file that
is named itself. Each is judged in child processes that a backend may take with it. Files with one signature are one bug:
the least that one of the smallest comes down to becomes a report folder, whose script or program is run. What does not
show again when its report is to be written is kept in OUT/fickle. OUT/index.html lists all.

Programs in Rust are built with the crates of their backend, which takes minutes once and seconds later.

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
    /// The Python with onnx, numpy and onnxruntime that runs the scripts [default: that of scripts/setup, python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Do not build and run the programs of findings in backends that are written in Rust
    #[arg(long)]
    no_programs: bool,
    /// Find the first release of the backend that has each bug, and tell it in the report; downloads releases
    #[arg(long)]
    releases: bool,
    #[command(flatten)]
    worker: worker::Arguments,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let Artifacts { files, others } = Artifacts::of(&arguments.dirs)?;
    fs::create_dir_all(&arguments.out).map_err(|source| Error::Write { path: arguments.out.clone(), source })?;
    let mut state = State::read(&arguments.out)?;
    let mut triage = Triage { arguments, judge: Vec::new() };
    triage.judge = triage.judge()?;
    if state.judge != triage.judge {
        // Other backends may say otherwise. Reports are written anew where they are needed.
        let State { reports, fickle, .. } = state;
        state = State { judge: triage.judge.clone(), reports, fickle, ..State::default() };
        state.reports.values_mut().for_each(|written| written.input.clear());
        state.fickle.values_mut().for_each(|fickle| fickle.tried.clear());
    }
    let new = news(&files, &state)?;
    let (known_before, total) = (files.len() - new.len(), files.len());
    triage.judge_all(&mut state, new)?;
    triage.report_all(&mut state)?;
    if arguments.releases {
        triage.date_all(&state)?;
    }
    let known = if arguments.worker.no_known { Known::default() } else { Known::built_in()? };
    state::replace(&arguments.out.join(INDEX), index::page(&state, &known, &arguments.out).as_bytes())?;
    tell(&state, total, known_before, &arguments.out, out)?;
    if total == 0 && others > 0 {
        writeln!(out, "No file is called as artifacts are, {others} otherwise: name a file itself to have it judged")?;
    }
    let none = state.bugs().is_empty() && state.fickle.is_empty();
    Ok(if none { Exit::Fine } else { Exit::Finding })
}

struct Triage<'a> {
    arguments: &'a Arguments,
    judge: Vec<String>,
}

impl Triage<'_> {
    /// What judges: with other versions or another list of known issues every input is judged anew.
    fn judge(&self) -> Result<Vec<String>> {
        let mut worker = Worker::new(&self.arguments.worker);
        worker.start()?;
        let mut judge = vec![format!("graphsmith {}", env!("CARGO_PKG_VERSION"))];
        judge.extend(worker.backends.iter().map(|(backend, version)| format!("{backend} {version}")));
        let known = if self.arguments.worker.no_known { "none".to_owned() } else { digest(Known::TEXT.as_bytes()) };
        judge.push(format!("known issues {known}"));
        judge.push(format!("limits {} s, {} MiB", self.arguments.worker.timeout, self.arguments.worker.memory));
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
                    let mut worker = Worker::new(&self.arguments.worker);
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
            let job = Job { file: new.file.clone(), report: None };
            let word = worker.judge(&job)?;
            Ok((new.digest, Entry { file: new.file, bytes: new.bytes, seen: new.seen, word }))
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
        let missing: Vec<Wanted> = state.buckets().into_iter().filter_map(|it| self.wanted(state, it)).collect();
        let bar = progress(missing.len() as u64, "reports");
        let out = &self.arguments.out;
        let runners = Runners::new(self.arguments.python.as_deref(), !self.arguments.no_programs, out);
        let work = |worker: &mut Worker, wanted: Wanted| {
            let written = self.report(worker, &wanted, &runners, &bar)?;
            Ok((wanted, written))
        };
        self.each(missing, work, |(wanted, told): (Wanted, Told)| {
            bar.inc(1);
            let old = state.reports.get(&wanted.signature).map(|old| old.folder.clone());
            match told {
                Told::Report(ran, found) => {
                    let folder = folder_name(&found.signature, &wanted.signature);
                    old.filter(|old| *old != folder).map_or(Ok(()), |old| remove(&out.join(old)))?;
                    if let Some(fickle) = state.fickle.remove(&wanted.signature) {
                        remove(&out.join(fickle.folder))?;
                    }
                    let input = wanted.candidates[0].0.clone();
                    state.reports.insert(wanted.signature, Written { folder, input, ran, found: *found });
                }
                Told::Fickle(fickle) => {
                    old.map_or(Ok(()), |old| remove(&out.join(old)))?;
                    state.reports.remove(&wanted.signature);
                    state.fickle.insert(wanted.signature, *fickle);
                }
            }
            state.write(out)
        })?;
        bar.finish_and_clear();
        Ok(())
    }

    /// What is to be done for a bucket; None where its report is there, or its inputs are known to be fickle.
    fn wanted(&self, state: &State, (signature, bucket): (&str, Bucket)) -> Option<Wanted> {
        let (smallest, entry) = bucket.candidates[0];
        let out = &self.arguments.out;
        let written = state.reports.get(signature);
        if written.is_some_and(|it| it.input == smallest && out.join(&it.folder).join(report::README).exists()) {
            return None;
        }
        let fickle = state.fickle.get(signature);
        if fickle.is_some_and(|it| bucket.candidates.iter().all(|(digest, _)| it.tried.iter().any(|old| old == digest)))
        {
            return None;
        }
        let Word::Finding(found) = &entry.word else { return None };
        Some(Wanted {
            signature: signature.to_owned(),
            seen: (**found).clone(),
            candidates: bucket.candidates.iter().map(|(it, entry)| ((*it).to_owned(), entry.file.clone())).collect(),
        })
    }

    /// Has the first bad release of every bug found that is not known yet.
    fn date_all(&self, state: &State) -> Result<()> {
        let folders = state.bugs().into_iter().filter_map(|bug| Some(self.arguments.out.join(&bug.written?.folder)));
        let missing: Vec<PathBuf> = folders.filter(|folder| !folder.join(releases::FILE).exists()).collect();
        let bar = progress(missing.len() as u64, "releases");
        for folder in missing {
            bar.set_message(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
            if let Err(reason) = releases::find(&folder) {
                bar.suspend(|| writeln!(io::stderr(), "{}: {reason}", folder.display())).map_err(Error::Output)?;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Removes the reports of buckets that are no more, whose bugs are known now or gone with a new version, and what a
    /// triage that was killed has left half-written.
    fn remove_old(&self, state: &mut State) -> Result<()> {
        let kept: Vec<String> = state.buckets().into_keys().map(str::to_owned).collect();
        let mut gone = Vec::new();
        let is_kept = |signature: &String| kept.contains(signature);
        state.reports.retain(|signature, written| {
            is_kept(signature) || {
                gone.push(self.arguments.out.join(&written.folder));
                false
            }
        });
        state.fickle.retain(|signature, fickle| {
            is_kept(signature) || {
                gone.push(self.arguments.out.join(&fickle.folder));
                false
            }
        });
        let failed = |source| Error::Read { path: self.arguments.out.clone(), source };
        for entry in fs::read_dir(&self.arguments.out).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') && name.ends_with(PARTIAL) && path.is_dir() {
                gone.push(path);
            }
        }
        gone.iter().try_for_each(|folder| remove(folder))
    }

    /// Minimises the candidates and writes the report of what is least, under another name until it is whole; runs its
    /// script.
    fn report(&self, worker: &mut Worker, wanted: &Wanted, runners: &Runners, bar: &ProgressBar) -> Result<Told> {
        let mut least: Option<(PathBuf, &Path, Found)> = None;
        let mut then = String::new();
        for (input, file) in &wanted.candidates {
            let partial = self
                .arguments
                .out
                .join(format!(".{}{PARTIAL}", digest(format!("{} {input}", wanted.signature).as_bytes())));
            match write(worker, wanted, file, &partial, true)? {
                Ok(found) if least.as_ref().is_none_or(|(_, _, least)| found.operators < least.operators) => {
                    let enough = found.operators == 1;
                    if let Some((old, ..)) = least.replace((partial, file, *found)) {
                        remove(&old)?;
                    }
                    if enough {
                        break;
                    }
                }
                Ok(_) => remove(&partial)?,
                Err(word) => {
                    then = word;
                    remove(&partial)?;
                }
            }
        }
        let Some((partial, file, mut found)) = least else { return self.fickle(wanted, then) };
        let failed = |source| Error::Write { path: partial.clone(), source };
        let mut ran = runners.run(&partial, &found, bar).map_err(failed)?;
        // What needs the very bytes of the model is shown by the second script.
        if matches!(ran, Ran::ShowsNot(_)) && partial.join(reproduce::SCRIPT).exists() {
            match write(worker, wanted, file, &partial, false)? {
                Ok(again) => found = *again,
                Err(then) => {
                    remove(&partial)?;
                    return self.fickle(wanted, then);
                }
            }
            ran = runners.run(&partial, &found, bar).map_err(failed)?;
        }
        reproduce::tell(&partial, &ran, &needs(&partial, &found)).map_err(failed)?;
        let whole = self.arguments.out.join(folder_name(&found.signature, &wanted.signature));
        remove(&whole)?;
        fs::rename(&partial, &whole).map_err(failed)?;
        Ok(Told::Report(ran, Box::new(found)))
    }

    /// Keeps the inputs of a finding that does not come again, and what was seen.
    fn fickle(&self, wanted: &Wanted, then: String) -> Result<Told> {
        let folder = format!("{FICKLE}/{}", folder_name(&wanted.signature, &wanted.signature));
        let path = self.arguments.out.join(&folder);
        let failed = |source| Error::Write { path: path.clone(), source };
        remove(&path)?;
        fs::create_dir_all(&path).map_err(failed)?;
        let seen = &wanted.seen;
        let mut text = format!(
            "# {}\n\nMet once, and not again when it was to be minimised.\n\n- Seen: {} {}, optimisations {}: {}\n- Then: {then}\n",
            seen.title, seen.backend, seen.version, seen.level, seen.symptom
        );
        for (input, file) in &wanted.candidates {
            let name = format!("{}-{input}", report::INPUT);
            fs::copy(file, path.join(&name)).map_err(failed)?;
            text += &format!("- Input: `graphsmith run {name}`, was {}\n", file.display());
        }
        fs::write(path.join(report::README), text).map_err(failed)?;
        let tried = wanted.candidates.iter().map(|(input, _)| input.clone()).collect();
        Ok(Told::Fickle(Box::new(Fickle { folder, tried, found: seen.clone(), then })))
    }
}

/// A report to be written.
struct Wanted {
    signature: String,
    /// What the smallest input has shown.
    seen: Found,
    /// Its smallest inputs, by digest.
    candidates: Vec<(String, PathBuf)>,
}

/// What came of it.
enum Told {
    Report(Ran, Box<Found>),
    Fickle(Box<Fickle>),
}

/// Has the report on an input written into an empty folder; or says what came instead of the finding.
fn write(
    worker: &mut Worker,
    wanted: &Wanted,
    file: &Path,
    folder: &Path,
    inline: bool,
) -> Result<std::result::Result<Box<Found>, String>> {
    remove(folder)?;
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    let job = Job { file: file.to_owned(), report: Some((folder.to_owned(), inline)) };
    Ok(match worker.judge(&job)? {
        Word::Finding(found) if found.bucket == wanted.signature => Ok(found),
        Word::Finding(found) => Err(format!("another finding, {}", found.bucket)),
        Word::Agree => Err("all answers agree".to_owned()),
        Word::Known(issues) => Err(format!("known issues only ({})", issues.join(", "))),
        Word::Skip(reason) => Err(format!("nothing is judged: {reason}")),
        Word::Defect(reason) => Err(format!("graphsmith is at fault: {reason}")),
    })
}

fn needs(folder: &Path, found: &Found) -> String {
    if folder.join(reproduce::SCRIPT).exists() {
        format!("`pip install onnx numpy onnxruntime=={}` and `python {}`", found.version, reproduce::SCRIPT)
    } else {
        format!("make a package of it as its first lines say, and `cargo run --release` that beside {}", report::MODEL)
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
    if !state.fickle.is_empty() {
        let shown = folder.join(FICKLE);
        writeln!(out, "{} findings did not show again: {}", state.fickle.len(), shown.display())?;
    }
    for bug in &bugs {
        let report = bug.written.map_or("no report", |written| &written.folder);
        writeln!(out, "{:6}  {}  {report}", bug.meetings, bug.found.signature)?;
    }
    writeln!(out, "{}", folder.join(INDEX).display())?;
    Ok(())
}
