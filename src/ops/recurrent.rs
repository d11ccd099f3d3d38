//! Recurrent layers: RNN, GRU and LSTM.

use super::ball::{Ball, Operands, Sum, radii, values};
use super::cells::{Direction, activations, gru_step, lstm_step, rnn_step, set_activations};
use super::movement::refuse;
use crate::dtype::{DType, FLOATS};
use crate::spec::{Args, Builder, Domain, Numerics, OpSpec, Operand, Skip};
use crate::term::Term;
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&RNN, &GRU, &LSTM];

/// Steps of a sequence: each costs dozens of calls to libtorch.
const MAX_STEPS: i64 = 8;
const MAX_HIDDEN: i64 = 33;

const RECURRENT: OpSpec = OpSpec { since: 7, dtypes: FLOATS, ..OpSpec::BASE };

pub const RNN: OpSpec = OpSpec {
    code: 0x60,
    name: "RNN",
    doc: "A simple recurrent layer: each state is f(x W' + h R' + biases) of an element and the state before.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, layer(&Operands::inexact(a, errors), &RNN_CELL)?)),
    build: |b| build(b, &RNN_CELL),
    eval: |a| values(a, layer(&Operands::exact(a), &RNN_CELL)?),
    ..RECURRENT
};

pub const GRU: OpSpec = OpSpec {
    code: 0x61,
    name: "GRU",
    doc: "A gated recurrent unit, its reset gate before or after the linear transformation.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, layer(&Operands::inexact(a, errors), &GRU_CELL)?)),
    build: |b| build(b, &GRU_CELL),
    eval: |a| values(a, layer(&Operands::exact(a), &GRU_CELL)?),
    ..RECURRENT
};

pub const LSTM: OpSpec = OpSpec {
    code: 0x62,
    name: "LSTM",
    doc: "A long short-term memory, with or without peepholes and coupled input and forget gates.",
    numerics: Numerics::Custom(|a, errors, _| radii(a, layer(&Operands::inexact(a, errors), &LSTM_CELL)?)),
    build: |b| build(b, &LSTM_CELL),
    eval: |a| values(a, layer(&Operands::exact(a), &LSTM_CELL)?),
    ..RECURRENT
};

type Step = fn(&Direction, Vec<Sum>, &[Ball]) -> Result<Vec<Ball>, TchError>;

/// What tells the layers apart.
struct Cell {
    /// How many gates there are, in groups that are computed together.
    gates: &'static [i64],
    /// The default activations of one direction.
    activations: &'static [&'static str],
    /// The attribute that changes the equations, if set.
    variant: Option<&'static str>,
    /// Where the first values of the states are among the operands: h, and for LSTM c.
    states: &'static [usize],
    /// From what the gates make of an element, and the states before, to the states after.
    step: Step,
}

const RNN_CELL: Cell = Cell { gates: &[1], activations: &["Tanh"], variant: None, states: &[5], step: rnn_step };
const GRU_CELL: Cell = Cell {
    gates: &[2, 1],
    activations: &["Sigmoid", "Tanh"],
    variant: Some("linear_before_reset"),
    states: &[5],
    step: gru_step,
};
const LSTM_CELL: Cell = Cell {
    gates: &[4],
    activations: &["Sigmoid", "Tanh", "Tanh"],
    variant: Some("input_forget"),
    states: &[5, 6],
    step: lstm_step,
};

impl Cell {
    fn count(&self) -> i64 {
        self.gates.iter().sum()
    }
}

/// The sizes of one application.
struct Sizes {
    steps: Term,
    batch: Term,
    inner: Term,
    hidden: Term,
    directions: i64,
    batch_first: bool,
}

impl Sizes {
    fn choose(b: &mut Builder, x: &Operand) -> Sizes {
        let batch_first = b.opset() >= 14 && b.mostly();
        let [first, second, inner] = x.dims();
        let (steps, batch) = if batch_first { (second, first) } else { (first, second) };
        b.require(steps.at_least(1));
        b.require(steps.at_most(MAX_STEPS));
        let hint = b.one_of(&[4, 3, 8, 5, 1, 2, 7, 16, 9, 17, 6, 33]);
        let hidden = b.free_near(1..=MAX_HIDDEN, hint);
        let direction =
            b.one_of(&["", "bidirectional", "reverse", "bidirectional", "forward", "reverse", "", "bidirectional"]);
        if !direction.is_empty() {
            b.set_text("direction", direction);
        }
        let directions = if direction == "bidirectional" { 2 } else { 1 };
        Sizes { steps, batch, inner, hidden, directions, batch_first }
    }

