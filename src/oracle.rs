//! Judges what backends return: a pure function of the reference, its error bounds and the outputs.
//!
//! The reference computes in f64. Beside each of its values goes a bound on how far any legal evaluation in the declared
//! types may be from it ([`bounds`]). An output element within its bound agrees; one whose bound is too wide to mean
//! anything, or that a discontinuous operator may legally flip, is not judged, and counted. Integer, bool and moved data
//! have no bound and must be equal to the bit.

use crate::backend::{Failure, Level};
use crate::dtype::DType;
use crate::elements;
use crate::model::{LeafData, Model};
use crate::reference::{self, Defect, Precision, Values};
use crate::stages::{Stage, stage};
use crate::tensor::TensorData;

mod bounds;
pub mod exceptional;

/// First-order bounds are widened by this factor, for what is of higher order.
const SAFETY: f64 = 4.0;
/// An element whose bound is above this share of its magnitude scale is not judged.
const JUDGEABLE_SHARE: f64 = 0.1;
/// A first-order bound that is too wide to be believed is believed to be no further off than by this factor.
const WIDER: f64 = 1000.0;

/// What every correct backend returns for one output.
pub struct Expected {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// The reference value of each element.
    pub exact: Vec<f64>,
    /// The declared-type bits of integer and bool outputs, and of floats that were only moved.
    bits: Option<TensorData>,
    /// The allowed absolute error of each element; infinite where the element is not judged. Empty: all are exact.
    pub allowed: Vec<f64>,
    /// The values that the operator can give at all; see [`crate::spec::OpSpec::range`].
    pub range: Option<(f64, f64)>,
    /// Where an element that is not judged must be a number all the same: its bound is wide, and yet far from the end of
    /// the type's range. Empty: nowhere.
    finite: Vec<bool>,
}

/// What every correct backend returns for one model and its data.
pub struct Expectation {
    pub outputs: Vec<Expected>,
    /// Elements of all outputs, those that are judged, and those whose bound libtorch itself breaks in the declared type.
    pub elements: usize,
    pub judged: usize,
    pub suspect: usize,
}

/// How outputs differ from the expectation.
#[derive(Clone, PartialEq, Debug)]
pub enum Difference {
    Count {
        got: usize,
    },
    DType {
        output: usize,
        got: DType,
    },
    Shape {
        output: usize,
        got: Vec<usize>,
    },
    /// The first differing element; `wrong` counts all.
    Value {
        output: usize,
        element: usize,
        got: String,
        wrong: usize,
    },
    /// The first element beyond what the operator can give, where all are within their bounds; `wrong` counts all.
    Range {
        output: usize,
        element: usize,
        got: String,
        wrong: usize,
    },
}

/// What is wrong with a backend's answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Wrong {
    Output(Difference),
    /// A failure other than [`Failure::Unsupported`].
    Failed(Failure),
}

/// The kinds of wrong answers, as `known.toml` and signatures name them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    WrongCount,
    WrongDtype,
    WrongShape,
    WrongValue,
    BeyondRange,
    Refused,
    Crashed,
    TimedOut,
    OutOfMemory,
    Protocol,
    NonDeterministic,
}

impl Kind {
    /// Whether the process may not survive it.
    pub fn ends_process(self) -> bool {
        matches!(self, Kind::Crashed | Kind::TimedOut | Kind::OutOfMemory)
    }
}

impl Difference {
    /// The output that differs, unless their number does.
    pub fn output(&self) -> Option<usize> {
        match *self {
            Difference::Count { .. } => None,
            Difference::DType { output, .. }
            | Difference::Shape { output, .. }
            | Difference::Value { output, .. }
            | Difference::Range { output, .. } => Some(output),
        }
    }
}

