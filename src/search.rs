//! Gradient search for inputs and weights without floating-point exceptional values, after NNSmith's section 3.3.
//!
//! A sample is valid when every guard is at least 0, every float is finite and well inside the range of its declared
//! type, and no integer leaves its type's range or that in which f64 is exact. From an invalid sample, Adam descends on the
//! sum of all violations of all nodes (not only the first failing one), over graph inputs and weights together. The budget
//! counts full forward passes.

use crate::dtype::DType;
use crate::limits::EXACT;
use crate::model::{LeafData, Model, Node};
use crate::reference::{self, Defect, Precision, Values};
use crate::spec::{Args, Domain};
use tch::{Kind, Tensor};

/// Forward passes that one search may use.
pub const STEPS: usize = 96;
/// Steps of descent from one starting point.
const STEPS_PER_START: usize = 24;
/// Samples lie within 4 of 0, so a few steps cross from one side to the other.
const LEARNING_RATE: f64 = 0.5;
/// How far beyond a guard's 0 the descent aims, so that rounding to the declared type does not fall back.
const MARGIN: f64 = 0.05;
/// The share of a type's range that values may use: backends may round differently near its end.
const RANGE_SHARE: f64 = 0.5;

/// What a search found.
pub struct Found {
    pub data: LeafData,
    /// The wide reference values of every value, for valid data.
    pub values: Option<Values>,
    /// Forward passes used.
    pub steps: usize,
}

/// Looks for data on which the model is numerically valid. Deterministic in `seed`.
pub fn search(model: &Model, seed: u64) -> Result<Found, Defect> {
    let mut steps = 0;
    let mut start = seed;
    for attempt in 0.. {
        let data = model.sample(start, attempt);
        steps += 1;
        let values = reference::run(model, &data, Precision::Wide)?;
        if is_valid(model, &values)? {
            return Ok(Found { data, values: Some(values), steps });
        }
        if let Some((data, values)) = tch::with_grad(|| descend(model, &data, &mut steps))? {
            return Ok(Found { data, values: Some(values), steps });
        }
        if steps >= STEPS {
            return Ok(Found { data, values: None, steps });
        }
        start = crate::input::mix(start);
    }
    unreachable!("every attempt takes a step")
}

