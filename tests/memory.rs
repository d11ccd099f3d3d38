//! What one case may allocate. A process of its own: the kernel counts per process.
#![cfg(target_os = "linux")]

use graphsmith::backend;
use graphsmith::case;
use graphsmith::harness::Harness;
use graphsmith::input;
use graphsmith::limits::MAX_CASE_BYTES;
use graphsmith::reference;
use std::fs;

/// A field of /proc/self/status in bytes.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    1024 * line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// The large inputs are those of libFuzzer's default `-max_len`.
#[test]
fn no_case_allocates_more_than_its_bound() {
    backend::install_panic_hook();
    let _no_grad = reference::init();
    let mut harness = Harness::new().expect("every backend of this build opens");
    // The libraries set themselves up in their first cases.
    for seed in 0..20 {
        harness.test(case::generate(&input::random(seed, 12))).unwrap();
    }
    let mut most = (0, 0);
    for (seed, records) in (1000..1100).map(|seed| (seed, 12)).chain((2000..2004).map(|seed| (seed, 255))) {
        // Makes the peak what is resident.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status("VmRSS");
        harness.test(case::generate(&input::random(seed, records))).unwrap();
        most = most.max((status("VmHWM").saturating_sub(before), seed));
    }
    assert!(most.0 <= MAX_CASE_BYTES, "seed {} took {} MiB", most.1, most.0 >> 20);
    assert!(most.0 > 0, "the kernel counts nothing");
}
