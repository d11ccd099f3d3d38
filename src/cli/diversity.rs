//! `graphsmith ops --stats`: what random inputs are made of.

use super::{Result, json, progress, table};
use graphsmith::dtype::{DType, DTypes};
use graphsmith::limits::NEWEST_OPSET;
use graphsmith::model::{Model, Node};
use graphsmith::ops::{self, Choice};
use graphsmith::spec::{Attribute, OpSpec};
use graphsmith::{case, input, schema};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// What an attribute that is left out is counted as.
const ABSENT: &str = "absent";
/// Attributes that mean nothing but where another attribute has one of these values: the operator, the attribute, the other
/// one with its default, and the values.
const CONDITIONS: [(&str, &str, &str, &str, &[&str]); 8] = [
    ("Resize", "cubic_coeff_a", "mode", "nearest", &["cubic"]),
    ("Resize", "exclude_outside", "mode", "nearest", &["cubic", "linear"]),
    ("Resize", "antialias", "mode", "nearest", &["cubic", "linear"]),
    ("Resize", "nearest_mode", "mode", "nearest", &["nearest"]),
    ("Resize", "extrapolation_value", "coordinate_transformation_mode", "half_pixel", &["tf_crop_and_resize"]),
    ("MaxPool", "ceil_mode", "auto_pad", "NOTSET", &["NOTSET"]),
    ("AveragePool", "ceil_mode", "auto_pad", "NOTSET", &["NOTSET"]),
    ("LpPool", "ceil_mode", "auto_pad", "NOTSET", &["NOTSET"]),
];
/// Why some attributes have one value in more than half of the cases.
const REASONS: [(&str, &str); 10] = [
    ("Cast.round_mode", "of 8-bit floats"),
    ("CastLike.round_mode", "of 8-bit floats"),
    ("Cast.saturate", "of 8-bit floats"),
    ("CastLike.saturate", "of 8-bit floats"),
    ("Mod.fmod", "1 is the only one for floats before opset 28"),
    ("LpPool.dilations", "the text leaves them out of auto_pad"),
    ("ReduceMean.keepdims", "1 in the patterns"),
    ("MaxPool.storage_order", "of the second output"),
    ("ConvTranspose.output_shape", "excludes pads and VALID"),
    ("RoiAlign.mode", "the text and the node tests differ on max"),
];
/// Below so many nodes the shares of an attribute's values are noise.
const ENOUGH: u64 = 50;
/// Missing pairs that are printed, and missing types.
const SHOWN: usize = 40;

