//! Control flow: a region must mean to a backend what its flat nodes mean to the reference.
#![cfg(feature = "ort")]

use graphsmith::backend::{self, Level};
use graphsmith::case::{Case, Generated};
use graphsmith::input::{self, Input};
use graphsmith::known::Known;
use graphsmith::model::Control;
use graphsmith::ops::control::Construct;
use graphsmith::ops::{Choice, math};
use graphsmith::support::Focus;
use graphsmith::swarm::Swarm;
use graphsmith::{graph, reference};
use std::collections::BTreeSet;

const CASES: u64 = 60;

/// An Add, the construct, and two more Adds, which a branch can hold.
fn generate(construct: Construct, input: &Input) -> Generated {
    let swarm = Swarm { focus: Focus::NONE, exact: false, opset: 21, ..Swarm::new(&input.header) };
    let subject = input.records[1];
    let choose = |record: &input::Record| match *record == subject {
        true => Choice::Control(construct),
        false => Choice::Operator(&math::ADD),
    };
    let graph = graph::grow_with(&swarm, &input.records, choose);
    Generated::new(graph, &swarm)
}

#[test]
fn backends_compute_what_the_flat_model_says() {
    let _no_grad = reference::init();
    let backend = (backend::TABLE[0].1)().expect("scripts/setup has installed ONNX Runtime");
    for construct in [Construct::If, Construct::Loop, Construct::Scan] {
        let (mut ran, mut kinds) = (0, BTreeSet::new());
        for seed in 0..CASES {
            let generated = generate(construct, &input::random(seed, 4));
            let Some(region) = generated.model.regions.first() else { continue };
            assert_eq!(region.operator(), construct.name());
            kinds.insert(match &region.control {
                Control::If { taken, .. } => (usize::from(*taken), false),
                Control::Repeat(repeat) => (repeat.bodies.len(), repeat.collected.is_some()),
            });
            let Ok(case) = Case::new(generated).expect("the reference follows its specification") else { continue };
            for level in Level::ALL {
                let inputs = case.model.input_data(&case.data);
                let answer = backend.compile(&case.onnx, level).and_then(|mut session| session.run(&inputs));
                // ONNX Runtime has no arithmetic of the narrow types.
                if answer.is_ok() {
                    ran += 1;
                    let wrong = case.expectation.judge(&answer);
                    assert_eq!(wrong, None, "{construct:?} {seed} {level}\n{}", graph::text(&case.model));
                }
            }
        }
        assert!(ran >= CASES / 2 && kinds.len() >= 2, "{construct:?}: {ran} runs, {kinds:?}");
    }
}

#[test]
fn a_known_issue_of_a_branch_fits_nodes_without_names() {
    let _no_grad = reference::init();
    let text = "[[issue]]\nid = \"i\"\nbackend = \"b\"\nkinds = []\nreason = \"\"\nchain = [{ inside = \"If\" }]\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let known = Known::read(file.path()).unwrap();
    let issue = known.iter().next().unwrap().0;
    let mut fitting = 0;
    for seed in 0..CASES {
        let mut model = generate(Construct::If, &input::random(seed, 4)).model;
        let expected = !model.regions.is_empty();
        model.nodes.iter_mut().for_each(|node| node.name.clear());
        assert_eq!(issue.fits(&model), expected, "{seed}\n{}", graph::text(&model));
        fitting += usize::from(expected);
    }
    assert!((1..CASES as usize).contains(&fitting), "{fitting} of {CASES}");
}
