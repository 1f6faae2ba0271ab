//! Files: what else a node gives to browsers: the pages of an application, from a directory.
//!
//! Promise: a file is asked for before any route of ours except the node's own, as the original
//! does; only `GET` and `HEAD` ask. Refused: what begins with a dot, leads upwards, or is under
//! `data/` (a directory of the original holds its data there), and everything under `/api/`,
//! which no file may stand before.
//!
//! This crate opens no file: the assembler does, see [`Files`].

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::params::decoded;

/// The node's own paths, which no file may stand before.
const OURS: [&str; 3] = ["/metrics", "/healthz", "/readyz"];
/// Ask again each time, by the tag that was told.
const ASK: HeaderValue = HeaderValue::from_static("no-cache");
/// A day, as the original says.
const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=86400");
const AS_SAID: HeaderValue = HeaderValue::from_static("nosniff");

/// The files clients may have.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// The file of this name, `/` between its parts, none of them empty or beginning with a dot;
    /// `None` if there is none that may be had.
    fn open(&self, name: String) -> BoxFuture<'static, Option<File>>;
}

/// An opened file.
pub struct File {
    /// How long it is.
    pub bytes: u64,
    /// When it was last written.
    pub modified: Option<SystemTime>,
    /// What is in it: so many bytes.
    pub content: BoxStream<'static, io::Result<Bytes>>,
}

/// A request for a file.
pub(crate) struct FileRequest {
    files: Arc<dyn Files>,
    name: String,
    is_head: bool,
    etags: Option<HeaderValue>,
}

impl FileRequest {
    /// What a request asks for, if it may mean a file.
    pub(crate) fn of(files: Option<&Arc<dyn Files>>, request: &Request) -> Option<Self> {
        let files = Arc::clone(files?);
        let method = request.method();
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let name = name_of(request.uri().path())?;
        let etags = request.headers().get(header::IF_NONE_MATCH).cloned();
        Some(Self { files, name, is_head: *method == Method::HEAD, etags })
    }

    /// The file, if there is one.
    pub(crate) async fn answer(self) -> Option<Response> {
        let Self { files, name, is_head, etags } = self;
        let kind = kind_of(&name);
        let file = files.open(name).await?;
        Some(respond(is_head, etags.as_ref(), kind, file))
    }
}

/// The name of the file that a path may mean.
fn name_of(path: &str) -> Option<String> {
    if OURS.contains(&path) {
        return None;
    }
    let mut name = decoded(path).ok()?.strip_prefix('/')?.to_owned();
    if name.is_empty() || name.ends_with('/') {
        name.push_str("index.html");
    }
    let first = name.split('/').next().unwrap_or_default();
    // Files are looked for before routes: none of them may stand in for the API, and no data be
    // served as a file.
    let is_kept_back = ["api", "data"].iter().any(|kept| first.eq_ignore_ascii_case(kept));
    let is_odd = |part: &str| {
        part.is_empty()
            || part.starts_with('.')
            || part.contains(|c: char| c.is_control() || c == '\\')
    };
    (!is_kept_back && !name.split('/').any(is_odd)).then_some(name)
}

/// What a file is, by the end of its name.
fn kind_of(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
    match end.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "js" | "mjs" => "application/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

fn respond(is_head: bool, etags: Option<&HeaderValue>, kind: &'static str, file: File) -> Response {
    let since = file.modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let written = since.unwrap_or_default().as_millis();
    let tag = format!("W/\"{:x}-{written:x}\"", file.bytes);
    let etags = etags.and_then(|tags| tags.to_str().ok());
    let is_known = etags.is_some_and(|tags| tags.split(',').any(|sent| sent.trim() == tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else if is_head {
        StatusCode::OK.into_response()
    } else {
        Body::from_stream(file.content).into_response()
    };
    let headers = response.headers_mut();
    // A page that was edited is seen at the next look; what it loads is asked for once a day.
    let keep = if kind.starts_with("text/html") { ASK } else { KEEP };
    headers.insert(header::CACHE_CONTROL, keep);
    headers.insert(header::ETAG, HeaderValue::try_from(tag).expect("numbers are plain ASCII"));
    if !is_known {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CONTENT_LENGTH, file.bytes.into());
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, AS_SAID);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_names_of_files_or_none_of_theirs() {
        for (path, name) in [
            ("/", "index.html"),
            ("/pos/", "pos/index.html"),
            ("/pos/app.js", "pos/app.js"),
            ("/a%20b.txt", "a b.txt"),
            ("/database/x.js", "database/x.js"),
        ] {
            assert_eq!(name_of(path).as_deref(), Some(name), "{path}");
        }
        for path in [
            "/metrics",
            "/healthz",
            "/readyz",
            "/api/branches",
            "/api",
            "/data/modules.json",
            "/DATA/modules.json",
            "/%64ata/modules.json",
            "/.env",
            "/a/.git/config",
            "/../secret",
            "/a/../../secret",
            "/%2e%2e/secret",
            "/a%2f..%2fsecret",
            "/a%5c..%5csecret",
            "//etc/passwd",
            "/a//b",
            "/a%00.html",
        ] {
            assert_eq!(name_of(path), None, "{path}");
        }
    }
}
