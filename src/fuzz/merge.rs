//! Merges of corpora, as `cargo fuzz cmin` makes them: what an input covers must not depend on those before it, nor what is kept
//! on how a folder lists its files.
//!
//! libFuzzer merges in two processes: an outer one that starts inner ones, which run every input once and write down what it
//! covers, in the order of a control file.

use super::{Register, places};
use crate::backend::process::{Limits, die_with, limit_memory};
use crate::input::digest;
use crate::{shared_memory, trace};
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::{fs, io, slice};

const INNER_PROCESS: &str = "-merge_inner=";
const CONTROL_FILE: &str = "-merge_control_file=";
/// The longest input that a merge reads.
const MOST_BYTES: usize = 1 << 20;
/// What the mangled names of functions have in them that share out work to threads, and those of this module.
const LEFT_OUT: [&str; 3] = ["rayon", "crossbeam", "4fuzz5merge"];
/// In place of what a system gives at random: a number as good as any other.
const RANDOM: u8 = 0x5a;

thread_local! {
    /// Until the first input of an inner process.
    static AT_FIRST_RUN: Cell<Option<Register>> = const { Cell::new(None) };
    static INNER: RefCell<Option<Inner>> = const { RefCell::new(None) };
}
/// The control file that is to go at the end of the outer process.
static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The inner process of a merge. Each input runs in a process of its own, all forked in the same state from one that does nothing
/// else: neither what came before nor what libFuzzer keeps in memory has a part in what an input meets. Libraries that
/// put things in order by their addresses make it a part.
struct Inner {
    /// All counters that libFuzzer reads, each with as many that forked processes share.
    counters: Vec<[&'static [AtomicU8]; 2]>,
    /// Counters of code that is met by chance.
    left_out: Vec<&'static AtomicU8>,
    /// Of each counter whether an input has brought it.
    known: RefCell<Vec<Vec<bool>>>,
    /// The input, in memory that they share as well.
    input: &'static [AtomicU8],
    /// To the process that forks: it is sent how long an input is, and sends how the input's process has ended.
    socket: UnixStream,
}

/// Whether an input is to do the same in every process.
static REPEATS: AtomicBool = AtomicBool::new(false);

/// From now on each input counts for itself. `counters` are all that libFuzzer reads. This process must have no other threads yet.
pub fn start(counters: Vec<&'static [AtomicU8]>, test: impl Fn(Vec<u8>)) -> io::Result<()> {
    let with_copy = |counters: &'static [_]| Ok([counters, shared_memory::zeros(counters.len())?]);
    let counters: Vec<_> = counters.into_iter().map(with_copy).collect::<io::Result<_>>()?;
    let (socket, other) = UnixStream::pair()?;
    let known = counters.iter().map(|[counters, _]| vec![false; counters.len()]).collect();
    let input = shared_memory::zeros(MOST_BYTES)?;
    let inner = Inner { counters, left_out: left_out(), known: RefCell::new(known), input, socket };
    if fork()? == 0 {
        // It ends when the inner process does, and without what that has registered for its exit.
        let _ = inner.serve(other, test);
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) }
    }
    INNER.set(Some(inner));
    Ok(())
}

/// Whether libFuzzer has started this process to run the inputs of a merge, also of one between the jobs of its fork mode.
pub fn is_inner(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument.starts_with(INNER_PROCESS))
}

/// From the first input on libFuzzer knows more program counters than counters, and does not count which of them were met. It would
/// go through all that any input has met once more after each input: 200,000 of them take several times as long as the input.
/// What a merge keeps depends on the counters alone. Before the first input libFuzzer wants as many of the one as of the other.
pub fn forget_places_at_first_run(register: Register) {
    AT_FIRST_RUN.set(Some(register));
}

/// Runs an input, in a process of its own in a merge. Where that does not come to its end, this one crashes as well: libFuzzer
/// saves the input and goes on with the next one.
pub fn run(input: &[u8], test: impl FnOnce()) {
    if let Some(register) = AT_FIRST_RUN.take() {
        register(&[], places(std::iter::once(register as usize)));
    }
    INNER.with_borrow(|inner| match inner {
        None => test(),
        Some(inner) => match inner.run(input) {
            Ok(status) if status.success() => {}
            Ok(status) => die(&format!("the process of this input has ended: {status}")),
            Err(error) => die(&format!("an input cannot have a process of its own: {error}")),
        },
    });
}

