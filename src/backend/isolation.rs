//! Turns a panic inside a backend into a [`Failure`], and leaves every other panic alone.

use super::Failure;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

/// How the threads that backends start are named. A panic there reaches the isolated caller by being resumed.
const WORKER_THREADS: [&str; 1] = ["rten-"];

/// Hexadecimal digits from which on a number is an address.
const ADDRESS_DIGITS: usize = 8;

thread_local! {
    static ISOLATED: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The last panic on a worker thread.
static WORKER_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Puts a panic hook before the present one that keeps panics of isolated code quiet and hands all others on.
///
/// The first call does it, later ones do nothing. libfuzzer-sys sets a hook that aborts the process before anything can
/// unwind: a fuzz target must call this after that, in its `init`.
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if ISOLATED.get() {
                PANIC.set(Some(describe(info)));
            } else if on_worker_thread() {
                *worker_panic() = Some(describe(info));
            } else {
                previous(info);
            }
        }));
    });
}

/// Runs a backend's code. A panic in it becomes [`Failure::Crashed`] with the message and the source line.
///
/// What the panic has left half-done must not be used again: drop the session.
pub fn isolate<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    install_panic_hook();
    let outer = ISOLATED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    ISOLATED.set(outer);
    result.unwrap_or_else(|_| {
        let description = PANIC.take().or_else(|| worker_panic().take());
        Err(Failure::Crashed(description.unwrap_or_else(|| "panicked without a message".to_owned())))
    })
}

fn on_worker_thread() -> bool {
    thread::current().name().is_some_and(|name| WORKER_THREADS.iter().any(|prefix| name.starts_with(prefix)))
}

fn worker_panic() -> std::sync::MutexGuard<'static, Option<String>> {
    WORKER_PANIC.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `message at crate-1.2.3/src/file.rs:line`, the same on every machine.
fn describe(info: &PanicHookInfo) -> String {
    let message = info.payload_as_str().unwrap_or("panicked without a message");
    let Some(location) = info.location() else { return message.to_owned() };
    format!("{} at {}:{}", without_addresses(message), portable(location.file()), location.line())
}

/// The path of a source file without what differs from machine to machine.
fn portable(file: &str) -> &str {
    // Sources of dependencies lie in `.../registry/src/<registry>/<crate>-<version>/...`, those of the standard library in
    // `/rustc/<commit>/...`.
    let below = |folder: &str| file.split_once(folder).and_then(|(_, file)| file.split_once('/'));
    below("/registry/src/").or_else(|| below("/rustc/")).map_or(file, |(_, file)| file)
}

/// A message without the addresses of the process, which differ from run to run.
pub(super) fn without_addresses(message: &str) -> String {
    let mut parts = message.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_hexdigit()).len();
        // Shorter numbers are data, such as an alignment.
        if digits < ADDRESS_DIGITS { text + "0x" + part } else { text + "0x..." + &part[digits..] }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_machines_and_runs_is_left_out() {
        assert_eq!(portable("/home/a/.cargo/registry/src/index-0123/x-1.0/src/a.rs"), "x-1.0/src/a.rs");
        assert_eq!(portable("/rustc/0123abc/library/core/src/num/mod.rs"), "library/core/src/num/mod.rs");
        assert_eq!(portable("src/a.rs"), "src/a.rs");
        let told = "a multiple of 0x8 but is 0x7ffd2a1b3c4d, not 0x7ffd2a1b0000";
        assert_eq!(without_addresses(told), "a multiple of 0x8 but is 0x..., not 0x...");
        assert_eq!(without_addresses("plain 0x"), "plain 0x");
    }

    fn crash(run: impl FnOnce()) -> String {
        match isolate(|| {
            run();
            Ok(())
        }) {
            Err(Failure::Crashed(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_panic_becomes_a_failure() {
        assert!(crash(|| panic!("five is {}", 5)).starts_with("five is 5 at src/backend/isolation.rs:"));
        assert!(crash(|| std::panic::panic_any(5)).starts_with("panicked without a message at "));
        assert_eq!(isolate(|| Ok(5)), Ok(5));
        assert_eq!(isolate(|| Err::<(), _>(Failure::TimedOut)), Err(Failure::TimedOut));
    }

    #[test]
    fn isolation_nests() {
        let outer = crash(|| {
            assert!(crash(|| panic!("inner")).starts_with("inner at "));
            panic!("outer")
        });
        assert!(outer.starts_with("outer at "), "{outer}");
        assert!(!ISOLATED.get());
    }

    #[test]
    fn a_panic_on_a_worker_thread_is_described() {
        let message = crash(|| {
            let worker = thread::Builder::new().name("rten-0".to_owned()).spawn(|| panic!("far away")).unwrap();
            std::panic::resume_unwind(worker.join().unwrap_err())
        });
        assert!(message.starts_with("far away at "), "{message}");
    }
}
