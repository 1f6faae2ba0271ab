//! Recording: what writers of orders and subscribers saw, as a [`History`], and what nodes show at
//! the end. The checkers of crate `history` judge it, those that also judge chaos runs.
//!
//! An order is a ticket of the history: an insert to which the store gives the next number of a
//! sequence. It carries the id of its operation in a field of its own, so that a write that was
//! applied twice shows as two rows, though each has another number.
//!
//! Promise: a request without a clear answer is recorded as such. Nothing here looks behind what a
//! client can read.

use std::fmt;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use history::checker::{Verdict, all_checkers, fields};
use history::{
    Attempt, BranchModule, Completion, History, Invocation, LogEvent, LogPosition, MonotonicTime,
    Operation, ReceivedMessage, ReplicaReading, Response, ReturnValue, RowJson,
    SubscriptionMessage, TableReading,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Client, HttpReply, TablePath};

/// The field of an order that carries its operation's id: any text is allowed in it.
pub const OP_FIELD: &str = "shiftId";
/// How every id of ours begins, so that sample data is told apart.
pub const ID_PREFIX: &str = "w-";
/// The module of all orders.
const MODULE: &str = "pos";
/// How the numbers of the orders of branch `dar` begin.
const NUMBER_PREFIX: &str = "DAR-";
/// Events of one request: the most that a node returns.
const PAGE: u64 = 1000;

/// A reading of the one clock of this process.
pub fn now() -> MonotonicTime {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    MonotonicTime::from_elapsed(STARTED.elapsed())
}

/// What was recorded.
#[derive(Debug, Clone, Default)]
pub struct ClientRecording {
    operations: Vec<Operation>,
    received: Vec<ReceivedMessage>,
}

impl ClientRecording {
    /// Records an operation that has completed just now.
    ///
    /// # Panics
    /// If it was never sent.
    pub fn record(
        &mut self,
        (id, branch): (&str, &str),
        invocation: Invocation,
        attempts: Vec<Attempt>,
        completion: Completion,
    ) {
        let invoked = attempts.first().expect("an operation has an attempt").at;
        self.operations.push(Operation {
            id: id.to_owned(),
            client: 0,
            branch_key: branch_key(branch),
            invocation,
            attempts,
            invoked,
            completed: now(),
            completion,
        });
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.operations.iter().filter(|op| op.completion.response().is_some()).count()
    }

    /// Takes over what others recorded.
    pub fn extend(&mut self, other: Self) {
        self.operations.extend(other.operations);
        self.received.extend(other.received);
    }

    /// Reads what these nodes show of a branch, and judges it together with what was recorded.
    ///
    /// # Errors
    /// A node cannot be read.
    pub async fn judge(&self, branch: &str, nodes: &[Client]) -> Result<Verdicts> {
        let mut history = History {
            operations: self.operations.clone(),
            received: self.received.clone(),
            ..History::default()
        };
        history.operations.sort_by_key(|op| op.invoked);
        for (node, client) in (1..).zip(nodes) {
            let log = log(client, branch).await.with_context(|| format!("reading log {node}"))?;
            history.logs.push((node, branch_key(branch), log));
            let rows = client.rows(&TablePath::pos(branch, "order_header")).await?;
            // The sample's own orders have numbers, but no event: ours begin after them.
            let sample = rows.iter().filter(|row| op(row).is_none()).filter_map(order_number);
            history.first_number = history.first_number.max(sample.max().map(|last| last + 1));
            let rows = rows.iter().map(|row| converted("order_header", row));
            let rows = rows.filter(|row| row.table == fields::TICKETS);
            history.tables.push(TableReading {
                node,
                branch_key: branch_key(branch),
                table: fields::TICKETS.to_owned(),
                rows: rows.map(|row| (row.key, row.row)).collect(),
            });
            history.replicas.extend(replicas(client, node).await?);
        }
        Ok(Verdicts {
            operations: self.operations.len(),
            acknowledged: self.acknowledged(),
            verdicts: all_checkers().into_iter().map(|check| check(&history)).collect(),
        })
    }
}

