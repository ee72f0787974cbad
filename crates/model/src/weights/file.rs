//! A safetensors file whose tensors are mapped into memory one at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::MmapOptions;
use safetensors::{Dtype, SafeTensors};

use super::{HostTensor, WeightsError};

/// Bytes in front of the header that say how long it is.
const LENGTH_OF_LENGTH: usize = 8;

/// An open safetensors file of 16- or 32-bit floats. Its header has been checked; its values are on the disk.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, Entry>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Entry {
    shape: Vec<usize>,
    dtype: Dtype,
    /// First byte in the file.
    start: u64,
    /// Length in bytes.
    length: usize,
}

impl WeightsFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// When the file cannot be read, is cut off, or holds other types.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io { path: path.into(), source };
        let format = |problem: String| WeightsError::Format { path: path.into(), problem };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len() as usize;
        // The system refuses to map nothing. Of the rest only the header is touched.
        let whole = if length > 0 { Some(mapped(&file, 0, length).map_err(io)?) } else { None };
        let (header, metadata) = SafeTensors::read_metadata(whole.as_deref().unwrap_or_default())
            .map_err(|error| format(error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                return Err(format(format!("{name} holds {:?}, not 16- or 32-bit floats", info.dtype)));
            }
            let (start, end) = info.data_offsets;
            let entry = Entry {
                shape: info.shape.clone(),
                dtype: info.dtype,
                start: (LENGTH_OF_LENGTH + header + start) as u64,
                length: end - start,
            };
            tensors.insert(name, entry);
        }
        Ok(Self { path: path.into(), file, tensors })
    }

    /// The shape of every tensor, by name.
    pub fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.tensors.iter().map(|(name, entry)| (name.clone(), entry.shape.clone()))
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When the file has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<HostTensor, WeightsError> {
        let entry = &self.tensors[name];
        let bytes = mapped(&self.file, entry.start, entry.length)
            .map_err(|source| WeightsError::Io { path: self.path.clone(), source })?;
        Ok(HostTensor { shape: entry.shape.clone(), values: decode(&bytes, entry.dtype) })
    }
}

/// A part of a file as memory. Mapping each tensor by itself lets its pages go with it.
#[allow(unsafe_code)]
fn mapped(file: &File, start: u64, length: usize) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: nothing of the program writes model files in place (they are written beside and renamed), and the bytes are
    // copied out at once; a program that shortens the file in this moment ends this one with a bus error.
    unsafe { MmapOptions::new().offset(start).len(length).map(file) }
}

fn decode(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F16 => {
            // Slices are converted with the processor's instruction where it has one.
            let halves: Vec<f16> = pairs().map(|b| f16::from_le_bytes(*b)).collect();
            let mut values = vec![0.0; halves.len()];
            halves.convert_to_f32_slice(&mut values);
            values
        }
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}
