//! Weights files: names → tensors, read from safetensors or from what `torch.save` writes.
//!
//! A loader takes each tensor it needs by name and shape and finally calls [`NamedTensors::finish`], so that
//! a file that does not fit says which tensor is missing, of another shape, or left over.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::store::pytorch_reader::{self, PytorchError, PytorchReader};
use burn::tensor::{DType, Device, Tensor, TensorData};
use earthmapper::weights::{HostTensor, HostTensors};
use safetensors::tensor::{Dtype as SafeDtype, SafeTensorError, SafeTensors};

/// Why a weights file could not be used. Every message names the file and the cure.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// There is no such file.
    #[error(
        "{path}: no such weights file; check the path, or fetch the file first (nothing is downloaded by itself)"
    )]
    Missing {
        /// The file asked for.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("{path}: cannot read the weights file: {source}")]
    Unreadable {
        /// The file asked for.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is neither safetensors nor a PyTorch checkpoint.
    #[error(
        "{path}: not a weights file ({reason}); give a .safetensors, .pth, .pt or .bin file itself, \
         not its web page or a Git LFS pointer"
    )]
    NotWeights {
        /// The file asked for.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// The file ends too early.
    #[error("{path}: the weights file is truncated ({reason}); fetch it again")]
    Truncated {
        /// The file asked for.
        path: PathBuf,
        /// Where it ends.
        reason: String,
    },
    /// A tensor has numbers of a kind no network here uses.
    #[error("{path}: tensor `{name}` holds {kind} numbers; convert the file to f32, f16, bf16 or f64")]
    UnsupportedNumbers {
        /// The file asked for.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The kind of its numbers.
        kind: String,
    },
    /// A tensor the network needs is not in the file.
    #[error("{path}: tensor `{name}` is missing; the file belongs to another network or is incomplete")]
    MissingTensor {
        /// The file asked for.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the network needs.
    #[error(
        "{path}: tensor `{name}` has shape {found:?} and the network needs {expected:?}; \
         the file belongs to a network of another size"
    )]
    Shape {
        /// The file asked for.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape the network needs.
        expected: Vec<usize>,
    },
    /// A tensor holds NaN or infinity.
    #[error("{path}: tensor `{name}` holds numbers that are not finite; the file is damaged, fetch it again")]
    NotFinite {
        /// The file asked for.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// The file holds tensors the network does not know.
    #[error("{path}: {count} unexpected tensors ({names}); the file belongs to another network")]
    Leftovers {
        /// The file asked for.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// The first few names.
        names: String,
    },
    /// The tensors are none of the layouts a loader knows.
    #[error("{path}: not {network} weights: {reason}")]
    OtherNetwork {
        /// The file asked for.
        path: PathBuf,
        /// The network wanted.
        network: &'static str,
        /// What does not fit.
        reason: String,
    },
}

/// The tensors of one or more weights files by name, as 32-bit floats on the host.
#[derive(Debug, Clone)]
pub struct NamedTensors {
    path: PathBuf,
    tensors: HostTensors,
    metadata: HashMap<String, String>,
}

