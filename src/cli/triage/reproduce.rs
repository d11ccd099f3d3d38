//! Runs the scripts and programs of reports.

use super::child::{self, describe};
use super::program::Programs;
use super::state::Ran;
use super::worker::Found;
use graphsmith::backend::process::Limits;
use graphsmith::oracle::Kind;
use indicatif::ProgressBar;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

pub const SCRIPT: &str = "repro.py";
pub const PROGRAM: &str = "repro.rs";
/// What the script printed.
pub const LOG: &str = "repro.txt";
/// Bytes of that which the report shows.
const SHOWN: usize = 2000;
/// An import of onnxruntime takes a second, on a busy machine ten; a hang is looked for by the script itself.
pub const LIMITS: Limits = Limits { time: Duration::from_secs(120), memory_bytes: 4 << 30 };

/// What runs the scripts and programs, or why they are not run.
pub struct Runners {
    python: Result<Python, String>,
    programs: Result<Programs, String>,
}

impl Runners {
    pub fn new(python: Option<&Path>, programs: bool, out: &Path) -> Runners {
        let programs = programs.then(|| Programs::new(out)).ok_or_else(|| "--no-programs was given".to_owned());
        Runners { python: Python::find(python), programs }
    }

    /// Runs what is in a report folder.
    pub fn run(&self, folder: &Path, found: &Found, bar: &ProgressBar) -> io::Result<Ran> {
        let not_run = |reason: &String| Ok(Ran::NotRun(reason.clone()));
        if folder.join(SCRIPT).exists() {
            self.python.as_ref().map_or_else(not_run, |python| python.run(folder, found))
        } else if folder.join(PROGRAM).exists() {
            self.programs.as_ref().map_or_else(not_run, |programs| programs.run(folder, found, bar))
        } else {
            Ok(Ran::NotRun("no program can be written for it".to_owned()))
        }
    }
}

/// What the end of a script or program says. None: it was stopped at a limit.
pub fn ran(status: Option<ExitStatus>, kind: Kind) -> Ran {
    match status {
        Some(status) if status.code() == Some(1) => Ran::Shows,
        Some(status) if status.success() => Ran::ShowsNot("it ends with status 0".to_owned()),
        // Scripts look after a process that dies; a program in Rust is that process.
        Some(status) if status.code().is_none() && kind == Kind::Crashed => Ran::Shows,
        Some(status) => Ran::ShowsNot(describe(status)),
        None if matches!(kind, Kind::TimedOut | Kind::OutOfMemory) => Ran::Shows,
        None => Ran::ShowsNot("it took too much time or memory".to_owned()),
    }
}

/// A Python that has what the scripts need.
pub struct Python {
    path: PathBuf,
    /// The version of its onnxruntime.
    version: String,
}

impl Python {
    /// The Python at `wanted`, else the first of the usual ones, that can run a script; else why none can.
    pub fn find(wanted: Option<&Path>) -> Result<Python, String> {
        let usual = [concat!(env!("CARGO_MANIFEST_DIR"), "/.native/venv/bin/python"), "python3"].map(PathBuf::from);
        let candidates = wanted.map_or_else(|| usual.to_vec(), |path| vec![path.to_owned()]);
        let mut reason = String::new();
        for path in candidates {
            let import = "import onnx, numpy, onnxruntime; print(onnxruntime.__version__)";
            match Command::new(&path).args(["-c", import]).output() {
                Ok(done) if done.status.success() => {
                    let version = String::from_utf8_lossy(&done.stdout).trim().to_owned();
                    return Ok(Python { path, version });
                }
                Ok(done) => {
                    let told = String::from_utf8_lossy(&done.stderr).trim().to_owned();
                    reason = format!("{}: {}", path.display(), told.lines().last().unwrap_or("fails"));
                }
                Err(error) if reason.is_empty() => reason = format!("{}: {error}", path.display()),
                Err(_) => {}
            }
        }
        Err(format!(
            "no Python with onnx, numpy and onnxruntime ({reason}): run scripts/setup, or name one with --python"
        ))
    }

    /// Runs the script in a folder.
    fn run(&self, folder: &Path, found: &Found) -> io::Result<Ran> {
        if self.version != found.version {
            return Ok(Ran::NotRun(format!(
                "{} has onnxruntime {}, and the finding is in {}: name another Python with --python",
                self.path.display(),
                self.version,
                found.version
            )));
        }
        // The script runs in another folder. A bare name is looked up as a shell would.
        let bare = self.path.components().count() == 1;
        let path = if bare { self.path.clone() } else { std::path::absolute(&self.path)? };
        let mut command = Command::new(path);
        let status = child::run(command.arg(SCRIPT).current_dir(folder), &folder.join(LOG), LIMITS)?;
        Ok(ran(status, found.kind))
    }
}

/// The last section of the README: what the script printed, or why it was not run.
pub fn tell(folder: &Path, ran: &Ran, needs: &str) -> io::Result<()> {
    let file = if folder.join(SCRIPT).exists() { SCRIPT } else { PROGRAM };
    let head = match ran {
        Ran::Shows => format!("`{file}` was run, and shows the bug."),
        Ran::ShowsNot(how) => format!("`{file}` was run, and does not show the bug: {how}."),
        Ran::NotRun(reason) => format!("`{file}` was not run: {reason}. To run it: {needs}."),
    };
    let printed = fs::read(folder.join(LOG)).unwrap_or_default();
    let printed = plain(&String::from_utf8_lossy(&printed[..printed.len().min(SHOWN)]));
    let printed =
        if printed.trim().is_empty() { String::new() } else { format!("\n```text\n{}\n```\n", printed.trim_end()) };
    let path = folder.join("README.md");
    let readme = fs::read_to_string(&path)?;
    fs::write(path, format!("{readme}\n## What the script printed\n\n{head}\n{printed}"))
}

/// The text without the colours that ONNX Runtime gives to its log.
fn plain(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_left_out() {
        assert_eq!(plain("a\u{1b}[0;93mb\u{1b}[m c m"), "ab c m");
    }

    #[test]
    fn statuses_are_told_apart() {
        use std::os::unix::process::ExitStatusExt;
        let exited = |code: i32| Some(ExitStatus::from_raw(code << 8));
        assert_eq!(ran(exited(1), Kind::WrongValue), Ran::Shows);
        assert!(matches!(ran(exited(0), Kind::WrongValue), Ran::ShowsNot(_)));
        let segfault = Some(ExitStatus::from_raw(11));
        assert_eq!(ran(segfault, Kind::Crashed), Ran::Shows);
        assert!(matches!(ran(segfault, Kind::WrongValue), Ran::ShowsNot(_)));
        assert_eq!(ran(None, Kind::TimedOut), Ran::Shows);
        assert!(matches!(ran(None, Kind::Crashed), Ran::ShowsNot(_)));
    }

    #[test]
    fn a_missing_python_is_told() {
        let reason = Python::find(Some(Path::new("/nonexistent/python"))).err().unwrap();
        assert!(reason.contains("/nonexistent/python") && reason.contains("--python"), "{reason}");
    }
}
