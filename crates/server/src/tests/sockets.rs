//! Real connections: clients that are slow, leave, ask for too much, and a server that stops.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Served, ground};
use crate::config::Limits;
use crate::{http, router};

/// A server that listens.
struct Listening {
    served: Served,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<()>,
}

impl Listening {
    async fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let served = Served::with(|config| change(&mut config.limits), None).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (router, limits) = (router(served.app.clone()), served.app.config.limits);
        let ended = tokio::spawn(http::serve(listener, router, limits, async move {
            let _ = stopped.await;
        }));
        Self { served, address, stop: Some(stop), ended }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").into_bytes()
}

/// What a connection says until it ends, and how long that takes.
async fn heard(mut stream: TcpStream, sent: Vec<u8>) -> (String, Duration) {
    let start = Instant::now();
    let answer = tokio::task::spawn_blocking(move || {
        let _ = stream.write_all(&sent);
        let mut answer = Vec::new();
        // A connection that is reset has been heard as well.
        let _ = stream.read_to_end(&mut answer);
        answer
    });
    (String::from_utf8_lossy(&answer.await.unwrap()).into_owned(), start.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_slow_bodies_are_cut_off() {
    let listening = Listening::new(|limits| {
        limits.head_seconds = 1;
        limits.idle_seconds = 1;
    })
    .await;
    let head = heard(listening.connect(), b"GET /catalog HTTP/1.1\r\nHost: local".to_vec());
    let post = |path: &str, kind: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 99\r\n\r\n--a"
        )
        .into_bytes()
    };
    let body = heard(listening.connect(), post("/v1/translate?to=map", "image/png"));
    let form = heard(listening.connect(), post("/v1/inpaint?as=map", "multipart/form-data; boundary=a"));
    let ((head, waited), (body, _), (form, _)) = tokio::join!(head, body, form);
    assert!(!head.contains(" 200 "), "{head}");
    assert!((Duration::from_millis(900)..Duration::from_secs(30)).contains(&waited), "{waited:?}");
    for answer in [body, form] {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_makes_room_for_others() {
    let listening = Listening::new(|limits| {
        limits.connections = 1;
        limits.idle_seconds = 1;
    })
    .await;
    let mut greedy = listening.connect();
    let asking = "GET /assets/maplibre-gl.mjs HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    greedy.write_all(asking.as_bytes()).unwrap();
    let (answer, waited) = heard(listening.connect(), get("/health")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!((Duration::from_millis(900)..Duration::from_secs(30)).contains(&waited), "{waited:?}");
    drop(greedy);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_have_bounds() {
    let listening = Listening::new(|limits| limits.body_bytes = 1000).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(65));
    for sent in [long, many] {
        let (answer, _) = heard(listening.connect(), sent.into_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    // Sizes that are said, and sizes that are not.
    let said = "POST /v1/translate?to=map HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 99999999999\r\n\r\n";
    let unsaid = format!(
        "POST /v1/translate?to=map HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        1001,
        "a".repeat(1001)
    );
    for sent in [said.to_owned(), unsaid] {
        let (answer, _) = heard(listening.connect(), sent.into_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    let (answer, _) = heard(listening.connect(), b"\x16\x03\x01\x02\x00nonsense\r\n\r\n".to_vec()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_takes_its_request_back() {
    let listening = Listening::new(|_| {}).await;
    let held = listening.served.hold().await;
    let mut stream = listening.connect();
    stream.write_all(&get(&ground(2, 2, ".png"))).unwrap();
    listening.served.waits(1).await;
    assert_eq!(listening.served.counted("requests_waiting"), 1.0);
    drop(stream);
    while listening.served.counted("requests_waiting") > 0.0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(held);
    listening.served.ground(0, 0, ".png").await.is(200);
    let counted = |name| listening.served.counted(name);
    assert_eq!((counted("queue_dropped_total"), counted("tiles_made_total")), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_open_requests_finish() {
    let mut listening = Listening::new(|_| {}).await;
    let held = listening.served.hold().await;
    let asked = tokio::spawn(heard(listening.connect(), get(&ground(1, 1, ".png"))));
    listening.served.waits(1).await;
    listening.stop.take().unwrap().send(()).unwrap();
    while TcpStream::connect(listening.address).is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(held);
    assert!(asked.await.unwrap().0.starts_with("HTTP/1.1 200 "));
    tokio::time::timeout(Duration::from_secs(20), listening.ended).await.expect("the server ends").unwrap();
}
