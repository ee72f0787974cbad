//! Networks that help training and are not part of the model: frozen judges and an adversary.
//!
//! | file | holds | trained here |
//! |---|---|---|
//! | [`weights`] | [`NamedTensors`]: a weights file (safetensors or PyTorch) as a map of named tensors | |
//! | [`resize`] | bicubic resizing as PyTorch computes it, as two matrices | |
//! | [`dinov2`] | [`DinoV2`]: features for the semantic infusion (Eq. 12–14) | no |
//! | [`lpips`] | [`Lpips`]: perceptual distance, a loss and a metric | no |
//! | [`inception`] | [`Inception`]: features for FID, KID, precision and recall | no |
//! | `feature_maps`, `host_maps` | what the two above are made of, on any device and faster on a CPU | |
//! | [`import`] | a frozen network's file, checked and written anew under the names that are read here | |
//! | [`discriminator`] | [`PatchDiscriminator`]: the adversary of the tokenizer, its losses and its weight | yes |
//!
//! Nothing here downloads anything: every frozen network is loaded from a file the user names, and a
//! missing, foreign or damaged file is an error that says what to do.

pub mod dinov2;
pub mod discriminator;
mod feature_maps;
mod host_maps;
pub mod import;
pub mod inception;
pub mod lpips;
pub mod resize;
pub mod weights;

pub use dinov2::{DinoV2, DinoV2Config};
pub use discriminator::{PatchDiscriminator, PatchDiscriminatorConfig};
pub use import::ImportedNetwork;
pub use inception::{INCEPTION_FEATURES, Inception, InceptionInput};
pub use lpips::{Backbone, Lpips};
pub use weights::{NamedTensors, WeightsError};
