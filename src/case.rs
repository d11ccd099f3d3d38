//! From bytes to a model with valid data and what every correct backend makes of it.

use crate::graph::{self, Graph};
use crate::input::{Input, Stream, mix};
use crate::metamorphic::{self, Axis, Way};
use crate::model::{LeafData, Model};
use crate::onnx;
use crate::oracle::{Expectation, exceptional};
use crate::reference::{self, Defect, Precision, Values};
use crate::search;
use crate::solve::Tally;
use crate::spec::{Role, Skip};
use crate::swarm::Swarm;

/// With this share of its results judged a case is good enough.
const JUDGED_SHARE: f64 = 0.9;
/// Samples, of all scales, that are tried where it is not.
const OTHER_SAMPLES: u32 = 8;

/// A model ready to be judged.
pub struct Case {
    pub model: Model,
    pub data: LeafData,
    /// The serialized `ModelProto`.
    pub onnx: Vec<u8>,
    /// The reference values in f64.
    pub wide: Values,
    pub expectation: Expectation,
    /// How many operands the search has given inputs of their own; see [`search::fit`].
    pub cuts: usize,
    /// The same ONNX bytes with other inputs, of other sizes where these are symbols, or exceptional ones: a second run of
    /// what was compiled once.
    pub again: Option<Box<Case>>,
    /// The model said otherwise.
    pub variant: Option<Variant>,
    /// An axis that has the same model run otherwise.
    pub setting: Option<&'static Axis>,
}

/// A case that must agree with another one, up to the error bounds.
pub struct Variant {
    pub axis: &'static Axis,
    pub case: Box<Case>,
}

/// A model with data, before anything is known of its validity.
pub struct Generated {
    pub model: Model,
    pub seed: u64,
    /// The same with other sizes of its inputs, where its sizes are symbols.
    pub rebound: Option<Model>,
    /// How it is said otherwise as well.
    pub axis: Option<&'static Axis>,
    /// What became of each record.
    pub fates: Vec<Result<(), Skip>>,
    /// What the laws of the records needed.
    pub tally: Tally,
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
    Generated::new(graph::grow(input), &Swarm::new(&input.header))
}

/// The model that is tested for an input; as it was drawn, if it has no valid data.
pub fn model(input: &Input) -> Model {
    match Case::build(input) {
        Ok(Ok(case)) => case.model,
        _ => generate(input).model,
    }
}

impl Generated {
    /// What a graph that was grown for `swarm` describes.
    pub fn new(mut graph: Graph, swarm: &Swarm) -> Generated {
        Generated {
            model: graph.model(),
            seed: swarm.data_seed,
            rebound: graph.rebound(swarm.data_seed),
            axis: metamorphic::choose(swarm.axis),
            fates: graph.fates.iter().map(|fate| fate.map(|_| ())).collect(),
            tally: graph.laws.tally,
        }
    }
}

impl Case {
    /// Searches data for a generated model and computes what is expected of it.
    pub fn new(mut generated: Generated) -> Result<Result<Case, NoCase>, Defect> {
        if generated.model.nodes.is_empty() {
            return Ok(Err(NoCase::Empty));
        }
        let found = search::fit(&mut generated.model, generated.seed)?;
        if let Some(rebound) = &mut generated.rebound {
            for &cut in &found.cuts {
                rebound.cut(cut);
            }
        }
        let Some(wide) = found.values else { return Ok(Err(NoCase::Invalid)) };
        let seed = mix(generated.seed);
        let mut case = Case::with_data(generated.model, found.data, wide)?.more_judgeable(seed)?;
        case.cuts = found.cuts.len();
        match (generated.rebound, generated.axis) {
            (Some(rebound), _) => case.again = case.rebind(rebound, seed)?.map(Box::new),
            (None, Some(Axis { way: Way::Again, .. })) => {
                case.again = case.rebind(case.model.clone(), seed)?.map(Box::new)
            }
            (None, _) => {}
        }
        if let Some(axis) = generated.axis {
            match case.vary(axis, seed)? {
                // The same bytes, which need not be compiled twice.
                Some(variant) if variant.case.onnx == case.onnx => case.again = case.again.or(Some(variant.case)),
                variant => case.variant = variant,
            }
            case.setting = Some(axis).filter(|axis| matches!(axis.way, Way::Setting(_)));
        }
        Ok(Ok(case))
    }

