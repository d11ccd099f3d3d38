//! Bytes to verdict on every backend. Panics on a finding.
#![no_main]

use graphsmith::fuzz::{self, Bytes};
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target, fuzzer_mutate};
use std::ffi::{CString, c_char, c_int, c_uint};
use std::sync::atomic::AtomicU8;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fuzz_target!(init: fuzz::init(register), |bytes: Bytes| fuzz::test(&bytes));
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    fuzz::mutate(data, size, max_size, seed, &mut fuzzer_mutate)
});
fuzz_crossover!(|one: &[u8], other: &[u8], out: &mut [u8], seed: u32| {
    fuzz::cross(one, other, out, seed, &mut fuzzer_mutate)
});

unsafe extern "C" {
    fn LLVMFuzzerRunDriver(argc: *mut c_int, argv: *mut *mut *mut c_char, test: TestOneInput) -> c_int;
    fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> c_int;
    fn atexit(callback: extern "C" fn()) -> c_int;
    fn __sanitizer_cov_8bit_counters_init(start: *const AtomicU8, stop: *const AtomicU8);
    fn __sanitizer_cov_pcs_init(start: *const [usize; 2], stop: *const [usize; 2]);
}
type TestOneInput = unsafe extern "C" fn(*const u8, usize) -> c_int;

fn register(counters: &'static [AtomicU8], places: &'static [[usize; 2]]) {
    let (counters, places) = (counters.as_ptr_range(), places.as_ptr_range());
    // SAFETY: libFuzzer reads and clears them between runs, and they live for ever.
    unsafe {
        __sanitizer_cov_8bit_counters_init(counters.start, counters.end);
        __sanitizer_cov_pcs_init(places.start, places.end);
    }
}

extern "C" fn summarize() {
    fuzz::summarize();
}

/// In place of the C library's, from which hash maps have their order.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, count: usize, flags: c_uint) -> isize {
    // SAFETY: the caller's.
    unsafe { fuzz::getrandom(buffer, count, flags) }
}

/// In place of libFuzzer's own `main`: adds the dictionary, and leaves libFuzzer out where it is not wanted.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *mut *mut c_char) -> c_int {
    let _ = (argc, argv);
    let given: Vec<String> = std::env::args().collect();
    // SAFETY: `summarize` may be called at any time.
    unsafe { atexit(summarize) };
    if fuzz::unguided(&given) {
        return 0;
    }
    let arguments = fuzz::arguments(given);
    let owned: Vec<CString> = arguments.into_iter().filter_map(|argument| CString::new(argument).ok()).collect();
    let mut pointers: Vec<*mut c_char> = owned.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    let mut count = pointers.len() as c_int;
    pointers.push(std::ptr::null_mut());
    let mut vector = pointers.as_mut_ptr();
    // SAFETY: `vector` is a null-terminated array of `count` strings that outlive the call.
    unsafe { LLVMFuzzerRunDriver(&mut count, &mut vector, LLVMFuzzerTestOneInput) }
}
