//! A model with symbolic sizes takes inputs of other sizes, and nothing else about it changes.

use crate::{RECORDS, shown};
use graphsmith::case::{self, Case};
use graphsmith::input;
use graphsmith::reference;
use graphsmith::spec::Role;

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

/// The reference checks what the specifications declare for the other sizes: their laws hold for all sizes, not only for
/// those that the discrete choices were made with.
#[test]
fn both_runs_are_of_the_same_bytes() {
    let _no_grad = reference::init();
    let mut again = 0;
    for seed in 0..INPUTS {
        let case = Case::build(&symbolic(seed)).expect("the reference follows its specification");
        let Ok(Case { onnx, again: Some(second), .. }) = case else { continue };
        again += 1;
        assert_eq!(second.onnx, onnx, "{}", shown(seed, &second.model));
    }
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
