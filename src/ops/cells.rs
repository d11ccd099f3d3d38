//! One step of each recurrent layer, and its activations.

use super::ball::{Ball, Balled, Operands, Sum, nearest};
use super::movement::refuse;
use crate::elements::zip;
use crate::spec::{Args, Attribute, Builder};
use tch::{TchError, Tensor};

/// An activation with its own `alpha` and `beta`.
pub struct Activation {
    name: String,
    alpha: f64,
    beta: f64,
}

/// Name, default alpha and default beta of those that take one. Of the last two ONNX gives no default.
const PARAMETERS: [(&str, Option<f64>, Option<f64>); 6] = [
    ("LeakyRelu", Some(0.01), None),
    ("ThresholdedRelu", Some(1.0), None),
    ("Elu", Some(1.0), None),
    ("HardSigmoid", Some(0.2), Some(0.5)),
    ("Affine", Some(1.0), Some(0.0)),
    ("ScaledTanh", Some(1.0), Some(1.0)),
];

/// Sets the attribute `activations`, and sometimes its parameters.
///
/// ONNX does not say whether a function without alpha uses up a value of `activation_alpha`. So values are only given
/// where all functions take one.
pub fn set_activations(b: &mut Builder, count: usize) {
    const PLAIN: &[&str] = &[
        "Tanh",
        "Sigmoid",
        "Relu",
        "Tanh",
        "Sigmoid",
        "Softsign",
        "HardSigmoid",
        "LeakyRelu",
        "Softplus",
        "Elu",
        "ThresholdedRelu",
    ];
    let (names, parameters): (&[&str], usize) = match b.below(16) {
        0..4 => (PLAIN, 0),
        4..7 => (&["LeakyRelu", "Elu", "ThresholdedRelu"], 1),
        _ => (&["HardSigmoid", "ScaledTanh", "Affine"], 2),
    };
    let chosen: Vec<&str> = (0..count).map(|_| b.one_of(names)).collect();
    b.set_texts("activations", &chosen);
    for name in ["activation_alpha", "activation_beta"].into_iter().take(parameters) {
        let values = (0..count).map(|_| b.one_of(&[0.5f32, 0.25, 0.75, 1.0])).collect();
        b.set(name, Attribute::Floats(values));
    }
}

/// The activations of all directions, whose defaults in one direction are `defaults`.
pub fn activations(a: &Args, defaults: &[&str], directions: i64) -> Result<Vec<Activation>, TchError> {
    let count = defaults.len() * directions as usize;
    let names: Vec<String> = match a.texts("activations") {
        // The default of RNN has two also for one direction.
        Some(names) if names.len() >= count => names[..count].to_vec(),
        Some(_) => return refuse("fewer activations than the directions need"),
        None => defaults.iter().cycle().take(count).map(|&name| name.to_owned()).collect(),
    };
    let (mut alphas, mut betas) = (a.floats("activation_alpha").iter(), a.floats("activation_beta").iter());
    let next = |values: &mut std::slice::Iter<f32>, default: Option<f64>| match default {
        Some(default) => values.next().map_or(default, |&value| value.into()),
        None => 0.0,
    };
    let activation = |name: String| {
        let found = PARAMETERS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(&name));
        let (alpha, beta) = found.map_or((None, None), |&(_, alpha, beta)| (alpha, beta));
        Activation { alpha: next(&mut alphas, alpha), beta: next(&mut betas, beta), name: name.to_ascii_lowercase() }
    };
    Ok(names.into_iter().map(activation).collect())
}

impl Activation {
    fn of(&self, x: &Ball) -> Balled {
        let (alpha, beta) = (self.alpha, self.beta);
        match self.name.as_str() {
            "tanh" => x.tanh(),
            "sigmoid" => x.sigmoid(),
            "relu" => x.function([0.0, 0.0], Tensor::f_relu, |x, radius| positive(&(x + radius))),
            "affine" => x.affine(alpha, beta),
            "scaledtanh" => x.affine(beta, 0.0)?.tanh()?.affine(alpha, 0.0),
            "hardsigmoid" => x.affine(alpha, beta)?.clamp(0.0, 1.0),
            "leakyrelu" => {
                let below = |x: &Tensor| x.f_mul_scalar(alpha);
                bent(x, [2.0, 0.0], below, |x, _| x.f_full_like(alpha.abs()), alpha)
            }
            "elu" => {
                let below = |x: &Tensor| x.f_clamp_max(0.0)?.f_expm1()?.f_mul_scalar(alpha);
                let slope =
                    |x: &Tensor, radius: &Tensor| (x + radius).f_clamp_max(0.0)?.f_exp()?.f_mul_scalar(alpha.abs());
                bent(x, [4.0, alpha.abs()], below, slope, alpha)
            }
            "thresholdedrelu" => {
                let zero = x.function([0.0, 0.0], Tensor::f_zeros_like, |x, _| x.f_zeros_like())?;
                x.where_else(&x.value.f_ge(alpha)?, &zero)?.doubtful_near(x, alpha)
            }
            "softsign" => x.function(
                [4.0, 0.0],
                |x| x.f_div(&x.f_abs()?.f_add_scalar(1.0)?),
                |x, radius| nearest(x, radius)?.f_add_scalar(1.0)?.f_pow_tensor_scalar(-2),
            ),
            "softplus" => x.softplus(),
            _ => refuse("an activation that ONNX does not name"),
        }
    }
}

