//! Resize since opset 13, in which only one of scales and sizes is needed.

use super::interpolate;
use super::windows::free_up_to;
use crate::dtype::{ANY, DType, FLOATS};
use crate::spec::{Builder, Numerics, OpSpec, Operand, Skip};
use crate::term::Term;

pub const TABLE: &[&OpSpec] = &[&RESIZE];

pub const RESIZE: OpSpec = OpSpec {
    code: 0x5b,
    name: "Resize",
    since: 13,
    dtypes: ANY,
    doc: "Nearest, linear or cubic interpolation, also antialiased or of a region, to given sizes or by given scales.",
    numerics: Numerics::Custom(interpolate::resize_error),
    build,
    eval: interpolate::resize,
    ..OpSpec::BASE
};

/// How `build` maps output coordinates to input coordinates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coordinates {
    HalfPixel,
    Asymmetric,
    AlignCorners,
    PytorchHalfPixel,
    CropAndResize,
}

/// What `build` chose: enough to tell on which sizes it is certain which element is nearest.
#[derive(Clone, Copy)]
struct Choice {
    coordinates: Coordinates,
    nearest: bool,
    /// `nearest_mode` is one of the two that round; else it is `floor` or `ceil`.
    rounds: bool,
    cubic: bool,
    antialias: bool,
    /// The text says what an output means whose length was rounded down.
    symmetric: bool,
}

fn build(b: &mut Builder) -> Result<(), Skip> {
    // Where floats are only moved, nothing is interpolated. What implementations interpolate are images.
    let floats = b.permitted(FLOATS);
    let modes = ["nearest", "linear", "cubic", "linear", "cubic", "linear", "cubic", "linear", "cubic", "linear"];
    let mode = if floats.is_empty() { "nearest" } else { b.one_of(&modes) };
    let x = if mode == "nearest" { b.input(b.dtypes(), 1..=5)? } else { b.input(floats, 4..=4)? };
    let rank = x.rank();
    if mode != "nearest" || b.coin() {
        b.set_text("mode", mode);
    }
    let choice = declare_choice(b, mode);
    let resized = resized_axes(b, rank, mode == "nearest");
    for &dim in &x.shape {
        b.require(dim.at_least(1));
    }
    // Otherwise all axes are listed.
    let listed: Vec<usize> = if b.opset() >= 18 && b.chance(192) { resized.clone() } else { (0..rank).collect() };
    if listed.len() < rank {
        let axes: Vec<i64> = listed.iter().map(|&axis| b.signed_axis(axis, rank)).collect();
        b.set_ints("axes", axes);
    }
    let scales = scales(b, choice, &resized.iter().map(|&axis| b.value(x.shape[axis])).collect::<Vec<i64>>());
    declare_region(b, choice, x.dtype, &resized, &listed, scales.is_some());
    let output = match scales {
        Some(scales) if b.opset() >= 18 && listed == resized && b.chance(208) => {
            by_policy(b, &x, &resized, scales[0], choice)
        }
        Some(scales) => by_scales(b, &x, &resized, &listed, &scales, choice),
        None => by_sizes(b, &x, &resized, &listed, choice),
    };
    let taps: i64 = match mode {
        "nearest" => 1,
        "linear" => 2,
        _ => 4,
    };
    // Antialiased to a quarter of the size, each element takes four times as many.
    let taps = if choice.antialias { 4 * taps } else { taps };
    b.accumulate(taps.pow(resized.len() as u32));
    b.output(x.dtype, output);
    Ok(())
}

