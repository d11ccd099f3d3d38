//! Mutations that look at the graph, and change a byte of which they know what it decides.

use super::Mutant;
use crate::input::Use;
use crate::ops::{self, Choice};
use crate::schema;
use crate::spec::OpSpec;
use crate::swarm::Swarm;

/// Where a byte decides `wanted` for a record that was kept.
fn aim(mutant: &mut Mutant, wanted: Use) -> Option<(usize, usize)> {
    let sites = mutant.sites();
    let kept = sites.iter().enumerate().filter(|(_, site)| site.kept);
    let bytes = kept.flat_map(|(record, site)| site.uses.iter().enumerate().map(move |(at, &it)| (record, at, it)));
    let found: Vec<_> = bytes.filter(|&(_, _, it)| it == Some(wanted)).map(|(record, at, _)| (record, at)).collect();
    mutant.one_of(&found)
}

pub(super) fn retarget(mutant: &mut Mutant) -> bool {
    let Some((record, at)) = aim(mutant, Use::Operand) else { return false };
    // Values are picked by the square of the byte, the newest for the lowest: so all are met alike.
    let byte = (mutant.stream.unit().sqrt() * 256.0) as u8;
    let old = std::mem::replace(&mut mutant.records()[record][at], byte);
    old != byte
}

pub(super) fn attribute(mutant: &mut Mutant) -> bool {
    change(mutant, Use::Choice)
}

pub(super) fn leaf(mutant: &mut Mutant) -> bool {
    change(mutant, Use::Leaf)
}

fn change(mutant: &mut Mutant, wanted: Use) -> bool {
    let Some((record, at)) = aim(mutant, wanted) else { return false };
    let old = mutant.input.records[record][at];
    mutant.records()[record][at] = mutant.other_byte(old);
    true
}

pub(super) fn replace(mutant: &mut Mutant) -> bool {
    let swarm = Swarm::new(&mutant.input.header);
    let sites = mutant.sites();
    let formed: Vec<usize> = (0..sites.len()).filter(|&index| sites[index].form.is_some()).collect();
    let Some(at) = mutant.one_of(&formed) else { return false };
    let Some((operands, outputs)) = &sites[at].form else { return false };
    let old = ops::choose(mutant.input.records[at][0], &swarm).code();
    let fits = |spec: &OpSpec| {
        let signature = schema::signature(spec.name, swarm.opset);
        signature.is_some_and(|it| it.allows(operands.iter().copied(), outputs.iter().copied()))
    };
    let takes_part = |code: u8| matches!(ops::choose(code, &swarm), Choice::Operator(chosen) if chosen.code == code);
    let others = ops::ALL.iter().filter(|spec| spec.code != old && fits(spec) && takes_part(spec.code));
    let codes: Vec<u8> = others.map(|spec| spec.code).collect();
    let Some(code) = mutant.one_of(&codes) else { return false };
    mutant.records()[at][0] = code;
    true
}