fn positive(x: &Tensor) -> Result<Tensor, TchError> {
    x.f_gt(0.0)?.f_to_kind(x.kind())
}

/// `below` where x < 0, else x. The slope is 1 above 0, where it jumps to `slope`, which is `at_zero` there.
fn bent(
    x: &Ball,
    accuracy: [f64; 2],
    below: impl FnOnce(&Tensor) -> Result<Tensor, TchError>,
    slope: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor, TchError>,
    at_zero: f64,
) -> Balled {
    let value = |x: &Tensor| below(x)?.f_where_self(&x.f_lt(0.0)?, x);
    x.function(accuracy, value, |x, radius| {
        let steepest = x.f_full_like(at_zero.abs().max(1.0))?;
        let not_above = slope(x, radius)?.f_where_self(&(x + radius).f_lt(0.0)?, &steepest)?;
        x.f_ones_like()?.f_where_self(&(x - radius).f_gt(0.0)?, &not_above)
    })
}

/// What one direction of a layer computes with.
pub struct Direction {
    /// Gates that are computed together.
    gates: Vec<Gates>,
    pub peepholes: Option<Ball>,
    pub activations: Vec<Activation>,
    pub clip: Option<f64>,
    /// `linear_before_reset` of GRU, `input_forget` of LSTM.
    pub variant: bool,
}

impl Direction {
    /// `together` says how many gates of each group are computed together.
    pub fn of(
        o: &Operands,
        index: i64,
        activations: Vec<Activation>,
        variant: Option<&str>,
        together: &[i64],
    ) -> Result<Self, TchError> {
        let own = |ball: Ball| ball.moved(|x| x.f_select(0, index));
        let transposed = |operand: usize| own(o.ball(operand)?)?.moved(|x| x.f_transpose(0, 1));
        let halves =
            |biases: Ball| -> Result<[Ball; 2], TchError> { Ok([biases.part(0, 0, 2)?, biases.part(0, 1, 2)?]) };
        let all = Gates {
            input: transposed(1)?,
            state: transposed(2)?,
            biases: o.optional(3)?.map(own).transpose()?.map(halves).transpose()?,
        };
        let count = together.iter().sum();
        let mut first = 0;
        let group = |&size: &i64| {
            first += size;
            all.part(first - size, first, count)
        };
        Ok(Direction {
            gates: together.iter().map(group).collect::<Result<_, _>>()?,
            peepholes: o.optional(7)?.map(own).transpose()?,
            activations,
            clip: o.args.attribute("clip").map(|_| o.args.float("clip", 0.0)),
            variant: variant.is_some_and(|name| o.args.int(name, 0) != 0),
        })
    }

    /// x W' of each group of gates, for elements of any number of steps.
    pub fn inputs(&self, x: &Ball) -> Result<Vec<Sum>, TchError> {
        self.gates.iter().map(|gates| Sum::of(x, &gates.input)).collect()
    }

    /// Activation `index` of what is clipped.
    fn activate(&self, index: usize, x: &Ball) -> Balled {
        match self.clip {
            Some(clip) => self.activations[index].of(&x.clamp(-clip, clip)?),
            None => self.activations[index].of(x),
        }
    }

    /// The last activation of LSTM. Its input is no sum, and ONNX Runtime does not clip it.
    fn activate_cell(&self, cell: &Ball) -> Balled {
        let ball = self.activate(2, cell)?;
        match self.clip {
            Some(clip) => ball.unbounded_where(&cell.value.f_abs()?.f_ge(clip * 0.99)?),
            None => Ok(ball),
        }
    }
}

