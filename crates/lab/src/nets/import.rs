//! Frozen networks → one file each that is known to be good.
//!
//! Weights come as checkpoints of trainers, split over files, with classifiers and counters beside them. Importing builds
//! the network, so that a file whose names, shapes or numbers are not the network's is refused now and not in the middle
//! of an evaluation, and keeps exactly what the network needs, in one safetensors file.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Device;
use earthmapper::weights::{self, HostTensors, Storage};

use super::{DinoV2, Inception, Lpips, NamedTensors, WeightsError};

/// The tensors that a frozen network needs, and what it is.
#[derive(Clone, Debug)]
pub struct ImportedNetwork {
    /// Under the names that the network loads from.
    pub tensors: HostTensors,
    /// Texts that came with them; DINOv2's configuration is one.
    pub metadata: HashMap<String, String>,
    /// In words: which network and how large.
    pub description: String,
}

impl ImportedNetwork {
    /// Inception-v3 for FID, KID, precision and recall ([`Inception::load`]).
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn inception(file: &Path, device: &Device) -> Result<Self, WeightsError> {
        let mut weights = NamedTensors::read(file)?;
        Inception::from_weights(weights.clone(), device)?;
        Inception::keep_own(&mut weights);
        Ok(Self::new("Inception-v3 down to its last pooling", weights))
    }

    /// A classifier and the heads of LPIPS, from two files or one ([`Lpips::load`]).
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn lpips(file: &Path, heads: Option<&Path>, device: &Device) -> Result<Self, WeightsError> {
        let mut weights = NamedTensors::read(file)?;
        let heads = heads.map(NamedTensors::read).transpose()?;
        let network = Lpips::from_weights(weights.clone(), heads.clone(), device)?;
        let heads = Lpips::keep_own(&mut weights, heads);
        weights.extend(heads);
        Ok(Self::new(&format!("LPIPS, {}", network.backbone()), weights))
    }

    /// DINOv2 for the semantic infusion, in any of its name schemes ([`DinoV2::load`]).
    ///
    /// # Errors
    /// See [`WeightsError`].
    pub fn dinov2(file: &Path, device: &Device) -> Result<Self, WeightsError> {
        let mut weights = NamedTensors::read(file)?;
        let network = DinoV2::from_weights(weights.clone(), device)?;
        DinoV2::keep_own(&mut weights)?;
        let config = network.config();
        let description = format!(
            "DINOv2, {} layers of width {}, patches of {} px, {} registers",
            config.layers, config.width, config.patch, config.registers
        );
        Ok(Self::new(&description, weights))
    }

    /// The file, as safetensors.
    pub fn to_bytes(&self, storage: Storage) -> Vec<u8> {
        weights::to_bytes_with(&self.tensors, storage, self.metadata.clone())
    }

    fn new(name: &str, weights: NamedTensors) -> Self {
        let (tensors, metadata) = weights.into_parts();
        let parameters: usize = tensors.values().map(|tensor| tensor.values.len()).sum();
        let description =
            format!("{name}: {} tensors, {:.2} M parameters", tensors.len(), parameters as f64 / 1e6);
        Self { tensors, metadata, description }
    }
}