/// The verdicts on a history.
#[derive(Debug, Clone, Default)]
pub struct Verdicts {
    /// Operations that were invoked.
    pub operations: usize,
    /// Operations that were acknowledged.
    pub acknowledged: usize,
    verdicts: Vec<Verdict>,
}

impl Verdicts {
    /// Whether every property holds.
    pub fn hold(&self) -> bool {
        self.verdicts.iter().all(Verdict::holds)
    }

    /// How many facts violate a property.
    pub fn violations(&self, property: &str) -> u64 {
        let of = self.verdicts.iter().filter(|verdict| verdict.property == property);
        of.map(|verdict| verdict.violations).sum()
    }

    /// # Panics
    /// If a property is violated, naming all of them.
    pub fn assert_hold(&self) {
        let broken: Vec<&Verdict> = self.verdicts.iter().filter(|it| !it.holds()).collect();
        assert!(broken.is_empty(), "{self}\n{broken:#?}");
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invoked {}, acknowledged {}, ", self.operations, self.acknowledged)?;
        if self.hold() {
            return write!(f, "every property holds");
        }
        let broken = self.verdicts.iter().filter(|verdict| !verdict.holds());
        let broken = broken.map(|it| format!("{} {}", it.property, it.violations));
        write!(f, "violated: {}", broken.collect::<Vec<_>>().join(", "))
    }
}

/// How an insert of an order completed, by its answer.
pub fn completion(reply: &HttpReply) -> Completion {
    let id = reply.body["record"]["id"].as_str();
    match (reply.status, id.and_then(number_at_end)) {
        (200 | 201, Some(number)) => Completion::Ok(Response {
            cursor: reply.cursor,
            version: None,
            return_value: ReturnValue::Number(number),
        }),
        // Nothing was done, or it is not known: both are asked again under the same id.
        (408 | 429 | 500.., _) => Completion::Info { why: reply.status.to_string() },
        _ => Completion::Fail { code: format!("{} {}", reply.status, reply.body["error"]) },
    }
}

/// What one subscriber receives, over all its connections.
#[derive(Debug)]
pub struct SubscriberRecorder {
    number: u32,
    branch: String,
    connection: u32,
    node: u64,
    /// Whether the node announced a resync: the next snapshot belongs to it.
    is_resync: bool,
    messages: Vec<ReceivedMessage>,
}

impl SubscriberRecorder {
    /// A subscriber of a branch that has no connection yet.
    pub fn new(number: u32, branch: &str) -> Self {
        let (branch, messages) = (branch.to_owned(), Vec::new());
        Self { number, branch, connection: 0, node: 0, is_resync: false, messages }
    }

    /// It has connected to another node, or again.
    pub fn connected(&mut self, node: u64) {
        (self.node, self.connection) = (node, self.connection + 1);
        // What was announced over the last connection does not excuse a snapshot of this one.
        self.is_resync = false;
    }

    /// Records a frame, if it is one that checkers judge; gives the cursor up to which the
    /// subscriber has then received the log.
    pub fn receive(&mut self, frame: &Value) -> Option<LogPosition> {
        let message = self.message(frame)?;
        let cursor = match &message {
            SubscriptionMessage::Event { cursor, .. }
            | SubscriptionMessage::Snapshot { cursor, .. }
            | SubscriptionMessage::Resumed { cursor } => *cursor,
        };
        self.messages.push(ReceivedMessage {
            subscriber: self.number,
            connection: self.connection,
            node: self.node,
            at: now(),
            branch_key: branch_key(&self.branch),
            message,
        });
        Some(cursor)
    }

    /// How many events it has received.
    pub fn events(&self) -> usize {
        let is_event =
            |it: &&ReceivedMessage| matches!(it.message, SubscriptionMessage::Event { .. });
        self.messages.iter().filter(is_event).count()
    }

