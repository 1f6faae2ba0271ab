//! Collect: reads from the nodes what they hold after the faults: the log of every branch and its
//! small tables from every node, and the state and hash chain of every replica.
//!
//! Promise: replicas are read only after all of a partition have applied the same index.
//! Refused: a partial answer. One node that cannot be read is an error.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::client::{get, module_path};
use crate::workload::{PADDING_FIELD, branch_keys};
use history::checker::fields;
use history::{BranchModule, LogEvent, LogPosition, NodeId, ReplicaReading, TableReading};

/// How many events one request reads: the most that the store returns.
const PAGE: u64 = 1000;
/// The tables that are read, beside the logs: those whose rows are small.
const TABLES: [&str; 3] = [fields::ACCOUNTS, fields::COUNTERS, fields::TICKETS];
/// How long the replicas may take to apply the same index after the last fault was healed.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long one response may take: a node verifies a hash chain from its beginning.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// An HTTP client with a long timeout.
fn slow_http_client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(RESPONSE_TIMEOUT).build()?)
}

/// A node's number and its address for clients, as `host:port`.
pub type NodeAddress = (NodeId, String);

/// The log of every branch, read from every node.
///
/// # Errors
/// A node does not respond, or its response is not a log.
pub async fn logs(
    nodes: &[NodeAddress],
    branch_keys: &[BranchModule],
) -> Result<Vec<(NodeId, BranchModule, Vec<LogEvent>)>> {
    let client = slow_http_client()?;
    let mut logs = Vec::new();
    for (node, http) in nodes {
        for branch_key in branch_keys {
            let log = log(&client, http, branch_key).await.with_context(|| {
                format!("reading the log of {} at node {node}", branch_key.name())
            })?;
            logs.push((*node, branch_key.clone(), log));
        }
    }
    Ok(logs)
}

async fn log(
    client: &reqwest::Client,
    http: &str,
    branch_key: &BranchModule,
) -> Result<Vec<LogEvent>> {
    let mut log_events: Vec<LogEvent> = Vec::new();
    loop {
        let after = log_events.last().map_or(0, |last| last.cursor.sequence);
        let path = format!("{}/events?after={after}&limit={PAGE}", module_path(branch_key));
        let page = match get(client, http, &path).await {
            Ok(page) => page,
            // The request that creates a branch may have had no effect; such a branch has no log.
            Err(error) if is_absent(&error) => return Ok(log_events),
            Err(error) => return Err(error),
        };
        let epoch = page["epoch"].as_u64().context("the log has an epoch")?;
        let events = page["events"].as_array().context("the log has events")?;
        for event in events {
            log_events.push(read_event(epoch, event)?);
        }
        if events.is_empty() || page["last"] == last_sequence(events) {
            return Ok(log_events);
        }
    }
}

/// The small tables of the branches that exist from the beginning, read from every node.
///
/// # Errors
/// A node does not respond, or its response is not a table.
pub async fn tables(nodes: &[NodeAddress]) -> Result<Vec<TableReading>> {
    let client = slow_http_client()?;
    let mut tables = Vec::new();
    for (node, http) in nodes {
        for branch_key in branch_keys() {
            for table in TABLES {
                let path = format!("{}/tables/{table}?limit=0", module_path(&branch_key));
                let shown = get(&client, http, &path).await?;
                let rows = shown["rows"].as_array().context("a table has rows")?;
                let keyed = |row: &Value| Some((row["id"].as_str()?.to_owned(), row.clone()));
                tables.push(TableReading {
                    node: *node,
                    branch_key: branch_key.clone(),
                    table: table.to_owned(),
                    rows: rows.iter().filter_map(keyed).collect(),
                });
            }
        }
    }
    Ok(tables)
}

/// The highest terms of all partitions, added up, over what the nodes know; each election raises
/// it. `None` where no node answers, or a leader is not the preferred one: its return is an
/// election, too.
pub async fn terms(nodes: &[NodeAddress]) -> Option<u64> {
    let client = slow_http_client().ok()?;
    let mut terms: BTreeMap<u64, u64> = BTreeMap::new();
    for (_, http) in nodes {
        let Ok(status) = get(&client, http, "/api/cluster/status").await else { continue };
        for partition in status["partitions"].as_array()? {
            if partition["leader"] != partition["preferred"] {
                return None;
            }
            let highest = terms.entry(partition["id"].as_u64()?).or_default();
            *highest = (*highest).max(partition["term"].as_u64()?);
        }
    }
    (!terms.is_empty()).then(|| terms.into_values().sum())
}

fn last_sequence(events: &[Value]) -> Value {
    events.last().map_or(Value::Null, |last| last["sequence"].clone())
}

