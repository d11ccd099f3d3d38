//! The same bytes give the same ONNX bytes: again, after other cases, on another thread, in another process.

use crate::{RECORDS, onnx_bytes};
use graphsmith::input;
use graphsmith::reference;
use sha1::{Digest, Sha1};
use std::process::Command;

/// Set in the processes that this test starts of itself: the order in which they take the inputs.
const CHILD: &str = "GRAPHSMITH_TEST_ORDER";
const INPUTS: u64 = 200;
const TEST: &str = "determinism::processes_and_threads_agree";
const MARK: &str = "ONNX bytes: ";

#[test]
fn other_cases_leave_no_trace() {
    let _no_grad = reference::init();
    let bytes = |seed| onnx_bytes(&input::random(seed, RECORDS));
    for seed in 0..50 {
        let first = bytes(seed);
        assert_eq!(bytes(seed), first, "seed {seed}, twice in a row");
        bytes(seed + 1000);
        bytes(seed + 2000);
        assert_eq!(bytes(seed), first, "seed {seed}, after two other cases");
    }
}

#[test]
fn processes_and_threads_agree() {
    if let Ok(order) = std::env::var(CHILD) {
        println!("{MARK}{}", hashes(&order));
        return;
    }
    let thread = std::thread::spawn(|| hashes("up"));
    let [up, down] = ["up", "down"].map(child);
    let here = thread.join().expect("the thread does not panic");
    compare("two processes", &up, &down);
    compare("a process and a thread of this one", &up, &here);
}

fn compare(what: &str, one: &str, other: &str) {
    let differs = one.split(' ').zip(other.split(' ')).position(|(one, other)| one != other);
    assert_eq!(one.len(), other.len(), "{what}: not all inputs were hashed");
    assert_eq!(differs, None, "{what} disagree, first on this seed");
}

/// The hash of each input's ONNX bytes, by seed. Going through the inputs downwards gives each another history.
fn hashes(order: &str) -> String {
    let _no_grad = reference::init();
    let hash = |seed| {
        let digest = Sha1::digest(onnx_bytes(&input::random(seed, RECORDS)));
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let mut all: Vec<String> =
        if order == "down" { (0..INPUTS).rev().map(hash).collect() } else { (0..INPUTS).map(hash).collect() };
    if order == "down" {
        all.reverse();
    }
    all.join(" ")
}

fn child(order: &str) -> String {
    let this = std::env::current_exe().expect("a running test has a path");
    let output = Command::new(this).args([TEST, "--exact", "--nocapture"]).env(CHILD, order).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split_once(MARK)).unwrap_or_else(|| panic!("no hashes in {text}"));
    line.1.to_owned()
}
