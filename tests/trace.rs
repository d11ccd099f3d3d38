//! Tracing of a small library in C: what runs is counted once, computes what it did before, and doubtful code is left alone.
//!
//! One test only, because there is one set of breakpoints in a process.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use graphsmith::trace::{self, Coverage, Error, Grain, Tracing, plan};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

/// `tricky` jumps into the middle of an instruction, where the rest of it is another one. The C++ way out of `deep` is
/// taken by `setjmp` here: both skip the ends of functions.
const SOURCE: &str = r#"
#include <setjmp.h>
static jmp_buf out;
int plain(int n) { int sum = 0; for (int i = 0; i < n; i++) { if (i % 3 == 0) sum += i; else sum ^= i; } return sum; }
int chosen(int n) { switch (n) { case 0: return 5; case 1: return 7; case 2: return 11; case 3: return 13; case 4: return 17; default: return n * plain(n); } }
static void deep(int n) { if (n == 0) longjmp(out, 42); deep(n - 1); }
int escapes(int n) { int got = setjmp(out); if (got) return got; deep(n); return 0; }
int tricky(void) { int r; __asm__ volatile("jmp 1f+1\n1: .byte 0x66, 0xb8, 0x2a, 0, 0, 0" : "=a"(r)); return r; }
"#;

type Function = extern "C" fn(i32) -> i32;

fn build(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("small.c"), folder.join("libsmall.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let compiler =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-Wl,--build-id", "-o"]).args([&library, &source]).status();
    assert!(compiler.expect("cc starts").success());
    library
}

fn open(library: &Path) -> impl Fn(&str) -> Function {
    let name = CString::new(library.as_os_str().as_bytes()).unwrap();
    // SAFETY: the library has no initializers of its own.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null());
    move |name| {
        let name = CString::new(name).unwrap();
        // SAFETY: the symbols are functions of at most one integer that return one.
        unsafe {
            let address = libc::dlsym(handle, name.as_ptr());
            assert!(!address.is_null());
            std::mem::transmute::<*mut libc::c_void, Function>(address)
        }
    }
}

/// How many counters are set; they are cleared.
fn taken(tracing: &Tracing) -> usize {
    tracing.counters.iter().filter(|counter| counter.swap(0, Relaxed) != 0).count()
}

/// Does something in a forked process.
fn in_child(work: impl FnOnce() -> i32) {
    // SAFETY: the child calls a function in C and ends.
    unsafe {
        match libc::fork() {
            0 => libc::_exit((work() == 0).into()),
            child => {
                let mut status = 0;
                assert_eq!((libc::waitpid(child, &mut status, 0), status), (child, 0));
            }
        }
    }
}

#[test]
fn blocks_count_once_and_code_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let library = build(folder.path());
    let cache = folder.path().join("plans");
    assert!(matches!(trace::start(&library, None, Grain::Shared), Err(Error::NotLoaded(_))));
    let symbol = open(&library);
    let [plain, chosen, escapes, tricky] = ["plain", "chosen", "escapes", "tricky"].map(symbol);
    let inputs = 0..20;
    let results = || inputs.clone().map(|n| [plain(n), chosen(n), escapes(n), tricky(n)]).collect::<Vec<_>>();
    let before = results();
    assert_eq!(before[4][1..], [17, 42, 42]);

    let made = plan::of(&library, Some(&cache)).unwrap();
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1, "one plan by build id");
    assert_eq!(plan::of(&library, Some(&cache)).unwrap(), made);
    assert_eq!(made.dropped, 1, "`tricky`, and nothing else: {made:?}");

    // SAFETY: code can be read.
    let byte = |function: Function| unsafe { (function as usize as *const u8).read_volatile() };
    let Coverage::Traced(tracing) = trace::start(&library, Some(&cache), Grain::Shared).unwrap() else {
        panic!("cc does not instrument");
    };
    assert_eq!(tracing.counters.len(), tracing.blocks.div_ceil(trace::BLOCKS_A_COUNTER));
    assert!(tracing.blocks > 20, "{} blocks", tracing.blocks);
    assert_eq!([byte(plain), byte(chosen), byte(escapes)], [0xcc; 3]);
    assert_ne!(byte(tricky), 0xcc);

    assert_eq!(taken(&tracing), 0, "nothing has run");
    assert_eq!(plain(0), before[0][0]);
    assert!(taken(&tracing) > 0);
    assert_ne!(byte(plain), 0xcc);
    assert_eq!(plain(0), before[0][0]);
    assert_eq!(taken(&tracing), 0, "the same path is no news");
    assert_eq!(plain(9), before[9][0]);
    assert!(taken(&tracing) > 0, "a longer path is");
    in_child(|| chosen(1));
    assert!(taken(&tracing) > 0, "what a child does is seen");
    assert_eq!(byte(chosen), 0xcc, "and its breakpoints are its own");
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(move || chosen(3))).collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 13));
    assert!(taken(&tracing) > 0);
    assert_eq!(results(), before);
    assert!(taken(&tracing) > 0);
    assert_eq!(results(), before);
    assert_eq!(taken(&tracing), 0);

    let met = trace::met();
    assert_eq!(met.len(), tracing.blocks);
    let again = |function: Function| {
        trace::rearm();
        assert_eq!(taken(&tracing), 0, "putting breakpoints back counts nothing");
        assert_eq!(byte(function), 0xcc);
        assert_eq!(function(9), function(9));
        taken(&tracing)
    };
    let first = again(plain);
    assert!(first > 0, "a block counts again");
    again(chosen);
    assert_eq!(again(plain), first, "whatever ran between");
    assert_eq!(trace::met(), met, "what was ever met stays so");
    assert!(matches!(trace::start(&library, None, Grain::Shared), Err(Error::Twice)));
}
