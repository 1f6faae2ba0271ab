//! Home: what a person sees who opens a node's address: what this is, how it is, where to read on.
//!
//! Promise: one file in Arabic or English, which loads nothing from elsewhere and runs no script
//! but its own: the policy names a nonce that is new in each answer.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::ApiError;
use crate::params::Params;
use crate::rest::route_doc::op;
use crate::rest::routes::Routes;
use crate::rest::routes::nothing_here;

pub(crate) fn routes() -> Routes {
    let shown = op("What this node is and how it is, for people")
        .query("lang", "'ar'|'en'", "The language; else the first of accept-language that is one")
        .answers_in("text/html", "text");
    Routes::of("Node").path("/").get(home, shown)
}

/// The languages the page is written in, with the direction of their script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Arabic,
    English,
}

impl Language {
    /// The one asked for, else the first that the browser prefers and the page has.
    fn of(asked: Option<&str>, headers: &HeaderMap) -> Self {
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        let mut accepted: Vec<(&str, f32)> =
            accepted.unwrap_or_default().split(',').map(weighted).collect();
        // What is liked the same stays in the order it was said.
        accepted.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let accepted = accepted.into_iter().filter(|(_, weight)| *weight > 0.0);
        let accepted = accepted.map(|(tag, _)| tag);
        let known = |tag: &str| match tag.get(..2)?.to_ascii_lowercase().as_str() {
            "ar" => Some(Self::Arabic),
            "en" => Some(Self::English),
            _ => None,
        };
        asked.into_iter().chain(accepted).find_map(known).unwrap_or(Self::English)
    }

    fn shown(self) -> (&'static str, &'static str) {
        match self {
            Self::Arabic => ("ar", "rtl"),
            Self::English => ("en", "ltr"),
        }
    }
}

/// A language and how much it is liked, as RFC 9110 12.4.2 writes it: `en;q=0.5`.
fn weighted(item: &str) -> (&str, f32) {
    let (tag, weight) = item.split_once(';').unwrap_or((item, ""));
    let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse().ok());
    (tag.trim(), weight.unwrap_or(1.0))
}

/// A node that serves the files of an application leaves its first page to them.
async fn home(
    State(app): State<App>,
    params: Params,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    if app.files.is_some() {
        return Err(nothing_here(uri).await);
    }
    let (lang, dir) = Language::of(params.first(&["lang"]), &headers).shown();
    let html = include_str!("home/page.html").replacen("LANG", lang, 1).replacen("DIR", dir, 1);
    let mut response = page(&html);
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-language"));
    Ok(response)
}

/// A page of ours: its scripts and styles, marked `NONCE`, and nothing else of anybody.
pub(crate) fn page(html: &str) -> Response {
    const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
    const FRESH: HeaderValue = HeaderValue::from_static("no-store");
    const AS_SAID: HeaderValue = HeaderValue::from_static("nosniff");
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).expect("a policy is plain ASCII");
    let headers = [
        (header::CONTENT_TYPE, HTML),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, FRESH),
        (header::X_CONTENT_TYPE_OPTIONS, AS_SAID),
    ];
    (headers, html.replace("NONCE", &nonce)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_one_asked_for_or_preferred() {
        let of = |asked, accepted: &str| {
            let value = HeaderValue::from_str(accepted).unwrap();
            Language::of(asked, &HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, value)]))
        };
        assert_eq!(of(None, "ar-EG,ar;q=0.9,en;q=0.8"), Language::Arabic);
        assert_eq!(of(None, "fr, ar;q=0.5"), Language::Arabic);
        assert_eq!(of(Some("en"), "ar"), Language::English);
        assert_eq!(of(Some("xx"), "ar"), Language::Arabic);
        assert_eq!(of(None, ""), Language::English);
    }
}