/// Transposed weights of the input and of the state, and the biases of both.
struct Gates {
    input: Ball,
    state: Ball,
    biases: Option<[Ball; 2]>,
}

impl Gates {
    /// The gates from `first` on, up to `last`, of `count`.
    fn part(&self, first: i64, last: i64, count: i64) -> Result<Gates, TchError> {
        let of = |x: &Ball| {
            let size = x.value.size().last().map_or(0, |size| size / count);
            x.moved(|x| x.f_narrow(-1, first * size, (last - first) * size))
        };
        let both = |[input, state]: &[Ball; 2]| -> Result<[Ball; 2], TchError> { Ok([of(input)?, of(state)?]) };
        let biases = self.biases.as_ref().map(both).transpose()?;
        Ok(Gates { input: of(&self.input)?, state: of(&self.state)?, biases })
    }

    /// x W' + h R' + both biases, of the first product.
    fn of(&self, input: Sum, h: &Ball) -> Balled {
        let biases: Vec<&Ball> = self.biases.iter().flatten().collect();
        input.plus(Sum::of(h, &self.state)?)?.ball(&biases)
    }
}

/// As many as the layer has groups of gates.
fn groups<const N: usize>(inputs: Vec<Sum>) -> [Sum; N] {
    inputs.try_into().unwrap_or_else(|_| unreachable!("one for each group"))
}

/// From the states before to those after, by the [`Direction::inputs`] of the step; one of each group of gates.
pub fn rnn_step(direction: &Direction, inputs: Vec<Sum>, states: &[Ball]) -> Result<Vec<Ball>, TchError> {
    let [input] = groups(inputs);
    Ok(vec![direction.activate(0, &direction.gates[0].of(input, &states[0])?)?])
}

pub fn gru_step(direction: &Direction, inputs: Vec<Sum>, states: &[Ball]) -> Result<Vec<Ball>, TchError> {
    let h = &states[0];
    let [both, input] = groups(inputs);
    let both = direction.gates[0].of(both, h)?;
    let update = direction.activate(0, &both.part(-1, 0, 2)?)?;
    let reset = direction.activate(0, &both.part(-1, 1, 2)?)?;
    let gate = &direction.gates[1];
    let hidden = if direction.variant {
        let linear =
            Ball::sum_of_products(&[(h, &gate.state)], &gate.biases.iter().map(|b| &b[1]).collect::<Vec<_>>())?;
        let reset = reset.mul(&linear)?;
        let terms: Vec<&Ball> = gate.biases.iter().map(|b| &b[0]).chain([&reset]).collect();
        input.ball(&terms)?
    } else {
        gate.of(input, &reset.mul(h)?)?
    };
    let hidden = direction.activate(1, &hidden)?;
    let kept = update.mul(h)?;
    // Also legal: hidden + update * (h - hidden).
    let alternative = || {
        zip([&update.value, &hidden.value, &h.value], |[update, hidden, h]| {
            update.abs() * (hidden.abs() + h.abs()) + hidden.abs()
        })
    };
    Ok(vec![update.complement()?.mul(&hidden)?.add(&kept)?.rounded(2.0, alternative)?])
}

pub fn lstm_step(direction: &Direction, inputs: Vec<Sum>, states: &[Ball]) -> Result<Vec<Ball>, TchError> {
    let (h, c) = (&states[0], &states[1]);
    let [input] = groups(inputs);
    let depth = input.count() + (h.value.size()[1] + 4) as f64;
    let sums = direction.gates[0].of(input, h)?;
    // The gates are in the order input, output, forget, cell; the peepholes lack the last.
    let gate = |index: i64, c: &Ball| -> Balled {
        let sum = sums.part(-1, index, 4)?;
        let Some(peepholes) = &direction.peepholes else { return direction.activate(0, &sum) };
        let peep = peepholes.part(-1, index, 3)?.mul(c)?;
        // Added at any place of the sum.
        direction.activate(0, &sum.add(&peep)?.rounded(depth, || Ok(peep.value.shallow_clone()))?)
    };
    let input = gate(0, c)?;
    let forget = if direction.variant { input.complement()? } else { gate(2, c)? };
    let candidate = direction.activate(1, &sums.part(-1, 3, 4)?)?;
    let cell = forget.mul(c)?.add(&input.mul(&candidate)?)?;
    let hidden = gate(1, &cell)?.mul(&direction.activate_cell(&cell)?)?;
    Ok(vec![hidden, cell])
}
