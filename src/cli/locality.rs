//! `graphsmith locality`: how far a mutation moves the model.

use super::{Exit, Result, progress, table};
use graphsmith::distance::{self, Edits};
use graphsmith::features;
use graphsmith::input::{self, Input, Stream};
use graphsmith::mutate::{self, Mutation, TABLE};
use graphsmith::{case, graph, model::Model};
use std::collections::BTreeSet;
use std::io::Write;

/// libFuzzer's default `-max_len`.
const MAX_SIZE: usize = 4096;

/// Print how far one mutation of each kind moves the model, in nodes
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  graphsmith locality --count 2000

The distance counts nodes that are put in, taken out, replaced or wired otherwise. `new` are semantic features (operators with
element type and rank, pairs of operators, attributes) for each mutation, that no input had before. Where the table of mutations asks for
libFuzzer's own mutation, one byte is changed, put in or taken out.")]
pub struct Arguments {
    /// How many random inputs each kind of mutation is tried on
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// The first input's seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Records of each input
    #[arg(long, default_value_t = 10)]
    records: usize,
}

/// What one kind of mutation does.
#[derive(Default)]
struct Row {
    tried: usize,
    unchanged: usize,
    edits: Vec<Edits>,
    /// Nodes of the models before.
    nodes: usize,
    /// Semantic features of the models after.
    features: BTreeSet<usize>,
}

impl Row {
    fn add(&mut self, before: &Model, after: Option<&Input>) {
        self.tried += 1;
        let Some(after) = after else { return };
        let after = case::generate(after).model;
        self.unchanged += usize::from(graph::text(before) == graph::text(&after));
        self.edits.push(distance::between(before, &after));
        self.nodes += before.nodes.len();
        self.features.extend(features::of_model(&after));
    }

    /// `old` are the features of the models before.
    fn cells(&self, name: &str, share: String, old: &BTreeSet<usize>, doc: &str) -> Vec<String> {
        let new = self.features.difference(old).count();
        let mut distances: Vec<usize> = self.edits.iter().map(Edits::distance).collect();
        distances.sort_unstable();
        let percent = |part: usize, whole: usize| format!("{:.0} %", 100.0 * part as f64 / whole.max(1) as f64);
        let at =
            |part: usize| distances.get((distances.len().max(1) - 1) * part / 100).copied().unwrap_or(0).to_string();
        let mean = distances.iter().sum::<usize>() as f64 / distances.len().max(1) as f64;
        let kept = self.edits.iter().map(|edits| edits.kept).sum();
        let some_kept = self.edits.iter().filter(|edits| edits.kept > 0).count();
        let resized = self.edits.iter().map(|edits| edits.resized).sum::<usize>();
        vec![
            name.to_owned(),
            share,
            percent(self.edits.len(), self.tried),
            percent(self.unchanged, self.edits.len()),
            at(50),
            format!("{mean:.1}"),
            at(90),
            percent(kept, self.nodes),
            percent(some_kept, self.edits.len()),
            percent(resized, self.nodes),
            format!("{:.2}", new as f64 / self.edits.len().max(1) as f64),
            doc.to_owned(),
        ]
    }
}

const HEADINGS: [&str; 12] = [
    "mutation",
    "share",
    "applies",
    "same model",
    "median",
    "mean",
    "p90",
    "nodes kept",
    "some kept",
    "resized",
    "new",
    "",
];

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let (mut byte, mut drawn) = (Row::default(), Row::default());
    let mut rows: Vec<(&Mutation, Row)> = TABLE.iter().map(|row| (row, Row::default())).collect();
    let mut old = BTreeSet::new();
    let bar = progress(u64::from(arguments.count), "inputs");
    for number in 0..arguments.count {
        let seed = arguments.seed + u64::from(number);
        let input = input::random(seed, arguments.records);
        let other = input::random(!seed, arguments.records);
        let before = case::generate(&input).model;
        old.extend(features::of_model(&before));
        byte.add(&before, Some(&one_byte_changed(&input, seed)));
        for (row, result) in &mut rows {
            let after = row.apply(&input, &other, MAX_SIZE, number, &mut mutate::one_byte(seed));
            result.add(&before, after.as_ref());
        }
        let with = other.encode();
        let with = number.is_multiple_of(2).then_some(&with[..]);
        let after = mutate::mutate(&input.encode(), with, MAX_SIZE, number, &mut mutate::one_byte(seed));
        drawn.add(&before, Some(&Input::decode(&after)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut cells = vec![HEADINGS.map(str::to_owned).to_vec()];
    cells.push(byte.cells("one byte", "-".to_owned(), &old, "any byte of the input changed"));
    cells.extend(rows.iter().map(|(row, result)| result.cells(row.name, row.share.to_string(), &old, row.doc)));
    cells.push(drawn.cells("as drawn", "-".to_owned(), &old, "all of the table by their shares"));
    table(out, &cells)?;
    Ok(Exit::Fine)
}

fn one_byte_changed(input: &Input, seed: u64) -> Input {
    let mut stream = Stream::new(!seed);
    let mut bytes = input.encode();
    let at = stream.below(bytes.len() as u64) as usize;
    bytes[at] = bytes[at].wrapping_add(1 + stream.below(255) as u8);
    Input::decode(&bytes)
}
