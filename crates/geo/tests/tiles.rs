//! Tile stores: every kind read and written, resumed and replaced, foreign and damaged files, and real data.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use earthmapper_geo::store::{
    Copied, Existing, MAX_TILE_BYTES, StoreError, TILE_JSON, TileFormat, TileMetadata, TileReader,
    copy_tiles, create_tiles, open_tiles,
};
use earthmapper_geo::{BoundingBox, Tile};
use rusqlite::Connection;

const KINDS: [&str; 3] = ["tiles", "tiles.mbtiles", "tiles.pmtiles"];

fn tile(text: &str) -> Tile {
    text.parse().unwrap()
}

/// Bytes that begin like a PNG and differ from tile to tile.
fn png(text: &str) -> Vec<u8> {
    [b"\x89PNG\r\n\x1A\n", text.as_bytes()].concat()
}

fn metadata() -> TileMetadata {
    TileMetadata {
        description: Some("made for a test".to_owned()),
        attribution: Some("© <a href=\"https://example.org\">someone</a>".to_owned()),
        ..TileMetadata::new("Test", TileFormat::Png)
    }
}

/// A few tiles, among them the corners of the world at both ends of the zooms, and two that are equal.
const TILES: [&str; 7] =
    ["0/0/0", "1/0/0", "1/1/1", "14/8701/5974", "14/8701/5975", "30/0/1073741823", "30/1073741823/0"];

fn write_all(path: &Path, existing: Existing) -> TileMetadata {
    let mut writer = create_tiles(path, metadata(), existing).unwrap();
    for name in TILES {
        let bytes = if name.starts_with("1/") { png("equal") } else { png(name) };
        writer.write(tile(name), &bytes).unwrap();
    }
    writer.finish().unwrap()
}

fn contents(reader: &dyn TileReader) -> Vec<(Tile, Vec<u8>)> {
    let read = |tile| (tile, reader.read(tile).unwrap().expect("a listed tile is there").bytes);
    reader.tiles().unwrap().into_iter().map(read).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The error of opening, which must begin with the path and name a cure.
fn refused(path: &Path) -> (StoreError, String) {
    let Err(error) = open_tiles(path) else { panic!("{} was opened", path.display()) };
    let text = error.to_string();
    assert!(text.starts_with(&path.display().to_string()), "{text}");
    assert!(text.contains(';') || text.contains("check"), "{text}");
    assert!(error.is_bad_input(), "{text}");
    (error, text)
}

#[test]
fn every_kind_gives_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let path = folder.path().join(kind);
        let finished = write_all(&path, Existing::Refuse);
        assert_eq!((finished.min_zoom, finished.max_zoom), (Some(0), Some(30)));
        let reader = open_tiles(&path).unwrap();
        assert_eq!(*reader.metadata(), finished, "{kind}");
        assert_eq!(reader.metadata().attribution, metadata().attribution);
        assert_eq!(reader.path(), path);
        let found = contents(reader.as_ref());
        assert_eq!(found.len(), TILES.len(), "{kind}");
        for name in TILES {
            let encoded = reader.read(tile(name)).unwrap().unwrap();
            assert_eq!(encoded.format, TileFormat::Png);
            assert_eq!(encoded.bytes, if name.starts_with("1/") { png("equal") } else { png(name) });
            assert!(reader.contains(tile(name)).unwrap());
        }
        for name in ["1/0/1", "14/8701/5973", "15/0/0", "30/5/5"] {
            assert!(!reader.contains(tile(name)).unwrap(), "{kind} {name}");
            assert_eq!(reader.read(tile(name)).unwrap(), None);
        }
        let mut seen = 0;
        reader
            .visit(&mut |tile| {
                // A visitor may read, and may stop.
                assert!(reader.contains(tile).unwrap());
                seen += 1;
                if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(seen, 3);
    }
    assert_eq!(names_in(folder.path()), KINDS);
}

#[test]
fn readers_are_shared_by_threads() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let path = folder.path().join(kind);
        write_all(&path, Existing::Refuse);
        let reader = open_tiles(&path).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for name in TILES.iter().cycle().take(50) {
                        assert!(reader.read(tile(name)).unwrap().is_some());
                    }
                });
            }
        });
    }
}

