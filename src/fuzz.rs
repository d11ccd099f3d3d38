//! What the fuzz target calls. Only here does a finding become a panic.

mod merge;
mod meter;
mod saved;
mod unguided;

#[cfg(target_os = "linux")]
pub use merge::getrandom;
pub use saved::{RUNNING, is_at_hand};
pub use unguided::run as unguided;

use crate::backend::process::{Isolated, Limits, die_with};
use crate::backend::{Level, Setting};
use crate::case::{self, Case};
use crate::features;
use crate::finding::{self, Finding};
use crate::graph;
use crate::harness::{Harness, Target, Verdict};
use crate::input::{self, Input, Record};
use crate::known::{self, Known};
use crate::metamorphic::Way;
use crate::mutate::{self, ByteMutator};
use crate::trace::{self, Coverage, Grain, Tracing};
use crate::{backend, ops, reference};
use arbitrary::{Arbitrary, Unstructured};
use meter::Watched;
use saved::Saved;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The dictionary that is used when no other is named, relative to the repository's root.
const DICTIONARY: &str = "dictionaries/graph_diff.dict";
/// When set, findings are printed and the run goes on: for a check of graphsmith rather than of the backends.
const KEEP_GOING: &str = "GRAPHSMITH_KEEP_GOING";
/// A case takes milliseconds; a minute is a hang also under a sanitizer on a busy machine.
const TIMEOUT_SECONDS: u32 = 60;
/// In processes of their own, backends have a limit for each call, and a case has many calls.
const ISOLATED_TIMEOUT_SECONDS: u32 = 600;
/// When `off`, shared libraries run without breakpoints, as a debugger needs it. Counters of their own stay.
const TRACE: &str = "GRAPHSMITH_TRACE";
/// Where plans of traced libraries are kept, relative to the repository's root; nowhere if the parent does not exist.
const PLANS: &str = "target/trace";
/// When `on`, what models and answers show counts as well. `scripts/evaluate` shows that it does not pay: so many inputs
/// bring something new that libFuzzer comes to fewer.
const SEMANTIC_COUNTERS: &str = "GRAPHSMITH_SEMANTIC_COUNTERS";
/// When `off`, inputs are mutated by libFuzzer alone, which knows nothing of records.
const MUTATION: &str = "GRAPHSMITH_MUTATION";
/// `all`, or the ids of backends with commas in between: those run in processes of their own.
const ISOLATE: &str = "GRAPHSMITH_ISOLATE";
/// A folder: findings are saved there, and the run goes on.
const SAVE: &str = "GRAPHSMITH_SAVE";
/// An option that libFuzzer gives the jobs of its fork mode, and nobody else.
const JOB: &str = "-stop_file=";
/// The option that makes libFuzzer start jobs.
const FORK: &str = "-fork=";
/// Set by fork mode for the processes that it starts.
const FORKED: &str = "GRAPHSMITH_FORKED";
/// How long a process runs. The user's comes first, and then that of a job, which counts.
const LENGTH: &str = "-max_total_time=";
/// libFuzzer begins with jobs of one second, two and so on: shorter than it takes to start one and to merge what it finds.
const SHORTEST_JOB_SECONDS: u64 = 30;
/// What [`ISOLATE`] says for every backend.
const ALL: &str = "all";
/// When `off`, known issues are findings as well.
const KNOWN: &str = "GRAPHSMITH_KNOWN";
/// libFuzzer's choice of inputs by their rare features looks at every input for every new feature, of which a case has
/// hundreds: three quarters of all CPU time, for less coverage in the same time.
const ENTROPIC: &str = "-entropic=0";
/// libFuzzer tells apart eight numbers of times that a place is met, which here follow from sizes of tensors: most inputs would
/// bring something new. With them there are also more features than the 2^21 that it can tell apart.
const HIT_COUNTS: &str = "-use_counters=0";
/// Operators of the model that runs before the first input.
const WARM_UP_OPERATORS: usize = 4;
/// Where cargo-fuzz makes libFuzzer save the inputs of findings.
const ARTIFACTS: &str = "fuzz/artifacts/graph_diff";

