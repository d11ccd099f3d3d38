//! Plain tensor data: the only form in which values cross a backend's or a process's boundary.

use crate::dtype::DType;
use half::{bf16, f16};
use std::fmt;

/// A dense row-major tensor. `bytes` holds the elements in little-endian order, one byte a bool.
#[derive(Clone, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct TensorData {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// A Rust type that is the element of a [`TensorData`].
pub trait Element: Copy {
    const DTYPE: DType;
    /// `bytes` has room for exactly one element.
    fn write(self, bytes: &mut [u8]);
    /// `bytes` holds exactly one element.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),*) => {$(
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
            fn write(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("one element"))
            }
        }
    )*};
}
element!(
    f32 => F32, f64 => F64, f16 => F16, bf16 => BF16,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64
);

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn write(self, bytes: &mut [u8]) {
        bytes[0] = self.into();
    }
    fn read(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
}

impl TensorData {
    /// Panics unless `values` has as many elements as `shape`.
    pub fn new<T: Element>(shape: &[usize], values: &[T]) -> TensorData {
        TensorData::of(shape, values.iter().copied())
    }

    fn of<T: Element>(shape: &[usize], values: impl ExactSizeIterator<Item = T>) -> TensorData {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
        let mut data = TensorData::zeros(T::DTYPE, shape);
        for (bytes, value) in data.bytes.chunks_exact_mut(T::DTYPE.size_bytes()).zip(values) {
            value.write(bytes);
        }
        data
    }

    pub fn zeros(dtype: DType, shape: &[usize]) -> TensorData {
        let count: usize = shape.iter().product();
        TensorData { dtype, shape: shape.to_vec(), bytes: vec![0; count * dtype.size_bytes()] }
    }

    /// Elements of `values` converted to `dtype` (rounded for floats, truncated and saturated for integers).
    pub fn from_f64(dtype: DType, shape: &[usize], values: &[f64]) -> TensorData {
        macro_rules! convert {
            ($convert:expr) => {
                TensorData::of(shape, values.iter().map(|&v| $convert(v)))
            };
        }
        match dtype {
            DType::F32 => convert!(|v| v as f32),
            DType::F64 => convert!(|v| v),
            DType::F16 => convert!(f16::from_f64),
            DType::BF16 => convert!(bf16::from_f64),
            DType::I32 => convert!(|v| v as i32),
            DType::I64 => convert!(|v| v as i64),
            DType::I8 => convert!(|v| v as i8),
            DType::I16 => convert!(|v| v as i16),
            DType::U8 => convert!(|v| v as u8),
            DType::U16 => convert!(|v| v as u16),
            DType::U32 => convert!(|v| v as u32),
            DType::U64 => convert!(|v| v as u64),
            DType::Bool => convert!(|v| v != 0.0),
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements. Panics when `T` is not the element type.
    pub fn values<T: Element>(&self) -> Vec<T> {
        assert_eq!(self.dtype, T::DTYPE);
        self.elements().collect()
    }

    /// Of a tensor with elements of type `T`.
    fn elements<T: Element>(&self) -> impl Iterator<Item = T> {
        self.bytes.chunks_exact(T::DTYPE.size_bytes()).map(T::read)
    }

    /// The elements as f64; exact for every type but i64 and u64 beyond 2^53.
    pub fn to_f64(&self) -> Vec<f64> {
        fn all<T: Element>(data: &TensorData, convert: impl Fn(T) -> f64) -> Vec<f64> {
            data.elements().map(convert).collect()
        }
        match self.dtype {
            DType::F32 => all::<f32>(self, Into::into),
            DType::F64 => all::<f64>(self, |v| v),
            DType::F16 => all(self, f16::to_f64),
            DType::BF16 => all(self, bf16::to_f64),
            DType::I32 => all::<i32>(self, Into::into),
            DType::I64 => all(self, |v: i64| v as f64),
            DType::U64 => all(self, |v: u64| v as f64),
            DType::I8 => all::<i8>(self, Into::into),
            DType::I16 => all::<i16>(self, Into::into),
            DType::U8 => all::<u8>(self, Into::into),
            DType::U16 => all::<u16>(self, Into::into),
            DType::U32 => all::<u32>(self, Into::into),
            DType::Bool => all(self, |v: bool| f64::from(u8::from(v))),
        }
    }

    /// One element as text, exact (shortest round-trip for floats).
    pub fn element_text(&self, index: usize) -> String {
        let size = self.dtype.size_bytes();
        let bytes = &self.bytes[index * size..(index + 1) * size];
        match self.dtype {
            DType::F32 => f32::read(bytes).to_string(),
            DType::F64 => f64::read(bytes).to_string(),
            DType::F16 => f16::read(bytes).to_string(),
            DType::BF16 => bf16::read(bytes).to_string(),
            DType::I32 => i32::read(bytes).to_string(),
            DType::I64 => i64::read(bytes).to_string(),
            DType::I8 => i8::read(bytes).to_string(),
            DType::I16 => i16::read(bytes).to_string(),
            DType::U8 => u8::read(bytes).to_string(),
            DType::U16 => u16::read(bytes).to_string(),
            DType::U32 => u32::read(bytes).to_string(),
            DType::U64 => u64::read(bytes).to_string(),
            DType::Bool => bool::read(bytes).to_string(),
        }
    }
}

impl fmt::Debug for TensorData {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const SHOWN: usize = 16;
        let values: Vec<String> = (0..self.len().min(SHOWN)).map(|i| self.element_text(i)).collect();
        let more = if self.len() > SHOWN { ", ..." } else { "" };
        write!(f, "{}{:?} [{}{more}]", self.dtype, self.shape, values.join(", "))
    }
}
