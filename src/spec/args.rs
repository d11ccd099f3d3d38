//! What an operator's `eval` and `guard` read: concrete operands and attributes.

use super::Attribute;
use crate::dtype::DType;
use crate::elements;
use crate::tensor::TensorData;
use std::borrow::Cow;
use tch::{Kind, TchError, Tensor};

/// Concrete attributes by name. Our own operators name them statically; imported models bring their names.
pub type Attributes = [(Cow<'static, str>, Attribute<i64>)];

/// The results of an `eval`, in the operator's output order.
pub type Outputs = Result<Vec<Tensor>, TchError>;

/// One concrete application of an operator.
///
/// Floats are held in the type that libtorch computes them in, see [`Args::kind`]; integers and bools in their own.
pub struct Args<'a> {
    /// The operands; `None` where an optional one is absent.
    pub operands: Vec<Option<Tensor>>,
    /// The declared element types of the operands, in the same order.
    pub operand_dtypes: Vec<Option<DType>>,
    pub attributes: &'a Attributes,
    /// The declared element types of the outputs.
    pub output_dtypes: Vec<DType>,
    /// The opset of the model, where the meaning of an operator changed.
    pub opset: i64,
    /// Compute floats in f64 whatever their declared type.
    pub wide: bool,
    /// Products summed for one output element, where the operator declared it.
    pub accumulate: Option<f64>,
}

/// The libtorch type in which a value of type `dtype` is held: f16 and bf16 as f32 rounded after each operator, every
/// float as f64 when `wide`, and u16, u32 and u64, which libtorch hardly computes with, in a wider signed type.
/// A specification whose integer results wrap must say so itself (see `wrapped` in `ops::common`).
pub fn kind_of(dtype: DType, wide: bool) -> Kind {
    match dtype {
        float if float.is_float() && wide => Kind::Double,
        DType::F16 | DType::BF16 | DType::F32 => Kind::Float,
        DType::F64 => Kind::Double,
        DType::I8 => Kind::Int8,
        DType::I16 => Kind::Int16,
        DType::I32 | DType::U16 => Kind::Int,
        DType::I64 | DType::U32 | DType::U64 => Kind::Int64,
        DType::U8 => Kind::Uint8,
        DType::Bool => Kind::Bool,
    }
}

impl<'a> Args<'a> {
    /// The number of operands written, absent ones included.
    pub fn count(&self) -> usize {
        self.operands.len()
    }

    /// A present operand. Panics when it is absent: the importer checks arity first.
    pub fn x(&self, index: usize) -> &Tensor {
        self.operands[index].as_ref().expect("a required operand")
    }

    /// An optional operand.
    pub fn opt(&self, index: usize) -> Option<&Tensor> {
        self.operands.get(index).and_then(Option::as_ref)
    }

    /// The declared element type of a present operand.
    pub fn dtype(&self, index: usize) -> DType {
        self.operand_dtypes[index].expect("a required operand")
    }

    /// The libtorch type in which this evaluation holds values of type `dtype`.
    pub fn kind(&self, dtype: DType) -> Kind {
        kind_of(dtype, self.wide)
    }

    /// The libtorch type of output `index`.
    pub fn output_kind(&self, index: usize) -> Kind {
        self.kind(self.output_dtypes[index])
    }

    pub fn rank(&self, index: usize) -> usize {
        self.x(index).dim()
    }

    pub fn shape(&self, index: usize) -> Vec<i64> {
        self.x(index).size()
    }

    pub fn attribute(&self, name: &str) -> Option<&'a Attribute<i64>> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// An integer attribute, or its default.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attribute(name) {
            Some(Attribute::Int(value)) => *value,
            _ => default,
        }
    }

    /// A list of integers; `None` when the attribute is absent.
    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        match self.attribute(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// A float attribute, or its default.
    pub fn float(&self, name: &str, default: f32) -> f64 {
        match self.attribute(name) {
            Some(Attribute::Float(value)) => (*value).into(),
            _ => default.into(),
        }
    }

    /// A text attribute, or its default.
    pub fn text(&self, name: &str, default: &'static str) -> &'a str {
        match self.attribute(name) {
            Some(Attribute::Text(value)) => value,
            _ => default,
        }
    }

    /// A tensor attribute; `None` when it is absent.
    pub fn tensor(&self, name: &str) -> Option<&'a TensorData> {
        match self.attribute(name) {
            Some(Attribute::Tensor(value)) => Some(value),
            _ => None,
        }
    }

    /// A list of floats; empty when the attribute is absent.
    pub fn floats(&self, name: &str) -> &'a [f32] {
        match self.attribute(name) {
            Some(Attribute::Floats(values)) => values,
            _ => &[],
        }
    }

    /// A list of texts; `None` when the attribute is absent.
    pub fn texts(&self, name: &str) -> Option<&'a [String]> {
        match self.attribute(name) {
            Some(Attribute::Texts(values)) => Some(values),
            _ => None,
        }
    }

    /// `axis` counted from the front, for a tensor of rank `rank`.
    pub fn from_front(axis: i64, rank: usize) -> i64 {
        if axis < 0 { axis + rank as i64 } else { axis }
    }

    /// The elements of an integer operand such as `axes`; `None` when it is absent.
    pub fn list(&self, index: usize) -> Option<Vec<i64>> {
        Some(elements::integers(self.opt(index)?).expect("numbers can be read as integers"))
    }
}
