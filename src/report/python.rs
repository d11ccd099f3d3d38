//! `repro.py`: a finding in ONNX Runtime, shown with nothing but onnx, numpy and onnxruntime.

use super::arrays::{are_short, list, numpy, numpy_dtype, onnx_name, shape};
use super::{BEFORE, EXPECTED, INPUTS, Law, MODEL, Report, Reproducer, Style, Value};
use crate::backend::{Level, Setting};
use crate::dtype::DType;
use crate::onnx::proto::{AttributeProto, AttributeType, DimensionValue, NodeProto, ValueInfoProto};
use crate::onnx::tensor_data;
use crate::oracle::Kind;
use crate::tensor::TensorData;

/// Lines of a script. What does not fit with the model spelled out reads it from its file.
const LINES: usize = 25;
/// A hang, for the one who waits for it.
const PATIENCE_SECONDS: u32 = 60;
/// What every model of graphsmith fits in a hundred times.
const MEMORY_GIB: u32 = 4;

pub fn script(report: &Report, style: Style) -> Reproducer {
    let inline = Some(style).filter(|&style| style == Style::Inline).and_then(|_| model(report));
    let text = inline.map(|model| lines(report, &model)).filter(|lines| lines.len() <= LINES);
    let text = text.unwrap_or_else(|| lines(report, &[format!("model = onnx.load(here + {MODEL:?})")]));
    let needs = format!("onnx numpy onnxruntime=={}", report.finding.version);
    Reproducer { file: "repro.py", text: text.join("\n") + "\n", needs }
}

fn lines(report: &Report, model: &[String]) -> Vec<String> {
    let finding = report.finding;
    let mut body = model.to_vec();
    body.extend(data(report));
    if is_bf16(report.output().1.dtype) && judges_values(finding.kind) {
        body.extend(widened(&report.output().1.name));
    }
    let fatal = finding.kind.ends_process();
    let session = session(report);
    match finding.kind {
        Kind::Refused => {
            body.push("try:".to_owned());
            body.extend(session.iter().map(|line| format!("    {line}")));
            body.push("    session.run(None, inputs)".to_owned());
            body.push("except Exception as error:".to_owned());
            body.push("    sys.exit(f\"refused: {error}\")".to_owned());
            body.push("print(\"accepted\")".to_owned());
        }
        _ => {
            body.extend(session);
            body.extend(check(report));
        }
    }
    let mut lines = vec![format!(
        "# ONNX Runtime {}: {}. Exit status 1 while it is so, else 0.",
        finding.version,
        what(finding.kind)
    )];
    lines.push(format!("# pip install onnx numpy onnxruntime=={}", finding.version));
    let reads = body.iter().any(|line| line.contains("here + "));
    let reloads = report.setting == Some(Setting::Reloaded);
    let modules = [
        (true, "sys"),
        (reads, "os"),
        (finding.kind == Kind::OutOfMemory, "resource"),
        (fatal, "subprocess"),
        (reloads, "tempfile"),
    ];
    let modules: Vec<&str> = modules.into_iter().filter_map(|(needed, module)| needed.then_some(module)).collect();
    lines.push(format!("import {}", modules.join(", ")));
    lines.push("import numpy as np, onnx, onnxruntime as ort".to_owned());
    if body.iter().any(|line| line.contains("h.") || line.contains("T.")) {
        lines.push("from onnx import TensorProto as T, helper as h".to_owned());
    }
    if fatal {
        lines.extend(guard(finding.kind));
    }
    if reads {
        lines.push("here = os.path.dirname(os.path.abspath(__file__)) + os.sep".to_owned());
    }
    lines.extend(body);
    lines
}

fn what(kind: Kind) -> &'static str {
    match kind {
        Kind::WrongCount => "a wrong number of outputs",
        Kind::WrongDtype => "an output of a wrong element type",
        Kind::WrongShape => "an output of a wrong shape",
        Kind::WrongValue => "a wrong value",
        Kind::BeyondRange => "a value that the operator cannot give",
        Kind::Refused => "a valid model is refused",
        Kind::Crashed => "the process dies",
        Kind::TimedOut => "a run does not end",
        Kind::OutOfMemory => "a run takes all memory",
        Kind::Protocol => "an output that is no tensor",
        Kind::NonDeterministic => "two runs on the same inputs differ",
    }
}

fn judges_values(kind: Kind) -> bool {
    matches!(kind, Kind::WrongValue | Kind::BeyondRange)
}

fn is_bf16(dtype: DType) -> bool {
    dtype == DType::BF16
}

