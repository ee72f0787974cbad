use std::fs;
use std::path::Path;

use earthmapper_geo::pairs::{PairOrder, PairSelection, PairSource};
use earthmapper_geo::picture::{WriteOptions, write_picture};
use tempfile::TempDir;

use super::*;
use crate::data::epoch_order;
use crate::data::workers::shrunk;

const AUGMENT: AugmentConfig =
    AugmentConfig { picture_side: 16, crop_min: 0.5, flip: true, quarter_turns: true };

const CONFIG: LoaderConfig =
    LoaderConfig { batch_size: 4, threads: 1, skip_limit: 0.2, decoded_side: None, cache_bytes: 0 };

/// Side-by-side pairs "0", "1", … whose map is the negative of the satellite photograph.
fn write_pairs(folder: &Path, count: u32, side: u32) {
    for number in 0..count {
        let satellite = Picture::drawn(side, side, |x, y| [(7 * x) as u8, (7 * y) as u8, number as u8]);
        let map = Picture::drawn(side, side, |x, y| satellite.pixel(x, y).map(|value| 255 - value));
        let both = Picture::hconcat(&[&satellite, &map]);
        write_picture(folder.join(format!("{number}.png")), &both, &WriteOptions::default()).unwrap();
    }
}

fn open(folder: &Path) -> PairFolder {
    let source = PairSource::SideBySide { folder: folder.to_owned(), order: PairOrder::SatelliteMap };
    PairFolder::open(&source, &PairSelection::default()).unwrap()
}

/// 22 pairs, of which "3", "4" and "17" cannot be read.
fn damaged_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path(), 22, 24);
    fs::write(folder.path().join("3.png"), b"").unwrap();
    fs::write(folder.path().join("4.png"), b"no picture at all").unwrap();
    let whole = fs::read(folder.path().join("17.png")).unwrap();
    fs::write(folder.path().join("17.png"), &whole[..whole.len() / 2]).unwrap();
    folder
}

fn start(folder: &Path, config: LoaderConfig, from: Position) -> PairLoader {
    PairLoader::start(open(folder), AUGMENT, config, 5, from).unwrap()
}

fn batches(folder: &Path, config: LoaderConfig, from: Position, count: usize) -> Vec<Batch> {
    let mut loader = start(folder, config, from);
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}

#[test]
fn threads_and_cache_change_nothing() {
    let folder = damaged_folder();
    let expected = batches(folder.path(), CONFIG, Position::default(), 14);
    for threads in [0, 2, 4, 9] {
        for cache_bytes in [0, 10_000, u64::MAX] {
            let config = LoaderConfig { threads, cache_bytes, ..CONFIG };
            assert_eq!(batches(folder.path(), config, Position::default(), 14), expected);
        }
    }
}

#[test]
fn the_cache_spares_the_files() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path(), 6, 24);
    let config = LoaderConfig { batch_size: 3, cache_bytes: u64::MAX, ..CONFIG };
    let expected = batches(folder.path(), config, Position::default(), 8);
    let mut loader = start(folder.path(), config, Position::default());
    let mut found = vec![loader.next_batch().unwrap(), loader.next_batch().unwrap()];
    for number in 0..6 {
        fs::remove_file(folder.path().join(format!("{number}.png"))).unwrap();
    }
    found.extend((0..6).map(|_| loader.next_batch().unwrap()));
    assert_eq!(found, expected);
}

#[test]
fn a_loader_resumes_anywhere() {
    let folder = damaged_folder();
    let whole = batches(folder.path(), CONFIG, Position::default(), 12);
    for (index, batch) in whole.iter().enumerate().take(11) {
        let rest = batches(folder.path(), LoaderConfig { threads: 3, ..CONFIG }, batch.position, 11 - index);
        assert_eq!(rest, whole[index + 1..], "after batch {index}");
        // Positions go through a checkpoint as JSON.
        let saved = serde_json::to_string(&batch.position).unwrap();
        assert_eq!(serde_json::from_str::<Position>(&saved).unwrap(), batch.position);
    }
}

#[test]
fn an_epoch_has_every_readable_pair_once_and_no_half_batch() {
    let folder = damaged_folder();
    // 19 readable pairs: 4 full batches, 3 pairs dropped.
    let mut loader = start(folder.path(), CONFIG, Position::default());
    assert_eq!(loader.batches_per_epoch(), 5);
    for epoch in 0..3 {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let batch = loader.next_batch().unwrap();
            assert_eq!((batch.epoch, batch.len()), (epoch, 4));
            assert_eq!(batch.position, loader.position());
            for (name, index) in batch.names.iter().zip(&batch.indices) {
                assert_eq!(*name, index.to_string());
            }
            seen.extend(batch.indices);
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 16);
        assert!([3, 4, 17].iter().all(|damaged| !seen.contains(damaged)));
    }
}

