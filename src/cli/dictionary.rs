//! `graphsmith dictionary`: libFuzzer's dictionary, made from the table of operators.

use super::{Exit, Result};
use graphsmith::input::{Record, Stream};
use graphsmith::ops;
use std::io::Write;

/// Records of one operator beside the plain one.
const VARIANTS: u64 = 3;

/// Print libFuzzer's dictionary: whole records for every operator
#[derive(clap::Args)]
#[command(after_help = "Example:\n  graphsmith dictionary > dictionaries/graph_diff.dict")]
pub struct Arguments {}

pub fn main(_: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    writeln!(out, "# Made by `graphsmith dictionary > dictionaries/graph_diff.dict`; do not edit.")?;
    for spec in ops::ALL.iter() {
        // Zero picks are the plain case of every choice.
        let mut plain = Record::default();
        plain[0] = spec.code;
        writeln!(out, "{}={}", spec.name, escaped(&plain))?;
        for variant in 1..=VARIANTS {
            let mut record = plain;
            Stream::new(variant << 8 | u64::from(spec.code)).fill(&mut record[1..]);
            writeln!(out, "{}_{variant}={}", spec.name, escaped(&record))?;
        }
    }
    Ok(Exit::Fine)
}

fn escaped(record: &Record) -> String {
    let bytes: String = record.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    format!("\"{bytes}\"")
}
