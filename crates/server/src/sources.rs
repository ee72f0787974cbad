//! The open sources: grounds by their id, each with a photograph, a map, or both.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use earthmapper::scene::Seam;
use earthmapper::{EarthMapperConfig, Modality};
use earthmapper_geo::dataset::{DatasetError, drawn_maps, open_source};
use earthmapper_geo::picture::decode_picture;
use earthmapper_geo::store::{StoreError, TileMetadata, TileReader};
use earthmapper_geo::tile::{MAX_ZOOM, metres_per_pixel};
use earthmapper_geo::{BoundingBox, PictureLimits, Tile};

use crate::config::{SourceConfig, remote_tiles};
use crate::remote::RemoteReader;

/// Tiles looked at to find out how many pixels they have.
const TRIED: usize = 16;

/// Limits for tiles of sources.
pub const TILE_LIMITS: PictureLimits = PictureLimits { max_pixels: 1 << 22, max_file_bytes: 64 << 20 };

/// Why a source cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("source {id:?}: {problem}")]
pub struct SourceError {
    id: String,
    problem: String,
}

impl SourceError {
    pub(crate) fn new(id: &str, problem: impl ToString) -> Self {
        Self { id: id.to_owned(), problem: problem.to_string() }
    }
}

/// One ground.
pub struct Source {
    /// The name in addresses.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// How tiles are joined.
    pub seam: Seam,
    /// The photograph and the map, in the order of [`Modality::ALL`].
    layers: [Option<Layer>; 2],
}

/// The tiles of one picture of a ground.
pub struct Layer {
    /// Where they come from.
    pub reader: Box<dyn TileReader>,
    /// What is known of them; bounds and zooms are set, zooms to those that are served.
    pub metadata: TileMetadata,
    /// The ground of the tiles.
    pub bounds: BoundingBox,
    /// Side of the tiles in pixels.
    pub side: u32,
    /// Changes when the file does.
    pub stamp: String,
    /// Zooms of the tiles that are there, lowest and deepest.
    pub stored: (u8, u8),
    /// Whether another server is asked for them.
    pub is_remote: bool,
    /// Zooms that are translated, lowest and deepest; none when the pixels of all are too far from the model's.
    pub translated: Option<(u8, u8)>,
}

impl Layer {
    /// Finds out what there is to know of some tiles.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn new(reader: Box<dyn TileReader>, stamp: String) -> Result<Self, StoreError> {
        let mut metadata = reader.metadata().clone();
        let mut first = Vec::new();
        if metadata.bounds.is_none() || metadata.min_zoom.is_none() || metadata.max_zoom.is_none() {
            first = reader.tiles()?;
            metadata = metadata.completed(&first);
        } else {
            reader.visit(&mut |tile| {
                first.push(tile);
                if first.len() < TRIED {
                    std::ops::ControlFlow::Continue(())
                } else {
                    std::ops::ControlFlow::Break(())
                }
            })?;
        }
        let side = first.iter().take(TRIED).find_map(|tile| side_of(reader.as_ref(), *tile)).unwrap_or(256);
        let stored = (metadata.min_zoom.unwrap_or(0), metadata.max_zoom.unwrap_or(0));
        let bounds = metadata.bounds.unwrap_or(BoundingBox::WORLD);
        let (is_remote, translated) = (false, Some(stored));
        Ok(Self { reader, metadata, bounds, side, stamp, stored, is_remote, translated })
    }

    /// Tiles of another server, of which nobody is asked before a client wants one.
    fn remote(reader: RemoteReader, side: u32, stamp: String) -> Self {
        let metadata = reader.metadata().clone();
        let bounds = metadata.bounds.unwrap_or(BoundingBox::WORLD);
        let stored = (metadata.min_zoom.unwrap_or(0), metadata.max_zoom.unwrap_or(0));
        let (reader, is_remote, translated) = (Box::new(reader), true, Some(stored));
        Self { reader, metadata, bounds, side, stamp, stored, is_remote, translated }
    }

    /// Keeps the zooms that are wanted and, unless forced, near enough to the model's pixels.
    fn limit(&mut self, options: &SourceConfig, model: &EarthMapperConfig) {
        let wanted = options.min_zoom.unwrap_or(0)..=options.max_zoom.unwrap_or(MAX_ZOOM);
        let latitude = self.bounds.centre().latitude();
        let near = |zoom: u8| match model.trained_on.metres_per_pixel {
            Some(trained) => {
                let ratio = metres_per_pixel(latitude, zoom, self.side) / trained;
                earthmapper::resolution::is_within_reason(ratio)
            }
            None => true,
        };
        let served: Vec<u8> = (self.stored.0..=self.stored.1)
            .filter(|zoom| wanted.contains(zoom) && (options.force || near(*zoom)))
            .collect();
        self.translated = served.first().copied().zip(served.last().copied());
    }

    /// Whether a tile lies on the ground of this layer, at a zoom within these.
    pub fn covers(&self, tile: Tile, (low, high): (u8, u8)) -> bool {
        (low..=high).contains(&tile.z()) && self.bounds.tiles(tile.z()).is_ok_and(|all| all.contains(tile))
    }
}

