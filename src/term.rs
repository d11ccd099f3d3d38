//! Integer terms and laws over named variables: the language in which operators state their shapes.
//!
//! A [`Term`] is a `Copy` handle into a thread-local arena, so that operator specifications read like
//! arithmetic. [`reset`] starts a new arena at the start of each case; using an older handle panics.
//! Division and remainder are Euclidean, as in SMT-LIB, and undefined for a divisor that is not positive.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Add, Div, Mul, RangeInclusive, Rem, Sub};

/// An integer-valued expression.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Term {
    index: u32,
    generation: u32,
}

/// An integer variable of the current case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Var(pub u32);

/// The node of a term.
#[derive(Clone, Copy)]
pub enum Expr {
    Const(i64),
    Var(Var),
    Binary(BinaryOp, Term, Term),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    /// Quotient rounded so that the remainder is in `0..divisor`.
    Div,
    Rem,
    Min,
    Max,
}

#[derive(Default)]
struct Arena {
    exprs: Vec<Expr>,
    generation: u32,
}

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::default();
}

/// Forgets every term of this thread.
pub fn reset() {
    ARENA.with_borrow_mut(|arena| {
        arena.exprs.clear();
        arena.generation = arena.generation.wrapping_add(1);
    });
}

fn intern(expr: Expr) -> Term {
    ARENA.with_borrow_mut(|arena| {
        arena.exprs.push(expr);
        Term { index: arena.exprs.len() as u32 - 1, generation: arena.generation }
    })
}

impl BinaryOp {
    /// `None` on overflow and where the operation is undefined.
    pub fn apply(self, a: i64, b: i64) -> Option<i64> {
        match self {
            BinaryOp::Add => a.checked_add(b),
            BinaryOp::Sub => a.checked_sub(b),
            BinaryOp::Mul => a.checked_mul(b),
            BinaryOp::Div if b > 0 => Some(a.div_euclid(b)),
            BinaryOp::Rem if b > 0 => Some(a.rem_euclid(b)),
            BinaryOp::Div | BinaryOp::Rem => None,
            BinaryOp::Min => Some(a.min(b)),
            BinaryOp::Max => Some(a.max(b)),
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Rem => "%",
            BinaryOp::Min => "min",
            BinaryOp::Max => "max",
        }
    }
}

impl Term {
    pub fn constant(value: i64) -> Term {
        intern(Expr::Const(value))
    }

    pub fn var(var: Var) -> Term {
        intern(Expr::Var(var))
    }

    pub fn expr(self) -> Expr {
        ARENA.with_borrow(|arena| arena.expr(self))
    }

