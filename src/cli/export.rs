//! `graphsmith export`: the models of random inputs as one stream, for `scripts/check-models`.

use super::{Exit, Result};
use graphsmith::{case, input, onnx};
use std::io::Write;

/// Writes the models of random inputs to standard output
///
/// Each is its length as a little-endian u32 and then its bytes, in the order of the seeds; an input that describes no
/// operator gives the length 0.
#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long)]
    count: u64,
    #[arg(long)]
    records: usize,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    for seed in (arguments.seed..).take(arguments.count as usize) {
        let generated = case::generate(&input::random(seed, arguments.records));
        let model = &generated.model;
        let empty = model.nodes.is_empty();
        let bytes = if empty { Vec::new() } else { onnx::encode(model, &model.sample(generated.seed, 0)) };
        out.write_all(&(bytes.len() as u32).to_le_bytes())?;
        out.write_all(&bytes)?;
    }
    Ok(Exit::Fine)
}
