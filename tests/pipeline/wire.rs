//! What outlives a release: operator codes, and the ONNX form of a model.

use crate::{generate, sampled, shown};
use graphsmith::model::{LeafData, Model};
use graphsmith::spec::Role;
use graphsmith::tensor::TensorData;
use graphsmith::{onnx, ops};
use std::collections::BTreeMap;
use std::path::Path;

/// Rewrites the golden file with what is new in it.
const BLESS: &str = "GRAPHSMITH_BLESS";

#[test]
fn operator_codes_are_permanent() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/op-codes.txt");
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let patterns = ops::patterns::TABLE.iter().map(|pattern| (pattern.code, pattern.name));
    let control = ops::control::TABLE.iter().map(|(code, construct)| (*code, construct.name()));
    let operators = ops::ALL.iter().map(|spec| (spec.code, spec.name));
    let mut codes: Vec<(u8, &str)> = operators.chain(patterns).chain(control).collect();
    codes.sort_unstable();
    let now: Vec<String> = codes.iter().map(|(code, name)| format!("{code:#04x} {name}")).collect();
    let lost: Vec<&str> = golden.lines().filter(|line| !now.iter().any(|now| now == line)).collect();
    assert!(
        lost.is_empty(),
        "a code in an old input would change its meaning; operators must get these back: {lost:#?}"
    );
    let added: Vec<&str> =
        now.iter().map(String::as_str).filter(|now| !golden.lines().any(|old| old == *now)).collect();
    if !added.is_empty() && std::env::var_os(BLESS).is_some() {
        // Every line of the file is one of these.
        std::fs::write(&path, now.join("\n") + "\n").unwrap();
    } else {
        let lines = added.join("\n");
        assert!(added.is_empty(), "add these lines to {} (or set {BLESS}=1):\n{lines}", path.display());
    }
}

/// All that an ONNX file says of a model, by name.
#[derive(PartialEq, Debug)]
struct Written {
    inputs: Vec<String>,
    initializers: BTreeMap<String, TensorData>,
    nodes: Vec<String>,
    outputs: Vec<String>,
}

fn written(model: &Model, data: &LeafData) -> Written {
    let typed = |value: usize| {
        let value = &model.values[value];
        // Nothing is written of an output that is left out.
        let omitted = value.name.is_empty();
        if omitted { "-".to_owned() } else { format!("{}: {}{:?}", value.name, value.dtype, value.shape) }
    };
    let leaves = model.leaves.iter().zip(data).filter(|(leaf, _)| leaf.role != Role::Input);
    let node = |node: &graphsmith::model::Node| {
        let operands: Vec<String> = node.operands.iter().map(|o| o.map_or("-".to_owned(), typed)).collect();
        let outputs: Vec<String> = node.outputs.iter().map(|&o| typed(o)).collect();
        format!("{} {outputs:?} = {}{operands:?} {:?}", node.name, node.spec.name, node.attributes)
    };
    Written {
        inputs: model.inputs().map(|(_, leaf)| typed(leaf.value)).collect(),
        initializers: leaves.map(|(leaf, data)| (typed(leaf.value), data.clone())).collect(),
        nodes: model.nodes.iter().map(node).collect(),
        outputs: model.outputs.iter().map(|&output| typed(output)).collect(),
    }
}

#[test]
fn import_reads_what_export_writes() {
    for seed in 0..300 {
        let (mut model, data) = sampled(generate(seed));
        // Control flow is read back by nobody, and neither are sizes from symbols: the flat model is what counts.
        model.regions.clear();
        model.symbolic = false;
        let proto = onnx::decode(&onnx::encode(&model, &data)).unwrap();
        // Types inside the graph are not written: a backend must infer them.
        let types = model.values.iter().map(|value| (value.name.clone(), value.clone())).collect();
        let read = onnx::import(&proto, &types, 1).unwrap_or_else(|error| panic!("{error}\n{}", shown(seed, &model)));
        let constant = |leaf: &graphsmith::model::Leaf| leaf.content.clone();
        // Only the data of initializers is written.
        let read_data: LeafData =
            read.model.leaves.iter().map(|leaf| constant(leaf).unwrap_or(TensorData::new::<f32>(&[0], &[]))).collect();
        assert_eq!(written(&read.model, &read_data), written(&model, &data), "{}", shown(seed, &model));
    }
}
