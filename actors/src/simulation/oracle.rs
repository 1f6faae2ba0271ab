//! Oracle: judges a run by what the clients remember and what the replicas hold at the end.
//!
//! Promise: a lost acknowledgement, a write that happened twice, one nobody asked for, a number
//! given twice or skipped, an update lost, an order that contradicts the clients' clocks, a gap or
//! a broken link in the log, and replicas that differ are each said by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Answer, Event, Hash, Offset, Read, ReadLevel, Value};

use super::fleet::Fleet;
use super::schedule::NODES;
use super::workload::{Act, BRANCHES, Known, Memory, Op, key};
use crate::Store;

/// Events read at once.
const PAGE: u32 = 1000;
/// Violations told of one run.
const TOLD_MAX: usize = 20;

/// A branch's log as one node holds it.
pub(super) type Log = Vec<Arc<Event>>;

/// What the nodes hold at the end.
#[derive(Default)]
pub(super) struct Held {
    /// By branch, then node.
    pub(super) logs: BTreeMap<&'static str, BTreeMap<u64, Log>>,
    /// By partition, 0 for group 0, then node: applied index and state hash.
    pub(super) states: BTreeMap<u16, BTreeMap<u64, (u64, Hash)>>,
}

/// What every node holds now; `Err`: why that cannot be read.
pub(super) async fn held(fleet: &Fleet) -> Result<Held, String> {
    let mut held = Held::default();
    for node in 1..=NODES {
        let router = fleet.router(node).ok_or_else(|| format!("node {node} does not run"))?;
        held.states.entry(0).or_default().insert(node, router.group_0());
        for (partition, running) in router.0.partitions.all() {
            let (applied, view) = (running.group.status().applied, running.applied.view());
            let states = held.states.entry(partition.0).or_default();
            states.insert(node, (applied, view.state_hash()));
        }
        for branch in BRANCHES {
            let mut log: Log = Vec::new();
            loop {
                let after = Offset(log.len() as u64);
                let read = Read::Events { after, limit: PAGE };
                let answer = router.read(key(branch), read, ReadLevel::Stale).await;
                let Ok(Answer::Events(found)) = answer else {
                    return Err(format!("node {node}: the log of {branch}: {answer:?}"));
                };
                let Some(events) = found.events else {
                    let at = after.0;
                    return Err(format!("node {node}: the log of {branch} after {at} is gone"));
                };
                if events.is_empty() {
                    break;
                }
                log.extend(events);
            }
            held.logs.entry(branch).or_default().insert(node, log);
        }
    }
    Ok(held)
}

/// All that is wrong, at most some of it.
pub(super) fn judge(memory: &Memory, held: &Held) -> Vec<String> {
    let mut wrong = memory.wrong.clone();
    for (partition, nodes) in &held.states {
        let states: BTreeSet<_> = nodes.values().collect();
        if states.len() > 1 {
            wrong.push(format!("partition {partition}: replicas differ: {nodes:?}"));
        }
    }
    for (branch, nodes) in &held.logs {
        let Some(log) = nodes.values().next() else { continue };
        for (node, other) in nodes {
            if other != log {
                wrong.push(format!("{branch}: node {node} holds another log than the first node"));
            }
        }
        let ops: Vec<&Op> = memory.ops.iter().filter(|op| op.branch == *branch).collect();
        whole(branch, log, &mut wrong);
        asked(branch, log, &ops, &mut wrong);
        numbers(branch, log, &mut wrong);
        counters(branch, log, &mut wrong);
        in_order(branch, &ops, &mut wrong);
    }
    wrong.truncate(TOLD_MAX);
    wrong
}

/// The log has no gap, and every event names the one before it.
fn whole(branch: &str, log: &Log, wrong: &mut Vec<String>) {
    let mut previous = Hash::default();
    for (at, event) in (1..).zip(log) {
        if event.offset.0 != at {
            wrong.push(format!("{branch}: event {} stands at place {at}", event.offset.0));
        }
        if event.previous != previous {
            wrong.push(format!("{branch}: event {at} does not name the one before it"));
        }
        previous = event.hash();
    }
}

