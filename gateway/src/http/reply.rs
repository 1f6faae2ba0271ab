//! Reply: how answers are written.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use model::{Incarnation, Offset};
use serde::Serialize;

use crate::error::ApiError;
use crate::render;

/// Where in a module's log an answer stands: `<epoch>.<sequence>`.
pub(crate) const CURSOR: HeaderName = HeaderName::from_static("x-mishkah-cursor");

/// An answer as JSON.
pub(crate) fn json(status: StatusCode, shape: &impl Serialize) -> Result<Response, ApiError> {
    Ok(written(status, render::bytes(shape)?))
}

/// An answer already written as JSON.
pub(crate) fn written(status: StatusCode, json: Bytes) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, JSON)], json).into_response()
}

/// Adds where in the log the answer stands.
pub(crate) fn at(mut response: Response, incarnation: Incarnation, offset: Offset) -> Response {
    let cursor = HeaderValue::try_from(format!("{incarnation}.{offset}"));
    response.headers_mut().insert(CURSOR, cursor.expect("two numbers are plain ASCII"));
    response
}
