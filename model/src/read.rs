//! Read: all that may be looked up in one branch:module, and what comes back.
//!
//! One value for every path: a local replica and a leader three hops away answer the same `Read`
//! with the same `Answer`. Translation to the wire's shapes is the gateway's work.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::delta::Event;
use crate::ids::{BranchKey, Incarnation, Offset, Revision, TableName, Timestamp};
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
}

/// How fresh an answer must be (decision 15).
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

/// A page of `GET …/tables/{table}` (contract.md 3.3).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PageQuery {
    /// A registered name, exactly; aliases are not accepted here.
    pub table: String,
    /// At most this many rows; `None` or 0 is all.
    pub limit: Option<usize>,
    /// Rows after the one with this record key; an unknown key is ignored.
    pub after_key: Option<String>,
    /// Rows after the one whose key, `id`, `uid` or `uuid` is this; an unknown one is ignored.
    pub after_id: Option<String>,
    /// Only rows created after this time; rows without one are left out.
    pub created_after: Option<Timestamp>,
    /// Only rows updated after this time; rows without one are left out.
    pub updated_after: Option<Timestamp>,
    /// Newest stored last (`false`) or first (`true`), after filtering.
    pub descending: bool,
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
}

/// A module's counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Whose.
    pub key: BranchKey,
    /// Which life of its log.
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
    /// For each row its translations `{<lang>: {fields}}`, where `{table}_lang` is registered.
    pub translations: Option<Vec<Value>>,
}

/// A stretch of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// Which life of the log.
    pub incarnation: Incarnation,
    /// The log's last offset when this was read.
    pub last: Offset,
    /// In order, contiguous, from `after + 1`. `None`: they are no longer held; take a snapshot.
    pub events: Option<Vec<Arc<Event>>>,
}
