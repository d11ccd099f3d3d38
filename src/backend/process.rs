//! A backend in a forked process: what takes the process with it, never comes back or eats the memory is a [`Failure`] like
//! any other.
//!
//! A child is forked when it is first needed, and again when it has ended. It shares the counters of coverage with its
//! parent. Frames go over a socket; what libraries print on the way is kept, for the last words of one that dies.

mod child;
mod forked;

pub use forked::{die_with, limit_memory};

use super::{Answer, Backend, Failure, Level, Loaded, Ran, Session, Setting};
use crate::features::Histogram;
use crate::tensor::TensorData;
use bincode::config::{Configuration, standard};
use bincode::error::{DecodeError, EncodeError};
use child::{Compiled, How, Request};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a child that was told to go may take, in steps.
const FAREWELL: Duration = Duration::from_millis(2);
const FAREWELLS: usize = 50;
/// How many times its limit a child may take that does not compute meanwhile: others use the processor, or it waits for itself.
const IDLE: u32 = 5;
/// Bytes of last words that are looked at.
const LAST_WORDS: u64 = 1 << 16;
/// How lines begin that say, the same on every machine, what a process dies of.
const REASONS: [&str; 3] = ["terminate called", "thread ", "fatal runtime error"];
/// What a line with a failed assertion has in it, as the C library and the C++ library write it.
const ASSERTION: &str = "Assertion '";

const CONFIGURATION: Configuration = standard();

/// What one call of a backend may use. Of time that is CPU time, so that a busy machine makes no hang.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub time: Duration,
    /// Beyond what the process has when the backend begins.
    pub memory_bytes: u64,
}

impl Limits {
    /// No model within the bounds of `limits.rs` takes nearly as much.
    pub const DEFAULT: Limits = Limits { time: Duration::from_secs(20), memory_bytes: 2 << 30 };
}

/// A backend whose work a child process does.
///
/// The backend must not have run anything in this process: its threads are not in the child.
pub struct Isolated {
    backend: Box<dyn Backend>,
    limits: Limits,
    hurry: Cell<Option<Duration>>,
    child: Rc<RefCell<Option<Running>>>,
    numbers: Cell<u64>,
}

struct Running {
    id: libc::pid_t,
    reader: BufReader<UnixStream>,
    writer: BufWriter<UnixStream>,
    /// What the child prints.
    printed: File,
    /// For an answer.
    time: Duration,
}

impl Isolated {
    pub fn new(backend: Box<dyn Backend>, limits: Limits) -> Isolated {
        Isolated { backend, limits, hurry: Cell::new(None), child: Rc::default(), numbers: Cell::new(0) }
    }

    /// What a call may take now.
    fn time(&self) -> Duration {
        self.hurry.get().map_or(self.limits.time, |time| time.min(self.limits.time))
    }

    fn start(&self) -> io::Result<Running> {
        let (ours, theirs) = UnixStream::pair()?;
        // For the rest of an answer that has begun.
        ours.set_read_timeout(Some(self.limits.time))?;
        let printed = tempfile::tempfile()?;
        let parent = std::process::id();
        let (reader, writer) = (BufReader::new(ours.try_clone()?), BufWriter::new(ours));
        // SAFETY: takes no arguments. The child has this thread alone, which goes on in `child::main` with the backend;
        // what other threads held is not touched there.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => child::main(self.backend.as_ref(), theirs, &printed, self.limits, parent),
            id => Ok(Running { id, reader, writer, printed, time: self.time() }),
        }
    }

    /// Compiles and, where there are inputs, also runs: that answer comes next.
    fn compile_how(&self, onnx: &[u8], how: How, inputs: Option<&[TensorData]>) -> Option<Loaded> {
        if self.child.borrow().is_none() {
            match self.start() {
                Ok(running) => *self.child.borrow_mut() = Some(running),
                Err(error) => return Some(Err(Failure::Unsupported(format!("no child process: {error}")))),
            }
        }
        let number = self.numbers.replace(self.numbers.get() + 1);
        let request = Request::Compile { number, onnx: onnx.to_vec(), how, inputs: inputs.map(<[_]>::to_vec) };
        let compiled = ask::<Compiled>(&self.child, &request).unwrap_or_else(|failure| Some(Err(failure)));
        let child = self.child.clone();
        compiled.map(|result| result.map(|operators| Box::new(Remote { number, child, operators }) as Box<dyn Session>))
    }
}

