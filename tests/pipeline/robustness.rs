//! Any bytes give a verdict, and most give a case that is worth it.

use crate::{RECORDS, generate};
use graphsmith::case::{self, Case};
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input::{self, Input, RECORD_BYTES, Stream};
use graphsmith::known::Known;
use graphsmith::reference;

/// Decodes, generates, searches and judges without a backend.
fn test(bytes: &[u8]) -> Verdict {
    let mut harness = Harness::with(Vec::new(), Known::default());
    let verdict = harness.test(case::generate(&Input::decode(bytes)));
    verdict.unwrap_or_else(|defect| panic!("{defect} for {} bytes {:x?}", bytes.len(), &bytes[..bytes.len().min(200)]))
}

fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Stream::new(seed).fill(&mut bytes);
    bytes
}

#[test]
fn any_bytes_give_a_verdict() {
    let _no_grad = reference::init();
    for length in 0..=200 {
        test(&random(length as u64, length));
    }
    for byte in [0, 1, 0x20, 0x7f, 0x80, 0xfe, 0xff] {
        for length in [0, 1, 15, 16, 17, 32, 33, 160, 1000] {
            test(&vec![byte; length]);
        }
    }
    let text = "The quick brown fox jumps over the lazy dog; 0123456789 {\"a\": [1, 2]}\n".repeat(8);
    test(text.as_bytes());
    for seed in 0..20 {
        let header = random(seed, RECORD_BYTES);
        let record = random(!seed, RECORD_BYTES);
        test(&[header, record.repeat(24)].concat());
    }
    // libFuzzer's longest input.
    for seed in 0..4 {
        test(&random(seed, 4096));
    }
}

#[test]
fn an_input_without_records_is_skipped() {
    let _no_grad = reference::init();
    for length in 0..2 * RECORD_BYTES {
        assert!(matches!(test(&vec![0xa5; length]), Verdict::Skip(case::NoCase::Empty)), "{length} bytes");
    }
}

#[test]
fn most_inputs_give_three_nodes_or_more() {
    const INPUTS: u64 = 500;
    let small = (0..INPUTS).filter(|&seed| generate(seed).model.nodes.len() < 3).count();
    assert!(small <= INPUTS as usize / 10, "{small} of {INPUTS} inputs of {RECORDS} records give fewer than 3 nodes");
}

#[test]
fn a_third_of_the_cases_is_exact() {
    let _no_grad = reference::init();
    let (mut exact, mut cases) = (0, 0);
    for seed in 0..400 {
        if let Ok(case) = Case::build(&input::random(seed, 8)).unwrap() {
            cases += 1;
            exact += usize::from(case.expectation.outputs.iter().all(|output| output.allowed.is_empty()));
        }
    }
    assert!(exact * 3 >= cases, "{exact} of {cases} cases are exact");
}
