//! Checkpoint: a partition's whole state as named chunks, for a disk or for a replica that lags.
//!
//! ```text
//! partition                                   uptime, level, which branches
//! staged                                      the pieces of a large command, where some wait
//! schema/<hash>                               one per distinct schema
//! b/<branch>/<module>/head                    definition, counters, offsets, how many records
//! b/<branch>/<module>/records/<table>/<page>  the records of 256 ordinals
//! b/<branch>/<module>/removed/<table>         names and ordinals of the rows it lost lately
//! b/<branch>/<module>/dedup/<queue>/<page>    the decisions of 1024 serials; queue: client, server
//! b/<branch>/<module>/archive/<entry>/head    one entry of the archive: when, why, how many
//! b/<branch>/<module>/archive/<entry>/<page>  256 of its records
//! b/<branch>/<module>/events/<segment>        256 events, sealed: never written differently again
//! b/<branch>/<module>/events/<segment>/<part> in parts, where events are large: first-last
//! b/<branch>/<module>/events/tail             the events after the last segment or part that ended
//! ```
//!
//! Promise: names, order, boundaries and bytes are functions of the log alone, so that a page
//! nobody touched has the bytes it had, and equal replicas have equal checkpoints. A branch id is
//! percent-encoded; names hold nothing but `[A-Za-z0-9_%/-]`.

pub(crate) mod read;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::definition::{DedupLimits, Definition, Validation, VersionRule};
use crate::hash::Hash;
use crate::ids::{BranchKey, Incarnation, Offset, RecordKey, Revision, TableName, Timestamp};
use crate::limits::SEGMENT_EVENTS;
use crate::module::{IgnoredLeap, Reservation};
use crate::read::LogCursor;
use crate::schema::Schema;
use crate::sequence::{SequenceCounters, SequenceRule};
use crate::value::Object;

const PARTITION: &str = "partition";
const STAGED: &str = "staged";

/// A chunk that only a build of the next level writes and reads.
#[cfg(feature = "next-level")]
const NEXT_LEVEL_CHUNK: &str = "next-level";

/// The chunk `next-level`.
#[cfg(feature = "next-level")]
#[derive(Serialize, Deserialize)]
struct NextLevelChunk {
    level: u16,
}

#[cfg(feature = "next-level")]
crate::versioned!(NextLevelChunk => NextLevel);

/// The chunk `partition`.
#[derive(Serialize, Deserialize)]
struct PartitionHead {
    uptime_ms: u64,
    level: u16,
    branches: Vec<BranchKey>,
}

/// The chunk `head` of a branch.
#[derive(Serialize, Deserialize)]
struct BranchHead {
    definition: StoredDefinition,
    incarnation: Incarnation,
    offset: Offset,
    chain_head: Hash,
    revision: Revision,
    last_updated_at: Timestamp,
    last_commit_at: Timestamp,
    seeded: bool,
    counters: SequenceCounters,
    rules_made: Vec<(TableName, BTreeMap<String, SequenceRule>)>,
    reservations: Vec<Reservation>,
    rules_set: Vec<(TableName, BTreeMap<String, SequenceRule>)>,
    leaps: Vec<IgnoredLeap>,
    tables: Vec<TableHead>,
    dedup: DedupHead,
    log_first_at: Option<Timestamp>,
    log_last: Option<LogCursor>,
    log_tables: Vec<(String, LogCursor)>,
    /// The ids of the archive's entries, oldest first.
    archive: Vec<String>,
}

/// A definition, its schema by name: many branches share one.
#[derive(Serialize, Deserialize)]
struct StoredDefinition {
    schema: Hash,
    validation: Validation,
    version_rule: VersionRule,
    sequences: BTreeMap<TableName, BTreeMap<String, SequenceRule>>,
    dedup: DedupLimits,
}

impl StoredDefinition {
    fn of(definition: &Definition, schema: Hash) -> Self {
        Self {
            schema,
            validation: definition.validation,
            version_rule: definition.version_rule,
            sequences: definition.sequences.clone(),
            dedup: definition.dedup,
        }
    }

    fn with(self, schema: Arc<Schema>) -> Definition {
        Definition {
            schema,
            validation: self.validation,
            version_rule: self.version_rule,
            sequences: self.sequences,
            dedup: self.dedup,
        }
    }
}

/// How much the pages of the dedup table hold.
#[derive(Serialize, Deserialize)]
struct DedupHead {
    client: QueueHead,
    server: QueueHead,
    displaced: u64,
    codes: Vec<String>,
}

/// How much the pages of one queue hold.
#[derive(Serialize, Deserialize)]
struct QueueHead {
    entries: u64,
    next: u64,
}

/// One page of decisions.
#[derive(Serialize, Deserialize)]
struct DedupPage {
    /// The serial of the first.
    first: u64,
    /// One after another, 36 bytes each.
    #[serde(with = "serde_bytes")]
    entries: Vec<u8>,
    /// What belongs to some of them, by serial.
    attachment: Vec<DedupAttachment>,
}

