//! `known.toml`: live bugs of released backends, so that a run goes on past them to new ones.

use crate::backend::{Failure, Level};
use crate::dtype::DType;
use crate::model::{Control, Model, Node, Region};
use crate::oracle::{Kind, Wrong};
use crate::spec::{Attribute, Role};
use crate::tensor::TensorData;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

/// The committed list.
const BUILT_IN: &str = include_str!("known.toml");

/// The flags of this machine's processor, as Linux tells them.
static CPU_FLAGS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    flags.map(|(_, flags)| flags.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
});

/// One known issue. It explains a difference when backend, level, version and kind fit and the model has its pattern.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issue {
    /// Short and unique; what the counts are printed under.
    pub id: String,
    pub backend: String,
    /// The affected versions, such as `>=1.20, <=1.32`; all when absent.
    pub versions: Option<semver::VersionReq>,
    /// All when absent.
    pub level: Option<Level>,
    pub kinds: Vec<Kind>,
    /// A part of the text of a crash or a refusal, such as the source file of a panic.
    pub message: Option<String>,
    /// Operators that follow each other, each using a result of the one before it, with what must hold for each.
    /// What a wrong output is explained by must contribute to that output.
    pub chain: Vec<Pattern>,
    /// The chain begins at the operator whose output is wrong, and goes on behind it.
    #[serde(default)]
    pub behind: bool,
    /// The tracker's page, if it has one.
    pub link: Option<String>,
    /// What is wrong, with the sentence of the standard that says so.
    pub reason: String,
    /// Only in models with symbolic sizes.
    #[serde(default)]
    pub symbolic: bool,
    /// Only on machines with this flag in `/proc/cpuinfo`.
    pub cpu: Option<String>,
    /// The backend would take the whole process with it: it is not run at all on models with the pattern.
    #[serde(default)]
    pub fatal: bool,
}

/// What a node must look like. Everything left out fits anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// The operator, or several of which any fits; any at all when absent.
    pub operator: Option<Names>,
    /// The node may use a result of the one before it through other nodes.
    #[serde(default)]
    pub distant: bool,
    /// The element type of the first operand.
    pub dtypes: Option<Vec<String>>,
    /// The rank of the first operand.
    pub ranks: Option<Vec<usize>>,
    /// The element type of the first output.
    pub output_dtypes: Option<Vec<String>>,
    /// The rank of the first output.
    pub output_ranks: Option<Vec<usize>>,
    /// The node is in the body of such an operator: If, Loop or Scan.
    pub inside: Option<Names>,
    /// The node is in the branch of an If for this condition.
    pub taken: Option<bool>,
    /// Some operand or output has no elements.
    pub empty: Option<bool>,
    /// Broadcasting gives the output more dimensions than the first operand has.
    pub output_rank_grows: Option<bool>,
    /// How many operands are written.
    pub operands: Option<usize>,
    /// How many outputs are written.
    pub outputs: Option<usize>,
    /// What must hold of single operands.
    #[serde(default)]
    pub with: Vec<OperandPattern>,
    /// The first operand is broadcast: it has fewer elements than the first output.
    pub first_broadcast: Option<bool>,
    /// One of these attributes is left out.
    pub attributes_absent: Option<Vec<String>>,
    /// One of these attributes is written.
    pub attributes_present: Option<Vec<String>>,
    /// Some dimension of the second operand is shorter than that of the first, other than along the attribute `axis`.
    pub second_shorter_off_axis: Option<bool>,
    /// Some axis keeps its size although Resize is given a scale other than 1 for it, or a region that is not all of it.
    pub moved_axis_keeps_size: Option<bool>,
    /// Integer and text attributes with one of these values; a list attribute fits when any of its elements does.
    #[serde(default)]
    pub attributes: BTreeMap<String, Vec<toml::Value>>,
    /// Integer attributes none of whose elements may have one of these values; an absent one fits.
    #[serde(default)]
    pub attributes_not: BTreeMap<String, Vec<toml::Value>>,
    /// Text attributes with this part.
    #[serde(default)]
    pub attributes_containing: BTreeMap<String, String>,
    /// A term of the attribute `equation` has the same label twice: a diagonal.
    pub repeated_label: Option<bool>,
}

/// One name or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Names {
    One(String),
    Several(Vec<String>),
}

