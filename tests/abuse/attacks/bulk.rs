//! Bulk operations: whole tables replaced, purged and restored. Two to four clients that replaced
//! 100,000 rows once cost 24 changes of leader; one purge of 625,000 rows, 504s elsewhere.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::join_all;
use model::cluster::partition_of;
use model::{BranchId, BranchKey, ModuleId};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Answers, Attack, BRANCH, OTHER_BRANCH, Target};

/// Rows of a snapshot that replaces.
const REPLACED: usize = 100_000;
/// Hostile clients that replace.
const CLIENTS: usize = 4;
/// Rows that are purged and restored, in all.
const PURGED: usize = 1_000_000;
/// The same with `--smoke`.
const PURGED_SMOKE: usize = 100_000;
/// Where they are: a request has at most 32 MiB.
const TABLES: [&str; 5] =
    ["dining_tables", "menu_items", "menu_modifiers", "order_line", "customer_profiles"];
/// As many partitions as a new cluster has.
const PARTITIONS: u16 = 16;

/// Snapshots of many rows, again and again.
pub(crate) const REPLACE: Attack = Attack {
    name: "bulk-replace",
    about: "4 clients replace 100,000 rows again and again; once 24 changes of leader",
    memory_max_mib: 1536,
    kept_kib: 0,
    shown_by: &["200"],
    // Once before: the rows stay, and what they take is no cost of the attack.
    prepare: |target| async move { once(&target, BRANCH).await }.boxed(),
    run: |target, phase| async move { replace(&target, BRANCH, phase).await }.boxed(),
};

/// The same beside a polite client of another branch of the same partition.
pub(crate) const SAME_PARTITION: Attack = Attack {
    name: "bulk-neighbour",
    about: "4 clients replace 100,000 rows of a branch of the polite client's own partition",
    memory_max_mib: 1536,
    kept_kib: 0,
    shown_by: &["200"],
    prepare: |target| {
        async move {
            let branch = neighbour()?;
            make(&target, &branch).await?;
            once(&target, &branch).await
        }
        .boxed()
    },
    run: |target, phase| async move { replace(&target, &neighbour()?, phase).await }.boxed(),
};

/// Its definition changed, which goes through all of its rows.
pub(crate) const DEFINE: Attack = Attack {
    name: "definitions",
    about: "the definition of 100,000 rows changed again and again, in the same partition",
    memory_max_mib: 1536,
    kept_kib: 0,
    shown_by: &["200"],
    prepare: SAME_PARTITION.prepare,
    run: |target, phase| async move { define(&target, phase).await }.boxed(),
};

/// Everything away and back again.
pub(crate) const PURGE: Attack = Attack {
    name: "bulk-purge",
    about: "1,000,000 rows purged, restored and purged again; 625,000 once cost 504s elsewhere",
    memory_max_mib: 4096,
    kept_kib: 0,
    shown_by: &["200"],
    prepare: |target| async move { fill(&target).await }.boxed(),
    run: |target, phase| async move { purge(&target, phase).await }.boxed(),
};

/// A branch whose module `pos` is in the partition of the polite client's.
fn neighbour() -> Result<String> {
    let place = |branch: &str| -> Result<_> {
        let key = BranchKey::new(BranchId::parse(branch)?, ModuleId::parse("pos")?);
        Ok(partition_of(&key, PARTITIONS))
    };
    let own = place(OTHER_BRANCH)?;
    (0..1_000)
        .map(|n| format!("neighbour-{n}"))
        .find(|name| place(name).is_ok_and(|its| its == own))
        .context("one of a thousand branches is in any of 16 partitions")
}

async fn make(target: &Target, branch: &str) -> Result<()> {
    let body = json!({ "id": branch, "modules": ["pos"] }).to_string();
    let (status, answer) = post(target, "/api/branches", body).await;
    anyhow::ensure!(status == "201", "{branch} is not made: {status} {answer}");
    Ok(())
}

fn snapshot(table: &str, rows: usize, word: &str) -> Value {
    let rows: Vec<Value> = (0..rows)
        .map(|n| json!({ "id": format!("bulk-{n}"), "name": format!("{word} {n}"), "n": n }))
        .collect();
    json!({ "snapshot": { "tables": { table: rows } } })
}

