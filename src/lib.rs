//! graphsmith: a coverage-guided fuzzer for deep-learning compilers.

pub mod backend;
pub mod dtype;
pub mod graph;
pub mod input;
pub mod known;
pub mod limits;
pub mod model;
pub mod onnx;
pub mod ops;
pub mod oracle;
pub mod reference;
pub mod search;
pub mod solve;
pub mod spec;
pub mod swarm;
pub mod tensor;
pub mod term;