/// Runs the rest of the script in a child process, with limits on time and memory.
fn guard(kind: Kind) -> Vec<String> {
    let mut lines = vec![
        "if len(sys.argv) == 1:  # the rest runs in a child process, which may die".to_owned(),
        format!("    child = subprocess.run([sys.executable, __file__, \"child\"], timeout={PATIENCE_SECONDS})"),
        "    sys.exit(f\"ended with status {child.returncode}\" if child.returncode else 0)".to_owned(),
    ];
    if kind == Kind::OutOfMemory {
        lines.push(format!("resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_GIB} << 30, {MEMORY_GIB} << 30))"));
    }
    lines
}

/// The inputs, those of the run before it, and what is expected, as far as the check needs it.
fn data(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(before) = &report.before {
        lines.extend(inputs(report, "before", before, BEFORE));
    }
    lines.extend(inputs(report, "inputs", &report.inputs(), INPUTS));
    if judges_values(report.finding.kind) {
        let (_, expected) = report.output();
        let (exact, allowed) = (expected.reference(), expected.errors());
        let array = |name: &str| format!("expected_file[{:?}]", format!("{}.{name}", expected.name));
        if are_short([&exact]) && are_short([&allowed]) {
            lines.push(format!("expected = {}", numpy(&exact)));
            lines.push(format!("allowed = {}", numpy(&allowed)));
        } else {
            lines.push(format!("expected_file = np.load(here + {EXPECTED:?})"));
            let bits = if is_bf16(exact.dtype) { ".view(np.uint16)" } else { "" };
            let exact = format!("{}{bits}", array("exact"));
            let exact =
                if bits.is_empty() { exact } else { format!("({exact}.astype(np.uint32) << 16).view(np.float32)") };
            lines.push(format!("expected, allowed = {exact}, {}", array("allowed")));
        }
    }
    lines
}

fn inputs(report: &Report, variable: &str, data: &[TensorData], file: &str) -> Vec<String> {
    if are_short(data) {
        let named = report.named(data);
        let entry = |(name, data): &(String, &TensorData)| format!("{name:?}: {}", feed(data));
        return block(&format!("{variable} = {{"), named.iter().map(entry), "}");
    }
    let mut lines = vec![format!("{variable} = dict(np.load(here + {file:?}))")];
    for (name, _) in report.named(data).iter().filter(|(_, data)| is_bf16(data.dtype)) {
        let bits = bf16_value(&format!("{variable}[{name:?}].view(np.uint16)"));
        lines.push(format!("{variable}[{name:?}] = {bits}"));
    }
    lines
}

/// What `run` takes for an input. NumPy has no bf16: there it is the bits.
fn feed(data: &TensorData) -> String {
    if !is_bf16(data.dtype) {
        return numpy(data);
    }
    bf16_value(&numpy(&TensorData { dtype: DType::U16, ..data.clone() }))
}

fn bf16_value(bits: &str) -> String {
    format!("ort.OrtValue.ortvalue_from_numpy_with_onnx_type({bits}, T.BFLOAT16)")
}

/// Has the model give an output of bf16, which NumPy cannot hold, in float32 as well.
fn widened(name: &str) -> Vec<String> {
    vec![
        format!("model.graph.node.append(h.make_node(\"Cast\", [{name:?}], [\"widened\"], to=T.FLOAT))"),
        "model.graph.output.append(h.make_tensor_value_info(\"widened\", T.FLOAT, None))".to_owned(),
    ]
}

fn session(report: &Report) -> Vec<String> {
    let level = match report.finding.level {
        Level::Off => "ORT_DISABLE_ALL",
        Level::On => "ORT_ENABLE_ALL",
    };
    let threads = if report.setting == Some(Setting::Threads) { 3 } else { 1 };
    let mut lines = vec![
        "options = ort.SessionOptions()".to_owned(),
        format!("options.graph_optimization_level = ort.GraphOptimizationLevel.{level}"),
        format!("options.intra_op_num_threads = options.inter_op_num_threads = {threads}"),
    ];
    let open = |model: &str| format!("ort.InferenceSession({model}, options, [\"CPUExecutionProvider\"])");
    match report.setting {
        Some(Setting::Threads) => lines.push("options.execution_mode = ort.ExecutionMode.ORT_PARALLEL".to_owned()),
        Some(Setting::Reloaded) => {
            lines.push("options.optimized_model_filepath = tempfile.mkdtemp() + \"/optimised.onnx\"".to_owned());
            lines.push(open("model.SerializeToString()"));
            lines.push("saved, options = options.optimized_model_filepath, ort.SessionOptions()".to_owned());
            lines.push("options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL".to_owned());
            lines.push(format!("session = {}", open("saved")));
        }
        None => {}
    }
    if report.setting != Some(Setting::Reloaded) {
        lines.push(format!("session = {}", open("model.SerializeToString()")));
    }
    if report.before.is_some() {
        lines.push("session.run(None, before)".to_owned());
    }
    lines
}