/// Whether wide reference values are free of exceptional values, by the rules at the top of this file.
pub fn is_valid(model: &Model, values: &Values) -> Result<bool, Defect> {
    for leaf in &model.leaves {
        if !in_range(values[leaf.value].as_ref().expect("leaves have values"), model.values[leaf.value].dtype) {
            return Ok(false);
        }
    }
    for node in &model.nodes {
        let args = reference::args(model, node, values, Precision::Wide);
        let outputs_fit = node.outputs.iter().all(|&output| {
            in_range(values[output].as_ref().expect("every value was computed"), model.values[output].dtype)
        });
        let guarded = guards(node, &args)?.iter().all(|guard| all(&guard.ge(0.0)));
        if !outputs_fit || !guarded || overflows(model, node, &args)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether no integer result leaves the range of its type.
pub fn integers_fit(model: &Model, values: &Values) -> Result<bool, Defect> {
    model.nodes.iter().try_fold(true, |fit, node| {
        Ok(fit && !overflows(model, node, &reference::args(model, node, values, Precision::Wide))?)
    })
}

fn all(condition: &Tensor) -> bool {
    // `all` of an empty tensor is true.
    bool::try_from(condition.all()).expect("a bool scalar")
}

fn in_range(value: &Tensor, dtype: DType) -> bool {
    match dtype {
        // Held in wider, signed types, so that what leaves the range does not wrap by itself.
        DType::U16 | DType::U32 => all(&value.ge(0).logical_and(&value.le(dtype.max()))),
        DType::U64 => all(&value.ge(0)),
        // A NaN fails the comparison.
        float if float.is_float() => all(&value.abs().le(dtype.max() * RANGE_SHARE)),
        _ => true,
    }
}

fn guards(node: &Node, args: &Args) -> Result<Vec<Tensor>, Defect> {
    let Some(guard) = node.spec.guard else { return Ok(Vec::new()) };
    guard(args).map_err(|source| Defect::Eval { operator: node.spec.name, source })
}

/// Whether an integer result leaves its type's range, seen by computing it on f64 copies of the operands.
fn overflows(model: &Model, node: &Node, args: &Args) -> Result<bool, Defect> {
    let dtype = model.values[node.outputs[0]].dtype;
    if !node.spec.can_overflow || !dtype.is_int() {
        return Ok(false);
    }
    let args = Args {
        operands: args.operands.iter().map(|x| x.as_ref().map(|x| x.to_kind(Kind::Double))).collect(),
        operand_dtypes: args.operand_dtypes.iter().map(|dtype| dtype.map(|_| DType::F64)).collect(),
        attributes: args.attributes,
        opset: args.opset,
        output_dtypes: args.output_dtypes.iter().map(|_| DType::F64).collect(),
        wide: true,
        accumulate: args.accumulate,
    };
    let outputs = (node.spec.eval)(&args).map_err(|source| Defect::Eval { operator: node.spec.name, source })?;
    // ONNX asks for no precision of integers, and ONNX Runtime deliberately sums i64 in double (`ReduceAggregatorSum` in
    // core/providers/cpu/reduction/reduction_ops.h); nor are greater ones told apart here.
    let (least, most) = (dtype.min().max(-EXACT), dtype.max().min(EXACT));
    let fits = outputs[0].ge(least).logical_and(&outputs[0].le(most));
    Ok(!all(&fits))
}

/// A leaf that the descent may move.
struct Parameter {
    leaf: usize,
    dtype: DType,
    /// The values before rounding to `dtype`.
    raw: Tensor,
    mean: Tensor,
    square: Tensor,
}

fn parameters(model: &Model, data: &LeafData) -> Vec<Parameter> {
    let movable = |(index, leaf): (usize, &crate::model::Leaf)| {
        let dtype = model.values[leaf.value].dtype;
        let free = dtype.is_float() && leaf.content.is_none() && !data[index].is_empty();
        free.then(|| {
            let raw = reference::to_tensor(&data[index], true);
            Parameter { leaf: index, dtype, mean: raw.zeros_like(), square: raw.zeros_like(), raw }
        })
    };
    model.leaves.iter().enumerate().filter_map(movable).collect()
}

/// Adam on the sum of violations. The data and values of the first valid point, if one is reached.
fn descend(model: &Model, data: &LeafData, steps: &mut usize) -> Result<Option<(LeafData, Values)>, Defect> {
    let mut parameters = parameters(model, data);
    if parameters.is_empty() {
        return Ok(None);
    }
    let mut data = data.clone();
    for step in 1..=STEPS_PER_START as i32 {
        let mut values: Values = (0..model.values.len()).map(|_| None).collect();
        for (leaf, data) in model.leaves.iter().zip(&data) {
            values[leaf.value] = Some(reference::to_tensor(data, true));
        }
        let points: Vec<Tensor> = parameters
            .iter()
            .map(|parameter| {
                let value = &mut values[model.leaves[parameter.leaf].value];
                let point = value.take().expect("leaves have values").set_requires_grad(true);
                value.insert(point).shallow_clone()
            })
            .collect();
        *steps += 1;
        let Some(loss) = violation(model, &mut values)? else {
            let values: Values = values.into_iter().map(|value| value.map(|value| value.detach())).collect();
            if is_valid(model, &values)? {
                return Ok(Some((data, values)));
            }
            // Only an integer overflow is left, and floats cannot mend it.
            return Ok(None);
        };
        if !loss.requires_grad() || *steps >= STEPS {
            return Ok(None);
        }
        let gradients = Tensor::f_run_backward(&[loss], &points, false, false)
            .map_err(|source| Defect::Eval { operator: "the gradient", source })?;
        if !tch::no_grad(|| update(model, &mut parameters, &gradients, step, &mut data)) {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The sum of all violations up to the first non-finite value; `None` when there is none. Fills in `values`.
fn violation(model: &Model, values: &mut Values) -> Result<Option<Tensor>, Defect> {
    let mut total: Option<Tensor> = None;
    let mut add = |violations: Tensor| {
        let sum = violations.sum(Kind::Double);
        total = Some(match total.take() {
            Some(total) => total + sum,
            None => sum,
        });
    };
    for node in &model.nodes {
        let args = reference::args(model, node, values, Precision::Wide);
        let mut guarded = true;
        for guard in guards(node, &args)?.into_iter().filter(|guard| !all(&guard.ge(0.0))) {
            guarded = false;
            add((-guard + MARGIN).relu().nan_to_num(1.0, 1e6, 0.0));
        }
        let outputs = proxied(model, node, values)?;
        let mut finite = true;
        for (&index, output) in node.outputs.iter().zip(outputs) {
            let dtype = model.values[index].dtype;
            if !in_range(&output, dtype) {
                if all(&output.isfinite()) {
                    // The logarithm keeps the step useful however far out the value is.
                    add((output.abs().clamp_min(1e-30).log() - (dtype.max() * RANGE_SHARE * 0.5).ln()).relu());
                } else {
                    finite = false;
                }
            }
            values[index] = Some(output);
        }
        if !finite {
            if guarded {
                // An infinite result has no gradient; smaller operands lead away from it.
                args.operands.iter().flatten().filter(|x| x.kind() == Kind::Double).for_each(|x| add(x.abs() * 1e-3));
            }
            break;
        }
    }
    Ok(total)
}

/// A node's outputs with the gradient of the operator's proxy, if it has one.
fn proxied(model: &Model, node: &Node, values: &Values) -> Result<Vec<Tensor>, Defect> {
    let outputs = reference::run_node(model, node, values, Precision::Wide)?;
    let Some(proxy) = node.spec.proxy.filter(|_| model.values[node.outputs[0]].dtype.is_float()) else {
        return Ok(outputs);
    };
    let proxies = proxy(&reference::args(model, node, values, Precision::Wide))
        .map_err(|source| Defect::Eval { operator: node.spec.name, source })?;
    Ok(outputs.iter().zip(proxies).map(|(output, proxy)| output.detach() + (&proxy - proxy.detach())).collect())
}

/// One step of Adam; false when every gradient is 0. Rounds into `data` and keeps each leaf's domain.
fn update(model: &Model, parameters: &mut [Parameter], gradients: &[Tensor], step: i32, data: &mut LeafData) -> bool {
    let mut moved = false;
    for (parameter, gradient) in parameters.iter_mut().zip(gradients) {
        if !gradient.defined() {
            continue;
        }
        let gradient = gradient.nan_to_num(0.0, 1e6, -1e6);
        moved |= !all(&gradient.eq(0.0));
        parameter.mean = &parameter.mean * 0.9 + &gradient * 0.1;
        parameter.square = &parameter.square * 0.999 + &gradient * &gradient * 0.001;
        let mean = &parameter.mean / (1.0 - 0.9f64.powi(step));
        let square = &parameter.square / (1.0 - 0.999f64.powi(step));
        parameter.raw = &parameter.raw - mean / (square.sqrt() + 1e-8) * LEARNING_RATE;
        if let Domain::Range(low, high) = model.leaves[parameter.leaf].domain {
            parameter.raw = parameter.raw.clamp(low, high);
        }
        data[parameter.leaf] = reference::to_data(&parameter.raw, parameter.dtype);
    }
    moved
}