fn die(reason: &str) -> ! {
    eprintln!("graphsmith: {reason}");
    std::process::abort()
}

impl Inner {
    /// An input that brings something new runs twice, and what it brings is what it meets both times: the little that still
    /// depends on chance.
    fn run(&self, input: &[u8]) -> io::Result<ExitStatus> {
        let mut known = self.known.borrow_mut();
        let first = self.once(input)?;
        let met: Vec<Vec<bool>> = self.counters.iter().map(|[counters, _]| met(counters)).collect();
        let is_new = |(met, known): (&Vec<bool>, &Vec<bool>)| met.iter().zip(known).any(|(&met, &known)| met && !known);
        if !first.success() || !met.iter().zip(&*known).any(is_new) {
            return Ok(first);
        }
        let second = self.once(input)?;
        for (([counters, _], met), known) in self.counters.iter().zip(met).zip(&mut *known) {
            for ((counter, met), known) in counters.iter().zip(met).zip(known) {
                if met && counter.load(Relaxed) != 0 {
                    *known = true;
                } else {
                    counter.store(0, Relaxed);
                }
            }
        }
        self.left_out.iter().for_each(|counter| counter.store(0, Relaxed));
        Ok(second)
    }

    fn once(&self, input: &[u8]) -> io::Result<ExitStatus> {
        let room = self.input.get(..input.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        room.iter().zip(input).for_each(|(place, &byte)| place.store(byte, Relaxed));
        (&self.socket).write_all(&input.len().to_ne_bytes())?;
        let mut status = [0; size_of::<i32>()];
        (&self.socket).read_exact(&mut status)?;
        self.counters.iter().for_each(|[counters, shared]| copy(shared, counters));
        self.left_out.iter().for_each(|counter| counter.store(0, Relaxed));
        Ok(ExitStatus::from_raw(i32::from_ne_bytes(status)))
    }

    /// Forks a process for each input.
    fn serve(&self, mut socket: UnixStream, test: impl Fn(Vec<u8>)) -> io::Result<()> {
        die_with(std::os::unix::process::parent_id())?;
        self.counters.iter().try_for_each(|[counters, _]| trace::unshare(counters))?;
        let this = std::process::id();
        let mut length = [0; size_of::<usize>()];
        loop {
            socket.read_exact(&mut length)?;
            trace::rearm();
            let child = fork()?;
            if child == 0 {
                let ready = die_with(this).is_ok() && limit_memory(Limits::DEFAULT.memory_bytes).is_ok();
                let input = &self.input[..usize::from_ne_bytes(length)];
                let mut room = Vec::with_capacity(MOST_BYTES); // the same for a short input and a long one
                room.extend(input.iter().map(|byte| byte.load(Relaxed)));
                self.counters.iter().for_each(|[counters, _]| clear(counters));
                let done = ready && catch_unwind(AssertUnwindSafe(|| test(room))).is_ok();
                self.counters.iter().for_each(|[counters, shared]| copy(counters, shared));
                // SAFETY: ends the process without what others have registered for its exit.
                unsafe { libc::_exit(i32::from(!done)) }
            }
            let mut status = 0;
            // SAFETY: the child is this process's own, and nobody else waits for it.
            while unsafe { libc::waitpid(child, &mut status, 0) } == -1 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            socket.write_all(&status.to_ne_bytes())?;
        }
    }
}

/// This program's counters in functions of [`LEFT_OUT`].
fn left_out() -> Vec<&'static AtomicU8> {
    let counters = trace::program().ok().flatten().unwrap_or_default();
    let is_left_out = |function: &str| LEFT_OUT.iter().any(|part| function.contains(part));
    let classes = trace::classify(is_left_out).unwrap_or_default();
    counters.iter().zip(classes).filter(|&(_, left_out)| left_out).map(|(counter, _)| counter).collect()
}

fn met(counters: &[AtomicU8]) -> Vec<bool> {
    counters.iter().map(|counter| counter.load(Relaxed) != 0).collect()
}

fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: takes no arguments. The child goes on with this thread, and there are no others.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        id => Ok(id),
    }
}

