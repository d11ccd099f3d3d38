//! Equivalent rewrites by algebraic rules: a chain of them, each at a random place, also where an earlier one has been.
//!
//! After PolyJuice (OOPSLA 2024), which saturates the graph with equalities: that two equal models are both compiled right
//! is what an optimiser relies on when it replaces one by the other, and some bugs show only in what lies between the model
//! as exporters write it and the form that the optimiser aims at. Here the model after each prefix of a chain may be run.
//! The rules are equalities of real numbers: the rewritten model has a reference and error bounds of its own, and what its
//! intermediate results make invalid, such as an overflow, is not run.

use super::draft::{Draft, Wire};
use crate::input::Stream;
use crate::model::{LeafData, Model, Node, Value};
use crate::spec::{Args, Attribute};

mod activations;
mod arithmetic;
mod logic;
mod movement;
mod normalisation;
mod parts;
mod products;
mod reductions;
mod windows;

/// Applications of rules in one chain.
const MOST: usize = 4;
/// Places that are tried for one application.
const TRIES: usize = 24;

/// An equality, read from one side to the other.
pub struct Rule {
    /// Begins the names of the nodes that it writes, so that a finding tells its chain.
    pub name: &'static str,
    /// The operators whose applications it may replace.
    pub of: &'static [&'static str],
    /// What replaces the first output. Nothing where the rule does not fit.
    rewrite: fn(&Site) -> Wire,
}

const fn rule(name: &'static str, of: &'static [&'static str], rewrite: fn(&Site) -> Wire) -> Rule {
    Rule { name, of, rewrite }
}

const TABLES: &[&[Rule]] = &[
    arithmetic::RULES,
    logic::RULES,
    activations::RULES,
    reductions::RULES,
    normalisation::RULES,
    products::RULES,
    windows::RULES,
    movement::RULES,
    parts::RULES,
];

fn rules() -> impl Iterator<Item = &'static Rule> {
    TABLES.iter().copied().flatten()
}

/// One application of an operator, and what is to replace it.
pub struct Site<'a> {
    pub node: &'a Node,
    /// Its attributes; the operands are left out.
    pub a: Args<'a>,
    draft: &'a Draft<'a>,
    further: std::cell::RefCell<Vec<(usize, usize)>>,
}

impl<'a> std::ops::Deref for Site<'a> {
    type Target = Draft<'a>;

    fn deref(&self) -> &Draft<'a> {
        self.draft
    }
}

impl<'a> Site<'a> {
    fn new(draft: &'a Draft<'a>, node: &'a Node) -> Site<'a> {
        let (model, attributes) = (draft.model, &node.attributes);
        let a = Args {
            operands: Vec::new(),
            operand_dtypes: node.operands.iter().map(|value| value.map(|value| model.values[value].dtype)).collect(),
            attributes,
            output_dtypes: node.outputs.iter().map(|&value| model.values[value].dtype).collect(),
            opset: model.opset,
            wide: true,
            accumulate: None,
        };
        Site { node, a, draft, further: Default::default() }
    }

    /// An operand.
    pub fn x(&self, index: usize) -> Wire {
        self.node.operands.get(index).copied().flatten()
    }

    /// The first operand and the second of an operator that has just these.
    pub fn pair(&self) -> Option<(Wire, Wire)> {
        (self.node.operands.len() == 2).then(|| (self.x(0), self.x(1)))
    }

    pub fn output(&self) -> &'a Value {
        &self.model.values[self.node.outputs[0]]
    }

    /// `wire`, if it has the shape of the output: that it was broadcast with nothing larger.
    pub fn unbroadcast(&self, wire: Wire) -> Wire {
        wire.filter(|_| self.shape(wire).as_ref() == Some(&self.output().shape))
    }

    /// An integer attribute as an axis of the first operand.
    pub fn axis(&self, default: i64) -> Option<usize> {
        let rank = self.rank(self.x(0))?;
        usize::try_from(Args::from_front(self.a.int("axis", default), rank)).ok()
    }

    /// The application of one of the `operators` that computes a value.
    pub fn behind(&self, wire: Wire, operators: &[&str]) -> Option<Site<'a>> {
        let node = self.producer(wire).filter(|node| operators.contains(&node.spec.name))?;
        Some(Site::new(self.draft, node))
    }

    /// The same operator with other operands.
    pub fn again(&self, operands: &[Wire]) -> Wire {
        self.like(self.node, operands, None)
    }

    /// Replaces a further output as well.
    pub fn replace(&self, output: usize, wire: Wire) -> Option<()> {
        self.further.borrow_mut().push((wire?, self.node.outputs[output]));
        Some(())
    }

    /// A float attribute as a constant of the type of `like`.
    pub fn float(&self, like: Wire, name: &str, default: f32) -> Wire {
        self.number(like, self.a.float(name, default))
    }
}

