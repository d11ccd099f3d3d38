//! Comparisons, logic and bits. There is no NaN among the operands.

use super::{Rule, rule};
use crate::dtype::DType;
use crate::tensor::TensorData;

const ORDERS: &[&str] = &["Less", "LessOrEqual", "Greater", "GreaterOrEqual"];

/// The comparison that is true with the operands exchanged.
fn mirrored(operator: &str) -> &'static str {
    match operator {
        "Less" => "Greater",
        "LessOrEqual" => "GreaterOrEqual",
        "Greater" => "Less",
        _ => "LessOrEqual",
    }
}

/// The comparison that is true where this one is not.
fn opposite(operator: &str) -> &'static str {
    match operator {
        "Less" => "GreaterOrEqual",
        "LessOrEqual" => "Greater",
        "Greater" => "LessOrEqual",
        _ => "Less",
    }
}

pub const RULES: &[Rule] = &[
    rule("a < b = b > a", ORDERS, |s| s.op(mirrored(s.node.spec.name), &[s.x(1), s.x(0)])),
    rule("a < b = not a >= b", ORDERS, |s| s.op("Not", &[s.op(opposite(s.node.spec.name), &[s.x(0), s.x(1)])])),
    rule("not a < b = a >= b", &["Not"], |s| {
        let order = s.behind(s.x(0), ORDERS)?;
        s.op(opposite(order.node.spec.name), &[order.x(0), order.x(1)])
    }),
    rule("a <= b = a < b or a = b", &["LessOrEqual", "GreaterOrEqual"], |s| {
        let strict = if s.node.spec.name == "LessOrEqual" { "Less" } else { "Greater" };
        s.op("Or", &[s.op(strict, &[s.x(0), s.x(1)]), s.op("Equal", &[s.x(0), s.x(1)])])
    }),
    rule("a = b = a <= b and a >= b", &["Equal"], |s| {
        let order = |operator| s.op(operator, &[s.x(0), s.x(1)]);
        s.op("And", &[order("LessOrEqual"), order("GreaterOrEqual")])
    }),
    rule("a = b = not (a xor b)", &["Equal"], |s| s.op("Not", &[s.op("Xor", &[s.x(0), s.x(1)])])),
    rule("De Morgan", &["And", "Or"], |s| {
        let not = |index| s.op("Not", &[s.x(index)]);
        s.op("Not", &[s.op(if s.node.spec.name == "And" { "Or" } else { "And" }, &[not(0), not(1)])])
    }),
    rule("De Morgan backward", &["Not"], |s| {
        let inner = s.behind(s.x(0), &["And", "Or"])?;
        let not = |index| s.again(&[inner.x(index)]);
        s.op(if inner.node.spec.name == "And" { "Or" } else { "And" }, &[not(0), not(1)])
    }),
    rule("De Morgan of bits", &["BitwiseAnd", "BitwiseOr"], |s| {
        let not = |index| s.op("BitwiseNot", &[s.x(index)]);
        let other = if s.node.spec.name == "BitwiseAnd" { "BitwiseOr" } else { "BitwiseAnd" };
        s.op("BitwiseNot", &[s.op(other, &[not(0), not(1)])])
    }),
    rule("a xor b = (a or b) and not (a and b)", &["Xor"], |s| {
        let (a, b) = s.pair()?;
        s.op("And", &[s.op("Or", &[a, b]), s.op("Not", &[s.op("And", &[a, b])])])
    }),
    rule("bits that differ = (a or b) - (a and b)", &["BitwiseXor"], |s| {
        let bits = |operator| s.op(operator, &[s.x(0), s.x(1)]);
        s.op("Sub", &[bits("BitwiseOr"), bits("BitwiseAnd")])
    }),
    rule("a + b = (a or b) + (a and b)", &["Add"], |s| {
        let bits = |operator| s.op(operator, &[s.x(0), s.x(1)]);
        s.op("Add", &[bits("BitwiseOr"), bits("BitwiseAnd")])
    }),
    rule("not not x = x", &["Not", "BitwiseNot"], |s| s.behind(s.x(0), &[s.node.spec.name])?.x(0)),
    rule("not x = x xor true", &["Not"], |s| s.op("Xor", &[s.x(0), s.constant(TensorData::new(&[], &[true]))])),
    rule("a and (b or c) = a and b or a and c", &["And", "Or"], |s| {
        let inner = s.behind(s.x(1), &[if s.node.spec.name == "And" { "Or" } else { "And" }])?;
        inner.again(&[s.again(&[s.x(0), inner.x(0)]), s.again(&[s.x(0), inner.x(1)])])
    }),
    rule("x where c, else y = y where not c, else x", &["Where"], |s| {
        s.op("Where", &[s.op("Not", &[s.x(0)]), s.x(2), s.x(1)])
    }),
    rule("x where c, else y = c and x or not c and y", &["Where"], |s| {
        let kept = |condition, index| s.op("And", &[condition, s.x(index)]);
        s.op("Or", &[kept(s.x(0), 1), kept(s.op("Not", &[s.x(0)]), 2)])
    }),
    rule("not x = y where x, else z exchanged", &["Where"], |s| {
        s.op("Where", &[s.behind(s.x(0), &["Not"])?.x(0), s.x(2), s.x(1)])
    }),
    rule("bool = x > 0", &["Cast"], |s| {
        let from = s.dtype(s.x(0)).filter(|_| s.output().dtype == DType::Bool)?;
        let test = if from.is_unsigned() { "Greater" } else { "Equal" };
        let tested = s.op(test, &[s.x(0), s.number(s.x(0), 0.0)]);
        if from.is_unsigned() { tested } else { s.op("Not", &[tested]) }
    }),
];
