//! Collect: what every node of a simulated cluster holds at the end of a run.
//!
//! Promise: logs are converted event by event, so that the checkers see what the node holds: the
//! hashes of its chain, and the operation that both the command and the record name.
//! Refused: a partial answer. One node that cannot be read is an error.

use std::sync::Arc;

use history::checker::fields;
use history::{History, LogEvent, LogPosition, ReplicaReading, TableReading};
use model::{Answer, Event, Object, Offset, PageQuery, Read, ReadLevel, Value};

use super::cluster::SimulatedCluster;
use super::schedule::NODES;
use super::workload::{BRANCHES, EPOCH, branch_key, history_key};
use crate::partition::applied::IndexedView;
use crate::{ClusterStore, Store};

/// Events of one read.
const PAGE: u32 = 1000;
/// The tables of the workload.
const TABLES: [&str; 3] = [fields::REGISTERS, fields::TICKETS, fields::COUNTERS];

/// Adds the logs, tables and replicas of every node to a history.
///
/// # Errors
/// A node cannot be read, or replicas have applied different entries.
pub(super) async fn collect(
    cluster: &SimulatedCluster,
    history: &mut History,
) -> Result<(), String> {
    history.first_number = Some(1);
    for node in 1..=NODES {
        let store = cluster.store(node).ok_or_else(|| format!("node {node} does not run"))?;
        history.replicas.extend(replicas(&store, node));
        for branch in BRANCHES {
            let at = |reason| format!("node {node}, {branch}: {reason}");
            let log = read_log(&store, branch).await.map_err(at)?;
            let log = log.iter().map(|event| log_event(event)).collect();
            history.logs.push((node, history_key(branch), log));
            for table in TABLES {
                let rows = read_table(&store, branch, table).await.map_err(at)?;
                let keyed = |row: &Arc<Object>| {
                    let key = row.get("id").and_then(Value::as_str).unwrap_or_default();
                    (key.to_owned(), checked_row(table, row))
                };
                history.tables.push(TableReading {
                    node,
                    branch_key: history_key(branch),
                    table: table.to_owned(),
                    rows: rows.iter().map(keyed).collect(),
                });
            }
        }
    }
    match history.replicas.iter().find(|one| {
        history.replicas.iter().any(|it| it.partition == one.partition && it.applied != one.applied)
    }) {
        // Otherwise there would be no two states to compare.
        Some(one) => Err(format!("the replicas of {} applied different entries", one.partition)),
        None => Ok(()),
    }
}

/// When each branch was last changed, as the first node holds it, in milliseconds since 1970.
/// Commit times never go back, so that one wrong stamp shows in all that follow.
///
/// # Errors
/// The node cannot be read.
pub(super) async fn last_stamps(
    cluster: &SimulatedCluster,
) -> Result<Vec<(&'static str, i64)>, String> {
    let store = cluster.store(1).ok_or("node 1 does not run")?;
    let mut stamps = Vec::new();
    for branch in BRANCHES {
        let log = read_log(&store, branch).await?;
        stamps.extend(log.iter().map(|event| (branch, event.at.0)).max_by_key(|(_, at)| *at));
    }
    Ok(stamps)
}

fn replicas(store: &ClusterStore, node: u64) -> Vec<ReplicaReading> {
    let replica = |partition, (applied, hash): (u64, model::Hash)| ReplicaReading {
        node,
        partition,
        applied,
        state_hash: hash.to_string(),
        // The checkers follow the chain in the log itself.
        broken_chain: None,
    };
    let partitions = store.0.partitions.all().into_iter().map(|(id, running)| {
        let applied = running.group.status().applied;
        let IndexedView { index, state, is_newest } = running.applied.indexed_view();
        let applied = if is_newest { applied.max(index) } else { index };
        replica(id.0, (applied, state.state_hash()))
    });
    std::iter::once(replica(0, store.group_0())).chain(partitions).collect()
}

/// The log of a branch as one node holds it.
async fn read_log(store: &ClusterStore, branch: &str) -> Result<Vec<Arc<Event>>, String> {
    let mut log: Vec<Arc<Event>> = Vec::new();
    loop {
        let after = Offset(log.len() as u64);
        let read = Read::Events { after, limit: PAGE };
        // Stale: what this node holds, not what the leader would say.
        let answer = store.read(branch_key(branch), read, ReadLevel::Stale).await;
        let Ok(Answer::Events(found)) = answer else {
            return Err(format!("no log: {answer:?}"));
        };
        let Some(events) = found.events else {
            return Err(format!("the log after {} is gone", after.0));
        };
        if events.is_empty() {
            return Ok(log);
        }
        log.extend(events);
    }
}

async fn read_table(
    store: &ClusterStore,
    branch: &str,
    table: &str,
) -> Result<Vec<Arc<Object>>, String> {
    let read = Read::Page(PageQuery { table: table.into(), ..PageQuery::default() });
    let answer = store.read(branch_key(branch), read, ReadLevel::Stale).await;
    let Ok(Answer::Page(page)) = answer else {
        return Err(format!("no table {table}: {answer:?}"));
    };
    Ok(page.rows)
}

/// An event as the checkers read it.
pub(super) fn log_event(event: &Event) -> LogEvent {
    let (request, change) = (&event.command.request, event.record());
    let in_record = change.and_then(|it| it.record.get(fields::OP)).and_then(Value::as_str);
    // The command and the record must name the same operation; a mixture is one that no client
    // invoked.
    let op = match in_record {
        Some(op) if op == request.as_str() => op.to_owned(),
        Some(_) | None => format!("{request} with a record of {in_record:?}"),
    };
    LogEvent {
        cursor: LogPosition { epoch: EPOCH, sequence: event.offset.0 },
        id: event.id.clone(),
        table: change.map_or_else(String::new, |it| it.table.as_str().to_owned()),
        key: change.map_or_else(String::new, |it| it.key.as_str().to_owned()),
        op: Some(op),
        row: change.map(|it| checked_row(it.table.as_str(), &it.record)),
        previous: Some(event.previous.to_string()),
        hash: Some(event.hash().to_string()),
    }
}

/// A record as the checkers read it: a ticket's number is its key.
fn checked_row(table: &str, record: &Object) -> history::RowJson {
    let mut record = record.clone();
    if table == fields::TICKETS
        && let Some(id) = record.get("id").cloned()
    {
        record.insert(fields::NUMBER, id);
    }
    history::row_from_json(&Value::from(record).to_json())
}
