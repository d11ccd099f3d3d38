//! Matrix products.

use super::common::{as_output, is_float, one};
use super::windows::unsupported;
use crate::dtype::{DType, DTypes, FLOATS, WIDE_INTS};
use crate::spec::{Args, Builder, Numerics, OpSpec, Operand, Outputs, Skip};
use crate::term::Term;
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&MATMUL, &GEMM, &MATMUL_INTEGER];

/// The element types of an 8-bit quantized matrix.
const BYTES: DTypes = DTypes::of(&[DType::U8, DType::I8]);

pub const MATMUL: OpSpec = OpSpec {
    code: 0x58,
    name: "MatMul",
    dtypes: FLOATS.or(WIDE_INTS),
    doc: "The matrix product of NumPy: rank 1 is a vector, leading dimensions broadcast.",
    numerics: Numerics::Accumulated,
    build: |b| {
        let x = b.input(b.dtypes(), 1..=4)?;
        let y = second_matrix(b, &x, x.dtype);
        b.accumulate(x.shape[x.rank() - 1]);
        let shape = product_shape(b, &x, &y);
        b.output(x.dtype, shape);
        Ok(())
    },
    eval: |a| one(a.x(0).f_matmul(a.x(1))),
    can_overflow: true,
    ..OpSpec::BASE
};

pub const GEMM: OpSpec = OpSpec {
    code: 0x59,
    name: "Gemm",
    dtypes: FLOATS.or(WIDE_INTS),
    doc: "alpha * A' * B' + beta * C, where A' and B' are A and B or their transposes, and C broadcasts to the product.",
    numerics: Numerics::Accumulated,
    build: build_gemm,
    eval: |a| {
        let transposed = |index: usize, name| {
            let x = a.x(index);
            if a.int(name, 0) != 0 { x.f_transpose(0, 1) } else { Ok(x.shallow_clone()) }
        };
        let product = transposed(0, "transA")?.f_matmul(&transposed(1, "transB")?)?;
        let y = scaled(&product, a.float("alpha", 1.0))?;
        match a.opt(2) {
            Some(c) => one(y.f_add(&scaled(c, a.float("beta", 1.0))?)),
            None => Ok(vec![y]),
        }
    },
    can_overflow: true,
    ..OpSpec::BASE
};

pub const MATMUL_INTEGER: OpSpec = OpSpec {
    code: 0x5a,
    name: "MatMulInteger",
    since: 10,
    dtypes: BYTES,
    doc: "The int32 matrix product of 8-bit matrices less their zero points, which are scalars or one for each row or column.",
    numerics: Numerics::Accumulated,
    build: |b| {
        let x = b.input(b.dtypes(), 1..=4)?;
        let dtype = b.one_of(&[DType::U8, DType::I8]);
        let y = second_matrix(b, &x, dtype);
        b.accumulate(x.shape[x.rank() - 1]);
        let shape = product_shape(b, &x, &y);
        let (first, second) = (b.coin(), b.coin());
        match first {
            true => zero_point(b, &x, x.rank().wrapping_sub(2)),
            false if second => b.absent(),
            false => {}
        }
        if second {
            zero_point(b, &y, y.rank() - 1);
        }
        b.output(DType::I32, shape);
        Ok(())
    },
    eval: matmul_integer,
    can_overflow: true,
    ..OpSpec::BASE
};

/// The second operand of a matrix product with `x`.
fn second_matrix(b: &mut Builder, x: &Operand, dtype: DType) -> Operand {
    const RANKS: [usize; 8] = [2, 3, 2, 4, 1, 3, 2, 4];
    let rank = b.one_of(&RANKS);
    let inner = x.shape[x.rank() - 1];
    let mut shape: Vec<Option<Term>> = Vec::new();
    let batch = &x.shape[..x.rank().saturating_sub(2)];
    for from_end in (0..rank.saturating_sub(2)).rev() {
        let dim = batch.len().checked_sub(from_end + 1).map(|index| batch[index]);
        let pick = b.below(4);
        shape.push(Some(match dim {
            Some(dim) if pick > 0 && b.value(dim) != 1 => dim,
            Some(dim) if b.value(dim) != 1 => Term::constant(1),
            _ => b.free_near(1..=4, 1 + pick as i64),
        }));
    }
    shape.push(Some(inner));
    if rank > 1 {
        shape.push(None);
    }
    if b.coin() {
        return b.input_shaped(dtype, &shape);
    }
    let shape: Vec<Term> = shape.iter().map(|dim| dim.unwrap_or_else(|| b.size(rank))).collect();
    b.weight(dtype, shape)
}

