//! `graphsmith sweep`: random inputs without libFuzzer, past every finding.

use super::{Error, Exit, Result, harness, isolated_harness, progress, table};
use graphsmith::backend::process::Limits;
use graphsmith::harness::Verdict;
use graphsmith::stages::{self, Stage, Times};
use graphsmith::{case, input};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// How many of the slowest cases are shown, and how many stages of each.
const SLOWEST: usize = 10;
const STAGES_SHOWN: usize = 3;
/// How often the memory in use is shown.
const MEMORY_LINES: u64 = 10;

/// Test random inputs, going on past findings; print the first of each signature and what was met
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith sweep --count 5000
  graphsmith sweep --count 20000 --records 2 --backend tract   small models, one backend
  graphsmith sweep --save found && graphsmith triage found     a report for each bug

Finds the same on every run: there is no feedback from coverage. The exit code is 1 when there was a finding.")]
pub struct Arguments {
    /// The first input's seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many inputs
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Records of each input: at most so many operators
    #[arg(long, default_value_t = 10)]
    records: usize,
    /// Only this backend (may be repeated)
    #[arg(long, value_name = "ID")]
    backend: Vec<String>,
    /// Save the input of each finding in this folder, as libFuzzer does
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Report known issues as well
    #[arg(long)]
    no_known: bool,
    /// Give each backend a process of its own, which it may take with it
    #[arg(long)]
    isolate: bool,
    /// Show the memory in use on the way
    #[arg(long, conflicts_with = "isolate")]
    memory: bool,
    /// Show what CPU time is spent on, and the slowest cases
    #[arg(long, conflicts_with = "isolate")]
    stages: bool,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    if let Some(folder) = &arguments.save {
        fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
    }
    let mut harness = match arguments.isolate {
        true => isolated_harness(&arguments.backend, arguments.no_known, Limits::DEFAULT)?,
        false => harness(&arguments.backend, arguments.no_known)?,
    };
    let mut signatures: BTreeMap<String, u64> = BTreeMap::new();
    let mut defects = 0;
    let bar = progress(arguments.count, "cases");
    let mut spent = Spent::default();
    if arguments.stages {
        stages::start();
    }
    for done in 0..arguments.count {
        if arguments.memory && done * MEMORY_LINES / arguments.count != (done + 1) * MEMORY_LINES / arguments.count {
            writeln!(out, "{done:10} cases {:8.1} MiB", resident_mib())?;
            out.flush()?;
        }
        bar.set_position(done);
        let seed = arguments.seed + done;
        let input = input::random(seed, arguments.records);
        let verdict = harness.test(case::generate(&input));
        if arguments.stages {
            spent.add(seed, stages::take());
        }
        match verdict {
            Ok(Verdict::Bug(finding)) => {
                if let Some(folder) = &arguments.save {
                    let bytes = input.encode();
                    let path = folder.join(format!("crash-{}", input::digest(&bytes)));
                    fs::write(&path, &bytes).map_err(|source| Error::Write { path, source })?;
                }
                let met = signatures.entry(finding.signature.clone()).or_insert(0);
                *met += 1;
                if *met == 1 {
                    bar.suspend(|| writeln!(out, "==== seed {seed}: {finding}"))?;
                }
            }
            Ok(_) => {}
            Err(defect) => {
                defects += 1;
                bar.suspend(|| writeln!(out, "==== seed {seed}: graphsmith is at fault: {defect}"))?;
            }
        }
    }
    bar.finish_and_clear();
    write!(out, "{}", harness.summary())?;
    for (signature, met) in &signatures {
        writeln!(out, "finding    {signature:50} {met:>12}")?;
    }
    if arguments.stages {
        spent.print(harness.tests(), out)?;
    }
    Ok(if signatures.is_empty() && defects == 0 { Exit::Fine } else { Exit::Finding })
}

/// This process's resident memory; 0 where /proc does not tell.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// What the CPU time of all cases was spent on.
#[derive(Default)]
struct Spent {
    all: Times,
    cases: Vec<(Duration, u64)>,
    /// The slowest with what took it so long, the slowest first.
    slowest: Vec<(Duration, u64, Times)>,
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn total(times: &Times) -> Duration {
    times.values().flatten().sum()
}

impl Spent {
    fn add(&mut self, seed: u64, times: Times) {
        for (stage, spent) in &times {
            let all = self.all.entry(*stage).or_default();
            all.iter_mut().zip(spent).for_each(|(all, time)| *all += *time);
        }
        let time = total(&times);
        self.cases.push((time, seed));
        let place = self.slowest.partition_point(|(slower, ..)| *slower >= time);
        self.slowest.insert(place, (time, seed, times));
        self.slowest.truncate(SLOWEST);
    }

    /// `tests` is how many forms of the cases were judged.
    fn print(mut self, tests: u64, out: &mut dyn Write) -> Result<()> {
        let (all, cases) = (total(&self.all), self.cases.len().max(1) as u32);
        let share = |time: Duration| format!("{:.1} %", 100.0 * time.as_secs_f64() / all.as_secs_f64());
        let cell = |time: Duration| format!("{:8.3}", milliseconds(time / cases));
        let heading = ["CPU milliseconds a case", "first form", "other forms", "share"].map(str::to_owned).to_vec();
        let row = |(stage, [first, other]): (&Stage, &[Duration; 2])| {
            vec![stage.to_string(), cell(*first), cell(*other), share(*first + *other)]
        };
        let mut rows: Vec<Vec<String>> = [heading].into_iter().chain(self.all.iter().map(row)).collect();
        let backends: Duration =
            self.all.iter().filter(|(stage, _)| stage.is_backend()).flat_map(|(_, times)| times).sum();
        let sum = |form: usize| self.all.values().map(|times| times[form]).sum();
        rows.push(vec!["all".to_owned(), cell(sum(0)), cell(sum(1)), share(all)]);
        writeln!(out)?;
        table(out, &rows)?;
        self.cases.sort_unstable();
        let at = |percent: usize| {
            self.cases.get((self.cases.len().max(1) - 1) * percent / 100).map_or(0.0, |case| milliseconds(case.0))
        };
        let seconds = all.as_secs_f64();
        writeln!(out, "inside the backends {}", share(backends))?;
        writeln!(out, "a case: median {:.2} ms, p95 {:.1}, p99 {:.1}, most {:.1}", at(50), at(95), at(99), at(100))?;
        writeln!(
            out,
            "{:.0} cases and {:.0} tests, each one form of a case judged over its backends, in a CPU second",
            self.cases.len() as f64 / seconds,
            tests as f64 / seconds
        )?;
        writeln!(out, "the slowest:")?;
        for (time, seed, times) in &self.slowest {
            let mut stages: Vec<(Duration, String)> = Vec::new();
            for (stage, [first, other]) in times {
                stages.extend([(*first, stage.to_string()), (*other, format!("{stage} of another form"))]);
            }
            stages.sort_unstable_by(|a, b| b.cmp(a));
            let most =
                stages.iter().take(STAGES_SHOWN).map(|(time, stage)| format!("{stage} {:.1}", milliseconds(*time)));
            let most: Vec<String> = most.collect();
            writeln!(out, "  seed {seed}: {:.1} ms: {}", milliseconds(*time), most.join(", "))?;
        }
        Ok(())
    }
}
