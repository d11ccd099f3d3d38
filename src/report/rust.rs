//! `repro.rs`: a finding in a backend written in Rust, shown with nothing but that backend's crates.

use super::arrays::{rust, rust_dtype, rust_elements};
use super::{Law, MODEL, Report, Reproducer, Value};
use crate::backend::{Level, Setting};
use crate::dtype::DType;
use crate::oracle::Kind;
use crate::tensor::TensorData;

/// Elements of an output that a program compares.
const LISTED: usize = 32;

/// `None` for a backend that this module does not know, and for what one run does not show.
pub fn program(report: &Report, backend: &str) -> Option<Reproducer> {
    if report.finding.kind == Kind::NonDeterministic {
        return None;
    }
    let version = &report.finding.version;
    let (needs, run) = match backend {
        "tract" => (format!("tract-onnx = {{ version = \"={version}\", default-features = false }}"), tract(report)),
        "rten" => (format!("rten = \"={version}\"\nrten-tensor = \"={version}\""), rten(report)),
        _ => return None,
    };
    let lines: String = needs.lines().map(|line| format!("//     {line}\n")).collect();
    let text = format!(
        "// {backend} {version}: {}. Exit status 1 while it is so, else 0.\n\
         // The main.rs of a new package beside {MODEL}, with these lines in the [dependencies] of its Cargo.toml:\n\
         {lines}{run}{}",
        what(report),
        main(report)
    );
    Some(Reproducer { file: "repro.rs", text, needs })
}

fn what(report: &Report) -> &'static str {
    match report.finding.kind {
        Kind::WrongCount => "a wrong number of outputs",
        Kind::WrongDtype | Kind::Protocol => "an output of a wrong element type",
        Kind::WrongShape => "an output of a wrong shape",
        Kind::WrongValue => "a wrong value",
        Kind::BeyondRange => "a value that the operator cannot give",
        Kind::Refused => "a valid model is refused",
        Kind::Crashed => "a panic",
        Kind::TimedOut => "a run does not end",
        Kind::OutOfMemory => "a run takes all memory",
        Kind::NonDeterministic => "two runs on the same inputs differ",
    }
}

/// Runs, compares, and exits. `run` gives the outputs as element type, shape and elements.
fn main(report: &Report) -> String {
    let (index, expected) = report.output();
    // Tensors of rten say neither bool nor i64 of themselves: the element type is told by the model there.
    let dtype = match report.finding.backend.as_str() {
        "rten" if matches!(expected.dtype, DType::Bool | DType::I64) => "i32",
        _ => rust_dtype(expected.dtype),
    };
    format!(
        r#"
fn main() {{
    let outputs = match std::panic::catch_unwind(run) {{
        Err(_) => bug("it panicked".to_owned()),
        Ok(Err(error)) => bug(format!("refused: {{error:?}}")),
        Ok(Ok(outputs)) => outputs,
    }};
    if outputs.len() != {count} {{
        bug(format!("{{}} outputs, expected {count}", outputs.len()));
    }}
    let (dtype, shape, got) = &outputs[{index}];
    if (dtype.as_str(), shape.as_slice()) != ("{dtype}", &{shape:?}) {{
        bug(format!("output {index} is {{dtype}}{{shape:?}}, expected {dtype}{shape:?}"));
    }}
    // Some elements by their positions in row-major order, with the allowed absolute errors.
{expected}    for (i, expected, allowed) in expected {{
        let near = (got[i] as f64 - expected as f64).abs() <= allowed && (allowed > 0.0 || got[i] == expected);
        if !(near || got[i] == expected || (got[i] as f64).is_nan() && (expected as f64).is_nan()) {{
            bug(format!("element {{i}} is {{:?}}, expected {{expected:?}} with an error of at most {{allowed:?}}", got[i]));
        }}
    }}
{law}    println!("all is well");
}}

fn bug(what: String) -> ! {{
    println!("{{what}}");
    std::process::exit(1)
}}
"#,
        count = report.case.expectation.outputs.len(),
        shape = expected.shape,
        expected = elements(report),
        law = law(report),
    )
}

