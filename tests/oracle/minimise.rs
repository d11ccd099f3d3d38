//! The least case of faults whose place is known.

use graphsmith::backend::{Backend, Failure, Level, Session};
use graphsmith::case::{self, Case};
use graphsmith::dtype::DType;
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input::{self, Input};
use graphsmith::known::Known;
use graphsmith::minimise::{Minimised, Subject, minimise};
use graphsmith::model::{LeafData, Model, Value};
use graphsmith::onnx::{self, proto::ModelProto};
use graphsmith::oracle::Kind;
use graphsmith::reference::{self, Precision};
use graphsmith::tensor::TensorData;
use std::collections::BTreeMap;

/// What a backend gets wrong.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The first element of each result of an operator, at every level.
    Kernel(&'static str),
    /// The same of an operator that uses a result of another one, with optimisation only.
    Fusion(&'static [&'static str], &'static [&'static str]),
    /// The kernel of an operator panics where the result has more elements than this.
    Crash(&'static str, usize),
}

struct Faulty(Fault);

struct Compiled {
    model: Model,
    fault: Fault,
    level: Level,
}

impl Backend for Faulty {
    fn id(&self) -> &'static str {
        "canary"
    }

    fn version(&self) -> String {
        "1.0.0".to_owned()
    }

    fn compile(&self, onnx: &[u8], level: Level) -> Result<Box<dyn Session>, Failure> {
        let proto = onnx::decode(onnx).expect("the case holds an ONNX model");
        Ok(Box::new(Compiled { model: import(&proto), fault: self.0, level }))
    }

    fn passes(&self) -> &'static [&'static str] {
        &["Innocent", "Fuser"]
    }

    fn compile_without(&self, onnx: &[u8], pass: &str) -> Result<Box<dyn Session>, Failure> {
        self.compile(onnx, if pass == "Fuser" { Level::Off } else { Level::On })
    }
}

/// The model, with the types of the values inside it to be found by running it.
fn import(proto: &ModelProto) -> Model {
    let outputs = proto.graph.iter().flat_map(|graph| &graph.node).flat_map(|node| &node.output);
    let unknown = |name: &String, dtype| Value { name: name.clone(), dtype, shape: Vec::new() };
    let mut types: BTreeMap<String, Value> = outputs.map(|name| (name.clone(), unknown(name, DType::F32))).collect();
    for node in proto.graph.iter().flat_map(|graph| &graph.node) {
        let named = node.attribute.iter().find(|it| matches!(&*it.name, "to" | "dtype"));
        if let Some(dtype) = named.and_then(|it| DType::from_onnx_code(it.i? as i32)) {
            types.insert(node.output[0].clone(), unknown(&node.output[0], dtype));
        }
    }
    onnx::import(proto, &types, 1).expect("the model is graphsmith's own").model
}