/// One to four applications of random rules.
pub fn rewrite(model: &mut Model, data: &mut LeafData, stream: &mut Stream) -> bool {
    let mut touched = Vec::new();
    for _ in 0..1 + stream.below(MOST as u64) {
        let near = stream.below(2) == 1;
        let written =
            (near && step(model, data, stream, &mut touched, true)) || step(model, data, stream, &mut touched, false);
        if !written {
            break;
        }
    }
    !touched.is_empty()
}

/// Applies a random rule at a random place, one that computes a value in `touched` if it is to be `near`; adds the values
/// that were written.
fn step(model: &mut Model, data: &mut LeafData, stream: &mut Stream, touched: &mut Vec<usize>, near: bool) -> bool {
    let open = |index: &usize| {
        let outputs = &model.nodes[*index].outputs;
        !model.in_region(*index) && (!near || outputs.iter().any(|value| touched.contains(value)))
    };
    let places = (0..model.nodes.len()).filter(open);
    let fitting = |index: usize| {
        let name = model.nodes[index].spec.name;
        rules().filter(move |rule| rule.of.contains(&name)).map(move |rule| (index, rule))
    };
    let mut sites: Vec<(usize, &Rule)> = places.flat_map(fitting).collect();
    for _ in 0..TRIES.min(sites.len()) {
        let (index, rule) = sites.swap_remove(stream.below(sites.len() as u64) as usize);
        if let Some(values) = apply(rule, model, data, index, stream) {
            touched.extend(values);
            return true;
        }
    }
    false
}

/// Replaces the node at `at` as a rule says; the values that were written. None where the rule does not fit.
fn apply(rule: &Rule, model: &mut Model, data: &mut LeafData, at: usize, stream: &mut Stream) -> Option<Vec<usize>> {
    let draft = Draft::new(model, data, stream);
    let site = Site::new(&draft, &model.nodes[at]);
    let first = (rule.rewrite)(&site)?;
    let wanted: Vec<(usize, usize)> =
        std::iter::once((first, site.node.outputs[0])).chain(site.further.take()).collect();
    // Outputs that nothing reads may stay without a replacement.
    let used = |value: &usize| {
        model.outputs.contains(value) || model.nodes.iter().any(|node| node.operands.contains(&Some(*value)))
    };
    let lost = |value: &&usize| used(value) && wanted.iter().all(|(_, old)| old != *value);
    if site.node.outputs.iter().find(lost).is_some() {
        return None;
    }
    let mut added = draft.finish();
    let mut replaced: Vec<(usize, usize)> = Vec::new();
    for (new, old) in wanted {
        let free = added.computes(new) && replaced.iter().all(|(taken, _)| *taken != new);
        replaced.push((if free { new } else { added.identity(model, new) }, old));
    }
    let (count, _) = added.insert(rule.name, model, data, at, &replaced, replaced[0].0);
    model.remove_node(at + count);
    let written = model.nodes[at..at + count].iter().flat_map(|node| node.outputs.clone()).collect();
    sweep(model);
    Some(written)
}

/// Takes away nodes that nothing reads any more.
fn sweep(model: &mut Model) {
    for at in (0..model.nodes.len()).rev() {
        let read = |value: &usize| {
            let by = |node: &Node| node.operands.contains(&Some(*value));
            let control = model.regions.iter().any(|region| region.operands().contains(&Some(*value)));
            model.outputs.contains(value) || control || model.nodes[at + 1..].iter().any(by)
        };
        if !model.in_region(at) && !model.nodes[at].outputs.iter().any(read) {
            model.remove_node(at);
        }
    }
}

