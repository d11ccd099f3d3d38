//! Names, orders and versions that mean nothing.

use crate::input::Stream;
use crate::limits::{NEWEST_OPSET, OLDEST_OPSET};
use crate::model::{LeafData, Model};
use crate::schema;

/// Gives values and nodes names as exporters write them, in an order that is not that of the graph.
pub fn rename(model: &mut Model, _: &mut LeafData, stream: &mut Stream) -> bool {
    let offset = stream.below(1000);
    let number = |index: usize| (index as u64 * 7919 + offset) % 100_003;
    let named = model.values.iter_mut().enumerate().filter(|(_, value)| !value.name.is_empty());
    named.for_each(|(index, value)| value.name = format!("/model/layers.{}/out_0:0", number(index)));
    // No two nodes of one name, but some without any.
    for (index, node) in model.nodes.iter_mut().enumerate() {
        node.name = if index % 3 == 2 { String::new() } else { format!("/model/node.{}", number(index)) };
    }
    true
}

/// Puts the leaves and the nodes into another order that is still topological.
pub fn reorder(model: &mut Model, data: &mut LeafData, stream: &mut Stream) -> bool {
    // The nodes of a region must follow each other, in their order.
    if !model.regions.is_empty() {
        return false;
    }
    let mut leaves: Vec<_> = model.leaves.drain(..).zip(data.drain(..)).collect();
    shuffle(&mut leaves, stream);
    (model.leaves, *data) = leaves.into_iter().unzip();
    let mut computed = vec![false; model.values.len()];
    model.leaves.iter().for_each(|leaf| computed[leaf.value] = true);
    let mut waiting: Vec<_> = model.nodes.drain(..).collect();
    while !waiting.is_empty() {
        let ready = |node: &crate::model::Node| node.operands.iter().flatten().all(|&value| computed[value]);
        let choices: Vec<usize> = (0..waiting.len()).filter(|&index| ready(&waiting[index])).collect();
        let node = waiting.remove(choices[stream.below(choices.len() as u64) as usize]);
        node.outputs.iter().for_each(|&value| computed[value] = true);
        model.nodes.push(node);
    }
    true
}

fn shuffle<T>(items: &mut [T], stream: &mut Stream) {
    for index in (1..items.len()).rev() {
        items.swap(index, stream.below(index as u64 + 1) as usize);
    }
}

/// Another opset in which every operator of the model has the same version.
pub fn other_opset(model: &mut Model, _: &mut LeafData, stream: &mut Stream) -> bool {
    // What the exporter adds counts, too.
    const ADDED: [&str; 2] = ["Constant", "Identity"];
    let version = |name: &str, opset: i64| schema::signature(name, opset).map(|signature| signature.version);
    let nodes = model.nodes.iter().map(|node| node.spec.name);
    let regions = model.regions.iter().map(|region| region.operator());
    let names: Vec<&str> = nodes.chain(regions).chain(ADDED).collect();
    let same = |&opset: &i64| {
        opset != model.opset && names.iter().all(|name| version(name, opset) == version(name, model.opset))
    };
    let opsets: Vec<i64> = (OLDEST_OPSET..=NEWEST_OPSET).filter(same).collect();
    if opsets.is_empty() {
        return false;
    }
    model.opset = opsets[stream.below(opsets.len() as u64) as usize];
    true
}
