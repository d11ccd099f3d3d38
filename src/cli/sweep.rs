//! `graphsmith sweep`: random inputs without libFuzzer, past every finding.

use super::{Error, Exit, Result, harness, progress};
use graphsmith::harness::Verdict;
use graphsmith::{case, input};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

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
    /// Show the memory in use on the way
    #[arg(long)]
    memory: bool,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    if let Some(folder) = &arguments.save {
        fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
    }
    let mut harness = harness(&arguments.backend, arguments.no_known)?;
    let mut signatures: BTreeMap<String, u64> = BTreeMap::new();
    let mut defects = 0;
    let bar = progress(arguments.count, "cases");
    for done in 0..arguments.count {
        if arguments.memory && done * MEMORY_LINES / arguments.count != (done + 1) * MEMORY_LINES / arguments.count {
            writeln!(out, "{done:10} cases {:8.1} MiB", resident_mib())?;
        }
        bar.set_position(done);
        let seed = arguments.seed + done;
        let input = input::random(seed, arguments.records);
        match harness.test(case::generate(&input)) {
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
    Ok(if signatures.is_empty() && defects == 0 { Exit::Fine } else { Exit::Finding })
}

/// This process's resident memory; 0 where /proc does not tell.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
