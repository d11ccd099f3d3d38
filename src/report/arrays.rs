//! Tensors as literals of Python and Rust.

use crate::dtype::DType;
use crate::tensor::TensorData;

/// Elements of all arrays of one kind together that a script spells out.
const INLINE: usize = 32;

/// Whether the arrays are short enough to be spelled out.
pub fn are_short<'a>(arrays: impl IntoIterator<Item = &'a TensorData>) -> bool {
    arrays.into_iter().map(spelled).sum::<usize>() <= INLINE
}

/// How many numbers the literal has: one where all elements are equal.
fn spelled(data: &TensorData) -> usize {
    if is_constant(data) { 1 } else { data.len() }
}

fn is_constant(data: &TensorData) -> bool {
    let size = data.dtype.size_bytes();
    data.bytes.chunks(size).all(|element| element == &data.bytes[..size])
}

/// The elements in a form that both languages read, `true`, infinities and NaN apart.
fn elements(data: &TensorData) -> Vec<String> {
    match data.dtype {
        DType::F64 => data.values::<f64>().iter().map(|it| format!("{it:?}")).collect(),
        // Every value of the narrower types is one of f32.
        dtype if dtype.is_float() => data.to_f64().iter().map(|&it| format!("{:?}", it as f32)).collect(),
        _ => (0..data.len()).map(|i| data.element_text(i)).collect(),
    }
}

/// `np.array([1.0, 2.0], np.float32)`: what Python evaluates to the tensor; bf16, which NumPy lacks, as float32.
pub fn numpy(data: &TensorData) -> String {
    let (dtype, elements) = (numpy_dtype(data.dtype), python(data));
    let shape = shape(&data.shape);
    match (&elements[..], &data.shape[..]) {
        ([one], []) => format!("np.array({one}, {dtype})"),
        ([], _) => format!("np.zeros({shape}, {dtype})"),
        ([first, _, ..], _) if is_constant(data) => format!("np.full({shape}, {first}, {dtype})"),
        (_, [_]) => format!("np.array([{}], {dtype})", elements.join(", ")),
        _ => format!("np.array([{}], {dtype}).reshape({shape})", elements.join(", ")),
    }
}

/// `[1.0, 2.0]` or `[0.5] * 6`: all elements in one list.
pub fn list(data: &TensorData) -> String {
    match &python(data)[..] {
        elements @ [first, _, ..] if is_constant(data) => format!("[{first}] * {}", elements.len()),
        elements => format!("[{}]", elements.join(", ")),
    }
}

fn python(data: &TensorData) -> Vec<String> {
    let spell = |element: String| match element.as_str() {
        "true" => "True".to_owned(),
        "false" => "False".to_owned(),
        "inf" => "np.inf".to_owned(),
        "-inf" => "-np.inf".to_owned(),
        "NaN" => "np.nan".to_owned(),
        _ => element,
    };
    elements(data).into_iter().map(spell).collect()
}

/// A tuple of Python.
pub fn shape(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    if shape.len() == 1 { format!("({},)", sizes[0]) } else { format!("({})", sizes.join(", ")) }
}

pub fn numpy_dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "np.float16",
        DType::F32 | DType::BF16 => "np.float32",
        DType::F64 => "np.float64",
        DType::I8 => "np.int8",
        DType::I16 => "np.int16",
        DType::I32 => "np.int32",
        DType::I64 => "np.int64",
        DType::U8 => "np.uint8",
        DType::U16 => "np.uint16",
        DType::U32 => "np.uint32",
        DType::U64 => "np.uint64",
        DType::Bool => "np.bool_",
    }
}

/// The name in onnx.TensorProto.
pub fn onnx_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "FLOAT16",
        DType::BF16 => "BFLOAT16",
        DType::F32 => "FLOAT",
        DType::F64 => "DOUBLE",
        DType::I8 => "INT8",
        DType::I16 => "INT16",
        DType::I32 => "INT32",
        DType::I64 => "INT64",
        DType::U8 => "UINT8",
        DType::U16 => "UINT16",
        DType::U32 => "UINT32",
        DType::U64 => "UINT64",
        DType::Bool => "BOOL",
    }
}

/// The element type in Rust; bf16, which has no type there, as f32.
pub fn rust_dtype(dtype: DType) -> &'static str {
    match dtype {
        DType::BF16 => "f32",
        other => other.name(),
    }
}

/// `[1.0, 2.0]`, to be read as elements of the tensor's type.
pub fn rust(data: &TensorData) -> String {
    let elements = rust_elements(data);
    match &elements[..] {
        [first, _, ..] if is_constant(data) => format!("[{first}; {}]", elements.len()),
        _ => format!("[{}]", elements.join(", ")),
    }
}

pub fn rust_elements(data: &TensorData) -> Vec<String> {
    let dtype = if data.dtype == DType::F64 { "f64" } else { "f32" };
    let spell = |element: String| match element.as_str() {
        "inf" => format!("{dtype}::INFINITY"),
        "-inf" => format!("{dtype}::NEG_INFINITY"),
        "NaN" => format!("{dtype}::NAN"),
        _ => element,
    };
    elements(data).into_iter().map(spell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_spelled_in_python() {
        let spell = |shape: &[usize], values: &[f32]| numpy(&TensorData::new(shape, values));
        assert_eq!(spell(&[], &[1.5]), "np.array(1.5, np.float32)");
        assert_eq!(spell(&[1], &[1e30]), "np.array([1e30], np.float32)");
        assert_eq!(spell(&[2, 1], &[0.1, -2.0]), "np.array([0.1, -2.0], np.float32).reshape((2, 1))");
        assert_eq!(spell(&[2, 2], &[0.5; 4]), "np.full((2, 2), 0.5, np.float32)");
        assert_eq!(spell(&[0, 2], &[]), "np.zeros((0, 2), np.float32)");
        assert_eq!(numpy(&TensorData::new(&[2], &[true, false])), "np.array([True, False], np.bool_)");
        let exceptional = TensorData::new(&[3], &[f64::INFINITY, f64::NAN, -0.0]);
        assert_eq!(numpy(&exceptional), "np.array([np.inf, np.nan, -0.0], np.float64)");
        assert_eq!(rust(&exceptional), "[f64::INFINITY, f64::NAN, -0.0]");
        assert_eq!(rust(&TensorData::new(&[3], &[7i64; 3])), "[7; 3]");
    }

    #[test]
    fn equal_elements_are_short() {
        let ramp: Vec<i32> = (0..40).collect();
        assert!(are_short([&TensorData::new(&[40], &[1i32; 40])]));
        assert!(!are_short([&TensorData::new(&[40], &ramp)]));
        assert!(!are_short([&TensorData::new(&[20], &ramp[..20]), &TensorData::new(&[20], &ramp[..20])]));
    }
}
