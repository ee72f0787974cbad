//! `tile`: a pyramid of photographs into one of maps, or the other way. `mosaic.rs` joins tiles to a plane of pixels,
//! `lower.rs` makes lower zooms out of higher ones.

mod lower;
mod mosaic;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use earthmapper::EarthMapper;
use earthmapper::lattice::{Lattice, PlaneArea};
use earthmapper::sampler::derive_seed;
use earthmapper::scene::{Seam, WindowOptions};
use earthmapper::translator::{GenerationOptions, Translator};
use earthmapper::windows::Setting;
use earthmapper_geo::picture::{decode_with_holes, encode_with_holes};
use earthmapper_geo::store::{
    Existing, StoreError, TileFormat, TileMetadata, TileReader, TileWriter, create_tiles, open_tiles,
};
use earthmapper_geo::{BoundingBox, Modality, Picture, Place, Tile, WriteOptions};
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::exit::{BadInput, Interrupted, SomeFailed, Usage};
use crate::settings::{
    FileArgs, GenerationArgs, ModelArgs, Output, check_modality, interrupt, print, provenance, resolution,
};
use lower::LowerZooms;
use mosaic::{Ground, Mosaic, load};

/// Tiles are made block by block, so many zooms below the tile that they share: sixteen at most, next to each other.
const BLOCK_ZOOMS: u8 = 2;

/// Where the tiles of lower zooms come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Lower {
    /// The source's own tiles of every zoom are translated.
    Translate,
    /// The deepest zoom is translated, and lower ones are made from it at half the size each.
    Downsample,
}

/// Translate map tiles: a folder z/x/y, an .mbtiles or a .pmtiles file
///
/// Windows reach across the borders of tiles and are cross-faded, so borders do not show; each depends on its place and the seed only, so that any part of the pyramid can be made alone, in any order, and comes out the same. Tiles whose pixels are up to four times as large or small as the model's are resampled by a power of two.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The tiles.
    source: PathBuf,
    /// Where the result goes: a folder, .mbtiles or .pmtiles.
    output: PathBuf,
    /// What to make: map or satellite.
    #[arg(long, value_name = "map|satellite", env = "EARTHMAPPER_TO")]
    to: Modality,
    /// Only tiles that touch this box, in degrees: west,south,east,north.
    #[arg(long, value_name = "W,S,E,N", allow_hyphen_values = true, env = "EARTHMAPPER_BBOX")]
    bbox: Option<BoundingBox>,
    /// Lowest zoom.
    #[arg(long, env = "EARTHMAPPER_MIN_ZOOM")]
    min_zoom: Option<u8>,
    /// Deepest zoom.
    #[arg(long, env = "EARTHMAPPER_MAX_ZOOM")]
    max_zoom: Option<u8>,
    /// How tiles are joined: blend (windows across their borders are cross-faded) or crop (each is translated by itself, and borders show).
    #[arg(long, default_value_t = Seam::Blend, value_parser = seam, value_name = "blend|crop", env = "EARTHMAPPER_SEAM")]
    seam: Seam,
    /// Where the tiles of lower zooms come from.
    #[arg(long, value_enum, default_value_t = Lower::Translate, env = "EARTHMAPPER_LOWER_ZOOMS")]
    lower_zooms: Lower,
    /// Windows at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096), env = "EARTHMAPPER_BATCH_SIZE")]
    batch_size: u32,
    /// Translate tiles as they are when their ground resolution is far from the model's.
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_FORCE")]
    force: bool,
    /// Go on where an interrupted run stopped: tiles that are there are not made again.
    #[arg(long, conflicts_with = "overwrite", value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_RESUME")]
    resume: bool,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    files: FileArgs,
}

