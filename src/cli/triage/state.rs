//! What triage knows from earlier runs, kept in one file that is whole at every moment.

use super::worker::{Found, Word};
use super::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub const FILE: &str = "state.json";
/// Inputs of a bucket that are minimised: the least case is kept.
pub const CANDIDATES: usize = 3;

#[derive(Serialize, Deserialize, Default)]
pub struct State {
    /// What has judged: the versions of graphsmith and of the backends, and the known issues.
    pub judge: Vec<String>,
    /// Every input by the digest of its bytes.
    pub inputs: BTreeMap<String, Entry>,
    /// The report of every bucket, by signature.
    pub reports: BTreeMap<String, Written>,
    /// Buckets whose inputs have not shown it again, by signature.
    #[serde(default)]
    pub fickle: BTreeMap<String, Fickle>,
}

/// An input of the fuzzer.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    pub file: PathBuf,
    pub bytes: u64,
    /// When the file was last changed, in seconds since 1970.
    pub seen: u64,
    pub word: Word,
}

/// A finding that was met, and not met again when its report was to be written.
#[derive(Serialize, Deserialize, Clone)]
pub struct Fickle {
    pub folder: String,
    /// The digests of the inputs that were tried.
    pub tried: Vec<String>,
    pub found: Found,
    /// What came of the last of them.
    pub then: String,
}

/// A report folder.
#[derive(Serialize, Deserialize, Clone)]
pub struct Written {
    pub folder: String,
    /// The digest of the smallest input of its bucket when it was written.
    pub input: String,
    pub ran: Ran,
    /// What it tells.
    pub found: Found,
}

/// What came of running a report's script.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Ran {
    /// Exit status 1: it shows the bug.
    Shows,
    /// Another status, or stopped at a limit.
    ShowsNot(String),
    /// Not run, and why.
    NotRun(String),
}

/// The inputs with one signature.
pub struct Bucket<'a> {
    /// The smallest with their digests, first by bytes and then by digest, at most [`CANDIDATES`].
    pub candidates: Vec<(&'a str, &'a Entry)>,
    pub meetings: usize,
    pub first_seen: u64,
    pub last_seen: u64,
}

/// A bug: the buckets whose reports tell the same.
pub struct Bug<'a> {
    /// Of the report with the fewest operators and the smallest input.
    pub found: &'a Found,
    pub written: Option<&'a Written>,
    /// The folders of the other reports.
    pub others: Vec<&'a str>,
    /// Of that report's input.
    pub bytes: u64,
    pub meetings: usize,
    pub first_seen: u64,
    pub last_seen: u64,
}

impl State {
    /// The state in a folder; an empty one where there is none yet.
    pub fn read(folder: &Path) -> Result<State> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                let shown = path.display();
                Error::Usage(format!("{shown} is not the state of a triage ({error}): remove it to begin anew"))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::default()),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(std::io::Error::from).map_err(Error::Output)?;
        replace(&folder.join(FILE), &text)
    }

    pub fn buckets(&self) -> BTreeMap<&str, Bucket<'_>> {
        let mut buckets: BTreeMap<&str, Bucket> = BTreeMap::new();
        for (digest, entry) in &self.inputs {
            let Word::Finding(found) = &entry.word else { continue };
            let bucket = buckets.entry(found.signature.as_str()).or_insert(Bucket {
                candidates: Vec::new(),
                meetings: 0,
                first_seen: entry.seen,
                last_seen: entry.seen,
            });
            bucket.meetings += 1;
            bucket.first_seen = bucket.first_seen.min(entry.seen);
            bucket.last_seen = bucket.last_seen.max(entry.seen);
            bucket.candidates.push((digest, entry));
            bucket.candidates.sort_by_key(|(digest, entry)| (entry.bytes, *digest));
            bucket.candidates.truncate(CANDIDATES);
        }
        buckets
    }

    /// The bugs, those that are met most often first, without those that are fickle.
    pub fn bugs(&self) -> Vec<Bug<'_>> {
        let mut bugs: BTreeMap<&str, Bug> = BTreeMap::new();
        for (signature, bucket) in self.buckets() {
            let (_, smallest) = bucket.candidates[0];
            let Word::Finding(found) = &smallest.word else { continue };
            let written = self.reports.get(signature);
            if written.is_none() && self.fickle.contains_key(signature) {
                continue;
            }
            let found = written.map_or(&**found, |written| &written.found);
            let Bucket { meetings, first_seen, last_seen, .. } = bucket;
            let bytes = smallest.bytes;
            let others = Vec::new();
            let mut bug = Bug { found, written, others, bytes, meetings, first_seen, last_seen };
            if let Some(mut same) = bugs.remove(found.signature.as_str()) {
                if (found.operators, bytes) < (same.found.operators, same.bytes) {
                    std::mem::swap(&mut bug, &mut same);
                }
                same.others.extend(bug.written.map(|written| written.folder.as_str()));
                same.others.append(&mut bug.others);
                same.meetings += bug.meetings;
                same.first_seen = same.first_seen.min(bug.first_seen);
                same.last_seen = same.last_seen.max(bug.last_seen);
                bug = same;
            }
            bugs.insert(found.signature.as_str(), bug);
        }
        let mut bugs: Vec<Bug> = bugs.into_values().collect();
        bugs.sort_by_key(|bug| std::cmp::Reverse(bug.meetings));
        bugs
    }

    /// How often each known issue was met.
    pub fn known(&self) -> BTreeMap<&str, usize> {
        let mut met = BTreeMap::new();
        for entry in self.inputs.values() {
            if let Word::Known(ids) = &entry.word {
                let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                ids.sort_unstable();
                ids.dedup();
                ids.into_iter().for_each(|id| *met.entry(id).or_insert(0) += 1);
            }
        }
        met
    }
}

