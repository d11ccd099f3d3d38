//! ONNX, the only form in which a model reaches a backend.

pub mod proto;
