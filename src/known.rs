//! `known.toml`: live bugs of released backends, so that a run goes on past them to new ones.

use crate::backend::Level;
use crate::dtype::DType;
use crate::model::{Model, Node};
use crate::oracle::{Kind, Wrong};
use crate::spec::Attribute;
use crate::tensor::TensorData;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The committed list.
const BUILT_IN: &str = include_str!("known.toml");

/// One known issue. It explains a difference when backend, level, version, kind and message fit and the model has its
/// pattern; a wrong output only when the pattern is part of what computes that output.
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
    /// A part of the failure's text, such as the source file of a panic.
    pub message: Option<String>,
    /// Operators that follow each other, each using a result of the one before it, with what must hold for each.
    pub chain: Vec<Pattern>,
    /// The tracker's page, if it has one.
    pub link: Option<String>,
    /// What is wrong, with the sentence of the standard that says so.
    pub reason: String,
    /// The backend would take the whole process with it: it is not run at all on models with the pattern.
    #[serde(default)]
    pub fatal: bool,
}

/// What a node must look like. Everything left out fits anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// Its operator, or one of a list.
    pub operator: Names,
    /// The element type of the first operand.
    pub dtypes: Option<Vec<String>>,
    /// The rank of the first operand.
    pub ranks: Option<Vec<usize>>,
    /// The element type of the first output.
    pub output_dtypes: Option<Vec<String>>,
    /// Some operand or output has no elements.
    pub empty: Option<bool>,
    /// Broadcasting gives the output more dimensions than the first operand has.
    pub output_rank_grows: Option<bool>,
    /// How many operands are written.
    pub operands: Option<usize>,
    /// How many outputs are written.
    pub outputs: Option<usize>,
    /// What must hold for the operands at these positions, counted from 0. An absent operand fits nothing.
    #[serde(default)]
    pub operand: BTreeMap<String, OperandPattern>,
    /// Integer and text attributes with one of these values; a list attribute fits when any of its elements does.
    #[serde(default)]
    pub attributes: BTreeMap<String, Vec<toml::Value>>,
    /// Integer attributes none of whose elements may have one of these values; an absent one fits.
    #[serde(default)]
    pub attributes_not: BTreeMap<String, Vec<toml::Value>>,
}

/// One name or a list of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Names {
    One(String),
    Any(Vec<String>),
}

impl Names {
    fn contain(&self, name: &str) -> bool {
        match self {
            Names::One(one) => one == name,
            Names::Any(list) => list.iter().any(|one| one == name),
        }
    }
}

/// What an operand must look like. Everything left out fits anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperandPattern {
    pub dtypes: Option<Vec<String>>,
    pub ranks: Option<Vec<usize>>,
    /// It is a constant and has an element below 0.
    pub negative: Option<bool>,
    /// It is a constant whose elements, as axes of the first operand counted from the front, do not ascend.
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
        let explains = |issue: &Issue| {
            issue.kinds.contains(&kind)
                && issue.applies(at)
                && issue.says(wrong)
                && match wrong.output() {
                    Some(output) => issue.fits(model, &model.upstream(model.outputs[output])),
                    None => issue.fits(model, &model.nodes.iter().collect::<Vec<_>>()),
                }
        };
        self.issues.iter().position(explains)
    }

    /// The first fatal issue whose pattern the model has, which is thereby met: the backend must not be run.
    pub fn forbids(&mut self, at: Place, model: &Model) -> Option<&Issue> {
        let all: Vec<&Node> = model.nodes.iter().collect();
        let index = self.issues.iter().position(|issue| issue.fatal && issue.applies(at) && issue.fits(model, &all))?;
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
    fn applies(&self, at: Place) -> bool {
        self.backend == at.backend && self.level.is_none_or(|level| level == at.level) && self.affects(at.version)
    }

    /// Whether the issue is in this version of its backend.
    pub fn affects(&self, version: &str) -> bool {
        let version = semver::Version::parse(version);
        self.versions.as_ref().is_none_or(|range| version.is_ok_and(|version| range.matches(&version)))
    }

    fn says(&self, wrong: &Wrong) -> bool {
        self.message.as_ref().is_none_or(|part| match wrong {
            Wrong::Failed(failure) => failure.to_string().contains(part),
            Wrong::Output(_) => false,
        })
    }

    /// Whether the pattern occurs among these nodes of the model.
    pub fn fits(&self, model: &Model, nodes: &[&Node]) -> bool {
        let Some((first, rest)) = self.chain.split_first() else { return false };
        let mut reached: Vec<&Node> = nodes.iter().copied().filter(|node| first.fits(model, node)).collect();
        for pattern in rest {
            let follows = |node: &&Node| {
                let uses = |before: &&Node| node.operands.iter().flatten().any(|value| before.outputs.contains(value));
                pattern.fits(model, node) && reached.iter().any(uses)
            };
            reached = nodes.iter().copied().filter(follows).collect();
        }
        !reached.is_empty()
    }
}

