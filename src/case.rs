//! From bytes to a model with valid data and what every correct backend makes of it.

use crate::backend::Level;
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
use crate::stages::{self, Stage};
use crate::swarm::Swarm;
use crate::tensor::TensorData;

/// A model ready to be judged.
pub struct Case {
    pub model: Model,
    pub data: LeafData,
    /// The serialized `ModelProto`.
    pub onnx: Vec<u8>,
    /// The reference values in f64.
    pub wide: Values,
    /// With [`Check::Later`] that of [`Expectation::equal`].
    pub expectation: Expectation,
    /// How many operands the search has given inputs of their own; see [`search::fit`].
    pub cuts: usize,
    /// The levels at which the fuzzer runs it.
    pub levels: &'static [Level],
    /// The same ONNX bytes with other inputs, of other sizes where these are symbols, or exceptional ones: a second run of
    /// what was compiled once.
    pub again: Option<Box<Case>>,
    /// The model said otherwise.
    pub variant: Option<Variant>,
    /// An axis that has the same model run otherwise.
    pub setting: Option<&'static Axis>,
    pub check: Check,
}

/// When error bounds are computed, and libtorch is asked in the declared types whether they hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    Now,
    /// Bounds when an answer is not equal to the reference, see [`Case::bounded`]; libtorch before a finding is believed.
    Later,
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
    /// The levels at which it runs.
    pub levels: &'static [Level],
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
    /// Every backend is known to lack something in the model.
    Unsupported,
}

impl std::fmt::Display for NoCase {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            NoCase::Empty => "the input describes no operator",
            NoCase::Invalid => "no inputs without exceptional values were found",
            NoCase::Unsupported => "no backend takes all of its operators",
        })
    }
}

/// Decodes, grows and solves. The same input gives the same model on any machine.
pub fn generate(input: &Input) -> Generated {
    stages::stage(Stage::Generate, || Generated::new(graph::grow(input), &Swarm::new(&input.header)))
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
            levels: if swarm.every_level { &Level::ALL } else { &[Level::On] },
            axis: metamorphic::choose(swarm.axis),
            fates: graph.fates.iter().map(|fate| fate.map(|_| ())).collect(),
            tally: graph.laws.tally,
        }
    }
}

impl Case {
    /// Searches data for a generated model and computes what is expected of it.
    pub fn new(generated: Generated) -> Result<Result<Case, NoCase>, Defect> {
        Case::make(generated, Check::Now)
    }

    /// Like [`Case::new`], for who asks [`Case::checked`] before he believes a difference.
    pub fn unchecked(generated: Generated) -> Result<Result<Case, NoCase>, Defect> {
        Case::make(generated, Check::Later)
    }

    fn make(mut generated: Generated, check: Check) -> Result<Result<Case, NoCase>, Defect> {
        if generated.model.nodes.is_empty() {
            return Ok(Err(NoCase::Empty));
        }
        let levels = generated.levels;
        let found = stages::stage(Stage::Search, || search::fit(&mut generated.model, generated.seed))?;
        if let Some(rebound) = &mut generated.rebound {
            for &cut in &found.cuts {
                rebound.cut(cut);
            }
        }
        let Some(wide) = found.values else { return Ok(Err(NoCase::Invalid)) };
        let seed = mix(generated.seed);
        let mut case = Case::with(generated.model, found.data, wide, check)?;
        (case.cuts, case.levels) = (found.cuts.len(), levels);
        let add = || case.add_forms(generated.rebound, generated.axis, seed);
        stages::other_form(|| stages::stage(Stage::Rewrite, add))?;
        Ok(Ok(case))
    }

    /// Makes the other forms of the case.
    fn add_forms(&mut self, rebound: Option<Model>, axis: Option<&'static Axis>, seed: u64) -> Result<(), Defect> {
        match (rebound, axis) {
            (Some(rebound), _) => self.again = self.rebind(rebound, seed)?.map(Box::new),
            (None, Some(Axis { way: Way::Again, .. })) => {
                self.again = self.rebind(self.model.clone(), seed)?.map(Box::new)
            }
            (None, _) => {}
        }
        if let Some(axis) = axis {
            match self.vary(axis, seed)? {
                // The same bytes, which need not be compiled twice.
                Some(variant) if variant.case.onnx == self.onnx => {
                    self.again = self.again.take().or(Some(variant.case))
                }
                variant => self.variant = variant,
            }
            self.setting = Some(axis).filter(|axis| matches!(axis.way, Way::Setting(_)));
        }
        Ok(())
    }

