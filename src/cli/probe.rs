//! `graphsmith probe`: makes the support tables.

use super::worker::{End, Line};
use super::{Error, Exit, Result, harness, progress, table};
use graphsmith::harness::Target;
use graphsmith::ops::Choice;
use graphsmith::schema;
use graphsmith::support::{Forms, Table, key};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// The longest that making a case or one run may take.
const LIMIT: Duration = Duration::from_secs(20);
const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/support");
/// Runs that must all have succeeded before a refusal is held against the backend: fewer may have missed the attribute or
/// the rank that it lacks.
const ENOUGH: u64 = 24;
const HEADER: &str = "# Made by `graphsmith probe --write`; do not edit.\n";

/// Find out what each backend supports, with random models of one operator
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith probe
  graphsmith probe --backend tract --operator Conv --count 50
  graphsmith probe --write        rewrites src/support/*.toml; rebuild afterwards

A form is an operator with the element types of its operands and outputs. yes: every one of at
least 24 runs succeeded; no: none did; partial: some were refused, or too few seen. A crash counts for neither.")]
pub struct Arguments {
    /// Probe only this backend (may be repeated)
    #[arg(long, value_name = "ID")]
    backend: Vec<String>,
    /// Probe only this operator (may be repeated); --write keeps what the table says of the others
    #[arg(long, value_name = "NAME")]
    operator: Vec<String>,
    /// Random inputs for each version of an operator
    #[arg(long, value_name = "N", default_value_t = 400)]
    count: u64,
    /// Write the tables, into DIR if it is given
    #[arg(long, value_name = "DIR", num_args = 0..=1, default_missing_value = TABLES, require_equals = true)]
    write: Option<PathBuf>,
}

/// What was seen of one form.
#[derive(Default)]
struct Seen {
    ran: u64,
    refused: u64,
    broke: u64,
    /// The first reason of a refusal, or else of a break.
    example: String,
}

/// By backend, operator with version (see `support::key`), and form.
type Results = BTreeMap<(String, String, String), Seen>;

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    if let Some(name) = arguments.operator.iter().find(|name| Choice::by_name(name).is_none()) {
        return Err(Error::Usage(format!("there is no operator `{name}`; see `graphsmith ops`")));
    }
    if let Some(folder) = arguments.write.as_deref().filter(|folder| !folder.is_dir()) {
        return Err(Error::Usage(format!("{} is not a folder: name one with --write=DIR", folder.display())));
    }
    // Opened here for their versions, and so that a missing one is told before anything long begins.
    let targets = harness(&arguments.backend, false)?.targets;
    let wanted = |name: &str| arguments.operator.is_empty() || arguments.operator.iter().any(|wanted| wanted == name);
    let usable = |it: Choice, version: i64| schema::opsets(it.name(), version).any(|opset| opset >= it.since());
    let versions = |it: Choice| {
        let versions = schema::versions(it.name()).filter(move |&version| usable(it, version));
        versions.map(move |version| (it.name(), version))
    };
    let units: Vec<(&str, i64)> = Choice::all().filter(|it| wanted(it.name())).flat_map(versions).collect();
    let bar = progress(units.len() as u64 * arguments.count, "cases");
    let mut results = Results::new();
    for (name, version) in units {
        bar.set_message(name);
        let done = bar.position();
        operator(name, version, arguments, &mut results, |cases| bar.set_position(done + cases))?;
        bar.set_position(done + arguments.count);
    }
    bar.finish_and_clear();
    summarize(&results, &targets, out)?;
    if let Some(folder) = &arguments.write {
        for target in &targets {
            write(target, &results, !arguments.operator.is_empty(), folder, out)?;
        }
    }
    Ok(Exit::Fine)
}

/// Probes one version of an operator, with a new child after each run that took the last one with it.
fn operator(
    name: &str,
    version: i64,
    arguments: &Arguments,
    results: &mut Results,
    mut progress: impl FnMut(u64),
) -> Result<()> {
    let unit = key(name, version);
    let (mut case, mut run) = (0, 0);
    while case < arguments.count {
        let (mut child, lines) = spawn(name, version, arguments, case, run)?;
        let mut open: Option<(usize, String, String)> = None;
        let mut begun = false;
        let death = loop {
            match lines.recv_timeout(LIMIT) {
                Ok(Line::Case(number)) => {
                    (case, begun) = (number, true);
                    progress(number);
                }
                Ok(Line::Run { run, backend, form }) => open = Some((run, backend, form)),
                Ok(Line::End(end)) => {
                    let Some((_, backend, form)) = open.take() else { continue };
                    results.entry((backend, unit.clone(), form)).or_default().add(end);
                }
                Err(RecvTimeoutError::Timeout) => break Some("took too long".to_owned()),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        let _ = child.kill();
        let status = child.wait().map_err(Error::Output)?;
        if death.is_none() && status.success() {
            return Ok(());
        }
        let death = death.unwrap_or_else(|| format!("took the process with it ({status})"));
        match open {
            Some((number, backend, form)) => {
                run = number + 1;
                results.entry((backend, unit.clone(), form)).or_default().add(End::Broke(death));
            }
            // Between runs: graphsmith itself is at fault. The tests of the operator tell more.
            None if begun => (case, run) = (case + 1, 0),
            None => return Err(Error::Usage(format!("the probe of {unit} {death} before its first case"))),
        }
    }
    Ok(())
}

fn spawn(name: &str, version: i64, arguments: &Arguments, case: u64, run: usize) -> Result<(Child, Receiver<Line>)> {
    let failed = |source| Error::Read { path: "the probe's child process".into(), source };
    let mut command = Command::new(env::current_exe().map_err(failed)?);
    command.args(["probe-worker", "--operator", name, "--count", &arguments.count.to_string()]);
    command.args(["--version", &version.to_string()]);
    command.args(["--case", &case.to_string(), "--run", &run.to_string()]);
    command.args(arguments.backend.iter().flat_map(|id| ["--backend", id]));
    // What libraries print while they die is no news.
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(std::io::Result::ok);
            // Libraries may write to stdout, too.
            let parsed = lines.filter_map(|line| serde_json::from_str(&line).ok());
            parsed.map(|line| sender.send(line)).take_while(std::result::Result::is_ok).for_each(drop);
        });
    }
    Ok((child, receiver))
}

impl Seen {
    fn add(&mut self, end: End) {
        match end {
            End::Ran => self.ran += 1,
            End::Refused(reason) => {
                if self.refused == 0 {
                    self.example = reason;
                }
                self.refused += 1;
            }
            End::Broke(reason) => {
                if self.refused == 0 && self.broke == 0 {
                    self.example = reason;
                }
                self.broke += 1;
            }
        }
    }

    /// `None` where nothing but crashes was seen.
    fn word(&self) -> Option<&'static str> {
        match (self.ran, self.refused) {
            (0, 0) => None,
            (ENOUGH.., 0) => Some("yes"),
            (0, _) => Some("no"),
            _ => Some("partial"),
        }
    }
}

/// The forms of one backend by operator, sorted.
fn forms(results: &Results, backend: &str) -> BTreeMap<String, Forms> {
    let mut operators: BTreeMap<String, Forms> = BTreeMap::new();
    for ((_, operator, form), seen) in results.iter().filter(|((id, ..), _)| id == backend) {
        let forms = operators.entry(operator.clone()).or_default();
        match seen.word() {
            Some("yes") => forms.yes.push(form.clone()),
            Some("no") => forms.no.push(form.clone()),
            Some(_) => forms.partial.push(form.clone()),
            None => {}
        }
    }
    operators
}

fn summarize(results: &Results, targets: &[Target], out: &mut dyn Write) -> Result<()> {
    let heading = ["backend", "version", "forms: yes", "partial", "no", "runs: ran", "refused", "broke"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for target in targets {
        let id = target.backend.id();
        let seen: Vec<&Seen> =
            results.iter().filter(|((backend, ..), _)| backend == id).map(|(_, seen)| seen).collect();
        let forms =
            ["yes", "partial", "no"].map(|word| seen.iter().filter(|seen| seen.word() == Some(word)).count() as u64);
        let sum = |count: fn(&Seen) -> u64| seen.iter().map(|seen| count(seen)).sum::<u64>();
        let runs = [sum(|seen| seen.ran), sum(|seen| seen.refused), sum(|seen| seen.broke)];
        let mut row = vec![id.to_owned(), target.version.clone()];
        row.extend(forms.into_iter().chain(runs).map(|count| count.to_string()));
        rows.push(row);
    }
    table(out, &rows)?;
    let mut rows = Vec::new();
    for ((backend, operator, form), seen) in results.iter().filter(|(_, seen)| seen.refused + seen.broke > 0) {
        let counts = format!("{} ran, {} refused, {} broke", seen.ran, seen.refused, seen.broke);
        let example: String = seen.example.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(160).collect();
        rows.push([backend.as_str(), operator, form, &counts, &example].map(str::to_owned).to_vec());
    }
    if !rows.is_empty() {
        writeln!(out, "\nForms with refusals or crashes, with an example:")?;
        table(out, &rows)?;
    }
    Ok(())
}

/// Writes the table of one backend. `merge` keeps what the table that is there says of other operators.
fn write(target: &Target, results: &Results, merge: bool, folder: &Path, out: &mut dyn Write) -> Result<()> {
    let (id, version) = (target.backend.id(), target.version.clone());
    let path = folder.join(format!("{id}.toml"));
    let mut operators = forms(results, id);
    if merge {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let old = Table::parse(&text).unwrap_or_default();
        if !old.operators.is_empty() && old.version != version {
            return Err(Error::Usage(format!(
                "{} is of version {}, and this is {version}: probe all operators",
                path.display(),
                old.version
            )));
        }
        for (operator, forms) in old.operators {
            operators.entry(operator).or_insert(forms);
        }
    }
    let table = Table::new(id, &version, operators);
    let text = table.text().map_err(|error| Error::Usage(error.to_string()))?;
    fs::write(&path, format!("{HEADER}{text}")).map_err(|source| Error::Write { path: path.clone(), source })?;
    writeln!(out, "wrote {}", path.display())?;
    Ok(())
}