/// The test of an element that may be many things, but not what it is.
fn law(report: &Report) -> String {
    let Some(Value { element, law, .. }) = report.value() else { return String::new() };
    let (holds, told) = match law {
        Law::Near(_) => return String::new(),
        Law::Within(least, largest) => {
            let end = |value: f64| rust_elements(&TensorData::new(&[], &[value])).remove(0);
            let (least, largest) = (end(least), end(largest));
            (format!("got >= {least} && got <= {largest} || got.is_nan()"), "no result is there")
        }
        Law::Finite => ("got.is_finite()".to_owned(), "it must be a number"),
    };
    format!(
        "    let got = got[{element}] as f64;\n    if !({holds}) {{\n        \
         bug(format!(\"element {element} is {{got:?}}: {told}\"));\n    }}\n"
    )
}

/// `let expected`: the elements that are judged, or only the first wrong one where these are many.
fn elements(report: &Report) -> String {
    let (_, expected) = report.output();
    let wide = wide(expected.dtype);
    let reference = match wide {
        "i64" => expected.reference(),
        _ => TensorData::from_f64(DType::F64, &expected.shape, &expected.exact),
    };
    let (spelled, allowed) = (rust_elements(&reference), expected.errors().to_f64());
    let judged: Vec<usize> = (0..spelled.len()).filter(|&i| allowed[i].is_finite()).collect();
    let wrong = report.value().filter(|it| matches!(it.law, Law::Near(_))).map(|it| it.element);
    let listed = if judged.len() <= LISTED { judged } else { wrong.into_iter().collect() };
    let line = |i: usize| format!("        ({i}, {}, {:?}),\n", spelled[i], allowed[i]);
    let lines: String = listed.iter().map(|&i| line(i)).collect();
    format!("    let expected: [(usize, {wide}, f64); {}] = [\n{lines}    ];\n", listed.len())
}

/// The type that outputs are compared in.
fn wide(dtype: DType) -> &'static str {
    if dtype.is_int() && dtype != DType::U64 { "i64" } else { "f64" }
}

fn tract(report: &Report) -> String {
    let into = match report.finding.level {
        Level::Off => "into_typed",
        Level::On => "into_optimized",
    };
    let dtype = report.output().1.dtype;
    let wide = wide(dtype);
    let mut runs = String::new();
    for data in report.before.iter().chain([&report.inputs()]) {
        let inputs: String = data.iter().map(|data| format!("        {},\n", tract_tensor(data))).collect();
        runs += &format!("    let outputs = plan.run(tvec![\n{inputs}    ])?;\n");
    }
    let instructions = instructions(report);
    format!(
        r#"use tract_onnx::prelude::*;

fn run() -> TractResult<Vec<(String, Vec<usize>, Vec<{wide}>)>> {{
{instructions}    let model = tract_onnx::onnx().model_for_path("{MODEL}")?.{into}()?;
    let plan = TypedSimplePlan::new(model)?;
{runs}    let mut read = Vec::new();
    for output in outputs.iter() {{
        // tract computes shapes as TDim where ONNX says i64.
        let dtype = format!("{{:?}}", output.datum_type()).to_lowercase().replace("tdim", "i64");
        let values = output.cast_to::<{wide}>()?;
        read.push((dtype, output.shape().to_vec(), values.try_as_plain_ram()?.as_slice::<{wide}>()?.to_vec()));
    }}
    Ok(read)
}}
"#
    )
}