fn is_absent(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref::<reqwest::Error>().and_then(reqwest::Error::status);
    status == Some(reqwest::StatusCode::NOT_FOUND)
}

fn read_event(epoch: u64, event: &Value) -> Result<LogEvent> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let sequence = event["sequence"].as_u64().context("an event has a sequence")?;
    let mut record = event["record"].clone();
    if let Some(fields) = record.as_object_mut() {
        // The padding is large and means nothing, and each event is in memory once for every node.
        fields.remove(PADDING_FIELD);
    }
    Ok(LogEvent {
        cursor: LogPosition { epoch, sequence },
        id: text(&event["id"]).context("an event has an id")?,
        table: text(&event["table"]).unwrap_or_default(),
        key: text(&event["recordRef"]["key"]).unwrap_or_default(),
        op: text(&record["op"]),
        row: (!record.is_null()).then_some(record),
        previous: text(&event["previous"]),
        hash: None,
    })
}

/// The status of every replica, after all of a partition have applied the same index. The nodes
/// verify their hash chains for it.
///
/// # Errors
/// The replicas do not apply the same index in time, or a node does not respond.
pub async fn replicas(nodes: &[NodeAddress]) -> Result<Vec<ReplicaReading>> {
    let client = slow_http_client()?;
    let end = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let found = read_replicas(&client, nodes, "").await?;
        let is_settled = found.iter().all(|one| {
            let mut same = found.iter().filter(|other| other.partition == one.partition);
            same.all(|other| other.applied == one.applied)
        });
        // Verification is slow, so the replicas are polled without it and read once more with it.
        if is_settled {
            return read_replicas(&client, nodes, "?verify=true").await;
        }
        if Instant::now() > end {
            let shown: Vec<_> = found.iter().map(|r| (r.partition, r.node, r.applied)).collect();
            bail!("after {SETTLE_TIMEOUT:?} the replicas have not applied the same: {shown:?}");
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn read_replicas(
    client: &reqwest::Client,
    nodes: &[NodeAddress],
    query: &str,
) -> Result<Vec<ReplicaReading>> {
    let mut found = Vec::new();
    for (node, http) in nodes {
        let response = get(client, http, &format!("/api/cluster/replicas{query}"))
            .await
            .with_context(|| format!("asking node {node} for its replicas"))?;
        for replica in response["replicas"].as_array().context("the answer has replicas")? {
            found.push(ReplicaReading {
                node: *node,
                partition: u16::try_from(replica["partition"].as_u64().context("a number")?)?,
                applied: replica["applied"].as_u64().context("an index")?,
                state_hash: replica["stateHash"].as_str().context("a hash")?.to_owned(),
                broken_chain: broken_chain(replica),
            });
        }
    }
    Ok(found)
}

/// What a node reports as broken in a replica's hash chain. A report of unknown form counts as
/// broken too.
fn broken_chain(replica: &Value) -> Option<String> {
    let broken = replica.get("brokenChain").filter(|broken| !broken.is_null())?;
    Some(match (&broken["branch"], &broken["module"], &broken["sequence"], &broken["reason"]) {
        (Value::String(branch), Value::String(module), Value::Number(at), Value::String(why)) => {
            format!("{branch}:{module} at event {at}: {why}")
        }
        _ => broken.to_string(),
    })
}

/// The leader of a branch according to the first node that knows one; it may be outdated.
pub async fn leader(nodes: &[NodeAddress], branch_key: &BranchModule) -> Option<NodeId> {
    let client = crate::client::http_client().ok()?;
    for (_, http) in nodes {
        let Ok(status) = get(&client, http, "/api/cluster/status").await else { continue };
        let branches = status["branches"].as_array()?;
        let of =
            |b: &&Value| b["branch"] == *branch_key.branch && b["module"] == *branch_key.module;
        if let Some(leader) = branches.iter().find(of).and_then(|b| b["leader"].as_u64()) {
            return Some(leader);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_that_a_node_reports_broken_is_broken() {
        let broken_chain_of =
            |broken: Value| broken_chain(&serde_json::json!({"brokenChain": broken}));
        let broken = serde_json::json!({"branch": "b", "module": "m", "sequence": 7,
                                        "reason": "does not follow"});
        assert_eq!(broken_chain_of(broken).unwrap(), "b:m at event 7: does not follow");
        assert_eq!(broken_chain_of(Value::Bool(true)).unwrap(), "true");
        assert_eq!(broken_chain_of(Value::Null), None);
        assert_eq!(broken_chain(&serde_json::json!({"partition": 1})), None);
    }
}
