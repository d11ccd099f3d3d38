//! NonMaxSuppression: boxes that overlap better ones too much are left out.

use super::dynamic::OF_DATA;
use crate::dtype::{DType, DTypes};
use crate::spec::{Args, Builder, OpSpec, Outputs, Skip};
use crate::term::Term;
use tch::{Kind, TchError, Tensor};

/// ONNX NonMaxSuppression, opset 11.
pub const NON_MAX_SUPPRESSION: OpSpec = OpSpec {
    code: 0xdc,
    name: "NonMaxSuppression",
    since: 11,
    dtypes: DTypes::of(&[DType::F32]),
    doc: "The boxes of each class, best first, that overlap no better one by more than a threshold.",
    build,
    eval,
    ..OF_DATA
};

/// How overlaps and scores are judged.
struct Rules {
    most: i64,
    overlap: f64,
    score: Option<f64>,
    /// A box is its centre and its size rather than two opposite corners.
    centered: bool,
}

/// Scores are multiples of one over this.
const SCORES: i64 = 64;
/// The difference between two scores, in those units.
const STEP: i64 = 5;
/// Coordinates are multiples of one over this, so that the middle of two of them is one.
const COORDINATES: i64 = 2;
/// Overlaps this near to the threshold might be rounded over it.
const MARGIN: f64 = 0.01;

fn build(b: &mut Builder) -> Result<(), Skip> {
    let batches = b.one_of(&[1, 2, 1, 3]);
    let classes = b.one_of(&[1, 2, 3, 2]);
    let count = b.one_of(&[6, 3, 8, 12, 5, 10, 1, 2]);
    let centered = b.coin();
    let mut stream = b.stream();
    let mut below = |bound: i64| stream.below(bound as u64) as i64;
    let mut boxes = Vec::new();
    for _ in 0..batches * count {
        // Even, so that centres are in whole units, too.
        let [y, x] = [0; 2].map(|_| COORDINATES * below(8));
        let [height, width] = [0; 2].map(|_| COORDINATES * (1 + below(6)));
        if centered {
            boxes.extend([x + width / 2, y + height / 2, width, height]);
            continue;
        }
        let (mut corners, [down, across]) = ([y, x, y + height, x + width], [0; 2].map(|_| below(4) == 0));
        if down {
            corners.swap(0, 2);
        }
        if across {
            corners.swap(1, 3);
        }
        boxes.extend(corners);
    }
    let mut scores = Vec::new();
    for _ in 0..batches * classes {
        let mut places: Vec<i64> = (0..count).collect();
        for i in (1..count as usize).rev() {
            places.swap(i, below(i as i64 + 1) as usize);
        }
        scores.extend(places.into_iter().map(|place| place * STEP + 3));
    }
    let values =
        |list: &[i64], denominator: i64| list.iter().map(|&v| v as f64 / denominator as f64).collect::<Vec<_>>();
    let (box_values, score_values) = (values(&boxes, COORDINATES), values(&scores, SCORES));
    let overlap = threshold(b, &box_values, count, centered);
    // At least the best box of each class remains.
    let floor = b.coin().then(|| b.below(count as usize) as i64 * STEP);
    let none = b.smallest_size() == 0 && b.chance(64);
    let most = if none { 0 } else { b.one_of(&[2, 1, 3, 100, 5, 12]) };
    let rules = Rules {
        most,
        overlap: overlap.map_or(0.0, |percent| percent as f64 / 100.0),
        score: floor.map(|floor| floor as f64 / SCORES as f64),
        centered,
    };
    let selected = select(&box_values, &score_values, [batches, classes, count], &rules).len() / 3;
    let sizes = |sizes: [i64; 3]| sizes.map(Term::constant);
    let terms = |list: Vec<i64>| list.into_iter().map(Term::constant);
    b.fixed(DType::F32, sizes([batches, count, 4]), terms(boxes), COORDINATES);
    b.fixed(DType::F32, sizes([batches, classes, count]), terms(scores), SCORES);
    // The text says scalars, and ONNX's own examples have lists of one.
    let scalar = if b.coin() { Vec::new() } else { vec![Term::constant(1)] };
    let options = [
        ((most > 0 || b.coin()).then_some(most), DType::I64, 1),
        (overlap, DType::F32, 100),
        (floor, DType::F32, SCORES),
    ];
    let written = options.iter().rposition(|(value, ..)| value.is_some()).map_or(0, |last| last + 1);
    for (value, dtype, denominator) in options.into_iter().take(written) {
        match value {
            Some(value) => drop(b.fixed(dtype, scalar.clone(), [Term::constant(value)], denominator)),
            None => b.absent(),
        }
    }
    if centered || b.coin() {
        b.set_int("center_point_box", i64::from(centered));
    }
    b.output(DType::I64, [selected as i64, 3].map(Term::constant));
    Ok(())
}

