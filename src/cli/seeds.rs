//! `graphsmith seeds`: the seed corpus, one small input for every operator.

use super::{Error, Exit, Result, harness, progress};
use graphsmith::harness::{Harness, Verdict};
use graphsmith::input::{self, Input};
use graphsmith::{case, ops};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

/// Records of a seed: the operator, and some company for libFuzzer to rearrange.
const RECORDS: usize = 4;
/// Random inputs tried for each operator.
const TRIES: u64 = 2000;

/// Write a seed corpus: for every operator one input on which all backends agree
#[derive(clap::Args)]
#[command(after_help = "Example:\n  graphsmith seeds --out corpus/graph_diff")]
pub struct Arguments {
    /// The folder for the inputs; made if it is missing, files of the same names are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let write = |path: &PathBuf, source| Error::Write { path: path.clone(), source };
    fs::create_dir_all(&arguments.out).map_err(|source| write(&arguments.out, source))?;
    let mut harness = harness(&[], false)?;
    let bar = progress(ops::ALL.len() as u64, "seeds");
    for spec in ops::ALL.iter() {
        bar.set_message(spec.name);
        match seed(&mut harness, spec.code)? {
            Some(input) => {
                let path = arguments.out.join(spec.name);
                fs::write(&path, input.encode()).map_err(|source| write(&path, source))?;
            }
            None => writeln!(out, "no input with {} agrees everywhere", spec.name)?,
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Exit::Fine)
}

/// An input whose model holds the operator and some more, on which every backend agrees with the reference.
fn seed(harness: &mut Harness, code: u8) -> Result<Option<Input>> {
    for attempt in 0..TRIES {
        let mut input = input::random(attempt << 8 | u64::from(code), RECORDS);
        input.records[0][0] = code;
        let generated = case::generate(&input);
        let has_operator = generated.model.nodes.iter().any(|node| node.spec.code == code);
        let whole = generated.model.nodes.len() == RECORDS;
        if has_operator && whole && matches!(harness.test(generated)?, Verdict::Agree) {
            return Ok(Some(input));
        }
    }
    Ok(None)
}
