//! The oracle's own test: invented wrong answers must be caught, and what a correct backend may answer never is.
//!
//! A fault or an honest variation is one function and one row of a table. All of them compute with the reference, so no
//! backend is needed; what they answer is judged as a backend's answer is.

mod answers;
mod attributes;
mod faults;
mod honest;
pub mod kernels;
mod operators;

use crate::backend::Answer;
use crate::case::Case;
use crate::input::Stream;
use crate::metamorphic;
use crate::model::{LeafData, Model, Node};
use crate::reference::{self, Defect, Precision, Values};
use crate::tensor::TensorData;

/// A case with what its faults start from.
pub struct Subject<'a> {
    pub case: &'a Case,
    /// The values in the declared types.
    declared: Values,
    /// The outputs of a correct backend.
    pub honest: Vec<TensorData>,
    /// What an earlier case has left in the buffers.
    left_over: &'a [TensorData],
    stream: Stream,
}

/// A mistake that a compiler might make.
pub struct Fault {
    pub name: &'static str,
    pub inject: Inject,
}

/// How a fault comes about. None where the case has nothing to get wrong in this way.
#[derive(Clone, Copy)]
pub enum Inject {
    /// Another model is computed.
    Model(fn(&mut Model, &mut LeafData, &mut Stream) -> Option<()>),
    /// One result of a node is another one, and what follows is computed from it.
    Result(fn(&Place, &TensorData, &mut Stream) -> Option<TensorData>),
    /// The answer is another one.
    Answer(fn(&mut Subject) -> Option<Answer>),
}

/// A node with the values around it.
pub struct Place<'a> {
    node: &'a Node,
    values: &'a Values,
}

/// Every fault.
pub fn faults() -> impl Iterator<Item = &'static Fault> {
    [operators::TABLE, attributes::TABLE, faults::TABLE, answers::TABLE].into_iter().flatten()
}

/// What a correct backend may do otherwise than the reference.
pub struct Honest {
    pub name: &'static str,
    compute: fn(&Model, &LeafData, &mut Stream) -> Result<Option<Values>, Defect>,
}

/// A case, and the same with exceptional values among its data where it can be judged so.
pub fn with_lane(case: Case, seed: u64) -> Result<Vec<Case>, Defect> {
    let lane = case.vary(metamorphic::EXCEPTIONAL, seed)?;
    Ok([case].into_iter().chain(lane.map(|variant| *variant.case)).collect())
}

/// Every honest variation.
pub fn honest() -> &'static [Honest] {
    honest::TABLE
}

