//! Read: all that may be looked up in one branch:module, and what comes back.
//!
//! One value for every path: a local replica and a leader three hops away answer the same `Read`
//! with the same `Answer`. Translation to the wire's shapes is the gateway's work.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::ProcedureCall;
use crate::definition::Definition;
use crate::delta::Event;
use crate::ids::{BranchKey, Incarnation, Offset, RecordKey, Revision, TableName, Timestamp};
use crate::module::{IgnoredLeap, RuleSource};
use crate::predicate::Filter;
use crate::reject::Reject;
use crate::sequence::SequenceRule;
use crate::value::{Object, Value};

/// What is looked up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Read {
    /// The whole module.
    Snapshot,
    /// A page of one table.
    Page(PageQuery),
    /// Only the counters: revision, offset, times.
    Head,
    /// The events after an offset, at most `limit` of them.
    Events {
        /// The last one already seen.
        after: Offset,
        /// At most this many.
        limit: u32,
    },
    /// Rows of one table that meet conditions.
    Query(Query),
    /// What a stored procedure answers.
    Call(ProcedureCall),
    /// What a client that holds rows up to its cursors lacks.
    Sync(SyncQuery),
    /// The archive of purges and resets: all entries, or one with its records.
    Archive {
        /// One entry's id.
        entry: Option<String>,
    },
    /// What the event log says about itself.
    Log,
    /// The sequences and their counters.
    Sequences,
    /// Whether the records satisfy a definition.
    DefinitionCheck {
        /// Which is to be taken.
        definition: Arc<Definition>,
        /// Whether they may be brought up to it.
        fill: bool,
    },
}

/// Whether somebody still waits for an answer: asked between slices of a long read, which ends
/// where it says no.
pub type StillWanted<'a> = &'a dyn Fn() -> bool;

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BranchReadError {
    /// The branch refuses it.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// Nobody waited for it any more.
    #[error("the read was ended before it had looked at all rows")]
    Interrupted,
}

/// How fresh an answer must be (decision 24).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadLevel {
    /// Everything acknowledged before the read began is seen.
    #[default]
    Linearizable,
    /// At least this offset is seen.
    Session(Offset),
    /// Whatever the nearest replica holds.
    Stale,
}

/// A page of `GET …/tables/{table}` (docs/original/rest.md#lists).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PageQuery {
    /// A registered name, exactly; aliases are not accepted here.
    pub table: String,
    /// At most this many rows; `None` or 0 is all.
    pub limit: Option<usize>,
    /// Rows after this position of the table; goes before the other two. One of another
    /// incarnation of the log is ignored.
    pub after_position: Option<RowPosition>,
    /// Rows after the one with this record key; an unknown key is ignored. Goes before `after_id`.
    pub after_key: Option<String>,
    /// Rows after the one whose key, `id`, `uid` or `uuid` is this; an unknown one is ignored.
    pub after_id: Option<String>,
    /// Only rows created after this time; rows without one are left out.
    pub created_after: Option<Timestamp>,
    /// Only rows updated after this time; rows without one are left out.
    pub updated_after: Option<Timestamp>,
    /// Newest stored last (`false`) or first (`true`). "After" is in this order.
    pub descending: bool,
}

/// A position in a table's order. It stays valid when the row there is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowPosition {
    /// The incarnation of the log that counted it.
    pub incarnation: Incarnation,
    /// The row's number in the table, given once.
    pub ordinal: u64,
}

/// Rows of one table that meet conditions (docs/original/rest.md#queries, and `client:query` of
/// socket.md#requests).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// A registered name or an alias.
    pub table: String,
    /// Only the record with this key, as the wire shows keys.
    pub key: Option<String>,
    /// All must hold.
    pub filters: Vec<Filter>,
    /// Fields to sort by, the first first; rows that are equal in all keep their order.
    pub order_by: Vec<OrderBy>,
    /// Rows left out at the beginning.
    pub offset: usize,
    /// At most this many rows.
    pub limit: Option<usize>,
    /// Whether references are written out as `{id, name}` (docs/original/schemas.md#references).
    pub populate: bool,
}

/// One field to sort by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderBy {
    /// The field.
    pub field: String,
    /// Largest first.
    pub descending: bool,
}

/// What a client holds (docs/original/rest.md#sync and rules.md#deltas).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncQuery {
    /// Only these tables; `None` for those with a cursor, and for all where there is none.
    pub tables: Option<Vec<String>>,
    /// By table, everything that may name the last row the client holds: its key or an id, the
    /// key's values as a list, or its fields as an object.
    pub cursors: Vec<(String, Vec<Value>)>,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// For `Read::Snapshot`.
    Snapshot(Arc<ModuleSnapshot>),
    /// For `Read::Page`.
    Page(Page),
    /// For `Read::Head`.
    Head(Head),
    /// For `Read::Events`.
    Events(Events),
    /// For `Read::Query`.
    Query(QueryPage),
    /// For `Read::Call`, in an envelope of its own version.
    Call(#[serde(with = "serde_bytes")] Vec<u8>),
    /// For `Read::Sync`.
    Sync(SyncDelta),
    /// For `Read::Archive`, newest first; empty where there is no such entry.
    Archive(Vec<Arc<ArchiveEntry>>),
    /// For `Read::Log`.
    Log(LogHead),
    /// For `Read::Sequences`, by table and field.
    Sequences(Vec<SequenceState>),
    /// For `Read::DefinitionCheck`.
    DefinitionCheck(DefinitionCheck),
}

