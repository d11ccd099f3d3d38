//! Operators that cut out, extend, mask or reverse parts of a tensor.

use super::common::one;
use super::movement::{axes_of, refuse};
use crate::dtype::DType;
use crate::limits::{MAX_RANK, MAX_SIZE};
use crate::spec::{Builder, Domain, Exceptional, OpSpec};
use crate::term::Term;
use tch::{Device, Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&SLICE, &PAD, &TRILU, &REVERSE_SEQUENCE];

/// A one-dimensional constant of type `dtype`.
fn list(b: &mut Builder, dtype: DType, elements: Vec<Term>) {
    let shape = vec![Term::constant(elements.len() as i64)];
    b.constant_leaf(dtype, shape, elements);
}

/// At least one axis: some of them in any order, or all in order.
fn some_axes(b: &mut Builder, rank: usize, listed: bool) -> Vec<usize> {
    if !listed {
        return (0..rank).collect();
    }
    let mut axes = b.axes(rank);
    if axes.is_empty() {
        axes.push(b.axis(rank));
    }
    let order = b.permutation(axes.len());
    order.into_iter().map(|i| axes[i]).collect()
}

/// ONNX Slice, opset 13.
pub const SLICE: OpSpec = OpSpec {
    code: 0x90,
    name: "Slice",
    exceptional: Exceptional::Moved,
    doc: "Every `steps`-th element from `starts` up to `ends` along `axes`, forward or backward.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let dtype = b.one_of(&[DType::I64, DType::I64, DType::I32]);
        let (listed, stepped) = (b.chance(192), b.chance(144));
        let axes = some_axes(b, x.rank(), listed);
        let mut shape = x.shape.clone();
        let (mut starts, mut ends, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        for &axis in &axes {
            let cut = cut(b, x.shape[axis], stepped, dtype);
            shape[axis] = cut.size;
            starts.push(cut.start);
            ends.push(cut.end);
            steps.push(cut.step);
        }
        list(b, dtype, starts);
        list(b, dtype, ends);
        if listed {
            let written = written_axes_in_order(b, &axes, x.rank());
            list(b, dtype, written);
        } else if stepped {
            b.absent();
        }
        if stepped {
            list(b, dtype, steps);
        }
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let (starts, ends) = (a.list(1).unwrap_or_default(), a.list(2).unwrap_or_default());
        let axes = axes_of(a, 3, a.rank(0)).unwrap_or_else(|| (0..starts.len()).collect());
        let steps = a.list(4).unwrap_or_else(|| vec![1; starts.len()]);
        if [starts.len(), ends.len(), steps.len()] != [axes.len(); 3] {
            return refuse("Slice with lists of different lengths");
        }
        let mut x = a.x(0).shallow_clone();
        for (i, &axis) in axes.iter().enumerate() {
            x = slice(&x, axis, starts[i], ends[i], steps[i])?;
        }
        Ok(vec![x])
    },
    ..OpSpec::BASE
};

/// `axes` in their order, each counted from either end.
fn written_axes_in_order(b: &mut Builder, axes: &[usize], rank: usize) -> Vec<Term> {
    axes.iter().map(|&axis| b.signed_axis(axis, rank).into()).collect()
}

/// A slice of one axis as it is written, and how many elements it keeps.
struct Cut {
    start: Term,
    end: Term,
    step: Term,
    size: Term,
}

