//! Plainer attributes, element types and values.

use super::draft::Form;
use super::{Search, Trust};
use crate::case::Case;
use crate::dtype::DType;
use crate::spec::Attribute;
use crate::tensor::TensorData;

/// Attributes without a default: a node without them is not legal. An operator, or any where it is empty.
const REQUIRED: &[(&str, &str)] = &[
    ("", "equation"),
    ("", "blocksize"),
    ("", "to"),
    ("", "kernel_shape"),
    ("", "num_groups"),
    ("Concat", "axis"),
    ("BitShift", "direction"),
    ("LRN", "size"),
    ("MaxRoiPool", "pooled_shape"),
];

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
        !is_required(case.model.nodes[node].spec.name, name)
            && self.edit(case, Trust::Confirm, &|form, _| {
                let attributes = &mut form.model.nodes[node].attributes;
                attributes.retain(|(written, _)| written != name);
                true
            })
    }

    fn plainer_attribute(&mut self, case: &mut Case, node: usize, name: &str) {
        let value = |case: &Case| {
            let found = case.model.nodes[node].attributes.iter().find(|(written, _)| written == name);
            found.map(|(_, value)| value.clone())
        };
        let Some(old) = value(case) else { return };
        for plain in plainer(&old) {
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

    /// f32 in place of other floats, and i64 or i32 in place of other integers.
    fn plain_types(&mut self, case: &mut Case) {
        for from in DType::ALL {
            let plain: &[DType] = match from {
                DType::F32 | DType::I64 | DType::Bool => continue,
                DType::I32 => &[DType::I64],
                float if float.is_float() => &[DType::F32],
                _ => &[DType::I64, DType::I32],
            };
            if !case.model.values.iter().any(|value| value.dtype == from) {
                continue;
            }
            for &to in plain {
                if self.edit(case, Trust::Confirm, &|form, _| retype(form, from, to)) {
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

/// Every value of one type becomes one of another.
fn retype(form: &mut Form, from: DType, to: DType) -> bool {
    let model = &mut form.model;
    model.values.iter_mut().filter(|value| value.dtype == from).for_each(|value| value.dtype = to);
    for (leaf, data) in model.leaves.iter_mut().zip(&mut form.data).filter(|(_, data)| data.dtype == from) {
        *data = TensorData::from_f64(to, &data.shape, &data.to_f64());
        leaf.content = leaf.content.as_ref().map(|_| data.clone());
    }
    let code = |dtype: DType| i64::from(dtype.onnx_code());
    for (name, attribute) in model.nodes.iter_mut().flat_map(|node| &mut node.attributes) {
        let names_type = matches!(&**name, "to" | "dtype" | "output_dtype" | "output_datatype");
        if names_type && *attribute == Attribute::Int(code(from)) {
            *attribute = Attribute::Int(code(to));
        }
    }
    true
}
