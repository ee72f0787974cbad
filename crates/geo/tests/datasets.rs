//! Datasets: cut from every kind of source, resumed, read by training, checked, and every way in which input is bad.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use earthmapper_geo::dataset::{
    DatasetError, Filters, Grid, Limit, MANIFEST, MakeOptions, Manifest, MapError, MapSource, Problem,
    Progress, REJECTED, Registration, Report, Rule, SourceOptions, SourcePair, Split, SplitOptions, check,
    make, no_drawn_maps, split_dataset, stats,
};
use earthmapper_geo::picture::encode_picture;
use earthmapper_geo::raster::{AffineTransform, Epsg, GeoReference, RasterOptions, RasterWriter, Validity};
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, create_tiles};
use earthmapper_geo::{
    BoundingBox, Datum, LonLat, Mask, PairError, PairFolder, PairSelection, PairSource, Picture,
    PictureLimits, Tile, WriteOptions,
};

const ZOOM: u8 = 16;
const SIDE: u32 = 64;

fn on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Ground in colours that change slowly, by position in the world's width.
fn ground(x: f64, y: f64) -> [u8; 3] {
    let wave = |phase: f64| (120.0 + 60.0 * phase.sin()) as u8;
    let step = f64::from(1 << ZOOM);
    [wave(x * step * 5.0), wave(y * step * 4.0 + 1.0), wave((x + y) * step * 3.0)]
}

fn tile_of_ground(tile: Tile, side: u32, datum: Datum) -> Picture {
    Picture::drawn(side, side, |column, row| {
        let point = tile.point_at(f64::from(column) + 0.5, f64::from(row) + 0.5, side);
        let point = datum.convert(point, Datum::Wgs84);
        ground_at(point)
    })
}

fn ground_at(point: LonLat) -> [u8; 3] {
    let (tile, x, y) = Tile::pixel_at(point, ZOOM, 1).unwrap();
    let side = f64::from(1 << ZOOM);
    ground((f64::from(tile.x()) + x) / side, (f64::from(tile.y()) + y) / side)
}

/// A map of stripes that tell tiles apart.
fn stripes(tile: Tile, side: u32) -> Picture {
    Picture::drawn(side, side, |x, y| {
        let seed = tile.x().wrapping_mul(31) ^ tile.y().wrapping_mul(17);
        if (x / 8 + y / 16 + seed).is_multiple_of(3) {
            [250, 240, 230]
        } else {
            [160, (seed % 200) as u8, 150]
        }
    })
}

fn tiles(first: Tile, columns: u32, rows: u32) -> Vec<Tile> {
    let tile = |index: u32| Tile::new(first.z(), first.x() + index % columns, first.y() + index / columns);
    (0..columns * rows).map(|index| tile(index).unwrap()).collect()
}

fn store(path: &Path, tiles: &[Tile], picture: impl Fn(Tile) -> Picture) {
    let mut metadata = TileMetadata::new("test", TileFormat::Png);
    metadata.attribution = Some("© <b>someone</b>".to_owned());
    let mut writer = create_tiles(path, metadata, Existing::Refuse).unwrap();
    for tile in tiles {
        let png = encode_picture("png", &picture(*tile), &WriteOptions::default()).unwrap();
        writer.write(*tile, &png).unwrap();
    }
    writer.finish().unwrap();
}

fn place() -> Tile {
    Tile::at(LonLat::new(11.25, 43.77).unwrap(), ZOOM).unwrap()
}

fn options(imagery: &Path, map: &Path) -> MakeOptions {
    let source = SourcePair {
        name: "test".to_owned(),
        imagery: SourceOptions { licence: Some("CC0".to_owned()), ..SourceOptions::new(imagery) },
        map: SourceOptions::new(map),
        grid: Grid::Tiles { zooms: vec![], side: SIDE, metres_per_pixel: None },
        region: None,
    };
    let split = SplitOptions { block_zoom: 15, buffer_metres: 0.0, ..SplitOptions::default() };
    MakeOptions { filters: Filters::OFF, split, ..MakeOptions::new(source) }
}

/// A hundred tiles of imagery and map.
fn two_stores(folder: &Path) -> MakeOptions {
    let all = tiles(place(), 10, 10);
    store(&folder.join("imagery"), &all, |tile| tile_of_ground(tile, SIDE, Datum::Wgs84));
    store(&folder.join("map.mbtiles"), &all[..90], |tile| stripes(tile, SIDE));
    options(&folder.join("imagery"), &folder.join("map.mbtiles"))
}

