//! Jobs: take, show, stop, hand out.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::reply::{Problem, Sent, json_response};
use crate::app::Shared;

/// Takes a job.
pub async fn create(State(app): State<Shared>, Sent(body): Sent) -> Result<Response, Problem> {
    let request = serde_json::from_slice(&body).map_err(|error| Problem::BadRequest(error.to_string()))?;
    let its = app.clone();
    let created = tokio::task::spawn_blocking(move || its.jobs.create(request)).await;
    let job = created.map_err(|_| Problem::Internal)??;
    let mut response = json_response(StatusCode::ACCEPTED, &job);
    let place = format!("/v1/jobs/{}", job["id"].as_str().unwrap_or_default());
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// All jobs.
pub async fn list(State(app): State<Shared>) -> Response {
    json_response(StatusCode::OK, &json!({ "jobs": app.jobs.list() }))
}

/// One job, to whoever knows its id.
pub async fn show(State(app): State<Shared>, Path(id): Path<String>) -> Result<Response, Problem> {
    let mut response = json_response(StatusCode::OK, &app.jobs.get(&id).ok_or(Problem::NotFound)?);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The tiles of a job that is done, whole or in parts.
pub async fn result(
    State(app): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let path = app.jobs.result(&id).ok_or(Problem::NotFound)?;
    let served = ServeFile::new(path).oneshot(request).await;
    let mut response = served.map_err(|_| Problem::Internal)?.map(axum::body::Body::new);
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Problem::NotFound);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.pmtiles"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    let name = HeaderValue::from_static("attachment; filename=\"earthmapper.pmtiles\"");
    headers.insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

/// Stops a job, or forgets one that is finished.
pub async fn delete(State(app): State<Shared>, Path(id): Path<String>) -> Result<Response, Problem> {
    let its = app.clone();
    let deleted = tokio::task::spawn_blocking(move || its.jobs.delete(&id)).await;
    match deleted.map_err(|_| Problem::Internal)? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(Problem::NotFound),
    }
}
