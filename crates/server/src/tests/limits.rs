//! Too much, too slow, too curious.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use earthmapper::Modality;
use earthmapper_geo::Tile;
use earthmapper_geo::store::{EncodedTile, StoreError, TileMetadata, TileReader, open_tiles};

use super::{Served, ground, png};
use crate::engine::{Engine, TileRequest, Urgency};
use crate::metrics::Metrics;
use crate::sources::{Layer, Source};
use crate::testing;

fn plain(path: &str) -> axum::http::request::Builder {
    Request::get(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_sends_away_and_says_for_how_long() {
    let served = Served::with(|config| config.engine.queue = 1, None).await;
    let held = served.hold().await;
    let waiting = served.ask(&ground(0, 0, ".png"));
    served.waits(1).await;
    let refused = served.ground(1, 0, ".png").await.is(503);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.header("cache-control"), "no-store");
    // The same tile is no more work.
    let joined = served.ask(&ground(0, 0, ".png"));
    while served.counted("queue_joined_total") == 0.0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(held);
    assert_eq!(waiting.await.unwrap().is(200).body, joined.await.unwrap().is(200).body);
    assert_eq!((served.counted("tiles_made_total"), served.counted("queue_refused_total")), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_are_made_together() {
    let served = Served::new().await;
    let held = served.hold().await;
    let mut asked = Vec::new();
    for (count, (column, row)) in [(0, 0), (1, 0), (2, 1), (3, 3)].into_iter().enumerate() {
        asked.push(served.ask(&ground(column, row, ".png")));
        served.waits(count + 1).await;
    }
    // Another seed has other windows.
    let apart = served.ask(&ground(0, 0, ".png?seed=1"));
    served.waits(5).await;
    drop(held);
    for answer in asked {
        answer.await.unwrap().is(200);
    }
    apart.await.unwrap().is(200);
    assert_eq!((served.counted("tiles_made_total"), served.counted("batches_total")), (5.0, 2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_is_not_waited_for() {
    let served = Served::with(
        |config| {
            config.engine.tile_seconds = 1;
            config.engine.task_seconds = 1;
        },
        None,
    )
    .await;
    let held = served.hold().await;
    let late = served.ground(0, 0, ".png").await.is(503);
    assert!(late.header("retry-after").parse::<u64>().unwrap() >= 1);
    let picture = png(&testing::drawn(super::tile(0, 0)));
    let late = served.post("/v1/translate?to=satellite", "image/png", picture).await.is(503);
    assert!(late.header("retry-after").parse::<u64>().unwrap() >= 1);
    drop(held);
    // Nobody waited any more, so nothing of it was done. This one has all the time it needs, on a busy machine too.
    let request = TileRequest { source: 0, to: Modality::Satellite, seed: 0, tile: super::tile(1, 1) };
    let made = served.app.tiles.engine.submit(request, Urgency::Now).unwrap();
    assert!(made.await.unwrap().is_ok());
    assert_eq!((served.counted("tiles_made_total"), served.counted("queue_dropped_total")), (1.0, 2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_whose_client_left_is_not_done() {
    let served = Served::new().await;
    let held = served.hold().await;
    let leaves = served.ask(&ground(2, 2, ".png"));
    served.waits(1).await;
    leaves.abort();
    assert!(leaves.await.is_err());
    drop(held);
    served.ground(0, 0, ".png").await.is(200);
    assert_eq!((served.counted("queue_dropped_total"), served.counted("tiles_made_total")), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_means_warm() {
    let folder = tempfile::tempdir().unwrap();
    let source = testing::source("ground", None, Some(testing::tiles(folder.path(), &super::all_tiles())));
    let config = crate::Config { sources: vec![source], ..crate::Config::default() };
    let model = crate::ServedModel { model: testing::model(), fingerprint: "tiny".into() };
    let app = crate::App::start(config, model, None).unwrap();
    while !app.is_ready() {
        std::thread::yield_now();
    }
    let text = app.metrics.text(app.gauges());
    let worked = text.lines().find_map(|line| line.strip_prefix("earthmapper_model_seconds_total ")).unwrap();
    assert!(
        worked.parse::<f64>().unwrap() > 0.0,
        "a picture was made before the server said that it is ready"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_its_share_only() {
    let served = Served::with(|config| config.limits.per_client = 1, None).await;
    let address = "10.0.0.7".parse().unwrap();
    let pass = served.app.enter(Some(address)).unwrap();
    let request = || {
        let mut request = plain(&ground(0, 0, ".png")).body(Body::empty()).unwrap();
        request.extensions_mut().insert(crate::guard::Peer(address));
        request
    };
    let refused = served.send(request()).await.is(429);
    assert_eq!(refused.header("retry-after"), "1");
    assert!(served.app.enter(Some("10.0.0.8".parse().unwrap())).is_ok());
    drop(pass);
    served.send(request()).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_need_the_token_and_the_servers_own_page() {
    let served = Served::with(|_| {}, Some("secret\n")).await;
    let body = || Body::from(png(&testing::drawn(super::tile(0, 0))));
    let path = "/v1/translate?to=satellite";
    let post = || Request::post(path).header("host", "localhost:8000");
    let refused = served.send(post().body(body()).unwrap()).await.is(401);
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    for wrong in ["Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "Basic secret", "secret"] {
        served.send(post().header("authorization", wrong).body(body()).unwrap()).await.is(401);
    }
    served.get("/v1/jobs").await.is(401);
    let right = || post().header("authorization", "bearer secret");
    served.send(right().body(body()).unwrap()).await.is(200);
    for origin in ["https://evil.example", "null", "http://localhost:8001", "http://localhost"] {
        served.send(right().header("origin", origin).body(body()).unwrap()).await.is(403);
    }
    served.send(right().header("origin", "http://localhost:8000").body(body()).unwrap()).await.is(200);
    // Reading needs neither.
    served.ground(0, 0, ".png").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_for_this_machine_are_refused() {
    let served = Served::new().await;
    for (host, status) in [
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 404),
        ("evil.example:8000", 404),
        ("127.0.0.1.evil.example", 404),
        ("a b", 404),
    ] {
        let request = plain("/catalog").header("host", host).body(Body::empty()).unwrap();
        served.send(request).await.is(status);
    }
    let public = Served::with(|config| config.public_url = Some("https://maps.example".into()), None).await;
    public.send(plain("/catalog").header("host", "maps.example").body(Body::empty()).unwrap()).await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_pictures_have_limits() {
    let served = Served::with(
        |config| {
            config.limits.body_bytes = 20_000;
            config.limits.pixels = 400;
        },
        None,
    )
    .await;
    let path = "/v1/translate?to=satellite";
    served.post(path, "image/png", vec![0u8; 20_001]).await.is(413);
    let large = earthmapper_geo::Picture::filled(21, 20, [9; 3]);
    let refused = served.post(path, "image/png", png(&large)).await.is(413);
    assert!(refused.json()["error"].as_str().unwrap().contains("21 × 20"));
    let small = png(&earthmapper_geo::Picture::filled(20, 20, [9; 3]));
    served.post(path, "image/png", small.clone()).await.is(200);
    served.post(&format!("{path}&scale=20"), "image/png", small.clone()).await.is(413);
    served.post(&format!("{path}&samples=9"), "image/png", small).await.is(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_browsers_what_they_may_do() {
    let served = Served::new().await;
    for path in ["/", "/assets/app.js", "/catalog", &ground(0, 0, ".png"), "/nothing"] {
        let answer = served.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    let page = String::from_utf8(served.get("/").await.is(200).body.to_vec()).unwrap();
    let lower = page.to_lowercase();
    for inline in ["<style", " style=", "onclick=", "javascript:", "http://", "https://"] {
        assert!(!lower.contains(inline), "{inline}");
    }
    assert_eq!(served.ground(0, 0, ".png").await.header("access-control-allow-origin"), "*");
    assert_eq!(served.get("/v1/jobs").await.is(200).header("access-control-allow-origin"), "");
    let closed = Served::with(|config| config.open_to_other_pages = false, None).await;
    assert_eq!(closed.ground(0, 0, ".png").await.header("access-control-allow-origin"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_was_begun() {
    let served = Served::new().await;
    served.get("/ready").await.is(200);
    let router = served.router.clone();
    let asked = tokio::spawn(async move {
        tower::ServiceExt::oneshot(router, plain(&ground(3, 1, ".png")).body(Body::empty()).unwrap()).await
    });
    while served.app.tiles.engine.waiting() == 0 && !asked.is_finished() {
        tokio::task::yield_now().await;
    }
    served.app.announce_stop();
    let app = served.app.clone();
    tokio::task::spawn_blocking(move || app.stop()).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    served.get("/ready").await.is(503);
    served.ground(1, 3, ".png").await.is(503);
    served.get("/health").await.is(200);
}

/// A source that waits for a word before it gives a tile.
struct Hesitant {
    inner: Box<dyn TileReader>,
    reading: mpsc::Sender<()>,
    go_on: Mutex<Option<mpsc::Receiver<()>>>,
}

impl TileReader for Hesitant {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn metadata(&self) -> &TileMetadata {
        self.inner.metadata()
    }

    fn read(&self, tile: Tile) -> Result<Option<EncodedTile>, StoreError> {
        if let Some(go_on) = self.go_on.lock().unwrap().take() {
            self.reading.send(()).unwrap();
            let _ = go_on.recv_timeout(Duration::from_secs(60));
        }
        self.inner.read(tile)
    }

    fn contains(&self, tile: Tile) -> Result<bool, StoreError> {
        self.inner.contains(tile)
    }

    fn visit(&self, visitor: &mut dyn FnMut(Tile) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.inner.visit(visitor)
    }
}

#[test]
fn what_came_too_late_is_there_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let tiles = testing::tiles(folder.path(), &super::all_tiles());
    let (reading, is_reading) = mpsc::channel();
    let (release, go_on) = mpsc::channel::<()>();
    let inner = open_tiles(&tiles).unwrap();
    let reader = Hesitant { inner, reading, go_on: Mutex::new(None) };
    let options = testing::source("ground", None, Some(tiles.clone()));
    let model = testing::model();
    let mut layer = Layer::new(open_tiles(&tiles).unwrap(), String::new()).unwrap();
    *reader.go_on.lock().unwrap() = Some(go_on);
    layer.reader = Box::new(reader);
    let sources = Arc::new(vec![Source::of_layers(&options, [None, Some(layer)], &model.config)]);
    let metrics = Arc::new(Metrics::default());
    let engine = Engine::start(model, sources, Default::default(), metrics.clone(), || {});
    let request = || TileRequest { source: 0, to: Modality::Satellite, seed: 0, tile: super::tile(1, 1) };
    let first = engine.submit(request(), Urgency::Now).unwrap();
    is_reading.recv().unwrap();
    // Who asked leaves in the middle of it.
    drop(first);
    release.send(()).unwrap();
    let made = || metrics.text(Default::default()).contains("\nearthmapper_tiles_made_total 1\n");
    while !made() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let second = engine.submit(request(), Urgency::Now).unwrap();
    assert!(second.blocking_recv().unwrap().is_ok());
    assert!(made(), "it was made once");
}
