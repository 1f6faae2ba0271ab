//! Origins: which pages a browser lets change data here, and read what is answered.
//!
//! A browser sends requests of every page it shows to every address it can reach, loopback too, so
//! that a node which only its own machine can reach is open to every page that is opened there.
//! What tells a page's request apart are headers that no page can forge: `Origin`,
//! `Sec-Fetch-Site` and `Host`.
//!
//! Promise: a request that may change something, or wants to become a WebSocket, is taken from the
//! node's own pages, from allowed origins, and from what is no browser; a node on loopback answers
//! nothing to a `Host` that is not known as its own, because an attacker's name may resolve to
//! 127.0.0.1 (DNS rebinding). Origins are compared as RFC 6454 says: scheme, host and port, letters
//! of either case alike, the scheme's usual port where none is written.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::error::{ApiError, Problem};
use crate::limits::PREVIEW_CHARS;

/// What a browser says of where a request comes from, relative to where it goes.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Stands for every origin.
const EVERY: &str = "*";
/// Stands for the origins of this machine.
const LOOPBACK: &str = "loopback";

/// An origin: `https://shop.example`, `http://localhost:5173`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: String,
    host: String,
    /// `None` for a scheme without a usual port, such as `app://shop`.
    port: Option<u16>,
}

impl WebOrigin {
    /// Reads what a browser sends as `Origin`; `None` for anything else, `null` among it.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(is_scheme)
        {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(authority)?;
        let port = port.or(match scheme.as_str() {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        });
        Some(Self { scheme, host, port })
    }

    /// The origin of the pages that this server itself serves under a `Host`: it speaks plain HTTP.
    fn of_host(host: &str) -> Option<Self> {
        let (host, port) = host_and_port(host)?;
        Some(Self { scheme: "http".to_owned(), host, port: port.or(Some(80)) })
    }

    /// Whether it is a page of this machine.
    fn is_loopback(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https") && is_loopback(&self.host)
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match (self.scheme.as_str(), self.port) {
            ("http", Some(80)) | ("https", Some(443)) | (_, None) => Ok(()),
            (_, Some(port)) => write!(f, ":{port}"),
        }
    }
}

/// The origins whose pages may change data and read answers, besides the node's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigins {
    every: bool,
    loopback: bool,
    listed: Vec<WebOrigin>,
}

impl Default for AllowedOrigins {
    /// The origins of this machine: `http` and `https`, any port, on `localhost`, 127.0.0.0/8 and
    /// `[::1]`.
    fn default() -> Self {
        Self { every: false, loopback: true, listed: Vec::new() }
    }
}

impl AllowedOrigins {
    /// Reads a list: origins, `loopback` for those of this machine, `*` for every one.
    ///
    /// # Errors
    /// In words: the first entry that is none, and what would be right.
    pub fn parse<S: AsRef<str>>(list: &[S]) -> Result<Self, String> {
        let mut allowed = Self { every: false, loopback: false, listed: Vec::new() };
        for entry in list.iter().map(|entry| entry.as_ref().trim()) {
            match entry {
                EVERY => allowed.every = true,
                LOOPBACK => allowed.loopback = true,
                _ => allowed.listed.push(WebOrigin::parse(entry).ok_or_else(|| wrong(entry))?),
            }
        }
        Ok(allowed)
    }

    /// Whether pages of every origin may do everything.
    pub fn is_every(&self) -> bool {
        self.every
    }

    fn has(&self, origin: &WebOrigin) -> bool {
        self.every || (self.loopback && origin.is_loopback()) || self.listed.contains(origin)
    }
}

impl fmt::Display for AllowedOrigins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = self.every.then(|| EVERY.to_owned());
        let loopback = self.loopback.then(|| LOOPBACK.to_owned());
        let listed = self.listed.iter().map(ToString::to_string);
        let all: Vec<String> = every.into_iter().chain(loopback).chain(listed).collect();
        f.write_str(&all.join(", "))
    }
}

