//! What a run has reached, whatever feedback steers it: for comparing kinds of feedback by the same measure. Written to a file as
//! JSON from time to time, so that a killed run leaves its figures, and taken up again by the next run that names the file.

use crate::clock::cpu_time;
use crate::features::{self, Seen};
use crate::harness::Verdict;
use crate::trace;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

/// The file to write to.
const FILE: &str = "GRAPHSMITH_METER";
/// CPU seconds after which the run ends, over all runs of the same file.
const LIMIT: &str = "GRAPHSMITH_CPU_LIMIT";
/// CPU seconds between two points of the curve, after each of which the file is written.
const STEP: Duration = Duration::from_secs(5);

/// Not of a thread: it is still asked while the process exits.
static METER: Mutex<Option<Meter>> = Mutex::new(None);

/// Whose code a counter is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Tract,
    Rten,
    /// A shared library that brings counters of its own.
    Library,
    /// graphsmith itself, and what all Rust code shares.
    Other,
}

impl Part {
    /// By the mangled name of a function: what it names first, which may be a type that shared code was made for.
    fn of(symbol: &str) -> Part {
        let crates = [("graphsmith", Part::Other), ("tract_", Part::Tract), ("rten", Part::Rten)];
        // A name follows its length or, in the types of legacy symbols, a punctuation mark.
        let first = |family: &str| {
            let mut places = symbol.match_indices(family).map(|(at, _)| at);
            places.find(|&at| !symbol[..at].ends_with(|c: char| c.is_alphabetic()))
        };
        let found = crates.into_iter().filter_map(|(family, part)| Some((first(family)?, part)));
        found.min_by_key(|&(at, _)| at).map_or(Part::Other, |(_, part)| part)
    }
}

/// Counters that are looked at after each case.
pub struct Watched {
    counters: &'static [AtomicU8],
    parts: Vec<Part>,
}

impl Watched {
    /// Those of this program.
    pub fn program(counters: &'static [AtomicU8]) -> Watched {
        let parts = trace::classify(Part::of).unwrap_or_default();
        let parts = if parts.len() == counters.len() { parts } else { vec![Part::Other; counters.len()] };
        Watched { counters, parts }
    }

    pub fn library(counters: &'static [AtomicU8]) -> Watched {
        Watched { counters, parts: vec![Part::Library; counters.len()] }
    }
}

/// Figures at some time of a run.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Point {
    cpu_seconds: f64,
    cases: u64,
    /// Blocks of the traced library, or places in one that is instrumented.
    blocks: usize,
    tract_edges: usize,
    rten_edges: usize,
    other_edges: usize,
    rules: usize,
    pairs: usize,
    features: usize,
    /// Signatures of findings, and known issues.
    findings: usize,
    known: usize,
}

/// The file.
#[derive(Default, Serialize, Deserialize)]
struct Report {
    /// The run has come to its end.
    done: bool,
    #[serde(flatten)]
    now: Point,
    curve: Vec<Point>,
    findings_met: BTreeMap<String, u64>,
    known_met: BTreeMap<String, u64>,
    /// What was reached, for the next run of the same build: four flags a digit.
    rules_met: BTreeSet<String>,
    blocks_met: String,
    edges_met: Vec<String>,
    features_met: String,
}

struct Meter {
    file: Option<PathBuf>,
    limit: Option<Duration>,
    /// CPU time when counting began, and that of earlier runs.
    began: Duration,
    earlier: Duration,
    /// The CPU time at which the next point is due.
    due: Duration,
    watched: Vec<Watched>,
    /// A flag for each watched counter, for each block met by earlier runs, and for each feature.
    edges: Vec<Vec<bool>>,
    blocks: Vec<bool>,
    features: Vec<bool>,
    /// The limit is reached, or everything was run.
    ended: bool,
    report: Report,
}

/// Whether everything is to be counted, whatever feedback is off.
pub fn is_wanted() -> bool {
    std::env::var_os(FILE).is_some()
}

/// Begins to count, if the environment says so.
pub fn start(watched: Vec<Watched>) {
    let file = std::env::var_os(FILE).map(PathBuf::from);
    let limit = std::env::var(LIMIT).ok().map(|text| match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            eprintln!("graphsmith: {LIMIT} must be a whole number of seconds, and is `{text}`");
            std::process::exit(2);
        }
    });
    if file.is_some() || limit.is_some() {
        let report = file.as_ref().and_then(|path| serde_json::from_slice(&fs::read(path).ok()?).ok());
        let meter = Meter::new(file, limit, watched, report.unwrap_or_default());
        METER.lock().expect("nothing panics that holds it").replace(meter);
    }
}

