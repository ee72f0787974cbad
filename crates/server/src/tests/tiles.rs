//! What is made, what is kept, and what is not there.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::Request;
use earthmapper::Modality;
use earthmapper::pyramid::{Pyramid, PyramidOptions};
use earthmapper::scene::Seam;
use earthmapper_geo::picture::{Mask, decode_with_holes, encode_with_holes};
use earthmapper_geo::raster::{AffineTransform, Epsg, GeoReference, RasterOptions, RasterWriter};
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, copy_tiles, create_tiles, open_tiles};
use earthmapper_geo::{Picture, PictureLimits, read_provenance};

use super::{SIZE, Served, all_tiles, ground, tile};
use crate::testing;

/// All tiles of the ground as the library makes them in one go.
fn expected(served: &Served, seed: u64) -> HashMap<(u32, u32), Picture> {
    let (model, reader) = (testing::model(), open_tiles(&served.tiles).unwrap());
    let all = all_tiles();
    let options = PyramidOptions {
        to: Modality::Satellite,
        seed,
        generation: model.generation.towards(Modality::Satellite),
        seam: Seam::Blend,
        batch_size: 3,
        remembered: 256,
        limits: PictureLimits::default(),
        side: None,
        ground: reader.metadata().clone().completed(&all).bounds,
    };
    let mut pyramid = Pyramid::new(reader.as_ref(), &model, options);
    pyramid.prepare(&all).unwrap();
    let each = (0..SIZE.1).flat_map(|row| (0..SIZE.0).map(move |column| (column, row)));
    each.map(|(column, row)| ((column, row), pyramid.tile(tile(column, row)).unwrap().tile.picture)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_are_those_of_the_whole_pyramid_in_any_order() {
    let served = Served::new().await;
    for seed in [0, 5] {
        let expected = expected(&served, seed);
        for (column, row) in [(3, 3), (0, 0), (1, 2), (3, 0)] {
            let answer = served.ground(column, row, &format!(".png?seed={seed}")).await.is(200);
            assert_eq!(answer.header("content-type"), "image/png");
            assert_eq!(answer.picture(), expected[&(column, row)], "{column}, {row}");
        }
    }
    let (first, second) = (served.ground(0, 0, ".png").await, served.ground(0, 0, ".png?seed=5").await);
    assert_ne!(first.picture(), second.picture());
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_and_sizes_are_as_asked() {
    let served = Served::new().await;
    let single = served.ground(1, 1, ".png").await.is(200).picture();
    for (ending, kind) in [(".webp", "image/webp"), (".jpg", "image/jpeg")] {
        let answer = served.ground(1, 1, ending).await.is(200);
        assert_eq!(answer.header("content-type"), kind);
        let picture = answer.picture();
        assert_eq!((picture.width(), picture.height()), (testing::SIDE, testing::SIDE));
        if ending == ".webp" {
            assert_eq!(picture, single, "WebP loses nothing");
        }
    }
    // There is no zoom 17, so the tile itself is enlarged.
    let double = served.ground(1, 1, "@2x.png").await.is(200).picture();
    assert_eq!(double, single.resized(2 * testing::SIDE, 2 * testing::SIDE));
    let undecided = served.get(&ground(1, 1, ".png").replace("/16/", "/uncertainty/16/")).await.is(200);
    assert!(undecided.picture().rgb().as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b));
    let original = served.get(&ground(1, 1, ".png").replace("/16/", "/original/16/")).await.is(200);
    assert_eq!(original.picture(), testing::drawn(tile(1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_zooms_make_a_sharper_tile() {
    let folder = tempfile::tempdir().unwrap();
    let parent = tile(0, 0);
    let mut all = vec![parent];
    all.extend(parent.children().unwrap());
    let tiles = testing::tiles(folder.path(), &all);
    let source = testing::source("deep", None, Some(tiles));
    let served = Served::with(|config| config.sources = vec![source], None).await;
    let name = |tile: earthmapper_geo::Tile, ending: &str| format!("/deep/{tile}{ending}");
    let double = served.get(&name(parent, "@2x.png")).await.is(200).picture();
    for (index, child) in parent.children().unwrap().into_iter().enumerate() {
        let single = served.get(&name(child, ".png")).await.is(200).picture();
        let (right, down) = (index as u32 % 2, index as u32 / 2);
        let side = testing::SIDE;
        assert_eq!(double.crop(right * side, down * side, side, side), single, "{child}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_name_bytes_and_spare_them() {
    let served = Served::new().await;
    let answer = served.ground(2, 1, ".png").await.is(200);
    let tag = answer.header("etag").to_owned();
    assert!(tag.starts_with('"') && !tag.starts_with("W/"), "{tag}");
    assert!(answer.header("cache-control").contains("max-age"));
    let known = Request::get(ground(2, 1, ".png")).header("if-none-match", &tag).body(Body::empty());
    let unchanged = served.send(known.unwrap()).await.is(304);
    assert!(unchanged.body.is_empty() && unchanged.header("etag") == tag);
    let mut tags = vec![tag];
    for other in [
        ground(2, 2, ".png"),
        ground(2, 1, ".jpg"),
        ground(2, 1, "@2x.png"),
        ground(2, 1, ".png?seed=1"),
        ground(2, 1, ".png").replace("/16/", "/uncertainty/16/"),
    ] {
        tags.push(served.get(&other).await.is(200).header("etag").to_owned());
    }
    let before = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), before, "one name for two answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_is_made_once() {
    let served = Served::new().await;
    let made = |served: &Served| {
        let text = served.app.metrics.text(served.app.gauges());
        let line = text.lines().find(|line| line.starts_with("earthmapper_tiles_made_total ")).unwrap();
        line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    let path = ground(0, 1, ".png");
    let all: Vec<_> = (0..6).map(|_| served.get(&path)).collect();
    let mut bodies = Vec::new();
    for answer in futures(all).await {
        bodies.push(answer.is(200).body);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(made(&served), 1, "asked for six times at once");
    served.get(&path).await.is(200);
    assert_eq!(made(&served), 1);
}

/// Answers of requests that run at the same time.
async fn futures<F: std::future::Future<Output = super::Answer>>(all: Vec<F>) -> Vec<super::Answer> {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<super::Answer>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(answer) = future.as_mut().poll(context)
            {
                *done = Some(answer);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_there_in_one_way() {
    let served = Served::new().await;
    let nothing = served.get("/nothing").await.is(404).body;
    for path in [
        "/elsewhere/16/32768/32764.png",
        "/ground/16/32767/32764.png",
        "/ground/16/32772/32764.png",
        "/ground/3/4/4.png",
        "/ground/17/65536/65528.png",
        "/ground/16/32768/32764.gif",
        "/ground/16/32768/32764",
        "/ground/16/032768/32764.png",
        "/ground/16/-1/32764.png",
        "/ground/99/1/1.png",
        "/ground/16/32768/32764.png?to=map",
        "/ground/original/16/32768/32764.png?of=satellite",
        "/ground/tilejson.json?to=map",
        "/..%2F..%2Fetc%2Fpasswd/16/1/1.png",
        "/ground/16/..%2F/32764.png",
        "/assets/..%2Fmod.rs",
        "/assets/%2Fetc%2Fpasswd",
        "/v1/jobs/00000000000000000000000000000000",
        "/v1/jobs/..%2Fa/tiles.pmtiles",
        "/%00",
    ] {
        let answer = served.get(path).await.is(404);
        assert_eq!(answer.body, nothing, "{path}");
    }
    served.get("/ground/16/32768/32764.png?seed=-1").await.is(400);
    served.get("/ground/16/32768/32764.png?to=everything").await.is(400);
    served.post("/ground/16/32768/32764.png", "text/plain", "").await.is(405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_tile_breaks_alone_and_says_nothing_of_the_inside() {
    let served = Served::new().await;
    let broken = tile(1, 1);
    let path = served.tiles.join(format!("{broken}.png"));
    std::fs::write(&path, [&png_head()[..], b"and no more"].concat()).unwrap();
    for _ in 0..2 {
        let answer = served.ground(1, 1, ".png").await.is(500);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!text.contains(served.tiles.to_str().unwrap()) && !text.contains("png"), "{text}");
    }
    served.ground(2, 1, ".png").await.is(200);
    let hole = tile(3, 3);
    std::fs::remove_file(served.tiles.join(format!("{hole}.png"))).unwrap();
    served.ground(3, 3, ".png").await.is(404);
}

fn png_head() -> [u8; 8] {
    *b"\x89PNG\r\n\x1A\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_says_that_it_is_synthetic() {
    let served = Served::new().await;
    let folder = tempfile::tempdir().unwrap();
    for ending in [".png", ".jpg", ".webp", "@2x.png"] {
        let path = folder.path().join(format!("a{ending}"));
        std::fs::write(&path, served.ground(0, 0, ending).await.is(200).body).unwrap();
        let label = read_provenance(&path).unwrap().unwrap();
        for word in ["trainedAlgorithmicMedia", "tiny", "map → satellite"] {
            assert!(label.contains(word), "{ending}: {label}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_the_cache_outlasts_the_process() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("kept");
    let tiles = testing::tiles(cache.path(), &all_tiles());
    let start = || {
        Served::with(
            |config| {
                config.cache.folder = Some(folder.clone());
                config.sources = vec![testing::source("ground", None, Some(tiles.clone()))];
            },
            None,
        )
    };
    let first = start().await;
    let answer = first.ground(0, 0, ".png").await.is(200);
    let key = answer.header("etag").trim_matches('"').to_owned();
    let file = folder.join(&key[..2]).join(&key);
    assert_eq!(std::fs::read(&file).unwrap(), answer.body);
    drop(first);
    // Another process gives what lies there, whatever the model would make.
    std::fs::write(&file, b"from before").unwrap();
    let second = start().await;
    assert_eq!(second.ground(0, 0, ".png").await.is(200).body, "from before");
    assert_eq!((second.counted("tiles_made_total"), second.counted("cache_disk_hits_total")), (0.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_change_with_the_model_and_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let tiles = testing::tiles(folder.path(), &all_tiles());
    let tag = async |fingerprint: &str, change: &dyn Fn(&mut crate::config::SourceConfig)| {
        let mut source = testing::source("ground", None, Some(tiles.clone()));
        // No tile is made: who knows every answer is told which one there is.
        source.force = true;
        change(&mut source);
        let config = crate::Config { sources: vec![source], ..Default::default() };
        let model = crate::ServedModel { model: testing::model(), fingerprint: fingerprint.into() };
        let app = crate::App::start(config, model, None).unwrap();
        let request = Request::get(ground(0, 0, ".png")).header("if-none-match", "*");
        let answer =
            tower::ServiceExt::oneshot(crate::router(app), request.body(Body::empty()).unwrap()).await;
        answer.unwrap().headers()["etag"].to_str().unwrap().to_owned()
    };
    let first = tag("tiny", &|_| {}).await;
    assert_eq!(tag("tiny", &|_| {}).await, first, "two processes agree");
    let mut tags = vec![first];
    tags.push(tag("other", &|_| {}).await);
    tags.push(tag("tiny", &|source| source.version = "2".into()).await);
    tags.push(tag("tiny", &|source| source.seam = crate::config::SeamName::Crop).await);
    tags.push(tag("tiny", &|source| source.tile_side = 512).await);
    tags.push(tag("tiny", &|source| source.map.as_mut().unwrap().offset = [1.0, 0.0]).await);
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(tiles.join("new"), "").unwrap();
    tags.push(tag("tiny", &|_| {}).await);
    let count = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), count, "one name for two answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_source_is_transparent_so_is_the_result() {
    let served = Served::new().await;
    let side = testing::SIDE;
    let holed = |is_hole: &dyn Fn(u32, u32) -> bool, at: (u32, u32)| {
        let picture = testing::drawn(tile(at.0, at.1));
        let holes = Mask::drawn(side, side, is_hole);
        let bytes = encode_with_holes("png", &picture, &holes, &Default::default()).unwrap();
        std::fs::write(served.tiles.join(format!("{}.png", tile(at.0, at.1))), bytes).unwrap();
        holes
    };
    let holes = holed(&|x, y| x < 6 && y > 3, (1, 1));
    let all = holed(&|_, _| true, (3, 0));
    for (at, holes) in [((1, 1), &holes), ((3, 0), &all)] {
        for ending in [".png", ".webp"] {
            let made = served.ground(at.0, at.1, ending).await.is(200);
            let (_, found) = decode_with_holes(&made.body, "tile", &PictureLimits::default()).unwrap();
            assert!(found == *holes, "{ending}");
        }
        let double = served.ground(at.0, at.1, "@2x.png").await.is(200);
        let (_, found) = decode_with_holes(&double.body, "tile", &PictureLimits::default()).unwrap();
        assert_eq!(found.hole_count(), 4 * holes.hole_count());
    }
    // JPEG has no holes; it shows white, give or take what JPEG does to edges.
    for path in [ground(1, 1, ".jpg"), ground(1, 1, ".jpg").replace("/16/", "/original/16/")] {
        let picture = served.get(&path).await.is(200).picture();
        assert!(picture.pixel(1, 14).iter().all(|value| *value > 230), "{path}: {:?}", picture.pixel(1, 14));
    }
    let empty = served.ground(3, 0, ".jpg").await.is(200).picture();
    assert!(empty.rgb().iter().all(|value| *value > 250));
    // A tile without holes has none.
    let whole = served.ground(2, 3, ".png").await.is(200);
    let (_, found) = decode_with_holes(&whole.body, "tile", &PictureLimits::default()).unwrap();
    assert_eq!(found.hole_count(), 0);
}

/// The same ground from every kind of store gives the same tiles; a COG gives tiles of its own ground.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_source_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let tiles = testing::tiles(folder.path(), &all_tiles());
    let mut sources = vec![testing::source("ground", None, Some(tiles.clone()))];
    for kind in ["mbtiles", "pmtiles"] {
        let path = folder.path().join(format!("ground.{kind}"));
        let mut writer =
            create_tiles(&path, TileMetadata::new("ground", TileFormat::Png), Existing::Refuse).unwrap();
        copy_tiles(open_tiles(&tiles).unwrap().as_ref(), writer.as_mut()).unwrap();
        writer.finish().unwrap();
        sources.push(testing::source(kind, None, Some(path)));
    }
    let cog = folder.path().join("photograph.tif");
    let mut options = RasterOptions::new(64, 64);
    // The ground of the tiles, in the metres of web Mercator.
    let world = 2.0 * 20_037_508.342_789_244;
    let metres = world / f64::from(1u32 << 16) / f64::from(testing::SIDE);
    let corner = tile(0, 0);
    let left = f64::from(corner.x()) * f64::from(testing::SIDE) * metres - world / 2.0;
    let top = world / 2.0 - f64::from(corner.y()) * f64::from(testing::SIDE) * metres;
    let transform = AffineTransform::north_up((left, top), (metres, metres));
    options.georeference = Some(GeoReference::from_epsg(transform, Epsg(3857)).unwrap());
    let mut writer = RasterWriter::create(&cog, options).unwrap();
    let picture = Picture::drawn(64, 64, |x, y| {
        testing::drawn(tile(x / testing::SIDE, y / testing::SIDE)).pixel(x % testing::SIDE, y % testing::SIDE)
    });
    writer.write_rows(&picture, None).unwrap();
    writer.finish().unwrap();
    let mut raster = testing::source("cog", Some(cog), None);
    (raster.tile_side, raster.force) = (64, true);
    sources.push(raster);
    let served = Served::with(|config| config.sources = sources, None).await;
    let expected = served.ground(2, 1, ".png").await.is(200).picture();
    for kind in ["mbtiles", "pmtiles"] {
        let made = served.get(&ground(2, 1, ".png").replace("/ground/", &format!("/{kind}/"))).await.is(200);
        assert_eq!(made.picture(), expected, "{kind}");
    }
    let catalog = served.get("/catalog").await.is(200).json();
    let cog = catalog["sources"].as_array().unwrap().iter().find(|source| source["id"] == "cog").unwrap();
    let direction = &cog["directions"][0];
    assert_eq!((direction["to"].as_str(), direction["tile_size"].as_u64()), (Some("map"), Some(64)));
    // At zoom 14 the raster is one tile of 64 pixels, pixel for pixel.
    let name = format!("/cog/original/{}.png", tile(0, 0).ancestor(14).unwrap());
    assert_eq!(served.get(&name).await.is(200).picture(), picture);
    let made = served.get(&name.replace("/original", "")).await.is(200).picture();
    assert_eq!((made.width(), made.height()), (64, 64));
}