/// Outpainting depends on which tiles were made before, and tiles must not.
fn seam(text: &str) -> Result<Seam, String> {
    text.parse().ok().filter(|seam| *seam != Seam::Outpaint).ok_or_else(|| "must be blend or crop".into())
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    if let (Some(low), Some(high)) = (args.min_zoom, args.max_zoom)
        && low > high
    {
        return Err(Usage(format!("--min-zoom {low} is above --max-zoom {high}")).into());
    }
    let reader = open_tiles(&args.source)?;
    let (tiles, lowest) = args.chosen(reader.as_ref())?;
    let model = args.model.load()?;
    check_modality(&model, args.to)?;
    check_modality(&model, args.to.other())?;
    let options = args.generation.options(model.generation.towards(args.to))?;
    let mut maker =
        Maker { args: &args, reader: reader.as_ref(), model: &model, options: &options, zoom: None };
    maker.check_resolution(&tiles)?;
    let mut lower = match lowest {
        Some(lowest) => LowerZooms::new(&tiles, lowest),
        None => LowerZooms::new(&[], 0),
    };
    let all = tiles.len() + lower.count();
    if args.files.dry_run {
        args.check_output()?;
        return dry_run(&args, &tiles, all, maker, output);
    }

    let existing = match (args.resume, args.files.overwrite) {
        (true, _) => Existing::Continue,
        (false, true) => Existing::Replace,
        (false, false) => Existing::Refuse,
    };
    let mut writer =
        create_tiles(&args.output, args.metadata(reader.metadata(), &model.config.name), existing)?;
    let interrupt = interrupt()?;
    let there: HashSet<Tile> = writer.tiles()?.into_iter().collect();
    let before =
        tiles.iter().copied().chain(lower.tiles()).filter(|tile| there.contains(tile)).count() as u64;
    let mut progress = Progress::start(output.progress(), "tiles", before, all as u64);
    let (mut failed, mut made) = (Vec::new(), 0);
    let blocks = tiles.chunk_by(|a, b| block(*a) == block(*b));
    for block in blocks {
        let mut open = Vec::new();
        for tile in block {
            if !writer.contains(*tile)? {
                open.push(*tile);
            }
        }
        maker.prepare(&open)?;
        for &tile in block {
            if interrupt.requested() {
                writer.flush()?;
                return Err(Interrupted(args.going_on()).into());
            }
            let ground = match open.contains(&tile) {
                true => match maker.tile(tile) {
                    Ok(ground) => Some(ground),
                    // A tile that cannot be read is no reason to lose the others.
                    Err(error) => {
                        tracing::warn!("{tile}: {}", crate::exit::line(&error));
                        failed.push(tile);
                        None
                    }
                },
                false if lower.count() > 0 => written(writer.as_ref(), tile, &args)?,
                false => None,
            };
            let new = ground.as_ref().filter(|_| open.contains(&tile)).map(|ground| (tile, ground.clone()));
            let above = if lower.count() > 0 { lower.add(tile, ground.as_ref()) } else { Vec::new() };
            for (tile, ground) in new.into_iter().chain(above) {
                if !writer.contains(tile)? {
                    writer.write(tile, &maker.encoded(tile, &ground)?)?;
                    made += 1;
                    progress.update(before + made, 1, None);
                }
            }
        }
    }
    progress.finish();
    writer.finish()?;
    if !failed.is_empty() {
        failed.iter().try_for_each(|tile| print(&format!("{tile}\n")))?;
        return Err(SomeFailed { failed: failed.len(), of: all }.into());
    }
    let facts = json!({ "tiles": all, "made": made });
    output.outputs(std::slice::from_ref(&args.output), false, facts)
}

/// The tile that those of a block share.
fn block(tile: Tile) -> Tile {
    tile.ancestor(tile.z().saturating_sub(BLOCK_ZOOMS)).expect("a lower zoom")
}

/// A tile that is in the output already.
fn written(writer: &dyn TileWriter, tile: Tile, args: &Args) -> Result<Option<Ground>> {
    let Some(encoded) = writer.read(tile)? else { return Ok(None) };
    let (picture, holes) = decode_with_holes(&encoded.bytes, writer.path(), &args.files.limits())?;
    Ok(Some(Ground { picture, holes }))
}

/// Makes tiles.
struct Maker<'a> {
    args: &'a Args,
    reader: &'a dyn TileReader,
    model: &'a EarthMapper,
    options: &'a GenerationOptions,
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
    broken: Vec<(Tile, anyhow::Error)>,
}

impl<'a> Maker<'a> {
    /// Side of a zoom's tiles in pixels: that of the first one that can be read.
    fn side(&self, tiles: &[Tile]) -> u32 {
        let limits = self.args.files.limits();
        let readable = |tile: &Tile| load(self.reader, *tile, &limits, None).ok().flatten();
        tiles.iter().find_map(readable).map_or(256, |ground| ground.picture.width())
    }

    /// How many times as large as the model's a tile's pixels are.
    fn ratio(&self, tile: Tile, side: u32) -> f64 {
        resolution::ratio(self.model, tile.metres_per_pixel(side))
    }

