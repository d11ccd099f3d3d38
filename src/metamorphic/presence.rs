//! What is known when a model is compiled: outputs, constants, sizes.

use crate::input::Stream;
use crate::model::{LeafData, Model};
use crate::spec::Role;

/// Makes outputs of values that nodes outside of control flow compute: one of them, or all.
pub fn expose(model: &mut Model, _: &mut LeafData, stream: &mut Stream) -> bool {
    let inside = |index: &usize| model.regions.iter().any(|region| region.nodes.contains(index));
    let outside = (0..model.nodes.len()).filter(|index| !inside(index)).map(|index| &model.nodes[index]);
    let mut hidden: Vec<usize> = outside.flat_map(|node| node.outputs.iter().copied()).collect();
    hidden.retain(|value| !model.outputs.contains(value) && !model.values[*value].name.is_empty());
    if hidden.is_empty() {
        return false;
    }
    if stream.below(2) == 0 {
        hidden = vec![hidden[stream.below(hidden.len() as u64) as usize]];
    }
    model.outputs.extend(hidden);
    true
}

/// Gives leaves of one role another, one of them or all. Those whose content the specification fixed stay: a backend that
/// takes a shape as a constant need not take it as an input.
fn change_role(model: &mut Model, stream: &mut Stream, from: Role, to: Role) -> bool {
    let of = |leaf: &crate::model::Leaf| leaf.role == from && leaf.content.is_none();
    let mut leaves: Vec<usize> = (0..model.leaves.len()).filter(|&index| of(&model.leaves[index])).collect();
    if leaves.is_empty() {
        return false;
    }
    if stream.below(2) == 0 {
        leaves = vec![leaves[stream.below(leaves.len() as u64) as usize]];
    }
    for index in leaves {
        model.leaves[index].role = to;
        model.leaves[index].constant_node = false;
    }
    true
}

pub fn fold(model: &mut Model, _: &mut LeafData, stream: &mut Stream) -> bool {
    change_role(model, stream, Role::Input, Role::Initializer)
}

pub fn unfold(model: &mut Model, _: &mut LeafData, stream: &mut Stream) -> bool {
    change_role(model, stream, Role::Initializer, Role::Input)
}

pub fn symbolic(model: &mut Model, _: &mut LeafData, _: &mut Stream) -> bool {
    model.symbolic = !model.symbolic;
    model.inputs().any(|(_, leaf)| model.values[leaf.value].shape.iter().any(|&size| size != 1))
}
