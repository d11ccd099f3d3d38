//! What a compiler under test is to graphsmith. One backend = one file in `backend/` + one row in [`TABLE`].

mod isolation;
#[cfg(feature = "ort")]
pub mod ort;
pub mod process;
#[cfg(feature = "rten")]
pub mod rten;
#[cfg(feature = "tract")]
pub mod tract;

pub use isolation::{install_panic_hook, isolate};

use crate::dtype::DType;
use crate::features::Histogram;
use crate::tensor::TensorData;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A backend that this build contains: its [`Backend::id`], and how it is made ready.
pub type Row = (&'static str, fn() -> Result<Box<dyn Backend>, Error>);

/// Every backend that this build contains.
pub const TABLE: &[Row] = &[
    #[cfg(feature = "ort")]
    (ort::ID, ort::open),
    #[cfg(feature = "rten")]
    (rten::ID, rten::open),
    #[cfg(feature = "tract")]
    (tract::ID, tract::open),
];

/// Opens every backend of [`TABLE`], in its order.
pub fn all() -> Result<Vec<Box<dyn Backend>>, Error> {
    TABLE.iter().map(|(_, open)| open()).collect()
}

/// Why a backend cannot be had at all on this machine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// `reason` is the loader's own sentence.
    #[error("`{}` cannot be used as {library} ({reason}); name the right file in {variable}", path.display())]
    Library { library: &'static str, path: PathBuf, variable: &'static str, reason: String },
}

/// How hard a backend optimises.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Debug,
    serde::Serialize,
    serde::Deserialize,
    bincode::Encode,
    bincode::Decode,
)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Every graph optimisation that can be switched off is off.
    Off,
    /// What a user of the backend gets by default, or more.
    On,
}

/// A way to run a model at the level that optimises, which may change no result beyond the order of sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, bincode::Encode, bincode::Decode)]
pub enum Setting {
    /// Several threads work on one operator, and on several operators at once.
    Threads,
    /// The optimised model is saved, and loaded again.
    Reloaded,
}

/// Why a backend gave no outputs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, bincode::Encode, bincode::Decode)]
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
    /// The same inputs lead to other bits in another run of the same session.
    #[error("not deterministic: {0}")]
    NonDeterministic(String),
}

/// What a backend makes of inputs.
pub type Answer = Result<Vec<TensorData>, Failure>;
/// What a backend makes of a model.
pub type Loaded = Result<Box<dyn Session>, Failure>;
/// What a backend makes of a model and then of inputs.
pub type Ran = Result<(Box<dyn Session>, Answer), Failure>;

/// A compiler or runtime under test.
pub trait Backend {
    /// The name in tables, reports and `known.toml`.
    fn id(&self) -> &'static str;
    /// The version of the library that really runs, as `1.2.3`.
    fn version(&self) -> String;
    /// The shared library that is used, where there is one.
    fn library(&self) -> Option<PathBuf> {
        None
    }
    /// The largest magnitude that an integer may have, where the backend holds i64 in something narrower.
    fn integer_limit(&self) -> Option<i64> {
        None
    }
    /// Loads and compiles a serialized `ModelProto`.
    fn compile(&self, onnx: &[u8], level: Level) -> Loaded;
    /// Like [`Backend::compile`] and [`Session::run`] in one exchange; None where that saves nothing.
    fn compile_and_run(&self, _onnx: &[u8], _level: Level, _inputs: &[TensorData]) -> Option<Ran> {
        None
    }
    /// Like [`Backend::compile`] at [`Level::On`]; None where the backend has no such setting.
    fn compile_with(&self, _onnx: &[u8], _setting: Setting) -> Option<Loaded> {
        None
    }
    /// The parts of the optimiser that can be left out one by one, by the backend's own names.
    fn passes(&self) -> &'static [&'static str] {
        &[]
    }
    /// Like [`Backend::compile`] at [`Level::On`], without one of [`Backend::passes`].
    fn compile_without(&self, onnx: &[u8], _pass: &str) -> Loaded {
        self.compile(onnx, Level::On)
    }
    /// From now on a call may take no more than this, where its limit is not less; none for the limit alone. It is for who runs many
    /// models that may not come to an end. To a backend without a limit it is nothing.
    fn hurry(&self, _time: Option<Duration>) {}
}

/// A compiled model.
pub trait Session {
    /// `inputs` follow the order of `graph.input` without initializers; the results that of `graph.output`.
    fn run(&mut self, inputs: &[TensorData]) -> Answer;
    /// How often each operator occurs in the compiled graph, where the backend tells without effort.
    fn operators(&self) -> Option<Histogram> {
        None
    }
}

impl Level {
    pub const ALL: [Level; 2] = [Level::Off, Level::On];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Level::Off => "off",
            Level::On => "on",
        })
    }
}

/// The bytes of a tensor, unless that is more than a `usize` can say.
fn size_bytes(dtype: DType, shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(dtype.size_bytes(), |bytes, &size| bytes.checked_mul(size))
}

/// Panics if an input is not whole: that is a mistake of ours, and must not look like one of the backend's.
pub fn assert_whole(inputs: &[TensorData]) {
    for input in inputs {
        let expected = size_bytes(input.dtype, &input.shape);
        assert_eq!(expected, Some(input.bytes.len()), "bytes of {}{:?}", input.dtype, input.shape);
    }
}

/// A tensor that a backend has returned, if it is whole. `bytes` are as in [`TensorData`].
pub fn whole(dtype: DType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<TensorData, Failure> {
    if size_bytes(dtype, &shape) == Some(bytes.len()) {
        Ok(TensorData { dtype, shape, bytes })
    } else {
        Err(Failure::Protocol(format!("{} bytes returned as {dtype}{shape:?}", bytes.len())))
    }
}

/// The version of a crate in this package's lock file, for crates that do not tell their own.
#[cfg(any(feature = "rten", feature = "tract"))]
fn locked_version(crate_name: &str) -> String {
    const LOCK: &str = include_str!("../Cargo.lock");
    let entry = format!("name = \"{crate_name}\"\nversion = \"");
    let version = LOCK.split_once(&entry).and_then(|(_, rest)| rest.split_once('"'));
    version.expect("every linked crate is in the lock file").0.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_tensors_pass() {
        let tensor = |shape: &[usize], bytes| whole(DType::F32, shape.to_vec(), vec![0; bytes]);
        assert!(tensor(&[2, 3], 24).is_ok());
        assert!(tensor(&[], 4).is_ok());
        assert!(tensor(&[0, 3], 0).is_ok());
        for (shape, bytes) in [(&[2, 3][..], 23), (&[], 0), (&[0], 4), (&[usize::MAX, 2], 8)] {
            assert!(matches!(tensor(shape, bytes), Err(Failure::Protocol(_))), "{shape:?}");
        }
    }
}
