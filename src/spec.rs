//! What an operator is: [`OpSpec`], a const that declares its laws through a [`Builder`], its meaning in libtorch,
//! and how exactly a backend must compute it.

use crate::dtype::{DType, DTypes};
use crate::input::Picks;
use crate::limits;
use crate::swarm::{Sizes, Swarm};
use crate::term::{Law, Term, Vars};
use std::ops::RangeInclusive;

pub mod args;
mod shapes;

pub use args::{Args, Attributes, Outputs};

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
    /// Declares operands, attributes, laws and outputs of one application.
    pub build: fn(&mut Builder) -> Result<(), Skip>,
    /// The meaning, in libtorch, following the ONNX text. Must take any legal attributes, also absent ones.
    pub eval: fn(&Args) -> Outputs,
    /// Tensors that are >= 0 exactly where the operator is defined and numerically safe; differentiable.
    /// The input search drives them up. Infinite results and overflow need no guard of their own.
    pub guard: Option<fn(&Args) -> Outputs>,
    /// A function whose gradient the input search uses in place of that of `eval`, where the true one is often 0.
    pub proxy: Option<fn(&Args) -> Outputs>,
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
        build: |_| Ok(()),
        eval: |_| Ok(Vec::new()),
        guard: None,
        proxy: None,
        can_overflow: false,
    };
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
    Custom(fn(&Args, &[Option<tch::Tensor>], &[tch::Tensor]) -> Outputs),
}

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
}

/// The element type and symbolic shape of a value.
#[derive(Clone, Debug)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Vec<Term>,
}

/// An operand as a specification sees it.
pub type Operand = TensorType;

impl TensorType {
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
    /// A graph input.
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
    /// The elements of a [`Role::Constant`], in units of one over `denominator`.
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
    /// Terms summed for one output element.
    pub accumulate: Option<Term>,
    pub failed: Option<Skip>,
}

