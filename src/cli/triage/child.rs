//! Child processes with limits on time and memory.

use super::worker::{self, Job, Line, Word};
use super::{Error, Result};
use graphsmith::backend::process::{Limits, die_with};
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How often a child's memory and time are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often a backend may use up its time before a child gives a sign of life: more than the forms, backends and levels of
/// a case.
const MOST_CALLS: u32 = 60;
const PAGE_BYTES: u64 = 4096;

/// A child of `graphsmith triage` that is started when there is something to do, and again when it has died.
pub struct Worker<'a> {
    pub arguments: &'a worker::Arguments,
    running: Option<Running>,
    /// Its backends with their versions, once it has told them.
    pub backends: Vec<(String, String)>,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<Line>,
    /// It has judged nothing yet.
    fresh: bool,
}

/// What came of one attempt at a file.
enum Attempt {
    Word(Word),
    /// The child has ended, or was, and how.
    Died(String),
}

impl<'a> Worker<'a> {
    pub fn new(arguments: &'a worker::Arguments) -> Worker<'a> {
        Worker { arguments, running: None, backends: Vec::new() }
    }

    /// Starts the child, if there is none, and waits until it is ready.
    pub fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let (mut running, errors) = spawn(self.arguments)?;
        match running.lines.recv_timeout(self.patience()) {
            Ok(Line::Ready(backends)) => self.backends = backends,
            _ => {
                let _ = running.child.kill();
                let _ = running.child.wait();
                let told = fs::read_to_string(errors.path()).unwrap_or_default();
                let told = told.lines().last().unwrap_or("it did not say why");
                return Err(Error::Usage(told.trim_start_matches("graphsmith: ").to_owned()));
            }
        }
        self.running = Some(running);
        Ok(())
    }

    /// The word on a file. Backends may die in processes of their own; a child that dies itself is a defect, where that
    /// comes again in a new one that has judged nothing else.
    pub fn judge(&mut self, job: &Job) -> Result<Word> {
        loop {
            self.start()?;
            let fresh = self.running.as_ref().is_some_and(|running| running.fresh);
            match self.attempt(job)? {
                Attempt::Word(word) => return Ok(word),
                Attempt::Died(how) if fresh => {
                    return Ok(Word::Defect(format!("outside of the backends: {how}")));
                }
                Attempt::Died(_) => {}
            }
        }
    }

    fn attempt(&mut self, job: &Job) -> Result<Attempt> {
        let limits = self.arguments.limits();
        let patience = self.patience();
        let running = self.running.as_mut().expect("it was started");
        running.fresh = false;
        let mut since = Instant::now();
        // That it has died meanwhile is seen below.
        let _ = serde_json::to_string(job).map_err(io::Error::from).and_then(|line| writeln!(running.stdin, "{line}"));
        let death = loop {
            match running.lines.recv_timeout(TICK) {
                Ok(Line::Word(word)) => return Ok(Attempt::Word(word)),
                Ok(Line::Alive | Line::Ready(_)) => since = Instant::now(),
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) if since.elapsed() > patience => break Some("it took too long"),
                Err(RecvTimeoutError::Timeout) => {
                    if resident_bytes(running.child.id()) > limits.memory_bytes {
                        break Some("it took too much memory");
                    }
                }
            }
        };
        let mut running = self.running.take().expect("it was started");
        let _ = running.child.kill();
        let status = running.child.wait().map_err(child_failed)?;
        Ok(Attempt::Died(death.map_or_else(|| describe(status), str::to_owned)))
    }

    fn patience(&self) -> Duration {
        self.arguments.limits().time * MOST_CALLS
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

fn child_failed(source: io::Error) -> Error {
    Error::Read { path: PathBuf::from("a child process"), source }
}

/// A child, and the file of what it says on stderr.
fn spawn(arguments: &worker::Arguments) -> Result<(Running, tempfile::NamedTempFile)> {
    let errors = tempfile::NamedTempFile::new().map_err(child_failed)?;
    let mut command = Command::new(env::current_exe().map_err(child_failed)?);
    command.arg("triage-worker").args(arguments.backend.iter().flat_map(|id| ["--backend", id]));
    command.args(arguments.no_known.then_some("--no-known"));
    command.args([format!("--timeout={}", arguments.timeout), format!("--memory={}", arguments.memory)]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(errors.reopen().map_err(child_failed)?);
    die_with_triage(&mut command);
    let mut child = command.spawn().map_err(child_failed)?;
    let stdin = child.stdin.take().expect("it is a pipe");
    let stdout = child.stdout.take().expect("it is a pipe");
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        // Libraries may write to stdout, too, and not only text.
        while stdout.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            if let Ok(parsed) = serde_json::from_slice(&line)
                && sender.send(parsed).is_err()
            {
                break;
            }
            line.clear();
        }
    });
    Ok((Running { child, stdin, lines, fresh: true }, errors))
}

/// `signal 11 (core dumped)`: the same wherever it is run.
pub fn describe(status: ExitStatus) -> String {
    format!("the process ended with {status}").replace(" (core dumped)", "")
}

/// The memory that a process has in use; 0 where /proc does not tell.
fn resident_bytes(id: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{id}/statm")).unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

/// What hangs does not outlive a triage that is killed. To be called by a thread that waits for the end of the process.
fn die_with_triage(command: &mut Command) {
    let parent = process::id();
    // SAFETY: `die_with` may be called between fork and exec, and touches no memory there.
    unsafe { command.pre_exec(move || die_with(parent)) };
}

/// Runs a command with everything that it prints in `log`. None: it was stopped at a limit.
pub fn run(command: &mut Command, log: &Path, limits: Limits) -> io::Result<Option<ExitStatus>> {
    let out = fs::File::create(log)?;
    command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
    die_with_triage(command);
    let mut child = command.spawn()?;
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if since.elapsed() > limits.time || resident_bytes(child.id()) > limits.memory_bytes {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(TICK);
    }
}
