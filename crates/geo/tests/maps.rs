//! Maps from vector data: seams, copies of the world, overzoom, pyramids, and real data.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use earthmapper_geo::render::{
    Class, MapWindow, Pyramid, RenderError, Renderer, Style, VectorTiles, open_vectors, render_pyramid,
};
use earthmapper_geo::store::{Existing, TileFormat, create_tiles, open_tiles};
use earthmapper_geo::{Picture, PictureLimits, Tile, decode_picture};
use serde_json::{Value, json};

fn tile(text: &str) -> Tile {
    text.parse().unwrap()
}

fn feature(properties: Value, kind: &str, coordinates: Value) -> Value {
    json!({"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": coordinates}})
}

fn renderer(features: &[Value]) -> Renderer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made.geojson");
    let collection = json!({"type": "FeatureCollection", "features": features});
    fs::write(&path, collection.to_string()).unwrap();
    Renderer::new(Style::clean(), open_vectors(&path, Some(Class::Building)).unwrap())
}

/// A bent road of every class, a railway with dashes, lakes with islands and houses, around a corner of four tiles.
fn town() -> Renderer {
    let (east, north) = (11.25, 43.77);
    let place = |right: f64, up: f64| json!([east + right * 1e-4, north + up * 1e-4]);
    let mut features = Vec::new();
    let roads =
        ["motorway", "trunk_link", "primary", "secondary", "tertiary", "residential", "service", "footway"];
    for (index, highway) in roads.iter().enumerate() {
        let up = index as f64 * 60.0 - 240.0;
        let line: Vec<_> = (-40..40)
            .map(|step| place(f64::from(step) * 10.0, up + 30.0 * (f64::from(step) * 0.4).sin()))
            .collect();
        let bridge = if index % 3 == 0 { "yes" } else { "no" };
        features.push(feature(json!({"highway": highway, "bridge": bridge}), "LineString", json!(line)));
        let across = json!([place(up, -350.0), place(up + 35.5, 350.0)]);
        let tunnel = if index % 4 == 0 { "yes" } else { "no" };
        features.push(feature(json!({"highway": highway, "tunnel": tunnel}), "LineString", across));
    }
    features.push(feature(
        json!({"railway": "rail"}),
        "LineString",
        json!([place(-300.0, -300.0), place(311.0, 290.0)]),
    ));
    features.push(feature(
        json!({"waterway": "river"}),
        "LineString",
        json!([place(-300.0, 250.0), place(311.0, -290.0)]),
    ));
    for step in 0..40 {
        let (right, up) = (f64::from(step % 8) * 70.0 - 280.0, f64::from(step / 8) * 90.0 - 200.0);
        let ring = |side: f64| {
            let corners =
                [(-side, -side), (side, -side * 0.8), (side * 1.1, side), (-side, side), (-side, -side)];
            corners.map(|(x, y)| place(right + x, up + y))
        };
        let class = ["building", "water", "park", "school"][step as usize % 4];
        features.push(feature(json!({"class": class}), "Polygon", json!([ring(30.0), ring(11.0)])));
    }
    renderer(&features)
}

/// A block of 2 × 2 tiles drawn at once must equal the four tiles.
fn assert_seamless(renderer: &Renderer, upper_left: Tile, side: u32) {
    let (zoom, x, y) = (upper_left.z(), i64::from(upper_left.x()), u64::from(upper_left.y()));
    let (x, y) = (x * i64::from(side), y * u64::from(side));
    let window = MapWindow { zoom, tile_side: side, x, y, width: 2 * side, height: 2 * side };
    let whole = renderer.render_window(window).unwrap();
    for (right, down) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let one = Tile::new(zoom, upper_left.x() + right, upper_left.y() + down).unwrap();
        let apart = renderer.render(one, side).unwrap();
        assert_eq!(apart.rgb(), whole.crop(right * side, down * side, side, side).rgb(), "{one}");
    }
    // A window that is no tile is cut from the same map.
    let shifted = MapWindow { x: x + 37, y: y + 51, width: 101, height: side, ..window };
    assert_eq!(renderer.render_window(shifted).unwrap(), whole.crop(37, 51, 101, side));
}

