//! The fuzzer itself, from bytes to ONNX: valid, deterministic, varied, and small changes stay small.

use graphsmith::case::{self, Generated};
use graphsmith::input::{self, Input};
use graphsmith::model::{LeafData, Model};
use graphsmith::search::fit;
use graphsmith::{graph, onnx};

mod change;
mod determinism;
mod growth;
mod mutation;
mod reach;
mod rebind;
mod robustness;
mod search;
mod wire;

/// Records of an ordinary random input.
const RECORDS: usize = 16;

/// What `seed` alone describes.
fn generate(seed: u64) -> Generated {
    case::generate(&input::random(seed, RECORDS))
}

/// A start for the data, without the search for valid data.
fn sampled(generated: Generated) -> (Model, LeafData) {
    let data = generated.model.sample(generated.seed, 0);
    (generated.model, data)
}

/// The serialized model with searched data: everything that reaches a backend but the inputs.
fn onnx_bytes(input: &Input) -> Vec<u8> {
    let mut generated = case::generate(input);
    let found = fit(&mut generated.model, generated.seed).expect("the reference follows its specification");
    onnx::encode(&generated.model, &found.data)
}

/// The lines of a model that describe nodes, without the names of values: they count up, and so one more leaf
/// renames everything after it.
fn node_lines(model: &Model) -> Vec<String> {
    let ty = |&value: &usize| format!("{}{:?}", model.values[value].dtype, model.values[value].shape);
    let node = |node: &graphsmith::model::Node| {
        let operands: Vec<String> =
            node.operands.iter().map(|operand| operand.as_ref().map_or("-".to_owned(), ty)).collect();
        let outputs: Vec<String> = node.outputs.iter().map(ty).collect();
        format!("{outputs:?} = {}{operands:?} {:?}", node.spec.name, node.attributes)
    };
    model.nodes.iter().map(node).collect()
}

/// A failed assertion about one input shows its graph.
fn shown(seed: u64, model: &Model) -> String {
    format!("seed {seed}:\n{}", graph::text(model))
}

fn median(mut values: Vec<usize>) -> usize {
    values.sort_unstable();
    values[values.len() / 2]
}

fn mean(values: &[usize]) -> f64 {
    values.iter().sum::<usize>() as f64 / values.len() as f64
}
