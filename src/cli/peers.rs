//! Backends judged by each other, where there is no reference.

use super::judge::{Report, Row};
use graphsmith::backend::Failure;
use graphsmith::dtype::DType;
use graphsmith::harness::Harness;
use graphsmith::model::{LeafData, Model};
use graphsmith::oracle::Outcome;
use graphsmith::tensor::TensorData;

/// Groups the answers of all backends and levels by agreement. `reason` says why there is no reference.
pub fn compare(harness: &mut Harness, onnx: &[u8], inputs: &Model, data: &LeafData, reason: &str) -> Report {
    let integers = data.iter().filter(|data| data.dtype == DType::I64).flat_map(TensorData::to_f64);
    let largest = integers.fold(0.0, |largest: f64, value| largest.max(value.abs())) as i64;
    // The model of the inputs alone has no operator that a support table could name.
    let outcomes = harness.run(inputs, onnx, data, largest);
    let groups = groups(&outcomes);
    let rows = outcomes.iter().enumerate().map(|(index, outcome)| {
        let (answer, detail) = match &outcome.result {
            Err(failure) => {
                let (kind, reason) = describe(failure);
                (kind.to_owned(), reason.to_owned())
            }
            Ok(outputs) => {
                let group = groups.iter().position(|group| group.contains(&index)).unwrap_or(0);
                let detail = difference(answer_of(&outcomes, &groups[0]), outputs).unwrap_or_default();
                (format!("group {}", letter(group)), if group == 0 { String::new() } else { detail })
            }
        };
        Row::new(harness, outcome, answer, detail)
    });
    let rows: Vec<Row> = rows.collect();
    let disagree = groups.len() > 1 || outcomes.iter().any(|outcome| breaks(outcome, &outcomes));
    let mut notes = vec![
        format!("no reference: {reason}"),
        "comparing backends only, with each other and between levels, by a wider tolerance".to_owned(),
    ];
    notes.push(match groups.len() {
        0 => "no backend answered: the model or its inputs may be at fault".to_owned(),
        1 if groups[0].len() == 1 => "only one answer: nothing to compare".to_owned(),
        1 => format!("all {} answers agree", groups[0].len()),
        count => format!("the answers fall into {count} groups"),
    });
    let answered = groups.iter().map(Vec::len).sum::<usize>();
    let verdict = match () {
        () if disagree => "disagree",
        () if answered < 2 => "skip",
        () => "agree",
    };
    Report { verdict, notes, rows, finding: None }
}

fn letter(group: usize) -> String {
    // There are fewer backends than letters; were there more, a number says the same.
    char::from_digit(group as u32 + 10, 36)
        .map_or_else(|| group.to_string(), |letter| letter.to_uppercase().to_string())
}

/// The kind of a failure, and the backend's own words.
fn describe(failure: &Failure) -> (&'static str, &str) {
    match failure {
        Failure::Unsupported(reason) => ("unsupported", reason),
        Failure::Refused(reason) => ("refused", reason),
        Failure::Crashed(reason) => ("crashed", reason),
        Failure::TimedOut => ("timed out", ""),
        Failure::OutOfMemory => ("out of memory", ""),
        Failure::Protocol(reason) => ("unreadable", reason),
        Failure::NonDeterministic(reason) => ("not deterministic", reason),
    }
}

/// Whether an outcome is wrong whatever the model means: a crash where others answer, or a refusal at one level of what
/// runs at another. Where nobody answers, the model or its inputs may be at fault.
fn breaks(outcome: &Outcome, all: &[Outcome]) -> bool {
    match &outcome.result {
        Err(Failure::Crashed(_) | Failure::TimedOut) => all.iter().any(|other| other.result.is_ok()),
        Err(Failure::Refused(_)) => all.iter().any(|other| other.backend == outcome.backend && other.result.is_ok()),
        _ => false,
    }
}

/// Indices of answers that agree with the first of their group; the largest group first.
fn groups(outcomes: &[Outcome]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        let Ok(outputs) = &outcome.result else { continue };
        match groups.iter_mut().find(|group| difference(answer_of(outcomes, group), outputs).is_none()) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups
}

/// The answer that stands for a group.
fn answer_of<'a>(outcomes: &'a [Outcome], group: &[usize]) -> &'a [TensorData] {
    outcomes[group[0]].result.as_deref().unwrap_or(&[])
}

/// How far apart two floats may be: relative, and absolute. Integers and bools must be equal.
fn tolerance(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (2e-2, 1e-3),
        DType::F32 => (1e-3, 1e-5),
        DType::F64 => (1e-7, 1e-10),
        _ => (0.0, 0.0),
    }
}

/// The first difference in words.
fn difference(expected: &[TensorData], got: &[TensorData]) -> Option<String> {
    if expected.len() != got.len() {
        return Some(format!("{} outputs, group A has {}", got.len(), expected.len()));
    }
    expected.iter().zip(got).enumerate().find_map(|(output, (expected, got))| {
        if (expected.dtype, &expected.shape) != (got.dtype, &got.shape) {
            let ty = |data: &TensorData| format!("{}{:?}", data.dtype, data.shape);
            return Some(format!("output {output} is {}, group A has {}", ty(got), ty(expected)));
        }
        if expected.bytes == got.bytes {
            return None;
        }
        let (relative, absolute) = tolerance(got.dtype);
        let (wanted, values) = (expected.to_f64(), got.to_f64());
        let far = |&index: &usize| {
            let (x, y) = (wanted[index], values[index]);
            let near = (x - y).abs() <= absolute + relative * x.abs().max(y.abs());
            // Equal infinities have no difference that is a number, unequal ones an infinite tolerance.
            let same = x == y || x.is_nan() && y.is_nan();
            !same && !(near && x.is_finite() && y.is_finite())
        };
        // Integers beyond 2^53 are told apart by their bits alone.
        let size = got.dtype.size_bytes();
        let bits = |&index: &usize| expected.bytes[index * size..][..size] != got.bytes[index * size..][..size];
        let differs = |index: &usize| if got.dtype.is_float() { far(index) } else { bits(index) };
        let mut wrong = (0..values.len()).filter(differs);
        let first = wrong.next()?;
        let (total, more) = (values.len(), wrong.count());
        let (got, wanted) = (got.element_text(first), expected.element_text(first));
        Some(format!("output {output}, element {first} is {got}, group A has {wanted}; {} of {total} differ", more + 1))
    })
}
