//! A backend that reads the ONNX bytes like any other, computes with the reference, and then misbehaves as it is told.

use graphsmith::backend::{Backend, Failure, Level, Session, isolate};
use graphsmith::case::Case;
use graphsmith::dtype::DType;
use graphsmith::input::Stream;
use graphsmith::model::{LeafData, Model, Node, Value};
use graphsmith::onnx;
use graphsmith::reference::{self, Precision, Values};
use graphsmith::spec::Numerics;
use graphsmith::tensor::TensorData;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a canary does with a model. The first group is within a backend's rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Exactly what the reference does in the declared types.
    Copy,
    /// Floats in f64, rounded only at the end.
    Wide,
    /// f16 in f32, rounded only at the end.
    HalfInSingle,
    /// Every rounded result may be one unit in the last place off, as other orders of summation make it.
    LastPlace,
    /// Every transcendental result is one unit in the last place too large.
    LastPlaceTooLarge,
    /// Subnormal results of arithmetic become 0.
    FlushToZero,

    /// One float is 1 % off, or one integer off by 1, or one bool flipped.
    OneElement,
    NotANumber,
    SwappedOutputs,
    SwappedOperands,
    /// An output still holds what the model before left there; zeros where the type does not agree.
    Stale,
    /// An output is read one element too far along the last axis.
    Shifted,
    WrongDtype,
    WrongShape,
    MissingOutput,
    ExtraOutput,
    Crash,
    Refusal,
    /// f32 and f64 results have the precision of f16.
    HalfPrecision,
    /// Integers wrap around as i8.
    TruncatedIntegers,
    UninitialisedTail,
}

use Behaviour::*;

pub const HONEST: [Behaviour; 6] = [Copy, Wide, HalfInSingle, LastPlace, LastPlaceTooLarge, FlushToZero];
pub const FAULTS: [Behaviour; 15] = [
    OneElement,
    NotANumber,
    SwappedOutputs,
    SwappedOperands,
    Stale,
    Shifted,
    WrongDtype,
    WrongShape,
    MissingOutput,
    ExtraOutput,
    Crash,
    Refusal,
    HalfPrecision,
    TruncatedIntegers,
    UninitialisedTail,
];

/// The canary. What the tests steer is shared, so that a harness may own the canary.
#[derive(Clone)]
pub struct Canary {
    pub id: &'static str,
    pub behaviour: Rc<Cell<Behaviour>>,
    /// Misbehaves only at this level.
    pub level: Option<Level>,
    /// Misbehaves only on models with this operator.
    pub operator: Option<&'static str>,
    pub integer_limit: Option<i64>,
    /// Misbehaves only on models of at least so many nodes.
    pub least_nodes: usize,
    /// How many models were compiled.
    pub compiled: Rc<Cell<usize>>,
    /// ONNX leaves out the types of values inside the graph; a real backend infers them.
    pub types: Rc<RefCell<BTreeMap<String, Value>>>,
    /// What [`Stale`] returns.
    pub left_over: Rc<RefCell<Vec<TensorData>>>,
}

impl Canary {
    pub fn new(behaviour: Behaviour) -> Canary {
        Canary {
            id: "canary",
            behaviour: Rc::new(Cell::new(behaviour)),
            level: None,
            operator: None,
            least_nodes: 0,
            integer_limit: None,
            compiled: Rc::default(),
            types: Rc::default(),
            left_over: Rc::default(),
        }
    }

    /// Lets the canary know the types of all values of a case.
    pub fn expect(&self, case: &Case) {
        *self.types.borrow_mut() = case.model.values.iter().map(|value| (value.name.clone(), value.clone())).collect();
    }

    /// Leaves the outputs of a case in the canary's buffers.
    pub fn leave(&self, outputs: &[TensorData]) {
        *self.left_over.borrow_mut() = outputs.to_vec();
    }

    /// What the canary answers to a case.
    pub fn answer(&self, case: &Case) -> Result<Vec<TensorData>, Failure> {
        self.expect(case);
        self.compile(&case.onnx, Level::On)?.run(&case.model.input_data(&case.data))
    }
}

