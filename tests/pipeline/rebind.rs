//! A model with symbolic sizes takes inputs of other sizes, and nothing else about it changes.

use crate::{RECORDS, shown};
use graphsmith::case::{self, Case};
use graphsmith::input;
use graphsmith::onnx;
use graphsmith::reference;
use graphsmith::spec::Role;
use graphsmith::tensor::TensorData;

const INPUTS: u64 = 300;

fn symbolic(seed: u64) -> input::Input {
    let mut input = input::random(seed, RECORDS);
    input.header[7] |= 7;
    input
}

#[test]
fn other_sizes_leave_the_operators_and_constants() {
    let mut rebound = 0;
    for seed in 0..INPUTS {
        let generated = case::generate(&symbolic(seed));
        let (model, Some(other)) = (generated.model, generated.rebound) else { continue };
        rebound += 1;
        let same = |differs: bool| assert!(!differs, "{}\nand\n{}", shown(seed, &model), shown(seed, &other));
        same(model.nodes.len() != other.nodes.len() || model.leaves.len() != other.leaves.len());
        for (node, other) in model.nodes.iter().zip(&other.nodes) {
            same(node.spec.code != other.spec.code || node.operands != other.operands);
            same(node.attributes != other.attributes);
        }
        for (leaf, other_leaf) in model.leaves.iter().zip(&other.leaves) {
            let fixed = leaf.role != Role::Input || leaf.content.is_some();
            same(fixed && model.values[leaf.value] != other.values[other_leaf.value]);
            same(leaf.content != other_leaf.content);
        }
        let sizes = |model: &graphsmith::model::Model| -> Vec<Vec<usize>> {
            model.inputs().map(|(_, leaf)| model.values[leaf.value].shape.clone()).collect()
        };
        same(sizes(&model) == sizes(&other));
    }
    assert!(rebound > INPUTS / 2, "only {rebound} of {INPUTS} models can take inputs of other sizes");
}

/// Only zeros in a branch that is not taken may show a size.
#[test]
fn both_runs_are_of_the_same_bytes() {
    let (mut rebound, mut same) = (0, 0);
    for seed in 0..INPUTS {
        let generated = case::generate(&symbolic(seed));
        let Some(other) = generated.rebound else { continue };
        let data = generated.model.sample(generated.seed, 0);
        let other_data = data.iter().zip(&other.leaves).map(|(data, leaf)| match leaf.role {
            Role::Input => TensorData::zeros(data.dtype, &other.values[leaf.value].shape),
            _ => data.clone(),
        });
        rebound += 1;
        same += u64::from(onnx::encode(&generated.model, &data) == onnx::encode(&other, &other_data.collect()));
    }
    assert!(rebound > INPUTS / 2 && same * 100 >= rebound * 95, "{same} of {rebound} have the same bytes");
}

/// The reference checks what the specifications declare for the other sizes: their laws hold for all sizes, not only for
/// those that the discrete choices were made with.
#[test]
fn most_symbolic_cases_run_twice() {
    let _no_grad = reference::init();
    let again = (0..INPUTS).filter(|&seed| {
        let case = Case::build(&symbolic(seed)).expect("the reference follows its specification");
        matches!(case, Ok(Case { again: Some(_), .. }))
    });
    let again = again.count() as u64;
    assert!(again > INPUTS * 2 / 5, "only {again} of {INPUTS} cases have a second run");
}

#[test]
fn fixed_sizes_are_not_rebound() {
    for seed in 0..50 {
        let mut input = symbolic(seed);
        input.header[7] &= 0xf8;
        assert!(case::generate(&input).rebound.is_none());
    }
}
