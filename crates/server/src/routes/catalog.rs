//! What there is: the catalogue and TileJSON.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use earthmapper::Modality;
use earthmapper_geo::store::{TileFormat, TileMetadata};
use serde_json::{Value, json};

use super::parameters::{OriginalParams, TileParams, base_url, direction};
use super::reply::{Params, Problem, json_response};
use crate::app::{App, Shared};
use crate::sources::{Layer, Source};

/// All sources, and what the page must know of the model.
pub async fn catalog(State(app): State<Shared>, headers: HeaderMap) -> Response {
    let base = base_url(&app, &headers);
    let trained = &app.facts.config.trained_on;
    let document = json!({
        "sources": app.tiles.sources.iter().map(|source| described(&app, source, &base)).collect::<Vec<_>>(),
        "model": {
            "name": app.facts.config.name,
            "side": app.facts.side,
            "metres_per_pixel": trained.metres_per_pixel,
            "places_known": trained.places_known,
            "region": trained.region,
            "map_style": trained.map_style,
        },
        "limits": {
            "body_bytes": app.config.limits.body_bytes,
            "pixels": app.config.limits.pixels,
            "samples": app.config.limits.samples,
            "job_tiles": app.config.limits.job_tiles,
        },
        "token_needed": app.token.is_some(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    json_response(StatusCode::OK, &document)
}

fn described(app: &App, source: &Source, base: &str) -> Value {
    let directions: Vec<Value> = source
        .directions()
        .map(|to| {
            let (layer, (low, high)) = source.translation(to).expect("a direction of this source");
            json!({
                "to": to,
                "min_zoom": low,
                "max_zoom": high,
                "bounds": edges(layer),
                "tile_size": layer.side,
                "attribution": source.attribution(to, &app.tiles.model),
                "tilejson": format!("{base}/{}/tilejson.json?to={to}", source.id),
            })
        })
        .collect();
    let originals: Vec<Value> = Modality::ALL
        .into_iter()
        .filter_map(|of| source.original(of).map(|layer| (of, layer)))
        .map(|(of, layer)| {
            json!({
                "of": of,
                "min_zoom": layer.stored.0,
                "max_zoom": layer.stored.1,
                "bounds": edges(layer),
                "tile_size": layer.side,
                "attribution": layer.metadata.attribution,
                "tilejson": format!("{base}/{}/original/tilejson.json?of={of}", source.id),
            })
        })
        .collect();
    json!({ "id": source.id, "name": source.name, "directions": directions, "originals": originals })
}

/// West, south, east, north, never over the antimeridian.
pub fn edges(layer: &Layer) -> [f64; 4] {
    let [west, south, east, north] = layer.bounds.into();
    if layer.bounds.crosses_antimeridian() {
        [-180.0, south, 180.0, north]
    } else {
        [west, south, east, north]
    }
}

/// TileJSON 3.0 of a translation.
pub async fn tile_json(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Params(params): Params<TileParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    translated(&app, &id, &params, &headers, "")
}

/// TileJSON 3.0 of how undecided the model was.
pub async fn uncertainty_tile_json(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Params(params): Params<TileParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    translated(&app, &id, &params, &headers, "uncertainty/")
}

fn translated(
    app: &App,
    id: &str,
    params: &TileParams,
    headers: &HeaderMap,
    part: &str,
) -> Result<Response, Problem> {
    let source = find(app, id)?;
    let to = direction(source, params.to).ok_or(Problem::NotFound)?;
    let (layer, zooms) = source.translation(to).ok_or(Problem::NotFound)?;
    let mut metadata = TileMetadata::new(format!("{} ({to})", source.name), TileFormat::Png);
    metadata.attribution = Some(source.attribution(to, &app.tiles.model));
    let what = if part.is_empty() { "made" } else { "how undecided the model was; made" };
    let model = &app.tiles.model;
    metadata.description = Some(format!("Synthetic: {what} from other tiles by the trained model {model}."));
    let seed = params.seed.unwrap_or(0);
    let base = base_url(app, headers);
    let url = format!("{base}/{id}/{part}{{z}}/{{x}}/{{y}}.png?to={to}&seed={seed}");
    Ok(json_response(StatusCode::OK, &document(metadata, layer, zooms, &url)))
}

/// TileJSON 3.0 of a picture as it is.
pub async fn original_tile_json(
    State(app): State<Shared>,
    Path(id): Path<String>,
    Params(params): Params<OriginalParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let source = find(&app, &id)?;
    let (of, layer) = original(source, params.of).ok_or(Problem::NotFound)?;
    let mut metadata = TileMetadata::new(format!("{} ({of}, original)", source.name), layer.metadata.format);
    metadata.attribution = layer.metadata.attribution.clone();
    let (base, ending) = (base_url(&app, &headers), layer.metadata.format);
    let url = format!("{base}/{id}/original/{{z}}/{{x}}/{{y}}.{ending}?of={of}");
    Ok(json_response(StatusCode::OK, &document(metadata, layer, layer.stored, &url)))
}

fn document(mut metadata: TileMetadata, layer: &Layer, (low, high): (u8, u8), url: &str) -> Value {
    metadata.bounds = Some(layer.bounds);
    (metadata.min_zoom, metadata.max_zoom) = (Some(low), Some(high));
    let mut document = metadata.tile_json(url);
    document["tileSize"] = json!(layer.side);
    // TileJSON 3.0 asks for the list; pictures have no layers.
    document["vector_layers"] = json!([]);
    document
}

/// A source by its id: a key, never a path.
pub fn find<'a>(app: &'a App, id: &str) -> Result<&'a Source, Problem> {
    app.tiles.sources.iter().find(|source| source.id == id).ok_or(Problem::NotFound)
}

/// A picture of a source as it is; without a word, the photograph if there is one.
pub fn original(source: &Source, of: Option<Modality>) -> Option<(Modality, &Layer)> {
    let all = Modality::ALL.into_iter().filter(|modality| of.is_none_or(|of| of == *modality));
    all.filter_map(|modality| source.original(modality).map(|layer| (modality, layer))).next()
}
