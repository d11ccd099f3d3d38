//! Patterns that optimisers look for: one record that becomes several operators, each using the one before it.
//!
//! Single records meet such chains only by luck. A pattern is one const: its steps are operators of the catalogue, some
//! with a `build` that fixes the attributes or constants that a rewrite asks for. A step that cannot be placed ends the
//! pattern; what was placed stays.

use super::{
    activation, cast, conv, division, functions, indexing, joining, logic, math, matmul, movement, norm, pool,
};
use super::{generators, qdq, reduce, slicing, softmax};
use crate::dtype::{DType, DTypes, FLOATS};
use crate::limits::MAX_RANK;
use crate::spec::{ANY_RANK, Attribute, Builder, Domain, OpSpec, Skip};
use crate::term::Term;
use Link::{Operand, Output, Previous};

/// Several operators placed by one record.
pub struct Pattern {
    /// The permanent wire code in a record, from the same space as the operators'.
    pub code: u8,
    pub name: &'static str,
    pub steps: &'static [Step],
}

/// One operator of a pattern.
pub struct Step {
    pub spec: &'static OpSpec,
    /// What its operands are, as far as `build` looks for existing values; anything where the list ends.
    pub operands: &'static [Link],
    /// Its picks are those of the first step, so that attributes repeat.
    pub same_picks: bool,
}

/// What an operand of a step is.
#[derive(Clone, Copy)]
pub enum Link {
    /// The first output of the step before.
    Previous,
    /// The first output of this step.
    Output(usize),
    /// This operand of this step.
    Operand(usize, usize),
}

const fn step(spec: &'static OpSpec, operands: &'static [Link]) -> Step {
    Step { spec, operands, same_picks: false }
}

/// A step whose main operand is the result of the one before.
const fn then(spec: &'static OpSpec) -> Step {
    step(spec, &[Previous])
}

const fn again(spec: &'static OpSpec) -> Step {
    Step { spec, operands: &[Previous], same_picks: true }
}

/// The main operand of the pattern's first step.
const START: Link = Operand(0, 0);

