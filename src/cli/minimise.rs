//! `graphsmith minimise`: a finding as small as it can be.

use super::judge::{self, Report};
use super::{Error, Exit, Result, generate, progress};
use graphsmith::backend::Level;
use graphsmith::finding::Finding;
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input::{self, Input};
use graphsmith::known::{Known, Place};
use graphsmith::limits::MAX_INPUT_BYTES;
use graphsmith::minimise::{self, Minimised, Subject};
use graphsmith::{case, case::Case};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The input that is written beside a minimised model.
const INPUT: &str = "input";

/// Make a finding as small as it can be, and say which part of the backend is to blame
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith minimise fuzz/artifacts/graph_diff/crash-0123 --out small
  graphsmith minimise models/0000                 a folder with model.onnx and inputs.npz
  graphsmith minimise model.onnx

Every step is judged again and kept only if the same bug shows; backends run in processes of their own. The folder
of --out holds model.onnx, inputs.npz, expected.npz and, for an input of the fuzzer, the least input. The same file
gives the same bytes on every run. Exit code 1 when there is a finding.")]
pub struct Arguments {
    /// An input of the fuzzer (any bytes), an ONNX model, or a folder with model.onnx and inputs.npz
    #[arg(required_unless_present = "sample")]
    file: Option<PathBuf>,
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write into a folder that is there, replacing what it holds
    #[arg(long)]
    force: bool,
    /// Minimise so many findings in random inputs and print a table
    #[arg(long, value_name = "N", hide = true)]
    sample: Option<usize>,
    /// Only findings that --sample makes with optimisation alone
    #[arg(long, hide = true)]
    optimised: bool,
    /// The first seed of --sample
    #[arg(long, default_value_t = 0, hide = true)]
    seed: u64,
    /// Records of each input of --sample
    #[arg(long, default_value_t = 8, hide = true)]
    records: usize,
    #[command(flatten)]
    output: judge::Arguments,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let mut harness = arguments.output.harness()?;
    match (&arguments.file, arguments.sample) {
        (_, Some(count)) => sample(&mut harness, arguments, count, out),
        (Some(file), None) => {
            let files = std::slice::from_ref(file);
            judge::files(files, &arguments.output, out, |file| one(&mut harness, file, arguments))
        }
        (None, None) => Err(Error::Usage("name a file to minimise".to_owned())),
    }
}

fn one(harness: &mut Harness, file: &Path, arguments: &Arguments) -> Result<Report> {
    let subject = subject(harness, file)?;
    if let Some(folder) = arguments.out.as_ref().filter(|folder| folder.exists() && !arguments.force) {
        let shown = folder.display();
        return Err(Error::Usage(format!("{shown} is there already: choose another folder, or add --force")));
    }
    let bar = progress(0, "runs");
    let minimised = minimise::minimise(harness, subject, |now| {
        bar.set_length(bar.length().unwrap_or(0).max(now.runs as u64));
        bar.set_position(now.runs as u64);
        bar.set_message(format!("{}: {} operators", now.part, now.operators));
    });
    bar.finish_and_clear();
    let minimised = match minimised {
        Ok(minimised) => minimised,
        Err(minimise::Error::Defect(defect)) => return Err(Error::Defect(defect)),
        Err(minimise::Error::Nothing(reason)) => return Ok(Report::skipped(&reason)),
    };
    if let Some(folder) = &arguments.out {
        write(&minimised, folder)?;
    }
    let mut report = judge::case(harness, &minimised.case)?;
    let (before, after) = (minimised.operators_before, minimised.case.model.nodes.len());
    report.notes.insert(0, format!("{before} operators became {after} in {} runs", minimised.runs));
    report.verdict = "finding";
    report.finding = Some(Box::new(minimised.finding));
    Ok(report)
}

fn subject(harness: &Harness, file: &Path) -> Result<Subject> {
    if file.is_dir() || super::is_onnx(file) {
        let case = super::replay::case_of(harness, file)?;
        return Ok(Subject::Model(case.model, case.data));
    }
    Ok(Subject::Input(Input::decode(&super::read(file, MAX_INPUT_BYTES)?)))
}

fn write(minimised: &Minimised, folder: &Path) -> Result<()> {
    let (parent, name) = (folder.parent().unwrap_or(Path::new("")), folder.file_name());
    let name = name.and_then(|name| name.to_str()).ok_or_else(|| Error::NotFolder(folder.to_owned()))?;
    let failed = |source| Error::Write { path: folder.to_owned(), source };
    if folder.exists() {
        // What was not written there before is left alone.
        let _ = fs::remove_file(folder.join(INPUT));
    }
    fs::create_dir_all(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }).map_err(failed)?;
    generate::write(&minimised.case, parent, name)?;
    if let Some(input) = &minimised.input {
        fs::write(folder.join(INPUT), input.encode()).map_err(failed)?;
    }
    Ok(())
}

