//! Health: whether this node lives, whether it serves, and what it counts.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::error::{ApiError, Problem};
use crate::gateway::{App, now};
use crate::http::ask::Params;
use crate::http::reply::json;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

async fn healthz(State(app): State<App>) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Health<'a> {
        status: &'a str,
        server_id: &'a str,
        now: String,
    }
    let health = Health { status: "ok", server_id: &app.server_id, now: now().to_iso() };
    json(StatusCode::OK, &health)
}

/// 200 when this node serves; else 503 with the reason. `?verbose` adds what it holds.
async fn readyz(State(app): State<App>, params: Params) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Ready<'a> {
        status: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        server_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sockets: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        modules: Option<usize>,
    }
    let reason = if app.draining.is_cancelled() {
        Some("this node is draining".to_owned())
    } else {
        app.branches.ready().err()
    };
    if let Some(reason) = reason {
        let not_ready = ApiError::new(Problem::NotReady, reason.as_str());
        return Err(not_ready.with("reason", reason));
    }
    let verbose = params.flag("verbose");
    json(
        StatusCode::OK,
        &Ready {
            status: "ready",
            server_id: verbose.then_some(&*app.server_id),
            sockets: verbose.then(|| app.sockets.len()),
            modules: verbose.then(|| app.branches.catalogue().modules.len()),
        },
    )
}

async fn metrics(State(app): State<App>) -> Response {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    const FRESH: HeaderValue = HeaderValue::from_static("no-store");
    let headers = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, FRESH)];
    (headers, app.metrics.render()).into_response()
}
