//! Data sets whose making is stopped from outside: by a kill, and by a disk that is full. Nothing half-written is taken
//! up, and making once more gives byte for byte what an undisturbed run gives.
//!
//! The making that is stopped runs in a process of its own: this program, told by its environment what to do.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use earthmapper_geo::dataset::{
    Filters, Grid, MANIFEST, MakeOptions, Manifest, SourceOptions, SourcePair, make, no_drawn_maps,
};
use earthmapper_geo::picture::encode_picture;
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, create_tiles};
use earthmapper_geo::{Picture, PictureLimits, Tile, WriteOptions, read_picture};

/// What the process of its own is told: the folder with both stores, and the folder of the data set.
const SOURCES: &str = "EARTHMAPPER_TEST_SOURCES";
const DATASET: &str = "EARTHMAPPER_TEST_DATASET";

const SIDE: u32 = 64;
const PAIRS: u32 = 144;

/// Two stores of noise, which packs so badly that a disk fills soon.
fn sources(folder: &Path) {
    for (name, seed) in [("imagery", 1_u32), ("map", 2)] {
        let metadata = TileMetadata::new(name, TileFormat::Png);
        let mut writer = create_tiles(folder.join(name), metadata, Existing::Refuse).unwrap();
        for index in 0..PAIRS {
            let picture = Picture::drawn(SIDE, SIDE, |x, y| {
                let mixed = (x + 64 * y + 4096 * (index + 1000 * seed)).wrapping_mul(2_654_435_761);
                let mixed = (mixed ^ mixed >> 15).wrapping_mul(2_246_822_519);
                [mixed >> 8, mixed >> 16, mixed >> 24].map(|value| value as u8)
            });
            let png = encode_picture("png", &picture, &WriteOptions::default()).unwrap();
            writer.write(Tile::new(12, 2000 + index % 12, 1000 + index / 12).unwrap(), &png).unwrap();
        }
        writer.finish().unwrap();
    }
}

fn options(sources: &Path) -> MakeOptions {
    let source = SourcePair {
        name: "noise".to_owned(),
        imagery: SourceOptions::new(sources.join("imagery")),
        map: SourceOptions::new(sources.join("map")),
        grid: Grid::Tiles { zooms: vec![], side: SIDE, metres_per_pixel: None },
        region: None,
    };
    MakeOptions { filters: Filters::OFF, ..MakeOptions::new(source) }
}

/// Makes the data set, telling on each step how far it is. What went wrong, in words.
fn made(sources: &Path, dataset: &Path) -> Result<(), String> {
    let mut tell = |progress: earthmapper_geo::dataset::Progress| {
        println!("\ndone {}", progress.done);
        ControlFlow::Continue(())
    };
    make(dataset, &options(sources), &no_drawn_maps, Existing::Continue, &mut tell)
        .map(|_| ())
        .map_err(|error| error.to_string())
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

/// No manifest names the pairs, and each that has a name is whole.
fn assert_unfinished(dataset: &Path) {
    assert!(!dataset.join(MANIFEST).exists());
    assert!(Manifest::read(dataset).is_err());
    for file in files(dataset).keys().filter(|file| file.extension().is_some_and(|ending| ending == "png")) {
        let pair = read_picture(dataset.join(file), &PictureLimits::default()).unwrap();
        assert_eq!((pair.width(), pair.height()), (2 * SIDE, SIDE), "{}", file.display());
    }
}

/// This program as a process that runs one of the tests below.
fn process(test: &str, sources: &Path, dataset: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(SOURCES, sources).env(DATASET, dataset);
    command
}

fn told() -> Option<(PathBuf, PathBuf)> {
    Some((std::env::var_os(SOURCES)?.into(), std::env::var_os(DATASET)?.into()))
}

#[test]
#[ignore = "run by the test of a killed program"]
fn makes_until_it_is_killed() {
    let Some((sources, dataset)) = told() else { return };
    made(&sources, &dataset).unwrap();
}

#[test]
fn a_killed_program_leaves_nothing_half_done_and_a_rerun_completes() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    sources(folder.path());
    made(folder.path(), &whole).unwrap();

    // At the first square, between the first and the second note in the journal, and after the second.
    for after in ["done 0", "done 64", "done 128"] {
        let mut process = process("makes_until_it_is_killed", folder.path(), &stopped)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let reached = lines.any(|line| line.is_ok_and(|line| line == after));
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(reached || after == "done 0", "it was killed too late");
        if !stopped.join(MANIFEST).exists() {
            assert_unfinished(&stopped);
        }
        // What a kill in the middle of writing a pair leaves.
        let shard = stopped.join("pairs/00000");
        fs::create_dir_all(&shard).unwrap();
        fs::write(shard.join(".earthmapper-AbCdEf.part"), b"\x89PNG half").unwrap();
    }
    made(folder.path(), &stopped).unwrap();
    let (expected, found) = (files(&whole), files(&stopped));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(found == expected, "the bytes are those of a run that was never stopped");
}

/// The data set lies on a disk of 1 MB with a file on it that is in the way: making fails, the file goes, making goes on.
#[test]
#[ignore = "run by the test of a full disk, on a disk of its own"]
fn makes_on_a_full_disk() {
    let Some((sources, disk)) = told() else { return };
    let (dataset, ballast) = (disk.join("dataset"), disk.join("ballast"));
    // Pairs take 25 kB each. The room for about twenty grows at the second try.
    for left in [500, 1500] {
        fs::write(&ballast, vec![1; (5000 - left) * 1000]).unwrap();
        let error = made(&sources, &dataset).unwrap_err();
        assert!(error.contains("the disk is full; free some space"), "{error}");
        assert_unfinished(&dataset);
        let parts = files(&dataset).into_keys().filter(|file| file.to_string_lossy().contains(".part"));
        assert_eq!(parts.count(), 0, "what could not be written is removed");
        fs::remove_file(&ballast).unwrap();
    }
    made(&sources, &dataset).unwrap();
    made(&sources, &sources.join("whole")).unwrap();
    assert!(files(&dataset) == files(&sources.join("whole")));
    println!("\nthe full disk was met");
}

#[test]
fn a_full_disk_is_named_and_a_rerun_completes() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    sources(folder.path());
    let inner = process("makes_on_a_full_disk", folder.path(), &disk);
    // A small disk in memory, in a name space of its own, so that no rights are needed.
    let script = "mount -t tmpfs -o size=5000k none \"$0\" || exit 77; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(&disk);
    command.arg(inner.get_program()).args(inner.get_args());
    command.env(SOURCES, folder.path()).env(DATASET, &disk);
    let output = match command.output() {
        Ok(output) if output.status.code() != Some(77) && !starts_no_name_space(&output.stderr) => output,
        _ => {
            println!("skipped: no small disk can be made here (unshare, mount)");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("the full disk was met"), "{text}{errors}");
}

fn starts_no_name_space(errors: &[u8]) -> bool {
    String::from_utf8_lossy(errors).starts_with("unshare:")
}
