//! Export of control flow: a region of the flat model as one node with bodies.

use super::proto::{AttributeProto, AttributeType, GraphProto, NodeProto, ValueInfoProto};
use super::{export_attribute, export_node, export_tensor, export_type, unnamed_sizes};
use crate::model::{Control, Model, Region, Repeat, Value};
use crate::schema;
use crate::spec::Attribute;
use crate::tensor::TensorData;
use std::collections::BTreeMap;

/// The names that values of the flat model have inside a body. What is not here is captured from outside.
type Renamed = BTreeMap<String, String>;

/// The node of a region. `number` tells its names from those of other regions: all names of a model differ.
pub fn export_region(model: &Model, region: &Region, number: usize) -> NodeProto {
    let name = |value: usize| model.values[value].name.clone();
    let attribute = match &region.control {
        Control::If { taken, .. } => branches(model, region, *taken, number),
        Control::Repeat(repeat) => {
            let mut attributes = vec![graph_attribute("body", body(model, repeat, number))];
            if repeat.scanned.is_some() {
                attributes.push(export_attribute("num_scan_inputs", &Attribute::Int(1)));
            }
            attributes
        }
    };
    let mut input: Vec<String> =
        region.operands().iter().map(|operand| operand.map_or_else(String::new, name)).collect();
    while input.last().is_some_and(String::is_empty) {
        input.pop();
    }
    NodeProto {
        input,
        output: region.outputs(model).into_iter().map(name).collect(),
        name: format!("r{number}"),
        op_type: region.operator().to_owned(),
        attribute,
        ..Default::default()
    }
}

fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.to_owned(), g: Some(graph), ..Default::default() };
    attribute.set_type(AttributeType::Graph);
    attribute
}

fn renamed_type(model: &Model, value: &Value, name: String) -> ValueInfoProto {
    unnamed_sizes(model, &Value { name, ..value.clone() })
}

/// Nodes of the flat model with the names that their values have in the body.
fn renamed_nodes(model: &Model, nodes: impl IntoIterator<Item = usize>, names: &Renamed) -> Vec<NodeProto> {
    let rename = |name: &mut String| {
        // What is left out has no name.
        if let Some(inner) = names.get(name).filter(|_| !name.is_empty()) {
            name.clone_from(inner);
        }
    };
    let node = |index: usize| {
        let mut node = export_node(model, &model.nodes[index]);
        node.input.iter_mut().chain(&mut node.output).for_each(rename);
        node
    };
    nodes.into_iter().map(node).collect()
}

fn identity(from: String, to: String) -> NodeProto {
    NodeProto {
        input: vec![from],
        output: vec![to.clone()],
        name: format!("n_{to}"),
        op_type: "Identity".to_owned(),
        ..Default::default()
    }
}

/// The branch that is taken holds the nodes; the other hands on something of the same types.
fn branches(model: &Model, region: &Region, taken: bool, number: usize) -> Vec<AttributeProto> {
    let inner = |value: &Value| format!("r{number}_{}", value.name);
    let names: Renamed =
        region.produced(model).map(|value| (model.values[value].name.clone(), inner(&model.values[value]))).collect();
    let outputs = region.outputs(model);
    let of = |value: usize| renamed_type(model, &model.values[value], inner(&model.values[value]));
    let held = GraphProto {
        node: renamed_nodes(model, region.nodes.clone(), &names),
        name: format!("r{number}_taken"),
        output: outputs.iter().map(|&value| of(value)).collect(),
        ..Default::default()
    };
    let other = |value: &Value| format!("r{number}_other_{}", value.name);
    let idle = GraphProto {
        node: outputs.iter().map(|&value| substitute(model, value, other(&model.values[value]))).collect(),
        name: format!("r{number}_other"),
        output: outputs
            .iter()
            .map(|&value| renamed_type(model, &model.values[value], other(&model.values[value])))
            .collect(),
        ..Default::default()
    };
    let (then, otherwise) = if taken { (held, idle) } else { (idle, held) };
    vec![graph_attribute("then_branch", then), graph_attribute("else_branch", otherwise)]
}

/// A node that gives some value of the type of `value`: a leaf of the model, or else zeros.
fn substitute(model: &Model, value: usize, name: String) -> NodeProto {
    let Value { dtype, shape, .. } = &model.values[value];
    let like = |leaf: &&crate::model::Leaf| {
        let leaf = &model.values[leaf.value];
        leaf.dtype == *dtype && leaf.shape == *shape
    };
    let identity_takes =
        schema::signature("Identity", model.opset).is_some_and(|it| it.allows([Some(*dtype)], [*dtype]));
    if let Some(leaf) = model.leaves.iter().find(like).filter(|_| identity_takes) {
        return identity(model.values[leaf.value].name.clone(), name);
    }
    let mut zeros = AttributeProto { name: "value".to_owned(), ..Default::default() };
    zeros.t = Some(export_tensor("", &TensorData::zeros(*dtype, shape)));
    zeros.set_type(AttributeType::Tensor);
    NodeProto {
        output: vec![name.clone()],
        name: format!("n_{name}"),
        op_type: "Constant".to_owned(),
        attribute: vec![zeros],
        ..Default::default()
    }
}

/// The body of a Loop or Scan: the nodes of the first iteration.
fn body(model: &Model, repeat: &Repeat, number: usize) -> GraphProto {
    let inner = |name: &str| format!("r{number}_{name}");
    let value = |index: usize| &model.values[index];
    let mut names: Renamed = repeat.bodies[0]
        .iter()
        .flat_map(|&node| &model.nodes[node].outputs)
        .map(|&output| (value(output).name.clone(), inner(&value(output).name)))
        .collect();
    let state = inner("state");
    let mut input = Vec::new();
    let mut node = Vec::new();
    let mut output = Vec::new();
    if repeat.scanned.is_none() {
        let scalar = |name: String, dtype| export_type(&Value { name, dtype, shape: Vec::new() });
        input.push(scalar(inner("iteration"), crate::dtype::DType::I64));
        input.push(scalar(inner("condition"), crate::dtype::DType::Bool));
        node.push(identity(inner("condition"), inner("condition_out")));
        output.push(scalar(inner("condition_out"), crate::dtype::DType::Bool));
    }
    input.push(renamed_type(model, value(repeat.initial), state.clone()));
    if let Some((_, elements)) = &repeat.scanned {
        names.insert(value(elements[0]).name.clone(), inner("element"));
        input.push(renamed_type(model, value(elements[0]), inner("element")));
    }
    let mut nodes = renamed_nodes(model, repeat.bodies[0].iter().copied(), &names);
    // Only the first step's main operand is the state; elsewhere the same value is a captured one.
    nodes[0].input[0].clone_from(&state);
    node.extend(nodes);
    let after = value(repeat.states[0]);
    output.push(renamed_type(model, after, names[&after.name].clone()));
    if let Some((each, _)) = &repeat.collected {
        let element = value(each[0]);
        node.push(identity(names[&element.name].clone(), inner("collected")));
        output.push(renamed_type(model, element, inner("collected")));
    }
    GraphProto { node, name: inner("body"), input, output, ..Default::default() }
}
