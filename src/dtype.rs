//! Element types and sets of them.

use std::fmt;

/// An ONNX element type. The discriminant is the `TensorProto.DataType` code of the ONNX standard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
#[repr(u8)]
pub enum DType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    Bool = 9,
    F16 = 10,
    F64 = 11,
    U32 = 12,
    U64 = 13,
    BF16 = 16,
}

impl DType {
    pub const ALL: [DType; 13] = [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::BF16,
        DType::I32,
        DType::I64,
        DType::I8,
        DType::I16,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::Bool,
    ];

    /// The short name used in graphs, reports and support tables.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::Bool => "bool",
        }
    }

    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// The `TensorProto.DataType` code.
    pub const fn onnx_code(self) -> i32 {
        self as i32
    }

    /// The element type with this `TensorProto.DataType` code, if graphsmith knows it.
    pub fn from_onnx_code(code: i32) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.onnx_code() == code)
    }

    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    pub const fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, DType::Bool)
    }

    pub const fn is_unsigned(self) -> bool {
        matches!(self, DType::U8 | DType::U16 | DType::U32 | DType::U64)
    }

    /// A float of two bytes, computed wider and rounded.
    pub const fn is_half(self) -> bool {
        matches!(self, DType::F16 | DType::BF16)
    }

    /// The largest finite value as f64 (for `Bool`, 1).
    pub fn max(self) -> f64 {
        match self {
            DType::F16 => 65504.0,
            DType::BF16 => half::bf16::MAX.into(),
            DType::F32 => f32::MAX.into(),
            DType::F64 => f64::MAX,
            DType::I8 => i8::MAX.into(),
            DType::I16 => i16::MAX.into(),
            DType::I32 => i32::MAX.into(),
            DType::I64 => i64::MAX as f64,
            DType::U8 => u8::MAX.into(),
            DType::U16 => u16::MAX.into(),
            DType::U32 => u32::MAX.into(),
            DType::U64 => u64::MAX as f64,
            DType::Bool => 1.0,
        }
    }

    /// The smallest finite value as f64 (for unsigned types and `Bool`, 0).
    pub fn min(self) -> f64 {
        match self {
            DType::I8 => i8::MIN.into(),
            DType::I16 => i16::MIN.into(),
            DType::I32 => i32::MIN.into(),
            DType::I64 => i64::MIN as f64,
            DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool => 0.0,
            float => -float.max(),
        }
    }

    /// The unit roundoff (half the distance from 1 to the next value); 0 for integers and bool.
    pub fn unit_roundoff(self) -> f64 {
        match self {
            DType::F16 => (-11f64).exp2(),
            DType::BF16 => (-8f64).exp2(),
            DType::F32 => (-24f64).exp2(),
            DType::F64 => (-53f64).exp2(),
            _ => 0.0,
        }
    }

    /// The smallest positive normal value; 0 for integers and bool.
    pub fn min_positive(self) -> f64 {
        match self {
            DType::F16 => (-14f64).exp2(),
            DType::F32 | DType::BF16 => f32::MIN_POSITIVE.into(),
            DType::F64 => f64::MIN_POSITIVE,
            _ => 0.0,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for DType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of element types.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DTypes(u32);

impl DTypes {
    pub const fn of(dtypes: &[DType]) -> DTypes {
        let (mut bits, mut i) = (0, 0);
        while i < dtypes.len() {
            bits |= 1 << dtypes[i] as u32;
            i += 1;
        }
        DTypes(bits)
    }

    pub const fn and(self, other: DTypes) -> DTypes {
        DTypes(self.0 & other.0)
    }

    pub const fn or(self, other: DTypes) -> DTypes {
        DTypes(self.0 | other.0)
    }

    pub const fn without(self, other: DTypes) -> DTypes {
        DTypes(self.0 & !other.0)
    }

    pub const fn contains(self, dtype: DType) -> bool {
        self.0 & (1 << dtype as u32) != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = DType> {
        DType::ALL.into_iter().filter(move |&dtype| self.contains(dtype))
    }
}

impl fmt::Debug for DTypes {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

pub const FLOATS: DTypes = DTypes::of(&[DType::F32, DType::F64, DType::F16, DType::BF16]);
pub const SIGNED_INTS: DTypes = DTypes::of(&[DType::I32, DType::I64, DType::I8, DType::I16]);
pub const UNSIGNED_INTS: DTypes = DTypes::of(&[DType::U8, DType::U16, DType::U32, DType::U64]);
/// The integers that the older operators of arithmetic allow.
pub const WIDE_INTS: DTypes = DTypes::of(&[DType::I32, DType::I64, DType::U32, DType::U64]);
pub const INTS: DTypes = SIGNED_INTS.or(UNSIGNED_INTS);
/// `tensor(int32)` and `tensor(int64)`: the types ONNX allows for indices.
pub const INDICES: DTypes = DTypes::of(&[DType::I32, DType::I64]);
pub const NUMBERS: DTypes = FLOATS.or(INTS);
pub const BOOL: DTypes = DTypes::of(&[DType::Bool]);
pub const ANY: DTypes = NUMBERS.or(BOOL);
