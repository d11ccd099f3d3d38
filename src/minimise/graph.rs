//! Edits of the graph. Each leaves the model whole, and says whether it has changed anything.

use super::draft::{Form, captured};
use super::{Search, Trust};
use crate::case::Case;
use crate::dtype::DType;
use crate::model::{Control, Leaf, Model, Region, Value};
use crate::oracle::exceptional;
use crate::reference::Values;
use crate::spec::{Domain, Role};
use crate::tensor::TensorData;

/// Earlier values that are tried in place of a node's result.
const MOST_STAND_INS: usize = 6;

/// Makes these values the only outputs, and removes what does not lead to them.
fn keep_outputs(form: &mut Form, outputs: Vec<usize>) -> bool {
    let model = &form.model;
    let hidden = |value: &usize| {
        let node = producer(model, *value);
        let region = node.and_then(|node| repeat(model, node));
        node.is_none() || region.is_some_and(|region| !region.outputs(model).contains(value))
    };
    if outputs.is_empty() || outputs.iter().any(hidden) || outputs == form.model.outputs {
        return false;
    }
    form.model.outputs = outputs;
    prune(form);
    true
}

/// Replaces a value by a leaf that holds what the reference computed for it.
fn cut(form: &mut Form, value: usize, wide: &Values, role: Role) -> bool {
    let model = &mut form.model;
    let Some(node) = producer(model, value) else { return false };
    let dtype = model.values[value].dtype;
    let used = model.nodes.iter().any(|node| node.operands.contains(&Some(value)));
    if model.outputs.contains(&value) || !used {
        return false;
    }
    let inside = repeat(model, node).is_some();
    let Some(data) = captured(wide, value, dtype) else { return false };
    // Exceptional values are no weights: see the axis that plants them.
    if role != Role::Input && exceptional::concerns(std::slice::from_ref(&data)) {
        return false;
    }
    let spare = Value { name: format!("{}_unused", model.values[value].name), ..model.values[value].clone() };
    model.values.push(spare);
    let spare = model.values.len() - 1;
    model.nodes[node].outputs.iter_mut().filter(|output| **output == value).for_each(|output| *output = spare);
    // What the specification of an operator reads while the graph is made is a constant with known content.
    let content = (role == Role::Constant).then(|| data.clone());
    model.leaves.push(Leaf { value, role, domain: Domain::Any, content, constant_node: false });
    form.data.push(data);
    let regions = form.model.regions.len();
    prune(form);
    // The iterations of a loop are only whole together.
    !inside || form.model.regions.len() < regions
}

/// The role of a captured value that is to be a constant.
fn constant_role(dtype: DType) -> Role {
    if dtype.is_float() { Role::Initializer } else { Role::Constant }
}

/// Values before a node that may stand for its result, the first of the model first.
fn stand_ins(model: &Model, node: usize) -> Vec<usize> {
    let Some(&from) = model.nodes[node].outputs.first() else { return Vec::new() };
    let leaves = model.leaves.iter().map(|leaf| leaf.value);
    let earlier = leaves.chain(model.nodes[..node].iter().flat_map(|node| node.outputs.iter().copied()));
    let same = |value: &usize| {
        let (one, other) = (&model.values[from], &model.values[*value]);
        one.dtype == other.dtype && one.shape == other.shape && !other.name.is_empty()
    };
    let hidden = |value: &usize| producer(model, *value).is_some_and(|node| repeat(model, node).is_some());
    earlier.filter(same).filter(|value| !hidden(value)).take(MOST_STAND_INS).collect()
}

/// Lets what uses a node's first result use an earlier value of the same type.
fn bypass(form: &mut Form, node: usize, to: usize) -> bool {
    let model = &mut form.model;
    let Some(&from) = model.nodes[node].outputs.first() else { return false };
    if repeat(model, node).is_some() || (model.outputs.contains(&from) && producer(model, to).is_none()) {
        return false;
    }
    let replace = |value: &mut usize| {
        if *value == from {
            *value = to;
        }
    };
    model.nodes.iter_mut().flat_map(|node| node.operands.iter_mut().flatten()).for_each(replace);
    model.outputs.iter_mut().for_each(replace);
    let mut seen = Vec::new();
    model.outputs.retain(|value| {
        !seen.contains(value) && {
            seen.push(*value);
            true
        }
    });
    model.regions.iter_mut().for_each(|region| renumber(region, &|value| if value == from { to } else { value }));
    prune(form);
    true
}