#[test]
fn round_trip_through_all_kinds_keeps_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    let bounds: BoundingBox = "11.154026,43.7270125,11.3289395,43.8325455".parse().unwrap();
    let said = TileMetadata { bounds: Some(bounds), ..metadata() };
    let mut writer = create_tiles(&first, said, Existing::Refuse).unwrap();
    for cover in (10..=14).map(|zoom| bounds.tiles(zoom).unwrap()) {
        for tile in cover.iter() {
            writer.write(tile, &png(&tile.to_string().repeat(9))).unwrap();
        }
    }
    writer.finish().unwrap();
    check_round_trip(&first, folder.path());
}

/// Folder → MBTiles → PMTiles → folder.
fn check_round_trip(first: &Path, work: &Path) {
    let original = open_tiles(first).unwrap();
    let mut from = first.to_owned();
    for kind in ["a.mbtiles", "b.pmtiles", "c"] {
        let path = work.join(kind);
        let reader = open_tiles(&from).unwrap();
        let mut writer = create_tiles(&path, reader.metadata().clone(), Existing::Refuse).unwrap();
        let copied = copy_tiles(reader.as_ref(), writer.as_mut()).unwrap();
        assert_eq!(copied.skipped, 0);
        writer.finish().unwrap();
        from = path;
    }
    let last = open_tiles(&from).unwrap();
    // What the original left open, the first copy found from the tiles.
    let bounds = original.metadata().bounds.or(last.metadata().bounds);
    assert_eq!(*last.metadata(), TileMetadata { bounds, ..original.metadata().clone() });
    assert!(bounds.is_some());
    let (before, after) = (contents(original.as_ref()), contents(last.as_ref()));
    assert_eq!(before.len(), after.len());
    assert!(before == after, "bytes differ");
    if let Ok(said) = fs::read(first.join(TILE_JSON)) {
        assert_eq!(said, fs::read(from.join(TILE_JSON)).unwrap());
    }
}

#[test]
fn writing_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["tiles", "tiles.mbtiles"] {
        let path = folder.path().join(kind);
        let mut writer = create_tiles(&path, metadata(), Existing::Continue).unwrap();
        writer.write(tile("3/1/1"), &png("old")).unwrap();
        writer.flush().unwrap();
        writer.write(tile("3/1/2"), &png("old")).unwrap();
        // Stopped without an end.
        drop(writer);
        assert_eq!(open_tiles(&path).unwrap().tiles().unwrap().len(), 2);

        let error = create_tiles(&path, metadata(), Existing::Refuse).err().unwrap();
        assert!(error.to_string().contains("already exists; pass --resume to go on with it"), "{error}");
        let mut writer = create_tiles(&path, metadata(), Existing::Continue).unwrap();
        assert_eq!(writer.tiles().unwrap(), [tile("3/1/1"), tile("3/1/2")]);
        assert!(writer.contains(tile("3/1/1")).unwrap() && !writer.contains(tile("3/1/3")).unwrap());
        let error = writer.write(tile("3/1/1"), &png("new")).unwrap_err();
        assert!(matches!(error, StoreError::TileExists { .. }), "{error}");
        writer.write(tile("4/2/6"), &png("new")).unwrap();
        let finished = writer.finish().unwrap();
        assert_eq!((finished.min_zoom, finished.max_zoom), (Some(3), Some(4)));
        let reader = open_tiles(&path).unwrap();
        assert_eq!(reader.read(tile("3/1/1")).unwrap().unwrap().bytes, png("old"));
        assert_eq!(reader.tiles().unwrap().len(), 3);

        let jpeg = TileMetadata { format: TileFormat::Jpeg, ..metadata() };
        let error = create_tiles(&path, jpeg, Existing::Continue).err().unwrap();
        assert!(matches!(error, StoreError::OtherFormat { .. }), "{error}");
    }
    let path = folder.path().join("tiles.pmtiles");
    write_all(&path, Existing::Continue);
    let error = create_tiles(&path, metadata(), Existing::Continue).err().unwrap();
    assert!(matches!(error, StoreError::NotContinued { .. }), "{error}");
}

