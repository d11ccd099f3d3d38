//! What one backend is asked, and what it answers.

use super::Target;
use crate::backend::{Backend, Failure, Level, Ran};
use crate::features::Histogram;
use crate::known::{Known, Place};
use crate::model::Model;
use crate::reference::{Values, largest_integer};
use crate::stages::{self, Stage, stage};
use crate::support::Support;
use crate::tensor::TensorData;

/// One run of a compiled model.
pub struct Run<'a> {
    pub model: &'a Model,
    pub inputs: &'a [TensorData],
    pub integers: Integers<'a>,
}

/// What the integers of a run are, for a backend that cannot hold all.
pub enum Integers<'a> {
    /// The largest magnitude.
    Largest(i64),
    /// The values of the model.
    Of(&'a Values),
}

impl Run<'_> {
    fn largest_integer(&self) -> i64 {
        match self.integers {
            Integers::Largest(largest) => largest,
            Integers::Of(values) => largest_integer(self.model, values),
        }
    }
}

/// Why a backend is not asked at all, if it is not.
pub fn excluded(target: &Target, known: &mut Known, at: Place, support: Support, runs: &[Run]) -> Option<String> {
    if support == Support::No {
        return Some("an operator or element type".to_owned());
    }
    let limit = target.backend.integer_limit();
    if limit.is_some_and(|limit| runs.iter().any(|run| run.largest_integer() > limit)) {
        return Some("integers beyond the backend's own type".to_owned());
    }
    let issue = runs.iter().find_map(|run| known.forbids(at, run.model).map(|issue| issue.id.clone()))?;
    Some(format!("known issue {issue}"))
}

/// A failure as it counts: the refusal of a form that is only partly supported is no failure.
pub fn forgiven(failure: Failure, support: Support) -> Failure {
    match failure {
        Failure::Refused(reason) if support == Support::Partial => {
            Failure::Unsupported(format!("some uses of an operator ({reason})"))
        }
        other => other,
    }
}

/// Compiles and runs, in one exchange where a backend is far away.
pub fn compile_and_run(backend: &dyn Backend, onnx: &[u8], level: Level, inputs: &[TensorData]) -> Ran {
    backend.compile_and_run(onnx, level, inputs).unwrap_or_else(|| {
        let mut session = stage(Stage::Compile(backend.id(), level), || backend.compile(onnx, level))?;
        let answer = stage(Stage::Run(backend.id(), level), || session.run(inputs));
        Ok((session, answer))
    })
}

/// What a backend answers to each run up to the first that fails, and the operators of what it has compiled.
pub fn run_all(
    target: &Target,
    onnx: &[u8],
    level: Level,
    support: Support,
    runs: &[Run],
) -> (Vec<Result<Vec<TensorData>, Failure>>, Option<Histogram>) {
    let Some((first, more)) = runs.split_first() else { return (Vec::new(), None) };
    let (mut session, answer) = match compile_and_run(target.backend.as_ref(), onnx, level, first.inputs) {
        Ok(compiled) => compiled,
        Err(failure) => return (vec![Err(forgiven(failure, support))], None),
    };
    let running = Stage::Run(target.backend.id(), level);
    let mut run = |inputs: &[TensorData]| stage(running, || session.run(inputs));
    let mut results = vec![answer.map_err(|failure| forgiven(failure, support))];
    for Run { inputs, .. } in more {
        if results.last().is_some_and(Result::is_err) {
            break;
        }
        let answer = stages::other_form(|| run(inputs));
        results.push(answer.map_err(|failure| forgiven(failure, support)));
    }
    if !more.is_empty() && results.iter().all(Result::is_ok) {
        let repeated = stages::other_form(|| run(first.inputs));
        let repeated = repeated.and_then(|repeated| same_bits(results[0].as_deref(), &repeated));
        if let Err(failure) = repeated {
            results.pop();
            results.push(Err(forgiven(failure, support)));
        }
    }
    let operators = session.operators();
    stage(running, || drop(session));
    (results, operators)
}

/// Whether a run gives what an earlier one on the same inputs has given. Which NaN there is does not count.
fn same_bits(first: Result<&[TensorData], &Failure>, repeated: &[TensorData]) -> Result<(), Failure> {
    for (output, (before, now)) in first.unwrap_or_default().iter().zip(repeated).enumerate() {
        if before == now {
            continue;
        }
        let (values, now_values) = (before.to_f64(), now.to_f64());
        let pairs = values.iter().zip(&now_values);
        if let Some(element) = pairs.clone().position(|(x, y)| x != y && !(x.is_nan() && y.is_nan())) {
            let (was, is) = (before.element_text(element), now.element_text(element));
            return Err(Failure::NonDeterministic(format!(
                "the first inputs once more make element {element} of output {output} {is}, which was {was}"
            )));
        }
    }
    Ok(())
}