fn made(folder: &Path, options: &MakeOptions) -> Result<Report, DatasetError> {
    make(folder, options, &no_drawn_maps, Existing::Continue, &mut on)
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The error, which must name a cure.
fn refused<T>(result: Result<T, DatasetError>) -> String {
    let Err(error) = result else { panic!("it was accepted") };
    let text = error.to_string();
    assert!(text.contains(';'), "{text}");
    text
}

#[test]
fn two_stores_give_their_common_tiles_unchanged_and_training_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("dataset");
    let report = made(&output, &two_stores(folder.path())).unwrap();
    assert_eq!((report.candidates, report.kept, report.rejected, report.unreadable), (90, 90, 0, 0));
    assert_eq!(report.splits.values().sum::<usize>() + report.between_splits, 90);
    assert!(report.splits.values().all(|count| *count > 0), "{report:?}");

    let manifest = Manifest::read(&output).unwrap();
    assert_eq!(manifest.header.sources[0].map.attribution.as_deref(), Some("© <b>someone</b>"));
    assert_eq!(manifest.header.sources[0].imagery.licence.as_deref(), Some("CC0"));
    let source = PairSource::Manifest { manifest: output.clone() };
    let pairs = PairFolder::open(&source, &PairSelection::default()).unwrap();
    assert_eq!(pairs.len(), 90);
    for index in [0, 45, 89] {
        let tile = manifest.pairs[index].tile.unwrap();
        let pair = pairs.read(index, &PictureLimits::default()).unwrap();
        assert_eq!(pair.satellite, tile_of_ground(tile, SIDE, Datum::Wgs84), "{tile}");
        assert_eq!(pair.map, stripes(tile, SIDE), "{tile}");
        let place = pairs.place(index).unwrap();
        assert_eq!(place.position(), tile.centre());
        assert_eq!(place.metres_per_pixel(), Some(tile.metres_per_pixel(SIDE)));
    }
    let selection = PairSelection { split: Some(Split::Test), ..PairSelection::default() };
    let test = PairFolder::open(&source, &selection).unwrap();
    assert_eq!(test.len(), report.splits[&Split::Test]);
    // A region of four tiles: each pair lies in it, or away from it, or touches its edge.
    let first = manifest.pairs[45].tile.unwrap();
    let second = Tile::new(first.z(), first.x() + 1, first.y() + 1).unwrap();
    let (west_north, east_south) = (first.bounds(), second.bounds());
    let region =
        BoundingBox::new(west_north.west(), east_south.south(), east_south.east(), west_north.north());
    let region = region.unwrap();
    let chosen = |selection: PairSelection| PairFolder::open(&source, &selection).unwrap();
    let names = |pairs: &PairFolder| (0..pairs.len()).map(|i| pairs.name(i).to_owned()).collect::<Vec<_>>();
    let inside = names(&chosen(PairSelection { inside: Some(region), ..Default::default() }));
    let outside = names(&chosen(PairSelection { outside: Some(region), ..Default::default() }));
    let is_near = |tile: Tile, reach: i64| {
        let apart = |a: u32, b: u32| i64::from(a) - i64::from(b);
        let (right, down) = (apart(tile.x(), first.x()), apart(tile.y(), first.y()));
        (-reach..=1 + reach).contains(&right) && (-reach..=1 + reach).contains(&down)
    };
    let of = |reach: i64, wanted: bool| -> Vec<String> {
        let records = manifest.pairs.iter().filter(|record| is_near(record.tile.unwrap(), reach) == wanted);
        records.map(|record| record.name.clone()).collect()
    };
    assert!(!inside.is_empty() && inside == of(0, true), "{inside:?}");
    assert_eq!(outside, of(1, false));
    let plain = PairSource::SideBySide { folder: output.join("pairs/00000"), order: Default::default() };
    let in_region = PairSelection { inside: Some(region), ..Default::default() };
    let error = PairFolder::open(&plain, &in_region).unwrap_err().to_string();
    assert!(error.contains("knows no places, so a region cannot be chosen"), "{error}");
    assert!(matches!(PairFolder::open(&plain, &selection), Err(PairError::NoManifest { .. })));
    assert!(PairFolder::open(&plain, &PairSelection::default()).unwrap().place(0).is_none());
    assert_eq!(check(&output, &mut on).unwrap(), []);

    let all = SplitOptions { validation: 0.0, test: 0.0, ..SplitOptions::default() };
    split_dataset(&output, &all).unwrap();
    let error = PairFolder::open(&source, &selection).unwrap_err().to_string();
    assert!(error.contains("of split test") && error.contains("found pairs: 90"), "{error}");
    assert_eq!(check(&output, &mut on).unwrap(), []);
}