impl Backend for Isolated {
    fn id(&self) -> &'static str {
        self.backend.id()
    }

    fn version(&self) -> String {
        self.backend.version()
    }

    fn library(&self) -> Option<PathBuf> {
        self.backend.library()
    }

    fn integer_limit(&self) -> Option<i64> {
        self.backend.integer_limit()
    }

    fn passes(&self) -> &'static [&'static str] {
        self.backend.passes()
    }

    fn compile(&self, onnx: &[u8], level: Level) -> Loaded {
        self.compile_how(onnx, How::At(level), None).unwrap_or_else(|| Err(no_answer()))
    }

    fn compile_and_run(&self, onnx: &[u8], level: Level, inputs: &[TensorData]) -> Option<Ran> {
        let session = self.compile_how(onnx, How::At(level), Some(inputs))?;
        Some(session.and_then(|session| Ok((session, talk::<Answer>(&self.child, Running::receive)?))))
    }

    fn compile_with(&self, onnx: &[u8], setting: Setting) -> Option<Loaded> {
        self.compile_how(onnx, How::With(setting), None)
    }

    fn hurry(&self, time: Option<Duration>) {
        self.hurry.set(time);
        if let Some(running) = &mut *self.child.borrow_mut() {
            running.time = self.time();
        }
    }

    fn compile_without(&self, onnx: &[u8], pass: &str) -> Loaded {
        self.compile_how(onnx, How::Without(pass.to_owned()), None).unwrap_or_else(|| Err(no_answer()))
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        if let Some(running) = self.child.borrow_mut().take() {
            running.end();
        }
    }
}

/// A model that the child has compiled.
struct Remote {
    number: u64,
    child: Rc<RefCell<Option<Running>>>,
    operators: Option<Histogram>,
}

impl Session for Remote {
    fn run(&mut self, inputs: &[TensorData]) -> Answer {
        ask::<Answer>(&self.child, &Request::Run { number: self.number, inputs: inputs.to_vec() })?
    }

    fn operators(&self) -> Option<Histogram> {
        self.operators.clone()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(running) = &mut *self.child.borrow_mut() {
            // A child that is gone has dropped everything.
            let _ = running.send(&Request::Drop { number: self.number });
        }
    }
}

fn no_answer() -> Failure {
    Failure::Protocol("the child process has no answer".to_owned())
}

fn ask<A: bincode::Decode<()>>(child: &RefCell<Option<Running>>, request: &Request) -> Result<A, Failure> {
    talk(child, |running| running.send(request).map_err(|_| false).and_then(|()| running.receive()))
}

/// The child's answer. A child that does not answer is ended, and what it died of is the failure.
fn talk<A>(
    child: &RefCell<Option<Running>>,
    exchange: impl FnOnce(&mut Running) -> Result<A, bool>,
) -> Result<A, Failure> {
    let mut place = child.borrow_mut();
    let Some(running) = &mut *place else { return Err(no_answer()) };
    let answer = exchange(running);
    answer.map_err(|late| match place.take().map(Running::end) {
        _ if late => Failure::TimedOut,
        Some((status, words)) => failure(status, &words),
        None => no_answer(),
    })
}

impl Running {
    fn send(&mut self, request: &Request) -> Result<(), EncodeError> {
        bincode::encode_into_std_write(request, &mut self.writer, CONFIGURATION)?;
        self.writer.flush().map_err(|inner| EncodeError::Io { inner, index: 0 })
    }