#[test]
fn copying_leaves_out_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to.mbtiles"));
    write_all(&from, Existing::Refuse);
    let mut writer = create_tiles(&to, metadata(), Existing::Refuse).unwrap();
    writer.write(tile("0/0/0"), &png("mine")).unwrap();
    let reader = open_tiles(&from).unwrap();
    let copied = copy_tiles(reader.as_ref(), writer.as_mut()).unwrap();
    assert_eq!(copied, Copied { written: 6, skipped: 1 });
    writer.finish().unwrap();
    assert_eq!(open_tiles(&to).unwrap().read(tile("0/0/0")).unwrap().unwrap().bytes, png("mine"));
}

#[test]
fn replacing_waits_for_the_end() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["tiles.mbtiles", "tiles.pmtiles"] {
        let path = folder.path().join(kind);
        write_all(&path, Existing::Replace);
        let before = fs::read(&path).unwrap();
        let mut writer = create_tiles(&path, metadata(), Existing::Replace).unwrap();
        writer.write(tile("2/1/1"), &png("new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
        drop(writer);
        assert_eq!(fs::read(&path).unwrap(), before, "a stopped replacement changes nothing");

        let mut writer = create_tiles(&path, metadata(), Existing::Replace).unwrap();
        writer.write(tile("2/1/1"), &png("new")).unwrap();
        writer.finish().unwrap();
        assert_eq!(open_tiles(&path).unwrap().tiles().unwrap(), [tile("2/1/1")]);
        let error = create_tiles(&path, metadata(), Existing::Refuse).err().unwrap().to_string();
        assert!(error.ends_with("--overwrite to replace it"), "{error}");
    }
    assert_eq!(names_in(folder.path()), ["tiles.mbtiles", "tiles.pmtiles"], "nothing is left beside");
    let path = folder.path().join("tiles");
    write_all(&path, Existing::Replace);
    let error = create_tiles(&path, metadata(), Existing::Replace).err().unwrap();
    assert!(error.to_string().ends_with("remove it first, or choose another folder"), "{error}");
}

#[test]
fn only_pictures_are_written() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let path = folder.path().join(kind);
        let mut writer = create_tiles(&path, metadata(), Existing::Refuse).unwrap();
        for (bytes, said) in [
            (&b""[..], "tile 0/0/0 has no bytes; give it as PNG, JPEG or WebP"),
            (b"\x1F\x8B\x08", "is a vector tile or packed by gzip"),
            (b"text", "is not a PNG, JPEG or WebP picture"),
        ] {
            let error = writer.write(tile("0/0/0"), bytes).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(!writer.contains(tile("0/0/0")).unwrap());
        }
        // A store without tiles is one.
        writer.finish().unwrap();
        assert!(open_tiles(&path).unwrap().tiles().unwrap().is_empty());
    }
}

#[test]
fn formats_may_be_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let jpeg = b"\xFF\xD8\xFF\xE0 and so on";
    for kind in KINDS {
        let path = folder.path().join(kind);
        let mut writer = create_tiles(&path, metadata(), Existing::Refuse).unwrap();
        writer.write(tile("1/0/0"), &png("one")).unwrap();
        writer.write(tile("1/0/1"), jpeg).unwrap();
        writer.finish().unwrap();
        let reader = open_tiles(&path).unwrap();
        let read = |name| reader.read(tile(name)).unwrap().unwrap();
        assert_eq!((read("1/0/0").format, read("1/0/1").format), (TileFormat::Png, TileFormat::Jpeg));
        assert_eq!(read("1/0/1").bytes, jpeg);
    }
}

#[test]
fn names_decide_the_kind() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiles.zip", "tiles.PNG"] {
        let error = create_tiles(folder.path().join(name), metadata(), Existing::Refuse).err().unwrap();
        assert!(matches!(error, StoreError::UnknownKind { .. }), "{error}");
    }
    let error = create_tiles(folder.path().join("no/tiles"), metadata(), Existing::Refuse).err().unwrap();
    assert!(error.to_string().ends_with("create it first"), "{error}");
    let text = folder.path().join("readme.txt");
    fs::write(&text, "no tiles").unwrap();
    assert!(matches!(refused(&text).0, StoreError::UnknownKind { .. }));
    for kind in KINDS {
        assert!(matches!(refused(&folder.path().join(kind)).0, StoreError::NotFound { .. }));
    }
    write_all(&folder.path().join("florence-1.5m"), Existing::Refuse);
    assert!(folder.path().join("florence-1.5m/14/8701/5974.png").is_file());
}

