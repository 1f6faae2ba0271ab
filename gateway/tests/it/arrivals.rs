//! Stories of bytes that arrive: too many, too slowly, or not at all; and of answers that are owed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::SinkExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::client::{Served, until};

const TABLE: &str = "/api/branches/dar/modules/pos/tables/tickets";
const SYNC: &str = "/api/sync/dar/pos";
const QUERY: &str = "/api/query/module";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\n\
                       upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SHORT: Duration = Duration::from_millis(300);

/// The head of a request with a body of so many bytes.
fn head(path: &str, length: usize, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n{more}\r\n")
}

/// A connection over which this was said.
async fn said(served: &Served, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// All that comes until the connection ends.
async fn to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    // A reset is an end, too.
    let _ = read.expect("the connection is still open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// What comes next.
async fn next(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 16 * 1024];
    let count = timeout(Duration::from_secs(10), stream.read(&mut bytes)).await;
    let count = count.expect("nothing came").unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

async fn post(served: &Served, path: &str, body: &str) -> String {
    let request = head(path, body.len(), "connection: close\r\n") + body;
    to_end(&mut said(served, request.as_bytes()).await).await
}

#[tokio::test]
async fn a_length_beyond_the_bound_is_refused_before_the_body() {
    let served = Served::new(|_| {}).await;
    for (path, length) in
        [(QUERY, 128 * 1024 + 1), (TABLE, 1024 * 1024 + 1), (SYNC, 32 * 1024 * 1024 + 1)]
    {
        let mut silent = said(&served, head(path, length, "").as_bytes()).await;
        let answer = to_end(&mut silent).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
        assert!(answer.contains(r#""error":"body-too-large""#), "{answer}");
        let expects = head(path, length, "expect: 100-continue\r\n");
        let answer = to_end(&mut said(&served, expects.as_bytes()).await).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn who_sends_all_of_a_body_too_large_reads_the_refusal() {
    let served = Served::new(|_| {}).await;
    let body = "x".repeat(512 * 1024);
    for _ in 0..20 {
        let mut stream = said(&served, head(QUERY, body.len(), "").as_bytes()).await;
        sleep(Duration::from_millis(5)).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        let answer = to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[tokio::test]
async fn slow_large_bodies_hold_up_no_sync_and_no_delta() {
    let served = Served::new(|_| {}).await;
    let begun = head(SYNC, 8 * 1024 * 1024, "") + &"x".repeat(2 * 1024 * 1024);
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(said(&served, begun.as_bytes()).await);
    }
    let answer = post(&served, SYNC, "{}").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = post(&served, "/api/sync/dar/pos/delta", "{}").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let large = format!(r#"{{"padding":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    let answer = post(&served, SYNC, &large).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_stalls_is_refused_and_a_slow_one_is_not() {
    let served = Served::new(|config| config.limits.pace_window = SHORT).await;
    let mut stalls = said(&served, (head(TABLE, 1_000_000, "") + "{").as_bytes()).await;
    let answer = to_end(&mut stalls).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");

    // 40 KiB a second, for some windows.
    let body = format!(r#"{{"id":"slow","title":"{}"}}"#, "x".repeat(60 * 1024));
    let mut slow = said(&served, head(TABLE, body.len(), "connection: close\r\n").as_bytes()).await;
    for part in body.as_bytes().chunks(4 * 1024) {
        slow.write_all(part).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    let answer = to_end(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}

#[tokio::test]
async fn bodies_beyond_the_bound_are_refused_largest_first() {
    let bytes_max = 1024 * 1024;
    let served = Served::new(|config| config.limits.arrival_bytes_max = bytes_max).await;
    let begun = |bytes| head(SYNC, bytes_max / 2 + bytes, "") + &"x".repeat(bytes);
    let mut small = said(&served, begun(bytes_max / 4).as_bytes()).await;
    let mut large = said(&served, begun(bytes_max / 2).as_bytes()).await;
    sleep(Duration::from_millis(200)).await;
    let _last = said(&served, begun(bytes_max / 2).as_bytes()).await;
    let answer = to_end(&mut large).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    let mut byte = [0];
    assert!(timeout(SHORT, small.read(&mut byte)).await.is_err(), "it may go on");
    let mut announced = said(&served, head(SYNC, bytes_max * 2, "").as_bytes()).await;
    let answer = to_end(&mut announced).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "no byte of it is read: {answer}");
}

#[tokio::test]
async fn a_client_that_half_closes_gets_its_answer() {
    let served = Served::new(|_| {}).await;
    let body = r#"{"id":"half","title":"T"}"#;
    for request in [
        head(TABLE, body.len(), "") + body,
        format!("GET {TABLE} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    ] {
        served.fake.orders().hold_outcomes.store(true, Ordering::SeqCst);
        let mut stream = said(&served, request.as_bytes()).await;
        stream.shutdown().await.unwrap();
        sleep(Duration::from_millis(100)).await;
        served.fake.release_outcome();
        let answer = to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        served.fake.orders().hold_outcomes.store(false, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_large_one_without_a_turn_is_refused_in_time() {
    const TURNS: u64 = 8;
    let served = Served::new(|config| config.limits.turn_wait_max = SHORT).await;
    served.enter("dar").await;
    let text = "x".repeat(1_100_000);
    let tables =
        format!(r#"{{"tickets":[{{"id":"a","title":"{text}"}}],"thing":[{{"a":"x","b":1}}]}}"#);
    let rows = format!(r#"{{"snapshot":{{"tables":{tables}}}}}"#);
    let large = head(SYNC, rows.len(), "connection: close\r\n") + &rows;
    served.fake.orders().hold_outcomes.store(true, Ordering::SeqCst);
    let mut held = Vec::new();
    for _ in 0..TURNS {
        held.push(said(&served, large.as_bytes()).await);
    }
    until(|| served.fake.orders().submitted.load(Ordering::SeqCst) == TURNS).await;
    let answer = to_end(&mut said(&served, large.as_bytes()).await).await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    let mut socket = served.open("/ws").await;
    socket.say(&format!(r#"{{"type":"publish","topic":"sync::dar::pos","data":{rows}}}"#)).await;
    assert_eq!(socket.goodbye().await.0, 1013);
    // Smaller ones never wait for it, and those that have their turn are answered.
    let small = said(&served, (head(QUERY, 2, "connection: close\r\n") + "{}").as_bytes()).await;
    assert!(to_end(&mut { small }).await.starts_with("HTTP/1.1 400 "));
    (0..TURNS).for_each(|_| served.fake.release_outcome());
    for mut stream in held {
        let answer = to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn a_socket_that_says_no_goodbye_ends() {
    let served = Served::new(|config| config.limits.idle_max = SHORT).await;
    let mut stream = said(&served, UPGRADE.as_bytes()).await;
    // It reads all that comes and says nothing: neither a word nor a goodbye.
    let heard = to_end(&mut stream).await;
    assert!(heard.starts_with("HTTP/1.1 101 ") && heard.contains("nothing was heard"), "{heard}");
}

#[tokio::test]
async fn a_request_with_a_body_does_not_become_a_socket() {
    let served = Served::new(|config| config.limits.keep_alive_max = SHORT).await;
    // Neither where the body comes nor where it does not.
    for body in ["", "{", "{   }"] {
        let upgrade = UPGRADE.replace("connection:", "content-length: 5\r\nconnection:") + body;
        let heard = to_end(&mut said(&served, upgrade.as_bytes()).await).await;
        assert!(heard.starts_with("HTTP/1.1 400 "), "{body}: {heard}");
        assert!(heard.contains("has no body"), "{body}: {heard}");
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_ends() {
    let served = Served::new(|config| config.limits.first_byte_max = SHORT).await;
    assert_eq!(to_end(&mut said(&served, b"").await).await, "");
}

#[tokio::test]
async fn a_head_that_does_not_end_ends_its_connection() {
    let served = Served::new(|config| config.limits.head_read_max = SHORT).await;
    let mut stream = said(&served, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(next(&mut stream).await.starts_with("HTTP/1.1 200 "));
    // Also that of a later request.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await.unwrap();
    assert_eq!(to_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_connection_without_another_request_ends() {
    let served = Served::new(|config| config.limits.keep_alive_max = SHORT).await;
    let mut stream = said(&served, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let answer = to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn heads_beyond_the_bound_end_their_connections() {
    let bytes_max = 64 * 1024;
    let served = Served::new(|config| config.limits.arrival_bytes_max = bytes_max).await;
    let begun = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-filler: {}", "x".repeat(24 * 1024));
    let mut first = said(&served, begun.as_bytes()).await;
    sleep(Duration::from_millis(100)).await;
    let _others = (said(&served, begun.as_bytes()).await, said(&served, begun.as_bytes()).await);
    assert_eq!(to_end(&mut first).await, "", "the oldest of equals");
}

/// A frame that begins a text of more frames, and goes on.
fn parts(bytes: usize) -> [Message; 2] {
    let part = |kind| Message::Frame(Frame::message("x".repeat(bytes), OpCode::Data(kind), false));
    [part(Data::Text), part(Data::Continue)]
}

#[tokio::test]
async fn a_message_beyond_the_bound_closes_with_1013() {
    let bytes_max = 1024 * 1024;
    let served = Served::new(|config| config.limits.arrival_bytes_max = bytes_max).await;
    let (mut large, mut small) = (served.open("/ws").await, served.open("/ws").await);
    small.0.send(parts(100 * 1024)[0].clone()).await.unwrap();
    // Each counts three times.
    let _ = large.0.send(parts(300 * 1024)[0].clone()).await;
    assert_eq!(large.goodbye().await.0, 1013);
    small.silent().await;
}

#[tokio::test]
async fn a_message_that_never_finds_room_is_too_large() {
    let served = Served::new(|config| config.limits.arrival_bytes_max = 1024 * 1024).await;
    let mut socket = served.open("/ws").await;
    let _ = socket.0.send(parts(400 * 1024)[0].clone()).await;
    let (code, _) = socket.goodbye().await;
    // The system may throw the goodbye away with what was not read.
    assert!(code == 1009 || code == 1006, "{code}");
}

#[tokio::test]
async fn a_message_that_stalls_closes_its_socket_with_1008() {
    let served = Served::new(|config| config.limits.pace_window = SHORT).await;
    let (mut idle, mut socket) = (served.open("/ws").await, served.open("/ws").await);
    socket.0.send(parts(100)[0].clone()).await.unwrap();
    // A pong does not make it one that goes on.
    socket.0.send(Message::Pong("x".into())).await.unwrap();
    assert_eq!(socket.goodbye().await.0, 1008);
    idle.0.send(Message::Pong("x".into())).await.unwrap();
    sleep(2 * SHORT).await;
    idle.say(r#"{"type":"ping"}"#).await;
    idle.expect("pong").await;
}

#[tokio::test]
async fn a_frame_that_is_none_closes_its_socket_with_1002() {
    let served = Served::new(|_| {}).await;
    let long_ping = [&[0x89, 0xfe, 0, 126, 0, 0, 0, 0][..], &[b'x'; 126]].concat();
    for (what, frame) in [
        ("not masked", &b"\x81\x02{}"[..]),
        ("a reserved bit", b"\xc1\x82\0\0\0\0{}"),
        ("an unknown kind", b"\x83\x82\0\0\0\0{}"),
        ("a continuation of nothing", b"\x80\x82\0\0\0\0{}"),
        ("a ping in parts", b"\x09\x80\0\0\0\0"),
        ("a long ping", &long_ping),
        ("a goodbye of one byte", b"\x88\x81\0\0\0\0\x03"),
    ] {
        let mut stream = said(&served, UPGRADE.as_bytes()).await;
        // The goodbye is not lost where more was sent.
        stream.write_all(frame).await.unwrap();
        stream.write_all(&[0; 10_000]).await.unwrap();
        let mut all = Vec::new();
        let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await.unwrap();
        let goodbye = all.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == [0x03, 0xea]);
        assert!(goodbye, "{what}: {}", String::from_utf8_lossy(&all));
    }
}
