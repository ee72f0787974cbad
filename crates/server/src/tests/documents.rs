//! What there is, as documents.

use axum::body::Body;
use axum::http::Request;

use super::Served;

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_and_tilejson_agree() {
    let served = Served::new().await;
    let catalog = served.get("/catalog").await.is(200).json();
    let source = &catalog["sources"][0];
    assert_eq!(source["id"], "ground");
    assert_eq!(source["directions"].as_array().unwrap().len(), 1);
    let direction = &source["directions"][0];
    assert_eq!((direction["to"].as_str(), direction["min_zoom"].as_u64()), (Some("satellite"), Some(16)));
    let request = Request::get("/ground/tilejson.json?seed=3").header("host", "127.0.0.1:8123");
    let document = served.send(request.body(Body::empty()).unwrap()).await.is(200).json();
    assert_eq!(document["tilejson"], "3.0.0");
    let url = document["tiles"][0].as_str().unwrap();
    assert_eq!(url, "http://127.0.0.1:8123/ground/{z}/{x}/{y}.png?to=satellite&seed=3");
    assert!(document["attribution"].as_str().unwrap().contains("synthetic, EarthMapper tiny"));
    assert_eq!((document["minzoom"].as_u64(), document["maxzoom"].as_u64()), (Some(16), Some(16)));
    assert_eq!(document["tileSize"], 16);
    assert_eq!(document["vector_layers"], serde_json::json!([]));
    assert_eq!(document["bounds"], direction["bounds"]);
    for path in ["/ground/uncertainty/tilejson.json", "/ground/original/tilejson.json"] {
        assert_eq!(served.get(path).await.is(200).json()["tileSize"], 16);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_public_ones_and_escaped() {
    let served =
        Served::with(|config| config.public_url = Some("https://maps.example/em/".into()), None).await;
    let document = served.get("/ground/tilejson.json").await.is(200).json();
    assert!(document["tiles"][0].as_str().unwrap().starts_with("https://maps.example/em/ground/{z}"));
    let served = Served::with(|config| config.sources[0].name = Some("<b>&\"it\"".into()), None).await;
    let page = String::from_utf8(served.get("/").await.is(200).body.to_vec()).unwrap();
    assert!(!page.contains("<b>"), "names come to the page as data");
    let xml = String::from_utf8(served.get("/wmts").await.is(200).body.to_vec()).unwrap();
    assert!(xml.contains("&lt;b&gt;&amp;&quot;it&quot;: satellite, synthetic") && !xml.contains("<b>"));
    let request = Request::get("/wmts").header("host", "[::1]:8000").body(Body::empty()).unwrap();
    let xml = String::from_utf8(served.send(request).await.is(200).body.to_vec()).unwrap();
    let template = "http://[::1]:8000/ground/{TileMatrix}/{TileCol}/{TileRow}.png?to=satellite";
    assert!(xml.contains(template), "{xml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wmts_has_one_operation() {
    let served = Served::new().await;
    let plain = served.get("/wmts").await.is(200).body;
    for query in
        ["?SERVICE=WMTS&REQUEST=GetCapabilities&VERSION=1.0.0", "?service=wmts&request=getcapabilities"]
    {
        assert_eq!(served.get(&format!("/wmts{query}")).await.is(200).body, plain);
    }
    for query in ["?SERVICE=WMTS&REQUEST=GetTile&LAYER=a", "?service=WMS&request=GetCapabilities"] {
        let refused = served.get(&format!("/wmts{query}")).await.is(400);
        assert!(String::from_utf8_lossy(&refused.body).contains("OperationNotSupported"), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_told() {
    let served = Served::new().await;
    assert_eq!(served.get("/health").await.is(200).json()["status"], "ok");
    assert_eq!(served.get("/ready").await.is(200).json()["status"], "ready");
    served.ground(0, 0, ".png").await.is(200);
    served.ground(0, 0, ".png").await.is(200);
    let text = String::from_utf8(served.get("/metrics").await.is(200).body.to_vec()).unwrap();
    for line in [
        "earthmapper_http_requests_total{route=\"/{id}/{z}/{x}/{file}\",status=\"200\"} 2",
        "earthmapper_cache_hits_total 1",
        "earthmapper_cache_misses_total 1",
        "earthmapper_ready 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    let openapi = served.get("/openapi.json").await.is(200).json();
    assert_eq!(openapi["openapi"], "3.1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_is_served_when_nothing_else_is() {
    let served = Served::with(
        |config| {
            config.sources.clear();
            config.engine.tile_seconds = 1;
        },
        None,
    )
    .await;
    let catalog = served.get("/catalog").await.is(200).json();
    assert_eq!(catalog["sources"][0]["id"], "town");
    let original = served.get("/town/original/16/32768/32767.png?of=map").await.is(200);
    assert_eq!(original.picture().width(), 256);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_its_parts_are_there() {
    let served = Served::new().await;
    let page = String::from_utf8(served.get("/").await.is(200).body.to_vec()).unwrap();
    assert!(page.contains("id=\"badge\""));
    let mut open = vec![("".to_owned(), page)];
    let mut seen = Vec::new();
    // Every file that the page or one of its scripts names is there.
    while let Some((_, text)) = open.pop() {
        let names = text.split(['"', '`']).filter_map(|part| {
            part.strip_prefix("assets/").or_else(|| part.strip_prefix("./")).map(str::to_owned)
        });
        for name in names.filter(|name| name.contains('.') && !name.contains('$')) {
            if seen.contains(&name) {
                continue;
            }
            let answer = served.get(&format!("/assets/{name}")).await.is(200);
            seen.push(name.clone());
            if !name.starts_with("maplibre") {
                open.push((name, String::from_utf8(answer.body.to_vec()).unwrap()));
            }
        }
    }
    for name in ["app.js", "view.js", "maplibre-gl.mjs", "style.css", "icon.svg"] {
        assert!(seen.iter().any(|seen| seen == name), "{name}: {seen:?}");
    }
    served.get("/assets/maplibre-gl-worker.mjs").await.is(200);
    served.get("/assets/maplibre-gl-license.txt").await.is(200);
}
