//! `graphsmith node-tests`: the reference against the node tests of the ONNX standard.

use super::{Error, Exit, Result, json, one_line, read, read_onnx, table};
use graphsmith::backend::isolate;
use graphsmith::dtype::DType;
use graphsmith::limits::MAX_FILE_BYTES;
use graphsmith::model::{LeafData, Model, Value};
use graphsmith::onnx::proto::{ModelProto, TensorProto};
use graphsmith::onnx::{self, tensor_data};
use graphsmith::reference::{self, Precision};
use graphsmith::spec::Role;
use graphsmith::tensor::TensorData;
use prost::Message;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The tests that fail for a reason of their own: name to reason.
const EXCUSED: &str = include_str!("node_tests.toml");
/// How far a float may be off, in units of roundoff of its type and the largest expected magnitude. What the tests
/// expect was itself computed in the declared type.
const ULPS: f64 = 16.0;

/// Check the reference against the node tests of the ONNX standard; see scripts/node-tests
///
/// Exit code 1 when a test fails, or one passes that is listed as failing.
#[derive(clap::Args)]
pub struct Arguments {
    /// The folder of the tests' folders
    folder: PathBuf,
    /// Only tests whose name has this part
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print also the counts of operators without a failure, and why tests are excused or not graphsmith's
    #[arg(long)]
    verbose: bool,
}

/// What became of a test.
#[derive(PartialEq, Debug)]
enum Outcome {
    Passed,
    /// With the first difference.
    Failed(String),
    /// Fails, and is listed with a reason: the first difference and the reason.
    Excused(String),
    /// Needs what graphsmith does not have.
    NotOurs(String),
}

pub fn main(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit> {
    let _no_gradients = reference::init();
    let mut excused: BTreeMap<String, String> = toml::from_str(EXCUSED).expect("node_tests.toml is tested");
    excused.retain(|name, _| name.contains(&arguments.only));
    let mut results = Vec::new();
    for (name, folder) in tests(&arguments.folder, &arguments.only)? {
        let (_, proto) = read_onnx(&folder.join("model.onnx"))?;
        let outcome = match (test(&proto, &folder)?, excused.remove(&name)) {
            (Outcome::Failed(what), Some(reason)) => Outcome::Excused(format!("{what} ({reason})")),
            (Outcome::Passed, Some(_)) => Outcome::Failed("it passes, and node_tests.toml lists it".to_owned()),
            (outcome, _) => outcome,
        };
        results.push((name, operator(&proto), outcome));
    }
    for (name, _) in excused {
        let reason = "node_tests.toml lists it, and there is no such test".to_owned();
        results.push((name, String::new(), Outcome::Failed(reason)));
    }
    report(arguments, &results, out)?;
    let failed = results.iter().any(|(_, _, outcome)| matches!(outcome, Outcome::Failed(_)));
    Ok(if failed { Exit::Finding } else { Exit::Fine })
}

/// The tests' names and folders.
fn tests(folder: &Path, only: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut tests: Vec<(String, PathBuf)> = entries(folder)?
        .into_iter()
        .filter(|path| path.join("model.onnx").is_file())
        .map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path))
        .filter(|(name, _)| name.contains(only))
        .collect();
    tests.sort();
    if tests.is_empty() { Err(Error::Usage(format!("{} has no such tests", folder.display()))) } else { Ok(tests) }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let error = |source| Error::Read { path: folder.to_owned(), source };
    let paths = fs::read_dir(folder).map_err(error)?.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<std::io::Result<_>>().map_err(error)
}

/// The operator that a test is of: the only one, or that of which it is the expansion.
fn operator(proto: &ModelProto) -> String {
    let first = proto.graph.iter().flat_map(|graph| &graph.node).next();
    let operator = first.map_or("", |node| &node.op_type);
    match proto.graph.as_ref().map_or(0, |graph| graph.node.len()) {
        1 => operator.to_owned(),
        _ => "(expanded)".to_owned(),
    }
}

