//! `tile`: a pyramid of photographs into one of maps, or the other way. `lower.rs` makes lower zooms out of
//! higher ones.

mod lower;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use earthmapper::EarthMapper;
use earthmapper::pyramid::{Pyramid, PyramidOptions, TilePicture};
use earthmapper::scene::Seam;
use earthmapper::translator::GenerationOptions;
use earthmapper_geo::picture::{decode_with_holes, encode_with_holes};
use earthmapper_geo::store::{
    Existing, StoreError, TileFormat, TileMetadata, TileReader, TileWriter, create_tiles, open_tiles,
};
use earthmapper_geo::{BoundingBox, Modality, Tile, WriteOptions};
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::exit::{BadInput, Interrupted, SomeFailed, Usage};
use crate::settings::{
    FileArgs, GenerationArgs, ModelArgs, Output, ViewsArgs, check_modality, interrupt, print, provenance,
    resolution,
};
use lower::LowerZooms;

/// Tiles are made block by block, so many zooms below the tile that they share: sixteen at most, next to each other.
const BLOCK_ZOOMS: u8 = 2;

/// Windows that are remembered for the next block.
const REMEMBERED: usize = 256;

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
    views: ViewsArgs,
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
    let (tiles, lowest, ground) = args.chosen(reader.as_ref())?;
    let model = args.model.load()?;
    check_modality(&model, args.to)?;
    check_modality(&model, args.to.other())?;
    let options = args.generation.options(model.generation.towards(args.to))?;
    let options = args.views.applied(options, args.to)?;
    let pyramid = PyramidOptions {
        to: args.to,
        seed: args.generation.seed,
        generation: &options,
        seam: args.seam,
        batch_size: args.batch_size as usize,
        remembered: REMEMBERED,
        limits: args.files.limits(),
        side: None,
        ground,
    };
    let pyramid = Pyramid::new(reader.as_ref(), &model, pyramid);
    let mut maker = Maker { args: &args, model: &model, options: &options, pyramid };
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
        maker.pyramid.prepare(&open)?;
        for &tile in block {
            if interrupt.requested() {
                writer.flush()?;
                return Err(Interrupted(args.going_on()).into());
            }
            let translated = match open.contains(&tile) {
                true => match maker.pyramid.tile(tile) {
                    Ok(made) => Some(made.tile),
                    // A tile that cannot be read is no reason to lose the others.
                    Err(error) => {
                        tracing::warn!("{tile}: {}", crate::exit::line(&error.into()));
                        failed.push(tile);
                        None
                    }
                },
                false if lower.count() > 0 => written(writer.as_ref(), tile, &args)?,
                false => None,
            };
            let new = translated.as_ref().filter(|_| open.contains(&tile)).map(|it| (tile, it.clone()));
            let above = if lower.count() > 0 { lower.add(tile, translated.as_ref()) } else { Vec::new() };
            for (tile, picture) in new.into_iter().chain(above) {
                if !writer.contains(tile)? {
                    writer.write(tile, &maker.encoded(tile, &picture)?)?;
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
fn written(writer: &dyn TileWriter, tile: Tile, args: &Args) -> Result<Option<TilePicture>> {
    let Some(encoded) = writer.read(tile)? else { return Ok(None) };
    let (picture, holes) = decode_with_holes(&encoded.bytes, writer.path(), &args.files.limits())?;
    Ok(Some(TilePicture { picture, holes }))
}

/// Makes tiles.
struct Maker<'a> {
    args: &'a Args,
    model: &'a EarthMapper,
    options: &'a GenerationOptions,
    pyramid: Pyramid<'a>,
}

impl Maker<'_> {
    /// Refuses tiles whose pixels are far larger or smaller than the model's.
    fn check_resolution(&self, tiles: &[Tile]) -> Result<()> {
        for zoom in tiles.chunk_by(|a, b| a.z() == b.z()) {
            let tile = zoom[zoom.len() / 2];
            let metres = tile.metres_per_pixel(self.pyramid.side(zoom));
            if !resolution::is_within_reason(resolution::ratio(self.model, metres)) && !self.args.force {
                let cure = format!(
                    "leave out zoom {} with --min-zoom or --max-zoom, or pass --force to translate the tiles as they are",
                    tile.z()
                );
                return Err(resolution::refusal(self.model, &self.args.source, metres, &cure).into());
            }
        }
        Ok(())
    }

    /// A tile's file, with its label.
    fn encoded(&self, tile: Tile, TilePicture { picture, holes }: &TilePicture) -> Result<Vec<u8>> {
        let task = format!("{} → {}", self.args.to.other(), self.args.to);
        let place = self.pyramid.place(tile, picture.width());
        let source = Some(self.args.source.as_path());
        let mut provenance =
            provenance(self.model, &task, self.args.generation.seed, source, place, self.options);
        provenance.extra.insert("tile".into(), tile.to_string());
        let options = WriteOptions { provenance: Some(provenance), ..Default::default() };
        Ok(encode_with_holes(TileFormat::Png.extension(), picture, holes, &options)?)
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

    /// The tiles of the source that are to be translated; when lower zooms are to be made from them, the lowest; and the
    /// ground of the whole source.
    fn chosen(&self, reader: &dyn TileReader) -> Result<(Vec<Tile>, Option<u8>, Option<BoundingBox>)> {
        let zooms = self.min_zoom.unwrap_or(0)..=self.max_zoom.unwrap_or(u8::MAX);
        let mut covers = std::collections::HashMap::new();
        let mut tiles = Vec::new();
        let all = reader.tiles()?;
        let ground = reader.metadata().clone().completed(&all).bounds;
        for tile in all.into_iter().filter(|tile| zooms.contains(&tile.z())) {
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
            return Ok((tiles, None, ground));
        }
        tiles.retain(|tile| tile.z() == deepest);
        Ok((tiles, Some(self.min_zoom.unwrap_or(lowest)), ground))
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
    maker.pyramid.prepare(&sample)?;
    let mut bytes = 0;
    for &tile in &sample {
        let made = maker.pyramid.tile(tile)?.tile;
        bytes += maker.encoded(tile, &made)?.len();
    }
    let per_tile = 1.0 / sample.len() as f64;
    let seconds = start.elapsed().as_secs_f64() * per_tile * tiles.len() as f64;
    let megabytes = bytes as f64 * per_tile * all as f64 / 1e6;
    let facts =
        json!({ "tiles": all, "seconds": seconds.round(), "megabytes": (megabytes * 10.0).round() / 10.0 });
    output.outputs(std::slice::from_ref(&args.output), true, facts)
}
