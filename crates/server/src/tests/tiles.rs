//! What is made, what is kept, and what is not there.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::Request;
use earthmapper::Modality;
use earthmapper::pyramid::{Pyramid, PyramidOptions};
use earthmapper::scene::Seam;
use earthmapper_geo::store::open_tiles;
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
    let first = Served::with(|config| config.cache.folder = Some(folder.clone()), None).await;
    let body = first.ground(0, 0, ".png").await.is(200).body;
    let key = first.ground(0, 0, ".png").await.header("etag").trim_matches('"').to_owned();
    assert_eq!(std::fs::read(folder.join(&key[..2]).join(&key)).unwrap(), body);
    // The bytes under that name are given, whatever the model would make.
    let disk = crate::disk::DiskCache::open(&folder, 1 << 20).unwrap();
    assert_eq!(disk.get(&key).unwrap(), body);
}