#[test]
fn a_small_folder_makes_small_batches() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path(), 3, 8);
    let config = LoaderConfig { batch_size: 8, threads: 2, ..CONFIG };
    for (epoch, batch) in batches(folder.path(), config, Position::default(), 3).into_iter().enumerate() {
        assert_eq!((batch.epoch, batch.len()), (epoch as u64, 3));
        assert_eq!(batch.position, Position { epoch: epoch as u64 + 1, batch: 0, item: 0 });
    }
}

#[test]
fn both_pictures_are_changed_alike() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path(), 16, 30);
    let mut turned = 0;
    for batch in batches(folder.path(), CONFIG, Position::default(), 8) {
        for (at, augmentation) in batch.augmentations.iter().enumerate() {
            let (satellite, map) = (&batch.satellite[at], &batch.map[at]);
            assert_eq!((satellite.width(), satellite.height()), (16, 16));
            assert_eq!((map.width(), map.height()), (16, 16));
            turned += usize::from(augmentation.flip && augmentation.turns > 0);
            for (left, right) in satellite.rgb().iter().zip(map.rgb()) {
                // Resizing rounds, so a value and its negative may miss each other by one.
                assert!((i32::from(*left) + i32::from(*right) - 255).abs() <= 1, "{left} and {right}");
            }
        }
    }
    assert!(turned > 0);
}

#[test]
fn too_many_unreadable_files_are_an_error_that_names_them() {
    let folder = damaged_folder();
    for threads in [1, 4] {
        let config = LoaderConfig { skip_limit: 0.1, threads, ..CONFIG };
        let mut loader = start(folder.path(), config, Position::default());
        let first_epoch: Vec<_> = (0..5).map(|_| loader.next_batch()).collect();
        let good = first_epoch.iter().take_while(|batch| batch.is_ok()).count();
        // The same batch for any number of threads: the third unreadable pair decides.
        let order = epoch_order(5, 0, 22);
        let third =
            order.iter().enumerate().filter(|(_, index)| [3, 4, 17].contains(*index)).nth(2).unwrap().0;
        assert_eq!(good, (third - 2) / 4);
        for failed in &first_epoch[good..] {
            let error = failed.as_ref().unwrap_err().to_string();
            assert!(error.starts_with("3 of 22 pairs cannot be read, more than the limit of 2;"), "{error}");
            for name in ["3.png: is empty", "4.png: ", "17.png: "] {
                assert!(error.contains(name), "{error}");
            }
        }
    }
}

#[test]
fn a_folder_of_rubbish_is_an_error_and_not_an_endless_search() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("1.png"), b"").unwrap();
    let mut loader = start(folder.path(), CONFIG, Position::default());
    for _ in 0..2 {
        assert!(matches!(loader.next_batch(), Err(DataError::NothingReadable { total: 1, .. })));
    }
}

#[test]
fn large_pictures_are_shrunk_first() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path(), 2, 64);
    let config = LoaderConfig { decoded_side: Some(20), ..CONFIG };
    for batch in batches(folder.path(), config, Position::default(), 4) {
        assert!(batch.augmentations.iter().all(|augmentation| augmentation.side <= 20));
    }
    let wide = shrunk(Picture::filled(100, 50, [1; 3]), 25);
    assert_eq!((wide.width(), wide.height()), (50, 25));
    assert_eq!(shrunk(wide.clone(), 25), wide);
}

#[test]
fn dropping_stops_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path(), 4, 8);
    let loader = start(folder.path(), LoaderConfig { threads: 4, ..CONFIG }, Position::default());
    let shared = Arc::downgrade(&loader.shared);
    drop(loader);
    assert!(shared.upgrade().is_none(), "a thread still holds what the loader shared with it");
}

#[test]
fn validation_pairs_are_read_plainly() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path(), 2, 16);
    let pair = read_square(&open(folder.path()), 1, 16).unwrap();
    assert_eq!(pair, open(folder.path()).read(1, &PictureLimits::default()).unwrap());
    assert_eq!(read_square(&open(folder.path()), 1, 8).unwrap().map.width(), 8);
}

#[test]
fn senseless_settings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path(), 1, 8);
    let refused = |augment, config| {
        let started = PairLoader::start(open(folder.path()), augment, config, 0, Position::default());
        started.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(AUGMENT, LoaderConfig { batch_size: 0, ..CONFIG }).starts_with("batch_size"));
    assert!(refused(AUGMENT, LoaderConfig { skip_limit: 2.0, ..CONFIG }).starts_with("skip_limit"));
    assert!(refused(AUGMENT, LoaderConfig { decoded_side: Some(0), ..CONFIG }).starts_with("decoded_side"));
    assert!(refused(AugmentConfig { crop_min: 0.0, ..AUGMENT }, CONFIG).starts_with("crop_min"));
    assert!(toml::from_str::<LoaderConfig>("batch = 3").is_err());
    assert_eq!(toml::from_str::<LoaderConfig>("").unwrap(), LoaderConfig::default());
}
