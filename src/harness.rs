//! Runs cases on every backend and level, and turns the judge's word into a verdict.

use crate::backend::{self, Backend, Failure, Level, Setting};
use crate::case::{Case, Generated, NoCase};
use crate::features::{self, Class, Seen};
use crate::finding::Finding;
use crate::known::{Known, Place};
use crate::metamorphic::{self, Axis, Way};
use crate::model::Model;
use crate::oracle::{Outcome, Wrong, exceptional};
use crate::reference::Defect;
use crate::stages::{self, Stage, stage};
use crate::stats::Stats;
use crate::support::{Support, Table, lacks::lacks};
use crate::tensor::TensorData;
use crate::triage;
use run::{Integers, Run, excluded, forgiven, run_all};
use std::collections::BTreeSet;
use std::iter;

mod run;

pub use run::compile_and_run;

/// A backend with what is known of it.
pub struct Target {
    pub backend: Box<dyn Backend>,
    pub version: String,
    pub support: Table,
    /// The levels at which it is run: the minimiser asks only for what it must know.
    pub asked: &'static [Level],
}

/// Everything that judging needs besides the case.
pub struct Harness {
    pub targets: Vec<Target>,
    pub known: Known,
    pub stats: Stats,
    /// What the answers to the case at hand have shown.
    pub seen: BTreeSet<Seen>,
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

/// The answers to a case.
pub struct Answers {
    /// Of every backend at every level.
    pub first: Vec<Outcome>,
    /// Those to [`Case::again`], if there is one.
    pub again: Option<Vec<Outcome>>,
    /// Those to [`Case::variant`], if there is one.
    pub variant: Option<Vec<Outcome>>,
    /// Those to the case of the backends that have its [`Case::setting`], if there is one.
    pub set: Option<Vec<Outcome>>,
}

/// One form of a case with the answers to it.
pub struct Part<'a> {
    pub case: &'a Case,
    pub outcomes: &'a [Outcome],
    pub form: Form,
}

/// Which form of a case is judged.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// As it was made.
    First,
    /// [`Case::again`], in a second run of what was compiled.
    Again,
    /// [`Case::again`] with exceptional inputs.
    Lane,
    /// [`Case::variant`], or the case under its [`Case::setting`].
    Variant(&'static Axis),
}

impl Answers {
    /// What is judged, one after the other.
    pub fn parts<'a>(&'a self, case: &'a Case) -> impl Iterator<Item = Part<'a>> {
        let first = Part { case, outcomes: &self.first, form: Form::First };
        let again = case.again.as_ref().zip(self.again.as_ref());
        let form = |case: &Case| if exceptional::concerns(&case.data) { Form::Lane } else { Form::Again };
        let again = again.map(|(case, outcomes)| Part { case, outcomes, form: form(case) });
        let variant = case.variant.as_ref().zip(self.variant.as_ref());
        let variant = variant.map(|(it, outcomes)| Part { case: &it.case, outcomes, form: Form::Variant(it.axis) });
        let set = case.setting.zip(self.set.as_ref());
        let set = set.map(|(axis, outcomes)| Part { case, outcomes, form: Form::Variant(axis) });
        iter::once(first).chain(again).chain(variant).chain(set)
    }
}

