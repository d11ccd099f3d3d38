//! Coverage of shared libraries as they are shipped, even closed ones: at the start of every basic block stands a
//! breakpoint that counts, and removes itself, when it is first met (coverage-guided tracing).
//!
//! What has been met costs nothing any more, so a run is as fast as without. Only new blocks count: that is what a fuzzer
//! asks for. Linux on x86-64 only; elsewhere [`start`] says so.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU8;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod arm;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod plan;

/// Blocks that share one counter, each with a value of its own that libFuzzer tells from the others.
pub const BLOCKS_A_COUNTER: usize = 8;

/// What is traced.
pub struct Tracing {
    /// The counters, to be registered with the engine, which must clear them before every run.
    pub counters: &'static [AtomicU8],
    /// The address of the first block of each counter.
    pub places: &'static [usize],
    pub functions: usize,
    /// Functions that could not be decoded beyond doubt, and so are left alone.
    pub dropped: usize,
    pub blocks: usize,
}

/// Why nothing is traced.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("tracing exists for Linux on x86-64 only")]
    Platform,
    #[error("a library is traced already, and tracing is for all at once")]
    Twice,
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be analysed: {reason}")]
    Analysis { path: PathBuf, reason: String },
    #[error("{0} has counters of its own")]
    Instrumented(PathBuf),
    #[error("{0} is not loaded")]
    NotLoaded(PathBuf),
    #[error("the code of {path} cannot be made writable: {source}")]
    Protected { path: PathBuf, source: std::io::Error },
}

/// Puts the breakpoints into a loaded library, once in a process. Plans are kept in `cache`, by the library's build id.
///
/// A debugger meets the breakpoints too: use it without tracing.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn start(library: &Path, cache: Option<&Path>) -> Result<Tracing, Error> {
    let plan = plan::of(library, cache)?;
    arm::arm(library, &plan)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn start(_library: &Path, _cache: Option<&Path>) -> Result<Tracing, Error> {
    Err(Error::Platform)
}
