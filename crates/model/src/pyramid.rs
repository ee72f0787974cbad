//! Translation of a tile pyramid: any tile, in any order, equal to what it is in the whole.

use std::path::PathBuf;

use earthmapper_geo::store::{StoreError, TileReader};
use earthmapper_geo::tile::metres_per_pixel;
use earthmapper_geo::{BoundingBox, Modality, Picture, PictureError, PictureLimits, Place, Tile, TileError};

use crate::lattice::{Lattice, PlaneArea};
use crate::model::EarthMapper;
pub use crate::mosaic::TilePicture;
use crate::mosaic::{Mosaic, load};
use crate::resolution;
use crate::sampler::derive_seed;
use crate::scene::{Seam, Translated, WindowOptions};
use crate::translator::{GenerationError, GenerationOptions, Translator};
use crate::windows::Setting;

/// Side in pixels of the tiles of a zoom of which none can be read.
const USUAL_SIDE: u32 = 256;

/// Why a tile was not made. The messages carry their cause in words.
#[derive(Debug, thiserror::Error)]
pub enum PyramidError {
    /// The source cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A tile of the source is no picture.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A tile of the source has another size than its neighbours.
    #[error("{}: has {width} × {height} pixels and others have {side} × {side}; make all tiles of one size", name.display())]
    Side {
        /// The store and the tile.
        name: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Side of the others.
        side: u32,
    },
    /// The tile was there when the tiles were listed.
    #[error("{0}: has vanished")]
    Vanished(Tile),
    /// Numbers that are no tile.
    #[error(transparent)]
    Tile(#[from] TileError),
    /// The model cannot do it.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}

/// How a pyramid is translated.
#[derive(Clone, Debug)]
pub struct PyramidOptions<'a> {
    /// What is made.
    pub to: Modality,
    /// Seed of the whole pyramid.
    pub seed: u64,
    /// How tokens are drawn.
    pub generation: &'a GenerationOptions,
    /// How tiles are joined: [`Seam::Blend`], or each by itself.
    pub seam: Seam,
    /// Windows at once.
    pub batch_size: usize,
    /// Windows remembered per zoom, for the neighbours of a tile.
    pub remembered: usize,
    /// Limits for decoding tiles of the source.
    pub limits: PictureLimits,
    /// Side of the tiles in pixels, if it is known; else each zoom's is that of the first tile that can be read.
    pub side: Option<u32>,
    /// The ground that the source covers, in whose middle the resampling of a zoom is decided; without it the first
    /// tile that is made decides.
    pub ground: Option<BoundingBox>,
}

/// A tile that was made.
#[derive(Clone, Debug)]
pub struct TranslatedTile {
    /// The picture, with the source's holes.
    pub tile: TilePicture,
    /// How undecided the model was: 0 certain … 255 no idea (token entropy over ln V), per pixel.
    pub uncertainty: Vec<u8>,
}

/// The tiles of a source, translated.
pub struct Pyramid<'a> {
    reader: &'a dyn TileReader,
    model: &'a EarthMapper,
    options: PyramidOptions<'a>,
    /// The zoom that is being made, with [`Seam::Blend`].
    zoom: Option<Zoom<'a>>,
}

/// What is remembered of one zoom.
struct Zoom<'a> {
    number: u8,
    /// Side of its tiles in pixels.
    side: u32,
    mosaic: Mosaic<'a>,
    lattice: Lattice<'a>,
}

impl<'a> Pyramid<'a> {
    /// The tiles of `reader`, as `model` translates them.
    pub fn new(reader: &'a dyn TileReader, model: &'a EarthMapper, options: PyramidOptions<'a>) -> Self {
        Self { reader, model, options, zoom: None }
    }

    /// Side in pixels of some tiles of one zoom: that of the first one that can be read.
    pub fn side(&self, tiles: &[Tile]) -> u32 {
        let readable = |tile: &Tile| load(self.reader, *tile, &self.options.limits, None).ok().flatten();
        tiles.iter().find_map(readable).map_or(USUAL_SIDE, |tile| tile.picture.width())
    }

