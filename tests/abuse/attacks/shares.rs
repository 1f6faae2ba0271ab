//! What one client can use up for all: the turns of a branch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use serde_json::{Value, json};
use tests::client::TablePath;
use tokio::time::{Instant, sleep};

use super::{Answers, Attack, BRANCH, SAME_BRANCH};

const TABLE: &str = "dining_tables";
/// As many as a batch may have.
const CHANGES: usize = 500;
/// Hostile clients.
const CLIENTS: usize = 32;

/// How long they are sent before anything is measured, and how long nothing is then.
const UNMEASURED: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(30);

/// Batches beside a client that changes one record at a time.
pub(crate) const BATCHES: Attack = Attack {
    name: SAME_BRANCH,
    about: "32 clients with batches of 500 changes beside single writes of the same branch, which \
            once took 6.8 s each",
    memory_max_mib: 512,
    kept_kib: 0,
    shown_by: &["200"],
    // The rows are there before and stay: what they take is no cost of the attack. And once
    // unmeasured: the caches of the log and the store are as full as they become, and stay so.
    prepare: |target| {
        async move {
            super::fill(&target, TABLE, CLIENTS * CHANGES).await?;
            (BATCHES.run)(target, UNMEASURED).await?;
            // What of it does not stay is not to be in the figure before.
            sleep(REST).await;
            Ok(())
        }
        .boxed()
    },
    run: |target, phase| {
        async move {
            let end = Instant::now() + phase;
            let url = format!(
                "http://{}{}/batch",
                target.node,
                TablePath::pos(BRANCH, TABLE).module_path()
            );
            let round = AtomicUsize::new(0);
            let attacker = async |client: usize| {
                // Each has a connection of its own.
                let http = reqwest::Client::builder().no_proxy().build()?;
                let mut answers = Answers::default();
                while Instant::now() < end {
                    let round = round.fetch_add(1, Ordering::Relaxed);
                    let rows = client * CHANGES..(client + 1) * CHANGES;
                    let changes: Vec<Value> = rows.map(|n| change(n, round)).collect();
                    let sent = http.post(&url).json(&json!({ "verbs": changes })).send().await;
                    let status = sent
                        .map_or_else(|_| "none".to_owned(), |it| it.status().as_str().to_owned());
                    *answers.0.entry(status).or_default() += 1;
                }
                anyhow::Ok(answers)
            };
            let mut all = Answers::default();
            for answers in join_all((0..CLIENTS).map(attacker)).await {
                all.add(answers?);
            }
            Ok(all)
        }
        .boxed()
    },
};

/// The same, and the polite client is in another branch, of which the rule speaks.
pub(crate) const BATCHES_ELSEWHERE: Attack = Attack {
    name: "batches-elsewhere",
    about: "the same batches beside single writes of another branch",
    ..BATCHES
};

/// Every round changes every row.
fn change(n: usize, round: usize) -> Value {
    let record = json!({ "id": format!("fill-{n}"), "name": format!("row {round}"), "n": n });
    json!({ "action": "module:merge", "table": TABLE, "record": record })
}
