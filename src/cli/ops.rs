//! `graphsmith ops`: the operators.

use super::{Exit, Result, json, table};
use graphsmith::dtype::DTypes;
use graphsmith::ops::{self, FAMILIES};
use graphsmith::spec::{Numerics, OpSpec};
use serde_json::{Value, json};
use std::io::{self, Write};

/// List the operators that models are made of
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith ops
  graphsmith ops --stats --count 200000
  graphsmith ops --json | jq '.[] | select(.guard) | .name'

Columns: wire code, name, the opset since which the operator has this form, the element types of the main
operand, how exactly backends must compute it, whether the input search avoids places where it is undefined.")]
pub struct Arguments {
    /// Print JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the page of operators
    #[arg(long)]
    markdown: bool,
    /// Count what random inputs are made of: operators, attributes, sizes, pairs
    #[arg(long, conflicts_with = "markdown")]
    stats: bool,
    /// Random inputs for --stats
    #[arg(long, value_name = "N", default_value_t = 20_000, requires = "stats")]
    count: u64,
    /// The first one's seed
    #[arg(long, default_value_t = 0, requires = "stats")]
    seed: u64,
    /// Records of each
    #[arg(long, default_value_t = 16, requires = "stats")]
    records: usize,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    if arguments.stats {
        super::diversity::main(arguments.seed, arguments.count, arguments.records, arguments.json, out)?;
    } else if arguments.json {
        json(out, &all())?;
    } else if arguments.markdown {
        markdown(out)?;
    } else {
        for (index, (family, specs)) in FAMILIES.iter().enumerate() {
            writeln!(out, "{}{family}", if index > 0 { "\n" } else { "" })?;
            table(out, &specs.iter().map(row).collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Fine)
}

fn row(spec: &&OpSpec) -> Vec<String> {
    let guard = if spec.guard.is_some() { "guard" } else { "" };
    vec![
        format!("  {:#04x}", spec.code),
        spec.name.to_owned(),
        spec.since.to_string(),
        names(spec.dtypes).join(" "),
        numerics(&spec.numerics),
        guard.to_owned(),
        spec.doc.to_owned(),
    ]
}

fn names(dtypes: DTypes) -> Vec<&'static str> {
    dtypes.iter().map(|dtype| dtype.name()).collect()
}

/// The class of numerics in a few words.
fn numerics(numerics: &Numerics) -> String {
    match numerics {
        Numerics::Exact => "exact".to_owned(),
        Numerics::Elementwise { ulps: 0.0, .. } => "selecting".to_owned(),
        Numerics::Elementwise { ulps, .. } => format!("{ulps} ulp"),
        Numerics::Accumulated => "accumulated".to_owned(),
        Numerics::Custom(_) | Numerics::Unfiltered(_) => "own rule".to_owned(),
    }
}

fn all() -> Value {
    let families = FAMILIES.iter().flat_map(|(family, specs)| specs.iter().map(move |spec| (family, spec)));
    let entry = |(family, spec): (&&str, &&OpSpec)| {
        json!({
            "code": spec.code, "name": spec.name, "family": family, "since": spec.since,
            "dtypes": names(spec.dtypes), "numerics": numerics(&spec.numerics), "guard": spec.guard.is_some(),
            "can_overflow": spec.can_overflow, "doc": spec.doc,
        })
    };
    families.map(entry).collect()
}

fn markdown(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "# Operators\n\nMade by `graphsmith ops --markdown`; {} operators.", ops::ALL.len())?;
    for (family, specs) in FAMILIES {
        writeln!(out, "\n## {family}\n\n| code | operator | since | element types | numerics | guard | |")?;
        writeln!(out, "|---|---|---|---|---|---|---|")?;
        for spec in *specs {
            let cells: Vec<String> = row(spec).iter().map(|cell| cell.trim().replace('|', "\\|")).collect();
            writeln!(out, "| {} |", cells.join(" | "))?;
        }
    }
    Ok(())
}
