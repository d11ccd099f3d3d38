//! Elementwise computations in f64, in one pass and one allocation where libtorch needs one of each for every operation.
//! For what needs no gradient, such as error bounds.

use tch::{Device, Kind, TchError, Tensor};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// `f` of the elements of tensors that broadcast to one shape.
pub fn zip<const N: usize>(tensors: [&Tensor; N], f: impl Fn([f64; N]) -> f64) -> Result<Tensor, TchError> {
    let shape = common_shape(&tensors);
    let owned = laid_out(&tensors, &shape)?;
    let slices: [&[f64]; N] = std::array::from_fn(|i| elements(owned[i].as_ref().unwrap_or(tensors[i])));
    let mut result = Tensor::f_empty(&shape, DOUBLE)?;
    let count = slices.first().map_or(0, |slice| slice.len());
    for (index, element) in elements_mut(&mut result, count).iter_mut().enumerate() {
        *element = f(slices.map(|slice| slice[index]));
    }
    Ok(result)
}

/// Whether `f` holds for the elements at some place of tensors that broadcast to one shape.
pub fn any<const N: usize>(tensors: [&Tensor; N], f: impl Fn([f64; N]) -> bool) -> Result<bool, TchError> {
    let owned = laid_out(&tensors, &common_shape(&tensors))?;
    let slices: [&[f64]; N] = std::array::from_fn(|i| elements(owned[i].as_ref().unwrap_or(tensors[i])));
    Ok((0..slices.first().map_or(0, |slice| slice.len())).any(|index| f(slices.map(|slice| slice[index]))))
}

/// A tensor with these elements, of which there are as many as the shape has.
pub fn tensor(shape: &[i64], values: &[f64]) -> Result<Tensor, TchError> {
    let mut result = Tensor::f_empty(shape, DOUBLE)?;
    elements_mut(&mut result, values.len()).copy_from_slice(values);
    Ok(result)
}

/// The elements of a tensor.
pub fn read(tensor: &Tensor) -> Result<Vec<f64>, TchError> {
    let owned = laid_out(&[tensor], &tensor.size())?;
    Ok(elements(owned[0].as_ref().unwrap_or(tensor)).to_vec())
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
    let (count, data) = (tensor.numel(), tensor.data_ptr().cast::<f64>());
    if count == 0 || data.is_null() {
        return &[];
    }
    // SAFETY: `laid_out` lets only dense f64 tensors pass, on the CPU like all tensors here; nobody writes to a tensor
    // that is borrowed.
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
        let empty = Tensor::zeros([0, 2], DOUBLE);
        assert_eq!(tensor(&[0, 2], &[]).unwrap().size(), [0, 2]);
        assert_eq!(zip([&empty, &row], |[x, _]| x).unwrap().size(), [0, 2]);
        let scalar = Tensor::from(2.0f64);
        assert_eq!(zip([&scalar], |[x]| x * x).unwrap().size(), [0; 0]);
    }
}