/// Counts features of a case; see [`crate::features`].
pub fn features(found: &BTreeSet<usize>) {
    with(|meter| found.iter().for_each(|&index| meter.features[index] = true));
}

/// Counts what was seen of the backends.
pub fn seen(seen: &BTreeSet<Seen>) {
    with(|meter| {
        for seen in seen {
            meter.features[features::of_seen(seen)] = true;
            if let Seen::Rule { backend, operator, fewer } = seen {
                let change = if *fewer { "fewer" } else { "more" };
                meter.report.rules_met.insert(format!("{backend} {operator} {change}"));
            }
        }
    });
}

/// Counts a finding or known issues.
pub fn verdict(verdict: &Verdict) {
    match verdict {
        Verdict::Bug(finding) => self::finding(&finding.signature),
        Verdict::Known(issues) => with(|meter| {
            issues.iter().for_each(|issue| *meter.report.known_met.entry(issue.clone()).or_default() += 1);
        }),
        Verdict::Agree | Verdict::Skip(_) => {}
    }
}

pub fn finding(signature: &str) {
    with(|meter| *meter.report.findings_met.entry(signature.to_owned()).or_default() += 1);
}

/// To be called after each case; whether the run is over.
pub fn end_of_case() -> bool {
    let mut over = false;
    with(|meter| over = meter.end_of_case());
    over
}

/// Sets the counters to zero, where no engine does it between cases.
pub fn clear() {
    with(|meter| meter.watched.iter().flat_map(|watched| watched.counters).for_each(|it| it.store(0, Relaxed)));
}

/// There is nothing left to run, whatever the limit.
pub fn complete() {
    with(|meter| meter.ended = true);
}

/// Writes the file for the last time.
pub fn finish() {
    with(|meter| meter.write(meter.ended || meter.limit.is_none()));
}

fn with(change: impl FnOnce(&mut Meter)) {
    if let Ok(mut meter) = METER.lock() {
        meter.as_mut().map(change);
    }
}

impl Meter {
    fn new(file: Option<PathBuf>, limit: Option<Duration>, watched: Vec<Watched>, report: Report) -> Meter {
        let sizes = watched.iter().map(|watched| watched.counters.len());
        // Of a build with other counters, there is nothing to go on with but the figures.
        let edges = sizes.enumerate().map(|(index, size)| {
            let before = report.edges_met.get(index).and_then(|digits| unpack(digits, size));
            before.unwrap_or_else(|| vec![false; size])
        });
        let edges = edges.collect();
        let size = trace::met().len();
        let blocks = unpack(&report.blocks_met, size).unwrap_or_else(|| vec![false; size]);
        let features = unpack(&report.features_met, features::COUNT).unwrap_or_else(|| vec![false; features::COUNT]);
        let earlier = Duration::from_secs_f64(report.now.cpu_seconds);
        Meter {
            file,
            limit,
            began: cpu_time(),
            earlier,
            due: earlier,
            watched,
            edges,
            blocks,
            features,
            ended: false,
            report,
        }
    }

    fn end_of_case(&mut self) -> bool {
        self.report.now.cases += 1;
        for (watched, edges) in self.watched.iter().zip(&mut self.edges) {
            trace::nonzero(watched.counters, |index, _| edges[index] = true);
        }
        let spent = self.spent();
        let over = self.limit.is_some_and(|limit| spent >= limit);
        self.ended |= over;
        if spent >= self.due && !over {
            self.due = spent + STEP;
            self.write(false);
        }
        over
    }

    fn spent(&self) -> Duration {
        self.earlier + (cpu_time() - self.began)
    }

    /// Takes the figures, and writes the file.
    fn write(&mut self, done: bool) {
        let Some(file) = &self.file else { return };
        self.blocks.iter_mut().zip(trace::met()).for_each(|(block, met)| *block |= met);
        let count = |flags: &[bool]| flags.iter().filter(|&&flag| flag).count();
        let edges = |part: Part| {
            let all = self.watched.iter().zip(&self.edges).flat_map(|(watched, edges)| watched.parts.iter().zip(edges));
            all.filter(|&(&its, &met)| met && its == part).count()
        };
        let report = &self.report;
        let now = Point {
            cpu_seconds: self.spent().as_secs_f64(),
            cases: report.now.cases,
            blocks: count(&self.blocks) + edges(Part::Library),
            tract_edges: edges(Part::Tract),
            rten_edges: edges(Part::Rten),
            other_edges: edges(Part::Other),
            rules: report.rules_met.len(),
            pairs: count(&self.features[features::PAIRS]),
            features: count(&self.features),
            findings: report.findings_met.len(),
            known: report.known_met.len(),
        };
        self.report.done = done;
        self.report.now = now;
        self.report.curve.push(now);
        self.report.blocks_met = pack(&self.blocks);
        self.report.edges_met = self.edges.iter().map(|edges| pack(edges)).collect();
        self.report.features_met = pack(&self.features);
        if let Err(error) = save(file, &self.report) {
            eprintln!("graphsmith: cannot write {}: {error}", file.display());
            // SAFETY: ends the process. What is called at a regular exit would want the meter, which is held here.
            unsafe { libc::_exit(2) }
        }
    }
}

