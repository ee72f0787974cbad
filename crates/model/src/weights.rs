//! Weights by name: from modules to files and back, with every name and shape checked.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

pub use file::WeightsFile;

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
pub fn apply<M: Module>(module: M, mut tensors: HostTensors, missing: Missing) -> Result<M, WeightsError> {
    let shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect();
    let fill = |name: &str| {
        let values = tensors.remove(name).expect("its shape was there").values;
        Fill::Now(values)
    };
    applied(module, shapes, fill, missing)
}

/// Makes a module's parameters read themselves from a file when they are first looked at, so that a layer that is
/// packed and let go before the next one is looked at is the only one in memory.
///
/// # Errors
/// As [`apply`].
///
/// # Panics
/// Not here, but when a parameter is looked at and the file cannot be read any more.
pub fn apply_file<M: Module>(module: M, file: WeightsFile, missing: Missing) -> Result<M, WeightsError> {
    let file = std::sync::Arc::new(file);
    let fill = |name: &str| {
        let (file, name) = (file.clone(), name.to_string());
        Fill::Later(Box::new(move || file.tensor(&name).unwrap_or_else(|error| panic!("{error}")).values))
    };
    applied(module, file.shapes().collect(), fill, missing)
}

/// A parameter's values, or how to get them.
enum Fill {
    Now(Vec<f32>),
    Later(Box<dyn FnOnce() -> Vec<f32> + Send + Sync>),
}

fn applied<M: Module>(
    module: M,
    shapes: BTreeMap<String, Vec<usize>>,
    fill: impl FnMut(&str) -> Fill,
    missing: Missing,
) -> Result<M, WeightsError> {
    struct Applier<F> {
        path: Vec<String>,
        /// Of the tensors that have not been put anywhere.
        shapes: BTreeMap<String, Vec<usize>>,
        fill: F,
        missing: Missing,
        problems: Vec<String>,
    }
    impl<F: FnMut(&str) -> Fill> ModuleMapper for Applier<F> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let name = self.path.join(".");
            let Some(shape) = self.shapes.remove(&name) else {
                if self.missing == Missing::Refuse {
                    self.problems.push(format!("{name} is missing"));
                }
                return param;
            };
            let expected: [usize; D] = param.lazy_shape().dims();
            if shape != expected {
                self.problems.push(format!("{name} is {shape:?}, not {expected:?}"));
                return param;
            }
            match (self.fill)(&name) {
                Fill::Now(values) => param.map(|old| {
                    let new = Tensor::from_data(TensorData::new(values, expected), &old.device());
                    // Asking for gradients is an error on a device that keeps none.
                    if old.is_require_grad() { new.require_grad() } else { new }
                }),
                Fill::Later(read) => {
                    let init = move |device: &Device, grad: bool| {
                        let new = Tensor::from_data(TensorData::new(read(), expected), device);
                        if grad { new.require_grad() } else { new }
                    };
                    // Where gradients are kept they are wanted, as with Init's parameters.
                    Param::uninitialized(param.id, init, param.lazy_device(), true, expected.into())
                }
            }
        }
    }
    let mut applier = Applier { path: Vec::new(), shapes, fill, missing, problems: Vec::new() };
    let module = module.map(&mut applier);
    let mut problems = applier.problems;
    problems.extend(applier.shapes.keys().map(|name| format!("{name} is not part of the model")));
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
    to_bytes_with(tensors, storage, HashMap::new())
}

/// [`to_bytes`] with texts beside the tensors (safetensors' `__metadata__`).
pub fn to_bytes_with(tensors: &HostTensors, storage: Storage, metadata: HashMap<String, String>) -> Vec<u8> {
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
    let metadata = (!metadata.is_empty()).then_some(metadata);
    safetensors::serialize(views, metadata).expect("sizes are known")
}

/// Reads all tensors of a safetensors file of 16- or 32-bit floats.
///
/// # Errors
/// When the file cannot be read, is cut off, or holds other types.
pub fn read(path: &Path) -> Result<HostTensors, WeightsError> {
    let file = WeightsFile::open(path)?;
    file.shapes().map(|(name, _)| Ok((name.clone(), file.tensor(&name)?))).collect()
}

fn encode(values: &[f32], storage: Storage) -> Vec<u8> {
    match storage {
        Storage::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Storage::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Storage::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
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
        for damage in [&bytes[..5], &[], &[255; 64]] {
            std::fs::write(&path, damage).unwrap();
            assert!(matches!(read(&path), Err(WeightsError::Format { .. })), "{} bytes", damage.len());
        }
    }

    #[test]
    fn parameters_of_a_file_are_read_when_they_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let tensors = collect(&linear(1));
        std::fs::write(&path, to_bytes(&tensors, Storage::F32)).unwrap();
        let file = WeightsFile::open(&path).unwrap();
        let lazy = apply_file(linear(2), file, Missing::Refuse).unwrap();
        // A name that is taken away does not matter: the file is open.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(collect(&lazy), tensors);
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
