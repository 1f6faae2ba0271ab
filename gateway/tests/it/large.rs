//! Large snapshots: one message in many frames, up to a limit that is told.

use std::time::Duration;

use model::{Action, RecordMutation, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Rest, Served, at};

const HELLO: &[u8] = br#"{"type":"client:hello","branchId":"dar","requestId":"h"}"#;

/// A record of 100 kB.
fn large(n: usize) -> RecordMutation {
    let record = [("id", Value::from(format!("t{n}"))), ("title", "é".repeat(50_000).into())];
    RecordMutation::new(Action::Insert, "tickets", record.into_iter().collect())
}

/// A socket whose frames are read as they are.
struct Raw(TcpStream);

impl Raw {
    async fn open(served: &Served) -> Self {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let request = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\n\
                       upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        Self(stream)
    }

    /// A text frame with these bytes.
    async fn say(&mut self, text: &[u8]) {
        let length = u8::try_from(text.len()).unwrap();
        // One text frame, masked with zeros.
        let head = [0x81, 0x80 | length, 0, 0, 0, 0];
        self.0.write_all(&[&head[..], text].concat()).await.unwrap();
    }

    /// Whether it is the last of its message, its kind, its bytes.
    async fn frame(&mut self) -> (bool, u8, Vec<u8>) {
        let (first, second) = (self.0.read_u8().await.unwrap(), self.0.read_u8().await.unwrap());
        let length = match second {
            126 => u64::from(self.0.read_u16().await.unwrap()),
            127 => self.0.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut bytes).await.unwrap();
        (first & 0x80 != 0, first & 0x0f, bytes)
    }
}

#[tokio::test]
async fn a_large_snapshot_is_one_message_in_many_frames() {
    const PING: u8 = 9;
    let served = Served::new(|config| {
        config.limits.ping_every = Duration::from_millis(5);
        config.limits.idle_max = Duration::from_secs(60);
    })
    .await;
    (0..60).for_each(|n| drop(served.fake.write("dar", "pos", large(n))));
    let mut socket = Raw::open(&served).await;
    socket.say(HELLO).await;
    let (mut text, mut frames, mut pings) = (Vec::new(), 0, 0);
    loop {
        match socket.frame().await {
            (true, PING, _) => pings += usize::from(frames > 0),
            (true, 1, other) => {
                assert_eq!(frames, 0, "{}", String::from_utf8_lossy(&other));
            }
            (is_last, kind, piece) => {
                assert_eq!(kind, u8::from(frames == 0), "a text, then what continues it");
                assert!(piece.len() <= gateway::limits::PIECE_BYTES);
                frames += 1;
                text.extend(piece);
                if is_last {
                    break;
                }
                // A slow reader: pings come between the frames.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    assert!(frames > 60 && pings > 0, "{frames} frames, {pings} pings");
    let snapshot = Value::from_json(&text).unwrap();
    assert_eq!(at(&snapshot, &["type"]).as_str(), Some("server:snapshot"));
    let tickets = at(&snapshot, &["modules", "pos", "tables", "tickets"]).as_array().unwrap();
    assert_eq!(tickets.len(), 60);
    assert_eq!(at(&snapshot, &["cursors", "pos", "sequence"]).as_u64(), Some(60));
    // What happens next is told as ever.
    served.fake.write("dar", "pos", large(60));
    loop {
        let (_, kind, bytes) = socket.frame().await;
        if kind == 1 {
            assert!(bytes.starts_with(br#"{"type":"server:event""#));
            break;
        }
    }
}

#[tokio::test]
async fn a_snapshot_beyond_the_limit_says_what_to_do() {
    let limit = |config: &mut gateway::GatewayConfig| {
        config.limits.snapshot_bytes_max = 2 * 1024 * 1024;
    };
    let served = Served::new(limit).await;
    (0..30).for_each(|n| drop(served.fake.write("dar", "pos", large(n))));
    let mut socket = served.open("/ws").await;
    socket.say(std::str::from_utf8(HELLO).unwrap()).await;
    socket.expect("server:log").await;
    socket.expect("server:log").await;
    let error = socket.expect("server:error").await;
    assert_eq!(at(&error, &["code"]).as_str(), Some("snapshot-too-large"));
    assert_eq!(at(&error, &["requestId"]).as_str(), Some("h"));
    let message = at(&error, &["message"]).as_str().unwrap();
    assert!(message.contains("afterKey") && message.contains("snapshot_max_mib"), "{message}");
    // The socket goes on.
    served.fake.write("dar", "pos", large(30));
    socket.expect("server:event").await;

    let rest =
        Rest { gateway: crate::client::gateway(&served.fake, limit), fake: served.fake.clone() };
    for path in ["/api/branches/dar", "/api/branches/dar/modules/pos", "/api/sync/dar/pos"] {
        assert_eq!(rest.get(path).await.code(), (413, "snapshot-too-large"), "{path}");
    }
}

#[tokio::test]
async fn a_large_module_is_read_over_rest_as_it_is() {
    let rest = Rest::new();
    (0..30).for_each(|n| drop(rest.fake.write("dar", "pos", large(n))));
    for (path, tickets) in [
        ("/api/branches/dar", &["modules", "pos", "tables", "tickets"][..]),
        ("/api/branches/dar/modules/pos", &["tables", "tickets"]),
        ("/api/branches/dar/modules/pos/tables", &["tickets"]),
        ("/api/sync/dar/pos", &["snapshot", "tables", "tickets"]),
    ] {
        let answer = rest.get(path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), answer.raw.len().to_string(), "{path}");
        assert_eq!(at(&answer.body, tickets).as_array().map(<[_]>::len), Some(30), "{path}");
    }
}

#[tokio::test]
async fn a_text_that_is_not_utf_8_ends_the_socket_and_says_so() {
    let served = Served::new(|_| {}).await;
    let mut socket = Raw::open(&served).await;
    socket.say(b"{\"type\":\"ping\",\"x\":\"\xff\"}").await;
    loop {
        let (_, kind, bytes) = socket.frame().await;
        if kind == 8 {
            assert_eq!(bytes[..2], 1007_u16.to_be_bytes());
            break;
        }
    }
}

#[tokio::test]
async fn an_event_too_large_with_its_snapshot_comes_without_it() {
    let served = Served::new(|_| {}).await;
    let mut till = served.enter("dar").await;
    let publish = |id: &str| {
        format!(
            r#"{{"type":"client:publish","moduleId":"pos","table":"tickets","includeSnapshot":true,
            "record":{{"id":"{id}"}}}}"#
        )
    };
    till.say(&publish("small")).await;
    till.expect("server:ack").await;
    assert!(till.expect("server:event").await.get("snapshot").is_some());
    drop(till);
    (0..340).for_each(|n| drop(served.fake.write("dar", "pos", large(n))));
    let mut till = served.enter("dar").await;
    till.say(&publish("large")).await;
    till.expect("server:ack").await;
    let event = till.expect("server:event").await;
    assert!(event.get("snapshot").is_none(), "of 34 MB");
    assert_eq!(at(&event, &["recordRef", "key"]).as_str(), Some("large"));
}