fn cut(b: &mut Builder, dim: Term, stepped: bool, dtype: DType) -> Cut {
    let size = b.value(dim);
    let least = b.smallest_size();
    let stride = if stepped { b.free(1..=3) } else { Term::constant(1) };
    let backward = stepped && size > 0 && b.chance(112);
    let to_edge = b.chance(112);
    let (negative_start, negative_end) = (b.coin(), b.coin());
    let (before_all, after_all) = match dtype {
        DType::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    let skipped = b.below(size.clamp(1, 4) as usize) as i64;
    let rest = b.below((size - skipped).clamp(1, 4) as usize) as i64;
    // The first element taken, and the one after the last, from the front.
    let first = b.free_near(0..=MAX_SIZE, if backward { size - 1 - skipped } else { skipped });
    let (end, count, written_end);
    if backward {
        b.require(first.at_most(dim - 1));
        end = if to_edge { Term::constant(-1) } else { b.free_near(0..=MAX_SIZE, rest - least) };
        count = first - end;
        written_end = match (to_edge, negative_end) {
            (true, true) => Term::constant(before_all),
            // From the end, -1 is before the first element.
            (true, false) => end - dim,
            (false, true) => end - dim,
            (false, false) => end,
        };
    } else {
        end = if to_edge { dim } else { b.free_near(0..=MAX_SIZE, size - rest) };
        count = end - first;
        b.require(end.at_most(dim));
        written_end = match (to_edge, negative_end) {
            (true, true) => Term::constant(after_all),
            (false, true) if rest > 0 => {
                b.require(end.at_most(dim - 1));
                end - dim
            }
            _ => end,
        };
    }
    b.require(count.at_least(least));
    let written_start = if skipped == 0 && b.chance(48) {
        // Out of range, where the start is clamped.
        b.require(first.equals(if backward { dim - 1 } else { Term::constant(0) }));
        Term::constant(if backward { after_all } else { before_all })
    } else if negative_start && size > 0 {
        b.require(first.at_most(dim - 1));
        first - dim
    } else {
        first
    };
    let step = if backward { Term::constant(0) - stride } else { stride };
    Cut { start: written_start, end: written_end, step, size: count.div_ceil(stride) }
}

fn slice(x: &Tensor, axis: usize, start: i64, end: i64, step: i64) -> Result<Tensor, TchError> {
    let dim = x.size().get(axis).map_or_else(|| refuse("an axis out of range"), |&dim| Ok(dim))?;
    let axis = axis as i64;
    let from_front = |index: i64| if index < 0 { index + dim } else { index };
    let (start, end) = (from_front(start), from_front(end));
    if step == 0 {
        return refuse("Slice with a step of 0");
    }
    if step > 0 {
        let start = start.clamp(0, dim);
        return x.f_slice(axis, start, end.clamp(start, dim), step);
    }
    let stride = step.saturating_neg();
    let (start, end) = (start.min(dim - 1).max(0), end.min(dim - 1).max(-1));
    if start <= end || dim == 0 {
        return x.f_narrow(axis, 0, 0);
    }
    let lowest = start - (start - end - 1) / stride * stride;
    x.f_slice(axis, lowest, start + 1, stride)?.f_flip([axis])
}

/// ONNX Pad. The operand `axes` came with opset 18, the mode `wrap` with 19.
pub const PAD: OpSpec = OpSpec {
    code: 0x91,
    name: "Pad",
    exceptional: Exceptional::Moved,
    since: 11,
    doc: "Adds elements at the ends of axes: a constant, mirrored ones, the outermost or those of the other end; negative pads remove.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let modes = ["constant", "reflect", "edge", "constant", "wrap"];
        let mode = b.one_of(&modes[..if b.opset() < 19 { 3 } else { 5 }]);
        let listed = b.opset() >= 18 && b.coin();
        let axes = some_axes(b, x.rank(), listed);
        let (mut shape, mut begins, mut ends) = (x.shape.clone(), Vec::new(), Vec::new());
        for &axis in &axes {
            let [begin, end] = pads(b, x.shape[axis], mode);
            shape[axis] = shape[axis] + begin + end;
            begins.push(begin);
            ends.push(end);
        }
        b.constant(begins.into_iter().chain(ends));
        let valued = mode == "constant" && b.chance(160);
        if valued {
            b.weight(x.dtype, []);
        } else if listed {
            b.absent();
        }
        if listed {
            // The type int32 is allowed, but ONNX's own shape inference fails on it.
            let written = written_axes_in_order(b, &axes, x.rank());
            b.constant(written);
        }
        if mode != "constant" || b.coin() {
            b.set_text("mode", mode);
        }
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let axes = axes_of(a, 3, a.rank(0)).unwrap_or_else(|| (0..a.rank(0)).collect());
        let pads = a.list(1).unwrap_or_default();
        let mode = a.text("mode", "constant");
        if pads.len() != 2 * axes.len() {
            return refuse("Pad with another number of pads than two for each axis");
        }
        let mut x = a.x(0).shallow_clone();
        for (i, &axis) in axes.iter().enumerate() {
            let (begin, end) = (pads[i], pads[axes.len() + i]);
            let kept = x.size()[axis] + begin.min(0) + end.min(0);
            x = x.f_narrow(axis as i64, -begin.min(0), kept)?;
            let (begin, end) = (begin.max(0), end.max(0));
            x = match mode {
                "constant" => pad_constant(&x, a.opt(2), axis, begin, end)?,
                "reflect" | "edge" | "wrap" if kept > 0 => {
                    let index = |position: i64| match mode {
                        "edge" => position,
                        "wrap" => position.rem_euclid(kept),
                        _ => mirrored(position, kept),
                    };
                    let indices: Vec<i64> = (-begin..kept + end).map(|p| index(p).clamp(0, kept - 1)).collect();
                    x.f_index_select(axis as i64, &Tensor::from_slice(&indices))?
                }
                _ => return refuse("Pad in an unknown mode, or of an empty axis"),
            };
        }
        Ok(vec![x])
    },
    ..OpSpec::BASE
};

/// Symbolic pads for both ends of a dimension.
fn pads(b: &mut Builder, dim: Term, mode: &str) -> [Term; 2] {
    let size = b.value(dim);
    let least = b.smallest_size();
    let (low, high) = match mode {
        "constant" => (-2, 4),
        "edge" => (0, 4),
        _ => (0, 7),
    };
    let mut pad = |kept: i64| {
        let (low_hint, high_hint) = match mode {
            "constant" => ((least - kept).clamp(low, 0), high),
            "edge" => (0, high),
            "wrap" => (0, size.clamp(1, 4)),
            _ => (0, (size - 1).clamp(0, 4)),
        };
        let hint = low_hint + b.below((high_hint - low_hint + 1) as usize) as i64;
        b.free_near(low..=high, hint)
    };
    let begin = pad(size);
    let end = pad(size - 2);
    match mode {
        "constant" => b.require((dim + begin.min(0) + end.min(0)).at_least(least)),
        "edge" | "wrap" => b.require(dim.at_least(1)),
        _ => {
            // A mirror shows at most every other element once.
            b.require(begin.at_most(dim - 1));
            b.require(end.at_most(dim - 1));
        }
    }
    [begin, end]
}

