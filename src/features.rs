//! What a case is made of and how it was answered, as indices of one table of counters: the parts of "something new" that
//! no compiler's coverage shows, because the same code runs for it.

use crate::backend::{Failure, Level};
use crate::dtype::DType;
use crate::input::mix;
use crate::model::{Model, Node};
use crate::ops::Choice;
use crate::oracle::{Kind, Outcome, Wrong};
use crate::spec::Attribute;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::LazyLock;

/// Counters of the table.
pub const COUNT: usize = 1 << 16;

/// What is counted, each in its part of the table. Forms and pairs have a counter each, as long as there are fewer than 181
/// operators; attributes and rules share theirs by hash.
const FORMS: Range<usize> = 0..1 << 14;
/// Ordered pairs of operators, of which one takes what the other gives.
pub const PAIRS: Range<usize> = 1 << 14..3 << 14;
const ATTRIBUTES: Range<usize> = 3 << 14..(3 << 14) + (1 << 13);
const RULES: Range<usize> = (3 << 14) + (1 << 13)..COUNT - 256;
const VERDICTS: Range<usize> = COUNT - 256..COUNT;

const DTYPES: u64 = DType::ALL.len() as u64;
const RANKS: u64 = 7;

/// How often each operator occurs in what a backend has made of a model.
pub type Histogram = BTreeMap<String, usize>;

/// What was seen of a backend.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Seen {
    Answer {
        backend: &'static str,
        level: Level,
        class: Class,
    },
    /// Optimisation has changed how often an operator occurs.
    Rule {
        backend: &'static str,
        operator: String,
        fewer: bool,
    },
}

/// What became of one run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    Ran,
    Unsupported,
    Wrong(Kind),
}

impl Seen {
    /// The answer as a backend gave it.
    pub fn answer(outcome: &Outcome) -> Seen {
        let class = match &outcome.result {
            Ok(_) => Class::Ran,
            Err(Failure::Unsupported(_)) => Class::Unsupported,
            Err(failure) => Class::Wrong(Wrong::Failed(failure.clone()).kind()),
        };
        Seen::Answer { backend: outcome.backend, level: outcome.level, class }
    }
}

/// What optimising has changed.
pub fn rules<'a>(
    backend: &'static str,
    before: &'a Histogram,
    after: &'a Histogram,
) -> impl Iterator<Item = Seen> + use<'a> {
    let count = |histogram: &Histogram, operator: &String| histogram.get(operator).copied().unwrap_or(0);
    let operators: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed =
        operators.into_iter().map(move |operator| (operator, count(before, operator), count(after, operator)));
    changed.filter(|(_, before, after)| before != after).map(move |(operator, before, after)| Seen::Rule {
        backend,
        operator: operator.clone(),
        fewer: after < before,
    })
}

/// How often each operator occurs in a model as it was written.
pub fn histogram<'a>(operators: impl IntoIterator<Item = &'a str>) -> Histogram {
    let mut histogram = Histogram::new();
    operators.into_iter().for_each(|operator| *histogram.entry(operator.to_owned()).or_insert(0) += 1);
    histogram
}

/// A small number for each operator type and construct of control flow.
static NUMBERS: LazyLock<BTreeMap<&'static str, u64>> =
    LazyLock::new(|| Choice::all().map(Choice::name).zip(0..).collect());

fn number(operator: &str) -> u64 {
    NUMBERS.get(operator).copied().unwrap_or(NUMBERS.len() as u64)
}

fn at(part: &Range<usize>, key: u64) -> usize {
    part.start + (key % part.len() as u64) as usize
}

/// A number for a text, the same on any machine.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// The counters of what a model is made of: operators with element type and rank, ordered pairs of operators, and ranges of
/// attributes.
pub fn of_model(model: &Model) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut producer: Vec<Option<&'static str>> = vec![None; model.values.len()];
    for region in &model.regions {
        found.insert(at(&FORMS, number(region.operator()) * DTYPES * RANKS));
    }
    for node in &model.nodes {
        let name = node.spec.name;
        found.insert(form(model, node));
        for from in node.operands.iter().flatten().filter_map(|&operand| producer[operand]) {
            found.insert(pair(from, name));
        }
        node.outputs.iter().for_each(|&output| producer[output] = Some(name));
        for (attribute, value) in &node.attributes {
            let key = hash(name) ^ hash(attribute).rotate_left(1);
            bins(value, |bin| {
                found.insert(at(&ATTRIBUTES, mix(key ^ mix(bin))));
            });
        }
    }
    found
}

/// The counter of an operator that takes what another one gives.
pub fn pair(from: &str, to: &str) -> usize {
    at(&PAIRS, number(from) * (NUMBERS.len() as u64 + 1) + number(to))
}