pub const TABLE: &[Pattern] = &[
    Pattern {
        code: 0xf0,
        name: "convolution-normalised",
        steps: &[then(&conv::CONV), then(&norm::BATCH), then(&activation::RELU)],
    },
    Pattern {
        code: 0xf1,
        name: "convolution-scaled",
        steps: &[then(&conv::CONV), then(&PER_CHANNEL_MUL), then(&PER_CHANNEL_ADD), then(&math::CLIP)],
    },
    Pattern {
        code: 0xf2,
        name: "dense",
        steps: &[then(&matmul::MATMUL), then(&BIAS), then(&activation::RELU), then(&matmul::MATMUL)],
    },
    Pattern {
        code: 0xf3,
        name: "transposes",
        steps: &[then(&movement::TRANSPOSE), then(&activation::RELU), again(&movement::TRANSPOSE)],
    },
    Pattern {
        code: 0xf4,
        name: "transposed-product",
        steps: &[then(&LAST_TWO_SWAPPED), then(&matmul::MATMUL), then(&LAST_TWO_SWAPPED)],
    },
    Pattern { code: 0xf5, name: "casts", steps: &[then(&cast::CAST), then(&cast::CAST), then(&cast::CAST)] },
    Pattern {
        code: 0xf6,
        name: "layer-normalization",
        steps: &[
            then(&MEAN_OF_LAST),
            step(&math::SUB, &[Previous, START]),
            then(&SQUARED),
            then(&MEAN_OF_LAST),
            then(&PLUS_EPSILON),
            then(&functions::SQRT),
            step(&division::DIV, &[Output(1), Previous]),
            then(&LAST_MUL),
            then(&BIAS),
        ],
    },
    Pattern {
        code: 0xf7,
        name: "gelu",
        steps: &[
            then(&OVER_ROOT_OF_TWO),
            then(&functions::ERF),
            then(&PLUS_ONE),
            step(&math::MUL, &[Previous, START]),
            then(&HALVED),
        ],
    },
    Pattern {
        code: 0xf8,
        name: "gelu-by-tanh",
        steps: &[
            then(&CUBED),
            then(&TIMES_CUBIC),
            step(&math::ADD, &[Previous, START]),
            then(&TIMES_ROOT),
            then(&functions::TANH),
            then(&PLUS_ONE),
            step(&math::MUL, &[Previous, START]),
            then(&HALVED),
        ],
    },
    Pattern {
        code: 0xf9,
        name: "slices-joined",
        steps: &[
            then(&slicing::SLICE),
            step(&slicing::SLICE, &[START]),
            step(&joining::CONCAT, &[Output(0), Output(1)]),
        ],
    },
    Pattern {
        code: 0xfa,
        name: "padded-convolution",
        steps: &[then(&ZERO_PAD), then(&conv::CONV), then(&activation::LEAKY_RELU)],
    },
    Pattern { code: 0xfb, name: "padded-pool", steps: &[then(&ZERO_PAD), then(&pool::MAX_POOL)] },
    Pattern {
        code: 0xfc,
        name: "reshapes",
        steps: &[then(&movement::RESHAPE), then(&movement::RESHAPE), then(&movement::SQUEEZE)],
    },
    Pattern { code: 0xfd, name: "clips", steps: &[then(&activation::RELU), then(&math::CLIP), then(&math::CLIP)] },
    Pattern {
        code: 0xfe,
        name: "attention",
        steps: &[then(&matmul::MATMUL), then(&HALVED), then(&BIAS), then(&softmax::SOFTMAX), then(&matmul::MATMUL)],
    },
    Pattern {
        code: 0xff,
        name: "skip-normalization",
        steps: &[then(&math::ADD), then(&norm::LAYER), step(&math::ADD, &[Output(1), Output(0)])],
    },
    Pattern { code: 0x46, name: "swish", steps: &[then(&activation::SIGMOID), step(&math::MUL, &[Previous, START])] },
    Pattern {
        code: 0x47,
        name: "softmax-decomposed",
        steps: &[then(&functions::EXP), then(&SUM_OF_LAST), step(&division::DIV, &[Output(0), Previous])],
    },
    Pattern {
        code: 0x48,
        name: "mean-square",
        steps: &[
            then(&math::SUB),
            step(&math::MUL, &[Previous, Previous]),
            then(&MEAN_OF_LAST),
            then(&functions::SQRT),
        ],
    },
    Pattern {
        code: 0x49,
        name: "repeated",
        steps: &[then(&movement::UNSQUEEZE), then(&movement::EXPAND), then(&movement::RESHAPE)],
    },
    Pattern {
        code: 0x4a,
        name: "divided-and-joined",
        steps: &[then(&joining::SPLIT), step(&joining::CONCAT, &[Output(0), Output(0)]), then(&movement::TRANSPOSE)],
    },
    Pattern {
        code: 0x4b,
        name: "masked",
        steps: &[then(&logic::GREATER), step(&logic::WHERE, &[Operand(0, 0), Operand(0, 0), Previous])],
    },
    Pattern {
        code: 0x4c,
        name: "gathered-twice",
        steps: &[then(&indexing::GATHER), then(&indexing::GATHER), then(&movement::UNSQUEEZE)],
    },
    Pattern {
        code: 0x4d,
        name: "constants-folded",
        steps: &[then(&PLUS_ONE), then(&PLUS_ONE), then(&HALVED), then(&HALVED)],
    },
    Pattern {
        code: 0x4e,
        name: "shape-arithmetic",
        steps: &[then(&joining::SHAPE), then(&indexing::GATHER), then(&math::MUL), then(&cast::CAST)],
    },
    Pattern {
        code: 0x94,
        name: "flattened-by-its-shape",
        steps: &[
            then(&WHOLE_SHAPE),
            then(&FIRST_SIZES),
            then(&WITH_INFERRED),
            step(&movement::RESHAPE, &[START, Previous]),
            then(&activation::RELU),
        ],
    },
    Pattern {
        code: 0x95,
        name: "expanded-to-a-shape",
        steps: &[then(&WHOLE_SHAPE), then(&EXPANDED), step(&math::ADD, &[Previous, START])],
    },
    Pattern {
        code: 0x96,
        name: "heads-by-shape-arithmetic",
        steps: &[
            then(&WHOLE_SHAPE),
            then(&LAST_SIZE),
            then(&HALVED_SIZE),
            then(&WITH_COPIES),
            step(&movement::RESHAPE, &[START, Previous]),
            then(&movement::TRANSPOSE),
        ],
    },
    Pattern {
        code: 0x97,
        name: "enlarged-shape",
        steps: &[
            then(&WHOLE_SHAPE),
            then(&DOUBLED_SIZES),
            step(&generators::CONSTANT_OF_SHAPE, &[Previous]),
            then(&cast::CAST),
        ],
    },
    Pattern {
        code: 0x4f,
        name: "negated",
        steps: &[then(&math::NEG), then(&math::ADD), then(&math::NEG), then(&math::ABS)],
    },
    Pattern {
        code: 0x7c,
        name: "quantised-between",
        steps: &[
            then(&qdq::QUANTIZED),
            step(&qdq::DEQUANTIZED, &[Previous, Operand(0, 1), Operand(0, 2)]),
            then(&activation::RELU),
            then(&qdq::QUANTIZED),
            step(&qdq::DEQUANTIZED, &[Previous, Operand(3, 1), Operand(3, 2)]),
        ],
    },
    Pattern {
        code: 0x7d,
        name: "quantised-convolution",
        steps: &[
            then(&qdq::DEQUANTIZED_IMAGES),
            step(&qdq::DEQUANTIZED_KERNEL, &[]),
            step(&qdq::KERNEL_CONV, &[Output(0), Output(1)]),
            then(&qdq::QUANTIZED),
        ],
    },
];

