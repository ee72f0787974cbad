//! Tiles: what the model made, how undecided it was, and the originals.

use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use earthmapper::pyramid::TilePicture;
use earthmapper_geo::picture::decode_with_holes;
use earthmapper_geo::store::TileFormat;
use earthmapper_geo::{Tile, WriteOptions};

use super::catalog;
use super::parameters::{OriginalParams, TileParams, direction};
use super::reply::{Params, Problem, bytes_response};
use crate::app::{App, Shared};
use crate::engine::TileRequest;
use crate::guard::Peer;
use crate::sources::TILE_LIMITS;
use crate::tiles::{Density, Shown, Wanted, digest, encoded_tile};

type Numbers = (String, String, String, String);

/// `y.png`, `y@2x.jpg`, `y.webp`.
struct Named {
    tile: Tile,
    density: Density,
    format: TileFormat,
}

impl Named {
    /// What cannot be a tile is not there.
    fn parse(z: &str, x: &str, file: &str) -> Option<Self> {
        let (stem, ending) = file.split_once('.')?;
        let format = match ending {
            "png" => TileFormat::Png,
            "jpg" => TileFormat::Jpeg,
            "webp" => TileFormat::WebP,
            _ => return None,
        };
        let (y, density) = match stem.strip_suffix("@2x") {
            Some(y) => (y, Density::Double),
            None => (stem, Density::Single),
        };
        // Digits only: `parse` would take a sign, and one tile has one address.
        let is_plain = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'))
        };
        if ![z, x, y].into_iter().all(is_plain) {
            return None;
        }
        let tile = Tile::new(z.parse().ok()?, x.parse().ok()?, y.parse().ok()?).ok()?;
        Some(Self { tile, density, format })
    }
}

/// A tile that the model made.
pub async fn translation(
    State(app): State<Shared>,
    Path(numbers): Path<Numbers>,
    Params(params): Params<TileParams>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    made(app, numbers, params, Shown::Translation, peer, headers).await
}

/// How undecided the model was.
pub async fn uncertainty(
    State(app): State<Shared>,
    Path(numbers): Path<Numbers>,
    Params(params): Params<TileParams>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    made(app, numbers, params, Shown::Uncertainty, peer, headers).await
}

async fn made(
    app: Shared,
    (id, z, x, file): Numbers,
    params: TileParams,
    shown: Shown,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Named { tile, density, format } = Named::parse(&z, &x, &file).ok_or(Problem::NotFound)?;
    let named = catalog::find(&app, &id)?;
    let to = direction(named, params.to).ok_or(Problem::NotFound)?;
    let source = app.tiles.find(&id, to).ok_or(Problem::NotFound)?;
    let (layer, zooms) = named.translation(to).ok_or(Problem::NotFound)?;
    if !layer.covers(tile, zooms) {
        return Err(Problem::NotFound);
    }
    let request = TileRequest { source, to, seed: params.seed.unwrap_or(0), tile };
    let wanted = Wanted { request, shown, format, density };
    let tag = format!("\"{}\"", app.tiles.key(&wanted));
    if is_known(&headers, &tag) {
        return Ok(unchanged(&app, &tag));
    }
    let _pass = app.enter(peer.map(|Extension(Peer(address))| address))?;
    let bytes = app.tiles.get(&wanted).await?;
    Ok(tagged(&app, bytes, format, &tag))
}

/// A tile as it is in the source.
pub async fn original(
    State(app): State<Shared>,
    Path((id, z, x, file)): Path<Numbers>,
    Params(params): Params<OriginalParams>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Named { tile, density, format } = Named::parse(&z, &x, &file).ok_or(Problem::NotFound)?;
    if density == Density::Double {
        return Err(Problem::NotFound);
    }
    // Some originals are drawn, cut from rasters or fetched.
    let _pass = app.enter(peer.map(|Extension(Peer(address))| address))?;
    let service = app.clone();
    let read = move || -> Result<Bytes, Problem> {
        let source = catalog::find(&service, &id)?;
        let (_, layer) = catalog::original(source, params.of).ok_or(Problem::NotFound)?;
        if !layer.covers(tile, layer.stored) {
            return Err(Problem::NotFound);
        }
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!("source {id:?}: {tile}: {error}");
            Problem::Internal
        };
        let encoded = layer.reader.read(tile).map_err(|error| failed(&error))?.ok_or(Problem::NotFound)?;
        if encoded.format == format {
            return Ok(encoded.bytes.into());
        }
        let (picture, holes) =
            decode_with_holes(&encoded.bytes, "tile", &TILE_LIMITS).map_err(|error| failed(&error))?;
        let bytes = encoded_tile(&TilePicture { picture, holes }, format, &WriteOptions::default());
        bytes.map(Bytes::from).map_err(|error| failed(&error))
    };
    let bytes = tokio::task::spawn_blocking(read).await.map_err(|_| Problem::Internal)??;
    let tag = format!("\"{}\"", digest(&bytes));
    if is_known(&headers, &tag) {
        return Ok(unchanged(&app, &tag));
    }
    Ok(tagged(&app, bytes, format, &tag))
}

/// Whether the client has the answer already.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH);
    let values = known.iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

fn unchanged(app: &App, tag: &str) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    add_validators(app, response.headers_mut(), tag);
    response
}

fn tagged(app: &App, bytes: Bytes, format: TileFormat, tag: &str) -> Response {
    let mut response = bytes_response(StatusCode::OK, format.media_type(), bytes);
    add_validators(app, response.headers_mut(), tag);
    response
}

fn add_validators(app: &App, headers: &mut HeaderMap, tag: &str) {
    let age = format!("public, max-age={}", app.config.cache.max_age_seconds);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_str(&age).expect("digits"));
    headers.insert(header::ETAG, HeaderValue::from_str(tag).expect("hexadecimal digits"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tile_has_one_address() {
        let named =
            |z, x, file| Named::parse(z, x, file).map(|named| (named.tile, named.density, named.format));
        let tile: Tile = "3/4/5".parse().unwrap();
        assert_eq!(named("3", "4", "5.png"), Some((tile, Density::Single, TileFormat::Png)));
        assert_eq!(named("3", "4", "5@2x.jpg"), Some((tile, Density::Double, TileFormat::Jpeg)));
        for (z, x, file) in [
            ("3", "4", "5"),
            ("3", "4", "5.jpeg"),
            ("3", "4", "5.png.png"),
            ("3", "4", "5@3x.png"),
            ("3", "4", "+5.png"),
            ("03", "4", "5.png"),
            ("3", "-4", "5.png"),
            ("3", "4", ".png"),
            ("3", "8", "5.png"),
            ("99", "4", "5.png"),
            ("3", "4", "99999999999999999999.png"),
            ("..", "4", "5.png"),
        ] {
            assert!(named(z, x, file).is_none(), "{z}/{x}/{file}");
        }
    }

    #[test]
    fn tags_are_compared_as_lists() {
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))])
        };
        for value in ["\"a\"", "\"b\", \"a\"", "W/\"a\"", "*"] {
            assert!(is_known(&headers(value), "\"a\""), "{value}");
        }
        assert!(!is_known(&headers("\"b\""), "\"a\"") && !is_known(&HeaderMap::new(), "\"a\""));
    }
}
