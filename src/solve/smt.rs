//! The only file that names Z3.
//!
//! Current values enter as assumptions that an unsatisfiable core drops, those of new variables first. Products and
//! divisions of two terms are made linear by holding the right factor at its current value, so that every question
//! is one of quantifier-free linear integer arithmetic. The budget is Z3's own resource count, never a clock, and
//! each question gets a fresh context, so that answers do not depend on earlier questions.

use super::{Question, held_value};
use crate::limits::{SOLVER_RLIMIT, SOLVER_ROUNDS};
use crate::spec::Skip;
use crate::term::{BinaryOp, Expr, Law, Relation, Term, Var, Vars};
use std::collections::BTreeMap;
use z3::ast::{Bool, Int};
use z3::{Config, Params, SatResult, Solver, with_z3_config};

/// Finds values that answer the question, those from `first_new` on rather changed than older ones, and stores them in
/// `vars`.
pub fn solve(vars: &mut Vars, question: &Question, first_new: usize) -> Result<(), Skip> {
    let found = with_z3_config(&Config::new(), || Asked::new(vars, question).answer(vars, first_new))?;
    for (var, value) in found {
        vars.set(var, value);
    }
    Ok(())
}

struct Asked {
    solver: Solver,
    ints: BTreeMap<Var, Int>,
    /// For each variable a literal that holds it at its current value.
    kept: BTreeMap<Var, Bool>,
}

impl Asked {
    fn new(vars: &Vars, question: &Question) -> Asked {
        let solver = Solver::new_for_logic("QF_LIA").unwrap_or_default();
        let mut params = Params::new();
        params.set_u32("rlimit", SOLVER_RLIMIT);
        params.set_u32("random_seed", 0);
        solver.set_params(&params);
        let mut asked = Asked { solver, ints: BTreeMap::new(), kept: BTreeMap::new() };
        for (number, _) in question.reached.iter().enumerate().filter(|(_, reached)| **reached) {
            asked.declare(Var(number as u32), vars);
        }
        for law in &question.laws {
            let law = asked.law(law, vars);
            asked.solver.assert(&law);
        }
        asked
    }

    fn declare(&mut self, var: Var, vars: &Vars) {
        let int = Int::new_const(var.0);
        let (low, high) = vars.range(var);
        self.solver.assert(int.ge(low));
        self.solver.assert(int.le(high));
        let keep = Bool::new_const(format!("keep{}", var.0));
        self.solver.assert(keep.implies(int.eq(vars.value(var))));
        self.ints.insert(var, int);
        self.kept.insert(var, keep);
    }

    fn law(&mut self, law: &Law, vars: &Vars) -> Bool {
        let (left, right) = (self.term(law.left, vars), self.term(law.right, vars));
        match law.relation {
            Relation::Equal => left.eq(right),
            Relation::Differ => left.ne(right),
            Relation::AtMost => left.le(right),
        }
    }

    fn term(&mut self, term: Term, vars: &Vars) -> Int {
        let (op, a, b) = match term.expr() {
            Expr::Const(value) => return Int::from_i64(value),
            Expr::Var(var) => return self.ints[&var].clone(),
            Expr::Binary(op, a, b) => (op, a, b),
        };
        let left = self.term(a, vars);
        let right = match held_value(op, a, b, vars) {
            Some(value) => self.held(b, vars, value),
            None => self.term(b, vars),
        };
        match op {
            BinaryOp::Add => left + right,
            BinaryOp::Sub => left - right,
            BinaryOp::Mul => left * right,
            BinaryOp::Div => left / right,
            BinaryOp::Rem => left.modulo(right),
            BinaryOp::Min => left.lt(&right).ite(&left, &right),
            BinaryOp::Max => left.gt(&right).ite(&left, &right),
        }
    }

    /// A value of `term` as a numeral, with the requirement that the term has it.
    fn held(&mut self, term: Term, vars: &Vars, value: i64) -> Int {
        let held = Int::from_i64(value);
        if term.as_const() != Some(value) {
            let term = self.term(term, vars);
            self.solver.assert(term.eq(&held));
        }
        held
    }

    /// Asks with all current values kept, and drops those in each unsatisfiable core.
    fn answer(mut self, vars: &Vars, first_new: usize) -> Result<Vec<(Var, i64)>, Skip> {
        for round in 0..=SOLVER_ROUNDS {
            if round == SOLVER_ROUNDS {
                self.kept.clear();
            }
            let assumptions: Vec<Bool> = self.kept.values().cloned().collect();
            match self.solver.check_assumptions(&assumptions) {
                SatResult::Sat => return self.model(vars),
                SatResult::Unknown => return Err(Skip::SolverGaveUp),
                SatResult::Unsat if self.kept.is_empty() => return Err(Skip::Unsolvable),
                SatResult::Unsat => self.drop_core(first_new)?,
            }
        }
        Err(Skip::SolverGaveUp)
    }

    fn drop_core(&mut self, first_new: usize) -> Result<(), Skip> {
        let core = self.solver.get_unsat_core();
        let in_core: Vec<Var> = self.kept.iter().filter(|(_, keep)| core.contains(keep)).map(|(&var, _)| var).collect();
        if in_core.is_empty() {
            return Err(Skip::Unsolvable);
        }
        let new: Vec<Var> = in_core.iter().copied().filter(|var| var.0 as usize >= first_new).collect();
        for var in if new.is_empty() { in_core } else { new } {
            self.kept.remove(&var);
        }
        Ok(())
    }

    fn model(&self, vars: &Vars) -> Result<Vec<(Var, i64)>, Skip> {
        let model = self.solver.get_model().ok_or(Skip::SolverGaveUp)?;
        let value = |(&var, int): (&Var, &Int)| {
            let value = model.eval(int, true).and_then(|value| value.as_i64());
            (var, value.unwrap_or_else(|| vars.value(var)))
        };
        Ok(self.ints.iter().map(value).collect())
    }
}
