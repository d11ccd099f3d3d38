//! `graphsmith replay`: any ONNX model over all backends and levels.

use super::judge::{self, Report};
use super::types::{self, Dims};
use super::{Error, Exit, Result, one_line, peers};
use graphsmith::backend::isolate;
use graphsmith::case::Case;
use graphsmith::harness::Harness;
use graphsmith::metamorphic::{self, Axis};
use graphsmith::model::{LeafData, Model};
use graphsmith::npz::Arrays;
use graphsmith::onnx::proto::ModelProto;
use graphsmith::oracle::exceptional;
use graphsmith::reference::{self, Defect, Precision, Values};
use graphsmith::report::{self, Facts};
use graphsmith::search;
use graphsmith::spec::Role;
use graphsmith::tensor::TensorData;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Run any ONNX model on all backends and levels
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith replay model.onnx
  graphsmith replay model.onnx --inputs inputs.npz
  graphsmith replay model.onnx --dim batch=4 --dim sequence=7
  graphsmith replay model.onnx --inputs inputs.npz --outputs outputs.npz --runtime \"my compiler\"

Where graphsmith has a reference for every operator, answers are judged against it as in a fuzzing run. For other
models the backends are only compared with each other and between levels, with a wider tolerance.

With --outputs no backend is asked: what any other runtime has computed from the same inputs is judged. That needs a
reference.

Exit code 1 when there is a finding or a disagreement.")]
pub struct Arguments {
    model: PathBuf,
    /// Seeds the inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The inputs: arrays by the names of the graph's inputs
    #[arg(long, value_name = "INPUTS.npz")]
    inputs: Option<PathBuf>,
    /// Judge these outputs of another runtime: arrays by the names of the graph's outputs
    #[arg(long, value_name = "OUTPUTS.npz", requires = "inputs")]
    outputs: Option<PathBuf>,
    /// The name of that runtime [default: the name of its file]
    #[arg(long, value_name = "NAME", requires = "outputs")]
    runtime: Option<String>,
    /// The size of a symbolic dimension (may be repeated)
    #[arg(long, value_name = "NAME=SIZE", value_parser = dimension)]
    dim: Vec<(String, usize)>,
    /// The size of every other symbolic dimension
    #[arg(long, value_name = "SIZE", default_value_t = 2)]
    symbol_size: usize,
    #[command(flatten)]
    output: judge::Arguments,
}

fn dimension(text: &str) -> std::result::Result<(String, usize), String> {
    let (name, size) = text.split_once('=').ok_or("it must read NAME=SIZE")?;
    Ok((name.to_owned(), size.parse().map_err(|_| format!("`{size}` is not a size"))?))
}

/// Where a model's inputs come from, and how it is run.
#[derive(Default)]
pub struct Options {
    pub seed: u64,
    pub inputs: Option<PathBuf>,
    /// The inputs of a run before.
    pub before: Option<PathBuf>,
    /// The axis of a setting that it is run with as well.
    pub setting: Option<&'static Axis>,
    pub dims: BTreeMap<String, usize>,
    pub symbol_size: usize,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let options = Options {
        seed: arguments.seed,
        inputs: arguments.inputs.clone(),
        before: None,
        setting: None,
        dims: arguments.dim.iter().cloned().collect(),
        symbol_size: arguments.symbol_size,
    };
    // Before the backends are opened: the mistake that is nearer to the user is told first.
    super::read_onnx(&arguments.model)?;
    let mut harness = arguments.output.harness()?;
    let file = std::slice::from_ref(&arguments.model);
    judge::files(file, &arguments.output, out, |file| match &arguments.outputs {
        Some(outputs) => foreign(&harness, file, &options, outputs, arguments.runtime.as_deref()),
        None => model(&mut harness, file, &options),
    })
}

/// The case of an ONNX model, or of a folder with one and its inputs.
pub fn case_of(harness: &Harness, path: &Path) -> Result<Case> {
    let (model, inputs) = match path.is_dir() {
        true => (path.join(report::MODEL), Some(path.join(report::INPUTS))),
        false => (path.to_owned(), None),
    };
    let subject = Subject::read(&model, &Options { inputs, symbol_size: 2, ..Options::default() })?;
    let shown = model.display();
    subject.case(harness).map_err(|reason| Error::Usage(format!("{shown} cannot be minimised: {reason}")))
}

/// What a folder of `graphsmith gen`, or of a report, says beside its model.
pub fn of_folder(folder: &Path) -> Options {
    let facts = fs::read(folder.join(report::FACTS)).ok();
    let facts: Option<Facts> = facts.and_then(|text| serde_json::from_slice(&text).ok());
    let setting = facts.and_then(|facts| metamorphic::by_name(&facts.setting?));
    let before = Some(folder.join(report::BEFORE)).filter(|path| path.exists());
    Options { inputs: Some(folder.join(report::INPUTS)), before, setting, symbol_size: 2, ..Options::default() }
}

/// The case of a model with all of its forms; or why it has none, for people.
fn case(
    harness: &Harness,
    subject: &Subject,
    path: &Path,
    options: &Options,
) -> Result<std::result::Result<Case, String>> {
    let mut case = match subject.case(harness) {
        Ok(case) => case,
        Err(reason) => return Ok(Err(reason)),
    };
    if options.before.is_some() {
        let inputs = options.before.clone();
        let before = Subject::read(path, &Options { inputs, symbol_size: options.symbol_size, ..Options::default() })?;
        let again = Some(Box::new(case));
        case = match before.case(harness) {
            Ok(before) => Case { again, ..before },
            Err(reason) => return Ok(Err(format!("of the inputs of the first run: {reason}"))),
        };
    }
    Ok(Ok(Case { setting: options.setting, ..case }))
}