fn colours(picture: &Picture) -> usize {
    let pixels: std::collections::HashSet<_> = picture.rgb().chunks(3).collect();
    pixels.len()
}

#[test]
fn tiles_fit_together_to_the_last_bit() {
    let renderer = town();
    for zoom in [10, 13, 14, 15, 16, 17, 18, 20, 24] {
        let at = Tile::at(earthmapper_geo::LonLat::new(11.25, 43.77).unwrap(), zoom).unwrap();
        assert_seamless(&renderer, at, 256);
    }
    let at = Tile::at(earthmapper_geo::LonLat::new(11.25, 43.77).unwrap(), 15).unwrap();
    assert_seamless(&renderer, at, 100);
    assert_seamless(&renderer, at, 512);
    assert!(colours(&renderer.render(at, 256).unwrap()) > 50, "there is something to see");
}

#[test]
fn a_second_drawing_is_the_same() {
    let (first, second) = (town(), town());
    let at = Tile::at(earthmapper_geo::LonLat::new(11.25, 43.77).unwrap(), 16).unwrap();
    assert_eq!(first.render(at, 256).unwrap(), second.render(at, 256).unwrap());
}

#[test]
fn holes_show_the_land() {
    let rings = json!([
        [[-90, -45], [90, -45], [90, 45], [-90, 45], [-90, -45]],
        [[-30, -15], [30, -15], [30, 15], [-30, 15], [-30, -15]]
    ]);
    let renderer = renderer(&[feature(json!({"class": "water"}), "Polygon", rings)]);
    let world = renderer.render(tile("0/0/0"), 256).unwrap();
    assert_eq!(world.pixel(128, 128), renderer.style().land());
    assert_ne!(world.pixel(80, 128), renderer.style().land());
    assert_eq!(world.pixel(10, 128), renderer.style().land());
}

#[test]
fn lines_go_over_the_antimeridian_and_areas_reach_the_poles() {
    let renderer = renderer(&[
        feature(json!({"class": "motorway"}), "LineString", json!([[170, 0.1], [-170, 0.1]])),
        feature(
            json!({"class": "ice"}),
            "Polygon",
            json!([[[-180, -90], [180, -90], [180, -80], [-180, -80], [-180, -90]]]),
        ),
    ]);
    let land = renderer.style().land();
    let (east, west) =
        (renderer.render(tile("5/31/15"), 256).unwrap(), renderer.render(tile("5/0/15"), 256).unwrap());
    assert_ne!(east.pixel(250, 253), land);
    assert_ne!(west.pixel(5, 253), land);
    assert_eq!(
        renderer.render(tile("5/16/15"), 256).unwrap(),
        Picture::filled(256, 256, land),
        "not the long way round"
    );
    let south = renderer.render(tile("5/7/31"), 256).unwrap();
    assert_ne!(south.pixel(128, 255), land);
    // Windows go on beyond the antimeridian.
    let window = MapWindow { zoom: 5, tile_side: 256, x: 31 * 256, y: 15 * 256, width: 512, height: 256 };
    assert_eq!(renderer.render_window(window).unwrap(), Picture::hconcat(&[&east, &west]));
    let window = MapWindow { x: -256, ..window };
    assert_eq!(renderer.render_window(window).unwrap(), Picture::hconcat(&[&east, &west]));
    let box_of = renderer.render_box("168.75,0,-168.75,11.178401873711792".parse().unwrap(), 5, 256).unwrap();
    assert_eq!(box_of, Picture::hconcat(&[&east, &west]));
}

