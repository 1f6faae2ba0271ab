//! WalIndex: what the log holds, in memory. No file is touched here.
//!
//! For each live entry it keeps the term and the location, and for the most recent ones the payload
//! as well. A submitted entry is in the index at once, as `Queued`; the writer replaces that by the
//! location in a segment.
//!
//! Promise: the live bytes and entries of each segment are counted exactly, because a segment is
//! removed when they are zero. Refused: entries that would leave a gap, before anything changes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::record::{Kind, Record};
use crate::disk::segment::Segment;
use crate::disk::wal::{GroupLogState, LogOp, WalError};
use crate::disk::{GroupKey, StoredEntry};
use crate::limits;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryLocation {
    /// Submitted under this sequence number, not written yet.
    Queued(u64),
    /// Written: serial of the segment, offset in it.
    Written(u64, u64),
}

/// One live entry.
#[derive(Debug, Clone)]
pub(super) struct LiveEntry {
    pub(super) term: u64,
    pub(super) len: u32,
    pub(super) location: EntryLocation,
    pub(super) bytes: Option<Bytes>,
}

impl LiveEntry {
    /// Whether its record stands in this segment.
    fn is_in(&self, serial: u64) -> bool {
        matches!(self.location, EntryLocation::Written(of, _) if of == serial)
    }
}

/// A value of which only the latest counts, and the segment that holds its latest record (0: none).
#[derive(Debug, Clone, Default)]
pub(super) struct LatestRecord<T> {
    pub(super) value: Option<T>,
    pub(super) serial: u64,
}

/// One replica's log.
#[derive(Debug, Default)]
pub(super) struct GroupIndex {
    pub(super) vote: LatestRecord<Bytes>,
    pub(super) committed: LatestRecord<Bytes>,
    pub(super) purged: LatestRecord<(u64, Bytes)>,
    /// The index of the first entry. Meaningless while there are no entries.
    pub(super) first: u64,
    /// Consecutive entries from `first` on.
    pub(super) entries: VecDeque<LiveEntry>,
    pub(super) bytes: u64,
}

/// The bounds of a replica's log: all that decides whether an operation is valid.
#[derive(Debug, Clone, Copy, Default)]
struct LogBounds {
    first: Option<u64>,
    /// The only index the next entry may have. `None`: any.
    next: Option<u64>,
    purged: Option<u64>,
}

impl LogBounds {
    fn of(group: &GroupIndex) -> Self {
        let purged = group.purged.value.as_ref().map(|(index, _)| *index);
        match group.entries.is_empty() {
            true => Self { first: None, next: purged.map(|index| index + 1), purged },
            false => Self { first: Some(group.first), next: Some(group.end()), purged },
        }
    }

    /// Applies an operation to the bounds. Must agree with [`WalIndex::apply`]: a submission is
    /// checked as a whole here before any part of it changes the index.
    fn apply(&mut self, op: &LogOp) -> Result<(), String> {
        match op {
            LogOp::Append { group, entries } => {
                for (index, _, bytes) in entries {
                    if let Some(expected) = self.next.filter(|expected| expected != index) {
                        return Err(format!(
                            "{group}: entry {index} comes where {expected} is due"
                        ));
                    }
                    if bytes.len() > limits::WAL_ENTRY_BYTES_MAX {
                        return Err(format!("{group}: entry {index} is too large"));
                    }
                    self.first.get_or_insert(*index);
                    self.next = Some(index + 1);
                }
            }
            LogOp::Vote { .. } | LogOp::Committed { .. } => {}
            LogOp::TruncateAfter { after, .. } => {
                let end = after.map_or(0, |after| after + 1);
                // Nothing is left: what may come next is decided by the purge alone.
                if self.first.is_some_and(|first| end <= first) {
                    self.first = None;
                    self.next = self.purged.map(|index| index + 1);
                } else if self.first.is_some() {
                    self.next = self.next.map(|next| next.min(end));
                }
            }
            LogOp::Purge { index, .. } if self.purged.is_none_or(|purged| purged < *index) => {
                self.purged = Some(*index);
                if self.first.is_some() && self.next.is_some_and(|next| next > index + 1) {
                    self.first = self.first.map(|first| first.max(index + 1));
                } else {
                    // The purge reaches to the end of the log or beyond it, as after a checkpoint
                    // that came from another replica.
                    self.first = None;
                    self.next = Some(index + 1);
                }
            }
            LogOp::Purge { .. } => {}
            LogOp::Forget { .. } => *self = Self::default(),
        }
        Ok(())
    }
}

