//! A finding as a folder that a maintainer can act on without graphsmith: what is wrong in words, a script that shows it
//! with the backend alone, the model, its inputs and what is expected of them.

mod arrays;
pub mod picture;
mod python;
mod readme;
mod rust;

use crate::backend::{Level, Setting};
use crate::case::Case;
use crate::finding::Finding;
use crate::harness::Form;
use crate::metamorphic::{Axis, Way};
use crate::oracle::{Difference, Expected, Kind, Wrong};
use crate::tensor::TensorData;
use crate::{graph, npz, onnx, reference};

use std::path::Path;
use std::{fs, io};

pub use readme::title;

pub const README: &str = "README.md";
pub const MODEL: &str = "model.onnx";
pub const INPUTS: &str = "inputs.npz";
/// The inputs of the run before the one that is wrong, where it takes a second run.
pub const BEFORE: &str = "inputs-before.npz";
pub const EXPECTED: &str = "expected.npz";
pub const PICTURE: &str = "graph.svg";
/// The input of the fuzzer.
pub const INPUT: &str = "input";
/// The finding for programs.
pub const FACTS: &str = "finding.json";

/// What a report tells.
pub struct Report<'a> {
    pub finding: &'a Finding,
    /// The form of the case that is answered wrongly.
    pub case: &'a Case,
    /// The inputs of an earlier run of what was compiled.
    before: Option<Vec<TensorData>>,
    setting: Option<Setting>,
}

/// A finding for programs.
#[derive(serde::Serialize, serde::Deserialize, Clone, Debug)]
pub struct Facts {
    pub title: String,
    pub backend: String,
    pub version: String,
    pub level: Level,
    pub kind: Kind,
    pub signature: String,
    /// The axis that has the model run otherwise, such as `threads`.
    pub setting: Option<String>,
}

/// A program that shows the finding with the backend alone: exit status 1 while the bug is there, else 0.
pub struct Reproducer {
    /// The name of its file.
    pub file: &'static str,
    pub text: String,
    /// What must be installed for it, as arguments of pip, or as lines of Cargo.toml.
    pub needs: String,
}

/// A wrong value.
struct Value<'a> {
    /// Its position in row-major order.
    element: usize,
    got: &'a str,
    /// How many elements of the output are wrong.
    wrong: usize,
    law: Law,
}

/// What a value breaks.
#[derive(Clone, Copy)]
enum Law {
    /// It is too far from the reference.
    Near(f64),
    /// It is none that the operator can give.
    Within(f64, f64),
    /// It must be a number.
    Finite,
}

/// Whether a reproducer says all by itself, or reads the model from the file beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    Inline,
    Files,
}