/// Takes the nodes of a region out of it.
fn inline(form: &mut Form, region: usize) -> bool {
    if region >= form.model.regions.len() {
        return false;
    }
    form.model.regions.remove(region);
    prune(form);
    true
}

fn producer(model: &Model, value: usize) -> Option<usize> {
    model.nodes.iter().position(|node| node.outputs.contains(&value))
}

/// The loop that a node is in.
fn repeat(model: &Model, node: usize) -> Option<&Region> {
    let holds = |region: &&Region| matches!(region.control, Control::Repeat(_)) && region.nodes.contains(&node);
    model.regions.iter().find(holds)
}

/// Removes nodes, leaves and values that lead to no output.
pub fn prune(form: &mut Form) {
    let (kept, live) = reaching(&form.model);
    let model = &mut form.model;
    let mut place = vec![usize::MAX; model.values.len()];
    let mut values = Vec::new();
    for (value, live) in live.iter().enumerate() {
        if *live {
            place[value] = values.len();
            values.push(model.values[value].clone());
        }
    }
    let before = |node: usize| kept[..node].iter().filter(|kept| **kept).count();
    model.regions.retain(|region| region.nodes.clone().any(|node| kept[node]));
    for region in &mut model.regions {
        region.nodes = before(region.nodes.start)..before(region.nodes.end);
        if let Control::Repeat(repeat) = &mut region.control {
            repeat.bodies.iter_mut().flatten().for_each(|node| *node = before(*node));
        }
        renumber(region, &|value| place[value]);
    }
    let mut keep = kept.iter();
    model.nodes.retain(|_| *keep.next().expect("one for each node"));
    for node in &mut model.nodes {
        let all = node.operands.iter_mut().flatten().chain(&mut node.outputs);
        all.for_each(|value| *value = place[*value]);
    }
    model.outputs.iter_mut().for_each(|value| *value = place[*value]);
    let mut data: Vec<TensorData> = Vec::new();
    let mut leaves = Vec::new();
    for (leaf, elements) in model.leaves.drain(..).zip(form.data.drain(..)) {
        if live[leaf.value] {
            leaves.push(Leaf { value: place[leaf.value], ..leaf });
            data.push(elements);
        }
    }
    (model.values, model.leaves, form.data) = (values, leaves, data);
}

/// Which nodes lead to an output, and which values these use or compute.
fn reaching(model: &Model) -> (Vec<bool>, Vec<bool>) {
    let mut kept = vec![false; model.nodes.len()];
    let mut live = vec![false; model.values.len()];
    model.outputs.iter().for_each(|&output| live[output] = true);
    let mut next = model.nodes.len();
    while let Some(node) = next.checked_sub(1) {
        let region = model.regions.iter().find(|region| region.nodes.contains(&node));
        // The iterations of a loop are only whole together; of a branch each node stands alone.
        let group = match region {
            Some(region) if matches!(region.control, Control::Repeat(_)) => region.nodes.clone(),
            _ => node..node + 1,
        };
        next = group.start;
        if !model.nodes[group.clone()].iter().flat_map(|node| &node.outputs).any(|&output| live[output]) {
            continue;
        }
        kept[group.clone()].fill(true);
        for node in &model.nodes[group] {
            node.operands.iter().flatten().chain(&node.outputs).for_each(|&value| live[value] = true);
        }
        region.into_iter().flat_map(Region::operands).flatten().for_each(|value| live[value] = true);
    }
    (kept, live)
}

/// Changes the indices of all values that a region names.
fn renumber(region: &mut Region, place: &dyn Fn(usize) -> usize) {
    let mut change = |value: &mut usize| *value = place(*value);
    match &mut region.control {
        Control::If { condition, .. } => change(condition),
        Control::Repeat(repeat) => {
            repeat.trips.iter_mut().chain(&mut repeat.condition).for_each(&mut change);
            change(&mut repeat.initial);
            repeat.states.iter_mut().for_each(&mut change);
            if let Some((sequence, elements)) = &mut repeat.scanned {
                change(sequence);
                elements.iter_mut().for_each(&mut change);
            }
            if let Some((added, list)) = &mut repeat.collected {
                added.iter_mut().for_each(&mut change);
                change(list);
            }
        }
    }
}

