//! Which part of a backend is to blame, and the name that all findings of one bug share.

use super::draft::Draft;
use super::simplify::is_required;
use super::{Search, observe};
use crate::backend::{Failure, Level, Session};
use crate::case::Case;
use crate::known::Place;
use crate::metamorphic::Way;
use crate::model::{Model, Node};
use crate::oracle::{Wrong, exceptional};
use crate::spec::Attribute;
use crate::tensor::TensorData;

impl Search<'_> {
    /// The passes of the optimiser each of which, left out alone, makes the bug vanish; where the bug needs no optimiser the
    /// place of a crash, or whether loading or running fails.
    pub fn cause(&self, case: &Case) -> String {
        if let Some(place) = self.bug.place() {
            return place;
        }
        if let Some(axis) = case.setting.filter(|axis| matches!(axis.way, Way::Setting(_))) {
            return axis.name.to_owned();
        }
        let backend = &self.harness.target(self.bug.backend).backend;
        if self.bug.level == Level::On {
            let passes: Vec<&str> = backend
                .passes()
                .iter()
                .filter(|pass| self.vanishes(case, backend.compile_without(&case.onnx, pass)))
                .copied()
                .collect();
            if !passes.is_empty() {
                return passes.join(" + ");
            }
            if self.bug.needs_optimiser() {
                return "several passes".to_owned();
            }
        }
        let loads = backend.compile(&case.onnx, self.bug.level).is_ok();
        if loads { "kernel".to_owned() } else { "load".to_owned() }
    }

    /// Whether what was compiled answers rightly.
    fn vanishes(&self, case: &Case, session: Result<Box<dyn Session>, Failure>) -> bool {
        let shown = self.shown_form(case);
        let forms = [Some(case), case.again.as_deref()].into_iter().flatten();
        let result = session.and_then(|mut session| {
            let mut last: Result<Vec<TensorData>, Failure> = Ok(Vec::new());
            for form in forms {
                last = Ok(session.run(&form.model.input_data(&form.data))?);
            }
            last
        });
        let version = &self.harness.target(self.bug.backend).version;
        let at = Place { backend: self.bug.backend, version, level: self.bug.level };
        let known = |wrong: &Wrong| self.harness.known.explaining(at, wrong, &shown.model).is_some();
        result.is_ok() && shown.expectation.judge_each(&result).iter().all(known)
    }

    /// `ort wrong-value Pad f32 > MaxPool f32 [Pad_Fusion]`.
    pub fn signature(&mut self, case: &Case, cause: &str) -> String {
        let mut chain = Vec::new();
        for node in 0..case.model.nodes.len() {
            let attributes = self.attributes_that_matter(case, node);
            let region = case.model.regions.iter().find(|region| region.nodes.start == node);
            let within = region.map_or_else(String::new, |region| format!("{}: ", region.operator()));
            chain.push(format!("{within}{}{attributes}", typed(&case.model, &case.model.nodes[node])));
        }
        let shown = self.shown_form(case);
        let words = [
            (case.model.symbolic, " of symbolic sizes"),
            (exceptional::concerns(&shown.data), " with NaN or infinity"),
            (case.again.is_some(), " in a second run"),
        ];
        let words: String = words.iter().filter(|(is, _)| *is).map(|(_, words)| *words).collect();
        format!("{} {} {}{words} [{cause}]", self.bug.backend, self.bug.kind, chain.join(" > "))
    }

    /// The attributes without which the bug does not show, texts with their values.
    fn attributes_that_matter(&mut self, case: &Case, node: usize) -> String {
        let operator = case.model.nodes[node].spec.name;
        let mut names = Vec::new();
        for (name, value) in &case.model.nodes[node].attributes {
            if is_required(operator, name) {
                continue;
            }
            let mut draft = Draft::of(case);
            draft.forms().for_each(|form| form.model.nodes[node].attributes.retain(|(written, _)| written != name));
            let Some(without) = draft.case() else { continue };
            if self.bug.shows(&observe(self.harness, &without)) {
                continue;
            }
            names.push(match value {
                Attribute::Text(text) => format!("{name}={text}"),
                _ => name.to_string(),
            });
        }
        if names.is_empty() { String::new() } else { format!(" {{{}}}", names.join(", ")) }
    }
}

/// `MaxPool f32`, or `MaxPool f32[empty]` where an operand has no elements.
fn typed(model: &Model, node: &Node) -> String {
    let operands = || node.operands.iter().flatten();
    let first = operands().chain(&node.outputs).next().map(|&value| model.values[value].dtype);
    let dtype = first.map_or_else(String::new, |dtype| format!(" {dtype}"));
    let empty = operands().any(|&value| model.values[value].is_empty());
    format!("{}{dtype}{}", node.spec.name, if empty { "[empty]" } else { "" })
}