#[test]
fn foreign_folders() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    assert!(matches!(refused(folder.path()).0, StoreError::NoTiles { .. }));
    put("readme.txt", b"hello");
    put("3/x/1.png", b"");
    put("99/0/0.png", b"");
    put("03/0/0.png", b"");
    put("3/9/0.png", b"");
    put("3/1/.earthmapper-abc.part", b"half");
    put("3/1/07.png", b"");
    put("3/1/8.png", b"");
    assert!(matches!(refused(folder.path()).0, StoreError::NoTiles { .. }));

    put("3/2/5.jpeg", b"\xFF\xD8\xFF\xE0 a");
    put("3/2/6.png", &png("says png"));
    put("3/2/7.png", b"\xFF\xD8\xFF\xE0 is jpg");
    put("3/3/0.png", b"");
    let reader = open_tiles(folder.path()).unwrap();
    let listed: Vec<_> = reader.tiles().unwrap().iter().map(Tile::to_string).collect();
    assert_eq!(listed.len(), 4, "{listed:?}");
    assert_eq!(reader.read(tile("3/2/5")).unwrap().unwrap().format, TileFormat::Jpeg);
    assert_eq!(reader.read(tile("3/2/7")).unwrap().unwrap().format, TileFormat::Jpeg);
    let error = reader.read(tile("3/3/0")).unwrap_err().to_string();
    assert!(error.ends_with("tile 3/3/0 has no bytes; make the tile again or remove it"), "{error}");
    assert_eq!(reader.metadata().min_zoom, Some(3));

    put(TILE_JSON, br#"{"tilejson": "2.2.0", "scheme": "tms", "tiles": ["http://a/{z}/{x}/{y}.png?k=1"]}"#);
    let reader = open_tiles(folder.path()).unwrap();
    assert_eq!(reader.read(tile("3/2/1")).unwrap().unwrap().bytes, png("says png"), "rows from the south");
    for (text, detail) in [("", "no JSON"), ("[1]", "no JSON object"), ("{", "no JSON")] {
        put(TILE_JSON, text.as_bytes());
        let Err(error) = open_tiles(folder.path()) else { panic!("{text:?} was opened") };
        assert!(error.to_string().contains(detail) && error.to_string().contains(TILE_JSON), "{error}");
    }
}

#[test]
fn folders_of_vector_tiles_are_recognised() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("0/0")).unwrap();
    fs::write(folder.path().join("0/0/0.pbf"), b"\x1A").unwrap();
    let (error, text) = refused(folder.path());
    assert!(matches!(error, StoreError::VectorTiles { .. }));
    assert!(text.ends_with("holds vector tiles (pbf), not pictures; render them to PNG, JPEG or WebP first"));
}

#[test]
fn files_of_other_kinds_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("any.mbtiles");
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    assert!(refused(&database).1.contains("an SQLite database without tiles"));
    write_all(&folder.path().join("right.pmtiles"), Existing::Refuse);
    let archive = fs::read(folder.path().join("right.pmtiles")).unwrap();
    for (ending, bytes, said) in [
        ("mbtiles", &b""[..], "is empty"),
        ("pmtiles", b"", "is empty"),
        ("mbtiles", &archive, "is not MBTiles but PMTiles; rename it to .pmtiles"),
        ("pmtiles", b"SQLite format 3\0", "is not PMTiles but an SQLite database"),
        ("pmtiles", b"\x89PNG\r\n\x1A\n", "a png picture"),
        ("mbtiles", b"  <!DOCTYPE html>", "a page of HTML"),
        ("pmtiles", b"PK\x03\x04", "a ZIP archive"),
        ("pmtiles", b"PM\x02\x00", "another version of PMTiles"),
        ("pmtiles", b"\0\0\0\0\0\0\0\0\0", "something else"),
        ("mbtiles", b"x", "something else"),
    ] {
        let path = folder.path().join(format!("wrong.{ending}"));
        fs::write(&path, bytes).unwrap();
        let (_, text) = refused(&path);
        assert!(text.contains(said), "{text}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(refused(&path).0, StoreError::NoTiles { .. }), "a folder of that name is a folder");
        fs::remove_dir(&path).unwrap();
    }
}

