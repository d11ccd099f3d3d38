//! Other sizes for the inputs of a model whose sizes are symbols: what one compiled model must serve as well.

use super::{Graph, Vertex};
use crate::input::mix;
use crate::limits::MAX_SIZE;
use crate::model::Model;
use crate::solve::Laws;
use crate::spec::{Attribute, Domain, Draft, Role};
use crate::term::{Relation, Term, Var, Vars};

impl Graph {
    /// The model with other sizes of its graph inputs, and with the same attributes and constants. None where the model
    /// has fixed sizes, or the laws let none change.
    ///
    /// Each size that an input has is moved by itself, with all that equalities make of it, and stays moved where every
    /// law still holds: no solver is asked.
    pub fn rebound(&mut self, seed: u64) -> Option<Model> {
        if !self.symbolic {
            return None;
        }
        let held = self.held();
        let original = self.vars.snapshot();
        let mut moved = held.clone();
        for root in self.input_sizes() {
            let index = root.0 as usize;
            if moved[index] || original[index] < 2 {
                continue;
            }
            let Some(touched) = move_size(&mut self.vars, &self.laws, root, &held, seed) else { continue };
            moved.iter_mut().zip(touched).for_each(|(moved, touched)| *moved |= touched);
        }
        let changed = self.vars.snapshot() != original;
        let model = (changed && self.check_limits(&Draft::default()).is_ok()).then(|| self.model());
        self.vars.restore(original);
        model
    }

    /// The variables that attributes, constants and initializers depend on, which are the same in every run.
    fn held(&self) -> Vec<bool> {
        let mut held = vec![false; self.vars.len()];
        let mut hold = |term: Term| term.for_each_var(&mut |var| held[var.0 as usize] = true);
        for vertex in self.dag.node_weights() {
            match vertex {
                Vertex::Operator(operator) => operator.attributes.iter().for_each(|(_, value)| match value {
                    Attribute::Int(term) => hold(*term),
                    Attribute::Ints(terms) => terms.iter().copied().for_each(&mut hold),
                    _ => {}
                }),
                Vertex::Leaf(leaf) if leaf.role != Role::Input || leaf.content.is_some() => {
                    leaf.ty.shape.iter().copied().for_each(&mut hold);
                    leaf.content.iter().flatten().copied().for_each(&mut hold);
                    if let Domain::Index(bound) | Domain::Between(_, bound) = leaf.domain {
                        hold(bound);
                    }
                }
                Vertex::Leaf(_) => {}
            }
        }
        held
    }

    /// The variables that are a size of a graph input.
    fn input_sizes(&self) -> Vec<Var> {
        let inputs = self.dag.node_weights().filter_map(|vertex| match vertex {
            Vertex::Leaf(leaf) if leaf.role == Role::Input => Some(&leaf.ty.shape),
            _ => None,
        });
        inputs.flatten().filter_map(|dim| dim.as_var()).collect()
    }
}

/// Gives `root` another value and carries it on. Which variables were set; none, and all as before, where a law fails.
fn move_size(vars: &mut Vars, laws: &Laws, root: Var, held: &[bool], seed: u64) -> Option<Vec<bool>> {
    let (before, size) = (vars.snapshot(), vars.value(root));
    let choices = [size + 1, size * 2, size - 1, 2, 3, 5, 8, 17];
    let first = mix(seed ^ u64::from(root.0)) as usize;
    let choices = (0..3).map(|attempt| choices[(first + attempt * 3) % choices.len()]);
    for choice in choices.filter(|&choice| choice != size && (2..=MAX_SIZE).contains(&choice)) {
        if held[root.0 as usize] || !vars.in_range(root, choice) {
            continue;
        }
        vars.set(root, choice);
        let mut settled = held.to_vec();
        settled[root.0 as usize] = true;
        carry(vars, laws, &mut settled);
        // A size of 1 is written in the model, and an empty tensor is a case of its own.
        let kept = |(&old, &new): (&i64, &i64)| old == new || (old > 1 && new > 1);
        if before.iter().zip(&vars.snapshot()).all(kept) && laws.iter().all(|law| law.holds(vars)) {
            return Some(settled);
        }
        vars.restore(before.clone());
    }
    None
}

/// Sets every variable once that an equality tells, as long as one fails.
fn carry(vars: &mut Vars, laws: &Laws, settled: &mut [bool]) {
    loop {
        let mut told = false;
        for law in laws.iter().filter(|law| law.relation == Relation::Equal) {
            if law.holds(vars) {
                continue;
            }
            for (target, source) in [(law.left, law.right), (law.right, law.left)] {
                let Some(var) = target.as_var().filter(|var| !settled[var.0 as usize]) else { continue };
                let Some(value) = source.eval(vars).filter(|&value| vars.in_range(var, value)) else { continue };
                vars.set(var, value);
                settled[var.0 as usize] = true;
                told = true;
                break;
            }
        }
        if !told {
            return;
        }
    }
}