impl Search<'_> {
    /// Fewer operators: the cone of the first wrong value, cut off from what it does not need.
    pub fn least_graph(&mut self, mut case: Case) -> Case {
        self.edit(&mut case, Trust::Legal, &|form, _| std::mem::take(&mut form.model.symbolic));
        self.edit(&mut case, Trust::Legal, &|form, _| {
            let nodes = form.model.leaves.iter_mut().filter(|leaf| leaf.constant_node);
            nodes.map(|leaf| leaf.constant_node = false).count() > 0
        });
        for region in (0..case.model.regions.len()).rev() {
            self.edit(&mut case, Trust::Legal, &|form, _| inline(form, region));
        }
        self.one_output(&mut case);
        let mut next = case.model.nodes.len();
        while let Some(node) = next.checked_sub(1) {
            for value in case.model.nodes[node].outputs.clone() {
                self.cut_off(&mut case, value);
            }
            next = node.min(case.model.nodes.len());
        }
        let mut next = case.model.nodes.len();
        while let Some(node) = next.checked_sub(1) {
            for value in stand_ins(&case.model, node) {
                if self.edit(&mut case, Trust::Legal, &|form, _| bypass(form, node, value)) {
                    break;
                }
            }
            next = node.min(case.model.nodes.len());
        }
        self.roles(&mut case);
        case
    }

    /// The first value whose cone shows the bug as the only output.
    fn one_output(&mut self, case: &mut Case) {
        let all: Vec<usize> = case.model.nodes.iter().flat_map(|node| node.outputs.iter().copied()).collect();
        for value in all {
            let named = !case.model.values[value].name.is_empty();
            if named && self.edit(case, Trust::Legal, &|form, _| keep_outputs(form, vec![value])) {
                return;
            }
        }
        // Several outputs, or none that is there already.
        for index in (0..case.model.outputs.len()).rev() {
            let mut fewer = case.model.outputs.clone();
            fewer.remove(index);
            self.edit(case, Trust::Legal, &|form, _| keep_outputs(form, fewer.clone()));
        }
    }

    /// An input in place of a value, or a constant.
    fn cut_off(&mut self, case: &mut Case, value: usize) {
        if value >= case.model.values.len() {
            return;
        }
        let constant = constant_role(case.model.values[value].dtype);
        for role in [Role::Input, constant] {
            if self.edit(case, Trust::Legal, &|form, wide| cut(form, value, wide, role)) {
                return;
            }
        }
    }

    /// Inputs in place of weights: what is known before the run is left as it is only where that matters.
    fn roles(&mut self, case: &mut Case) {
        for index in 0..case.model.leaves.len() {
            self.edit(case, Trust::Legal, &|form, _| {
                let leaf = &mut form.model.leaves[index];
                let weight = leaf.role == Role::Initializer && leaf.content.is_none();
                if weight {
                    leaf.role = Role::Input;
                }
                weight
            });
        }
    }
}

#[cfg(all(test, feature = "ort"))]
mod tests {
    use super::*;
    use crate::graph;
    use crate::harness::{Harness, Verdict};
    use crate::input;
    use crate::minimise::draft::Draft;
    use crate::reference;

    /// What every edit makes of models with control flow is taken by ONNX Runtime and others, and answered rightly.
    #[test]
    fn edits_keep_models_legal() {
        let _no_grad = reference::init();
        let mut harness = Harness::new().expect("every backend is there");
        let cases = (0..2000).filter_map(|seed| {
            let mut input = input::random(seed, 6);
            input.header[11] = 0;
            let case = Case::build(&input).expect("the reference follows its specification").ok()?;
            (!case.model.regions.is_empty()).then_some(case)
        });
        let mut done = [0; 4];
        for mut case in cases.take(6) {
            case.again = None;
            for value in 0..case.model.values.len() {
                let node = producer(&case.model, value);
                let stand_in = node.and_then(|node| Some((node, *stand_ins(&case.model, node).first()?)));
                let edits: [&dyn Fn(&mut Form) -> bool; 4] = [
                    &|form| keep_outputs(form, vec![value]),
                    &|form| cut(form, value, &case.wide, Role::Input),
                    &|form| stand_in.is_some_and(|(node, other)| bypass(form, node, other)),
                    &|form| inline(form, value),
                ];
                for (edit, done) in edits.into_iter().zip(&mut done) {
                    let mut draft = Draft::of(&case);
                    if !edit(&mut draft.first) {
                        continue;
                    }
                    let Some(edited) = draft.case() else { continue };
                    let verdict = harness.judge(&edited).expect("the reference follows its specification");
                    if let Verdict::Bug(finding) = verdict {
                        panic!("{finding}\nmade of\n{}", graph::text(&case.model));
                    }
                    *done += 1;
                }
            }
        }
        assert!(done.iter().all(|&done| done >= 5), "hardly any edits were tried: {done:?}");
    }
}