impl<'a> Report<'a> {
    /// `finding` is one on `case` or on one of its other forms.
    pub fn new(case: &'a Case, finding: &'a Finding) -> Report<'a> {
        let inputs = || case.model.input_data(&case.data);
        let (shown, before, setting) = match finding.form {
            Form::First => (Some(case), None, None),
            Form::Again | Form::Lane => (case.again.as_deref(), Some(inputs()), None),
            Form::Variant(Axis { way: Way::Setting(setting), .. }) => (Some(case), None, Some(*setting)),
            Form::Variant(_) => (case.variant.as_ref().map(|variant| &*variant.case), None, None),
        };
        Report { finding, case: shown.expect("a finding names a form that its case has"), before, setting }
    }

    /// The program, where one can be written for the backend.
    pub fn reproducer(&self, style: Style) -> Option<Reproducer> {
        match self.finding.backend.as_str() {
            "ort" => Some(python::script(self, style)),
            backend => rust::program(self, backend),
        }
    }

    /// Fills a folder, which must be there. `input` is the fuzzer's, `origin` the words for where it comes from.
    pub fn write(&self, folder: &Path, input: Option<&[u8]>, style: Style) -> io::Result<()> {
        fs::write(folder.join(MODEL), &self.case.onnx)?;
        archive(&folder.join(INPUTS), self.named(&self.inputs()))?;
        if let Some(before) = &self.before {
            archive(&folder.join(BEFORE), self.named(before))?;
        }
        self.write_expected(&folder.join(EXPECTED))?;
        let drawing = picture::draw(&graph::dot(&self.case.model));
        if let Some(drawing) = &drawing {
            fs::write(folder.join(PICTURE), drawing)?;
        }
        if let Some(input) = input {
            fs::write(folder.join(INPUT), input)?;
        }
        fs::write(folder.join(FACTS), serde_json::to_string_pretty(&self.facts())?)?;
        let reproducer = self.reproducer(style);
        if let Some(reproducer) = &reproducer {
            fs::write(folder.join(reproducer.file), &reproducer.text)?;
        }
        let text = readme::text(self, reproducer.as_ref(), drawing.is_some(), input.is_some());
        fs::write(folder.join(README), text)
    }

    /// What `scripts/bisect-release` and `graphsmith run` have to know.
    fn facts(&self) -> Facts {
        let Finding { backend, version, level, kind, signature, .. } = self.finding;
        let setting = match self.finding.form {
            Form::Variant(Axis { way: Way::Setting(_), name, .. }) => Some((*name).to_owned()),
            _ => None,
        };
        let (backend, version, signature) = (backend.clone(), version.clone(), signature.clone());
        Facts { title: title(self), backend, version, level: *level, kind: *kind, signature, setting }
    }

    /// The data of the graph's inputs.
    fn inputs(&self) -> Vec<TensorData> {
        self.case.model.input_data(&self.case.data)
    }

    fn named<'b>(&'b self, inputs: &'b [TensorData]) -> Vec<(String, &'b TensorData)> {
        let name = |value: usize| self.case.model.values[value].name.clone();
        self.case.model.inputs().zip(inputs).map(|((_, leaf), data)| (name(leaf.value), data)).collect()
    }

    /// Each output in its declared type under its name, and in f64 with the allowed errors as `NAME.exact` and
    /// `NAME.allowed`.
    fn write_expected(&self, path: &Path) -> io::Result<()> {
        let mut arrays = Vec::new();
        let declared = reference::outputs(&self.case.model, &self.case.wide);
        let (exact, allowed): (Vec<TensorData>, Vec<TensorData>) =
            self.case.expectation.outputs.iter().map(|it| (it.reference(), it.errors())).unzip();
        for (index, output) in self.case.expectation.outputs.iter().enumerate() {
            arrays.push((output.name.clone(), &declared[index]));
            arrays.push((format!("{}.exact", output.name), &exact[index]));
            arrays.push((format!("{}.allowed", output.name), &allowed[index]));
        }
        archive(path, arrays)
    }

    /// The output that is wrong, with its index; the first where the answer as a whole is wrong.
    fn output(&self) -> (usize, &Expected) {
        let index = match &self.finding.wrong {
            Wrong::Output(difference) => difference.output().unwrap_or(0),
            Wrong::Failed(_) => 0,
        };
        (index, &self.case.expectation.outputs[index])
    }

    /// The first wrong value, where that is what is wrong.
    fn value(&self) -> Option<Value<'_>> {
        let (_, expected) = self.output();
        match &self.finding.wrong {
            Wrong::Output(Difference::Value { element, got, wrong, .. }) => {
                let allowed = expected.errors().to_f64()[*element];
                let law = if allowed.is_finite() { Law::Near(allowed) } else { Law::Finite };
                Some(Value { element: *element, got, wrong: *wrong, law })
            }
            Wrong::Output(Difference::Range { element, got, wrong, .. }) => {
                let (least, largest) = expected.range?;
                Some(Value { element: *element, got, wrong: *wrong, law: Law::Within(least, largest) })
            }
            _ => None,
        }
    }

    fn proto(&self) -> Option<onnx::proto::ModelProto> {
        onnx::decode(&self.case.onnx).ok()
    }
}

fn archive(path: &Path, arrays: Vec<(String, &TensorData)>) -> io::Result<()> {
    let named = arrays.iter().map(|(name, tensor)| (name.as_str(), *tensor));
    npz::write(path, named).map_err(|error| match error {
        npz::Error::Io(error) => error,
        other => io::Error::other(other),
    })
}
