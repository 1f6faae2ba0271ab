//! History: all that was seen from outside while the storm went on, as plain records.
//!
//! Promise: an operation is written down before it is sent and once more when its outcome is
//! known; one without outcome stays [`Completion::Info`], which is *maybe*, never *no*. Nothing in
//! here knows how it was gathered, so that the properties can judge a history written by hand.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since the run began, on one monotonic clock.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct MonotonicTime(pub u64);

impl MonotonicTime {
    /// The moment so long after the run began.
    pub fn from_elapsed(elapsed: Duration) -> Self {
        Self(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }
}

/// A node's number, from 1.
pub type NodeId = u64;

/// A branch:module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BranchKey {
    /// The branch.
    pub branch: String,
    /// The module.
    pub module: String,
}

impl BranchKey {
    /// `branch:module`, as [`History::deposits`] and reports name it.
    pub fn name(&self) -> String {
        format!("{}:{}", self.branch, self.module)
    }
}

/// Where in a module's log something stands. Ordered by epoch, then sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// Which life of the log.
    pub epoch: u64,
    /// Which event of it, from 1; 0 is before the first.
    pub sequence: u64,
}

/// What a client asked for. Every write puts its operation's id into field `op` of each row it
/// writes, so that the log tells which operations happened, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Invocation {
    /// Register: sets the value, whatever it was. Table `registers`.
    Put {
        /// The register.
        key: String,
        /// Unique in the run.
        value: u64,
    },
    /// Register: sets the value if its version is this.
    Cas {
        /// The register.
        key: String,
        /// Unique in the run.
        value: u64,
        /// The version it must have.
        expected: u64,
    },
    /// Register: reads value and version, linearizably.
    Get {
        /// The register.
        key: String,
    },
    /// Adds one element to each of several lists, all or none. Table `elements`.
    Append {
        /// The lists.
        lists: Vec<String>,
        /// Unique in the run.
        element: u64,
    },
    /// Reads all lists of the place at one moment.
    ReadLists,
    /// Moves money between two accounts by one batch with both versions. Table `accounts`.
    Transfer {
        /// Who pays.
        from: String,
        /// Who is paid.
        to: String,
        /// How much, above 0.
        amount: i64,
    },
    /// Reads all accounts of the place at one moment.
    ReadBalances,
    /// Inserts a ticket whose number the store takes. Table `tickets`.
    Ticket,
    /// Adds one to a counter whose version was read before. Table `counters`.
    Increment {
        /// The counter.
        key: String,
        /// The version that was read.
        expected: u64,
        /// The value written: the one read, plus one.
        value: u64,
    },
    /// Takes one piece from stock, guarded by the version read. Table `stock`.
    TakePiece {
        /// The item.
        item: String,
        /// The version that was read.
        expected: u64,
        /// Pieces left after it: never below 0.
        left: i64,
    },
    /// The first write to a branch that does not exist yet. Table `registers`, key `first`.
    FirstWrite {
        /// Unique in the run.
        value: u64,
    },
}

impl Invocation {
    /// Whether it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::ReadLists | Self::ReadBalances)
    }

    /// How many events it makes when it happens.
    pub fn event_count(&self) -> usize {
        match self {
            Self::Get { .. } | Self::ReadLists | Self::ReadBalances => 0,
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
    /// The node asked.
    pub node: NodeId,
    /// When.
    pub at: MonotonicTime,
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Unique in the run; the idempotency key of every attempt.
    pub id: String,
    /// The client; it has one operation at a time.
    pub client: u32,
    /// On what.
    #[serde(rename = "place")]
    pub branch_key: BranchKey,
    /// What.
    #[serde(rename = "intent")]
    pub invocation: Invocation,
    /// Who was asked and when, in order; never empty.
    pub attempts: Vec<Attempt>,
    /// Before the first attempt was sent.
    pub invoked: MonotonicTime,
    /// After the answer came, or when waiting ended.
    pub completed: MonotonicTime,
    /// What came of it.
    #[serde(rename = "outcome")]
    pub completion: Completion,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Completion {
    /// Acknowledged: it happened, once.
    #[serde(rename = "Done")]
    Ok(Response),
    /// Refused by a rule (version conflict, …): it did not happen.
    #[serde(rename = "Refused")]
    Fail {
        /// The store's code, such as `version-conflict`.
        code: String,
    },
    /// No answer, or one that says so: it may have happened, or may yet.
    #[serde(rename = "Unknown")]
    Info {
        /// What was known last.
        why: String,
    },
}

impl Completion {
    /// The answer of an acknowledged operation.
    pub fn response(&self) -> Option<&Response> {
        if let Self::Ok(response) = self { Some(response) } else { None }
    }
}

/// What an acknowledgement says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Where the write's last event stands.
    pub cursor: Option<Cursor>,
    /// The record's version after it.
    pub version: Option<u64>,
    /// What was read, or taken.
    #[serde(rename = "seen")]
    pub return_value: ReturnValue,
}

/// What a reply shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReturnValue {
    /// Nothing to judge.
    #[default]
    Nothing,
    /// A register's value and version, `None` if it was never set.
    Register(Option<(u64, u64)>),
    /// The elements of each list that was asked for, in the order they came in; of an empty one
    /// too.
    Lists(BTreeMap<String, Vec<u64>>),
    /// Each account's balance.
    Balances(BTreeMap<String, i64>),
    /// The number taken.
    Number(u64),
}

