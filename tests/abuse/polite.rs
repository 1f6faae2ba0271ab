//! Polite: a client that reads and writes a little at a fixed rate, and notes how long each took.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tests::client::{Client, TablePath};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::attacks::Answers;

/// Between two requests: half of them write.
const PERIOD: Duration = Duration::from_millis(20);

/// A client of the attacked node.
#[derive(Debug, Clone)]
pub(crate) struct PoliteClient {
    client: Client,
    branch: &'static str,
}

/// What it saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies {
    /// Of answers, in ascending order, from when each request was due.
    took: Vec<Duration>,
    /// Those of writes, as well in ascending order.
    writes: Vec<Duration>,
    /// And of reads.
    reads: Vec<Duration>,
    /// Requests without a success, by their answer.
    pub(crate) failed: Answers,
}

impl Latencies {
    /// The value that this share of the answers does not exceed.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        quantile(&self.took, share)
    }

    /// The same of writes alone, and of reads alone.
    pub(crate) fn quantiles_by_kind(&self, share: f64) -> (Duration, Duration) {
        (quantile(&self.writes, share), quantile(&self.reads, share))
    }

    /// How many requests had no success.
    pub(crate) fn failed(&self) -> usize {
        self.failed.0.values().sum()
    }

    /// How many answers there were.
    pub(crate) fn count(&self) -> usize {
        self.took.len()
    }
}

impl PoliteClient {
    /// One that reads and writes in this branch.
    pub(crate) fn new(client: Client, branch: &'static str) -> Self {
        Self { client, branch }
    }

    /// Reads and writes for so long.
    pub(crate) async fn run(&self, phase: Duration) -> Result<Latencies> {
        let end = Instant::now() + phase;
        let mut ticks = interval(PERIOD);
        // A request that is late counts from when it was due: waiting must not hide waiting.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut requests = Vec::new();
        for n in 0_u64.. {
            let due = ticks.tick().await;
            if due >= end {
                break;
            }
            let Self { client, branch } = self.clone();
            let asked = async move { (ask(&client, branch, n).await, due.elapsed()) };
            requests.push(tokio::spawn(asked));
        }
        let mut seen = Latencies::default();
        for (n, request) in (0_u64..).zip(requests) {
            match request.await? {
                (None, took) => {
                    seen.took.push(took);
                    if writes(n) { seen.writes.push(took) } else { seen.reads.push(took) }
                }
                (Some(status), _) => *seen.failed.0.entry(status).or_default() += 1,
            }
        }
        let Latencies { took, writes, reads, .. } = &mut seen;
        [took, writes, reads].into_iter().for_each(|all| all.sort_unstable());
        Ok(seen)
    }
}

/// The value that this share of them does not exceed, of durations in ascending order.
fn quantile(took: &[Duration], share: f64) -> Duration {
    let last = took.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    took.get(at).copied().unwrap_or_default()
}

/// Whether this request of a client writes; the others read.
fn writes(n: u64) -> bool {
    n.is_multiple_of(2)
}

/// One request; its answer where that is no success.
async fn ask(client: &Client, branch: &str, n: u64) -> Option<String> {
    let place = TablePath::pos(branch, "dining_tables");
    let record =
        json!({ "record": { "id": format!("polite-{}", n % 10), "name": format!("T{n}") } });
    let reply = match writes(n) {
        true => client.send_json("PUT", &place.path(), None, &record).await,
        false => client.get(&format!("{}?limit=5", place.path())).await,
    };
    match reply {
        Ok(reply) if (200..300).contains(&reply.status) => None,
        Ok(reply) => {
            let error = reply.body["error"].as_str().unwrap_or_default();
            Some(format!("{} {error}", reply.status).trim_end().to_owned())
        }
        Err(_) => Some("none".to_owned()),
    }
}