async fn once(target: &Target, branch: &str) -> Result<()> {
    let body = snapshot(TABLES[0], REPLACED, "row").to_string();
    let (status, answer) = post(target, &format!("/api/sync/{branch}/pos"), body).await;
    anyhow::ensure!(status == "200", "{branch} is not filled: {status} {answer}");
    Ok(())
}

async fn replace(target: &Target, branch: &str, phase: Duration) -> Result<Answers> {
    let end = Instant::now() + phase;
    let path = format!("/api/sync/{branch}/pos");
    // Written once, and each client's are other ones: every request changes every row.
    let bodies: Vec<String> = (0..CLIENTS)
        .map(|client| snapshot(TABLES[0], REPLACED, &format!("client {client} row")).to_string())
        .collect();
    let attacker = async |body: &String| {
        let mut answers = Vec::new();
        while Instant::now() < end {
            answers.push(post(target, &path, body.clone()).await.0);
        }
        answers
    };
    let all = join_all(bodies.iter().map(attacker)).await;
    Ok(counted(all.into_iter().flatten()))
}

async fn define(target: &Target, phase: Duration) -> Result<Answers> {
    let end = Instant::now() + phase;
    let mut answers = Answers::default();
    for n in 0.. {
        if Instant::now() >= end {
            break;
        }
        let body = json!({ "dedupBytes": (1 + n % 2) * 1024 * 1024 });
        let reply = target.client.send_json("PATCH", "/api/modules/pos", None, &body).await;
        let status = reply.map_or_else(|_| "none".to_owned(), |reply| reply.status.to_string());
        *answers.0.entry(status).or_default() += 1;
    }
    Ok(answers)
}

async fn fill(target: &Target) -> Result<()> {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let rows = if smoke { PURGED_SMOKE } else { PURGED } / TABLES.len();
    for table in TABLES {
        let body = snapshot(table, rows, "row").to_string();
        let (status, answer) = post(target, &format!("/api/sync/{BRANCH}/pos"), body).await;
        anyhow::ensure!(status == "200", "{table} is not filled: {status} {answer}");
    }
    // Once before: what was purged last is kept, and no cost of the attack.
    let answers = purge_and_restore(target).await;
    anyhow::ensure!(answers.iter().all(|status| status == "200"), "not purged: {answers:?}");
    Ok(())
}

async fn purge(target: &Target, phase: Duration) -> Result<Answers> {
    let end = Instant::now() + phase;
    let mut statuses = Vec::new();
    while Instant::now() < end {
        statuses.append(&mut purge_and_restore(target).await);
    }
    Ok(counted(statuses))
}

async fn purge_and_restore(target: &Target) -> Vec<String> {
    let body = json!({ "branchId": BRANCH, "tables": TABLES }).to_string();
    let (purged, answer) = post(target, "/api/manage/purge-live-data", body).await;
    let Some(entry) = answer["historyEntry"]["id"].as_str() else { return vec![purged] };
    let body = json!({ "branchId": BRANCH, "entryId": entry }).to_string();
    let (restored, _) = post(target, "/api/manage/purge-history", body).await;
    vec![purged, restored]
}

/// The status of the answer, and the answer.
async fn post(target: &Target, path: &str, body: String) -> (String, Value) {
    let http = reqwest::Client::builder().no_proxy().build().expect("without TLS it needs nothing");
    let request = http.post(format!("http://{}{path}", target.node));
    let sent = request.header("content-type", "application/json").body(body).send();
    match tokio::time::timeout(Duration::from_secs(60), sent).await {
        Ok(Ok(reply)) => {
            let status = reply.status().as_u16().to_string();
            (status, reply.json().await.unwrap_or_default())
        }
        Ok(Err(_)) | Err(_) => ("none".to_owned(), Value::Null),
    }
}

fn counted(statuses: impl IntoIterator<Item = String>) -> Answers {
    let mut answers = Answers::default();
    for status in statuses {
        *answers.0.entry(status).or_default() += 1;
    }
    answers
}