impl Backend for Canary {
    fn id(&self) -> &'static str {
        self.id
    }

    fn version(&self) -> String {
        "1.2.3".to_owned()
    }

    fn integer_limit(&self) -> Option<i64> {
        self.integer_limit
    }

    fn compile(&self, onnx: &[u8], level: Level) -> Result<Box<dyn Session>, Failure> {
        self.compiled.set(self.compiled.get() + 1);
        let proto = onnx::decode(onnx).expect("the case holds an ONNX model");
        let model = onnx::import(&proto, &self.types.borrow(), 1).expect("the model is graphsmith's own").model;
        let here = self.level.is_none_or(|only| only == level)
            && model.nodes.len() >= self.least_nodes
            && self.operator.is_none_or(|only| model.nodes.iter().any(|node| node.spec.name == only));
        let behaviour = if here { self.behaviour.get() } else { Copy };
        match behaviour {
            Crash => isolate(|| panic!("the canary falls from its perch")),
            Refusal => Err(Failure::Refused("the canary does not sing".to_owned())),
            // Compiled models of equal bytes misbehave equally.
            _ => Ok(Box::new(Compiled {
                model,
                behaviour,
                stream: Stream::new(onnx.len() as u64),
                canary: self.clone(),
            })),
        }
    }
}

struct Compiled {
    model: Model,
    behaviour: Behaviour,
    stream: Stream,
    canary: Canary,
}

impl Session for Compiled {
    fn run(&mut self, inputs: &[TensorData]) -> Result<Vec<TensorData>, Failure> {
        let mut inputs = inputs.iter().cloned();
        let leaf = |leaf: &graphsmith::model::Leaf| match &leaf.content {
            Some(content) => content.clone(),
            None => inputs.next().expect("an input for each leaf that is one"),
        };
        let data: LeafData = self.model.leaves.iter().map(leaf).collect();
        let nothing = || Failure::Unsupported("nothing here to get wrong".to_owned());
        self.compute(&data).ok_or_else(nothing)
    }
}

impl Compiled {
    /// The outputs; `None` when the model offers nothing to get wrong in the way that is asked for.
    fn compute(&mut self, data: &LeafData) -> Option<Vec<TensorData>> {
        let (model, stream) = (&self.model, &mut self.stream);
        let rounds = |node: &Node| match node.spec.numerics {
            Numerics::Elementwise { ulps, .. } => ulps > 0.0,
            Numerics::Accumulated => true,
            Numerics::Exact | Numerics::Custom(_) | Numerics::Unfiltered(_) => false,
        };
        let transcendental =
            |node: &Node| matches!(node.spec.numerics, Numerics::Elementwise { ulps, .. } if ulps > 1.0);
        let values = match self.behaviour {
            Wide => reference::run(model, data, Precision::Wide).expect("computed before"),
            // The bits of a number are those of its type.
            HalfInSingle if model.nodes.iter().all(|node| node.spec.name != "BitCast") => {
                return Some(in_single(model, data));
            }
            LastPlace => declared(model, data, |node, tensor| match rounds(node) {
                true => stepped(tensor, |_| stream.below(3) as i64 - 1),
                false => tensor,
            }),
            LastPlaceTooLarge => declared(model, data, |node, tensor| match transcendental(node) {
                true => stepped(tensor, |_| 1),
                false => tensor,
            }),
            FlushToZero => declared(model, data, |node, tensor| match rounds(node) {
                true => flushed(tensor),
                false => tensor,
            }),
            SwappedOperands => {
                let swapped = swap_operands(model, stream)?;
                // Exchanged indices may be out of range, and `eval` need not take them.
                let invalid = |_| Failure::Protocol("invalid operands".to_owned());
                isolate(|| reference::run(&swapped, data, Precision::Declared).map_err(invalid)).ok()?
            }
            _ => reference::run(model, data, Precision::Declared).expect("computed before"),
        };
        let honest = outputs(model, &values);
        match self.behaviour {
            Copy | Wide | HalfInSingle | LastPlace | LastPlaceTooLarge | FlushToZero | SwappedOperands => Some(honest),
            fault => break_outputs(fault, honest, &self.canary.left_over.borrow(), stream),
        }
    }
}

