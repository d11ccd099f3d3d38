//! When two failures count as the same bug.

use crate::backend::{Failure, Level};
use crate::case::Case;
use crate::finding::Finding;
use crate::harness::Harness;
use crate::known::Place;
use crate::oracle::{Kind, Wrong};

/// One answer of one backend: where it was given, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub backend: &'static str,
    pub level: Level,
    /// The form of the case, as in [`Finding::context`].
    pub context: Option<String>,
    pub state: State,
}

#[derive(Clone, PartialEq, Debug)]
pub enum State {
    Agrees,
    Wrong(Wrong),
    /// Unsupported, or wrong in ways that are known.
    Silent,
}

/// What must stay as it is while a finding is made smaller.
#[derive(Clone, Debug)]
pub struct Bug {
    pub backend: &'static str,
    pub level: Level,
    pub kind: Kind,
    pub context: Option<String>,
    /// Of a crash its place in the source, of a refusal its text without numbers and names.
    text: Option<String>,
    /// Where this backend was right before: at a lower level, or in the plain form of the case.
    agreed: Vec<(Option<String>, Level)>,
    /// The answers of other backends, and whether they were right.
    witnesses: Vec<(&'static str, Level)>,
}

impl Sighting {
    /// Whether it is the answer that a finding is about.
    pub fn is(&self, finding: &Finding) -> bool {
        let wrong = matches!(&self.state, State::Wrong(wrong) if wrong.kind() == finding.kind);
        wrong && self.backend == finding.backend && self.level == finding.level && self.context == finding.context
    }
}

/// Every answer that the backends that are asked give to a case.
pub fn observe(harness: &mut Harness, case: &Case) -> Vec<Sighting> {
    let answers = harness.answers(case);
    let mut sightings = Vec::new();
    for part in answers.parts(case) {
        for outcome in part.outcomes {
            let target = harness.target(outcome.backend);
            let at = Place { backend: outcome.backend, version: &target.version, level: outcome.level };
            let known = |wrong: &Wrong| harness.known.explaining(at, wrong, &part.case.model).is_some();
            let wrong = part.case.expectation.judge_each(&outcome.result);
            let state = match wrong.iter().find(|wrong| !known(wrong)) {
                Some(wrong) => State::Wrong(wrong.clone()),
                None if wrong.is_empty() && outcome.result.is_ok() => State::Agrees,
                None => State::Silent,
            };
            let (backend, level) = (outcome.backend, outcome.level);
            sightings.push(Sighting { backend, level, context: part.context(), state });
        }
    }
    sightings
}

impl Bug {
    /// The bug that one of all answers to a case shows.
    pub fn new(at: &Sighting, all: &[Sighting]) -> Bug {
        let (kind, text) = match &at.state {
            State::Wrong(wrong) => (wrong.kind(), text(wrong)),
            State::Agrees | State::Silent => unreachable!("only a wrong answer shows a bug"),
        };
        let (backend, level, context) = (at.backend, at.level, at.context.clone());
        let (mut agreed, mut witnesses) = (Vec::new(), Vec::new());
        for it in all.iter().filter(|it| it.state == State::Agrees) {
            if it.backend != backend {
                witnesses.push((it.backend, it.level));
            } else if it.level < level || (context.is_some() && it.context.is_none()) {
                agreed.push((it.context.clone(), it.level));
            }
        }
        Bug { backend, level, kind, context, text, agreed, witnesses }
    }

    /// The levels that say whether it shows.
    pub fn levels(&self) -> &'static [Level] {
        if self.level == Level::Off && self.agreed.is_empty() { &[Level::Off] } else { &Level::ALL }
    }

    /// Whether the backend is right without its optimiser.
    pub fn needs_optimiser(&self) -> bool {
        self.level == Level::On && self.agreed.contains(&(self.context.clone(), Level::Off))
    }