impl Wrong {
    pub fn kind(&self) -> Kind {
        match self {
            Wrong::Output(Difference::Count { .. }) => Kind::WrongCount,
            Wrong::Output(Difference::DType { .. }) => Kind::WrongDtype,
            Wrong::Output(Difference::Shape { .. }) => Kind::WrongShape,
            Wrong::Output(Difference::Value { .. }) => Kind::WrongValue,
            Wrong::Output(Difference::Range { .. }) => Kind::BeyondRange,
            Wrong::Failed(Failure::Refused(_) | Failure::Unsupported(_)) => Kind::Refused,
            Wrong::Failed(Failure::Crashed(_)) => Kind::Crashed,
            Wrong::Failed(Failure::TimedOut) => Kind::TimedOut,
            Wrong::Failed(Failure::OutOfMemory) => Kind::OutOfMemory,
            Wrong::Failed(Failure::Protocol(_)) => Kind::Protocol,
            Wrong::Failed(Failure::NonDeterministic(_)) => Kind::NonDeterministic,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(match self {
            Kind::WrongCount => "wrong-count",
            Kind::WrongDtype => "wrong-dtype",
            Kind::WrongShape => "wrong-shape",
            Kind::WrongValue => "wrong-value",
            Kind::BeyondRange => "beyond-range",
            Kind::Refused => "refused",
            Kind::Crashed => "crashed",
            Kind::TimedOut => "timed-out",
            Kind::OutOfMemory => "out-of-memory",
            Kind::Protocol => "protocol",
            Kind::NonDeterministic => "non-deterministic",
        })
    }
}

/// One backend's answer at one level.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub backend: &'static str,
    pub level: Level,
    pub result: Result<Vec<TensorData>, Failure>,
}

impl Expectation {
    /// `wide` are the reference values in f64 of every value of `model` on `data`.
    pub fn new(model: &Model, data: &LeafData, wide: &Values) -> Result<Expectation, Defect> {
        let all: Vec<usize> = (0..model.outputs.len()).collect();
        let mut expectation = Expectation::unchecked(model, data, wide, &all)?;
        expectation.check(model, data)?;
        Ok(expectation)
    }

    /// The reference without error bounds, which cost more than it. An answer that is equal to it, to the bit, is right;
    /// of others nothing is known.
    pub fn equal(model: &Model, wide: &Values) -> Result<Expectation, Defect> {
        Expectation::compute(model, wide, &bounds::none(model))
    }

    /// With error bounds of the outputs in `doubtful`; the others must be equal to the reference. Without what
    /// [`Expectation::check`] does, which takes as long as the reference: for what is checked before it is believed.
    pub fn unchecked(model: &Model, data: &LeafData, wide: &Values, doubtful: &[usize]) -> Result<Expectation, Defect> {
        let values: Vec<usize> = doubtful.iter().map(|&output| model.outputs[output]).collect();
        let errors = stage(Stage::Bounds, || bounds::errors(model, data, wide, &values))?;
        Expectation::compute(model, wide, &errors)
    }

    fn compute(model: &Model, wide: &Values, errors: &Values) -> Result<Expectation, Defect> {
        let source = |source| Defect::Eval { operator: "the outputs", source };
        let mut expectation = Expectation { outputs: Vec::new(), elements: 0, judged: 0, suspect: 0 };
        for &output in &model.outputs {
            let value = &model.values[output];
            let wide = wide[output].as_ref().expect("every value was computed");
            let exact = elements::read(wide).map_err(source)?;
            let errors = errors[output].as_ref().map(elements::read).transpose().map_err(source)?;
            let (allowed, finite) = match &errors {
                Some(errors) => (allowed(&exact, errors), finite(&exact, errors, value.dtype)),
                None => (Vec::new(), Vec::new()),
            };
            let must_match = allowed.is_empty() || !value.dtype.is_float();
            let expected = Expected {
                name: value.name.clone(),
                dtype: value.dtype,
                shape: value.shape.clone(),
                // Of f32 and f64 the elements are at hand, and need no further steps of libtorch.
                bits: must_match.then(|| match value.dtype {
                    DType::F32 | DType::F64 => TensorData::from_f64(value.dtype, &value.shape, &exact),
                    dtype => reference::to_data(wide, dtype),
                }),
                exact,
                allowed,
                range: range(model, output),
                finite,
            };
            expectation.elements += value.len();
            expectation.judged += expected.judged();
            expectation.outputs.push(expected);
        }
        Ok(expectation)
    }

    /// Computes the model in the declared types: where libtorch breaks a bound, the bound is wrong, and those elements are not
    /// judged.
    fn check(&mut self, model: &Model, data: &LeafData) -> Result<(), Defect> {
        let declared = stage(Stage::Reference, || reference::run(model, data, Precision::Declared))?;
        for (expected, &output) in self.outputs.iter_mut().zip(&model.outputs) {
            let declared = declared[output].as_ref().expect("every value was computed");
            let suspect = expected.withdraw_suspects(&reference::to_data(declared, expected.dtype));
            self.suspect += suspect;
            self.judged -= suspect;
        }
        Ok(())
    }

