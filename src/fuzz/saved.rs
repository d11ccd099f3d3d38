//! Findings saved on the way, in a run that goes on past them.

use super::{Bytes, Error, print};
use crate::finding::Finding;
use crate::input;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How the file begins that holds the input at hand, in case that the process is killed.
pub const RUNNING: &str = "running-";

/// Whether a file of that name holds the input of a process that lives.
pub fn is_at_hand(name: &str) -> bool {
    let process = name.strip_prefix(RUNNING).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    process.is_some_and(|id| Path::new(&format!("/proc/{id}")).exists())
}

/// Inputs of one signature that are saved by a process, besides those that are smaller than all before.
const MOST: usize = 5;

/// The folder of a run and what it has saved there.
pub struct Saved {
    folder: PathBuf,
    /// The input at hand; opened with the first one.
    running: Option<(PathBuf, File)>,
    /// By signature how many were saved, and the size of the smallest.
    met: BTreeMap<String, (usize, usize)>,
}

impl Saved {
    pub fn new(folder: PathBuf) -> Result<Saved, Error> {
        fs::create_dir_all(&folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
        Ok(Saved { folder, running: None, met: BTreeMap::new() })
    }

    /// Writes the input that is about to be run.
    pub fn begin(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.running.is_none() {
            self.running = Some(self.open()?);
        }
        let (path, file) = self.running.as_ref().expect("it was just opened");
        // Not all at once, but whoever is killed in between has not run it.
        let written = file.set_len(0).and_then(|()| file.write_all_at(bytes, 0));
        written.map_err(|source| Error::Write { path: path.clone(), source })
    }

    /// A file that no process before had, whose input may still be wanted.
    fn open(&self) -> Result<(PathBuf, File), Error> {
        for number in 0.. {
            let path = self.folder.join(format!("{RUNNING}{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((path, file)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::Write { path, source }),
            }
        }
        unreachable!("there are more numbers than files")
    }

    /// Saves the input of a finding as libFuzzer would, and prints the first of each signature.
    pub fn keep(&mut self, finding: &Finding, Bytes(bytes): &Bytes) -> Result<(), Error> {
        let (count, smallest) = self.met.entry(finding.signature.clone()).or_insert((0, usize::MAX));
        if *count == 0 {
            print(finding, bytes, &self.folder);
        }
        if *count >= MOST && bytes.len() >= *smallest {
            return Ok(());
        }
        *count += 1;
        *smallest = bytes.len().min(*smallest);
        let path = self.folder.join(format!("crash-{}", input::digest(bytes)));
        write(&path, bytes).map_err(|source| Error::Write { path, source })
    }

    /// Takes away the input at hand: the process has survived it.
    pub fn end(&self) {
        if let Some((path, _)) = &self.running {
            // One that stays is judged once more, which does no harm.
            let _ = fs::remove_file(path);
        }
    }
}

/// Whoever reads the file finds all of it.
fn write(path: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_at_hand_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut saved = Saved::new(folder.path().join("new")).unwrap();
        saved.begin(b"a longer one").unwrap();
        saved.begin(b"short").unwrap();
        let files = || -> Vec<PathBuf> {
            fs::read_dir(folder.path().join("new")).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        assert!(files().iter().all(|file| is_at_hand(file.file_name().unwrap().to_str().unwrap())));
        let mut other = Saved::new(folder.path().join("new")).unwrap();
        other.begin(b"other").unwrap();
        assert_eq!(files().len(), 2, "one for each");
        other.end();
        assert_eq!(fs::read(&files()[0]).unwrap(), b"short");
        saved.end();
        assert!(files().is_empty());
        assert!(!is_at_hand("running-0-0") && !is_at_hand("crash-0"), "no process has the number 0");
    }
}
