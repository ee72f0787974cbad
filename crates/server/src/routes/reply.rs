//! Answers that say what went wrong, and the extractors that give them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::{HeaderValue, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::engine::EngineError;
use crate::jobs::JobError;

/// What went wrong. Texts are for strangers: they name no path and nothing of the inside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Problem {
    /// There is nothing, or nothing that this client may see.
    NotFound,
    /// The request makes no sense; the text says what would.
    BadRequest(String),
    /// A token is needed.
    Unauthorized,
    /// A page from elsewhere asks.
    Forbidden,
    /// The body did not come in time.
    TooSlow,
    /// The body or the picture is larger than allowed.
    TooLarge(String),
    /// The body is of a kind that is not read.
    UnsupportedType(String),
    /// This client has too many requests open.
    TooMany(u64),
    /// The server has too much to do, or is not ready; seconds after which to try again.
    Unavailable(String, u64),
    /// Something is broken; the log says what.
    Internal,
    /// The path knows other methods only.
    WrongMethod,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(..) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::NotFound => "there is nothing here",
            Self::BadRequest(text)
            | Self::TooLarge(text)
            | Self::UnsupportedType(text)
            | Self::Unavailable(text, _) => text,
            Self::Unauthorized => "send Authorization: Bearer and the token of this server",
            Self::Forbidden => "requests that change something must come from the server's own page",
            Self::TooSlow => "the body did not come in time",
            Self::TooMany(_) => "you have too many requests open; wait for their answers",
            Self::Internal => "this could not be done; the server's log says why",
            Self::WrongMethod => "this path knows other methods",
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status(), &json!({ "error": self.text() }));
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::TooMany(seconds) | Self::Unavailable(_, seconds) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Busy(seconds) | EngineError::Late(seconds) => {
                Self::Unavailable(error.to_string(), seconds)
            }
            EngineError::Stopping => Self::Unavailable(error.to_string(), 5),
            EngineError::Missing => Self::NotFound,
            EngineError::Failed => Self::Internal,
        }
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        match error {
            JobError::NoSource => Self::NotFound,
            JobError::Refused(text) => Self::BadRequest(text),
            JobError::Busy => Self::Unavailable(error.to_string(), 60),
            JobError::NotWritten => Self::Internal,
        }
    }
}

/// A JSON document.
pub fn json_response(status: StatusCode, value: &Value) -> Response {
    bytes_response(status, "application/json", Bytes::from(value.to_string()))
}

/// Bytes of a type.
pub fn bytes_response(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The parameters of a query; what is not understood is a [`Problem::BadRequest`].
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::BadRequest(error.body_text())),
        }
    }
}

/// A whole body, within the limits of size and time.
pub struct Sent(pub Bytes);

impl FromRequest<Shared> for Sent {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, Problem> {
        let limit = app.config.limits.body_bytes;
        let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if declared.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit as u64)
        {
            return Err(too_large(limit));
        }
        let reading = axum::body::to_bytes(request.into_body(), limit);
        match tokio::time::timeout(Duration::from_secs(2 * app.config.limits.idle_seconds), reading).await {
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(_)) => Err(too_large(limit)),
            Err(_) => Err(Problem::TooSlow),
        }
    }
}

/// A body beyond the limit.
pub fn too_large(limit: usize) -> Problem {
    Problem::TooLarge(format!("a request may have {limit} bytes at most"))
}
