//! What grows is lawful and bounded, and a longer input grows more.

use crate::{RECORDS, mean, shown};
use graphsmith::graph::{self, Graph};
use graphsmith::input;
use graphsmith::limits::{MAX_ELEMENTS, MAX_OPERATORS, MAX_RANK, MAX_TOTAL_ELEMENTS, MAX_WORK};
use graphsmith::model::{Model, Node};
use graphsmith::spec::Domain;

const INPUTS: u64 = 600;

#[test]
fn models_are_lawful_well_formed_and_bounded() {
    for seed in 0..INPUTS {
        let graph: Graph = graph::grow(&input::random(seed, RECORDS));
        for law in graph.laws.iter() {
            assert!(law.holds(&graph.vars), "seed {seed}: {law}");
        }
        let kept = graph.fates.iter().filter(|fate| matches!(fate, Ok(Some(_)))).count();
        assert!(graph.operators().count() >= kept, "seed {seed}: an operator for each record that was kept");
        assert_eq!(graph.fates.len(), RECORDS);
        let model = graph.model();
        let problem = bounds(&model).or_else(|| form(&model));
        assert_eq!(problem, None, "{}", shown(seed, &model));
    }
}

/// A bound of `limits` that the model passes.
fn bounds(model: &Model) -> Option<String> {
    let elements = |value: usize| model.values[value].len() as i64;
    let total: i64 = (0..model.values.len()).map(elements).sum();
    let largest = (0..model.values.len()).map(elements).max().unwrap_or(0);
    let rank = model.values.iter().map(|value| value.shape.len()).max().unwrap_or(0);
    let work = |node: &Node| node.outputs.iter().map(|&v| elements(v)).sum::<i64>() * node.accumulate.unwrap_or(1);
    let work = model.nodes.iter().map(work).max().unwrap_or(0);
    match () {
        () if largest > MAX_ELEMENTS => Some(format!("a tensor of {largest} elements")),
        () if total > MAX_TOTAL_ELEMENTS => Some(format!("{total} elements in all")),
        () if work > MAX_WORK => Some(format!("{work} multiply-adds in one operator")),
        () if rank > MAX_RANK => Some(format!("a tensor of rank {rank}")),
        () if model.nodes.len() > MAX_OPERATORS => Some(format!("{} operators", model.nodes.len())),
        () => None,
    }
}

/// A way in which the model is no model.
fn form(model: &Model) -> Option<String> {
    let mut defined = vec![false; model.values.len()];
    // An output that is left out has no name, and no use.
    let omitted = |value: usize| model.values[value].name.is_empty();
    let named = model.values.iter().filter(|value| !value.name.is_empty());
    let mut names: Vec<&str> = named.map(|value| value.name.as_str()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    if names.len() < count {
        return Some("two values of one name".to_owned());
    }
    for leaf in &model.leaves {
        let value = &model.values[leaf.value];
        let typed = leaf.content.as_ref().is_none_or(|data| data.dtype == value.dtype && data.shape == value.shape);
        if std::mem::replace(&mut defined[leaf.value], true) || !typed {
            return Some(format!("the leaf {} is defined twice or holds another type", value.name));
        }
        if matches!(leaf.domain, Domain::Index(bound) if bound < 1) && !value.is_empty() {
            return Some(format!("the leaf {} indexes into nothing", value.name));
        }
    }
    for node in &model.nodes {
        if node.operands.iter().flatten().any(|&operand| !defined[operand]) {
            return Some(format!("{} comes before its operands", node.name));
        }
        if node.outputs.is_empty() || node.outputs.iter().any(|&o| std::mem::replace(&mut defined[o], true)) {
            return Some(format!("{} has no outputs or those of another", node.name));
        }
    }
    let computed = |&output: &usize| model.nodes.iter().any(|node| node.outputs.contains(&output));
    let used = |value: usize| {
        model.outputs.contains(&value)
            || model.nodes.iter().any(|node| node.operands.contains(&Some(value)))
            || model.regions.iter().any(|region| region.operands().contains(&Some(value)))
    };
    let astray = |value: usize| used(value) == omitted(value);
    match () {
        () if !model.outputs.iter().all(computed) => Some("a graph output that no node computes".to_owned()),
        () if !model.nodes.is_empty() && model.outputs.is_empty() => Some("no outputs".to_owned()),
        () => (0..model.values.len()).find(|&v| astray(v)).map(|v| {
            let name = &model.values[v].name;
            if name.is_empty() { "what is left out is used".to_owned() } else { format!("{name} is for nothing") }
        }),
    }
}

#[test]
fn longer_inputs_give_larger_models() {
    let nodes = |records: usize| -> f64 {
        let count = |seed| graph::grow(&input::random(seed, records)).operators().count();
        mean(&(0..100).map(count).collect::<Vec<_>>())
    };
    let lengths = [1, 2, 4, 8, 16, 32];
    let means = lengths.map(nodes);
    // Each doubling of the input gives at least half as much again.
    assert!(means.windows(2).all(|pair| pair[1] > 1.5 * pair[0]), "mean nodes {means:.1?} of {lengths:?} records");
}
