//! The oracle's own test. Canary backends compute with the reference: those with a fault must be caught, and those that
//! round differently within their rights must never be.

use graphsmith::case::{self, Case};
use graphsmith::dtype::DType;
use graphsmith::model::{Leaf, Model, Node, Value};
use graphsmith::reference::{self, Precision};
use graphsmith::spec::{Domain, Role};
use graphsmith::{graph, input, onnx, ops};

mod axes;
mod canary;
mod exceptional;
mod faults;
mod findings;
mod harness;
mod honest;
mod invariants;
mod second_run;

/// The cases of some seeds; an input that gives no case is left out.
fn cases(seeds: std::ops::Range<u64>) -> impl Iterator<Item = (u64, Case)> {
    seeds.filter_map(|seed| {
        let input = input::random(seed, 6);
        let defect = |defect| panic!("seed {seed}: {defect}\n{}", graph::text(&case::generate(&input).model));
        let mut case = Case::build(&input).unwrap_or_else(defect).ok()?;
        // The canaries read models with graphsmith's importer, which knows no control flow.
        case.model.regions.clear();
        case.onnx = onnx::encode(&case.model, &case.data);
        Some((seed, case))
    })
}

/// `f32[2,3]` through these operators, one after the other; the second operand of a binary one is a new graph input.
fn chain(operators: &[(&str, usize)]) -> Case {
    let mut model = Model { opset: 18, ..Model::default() };
    let add = |model: &mut Model| {
        let name = format!("v{}", model.values.len());
        model.values.push(Value { name, dtype: DType::F32, shape: vec![2, 3] });
        model.values.len() - 1
    };
    let input = |model: &mut Model| {
        let value = add(model);
        model.leaves.push(Leaf {
            value,
            role: Role::Input,
            domain: Domain::NonZero,
            content: None,
            constant_node: false,
        });
        value
    };
    let mut last = input(&mut model);
    for (index, (operator, arity)) in operators.iter().enumerate() {
        let mut operands = vec![Some(last)];
        operands.extend((1..*arity).map(|_| Some(input(&mut model))));
        last = add(&mut model);
        let spec = ops::by_name(operator).expect("an operator of the catalogue");
        let name = format!("n{index}");
        model.nodes.push(Node { spec, name, operands, outputs: vec![last], attributes: Vec::new(), accumulate: None });
    }
    model.outputs = vec![last];
    let data = model.sample(7, 0);
    let wide = reference::run(&model, &data, Precision::Wide).expect("the reference follows its specification");
    Case::with_data(model, data, wide).expect("the reference follows its specification")
}
