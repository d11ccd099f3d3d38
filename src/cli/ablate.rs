//! `graphsmith ablate`: what each part of the input search is good for.

use super::{Exit, Result, progress, table};
use graphsmith::clock::cpu_time;
use graphsmith::graph;
use graphsmith::input::{self, Record};
use graphsmith::model::Model;
use graphsmith::ops::{self, Choice};
use graphsmith::reference;
use graphsmith::search::{self, METHODS, Method};
use graphsmith::swarm::Swarm;
use std::io::Write;
use std::time::Duration;

/// Operators that have no result, or an infinite one, for many operands.
const VULNERABLE: [&str; 24] = [
    "Div",
    "Pow",
    "Sqrt",
    "Log",
    "Asin",
    "Acos",
    "Acosh",
    "Atanh",
    "Reciprocal",
    "Exp",
    "Softplus",
    "Mod",
    "Tan",
    "Sinh",
    "Cosh",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceProd",
    "LayerNormalization",
    "BatchNormalization",
    "InstanceNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "LogSoftmax",
];
/// The time within which a search is to succeed.
const SOON: Duration = Duration::from_millis(20);

/// Measure the input search with parts of it left out, on models with vulnerable operators and on default models
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith ablate
  graphsmith ablate --count 2000 --failures     also the models for which the whole method finds nothing

Milliseconds are CPU time. The models are the same on every run.")]
pub struct Arguments {
    /// The first input's seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many models of each kind
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Records of each input: at most so many operators
    #[arg(long, default_value_t = 12)]
    records: usize,
    /// Show the models for which the whole method finds nothing
    #[arg(long)]
    failures: bool,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let _no_grad = reference::init();
    let bar = progress(2 * METHODS.len() as u64, "rows");
    for (kind, make) in [("vulnerable", vulnerable as fn(u64, usize) -> (Model, u64)), ("default", default)] {
        let seeds = arguments.seed..arguments.seed + arguments.count;
        let models: Vec<(Model, u64)> = seeds.map(|seed| make(seed, arguments.records)).collect();
        let models: Vec<&(Model, u64)> = models.iter().filter(|(model, _)| !model.nodes.is_empty()).collect();
        let operators: usize = models.iter().map(|(model, _)| model.nodes.len()).sum();
        let mean = operators as f64 / models.len().max(1) as f64;
        bar.suspend(|| writeln!(out, "{} {kind} models of {mean:.1} operators:", models.len()))?;
        let mut rows = vec![
            ["method", "valid in 20 ms", "valid", "median ms", "p99 ms", "passes", "cut"].map(str::to_owned).to_vec(),
        ];
        for method in &METHODS {
            rows.push(row(&models, method)?);
            bar.inc(1);
        }
        bar.suspend(|| table(out, &rows))?;
        writeln!(out)?;
        if arguments.failures {
            for (model, seed) in &models {
                let found = search::fit(&mut model.clone(), *seed)?;
                if let Some(obstacle) = found.obstacle {
                    let obstacle = model.nodes[obstacle].spec.name;
                    writeln!(out, "no valid data because of {obstacle}:\n{}", graph::text(model))?;
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(Exit::Fine)
}

/// One method on all models.
fn row(models: &[&(Model, u64)], method: &Method) -> Result<Vec<String>> {
    let (mut times, mut soon, mut valid, mut cut, mut passes) = (Vec::new(), 0, 0, 0, 0.0);
    for (model, seed) in models {
        let mut model = model.clone();
        let start = cpu_time();
        let found = search::fit_with(&mut model, *seed, method)?;
        let time = cpu_time() - start;
        times.push(time);
        passes += found.passes;
        cut += usize::from(!found.cuts.is_empty());
        valid += usize::from(found.values.is_some());
        soon += usize::from(found.values.is_some() && time <= SOON);
    }
    times.sort_unstable();
    let at = |percent: usize| {
        let index = times.len().saturating_sub(1) * percent / 100;
        format!("{:.2}", times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3)
    };
    let count = models.len().max(1) as f64;
    let share = |part: usize| format!("{:.1} %", 100.0 * part as f64 / count);
    let passes = format!("{:.1}", passes / count);
    Ok(vec![method.name.to_owned(), share(soon), share(valid), at(50), at(99), passes, share(cut)])
}

fn default(seed: u64, records: usize) -> (Model, u64) {
    let input = input::random(seed, records);
    (graph::grow(&input).model(), Swarm::new(&input.header).data_seed)
}

/// At least every fourth operator is a vulnerable one, of floats.
fn vulnerable(seed: u64, records: usize) -> (Model, u64) {
    let mut input = input::random(seed, records);
    // Not the exact lane, f32 first, every operator, no backend in particular.
    input.header[..3].fill(0);
    input.header[15] = 0;
    let swarm = Swarm::new(&input.header);
    let choose = |record: &Record| {
        let pick = usize::from(record[0]);
        let named = (pick % 4 == 0).then(|| ops::by_name(VULNERABLE[pick / 4 % VULNERABLE.len()])).flatten();
        named.map_or_else(|| ops::choose(record[0], &swarm), Choice::Operator)
    };
    (graph::grow_with(&swarm, &input.records, choose).model(), swarm.data_seed)
}
