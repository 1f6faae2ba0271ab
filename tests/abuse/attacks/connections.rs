//! Connections that hold on to what they are given: unread answers, unfinished requests, silence.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;
use tests::client::TablePath;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{Answers, Attack, BRANCH, Target, fill, repeat};

const TABLE: &str = "dining_tables";
const ROWS: usize = 100_000;

/// Answers that nobody reads.
pub(crate) const UNREAD: Attack = Attack {
    name: "unread-answers",
    about: "100 readers of a module of 100,000 rows that stop reading; each once held 21 MB",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["held"],
    prepare: |target| async move { fill(&target, TABLE, ROWS).await }.boxed(),
    run: |target, phase| {
        let path = TablePath::pos(BRANCH, TABLE).module_path();
        hold(target, phase, 100, format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"))
    },
};

/// Requests whose bodies do not come.
pub(crate) const BODIES: Attack = Attack {
    name: "half-bodies",
    about: "1,500 requests that send a byte of 1 MB; they once held 1.6 GB",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["held"],
    prepare: nothing,
    run: |target, phase| {
        let path = TablePath::pos(BRANCH, TABLE).path();
        let head = "HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n{";
        hold(target, phase, 1_500, format!("POST {path} {head}"))
    },
};

/// Heads that do not end.
pub(crate) const HEADS: Attack = Attack {
    name: "half-heads",
    about: "5,000 connections with 8 KB of a head that does not end; they once held 2.1 GB",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["held"],
    prepare: nothing,
    run: |target, phase| {
        let filler = "x".repeat(8_000);
        hold(
            target,
            phase,
            5_000,
            format!("GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-filler: {filler}"),
        )
    },
};

/// Connections that say nothing.
pub(crate) const SILENT: Attack = Attack {
    name: "silent",
    about: "5,000 connections that say nothing; they once stayed for ever",
    memory_max_mib: 256,
    kept_kib: 0,
    shown_by: &["held"],
    prepare: nothing,
    run: |target, phase| hold(target, phase, 5_000, String::new()),
};

/// Keys as long as a body.
pub(crate) const KEYS: Attack = Attack {
    name: "long-keys",
    about: "inserts records whose keys have 900 KB; one once took 214 MB of disk",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["400"],
    prepare: nothing,
    run: |target, phase| {
        let path = TablePath::pos(BRANCH, TABLE).path();
        let body = json!({ "record": { "id": "k".repeat(900_000), "name": "T" } });
        async move { Ok(repeat(&target, 4, phase, None, (&path, &body)).await) }.boxed()
    },
};

pub(super) fn nothing(_: Target) -> BoxFuture<'static, Result<()>> {
    async { Ok(()) }.boxed()
}

/// Opens so many connections, sends this over each and reads nothing, until the time is over.
pub(super) fn hold(
    target: Target,
    phase: Duration,
    connections: usize,
    said: impl AsRef<[u8]> + Send + Sync + 'static,
) -> BoxFuture<'static, Result<Answers>> {
    async move {
        let mut held = Vec::with_capacity(connections);
        let mut answers = Answers::default();
        let open = async {
            for _ in 0..connections {
                let Ok(mut stream) = TcpStream::connect(target.node).await else { break };
                // A node may close it at once: then it holds nothing.
                if stream.write_all(said.as_ref()).await.is_ok() {
                    held.push(stream);
                }
            }
            sleep(phase).await;
        };
        // Over when the time is over, however many were taken.
        let _ = tokio::time::timeout(phase, open).await;
        answers.0.insert("held".to_owned(), held.len());
        Ok(answers)
    }
    .boxed()
}