/// Replaces a file as a whole: whoever reads it, also after a crash, finds the old or the new content.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let written = fs::write(&partial, content).and_then(|()| fs::rename(&partial, path));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphsmith::backend::Level;
    use graphsmith::oracle::Kind;

    fn entry(signature: &str, bytes: u64, seen: u64) -> Entry {
        let found = Found {
            bucket: signature.to_owned(),
            signature: signature.to_owned(),
            title: String::new(),
            backend: "canary".to_owned(),
            version: "1.0.0".to_owned(),
            level: Level::On,
            kind: Kind::WrongValue,
            culprit: None,
            cause: None,
            operators: 1,
            symptom: String::new(),
            context: None,
        };
        Entry { file: PathBuf::new(), bytes, seen, word: Word::Finding(Box::new(found)) }
    }

    #[test]
    fn a_bucket_shows_its_smallest_input() {
        let mut state = State::default();
        for (digest, entry) in [("a", entry("one", 64, 5)), ("b", entry("one", 32, 9)), ("c", entry("two", 32, 7))] {
            state.inputs.insert(digest.to_owned(), entry);
        }
        let buckets = state.buckets();
        let one = &buckets["one"];
        let digests: Vec<&str> = one.candidates.iter().map(|(digest, _)| *digest).collect();
        assert_eq!((buckets.len(), &digests[..], one.meetings), (2, &["b", "a"][..], 2));
        assert_eq!((one.first_seen, one.last_seen), (5, 9));
    }

    #[test]
    fn buckets_whose_reports_tell_the_same_are_one_bug() {
        let mut state = State::default();
        for (digest, signature, seen) in [("a", "one", 5), ("b", "two", 3), ("c", "two", 4), ("d", "three", 9)] {
            state.inputs.insert(digest.to_owned(), entry(signature, 32, seen));
        }
        for (signature, told, operators) in [("one", "least", 1), ("two", "least", 2), ("three", "other", 1)] {
            let Word::Finding(found) = entry(told, 32, 0).word else { unreachable!() };
            let found = Found { operators, ..*found };
            let (folder, input) = (format!("folder-{signature}"), String::new());
            state.reports.insert(signature.to_owned(), Written { folder, input, ran: Ran::Shows, found });
        }
        let bugs = state.bugs();
        let told: Vec<(&str, usize)> = bugs.iter().map(|bug| (bug.found.signature.as_str(), bug.meetings)).collect();
        assert_eq!(told, [("least", 3), ("other", 1)]);
        assert_eq!(bugs[0].written.unwrap().folder, "folder-one");
        assert_eq!((&bugs[0].others[..], bugs[0].first_seen, bugs[0].last_seen), (&["folder-two"][..], 3, 5));
    }

    #[test]
    fn what_is_fickle_is_no_bug_until_it_has_a_report() {
        let mut state = State::default();
        state.inputs.insert("a".to_owned(), entry("one", 64, 5));
        let Word::Finding(found) = entry("one", 64, 5).word else { unreachable!() };
        let (folder, tried, then) = (String::new(), vec!["a".to_owned()], String::new());
        state.fickle.insert("one".to_owned(), Fickle { folder, tried, found: *found.clone(), then });
        assert!(state.bugs().is_empty());
        let (folder, input) = (String::new(), "a".to_owned());
        state.reports.insert("one".to_owned(), Written { folder, input, ran: Ran::Shows, found: *found });
        assert_eq!(state.bugs().len(), 1);
    }

    #[test]
    fn the_state_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::read(folder.path()).unwrap();
        state.inputs.insert("a".to_owned(), entry("one", 64, 5));
        let known = Entry { word: Word::Known(vec!["x".to_owned(), "x".to_owned()]), ..entry("", 1, 1) };
        state.inputs.insert("k".to_owned(), known);
        state.write(folder.path()).unwrap();
        let read = State::read(folder.path()).unwrap();
        assert_eq!(read.buckets()["one"].candidates[0].1.bytes, 64);
        assert_eq!(read.known()["x"], 1);
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(State::read(folder.path()).is_err());
    }
}
