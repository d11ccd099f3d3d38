//! Makes shapes concrete: hints first, then propagation, then a repair of what is broken, then narrowing, then Z3.
//!
//! The current assignment of [`Vars`] always fulfils every law admitted so far. A record's new laws are admitted
//! when the hints of its new variables fulfil them, when equalities carry values over to new variables, when a few moves
//! of variables mend what is broken (see [`repair`]), or when there is another assignment for the variables that the
//! failing laws reach. Narrowing their ranges finds it or shows that there is none (see [`narrow`]); Z3 is asked where
//! that takes too long. Whatever the way, every law is then evaluated in Rust again: two interpreters of one text.

use self::narrow::Answer;
use crate::spec::Skip;
use crate::term::{BinaryOp, Law, Relation, Term, Vars};

mod narrow;
#[cfg(test)]
mod random_laws;
mod repair;
mod smt;

/// The admitted laws of a case.
#[derive(Default, Debug)]
pub struct Laws {
    laws: Vec<Law>,
    /// For each variable the numbers of the laws that name it, ascending.
    uses: Vec<Vec<u32>>,
    pub tally: Tally,
}

/// What the laws of a case's records needed. Records that were given up later, as too large, are counted too.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// The hints, or what equalities make of them, sufficed.
    pub by_hints: usize,
    /// A few variables were moved.
    pub by_repair: usize,
    /// Narrowing of ranges left an assignment.
    pub by_narrowing: usize,
    /// Narrowing showed that no assignment is left.
    pub hopeless: usize,
    /// Z3 found an assignment.
    pub by_solver: usize,
    /// Z3 found that there is none, or nothing.
    pub refused_by_solver: usize,
}

impl Laws {
    pub fn iter(&self) -> impl Iterator<Item = &Law> {
        self.laws.iter()
    }

    pub fn len(&self) -> usize {
        self.laws.len()
    }

    pub fn is_empty(&self) -> bool {
        self.laws.is_empty()
    }

    /// Forgets every law but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.laws.truncate(len);
        for uses in &mut self.uses {
            uses.truncate(uses.partition_point(|&law| (law as usize) < len));
        }
    }

    /// Makes `new` hold together with all admitted laws by changing `vars`, those from `first_new` on rather than
    /// older ones. On an error the caller must restore `vars`.
    pub fn admit(&mut self, vars: &mut Vars, mut new: Vec<Law>, first_new: usize) -> Result<(), Skip> {
        if new.iter().any(|law| !law.has_vars() && !law.holds(vars)) {
            return Err(Skip::Unsolvable);
        }
        new.retain(|law| law.has_vars() && !law.is_trivial());
        propagate(vars, &new, first_new);
        if new.iter().all(|law| law.holds(vars)) {
            self.tally.by_hints += 1;
        } else if self.repair(vars, &new, first_new) {
            self.tally.by_repair += 1;
        } else {
            self.search(vars, &new, first_new)?;
        }
        self.append(&new, vars.len());
        Ok(())
    }

    /// Makes `more` hold as well as all admitted laws, without admitting it, by moving a few variables. On failure `vars`
    /// is as it was.
    pub fn repair(&mut self, vars: &mut Vars, more: &[Law], first_new: usize) -> bool {
        let admitted = self.laws.len();
        self.append(more, vars.len());
        let mended = repair::repair(vars, &self.laws, &self.uses, admitted, first_new);
        self.truncate(admitted);
        mended
    }

    /// Looks for an assignment that fulfils `new` and all admitted laws by narrowing, then by Z3.
    fn search(&mut self, vars: &mut Vars, new: &[Law], first_new: usize) -> Result<(), Skip> {
        let question = self.question(vars, new);
        match narrow::solve(vars, &question) {
            Answer::Values(values) => {
                self.tally.by_narrowing += 1;
                vars.restore(values);
                question.expect_held(vars);
                Ok(())
            }
            Answer::Hopeless => {
                self.tally.hopeless += 1;
                Err(Skip::Unsolvable)
            }
            Answer::Open => self.ask(vars, &question, first_new),
        }
    }

    /// Asks Z3.
    fn ask(&mut self, vars: &mut Vars, question: &Question, first_new: usize) -> Result<(), Skip> {
        let answer = smt::solve(vars, question, first_new);
        self.tally.by_solver += usize::from(answer.is_ok());
        self.tally.refused_by_solver += usize::from(answer.is_err());
        answer?;
        question.expect_held(vars);
        Ok(())
    }

    /// What `new` and the admitted laws that are coupled with it ask.
    fn question(&self, vars: &Vars, new: &[Law]) -> Question {
        let reached = self.reached(vars, new);
        let laws = self.laws.iter().chain(new).filter(|law| touches(law, &reached)).copied().collect();
        Question { laws, reached }
    }

    fn append(&mut self, new: &[Law], vars: usize) {
        self.uses.resize(vars, Vec::new());
        for law in new {
            let number = self.laws.len() as u32;
            law.for_each_var(&mut |var| {
                let uses = &mut self.uses[var.0 as usize];
                if uses.last() != Some(&number) {
                    uses.push(number);
                }
            });
            self.laws.push(*law);
        }
    }

    /// Which variables are connected with the variables of `new` through laws.
    fn reached(&self, vars: &Vars, new: &[Law]) -> Vec<bool> {
        let mut reached = vec![false; vars.len()];
        let mark = |law: &Law, reached: &mut Vec<bool>| {
            law.for_each_var(&mut |var| reached[var.0 as usize] = true);
        };
        new.iter().for_each(|law| mark(law, &mut reached));
        let mut waiting: Vec<&Law> = self.laws.iter().collect();
        loop {
            let before = waiting.len();
            waiting.retain(|law| {
                let touched = touches(law, &reached);
                if touched {
                    mark(law, &mut reached);
                }
                !touched
            });
            if waiting.len() == before {
                return reached;
            }
        }
    }
}

