//! Operands that get a graph input of their own.

use super::{Control, Leaf, Model, Value};
use crate::spec::{Domain, Role};

/// Where a graph input takes the place of an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Index into [`Model::nodes`].
    pub node: usize,
    /// Index into its operands.
    pub operand: usize,
}

impl Model {
    /// Gives an operand a graph input of its own, of the same type, and makes a result that this leaves unused a graph
    /// output. The index of the new leaf. None for an operand that has a leaf of its own or one of known elements, for one
    /// that the operator may have limited by other means than what is checked of it, and for those of the iterations of a loop, which
    /// must all be alike.
    pub fn cut(&mut self, Cut { node, operand }: Cut) -> Option<usize> {
        let value = self.nodes[node].operands[operand]?;
        let leaf = self.leaves.iter().find(|leaf| leaf.value == value);
        let spec = self.nodes[node].spec;
        let checked = spec.can_overflow || (spec.guard.is_some() && self.values[value].dtype.is_float());
        let free = |domain| domain == Domain::Any || (checked && matches!(domain, Domain::Range(..)));
        let fixed = leaf.is_some_and(|leaf| leaf.content.is_some() || !free(leaf.domain) || self.uses(value) == 1);
        let in_loop = self
            .regions
            .iter()
            .any(|region| region.nodes.contains(&node) && matches!(region.control, Control::Repeat(_)));
        if fixed || in_loop {
            return None;
        }
        let computed = leaf.is_none();
        let own = self.values.len();
        self.values.push(Value { name: format!("x{own}"), ..self.values[value].clone() });
        self.leaves.push(Leaf {
            value: own,
            role: Role::Input,
            domain: Domain::Any,
            content: None,
            constant_node: false,
        });
        self.nodes[node].operands[operand] = Some(own);
        if computed && self.uses(value) == 0 && !self.outputs.contains(&value) {
            let at = self.outputs.partition_point(|&output| output < value);
            self.outputs.insert(at, value);
        }
        Some(self.leaves.len() - 1)
    }

    /// How many operands a value is.
    fn uses(&self, value: usize) -> usize {
        self.operands().filter(|&operand| operand == value).count()
    }
}
