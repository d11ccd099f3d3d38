//! How a [`Builder`] finds operands: values that are already there, or new leaves.

use super::{Builder, Domain, LeafDraft, Numerics, Operand, Role, Skip, Source, TensorType};
use crate::dtype::{DType, DTypes, FLOATS};
use crate::input::{Use, mix};
use crate::limits;
use crate::term::Term;
use std::ops::RangeInclusive;

/// The current sizes of two dimensions allow ONNX's multidirectional broadcasting.
fn broadcasts(a: i64, b: i64) -> bool {
    a == b || a == 1 || b == 1
}

impl Builder<'_> {
    /// `dtypes` without what the lane of this case excludes: in the exact lane floats are only moved.
    pub(crate) fn permitted(&self, dtypes: DTypes) -> DTypes {
        let computes = !matches!(self.spec.numerics, Numerics::Exact);
        if self.swarm.exact && computes { dtypes.without(FLOATS) } else { dtypes }
    }

    /// An operand of one of `dtypes` and a rank in `ranks`: a value of the graph, or a new leaf.
    pub fn input(&mut self, dtypes: DTypes, ranks: RangeInclusive<usize>) -> Result<Operand, Skip> {
        self.input_or(self.permitted(dtypes), ranks.clone(), |builder| builder.leaf_shape(ranks))
    }

    /// Like [`Builder::input`], but with floats also in the exact lane: for an operator some of whose forms are exact
    /// although its numerics is not [`Numerics::Exact`], and which then takes no others.
    pub fn input_in_any_lane(&mut self, dtypes: DTypes, ranks: RangeInclusive<usize>) -> Result<Operand, Skip> {
        self.input_or(dtypes, ranks.clone(), |builder| builder.leaf_shape(ranks))
    }

    /// Like [`Builder::input_in_any_lane`]; `shape` makes the shape of a new leaf.
    pub(crate) fn input_or(
        &mut self,
        dtypes: DTypes,
        ranks: RangeInclusive<usize>,
        shape: impl FnOnce(&mut Self) -> Vec<Term>,
    ) -> Result<Operand, Skip> {
        self.input_with(dtypes, ranks, shape, |_| Domain::Any)
    }

    /// Like [`Builder::input_in_any_lane`]; a new leaf has values in the `domain` for its type.
    pub fn input_in_domain(
        &mut self,
        dtypes: DTypes,
        ranks: RangeInclusive<usize>,
        domain: impl FnOnce(DType) -> Domain,
    ) -> Result<Operand, Skip> {
        self.input_with(dtypes, ranks.clone(), |builder| builder.leaf_shape(ranks), domain)
    }

    fn input_with(
        &mut self,
        dtypes: DTypes,
        ranks: RangeInclusive<usize>,
        shape: impl FnOnce(&mut Self) -> Vec<Term>,
        domain: impl FnOnce(DType) -> Domain,
    ) -> Result<Operand, Skip> {
        let dtypes = self.legal(dtypes);
        if dtypes.is_empty() {
            return Err(Skip::DType);
        }
        let fits = |_: &Self, ty: &TensorType| dtypes.contains(ty.dtype) && ranks.contains(&ty.rank());
        if let Some(index) = self.matching(fits) {
            return Ok(self.take(index));
        }
        if let Some(skip) = self.draft.failed {
            return Err(skip);
        }
        let dtype = self.leaf_dtype(dtypes);
        let shape = shape(self);
        Ok(self.leaf(dtype, shape, domain(dtype)))
    }

    /// An operand of exactly this type and shape: a value whose sizes are now the same, or a new leaf.
    pub fn input_like(&mut self, dtype: DType, shape: impl Into<Vec<Term>>) -> Operand {
        let shape = self.named_shape(shape);
        let sizes: Vec<i64> = shape.iter().map(|&dim| self.value(dim)).collect();
        let fits = |builder: &Self, ty: &TensorType| {
            ty.dtype == dtype
                && ty.rank() == sizes.len()
                && ty.shape.iter().zip(&sizes).all(|(&dim, &size)| builder.value(dim) == size)
        };
        let Some(index) = self.matching(fits) else {
            return self.leaf(dtype, shape, Domain::Any);
        };
        let operand = self.take(index);
        for (&have, want) in operand.shape.iter().zip(shape) {
            self.require(have.equals(want));
        }
        operand
    }

    /// An operand of type `dtype` whose dimensions are those of `shape`, and free where that has none.
    pub fn input_shaped(&mut self, dtype: DType, shape: &[Option<Term>]) -> Operand {
        let sizes: Vec<Option<i64>> = shape.iter().map(|dim| dim.map(|dim| self.value(dim))).collect();
        let fits = |builder: &Self, ty: &TensorType| {
            let same = |(&dim, size): (&Term, &Option<i64>)| size.is_none_or(|size| builder.value(dim) == size);
            ty.dtype == dtype && ty.rank() == sizes.len() && ty.shape.iter().zip(&sizes).all(same)
        };
        let Some(index) = self.matching(fits) else {
            let shape: Vec<Term> = shape.iter().map(|dim| dim.unwrap_or_else(|| self.size(shape.len()))).collect();
            return self.leaf(dtype, shape, Domain::Any);
        };
        let operand = self.take(index);
        for (&have, want) in operand.shape.iter().zip(shape) {
            if let Some(want) = *want {
                self.require(have.equals(want));
            }
        }
        operand
    }

    /// A further operand of an elementwise operator: of type `dtype` and broadcastable with the shape `other`.
    pub fn input_broadcastable(&mut self, dtype: DType, other: &[Term]) -> Operand {
        let sizes: Vec<i64> = other.iter().map(|&dim| self.value(dim)).collect();
        // Now and then any value of the type will do, and the solver has to make the sizes meet.
        let strict = !self.chance_for(Use::Operand, 24);
        let fits = |builder: &Self, ty: &TensorType| {
            let mut pairs = ty.shape.iter().rev().zip(sizes.iter().rev());
            ty.dtype == dtype && (!strict || pairs.all(|(&a, &b)| broadcasts(builder.value(a), b)))
        };
        if let Some(index) = self.matching(fits) {
            return self.take(index);
        }
        let shape = self.broadcastable_shape(other);
        self.leaf(dtype, shape, Domain::Any)
    }

    /// A new shape that broadcasts with `other`: the same dimensions, some of them 1 or left out at the front.
    pub fn broadcastable_shape(&mut self, other: &[Term]) -> Vec<Term> {
        let pick = self.picks.byte_for(Use::Leaf);
        if pick < 96 {
            return other.to_vec();
        }
        let drop = if pick < 160 { usize::from(pick) % (other.len() + 1) } else { 0 };
        let ones = self.picks.byte_for(Use::Leaf);
        let mut shape = Vec::new();
        for (i, &dim) in other.iter().enumerate().skip(drop) {
            let one = ones >> (i % 8) & 1 == 1;
            shape.push(match one {
                // Where the other operand is 1 this one may be anything.
                true if self.value(dim) == 1 => self.size_from(ones.wrapping_mul(37), other.len()),
                true => Term::constant(1),
                false => dim,
            });
        }
        shape
    }

    /// A list of integers that the graph computes and whose elements the specification knows, for an operand that says what
    /// shape a result gets. None where no value is a list that fits, and nothing is declared then.
    pub fn computed_list(&mut self, fits: impl Fn(&Self, &[Term]) -> bool) -> Option<Vec<Term>> {
        let list = |builder: &Self, ty: &TensorType| {
            let known = ty.elements.as_ref().filter(|_| ty.dtype == DType::I64 && ty.rank() == 1);
            known.is_some_and(|elements| fits(builder, elements))
        };
        let index = self.matching(list)?;
        self.take(index).elements
    }

    /// A trained parameter: mostly an initializer, sometimes a graph input.
    pub fn weight(&mut self, dtype: DType, shape: impl Into<Vec<Term>>) -> Operand {
        self.weight_in(dtype, shape, Domain::Any)
    }

    /// A trained parameter with values in `domain`.
    pub fn weight_in(&mut self, dtype: DType, shape: impl Into<Vec<Term>>, domain: Domain) -> Operand {
        let role = if self.chance_for(Use::Leaf, 40) { Role::Input } else { Role::Initializer };
        self.new_leaf(dtype, shape, domain, role)
    }

    /// A new leaf with values in `domain`, never a reused value: for indices, divisors and the like.
    pub fn leaf(&mut self, dtype: DType, shape: impl Into<Vec<Term>>, domain: Domain) -> Operand {
        let role = if self.chance_for(Use::Leaf, self.swarm.initializers) { Role::Initializer } else { Role::Input };
        self.new_leaf(dtype, shape, domain, role)
    }

    /// A one-dimensional int64 initializer with these elements, such as the `shape` of Reshape.
    pub fn constant(&mut self, elements: impl IntoIterator<Item = Term>) {
        let elements: Vec<Term> = elements.into_iter().collect();
        let shape = vec![Term::constant(elements.len() as i64)];
        self.constant_leaf(DType::I64, shape, elements);
    }

    /// A one-dimensional f32 initializer with these elements over `denominator`, such as the `scales` of Resize.
    pub fn constant_fractions(&mut self, elements: impl IntoIterator<Item = i64>, denominator: i64) {
        let elements: Vec<i64> = elements.into_iter().collect();
        self.constant_fractions_leaf(DType::F32, &[elements.len() as i64], &elements, denominator);
    }

    /// An initializer of a float type with these elements over `denominator`, in row-major order.
    pub fn constant_fractions_leaf(&mut self, dtype: DType, shape: &[i64], elements: &[i64], denominator: i64) {
        let terms = |values: &[i64]| values.iter().copied().map(Term::constant).collect::<Vec<_>>();
        let (ty, content) = (TensorType::new(dtype, terms(shape)), terms(elements));
        let (role, domain) = (Role::Constant, Domain::Any);
        self.push_leaf(LeafDraft { ty, role, domain, content: Some(content), denominator });
    }

    /// A new leaf with these elements over `denominator`: an initializer or, as often, a graph input whose data are always
    /// these. For operands on whose values the shape of a result depends.
    pub fn fixed(
        &mut self,
        dtype: DType,
        shape: impl Into<Vec<Term>>,
        content: impl IntoIterator<Item = Term>,
        denominator: i64,
    ) -> Operand {
        let role = if self.chance_for(Use::Leaf, 128) { Role::Input } else { Role::Constant };
        let content: Vec<Term> = content.into_iter().collect();
        let elements = (dtype.is_int() && denominator == 1).then(|| content.clone());
        let ty = TensorType { elements, ..TensorType::new(dtype, shape) };
        self.push_leaf(LeafDraft { ty, role, domain: Domain::Any, content: Some(content), denominator })
    }

    /// The sizes of a leaf with fixed content, which cannot change: about as those of other leaves, but of at most `most`
    /// elements.
    pub fn fixed_sizes(&mut self, rank: usize, most: i64) -> Vec<i64> {
        let dims = u64::from(self.picks.byte_for(Use::Leaf));
        let mut left = most;
        let mut size = |axis: u64| {
            let size = self.swarm.size_hint(mix(dims << 8 | axis) as u8, rank).min(left.max(1));
            left /= size.max(1);
            size
        };
        (0..rank as u64).map(&mut size).collect()
    }

    /// A rank-0 initializer of an integer type.
    pub fn constant_scalar(&mut self, dtype: DType, element: impl Into<Term>) {
        self.constant_leaf(dtype, Vec::new(), vec![element.into()]);
    }

    /// An optional operand left out.
    pub fn absent(&mut self) {
        self.draft.operands.push(Source::Absent);
    }

    /// Moves the operand declared last to the front, where the main operand is not the operator's first.
    pub fn last_operand_first(&mut self) {
        self.draft.operands.rotate_right(1);
    }

    /// The shape of an elementwise result (ONNX multidirectional broadcasting). Which dimensions stretch is
    /// decided by the current sizes and then made a law.
    pub fn broadcast(&mut self, shapes: &[&[Term]]) -> Vec<Term> {
        let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
        let mut result = Vec::with_capacity(rank);
        for from_end in (0..rank).rev() {
            let dims: Vec<Term> = shapes.iter().filter_map(|shape| shape.iter().rev().nth(from_end).copied()).collect();
            let full = dims.iter().copied().find(|&dim| self.value(dim) != 1).unwrap_or(dims[0]);
            for dim in dims {
                // Where all are 1 they stay equal, so that the solver may still grow them together.
                let stretched = self.value(dim) == 1 && self.value(full) != 1;
                self.require(dim.equals(if stretched { Term::constant(1) } else { full }));
            }
            result.push(full);
        }
        result
    }

    /// An initializer of an integer type with these elements, in row-major order.
    pub fn constant_leaf(&mut self, dtype: DType, shape: Vec<Term>, content: Vec<Term>) {
        let ty = TensorType { elements: Some(content.clone()), ..TensorType::new(dtype, shape) };
        self.push_leaf(LeafDraft {
            ty,
            role: Role::Constant,
            domain: Domain::Any,
            content: Some(content),
            denominator: 1,
        });
    }

    fn new_leaf(&mut self, dtype: DType, shape: impl Into<Vec<Term>>, domain: Domain, role: Role) -> Operand {
        let shape = self.named_shape(shape);
        let ty = TensorType::new(dtype, shape);
        self.push_leaf(LeafDraft { ty, role, domain, content: None, denominator: 1 })
    }

    fn push_leaf(&mut self, mut leaf: LeafDraft) -> Operand {
        leaf.ty.fixed = leaf.content.is_some();
        let operand = leaf.ty.clone();
        self.draft.operands.push(Source::Leaf(self.draft.leaves.len()));
        self.draft.leaves.push(leaf);
        operand
    }

    fn named_shape(&mut self, shape: impl Into<Vec<Term>>) -> Vec<Term> {
        shape.into().into_iter().map(|dim| self.named(dim)).collect()
    }

    fn take(&mut self, index: usize) -> Operand {
        self.draft.operands.push(Source::Reused(index));
        self.pool[index].clone()
    }

    /// A value of the pool that fits, the newest most likely; none when the record wants a new leaf.
    fn matching(&mut self, fits: impl Fn(&Self, &TensorType) -> bool) -> Option<usize> {
        let pick = self.picks.byte_for(Use::Operand);
        if let Some(&forced) = self.forced.get(self.draft.operands.len()) {
            if fits(self, &self.pool[forced]) {
                return Some(forced);
            }
            self.draft.failed = Some(Skip::Pattern);
        }
        // In front of a graph input there is rarely a value to reuse that does not depend on it.
        let fresh = if self.wanted.is_some() { 192 } else { self.swarm.fresh };
        if (mix(u64::from(pick)) as u8) < fresh {
            return None;
        }
        // What an operator that is not defined everywhere gets must be movable to where it is.
        let hopeless = |ty: &TensorType| ty.fixed && ty.dtype.is_float() && self.spec.guard.is_some();
        let fits = |ty: &TensorType| !hopeless(ty) && fits(self, ty);
        let candidates: Vec<usize> = (0..self.pool.len()).filter(|&i| fits(&self.pool[i])).collect();
        // Squaring makes recent values likelier: chains grow deep, yet every value can be reached.
        let back = usize::from(pick) * usize::from(pick) * candidates.len() / (256 * 256);
        (!candidates.is_empty()).then(|| candidates[candidates.len() - 1 - back])
    }

    /// The element type of a new leaf: one of `dtypes` that the case prefers.
    pub fn leaf_dtype(&mut self, dtypes: DTypes) -> DType {
        if let Some(wanted) = &self.wanted
            && dtypes.contains(wanted.dtype)
        {
            return wanted.dtype;
        }
        let preferred = dtypes.and(self.swarm.dtypes);
        let choices: Vec<DType> = if preferred.is_empty() { dtypes } else { preferred }.iter().collect();
        choices[self.picks.below_for(Use::Leaf, choices.len())]
    }

    fn leaf_shape(&mut self, ranks: RangeInclusive<usize>) -> Vec<Term> {
        if let Some(wanted) = self.wanted.clone()
            && ranks.contains(&wanted.rank())
        {
            let sizes: Vec<i64> = wanted.shape.iter().map(|&dim| self.value(dim)).collect();
            return sizes.into_iter().map(|size| self.size_near(size)).collect();
        }
        let (low, high) = (*ranks.start(), (*ranks.end()).min(limits::MAX_RANK));
        // Ranks 2 to 4 are what models are made of; 0, 1 and 5 still occur in a quarter of the cases.
        const RANKS: [usize; 16] = [4, 3, 2, 4, 3, 2, 4, 3, 2, 4, 3, 2, 1, 5, 0, 1];
        let pick = self.picks.byte_for(Use::Leaf);
        let mut rank = RANKS[usize::from(pick) % 16];
        if !(low..=high).contains(&rank) {
            rank = low + usize::from(pick) % (high - low + 1);
        }
        let dims = u64::from(self.picks.byte_for(Use::Leaf));
        (0..rank as u64).map(|i| self.size_from(mix(dims << 8 | i) as u8, rank)).collect()
    }
}
