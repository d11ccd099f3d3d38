//! ONNX Runtime, from a shared library that is loaded at run time.

use super::{
    Answer, Backend, Error, Failure, Level, Loaded, Session, Setting, assert_whole, isolate, size_bytes, whole,
};
use crate::dtype::DType;
use crate::features::{self, Histogram};
use crate::tensor::TensorData;
use ort::environment::Environment;
use ort::ep;
use ort::logging::LogLevel;
use ort::memory::Allocator;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session as OrtSession, SessionInputValue};
use ort::value::{DynTensor, DynTensorValueType, DynValueRef, Shape, TensorElementType};
use std::cell::RefCell;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub const ID: &str = "ort";

/// Threads of [`Setting::Threads`]: more than one tile of work for many small kernels.
const THREADS: usize = 3;

/// Names the library's file at run time.
const PATH_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The rewrite rules and graph transformers of the CPU provider (`graph_transformer_utils.cc` in core/optimizer), roughly
/// in the order in which they are registered. Those that the provider needs are no part of the levels and cannot be left
/// out.
const PASSES: &[&str] = &[
    "EliminateIdentity",
    "EliminateSlice",
    "UnsqueezeElimination",
    "EliminateDropout",
    "ExpandElimination",
    "CastElimination",
    "PreShapeNodeElimination",
    "NoopElimination",
    "DivMulFusion",
    "FuseReluClip",
    "GemmSumFusion",
    "GemmTransposeFusion",
    "NotWhereFusion",
    "ConvAddFusion",
    "ConvMulFusion",
    "ConvBNFusion",
    "Pad_Fusion",
    "MatMul_BatchNormalization_Fusion",
    "LabelEncoderFusion",
    "DoubleQDQPairsRemover",
    "ConstantSharing",
    "CommonSubexpressionElimination",
    "ConstantFolding",
    "MatMulAddFusion",
    "ReshapeFusion",
    "SliceConcatToSpaceToDepthFusion",
    "GeluFusionL1",
    "LayerNormFusionL1",
    "QDQPropagationTransformer",
    "WhereDummyDq",
    "WeightBiasQuantization",
    "EnsureUniqueDQForNodeUnit",
    "TransposeOptimizer",
    "TransposeOptimizer_CPUExecutionProvider",
    "ClipQuantRewrite",
    "ReluQuantRewrite",
    "QDQS8ToU8Transformer",
    "QDQSelectorActionTransformer",
    "GemmActivationFusion",
    "MatMulIntegerToFloatFusion",
    "DynamicQuantizeMatMulFusion",
    "ConvActivationFusion",
    "GeluFusionL2",
    "LayerNormFusionL2",
    "SimplifiedLayerNormFusion",
    "AttentionFusion",
    "EmbedLayerNormFusion",
    "GatherSliceToSplitFusion",
    "GatherToSliceFusion",
    "MatmulTransposeFusion",
    "BiasGeluFusion",
    "SkipLayerNormFusion",
    "BiasSkipLayerNormFusion",
    "GroupQueryAttentionFusion",
    "GroupQueryAttentionPreNormFusion",
    "BiasDropoutFusion",
    "FastGeluFusion",
    "QuickGeluFusion",
    "BiasSoftmaxFusion",
    "MatMulScaleFusion",
    "MatMulActivationFusion",
    "SwiGluFusion",
    "MatMulNBitsFusion",
    "QDQFinalCleanupTransformer",
    "NchwcTransformer",
    "NhwcTransformer",
    "ConvAddActivationFusion",
    "FuseFp16InitializerToFp32NodeTransformer",
];

/// ONNX Runtime with its CPU execution provider, on one thread unless asked otherwise.
///
/// There is no arena and no memory pattern, so memory stays flat over any number of sessions, and a sanitizer sees each
/// buffer by itself.
struct Ort {
    version: &'static str,
    off: RefCell<SessionBuilder>,
    on: RefCell<SessionBuilder>,
    threads: RefCell<SessionBuilder>,
}

/// The library and its one environment. Neither is ever dropped: at exit the library's statics may go first.
struct Runtime {
    version: String,
    environment: Environment,
}

