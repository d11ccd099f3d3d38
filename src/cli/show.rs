//! `graphsmith show`: the readable graph of an input of the fuzzer or of an ONNX file.

use super::types::{self, Dims};
use super::{Error, Exit, Result, json};
use graphsmith::backend::TABLE;
use graphsmith::case;
use graphsmith::graph::{dot, text};
use graphsmith::harness::Harness;
use graphsmith::input::Input;
use graphsmith::known::Known;
use graphsmith::limits::MAX_INPUT_BYTES;
use graphsmith::model::Model;
use graphsmith::onnx::{self, proto::ModelProto, proto::NodeProto};
use graphsmith::report::picture;
use graphsmith::swarm::Swarm;
use graphsmith::{ops, search};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What a symbolic dimension is shown as.
const SYMBOL_SIZE: usize = 2;

/// Show an input of the fuzzer, or an ONNX model, as a readable graph
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  graphsmith show fuzz/artifacts/graph_diff/crash-0123
  graphsmith show model.onnx --svg model.svg

A file named *.onnx is read as a model, any other as an input of the fuzzer: there any bytes mean something.
In the text, x are graph inputs, w initializers, c constants, and -> marks what computes a graph output.")]
pub struct Arguments {
    file: PathBuf,
    /// Draw the graph as well
    #[arg(long, value_name = "OUT.svg")]
    svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let (drawn, shown) = if super::is_onnx(&arguments.file) {
        let (_, proto) = super::read_onnx(&arguments.file)?;
        model(&arguments.file, &proto)?
    } else {
        input(&arguments.file)?
    };
    if let Some(path) = &arguments.svg {
        if shown["graph"] == "" {
            return Err(Error::Usage(format!(
                "{} has no operator: there is nothing to draw",
                arguments.file.display()
            )));
        }
        let drawing = picture::draw(&drawn).ok_or_else(|| {
            Error::Usage("the drawing library fails on this graph; the text has all that it would show".to_owned())
        })?;
        fs::write(path, drawing).map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    if arguments.json {
        json(out, &shown)?;
    } else {
        print(&shown, out)?;
    }
    Ok(Exit::Fine)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn print(shown: &Value, out: &mut dyn Write) -> io::Result<()> {
    if let Some(records) = shown["records"].as_array() {
        for (key, value) in shown["swarm"].as_object().into_iter().flatten() {
            writeln!(out, "{key:16} {}", plain(value))?;
        }
        let kept = records.iter().filter(|record| record["fate"] == "kept").count();
        writeln!(out, "\n{} records, {kept} of them kept", records.len())?;
        for (index, record) in records.iter().enumerate() {
            writeln!(out, "{index:4} {:24} {}", plain(&record["operator"]), plain(&record["fate"]))?;
        }
        writeln!(out)?;
    }
    write!(out, "{}", plain(&shown["graph"]))?;
    for key in ["validity", "note"] {
        if let Some(line) = shown[key].as_str() {
            writeln!(out, "\n{key}: {line}")?;
        }
    }
    Ok(())
}

/// An ONNX file in Graphviz's language, and what is to be shown.
fn model(path: &Path, proto: &ModelProto) -> Result<(String, Value)> {
    let mut fixed = proto.clone();
    types::fix_inputs(&mut fixed, path, Dims { named: &BTreeMap::new(), others: SYMBOL_SIZE }, None)?;
    let note = (fixed != *proto).then(|| format!("symbolic dimensions are shown as {SYMBOL_SIZE}"));
    Ok(match import(&fixed, path) {
        Ok(model) => (dot(&model), json!({ "file": path, "graph": text(&model), "note": note })),
        Err(reason) => {
            let note = format!("without types, because {reason}");
            (outline_dot(proto), json!({ "file": path, "graph": outline(proto), "note": note }))
        }
    })
}

/// The model with the types of all its values, for which backends may be needed.
fn import(proto: &ModelProto, path: &Path) -> std::result::Result<Model, String> {
    match onnx::import(proto, &BTreeMap::new(), SYMBOL_SIZE) {
        Ok(imported) if !types::has_symbols(proto) => Ok(imported.model),
        Ok(_) | Err(onnx::Error::Untyped(_)) => {
            let inputs = types::inputs(proto, path).map_err(|error| error.to_string())?;
            // Any backend that is there will do.
            let backends = TABLE.iter().filter_map(|(_, open)| open().ok()).collect();
            let harness = Harness::with(backends, Known::default());
            types::import(&harness, proto, &inputs.sample(0, 0))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn nodes(proto: &ModelProto) -> impl Iterator<Item = &NodeProto> {
    proto.graph.iter().flat_map(|graph| &graph.node)
}

fn operator(node: &NodeProto) -> String {
    if node.domain.is_empty() { node.op_type.clone() } else { format!("{}.{}", node.domain, node.op_type) }
}

/// One line per node of a model that cannot be imported: without types, inner graphs and attributes.
fn outline(proto: &ModelProto) -> String {
    let line = |node: &NodeProto| {
        let operands = node.input.iter().map(|name| if name.is_empty() { "-" } else { name });
        let operands: Vec<&str> = operands.collect();
        format!("   {} = {}({})\n", node.output.join(", "), operator(node), operands.join(", "))
    };
    nodes(proto).map(line).collect()
}

/// [`outline`] in Graphviz's language.
fn outline_dot(proto: &ModelProto) -> String {
    let quoted = |name: &str| name.replace(['"', '\\'], "'");
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut lines = Vec::new();
    for (index, node) in nodes(proto).enumerate() {
        lines.push(format!("n{index} [label=\"{}\", shape=box, style=filled];", quoted(&operator(node))));
        for name in node.input.iter().filter(|name| !name.is_empty()) {
            let leaf = format!("v{}", ids.len());
            if !ids.contains_key(name) {
                lines.push(format!("{leaf} [label=\"{}\", shape=ellipse];", quoted(name)));
            }
            lines.push(format!("{} -> n{index};", ids.entry(name.clone()).or_insert(leaf)));
        }
        node.output.iter().for_each(|name| {
            ids.insert(name.clone(), format!("n{index}"));
        });
    }
    format!("digraph model {{\n{}\n}}\n", lines.join("\n"))
}

/// An input of the fuzzer in Graphviz's language, and what is to be shown.
fn input(path: &Path) -> Result<(String, Value)> {
    let input = Input::decode(&super::read(path, MAX_INPUT_BYTES)?);
    let swarm = Swarm::new(&input.header);
    let mut generated = case::generate(&input);
    let fate = |(record, fate): (&graphsmith::input::Record, &std::result::Result<(), graphsmith::spec::Skip>)| {
        let operator = ops::choose(record[0], &swarm).name();
        let fate = fate.map_or_else(|skip| format!("skipped: {skip:?}"), |()| "kept".to_owned());
        json!({ "operator": operator, "fate": fate })
    };
    let records: Vec<Value> = input.records.iter().zip(&generated.fates).map(fate).collect();
    let validity = if generated.model.nodes.is_empty() {
        case::NoCase::Empty.to_string()
    } else {
        let found = search::fit(&mut generated.model, generated.seed)?;
        let passes = format!("{:.1} forward passes", found.passes);
        match (found.values, found.cuts.len()) {
            (Some(_), 0) => format!("valid inputs found in {passes}"),
            (Some(_), cuts) => format!("valid inputs found in {passes}, operands with an input of their own: {cuts}"),
            (None, _) => format!("{} in {passes}", case::NoCase::Invalid),
        }
    };
    let shown = json!({
        "file": path,
        "swarm": describe(&swarm),
        "records": records,
        "graph": text(&generated.model),
        "validity": validity,
    });
    Ok((dot(&generated.model), shown))
}

fn describe(swarm: &Swarm) -> Value {
    let share = |of_256: u8| format!("{:.0} %", 100.0 * f64::from(of_256) / 256.0);
    json!({
        "bit-exact only": swarm.exact,
        "element types": swarm.dtypes.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(" "),
        "operators out": share(swarm.left_out),
        "sizes": format!("{:?}", swarm.sizes),
        "fresh operands": share(swarm.fresh),
        "backward": share(swarm.backward),
        "initializers": share(swarm.initializers),
        "extra outputs": share(swarm.extra_outputs),
        "data seed": swarm.data_seed,
    })
}