impl Session for Compiled {
    fn run(&mut self, inputs: &[TensorData]) -> Result<Vec<TensorData>, Failure> {
        let mut inputs = inputs.iter().cloned();
        let leaf = |leaf: &graphsmith::model::Leaf| match &leaf.content {
            Some(content) => content.clone(),
            None => inputs.next().expect("an input for each leaf that is one"),
        };
        let data: LeafData = self.model.leaves.iter().map(leaf).collect();
        let mut values: reference::Values = (0..self.model.values.len()).map(|_| None).collect();
        for (leaf, data) in self.model.leaves.iter().zip(&data) {
            values[leaf.value] = Some(reference::to_tensor(data, false));
        }
        for node in 0..self.model.nodes.len() {
            let it = self.model.nodes[node].clone();
            // The specifications of some operators read the type of a result.
            let first = it.operands.first().copied().flatten().map(|value| self.model.values[value].dtype);
            let told = it.attributes.iter().any(|(name, _)| matches!(&**name, "to" | "dtype"));
            if let Some(dtype) = first.filter(|_| !told) {
                it.outputs.iter().for_each(|&output| self.model.values[output].dtype = dtype);
            }
            let args = reference::args(&self.model, &it, &values, Precision::Declared);
            let results = (it.spec.eval)(&args).map_err(|error| Failure::Refused(error.to_string()))?;
            let wrong = self.is_wrong(node);
            for (&output, result) in it.outputs.iter().zip(results) {
                let dtype = dtype(result.kind());
                self.model.values[output].dtype = dtype;
                let mut data = reference::to_data(&result, dtype);
                if let Fault::Crash(_, most) = self.fault
                    && wrong
                    && data.len() > most
                {
                    return graphsmith::backend::isolate(|| panic!("the canary falls from its perch"));
                }
                if wrong && !matches!(self.fault, Fault::Crash(..)) && !data.is_empty() {
                    let mut elements = data.to_f64();
                    elements[0] = if dtype == DType::Bool { 1.0 - elements[0] } else { elements[0] + 1.0 };
                    data = TensorData::from_f64(dtype, &data.shape, &elements);
                }
                values[output] = Some(reference::to_tensor(&data, false));
            }
        }
        Ok(reference::outputs(&self.model, &values))
    }
}

impl Compiled {
    fn is_wrong(&self, node: usize) -> bool {
        let it = &self.model.nodes[node];
        match self.fault {
            Fault::Kernel(operator) | Fault::Crash(operator, _) => it.spec.name == operator,
            Fault::Fusion(first, second) => {
                let before = |value: &usize| {
                    let mut nodes = self.model.nodes[..node].iter();
                    nodes.any(|other| other.outputs.contains(value) && first.contains(&other.spec.name))
                };
                self.level == Level::On && second.contains(&it.spec.name) && it.operands.iter().flatten().any(before)
            }
        }
    }
}

fn dtype(kind: tch::Kind) -> DType {
    let all = [DType::F32, DType::F64, DType::I64, DType::I32, DType::I8, DType::I16, DType::U8, DType::Bool];
    let fits = |dtype: &DType| graphsmith::spec::args::kind_of(*dtype, false) == kind;
    all.into_iter().find(fits).expect("a kind of the types in use")
}

/// Operators whose results have a type that none of their operands has: the canary would give them another one.
const OF_OTHER_TYPES: &[&str] =
    &["HammingWindow", "HannWindow", "BlackmanWindow", "MelWeightMatrix", "Multinomial", "OneHot"];

/// Inputs with plain types and no control flow.
fn inputs() -> impl Iterator<Item = (u64, Input)> {
    (0..4000).filter_map(|seed| {
        let mut input = input::random(seed, 8);
        (input.header[1], input.header[11]) = (0, 0);
        let model = case::generate(&input).model;
        let plain = |value: &Value| matches!(value.dtype, DType::F32 | DType::I64 | DType::Bool);
        let known = model.nodes.iter().all(|node| !OF_OTHER_TYPES.contains(&node.spec.name));
        let simple = model.regions.is_empty() && known && model.values.iter().all(plain);
        simple.then_some((seed, input))
    })
}

fn harness(fault: Fault) -> Harness {
    Harness::with(vec![Box::new(Faulty(fault))], Known::default())
}

const FUSED: Fault = Fault::Fusion(
    &["Add", "Mul", "Sub", "Relu", "Conv", "MatMul", "Transpose", "Reshape"],
    &["Abs", "Add", "Mul", "Neg"],
);

/// The faults, the most operators that each needs, and the culprit.
const FAULTS: &[(Fault, usize, &str)] = &[
    (Fault::Kernel("Add"), 1, "kernel"),
    (Fault::Kernel("Concat"), 1, "kernel"),
    (Fault::Kernel("Softmax"), 1, "kernel"),
    (FUSED, 2, "Fuser"),
    (Fault::Crash("Mul", 3), 1, "tests/oracle/minimise.rs"),
];
const FINDINGS: usize = 3;