fn side_of(reader: &dyn TileReader, tile: Tile) -> Option<u32> {
    let encoded = reader.read(tile).ok()??;
    let picture = decode_picture(&encoded.bytes, "tile", &TILE_LIMITS).ok()?;
    (picture.width() == picture.height()).then(|| picture.width())
}

impl Source {
    /// Opens what a configuration names.
    ///
    /// # Errors
    /// [`SourceError`], which names the source and the file.
    pub fn open(
        options: &SourceConfig,
        patience: Duration,
        model: &EarthMapperConfig,
    ) -> Result<Self, SourceError> {
        let error = |problem: &dyn ToString| SourceError::new(&options.id, problem.to_string());
        let mut layers = [None, None];
        for (layer, named) in layers.iter_mut().zip([&options.satellite, &options.map]) {
            let Some(named) = named else { continue };
            // Everything of the configuration that pixels depend on, and more: a cached tile is never another's.
            let times = [Some(&named.path), named.style.as_ref()].map(|path| path.map(|path| stamp_of(path)));
            let stamp = format!("{times:?} {named:?} {} {}", options.tile_side, options.version);
            let mut opened = match remote_tiles(named) {
                Some(template) => {
                    let template = template.map_err(|problem| error(&problem))?;
                    let bounds = options.bounds.unwrap_or(BoundingBox::WORLD);
                    let zooms = options.min_zoom.unwrap_or(0)..=options.max_zoom.unwrap_or(MAX_ZOOM);
                    let reader = RemoteReader::new(template, bounds, zooms, patience);
                    Layer::remote(reader, options.tile_side, stamp)
                }
                None => {
                    let reader = open_source(named, &drawn_maps, options.tile_side)
                        .map_err(|cause: DatasetError| error(&cause))?;
                    Layer::new(reader, stamp).map_err(|cause| error(&cause))?
                }
            };
            let attribution = named.attribution.clone().or(opened.metadata.attribution);
            opened.metadata.attribution = attribution.map(|attribution| without_markup(&attribution));
            opened.limit(options, model);
            *layer = Some(opened);
        }
        let name = options.name.clone().unwrap_or_else(|| options.id.clone());
        Ok(Self { id: options.id.clone(), name, seam: options.seam.into(), layers })
    }

    /// A source from its parts, as the demo is.
    pub fn of_layers(
        options: &SourceConfig,
        mut layers: [Option<Layer>; 2],
        model: &EarthMapperConfig,
    ) -> Self {
        layers.iter_mut().flatten().for_each(|layer| layer.limit(options, model));
        let name = options.name.clone().unwrap_or_else(|| options.id.clone());
        Self { id: options.id.clone(), name, seam: options.seam.into(), layers }
    }

    /// The photograph or the map, as it is.
    pub fn original(&self, modality: Modality) -> Option<&Layer> {
        self.layers[modality.index()].as_ref()
    }