fn foreign_mbtiles(path: &Path, sql: &str) {
    let _ = fs::remove_file(path);
    let tables = "CREATE TABLE metadata (name, value);
        CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data);";
    Connection::open(path).unwrap().execute_batch(&format!("{tables}{sql}")).unwrap();
}

#[test]
fn foreign_mbtiles_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.mbtiles");
    let insert = |tile: &str, bytes: &str| format!("INSERT INTO tiles VALUES ({tile}, {bytes});");
    let jpeg = "x'FFD8FFE000'";

    foreign_mbtiles(
        &path,
        &format!(
            "INSERT INTO metadata VALUES ('format', 'png'), ('bounds', '1,2,3,x'), ('minzoom', 'low'), (1, NULL);
            {}",
            insert("2, 1, 0", jpeg)
        ),
    );
    let reader = open_tiles(&path).unwrap();
    assert_eq!(
        *reader.metadata(),
        TileMetadata {
            min_zoom: Some(2),
            max_zoom: Some(2),
            ..TileMetadata::new("foreign", TileFormat::Png)
        }
    );
    assert_eq!(reader.tiles().unwrap(), [tile("2/1/3")], "rows count from the south");
    assert_eq!(reader.read(tile("2/1/3")).unwrap().unwrap().format, TileFormat::Jpeg, "whatever is said");

    for format in ["pbf", "mvt"] {
        foreign_mbtiles(&path, &format!("INSERT INTO metadata VALUES ('format', '{format}');"));
        assert!(matches!(refused(&path).0, StoreError::VectorTiles { .. }));
    }
    foreign_mbtiles(&path, &insert("0, 0, 0", "x'1F8B0800'"));
    assert!(matches!(refused(&path).0, StoreError::VectorTiles { .. }));
    foreign_mbtiles(&path, "INSERT INTO metadata VALUES ('format', 'avif');");
    assert!(refused(&path).1.contains("tiles of the format \"avif\""));
    foreign_mbtiles(&path, "");
    assert!(matches!(refused(&path).0, StoreError::NoTiles { .. }));

    // Rows that cannot be.
    for row in ["99, 0, 0", "1, 2, 0", "-1, 0, 0", "1, 0, -1", "1, 0, 4294967296"] {
        foreign_mbtiles(&path, &(insert("0, 0, 0", jpeg) + &insert(row, jpeg)));
        let reader = open_tiles(&path).unwrap();
        let error = reader.tiles().unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(reader.read(tile("0/0/0")).unwrap().is_some());
    }
    // Values that are no pictures, one too long to be read among them.
    let long = format!("zeroblob({})", MAX_TILE_BYTES + 1);
    for (value, said) in [
        ("NULL", "has no bytes"),
        ("''", "has no bytes"),
        ("17", "is a number"),
        ("'text'", "is not a PNG"),
        (long.as_str(), "is larger than the limit"),
    ] {
        foreign_mbtiles(&path, &(insert("0, 0, 0", jpeg) + &insert("1, 0, 0", value)));
        let error = open_tiles(&path).unwrap().read(tile("1/0/1")).unwrap_err().to_string();
        assert!(error.contains(&format!("tile 1/0/1 {said}")), "{error}");
    }
    // Tiles as a view, as tools that store equal tiles once make them.
    let _ = fs::remove_file(&path);
    Connection::open(&path)
        .unwrap()
        .execute_batch(&format!(
            "CREATE TABLE map (z, x, y, id); CREATE TABLE images (id, data);
            INSERT INTO map VALUES (1, 0, 0, 7), (1, 1, 1, 7); INSERT INTO images VALUES (7, {jpeg});
            CREATE VIEW tiles AS SELECT z AS zoom_level, x AS tile_column, y AS tile_row, data AS tile_data
                FROM map JOIN images ON map.id = images.id;"
        ))
        .unwrap();
    assert_eq!(open_tiles(&path).unwrap().tiles().unwrap().len(), 2);
    let said = TileMetadata::new("a", TileFormat::Jpeg);
    let error = create_tiles(&path, said, Existing::Continue).err().unwrap();
    assert!(error.to_string().ends_with("which cannot be added to; copy it to a new file first"), "{error}");
}

