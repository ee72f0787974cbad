//! Weights by name: from modules to files and back, with every name and shape checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// A tensor on the host, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Size of each dimension.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

/// Tensors by the path of the parameter in its module, such as `encoder.levels.0.blocks.1.conv1.weight`.
pub type HostTensors = BTreeMap<String, HostTensor>;

/// How values are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 32-bit floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
}

/// What can be wrong with weights.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not a safetensors file, or it is cut off.
    #[error("{path}: not a complete safetensors file ({problem}); fetch or export it again")]
    Format {
        /// The file.
        path: PathBuf,
        /// What the reader met.
        problem: String,
    },
    /// The names or shapes are not those of the model that the configuration describes.
    #[error("weights do not fit the configuration: {0}")]
    Mismatch(String),
}

/// All float parameters of a module by name.
pub fn collect<M: Module>(module: &M) -> HostTensors {
    struct Collector {
        path: Vec<String>,
        tensors: HostTensors,
    }
    impl ModuleVisitor for Collector {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            let values = tensor.try_into_vec_as::<f32>().expect("converted to 32-bit floats");
            self.tensors.insert(self.path.join("."), HostTensor { shape, values });
        }
    }
    let mut collector = Collector { path: Vec::new(), tensors: BTreeMap::new() };
    module.visit(&mut collector);
    collector.tensors
}

/// What [`apply`] does about parameters that have no tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// They are an error.
    Refuse,
    /// They keep their values.
    Keep,
}

/// Puts tensors into a module's parameters of the same names.
///
/// # Errors
/// When a name is unknown to the module, a shape differs or (with [`Missing::Refuse`]) a parameter has no tensor; the
/// message lists the first few.
pub fn apply<M: Module>(module: M, tensors: HostTensors, missing: Missing) -> Result<M, WeightsError> {
    struct Applier {
        path: Vec<String>,
        tensors: HostTensors,
        missing: Missing,
        problems: Vec<String>,
    }
    impl ModuleMapper for Applier {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = self.path.join(".");
            let Some(tensor) = self.tensors.remove(&name) else {
                if self.missing == Missing::Refuse {
                    self.problems.push(format!("{name} is missing"));
                }
                return param;
            };
            let expected = param.val().dims();
            if tensor.shape != expected {
                self.problems.push(format!("{name} is {:?}, not {expected:?}", tensor.shape));
                return param;
            }
            param.map(|old| {
                let new = Tensor::from_data(TensorData::new(tensor.values, expected), &old.device());
                // Asking for gradients is an error on a device that keeps none.
                if old.is_require_grad() { new.require_grad() } else { new }
            })
        }
    }
    let mut applier = Applier { path: Vec::new(), tensors, missing, problems: Vec::new() };
    let module = module.map(&mut applier);
    let mut problems = applier.problems;
    problems.extend(applier.tensors.keys().map(|name| format!("{name} is not part of the model")));
    if problems.is_empty() {
        return Ok(module);
    }
    let more = problems.len().saturating_sub(5);
    problems.truncate(5);
    let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(WeightsError::Mismatch(format!("{}{tail}", problems.join("; "))))
}

/// Serialises tensors as safetensors.
pub fn to_bytes(tensors: &HostTensors, storage: Storage) -> Vec<u8> {
    let encoded: Vec<(&String, &Vec<usize>, Vec<u8>)> =
        tensors.iter().map(|(name, tensor)| (name, &tensor.shape, encode(&tensor.values, storage))).collect();
    let dtype = match storage {
        Storage::F32 => Dtype::F32,
        Storage::F16 => Dtype::F16,
        Storage::Bf16 => Dtype::BF16,
    };
    let views = encoded.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(dtype, shape.to_vec(), bytes).expect("shape and bytes agree");
        (name.as_str(), view)
    });
    safetensors::serialize(views, None).expect("sizes are known")
}

/// Reads a safetensors file of 16- or 32-bit floats.
///
/// # Errors
/// When the file cannot be read, is cut off, or holds other types.
pub fn read(path: &Path) -> Result<HostTensors, WeightsError> {
    let bytes = std::fs::read(path).map_err(|source| WeightsError::Io { path: path.into(), source })?;
    let format = |problem: String| WeightsError::Format { path: path.into(), problem };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| format(error.to_string()))?;
    file.iter()
        .map(|(name, view)| {
            let values = decode(view.data(), view.dtype()).ok_or_else(|| {
                format(format!("{name} holds {:?}, not 16- or 32-bit floats", view.dtype()))
            })?;
            Ok((name.to_string(), HostTensor { shape: view.shape().to_vec(), values }))
        })
        .collect()
}

fn encode(values: &[f32], storage: Storage) -> Vec<u8> {
    match storage {
        Storage::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Storage::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Storage::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

fn decode(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        Dtype::F16 => {
            // Slices are converted with the processor's instruction where it has one.
            let halves: Vec<f16> = pairs().map(|b| f16::from_le_bytes(*b)).collect();
            let mut values = vec![0.0; halves.len()];
            halves.convert_to_f32_slice(&mut values);
            Some(values)
        }
        Dtype::BF16 => Some(pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Init;
    use burn::nn::Linear;
    use burn::tensor::Device;

    fn linear(seed: u64) -> Linear {
        Init::new(seed, &Device::flex()).linear(3, 2, 1.0)
    }

    #[test]
    fn a_file_brings_back_the_weights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let tensors = collect(&linear(1));
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["bias", "weight"]);
        std::fs::write(&path, to_bytes(&tensors, Storage::F32)).unwrap();
        let back = apply(linear(2), read(&path).unwrap(), Missing::Refuse).unwrap();
        assert_eq!(collect(&back), tensors);

        std::fs::write(&path, to_bytes(&tensors, Storage::F16)).unwrap();
        let rounded = read(&path).unwrap();
        let pairs = tensors["weight"].values.iter().zip(&rounded["weight"].values);
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() <= a.abs() / 1024.0));

        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert!(matches!(read(&path), Err(WeightsError::Format { .. })));
    }

    #[test]
    fn a_foreign_set_of_weights_is_refused_by_name() {
        let mut tensors = collect(&linear(1));
        let bias = tensors.remove("bias").unwrap();
        tensors.insert("bais".into(), bias);
        let message = apply(linear(2), tensors, Missing::Refuse).unwrap_err().to_string();
        assert!(message.contains("bias is missing") && message.contains("bais is not part"), "{message}");
    }
}