/// One index or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Indices {
    One(usize),
    Several(Vec<usize>),
}

/// What one operand must look like. Everything left out fits anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperandPattern {
    /// Its index, or several of which any fits.
    pub operand: Indices,
    pub present: Option<bool>,
    pub dtypes: Option<Vec<String>>,
    pub ranks: Option<Vec<usize>>,
    /// An operand that is left out is empty.
    pub empty: Option<bool>,
    /// An axis, counted from the end when negative, and its size.
    pub size: Option<(i64, usize)>,
    /// No graph input contributes to it, so that a compiler knows it.
    pub constant: Option<bool>,
    /// A node computes it.
    pub computed: Option<bool>,
    /// It is a constant that the specification fixed, and has an element below 0.
    pub negative: Option<bool>,
    /// It is such a constant, whose elements, as axes of the first operand counted from the front, do not ascend.
    pub unordered_axes: Option<bool>,
}

/// Why a list of known issues cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the known issues in {path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path} is not a list of known issues: {source}")]
    Syntax { path: String, source: toml::de::Error },
}

/// A list of known issues with how often each was met.
#[derive(Clone, Debug, Default)]
pub struct Known {
    issues: Vec<Issue>,
    met: Vec<usize>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    issue: Vec<Issue>,
}

impl Known {
    /// The text of the committed list.
    pub const TEXT: &str = BUILT_IN;

    /// The committed list.
    pub fn built_in() -> Result<Known, Error> {
        Known::parse(BUILT_IN, "known.toml")
    }

    pub fn read(path: &Path) -> Result<Known, Error> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: name.clone(), source })?;
        Known::parse(&text, &name)
    }

    fn parse(text: &str, path: &str) -> Result<Known, Error> {
        let file: File = toml::from_str(text).map_err(|source| Error::Syntax { path: path.to_owned(), source })?;
        Ok(Known { met: vec![0; file.issue.len()], issues: file.issue })
    }

    /// The issues with how often each was met.
    pub fn iter(&self) -> impl Iterator<Item = (&Issue, usize)> {
        self.issues.iter().zip(self.met.iter().copied())
    }

    /// The first issue that explains what is wrong, which is thereby met.
    pub fn explain(&mut self, at: Place, wrong: &Wrong, model: &Model) -> Option<&Issue> {
        let index = self.explaining(at, wrong, model)?;
        self.met[index] += 1;
        Some(&self.issues[index])
    }

    /// The index of the first issue that explains what is wrong.
    pub fn explaining(&self, at: Place, wrong: &Wrong, model: &Model) -> Option<usize> {
        let kind = wrong.kind();
        let output = match wrong {
            Wrong::Output(difference) => difference.output().map(|output| model.outputs[output]),
            Wrong::Failed(_) => None,
        };
        let part = output.map(|output| contributing(model, output));
        let part = part.as_ref().unwrap_or(model);
        let fits = |issue: &Issue| match output {
            Some(output) if issue.behind => issue.fits_from(model, |node| node.outputs.contains(&output)),
            _ => !issue.behind && issue.fits(part),
        };
        let explains = |issue: &Issue| issue.is_of(kind) && issue.applies(at) && issue.says(wrong) && fits(issue);
        self.issues.iter().position(explains)
    }

    /// The first fatal issue whose pattern the model has, which is thereby met: the backend must not be run.
    pub fn forbids(&mut self, at: Place, model: &Model) -> Option<&Issue> {
        let index = self.issues.iter().position(|issue| issue.fatal && issue.applies(at) && issue.fits(model))?;
        self.met[index] += 1;
        Some(&self.issues[index])
    }
}

/// A backend at a level.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub backend: &'a str,
    pub version: &'a str,
    pub level: Level,
}

impl Issue {
    /// Whether it shows in this way. Where values are wrong anyhow, some may be beyond what the operator can give.
    fn is_of(&self, kind: Kind) -> bool {
        let wider = if kind == Kind::BeyondRange { Kind::WrongValue } else { kind };
        self.kinds.contains(&kind) || self.kinds.contains(&wider)
    }

    fn applies(&self, at: Place) -> bool {
        let here = self.cpu.as_ref().is_none_or(|flag| CPU_FLAGS.contains(flag));
        here && self.backend == at.backend
            && self.level.is_none_or(|level| level == at.level)
            && self.affects(at.version)
    }