/// Loads the library that `ORT_DYLIB_PATH` names, else the one that `GRAPHSMITH_ORT_DYLIB` named when graphsmith was
/// built, else the system's; a relative name is looked up beside the executable first. The first call decides for the
/// whole process, whether it succeeds or not.
pub fn open() -> Result<Box<dyn Backend>, Error> {
    let runtime = runtime()?;
    let builder = |level, threads| {
        let builder = builder(&runtime.environment, level, threads);
        builder.map(RefCell::new).map_err(|error| unusable(library_path(), error.to_string()))
    };
    let (off, on) = (builder(GraphOptimizationLevel::Disable, 1)?, builder(GraphOptimizationLevel::All, 1)?);
    let threads = builder(GraphOptimizationLevel::All, THREADS)?;
    Ok(Box::new(Ort { version: &runtime.version, off, on, threads }))
}

fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Result<Runtime, Error>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let path = library_path();
        load(&path).map_err(|reason| unusable(path, reason))
    });
    runtime.as_ref().map_err(Error::clone)
}

fn unusable(path: PathBuf, reason: String) -> Error {
    Error::Library { library: "ONNX Runtime", path, variable: PATH_VARIABLE, reason }
}

fn library_path() -> PathBuf {
    let named = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty());
    let named = named.or_else(|| option_env!("GRAPHSMITH_ORT_DYLIB").map(Into::into));
    let path = named.map_or_else(|| format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}").into(), PathBuf::from);
    let beside = std::env::current_exe().ok().and_then(|executable| Some(executable.parent()?.join(&path)));
    beside.filter(|beside| beside.exists()).unwrap_or(path)
}

fn load(path: &Path) -> Result<Runtime, String> {
    let version = version(path).map_err(|error| reason(&error))?;
    let builder = ort::init_from(path).map_err(|error| reason(&error))?;
    // ONNX Runtime writes to stderr about things that are no news to a fuzzer, the first of them while the environment
    // is made. Later the level saves it even making the messages up.
    let silent = Arc::new(|_: LogLevel, _: &str, _: &str, _: &str, _: &str| {});
    let environment = builder.with_name("graphsmith").with_telemetry(false).with_logger(silent).build();
    let environment = environment.map_err(|error| reason(&error))?;
    environment.set_log_level(LogLevel::Fatal);
    Ok(Runtime { version, environment })
}

/// What the library at `path` says of itself; `ort` does not tell.
fn version(path: &Path) -> Result<String, libloading::Error> {
    // SAFETY: a library that someone has named is trusted to run its initializers. `OrtGetApiBase` returns a static of
    // the library, and so does `GetVersionString`; the library stays loaded.
    unsafe {
        let library = ManuallyDrop::new(libloading::Library::new(path)?);
        let base: libloading::Symbol<unsafe extern "C" fn() -> *const ort::sys::OrtApiBase> =
            library.get(b"OrtGetApiBase")?;
        Ok(CStr::from_ptr(((*base()).GetVersionString)()).to_string_lossy().into_owned())
    }
}

/// The innermost cause, which names the file; what is around it says only that loading has failed.
fn reason(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), reason)
}

fn builder(
    environment: &Environment,
    level: GraphOptimizationLevel,
    threads: usize,
) -> Result<SessionBuilder, ort::Error> {
    Ok(OrtSession::builder(environment)?
        .with_optimization_level(level)?
        .with_intra_threads(threads)?
        .with_inter_threads(threads)?
        .with_parallel_execution(threads > 1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_memory_pattern(false)?
        .with_execution_providers([ep::CPU::default().with_arena_allocator(false).build()])?
        .with_log_level(LogLevel::Fatal)?)
}

impl Backend for Ort {
    fn id(&self) -> &'static str {
        ID
    }

    fn version(&self) -> String {
        self.version.to_owned()
    }

    fn library(&self) -> Option<PathBuf> {
        Some(library_path())
    }

    fn compile(&self, onnx: &[u8], level: Level) -> Loaded {
        let builder = match level {
            Level::Off => &self.off,
            Level::On => &self.on,
        };
        commit(&mut builder.borrow_mut(), onnx)
    }

    fn compile_with(&self, onnx: &[u8], setting: Setting) -> Option<Loaded> {
        Some(match setting {
            Setting::Threads => commit(&mut self.threads.borrow_mut(), onnx),
            Setting::Reloaded => self.reload(onnx),
        })
    }

    fn passes(&self) -> &'static [&'static str] {
        PASSES
    }

    fn compile_without(&self, onnx: &[u8], pass: &str) -> Loaded {
        let builder = self.on.borrow().clone().with_disabled_optimizers(pass);
        commit(&mut builder.map_err(|error| Failure::Refused(error.to_string()))?, onnx)
    }
}

