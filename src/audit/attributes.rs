//! Faults of attributes: read wrongly, or not at all.

use super::{Fault, Inject, pick};
use crate::input::Stream;
use crate::model::{LeafData, Model};
use crate::spec::Attribute;

type Change = fn(&mut Model, &mut LeafData, &mut Stream) -> Option<()>;

const fn fault(name: &'static str, change: Change) -> Fault {
    Fault { name, inject: Inject::Model(change) }
}

pub const TABLE: &[Fault] = &[
    fault("wrong-axis", |model, _, stream| {
        let rank = |model: &Model, at: usize| {
            model.nodes[at]
                .operands
                .first()
                .copied()
                .flatten()
                .map_or(0, |value| model.values[value].shape.len() as i64)
        };
        let candidates = written(model, &["axis"], |at, _| rank(model, at) > 1);
        let &(at, attribute) = pick(&candidates, stream)?;
        let rank = rank(model, at);
        change_int(model, at, attribute, |axis| (axis + 1).rem_euclid(rank))
    }),
    fault("permutation-reversed", |model, _, stream| {
        let candidates = written(model, &["perm"], |_, _| true);
        let &(at, attribute) = pick(&candidates, stream)?;
        change_ints(model, at, attribute, |perm| perm.reverse())
    }),
    fault("window-off-by-one", |model, _, stream| {
        let movable = |value: &Attribute<i64>| matches!(value, Attribute::Ints(pads) if pads[pads.len() / 2..].iter().any(|&pad| pad > 0));
        let candidates = written(model, &["pads"], |_, value| movable(value));
        let &(at, attribute) = pick(&candidates, stream)?;
        change_ints(model, at, attribute, |pads| {
            let half = pads.len() / 2;
            if let Some(axis) = (0..half).find(|&axis| pads[half + axis] > 0) {
                pads[axis] += 1;
                pads[half + axis] -= 1;
            }
        })
    }),
    fault("group-ignored", |model, _, stream| {
        let candidates =
            written(model, &["num_groups", "num_heads", "kv_num_heads"], |_, value| *value != Attribute::Int(1));
        let &(at, attribute) = pick(&candidates, stream)?;
        change_int(model, at, attribute, |_| 1)
    }),
    fault("wrong-epsilon", |model, _, stream| scaled(model, stream, &["epsilon"], 300.0)),
    fault("wrong-alpha", |model, _, stream| scaled(model, stream, &["alpha", "lambd", "gamma", "cubic_coeff_a"], 1.25)),
    fault("wrong-beta", |model, _, stream| scaled(model, stream, &["beta", "bias", "size", "clip"], 1.25)),
    fault("direction-ignored", |model, _, stream| flipped(model, stream, &["reverse"])),
    fault("exclusive-ignored", |model, _, stream| flipped(model, stream, &["exclusive"])),
    fault("padding-counted", |model, _, stream| flipped(model, stream, &["count_include_pad"])),
    fault("smallest-for-largest", |model, _, stream| flipped(model, stream, &["largest"])),
    fault("first-for-last", |model, _, stream| flipped(model, stream, &["select_last_index"])),
    fault("corners-not-aligned", |model, _, stream| flipped(model, stream, &["align_corners"])),
    fault("halves-for-pairs", |model, _, stream| flipped(model, stream, &["interleaved"])),
    fault("transposition-ignored", |model, _, stream| flipped(model, stream, &["transA", "transB"])),
    fault("upper-for-lower", |model, _, stream| flipped(model, stream, &["upper"])),
    fault("other-mode", |model, _, stream| {
        text(
            model,
            stream,
            "mode",
            &[("reflect", "edge"), ("edge", "reflect"), ("linear", "nearest"), ("DCR", "CRD"), ("CRD", "DCR")],
        )
    }),
    fault("other-coordinates", |model, _, stream| {
        let pairs = [("half_pixel", "asymmetric"), ("asymmetric", "half_pixel"), ("align_corners", "half_pixel")];
        text(model, stream, "coordinate_transformation_mode", &pairs)
    }),
    fault("other-rounding-of-coordinates", |model, _, stream| {
        let pairs =
            [("floor", "ceil"), ("ceil", "floor"), ("round_prefer_floor", "ceil"), ("round_prefer_ceil", "floor")];
        text(model, stream, "nearest_mode", &pairs)
    }),
    fault("other-border", |model, _, stream| {
        text(model, stream, "padding_mode", &[("zeros", "border"), ("border", "zeros"), ("reflection", "border")])
    }),
    fault("reduction-ignored", |model, _, stream| {
        text(
            model,
            stream,
            "reduction",
            &[("add", "none"), ("mul", "none"), ("max", "none"), ("min", "max"), ("mean", "sum")],
        )
    }),
    fault("other-approximation", |model, _, stream| {
        text(model, stream, "approximate", &[("none", "tanh"), ("tanh", "none")])
    }),
    fault("shift-to-the-other-side", |model, _, stream| {
        text(model, stream, "direction", &[("LEFT", "RIGHT"), ("RIGHT", "LEFT")])
    }),
    fault("layer-in-the-other-direction", |model, _, stream| {
        text(model, stream, "direction", &[("forward", "reverse"), ("reverse", "forward")])
    }),
];

/// Attributes of these names that suit, as node and index.
fn written(model: &Model, names: &[&str], suits: impl Fn(usize, &Attribute<i64>) -> bool) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, node) in model.nodes.iter().enumerate() {
        let named = node
            .attributes
            .iter()
            .enumerate()
            .filter(|(_, (name, value))| names.contains(&&**name) && suits(at, value));
        found.extend(named.map(|(attribute, _)| (at, attribute)));
    }
    found
}

fn change_int(model: &mut Model, at: usize, attribute: usize, change: impl Fn(i64) -> i64) -> Option<()> {
    let Attribute::Int(value) = &mut model.nodes[at].attributes[attribute].1 else { return None };
    *value = change(*value);
    Some(())
}

fn change_ints(model: &mut Model, at: usize, attribute: usize, change: impl Fn(&mut Vec<i64>)) -> Option<()> {
    let Attribute::Ints(values) = &mut model.nodes[at].attributes[attribute].1 else { return None };
    change(values);
    Some(())
}

fn scaled(model: &mut Model, stream: &mut Stream, names: &[&str], factor: f32) -> Option<()> {
    let candidates = written(model, names, |_, value| matches!(value, Attribute::Float(_)));
    let &(at, attribute) = pick(&candidates, stream)?;
    let Attribute::Float(value) = &mut model.nodes[at].attributes[attribute].1 else { return None };
    *value *= factor;
    Some(())
}

/// A flag, or its default where it is not written.
fn flipped(model: &mut Model, stream: &mut Stream, names: &[&str]) -> Option<()> {
    let candidates = written(model, names, |_, value| matches!(value, Attribute::Int(0 | 1)));
    let &(at, attribute) = pick(&candidates, stream)?;
    change_int(model, at, attribute, |flag| 1 - flag)
}

fn text(model: &mut Model, stream: &mut Stream, name: &str, pairs: &[(&str, &str)]) -> Option<()> {
    let other = |value: &Attribute<i64>| match value {
        Attribute::Text(text) => pairs.iter().find(|(from, _)| from == text).map(|(_, to)| (*to).to_owned()),
        _ => None,
    };
    let candidates = written(model, &[name], |_, value| other(value).is_some());
    let &(at, attribute) = pick(&candidates, stream)?;
    let value = &mut model.nodes[at].attributes[attribute].1;
    *value = Attribute::Text(other(value)?);
    Some(())
}