impl<'a> Subject<'a> {
    /// `left_over` are outputs of another case.
    pub fn new(case: &'a Case, left_over: &'a [TensorData], seed: u64) -> Result<Subject<'a>, Defect> {
        let declared = reference::run(&case.model, &case.data, Precision::Declared)?;
        let honest = reference::outputs(&case.model, &declared);
        Ok(Subject { case, declared, honest, left_over, stream: Stream::new(seed) })
    }

    /// The answer with a fault; None where there is nothing to get wrong.
    pub fn faulty(&mut self, fault: &Fault) -> Option<Answer> {
        match fault.inject {
            Inject::Model(change) => {
                let (mut model, mut data) = (self.case.model.clone(), self.case.data.clone());
                change(&mut model, &mut data, &mut self.stream)?;
                // A changed model may be no legal one, or have other shapes, and `eval` need not take it.
                let computed = crate::backend::isolate(|| Ok(reference::run(&model, &data, Precision::Declared)));
                Some(Ok(reference::outputs(&model, &computed.ok()?.ok()?)))
            }
            Inject::Result(change) => self.with_result(change).map(Ok),
            Inject::Answer(change) => change(self),
        }
    }

    fn with_result(
        &mut self,
        change: fn(&Place, &TensorData, &mut Stream) -> Option<TensorData>,
    ) -> Option<Vec<TensorData>> {
        let model = &self.case.model;
        let first = self.stream.below(model.nodes.len() as u64) as usize;
        // The first from a random one on that can be got wrong.
        let mut order = (first..model.nodes.len()).chain(0..first);
        let (node, changed) = order.find_map(|node| {
            let value = model.nodes[node].outputs[0];
            let result = reference::to_data(self.declared[value].as_ref()?, model.values[value].dtype);
            let place = Place { node: &model.nodes[node], values: &self.declared };
            Some((node, change(&place, &result, &mut self.stream)?))
        })?;
        let mut values: Values =
            self.declared.iter().map(|value| value.as_ref().map(|it| it.shallow_clone())).collect();
        values[model.nodes[node].outputs[0]] = Some(reference::to_tensor(&changed, false));
        let computed = crate::backend::isolate(|| {
            let rest = model.nodes[node + 1..].iter().try_for_each(|node| {
                let results = reference::run_node(model, node, &values, Precision::Declared)?;
                node.outputs.iter().zip(results).for_each(|(&output, result)| values[output] = Some(result));
                Ok::<_, Defect>(())
            });
            Ok(rest.map(|()| reference::outputs(model, &values)))
        });
        computed.ok()?.ok()
    }

    /// The answer of a correct backend that computes otherwise; None where it would compute the same.
    pub fn varied(&mut self, honest: &Honest) -> Result<Option<Answer>, Defect> {
        let values = (honest.compute)(&self.case.model, &self.case.data, &mut self.stream)?;
        Ok(values.map(|values| Ok(reference::outputs(&self.case.model, &values))))
    }

    /// Whether an answer differs from the honest one, and whether by more than two correct backends could differ: an
    /// element that is judged is further away than twice its bound.
    pub fn difference(&self, answer: &Answer) -> (bool, bool) {
        let Ok(outputs) = answer else { return (true, true) };
        let form = |outputs: &[TensorData]| outputs.iter().map(|it| (it.dtype, it.shape.clone())).collect::<Vec<_>>();
        if form(outputs) != form(&self.honest) {
            return (true, true);
        }
        let (mut changed, mut noticeable) = (false, false);
        for ((honest, faulty), expected) in self.honest.iter().zip(outputs).zip(&self.case.expectation.outputs) {
            if honest.bytes == faulty.bytes {
                continue;
            }
            for (i, (honest, faulty)) in honest.to_f64().into_iter().zip(faulty.to_f64()).enumerate() {
                let allowed = expected.allowed.get(i).copied().unwrap_or(0.0);
                // Unequal also where one is a NaN, which is within no bound.
                let differs = !(honest == faulty || honest.is_nan() && faulty.is_nan());
                changed |= differs && allowed.is_finite();
                noticeable |= differs && allowed.is_finite() && !(honest - faulty).abs().le(&(2.0 * allowed));
            }
        }
        (changed, noticeable)
    }
}

/// What became of one fault over many cases.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Score {
    /// Cases with something to get wrong.
    pub injected: usize,
    /// Answers that differ from the honest one in an element that is judged.
    pub changed: usize,
    /// Those that no two correct backends could differ by.
    pub noticeable: usize,
    /// Noticeable answers that were called wrong.
    pub caught: usize,
}

impl Score {
    pub fn add(&mut self, subject: &Subject, answer: &Answer) {
        let (changed, noticeable) = subject.difference(answer);
        let caught = subject.case.expectation.judge(answer).is_some();
        self.injected += 1;
        self.changed += usize::from(changed);
        self.noticeable += usize::from(noticeable);
        self.caught += usize::from(noticeable && caught);
    }
}

/// One entry of a table, by a number.
fn pick<'a, T>(candidates: &'a [T], stream: &mut Stream) -> Option<&'a T> {
    (!candidates.is_empty()).then(|| &candidates[stream.below(candidates.len() as u64) as usize])
}
