//! rten, in process.

mod representable;

use super::{
    Answer, Backend, Error, Failure, Level, Loaded, Session, Setting, assert_whole, isolate, locked_version, whole,
};
use crate::dtype::DType;
use crate::onnx::proto::ModelProto;
use crate::tensor::{Element, TensorData};
use prost::Message;
use rten::{Model, ModelOptions, RunOptions, ShapeInferenceMode, ThreadPool, Value};
use rten_tensor::{Layout, Tensor};
use std::cell::LazyCell;
use std::sync::Arc;

pub const ID: &str = "rten";

/// rten, on one thread of its own. It has only f32, i32, i8 and u8; i64 and bool are i32 inside, and what is computed in
/// i64 must stay in the range of i32 to be right.
struct Rten {
    off: ModelOptions,
    on: ModelOptions,
    one_thread: Pool,
    threads: Pool,
}

/// Made by the process that runs models: threads are not in a forked one.
type Pool = LazyCell<Arc<ThreadPool>>;

/// Threads of [`Setting::Threads`].
const THREADS: usize = 3;

pub fn open() -> Result<Box<dyn Backend>, Error> {
    let mut off = ModelOptions::with_all_ops();
    off.enable_optimization(false).shape_inference(ShapeInferenceMode::Off);
    let mut on = ModelOptions::with_all_ops();
    on.enable_optimization(true).prepack_weights(true);
    Ok(Box::new(Rten {
        off,
        on,
        one_thread: LazyCell::new(|| Arc::new(ThreadPool::with_num_threads(1))),
        threads: LazyCell::new(|| Arc::new(ThreadPool::with_num_threads(THREADS))),
    }))
}

impl Backend for Rten {
    fn id(&self) -> &'static str {
        ID
    }

    fn version(&self) -> String {
        locked_version("rten")
    }

    fn integer_limit(&self) -> Option<i64> {
        Some(i32::MAX.into())
    }

    fn compile(&self, onnx: &[u8], level: Level) -> Loaded {
        let options = match level {
            Level::Off => &self.off,
            Level::On => &self.on,
        };
        load(options, &self.one_thread, onnx)
    }

    fn compile_with(&self, onnx: &[u8], setting: Setting) -> Option<Loaded> {
        (setting == Setting::Threads).then(|| load(&self.on, &self.threads, onnx))
    }

    fn passes(&self) -> &'static [&'static str] {
        &[OPTIMIZER, PREPACKING]
    }

    fn compile_without(&self, onnx: &[u8], pass: &str) -> Loaded {
        let mut options = ModelOptions::with_all_ops();
        options.enable_optimization(pass != OPTIMIZER).prepack_weights(pass != PREPACKING);
        load(&options, &self.one_thread, onnx)
    }
}

const OPTIMIZER: &str = "optimizer";
const PREPACKING: &str = "prepacking";

fn load(options: &ModelOptions, threads: &Arc<ThreadPool>, onnx: &[u8]) -> Loaded {
    let proto = ModelProto::decode(onnx).map_err(|error| Failure::Refused(error.to_string()))?;
    representable::check(&proto)?;
    isolate(|| {
        let model = options.load(onnx.to_vec()).map_err(|error| Failure::Refused(error.to_string()))?;
        let run_options = RunOptions::default().with_thread_pool(Some(threads.clone()));
        Ok(Box::new(Compiled { model, run_options, outputs: output_dtypes(&proto) }) as Box<dyn Session>)
    })
}

/// The declared element type of each graph output, where there is one.
fn output_dtypes(model: &ModelProto) -> Vec<Option<DType>> {
    let outputs = model.graph.iter().flat_map(|graph| &graph.output);
    let codes = outputs.map(|output| Some(output.r#type.as_ref()?.tensor_type.as_ref()?.elem_type));
    codes.map(|code| code.and_then(DType::from_onnx_code)).collect()
}

struct Compiled {
    model: Model,
    run_options: RunOptions,
    outputs: Vec<Option<DType>>,
}

impl Session for Compiled {
    fn run(&mut self, inputs: &[TensorData]) -> Answer {
        assert_whole(inputs);
        isolate(|| {
            let values = inputs.iter().map(to_rten).collect::<Result<Vec<_>, _>>()?;
            let named = self.model.input_ids().iter().copied().zip(values.into_iter().map(Into::into)).collect();
            let outputs = self.model.run(named, self.model.output_ids(), Some(self.run_options.clone()));
            let outputs = outputs.map_err(|error| Failure::Refused(error.to_string()))?;
            outputs.into_iter().zip(&self.outputs).map(|(value, &declared)| from_rten(value, declared)).collect()
        })
    }
}

fn to_rten(tensor: &TensorData) -> Result<Value, Failure> {
    fn value<T>(tensor: &TensorData, elements: Vec<T>) -> Result<Value, Failure>
    where
        Value: From<Tensor<T>>,
    {
        Value::from_shape(&tensor.shape, elements).map_err(|error| Failure::Protocol(error.to_string()))
    }
    match tensor.dtype {
        DType::F32 => value(tensor, tensor.values::<f32>()),
        DType::I32 => value(tensor, tensor.values::<i32>()),
        DType::I8 => value(tensor, tensor.values::<i8>()),
        DType::U8 => value(tensor, tensor.values::<u8>()),
        DType::Bool => value(tensor, tensor.values::<bool>().into_iter().map(i32::from).collect()),
        DType::I64 => {
            let elements = tensor.values::<i64>().into_iter().map(representable::narrow).collect::<Result<_, _>>()?;
            value::<i32>(tensor, elements)
        }
        other => Err(representable::no_type(other)),
    }
}

/// Gives i32 the type that the model declares for it; every other type is reported as it came.
fn from_rten(value: Value, declared: Option<DType>) -> Result<TensorData, Failure> {
    match value {
        Value::FloatTensor(tensor) => read(tensor, |element| element),
        Value::Int8Tensor(tensor) => read(tensor, |element| element),
        Value::UInt8Tensor(tensor) => read(tensor, |element| element),
        Value::Int32Tensor(tensor) => match declared {
            Some(DType::I64) => read(tensor, i64::from),
            Some(DType::Bool) => read(tensor, |element| element != 0),
            _ => read(tensor, |element| element),
        },
        other => Err(Failure::Protocol(format!("{} returned", other.dtype()))),
    }
}

fn read<T: Clone, E: Element>(tensor: Tensor<T>, convert: impl Fn(T) -> E) -> Result<TensorData, Failure> {
    let (shape, size) = (tensor.shape().to_vec(), E::DTYPE.size_bytes());
    let mut bytes = vec![0; tensor.len() * size];
    for (bytes, element) in bytes.chunks_exact_mut(size).zip(tensor.into_data()) {
        convert(element).write(bytes);
    }
    whole(E::DTYPE, shape, bytes)
}
