//! Record: what a history holds: operations and how they completed, what subscribers received,
//! faults, and what the nodes showed at the end.
//!
//! Promise: every time is a reading of one clock. What was not read is absent, and a checker that
//! needs it says so. Refused: opinions; nothing here says whether a history is right.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of the run's one monotonic clock, in microseconds since the workload started.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct MonotonicTime(pub u64);

impl MonotonicTime {
    /// The reading when this much time has elapsed.
    pub fn from_elapsed(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }
}

/// A node's number, from 1.
pub type NodeId = u64;

/// A branch:module: what has a log of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BranchModule {
    /// The branch.
    pub branch: String,
    /// The module.
    pub module: String,
}

impl BranchModule {
    /// `branch:module`, as [`History::deposits`] and reports name it.
    pub fn name(&self) -> String {
        format!("{}:{}", self.branch, self.module)
    }
}

/// A position in the log of a branch. Ordered by epoch, then by sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The incarnation of the log.
    pub epoch: u64,
    /// The event's number in it, from 1; 0 is before the first event.
    pub sequence: u64,
}

/// What a client invokes. Every write stores its operation's id in field `op` of each record, so
/// that the log shows which operations happened, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Invocation {
    /// Register: sets the value unconditionally. Table `registers`.
    Put {
        /// The register.
        key: String,
        /// Unique in the run.
        value: u64,
    },
    /// Register: sets the value if the register has the expected version.
    Cas {
        /// The register.
        key: String,
        /// Unique in the run.
        value: u64,
        /// The version that the register must have; 0 if it must not exist.
        expected: u64,
    },
    /// Register: reads value and version, linearizably.
    Get {
        /// The register.
        key: String,
    },
    /// Adds one element to each of several lists in one batch. Table `elements`.
    Append {
        /// The lists.
        lists: Vec<String>,
        /// Unique in the run.
        element: u64,
    },
    /// Reads all lists of a generation in one query.
    ReadLists,
    /// Moves money between two accounts in one batch that expects both versions. Table `accounts`.
    Transfer {
        /// The account that is debited.
        from: String,
        /// The account that is credited.
        to: String,
        /// The amount, above 0.
        amount: i64,
    },
    /// Reads all accounts of the branch in one query.
    ReadBalances,
    /// Inserts a ticket, to which the store gives the next number of a sequence. Table `tickets`.
    Ticket,
    /// Adds one to a counter if it still has the version that was read. Table `counters`.
    Increment {
        /// The counter.
        key: String,
        /// The version that was read.
        expected: u64,
        /// The value that is written: the one that was read, plus one.
        value: u64,
    },
    /// Takes one piece from stock if the item still has the version that was read. Table `stock`.
    TakePiece {
        /// The item.
        item: String,
        /// The version that was read.
        expected: u64,
        /// The pieces that are left afterwards: never below 0.
        left: i64,
    },
    /// The first write to a branch that was just created. Table `registers`, key `first`.
    FirstWrite {
        /// Unique in the run.
        value: u64,
    },
    /// Reads the cursor of the log's last event, linearizably.
    ReadHead,
}

impl Invocation {
    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::ReadLists | Self::ReadBalances | Self::ReadHead)
    }

    /// How many events the operation adds to the log if it happens.
    pub fn event_count(&self) -> usize {
        match self {
            Self::Get { .. } | Self::ReadLists | Self::ReadBalances | Self::ReadHead => 0,
            Self::Append { lists, .. } => lists.len(),
            Self::Transfer { .. } => 2,
            Self::Put { .. }
            | Self::Cas { .. }
            | Self::Ticket
            | Self::Increment { .. }
            | Self::TakePiece { .. }
            | Self::FirstWrite { .. } => 1,
        }
    }
}

/// One attempt at an operation. Attempts of one operation carry the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The node that received the request.
    pub node: NodeId,
    /// When the request was sent.
    pub at: MonotonicTime,
    /// How this attempt by itself was answered, if that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<Completion>,
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id, unique in the run; the idempotency key of every attempt.
    pub id: String,
    /// The client, which has one operation at a time.
    pub client: u32,
    /// The branch that it reads or writes.
    #[serde(rename = "place")]
    pub branch_key: BranchModule,
    /// What was invoked.
    #[serde(rename = "intent")]
    pub invocation: Invocation,
    /// The attempts in order; never empty.
    pub attempts: Vec<Attempt>,
    /// The time before the first attempt was sent.
    pub invoked: MonotonicTime,
    /// The time after the response arrived, or when the client gave up.
    pub completed: MonotonicTime,
    /// How it completed.
    #[serde(rename = "outcome")]
    pub completion: Completion,
}

/// How an operation completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Completion {
    /// Acknowledged: it happened, exactly once.
    #[serde(rename = "Done")]
    Ok(Response),
    /// Refused (version conflict, unavailable, …): it did not happen.
    #[serde(rename = "Refused")]
    Fail {
        /// The store's code, such as `version-conflict`.
        code: String,
    },
    /// Unknown: it may have happened, or may happen later.
    #[serde(rename = "Unknown")]
    Info {
        /// The last error.
        why: String,
    },
}

impl Completion {
    /// The response of an acknowledged operation.
    pub fn response(&self) -> Option<&Response> {
        if let Self::Ok(response) = self { Some(response) } else { None }
    }
}

/// The response of an acknowledged operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The cursor of the write's last event, or the one that was read.
    pub cursor: Option<LogPosition>,
    /// The record's version after the write.
    pub version: Option<u64>,
    /// What was read, or the number that was taken.
    #[serde(rename = "seen")]
    pub return_value: ReturnValue,
}

