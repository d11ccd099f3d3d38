//! What a specification declares an application of an operator with.

use super::{Attribute, Draft, OpSpec, Skip, TensorType};
use crate::dtype::{DType, DTypes};
use crate::input::{Picks, Stream, Use};
use crate::limits;
use crate::schema;
use crate::swarm::{Sizes, Swarm};
use crate::tensor::TensorData;
use crate::term::{Law, Term, Vars};
use std::ops::RangeInclusive;

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
    /// Indices into `pool`: what the first operands must be, when the operator is a step of a pattern.
    pub(crate) forced: Vec<usize>,
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
        forced: Vec<usize>,
    ) -> Self {
        Builder { spec, picks, swarm, pool, vars, wanted, forced, draft: Draft::default() }
    }

    // ---- choices -------------------------------------------------------------------------------------------

    /// One of two, evenly.
    pub fn coin(&mut self) -> bool {
        self.picks.byte() >= 128
    }

    /// True in about `n` of 256 records.
    pub fn chance(&mut self, n: u8) -> bool {
        self.chance_for(Use::Choice, n)
    }

    pub(crate) fn chance_for(&mut self, decided: Use, n: u8) -> bool {
        // The highest bytes, so that the zero byte is the plain case.
        usize::from(self.picks.byte_for(decided)) + usize::from(n) >= 256
    }

    /// True somewhat more often than not: for what would else stand at its default in half of the cases.
    pub fn mostly(&mut self) -> bool {
        self.chance(152)
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

    /// Numbers for the content of leaves, of which a record has too few picks: they depend on two of them.
    pub fn stream(&mut self) -> Stream {
        let (high, low) = (self.picks.byte(), self.picks.byte());
        Stream::new(u64::from(high) << 8 | u64::from(low))
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

    /// The opset of the model, where the form of an operator changed.
    pub fn opset(&self) -> i64 {
        self.swarm.opset
    }

    /// `dtypes` without what no operand of the operator may have in this opset.
    pub(crate) fn legal(&self, dtypes: DTypes) -> DTypes {
        let signature = schema::signature(self.spec.name, self.swarm.opset);
        signature.map_or(dtypes, |signature| dtypes.and(signature.operand_types()))
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
        let pick = self.picks.byte_for(Use::Leaf);
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

    pub fn set_tensor(&mut self, name: &'static str, value: TensorData) {
        self.set(name, Attribute::Tensor(value));
    }

    pub fn set_texts(&mut self, name: &'static str, values: &[&str]) {
        self.set(name, Attribute::Texts(values.iter().map(|&value| value.to_owned()).collect()));
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
        self.draft.outputs.push(TensorType::new(dtype, shape));
    }

    /// States the elements of the integer output declared last, where they are sizes or follow from sizes.
    pub fn elements(&mut self, elements: impl IntoIterator<Item = Term>) {
        let elements: Vec<Term> = elements.into_iter().collect();
        // What is no size has no name, and would be of no use.
        let size = |&element: &Term| (0..=limits::MAX_ELEMENTS).contains(&self.value(element));
        if elements.iter().all(|element| element.as_const().is_some() || size(element)) {
            let elements = elements.into_iter().map(|element| self.named(element)).collect();
            let output = self.draft.outputs.last_mut().expect("an output was declared");
            output.elements = Some(elements);
        }
    }

    /// Leaves the output declared last out. It must be optional and neither the operator's first nor its last.
    pub fn omit(&mut self) {
        self.draft.omitted.push(self.draft.outputs.len() - 1);
    }

    /// States that each output element is a sum of `terms` products. Needed with [`Numerics::Accumulated`].
    pub fn accumulate(&mut self, terms: impl Into<Term>) {
        self.draft.accumulate = Some(terms.into());
    }
}
