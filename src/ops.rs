//! The operators. One operator = one const in its family's file + one line in the family's table.

use crate::dtype::FLOATS;
use crate::input::mix;
use crate::limits::{NEWEST_OPSET, OLDEST_OPSET};
use crate::schema;
use crate::spec::{Numerics, OpSpec};
use crate::support::Focus;
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
mod coordinates;
pub mod cumulative;
pub mod deform;
pub mod division;
pub mod dynamic;
mod dynamic_quantize;
mod einsum;
mod filters;
pub mod functions;
pub mod generators;
pub mod group_norm;
pub mod images;
pub mod indexing;
mod interpolate;
pub mod joining;
pub mod linear_algebra;
pub mod logic;
pub mod losses;
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
pub mod spectral_windows;
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
    ("Windows and filters of spectra", spectral_windows::TABLE),
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
    ("Losses", losses::TABLE),
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

/// Which operators an opset has and the backends of a focus take in some form: by focus, opset and code.
static TAKEN: LazyLock<Vec<Vec<[bool; 256]>>> = LazyLock::new(|| {
    let taken = |focus: Focus, opset: i64| {
        let mut taken = [false; 256];
        for spec in ALL.iter().filter(|spec| spec.since <= opset) {
            let signature = schema::signature(spec.name, opset);
            taken[usize::from(spec.code)] = signature.is_some_and(|it| focus.takes(spec.name, it.version));
        }
        taken
    };
    Focus::all().map(|focus| (OLDEST_OPSET..=NEWEST_OPSET).map(|opset| taken(focus, opset)).collect()).collect()
});

/// The families of convolutions, matrix products, pools and normalisations, which compilers spend their effort on.
const HEAVY: [&str; 6] = [
    "Convolutions",
    "Pools",
    "Matrix products",
    "Quantised products",
    "Normalisation",
    "Normalisation by groups and roots",
];

/// Whether the operator is one of those that compilers spend their effort on.
pub fn is_heavy(spec: &OpSpec) -> bool {
    let has = |table: &[&OpSpec]| table.iter().any(|known| known.code == spec.code);
    FAMILIES.iter().any(|(family, table)| HEAVY.contains(family) && has(table))
}

/// In how many draws an operator takes part for a byte that is nobody's code.
fn draws(spec: &OpSpec) -> u64 {
    match () {
        // Few cases are of an opset that has it.
        () if spec.since >= 26 => 8,
        () if is_heavy(spec) => 2,
        () => 1,
    }
}

/// By byte, every operator from the one that the byte falls to first: that with the highest hash of both over all its
/// draws (rendezvous hashing).
static FALLS_TO: LazyLock<Vec<Vec<&'static OpSpec>>> = LazyLock::new(|| {
    let order = |byte: u64| {
        let highest =
            |spec: &OpSpec| (0..draws(spec)).map(|draw| mix(draw << 16 | byte << 8 | u64::from(spec.code))).max();
        let mut order = ALL.clone();
        order.sort_by_cached_key(|spec| std::cmp::Reverse(highest(spec)));
        order
    };
    (0..256).map(order).collect()
});

/// What a record's first byte names in this case.
///
/// An operator or pattern that takes part answers to its own code. Every other byte falls to an operator that takes part,
/// in a way that adding an operator changes for few bytes only.
pub fn choose(code: u8, swarm: &Swarm) -> Choice {
    let taken = &TAKEN[swarm.focus.index()][(swarm.opset - OLDEST_OPSET) as usize];
    let takes_part = |spec: &OpSpec| {
        taken[usize::from(spec.code)] && swarm.admits(spec.code) && (!swarm.exact || has_exact_form(spec))
    };
    let whole = |pattern: &&Pattern| swarm.admits(code) && pattern.steps.iter().all(|step| takes_part(step.spec));
    if let Some(pattern) = patterns::TABLE.iter().find(|pattern| pattern.code == code).filter(whole) {
        return Choice::Pattern(pattern);
    }
    let construct = control::TABLE.iter().find(|(own, _)| *own == code && swarm.admits(code));
    if let Some((_, construct)) = construct {
        return Choice::Control(*construct);
    }
    let order = &FALLS_TO[usize::from(code)];
    let own = ALL.iter().find(|spec| spec.code == code && takes_part(spec));
    let other = || order.iter().find(|spec| takes_part(spec)).unwrap_or(&order[0]);
    Choice::Operator(own.unwrap_or_else(other))
}

/// Whether some results of the operator must be equal to the bit.
fn has_exact_form(spec: &OpSpec) -> bool {
    matches!(spec.numerics, Numerics::Exact) || !spec.dtypes.without(FLOATS).is_empty()
}
