//! One bug met many times is one signature, and two bugs are two: measured on bugs whose identity is known.

use graphsmith::audit;
use graphsmith::audit::kernels::{Bug, answer};
use graphsmith::backend::{Backend, Failure, Level, Session};
use graphsmith::case::{Case, Generated};
use graphsmith::graph;
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input;
use graphsmith::known::Known;
use graphsmith::model::{LeafData, Model, Value};
use graphsmith::onnx;
use graphsmith::ops::{self, Choice};
use graphsmith::reference;
use graphsmith::support::Focus;
use graphsmith::swarm::Swarm;
use graphsmith::tensor::TensorData;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The bugs of one imagined backend.
const BUGS: &[(&str, &str)] = &[
    ("negated", "Sub"),
    ("negated", "Neg"),
    ("one-wrong-element", "Softmax"),
    ("last-column-left-out", "MatMul"),
    ("tail-of-vector-loop", "Mul"),
    ("lost-broadcast", "Add"),
    ("wrong-axis", "Concat"),
    ("wrong-axis", "LogSoftmax"),
    ("minimum-for-maximum", "ReduceMax"),
    ("window-off-by-one", "MaxPool"),
    ("missing-bias", "Conv"),
    ("permutation-reversed", "Transpose"),
    ("wrong-epsilon", "LayerNormalization"),
    ("other-mode", "Pad"),
    ("direction-ignored", "CumSum"),
    ("truncated-for-floor", "Floor"),
    ("sign-lost", "Round"),
    ("not-a-number", "Exp"),
    ("inverted-bool", "Less"),
    ("integers-as-i8", "Cast"),
    ("smallest-for-largest", "TopK"),
];

/// Findings of each bug, and inputs that are tried for them.
const FINDINGS: usize = 8;
const TRIES: u64 = 150;
/// Bugs below which a share says little: some need an operator in a form that is rare.
const LEAST: usize = 17;

#[derive(Clone)]
struct Faulty {
    bug: Bug,
    /// ONNX leaves out the types of values inside the graph; a real backend infers them.
    types: Rc<RefCell<BTreeMap<String, Value>>>,
}

impl Backend for Faulty {
    fn id(&self) -> &'static str {
        "canary"
    }

    fn version(&self) -> String {
        "1.0.0".to_owned()
    }

    fn compile(&self, onnx: &[u8], _: Level) -> Result<Box<dyn Session>, Failure> {
        let proto = onnx::decode(onnx).expect("the case holds an ONNX model");
        let model = onnx::import(&proto, &self.types.borrow(), 1).expect("the model is graphsmith's own").model;
        Ok(Box::new(Compiled { model, bug: self.bug }))
    }
}

struct Compiled {
    model: Model,
    bug: Bug,
}

impl Session for Compiled {
    fn run(&mut self, inputs: &[TensorData]) -> Result<Vec<TensorData>, Failure> {
        let mut inputs = inputs.iter().cloned();
        let leaf = |leaf: &graphsmith::model::Leaf| match &leaf.content {
            Some(content) => content.clone(),
            None => inputs.next().expect("an input for each leaf that is one"),
        };
        let data: LeafData = self.model.leaves.iter().map(leaf).collect();
        Ok(answer(&self.model, &data, self.bug).expect("computed before"))
    }
}

/// A case in which the operator is likely.
fn case(operator: &str, seed: u64) -> Option<Case> {
    let mut input = input::random(seed, 5);
    // The case alone, not its other forms.
    input.header[11] = 0;
    let swarm = Swarm { focus: Focus::NONE, ..Swarm::new(&input.header) };
    let spec = ops::by_name(operator).expect("an operator of the catalogue");
    let choose = |record: &input::Record| match record[1] % 3 {
        0 => Choice::Operator(spec),
        _ => ops::choose(record[0], &swarm),
    };
    let generated = Generated::new(graph::grow_with(&swarm, &input.records, choose), &swarm);
    let symbolic = generated.model.symbolic || !generated.model.regions.is_empty();
    (!symbolic).then(|| Case::new(generated).expect("the reference follows its specification").ok())?
}

#[test]
fn one_bug_is_one_bucket() {
    let _no_grad = reference::init();
    let mut met: Vec<(usize, String)> = Vec::new();
    for (index, &(fault, operator)) in BUGS.iter().enumerate() {
        let fault = audit::faults().find(|it| it.name == fault).expect("a fault of the table");
        let faulty = Faulty { bug: Bug { fault, operator }, types: Rc::default() };
        let mut harness = Harness::with(vec![Box::new(faulty.clone())], Known::default());
        let findings = (0..TRIES).filter_map(|seed| {
            let case = case(operator, seed)?;
            let types = case.model.values.iter().map(|value| (value.name.clone(), value.clone())).collect();
            faulty.types.replace(types);
            match harness.judge(&case).expect("the reference follows its specification") {
                Verdict::Bug(finding) => Some((index, finding.signature)),
                _ => None,
            }
        });
        met.extend(findings.take(FINDINGS));
    }
    let found: BTreeSet<usize> = met.iter().map(|(bug, _)| *bug).collect();
    assert!(found.len() >= LEAST, "only {} of {} bugs were found", found.len(), BUGS.len());
    let mut counts: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for (bug, signature) in &met {
        *counts.entry((signature, *bug)).or_default() += 1;
    }
    // The findings that are in the bucket of most of their bug, and of the bug that has most of their bucket.
    let share = |key: fn(&(&str, usize)) -> String| {
        let mut most: BTreeMap<String, usize> = BTreeMap::new();
        for (pair, &count) in &counts {
            let most = most.entry(key(pair)).or_default();
            *most = count.max(*most);
        }
        most.values().sum::<usize>() as f64 / met.len() as f64
    };
    let (pure, complete) = (share(|(signature, _)| (*signature).to_owned()), share(|(_, bug)| bug.to_string()));
    println!("{} findings, pure {pure:.3}, complete {complete:.3}", met.len());
    assert!(pure >= 0.95 && complete >= 0.95, "pure {pure:.3}, complete {complete:.3}: {counts:#?}");
}