/// Runs, tells what is wrong, and exits.
fn check(report: &Report) -> Vec<String> {
    let (index, expected) = report.output();
    let lines: &[&str] = match report.finding.kind {
        Kind::WrongValue | Kind::BeyondRange => return compare(report),
        Kind::WrongCount => {
            let count = report.case.expectation.outputs.len();
            return vec![
                "got = len(session.run(None, inputs))".to_owned(),
                format!("print(f\"{{got}} outputs, expected {count}\")"),
                format!("sys.exit(int(got != {count}))"),
            ];
        }
        Kind::WrongDtype | Kind::WrongShape | Kind::Protocol => {
            let (dtype, shape) = (numpy_dtype(expected.dtype), shape(&expected.shape));
            return vec![
                format!("got = session.run(None, inputs)[{index}]"),
                format!("print(f\"got {{got.dtype}} {{got.shape}}, expected {} {shape}\")", &dtype[3..]),
                format!("sys.exit(int(got.dtype != {dtype} or got.shape != {shape}))"),
            ];
        }
        Kind::NonDeterministic => {
            let name = if report.before.is_some() { "before" } else { "inputs" };
            return vec![
                format!("first = session.run(None, {name})"),
                "session.run(None, inputs)".to_owned(),
                format!("again = session.run(None, {name})"),
                "same = [np.array_equal(x, y, equal_nan=x.dtype.kind == \"f\") for x, y in zip(first, again)]"
                    .to_owned(),
                "print(same)".to_owned(),
                "sys.exit(int(not all(same)))".to_owned(),
            ];
        }
        Kind::Refused => &[],
        Kind::Crashed | Kind::TimedOut | Kind::OutOfMemory => &["session.run(None, inputs)", "print(\"all is well\")"],
    };
    lines.iter().map(|&line| line.to_owned()).collect()
}

/// Compares all elements with the reference; what the first wrong one breaks otherwise is looked at besides.
fn compare(report: &Report) -> Vec<String> {
    let (_, expected) = report.output();
    let name = if is_bf16(expected.dtype) { "widened" } else { &expected.name };
    let mut lines = vec![format!("got = session.run([{name:?}], inputs)[0]")];
    let same = if expected.exact.iter().all(|value| value.is_finite()) {
        ""
    } else {
        " | (got == expected) | (np.isnan(got) & np.isnan(expected))"
    };
    let near = "(abs(got.astype(np.float64) - expected) <= allowed)";
    lines.push(match expected.is_exact() {
        true if same.is_empty() => "wrong = got != expected".to_owned(),
        true => "wrong = ~((got == expected) | (np.isnan(got) & np.isnan(expected)))".to_owned(),
        false if same.is_empty() => format!("wrong = ~{near}"),
        false => format!("wrong = ~({near}{same})"),
    });
    if !expected.errors().to_f64().iter().all(|allowed| allowed.is_finite()) {
        lines.push("wrong &= np.isfinite(allowed)  # the other elements may be anything".to_owned());
    }
    match report.value() {
        Some(Value { law: Law::Within(least, largest), .. }) => {
            let (least, largest) = (number(least), number(largest));
            lines.push(format!("wrong |= (got < {least}) | (got > {largest})  # no result is beyond these"));
        }
        Some(Value { law: Law::Finite, element, .. }) => {
            lines.push(format!("wrong.flat[{element}] |= not np.isfinite(got.flat[{element}])  # it must be a number"));
        }
        Some(Value { law: Law::Near(_), .. }) | None => {}
    }
    let told = "got {got[wrong]}, expected {expected[wrong]} with errors up to {allowed[wrong]}";
    lines.push(format!("print(f\"{{wrong.sum()}} of {{wrong.size}} elements are wrong: {told}\")"));
    lines.push("sys.exit(int(wrong.any()))".to_owned());
    lines
}

fn number(value: f64) -> String {
    if value.is_finite() { format!("{value:?}") } else { format!("float(\"{value}\")") }
}

