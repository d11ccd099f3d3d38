//! Backends judged by each other, where there is no reference.

use super::judge::{Report, Row};
use graphsmith::backend::Failure;
use graphsmith::harness::Harness;
use graphsmith::model::{LeafData, Model};
use graphsmith::peers::{answer_of, answers, breaks, difference, groups};

/// Groups the answers of all backends and levels by agreement. `reason` says why there is no reference.
pub fn compare(harness: &mut Harness, onnx: &[u8], inputs: &Model, data: &LeafData, reason: &str) -> Report {
    let outcomes = answers(harness, onnx, inputs, data);
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
