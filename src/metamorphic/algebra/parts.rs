//! Parts of tensors taken, joined and padded.

use super::products::{cut, inner};
use super::{Rule, Site, rule};
use crate::dtype::DType;
use crate::metamorphic::draft::Wire;
use crate::spec::{Args, Attribute};
use crate::tensor::TensorData;

/// What a Slice takes of one axis: the positions of its elements.
struct Taken {
    axis: usize,
    positions: Vec<i64>,
}

impl Taken {
    /// All axes that a Slice with fixed bounds names.
    fn by(s: &Site) -> Option<Vec<Taken>> {
        let shape = s.shape(s.x(0))?;
        let (starts, ends) = (s.list(s.x(1))?, s.list(s.x(2))?);
        let axes = if s.x(3).is_some() { s.list(s.x(3))? } else { (0..starts.len() as i64).collect() };
        let steps = if s.x(4).is_some() { s.list(s.x(4))? } else { vec![1; starts.len()] };
        let taken = |index: usize| {
            let axis = Args::from_front(axes[index], shape.len()) as usize;
            let (size, step) = (shape[axis] as i64, steps[index]);
            let bound = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
            let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
            let (mut at, end) =
                (bound(starts[index]).clamp(low.max(0), high.max(0)), bound(ends[index]).clamp(low, high));
            let mut positions = Vec::new();
            while at < size && (step > 0 && at < end || step < 0 && at > end) {
                positions.push(at);
                at += step;
            }
            Taken { axis, positions }
        };
        Some((0..starts.len()).map(taken).collect())
    }

    /// The first position and the one behind the last, if they follow each other.
    fn range(&self) -> Option<(i64, i64)> {
        let (&first, &last) = (self.positions.first()?, self.positions.last()?);
        self.positions.windows(2).all(|pair| pair[1] == pair[0] + 1).then_some((first, last + 1))
    }
}

/// The only axis that a Slice takes less than all of, or in another order.
fn only(s: &Site) -> Option<Taken> {
    let shape = s.shape(s.x(0))?;
    let some = |taken: &Taken| taken.range() != Some((0, shape[taken.axis] as i64));
    let mut taken = Taken::by(s)?.into_iter().filter(some);
    taken.next().filter(|_| taken.next().is_none())
}

/// The pads of a Pad with fixed ones: by axis, at the beginning and at the end.
fn pads(s: &Site) -> Option<Vec<(i64, i64)>> {
    let rank = s.rank(s.x(0))?;
    let list = s.list(s.x(1))?;
    let axes = if s.x(3).is_some() { s.list(s.x(3))? } else { (0..rank as i64).collect() };
    let mut pads = vec![(0, 0); rank];
    for (index, &axis) in axes.iter().enumerate() {
        pads[Args::from_front(axis, rank) as usize] = (list[index], list[index + axes.len()]);
    }
    (s.a.text("mode", "constant") == "constant").then_some(pads)
}

/// A Pad by constants in the form of every opset. Without a value it is by 0.
fn pad(s: &Site, x: Wire, pads: &[(i64, i64)], value: Option<Wire>) -> Wire {
    let list: Vec<i64> = pads.iter().map(|pad| pad.0).chain(pads.iter().map(|pad| pad.1)).collect();
    s.op("Pad", &[x, s.integers(&list)].into_iter().chain(value).collect::<Vec<_>>())
}