    /// Whether the issue is in this version of its backend.
    pub fn affects(&self, version: &str) -> bool {
        let matches = |range: &semver::VersionReq| semver::Version::parse(version).is_ok_and(|it| range.matches(&it));
        self.versions.as_ref().is_none_or(matches)
    }

    /// Whether a crash has the text. A panic's source line tells crashes of one operator apart, as a stack frame would.
    fn says(&self, wrong: &Wrong) -> bool {
        self.message.as_ref().is_none_or(|part| match wrong {
            Wrong::Failed(Failure::Crashed(message) | Failure::Refused(message)) => message.contains(part),
            _ => false,
        })
    }

    /// Whether the pattern occurs in the model.
    pub fn fits(&self, model: &Model) -> bool {
        self.fits_from(model, |_| true)
    }

    /// Whether the pattern occurs in the model and begins at such a node.
    fn fits_from(&self, model: &Model, begins: impl Fn(&Node) -> bool) -> bool {
        let Some((first, rest)) = self.chain.split_first() else { return false };
        if self.symbolic && !model.symbolic {
            return false;
        }
        let begins = |node: &&Node| begins(node) && first.fits(model, node);
        let mut reached: Vec<&Node> = model.nodes.iter().filter(begins).collect();
        for pattern in rest {
            let before: Vec<usize> = reached.iter().flat_map(|node| node.outputs.iter().copied()).collect();
            let before = if pattern.distant { downstream(model, before) } else { before };
            let follows = |node: &&Node| {
                pattern.fits(model, node) && node.operands.iter().flatten().any(|value| before.contains(value))
            };
            reached = model.nodes.iter().filter(follows).collect();
        }
        !reached.is_empty()
    }
}

impl Pattern {
    pub fn fits(&self, model: &Model, node: &Node) -> bool {
        let first = node.operands.first().copied().flatten().map(|value| &model.values[value]);
        let all = || node.operands.iter().flatten().chain(&node.outputs).map(|&value| &model.values[value]);
        let dtype_fits = |wanted: &Option<Vec<String>>, dtype: Option<DType>| {
            wanted.as_ref().is_none_or(|names| dtype.is_some_and(|dtype| names.iter().any(|name| name == dtype.name())))
        };
        self.operator.as_ref().is_none_or(|names| names.include(node.spec.name))
            && dtype_fits(&self.dtypes, first.map(|value| value.dtype))
            && dtype_fits(&self.output_dtypes, node.outputs.first().map(|&value| model.values[value].dtype))
            && self.ranks.as_ref().is_none_or(|ranks| first.is_some_and(|value| ranks.contains(&value.shape.len())))
            && self.output_ranks.as_ref().is_none_or(|ranks| {
                node.outputs.first().is_some_and(|&output| ranks.contains(&model.values[output].shape.len()))
            })
            && self
                .inside
                .as_ref()
                .is_none_or(|names| region(model, node).is_some_and(|it| names.include(it.operator())))
            && self.taken.is_none_or(|wanted| {
                let branch = region(model, node).map(|region| &region.control);
                matches!(branch, Some(Control::If { taken, .. }) if *taken == wanted)
            })
            && self.empty.is_none_or(|empty| all().any(|value| value.is_empty()) == empty)
            && self.output_rank_grows.is_none_or(|wanted| {
                let output = &model.values[node.outputs[0]];
                first.is_some_and(|value| (output.shape.len() > value.shape.len()) == wanted)
            })
            && self.operands.is_none_or(|count| node.operands.len() == count)
            && self.first_broadcast.is_none_or(|wanted| {
                let output = &model.values[node.outputs[0]];
                first.is_some_and(|value| (value.len() < output.len()) == wanted)
            })
            && self
                .attributes_absent
                .as_ref()
                .is_none_or(|names| names.iter().any(|name| node.attributes.iter().all(|(written, _)| written != name)))
            && self
                .attributes_present
                .as_ref()
                .is_none_or(|names| names.iter().any(|name| node.attributes.iter().any(|(written, _)| written == name)))
            && self.outputs.is_none_or(|count| node.outputs.len() == count)
            && self.with.iter().all(|wanted| wanted.fits(model, node))
            && self.second_shorter_off_axis.is_none_or(|wanted| second_shorter_off_axis(model, node) == wanted)
            && self.moved_axis_keeps_size.is_none_or(|wanted| moved_axis_keeps_size(model, node) == wanted)
            && self.attributes.iter().all(|(name, values)| has(node, name, values))
            && self.attributes_not.iter().all(|(name, values)| !has(node, name, values))
            && self
                .attributes_containing
                .iter()
                .all(|(name, part)| text(node, name).is_some_and(|it| it.contains(part)))
            && self.repeated_label.is_none_or(|wanted| {
                text(node, "equation").is_some_and(|equation| equation.split([',', '-', '>']).any(repeats) == wanted)
            })
    }
}

