//! What a node depends on.

use crate::model::Model;

/// What may be changed to make a node valid, and what changes with it.
pub struct Cone {
    /// The leaves without fixed elements that the node depends on.
    pub leaves: Vec<usize>,
    /// The nodes up to it that depend on any of these leaves, in order.
    pub nodes: Vec<usize>,
}

impl Cone {
    /// The whole model.
    pub fn whole(model: &Model) -> Cone {
        let free = |&leaf: &usize| model.leaves[leaf].content.is_none();
        Cone { leaves: (0..model.leaves.len()).filter(free).collect(), nodes: (0..model.nodes.len()).collect() }
    }

    /// The cone of `node`.
    pub fn of(model: &Model, node: usize) -> Cone {
        let mut read = vec![false; model.values.len()];
        let ancestors = model.ancestors(&model.nodes[node].outputs);
        for earlier in model.nodes.iter().zip(ancestors).filter_map(|(node, needed)| needed.then_some(node)) {
            earlier.operands.iter().flatten().for_each(|&operand| read[operand] = true);
        }
        let free = |&leaf: &usize| model.leaves[leaf].content.is_none() && read[model.leaves[leaf].value];
        let leaves: Vec<usize> = (0..model.leaves.len()).filter(free).collect();
        let mut moved = vec![false; model.values.len()];
        leaves.iter().for_each(|&leaf| moved[model.leaves[leaf].value] = true);
        let mut nodes = Vec::new();
        for (index, earlier) in model.nodes[..=node].iter().enumerate() {
            if earlier.operands.iter().flatten().any(|&operand| moved[operand]) {
                earlier.outputs.iter().for_each(|&output| moved[output] = true);
                nodes.push(index);
            }
        }
        Cone { leaves, nodes }
    }
}
