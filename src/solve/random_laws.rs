//! Terms mean the same to Rust, to narrowing and to Z3, shown on random laws over ranges small enough to try every assignment.

use super::{Laws, Tally};
use crate::input::Stream;
use crate::spec::Skip;
use crate::term::{self, BinaryOp, Expr, Law, Term, Vars};

const QUESTIONS: u64 = 2000;
/// Every variable is in a range of at most this many values.
const VALUES: u64 = 5;

struct Random(Stream);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    fn term(&mut self, vars: &Vars, depth: u32) -> Term {
        if depth == 0 || self.below(4) == 0 {
            return match self.below(3) {
                0 => Term::constant(self.below(9) as i64 - 3),
                _ => Term::var(term::Var(self.below(vars.len() as u64) as u32)),
            };
        }
        let (a, b) = (self.term(vars, depth - 1), self.term(vars, depth - 1));
        match self.below(7) {
            0 => a + b,
            1 => a - b,
            2 => a * b,
            3 => a / b,
            4 => a % b,
            5 => a.min(b),
            _ => a.max(b),
        }
    }

    fn law(&mut self, vars: &Vars) -> Law {
        let (a, b) = (self.term(vars, 2), self.term(vars, 1));
        match self.below(4) {
            0 => a.equals(b),
            1 => a.differs(b),
            2 => a.at_least(b),
            _ => a.divisible_by(b),
        }
    }
}

/// Whether the right factors that a question to Z3 holds have the same values in both assignments.
fn holds_factors(term: Term, before: &Vars, after: &Vars) -> bool {
    let Expr::Binary(op, a, b) = term.expr() else { return true };
    let inner = holds_factors(a, before, after) && holds_factors(b, before, after);
    let linear = match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Min | BinaryOp::Max => true,
        BinaryOp::Mul => a.as_const().is_some(),
        BinaryOp::Div | BinaryOp::Rem => false,
    };
    inner && (linear || (b.eval(before).is_some() && b.eval(before) == b.eval(after)))
}

/// An assignment that fulfils all laws and holds what Z3's question holds.
fn by_trying(vars: &Vars, laws: &[Law]) -> Option<Vec<i64>> {
    let mut tried = vars.clone();
    let all: Vec<term::Var> = (0..vars.len() as u32).map(term::Var).collect();
    let ranges: Vec<(i64, i64)> = all.iter().map(|&var| vars.range(var)).collect();
    let count: i64 = ranges.iter().map(|(low, high)| high - low + 1).product();
    (0..count).find_map(|number| {
        let mut rest = number;
        for (&var, (low, high)) in all.iter().zip(&ranges) {
            tried.set(var, low + rest % (high - low + 1));
            rest /= high - low + 1;
        }
        let held = |law: &Law| holds_factors(law.left, vars, &tried) && holds_factors(law.right, vars, &tried);
        laws.iter().all(|law| law.holds(&tried) && held(law)).then(|| tried.snapshot())
    })
}

#[test]
fn laws_mean_the_same_to_all_that_read_them() {
    let (mut solved, mut refused, mut tally) = (0, 0, Tally::default());
    for seed in 0..QUESTIONS {
        term::reset();
        let mut random = Random(Stream::new(seed));
        let (mut vars, mut laws) = (Vars::default(), Laws::default());
        for _record in 0..3 {
            let (assignment, admitted, first_new) = (vars.snapshot(), laws.len(), vars.len());
            for _ in 0..1 + random.below(2) {
                let low = random.below(4) as i64 - 1;
                let hint = low + random.below(VALUES) as i64;
                vars.fresh(low..=low + VALUES as i64 - 1, hint);
            }
            let new: Vec<Law> = (0..1 + random.below(2)).map(|_| random.law(&vars)).collect();
            let text = format!("seed {seed}: {new:?} with {:?} and {vars:?}", laws.laws);
            let ranges: Vec<(i64, i64)> = (0..vars.len() as u32).map(|var| vars.range(term::Var(var))).collect();
            // Some of the questions go to narrowing or to Z3 at once, which are otherwise asked only what is left.
            let plain = new.iter().all(|law| law.holds(&vars)) || !new.iter().all(Law::has_vars);
            let answer = match seed % 3 {
                _ if plain => laws.admit(&mut vars, new.clone(), first_new),
                0 => laws.admit(&mut vars, new.clone(), first_new),
                1 => laws.search(&mut vars, &new, first_new).map(|()| laws.append(&new, vars.len())),
                _ => {
                    let question = laws.question(&vars, &new);
                    laws.ask(&mut vars, &question, first_new).map(|()| laws.append(&new, vars.len()))
                }
            };
            match answer {
                Ok(()) => {
                    solved += 1;
                    assert!(laws.iter().all(|law| law.holds(&vars)), "admitted, but broken: {text}");
                    let inside = |(value, (low, high)): (&i64, &(i64, i64))| low <= value && value <= high;
                    assert!(vars.snapshot().iter().zip(&ranges).all(inside), "a value left its range: {text}");
                }
                Err(skip) => {
                    refused += 1;
                    assert_eq!(skip, Skip::Unsolvable, "{text}");
                    let all: Vec<Law> = laws.iter().copied().chain(new).collect();
                    assert_eq!(by_trying(&vars, &all), None, "called unsolvable: {text}");
                    assert_eq!(laws.len(), admitted, "{text}");
                    vars.restore(assignment);
                }
            }
        }
        tally.by_repair += laws.tally.by_repair;
        tally.by_narrowing += laws.tally.by_narrowing;
        tally.hopeless += laws.tally.hopeless;
        tally.by_solver += laws.tally.by_solver;
        tally.refused_by_solver += laws.tally.refused_by_solver;
    }
    let each = [tally.by_repair, tally.by_narrowing, tally.hopeless, tally.by_solver, tally.refused_by_solver];
    assert!(solved > 1000 && refused > 1000, "{solved} solved, {refused} refused");
    assert!(each.iter().all(|&count| count > 50), "{tally:?}");
}
