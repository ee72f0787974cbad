//! Areas into files.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use earthmapper_geo::store::{Existing, TileFormat, TileMetadata, create_tiles, open_tiles};
use serde_json::{Value, json};

use super::{Answer, Served, all_tiles, tile};
use crate::jobs::{Entry, JobState, Journal};

fn request(source: &str) -> Value {
    let (first, last) = (tile(0, 0).bounds(), tile(3, 3).bounds());
    // A little less than the tiles, so that their neighbours are not touched.
    let bbox = [first.west() + 1e-5, last.south() + 1e-5, last.east() - 1e-5, first.north() - 1e-5];
    json!({ "source": source, "to": "satellite", "bbox": bbox, "min_zoom": 16, "max_zoom": 16, "seed": 4 })
}

impl Served {
    async fn delete(&self, id: &str) -> Answer {
        self.send(Request::delete(format!("/v1/jobs/{id}")).body(Body::empty()).unwrap()).await
    }

    async fn ended(&self, id: &str) -> Value {
        for _ in 0..2000 {
            let job = self.get(&format!("/v1/jobs/{id}")).await.is(200).json();
            if !["waiting", "running"].contains(&job["state"].as_str().unwrap()) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the job does not end");
    }

    /// Checks that an archive holds every tile of the ground once, as the server gives it.
    async fn check_archive(&self, bytes: &[u8], folder: &Path) {
        let path = folder.join("result.pmtiles");
        std::fs::write(&path, bytes).unwrap();
        let reader = open_tiles(&path).unwrap();
        let mut tiles = reader.tiles().unwrap();
        tiles.sort();
        let mut expected = all_tiles();
        expected.sort();
        assert_eq!(tiles, expected);
        for (column, row) in [(0, 0), (3, 2)] {
            let served = self.ground(column, row, ".png?seed=4").await.is(200);
            assert_eq!(reader.read(tile(column, row)).unwrap().unwrap().bytes, served.body);
        }
        assert!(reader.metadata().attribution.as_ref().unwrap().contains("synthetic"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_area_becomes_a_file() {
    let served = Served::new().await;
    let folder = tempfile::tempdir().unwrap();
    let taken = served.post("/v1/jobs", "application/json", request("ground").to_string()).await.is(202);
    let id = taken.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(taken.header("location"), format!("/v1/jobs/{id}"));
    let job = served.ended(&id).await;
    assert_eq!(
        (job["state"].as_str(), job["made"].as_u64(), job["failed"].as_u64()),
        (Some("done"), Some(16), Some(0))
    );
    let path = format!("/{}", job["result"].as_str().unwrap());
    let whole = served.get(&path).await.is(200);
    assert_eq!(whole.header("content-type"), "application/vnd.pmtiles");
    served.check_archive(&whole.body, folder.path()).await;
    let part = Request::get(&path).header("range", "bytes=0-6").body(Body::empty()).unwrap();
    assert_eq!(served.send(part).await.is(206).body, "PMTiles");
    assert_eq!(served.get("/v1/jobs").await.is(200).json()["jobs"].as_array().unwrap().len(), 1);
    served.delete(&id).await.is(204);
    served.get(&path).await.is(404);
    served.delete(&id).await.is(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_killed_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("jobs");
    let id = "0123456789abcdef0123456789abcdef".to_owned();
    {
        // What a killed process leaves: the word that the job runs, and some tiles.
        let (journal, _) = Journal::open(&folder).unwrap();
        let request = serde_json::from_value(request("ground")).unwrap();
        let entry =
            Entry { id: id.clone(), request, state: JobState::Running, created: 7, number: 0, failed: 0 };
        journal.write(&entry).unwrap();
        let other = Served::new().await;
        let metadata = TileMetadata::new("ground (satellite)", TileFormat::Png);
        let mut writer = create_tiles(journal.tiles(&id), metadata, Existing::Continue).unwrap();
        for (column, row) in [(0, 0), (1, 0), (2, 3)] {
            let made = other.ground(column, row, ".png?seed=4").await.is(200);
            writer.write(tile(column, row), &made.body).unwrap();
        }
        writer.flush().unwrap();
    }
    let served = Served::with(|config| config.data = Some(data.path().to_owned()), None).await;
    let job = served.ended(&id).await;
    assert_eq!((job["state"].as_str(), job["made"].as_u64()), (Some("done"), Some(16)));
    let whole = served.get(&format!("/v1/jobs/{id}/tiles.pmtiles")).await.is(200);
    served.check_archive(&whole.body, data.path()).await;
    assert!(!folder.join(format!("{id}.mbtiles")).exists());
    // Once more: what is done stays done.
    drop(served);
    let again = Served::with(|config| config.data = Some(data.path().to_owned()), None).await;
    assert_eq!(again.ended(&id).await["state"], "done");
    assert_eq!(again.get(&format!("/v1/jobs/{id}/tiles.pmtiles")).await.is(200).body, whole.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_can_be_stopped() {
    let served = Served::new().await;
    let mut ids = Vec::new();
    for seed in 0..3 {
        let mut request = request("ground");
        request["seed"] = json!(seed);
        let taken = served.post("/v1/jobs", "application/json", request.to_string()).await.is(202);
        ids.push(taken.json()["id"].as_str().unwrap().to_owned());
    }
    served.delete(&ids[2]).await.is(204);
    assert_eq!(served.ended(&ids[2]).await["state"], "cancelled");
    assert_eq!(served.ended(&ids[0]).await["state"], "done");
    assert_eq!(served.ended(&ids[1]).await["state"], "done");
    served.get(&format!("/v1/jobs/{}/tiles.pmtiles", ids[2])).await.is(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_make_no_sense_are_refused() {
    let served = Served::with(
        |config| {
            config.limits.job_tiles = 15;
            config.limits.jobs_waiting = 1;
        },
        None,
    )
    .await;
    let post = |body: Value| served.post("/v1/jobs", "application/json", body.to_string());
    let with = |key: &str, value: Value| {
        let mut request = request("ground");
        request[key] = value;
        request
    };
    let refused = post(request("ground")).await.is(400);
    assert!(refused.json()["error"].as_str().unwrap().contains("at most 15"));
    post(request("elsewhere")).await.is(404);
    post(with("to", json!("map"))).await.is(404);
    post(with("min_zoom", json!(3))).await.is(400);
    post(with("max_zoom", json!(15))).await.is(400);
    post(with("bbox", json!([0, 2, 1, 1]))).await.is(400);
    post(with("seed", json!(-1))).await.is(400);
    post(with("path", json!("/etc"))).await.is(400);
    served.post("/v1/jobs", "application/json", "{").await.is(400);
    assert!(served.get("/v1/jobs").await.json()["jobs"].as_array().unwrap().is_empty());
}
