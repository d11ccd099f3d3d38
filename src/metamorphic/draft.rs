//! Nodes that a rewrite is about to add to a model: shapes and element types are worked out here, and what the opset does
//! not allow comes to nothing.

use crate::dtype::DType;
use crate::input::Stream;
use crate::limits::{MAX_ELEMENTS, MAX_RANK};
use crate::model::{Leaf, LeafData, Model, Node, Value};
use crate::ops;
use crate::reference;
use crate::schema;
use crate::spec::args::kind_of;
use crate::spec::{Args, Attribute, Domain, OpSpec, Role};
use crate::tensor::TensorData;
use std::borrow::Cow;
use std::cell::RefCell;
use tch::{Device, Tensor};

/// A value of the model or of the draft, if the rewrite has come so far: an operator of nothing is nothing.
pub type Wire = Option<usize>;

/// Attributes as rules write them.
pub type Named = Vec<(&'static str, Attribute<i64>)>;

/// Nodes to be added to `model`, in topological order.
pub struct Draft<'a> {
    pub model: &'a Model,
    data: &'a LeafData,
    stream: RefCell<Stream>,
    added: RefCell<Added>,
}

/// What a draft adds.
#[derive(Default)]
pub struct Added {
    values: Vec<Value>,
    leaves: Vec<(Leaf, TensorData)>,
    nodes: Vec<Node>,
}

