//! A difference, told so that a reader can act on it.

use crate::backend::{Failure, Level};
use crate::case::Case;
use crate::graph;
use crate::harness::Form;
use crate::oracle::{Difference, Expected, Kind, Outcome, Wrong};
use crate::triage::{Culprit, describe_node};
use std::collections::BTreeSet;
use std::fmt;

/// A wrong answer of a backend, with all that is needed to understand it.
#[derive(Clone, Debug)]
pub struct Finding {
    pub backend: String,
    pub version: String,
    pub level: Level,
    pub kind: Kind,
    /// `tract wrong-value on MaxPool`: equal for most meetings of one bug.
    pub signature: String,
    /// What is wrong, in a few sentences.
    pub symptom: String,
    /// The operator that alone shows it.
    pub culprit: Option<String>,
    /// The part of the backend that is to blame, such as a pass of its optimiser; of a minimised case only.
    pub cause: Option<String>,
    /// Every backend and level with its answer in short.
    pub table: Vec<(String, String)>,
    /// The model as text.
    pub graph: String,
    pub blame: Blame,
    /// Where it shows, if not in the first run of the model as it was made, which agrees.
    pub context: Option<String>,
    /// The form of the case that shows it.
    pub form: Form,
    /// The wrong answer itself.
    pub wrong: Wrong,
}

impl Finding {
    pub(crate) fn new(
        case: &Case,
        outcomes: &[Outcome],
        at: &Outcome,
        version: &str,
        wrong: Wrong,
        culprit: Option<Culprit>,
    ) -> Finding {
        let kind = wrong.kind();
        let name = |node: usize| case.model.nodes[node].spec.name;
        let cause = match &culprit {
            Some(culprit) => name(culprit.node).to_owned(),
            None => format!("several operators ({})", chain(case, &wrong)),
        };
        let row = |outcome: &Outcome| {
            let answer = match (&outcome.result, case.expectation.judge(&outcome.result)) {
                (_, Some(wrong)) => symptom(case, &wrong),
                (Err(failure), None) => failure.to_string(),
                (Ok(_), None) => "agrees".to_owned(),
            };
            (format!("{} {}", outcome.backend, outcome.level), answer)
        };
        Finding {
            backend: at.backend.to_owned(),
            version: version.to_owned(),
            level: at.level,
            kind,
            signature: format!("{} {kind} {} {cause}", at.backend, at.level),
            symptom: symptom(case, &wrong),
            culprit: culprit.map(|culprit| describe_node(&case.model, culprit.node)),
            cause: None,
            table: outcomes.iter().map(row).collect(),
            graph: graph::text(&case.model),
            blame: blame(case, outcomes),
            context: None,
            form: Form::First,
            wrong,
        }
    }
}

/// Who is to be suspected, by the company that each keeps.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "suspect")]
pub enum Blame {
    /// One backend contradicts the reference, and others agree with it.
    Backend { wrong: String, right: Vec<String> },
    /// Several backends contradict the reference, and others agree with it.
    Split { wrong: Vec<String>, right: Vec<String> },
    /// No other backend has answered.
    Unconfirmed,
    /// All backends that answered, and they are several, give values that contradict the reference: only the specification
    /// stands for it.
    Reference,
}

/// A backend that fails, or answers wrongly at some level, is wrong; one that was not asked says nothing.
pub fn blame(case: &Case, outcomes: &[Outcome]) -> Blame {
    let (mut wrong, mut right, mut values_only) = (BTreeSet::new(), BTreeSet::new(), true);
    for outcome in outcomes.iter().filter(|outcome| !matches!(outcome.result, Err(Failure::Unsupported(_)))) {
        match case.expectation.judge(&outcome.result) {
            Some(found) => {
                values_only &= matches!(found.kind(), Kind::WrongValue | Kind::BeyondRange);
                wrong.insert(outcome.backend.to_owned());
            }
            None => {
                right.insert(outcome.backend.to_owned());
            }
        }
    }
    // Wrong at one level only is wrong, and right at one level confirms nothing then.
    let right: Vec<String> = right.difference(&wrong).cloned().collect();
    let mut wrong: Vec<String> = wrong.into_iter().collect();
    // Optimisers are many, and what is right without them confirms the reference.
    let right_somewhere = outcomes.iter().any(|it| it.result.is_ok() && case.expectation.judge(&it.result).is_none());
    match (wrong.len(), right.len()) {
        (1, 1..) => Blame::Backend { wrong: wrong.remove(0), right },
        (_, 1..) => Blame::Split { wrong, right },
        (2.., 0) if values_only && !right_somewhere => Blame::Reference,
        _ => Blame::Unconfirmed,
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Blame::Backend { wrong, right } => {
                let agree = if right.len() == 1 { "agrees" } else { "agree" };
                write!(f, "{wrong} alone is wrong; {} {agree} with the reference", right.join(" and "))
            }
            Blame::Split { wrong, right } => {
                write!(f, "the backends are split: {} wrong, {} right", wrong.join(" and "), right.join(" and "))
            }
            Blame::Unconfirmed => f.write_str("no other backend confirms the reference"),
            Blame::Reference => {
                f.write_str("every backend contradicts the reference: suspect graphsmith's specification first")
            }
        }
    }
}