pub const RULES: &[Rule] = &[
    rule("slices of several axes = one after another", &["Slice"], |s| {
        let taken = Taken::by(s).filter(|taken| taken.len() > 1)?;
        let one = |x, taken: &Taken| taken.range().and_then(|(start, end)| s.slice(x, taken.axis, start, end));
        taken.iter().fold(s.x(0), one)
    }),
    rule("a slice = its end cut, then its beginning", &["Slice"], |s| {
        let taken = only(s)?;
        let (start, end) = taken.range()?;
        s.slice(s.slice(s.x(0), taken.axis, 0, end), taken.axis, start, i64::MAX)
    }),
    rule("a slice = a part of all", &["Slice"], |s| {
        let taken = only(s)?;
        let (start, end) = taken.range()?;
        let size = s.shape(s.x(0))?[taken.axis] as i64;
        let axis = vec![("axis", Attribute::Int(taken.axis as i64))];
        let sizes = s.integers(&[start, end - start, size - end]).filter(|_| start > 0 && end < size);
        Some(s.outputs("Split", &[s.x(0), Some(sizes?)], axis, 3)?[1])
    }),
    rule("a slice = its positions gathered", &["Slice"], |s| {
        let taken = only(s)?;
        s.with("Gather", &[s.x(0), s.integers(&taken.positions)], vec![("axis", Attribute::Int(taken.axis as i64))])
    }),
    rule("a slice = negative pads", &["Slice"], |s| {
        let taken = only(s)?;
        let (start, end) = taken.range()?;
        let shape = s.shape(s.x(0))?;
        let mut pads = vec![(0, 0); shape.len()];
        pads[taken.axis] = (-start, end - shape[taken.axis] as i64);
        pad(s, s.x(0), &pads, None)
    }),
    rule("slice of a slice = one", &["Slice"], |s| {
        let (outer, inner) = (only(s)?, s.behind(s.x(0), &["Slice"])?);
        let before = only(&inner)?;
        let ((start, end), (first, _)) = (outer.range()?, before.range()?);
        (outer.axis == before.axis).then(|| s.slice(inner.x(0), outer.axis, first + start, first + end))?
    }),
    rule("positions in a row = a slice", &["Gather"], |s| {
        let size = s.shape(s.x(0))?[s.axis(0)?] as i64;
        let index = s.list(s.x(1)).filter(|_| s.rank(s.x(1)) == Some(1))?;
        let positions: Vec<i64> = index.iter().map(|&at| if at < 0 { at + size } else { at }).collect();
        let (&first, step) = (positions.first()?, positions.get(1).map_or(1, |second| second - positions[0]));
        let even = step != 0 && positions.windows(2).all(|pair| pair[1] - pair[0] == step);
        // Before the first element there is only the end far below 0.
        let end = first + step * positions.len() as i64;
        let end = if end < 0 { i64::MIN } else { end };
        let list = |number| s.integers(&[number]);
        let bounds = [s.x(0).filter(|_| even), list(first), list(end), list(s.axis(0)? as i64), list(step)];
        s.op("Slice", &bounds)
    }),
    rule("positions = slices joined", &["Gather"], |s| {
        let (axis, size) = (s.axis(0)?, s.shape(s.x(0))?[s.axis(0)?] as i64);
        let index = s.list(s.x(1)).filter(|index| s.rank(s.x(1)) == Some(1) && (1..=6).contains(&index.len()))?;
        let one = |&at: &i64| {
            let from = if at < 0 { at + size } else { at };
            s.slice(s.x(0), axis, from, from + 1)
        };
        s.concat(&index.iter().map(one).collect::<Vec<_>>(), axis)
    }),
    rule("parts = slices", &["Split"], |s| {
        let axis = s.axis(0)?;
        let mut start = 0;
        let mut parts = Vec::new();
        for &output in &s.node.outputs {
            let end = start + s.model.values[output].shape[axis] as i64;
            parts.push(s.slice(s.x(0), axis, start, end));
            start = end;
        }
        (1..parts.len()).try_for_each(|index| s.replace(index, parts[index]))?;
        parts[0]
    }),
    rule("parts = cut in two, and again", &["Split"], |s| {
        let (axis, count) = (s.axis(0)?, s.node.outputs.len());
        let size = |index: usize| s.model.values[s.node.outputs[index]].shape[axis];
        let mut rest = s.x(0);
        let mut parts = Vec::new();
        for index in 0..count - 1 {
            let (part, more) = cut(s, rest, axis, size(index));
            parts.push(part);
            rest = more;
        }
        parts.push(rest);
        (1..count).try_for_each(|index| s.replace(index, parts[index]))?;
        parts[0].filter(|_| count > 1)
    }),
    rule("joined = joined two at a time", &["Concat"], |s| {
        let axis = s.axis(0)?;
        let (&first, rest) = s.node.operands.split_first().filter(|(_, rest)| rest.len() > 1)?;
        rest.iter().fold(first, |all, &next| s.concat(&[all, next], axis))
    }),
    rule("joined twice = at once", &["Concat"], |s| {
        let axis = s.axis(0)?;
        let joined = |part: Wire| s.behind(part, &["Concat"]).filter(|inner| inner.axis(0) == Some(axis));
        let nested = s.node.operands.iter().any(|&part| joined(part).is_some());
        let parts =
            s.node.operands.iter().flat_map(|&part| joined(part).map_or(vec![part], |it| it.node.operands.clone()));
        let parts: Vec<Wire> = parts.collect();
        nested.then(|| s.concat(&parts, axis))?
    }),
    rule("joined = sum of what is padded", &["Concat"], |s| {
        let (axis, rank) = (s.axis(0)?, s.output().shape.len());
        let (a, b) = s.pair()?;
        let padded = |x, before: usize, after: usize| {
            let mut pads = vec![(0, 0); rank];
            pads[axis] = (before as i64, after as i64);
            pad(s, x, &pads, None)
        };
        let (first, second) = (s.shape(a)?[axis], s.shape(b)?[axis]);
        s.op("Add", &[padded(a, 0, second), padded(b, first, 0)])
    }),
    rule("joined = along the first axis, in another order", &["Concat"], |s| {
        let axis = s.axis(0).filter(|&axis| axis > 0)?;
        let mut order: Vec<usize> = (0..s.output().shape.len()).collect();
        order.swap(0, axis);
        let parts: Vec<Wire> = s.node.operands.iter().map(|&part| s.transpose(part, &order)).collect();
        s.transpose(s.concat(&parts, 0), &order)
    }),
    rule("padded = joined with constants", &["Pad"], |s| {
        let mut x = s.x(0);
        let value = if s.x(2).is_some() { *s.fixed(s.x(2))?.to_f64().first()? } else { 0.0 };
        for (axis, (begin, end)) in pads(s)?.into_iter().enumerate().filter(|(_, pad)| *pad != (0, 0)) {
            let block = |size: i64| {
                let mut shape = s.shape(x)?;
                shape[axis] = usize::try_from(size).ok()?;
                let elements = vec![value; shape.iter().product()];
                s.constant(TensorData::from_f64(s.output().dtype, &shape, &elements))
            };
            x = s.concat(&[block(begin), x, block(end)], axis);
        }
        x
    }),
    rule("padded = one axis after another", &["Pad"], |s| {
        let pads = pads(s).filter(|pads| pads.iter().filter(|pad| **pad != (0, 0)).count() > 1)?;
        let value = s.x(2).map(Some);
        let one = |x, (axis, &each): (usize, &(i64, i64))| {
            let mut only = vec![(0, 0); pads.len()];
            only[axis] = each;
            if each == (0, 0) { x } else { pad(s, x, &only, value) }
        };
        pads.iter().enumerate().fold(s.x(0), one)
    }),
    rule("a triangle = where it is, else 0", &["Trilu"], |s| {
        let shape = s.shape(s.x(0))?;
        let [.., rows, columns] = shape[..] else { return None };
        let k = if s.x(1).is_some() { *s.fixed(s.x(1))?.to_f64().first()? } else { 0.0 };
        let upper = s.a.int("upper", 1) != 0;
        let kept = |at: usize| {
            let diagonal = (at % columns.max(1)) as f64 - (at / columns.max(1)) as f64;
            if upper { diagonal >= k } else { diagonal <= k }
        };
        let mask: Vec<bool> = (0..rows * columns).map(kept).collect();
        let zero = TensorData::zeros(s.output().dtype, &[]);
        s.op("Where", &[s.constant(TensorData::new(&[rows, columns], &mask)), s.x(0), s.constant(zero)])
    }),
    rule("the elements in two halves", &["Relu", "Sigmoid", "Tanh", "Exp", "Neg", "Abs", "Erf", "Sqrt", "Cast"], |s| {
        let axis = s.rank(s.x(0))?.checked_sub(1)?;
        let (first, second) = cut(s, s.x(0), axis, inner(s, s.x(0), axis)?);
        s.concat(&[s.again(&[first]), s.again(&[second])], axis)
    }),
    rule("shape of the reordered = the shape's elements", &["Shape"], |s| {
        let turned = s.behind(s.x(0), &["Transpose"]).filter(|_| s.node.attributes.is_empty())?;
        let order = turned.a.ints("perm")?;
        s.op("Gather", &[s.again(&[turned.x(0)]), s.integers(order)]).filter(|_| s.output().dtype == DType::I64)
    }),
];