impl Names {
    fn include(&self, name: &str) -> bool {
        match self {
            Names::One(one) => one == name,
            Names::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

impl OperandPattern {
    fn fits(&self, model: &Model, node: &Node) -> bool {
        match &self.operand {
            Indices::One(index) => self.fits_at(model, node, *index),
            Indices::Several(indices) => indices.iter().any(|&index| self.fits_at(model, node, index)),
        }
    }

    fn fits_at(&self, model: &Model, node: &Node, index: usize) -> bool {
        let Some(index) = node.operands.get(index).copied().flatten() else {
            let content = self.negative.or(self.unordered_axes).or(self.constant).or(self.computed);
            let describes = self.dtypes.is_some() || self.ranks.is_some() || self.size.is_some() || content.is_some();
            return self.present != Some(true) && !describes && self.empty != Some(false);
        };
        let value = &model.values[index];
        self.present != Some(false)
            && self.dtypes.as_ref().is_none_or(|names| names.iter().any(|name| name == value.dtype.name()))
            && self.ranks.as_ref().is_none_or(|ranks| ranks.contains(&value.shape.len()))
            && self.empty.is_none_or(|empty| value.is_empty() == empty)
            && self.size.is_none_or(|(axis, size)| size_of(&value.shape, axis) == Some(size))
            && self.constant.is_none_or(|constant| is_constant(model, index) == constant)
            && self.computed.is_none_or(|computed| is_computed(model, index) == computed)
            && self.negative.is_none_or(|negative| has_negative(model, index) == negative)
            && self.unordered_axes.is_none_or(|unordered| has_unordered_axes(model, node, index) == unordered)
    }
}

/// The size of an axis that may be counted from the end.
fn size_of(shape: &[usize], axis: i64) -> Option<usize> {
    let from_front = if axis < 0 { axis + shape.len() as i64 } else { axis };
    usize::try_from(from_front).ok().and_then(|axis| shape.get(axis).copied())
}

fn is_computed(model: &Model, value: usize) -> bool {
    model.nodes.iter().any(|node| node.outputs.contains(&value))
}

fn is_constant(model: &Model, value: usize) -> bool {
    let part = upstream(model, value);
    model.inputs().all(|(_, leaf)| !part[leaf.value])
}

/// The elements of a constant that the specification fixed.
fn content(model: &Model, value: usize) -> Option<Vec<f64>> {
    let constant = model.leaves.iter().find(|leaf| leaf.value == value && leaf.role == Role::Constant);
    constant?.content.as_ref().map(TensorData::to_f64)
}

fn has_negative(model: &Model, value: usize) -> bool {
    content(model, value).is_some_and(|list| list.iter().any(|&element| element < 0.0))
}

fn has_unordered_axes(model: &Model, node: &Node, value: usize) -> bool {
    let rank = node.operands.first().copied().flatten().map_or(0, |first| model.values[first].shape.len()) as f64;
    let from_front = |axis: f64| if axis < 0.0 { axis + rank } else { axis };
    content(model, value).is_some_and(|axes| !axes.iter().map(|&axis| from_front(axis)).is_sorted())
}

fn second_shorter_off_axis(model: &Model, node: &Node) -> bool {
    let [Some(first), Some(second), ..] = node.operands[..] else { return false };
    let (first, second) = (&model.values[first].shape, &model.values[second].shape);
    let axis = node.attributes.iter().find_map(|(name, value)| match value {
        Attribute::Int(axis) if name == "axis" => Some(*axis),
        _ => None,
    });
    let axis = axis.unwrap_or(0).rem_euclid(first.len().max(1) as i64) as usize;
    first.iter().zip(second).enumerate().any(|(i, (first, second))| i != axis && second < first)
}

fn moved_axis_keeps_size(model: &Model, node: &Node) -> bool {
    let shape = |value: Option<&usize>| value.map_or(&[][..], |&value| &model.values[value].shape);
    let (from, to) = (shape(node.operands[0].as_ref()), shape(node.outputs.first()));
    // Data that the specification fixed are known also where they are a graph input's.
    let fixed = |index: usize| {
        let value = node.operands.get(index).copied().flatten()?;
        model.leaves.iter().find(|leaf| leaf.value == value)?.content.as_ref().map(TensorData::to_f64)
    };
    let axes: Vec<i64> = match node.attributes.iter().find(|(name, _)| name == "axes") {
        Some((_, Attribute::Ints(axes))) => axes.clone(),
        _ => (0..from.len() as i64).collect(),
    };
    let (regions, scales) = (fixed(1).unwrap_or_default(), fixed(2).unwrap_or_default());
    let crops = text(node, "coordinate_transformation_mode") == Some("tf_crop_and_resize");
    let moves = |i: usize| {
        let region = (regions.get(i).copied().unwrap_or(0.0), regions.get(axes.len() + i).copied().unwrap_or(1.0));
        scales.get(i).is_some_and(|&scale| scale != 1.0) || (crops && region != (0.0, 1.0))
    };
    axes.iter().enumerate().any(|(i, &axis)| size_of(from, axis) == size_of(to, axis) && moves(i))
}

/// Which values contribute to `value`, itself included.
fn upstream(model: &Model, value: usize) -> Vec<bool> {
    let mut found = vec![false; model.values.len()];
    found[value] = true;
    for node in model.nodes.iter().rev() {
        if node.outputs.iter().any(|&output| found[output]) {
            node.operands.iter().flatten().for_each(|&operand| found[operand] = true);
        }
    }
    found
}

/// The values that `values` contribute to, themselves included.
fn downstream(model: &Model, mut values: Vec<usize>) -> Vec<usize> {
    for node in &model.nodes {
        if node.operands.iter().flatten().any(|operand| values.contains(operand)) {
            values.extend(&node.outputs);
        }
    }
    values
}

/// The model without the nodes that do not contribute to `value`.
fn contributing(model: &Model, value: usize) -> Model {
    let found = upstream(model, value);
    let mut part = model.clone();
    let kept = |node: &Node| node.outputs.iter().any(|&output| found[output]);
    let before = |index: usize| model.nodes[..index].iter().filter(|node| kept(node)).count();
    // Of a region only its place and its operator are asked for.
    part.regions.iter_mut().for_each(|region| region.nodes = before(region.nodes.start)..before(region.nodes.end));
    part.nodes.retain(kept);
    part
}

/// The control flow that a node is part of. Not every node has a name, and each value has one node that gives it.
fn region<'a>(model: &'a Model, node: &Node) -> Option<&'a Region> {
    let index = model.nodes.iter().position(|known| known.outputs == node.outputs)?;
    model.regions.iter().find(|region| region.nodes.contains(&index))
}

/// A text attribute.
fn text<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    node.attributes.iter().find_map(|(key, attribute)| match attribute {
        Attribute::Text(text) if key == name => Some(text.as_str()),
        _ => None,
    })
}

/// Whether a letter occurs twice.
fn repeats(term: &str) -> bool {
    let letters: Vec<char> = term.chars().filter(|letter| letter.is_alphabetic()).collect();
    letters.iter().enumerate().any(|(index, letter)| letters[..index].contains(letter))
}

/// Whether the node's attribute has (in a list: contains) one of the values.
fn has(node: &Node, name: &str, values: &[toml::Value]) -> bool {
    let Some((_, attribute)) = node.attributes.iter().find(|(key, _)| key == name) else { return false };
    let integer = |wanted: i64| values.iter().any(|value| value.as_integer() == Some(wanted));
    match attribute {
        Attribute::Int(value) => integer(*value),
        Attribute::Ints(list) => list.iter().any(|&value| integer(value)),
        Attribute::Text(text) => values.iter().any(|value| value.as_str() == Some(text)),
        Attribute::Texts(list) => list.iter().any(|text| values.iter().any(|value| value.as_str() == Some(text))),
        Attribute::Float(_) | Attribute::Floats(_) | Attribute::Tensor(_) => false,
    }
}