fn product_shape(b: &mut Builder, x: &Operand, y: &Operand) -> Vec<Term> {
    let batch = |operand: &Operand| operand.shape[..operand.rank().saturating_sub(2)].to_vec();
    let mut shape = b.broadcast(&[&batch(x), &batch(y)]);
    if x.rank() > 1 {
        shape.push(x.shape[x.rank() - 2]);
    }
    if y.rank() > 1 {
        shape.push(y.shape[y.rank() - 1]);
    }
    shape
}

/// A zero point of `matrix`: a scalar, or one for each element along `axis`.
fn zero_point(b: &mut Builder, matrix: &Operand, axis: usize) {
    let shape = match matrix.rank() {
        2 if b.coin() => vec![matrix.shape[axis]],
        rank if rank > 2 && b.coin() => {
            let mut shape = matrix.shape.clone();
            let other = if axis == rank - 1 { rank - 2 } else { rank - 1 };
            shape[other] = Term::constant(1);
            shape
        }
        _ => Vec::new(),
    };
    b.weight(matrix.dtype, shape);
}

fn matmul_integer(a: &Args) -> Outputs {
    let kind = a.output_kind(0);
    let shifted = |index: usize, column: bool| -> Result<Tensor, TchError> {
        let x = a.x(index).f_to_kind(kind)?;
        let Some(zero) = a.opt(index + 2) else { return Ok(x) };
        let zero = zero.f_to_kind(kind)?;
        match zero.dim() {
            _ if zero.numel() == 1 => x.f_sub(&zero.f_reshape(&[] as &[i64])?),
            1 if column => x.f_sub(&zero.f_unsqueeze(-1)?),
            _ => x.f_sub(&zero),
        }
    };
    as_output(a, shifted(0, true)?.f_matmul(&shifted(1, false)?)?)
}

fn build_gemm(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 2..=2)?;
    let (across, down) = (b.coin(), b.coin());
    for (name, transposed) in [("transA", across), ("transB", down)] {
        if transposed || b.chance(96) {
            b.set_int(name, i64::from(transposed));
        }
    }
    let [rows, columns] = x.dims();
    let (m, k) = if across { (columns, rows) } else { (rows, columns) };
    let shape = if down { [None, Some(k)] } else { [Some(k), None] };
    let y = if b.coin() {
        b.input_shaped(x.dtype, &shape)
    } else {
        let shape = shape.map(|dim| dim.unwrap_or_else(|| b.size(2)));
        b.weight(x.dtype, shape)
    };
    let n = y.shape[usize::from(!down)];
    // Floats that scale integers have a meaning only where they are integers themselves.
    let scales: &[f32] = if x.dtype.is_float() { &[0.5, -1.0, 2.0, 0.1, 1.25, 1.0] } else { &[2.0, -1.0, 3.0, 1.0] };
    if !b.chance(72) {
        let alpha = b.one_of(scales);
        b.set_float("alpha", alpha);
    }
    if b.chance(176) {
        let one = Term::constant(1);
        let shape = match b.below(8) {
            0..3 => vec![n],
            3 => vec![m, n],
            4 => vec![one, n],
            5 => vec![m, one],
            6 => vec![one],
            _ => vec![],
        };
        if b.coin() {
            b.input_like(x.dtype, shape);
        } else {
            b.weight(x.dtype, shape);
        }
        if !b.chance(32) {
            let beta = b.one_of(scales);
            b.set_float("beta", beta);
        }
    }
    // Both factors and the addend round, too.
    b.accumulate(k + 3);
    b.output(x.dtype, [m, n]);
    Ok(())
}

fn scaled(x: &Tensor, factor: f64) -> Result<Tensor, TchError> {
    match () {
        () if factor == 1.0 => Ok(x.shallow_clone()),
        () if is_float(x.kind()) => x.f_mul_scalar(factor),
        () if factor.fract() == 0.0 => x.f_mul_scalar(factor as i64),
        () => Err(unsupported("integers scaled by a fraction")),
    }
}
