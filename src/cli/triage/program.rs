//! Builds and runs the programs of reports on backends in Rust. There is one package for each backend, so that its crates
//! are built once.

use super::child;
use super::reproduce::{LIMITS, LOG, PROGRAM, ran};
use super::state::Ran;
use super::worker::Found;
use graphsmith::backend::process::Limits;
use indicatif::ProgressBar;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How a program names its dependencies in its first lines.
const DEPENDENCY: &str = "//     ";
const NAME: &str = "repro";
/// The versions of all crates that this build was made of.
const LOCK: &str = include_str!("../../../Cargo.lock");
/// The crates of tract take five minutes of two cores.
const BUILD: Limits = Limits { time: Duration::from_secs(3600), memory_bytes: 16 << 30 };

pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Builds below `target` where graphsmith's sources are, else below `out`.
    pub fn new(out: &Path) -> Programs {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = if sources.exists() { sources.join("target/repro") } else { out.join(".repro") };
        Programs { folder }
    }

    /// Runs the program in a report folder.
    pub fn run(&self, folder: &Path, found: &Found, bar: &ProgressBar) -> io::Result<Ran> {
        let here = tempfile::tempdir()?;
        let program = here.path().join(NAME);
        if let Some(failed) = self.build(&folder.join(PROGRAM), &found.backend, &program, bar)? {
            return Ok(failed);
        }
        let mut command = Command::new(program);
        let status = child::run(command.current_dir(folder), &folder.join(LOG), LIMITS)?;
        Ok(ran(status, found.kind))
    }

    /// Builds a program. Some: why there is none.
    fn build(&self, source: &Path, backend: &str, program: &Path, bar: &ProgressBar) -> io::Result<Option<Ran>> {
        let package = self.folder.join(backend);
        fs::create_dir_all(package.join("src"))?;
        // Others wait here, in this process and in other ones.
        let lock = File::create(package.join(".lock"))?;
        lock.lock()?;
        let target = package.join("target");
        if !target.exists() {
            bar.set_message(format!("building the crates of {backend}, once"));
        }
        let text = fs::read_to_string(source)?;
        let needs: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(DEPENDENCY)).collect();
        let manifest = format!(
            "[package]\nname = \"{NAME}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n{}\n\n\
             # Half the time to build, and neither overflow checks nor debug assertions.\n\
             [profile.release]\nopt-level = 1\n\n[workspace]\n",
            needs.join("\n")
        );
        if fs::read_to_string(package.join("Cargo.toml")).ok().as_ref() != Some(&manifest) {
            fs::write(package.join("Cargo.lock"), LOCK)?;
            fs::write(package.join("Cargo.toml"), manifest)?;
        }
        fs::write(package.join("src/main.rs"), text)?;
        let log = package.join("build.txt");
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--quiet", "--target-dir"]).arg(&target).current_dir(&package);
        let status = match child::run(&mut cargo, &log, BUILD) {
            Ok(status) => status,
            Err(error) => return Ok(Some(Ran::NotRun(format!("cargo cannot be started: {error}")))),
        };
        bar.set_message("");
        if status.is_some_and(|status| status.success()) {
            fs::copy(target.join("release").join(NAME), program)?;
            return Ok(None);
        }
        let told = fs::read_to_string(log)?;
        let reason = told.lines().find(|line| line.starts_with("error")).unwrap_or("cargo does not say why");
        let reason = format!("it does not build ({reason})");
        let own = told.contains(&format!("could not compile `{NAME}`"));
        Ok(Some(if own { Ran::ShowsNot(reason) } else { Ran::NotRun(reason) }))
    }
}
