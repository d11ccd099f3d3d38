//! What a process does for itself that was just forked.

use std::fs;
use std::io::{self, ErrorKind};

/// To be called in a process that was just forked: it ends when the thread of `parent` that has forked it does.
pub fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: this option takes a signal, and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // One that has died before has sent no signal.
    match std::os::unix::process::parent_id() == parent {
        true => Ok(()),
        false => Err(ErrorKind::NotFound.into()),
    }
}

/// This process can have so much memory beyond what it has, and leaves no core: that is large, and nobody looks at it.
pub fn limit_memory(bytes: u64) -> io::Result<()> {
    for (resource, most) in [(libc::RLIMIT_DATA, data_bytes().saturating_add(bytes)), (libc::RLIMIT_CORE, 0)] {
        // SAFETY: reads the limit that it is given.
        if unsafe { libc::setrlimit(resource, &libc::rlimit { rlim_cur: most, rlim_max: most }) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What counts against `RLIMIT_DATA` already; 0 where /proc does not tell.
fn data_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
