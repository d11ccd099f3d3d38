//! tract, in process.

use super::{Answer, Backend, Error, Failure, Level, Loaded, Session, assert_whole, isolate, locked_version, whole};
use crate::dtype::DType;
use crate::features::{self, Histogram};
use crate::tensor::TensorData;
use std::env;
use std::sync::{Arc, Once};
use tract_onnx::Onnx;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceModelExt, TValue, Tensor, TractError, TractResult, TypedModel, TypedSimplePlan,
};

pub const ID: &str = "tract";

/// tract on one thread. `Off` runs the typed graph as it was translated, `On` the decluttered and optimised one.
///
/// Translation already folds constants of fewer than 16 elements; that cannot be switched off.
struct Tract(Onnx);

/// The kernels for AMX of tract 0.23.9 read beyond the packed operand: they take the inner dimension 64 elements at a time
/// (tract-linalg, x86_64/fma/avx512amx_mmm_i32_8x8.S.j2 and 16x16), the operand is padded to a multiple of 4 (`PackedI8K4`,
/// src/x86_64/mmm.rs). Now and then that is a SIGSEGV, in every model with a product of integers. So that these are tested
/// at all, tract takes the kernels of processors without AMX, unless the variable is set.
const INSTRUCTIONS: (&str, &str) = ("TRACT_CPU_ISA", "-amx-int8");
const READS_BEYOND: &str = "0.23.9";

fn avoid_amx() {
    static ONCE: Once = Once::new();
    let (name, without) = INSTRUCTIONS;
    ONCE.call_once(|| {
        if env::var_os(name).is_none() && locked_version("tract-onnx") == READS_BEYOND {
            // SAFETY: backends are opened before there are threads; tests open them from several, in which nothing but
            // Rust's own functions, which take turns, sets or reads variables.
            unsafe { env::set_var(name, without) };
        }
    });
}

pub fn open() -> Result<Box<dyn Backend>, Error> {
    avoid_amx();
    Ok(Box::new(Tract(tract_onnx::onnx())))
}

impl Backend for Tract {
    fn id(&self) -> &'static str {
        ID
    }

    fn version(&self) -> String {
        locked_version("tract-onnx")
    }

    fn compile(&self, onnx: &[u8], level: Level) -> Loaded {
        self.load(onnx, |model| match level {
            Level::Off => Ok(model),
            Level::On => model.into_optimized(),
        })
    }

    fn passes(&self) -> &'static [&'static str] {
        &[DECLUTTER, CODEGEN]
    }

    fn compile_without(&self, onnx: &[u8], pass: &str) -> Loaded {
        self.load(onnx, |mut model| match pass {
            CODEGEN => model.into_decluttered(),
            _ => model.optimize().map(|()| model),
        })
    }
}

/// The two stages of `into_optimized`.
const DECLUTTER: &str = "declutter";
const CODEGEN: &str = "codegen";

impl Tract {
    /// Translates a model, and optimises it as it is told.
    fn load(&self, mut onnx: &[u8], optimise: impl FnOnce(TypedModel) -> TractResult<TypedModel>) -> Loaded {
        isolate(|| {
            let model = self.0.model_for_read(&mut onnx).map_err(refused)?;
            let model = model.into_typed().and_then(optimise);
            let plan = model.and_then(TypedSimplePlan::new).map_err(refused)?;
            Ok(Box::new(Compiled(plan)) as Box<dyn Session>)
        })
    }
}

struct Compiled(Arc<TypedSimplePlan>);

impl Session for Compiled {
    fn run(&mut self, inputs: &[TensorData]) -> Answer {
        assert_whole(inputs);
        isolate(|| {
            let inputs = inputs.iter().map(to_tract).collect::<Result<_, _>>()?;
            let outputs = self.0.run(inputs).map_err(refused)?;
            outputs.iter().map(|output| from_tract(output)).collect()
        })
    }

    fn operators(&self) -> Option<Histogram> {
        let names: Vec<_> = self.0.model().nodes().iter().map(|node| node.op().name()).collect();
        Some(features::histogram(names.iter().map(|name| &**name)))
    }
}

fn refused(error: TractError) -> Failure {
    // The whole chain of causes; tract's outermost error only names the node.
    Failure::Refused(format!("{error:#}"))
}

fn to_tract(tensor: &TensorData) -> Result<TValue, Failure> {
    let no_type = || Failure::Unsupported(format!("tract has no {}", tensor.dtype));
    let mut value = Tensor::zero_dt(datum_type(tensor.dtype).ok_or_else(no_type)?, &tensor.shape).map_err(refused)?;
    let bytes = value.as_bytes_mut();
    bytes.copy_from_slice(&tensor.bytes);
    if tensor.dtype == DType::Bool {
        // To Rust code a bool that is neither 0 nor 1 is undefined behaviour.
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
    Ok(value.into())
}

/// tract computes shapes as symbolic dimensions (`TDim`) where ONNX says i64.
fn from_tract(value: &Tensor) -> Result<TensorData, Failure> {
    let protocol = || Failure::Protocol(format!("{:?} returned", value.datum_type()));
    let value = match value.datum_type() {
        DatumType::TDim => &*value.cast_to::<i64>().map_err(|_| protocol())?,
        _ => value,
    };
    let dtype = known(value.datum_type()).ok_or_else(protocol)?;
    if !value.is_plain_ram() {
        return Err(protocol());
    }
    whole(dtype, value.shape().to_vec(), value.as_bytes().to_vec())
}

/// `None`: tract has no such type.
fn datum_type(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::BF16 => return None,
        DType::F16 => DatumType::F16,
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::I8 => DatumType::I8,
        DType::I16 => DatumType::I16,
        DType::I32 => DatumType::I32,
        DType::I64 => DatumType::I64,
        DType::U8 => DatumType::U8,
        DType::U16 => DatumType::U16,
        DType::U32 => DatumType::U32,
        DType::U64 => DatumType::U64,
        DType::Bool => DatumType::Bool,
    })
}

fn known(theirs: DatumType) -> Option<DType> {
    DType::ALL.into_iter().find(|&dtype| datum_type(dtype) == Some(theirs))
}
