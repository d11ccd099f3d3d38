//! Breakpoints in a loaded library, and the signal handler that takes them out.

use super::{BLOCKS_A_COUNTER, Error, Grain, Tracing, nonzero, plan::Plan};
use crate::shared_memory;
use libc::{c_int, c_void};
use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::{io, mem, ptr};

/// The one-byte breakpoint instruction.
const BREAKPOINT: u8 = 0xcc;
/// Values that libFuzzer counts as different.
const VALUES: [u8; BLOCKS_A_COUNTER] = [1, 2, 3, 4, 8, 16, 32, 128];

/// The file of this program.
pub(super) const PROGRAM: &str = "/proc/self/exe";
/// Of every x86-64 Linux.
pub(super) const PAGE_BYTES: usize = 4096;

/// What the handler needs. Nothing of it ever moves or goes away.
struct Traced {
    /// Where each block begins, ascending.
    addresses: Vec<usize>,
    /// The byte that the breakpoint replaces.
    originals: Vec<u8>,
    /// Of each block [`EVER`] and [`OUT`], in memory that forked processes share.
    met: &'static [AtomicU8],
    counters: &'static [AtomicU8],
}

/// The block was met.
const EVER: u8 = 1;
/// Its breakpoint is out.
const OUT: u8 = 2;

static TRACED: OnceLock<Traced> = OnceLock::new();

/// Puts a breakpoint at every block of the plan of a loaded library.
pub(super) fn arm(library: &Path, plan: &Plan, grain: Grain) -> Result<Tracing, Error> {
    let base = base(library).ok_or_else(|| Error::NotLoaded(library.to_owned()))?;
    let addresses: Vec<usize> = plan.blocks.iter().map(|&block| base + block as usize).collect();
    let (Some(&first), Some(&last)) = (addresses.first(), addresses.last()) else {
        return Err(Error::Analysis { path: library.to_owned(), reason: "it has no blocks".to_owned() });
    };
    unprotect(first, last).map_err(|source| Error::Protected { path: library.to_owned(), source })?;
    // SAFETY: the addresses are code of a loaded library, which is readable.
    let originals = addresses.iter().map(|&address| unsafe { ptr::read(address as *const u8) }).collect();
    let blocks = addresses.len();
    let count = match grain {
        Grain::Shared => blocks.div_ceil(BLOCKS_A_COUNTER),
        Grain::Exact => blocks,
    };
    let shared =
        |count| shared_memory::zeros(count).map_err(|source| Error::Memory { path: library.to_owned(), source });
    let (counters, met) = (shared(count)?, shared(blocks)?);
    let places = addresses[..count].to_vec().leak();
    TRACED.set(Traced { addresses, originals, met, counters }).map_err(|_| Error::Twice)?;
    install();
    let traced = TRACED.get().expect("it was set above");
    traced.addresses.iter().for_each(|&address| put_in(address));
    Ok(Tracing { counters, places, functions: plan.functions as usize, dropped: plan.dropped as usize, blocks })
}

fn put_in(address: usize) {
    // SAFETY: the page is writable, and the address begins an instruction, so that whoever is about to execute it meets
    // either the whole instruction or the breakpoint.
    unsafe { AtomicU8::from_ptr(address as *mut u8) }.store(BREAKPOINT, Relaxed);
}

pub(super) fn rearm() {
    let Some(traced) = TRACED.get() else { return };
    nonzero(traced.met, |block, flags| {
        if flags & OUT != 0 {
            traced.met[block].store(EVER, Relaxed);
            put_in(traced.addresses[block]);
        }
    });
}

pub(super) fn met() -> Vec<bool> {
    let blocks = TRACED.get().into_iter().flat_map(|traced| traced.met);
    blocks.map(|flags| flags.load(Relaxed) != 0).collect()
}

/// How far a loaded library, or this program, is from the addresses in its file.
pub(super) fn base(library: &Path) -> Option<usize> {
    let mut search = (fs::canonicalize(library).ok()?, None);
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, search: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid record, and `search` is what `dl_iterate_phdr` was given.
        let (info, (wanted, base)) = unsafe { (&*info, &mut *search.cast::<(std::path::PathBuf, Option<usize>)>()) };
        // SAFETY: the name is null-terminated, or null.
        let name = (!info.dlpi_name.is_null()).then(|| unsafe { CStr::from_ptr(info.dlpi_name) });
        // The program itself has no name.
        let name = name.filter(|name| !name.is_empty()).map_or(PROGRAM.as_bytes(), CStr::to_bytes);
        if fs::canonicalize(OsStr::from_bytes(name)).is_ok_and(|path| path == *wanted) {
            *base = Some(info.dlpi_addr as usize);
        }
        c_int::from(base.is_some())
    }
    // SAFETY: `visit` is called before this returns, with a pointer to `search`.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.1
}

/// Makes the pages of the code from `first` to `last` writable. They stay executable: other threads may run them.
fn unprotect(first: usize, last: usize) -> io::Result<()> {
    let start = first / PAGE_BYTES * PAGE_BYTES;
    let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    // SAFETY: the range is mapped, and no page of it loses a right that it had.
    let result = unsafe { libc::mprotect(start as *mut c_void, last + 1 - start, all) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn install() {
    // SAFETY: the handler does nothing that a signal handler may not do, and a zeroed `sigaction` is a valid one.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART | libc::SA_NODEFER;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGTRAP, &action, ptr::null_mut());
    }
}

/// Takes out the breakpoint that was met, counts the block, and goes back to it. Allocates nothing and takes no lock.
extern "C" fn trap(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the context of the interrupted thread.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let address = (registers[libc::REG_RIP as usize] as usize).wrapping_sub(1);
    let found = TRACED.get().and_then(|traced| Some((traced, traced.addresses.binary_search(&address).ok()?)));
    let Some((traced, block)) = found else {
        // Somebody else's breakpoint. SAFETY: ends the process.
        unsafe { libc::abort() }
    };
    // Another thread may have done it already, which does no harm. SAFETY: the page was made writable.
    unsafe { AtomicU8::from_ptr(address as *mut u8) }.store(traced.originals[block], Relaxed);
    traced.met[block].store(EVER | OUT, Relaxed);
    // Blocks that share a counter are far apart in the code, so that few are first met in one run.
    let count = traced.counters.len();
    traced.counters[block % count].store(VALUES[block / count], Relaxed);
    registers[libc::REG_RIP as usize] = address as i64;
}
