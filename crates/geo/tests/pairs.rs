//! Pair folders: both layouts, selections, and every way in which a folder can be wrong.

use std::fs;
use std::path::{Path, PathBuf};

use earthmapper_geo::{
    PairError, PairFiles, PairFolder, PairOrder, PairSelection, PairSource, Picture, PictureError,
    PictureLimits, WriteOptions, write_picture,
};

const GREEN: [u8; 3] = [40, 90, 30];
const WHITE: [u8; 3] = [250, 250, 250];

fn write(path: PathBuf, picture: &Picture) {
    write_picture(path, picture, &WriteOptions::default()).unwrap();
}

fn write_pair(folder: &Path, name: &str) {
    let pair = Picture::hconcat(&[&Picture::filled(6, 4, GREEN), &Picture::filled(6, 4, WHITE)]);
    write(folder.join(name), &pair);
}

fn side_by_side(folder: &Path) -> PairSource {
    PairSource::SideBySide { folder: folder.to_owned(), order: PairOrder::SatelliteMap }
}

fn everything() -> PairSelection {
    PairSelection::default()
}

fn names(pairs: &PairFolder) -> Vec<&str> {
    (0..pairs.len()).map(|index| pairs.name(index)).collect()
}

#[test]
fn side_by_side_pairs_come_in_natural_order_and_are_halved() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["10.png", "2.webp", "1.PNG", "extra.png"] {
        write_pair(folder.path(), name);
    }
    fs::write(folder.path().join("readme.txt"), "no picture").unwrap();
    fs::write(folder.path().join("._1.png"), "a hidden file").unwrap();
    fs::create_dir(folder.path().join("5.png")).unwrap();

    let pairs = PairFolder::open(&side_by_side(folder.path()), &everything()).unwrap();
    assert_eq!(names(&pairs), ["1", "2", "10", "extra"]);
    assert_eq!(pairs.path(1), folder.path().join("2.webp"));
    assert!(pairs.unmatched().is_empty());
    let pair = pairs.read(2, &PictureLimits::default()).unwrap();
    assert_eq!(pair.name, "10");
    assert_eq!(pair.satellite, Picture::filled(6, 4, GREEN));
    assert_eq!(pair.map, Picture::filled(6, 4, WHITE));

    let order = PairOrder::MapSatellite;
    let swapped = PairSource::SideBySide { folder: folder.path().to_owned(), order };
    let pair = PairFolder::open(&swapped, &everything()).unwrap().read(0, &PictureLimits::default()).unwrap();
    assert_eq!((pair.satellite.pixel(0, 0), pair.map.pixel(0, 0)), (WHITE, GREEN));
}

#[test]
fn selections_split_a_folder_without_overlap() {
    let folder = tempfile::tempdir().unwrap();
    for number in 1..=12 {
        write_pair(folder.path(), &format!("{number}.png"));
    }
    write_pair(folder.path(), "extra.png");
    let open = |text: &str| PairFolder::open(&side_by_side(folder.path()), &text.parse().unwrap()).unwrap();
    assert_eq!(names(&open("1..10")).len(), 10);
    assert_eq!(names(&open("11..")), ["11", "12"]);
    assert_eq!(names(&open("..2")), ["1", "2"]);
    let selection = PairSelection { first: Some(3), limit: Some(2), ..everything() };
    let pairs = PairFolder::open(&side_by_side(folder.path()), &selection).unwrap();
    assert_eq!(names(&pairs), ["3", "4"]);
}

#[test]
fn two_folders_are_matched_by_name_and_the_rest_is_told() {
    let (satellite, map) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["b10", "b2", "only-photo"] {
        write(satellite.path().join(format!("{name}.png")), &Picture::filled(5, 5, GREEN));
    }
    for name in ["b10", "b2", "only-map"] {
        write(map.path().join(format!("{name}.webp")), &Picture::filled(5, 5, WHITE));
    }
    let source = PairSource::TwoFolders { satellite: satellite.path().into(), map: map.path().into() };
    let pairs = PairFolder::open(&source, &everything()).unwrap();
    assert_eq!(names(&pairs), ["b2", "b10"]);
    let mut unmatched = pairs.unmatched().to_vec();
    unmatched.sort();
    let mut expected = [satellite.path().join("only-photo.png"), map.path().join("only-map.webp")];
    expected.sort();
    assert_eq!(unmatched, expected);
    let files =
        PairFiles::Two { satellite: satellite.path().join("b2.png"), map: map.path().join("b2.webp") };
    assert_eq!(pairs.files(0), &files);
    assert_eq!(pairs.path(0), satellite.path().join("b2.png"));
    let pair = pairs.read(0, &PictureLimits::default()).unwrap();
    assert_eq!((pair.satellite.pixel(4, 4), pair.map.pixel(0, 0)), (GREEN, WHITE));

    write(satellite.path().join("c.png"), &Picture::filled(5, 5, GREEN));
    write(map.path().join("c.png"), &Picture::filled(5, 6, WHITE));
    let pairs = PairFolder::open(&source, &everything()).unwrap();
    let error = pairs.read(2, &PictureLimits::default()).unwrap_err();
    assert!(matches!(error, PairError::SizeMismatch { .. }));
    let text = error.to_string();
    assert!(text.starts_with(&satellite.path().join("c.png").display().to_string()), "{text}");
    assert!(text.ends_with("has 5 × 6; make both the same size"), "{text}");
}

