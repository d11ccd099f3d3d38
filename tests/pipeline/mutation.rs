//! Mutations keep what they do not touch, repeat themselves, and are all met.

use crate::{RECORDS, mean};
use graphsmith::input::{self, Input, RECORD_BYTES, Record, Stream};
use graphsmith::mutate::{self, Mutation, TABLE};
use std::collections::BTreeMap;

const INPUTS: u32 = 200;
/// What libFuzzer allows by default.
const MAX_SIZE: usize = 4096;

fn mutated(data: &[u8], other: Option<&[u8]>, max_size: usize, seed: u32) -> Vec<u8> {
    mutate::mutate(data, other, max_size, seed, &mut mutate::one_byte(seed.into()))
}

/// What one row makes of the input of this seed.
fn applied(row: &Mutation, seed: u32) -> (Input, Input, Option<Input>) {
    let (before, other) = (input::random(seed.into(), RECORDS), input::random((!seed).into(), RECORDS));
    let after = row.apply(&before, &other, MAX_SIZE, seed, &mut mutate::one_byte(seed.into()));
    (before, other, after)
}

/// How many records the first input has that the second lacks.
fn lost(from: &Input, to: &Input) -> usize {
    let mut balance: BTreeMap<Record, isize> = BTreeMap::new();
    from.records.iter().for_each(|record| *balance.entry(*record).or_insert(0) += 1);
    to.records.iter().for_each(|record| *balance.entry(*record).or_insert(0) -= 1);
    balance.values().filter(|count| **count > 0).sum::<isize>() as usize
}

#[test]
fn every_row_finds_something_to_change() {
    for row in TABLE {
        let changed = (0..INPUTS).filter(|&seed| applied(row, seed).2.is_some()).count();
        // Two fifths of the cases are of the exact lane, in which most patterns are left out.
        assert!(
            changed * 10 >= INPUTS as usize * if row.name == "pattern" { 6 } else { 8 },
            "{}: {changed} of {INPUTS}",
            row.name
        );
    }
}

#[test]
fn untouched_records_stay() {
    // Rows that change or add a record, and the most that the others add or take out.
    for row in TABLE.iter().filter(|row| !["bytes", "fresh", "renew"].contains(&row.name)) {
        let (added, removed) = match row.name {
            "delete" => (0, 4),
            "insert" | "pattern" | "duplicate" => (1, 0),
            "swap" | "move" | "header" => (0, 0),
            "splice" => (4, 4),
            _ => (1, 1),
        };
        for seed in 0..INPUTS {
            let (before, other, after) = applied(row, seed);
            let Some(after) = after else { continue };
            assert!(lost(&after, &before) <= added && lost(&before, &after) <= removed, "{} of {seed}", row.name);
            assert_eq!(after.header != before.header, row.name == "header", "{} of {seed}", row.name);
            assert_eq!(Input::decode(&after.encode()), after);
            if row.crosses {
                let theirs = |record: &Record| before.records.contains(record) || other.records.contains(record);
                assert!(after.records.iter().all(theirs), "a splice of {seed} makes up records");
            }
        }
    }
}

#[test]
fn what_is_renewed_keeps_a_record() {
    let row = TABLE.iter().find(|row| row.name == "renew").expect("a row of this name");
    for seed in 0..INPUTS {
        let (before, _, after) = applied(row, seed);
        let Some(after) = after else { continue };
        assert!(after.records.iter().any(|record| before.records.contains(record)), "{seed}");
        assert!(after.records.iter().any(|record| !before.records.contains(record)), "{seed}");
    }
}

#[test]
fn mutants_repeat_differ_and_fit() {
    for seed in 0..3000_u32 {
        let mut stream = Stream::new(seed.into());
        let length = stream.below(160) as usize;
        let max_size = 1 + stream.below(200) as usize;
        let mut data = vec![0; length];
        stream.fill(&mut data);
        let other = input::random(stream.next_u64(), 6).encode();
        let other = (seed % 2 == 0).then_some(&other[..]);
        let after = mutated(&data, other, max_size, seed);
        assert_eq!(after, mutated(&data, other, max_size, seed), "seed {seed}");
        assert!((1..=max_size).contains(&after.len()), "{} bytes of {max_size}, seed {seed}", after.len());
        assert_ne!(Input::decode(&after), Input::decode(&data), "seed {seed}");
    }
}

#[test]
fn inputs_do_not_grow_by_themselves() {
    let mut counts = Vec::new();
    for chain in 0..40_u32 {
        let other = input::random(chain.into(), 6).encode();
        let mut data = input::random((!chain).into(), 6).encode();
        for step in 0..200 {
            // As libFuzzer does: half of the calls with another input.
            data = mutated(&data, (step % 2 == 0).then_some(&other[..]), MAX_SIZE, chain << 16 | step);
        }
        counts.push(data.len() / RECORD_BYTES - 1);
    }
    let mean = mean(&counts);
    assert!((2.0..=24.0).contains(&mean), "after 200 mutations of 6 records there are {mean} on average: {counts:?}");
}
