//! Matrix products.

use super::common::{as_output, is_float, one};
use super::scales::{self, BYTES};
use super::windows::unsupported;
use crate::dtype::{DType, FLOATS, WIDE_INTS};
use crate::spec::{Args, Builder, Domain, Numerics, OpSpec, Operand, Outputs, Skip};
use crate::term::Term;
use tch::{TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&MATMUL, &GEMM, &MATMUL_INTEGER];

pub const MATMUL: OpSpec = OpSpec {
    code: 0x58,
    name: "MatMul",
    dtypes: FLOATS.or(WIDE_INTS),
    doc: "The matrix product of NumPy: rank 1 is a vector, leading dimensions broadcast.",
    numerics: Numerics::Accumulated,
    build: |b| {
        let x = b.input(b.dtypes(), 1..=4)?;
        let y = second_matrix(b, &x, x.dtype, Domain::Any);
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
    doc: "The int32 matrix product of 8-bit matrices less their zero points, of which there is one, or one for each row or column.",
    numerics: Numerics::Accumulated,
    build: |b| {
        let values = scales::values(b);
        let x = b.input_in_domain(b.dtypes(), 1..=4, values)?;
        let dtype = b.one_of(&[DType::U8, DType::I8]);
        let y = second_matrix(b, &x, dtype, values(dtype));
        b.accumulate(x.shape[x.rank() - 1]);
        let shape = product_shape(b, &x, &y);
        let (first, second) = (b.coin(), b.coin());
        match first {
            true => zero_point(b, &x, true),
            false if second => b.absent(),
            false => {}
        }
        if second {
            zero_point(b, &y, false);
        }
        b.output(DType::I32, shape);
        Ok(())
    },
    eval: matmul_integer,
    can_overflow: true,
    ..OpSpec::BASE
};

/// The second operand of a matrix product with `x`; a parameter has values in `domain`.
pub(super) fn second_matrix(b: &mut Builder, x: &Operand, dtype: DType, domain: Domain) -> Operand {
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
    b.weight_in(dtype, shape, domain)
}

pub(super) fn product_shape(b: &mut Builder, x: &Operand, y: &Operand) -> Vec<Term> {
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

/// A zero point of `matrix`, the first one of a product or the second.
fn zero_point(b: &mut Builder, matrix: &Operand, first: bool) {
    let shape = parameter_shape(b, matrix, first);
    b.weight(matrix.dtype, shape);
}

/// The shape of a zero point, or of a scale, of the first or the second matrix of a product: one number, or one for each
/// row or column.
pub(super) fn parameter_shape(b: &mut Builder, matrix: &Operand, first: bool) -> Vec<Term> {
    let (rank, one) = (matrix.rank(), Term::constant(1));
    match rank {
        2 if b.coin() => vec![matrix.shape[usize::from(!first)]],
        3.. if b.coin() => {
            let mut shape = matrix.shape.clone();
            shape[if first { rank - 1 } else { rank - 2 }] = one;
            shape
        }
        // The node tests of ONNX write a scalar so.
        _ if b.chance(96) => vec![one],
        _ => Vec::new(),
    }
}

/// A zero point or a scale of the first or the second matrix, such that it broadcasts against the matrix.
pub(super) fn laid(parameter: &Tensor, first: bool) -> Result<Tensor, TchError> {
    match parameter.dim() {
        _ if parameter.numel() == 1 => parameter.f_reshape(&[] as &[i64]),
        1 if first => parameter.f_unsqueeze(-1),
        _ => Ok(parameter.shallow_clone()),
    }
}

fn matmul_integer(a: &Args) -> Outputs {
    let kind = a.output_kind(0);
    let shifted = |index: usize| -> Result<Tensor, TchError> {
        let x = a.x(index).f_to_kind(kind)?;
        let Some(zero) = a.opt(index + 2) else { return Ok(x) };
        x.f_sub(&laid(&zero.f_to_kind(kind)?, index == 0)?)
    };
    as_output(a, shifted(0)?.f_matmul(&shifted(1)?)?)
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
