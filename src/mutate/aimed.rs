//! Mutations that look at the graph, and change a byte of which they know what it decides.

use super::{Mutant, View};
use crate::input::Use;
use crate::ops::{self, Choice};
use crate::schema;
use crate::spec::OpSpec;
use crate::swarm::Swarm;

/// How often a byte is changed before a row gives up. Making a model takes a small part of what testing one takes that has
/// been tested before.
const TRIES: usize = 4;

pub(super) fn retarget(mutant: &mut Mutant) -> bool {
    // Values are picked by the square of the byte, the newest for the lowest: so all are met alike.
    change(mutant, Use::Operand, |mutant, _| (mutant.stream.unit().sqrt() * 256.0) as u8)
}

pub(super) fn attribute(mutant: &mut Mutant) -> bool {
    change(mutant, Use::Choice, |mutant, byte| mutant.other_byte(byte))
}

pub(super) fn leaf(mutant: &mut Mutant) -> bool {
    change(mutant, Use::Leaf, |mutant, byte| mutant.other_byte(byte))
}

/// Changes a byte that decides `wanted` for a record that was kept, so that the model changes.
fn change(mutant: &mut Mutant, wanted: Use, value: impl Fn(&mut Mutant, u8) -> u8) -> bool {
    let View { text, sites } = mutant.view();
    let kept = sites.iter().enumerate().filter(|(_, site)| site.kept);
    let bytes = kept.flat_map(|(record, site)| site.uses.iter().enumerate().map(move |(at, &it)| (record, at, it)));
    let found: Vec<_> = bytes.filter(|&(_, _, it)| it == Some(wanted)).map(|(record, at, _)| (record, at)).collect();
    for _ in 0..TRIES {
        let Some((record, at)) = mutant.one_of(&found) else { return false };
        let old = mutant.input.records[record][at];
        let new = value(mutant, old);
        mutant.records()[record][at] = new;
        if new != old && mutant.view().text != text {
            return true;
        }
        mutant.records()[record][at] = old;
    }
    false
}

pub(super) fn replace(mutant: &mut Mutant) -> bool {
    let swarm = Swarm::new(&mutant.input.header);
    let sites = mutant.view().sites;
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
