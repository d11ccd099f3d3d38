//! What an operator is: [`OpSpec`], a const that declares its laws through a [`Builder`], its meaning in libtorch,
//! and how exactly a backend must compute it.

use crate::dtype::{DType, DTypes};
use crate::limits;
use crate::tensor::TensorData;
use crate::term::{Law, Term};
use std::ops::RangeInclusive;

pub mod args;
mod builder;
mod shapes;

pub use args::{Args, Attributes, Outputs};
pub use builder::Builder;

/// The ranks an elementwise operator takes.
pub const ANY_RANK: RangeInclusive<usize> = 0..=limits::MAX_RANK;

/// One operator.
#[derive(Clone, Copy)]
pub struct OpSpec {
    /// The permanent wire code in a record.
    pub code: u8,
    /// The ONNX operator type; also the name in graphs and reports.
    pub name: &'static str,
    /// The opset since which the operator has had the form that `build` declares.
    pub since: i64,
    /// The element types of the main operand.
    pub dtypes: DTypes,
    /// One sentence for the page of operators.
    pub doc: &'static str,
    pub numerics: Numerics,
    pub exceptional: Exceptional,
    /// The least and the largest value that the result can have, whatever the operands are; no correct backend rounds to
    /// anything beyond.
    pub range: Option<(f64, f64)>,
    /// Declares operands, attributes, laws and outputs of one application.
    pub build: fn(&mut Builder) -> Result<(), Skip>,
    /// The meaning, in libtorch, following the ONNX text. Must take any legal attributes, also absent ones.
    pub eval: fn(&Args) -> Outputs,
    /// Tensors that are >= 0 exactly where the operator is defined and numerically safe; differentiable.
    /// The input search drives them up. Infinite results and overflow need no guard of their own.
    pub guard: Option<fn(&Args) -> Outputs>,
    /// A function whose gradient the input search uses in place of that of `eval`, where the true one is often 0.
    pub proxy: Option<fn(&Args) -> Outputs>,
    /// The operand at whose 0 an elementwise function has a pole, which the corners of an error box do not show.
    pub pole: Option<usize>,
    /// Integer results may leave the range of their type, which ONNX leaves undefined: such cases are not judged.
    pub can_overflow: bool,
}

impl OpSpec {
    /// The values a const may leave out.
    pub const BASE: OpSpec = OpSpec {
        code: 0,
        name: "",
        since: 13,
        dtypes: crate::dtype::ANY,
        doc: "",
        numerics: Numerics::Exact,
        exceptional: Exceptional::Silent,
        range: None,
        build: |_| Ok(()),
        eval: |_| Ok(Vec::new()),
        guard: None,
        proxy: None,
        pole: None,
        can_overflow: false,
    };
}

impl OpSpec {
    /// The range of results in an element type: rounding keeps order, so that a rounded result lies within the rounded ends.
    pub fn range_in(&self, dtype: DType) -> Option<(f64, f64)> {
        self.range.map(|(least, largest)| {
            let ends = TensorData::from_f64(dtype, &[2], &[least, largest]).to_f64();
            (ends[0], ends[1])
        })
    }
}

impl std::fmt::Debug for OpSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// How the result of a correct backend may differ from the exact result on the same operands. `u` is the unit
/// roundoff of the output's type. Integer and bool results never differ.
#[derive(Clone, Copy)]
pub enum Numerics {
    /// Elements are moved or selected, never computed: equal to the bit. Errors of the float operands move with
    /// them, so `eval` applied to the operands' errors gives the error of the result.
    Exact,
    /// Each element depends on one element of each operand: within `ulps * u * (|exact| + absolute)`. Errors of
    /// the operands are propagated by evaluating at their extremes.
    Elementwise { ulps: f64, absolute: f64 },
    /// A sum of products of the float operands (linear in each), in any order: the classical bound
    /// `n * u * sum of |products|`, with `n` from [`Builder::accumulate`].
    Accumulated,
    /// A rule of the operator's own: operands, their errors (none for non-floats) and exact outputs to the outputs' errors.
    Custom(Rule),
    /// A rule that is asked about every application, also where all operands are exact and all results are integers, and
    /// that gets the doubts about integer operands as well: 0 or infinity for each element.
    Unfiltered(Rule),
}

/// Where the standard says what an operator makes of a NaN or an infinity, or that it makes one of a number. A rule for
/// integers made of them there is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exceptional {
    /// Nowhere: such elements are not judged.
    Silent,
    /// The operator only moves elements, and its text exempts no value.
    Moved,
    /// One of the operations of IEEE 754, in whose formats `onnx.proto` defines the float types.
    Ieee754,
    /// A sentence of the operator's text.
    Text(&'static str),
}

