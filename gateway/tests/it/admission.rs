//! Stories of writes that are refused from their heads.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actors::RouteError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Served;

const TABLE: &str = "/api/branches/dar/modules/pos/tables/tickets";

fn busy() -> RouteError {
    RouteError::Busy { what: "this branch, of this address", retry_after: Duration::from_secs(3) }
}

fn head(method: &str, path: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n")
}

/// One answer.
async fn next(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut bytes = [0; 4096];
        let read = timeout(Duration::from_secs(10), stream.read(&mut bytes)).await;
        let count = read.expect("nothing came").unwrap();
        assert!(count > 0, "the connection ended");
        answer.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_write_refused_from_its_head_keeps_its_connection() {
    let served = Served::new(|_| {}).await;
    *served.fake.orders().refuse_head.lock() = Some(busy());
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    // No JSON, so that whoever reads it says so.
    for length in [1, 20_000, 60_000] {
        stream.write_all(head("POST", TABLE, length).as_bytes()).await.unwrap();
        // In pieces, as a network brings it.
        for piece in vec![b'x'; length].chunks(7_000) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let answer = next(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        assert!(answer.contains("retry-after: 3\r\n"), "{answer}");
        assert!(answer.contains("this branch, of this address"), "{answer}");
    }
    let body = r#"{"record":{"id":"a"}}"#;
    *served.fake.orders().refuse_head.lock() = None;
    stream.write_all((head("POST", TABLE, body.len()) + body).as_bytes()).await.unwrap();
    assert!(next(&mut stream).await.starts_with("HTTP/1.1 201 "));
    assert_eq!(served.fake.orders().submitted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_no_write_of_records_is_not_asked_for_its_place() {
    let served = Served::new(|_| {}).await;
    *served.fake.orders().refuse_head.lock() = Some(busy());
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let requests = [
        head("GET", TABLE, 0),
        head("GET", "/readyz", 0),
        head("POST", "/api/branches/dar/modules/pos/reset", 2) + "{}",
    ];
    for request in requests {
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = next(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
