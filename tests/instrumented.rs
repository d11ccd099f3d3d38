//! A library in C that clang has instrumented registers with this program when it is loaded, and its counters count, in
//! forked processes as well.
//!
//! One test only, because what is registered is kept for the whole process.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use graphsmith::trace::{self, Coverage, Grain};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Enough branches for some pages of counters.
const SOURCE: &str = "
#define ONE(n) if (chosen == n) sum += n * sum + 1;
#define TEN(n) ONE(n) ONE(n + 1) ONE(n + 2) ONE(n + 3) ONE(n + 4) ONE(n + 5) ONE(n + 6) ONE(n + 7) ONE(n + 8) ONE(n + 9)
#define HUNDRED(n) TEN(n) TEN(n + 10) TEN(n + 20) TEN(n + 30) TEN(n + 40) TEN(n + 50) TEN(n + 60) TEN(n + 70) TEN(n + 80) TEN(n + 90)
#define THOUSAND(n) int f##n(volatile int *choice, int sum) { int chosen = *choice; HUNDRED(n) HUNDRED(n + 100) HUNDRED(n + 200) \\
    HUNDRED(n + 300) HUNDRED(n + 400) HUNDRED(n + 500) HUNDRED(n + 600) HUNDRED(n + 700) HUNDRED(n + 800) HUNDRED(n + 900) return sum; }
THOUSAND(0) THOUSAND(1000) THOUSAND(2000) THOUSAND(3000) THOUSAND(4000) THOUSAND(5000) THOUSAND(6000) THOUSAND(7000)
int choose(int n) { return f0(&n, 1) ^ f1000(&n, 2) ^ f2000(&n, 3) ^ f3000(&n, 4) ^ f4000(&n, 5) ^ f5000(&n, 6) ^ f6000(&n, 7) ^ f7000(&n, 8); }
";

static COUNTERS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
static PLACES: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *const AtomicU8, stop: *const AtomicU8) {
    COUNTERS.lock().unwrap().push((start.addr(), stop.addr()));
}

#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_pcs_init(start: *const usize, stop: *const usize) {
    PLACES.lock().unwrap().push((start.addr(), stop.addr()));
}

fn build(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("small.c"), folder.join("libsmall.so"));
    std::fs::write(&source, SOURCE).unwrap();
    let instrumented = ["-fsanitize-coverage=inline-8bit-counters,pc-table", "-fno-sanitize-link-runtime"];
    let mut clang = Command::new("clang");
    clang.args(["-shared", "-fPIC", "-O0", "-w"]).args(instrumented).arg("-o").args([&library, &source]);
    let status =
        clang.status().expect("clang is missing, which this test needs: install it (Debian: apt-get install clang)");
    assert!(status.success());
    library
}

#[test]
fn counters_of_an_instrumented_library_are_registered_and_count() {
    let folder = tempfile::tempdir().unwrap();
    let library = build(folder.path());
    let name = CString::new(library.as_os_str().as_bytes()).unwrap();
    // SAFETY: its only initializers call the two functions above, and `choose` has this type.
    let choose: extern "C" fn(i32) -> i32 = unsafe {
        let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null());
        std::mem::transmute::<*mut libc::c_void, _>(libc::dlsym(handle, c"choose".as_ptr()))
    };
    let before = choose(42);
    assert!(trace::program().unwrap().is_none(), "rustc has not instrumented this program");

    let [(start, stop)] = COUNTERS.lock().unwrap()[..] else { panic!("one module, and it registers") };
    let Coverage::Instrumented(counters) = trace::start(&library, None, Grain::Shared).unwrap() else {
        panic!("it has counters")
    };
    assert_eq!((counters.as_ptr().addr(), counters.len()), (start, stop - start));
    assert!(counters.len() > 8000, "{}", counters.len());
    let [(first, last)] = PLACES.lock().unwrap()[..] else { panic!("one table, and it registers") };
    assert_eq!(last - first, counters.len() * 2 * size_of::<usize>());

    let total = || counters.iter().map(|counter| usize::from(counter.swap(0, Relaxed))).sum::<usize>();
    assert!(total() > 0, "what it counted before it was looked at is kept");
    assert_eq!(total(), 0);
    assert_eq!(choose(42), before);
    let one = total();
    assert!(one > 0);
    assert_eq!([choose(42), choose(42)], [before; 2]);
    assert_eq!(total(), 2 * one, "it counts every time");

    // SAFETY: the child calls a function in C and ends.
    unsafe {
        match libc::fork() {
            0 => libc::_exit((choose(4321) == 0).into()),
            child => assert_eq!(libc::waitpid(child, ptr::null_mut(), 0), child),
        }
    }
    assert!(total() > 0, "what a child does is seen");
}
