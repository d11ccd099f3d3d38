//! Sampling images at the positions of a grid, and grids by affine maps.

use super::common::{one, wide};
use super::movement::refuse;
use super::rounding::{REACH, defined, error_of, gamma, unless, unless_overflow};
use super::taps::{self, Axis, Padding, Tap};
use crate::dtype::{ANY, DType, FLOATS};
use crate::spec::{Args, Builder, Domain, Numerics, OpSpec, Outputs, Skip};
use crate::term::Term;
use tch::{Kind, TchError, Tensor};

pub const TABLE: &[&OpSpec] = &[&GRID_SAMPLE, &AFFINE_GRID];

/// ONNX GridSample. Up to opset 19 only of images, and with the names of two-dimensional interpolations.
pub const GRID_SAMPLE: OpSpec = OpSpec {
    code: 0xe0,
    name: "GridSample",
    since: 16,
    dtypes: ANY,
    doc: "An image, or volume, read by interpolation at positions between -1 and 1, and padded beyond.",
    numerics: Numerics::Custom(sample_errors),
    build: build_sample,
    eval: |a| {
        let sampling = Sampling::of(a)?;
        let positions = sampling.positions(a.x(1))?;
        let y = match sampling.mode {
            Mode::Nearest => {
                let mut nearest = None;
                taps::each(a.x(0), &sampling.axes, &sampling.taps(&positions)?, |value, _| {
                    nearest = Some(value);
                    Ok(())
                })?;
                nearest.map_or_else(|| refuse("GridSample without axes"), Ok)?
            }
            _ if !a.dtype(0).is_float() => return refuse("interpolation of integers"),
            _ => {
                let kind = a.x(0).kind();
                let positions: Vec<Tensor> = positions.iter().map(|x| x.f_to_kind(kind)).collect::<Result<_, _>>()?;
                taps::weighted(a.x(0), &sampling.axes, &sampling.taps(&positions)?)?
            }
        };
        one(y.f_reshape(sampling.output(a)))
    },
    ..OpSpec::BASE
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

fn build_sample(b: &mut Builder) -> Result<(), Skip> {
    let floats = b.permitted(FLOATS);
    let modes = [Mode::Linear, Mode::Nearest, Mode::Cubic, Mode::Linear, Mode::Nearest];
    let mode = if floats.is_empty() { Mode::Nearest } else { b.one_of(&modes) };
    let images = b.opset() < 20 || b.chance(160);
    let ranks = match images {
        true => 4..=4,
        false if b.chance(64) => 3..=3,
        false => 5..=5,
    };
    let x = b.input(if mode == Mode::Nearest { b.dtypes() } else { floats }, ranks)?;
    let corners = b.mostly();
    let padding = b.one_of(&["zeros", "border", "reflection"]);
    // Between corners that are one element there is nothing to mirror at.
    let least = if corners && padding == "reflection" { 2 } else { 1 };
    x.shape[2..].iter().for_each(|dim| b.require(dim.at_least(least)));
    let spatial = x.rank() - 2;
    let last = Term::constant(spatial as i64);
    let dtype = match x.dtype.is_float() && !b.chance(16) {
        true => x.dtype,
        false => b.one_of(&[DType::F32, DType::F64]),
    };
    let grid = if b.coin() {
        let inner: Vec<Term> = (0..spatial).map(|_| b.size(x.rank())).collect();
        let shape = [&x.shape[..1], &inner, &[last]].concat();
        b.leaf(dtype, shape, Domain::Range(-1.5, 1.5))
    } else {
        let mut shape = vec![None; x.rank()];
        (shape[0], shape[x.rank() - 1]) = (Some(x.shape[0]), Some(last));
        b.input_shaped(dtype, &shape)
    };
    let name = match mode {
        Mode::Nearest => "nearest",
        Mode::Linear if b.opset() < 20 => "bilinear",
        Mode::Cubic if b.opset() < 20 => "bicubic",
        Mode::Linear => "linear",
        Mode::Cubic => "cubic",
    };
    if mode != Mode::Linear || b.coin() {
        b.set_text("mode", name);
    }
    if padding != "zeros" || b.coin() {
        b.set_text("padding_mode", padding);
    }
    if corners || b.coin() {
        b.set_int("align_corners", i64::from(corners));
    }
    b.accumulate(1 << (2 * spatial));
    b.output(x.dtype, [&x.shape[..2], &grid.shape[1..=spatial]].concat());
    Ok(())
}

/// One application of GridSample.
struct Sampling {
    mode: Mode,
    axes: Vec<Axis>,
}

impl Sampling {
    fn of(a: &Args) -> Result<Sampling, TchError> {
        let mode = match a.text("mode", "linear") {
            "nearest" => Mode::Nearest,
            "linear" | "bilinear" => Mode::Linear,
            "cubic" | "bicubic" => Mode::Cubic,
            _ => return refuse("GridSample in an unknown mode"),
        };
        let padding = match a.text("padding_mode", "zeros") {
            "zeros" => Padding::Zeros,
            "border" => Padding::Border,
            "reflection" => Padding::Reflection,
            _ => return refuse("GridSample with unknown padding"),
        };
        let corners = a.int("align_corners", 0) != 0;
        let shape = a.shape(0);
        if shape.len() < 3 || shape[2..].contains(&0) {
            return refuse("GridSample of nothing");
        }
        Ok(Sampling { mode, axes: shape[2..].iter().map(|&size| Axis { size, padding, corners }).collect() })
    }

    fn output(&self, a: &Args) -> Vec<i64> {
        let (x, grid) = (a.shape(0), a.shape(1));
        [&x[..2], &grid[1..grid.len() - 1]].concat()
    }

    /// Half the distance between the positions -1 and 1 of each axis.
    fn half(&self, axis: &Axis) -> f64 {
        (axis.size - i64::from(axis.corners)) as f64 / 2.0
    }

    /// The columns of a tensor like the grid, for each axis: `[N, P]`. The last is that of the first axis.
    fn columns(&self, grid: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let (n, r) = (grid.size()[0], self.axes.len() as i64);
        let points = grid.size()[1..=self.axes.len()].iter().product::<i64>();
        let flat = grid.f_reshape([n, points, r])?;
        (0..r).map(|axis| flat.f_select(-1, r - 1 - axis)).collect()
    }

    /// Positions in elements, not yet brought back by the padding.
    fn positions(&self, grid: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let position = |(x, axis): (Tensor, &Axis)| {
            let scaled = x.f_add_scalar(1.0)?.f_mul_scalar(self.half(axis))?;
            if axis.corners { Ok(scaled) } else { scaled.f_sub_scalar(0.5) }
        };
        self.columns(grid)?.into_iter().zip(&self.axes).map(position).collect()
    }

    fn taps(&self, positions: &[Tensor]) -> Result<Vec<Vec<Tap>>, TchError> {
        let taps = |(x, axis): (&Tensor, &Axis)| match self.mode {
            Mode::Nearest => Ok(vec![axis.tap(&x.f_round()?, x.f_ones_like()?)?]),
            Mode::Linear => axis.linear(&axis.settle(x)?),
            Mode::Cubic => axis.cubic(&axis.settle(x)?),
        };
        positions.iter().zip(&self.axes).map(taps).collect()
    }
}

/// The errors of the elements and of the positions, and the rounding of a weighted sum. Without bound where a position
/// may pass a step to another nearest element. The same beyond the ends for cubic interpolation with `border`: "use border
/// values for out-of-bound grid locations" may mean the position, as in the reference implementation of ONNX, or each of
/// the four elements around it, as in PyTorch and ONNX Runtime, and a position just beyond the end reads inner elements.
fn sample_errors(a: &Args, errors: &[Option<Tensor>], exact: &[Tensor]) -> Outputs {
    let sampling = Sampling::of(a)?;
    let (x, grid) = (wide(a, 0)?.f_abs()?, wide(a, 1)?);
    let u = a.dtype(1).unit_roundoff().max(if a.dtype(0).is_float() { a.dtype(0).unit_roundoff() } else { 0.0 });
    let positions = sampling.positions(&grid)?;
    let given = sampling.columns(&error_of(errors, 1, &grid)?)?;
    let mut doubtful = grid.f_new_zeros(positions[0].size(), (Kind::Bool, grid.device()))?;
    let mut shift = positions[0].f_zeros_like()?;
    let mut around = Vec::new();
    // How far weights reach, and by how much they change with the position.
    let (reach, magnitude, slope): (i64, f64, f64) = match sampling.mode {
        Mode::Nearest => (0, 1.0, 0.0),
        Mode::Linear => (1, 1.0, 2.0),
        Mode::Cubic => (2, 1.4, 4.0),
    };
    for ((position, given), axis) in positions.iter().zip(&given).zip(&sampling.axes) {
        let rounding = (position.f_abs()? + axis.size as f64) * (8.0 * u);
        let error = given * sampling.half(axis) + rounding;
        let mut unsure = error.f_isfinite()?.f_logical_not()?.f_logical_or(&error.f_gt(0.25)?)?;
        if sampling.mode == Mode::Nearest {
            let fraction = position.f_sub(&position.f_floor()?)?;
            let near = fraction.f_sub_scalar(0.5)?.f_abs()?.f_le_tensor(&(&error * REACH))?;
            unsure = unsure.f_logical_or(&near)?;
        }
        if sampling.mode == Mode::Cubic && axis.padding == Padding::Border && axis.size > 1 {
            unsure = unsure.f_logical_or(&axis.may_be_beyond(position, &error)?)?;
        }
        doubtful = doubtful.f_logical_or(&unsure)?;
        shift += error;
        around.push(match sampling.mode {
            Mode::Nearest => vec![axis.tap(&position.f_round()?, position.f_ones_like()?)?],
            _ => axis.around(&axis.settle(position)?, -reach, reach + 1)?,
        });
    }
    let rank = sampling.axes.len() as i32;
    let sum = magnitude.powi(rank);
    let mut error = taps::largest(&error_of(errors, 0, &x)?, &sampling.axes, &around)? * sum;
    if sampling.mode != Mode::Nearest {
        let most = taps::largest(&x, &sampling.axes, &around)?;
        // The weights of the cubic convolution are polynomials with cancellation.
        let weights = if sampling.mode == Mode::Cubic { 128.0 * f64::from(rank) } else { 4.0 * f64::from(rank) };
        let terms = f64::from(1 << (2 * rank)) + 8.0;
        let moved = shift.f_unsqueeze(1)? * (slope * sum);
        error = unless_overflow(
            error + &most * moved + &most * (sum * (gamma(terms, a.dtype(0)) + weights * u)),
            &most,
            a.dtype(0),
        )?;
    }
    one(defined(unless(&doubtful.f_unsqueeze(1)?, &error)?)?.f_reshape(exact[0].size()))
}

/// ONNX AffineGrid, opset 20.
pub const AFFINE_GRID: OpSpec = OpSpec {
    code: 0xe1,
    name: "AffineGrid",
    since: 20,
    dtypes: FLOATS,
    doc: "The positions of the elements of an image, or volume, under affine maps.",
    numerics: Numerics::Custom(|a, errors, exact| {
        // The positions before the map are at most 1, with a rounding each.
        let sum = |x: &Tensor| x.f_sum_dim_intlist([-1].as_slice(), false, Kind::Double);
        let (theta, error) = (wide(a, 0)?.f_abs()?, error_of(errors, 0, a.x(0))?);
        let each = sum(&error)? + (sum(&theta)? + sum(&error)?) * gamma(24.0, a.dtype(0));
        let mut shape = exact[0].size();
        let inner = shape.len() - 2;
        shape[1..=inner].fill(1);
        one(each.f_reshape(&shape)?.f_expand(exact[0].size(), false)?.f_add(&exact[0].f_zeros_like()?))
    }),
    build: |b| {
        let spatial = if b.chance(96) { 3 } else { 2 };
        let dtype = b.dtypes();
        let shape = [None, Some(Term::constant(spatial)), Some(Term::constant(spatial + 1))];
        let dtype = b.dtype(dtype)?;
        let theta = b.input_shaped(dtype, &shape);
        let rank = spatial as usize + 2;
        let corners = b.mostly();
        let mut size = vec![theta.shape[0], b.free(1..=4)];
        for _ in 0..spatial {
            let dim = b.size(rank);
            b.require(dim.at_least(if corners { 2 } else { 1 }));
            size.push(dim);
        }
        b.constant(size.iter().copied());
        if corners || b.coin() {
            b.set_int("align_corners", i64::from(corners));
        }
        b.accumulate(spatial + 1);
        b.output(theta.dtype, [&size[..1], &size[2..], &[Term::constant(spatial)]].concat());
        Ok(())
    },
    eval: |a| {
        let size = a.list(1).unwrap_or_default();
        if size.len() != 4 && size.len() != 5 {
            return refuse("AffineGrid of another rank than 4 and 5");
        }
        let (spatial, corners) = (&size[2..], a.int("align_corners", 0) != 0);
        let theta = a.x(0);
        let options = (theta.kind(), theta.device());
        // Homogeneous positions, the innermost axis first.
        let mut columns = vec![Tensor::f_ones(spatial, options)?];
        for (axis, &count) in spatial.iter().enumerate() {
            let steps = Tensor::f_arange(count, options)?;
            let line = match corners {
                true => steps * (2.0 / (count - 1).max(1) as f64) - 1.0,
                false => (steps * 2.0 + 1.0) / count as f64 - 1.0,
            };
            let mut shape = vec![1; spatial.len()];
            shape[axis] = count;
            columns.insert(0, line.f_reshape(&shape)?.f_expand(spatial, false)?);
        }
        let points = Tensor::f_stack(&columns, -1)?.f_reshape([1, -1, spatial.len() as i64 + 1])?;
        let grid = points.f_matmul(&theta.f_transpose(1, 2)?)?;
        one(grid.f_reshape([&size[..1], spatial, &[spatial.len() as i64]].concat()))
    },
    ..OpSpec::BASE
};

#[cfg(test)]
mod tests {
    use super::super::common::testing::assert_near;
    use super::super::windows::apply;
    use super::*;
    use crate::dtype::DType::F32;
    use crate::spec::Attribute::{Int, Text};

    fn values(y: &Tensor) -> Vec<f64> {
        Vec::try_from(&y.reshape([-1]).to_kind(Kind::Double)).expect("values")
    }

    /// The node tests `test_gridsample_bilinear`, `_bicubic`, `_nearest` and of the paddings, of ONNX: a 3 x 2 image.
    #[test]
    fn images_are_sampled_as_in_the_examples_of_onnx() {
        let x: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let grid: Vec<f32> =
            [[-1.0, -1.0], [-0.5, -0.5], [-0.2, -0.2], [0.0, 0.0], [0.0, 0.0], [-0.2, -0.2], [0.5, 0.5], [1.0, 1.0]]
                .concat();
        let sample = |mode: &str| {
            let operands: [(&[f32], &[i64]); 2] = [(&x, &[1, 1, 3, 2]), (&grid, &[1, 2, 4, 2])];
            values(&apply(&GRID_SAMPLE, &operands, &[("mode", Text(mode.into()))], &[F32])[0])
        };
        assert_near(&sample("linear"), &[0.0, 0.5, 1.7, 2.5, 2.5, 1.7, 4.5, 1.25]);
        assert_eq!(sample("nearest"), [0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 5.0, 0.0]);
        for (got, want) in sample("cubic").iter().zip([-0.1406, 0.3828, 1.7556, 2.9688, 2.9688, 1.7556, 5.1445, 1.3906])
        {
            assert!((got - want).abs() < 1e-4, "{got}, not {want}");
        }
        let grid: Vec<f32> = [
            [-10.0, -10.0],
            [-5.0, -5.0],
            [-0.2, -0.2],
            [10.0, 10.0],
            [10.0, 10.0],
            [-0.2, -0.2],
            [5.0, 5.0],
            [10.0, 10.0],
        ]
        .concat();
        let pad = |padding: &str| {
            let operands: [(&[f32], &[i64]); 2] = [(&x, &[1, 1, 3, 2]), (&grid, &[1, 2, 4, 2])];
            values(&apply(&GRID_SAMPLE, &operands, &[("padding_mode", Text(padding.into()))], &[F32])[0])
        };
        assert_near(&pad("zeros"), &[0.0, 0.0, 1.7, 0.0, 0.0, 1.7, 0.0, 0.0]);
        assert_near(&pad("border"), &[0.0, 0.0, 1.7, 5.0, 5.0, 1.7, 5.0, 5.0]);
        assert_near(&pad("reflection"), &[2.5, 0.0, 1.7, 2.5, 2.5, 1.7, 5.0, 2.5]);
    }

    /// Beyond the ends cubic interpolation with `border` is not judged; between them, and along one element, it is.
    #[test]
    fn cubic_positions_beyond_the_border_are_ambiguous() {
        let positions = [[-1.2, 0.0], [-1.0, 0.0], [-0.2, 5.0], [0.9, 0.0], [1.01, 0.0]].concat();
        let unjudged = |padding: &str, corners: i64| {
            let attributes = [
                ("mode".into(), Text("cubic".into())),
                ("padding_mode".into(), Text(padding.into())),
                ("align_corners".into(), Int(corners)),
            ];
            let image: Vec<f64> = (0..4).map(f64::from).collect();
            let args = Args {
                operands: vec![
                    Some(Tensor::from_slice(&image).reshape([1, 1, 1, 4])),
                    Some(Tensor::from_slice(&positions).reshape([1, 1, 5, 2])),
                ],
                operand_dtypes: vec![Some(F32), Some(F32)],
                attributes: &attributes,
                opset: crate::limits::NEWEST_OPSET,
                output_dtypes: vec![F32],
                wide: true,
                accumulate: None,
            };
            let exact = (GRID_SAMPLE.eval)(&args).expect("an image");
            let errors = sample_errors(&args, &[None, None], &exact).expect("errors");
            values(&errors[0]).iter().map(|error| error.is_infinite()).collect::<Vec<_>>()
        };
        assert_eq!(unjudged("border", 1), [true, false, false, false, true]);
        assert_eq!(unjudged("border", 0), [true, true, false, false, true]);
        assert_eq!(unjudged("zeros", 0), [false; 5]);
    }

    /// A rotation by a quarter and a shift.
    #[test]
    fn affine_maps_act_on_homogeneous_positions() {
        let theta: &[f32] = &[0.0, -1.0, 0.5, 1.0, 0.0, 0.0];
        let eval = |corners: i64| {
            let attributes = [("align_corners".into(), Int(corners))];
            let args = Args {
                operands: vec![
                    Some(Tensor::from_slice(theta).reshape([1, 2, 3])),
                    Some(Tensor::from_slice(&[1i64, 1, 2, 2])),
                ],
                operand_dtypes: vec![Some(F32), Some(DType::I64)],
                attributes: &attributes,
                opset: crate::limits::NEWEST_OPSET,
                output_dtypes: vec![F32],
                wide: false,
                accumulate: None,
            };
            values(&(AFFINE_GRID.eval)(&args).expect("a grid")[0])
        };
        assert_near(&eval(1), &[1.5, -1.0, 1.5, 1.0, -0.5, -1.0, -0.5, 1.0]);
        assert_near(&eval(0), &[1.0, -0.5, 1.0, 0.5, 0.0, -0.5, 0.0, 0.5]);
    }
}
