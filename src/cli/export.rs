//! `graphsmith export`: the models of random inputs as one stream, for `scripts/check-models`.

use super::{Exit, Result};
use graphsmith::limits::{NEWEST_OPSET, OLDEST_OPSET};
use graphsmith::model::Model;
use graphsmith::ops::{self, Choice};
use graphsmith::spec::OpSpec;
use graphsmith::support::Focus;
use graphsmith::swarm::Swarm;
use graphsmith::{case, graph, input, onnx};
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
    #[arg(long, default_value_t = 1)]
    records: usize,
    /// Models of one operator: of every operator, in every opset that it can be of
    #[arg(long)]
    each: bool,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let seeds = || (arguments.seed..).take(arguments.count as usize);
    if !arguments.each {
        for seed in seeds() {
            let generated = case::generate(&input::random(seed, arguments.records));
            write(&generated.model, generated.seed, out)?;
        }
        return Ok(Exit::Fine);
    }
    for &spec in ops::ALL.iter() {
        for opset in spec.since.max(OLDEST_OPSET)..=NEWEST_OPSET {
            for seed in seeds() {
                write(&alone(spec, opset, seed), seed, out)?;
            }
        }
    }
    Ok(Exit::Fine)
}

/// A model of one operator.
fn alone(spec: &'static OpSpec, opset: i64, seed: u64) -> Model {
    let input = input::random(seed, 1);
    let swarm = Swarm { focus: Focus::NONE, opset, ..Swarm::new(&input.header) };
    graph::grow_with(&swarm, &input.records, |_| Choice::Operator(spec)).model()
}

fn write(model: &Model, seed: u64, out: &mut dyn Write) -> Result<()> {
    let bytes = if model.nodes.is_empty() { Vec::new() } else { onnx::encode(model, &model.sample(seed, 0)) };
    out.write_all(&(bytes.len() as u32).to_le_bytes())?;
    out.write_all(&bytes)?;
    Ok(())
}