/// One counter for each of [`features`]; libFuzzer clears them before every run.
static COUNTERS: [AtomicU8; features::COUNT] = [const { AtomicU8::new(0) }; features::COUNT];

/// Gives libFuzzer counters, and as many pairs of a program counter and flags.
pub type Register = fn(counters: &'static [AtomicU8], places: &'static [[usize; 2]]);

thread_local! {
    // Leaked, so that it can still be read while the process exits.
    static HARNESS: Cell<Option<&'static RefCell<Harness>>> = const { Cell::new(None) };
    static SAVED: Cell<Option<&'static RefCell<Saved>>> = const { Cell::new(None) };
}

/// The raw bytes of one execution. `Debug` is the model they describe, which makes `cargo fuzz fmt` readable.
pub struct Bytes(Vec<u8>);

impl<'a> Arbitrary<'a> for Bytes {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let count = u.len();
        Ok(Bytes(u.bytes(count)?.to_vec()))
    }

    fn arbitrary_take_rest(u: Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Bytes(u.take_rest().to_vec()))
    }

    fn size_hint(_depth: usize) -> (usize, Option<usize>) {
        (0, None)
    }
}

impl Bytes {
    pub fn input(&self) -> Input {
        Input::decode(&self.0)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&graph::text(&case::model(&self.input())))
    }
}

/// Registers the counters and opens the backends. Ends the process with one sentence when one is missing. To be called
/// once, after libFuzzer has installed its panic hook.
pub fn init(register: Register) {
    backend::install_panic_hook();
    register_features(register);
    let arguments: Vec<String> = std::env::args().collect();
    let merging = is_merging(&arguments);
    if merge::is_inner(&arguments) {
        merge::forget_places_at_first_run(register);
    }
    let (mut counters, mut watched): (Vec<&'static [AtomicU8]>, _) = (vec![&COUNTERS], Vec::new());
    // On platforms where they are not found they count as well.
    if let Ok(Some(program)) = trace::program() {
        eprintln!("graphsmith: {} counters in the Rust backends and the fuzz target itself", program.len());
        counters.push(program);
        if meter::is_wanted() {
            watched.push(Watched::program(program));
        }
    }
    // Never dropped: nothing in this process outside the search wants gradients.
    std::mem::forget(reference::init());
    let grain = if merging { Grain::Exact } else { Grain::Shared };
    let mut opened = || -> Result<Harness, Error> {
        let known = if is_off(KNOWN) { Known::default() } else { Known::built_in()? };
        let mut harness = Harness::with(backend::all()?, known);
        for coverage in harness.targets.iter().filter_map(|target| trace(target, register, grain)) {
            match coverage {
                Coverage::Instrumented(library) => {
                    counters.push(library);
                    watched.push(Watched::library(library));
                }
                Coverage::Traced(tracing) => counters.push(tracing.counters),
            }
        }
        isolate(&mut harness, merging)?;
        if let Some(folder) = std::env::var_os(SAVE) {
            SAVED.set(Some(Box::leak(Box::new(RefCell::new(Saved::new(PathBuf::from(folder))?)))));
        }
        Ok(harness)
    };
    match opened() {
        Ok(harness) => HARNESS.set(Some(Box::leak(Box::new(RefCell::new(harness))))),
        Err(error) => give_up(&error),
    }
    if merging && let Err(error) = merge::start(counters, |input| test_once(&Bytes(input))) {
        give_up(&Error::Merge(error));
    }
    meter::start(watched);
}

/// Why a run cannot begin or go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Backend(#[from] backend::Error),
    #[error(transparent)]
    Known(#[from] known::Error),
    #[error("{ISOLATE} names `{0}`, which is no backend of this build")]
    NoBackend(String),
    #[error("a merge cannot give inputs processes of their own: {0}")]
    Merge(std::io::Error),
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
}

fn give_up(error: &Error) -> ! {
    eprintln!("graphsmith: {error}");
    std::process::exit(2)
}

/// Gives the backends that [`ISOLATE`] names processes of their own. After they are traced, so that the children are as well.
fn isolate(harness: &mut Harness, merging: bool) -> Result<(), Error> {
    let named = std::env::var(ISOLATE).unwrap_or_default();
    let named: Vec<&str> = named.split(',').filter(|id| !id.is_empty() && *id != "off").collect();
    let target = |id: &str| harness.targets.iter().any(|target| target.backend.id() == id);
    if let Some(unknown) = named.iter().find(|&&id| id != ALL && !target(id)) {
        return Err(Error::NoBackend((*unknown).to_owned()));
    }
    if named.is_empty() {
        return Ok(());
    }
    if merging {
        eprintln!(
            "graphsmith: {ISOLATE} is left out: a merge puts breakpoints back, which it can in its own process only"
        );
        return Ok(());
    }
    // SAFETY: no handler. In a fuzz target nobody else has done it, and a write to a child that has died must fail.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let wanted = |target: &Target| named.iter().any(|&id| id == ALL || id == target.backend.id());
    let targets = std::mem::take(&mut harness.targets);
    harness.targets = targets
        .into_iter()
        .map(|target| match wanted(&target) {
            true => Target { backend: Box::new(Isolated::new(target.backend, Limits::DEFAULT)), ..target },
            false => target,
        })
        .collect();
    let isolated: Vec<&str> = harness.targets.iter().filter(|it| wanted(it)).map(|it| it.backend.id()).collect();
    eprintln!("graphsmith: in processes of their own: {}", isolated.join(", "));
    Ok(())
}

/// Must come before libFuzzer's first run, and in the same order in every process of one fuzzing run.
fn register_features(register: Register) {
    if !is_on(SEMANTIC_COUNTERS) {
        eprintln!("graphsmith: semantic counters are off ({SEMANTIC_COUNTERS}=on turns them on)");
        return;
    }
    // A place must be unique and name no function: the counters' own addresses do.
    register(&COUNTERS, places(COUNTERS.iter().map(|counter| counter.as_ptr() as usize)));
    eprintln!("graphsmith: {} semantic counters", COUNTERS.len());
}

/// What libFuzzer keeps for each counter: an address, and flags.
fn places(addresses: impl Iterator<Item = usize>) -> &'static [[usize; 2]] {
    addresses.map(|address| [address, 0]).collect::<Vec<_>>().leak()
}

