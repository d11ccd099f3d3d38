//! Every bound, with its reason.

/// ONNX sets no limit; six is the first rank past which all kernels fall back to one generic loop.
pub const MAX_RANK: usize = 6;
/// A dimension the solver may choose. Wide enough for every blocking factor of a kernel to be crossed twice.
pub const MAX_SIZE: i64 = 256;
/// Elements of one tensor. Beyond this a run costs more than the choice of sizes can teach.
pub const MAX_ELEMENTS: i64 = 1 << 14;
/// Elements of all tensors of a model together: keeps a whole test within a few milliseconds and 2 MiB in f64.
pub const MAX_TOTAL_ELEMENTS: i64 = 1 << 17;
/// Memory that one case may take, beyond what its process has: its values in f64 a few dozen times over, for the reference,
/// its bounds, gradients of the search, and each backend's copies and workspace.
pub const MAX_CASE_BYTES: u64 = 128 << 20;
/// Multiply-adds of one operator: a direct convolution of this size takes about a millisecond.
pub const MAX_WORK: i64 = 1 << 20;
/// Operators of a model. libFuzzer's default `-max_len` of 4096 gives 255 records.
pub const MAX_OPERATORS: usize = 256;
/// Moves of variables in one repair of an assignment, about 20 microseconds: Z3 takes a hundred times as long.
pub const REPAIR_MOVES: u32 = 300;
/// Laws and variables that narrowing looks at for one question, before it is left to Z3.
pub const NARROWING_STEPS: usize = 10_000;
/// Z3 resource units for one question; the hardest that hints leave open need a hundredth of it.
pub const SOLVER_RLIMIT: u32 = 2_000_000;
/// Times that one question to Z3 is repeated with fewer hints held fixed.
pub const SOLVER_ROUNDS: usize = 12;
/// The opsets of exported models: the oldest is that of the eldest models that users still deploy, the newest the last
/// that ONNX Runtime 1.32 loads.
pub const OLDEST_OPSET: i64 = 13;
pub const NEWEST_OPSET: i64 = 28;
/// The IR version that came with each opset, from [`OLDEST_OPSET`] on (`VERSION_TABLE` of the onnx package).
pub const IR_VERSIONS: [i64; 16] = [7, 7, 8, 8, 8, 8, 9, 9, 10, 10, 11, 12, 13, 13, 13, 14];
/// Bytes of a fuzzer input that a person hands in: 256 records take 4 KiB, so anything near this is another kind of file.
pub const MAX_INPUT_BYTES: u64 = 1 << 20;
/// Bytes of a model or an archive that a person hands in, and of the inputs made for it. The message of a protobuf ends
/// at 2 GiB; every backend and the f64 reference hold copies of it at the same time.
pub const MAX_FILE_BYTES: u64 = 1 << 29;

/// All integers up to this one, 2^53, are exact in f64: results of i64 beyond it are not judged.
pub const EXACT: f64 = 9_007_199_254_740_992.0;
