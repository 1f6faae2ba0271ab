//! Raw: HTTP as bytes, for requests that no library would send.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tests::wait::TIMEOUT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer.
#[derive(Debug)]
pub(super) struct RawAnswer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// A request with a body.
pub(super) fn request(method: &str, path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    bytes.push_str(&format!("content-length: {}\r\n", body.len()));
    for header in headers {
        bytes.push_str(header);
        bytes.push_str("\r\n");
    }
    bytes.push_str("\r\n");
    let mut bytes = bytes.into_bytes();
    bytes.extend(body);
    bytes
}

/// Sends bytes and reads the answer to its end.
///
/// # Errors
/// There is none, or it is no HTTP.
pub(super) async fn send(node: SocketAddr, bytes: &[u8]) -> Result<RawAnswer> {
    let mut stream = TcpStream::connect(node).await?;
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let talk = async {
        // A node may answer, and close, before it has read everything.
        let (_, read) = tokio::join!(writer.write_all(bytes), reader.read_to_end(&mut answer));
        read
    };
    // A connection that is reset after its answer has still answered.
    let ended = timeout(TIMEOUT, talk).await.context("no answer came")?;
    if answer.is_empty() {
        ended.context("the connection broke without an answer")?;
    }
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no HTTP")?;
    let text = String::from_utf8_lossy(&answer[..head]).into_owned();
    let status = text.split(' ').nth(1).context("no status")?.parse()?;
    let mut body = answer.split_off(head + 4);
    if text.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Ok(RawAnswer { status, body })
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..at]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok()).unwrap_or(0);
        let (from, to) = (at + 2, at + 2 + size);
        if size == 0 || bytes.len() < to {
            break;
        }
        body.extend(&bytes[from..to]);
        bytes = bytes.get(to + 2..).unwrap_or_default();
    }
    body
}

/// A table that takes every method.
const TABLE: &str = "/api/branches/dar/modules/pos/tables/order_header";

/// Requests whose path, query or headers are wrong.
pub(super) fn requests() -> Vec<(String, Vec<u8>)> {
    let mut all = wrong_paths();
    all.extend(wrong_headers());
    all.extend(no_http());
    for method in ["PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "FOO"] {
        for path in ["/healthz", "/api/branches", "/api/schema", "/metrics", TABLE] {
            all.push((format!("{method} {path}"), request(method, path, &[], b"{bad")));
        }
    }
    all
}

fn wrong_paths() -> Vec<(String, Vec<u8>)> {
    let long = format!("/api/branches/{}", "x".repeat(9_000));
    let paths = [
        "/%E0%A4%A",
        "/%",
        "/%zz",
        "/%ff%fe",
        "/api/branches/%E0%A4%A",
        "/api/branches/%00",
        "/api/branches/%2e%2e",
        "/api/branches/a%2Fb",
        "/api/branches/a%5Cb/modules/pos",
        "/api/branches/dar/modules/%2e%2e",
        "/api/branches/dar/modules/POS",
        "/api/branches/dar/modules/pos/tables/%22",
        "/api/branches/dar/modules/pos/tables/a b",
        "/api/branches/dar/modules/pos/tables/order_header?limit=x",
        "/api/branches/dar/modules/pos/tables/order_header?limit=-1",
        "/api/branches/dar/modules/pos/tables/order_header?limit=99999999999999999999",
        "/api/branches/dar/modules/pos/tables/order_header?updatedAfter=yesterday",
        "/api/branches/dar/modules/pos/tables/order_header?after=%E0%A4%A",
        "/api/branches/dar/modules/pos/tables/order_header?%=%",
        "/api/branches/dar/modules/pos/events?after=-1&limit=x",
        "/api/branches/dar/modules/pos/orders?limit=x&updatedAfter=never",
        "/api/branches/dar/modules/pos/orders/%E0%A4%A",
        "/api/branches/gim/modules/gym",
        "/api/branches/dar/modules/pos/../../..",
        "/api/schema?branch=%00&module=../..",
        "/api/schemas/global/..%2f..%2fetc",
        "/api/schemas/branch/..%2f/pos",
        "/api/manage/purge-history?entryId=%00",
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//",
        "/api//branches//",
        "*",
        long.as_str(),
    ];
    let shown = |path: &str| path.chars().take(80).collect();
    paths.iter().map(|path| (shown(path), request("GET", path, &[], b""))).collect()
}

fn wrong_headers() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let header = |name: &str, value: &str| format!("{name}: {value}");
    let many = "x".repeat(20_000);
    for (name, value) in [
        ("content-type", "nonsense"),
        ("content-encoding", "gzip"),
        ("idempotency-key", ""),
        ("idempotency-key", &many[..300]),
        ("idempotency-key", "\u{e9}"),
        ("x-large", &many),
        ("x-mishkah-cursor", "nonsense"),
        ("x-mishkah-read-level", "psychic"),
        ("expect", "the-impossible"),
        ("upgrade", "websocket"),
        ("host", "a b c"),
    ] {
        let line = header(name, value);
        all.push((name.to_owned(), request("POST", TABLE, &[&line], b"{}")));
    }
    let upgrade = ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 1"];
    all.push(("a half upgrade".to_owned(), request("GET", "/ws", &upgrade, b"")));
    all
}

/// Bytes that are hardly HTTP.
fn no_http() -> Vec<(String, Vec<u8>)> {
    let all = [
        &b"\r\n\r\nGET\r\n\r\n"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n", b"BREW /coffee HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        b"POST /api/query/module HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"POST /api/query/module HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nhost: y\r\nconnection: close\r\nx: \xff\xfe\r\n\r\n",
    ];
    all.into_iter()
        .map(|bytes| (String::from_utf8_lossy(bytes).into_owned(), bytes.to_vec()))
        .collect()
}
