//! The reference: each operator's `eval` in libtorch, node by node, with every intermediate value.

use crate::dtype::DType;
use crate::elements;
use crate::model::{LeafData, Model, Node};
use crate::spec::{Args, args::kind_of};
use crate::tensor::TensorData;
use tch::{Kind, Tensor};

pub mod autograd;

/// How floats are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// In the declared type, rounding after each operator; f16 as f32 rounded to f16.
    Declared,
    /// In f64, without rounding to narrower declared types.
    Wide,
}

/// The reference could not follow its own specification: always a defect of graphsmith, never of a backend.
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    #[error("the specification of {operator} failed in libtorch: {source}")]
    Eval { operator: &'static str, source: tch::TchError },
    #[error("the specification of {operator} declares {declared} but computes {computed}")]
    Type { operator: &'static str, declared: String, computed: String },
}

/// The values of a model: one tensor for each of [`Model::values`].
pub type Values = Vec<Option<Tensor>>;

/// Computes every value of `model`. Thread-count and gradients are the caller's; see [`init`].
pub fn run(model: &Model, data: &LeafData, precision: Precision) -> Result<Values, Defect> {
    let mut values: Values = (0..model.values.len()).map(|_| None).collect();
    for (leaf, data) in model.leaves.iter().zip(data) {
        values[leaf.value] = Some(to_tensor(data, precision == Precision::Wide));
    }
    for node in &model.nodes {
        for (&output, result) in node.outputs.iter().zip(run_node(model, node, &values, precision)?) {
            values[output] = Some(result);
        }
    }
    Ok(values)
}

/// Computes one node's outputs from its operands' values.
pub fn run_node(model: &Model, node: &Node, values: &Values, precision: Precision) -> Result<Vec<Tensor>, Defect> {
    let args = args(model, node, values, precision);
    let operator = node.spec.name;
    let outputs = (node.spec.eval)(&args).map_err(|source| Defect::Eval { operator, source })?;
    let mut results = Vec::with_capacity(outputs.len());
    for (output, &value) in outputs.into_iter().zip(&node.outputs) {
        let declared = &model.values[value];
        let shape: Vec<usize> = output.size().iter().map(|&dim| dim as usize).collect();
        // Nobody declares the type of an output that is left out.
        let omitted = declared.name.is_empty();
        if !omitted && (output.kind() != args.kind(declared.dtype) || shape != declared.shape) {
            let computed = format!("{:?}{shape:?}", output.kind());
            let declared = format!("{}{:?}", declared.dtype, declared.shape);
            return Err(Defect::Type { operator, declared, computed });
        }
        let rounds = declared.dtype.is_half() && precision == Precision::Declared;
        results.push(if rounds { round_to_half(&output, declared.dtype) } else { output });
    }
    if results.len() == node.outputs.len() {
        Ok(results)
    } else {
        let declared = format!("{} outputs", node.outputs.len());
        Err(Defect::Type { operator, declared, computed: format!("{} outputs", results.len()) })
    }
}

/// What `eval`, `guard` and error rules of a node read.
pub fn args<'a>(model: &Model, node: &'a Node, values: &Values, precision: Precision) -> Args<'a> {
    let operand = |value: &Option<usize>| value.map(|v| values[v].as_ref().expect("topological order").shallow_clone());
    Args {
        operands: node.operands.iter().map(operand).collect(),
        operand_dtypes: node.operands.iter().map(|value| value.map(|v| model.values[v].dtype)).collect(),
        attributes: &node.attributes,
        opset: model.opset,
        output_dtypes: node.outputs.iter().map(|&value| model.values[value].dtype).collect(),
        wide: precision == Precision::Wide,
        accumulate: node.accumulate.map(|terms| terms as f64),
    }
}

/// No gradients on this thread while it lives.
pub struct NoGradients {
    _layers: autograd::Layers,
    _guard: tch::NoGradGuard,
}

/// Settings that every user of libtorch here needs: one thread (tensors are tiny), a fixed seed, no gradients.
#[must_use]
pub fn init() -> NoGradients {
    tch::set_num_threads(1);
    tch::manual_seed(0);
    NoGradients { _layers: autograd::without(), _guard: tch::no_grad_guard() }
}

/// The largest magnitude among all 64-bit integers of a model.
pub fn largest_integer(model: &Model, values: &Values) -> i64 {
    let wide = model.values.iter().zip(values);
    let wide = wide.filter(|(value, _)| matches!(value.dtype, DType::I64 | DType::U64) && !value.is_empty());
    let largest = |tensor: &Tensor| elements::largest_magnitude(tensor).expect("they are held as they are");
    wide.filter_map(|(_, tensor)| tensor.as_ref()).map(largest).max().unwrap_or(0)
}

fn round_to_half(tensor: &Tensor, dtype: DType) -> Tensor {
    tensor.to_kind(stored_kind(dtype)).to_kind(tensor.kind())
}

/// The libtorch type with the bits of `dtype`; for the unsigned types that libtorch only stores, the signed one of
/// their size.
fn stored_kind(dtype: DType) -> Kind {
    match dtype {
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::U16 => Kind::Int16,
        DType::U32 => Kind::Int,
        DType::U64 => Kind::Int64,
        other => kind_of(other, false),
    }
}

/// A libtorch tensor in the kind that the reference holds `data`'s type in.
pub fn to_tensor(data: &TensorData, wide: bool) -> Tensor {
    let shape: Vec<i64> = data.shape.iter().map(|&dim| dim as i64).collect();
    if wide && data.dtype.is_float() {
        return elements::tensor(&shape, &data.to_f64()).expect("there is memory for what is there already");
    }
    let (stored, held) = (stored_kind(data.dtype), kind_of(data.dtype, wide));
    let tensor = elements::from_bytes(&shape, stored, &data.bytes).expect("there is memory for what is there already");
    let tensor = if stored == held { tensor } else { tensor.to_kind(held) };
    // What was read as signed: the sign bit is the highest bit of the magnitude.
    match data.dtype {
        DType::U16 => tensor.bitwise_and(0xffff),
        DType::U32 => tensor.bitwise_and(0xffff_ffff),
        _ => tensor,
    }
}

/// The outputs of a model all of whose values were computed, in their declared types.
pub fn outputs(model: &Model, values: &Values) -> Vec<TensorData> {
    let output =
        |&value: &usize| to_data(values[value].as_ref().expect("every value was computed"), model.values[value].dtype);
    model.outputs.iter().map(output).collect()
}

/// The elements of a reference value, in `dtype`.
pub fn to_data(tensor: &Tensor, dtype: DType) -> TensorData {
    let tensor = tensor.detach().to_kind(stored_kind(dtype)).contiguous();
    let shape = tensor.size().iter().map(|&dim| dim as usize).collect();
    let mut bytes = vec![0; tensor.numel() * dtype.size_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    TensorData { dtype, shape, bytes }
}
