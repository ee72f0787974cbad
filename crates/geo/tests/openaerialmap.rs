//! A dataset of real drone pictures, split by the zoom-19 tiles that the pyramid stands on. Page and sheets are left in
//! the system's folder for temporary files, to be looked at.

use std::env;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use earthmapper_geo::dataset::{
    Filters, Grid, Limit, MakeOptions, Manifest, Rule, SourceOptions, SourcePair, SplitOptions, check,
    drawn_maps, make, stats,
};
use earthmapper_geo::render::Class;
use earthmapper_geo::store::Existing;
use earthmapper_geo::{Picture, WriteOptions, write_picture};

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
            class: Some(Class::Building),
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
    let mut on = |_| ControlFlow::Continue(());
    let report = make(&output, &options, &drawn_maps, Existing::Refuse, &mut on).unwrap();
    eprintln!("{report:#?}");
    // Of 147 and 966 tiles, those that lie within the bounds of the labels.
    assert_eq!(report.candidates, 1097);
    assert!(report.kept > 400 && report.unreadable == 0);
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
