//! Places, modalities, pictures, maps' tiles and datasets: everything EarthMapper knows about the world that needs no tensor.
//!
//! | module | holds |
//! |---|---|
//! | [`lonlat`] | [`LonLat`] and [`Place`]: where on Earth a picture lies |
//! | [`modality`] | [`Modality`]: satellite or map |
//! | [`picture`] | [`Picture`] and [`Mask`], read with limits and written without leaving halves behind |
//! | [`provenance`] | [`Provenance`]: the label that says a picture was generated, inside PNG, JPEG and WebP |
//! | [`pairs`] | [`PairFolder`]: aligned satellite and map pictures on disk |
//! | [`dataset`] | [`make`](fn@dataset::make), [`Filters`](dataset::Filters), [`assign`](dataset::assign), [`check`](fn@dataset::check), [`stats`](fn@dataset::stats): pairs cut, filtered, split by ground, inspected |
//! | [`tile`] | [`Tile`] and [`BoundingBox`]: the squares of a web map |
//! | [`store`] | [`store::TileReader`] and [`store::TileWriter`]: tiles in folders, MBTiles and PMTiles |
//! | [`datum`] | [`Datum`]: the shifted coordinates of Chinese maps |
//! | [`raster`] | [`RasterReader`](raster::RasterReader), [`RasterWriter`](raster::RasterWriter): GeoTIFF scenes by windows, with their place |
//! | [`render`] | [`Renderer`](render::Renderer): maps drawn from vector tiles, GeoJSON and OpenStreetMap, one tile or a pyramid |
//! | [`page`] | [`Page`](page::Page): reports as one page of HTML without anything from the net |
//! | [`window_journal`] | [`WindowJournal`]: windows of a large output that is not whole yet |
//! | [`files`] | [`atomic_write`]: a file is there whole or not at all |
//!
//! # Example
//!
//! ```
//! use earthmapper_geo::{Picture, PictureLimits, WriteOptions, read_picture, write_picture};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("grass.png");
//! let grass = Picture::filled(64, 64, [96, 128, 64]);
//! write_picture(&path, &grass, &WriteOptions::default())?;
//! assert_eq!(read_picture(&path, &PictureLimits::default())?, grass);
//!
//! // Nothing is ever replaced unasked.
//! let refused = write_picture(&path, &grass, &WriteOptions::default()).unwrap_err();
//! assert!(refused.to_string().ends_with("pass --overwrite to replace it"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod dataset;
pub mod datum;
pub mod files;
pub mod lonlat;
pub mod modality;
pub mod page;
pub mod pairs;
pub mod picture;
pub mod provenance;
pub mod raster;
pub mod render;
pub mod store;
pub mod tile;
pub mod window_journal;

pub use datum::{Datum, UnknownDatum};
pub use files::{WriteError, atomic_write, atomic_write_with, check_output};
pub use lonlat::{LonLat, Place, PlaceError};
pub use modality::{Modality, UnknownModality};
pub use pairs::{Pair, PairError, PairFiles, PairFolder, PairOrder, PairSelection, PairSource};
pub use picture::{
    Mask, Picture, PictureError, PictureLimits, PictureSizeError, WriteOptions, check_picture_output,
    decode_mask, decode_picture, read_mask, read_picture, write_grey, write_picture,
};
pub use provenance::{Provenance, read_provenance};
pub use tile::{BoundingBox, Tile, TileCover, TileError};
pub use window_journal::WindowJournal;
