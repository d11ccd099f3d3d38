//! graphsmith: a coverage-guided fuzzer for deep-learning compilers.

pub mod backend;
pub mod dtype;
pub mod onnx;
pub mod tensor;