impl Pattern {
    fn fits(&self, model: &Model, node: &Node) -> bool {
        let first = node.operands.first().copied().flatten().map(|value| &model.values[value]);
        let all = || node.operands.iter().flatten().chain(&node.outputs).map(|&value| &model.values[value]);
        self.operator.contain(node.spec.name)
            && dtype_fits(&self.dtypes, first.map(|value| value.dtype))
            && dtype_fits(&self.output_dtypes, node.outputs.first().map(|&value| model.values[value].dtype))
            && self.ranks.as_ref().is_none_or(|ranks| first.is_some_and(|value| ranks.contains(&value.shape.len())))
            && self.empty.is_none_or(|empty| all().any(|value| value.is_empty()) == empty)
            && self.output_rank_grows.is_none_or(|wanted| {
                let output = &model.values[node.outputs[0]];
                first.is_some_and(|value| (output.shape.len() > value.shape.len()) == wanted)
            })
            && self.operands.is_none_or(|count| node.operands.len() == count)
            && self.outputs.is_none_or(|count| node.outputs.len() == count)
            && self.operand.iter().all(|(position, pattern)| {
                let operand = position.parse().ok().and_then(|position: usize| *node.operands.get(position)?);
                operand.is_some_and(|value| pattern.fits(model, value, first.map_or(0, |value| value.shape.len())))
            })
            && self.attributes.iter().all(|(name, values)| has(node, name, values))
            && self.attributes_not.iter().all(|(name, values)| !has(node, name, values))
    }
}

impl OperandPattern {
    /// Whether the value fits as an operand of a node whose first operand has this rank.
    fn fits(&self, model: &Model, value: usize, rank: usize) -> bool {
        let content = || model.leaves.iter().find(|leaf| leaf.value == value)?.content.as_ref().map(TensorData::to_f64);
        let negative = || content().is_some_and(|list| list.iter().any(|&x| x < 0.0));
        let unordered = || {
            let from_front = |x: f64| if x < 0.0 { x + rank as f64 } else { x };
            content().is_some_and(|list| !list.iter().map(|&x| from_front(x)).is_sorted())
        };
        dtype_fits(&self.dtypes, Some(model.values[value].dtype))
            && self.ranks.as_ref().is_none_or(|ranks| ranks.contains(&model.values[value].shape.len()))
            && self.negative.is_none_or(|wanted| negative() == wanted)
            && self.unordered_axes.is_none_or(|wanted| unordered() == wanted)
    }
}

fn dtype_fits(wanted: &Option<Vec<String>>, dtype: Option<DType>) -> bool {
    wanted.as_ref().is_none_or(|names| dtype.is_some_and(|dtype| names.iter().any(|name| name == dtype.name())))
}

/// Whether the node's attribute has (in a list: contains) one of the values.
fn has(node: &Node, name: &str, values: &[toml::Value]) -> bool {
    let Some((_, attribute)) = node.attributes.iter().find(|(key, _)| key == name) else { return false };
    let integer = |wanted: i64| values.iter().any(|value| value.as_integer() == Some(wanted));
    match attribute {
        Attribute::Int(value) => integer(*value),
        Attribute::Ints(list) => list.iter().any(|&value| integer(value)),
        Attribute::Text(text) => values.iter().any(|value| value.as_str() == Some(text)),
        Attribute::Float(_) | Attribute::Floats(_) => false,
    }
}
