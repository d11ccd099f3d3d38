//! Search for inputs and weights without floating-point exceptional values, after NNSmith's section 3.3.
//!
//! A sample is valid when every guard is at least 0, every float is finite and well inside the range of its declared
//! type, and no integer leaves its type's range or that in which f64 is exact. The model is computed node by node. At the
//! first node that is not valid, only what it depends on is sought anew: leaves are sampled at other scales and signs, then
//! Adam descends on the sum of the violations of all nodes that these leaves reach so far. Where nothing helps, mostly
//! because nothing can, such as for an Acosh of a Tanh, the operand gets a graph input of its own. Budgets count
//! evaluations of nodes, never time.

use crate::model::{Cut, LeafData, Model};
use crate::reference::{self, Defect, Precision, Values};
use std::borrow::Cow;

mod cone;
mod descent;
mod mend;
mod validity;

pub use validity::{integers_fit, is_valid};

/// What a search found.
pub struct Found {
    pub data: LeafData,
    /// The wide reference values of every value, for valid data.
    pub values: Option<Values>,
    /// Evaluations of nodes, in passes over the model.
    pub passes: f64,
    /// The first node that stayed invalid, where no data are valid.
    pub obstacle: Option<usize>,
    /// The operands that have got graph inputs of their own.
    pub cuts: Vec<Cut>,
}

/// The parts of the search: what `graphsmith ablate` takes away one by one.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub name: &'static str,
    /// Passes over the model after which nothing new is begun.
    passes: usize,
    /// Descends from samples that are not valid.
    descends: bool,
    /// Descends along the proxies of operators whose gradient is 0 or misleads.
    proxies: bool,
    /// Mends one node after the other, rather than the model at large.
    mends: bool,
    /// Gives graph inputs of their own to operands that nothing helps.
    cuts: bool,
}

/// Passes of the methods that know of no other end.
const PASSES: usize = 96;

const SAMPLING: Method =
    Method { name: "random sampling", passes: PASSES, descends: false, proxies: false, mends: false, cuts: false };
const GRADIENT: Method = Method { name: "gradient with proxies", descends: true, proxies: true, ..SAMPLING };
const MENDING: Method = Method { name: "node by node", mends: true, ..GRADIENT };
const WHOLE: Method = Method { name: "the whole method", cuts: true, ..MENDING };

/// The whole method comes last.
pub const METHODS: [Method; 6] = [
    Method { name: "one random sample", passes: 1, ..SAMPLING },
    SAMPLING,
    Method { name: "gradient without proxies", proxies: false, ..GRADIENT },
    GRADIENT,
    MENDING,
    WHOLE,
];

/// Looks for data on which the model is numerically valid. Deterministic in `seed`.
pub fn search(model: &Model, seed: u64) -> Result<Found, Defect> {
    Ok(Search::new(model, seed, &MENDING).run()?.1)
}

/// Looks for data on which the model is numerically valid, and changes the model where there are none: see [`Found::cuts`].
pub fn fit(model: &mut Model, seed: u64) -> Result<Found, Defect> {
    fit_with(model, seed, &WHOLE)
}

/// Like [`fit`], by another method.
pub fn fit_with(model: &mut Model, seed: u64, method: &Method) -> Result<Found, Defect> {
    let (changed, found) = Search::new(model, seed, method).run()?;
    if let Cow::Owned(changed) = changed {
        *model = changed;
    }
    Ok(found)
}

/// A search under way.
struct Search<'a> {
    model: Cow<'a, Model>,
    method: &'a Method,
    seed: u64,
    data: LeafData,
    /// For each leaf, how [`Model::sample_leaf`] was asked for it last.
    attempts: Vec<u32>,
    /// Of the leaves, and of the nodes that are computed so far.
    values: Values,
    evaluations: usize,
    obstacle: Option<usize>,
    cuts: Vec<Cut>,
}

impl<'a> Search<'a> {
    fn new(model: &'a Model, seed: u64, method: &'a Method) -> Search<'a> {
        let mut search = Search {
            model: Cow::Borrowed(model),
            method,
            seed,
            data: model.sample(seed, 0),
            attempts: vec![0; model.leaves.len()],
            values: (0..model.values.len()).map(|_| None).collect(),
            evaluations: 0,
            obstacle: None,
            cuts: Vec::new(),
        };
        (0..model.leaves.len()).for_each(|leaf| search.show(leaf));
        search
    }

    fn run(mut self) -> Result<(Cow<'a, Model>, Found), Defect> {
        let valid = self.leaves_fit() && if self.method.mends { self.node_by_node()? } else { self.at_large()? };
        let Search { model, data, values, evaluations, obstacle, cuts, .. } = self;
        let passes = evaluations as f64 / model.nodes.len().max(1) as f64;
        Ok((model, Found { data, values: valid.then_some(values), passes, obstacle, cuts }))
    }

    /// Computes with the data that a leaf has.
    fn show(&mut self, leaf: usize) {
        self.values[self.model.leaves[leaf].value] = Some(reference::to_tensor(&self.data[leaf], true));
    }

    /// Other data for a leaf.
    fn sample(&mut self, leaf: usize, seed: u64, attempt: u32) {
        self.data[leaf] = self.model.sample_leaf(leaf, seed, attempt);
        self.attempts[leaf] = attempt;
        self.show(leaf);
    }

    /// Computes a node; whether it is valid.
    fn compute(&mut self, node: usize) -> Result<bool, Defect> {
        self.evaluations += 1;
        let node = &self.model.nodes[node];
        let outputs = reference::run_node(&self.model, node, &self.values, Precision::Wide)?;
        for (&value, output) in node.outputs.iter().zip(outputs) {
            self.values[value] = Some(output);
        }
        validity::node_is_valid(&self.model, node, &self.values)
    }

    /// Computes nodes up to the first that is not valid; whether all are.
    fn compute_all(&mut self, nodes: &[usize]) -> Result<bool, Defect> {
        for &node in nodes {
            if !self.compute(node)? {
                self.obstacle = Some(node);
                return Ok(false);
            }
        }
        self.obstacle = None;
        Ok(true)
    }

    fn leaves_fit(&self) -> bool {
        (0..self.model.leaves.len()).all(|leaf| validity::leaf_is_valid(&self.model, leaf, &self.values))
    }
}
