//! Each operator alone: it builds, solves, and the reference computes the declared types in both precisions.

use graphsmith::graph::{self, Graph};
use graphsmith::input::{self, Input};
use graphsmith::model::Model;
use graphsmith::onnx;
use graphsmith::ops::{self, Choice, patterns};
use graphsmith::reference::{self, Precision};
use graphsmith::spec::OpSpec;
use graphsmith::support::Focus;
use graphsmith::swarm::Swarm;
use std::collections::BTreeMap;

/// Random one-operator inputs tried for each operator; OPERATOR=Conv in the environment tries just that one.
const CASES: u64 = 300;

fn grow(spec: &'static OpSpec, input: &Input) -> Graph {
    let swarm = Swarm::new(&input.header);
    let swarm = Swarm { focus: Focus::NONE, opset: swarm.opset.max(spec.since), ..swarm };
    graph::grow_with(&swarm, &input.records, |_| Choice::Operator(spec))
}

fn selected() -> Vec<&'static OpSpec> {
    let only = std::env::var("OPERATOR").ok();
    ops::ALL.iter().copied().filter(|spec| only.as_deref().is_none_or(|name| name == spec.name)).collect()
}

fn check(model: &Model, seed: u64) -> Result<(), String> {
    let data = model.sample(seed, 0);
    for precision in [Precision::Declared, Precision::Wide] {
        reference::run(model, &data, precision)
            .map_err(|defect| format!("{precision:?}: {defect}\n{}", graph::text(model)))?;
    }
    Ok(())
}

#[test]
fn every_operator_computes_what_it_declares() {
    let _no_grad = reference::init();
    let mut failures = Vec::new();
    for spec in selected() {
        let (mut kept, mut skips) = (0, BTreeMap::new());
        for seed in 0..CASES {
            let input = input::random(seed << 8 | u64::from(spec.code), 1);
            let graph = grow(spec, &input);
            match graph.fates[0] {
                Ok(_) => kept += 1,
                Err(skip) => *skips.entry(skip).or_insert(0) += 1,
            }
            if let Err(failure) = check(&graph.model(), seed) {
                failures.push(failure);
                break;
            }
        }
        // The exact lane (two fifths of the headers) shuts out operators that only compute floats.
        if kept < CASES * 2 / 5 {
            failures.push(format!("{}: only {kept} of {CASES} records kept, {skips:?}", spec.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn operators_chain() {
    let _no_grad = reference::init();
    for seed in 0..500 {
        let graph = graph::grow(&input::random(seed, 12));
        if let Err(failure) = check(&graph.model(), seed) {
            panic!("seed {seed}: {failure}");
        }
    }
}

#[test]
fn codes_and_names_are_unique_and_specifications_complete() {
    let mut codes = BTreeMap::new();
    let mut names = BTreeMap::new();
    for spec in ops::ALL.iter() {
        assert!(!spec.doc.is_empty() && !spec.name.is_empty(), "{spec:?}");
        assert!(codes.insert(spec.code, spec.name).is_none(), "code {:#x} is used twice", spec.code);
        assert!(names.insert(spec.name, spec.code).is_none(), "{} stands twice", spec.name);
    }
    for pattern in patterns::TABLE {
        assert!(codes.insert(pattern.code, pattern.name).is_none(), "code {:#x} is used twice", pattern.code);
    }
}

/// Each pattern is often placed to its last step, which is what it is for.
#[test]
fn patterns_are_placed_whole() {
    let _no_grad = reference::init();
    for pattern in patterns::TABLE {
        let (mut whole, mut begun) = (0, 0);
        for seed in 0..CASES {
            let input = input::random(seed << 8 | u64::from(pattern.code), 1);
            let swarm = Swarm { focus: Focus::NONE, exact: false, opset: 21, ..Swarm::new(&input.header) };
            let graph = graph::grow_with(&swarm, &input.records, |_| Choice::Pattern(pattern));
            begun += usize::from(graph.fates[0].is_ok());
            whole += usize::from(graph.operators().count() == pattern.steps.len());
            if let Err(failure) = check(&graph.model(), seed) {
                panic!("{} {seed}: {failure}", pattern.name);
            }
        }
        assert!(whole * 3 > CASES as usize, "{}: {whole} whole and {begun} begun of {CASES}", pattern.name);
    }
}

/// Optional outputs are left out now and then, are no graph outputs, and have no name in the file.
#[test]
fn outputs_are_left_out() {
    let _no_grad = reference::init();
    let spec = ops::by_name("Unique").expect("an operator of the catalogue");
    let mut met = 0;
    for seed in 0..CASES {
        let model = grow(spec, &input::random(seed, 1)).model();
        let Some(node) = model.nodes.first() else { continue };
        let omitted = |model: &Model, value: usize| model.values[value].name.is_empty();
        let pattern: Vec<bool> = node.outputs.iter().map(|&value| omitted(&model, value)).collect();
        met += usize::from(pattern.contains(&true));
        assert!(!pattern[0] && !pattern[pattern.len() - 1]);
        assert!(!model.outputs.iter().any(|&value| omitted(&model, value)));
        let data = model.sample(seed, 0);
        let nodes = onnx::export(&model, &data).graph.expect("a graph").node;
        let written = nodes.iter().find(|node| node.op_type == "Unique").expect("its node");
        assert_eq!(written.output.iter().map(String::is_empty).collect::<Vec<_>>(), pattern);
    }
    assert!(met > CASES as usize / 10, "{met} of {CASES}");
}