#[test]
fn what_is_interrupted_goes_on_and_ends_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let options = two_stores(folder.path());
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    made(&whole, &options).unwrap();

    let mut calls = Vec::new();
    let mut stop = |progress: Progress| {
        calls.push(progress.done);
        if progress.done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let error = make(&parts, &options, &no_drawn_maps, Existing::Refuse, &mut stop).unwrap_err();
    assert!(
        error.to_string().ends_with("interrupted after 64 of 90 pairs; pass --resume to go on"),
        "{error}"
    );
    assert_eq!(calls, [0, 64]);
    assert!(!parts.join(MANIFEST).exists());
    assert!(refused(check(&parts, &mut on)).contains("is not finished"));
    // A pair that was written but not noted, and a line that broke off.
    let first = fs::metadata(parts.join("pairs/00000")).unwrap();
    let broken = fs::read_to_string(parts.join("making.jsonl")).unwrap() + "{\"kept\":{\"na";
    fs::write(parts.join("making.jsonl"), broken).unwrap();

    let other = MakeOptions { filters: Filters::default(), ..options.clone() };
    assert!(refused(made(&parts, &other)).contains("other options"));
    let mut began = None;
    let mut watch = |progress: Progress| {
        began.get_or_insert(progress.done);
        ControlFlow::Continue(())
    };
    let report = make(&parts, &options, &no_drawn_maps, Existing::Continue, &mut watch).unwrap();
    assert_eq!((report.kept, began), (90, Some(64)), "nothing is done twice");
    assert!(first.is_dir());
    assert_eq!(files(&parts), files(&whole));
    assert_eq!(made(&parts, &options).unwrap(), report, "a finished dataset is left alone");
    assert!(refused(made(&parts, &other)).contains("was made with other options"));
}

#[test]
fn shifted_coordinates_meet_on_the_same_ground() {
    let folder = tempfile::tempdir().unwrap();
    let first = Tile::at(LonLat::new(116.404, 39.915).unwrap(), ZOOM).unwrap();
    let all = tiles(first, 6, 6);
    for (name, datum) in [("wgs84", Datum::Wgs84), ("gcj02", Datum::Gcj02), ("bd09", Datum::Bd09)] {
        store(&folder.path().join(name), &all, |tile| tile_of_ground(tile, SIDE, datum));
    }
    for (imagery, map) in [("wgs84", Datum::Gcj02), ("gcj02", Datum::Wgs84), ("wgs84", Datum::Bd09)] {
        let mut options = options(&folder.path().join(imagery), &folder.path().join(map.to_string()));
        options.sources[0].imagery.datum = imagery.parse().unwrap();
        options.sources[0].map.datum = map;
        options.filters.holes = Limit::At(0.0);
        let output = folder.path().join(format!("{imagery}-{map}"));
        let report = made(&output, &options).unwrap();
        assert!(report.kept >= 9 && report.rules.contains_key(&Rule::Holes), "{report:?}");
        let pairs =
            PairFolder::open(&PairSource::Manifest { manifest: output.clone() }, &PairSelection::default());
        let pairs = pairs.unwrap();
        for index in 0..pairs.len() {
            let pair = pairs.read(index, &PictureLimits::default()).unwrap();
            let difference = |(left, right): (&u8, &u8)| u64::from(left.abs_diff(*right));
            let worst = pair.satellite.rgb().iter().zip(pair.map.rgb()).map(difference).max();
            assert!(worst <= Some(4), "{imagery} on {map}: {worst:?}");
            // The place is on the ground, whatever the tiles are counted in.
            let (x, y) = (SIDE / 2, SIDE / 2);
            let there = ground_at(pairs.place(index).unwrap().position());
            let here = pair.satellite.pixel(x, y);
            assert!((0..3).all(|channel| there[channel].abs_diff(here[channel]) <= 6), "{there:?} {here:?}");
        }
    }
}