    pub fn as_const(self) -> Option<i64> {
        match self.expr() {
            Expr::Const(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_var(self) -> Option<Var> {
        match self.expr() {
            Expr::Var(var) => Some(var),
            _ => None,
        }
    }

    /// Whether both are the same variable or the same constant.
    pub fn is(self, other: Term) -> bool {
        match (self.expr(), other.expr()) {
            (Expr::Const(left), Expr::Const(right)) => left == right,
            (Expr::Var(left), Expr::Var(right)) => left == right,
            _ => self == other,
        }
    }

    /// Builds `op(a, b)`, folding constants and neutral operands.
    fn binary(op: BinaryOp, a: Term, b: Term) -> Term {
        use BinaryOp::{Add, Div, Mul, Rem, Sub};
        match (op, a.as_const(), b.as_const()) {
            (_, Some(x), Some(y)) if op.apply(x, y).is_some() => Term::constant(op.apply(x, y).expect("just checked")),
            (Add | Sub, _, Some(0)) | (Mul | Div, _, Some(1)) => a,
            (Add, Some(0), _) | (Mul, Some(1), _) => b,
            (Rem, _, Some(1)) => Term::constant(0),
            _ => intern(Expr::Binary(op, a, b)),
        }
    }

    pub fn min(self, other: impl Into<Term>) -> Term {
        Term::binary(BinaryOp::Min, self, other.into())
    }

    pub fn max(self, other: impl Into<Term>) -> Term {
        Term::binary(BinaryOp::Max, self, other.into())
    }

    /// The quotient rounded up.
    pub fn div_ceil(self, divisor: impl Into<Term>) -> Term {
        let divisor = divisor.into();
        (self + divisor - 1) / divisor
    }

    pub fn equals(self, other: impl Into<Term>) -> Law {
        Law { relation: Relation::Equal, left: self, right: other.into() }
    }

    pub fn differs(self, other: impl Into<Term>) -> Law {
        Law { relation: Relation::Differ, left: self, right: other.into() }
    }

    pub fn at_least(self, other: impl Into<Term>) -> Law {
        Law { relation: Relation::AtMost, left: other.into(), right: self }
    }

    pub fn at_most(self, other: impl Into<Term>) -> Law {
        Law { relation: Relation::AtMost, left: self, right: other.into() }
    }

    pub fn divisible_by(self, divisor: impl Into<Term>) -> Law {
        (self % divisor.into()).equals(0)
    }

    /// The value under an assignment; `None` when undefined, or when it leaves the range of i64.
    pub fn eval(self, vars: &Vars) -> Option<i64> {
        ARENA.with_borrow(|arena| arena.eval(self, vars))
    }

    /// Whether `var` occurs.
    pub fn mentions(self, var: Var) -> bool {
        let mut found = false;
        self.for_each_var(&mut |other| found |= other == var);
        found
    }

    /// Calls `visit` for every occurrence of a variable. It must not make terms.
    pub fn for_each_var(self, visit: &mut impl FnMut(Var)) {
        ARENA.with_borrow(|arena| arena.for_each_var(self, visit));
    }
}

// What walks a term looks the arena up once.
impl Arena {
    fn expr(&self, term: Term) -> Expr {
        assert_eq!(term.generation, self.generation, "a term outlived its case");
        self.exprs[term.index as usize]
    }

    fn eval(&self, term: Term, vars: &Vars) -> Option<i64> {
        match self.expr(term) {
            Expr::Const(value) => Some(value),
            Expr::Var(var) => Some(vars.value(var)),
            Expr::Binary(op, a, b) => op.apply(self.eval(a, vars)?, self.eval(b, vars)?),
        }
    }

    fn for_each_var(&self, term: Term, visit: &mut impl FnMut(Var)) {
        match self.expr(term) {
            Expr::Const(_) => {}
            Expr::Var(var) => visit(var),
            Expr::Binary(_, a, b) => {
                self.for_each_var(a, visit);
                self.for_each_var(b, visit);
            }
        }
    }
}

/// The product of all terms; 1 for none.
pub fn product(terms: &[Term]) -> Term {
    terms.iter().fold(Term::constant(1), |all, &term| all * term)
}

impl From<i64> for Term {
    fn from(value: i64) -> Term {
        Term::constant(value)
    }
}

macro_rules! operator {
    ($($trait:ident::$method:ident => $op:ident),*) => {$(
        impl<T: Into<Term>> $trait<T> for Term {
            type Output = Term;
            fn $method(self, other: T) -> Term {
                Term::binary(BinaryOp::$op, self, other.into())
            }
        }
    )*};
}
operator!(Add::add => Add, Sub::sub => Sub, Mul::mul => Mul, Div::div => Div, Rem::rem => Rem);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.expr() {
            Expr::Const(value) => write!(f, "{value}"),
            Expr::Var(var) => write!(f, "v{}", var.0),
            Expr::Binary(op @ (BinaryOp::Min | BinaryOp::Max), a, b) => write!(f, "{}({a}, {b})", op.symbol()),
            Expr::Binary(op, a, b) => write!(f, "({a} {} {b})", op.symbol()),
        }
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    Equal,
    Differ,
    AtMost,
}

/// A condition that an assignment must fulfil.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    pub relation: Relation,
    pub left: Term,
    pub right: Term,
}

impl Law {
    /// Whether the law holds; a law with an undefined side does not.
    pub fn holds(&self, vars: &Vars) -> bool {
        match (self.left.eval(vars), self.right.eval(vars)) {
            (Some(left), Some(right)) => match self.relation {
                Relation::Equal => left == right,
                Relation::Differ => left != right,
                Relation::AtMost => left <= right,
            },
            _ => false,
        }
    }

