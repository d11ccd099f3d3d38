//! What each backend takes, as `graphsmith probe` found it with models of one operator: never from an error's text.
//!
//! The unit is a form: a version of an operator with the element types of its operands and outputs. A backend that took every model
//! of a form, and enough of them, supports it, and refusing one later is a finding. One that took none is not asked. One
//! that took some (an attribute it lacks, a rank) is asked, and refusing is no finding.

use crate::dtype::{ANY, DType, DTypes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The tables that this build contains, by [`Backend::id`](crate::backend::Backend::id).
const TABLES: &[(&str, &str)] = &[
    ("ort", include_str!("support/ort.toml")),
    ("rten", include_str!("support/rten.toml")),
    ("tract", include_str!("support/tract.toml")),
];

/// The backends that every model of a case should run on, so that no case is wasted on what one of them lacks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Focus(u8);

/// The committed tables with their element types, read once.
static COMMITTED: LazyLock<Vec<(Table, DTypes)>> = LazyLock::new(|| {
    let read = |(id, _): &(&str, &str)| {
        let table = Table::of(id);
        let dtypes = table.dtypes();
        (table, dtypes)
    };
    TABLES.iter().map(read).collect()
});

impl Focus {
    /// Nothing is left out.
    pub const NONE: Focus = Focus(0);

    /// All three, pairs, one, or none of them, as a header's byte says; 0 is all.
    pub fn new(byte: u8) -> Focus {
        const CHOICES: [u8; 16] =
            [0b111, 0b111, 0b111, 0b101, 0b101, 0b101, 0b001, 0b001, 0b011, 0b110, 0b010, 0b010, 0b100, 0b100, 0, 0];
        Focus(CHOICES[usize::from(byte) % CHOICES.len()])
    }

    fn tables(self) -> impl Iterator<Item = &'static (Table, DTypes)> {
        COMMITTED.iter().enumerate().filter(move |(index, _)| self.0 >> index & 1 == 1).map(|(_, table)| table)
    }

    /// Whether no backend of the focus is known to lack this form.
    pub fn admits(self, operator: &str, version: i64, form: &str) -> bool {
        self.tables().all(|(table, _)| table.form_support(operator, version, form) != Support::No)
    }

    /// The element types that all backends of the focus know.
    pub fn dtypes(self) -> DTypes {
        self.tables().fold(ANY, |common, (_, dtypes)| common.and(*dtypes))
    }
}

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
    /// By operator and version; see [`key`].
    pub operators: BTreeMap<String, Forms>,
}

impl Table {
    /// The committed table of a backend; an empty one, which makes every form partial, for a backend without.
    pub fn of(id: &str) -> Table {
        let text = TABLES.iter().find(|(table, _)| *table == id).map_or("", |(_, text)| text);
        toml::from_str(text).unwrap_or_else(|_| Table { backend: id.to_owned(), ..Default::default() })
    }

    /// A form that was never probed counts as partial.
    pub fn form_support(&self, operator: &str, version: i64, form: &str) -> Support {
        let Some(forms) = self.operators.get(&key(operator, version)) else { return Support::Partial };
        let listed = |forms: &[String]| forms.iter().any(|listed| listed == form);
        match () {
            () if listed(&forms.yes) => Support::Yes,
            () if listed(&forms.no) => Support::No,
            () => Support::Partial,
        }
    }

    /// The element types of all forms that the backend takes at least sometimes; all types for an empty table.
    pub fn dtypes(&self) -> DTypes {
        let takes = |dtype: &DType| {
            let named = |form: &String| form.split([',', '-', '>']).any(|name| name == dtype.name());
            self.operators.values().any(|forms| forms.yes.iter().chain(&forms.partial).any(named))
        };
        let found: Vec<DType> = DType::ALL.into_iter().filter(takes).collect();
        if found.is_empty() { ANY } else { DTypes::of(&found) }
    }
}

/// `Relu-14`: a version of an operator, as the standard's own pages name it.
pub fn key(operator: &str, version: i64) -> String {
    format!("{operator}-{version}")
}

/// `f32,i64->f32`: the form with these element types of operands (`-` where `None`, absent) and outputs.
pub fn form_of(operands: impl Iterator<Item = Option<DType>>, outputs: impl Iterator<Item = DType>) -> String {
    let operands: Vec<&str> = operands.map(|operand| operand.map_or("-", DType::name)).collect();
    let outputs: Vec<&str> = outputs.map(DType::name).collect();
    format!("{}->{}", short(&operands), short(&outputs))
}

/// Repeated names of variadic operators are counted once: `f32,f32,f32` and `f32,f32` are the same form.
fn short(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.dedup();
    names.join(",")
}
