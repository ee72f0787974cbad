//! What stands before every request: who may change something, what every answer says, what is counted.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::Shared;
use crate::routes::Problem;
use crate::tiles::digest;

/// Where a request comes from; the connection puts it in.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// What pages of this server may do: run its own scripts, show its own pictures, ask it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    connect-src 'self' data: blob:; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Counts a request and says in its answer what browsers must know.
pub async fn around(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let is_asking = matches!(*request.method(), Method::GET | Method::HEAD);
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let mut response = match is_known_host(&app, host.as_deref()) {
        true => next.run(request).await,
        false => Problem::NotFound.into_response(),
    };
    let headers = response.headers_mut();
    let mut say = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::REFERRER_POLICY, "no-referrer");
    say(header::CONTENT_SECURITY_POLICY, POLICY);
    say(header::X_FRAME_OPTIONS, "DENY");
    let is_open = is_asking && app.config.open_to_other_pages && !route.starts_with("/v1/");
    let kept = HeaderName::from_static("cross-origin-resource-policy");
    say(kept, if is_open { "cross-origin" } else { "same-origin" });
    if is_open {
        say(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        say(header::ACCESS_CONTROL_EXPOSE_HEADERS, "etag");
    }
    app.metrics.answered(&route, response.status().as_u16(), start.elapsed());
    response
}

/// On this machine only, other names for it are refused: a page from elsewhere may have made its own name mean this
/// machine, to get around the rule that pages read from their own server only.
fn is_known_host(app: &Shared, host: Option<&str>) -> bool {
    let Some(host) = host else { return true };
    if !app.config.listen.ip().is_loopback() || app.config.public_url.is_some() {
        return true;
    }
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

/// Lets requests that change something through only from the server's own page or from programs, and with the token if
/// there is one.
pub async fn check_change(State(app): State<Shared>, request: Request, next: Next) -> Response {
    match may_change(&app, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn may_change(app: &Shared, headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(origin) = headers.get(header::ORIGIN)
        && !is_own(app, origin, headers.get(header::HOST))
    {
        return Err(Problem::Forbidden);
    }
    let Some(token) = &app.token else { return Ok(()) };
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match shown {
        // Digests are compared, so that the time taken says nothing about the token.
        Some((_, shown)) if digest(shown.trim().as_bytes()) == *token => Ok(()),
        _ => Err(Problem::Unauthorized),
    }
}

fn is_own(app: &Shared, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else {
        return false;
    };
    let Some(authority) = origin.authority() else { return false };
    let public = app.config.public_url.as_ref().and_then(|url| url.parse::<Uri>().ok());
    let is_public = public.as_ref().and_then(Uri::authority).is_some_and(|public| public == authority);
    is_public || host.and_then(|host| host.to_str().ok()).is_some_and(|host| host == authority.as_str())
}
