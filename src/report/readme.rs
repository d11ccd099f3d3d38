//! `README.md`: the text of a report to the backend's tracker.

use super::{BEFORE, EXPECTED, INPUT, INPUTS, Law, MODEL, PICTURE, Report, Reproducer, Value};
use crate::backend::Level;
use crate::graph;
use crate::oracle::{Difference, Kind, Wrong};
use crate::schema;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Operators that a title names.
const TITLE_OPERATORS: usize = 3;
/// Bytes of a program that the text repeats; trackers end a page at 64 KiB.
const SHOWN_CODE: usize = 6000;

pub fn text(report: &Report, reproducer: Option<&Reproducer>, drawn: bool, has_input: bool) -> String {
    let sections = [
        format!("# {}\n", title(report)),
        what(report),
        expected(report),
        versions(report),
        answers(report),
        reproduce(report, reproducer, has_input),
        model(report, drawn),
    ];
    sections.join("\n")
}

/// `[ort optimizer] Sub <- Sqrt: wrong value`.
pub fn title(report: &Report) -> String {
    let finding = report.finding;
    let chain = match &finding.culprit {
        Some(culprit) => culprit.split(' ').next().unwrap_or_default().to_owned(),
        None => {
            let names: Vec<&str> =
                report.case.model.nodes.iter().rev().take(TITLE_OPERATORS).map(|node| node.spec.name).collect();
            names.join(" <- ")
        }
    };
    format!("[{} {}] {chain}: {}", finding.backend, pass(report), symptom(report))
}

/// What of the backend is to be suspected, as far as its levels tell.
fn pass<'a>(report: &Report<'a>) -> &'a str {
    if let Some(cause) = &report.finding.cause {
        return cause;
    }
    let off = format!("{} {}", report.finding.backend, Level::Off);
    let agrees = |(place, answer): &(String, String)| *place == off && answer == "agrees";
    match report.finding.level {
        Level::On if report.finding.table.iter().any(agrees) => "optimiser",
        Level::On => "optimised",
        Level::Off => "kernel",
    }
}

fn symptom(report: &Report) -> String {
    let (_, output) = report.output();
    match &report.finding.wrong {
        Wrong::Output(Difference::Value { element, got, .. } | Difference::Range { element, got, .. }) => {
            format!("gives {got} in place of {:?}", output.exact[*element])
        }
        Wrong::Output(Difference::Shape { got, .. }) => {
            format!("gives the shape {got:?} in place of {:?}", output.shape)
        }
        Wrong::Output(Difference::DType { got, .. }) => format!("gives {got} in place of {}", output.dtype),
        Wrong::Output(Difference::Count { got }) => format!("gives {got} outputs"),
        Wrong::Failed(_) => match report.finding.kind {
            Kind::Refused => "a valid model is refused".to_owned(),
            Kind::Crashed => "crashes".to_owned(),
            Kind::TimedOut => "does not end".to_owned(),
            Kind::OutOfMemory => "takes all memory".to_owned(),
            _ => "gives no tensor".to_owned(),
        },
    }
}

fn what(report: &Report) -> String {
    let finding = report.finding;
    let mut text = format!(
        "{} {}, optimisations {}: {}.\n",
        finding.backend,
        finding.version,
        finding.level,
        finding.symptom.trim_end_matches('.')
    );
    if let Some(context) = &finding.context {
        let _ = writeln!(text, "It shows {}.", context.trim_end_matches('.'));
    }
    if let Some(culprit) = &finding.culprit {
        let _ = writeln!(text, "The operator alone shows it: `{culprit}`.");
    }
    if let Some(cause) = &finding.cause {
        let _ = writeln!(text, "The part to blame: {cause}.");
    }
    let _ = writeln!(text, "Who is to be suspected: {}.", finding.blame);
    text
}