impl NamedTensors {
    /// Reads a safetensors file or a PyTorch checkpoint. The content decides which, not the file's extension.
    ///
    /// A checkpoint that keeps its tensors in nested dictionaries gets dotted names (`state_dict.norm.weight`).
    ///
    /// # Errors
    /// The file is missing, unreadable, truncated, no weights file, or holds numbers of an unknown kind.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref().to_path_buf();
        let head = read_head(&path)?;
        match FileKind::of(&head) {
            Ok(FileKind::Safetensors) => read_safetensors(path),
            Ok(FileKind::PyTorch) => read_pytorch(path),
            Err(WrongFile::TooShort) => {
                Err(WeightsError::Truncated { path, reason: format!("{} bytes", head.len()) })
            }
            Err(WrongFile::Foreign(reason)) => {
                Err(WeightsError::NotWeights { path, reason: reason.to_string() })
            }
        }
    }

    /// Wraps tensors that are in memory already; `path` is the name used in error messages.
    pub fn from_tensors(
        path: impl Into<PathBuf>,
        tensors: impl IntoIterator<Item = (String, HostTensor)>,
    ) -> Self {
        Self { path: path.into(), tensors: tensors.into_iter().collect(), metadata: HashMap::new() }
    }

    /// The file these tensors come from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A text stored beside the tensors (safetensors' `__metadata__`).
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// All names that have not been taken, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// How many tensors have not been taken.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether all tensors have been taken.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Whether a tensor of this name is here and not yet taken.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`].
    pub fn shape(&self, name: &str) -> Result<&[usize], WeightsError> {
        match self.tensors.get(name) {
            Some(tensor) => Ok(&tensor.shape),
            None => Err(self.missing(name)),
        }
    }

    /// The shape of a tensor that must have `RANK` dimensions.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`], or [`WeightsError::OtherNetwork`] where the rank differs.
    pub fn dims<const RANK: usize>(
        &self,
        name: &str,
        network: &'static str,
    ) -> Result<[usize; RANK], WeightsError> {
        let shape = self.shape(name)?;
        shape.try_into().map_err(|_| WeightsError::OtherNetwork {
            path: self.path.clone(),
            network,
            reason: format!("`{name}` has shape {shape:?}, expected {RANK} dimensions"),
        })
    }

    /// Keeps the tensors for which `new_name` gives a name, under that name, and drops the others.
    pub fn rename(&mut self, new_name: impl Fn(&str) -> Option<String>) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors =
            tensors.into_iter().filter_map(|(name, tensor)| Some((new_name(&name)?, tensor))).collect();
    }

    /// Adds the tensors of another file, which win over ours where names agree. Errors go on naming our file.
    pub fn extend(&mut self, other: NamedTensors) {
        self.tensors.extend(other.tensors);
    }

    /// Removes a tensor that is not needed, if it is here.
    pub fn discard(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Removes and returns the values of a tensor of exactly this shape.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`], [`WeightsError::Shape`] and [`WeightsError::NotFinite`].
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let found = self.shape(name)?;
        if found != shape {
            return Err(WeightsError::Shape {
                path: self.path.clone(),
                name: name.to_string(),
                found: found.to_vec(),
                expected: shape.to_vec(),
            });
        }
        let values = self.tensors.remove(name).map(|tensor| tensor.values).unwrap_or_default();
        if !values.iter().all(|value| value.is_finite()) {
            return Err(WeightsError::NotFinite { path: self.path.clone(), name: name.to_string() });
        }
        Ok(values)
    }

    /// [`take`](Self::take), as a frozen parameter on a device.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`] and [`WeightsError::Shape`].
    pub fn take_parameter<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Param<Tensor<D>>, WeightsError> {
        Ok(frozen(self.take(name, &shape)?, shape, device))
    }

    /// Takes linear layers given by their name prefixes as one frozen layer that gives their outputs side by
    /// side; several prefixes serve queries, keys and values stored apart. PyTorch stores
    /// `[outputs, inputs]` where Burn multiplies by `[inputs, outputs]`, hence the transposition.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`] and [`WeightsError::Shape`].
    pub fn take_linear(
        &mut self,
        prefixes: &[String],
        [inputs, outputs]: [usize; 2],
        device: &Device,
    ) -> Result<Linear, WeightsError> {
        let part = outputs / prefixes.len();
        let mut weight = Vec::with_capacity(inputs * outputs);
        let mut bias = Vec::with_capacity(outputs);
        for prefix in prefixes {
            weight.extend(self.take(&format!("{prefix}.weight"), &[part, inputs])?);
            bias.extend(self.take(&format!("{prefix}.bias"), &[part])?);
        }
        // Transposed here and not as a view on the device, so that every product reads it in order.
        let mut transposed = vec![0.0; inputs * outputs];
        for (output, row) in weight.chunks_exact(inputs).enumerate() {
            for (input, value) in row.iter().enumerate() {
                transposed[input * outputs + output] = *value;
            }
        }
        Ok(Linear {
            weight: frozen(transposed, [inputs, outputs], device),
            bias: Some(frozen(bias, [outputs], device)),
        })
    }

    /// Takes a frozen layer norm over `width` features given by its name prefix.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`] and [`WeightsError::Shape`].
    pub fn take_layer_norm(
        &mut self,
        prefix: &str,
        width: usize,
        epsilon: f64,
        device: &Device,
    ) -> Result<LayerNorm, WeightsError> {
        let mut norm = LayerNormConfig::new(width).with_epsilon(epsilon).init(device).no_grad();
        norm.gamma = self.take_parameter(&format!("{prefix}.weight"), [width], device)?;
        norm.beta = Some(self.take_parameter(&format!("{prefix}.bias"), [width], device)?);
        Ok(norm)
    }

    /// The tensors that have not been taken, as this project's own weights files hold them, and the texts beside them.
    pub fn into_parts(self) -> (HostTensors, HashMap<String, String>) {
        (self.tensors, self.metadata)
    }

    /// Ends the loading: every tensor must have been taken or discarded.
    ///
    /// # Errors
    /// [`WeightsError::Leftovers`].
    pub fn finish(self) -> Result<(), WeightsError> {
        if self.tensors.is_empty() {
            return Ok(());
        }
        let mut names = self.names().take(4).map(|name| format!("`{name}`")).collect::<Vec<_>>();
        if self.len() > names.len() {
            names.push("…".to_string());
        }
        Err(WeightsError::Leftovers { count: self.len(), names: names.join(", "), path: self.path })
    }

    fn missing(&self, name: &str) -> WeightsError {
        WeightsError::MissingTensor { path: self.path.clone(), name: name.to_string() }
    }
}

/// A parameter that no optimiser changes.
fn frozen<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_data(TensorData::new(values, shape), device).set_require_grad(false)
}

enum FileKind {
    Safetensors,
    PyTorch,
}

