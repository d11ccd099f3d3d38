//! Operators whose result has a shape that depends on data: those data are fixed when the operator is built.

use super::common::one;
use super::movement::{axis_of, refuse};
use super::suppression::NON_MAX_SUPPRESSION;
use crate::dtype::{ANY, DType};
use crate::input::Stream;
use crate::limits::MAX_RANK;
use crate::spec::{Args, Builder, Exceptional, Numerics, OpSpec, Outputs, Skip};
use crate::term::{Term, product};
use std::collections::BTreeMap;
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&NON_ZERO, &COMPRESS, &UNIQUE, &NON_MAX_SUPPRESSION];

/// Elements of a leaf with fixed content.
const MOST: i64 = 128;

/// The base of operators whose results jump with the data of their operands: nothing is certain where those may be off.
pub const OF_DATA: OpSpec = OpSpec {
    numerics: Numerics::Custom(|_, errors, exact| {
        let doubtful = |error: &Tensor| -> Result<bool, TchError> { bool::try_from(error.f_gt(0.0)?.f_any()?) };
        let mut error = 0.0;
        for operand in errors.iter().flatten() {
            error = if doubtful(operand)? { f64::INFINITY } else { error };
        }
        exact.iter().map(|y| y.f_to_kind(Kind::Double)?.f_full_like(error)).collect()
    }),
    ..OpSpec::BASE
};

/// The type of a leaf with fixed content that becomes the main operand.
fn fixed_dtype(b: &mut Builder) -> Result<DType, Skip> {
    let dtypes = b.legal(b.dtypes());
    if dtypes.is_empty() { Err(Skip::DType) } else { Ok(b.leaf_dtype(dtypes)) }
}

/// Floats are multiples of one over this.
fn denominator(dtype: DType) -> i64 {
    if dtype.is_float() { 64 } else { 1 }
}

/// An element other than 0, in units of one over [`denominator`].
fn non_zero_element(dtype: DType, stream: &mut Stream) -> i64 {
    let sign = if stream.below(2) == 1 && dtype.min() < 0.0 { -1 } else { 1 };
    let bound = match dtype {
        DType::Bool => 1,
        DType::BF16 | DType::F16 | DType::F32 | DType::F64 => 256,
        _ => 9,
    };
    sign * (1 + stream.below(bound) as i64)
}

/// ONNX NonZero, opset 13. A scalar has no axes, so that its result has no rows.
pub const NON_ZERO: OpSpec = OpSpec {
    code: 0xd5,
    name: "NonZero",
    dtypes: ANY,
    doc: "The indices of all elements that are not 0, one column each, in row-major order.",
    build: |b| {
        let dtype = fixed_dtype(b)?;
        let rank = b.one_of(&[2, 3, 1, 4, 2, 0, 1, 5]);
        let sizes = b.fixed_sizes(rank, MOST);
        let share = b.one_of(&[4, 2, 7, 1, 8, 0, 5, 6]);
        let mut stream = b.stream();
        let mut content: Vec<i64> = Vec::new();
        for _ in 0..sizes.iter().product() {
            let zero = stream.below(8) >= share;
            content.push(if zero { 0 } else { non_zero_element(dtype, &mut stream) });
        }
        let none = content.iter().all(|&element| element == 0);
        if let Some(first) = content.first_mut().filter(|_| b.smallest_size() > 0 && none) {
            *first = 1;
        }
        let count = content.iter().filter(|&&element| element != 0).count();
        fixed(b, dtype, &sizes, content);
        b.output(DType::I64, [rank, count].map(|size| Term::constant(size as i64)));
        Ok(())
    },
    eval: |a| one(a.x(0).f_ne(0.0)?.f_nonzero()?.f_transpose(0, 1)),
    ..OF_DATA
};

fn fixed(b: &mut Builder, dtype: DType, sizes: &[i64], content: Vec<i64>) {
    let shape: Vec<Term> = sizes.iter().copied().map(Term::constant).collect();
    b.fixed(dtype, shape, content.into_iter().map(Term::constant), denominator(dtype));
}

