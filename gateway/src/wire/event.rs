//! Event: one change of one record as acknowledgement, event, entry and notice.

use std::sync::Arc;

use model::{
    BranchId, BranchKey, Effect, Event, Incarnation, ModuleSnapshot, Object, Offset, RecordChange,
    Value,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::error::{ApiError, Problem};
use crate::wire::cursor::{BatchPart, WireCursor};
use crate::wire::snapshot::ModuleShape;

mod log;

pub(crate) use log::LogLine;

/// `recordRef`.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RecordRef<'a> {
    table: &'a str,
    key: &'a str,
    primary_key: PrimaryKey<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a Value>,
}

/// How a record is named: `key` is its key as text, `fields` are the names of the key's fields.
pub(crate) fn record_ref<'a>(
    table: &'a str,
    key: &'a str,
    fields: &'a [Arc<str>],
    record: &'a Object,
) -> RecordRef<'a> {
    let set = |name| record.get(name).filter(|value| !value.is_null());
    RecordRef {
        table,
        key,
        primary_key: PrimaryKey { fields, record },
        id: set("id"),
        uuid: set("uuid"),
        uid: set("uid"),
    }
}

#[derive(Clone, Copy)]
struct PrimaryKey<'a> {
    fields: &'a [Arc<str>],
    record: &'a Object,
}

impl Serialize for PrimaryKey<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let value = |name| self.record.get(name).unwrap_or(&Value::Null);
        to.collect_map(self.fields.iter().map(|name| (&**name, value(name))))
    }
}

/// An event with what its shapes share.
pub(crate) struct RecordEvent<'a> {
    server_id: &'a str,
    key: &'a BranchKey,
    event: &'a Event,
    change: &'a RecordChange,
    at: String,
    table: &'a str,
    /// Which life of the log it is of, where that is shown.
    incarnation: Option<Incarnation>,
    /// Whether the record is shown whatever the publish said.
    with_record: bool,
}

impl<'a> RecordEvent<'a> {
    /// A change of one record of this branch, as this server shows it; `None` for a change of the
    /// whole module.
    pub(crate) fn new(server_id: &'a str, key: &'a BranchKey, event: &'a Event) -> Option<Self> {
        let change = event.record()?;
        let table = change.table_sent.as_deref().unwrap_or(change.table.as_str());
        let at = event.at.to_iso();
        Some(Self {
            server_id,
            key,
            event,
            change,
            at,
            table,
            incarnation: None,
            with_record: false,
        })
    }

    /// With its place in this life of the log, as frames show it.
    pub(crate) fn with_cursor(self, incarnation: Incarnation) -> Self {
        Self { incarnation: Some(incarnation), ..self }
    }

    /// With its record, whatever the publish said.
    pub(crate) fn with_record(self, with_record: bool) -> Self {
        Self { with_record, ..self }
    }

    /// The same of an event that answers for a mutation: it always changed a record.
    pub(crate) fn of(
        server_id: &'a str,
        key: &'a BranchKey,
        event: &'a Event,
    ) -> Result<Self, ApiError> {
        Self::new(server_id, key, event).ok_or_else(|| {
            tracing::error!("a verb was answered with a change of the whole module");
            ApiError::new(Problem::Defect, "the change was accepted, but its event is missing")
        })
    }

