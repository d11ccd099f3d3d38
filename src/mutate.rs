//! Mutation and crossover of inputs, in terms of the header and the records: libFuzzer's own mutations of bytes know
//! nothing of either, and one byte put in shifts every record after it.
//!
//! One mutation = one row of [`TABLE`]. Every row leaves what it does not touch as it is, to the bit, and depends on
//! nothing but the inputs, the seed and, where it says so, libFuzzer's mutation of bytes.

use crate::dtype::DType;
use crate::graph;
use crate::input::{Input, RECORD_BYTES, Record, Stream, Uses};

mod aimed;
mod records;

/// One way to change an input.
pub struct Mutation {
    pub name: &'static str,
    /// What it does, for the report.
    pub doc: &'static str,
    /// How often it is drawn, relative to the others.
    pub share: u32,
    /// It takes something from a second input, and so is only drawn for a crossover.
    pub crosses: bool,
    apply: fn(&mut Mutant) -> bool,
}

const fn row(name: &'static str, share: u32, doc: &'static str, apply: fn(&mut Mutant) -> bool) -> Mutation {
    Mutation { name, doc, share, crosses: false, apply }
}

/// A case costs about the same however little of it is new, so most of the inputs have much that is new.
const FRESH: u32 = 150;
const RENEWED: u32 = 300;

/// The mutations. What adds records and what takes them away is drawn about as often, so that inputs do not grow by
/// themselves; libFuzzer makes half of the calls with a second input, so the splice is drawn half as often as its share
/// says.
pub const TABLE: &[Mutation] = &[
    row("insert", 12, "a new record of one operator", records::insert),
    row("pattern", 6, "a new record of a fusion pattern", records::pattern),
    row("duplicate", 4, "a record once more, right behind or anywhere", records::duplicate),
    row("delete", 20, "a run of one to four records taken out", records::delete),
    row("swap", 4, "two neighbours change places", records::swap),
    row("move", 4, "a record put elsewhere", records::displace),
    row("retarget", 12, "a byte that picks an operand", aimed::retarget),
    row("attribute", 14, "a byte that picks an attribute or a form", aimed::attribute),
    row("leaf", 8, "a byte that picks type, rank or sizes of a new leaf", aimed::leaf),
    row("replace", 10, "another operator that takes the same element types", aimed::replace),
    row("header", 6, "one field of the header", records::header),
    row("record bytes", 4, "libFuzzer's mutation within one record", records::record_bytes),
    row("bytes", 2, "libFuzzer's mutation of the whole input", records::bytes),
    row("fresh", FRESH, "a random input in place of all", records::fresh),
    row("renew", RENEWED, "all random but a run of records", records::renew),
    Mutation {
        crosses: true,
        ..row("splice", 40, "a run of records of another input put in or over", records::splice)
    },
];

/// libFuzzer's mutation of bytes: a buffer, how much of it is in use, and how much may be afterwards, to how much is.
pub type ByteMutator<'a> = &'a mut dyn FnMut(&mut [u8], usize, usize) -> usize;

/// What stands in for libFuzzer where there is none: one byte is changed, put in or taken out.
pub fn one_byte(seed: u64) -> impl FnMut(&mut [u8], usize, usize) -> usize {
    let mut stream = Stream::new(seed);
    move |data, size, most| {
        let at = stream.below(size.max(1) as u64) as usize;
        match stream.below(3) {
            0 if size < most => {
                data.copy_within(at..size, at + 1);
                size + 1
            }
            1 if size > 1 => {
                data.copy_within(at + 1..size, at);
                size - 1
            }
            _ => {
                data[at] = data[at].wrapping_add(1 + stream.below(255) as u8);
                size
            }
        }
    }
}

/// An input while it is changed.
struct Mutant<'a> {
    input: Input,
    /// The second input of a crossover.
    other: Option<Input>,
    /// The most bytes and the most records that the result may have.
    max_size: usize,
    capacity: usize,
    stream: Stream,
    bytes: ByteMutator<'a>,
}

/// What an input describes.
struct View {
    /// The model as text.
    text: String,
    /// What each record gives.
    sites: Vec<Site>,
}

