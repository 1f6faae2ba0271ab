//! Log head: what an event log says about itself, in the original's two shapes.
//!
//! The original's log also kept what it had last served to whom. Ours does not, so these members
//! are there, empty.

use model::{LogCursor, LogHead, RecordKey, Timestamp, Value};
use serde::{Serialize, Serializer};

/// `eventLog`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventLogShape<'a> {
    branch_id: &'a str,
    module_id: &'a str,
    live_created_at: Option<String>,
    current_day: String,
    last_closed_date: (),
    #[serde(flatten)]
    last: Last<'a>,
    updated_at: String,
    #[serde(flatten)]
    cursors: Cursors<'a>,
}

impl<'a> EventLogShape<'a> {
    /// As it is at this time.
    pub(crate) fn of(log: &'a LogHead, now: Timestamp) -> Self {
        let last_at = log.last.as_ref().map_or(now, |last| last.at);
        Self {
            branch_id: log.head.key.branch.as_str(),
            module_id: log.head.key.module.as_str(),
            live_created_at: log.first_at.map(Timestamp::to_iso),
            current_day: now.max(last_at).to_day(),
            last_closed_date: (),
            last: Last::of(log),
            updated_at: log.head.last_updated_at.to_iso(),
            cursors: Cursors::of(log, Vec::new()),
        }
    }
}

/// `eventMeta` of a purge.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventMeta<'a> {
    #[serde(flatten)]
    last: Last<'a>,
    #[serde(flatten)]
    cursors: Cursors<'a>,
    live_created_at: Option<String>,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    purge_state: Option<Purged<'a>>,
}

impl<'a> EventMeta<'a> {
    /// After this purge, if it removed anything: the tables it emptied have no last record.
    pub(crate) fn of(log: &'a LogHead, purged: Option<Purged<'a>>) -> Self {
        let emptied = purged.as_ref().map_or_else(Vec::new, |purged| purged.tables.clone());
        Self {
            last: Last::of(log),
            cursors: Cursors::of(log, emptied),
            live_created_at: log.first_at.map(Timestamp::to_iso),
            updated_at: log.head.last_updated_at.to_iso(),
            purge_state: purged,
        }
    }
}

/// `purgeState`: the purge just made.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Purged<'a> {
    pub(crate) at: String,
    pub(crate) reason: &'a str,
    pub(crate) requested_by: Option<&'a str>,
    pub(crate) tables: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Last<'a> {
    last_event_id: Option<&'a str>,
    last_event_at: Option<String>,
    last_ack_id: Option<&'a str>,
    total_events: u64,
}

impl<'a> Last<'a> {
    fn of(log: &'a LogHead) -> Self {
        let id = log.last.as_ref().map(|last| last.event_id.as_str());
        Self {
            last_event_id: id,
            last_event_at: log.last.as_ref().map(|last| last.at.to_iso()),
            last_ack_id: id,
            total_events: log.head.offset.0,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cursors<'a> {
    table_cursors: TableCursors<'a>,
    last_served_table_ids: Empty,
    last_client_table_ids: Empty,
    last_snapshot_marker: (),
    last_client_snapshot_marker: (),
    last_client_sync_at: (),
}

impl<'a> Cursors<'a> {
    fn of(log: &'a LogHead, emptied: Vec<&'a str>) -> Self {
        Self {
            table_cursors: TableCursors { of: &log.tables, emptied },
            last_served_table_ids: Empty {},
            last_client_table_ids: Empty {},
            last_snapshot_marker: (),
            last_client_snapshot_marker: (),
            last_client_sync_at: (),
        }
    }
}

#[derive(Serialize)]
struct Empty {}

struct TableCursors<'a> {
    of: &'a [(String, LogCursor)],
    /// Tables that are not shown.
    emptied: Vec<&'a str>,
}

impl Serialize for TableCursors<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            key: Option<&'a str>,
            id: Option<&'a Value>,
            event_id: &'a str,
            sequence: u64,
            updated_at: String,
        }
        let shown = self.of.iter().filter(|(table, _)| !self.emptied.contains(&table.as_str()));
        to.collect_map(shown.map(|(table, cursor)| {
            let shape = Shape {
                key: cursor.key.as_ref().map(RecordKey::as_str),
                id: cursor.id.as_ref(),
                event_id: &cursor.event_id,
                sequence: cursor.offset.0,
                updated_at: cursor.at.to_iso(),
            };
            (table, shape)
        }))
    }
}
