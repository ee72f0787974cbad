//! Draws a box of vector data as one picture.
//!
//! `cargo run --release -p earthmapper-geo --example draw_map -- florence.pmtiles 11.24,43.76,11.27,43.78 15 map.png`
//!
//! Features of GeoJSON whose properties say nothing are drawn as buildings.

use std::error::Error;
use std::time::Instant;

use earthmapper_geo::render::{Class, Renderer, Style, open_vectors};
use earthmapper_geo::{BoundingBox, WriteOptions, write_picture};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, bounds, zoom, output] = arguments.as_slice() else {
        return Err(
            "give a file of vector data, west,south,east,north, a zoom, and a picture to write".into()
        );
    };
    let renderer = Renderer::new(Style::clean(), open_vectors(source, Some(Class::Building))?);
    let bounds: BoundingBox = bounds.parse()?;
    let start = Instant::now();
    let picture = renderer.render_box(bounds, zoom.parse()?, 256)?;
    eprintln!("{picture:?} in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    if let Some(attribution) = renderer.source().attribution() {
        eprintln!("{attribution}");
    }
    write_picture(output, &picture, &WriteOptions::default())?;
    Ok(())
}
