//! The real program on a free port of this machine: it answers, it stops, and it goes on after `kill -9`.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use earthmapper_geo::picture::encode_picture;
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, create_tiles, open_tiles};
use earthmapper_geo::{Picture, Tile};
use support::{SIDE, Workshop};

/// A corner of the ground at zoom 22, where tiles of 16 pixels have about the model's pixels.
const CORNER: (u32, u32) = (2_097_152, 2_097_148);

/// Columns and rows of the ground.
const SIZE: u32 = 20;

struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(workshop: &Workshop, flags: &str) -> Self {
        let mut command = workshop.command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--json", "--model", "model"]);
        let mut process = command
            .args(flags.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url =
            serde_json::from_str::<serde_json::Value>(&line).unwrap()["url"].as_str().unwrap().to_owned();
        let server = Self { process, address: url.strip_prefix("http://").unwrap().to_owned() };
        server.wait_until("/ready", |status, _| status == 200);
        server
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let (head, body) = self.answer(method, path, body);
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    /// Head and body of an answer.
    fn answer(&self, method: &str, path: &str, body: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        (head, answer[end + 4..].to_vec())
    }

    fn wait_until(&self, path: &str, is_enough: impl Fn(u16, &[u8]) -> bool) {
        let end = Instant::now() + Duration::from_secs(120);
        while Instant::now() < end {
            let (status, body) = self.ask("GET", path, "");
            if is_enough(status, &body) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{path} does not become as it should");
    }

    fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_slice(&self.ask("GET", path, "").1).unwrap()
    }
}

fn tile(column: u32, row: u32) -> Tile {
    Tile::new(22, CORNER.0 + column, CORNER.1 + row).unwrap()
}

fn ground(workshop: &Workshop) {
    let metadata = TileMetadata::new("ground", TileFormat::Png);
    let mut writer = create_tiles(workshop.path("ground.mbtiles"), metadata, Existing::Refuse).unwrap();
    for (column, row) in (0..SIZE).flat_map(|row| (0..SIZE).map(move |column| (column, row))) {
        let picture =
            Picture::drawn(SIDE, SIDE, |x, y| [(column * 12 + x) as u8, (row * 12 + y) as u8, (x * y) as u8]);
        writer
            .write(tile(column, row), &encode_picture("png", &picture, &Default::default()).unwrap())
            .unwrap();
    }
    writer.finish().unwrap();
    let config = "[[source]]\nid = \"ground\"\nmap = { path = \"ground.mbtiles\" }\n";
    std::fs::write(workshop.path("serve.toml"), config).unwrap();
}

#[test]
fn a_tile_served_is_the_tile_made_by_tile() {
    let workshop = Workshop::new();
    ground(&workshop);
    let server = Server::start(&workshop, "--config serve.toml");
    workshop.run("tile ground.mbtiles out/made --to satellite --model model --seed 3 -q").succeeded();
    let reader = open_tiles(workshop.path("out/made")).unwrap();
    let decoded = |bytes: &[u8]| earthmapper_geo::decode_picture(bytes, "tile", &Default::default()).unwrap();
    for (column, row) in [(5, 7), (0, 0), (19, 19)] {
        let tile = tile(column, row);
        let (status, served) = server.ask("GET", &format!("/ground/{tile}.png?seed=3"), "");
        assert_eq!(status, 200);
        let made = reader.read(tile).unwrap().unwrap();
        assert_eq!(decoded(&served), decoded(&made.bytes), "{tile}");
    }
}

/// Asks for all tiles of the ground; gives the address of the job.
fn start_job(server: &Server) -> String {
    let (first, last) = (tile(0, 0).bounds(), tile(SIZE - 1, SIZE - 1).bounds());
    let inside = 1e-7;
    let body = format!(
        "{{\"source\":\"ground\",\"to\":\"satellite\",\"bbox\":[{},{},{},{}],\"min_zoom\":22,\"max_zoom\":22}}",
        first.west() + inside,
        last.south() + inside,
        last.east() - inside,
        first.north() - inside
    );
    let (status, taken) = server.ask("POST", "/v1/jobs", &body);
    assert_eq!(status, 202, "{}", String::from_utf8_lossy(&taken));
    let job = serde_json::from_slice::<serde_json::Value>(&taken).unwrap();
    format!("/v1/jobs/{}", job["id"].as_str().unwrap())
}

fn job(body: &[u8]) -> serde_json::Value {
    serde_json::from_slice(body).unwrap()
}

/// Waits for a job and reads its result: every tile with its bytes, each counted as often as the archive names it.
fn result(workshop: &Workshop, server: &Server, path: &str, name: &str) -> Vec<(Tile, Vec<u8>)> {
    server.wait_until(path, |_, body| job(body)["state"] == "done");
    let shown = server.json(path);
    let all = u64::from(SIZE * SIZE);
    assert_eq!((shown["made"].as_u64(), shown["failed"].as_u64()), (Some(all), Some(0)), "{shown}");
    let (status, archive) = server.ask("GET", &format!("{path}/tiles.pmtiles"), "");
    assert_eq!(status, 200);
    std::fs::write(workshop.path(name), archive).unwrap();
    let reader = open_tiles(workshop.path(name)).unwrap();
    let mut tiles = Vec::new();
    reader
        .visit(&mut |tile| {
            tiles.push(tile);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    tiles.sort();
    tiles.into_iter().map(|tile| (tile, reader.read(tile).unwrap().unwrap().bytes)).collect()
}

#[test]
fn a_job_outlasts_kill() {
    let workshop = Workshop::new();
    ground(&workshop);
    let server = Server::start(&workshop, "--config serve.toml --data whole");
    let path = start_job(&server);
    let expected = result(&workshop, &server, &path, "out/whole.pmtiles");
    assert_eq!(expected.len() as u32, SIZE * SIZE);
    drop(server);

    let flags = "--config serve.toml --data data";
    let mut server = Server::start(&workshop, flags);
    let path = start_job(&server);
    let written = workshop.path(&format!("data/jobs/{}.json", path.rsplit('/').next().unwrap()));
    let mut went_on = 0;
    for share in 1..=3 {
        let enough = u64::from(SIZE * SIZE) * share / 4;
        server.wait_until(&path, |_, body| job(body)["made"].as_u64().unwrap() >= enough);
        // `kill` is SIGKILL: nothing of the program runs any more.
        drop(server);
        let state = job(&std::fs::read(&written).unwrap())["state"].clone();
        assert_eq!(state, "running", "killed in the middle, {share}");
        server = Server::start(&workshop, flags);
        server.wait_until(&path, |_, body| job(body)["tiles"].as_u64().unwrap() > 0);
        went_on += u32::from(server.json(&path)["made"].as_u64().unwrap() > 0);
    }
    assert!(went_on > 0, "the job began anew each time");
    let found = result(&workshop, &server, &path, "out/result.pmtiles");
    assert_eq!(
        found.iter().map(|(tile, _)| *tile).collect::<Vec<_>>(),
        expected.iter().map(|(tile, _)| *tile).collect::<Vec<_>>(),
        "none lost, none twice"
    );
    for ((tile, bytes), (_, whole)) in found.iter().zip(&expected) {
        assert_eq!(bytes, whole, "{tile}: not as in a job that was left alone");
    }
}

#[test]
fn a_stop_lets_answers_out_and_jobs_rest() {
    let workshop = Workshop::new();
    ground(&workshop);
    let flags = "--config serve.toml --data data";
    let mut server = Server::start(&workshop, flags);
    let path = start_job(&server);
    server.wait_until(&path, |_, body| job(body)["made"].as_u64().unwrap() > 0);
    let tile = tile(9, 9);
    let address = server.address.clone();
    let asked = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = format!(
            "GET /ground/{tile}.png?seed=77 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    });
    // The request is open, or was answered already.
    let is_idle = |body: &[u8]| String::from_utf8_lossy(body).contains("\nearthmapper_requests_waiting 0\n");
    while !asked.is_finished() && is_idle(&server.ask("GET", "/metrics", "").1) {}
    let status =
        std::process::Command::new("kill").args(["-TERM", &server.process.id().to_string()]).status();
    assert!(status.unwrap().success());
    let ended = server.process.wait().unwrap();
    assert_eq!(ended.code(), Some(0), "a server that was asked to stop has done what it should");
    assert!(asked.join().unwrap().starts_with(b"HTTP/1.1 200 "));
    let server = Server::start(&workshop, flags);
    let found = result(&workshop, &server, &path, "out/result.pmtiles");
    assert_eq!(found.len() as u32, SIZE * SIZE);
}

#[test]
fn without_a_word_only_this_machine_is_served() {
    let workshop = Workshop::new();
    let mut process = workshop
        .command()
        .args(["serve", "--model", "model"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let _ = process.kill();
    let mut errors = String::new();
    process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    let _ = process.wait();
    // The port may be taken on the machine that runs the tests; then the refusal names the address.
    let address = "127.0.0.1:8000";
    assert!(
        said.contains(address) || errors.contains(&format!("cannot listen at {address}")),
        "{said}{errors}"
    );
}

#[test]
fn tags_tell_how_the_model_is_run() {
    let workshop = Workshop::new();
    ground(&workshop);
    let tag = |flags: &str| {
        let server = Server::start(&workshop, &format!("--config serve.toml {flags}"));
        let (head, _) = server.answer("GET", &format!("/ground/{}.png", tile(5, 7)), "");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        head.lines().find(|line| line.starts_with("etag: ")).unwrap().to_owned()
    };
    let first = tag("");
    assert_eq!(tag("--precision f32"), first);
    assert_ne!(tag("--precision int8"), first);
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let workshop = Workshop::new();
    std::fs::write(workshop.path("bad.toml"), "lisen = 7\n").unwrap();
    workshop.refuses("serve --model model --config bad.toml", 3, "lisen");
    std::fs::write(workshop.path("lost.toml"), "[[source]]\nid = \"a\"\nmap = { path = \"lost.pmtiles\" }\n")
        .unwrap();
    workshop.refuses(
        "serve --model model --listen 127.0.0.1:0 --config lost.toml",
        3,
        "lost.pmtiles: not found",
    );
    workshop.refuses("serve --model nowhere --listen 127.0.0.1:0", 4, "nowhere");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    workshop.refuses(&format!("serve --model model --listen {address}"), 1, "choose another with --listen");
}
