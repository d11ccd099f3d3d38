//! How far apart two models are, counted in nodes.

use crate::model::{Model, Node};
use std::collections::BTreeMap;

/// What makes one model of another.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Edits {
    /// Nodes put in, taken out, or replaced by one of another operator or with other attributes.
    pub nodes: usize,
    /// Nodes that stay, but some of whose operands come from elsewhere.
    pub rewired: usize,
    /// Nodes that stay as they are, where an output has another element type or other sizes.
    pub resized: usize,
    /// Nodes that stay.
    pub kept: usize,
}

impl Edits {
    /// The edit distance. Sizes do not count: they follow from others.
    pub fn distance(&self) -> usize {
        self.nodes + self.rewired
    }
}

/// Where an operand comes from.
#[derive(PartialEq, Eq)]
enum Source {
    Absent,
    Leaf,
    /// A node and which of its outputs.
    Node(usize, usize),
}

/// The edits between two models: the nodes that stay are a longest common subsequence of operators with their attributes,
/// and of what lies between two of them as many nodes as possible are replaced.
pub fn between(before: &Model, after: &Model) -> Edits {
    let label = |node: &Node| format!("{} {:?}", node.spec.name, node.attributes);
    let labels = [before, after].map(|model| model.nodes.iter().map(label).collect::<Vec<_>>());
    let kept = common(&labels[0], &labels[1]);
    let mut edits = Edits { kept: kept.len(), ..Edits::default() };
    let mut counterpart: BTreeMap<usize, usize> = BTreeMap::new();
    let mut from = (0, 0);
    for &(one, other) in kept.iter().chain([&(before.nodes.len(), after.nodes.len())]) {
        edits.nodes += (one - from.0).max(other - from.1);
        counterpart.extend((from.0..one).zip(from.1..other));
        from = (one + 1, other + 1);
    }
    counterpart.extend(kept.iter().copied());
    let (sources, theirs) = (sources(before), sources(after));
    for (one, other) in kept {
        let moved = |source: &Source| match *source {
            Source::Node(node, output) => counterpart.get(&node).map(|&node| Source::Node(node, output)),
            Source::Leaf => Some(Source::Leaf),
            Source::Absent => Some(Source::Absent),
        };
        let same = sources[one].len() == theirs[other].len()
            && sources[one].iter().zip(&theirs[other]).all(|(source, theirs)| moved(source).as_ref() == Some(theirs));
        edits.rewired += usize::from(!same);
        let types = |model: &Model, node: usize| {
            let ty = |&output: &usize| (model.values[output].dtype, model.values[output].shape.clone());
            model.nodes[node].outputs.iter().map(ty).collect::<Vec<_>>()
        };
        edits.resized += usize::from(same && types(before, one) != types(after, other));
    }
    edits
}

/// For every node, where its operands come from.
fn sources(model: &Model) -> Vec<Vec<Source>> {
    let mut producers: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for (index, node) in model.nodes.iter().enumerate() {
        producers.extend(node.outputs.iter().enumerate().map(|(output, &value)| (value, (index, output))));
    }
    let source = |operand: &Option<usize>| match operand {
        None => Source::Absent,
        Some(value) => producers.get(value).map_or(Source::Leaf, |&(node, output)| Source::Node(node, output)),
    };
    model.nodes.iter().map(|node| node.operands.iter().map(source).collect()).collect()
}

/// The positions of a longest common subsequence, in both lists.
fn common(one: &[String], other: &[String]) -> Vec<(usize, usize)> {
    let mut longest = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in (0..one.len()).rev() {
        for j in (0..other.len()).rev() {
            longest[i][j] = match one[i] == other[j] {
                true => 1 + longest[i + 1][j + 1],
                false => longest[i + 1][j].max(longest[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < one.len() && j < other.len() {
        if one[i] == other[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if longest[i + 1][j] >= longest[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case;
    use crate::input;

    fn model() -> Model {
        (0..).map(|seed| case::generate(&input::random(seed, 8)).model).find(|it| it.nodes.len() >= 6).unwrap()
    }

    #[test]
    fn a_model_is_at_no_distance_from_itself() {
        let model = model();
        assert_eq!(between(&model, &model), Edits { kept: model.nodes.len(), ..Edits::default() });
        let all = model.nodes.len();
        assert_eq!(between(&model, &Model::default()), Edits { nodes: all, ..Edits::default() });
    }

    #[test]
    fn each_kind_of_edit_counts_one() {
        let before = model();
        let mut renamed = before.clone();
        renamed.nodes[2].attributes.push(("made_up".into(), crate::spec::Attribute::Int(1)));
        assert_eq!(between(&before, &renamed), Edits { nodes: 1, kept: before.nodes.len() - 1, ..Edits::default() });
        let mut shorter = before.clone();
        shorter.nodes.pop();
        assert_eq!(between(&before, &shorter).distance(), 1);
        assert_eq!(between(&shorter, &before).distance(), 1);
        let mut rewired = before.clone();
        rewired.nodes[0].operands.push(None);
        let kept = before.nodes.len();
        assert_eq!(between(&before, &rewired), Edits { rewired: 1, kept, ..Edits::default() });
        let mut resized = before.clone();
        let output = resized.nodes[0].outputs[0];
        resized.values[output].shape.push(1);
        assert_eq!(between(&before, &resized), Edits { resized: 1, kept, ..Edits::default() });
    }
}
