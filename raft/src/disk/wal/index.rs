//! Index: what the log holds, in memory. Pure: no file is touched here.
//!
//! It knows of every live entry its term and its place, and of the most recent ones the payload.
//! What is submitted stands here at once as `Queued`; the writer turns that into a place. It also
//! counts what still lives in each segment, which is all there is to know before one is removed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::record::{Kind, Record};
use crate::disk::segment::Segment;
use crate::disk::wal::{GroupLogState, Op, WalError};
use crate::disk::{GroupKey, StoredEntry};
use crate::limits;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryLocation {
    /// Submitted under this ticket, not written yet.
    Queued(u64),
    /// Written: segment and offset.
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

/// A value of which only the last one counts, and the segment its last record stands in (0: none).
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
    /// The index of the first slot; without slots it means nothing.
    pub(super) first: u64,
    pub(super) entries: VecDeque<LiveEntry>,
    pub(super) bytes: u64,
}

/// A replica's log reduced to what decides which entry may come next.
#[derive(Debug, Clone, Copy, Default)]
struct LogBounds {
    first: Option<u64>,
    /// `None`: any index will do.
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

    fn apply(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Append { group, entries } => {
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
            Op::Vote { .. } | Op::Committed { .. } => {}
            Op::TruncateAfter { after, .. } => {
                let end = after.map_or(0, |after| after + 1);
                if self.first.is_some_and(|first| end <= first) {
                    self.first = None;
                    self.next = self.purged.map(|index| index + 1);
                } else if self.first.is_some() {
                    self.next = self.next.map(|next| next.min(end));
                }
            }
            Op::Purge { index, .. } if self.purged.is_none_or(|purged| purged < *index) => {
                self.purged = Some(*index);
                if self.first.is_some() && self.next.is_some_and(|next| next > index + 1) {
                    self.first = self.first.map(|first| first.max(index + 1));
                } else {
                    self.first = None;
                    self.next = Some(index + 1);
                }
            }
            Op::Purge { .. } => {}
            Op::Forget { .. } => *self = Self::default(),
        }
        Ok(())
    }
}

impl GroupIndex {
    /// The index behind the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn entry(&mut self, index: u64) -> Option<&mut LiveEntry> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(at)
    }

    /// What the outside is told.
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