    /// The source file of a crash, without the line, which differs from release to release.
    pub fn place(&self) -> Option<String> {
        let text = self.text.as_deref().filter(|_| self.kind == Kind::Crashed)?;
        let file = text.rsplit_once(':').map_or(text, |(file, _)| file);
        Some(file.to_owned())
    }

    /// Whether an answer to a part of the case shows what may be the reason for the bug.
    pub fn may_follow_from(&self, at: &Sighting) -> bool {
        matches!(at.state, State::Wrong(_)) && at.backend == self.backend && at.level <= self.level
    }

    /// Whether an answer to the plain form of a case fails in the same way.
    pub fn is_plainly(&self, at: &Sighting) -> bool {
        let same = |wrong: &Wrong| wrong.kind() == self.kind && text(wrong) == self.text;
        let wrong = matches!(&at.state, State::Wrong(wrong) if same(wrong));
        wrong && at.backend == self.backend && at.context.is_none()
    }

    /// Whether these answers show the bug: the same failure, and nothing wrong where nothing was.
    pub fn shows(&self, sightings: &[Sighting]) -> bool {
        let own = || sightings.iter().filter(|it| it.backend == self.backend);
        let same = |it: &Sighting| match &it.state {
            State::Wrong(wrong) => {
                it.level == self.level
                    && it.context == self.context
                    && wrong.kind() == self.kind
                    && text(wrong) == self.text
            }
            _ => false,
        };
        let spoiled =
            |it: &Sighting| it.state != State::Agrees && self.agreed.contains(&(it.context.clone(), it.level));
        own().any(same) && !own().any(spoiled)
    }

    /// Whether the answers of the other backends leave no doubt that a changed case is a legal one: none that was right
    /// fails, and where some were right one is.
    pub fn confirmed(&self, sightings: &[Sighting]) -> bool {
        let others = || sightings.iter().filter(|it| it.backend != self.backend);
        let fails = |it: &Sighting| match &it.state {
            State::Wrong(Wrong::Failed(_)) => self.witnesses.contains(&(it.backend, it.level)),
            _ => false,
        };
        let right = |it: &Sighting| it.state == State::Agrees;
        let any = self.witnesses.is_empty() || others().any(right);
        any && !others().any(fails)
    }
}

/// What tells failures of one kind apart.
fn text(wrong: &Wrong) -> Option<String> {
    match wrong {
        Wrong::Failed(Failure::Crashed(message)) => match message.rsplit_once(" at ") {
            Some((_, place)) => Some(place.to_owned()),
            // What a process was ended by.
            None => Some(message.clone()),
        },
        Wrong::Failed(Failure::Refused(message)) => Some(without_numbers(message)),
        _ => None,
    }
}

/// A message without words that have a digit, and with lists of them as one: sizes, positions and names of values change
/// while a model becomes smaller.
fn without_numbers(message: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in message.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '/' || c == '.')) {
        let numbered = word.contains(|c: char| c.is_ascii_digit()) && !word.contains('/');
        match (numbered, words.last()) {
            _ if word.is_empty() => {}
            (true, Some(&"#")) => {}
            (true, _) => words.push("#"),
            (false, _) => words.push(word),
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lose_what_changes() {
        let refused = |message: &str| text(&Wrong::Failed(Failure::Refused(message.to_owned())));
        assert_eq!(
            refused("node n12 of {1,3,4} at /a/b.cc:170: too small"),
            refused("node n3 of {2} at /a/b.cc:9: too small")
        );
        assert_ne!(refused("node n1 is too small"), refused("node n1 is too large"));
        let crashed = |message: &str| text(&Wrong::Failed(Failure::Crashed(message.to_owned())));
        assert_eq!(crashed("index 3 of 2 at a-1.0/src/b.rs:7"), crashed("index 5 of 1 at a-1.0/src/b.rs:7"));
        assert_ne!(crashed("index 3 of 2 at a-1.0/src/b.rs:7"), crashed("index 3 of 2 at a-1.0/src/b.rs:8"));
    }
}
