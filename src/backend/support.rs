//! What each backend takes, as `graphsmith probe` found it with models of one operator: never from an error's text.
//!
//! The unit is a form: an operator with the element types of its operands and outputs. A backend that took every model
//! of a form supports it, and refusing one later is a finding. One that took none is not asked. One that took some
//! (an attribute it lacks, a rank) is asked, and refusing is no finding.

use crate::backend::Backend;
use crate::dtype::DType;
use crate::model::{Model, Node};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The tables that this build contains, by [`Backend::id`].
const TABLES: &[(&str, &str)] = &[
    ("ort", include_str!("support/ort.toml")),
    ("rten", include_str!("support/rten.toml")),
    ("tract", include_str!("support/tract.toml")),
];

/// Whether a backend takes a form or a model. Ordered: a model has the least support of its nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Support {
    No,
    Partial,
    Yes,
}

/// The forms of one operator by support.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forms {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub yes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no: Vec<String>,
}

/// One backend's table.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Table {
    pub backend: String,
    /// The version that was probed.
    pub version: String,
    /// By operator.
    pub operators: BTreeMap<String, Forms>,
}

impl Table {
    /// The committed table of a backend; an empty one, which makes every form partial, for a backend without.
    pub fn of(backend: &dyn Backend) -> Table {
        let text = TABLES.iter().find(|(id, _)| *id == backend.id()).map_or("", |(_, text)| text);
        toml::from_str(text).unwrap_or_else(|_| Table { backend: backend.id().to_owned(), ..Default::default() })
    }

    pub fn support(&self, model: &Model) -> Support {
        model.nodes.iter().map(|node| self.node_support(model, node)).min().unwrap_or(Support::Yes)
    }

    /// A form that was never probed counts as partial.
    pub fn node_support(&self, model: &Model, node: &Node) -> Support {
        let Some(forms) = self.operators.get(node.spec.name) else { return Support::Partial };
        let form = form(model, node);
        match () {
            () if forms.yes.contains(&form) => Support::Yes,
            () if forms.no.contains(&form) => Support::No,
            () => Support::Partial,
        }
    }
}

/// `f32,i64->f32`: the element types of a node's operands (`-` where absent) and outputs.
pub fn form(model: &Model, node: &Node) -> String {
    let name = |value: usize| DType::name(model.values[value].dtype);
    let operands: Vec<&str> = node.operands.iter().map(|operand| operand.map_or("-", name)).collect();
    let outputs: Vec<&str> = node.outputs.iter().map(|&value| name(value)).collect();
    format!("{}->{}", short(&operands), short(&outputs))
}

/// Repeated names of variadic operators are counted once: `f32,f32,f32` and `f32,f32` are the same form.
fn short(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.dedup();
    names.join(",")
}