    /// The first difference of `outputs` from what is expected, if any.
    pub fn compare(&self, outputs: &[TensorData]) -> Option<Difference> {
        self.differences(outputs).next()
    }

    /// The first difference of each output that differs.
    fn differences<'a>(&'a self, outputs: &'a [TensorData]) -> Box<dyn Iterator<Item = Difference> + 'a> {
        if outputs.len() != self.outputs.len() {
            return Box::new(std::iter::once(Difference::Count { got: outputs.len() }));
        }
        Box::new(outputs.iter().zip(&self.outputs).enumerate().filter_map(|(output, (got, expected))| {
            if got.dtype != expected.dtype {
                return Some(Difference::DType { output, got: got.dtype });
            }
            if got.shape != expected.shape {
                return Some(Difference::Shape { output, got: got.shape.clone() });
            }
            if expected.bits.as_ref().is_some_and(|bits| bits.bytes == got.bytes) {
                return None;
            }
            let mut wrong = expected.wrong_elements(got);
            if let Some(element) = wrong.next() {
                let wrong = 1 + wrong.count();
                return Some(Difference::Value { output, element, got: got.element_text(element), wrong });
            }
            let mut beyond = expected.elements_beyond(got);
            let element = beyond.next()?;
            let wrong = 1 + beyond.count();
            Some(Difference::Range { output, element, got: got.element_text(element), wrong })
        }))
    }

    /// The outputs in which some answer is not equal to the reference, of an expectation that asks for that.
    pub fn doubtful<'a>(&self, answers: impl Iterator<Item = &'a [TensorData]>) -> Vec<usize> {
        let answers: Vec<&[TensorData]> = answers.filter(|outputs| outputs.len() == self.outputs.len()).collect();
        let differs = |output: &usize| answers.iter().any(|outputs| self.outputs[*output].differs(&outputs[*output]));
        (0..self.outputs.len()).filter(differs).collect()
    }

    /// An output and an element of it in which `other`, of a model that means the same, has a value that these bounds and its
    /// own do not explain: what a rewrite must never do. Further outputs of `other` do not matter.
    pub fn contradiction(&self, other: &Expectation) -> Option<(usize, usize)> {
        let bound = |of: &Expected, element: usize| of.allowed.get(element).copied().unwrap_or(0.0);
        self.outputs.iter().zip(&other.outputs).enumerate().find_map(|(output, (a, b))| {
            if (a.dtype, &a.shape) != (b.dtype, &b.shape) {
                return Some((output, 0));
            }
            let explained = |i: usize| (a.exact[i] - b.exact[i]).abs() <= bound(a, i) + bound(b, i);
            (0..a.exact.len()).find(|&element| !explained(element)).map(|element| (output, element))
        })
    }

    /// What is wrong with one backend's answer, if anything.
    pub fn judge(&self, result: &Result<Vec<TensorData>, Failure>) -> Option<Wrong> {
        self.judge_each(result).into_iter().next()
    }

    /// All that is wrong with one backend's answer: a failure, or what is wrong with each output.
    pub fn judge_each(&self, result: &Result<Vec<TensorData>, Failure>) -> Vec<Wrong> {
        match result {
            Ok(outputs) => self.differences(outputs).map(Wrong::Output).collect(),
            Err(Failure::Unsupported(_)) => Vec::new(),
            Err(failure) => vec![Wrong::Failed(failure.clone())],
        }
    }
}

impl Expected {
    /// The reference: in the declared type where every judged element must be met to the bit, else in f64.
    pub fn reference(&self) -> TensorData {
        self.bits.clone().unwrap_or_else(|| TensorData::from_f64(DType::F64, &self.shape, &self.exact))
    }

    /// Whether every judged element must be met to the bit.
    pub fn is_exact(&self) -> bool {
        self.bits.is_some()
    }

    /// The allowed absolute error of each element; infinite where the element is not judged.
    pub fn errors(&self) -> TensorData {
        let exact = |allowed: &f64| if self.is_exact() && allowed.is_finite() { 0.0 } else { *allowed };
        let errors: Vec<f64> = match self.allowed.is_empty() {
            true => vec![0.0; self.exact.len()],
            false => self.allowed.iter().map(exact).collect(),
        };
        TensorData::from_f64(DType::F64, &self.shape, &errors)
    }

    /// Whether some element of an answer of the right type and shape is wrong.
    fn differs(&self, got: &TensorData) -> bool {
        got.dtype == self.dtype && got.shape == self.shape && self.wrong_elements(got).next().is_some()
    }