fn outputs(model: &Model, values: &Values) -> Vec<TensorData> {
    let output = |&value: &usize| {
        reference::to_data(values[value].as_ref().expect("every value was computed"), model.values[value].dtype)
    };
    model.outputs.iter().map(output).collect()
}

/// The reference in the declared types, with each node's results changed.
fn declared(model: &Model, data: &LeafData, mut change: impl FnMut(&Node, TensorData) -> TensorData) -> Values {
    let mut values: Values = (0..model.values.len()).map(|_| None).collect();
    for (leaf, data) in model.leaves.iter().zip(data) {
        values[leaf.value] = Some(reference::to_tensor(data, false));
    }
    for node in &model.nodes {
        let results = reference::run_node(model, node, &values, Precision::Declared).expect("computed before");
        for (&output, result) in node.outputs.iter().zip(results) {
            let changed = change(node, reference::to_data(&result, model.values[output].dtype));
            values[output] = Some(reference::to_tensor(&changed, false));
        }
    }
    values
}

fn in_single(model: &Model, data: &LeafData) -> Vec<TensorData> {
    let convert = |data: &TensorData, from, to| match data.dtype {
        dtype if dtype == from => TensorData::from_f64(to, &data.shape, &data.to_f64()),
        _ => data.clone(),
    };
    let mut single = model.clone();
    single.values.iter_mut().filter(|value| value.dtype == DType::F16).for_each(|value| value.dtype = DType::F32);
    let data: LeafData = data.iter().map(|data| convert(data, DType::F16, DType::F32)).collect();
    let results = outputs(&single, &declared(&single, &data, |_, tensor| tensor));
    let round = |(result, &value): (&TensorData, &usize)| convert(result, DType::F32, model.values[value].dtype);
    results.iter().zip(&model.outputs).map(round).collect()
}

/// Finite floats moved by some units in the last place, away from 0 for positive `places` of their index. Zeros stay: no
/// order of summation makes anything else of `x - x`.
fn stepped(mut tensor: TensorData, mut places: impl FnMut(usize) -> i64) -> TensorData {
    if !tensor.dtype.is_float() {
        return tensor;
    }
    let movable: Vec<bool> = tensor.to_f64().iter().map(|value| value.is_finite() && *value != 0.0).collect();
    let size = tensor.dtype.size_bytes();
    for (i, bytes) in tensor.bytes.chunks_exact_mut(size).enumerate() {
        let mut bits = [0; 8];
        bits[..size].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(bits);
        let magnitude = (1u64 << (8 * size - 1)) - 1;
        let moved = (bits & magnitude).saturating_add_signed(if movable[i] { places(i) } else { 0 });
        bytes.copy_from_slice(&(bits & !magnitude | moved).to_le_bytes()[..size]);
    }
    tensor
}

/// f16 is computed in f32 everywhere, so its subnormals stay.
fn flushed(tensor: TensorData) -> TensorData {
    if !matches!(tensor.dtype, DType::F32 | DType::F64) {
        return tensor;
    }
    let least = tensor.dtype.min_positive();
    let values: Vec<f64> = tensor.to_f64().into_iter().map(|v| if v.abs() < least { 0.0 } else { v }).collect();
    TensorData::from_f64(tensor.dtype, &tensor.shape, &values)
}

/// The model with two operands of one node exchanged that have the same type.
fn swap_operands(model: &Model, stream: &mut Stream) -> Option<Model> {
    let mut candidates = Vec::new();
    for (index, node) in model.nodes.iter().enumerate() {
        let operands: Vec<(usize, &Value)> =
            node.operands.iter().enumerate().filter_map(|(i, o)| Some((i, &model.values[(*o)?]))).collect();
        for (i, one) in &operands {
            let same = operands.iter().filter(|(j, other)| j > i && same_type(one, other) && one.name != other.name);
            candidates.extend(same.map(|(j, _)| (index, *i, *j)));
        }
    }
    let (node, i, j) = *pick(&candidates, stream)?;
    let mut swapped = model.clone();
    swapped.nodes[node].operands.swap(i, j);
    Some(swapped)
}

