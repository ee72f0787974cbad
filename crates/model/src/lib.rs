//! EarthMapper: one model that translates satellite images into map tiles and map tiles into satellite images,
//! fills holes, extends borders and invents a matching pair for a coordinate (arXiv 2504.19432).
//!
//! Read it in this order: [`scales`], [`tokenizer`], [`geo_embedding`], [`transformer`], [`guidance`],
//! [`sampler`], [`translator`]. `ARCHITECTURE.md` maps every equation of the paper to a file.

mod activation;
mod canvas;
pub mod config;
pub mod device;
pub mod geo_embedding;
pub mod guidance;
pub mod init;
mod label;
pub mod lattice;
mod learned;
pub mod model;
mod mosaic;
pub mod packed;
pub mod pictures;
pub mod pyramid;
pub mod resample;
pub mod resolution;
mod rows;
pub mod sampler;
pub mod scales;
pub mod scene;
mod seam;
mod streams;
pub mod tokenizer;
pub mod transformer;
pub mod translator;
pub mod views;
pub mod weights;
pub mod windows;

pub use config::{DecoderConfig, EarthMapperConfig, TokenizerConfig, TransformerConfig};
pub use earthmapper_geo::{LonLat, Modality, Place};
pub use model::{EarthMapper, ModelError};
pub use packed::Precision;
pub use sampler::{Sampler, SamplerConfig};
pub use scales::Scales;
pub use tokenizer::{Encoding, MultiScaleTokenizer, TokenPyramid};
pub use transformer::{JointTransformer, KvCache};
pub use translator::{Condition, Generation, GenerationOptions, Known, Translator};