/// The value in a response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReturnValue {
    /// No value to check.
    #[default]
    Nothing,
    /// A register's value and version; `None` if it was never set.
    Register(Option<(u64, u64)>),
    /// The elements of each list of the generation, in the order of insertion. Empty lists are in
    /// it.
    Lists(BTreeMap<String, Vec<u64>>),
    /// Each account's balance.
    Balances(BTreeMap<String, i64>),
    /// The number of a ticket.
    Number(u64),
}

/// A message as a subscriber received it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedMessage {
    /// The subscriber, which follows one branch over all its connections.
    pub subscriber: u32,
    /// The number of its connection, from 1.
    pub connection: u32,
    /// The node it was connected to.
    pub node: NodeId,
    /// When the message arrived.
    pub at: MonotonicTime,
    /// The branch that it follows.
    pub branch_key: BranchModule,
    /// The message.
    pub message: SubscriptionMessage,
}

/// The messages of a subscription that a checker judges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscriptionMessage {
    /// An event of the log.
    Event {
        /// Its cursor.
        cursor: LogPosition,
        /// Its id.
        id: String,
        /// The id of the operation that wrote its record; `None` if it was written by the setup.
        op: Option<String>,
        /// Its number in its batch, from 1, and the size of the batch; `(1, 1)` for a single event.
        batch_position: (u32, u32),
    },
    /// The whole state at a cursor. The events after it follow.
    Snapshot {
        /// The cursor of the state.
        cursor: LogPosition,
        /// Whether the node announced that the subscriber cannot continue (`server:resync`).
        is_resync: bool,
    },
    /// The subscription continues at the subscriber's cursor. The events after it follow.
    Resumed {
        /// The cursor.
        cursor: LogPosition,
    },
}

/// A record as JSON. Only the fields that checkers compare need to be in it.
pub type RowJson = serde_json::Value;

/// A record from its JSON text; null, which is no record, for a text that is no JSON.
pub fn row_from_json(text: &str) -> RowJson {
    serde_json::from_str(text).unwrap_or_default()
}

/// One event of a branch's log, read at the end of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    /// Its cursor.
    pub cursor: LogPosition,
    /// Its id.
    pub id: String,
    /// The record's table.
    pub table: String,
    /// The record's key.
    pub key: String,
    /// The id of the operation that wrote the record; `None` if the setup wrote it.
    pub op: Option<String>,
    /// The record after the event; `None` for a delete.
    pub row: Option<RowJson>,
    /// The hash of the event before it, in hexadecimal, if it was read; zeros for the first.
    pub previous: Option<String>,
    /// Its own hash, which the next event must carry, if it was read.
    pub hash: Option<String>,
}

/// One table of a branch as a node showed it at the end of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReading {
    /// The node that showed it.
    pub node: NodeId,
    /// The branch.
    pub branch_key: BranchModule,
    /// The table.
    pub table: String,
    /// Its rows, by key.
    pub rows: BTreeMap<String, RowJson>,
}

/// The status of one replica, read at the end of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReading {
    /// The node it is on.
    pub node: NodeId,
    /// The partition; 0 is group 0.
    pub partition: u16,
    /// The last log index that it has applied.
    pub applied: u64,
    /// The hash of its state at that index.
    pub state_hash: String,
    /// What is broken in the hash chain of its events; `None` if the chain is intact.
    pub broken_chain: Option<String>,
}

/// A fault that was in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind, such as `kill-leader`.
    pub kind: String,
    /// The nodes that it acted on.
    pub nodes: Vec<NodeId>,
    /// When its injection began.
    pub from: MonotonicTime,
    /// When its healing began.
    pub until: MonotonicTime,
    /// What was done, for people.
    #[serde(rename = "words")]
    pub description: String,
    /// The nodes that could not reach a majority, and must have acknowledged nothing from
    /// `minority_from` on; empty if every node could.
    pub minority: Vec<NodeId>,
    /// When the last response that was in flight had arrived; later than `from`.
    pub minority_from: MonotonicTime,
}

/// A time in which the disk that all nodes share stalled, for whatever reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStall {
    /// When a write to the disk began.
    pub from: MonotonicTime,
    /// When the write was synced.
    pub until: MonotonicTime,
}

/// Everything that the checkers judge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// All operations, in the order of their invocation.
    pub operations: Vec<Operation>,
    /// All received messages; those of one subscriber are in the order of their arrival.
    pub received: Vec<ReceivedMessage>,
    /// The logs at the end, each with the node that it was read from.
    pub logs: Vec<(NodeId, BranchModule, Vec<LogEvent>)>,
    /// Tables at the end.
    pub tables: Vec<TableReading>,
    /// The first number of every sequence, if it is known.
    pub first_number: Option<u64>,
    /// The replicas at the end.
    pub replicas: Vec<ReplicaReading>,
    /// The faults, in the order of their end.
    pub faults: Vec<Fault>,
    /// The stalls of the shared disk, in order. No checker judges by them; reports show them.
    pub stalls: Vec<DiskStall>,
    /// The sum of all accounts of each branch at the beginning, by [`BranchModule::name`].
    pub deposits: BTreeMap<String, i64>,
}

impl History {
    /// Writes the operations, one JSON object a line.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_operations(&self, mut lines: impl Write) -> io::Result<()> {
        for op in &self.operations {
            serde_json::to_writer(&mut lines, op)?;
            lines.write_all(b"\n")?;
        }
        // A buffered writer that is dropped flushes too, but loses the error.
        lines.flush()
    }
}
