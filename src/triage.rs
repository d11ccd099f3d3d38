//! What a difference comes down to: the operator that alone shows it, and a report.

use crate::backend::{Backend, Level};
use crate::case::Case;
use crate::model::{Leaf, LeafData, Model, Value};
use crate::oracle::{Kind, Wrong, exceptional};
use crate::reference::{self, Defect, Precision, Values};
use crate::search;
use crate::spec::{Domain, Role};

/// The part of a model that shows a difference.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// The index of the node in the model.
    pub node: usize,
    pub wrong: Wrong,
}

/// The first node that alone, on the values it gets in the case, is answered wrongly in the same kind by this backend at
/// this level, in a way that is not `known`. None when the difference needs several nodes, as wrong fusions do.
pub fn culprit(
    case: &Case,
    backend: &dyn Backend,
    level: Level,
    kind: Kind,
    known: impl Fn(&Wrong, &Model) -> bool,
) -> Result<Option<Culprit>, Defect> {
    for node in 0..case.model.nodes.len() {
        let (model, data) = extract(&case.model, node, &case.wide);
        let wide = reference::run(&model, &data, Precision::Wide)?;
        // Rounding what flows in to its declared type may have moved it over a guard.
        let judgeable = || exceptional::is_judgeable(&model, &data, &wide);
        if !search::is_valid(&model, &wide)? && !judgeable()? {
            continue;
        }
        let case = Case::with_data(model, data, wide)?;
        let inputs = case.model.input_data(&case.data);
        let result = backend.compile(&case.onnx, level).and_then(|mut session| session.run(&inputs));
        let fits = |wrong: &Wrong| wrong.kind() == kind && !known(wrong, &case.model);
        if let Some(wrong) = case.expectation.judge_each(&result).into_iter().find(fits) {
            return Ok(Some(Culprit { node, wrong }));
        }
    }
    Ok(None)
}

/// The model of one node alone. What it uses becomes leaves holding the values of `wide`, constants stay constants.
pub fn extract(model: &Model, node: usize, wide: &Values) -> (Model, LeafData) {
    let node = &model.nodes[node];
    let mut part = Model { opset: model.opset, symbolic: model.symbolic, ..Model::default() };
    let mut data = LeafData::new();
    let mut renamed: Vec<Option<usize>> = vec![None; model.values.len()];
    let add = |part: &mut Model, value: usize| {
        part.values.push(model.values[value].clone());
        part.values.len() - 1
    };
    for &value in node.operands.iter().flatten() {
        if renamed[value].is_some() {
            continue;
        }
        let index = add(&mut part, value);
        renamed[value] = Some(index);
        let leaf = model.leaves.iter().find(|leaf| leaf.value == value);
        let role = leaf.map_or(Role::Input, |leaf| leaf.role);
        let content = leaf.and_then(|leaf| leaf.content.clone());
        let domain = leaf.map_or(Domain::Any, |leaf| leaf.domain);
        let constant_node = leaf.is_some_and(|leaf| leaf.constant_node);
        let tensor = wide[value].as_ref().expect("every value was computed");
        data.push(content.clone().unwrap_or_else(|| reference::to_data(tensor, model.values[value].dtype)));
        part.leaves.push(Leaf { value: index, role, domain, content, constant_node });
    }
    let mut alone = node.clone();
    alone.operands = node.operands.iter().map(|operand| operand.and_then(|value| renamed[value])).collect();
    alone.outputs = node.outputs.iter().map(|&value| add(&mut part, value)).collect();
    let written = |value: &&usize| !part.values[**value].name.is_empty();
    part.outputs = alone.outputs.iter().filter(written).copied().collect();
    part.nodes.push(alone);
    (part, data)
}

/// `Conv f32[1,3,8,8] f32[4,3,3,3]`: a node as a signature names it.
pub fn describe_node(model: &Model, node: usize) -> String {
    let node = &model.nodes[node];
    let ty = |value: usize| {
        let Value { dtype, shape, .. } = &model.values[value];
        format!("{dtype}{shape:?}").replace(' ', "")
    };
    let operands: Vec<String> = node.operands.iter().map(|operand| operand.map_or("-".to_owned(), ty)).collect();
    format!("{} {}", node.spec.name, operands.join(" "))
}