/// The operators that lead to a wrong output, the last one first, as far as a signature needs them.
fn chain(case: &Case, wrong: &Wrong) -> String {
    let output = match wrong {
        Wrong::Output(difference) => difference.output().unwrap_or(0),
        Wrong::Failed(_) => 0,
    };
    let nodes = &case.model.nodes;
    let producer = |value: usize| nodes.iter().find(|node| node.outputs.contains(&value));
    let mut names = Vec::new();
    let mut next = producer(case.model.outputs[output]);
    while let Some(node) = next.filter(|_| names.len() < 3) {
        names.push(node.spec.name);
        next = node.operands.iter().flatten().find_map(|&value| producer(value));
    }
    names.join(" <- ")
}

/// What is wrong, in one sentence.
pub fn symptom(case: &Case, wrong: &Wrong) -> String {
    let expected = |output: usize| &case.expectation.outputs[output];
    match wrong {
        Wrong::Failed(failure) => failure.to_string(),
        Wrong::Output(Difference::Count { got }) => {
            format!("{got} outputs in place of {}", case.expectation.outputs.len())
        }
        Wrong::Output(Difference::DType { output, got }) => {
            format!("{} has the element type {got} in place of {}", expected(*output).name, expected(*output).dtype)
        }
        Wrong::Output(Difference::Shape { output, got }) => {
            format!("{} has the shape {got:?} in place of {:?}", expected(*output).name, expected(*output).shape)
        }
        Wrong::Output(Difference::Value { output, element, got, wrong }) => {
            let expected = expected(*output);
            let allowed = expected.allowed.get(*element).copied().unwrap_or(0.0);
            let error = match allowed.is_finite() {
                true => format!("with an allowed error of {allowed:.3e}"),
                false => "or another number".to_owned(),
            };
            format!("{} {error}; {wrong} of {} elements differ", against(expected, *element, got), expected.exact.len())
        }
        Wrong::Output(Difference::Range { output, element, got, wrong }) => {
            let expected = expected(*output);
            let (least, largest) = expected.range.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
            let told = against(expected, *element, got);
            let count = expected.exact.len();
            format!("{told}, and no result is beyond {least} and {largest}; {wrong} of {count} elements are")
        }
    }
}

/// `y[0, 2] is 1.5, the reference has 1.25`.
fn against(expected: &Expected, element: usize, got: &str) -> String {
    let position = position(element, &expected.shape);
    format!("{}{position:?} is {got}, the reference has {:?}", expected.name, expected.exact[element])
}

/// The index along each axis of the element at a row-major position.
fn position(element: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = element;
    let mut position: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let index = rest % size;
            rest /= size;
            index
        })
        .collect();
    position.reverse();
    position
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{} {} at level {}: {}", self.backend, self.version, self.level, self.kind)?;
        writeln!(f, "  signature: {}", self.signature)?;
        writeln!(f, "  {}", self.symptom)?;
        if let Some(context) = &self.context {
            writeln!(f, "  {context}")?;
        }
        if let Some(culprit) = &self.culprit {
            writeln!(f, "  shown by this operator alone: {culprit}")?;
        }
        if let Some(cause) = &self.cause {
            writeln!(f, "  the part to blame: {cause}")?;
        }
        writeln!(f, "  {}", self.blame)?;
        writeln!(f, "\nmodel (x input, w initializer, c constant, -> graph output):\n{}", self.graph)?;
        for (place, answer) in &self.table {
            writeln!(f, "  {place:12} {answer}")?;
        }
        Ok(())
    }
}

macro_rules! raisers {
    ($($kind:ident => $function:ident),* $(,)?) => {
        /// Panics from a function of the finding's own kind, so that deduplication by stack tells kinds apart.
        pub fn raise(finding: &Finding) -> ! {
            match finding.kind {
                $(Kind::$kind => $function(&finding.signature),)*
            }
        }
        $(
            #[inline(never)]
            fn $function(signature: &str) -> ! {
                panic!("finding: {signature}")
            }
        )*
    };
}
raisers! {
    WrongCount => wrong_count,
    WrongDtype => wrong_dtype,
    WrongShape => wrong_shape,
    WrongValue => wrong_value,
    BeyondRange => beyond_range,
    Refused => refused_valid_model,
    Crashed => backend_crashed,
    TimedOut => backend_timed_out,
    OutOfMemory => backend_out_of_memory,
    Protocol => broken_answer,
    NonDeterministic => other_bits_in_another_run,
}

/// Panics about a defect of graphsmith itself, which is never a finding.
#[inline(never)]
pub fn raise_defect(defect: &crate::reference::Defect) -> ! {
    panic!("defect of graphsmith, not of a backend: {defect}")
}
