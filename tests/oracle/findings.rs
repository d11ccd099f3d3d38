//! What a finding says, and from where it is raised.

use crate::canary::{Behaviour, Canary};
use crate::chain;
use graphsmith::backend::{self, Level};
use graphsmith::finding::{self, Finding};
use graphsmith::harness::{Harness, Verdict};
use graphsmith::known::Known;
use graphsmith::oracle::Kind;
use graphsmith::reference::{self, Defect};
use graphsmith::triage;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

fn find(canary: Canary, operators: &[(&str, usize)]) -> Finding {
    let case = chain(operators);
    canary.expect(&case);
    match Harness::with(vec![Box::new(canary)], Known::default()).judge(&case).unwrap() {
        Verdict::Bug(finding) => *finding,
        _ => panic!("the fault was not found"),
    }
}

const CHAIN: &[(&str, usize)] = &[("Relu", 1), ("Div", 2), ("Tanh", 1), ("Add", 2)];

#[test]
fn the_culprit_is_the_operator_that_is_wrong_alone() {
    let _no_grad = reference::init();
    for (operator, described) in
        [("Relu", "Relu f32[2,3]"), ("Div", "Div f32[2,3] f32[2,3]"), ("Tanh", "Tanh f32[2,3]")]
    {
        let canary = Canary { operator: Some(operator), ..Canary::new(Behaviour::NotANumber) };
        let finding = find(canary, CHAIN);
        assert_eq!(finding.culprit.as_deref(), Some(described));
        assert_eq!(finding.signature, format!("canary wrong-value off {operator}"));
        assert!(finding.to_string().contains(&format!("shown by this operator alone: {described}")), "{finding}");
    }
}

#[test]
fn a_wrong_fusion_has_no_single_culprit() {
    let _no_grad = reference::init();
    let canary = Canary { least_nodes: 2, level: Some(Level::On), ..Canary::new(Behaviour::NotANumber) };
    let finding = find(canary, CHAIN);
    assert_eq!(finding.culprit, None);
    assert_eq!(finding.signature, "canary wrong-value on several operators (Add <- Tanh <- Div)");
    assert_eq!(finding.level, Level::On);
    let told: Vec<&str> = finding.table.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(told, ["canary off", "canary on"]);
    assert_eq!(finding.table[0].1, "agrees");
    assert!(finding.symptom.contains("NaN"), "{}", finding.symptom);
    assert!(finding.graph.contains("= Div("), "{}", finding.graph);
}

#[test]
fn a_node_is_described_by_its_operands() {
    let _no_grad = reference::init();
    let mut model = chain(CHAIN).model;
    assert_eq!(triage::describe_node(&model, 1), "Div f32[2,3] f32[2,3]");
    model.nodes[1].operands[1] = None;
    assert_eq!(triage::describe_node(&model, 1), "Div f32[2,3] -");
}

thread_local! {
    static CAPTURES: Cell<bool> = const { Cell::new(false) };
    static STACK: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The message and the stack of a panic of `run`.
fn panic_of(run: impl FnOnce()) -> (String, String) {
    CAPTURES.set(true);
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("it panics");
    CAPTURES.set(false);
    (payload.downcast_ref::<String>().expect("a formatted message").clone(), STACK.take())
}

#[test]
fn each_kind_panics_from_its_own_function() {
    let _no_grad = reference::init();
    // After isolation's own hook, which would otherwise come to stand before this one.
    backend::install_panic_hook();
    let previous = take_hook();
    set_hook(Box::new(move |info| match CAPTURES.get() {
        true => STACK.set(Backtrace::force_capture().to_string()),
        false => previous(info),
    }));
    let like = find(Canary::new(Behaviour::NotANumber), CHAIN);
    for (kind, function) in [
        (Kind::WrongCount, "finding::wrong_count"),
        (Kind::WrongDtype, "finding::wrong_dtype"),
        (Kind::WrongShape, "finding::wrong_shape"),
        (Kind::WrongValue, "finding::wrong_value"),
        (Kind::BeyondRange, "finding::beyond_range"),
        (Kind::Refused, "finding::refused_valid_model"),
        (Kind::Crashed, "finding::backend_crashed"),
        (Kind::TimedOut, "finding::backend_timed_out"),
        (Kind::OutOfMemory, "finding::backend_out_of_memory"),
        (Kind::Protocol, "finding::broken_answer"),
        (Kind::NonDeterministic, "finding::other_bits_in_another_run"),
    ] {
        let signature = format!("canary {kind} on Tanh");
        let finding = Finding { kind, signature: signature.clone(), ..like.clone() };
        let (message, stack) = panic_of(|| finding::raise(&finding));
        assert_eq!(message, format!("finding: {signature}"));
        assert!(stack.contains(function), "{kind} is not raised from {function}:\n{stack}");
    }
    let defect = Defect::Type { operator: "Tanh", declared: "f32[2]".to_owned(), computed: "f32[3]".to_owned() };
    let (message, stack) = panic_of(|| finding::raise_defect(&defect));
    assert!(message.starts_with("defect of graphsmith, not of a backend: ") && message.contains("Tanh"), "{message}");
    assert!(stack.contains("finding::raise_defect"), "{stack}");
}
