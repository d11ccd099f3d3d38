//! A backend in a child process: what takes the process with it, or never comes back, is a [`Failure`] like any other.
//!
//! Frames go over a socket that is the child's standard input, since libraries may print to the other streams. A child
//! that has ended is replaced before the next model is compiled.

use super::{Backend, Failure, Level, Session, Setting};
use crate::tensor::TensorData;
use bincode::config::{Configuration, standard};
use bincode::error::{DecodeError, EncodeError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

/// How long a child may be silent: no model within the limits takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a model of a backend's ready.
#[derive(bincode::Encode, bincode::Decode)]
enum How {
    At(Level),
    With(Setting),
    Without(String),
}

#[derive(bincode::Encode, bincode::Decode)]
enum Request {
    /// Compiles a model, which is later named by the number.
    Compile {
        number: u64,
        onnx: Vec<u8>,
        how: How,
    },
    Run {
        number: u64,
        inputs: Vec<TensorData>,
    },
    Drop {
        number: u64,
    },
}

/// To [`Request::Compile`]; none where the backend has no such setting.
type Compiled = Option<Result<(), Failure>>;
/// To [`Request::Run`].
type Answer = Result<Vec<TensorData>, Failure>;

/// A backend whose work a child process does.
pub struct Isolated {
    /// The same backend in this process, which is only asked about itself.
    facts: Box<dyn Backend>,
    command: Box<dyn Fn() -> io::Result<Command>>,
    child: Rc<RefCell<Option<Running>>>,
    numbers: RefCell<u64>,
}

struct Running {
    process: Child,
    reader: BufReader<UnixStream>,
    writer: BufWriter<UnixStream>,
}

impl Isolated {
    /// `command` starts a process that calls [`serve`] for the same backend.
    pub fn new(facts: Box<dyn Backend>, command: impl Fn() -> io::Result<Command> + 'static) -> Isolated {
        Isolated { facts, command: Box::new(command), child: Rc::default(), numbers: RefCell::new(0) }
    }

    fn start(&self) -> io::Result<Running> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let mut command = (self.command)()?;
        // What libraries print while they die is no news.
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn()?;
        Ok(Running { process, reader: BufReader::new(ours.try_clone()?), writer: BufWriter::new(ours) })
    }

    fn compile_how(&self, onnx: &[u8], how: How) -> Option<Result<Box<dyn Session>, Failure>> {
        if self.child.borrow().is_none() {
            match self.start() {
                Ok(running) => *self.child.borrow_mut() = Some(running),
                Err(error) => return Some(Err(Failure::Unsupported(format!("no child process: {error}")))),
            }
        }
        let number = self.numbers.replace_with(|number| *number + 1);
        let request = Request::Compile { number, onnx: onnx.to_vec(), how };
        let compiled: Compiled = match ask(&self.child, &request) {
            Ok(compiled) => compiled,
            Err(failure) => Some(Err(failure)),
        };
        let session = || Box::new(Remote { number, child: self.child.clone() }) as Box<dyn Session>;
        compiled.map(|result| result.map(|()| session()))
    }
}

impl Backend for Isolated {
    fn id(&self) -> &'static str {
        self.facts.id()
    }

    fn version(&self) -> String {
        self.facts.version()
    }

    fn library(&self) -> Option<PathBuf> {
        self.facts.library()
    }

    fn integer_limit(&self) -> Option<i64> {
        self.facts.integer_limit()
    }

    fn passes(&self) -> &'static [&'static str] {
        self.facts.passes()
    }

    fn compile(&self, onnx: &[u8], level: Level) -> Result<Box<dyn Session>, Failure> {
        self.compile_how(onnx, How::At(level)).unwrap_or_else(|| Err(no_answer()))
    }

    fn compile_with(&self, onnx: &[u8], setting: Setting) -> Option<Result<Box<dyn Session>, Failure>> {
        self.compile_how(onnx, How::With(setting))
    }

    fn compile_without(&self, onnx: &[u8], pass: &str) -> Result<Box<dyn Session>, Failure> {
        self.compile_how(onnx, How::Without(pass.to_owned())).unwrap_or_else(|| Err(no_answer()))
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
}

impl Session for Remote {
    fn run(&mut self, inputs: &[TensorData]) -> Answer {
        ask::<Answer>(&self.child, &Request::Run { number: self.number, inputs: inputs.to_vec() })?
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

/// The child's answer. A child that does not answer is ended, and what it died of is the failure.
fn ask<A: bincode::Decode<()>>(child: &RefCell<Option<Running>>, request: &Request) -> Result<A, Failure> {
    let mut place = child.borrow_mut();
    let Some(running) = &mut *place else { return Err(no_answer()) };
    let answer = running.send(request).map_err(|_| false).and_then(|()| running.receive());
    answer.map_err(|late| {
        let status = place.take().and_then(Running::end);
        if late { Failure::TimedOut } else { Failure::Crashed(describe(status)) }
    })
}

impl Running {
    fn send(&mut self, request: &Request) -> Result<(), EncodeError> {
        bincode::encode_into_std_write(request, &mut self.writer, CONFIGURATION)?;
        self.writer.flush().map_err(|inner| EncodeError::Io { inner, index: 0 })
    }

    /// The error says whether the answer is late.
    fn receive<A: bincode::Decode<()>>(&mut self) -> Result<A, bool> {
        bincode::decode_from_std_read(&mut self.reader, CONFIGURATION).map_err(|error| match error {
            DecodeError::Io { inner, .. } => matches!(inner.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            _ => false,
        })
    }

    /// What the process ended by, if it has ended by itself.
    fn end(mut self) -> Option<ExitStatus> {
        // Closing the socket tells a child that lives to go.
        drop((self.reader, self.writer));
        for _ in 0..50 {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        None
    }
}

const CONFIGURATION: Configuration = standard();

fn describe(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.signal(), status.code())) {
        Some((Some(signal), _)) => format!("the process was ended by signal {signal}"),
        Some((_, Some(code))) => format!("the process has ended with exit code {code}"),
        _ => "the process has closed its connection".to_owned(),
    }
}

/// Does the work of an [`Isolated`] backend on the socket that is standard input, until that is closed.
pub fn serve(backend: &dyn Backend) -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (mut reader, mut writer) = (BufReader::new(socket.try_clone()?), BufWriter::new(socket));
    let mut sessions: BTreeMap<u64, Box<dyn Session>> = BTreeMap::new();
    while let Ok(request) = bincode::decode_from_std_read::<Request, _, _>(&mut reader, CONFIGURATION) {
        let sent = match request {
            Request::Compile { number, onnx, how } => {
                let session = match how {
                    How::At(level) => Some(backend.compile(&onnx, level)),
                    How::With(setting) => backend.compile_with(&onnx, setting),
                    How::Without(pass) => Some(backend.compile_without(&onnx, &pass)),
                };
                let compiled: Compiled = session.map(|session| {
                    session.map(|session| {
                        sessions.insert(number, session);
                    })
                });
                bincode::encode_into_std_write(compiled, &mut writer, CONFIGURATION)
            }
            Request::Run { number, inputs } => {
                let answer: Answer = match sessions.get_mut(&number) {
                    Some(session) => session.run(&inputs),
                    None => Err(no_answer()),
                };
                bincode::encode_into_std_write(answer, &mut writer, CONFIGURATION)
            }
            Request::Drop { number } => {
                sessions.remove(&number);
                continue;
            }
        };
        sent.map_err(io::Error::other)?;
        writer.flush()?;
    }
    Ok(())
}