impl GroupIndex {
    /// The index after the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn entry(&mut self, index: u64) -> Option<&mut LiveEntry> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(at)
    }

    /// The state as callers of the log see it.
    pub(super) fn state(&self) -> GroupLogState {
        GroupLogState {
            vote: self.vote.value.clone(),
            committed: self.committed.value.clone(),
            purged: self.purged.value.clone(),
            first: (!self.entries.is_empty()).then_some(self.first),
            last: self.entries.back().map(|entry| (self.end() - 1, entry.term)),
        }
    }
}

/// A segment, and the number and payload bytes of the live entries in it. Metadata records are not
/// counted: there are at most three for each replica, and compaction looks for them.
#[derive(Debug)]
pub(super) struct SegmentUsage {
    pub(super) segment: Arc<Segment>,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Where to read an entry from: memory, or a segment. Reading needs no lock.
#[derive(Debug)]
pub(super) enum EntrySource {
    Memory(StoredEntry),
    Disk { segment: Arc<Segment>, offset: u64, len: usize, index: u64, term: u64 },
}

impl EntrySource {
    /// Reads the entry, and checks that it is the one that was requested.
    pub(super) fn read(self, key: GroupKey) -> Result<StoredEntry, WalError> {
        match self {
            Self::Memory(entry) => Ok(entry),
            Self::Disk { segment, offset, len, index, term } => {
                // The checksum proves that a record was written here, not that it is this one.
                let record = segment.record(offset, len)?;
                let is_requested = (record.key, record.index, record.term) == (key, index, term);
                if !is_requested || !matches!(record.kind, Kind::Entry | Kind::Compacted) {
                    return Err(WalError::Corrupt {
                        file: segment.path.clone(),
                        offset,
                        reason: format!("not entry {index} of {key}"),
                    });
                }
                Ok(StoredEntry { index, term, bytes: record.payload })
            }
        }
    }
}

/// What the log holds, of all replicas.
#[derive(Debug, Default)]
pub(super) struct WalIndex {
    pub(super) groups: BTreeMap<GroupKey, GroupIndex>,
    pub(super) segments: BTreeMap<u64, SegmentUsage>,
    /// Replicas whose committed index changed since it was last written.
    pub(super) committed_changed: Vec<GroupKey>,
    /// How often a submission of a replica was rejected. What was submitted before a rejection is
    /// rejected as well. The count outlives the replica, whose submissions may still be queued.
    pub(super) rejections: BTreeMap<GroupKey, u64>,
    /// Entries whose payload is in memory, oldest first. May name entries that are gone.
    cache: VecDeque<(GroupKey, u64)>,
    /// Payload bytes of written entries in memory, and how many there may be.
    cache_used: usize,
    cache_bytes: usize,
}

impl WalIndex {
    pub(super) fn new(cache_bytes: usize) -> Self {
        Self { cache_bytes, ..Self::default() }
    }

    /// Checks whether operations may be submitted, before any of them is applied.
    ///
    /// # Errors
    /// The reason, in words.
    pub(super) fn check(&self, ops: &[LogOp]) -> Result<(), String> {
        let mut bounds_by_group: Vec<(GroupKey, LogBounds)> = Vec::new();
        for op in ops {
            let key = op.group();
            let position = bounds_by_group.iter().position(|(of, _)| *of == key);
            let at = position.unwrap_or_else(|| {
                let bounds = self.groups.get(&key).map(LogBounds::of).unwrap_or_default();
                bounds_by_group.push((key, bounds));
                bounds_by_group.len() - 1
            });
            bounds_by_group[at].1.apply(op)?;
        }
        Ok(())
    }