/// Takes the declarations of an operator's `build`. Discrete choices are made at once from the record's picks;
/// sizes and integer attributes stay symbolic.
pub struct Builder<'a> {
    pub(crate) spec: &'static OpSpec,
    pub(crate) picks: Picks<'a>,
    pub(crate) swarm: &'a Swarm,
    /// The values that may be reused, oldest first.
    pub(crate) pool: &'a [TensorType],
    pub(crate) vars: &'a mut Vars,
    /// The type that the first output must get, when the operator is put in front of a graph input.
    pub(crate) wanted: Option<TensorType>,
    pub(crate) draft: Draft,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(
        spec: &'static OpSpec,
        picks: Picks<'a>,
        swarm: &'a Swarm,
        pool: &'a [TensorType],
        vars: &'a mut Vars,
        wanted: Option<TensorType>,
    ) -> Self {
        Builder { spec, picks, swarm, pool, vars, wanted, draft: Draft::default() }
    }

    // ---- choices -------------------------------------------------------------------------------------------

    /// One of two, evenly.
    pub fn coin(&mut self) -> bool {
        self.picks.byte() >= 128
    }

    /// True in about `n` of 256 records.
    pub fn chance(&mut self, n: u8) -> bool {
        // The highest bytes, so that the zero byte is the plain case.
        usize::from(self.picks.byte()) + usize::from(n) >= 256
    }

    /// Uniform below `bound`, which is 1 to 256.
    pub fn below(&mut self, bound: usize) -> usize {
        self.picks.below(bound)
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.picks.below(choices.len())]
    }

    /// An axis of a tensor of rank `rank` (not 0).
    pub fn axis(&mut self, rank: usize) -> usize {
        self.picks.below(rank)
    }

    /// Some axes of a tensor of rank `rank`, ascending; possibly none, possibly all.
    pub fn axes(&mut self, rank: usize) -> Vec<usize> {
        let mask = self.picks.byte();
        (0..rank).filter(|axis| mask >> axis & 1 == 1).collect()
    }

    /// A permutation of `0..rank`.
    pub fn permutation(&mut self, rank: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..rank).collect();
        for i in (1..rank).rev() {
            order.swap(i, self.picks.below(i + 1));
        }
        order
    }

    /// `axis` as it may be written: half of the time counted from the end.
    pub fn signed_axis(&mut self, axis: usize, rank: usize) -> i64 {
        axis as i64 - if self.coin() { rank as i64 } else { 0 }
    }

    /// One of `dtypes` that this case may use; for an output type that the operator chooses freely.
    pub fn dtype(&mut self, dtypes: DTypes) -> Result<DType, Skip> {
        self.dtype_in_any_lane(self.permitted(dtypes))
    }

    /// Like [`Builder::dtype`], but with floats also in the exact lane; see [`Builder::input_in_any_lane`].
    pub fn dtype_in_any_lane(&mut self, dtypes: DTypes) -> Result<DType, Skip> {
        match &self.wanted {
            Some(wanted) if dtypes.contains(wanted.dtype) => return Ok(wanted.dtype),
            _ => {}
        }
        let choices: Vec<DType> = dtypes.iter().collect();
        if choices.is_empty() { Err(Skip::DType) } else { Ok(self.one_of(&choices)) }
    }

    /// Whether every result of this case must be equal to the bit.
    pub fn in_exact_lane(&self) -> bool {
        self.swarm.exact
    }

    /// The element types of the operator's main operand.
    pub fn dtypes(&self) -> DTypes {
        self.spec.dtypes
    }

    // ---- variables and laws --------------------------------------------------------------------------------

    /// The current value of a term; 0 where it is undefined. Discrete choices may depend on it.
    pub fn value(&self, term: Term) -> i64 {
        term.eval(self.vars).unwrap_or(0)
    }

    /// A free integer in `range`, preferably spread over all of it.
    pub fn free(&mut self, range: RangeInclusive<i64>) -> Term {
        let (low, high) = range.clone().into_inner();
        let span = (high - low + 1).clamp(1, 256) as usize;
        let hint = low + self.picks.below(span) as i64;
        Term::var(self.vars.fresh(range, hint))
    }

    /// A free integer in `range`, preferably `hint`.
    pub fn free_near(&mut self, range: RangeInclusive<i64>, hint: i64) -> Term {
        Term::var(self.vars.fresh(range, hint))
    }

    /// The smallest dimension that this case allows where nothing else forbids it: 0 or 1.
    pub fn smallest_size(&self) -> i64 {
        i64::from(self.swarm.sizes != Sizes::Empty)
    }

    /// A free dimension of a tensor of rank `rank`.
    pub fn size(&mut self, rank: usize) -> Term {
        let pick = self.picks.byte();
        self.size_from(pick, rank)
    }

    pub(crate) fn size_from(&mut self, pick: u8, rank: usize) -> Term {
        let hint = self.swarm.size_hint(pick, rank);
        self.size_near(hint)
    }

    pub(crate) fn size_near(&mut self, hint: i64) -> Term {
        // A case without empty tensors must not get them from the solver.
        let low = i64::from(self.swarm.sizes != Sizes::Empty || hint != 0);
        Term::var(self.vars.fresh(low..=limits::MAX_SIZE, hint))
    }

    pub fn require(&mut self, law: Law) {
        self.draft.laws.push(law);
    }

    /// A name for a term: keeps terms small when operators are chained.
    pub(crate) fn named(&mut self, term: Term) -> Term {
        if term.as_const().is_some() || term.as_var().is_some() {
            return term;
        }
        let hint = self.value(term);
        let name = Term::var(self.vars.fresh(0..=limits::MAX_ELEMENTS, hint));
        self.require(name.equals(term));
        name
    }

    // ---- attributes ----------------------------------------------------------------------------------------

    /// An integer attribute in `range`.
    pub fn attr(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Term {
        let term = self.free(range);
        self.set(name, Attribute::Int(term));
        term
    }

    /// `N` integers, each in `range`.
    pub fn attrs<const N: usize>(&mut self, name: &'static str, range: RangeInclusive<i64>) -> [Term; N] {
        let terms: [Term; N] = std::array::from_fn(|_| self.free(range.clone()));
        self.set(name, Attribute::Ints(terms.to_vec()));
        terms
    }

    /// `count` integers, each in `range`.
    pub fn attr_list(&mut self, name: &'static str, count: usize, range: RangeInclusive<i64>) -> Vec<Term> {
        let terms: Vec<Term> = (0..count).map(|_| self.free(range.clone())).collect();
        self.set(name, Attribute::Ints(terms.clone()));
        terms
    }

    pub fn set(&mut self, name: &'static str, value: Attribute<Term>) {
        self.draft.attributes.push((name, value));
    }

    pub fn set_int(&mut self, name: &'static str, value: impl Into<Term>) {
        self.set(name, Attribute::Int(value.into()));
    }

    pub fn set_ints(&mut self, name: &'static str, values: impl IntoIterator<Item = i64>) {
        self.set(name, Attribute::Ints(values.into_iter().map(Term::from).collect()));
    }

    pub fn set_float(&mut self, name: &'static str, value: f32) {
        self.set(name, Attribute::Float(value));
    }

    pub fn set_text(&mut self, name: &'static str, value: &str) {
        self.set(name, Attribute::Text(value.to_owned()));
    }

    // ---- outputs -------------------------------------------------------------------------------------------

    /// One more output.
    pub fn output(&mut self, dtype: DType, shape: impl Into<Vec<Term>>) {
        let mut shape: Vec<Term> = shape.into();
        for dim in &mut shape {
            *dim = self.named(*dim);
        }
        if self.draft.outputs.is_empty()
            && let Some(wanted) = self.wanted.clone()
        {
            if wanted.dtype == dtype && wanted.rank() == shape.len() {
                for (&dim, want) in shape.iter().zip(wanted.shape) {
                    self.require(dim.equals(want));
                }
            } else {
                self.draft.failed = Some(Skip::Backward);
            }
        }
        self.draft.outputs.push(TensorType { dtype, shape });
    }

    /// States that each output element is a sum of `terms` products. Needed with [`Numerics::Accumulated`].
    pub fn accumulate(&mut self, terms: impl Into<Term>) {
        self.draft.accumulate = Some(terms.into());
    }
}