fn elements(case: &Case) -> usize {
    case.data.iter().map(TensorData::len).sum()
}

fn of_input(harness: &mut Harness, input: &Input) -> Minimised {
    minimise(harness, Subject::Input(input.clone()), |_| {}).expect("a finding")
}

#[test]
fn known_faults_end_as_small_cases() {
    let _no_grad = reference::init();
    for &(fault, most, cause) in FAULTS {
        let mut harness = harness(fault);
        let mut found = 0;
        for (seed, input) in inputs() {
            let Ok(case) = Case::build(&input).expect("the reference follows its specification") else { continue };
            let Verdict::Bug(before) = harness.judge(&case).expect("as before") else { continue };
            // The canary's own mistakes about types are not what is looked for.
            if !matches!(before.kind, Kind::WrongValue | Kind::Crashed) {
                continue;
            }
            let least = of_input(&mut harness, &input);
            let shown = || format!("{fault:?}, seed {seed}: {}\n{}", least.finding, before);
            assert!(least.case.model.nodes.len() <= most, "{}", shown());
            assert_eq!(
                (least.finding.kind, least.finding.level, &least.finding.backend),
                (before.kind, before.level, &before.backend),
                "{}",
                shown()
            );
            assert_eq!(least.finding.cause.as_deref(), Some(cause), "{}", shown());
            assert!(least.finding.signature.ends_with(&format!("[{cause}]")), "{}", shown());
            let again = harness.judge(&least.case).expect("as before");
            assert!(matches!(again, Verdict::Bug(_)), "the least case shows nothing: {}", shown());
            let kept = least.input.clone().expect("it came from an input");
            assert!(kept.records.len() <= input.records.len());
            let kept = Case::build(&kept).expect("as before").map_err(|reason| reason.to_string()).expect("a case");
            assert!(matches!(harness.judge(&kept).expect("as before"), Verdict::Bug(_)), "{}", shown());
            assert!(least.case.model.nodes.len() <= kept.model.nodes.len(), "it grew: {}", shown());
            found += 1;
            if found == FINDINGS {
                break;
            }
        }
        assert_eq!(found, FINDINGS, "{fault:?} was hardly found");
    }
}

#[test]
fn the_same_finding_ends_as_the_same_case() {
    let _no_grad = reference::init();
    let mut harness = harness(FUSED);
    let shows = |harness: &mut Harness, input: &Input| {
        let case = Case::build(input).expect("the reference follows its specification");
        case.is_ok_and(|case| matches!(harness.judge(&case), Ok(Verdict::Bug(_))))
    };
    let (_, input) = inputs().find(|(_, input)| shows(&mut harness, input)).expect("a finding");
    let (one, other) = (of_input(&mut harness, &input), of_input(&mut harness, &input));
    assert_eq!((&one.case.onnx, &one.case.data, one.runs), (&other.case.onnx, &other.case.data, other.runs));
    assert_eq!((&one.input, &one.finding.signature), (&other.input, &other.finding.signature));
    // What is least already stays as it is.
    let subject = Subject::Model(one.case.model.clone(), one.case.data.clone());
    let least = minimise(&mut harness, subject, |_| {}).expect("the same finding");
    assert_eq!((&least.case.onnx, &least.case.data), (&one.case.onnx, &one.case.data));
    assert!(elements(&least.case) <= 16, "{:?}", least.case.model);
}

#[test]
fn what_agrees_is_not_minimised() {
    let _no_grad = reference::init();
    let mut harness = harness(Fault::Kernel("NoSuchOperator"));
    let agreed = inputs().find_map(|(_, input)| Case::build(&input).ok()?.ok()).expect("a case");
    let subject = Subject::Model(agreed.model, agreed.data);
    let error = minimise(&mut harness, subject, |_| {}).err().expect("no finding");
    assert_eq!(error.to_string(), "nothing was found: all answers agree");
}
