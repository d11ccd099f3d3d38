//! Plainer attributes, element types and values.

use super::draft::Form;
use super::{Search, Trust};
use crate::case::Case;
use crate::dtype::DType;
use crate::oracle::exceptional;
use crate::reference::Values;
use crate::spec::Attribute;
use crate::tensor::TensorData;

/// Attributes without a default: a node without them is not legal. An operator, or any where it is empty.
const REQUIRED: &[(&str, &str)] = &[
    ("", "equation"),
    ("", "blocksize"),
    ("", "to"),
    ("", "kernel_shape"),
    ("", "num_groups"),
    ("", "hidden_size"),
    ("Concat", "axis"),
    ("BitShift", "direction"),
    ("LRN", "size"),
    ("MaxRoiPool", "pooled_shape"),
];

/// The plainest first.
const PLAIN_TYPES: &[DType] = &[DType::F32, DType::I64, DType::I32];

/// Pieces of a tensor that are made plain one by one.
const PIECES: usize = 32;

impl Search<'_> {
    pub fn least_attributes(&mut self, mut case: Case) -> Case {
        self.least_operands(&mut case);
        for node in 0..case.model.nodes.len() {
            let names: Vec<String> =
                case.model.nodes[node].attributes.iter().map(|(name, _)| name.to_string()).collect();
            for name in names {
                if !self.without_attribute(&mut case, node, &name) {
                    self.plainer_attribute(&mut case, node, &name);
                }
            }
        }
        self.plain_types(&mut case);
        case
    }

    fn without_attribute(&mut self, case: &mut Case, node: usize, name: &str) -> bool {
        // Plain values may not show what other values show.
        !is_required(case.model.nodes[node].spec.name, name)
            && RESAMPLED.iter().any(|&seed| {
                self.edit(case, Trust::Confirm, &|form, _| {
                    let attributes = &mut form.model.nodes[node].attributes;
                    attributes.retain(|(written, _)| written != name);
                    seed.is_none_or(|seed| resample(form, seed))
                })
            })
    }

    fn plainer_attribute(&mut self, case: &mut Case, node: usize, name: &str) {
        let value = |case: &Case| {
            let found = case.model.nodes[node].attributes.iter().find(|(written, _)| written == name);
            found.map(|(_, value)| value.clone())
        };
        let Some(old) = value(case).filter(|_| !names_type(name)) else { return };
        let required = is_required(case.model.nodes[node].spec.name, name);
        let zero = |value: &Attribute<i64>| match value {
            Attribute::Int(value) => *value == 0,
            Attribute::Ints(values) => values.contains(&0),
            _ => false,
        };
        // Sizes and counts have no default, and 0 is none.
        for plain in plainer(&old).into_iter().filter(|plain| !(required && zero(plain))) {
            let set = |form: &mut Form| {
                let attributes = &mut form.model.nodes[node].attributes;
                attributes
                    .iter_mut()
                    .filter(|(written, _)| written == name)
                    .for_each(|(_, value)| *value = plain.clone());
                true
            };
            if self.edit(case, Trust::Confirm, &|form, _| set(form)) {
                break;
            }
        }
    }

    /// Leaves out optional and repeated operands.
    fn least_operands(&mut self, case: &mut Case) {
        for node in 0..case.model.nodes.len() {
            for slot in (1..case.model.nodes[node].operands.len()).rev() {
                let absent = |form: &mut Form| {
                    let operands = &mut form.model.nodes[node].operands;
                    operands[slot] = None;
                    while operands.last().is_some_and(Option::is_none) {
                        operands.pop();
                    }
                };
                let removed = |form: &mut Form| {
                    form.model.nodes[node].operands.remove(slot);
                };
                let edits: [&dyn Fn(&mut Form); 2] = [&absent, &removed];
                for edit in edits {
                    let present = case.model.nodes[node].operands.get(slot).is_some_and(Option::is_some);
                    if present
                        && self.edit(case, Trust::Confirm, &|form, _| {
                            edit(form);
                            super::graph::prune(form);
                            true
                        })
                    {
                        break;
                    }
                }
            }
        }
    }

    /// f32 in place of other types, then i64, then i32: of all values of one type, or of a leaf and what follows from it.
    fn plain_types(&mut self, case: &mut Case) {
        for from in DType::ALL.into_iter().filter(|&from| from != DType::F32 && from != DType::Bool) {
            for &to in PLAIN_TYPES.iter().take_while(|&&to| to != from) {
                if case.model.values.iter().any(|value| value.dtype == from) {
                    self.edit(case, Trust::Confirm, &|form, _| retype(form, from, to, None));
                }
            }
        }
        for leaf in 0..case.model.leaves.len() {
            let from = case.data[leaf].dtype;
            if from == DType::Bool {
                continue;
            }
            for &to in PLAIN_TYPES.iter().take_while(|&&to| to != from) {
                let one =
                    |follows: bool| move |form: &mut Form, _: &Values| retype(form, from, to, Some((leaf, follows)));
                if self.edit(case, Trust::Confirm, &one(true)) || self.edit(case, Trust::Confirm, &one(false)) {
                    break;
                }
            }
        }
    }

    /// 0, 1 and small numbers in place of others, in whole tensors first.
    pub fn least_values(&mut self, mut case: Case) -> Case {
        for leaf in 0..case.model.leaves.len() {
            if case.model.leaves[leaf].content.is_some() {
                continue;
            }
            for plain in PLAIN {
                let length = case.data[leaf].len();
                self.plainer_values(&mut case, leaf, 0..length, *plain);
            }
        }
        case
    }

    /// Makes all elements of a range plain, or those of its halves.
    fn plainer_values(&mut self, case: &mut Case, leaf: usize, range: std::ops::Range<usize>, plain: Plain) {
        let change = |form: &mut Form| {
            let data = &mut form.data[leaf];
            let mut values = data.to_f64();
            values[range.clone()].iter_mut().for_each(|value| *value = plain(*value));
            let plainer = TensorData::from_f64(data.dtype, &data.shape, &values);
            let changed = plainer != *data;
            *data = plainer;
            changed
        };
        let (length, least) = (range.len(), case.data[leaf].len().div_ceil(PIECES));
        let mut probe = Form::of(case);
        if length == 0 || !change(&mut probe) || self.edit(case, Trust::Legal, &|form, _| change(form)) {
            return;
        }
        if length > least {
            let middle = range.start + length / 2;
            self.plainer_values(case, leaf, range.start..middle, plain);
            self.plainer_values(case, leaf, middle..range.end, plain);
        }
    }
}

