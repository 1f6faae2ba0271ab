//! Bytes that arrive and never become work: slow and unfinished bodies, messages without an end.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::FutureExt;
use futures::future::join_all;
use serde_json::json;
use tests::client::TablePath;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::connections::{hold, nothing};
use super::{Answers, Attack, BRANCH, Target};

/// The polite client's branch, as the sync routes name it.
const SYNC: &str = "/api/sync/dar/pos";

/// Bodies that come as slowly as may be.
pub(crate) const SLOW: Attack = Attack {
    name: "slow-bodies",
    about: "20 syncs of 8 MB that come slowly, beside deltas; eight once blocked every sync",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["200 of a small sync"],
    prepare: nothing,
    run: |target, phase| slow_bodies(target, phase).boxed(),
};

/// Bodies that are left unfinished.
pub(crate) const UNFINISHED: Attack = Attack {
    name: "unfinished-bodies",
    about: "1,500 bodies of 1 MB without their last byte; they once held 1.6 GB",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["held"],
    prepare: nothing,
    run: |target, phase| {
        let path = TablePath::pos(BRANCH, "dining_tables").path();
        let head = "HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n";
        let body = "x".repeat(999_999);
        hold(target, phase, 1_500, format!("POST {path} {head}{body}"))
    },
};

/// Messages that are left unfinished.
pub(crate) const FRAGMENTS: Attack = Attack {
    name: "unfinished-fragments",
    about: "1,000 sockets with 1 MiB of a message that does not end; they once held 2.1 GB",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["held"],
    prepare: nothing,
    run: |target, phase| {
        const BYTES: u32 = 1024 * 1024 - 64;
        let mut said = b"GET /ws HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: Upgrade\r\n\
            upgrade: websocket\r\nsec-websocket-version: 13\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_vec();
        // A text that goes on in other frames, masked with zeros.
        said.extend([0x01, 0x80 | 127]);
        said.extend(u64::from(BYTES).to_be_bytes());
        said.extend([0; 4]);
        said.resize(said.len() + BYTES as usize, b'x');
        hold(target, phase, 1_000, said)
    },
};

async fn slow_bodies(target: Target, phase: Duration) -> Result<Answers> {
    let end = Instant::now() + phase;
    let slow = join_all((0..20).map(|_| slow_body(&target, end)));
    let (_, answers) = tokio::join!(slow, deltas(&target, end));
    answers
}

/// Sends 16 KiB a second of a large body, again and again.
async fn slow_body(target: &Target, end: Instant) {
    let head =
        format!("POST {SYNC} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 8000000\r\n\r\n");
    while Instant::now() < end {
        let Ok(mut stream) = TcpStream::connect(target.node).await else { return };
        let mut sent = stream.write_all(head.as_bytes()).await;
        while sent.is_ok() && Instant::now() < end {
            sent = stream.write_all(&[b' '; 4 * 1024]).await;
            sleep(Duration::from_millis(250)).await;
        }
    }
}

/// Small deltas and syncs of a polite client: each must succeed.
async fn deltas(target: &Target, end: Instant) -> Result<Answers> {
    let mut answers = Answers::default();
    while Instant::now() < end {
        for path in [SYNC.to_owned(), format!("{SYNC}/delta")] {
            let reply = target.client.send_json("POST", &path, None, &json!({})).await;
            let status = reply.map_or(0, |reply| reply.status);
            *answers.0.entry(format!("{status} of a small sync")).or_default() += 1;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let refused = answers.0.keys().any(|status| !status.starts_with("200"));
    ensure!(!refused, "small syncs were refused: {:?}", answers.0);
    Ok(answers)
}