/// Traces the library of a backend, if it has one without counters of its own.
fn trace(target: &Target, register: Register, grain: Grain) -> Option<Coverage> {
    let library = target.backend.library()?;
    let name = library.display();
    let off = is_off(TRACE);
    if off {
        eprintln!("graphsmith: tracing of {name} is off");
        if !meter::is_wanted() {
            return None;
        }
    }
    let plans = Path::new(PLANS);
    let plans = plans.parent().is_some_and(Path::is_dir).then_some(plans);
    let coverage = match trace::start(&library, plans, grain) {
        Ok(coverage) => coverage,
        Err(error) => {
            eprintln!("graphsmith: tracing is off: {error}");
            return None;
        }
    };
    match &coverage {
        Coverage::Traced(Tracing { counters, places: addresses, .. }) if !off => {
            register(counters, places(addresses.iter().copied()));
        }
        _ => {}
    }
    warm_up(target);
    match &coverage {
        Coverage::Instrumented(counters) => {
            eprintln!("graphsmith: {name} is instrumented: {} counters of its own, so it is not traced", counters.len())
        }
        Coverage::Traced(Tracing { blocks, .. }) if off => {
            eprintln!("graphsmith: the meter counts {blocks} blocks of {name}, which steer nothing");
        }
        Coverage::Traced(Tracing { counters, functions, dropped, blocks, .. }) => {
            let kept = functions - dropped;
            let about = format!("{blocks} blocks of {kept} functions, {} counters", counters.len());
            eprintln!("graphsmith: tracing {name}: {about} ({TRACE}=off turns it off)");
        }
    }
    Some(coverage)
}

