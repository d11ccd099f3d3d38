//! What one case may use, decided by the header (swarm testing: a case with few features goes deeper into each).

use crate::dtype::{BOOL, DType, DTypes, FLOATS, INTS};
use crate::input::{RECORD_BYTES, mix};
use crate::limits::{NEWEST_OPSET, OLDEST_OPSET};
use crate::support::Focus;

/// A case's configuration. An all-zero header gives the plain case: every operator, f32, mixed sizes.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Only models whose results every correct backend must reproduce to the bit.
    pub exact: bool,
    /// The opset of the model.
    pub opset: i64,
    /// The element types of new graph inputs, where an operator allows them.
    pub dtypes: DTypes,
    /// Which operators are left out: none when 0, else about this many in 256.
    pub left_out: u8,
    pub sizes: Sizes,
    /// How often (in 256) an operand is a new graph input although a value could be reused.
    pub fresh: u8,
    /// How often (in 256) an operator is put in front of a graph input instead of behind a value.
    pub backward: u8,
    /// How often (in 256) a new leaf is an initializer rather than a graph input.
    pub initializers: u8,
    /// How often (in 256) a value that is used is also a graph output.
    pub extra_outputs: u8,
    /// See [`crate::model::Model::symbolic`].
    pub symbolic: bool,
    /// Whether some constants are `Constant` nodes rather than initializers.
    pub constant_nodes: bool,
    /// Whether the model also runs with optimisations off, which seldom shows what it does not show with them: another case
    /// teaches more.
    pub every_level: bool,
    /// How the model is said otherwise as well; see [`crate::metamorphic::choose`].
    pub axis: u8,
    /// Seeds the values of inputs and weights.
    pub data_seed: u64,
    /// The backends that every operator must be fit for.
    pub focus: Focus,
    /// Seeds the choice of what is left out.
    pub subset_seed: u64,
}

/// Nearly half of the time one that many exporters write today, else any; the newest, which has the most operators, more
/// often than others. `pick` is below 52.
fn opset(pick: u8) -> i64 {
    let choices = NEWEST_OPSET - OLDEST_OPSET + 1;
    match pick {
        11 | 12 | 24 | 25 => NEWEST_OPSET,
        0..13 => 21,
        13..26 => 18,
        // The last two picks: only the highest byte gives the very last.
        _ => OLDEST_OPSET + (i64::from(pick - 26) * choices / 25).min(choices - 1),
    }
}

/// Which sizes new dimensions prefer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sizes {
    Mixed,
    Small,
    /// Around the widths of vector registers and unrolled loops.
    Vector,
    /// Mixed, with some dimensions of size 0.
    Empty,
}

const MIXED: [i64; 16] = [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 6, 11, 13, 1, 31, 33];
const SMALL: [i64; 8] = [2, 3, 4, 5, 1, 6, 7, 3];
const VECTOR: [i64; 12] = [7, 8, 9, 15, 16, 17, 31, 32, 33, 4, 3, 63];

impl Swarm {
    pub fn new(header: &[u8; RECORD_BYTES]) -> Swarm {
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        // The zero byte of each choice is its plainest value.
        let float =
            [DType::F32, DType::F32, DType::F32, DType::F64, DType::F16, DType::F32][usize::from(header[1]) % 6];
        let dtypes = match header[1] / 64 {
            0 => DTypes::of(&[float]),
            1 => DTypes::of(&[float, DType::I64]),
            2 => DTypes::of(&[float, DType::I32, DType::Bool]),
            _ => FLOATS.or(INTS).or(BOOL),
        };
        let focus = Focus::new(header[15]);
        let known = dtypes.and(focus.dtypes());
        Swarm {
            exact: header[0] % 5 >= 3,
            opset: opset(header[0] / 5),
            dtypes: if known.is_empty() { focus.dtypes() } else { known },
            focus,
            left_out: if header[2] < 96 { 0 } else { header[2] },
            sizes: match header[3] % 16 {
                0..8 => Sizes::Mixed,
                8..12 => Sizes::Small,
                12..15 => Sizes::Vector,
                _ => Sizes::Empty,
            },
            constant_nodes: header[3] / 64 == 3,
            every_level: (header[3] / 16).is_multiple_of(4),
            fresh: header[4] / 4,
            backward: header[5] / 2,
            initializers: header[6] / 2,
            extra_outputs: header[7] / 8,
            symbolic: header[7] % 8 == 7,
            axis: header[11],
            subset_seed: u64::from(word(8)),
            data_seed: u64::from(word(12) & 0x00ff_ffff),
        }
    }

    /// Whether the operator with this code takes part.
    pub fn admits(&self, code: u8) -> bool {
        (mix(self.subset_seed << 8 | u64::from(code)) as u8) >= self.left_out
    }

    /// The preferred size of a new dimension of a tensor of rank `rank`.
    pub fn size_hint(&self, pick: u8, rank: usize) -> i64 {
        let table: &[i64] = match self.sizes {
            Sizes::Empty if pick >= 240 => return 0,
            Sizes::Small => &SMALL,
            Sizes::Vector => &VECTOR,
            Sizes::Mixed | Sizes::Empty => &MIXED,
        };
        // The higher the rank the smaller the sizes, or most tensors would pass the limits.
        let table = match rank {
            0..=2 => table,
            3 => &table[..table.len().min(10)],
            _ => &table[..table.len().min(6)],
        };
        table[usize::from(pick) * table.len() / 256]
    }
}
