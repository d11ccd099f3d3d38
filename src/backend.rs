//! What a compiler under test is to graphsmith. One backend = one file in `backend/` + one row in [`all`].

use crate::tensor::TensorData;
use std::fmt;

/// How hard a backend optimises.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Every graph optimisation that can be switched off is off.
    Off,
    /// What a user of the backend gets by default, or more.
    On,
}

/// Why a backend gave no outputs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The support table says that this backend does not take this model.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The backend returned an error from loading or running a valid model.
    #[error("refused: {0}")]
    Refused(String),
    /// The backend panicked or died.
    #[error("crashed: {0}")]
    Crashed(String),
    #[error("timed out")]
    TimedOut,
    #[error("out of memory")]
    OutOfMemory,
    /// What came back cannot be read as tensors of a known type.
    #[error("protocol: {0}")]
    Protocol(String),
}

/// A compiler or runtime under test.
pub trait Backend {
    /// The name in tables, reports and `known.toml`.
    fn id(&self) -> &'static str;
    /// The version of the library that really runs, as `1.2.3`.
    fn version(&self) -> String;
    /// Loads and compiles a serialized `ModelProto`.
    fn compile(&self, onnx: &[u8], level: Level) -> Result<Box<dyn Session>, Failure>;
}

/// A compiled model.
pub trait Session {
    /// `inputs` follow the order of `graph.input` without initializers; the results that of `graph.output`.
    fn run(&mut self, inputs: &[TensorData]) -> Result<Vec<TensorData>, Failure>;
}

impl Level {
    pub const ALL: [Level; 2] = [Level::Off, Level::On];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Level::Off => "off",
            Level::On => "on",
        })
    }
}