/// Minimises the findings of random inputs, each a row: operators before and after, runs, seconds, signature.
fn sample(harness: &mut Harness, arguments: &Arguments, count: usize, out: &mut dyn Write) -> Result<Exit> {
    let bar = progress(count as u64, "findings");
    let (mut before, mut after, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
    let listed = Known::built_in()?;
    let (mut same, mut of) = (0, 0);
    let mut buckets = Buckets::default();
    let mut seed = arguments.seed;
    while after.len() < count {
        let input = input::random(seed, arguments.records);
        seed += 1;
        let Ok(case) = Case::new(case::generate(&input))? else { continue };
        let issue = match harness.judge(&case)? {
            Verdict::Bug(finding) if finding.level == Level::On || !arguments.optimised => {
                issue(harness, &listed, &case, &finding)
            }
            _ => continue,
        };
        let start = Instant::now();
        let minimised = match minimise::minimise(harness, Subject::Input(input), |_| {}) {
            Ok(minimised) => minimised,
            Err(minimise::Error::Nothing(reason)) => {
                bar.suspend(|| writeln!(out, "seed {}: {reason}", seed - 1))?;
                continue;
            }
            Err(minimise::Error::Defect(defect)) => return Err(Error::Defect(defect)),
        };
        let elapsed = start.elapsed().as_secs_f64();
        let mark = match (issue, self::issue(harness, &listed, &minimised.case, &minimised.finding)) {
            (None, _) => String::new(),
            (Some(before), after) => {
                buckets.add(&minimised.finding.signature, after.as_ref().unwrap_or(&before));
                of += 1;
                same += usize::from(after.as_ref() == Some(&before));
                if after.as_ref() == Some(&before) { before } else { format!("{before} became {after:?}") }
            }
        };
        let (from, to) = (minimised.operators_before, minimised.case.model.nodes.len());
        let (runs, signature) = (minimised.runs, &minimised.finding.signature);
        bar.suspend(|| {
            writeln!(
                out,
                "{:8} {from:3} -> {to:2} operators {runs:5} runs {elapsed:6.2} s  {signature}  {mark}",
                seed - 1
            )?;
            out.flush()
        })?;
        if let Some(folder) = &arguments.out {
            write(&minimised, &folder.join(format!("{}", seed - 1)))?;
        }
        before.push(from as f64);
        after.push(to as f64);
        seconds.push(elapsed);
        bar.inc(1);
    }
    bar.finish_and_clear();
    writeln!(out, "{:24} {:>8} {:>8} {:>8}", "", "median", "90 %", "most")?;
    for (name, mut list) in [("operators before", before), ("operators after", after), ("seconds", seconds)] {
        list.sort_by(f64::total_cmp);
        let at = |share: f64| list[((list.len() - 1) as f64 * share).round() as usize];
        writeln!(out, "{name:24} {:8.2} {:8.2} {:8.2}", at(0.5), at(0.9), at(1.0))?;
    }
    writeln!(out, "{same} of {of} that known.toml explains are explained by the same entry afterwards")?;
    buckets.tell(out)?;
    Ok(Exit::Finding)
}

/// How the signatures of least cases and the entries of the committed list that explain these go together. An entry may
/// cover several operators and types, which have signatures of their own.
#[derive(Default)]
struct Buckets {
    /// Findings by signature and entry.
    counts: BTreeMap<(String, String), usize>,
}

impl Buckets {
    fn add(&mut self, signature: &str, issue: &str) {
        *self.counts.entry((signature.to_owned(), issue.to_owned())).or_default() += 1;
    }

    fn tell(&self, out: &mut dyn Write) -> Result<()> {
        let total: usize = self.counts.values().sum();
        // The findings whose signature belongs to the entry that has most of it.
        let mut most: BTreeMap<&str, usize> = BTreeMap::new();
        for ((signature, _), &count) in &self.counts {
            let most = most.entry(signature).or_default();
            *most = count.max(*most);
        }
        let issues: BTreeSet<&str> = self.counts.keys().map(|(_, issue)| issue.as_str()).collect();
        writeln!(
            out,
            "these {total} have {} signatures and {} entries; {} of them share their signature with no other entry",
            most.len(),
            issues.len(),
            most.values().sum::<usize>()
        )?;
        Ok(())
    }
}

/// The entry of the committed list that explains a finding.
fn issue(harness: &mut Harness, listed: &Known, case: &Case, finding: &Finding) -> Option<String> {
    let answers = harness.answers(case);
    let version =
        harness.target(answers.first.iter().find(|it| it.backend == finding.backend)?.backend).version.clone();
    let at = Place { backend: &finding.backend, version: &version, level: finding.level };
    let part = answers.parts(case).find(|part| part.context() == finding.context)?;
    let outcome = part.outcomes.iter().find(|it| it.backend == at.backend && it.level == at.level)?;
    let wrong = part.case.expectation.judge_each(&outcome.result);
    let wrong = wrong.iter().find(|wrong| wrong.kind() == finding.kind)?;
    let index = listed.explaining(at, wrong, &part.case.model)?;
    listed.iter().nth(index).map(|(issue, _)| issue.id.clone())
}