#[test]
fn folders_without_pairs_say_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let error = PairFolder::open(&side_by_side(&missing), &everything()).unwrap_err();
    assert!(matches!(error, PairError::FolderMissing { .. }));
    assert_eq!(error.to_string(), format!("{}: is not a folder; check the name", missing.display()));

    let empty = PairFolder::open(&side_by_side(folder.path()), &everything()).unwrap_err();
    assert!(matches!(empty, PairError::NoPairs { .. }));
    assert_eq!(
        empty.to_string(),
        format!(
            "{}: no pairs; looked for side-by-side pictures (.png, .jpg, .jpeg, .webp) and found pictures: none; \
             check the folder, the layout and the selection",
            folder.path().display()
        )
    );

    for name in ["1.png", "2.png", "3.png", "10.png"] {
        write_pair(folder.path(), name);
    }
    let error = PairFolder::open(&side_by_side(folder.path()), &"50..60".parse().unwrap()).unwrap_err();
    assert!(
        error.to_string().contains(".webp) named 50..60 and found pictures: 4 (1, 2, 3, …); check"),
        "{error}"
    );

    let other = tempfile::tempdir().unwrap();
    write_pair(other.path(), "a.png");
    let source = PairSource::TwoFolders { satellite: folder.path().into(), map: other.path().into() };
    let text = PairFolder::open(&source, &everything()).unwrap_err().to_string();
    assert!(text.contains("satellite pictures: 4 (1, 2, 3, …), map pictures: 1 (a)"), "{text}");
}

#[test]
fn ambiguous_odd_and_broken_pairs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let limits = PictureLimits::default();
    write(folder.path().join("1.png"), &Picture::filled(7, 4, GREEN));
    fs::write(folder.path().join("2.png"), b"").unwrap();
    let pairs = PairFolder::open(&side_by_side(folder.path()), &everything()).unwrap();
    let error = pairs.read(0, &limits).unwrap_err();
    assert!(matches!(error, PairError::OddWidth { width: 7, .. }));
    assert!(error.to_string().starts_with(&folder.path().join("1.png").display().to_string()), "{error}");
    let error = pairs.read(1, &limits).unwrap_err();
    assert!(matches!(error, PairError::Picture(PictureError::EmptyFile { .. })), "{error}");
    let error = pairs.read(0, &PictureLimits { max_pixels: 8, ..limits }).unwrap_err();
    assert!(error.to_string().ends_with("--max-pixels 28"), "{error}");

    write_pair(folder.path(), "2.webp");
    let error = PairFolder::open(&side_by_side(folder.path()), &everything()).unwrap_err();
    assert!(matches!(error, PairError::SameName { .. }));
    assert!(error.to_string().starts_with(&folder.path().join("2.webp").display().to_string()), "{error}");
}

#[test]
fn pairs_may_be_read_from_several_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<PairFolder>();
    shared::<PairError>();
}

/// The public pix2pix "maps" pairs, where they are at hand: `$EARTHMAPPER_DATA/new-york/train`.
#[test]
fn real_pairs_open_and_read() {
    let data = std::env::var_os("EARTHMAPPER_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let folder = data.join("new-york/train");
    if !folder.is_dir() {
        println!("skipped: {} is not there; set EARTHMAPPER_DATA to read real pairs", folder.display());
        return;
    }
    let open = |text: &str| PairFolder::open(&side_by_side(&folder), &text.parse().unwrap()).unwrap();
    let (training, validation) = (open("1..1000"), open("1001..1096"));
    assert_eq!((training.len(), validation.len()), (1000, 96));
    assert_eq!((training.name(1), validation.name(95)), ("2", "1096"));
    let pair = validation.read(0, &PictureLimits::default()).unwrap();
    assert_eq!((pair.satellite.width(), pair.map.height()), (600, 600));
    let brightness = |picture: &Picture| {
        picture.rgb().iter().map(|value| u64::from(*value)).sum::<u64>() / picture.rgb().len() as u64
    };
    assert!(brightness(&pair.map) > brightness(&pair.satellite), "a map is paler than a photograph");
    assert_eq!(pair.satellite.resized(256, 256).width(), 256);
}