    /// Whether the law says anything about variables.
    pub fn has_vars(&self) -> bool {
        let mut any = false;
        self.for_each_var(&mut |_| any = true);
        any
    }

    /// Whether the law holds whatever the variables are, seen at a glance.
    pub fn is_trivial(&self) -> bool {
        self.relation != Relation::Differ && self.left.as_var().is_some() && self.left.is(self.right)
    }

    pub fn for_each_var(&self, visit: &mut impl FnMut(Var)) {
        self.left.for_each_var(visit);
        self.right.for_each_var(visit);
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let symbol = match self.relation {
            Relation::Equal => "==",
            Relation::Differ => "!=",
            Relation::AtMost => "<=",
        };
        write!(f, "{} {symbol} {}", self.left, self.right)
    }
}

/// The variables of a case, with their ranges and the current assignment.
#[derive(Clone, Default, Debug)]
pub struct Vars {
    values: Vec<i64>,
    ranges: Vec<(i64, i64)>,
}

impl Vars {
    /// A new variable within `range` whose value is for now `hint`, moved into the range.
    pub fn fresh(&mut self, range: RangeInclusive<i64>, hint: i64) -> Var {
        let (low, high) = range.into_inner();
        self.values.push(hint.clamp(low, high));
        self.ranges.push((low, high));
        Var(self.values.len() as u32 - 1)
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Forgets every variable but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.ranges.truncate(len);
    }

    pub fn value(&self, var: Var) -> i64 {
        self.values[var.0 as usize]
    }

    pub fn set(&mut self, var: Var, value: i64) {
        self.values[var.0 as usize] = value;
    }

    /// The inclusive range of a variable.
    pub fn range(&self, var: Var) -> (i64, i64) {
        self.ranges[var.0 as usize]
    }

    /// The inclusive ranges of all variables.
    pub fn ranges(&self) -> &[(i64, i64)] {
        &self.ranges
    }

    pub fn in_range(&self, var: Var, value: i64) -> bool {
        let (low, high) = self.range(var);
        (low..=high).contains(&value)
    }

    /// The assignment, to be given back to [`Vars::restore`].
    pub fn snapshot(&self) -> Vec<i64> {
        self.values.clone()
    }

    /// Returns to an earlier assignment and forgets the variables made since.
    pub fn restore(&mut self, snapshot: Vec<i64>) {
        self.ranges.truncate(snapshot.len());
        self.values = snapshot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_fold_and_print() {
        reset();
        let mut vars = Vars::default();
        let n = Term::var(vars.fresh(0..=10, 7));
        assert_eq!((n + 0).to_string(), "v0");
        assert_eq!(((n * 2 + 1) / 3).to_string(), "(((v0 * 2) + 1) / 3)");
        assert_eq!(((n * 2 + 1) / 3).eval(&vars), Some(5));
        assert_eq!((Term::constant(2) * 3).as_const(), Some(6));
        assert_eq!((n - 8).eval(&vars), Some(-1));
        assert_eq!(((n - 8) / 2).eval(&vars), Some(-1), "rounds down");
        assert_eq!((n / (n - 7)).eval(&vars), None);
        assert!(n.divisible_by(7).holds(&vars) && !n.divisible_by(2).holds(&vars));
        assert!(!(n / 0).equals(n / 0).holds(&vars), "an undefined law does not hold");
    }

    #[test]
    #[should_panic(expected = "outlived")]
    fn a_stale_term_is_noticed() {
        let old = Term::constant(1);
        reset();
        old.expr();
    }
}