impl<'a> Draft<'a> {
    /// Draws a seed of its own from `stream`.
    pub fn new(model: &'a Model, data: &'a LeafData, stream: &mut Stream) -> Draft<'a> {
        let stream = Stream::new(stream.next_u64());
        Draft { model, data, stream: RefCell::new(stream), added: RefCell::default() }
    }

    pub fn finish(self) -> Added {
        self.added.into_inner()
    }

    /// A random number below `bound`.
    pub fn below(&self, bound: usize) -> usize {
        self.stream.borrow_mut().below(bound.max(1) as u64) as usize
    }

    pub fn coin(&self) -> bool {
        self.below(2) == 1
    }

    /// The element type and the shape of a value.
    fn value(&self, index: usize) -> (DType, Vec<usize>) {
        let added = self.added.borrow();
        let known = self.model.values.get(index);
        let value = known.unwrap_or_else(|| &added.values[index - self.model.values.len()]);
        (value.dtype, value.shape.clone())
    }

    pub fn dtype(&self, wire: Wire) -> Option<DType> {
        wire.map(|index| self.value(index).0)
    }

    pub fn shape(&self, wire: Wire) -> Option<Vec<usize>> {
        wire.map(|index| self.value(index).1)
    }

    pub fn rank(&self, wire: Wire) -> Option<usize> {
        self.shape(wire).map(|shape| shape.len())
    }

    /// The node outside of control flow whose first output a value is.
    pub fn producer(&self, wire: Wire) -> Option<&'a Node> {
        let at = self.model.nodes.iter().position(|node| wire.is_some_and(|value| node.outputs[0] == value))?;
        (!self.model.in_region(at)).then(|| &self.model.nodes[at])
    }

    /// The data of a value that no run of the model changes.
    pub fn fixed(&self, wire: Wire) -> Option<&'a TensorData> {
        let at = self.model.leaves.iter().position(|leaf| Some(leaf.value) == wire && leaf.role != Role::Input)?;
        Some(&self.data[at])
    }

    /// The elements of a fixed list of integers.
    pub fn list(&self, wire: Wire) -> Option<Vec<i64>> {
        let data = self.fixed(wire)?;
        match data.dtype {
            DType::I64 => Some(data.values()),
            DType::I32 => Some(data.values::<i32>().into_iter().map(i64::from).collect()),
            _ => None,
        }
    }

    fn add_value(&self, dtype: DType, shape: Vec<usize>) -> usize {
        let mut added = self.added.borrow_mut();
        let index = self.model.values.len() + added.values.len();
        added.values.push(Value { name: String::new(), dtype, shape });
        index
    }

    pub fn constant(&self, data: TensorData) -> Wire {
        let value = self.add_value(data.dtype, data.shape.clone());
        let content = Some(data.clone());
        let leaf = Leaf { value, role: Role::Constant, domain: Domain::Any, content, constant_node: false };
        self.added.borrow_mut().leaves.push((leaf, data));
        Some(value)
    }

    /// A list of int64.
    pub fn integers(&self, values: &[i64]) -> Wire {
        self.constant(TensorData::new(&[values.len()], values))
    }

    pub fn sizes(&self, shape: &[usize]) -> Wire {
        self.integers(&shape.iter().map(|&size| size as i64).collect::<Vec<_>>())
    }

    /// A constant of the element type of `like`; none where an integer type does not have the number.
    pub fn filled(&self, like: Wire, shape: &[usize], number: f64) -> Wire {
        let dtype = self.dtype(like)?;
        let held = dtype.is_float() || number.fract() == 0.0 && (dtype.min()..=dtype.max()).contains(&number);
        let elements = vec![number; shape.iter().product()];
        self.constant(TensorData::from_f64(dtype, shape, &elements)).filter(|_| held && dtype != DType::Bool)
    }

    pub fn number(&self, like: Wire, number: f64) -> Wire {
        self.filled(like, &[], number)
    }

    pub fn op(&self, operator: &str, operands: &[Wire]) -> Wire {
        self.with(operator, operands, Vec::new())
    }

    pub fn with(&self, operator: &str, operands: &[Wire], attributes: Named) -> Wire {
        operands.iter().all(Option::is_some).then(|| self.outputs(operator, operands, attributes, 1))??.pop()
    }

    pub fn cast(&self, x: Wire, dtype: DType) -> Wire {
        self.with("Cast", &[x], vec![("to", Attribute::Int(dtype.onnx_code().into()))])
    }

    pub fn transpose(&self, x: Wire, order: &[usize]) -> Wire {
        self.with("Transpose", &[x], vec![("perm", Attribute::Ints(order.iter().map(|&axis| axis as i64).collect()))])
    }

    pub fn reshape(&self, x: Wire, shape: &[usize]) -> Wire {
        // Before opset 14 a 0 copies a size.
        let explicit = shape.contains(&0);
        let attributes = if explicit { vec![("allowzero", Attribute::Int(1))] } else { Vec::new() };
        let sizes = self.sizes(shape).filter(|_| !explicit || self.model.opset >= 14);
        self.with("Reshape", &[x, sizes], attributes)
    }

    /// The elements of an axis from `start` up to `end`.
    pub fn slice(&self, x: Wire, axis: usize, start: i64, end: i64) -> Wire {
        let list = |number| self.integers(&[number]);
        self.op("Slice", &[x, list(start), list(end), list(axis as i64)])
    }

    pub fn concat(&self, parts: &[Wire], axis: usize) -> Wire {
        self.with("Concat", parts, vec![("axis", Attribute::Int(axis as i64))])
    }

    /// An operator whose absent operands are `None`. None where its opset, its element types or its sizes are not legal.
    pub fn outputs(&self, operator: &str, operands: &[Wire], attributes: Named, count: usize) -> Option<Vec<usize>> {
        let attributes = attributes.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect();
        self.write(ops::by_name(operator)?, operands, attributes, None, count)
    }

    /// The operator of `node` with its attributes and other operands; its first output, of the shape given where it does not
    /// follow from what is known.
    pub fn like(&self, node: &Node, operands: &[Wire], shape: Option<&[usize]>) -> Wire {
        let absent = |(new, old): (&Wire, &Wire)| new.is_none() && old.is_some();
        if operands.iter().zip(&node.operands).any(absent) {
            return None;
        }
        let written = self.write(node.spec, operands, node.attributes.clone(), shape, 1)?.pop();
        let mut added = self.added.borrow_mut();
        let last = added.nodes.last_mut()?;
        last.accumulate = last.accumulate.or(node.accumulate);
        written
    }

    /// Says how many products the last operator sums for each element.
    pub fn sums(&self, terms: usize, wire: Wire) -> Wire {
        self.added.borrow_mut().nodes.last_mut()?.accumulate = Some(terms as i64);
        wire
    }

    fn write(
        &self,
        spec: &'static OpSpec,
        operands: &[Wire],
        attributes: Vec<(Cow<'static, str>, Attribute<i64>)>,
        shape: Option<&[usize]>,
        count: usize,
    ) -> Option<Vec<usize>> {
        let dtypes: Vec<Option<DType>> = operands.iter().map(|&operand| self.dtype(operand)).collect();
        let signature = schema::signature(spec.name, self.model.opset).filter(|_| spec.since <= self.model.opset)?;
        let target = attributes.iter().find_map(|(name, value)| match value {
            Attribute::Int(code) if name == "to" => DType::from_onnx_code(*code as i32),
            _ => None,
        });
        let dtype = target.or_else(|| signature.output_type(dtypes.iter().copied()))?;
        let made = dtypes.first().copied().flatten().is_some_and(|first| spec.dtypes.contains(first));
        if !made || !signature.allows(dtypes.iter().copied(), vec![dtype; count]) {
            return None;
        }
        let args = Args {
            operands: operands.iter().map(|operand| operand.map(|index| self.sample(index))).collect(),
            operand_dtypes: dtypes,
            attributes: &attributes,
            opset: self.model.opset,
            output_dtypes: vec![dtype; count],
            wide: true,
            accumulate: None,
        };
        let shapes: Vec<Vec<usize>> = match shape {
            Some(shape) => vec![shape.to_vec()],
            None => {
                (spec.eval)(&args).ok()?.iter().map(|y| y.size().iter().map(|&size| size as usize).collect()).collect()
            }
        };
        let fits =
            |shape: &Vec<usize>| shape.len() <= MAX_RANK && shape.iter().product::<usize>() as i64 <= 2 * MAX_ELEMENTS;
        if shapes.len() != count || !shapes.iter().all(fits) {
            return None;
        }
        let accumulate = terms(&args, spec.name, &shapes[0]);
        let outputs: Vec<usize> = shapes.into_iter().map(|shape| self.add_value(dtype, shape)).collect();
        let (name, operands) = (String::new(), operands.to_vec());
        self.added.borrow_mut().nodes.push(Node {
            spec,
            name,
            operands,
            outputs: outputs.clone(),
            attributes,
            accumulate,
        });
        Some(outputs)
    }

    /// A tensor of the type and shape of a value, with its elements where shapes may depend on them.
    fn sample(&self, index: usize) -> Tensor {
        let (dtype, shape) = self.value(index);
        let known = self.fixed(Some(index)).filter(|data| data.dtype.is_int()).cloned();
        let written = || {
            let added = self.added.borrow();
            added.leaves.iter().find(|(leaf, _)| leaf.value == index).map(|(_, data)| data.clone())
        };
        match known.or_else(written) {
            Some(data) => reference::to_tensor(&data, true),
            None => {
                let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
                Tensor::ones(shape, (kind_of(dtype, true), Device::Cpu))
            }
        }
    }
}

