//! How the server is, and what it can.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use super::parameters::base_url;
use super::reply::{Problem, bytes_response, json_response};
use crate::app::Shared;

/// The description of the interface.
const OPENAPI: &str = include_str!("openapi.json");

/// The process answers.
pub async fn health() -> Response {
    json_response(StatusCode::OK, &json!({ "status": "ok" }))
}

/// The model is warm and the server does not stop.
pub async fn ready(State(app): State<Shared>) -> Result<Response, Problem> {
    match app.is_ready() {
        true => Ok(json_response(StatusCode::OK, &json!({ "status": "ready" }))),
        false => Err(Problem::Unavailable("the server is not ready".into(), 1)),
    }
}

/// What is counted, for Prometheus.
pub async fn metrics(State(app): State<Shared>) -> Response {
    let text = app.metrics.text(app.gauges());
    bytes_response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Bytes::from(text))
}

/// The description of the interface, with the address of this server.
pub async fn openapi(State(app): State<Shared>, headers: HeaderMap) -> Response {
    let mut document = description();
    document["servers"] = json!([{ "url": base_url(&app, &headers) }]);
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    json_response(StatusCode::OK, &document)
}

fn description() -> Value {
    serde_json::from_str(OPENAPI).expect("the description is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::ROUTES;

    #[test]
    fn the_description_names_exactly_what_is_served() {
        let document = description();
        let mut described: Vec<(String, Vec<String>)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(path, methods)| {
                let names = methods.as_object().unwrap().keys();
                let mut methods: Vec<String> = names.filter(|name| *name != "parameters").cloned().collect();
                methods.sort();
                (path.clone(), methods)
            })
            .collect();
        described.sort();
        let mut served: Vec<(String, Vec<String>)> = ROUTES
            .iter()
            .map(|(path, methods)| ((*path).to_owned(), methods.iter().map(|&m| m.to_owned()).collect()))
            .collect();
        served.sort();
        assert_eq!(described, served);
    }
}
