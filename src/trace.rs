//! Coverage of shared libraries. One that a compiler has instrumented has counters of its own. In one as it is shipped,
//! even a closed one, a breakpoint stands at the start of every basic block, counts when it is first met, and removes
//! itself (coverage-guided tracing).
//!
//! What has been met costs nothing any more, so a run is as fast as without. Only new blocks count: that is what a fuzzer
//! asks for. Whoever asks which blocks one run meets puts the breakpoints back before it ([`rearm`]). Either way the
//! counters are in memory that processes forked from this one share: what a library does in a
//! child is seen here. Linux on x86-64 only; elsewhere [`start`] says so.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod arm;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod counters;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod plan;

/// Blocks that share one counter, each with a value of its own that libFuzzer tells from the others.
pub const BLOCKS_A_COUNTER: usize = 8;

/// How many blocks share a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grain {
    /// [`BLOCKS_A_COUNTER`]: few counters to look at after every run, of which hardly one shows two new blocks at once.
    Shared,
    /// One: which blocks a run meets is told exactly, also when they are many.
    Exact,
}

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
    Read { path: PathBuf, source: io::Error },
    #[error("{path} cannot be analysed: {reason}")]
    Analysis { path: PathBuf, reason: String },
    #[error("{0} is not loaded")]
    NotLoaded(PathBuf),
    #[error("the code of {path} cannot be made writable: {source}")]
    Protected { path: PathBuf, source: io::Error },
    #[error("no memory for the counters of {path}: {source}")]
    Memory { path: PathBuf, source: io::Error },
}

/// Finds the counters of a loaded library or, if it has none, puts the breakpoints into it, which can be done for one
/// library in a process. Plans are kept in `cache`, by the library's build id.
///
/// A debugger meets the breakpoints too: use it without tracing.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn start(library: &Path, cache: Option<&Path>, grain: Grain) -> Result<Coverage, Error> {
    match counters::of(library)? {
        Some(own) => Ok(Coverage::Instrumented(own)),
        None => arm::arm(library, &plan::of(library, cache)?, grain).map(Coverage::Traced),
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn start(_library: &Path, _cache: Option<&Path>, _grain: Grain) -> Result<Coverage, Error> {
    Err(Error::Platform)
}

/// Puts back every breakpoint that was met since the last call, in the traced library if there is one. No other thread may
/// be in the library meanwhile.
pub fn rearm() {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    arm::rearm();
}

/// For each block of the traced library whether it was ever met, by this process or one forked from it; nothing without one.
pub fn met() -> Vec<bool> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return arm::met();
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    return Vec::new();
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

/// What `class` says of the mangled name of the function that each of [`program`]'s counters is in.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub fn classify<T: Copy>(class: impl Fn(&str) -> T) -> Result<Vec<T>, Error> {
    counters::classify(Path::new(arm::PROGRAM), class)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn classify<T: Copy>(_class: impl Fn(&str) -> T) -> Result<Vec<T>, Error> {
    Err(Error::Platform)
}

/// From now on this process and those forked from it count for themselves with these counters, and no other process does.
pub fn unshare(counters: &'static [AtomicU8]) -> io::Result<()> {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    counters::unshare(counters)?;
    Ok(())
}

/// Calls `found` with the index and the value of each counter that is not zero.
pub fn nonzero(counters: &[AtomicU8], mut found: impl FnMut(usize, u8)) {
    let mut each = |from: usize, counters: &[AtomicU8]| {
        let values = counters.iter().map(|counter| counter.load(Relaxed)).enumerate();
        values.filter(|&(_, value)| value != 0).for_each(|(index, value)| found(from + index, value));
    };
    // SAFETY: eight counters side by side may be read as one number, most often a zero.
    let (head, words, tail) = unsafe { counters.align_to::<AtomicU64>() };
    each(0, head);
    for (word, at) in words.iter().zip((head.len()..).step_by(8)) {
        if word.load(Relaxed) != 0 {
            each(at, &counters[at..at + 8]);
        }
    }
    each(counters.len() - tail.len(), tail);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_that_is_not_zero_is_found() {
        let counters: Vec<AtomicU8> = (0..100u8).map(|index| AtomicU8::new(index % 7)).collect();
        for from in 0..9 {
            let mut found = Vec::new();
            nonzero(&counters[from..99 - from], |index, value| found.push((index + from, value)));
            let expected = (from..99 - from).map(|index| (index, (index % 7) as u8));
            assert_eq!(found, expected.filter(|&(_, value)| value != 0).collect::<Vec<_>>());
        }
    }
}
