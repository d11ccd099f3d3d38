//! A model as readable text and as a Graphviz graph.

use crate::model::{Control, Model, Region};
use crate::spec::{Attribute, Role};
use std::fmt::{self, Write};

/// One line per leaf and node: `t3: f32[2,3] = Conv(x0, w1) {strides=[1, 2]}`; outputs are marked with `->`.
pub fn text(model: &Model) -> String {
    let mut text = String::new();
    if !model.nodes.is_empty() {
        let _ = writeln!(text, "   opset {}{}", model.opset, if model.symbolic { ", symbolic sizes" } else { "" });
    }
    for leaf in &model.leaves {
        let role = match leaf.role {
            Role::Input => "input",
            Role::Initializer => "initializer",
            Role::Constant => "constant",
        };
        let node = if leaf.constant_node { " (a Constant node)" } else { "" };
        let _ = write!(text, "   {} = {role}{node}", typed(model, leaf.value));
        if let Some(content) = &leaf.content {
            let elements: Vec<String> = (0..content.len()).map(|i| content.element_text(i)).collect();
            let _ = write!(text, " [{}]", elements.join(", "));
        }
        text.push('\n');
    }
    for (index, node) in model.nodes.iter().enumerate() {
        if let Some(region) = model.regions.iter().find(|region| region.nodes.start == index) {
            let _ = writeln!(text, "   {} {{", heading(model, region));
        }
        let exposed = node.outputs.iter().any(|output| model.outputs.contains(output));
        let outputs: Vec<String> = node.outputs.iter().map(|&output| typed(model, output)).collect();
        let operands: Vec<&str> =
            node.operands.iter().map(|operand| operand.map_or("-", |value| &model.values[value].name)).collect();
        let mark = if exposed { "->" } else { "  " };
        let _ = write!(text, "{mark} {} = {}({})", outputs.join(", "), node.spec.name, operands.join(", "));
        if !node.attributes.is_empty() {
            let attributes: Vec<String> = node.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let _ = write!(text, " {{{}}}", attributes.join(", "));
        }
        text.push('\n');
        if model.regions.iter().any(|region| region.nodes.end == index + 1) {
            text.push_str("   }\n");
        }
    }
    text
}

/// `Loop(c9, t3) -> t8: 3 iterations`: the node that holds the lines up to the brace.
fn heading(model: &Model, region: &Region) -> String {
    let name = |value: usize| model.values[value].name.as_str();
    let operands: Vec<&str> = region.operands().into_iter().map(|operand| operand.map_or("-", name)).collect();
    let outputs: Vec<&str> = region.outputs(model).into_iter().map(name).collect();
    let held = match &region.control {
        Control::If { taken, .. } => format!("the branch for {taken}, which is taken"),
        Control::Repeat(repeat) => format!("{} iterations", repeat.bodies.len()),
    };
    format!("{}({}) -> {}: {held}", region.operator(), operands.join(", "), outputs.join(", "))
}

/// The model in Graphviz's language.
pub fn dot(model: &Model) -> String {
    let mut dot = String::from("digraph model {\n  node [shape=box];\n");
    let mut producer = vec![String::new(); model.values.len()];
    for leaf in &model.leaves {
        let id = format!("v{}", leaf.value);
        let _ = writeln!(dot, "  {id} [label=\"{}\", shape=ellipse];", typed(model, leaf.value));
        producer[leaf.value] = id;
    }
    for (index, node) in model.nodes.iter().enumerate() {
        let attributes: String = node.attributes.iter().map(|(k, v)| format!("\\n{k}={}", quoted(v))).collect();
        let _ = writeln!(dot, "  n{index} [label=\"{}{attributes}\", style=filled];", node.spec.name);
        for operand in node.operands.iter().flatten() {
            let label = if producer[*operand].starts_with('n') { typed(model, *operand) } else { String::new() };
            let _ = writeln!(dot, "  {} -> n{index} [label=\"{label}\"];", producer[*operand]);
        }
        node.outputs.iter().for_each(|&output| producer[output] = format!("n{index}"));
    }
    for &output in &model.outputs {
        let _ = writeln!(dot, "  o{output} [label=\"{}\", shape=ellipse];", typed(model, output));
        let _ = writeln!(dot, "  {} -> o{output};", producer[output]);
    }
    dot.push_str("}\n");
    dot
}

fn quoted(value: &Attribute<i64>) -> String {
    value.to_string().replace('"', "'")
}

fn typed(model: &Model, value: usize) -> String {
    let value = &model.values[value];
    if value.name.is_empty() {
        return "-".to_owned();
    }
    let dims: Vec<String> = value.shape.iter().map(ToString::to_string).collect();
    format!("{}: {}[{}]", value.name, value.dtype, dims.join(","))
}

impl fmt::Display for Attribute<i64> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Attribute::Int(value) => write!(f, "{value}"),
            Attribute::Ints(values) => write!(f, "{values:?}"),
            Attribute::Float(value) => write!(f, "{value:?}"),
            Attribute::Floats(values) => write!(f, "{values:?}"),
            Attribute::Text(value) => write!(f, "{value:?}"),
            Attribute::Tensor(value) => write!(f, "{value:?}"),
            Attribute::Texts(values) => write!(f, "{values:?}"),
        }
    }
}