/// Whoever reads the file finds the old content or the new one, whole.
fn save(file: &Path, report: &Report) -> std::io::Result<()> {
    let partial = file.with_extension("partial");
    fs::write(&partial, serde_json::to_vec(report)?)?;
    fs::rename(&partial, file)
}

fn pack(flags: &[bool]) -> String {
    let digit = |four: &[bool]| four.iter().rev().fold(0, |digit, &flag| digit << 1 | u32::from(flag));
    flags.chunks(4).filter_map(|four| char::from_digit(digit(four), 16)).collect()
}

fn unpack(digits: &str, count: usize) -> Option<Vec<bool>> {
    let digits: Vec<u32> = digits.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let fits = digits.len() == count.div_ceil(4);
    fits.then(|| (0..count).map(|index| digits[index / 4] >> (index % 4) & 1 == 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_back() {
        for count in 0..20 {
            let flags: Vec<bool> = (0..count).map(|index| index % 3 == 0).collect();
            assert_eq!(unpack(&pack(&flags), count), Some(flags));
        }
        assert_eq!(unpack("f", 5), None);
        assert_eq!(unpack("g", 4), None);
    }

    #[test]
    fn functions_belong_to_crates() {
        let both = [
            ("_RNvNtCs9xYz_10tract_core3ops6expand", Part::Tract),
            ("_ZN10tract_core5model5graph17h0123456789abcdefE", Part::Tract),
            ("_ZN71_$LT$tract_core..ops..Op$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123E", Part::Tract),
            ("_RNvNtCs9xYz_4rten5graph3run", Part::Rten),
            ("_ZN11rten_tensor6layout17h0123E", Part::Rten),
            ("_ZN10graphsmith7backend4rten4load17h0123E", Part::Other),
            ("_RNvNtCs9xYz_10graphsmith7backend5tract", Part::Other),
            ("_RINvNtCs9xYz_10tract_core5model3addEBCs8_10graphsmith", Part::Tract),
            ("_ZN4core3str7shorten17h0123E", Part::Other),
            ("", Part::Other),
        ];
        both.iter().for_each(|&(symbol, part)| assert_eq!(Part::of(symbol), part, "{symbol}"));
    }

    #[test]
    fn a_run_goes_on_where_the_last_one_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("meter.json");
        let counters: &'static [AtomicU8] = Vec::from_iter((0..10).map(|_| AtomicU8::new(0))).leak();
        let watched = || vec![Watched { counters, parts: [[Part::Tract; 5], [Part::Library; 5]].concat() }];
        let read = || serde_json::from_slice::<Report>(&fs::read(&file).unwrap()).unwrap();
        let mut meter = Meter::new(Some(file.clone()), None, watched(), Report::default());
        counters[3].store(7, Relaxed);
        meter.features[features::PAIRS.start] = true;
        meter.features[0] = true;
        assert!(!meter.end_of_case());
        let first = read();
        assert_eq!((first.now.cases, first.now.tract_edges, first.now.pairs, first.now.features), (1, 1, 1, 2));
        assert!(!first.done);

        let spent = first.now.cpu_seconds;
        let mut meter = Meter::new(Some(file.clone()), Some(Duration::ZERO), watched(), first);
        counters[3].store(0, Relaxed);
        [4, 9].iter().for_each(|&index: &usize| counters[index].store(1, Relaxed));
        assert!(meter.end_of_case(), "the limit is reached");
        meter.write(true);
        let second = read();
        assert!(second.done && second.now.cpu_seconds >= spent);
        assert_eq!((second.now.cases, second.now.tract_edges, second.now.blocks, second.now.features), (2, 2, 1, 2));
        assert_eq!(second.curve.len(), 2);
        let other = vec![Watched { counters: &counters[..8], parts: vec![Part::Rten; 8] }];
        assert!(Meter::new(None, None, other, second).edges[0].iter().all(|&edge| !edge), "another build");
    }
}
