//! Log: events as the event log shows them: the original's line of one change of a record, and our
//! own line of any event.

use std::sync::Arc;

use model::{BranchKey, Event, EventChange, Hash, ModuleChange, Object, Offset, Revision, Value};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Meta, PublishState, RecordEvent, RecordRef};

/// `logEntry`: one line of the original's event log.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogEntry<'a> {
    id: &'a str,
    sequence: u64,
    action: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    table: &'a str,
    record: &'a Object,
    meta: LogMeta<'a>,
    publish_state: PublishState<'a>,
    created_at: &'a str,
    recorded_at: &'a str,
}

/// `meta` of such a line: without what the line says itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogMeta<'a> {
    server_id: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    table: &'a str,
    timestamp: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_meta: Option<&'a Value>,
    record_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_id: Option<&'a Value>,
    record_ref: RecordRef<'a>,
}

impl<'a> RecordEvent<'a> {
    /// `logEntry`.
    pub(crate) fn log_entry(&'a self) -> LogEntry<'a> {
        let frame = self.frame("");
        let Meta { server_id, branch_id, module_id, table, timestamp, source, .. } = frame.meta;
        LogEntry {
            id: &self.event.id,
            sequence: self.event.offset.0,
            action: frame.action,
            branch_id,
            module_id,
            table,
            record: &self.change.record,
            meta: LogMeta {
                server_id,
                branch_id,
                module_id,
                table,
                timestamp,
                source,
                client_meta: frame.meta.client_meta,
                record_key: frame.meta.record_key,
                record_id: frame.meta.record_id,
                record_ref: frame.meta.record_ref,
            },
            publish_state: frame.publish_state,
            created_at: &self.at,
            recorded_at: &self.at,
        }
    }
}

/// One event of the log, whatever it changed.
pub(crate) struct LogLine<'a> {
    /// Which server shows it.
    pub(crate) server_id: &'a str,
    /// Whose it is.
    pub(crate) key: &'a BranchKey,
    /// The event.
    pub(crate) event: &'a Event,
}

impl Serialize for LogLine<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.event.change {
            EventChange::Record(_) => self.record(to),
            EventChange::Module(change) => self.module(change, to),
        }
    }
}

impl LogLine<'_> {
    fn record<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape<'a> {
            sequence: Offset,
            version: Revision,
            id: &'a str,
            action: &'a str,
            table: &'a str,
            record_ref: RecordRef<'a>,
            record: &'a Arc<Object>,
            created_at: &'a str,
            meta: Meta<'a>,
            created: bool,
            deleted: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            batch: Option<LogBatch<'a>>,
            previous: String,
        }
        let Some(shown) = RecordEvent::new(self.server_id, self.key, self.event) else {
            return to.serialize_unit();
        };
        Shape {
            sequence: self.event.offset,
            version: self.event.revision,
            id: &self.event.id,
            action: shown.change.effect.wire_name(),
            table: shown.table,
            record_ref: shown.record_ref(),
            record: &shown.change.record,
            created_at: &shown.at,
            meta: shown.meta(),
            created: shown.created(),
            deleted: shown.deleted(),
            batch: self.batch(),
            previous: hash(self.event.previous),
        }
        .serialize(to)
    }

    /// An act on the whole module: its details, and how many records it changed.
    fn module<S: Serializer>(&self, change: &ModuleChange, to: S) -> Result<S::Ok, S::Error> {
        const OWN: [&str; 8] =
            ["sequence", "version", "id", "action", "createdAt", "changed", "batch", "previous"];
        let event = self.event;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("sequence", &event.offset)?;
        map.serialize_entry("version", &event.revision)?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("action", change.operation.wire_name())?;
        map.serialize_entry("createdAt", &event.at.to_iso())?;
        for (name, value) in change.details.iter().filter(|(name, _)| !OWN.contains(&&***name)) {
            map.serialize_entry(&**name, value)?;
        }
        map.serialize_entry("changed", &change.records.len())?;
        if let Some(batch) = self.batch() {
            map.serialize_entry("batch", &batch)?;
        }
        map.serialize_entry("previous", &hash(event.previous))?;
        map.end()
    }

    fn batch(&self) -> Option<LogBatch<'_>> {
        let part = self.event.part?;
        Some(LogBatch { index: part.index, count: part.count, id: &self.event.command.request })
    }
}

/// Which of its command's events this is.
#[derive(Serialize)]
struct LogBatch<'a> {
    index: u32,
    count: u32,
    id: &'a str,
}

fn hash(hash: Hash) -> String {
    hash.to_string()
}
