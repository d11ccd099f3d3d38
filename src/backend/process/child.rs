//! The forked process and what is said to it.

use super::{CONFIGURATION, Limits, die_with, is_allocation, limit_memory, no_answer};
use crate::backend::{Answer, Backend, Failure, Level, Session, Setting};
use crate::features::Histogram;
use crate::tensor::TensorData;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Signals whose handlers belong to the parent, such as those of libFuzzer, which would report a crash as its own.
const HANDLED: [libc::c_int; 9] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGALRM,
    libc::SIGXFSZ,
    libc::SIGUSR1,
    libc::SIGUSR2,
];
/// What ends a whole group of processes. The parent decides, and its end ends the child: one that went first would look as if
/// it had crashed.
const LEFT_TO_PARENT: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Makes a model of a backend's ready.
#[derive(bincode::Encode, bincode::Decode)]
pub enum How {
    At(Level),
    With(Setting),
    Without(String),
}

#[derive(bincode::Encode, bincode::Decode)]
pub enum Request {
    /// Compiles a model, which is later named by the number, and runs it where there are inputs.
    Compile {
        number: u64,
        onnx: Vec<u8>,
        how: How,
        inputs: Option<Vec<TensorData>>,
    },
    /// Answered by an [`Answer`].
    Run {
        number: u64,
        inputs: Vec<TensorData>,
    },
    Drop {
        number: u64,
    },
}

/// To [`Request::Compile`], with the operators of what was compiled; none where the backend has no such setting. An [`Answer`] comes
/// behind where inputs were given.
pub type Compiled = Option<Result<Option<Histogram>, Failure>>;

/// Does the work of a backend until the parent closes the socket or ends. To be called right after a fork.
pub fn main(backend: &dyn Backend, socket: UnixStream, printed: &File, limits: Limits, parent: u32) -> ! {
    let served = die_with(parent).is_ok()
        && set_up(printed, limits).is_ok()
        && catch_unwind(AssertUnwindSafe(|| serve(backend, &socket, printed))).is_ok_and(|served| served.is_ok());
    // SAFETY: ends the process without what the parent has registered for its exit.
    unsafe { libc::_exit(i32::from(!served)) }
}

fn set_up(printed: &File, limits: Limits) -> io::Result<()> {
    let check = |result: libc::c_int| if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
    let nowhere = File::options().write(true).open("/dev/null")?;
    // SAFETY: none of these calls touches memory of this process beyond what it is given. Nobody else is in it.
    unsafe {
        for signal in HANDLED {
            libc::signal(signal, libc::SIG_DFL);
        }
        for signal in LEFT_TO_PARENT {
            libc::signal(signal, libc::SIG_IGN);
        }
        check(libc::dup2(nowhere.as_raw_fd(), libc::STDOUT_FILENO))?;
        check(libc::dup2(printed.as_raw_fd(), libc::STDERR_FILENO))?;
        check(libc::fcntl(libc::STDERR_FILENO, libc::F_SETFL, libc::O_APPEND))?;
    }
    limit_memory(limits.memory_bytes)
}

fn serve(backend: &dyn Backend, socket: &UnixStream, printed: &File) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(socket), BufWriter::new(socket));
    let mut sessions: BTreeMap<u64, Box<dyn Session>> = BTreeMap::new();
    while let Ok(request) = bincode::decode_from_std_read::<Request, _, _>(&mut reader, CONFIGURATION) {
        let sent = match request {
            Request::Compile { number, onnx, how, inputs } => {
                let session = match how {
                    How::At(level) => Some(backend.compile(&onnx, level)),
                    How::With(setting) => backend.compile_with(&onnx, setting),
                    How::Without(pass) => Some(backend.compile_without(&onnx, &pass)),
                };
                let mut answer = None;
                let compiled: Compiled = session.map(|session| {
                    let mut session = session.map_err(classified)?;
                    let operators = session.operators();
                    answer = inputs.map(|inputs| session.run(&inputs).map_err(classified));
                    sessions.insert(number, session);
                    Ok(operators)
                });
                let sent = bincode::encode_into_std_write(compiled, &mut writer, CONFIGURATION);
                match answer {
                    Some(answer) => sent.and_then(|_| {
                        bincode::encode_into_std_write::<Answer, _, _>(answer, &mut writer, CONFIGURATION)
                    }),
                    None => sent,
                }
            }
            Request::Run { number, inputs } => {
                let answer: Answer = match sessions.get_mut(&number) {
                    Some(session) => session.run(&inputs).map_err(classified),
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
        // What was printed before this was no last word.
        printed.set_len(0)?;
    }
    Ok(())
}

/// A refusal for want of memory: of more than any model here needs.
fn classified(failure: Failure) -> Failure {
    match failure {
        Failure::Refused(reason) if is_allocation(&reason) => Failure::OutOfMemory,
        other => other,
    }
}
