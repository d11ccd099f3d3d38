//! Elementwise mathematics.

use super::common::{BINARY, UNARY, approximate, magnitude, one};
use crate::dtype::{FLOATS, NUMBERS, SIGNED_INTS};
use crate::spec::{Numerics, OpSpec};

pub const TABLE: &[&OpSpec] = &[&RELU, &ADD, &MUL, &DIV, &TANH];

pub const RELU: OpSpec = OpSpec {
    code: 0x01,
    name: "Relu",
    since: 14,
    dtypes: FLOATS.or(SIGNED_INTS),
    doc: "max(x, 0).",
    numerics: Numerics::SELECTING,
    eval: |a| one(a.x(0).f_relu()),
    proxy: Some(|a| one(a.x(0).f_leaky_relu())),
    ..UNARY
};

pub const ADD: OpSpec = OpSpec {
    code: 0x02,
    name: "Add",
    since: 14,
    dtypes: NUMBERS,
    doc: "x + y.",
    eval: |a| one(a.x(0).f_add(a.x(1))),
    can_overflow: true,
    ..BINARY
};

pub const MUL: OpSpec = OpSpec {
    code: 0x03,
    name: "Mul",
    since: 14,
    dtypes: NUMBERS,
    doc: "x * y.",
    eval: |a| one(a.x(0).f_mul(a.x(1))),
    can_overflow: true,
    ..BINARY
};

pub const DIV: OpSpec = OpSpec {
    code: 0x04,
    name: "Div",
    since: 14,
    dtypes: FLOATS,
    doc: "x / y.",
    eval: |a| one(a.x(0).f_div(a.x(1))),
    guard: Some(|a| one(magnitude(a.x(1))?.f_sub_scalar(1e-3))),
    ..BINARY
};

pub const TANH: OpSpec = OpSpec {
    code: 0x05,
    name: "Tanh",
    dtypes: FLOATS,
    doc: "tanh(x).",
    numerics: approximate(8.0),
    eval: |a| one(a.x(0).f_tanh()),
    ..UNARY
};