fn wrong(entry: &str) -> String {
    if entry.eq_ignore_ascii_case("null") {
        return "\"null\" is what a browser sends for any page that hides where it is from: list \
                the origins themselves, or \"*\" for all"
            .to_owned();
    }
    format!(
        "{entry:?} is not an origin: SCHEME://HOST or SCHEME://HOST:PORT without a path, such as \
         https://shop.example; \"loopback\" for pages of this machine, \"*\" for all"
    )
}

/// What is checked of every request before it is looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct OriginPolicy {
    pub(crate) allowed: AllowedOrigins,
    /// Whether the server listens on loopback, where a foreign `Host` is an attack.
    pub(crate) checks_host: bool,
    /// Host names under which it is reached besides loopback and those of allowed origins.
    pub(crate) own_hosts: Vec<String>,
}

/// Whose request it is, as far as the browser says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestOrigin {
    /// No browser's, or one of the node's own pages that says nothing of itself.
    Unnamed,
    /// A page that may read the answer: its origin as it was sent.
    Allowed(HeaderValue),
    /// Another page, in the words of the header that tells.
    Foreign(String),
}

impl OriginPolicy {
    /// Refuses what comes under a foreign `Host`, and what a foreign page must not do.
    pub(crate) fn check(
        &self,
        request: &Request,
        is_upgrade: bool,
    ) -> Result<RequestOrigin, ApiError> {
        self.check_host(request.uri(), request.headers())?;
        let sender = self.sender(request.uri(), request.headers());
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        match sender {
            // A foreign page may read what it likes: without CORS headers its browser keeps the
            // answer from it. Of a socket no browser checks anything later.
            RequestOrigin::Foreign(origin) if is_upgrade || !reads => Err(not_allowed(&origin)),
            RequestOrigin::Foreign(_) | RequestOrigin::Allowed(_) | RequestOrigin::Unnamed => {
                Ok(sender)
            }
        }
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        if !self.checks_host || self.allowed.every {
            return Ok(());
        }
        // A foreign name means that somebody pointed theirs at this machine, so that their pages
        // count as pages of this node (DNS rebinding).
        for host in hosts(uri, headers) {
            let name = host_and_port(&host).map(|(name, _)| name);
            if !name.is_some_and(|name| self.is_own_host(&name)) {
                return Err(foreign_host(&host));
            }
        }
        Ok(())
    }

    fn is_own_host(&self, name: &str) -> bool {
        is_loopback(name)
            || self.own_hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
            || self.allowed.listed.iter().any(|origin| origin.host == name)
    }

    /// Whose request it is. An origin that is sent decides alone: pages of allowed origins are
    /// usually of another site.
    fn sender(&self, uri: &Uri, headers: &HeaderMap) -> RequestOrigin {
        let mut allowed = None;
        for value in headers.get_all(header::ORIGIN) {
            let text = String::from_utf8_lossy(value.as_bytes());
            let origin = WebOrigin::parse(&text);
            let is_own = |origin: &WebOrigin| {
                hosts(uri, headers).any(|host| WebOrigin::of_host(&host).as_ref() == Some(origin))
            };
            let may = origin.is_some_and(|origin| self.allowed.has(&origin) || is_own(&origin));
            if !may && !self.allowed.every {
                return RequestOrigin::Foreign(shortened(&text));
            }
            allowed = Some(value.clone());
        }
        if let Some(origin) = allowed {
            return RequestOrigin::Allowed(origin);
        }
        // Images and scripts are asked for without an origin, but the browser says from which site.
        let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes).unwrap_or_default();
        if !self.allowed.every && site.eq_ignore_ascii_case(b"cross-site") {
            return RequestOrigin::Foreign("another site".to_owned());
        }
        RequestOrigin::Unnamed
    }
}

/// Where a request says that it goes: the target's own authority and each `Host`. Browsers always
/// send one; a program that sends none is taken.
fn hosts<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> impl Iterator<Item = String> + 'a {
    let target = uri.authority().map(|authority| authority.as_str().to_owned());
    let sent = headers.get_all(header::HOST).into_iter();
    let sent = sent.map(|host| String::from_utf8_lossy(host.as_bytes()).trim().to_owned());
    target.into_iter().chain(sent).filter(|host| !host.is_empty())
}

