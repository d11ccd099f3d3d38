//! Control flow. A model is a flat list of nodes that says what is computed; a region is a run of them that is exported
//! as one If, Loop or Scan whose bodies hold them. So the reference, the error bounds and the input search need to know
//! nothing of control flow.

use super::{Model, Node};
use crate::dtype::DType;
use crate::support::form_of;
use std::ops::Range;

/// Nodes that are exported as one node of control flow.
#[derive(Clone, Debug)]
pub struct Region {
    /// Where its nodes are in [`Model::nodes`].
    pub nodes: Range<usize>,
    pub control: Control,
}

#[derive(Clone, Debug)]
pub enum Control {
    /// The nodes are the branch that is taken; the other one gives values of the same types.
    If {
        /// A bool scalar, known to be `taken`.
        condition: usize,
        taken: bool,
    },
    /// The nodes are all iterations, one after the other.
    Repeat(Repeat),
}

/// A Loop or a Scan with one state. Every list has one entry for each iteration.
#[derive(Clone, Debug)]
pub struct Repeat {
    /// A Loop's trip count, an i64 scalar that is known; a Scan has the length of its sequence.
    pub trips: Option<usize>,
    /// A Loop's condition, a bool scalar known to be true, if it has one.
    pub condition: Option<usize>,
    /// The nodes of each iteration.
    pub bodies: Vec<Vec<usize>>,
    /// The state before the first iteration.
    pub initial: usize,
    /// The state after each iteration.
    pub states: Vec<usize>,
    /// A Scan's sequence, and its elements.
    pub scanned: Option<(usize, Vec<usize>)>,
    /// What each iteration adds to a list, and the list.
    pub collected: Option<(Vec<usize>, usize)>,
}

impl Region {
    /// The ONNX operator type.
    pub fn operator(&self) -> &'static str {
        match &self.control {
            Control::If { .. } => "If",
            Control::Repeat(Repeat { scanned: None, .. }) => "Loop",
            Control::Repeat(_) => "Scan",
        }
    }

    /// Takes notice that there are `by` more nodes before the one at `at`; fewer, if it is negative.
    pub fn shift(&mut self, at: usize, by: isize) {
        if self.nodes.start < at {
            return;
        }
        let moved = |node: usize| node.checked_add_signed(by).expect("regions begin after what is taken away");
        self.nodes = moved(self.nodes.start)..moved(self.nodes.end);
        if let Control::Repeat(repeat) = &mut self.control {
            repeat.bodies.iter_mut().flatten().for_each(|node| *node = moved(*node));
        }
    }

    /// The operands of the exported node; `None` where an optional one is absent.
    pub fn operands(&self) -> Vec<Option<usize>> {
        match &self.control {
            Control::If { condition, .. } => vec![Some(*condition)],
            Control::Repeat(repeat) => match &repeat.scanned {
                None => vec![repeat.trips, repeat.condition, Some(repeat.initial)],
                Some((sequence, _)) => vec![Some(repeat.initial), Some(*sequence)],
            },
        }
    }

    /// The outputs of the exported node: for an If, what is used outside.
    pub fn outputs(&self, model: &Model) -> Vec<usize> {
        match &self.control {
            Control::If { .. } => {
                let outside = |index: &usize| !self.nodes.contains(index);
                let used = |value: &usize| {
                    let by = |index: usize| model.nodes[index].operands.contains(&Some(*value));
                    model.outputs.contains(value) || (0..model.nodes.len()).filter(outside).any(by)
                };
                self.produced(model).filter(used).collect()
            }
            Control::Repeat(repeat) => {
                let last = repeat.states.last().copied();
                last.into_iter().chain(repeat.collected.iter().map(|(_, list)| *list)).collect()
            }
        }
    }

    /// All values that its nodes compute.
    pub fn produced(&self, model: &Model) -> impl Iterator<Item = usize> {
        model.nodes[self.nodes.clone()].iter().flat_map(|node: &Node| node.outputs.iter().copied())
    }

    /// The form of the exported node, as support tables name it.
    pub fn form(&self, model: &Model) -> String {
        let dtype = |value: usize| model.values[value].dtype;
        form_of(self.operands().into_iter().map(|value| value.map(dtype)), self.output_dtypes(model).into_iter())
    }

    pub fn output_dtypes(&self, model: &Model) -> Vec<DType> {
        self.outputs(model).into_iter().map(|value| model.values[value].dtype).collect()
    }
}
