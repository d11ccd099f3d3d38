//! graphsmith: a coverage-guided fuzzer for deep-learning compilers.

pub mod backend;
pub mod case;
pub mod dtype;
pub mod finding;
pub mod fuzz;
pub mod graph;
pub mod harness;
pub mod input;
pub mod known;
pub mod limits;
pub mod model;
pub mod npz;
pub mod onnx;
pub mod ops;
pub mod oracle;
pub mod reference;
pub mod search;
pub mod solve;
pub mod spec;
pub mod stats;
pub mod swarm;
pub mod tensor;
pub mod term;
pub mod triage;