/// Everything acknowledged is there once, at its place; nothing refused or unasked is.
fn asked(branch: &str, log: &Log, ops: &[&Op], wrong: &mut Vec<String>) {
    let by_id: BTreeMap<&str, &Op> = ops.iter().map(|op| (op.id.request.as_str(), *op)).collect();
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for event in log {
        let (id, at) = (event.command.request.as_str(), event.offset.0);
        if let Some(before) = seen.insert(id, at) {
            wrong.push(format!("twice: {branch}: {id} happened at {before} and at {at}"));
        }
        match by_id.get(id) {
            None => wrong.push(format!("phantom: {branch}: nobody asked for {id} at {at}")),
            Some(op) if !is_of(event, op) => {
                wrong.push(format!("phantom: {branch}: {id} at {at} is not what was asked"));
            }
            Some(_) => {}
        }
    }
    for op in ops {
        let id = op.id.request.as_str();
        match (&op.known, seen.get(id)) {
            (Known::Done(offset), found) if found != Some(offset) => {
                let asked = &op.attempts;
                wrong.push(format!(
                    "lost: {branch}: {id} was acknowledged at {offset} ({:?}, nodes {asked:?}), \
                     the log has it at {found:?}",
                    op.completed
                ));
            }
            (Known::Refused(code), Some(at)) => {
                wrong.push(format!("{branch}: {id} was refused ({code}) and happened at {at}"));
            }
            (Known::Done(_) | Known::Refused(_) | Known::Unknown, _) => {}
        }
    }
}

fn text<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.record()?.record.get(name).and_then(Value::as_str)
}

fn number(event: &Event, name: &str) -> Option<u64> {
    event.record()?.record.get(name).and_then(Value::as_u64)
}

fn is_of(event: &Event, op: &Op) -> bool {
    let id = Some(op.id.request.as_str());
    match &op.act {
        Act::Note => text(event, "text") == id && text(event, "id") == id,
        Act::Ticket => text(event, "note") == id,
        Act::Count { counter, value, .. } => {
            text(event, "op") == id
                && text(event, "id") == Some(counter)
                && number(event, "n") == Some(*value)
        }
    }
}

/// The numbers of tickets are 1, 2, 3 and so on, in the order of the log.
fn numbers(branch: &str, log: &Log, wrong: &mut Vec<String>) {
    let tickets = log
        .iter()
        .filter(|event| event.record().is_some_and(|record| record.table.as_str() == "ticket"));
    for (due, event) in (1_u64..).zip(tickets) {
        let text = text(event, "id").unwrap_or_default();
        if text.strip_prefix("T-").and_then(|digits| digits.parse().ok()) != Some(due) {
            wrong.push(format!("sequence: {branch}: ticket {text:?} where {due} was due"));
        }
    }
}

/// A counter goes up by one: no update overwrote another.
fn counters(branch: &str, log: &Log, wrong: &mut Vec<String>) {
    let mut stand: BTreeMap<String, u64> = BTreeMap::new();
    for event in log {
        let Some(record) = event.record().filter(|record| record.table.as_str() == "counter")
        else {
            continue;
        };
        let stand = stand.entry(record.key.as_str().to_owned()).or_default();
        *stand += 1;
        if number(event, "n") != Some(*stand) {
            let at = event.offset.0;
            wrong.push(format!(
                "{branch}: counter {} at {at}: {stand} was due",
                record.key.as_str()
            ));
        }
    }
}

/// What was acknowledged before another was asked stands before it.
fn in_order(branch: &str, ops: &[&Op], wrong: &mut Vec<String>) {
    let done = |op: &&Op| match op.known {
        Known::Done(offset) => Some((op.invoked, op.completed, offset, op.id.request.clone())),
        Known::Refused(_) | Known::Unknown => None,
    };
    let mut begun: Vec<_> = ops.iter().filter_map(done).collect();
    let mut ended: Vec<(Duration, u64)> =
        begun.iter().map(|(_, completed, offset, _)| (*completed, *offset)).collect();
    begun.sort();
    ended.sort_unstable();
    let (mut next, mut highest) = (0, 0);
    for (invoked, _, offset, id) in begun {
        while ended.get(next).is_some_and(|(completed, _)| *completed < invoked) {
            highest = highest.max(ended[next].1);
            next += 1;
        }
        if offset <= highest {
            wrong.push(format!(
                "order: {branch}: {id} stands at {offset}, behind it {highest} that ended before it"
            ));
        }
    }
}