struct Site {
    kept: bool,
    uses: Uses,
    /// Operands' and outputs' element types of the operator that the record begins with.
    form: Option<(Vec<Option<DType>>, Vec<DType>)>,
}

impl<'a> Mutant<'a> {
    fn new(data: &[u8], other: Option<&[u8]>, max_size: usize, seed: u32, bytes: ByteMutator<'a>) -> Mutant<'a> {
        Mutant {
            input: Input::decode(data),
            other: other.map(Input::decode),
            max_size,
            capacity: (max_size / RECORD_BYTES).saturating_sub(1),
            stream: Stream::new(u64::from(seed)),
            bytes,
        }
    }

    fn records(&mut self) -> &mut Vec<Record> {
        &mut self.input.records
    }

    /// How many more records there is room for.
    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.input.records.len())
    }

    /// Uniform below `bound`; none if that is 0.
    fn below(&mut self, bound: usize) -> Option<usize> {
        (bound > 0).then(|| self.stream.below(bound as u64) as usize)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        self.below(choices.len()).map(|index| choices[index])
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: u64) -> bool {
        self.stream.below(n) == 0
    }

    /// Another value for a byte.
    fn other_byte(&mut self, byte: u8) -> u8 {
        byte.wrapping_add(1 + self.stream.below(255) as u8)
    }

    /// What the input describes as it is, which takes as long as making the graph.
    fn view(&self) -> View {
        let graph = graph::grow(&self.input);
        let site = |(fate, uses): (&Result<_, _>, &Uses)| {
            let node = fate.as_ref().ok().copied().flatten();
            Site { kept: fate.is_ok(), uses: *uses, form: node.and_then(|node| graph.form(node)) }
        };
        let sites = graph.fates.iter().zip(&graph.uses).map(site).collect();
        View { text: graph::text(&graph.model()), sites }
    }

    /// Takes records out until there is room for all, and what there is no room for out of the header.
    fn shrink(&mut self) {
        self.input.header[self.max_size.min(RECORD_BYTES)..].fill(0);
        while self.input.records.len() > self.capacity {
            let at = self.stream.below(self.input.records.len() as u64) as usize;
            self.input.records.remove(at);
        }
    }
}

/// A changed input of at most `max_size` bytes, and of at least one if that allows it. With a second input also a
/// crossover of both.
pub fn mutate(data: &[u8], other: Option<&[u8]>, max_size: usize, seed: u32, bytes: ByteMutator) -> Vec<u8> {
    let mut mutant = Mutant::new(data, other, max_size, seed, bytes);
    let before = mutant.input.clone();
    mutant.shrink();
    // An input may have nothing that a row could change, but every input has a header.
    const DRAWS: usize = 16;
    for _ in 0..DRAWS {
        if mutant.input != before {
            break;
        }
        let row = draw(&mut mutant);
        (row.apply)(&mut mutant);
        mutant.shrink();
    }
    if mutant.input == before {
        let at = mutant.stream.below(max_size.clamp(1, RECORD_BYTES) as u64) as usize;
        mutant.input.header[at] = mutant.other_byte(before.header[at]);
    }
    let mut encoded = mutant.input.encode();
    encoded.truncate(max_size);
    encoded
}

fn draw<'a>(mutant: &mut Mutant) -> &'a Mutation {
    let crossing = mutant.other.is_some();
    let rows = || TABLE.iter().filter(|row| crossing || !row.crosses);
    let mut left = mutant.stream.below(rows().map(|row| u64::from(row.share)).sum());
    for row in rows() {
        match left.checked_sub(u64::from(row.share)) {
            Some(less) => left = less,
            None => return row,
        }
    }
    unreachable!("the draw is below the sum of all shares")
}

impl Mutation {
    /// The input changed by this row alone; none where the row finds nothing to change.
    pub fn apply(&self, input: &Input, other: &Input, max_size: usize, seed: u32, bytes: ByteMutator) -> Option<Input> {
        let mut mutant = Mutant::new(&input.encode(), Some(&other.encode()), max_size, seed, bytes);
        ((self.apply)(&mut mutant) && mutant.input != *input).then_some(mutant.input)
    }
}
