//! A small change of the input is a small change of the model.

use crate::{median, node_lines};
use graphsmith::case;
use graphsmith::input::{self, Input, Stream};
use graphsmith::{graph, ops, swarm::Swarm};
use std::collections::BTreeMap;

const INPUTS: u64 = 200;
const RECORDS: usize = 10;
/// The bytes of a record that most operators read: code, place, operands.
const READ: u64 = 6;

/// How many lines must be taken out or put in to make one model's node lines those of the other; the larger of both.
fn edits(one: &Input, other: &Input) -> usize {
    let mut balance: BTreeMap<String, isize> = BTreeMap::new();
    node_lines(&case::generate(one).model).into_iter().for_each(|line| *balance.entry(line).or_insert(0) += 1);
    node_lines(&case::generate(other).model).into_iter().for_each(|line| *balance.entry(line).or_insert(0) -= 1);
    let out: isize = balance.values().filter(|count| **count > 0).sum();
    let put_in: isize = -balance.values().filter(|count| **count < 0).sum::<isize>();
    out.max(put_in) as usize
}

#[test]
fn one_byte_changes_few_nodes() {
    let (mut all, mut idle) = (Vec::new(), 0);
    for seed in 0..INPUTS {
        let before = input::random(seed, RECORDS);
        let mut stream = Stream::new(!seed);
        let mut after = before.clone();
        // Later bytes are read only by operators with many choices.
        let byte = &mut after.records[stream.below(RECORDS as u64) as usize][stream.below(READ) as usize];
        *byte = byte.wrapping_add(1 + stream.below(255) as u8);
        all.push(edits(&before, &after));
        let text = |input| graph::text(&case::generate(input).model);
        idle += usize::from(text(&before) == text(&after));
    }
    let half = median(all.clone());
    assert!(half <= 3, "half of the changes of one byte change more than {half} of {RECORDS} nodes: {all:?}");
    assert!(idle <= INPUTS as usize * 2 / 3, "{idle} of {INPUTS} changes of one byte change nothing");
}

/// The operator of each record that was kept.
fn operators(input: &Input) -> Vec<Option<&'static str>> {
    let swarm = Swarm::new(&input.header);
    let fates = graph::grow(input).fates;
    let name = |(fate, record): (_, &input::Record)| match fate {
        Ok(_) => Some(ops::choose(record[0], &swarm).name()),
        Err(_) => None,
    };
    fates.into_iter().zip(&input.records).map(name).collect()
}

#[test]
fn inserting_or_deleting_a_record_keeps_the_others() {
    let (mut same, mut all, mut edited) = (0, 0, Vec::new());
    for seed in 0..INPUTS {
        let longer = input::random(seed, RECORDS);
        let at = Stream::new(!seed).below(RECORDS as u64) as usize;
        let mut shorter = longer.clone();
        shorter.records.remove(at);
        let (mut with, without) = (operators(&longer), operators(&shorter));
        with.remove(at);
        all += with.len();
        same += with.iter().zip(&without).filter(|(with, without)| with == without).count();
        edited.push(edits(&longer, &shorter));
    }
    assert!(same * 100 >= all * 95, "{same} of {all} other records keep their operator");
    let half = median(edited.clone());
    assert!(half <= 4, "half of the deletions of one record change more than {half} nodes: {edited:?}");
}