impl Ort {
    fn reload(&self, onnx: &[u8]) -> Loaded {
        let disk = |error: std::io::Error| Failure::Unsupported(format!("no file for the optimised model: {error}"));
        let folder = tempfile::tempdir().map_err(disk)?;
        let path = folder.path().join("optimised.onnx");
        let saving = self.on.borrow().clone().with_optimized_model_path(&path);
        let mut saving = saving.map_err(|error| Failure::Refused(error.to_string()))?;
        drop(commit(&mut saving, onnx)?);
        let optimised = std::fs::read(path).map_err(disk)?;
        let operators = crate::onnx::decode(&optimised).ok().and_then(|model| model.graph);
        let operators = operators.map(|graph| features::histogram(graph.node.iter().map(|node| node.op_type.as_str())));
        Ok(Box::new(compiled(&mut self.off.borrow_mut(), &optimised, operators)?))
    }
}

fn commit(builder: &mut SessionBuilder, onnx: &[u8]) -> Loaded {
    Ok(Box::new(compiled(builder, onnx, None)?))
}

fn compiled(builder: &mut SessionBuilder, onnx: &[u8], operators: Option<Histogram>) -> Result<Compiled, Failure> {
    isolate(|| Ok(Compiled { session: builder.commit_from_memory(onnx).map_err(refused)?, operators }))
}

struct Compiled {
    session: OrtSession,
    operators: Option<Histogram>,
}

impl Session for Compiled {
    fn run(&mut self, inputs: &[TensorData]) -> Answer {
        assert_whole(inputs);
        isolate(|| {
            let inputs = inputs.iter().map(to_ort).collect::<Result<Vec<_>, _>>().map_err(refused)?;
            let outputs = self.session.run(&inputs[..]).map_err(refused)?;
            outputs.values().map(from_ort).collect()
        })
    }

    fn operators(&self) -> Option<Histogram> {
        self.operators.clone()
    }
}

fn refused(error: ort::Error) -> Failure {
    Failure::Refused(error.to_string())
}

fn to_ort(tensor: &TensorData) -> Result<SessionInputValue<'static>, ort::Error> {
    // ONNX Runtime's own memory, because its kernels may count on an alignment that `bytes` need not have.
    let shape = Shape::from(&tensor.shape[..]);
    let mut value = DynTensor::new(&Allocator::default(), element_type(tensor.dtype), shape)?;
    let data = value.data_ptr_mut().cast::<u8>();
    if !data.is_null() {
        // SAFETY: `value` was just made with room for a tensor of this type and shape, and `tensor` is whole.
        unsafe { data.copy_from_nonoverlapping(tensor.bytes.as_ptr(), tensor.bytes.len()) };
    }
    Ok(value.into())
}

/// Copies the bytes of an output, whose memory goes back to ONNX Runtime.
fn from_ort(value: DynValueRef) -> Result<TensorData, Failure> {
    let Some(dtype) = value.dtype().tensor_type().and_then(known) else {
        return Err(Failure::Protocol(format!("{} returned", value.dtype())));
    };
    let tensor = value.downcast::<DynTensorValueType>().map_err(|error| Failure::Protocol(error.to_string()))?;
    let shape: Result<Vec<usize>, _> = tensor.shape().iter().map(|&size| size.try_into()).collect();
    let shape = shape.map_err(|_| Failure::Protocol(format!("shape {} returned", tensor.shape())))?;
    let data = tensor.data_ptr().cast::<u8>();
    let bytes = match size_bytes(dtype, &shape) {
        Some(size) if size > 0 && !data.is_null() => {
            // SAFETY: an output of the CPU provider holds this many bytes, and lives as long as `tensor`.
            unsafe { std::slice::from_raw_parts(data, size) }.to_vec()
        }
        _ => Vec::new(),
    };
    whole(dtype, shape, bytes)
}

