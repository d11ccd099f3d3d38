//! `graphsmith run`: what inputs of the fuzzer, or folders with a model and inputs, find.

use super::judge::{self, Report};
use super::replay;
use super::{Error, Exit, Result};
use graphsmith::case::{self, Case};
use graphsmith::harness::Harness;
use graphsmith::input::Input;
use graphsmith::limits::MAX_INPUT_BYTES;
use graphsmith::report;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Judge inputs of the fuzzer, or folders that hold a model and its inputs
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith run fuzz/artifacts/graph_diff/crash-0123
  graphsmith run corpus/graph_diff/*
  graphsmith run models/0000                      a folder of `graphsmith gen`, or of a report

Exit code 1 when there is a finding.")]
pub struct Arguments {
    /// Files with an input of the fuzzer (any bytes), or folders with model.onnx and inputs.npz
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: judge::Arguments,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let mut harness = arguments.output.harness()?;
    judge::files(&arguments.files, &arguments.output, out, |file| one(&mut harness, file))
}

fn one(harness: &mut Harness, file: &Path) -> Result<Report> {
    if file.is_dir() {
        return replay::model(harness, &file.join(report::MODEL), &replay::of_folder(file));
    }
    if super::is_onnx(file) {
        let shown = file.display();
        return Err(Error::Usage(format!("{shown} is an ONNX model: use `graphsmith replay {shown}`")));
    }
    let input = Input::decode(&super::read(file, MAX_INPUT_BYTES)?);
    match Case::new(case::generate(&input))? {
        Ok(case) => judge::case(harness, &case),
        Err(reason) => Ok(Report::skipped(&reason.to_string())),
    }
}
