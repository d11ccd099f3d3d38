//! Runs cases on every backend and level, and turns the judge's word into a verdict.

use crate::backend::{self, Backend, Failure, Level};
use crate::case::{Case, Generated, NoCase};
use crate::finding::Finding;
use crate::known::{Known, Place};
use crate::model::Model;
use crate::oracle::{Outcome, Wrong};
use crate::reference::{Defect, largest_integer};
use crate::stats::Stats;
use crate::support::{Support, Table};
use crate::tensor::TensorData;
use crate::triage;

/// A backend with what is known of it.
pub struct Target {
    pub backend: Box<dyn Backend>,
    pub version: String,
    pub support: Table,
}

/// Everything that judging needs besides the case.
pub struct Harness {
    pub targets: Vec<Target>,
    pub known: Known,
    pub stats: Stats,
}

/// The word on one case.
pub enum Verdict {
    Agree,
    Skip(NoCase),
    /// Every difference is explained by known issues.
    Known(Vec<String>),
    Bug(Box<Finding>),
}

/// Why a harness cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Backend(#[from] backend::Error),
    #[error(transparent)]
    Known(#[from] crate::known::Error),
}

impl Harness {
    /// All backends of this build with the committed support tables and known issues.
    pub fn new() -> Result<Harness, Error> {
        Ok(Harness::with(backend::all()?, Known::built_in()?))
    }

    pub fn with(backends: Vec<Box<dyn Backend>>, known: Known) -> Harness {
        let target = |backend: Box<dyn Backend>| Target {
            version: backend.version(),
            support: Table::of(backend.id()),
            backend,
        };
        Harness { targets: backends.into_iter().map(target).collect(), known, stats: Stats::default() }
    }

    /// Judges a generated model. An error is a defect of graphsmith.
    pub fn test(&mut self, generated: Generated) -> Result<Verdict, Defect> {
        generated.fates.iter().for_each(|fate| self.stats.record(fate));
        self.stats.add("admitted", "by hints", generated.by_hints as u64);
        self.stats.add("admitted", "by solver", generated.by_solver as u64);
        match Case::new(generated)? {
            Ok(case) => self.judge(&case),
            Err(reason) => {
                self.stats.count("cases", format_args!("skipped: {reason:?}"));
                Ok(Verdict::Skip(reason))
            }
        }
    }

    /// Runs a case everywhere and judges the answers.
    pub fn judge(&mut self, case: &Case) -> Result<Verdict, Defect> {
        let outcomes = self.answers(case);
        self.verdict(case, &outcomes)
    }

    /// The answer of every backend at every level to a case, for [`Harness::verdict`].
    pub fn answers(&mut self, case: &Case) -> Vec<Outcome> {
        let largest = largest_integer(&case.model, &case.wide);
        self.run(&case.model, &case.onnx, &case.model.input_data(&case.data), largest)
    }

    /// Judges answers.
    pub fn verdict(&mut self, case: &Case, outcomes: &[Outcome]) -> Result<Verdict, Defect> {
        let expectation = &case.expectation;
        self.stats.add("elements", "judged", expectation.judged as u64);
        self.stats.add("elements", "bound too wide", (expectation.elements - expectation.judged) as u64);
        self.stats.add("elements", "bound broken by libtorch", expectation.suspect as u64);
        let mut met = Vec::new();
        for outcome in outcomes {
            for wrong in expectation.judge_each(&outcome.result) {
                let version = self.target(outcome.backend).version.clone();
                let at = Place { backend: outcome.backend, version: &version, level: outcome.level };
                if let Some(issue) = self.known.explain(at, &wrong, &case.model) {
                    met.push(issue.id.clone());
                    continue;
                }
                self.stats.count("cases", "bugs");
                return self.finding(case, outcomes, outcome, wrong).map(|finding| Verdict::Bug(Box::new(finding)));
            }
        }
        self.stats.count("cases", if met.is_empty() { "agree" } else { "known issues only" });
        Ok(if met.is_empty() { Verdict::Agree } else { Verdict::Known(met) })
    }

    /// The answer of every backend at every level. What the support tables or fatal known issues exclude comes back as
    /// [`Failure::Unsupported`], and so does the refusal of a form that is only partly supported, and an integer (the
    /// largest one of the case is given) that the backend cannot hold.
    pub fn run(&mut self, model: &Model, onnx: &[u8], inputs: &[TensorData], largest_integer: i64) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for target in &self.targets {
            let support = model.support(&target.support);
            let id = target.backend.id();
            for level in Level::ALL {
                let at = Place { backend: id, version: &target.version, level };
                let result = if support == Support::No {
                    Err(Failure::Unsupported("an operator or element type".to_owned()))
                } else if target.backend.integer_limit().is_some_and(|limit| largest_integer > limit) {
                    Err(Failure::Unsupported("integers beyond the backend's own type".to_owned()))
                } else if let Some(issue) = self.known.forbids(at, model) {
                    Err(Failure::Unsupported(format!("known issue {}", issue.id)))
                } else {
                    match target.backend.compile(onnx, level).and_then(|mut session| session.run(inputs)) {
                        Err(Failure::Refused(reason)) if support == Support::Partial => {
                            Err(Failure::Unsupported(format!("some uses of an operator ({reason})")))
                        }
                        other => other,
                    }
                };
                let fate = match &result {
                    Ok(_) => "ran",
                    Err(Failure::Unsupported(_)) => "unsupported",
                    Err(_) => "failed",
                };
                self.stats.count("runs", format_args!("{id} {level}: {fate}"));
                outcomes.push(Outcome { backend: id, level, result });
            }
        }
        outcomes
    }

    /// The counters, the known issues that were met, and a warning for those that were not.
    pub fn summary(&self) -> String {
        let mut summary = self.stats.to_string();
        let mut absent = Vec::new();
        for (issue, met) in self.known.iter() {
            let target = self.targets.iter().find(|target| target.backend.id() == issue.backend);
            let here = target.is_some_and(|target| issue.affects(&target.version));
            if met > 0 {
                summary += &format!("known      {:50} {met:>12}\n", issue.id);
            } else if here {
                absent.push(issue.id.as_str());
            }
        }
        // Fewer cases than this say nothing about an issue's absence; after more, most of these are still only rare.
        const ENOUGH: u64 = 10_000;
        if self.stats.total("cases") >= ENOUGH && !absent.is_empty() {
            let absent = absent.join(", ");
            summary += &format!("warning: never met, so either rare or fixed in the version at hand: {absent}\n");
        }
        summary
    }

    /// The target that an outcome names.
    pub fn target(&self, id: &str) -> &Target {
        self.targets.iter().find(|target| target.backend.id() == id).expect("outcomes name backends of this harness")
    }

    fn finding(&self, case: &Case, all: &[Outcome], at: &Outcome, wrong: Wrong) -> Result<Finding, Defect> {
        let target = self.target(at.backend);
        let place = Place { backend: at.backend, version: &target.version, level: at.level };
        let known = |wrong: &Wrong, model: &Model| self.known.explaining(place, wrong, model).is_some();
        let culprit = triage::culprit(case, target.backend.as_ref(), at.level, wrong.kind(), known)?;
        Ok(Finding::new(case, all, at, &target.version, wrong, culprit))
    }
}
