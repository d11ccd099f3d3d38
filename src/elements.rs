//! Elementwise computations in f64, in one pass and one allocation where libtorch needs one of each for every operation.
//! For what needs no gradient, such as error bounds.

use tch::{Device, Kind, TchError, Tensor};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// `f` of the elements of tensors that broadcast to one shape.
pub fn zip<const N: usize>(tensors: [&Tensor; N], f: impl Fn([f64; N]) -> f64) -> Result<Tensor, TchError> {
    let shape = common_shape(&tensors);
    let owned = laid_out(&tensors, &shape)?;
    let (slices, count) = slices(&owned, tensors);
    let mut result = Tensor::f_empty(&shape, DOUBLE)?;
    for (index, element) in elements_mut(&mut result, count).iter_mut().enumerate() {
        *element = f(slices.map(|slice| slice[index]));
    }
    Ok(result)
}

/// Whether `f` holds for the elements at some place of tensors that broadcast to one shape.
pub fn any<const N: usize>(tensors: [&Tensor; N], f: impl Fn([f64; N]) -> bool) -> Result<bool, TchError> {
    // Without a branch for each element, such that simple conditions become vector instructions.
    const AT_ONCE: usize = 64;
    let owned = laid_out(&tensors, &common_shape(&tensors))?;
    let (slices, count) = slices(&owned, tensors);
    let some = |found: bool, index: usize| found | f(slices.map(|slice| slice[index]));
    Ok((0..count).step_by(AT_ONCE).any(|first| (first..count.min(first + AT_ONCE)).fold(false, some)))
}

/// A tensor with these elements, of which there are as many as the shape has.
pub fn tensor(shape: &[i64], values: &[f64]) -> Result<Tensor, TchError> {
    let mut result = Tensor::f_empty(shape, DOUBLE)?;
    elements_mut(&mut result, values.len()).copy_from_slice(values);
    Ok(result)
}

/// A tensor with the elements that these bytes are, of which there are as many as the shape has.
pub fn from_bytes(shape: &[i64], kind: Kind, bytes: &[u8]) -> Result<Tensor, TchError> {
    let result = Tensor::f_empty(shape, (kind, Device::Cpu))?;
    assert_eq!(bytes.len(), result.numel() * kind.elt_size_in_bytes(), "as many bytes as the elements take");
    if !bytes.is_empty() {
        // SAFETY: the tensor was just made, dense, and has so many bytes; nothing else refers to it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), result.data_ptr().cast::<u8>(), bytes.len()) };
    }
    Ok(result)
}

/// The largest magnitude in a tensor of 64-bit integers, 0 in an empty one.
pub fn largest_magnitude(tensor: &Tensor) -> Result<i64, TchError> {
    let dense = tensor.f_contiguous()?;
    assert_eq!(dense.kind(), Kind::Int64);
    Ok(slice::<i64>(&dense).iter().fold(0, |largest, element| largest.max(element.saturating_abs())))
}

/// The elements of a tensor as 64-bit integers.
pub fn integers(tensor: &Tensor) -> Result<Vec<i64>, TchError> {
    Ok(slice(&tensor.f_to_kind(Kind::Int64)?.f_contiguous()?).to_vec())
}

/// The elements of a tensor.
pub fn read(tensor: &Tensor) -> Result<Vec<f64>, TchError> {
    let owned = laid_out(&[tensor], &tensor.size())?;
    Ok(elements(owned[0].as_ref().unwrap_or(tensor)).to_vec())
}

/// The elements of tensors that were laid out, and how many each has.
fn slices<'a, const N: usize>(owned: &'a [Option<Tensor>; N], tensors: [&'a Tensor; N]) -> ([&'a [f64]; N], usize) {
    let slices: [&[f64]; N] = std::array::from_fn(|i| elements(owned[i].as_ref().unwrap_or(tensors[i])));
    let count = slices.first().map_or(0, |slice| slice.len());
    // Of the same length as far as the compiler can see, such that it need not look at every index.
    (slices.map(|slice| &slice[..count]), count)
}