/// The data that a model with other sizes or attributes is tried with: the old ones, then others.
pub const RESAMPLED: [Option<u64>; 3] = [None, Some(1), Some(2)];

/// Gives every leaf whose content is free other data; false where none is, or where they are exceptional.
pub fn resample(form: &mut Form, seed: u64) -> bool {
    if form.model.leaves.iter().all(|leaf| leaf.content.is_some()) || exceptional::concerns(&form.data) {
        return false;
    }
    for (leaf, data) in form.model.leaves.iter().zip(&form.data) {
        form.model.values[leaf.value].shape.clone_from(&data.shape);
    }
    form.data = form.model.sample(seed, 0);
    true
}

type Plain = fn(f64) -> f64;

/// From the plainest on. Each leaves a plainer value as it is.
const PLAIN: &[Plain] = &[
    |_| 0.0,
    |value| if value == 0.0 { 0.0 } else { 1.0 },
    |value| if value == 0.0 { 0.0 } else { value.signum() },
    |value| if value.abs() <= 1.0 && value == value.round() { value } else { value.signum() * 2.0 },
    |value| if value.abs() <= 9.0 { value.round() } else { value.signum() * 9.0 },
    |value| if value.abs() < 1e15 { value.round() } else { value },
    |value| (value * 8.0).round() / 8.0,
];

/// Whether a node without the attribute is not legal.
pub fn is_required(operator: &str, attribute: &str) -> bool {
    REQUIRED.iter().any(|(of, name)| *name == attribute && (of.is_empty() || *of == operator))
}

/// Whether an attribute holds the code of an element type.
pub fn names_type(attribute: &str) -> bool {
    matches!(
        attribute,
        "to" | "dtype" | "output_dtype" | "output_datatype" | "stash_type" | "softmax_precision" | "precision"
    )
}

/// Plainer values of an attribute, the plainest first.
fn plainer(value: &Attribute<i64>) -> Vec<Attribute<i64>> {
    match value {
        Attribute::Int(value) => (0..=2).filter(|plain| plain < value).map(Attribute::Int).collect(),
        Attribute::Ints(values) => {
            let all = |plain: i64| vec![plain; values.len()];
            let mut lists = vec![all(0), all(1)];
            for index in 0..values.len() {
                for plain in [0, 1, 2] {
                    let mut list = values.clone();
                    list[index] = plain;
                    lists.push(list);
                }
            }
            let total = |list: &[i64]| list.iter().map(|value| value.unsigned_abs()).sum::<u64>();
            lists.retain(|list| total(list) < total(values));
            lists.into_iter().map(Attribute::Ints).collect()
        }
        Attribute::Float(value) => [0.0, 1.0, 2.0, value.round()]
            .into_iter()
            .take_while(|plain| plain != value)
            .map(Attribute::Float)
            .collect(),
        _ => Vec::new(),
    }
}

/// Values of one type become values of another: all of them, or those of one leaf and, where they follow from it, of nodes.
fn retype(form: &mut Form, from: DType, to: DType, one: Option<(usize, bool)>) -> bool {
    let model = &mut form.model;
    let concerned = |leaf: usize| one.is_none_or(|(only, _)| only == leaf);
    let mut changed = vec![one.is_none_or(|(_, follows)| follows); model.values.len()];
    for (index, leaf) in model.leaves.iter().enumerate() {
        changed[leaf.value] = concerned(index);
    }
    let of_type = model.values.iter_mut().zip(&changed).filter(|(value, changed)| **changed && value.dtype == from);
    of_type.for_each(|(value, _)| value.dtype = to);
    for (index, (leaf, data)) in model.leaves.iter_mut().zip(&mut form.data).enumerate() {
        if concerned(index) && data.dtype == from {
            *data = TensorData::from_f64(to, &data.shape, &data.to_f64());
            leaf.content = leaf.content.as_ref().map(|_| data.clone());
        }
    }
    let code = |dtype: DType| i64::from(dtype.onnx_code());
    for (name, attribute) in model.nodes.iter_mut().flat_map(|node| &mut node.attributes) {
        if names_type(name) && one.is_none() && *attribute == Attribute::Int(code(from)) {
            *attribute = Attribute::Int(code(to));
        }
    }
    true
}
