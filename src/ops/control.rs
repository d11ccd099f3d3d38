//! Control flow: not operators of the catalogue, but what their bodies are made of.

use super::{activation, cast, functions, math};
use crate::spec::{ANY_RANK, Builder, OpSpec, Skip};

/// What a record of control flow becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Construct {
    /// The operators of the following records become a branch.
    If,
    Loop,
    Scan,
}

/// The permanent wire codes, from the same space as the operators'.
pub const TABLE: &[(u8, Construct)] = &[(0x8b, Construct::If), (0x8c, Construct::Loop), (0x8d, Construct::Scan)];

impl Construct {
    /// The ONNX operator type.
    pub fn name(self) -> &'static str {
        match self {
            Construct::If => "If",
            Construct::Loop => "Loop",
            Construct::Scan => "Scan",
        }
    }
}

/// A binary operator whose second operand is a captured value, or the element of a scanned sequence.
fn with_captured(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    b.input_like(x.dtype, x.shape.clone());
    b.output(x.dtype, x.shape);
    Ok(())
}

/// `x op c` for a captured scalar.
fn with_scalar(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), ANY_RANK)?;
    b.input_like(x.dtype, []);
    b.output(x.dtype, x.shape);
    Ok(())
}

const ADD: OpSpec = OpSpec { build: with_captured, ..math::ADD };
const MUL: OpSpec = OpSpec { build: with_captured, ..math::MUL };
const MIN: OpSpec = OpSpec { build: with_captured, ..math::MIN };
const MAX: OpSpec = OpSpec { build: with_captured, ..math::MAX };
const ADD_SCALAR: OpSpec = OpSpec { build: with_scalar, ..math::ADD };

/// Steps that take a state and give one of its type and shape.
pub const UNARY_BODIES: &[&OpSpec] = &[
    &ADD,
    &MUL,
    &ADD_SCALAR,
    &MAX,
    &MIN,
    &activation::RELU,
    &math::NEG,
    &math::ABS,
    &functions::TANH,
    &activation::SIGMOID,
    &cast::IDENTITY,
    &math::ROUND,
];

/// Steps that take a state and an element.
pub const BINARY_BODIES: &[&OpSpec] = &[&ADD, &MUL, &MAX, &MIN];