/// A threshold of overlap in percent that no two boxes of an image are near to; `None` for its default, which is 0: boxes
/// that do not touch the inside of each other do not overlap at all.
fn threshold(b: &mut Builder, boxes: &[f64], count: i64, centered: bool) -> Option<i64> {
    const PERCENT: [i64; 12] = [50, 30, 10, 70, 42, 5, 55, 23, 37, 85, 95, 15];
    if b.chance(48) {
        return None;
    }
    let first = b.below(PERCENT.len());
    let far = |percent: &i64| {
        let threshold = *percent as f64 / 100.0;
        boxes.chunks(4 * count as usize).all(|image| {
            let boxes: Vec<[f64; 4]> = image.chunks(4).map(|ends| extent(ends, centered)).collect();
            let near = |one: &[f64; 4], other: &[f64; 4]| (overlap(one, other) - threshold).abs() < MARGIN;
            boxes.iter().enumerate().all(|(i, one)| boxes[..i].iter().all(|other| !near(one, other)))
        })
    };
    PERCENT.iter().cycle().skip(first).take(PERCENT.len()).copied().find(far)
}

/// The least and the greatest coordinate of a box on each axis.
fn extent(ends: &[f64], centered: bool) -> [f64; 4] {
    match centered {
        true => {
            let [x, y, width, height] = [ends[0], ends[1], ends[2] / 2.0, ends[3] / 2.0];
            [y - height, x - width, y + height, x + width]
        }
        false => [ends[0].min(ends[2]), ends[1].min(ends[3]), ends[0].max(ends[2]), ends[1].max(ends[3])],
    }
}

/// The share of the area of two boxes that both cover.
fn overlap(one: &[f64; 4], other: &[f64; 4]) -> f64 {
    let area = |b: &[f64; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let both = [one[0].max(other[0]), one[1].max(other[1]), one[2].min(other[2]), one[3].min(other[3])];
    let both = area(&both);
    let either = area(one) + area(other) - both;
    if both > 0.0 && either > 0.0 { both / either } else { 0.0 }
}

/// The image, the class and the index of each box that is kept.
fn select(boxes: &[f64], scores: &[f64], [batches, classes, count]: [i64; 3], rules: &Rules) -> Vec<i64> {
    let mut selected = Vec::new();
    let count = count as usize;
    for (batch, class) in (0..batches).flat_map(|batch| (0..classes).map(move |class| (batch, class))) {
        let score = |index: usize| scores[(batch * classes + class) as usize * count + index];
        let extent = |index: usize| extent(&boxes[4 * (batch as usize * count + index)..][..4], rules.centered);
        let mut candidates: Vec<usize> =
            (0..count).filter(|&i| rules.score.is_none_or(|least| score(i) > least)).collect();
        candidates.sort_by(|&i, &j| score(j).total_cmp(&score(i)));
        let mut kept: Vec<usize> = Vec::new();
        for index in candidates {
            let free = kept.iter().all(|&better| overlap(&extent(index), &extent(better)) <= rules.overlap);
            if free && (kept.len() as i64) < rules.most {
                kept.push(index);
            }
        }
        selected.extend(kept.into_iter().flat_map(|index| [batch, class, index as i64]));
    }
    selected
}

fn eval(a: &Args) -> Outputs {
    let values = |x: &Tensor| -> Result<Vec<f64>, TchError> {
        Vec::try_from(x.detach().f_to_kind(Kind::Double)?.f_reshape([-1])?)
    };
    let scalar = |index: usize| -> Result<Option<f64>, TchError> {
        a.opt(index).map_or(Ok(None), |x| Ok(values(x)?.first().copied()))
    };
    let rules = Rules {
        most: scalar(2)?.unwrap_or(0.0) as i64,
        overlap: scalar(3)?.unwrap_or(0.0),
        score: scalar(4)?,
        centered: a.int("center_point_box", 0) != 0,
    };
    let shape = a.shape(1);
    let selected = select(&values(a.x(0))?, &values(a.x(1))?, [shape[0], shape[1], shape[2]], &rules);
    Ok(vec![Tensor::from_slice(&selected).f_reshape([-1, 3])?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOXES: [f64; 24] = [
        0.0, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, -0.1, 1.0, 0.9, 0.0, 10.0, 1.0, 11.0, 0.0, 10.1, 1.0, 11.1, 0.0,
        100.0, 1.0, 101.0,
    ];
    const SCORES: [f64; 6] = [0.9, 0.75, 0.6, 0.95, 0.5, 0.3];

    #[test]
    fn examples_of_onnx() {
        let rules = |most, score| Rules { most, overlap: 0.5, score, centered: false };
        let select = |rules: &Rules| select(&BOXES, &SCORES, [1, 1, 6], rules);
        assert_eq!(select(&rules(3, Some(0.0))), [0, 0, 3, 0, 0, 0, 0, 0, 5]);
        assert_eq!(select(&rules(2, Some(0.0))), [0, 0, 3, 0, 0, 0], "limited");
        assert_eq!(select(&rules(3, Some(0.4))), [0, 0, 3, 0, 0, 0], "low scores");
        assert_eq!(select(&rules(0, None)), [0; 0]);
        let flipped: Vec<f64> = BOXES.chunks(4).flat_map(|b| [b[2], b[3], b[0], b[1]]).collect();
        assert_eq!(super::select(&flipped, &SCORES, [1, 1, 6], &rules(3, None)), [0, 0, 3, 0, 0, 0, 0, 0, 5]);
        let centres: Vec<f64> =
            BOXES.chunks(4).flat_map(|b| [b[1] + 0.5, b[0] + 0.5, b[3] - b[1], b[2] - b[0]]).collect();
        let centered = Rules { centered: true, ..rules(3, Some(0.0)) };
        assert_eq!(super::select(&centres, &SCORES, [1, 1, 6], &centered), [0, 0, 3, 0, 0, 0, 0, 0, 5]);
    }
}
