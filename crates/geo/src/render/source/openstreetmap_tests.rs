use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use prost::Message;

use super::super::super::feature::{Shape, signed_area};
use super::super::blocks::{Blob, BlobHeader, DenseNodes, Group, HeaderBlock, Words};
use super::*;

/// A file from packed or plain blocks.
fn file(blocks: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, block) in blocks {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(block).unwrap();
        let blob = Blob { raw: None, zlib: Some(packed.finish().unwrap()) }.encode_to_vec();
        let header = BlobHeader { kind: (*kind).to_owned(), size: blob.len() as i32 }.encode_to_vec();
        bytes.extend((header.len() as u32).to_be_bytes());
        bytes.extend([header, blob].concat());
    }
    bytes
}

fn header(feature: &str) -> Vec<u8> {
    let required_features = vec!["OsmSchema-V0.6".to_owned(), feature.to_owned()];
    HeaderBlock { required_features }.encode_to_vec()
}

const WORDS: [&str; 12] = [
    "",
    "highway",
    "primary",
    "type",
    "multipolygon",
    "natural",
    "water",
    "outer",
    "inner",
    "building",
    "yes",
    "bridge",
];

fn words(found: &[&str]) -> Vec<u32> {
    found.iter().map(|word| WORDS.iter().position(|known| known == word).unwrap() as u32).collect()
}

fn steps(values: &[i64]) -> Vec<i64> {
    let before = std::iter::once(0).chain(values.iter().copied());
    values.iter().zip(before).map(|(value, before)| value - before).collect()
}

fn way(id: i64, keys: &[&str], values: &[&str], nodes: &[i64]) -> Way {
    Way { id, keys: words(keys), values: words(values), nodes: steps(nodes) }
}

/// A lake of two ways with a square island, a building, and a road with a node that is missing.
fn block() -> Block {
    // Nodes 1 … 4 are a square of a tenth of a degree, 5 … 8 one of half the side in its middle.
    let places = [(0, 0), (0, 100), (100, 100), (100, 0), (25, 25), (25, 75), (75, 75), (75, 25)];
    let column = |of: fn(&(i64, i64)) -> i64| {
        steps(&places.iter().map(|place| of(place) * 10_000).collect::<Vec<_>>())
    };
    let dense = DenseNodes {
        ids: steps(&[1, 2, 3, 4, 5, 6, 7, 8]),
        longitudes: column(|place| place.0),
        latitudes: column(|place| place.1),
    };
    let ways = vec![
        way(10, &[], &[], &[1, 2, 3]),
        way(11, &[], &[], &[1, 4, 3]),
        way(12, &["building"], &["yes"], &[5, 6, 7, 8, 5]),
        way(13, &["highway", "bridge"], &["primary", "yes"], &[1, 99, 3]),
        way(14, &["highway"], &["outer"], &[1, 2]),
    ];
    let lake = Relation {
        id: 20,
        keys: words(&["type", "natural"]),
        values: words(&["multipolygon", "water"]),
        roles: words(&["outer", "outer", "inner"]).into_iter().map(|word| word as i32).collect(),
        members: steps(&[10, 11, 12]),
        kinds: vec![WAY; 3],
    };
    Block {
        words: Some(Words {
            words: WORDS.iter().map(|word| bytes::Bytes::from_static(word.as_bytes())).collect(),
        }),
        groups: vec![
            Group { dense: Some(dense), ..Default::default() },
            Group { ways, ..Default::default() },
            Group { relations: vec![lake], ..Default::default() },
        ],
        granularity: None,
        latitude_offset: Some(43_000_000_000),
        longitude_offset: Some(11_000_000_000),
    }
}

fn open(bytes: &[u8]) -> Result<OpenStreetMap, RenderError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("florence.osm.pbf");
    fs::write(&path, bytes).unwrap();
    OpenStreetMap::open(path)
}

fn refused(bytes: &[u8]) -> String {
    let error = open(bytes).err().expect("it is broken");
    assert!(error.is_bad_input(), "{error}");
    error.to_string()
}

#[test]
fn ways_and_multipolygons_are_read() {
    let bytes = file(&[
        ("OSMHeader", header("DenseNodes")),
        ("Other", vec![1]),
        ("OSMData", block().encode_to_vec()),
    ]);
    let source = open(&bytes).unwrap();
    assert_eq!(source.attribution(), Some("© OpenStreetMap contributors"));
    let bounds = source.bounds().unwrap();
    assert!((bounds.west() - 11.0).abs() < 1e-9 && (bounds.north() - 43.1).abs() < 1e-9, "{bounds}");
    let mut found = Vec::new();
    let world = WorldBox { min: [0.0; 2], max: [1.0; 2] };
    source
        .visit(&world, 14, &mut |feature, worlds| {
            if worlds == 0.0 {
                found.push(feature.clone())
            }
        })
        .unwrap();
    found.sort_by_key(|feature| feature.class);
    let classes: Vec<_> = found.iter().map(|feature| (feature.class, feature.level)).collect();
    assert_eq!(
        classes,
        [(Class::Water, Level::Ground), (Class::Building, Level::Ground), (Class::Primary, Level::Bridge)]
    );
    let Shape::Area { rings, .. } = &found[0].shape else { panic!("a lake is an area") };
    let areas: Vec<f64> = rings.iter().map(|ring| signed_area(ring)).collect();
    assert!(areas[0] > 0.0 && (areas[1] / areas[0] + 0.25).abs() < 1e-3, "{areas:?}");
    let Shape::Lines(lines) = &found[2].shape else { panic!("a road is a line") };
    assert_eq!(lines[0].len(), 2, "the node that is not there is left out");
}

#[test]
fn broken_files_are_named() {
    let whole = file(&[("OSMHeader", header("DenseNodes")), ("OSMData", block().encode_to_vec())]);
    assert!(refused(b"").contains("ends too early"));
    assert!(refused(b"<osm></osm>").contains("does not begin as .osm.pbf"));
    assert!(refused(&whole[..whole.len() - 1]).contains("ends too early"));
    assert!(refused(&[0; 40]).contains("does not begin as .osm.pbf"));
    let history = file(&[("OSMHeader", header("HistoricalInformation"))]);
    assert!(
        refused(&history).contains("HistoricalInformation, which is not supported; give a plain extract")
    );
    for length in 0..whole.len() {
        let _ = open(&whole[..length]);
        let mut changed = whole.clone();
        changed[length] ^= 0x55;
        let _ = open(&changed);
    }
    // The block itself, not only its packing, may be wrong in any byte.
    let block = block().encode_to_vec();
    for index in 0..block.len() {
        let mut changed = block.clone();
        changed[index] ^= 0x7F;
        let _ = open(&file(&[("OSMHeader", header("DenseNodes")), ("OSMData", changed)]));
    }
    let bomb = file(&[("OSMHeader", header("DenseNodes")), ("OSMData", vec![0; 33 << 20])]);
    assert!(refused(&bomb).contains("a block is too large"));
}