    /// Applies operations that passed [`WalIndex::check`], and returns the records to write for
    /// them.
    /// A committed index gives no record: the next batch adds it.
    pub(super) fn apply(&mut self, ops: Vec<LogOp>, sequence: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for op in ops {
            match op {
                LogOp::Append { group, entries } => {
                    for (index, term, payload) in entries {
                        self.append(group, index, term, &payload, sequence);
                        let kind = Kind::Entry;
                        records.push(Record { kind, key: group, index, term, payload });
                    }
                }
                LogOp::Vote { group, vote } => {
                    self.group(group).vote.value = Some(vote.clone());
                    records.push(Record::metadata(Kind::Vote, group, 0, vote));
                }
                LogOp::Committed { group, committed } => {
                    self.group(group).committed.value = Some(committed);
                    if !self.committed_changed.contains(&group) {
                        self.committed_changed.push(group);
                    }
                }
                LogOp::TruncateAfter { group, after } => {
                    self.truncate(group, after);
                    let kind = after.map_or(Kind::TruncateAll, |_| Kind::TruncateAfter);
                    records.push(Record::metadata(kind, group, after.unwrap_or(0), Bytes::new()));
                }
                LogOp::Purge { group, index, log_id } => {
                    // A purge below the last one changes nothing and needs no record.
                    if self.purge(group, index, &log_id) {
                        records.push(Record::metadata(Kind::Purge, group, index, log_id));
                    }
                }
                LogOp::Forget { group } => {
                    self.forget(group);
                    records.push(Record::metadata(Kind::Forget, group, 0, Bytes::new()));
                }
            }
        }
        records
    }

    pub(super) fn group(&mut self, key: GroupKey) -> &mut GroupIndex {
        self.groups.entry(key).or_default()
    }

    fn append(&mut self, key: GroupKey, index: u64, term: u64, payload: &Bytes, sequence: u64) {
        let group = self.group(key);
        if group.entries.is_empty() {
            group.first = index;
        }
        let len = u32::try_from(payload.len()).expect("the size was checked");
        group.bytes += u64::from(len);
        let bytes = Some(payload.clone());
        group.entries.push_back(LiveEntry {
            term,
            len,
            location: EntryLocation::Queued(sequence),
            bytes,
        });
    }

