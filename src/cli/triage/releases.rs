//! The first release of a backend that has a bug, found by `scripts/bisect-release`.

use serde::Deserialize;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What the script writes into a report folder.
pub const FILE: &str = "releases.json";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bisect-release");

/// What is read of the file.
#[derive(Deserialize)]
struct Releases {
    /// `first bad 1.16.0 (1.15.1 is right)`.
    summary: String,
}

/// Has the script complete a report; else says why it did not.
pub fn find(folder: &Path) -> Result<(), String> {
    let mut command = Command::new(SCRIPT);
    command.arg(folder).stdin(Stdio::null());
    if let Ok(program) = env::current_exe() {
        command.arg("--graphsmith").arg(program);
    }
    let done = command.output().map_err(|error| format!("{SCRIPT} cannot be started: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(told.lines().last().unwrap_or("scripts/bisect-release does not say why it failed").to_owned())
}

/// The summary in a report folder.
pub fn summary(folder: &Path) -> Option<String> {
    let text = fs::read(folder.join(FILE)).ok()?;
    serde_json::from_slice(&text).ok().map(|releases: Releases| releases.summary)
}
