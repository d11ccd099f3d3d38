//! The operators. One operator = one const in its family's file + one line in the family's table.

use crate::dtype::FLOATS;
use crate::input::mix;
use crate::spec::{Numerics, OpSpec};
use crate::swarm::Swarm;
use control::Construct;
use patterns::Pattern;
use std::sync::LazyLock;

pub mod activation;
pub mod attention;
mod ball;
pub mod blocks;
pub mod cast;
mod cells;
pub mod common;
pub mod control;
pub mod conv;
pub mod cumulative;
pub mod deform;
pub mod division;
pub mod dynamic;
mod dynamic_quantize;
mod einsum;
pub mod functions;
pub mod generators;
pub mod group_norm;
pub mod images;
pub mod indexing;
mod interpolate;
pub mod joining;
pub mod linear_algebra;
pub mod logic;
pub mod math;
pub mod matmul;
pub mod movement;
pub mod norm;
pub mod order;
pub mod patterns;
pub mod pool;
mod qdq;
pub mod qlinear;
pub mod quantize;
pub mod recurrent;
pub mod reduce;
pub mod regions;
pub mod resize;
mod rotary;
pub mod rounding;
pub mod sampling;
mod scales;
pub mod scatter;
mod scores;
pub mod signal;
pub mod slicing;
pub mod smooth;
pub mod softmax;
pub mod stateful;
mod suppression;
mod taps;
pub mod unpool;
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
    ("Linear algebra", linear_algebra::TABLE),
    ("Recurrent layers", recurrent::TABLE),
    ("Resizing", resize::TABLE),
    ("Sampling by grids", sampling::TABLE),
    ("Regions of images", regions::TABLE),
    ("Deformable convolution", deform::TABLE),
    ("Unpooling", unpool::TABLE),
    ("Fourier transforms", signal::TABLE),
    ("Blocks of pixels", blocks::TABLE),
    ("Images", images::TABLE),
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
    ("Generators", generators::TABLE),
    ("Shapes that depend on data", dynamic::TABLE),
    ("Normalisation by groups and roots", group_norm::TABLE),
    ("Attention", attention::TABLE),
    ("Sequences with a state", stateful::TABLE),
    ("Quantisation", quantize::TABLE),
    ("Quantised products", qlinear::TABLE),
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

/// What a record becomes.
#[derive(Clone, Copy)]
pub enum Choice {
    Operator(&'static OpSpec),
    Pattern(&'static Pattern),
    Control(Construct),
}

impl Choice {
    /// Every operator and every construct of control flow: all that has an ONNX operator type.
    pub fn all() -> impl Iterator<Item = Choice> {
        let operators = ALL.iter().map(|spec| Choice::Operator(spec));
        operators.chain(control::TABLE.iter().map(|(_, construct)| Choice::Control(*construct)))
    }

    pub fn by_name(name: &str) -> Option<Choice> {
        Choice::all().find(|choice| choice.name() == name)
    }

    pub fn code(self) -> u8 {
        let of = |construct: Construct| control::TABLE.iter().find(|(_, known)| *known == construct);
        match self {
            Choice::Operator(spec) => spec.code,
            Choice::Pattern(pattern) => pattern.code,
            Choice::Control(construct) => of(construct).expect("every construct has a code").0,
        }
    }

    /// The opset since which it can be written.
    pub fn since(self) -> i64 {
        match self {
            Choice::Operator(spec) => spec.since,
            Choice::Pattern(pattern) => pattern.steps.iter().map(|step| step.spec.since).max().unwrap_or(0),
            Choice::Control(_) => 0,
        }
    }

    /// The name of the operator or of the pattern.
    pub fn name(self) -> &'static str {
        match self {
            Choice::Operator(spec) => spec.name,
            Choice::Pattern(pattern) => pattern.name,
            Choice::Control(construct) => construct.name(),
        }
    }
}

/// What a record's first byte names in this case.
///
/// An operator or pattern that takes part answers to its own code. Every other byte falls to the operator with the
/// highest hash of both (rendezvous hashing), so that adding an operator changes the meaning of few old inputs.
pub fn choose(code: u8, swarm: &Swarm) -> Choice {
    let takes_part =
        |spec: &OpSpec| swarm.admits(spec.code) && spec.since <= swarm.opset && (!swarm.exact || has_exact_form(spec));
    let whole = |pattern: &&Pattern| swarm.admits(code) && pattern.steps.iter().all(|step| takes_part(step.spec));
    if let Some(pattern) = patterns::TABLE.iter().find(|pattern| pattern.code == code).filter(whole) {
        return Choice::Pattern(pattern);
    }
    let construct = control::TABLE.iter().find(|(own, _)| *own == code && swarm.admits(code));
    if let Some((_, construct)) = construct {
        return Choice::Control(*construct);
    }
    let own = ALL.iter().find(|spec| spec.code == code && takes_part(spec));
    let rank = |spec: &&&OpSpec| (takes_part(spec), mix(u64::from(code) << 8 | u64::from(spec.code)));
    Choice::Operator(own.or_else(|| ALL.iter().max_by_key(rank)).expect("there are operators"))
}

/// Whether some results of the operator must be equal to the bit.
fn has_exact_form(spec: &OpSpec) -> bool {
    matches!(spec.numerics, Numerics::Exact) || !spec.dtypes.without(FLOATS).is_empty()
}
