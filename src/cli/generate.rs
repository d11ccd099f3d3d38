//! `graphsmith gen`: valid models with inputs and expected outputs.

use super::{Error, Exit, Result, progress};
use graphsmith::case::Case;
use graphsmith::input::{self, mix};
use graphsmith::limits::MAX_OPERATORS;
use graphsmith::{npz, onnx, reference};
use prost::Message;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MODEL: &str = "model.onnx";
const INPUTS: &str = "inputs.npz";
const EXPECTED: &str = "expected.npz";

/// So many random inputs in a row without a valid case mean that there are none.
const MISSES: u64 = 1000;

/// Write valid models with inputs and expected outputs
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith gen --count 100 --out models
  graphsmith gen --count 1000 --out models --seed 7 --operators 20

Each model is a folder: DIR/0000/model.onnx, inputs.npz (by the names of the graph's inputs) and expected.npz (by
those of its outputs). The same seed gives the same bytes on any machine. Judge one with `graphsmith run DIR/0000`.")]
pub struct Arguments {
    /// How many models
    #[arg(long, value_name = "N")]
    count: u64,
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seeds everything
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many operators each model is asked to have; some fit nowhere and are left out
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=MAX_OPERATORS as u64))]
    operators: u64,
    /// Write into a folder that is not empty, replacing models of the same number
    #[arg(long)]
    force: bool,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    prepare(&arguments.out, arguments.force)?;
    let digits = arguments.count.saturating_sub(1).to_string().len().max(4);
    let bar = progress(arguments.count, "models");
    let (mut attempt, mut written, mut misses) = (0, 0, 0);
    while written < arguments.count {
        let input = input::random(mix(mix(arguments.seed).wrapping_add(attempt)), arguments.operators as usize);
        attempt += 1;
        let Ok(case) = Case::build(&input)? else {
            misses += 1;
            if misses == MISSES {
                return Err(Error::Usage(format!("{MISSES} random inputs in a row gave no valid model")));
            }
            continue;
        };
        misses = 0;
        write(&case, &arguments.out, &format!("{written:0digits$}"))?;
        written += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let skipped = attempt - written;
    writeln!(out, "{written} models in {}; {skipped} random inputs gave no valid case", arguments.out.display())?;
    Ok(Exit::Fine)
}

fn prepare(folder: &Path, force: bool) -> Result<()> {
    let failed = |source| Error::Write { path: folder.to_owned(), source };
    if folder.exists() && !folder.is_dir() {
        return Err(Error::NotFolder(folder.to_owned()));
    }
    fs::create_dir_all(folder).map_err(failed)?;
    let empty = fs::read_dir(folder).map_err(failed)?.next().is_none();
    if !empty && !force {
        let shown = folder.display();
        return Err(Error::Usage(format!(
            "{shown} is not empty: choose another folder, or add --force to write into it"
        )));
    }
    Ok(())
}

/// Writes a model's folder under another name and renames it, so that a folder that is there is whole.
pub fn write(case: &Case, folder: &Path, name: &str) -> Result<()> {
    let partial = folder.join(format!(".{name}.partial"));
    let whole = folder.join(name);
    let written = fill(case, &partial).and_then(|()| {
        if whole.exists() {
            remove(&whole)?;
        }
        fs::rename(&partial, &whole)
    });
    written.map_err(|source| {
        // What remains of it is no use; that it cannot be removed is no news after the first error.
        let _ = remove(&partial);
        Error::Write { path: whole, source }
    })
}

fn fill(case: &Case, folder: &Path) -> io::Result<()> {
    if folder.exists() {
        remove(folder)?;
    }
    fs::create_dir(folder)?;
    let name = |value: usize| case.model.values[value].name.as_str();
    let inputs = case.model.inputs().map(|(index, leaf)| (name(leaf.value), &case.data[index]));
    let expected = reference::outputs(&case.model, &case.wide);
    let outputs = case.model.outputs.iter().map(|&output| name(output)).zip(&expected);
    // In a fuzzing run backends find the types between nodes by themselves; here they tell the reader.
    let mut proto = onnx::export(&case.model, &case.data);
    let inner =
        case.model.nodes.iter().flat_map(|node| &node.outputs).filter(|value| !case.model.outputs.contains(value));
    let types = inner.map(|&value| onnx::export_type(&case.model.values[value])).collect();
    proto.graph.get_or_insert_default().value_info = types;
    fs::write(folder.join(MODEL), proto.encode_to_vec())?;
    let archive = |error| match error {
        npz::Error::Io(error) => error,
        other => io::Error::other(other),
    };
    npz::write(&folder.join(INPUTS), inputs).map_err(archive)?;
    npz::write(&folder.join(EXPECTED), outputs).map_err(archive)
}

/// Removes a model's folder, unless it holds anything that this command does not write.
fn remove(folder: &Path) -> io::Result<()> {
    for file in [MODEL, INPUTS, EXPECTED] {
        match fs::remove_file(folder.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::remove_dir(folder)
}