#[test]
fn a_killed_writer_leaves_whole_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mbtiles");
    let mut writer = create_tiles(&path, metadata(), Existing::Refuse).unwrap();
    writer.write(tile("5/0/0"), &png("committed")).unwrap();
    writer.flush().unwrap();
    // Enough to make SQLite write into the file before it commits.
    for x in 1..30 {
        writer.write(tile(&format!("5/{x}/0")), &png(&"large ".repeat(40_000))).unwrap();
    }
    // What a kill at this moment would leave: the file and its journal.
    let copy = folder.path().join("copy.mbtiles");
    fs::copy(&path, &copy).unwrap();
    let journal = folder.path().join("a.mbtiles-journal");
    assert!(journal.is_file());
    fs::copy(&journal, folder.path().join("copy.mbtiles-journal")).unwrap();
    drop(writer);
    assert_eq!(open_tiles(&path).unwrap().tiles().unwrap().len(), 30);

    let reader = open_tiles(&copy).unwrap();
    for (_, bytes) in contents(reader.as_ref()) {
        assert!(bytes == png("committed") || bytes == png(&"large ".repeat(40_000)));
    }
    assert_eq!(reader.read(tile("5/0/0")).unwrap().unwrap().bytes, png("committed"));
    drop(reader);
    let writer = create_tiles(&copy, metadata(), Existing::Continue).unwrap();
    assert!(writer.contains(tile("5/0/0")).unwrap());

    // A writer that was killed before its first table.
    let empty = folder.path().join("empty.mbtiles");
    fs::write(&empty, b"").unwrap();
    write_all(&empty, Existing::Continue);
    assert_eq!(open_tiles(&empty).unwrap().tiles().unwrap().len(), TILES.len());
}

