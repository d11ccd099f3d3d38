//! `graphsmith backends`: what is under test.

use super::{Exit, Result, json, table};
use graphsmith::backend::{Backend, Level, TABLE};
use graphsmith::support::Table;
use serde_json::{Value, json};
use std::io::Write;

/// List the backends with versions and support tables
#[derive(clap::Args)]
#[command(after_help = "Example:\n  ORT_DYLIB_PATH=~/ort-1.20/libonnxruntime.so graphsmith backends")]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let opened = TABLE.iter().map(|(id, open)| (*id, open()));
    let entries: Vec<Value> = opened
        .map(|(id, backend)| match backend {
            Ok(backend) => entry(backend.as_ref()),
            Err(error) => json!({ "id": id, "error": error.to_string() }),
        })
        .collect();
    if arguments.json {
        json(out, &Value::from(entries))?;
        return Ok(Exit::Fine);
    }
    let heading = ["id", "version", "levels", "forms: yes", "partial", "no", "library"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(row));
    table(out, &rows)?;
    for warning in entries.iter().filter_map(|entry| entry["warning"].as_str()) {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(Exit::Fine)
}

fn entry(backend: &dyn Backend) -> Value {
    let (id, version, support) = (backend.id(), backend.version(), Table::of(backend.id()));
    let warning = match support.version.as_str() {
        "" => Some(format!("{id} has no support table; run `graphsmith probe --backend {id} --write`")),
        probed if probed == version => None,
        probed => Some(format!(
            "the support table of {id} is that of version {probed}, and this is {version}; \
             run `graphsmith probe --backend {id} --write`"
        )),
    };
    let count =
        |forms: fn(&graphsmith::support::Forms) -> usize| -> usize { support.operators.values().map(forms).sum() };
    json!({
        "id": id,
        "version": version,
        "levels": Level::ALL.map(|level| level.to_string()),
        "library": backend.library(),
        "probed_version": support.version,
        "forms": {
            "yes": count(|forms| forms.yes.len()),
            "partial": count(|forms| forms.partial.len()),
            "no": count(|forms| forms.no.len()),
        },
        "warning": warning,
    })
}

fn row(entry: &Value) -> Vec<String> {
    let id = entry["id"].as_str().unwrap_or_default().to_owned();
    if let Some(error) = entry["error"].as_str() {
        return vec![id, format!("not available: {error}")];
    }
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let levels: Vec<&str> = entry["levels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let forms = ["yes", "partial", "no"].map(|support| entry["forms"][support].to_string());
    let mut row = vec![id, text(&entry["version"]), levels.join(" ")];
    row.extend(forms);
    row.push(text(&entry["library"]));
    row
}
