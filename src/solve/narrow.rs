//! Narrows the ranges of variables to what laws leave of them: hull consistency (Benhamou, Goualard, Granvilliers and Puget,
//! "Revising hull and box consistency", ICLP 1999), and where that leaves a choice, tries a value and narrows again:
//! branch and prune (Van Hentenryck, McAllester and Kapur, "Solving polynomial systems using a branch and prune
//! approach", 1997). It answers most questions that a repair leaves, each of which would cost Z3 a context.

use super::{Question, held_value};
use crate::limits::NARROWING_STEPS;
use crate::term::{BinaryOp, Expr, Law, Relation, Term, Var, Vars};

/// All integers from the first to the second.
type Interval = (i64, i64);

const ANY: Interval = (i64::MIN, i64::MAX);

/// No values are left.
struct Nothing;

/// What narrowing says of laws where the factors that Z3 would be asked with keep their values.
#[derive(Debug)]
pub enum Answer {
    /// Values of all variables, those in question first at their present values, the older ones rather than the newer.
    Values(Vec<i64>),
    /// Some variable is left without any value.
    Hopeless,
    /// The budget was used up.
    Open,
}

struct Narrowing<'a> {
    vars: &'a Vars,
    question: &'a Question,
    /// What is left of each variable's range.
    ranges: Vec<Interval>,
    changed: bool,
    /// Laws and variables that may still be looked at.
    budget: usize,
}

/// Looks for values that answer the question.
pub fn solve(vars: &Vars, question: &Question) -> Answer {
    let ranges = vars.ranges().to_vec();
    let mut narrowing = Narrowing { vars, question, ranges, changed: true, budget: NARROWING_STEPS };
    match narrowing.settle().and_then(|()| narrowing.branch(0)) {
        Ok(()) => {
            let value = |(number, &(low, _)): (usize, &Interval)| match question.reached[number] {
                true => low,
                false => vars.value(Var(number as u32)),
            };
            Answer::Values(narrowing.ranges.iter().enumerate().map(value).collect())
        }
        Err(Nothing) if narrowing.budget == 0 => Answer::Open,
        Err(Nothing) => Answer::Hopeless,
    }
}

