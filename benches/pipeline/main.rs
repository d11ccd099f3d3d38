//! CPU time of each stage on 256 fixed random inputs whose models have ten operators: first a table over the inputs, each
//! timed alone, then how the cost grows with the number of operators, then criterion's benches of the whole set.
//! `cargo bench` runs it; see the figures in the README.

use clock::CpuTime;
use criterion::{Criterion, Throughput};
use graphsmith::backend::Level;
use graphsmith::case::{self, Case, Generated};
use graphsmith::harness::{self, Harness, Verdict};
use graphsmith::input::{self, Input};
use graphsmith::model::Model;
use graphsmith::oracle::Expectation;
use graphsmith::reference::{self, Precision};
use graphsmith::{mutate, onnx, search};
use std::cell::RefCell;
use std::hint::black_box;
use std::process::ExitCode;

mod clock;
mod growth;
mod isolation;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const INPUTS: usize = 256;
const OPERATORS: usize = 10;
/// About one record in six gives no operator.
const RECORDS: usize = 12;
/// Each input is mutated so often, because mutations differ; the times are of all of them.
const MUTATIONS: u32 = 16;
/// One input with all that the stages start from.
struct Subject {
    bytes: Vec<u8>,
    /// As it was drawn: its search may yet cut operands off.
    model: Model,
    data_seed: u64,
    case: Case,
}

/// A stage by name.
type Stage<'a> = (&'static str, Box<dyn Fn(&Subject) + 'a>);

fn stages(harness: &RefCell<Harness>) -> Vec<Stage<'_>> {
    let defect = "the reference follows its specification";
    let mut stages: Vec<Stage> = vec![
        (
            "bytes to ONNX",
            Box::new(|subject| {
                let Generated { model, seed, .. } = case::generate(&Input::decode(&subject.bytes));
                black_box(onnx::encode(&model, &model.sample(seed, 0)));
            }),
        ),
        (
            "input search",
            Box::new(move |subject| {
                black_box(search::fit(&mut subject.model.clone(), subject.data_seed).expect(defect));
            }),
        ),
        (
            "reference and bounds",
            Box::new(move |Subject { case, .. }| {
                let wide = reference::run(&case.model, &case.data, Precision::Wide).expect(defect);
                black_box(Expectation::new(&case.model, &case.data, &wide).expect(defect));
            }),
        ),
        (
            "whole test",
            Box::new(move |subject| {
                let generated = case::generate(&Input::decode(&subject.bytes));
                black_box(harness.borrow_mut().test(generated).expect(defect));
            }),
        ),
    ];
    stages.push((
        "sixteen mutations",
        Box::new(|subject| {
            for seed in 0..MUTATIONS {
                let other = (seed % 2 == 0).then_some(&subject.bytes[..]);
                let bytes = &mut mutate::one_byte(seed.into());
                black_box(mutate::mutate(&subject.bytes, other, 4096, seed, bytes));
            }
        }),
    ));
    for index in 0..harness.borrow().targets.len() {
        let name = harness.borrow().targets[index].backend.id();
        stages.push((name, Box::new(move |subject| run_backend(&harness.borrow(), index, &subject.case, &Level::ALL))));
    }
    stages
}

/// Compiles and runs. What the backend does not take costs what refusing costs.
fn run_backend(harness: &Harness, index: usize, case: &Case, levels: &[Level]) {
    let inputs = case.model.input_data(&case.data);
    for &level in levels {
        let backend = harness.targets[index].backend.as_ref();
        let _ = black_box(harness::compile_and_run(backend, &case.onnx, level, &inputs));
    }
}

/// The first inputs in order of their seeds that have ten operators, valid data, a backend to test, and no finding: triage is not
/// timed.
fn subjects(harness: &mut Harness) -> Vec<Subject> {
    let subject = |seed| {
        let input = input::random(seed, RECORDS);
        let generated = case::generate(&input);
        let (model, data_seed) = (generated.model.clone(), generated.seed);
        if generated.model.nodes.len() != OPERATORS {
            return None;
        }
        let case = Case::new(generated).ok()?.ok()?;
        let tested = harness.test(case::generate(&input));
        let agreed = matches!(tested, Ok(Verdict::Agree | Verdict::Known(_)));
        agreed.then(|| Subject { bytes: input.encode(), model, data_seed, case })
    };
    (0..).filter_map(subject).take(INPUTS).collect()
}

fn main() -> ExitCode {
    let _no_grad = reference::init();
    let harnesses = isolation::harness().map_err(Into::into).and_then(|isolated| Ok((isolated, Harness::new()?)));
    let (isolated, mut harness) = match harnesses {
        Ok(harnesses) => harnesses,
        Err(error) => {
            let error: harness::Error = error;
            eprintln!("the bench needs every backend of this build: {error}");
            return ExitCode::FAILURE;
        }
    };
    let subjects = subjects(&mut harness);
    let harness = RefCell::new(harness);
    let stages = stages(&harness);
    println!("CPU milliseconds, {INPUTS} inputs of {OPERATORS} operators; backends compile and run at both levels\n");
    clock::heading("stage");
    for (name, stage) in &stages {
        clock::row(name, &clock::times(&subjects, stage));
    }
    println!();
    isolation::print(&harness.borrow(), &isolated, &subjects);
    growth::print();
    let mut criterion = Criterion::default().with_measurement(CpuTime).configure_from_args();
    let mut group = criterion.benchmark_group("ten operators");
    group.throughput(Throughput::Elements(subjects.len() as u64)).sample_size(10);
    for (name, stage) in &stages {
        group.bench_function(*name, |bencher| bencher.iter(|| subjects.iter().for_each(stage)));
    }
    group.finish();
    criterion.final_summary();
    ExitCode::SUCCESS
}
