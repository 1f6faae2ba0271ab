//! Admission: refuses a write that would find no place from its head, before its body is read: a
//! refusal must cost next to nothing, or those who are refused take what those who are served need.
//!
//! What passes takes its place by its true weight when it is decided (`actors/src/shares.rs`), and
//! may still be refused there. Only routes are looked at that do nothing but write records; every
//! other one is refused where it is decided.

use std::pin::Pin;

use actors::{Requester, WriteHead};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, header};
use hyper::body::Body as _;
use model::{BranchId, BranchKey, ModuleId};

use crate::app::App;
use crate::error::ApiError;
use crate::limits::{HTTP_BUFFER_BYTES_MAX, LINGER_MAX};
use crate::params::decoded;

/// Refuses a write that would find no place.
///
/// # Errors
/// As the write itself would be refused: `busy`, `memory-full`.
pub(crate) fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    let Some(head) = write_head(request) else { return Ok(()) };
    let requester: Requester = request.extensions().get().copied().unwrap_or_default();
    Ok(app.node().check_write(requester, &head)?)
}

/// What the head tells of a write of records; nothing where it is another request.
fn write_head<B>(request: &axum::http::Request<B>) -> Option<WriteHead> {
    let method = request.method();
    if method.is_safe() {
        return None;
    }
    let path = request.uri().path();
    let rest = path.strip_prefix("/api/branches/").or_else(|| path.strip_prefix("/api/branch/"))?;
    let mut parts = rest.split('/');
    let (branch, modules, module) = (parts.next()?, parts.next()?, parts.next()?);
    // A batch may be of nothing but deletes.
    let adds = match parts.next()? {
        "tables" => method != Method::DELETE,
        "save" => true,
        "batch" => false,
        _ => return None,
    };
    if modules != "modules" {
        return None;
    }
    let key = BranchKey::new(
        BranchId::parse(&decoded(branch).ok()?).ok()?,
        ModuleId::parse(&decoded(module).ok()?).ok()?,
    );
    let length = request.headers().get(header::CONTENT_LENGTH);
    let bytes = length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0);
    Some(WriteHead { key, bytes, adds })
}

/// Passes over a small body that nobody reads, so that its connection stays: of what is not taken,
/// a library closes it.
pub(crate) async fn discard(request: Request) {
    let waits = request.headers().contains_key(header::EXPECT);
    let body = request.into_body();
    // Who waits to be asked for the body sends none.
    if waits || body.size_hint().lower() > HTTP_BUFFER_BYTES_MAX as u64 {
        return;
    }
    // Whoever sends more slowly loses the connection.
    let _ = tokio::time::timeout(LINGER_MAX, pass_over(body)).await;
}

async fn pass_over(mut body: Body) {
    let mut bytes = 0;
    while !body.is_end_stream() && bytes <= HTTP_BUFFER_BYTES_MAX {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn head(method: Method, path: &str) -> Option<(String, u64, bool)> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::CONTENT_LENGTH, "40").body(()).unwrap();
        write_head(&request).map(|head| (head.key.to_string(), head.bytes, head.adds))
    }

    #[test]
    fn writes_of_records_are_known_by_their_heads() {
        let known = |method, path, adds| {
            assert_eq!(head(method, path), Some(("lab:1:pos".to_owned(), 40, adds)), "{path}");
        };
        known(Method::POST, "/api/branches/lab%3A1/modules/pos/tables/t", true);
        known(Method::PATCH, "/api/branch/lab:1/modules/pos/tables/t/records/7", true);
        known(Method::DELETE, "/api/branches/lab:1/modules/pos/tables/t", false);
        known(Method::POST, "/api/branches/lab:1/modules/pos/save", true);
        known(Method::POST, "/api/branches/lab:1/modules/pos/batch", false);
    }

    #[test]
    fn other_requests_are_not_taken_for_writes() {
        for (method, path) in [
            (Method::GET, "/api/branches/dar/modules/pos/tables/t"),
            (Method::POST, "/api/branches"),
            (Method::POST, "/api/branches/dar/modules/pos/reset"),
            (Method::POST, "/api/query/tables"),
            (Method::POST, "/api/branches/-/modules/../tables/t"),
        ] {
            assert_eq!(head(method, path), None, "{path}");
        }
    }
}