/// What does not fit into an entry.
#[derive(Serialize, Deserialize)]
struct DedupAttachment {
    serial: u64,
    is_refusal: bool,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

/// How much of a table the record pages hold.
#[derive(Serialize, Deserialize)]
struct TableHead {
    name: TableName,
    next_ordinal: u64,
    records: u64,
}

/// The chunk `head` of an archive entry: the entry, its records counted.
#[derive(Serialize, Deserialize)]
struct ArchiveHead {
    id: String,
    at: Timestamp,
    reason: String,
    requested_by: Option<String>,
    revision: Revision,
    tables: Vec<ArchiveTableHead>,
}

/// One table of an archive entry.
#[derive(Serialize, Deserialize)]
struct ArchiveTableHead {
    name: TableName,
    key_fields: Arc<[Arc<str>]>,
    first_keys: Vec<RecordKey>,
    records: u64,
}

/// One page of an archive entry, its tables one after another.
#[derive(Serialize, Deserialize)]
struct ArchivePage(Vec<Arc<Object>>);

/// One page of records: ordinal, key, record.
#[derive(Serialize, Deserialize)]
struct RecordPage(Vec<(u64, RecordKey, Arc<Object>)>);

/// The rows a table lost lately, the first removed in front.
#[derive(Serialize, Deserialize)]
struct RemovedRows(Vec<(Arc<str>, u64)>);

crate::versioned!(
    PartitionHead => PartitionHead,
    BranchHead => BranchHead,
    DedupPage => DedupPage,
    ArchiveHead => ArchiveHead,
    ArchivePage => ArchivePage,
    RecordPage => RecordPage,
    RemovedRows => RemovedRows,
);

/// Whether a chunk of this name holds events, to be read by
/// [`Partition::read_segment`](crate::Partition::read_segment).
pub fn is_event_chunk(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    matches!(parts[..], ["b", _, _, "events", _] | ["b", _, _, "events", _, _])
}

fn schema_name(hash: Hash) -> String {
    format!("schema/{hash}")
}

/// The folder of a branch's chunks, with its last slash.
fn folder(key: &BranchKey) -> String {
    let mut folder = String::from("b/");
    for byte in key.branch.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            folder.push(char::from(byte));
        } else {
            write!(folder, "%{byte:02X}").expect("a string takes every text");
        }
    }
    folder.push('/');
    folder.push_str(key.module.as_str());
    folder.push('/');
    folder
}

fn head_name(folder: &str) -> String {
    format!("{folder}head")
}

fn record_page_name(folder: &str, table: &TableName, page: u64) -> String {
    format!("{folder}records/{table}/{page:016x}")
}

fn removed_name(folder: &str, table: &TableName) -> String {
    format!("{folder}removed/{table}")
}

fn archive_entry_name(folder: &str, id: &str) -> String {
    format!("{folder}archive/{id}/head")
}

fn archive_page_name(folder: &str, id: &str, page: usize) -> String {
    format!("{folder}archive/{id}/{page:016x}")
}

fn dedup_page_name(folder: &str, queue: &str, page: u64) -> String {
    format!("{folder}dedup/{queue}/{page:016x}")
}

fn segment_name(folder: &str, segment: u64) -> String {
    format!("{folder}events/{segment:016x}")
}

/// The prefix of the names of a segment's parts, where it has several.
fn parts_prefix(folder: &str, segment: u64) -> String {
    segment_name(folder, segment) + "/"
}

/// The chunk of a part that has ended: its segment's where that has no other, else its own.
fn part_name(folder: &str, segment: u64, part: &RangeInclusive<u64>) -> String {
    let (first, last) = (part.start(), part.end());
    if last - first + 1 == SEGMENT_EVENTS {
        return segment_name(folder, segment);
    }
    format!("{}{first:016x}-{last:016x}", parts_prefix(folder, segment))
}

/// The first and last event of a part, by what stands after its segment's prefix.
fn part_of(name: &str) -> Option<RangeInclusive<u64>> {
    let (first, last) = name.split_once('-')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    Some(number(first)?..=number(last)?)
}

fn tail_name(folder: &str) -> String {
    format!("{folder}events/tail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BranchId, ModuleId};

    #[test]
    fn names_are_safe_whatever_the_branch_is_called() {
        let key = |branch| {
            BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse("pos").unwrap())
        };
        assert_eq!(folder(&key("lab:test-pad")), "b/lab%3Atest-pad/pos/");
        assert_eq!(folder(&key("..a%3A")), "b/%2E%2Ea%253A/pos/");
        assert_eq!(folder(&key("دار")), "b/%D8%AF%D8%A7%D8%B1/pos/");
        let folder = folder(&key("dar"));
        assert!(is_event_chunk(&segment_name(&folder, 1)) && is_event_chunk(&tail_name(&folder)));
        let part = part_name(&folder, 2, &(257..=300));
        assert_eq!(
            part,
            folder.clone() + "events/0000000000000002/0000000000000101-000000000000012c"
        );
        assert!(
            is_event_chunk(&part)
                && part_name(&folder, 2, &(257..=512)) == segment_name(&folder, 2)
        );
        assert!(!is_event_chunk(&head_name(&folder)) && !is_event_chunk(PARTITION));
    }
}
