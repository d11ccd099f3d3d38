//! Mutations that treat records as wholes, and those of the header and of plain bytes.

use super::Mutant;
use crate::input::{self, Input, RECORD_BYTES, Record};
use crate::ops::{self, Choice, patterns};
use crate::swarm::Swarm;
use std::ops::Range;

/// The most records taken out at once.
const MOST_DELETED: usize = 4;
/// The most records taken from another input at once.
const MOST_SPLICED: usize = 4;

pub(super) fn insert(mutant: &mut Mutant) -> bool {
    let codes: Vec<u8> = Choice::all().map(Choice::code).collect();
    insert_one_of(mutant, &codes)
}

pub(super) fn pattern(mutant: &mut Mutant) -> bool {
    let codes: Vec<u8> = patterns::TABLE.iter().map(|pattern| pattern.code).collect();
    insert_one_of(mutant, &codes)
}

/// A new record with one of these codes that this case has.
fn insert_one_of(mutant: &mut Mutant, codes: &[u8]) -> bool {
    let swarm = Swarm::new(&mutant.input.header);
    let mut codes = codes.to_vec();
    codes.retain(|&code| ops::choose(code, &swarm).code() == code);
    let Some(code) = mutant.one_of(&codes).filter(|_| mutant.room() > 0) else { return false };
    let mut record = Record::default();
    match mutant.below(8) {
        // Zero picks are the plain case of every choice.
        Some(0) => {}
        Some(1) if !mutant.input.records.is_empty() => {
            let from = mutant.stream.below(mutant.input.records.len() as u64) as usize;
            record = mutant.input.records[from];
        }
        _ => mutant.stream.fill(&mut record),
    }
    record[0] = code;
    let at = place(mutant);
    mutant.records().insert(at, record);
    true
}

/// Where a record comes in: half of the time at the end, where it changes nothing that is there.
fn place(mutant: &mut Mutant) -> usize {
    let count = mutant.input.records.len();
    if mutant.once_in(2) { count } else { mutant.stream.below(count as u64 + 1) as usize }
}

pub(super) fn duplicate(mutant: &mut Mutant) -> bool {
    let Some(from) = mutant.below(mutant.input.records.len()).filter(|_| mutant.room() > 0) else { return false };
    let record = mutant.input.records[from];
    let to = if mutant.once_in(2) { from + 1 } else { place(mutant) };
    mutant.records().insert(to, record);
    true
}

pub(super) fn delete(mutant: &mut Mutant) -> bool {
    let Some(at) = mutant.below(mutant.input.records.len()) else { return false };
    let most = MOST_DELETED.min(mutant.input.records.len() - at);
    // One most of the time.
    let count = 1 + if mutant.once_in(2) { mutant.stream.below(most as u64) as usize } else { 0 };
    mutant.records().drain(at..at + count);
    true
}

pub(super) fn swap(mutant: &mut Mutant) -> bool {
    let Some(at) = mutant.below(mutant.input.records.len().saturating_sub(1)) else { return false };
    mutant.records().swap(at, at + 1);
    true
}

pub(super) fn displace(mutant: &mut Mutant) -> bool {
    let Some(from) = mutant.below(mutant.input.records.len()) else { return false };
    let record = mutant.records().remove(from);
    let to = place(mutant);
    mutant.records().insert(to, record);
    true
}

pub(super) fn splice(mutant: &mut Mutant) -> bool {
    let Some(theirs) = mutant.other.take() else { return false };
    let taken = run(mutant, &theirs);
    mutant.other = Some(theirs);
    let (at, over) = match mutant.below(mutant.input.records.len()).filter(|_| !mutant.once_in(3)) {
        Some(at) => (at, taken.len().min(mutant.input.records.len() - at)),
        None => (place(mutant), 0),
    };
    if taken.is_empty() || taken.len() - over > mutant.room() {
        return false;
    }
    mutant.records().splice(at..at + over, taken);
    true
}

/// Some records in a row.
fn run(mutant: &mut Mutant, input: &Input) -> Vec<Record> {
    let Some(from) = mutant.below(input.records.len()) else { return Vec::new() };
    let most = MOST_SPLICED.min(input.records.len() - from);
    let count = 1 + mutant.stream.below(most as u64) as usize;
    input.records[from..from + count].to_vec()
}

/// Also another header, since most of what differs between random inputs begins there.
pub(super) fn fresh(mutant: &mut Mutant) -> bool {
    mutant.input = input::random_of_any_length(&mut mutant.stream);
    true
}

/// As much that is new as in a random input, around what was worth keeping.
pub(super) fn renew(mutant: &mut Mutant) -> bool {
    let Input { header, records } = mutant.input.clone();
    let kept = run(mutant, &Input { header, records });
    if kept.is_empty() {
        return false;
    }
    fresh(mutant);
    if !mutant.once_in(4) {
        mutant.input.header = header;
    }
    let at = mutant.stream.below(mutant.input.records.len() as u64 + 1) as usize;
    mutant.records().splice(at..at, kept);
    true
}

/// The bytes of each field of the header but the first two, which share a byte; see [`Swarm::new`].
const FIELDS: [Range<usize>; 11] = [
    1..2,   // element types
    2..3,   // how many operators are left out
    3..4,   // sizes
    4..5,   // how often a value is new
    5..6,   // how often an operator is put in front
    6..7,   // initializers
    7..8,   // outputs, and symbols for sizes
    8..11,  // which operators are left out
    11..12, // axis
    12..15, // data
    15..16, // focus
];
/// Values of the exact lane's field in the first byte; the rest of that byte is the opset's.
const LANES: u8 = 5;

pub(super) fn header(mutant: &mut Mutant) -> bool {
    let first = mutant.input.header[0];
    let (opset, lane) = (first / LANES, first % LANES);
    let field = mutant.stream.below(FIELDS.len() as u64 + 2) as usize;
    match FIELDS.get(field) {
        Some(bytes) => {
            let at = bytes.start + mutant.stream.below(bytes.len() as u64) as usize;
            mutant.input.header[at] = mutant.other_byte(mutant.input.header[at]);
        }
        None if field == FIELDS.len() => {
            let other = (lane + 1 + mutant.stream.below(u64::from(LANES) - 1) as u8) % LANES;
            mutant.input.header[0] = (opset * LANES).checked_add(other).unwrap_or(other);
        }
        None => {
            let opsets = u8::MAX / LANES;
            let other = (opset + 1 + mutant.stream.below(u64::from(opsets) - 1) as u8) % opsets;
            mutant.input.header[0] = other * LANES + lane;
        }
    }
    true
}

pub(super) fn record_bytes(mutant: &mut Mutant) -> bool {
    let Some(at) = mutant.below(mutant.input.records.len()) else { return false };
    // Of the same size afterwards, whatever libFuzzer says: no other record is shifted.
    (mutant.bytes)(&mut mutant.input.records[at], RECORD_BYTES, RECORD_BYTES);
    true
}

pub(super) fn bytes(mutant: &mut Mutant) -> bool {
    let mut buffer = mutant.input.encode();
    let size = buffer.len();
    let most = (mutant.capacity + 1) * RECORD_BYTES;
    buffer.resize(most.max(size), 0);
    let size = (mutant.bytes)(&mut buffer, size, most);
    mutant.input = Input::decode(&buffer[..size.min(most)]);
    true
}
