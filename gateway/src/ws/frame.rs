//! Frame: what the server says on a socket besides acknowledgements, events and snapshots.

use axum::extract::ws::Utf8Bytes;
use model::{Object, Timestamp, Value};
use serde::Serialize;

use crate::error::ApiError;
use crate::http::DEFAULT_BRANCH;

/// How loud a `server:log` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// Writes a frame. It cannot fail for the shapes of this room; an empty frame is not sent.
pub(crate) fn text(shape: &impl Serialize) -> Utf8Bytes {
    serde_json::to_string(shape).map_or_else(
        |error| {
            tracing::error!(%error, "a frame could not be written");
            Utf8Bytes::default()
        },
        Utf8Bytes::from,
    )
}

/// `server:hello`, at once.
pub(crate) fn hello(server_id: &str, now: Timestamp) -> Utf8Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Hello<'a> {
        r#type: &'a str,
        server_id: &'a str,
        now: String,
        defaults: Defaults<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Defaults<'a> {
        branch_id: &'a str,
    }
    let defaults = Defaults { branch_id: DEFAULT_BRANCH };
    text(&Hello { r#type: "server:hello", server_id, now: now.to_iso(), defaults })
}

/// `server:log`.
pub(crate) fn log(
    server_id: &str,
    level: Level,
    message: &str,
    context: &Object,
    at: Timestamp,
) -> Utf8Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Log<'a> {
        r#type: &'a str,
        level: Level,
        message: &'a str,
        context: &'a Object,
        ts: String,
        server_id: &'a str,
    }
    text(&Log { r#type: "server:log", level, message, context, ts: at.to_iso(), server_id })
}

/// `server:error`: what the original only logs, so that a client can match it to its request.
pub(crate) fn error(request_id: Option<&Value>, error: &ApiError) -> Utf8Bytes {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Failure<'a> {
        r#type: &'a str,
        request_id: Option<&'a Value>,
        code: &'a str,
        message: &'a str,
        details: Object,
    }
    text(&Failure {
        r#type: "server:error",
        request_id,
        code: error.code(),
        message: error.message(),
        details: error.shown_details(),
    })
}

/// The answer to `ping`.
pub(crate) fn pong() -> Utf8Bytes {
    Utf8Bytes::from_static(r#"{"type":"pong"}"#)
}

/// The answer to `auth`.
pub(crate) fn auth_ack() -> Utf8Bytes {
    Utf8Bytes::from_static(r#"{"type":"ack","event":"auth"}"#)
}
