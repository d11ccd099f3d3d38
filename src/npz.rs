//! NumPy's archives of named arrays (`.npz`): a zip file of `.npy` files, each a short header and the elements.

use crate::dtype::DType;
use crate::limits::MAX_FILE_BYTES;
use crate::tensor::TensorData;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::Path;
use zip::result::ZipError;
use zip::write::FileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The header ends at a multiple of this, so that NumPy can map the elements into memory.
const ALIGNMENT: usize = 64;

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is not an archive of NumPy arrays ({0})")]
    NotArchive(String),
    #[error("the array `{0}` is not a readable .npy file")]
    BrokenArray(String),
    #[error("the array `{name}` has NumPy's element type {descr}, which graphsmith does not know")]
    DType { name: String, descr: String },
    #[error("the array `{0}` is in Fortran order: save it with numpy.ascontiguousarray")]
    FortranOrder(String),
    #[error("the array `{0}` is larger than graphsmith reads")]
    TooLarge(String),
}

impl From<ZipError> for Error {
    fn from(error: ZipError) -> Error {
        match error {
            ZipError::Io(error) => Error::Io(error),
            other => Error::NotArchive(other.to_string()),
        }
    }
}

/// Writes named tensors, not compressed. The same tensors give the same bytes: every time stamp is that of 1980.
pub fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, &'a TensorData)>) -> Result<(), Error> {
    // In memory first: a writer to a full disk would complain on stderr when it is dropped.
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = FileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    for (name, tensor) in tensors {
        zip.start_file(format!("{name}.npy"), options)?;
        zip.write_all(&header(tensor))?;
        zip.write_all(&tensor.bytes)?;
    }
    std::fs::write(path, zip.finish()?.into_inner())?;
    Ok(())
}

fn header(tensor: &TensorData) -> Vec<u8> {
    let dims: String = tensor.shape.iter().map(|size| format!("{size}, ")).collect();
    // NumPy writes a tuple of one as `(3,)` and longer ones without the last comma.
    let dims = if tensor.shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let dict = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({dims}), }}", descr(tensor.dtype));
    let unpadded = MAGIC.len() + 4 + dict.len() + 1;
    let length = dict.len() + 1 + unpadded.next_multiple_of(ALIGNMENT) - unpadded;
    let mut header = MAGIC.to_vec();
    header.extend([1, 0]);
    header.extend((length as u16).to_le_bytes());
    header.extend(format!("{dict:<width$}\n", width = length - 1).bytes());
    header
}

fn descr(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "<f2",
        // As the ml_dtypes package, which gives NumPy this type, writes it: two bytes without a meaning.
        DType::BF16 => "<V2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
    }
}

/// The arrays of an archive by name.
pub type Arrays = BTreeMap<String, TensorData>;

/// All arrays of an archive, as `numpy.savez` or `numpy.savez_compressed` write it.
pub fn read(path: &Path) -> Result<Arrays, Error> {
    let mut archive = ZipArchive::new(BufReader::new(File::open(path)?))?;
    let mut tensors = BTreeMap::new();
    let mut budget = MAX_FILE_BYTES;
    for index in 0..archive.len() {
        let file = archive.by_index(index)?;
        let name = file.name().strip_suffix(".npy").unwrap_or(file.name()).to_owned();
        let mut bytes = Vec::new();
        // A small archive may unpack to more than the memory holds.
        file.take(budget + 1).read_to_end(&mut bytes)?;
        budget = budget.checked_sub(bytes.len() as u64).ok_or_else(|| Error::TooLarge(name.clone()))?;
        let tensor = parse(&name, &bytes)?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

fn parse(name: &str, bytes: &[u8]) -> Result<TensorData, Error> {
    let broken = || Error::BrokenArray(name.to_owned());
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(broken)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(broken)?;
    let (length, rest) = if version[0] == 1 {
        rest.split_first_chunk().map(|(length, rest)| (usize::from(u16::from_le_bytes(*length)), rest))
    } else {
        rest.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length) as usize, rest))
    }
    .ok_or_else(broken)?;
    let (dict, elements) = rest.split_at_checked(length).ok_or_else(broken)?;
    let dict = std::str::from_utf8(dict).map_err(|_| broken())?;
    let entry = |key: &str| Some(dict.split_once(&format!("'{key}':"))?.1.trim_start());
    let descr = entry("descr").and_then(|text| text.split('\'').nth(1)).ok_or_else(broken)?;
    if entry("fortran_order").ok_or_else(broken)?.starts_with("True") {
        return Err(Error::FortranOrder(name.to_owned()));
    }
    let unknown = || Error::DType { name: name.to_owned(), descr: descr.to_owned() };
    let dtype = DType::ALL
        .into_iter()
        .find(|&dtype| self::descr(dtype) == descr || (dtype == DType::BF16 && descr == "|V2"))
        .ok_or_else(unknown)?;
    let shape = entry("shape").and_then(|text| text.strip_prefix('(')?.split_once(')')).ok_or_else(broken)?.0;
    let dims = shape.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let shape: Vec<usize> = dims.map(str::parse).collect::<Result<_, _>>().map_err(|_| broken())?;
    crate::backend::whole(dtype, shape, elements.to_vec()).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.npz");
        let shapes: [&[usize]; 5] = [&[], &[3], &[2, 3], &[0, 4], &[1, 1, 1, 1, 1]];
        let tensors: Vec<(String, TensorData)> = DType::ALL
            .into_iter()
            .flat_map(|dtype| shapes.map(|shape| (dtype, shape)))
            .map(|(dtype, shape)| {
                let values: Vec<f64> = (0..shape.iter().product()).map(|i| f64::from(i as u32 % 2)).collect();
                (format!("{dtype}{shape:?}"), TensorData::from_f64(dtype, shape, &values))
            })
            .collect();
        let named = || tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        write(&path, named()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        write(&path, named()).unwrap();
        assert_eq!(bytes, std::fs::read(&path).unwrap());
        assert_eq!(read(&path).unwrap(), tensors.into_iter().collect());
    }
}
