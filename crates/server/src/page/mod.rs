//! The page and what it needs, embedded: it works where there is no network but this server.

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::routes::Problem;
use crate::tiles::digest;

struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const SHEET: &str = "text/css; charset=utf-8";

macro_rules! asset {
    ($name:literal, $kind:expr) => {
        asset!($name, $name, $kind)
    };
    ($name:literal, $file:literal, $kind:expr) => {
        Asset { name: $name, kind: $kind, bytes: include_bytes!($file) }
    };
}

const INDEX: &[u8] = include_bytes!("index.html");

static ASSETS: [Asset; 15] = [
    asset!("style.css", SHEET),
    asset!("app.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("area.js", SCRIPT),
    asset!("drop.js", SCRIPT),
    asset!("gallery.js", SCRIPT),
    asset!("hole.js", SCRIPT),
    asset!("pictures.js", SCRIPT),
    asset!("state.js", SCRIPT),
    asset!("view.js", SCRIPT),
    asset!("icon.svg", "image/svg+xml"),
    asset!("maplibre-gl.mjs", "maplibre/maplibre-gl.mjs", SCRIPT),
    asset!("maplibre-gl-worker.mjs", "maplibre/maplibre-gl-worker.mjs", SCRIPT),
    asset!("maplibre-gl.css", "maplibre/maplibre-gl.css", SHEET),
    asset!("maplibre-gl-license.txt", "maplibre/LICENSE.txt", "text/plain; charset=utf-8"),
];

/// The page.
pub async fn index(headers: HeaderMap) -> Response {
    answer(INDEX, "text/html; charset=utf-8", &headers)
}

/// A file of the page, by its name among those embedded.
pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let asset = ASSETS.iter().find(|asset| asset.name == name).ok_or(Problem::NotFound)?;
    Ok(answer(asset.bytes, asset.kind, &headers))
}

fn answer(bytes: &'static [u8], kind: &'static str, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", digest(bytes));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = match known == Some(&tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Bytes::from_static(bytes).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("hexadecimal digits"));
    // Asked for again each time: a new program brings a new page.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
