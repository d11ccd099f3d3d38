//! The command line: one file per subcommand, and here what they share.
//!
//! Exit codes: 0 fine, 1 a finding, 2 a mistake of the user or of the environment, with one sentence on stderr.

use clap::{Parser, Subcommand};
use graphsmith::backend::process::{Isolated, Limits};
use graphsmith::backend::{self, Backend, TABLE};
use graphsmith::harness::Harness;
use graphsmith::known::{self, Known};
use graphsmith::limits::MAX_FILE_BYTES;
use graphsmith::{npz, onnx, reference::Defect};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod ablate;
mod audit;
mod backends;
mod dictionary;
mod diversity;
mod export;
mod generate;
mod judge;
mod locality;
mod minimise;
mod node_tests;
mod ops;
mod peers;
mod probe;
mod replay;
mod run;
mod seeds;
mod show;
mod sweep;
mod triage;
mod types;
mod worker;

/// A coverage-guided fuzzer for deep-learning compilers.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  graphsmith run fuzz/artifacts/graph_diff/crash-0123   what an input of the fuzzer finds
  graphsmith triage fuzz/artifacts --out findings       all that a run has found, as reports
  graphsmith replay model.onnx                          any model over all backends
  graphsmith minimise fuzz/artifacts/graph_diff/crash-0123 --out small
                                                        the least model that shows the same bug
  graphsmith gen --count 100 --out models               valid models with data

Exit codes: 0 fine, 1 a finding or a disagreement, 2 a mistake in the call or the environment.";

#[derive(Subcommand)]
enum Command {
    Gen(generate::Arguments),
    Show(show::Arguments),
    Run(run::Arguments),
    Replay(replay::Arguments),
    Minimise(minimise::Arguments),
    #[command(hide = true)]
    NodeTests(node_tests::Arguments),
    Ops(ops::Arguments),
    Backends(backends::Arguments),
    Probe(probe::Arguments),
    #[command(hide = true)]
    ProbeWorker(worker::Arguments),
    Dictionary(dictionary::Arguments),
    Seeds(seeds::Arguments),
    Sweep(sweep::Arguments),
    Triage(triage::Arguments),
    #[command(hide = true)]
    TriageWorker(triage::worker::Arguments),
    Audit(audit::Arguments),
    Ablate(ablate::Arguments),
    Locality(locality::Arguments),
    #[command(hide = true)]
    Export(export::Arguments),
}

/// Why a command could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    #[error("{0} is a folder, and a file is needed here")]
    Folder(PathBuf),
    #[error("{0} is not a regular file")]
    NotRegular(PathBuf),
    #[error("{0} is a file, and a folder is needed here")]
    NotFolder(PathBuf),
    #[error("{path} has {bytes} bytes, more than the {limit} that are read from such a file")]
    TooLarge { path: PathBuf, bytes: u64, limit: u64 },
    #[error("{path}: {source}")]
    Onnx { path: PathBuf, source: onnx::Error },
    #[error("cannot use {path}: {source}")]
    Npz { path: PathBuf, source: npz::Error },
    #[error("{0}, or choose other backends with --backend")]
    Backend(#[from] backend::Error),
    #[error(transparent)]
    Known(#[from] known::Error),
    #[error("this build has no backend `{0}`; see `graphsmith backends`")]
    NoBackend(String),
    #[error("graphsmith is at fault, please report it: {0}")]
    Defect(#[from] Defect),
    #[error("{path} does not fit the model: {reason}")]
    Inputs { path: PathBuf, reason: String },
    #[error("{0}")]
    Usage(String),
}

/// What a command says to its caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Fine = 0,
    Finding = 1,
}

pub type Result<T> = std::result::Result<T, Error>;

pub fn main() -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = dispatch(Cli::parse().command, &mut out);
    match result.and_then(|exit| Ok(out.flush().map(|()| exit)?)) {
        Ok(exit) => ExitCode::from(exit as u8),
        // The reader has seen enough, as in `graphsmith ops | head`.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = out.flush();
            let _ = writeln!(io::stderr(), "graphsmith: {}", one_line(&error.to_string()));
            ExitCode::from(2)
        }
    }
}