impl Part<'_> {
    /// The words for where an answer was wrong; none for the case as it was made.
    pub fn context(&self) -> Option<String> {
        match self.form {
            Form::First => None,
            Form::Again => Some("in a second run of what was compiled, with other inputs".to_owned()),
            Form::Lane => {
                Some("in a second run of what was compiled, with NaN, infinities or zeros among the inputs".to_owned())
            }
            Form::Variant(axis) => Some(format!("along the axis {}: {}", axis.name, axis.doc)),
        }
    }

    /// Where verdicts are counted.
    fn table(&self) -> &'static str {
        match self.form {
            Form::First => "cases",
            Form::Again => "second run",
            Form::Lane => metamorphic::EXCEPTIONAL.name,
            Form::Variant(axis) => axis.name,
        }
    }
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
            asked: &Level::ALL,
        };
        Harness {
            targets: backends.into_iter().map(target).collect(),
            known,
            stats: Stats::default(),
            seen: BTreeSet::new(),
        }
    }

    /// Judges a generated model, at its levels. An error is a defect of graphsmith.
    pub fn test(&mut self, generated: Generated) -> Result<Verdict, Defect> {
        match self.case(generated)? {
            Ok(case) => self.judge_at(&case, case.levels),
            Err(reason) => Ok(Verdict::Skip(reason)),
        }
    }

    /// The case of a generated model, counted.
    pub fn case(&mut self, generated: Generated) -> Result<Result<Case, NoCase>, Defect> {
        self.seen.clear();
        generated.fates.iter().for_each(|fate| self.stats.record(fate));
        let tally = generated.tally;
        self.stats.add("laws", "held by hints", tally.by_hints as u64);
        self.stats.add("laws", "repaired", tally.by_repair as u64);
        self.stats.add("laws", "solved by narrowing", tally.by_narrowing as u64);
        self.stats.add("laws", "refused by narrowing", tally.hopeless as u64);
        self.stats.add("laws", "solved by Z3", tally.by_solver as u64);
        self.stats.add("laws", "refused by Z3", tally.refused_by_solver as u64);
        // Searching its inputs would take most of what it costs.
        let unsupported = !generated.model.nodes.is_empty() && !self.may_answer(&generated.model);
        let case = if unsupported { Err(NoCase::Unsupported) } else { Case::unchecked(generated)? };
        match &case {
            Ok(case) => self.stats.add("models", "operands cut off by the search", case.cuts as u64),
            Err(reason) => self.stats.count("cases", format_args!("skipped: {reason:?}")),
        }
        Ok(case)
    }

    /// Whether some backend is not known to refuse a model. Without backends everything may be.
    fn may_answer(&self, model: &Model) -> bool {
        let needs = model.needs();
        let takes = |target: &Target| {
            needs.support(&target.support) != Support::No
                && lacks(target.backend.id(), &target.version, model).is_none()
        };
        self.targets.is_empty() || self.targets.iter().any(takes)
    }

    /// Runs a case everywhere and judges the answers.
    pub fn judge(&mut self, case: &Case) -> Result<Verdict, Defect> {
        self.judge_at(case, &Level::ALL)
    }

    /// Runs a case at some levels and judges the answers.
    pub fn judge_at(&mut self, case: &Case, levels: &[Level]) -> Result<Verdict, Defect> {
        stage(Stage::Judge, || {
            let answers = self.all_answers(case, levels);
            self.verdict(case, &answers)
        })
    }

    /// The answers of every backend to a case, for [`Harness::verdict`]: at every level, and to its variant only at the
    /// level that optimises.
    pub fn answers(&mut self, case: &Case) -> Answers {
        self.all_answers(case, &Level::ALL)
    }

    fn all_answers(&mut self, case: &Case, levels: &[Level]) -> Answers {
        self.seen.clear();
        let (first, again) = self.answers_at(case, levels);
        let variant = case.variant.as_ref();
        let variant = variant.map(|it| stages::other_form(|| self.answers_at(&it.case, &[Level::On]).0));
        let set = case.setting.and_then(|axis| match axis.way {
            Way::Setting(setting) => Some(stages::other_form(|| self.answers_with(case, setting))),
            _ => None,
        });
        Answers { first, again, variant, set }
    }

    fn answers_at(&mut self, case: &Case, levels: &[Level]) -> (Vec<Outcome>, Option<Vec<Outcome>>) {
        let runs: Vec<&Case> = iter::once(case).chain(case.again.as_deref()).collect();
        let inputs: Vec<Vec<TensorData>> = runs.iter().map(|case| case.model.input_data(&case.data)).collect();
        let runs: Vec<Run> = runs
            .iter()
            .zip(&inputs)
            .map(|(case, inputs)| Run { model: &case.model, inputs, integers: Integers::Of(&case.wide) })
            .collect();
        let mut outcomes = self.run_each(&case.onnx, &runs, levels).into_iter();
        (outcomes.next().expect("one for each run"), outcomes.next())
    }

    /// The answers of the backends that have a setting.
    fn answers_with(&mut self, case: &Case, setting: Setting) -> Vec<Outcome> {
        let inputs = case.model.input_data(&case.data);
        let run = Run { model: &case.model, inputs: &inputs, integers: Integers::Of(&case.wide) };
        let mut outcomes = Vec::new();
        let needs = case.model.needs();
        for target in &self.targets {
            let support = needs.support(&target.support);
            if !target.asked.contains(&Level::On) {
                continue;
            }
            let (backend, level) = (target.backend.id(), Level::On);
            let at = Place { backend, version: &target.version, level };
            if excluded(target, &mut self.known, at, support, std::slice::from_ref(&run)).is_some() {
                continue;
            }
            let compile = || target.backend.compile_with(&case.onnx, setting);
            let Some(session) = stage(Stage::Compile(backend, level), compile) else { continue };
            let written = features::histogram(case.model.nodes.iter().map(|node| node.spec.name));
            let optimised = session.as_ref().ok().and_then(|session| session.operators());
            self.seen.extend(optimised.iter().flat_map(|optimised| features::rules(backend, &written, optimised)));
            let run = || session.and_then(|mut session| session.run(&inputs));
            let result = stage(Stage::Run(backend, level), run).map_err(|failure| forgiven(failure, support));
            outcomes.push(Outcome { backend, level, result });
        }
        outcomes
    }

    /// Judges answers: those to the case itself, and if these are right those to its other forms.
    pub fn verdict(&mut self, case: &Case, answers: &Answers) -> Result<Verdict, Defect> {
        let mut met = Vec::new();
        for part in answers.parts(case) {
            let mut judge = || self.verdict_on(&part);
            let verdict = if matches!(part.form, Form::First) { judge() } else { stages::other_form(judge) };
            match verdict? {
                Verdict::Agree | Verdict::Skip(_) => {}
                Verdict::Known(more) => met.extend(more),
                Verdict::Bug(mut finding) => {
                    finding.context = part.context();
                    finding.form = part.form;
                    return Ok(Verdict::Bug(finding));
                }
            }
        }
        Ok(if met.is_empty() { Verdict::Agree } else { Verdict::Known(met) })
    }

    /// Judges the answers to one form.
    fn verdict_on(&mut self, part: &Part) -> Result<Verdict, Defect> {
        let Part { case, outcomes, .. } = *part;
        let answers = || outcomes.iter().filter_map(|outcome| outcome.result.as_deref().ok());
        let (bounded, table) = (case.bounded(answers())?, part.table());
        let expectation = bounded.as_ref().unwrap_or(&case.expectation);
        let answered: BTreeSet<&str> =
            outcomes.iter().filter(|outcome| outcome.result.is_ok()).map(|outcome| outcome.backend).collect();
        self.stats.count("answered by", format_args!("{} backends", answered.len()));
        if !answered.is_empty() {
            self.stats.add("elements", "judged", expectation.judged as u64);
            self.stats.add("elements", "bound too wide", (expectation.elements - expectation.judged) as u64);
        }
        let mut met = Vec::new();
        for outcome in outcomes {
            for wrong in expectation.judge_each(&outcome.result) {
                let class = Class::Wrong(wrong.kind());
                self.seen.insert(Seen::Answer { backend: outcome.backend, level: outcome.level, class });
                let version = self.target(outcome.backend).version.clone();
                let at = Place { backend: outcome.backend, version: &version, level: outcome.level };
                if let Some(issue) = self.known.explain(at, &wrong, &case.model) {
                    met.push(issue.id.clone());
                    continue;
                }
                let checked = case.checked()?;
                let case = checked.as_ref().unwrap_or(case);
                self.stats.add("elements", "bound broken by libtorch", case.expectation.suspect as u64);
                let same = |it: &Wrong| it.kind() == wrong.kind();
                let Some(wrong) = case.expectation.judge_each(&outcome.result).into_iter().find(same) else { continue };
                self.stats.count(table, "bugs");
                let all = self.with_other_levels(part);
                return self.finding(case, &all, outcome, wrong).map(|finding| Verdict::Bug(Box::new(finding)));
            }
        }
        self.stats.count(table, if met.is_empty() { "agree" } else { "known issues only" });
        Ok(if met.is_empty() { Verdict::Agree } else { Verdict::Known(met) })
    }

    /// The answers to a form, and those at the levels at which it was not run: a finding tells of all.
    fn with_other_levels(&mut self, part: &Part) -> Vec<Outcome> {
        let mut all = part.outcomes.to_vec();
        let missing = |level: &Level| part.outcomes.iter().all(|outcome| outcome.level != *level);
        let levels: Vec<Level> = Level::ALL.into_iter().filter(missing).collect();
        if !matches!(part.form, Form::Variant(_)) && !levels.is_empty() {
            all.extend(self.answers_at(part.case, &levels).0);
            let place = |id: &str| self.targets.iter().position(|target| target.backend.id() == id);
            all.sort_by_key(|outcome| (place(outcome.backend), outcome.level));
        }
        all
    }

    /// The answer of every backend at every level. What the support tables or fatal known issues exclude comes back as
    /// [`Failure::Unsupported`], and so does the refusal of a form that is only partly supported, and an integer (the
    /// largest one of the case is given) that the backend cannot hold.
    pub fn run(&mut self, model: &Model, onnx: &[u8], inputs: &[TensorData], largest: i64) -> Vec<Outcome> {
        self.run_each(onnx, &[Run { model, inputs, integers: Integers::Largest(largest) }], &Level::ALL).remove(0)
    }

    /// [`Harness::run`] for several runs, one after the other, of what each backend compiles once: a list of answers for
    /// each of them. A run after a failed one is [`Failure::Unsupported`].
    fn run_each(&mut self, onnx: &[u8], runs: &[Run], levels: &[Level]) -> Vec<Vec<Outcome>> {
        let mut outcomes: Vec<Vec<Outcome>> = runs.iter().map(|_| Vec::new()).collect();
        // The models differ in sizes only.
        let needs = runs[0].model.needs();
        for target in &self.targets {
            let (id, support) = (target.backend.id(), needs.support(&target.support));
            let mut operators = Vec::new();
            for &level in levels.iter().filter(|level| target.asked.contains(level)) {
                let at = Place { backend: id, version: &target.version, level };
                let results = match excluded(target, &mut self.known, at, support, runs) {
                    Some(reason) => vec![Err(Failure::Unsupported(reason))],
                    None => {
                        let (results, compiled) = run_all(target, onnx, level, support, runs);
                        operators.extend(compiled);
                        results
                    }
                };
                let missing = || Err(Failure::Unsupported("an earlier run failed".to_owned()));
                let results = results.into_iter().map(Some).chain(iter::repeat_with(|| None));
                for (outcomes, result) in outcomes.iter_mut().zip(results) {
                    let result = result.unwrap_or_else(missing);
                    let fate = match &result {
                        Ok(_) => "ran",
                        Err(Failure::Unsupported(_)) => "unsupported",
                        Err(_) => "failed",
                    };
                    self.stats.count("runs", format_args!("{id} {level}: {fate}"));
                    let outcome = Outcome { backend: id, level, result };
                    self.seen.insert(Seen::answer(&outcome));
                    outcomes.push(outcome);
                }
            }
            if let [before, after] = &operators[..] {
                self.seen.extend(features::rules(id, before, after));
            }
        }
        outcomes
    }

    /// The forms of cases that were judged, each over all answers to it.
    pub fn tests(&self) -> u64 {
        let verdicts = ["agree", "known issues only", "bugs"];
        let axes = metamorphic::TABLE.iter().chain([metamorphic::EXCEPTIONAL]).map(|axis| axis.name);
        let tables = ["cases", "second run"].into_iter().chain(axes);
        tables.flat_map(|table| verdicts.map(|verdict| self.stats.get(table, verdict))).sum()
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
        stage(Stage::Finding, || {
            let culprit = triage::culprit(case, target.backend.as_ref(), at.level, wrong.kind(), known)?;
            Ok(Finding::new(case, all, at, &target.version, wrong, culprit))
        })
    }
}
