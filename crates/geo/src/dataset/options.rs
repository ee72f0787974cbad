use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::DatasetError;
use super::filter::Filters;
use super::split::SplitOptions;
use crate::datum::Datum;
use crate::raster::Epsg;
use crate::render::Class;
use crate::store::TilePattern;
use crate::tile::{BoundingBox, MAX_ZOOM};

/// What a dataset is made of, and how.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MakeOptions {
    /// Imagery with its map, one or more.
    pub sources: Vec<SourcePair>,
    /// Which pairs are left out.
    #[serde(default)]
    pub filters: Filters,
    /// What happens to photographs that lie beside their map.
    #[serde(default)]
    pub registration: Registration,
    /// Which pairs are for training, validation and test.
    #[serde(default)]
    pub split: SplitOptions,
    /// The largest share of pairs that may be unreadable before making stops; one always may.
    #[serde(default = "one_percent")]
    pub skip_limit: f64,
}

fn one_percent() -> f64 {
    0.01
}

/// Imagery and the map of the same ground.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePair {
    /// A name of letters, digits, `_` and `-`, with which the names of its pairs begin.
    pub name: String,
    /// The photographs.
    pub imagery: SourceOptions,
    /// The map; what is not a raster or a tile store is drawn by a [`MapSource`](super::MapSource).
    pub map: SourceOptions,
    /// How pairs are cut.
    #[serde(default)]
    pub grid: Grid,
    /// Pairs whose middle lies outside are left out.
    #[serde(default)]
    pub region: Option<BoundingBox>,
}

/// One raster (`.tif`, `.tiff`), tile store, or input of a drawn map.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceOptions {
    /// The file or folder.
    pub path: PathBuf,
    /// How the files of a folder of tiles are named, when they are not `z/x/y.png`.
    pub pattern: Option<TilePattern>,
    /// What its coordinates are in.
    pub datum: Datum,
    /// By how many pixels of a pair the picture lies too far right and too far down; it is moved back by as much.
    pub offset: [f64; 2],
    /// The CRS of a raster, instead of what the file says.
    pub crs: Option<Epsg>,
    /// The bands of a raster that are red, green and blue, counted from 1; one band is grey.
    pub bands: Option<Vec<usize>>,
    /// The class of features of GeoJSON whose properties say nothing.
    pub class: Option<Class>,
    /// The style of a drawn map, when it is not the built-in one.
    pub style: Option<PathBuf>,
    /// Whom to name; without it, what the tile store says.
    pub attribution: Option<String>,
    /// The licence of the pictures.
    pub licence: Option<String>,
}

impl SourceOptions {
    /// A source in WGS 84 that lies where it says.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Whether the name is a raster's.
    pub fn is_raster(&self) -> bool {
        let ending = self.path.extension().unwrap_or_default();
        ["tif", "tiff"].iter().any(|known| ending.eq_ignore_ascii_case(known))
    }
}

/// How the ground is cut into pairs, squares of `side × side` pixels.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "cut", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Grid {
    /// Along the tiles of web Mercator, in the datum of the imagery.
    Tiles {
        /// Zooms; without any, those of the imagery's tiles, or of a raster the one nearest to `metres_per_pixel` (of
        /// neither, the one nearest to the raster's own pixels).
        #[serde(default)]
        zooms: Vec<u8>,
        /// Pixels a side.
        #[serde(default = "tile_side")]
        side: u32,
        /// Metres of ground per pixel that decide about the zoom of a raster.
        #[serde(default)]
        metres_per_pixel: Option<f64>,
    },
    /// Along the rows and columns of the imagery, which must be a raster.
    Own {
        /// Pixels a side.
        #[serde(default = "tile_side")]
        side: u32,
        /// Metres of ground per pixel in the middle of the raster; without it, the raster's own pixels.
        #[serde(default)]
        metres_per_pixel: Option<f64>,
    },
}

impl Grid {
    /// Pixels a side of a pair.
    pub fn side(&self) -> u32 {
        match self {
            Self::Tiles { side, .. } | Self::Own { side, .. } => *side,
        }
    }
}

impl Default for Grid {
    /// The tiles that there are, 256 pixels a side.
    fn default() -> Self {
        Self::Tiles { zooms: Vec::new(), side: tile_side(), metres_per_pixel: None }
    }
}

fn tile_side() -> u32 {
    256
}

/// What happens to a photograph that lies beside its map.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Registration {
    /// The shift is found and noted.
    #[default]
    Report,
    /// When the shift is found with confidence, the photograph is cut anew that much beside, in whole pixels.
    Correct,
}

impl MakeOptions {
    /// Options for one source, everything else by default.
    pub fn new(source: SourcePair) -> Self {
        Self {
            sources: vec![source],
            filters: Filters::default(),
            registration: Registration::default(),
            split: SplitOptions::default(),
            skip_limit: one_percent(),
        }
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<(), DatasetError> {
        let wrong = |key: &str, problem: String| Err(DatasetError::Options { key: key.to_owned(), problem });
        if self.sources.is_empty() {
            return wrong("sources", "is empty; name imagery and a map".to_owned());
        }
        if !(0.0..=1.0).contains(&self.skip_limit) {
            return wrong("skip_limit", format!("is {}; give a share from 0 to 1", self.skip_limit));
        }
        self.filters.check()?;
        self.split.check()?;
        for (index, source) in self.sources.iter().enumerate() {
            let name = &source.name;
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
                let problem = format!("is {name:?}; use 1 to 64 letters, digits, _ and -");
                return wrong("sources.name", problem);
            }
            if self.sources[..index].iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
                return wrong("sources.name", format!("{name:?} is there twice; give each source its own"));
            }
            source.check()?;
        }
        Ok(())
    }
}

impl SourcePair {
    fn check(&self) -> Result<(), DatasetError> {
        let wrong = |key: &str, problem: String| {
            Err(DatasetError::Options { key: format!("source {}: {key}", self.name), problem })
        };
        if !(16..=4096).contains(&self.grid.side()) {
            return wrong("grid.side", format!("is {}; use 16 to 4096 pixels", self.grid.side()));
        }
        let (Grid::Tiles { metres_per_pixel, .. } | Grid::Own { metres_per_pixel, .. }) = &self.grid;
        if metres_per_pixel.is_some_and(|metres| !(metres.is_finite() && metres > 0.0)) {
            return wrong("grid.metres_per_pixel", "is no number above 0; give metres of ground".to_owned());
        }
        match &self.grid {
            Grid::Tiles { zooms, .. } if zooms.iter().any(|zoom| *zoom > MAX_ZOOM) => {
                return wrong("grid.zooms", format!("goes beyond {MAX_ZOOM}, the deepest zoom"));
            }
            Grid::Own { .. } if !self.imagery.is_raster() => {
                let problem =
                    "is \"own\", which needs a raster (.tif); use \"tiles\" for a tile store".to_owned();
                return wrong("grid.cut", problem);
            }
            _ => {}
        }
        for (key, source) in [("imagery", &self.imagery), ("map", &self.map)] {
            if source.offset.iter().any(|pixels| pixels.is_nan() || pixels.abs() > 4096.0) {
                return wrong(
                    &format!("{key}.offset"),
                    "is beyond 4096 pixels; give pixels of a pair".to_owned(),
                );
            }
            if source.pattern.is_some() && source.is_raster() {
                return wrong(&format!("{key}.pattern"), "is for folders of tiles; leave it out".to_owned());
            }
        }
        Ok(())
    }
}
