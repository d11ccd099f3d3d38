//! What the input search finds.

use super::{generate, shown};
use graphsmith::graph;
use graphsmith::input::{Input, RECORD_BYTES, Record};
use graphsmith::model::Model;
use graphsmith::ops::{self, Choice};
use graphsmith::reference::{self, Precision};
use graphsmith::search;
use graphsmith::swarm::Swarm;

const DEFECT: &str = "the reference follows its specification";

/// The model of these operators, each on the result of the one before.
fn chain(operators: &[&str]) -> Model {
    let mut records = vec![Record::default(); operators.len()];
    for (index, record) in records.iter_mut().enumerate() {
        record[0] = index as u8;
    }
    let input = Input { header: [0; RECORD_BYTES], records };
    let named = |name: &str| ops::by_name(name).map(Choice::Operator).expect("an operator");
    graph::grow_with(&Swarm::new(&input.header), &input.records, |record| named(operators[usize::from(record[0])]))
        .model()
}

/// The values that a search hands on are those of its data, and valid.
#[test]
fn found_values_are_those_of_the_data() {
    let _no_grad = reference::init();
    let (mut valid, mut cut) = (0, 0);
    const INPUTS: u64 = 400;
    for seed in 0..INPUTS {
        let mut generated = generate(seed);
        let found = search::fit(&mut generated.model, generated.seed).expect(DEFECT);
        let Some(values) = found.values else { continue };
        let model = &generated.model;
        let again = reference::run(model, &found.data, Precision::Wide).expect(DEFECT);
        for (value, again) in values.iter().zip(&again) {
            let (value, again) = (value.as_ref().expect("computed"), again.as_ref().expect("computed"));
            assert!(value.equal(again) && !value.requires_grad(), "{}", shown(seed, model));
        }
        assert!(search::is_valid(model, &again).expect(DEFECT), "{}", shown(seed, model));
        valid += 1;
        cut += u64::from(!found.cuts.is_empty());
    }
    assert!(valid * 100 >= INPUTS * 99, "only {valid} of {INPUTS} models got valid inputs");
    assert!(cut * 10 <= INPUTS, "the search has changed {cut} of {INPUTS} models");
}

/// What no data can make valid gets an operand of its own, and what was its operand becomes an output.
#[test]
fn an_impossible_operand_is_cut_off() {
    let _no_grad = reference::init();
    let mut model = chain(&["Tanh", "Acosh"]);
    let whole = model.clone();
    let found = search::search(&model, 0).expect(DEFECT);
    assert_eq!((found.values.is_some(), found.obstacle), (false, Some(1)), "{}", graph::text(&model));
    let found = search::fit(&mut model, 0).expect(DEFECT);
    assert!(found.values.is_some());
    assert_eq!(found.cuts.len(), 1);
    assert_eq!(model.leaves.len(), whole.leaves.len() + 1);
    assert_eq!(model.outputs, [model.nodes[0].outputs[0], model.nodes[1].outputs[0]]);
}

/// What only a descent finds is left as it is.
#[test]
fn a_possible_operand_is_kept() {
    let _no_grad = reference::init();
    for operators in [["Sinh", "Acosh"], ["Exp", "Atanh"], ["Neg", "Log"], ["Tan", "Sqrt"]] {
        let mut model = chain(&operators);
        let found = search::fit(&mut model, 0).expect(DEFECT);
        assert!(found.values.is_some() && found.cuts.is_empty(), "{operators:?}:\n{}", graph::text(&model));
    }
}
