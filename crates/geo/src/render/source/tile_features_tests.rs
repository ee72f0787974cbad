use super::super::super::class::{Class, Level};
use super::super::super::feature::Shape;
use super::*;

fn tile() -> Tile {
    "1/1/0".parse().unwrap()
}

/// A step in a geometry.
fn step(x: i32, y: i32) -> [u32; 2] {
    [x, y].map(|step| ((step << 1) ^ (step >> 31)) as u32)
}

fn command(what: u32, count: u32) -> u32 {
    what | count << 3
}

/// A ring from steps.
fn ring(steps: &[[i32; 2]]) -> Vec<u32> {
    let steps: Vec<_> = steps.iter().map(|[x, y]| step(*x, *y)).collect();
    let mut commands = vec![command(1, 1)];
    commands.extend(steps[0]);
    commands.push(command(2, steps.len() as u32 - 1));
    commands.extend(steps[1..].iter().flatten());
    commands.push(command(7, 1));
    commands
}

fn value(text: &str) -> Bytes {
    ValueMessage { text: Some(Bytes::copy_from_slice(text.as_bytes())), ..Default::default() }
        .encode_to_vec()
        .into()
}

fn layer(name: &str, features: &[FeatureMessage]) -> LayerMessage {
    LayerMessage {
        name: name.to_owned(),
        features: features.iter().map(|feature| feature.encode_to_vec().into()).collect(),
        keys: vec![Bytes::from_static(b"highway"), Bytes::from_static(b"bridge")],
        values: vec![
            value("primary"),
            ValueMessage { truth: Some(true), ..Default::default() }.encode_to_vec().into(),
        ],
        extent: Some(4096),
    }
}

fn bytes(layer: &LayerMessage) -> Bytes {
    TileMessage { layers: vec![layer.encode_to_vec().into()] }.encode_to_vec().into()
}

fn line(geometry: Vec<u32>) -> FeatureMessage {
    FeatureMessage { tags: vec![0, 0, 1, 1], kind: LINE, geometry }
}

fn area(geometry: Vec<u32>) -> FeatureMessage {
    FeatureMessage { tags: vec![], kind: POLYGON, geometry }
}

fn decoded(name: &str, feature: FeatureMessage) -> Result<Vec<Feature>, String> {
    decode(bytes(&layer(name, &[feature])), tile())
}

#[test]
fn lines_are_read() {
    let mut geometry = vec![command(1, 1)];
    geometry.extend(step(0, 2048));
    geometry.push(command(2, 2));
    geometry.extend([step(4096, 0), step(-2048, -1024)].concat());
    let found = decoded("roads", line(geometry)).unwrap();
    assert_eq!((found.len(), found[0].class, found[0].level), (1, Class::Primary, Level::Bridge));
    assert_eq!(found[0].shape, Shape::Lines(vec![vec![[0.5, 0.25], [1.0, 0.25], [0.75, 0.125]]]));
}

#[test]
fn areas_are_turned_and_their_cuts_are_no_outline() {
    // A square over the left border with a hole, all turned the wrong way.
    let mut geometry = ring(&[[-64, 1024], [0, 1024], [1088, 0], [0, -1024]]);
    geometry.extend(ring(&[[-512, 256], [256, 0], [0, 256], [-256, 0]]));
    let found = decoded("buildings", area(geometry)).unwrap();
    let Shape::Area { rings, outline } = &found[0].shape else { panic!("an area") };
    assert_eq!(rings.len(), 2);
    assert!(signed_area(&rings[0]) > 0.0 && signed_area(&rings[1]) < 0.0);
    let outline = outline.as_ref().unwrap();
    let points = || outline.iter().flatten();
    assert!(points().all(|point| point[0] >= 0.5), "{outline:?}");
    assert_eq!(
        points().filter(|point| point[0] == 0.5).count(),
        2,
        "the border of the tile itself is no outline"
    );
}

#[test]
fn what_reaches_far_is_cut() {
    let huge = 1 << 30;
    let found = decoded(
        "water",
        area(ring(&[[-huge, -huge], [huge, 0], [huge, 0], [0, huge], [0, huge], [-huge, 0]])),
    );
    let found = found.unwrap();
    let wide = WorldBox { min: [0.5, 0.0], max: [1.0, 0.5] }.grown(0.5 * REACH);
    assert_eq!(found[0].bounds, wide);
    let mut far = vec![command(1, 1)];
    far.extend(step(-huge, 100));
    far.push(command(2, 1));
    far.extend(step(i32::MAX, 0));
    let found = decoded("roads", line(far)).unwrap();
    assert_eq!((found[0].bounds.min[0], found[0].bounds.max[0]), (wide.min[0], wide.max[0]));
}

#[test]
fn broken_geometries_and_tags_are_errors() {
    let wrong = |feature: FeatureMessage| decoded("roads", feature).unwrap_err();
    assert!(wrong(line(vec![command(1, 0x1FFF_FFFF), 0, 0])).contains("ends too early"));
    assert!(wrong(line(vec![command(1, 1), 0])).contains("ends too early"));
    assert!(wrong(line(vec![command(5, 1)])).contains("unknown command 5"));
    assert!(wrong(FeatureMessage { tags: vec![9, 0], kind: LINE, geometry: vec![] }).contains("a key"));
    assert!(wrong(FeatureMessage { tags: vec![0, 9], kind: LINE, geometry: vec![] }).contains("a value"));
    assert!(wrong(FeatureMessage { tags: vec![0], kind: LINE, geometry: vec![] }).contains("a value"));
    let flat = LayerMessage { extent: Some(0), ..layer("roads", &[]) };
    assert!(decode(bytes(&flat), tile()).unwrap_err().contains("extent is 0"));
    // What is drawn by no row is not looked at, and points and empty geometries are nothing.
    assert_eq!(decoded("pois", line(vec![command(5, 1)])), Ok(vec![]));
    assert_eq!(decoded("roads", line(vec![])), Ok(vec![]));
    assert_eq!(decoded("water", FeatureMessage { tags: vec![], kind: 1, geometry: vec![] }), Ok(vec![]));
    assert_eq!(decode(Bytes::new(), tile()), Ok(vec![]));
}

#[test]
fn truncated_and_changed_bytes_never_panic() {
    let mut geometry = ring(&[[0, 0], [4096, 0], [0, 4096], [-4096, 0]]);
    geometry.extend(ring(&[[100, -100], [50, 0], [0, 50]]));
    let whole = bytes(&layer("water", &[area(geometry.clone()), line(geometry)]));
    assert!(decode(whole.clone(), tile()).is_err(), "a line does not close");
    for length in 0..whole.len() {
        let _ = decode(whole.slice(..length), tile());
        for bit in 0..8 {
            let mut changed = whole.to_vec();
            changed[length] ^= 1 << bit;
            let _ = decode(changed.into(), tile());
        }
    }
    assert!(decode(whole.slice(..whole.len() - 1), tile()).is_err());
}
