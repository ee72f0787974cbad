//! What is served where. `openapi.json` beside this file describes it; a test compares both.

mod catalog;
mod jobs;
mod parameters;
mod pictures;
mod reply;
mod status;
mod tiles;
mod wmts;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;

pub use reply::Problem;

use crate::app::Shared;
use crate::{guard, page};

/// Every path with its methods, as the description of the interface must have them.
#[cfg(test)]
pub(crate) const ROUTES: [(&str, &[&str]); 20] = [
    ("/", &["get"]),
    ("/assets/{file}", &["get"]),
    ("/catalog", &["get"]),
    ("/health", &["get"]),
    ("/metrics", &["get"]),
    ("/openapi.json", &["get"]),
    ("/ready", &["get"]),
    ("/v1/generate", &["post"]),
    ("/v1/inpaint", &["post"]),
    ("/v1/jobs", &["get", "post"]),
    ("/v1/jobs/{job}", &["delete", "get"]),
    ("/v1/jobs/{job}/tiles.pmtiles", &["get"]),
    ("/v1/translate", &["post"]),
    ("/wmts", &["get"]),
    ("/{id}/original/tilejson.json", &["get"]),
    ("/{id}/original/{z}/{x}/{file}", &["get"]),
    ("/{id}/tilejson.json", &["get"]),
    ("/{id}/uncertainty/tilejson.json", &["get"]),
    ("/{id}/uncertainty/{z}/{x}/{file}", &["get"]),
    ("/{id}/{z}/{x}/{file}", &["get"]),
];

/// The whole server as a service, with or without a socket.
pub fn router(app: Shared) -> Router {
    let changes = Router::new()
        .route("/v1/translate", post(pictures::translate))
        .route("/v1/inpaint", post(pictures::inpaint))
        .route("/v1/generate", post(pictures::generate))
        .route("/v1/jobs", post(jobs::create).get(jobs::list))
        .route("/v1/jobs/{job}", delete(jobs::delete))
        .route_layer(from_fn_with_state(app.clone(), guard::check_change));
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{file}", get(page::asset))
        .route("/catalog", get(catalog::catalog))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(status::openapi))
        .route("/wmts", get(wmts::capabilities))
        .route("/v1/jobs/{job}", get(jobs::show))
        .route("/v1/jobs/{job}/tiles.pmtiles", get(jobs::result))
        .route("/{id}/tilejson.json", get(catalog::tile_json))
        .route("/{id}/uncertainty/tilejson.json", get(catalog::uncertainty_tile_json))
        .route("/{id}/original/tilejson.json", get(catalog::original_tile_json))
        .route("/{id}/{z}/{x}/{file}", get(tiles::translation))
        .route("/{id}/uncertainty/{z}/{x}/{file}", get(tiles::uncertainty))
        .route("/{id}/original/{z}/{x}/{file}", get(tiles::original))
        .merge(changes)
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::WrongMethod)
        .layer(DefaultBodyLimit::max(app.config.limits.body_bytes))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), guard::around))
        .with_state(app)
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a request made the server panic");
    Problem::Internal.into_response()
}