/// Opens and reads everything; any answer will do, but it must be one.
fn try_everything(path: &Path) -> Result<(), StoreError> {
    let reader = open_tiles(path)?;
    let mut left = 10_000;
    let mut first = None;
    reader.visit(&mut |tile| {
        if let Err(error) = reader.read(tile) {
            first.get_or_insert(error);
        }
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    for name in TILES {
        reader.read(tile(name))?;
    }
    first.map_or(Ok(()), Err)
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["tiles.mbtiles", "tiles.pmtiles"] {
        let path = folder.path().join(kind);
        write_all(&path, Existing::Refuse);
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(97).chain([126, 127, 128, whole.len() - 1]) {
            fs::write(&path, &whole[..length]).unwrap();
            let error =
                try_everything(&path).expect_err(&format!("{kind} cut to {length} bytes")).to_string();
            assert!(error.starts_with(&path.display().to_string()), "{error}");
        }
    }
}

#[test]
fn changed_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["tiles.mbtiles", "tiles.pmtiles"] {
        let path = folder.path().join(kind);
        write_all(&path, Existing::Refuse);
        let whole = fs::read(&path).unwrap();
        let places = (0..whole.len().min(140)).chain((140..whole.len()).step_by(211));
        for place in places {
            for value in [0x00, 0xFF] {
                let mut changed = whole.clone();
                changed[place] = value;
                fs::write(&path, &changed).unwrap();
                if let Err(error) = try_everything(&path) {
                    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
                }
            }
        }
    }
}

/// A PMTiles file with given parts: root directory, metadata, leaf directories, tiles; nothing is compressed.
fn archive(root: &[u8], json: &[u8], leaves: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = b"PMTiles\x03".to_vec();
    let mut offset = 127;
    for part in [root, json, leaves, data] {
        bytes.extend(u64::to_le_bytes(offset));
        bytes.extend(u64::to_le_bytes(part.len() as u64));
        offset += part.len() as u64;
    }
    bytes.resize(96, 0);
    // Clustered; no compression inside or of tiles; PNG; zooms 0 … 5.
    bytes.extend([1, 1, 1, 2, 0, 5]);
    bytes.resize(127, 0);
    [&bytes, root, json, leaves, data].concat()
}

#[test]
fn lying_pmtiles_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pmtiles");
    let data = png("x");
    let length = data.len() as u8;
    let right = archive(&[1, 0, 1, length, 1], b"{}", &[], &data);
    fs::write(&path, &right).unwrap();
    assert_eq!(open_tiles(&path).unwrap().read(tile("0/0/0")).unwrap().unwrap().bytes, data);
    assert_eq!(open_tiles(&path).unwrap().metadata().bounds, None, "zeros are no bounds");

    let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    let with_huge = |before: &[u8], after: &[u8]| [before, &huge, after].concat();
    for (what, bytes) in [
        ("more entries than bytes", archive(&with_huge(&[], &[0, 1, 1, 1]), b"{}", &[], &data)),
        ("a number without an end", archive(&[0xFF; 30], b"{}", &[], &data)),
        ("no directory", archive(&[], b"{}", &[], &data)),
        ("a tile of no bytes", archive(&[1, 0, 1, 0, 1], b"{}", &[], &data)),
        ("the same tile twice", archive(&[2, 0, 0, 1, 1, 1, 1, 1, 1], b"{}", &[], &data)),
        ("a run over the next tile", archive(&[2, 0, 1, 9, 1, 1, 1, 1, 1], b"{}", &[], &data)),
        ("a tile of four gigabytes", archive(&with_huge(&[1, 0, 1], &[1]), b"{}", &[], &data)),
        ("a tile beyond the end", archive(&[1, 0, 1, length, 9], b"{}", &[], &data)),
        ("a leaf that is itself", archive(&[1, 0, 0, 5, 1], b"{}", &[1, 0, 0, 5, 1], &data)),
        ("a leaf of earlier tiles", archive(&[1, 7, 0, 5, 1], b"{}", &[1, 0, 1, 1, 1], &data)),
        ("a leaf that is nowhere", archive(&[1, 0, 0, 5, 1], b"{}", &[], &data)),
        ("metadata that are none", archive(&[1, 0, 1, length, 1], b"[]", &[], &data)),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = try_everything(&path).expect_err(what);
        assert!(
            error.is_bad_input() && error.to_string().starts_with(path.to_str().unwrap()),
            "{what}: {error}"
        );
    }

    // A run of four thousand million equal tiles is legal, but no list.
    fs::write(&path, archive(&with_huge(&[1, 100], &[length, 1]), b"{}", &[], &data)).unwrap();
    let reader = open_tiles(&path).unwrap();
    assert!(matches!(reader.tiles().unwrap_err(), StoreError::TooManyTiles { .. }));
    assert!(reader.contains(tile("15/7/7")).unwrap());

    // Sizes of the header: every number made huge.
    for part in 0..8 {
        for value in [u64::MAX, 1 << 40, right.len() as u64 + 1] {
            let mut bytes = right.clone();
            bytes[8 + part * 8..16 + part * 8].copy_from_slice(&value.to_le_bytes());
            fs::write(&path, &bytes).unwrap();
            // An offset of nothing (the leaves here) says nothing.
            if part != 4 {
                assert!(try_everything(&path).is_err(), "part {part} is {value}");
            }
        }
    }
}

#[test]
fn packed_bombs_are_not_unpacked() {
    use std::io::Write;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pmtiles");
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..100 {
        packer.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    let mut bytes = archive(&bomb, b"", &[], &[]);
    bytes[97] = 2;
    fs::write(&path, &bytes).unwrap();
    assert!(refused(&path).1.contains("a directory is larger than 8388608 bytes"));
}

#[test]
fn large_archives_have_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.pmtiles");
    let mut writer = create_tiles(&path, metadata(), Existing::Refuse).unwrap();
    let cover = BoundingBox::WORLD.tiles(7).unwrap();
    for tile in cover.iter() {
        writer.write(tile, &png(&tile.to_string())).unwrap();
    }
    assert_eq!(writer.tiles().unwrap().len() as u64, cover.len());
    writer.finish().unwrap();
    let reader = open_tiles(&path).unwrap();
    assert_eq!(reader.tiles().unwrap().len() as u64, cover.len());
    for tile in cover.iter() {
        assert_eq!(reader.read(tile).unwrap().unwrap().bytes, png(&tile.to_string()));
    }
}

