//! Makes a finding as small as it can be made while it stays the same bug, and says which part of the backend is to blame.
//!
//! Every step changes the case, settles its sizes and values anew by the reference, runs it, and is kept only if the same
//! [`bug`] shows: records of the fuzzer's input, then the graph, then sizes, attributes, element types and values. The
//! budget counts runs, never time, so that the same finding always ends as the same case.

use crate::backend::Level;
use crate::case::{self, Case};
use crate::finding::Finding;
use crate::harness::{Harness, Verdict};
use crate::input::Input;
use crate::known::Place;
use crate::model::{LeafData, Model};
use crate::oracle::{Kind, Outcome, Wrong, exceptional};
use crate::reference::{self, Defect, Precision, Values};
use crate::search::is_valid;
use crate::triage;
use std::collections::BTreeSet;
use std::time::Duration;

mod bug;
mod culprit;
mod draft;
mod graph;
mod records;
mod simplify;
mod sizes;

use bug::{Bug, Sighting, observe};
use draft::{Draft, Form, fingerprint, size};

/// Runs that one minimisation may take. A run of a small model takes a few milliseconds.
const RUNS: usize = 3000;
/// Those of them that the fuzzer's input may take: a run of an input costs the solver and the input search as well.
const RUNS_OF_INPUT: usize = 600;
/// Rounds over all ways to make a case smaller; most findings need two.
const ROUNDS: usize = 4;

/// What a call of a backend may take while a hang is made smaller, for which it hangs many times.
const HURRY: Duration = Duration::from_secs(1);

const FICKLE: &str = "the same case was answered otherwise when it was run again";

/// What is to be minimised.
pub enum Subject {
    /// An input of the fuzzer.
    Input(Input),
    /// A model with the data of its leaves.
    Model(Model, LeafData),
}

impl Subject {
    fn case(&self) -> Result<Case, Error> {
        match self {
            Subject::Input(input) => {
                Case::new(case::generate(input))?.map_err(|reason| Error::Nothing(reason.to_string()))
            }
            Subject::Model(model, data) => with_data(model.clone(), data.clone()),
        }
    }
}

/// A finding that cannot be made smaller.
pub struct Minimised {
    /// The least input that shows the bug, if it came from one. Its model is larger than `case`.
    pub input: Option<Input>,
    pub case: Case,
    /// The finding in `case`, whose signature names operators, types, attributes and the culprit.
    pub finding: Finding,
    /// Operators of the model before anything was removed.
    pub operators_before: usize,
    /// How often backends were run.
    pub runs: usize,
}

/// How far a minimisation has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What is being made smaller.
    pub part: &'static str,
    pub runs: usize,
    pub operators: usize,
}

/// Why nothing was minimised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nothing was found: {0}")]
    Nothing(String),
    #[error("graphsmith is at fault, please report it: {0}")]
    Defect(#[from] Defect),
}

/// Minimises the first finding in `subject`.
pub fn minimise(
    harness: &mut Harness,
    subject: Subject,
    mut progress: impl FnMut(Progress),
) -> Result<Minimised, Error> {
    let case = subject.case()?;
    // The counts belong to the caller, and the runs of the minimiser are none of his.
    let (stats, known) = (harness.stats.clone(), harness.known.clone());
    let result = first_finding(harness, &case).and_then(|finding| {
        let shown = observe(harness, &case);
        let at = shown.iter().find(|it| it.is(&finding)).ok_or_else(|| Error::Nothing(FICKLE.to_owned()))?;
        let bug = Bug::new(at, &shown);
        if bug.kind == Kind::TimedOut {
            let (bug, case) = (bug.clone(), subject.case()?);
            if let Ok(minimised) = Search::new(harness, bug, Some(HURRY), &mut progress).minimise(&subject, case) {
                return Ok(minimised);
            }
            // What is left is slow, but does end.
        }
        Search::new(harness, bug, None, &mut progress).minimise(&subject, case)
    });
    harness.targets.iter_mut().for_each(|target| target.asked = &Level::ALL);
    hurry(harness, None);
    (harness.stats, harness.known) = (stats, known);
    result
}

fn hurry(harness: &Harness, time: Option<Duration>) {
    harness.targets.iter().for_each(|target| target.backend.hurry(time));
}

fn first_finding(harness: &mut Harness, case: &Case) -> Result<Finding, Error> {
    match harness.judge(case)? {
        Verdict::Bug(finding) => Ok(*finding),
        Verdict::Agree | Verdict::Skip(_) => Err(Error::Nothing("all answers agree".to_owned())),
        Verdict::Known(issues) => Err(Error::Nothing(format!("only known issues ({})", issues.join(", ")))),
    }
}

fn with_data(model: Model, data: LeafData) -> Result<Case, Error> {
    let wide = reference::run(&model, &data, Precision::Wide)?;
    if !is_valid(&model, &wide)? && !exceptional::is_judgeable(&model, &data, &wide)? {
        return Err(Error::Nothing("the inputs lead to NaN, infinity, an overflow or an undefined result".to_owned()));
    }
    Ok(Case::with_data(model, data, wide)?)
}

