//! The ways through a model: node by node, mending each, or at large.

use super::Search;
use super::cone::Cone;
use super::validity::guards;
use crate::input::mix;
use crate::model::{Cut, LeafData};
use crate::reference::{self, Defect, Precision, Values};
use std::iter;
use tch::Kind;

/// The samples that are tried for the leaves of one node, wide ones first: see [`crate::model::Model::sample_leaf`].
const SAMPLES: [u32; 7] = [1, 2, 3, 7, 4, 5, 6];
/// The sample that the descent begins at, where none comes near.
const START: u32 = 1;

/// What a failed attempt is taken back to.
struct Saved {
    data: LeafData,
    attempts: Vec<u32>,
    values: Values,
}

impl Search<'_> {
    /// Mends each node that is not valid. Whether the data are valid in the end.
    pub(super) fn node_by_node(&mut self) -> Result<bool, Defect> {
        for node in 0..self.model.nodes.len() {
            if !self.compute(node)? && !self.mend(node)? && !self.cut_off(node)? {
                self.obstacle = Some(node);
                return Ok(false);
            }
        }
        self.obstacle = None;
        Ok(true)
    }

    /// Samples the whole model, and descends from the sample, again and again.
    pub(super) fn at_large(&mut self) -> Result<bool, Defect> {
        let cone = Cone::whole(&self.model);
        let budget = self.method.passes * cone.nodes.len();
        for round in 0.. {
            let seed = mix(self.seed ^ round);
            if round > 0 {
                cone.leaves.iter().for_each(|&leaf| self.sample(leaf, seed, 0));
            }
            if self.compute_all(&cone.nodes)? || (self.method.descends && self.descend(&cone)?) {
                return Ok(true);
            }
            if self.evaluations >= budget {
                return Ok(false);
            }
        }
        unreachable!("every round evaluates nodes")
    }

    /// Looks for other data of the leaves that `node` depends on, with which it and all before it are valid. On failure
    /// everything is as it was.
    fn mend(&mut self, node: usize) -> Result<bool, Defect> {
        let cone = Cone::of(&self.model, node);
        if cone.leaves.is_empty() {
            return Ok(false);
        }
        let saved = self.saved();
        let mended = self.settle(&cone, mix(self.seed ^ (node as u64) << 8))?;
        if !mended {
            self.restore(saved);
        }
        Ok(mended)
    }

    /// Looks for data of a cone's leaves with which its nodes are valid: among samples, then down from the nearest of them.
    fn settle(&mut self, cone: &Cone, seed: u64) -> Result<bool, Defect> {
        let sample = |search: &mut Self, attempt: u32| {
            let seed = mix(seed ^ u64::from(attempt));
            cone.leaves.iter().for_each(|&leaf| search.sample(leaf, seed, attempt));
        };
        let (mut start, mut least) = (START, f64::INFINITY);
        for attempt in SAMPLES {
            sample(self, attempt);
            if self.compute_all(&cone.nodes)? {
                return Ok(true);
            }
            if self.obstacle == cone.nodes.last().copied() {
                let shortfall = self.shortfall()?;
                if shortfall < least {
                    (start, least) = (attempt, shortfall);
                }
            }
        }
        sample(self, start);
        self.descend(cone)
    }

    /// Gives one operand of `node` a graph input of its own with which it is valid, or all where one is not enough.
    fn cut_off(&mut self, node: usize) -> Result<bool, Defect> {
        if !self.method.cuts {
            return Ok(false);
        }
        let operands = self.model.nodes[node].operands.len();
        let each = (0..operands).map(|operand| operand..operand + 1);
        for operands in each.chain(iter::once(0..operands)) {
            let mut model = self.model.clone();
            let cut = |operand| {
                let cut = Cut { node, operand };
                model.to_mut().cut(cut).map(|leaf| (cut, leaf))
            };
            let (cuts, leaves): (Vec<Cut>, Vec<usize>) = operands.filter_map(cut).unzip();
            if cuts.is_empty() {
                continue;
            }
            let before = std::mem::replace(&mut self.model, model);
            let saved = self.saved();
            self.values.resize_with(self.model.values.len(), || None);
            for &leaf in &leaves {
                self.data.push(self.model.sample_leaf(leaf, self.seed, 0));
                self.attempts.push(0);
                self.show(leaf);
            }
            if self.compute(node)? || self.settle(&Cone { leaves, nodes: vec![node] }, mix(self.seed ^ node as u64))? {
                self.cuts.extend(cuts);
                return Ok(true);
            }
            self.model = before;
            self.restore(saved);
        }
        Ok(false)
    }

    /// How far the operands of the obstacle are from where it is defined; infinite, where that is not what is wrong.
    fn shortfall(&self) -> Result<f64, Defect> {
        let Some(obstacle) = self.obstacle else { return Ok(f64::INFINITY) };
        let node = &self.model.nodes[obstacle];
        let args = reference::args(&self.model, node, &self.values, Precision::Wide);
        let guards = guards(&self.model, node, &args)?;
        let short: f64 = guards.iter().map(|guard| (-guard).relu().sum(Kind::Double).double_value(&[])).sum();
        Ok(if short > 0.0 { short } else { f64::INFINITY })
    }

    fn saved(&self) -> Saved {
        let values = self.values.iter().map(|value| value.as_ref().map(|value| value.shallow_clone())).collect();
        Saved { data: self.data.clone(), attempts: self.attempts.clone(), values }
    }

    fn restore(&mut self, saved: Saved) {
        (self.data, self.attempts, self.values) = (saved.data, saved.attempts, saved.values);
    }
}