    /// How many elements are judged.
    fn judged(&self) -> usize {
        if self.allowed.is_empty() { self.exact.len() } else { self.allowed.iter().filter(|e| e.is_finite()).count() }
    }

    /// The elements of `got`, of the right type and shape, that no legal evaluation gives.
    fn wrong_elements<'a>(&'a self, got: &'a TensorData) -> Box<dyn Iterator<Item = usize> + 'a> {
        let size = self.dtype.size_bytes();
        let judged = move |i: &usize| self.allowed.get(*i).is_none_or(|allowed| allowed.is_finite());
        if let Some(bits) = &self.bits {
            if got.bytes == bits.bytes {
                return Box::new(std::iter::empty());
            }
            let differs = move |i: &usize| got.bytes[i * size..][..size] != bits.bytes[i * size..][..size];
            let values = got.to_f64();
            // ONNX never speaks of the sign of zero, nor of which NaN there is.
            let same = move |i: &usize| {
                let (value, exact) = (values[*i], self.exact[*i]);
                self.dtype.is_float() && (value == 0.0 && exact == 0.0 || value.is_nan() && exact.is_nan())
            };
            return Box::new((0..self.exact.len()).filter(judged).filter(differs).filter(move |i| !same(i)));
        }
        let values = got.to_f64();
        let wrong = move |i: &usize| {
            let (value, exact) = (values[*i], self.exact[*i]);
            let near = (value - exact).abs().le(&self.allowed[*i]);
            // Equal infinities have no distance. A NaN is near nothing but a NaN.
            let far = !(near || value == exact || value.is_nan() && exact.is_nan());
            judged(i) && far || self.finite.get(*i) == Some(&true) && !value.is_finite()
        };
        Box::new((0..self.exact.len()).filter(wrong))
    }

    /// The elements of `got`, of the right type and shape, that the operator cannot give. A NaN is not among them.
    fn elements_beyond<'a>(&'a self, got: &'a TensorData) -> Box<dyn Iterator<Item = usize> + 'a> {
        let Some((least, largest)) = self.range else { return Box::new(std::iter::empty()) };
        let beyond = move |&(element, value): &(usize, f64)| {
            // Where the operator itself gives a NaN, nothing is known of what stands for it.
            !self.exact[element].is_nan() && (value < least || value > largest)
        };
        Box::new(got.to_f64().into_iter().enumerate().filter(beyond).map(|(element, _)| element))
    }

    /// Takes back the bounds that `declared` breaks; how many elements were judged until then.
    fn withdraw_suspects(&mut self, declared: &TensorData) -> usize {
        let suspects: Vec<usize> = self.wrong_elements(declared).collect();
        if !suspects.is_empty() && self.allowed.is_empty() {
            self.allowed = vec![0.0; self.exact.len()];
        }
        for &element in &suspects {
            self.allowed[element] = f64::INFINITY;
            self.finite.iter_mut().skip(element).take(1).for_each(|finite| *finite = false);
        }
        suspects.len()
    }
}

/// The range of the operator that computes a value.
fn range(model: &Model, value: usize) -> Option<(f64, f64)> {
    let node = model.nodes.iter().find(|node| node.outputs[0] == value)?;
    node.spec.range_in(model.values[value].dtype)
}

/// Where a result must be a number although its bound says little else.
fn finite(exact: &[f64], errors: &[f64], dtype: DType) -> Vec<bool> {
    let far = |(exact, error): (&f64, &f64)| exact.abs() + WIDER * error < dtype.max() / WIDER;
    if !dtype.is_float() {
        return Vec::new();
    }
    exact.iter().zip(errors).map(far).collect()
}

/// Bounds as they are applied: widened, and infinite where they say too little.
fn allowed(exact: &[f64], errors: &[f64]) -> Vec<f64> {
    let finite = || exact.iter().filter(|value| value.is_finite());
    let mean = finite().map(|value| value.abs()).sum::<f64>() / finite().count().max(1) as f64;
    let widen = |(exact, error): (&f64, &f64)| {
        let allowed = error * SAFETY;
        // With no error at all also a NaN is judged.
        let judgeable = allowed <= JUDGEABLE_SHARE * (exact.abs() + mean) || allowed < 1e-30;
        if judgeable { allowed } else { f64::INFINITY }
    };
    exact.iter().zip(errors).map(widen).collect()
}