    /// The case said otherwise. None where the axis changes nothing, or where the change makes data invalid.
    pub fn vary(&self, axis: &'static Axis, seed: u64) -> Result<Option<Variant>, Defect> {
        let (mut model, mut data) = (self.model.clone(), self.data.clone());
        let stream = &mut Stream::new(seed);
        let changes = match axis.way {
            Way::Model(apply) => stages::stage(Stage::Rewrite, || apply(&mut model, &mut data, stream)),
            Way::Exceptional(plant) => stages::stage(Stage::Rewrite, || plant(&model, &mut data, stream)),
            Way::Again | Way::Setting(_) => false,
        };
        if !changes {
            return Ok(None);
        }
        let lane = matches!(axis.way, Way::Exceptional(_));
        let wide = match stages::stage(Stage::Reference, || reference::run(&model, &data, Precision::Wide)) {
            Ok(wide) => wide,
            // An integer made of a NaN may be no index, and sizes may follow from one.
            Err(_) if lane => return Ok(None),
            Err(defect) => return Err(defect),
        };
        let valid = stages::stage(Stage::Search, || {
            if lane {
                Ok(exceptional::is_judgeable(&model, &data, &wide)? && search::integers_fit(&model, &wide)?)
            } else {
                search::is_valid(&model, &wide)
            }
        })?;
        if !valid {
            return Ok(None);
        }
        let case = Box::new(Case::with(model, data, wide, self.check)?);
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
        let found = stages::stage(Stage::Search, || search::search(&model, seed))?;
        let Some(wide) = found.values else { return Ok(None) };
        let case = Case::with(model, found.data, wide, self.check)?;
        Ok((case.onnx == self.onnx).then_some(case))
    }

    /// The case of a model with valid data, whose reference values are `wide`.
    pub fn with_data(model: Model, data: LeafData, wide: Values) -> Result<Case, Defect> {
        Case::with(model, data, wide, Check::Now)
    }

    fn with(model: Model, data: LeafData, wide: Values, check: Check) -> Result<Case, Defect> {
        let expectation = check.expectation(&model, &data, &wide)?;
        let onnx = stages::stage(Stage::Export, || onnx::encode(&model, &data));
        Ok(Case {
            model,
            data,
            onnx,
            wide,
            expectation,
            cuts: 0,
            levels: &Level::ALL,
            again: None,
            variant: None,
            setting: None,
            check,
        })
    }

    /// What is expected of the outputs in which one of `answers` is not equal to the reference. None where there is no such
    /// output, or where [`Case::expectation`] tells.
    pub fn bounded<'a>(&self, answers: impl Iterator<Item = &'a [TensorData]>) -> Result<Option<Expectation>, Defect> {
        if self.check == Check::Now {
            return Ok(None);
        }
        let doubtful = self.expectation.doubtful(answers);
        let bounded = || Expectation::unchecked(&self.model, &self.data, &self.wide, &doubtful);
        (!doubtful.is_empty()).then(bounded).transpose()
    }

    /// The same without other forms, and with bounds that libtorch holds in the declared types. None where that was seen to.
    pub fn checked(&self) -> Result<Option<Case>, Defect> {
        if self.check == Check::Now {
            return Ok(None);
        }
        let wide = self.wide.iter().map(|value| value.as_ref().map(|tensor| tensor.shallow_clone())).collect();
        Ok(Some(Case { levels: self.levels, ..Case::with_data(self.model.clone(), self.data.clone(), wide)? }))
    }

    /// The case that an input describes.
    pub fn build(input: &Input) -> Result<Result<Case, NoCase>, Defect> {
        Case::new(generate(input))
    }
}

impl Check {
    fn expectation(self, model: &Model, data: &LeafData, wide: &Values) -> Result<Expectation, Defect> {
        match self {
            Check::Now => Expectation::new(model, data, wide),
            Check::Later => Expectation::equal(model, wide),
        }
    }
}