/// Runs a plain model, so that what every model needs is not credited to the first input.
fn warm_up(target: &Target) {
    let records = ops::ALL.iter().take(WARM_UP_OPERATORS).map(|spec| {
        let mut record = Record::default();
        record[0] = spec.code;
        record
    });
    let input = Input { records: records.collect(), ..Input::default() };
    if let Ok(Ok(case)) = Case::build(&input) {
        let inputs = case.model.input_data(&case.data);
        for level in Level::ALL {
            // The answer is judged when it comes again.
            let _ = target.backend.compile(&case.onnx, level).and_then(|mut session| session.run(&inputs));
        }
    }
}

/// Counts what the models and answers of a run show.
fn count(found: BTreeSet<usize>) {
    meter::features(&found);
    if is_on(SEMANTIC_COUNTERS) {
        found.into_iter().for_each(|index| COUNTERS[index].store(1, Relaxed));
    }
}

/// Tests one input; panics on a finding, after printing it.
pub fn test(bytes: &Bytes) {
    merge::run(&bytes.0, || test_once(bytes));
    end_of_case();
}

/// Ends the process if it has used up its CPU time.
fn end_of_case() {
    if meter::end_of_case() {
        summarize();
        // SAFETY: ends the process. libFuzzer would take `exit` within a case for a finding.
        unsafe { libc::_exit(0) }
    }
}

fn test_once(bytes: &Bytes) {
    let harness = HARNESS.get().expect("`init` was called");
    let mut harness = harness.borrow_mut();
    let saved = SAVED.get();
    if let Some(saved) = saved {
        saved.borrow_mut().begin(&bytes.0).unwrap_or_else(|error| give_up(&error));
    }
    let verdict = harness.case(case::generate(&bytes.input())).and_then(|case| match case {
        Ok(mut case) => {
            count(features::of_model(&case.model));
            if merge::repeats() {
                case.setting = case.setting.filter(|axis| !matches!(axis.way, Way::Setting(Setting::Threads)));
            }
            harness.judge_at(&case, case.levels)
        }
        Err(reason) => Ok(Verdict::Skip(reason)),
    });
    count(harness.seen.iter().map(features::of_seen).collect());
    meter::seen(&harness.seen);
    // `summarize` reads it when a finding ends the process.
    drop(harness);
    if let Ok(verdict) = &verdict {
        meter::verdict(verdict);
    }
    match verdict {
        Ok(Verdict::Bug(finding)) => match saved {
            Some(saved) => saved.borrow_mut().keep(&finding, bytes).unwrap_or_else(|error| give_up(&error)),
            None => {
                print(&finding, &bytes.0, Path::new(ARTIFACTS));
                if std::env::var_os(KEEP_GOING).is_none() {
                    finding::raise(&finding);
                }
            }
        },
        Ok(_) => {}
        Err(defect) => {
            eprintln!("{bytes:?}");
            finding::raise_defect(&defect);
        }
    }
}

/// Mutates `data[..size]` in place, within `max_size`; the new size. `bytes` is libFuzzer's own mutation.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32, bytes: ByteMutator) -> usize {
    if is_off(MUTATION) {
        return bytes(data, size, max_size);
    }
    let mutated = mutate::mutate(&data[..size], None, max_size, seed, bytes);
    data[..mutated.len()].copy_from_slice(&mutated);
    mutated.len()
}

/// Writes a crossover of two inputs to `out`; its size.
pub fn cross(one: &[u8], other: &[u8], out: &mut [u8], seed: u32, bytes: ByteMutator) -> usize {
    if is_off(MUTATION) {
        // libFuzzer's own mutations include a crossover, which this one would only double.
        let size = one.len().min(out.len());
        out[..size].copy_from_slice(&one[..size]);
        let most = out.len();
        return bytes(out, size, most);
    }
    let mutated = mutate::mutate(one, Some(other), out.len(), seed, bytes);
    out[..mutated.len()].copy_from_slice(&mutated);
    mutated.len()
}

/// Whether a part of the feedback is switched off by its variable.
fn is_off(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "off")
}