/// An operator's own error rule; see [`Numerics::Custom`].
pub type Rule = fn(&Args, &[Option<tch::Tensor>], &[tch::Tensor]) -> Outputs;

impl Numerics {
    /// Correctly rounded basic arithmetic.
    pub const ROUNDED: Numerics = Numerics::Elementwise { ulps: 1.0, absolute: 0.0 };
    /// Elementwise selection or comparison: no rounding of its own, but operands' errors may flip it.
    pub const SELECTING: Numerics = Numerics::Elementwise { ulps: 0.0, absolute: 0.0 };
}

/// Why a record gave no operator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Skip {
    /// No operator of this case admits the needed element types.
    DType,
    /// No value and no new input has a rank that the operator takes.
    Rank,
    /// A backend that the case is for is known not to take the operator with these element types.
    Unsupported,
    /// The laws contradict those of the graph.
    Unsolvable,
    /// Z3 used up its budget.
    SolverGaveUp,
    /// The result would pass a bound of [`crate::limits`].
    TooLarge,
    /// The graph is full.
    TooMany,
    /// The output cannot take the place of the wanted graph input.
    Backward,
    /// A step of a pattern cannot use the one before it.
    Pattern,
}

/// The element type and symbolic shape of a value.
#[derive(Clone, Debug)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Vec<Term>,
    /// The elements in row-major order where the specification can tell them, as for the output of Shape: such a value may
    /// say what shape another one gets.
    pub elements: Option<Vec<Term>>,
}

/// An operand as a specification sees it.
pub type Operand = TensorType;

impl TensorType {
    /// A type of whose elements nothing is known.
    pub fn new(dtype: DType, shape: impl Into<Vec<Term>>) -> TensorType {
        TensorType { dtype, shape: shape.into(), elements: None }
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The dimensions of an operand whose rank is known to be `N`.
    pub fn dims<const N: usize>(&self) -> [Term; N] {
        self.shape.as_slice().try_into().expect("rank checked by the operand's declaration")
    }

    /// The dimensions of a rank-4 operand.
    pub fn nchw(&self) -> [Term; 4] {
        self.dims()
    }
}

/// How a leaf enters the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A graph input. Its data are always the same where the specification fixed them.
    Input,
    /// An initializer whose values the input search may choose.
    Initializer,
    /// An initializer whose values the specification fixed, such as the axes of a reduction.
    Constant,
}

/// The values a leaf may take.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Domain<T = Term> {
    Any,
    /// Integers in `-bound..bound`: an index into a dimension of that size.
    Index(T),
    /// Integers from the first to the second, both included: a length or a position within a dimension.
    Between(i64, T),
    /// Integers other than 0.
    NonZero,
    /// Within the closed interval.
    Range(f64, f64),
}

/// An attribute's value; `I` is a [`Term`] while the graph is symbolic, an `i64` afterwards.
#[derive(Clone, PartialEq, Debug)]
pub enum Attribute<I> {
    Int(I),
    Ints(Vec<I>),
    Float(f32),
    Floats(Vec<f32>),
    Text(String),
    Tensor(TensorData),
    Texts(Vec<String>),
}

/// Where an operand comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The value at this index of the pool.
    Reused(usize),
    /// The new leaf at this index of [`Draft::leaves`].
    Leaf(usize),
    /// An optional operand left out.
    Absent,
}

/// A new leaf.
#[derive(Clone, Debug)]
pub struct LeafDraft {
    pub ty: TensorType,
    pub role: Role,
    pub domain: Domain,
    /// The elements of a leaf that the specification fixed, in units of one over `denominator`.
    pub content: Option<Vec<Term>>,
    /// 1 but for fractions such as the `scales` of Resize.
    pub denominator: i64,
}

/// All that one application of an operator declared.
#[derive(Default, Debug)]
pub struct Draft {
    pub operands: Vec<Source>,
    pub leaves: Vec<LeafDraft>,
    pub attributes: Vec<(&'static str, Attribute<Term>)>,
    pub laws: Vec<Law>,
    pub outputs: Vec<TensorType>,
    /// Indices into `outputs`: optional ones that are left out before others that are not.
    pub omitted: Vec<usize>,
    /// Terms summed for one output element.
    pub accumulate: Option<Term>,
    pub failed: Option<Skip>,
}