    /// Its messages, as a recording.
    pub fn finish(self) -> ClientRecording {
        ClientRecording { operations: Vec::new(), received: self.messages }
    }

    fn message(&mut self, frame: &Value) -> Option<SubscriptionMessage> {
        match frame["type"].as_str()? {
            "server:event" if frame["moduleId"] == MODULE => {
                let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
                let batch = &frame["batch"];
                let batch_position = match (number(&batch["index"]), number(&batch["count"])) {
                    (Some(index), Some(count)) => (index + 1, count),
                    _ => (1, 1),
                };
                Some(SubscriptionMessage::Event {
                    cursor: cursor(&frame["cursor"])?,
                    id: frame["eventId"].as_str()?.to_owned(),
                    op: op(&frame["entry"]["record"]),
                    batch_position,
                })
            }
            "server:snapshot" => {
                let is_resync =
                    std::mem::take(&mut self.is_resync) || frame["meta"]["reason"] == "resync";
                let cursor = cursor(&frame["cursors"][MODULE])?;
                Some(SubscriptionMessage::Snapshot { cursor, is_resync })
            }
            "server:resumed" => {
                let cursor = cursor(&frame["modules"][MODULE]["from"])?;
                Some(SubscriptionMessage::Resumed { cursor })
            }
            "server:resync" if frame["moduleId"] == MODULE => {
                self.is_resync = true;
                None
            }
            _ => None,
        }
    }
}

fn branch_key(branch: &str) -> BranchModule {
    BranchModule { branch: branch.to_owned(), module: MODULE.to_owned() }
}

fn cursor(value: &Value) -> Option<LogPosition> {
    Some(LogPosition { epoch: value["epoch"].as_u64()?, sequence: value["sequence"].as_u64()? })
}

/// The operation that wrote a record: orders name it in one field, guests in another.
fn op(record: &Value) -> Option<String> {
    let names = [&record[OP_FIELD], &record["name"]];
    let names = names.into_iter().filter_map(Value::as_str);
    names.filter(|name| name.starts_with(ID_PREFIX)).map(str::to_owned).next()
}

/// The number at the end of a text: 1001 for `DAR-001001`.
pub fn number_at_end(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    text[digits..].parse().ok()
}

/// The number of an order of branch `dar`.
fn order_number(order: &Value) -> Option<u64> {
    order["id"].as_str()?.strip_prefix(NUMBER_PREFIX)?.parse().ok()
}

/// A record as the checkers read it.
struct Converted {
    table: String,
    key: String,
    row: RowJson,
}

/// Only what the checkers compare: an event and a table may show a record differently.
fn converted(table: &str, record: &Value) -> Converted {
    let id = record["id"].as_str().unwrap_or_default();
    let op = op(record);
    let (table, row) = match (table, op.as_deref()) {
        ("order_header", Some(op)) if id.starts_with(NUMBER_PREFIX) => {
            (fields::TICKETS, json!({ fields::NUMBER: id, fields::OP: op }))
        }
        ("customer_profiles", Some(op)) => {
            (fields::REGISTERS, json!({ fields::VALUE: number_at_end(op), fields::OP: op }))
        }
        (other, _) => (other, record.clone()),
    };
    Converted { table: table.to_owned(), key: id.to_owned(), row }
}

/// The log of a branch, from its first event.
async fn log(node: &Client, branch: &str) -> Result<Vec<LogEvent>> {
    let mut log: Vec<LogEvent> = Vec::new();
    let path = TablePath::pos(branch, "order_header").module_path();
    loop {
        let after = log.last().map_or(0, |last| last.cursor.sequence);
        let page = node.get(&format!("{path}/events?after={after}&limit={PAGE}")).await?.ok()?;
        let epoch = page["epoch"].as_u64().context("a log has an epoch")?;
        let events = page["events"].as_array().context("a log has events")?;
        for event in events {
            log.push(log_event(epoch, event)?);
        }
        if events.is_empty() {
            return Ok(log);
        }
    }
}