fn common_shape(tensors: &[&Tensor]) -> Vec<i64> {
    let mut common = Vec::new();
    for tensor in tensors {
        let shape = tensor.size();
        if shape.len() > common.len() {
            common.splice(0..0, vec![1; shape.len() - common.len()]);
        }
        let aligned = common.iter_mut().rev().zip(shape.iter().rev());
        aligned.filter(|(common, _)| **common == 1).for_each(|(common, size)| *common = *size);
    }
    common
}

/// Each tensor that is not dense, of `shape` and in f64 made so; `None` where it is.
fn laid_out<const N: usize>(tensors: &[&Tensor; N], shape: &[i64]) -> Result<[Option<Tensor>; N], TchError> {
    let mut owned = [const { None }; N];
    for (owned, tensor) in owned.iter_mut().zip(tensors) {
        let same = tensor.size() == shape;
        if !same || tensor.kind() != Kind::Double || !tensor.is_contiguous() {
            let tensor = tensor.f_detach()?.f_to_kind(Kind::Double)?;
            *owned = Some(if same { tensor } else { tensor.f_expand(shape, false)? }.f_contiguous()?);
        }
    }
    Ok(owned)
}

/// Of a dense tensor in f64.
fn elements(tensor: &Tensor) -> &[f64] {
    slice(tensor)
}

/// Of a dense tensor of numbers of type `T`.
fn slice<T: Copy>(tensor: &Tensor) -> &[T] {
    let (count, data) = (tensor.numel(), tensor.data_ptr().cast::<T>());
    if count == 0 || data.is_null() {
        return &[];
    }
    // SAFETY: callers let only dense tensors of that type pass, on the CPU like all tensors here; nobody writes to a
    // tensor that is borrowed.
    unsafe { std::slice::from_raw_parts(data, count) }
}

/// Of a fresh tensor with so many elements in f64, which nothing else refers to.
fn elements_mut(tensor: &mut Tensor, count: usize) -> &mut [f64] {
    let data = tensor.data_ptr().cast::<f64>();
    if count == 0 || data.is_null() {
        return &mut [];
    }
    // SAFETY: the tensor was just made with room for `count` elements, which start as any bytes: all are legal.
    unsafe { std::slice::from_raw_parts_mut(data, count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_meet_as_in_libtorch() {
        let column = Tensor::from_slice(&[1i64, 2, 3]).reshape([3, 1]);
        let row = Tensor::from_slice(&[10.0f32, 20.0]);
        let turned = Tensor::from_slice(&[1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0]).reshape([2, 3]).transpose(0, 1);
        let sum = zip([&column, &row, &turned], |[x, y, z]| x + y + z).unwrap();
        assert_eq!(sum, (&column + &row + &turned).to_kind(Kind::Double));
        assert_eq!(read(&turned).unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert!(any([&column, &row], |[x, y]| x * y == 60.0).unwrap());
        assert!(!any([&column], |[x]| x > 3.0).unwrap());
        assert_eq!(tensor(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]).unwrap(), turned);
        let list = Tensor::from_slice(&[3i64, -7, 5, 2]).reshape([2, 2]);
        let bytes: Vec<u8> = [3i64, 5, -7, 2].iter().flat_map(|element| element.to_le_bytes()).collect();
        assert_eq!(from_bytes(&[2, 2], Kind::Int64, &bytes).unwrap(), list.transpose(0, 1));
        assert_eq!(from_bytes(&[3], Kind::Bool, &[1, 0, 1]).unwrap(), Tensor::from_slice(&[true, false, true]));
        assert_eq!(largest_magnitude(&list.transpose(0, 1)).unwrap(), 7);
        assert_eq!(integers(&list.transpose(0, 1)).unwrap(), [3, 5, -7, 2]);
        assert_eq!(integers(&Tensor::from_slice(&[1.5f64, -2.0])).unwrap(), [1, -2]);
        assert_eq!(largest_magnitude(&Tensor::from(i64::MIN)).unwrap(), i64::MAX);
        let empty = Tensor::zeros([0, 2], DOUBLE);
        assert_eq!(tensor(&[0, 2], &[]).unwrap().size(), [0, 2]);
        assert_eq!(zip([&empty, &row], |[x, _]| x).unwrap().size(), [0, 2]);
        let scalar = Tensor::from(2.0f64);
        assert_eq!(zip([&scalar], |[x]| x * x).unwrap().size(), [0; 0]);
    }
}
