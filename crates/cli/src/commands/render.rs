//! `render`: a map pyramid out of vector data.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Result;
use earthmapper_geo::BoundingBox;
use earthmapper_geo::render::{Class, Pyramid, Renderer, Style, open_vectors, render_pyramid};
use earthmapper_geo::store::{Existing, TileFormat, create_tiles};
use earthmapper_lab::progress::Progress;
use serde_json::json;

use crate::exit::{BadInput, Interrupted, Usage};
use crate::settings::{Output, interrupt};

/// Draw vector data as map tiles: vector tiles, GeoJSON or OpenStreetMap's .pbf
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The vector data: .pmtiles, .mbtiles, .geojson or .osm.pbf.
    source: PathBuf,
    /// Where the tiles go: a folder, .mbtiles or .pmtiles.
    output: PathBuf,
    /// Only tiles that touch this box, in degrees: west,south,east,north [default: what the data cover].
    #[arg(long, value_name = "W,S,E,N", allow_hyphen_values = true, env = "EARTHMAPPER_BBOX")]
    bbox: Option<BoundingBox>,
    /// Lowest zoom.
    #[arg(long, env = "EARTHMAPPER_MIN_ZOOM")]
    min_zoom: u8,
    /// Deepest zoom.
    #[arg(long, env = "EARTHMAPPER_MAX_ZOOM")]
    max_zoom: u8,
    /// Side of a tile in pixels.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=2048), env = "EARTHMAPPER_TILE_SIDE")]
    tile_side: u32,
    /// A style (TOML; docs/formats.md) instead of the built-in one.
    #[arg(long, value_name = "FILE", env = "EARTHMAPPER_STYLE")]
    style: Option<PathBuf>,
    /// The class of features of GeoJSON whose properties say nothing, such as building.
    #[arg(long, value_parser = class, env = "EARTHMAPPER_CLASS")]
    class: Option<Class>,
    /// Go on where an interrupted run stopped: tiles that are there are not drawn again.
    #[arg(long, conflicts_with = "overwrite", value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_RESUME")]
    resume: bool,
    /// Replace an output that exists.
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), env = "EARTHMAPPER_OVERWRITE")]
    overwrite: bool,
}

fn class(text: &str) -> Result<Class, String> {
    Class::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Class::ALL.iter().map(|class| class.name()).collect();
        format!("must be one of {}", names.join(", "))
    })
}

pub fn run(args: Args, output: &Output) -> Result<()> {
    if args.min_zoom > args.max_zoom {
        let text = format!("--min-zoom {} is above --max-zoom {}", args.min_zoom, args.max_zoom);
        return Err(Usage(text).into());
    }
    let style = match &args.style {
        Some(path) => Style::read(path)?,
        None => Style::clean(),
    };
    let renderer = Renderer::new(style, open_vectors(&args.source, args.class)?);
    let bounds = args.bbox.or_else(|| renderer.source().bounds()).ok_or_else(|| {
        BadInput(format!("{}: does not say what it covers; give --bbox W,S,E,N", args.source.display()))
    })?;
    let pyramid = Pyramid { bounds, zooms: args.min_zoom..=args.max_zoom, tile_side: args.tile_side };
    let existing = match (args.resume, args.overwrite) {
        (true, _) => Existing::Continue,
        (false, true) => Existing::Replace,
        (false, false) => Existing::Refuse,
    };
    let name = args.source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let metadata = renderer.metadata(name, TileFormat::Png);
    let mut writer = create_tiles(&args.output, metadata, existing)?;
    let interrupt = interrupt()?;
    let mut bar: Option<Progress> = None;
    let mut before = 0;
    let done = render_pyramid(&renderer, &pyramid, writer.as_mut(), &mut |now| {
        let bar =
            bar.get_or_insert_with(|| Progress::start(output.progress(), "tiles", now.skipped, now.total));
        bar.update(now.written + now.skipped, now.written - before, None);
        before = now.written;
        if interrupt.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if !done.is_complete() {
        writer.flush()?;
        return Err(
            Interrupted("the tiles so far are kept (not in a .pmtiles file), go on with --resume").into()
        );
    }
    if let Some(bar) = bar {
        bar.finish();
    }
    writer.finish()?;
    let facts = json!({ "tiles": done.total, "made": done.written });
    output.outputs(std::slice::from_ref(&args.output), false, facts)
}
