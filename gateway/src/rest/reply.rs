//! Reply: how answers are written.

use std::convert::Infallible;

use actors::in_background;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use model::{Incarnation, Offset};
use serde::Serialize;

use crate::error::ApiError;
use crate::render::{self, Pieces, RenderedJson};

/// Where in a module's log an answer stands: `<epoch>.<sequence>`.
pub(crate) const CURSOR: HeaderName = HeaderName::from_static("x-mishkah-cursor");

/// An answer as JSON.
pub(crate) fn json(status: StatusCode, shape: &impl Serialize) -> Result<Response, ApiError> {
    Ok(json_bytes(status, render::bytes(shape)?))
}

/// An answer already written as JSON.
pub(crate) fn json_bytes(status: StatusCode, json: Bytes) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, JSON)], json).into_response()
}

/// An answer that shows modules, written as it is sent where it is large.
pub(crate) fn rendered(status: StatusCode, answer: RenderedJson) -> Response {
    match answer {
        RenderedJson::Whole(bytes) => json_bytes(status, bytes),
        RenderedJson::Pieces(pieces, size) => {
            let rest = stream::unfold(pieces, |mut pieces| async move {
                // Written ahead of the client by as much as the connection takes, which is
                // megabytes for one who reads nothing: not on the threads that serve everybody.
                let written = in_background(move || (piece(&mut pieces), pieces)).await;
                let (piece, pieces) = written.ok()?;
                Some((Ok::<_, Infallible>(piece?), pieces))
            });
            let mut response = (status, Body::from_stream(rest)).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::CONTENT_LENGTH, size.into());
            response
        }
    }
}

/// The next piece. One that cannot be written ends the answer short of its length, so that nobody
/// takes it for a whole one.
fn piece(pieces: &mut Pieces) -> Option<Bytes> {
    pieces.next().ok().flatten().map(|(piece, _)| piece)
}

/// Adds where in the log the answer stands.
pub(crate) fn with_cursor(
    mut response: Response,
    incarnation: Incarnation,
    offset: Offset,
) -> Response {
    let cursor = HeaderValue::try_from(format!("{incarnation}.{offset}"));
    response.headers_mut().insert(CURSOR, cursor.expect("two numbers are plain ASCII"));
    response
}