/// Whether records satisfy a definition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DefinitionCheck {
    /// Whether the branch:module has taken it already.
    pub adopted: bool,
    /// The first records that do not satisfy it; it is refused if there are any.
    pub violations: Vec<Violation>,
}

/// One record that does not satisfy a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// Canonical.
    pub table: String,
    /// Which record.
    pub key: RecordKey,
    /// What is wrong with it.
    pub problem: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} \"{}\": {}", self.table, self.key, self.problem)
    }
}

/// The rows of a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueryPage {
    /// The canonical table.
    pub table: TableName,
    /// In the order asked.
    pub rows: Vec<Arc<Object>>,
}

/// What a client lacks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncDelta {
    /// The counters at the same moment.
    pub head: Head,
    /// By table.
    pub tables: Vec<TableDelta>,
}

/// The rows of one table after a cursor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableDelta {
    /// The canonical table.
    pub table: TableName,
    /// The key's field names, for cursors.
    pub key_fields: Arc<[Arc<str>]>,
    /// In insertion order.
    pub rows: Vec<Arc<Object>>,
    /// The table's last row, returned or not, and its key.
    pub last: Option<(RecordKey, Arc<Object>)>,
    /// Rows in the table.
    pub total: usize,
    /// What became of the cursor.
    pub cursor: CursorStatus,
}

/// What became of a table's cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CursorStatus {
    /// None was sent: all rows come back.
    None,
    /// Its row was found: the rows after it come back.
    Matched,
    /// Its row is gone: all rows come back, and the client should begin again.
    Missed,
}

/// Records taken out of a module at once, kept so that they can come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchiveEntry {
    /// `purge-<uuid>`.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// Why, in the words of whoever asked.
    pub reason: String,
    /// Who, in the words of whoever asked.
    pub requested_by: Option<String>,
    /// The module's revision before.
    pub revision: Revision,
    /// What was taken out, by table, empty tables too.
    pub tables: Vec<ArchivedTable>,
}

/// The records of one table in an archive entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchivedTable {
    /// The canonical table.
    pub table: TableName,
    /// The names of the key's fields.
    pub key_fields: Arc<[Arc<str>]>,
    /// The keys of the first records, at most [`ARCHIVE_SAMPLE`](crate::limits::ARCHIVE_SAMPLE).
    pub first_keys: Vec<RecordKey>,
    /// In insertion order.
    pub records: Vec<Arc<Object>>,
}

/// What an event log says about itself (docs/original/rules.md#event-log).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogHead {
    /// The module's counters.
    pub head: Head,
    /// When the first event was committed.
    pub first_at: Option<Timestamp>,
    /// The last event.
    pub last: Option<LogCursor>,
    /// For each name a table was written under, its last event.
    pub tables: Vec<(String, LogCursor)>,
}

/// One event, as a cursor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogCursor {
    /// The record's key; `None` for a change of the whole module.
    pub key: Option<RecordKey>,
    /// The record's `id`, if it has one.
    pub id: Option<Value>,
    /// The event's id.
    pub event_id: String,
    /// Its place.
    pub offset: Offset,
    /// When it was committed.
    pub at: Timestamp,
}

/// A module's counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Whose.
    pub key: BranchKey,
    /// The incarnation of its log.
    pub incarnation: Incarnation,
    /// The last event's place; 0 before the first.
    pub offset: Offset,
    /// JSON `version`.
    pub revision: Revision,
    /// JSON `meta.lastUpdatedAt`.
    pub last_updated_at: Timestamp,
    /// JSON `meta.counter`: rows in all tables.
    pub rows: u64,
}

/// State shown to a client: every registered table, empty ones too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleSnapshot {
    /// The counters at the same moment.
    pub head: Head,
    /// In the schema's order; rows in insertion order.
    pub tables: Vec<(TableName, Vec<Arc<Object>>)>,
}

/// One page of one table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The canonical table.
    pub table: TableName,
    /// The key's field names, for cursors.
    pub key_fields: Arc<[Arc<str>]>,
    /// The rows, in the order asked.
    pub rows: Vec<Arc<Object>>,
    /// Where the last of them is: the next page starts after it.
    pub cursor: Option<PageCursor>,
    /// Whether the cursor that was sent names a row that is or was lately there; `None` where none
    /// was sent.
    pub cursor_matched: Option<bool>,
    /// For each row its translations `{<lang>: {fields}}`, where `{table}_lang` is registered.
    pub translations: Option<Vec<Value>>,
}

/// The row a page ended with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCursor {
    /// Its key.
    pub key: RecordKey,
    /// Its position in the table.
    pub position: RowPosition,
}

/// A stretch of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// The incarnation of the log.
    pub incarnation: Incarnation,
    /// The log's last offset when this was read.
    pub last: Offset,
    /// In order, contiguous, from `after + 1`. `None`: they are no longer held; take a snapshot.
    #[serde(with = "crate::codec::enveloped::optional")]
    pub events: Option<Vec<Arc<Event>>>,
}

/// One sequence: its rule, and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceState {
    /// The canonical table.
    pub table: TableName,
    /// The field.
    pub field: String,
    /// The rule in force.
    pub rule: SequenceRule,
    /// Who made the rule.
    pub source: RuleSource,
    /// The last number taken or followed; `None` before the first.
    pub last: Option<u64>,
    /// The next number; `None` where they are used up.
    pub next: Option<u64>,
    /// A number among the records that is too far over the counter to be followed.
    pub ignored: Option<IgnoredLeap>,
}
