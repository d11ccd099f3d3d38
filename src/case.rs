//! From bytes to a model with valid data and what every correct backend makes of it.

use crate::graph;
use crate::input::Input;
use crate::model::{LeafData, Model};
use crate::onnx;
use crate::oracle::Expectation;
use crate::reference::{Defect, Values};
use crate::search;
use crate::spec::Skip;
use crate::swarm::Swarm;

/// A model ready to be judged.
pub struct Case {
    pub model: Model,
    pub data: LeafData,
    /// The serialized `ModelProto`.
    pub onnx: Vec<u8>,
    /// The reference values in f64.
    pub wide: Values,
    pub expectation: Expectation,
}

/// A model with data, before anything is known of its validity.
pub struct Generated {
    pub model: Model,
    pub seed: u64,
    /// What became of each record.
    pub fates: Vec<Result<(), Skip>>,
    /// How many records hints decided, and how many Z3.
    pub by_hints: usize,
    pub by_solver: usize,
}

/// Why an input gives no case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoCase {
    /// No record was kept.
    Empty,
    /// The search found no data without exceptional values.
    Invalid,
}

impl std::fmt::Display for NoCase {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            NoCase::Empty => "the input describes no operator",
            NoCase::Invalid => "no inputs without exceptional values were found",
        })
    }
}

/// Decodes, grows and solves. The same input gives the same model on any machine.
pub fn generate(input: &Input) -> Generated {
    let graph = graph::grow(input);
    Generated {
        model: graph.model(),
        seed: Swarm::new(&input.header).data_seed,
        fates: graph.fates.iter().map(|fate| fate.map(|_| ())).collect(),
        by_hints: graph.laws.by_hints,
        by_solver: graph.laws.by_solver,
    }
}

impl Case {
    /// Searches data for a generated model and computes what is expected of it.
    pub fn new(generated: Generated) -> Result<Result<Case, NoCase>, Defect> {
        if generated.model.nodes.is_empty() {
            return Ok(Err(NoCase::Empty));
        }
        let found = search::search(&generated.model, generated.seed)?;
        let Some(wide) = found.values else { return Ok(Err(NoCase::Invalid)) };
        Case::with_data(generated.model, found.data, wide).map(Ok)
    }

    /// The case of a model with valid data, whose reference values are `wide`.
    pub fn with_data(model: Model, data: LeafData, wide: Values) -> Result<Case, Defect> {
        let expectation = Expectation::new(&model, &data, &wide)?;
        let onnx = onnx::encode(&model, &data);
        Ok(Case { model, data, onnx, wide, expectation })
    }

    /// The case that an input describes.
    pub fn build(input: &Input) -> Result<Result<Case, NoCase>, Defect> {
        Case::new(generate(input))
    }
}
