//! Coverage of shared libraries. One that a compiler has instrumented has counters of its own. In one as it is shipped,
//! even a closed one, a breakpoint stands at the start of every basic block, counts when it is first met, and removes
//! itself (coverage-guided tracing).
//!
//! What has been met costs nothing any more, so a run is as fast as without. Only new blocks count: that is what a fuzzer
//! asks for. Either way the counters are in memory that processes forked from this one share: what a library does in a
//! child is seen here. Linux on x86-64 only; elsewhere [`start`] says so.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU8;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod arm;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod counters;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod plan;

/// Blocks that share one counter, each with a value of its own that libFuzzer tells from the others.
pub const BLOCKS_A_COUNTER: usize = 8;

/// How the coverage of a library is had.
pub enum Coverage {
    Traced(Tracing),
    /// The library's own counters, which it has registered with the engine itself when it was loaded.
    Instrumented(&'static [AtomicU8]),
}

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
    #[error("{0} is not loaded")]
    NotLoaded(PathBuf),
    #[error("the code of {path} cannot be made writable: {source}")]
    Protected { path: PathBuf, source: std::io::Error },
    #[error("no memory for the counters of {path}: {source}")]
    Memory { path: PathBuf, source: std::io::Error },
}

/// Finds the counters of a loaded library or, if it has none, puts the breakpoints into it, which can be done for one
/// library in a process. Plans are kept in `cache`, by the library's build id.
///
/// A debugger meets the breakpoints too: use it without tracing.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn start(library: &Path, cache: Option<&Path>) -> Result<Coverage, Error> {
    match counters::of(library)? {
        Some(own) => Ok(Coverage::Instrumented(own)),
        None => arm::arm(library, &plan::of(library, cache)?).map(Coverage::Traced),
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn start(_library: &Path, _cache: Option<&Path>) -> Result<Coverage, Error> {
    Err(Error::Platform)
}

/// The counters of this program, if it is instrumented: what Rust backends do is counted in forked processes as well.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn program() -> Result<Option<&'static [AtomicU8]>, Error> {
    counters::of(Path::new(arm::PROGRAM))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn program() -> Result<Option<&'static [AtomicU8]>, Error> {
    Err(Error::Platform)
}
