//! The equations of Einsum.

use crate::input::Stream;
use crate::limits::MAX_RANK;
use crate::spec::Builder;
use crate::term::Term;

/// An equation that grows operand by operand.
pub struct Equation {
    stream: Stream,
    labels: Vec<Label>,
    operands: Vec<Subscripts>,
    /// The axes of the ellipsis, broadcast over all operands so far; `None` in an equation without one.
    ellipsis: Option<Vec<Term>>,
    output: Option<Subscripts>,
}

/// A letter and the size of the axes that it names.
struct Label {
    letter: char,
    size: Term,
    /// The output has no such axis.
    summed: bool,
}

/// The labels of a tensor's axes in order, and where among them an ellipsis stands.
#[derive(Default)]
struct Subscripts {
    labels: Vec<usize>,
    ellipsis: Option<usize>,
}

/// More letters than this make only more large results.
const MOST_LABELS: usize = 8;

impl Equation {
    /// An equation whose first operand has the given shape.
    pub fn of_first(b: &mut Builder, shape: &[Term]) -> Equation {
        let stream = b.stream();
        let mut equation = Equation { stream, labels: Vec::new(), operands: Vec::new(), ellipsis: None, output: None };
        let mut subscripts = Subscripts::default();
        let mut named = shape.to_vec();
        if b.chance(72) {
            let count = equation.below(3).min(shape.len());
            let at = equation.below(shape.len() - count + 1);
            equation.ellipsis = Some(named.splice(at..at + count, []).collect());
            subscripts.ellipsis = Some(at);
        }
        for size in named {
            let label = equation.repeated(b, &subscripts, size).unwrap_or_else(|| equation.label(size));
            subscripts.labels.push(label);
        }
        equation.operands.push(subscripts);
        equation
    }

    fn below(&mut self, bound: usize) -> usize {
        self.stream.below(bound as u64) as usize
    }

    fn label(&mut self, size: Term) -> usize {
        loop {
            let letter = char::from(b"ijklmnopabcdefXYZABQstuvwx"[self.below(26)]);
            if self.labels.iter().all(|label| label.letter != letter) {
                self.labels.push(Label { letter, size, summed: true });
                return self.labels.len() - 1;
            }
        }
    }

    /// A label that `subscripts` has already, for a diagonal: mostly where sizes allow it as they are.
    fn repeated(&mut self, b: &mut Builder, subscripts: &Subscripts, size: Term) -> Option<usize> {
        let fits = |label: &usize| b.value(self.labels[*label].size) == b.value(size);
        let same = subscripts.labels.iter().copied().find(fits);
        let label = match (same, self.below(16)) {
            (Some(label), 0..8) => label,
            (None, 0) => subscripts.labels.first().copied()?,
            _ => return None,
        };
        b.require(self.labels[label].size.equals(size));
        Some(label)
    }

    /// Adds an operand; returns its shape.
    pub fn further_operand(&mut self, b: &mut Builder) -> Vec<Term> {
        const RANKS: [usize; 8] = [2, 1, 3, 2, 1, 2, 3, 0];
        let rank = b.one_of(&RANKS);
        let mut subscripts = Subscripts::default();
        for _ in 0..rank {
            let unused: Vec<usize> =
                (0..self.labels.len()).filter(|label| !subscripts.labels.contains(label)).collect();
            let label = match self.below(16) {
                0..11 if !unused.is_empty() => unused[self.below(unused.len())],
                11 if !subscripts.labels.is_empty() => subscripts.labels[0],
                _ if self.labels.len() < MOST_LABELS => {
                    let size = b.size(4);
                    self.label(size)
                }
                _ => continue,
            };
            subscripts.labels.push(label);
        }
        let mut shape: Vec<Term> = subscripts.labels.iter().map(|&label| self.labels[label].size).collect();
        if let Some(ellipsis) = self.ellipsis.clone().filter(|_| self.stream.below(4) > 0) {
            let at = self.below(subscripts.labels.len() + 1);
            // As many axes as in every other ellipsis, some of them broadcast.
            let mut size = |dim: &Term| if self.stream.below(4) == 0 { Term::constant(1) } else { *dim };
            let axes: Vec<Term> = ellipsis.iter().map(&mut size).collect();
            self.ellipsis = Some(b.broadcast(&[&ellipsis, &axes]));
            shape.splice(at..at, axes);
            subscripts.ellipsis = Some(at);
        }
        self.operands.push(subscripts);
        shape
    }

    /// Chooses the output's subscripts, written or implied; returns its shape.
    pub fn output(&mut self, b: &mut Builder) -> Vec<Term> {
        let uses = |label: usize| self.operands.iter().flat_map(|o| &o.labels).filter(|&&used| used == label).count();
        let uses: Vec<usize> = (0..self.labels.len()).map(uses).collect();
        let room = MAX_RANK - self.ellipsis.as_ref().map_or(0, Vec::len);
        let mut implied: Vec<usize> = (0..uses.len()).filter(|&label| uses[label] == 1).collect();
        implied.sort_by_key(|&label| self.labels[label].letter);
        let scalar = self.labels.is_empty() && self.ellipsis.is_none();
        let mut output = Subscripts { labels: implied, ellipsis: self.ellipsis.as_ref().map(|_| 0) };
        if output.labels.len() > room || scalar || !b.chance(64) {
            // What is shared is mostly summed, what is not mostly kept; in any order.
            let kept = |label: &usize| self.stream.below(8) < if uses[*label] > 1 { 3 } else { 6 };
            output.labels = (0..uses.len()).filter(kept).collect();
            output.labels.truncate(room);
            for i in (1..output.labels.len()).rev() {
                let other = self.below(2 * (i + 1)).min(i);
                output.labels.swap(i, other);
            }
            output.ellipsis = output.ellipsis.map(|_| self.below(output.labels.len() + 1));
            self.output = Some(Subscripts { labels: output.labels.clone(), ellipsis: output.ellipsis });
        }
        let mut shape: Vec<Term> = output.labels.iter().map(|&label| self.labels[label].size).collect();
        if let (Some(at), Some(ellipsis)) = (output.ellipsis, &self.ellipsis) {
            shape.splice(at..at, ellipsis.iter().copied());
        }
        output.labels.iter().for_each(|&label| self.labels[label].summed = false);
        shape
    }

    /// The sizes of the axes that are summed over.
    pub fn summed(&self) -> Vec<Term> {
        self.labels.iter().filter(|label| label.summed).map(|label| label.size).collect()
    }

    /// The attribute `equation`.
    pub fn text(&mut self) -> String {
        let operands: Vec<String> = self.operands.iter().map(|operand| self.subscripts(operand)).collect();
        let (comma, arrow) = [(",", "->"), (", ", " -> "), (",", "->"), (" ,", "->")][self.stream.below(4) as usize];
        let mut text = operands.join(comma);
        if let Some(output) = &self.output {
            text += arrow;
            text += &self.subscripts(output);
        }
        text
    }

    fn subscripts(&self, subscripts: &Subscripts) -> String {
        let mut text: Vec<String> = subscripts.labels.iter().map(|&label| self.labels[label].letter.into()).collect();
        if let Some(at) = subscripts.ellipsis {
            text.insert(at, "...".to_owned());
        }
        text.concat()
    }
}