fn declare_choice(b: &mut Builder, mode: &str) -> Choice {
    let nearest = mode == "nearest";
    let transformations = [
        (Coordinates::HalfPixel, "half_pixel"),
        (Coordinates::Asymmetric, "asymmetric"),
        (Coordinates::AlignCorners, "align_corners"),
        (Coordinates::PytorchHalfPixel, "pytorch_half_pixel"),
        (Coordinates::CropAndResize, "tf_crop_and_resize"),
        (Coordinates::HalfPixel, "half_pixel_symmetric"),
    ];
    let (coordinates, name) = b.one_of(&transformations[..if b.opset() < 19 { 5 } else { 6 }]);
    let symmetric = name == "half_pixel_symmetric";
    if coordinates != Coordinates::HalfPixel || symmetric || b.coin() {
        b.set_text("coordinate_transformation_mode", name);
    }
    let mut rounds = true;
    if nearest && !b.chance(48) {
        let name = b.one_of(&["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]);
        rounds = name.starts_with("round");
        b.set_text("nearest_mode", name);
    }
    let cubic = mode == "cubic";
    if cubic && !b.chance(64) {
        let a = b.one_of(&[-0.5, -0.75, -0.3, -1.0]);
        b.set_float("cubic_coeff_a", a);
    }
    let antialias = b.opset() >= 18 && !nearest && flag(b, "antialias");
    if cubic || antialias {
        flag(b, "exclude_outside");
    }
    Choice { coordinates, nearest, rounds, cubic, antialias, symmetric }
}

/// An attribute that is 0 or 1 or, at times, left out, which means 0.
fn flag(b: &mut Builder, name: &'static str) -> bool {
    let set = b.chance(144);
    if set || b.coin() {
        b.set_int(name, i64::from(set));
    }
    set
}

/// Emits `roi`, and what elements outside the input are. Without a region of interest it has no effect.
fn declare_region(b: &mut Builder, choice: Choice, dtype: DType, resized: &[usize], listed: &[usize], by_scales: bool) {
    let crops = choice.coordinates == Coordinates::CropAndResize;
    if !crops && !b.chance(24) {
        return b.absent();
    }
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for axis in listed {
        let (start, length) = if resized.contains(axis) { region(b, choice, by_scales) } else { (0, 8) };
        starts.push(Term::constant(start));
        ends.push(Term::constant(start + length));
    }
    let eighths = [starts, ends].concat();
    let ty = if b.chance(24) { b.one_of(&[DType::F64, DType::F16]) } else { DType::F32 };
    b.fixed(ty, [Term::constant(eighths.len() as i64)], eighths, 8);
    if crops && !b.chance(64) {
        // What elements of every type can be.
        let values: &[f32] = match dtype {
            DType::Bool => &[1.0, 0.0],
            float if float.is_float() => &[10.0, 0.5, -1.0, 2.5],
            _ => &[10.0, 1.0, 100.0, 3.0],
        };
        let value = b.one_of(values);
        b.set_float("extrapolation_value", value);
    }
}

/// Start and length of a region in eighths of an axis: some reach beyond it, some run backwards.
fn region(b: &mut Builder, choice: Choice, by_scales: bool) -> (i64, i64) {
    // An odd number of eighths, in an input and an output of even sizes, starts and stays clear of every tie.
    let start = if choice.nearest { b.one_of(&[1, 3, -1, 5, -3]) } else { b.one_of(&[0, 1, 2, -1, 3, 4, -2, 6]) };
    let lengths: &[i64] = match () {
        // By scales the text multiplies the size by the region's length, and the inference of shapes does not.
        () if by_scales => &[8],
        () if choice.nearest => &[6, 4, 8, 2, 10, -4],
        () => &[6, 4, 5, 8, 3, 10, 7, -4],
    };
    (start, b.one_of(lengths))
}

/// Images are resized along their last two axes; nearest elements can be taken along any.
fn resized_axes(b: &mut Builder, rank: usize, nearest: bool) -> Vec<usize> {
    if nearest && b.chance(64) {
        let axes = b.axes(rank);
        if !axes.is_empty() {
            return axes;
        }
    }
    (rank.saturating_sub(2)..rank).collect()
}

/// Scales in quarters, one for each axis of these sizes; none when the output's sizes are to be given.
fn scales(b: &mut Builder, choice: Choice, sizes: &[i64]) -> Option<Vec<i64>> {
    const SCALES: [i64; 10] = [8, 12, 16, 6, 2, 1, 4, 3, 20, 5];
    let aligned = choice.nearest && choice.coordinates == Coordinates::AlignCorners;
    let crops = choice.nearest && choice.coordinates == Coordinates::CropAndResize;
    // The ratio of aligned corners is no property of the scale, so only sizes can make it a safe one.
    if b.chance(88) || (aligned && !choice.rounds) {
        return None;
    }
    let mut scale = |&size: &i64| {
        let safe = |&scale: &i64| !choice.nearest || aligned || crops || is_certain(scale, choice);
        let fits = |&scale: &i64| match () {
            () if crops => size % 2 == 0 && size * scale % 8 == 0,
            () if aligned && scale != 4 => size * scale % 8 == 0,
            () => size * scale % 4 == 0,
        };
        let safe: Vec<i64> = SCALES.into_iter().filter(safe).collect();
        let now: Vec<i64> = safe.iter().copied().filter(fits).collect();
        // With another scale the solver has to move the size.
        if now.is_empty() || b.chance(24) { b.one_of(&safe) } else { b.one_of(&now) }
    };
    Some(sizes.iter().map(&mut scale).collect())
}

/// Whether no output coordinate falls between two candidates for the nearest element, where the precision of the
/// coordinate would decide, or else all arithmetic on coordinates is exact. The scale is `quarters / 4`.
fn is_certain(quarters: i64, choice: Choice) -> bool {
    let common = [4, 2, 1].into_iter().find(|divisor| quarters % divisor == 0).unwrap_or(1);
    let (p, q) = (quarters / common, 4 / common);
    if p & (p - 1) == 0 {
        return true;
    }
    match (choice.coordinates, choice.rounds) {
        (Coordinates::Asymmetric, true) => p % 2 == 1,
        (Coordinates::Asymmetric, false) | (Coordinates::AlignCorners | Coordinates::CropAndResize, _) => false,
        (_, true) => q % 2 == 1,
        (_, false) => p * q % 2 == 0,
    }
}

/// Emits `scales`.
fn by_scales(
    b: &mut Builder,
    x: &Operand,
    resized: &[usize],
    listed: &[usize],
    scales: &[i64],
    choice: Choice,
) -> Vec<Term> {
    let mut quarters = vec![4; x.rank()];
    resized.iter().zip(scales).for_each(|(&axis, &scale)| quarters[axis] = scale);
    b.constant_fractions(listed.iter().map(|&axis| quarters[axis]), 4);
    scaled(b, x, resized, scales, choice)
}

/// Emits `sizes` that the policy makes multiples by one scale: that of the first axis, which the others have room for.
fn by_policy(b: &mut Builder, x: &Operand, resized: &[usize], scale: i64, choice: Choice) -> Vec<Term> {
    let (policy, sign) = b.one_of(&[("not_larger", 1), ("not_smaller", -1)]);
    b.set_text("keep_aspect_ratio_policy", policy);
    // Sizes that are rounded would be so in another way than by scales.
    let output = scaled(b, x, resized, &vec![scale; resized.len()], Choice { symmetric: false, ..choice });
    let mut wanted = vec![output[resized[0]]];
    for &axis in &resized[1..] {
        let size = output[axis] + sign * b.below(4) as i64;
        b.require(size.at_least(1));
        wanted.push(size);
    }
    b.absent();
    b.constant(wanted);
    output
}

/// The sizes by these scales. They must be multiples, but for the mode made for others: with those it depends on the
/// reader whether the scale that coordinates are divided by is the given one or that of the rounded sizes.
fn scaled(b: &mut Builder, x: &Operand, resized: &[usize], scales: &[i64], choice: Choice) -> Vec<Term> {
    let mut output = x.shape.clone();
    for (&axis, &scale) in resized.iter().zip(scales) {
        if scale != 4 {
            if choice.nearest || !choice.symmetric {
                b.require((output[axis] * scale).divisible_by(4));
            }
            output[axis] = (output[axis] * scale) / 4;
            b.require(output[axis].at_least(1));
        }
        match choice.coordinates {
            Coordinates::AlignCorners if choice.nearest && scale != 4 => {
                b.require((output[axis] % 2).equals(0));
            }
            Coordinates::CropAndResize if choice.nearest => {
                b.require((x.shape[axis] % 2).equals(0));
                b.require((output[axis] % 2).equals(0));
            }
            _ => b.require(output[axis].at_least(least_size(choice))),
        }
    }
    output
}

/// The smallest output size whose elements' coordinates are beyond dispute.
fn least_size(choice: Choice) -> i64 {
    match choice.coordinates {
        Coordinates::AlignCorners => 2,
        Coordinates::PytorchHalfPixel if choice.cubic || choice.antialias => 2,
        _ => 1,
    }
}

/// Emits `sizes`, with laws that keep each nearest element certain.
fn by_sizes(b: &mut Builder, x: &Operand, resized: &[usize], listed: &[usize], choice: Choice) -> Vec<Term> {
    let mut output = x.shape.clone();
    if b.opset() >= 18 && b.chance(48) {
        b.set_text("keep_aspect_ratio_policy", "stretch");
    }
    for &axis in resized {
        let size = x.shape[axis];
        let now = b.value(size);
        output[axis] = match (choice.nearest, choice.coordinates, choice.rounds) {
            (true, Coordinates::Asymmetric, false) => {
                // Coprime sizes: the coordinate of no element but the first is an integer.
                let times = free_up_to(b, 3, 3);
                let more = if b.coin() { 1 } else { -1 };
                size * times + more
            }
            (true, Coordinates::AlignCorners, false) => {
                // Twice as dense: coordinates are multiples of one half.
                b.require(size.at_least(2));
                size * 2 - 1
            }
            (true, Coordinates::CropAndResize, _) if now % 2 == 1 || b.coin() => {
                // Steps of an axis in two, four or eight parts: all arithmetic on coordinates is exact.
                Term::constant(b.one_of(&[3, 5, 2, 9, 1]))
            }
            (true, Coordinates::HalfPixel | Coordinates::PytorchHalfPixel, true) if now % 2 == 0 => {
                let times = b.one_of(&[2, 4]);
                size * times
            }
            _ => {
                let pick = b.below(8);
                let hint = [now + 1, now * 2, now * 2 + 1, now - 1, now / 2, now * 3 + 2, now + 3, now][pick].max(1);
                let hint = if certain(choice, now, hint) { hint } else { hint + 1 };
                let out = b.free_near(1..=256, hint);
                b.require(out.at_least(1));
                if choice.nearest {
                    if choice.coordinates == Coordinates::CropAndResize {
                        b.require((size % 2).equals(0));
                    }
                    b.require(match (choice.coordinates, choice.rounds) {
                        (Coordinates::Asymmetric, _) => (out % 2).equals(1),
                        (Coordinates::AlignCorners | Coordinates::CropAndResize, _) => (out % 2).equals(0),
                        (_, true) => (size % 2).equals(1),
                        (_, false) => ((size + out) % 2).equals(1),
                    });
                }
                out
            }
        };
        b.require(output[axis].at_least(least_size(choice)));
    }
    b.absent();
    b.constant(listed.iter().map(|&axis| output[axis]));
    output
}

/// Whether the parities of an axis's sizes rule out that the nearest element is in doubt.
fn certain(choice: Choice, size: i64, out: i64) -> bool {
    match (choice.coordinates, choice.rounds) {
        _ if !choice.nearest => true,
        (Coordinates::Asymmetric, _) => out % 2 == 1,
        (Coordinates::AlignCorners | Coordinates::CropAndResize, _) => out % 2 == 0,
        (_, true) => size % 2 == 1,
        (_, false) => (size + out) % 2 == 1,
    }
}