/// What a subscriber was told, in the order it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedMessage {
    /// The subscriber; over all its connections it follows one place.
    pub subscriber: u32,
    /// Its how-manieth connection, from 1.
    pub connection: u32,
    /// The node it was connected to.
    pub node: NodeId,
    /// When it came.
    pub at: MonotonicTime,
    /// What it follows.
    pub branch_key: BranchKey,
    /// What was said.
    pub message: SubscriptionMessage,
}

/// What a subscriber can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscriptionMessage {
    /// An event.
    Event {
        /// Where it stands.
        cursor: Cursor,
        /// Its id.
        id: String,
        /// The operation named in its row, if one is.
        op: Option<String>,
        /// Which of how many of its batch, from 1; `(1, 1)` where it came alone.
        batch_position: (u32, u32),
    },
    /// The whole state at a place in the log: what follows begins after it.
    Snapshot {
        /// Where.
        cursor: Cursor,
        /// Whether the subscriber was told why it cannot continue (`server:resync`).
        is_resync: bool,
    },
    /// It continues exactly where its cursor stood.
    Resumed {
        /// Where.
        cursor: Cursor,
    },
}

/// One event of a module's log, read at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    /// Where it stands.
    pub cursor: Cursor,
    /// Its id.
    pub id: String,
    /// The table.
    pub table: String,
    /// The record's key.
    pub key: String,
    /// The operation named in its row, if one is.
    pub op: Option<String>,
    /// The row after it, as JSON; nothing for a delete.
    pub row: Option<serde_json::Value>,
}

/// What one replica says of itself at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The node it is on.
    pub node: NodeId,
    /// The partition; 0 is group 0.
    pub partition: u16,
    /// The index it has applied.
    pub applied: u64,
    /// The hash of its state at that index.
    pub state_hash: String,
    /// What is wrong with the chain of its events; nothing when every link holds.
    pub broken_chain: Option<String>,
}

/// A fault as it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its kind, such as `kill-leader`.
    pub kind: String,
    /// The nodes it struck.
    pub nodes: Vec<NodeId>,
    /// When it struck.
    pub from: MonotonicTime,
    /// When it was healed.
    pub until: MonotonicTime,
    /// What was done, in words.
    #[serde(rename = "words")]
    pub description: String,
    /// The nodes that had no majority meanwhile and must have acknowledged nothing, from
    /// `minority_from` on; empty where a majority was everywhere.
    pub minority: Vec<NodeId>,
    /// From when on the minority must be silent: later than `from` by what was under way.
    pub minority_from: MonotonicTime,
}

/// A time in which the disk under all nodes stood still, for whatever reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStall {
    /// When a write to it began.
    pub from: MonotonicTime,
    /// When it was synced.
    pub until: MonotonicTime,
}

/// Everything the properties judge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// All operations, by invocation.
    pub operations: Vec<Operation>,
    /// All words, by subscriber and time.
    pub received: Vec<ReceivedMessage>,
    /// The logs after the end, by place and by the node that was asked.
    pub logs: Vec<(NodeId, BranchKey, Vec<LogEvent>)>,
    /// The replicas after the end.
    pub replicas: Vec<ReplicaStatus>,
    /// The faults.
    pub faults: Vec<Fault>,
    /// When the disk under all nodes stood still, in order; judged by nothing, shown beside gaps.
    pub stalls: Vec<DiskStall>,
    /// What all accounts of each place hold together, from the beginning, by [`BranchKey::name`].
    pub deposits: BTreeMap<String, i64>,
}

impl History {
    /// Writes the operations into a file, one JSON object a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_operations(&self, file: &Path) -> io::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut lines = BufWriter::new(File::create(file)?);
        for op in &self.operations {
            serde_json::to_writer(&mut lines, op)?;
            lines.write_all(b"\n")?;
        }
        lines.flush()
    }
}