    fn state(&self) -> [Term; 3] {
        let directions = Term::constant(self.directions);
        if self.batch_first { [self.batch, directions, self.hidden] } else { [directions, self.batch, self.hidden] }
    }

    fn sequence(&self) -> [Term; 4] {
        let [directions, steps] = [Term::constant(self.directions), self.steps];
        if self.batch_first {
            [self.batch, steps, directions, self.hidden]
        } else {
            [steps, directions, self.batch, self.hidden]
        }
    }
}

fn build(b: &mut Builder, cell: &Cell) -> Result<(), Skip> {
    let dtypes = b.permitted(b.dtypes());
    let x = b.input_or(dtypes, 3..=3, |b| vec![b.free(1..=6), b.size(3), b.size(3)])?;
    let sizes = Sizes::choose(b, &x);
    let [directions, rows] = [Term::constant(sizes.directions), sizes.hidden * cell.count()];
    // Small enough that a state does not amplify what was lost before it.
    let domain = Domain::Range(-0.75, 0.75);
    b.weight_in(x.dtype, [directions, rows, sizes.inner], domain);
    b.weight_in(x.dtype, [directions, rows, sizes.hidden], domain);
    optional_operands(b, cell, x.dtype, &sizes);
    set_attributes(b, cell, &sizes);
    b.accumulate((sizes.inner + sizes.hidden + 4) * cell.count());
    let states = b.below(cell.states.len() + 2).min(cell.states.len());
    b.output(x.dtype, sizes.sequence());
    for state in 0..states {
        b.output(x.dtype, sizes.state());
        if state + 1 < states && b.chance(64) {
            b.omit();
        }
    }
    Ok(())
}

/// The biases, lengths, first states and peepholes that the record wants; nothing after the last of them.
fn optional_operands(b: &mut Builder, cell: &Cell, dtype: DType, sizes: &Sizes) {
    let lstm = cell.states.len() == 2;
    let wanted = [!b.chance(64), b.chance(80), b.coin(), lstm && b.coin(), lstm && b.chance(100)];
    let count = wanted.iter().rposition(|&wanted| wanted).map_or(0, |last| last + 1);
    let [directions, rows] = [Term::constant(sizes.directions), sizes.hidden * cell.count()];
    for (operand, &wanted) in wanted[..count].iter().enumerate() {
        match operand {
            _ if !wanted => b.absent(),
            0 => drop(b.weight(dtype, [directions, rows * 2])),
            1 => drop(b.leaf(DType::I32, [sizes.batch], Domain::Between(1, sizes.steps))),
            2 | 3 => drop(b.input_like(dtype, sizes.state())),
            _ => drop(b.weight(dtype, [directions, sizes.hidden * 3])),
        }
    }
}

fn set_attributes(b: &mut Builder, cell: &Cell, sizes: &Sizes) {
    if !b.chance(16) {
        b.set_int("hidden_size", sizes.hidden);
    }
    if sizes.batch_first || (b.opset() >= 14 && b.chance(48)) {
        b.set_int("layout", i64::from(sizes.batch_first));
    }
    if let Some(variant) = cell.variant
        && b.chance(208)
    {
        let set = !b.chance(72);
        b.set_int(variant, i64::from(set));
    }
    if b.mostly() {
        let clip = b.one_of(&[1.0, 0.5, 2.0, 0.25, 4.0]);
        b.set_float("clip", clip);
    }
    if b.mostly() {
        set_activations(b, cell.activations.len() * sizes.directions as usize);
    }
}

