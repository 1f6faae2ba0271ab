//! Health: whether this node lives, whether it serves, and what it counts.

use std::collections::BTreeMap;

use actors::{MemoryStatus, NotReady};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::app::{App, now};
use crate::error::{ApiError, Problem};
use crate::params::Params;
use crate::rest::reply::json;
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;

pub(crate) fn routes() -> Routes {
    Routes::of("Node")
        .path("/healthz")
        .get(
            healthz,
            op("Whether this node lives").answers(200, "{status: 'ok', serverId: text, now: text}"),
        )
        .path("/readyz")
        .get(
            readyz,
            op("Whether this node serves")
                .query("verbose", "flag", "Say what it holds too")
                .answers(200, "{status: 'ready', serverId?: text, sockets?: int, modules?: int, memory?: object, \
                     unfit?: object}")
                .refuses(&[Problem::NotReady]),
        )
        .path("/metrics")
        .get(metrics, op("What this node counts").answers_in("text/plain", "text"))
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
        #[serde(skip_serializing_if = "Option::is_none")]
        memory: Option<MemoryStatus>,
        #[serde(skip_serializing_if = "Option::is_none")]
        unfit: Option<BTreeMap<&'static str, String>>,
    }
    let missing = if app.draining.is_cancelled() {
        Err(NotReady::new("draining", "this node is draining"))
    } else {
        app.node().ready()
    };
    if let Err(NotReady { reason, message, without_leader }) = missing {
        let not_ready = ApiError::new(Problem::NotReady, message).with("reason", reason);
        return Err(
            not_ready.details([("partitionsWithoutLeader", (without_leader as u64).into())])
        );
    }
    let verbose = params.flag("verbose");
    json(
        StatusCode::OK,
        &Ready {
            status: "ready",
            server_id: verbose.then_some(&*app.server_id),
            sockets: verbose.then(|| app.sockets.len()),
            modules: verbose.then(|| app.node().catalogue().modules.len()),
            memory: verbose.then(|| app.memory.status()),
            unfit: verbose.then(|| app.node().unfit().into_iter().collect()),
        },
    )
}

async fn metrics(State(app): State<App>) -> Response {
    const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    const FRESH: HeaderValue = HeaderValue::from_static("no-store");
    let headers = [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, FRESH)];
    (headers, app.metrics.render()).into_response()
}