fn is_on(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "on")
}

/// Prints what the run has met, and finishes its files.
pub fn summarize() {
    if let Some(saved) = SAVED.get().and_then(|saved| saved.try_borrow().ok()) {
        saved.end();
    }
    if let Some(harness) = HARNESS.get().and_then(|harness| harness.try_borrow().ok()) {
        eprint!("\n{}", harness.summary());
    }
    meter::finish();
    merge::finish();
}

fn print(finding: &Finding, bytes: &[u8], folder: &Path) {
    let path = folder.join(format!("crash-{}", input::digest(bytes)));
    let path = path.display();
    eprintln!("\n==== finding: {finding}");
    eprintln!("replay:  cargo run --release -- run {path}");
    eprintln!("    or:  scripts/fuzz {path}\n");
}

/// The length of a job whose own is too short to be worth its start; not beyond that of the whole run.
fn longer(given: &[String]) -> Option<String> {
    let lengths: Vec<u64> = given.iter().filter_map(|it| it.strip_prefix(LENGTH)?.parse().ok()).collect();
    let (&job, whole) = lengths.split_last()?;
    let whole = whole.last().copied().filter(|&whole| whole > 0).unwrap_or(u64::MAX);
    let least = SHORTEST_JOB_SECONDS.min(whole);
    (job < least).then(|| format!("{LENGTH}{least}"))
}

/// What a case may take before it counts as a hang.
fn timeout_seconds() -> u32 {
    if std::env::var_os(ISOLATE).is_some() { ISOLATED_TIMEOUT_SECONDS } else { TIMEOUT_SECONDS }
}

/// Whether libFuzzer has started this process to run the inputs of a merge. What the jobs of its fork mode have found is
/// measured as they have found it, and quickly.
fn is_merging(arguments: &[String]) -> bool {
    merge::is_inner(arguments) && std::env::var_os(FORKED).is_none()
}

/// libFuzzer's arguments, with graphsmith's defaults for what the user does not give.
pub fn arguments(mut given: Vec<String>) -> Vec<String> {
    let is_job = given.iter().any(|argument| argument.starts_with(JOB));
    if is_job || merge::is_inner(&given) {
        // libFuzzer's own fork mode stops its jobs when it ends, but not when it is killed. Where this is refused they end by
        // their limit on time.
        let _ = die_with(parent_id());
    }
    if is_merging(&given) {
        merge::repeat();
    }
    if is_job {
        given.extend(longer(&given));
    }
    if given.iter().any(|argument| argument.starts_with(FORK)) {
        // libFuzzer starts jobs by a shell, which would not die with it: the job takes the shell's place.
        given[0].insert_str(0, "exec ");
        // SAFETY: the process has no other thread yet.
        unsafe { std::env::set_var(FORKED, "1") };
    }
    let mut defaults = vec![format!("-timeout={}", timeout_seconds()), ENTROPIC.to_owned(), HIT_COUNTS.to_owned()];
    if Path::new(DICTIONARY).is_file() {
        defaults.push(format!("-dict={DICTIONARY}"));
    }
    let option = |argument: &str| argument.split_once('=').map(|(option, _)| option.to_owned());
    let named = |default: &String| given.iter().any(|argument| option(argument) == option(default));
    let missing: Vec<String> = defaults.into_iter().filter(|default| !named(default)).collect();
    let mut arguments = given;
    arguments.splice(1..1, missing);
    arguments.extend(merge::control(&arguments));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_worth_their_start() {
        let length = |given: &[&str]| longer(&given.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        assert_eq!(length(&["graph_diff", "-max_total_time=2"]).unwrap(), "-max_total_time=30");
        assert_eq!(length(&["-max_total_time=10", "-max_total_time=2"]).unwrap(), "-max_total_time=10");
        assert_eq!(length(&["-max_total_time=0", "-max_total_time=2"]).unwrap(), "-max_total_time=30");
        assert_eq!(length(&["-max_total_time=3600", "-max_total_time=31"]), None);
        assert_eq!(length(&["-runs=1"]), None);
    }
}