#[test]
fn impossible_windows_are_refused() {
    let renderer = renderer(&[]);
    let window = MapWindow { zoom: 3, tile_side: 256, x: 0, y: 0, width: 10, height: 10 };
    assert_eq!(renderer.render_window(window).unwrap(), Picture::filled(10, 10, renderer.style().land()));
    for (window, part) in [
        (MapWindow { width: 0, ..window }, "a map of 0 × 10 pixels"),
        (MapWindow { height: 5000, ..window }, "use 1 … 4096"),
        (MapWindow { tile_side: 0, ..window }, "use 1 … 2048"),
        (MapWindow { tile_side: 4096, ..window }, "use 1 … 2048"),
        (MapWindow { zoom: 31, ..window }, "zoom 31 is too deep"),
        (
            MapWindow { y: 2040, ..window },
            "rows 2040 … 2049 reach outside the map of zoom 3; its rows are 0 … 2047",
        ),
        (MapWindow { y: u64::MAX, ..window }, "reach outside"),
    ] {
        let message = renderer.render_window(window).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let everywhere = MapWindow { x: i64::MIN, ..window };
    assert!(renderer.render_window(everywhere).is_ok());
    assert!(renderer.render_window(MapWindow { zoom: 0, width: 4096, ..window }).is_ok());
    assert!(renderer.render_box(earthmapper_geo::BoundingBox::WORLD, 9, 256).is_err());
    assert_eq!(renderer.render_box(earthmapper_geo::BoundingBox::WORLD, 2, 256).unwrap().width(), 1024);
}

#[test]
fn pyramids_are_written_stopped_and_continued() {
    let folder = tempfile::tempdir().unwrap();
    let renderer = town();
    let pyramid =
        Pyramid { bounds: "11.23,43.76,11.27,43.78".parse().unwrap(), zooms: 12..=15, tile_side: 64 };
    let mut contents = Vec::new();
    for name in ["tiles", "tiles.mbtiles", "tiles.pmtiles"] {
        let path = folder.path().join(name);
        let metadata = renderer.metadata("Town", TileFormat::Png);
        let mut writer = create_tiles(&path, metadata.clone(), Existing::Refuse).unwrap();
        let mut seen = Vec::new();
        let mut stop = |progress| {
            seen.push(progress);
            ControlFlow::Break(())
        };
        let stopped = render_pyramid(&renderer, &pyramid, writer.as_mut(), &mut stop).unwrap();
        assert_eq!(seen, [stopped]);
        assert!(stopped.written > 0 && !stopped.is_complete());
        let mut go_on = |_| ControlFlow::Continue(());
        let done = render_pyramid(&renderer, &pyramid, writer.as_mut(), &mut go_on).unwrap();
        assert!(done.is_complete());
        assert_eq!((done.skipped, done.total), (stopped.written, stopped.total));
        writer.finish().unwrap();
        let reader = open_tiles(&path).unwrap();
        let tiles = reader.tiles().unwrap();
        assert_eq!(tiles.len() as u64, done.total);
        contents
            .push(tiles.iter().map(|tile| reader.read(*tile).unwrap().unwrap().bytes).collect::<Vec<_>>());
        let at = tiles[tiles.len() / 2];
        let bytes = reader.read(at).unwrap().unwrap().bytes;
        let picture = decode_picture(&bytes, Path::new("tile"), &PictureLimits::default()).unwrap();
        assert_eq!(picture, renderer.render(at, 64).unwrap());
    }
    assert!(contents.windows(2).all(|pair| pair[0] == pair[1]), "the kind of store makes no difference");
}

#[test]
fn other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = open_vectors(&path, None).err().expect(name);
        assert!(error.is_bad_input(), "{error}");
        let message = error.to_string();
        assert!(message.starts_with(&path.display().to_string()) && message.contains(';'), "{message}");
        message
    };
    assert!(
        refused("map.shp", b"").contains("give a file ending in .pmtiles, .mbtiles, .geojson or .osm.pbf")
    );
    assert!(refused("map.pmtiles", b"PMTiles\x03").contains("is damaged"));
    assert!(refused("map.osm.pbf", b"\0\0\0\x05").contains("ends too early"));
    assert!(refused("map.geojson", b"{}").contains("it is no GeoJSON"));
    let missing = open_vectors(folder.path().join("none.geojson"), None).err().unwrap();
    assert!(missing.is_bad_input() && missing.to_string().contains("check the name"), "{missing}");
    let pictures = folder.path().join("pictures.pmtiles");
    let mut writer =
        create_tiles(&pictures, town().metadata("Pictures", TileFormat::Png), Existing::Refuse).unwrap();
    writer.write(tile("0/0/0"), b"\x89PNG\r\n\x1A\n").unwrap();
    writer.finish().unwrap();
    let error = VectorTiles::open(&pictures).err().unwrap();
    assert!(error.to_string().contains("pictures, not vector tiles"), "{error}");
}