fn element_type(dtype: DType) -> TensorElementType {
    match dtype {
        DType::F16 => TensorElementType::Float16,
        DType::BF16 => TensorElementType::Bfloat16,
        DType::F32 => TensorElementType::Float32,
        DType::F64 => TensorElementType::Float64,
        DType::I8 => TensorElementType::Int8,
        DType::I16 => TensorElementType::Int16,
        DType::I32 => TensorElementType::Int32,
        DType::I64 => TensorElementType::Int64,
        DType::U8 => TensorElementType::Uint8,
        DType::U16 => TensorElementType::Uint16,
        DType::U32 => TensorElementType::Uint32,
        DType::U64 => TensorElementType::Uint64,
        DType::Bool => TensorElementType::Bool,
    }
}

fn known(theirs: TensorElementType) -> Option<DType> {
    DType::ALL.into_iter().find(|&dtype| element_type(dtype) == theirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;
    use crate::onnx::export_type;
    use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
    use prost::Message;
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    /// Those of the passes that are rewrite rules, which the log does not name.
    const RULES: &[&str] = &[
        "EliminateIdentity",
        "EliminateSlice",
        "UnsqueezeElimination",
        "EliminateDropout",
        "ExpandElimination",
        "CastElimination",
        "PreShapeNodeElimination",
        "NoopElimination",
        "DivMulFusion",
        "FuseReluClip",
        "GemmSumFusion",
        "GemmTransposeFusion",
        "NotWhereFusion",
        "ConvAddFusion",
        "ConvMulFusion",
        "ConvBNFusion",
        "Pad_Fusion",
        "MatMul_BatchNormalization_Fusion",
        "LabelEncoderFusion",
        "ClipQuantRewrite",
        "ReluQuantRewrite",
    ];
    /// Transformers that make a model fit for the provider and run whatever is left out, or have nothing to do here.
    const NEEDED: &[&str] = &[
        "EnsureUniqueDQForNodeUnit",
        "FreeDimensionOverrideTransformer",
        "RemoveDuplicateCastTransformer",
        "CastFloat16Transformer",
        "MemcpyTransformer",
    ];

    fn relu() -> Vec<u8> {
        let value = |name: &str| export_type(&Value { name: name.to_owned(), dtype: DType::F32, shape: vec![2] });
        let (input, output) = (vec!["x".to_owned()], vec!["y".to_owned()]);
        let node = vec![NodeProto { op_type: "Relu".to_owned(), input, output, ..Default::default() }];
        let (input, output) = (vec![value("x")], vec![value("y")]);
        let graph = Some(GraphProto { name: "relu".to_owned(), node, input, output, ..Default::default() });
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 18 }];
        ModelProto { ir_version: 8, opset_import, graph, ..Default::default() }.encode_to_vec()
    }

    /// The transformers that the log names while a model is loaded.
    fn transformers(environment: &Environment, disabled: &str) -> BTreeSet<String> {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = log.clone();
        let logger = move |_: LogLevel, _: &str, _: &str, _: &str, message: &str| {
            kept.lock().unwrap().push(message.to_owned());
        };
        let builder = builder(environment, GraphOptimizationLevel::All, 1).unwrap();
        let builder = builder.with_log_level(LogLevel::Info).unwrap().with_logger(Arc::new(logger)).unwrap();
        let mut builder = builder.with_disabled_optimizers(disabled).unwrap();
        drop(builder.commit_from_memory(&relu()).unwrap());
        let log = log.lock().unwrap();
        let named = log.iter().filter_map(|line| line.strip_prefix("GraphTransformer ")?.split(' ').next());
        named.filter(|name| !name.ends_with("_RuleBasedTransformer")).map(str::to_owned).collect()
    }

    #[test]
    fn passes_are_those_of_the_library() {
        let Ok(runtime) = runtime() else { return };
        if runtime.version != "1.32.0" {
            return;
        }
        let passes = || PASSES.iter().filter(|pass| !RULES.contains(pass));
        let all = transformers(&runtime.environment, "");
        let unknown: Vec<_> = passes().filter(|&&pass| !all.contains(pass)).collect();
        assert!(unknown.is_empty(), "not in the library: {unknown:?}");
        let left = transformers(&runtime.environment, &PASSES.join(";"));
        let left: Vec<_> = left.iter().filter(|name| !NEEDED.contains(&name.as_str())).collect();
        assert!(left.is_empty(), "run although they are left out, or are not listed: {left:?}");
    }
}