    /// Power of two by which the tiles of a zoom are resampled for the model; `tile` is one of them.
    fn resampling(&self, tile: Tile, side: u32) -> i32 {
        let metres = match self.options.ground {
            Some(ground) => metres_per_pixel(ground.centre().latitude(), tile.z(), side),
            None => tile.metres_per_pixel(side),
        };
        let ratio = resolution::ratio(self.model, metres);
        if resolution::is_within_reason(ratio) { ratio.log2().round() as i32 } else { 0 }
    }

    /// Makes the windows that some tiles of one zoom need.
    ///
    /// # Errors
    /// As [`Translator::run`]; tiles that cannot be read are told of by [`Pyramid::tile`].
    pub fn prepare(&mut self, tiles: &[Tile]) -> Result<(), PyramidError> {
        let Some(&first) = tiles.first().filter(|_| self.options.seam == Seam::Blend) else { return Ok(()) };
        if self.zoom.as_ref().is_none_or(|zoom| zoom.number != first.z()) {
            let side = self.options.side.unwrap_or_else(|| self.side(tiles));
            let told = self.model.config.trained_on.places_known;
            let seed = derive_seed(self.options.seed, &[u64::from(first.z())]);
            let lattice = Lattice::new(
                Translator::new(self.model),
                self.options.to,
                (seed, self.options.generation),
                self.resampling(first, side),
                self.options.batch_size,
            );
            self.zoom = Some(Zoom {
                number: first.z(),
                side,
                mosaic: Mosaic::new(self.reader, self.options.limits, first.z(), side, told),
                lattice: lattice.with_remembered(self.options.remembered),
            });
        }
        let zoom = self.zoom.as_mut().expect("set just now");
        let areas: Vec<PlaneArea> = tiles.iter().map(|tile| zoom.area(*tile)).collect();
        zoom.lattice.prepare(&mut zoom.mosaic, &areas)
    }

    /// Makes a tile. It is transparent where its source is.
    ///
    /// # Errors
    /// When the source's tile cannot be read.
    ///
    /// # Panics
    /// With [`Seam::Blend`], when it was not among those [prepared](Self::prepare) last.
    pub fn tile(&self, tile: Tile) -> Result<TranslatedTile, PyramidError> {
        let zoom = self.zoom.as_ref().filter(|_| self.options.seam == Seam::Blend);
        let source = load(self.reader, tile, &self.options.limits, zoom.map(|zoom| zoom.side))?;
        let source = source.ok_or(PyramidError::Vanished(tile))?;
        if source.is_empty() {
            let uncertainty = vec![0; source.holes.holes().len()];
            return Ok(TranslatedTile { tile: source, uncertainty });
        }
        let made = match zoom {
            Some(zoom) => {
                let area = zoom.area(tile);
                Translated {
                    picture: zoom.lattice.picture(area),
                    uncertainty: zoom.lattice.uncertainty(area),
                }
            }
            None => self.alone(tile, &source.filled())?,
        };
        let tile = TilePicture { picture: made.picture, holes: source.holes };
        Ok(TranslatedTile { tile, uncertainty: made.uncertainty })
    }

    /// Makes a tile without its neighbours.
    fn alone(&self, tile: Tile, picture: &Picture) -> Result<Translated, PyramidError> {
        let parts = [u64::from(tile.z()), u64::from(tile.x()), u64::from(tile.y())];
        let setting = Setting {
            place: self.place(tile, picture.width()),
            seed: derive_seed(self.options.seed, &parts),
            options: self.options.generation,
        };
        let scale = 2f64.powi(self.resampling(tile, picture.width()));
        let windows = WindowOptions { scale, batch_size: self.options.batch_size, ..Default::default() };
        let translator = Translator::new(self.model);
        let mut made = translator.translate(picture, self.options.to, &setting, &windows, &mut |_, _| {})?;
        Ok(made.remove(0))
    }

    /// The place of a tile of `side` pixels, if the model may be told.
    pub fn place(&self, tile: Tile, side: u32) -> Option<Place> {
        let known = self.model.config.trained_on.places_known;
        known.then(|| Place::new(tile.centre(), Some(tile.metres_per_pixel(side))).ok()).flatten()
    }
}

impl Zoom<'_> {
    /// Where a tile lies on the plane.
    fn area(&self, tile: Tile) -> PlaneArea {
        let side = i64::from(self.side);
        PlaneArea {
            x: i64::from(tile.x()) * side,
            y: i64::from(tile.y()) * side,
            width: self.side,
            height: self.side,
        }
    }
}