    /// The record after the change; the one removed, if it is gone.
    pub(crate) fn record(&self) -> &'a Object {
        &self.change.record
    }

    /// What was done.
    pub(crate) fn action(&self) -> &'static str {
        self.change.effect.wire_name()
    }

    /// The table as the client named it.
    pub(crate) fn table(&self) -> &'a str {
        self.table
    }

    /// The event's id.
    pub(crate) fn event_id(&self) -> &'a str {
        &self.event.id
    }

    /// The event's place.
    pub(crate) fn offset(&self) -> Offset {
        self.event.offset
    }

    /// Whether the record is new.
    pub(crate) fn created(&self) -> bool {
        self.change.effect == Effect::Insert
    }

    /// Whether it is gone.
    pub(crate) fn deleted(&self) -> bool {
        self.change.effect == Effect::Delete
    }

    /// `recordRef`.
    pub(crate) fn record_ref(&self) -> RecordRef<'_> {
        let change = self.change;
        record_ref(self.table, change.key.as_str(), &change.key_fields, &change.record)
    }

    /// `meta`.
    pub(crate) fn meta(&self) -> Meta<'_> {
        let reference = self.record_ref();
        Meta {
            server_id: self.server_id,
            branch_id: self.key.branch.as_str(),
            module_id: self.key.module.as_str(),
            table: self.table,
            timestamp: &self.at,
            source: self.event.origin.source.as_deref(),
            client_meta: self.event.origin.client_meta.as_ref(),
            record_key: reference.key,
            record_id: reference.id.or(reference.uuid).or(reference.uid),
            event_id: &self.event.id,
            sequence: self.event.offset.0,
            record_ref: reference,
        }
    }

    fn entry(&self) -> EventEntry<'_> {
        let meta = self.meta();
        EventEntry {
            id: meta.record_id.map_or(EntryId::Key(meta.record_key), EntryId::Id),
            table: self.table,
            action: self.change.effect.wire_name(),
            record_ref: meta.record_ref,
            meta,
            created: self.created(),
            deleted: self.deleted(),
            record: (self.with_record || self.event.origin.include_record)
                .then_some(&self.change.record),
        }
    }

    /// `notice`.
    pub(crate) fn notice(&self) -> Notice<'_> {
        Notice {
            action: self.change.effect.wire_name(),
            record_ref: self.record_ref(),
            event_id: &self.event.id,
            sequence: self.event.offset.0,
            version: self.event.revision.0,
            timestamp: &self.at,
            created: self.created(),
            deleted: self.deleted(),
            meta: self.meta(),
        }
    }

    fn frame(&self, r#type: &'static str) -> Frame<'_> {
        Frame {
            r#type,
            action: self.change.effect.wire_name(),
            branch_id: self.key.branch.as_str(),
            module_id: self.key.module.as_str(),
            version: self.event.revision.0,
            table: self.table,
            record_ref: self.record_ref(),
            event_id: &self.event.id,
            sequence: self.event.offset.0,
            publish_state: PublishState {
                branch: &self.key.branch,
                at: &self.at,
                sent: self.event.origin.publish_state.as_ref().and_then(Value::as_object),
            },
            meta: self.meta(),
            entry: self.entry(),
        }
    }

    /// `server:ack`.
    pub(crate) fn ack(&self) -> Ack<'_> {
        Ack {
            frame: self.frame("server:ack"),
            created: self.created(),
            deleted: self.deleted().then_some(true),
            cursor: self.cursor(),
        }
    }

    fn cursor(&self) -> Option<WireCursor> {
        self.incarnation.map(|incarnation| WireCursor::new(incarnation, self.event.offset))
    }

    /// `server:event`.
    pub(crate) fn event<'b>(&'b self, snapshot: Option<&'b ModuleSnapshot>) -> EventFrame<'b> {
        let wanted = snapshot.filter(|_| self.event.origin.include_snapshot);
        EventFrame {
            frame: self.frame("server:event"),
            notice: self.notice(),
            snapshot: wanted.map(ModuleShape),
            cursor: self.cursor(),
            batch: BatchPart::of(self.event),
        }
    }
}

/// `meta`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta<'a> {
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
    event_id: &'a str,
    sequence: u64,
    record_ref: RecordRef<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EntryId<'a> {
    Id(&'a Value),
    Key(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventEntry<'a> {
    id: EntryId<'a>,
    table: &'a str,
    action: &'a str,
    record_ref: RecordRef<'a>,
    meta: Meta<'a>,
    created: bool,
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a Arc<Object>>,
}

/// `notice`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notice<'a> {
    action: &'a str,
    record_ref: RecordRef<'a>,
    event_id: &'a str,
    sequence: u64,
    version: u64,
    timestamp: &'a str,
    created: bool,
    deleted: bool,
    meta: Meta<'a>,
}

/// What acknowledgement and event share.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Frame<'a> {
    r#type: &'static str,
    action: &'a str,
    branch_id: &'a str,
    module_id: &'a str,
    version: u64,
    table: &'a str,
    record_ref: RecordRef<'a>,
    event_id: &'a str,
    sequence: u64,
    publish_state: PublishState<'a>,
    meta: Meta<'a>,
    entry: EventEntry<'a>,
}

/// `server:ack`.
#[derive(Serialize)]
pub(crate) struct Ack<'a> {
    #[serde(flatten)]
    frame: Frame<'a>,
    created: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<WireCursor>,
}

/// `server:event`.
#[derive(Serialize)]
pub(crate) struct EventFrame<'a> {
    #[serde(flatten)]
    frame: Frame<'a>,
    notice: Notice<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<ModuleShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<WireCursor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<BatchPart<'a>>,
}

/// What the client said about publishing, with this branch's own part filled in.
struct PublishState<'a> {
    branch: &'a BranchId,
    at: &'a str,
    sent: Option<&'a Object>,
}

impl Serialize for PublishState<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let own = self.branch.as_str();
        let said = self.sent.and_then(|sent| sent.get(own)).and_then(Value::as_object);
        let mut published = said.cloned().unwrap_or_default();
        published.insert("status", "published".into());
        published.insert("updatedAt", self.at.into());
        if published.get("attempts").is_none() {
            published.insert("attempts", 0_u64.into());
        }
        published.insert("publishedAt", self.at.into());

        let mut map = to.serialize_map(None)?;
        map.serialize_entry(own, &published)?;
        for (branch, state) in self.sent.into_iter().flat_map(Object::iter) {
            match state {
                // It stands first already, completed by what happened here.
                _ if &**branch == own => {}
                Value::String(status) => {
                    let state: Object = [("status", status.as_str())].into_iter().collect();
                    map.serialize_entry(&**branch, &state)?;
                }
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_) => map.serialize_entry(&**branch, state)?,
            }
        }
        map.end()
    }
}