/// A raster of the ground in UTM with a hole, and a map of the same grid twice as fine.
fn rasters(folder: &Path) -> MakeOptions {
    let write = |name: &str, size: u32, metres: f64, hole: bool| {
        let transform = AffineTransform::north_up((680_000.0, 4_850_000.0), (metres, metres));
        let reference = GeoReference::from_epsg(transform, Epsg(32632)).unwrap();
        let picture = Picture::drawn(size, size, |x, y| {
            let place = reference.place(f64::from(x) + 0.5, f64::from(y) + 0.5).unwrap();
            ground_at(place.position())
        });
        let mask = Mask::drawn(size, size, |x, y| hole && x < 20 && y < 20);
        let validity = if hole { Validity::Alpha } else { Validity::Everywhere };
        let options =
            RasterOptions { validity, georeference: Some(reference), ..RasterOptions::new(size, size) };
        let path = folder.join(name);
        let mut writer = RasterWriter::create(&path, options).unwrap();
        writer.write_rows(&picture, Some(&mask)).unwrap();
        writer.finish().unwrap();
        path
    };
    let (imagery, map) = (write("imagery.tif", 300, 5.0, true), write("map.tif", 600, 2.5, false));
    let mut options = options(&imagery, &map);
    options.filters.holes = Limit::At(0.01);
    options
}

#[test]
fn rasters_are_cut_along_themselves_or_along_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = rasters(folder.path());
    for (name, grid, side, (candidates, kept), metres) in [
        ("own", Grid::Own { side: 64, metres_per_pixel: None }, 64, (16, 8), 5.0),
        ("coarse", Grid::Own { side: 48, metres_per_pixel: Some(10.0) }, 48, (9, 8), 10.0),
        // 3.4 tiles a side fit, so that at least two by two are whole.
        ("tiles", Grid::Tiles { zooms: vec![], side: 64, metres_per_pixel: Some(6.0) }, 64, (0, 4), 6.9),
    ] {
        options.sources[0].grid = grid;
        let output = folder.path().join(name);
        let report = made(&output, &options).unwrap();
        assert!(candidates == 0 || report.candidates == candidates, "{name}: {report:?}");
        assert!(report.rules[&Rule::Holes] >= 1 && report.kept >= kept, "{name}: {report:?}");
        assert_eq!(check(&output, &mut on).unwrap(), [], "{name}");
        let manifest = Manifest::read(&output).unwrap();
        let pairs =
            PairFolder::open(&PairSource::Manifest { manifest: output }, &PairSelection::default()).unwrap();
        for (index, record) in manifest.pairs.iter().enumerate() {
            assert!(
                (record.metres_per_pixel / metres - 1.0).abs() < 0.02,
                "{name}: {}",
                record.metres_per_pixel
            );
            let pair = pairs.read(index, &PictureLimits::default()).unwrap();
            assert_eq!((pair.satellite.width(), record.side), (side, side));
            let there = ground_at(record.place);
            for picture in [&pair.satellite, &pair.map] {
                let here = picture.pixel(side / 2, side / 2);
                let near = (0..3).all(|channel| there[channel].abs_diff(here[channel]) <= 8);
                assert!(near, "{name} {}: {there:?} {here:?}", record.name);
            }
        }
    }
}

/// Blocks on a plane, to be registered: the imagery shows them some pixels beside the map.
fn blocks(x: f64, y: f64) -> bool {
    let (column, row) = ((x / 13.0).floor() as i64, (y / 11.0).floor() as i64);
    let seed = (column * 7919 + row * 104_729).rem_euclid(1009);
    let (inside_x, inside_y) = (x.rem_euclid(13.0), y.rem_euclid(11.0));
    seed % 3 != 0 && inside_x > (1 + seed % 4) as f64 && inside_y > (1 + seed % 5) as f64 && inside_x < 11.0
}

struct Blocks;

impl MapSource for Blocks {
    fn map(&self, tile: Tile, side: u32) -> Result<Option<Picture>, MapError> {
        if tile.x() % 10 == 9 {
            return Ok(None);
        }
        let corner = (f64::from(tile.x() % 100 * side), f64::from(tile.y() % 100 * side));
        Ok(Some(Picture::drawn(side, side, |x, y| {
            if blocks(corner.0 + f64::from(x), corner.1 + f64::from(y)) {
                [200, 190, 180]
            } else {
                [245, 242, 238]
            }
        })))
    }
}

