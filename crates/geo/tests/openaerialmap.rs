//! A dataset of real drone pictures, split by the zoom-19 tiles that the pyramid stands on. Page and sheets are left in
//! the system's folder for temporary files, to be looked at.

use std::env;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use earthmapper_geo::dataset::{
    Filters, Grid, Limit, MakeOptions, Manifest, MapError, MapSource, Rule, SourceOptions, SourcePair,
    SplitOptions, check, make, stats,
};
use earthmapper_geo::store::Existing;
use earthmapper_geo::{Picture, Tile, WriteOptions, write_picture};
use serde_json::Value;

/// Fills the polygons of a GeoJSON file: enough of a map to test with.
struct Buildings {
    /// Rings of longitude and latitude.
    polygons: Vec<Vec<(f64, f64)>>,
}

impl Buildings {
    fn open(path: &Path) -> Result<Self, MapError> {
        let document: Value = serde_json::from_slice(&fs::read(path)?)?;
        let features = document["features"].as_array().ok_or("no features")?;
        let ring = |feature: &Value| {
            let points = feature["geometry"]["coordinates"][0].as_array()?;
            points.iter().map(|point| Some((point[0].as_f64()?, point[1].as_f64()?))).collect()
        };
        Ok(Self { polygons: features.iter().filter_map(ring).collect() })
    }
}

impl MapSource for Buildings {
    fn map(&self, tile: Tile, side: u32) -> Result<Option<Picture>, MapError> {
        let bounds = tile.bounds();
        let pixel = |(longitude, latitude): (f64, f64)| {
            // Straight in degrees, which is right to a thousandth of a pixel within such a small tile.
            let x = (longitude - bounds.west()) / bounds.width();
            let y = (bounds.north() - latitude) / (bounds.north() - bounds.south());
            (x * f64::from(side), y * f64::from(side))
        };
        let mut picture = Picture::filled(side, side, [242, 239, 233]);
        for polygon in &self.polygons {
            let corners: Vec<(f64, f64)> = polygon.iter().map(|point| pixel(*point)).collect();
            let least = |axis: fn(&(f64, f64)) -> f64| corners.iter().map(axis).fold(f64::INFINITY, f64::min);
            let most =
                |axis: fn(&(f64, f64)) -> f64| corners.iter().map(axis).fold(f64::NEG_INFINITY, f64::max);
            let rows = least(|corner| corner.1).max(0.0) as u32
                ..(most(|corner| corner.1).max(0.0) as u32 + 1).min(side);
            let columns = least(|corner| corner.0).max(0.0) as u32
                ..(most(|corner| corner.0).max(0.0) as u32 + 1).min(side);
            for y in rows {
                for x in columns.clone() {
                    if is_inside(&corners, f64::from(x) + 0.5, f64::from(y) + 0.5) {
                        picture.set_pixel(x, y, [197, 170, 160]);
                    }
                }
            }
        }
        Ok(Some(picture))
    }
}

/// Whether a ray to the right crosses the ring an odd number of times.
fn is_inside(ring: &[(f64, f64)], x: f64, y: f64) -> bool {
    let edges = ring.iter().zip(ring.iter().cycle().skip(1));
    let crosses = |(from, to): &(&(f64, f64), &(f64, f64))| {
        (from.1 > y) != (to.1 > y) && x < from.0 + (y - from.1) / (to.1 - from.1) * (to.0 - from.0)
    };
    edges.filter(crosses).count() % 2 == 1
}

#[test]
fn drone_pictures_of_two_cities_become_a_dataset() {
    let data =
        env::var_os("EARTHMAPPER_DATA").map_or_else(|| PathBuf::from("../../../shared/data"), PathBuf::from);
    let data = data.join("openaerialmap");
    if !data.is_dir() {
        eprintln!("skipped: no {}; set EARTHMAPPER_DATA", data.display());
        return;
    }
    let city = |name: &str| SourcePair {
        name: name.to_owned(),
        imagery: SourceOptions {
            pattern: Some("OAM-{x}-{y}-{z}".parse().unwrap()),
            attribution: Some("OpenAerialMap contributors".to_owned()),
            licence: Some("CC BY 4.0".to_owned()),
            ..SourceOptions::new(data.join(name))
        },
        map: SourceOptions {
            attribution: Some("© OpenStreetMap contributors".to_owned()),
            licence: Some("ODbL 1.0".to_owned()),
            ..SourceOptions::new(data.join(name).join("labels.geojson"))
        },
        grid: Grid::default(),
        region: None,
    };
    let options = MakeOptions {
        sources: vec![city("kampala"), city("zanzibar")],
        // The map knows buildings only: without one, it is plain.
        filters: Filters { map_deviation: Limit::At(4.0), ..Filters::default() },
        split: SplitOptions {
            block_zoom: 19,
            buffer_metres: 10.0,
            validation: 0.15,
            test: 0.15,
            ..Default::default()
        },
        ..MakeOptions::new(city("kampala"))
    };
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("openaerialmap");
    let draw = |options: &SourceOptions| -> Result<Option<Box<dyn MapSource>>, MapError> {
        Ok(Some(Box::new(Buildings::open(&options.path)?)))
    };
    let mut on = |_| ControlFlow::Continue(());
    let report = make(&output, &options, &draw, Existing::Refuse, &mut on).unwrap();
    eprintln!("{report:#?}");
    assert_eq!(report.candidates, 147 + 966);
    assert!(report.kept > 250 && report.unreadable == 0);
    assert!(report.rules[&Rule::Holes] > 0 && report.splits.values().all(|count| *count > 0));
    assert_eq!(check(&output, &mut on).unwrap(), []);
    let rejected = fs::read_to_string(output.join("rejected.jsonl")).unwrap();
    let manifest = Manifest::read(&output).unwrap();

    let look = env::temp_dir().join("earthmapper-openaerialmap");
    fs::create_dir_all(&look).unwrap();
    let found = stats(&output, &mut on).unwrap();
    let write = |name: &str, picture: &Picture| {
        let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
        write_picture(look.join(name), picture, &options).unwrap();
    };
    write("contact.png", &found.contact.as_ref().unwrap().0);
    write("alignment.png", &found.alignment.as_ref().unwrap().0);
    write("world.png", &found.world);
    for (name, picture) in &found.grounds {
        write(&format!("ground-{name}.png"), picture);
    }
    fs::write(look.join("index.html"), found.html()).unwrap();
    fs::write(look.join("rejected.jsonl"), rejected).unwrap();
    fs::copy(output.join("manifest.jsonl"), look.join("manifest.jsonl")).unwrap();
    assert_eq!(manifest.pairs.len(), report.kept);
    eprintln!("look at {}", look.display());
}
