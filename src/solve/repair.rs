//! Repairs an assignment that breaks a few laws, moving few variables: what makes most questions to Z3 needless.
//!
//! A broken law names the values of one of its variables that would mend it. Such a variable is moved, the laws that it
//! breaks in turn are mended in the same way, and where that leads nowhere the next variable is tried. No variable moves
//! twice on one path, and the budget counts moves, so that the same laws are always repaired alike.

use crate::limits::REPAIR_MOVES;
use crate::term::{BinaryOp, Expr, Law, Relation, Term, Var, Vars};

/// How far from its value a variable is tried where a law cannot be solved for it.
const REACH: i64 = 8;
/// Values that are tried for one variable in one law.
const VALUES: usize = 3;

/// Makes the laws from the number `first_broken` on hold as well as those before, which hold, by moving variables from
/// `first_new` on rather than older ones. `uses` are for each variable the numbers of the laws that name it. On failure
/// the assignment is as it was.
pub fn repair(vars: &mut Vars, laws: &[Law], uses: &[Vec<u32>], first_broken: usize, first_new: usize) -> bool {
    let moved = vec![false; vars.len()];
    let mut repair = Repair { vars, laws, uses, first_new, moved, budget: REPAIR_MOVES };
    repair.mend((first_broken..laws.len()).map(|law| law as u32).collect())
}

struct Repair<'a> {
    vars: &'a mut Vars,
    laws: &'a [Law],
    uses: &'a [Vec<u32>],
    first_new: usize,
    /// By variable: it was moved on this path.
    moved: Vec<bool>,
    /// Moves that are left.
    budget: u32,
}

impl Repair<'_> {
    /// Mends the laws with these numbers; all others hold.
    fn mend(&mut self, mut broken: Vec<u32>) -> bool {
        broken.retain(|&law| !self.laws[law as usize].holds(self.vars));
        let Some(&first) = broken.first() else { return true };
        for (var, value) in self.moves(&self.laws[first as usize]) {
            if self.budget == 0 {
                return false;
            }
            self.budget -= 1;
            let before = self.vars.value(var);
            self.vars.set(var, value);
            self.moved[var.0 as usize] = true;
            let mut next = broken.clone();
            let touched = self.uses[var.0 as usize].iter().filter(|law| !broken.contains(law));
            next.extend(touched.filter(|&&law| !self.laws[law as usize].holds(self.vars)));
            if self.mend(next) {
                return true;
            }
            self.moved[var.0 as usize] = false;
            self.vars.set(var, before);
        }
        false
    }

    /// What may mend `law`, best first: the name of a term takes its value, then new variables move, then the oldest,
    /// which are sizes of leaves rather than attributes or results.
    fn moves(&mut self, law: &Law) -> Vec<(Var, i64)> {
        let mut vars = Vec::new();
        law.for_each_var(&mut |var| vars.push(var));
        vars.sort_unstable();
        vars.dedup();
        vars.retain(|var| !self.moved[var.0 as usize]);
        let named = |var: &Var| {
            law.relation == Relation::Equal && [law.left, law.right].iter().any(|side| side.as_var() == Some(*var))
        };
        let first_new = self.first_new;
        vars.sort_by_key(|var| {
            let index = i64::from(var.0);
            let class = if named(var) { 0 } else { 1 + u8::from((index as usize) < first_new) };
            (class, if class == 0 { -index } else { index })
        });
        let mut moves = Vec::new();
        for var in vars {
            let values = mending(law, var, self.vars);
            moves.extend(values.into_iter().map(|value| (var, value)));
        }
        moves
    }
}

/// Values of `var` that fulfil `law` while all others stay, the nearest first.
fn mending(law: &Law, var: Var, vars: &mut Vars) -> Vec<i64> {
    let within = |term: Term| term.mentions(var);
    let mut values = Vec::new();
    match (within(law.left), within(law.right)) {
        (true, false) => {
            let Some(right) = law.right.eval(vars) else { return values };
            match law.relation {
                Relation::Equal => solve(law.left, var, (right, right), vars, &mut values),
                Relation::AtMost => solve(law.left, var, (i64::MIN, right), vars, &mut values),
                Relation::Differ => {}
            }
        }
        (false, true) => {
            let Some(left) = law.left.eval(vars) else { return values };
            match law.relation {
                Relation::Equal => solve(law.right, var, (left, left), vars, &mut values),
                Relation::AtMost => solve(law.right, var, (left, i64::MAX), vars, &mut values),
                Relation::Differ => {}
            }
        }
        _ => {}
    }
    if values.is_empty() {
        values = tried(law, var, vars);
    }
    values.truncate(VALUES);
    values
}

/// Values of `var` for which `term` lies in the closed interval. Finds none where the variable occurs twice, or below a
/// divisor.
fn solve(term: Term, var: Var, (low, high): (i64, i64), vars: &Vars, values: &mut Vec<i64>) {
    if low > high {
        return;
    }
    let (op, a, b) = match term.expr() {
        Expr::Const(_) => return,
        Expr::Var(_) => {
            let (least, most) = vars.range(var);
            let (low, high) = (low.max(least), high.min(most));
            if low <= high {
                values.push(vars.value(var).clamp(low, high));
            }
            return;
        }
        Expr::Binary(op, a, b) => (op, a, b),
    };
    let (left, right) = (a.mentions(var), b.mentions(var));
    if left && right {
        return;
    }
    let (inner, other) = if left { (a, b) } else { (b, a) };
    let Some(other) = other.eval(vars) else { return };
    let shifted = |by: i64| (low.saturating_add(by), high.saturating_add(by));
    let wanted = match op {
        BinaryOp::Add => shifted(-other),
        BinaryOp::Sub if left => shifted(other),
        BinaryOp::Sub => (other.saturating_sub(high), other.saturating_sub(low)),
        BinaryOp::Mul if other > 0 => {
            (low.div_euclid(other) + i64::from(low.rem_euclid(other) > 0), high.div_euclid(other))
        }
        BinaryOp::Div if left && other > 0 => {
            (low.saturating_mul(other), high.saturating_mul(other).saturating_add(other - 1))
        }
        BinaryOp::Rem if left && other > 0 => {
            let (low, high) = (low.max(0), high.min(other - 1));
            let Some(now) = inner.eval(vars) else { return };
            let multiple = now - now.rem_euclid(other);
            for multiple in [multiple, multiple + other, multiple - other] {
                solve(inner, var, (multiple + low, multiple + high), vars, values);
            }
            return;
        }
        BinaryOp::Min if other < low => return,
        BinaryOp::Min => (low, if other <= high { i64::MAX } else { high }),
        BinaryOp::Max if other > high => return,
        BinaryOp::Max => (if other >= low { i64::MIN } else { low }, high),
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem => return,
    };
    solve(inner, var, wanted, vars, values);
}

/// Values of `var` near its own, then ever smaller ones, that fulfil `law`.
fn tried(law: &Law, var: Var, vars: &mut Vars) -> Vec<i64> {
    let before = vars.value(var);
    let near = (1..=REACH).flat_map(|distance| [before - distance, before + distance]);
    let smaller = (1..8).map(|halvings| before >> halvings);
    let mut values = Vec::new();
    for value in near.chain(smaller) {
        if values.len() < VALUES && vars.in_range(var, value) && !values.contains(&value) {
            vars.set(var, value);
            if law.holds(vars) {
                values.push(value);
            }
        }
    }
    vars.set(var, before);
    values
}