/// ONNX Compress, opset 11.
pub const COMPRESS: OpSpec = OpSpec {
    code: 0xd6,
    name: "Compress",
    exceptional: Exceptional::Moved,
    since: 11,
    dtypes: ANY,
    doc: "The slices along `axis`, or the elements, for which a condition holds; what is behind the condition is left out.",
    build: |b| {
        let x = b.input(b.dtypes(), 1..=MAX_RANK)?;
        let axis = if b.chance(96) { None } else { Some(b.axis(x.rank())) };
        let available = axis.map_or_else(|| product(&x.shape), |axis| x.shape[axis]);
        let length = b.value(available).min(MOST);
        let shorter = if b.chance(96) { b.below(4.min(length.max(1)) as usize) as i64 } else { 0 };
        let length = length - shorter;
        b.require(available.at_least(length));
        let share = b.one_of(&[4, 2, 7, 1, 8, 0, 5, 6]);
        let mut stream = b.stream();
        let mut condition: Vec<i64> = (0..length).map(|_| i64::from(stream.below(8) < share)).collect();
        let none = condition.iter().all(|&kept| kept == 0);
        // Nothing is kept of nothing.
        if let Some(first) = condition.first_mut().filter(|_| b.smallest_size() > 0 && none) {
            *first = 1;
        }
        let kept = Term::constant(condition.iter().sum());
        fixed(b, DType::Bool, &[length], condition);
        let Some(axis) = axis else {
            b.output(x.dtype, [kept]);
            return Ok(());
        };
        let written = b.signed_axis(axis, x.rank());
        b.set_int("axis", written);
        let mut shape = x.shape;
        shape[axis] = kept;
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| {
        let kept = a.x(1).f_reshape([-1])?.f_nonzero()?.f_reshape([-1])?;
        match a.attribute("axis") {
            Some(_) => one(a.x(0).f_index_select(axis_of(a, 0, a.rank(0)), &kept)),
            None => one(a.x(0).f_reshape([-1])?.f_index_select(0, &kept)),
        }
    },
    ..OpSpec::BASE
};

/// ONNX Unique, opset 11. Subtensors are ordered as NumPy does, by their first different elements.
pub const UNIQUE: OpSpec = OpSpec {
    code: 0xd7,
    name: "Unique",
    since: 11,
    dtypes: ANY,
    doc: "The distinct elements, or slices along `axis`, with their first indices, the index of each, and their numbers.",
    build: build_unique,
    eval: eval_unique,
    ..OF_DATA
};

fn build_unique(b: &mut Builder) -> Result<(), Skip> {
    let dtype = fixed_dtype(b)?;
    let rank = b.one_of(&[1, 2, 3, 2, 1, 4, 0, 3]);
    let axis = if rank == 0 || b.chance(96) { None } else { Some(b.axis(rank)) };
    let mut sizes = b.fixed_sizes(rank, MOST);
    if axis.is_some() {
        // The text does not say how many different slices there are among those without elements.
        sizes.iter_mut().for_each(|size| *size = (*size).max(1));
    }
    let count: i64 = sizes.iter().product();
    let (slices, inner) = axis.map_or((count, 1), |axis| (sizes[axis], sizes[axis + 1..].iter().product()));
    let variety = 1 + b.below(slices.clamp(1, 16) as usize) as u64;
    let mut stream = b.stream();
    // Slices that are equal in their first elements, too: a copy of one of few, with an element changed now and then.
    let seed = stream.next_u64();
    let copied: Vec<u64> = (0..slices).map(|_| stream.below(variety)).collect();
    let value = |slice: i64, within: i64| {
        let shared = if within % 3 == 2 { copied[slice as usize] } else { copied[slice as usize] / 2 };
        let mut stream = Stream::new(seed ^ shared << 32 ^ within as u64);
        if stream.below(4) == 0 { 0 } else { non_zero_element(dtype, &mut stream) }
    };
    let content: Vec<i64> =
        (0..count).map(|i| value(i / inner % slices, i / (inner * slices) * inner + i % inner)).collect();
    let mut rows = vec![Vec::new(); slices as usize];
    for (i, &element) in content.iter().enumerate() {
        rows[(i as i64 / inner % slices) as usize].push(element);
    }
    let distinct = Term::constant(Groups::of(&rows, true).first.len() as i64);
    fixed(b, dtype, &sizes, content);
    if let Some(axis) = axis {
        let written = b.signed_axis(axis, rank);
        b.set_int("axis", written);
    }
    let sorted = b.coin();
    if !sorted || b.coin() {
        b.set_int("sorted", i64::from(sorted));
    }
    let mut shape: Vec<Term> = sizes.iter().copied().map(Term::constant).collect();
    match axis {
        Some(axis) => shape[axis] = distinct,
        None => shape = vec![distinct],
    }
    b.output(dtype, shape);
    let outputs = b.one_of(&[4, 1, 2, 3, 4, 4]);
    for (index, length) in [distinct, Term::constant(slices), distinct].into_iter().take(outputs - 1).enumerate() {
        b.output(DType::I64, [length]);
        if index + 2 < outputs && b.chance(96) {
            b.omit();
        }
    }
    Ok(())
}

/// Which rows are equal.
struct Groups {
    /// The first row of each group.
    first: Vec<i64>,
    /// The group of each row.
    group: Vec<i64>,
    counts: Vec<i64>,
}

impl Groups {
    /// The groups in the order of their rows' elements when `sorted`, else of their first rows.
    fn of(rows: &[Vec<i64>], sorted: bool) -> Groups {
        let mut members: BTreeMap<&[i64], Vec<usize>> = BTreeMap::new();
        for (index, row) in rows.iter().enumerate() {
            members.entry(row).or_default().push(index);
        }
        let mut members: Vec<Vec<usize>> = members.into_values().collect();
        if !sorted {
            members.sort_by_key(|rows| rows[0]);
        }
        let mut group = vec![0; rows.len()];
        for (index, rows) in members.iter().enumerate() {
            rows.iter().for_each(|&row| group[row] = index as i64);
        }
        let first = members.iter().map(|rows| rows[0] as i64).collect();
        Groups { first, group, counts: members.iter().map(|rows| rows.len() as i64).collect() }
    }
}

/// An integer for each element, in the same order as the elements.
fn keys(x: &Tensor) -> Result<Vec<i64>, TchError> {
    let x = x.detach().f_reshape([-1])?;
    if !super::common::is_float(x.kind()) {
        return Vec::try_from(x.f_to_kind(Kind::Int64)?);
    }
    let ordered = |value: f64| {
        // Zeros of either sign are one value.
        let bits = (value + 0.0).to_bits() as i64;
        if bits < 0 { i64::MIN - bits } else { bits }
    };
    Ok(Vec::<f64>::try_from(x.f_to_kind(Kind::Double)?)?.into_iter().map(ordered).collect())
}

fn eval_unique(a: &Args) -> Outputs {
    let (x, axis) = match a.attribute("axis") {
        Some(_) => (a.x(0).shallow_clone(), axis_of(a, 0, a.rank(0))),
        None => (a.x(0).f_reshape([-1])?, 0),
    };
    let slices = x.size()[axis as usize];
    if x.numel() == 0 && slices > 0 {
        return refuse("Unique of slices without elements");
    }
    let keys = keys(&x.f_movedim_int(axis, 0)?.f_contiguous()?)?;
    let rows: Vec<Vec<i64>> = keys.chunks((keys.len() / slices.max(1) as usize).max(1)).map(<[i64]>::to_vec).collect();
    let groups = Groups::of(&rows, a.int("sorted", 1) != 0);
    let list = |list: &[i64]| Tensor::from_slice(list);
    let mut outputs = vec![x.f_index_select(axis, &list(&groups.first))?];
    outputs.extend([&groups.first, &groups.group, &groups.counts].map(|values| list(values)));
    outputs.truncate(a.output_dtypes.len());
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Attribute;

    fn apply(spec: &OpSpec, operands: Vec<Tensor>, attributes: &[(&'static str, i64)], outputs: usize) -> Vec<Tensor> {
        let attributes: Vec<_> = attributes.iter().map(|&(name, value)| (name.into(), Attribute::Int(value))).collect();
        let args = Args {
            operand_dtypes: operands.iter().map(|_| Some(DType::F32)).collect(),
            operands: operands.into_iter().map(Some).collect(),
            attributes: &attributes,
            output_dtypes: vec![DType::I64; outputs],
            opset: 28,
            wide: true,
            accumulate: None,
        };
        (spec.eval)(&args).expect("a legal application")
    }

    fn numbers(x: &Tensor) -> Vec<i64> {
        Vec::try_from(x.to_kind(Kind::Int64).reshape([-1])).expect("integers")
    }

    #[test]
    fn examples_of_onnx() {
        let matrix = |values: &[f64], columns: i64| Tensor::from_slice(values).reshape([-1, columns]);
        let indices = &apply(&NON_ZERO, vec![matrix(&[1.0, 0.0, 1.0, 1.0], 2)], &[], 1)[0];
        assert_eq!((indices.size(), numbers(indices)), (vec![2, 3], vec![0, 1, 1, 0, 0, 1]));
        let scalar = &apply(&NON_ZERO, vec![Tensor::from(5.0)], &[], 1)[0];
        assert_eq!(scalar.size(), [0, 1]);

        let x = || matrix(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2);
        let condition = |values: &[bool]| Tensor::from_slice(values);
        let rows = apply(&COMPRESS, vec![x(), condition(&[false, true, true])], &[("axis", 0)], 1);
        assert_eq!(numbers(&rows[0]), [3, 4, 5, 6]);
        let columns = apply(&COMPRESS, vec![x(), condition(&[false, true])], &[("axis", -1)], 1);
        assert_eq!(numbers(&columns[0]), [2, 4, 6]);
        let elements = apply(&COMPRESS, vec![x(), condition(&[false, true, false, false, true])], &[], 1);
        assert_eq!(numbers(&elements[0]), [2, 5]);
    }

    #[test]
    fn unique_examples_of_onnx() {
        let list = || Tensor::from_slice(&[2.0, 1.0, 1.0, 3.0, 4.0, 3.0]);
        let unsorted: Vec<Vec<i64>> = apply(&UNIQUE, vec![list()], &[("sorted", 0)], 4).iter().map(numbers).collect();
        assert_eq!(unsorted, [vec![2, 1, 3, 4], vec![0, 1, 3, 4], vec![0, 1, 1, 2, 3, 2], vec![1, 2, 2, 1]]);
        let sorted: Vec<Vec<i64>> = apply(&UNIQUE, vec![list()], &[], 4).iter().map(numbers).collect();
        assert_eq!(sorted, [vec![1, 2, 3, 4], vec![1, 0, 3, 4], vec![1, 0, 0, 2, 3, 2], vec![2, 1, 2, 1]]);
        let x = [1.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0];
        let x = Tensor::from_slice(&x).reshape([2, 4, 2]);
        let slices = apply(&UNIQUE, vec![x], &[("axis", 1)], 4);
        assert_eq!(slices[0].size(), [2, 3, 2]);
        let slices: Vec<Vec<i64>> = slices.iter().map(numbers).collect();
        assert_eq!(slices[0], [0, 1, 1, 1, 2, 1, 0, 1, 1, 1, 2, 1]);
        assert_eq!(slices[1..], [vec![1, 0, 2], vec![1, 0, 2, 0], vec![2, 1, 1]]);
        let signs = Tensor::from_slice(&[-0.5, 0.0, -2.0, -0.0, 3.0]);
        assert_eq!(numbers(&apply(&UNIQUE, vec![signs], &[], 2)[1]), [2, 0, 1, 4]);
    }
}