#[test]
fn photographs_beside_their_map_are_found_and_moved() {
    let folder = tempfile::tempdir().unwrap();
    let first = Tile::new(ZOOM, 34_810, 23_910).unwrap();
    let side = 128;
    store(&folder.path().join("imagery"), &tiles(first, 5, 5), |tile| {
        let corner = (f64::from(tile.x() % 100 * side), f64::from(tile.y() % 100 * side));
        Picture::drawn(side, side, |x, y| {
            let grain = ((x * 31 + y * 57 + x * y) % 19) as u8;
            // Six pixels to the right of the map, four above it.
            if blocks(corner.0 + f64::from(x) - 6.0, corner.1 + f64::from(y) + 4.0) {
                [140 + grain, 120 + grain, 110 + grain]
            } else {
                [60 + grain, 80 + grain, 50 + grain]
            }
        })
    });
    let mut options = options(&folder.path().join("imagery"), Path::new("blocks.geojson"));
    options.sources[0].grid = Grid::Tiles { zooms: vec![ZOOM], side, metres_per_pixel: None };
    options.filters = Filters { shift: Limit::At(5.0), holes: Limit::At(0.0), ..Filters::OFF };
    let draw = |options: &SourceOptions| -> Result<Option<Box<dyn MapSource>>, MapError> {
        assert_eq!(options.path, Path::new("blocks.geojson"));
        Ok(Some(Box::new(Blocks)))
    };
    let run = |name: &str, options: &MakeOptions| {
        let output = folder.path().join(name);
        let report = make(&output, options, &draw, Existing::Refuse, &mut on).unwrap();
        (Manifest::read(&output).unwrap(), report)
    };
    let (_, report) = run("reported", &options);
    assert_eq!(report.candidates, 25);
    assert!(report.rules[&Rule::Misregistered] > 20, "{report:?}");

    options.registration = Registration::Correct;
    let (manifest, report) = run("corrected", &options);
    // Moved, pictures at the right and upper border miss a part.
    assert!(report.corrected >= 14 && report.rules.contains_key(&Rule::Holes), "{report:?}");
    assert!(manifest.pairs.iter().all(|pair| pair.measures.moved == Some([6, -4])), "{report:?}");
    let left = |pair: &earthmapper_geo::dataset::PairRecord| pair.measures.shift.unwrap().length();
    assert!(manifest.pairs.iter().all(|pair| left(pair) < 1.0));

    // Once known, the offset is an option.
    options.registration = Registration::Report;
    options.sources[0].imagery.offset = [6.0, -4.0];
    let (manifest, report) = run("offset", &options);
    assert!(report.kept >= 14 && !report.rules.contains_key(&Rule::Misregistered), "{report:?}");
    let (right, down, count) = report.shifts["test"];
    assert!(right.abs() < 0.5 && down.abs() < 0.5 && count >= 14, "{right} {down} {count}");
    assert!(manifest.pairs.iter().all(|pair| left(pair) < 1.0));
}

#[test]
fn rules_are_counted_and_duplicates_removed() {
    let folder = tempfile::tempdir().unwrap();
    let all = tiles(place(), 4, 4);
    store(&folder.path().join("imagery"), &all, |tile| {
        // Every tile of a row shows the same, but for the first row, which is white.
        let same = Tile::new(ZOOM, place().x(), tile.y()).unwrap();
        if tile.y() == place().y() {
            return Picture::filled(SIDE, SIDE, [255; 3]);
        }
        // With grain: a photograph has no flat squares, which would count as blank and as cloud.
        let flat = stripes(same, SIDE);
        let grain = |x: u32, y: u32| ((x * 37 + y * 71 + x * y * 13) % 40) as u8;
        Picture::drawn(SIDE, SIDE, |x, y| flat.pixel(x, y).map(|value| value / 2 + 2 * grain(x, y)))
    });
    store(&folder.path().join("map"), &all, |tile| match tile.x() == place().x() + 3 {
        true => Picture::filled(SIDE, SIDE, [240; 3]),
        false => stripes(tile, SIDE),
    });
    let mut options = options(&folder.path().join("imagery"), &folder.path().join("map"));
    options.filters = Filters { shift: Limit::Off, haze: Limit::Off, ..Filters::default() };
    let output = folder.path().join("dataset");
    let report = made(&output, &options).unwrap();
    assert_eq!((report.candidates, report.kept, report.rejected), (16, 3, 13), "{report:?}");
    assert_eq!(report.rules[&Rule::Blank], 4);
    assert_eq!(report.rules[&Rule::PlainMap], 4, "one of them is blank too");
    assert_eq!(report.rules[&Rule::NearDuplicate], 6);
    assert_eq!(fs::read_dir(output.join("pairs/00000")).unwrap().count(), 3);
    assert_eq!(fs::read_to_string(output.join(REJECTED)).unwrap().lines().count(), 13);
    assert_eq!(check(&output, &mut on).unwrap(), []);
}