fn same_type(one: &Value, other: &Value) -> bool {
    one.dtype == other.dtype && one.shape == other.shape
}

fn pick<'a, T>(candidates: &'a [T], stream: &mut Stream) -> Option<&'a T> {
    (!candidates.is_empty()).then(|| &candidates[stream.below(candidates.len() as u64) as usize])
}

/// `None` where no output can show the fault.
fn break_outputs(
    fault: Behaviour,
    mut outputs: Vec<TensorData>,
    left_over: &[TensorData],
    stream: &mut Stream,
) -> Option<Vec<TensorData>> {
    let suits = |tensor: &TensorData| match fault {
        NotANumber => tensor.dtype.is_float() && !tensor.is_empty(),
        HalfPrecision => matches!(tensor.dtype, DType::F32 | DType::F64),
        TruncatedIntegers => matches!(tensor.dtype, DType::I32 | DType::I64),
        Shifted => tensor.shape.last().is_some_and(|&size| size > 1),
        OneElement | UninitialisedTail => !tensor.is_empty(),
        _ => true,
    };
    let suitable: Vec<usize> = (0..outputs.len()).filter(|&output| suits(&outputs[output])).collect();
    let at = *pick(&suitable, stream)?;
    match fault {
        SwappedOutputs => {
            let same = |other: &usize| *other != at && same_shape(&outputs[*other], &outputs[at]);
            let other = (0..outputs.len()).find(same)?;
            outputs.swap(at, other);
        }
        MissingOutput => drop(outputs.pop()),
        ExtraOutput => outputs.push(outputs[at].clone()),
        _ => outputs[at] = break_output(fault, &outputs[at], left_over, stream),
    }
    Some(outputs)
}

fn same_shape(one: &TensorData, other: &TensorData) -> bool {
    one.dtype == other.dtype && one.shape == other.shape
}

fn break_output(fault: Behaviour, honest: &TensorData, left_over: &[TensorData], stream: &mut Stream) -> TensorData {
    let mut values = honest.to_f64();
    let element = stream.below(values.len().max(1) as u64) as usize;
    let (dtype, shape) = (honest.dtype, honest.shape.as_slice());
    match fault {
        OneElement => {
            values[element] = match dtype {
                DType::Bool => 1.0 - values[element],
                dtype if dtype.is_float() => values[element] * 1.01,
                _ => values[element] + 1.0,
            };
            TensorData::from_f64(dtype, shape, &values)
        }
        NotANumber => {
            values[element] = f64::NAN;
            TensorData::from_f64(dtype, shape, &values)
        }
        Stale => {
            let left = left_over.iter().find(|left| same_shape(left, honest)).cloned();
            left.unwrap_or_else(|| TensorData::zeros(dtype, shape))
        }
        Shifted => {
            let row = shape.last().expect("checked") * dtype.size_bytes();
            let mut shifted = honest.clone();
            shifted.bytes.chunks_exact_mut(row).for_each(|row| row.rotate_left(dtype.size_bytes()));
            shifted
        }
        WrongDtype => TensorData::from_f64(if dtype == DType::F32 { DType::F64 } else { DType::F32 }, shape, &values),
        WrongShape => TensorData { shape: [shape, &[1]].concat(), ..honest.clone() },
        HalfPrecision => {
            let half = TensorData::from_f64(DType::F16, shape, &values);
            TensorData::from_f64(dtype, shape, &half.to_f64())
        }
        TruncatedIntegers => {
            let wrapped: Vec<f64> = values.iter().map(|&value| f64::from(value as i64 as i8)).collect();
            TensorData::from_f64(dtype, shape, &wrapped)
        }
        UninitialisedTail => {
            let mut garbage = honest.clone();
            let tail = garbage.bytes.len() - dtype.size_bytes();
            match dtype {
                DType::Bool => garbage.bytes[tail] ^= 1,
                _ => stream.fill(&mut garbage.bytes[tail..]),
            }
            garbage
        }
        other => unreachable!("{other:?} is not a fault of one output"),
    }
}