    /// The same model with other valid data, if these let more of the results be judged. Most cases need none.
    fn more_judgeable(mut self, seed: u64) -> Result<Case, Defect> {
        for attempt in 0..OTHER_SAMPLES {
            let Expectation { judged, elements, .. } = self.expectation;
            if judged as f64 >= JUDGED_SHARE * elements as f64 {
                break;
            }
            let data = self.model.sample(mix(seed ^ u64::from(attempt)), attempt);
            let wide = reference::run(&self.model, &data, Precision::Wide)?;
            if !search::is_valid(&self.model, &wide)? {
                continue;
            }
            let expectation = Expectation::new(&self.model, &data, &wide)?;
            if expectation.judged > judged {
                let onnx = onnx::encode(&self.model, &data);
                self = Case { data, wide, expectation, onnx, ..self };
            }
        }
        Ok(self)
    }

    /// The case said otherwise. None where the axis changes nothing, or where the change makes data invalid.
    pub fn vary(&self, axis: &'static Axis, seed: u64) -> Result<Option<Variant>, Defect> {
        let (mut model, mut data) = (self.model.clone(), self.data.clone());
        let stream = &mut Stream::new(seed);
        let changes = match axis.way {
            Way::Model(apply) => apply(&mut model, &mut data, stream),
            Way::Exceptional(plant) => plant(&model, &mut data, stream),
            Way::Again | Way::Setting(_) => false,
        };
        if !changes {
            return Ok(None);
        }
        let lane = matches!(axis.way, Way::Exceptional(_));
        let wide = match reference::run(&model, &data, Precision::Wide) {
            Ok(wide) => wide,
            // An integer made of a NaN may be no index, and sizes may follow from one.
            Err(_) if lane => return Ok(None),
            Err(defect) => return Err(defect),
        };
        let valid = if lane {
            exceptional::is_judgeable(&model, &data, &wide)? && search::integers_fit(&model, &wide)?
        } else {
            search::is_valid(&model, &wide)?
        };
        if !valid {
            return Ok(None);
        }
        let case = Box::new(Case::with_data(model, data, wide)?);
        // An order may be that which was.
        Ok((lane || case.onnx != self.onnx).then_some(Variant { axis, case }))
    }

    /// The case of `model`, which differs from this one's only in sizes of inputs, with other inputs and the same initializers.
    /// None where no data are valid, or the bytes depend on the sizes after all.
    fn rebind(&self, mut model: Model, seed: u64) -> Result<Option<Case>, Defect> {
        for (leaf, data) in model.leaves.iter_mut().zip(&self.data) {
            if leaf.role != Role::Input {
                leaf.content = Some(data.clone());
            }
        }
        let found = search::search(&model, seed)?;
        let Some(wide) = found.values else { return Ok(None) };
        let case = Case::with_data(model, found.data, wide)?;
        Ok((case.onnx == self.onnx).then_some(case))
    }

    /// The case of a model with valid data, whose reference values are `wide`.
    pub fn with_data(model: Model, data: LeafData, wide: Values) -> Result<Case, Defect> {
        let expectation = Expectation::new(&model, &data, &wide)?;
        let onnx = onnx::encode(&model, &data);
        Ok(Case { model, data, onnx, wide, expectation, cuts: 0, again: None, variant: None, setting: None })
    }

    /// The case that an input describes.
    pub fn build(input: &Input) -> Result<Result<Case, NoCase>, Defect> {
        Case::new(generate(input))
    }
}