/// Terms summed for one element of the output, as the specifications of these operators count them.
fn terms(args: &Args, operator: &str, output: &[usize]) -> Option<i64> {
    let size = |index: usize| args.opt(index).map_or(0, |x| x.numel() as i64);
    let each = output.iter().product::<usize>().max(1) as i64;
    match operator {
        "MatMul" => args.x(0).size().last().copied(),
        "Gemm" => Some(size(0) / output[0].max(1) as i64 + 3),
        "Conv" => Some(size(1) / args.x(1).size()[0].max(1) + 1),
        "ReduceSum" | "ReduceL1" | "GlobalAveragePool" => Some(size(0) / each),
        "Sum" | "Mean" => Some(args.count() as i64),
        "AveragePool" => args.ints("kernel_shape").map(|kernel| kernel.iter().product()),
        _ => None,
    }
}

impl Added {
    /// Writes the nodes before the one at `at`. A value of the draft that is `replaced` becomes the value beside it, others
    /// become new ones. The names of the nodes begin with `label`. The number of nodes, and the value that the draft called
    /// `result`.
    pub fn insert(
        self,
        label: &str,
        model: &mut Model,
        data: &mut LeafData,
        at: usize,
        replaced: &[(usize, usize)],
        result: usize,
    ) -> (usize, usize) {
        let known = model.values.len();
        let mut indices: Vec<usize> = (0..known).collect();
        for (index, value) in self.values.into_iter().enumerate() {
            if let Some((_, old)) = replaced.iter().find(|(new, _)| *new == known + index) {
                indices.push(*old);
                continue;
            }
            indices.push(model.values.len());
            let name = format!("r{}", model.values.len());
            model.values.push(Value { name, ..value });
        }
        for (leaf, content) in self.leaves {
            model.leaves.push(Leaf { value: indices[leaf.value], ..leaf });
            data.push(content);
        }
        let count = self.nodes.len();
        for (index, mut node) in self.nodes.into_iter().enumerate() {
            node.operands.iter_mut().flatten().for_each(|value| *value = indices[*value]);
            node.outputs.iter_mut().for_each(|value| *value = indices[*value]);
            node.name = format!("{label}: {}", node.outputs[0]);
            model.insert_node(at + index, node);
        }
        (count, indices[result])
    }

    /// Whether a node of the draft computes the value.
    pub fn computes(&self, value: usize) -> bool {
        self.nodes.iter().any(|node| node.outputs.contains(&value))
    }

    /// Adds the operator that hands on `value` of `model`; its output.
    pub fn identity(&mut self, model: &Model, value: usize) -> usize {
        let known = model.values.get(value).unwrap_or_else(|| &self.values[value - model.values.len()]);
        let copy = Value { name: String::new(), ..known.clone() };
        self.values.push(copy);
        let output = model.values.len() + self.values.len() - 1;
        let spec = ops::by_name("Identity").expect("an operator of the catalogue");
        let (name, operands) = (String::new(), vec![Some(value)]);
        self.nodes.push(Node { spec, name, operands, outputs: vec![output], attributes: Vec::new(), accumulate: None });
        output
    }
}