    pub(super) fn truncate(&mut self, key: GroupKey, after: Option<u64>) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        // Zero where `after` lies before the first entry: all of them go.
        let keep = after.map_or(0, |after| (after + 1).saturating_sub(group.first));
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).min(group.entries.len());
        let removed: Vec<LiveEntry> = group.entries.drain(keep..).collect();
        self.subtract_removed(key, removed);
    }

    /// Removes the entries up to `index`. Returns whether anything changed.
    pub(super) fn purge(&mut self, key: GroupKey, index: u64, log_id: &Bytes) -> bool {
        let group = self.group(key);
        if group.purged.value.as_ref().is_some_and(|(purged, _)| *purged >= index) {
            return false;
        }
        group.purged.value = Some((index, log_id.clone()));
        let go = (index + 1).saturating_sub(group.first);
        let go = usize::try_from(go).unwrap_or(usize::MAX).min(group.entries.len());
        let removed: Vec<LiveEntry> = group.entries.drain(..go).collect();
        // Also where no entry is left, so that `first` never points below the purge.
        group.first = group.first.max(index + 1);
        self.subtract_removed(key, removed);
        true
    }

    fn forget(&mut self, key: GroupKey) {
        self.truncate(key, None);
        self.groups.remove(&key);
        self.committed_changed.retain(|committed_changed| *committed_changed != key);
    }

    /// Subtracts removed entries from the counts of their replica, segments and cache.
    fn subtract_removed(&mut self, key: GroupKey, removed: Vec<LiveEntry>) {
        let bytes: u64 = removed.iter().map(|entry| u64::from(entry.len)).sum();
        if let Some(group) = self.groups.get_mut(&key) {
            group.bytes -= bytes;
        }
        for entry in removed {
            // A queued entry is in no segment's count yet. Its record is still written, but
            // `mark_written` will not find it any more.
            if let EntryLocation::Written(serial, _) = entry.location {
                self.cache_used -= entry.bytes.map_or(0, |bytes| bytes.len());
                self.remove_usage(serial, entry.len);
            }
        }
    }

    /// Adds a segment, before any record in it is counted.
    pub(super) fn add_segment(&mut self, segment: Arc<Segment>) {
        let usage = SegmentUsage { entries: 0, bytes: 0, segment };
        self.segments.insert(usage.segment.header.serial, usage);
    }

    fn add_usage(&mut self, serial: u64, len: u32) {
        let usage = self.segments.get_mut(&serial).expect("it is being written or read");
        usage.entries += 1;
        usage.bytes += u64::from(len);
    }

    fn remove_usage(&mut self, serial: u64, len: u32) {
        let usage = self.segments.get_mut(&serial).expect("a segment in use is not removed");
        usage.entries -= 1;
        usage.bytes -= u64::from(len);
    }

    /// Adds an entry that recovery found on disk. The entries of a replica come in order.
    pub(super) fn insert_recovered(&mut self, key: GroupKey, index: u64, entry: LiveEntry) {
        if let EntryLocation::Written(serial, _) = entry.location {
            self.add_usage(serial, entry.len);
        }
        let group = self.group(key);
        if group.entries.is_empty() {
            group.first = index;
        }
        group.bytes += u64::from(entry.len);
        group.entries.push_back(entry);
    }

    /// A record of the submission `sequence` is durable at `offset` of segment `serial`.
    pub(super) fn mark_written(
        &mut self,
        record: &Record,
        sequence: u64,
        serial: u64,
        offset: u64,
    ) {
        let Some(group) = self.groups.get_mut(&record.key) else { return };
        match record.kind {
            Kind::Vote => group.vote.serial = serial,
            Kind::Committed => group.committed.serial = serial,
            Kind::Purge => group.purged.serial = serial,
            Kind::TruncateAfter | Kind::TruncateAll | Kind::Forget => {}
            Kind::Entry => {
                // By sequence number, not by index alone: a later submission may have truncated the
                // entry and appended another one under the same index.
                let Some(entry) = group.entry(record.index) else { return };
                if entry.location == EntryLocation::Queued(sequence) {
                    entry.location = EntryLocation::Written(serial, offset);
                    let len = entry.len;
                    self.add_usage(serial, len);
                    self.cache_entry(record.key, record.index, len as usize);
                }
            }
            Kind::Compacted => {
                // The original may have been replaced while the copy was written: an entry of the
                // same index, still queued or of another term.
                let Some(entry) = group.entry(record.index) else { return };
                if let EntryLocation::Written(before, _) = entry.location
                    && entry.term == record.term
                {
                    entry.location = EntryLocation::Written(serial, offset);
                    let len = entry.len;
                    self.remove_usage(before, len);
                    self.add_usage(serial, len);
                }
            }
        }
    }

    /// Counts a payload that is kept in memory, and drops the oldest ones beyond the bounds.
    fn cache_entry(&mut self, key: GroupKey, index: u64, len: usize) {
        self.cache_used += len;
        self.cache.push_back((key, index));
        while self.cache_used > self.cache_bytes || self.cache.len() > limits::WAL_CACHE_ENTRIES {
            let Some((key, index)) = self.cache.pop_front() else { break };
            let entry = self.groups.get_mut(&key).and_then(|group| group.entry(index));
            // Only written entries: a queued one under the same index exists nowhere but here.
            if let Some(entry) = entry
                && matches!(entry.location, EntryLocation::Written(..))
                && let Some(bytes) = entry.bytes.take()
            {
                self.cache_used -= bytes.len();
            }
        }
    }

    /// Removes the entries that a rejected submission appended, and all that follow them.
    pub(super) fn undo_submission(&mut self, key: GroupKey, sequence: u64) {
        // First, and also for a replica that is gone: queued submissions compare this count.
        *self.rejections.entry(key).or_default() += 1;
        let Some(group) = self.groups.get_mut(&key) else { return };
        while let Some(entry) = group.entries.back() {
            match entry.location {
                EntryLocation::Queued(of) if of >= sequence => {
                    group.bytes -= u64::from(entry.len);
                    group.entries.pop_back();
                }
                EntryLocation::Queued(_) | EntryLocation::Written(..) => break,
            }
        }
    }

    /// Where to read the existing entries of a range: at least one if there is one, otherwise no
    /// more than fit into `max_bytes`.
    pub(super) fn sources(
        &self,
        key: GroupKey,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Vec<EntrySource> {
        let Some(group) = self.groups.get(&key) else { return Vec::new() };
        let from = range.start.max(group.first);
        let to = range.end.min(group.end());
        let mut sources = Vec::new();
        let mut bytes = 0usize;
        for index in from..to {
            let at = usize::try_from(index - group.first).expect("slots are in memory");
            let entry = &group.entries[at];
            bytes = bytes.saturating_add(entry.len as usize);
            if bytes > max_bytes && !sources.is_empty() {
                break;
            }
            sources.push(self.source(entry, index));
        }
        sources
    }

    fn source(&self, entry: &LiveEntry, index: u64) -> EntrySource {
        match (&entry.bytes, entry.location) {
            (Some(bytes), _) => {
                EntrySource::Memory(StoredEntry { index, term: entry.term, bytes: bytes.clone() })
            }
            (None, EntryLocation::Written(serial, offset)) => EntrySource::Disk {
                segment: self.segments[&serial].segment.clone(),
                offset,
                len: entry.len as usize,
                index,
                term: entry.term,
            },
            (None, EntryLocation::Queued(_)) => unreachable!("what is not written is in memory"),
        }
    }

    /// The live records of a segment, to be written again: metadata, and entries up to about
    /// `max_bytes`. The flag tells whether that is all of them.
    pub(super) fn live_records(
        &self,
        serial: u64,
        max_bytes: usize,
    ) -> (Vec<Record>, Vec<(GroupKey, EntrySource)>, bool) {
        let mut metadata = Vec::new();
        let mut entries = Vec::new();
        let mut bytes = 0usize;
        let all = self.segments[&serial].entries;
        for (key, group) in &self.groups {
            metadata.extend(group.metadata_in(*key, serial));
            // All counted entries are found. Metadata is not counted, so the other replicas must
            // still be asked for theirs.
            if entries.len() as u64 == all {
                continue;
            }
            for (at, entry) in group.entries.iter().enumerate() {
                if entry.is_in(serial) {
                    if bytes > max_bytes {
                        return (metadata, entries, false);
                    }
                    bytes += entry.len as usize;
                    entries.push((*key, self.source(entry, group.first + at as u64)));
                }
            }
        }
        (metadata, entries, true)
    }

    /// The payload bytes of each replica's live entries in a segment, without those that have none.
    pub(super) fn usage_by_group(&self, serial: u64) -> Vec<(GroupKey, u64)> {
        let bytes_in_segment = |group: &GroupIndex| -> u64 {
            let here = |entry: &&LiveEntry| entry.is_in(serial);
            group.entries.iter().filter(here).map(|entry| u64::from(entry.len)).sum()
        };
        let mut usages: Vec<(GroupKey, u64)> = self
            .groups
            .iter()
            .map(|(key, group)| (*key, bytes_in_segment(group)))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        usages.sort_unstable();
        usages
    }
}

