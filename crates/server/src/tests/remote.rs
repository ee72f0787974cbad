//! Tiles of another server, which here is a thread on this machine.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::{Served, all_tiles, ground, png, tile};
use crate::testing;

/// Status and body by path.
type Answers = HashMap<String, (u16, Vec<u8>)>;

/// A server of tiles; it answers what it is told to, and writes down what it was asked.
struct Elsewhere {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Answers>>,
}

impl Elsewhere {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (asked, answers) = (Arc::default(), Arc::default());
        let elsewhere = Self { host, asked, answers };
        for tile in all_tiles() {
            elsewhere.answers(&format!("/{tile}.png"), 200, png(&testing::drawn(tile)));
        }
        let (asked, answers) = (elsewhere.asked.clone(), elsewhere.answers.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let Some(first) = lines.next() else { continue };
                while lines.next().is_some_and(|line| !line.is_empty()) {}
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, body) = answers.lock().unwrap().get(&path).cloned().unwrap_or((404, Vec::new()));
                asked.lock().unwrap().push(path);
                let head = format!(
                    "HTTP/1.1 {status} So\r\nContent-Length: {}\r\nLocation: /elsewhere.png\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        elsewhere
    }

    fn answers(&self, path: &str, status: u16, body: Vec<u8>) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status, body));
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// A server that translates these tiles.
    async fn served(&self) -> Served {
        let address = format!("http://{}/{{z}}/{{x}}/{{y}}.png", self.host);
        let mut source = testing::source("ground", None, Some(address.into()));
        source.map.as_mut().unwrap().attribution = Some("elsewhere".into());
        (source.min_zoom, source.max_zoom, source.tile_side) = (Some(16), Some(16), 64);
        let (first, last) = (tile(0, 0).bounds(), tile(3, 3).bounds());
        let inside = [first.west() + 1e-5, last.south() + 1e-5, last.east() - 1e-5, first.north() - 1e-5];
        source.bounds = Some(inside.try_into().unwrap());
        source.force = true;
        Served::with(
            |config| {
                config.remote.hosts = vec![self.host.clone()];
                config.sources = vec![source];
            },
            None,
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_of_another_server_are_translated() {
    let elsewhere = Elsewhere::new();
    let large =
        |seed| earthmapper_geo::Picture::drawn(64, 64, move |x, y| [(x * 3 + seed) as u8, (y * 3) as u8, 90]);
    let folder = tempfile::tempdir().unwrap();
    for tile in all_tiles() {
        let bytes = png(&large(tile.x() * 40 + tile.y()));
        elsewhere.answers(&format!("/{tile}.png"), 200, bytes.clone());
        let path = folder.path().join(format!("{tile}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let served = elsewhere.served().await;
    assert!(elsewhere.asked().is_empty(), "nobody is asked before a client wants a tile");
    let mut source = testing::source("ground", None, Some(folder.path().to_owned()));
    source.force = true;
    let local = Served::with(|config| config.sources = vec![source], None).await;
    for (column, row) in [(0, 0), (2, 1), (3, 3)] {
        let made = served.ground(column, row, ".png").await.is(200).picture();
        assert_eq!(made, local.ground(column, row, ".png").await.is(200).picture(), "{column}, {row}");
    }
    let mut asked = elsewhere.asked();
    let count = asked.len();
    asked.sort();
    asked.dedup();
    assert_eq!(asked.len(), count, "each tile is fetched once");
    let original = served.get(&ground(2, 1, ".png").replace("/16/", "/original/16/")).await.is(200);
    assert_eq!(original.picture(), large(tile(2, 1).x() * 40 + tile(2, 1).y()));
    assert_eq!(elsewhere.asked().len(), count);
    let about = served.get("/ground/tilejson.json").await.is(200).json();
    assert!(about["attribution"].as_str().unwrap().starts_with("elsewhere; synthetic"));
    // Neither the numbers nor the parameters of a request reach beyond the ground.
    served.get("/ground/original/16/1/1.png").await.is(404);
    served.get(&ground(1, 1, ".png?url=http://127.0.0.1:1/")).await.is(200);
    assert!(elsewhere.asked().iter().all(|path| path.starts_with("/16/327")), "{:?}", elsewhere.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_server_does_wrong_stays_small() {
    let elsewhere = Elsewhere::new();
    let path = |column, row| format!("/{}.png", tile(column, row));
    let served = elsewhere.served().await;
    let original = |column, row| ground(column, row, ".png").replace("/16/", "/original/16/");
    elsewhere.answers("/elsewhere.png", 200, png(&testing::drawn(tile(0, 0))));
    elsewhere.answers(&path(0, 0), 302, Vec::new());
    elsewhere.answers(&path(1, 0), 200, b"<html>pay</html>".to_vec());
    elsewhere.answers(&path(2, 0), 200, vec![0; (8 << 20) + 1]);
    elsewhere.answers(&path(3, 0), 404, Vec::new());
    for column in 0..3 {
        let answer = served.get(&original(column, 0)).await.is(500);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!text.contains("127.0.0.1") && !text.contains("http"), "{text}");
    }
    served.get(&original(3, 0)).await.is(404);
    assert!(!elsewhere.asked().contains(&"/elsewhere.png".to_owned()), "redirects are not followed");
    served.get(&original(1, 1)).await.is(200);
    // One that does not answer is left alone for a while.
    elsewhere.answers(&path(2, 2), 503, Vec::new());
    served.get(&original(2, 2)).await.is(500);
    let before = elsewhere.asked().len();
    served.get(&original(3, 2)).await.is(500);
    assert_eq!(elsewhere.asked().len(), before);
    served.get(&original(1, 1)).await.is(200);
}