/// `position` mirrored at both ends of `0..size` until it lies inside.
fn mirrored(position: i64, size: i64) -> i64 {
    let period = (2 * (size - 1)).max(1);
    let within = position.rem_euclid(period);
    within.min(period - within)
}

fn pad_constant(x: &Tensor, value: Option<&Tensor>, axis: usize, begin: i64, end: i64) -> Result<Tensor, TchError> {
    if begin == 0 && end == 0 {
        return Ok(x.shallow_clone());
    }
    let value = match value {
        Some(value) => value.f_to_kind(x.kind())?.f_reshape(&[] as &[i64])?,
        None => Tensor::f_zeros([] as [i64; 0], (x.kind(), x.device()))?,
    };
    let fill = |size| {
        let mut shape = x.size();
        shape[axis] = size;
        value.f_expand(shape, false)
    };
    Tensor::f_cat(&[fill(begin)?, x.shallow_clone(), fill(end)?], axis as i64)
}

/// ONNX Trilu, opset 14.
pub const TRILU: OpSpec = OpSpec {
    code: 0x92,
    name: "Trilu",
    exceptional: Exceptional::Moved,
    since: 14,
    doc: "The upper or lower triangle of matrices, from the diagonal `k` on.",
    build: |b| {
        let x = b.input(b.dtypes(), 2..=MAX_RANK)?;
        if b.chance(176) {
            let k = b.free(-4..=4);
            b.constant_scalar(DType::I64, k);
        }
        let upper = !b.mostly();
        if !upper || b.coin() {
            b.set_int("upper", i64::from(upper));
        }
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        let k = a.list(1).and_then(|k| k.first().copied()).unwrap_or(0);
        one(if a.int("upper", 1) != 0 { a.x(0).f_triu(k) } else { a.x(0).f_tril(k) })
    },
    ..OpSpec::BASE
};

/// ONNX ReverseSequence, opset 10.
pub const REVERSE_SEQUENCE: OpSpec = OpSpec {
    code: 0x93,
    name: "ReverseSequence",
    exceptional: Exceptional::Moved,
    since: 10,
    doc: "Reverses the first `sequence_lens[i]` elements in time of each batch item i.",
    build: |b| {
        let x = b.input(b.dtypes(), 2..=MAX_RANK)?;
        let time = b.below(2);
        // Lengths are data, so that their bound must be a number: time may only grow from here.
        let longest = b.value(x.shape[time]);
        b.require(x.shape[time].at_least(longest));
        b.leaf(DType::I64, [x.shape[1 - time]], Domain::Range(0.0, longest as f64));
        if time == 1 || b.coin() {
            b.set_int("time_axis", time as i64);
            b.set_int("batch_axis", 1 - time as i64);
        }
        b.output(x.dtype, x.shape);
        Ok(())
    },
    eval: |a| {
        let (time, batch) = (a.int("time_axis", 0), a.int("batch_axis", 1));
        let shape = a.shape(0);
        let along = |axis: i64| (0..shape.len() as i64).map(|i| if i == axis { -1 } else { 1 }).collect::<Vec<_>>();
        let step = Tensor::f_arange(shape[time as usize], (Kind::Int64, Device::Cpu))?.f_reshape(along(time))?;
        let length = a.x(1).f_to_kind(Kind::Int64)?.f_reshape(along(batch))?;
        let index = length.f_sub_scalar(1)?.f_sub(&step)?.f_where_self(&step.f_lt_tensor(&length)?, &step)?;
        one(a.x(0).f_gather(time, &index.f_expand(&shape, false)?, false))
    },
    ..OpSpec::BASE
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_clamp_as_the_text_says() {
        let x = Tensor::from_slice(&[0i64, 1, 2, 3, 4]);
        let cases: [(i64, i64, i64, &[i64]); 8] = [
            (1, -1, 2, &[1, 3]),
            (0, i64::MAX, 3, &[0, 3]),
            (i64::MAX, i64::MIN, -2, &[4, 2, 0]),
            (-2, 0, -1, &[3, 2, 1]),
            (3, -6, -2, &[3, 1]),
            (-9, 2, 1, &[0, 1]),
            (4, 2, 1, &[]),
            (1, 3, -1, &[]),
        ];
        for (start, end, step, expected) in cases {
            let y = slice(&x, 0, start, end, step).expect("a slice");
            assert_eq!(Vec::<i64>::try_from(&y).expect("integers"), expected, "{start}:{end}:{step}");
        }
    }

    #[test]
    fn a_mirror_does_not_repeat_the_edge() {
        let mirror = |size| (-3..size + 3).map(|position| mirrored(position, size)).collect::<Vec<_>>();
        assert_eq!(mirror(4), [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]);
        assert_eq!(mirror(1), [0; 7]);
    }
}