#[test]
fn bad_sources_are_refused_with_a_cure() {
    let folder = tempfile::tempdir().unwrap();
    let (at, output) = (|name: &str| folder.path().join(name), folder.path().join("dataset"));
    let all = tiles(place(), 2, 2);
    store(&at("good"), &all, |tile| stripes(tile, SIDE));
    store(&at("elsewhere"), &tiles(Tile::new(ZOOM, 5, 5).unwrap(), 2, 2), |tile| stripes(tile, SIDE));
    fs::create_dir(at("empty")).unwrap();
    let with = |imagery: &str, map: &str| options(&at(imagery), &at(map));
    let run = |options: &MakeOptions| refused(made(&output, options));
    assert!(run(&with("empty", "good")).contains("empty: holds no tiles"));
    assert!(run(&with("good", "missing")).contains("missing: not found"));
    assert!(run(&with("good", "elsewhere")).contains("elsewhere: shows nothing of the ground of"));
    assert!(!output.exists(), "nothing is begun");

    // No place: a raster without georeference.
    let mut writer = RasterWriter::create(at("nowhere.tif"), RasterOptions::new(80, 80)).unwrap();
    writer.write_rows(&Picture::filled(80, 80, [9; 3]), None).unwrap();
    writer.finish().unwrap();
    assert!(run(&with("nowhere.tif", "good")).contains("nowhere.tif: is not georeferenced"));

    let mut own = with("good", "good");
    own.sources[0].grid = Grid::Own { side: 64, metres_per_pixel: None };
    assert!(run(&own).contains("grid.cut: is \"own\", which needs a raster"));
    let mut nameless = with("good", "good");
    nameless.sources[0].name = "../a".to_owned();
    assert!(run(&nameless).starts_with("sources.name: is \"../a\"; use"));
    let mut away = with("good", "good");
    away.sources[0].region = Some("0,0,1,1".parse().unwrap());
    assert!(run(&away).contains("none of 4 lies in 0,0,1,1"));

    let made_once = made(&output, &with("good", "good")).unwrap();
    assert_eq!(made_once.kept, 4);
    for (existing, problem) in
        [(Existing::Refuse, "already exists; pass --resume"), (Existing::Replace, "replaced")]
    {
        let again = make(&output, &with("good", "good"), &no_drawn_maps, existing, &mut on);
        assert!(refused(again).contains(problem));
    }
    assert!(
        refused(made(&at("good"), &with("good", "good"))).contains("is no dataset; choose another folder")
    );
    assert!(refused(made(&at("a/b"), &with("good", "good"))).contains("there is no folder"));
}

#[test]
fn unreadable_tiles_are_passed_over_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let all = tiles(place(), 4, 1);
    store(&folder.path().join("map"), &all, |tile| stripes(tile, SIDE));
    store(&folder.path().join("imagery"), &all, |tile| {
        let side = if tile == all[3] { 2 * SIDE } else { SIDE };
        tile_of_ground(tile, side, Datum::Wgs84)
    });
    let file = |tile: Tile| folder.path().join(format!("imagery/{tile}.png"));
    fs::write(file(all[0]), &fs::read(file(all[0])).unwrap()[..300]).unwrap();
    let options = options(&folder.path().join("imagery"), &folder.path().join("map"));
    let report = made(&folder.path().join("one"), &options).unwrap();
    assert_eq!((report.kept, report.unreadable), (3, 1), "a tile of twice the side is taken");
    let rejected = fs::read_to_string(folder.path().join("one").join(REJECTED)).unwrap();
    assert!(rejected.contains(&format!("tile {}", all[0])) && rejected.contains("damaged"), "{rejected}");

    let oblong = Picture::filled(SIDE, SIDE / 2, [9; 3]);
    fs::write(file(all[1]), encode_picture("png", &oblong, &WriteOptions::default()).unwrap()).unwrap();
    let error = refused(made(&folder.path().join("two"), &options));
    assert!(error.contains("2 pairs could not be read, more than the limit of 1; the first:"), "{error}");
}

