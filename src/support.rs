//! What each backend takes, as `graphsmith probe` found it with models of one operator: never from an error's text.
//!
//! The unit is a form: a version of an operator with the element types of its operands and outputs. A backend that took every model
//! of a form, and enough of them, supports it, and refusing one later is a finding. One that took none is not asked. One
//! that took some (an attribute it lacks, a rank) is asked, and refusing is no finding.

use crate::dtype::{ANY, DType, DTypes};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{LazyLock, OnceLock};

pub mod lacks;

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

    /// All three, pairs or one of them, as a header's byte says; 0 is all. One byte in 32 is none, for what no backend takes
    /// yet: few models of such a case run anywhere.
    pub fn new(byte: u8) -> Focus {
        const CHOICES: [u8; 16] = [
            0b111, 0b111, 0b111, 0b101, 0b101, 0b101, 0b001, 0b001, 0b011, 0b110, 0b010, 0b010, 0b100, 0b100, 0b001,
            0b011,
        ];
        if byte % 32 == 31 { Focus::NONE } else { Focus(CHOICES[usize::from(byte) % CHOICES.len()]) }
    }

    fn tables(self) -> impl Iterator<Item = &'static (Table, DTypes)> {
        COMMITTED.iter().enumerate().filter(move |(index, _)| self.0 >> index & 1 == 1).map(|(_, table)| table)
    }

    /// Whether no backend of the focus is known to lack this form.
    pub fn admits(self, operator: &str, version: i64, form: &str) -> bool {
        self.tables().all(|(table, _)| table.form_support(operator, version, form) != Support::No)
    }

    /// Whether every backend of the focus takes some form of this version of an operator, as far as is known.
    pub fn takes(self, operator: &str, version: i64) -> bool {
        self.tables().all(|(table, _)| {
            let forms = table.operators.get(&key(operator, version));
            forms.is_none_or(|forms| !forms.yes.is_empty() || !forms.partial.is_empty())
        })
    }

    /// Every focus there is, in the order of [`Focus::index`].
    pub fn all() -> impl Iterator<Item = Focus> {
        (0..1 << TABLES.len()).map(Focus)
    }

    pub fn index(self) -> usize {
        self.0.into()
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

/// What a backend must take for a model.
pub struct Needs {
    /// Operators with their versions, which only those of the standard have, and forms.
    pub forms: Vec<(&'static str, Option<i64>, String)>,
    /// What the model is at most.
    pub most: Support,
}

impl Needs {
    /// Whether the backend of a table takes the model: the least support of its forms.
    pub fn support(&self, table: &Table) -> Support {
        let of_form = |(operator, version, form): &(&str, Option<i64>, String)| {
            version.map_or(Support::Partial, |version| table.form_support(operator, version, form))
        };
        let mut least = self.most;
        for form in &self.forms {
            least = least.min(of_form(form));
            if least == Support::No {
                break;
            }
        }
        least
    }
}

/// The forms of one version of an operator by support.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Forms {
    pub yes: Vec<String>,
    pub partial: Vec<String>,
    pub no: Vec<String>,
}

/// A table as it is written: forms with spaces between them, and versions of an operator with the same forms together.
#[derive(Serialize, Deserialize)]
struct Written {
    backend: String,
    version: String,
    /// By operator and versions: `Cast 13 19`.
    operators: BTreeMap<String, WrittenForms>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
struct WrittenForms {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    yes: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    partial: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    no: String,
}

/// One backend's table.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Table {
    pub backend: String,
    /// The version that was probed.
    pub version: String,
    /// By operator and version; see [`key`].
    pub operators: BTreeMap<String, Forms>,
    /// Made of `operators` when a form is first asked for: a case asks a hundred times.
    index: OnceLock<Index>,
}

/// By the hash of an operator, a version of it and a form, of which no two of a table are equal: what is asked for was last
/// used a case ago, and every string on the way to it would have to come from memory.
type Index = HashMap<u64, Support>;

impl Table {
    /// The committed table of a backend; an empty one, which makes every form partial, for a backend without.
    pub fn of(id: &str) -> Table {
        let text = TABLES.iter().find(|(table, _)| *table == id).map_or("", |(_, text)| text);
        Table::parse(text).unwrap_or_else(|_| Table { backend: id.to_owned(), ..Default::default() })
    }

    /// Reads what [`Table::text`] has written.
    pub fn parse(text: &str) -> Result<Table, toml::de::Error> {
        let Written { backend, version, operators: written } = toml::from_str(text)?;
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let mut operators = BTreeMap::new();
        for (name, WrittenForms { yes, partial, no }) in written {
            let mut words = name.split_whitespace();
            let operator = words.next().unwrap_or_default();
            for version in words.filter_map(|version| version.parse().ok()) {
                let forms = Forms { yes: list(&yes), partial: list(&partial), no: list(&no) };
                operators.insert(key(operator, version), forms);
            }
        }
        Ok(Table::new(&backend, &version, operators))
    }

    pub fn text(&self) -> Result<String, toml::ser::Error> {
        // By operator: each set of forms with the versions that have it, ascending.
        let mut groups: BTreeMap<&str, Vec<(Vec<i64>, WrittenForms)>> = BTreeMap::new();
        let mut sorted: Vec<(&str, i64, &Forms)> = self
            .operators
            .iter()
            .filter_map(|(key, forms)| {
                let (operator, version) = key.rsplit_once('-')?;
                Some((operator, version.parse().ok()?, forms))
            })
            .collect();
        sorted.sort_by_key(|(operator, version, _)| (*operator, *version));
        for (operator, version, forms) in sorted {
            let written =
                WrittenForms { yes: forms.yes.join(" "), partial: forms.partial.join(" "), no: forms.no.join(" ") };
            let groups = groups.entry(operator).or_default();
            match groups.iter_mut().find(|(_, known)| *known == written) {
                Some((versions, _)) => versions.push(version),
                None => groups.push((vec![version], written)),
            }
        }
        let named = |(operator, groups): (&str, Vec<(Vec<i64>, WrittenForms)>)| {
            let name = move |versions: Vec<i64>| {
                versions.iter().fold(operator.to_owned(), |name, version| format!("{name} {version}"))
            };
            groups.into_iter().map(move |(versions, forms)| (name(versions), forms)).collect::<Vec<_>>()
        };
        let operators = groups.into_iter().flat_map(named).collect();
        toml::to_string(&Written { backend: self.backend.clone(), version: self.version.clone(), operators })
    }

    /// A form that was never probed counts as partial.
    pub fn form_support(&self, operator: &str, version: i64, form: &str) -> Support {
        let index = self.index.get_or_init(|| self.indexed());
        index.get(&hash_of(operator, version, form)).copied().unwrap_or(Support::Partial)
    }

    fn indexed(&self) -> Index {
        let mut index = Index::new();
        for (key, forms) in &self.operators {
            let Some((operator, version)) = key.rsplit_once('-') else { continue };
            let Ok(version) = version.parse() else { continue };
            for (forms, support) in [(&forms.yes, Support::Yes), (&forms.no, Support::No)] {
                for form in forms {
                    let other = index.insert(hash_of(operator, version, form), support);
                    assert!(other.is_none(), "{key} {form} is there twice, or its hash is that of another form");
                }
            }
        }
        index
    }

    /// A table of these forms.
    pub fn new(backend: &str, version: &str, operators: BTreeMap<String, Forms>) -> Table {
        Table { backend: backend.to_owned(), version: version.to_owned(), operators, index: OnceLock::new() }
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

fn hash_of(operator: &str, version: i64, form: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (operator, version, form).hash(&mut hasher);
    hasher.finish()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let forms = |yes: &[&str], no: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Forms { yes: list(yes), partial: Vec::new(), no: list(no) }
        };
        let operators = BTreeMap::from([
            (key("Cast", 13), forms(&["f32->i64", "f32->f16"], &[])),
            (key("Cast", 19), forms(&["f32->i64", "f32->f16"], &[])),
            (key("Cast", 9), forms(&["f32->i64"], &["bf16->f32"])),
            (key("Relu", 14), forms(&["f32->f32"], &["bf16->bf16"])),
        ]);
        let table = Table::new("x", "1.2.3", operators);
        let text = table.text().unwrap();
        assert!(text.contains("\"Cast 13 19\""), "{text}");
        assert_eq!(Table::parse(&text).unwrap(), table);
        assert_eq!(table.form_support("Relu", 14, "bf16->bf16"), Support::No);
        assert_eq!(table.form_support("Relu", 13, "f32->f32"), Support::Partial, "never probed");
    }
}
