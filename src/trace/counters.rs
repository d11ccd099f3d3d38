//! Counters that a library or this program has from its compiler, in memory that forked processes share.

use super::Error;
use super::arm::{PAGE_BYTES, base};
use crate::shared_memory;
use libc::c_int;
use object::{Object, ObjectSection, ObjectSymbol, ReadCache, SymbolKind};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::{io, slice};

/// Where clang and rustc put the counters of `inline-8bit-counters`.
const SECTION: &str = "__sancov_cntrs";
/// Where they put as many pairs of an address and flags with `pc-table`.
const PLACES: &str = "__sancov_pcs";

/// The counters of a loaded library or of this program, moved to shared memory at the addresses that they have; none if it has none.
pub fn of(library: &Path) -> Result<Option<&'static [AtomicU8]>, Error> {
    let file = File::open(library).map_err(|source| Error::Read { path: library.to_owned(), source })?;
    let failed = |error: object::Error| Error::Analysis { path: library.to_owned(), reason: error.to_string() };
    // Of a program with symbols, hundreds of megabytes are not looked at.
    let content = ReadCache::new(file);
    let file = object::File::parse(&content).map_err(failed)?;
    let Some(section) = file.section_by_name(SECTION) else { return Ok(None) };
    let base = base(library).ok_or_else(|| Error::NotLoaded(library.to_owned()))?;
    let start = (base + section.address() as usize) as *const AtomicU8;
    // SAFETY: the loader has mapped the section for reading and writing, and no library is ever unloaded here.
    let counters: &'static [AtomicU8] = unsafe { slice::from_raw_parts(start, section.size() as usize) };
    remap(counters, libc::MAP_SHARED).map_err(|source| Error::Memory { path: library.to_owned(), source })?;
    Ok(Some(counters))
}

/// What `class` says of the mangled name of the function that each counter of this program is in, in their order; nothing
/// if it has none. Without symbols all names are empty.
pub fn classify<T: Copy>(program: &Path, class: impl Fn(&str) -> T) -> Result<Vec<T>, Error> {
    let file = File::open(program).map_err(|source| Error::Read { path: program.to_owned(), source })?;
    let failed = |error: object::Error| Error::Analysis { path: program.to_owned(), reason: error.to_string() };
    let content = ReadCache::new(file);
    let file = object::File::parse(&content).map_err(failed)?;
    let Some(section) = file.section_by_name(PLACES) else { return Ok(Vec::new()) };
    let base = base(program).ok_or_else(|| Error::NotLoaded(program.to_owned()))?;
    let start = (base + section.address() as usize) as *const [usize; 2];
    // SAFETY: the loader has mapped the section and put the addresses in.
    let places = unsafe { slice::from_raw_parts(start, section.size() as usize / size_of::<[usize; 2]>()) };
    let symbols = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    let mut functions: Vec<(u64, T)> =
        symbols.map(|symbol| (symbol.address(), class(symbol.name().unwrap_or_default()))).collect();
    functions.sort_by_key(|&(address, _)| address);
    let none = class("");
    let of = |&[address, _]: &[usize; 2]| {
        let after = functions.partition_point(|&(start, _)| start <= (address - base) as u64);
        after.checked_sub(1).map_or(none, |at| functions[at].1)
    };
    Ok(places.iter().map(of).collect())
}

/// Counters may be moved to other memory at their addresses in whole pages only. In the pages at both ends, with less than two
/// pages of counters, are others' data too: those keep their memory.
fn remap(counters: &'static [AtomicU8], flags: c_int) -> io::Result<()> {
    let first = counters.as_ptr().addr();
    let start = first.next_multiple_of(PAGE_BYTES);
    let end = (first + counters.len()) / PAGE_BYTES * PAGE_BYTES;
    if start >= end {
        return Ok(());
    }
    let moved = &counters[start - first..end - first];
    let values: Vec<u8> = moved.iter().map(|counter| counter.load(Relaxed)).collect();
    // SAFETY: takes the place of whole pages of counters, whose rights it keeps.
    unsafe { shared_memory::map(moved.as_ptr().cast_mut().cast(), moved.len(), flags | libc::MAP_FIXED) }?;
    moved.iter().zip(values).for_each(|(counter, value)| counter.store(value, Relaxed));
    Ok(())
}

/// From now on this process and those forked from it count for themselves.
pub fn unshare(counters: &'static [AtomicU8]) -> io::Result<()> {
    remap(counters, libc::MAP_PRIVATE)
}