/// The lines that build the model; `None` where something in it has no short literal.
fn model(report: &Report) -> Option<Vec<String>> {
    let proto = report.proto()?;
    let graph = proto.graph.as_ref()?;
    let constants: Vec<TensorData> = graph.initializer.iter().map(|it| tensor_data(it).ok()).collect::<Option<_>>()?;
    if !are_short(&constants) {
        return None;
    }
    let nodes: Vec<String> = graph.node.iter().map(node).collect::<Option<_>>()?;
    let mut lines = block("nodes = [", nodes.into_iter(), "]");
    lines.push(format!("operands = {}", infos(&graph.input)?));
    lines.push(format!("outputs = {}", infos(&graph.output)?));
    if !constants.is_empty() {
        let named = graph.initializer.iter().zip(&constants).map(|(proto, data)| tensor(&proto.name, data));
        lines.extend(block("constants = [", named, "]"));
    }
    let [opset] = &proto.opset_import[..] else { return None };
    let last = if constants.is_empty() { "" } else { ", constants" };
    lines.push(format!(
        "model = h.make_model(h.make_graph(nodes, \"bug\", operands, outputs{last}), \
         opset_imports=[h.make_opsetid({:?}, {})], ir_version={})",
        opset.domain, opset.version, proto.ir_version
    ));
    Some(lines)
}

/// A list over several lines, one for each entry.
fn block(open: &str, entries: impl Iterator<Item = String>, close: &str) -> Vec<String> {
    let indent = " ".repeat(open.len());
    let mut lines: Vec<String> = entries.map(|entry| format!("{indent}{entry},")).collect();
    match lines.first_mut() {
        Some(first) => first.replace_range(..indent.len(), open),
        None => lines.push(open.to_owned()),
    }
    if let Some(last) = lines.last_mut() {
        *last = last.trim_end_matches(',').to_owned() + close;
    }
    lines
}

fn infos(infos: &[ValueInfoProto]) -> Option<String> {
    let info = |info: &ValueInfoProto| {
        let tensor = info.r#type.as_ref()?.tensor_type.as_ref()?;
        let dtype = DType::from_onnx_code(tensor.elem_type)?;
        let dims = tensor.shape.as_ref()?.dim.iter().map(|dim| match &dim.value {
            Some(DimensionValue::Size(size)) => size.to_string(),
            Some(DimensionValue::Symbol(name)) => format!("{name:?}"),
            None => "None".to_owned(),
        });
        let dims: Vec<String> = dims.collect();
        Some(format!("h.make_tensor_value_info({:?}, T.{}, [{}])", info.name, onnx_name(dtype), dims.join(", ")))
    };
    let infos: Vec<String> = infos.iter().map(info).collect::<Option<_>>()?;
    Some(format!("[{}]", infos.join(", ")))
}

fn node(node: &NodeProto) -> Option<String> {
    let mut arguments = vec![format!("{:?}", node.op_type), format!("{:?}", node.input), format!("{:?}", node.output)];
    if !node.domain.is_empty() {
        arguments.push(format!("domain={:?}", node.domain));
    }
    for attribute in &node.attribute {
        arguments.push(format!("{}={}", attribute.name, value(attribute)?));
    }
    Some(format!("h.make_node({})", arguments.join(", ")))
}

/// An attribute's value. `None` for graphs, and for empty lists, whose type Python cannot tell.
fn value(attribute: &AttributeProto) -> Option<String> {
    let text = |bytes: &Vec<u8>| std::str::from_utf8(bytes).ok().map(|text| format!("{text:?}"));
    let several = |values: Vec<String>| (!values.is_empty()).then(|| format!("[{}]", values.join(", ")));
    let float = |value: &f32| if value.is_finite() { format!("{value:?}") } else { number(f64::from(*value)) };
    match AttributeType::try_from(attribute.r#type).ok()? {
        AttributeType::Int => Some(attribute.i?.to_string()),
        AttributeType::Float => Some(float(&attribute.f?)),
        AttributeType::String => text(attribute.s.as_ref()?),
        AttributeType::Ints => several(attribute.ints.iter().map(ToString::to_string).collect()),
        AttributeType::Floats => several(attribute.floats.iter().map(float).collect()),
        AttributeType::Strings => several(attribute.strings.iter().map(text).collect::<Option<_>>()?),
        AttributeType::Tensor => {
            let data = tensor_data(attribute.t.as_ref()?).ok()?;
            are_short([&data]).then(|| tensor("", &data))
        }
        _ => None,
    }
}

fn tensor(name: &str, data: &TensorData) -> String {
    let (dtype, elements) = (onnx_name(data.dtype), list(data));
    format!("h.make_tensor({name:?}, T.{dtype}, {:?}, {elements})", data.shape)
}