    /// The error says whether the answer is late.
    fn receive<A: bincode::Decode<()>>(&mut self) -> Result<A, bool> {
        if self.reader.buffer().is_empty() {
            self.wait_for_answer()?;
        }
        bincode::decode_from_std_read(&mut self.reader, CONFIGURATION).map_err(|error| match error {
            DecodeError::Io { inner, .. } => matches!(inner.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            _ => false,
        })
    }

    fn wait_for_answer(&self) -> Result<(), bool> {
        let (since, cpu) = (Instant::now(), self.cpu_time());
        let spent = || cpu.zip(self.cpu_time()).map_or(since.elapsed(), |(before, now)| now.saturating_sub(before));
        let mut wait = self.time;
        loop {
            let milliseconds = wait.as_millis().clamp(1, 60_000) as libc::c_int;
            let mut socket = libc::pollfd { fd: self.reader.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one place, which is written.
            match unsafe { libc::poll(&mut socket, 1, milliseconds) } {
                0 if since.elapsed() < self.time => wait = self.time.saturating_sub(since.elapsed()),
                0 if spent() >= self.time || since.elapsed() >= self.time * IDLE => return Err(true),
                0 => wait = self.time / 10,
                -1 if io::Error::last_os_error().kind() != ErrorKind::Interrupted => return Err(false),
                -1 => {}
                _ => return Ok(()),
            }
        }
    }

    /// Of the child so far; none where the system does not tell.
    fn cpu_time(&self) -> Option<Duration> {
        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: both places are written. The child has not been waited for, so that its number is nobody else's.
        let told = unsafe {
            libc::clock_getcpuclockid(self.id, &mut clock) == 0 && libc::clock_gettime(clock, &mut time) == 0
        };
        told.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    /// What the process ended by, if it has ended by itself, and what it has printed last.
    fn end(mut self) -> (Option<ExitStatus>, String) {
        // Tells a child that lives to go. Closing would not: another child may hold the same socket.
        let _ = self.writer.get_ref().shutdown(Shutdown::Both);
        let status = self.wait();
        (status, self.last_words().unwrap_or_default())
    }

    fn wait(&self) -> Option<ExitStatus> {
        let mut status = 0;
        for _ in 0..FAREWELLS {
            // SAFETY: the child is this process's own, and is waited for once.
            if unsafe { libc::waitpid(self.id, &mut status, libc::WNOHANG) } == self.id {
                return Some(ExitStatus::from_raw(status));
            }
            std::thread::sleep(FAREWELL);
        }
        // SAFETY: as above; it has not been waited for, so that its number is nobody else's.
        unsafe {
            libc::kill(self.id, libc::SIGKILL);
            libc::waitpid(self.id, &mut status, 0);
        }
        None
    }

    fn last_words(&mut self) -> io::Result<String> {
        let length = self.printed.metadata()?.len();
        self.printed.seek(io::SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
        let mut words = Vec::new();
        (&self.printed).take(LAST_WORDS).read_to_end(&mut words)?;
        Ok(String::from_utf8_lossy(&words).into_owned())
    }
}

/// What a process died of that has ended by itself.
fn failure(status: Option<ExitStatus>, words: &str) -> Failure {
    if words.lines().any(is_allocation) {
        return Failure::OutOfMemory;
    }
    let end = match status.map(|status| (status.signal(), status.code())) {
        Some((Some(signal), _)) => format!("the process died of {}", signal_name(signal)),
        Some((_, Some(code))) => format!("the process was ended by exit code {code}"),
        _ => "the process has closed its connection".to_owned(),
    };
    Failure::Crashed(match words.lines().rev().find_map(reason) {
        Some(reason) => format!("{end} ({reason})"),
        None => end,
    })
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// Whether a message says that memory is not to be had, as Rust, C++ and ONNX Runtime do.
fn is_allocation(message: &str) -> bool {
    let denied = ["std::bad_alloc", "bad allocation", "Failed to allocate memory"];
    denied.iter().any(|part| message.contains(part))
        || message.contains("memory allocation of ") && message.contains(" bytes failed")
}

/// The part of a line that says what the process dies of.
fn reason(line: &str) -> Option<String> {
    let told = match line.find(ASSERTION) {
        // Before it are the name of the program and the path of the source on the builder's machine.
        Some(start) => &line[start..],
        None if REASONS.iter().any(|begin| line.starts_with(begin)) => line,
        None => return None,
    };
    Some(super::isolation::without_addresses(told.trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{isolate, whole};
    use crate::dtype::DType;

    /// Does with a model what its bytes say.
    struct Actor;

    struct Act(String);

    impl Backend for Actor {
        fn id(&self) -> &'static str {
            "actor"
        }

        fn version(&self) -> String {
            "1.0.0".to_owned()
        }

        fn compile(&self, onnx: &[u8], _: Level) -> Loaded {
            Ok(Box::new(Act(String::from_utf8(onnx.to_vec()).unwrap())))
        }
    }

    impl Session for Act {
        fn run(&mut self, inputs: &[TensorData]) -> Answer {
            match self.0.as_str() {
                // SAFETY: ends the process.
                "abort" => unsafe { libc::abort() },
                // SAFETY: ends the process. `exit` would run what libraries have registered, and may then wait for ever for
                // a lock that a thread of another test held at the time of the fork.
                "exit" => unsafe { libc::_exit(3) },
                "terminate" => {
                    let words = b"terminate called without an active exception\n";
                    // SAFETY: the bytes are there; ends the process. What a test prints in Rust is kept by its harness.
                    unsafe {
                        libc::write(libc::STDERR_FILENO, words.as_ptr().cast(), words.len());
                        libc::abort()
                    }
                }
                "panic" => isolate(|| panic!("five")),
                "hang" => loop {
                    std::thread::sleep(Duration::from_secs(1));
                },
                "grow" => {
                    let mut blocks: Vec<Vec<u8>> = Vec::new();
                    loop {
                        blocks.push(vec![1; 1 << 24]);
                        std::hint::black_box(&blocks);
                    }
                }
                "refuse" => Err(Failure::Refused("std::bad_alloc".to_owned())),
                _ => Ok(inputs.to_vec()),
            }
        }

        fn operators(&self) -> Option<Histogram> {
            Some(Histogram::from([(self.0.clone(), 1)]))
        }
    }

    fn limits() -> Limits {
        Limits { time: Duration::from_secs(60), memory_bytes: 256 << 20 }
    }

    /// What a test waits for a hang.
    const SOON: Duration = Duration::from_millis(100);

    fn run(backend: &Isolated, act: &str) -> Answer {
        let input = whole(DType::U8, vec![3], vec![1, 2, 3]).unwrap();
        backend.compile(act.as_bytes(), Level::On)?.run(&[input])
    }

    #[test]
    fn what_takes_the_process_with_it_is_a_failure_and_the_next_model_runs() {
        let backend = Isolated::new(Box::new(Actor), limits());
        let crashed = |message: &str| Err(Failure::Crashed(message.to_owned()));
        for (act, expected) in [
            ("abort", crashed("the process died of SIGABRT")),
            ("exit", crashed("the process was ended by exit code 3")),
            ("terminate", crashed("the process died of SIGABRT (terminate called without an active exception)")),
            ("hang", Err(Failure::TimedOut)),
            ("grow", Err(Failure::OutOfMemory)),
            ("refuse", Err(Failure::OutOfMemory)),
        ] {
            backend.hurry((act == "hang").then_some(SOON));
            assert_eq!(run(&backend, act), expected, "{act}");
            backend.hurry(None);
            assert_eq!(run(&backend, "echo").unwrap()[0].bytes, [1, 2, 3], "after {act}");
        }
        assert!(matches!(run(&backend, "panic"), Err(Failure::Crashed(message)) if message.starts_with("five at ")));
    }

    #[test]
    fn who_is_in_a_hurry_waits_for_less() {
        let backend = Isolated::new(Box::new(Actor), limits());
        run(&backend, "echo").unwrap();
        backend.hurry(Some(SOON));
        for _ in 0..2 {
            // The child that runs already, and the next one.
            assert_eq!(run(&backend, "hang"), Err(Failure::TimedOut));
        }
        backend.hurry(None);
        assert_eq!(backend.time(), limits().time);
        let backend = Isolated::new(Box::new(Actor), Limits { time: SOON, ..limits() });
        backend.hurry(Some(limits().time));
        assert_eq!(run(&backend, "hang"), Err(Failure::TimedOut), "the limit stays");
    }

    #[test]
    fn sessions_of_one_child_are_told_apart() {
        let backend = Isolated::new(Box::new(Actor), limits());
        let mut first = backend.compile(b"echo", Level::On).unwrap();
        let second = backend.compile(b"abort", Level::Off).unwrap();
        assert_eq!(first.operators(), Some(Histogram::from([("echo".to_owned(), 1)])));
        drop(second);
        assert_eq!(first.run(&[]), Ok(Vec::new()));
        // The child that knew the model is gone.
        run(&backend, "abort").unwrap_err();
        assert!(matches!(first.run(&[]), Err(Failure::Protocol(_))));
    }

    #[test]
    fn reasons_are_the_same_on_every_machine() {
        let line = "python: /build/x.h:12: T& f(): Assertion '__n < this->size()' failed.";
        assert_eq!(reason(line).unwrap(), "Assertion '__n < this->size()' failed");
        assert_eq!(reason("2026-11-28 12:00:00 [E:onnxruntime] no"), None);
        assert!(is_allocation("memory allocation of 16 bytes failed"));
    }
}