enum WrongFile {
    TooShort,
    Foreign(&'static str),
}

impl FileKind {
    /// Tells the format from a file's first bytes.
    fn of(head: &[u8]) -> Result<Self, WrongFile> {
        // A safetensors file begins with the length of its JSON header in eight bytes, low byte first; a
        // header of less than 2³² bytes tells it from other files that have a brace in the ninth place.
        // It comes first: such a length may well begin with the bytes that mark a pickle (0x80) or a ZIP archive.
        if head.len() >= 9 && head[8] == b'{' && head[4..8] == [0; 4] {
            return Ok(Self::Safetensors);
        }
        if head.starts_with(b"PK") || head.first() == Some(&0x80) || head.get(257..262) == Some(b"ustar") {
            return Ok(Self::PyTorch);
        }
        if head.starts_with(b"version https://git-lfs") {
            return Err(WrongFile::Foreign("a Git LFS pointer"));
        }
        if head.trim_ascii_start().starts_with(b"<") {
            return Err(WrongFile::Foreign("a web page"));
        }
        if head.len() < 9 {
            return Err(WrongFile::TooShort);
        }
        Err(WrongFile::Foreign("neither safetensors nor a PyTorch checkpoint"))
    }
}

/// The first bytes of a file, 262 at most: as far as the mark of a TAR archive.
fn read_head(path: &Path) -> Result<Vec<u8>, WeightsError> {
    use std::io::Read;
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(262).read_to_end(&mut head))
        .map_err(|error| from_io(path, error))?;
    Ok(head)
}

fn from_io(path: &Path, source: std::io::Error) -> WeightsError {
    use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    let path = path.to_path_buf();
    match source.kind() {
        NotFound => WeightsError::Missing { path },
        UnexpectedEof | InvalidData => WeightsError::Truncated { path, reason: source.to_string() },
        _ => WeightsError::Unreadable { path, source },
    }
}

fn read_safetensors(path: PathBuf) -> Result<NamedTensors, WeightsError> {
    let bytes = std::fs::read(&path).map_err(|error| from_io(&path, error))?;
    let wrong = |error: SafeTensorError| match error {
        SafeTensorError::HeaderTooSmall
        | SafeTensorError::InvalidHeaderLength
        | SafeTensorError::MetadataIncompleteBuffer => {
            WeightsError::Truncated { path: path.clone(), reason: error.to_string() }
        }
        _ => WeightsError::NotWeights { path: path.clone(), reason: error.to_string() },
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(&bytes).map_err(wrong)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            SafeDtype::F64 => DType::F64,
            SafeDtype::F32 => DType::F32,
            SafeDtype::F16 => DType::F16,
            SafeDtype::BF16 => DType::BF16,
            SafeDtype::I64 => DType::I64,
            SafeDtype::I32 => DType::I32,
            SafeDtype::U8 => DType::U8,
            other => {
                let (name, kind) = (name.to_string(), format!("{other:?}"));
                return Err(WeightsError::UnsupportedNumbers { path, name, kind });
            }
        };
        let shape = view.shape().to_vec();
        let values = to_floats(view.data().to_vec(), &shape, kind);
        tensors.insert(name.to_string(), HostTensor { shape, values });
    }
    Ok(NamedTensors { path, tensors, metadata })
}

fn read_pytorch(path: PathBuf) -> Result<NamedTensors, WeightsError> {
    let wrong = |error: PytorchError| match error {
        PytorchError::Io(error) | PytorchError::Tar(error) => from_io(&path, error),
        // The directory of a ZIP archive stands at its end, so a cut archive has none.
        PytorchError::Zip(error) => WeightsError::Truncated { path: path.clone(), reason: error.to_string() },
        other => WeightsError::NotWeights { path: path.clone(), reason: other.to_string() },
    };
    let reader = PytorchReader::new(&path).map_err(wrong)?;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in reader.into_tensors() {
        use pytorch_reader::DType as TorchDType;
        let kind = match tensor.dtype() {
            TorchDType::F64 => DType::F64,
            TorchDType::F32 => DType::F32,
            TorchDType::F16 => DType::F16,
            TorchDType::BF16 => DType::BF16,
            TorchDType::I64 => DType::I64,
            TorchDType::I32 => DType::I32,
            TorchDType::U8 | TorchDType::Bool => DType::U8,
            other => {
                return Err(WeightsError::UnsupportedNumbers { path, name, kind: format!("{other:?}") });
            }
        };
        let shape = tensor.shape().to_vec();
        let bytes = tensor.read().map_err(|error| from_io(&path, error))?;
        let values = to_floats(bytes, &shape, kind);
        tensors.insert(name, HostTensor { shape, values });
    }
    if tensors.is_empty() {
        return Err(WeightsError::NotWeights { path, reason: "a checkpoint without tensors".to_string() });
    }
    Ok(NamedTensors { path, tensors, metadata: HashMap::new() })
}

/// Little-endian bytes of `kind` as f32. Both readers have checked that there are as many as the shape says.
fn to_floats(bytes: Vec<u8>, shape: &[usize], kind: DType) -> Vec<f32> {
    TensorData::from_bytes_vec(bytes, shape.to_vec(), kind).iter::<f32>().collect()
}
