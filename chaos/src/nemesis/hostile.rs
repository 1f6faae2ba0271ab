//! Hostile client: what a client may send to harm others, against one node while the fault lasts.
//!
//! Promise: nothing that it sends changes a record of the workload: it is refused, or reads, or
//! never ends. When the fault is over its connections end.
//! Refused: a verdict. What it costs others, the checkers see in the history, and elections are
//! counted beside it.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::client::module_path;
use crate::workload::branch_keys;

/// What a hostile client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    /// Opens connections that say nothing.
    SilentConnections,
    /// Begins heads that do not end.
    HalfHeads,
    /// Announces bodies that do not come.
    HalfBodies,
    /// Asks for whole modules and reads none.
    UnreadAnswers,
    /// Sends lists of values that are too long.
    LongLists,
    /// Asks for many conditions at once, again and again.
    ManyConditions,
    /// Sends records whose keys are too long.
    LongKeys,
}

impl Attack {
    /// All of them.
    pub(super) const ALL: [Self; 7] = [
        Self::SilentConnections,
        Self::HalfHeads,
        Self::HalfBodies,
        Self::UnreadAnswers,
        Self::LongLists,
        Self::ManyConditions,
        Self::LongKeys,
    ];

    /// Attacks a node that takes clients at `http`, until it is aborted.
    pub(super) async fn run(self, http: String) {
        let module = module_path(&branch_keys()[0]);
        match self {
            Self::SilentConnections => hold(&http, 300, String::new()).await,
            Self::HalfHeads => {
                let head = format!("GET / HTTP/1.1\r\nhost: {http}\r\nx-filler: ");
                hold(&http, 300, head + &"x".repeat(8000)).await;
            }
            Self::HalfBodies => {
                let head = format!("POST {module}/tables/tickets HTTP/1.1\r\nhost: {http}\r\n");
                hold(&http, 300, head + "content-length: 1000000\r\n\r\n{").await;
            }
            Self::UnreadAnswers => {
                let request = format!("GET {module} HTTP/1.1\r\nhost: {http}\r\n\r\n");
                hold(&http, 100, request).await;
            }
            Self::LongLists => {
                let values: Vec<Value> = (0..30_000).map(|n| json!(format!("none-{n}"))).collect();
                query(&http, json!({ "id": { "operator": "not in", "value": values } })).await;
            }
            Self::ManyConditions => {
                let condition = json!({ "id": { "operator": "like", "value": "a" } });
                query(&http, json!(vec![condition; 100])).await;
            }
            Self::LongKeys => {
                let body = json!({ "record": { "id": "k".repeat(900_000) } });
                repeat(&http, &format!("{module}/tables/tickets"), &body).await;
            }
        }
    }
}

/// Opens so many connections, says this over each, and keeps them without reading.
async fn hold(http: &str, connections: usize, said: String) {
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        // Out of places, or the node is down: what is open stays.
        let Ok(mut stream) = TcpStream::connect(http).await else { break };
        if stream.write_all(said.as_bytes()).await.is_ok() {
            held.push(stream);
        }
    }
    // Until the task is aborted.
    std::future::pending::<()>().await;
}

async fn query(http: &str, conditions: Value) {
    let branch_key = &branch_keys()[0];
    let body = json!({
        "branchId": branch_key.branch,
        "moduleId": branch_key.module,
        "table": "registers",
        "where": conditions,
    });
    repeat(http, "/api/query/module", &body).await;
}

/// Sends one request again and again from eight clients.
async fn repeat(http: &str, path: &str, body: &Value) {
    const CLIENTS: usize = 8;
    /// A node that is down is not asked again at once.
    const PAUSE: Duration = Duration::from_millis(100);
    let Ok(client) = reqwest::Client::builder().no_proxy().build() else { return };
    let (url, body) = (format!("http://{http}{path}"), body.to_string());
    let attacker = async || {
        loop {
            let request = client.post(&url).header("content-type", "application/json");
            match request.body(body.clone()).send().await {
                Ok(response) => drop(response.bytes().await),
                Err(_) => sleep(PAUSE).await,
            }
        }
    };
    join_all((0..CLIENTS).map(|_| attacker())).await;
}
