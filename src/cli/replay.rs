//! `graphsmith replay`: any ONNX model over all backends and levels.

use super::judge::{self, Report};
use super::types::{self, Dims};
use super::{Exit, Result, one_line, peers};
use graphsmith::backend::isolate;
use graphsmith::case::Case;
use graphsmith::harness::Harness;
use graphsmith::model::{LeafData, Model};
use graphsmith::npz::Arrays;
use graphsmith::onnx::proto::ModelProto;
use graphsmith::reference::{self, Defect, Precision};
use graphsmith::search;
use graphsmith::spec::Role;
use graphsmith::tensor::TensorData;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Run any ONNX model on all backends and levels
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith replay model.onnx
  graphsmith replay model.onnx --inputs inputs.npz
  graphsmith replay model.onnx --dim batch=4 --dim sequence=7

Where graphsmith has a reference for every operator, answers are judged against it as in a fuzzing run. For other
models the backends are only compared with each other and between levels, with a wider tolerance.

Exit code 1 when there is a finding or a disagreement.")]
pub struct Arguments {
    model: PathBuf,
    /// Seeds the inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The inputs: arrays by the names of the graph's inputs
    #[arg(long, value_name = "INPUTS.npz")]
    inputs: Option<PathBuf>,
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

/// Where a model's inputs come from.
#[derive(Default)]
pub struct Options {
    pub seed: u64,
    pub inputs: Option<PathBuf>,
    pub dims: BTreeMap<String, usize>,
    pub symbol_size: usize,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let options = Options {
        seed: arguments.seed,
        inputs: arguments.inputs.clone(),
        dims: arguments.dim.iter().cloned().collect(),
        symbol_size: arguments.symbol_size,
    };
    // Before the backends are opened: the mistake that is nearer to the user is told first.
    super::read_onnx(&arguments.model)?;
    let mut harness = super::harness(&arguments.output.backend, arguments.output.no_known)?;
    let file = std::slice::from_ref(&arguments.model);
    judge::files(file, &arguments.output, out, |file| model(&mut harness, file, &options))
}

/// Judges an ONNX file; without a reference for it, compares the backends.
pub fn model(harness: &mut Harness, path: &Path, options: &Options) -> Result<Report> {
    let (bytes, mut proto) = super::read_onnx(path)?;
    let given = match &options.inputs {
        Some(path) => Some((path.as_path(), super::read_npz(path)?)),
        None => None,
    };
    let dims = Dims { named: &options.dims, others: options.symbol_size };
    types::fix_inputs(&mut proto, path, dims, given.as_ref().map(|(path, arrays)| (*path, arrays)))?;
    let inputs = types::inputs(&proto, path)?;
    let arrays = given.map(|(_, arrays)| arrays);
    match referenced(harness, &proto, &inputs, arrays.as_ref(), options.seed) {
        Ok(mut case) => {
            // The file as it is, not what graphsmith would write.
            case.onnx = bytes;
            judge::case(harness, &case)
        }
        Err(reason) => {
            let data = arrays.map_or_else(|| inputs.sample(options.seed, 0), |arrays| pick(&inputs, &arrays));
            Ok(peers::compare(harness, &bytes, &inputs, &data, &reason))
        }
    }
}

/// The case of a model that the reference can follow; else the reason, for people.
fn referenced(
    harness: &Harness,
    proto: &ModelProto,
    inputs: &Model,
    given: Option<&Arrays>,
    seed: u64,
) -> std::result::Result<Case, String> {
    let data = given.map_or_else(|| inputs.sample(seed, 0), |arrays| pick(inputs, arrays));
    let model = types::import(harness, proto, &data)?;
    let lost = |reason: &dyn std::fmt::Display| {
        format!("the reference cannot follow the model ({})", one_line(&reason.to_string()))
    };
    // On a model that is not valid the specification of an operator may panic.
    let case = isolate(|| Ok(build(model, given, seed)));
    let case = case.map_err(|failure| lost(&failure))?;
    case.map_err(|defect| lost(&defect))?
        .ok_or_else(|| "the inputs lead to NaN, infinity, an overflow or an undefined result".to_owned())
}

/// `None` when there is no data without exceptional values.
fn build(model: Model, given: Option<&Arrays>, seed: u64) -> std::result::Result<Option<Case>, Defect> {
    let (data, wide) = match given {
        Some(arrays) => {
            let data = pick(&model, arrays);
            let wide = reference::run(&model, &data, Precision::Wide)?;
            let valid = search::is_valid(&model, &wide)?;
            (data, valid.then_some(wide))
        }
        None => {
            let found = search::search(&model, seed)?;
            (found.data, found.values)
        }
    };
    wide.map(|wide| Case::with_data(model, data, wide)).transpose()
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