impl Narrowing<'_> {
    /// Leaves the variables from `first` on a single value each.
    fn branch(&mut self, first: usize) -> Result<(), Nothing> {
        let open = |number: &usize| self.question.reached[*number] && self.ranges[*number].0 < self.ranges[*number].1;
        let Some(number) = (first..self.ranges.len()).find(open) else { return Ok(()) };
        let before = self.ranges.clone();
        let (low, high) = before[number];
        let value = self.vars.value(Var(number as u32)).clamp(low, high);
        // Above first: the least sizes are found at last, as they do not tell much.
        for part in [(value, value), (value + 1, high), (low, value - 1)] {
            if part.0 > part.1 || self.budget == 0 {
                continue;
            }
            self.ranges.clone_from(&before);
            self.ranges[number] = part;
            self.changed = true;
            if self.settle().and_then(|()| self.branch(number)).is_ok() {
                return Ok(());
            }
        }
        Err(Nothing)
    }

    /// Narrows until nothing changes, or gives up.
    fn settle(&mut self) -> Result<(), Nothing> {
        while std::mem::take(&mut self.changed) {
            self.budget = self.budget.saturating_sub(self.question.laws.len() + self.ranges.len());
            if self.budget == 0 {
                return Err(Nothing);
            }
            for law in &self.question.laws {
                self.fulfil(law)?;
            }
        }
        Ok(())
    }

    fn fulfil(&mut self, law: &Law) -> Result<(), Nothing> {
        self.hold_factors(law.left)?;
        self.hold_factors(law.right)?;
        let (left, right) = (self.reach(law.left), self.reach(law.right));
        match law.relation {
            Relation::Equal => {
                self.narrow(law.left, right)?;
                self.narrow(law.right, left)
            }
            Relation::AtMost => {
                self.narrow(law.left, (i64::MIN, right.1))?;
                self.narrow(law.right, (left.0, i64::MAX))
            }
            Relation::Differ => match left == right && left.0 == left.1 {
                true => Err(Nothing),
                false => Ok(()),
            },
        }
    }

    /// Requires of every factor that is held that it has its value.
    fn hold_factors(&mut self, term: Term) -> Result<(), Nothing> {
        let Expr::Binary(op, a, b) = term.expr() else { return Ok(()) };
        self.hold_factors(a)?;
        self.hold_factors(b)?;
        match self.factor(op, a, b) {
            Some(held) => self.narrow(b, (held, held)),
            None => Ok(()),
        }
    }

    /// The value at which the right operand is held, if it is.
    fn factor(&self, op: BinaryOp, a: Term, b: Term) -> Option<i64> {
        held_value(op, a, b, self.vars)
    }

    /// An interval that holds every value of a term.
    fn reach(&self, term: Term) -> Interval {
        let (op, a, b) = match term.expr() {
            Expr::Const(value) => return (value, value),
            Expr::Var(var) => return self.ranges[var.0 as usize],
            Expr::Binary(op, a, b) => (op, a, b),
        };
        let (left, right) = (self.reach(a), self.reach(b));
        match (op, self.factor(op, a, b)) {
            (BinaryOp::Div, Some(by)) => (left.0.div_euclid(by), left.1.div_euclid(by)),
            (BinaryOp::Rem, Some(by)) if left.0.div_euclid(by) == left.1.div_euclid(by) => {
                (left.0.rem_euclid(by), left.1.rem_euclid(by))
            }
            (BinaryOp::Rem, Some(by)) => (0, by - 1),
            (BinaryOp::Mul, Some(by)) => multiple(left, by),
            // Otherwise the left one is a constant.
            (BinaryOp::Mul, None) => multiple(right, left.0),
            (BinaryOp::Add, _) => (left.0.saturating_add(right.0), left.1.saturating_add(right.1)),
            (BinaryOp::Sub, _) => (left.0.saturating_sub(right.1), left.1.saturating_sub(right.0)),
            (BinaryOp::Min, _) => (left.0.min(right.0), left.1.min(right.1)),
            (BinaryOp::Max, _) => (left.0.max(right.0), left.1.max(right.1)),
            (BinaryOp::Div | BinaryOp::Rem, None) => ANY,
        }
    }

    /// Keeps of the variables of a term what may give it a value in an interval.
    fn narrow(&mut self, term: Term, within: Interval) -> Result<(), Nothing> {
        let reach = self.reach(term);
        let within = both(reach, within)?;
        let (op, a, b) = match term.expr() {
            Expr::Const(_) => return Ok(()),
            Expr::Var(var) => {
                self.changed |= within != reach;
                self.ranges[var.0 as usize] = within;
                return Ok(());
            }
            Expr::Binary(op, a, b) => (op, a, b),
        };
        if within == reach && op != BinaryOp::Rem {
            return Ok(());
        }
        let (low, high) = within;
        let (left, right) = (self.reach(a), self.reach(b));
        match (op, self.factor(op, a, b)) {
            (BinaryOp::Div, Some(by)) => {
                self.narrow(a, (low.saturating_mul(by), high.saturating_mul(by).saturating_add(by - 1)))
            }
            (BinaryOp::Rem, Some(by)) if low == high => {
                let (least, most) = left;
                let up = (i128::from(low) - i128::from(least)).rem_euclid(by.into()) as i64;
                let down = (i128::from(most) - i128::from(low)).rem_euclid(by.into()) as i64;
                self.narrow(a, (least.saturating_add(up), most.saturating_sub(down)))
            }
            (BinaryOp::Mul, Some(by)) => self.narrow(a, quotient(within, by)?),
            (BinaryOp::Mul, None) => self.narrow(b, quotient(within, left.0)?),
            (BinaryOp::Add, _) => {
                self.narrow(a, (low.saturating_sub(right.1), high.saturating_sub(right.0)))?;
                self.narrow(b, (low.saturating_sub(left.1), high.saturating_sub(left.0)))
            }
            (BinaryOp::Sub, _) => {
                self.narrow(a, (low.saturating_add(right.0), high.saturating_add(right.1)))?;
                self.narrow(b, (left.0.saturating_sub(high), left.1.saturating_sub(low)))
            }
            (BinaryOp::Min, _) => {
                // The operand that must be the least, where the other cannot.
                self.narrow(a, (low, if right.0 > high { high } else { i64::MAX }))?;
                self.narrow(b, (low, if left.0 > high { high } else { i64::MAX }))
            }
            (BinaryOp::Max, _) => {
                self.narrow(a, (if right.1 < low { low } else { i64::MIN }, high))?;
                self.narrow(b, (if left.1 < low { low } else { i64::MIN }, high))
            }
            (BinaryOp::Div | BinaryOp::Rem, _) => Ok(()),
        }
    }
}

