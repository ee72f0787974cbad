//! Places, modalities, pictures and pair folders: everything EarthMapper knows about the world that needs no tensor.

pub mod lonlat;
pub mod modality;
pub mod pairs;
pub mod picture;
pub mod provenance;