fn log_event(epoch: u64, event: &Value) -> Result<LogEvent> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let record = &event["record"];
    let Converted { table, row, .. } = converted(&text(&event["table"]), record);
    Ok(LogEvent {
        cursor: LogPosition {
            epoch,
            sequence: event["sequence"].as_u64().context("an event has a sequence")?,
        },
        id: event["id"].as_str().context("an event has an id")?.to_owned(),
        table,
        key: text(&record["id"]),
        op: op(record),
        row: (!record.is_null()).then_some(row),
        previous: event["previous"].as_str().map(str::to_owned),
        hash: None,
    })
}

/// The replicas of a node, which verifies its logs for it.
async fn replicas(client: &Client, node: u64) -> Result<Vec<ReplicaReading>> {
    let shown = client.get("/api/cluster/replicas?verify=true").await?.ok()?;
    let replicas = shown["replicas"].as_array().context("a node shows its replicas")?;
    let status = |replica: &Value| {
        Ok(ReplicaReading {
            node,
            partition: u16::try_from(replica["partition"].as_u64().context("a partition")?)?,
            applied: replica["applied"].as_u64().context("an index")?,
            state_hash: replica["stateHash"].as_str().context("a hash")?.to_owned(),
            broken_chain: replica.get("brokenChain").map(Value::to_string),
        })
    };
    replicas.iter().map(status).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_success_a_refusal_or_unclear() {
        let completion = |status, body| completion(&HttpReply { status, body, cursor: None });
        let made = json!({ "record": { "id": "DAR-001001" } });
        let response = completion(201, made);
        let number = response.response().map(|it| it.return_value.clone());
        assert_eq!(number, Some(ReturnValue::Number(1001)));
        for status in [408, 429, 500, 502, 503, 504] {
            let unclear = completion(status, Value::Null);
            assert!(matches!(unclear, Completion::Info { .. }), "{status}");
        }
        for status in [201, 400, 404, 409, 422] {
            let refused = completion(status, Value::Null);
            assert!(matches!(refused, Completion::Fail { .. }), "{status}");
        }
    }

    fn order(id: &str, op: &str) -> Value {
        json!({ "id": id, OP_FIELD: op, "statusId": "open" })
    }

    #[test]
    fn an_order_is_a_ticket_and_sample_data_is_not() {
        let ours = converted("order_header", &order("DAR-001001", "w-a-1"));
        assert_eq!((ours.table.as_str(), ours.key.as_str()), (fields::TICKETS, "DAR-001001"));
        assert_eq!(ours.row, json!({ "number": "DAR-001001", "op": "w-a-1" }));
        let sample = order("DAR-001000", "evening");
        assert_eq!(converted("order_header", &sample).table, "order_header");
        assert_eq!(order_number(&sample), Some(1000));
        assert_eq!(op(&order("DAR-001001", "evening")), None);
    }

    #[test]
    fn a_subscriber_records_what_checkers_judge() {
        let mut subscriber = SubscriberRecorder::new(1, "dar");
        subscriber.connected(2);
        let cursor = json!({ "epoch": 1, "sequence": 3 });
        let snapshot = json!({ "type": "server:snapshot", "cursors": { "pos": cursor } });
        let at = Some(LogPosition { epoch: 1, sequence: 3 });
        assert_eq!(subscriber.receive(&snapshot), at);
        assert_eq!(subscriber.receive(&json!({ "type": "pong" })), None);
        let event = json!({ "type": "server:event", "moduleId": "pos", "eventId": "e",
            "cursor": { "epoch": 1, "sequence": 4 },
            "entry": { "record": order("DAR-001001", "w-a-1") } });
        assert_eq!(subscriber.receive(&event), Some(LogPosition { epoch: 1, sequence: 4 }));
        assert_eq!(subscriber.events(), 1);
        assert_eq!(subscriber.finish().received.len(), 2);
    }
}