fn test(proto: &ModelProto, folder: &Path) -> Result<Outcome> {
    let graph_outputs = proto.graph.iter().flat_map(|graph| &graph.output);
    if let Some(error) = graph_outputs.filter_map(|info| onnx::value(info, 0).err()).next() {
        return Ok(refused(&error));
    }
    let mut model = match onnx::import(proto, &element_types(proto), 0) {
        Ok(imported) => imported.model,
        Err(error) => return Ok(refused(&error)),
    };
    let sets: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    if sets.is_empty() {
        return Ok(Outcome::Failed("it has no data".to_owned()));
    }
    for set in &sets {
        let (Some(inputs), Some(outputs)) =
            (tensors(set, "input", model.inputs().count())?, tensors(set, "output", model.outputs.len())?)
        else {
            return Ok(Outcome::NotOurs("a value is no tensor of a known type".to_owned()));
        };
        let checked = isolate(|| Ok(check(&mut model, &inputs, &outputs)));
        match checked.map_err(|failure| failure.to_string()).and_then(|result| result) {
            Ok(()) => {}
            Err(difference) => return Ok(Outcome::Failed(one_line(&difference))),
        }
    }
    Ok(Outcome::Passed)
}

/// Whether it is for want of something that a model cannot be read, or by a mistake.
fn refused(error: &onnx::Error) -> Outcome {
    use onnx::Error::{AttributeKind, NotTensor, OldOpset, UnknownDType, UnknownOperator};
    let text = error.to_string();
    match error {
        AttributeKind { .. } | NotTensor(_) | OldOpset { .. } | UnknownDType { .. } | UnknownOperator(_) => {
            Outcome::NotOurs(text)
        }
        _ => Outcome::Failed(text),
    }
}

/// The element types of intermediate values. Their shapes, which inference may not know, follow from running the model.
fn element_types(proto: &ModelProto) -> BTreeMap<String, Value> {
    let infos = proto.graph.iter().flat_map(|graph| &graph.value_info);
    let typed = infos.filter_map(|info| {
        let tensor = info.r#type.as_ref()?.tensor_type.as_ref()?;
        let value = Value { name: info.name.clone(), dtype: DType::from_onnx_code(tensor.elem_type)?, shape: vec![] };
        Some((info.name.clone(), value))
    });
    typed.collect()
}

/// The tensors `KIND_0.pb` and so on; `None` when one is missing or of a type that graphsmith has not.
fn tensors(folder: &Path, kind: &str, count: usize) -> Result<Option<LeafData>> {
    let mut tensors = Vec::new();
    for index in 0..count {
        let path = folder.join(format!("{kind}_{index}.pb"));
        if !path.exists() {
            return Ok(None);
        }
        let proto = TensorProto::decode(read(&path, MAX_FILE_BYTES)?.as_slice());
        let proto = proto.map_err(|error| Error::Usage(format!("{} is no tensor: {error}", path.display())))?;
        match tensor_data(&proto) {
            Ok(data) => tensors.push(data),
            Err(onnx::Error::UnknownDType { .. }) => return Ok(None),
            Err(source) => return Err(Error::Onnx { path, source }),
        }
    }
    Ok(Some(tensors))
}

/// Runs the model in both precisions; an error tells the first difference.
fn check(model: &mut Model, inputs: &[TensorData], outputs: &[TensorData]) -> std::result::Result<(), String> {
    let mut given = inputs.iter();
    let leaf = |leaf: &graphsmith::model::Leaf| match leaf.role {
        Role::Input => given.next().expect("one tensor for each input").clone(),
        _ => leaf.content.clone().expect("a constant has elements"),
    };
    let data: LeafData = model.leaves.iter().map(leaf).collect();
    find_shapes(model, &data)?;
    for precision in [Precision::Declared, Precision::Wide] {
        let values = reference::run(model, &data, precision).map_err(|defect| defect.to_string())?;
        for (&value, expected) in model.outputs.iter().zip(outputs) {
            let computed = values[value].as_ref().ok_or("an output was not computed")?;
            if model.values[value].dtype != expected.dtype {
                return Err(format!("declared {}, expected {}", model.values[value].dtype, expected.dtype));
            }
            let name = &model.values[value].name;
            let got = reference::to_data(computed, expected.dtype);
            difference(&got, expected).map_or(Ok(()), |what| Err(format!("{precision:?}, `{name}`: {what}")))?;
        }
    }
    Ok(())
}

/// Gives the results of all nodes the shapes that they come out with.
fn find_shapes(model: &mut Model, data: &LeafData) -> std::result::Result<(), String> {
    let mut values: reference::Values = (0..model.values.len()).map(|_| None).collect();
    for (leaf, data) in model.leaves.iter().zip(data) {
        values[leaf.value] = Some(reference::to_tensor(data, false));
    }
    for node in model.nodes.clone() {
        let args = reference::args(model, &node, &values, Precision::Declared);
        let results = (node.spec.eval)(&args).map_err(|error| format!("{}: {error}", node.spec.name))?;
        for (&value, result) in node.outputs.iter().zip(results) {
            model.values[value].shape = result.size().iter().map(|&dim| dim as usize).collect();
            values[value] = Some(result);
        }
    }
    Ok(())
}

