//! The types of a foreign model's values: sizes for its symbolic dimensions, and what it leaves undeclared.

use super::{Error, Result};
use graphsmith::backend::Level;
use graphsmith::dtype::DType;
use graphsmith::harness::Harness;
use graphsmith::limits::MAX_FILE_BYTES;
use graphsmith::model::{LeafData, Model, Value};
use graphsmith::npz::Arrays;
use graphsmith::onnx;
use graphsmith::onnx::proto::{Dimension, DimensionValue, GraphProto, ModelProto, TensorShapeProto, ValueInfoProto};
use graphsmith::tensor::TensorData;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Sizes for symbolic dimensions.
#[derive(Clone, Copy)]
pub struct Dims<'a> {
    pub named: &'a BTreeMap<String, usize>,
    pub others: usize,
}

/// The declarations of inputs that have no default, in the order that backends take them.
fn declared(graph: &mut GraphProto) -> impl Iterator<Item = &mut ValueInfoProto> {
    let defaults: BTreeSet<&String> = graph.initializer.iter().map(|tensor| &tensor.name).collect();
    graph.input.iter_mut().filter(move |info| !defaults.contains(&info.name))
}

/// Makes every dimension of the inputs a number: that of the given array, else the wanted one.
pub fn fix_inputs(proto: &mut ModelProto, model: &Path, dims: Dims, given: Option<(&Path, &Arrays)>) -> Result<()> {
    let Some(graph) = &mut proto.graph else { return Ok(()) };
    let mut symbols = BTreeSet::new();
    let mut names = BTreeSet::new();
    for info in declared(graph) {
        names.insert(info.name.clone());
        if let Some((path, arrays)) = given {
            fit(info, arrays).map_err(|reason| Error::Inputs { path: path.to_owned(), reason })?;
        }
        let tensor = info.r#type.as_mut().and_then(|ty| ty.tensor_type.as_mut());
        for dim in tensor.and_then(|tensor| tensor.shape.as_mut()).into_iter().flat_map(|shape| &mut shape.dim) {
            let size = match &dim.value {
                Some(DimensionValue::Size(size)) if *size >= 0 => continue,
                Some(DimensionValue::Symbol(name)) => {
                    symbols.insert(name.clone());
                    dims.named.get(name).copied()
                }
                _ => None,
            };
            dim.value = Some(DimensionValue::Size(size.unwrap_or(dims.others) as i64));
        }
    }
    if let Some((path, extra)) =
        given.and_then(|(path, arrays)| Some((path, arrays.keys().find(|&key| !names.contains(key))?)))
    {
        let reason = format!("the model has no input `{extra}`; it has {}", list(&names));
        return Err(Error::Inputs { path: path.to_owned(), reason });
    }
    match dims.named.keys().find(|name| !symbols.contains(*name)) {
        Some(name) => Err(Error::Usage(format!(
            "{} has no input with a dimension `{name}`; it has {}",
            model.display(),
            list(&symbols)
        ))),
        None => Ok(()),
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Takes the shape of the array with the input's name, if it has the declared type and fits the declared shape.
fn fit(info: &mut ValueInfoProto, arrays: &Arrays) -> std::result::Result<(), String> {
    let name = info.name.clone();
    let missing = || format!("it has no array `{name}`, which the model needs; it has {}", list(arrays.keys()));
    let array = arrays.get(&name).ok_or_else(missing)?;
    // Inputs that are no tensors of a known type are told of later.
    let Some(tensor) = info.r#type.as_mut().and_then(|ty| ty.tensor_type.as_mut()) else { return Ok(()) };
    let Some(wanted) = DType::from_onnx_code(tensor.elem_type) else { return Ok(()) };
    if array.dtype != wanted {
        return Err(format!("the array `{name}` is {}, and the model declares {wanted}", array.dtype));
    }
    // An input of any rank has no shape.
    let free = TensorShapeProto { dim: vec![Dimension::default(); array.shape.len()] };
    let shape = tensor.shape.get_or_insert(free);
    let fits = |(dim, &size): (&Dimension, &usize)| match dim.value {
        Some(DimensionValue::Size(declared)) if declared >= 0 => declared == size as i64,
        _ => true,
    };
    if shape.dim.len() != array.shape.len() || !shape.dim.iter().zip(&array.shape).all(fits) {
        let dim = |dim: &Dimension| match &dim.value {
            Some(DimensionValue::Size(size)) => size.to_string(),
            Some(DimensionValue::Symbol(name)) => name.clone(),
            None => "?".to_owned(),
        };
        let declared: Vec<String> = shape.dim.iter().map(dim).collect();
        let declared = declared.join(", ");
        return Err(format!("the array `{name}` has the shape {:?}, and the model declares [{declared}]", array.shape));
    }
    for (dim, &size) in shape.dim.iter_mut().zip(&array.shape) {
        dim.value = Some(DimensionValue::Size(size as i64));
    }
    Ok(())
}

/// A model of nothing but the inputs, whose dimensions are fixed.
pub fn inputs(proto: &ModelProto, path: &Path) -> Result<Model> {
    let model = onnx::inputs(proto, 0).map_err(|source| Error::Onnx { path: path.to_owned(), source })?;
    let sizes = model.values.iter().map(|value| {
        value.shape.iter().fold(value.dtype.size_bytes() as u64, |bytes, &dim| bytes.saturating_mul(dim as u64))
    });
    let bytes = sizes.fold(0, u64::saturating_add);
    if bytes > MAX_FILE_BYTES {
        let shown = path.display();
        return Err(Error::Usage(format!(
            "the inputs of {shown} would take {bytes} bytes, more than the {MAX_FILE_BYTES} that are made; \
             choose smaller dimensions with --dim"
        )));
    }
    Ok(model)
}

/// The arrays in the order of the graph's outputs; else why they do not fit, for people.
pub fn outputs(proto: &ModelProto, mut arrays: Arrays) -> std::result::Result<Vec<TensorData>, String> {
    let names: Vec<&String> = proto.graph.iter().flat_map(|graph| &graph.output).map(|info| &info.name).collect();
    if let Some(extra) = arrays.keys().find(|key| !names.contains(key)) {
        return Err(format!("the model has no output `{extra}`; it has {}", list(names)));
    }
    let held = list(arrays.keys());
    let missing = |name: &str| format!("it has no array `{name}`, an output of the model; it has {held}");
    names.into_iter().map(|name| arrays.remove(name).ok_or_else(|| missing(name))).collect()
}

/// The model as the reference needs it, with `data` for the inputs where types must be found by running it; else the reason why it has none, for people.
pub fn import(harness: &Harness, proto: &ModelProto, data: &LeafData) -> std::result::Result<Model, String> {
    let first = onnx::import(proto, &BTreeMap::new(), 0);
    let imported = match first {
        Ok(imported) if !has_symbols(proto) => Ok(imported),
        Ok(_) | Err(onnx::Error::Untyped(_)) => onnx::import(proto, &complete(harness, proto, data)?, 0),
        Err(error) => Err(error),
    };
    imported.map(|imported| imported.model).map_err(|error| error.to_string())
}

/// Whether some declared value has a size that is not a number.
pub fn has_symbols(proto: &ModelProto) -> bool {
    let infos = proto.graph.iter().flat_map(|graph| graph.value_info.iter().chain(&graph.output));
    let mut shapes = infos.filter_map(|info| info.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref());
    shapes.any(|shape| shape.dim.iter().any(|dim| !matches!(dim.value, Some(DimensionValue::Size(_)))))
}

/// The types of all values of the graph, from running it with every value as an output.
fn complete(
    harness: &Harness,
    proto: &ModelProto,
    data: &LeafData,
) -> std::result::Result<BTreeMap<String, Value>, String> {
    use prost::Message;
    let untyped = "the model leaves types undeclared";
    let mut proto = proto.clone();
    let graph = proto.graph.get_or_insert_default();
    let mut names: Vec<String> = graph.output.iter().map(|info| info.name.clone()).collect();
    for name in graph.node.iter().flat_map(|node| &node.output).filter(|name| !name.is_empty()) {
        if !names.contains(name) {
            names.push(name.clone());
            graph.output.push(ValueInfoProto { name: name.clone(), ..Default::default() });
        }
    }
    let bytes = proto.encode_to_vec();
    // What holds integers in another type than the declared one would tell that type.
    let faithful = harness.targets.iter().filter(|target| target.backend.integer_limit().is_none());
    let mut reason = format!("{untyped}, and no backend here could complete them");
    let mut found = None;
    for target in faithful {
        let session = target.backend.compile(&bytes, Level::Off);
        match session.and_then(|mut session| session.run(data)) {
            Ok(outputs) => {
                found = Some(outputs);
                break;
            }
            // The first one's reason is told: the order of the table is that of completeness.
            Err(failure) if reason.contains("no backend here") => {
                reason = format!("{untyped}, and {} cannot complete them ({failure})", target.backend.id());
            }
            Err(_) => {}
        }
    }
    let outputs = found.ok_or(reason)?;
    let typed = names.into_iter().zip(outputs);
    Ok(typed.map(|(name, data)| (name.clone(), Value { name, dtype: data.dtype, shape: data.shape })).collect())
}
