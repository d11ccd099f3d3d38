//! Adam on the sum of the violations of all nodes of a cone, over all float leaves of it together.

use super::Search;
use super::cone::Cone;
use super::validity::{RANGE_SHARE, all, guards, in_range, node_is_valid};
use crate::dtype::DType;
use crate::model::{Model, Node, sample_scale};
use crate::reference::{self, Defect, Precision, Values, autograd};
use crate::spec::Domain;
use tch::{Kind, Tensor};

/// Steps of one descent.
const STEPS: i32 = 16;
/// A descent ends early where so many steps have not brought the violation down to this share.
const PATIENCE: usize = 4;
const PROGRESS: f64 = 0.9;
/// The first samples lie within 4 of 0, so a few steps cross from one side to the other.
const LEARNING_RATE: f64 = 0.5;
/// Each step is shorter than the one before by this factor: narrow ranges are met as well as far ones.
const DECAY: f64 = 0.93;
/// How far beyond a guard's 0 the descent aims, so that rounding to the declared type does not fall back.
const MARGIN: f64 = 0.05;

/// A leaf that the descent may move.
struct Parameter {
    leaf: usize,
    /// Its index among the values.
    value: usize,
    dtype: DType,
    domain: Domain<i64>,
    rate: f64,
    /// The elements before rounding to `dtype`.
    raw: Tensor,
    mean: Tensor,
    square: Tensor,
}

impl Search<'_> {
    /// Moves the float leaves of a cone until all of its nodes are valid. Whether that was reached.
    pub(super) fn descend(&mut self, cone: &Cone) -> Result<bool, Defect> {
        autograd::with(|| self.descend_with_gradients(cone))
    }

    fn descend_with_gradients(&mut self, cone: &Cone) -> Result<bool, Defect> {
        let mut parameters: Vec<Parameter> = cone.leaves.iter().filter_map(|&leaf| self.parameter(leaf)).collect();
        if parameters.is_empty() {
            return Ok(false);
        }
        let mut least = Vec::new();
        for step in 1..=STEPS {
            let points: Vec<Tensor> = parameters.iter().map(|parameter| self.differentiate(parameter.value)).collect();
            self.evaluations += cone.nodes.len();
            let loss = violation(&self.model, &mut self.values, &cone.nodes, self.method.proxies)?;
            let Some(loss) = loss else {
                self.detach(cone);
                // Otherwise only integers are left that floats cannot mend.
                let (model, values) = (&self.model, &self.values);
                return cone
                    .nodes
                    .iter()
                    .try_fold(true, |valid, &node| Ok(valid && node_is_valid(model, &model.nodes[node], values)?));
            };
            let before = least.last().copied().unwrap_or(f64::INFINITY);
            least.push(before.min(loss.double_value(&[])));
            let stuck =
                least.len() > PATIENCE && least[step as usize - 1] > least[step as usize - 1 - PATIENCE] * PROGRESS;
            if stuck || !loss.requires_grad() {
                break;
            }
            let gradients = Tensor::f_run_backward(&[loss], &points, false, false)
                .map_err(|source| Defect::Eval { operator: "the gradient", source })?;
            let mut moved = false;
            tch::no_grad(|| {
                for (parameter, gradient) in parameters.iter_mut().zip(&gradients) {
                    if gradient.defined() && parameter.step(gradient, step) {
                        moved = true;
                        self.data[parameter.leaf] = reference::to_data(&parameter.raw, parameter.dtype);
                    }
                    self.show(parameter.leaf);
                }
            });
            if !moved {
                break;
            }
        }
        self.detach(cone);
        Ok(false)
    }

    fn parameter(&self, leaf: usize) -> Option<Parameter> {
        let (value, domain) = (self.model.leaves[leaf].value, self.model.leaves[leaf].domain);
        let dtype = self.model.values[value].dtype;
        let movable = dtype.is_float() && !self.data[leaf].is_empty();
        movable.then(|| {
            let raw = reference::to_tensor(&self.data[leaf], true);
            let (mean, square) = (raw.zeros_like(), raw.zeros_like());
            let rate = LEARNING_RATE * sample_scale(self.attempts[leaf]);
            Parameter { leaf, value, dtype, domain, rate, raw, mean, square }
        })
    }

    /// The tensor of a leaf's value, as one that gradients are taken of.
    fn differentiate(&mut self, value: usize) -> Tensor {
        let point = self.values[value].take().expect("leaves have values").set_requires_grad(true);
        self.values[value].insert(point).shallow_clone()
    }

    /// Forgets how values were computed.
    fn detach(&mut self, cone: &Cone) {
        let leaves = cone.leaves.iter().map(|&leaf| self.model.leaves[leaf].value);
        let results = cone.nodes.iter().flat_map(|&node| self.model.nodes[node].outputs.iter().copied());
        for value in leaves.chain(results) {
            if let Some(tensor) = &mut self.values[value] {
                *tensor = tensor.detach();
            }
        }
    }
}

impl Parameter {
    /// One step of Adam within the leaf's domain; false when every gradient is 0.
    fn step(&mut self, gradient: &Tensor, step: i32) -> bool {
        let gradient = gradient.nan_to_num(0.0, 1e6, -1e6);
        self.mean = &self.mean * 0.9 + &gradient * 0.1;
        self.square = &self.square * 0.999 + &gradient * &gradient * 0.001;
        let mean = &self.mean / (1.0 - 0.9f64.powi(step));
        let square = &self.square / (1.0 - 0.999f64.powi(step));
        self.raw = &self.raw - mean / (square.sqrt() + 1e-8) * (self.rate * DECAY.powi(step - 1));
        if let Domain::Range(low, high) = self.domain {
            self.raw = self.raw.clamp(low, high);
        }
        !all(&gradient, |element| element == 0.0)
    }
}

/// The sum of the violations of `nodes` up to the first non-finite value; none when there is none. Fills in `values`.
fn violation(model: &Model, values: &mut Values, nodes: &[usize], proxies: bool) -> Result<Option<Tensor>, Defect> {
    let mut total: Option<Tensor> = None;
    let mut add = |violations: Tensor| {
        let sum = violations.sum(Kind::Double);
        total = Some(match total.take() {
            Some(total) => total + sum,
            None => sum,
        });
    };
    for &node in nodes {
        let node = &model.nodes[node];
        let args = reference::args(model, node, values, Precision::Wide);
        let mut guarded = true;
        for guard in guards(model, node, &args)?.into_iter().filter(|guard| !all(guard, |element| element >= 0.0)) {
            guarded = false;
            add((-guard + MARGIN).relu().nan_to_num(1.0, 1e6, 0.0));
        }
        let outputs = match proxies {
            true => proxied(model, node, values)?,
            false => reference::run_node(model, node, values, Precision::Wide)?,
        };
        let mut finite = true;
        for (&value, output) in node.outputs.iter().zip(outputs) {
            let dtype = model.values[value].dtype;
            if !in_range(&output, dtype) {
                if all(&output, f64::is_finite) {
                    // The logarithm keeps the step useful however far out the value is.
                    add((output.abs().clamp_min(1e-30).log() - (dtype.max() * RANGE_SHARE * 0.5).ln()).relu());
                } else {
                    finite = false;
                }
            }
            values[value] = Some(output);
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
