//! The files that a triage looks at.

use super::state::State;
use crate::cli::{Error, Result, read};
use graphsmith::fuzz;
use graphsmith::input::digest;
use graphsmith::limits::MAX_INPUT_BYTES;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// What inputs are called that libFuzzer saves, and those that a fuzzer left that was killed.
const ARTIFACTS: [&str; 6] = ["crash-", "timeout-", "oom-", "leak-", "slow-unit-", fuzz::RUNNING];

/// What was found in folders.
#[derive(Default)]
pub struct Artifacts {
    /// The files to be judged, sorted.
    pub files: Vec<PathBuf>,
    /// How many files are called otherwise than artifacts.
    pub others: usize,
}

impl Artifacts {
    /// Of folders and all below them, and files whatever they are called.
    pub fn of(dirs: &[PathBuf]) -> Result<Artifacts> {
        let mut found = Artifacts::default();
        for dir in dirs {
            if dir.is_file() {
                found.files.push(dir.clone());
            } else {
                found.below(dir)?;
            }
        }
        found.files.sort();
        found.files.dedup();
        Ok(found)
    }

    fn below(&mut self, dir: &Path) -> Result<()> {
        let failed = |source| Error::Read { path: dir.to_owned(), source };
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A link to a folder above would never end.
            if path.is_dir() && !path.is_symlink() {
                self.below(&path)?;
            } else if !ARTIFACTS.iter().any(|artifact| name.starts_with(artifact)) {
                self.others += 1;
            } else if !fuzz::is_at_hand(&path)
                // Now, that whoever had it at hand may have taken it away.
                && path.is_file()
            {
                self.files.push(path);
            }
        }
        Ok(())
    }
}

/// An input that the state does not know.
pub struct New {
    pub file: PathBuf,
    pub digest: String,
    pub bytes: u64,
    pub seen: u64,
}

/// The inputs among the files that the state does not know, each once.
pub fn news(files: &[PathBuf], state: &State) -> Result<Vec<New>> {
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