fn dispatch(command: Command, out: &mut dyn Write) -> Result<Exit> {
    match command {
        Command::Gen(arguments) => generate::main(&arguments, out),
        Command::Show(arguments) => show::main(&arguments, out),
        Command::Run(arguments) => run::main(&arguments, out),
        Command::Replay(arguments) => replay::main(&arguments, out),
        Command::Minimise(arguments) => minimise::main(&arguments, out),
        Command::NodeTests(arguments) => node_tests::main(&arguments, out),
        Command::Ops(arguments) => ops::main(&arguments, out),
        Command::Backends(arguments) => backends::main(&arguments, out),
        Command::Probe(arguments) => probe::main(&arguments, out),
        Command::ProbeWorker(arguments) => worker::main(&arguments, out),
        Command::Dictionary(arguments) => dictionary::main(&arguments, out),
        Command::Seeds(arguments) => seeds::main(&arguments, out),
        Command::Sweep(arguments) => sweep::main(&arguments, out),
        Command::Triage(arguments) => triage::main(&arguments, out),
        Command::TriageWorker(arguments) => triage::worker::main(&arguments, out),
        Command::Audit(arguments) => audit::main(&arguments, out),
        Command::Ablate(arguments) => ablate::main(&arguments, out),
        Command::Locality(arguments) => locality::main(&arguments, out),
        Command::Export(arguments) => export::main(&arguments, out),
    }
}

/// The backends with these ids, or all, with the known issues if these are wanted. The first backend that cannot be had is
/// an error.
pub fn harness(ids: &[String], no_known: bool) -> Result<Harness> {
    Ok(Harness::with(open(ids)?, known(no_known)?))
}

/// The same, each in a process of its own.
pub fn isolated_harness(ids: &[String], no_known: bool, limits: Limits) -> Result<Harness> {
    let isolated = |backend| Box::new(Isolated::new(backend, limits)) as Box<dyn Backend>;
    Ok(Harness::with(open(ids)?.into_iter().map(isolated).collect(), known(no_known)?))
}

/// The known issues, or none.
pub fn known(none: bool) -> Result<Known> {
    Ok(if none { Known::default() } else { Known::built_in()? })
}

fn open(ids: &[String]) -> Result<Vec<Box<dyn Backend>>> {
    if let Some(unknown) = ids.iter().find(|id| !TABLE.iter().any(|(known, _)| known == id)) {
        return Err(Error::NoBackend(unknown.clone()));
    }
    let wanted = |id: &&str| ids.is_empty() || ids.iter().any(|wanted| wanted == id);
    let rows = TABLE.iter().filter(|(id, _)| wanted(id));
    Ok(rows.map(|(_, open)| open()).collect::<std::result::Result<_, _>>()?)
}

/// The bytes of a regular file. Refuses by size before anything is read.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    check_file(path, limit)?;
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn check_file(path: &Path, limit: u64) -> Result<()> {
    let data = fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    match () {
        () if data.is_dir() => Err(Error::Folder(path.to_owned())),
        () if !data.is_file() => Err(Error::NotRegular(path.to_owned())),
        () if data.len() > limit => Err(Error::TooLarge { path: path.to_owned(), bytes: data.len(), limit }),
        () => Ok(()),
    }
}

/// The bytes of an ONNX file and what they say.
pub fn read_onnx(path: &Path) -> Result<(Vec<u8>, onnx::proto::ModelProto)> {
    let bytes = read(path, MAX_FILE_BYTES)?;
    let proto = onnx::decode(&bytes).map_err(|source| Error::Onnx { path: path.to_owned(), source })?;
    Ok((bytes, proto))
}

/// The arrays of an .npz file.
pub fn read_npz(path: &Path) -> Result<npz::Arrays> {
    check_file(path, MAX_FILE_BYTES)?;
    npz::read(path).map_err(|source| Error::Npz { path: path.to_owned(), source })
}

/// A bar on stderr, if that is a terminal.
pub fn progress(length: u64, unit: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {unit} {{elapsed}} {{wide_msg}}"));
    ProgressBar::new(length).with_style(style.expect("a constant template"))
}

/// Rows with their cells padded to columns. The last cell of a row is left as it is and widens no column.
pub fn table(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (column, cell) in row.iter().rev().skip(1).rev().enumerate() {
            widths.resize(widths.len().max(column + 1), 0);
            widths[column] = widths[column].max(cell.chars().count());
        }
    }
    for row in rows {
        let (last, cells) = row.split_last().map_or(("", &[][..]), |(last, cells)| (last.as_str(), cells));
        let padded: String = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}  ")).collect();
        writeln!(out, "{}", format!("{padded}{last}").trim_end())?;
    }
    Ok(())
}

/// Pretty-printed JSON and a line break.
pub fn json(out: &mut dyn Write, value: &serde_json::Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Whether a file's name says that it is an ONNX model; anything else is an input of the fuzzer.
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// The first line of a message: libtorch's go on with a backtrace.
pub fn one_line(message: &str) -> String {
    message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