/// Laws to be fulfilled together.
struct Question {
    laws: Vec<Law>,
    /// By variable: some law names it.
    reached: Vec<bool>,
}

impl Question {
    fn expect_held(&self, vars: &Vars) {
        for law in &self.laws {
            assert!(law.holds(vars), "the assignment that was found breaks the law {law}");
        }
    }
}

/// The value at which a question to Z3 holds the right operand: that of a product of two terms, which makes it linear, and of
/// a division. What is undefined now cannot be held; 1 is in the range of most factors and divisors.
fn held_value(op: BinaryOp, a: Term, b: Term, vars: &Vars) -> Option<i64> {
    let least = match op {
        BinaryOp::Mul if a.as_const().is_none() => i64::MIN,
        BinaryOp::Div | BinaryOp::Rem => 1,
        _ => return None,
    };
    Some(b.eval(vars).unwrap_or(1).max(least))
}

fn touches(law: &Law, reached: &[bool]) -> bool {
    let mut touched = false;
    law.for_each_var(&mut |var| touched |= reached[var.0 as usize]);
    touched
}

/// Carries values over equalities between a new variable and anything else, in the order of declaration.
fn propagate(vars: &mut Vars, laws: &[Law], first_new: usize) {
    let assign = |vars: &mut Vars, target: Term, source: Term| -> bool {
        let Some(var) = target.as_var().filter(|var| var.0 as usize >= first_new) else { return false };
        match source.eval(vars) {
            Some(value) if vars.in_range(var, value) => {
                vars.set(var, value);
                true
            }
            _ => false,
        }
    };
    // A value may travel through several equalities; two rounds cover what specifications write.
    for _ in 0..2 {
        for law in laws.iter().filter(|law| law.relation == Relation::Equal) {
            if !law.holds(vars) && !assign(vars, law.left, law.right) {
                assign(vars, law.right, law.left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::term;

    #[test]
    fn hints_are_kept_where_they_can_be() {
        term::reset();
        let mut vars = Vars::default();
        let mut laws = Laws::default();
        let size = Term::var(vars.fresh(1..=256, 30));
        let other = Term::var(vars.fresh(1..=256, 31));
        laws.admit(&mut vars, vec![size.at_least(3)], 0).unwrap();
        let first_new = vars.len();
        let group = Term::var(vars.fresh(1..=4, 4));
        // 30 is not divisible by 4: the new variable moves, what is older stays.
        laws.admit(&mut vars, vec![size.divisible_by(group), group.at_least(2)], first_new).unwrap();
        assert_eq!((group.eval(&vars), size.eval(&vars), other.eval(&vars)), (Some(3), Some(30), Some(31)));
        // Now the older ones must move, and everything still holds.
        let first_new = vars.len();
        laws.admit(&mut vars, vec![size.equals(other)], first_new).unwrap();
        assert_eq!(size.eval(&vars), other.eval(&vars));
        assert!(laws.iter().all(|law| law.holds(&vars)));
        assert_eq!(laws.tally, Tally { by_hints: 1, by_repair: 2, ..Tally::default() });
        let snapshot = vars.snapshot();
        assert_eq!(laws.admit(&mut vars, vec![size.at_least(300)], snapshot.len()), Err(Skip::Unsolvable));
        assert_eq!(laws.tally.hopeless, 1);
        vars.restore(snapshot);
        assert!(laws.iter().all(|law| law.holds(&vars)));
    }
}
