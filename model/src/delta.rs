//! Delta: what one accepted command changed; Event: one change of a record or module at one offset.
//!
//! The events of a branch:module are numbered from 1 without gaps, for ever, and each carries the
//! BLAKE3 hash of its predecessor, so that two replicas, or a log and its copy, can be compared
//! by their last hash alone.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::command::Origin;
use crate::hash::Hash;
use crate::ids::{
    BranchKey, CommandId, Incarnation, Offset, RecordKey, Revision, TableName, Timestamp,
};
use crate::limits::{CHANGE_BYTES, EVENT_BYTES};
use crate::value::Object;

/// What a change did to its record, as the wire shows it: a save is an insert or a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The record is new.
    Insert,
    /// The record changed, or was replaced by the replace-on-1 rule.
    Merge,
    /// The record is gone.
    Delete,
}

impl Effect {
    /// The wire's name.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::Insert => "module:insert",
            Self::Merge => "module:merge",
            Self::Delete => "module:delete",
        }
    }
}

/// One change of a module, at one offset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the branch:module's log (JSON `sequence`).
    pub offset: Offset,
    /// The module's revision after it (JSON `version`).
    pub revision: Revision,
    /// Commit time; never goes backwards within a branch.
    pub at: Timestamp,
    /// `evt-<uuid>`, or the id the client gave.
    pub id: String,
    /// What changed.
    pub change: EventChange,
    /// Its place among the events of its command, where there are several.
    pub part: Option<Part>,
    /// Which command did it.
    pub command: CommandId,
    /// Where the command came from.
    pub origin: Arc<Origin>,
    /// The hash of the event before it; all zero for the first.
    pub previous: Hash,
    /// What only version 2 can hold; an event without it is written as version 1.
    #[cfg(feature = "next-level")]
    #[serde(skip)]
    pub note: Option<String>,
}

impl Event {
    /// What the next event of its log carries as `previous`: taken over the bytes that it was first
    /// written with.
    pub fn hash(&self) -> Hash {
        self.hash_and_length().0
    }

    /// The same, and how many bytes those are.
    pub(crate) fn hash_and_length(&self) -> (Hash, usize) {
        let bytes = codec::encode(self);
        (Hash(*blake3::hash(&bytes).as_bytes()), bytes.len())
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let changed = match &self.change {
            EventChange::Record(change) => change.record.memory_bytes(),
            EventChange::Module(change) => {
                let record = |record: &Option<Arc<Object>>| {
                    CHANGE_BYTES + record.as_ref().map_or(0, |record| record.memory_bytes())
                };
                change.records.iter().map(|(.., changed)| record(changed)).sum()
            }
        };
        EVENT_BYTES + changed
    }

    /// The record it changed, unless it changed the module as a whole.
    pub fn record(&self) -> Option<&RecordChange> {
        match &self.change {
            EventChange::Record(change) => Some(change),
            EventChange::Module(_) => None,
        }
    }
}

/// What an event changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventChange {
    /// One record.
    Record(RecordChange),
    /// Many records by one bulk operation.
    Module(ModuleChange),
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordChange {
    /// The canonical table.
    pub table: TableName,
    /// The name the client used, if it was an alias: the wire echoes it.
    pub table_sent: Option<String>,
    /// What happened.
    pub effect: Effect,
    /// The record's key.
    pub key: RecordKey,
    /// The names of the key's fields, in order: with `record` they give `recordRef.primaryKey`.
    pub key_fields: Arc<[Arc<str>]>,
    /// The whole record after the change; for a delete, the one removed.
    pub record: Arc<Object>,
}

/// What the records of an event were before it. In memory only: neither the log nor another node
/// holds it, so a delta that came from either is without.
#[derive(Debug, Clone, PartialEq)]
pub enum PriorRecords {
    /// Of the record an event changed; `None` where it was new.
    Record(Option<Arc<Object>>),
    /// Of the records a module change lists, in its order; `None` for one that was new.
    Module(Vec<Option<Arc<Object>>>),
}

/// One operation on a whole module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleChange {
    /// Which.
    pub operation: BulkOperation,
    /// What the wire shows of it, besides where and when: `tables`, `totalRemoved`, `meta`, …
    pub details: Object,
    /// Every record it changed, as it is afterwards; `None` for one that is gone. In order, one
    /// entry for each record.
    pub records: Vec<(TableName, RecordKey, Option<Arc<Object>>)>,
}

/// What may be done to a module as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BulkOperation {
    /// Tables were emptied into the archive.
    Purge,
    /// Records came back out of the archive.
    Restore,
    /// The module began again from its seed; the rest went into the archive.
    Reset,
    /// Whole tables were replaced by a client's (docs/original/rest.md#sync).
    Replace,
    /// A sequence got another rule or its counter was set; no record is another.
    Sequence,
    /// The commit time went back to the present, from where a wrong clock had set it; no record is
    /// another. The only event that may be stamped with an earlier time than the one before it.
    Clock,
}

impl BulkOperation {
    /// The wire's name.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::Purge => "module:purge",
            Self::Restore => "module:restore",
            Self::Reset => "module:reset",
            Self::Replace => "module:replace",
            Self::Sequence => "module:sequence",
            Self::Clock => "module:clock",
        }
    }
}

/// A place among the events of one command: who sees one of them waits for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

/// What one accepted command changed: its events, contiguous. Empty for `Define`, `Seed` and
/// `Reserve`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// Whose log.
    pub key: BranchKey,
    /// The incarnation of that log.
    pub incarnation: Incarnation,
    /// In offset order. Each is written in an envelope of its own, with the bytes it was first
    /// written with: its hash is taken over them.
    #[serde(with = "codec::enveloped")]
    pub events: Vec<Arc<Event>>,
}

#[cfg(not(feature = "next-level"))]
crate::versioned!(Event => Event);
crate::versioned!(Delta => EventSegment);

/// Version 2 of an event: version 1, then its note.
#[cfg(feature = "next-level")]
impl codec::Versioned for Event {
    const KIND: codec::FormatKind = codec::FormatKind::Event;
    const VERSION: u8 = 2;

    fn write(&self, to: &mut Vec<u8>) -> u8 {
        codec::append(self, to);
        let Some(note) = &self.note else { return 1 };
        codec::append(note, to);
        Self::VERSION
    }

    fn read(version: u8, bytes: &[u8]) -> Result<Self, codec::CodecError> {
        if version == 1 {
            return codec::take(Self::KIND, bytes);
        }
        let (event, note): (Self, String) = codec::take(Self::KIND, bytes)?;
        Ok(Self { note: Some(note), ..event })
    }
}

impl Delta {
    /// The offset of the last event, if there is one.
    pub fn last(&self) -> Option<Offset> {
        self.events.last().map(|event| event.offset)
    }
}