    /// Refuses tiles whose pixels are far larger or smaller than the model's.
    fn check_resolution(&self, tiles: &[Tile]) -> Result<()> {
        for zoom in tiles.chunk_by(|a, b| a.z() == b.z()) {
            let (tile, side) = (zoom[zoom.len() / 2], self.side(zoom));
            if !resolution::is_within_reason(self.ratio(tile, side)) && !self.args.force {
                let cure = format!(
                    "leave out zoom {} with --min-zoom or --max-zoom, or pass --force to translate the tiles as they are",
                    tile.z()
                );
                let metres = tile.metres_per_pixel(side);
                return Err(resolution::refusal(self.model, &self.args.source, metres, &cure).into());
            }
        }
        Ok(())
    }

    /// Power of two by which tiles are resampled for the model.
    fn resampling(&self, tile: Tile, side: u32) -> i32 {
        let ratio = self.ratio(tile, side);
        if resolution::is_within_reason(ratio) { ratio.log2().round() as i32 } else { 0 }
    }

    /// Makes the windows that some tiles of one zoom need.
    fn prepare(&mut self, tiles: &[Tile]) -> Result<()> {
        let Some(&first) = tiles.first().filter(|_| self.args.seam == Seam::Blend) else { return Ok(()) };
        if self.zoom.as_ref().is_none_or(|zoom| zoom.number != first.z()) {
            let side = self.side(tiles);
            let told = self.model.config.trained_on.places_known;
            let seed = derive_seed(self.args.generation.seed, &[u64::from(first.z())]);
            self.zoom = Some(Zoom {
                number: first.z(),
                side,
                mosaic: Mosaic::new(self.reader, self.args.files.limits(), first.z(), side, told),
                lattice: Lattice::new(
                    Translator::new(self.model),
                    self.args.to,
                    (seed, self.options),
                    self.resampling(first, side),
                    self.args.batch_size as usize,
                ),
                broken: Vec::new(),
            });
        }
        let zoom = self.zoom.as_mut().expect("set just now");
        let areas: Vec<PlaneArea> = tiles.iter().map(|tile| zoom.area(*tile)).collect();
        zoom.lattice.prepare(&mut zoom.mosaic, &areas)?;
        zoom.broken.extend(zoom.mosaic.take_broken());
        Ok(())
    }

    /// Makes a tile, which was prepared. It is transparent where its source is.
    fn tile(&mut self, tile: Tile) -> Result<Ground> {
        if let Some(zoom) = &mut self.zoom
            && let Some(index) = zoom.broken.iter().position(|(broken, _)| *broken == tile)
        {
            return Err(zoom.broken.swap_remove(index).1);
        }
        let source = load(self.reader, tile, &self.args.files.limits(), None)?
            .ok_or_else(|| BadInput(format!("{tile}: has vanished")))?;
        if source.is_empty() {
            return Ok(source);
        }
        let picture = match &mut self.zoom {
            Some(zoom) if self.args.seam == Seam::Blend => zoom.lattice.picture(zoom.area(tile)),
            _ => self.alone(tile, &source)?,
        };
        Ok(Ground { picture, holes: source.holes })
    }

    /// Makes a tile without its neighbours.
    fn alone(&self, tile: Tile, source: &Ground) -> Result<Picture> {
        let picture = source.filled();
        let setting = Setting {
            place: self.place(tile, picture.width()),
            seed: self.seed(tile),
            options: self.options,
        };
        let scale = 2f64.powi(self.resampling(tile, picture.width()));
        let windows =
            WindowOptions { scale, batch_size: self.args.batch_size as usize, ..Default::default() };
        let translator = Translator::new(self.model);
        let mut made = translator.translate(&picture, self.args.to, &setting, &windows, &mut |_, _| {})?;
        Ok(made.remove(0).picture)
    }

    /// A tile's file, with its label.
    fn encoded(&self, tile: Tile, Ground { picture, holes }: &Ground) -> Result<Vec<u8>> {
        let task = format!("{} → {}", self.args.to.other(), self.args.to);
        let place = self.place(tile, picture.width());
        let source = Some(self.args.source.as_path());
        let mut provenance =
            provenance(self.model, &task, self.args.generation.seed, source, place, self.options);
        provenance.extra.insert("tile".into(), tile.to_string());
        let options = WriteOptions { provenance: Some(provenance), ..Default::default() };
        Ok(encode_with_holes(TileFormat::Png.extension(), picture, holes, &options)?)
    }