/// Judges an ONNX file; without a reference for it, compares the backends.
pub fn model(harness: &mut Harness, path: &Path, options: &Options) -> Result<Report> {
    let subject = Subject::read(path, options)?;
    match case(harness, &subject, path, options)? {
        Ok(case) => judge::case(harness, &case),
        Err(reason) => Ok(peers::compare(harness, &subject.onnx, &subject.inputs, &subject.data(), &reason)),
    }
}

/// Judges what another runtime has computed from the given inputs.
fn foreign(harness: &Harness, path: &Path, options: &Options, file: &Path, runtime: Option<&str>) -> Result<Report> {
    let subject = Subject::read(path, options)?;
    let outputs = types::outputs(&subject.proto, super::read_npz(file)?);
    let outputs = outputs.map_err(|reason| Error::Inputs { path: file.to_owned(), reason })?;
    let name = || file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let runtime = runtime.map_or_else(name, str::to_owned);
    Ok(match subject.case(harness) {
        Ok(case) => judge::foreign(&case, runtime, outputs),
        Err(reason) => Report::skipped(&format!("no reference: {reason}")),
    })
}

/// An ONNX file whose inputs have sizes.
struct Subject {
    onnx: Vec<u8>,
    proto: ModelProto,
    /// A model of nothing but the inputs.
    inputs: Model,
    given: Option<Arrays>,
    seed: u64,
}

impl Subject {
    fn read(path: &Path, options: &Options) -> Result<Subject> {
        let (onnx, mut proto) = super::read_onnx(path)?;
        let given = match &options.inputs {
            Some(path) => Some((path.as_path(), super::read_npz(path)?)),
            None => None,
        };
        let dims = Dims { named: &options.dims, others: options.symbol_size };
        types::fix_inputs(&mut proto, path, dims, given.as_ref().map(|(path, arrays)| (*path, arrays)))?;
        let inputs = types::inputs(&proto, path)?;
        Ok(Subject { onnx, proto, inputs, given: given.map(|(_, arrays)| arrays), seed: options.seed })
    }

    /// Data for the inputs: what is given, else any.
    fn data(&self) -> LeafData {
        self.given.as_ref().map_or_else(|| self.inputs.sample(self.seed, 0), |arrays| pick(&self.inputs, arrays))
    }

    /// The case, if the reference can follow the model; else the reason, for people.
    fn case(&self, harness: &Harness) -> std::result::Result<Case, String> {
        let model = types::import(harness, &self.proto, &self.data())?;
        let lost = |reason: &dyn std::fmt::Display| {
            format!("the reference cannot follow the model ({})", one_line(&reason.to_string()))
        };
        // On a model that is not valid the specification of an operator may panic.
        let case = isolate(|| Ok(build(model, self.given.as_ref(), self.seed)));
        let case = case.map_err(|failure| lost(&failure))?;
        let case = case.map_err(|defect| lost(&defect))?;
        let case = case.ok_or("the inputs lead to NaN, infinity, an overflow or an undefined result")?;
        // The file as it is, not what graphsmith would write.
        Ok(Case { onnx: self.onnx.clone(), ..case })
    }
}

/// `None` when there is no data that can be judged.
fn build(model: Model, given: Option<&Arrays>, seed: u64) -> std::result::Result<Option<Case>, Defect> {
    let (data, wide) = match given {
        Some(arrays) => {
            let data = pick(&model, arrays);
            let wide = reference::run(&model, &data, Precision::Wide)?;
            let valid = search::is_valid(&model, &wide)? || in_lane(&model, &data, &wide)?;
            (data, valid.then_some(wide))
        }
        None => {
            let found = search::search(&model, seed)?;
            (found.data, found.values)
        }
    };
    wide.map(|wide| Case::with_data(model, data, wide)).transpose()
}

/// Whether there are NaN or infinities among the inputs, and what follows is judged as in a fuzzing run that plants them.
/// There, too, weights have none: optimisers multiply them into each other.
fn in_lane(model: &Model, data: &LeafData, wide: &Values) -> std::result::Result<bool, Defect> {
    let weights = model.leaves.iter().zip(data).filter(|(leaf, _)| leaf.role != Role::Input);
    let weights: LeafData = weights.map(|(_, data)| data.clone()).collect();
    let planted = model.regions.is_empty() && !exceptional::concerns(&weights);
    Ok(planted && exceptional::is_judgeable(model, data, wide)? && search::integers_fit(model, wide)?)
}

/// The data of all leaves, that of the inputs from `arrays`, which have been checked.
fn pick(model: &Model, arrays: &Arrays) -> LeafData {
    let leaf = |leaf: &graphsmith::model::Leaf| {
        let value = &model.values[leaf.value];
        let given = arrays.get(&value.name).filter(|_| leaf.role == Role::Input);
        let data = given.or(leaf.content.as_ref()).cloned();
        data.unwrap_or_else(|| TensorData::zeros(value.dtype, &value.shape))
    };
    model.leaves.iter().map(leaf).collect()
}
