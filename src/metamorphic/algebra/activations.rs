//! Activations by their defining formulas and by each other.

use super::{Rule, Site, rule};
use crate::metamorphic::draft::Wire;
use crate::spec::Attribute;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

/// `x + number` and the like.
fn by(s: &Site, operator: &str, x: Wire, number: f64) -> Wire {
    s.op(operator, &[x, s.number(x, number)])
}

/// exp(min(x, 0)) - 1.
fn falling(s: &Site, x: Wire) -> Wire {
    by(s, "Sub", s.op("Exp", &[by(s, "Min", x, 0.0)]), 1.0)
}

pub const RULES: &[Rule] = &[
    rule("relu = max(x, 0)", &["Relu"], |s| by(s, "Max", s.x(0), 0.0)),
    rule("relu = clip from 0", &["Relu"], |s| by(s, "Clip", s.x(0), 0.0)),
    rule("relu = leaky by 0", &["Relu"], |s| s.with("LeakyRelu", &[s.x(0)], vec![("alpha", Attribute::Float(0.0))])),
    rule("relu = (x + |x|) / 2", &["Relu"], |s| {
        let sum = s.op("Add", &[s.x(0), s.op("Abs", &[s.x(0)])]);
        if s.output().dtype.is_float() { by(s, "Mul", sum, 0.5) } else { by(s, "Div", sum, 2.0) }
    }),
    rule("max(x, 0) = relu", &["Max", "Clip"], |s| {
        let bounds = s.fixed(s.x(1))?.to_f64();
        let only = s.node.operands.len() == 2 && bounds.iter().all(|&bound| bound == 0.0);
        s.op("Relu", &[s.unbroadcast(s.x(0)).filter(|_| only)])
    }),
    rule("sigmoid = 1 / (1 + exp(-x))", &["Sigmoid"], |s| {
        let sum = by(s, "Add", s.op("Exp", &[s.op("Neg", &[s.x(0)])]), 1.0);
        if s.coin() { s.op("Reciprocal", &[sum]) } else { s.op("Div", &[s.number(sum, 1.0), sum]) }
    }),
    rule("sigmoid = (1 + tanh(x / 2)) / 2", &["Sigmoid"], |s| {
        by(s, "Mul", by(s, "Add", s.op("Tanh", &[by(s, "Mul", s.x(0), 0.5)]), 1.0), 0.5)
    }),
    rule("sigmoid(x) = 1 - sigmoid(-x)", &["Sigmoid"], |s| {
        let mirrored = s.again(&[s.op("Neg", &[s.x(0)])]);
        s.op("Sub", &[s.number(mirrored, 1.0), mirrored])
    }),
    rule("tanh = 2 sigmoid(2 x) - 1", &["Tanh"], |s| {
        by(s, "Sub", by(s, "Mul", s.op("Sigmoid", &[by(s, "Mul", s.x(0), 2.0)]), 2.0), 1.0)
    }),
    rule("softplus = log(exp x + 1)", &["Softplus"], |s| s.op("Log", &[by(s, "Add", s.op("Exp", &[s.x(0)]), 1.0)])),
    rule("softplus = -log sigmoid(-x)", &["Softplus"], |s| {
        s.op("Neg", &[s.op("Log", &[s.op("Sigmoid", &[s.op("Neg", &[s.x(0)])])])])
    }),
    rule("softsign = x / (1 + |x|)", &["Softsign"], |s| {
        s.op("Div", &[s.x(0), by(s, "Add", s.op("Abs", &[s.x(0)]), 1.0)])
    }),
    rule("hard sigmoid = its line, clipped", &["HardSigmoid"], |s| {
        let line = s.op("Mul", &[s.x(0), s.float(s.x(0), "alpha", 0.2)]);
        let line = s.op("Add", &[line, s.float(line, "beta", 0.5)]);
        s.op("Clip", &[line, s.number(line, 0.0), s.number(line, 1.0)])
    }),
    rule("hard swish = x * hard sigmoid", &["HardSwish"], |s| {
        let line = vec![("alpha", Attribute::Float(1.0 / 6.0)), ("beta", Attribute::Float(0.5))];
        s.op("Mul", &[s.x(0), s.with("HardSigmoid", &[s.x(0)], line)])
    }),
    rule("hard swish = x * clip(x + 3) / 6", &["HardSwish"], |s| {
        let line = by(s, "Add", s.x(0), 3.0);
        let clipped = s.op("Clip", &[line, s.number(line, 0.0), s.number(line, 6.0)]);
        by(s, "Div", s.op("Mul", &[s.x(0), clipped]), 6.0)
    }),
    rule("leaky relu = relu(x) - alpha relu(-x)", &["LeakyRelu"], |s| {
        let below = s.op("Relu", &[s.op("Neg", &[s.x(0)])]);
        s.op("Sub", &[s.op("Relu", &[s.x(0)]), s.op("Mul", &[below, s.float(s.x(0), "alpha", 0.01)])])
    }),
    rule("leaky relu = max(x, alpha x)", &["LeakyRelu"], |s| {
        let rising = s.a.float("alpha", 0.01) <= 1.0;
        s.op("Max", &[s.x(0).filter(|_| rising), s.op("Mul", &[s.x(0), s.float(s.x(0), "alpha", 0.01)])])
    }),
    rule("leaky relu = with one slope", &["LeakyRelu"], |s| s.op("PRelu", &[s.x(0), s.float(s.x(0), "alpha", 0.01)])),
    rule("prelu = max(x, 0) + slope * min(x, 0)", &["PRelu"], |s| {
        let below = s.op("Mul", &[by(s, "Min", s.x(0), 0.0), s.x(1)]);
        s.op("Add", &[by(s, "Max", s.x(0), 0.0), below])
    }),
    rule("elu = relu(x) + alpha (exp(min(x, 0)) - 1)", &["Elu"], |s| {
        let below = s.op("Mul", &[falling(s, s.x(0)), s.float(s.x(0), "alpha", 1.0)]);
        s.op("Add", &[s.op("Relu", &[s.x(0)]), below])
    }),
    rule("selu = gamma elu", &["Selu"], |s| {
        let alpha = s.a.float("alpha", 1.673_263_2) as f32;
        let elu = s.with("Elu", &[s.x(0)], vec![("alpha", Attribute::Float(alpha))]);
        s.op("Mul", &[elu, s.float(s.x(0), "gamma", 1.050_701)])
    }),
    rule("celu = max(x, 0) + alpha (exp(min(x, 0) / alpha) - 1)", &["Celu"], |s| {
        let alpha = || s.float(s.x(0), "alpha", 1.0).filter(|_| s.a.float("alpha", 1.0) > 0.0);
        let below = s.op("Mul", &[falling(s, s.op("Div", &[s.x(0), alpha()])), alpha()]);
        s.op("Add", &[by(s, "Max", s.x(0), 0.0), below])
    }),
    rule("gelu = x (1 + erf(x / root 2)) / 2", &["Gelu"], |s| {
        let exact = s.a.text("approximate", "none") == "none";
        let erf = s.op("Erf", &[by(s, "Mul", s.x(0).filter(|_| exact), FRAC_1_SQRT_2)]);
        s.op("Mul", &[by(s, "Mul", s.x(0), 0.5), by(s, "Add", erf, 1.0)])
    }),
    rule("gelu = its approximation by tanh", &["Gelu"], |s| {
        let x = s.x(0).filter(|_| s.a.text("approximate", "none") == "tanh");
        let cube = s.op("Pow", &[x, s.number(x, 3.0)]);
        let inner = s.op("Add", &[x, by(s, "Mul", cube, 0.044_715)]);
        let tanh = s.op("Tanh", &[by(s, "Mul", inner, FRAC_2_PI.sqrt())]);
        s.op("Mul", &[by(s, "Mul", x, 0.5), by(s, "Add", tanh, 1.0)])
    }),
    rule("mish = x * tanh(softplus x)", &["Mish"], |s| {
        s.op("Mul", &[s.x(0), s.op("Tanh", &[s.op("Softplus", &[s.x(0)])])])
    }),
    rule("swish = x * sigmoid(alpha x)", &["Swish"], |s| {
        let inner = s.op("Mul", &[s.x(0), s.float(s.x(0), "alpha", 1.0)]);
        s.op("Mul", &[s.x(0), s.op("Sigmoid", &[inner])])
    }),
    rule("x * sigmoid x = swish", &["Mul"], |s| {
        let sigmoid = s.behind(s.x(1), &["Sigmoid"])?;
        s.op("Swish", &[s.x(0).filter(|_| s.x(0) == sigmoid.x(0))])
    }),
    rule("gated = swish(a) * b", &["SwiGLU"], |s| {
        let alpha = vec![("alpha", Attribute::Float(s.a.float("alpha", 1.0) as f32))];
        s.op("Mul", &[s.with("Swish", &[s.x(0)], alpha), s.x(1)])
    }),
    rule("thresholded = x where x > alpha, else 0", &["ThresholdedRelu"], |s| {
        let above = s.op("Greater", &[s.x(0), s.float(s.x(0), "alpha", 1.0)]);
        s.op("Where", &[above, s.x(0), s.number(s.x(0), 0.0)])
    }),
    rule("shrink = one of three", &["Shrink"], |s| {
        let x = s.x(0).filter(|_| !s.output().dtype.is_unsigned());
        let (threshold, bias) = (s.a.float("lambd", 0.5), s.a.float("bias", 0.0));
        let inner = s.op("Where", &[by(s, "Greater", x, threshold), by(s, "Sub", x, bias), s.number(x, 0.0)]);
        s.op("Where", &[by(s, "Less", x, -threshold), by(s, "Add", x, bias), inner])
    }),
];