    fn place(&self, tile: Tile, side: u32) -> Option<Place> {
        let known = self.model.config.trained_on.places_known;
        known.then(|| Place::new(tile.centre(), Some(tile.metres_per_pixel(side))).ok()).flatten()
    }

    fn seed(&self, tile: Tile) -> u64 {
        let parts = [u64::from(tile.z()), u64::from(tile.x()), u64::from(tile.y())];
        derive_seed(self.args.generation.seed, &parts)
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

impl Args {
    /// Refuses what starting to write would refuse.
    fn check_output(&self) -> Result<()> {
        let is_file = self.output.is_file();
        let has_contents = std::fs::read_dir(&self.output).is_ok_and(|mut entries| entries.next().is_some());
        match (is_file || has_contents) && !self.resume && !self.files.overwrite {
            true => Err(StoreError::Exists { path: self.output.clone(), can_be_replaced: is_file }.into()),
            false => Ok(()),
        }
    }

    /// How to go on after an interruption.
    fn going_on(&self) -> &'static str {
        match self.output.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("pmtiles")) {
            true => {
                "a .pmtiles file is written at the end, so nothing is kept; name a folder or an .mbtiles file instead"
            }
            false => "the tiles so far are kept, go on with --resume",
        }
    }

    /// The tiles of the source that are to be translated and, when lower zooms are to be made from them, the lowest.
    fn chosen(&self, reader: &dyn TileReader) -> Result<(Vec<Tile>, Option<u8>)> {
        let zooms = self.min_zoom.unwrap_or(0)..=self.max_zoom.unwrap_or(u8::MAX);
        let mut covers = std::collections::HashMap::new();
        let mut tiles = Vec::new();
        for tile in reader.tiles()?.into_iter().filter(|tile| zooms.contains(&tile.z())) {
            let inside = match &self.bbox {
                None => true,
                Some(bbox) => {
                    if let std::collections::hash_map::Entry::Vacant(entry) = covers.entry(tile.z()) {
                        entry.insert(bbox.tiles(tile.z())?);
                    }
                    covers[&tile.z()].contains(tile)
                }
            };
            if inside {
                tiles.push(tile);
            }
        }
        let (Some(deepest), Some(lowest)) =
            (tiles.iter().map(|tile| tile.z()).max(), tiles.iter().map(|tile| tile.z()).min())
        else {
            let text = format!(
                "{}: has no tile in this box and at these zooms; choose others",
                self.source.display()
            );
            return Err(BadInput(text).into());
        };
        if self.lower_zooms == Lower::Translate {
            return Ok((tiles, None));
        }
        tiles.retain(|tile| tile.z() == deepest);
        Ok((tiles, Some(self.min_zoom.unwrap_or(lowest))))
    }

    /// What the result says about itself: above all, that it is synthetic.
    fn metadata(&self, source: &TileMetadata, model: &str) -> TileMetadata {
        let mut metadata = TileMetadata::new(format!("{} ({})", source.name, self.to), TileFormat::Png);
        metadata.description =
            Some(format!("Synthetic: made from other tiles by the trained model {model}."));
        let synthetic = format!("synthetic, EarthMapper {model}");
        metadata.attribution = Some(match &source.attribution {
            Some(attribution) => format!("{attribution}; {synthetic}"),
            None => synthetic,
        });
        metadata
    }
}

/// Says what would be done, from the time and size of one tile.
fn dry_run(args: &Args, tiles: &[Tile], all: usize, mut maker: Maker, output: &Output) -> Result<()> {
    let start = Instant::now();
    // A block, because neighbours share windows.
    let middle = block(tiles[tiles.len() / 2]);
    let sample: Vec<Tile> = tiles.iter().copied().filter(|tile| block(*tile) == middle).collect();
    maker.prepare(&sample)?;
    let mut bytes = 0;
    for &tile in &sample {
        let ground = maker.tile(tile)?;
        bytes += maker.encoded(tile, &ground)?.len();
    }
    let per_tile = 1.0 / sample.len() as f64;
    let seconds = start.elapsed().as_secs_f64() * per_tile * tiles.len() as f64;
    let megabytes = bytes as f64 * per_tile * all as f64 / 1e6;
    let facts =
        json!({ "tiles": all, "seconds": seconds.round(), "megabytes": (megabytes * 10.0).round() / 10.0 });
    output.outputs(std::slice::from_ref(&args.output), true, facts)
}