impl GroupIndex {
    /// The metadata records whose latest copy stands in a segment.
    fn metadata_in(&self, key: GroupKey, serial: u64) -> Vec<Record> {
        let mut metadata = Vec::new();
        if let (Some(vote), true) = (&self.vote.value, self.vote.serial == serial) {
            metadata.push(Record::metadata(Kind::Vote, key, 0, vote.clone()));
        }
        if let (Some((index, log_id)), true) = (&self.purged.value, self.purged.serial == serial) {
            metadata.push(Record::metadata(Kind::Purge, key, *index, log_id.clone()));
        }
        if let (Some(committed), true) = (&self.committed.value, self.committed.serial == serial) {
            metadata.push(Record::metadata(Kind::Committed, key, 0, committed.clone()));
        }
        metadata
    }

    /// The records that make the disk agree with the index after a rejection: a truncation behind
    /// the last written entry, and the metadata as it is.
    pub(super) fn resync_records(&self, key: GroupKey) -> Vec<Record> {
        let written = self
            .entries
            .iter()
            .take_while(|entry| matches!(entry.location, EntryLocation::Written(..)));
        let count = written.count() as u64;
        // Entries that are still queued follow in the same pass, behind this truncation.
        let cut = match count {
            0 => Record::metadata(Kind::TruncateAll, key, 0, Bytes::new()),
            _ => Record::metadata(Kind::TruncateAfter, key, self.first + count - 1, Bytes::new()),
        };
        let mut records = vec![cut];
        if let Some(vote) = &self.vote.value {
            records.push(Record::metadata(Kind::Vote, key, 0, vote.clone()));
        }
        if let Some((index, log_id)) = &self.purged.value {
            records.push(Record::metadata(Kind::Purge, key, *index, log_id.clone()));
        }
        records
    }
}
