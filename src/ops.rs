//! The operators. One operator = one const in its family's file + one line in the family's table.

use crate::dtype::FLOATS;
use crate::input::mix;
use crate::spec::{Numerics, OpSpec};
use crate::swarm::Swarm;
use std::sync::LazyLock;

pub mod activation;
pub mod attention;
mod ball;
pub mod blocks;
pub mod cast;
mod cells;
pub mod common;
pub mod conv;
pub mod cumulative;
pub mod division;
pub mod functions;
pub mod group_norm;
pub mod indexing;
mod interpolate;
pub mod joining;
pub mod logic;
pub mod math;
pub mod matmul;
pub mod movement;
pub mod norm;
pub mod order;
pub mod pool;
pub mod recurrent;
pub mod reduce;
pub mod resize;
mod rotary;
pub mod rounding;
pub mod scatter;
mod scores;
pub mod slicing;
pub mod smooth;
pub mod softmax;
pub mod stateful;
mod windows;

/// The families' tables, in the order of the page of operators.
pub const FAMILIES: &[(&str, &[&OpSpec])] = &[
    ("Elementwise arithmetic", math::TABLE),
    ("Division and powers", division::TABLE),
    ("Elementwise functions", functions::TABLE),
    ("Activations", activation::TABLE),
    ("Smooth activations", smooth::TABLE),
    ("Comparisons and logic", logic::TABLE),
    ("Conversions and copies", cast::TABLE),
    ("Convolutions", conv::TABLE),
    ("Pools", pool::TABLE),
    ("Matrix products", matmul::TABLE),
    ("Recurrent layers", recurrent::TABLE),
    ("Resizing", resize::TABLE),
    ("Blocks of pixels", blocks::TABLE),
    ("Shapes and movement", movement::TABLE),
    ("Joining and dividing", joining::TABLE),
    ("Parts", slicing::TABLE),
    ("Indexing", indexing::TABLE),
    ("Scattering", scatter::TABLE),
    ("Order", order::TABLE),
    ("Reductions", reduce::TABLE),
    ("Running sums and products", cumulative::TABLE),
    ("Softmax and its kin", softmax::TABLE),
    ("Normalisation", norm::TABLE),
    ("Normalisation by groups and roots", group_norm::TABLE),
    ("Attention", attention::TABLE),
    ("Sequences with a state", stateful::TABLE),
];

/// Every operator, by ascending code.
pub static ALL: LazyLock<Vec<&'static OpSpec>> = LazyLock::new(|| {
    let mut all: Vec<&OpSpec> = FAMILIES.iter().flat_map(|(_, table)| table.iter().copied()).collect();
    all.sort_by_key(|spec| spec.code);
    all
});

/// The operator of this ONNX type, if graphsmith knows it.
pub fn by_name(name: &str) -> Option<&'static OpSpec> {
    ALL.iter().copied().find(|spec| spec.name == name)
}

/// The operator that a record's first byte names in this case.
///
/// An operator that takes part answers to its own code. Every other byte falls to the operator with the highest
/// hash of both (rendezvous hashing), so that adding an operator changes the meaning of few old inputs.
pub fn choose(code: u8, swarm: &Swarm) -> &'static OpSpec {
    let takes_part =
        |spec: &OpSpec| swarm.admits(spec.code) && spec.since <= swarm.opset && (!swarm.exact || has_exact_form(spec));
    let own = ALL.iter().find(|spec| spec.code == code && takes_part(spec));
    let rank = |spec: &&&OpSpec| (takes_part(spec), mix(u64::from(code) << 8 | u64::from(spec.code)));
    own.or_else(|| ALL.iter().max_by_key(rank)).expect("there are operators")
}

/// Whether some results of the operator must be equal to the bit.
fn has_exact_form(spec: &OpSpec) -> bool {
    matches!(spec.numerics, Numerics::Exact) || !spec.dtypes.without(FLOATS).is_empty()
}