/// `x op value` for a scalar constant.
fn with_scalar(b: &mut Builder, value: f64) -> Result<(), Skip> {
    let x = b.input(FLOATS, ANY_RANK)?;
    b.weight_in(x.dtype, [], Domain::Range(value, value));
    b.output(x.dtype, x.shape);
    Ok(())
}

/// `x op w`, where `w` is a parameter for each element along `axis`, shaped to be broadcast.
fn with_parameters(b: &mut Builder, axis: impl Fn(usize) -> usize, trailing_ones: bool) -> Result<(), Skip> {
    let x = b.input(FLOATS, 2..=MAX_RANK)?;
    let axis = axis(x.rank());
    let mut shape = vec![x.shape[axis]];
    if trailing_ones {
        shape.extend((axis + 1..x.rank()).map(|_| Term::constant(1)));
    }
    b.weight(x.dtype, shape);
    b.output(x.dtype, x.shape);
    Ok(())
}

/// The axes of a reduction over the last axis that is kept, written as the opset asks for.
fn reduce_last(b: &mut Builder, axes_are_operand_since: i64) -> Result<(), Skip> {
    let x = b.input(FLOATS, 1..=MAX_RANK)?;
    let last = x.rank() - 1;
    let written = b.signed_axis(last, x.rank());
    if b.opset() >= axes_are_operand_since {
        b.constant([written.into()]);
    } else {
        b.set_ints("axes", [written]);
    }
    b.set_int("keepdims", 1);
    b.accumulate(x.shape[last]);
    let mut shape = x.shape;
    shape[last] = Term::constant(1);
    b.output(x.dtype, shape);
    Ok(())
}

const PER_CHANNEL_MUL: OpSpec = OpSpec { build: |b| with_parameters(b, |_| 1, true), ..math::MUL };
const PER_CHANNEL_ADD: OpSpec = OpSpec { build: |b| with_parameters(b, |_| 1, true), ..math::ADD };
const LAST_MUL: OpSpec = OpSpec { build: |b| with_parameters(b, |rank| rank - 1, false), ..math::MUL };
const BIAS: OpSpec = OpSpec { build: |b| with_parameters(b, |rank| rank - 1, false), ..math::ADD };
const PLUS_EPSILON: OpSpec = OpSpec { build: |b| with_scalar(b, (-10f64).exp2()), ..math::ADD };
const PLUS_ONE: OpSpec = OpSpec { build: |b| with_scalar(b, 1.0), ..math::ADD };
const HALVED: OpSpec = OpSpec { build: |b| with_scalar(b, 0.5), ..math::MUL };
const OVER_ROOT_OF_TWO: OpSpec = OpSpec { build: |b| with_scalar(b, std::f64::consts::SQRT_2), ..division::DIV };
const SQUARED: OpSpec = OpSpec { build: |b| with_scalar(b, 2.0), ..division::POW };
const CUBED: OpSpec = OpSpec { build: |b| with_scalar(b, 3.0), ..division::POW };
const TIMES_CUBIC: OpSpec = OpSpec { build: |b| with_scalar(b, 0.044_715), ..math::MUL };
const TIMES_ROOT: OpSpec = OpSpec { build: |b| with_scalar(b, 0.797_884_560_802_865_4), ..math::MUL };
const MEAN_OF_LAST: OpSpec = OpSpec { build: |b| reduce_last(b, 18), ..reduce::MEAN };
const SUM_OF_LAST: OpSpec = OpSpec { build: |b| reduce_last(b, 13), ..reduce::SUM };

/// Transposes the matrices of a batch.
const LAST_TWO_SWAPPED: OpSpec = OpSpec {
    build: |b| {
        let x = b.input(FLOATS, 2..=4)?;
        let mut order: Vec<usize> = (0..x.rank()).collect();
        order.swap(x.rank() - 2, x.rank() - 1);
        b.set_ints("perm", order.iter().map(|&axis| axis as i64));
        b.output(x.dtype, order.iter().map(|&axis| x.shape[axis]).collect::<Vec<_>>());
        Ok(())
    },
    ..movement::TRANSPOSE
};