/// Real data, where they are at hand: `$EARTHMAPPER_DATA`, else `../shared/data` beside the repository.
fn real_data(name: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let data = std::env::var_os("EARTHMAPPER_DATA").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let found = data.join(name);
    if !found.exists() {
        println!("skipped: {} is not there; set EARTHMAPPER_DATA to read real tiles", found.display());
        return None;
    }
    Some(found)
}

#[test]
fn real_vector_tiles_are_recognised() {
    let Some(folder) = real_data("vector") else { return };
    let archives = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in archives.filter(|path| path.extension().is_some_and(|ending| ending == "pmtiles")) {
        let (error, text) = refused(&path);
        assert!(matches!(error, StoreError::VectorTiles { .. }), "{text}");
    }
}

/// Lays flat files `OAM-{x}-{y}-{z}.png` out as a pyramid, and counts them.
fn lay_out(flat: &Path, pyramid: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(flat).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let Some(numbers) = stem.strip_prefix("OAM-") else { continue };
        let [x, y, z] = numbers.split('-').collect::<Vec<_>>().try_into().unwrap();
        let column = pyramid.join(z).join(x);
        fs::create_dir_all(&column).unwrap();
        fs::copy(&path, column.join(format!("{y}.png"))).unwrap();
        count += 1;
    }
    count
}

#[test]
fn real_pictures_survive_all_kinds() {
    // Where the cities are, by their maps.
    for (city, middle) in [("kampala", (32.58, 0.35)), ("zanzibar", (39.2, -6.16))] {
        let Some(flat) = real_data(&format!("openaerialmap/{city}")) else { return };
        let folder = tempfile::tempdir().unwrap();
        let pyramid = folder.path().join(city);
        let count = lay_out(&flat, &pyramid);
        assert!(count > 100);

        let reader = open_tiles(&pyramid).unwrap();
        let metadata = reader.metadata();
        assert_eq!(metadata.name, city);
        assert_eq!(
            (metadata.min_zoom, metadata.max_zoom, metadata.format),
            (Some(19), Some(21), TileFormat::Png)
        );
        let tiles = reader.tiles().unwrap();
        assert_eq!(tiles.len(), count);
        for tile in &tiles {
            let centre = tile.centre();
            let away = (centre.longitude() - middle.0).hypot(centre.latitude() - middle.1);
            assert!(away < 0.3, "{tile} lies at {centre:?}");
            assert!((0.05..0.31).contains(&tile.metres_per_pixel(256)));
        }
        check_round_trip(&pyramid, folder.path());
    }
}

#[test]
fn boxes_hold_and_touch_each_other() {
    let bounds = |west, south, east, north| BoundingBox::new(west, south, east, north).unwrap();
    let city = bounds(10.0, 40.0, 12.0, 42.0);
    let fiji = bounds(177.0, -19.0, -178.0, -16.0);
    for (holder, other, holds, touches) in [
        (city, city, true, true),
        (city, bounds(10.0, 41.0, 11.0, 42.0), true, true),
        (city, bounds(11.0, 41.0, 13.0, 41.5), false, true),
        (city, bounds(12.0, 42.0, 13.0, 43.0), false, true),
        (city, bounds(12.1, 40.0, 13.0, 41.0), false, false),
        (city, bounds(11.0, 42.1, 11.5, 43.0), false, false),
        (bounds(11.0, 41.0, 11.5, 41.5), city, false, true),
        (fiji, bounds(178.0, -18.0, -179.0, -17.0), true, true),
        (fiji, bounds(179.0, -18.0, -177.0, -17.0), false, true),
        (fiji, bounds(-178.5, -18.0, 178.5, -17.0), false, true),
        (fiji, city, false, false),
        (BoundingBox::WORLD, fiji, true, true),
    ] {
        assert_eq!((holder.holds(other), holder.touches(other)), (holds, touches), "{holder:?} {other:?}");
        assert_eq!(other.touches(holder), touches);
    }
}
