//! `tile`: a pyramid of photographs into one of maps, or the other way.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use earthmapper::sampler::derive_seed;
use earthmapper::scene::WindowOptions;
use earthmapper::translator::Translator;
use earthmapper::windows::Setting;
use earthmapper_geo::picture::{decode_picture, encode_picture};
use earthmapper_geo::store::{
    Existing, StoreError, TileFormat, TileMetadata, TileReader, create_tiles, open_tiles,
};
use earthmapper_geo::{BoundingBox, Modality, Place, Tile, WriteOptions};
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::exit::{BadInput, Interrupted, SomeFailed, Usage};
use crate::settings::{
    FileArgs, GenerationArgs, ModelArgs, Output, check_modality, interrupt, print, provenance,
};

/// Translate map tiles: a folder z/x/y, an .mbtiles or a .pmtiles file
///
/// Every tile is translated by itself, with its own place where the model was trained with places; neighbours are not matched, so borders can show.
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

pub fn run(args: Args, output: &Output) -> Result<()> {
    if let (Some(low), Some(high)) = (args.min_zoom, args.max_zoom)
        && low > high
    {
        return Err(Usage(format!("--min-zoom {low} is above --max-zoom {high}")).into());
    }
    let reader = open_tiles(&args.source)?;
    let tiles = args.chosen(reader.as_ref())?;
    let model = args.model.load()?;
    check_modality(&model, args.to)?;
    check_modality(&model, args.to.other())?;
    let options = args.generation.options(model.generation.towards(args.to))?;
    let task = format!("{} → {}", args.to.other(), args.to);
    let made = |tile: Tile| -> Result<Vec<u8>> {
        let source = reader.read(tile)?.ok_or_else(|| BadInput(format!("{tile}: has vanished")))?;
        let name = args.source.join(format!("{tile}.{}", source.format.extension()));
        let picture = decode_picture(&source.bytes, &name, &args.files.limits())?;
        let place = match model.config.trained_on.places_known {
            true => Some(Place::new(tile.centre(), Some(tile.metres_per_pixel(picture.width())))?),
            false => None,
        };
        let parts = [u64::from(tile.z()), u64::from(tile.x()), u64::from(tile.y())];
        let seed = derive_seed(args.generation.seed, &parts);
        let setting = Setting { place, seed, options: &options };
        let windows = WindowOptions::default();
        let result =
            Translator::new(&model).translate(&picture, args.to, &setting, &windows, &mut |_, _| {})?;
        let provenance = provenance(&model, &task, seed, Some(&args.source), place, &options);
        let options = WriteOptions { provenance: Some(provenance), ..Default::default() };
        Ok(encode_picture(TileFormat::Png.extension(), &result[0].picture, &options)?)
    };
    if args.files.dry_run {
        args.check_output()?;
        return dry_run(&args, &tiles, made, output);
    }

    let existing = match (args.resume, args.files.overwrite) {
        (true, _) => Existing::Continue,
        (false, true) => Existing::Replace,
        (false, false) => Existing::Refuse,
    };
    let mut writer =
        create_tiles(&args.output, args.metadata(reader.metadata(), &model.config.name), existing)?;
    let interrupt = interrupt()?;
    let mut open = Vec::new();
    for tile in &tiles {
        if !writer.contains(*tile)? {
            open.push(*tile);
        }
    }
    let before = (tiles.len() - open.len()) as u64;
    let mut progress = Progress::start(output.progress(), "tiles", before, tiles.len() as u64);
    let mut failed = Vec::new();
    for (i, &tile) in open.iter().enumerate() {
        if interrupt.requested() {
            writer.flush()?;
            return Err(Interrupted(args.going_on()).into());
        }
        match made(tile) {
            Ok(bytes) => writer.write(tile, &bytes)?,
            // A tile that cannot be read is no reason to lose the others.
            Err(error) => {
                tracing::warn!("{tile}: {}", crate::exit::line(&error));
                failed.push(tile);
            }
        }
        progress.update(before + i as u64 + 1, 1, None);
    }
    progress.finish();
    writer.finish()?;
    if !failed.is_empty() {
        failed.iter().try_for_each(|tile| print(&format!("{tile}\n")))?;
        return Err(SomeFailed { failed: failed.len(), of: tiles.len() }.into());
    }
    let facts = json!({ "tiles": tiles.len(), "made": open.len() });
    output.outputs(std::slice::from_ref(&args.output), false, facts)
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

    /// The tiles of the source that are asked for.
    fn chosen(&self, reader: &dyn TileReader) -> Result<Vec<Tile>> {
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
        match tiles.is_empty() {
            true => Err(BadInput(format!(
                "{}: has no tile in this box and at these zooms; choose others",
                self.source.display()
            ))
            .into()),
            false => Ok(tiles),
        }
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
fn dry_run(
    args: &Args,
    tiles: &[Tile],
    made: impl Fn(Tile) -> Result<Vec<u8>>,
    output: &Output,
) -> Result<()> {
    let start = Instant::now();
    let bytes = made(tiles[tiles.len() / 2])?.len();
    let seconds = start.elapsed().as_secs_f64() * tiles.len() as f64;
    let megabytes = (bytes * tiles.len()) as f64 / 1e6;
    let facts = json!({ "tiles": tiles.len(), "seconds": seconds.round(), "megabytes": (megabytes * 10.0).round() / 10.0 });
    output.outputs(std::slice::from_ref(&args.output), true, facts)
}