/// Integers as an attribute.
fn ints(values: impl IntoIterator<Item = i64>) -> Attribute<i64> {
    Attribute::Ints(values.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Case;
    use crate::input::{self, mix};
    use crate::limits::NEWEST_OPSET;
    use crate::ops::{self, Choice};
    use crate::reference::{self, Defect, Precision};
    use crate::support::Focus;
    use crate::swarm::{Sizes, Swarm};
    use crate::{graph, search};

    /// Random models tried for each rule.
    const CASES: u64 = 4000;
    /// Those with empty tensors.
    const EMPTY_CASES: u64 = 120;
    /// Applications of each rule that are checked.
    const WANTED: usize = 6;

    /// The case of a model, if the data are valid for it.
    fn valid(model: Model, data: LeafData) -> Result<Option<Case>, Defect> {
        let wide = reference::run(&model, &data, Precision::Wide)?;
        if !search::is_valid(&model, &wide)? {
            return Ok(None);
        }
        Case::with_data(model, data, wide).map(Some)
    }

    /// A model of the operators that rules of one table replace, mostly those of `rule`.
    fn grow(rule: &Rule, table: &[Rule], seed: u64, empty: bool) -> Option<Case> {
        let records = if empty { 1 } else { 1 + (seed % 6) as usize };
        let input = input::random(seed, records);
        let swarm = Swarm::new(&input.header);
        let near: Vec<&str> =
            table.iter().flat_map(|rule| rule.of).copied().chain(["Concat", "Mul", "Sigmoid"]).collect();
        let choose = |record: &input::Record| {
            let byte = mix(u64::from_le_bytes(record[8..].try_into().expect("eight bytes"))) as usize;
            let names = if byte.is_multiple_of(3) { &near[..] } else { rule.of };
            Choice::Operator(ops::by_name(names[byte / 3 % names.len()]).expect("rules name operators"))
        };
        let opset = if seed.is_multiple_of(2) { swarm.opset } else { NEWEST_OPSET };
        let sizes = if empty { Sizes::Empty } else { swarm.sizes };
        let swarm = Swarm { focus: Focus::NONE, opset, fresh: 8, exact: false, sizes, ..swarm };
        let model = graph::grow_with(&swarm, &input.records, choose).model();
        if model.nodes.is_empty() {
            return None;
        }
        let found = search::search(&model, seed).expect("the reference runs");
        Some(Case::with_data(model, found.data, found.values?).expect("the reference runs"))
    }

    #[derive(Default)]
    struct Counts {
        fitted: usize,
        checked: usize,
        judged: usize,
        elements: usize,
    }

    /// Applies a rule at every node of a case that it may fit. Each application must declare what is computed, and change no
    /// value by more than the bounds allow.
    fn check(rule: &Rule, case: &Case, seed: u64, stream: &mut Stream, counts: &mut Counts) -> Vec<String> {
        let mut failures = Vec::new();
        for at in (0..case.model.nodes.len()).filter(|&at| rule.of.contains(&case.model.nodes[at].spec.name)) {
            let (mut model, mut data) = (case.model.clone(), case.data.clone());
            if apply(rule, &mut model, &mut data, at, stream).is_none() {
                continue;
            }
            counts.fitted += 1;
            let shown = format!("{}, seed {seed}\n{}{}", rule.name, graph::text(&case.model), graph::text(&model));
            let variant = match valid(model, data) {
                Ok(Some(variant)) => variant,
                Ok(None) => continue,
                Err(defect) => {
                    failures.push(format!("{defect}: {shown}"));
                    continue;
                }
            };
            counts.checked += 1;
            counts.elements += variant.expectation.elements;
            counts.judged += variant.expectation.judged;
            if let Some((output, element)) = case.expectation.contradiction(&variant.expectation) {
                failures.push(format!("output {output}, element {element}: {shown}"));
            }
        }
        failures
    }

    /// Every rule fits somewhere.
    #[test]
    fn every_rule_is_an_equality() {
        let _no_grad = reference::init();
        let mut failures = Vec::new();
        for (table, rule) in TABLES.iter().flat_map(|table| table.iter().map(move |rule| (table, rule))) {
            let mut counts = Counts::default();
            for seed in 0..CASES {
                let Some(mut case) = grow(rule, table, seed, false) else { continue };
                let mut stream = Stream::new(seed);
                if seed % 3 == 2 {
                    let (mut model, mut data) = (case.model.clone(), case.data.clone());
                    super::rewrite(&mut model, &mut data, &mut stream);
                    let Ok(Some(rewritten)) = valid(model, data) else { continue };
                    case = rewritten;
                }
                failures.extend(check(rule, &case, seed, &mut stream, &mut counts));
                if counts.checked >= WANTED {
                    break;
                }
            }
            let Counts { fitted, checked, judged, elements } = counts;
            eprintln!("{:60} fitted {fitted:4} valid {checked:4} judged {judged}/{elements}", rule.name);
            if checked == 0 {
                failures.push(format!("{} never fits", rule.name));
            }
        }
        assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    }

    #[test]
    fn rules_hold_of_empty_tensors() {
        let _no_grad = reference::init();
        let (mut failures, mut counts) = (Vec::new(), Counts::default());
        for (table, rule) in TABLES.iter().flat_map(|table| table.iter().map(move |rule| (table, rule))) {
            for seed in 0..EMPTY_CASES {
                if let Some(case) = grow(rule, table, seed, true) {
                    failures.extend(check(rule, &case, seed, &mut Stream::new(seed), &mut counts));
                }
            }
        }
        assert!(counts.checked > 1000, "{} applications", counts.checked);
        assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    }
}