fn not_allowed(origin: &str) -> ApiError {
    let message = format!(
        "pages of {origin} may not change anything here or open a WebSocket; whoever runs this \
         node can allow an origin with --allow-origin (allowed_origins)"
    );
    ApiError::new(Problem::OriginNotAllowed, message).details([("origin", origin.into())])
}

fn foreign_host(host: &str) -> ApiError {
    let host = shortened(host);
    let message = format!(
        "this node is not reached as {host:?}: it listens on loopback, and answers to localhost, \
         to 127.0.0.1, to its advertised name and to the hosts of allowed_origins"
    );
    ApiError::new(Problem::HostNotAllowed, message).details([("host", host.into())])
}

fn shortened(text: &str) -> String {
    text.chars().take(PREVIEW_CHARS).collect()
}

/// A host in lower case, with brackets where it is an IPv6 address, and the port if one is written.
pub(crate) fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inside) => {
            let (address, rest) = inside.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            (format!("[{address}]"), rest)
        }
        None => {
            let (host, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_in = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if host.is_empty() || !host.chars().all(is_in) {
                return None;
            }
            (host.to_ascii_lowercase(), rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        Some(_) => return None,
    };
    Some((host, port))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(method: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = axum::http::Request::builder().method(method).uri("/api/branches");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn policy(allowed: &[&str]) -> OriginPolicy {
        let allowed = AllowedOrigins::parse(allowed).unwrap();
        OriginPolicy { allowed, checks_host: true, own_hosts: vec!["till.example".to_owned()] }
    }

    fn code(policy: &OriginPolicy, method: &str, headers: &[(&str, &str)]) -> &'static str {
        match policy.check(&request(method, headers), false) {
            Ok(_) => "taken",
            Err(error) => error.problem().code(),
        }
    }

    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        let same = |one: &str, other: &str| WebOrigin::parse(one) == WebOrigin::parse(other);
        assert!(same("https://Shop.Example", "HTTPS://shop.example:443"));
        assert!(same("http://a:80", "http://a"));
        assert!(same("http://[0:0::1]:1", "http://[::1]:1"));
        assert!(!same("http://a", "https://a"));
        assert!(!same("http://a", "http://a:8080"));
        assert!(!same("http://a", "http://a."));
        for bad in [
            "null",
            "",
            "a",
            "http://",
            "http://a/",
            "http://a/x",
            "http://a?x",
            "http://u@a",
            "http://a:x",
            "http://a:70000",
            "http://a http://b",
            "http://[1",
            "http://\u{627}",
            "1http://a",
        ] {
            assert_eq!(WebOrigin::parse(bad), None, "{bad:?}");
        }
        assert_eq!(WebOrigin::parse("HTTPS://A:443").unwrap().to_string(), "https://a");
        assert_eq!(WebOrigin::parse("app://shop").unwrap().to_string(), "app://shop");
    }

    #[test]
    fn loopback_origins_are_the_default_and_nothing_like_them() {
        let allowed = AllowedOrigins::default();
        let has = |text: &str| WebOrigin::parse(text).is_some_and(|origin| allowed.has(&origin));
        for own in
            ["http://localhost", "https://LOCALHOST:5173", "http://127.3.2.1:9", "http://[::1]:3"]
        {
            assert!(has(own), "{own}");
        }
        for other in [
            "http://localhost.evil.example",
            "http://evil-localhost",
            "http://127.0.0.1.evil.example",
            "http://128.0.0.1",
            "http://0.0.0.0",
            "http://[::2]",
            "ftp://localhost",
            "http://127.1",
            "null",
        ] {
            assert!(!has(other), "{other}");
        }
    }

    #[test]
    fn a_list_stands_for_what_it_says_and_bad_entries_are_refused() {
        let list = AllowedOrigins::parse(&["https://shop.example:443", "loopback"]).unwrap();
        assert_eq!(list.to_string(), "loopback, https://shop.example");
        assert!(AllowedOrigins::parse(&["*"]).unwrap().is_every());
        for (bad, part) in [("null", "any page"), ("shop.example", "not an origin")] {
            assert!(AllowedOrigins::parse(&[bad]).unwrap_err().contains(part), "{bad}");
        }
        assert!(AllowedOrigins::parse(&["https://a/"]).unwrap_err().contains("without a path"));
    }

    #[test]
    fn foreign_pages_change_nothing_and_may_send_reads() {
        let policy = policy(&["loopback", "https://shop.example"]);
        let host = ("host", "127.0.0.1:3200");
        for (headers, expected) in [
            (vec![host], "taken"),
            (vec![host, ("origin", "http://127.0.0.1:3200")], "taken"),
            (vec![host, ("origin", "http://localhost:5173")], "taken"),
            (vec![host, ("origin", "https://shop.example")], "taken"),
            (
                vec![
                    host,
                    ("origin", "https://SHOP.example:443"),
                    ("sec-fetch-site", "cross-site"),
                ],
                "taken",
            ),
            (vec![host, ("sec-fetch-site", "same-origin")], "taken"),
            (vec![host, ("sec-fetch-site", "none")], "taken"),
            (vec![host, ("sec-fetch-site", "cross-site")], "origin-not-allowed"),
            (vec![host, ("origin", "null")], "origin-not-allowed"),
            (vec![host, ("origin", "")], "origin-not-allowed"),
            (vec![host, ("origin", "http://shop.example")], "origin-not-allowed"),
            (vec![host, ("origin", "https://shop.example:444")], "origin-not-allowed"),
            (vec![host, ("origin", "http://evil.example")], "origin-not-allowed"),
            (
                vec![host, ("origin", "https://shop.example"), ("origin", "http://evil.example")],
                "origin-not-allowed",
            ),
        ] {
            for method in ["POST", "PUT", "PATCH", "DELETE"] {
                assert_eq!(code(&policy, method, &headers), expected, "{headers:?}");
            }
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert_eq!(code(&policy, method, &headers), "taken", "{headers:?}");
                let upgrade = policy.check(&request(method, &headers), true);
                assert_eq!(upgrade.is_ok(), expected == "taken", "{headers:?}");
            }
        }
    }

    #[test]
    fn a_foreign_host_is_refused_where_the_node_is_on_loopback() {
        let mut policy = policy(&["loopback", "https://shop.example"]);
        for own in [
            "localhost",
            "LocalHost:3200",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:3200",
            "till.example:3200",
            "shop.example",
        ] {
            assert_eq!(code(&policy, "GET", &[("host", own)]), "taken", "{own}");
        }
        for foreign in [
            "evil.example:3200",
            "evil.example",
            "0.0.0.0:3200",
            "127.0.0.1.evil.example",
            "a b",
            "localhost:x",
            "user@localhost",
        ] {
            for method in ["GET", "POST", "OPTIONS"] {
                let got = code(&policy, method, &[("host", foreign)]);
                assert_eq!(got, "host-not-allowed", "{foreign}");
            }
        }
        let both = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(code(&policy, "GET", &both), "host-not-allowed");
        // The same name as page and host is the attack itself.
        let rebound = [("host", "evil.example:1"), ("origin", "http://evil.example:1")];
        assert_eq!(code(&policy, "POST", &rebound), "host-not-allowed");
        policy.checks_host = false;
        assert_eq!(code(&policy, "POST", &rebound), "taken", "its own page, as far as it can tell");
        let other = [("host", "shop.lan:3200"), ("origin", "http://shop.lan")];
        assert_eq!(code(&policy, "POST", &other), "origin-not-allowed");
    }

    #[test]
    fn a_star_takes_everything_as_the_original_does() {
        let policy = policy(&["*"]);
        for headers in [
            [("host", "evil.example"), ("origin", "http://evil.example:9")],
            [("host", "localhost"), ("origin", "null")],
            [("host", "localhost"), ("sec-fetch-site", "cross-site")],
        ] {
            assert_eq!(code(&policy, "POST", &headers), "taken", "{headers:?}");
        }
    }
}
