//! Sums of products along named axes, and determinants.

use super::common::{as_output, is_float, one};
use super::einsum::Equation;
use super::rounding::{defined, error_of, gamma, underflow, unless_overflow};
use crate::dtype::{FLOATS, NUMBERS};
use crate::limits::MAX_RANK;
use crate::spec::{Args, Builder, Numerics, OpSpec, Outputs, Skip};
use crate::term::{Term, product};
use tch::{Kind, Tensor};

pub const TABLE: &[&OpSpec] = &[&EINSUM, &DET];

/// ONNX Einsum, opset 12.
pub const EINSUM: OpSpec = OpSpec {
    code: 0xd0,
    name: "Einsum",
    since: 12,
    dtypes: NUMBERS,
    doc: "Sums of products by an equation that names the axes of each operand and of the result.",
    numerics: Numerics::Accumulated,
    build: build_einsum,
    eval: |a| {
        // libtorch sums narrow integers into i64, and refuses to multiply what it summed with what it did not.
        let kind = if is_float(a.x(0).kind()) { a.x(0).kind() } else { Kind::Int64 };
        let operands = a.operands.iter().flatten().map(|x| x.f_to_kind(kind)).collect::<Result<Vec<_>, _>>()?;
        let equation = a.text("equation", "").replace(' ', "");
        as_output(a, Tensor::f_einsum(&equation, &operands, None::<i64>)?)
    },
    can_overflow: true,
    ..OpSpec::BASE
};

fn build_einsum(b: &mut Builder) -> Result<(), Skip> {
    let x = b.input(b.dtypes(), 0..=MAX_RANK)?;
    let further = b.one_of(&[1, 1, 2, 0, 1, 2, 0, 1]);
    let mut equation = Equation::of_first(b, &x.shape);
    for _ in 0..further {
        let shape = equation.further_operand(b);
        if b.chance(160) {
            b.input_like(x.dtype, shape);
        } else {
            b.weight(x.dtype, shape);
        }
    }
    let shape = equation.output(b);
    b.set_text("equation", &equation.text());
    // The factors of a product are rounded, too.
    b.accumulate(product(&equation.summed()) + further as i64);
    b.output(x.dtype, shape);
    Ok(())
}

/// ONNX Det, opset 11.
pub const DET: OpSpec = OpSpec {
    code: 0xd4,
    name: "Det",
    since: 11,
    dtypes: FLOATS,
    doc: "The determinants of square matrices.",
    numerics: Numerics::Custom(det_errors),
    build: |b| {
        let hint = 1 + b.one_of(&[1, 2, 3, 1, 4, 0, 2, 6]);
        let x = b.input_or(b.permitted(b.dtypes()), 2..=MAX_RANK, |b| {
            let rank = 2 + b.below(MAX_RANK - 1);
            let mut shape: Vec<Term> = (2..rank).map(|_| b.size(rank)).collect();
            let size = b.free_near(1..=8, hint);
            shape.extend([size, size]);
            shape
        })?;
        let (batch, matrix) = x.shape.split_at(x.rank() - 2);
        b.require(matrix[0].equals(matrix[1]));
        b.require(matrix[0].at_least(1));
        b.require(matrix[0].at_most(8));
        b.output(x.dtype, batch);
        Ok(())
    },
    eval: |a| one(Tensor::f_linalg_det(a.x(0))),
    ..OpSpec::BASE
};

/// Gaussian elimination with partial pivoting gives the exact determinant of another matrix. What it changes in each row
/// grows with the elements on the way, at most 2^(n-1) times the largest of the matrix; a determinant changes at most by
/// that, times the lengths of the other rows. Expansions by minors are nearer to the exact value.
fn det_errors(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let dtype = a.output_dtypes[0];
    let x = a.x(0);
    let size = x.size()[x.dim() - 1];
    let error = error_of(errors, 0, x)?;
    let sizes = size as f64;
    let largest = x.f_abs()?.f_add(&error)?.f_amax([-2, -1], true)?;
    let grown = largest * (sizes - 1.0).exp2();
    let of_elimination = &grown * (sizes * gamma(sizes, dtype));
    let norm = |x: &Tensor| -> Result<Tensor, tch::TchError> {
        x.f_square()?.f_sum_dim_intlist(-1, false, Kind::Double)?.f_sqrt()
    };
    let change = norm(&error)? + of_elimination.f_squeeze_dim(-1)? * sizes.sqrt();
    let rows = norm(x)?;
    // Row by row, from the matrix to the changed one.
    let mut total = exact[0].f_zeros_like()?;
    for row in 0..size {
        let mut term = change.f_select(-1, row)?;
        for other in (0..size).filter(|&other| other != row) {
            term = term * (rows.f_select(-1, other)? + change.f_select(-1, other)?);
        }
        total += term;
    }
    let reached = grown.f_clamp_min(1.0)?.f_pow_tensor_scalar(sizes)?.f_squeeze_dim(-1)?.f_squeeze_dim(-1)?;
    total += exact[0].f_abs()? * gamma(sizes, dtype) + &reached * (sizes * underflow(dtype));
    one(defined(unless_overflow(total, &reached, dtype)?))
}