/// The first element that is not the expected one.
fn difference(got: &TensorData, expected: &TensorData) -> Option<String> {
    if got.shape != expected.shape {
        return Some(format!("the shape is {:?}, not {:?}", got.shape, expected.shape));
    }
    let (computed, wanted) = (got.to_f64(), expected.to_f64());
    let largest = wanted.iter().filter(|value| value.is_finite()).fold(0.0f64, |most, value| most.max(value.abs()));
    let allowed = ULPS * expected.dtype.unit_roundoff() * largest;
    let size = expected.dtype.size_bytes();
    let same = |index: usize| {
        let (a, b) = (computed[index], wanted[index]);
        let bytes = index * size..(index + 1) * size;
        got.bytes[bytes.clone()] == expected.bytes[bytes]
            || expected.dtype.is_float() && (a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= allowed)
    };
    let index = (0..got.len()).find(|&index| !same(index))?;
    let texts = (got.element_text(index), expected.element_text(index));
    Some(format!("element {index} is {}, not {}", texts.0, texts.1))
}

fn report(arguments: &Arguments, results: &[(String, String, Outcome)], out: &mut dyn Write) -> Result<()> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Passed => ("passed", String::new()),
        Outcome::Failed(reason) => ("failed", reason.clone()),
        Outcome::Excused(reason) => ("excused", reason.clone()),
        Outcome::NotOurs(reason) => ("not ours", reason.clone()),
    };
    if arguments.json {
        let entry = |(name, operator, outcome): &(String, String, Outcome)| {
            let (outcome, reason) = word(outcome);
            serde_json::json!({ "name": name, "operator": operator, "outcome": outcome, "reason": reason })
        };
        return Ok(json(out, &results.iter().map(entry).collect())?);
    }
    let shown = |outcome: &Outcome| match outcome {
        Outcome::Failed(_) => true,
        Outcome::NotOurs(_) | Outcome::Excused(_) => arguments.verbose,
        Outcome::Passed => false,
    };
    let row = |(name, _, outcome): &(String, String, Outcome)| {
        let (word, reason) = word(outcome);
        vec![word.to_owned(), name.clone(), reason]
    };
    table(out, &results.iter().filter(|(_, _, outcome)| shown(outcome)).map(row).collect::<Vec<_>>())?;
    let mut counts: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    let mut total = [0; 4];
    for (_, operator, outcome) in results {
        let column = match outcome {
            Outcome::Passed => 0,
            Outcome::Failed(_) => 1,
            Outcome::Excused(_) => 2,
            Outcome::NotOurs(_) => 3,
        };
        counts.entry(operator).or_default()[column] += 1;
        total[column] += 1;
    }
    let text = |[passed, failed, excused, not_ours]: [usize; 4]| {
        format!("{passed} passed, {failed} failed, {excused} excused, {not_ours} not graphsmith's")
    };
    let rows = counts.iter().filter(|(_, [_, failed, ..])| arguments.verbose || *failed > 0);
    table(out, &rows.map(|(name, &counts)| vec![(*name).to_owned(), text(counts)]).collect::<Vec<_>>())?;
    writeln!(out, "{}", text(total))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_measured_in_the_type() {
        let floats = |values: &[f32]| TensorData::new(&[values.len()], values);
        let expected = floats(&[1.0, 0.0, f32::NAN, f32::INFINITY]);
        assert_eq!(difference(&floats(&[1.000_000_1, 1e-7, f32::NAN, f32::INFINITY]), &expected), None);
        for wrong in
            [[1.00001, 0.0, f32::NAN, f32::INFINITY], [1.0, 0.0, 0.0, f32::INFINITY], [1.0, 0.0, f32::NAN, 1.0]]
        {
            assert!(difference(&floats(&wrong), &expected).is_some(), "{wrong:?}");
        }
        let ints = |values: &[i64]| TensorData::new(&[values.len()], values);
        assert!(difference(&ints(&[i64::MAX]), &ints(&[i64::MAX - 1])).is_some(), "equal in f64");
        assert!(difference(&ints(&[]), &TensorData::new::<i64>(&[0, 2], &[])).is_some());
    }

    #[test]
    fn every_excuse_has_a_reason() {
        let excused: BTreeMap<String, String> = toml::from_str(EXCUSED).unwrap();
        assert!(excused.iter().all(|(name, reason)| name.starts_with("test_") && !reason.is_empty()));
    }
}