/// Runs what a bug can be seen by, and nothing else.
fn ask_only(harness: &mut Harness, bug: &Bug) {
    for target in &mut harness.targets {
        target.asked = if target.backend.id() == bug.backend { bug.levels() } else { &[] };
    }
}

/// How a changed case is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The change cannot make the model illegal.
    Legal,
    /// Whether the model is legal is confirmed by the other backends.
    Confirm,
}

/// The search for the least case.
struct Search<'a> {
    harness: &'a mut Harness,
    bug: Bug,
    hurry: Option<Duration>,
    /// The operator that shows the bug alone, if one does.
    alone: Option<&'static str>,
    runs: usize,
    limit: usize,
    /// Cases that do not show the bug.
    failed: BTreeSet<[u8; 20]>,
    part: &'static str,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a> Search<'a> {
    fn new(
        harness: &'a mut Harness,
        bug: Bug,
        hurry: Option<Duration>,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Search<'a> {
        ask_only(harness, &bug);
        let (alone, runs, limit, failed, part) = (None, 0, RUNS, BTreeSet::new(), "records");
        Search { harness, bug, hurry, alone, runs, limit, failed, part, progress }
    }

    fn minimise(&mut self, subject: &Subject, case: Case) -> Result<Minimised, Error> {
        hurry(self.harness, self.hurry);
        let operators_before = case.model.nodes.len();
        let (input, case) = match subject {
            Subject::Input(input) => {
                self.alone = self.operator_alone(&case)?;
                self.limit = RUNS_OF_INPUT;
                let (input, case) = self.least_input(input.clone(), case)?;
                (Some(input), case)
            }
            Subject::Model(..) => (None, case),
        };
        self.limit = self.runs + RUNS;
        let case = self.one_form(case);
        let case = self.one_operator(case);
        self.alone = self.operator_alone(&case)?;
        let mut case = self.least_case(case);
        if let Some(root) = self.root(&case) {
            self.alone = self.operator_alone(&root)?;
            case = self.least_case(root);
        }
        hurry(self.harness, None);
        let mut finding = self.finding(&case)?;
        hurry(self.harness, self.hurry);
        let cause = self.cause(&case);
        finding.signature = self.signature(&case, &cause);
        finding.cause = Some(cause);
        Ok(Minimised { input, case, finding, operators_before, runs: self.runs })
    }

    /// Repeats all that makes a case smaller until nothing does.
    fn least_case(&mut self, mut case: Case) -> Case {
        for _ in 0..ROUNDS {
            let (size, print) = (size(&case), fingerprint(&case));
            self.part = "graph";
            case = self.least_graph(case);
            self.part = "sizes";
            case = self.least_sizes(case);
            self.part = "attributes and types";
            case = self.least_attributes(case);
            self.part = "values";
            case = self.least_values(case);
            if size == self::size(&case) && print == fingerprint(&case) {
                break;
            }
        }
        case
    }

    /// Whether a case shows the bug.
    fn shows(&mut self, case: &Case, trust: Trust) -> bool {
        let print = fingerprint(case);
        if self.runs >= self.limit || self.failed.contains(&print) {
            return false;
        }
        self.runs += 1;
        (self.progress)(Progress { part: self.part, runs: self.runs, operators: case.model.nodes.len() });
        let shown = observe(self.harness, case);
        let shows = self.bug.shows(&shown) && (trust == Trust::Legal || self.confirm(case));
        if !shows {
            self.failed.insert(print);
        }
        shows
    }

    /// Asks the other backends, and looks for another bug.
    fn confirm(&mut self, case: &Case) -> bool {
        let shown = self.everyone(case);
        self.bug.confirmed(&shown) && self.operator_alone(case).is_ok_and(|alone| alone == self.alone)
    }

    /// The answers of every backend.
    fn everyone(&mut self, case: &Case) -> Vec<Sighting> {
        self.harness.targets.iter_mut().for_each(|target| target.asked = &Level::ALL);
        let shown = observe(self.harness, case);
        ask_only(self.harness, &self.bug);
        shown
    }

    /// The operator that shows the bug alone, on the values it gets in the case.
    fn operator_alone(&self, case: &Case) -> Result<Option<&'static str>, Defect> {
        let case = self.shown_form(case);
        let target = self.harness.target(self.bug.backend);
        let at = Place { backend: self.bug.backend, version: &target.version, level: self.bug.level };
        let known = |wrong: &Wrong, model: &Model| self.harness.known.explaining(at, wrong, model).is_some();
        let culprit = triage::culprit(case, target.backend.as_ref(), self.bug.level, self.bug.kind, known)?;
        Ok(culprit.map(|culprit| case.model.nodes[culprit.node].spec.name))
    }

    /// The form of a case that shows the bug.
    fn shown_form<'c>(&self, case: &'c Case) -> &'c Case {
        match (&self.bug.context, &case.variant, &case.again) {
            (None, _, _) => case,
            (_, Some(variant), _) => &variant.case,
            (_, None, Some(again)) => again,
            _ => case,
        }
    }

    /// The case after an edit of both of its forms, if it shows the bug and is no larger. The edit is given the reference
    /// values of the form that it changes, and says whether it has changed anything.
    fn edited(&mut self, case: &Case, trust: Trust, edit: &dyn Fn(&mut Form, &Values) -> bool) -> Option<Case> {
        let mut draft = Draft::of(case);
        let wide = [Some(&case.wide), case.again.as_ref().map(|again| &again.wide)];
        let mut changed = true;
        for (form, wide) in draft.forms().zip(wide.into_iter().flatten()) {
            changed &= edit(form, wide);
        }
        let changed = draft.case().filter(|changed_case| changed && size(changed_case) <= size(case))?;
        self.shows(&changed, trust).then_some(changed)
    }

    /// Edits the case in place.
    fn edit(&mut self, case: &mut Case, trust: Trust, edit: &dyn Fn(&mut Form, &Values) -> bool) -> bool {
        let edited = self.edited(case, trust, edit);
        let done = edited.is_some();
        if let Some(edited) = edited {
            *case = edited;
        }
        done
    }

    /// A plain case for one that has other forms, if it shows the bug as well.
    fn one_form(&mut self, case: Case) -> Case {
        self.part = "forms";
        let other = case.variant.as_ref().map(|variant| &*variant.case);
        let plain: Vec<&Case> = match self.bug.context {
            None => vec![&case],
            Some(_) => other.into_iter().chain(case.again.as_deref()).collect(),
        };
        for plain in plain {
            let draft = Draft { first: Form::of(plain), again: None, setting: None };
            let Some(plain) = draft.case() else { continue };
            let shown = self.everyone(&plain);
            if let Some(at) = shown.iter().find(|it| self.bug.is_plainly(it)) {
                self.bug = Bug::new(at, &shown);
                ask_only(self.harness, &self.bug);
                return plain;
            }
        }
        case
    }

    /// The first operator that shows the bug alone.
    fn one_operator(&mut self, case: Case) -> Case {
        if case.again.is_some() || case.variant.is_some() {
            return case;
        }
        for node in 0..case.model.nodes.len() {
            let (model, data) = triage::extract(&case.model, node, &case.wide);
            let draft = Draft { first: Form { model, data }, again: None, setting: case.setting };
            if let Some(alone) = draft.case().filter(|alone| self.shows(alone, Trust::Legal)) {
                return alone;
            }
        }
        case
    }

    /// One operator of a least case that is wrong alone in another way, such as in its shape where what follows is wrong in
    /// values. It is what is wrong there, or it would have been cut off.
    fn root(&mut self, case: &Case) -> Option<Case> {
        if case.model.nodes.len() < 2 || self.bug.context.is_some() {
            return None;
        }
        for node in 0..case.model.nodes.len() {
            let (model, data) = triage::extract(&case.model, node, &case.wide);
            let draft = Draft { first: Form { model, data }, again: None, setting: None };
            let Some(alone) = draft.case() else { continue };
            let shown = self.everyone(&alone);
            if let Some(at) = shown.iter().find(|it| self.bug.may_follow_from(it)) {
                self.bug = Bug::new(at, &shown);
                ask_only(self.harness, &self.bug);
                return Some(alone);
            }
        }
        None
    }

    /// What is found in the least case.
    fn finding(&mut self, case: &Case) -> Result<Finding, Error> {
        self.harness.targets.iter_mut().for_each(|target| target.asked = &Level::ALL);
        let answers = self.harness.answers(case);
        let target = self.harness.target(self.bug.backend);
        let at = Place { backend: self.bug.backend, version: &target.version, level: self.bug.level };
        for part in answers.parts(case).filter(|part| part.context() == self.bug.context) {
            let own = |outcome: &&Outcome| outcome.backend == self.bug.backend && outcome.level == self.bug.level;
            let Some(outcome) = part.outcomes.iter().find(own) else { continue };
            let known = |wrong: &Wrong, model: &Model| self.harness.known.explaining(at, wrong, model).is_some();
            let fits = |wrong: &Wrong| wrong.kind() == self.bug.kind && !known(wrong, &part.case.model);
            let wrong = part.case.expectation.judge_each(&outcome.result).into_iter().find(fits);
            let Some(wrong) = wrong else { continue };
            let (level, kind) = (self.bug.level, self.bug.kind);
            let culprit = triage::culprit(part.case, target.backend.as_ref(), level, kind, known)?;
            let mut finding = Finding::new(part.case, part.outcomes, outcome, &target.version, wrong, culprit);
            finding.context = part.context();
            finding.form = part.form;
            return Ok(finding);
        }
        Err(Error::Nothing(FICKLE.to_owned()))
    }
}