fn both(a: Interval, b: Interval) -> Result<Interval, Nothing> {
    let (low, high) = (a.0.max(b.0), a.1.min(b.1));
    if low <= high { Ok((low, high)) } else { Err(Nothing) }
}

fn multiple((low, high): Interval, by: i64) -> Interval {
    let (a, b) = (low.saturating_mul(by), high.saturating_mul(by));
    (a.min(b), a.max(b))
}

/// What may be multiplied by `by` to be within an interval.
fn quotient((low, high): Interval, by: i64) -> Result<Interval, Nothing> {
    let up = |a: i64, by: i64| a.div_euclid(by) + i64::from(a.rem_euclid(by) > 0);
    match by {
        0 if low <= 0 && 0 <= high => Ok(ANY),
        0 => Err(Nothing),
        1.. => Ok((up(low, by), high.div_euclid(by))),
        // Both ends change their signs with the factor.
        _ => Ok((up(high.saturating_neg(), -by), low.saturating_neg().div_euclid(-by))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::term;

    #[test]
    fn what_laws_leave() {
        term::reset();
        let mut vars = Vars::default();
        let mut variable = |range, hint| Term::var(vars.fresh(range, hint));
        let (size, start, group) = (variable(1..=256, 9), variable(0..=8, 0), variable(1..=4, 4));
        let solve = |laws: &[Law]| solve(&vars, &Question { laws: laws.to_vec(), reached: vec![true; 3] });
        let hopeless = |laws: &[Law]| matches!(solve(laws), Answer::Hopeless);
        assert!(hopeless(&[size.at_least(300)]));
        assert!(hopeless(&[(size - start).at_most(0), size.at_least(9)]));
        assert!(!hopeless(&[(size - start).at_most(0), size.at_least(8)]));
        // The group is held at 4.
        assert!(hopeless(&[size.divisible_by(group), size.at_least(5), size.at_most(7)]));
        assert!(!hopeless(&[size.divisible_by(group), size.at_least(5), size.at_most(8)]));
        assert!(hopeless(&[(size * 3).equals(start + 25), start.at_most(1)]));
        assert!(!hopeless(&[(size * 3).equals(start + 25), start.at_most(2)]));
        assert!(hopeless(&[(size / 2).equals(4), size.differs(9), size.at_least(9)]));
        assert!(hopeless(&[size.min(start).equals(3), start.at_least(5), size.at_most(2)]));
        assert!(hopeless(&[size.max(start).equals(3), start.at_most(2), size.at_least(4)]));
    }

    #[test]
    fn values_are_tried_near_the_present_ones() {
        term::reset();
        let mut vars = Vars::default();
        let mut variable = |range, hint| Term::var(vars.fresh(range, hint));
        let (older, newer, _alone) = (variable(1..=256, 9), variable(1..=256, 9), variable(1..=256, 7));
        let solve = |laws: &[Law]| solve(&vars, &Question { laws: laws.to_vec(), reached: vec![true, true, false] });
        let found = |laws: &[Law]| match solve(laws) {
            Answer::Values(values) => values,
            other => panic!("{laws:?}: {other:?}"),
        };
        assert_eq!(found(&[(older + newer).equals(20)]), [9, 11, 7], "the older one stays");
        assert_eq!(found(&[(older + newer).equals(300)]), [44, 256, 7], "it goes no further than it must");
        assert_eq!(found(&[older.differs(9)]), [10, 9, 7]);
        assert_eq!(found(&[older.differs(9), older.at_most(9)]), [8, 9, 7]);
        assert_eq!(found(&[(older + newer).equals(20), older.differs(9)]), [10, 10, 7], "what failed is taken back");
        assert_eq!(found(&[older.differs(newer), newer.at_most(older)]), [9, 8, 7]);
        assert!(matches!(solve(&[older.differs(newer), older.equals(newer)]), Answer::Hopeless | Answer::Open));
        let long: Vec<Law> = (0..NARROWING_STEPS).map(|_| older.at_least(2)).collect();
        assert!(matches!(solve(&long), Answer::Open), "no more steps than the limit says");
    }
}