/// Zeros around the spatial axes, as a convolution's own padding has them.
const ZERO_PAD: OpSpec = OpSpec {
    build: |b| {
        let x = b.input(FLOATS, 3..=5)?;
        let zero = Term::constant(0);
        let mut pads = vec![zero; 2];
        pads.extend((2..x.rank()).map(|_| b.free(0..=2)));
        pads.extend([zero; 2]);
        pads.extend((2..x.rank()).map(|_| b.free(0..=2)));
        b.constant(pads.iter().copied());
        if b.coin() {
            b.weight_in(x.dtype, [], Domain::Range(0.0, 0.0));
        }
        if b.coin() {
            b.set("mode", Attribute::Text("constant".to_owned()));
        }
        let padded = |axis: usize| x.shape[axis] + pads[axis] + pads[axis + x.rank()];
        b.output(x.dtype, (0..x.rank()).map(padded).collect::<Vec<_>>());
        Ok(())
    },
    ..slicing::PAD
};

/// The sizes of all axes, which later steps know.
const WHOLE_SHAPE: OpSpec = OpSpec {
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK - 1)?;
        b.output(DType::I64, [Term::constant(x.rank() as i64)]);
        b.elements(x.shape);
        Ok(())
    },
    ..joining::SHAPE
};

/// A list of known integers.
fn known_list(b: &mut Builder) -> Result<Vec<Term>, Skip> {
    let list = b.input(DTypes::of(&[DType::I64]), 1..=1)?;
    list.elements.ok_or(Skip::Pattern)
}

/// The first of a list of sizes, at most all but one.
const FIRST_SIZES: OpSpec = OpSpec {
    build: |b| {
        let sizes = known_list(b)?;
        let count = 1 + b.below(sizes.len().max(2) - 1);
        b.constant([0.into()]);
        b.constant([Term::constant(count as i64)]);
        b.output(DType::I64, [Term::constant(count as i64)]);
        b.elements(sizes.into_iter().take(count));
        Ok(())
    },
    ..slicing::SLICE
};

/// The last of a list of sizes, as a list of one.
const LAST_SIZE: OpSpec = OpSpec {
    build: |b| {
        let sizes = known_list(b)?;
        let last = sizes.len() - 1;
        let written = b.signed_axis(last, sizes.len());
        b.constant([written.into()]);
        b.output(DType::I64, [Term::constant(1)]);
        b.elements([sizes[last]]);
        Ok(())
    },
    ..indexing::GATHER
};

/// A list of sizes computed with the constant 2.
fn with_two(b: &mut Builder, result: impl Fn(&mut Builder, Term) -> Term) -> Result<(), Skip> {
    let sizes = known_list(b)?;
    b.constant([2.into()]);
    b.output(DType::I64, [Term::constant(sizes.len() as i64)]);
    let results: Vec<Term> = sizes.into_iter().map(|size| result(b, size)).collect();
    b.elements(results);
    Ok(())
}

const DOUBLED_SIZES: OpSpec = OpSpec { build: |b| with_two(b, |_, size| size * 2), ..math::MUL };
/// Of even sizes, so that what has them can be divided so.
const HALVED_SIZE: OpSpec = OpSpec {
    build: |b| {
        with_two(b, |b, size| {
            b.require(size.divisible_by(2));
            size / 2
        })
    },
    ..division::DIV
};

/// A list of sizes with constants behind and before it.
fn joined(b: &mut Builder, before: &[i64], after: &[i64]) -> Result<(), Skip> {
    let constants = |values: &[i64]| values.iter().copied().map(Term::constant).collect::<Vec<_>>();
    let (before, after) = (constants(before), constants(after));
    let sizes = known_list(b)?;
    if !before.is_empty() {
        b.constant(before.iter().copied());
        b.last_operand_first();
    }
    b.constant(after.iter().copied());
    b.set_int("axis", 0);
    let all = [before, sizes, after].concat();
    b.output(DType::I64, [Term::constant(all.len() as i64)]);
    b.elements(all);
    Ok(())
}

const WITH_INFERRED: OpSpec = OpSpec { build: |b| joined(b, &[], &[-1]), ..joining::CONCAT };
const WITH_COPIES: OpSpec = OpSpec { build: |b| joined(b, &[0], &[-1]), ..joining::CONCAT };

/// A parameter expanded to a list of sizes.
const EXPANDED: OpSpec = OpSpec {
    build: |b| {
        let sizes = known_list(b)?;
        let dtype = b.leaf_dtype(FLOATS);
        let shape = b.broadcastable_shape(&sizes);
        b.weight(dtype, shape.clone());
        b.last_operand_first();
        let result = b.broadcast(&[&shape, &sizes]);
        b.output(dtype, result);
        Ok(())
    },
    ..movement::EXPAND
};
