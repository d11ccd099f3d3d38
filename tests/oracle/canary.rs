//! A backend that reads the ONNX bytes like any other, computes with the reference, and then misbehaves as it is told.

use graphsmith::backend::{Backend, Failure, Level, Session, isolate};
use graphsmith::case::Case;
use graphsmith::model::{LeafData, Model, Value};
use graphsmith::onnx;
use graphsmith::reference::{self, Precision};
use graphsmith::tensor::TensorData;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a canary does with a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Exactly what the reference does in the declared types.
    Copy,
    /// The first element of the first output of floats is not a number.
    NotANumber,
    /// What is not a number comes out as 0.
    NanAsZero,
    /// Every output has one more axis.
    WrongShape,
    Crash,
    Refusal,
}

use Behaviour::*;

/// The canary. What the tests steer is shared, so that a harness may own the canary.
#[derive(Clone)]
pub struct Canary {
    pub id: &'static str,
    pub behaviour: Rc<Cell<Behaviour>>,
    /// Misbehaves only at this level.
    pub level: Option<Level>,
    /// Misbehaves only on models with this operator.
    pub operator: Option<&'static str>,
    pub integer_limit: Option<i64>,
    /// Misbehaves only on models of at least so many nodes.
    pub least_nodes: usize,
    /// How many models were compiled.
    pub compiled: Rc<Cell<usize>>,
    /// ONNX leaves out the types of values inside the graph; a real backend infers them.
    pub types: Rc<RefCell<BTreeMap<String, Value>>>,
}

impl Canary {
    pub fn new(behaviour: Behaviour) -> Canary {
        Canary {
            id: "canary",
            behaviour: Rc::new(Cell::new(behaviour)),
            level: None,
            operator: None,
            least_nodes: 0,
            integer_limit: None,
            compiled: Rc::default(),
            types: Rc::default(),
        }
    }

    /// Lets the canary know the types of all values of a case.
    pub fn expect(&self, case: &Case) {
        *self.types.borrow_mut() = case.model.values.iter().map(|value| (value.name.clone(), value.clone())).collect();
    }
}

impl Backend for Canary {
    fn id(&self) -> &'static str {
        self.id
    }

    fn version(&self) -> String {
        "1.2.3".to_owned()
    }

    fn integer_limit(&self) -> Option<i64> {
        self.integer_limit
    }

    fn compile(&self, onnx: &[u8], level: Level) -> Result<Box<dyn Session>, Failure> {
        self.compiled.set(self.compiled.get() + 1);
        let proto = onnx::decode(onnx).expect("the case holds an ONNX model");
        let model = onnx::import(&proto, &self.types.borrow(), 1).expect("the model is graphsmith's own").model;
        let here = self.level.is_none_or(|only| only == level)
            && model.nodes.len() >= self.least_nodes
            && self.operator.is_none_or(|only| model.nodes.iter().any(|node| node.spec.name == only));
        let behaviour = if here { self.behaviour.get() } else { Copy };
        match behaviour {
            Crash => isolate(|| panic!("the canary falls from its perch")),
            Refusal => Err(Failure::Refused("the canary does not sing".to_owned())),
            Copy | NotANumber | NanAsZero | WrongShape => Ok(Box::new(Compiled { model, behaviour })),
        }
    }
}

struct Compiled {
    model: Model,
    behaviour: Behaviour,
}

impl Session for Compiled {
    fn run(&mut self, inputs: &[TensorData]) -> Result<Vec<TensorData>, Failure> {
        let mut inputs = inputs.iter().cloned();
        let leaf = |leaf: &graphsmith::model::Leaf| match &leaf.content {
            Some(content) => content.clone(),
            None => inputs.next().expect("an input for each leaf that is one"),
        };
        let data: LeafData = self.model.leaves.iter().map(leaf).collect();
        let values = reference::run(&self.model, &data, Precision::Declared).expect("computed before");
        let mut outputs = reference::outputs(&self.model, &values);
        if self.behaviour == NotANumber {
            let output = outputs.iter_mut().find(|output| output.dtype.is_float() && !output.is_empty());
            let output = output.ok_or_else(|| Failure::Unsupported("nothing here to get wrong".to_owned()))?;
            let mut values = output.to_f64();
            values[0] = f64::NAN;
            *output = TensorData::from_f64(output.dtype, &output.shape, &values);
        }
        if self.behaviour == NanAsZero {
            let number = |value: f64| if value.is_nan() { 0.0 } else { value };
            for output in outputs.iter_mut().filter(|output| output.dtype.is_float()) {
                let values: Vec<f64> = output.to_f64().into_iter().map(number).collect();
                *output = TensorData::from_f64(output.dtype, &output.shape, &values);
            }
        }
        if self.behaviour == WrongShape {
            outputs.iter_mut().for_each(|output| output.shape.push(1));
        }
        Ok(outputs)
    }
}