#[test]
fn check_names_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("dataset");
    made(&output, &two_stores(folder.path())).unwrap();
    let mut manifest = Manifest::read(&output).unwrap();
    let file = |index: usize| manifest.pairs[index].path(&output);
    fs::remove_file(file(0)).unwrap();
    fs::write(file(1), "no picture").unwrap();
    let small = encode_picture("png", &Picture::filled(10, 5, [9; 3]), &WriteOptions::default()).unwrap();
    fs::write(file(2), &small).unwrap();
    fs::write(output.join("pairs/00000/extra.png"), &small).unwrap();
    // Neighbours of different splits, a scale that contradicts the ground, a source without credit.
    manifest.pairs.iter_mut().for_each(|pair| pair.split = Some(Split::Train));
    manifest.pairs[50].split = Some(Split::Test);
    manifest.pairs[3].metres_per_pixel *= 4.0;
    manifest.pairs[4].source = "unknown".to_owned();
    manifest.write(true).unwrap();
    let text = fs::read_to_string(output.join(MANIFEST)).unwrap();
    let line = text.lines().last().unwrap();
    let far = line.replace("\"latitude\":", "\"latitude\":1").replace(&manifest.pairs[89].name, "far");
    let outside = line.replace(&manifest.pairs[89].name, "out").replace("pairs/", "../pairs/");
    fs::write(output.join(MANIFEST), format!("{text}{line}\n{far}\n{outside}\nnonsense\n")).unwrap();

    let problems = check(&output, &mut on).unwrap();
    let texts: Vec<String> = problems.iter().map(Problem::to_string).collect();
    let all = texts.join("\n");
    for expected in [
        "is there twice",
        "is outside -90",
        "is no path inside the dataset",
        "line 95: is no pair",
        "is missing",
        "is not a picture",
        "has 10 × 5 pixels, not 128 × 64",
        "extra.png: is not in the manifest",
        "metres per pixel but",
        "source \"unknown\"",
        "(test) are less than 0 m apart",
    ] {
        assert!(all.contains(expected), "{expected} is missing in\n{all}");
    }
    assert!(texts.iter().all(|text| text.contains(';')), "{all}");
    let overlaps = problems.iter().filter(|problem| matches!(problem, Problem::Overlap { .. })).count();
    assert!((3..=8).contains(&overlaps), "the neighbours of one pair: {overlaps}");
    assert!(matches!(Manifest::read(&output), Err(DatasetError::Manifest { line: 92, .. })));

    for (text, problem) in
        [("", "is missing"), ("{}", "no \"format\""), ("{\"format\":2}", "format 2 is not read")]
    {
        fs::write(output.join(MANIFEST), text).unwrap();
        assert!(refused(Manifest::read(&output)).contains(problem), "{text}");
        assert_eq!(check(&output, &mut on).unwrap().len(), 1);
    }
}

#[test]
fn statistics_are_one_page_that_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("<i>dataset");
    let mut options = two_stores(folder.path());
    options.sources[0].imagery.attribution = Some("<script>alert(1)</script>".to_owned());
    made(&output, &options).unwrap();
    let found = stats(&output, &mut on).unwrap();
    assert_eq!(found, stats(output.join(MANIFEST), &mut on).unwrap());
    assert_eq!((found.sampled, found.sources["test"], found.zooms[&Some(ZOOM)]), (90, 90, 90));
    assert!((found.photographs.mean[0] - 120.0).abs() < 15.0, "{:?}", found.photographs);
    assert_eq!(found.alignment.as_ref().unwrap().1.len(), 12);
    let html = found.html();
    for part in [
        "&lt;script&gt;alert(1)",
        "<title>&lt;i&gt;dataset",
        "© &lt;b&gt;someone",
        "CC0",
        "data:image/png;base64,",
    ] {
        assert!(html.contains(part), "{part}");
    }
    for foreign in ["<script", "<i>dataset", "http://", "https://", "url(", "@import"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}
