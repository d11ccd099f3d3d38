//! Each axis says the same model otherwise: another model, the same meaning.

use crate::canary::{Behaviour, Canary};
use graphsmith::backend::Level;
use graphsmith::case::{Case, Variant};
use graphsmith::graph;
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input;
use graphsmith::known::Known;
use graphsmith::metamorphic::{self, TABLE, Way};
use graphsmith::reference::{self, Precision};
use graphsmith::tensor::TensorData;

const CASES: u64 = 120;

fn cases() -> impl Iterator<Item = (u64, Case)> {
    (0..CASES).filter_map(|seed| {
        let mut input = input::random(seed, 6);
        input.header[11] = 0;
        Some((seed, Case::build(&input).expect("the reference follows its specification").ok()?))
    })
}

/// The outputs of the reference in the declared types.
fn outputs(case: &Case) -> Vec<TensorData> {
    let values = reference::run(&case.model, &case.data, Precision::Declared).expect("the specification is followed");
    reference::outputs(&case.model, &values)
}

#[test]
fn every_axis_changes_the_bytes_and_keeps_the_meaning() {
    let _no_grad = reference::init();
    for axis in TABLE.iter().filter(|axis| matches!(axis.way, Way::Model(_))) {
        let (mut changed, mut of) = (0, 0);
        for (seed, case) in cases() {
            of += 1;
            let Some(variant) = case.vary(axis, seed).expect("the reference follows its specification") else {
                continue;
            };
            changed += 1;
            let shown = || format!("{axis:?}, seed {seed}:\n{}", graph::text(&variant.case.model));
            assert_ne!(variant.case.onnx, case.onnx, "{}", shown());
            let same: Vec<TensorData> = outputs(&variant.case).into_iter().take(case.model.outputs.len()).collect();
            assert_eq!(case.expectation.judge(&Ok(same)), None, "{}", shown());
            let again = case.vary(axis, seed).expect("as before").map(|again| again.case.onnx);
            assert_eq!(again.as_ref(), Some(&variant.case.onnx), "not deterministic: {}", shown());
        }
        assert!(changed * 3 >= of, "{axis:?} changes only {changed} of {of} cases");
    }
}

#[test]
fn bytes_name_every_axis_and_most_of_them_none() {
    let named: Vec<&str> = (0..=255).filter_map(metamorphic::choose).map(|axis| axis.name).collect();
    assert_eq!(named.len(), 88);
    for axis in TABLE.iter().chain([metamorphic::EXCEPTIONAL]) {
        assert!(named.contains(&axis.name));
    }
    assert!(metamorphic::choose(0).is_none());
}

/// A backend that is wrong only about models with an Identity is found though no case has one.
#[test]
fn what_only_the_variant_shows_is_found() {
    let _no_grad = reference::init();
    let axis = metamorphic::by_name("rewritten").expect("an axis");
    let (mut found, mut tried) = (0, 0);
    for (seed, mut case) in cases() {
        let has = |case: &Case| case.model.nodes.iter().any(|node| node.spec.name == "Identity");
        if has(&case) || !case.model.regions.is_empty() || case.model.symbolic {
            continue;
        }
        case.again = None;
        let variant = (0..20).find_map(|attempt| {
            case.vary(axis, seed + attempt).expect("the specification is followed").filter(|variant| has(&variant.case))
        });
        let Some(variant) = variant else { continue };
        let canary = Canary { operator: Some("Identity"), ..Canary::new(Behaviour::Crash) };
        canary.expect(&variant.case);
        let mut harness = Harness::with(vec![Box::new(canary)], Known::default());
        assert!(matches!(harness.judge(&case), Ok(Verdict::Agree)), "seed {seed}: the case itself is right");
        case.variant = Some(Variant { axis, case: variant.case });
        tried += 1;
        if let Ok(Verdict::Bug(finding)) = harness.judge(&case) {
            assert!(finding.context.is_some_and(|context| context.contains("rewritten")), "seed {seed}");
            assert_eq!(finding.level, Level::On);
            found += 1;
        }
    }
    assert!(tried >= 20 && found == tried, "{found} of {tried} found");
}
