//! The server without a socket: requests go straight into the router.

mod documents;
mod jobs;
mod limits;
mod pictures;
mod remote;
mod sockets;
mod tiles;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use earthmapper_geo::{Picture, PictureLimits, Tile, decode_picture};
use serde_json::Value;
use tower::ServiceExt;

use crate::app::{App, ServedModel, Shared};
use crate::config::Config;
use crate::{router, testing};

/// The tile of zoom 16 in the upper left corner of the ground of tests.
const CORNER: (u32, u32) = (32_768, 32_764);

/// Columns and rows of the ground.
const SIZE: (u32, u32) = (4, 4);

/// A server with a source `ground`: a map of 4 × 4 tiles of zoom 16.
struct Served {
    app: Shared,
    router: Router,
    /// The folder of the tiles.
    tiles: PathBuf,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn picture(&self) -> Picture {
        decode_picture(&self.body, "answer", &PictureLimits::default()).unwrap()
    }
}

impl Served {
    async fn new() -> Self {
        Self::with(|_| {}, None).await
    }

    async fn with(change: impl FnOnce(&mut Config), token: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tiles = testing::tiles(folder.path(), &all_tiles());
        let source = testing::source("ground", None, Some(tiles.clone()));
        let mut config = Config { sources: vec![source], ..Config::default() };
        change(&mut config);
        config.check().unwrap();
        let model = ServedModel { model: testing::model(), fingerprint: "tiny".into() };
        let app = App::start(config, model, token.map(str::to_owned)).unwrap();
        let served = Self { router: router(app.clone()), app, tiles, _folder: folder };
        while !served.app.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        served
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, kind: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::post(path).header("content-type", kind).body(body.into()).unwrap()).await
    }

    /// Keeps the model busy until the returned sender is used or dropped.
    async fn hold(&self) -> mpsc::Sender<()> {
        let (start, started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let app = self.app.clone();
        tokio::spawn(async move {
            let wait = move |_: &earthmapper::EarthMapper| {
                start.send(()).unwrap();
                let _ = released.recv_timeout(Duration::from_secs(60));
            };
            app.tiles.engine.call(wait).await
        });
        tokio::task::spawn_blocking(move || started.recv().unwrap()).await.unwrap();
        release
    }

    /// Sends a request that is answered later.
    fn ask(&self, path: &str) -> tokio::task::JoinHandle<Answer> {
        let (router, request) = (self.router.clone(), Request::get(path).body(Body::empty()).unwrap());
        tokio::spawn(async move {
            let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            Answer { status: parts.status, headers: parts.headers, body }
        })
    }

    /// Waits until so much waits for the model.
    async fn waits(&self, count: usize) {
        while self.app.tiles.engine.waiting() != count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A number that is counted.
    fn counted(&self, name: &str) -> f64 {
        let text = self.app.metrics.text(self.app.gauges());
        let name = format!("earthmapper_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }

    async fn ground(&self, column: u32, row: u32, file: &str) -> Answer {
        self.get(&ground(column, row, file)).await
    }
}

/// The address of a tile of the ground; `file` is what comes behind its row.
fn ground(column: u32, row: u32, file: &str) -> String {
    format!("/ground/16/{}/{}{file}", CORNER.0 + column, CORNER.1 + row)
}

fn tile(column: u32, row: u32) -> Tile {
    Tile::new(16, CORNER.0 + column, CORNER.1 + row).unwrap()
}

fn all_tiles() -> Vec<Tile> {
    (0..SIZE.1).flat_map(|row| (0..SIZE.0).map(move |column| tile(column, row))).collect()
}

fn png(picture: &Picture) -> Vec<u8> {
    earthmapper_geo::picture::encode_picture("png", picture, &Default::default()).unwrap()
}