/// The outputs: all states h, the last h, and for LSTM the last c.
fn layer(o: &Operands, cell: &Cell) -> Result<Vec<Ball>, TchError> {
    let a = o.args;
    let hidden = *a.shape(2).last().unwrap_or(&0);
    if a.int("hidden_size", hidden) != hidden {
        return refuse("a hidden_size that the weights do not have");
    }
    let batch_first = a.int("layout", 0) != 0;
    let lay = |ball: Ball| if batch_first { ball.moved(|x| x.f_transpose(0, 1)) } else { Ok(ball) };
    let x = lay(o.ball(0)?)?;
    let direction = a.text("direction", "forward");
    let directions = a.shape(1)[0];
    let mut activations = activations(a, cell.activations, directions)?;
    let shape = [directions, x.value.size()[1], hidden];
    let first_states = cell.states.iter().map(|&operand| match o.optional(operand)? {
        Some(state) => lay(state),
        None => o.certain(Tensor::f_zeros(shape, (x.value.kind(), tch::Device::Cpu))?, a.dtype(0)),
    });
    let first_states = first_states.collect::<Result<Vec<Ball>, TchError>>()?;
    let (mut sequences, mut last_states) = (Vec::new(), Vec::<Vec<Ball>>::new());
    for index in 0..directions {
        let own = activations.drain(..cell.activations.len()).collect();
        let weights = Direction::of(o, index, own, cell.variant, cell.gates)?;
        let states = first_states.iter().map(|state| state.moved(|x| x.f_select(0, index)));
        let states = states.collect::<Result<Vec<Ball>, TchError>>()?;
        let reverse = direction == "reverse" || index == 1;
        let (sequence, last) = run(o, cell, &weights, &x, states, reverse)?;
        sequences.push(sequence);
        last_states.push(last);
    }
    let sequence = Ball::joined(&sequences, |parts| Tensor::f_stack(parts, 1))?;
    let sequence = if batch_first { sequence.moved(|y| y.f_permute([2, 0, 1, 3]))? } else { sequence };
    let mut outputs = vec![sequence];
    for state in 0..cell.states.len() {
        let of_directions: Vec<Ball> = last_states.iter().map(|last| last[state].copy()).collect();
        outputs.push(lay(Ball::joined(&of_directions, |parts| Tensor::f_stack(parts, 0))?)?);
    }
    Ok(outputs)
}

/// The states h of one direction in the order of the sequence, and its last states.
///
/// Beyond the length of a sequence ONNX says nothing of the states; here, as in ONNX Runtime, they are 0, but not judged.
fn run(
    o: &Operands,
    cell: &Cell,
    direction: &Direction,
    x: &Ball,
    mut states: Vec<Ball>,
    reverse: bool,
) -> Result<(Ball, Vec<Ball>), TchError> {
    let order = Order::new(o.args, x, reverse)?;
    let x = order.apply(x)?;
    let inputs = direction.inputs(&x)?;
    let mut hidden = Vec::new();
    for step in 0..x.value.size()[0] {
        let of_step = inputs.iter().map(|sum| sum.moved(|x| x.f_select(0, step)));
        let next = (cell.step)(direction, of_step.collect::<Result<_, _>>()?, &states)?;
        let Some(lengths) = &order.lengths else {
            states = next;
            hidden.push(states[0].copy());
            continue;
        };
        let within = lengths.f_gt(step)?.f_unsqueeze(-1)?;
        let nothing = o.certain(states[0].value.f_zeros_like()?, o.args.dtype(0))?;
        let nothing = nothing.unbounded_where(&within.f_logical_not()?)?;
        hidden.push(next[0].where_else(&within, &nothing)?);
        let kept = next.iter().zip(&states).map(|(next, state)| next.where_else(&within, state));
        states = kept.collect::<Result<_, _>>()?;
    }
    let sequence = Ball::joined(&hidden, |parts| Tensor::f_stack(parts, 0))?;
    Ok((order.apply(&sequence)?, states))
}

/// In which order a direction goes through a sequence.
struct Order {
    lengths: Option<Tensor>,
    /// For each step and batch item the element that is read; `None`: as they are. Its own inverse.
    index: Option<Tensor>,
}

impl Order {
    fn new(a: &Args, x: &Ball, reverse: bool) -> Result<Order, TchError> {
        let [steps, batch] = [x.value.size()[0], x.value.size()[1]];
        let lengths = a.opt(4).map(|lengths| lengths.f_to_kind(Kind::Int64)).transpose()?;
        if !reverse {
            return Ok(Order { lengths, index: None });
        }
        let options = (Kind::Int64, tch::Device::Cpu);
        let step = Tensor::f_arange(steps, options)?.f_unsqueeze(-1)?;
        let all = Tensor::f_full([batch], steps, options)?;
        let mirrored = lengths.as_ref().unwrap_or(&all).f_unsqueeze(0)?.f_sub_scalar(1)?.f_sub(&step)?;
        // What is beyond a sequence stays where it is.
        let index = mirrored.f_where_self(&mirrored.f_ge(0)?, &step.f_expand_as(&mirrored)?)?;
        Ok(Order { lengths, index: Some(index) })
    }

