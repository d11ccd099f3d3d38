//! Memory that processes forked from this one share.

use libc::{c_int, c_void};
use std::sync::atomic::AtomicU8;
use std::{io, ptr, slice};

/// Bytes, all zero.
pub fn zeros(count: usize) -> io::Result<&'static [AtomicU8]> {
    // SAFETY: takes the place of nothing. Nobody unmaps the memory.
    unsafe { map(ptr::null_mut(), count, libc::MAP_SHARED).map(|memory| slice::from_raw_parts(memory.cast(), count)) }
}

/// New pages of zeros, shared or private; with `MAP_FIXED` in place of those at the address.
///
/// # Safety
/// Nothing but the caller's own bytes may be in the pages that are replaced.
pub unsafe fn map(address: *mut c_void, bytes: usize, flags: c_int) -> io::Result<*mut c_void> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the caller's.
    let memory = unsafe { libc::mmap(address, bytes, rights, flags | libc::MAP_ANONYMOUS, -1, 0) };
    if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(memory) }
}