    /// What is translated to make `to`, and at which zooms.
    pub fn translation(&self, to: Modality) -> Option<(&Layer, (u8, u8))> {
        let layer = self.original(to.other())?;
        layer.translated.map(|zooms| (layer, zooms))
    }

    /// Whom to name beside what is made: above all, that it is synthetic.
    pub fn attribution(&self, to: Modality, model: &str) -> String {
        let synthetic = format!("synthetic, EarthMapper {model}");
        match self.original(to.other()).and_then(|layer| layer.metadata.attribution.as_ref()) {
            Some(attribution) => format!("{attribution}; {synthetic}"),
            None => synthetic,
        }
    }

    /// What can be made: that with more zooms first, else the map.
    pub fn directions(&self) -> impl Iterator<Item = Modality> {
        let zooms = |to: &Modality| self.translation(*to).map_or(0, |(_, (low, high))| high - low + 1);
        let mut all = [Modality::Map, Modality::Satellite];
        all.sort_by_key(|to| std::cmp::Reverse(zooms(to)));
        all.into_iter().filter(move |to| zooms(to) > 0)
    }
}

/// An attribution as plain text. Stores may hold HTML, and programs that read TileJSON put it into their pages: what a
/// file from elsewhere brings must not become a script there.
fn without_markup(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        text += &rest[..start];
        rest = rest[start..].find('>').map_or("", |end| &rest[start + end + 1..]);
    }
    text += rest;
    for (entity, character) in
        [("&copy;", "©"), ("&#169;", "©"), ("&quot;", "\""), ("&nbsp;", " "), ("&amp;", "&")]
    {
        text = text.replace(entity, character);
    }
    text.replace('>', "").trim().to_owned()
}

/// Length and time of a file, or the time of a folder.
pub(crate) fn stamp_of(path: &Path) -> String {
    let Ok(metadata) = fs::metadata(path) else { return String::new() };
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let length = if metadata.is_file() { metadata.len() } else { 0 };
    format!("{length} {}", modified.unwrap_or_default().as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, grey_tiles};

    const PATIENCE: Duration = Duration::from_secs(1);

    #[test]
    fn zooms_are_those_near_the_models_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let tiles = grey_tiles(folder.path(), &["12/2048/2047", "16/32768/32767", "20/524288/524287"]);
        let mut options = testing::source("a", None, Some(tiles));
        let model = testing::model();
        let source = Source::open(&options, PATIENCE, &model.config).unwrap();
        // The model's pixels are a hair smaller than those of zoom 16, so zoom 14 is more than four times as coarse.
        let (layer, zooms) = source.translation(Modality::Satellite).unwrap();
        assert_eq!((layer.stored, layer.side, zooms), ((12, 20), testing::SIDE, (15, 18)));
        assert!(source.translation(Modality::Map).is_none());
        assert_eq!(source.directions().collect::<Vec<_>>(), [Modality::Satellite]);
        options.force = true;
        options.max_zoom = Some(16);
        let forced = Source::open(&options, PATIENCE, &model.config).unwrap();
        assert_eq!(forced.translation(Modality::Satellite).unwrap().1, (12, 16));
    }

    #[test]
    fn attributions_become_plain_text() {
        for (html, text) in [
            ("City of Florence, CC BY 4.0", "City of Florence, CC BY 4.0"),
            (
                "&copy; <a href=\"https://www.openstreetmap.org/copyright\">OpenStreetMap</a> contributors",
                "© OpenStreetMap contributors",
            ),
            ("a<script>alert(1)</script>b", "aalert(1)b"),
            ("a <img src=x onerror=alert(1)", "a"),
            ("<<b>b>", "b"),
            ("&lt;i&gt; stays an entity", "&lt;i&gt; stays an entity"),
        ] {
            assert_eq!(without_markup(html), text);
        }
    }

    #[test]
    fn errors_name_the_source() {
        let options = testing::source("lost", Some("/nowhere/at/all.tif".into()), None);
        let error = Source::open(&options, PATIENCE, &testing::model().config).err().unwrap().to_string();
        assert!(error.starts_with("source \"lost\": /nowhere/at/all.tif"), "{error}");
    }
}