/// The counter of an operator with the element type and rank of its first operand, or of its output if it has none.
fn form(model: &Model, node: &Node) -> usize {
    let main = node.operands.iter().flatten().chain(&node.outputs).next();
    let value = main.map(|&value| &model.values[value]);
    let dtype = |dtype| DType::ALL.iter().position(|&known| known == dtype).unwrap_or(0) as u64;
    let (dtype, rank) = value.map_or((0, 0), |value| (dtype(value.dtype), value.shape.len() as u64));
    at(&FORMS, (number(node.spec.name) * DTYPES + dtype) * RANKS + rank.min(RANKS - 1))
}

/// The ranges that an attribute's value lies in: small integers alone, larger numbers by their binary exponent.
fn bins(value: &Attribute<i64>, mut add: impl FnMut(u64)) {
    let integer = |value: i64| match value {
        -8..=8 => value as u64,
        _ => u64::from(value.unsigned_abs().ilog2()) << 8 | u64::from(value < 0) << 16,
    };
    let float = |value: f32| u64::from(value.to_bits() >> 23) | u64::from(value.fract() == 0.0) << 9;
    let length = |length: usize| 1 << 32 | length as u64;
    match value {
        Attribute::Int(value) => add(integer(*value)),
        Attribute::Ints(values) => {
            add(length(values.len()));
            values.iter().for_each(|&value| add(integer(value)));
        }
        Attribute::Float(value) => add(float(*value)),
        Attribute::Floats(values) => {
            add(length(values.len()));
            values.iter().for_each(|&value| add(float(value)));
        }
        Attribute::Text(text) => add(hash(text)),
        Attribute::Texts(texts) => texts.iter().for_each(|text| add(hash(text))),
        Attribute::Tensor(tensor) => add(2 << 32 | (tensor.dtype as u64) << 8 | tensor.shape.len() as u64),
    }
}

/// The counter of something seen of a backend.
pub fn of_seen(seen: &Seen) -> usize {
    match seen {
        Seen::Answer { backend, level, class } => {
            let class = match class {
                Class::Ran => 0,
                Class::Unsupported => 1,
                Class::Wrong(kind) => 2 + *kind as u64,
            };
            at(&VERDICTS, hash(backend) ^ (mix(class << 1 | u64::from(*level == Level::On))))
        }
        Seen::Rule { backend, operator, fewer } => {
            at(&RULES, mix(hash(backend) ^ mix(hash(operator) ^ u64::from(*fewer))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case;
    use crate::input;
    use crate::ops;

    /// Features of a thousand models, by what they stand for.
    #[test]
    fn most_forms_and_pairs_have_a_counter_of_their_own() {
        let mut meanings: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for seed in 0..400 {
            let model = case::generate(&input::random(seed, 10)).model;
            let found = of_model(&model);
            assert_eq!(found, of_model(&model), "the same each time");
            assert!(found.iter().all(|&index| index < RULES.start));
            assert!(model.nodes.is_empty() || !found.is_empty());
            for node in &model.nodes {
                let operand = node.operands.iter().flatten().chain(&node.outputs).next();
                let value = operand.map(|&value| &model.values[value]).expect("an output at least");
                let meaning = format!("{} {} {}", node.spec.name, value.dtype, value.shape.len().min(6));
                meanings.entry(form(&model, node)).or_default().insert(meaning);
                for (name, value) in &node.attributes {
                    let key = hash(node.spec.name) ^ hash(name).rotate_left(1);
                    let meaning = |bin| format!("{}.{name} {bin}", node.spec.name);
                    bins(value, |bin| {
                        let index = at(&ATTRIBUTES, mix(key ^ mix(bin)));
                        meanings.entry(index).or_default().insert(meaning(bin));
                    });
                }
            }
        }
        let shared = meanings.values().filter(|meanings| meanings.len() > 1).count();
        assert!(meanings.len() > 1500, "only {} counters", meanings.len());
        assert!(shared * 8 < meanings.len(), "{shared} of {} counters stand for several things", meanings.len());
        let forms: Vec<_> = meanings.range(FORMS).filter(|(_, meanings)| meanings.len() > 1).collect();
        assert!(forms.is_empty(), "there is a counter for every form: {forms:?}");
        assert!(((ops::ALL.len() + 4) as u64).pow(2) < PAIRS.len() as u64, "and for every pair");
    }

    #[test]
    fn answers_and_rules_differ() {
        let mut all = BTreeSet::new();
        let mut count = 0;
        for backend in ["ort", "rten", "tract"] {
            for level in Level::ALL {
                for class in
                    [Class::Ran, Class::Unsupported, Class::Wrong(Kind::Refused), Class::Wrong(Kind::WrongValue)]
                {
                    all.insert(of_seen(&Seen::Answer { backend, level, class }));
                    count += 1;
                }
            }
            let (before, after) = (histogram(["Conv", "Relu", "Add"]), histogram(["FusedConv", "Add"]));
            let rules: Vec<Seen> = rules(backend, &before, &after).collect();
            assert_eq!(rules.len(), 3, "{rules:?}");
            count += rules.len();
            all.extend(rules.iter().map(of_seen));
        }
        assert!(all.iter().all(|index| (RULES.start..COUNT).contains(index)));
        assert!(all.len() + 2 >= count, "{} counters for {count} things", all.len());
    }
}