/// What was counted.
#[derive(Default)]
struct Counts {
    cases: u64,
    nodes: u64,
    heavy: u64,
    /// By operator: nodes, and cases that have one.
    operators: BTreeMap<&'static str, (u64, u64)>,
    /// By operator and opset.
    nodes_by_opset: BTreeMap<&'static str, BTreeMap<i64, u64>>,
    /// By operator and attribute: the lowest and the highest opset in which it was written.
    opsets_of: BTreeMap<(&'static str, String), (i64, i64)>,
    /// By operator, attribute and opset: nodes that leave it out where it would mean nothing.
    idle: BTreeMap<(&'static str, &'static str), BTreeMap<i64, u64>>,
    /// By operator, attribute and value.
    attributes: BTreeMap<(&'static str, String), BTreeMap<String, u64>>,
    ranks: BTreeMap<usize, u64>,
    sizes: BTreeMap<usize, u64>,
    dtypes: BTreeMap<&'static str, u64>,
    opsets: BTreeMap<i64, u64>,
    /// An operator, and one that uses a result of it.
    pairs: BTreeSet<(&'static str, &'static str)>,
    /// An operator, and an element type of an operand or a result of it.
    types: BTreeSet<(&'static str, DType)>,
}

pub fn main(seed: u64, count: u64, records: usize, as_json: bool, out: &mut dyn Write) -> Result<()> {
    let mut counts = Counts::default();
    let bar = progress(count, "inputs");
    for done in 0..count {
        counts.add(&case::generate(&input::random(seed + done, records)).model);
        bar.set_position(done);
    }
    bar.finish_and_clear();
    if as_json {
        json(out, &counts.json())?
    } else {
        counts.print(out)?
    }
    Ok(())
}

impl Counts {
    fn add(&mut self, model: &Model) {
        self.cases += 1;
        *self.opsets.entry(model.opset).or_insert(0) += 1;
        let mut producer: Vec<Option<&'static str>> = vec![None; model.values.len()];
        let mut present: BTreeSet<&'static str> = model.regions.iter().map(|region| region.operator()).collect();
        for name in &present {
            self.operators.entry(name).or_default().0 += 1;
        }
        for node in &model.nodes {
            let name = node.spec.name;
            self.nodes += 1;
            self.heavy += u64::from(ops::is_heavy(node.spec));
            self.operators.entry(name).or_default().0 += 1;
            present.insert(name);
            self.add_attributes(node, model.opset);
            for from in node.operands.iter().flatten().filter_map(|&operand| producer[operand]) {
                self.pairs.insert((from, name));
            }
            node.outputs.iter().for_each(|&output| producer[output] = Some(name));
            let values = node.operands.iter().flatten().chain(&node.outputs);
            self.types.extend(values.map(|&value| (name, model.values[value].dtype)));
        }
        for name in present {
            self.operators.entry(name).or_default().1 += 1;
        }
        for value in &model.values {
            *self.ranks.entry(value.shape.len()).or_insert(0) += 1;
            *self.dtypes.entry(value.dtype.name()).or_insert(0) += 1;
            value.shape.iter().for_each(|&size| *self.sizes.entry(size).or_insert(0) += 1);
        }
    }

    /// Each element of a list counts by itself.
    fn add_attributes(&mut self, node: &Node, opset: i64) {
        *self.nodes_by_opset.entry(node.spec.name).or_default().entry(opset).or_insert(0) += 1;
        for (operator, attribute, other, default, values) in CONDITIONS {
            let value = node.attributes.iter().find_map(|(name, value)| match value {
                Attribute::Text(text) if name == other => Some(text.as_str()),
                _ => None,
            });
            let written = node.attributes.iter().any(|(name, _)| name == attribute);
            if operator == node.spec.name && !written && !values.contains(&value.unwrap_or(default)) {
                *self.idle.entry((operator, attribute)).or_default().entry(opset).or_insert(0) += 1;
            }
        }
        for (name, value) in &node.attributes {
            let span = self.opsets_of.entry((node.spec.name, name.to_string())).or_insert((opset, opset));
            *span = (opset.min(span.0), opset.max(span.1));
            let counts = self.attributes.entry((node.spec.name, name.to_string())).or_default();
            let mut count = |text: String| *counts.entry(text).or_insert(0) += 1;
            match value {
                Attribute::Ints(values) => values.iter().for_each(|value| count(value.to_string())),
                Attribute::Floats(values) => values.iter().for_each(|value| count(value.to_string())),
                single => count(single.to_string()),
            }
        }
    }

    /// Nodes of the operator that leave the attribute out where they may have it and it means something.
    fn absent(&self, operator: &'static str, attribute: &str, written: &BTreeMap<String, u64>) -> u64 {
        let (first, last) = self.opsets_of[&(operator, attribute.to_owned())];
        let idle = self.idle.iter().find(|((of, name), _)| *of == operator && *name == attribute);
        let since = |counts: &BTreeMap<i64, u64>| counts.range(first..=last).map(|(_, count)| count).sum::<u64>();
        let able = since(&self.nodes_by_opset[operator]) - idle.map_or(0, |(_, counts)| since(counts));
        able.saturating_sub(written.values().sum())
    }

    /// The most frequent value of every attribute that has more than two, with its share; the highest share first.
    fn concentrated(&self) -> Vec<(String, String, f64)> {
        let mut found = Vec::new();
        for ((operator, attribute), written) in &self.attributes {
            let mut values = written.clone();
            let is_list = written.values().sum::<u64>() > self.operators[operator].0;
            // A list is as long as the rank says, so that its elements do not tell the number of nodes.
            let absent = if is_list { 0 } else { self.absent(operator, attribute, written) };
            if absent > 0 {
                values.insert(ABSENT.to_owned(), absent);
            }
            let total: u64 = values.values().sum();
            let Some((value, most)) = values.iter().max_by_key(|(_, count)| **count) else { continue };
            if values.len() > 2 && total >= ENOUGH {
                found.push((format!("{operator}.{attribute}"), value.clone(), share(*most, total)));
            }
        }
        found.sort_by(|a, b| b.2.total_cmp(&a.2));
        found
    }

    /// Ordered pairs whose types can meet: how many there are, and those that never occurred.
    fn pairs(&self) -> (usize, Vec<(&'static str, &'static str)>) {
        let mut all = 0;
        let mut missing = Vec::new();
        for from in ops::ALL.iter() {
            let made = output_types(from);
            for to in ops::ALL.iter().filter(|to| !made.and(operand_types(to)).is_empty()) {
                all += 1;
                if !self.pairs.contains(&(from.name, to.name)) {
                    missing.push((from.name, to.name));
                }
            }
        }
        (all, missing)
    }

    /// Operators with an element type that the newest opset allows them: how many there are, and those that never occurred.
    fn forms(&self) -> (usize, Vec<(&'static str, &'static str)>) {
        let types = |spec: &&'static OpSpec| operand_types(spec).or(output_types(spec));
        let all: Vec<_> = ops::ALL.iter().flat_map(|spec| types(spec).iter().map(|dtype| (spec.name, dtype))).collect();
        let missing = all.iter().filter(|form| !self.types.contains(form));
        (all.len(), missing.map(|(name, dtype)| (*name, dtype.name())).collect())
    }

    /// Every operator with its share of the cases, the rarest first.
    fn by_share(&self) -> Vec<(&'static str, u64, f64)> {
        let row = |it: Choice| {
            let (nodes, cases) = self.operators.get(it.name()).copied().unwrap_or_default();
            (it.name(), nodes, share(cases, self.cases))
        };
        let mut rows: Vec<_> = Choice::all().map(row).collect();
        rows.sort_by(|a, b| a.2.total_cmp(&b.2));
        rows
    }

    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        let rows: Vec<Vec<String>> = self
            .by_share()
            .into_iter()
            .map(|(name, nodes, share)| vec![name.to_owned(), nodes.to_string(), percent(share)])
            .collect();
        writeln!(out, "operator, nodes, share of the {} cases that have one:", self.cases)?;
        table(out, &rows)?;
        writeln!(
            out,
            "\nnodes {}, of which convolutions, products, pools and normalisations {}",
            self.nodes,
            percent(share(self.heavy, self.nodes))
        )?;
        histogram(out, "opset", &self.opsets)?;
        histogram(out, "rank", &self.ranks)?;
        histogram(out, "element type", &self.dtypes)?;
        histogram(out, "size (the first 40)", &self.sizes.iter().take(40).map(|(k, v)| (*k, *v)).collect())?;
        let concentrated = self.concentrated();
        writeln!(out, "\nattributes of more than two values whose most frequent one has more than half of all:")?;
        let rows = concentrated.iter().filter(|row| row.2 > 0.5);
        table(
            out,
            &rows
                .map(|(name, value, share)| vec![name.clone(), value.clone(), percent(*share), reason(name).to_owned()])
                .collect::<Vec<_>>(),
        )?;
        let (all, missing) = self.pairs();
        writeln!(
            out,
            "\nordered pairs whose types can meet: {all}, met {}",
            percent(share((all - missing.len()) as u64, all as u64))
        )?;
        for (from, to) in missing.iter().take(SHOWN) {
            writeln!(out, "  never {from} -> {to}")?;
        }
        let (all, missing) = self.forms();
        let met = percent(share((all - missing.len()) as u64, all as u64));
        writeln!(out, "\noperators with each element type that opset {NEWEST_OPSET} allows: {all}, met {met}")?;
        for (name, dtype) in missing.iter().take(SHOWN) {
            writeln!(out, "  never {name} of {dtype}")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let (all, missing) = self.pairs();
        let (forms, absent) = self.forms();
        json!({
            "cases": self.cases,
            "nodes": self.nodes,
            "heavy_share": share(self.heavy, self.nodes),
            "operators": self.by_share().into_iter()
                .map(|(name, nodes, share)| json!({ "name": name, "nodes": nodes, "share_of_cases": share }))
                .collect::<Vec<_>>(),
            "opsets": self.opsets,
            "ranks": self.ranks,
            "element_types": self.dtypes,
            "sizes": self.sizes,
            "attributes": self.concentrated().into_iter()
                .map(|(name, value, share)| json!({ "attribute": name, "most_frequent": value, "share": share }))
                .collect::<Vec<_>>(),
            "pairs": { "type_correct": all, "met": all - missing.len(), "missing": missing },
            "element_types_of_operators": { "allowed": forms, "met": forms - absent.len(), "missing": absent },
        })
    }
}

/// Why an attribute has one value in most cases; empty where there is no reason.
fn reason(attribute: &str) -> &'static str {
    REASONS.iter().find(|(name, _)| *name == attribute).map_or("", |(_, reason)| reason)
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn newest(spec: &OpSpec) -> &'static schema::Signature {
    schema::signature(spec.name, NEWEST_OPSET).expect("the catalogue is of the standard")
}

fn operand_types(spec: &OpSpec) -> DTypes {
    newest(spec).operand_types()
}

fn output_types(spec: &OpSpec) -> DTypes {
    newest(spec).output_types()
}

fn histogram<K: std::fmt::Display>(out: &mut dyn Write, title: &str, counts: &BTreeMap<K, u64>) -> Result<()> {
    let total: u64 = counts.values().sum();
    writeln!(out, "\n{title}:")?;
    let most = counts.values().copied().max().unwrap_or(1).max(1);
    for (key, &count) in counts {
        let bar = "#".repeat((count * 40 / most) as usize);
        writeln!(out, "  {key:>6} {:>6.2} % {bar}", 100.0 * share(count, total))?;
    }
    Ok(())
}
