//! A case that is being changed: models with data whose sizes and values are not settled yet.

use crate::backend::{Failure, isolate};
use crate::case::Case;
use crate::dtype::DType;
use crate::metamorphic::Axis;
use crate::model::{LeafData, Model};
use crate::oracle::exceptional;
use crate::reference::{self, Precision, Values};
use crate::schema;
use crate::search;
use crate::spec::{Domain, args::kind_of};
use crate::tensor::TensorData;
use sha1::{Digest, Sha1};

/// The most elements that one value of a changed model may have: a change that lets a model grow is of no use.
const MOST_ELEMENTS: i64 = 1 << 18;

/// A model with data.
#[derive(Clone)]
pub struct Form {
    pub model: Model,
    pub data: LeafData,
}

/// What a case is made from.
#[derive(Clone)]
pub struct Draft {
    pub first: Form,
    /// See [`Case::again`].
    pub again: Option<Form>,
    /// See [`Case::setting`].
    pub setting: Option<&'static Axis>,
}

/// How large a draft is; less is better from left to right.
pub type Size = (usize, usize, usize);

impl Form {
    pub fn of(case: &Case) -> Form {
        Form { model: case.model.clone(), data: case.data.clone() }
    }

    /// Computes every value, and gives values the sizes that they then have. None where the model is not legal, or the
    /// data are not valid.
    fn settle(mut self) -> Option<(Form, Values)> {
        let model = &mut self.model;
        if model.nodes.is_empty() || !domains_hold(model, &self.data) {
            return None;
        }
        let mut values: Values = (0..model.values.len()).map(|_| None).collect();
        for (leaf, data) in model.leaves.iter().zip(&self.data) {
            model.values[leaf.value].shape.clone_from(&data.shape);
            values[leaf.value] = Some(reference::to_tensor(data, true));
        }
        for index in 0..model.nodes.len() {
            let node = &model.nodes[index];
            if !types_are_legal(model, index) {
                return None;
            }
            let outputs = (node.spec.eval)(&reference::args(model, node, &values, Precision::Wide)).ok()?;
            if outputs.len() != node.outputs.len() {
                return None;
            }
            for (value, output) in node.outputs.clone().into_iter().zip(outputs) {
                let declared = &mut model.values[value];
                let elements: i64 = output.size().iter().product();
                if elements > MOST_ELEMENTS || output.kind() != kind_of(declared.dtype, true) {
                    return None;
                }
                declared.shape = output.size().iter().map(|&size| size as usize).collect();
                values[value] = Some(output);
            }
        }
        let valid = if exceptional::concerns(&self.data) {
            exceptional::is_judgeable(model, &self.data, &values).ok()? && search::integers_fit(model, &values).ok()?
        } else {
            search::is_valid(model, &values).ok()?
        };
        valid.then_some((self, values))
    }

    fn case(self) -> Option<Case> {
        // On a model that is not legal the specification of an operator may panic.
        let case = isolate(|| {
            let settled = self.settle().ok_or(Failure::TimedOut)?;
            let (form, wide) = settled;
            Case::with_data(form.model, form.data, wide).map_err(|_| Failure::TimedOut)
        });
        case.ok()
    }
}

impl Draft {
    pub fn of(case: &Case) -> Draft {
        Draft { first: Form::of(case), again: case.again.as_deref().map(Form::of), setting: case.setting }
    }

    /// The case, if the draft is legal and its data are valid.
    pub fn case(self) -> Option<Case> {
        let mut case = self.first.case()?;
        if let Some(again) = self.again {
            let again = again.case()?;
            if again.onnx != case.onnx {
                return None;
            }
            case.again = Some(Box::new(again));
        }
        case.setting = self.setting;
        Some(case)
    }

    /// Both forms, where there are two.
    pub fn forms(&mut self) -> impl Iterator<Item = &mut Form> {
        std::iter::once(&mut self.first).chain(&mut self.again)
    }
}

/// Operators; control flow and ways to say the model otherwise; elements, operands and attributes.
pub fn size(case: &Case) -> Size {
    let model = &case.model;
    let forms = model.regions.len()
        + usize::from(model.symbolic)
        + usize::from(case.again.is_some())
        + usize::from(case.setting.is_some())
        + model.leaves.iter().filter(|leaf| leaf.constant_node).count();
    let elements: usize = case.data.iter().map(TensorData::len).sum();
    let written: usize = model.nodes.iter().map(|node| node.attributes.len() + node.operands.len()).sum();
    (model.nodes.len(), forms, elements + written + model.outputs.len())
}

/// Tells cases apart by all that backends are given.
pub fn fingerprint(case: &Case) -> [u8; 20] {
    let mut hash = Sha1::new();
    for case in std::iter::once(case).chain(case.again.as_deref()) {
        hash.update(&case.onnx);
        case.model.inputs().for_each(|(index, _)| hash.update(&case.data[index].bytes));
    }
    hash.update([u8::from(case.setting.is_some())]);
    hash.finalize().into()
}

fn types_are_legal(model: &Model, node: usize) -> bool {
    let node = &model.nodes[node];
    let dtype = |value: usize| model.values[value].dtype;
    let Some(signature) = schema::signature(node.spec.name, model.opset) else { return false };
    let written = |value: &&usize| !model.values[**value].name.is_empty();
    let outputs = || node.outputs.iter().take_while(written).map(|&value| dtype(value));
    signature.allows(node.operands.iter().map(|operand| operand.map(dtype)), outputs())
}

fn domains_hold(model: &Model, data: &LeafData) -> bool {
    model.leaves.iter().zip(data).all(|(leaf, data)| {
        let all = |fits: &dyn Fn(f64) -> bool| data.to_f64().into_iter().all(fits);
        match leaf.domain {
            Domain::Any => true,
            Domain::NonZero => all(&|value| value != 0.0),
            Domain::Index(bound) => all(&|value| value >= -bound as f64 && value < bound as f64),
            Domain::Between(low, high) => all(&|value| value >= low as f64 && value <= high as f64),
            Domain::Range(low, high) => {
                // A bound such as the square root of 2 may be rounded outwards in the declared type.
                let bounds = TensorData::from_f64(data.dtype, &[2], &[low, high]).to_f64();
                all(&|value| value >= bounds[0] && value <= bounds[1])
            }
        }
    })
}

/// The values of a case in the declared types, for an edit that captures one.
pub fn captured(wide: &Values, value: usize, dtype: DType) -> Option<TensorData> {
    Some(reference::to_data(wide[value].as_ref()?, dtype))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph;
    use crate::input;

    /// No edit of a case would ever be legal that is not so as it was drawn.
    #[test]
    fn cases_are_legal_as_they_were_drawn() {
        let _no_grad = reference::init();
        let mut ranges = 0;
        for seed in 0..600 {
            let input = input::random(seed, 8);
            let built = Case::build(&input).expect("the reference follows its specification");
            let Ok(case) = built else { continue };
            ranges += case.model.leaves.iter().filter(|leaf| matches!(leaf.domain, Domain::Range(..))).count();
            let again = Draft::of(&case).case();
            assert!(again.is_some_and(|again| again.onnx == case.onnx), "seed {seed}:\n{}", graph::text(&case.model));
        }
        assert!(ranges >= 100, "only {ranges} leaves have a range");
    }
}
