//! Answer: a delta as the wire has it: the original's members, then the log's.

use std::sync::Arc;

use model::{
    CursorStatus, Effect, Event, EventChange, ModuleChange, Object, Offset, RecordChange,
    SyncDelta, TableDelta, Value,
};
use serde::Serialize;

use crate::app::now;
use crate::business_day;
use crate::rest::sync::request::{ClientCursor, DeltaRequest};
use crate::wire::{Members, RecordRef, record_ref};

/// What happened after a cursor, up to the moment the rows were read.
pub(super) struct EventsSince {
    pub(super) events: Vec<Arc<Event>>,
    /// Where the client stands after it has taken them.
    pub(super) reached: Offset,
    /// There is more than one answer holds.
    pub(super) more: bool,
    /// Why the client must begin again instead.
    pub(super) resync: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeltaAnswer<'a, I, R, D, S> {
    branch_id: &'a str,
    module_id: &'a str,
    version: u64,
    updated_at: String,
    server_id: &'a str,
    snapshot_marker: String,
    requires_full_sync: bool,
    cursor_misses: Vec<&'a str>,
    last_table_ids: I,
    last_table_refs: R,
    deltas: D,
    stats: S,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_version: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_snapshot_marker: Option<&'a str>,
    cursor: ClientCursor,
    #[serde(flatten)]
    since: Option<ChangesView<'a>>,
}

/// The answer to a delta; `flagged`: a full-sync flag stands.
pub(super) fn delta_answer<'a>(
    server_id: &'a str,
    request: &'a DeltaRequest,
    delta: &'a SyncDelta,
    since: Option<&'a EventsSince>,
    flagged: bool,
) -> impl Serialize + 'a {
    let head = &delta.head;
    let tables = || delta.tables.iter();
    let missed = tables().filter(|table| table.cursor == CursorStatus::Missed);
    let cursor_misses: Vec<&str> = missed.map(|table| table.table.as_str()).collect();
    let today = business_day::of(now().max(head.last_updated_at));
    let other_day = request.marker.as_ref().is_some_and(|marker| *marker != today);
    let resync = since.is_some_and(|since| since.resync.is_some());
    DeltaAnswer {
        branch_id: head.key.branch.as_str(),
        module_id: head.key.module.as_str(),
        version: head.revision.0,
        updated_at: head.last_updated_at.to_iso(),
        server_id,
        snapshot_marker: today,
        requires_full_sync: flagged || other_day || resync || !cursor_misses.is_empty(),
        cursor_misses,
        last_table_ids: Members(tables().map(|table| (&table.table, last_id(table)))),
        last_table_refs: Members(tables().map(|table| (&table.table, LastRef::of(table)))),
        deltas: Members(tables().map(|table| (&table.table, &table.rows))),
        stats: Members(tables().map(|table| (&table.table, TableStats::of(table)))),
        client_version: request.version.as_ref(),
        client_snapshot_marker: request.marker.as_deref(),
        cursor: ClientCursor {
            epoch: head.incarnation,
            sequence: since.map_or(head.offset, |since| since.reached),
        },
        since: since.map(|since| {
            let chosen: Vec<&str> = tables().map(|table| table.table.as_str()).collect();
            ChangesView::of(since, request.chosen.then_some(&chosen[..]))
        }),
    }
}

fn last_id(table: &TableDelta) -> Option<&str> {
    table.last.as_ref().map(|(key, _)| key.as_str())
}

/// A table's last row, named by texts: what a client sends back as a cursor.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastRef<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    primary_key: Object,
}

impl<'a> LastRef<'a> {
    fn of(table: &'a TableDelta) -> Option<Self> {
        let (key, row) = table.last.as_ref()?;
        let part = |name: &Arc<str>| {
            let value = row.get(name).cloned().unwrap_or_default();
            let text = value.key_text().map(Value::from);
            (Arc::clone(name), text.unwrap_or(value))
        };
        Some(Self {
            key: key.as_str(),
            id: row.get("id").and_then(Value::key_text),
            primary_key: table.key_fields.iter().map(part).collect(),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TableStats {
    total: usize,
    returned: usize,
    cursor_matched: bool,
}

impl TableStats {
    fn of(table: &TableDelta) -> Self {
        Self {
            total: table.total,
            returned: table.rows.len(),
            cursor_matched: table.cursor == CursorStatus::Matched,
        }
    }
}

/// What an answer adds for a client that sent a cursor.
#[derive(Serialize)]
#[serde(untagged)]
enum ChangesView<'a> {
    Resync { resync: bool, reason: &'static str },
    Events { events: Vec<EventView<'a>>, more: bool },
}

impl<'a> ChangesView<'a> {
    fn of(since: &'a EventsSince, chosen: Option<&[&str]>) -> Self {
        if let Some(reason) = since.resync {
            return Self::Resync { resync: true, reason };
        }
        let events = since.events.iter().filter_map(|event| EventView::of(event, chosen));
        Self::Events { events: events.collect(), more: since.more }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventView<'a> {
    action: &'static str,
    event_id: &'a str,
    sequence: Offset,
    version: u64,
    timestamp: String,
    #[serde(flatten)]
    what: EventBody<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EventBody<'a> {
    #[serde(rename_all = "camelCase")]
    One {
        table: &'a str,
        record_ref: RecordRef<'a>,
        record: Option<&'a Object>,
    },
    Many {
        records: Vec<BulkRecord<'a>>,
    },
}

#[derive(Serialize)]
struct BulkRecord<'a> {
    table: &'a str,
    key: &'a str,
    /// `null`: it is gone.
    record: Option<&'a Object>,
}

impl<'a> EventView<'a> {
    /// An event, as far as it concerns these tables.
    fn of(event: &'a Event, chosen: Option<&[&str]>) -> Option<Self> {
        let concerns = |table: &str| chosen.is_none_or(|chosen| chosen.contains(&table));
        let (action, what) = match &event.change {
            EventChange::Record(change) if concerns(change.table.as_str()) => {
                (change.effect.wire_name(), EventBody::one(change))
            }
            EventChange::Record(_) => return None,
            EventChange::Module(change) => {
                (change.operation.wire_name(), EventBody::many(change, concerns))
            }
        };
        Some(Self {
            action,
            event_id: &event.id,
            sequence: event.offset,
            version: event.revision.0,
            timestamp: event.at.to_iso(),
            what,
        })
    }
}

impl<'a> EventBody<'a> {
    fn one(change: &'a RecordChange) -> Self {
        let (table, record) = (change.table.as_str(), &*change.record);
        Self::One {
            table,
            record_ref: record_ref(table, change.key.as_str(), &change.key_fields, record),
            record: (change.effect != Effect::Delete).then_some(record),
        }
    }

    fn many(change: &'a ModuleChange, concerns: impl Fn(&str) -> bool) -> Self {
        let records = change.records.iter().filter(|(table, _, _)| concerns(table.as_str()));
        let records = records.map(|(table, key, record)| BulkRecord {
            table: table.as_str(),
            key: key.as_str(),
            record: record.as_deref(),
        });
        Self::Many { records: records.collect() }
    }
}