/// Which kernels tract has taken, where the backend has chosen them: see `INSTRUCTIONS` in src/backend/tract.rs.
fn instructions(report: &Report) -> String {
    const VARIABLE: &str = "TRACT_CPU_ISA";
    let products = ["ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"];
    let multiplies = report.case.model.nodes.iter().any(|node| products.contains(&node.spec.name));
    let chosen = std::env::var(VARIABLE).ok().filter(|_| multiplies);
    chosen.map_or(String::new(), |chosen| {
        let set = format!("unsafe {{ std::env::set_var({VARIABLE:?}, {chosen:?}) }};");
        format!(
            "    // Other kernels have another bug: those for AMX of 0.23.9 read beyond their operand.\n    {set}\n"
        )
    })
}

fn tract_tensor(data: &TensorData) -> String {
    let (shape, elements) = (&data.shape, rust(data));
    match data.dtype {
        DType::F16 => {
            let wide = format!("Tensor::from_shape::<f32>(&{shape:?}, &{elements})?");
            format!("{wide}.cast_to::<tract_onnx::prelude::f16>()?.into_owned().into()")
        }
        dtype => format!("Tensor::from_shape::<{}>(&{shape:?}, &{elements})?.into()", rust_dtype(dtype)),
    }
}

fn rten(report: &Report) -> String {
    let on = report.finding.level == Level::On;
    let threads = if report.setting == Some(Setting::Threads) { 3 } else { 1 };
    let shape_inference = if on { "" } else { "    options.shape_inference(rten::ShapeInferenceMode::Off);\n" };
    let wide = wide(report.output().1.dtype);
    let mut runs = String::new();
    for data in report.before.iter().chain([&report.inputs()]) {
        let inputs: String = data.iter().map(|data| format!("        {},\n", rten_tensor(data))).collect();
        runs += &format!(
            "    let inputs: Vec<Value> = vec![\n{inputs}    ];\n    \
             let inputs = model.input_ids().iter().copied().zip(inputs.into_iter().map(Into::into)).collect();\n    \
             let run_options = RunOptions::default().with_thread_pool(Some(threads.clone()));\n    \
             let outputs = model.run(inputs, model.output_ids(), Some(run_options))?;\n"
        );
    }
    let arm = |variant: &str, dtype: &str| {
        format!(
            "            Value::{variant}(it) => (\"{dtype}\", it.shape().to_vec(), it.iter().map(|&x| x as {wide}).collect()),\n"
        )
    };
    let arms: String = [("FloatTensor", "f32"), ("Int32Tensor", "i32"), ("Int8Tensor", "i8"), ("UInt8Tensor", "u8")]
        .map(|(variant, dtype)| arm(variant, dtype))
        .concat();
    format!(
        r#"use rten::{{Model, ModelOptions, RunOptions, ThreadPool, Value}};
use rten_tensor::prelude::*;
use std::sync::Arc;

fn run() -> Result<Vec<(String, Vec<usize>, Vec<{wide}>)>, Box<dyn std::error::Error>> {{
    let mut options = ModelOptions::with_all_ops();
    options.enable_optimization({on}).prepack_weights({on});
{shape_inference}    let model: Model = options.load(std::fs::read("{MODEL}")?)?;
    let threads = Arc::new(ThreadPool::with_num_threads({threads}));
{runs}    let mut read = Vec::new();
    for output in &outputs {{
        let (dtype, shape, values): (&str, Vec<usize>, Vec<{wide}>) = match output {{
{arms}            _ => ("no tensor", Vec::new(), Vec::new()),
        }};
        read.push((dtype.to_owned(), shape, values));
    }}
    Ok(read)
}}
"#
    )
}

/// rten holds i64 and bool as i32.
fn rten_tensor(data: &TensorData) -> String {
    let data = match data.dtype {
        DType::I64 | DType::Bool => TensorData::from_f64(DType::I32, &data.shape, &data.to_f64()),
        _ => data.clone(),
    };
    let (shape, elements, dtype) = (&data.shape, rust(&data), rust_dtype(data.dtype));
    format!("Value::from_shape(&{shape:?}, Vec::<{dtype}>::from({elements}))?")
}
