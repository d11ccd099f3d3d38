//! Random bytes reach every operator, element type, backend and kind of structure. What cannot be reached is not tested,
//! however many hours a run takes.

use crate::{RECORDS, generate};
use graphsmith::backend::{self, Level};
use graphsmith::case::Case;
use graphsmith::dtype::DTypes;
use graphsmith::graph::{self, Graph, Vertex};
use graphsmith::harness::Harness;
use graphsmith::input;
use graphsmith::limits::MAX_RANK;
use graphsmith::model::Model;
use graphsmith::spec::Role;
use graphsmith::{ops, reference};
use petgraph::visit::EdgeRef;
use std::collections::BTreeMap;

/// In how many models each thing occurs.
#[derive(Default)]
struct Histogram(BTreeMap<String, usize>);

impl Histogram {
    fn expect(names: impl IntoIterator<Item = String>) -> Histogram {
        Histogram(names.into_iter().map(|name| (name, 0)).collect())
    }

    /// Counts each name once; names that nobody expects are not counted.
    fn count(&mut self, names: impl IntoIterator<Item = String>) {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if let Some(count) = self.0.get_mut(&name) {
                *count += 1;
            }
        }
    }

    fn below(&self, least: usize) -> Vec<&str> {
        self.0.iter().filter(|(_, count)| **count < least).map(|(name, _)| name.as_str()).collect()
    }

    #[track_caller]
    fn assert_at_least(&self, least: usize, inputs: u64) {
        let missing = self.below(least);
        assert!(
            missing.is_empty(),
            "in {inputs} inputs fewer than {least} have {missing:?}; all counts: {:#?}",
            self.0
        );
    }
}

#[test]
fn random_bytes_reach_every_operator_and_element_type() {
    // What no backend takes yet comes only in the cases that are for none of them.
    const INPUTS: u64 = 12_000;
    let operators = ops::ALL.iter().map(|spec| spec.name.to_owned());
    let taken = ops::ALL.iter().fold(DTypes::of(&[]), |all, spec| all.or(spec.dtypes));
    let mut met = Histogram::expect(operators.chain(taken.iter().map(|dtype| dtype.to_string())));
    let mut inputs = 0;
    while inputs < INPUTS && !met.below(3).is_empty() {
        let model = generate(inputs).model;
        inputs += 1;
        met.count(model.nodes.iter().map(|node| node.spec.name.to_owned()));
        met.count(model.values.iter().map(|value| value.dtype.to_string()));
    }
    met.assert_at_least(3, inputs);
}

const SIZES: [usize; 10] = [0, 1, 7, 8, 9, 15, 16, 17, 31, 33];

#[test]
fn random_bytes_reach_every_structure() {
    const INPUTS: u64 = 500;
    let structures = [
        "input",
        "initializer",
        "forward insertion",
        "backward insertion",
        "a value used twice",
        "a used value as output",
        "several outputs",
        "an odd size",
        "a prime size above 10",
        "a size between the tables' entries",
        "If",
        "Loop",
        "Scan",
    ];
    let ranks = (0..=MAX_RANK).map(|rank| format!("rank {rank}"));
    let sizes = SIZES.map(|size| format!("size {size}"));
    let mut met = Histogram::expect(structures.map(str::to_owned).into_iter().chain(ranks).chain(sizes));
    // Constants come only with operators that have integer operands of fixed content.
    if (0..INPUTS).any(|seed| generate(seed).model.leaves.iter().any(|leaf| leaf.role == Role::Constant)) {
        met.0.insert("constant".to_owned(), 0);
    }
    for seed in 0..INPUTS {
        let graph = graph::grow(&input::random(seed, RECORDS));
        met.count(insertions(&graph).into_iter().map(str::to_owned));
        met.count(structure(&graph.model()));
    }
    // Each must be no rarity: at least 1 % of all inputs.
    met.assert_at_least(INPUTS as usize / 100, INPUTS);
}

/// What the hints prefer must be left of the sizes once the laws are solved.
#[test]
fn sizes_spread_after_solving() {
    const INPUTS: u64 = 1000;
    let models = (0..INPUTS).map(|seed| generate(seed).model);
    let sizes: Vec<usize> = models.flat_map(|model| model.values).flat_map(|value| value.shape).collect();
    let share = |size: usize| sizes.iter().filter(|&&other| other == size).count() as f64 / sizes.len() as f64;
    assert!(share(1) < 0.3, "{:.3} of all sizes are 1", share(1));
    for width in [7, 8, 9, 15, 16, 17, 31, 33] {
        assert!(share(width) > 0.004, "only {:.4} of all sizes are {width}", share(width));
    }
}

/// An operator behind values comes after all its operands; one in front of a graph input takes that input's index,
/// and its new leaves come later.
fn insertions(graph: &Graph) -> Vec<&'static str> {
    let mut found = Vec::new();
    for index in graph.dag.node_indices().filter(|&index| matches!(graph.dag[index], Vertex::Operator(_))) {
        let later = graph.dag.edges_directed(index, petgraph::Direction::Incoming).any(|edge| edge.source() > index);
        found.push(if later { "backward insertion" } else { "forward insertion" });
    }
    found
}

fn structure(model: &Model) -> Vec<String> {
    let mut found: Vec<String> = model
        .leaves
        .iter()
        .map(|leaf| match leaf.role {
            Role::Input => "input".to_owned(),
            Role::Initializer => "initializer".to_owned(),
            Role::Constant => "constant".to_owned(),
        })
        .collect();
    let uses = |value: usize| model.nodes.iter().flat_map(|node| &node.operands).filter(|o| **o == Some(value)).count();
    let mut add = |holds: bool, name: &str| {
        if holds {
            found.push(name.to_owned());
        }
    };
    add((0..model.values.len()).any(|value| uses(value) > 1), "a value used twice");
    add(model.outputs.iter().any(|&output| uses(output) > 0), "a used value as output");
    add(model.outputs.len() > 1, "several outputs");
    for region in &model.regions {
        add(true, region.operator());
    }
    for value in &model.values {
        add(true, &format!("rank {}", value.shape.len()));
        for &size in &value.shape {
            add(true, &format!("size {size}"));
            add(size % 2 == 1 && size > 1, "an odd size");
            add(size > 10 && (2..size).all(|divisor| size % divisor != 0), "a prime size above 10");
            add(size > 33 && size % 8 != 0, "a size between the tables' entries");
        }
    }
    found
}

#[test]
fn random_bytes_reach_every_backend_and_level() {
    const INPUTS: u64 = 100;
    let _no_grad = reference::init();
    let mut harness = Harness::new().expect("every backend of this build opens");
    let places = backend::TABLE.iter().flat_map(|(id, _)| Level::ALL.map(|level| format!("{id} {level}")));
    let mut met = Histogram::expect(places);
    let mut inputs = 0;
    while inputs < INPUTS && !met.below(3).is_empty() {
        let case = Case::build(&input::random(inputs, 4)).unwrap();
        inputs += 1;
        let Ok(case) = case else { continue };
        let largest = reference::largest_integer(&case.model, &case.wide);
        let outcomes = harness.run(&case.model, &case.onnx, &case.model.input_data(&case.data), largest);
        let ran = outcomes.iter().filter(|outcome| outcome.result.is_ok());
        met.count(ran.map(|outcome| format!("{} {}", outcome.backend, outcome.level)));
    }
    met.assert_at_least(3, inputs);
}