/// In one go, as [`copy`]: this code is instrumented itself, and branches here would count for the input.
fn clear(counters: &[AtomicU8]) {
    // SAFETY: atomics may be written through a shared reference, and no other thread counts meanwhile.
    unsafe { counters.as_ptr().cast_mut().cast::<u8>().write_bytes(0, counters.len()) }
}

fn copy(from: &[AtomicU8], to: &[AtomicU8]) {
    assert_eq!(from.len(), to.len());
    // SAFETY: as above, and they are no part of each other.
    unsafe { to.as_ptr().cast_mut().copy_from_nonoverlapping(from.as_ptr(), from.len()) }
}

/// From now on hash maps have the same order in every process, and nothing shall be left to threads: what is met by chance would be
/// met by one merge and not by the next.
pub fn repeat() {
    REPEATS.store(true, Relaxed);
}

pub fn repeats() -> bool {
    REPEATS.load(Relaxed)
}

/// Gives the processes that this one starts the same addresses each time, by which C++ libraries put some things in order.
fn fix_addresses() {
    #[cfg(target_os = "linux")]
    // SAFETY: takes numbers, of which the first asks what is set. Where it is refused, all goes on as it was.
    unsafe {
        let set = libc::personality(u32::MAX.into());
        libc::personality((set | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong);
    }
}

/// Does what the function of this name in the C library does, or gives always the same after [`repeat`].
///
/// # Safety
/// There must be room for `count` bytes.
#[cfg(target_os = "linux")]
pub unsafe fn getrandom(buffer: *mut u8, count: usize, flags: u32) -> isize {
    if repeats() {
        // SAFETY: the caller's.
        unsafe { slice::from_raw_parts_mut(buffer, count) }.fill(RANDOM);
        return count as isize;
    }
    // SAFETY: the caller's.
    unsafe { libc::syscall(libc::SYS_getrandom, buffer, count, flags) as isize }
}

/// Of the outer process of a merge, writes the control file that libFuzzer would write, unless one is given that a merge has
/// begun: libFuzzer leaves inputs of one size in the order of the folder. An argument to be added, if it has no name yet.
pub fn control(arguments: &[String]) -> Option<String> {
    let outer = |argument: &String| argument == "-merge=1" || argument == "-set_cover_merge=1";
    let folders: Vec<&String> = arguments.iter().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let [kept, added @ ..] = &folders[..] else { return None };
    if !arguments.iter().any(outer) || added.is_empty() {
        return None;
    }
    fix_addresses();
    let given = arguments.iter().rev().find_map(|argument| argument.strip_prefix(CONTROL_FILE)).map(PathBuf::from);
    let temporary = || std::env::temp_dir().join(format!("graphsmith-merge-{}.txt", std::process::id()));
    let path = given.clone().unwrap_or_else(temporary);
    if !fs::metadata(&path).is_ok_and(|data| data.len() > 0) {
        let (kept, added) = (inputs([kept.as_ref()]), inputs(added.iter().map(|folder| folder.as_ref())));
        let mut text = format!("{}\n{}\n", kept.len() + added.len(), kept.len());
        kept.iter().chain(&added).for_each(|path| text += &format!("{}\n", path.display()));
        // libFuzzer writes its own then, and says so if it cannot either.
        if kept.len() + added.len() == 0 || fs::write(&path, text).is_err() {
            return None;
        }
    }
    if given.is_some() {
        return None;
    }
    if let Ok(mut temporary) = TEMPORARY.lock() {
        *temporary = Some(path.clone());
    }
    Some(format!("{CONTROL_FILE}{}", path.display()))
}

/// Takes away what [`control`] has made for this process.
pub fn finish() {
    if let Some(path) = TEMPORARY.lock().ok().and_then(|mut temporary| temporary.take()) {
        let _ = fs::remove_file(path);
    }
}

/// The inputs in folders that are not empty: the small ones first, and those of one size by the names that libFuzzer gives them, so
/// that a second merge has the same order.
fn inputs<'a>(folders: impl IntoIterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.into_iter().map(Path::to_owned).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, hidden) = (entry.path(), entry.file_name().as_encoded_bytes().starts_with(b"."));
            match fs::read(&path) {
                Ok(bytes) if !bytes.is_empty() => found.push((bytes.len(), digest(&bytes), path)),
                Err(_) if path.is_dir() && !hidden => open.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, _, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_place_more_than_counters_from_the_first_input_on() {
        thread_local! {
            static PLACES: Cell<usize> = const { Cell::new(0) };
        }
        forget_places_at_first_run(|counters, places| {
            PLACES.set(PLACES.get() + places.len() - counters.len());
        });
        assert_eq!(PLACES.get(), 0, "libFuzzer refuses to start");
        for _ in 0..2 {
            run(&[], || assert_eq!(PLACES.get(), 1));
        }
        let inner = |argument: &str| is_inner(&["graph_diff".to_owned(), argument.to_owned()]);
        assert!(inner("-merge_inner=1") && !inner("-merge=1"));
    }

    #[test]
    fn the_order_depends_on_the_inputs_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::create_dir_all(two.join("inner")).unwrap();
        fs::create_dir(&one).unwrap();
        for (path, content) in
            [("one/x", "bbb"), ("two/a", "b"), ("two/inner/c", "a"), ("two/b", "long"), ("two/e", "")]
        {
            fs::write(folder.path().join(path), content).unwrap();
        }
        let control_file = folder.path().join("control");
        let mut arguments = vec!["graph_diff".to_owned(), one.display().to_string(), two.display().to_string()];
        assert_eq!(control(&arguments), None, "that is no merge");
        arguments.extend(["-merge=1".to_owned(), format!("{CONTROL_FILE}{}", control_file.display())]);
        assert_eq!(control(&arguments), None, "the file has a name");
        let text = fs::read_to_string(&control_file).unwrap();
        let expected = ["one/x", "two/inner/c", "two/a", "two/b"].map(|path| folder.path().join(path));
        let expected: String = expected.iter().map(|path| format!("{}\n", path.display())).collect();
        assert_eq!(text, format!("4\n1\n{expected}"), "{} {}", digest(b"a"), digest(b"b"));
        fs::write(&control_file, "begun").unwrap();
        control(&arguments);
        assert_eq!(fs::read_to_string(&control_file).unwrap(), "begun");
        arguments.pop();
        let added = control(&arguments).expect("an argument that names the file");
        let path = PathBuf::from(added.strip_prefix(CONTROL_FILE).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        finish();
        assert!(!path.exists());
    }

    #[test]
    fn an_input_counts_for_itself() {
        const COUNT: usize = 5;
        let counters: &'static [AtomicU8] = Vec::from_iter((0..COUNT).map(|_| AtomicU8::new(0))).leak();
        let (before, runs) = (AtomicU8::new(0), shared_memory::zeros(1).unwrap());
        let test = |input: Vec<u8>| {
            // SAFETY: ends the forked process alone.
            let &[place, ..] = &input[..] else { unsafe { libc::_exit(3) } };
            counters[usize::from(place)].store(1 + before.fetch_add(1, Relaxed), Relaxed);
            // By chance, which is shared here.
            if runs[0].fetch_add(1, Relaxed) % 2 == 0 {
                counters[4].store(1, Relaxed);
            }
        };
        start(vec![counters], test).unwrap();
        let values = || counters.iter().map(|counter| counter.load(Relaxed)).collect::<Vec<_>>();
        for place in [1, 3] {
            counters[0].store(7, Relaxed);
            run(&[place, 0], || panic!("not in this process"));
            let expected: Vec<u8> = (0..COUNT).map(|at| u8::from(at == usize::from(place))).collect();
            assert_eq!(values(), expected, "the second one does not know of the first");
        }
        assert_eq!(runs[0].load(Relaxed), 4, "each has brought something");
        let inner = INNER.take().expect("it was started");
        assert_eq!(inner.run(&[]).unwrap().code(), Some(3));
        assert_eq!(inner.run(&vec![0; MOST_BYTES + 1]).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        run(&[], || before.store(9, Relaxed));
        assert_eq!(before.load(Relaxed), 9, "here when there is no merge");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn random_bytes_are_fixed_only_when_asked() {
        let bytes = || {
            let mut bytes = [0; 32];
            // SAFETY: there is room for as many.
            assert_eq!(unsafe { getrandom(bytes.as_mut_ptr(), bytes.len(), 0) }, 32);
            bytes
        };
        assert_ne!(bytes(), bytes());
        repeat();
        assert_eq!(bytes(), bytes());
        REPEATS.store(false, Relaxed);
    }
}