/// Real data, where they are at hand: `$EARTHMAPPER_DATA`, else `../shared/data` beside the repository.
fn real(name: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let data = std::env::var_os("EARTHMAPPER_DATA").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let path = data.join(name);
    if !path.exists() {
        println!("skipped: {} is not there; set EARTHMAPPER_DATA to draw real data", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn florence_fits_together() {
    let Some(path) = real("vector/protomaps_firenze.pmtiles") else { return };
    let renderer = Renderer::new(Style::clean(), open_vectors(path, None).unwrap());
    let attribution = renderer.metadata("Florence", TileFormat::Png).attribution.unwrap();
    assert!(attribution.contains("OpenStreetMap"), "{attribution}");
    // The archive ends at zoom 14: of deeper zooms some blocks lie across its tiles, others inside.
    for upper_left in [
        "11/1087/746",
        "13/4350/2986",
        "14/8702/5974",
        "15/17405/11949",
        "15/17404/11948",
        "17/69621/47797",
        "19/278487/191191",
    ] {
        assert_seamless(&renderer, tile(upper_left), 256);
    }
    assert_seamless(&renderer, tile("14/8702/5974"), 512);
    let picture = renderer.render(tile("14/8703/5974"), 256).unwrap();
    assert!(colours(&picture) > 200, "{} colours", colours(&picture));
}

#[test]
fn kampala_has_its_buildings() {
    let Some(path) = real("openaerialmap/kampala/labels.geojson") else { return };
    let renderer = Renderer::new(Style::clean(), open_vectors(path, Some(Class::Building)).unwrap());
    let bounds = renderer.source().bounds().unwrap();
    let at = Tile::at(bounds.centre(), 17).unwrap();
    assert_seamless(&renderer, at, 256);
    let built =
        |picture: &Picture| picture.rgb().chunks(3).filter(|pixel| *pixel == [0xDC, 0xD6, 0xCB]).count();
    let found: usize =
        bounds.tiles(17).unwrap().iter().map(|tile| built(&renderer.render(tile, 256).unwrap())).sum();
    assert!(found > 1_000, "{found} pixels of buildings");
}

#[test]
fn errors_of_a_source_end_a_pyramid() {
    let Some(path) = real("vector/protomaps_firenze.pmtiles") else { return };
    let bytes = fs::read(path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.pmtiles");
    // Tiles are packed by gzip; a changed byte in their midst spoils one.
    let mut changed = bytes.clone();
    let middle = bytes.len() - 1_000_000;
    changed[middle..middle + 2_000].fill(0x55);
    fs::write(&broken, changed).unwrap();
    let renderer = Renderer::new(Style::clean(), open_vectors(&broken, None).unwrap());
    let pyramid = Pyramid { bounds: renderer.source().bounds().unwrap(), zooms: 14..=14, tile_side: 16 };
    let mut writer =
        create_tiles(folder.path().join("out"), renderer.metadata("Out", TileFormat::Png), Existing::Refuse)
            .unwrap();
    let error =
        render_pyramid(&renderer, &pyramid, writer.as_mut(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(
        error.is_bad_input() && matches!(error, RenderError::Store(_) | RenderError::BadTile { .. }),
        "{error}"
    );
}