    /// The elements of `x`, of shape steps, batch, size, in this order.
    fn apply(&self, x: &Ball) -> Result<Ball, TchError> {
        match &self.index {
            Some(index) => x.moved(|x| x.f_gather(0, &index.f_unsqueeze(-1)?.f_expand_as(x)?, false)),
            None => Ok(x.copy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::common::testing::{assert_near, eval_all, ramp};
    use super::*;
    use crate::dtype::DType::F32;
    use crate::spec::Attribute::{Float, Int, Text, Texts};
    use crate::tensor::TensorData;

    // Numbers of the reference implementation in the onnx package.
    #[test]
    fn examples_of_onnx() {
        let operands = |gates: usize| {
            vec![
                ramp(&[2, 1, 2], -0.5),
                ramp(&[1, gates * 2, 2], -0.5),
                ramp(&[1, gates * 2, 2], -0.2),
                ramp(&[1, gates * 4], -0.5),
            ]
        };
        let reverse = [("direction", Text("reverse".to_owned()))];
        let rnn = eval_all(&RNN, &operands(1), &reverse, &[F32, F32]);
        assert_near(&rnn[0], &[-0.238_429, -0.391_711, -0.515_359, -0.438_199]);
        assert_near(&rnn[1], &[-0.238_429, -0.391_711]);
        let gru = eval_all(&GRU, &operands(3), &[], &[F32]);
        assert_near(&gru[0], &[0.009_949, 0.026_446, -0.060_555, -0.003_619]);
        let gru = eval_all(&GRU, &operands(3), &[("linear_before_reset", Int(1))], &[F32]);
        assert_near(&gru[0], &[0.074_752, 0.065_054, 0.038_279, 0.053_628]);
    }

    /// Which the minimiser must not make of a legal one.
    #[test]
    #[should_panic(expected = "hidden_size that the weights do not have")]
    fn a_contradicting_hidden_size_is_refused() {
        let operands = [ramp(&[2, 1, 2], -0.5), ramp(&[1, 2, 2], -0.5), ramp(&[1, 2, 2], -0.2)];
        eval_all(&RNN, &operands, &[("hidden_size", Int(1))], &[F32]);
    }

    #[test]
    fn lstm_goes_both_ways() {
        let operands = [
            ramp(&[2, 1, 2], -0.5),
            ramp(&[2, 8, 2], -0.5),
            ramp(&[2, 8, 2], -0.2),
            ramp(&[2, 16], -0.5),
            None,
            ramp(&[2, 1, 2], -0.5),
            ramp(&[2, 1, 2], 0.1),
            ramp(&[2, 6], -0.5),
        ];
        let both = [("direction", Text("bidirectional".to_owned()))];
        let lstm = eval_all(&LSTM, &operands, &both, &[F32; 3]);
        let sequence = [-0.068_935, -0.006_273, -0.070_589, -0.077_101, -0.100_092, -0.095_237, -0.017_04, -0.020_142];
        assert_near(&lstm[0], &sequence);
        assert_near(&lstm[1], &[-0.100_092, -0.095_237, -0.070_589, -0.077_101]);
        assert_near(&lstm[2], &[-0.256_194, -0.216_402, -0.135_195, -0.126_461]);
    }

    #[test]
    fn each_sequence_ends_at_its_length() {
        let one = |values: &[f64]| Some(TensorData::from_f64(F32, &[1, 1, values.len()], values));
        let x = TensorData::from_f64(F32, &[3, 2, 1], &[1.0, 10.0, 2.0, 20.0, 4.0, 40.0]);
        let lengths = TensorData::new(&[2], &[3i32, 2]);
        let operands = [Some(x), one(&[1.0]), one(&[1.0]), None, Some(lengths)];
        let linear = Texts(vec!["Affine".to_owned()]);
        let forward = eval_all(&RNN, &operands, &[("activations", linear.clone())], &[F32, F32]);
        assert_eq!(forward, [vec![1.0, 10.0, 3.0, 30.0, 7.0, 0.0], vec![7.0, 30.0]]);
        let reverse = [("activations", linear.clone()), ("direction", Text("reverse".to_owned()))];
        let reverse = eval_all(&RNN, &operands, &reverse, &[F32, F32]);
        assert_eq!(reverse, [vec![7.0, 30.0, 6.0, 20.0, 4.0, 0.0], vec![7.0, 30.0]]);
        let clipped = eval_all(&RNN, &operands, &[("activations", linear), ("clip", Float(5.0))], &[F32, F32]);
        assert_eq!(clipped[1], [5.0, 5.0]);
    }
}
