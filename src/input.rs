//! The fuzzer's input: a header and fixed-size records, read from raw bytes without loss.

use arbitrary::{Arbitrary, Unstructured};
use sha1::{Digest, Sha1};

/// Bytes of the header and of each record.
pub const RECORD_BYTES: usize = 16;

/// One choice of an operator: the operator's code, then picks that its specification reads in order.
pub type Record = [u8; RECORD_BYTES];

/// A decoded input. Any bytes decode: a missing header byte is zero, a short last record is dropped.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Input {
    /// What the case may use; see [`crate::swarm::Swarm`].
    pub header: [u8; RECORD_BYTES],
    pub records: Vec<Record>,
}

impl Input {
    pub fn decode(bytes: &[u8]) -> Input {
        let (head, tail) = bytes.split_at(bytes.len().min(RECORD_BYTES));
        let mut header = [0; RECORD_BYTES];
        header[..head.len()].copy_from_slice(head);
        Input { header, records: tail.as_chunks().0.to_vec() }
    }

    /// The inverse of [`Input::decode`], up to the zero padding of the header and a dropped short record.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.header.to_vec();
        bytes.extend(self.records.iter().flatten());
        bytes
    }
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let count = u.len();
        Ok(Input::decode(u.bytes(count)?))
    }

    fn arbitrary_take_rest(u: Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Input::decode(u.take_rest()))
    }

    fn size_hint(_depth: usize) -> (usize, Option<usize>) {
        (0, None)
    }
}

/// The SHA-1 of bytes in hexadecimal digits: the name that libFuzzer gives to an input.
pub fn digest(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Mixes a 64-bit value (the finaliser of SplitMix64): a fixed, well-spread function, the same everywhere.
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of pseudo-random numbers that depends on nothing but its seed.
#[derive(Clone, Debug)]
pub struct Stream(u64);

impl Stream {
    pub fn new(seed: u64) -> Stream {
        Stream(mix(seed))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `0..1`, a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (-53f64).exp2()
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A reproducible input of `records` uniformly random records.
pub fn random(seed: u64, records: usize) -> Input {
    let mut bytes = vec![0; (records + 1) * RECORD_BYTES];
    Stream::new(seed).fill(&mut bytes);
    Input::decode(&bytes)
}

/// The most records of an input of any length: ten in the mean, as operators in models of other generators.
const MOST_RECORDS: u64 = 19;

/// Like [`random`], of one record or more.
pub fn random_of_any_length(stream: &mut Stream) -> Input {
    let records = 1 + stream.below(MOST_RECORDS) as usize;
    random(stream.next_u64(), records)
}

/// What a byte of a record decides, as far as one graph shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Which value an operand is, or that it is a new leaf.
    Operand,
    /// The type or the sizes of a new leaf.
    Leaf,
    /// An attribute, or the form of the operator.
    Choice,
}

/// What each byte of a record decides; none where nothing has read it.
pub type Uses = [Option<Use>; RECORD_BYTES];

/// The picks of one record, read in order. After the last byte the bytes are read again, mixed with the position,
/// so that a record never runs dry and each pick still depends on one byte.
pub struct Picks<'a> {
    record: &'a Record,
    position: usize,
    uses: Uses,
}

impl Picks<'_> {
    pub fn new(record: &Record) -> Picks<'_> {
        Picks { record, position: 1, uses: Uses::default() }
    }

    pub fn byte(&mut self) -> u8 {
        self.byte_for(Use::Choice)
    }

    pub fn byte_for(&mut self, decided: Use) -> u8 {
        let position = self.position;
        self.position += 1;
        let (place, again) = match position {
            ..RECORD_BYTES => (position, false),
            _ => (1 + position % (RECORD_BYTES - 1), true),
        };
        self.uses[place].get_or_insert(decided);
        let byte = self.record[place];
        if again { mix(u64::from(byte) << 32 | position as u64) as u8 } else { byte }
    }

    /// What has been read, and for what: of a byte that was read several times, the first use.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Below `bound` (at most 256, not 0); close to uniform, and monotone in the byte.
    pub fn below(&mut self, bound: usize) -> usize {
        self.below_for(Use::Choice, bound)
    }

    pub fn below_for(&mut self, decided: Use, bound: usize) -> usize {
        debug_assert!((1..=256).contains(&bound));
        usize::from(self.byte_for(decided)) * bound / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_decode_and_encode_back() {
        for length in 0..80 {
            let mut bytes = vec![0; length];
            Stream::new(length as u64).fill(&mut bytes);
            let input = Input::decode(&bytes);
            let mut padded = bytes.clone();
            padded.resize(length.max(RECORD_BYTES), 0);
            padded.truncate(padded.len() / RECORD_BYTES * RECORD_BYTES);
            assert_eq!(input.encode(), padded);
            assert_eq!(Input::decode(&input.encode()), input);
            assert_eq!(Input::arbitrary_take_rest(Unstructured::new(&bytes)).unwrap(), input);
        }
    }

    #[test]
    fn picks_never_run_dry_and_depend_on_one_byte_each() {
        let base = [7; RECORD_BYTES];
        let read = |record: &Record| {
            let mut picks = Picks::new(record);
            (0..45).map(|_| picks.byte()).collect::<Vec<_>>()
        };
        let mut changed = base;
        changed[3] = 8;
        let different = read(&base).iter().zip(read(&changed)).filter(|(a, b)| **a != *b).count();
        assert_eq!(different, 3);
    }
}
