//! Other ways to say or to run the same model: what they compute may not differ by more than the error bounds allow.
//!
//! One axis = one function that changes a model and its data, and one row of [`TABLE`]. The changed model is a case of its
//! own: the reference computes it anew, so that an axis may also round otherwise. It reaches rewrites of a compiler that
//! the first form of the model does not.

use crate::backend::Setting;
use crate::input::Stream;
use crate::model::{LeafData, Model};

mod exceptional;
mod order;
mod presence;
mod rewrite;

/// A way to say a model otherwise.
pub struct Axis {
    pub name: &'static str,
    /// One sentence for reports and the page of axes.
    pub doc: &'static str,
    pub way: Way,
}

/// What an axis does.
#[derive(Clone, Copy)]
pub enum Way {
    /// Changes the model; false where it has nothing to change.
    Model(fn(&mut Model, &mut LeafData, &mut Stream) -> bool),
    /// Runs the same compiled model again with other data.
    Again,
    /// Has the backends that can run the model otherwise.
    Setting(Setting),
    /// Puts exceptional values among the data; see [`crate::oracle::exceptional`]. False where there is no place for any.
    Exceptional(fn(&Model, &mut LeafData, &mut Stream) -> bool),
}

impl std::fmt::Debug for Axis {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every axis. Levels of optimisation are not one of them, for every case runs at each; nor is backend against backend.
pub const TABLE: &[Axis] = &[
    Axis {
        name: "run-again",
        doc: "What was compiled runs again with other data, so that nothing may be left from the first run.",
        way: Way::Again,
    },
    Axis {
        name: "more-outputs",
        doc: "Values between operators are graph outputs as well, which forbids some fusions.",
        way: Way::Model(presence::expose),
    },
    Axis {
        name: "inputs-as-constants",
        doc: "Graph inputs are initializers, so that what follows from them can be folded.",
        way: Way::Model(presence::fold),
    },
    Axis {
        name: "constants-as-inputs",
        doc: "Weights are graph inputs, so that nothing follows from them before the run.",
        way: Way::Model(presence::unfold),
    },
    Axis {
        name: "symbolic-sizes",
        doc: "Sizes are symbols where they were numbers, or numbers where they were symbols.",
        way: Way::Model(presence::symbolic),
    },
    Axis { name: "renamed", doc: "Values and nodes have other names.", way: Way::Model(order::rename) },
    Axis { name: "reordered", doc: "Nodes and initializers stand in another order.", way: Way::Model(order::reorder) },
    Axis {
        name: "other-opset",
        doc: "Another opset whose operators mean the same.",
        way: Way::Model(order::other_opset),
    },
    Axis { name: "threads", doc: "Several threads share the work.", way: Way::Setting(Setting::Threads) },
    Axis {
        name: "reloaded",
        doc: "The optimised model is saved and loaded again.",
        way: Way::Setting(Setting::Reloaded),
    },
    Axis {
        name: "rewritten",
        doc: "Operators that change nothing, such as a double transpose, stand between others.",
        way: Way::Model(rewrite::insert),
    },
];

/// The lane of its own in which data are not valid on purpose.
pub const EXCEPTIONAL: &Axis = &Axis {
    name: "exceptional-values",
    doc: "NaN, infinities and zeros are among the data; what the standard says of them is judged.",
    way: Way::Exceptional(exceptional::plant),
};

/// The axis that a byte of a header names; for most bytes, 0 among them, none: along an axis a case costs nearly twice as
/// much, and another case teaches more than the same one again.
pub fn choose(byte: u8) -> Option<&'static Axis> {
    const LANE: u8 = 168;
    const FIRST: u8 = 192;
    if (LANE..FIRST).contains(&byte) {
        return Some(EXCEPTIONAL);
    }
    let pick = usize::from(byte.checked_sub(FIRST)?);
    Some(&TABLE[pick * TABLE.len() / (256 - usize::from(FIRST))])
}

pub fn by_name(name: &str) -> Option<&'static Axis> {
    TABLE.iter().chain([EXCEPTIONAL]).find(|axis| axis.name == name)
}