/// A segment and what lives in it. Marks are not counted here: they are few and looked for.
#[derive(Debug)]
pub(super) struct SegmentUsage {
    pub(super) segment: Arc<Segment>,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// An entry to be read: from memory, or from a segment.
#[derive(Debug)]
pub(super) enum EntrySource {
    Memory(StoredEntry),
    Disk { segment: Arc<Segment>, offset: u64, len: usize, index: u64, term: u64 },
}

impl EntrySource {
    /// Reads the entry, and checks that it is the one that was asked for.
    pub(super) fn read(self, key: GroupKey) -> Result<StoredEntry, WalError> {
        match self {
            Self::Memory(entry) => Ok(entry),
            Self::Disk { segment, offset, len, index, term } => {
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

/// What the log holds.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) groups: BTreeMap<GroupKey, GroupIndex>,
    pub(super) segments: BTreeMap<u64, SegmentUsage>,
    /// Replicas whose committed mark changed since it was last written.
    pub(super) committed_changed: Vec<GroupKey>,
    /// Counts a replica's refusals: what was submitted before one is refused as well. Outlives the
    /// replica, whose last submissions may still be queued.
    pub(super) rejections: BTreeMap<GroupKey, u64>,
    cache: VecDeque<(GroupKey, u64)>,
    cache_used: usize,
    cache_bytes: usize,
}

impl Index {
    pub(super) fn new(cache_bytes: usize) -> Self {
        Self { cache_bytes, ..Self::default() }
    }

    /// Whether operations may be submitted, before any of them is applied.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, ops: &[Op]) -> Result<(), String> {
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

    /// Applies what was checked, and returns the records that say so. The committed mark gives
    /// none: it rides along with the next turn.
    pub(super) fn apply(&mut self, ops: Vec<Op>, sequence: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for op in ops {
            match op {
                Op::Append { group, entries } => {
                    for (index, term, payload) in entries {
                        self.append(group, index, term, &payload, sequence);
                        let kind = Kind::Entry;
                        records.push(Record { kind, key: group, index, term, payload });
                    }
                }
                Op::Vote { group, vote } => {
                    self.group(group).vote.value = Some(vote.clone());
                    records.push(Record::metadata(Kind::Vote, group, 0, vote));
                }
                Op::Committed { group, committed } => {
                    self.group(group).committed.value = Some(committed);
                    if !self.committed_changed.contains(&group) {
                        self.committed_changed.push(group);
                    }
                }
                Op::TruncateAfter { group, after } => {
                    self.truncate(group, after);
                    let kind = after.map_or(Kind::TruncateAll, |_| Kind::TruncateAfter);
                    records.push(Record::metadata(kind, group, after.unwrap_or(0), Bytes::new()));
                }
                Op::Purge { group, index, log_id } => {
                    if self.purge(group, index, &log_id) {
                        records.push(Record::metadata(Kind::Purge, group, index, log_id));
                    }
                }
                Op::Forget { group } => {
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
        let keep = after.map_or(0, |after| (after + 1).saturating_sub(group.first));
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).min(group.entries.len());
        let removed: Vec<LiveEntry> = group.entries.drain(keep..).collect();
        self.subtract_removed(key, removed);
    }

    /// Whether it changed anything.
    pub(super) fn purge(&mut self, key: GroupKey, index: u64, log_id: &Bytes) -> bool {
        let group = self.group(key);
        if group.purged.value.as_ref().is_some_and(|(purged, _)| *purged >= index) {
            return false;
        }
        group.purged.value = Some((index, log_id.clone()));
        let go = (index + 1).saturating_sub(group.first);
        let go = usize::try_from(go).unwrap_or(usize::MAX).min(group.entries.len());
        let removed: Vec<LiveEntry> = group.entries.drain(..go).collect();
        group.first = group.first.max(index + 1);
        self.subtract_removed(key, removed);
        true
    }

    fn forget(&mut self, key: GroupKey) {
        self.truncate(key, None);
        self.groups.remove(&key);
        self.committed_changed.retain(|committed_changed| *committed_changed != key);
    }

    /// Takes removed slots out of the counts.
    fn subtract_removed(&mut self, key: GroupKey, removed: Vec<LiveEntry>) {
        let bytes: u64 = removed.iter().map(|entry| u64::from(entry.len)).sum();
        if let Some(group) = self.groups.get_mut(&key) {
            group.bytes -= bytes;
        }
        for entry in removed {
            if let EntryLocation::Written(serial, _) = entry.location {
                self.cache_used -= entry.bytes.map_or(0, |bytes| bytes.len());
                self.remove_usage(serial, entry.len);
            }
        }
    }

    /// A segment that records may be written to, or were found in.
    pub(super) fn add_segment(&mut self, segment: Arc<Segment>) {
        let oldest_segment_usage = SegmentUsage { entries: 0, bytes: 0, segment };
        self.segments.insert(oldest_segment_usage.segment.header.serial, oldest_segment_usage);
    }

    fn add_usage(&mut self, serial: u64, len: u32) {
        let oldest_segment_usage =
            self.segments.get_mut(&serial).expect("it is being written or read");
        oldest_segment_usage.entries += 1;
        oldest_segment_usage.bytes += u64::from(len);
    }

    fn remove_usage(&mut self, serial: u64, len: u32) {
        let oldest_segment_usage =
            self.segments.get_mut(&serial).expect("a segment in use is not removed");
        oldest_segment_usage.entries -= 1;
        oldest_segment_usage.bytes -= u64::from(len);
    }

    /// Takes in an entry found on disk. Entries of a group come in order.
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

    /// A record of this ticket now stands at `offset` of segment `serial`.
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
                let Some(entry) = group.entry(record.index) else { return };
                if entry.location == EntryLocation::Queued(sequence) {
                    entry.location = EntryLocation::Written(serial, offset);
                    let len = entry.len;
                    self.add_usage(serial, len);
                    self.cache_entry(record.key, record.index, len as usize);
                }
            }
            Kind::Compacted => {
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

    /// Counts a payload in memory, and lets the oldest ones go.
    fn cache_entry(&mut self, key: GroupKey, index: u64, len: usize) {
        self.cache_used += len;
        self.cache.push_back((key, index));
        while self.cache_used > self.cache_bytes || self.cache.len() > limits::WAL_CACHE_ENTRIES {
            let Some((key, index)) = self.cache.pop_front() else { break };
            let entry = self.groups.get_mut(&key).and_then(|group| group.entry(index));
            if let Some(entry) = entry
                && matches!(entry.location, EntryLocation::Written(..))
                && let Some(bytes) = entry.bytes.take()
            {
                self.cache_used -= bytes.len();
            }
        }
    }

    /// Takes back what a refused submission appended, and all that was appended on top of it.
    pub(super) fn undo_submission(&mut self, key: GroupKey, sequence: u64) {
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

    /// The entries of a range that exist, at least one if there is one, and where to read them.
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

    /// What still lives in a segment, as records that can be written again: marks first, then
    /// entries, up to about `max_bytes`. The flag says whether that is all of it.
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
            if entries.len() as u64 == all {
                continue;
            }
            for (at, entry) in group.entries.iter().enumerate() {
                if matches!(entry.location, EntryLocation::Written(in_serial, _) if in_serial == serial)
                {
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

    /// The bytes each replica's entries have in a segment.
    pub(super) fn usage_by_group(&self, serial: u64) -> Vec<(GroupKey, u64)> {
        let bytes_in_segment = |group: &GroupIndex| -> u64 {
            let here = |entry: &&LiveEntry| matches!(entry.location, EntryLocation::Written(at, _) if at == serial);
            group.entries.iter().filter(here).map(|entry| u64::from(entry.len)).sum()
        };
        let mut usage_by_group: Vec<(GroupKey, u64)> = self
            .groups
            .iter()
            .map(|(key, group)| (*key, bytes_in_segment(group)))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        usage_by_group.sort_unstable();
        usage_by_group
    }
}

impl GroupIndex {
    /// The marks whose last record stands in a segment.
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

    /// What must be written after a refusal, so that the disk says again what memory says: nothing
    /// behind the last written entry, and the marks as they are.
    pub(super) fn resync_records(&self, key: GroupKey) -> Vec<Record> {
        let mark_written = self
            .entries
            .iter()
            .take_while(|entry| matches!(entry.location, EntryLocation::Written(..)));
        let count = mark_written.count() as u64;
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