fn expected(report: &Report) -> String {
    let mut text = "## Expected\n\n".to_owned();
    let (_, output) = report.output();
    match report.value() {
        Some(Value { element, got, wrong, law }) => {
            let told = match law {
                Law::Near(allowed) => {
                    format!("any order of evaluation in the declared types stays within {allowed:.3e} of that")
                }
                Law::Within(least, largest) => format!("the operator gives nothing beyond {least} and {largest}"),
                Law::Finite => "it must be a number in any order of evaluation".to_owned(),
            };
            let _ = writeln!(
                text,
                "`{}` has {} elements, of which {wrong} are wrong. The first of them, at position {element} in row-major \
                 order, is {got}; computed in f64 it is {:?}, and {told}.",
                output.name,
                output.exact.len(),
                output.exact[element],
            );
        }
        None => {
            let outputs: Vec<String> = report
                .case
                .expectation
                .outputs
                .iter()
                .map(|it| format!("`{}: {}{:?}`", it.name, it.dtype, it.shape))
                .collect();
            let _ = writeln!(text, "The model is valid, and gives {}.", outputs.join(", "));
        }
    }
    let _ = writeln!(text, "The operators of ONNX opset {}:\n", report.case.model.opset);
    let mut operators: BTreeMap<&str, &str> = BTreeMap::new();
    operators.extend(report.case.model.nodes.iter().map(|node| (node.spec.name, node.spec.doc)));
    for (name, doc) in operators {
        let version = schema::signature(name, report.case.model.opset).map(|signature| signature.version);
        let version = version.map_or_else(String::new, |version| format!("-{version}"));
        let _ = writeln!(text, "- [{name}{version}](https://onnx.ai/onnx/operators/onnx__{name}.html): {doc}");
    }
    text
}

fn versions(report: &Report) -> String {
    let finding = report.finding;
    format!(
        "## Versions\n\n{} {}, ONNX opset {}, {} on {}; found by graphsmith {}.\n",
        finding.backend,
        finding.version,
        report.case.model.opset,
        std::env::consts::ARCH,
        std::env::consts::OS,
        env!("CARGO_PKG_VERSION")
    )
}

fn answers(report: &Report) -> String {
    let mut text = "## Backends and levels\n\n| backend | optimisations | answer |\n|---|---|---|\n".to_owned();
    for (place, answer) in &report.finding.table {
        let (backend, level) = place.split_once(' ').unwrap_or((place, ""));
        let answer = answer.lines().next().unwrap_or_default().replace('|', "\\|");
        let _ = writeln!(text, "| {backend} | {level} | {answer} |");
    }
    text
}

fn reproduce(report: &Report, reproducer: Option<&Reproducer>, has_input: bool) -> String {
    let mut text = "## Reproduce\n\n".to_owned();
    if let Some(Reproducer { file, text: code, needs }) = reproducer {
        let (language, how) = match *file {
            "repro.py" => ("python", format!("`pip install {needs}`, then `python {file}`")),
            _ => (
                "rust",
                "`cargo run --release` in a package with this main.rs and the dependencies that it names".to_owned(),
            ),
        };
        let _ = writeln!(text, "{how}. The exit status is 1 while the bug is there, else 0.\n");
        if code.len() <= SHOWN_CODE {
            let _ = writeln!(text, "```{language}\n{code}```\n");
        } else {
            let _ = writeln!(text, "The program is [{file}]({file}).\n");
        }
    }
    let before = if report.before.is_some() { format!(", `{BEFORE}` those of the run before") } else { String::new() };
    let _ = writeln!(
        text,
        "`{MODEL}` is the model, `{INPUTS}` its inputs{before}, `{EXPECTED}` what is expected, with the allowed error of \
         each element as `NAME.allowed`. With graphsmith: `graphsmith run` on this folder{}.",
        if has_input { format!(", or on `{INPUT}`, the fuzzer's input") } else { String::new() }
    );
    text
}

fn model(report: &Report, drawn: bool) -> String {
    let picture = if drawn { format!("![the graph]({PICTURE})\n\n") } else { String::new() };
    let text = graph::text(&report.case.model);
    format!("## Model\n\n{picture}x inputs, w initializers, c constants; -> marks outputs.\n\n```text\n{text}```\n")
}
