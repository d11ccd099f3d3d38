//! Sums, products, powers, extremes and functions of them. Integers that leave their range make a model invalid, so that
//! rules of numbers hold for them as well.

use super::{Rule, Site, rule};
use crate::metamorphic::draft::Wire;

const COMMUTATIVE: &[&str] =
    &["Add", "Mul", "Max", "Min", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Sum", "Mean"];
const ASSOCIATIVE: &[&str] =
    &["Add", "Mul", "Max", "Min", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Sum"];
const ODD: &[&str] = &["Tanh", "Sin", "Tan", "Sinh", "Asin", "Atan", "Asinh", "Atanh", "Erf", "Softsign", "Sign"];

pub const RULES: &[Rule] = &[
    rule("operands exchanged", COMMUTATIVE, |s| {
        let mut operands = s.node.operands.clone();
        operands.reverse();
        (operands.len() > 1).then(|| s.again(&operands))?
    }),
    rule("(a + b) + c = a + (b + c)", ASSOCIATIVE, |s| {
        let (left, c) = s.pair()?;
        let (a, b) = s.behind(left, &[s.node.spec.name])?.pair()?;
        s.again(&[a, s.again(&[b, c])])
    }),
    rule("a + (b + c) = (a + b) + c", ASSOCIATIVE, |s| {
        let (a, right) = s.pair()?;
        let (b, c) = s.behind(right, &[s.node.spec.name])?.pair()?;
        s.again(&[s.again(&[a, b]), c])
    }),
    rule("many at once = two at a time", &["Max", "Min", "Sum"], |s| {
        let operator = if s.node.spec.name == "Sum" { "Add" } else { s.node.spec.name };
        let (&first, rest) = s.node.operands.split_first()?;
        let enough = rest.len() > usize::from(operator != "Add");
        enough.then(|| rest.iter().fold(first, |all, &next| s.op(operator, &[all, next])))?
    }),
    rule("two at a time = many at once", &["Max", "Min", "Add"], |s| {
        let (left, c) = s.pair()?;
        let (a, b) = s.behind(left, &[s.node.spec.name])?.pair()?;
        s.op(if s.node.spec.name == "Add" { "Sum" } else { s.node.spec.name }, &[a, b, c])
    }),
    rule("add = sum of two", &["Add"], |s| s.op("Sum", &[s.x(0), s.x(1)])),
    rule("mean = sum / n", &["Mean"], |s| {
        let count = s.node.operands.len() as f64;
        let sum = s.op("Sum", &s.node.operands);
        if s.coin() {
            s.op("Mul", &[sum, s.number(sum, 1.0 / count)])
        } else {
            s.op("Div", &[sum, s.number(sum, count)])
        }
    }),
    rule("a * (b + c) = a * b + a * c", &["Mul"], |s| {
        let (mut a, mut inner) = s.pair()?;
        if s.coin() {
            (a, inner) = (inner, a);
        }
        let sum = s.behind(inner, &["Add", "Sub"])?;
        let (b, c) = sum.pair()?;
        sum.again(&[s.again(&[a, b]), s.again(&[a, c])])
    }),
    rule("(b + c) / a = b / a + c / a", &["Div"], |s| {
        let (inner, a) = s.pair().filter(|_| s.output().dtype.is_float())?;
        let sum = s.behind(inner, &["Add", "Sub"])?;
        let (b, c) = sum.pair()?;
        sum.again(&[s.again(&[b, a]), s.again(&[c, a])])
    }),
    rule("a * b + a * c = a * (b + c)", &["Add", "Sub"], |s| {
        let (left, right) = s.pair()?;
        let (left, right) = (s.behind(left, &["Mul"])?, s.behind(right, &["Mul"])?);
        let ((a, b), (c, d)) = (left.pair()?, right.pair()?);
        match () {
            () if a == c => left.again(&[a, s.again(&[b, d])]),
            () if b == d => left.again(&[s.again(&[a, c]), b]),
            () if a == d => left.again(&[a, s.again(&[b, c])]),
            () if b == c => left.again(&[b, s.again(&[a, d])]),
            () => None,
        }
    }),
    rule("a - b = a + -b", &["Sub"], |s| s.op("Add", &[s.x(0), s.op("Neg", &[s.x(1)])])),
    rule("a + b = a - -b", &["Add"], |s| s.op("Sub", &[s.x(0), s.op("Neg", &[s.x(1)])])),
    rule("a + -b = a - b", &["Add"], |s| s.op("Sub", &[s.x(0), s.behind(s.x(1), &["Neg"])?.x(0)])),
    rule("a - b = -(b - a)", &["Sub"], |s| s.op("Neg", &[s.again(&[s.x(1), s.x(0)])])),
    rule("-(a - b) = b - a", &["Neg"], |s| {
        let difference = s.behind(s.x(0), &["Sub"])?;
        difference.again(&[difference.x(1), difference.x(0)])
    }),
    rule("(a - b) - c = a - (b + c)", &["Sub"], |s| {
        let (a, b) = s.behind(s.x(0), &["Sub"])?.pair()?;
        s.again(&[a, s.op("Add", &[b, s.x(1)])])
    }),
    rule("-x = x * -1", &["Neg"], |s| s.op("Mul", &[s.x(0), s.number(s.x(0), -1.0)])),
    rule("-x = 0 - x", &["Neg"], |s| s.op("Sub", &[s.number(s.x(0), 0.0), s.x(0)])),
    rule("--x = x", &["Neg"], |s| s.behind(s.x(0), &["Neg"])?.x(0)),
    rule("-a * b = -(a * b)", &["Mul", "Div"], |s| {
        s.op("Neg", &[s.again(&[s.behind(s.x(0), &["Neg"])?.x(0), s.x(1)])])
    }),
    rule("a + a = 2 a", &["Add"], |s| {
        let (a, b) = s.pair()?;
        (a == b).then(|| s.op("Mul", &[a, s.number(a, 2.0)]))?
    }),
    rule("a / b = a * (1 / b)", &["Div"], |s| s.op("Mul", &[s.x(0), s.op("Reciprocal", &[s.x(1)])])),
    rule("a * (1 / b) = a / b", &["Mul"], |s| s.op("Div", &[s.x(0), s.behind(s.x(1), &["Reciprocal"])?.x(0)])),
    rule("reciprocal = 1 / x", &["Reciprocal"], |s| s.op("Div", &[s.number(s.x(0), 1.0), s.x(0)])),
    rule("a / b / c = a / (b * c)", &["Div"], |s| {
        let (a, b) = s.behind(s.x(0), &["Div"]).filter(|_| s.output().dtype.is_float())?.pair()?;
        s.again(&[a, s.op("Mul", &[b, s.x(1)])])
    }),
    rule("remainder of a / b = a - a / b * b", &["Mod"], |s| {
        let toward_zero = s.a.int("fmod", 0) == 1 || s.output().dtype.is_unsigned();
        let (a, b) = s.pair().filter(|_| toward_zero && s.output().dtype.is_int())?;
        s.op("Sub", &[a, s.op("Mul", &[s.op("Div", &[a, b]), b])])
    }),
    rule("x * x = x ^ 2", &["Mul"], |s| {
        let (a, b) = s.pair()?;
        (a == b).then(|| s.op("Pow", &[a, s.number(a, 2.0)]))?
    }),
    rule("power = what it stands for", &["Pow"], power),
    rule("root = x ^ 1/2", &["Sqrt"], |s| s.op("Pow", &[s.x(0), s.number(s.x(0), 0.5)])),
    rule("exp(a + b) = exp a * exp b", &["Exp"], |s| {
        let sum = s.behind(s.x(0), &["Add"])?;
        s.op("Mul", &[s.again(&[sum.x(0)]), s.again(&[sum.x(1)])])
    }),
    rule("exp a * exp b = exp(a + b)", &["Mul"], |s| {
        let (a, b) = (s.behind(s.x(0), &["Exp"])?, s.behind(s.x(1), &["Exp"])?);
        a.again(&[s.op("Add", &[a.x(0), b.x(0)])])
    }),
    rule("f(x) = -f(-x)", ODD, |s| s.op("Neg", &[s.again(&[s.op("Neg", &[s.x(0)])])])),
    rule("f(x) = f(-x)", &["Cos", "Cosh", "Abs"], |s| s.again(&[s.op("Neg", &[s.x(0)])])),
    rule("tan = sin / cos", &["Tan"], |s| s.op("Div", &[s.op("Sin", &[s.x(0)]), s.op("Cos", &[s.x(0)])])),
    rule("hyperbolic = sum of exponentials", &["Sinh", "Cosh"], |s| {
        let (up, down) = (s.op("Exp", &[s.x(0)]), s.op("Exp", &[s.op("Neg", &[s.x(0)])]));
        let sum = s.op(if s.node.spec.name == "Cosh" { "Add" } else { "Sub" }, &[up, down]);
        s.op("Mul", &[sum, s.number(sum, 0.5)])
    }),
    rule("max(a, b) = -min(-a, -b)", &["Max", "Min"], |s| {
        let operands: Vec<Wire> = s.node.operands.iter().map(|&x| s.op("Neg", &[x])).collect();
        s.op("Neg", &[s.op(if s.node.spec.name == "Max" { "Min" } else { "Max" }, &operands)])
    }),
    rule("max(a, b) = a where a > b, else b", &["Max", "Min"], |s| {
        let (a, b) = s.pair()?;
        let condition = s.op(if s.node.spec.name == "Max" { "Greater" } else { "Less" }, &[a, b]);
        s.op("Where", &[condition, a, b])
    }),
    rule("max(a, c) = clip from c", &["Max", "Min"], |s| {
        let (x, bound) = s.pair().filter(|&(_, bound)| s.rank(bound) == Some(0))?;
        let absent = if s.node.spec.name == "Max" { vec![x, bound] } else { vec![x, None, bound] };
        Some(s.outputs("Clip", &absent, Vec::new(), 1)?[0])
    }),
    rule("clip = min(max(x, low), high)", &["Clip"], |s| {
        let raised = if s.x(1).is_some() { s.op("Max", &[s.x(0), s.x(1)]) } else { s.x(0) };
        if s.x(2).is_some() { s.op("Min", &[raised, s.x(2)]) } else { raised }
    }),
    rule("clip = clip twice", &["Clip"], |s| {
        let raised = s.op("Clip", &[s.x(0), s.x(1)]);
        Some(s.outputs("Clip", &[Some(raised?), None, Some(s.x(2)?)], Vec::new(), 1)?[0])
    }),
    rule("|x| = max(x, -x)", &["Abs"], |s| s.op("Max", &[s.x(0), s.op("Neg", &[s.x(0)])])),
    rule("|x| = -x where x < 0, else x", &["Abs"], |s| {
        let negative = s.op("Less", &[s.x(0), s.number(s.x(0), 0.0)]);
        s.op("Where", &[negative, s.op("Neg", &[s.x(0)]), s.x(0)])
    }),
    rule("sign = (x > 0) - (x < 0)", &["Sign"], |s| {
        let zero = s.number(s.x(0), 0.0);
        let test = |operator| s.cast(s.op(operator, &[s.x(0), zero]), s.output().dtype);
        s.op("Sub", &[test("Greater"), test("Less")])
    }),
];

/// By the exponent, if it is one number.
fn power(s: &Site) -> Wire {
    let x = s.unbroadcast(s.x(0));
    let exponents = s.fixed(s.x(1))?.to_f64();
    let &first = exponents.first().filter(|first| exponents.iter().all(|other| other == *first))?;
    let square = || s.op("Mul", &[x, x]);
    match first {
        2.0 => square(),
        3.0 => s.op("Mul", &[square(), x]),
        4.0 => s.op("Mul", &[square(), square()]),
        0.5 => s.op("Sqrt", &[x]),
        -0.5 => s.op("Reciprocal", &[s.op("Sqrt", &[x])]),
        1.5 => s.op("Mul", &[x, s.op("Sqrt", &[x])]),
        1.0 => x,
        -1.0 => s.op("Reciprocal", &[x]),
        _ => None,
    }
}
