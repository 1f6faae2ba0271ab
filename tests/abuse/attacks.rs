//! Attacks: each is one example of a kind of fault, as it was once measured.

mod arrivals;
mod bulk;
mod catalogue;
mod connections;
mod queries;
mod shares;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use futures::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tests::client::{Client, TablePath};
use tokio::time::Instant;

/// Whom an attack is for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Where the node takes clients.
    pub(crate) node: SocketAddr,
    /// A client of it.
    pub(crate) client: Client,
}

/// The branch that is attacked.
pub(crate) const BRANCH: &str = "dar";
/// One that is not.
const OTHER_BRANCH: &str = "remal";
/// The attack whose polite client is in the attacked branch, too.
const SAME_BRANCH: &str = "batches-beside-single";

/// An attack.
pub(crate) struct Attack {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// What it does, and what it once cost.
    pub(crate) about: &'static str,
    /// How much a node's memory may grow meanwhile, in MiB.
    pub(crate) memory_max_mib: u64,
    /// How much of it may stay for each success, in KiB: what a client made is there until it is
    /// removed.
    pub(crate) kept_kib: u64,
    /// The answers that show that it was one: without any of them nothing was attacked.
    pub(crate) shown_by: &'static [&'static str],
    /// Brings the data that it needs.
    pub(crate) prepare: fn(Target) -> BoxFuture<'static, Result<()>>,
    /// Attacks for so long.
    pub(crate) run: fn(Target, Duration) -> BoxFuture<'static, Result<Answers>>,
}

impl Attack {
    /// Where the polite client reads and writes: what is done to one branch is to spare the others.
    pub(crate) fn polite_branch(&self) -> &'static str {
        if self.name == SAME_BRANCH { BRANCH } else { OTHER_BRANCH }
    }
}

/// How often an attacker was answered with each status; `none` where no answer came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers(pub(crate) BTreeMap<String, usize>);

impl Answers {
    /// Those of another attacker, too.
    fn add(&mut self, other: Self) {
        for (status, count) in other.0 {
            *self.0.entry(status).or_default() += count;
        }
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.0.iter().map(|(status, count)| format!("{count} × {status}"));
        f.write_str(&each.collect::<Vec<_>>().join(", "))
    }
}

/// All of them.
pub(crate) const ATTACKS: &[Attack] = &[
    queries::VALUES,
    queries::LISTS,
    queries::PATTERNS,
    queries::ORDER,
    queries::LEAVING,
    connections::KEYS,
    connections::UNREAD,
    connections::BODIES,
    connections::HEADS,
    connections::SILENT,
    shares::BATCHES,
    shares::BATCHES_ELSEWHERE,
    bulk::REPLACE,
    bulk::SAME_PARTITION,
    bulk::DEFINE,
    bulk::PURGE,
    arrivals::SLOW,
    arrivals::UNFINISHED,
    arrivals::FRAGMENTS,
    catalogue::FLAGS,
    catalogue::BRANCHES,
    catalogue::NAMES,
];

/// Sends one request again and again from so many clients at once, until the time is over.
pub(crate) async fn repeat(
    target: &Target,
    clients: usize,
    phase: Duration,
    timeout: Option<Duration>,
    (path, body): (&str, &Value),
) -> Answers {
    let end = Instant::now() + phase;
    // Written once: an attacker that writes bodies would take the processor that it is to share.
    let (url, body) = (format!("http://{}{path}", target.node), body.to_string());
    let http = reqwest::Client::builder().no_proxy().build().expect("without TLS it needs nothing");
    let attacker = async || {
        let mut answers = Answers::default();
        while Instant::now() < end {
            let request = http.post(&url).header("content-type", "application/json");
            let sent = request.body(body.clone()).send();
            let longest = timeout.unwrap_or(phase + Duration::from_secs(15));
            let answer = match tokio::time::timeout(longest, sent).await {
                Ok(Ok(reply)) => {
                    let status = reply.status().as_u16().to_string();
                    // Read to its end: the connection is for the next request.
                    if reply.bytes().await.is_ok() { status } else { "none".to_owned() }
                }
                Ok(Err(_)) | Err(_) => "none".to_owned(),
            };
            *answers.0.entry(answer).or_default() += 1;
        }
        answers
    };
    let mut all = Answers::default();
    for answers in join_all((0..clients).map(|_| attacker())).await {
        all.add(answers);
    }
    all
}

/// Fills a table of the attacked branch with small records.
pub(crate) async fn fill(target: &Target, table: &str, rows: usize) -> Result<()> {
    const AT_ONCE: usize = 500;
    let place = TablePath::pos(BRANCH, table);
    for first in (0..rows).step_by(AT_ONCE) {
        let changes: Vec<Value> = (first..rows.min(first + AT_ONCE))
            .map(|n| {
                let record =
                    json!({ "id": format!("fill-{n}"), "name": format!("row {n}"), "n": n });
                json!({ "action": "module:insert", "table": table, "record": record })
            })
            .collect();
        let path = format!("{}/batch", place.module_path());
        target.client.send_json("POST", &path, None, &json!({ "verbs": changes })).await?.ok()?;
    }
    Ok(())
}
