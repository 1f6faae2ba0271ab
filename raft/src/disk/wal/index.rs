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
use crate::disk::wal::{GroupLog, Op, WalError};
use crate::disk::{Entry, GroupKey};
use crate::limits;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Submitted under this ticket, not written yet.
    Queued(u64),
    /// Written: segment and offset.
    At(u64, u64),
}

/// One live entry.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) term: u64,
    pub(super) len: u32,
    pub(super) place: Place,
    pub(super) bytes: Option<Bytes>,
}

/// A value of which only the last one counts, and the segment its last record stands in (0: none).
#[derive(Debug, Clone, Default)]
pub(super) struct Mark<T> {
    pub(super) value: Option<T>,
    pub(super) at: u64,
}

/// One replica's log.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) vote: Mark<Bytes>,
    pub(super) committed: Mark<Bytes>,
    pub(super) purged: Mark<(u64, Bytes)>,
    /// The index of the first slot; without slots it means nothing.
    pub(super) first: u64,
    pub(super) slots: VecDeque<Slot>,
    pub(super) bytes: u64,
}

/// A replica's log reduced to what decides which entry may come next.
#[derive(Debug, Clone, Copy, Default)]
struct Outline {
    first: Option<u64>,
    /// `None`: any index will do.
    next: Option<u64>,
    purged: Option<u64>,
}

impl Outline {
    fn of(group: &Group) -> Self {
        let purged = group.purged.value.as_ref().map(|(index, _)| *index);
        match group.slots.is_empty() {
            true => Self { first: None, next: purged.map(|index| index + 1), purged },
            false => Self { first: Some(group.first), next: Some(group.end()), purged },
        }
    }

    fn apply(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Append { group, entries } => {
                for (index, _, bytes) in entries {
                    if let Some(due) = self.next.filter(|due| due != index) {
                        return Err(format!("{group}: entry {index} comes where {due} is due"));
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

impl Group {
    /// The index behind the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn slot(&mut self, index: u64) -> Option<&mut Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)
    }

    /// What the outside is told.
    pub(super) fn log(&self) -> GroupLog {
        GroupLog {
            vote: self.vote.value.clone(),
            committed: self.committed.value.clone(),
            purged: self.purged.value.clone(),
            first: (!self.slots.is_empty()).then_some(self.first),
            last: self.slots.back().map(|slot| (self.end() - 1, slot.term)),
        }
    }
}

/// A segment and what lives in it. Marks are not counted here: they are few and looked for.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) segment: Arc<Segment>,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// An entry to be read: from memory, or from a segment.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Entry),
    Disk { segment: Arc<Segment>, offset: u64, len: usize, index: u64, term: u64 },
}

impl Source {
    /// Reads the entry, and checks that it is the one that was asked for.
    pub(super) fn read(self, key: GroupKey) -> Result<Entry, WalError> {
        match self {
            Self::Memory(entry) => Ok(entry),
            Self::Disk { segment, offset, len, index, term } => {
                let record = segment.record(offset, len)?;
                let is_it = (record.key, record.index, record.term) == (key, index, term);
                if !is_it || !matches!(record.kind, Kind::Entry | Kind::Carried) {
                    return Err(WalError::Corrupt {
                        file: segment.path.clone(),
                        offset,
                        reason: format!("not entry {index} of {key}"),
                    });
                }
                Ok(Entry { index, term, bytes: record.payload })
            }
        }
    }
}

/// What the log holds.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) groups: BTreeMap<GroupKey, Group>,
    pub(super) segments: BTreeMap<u64, Holding>,
    /// Replicas whose committed mark changed since it was last written.
    pub(super) advised: Vec<GroupKey>,
    /// Counts a replica's refusals: what was submitted before one is refused as well. Outlives the
    /// replica, whose last submissions may still be queued.
    pub(super) refusals: BTreeMap<GroupKey, u64>,
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
        let mut outlines: Vec<(GroupKey, Outline)> = Vec::new();
        for op in ops {
            let key = op.group();
            let known = outlines.iter().position(|(of, _)| *of == key);
            let at = known.unwrap_or_else(|| {
                let outline = self.groups.get(&key).map(Outline::of).unwrap_or_default();
                outlines.push((key, outline));
                outlines.len() - 1
            });
            outlines[at].1.apply(op)?;
        }
        Ok(())
    }

    /// Applies what was checked, and returns the records that say so. The committed mark gives
    /// none: it rides along with the next turn.
    pub(super) fn apply(&mut self, ops: Vec<Op>, ticket: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for op in ops {
            match op {
                Op::Append { group, entries } => {
                    for (index, term, payload) in entries {
                        self.append(group, index, term, &payload, ticket);
                        let kind = Kind::Entry;
                        records.push(Record { kind, key: group, index, term, payload });
                    }
                }
                Op::Vote { group, vote } => {
                    self.group(group).vote.value = Some(vote.clone());
                    records.push(Record::mark(Kind::Vote, group, 0, vote));
                }
                Op::Committed { group, committed } => {
                    self.group(group).committed.value = Some(committed);
                    if !self.advised.contains(&group) {
                        self.advised.push(group);
                    }
                }
                Op::TruncateAfter { group, after } => {
                    self.truncate(group, after);
                    let kind = after.map_or(Kind::TruncateAll, |_| Kind::TruncateAfter);
                    records.push(Record::mark(kind, group, after.unwrap_or(0), Bytes::new()));
                }
                Op::Purge { group, index, log_id } => {
                    if self.purge(group, index, &log_id) {
                        records.push(Record::mark(Kind::Purge, group, index, log_id));
                    }
                }
                Op::Forget { group } => {
                    self.forget(group);
                    records.push(Record::mark(Kind::Forget, group, 0, Bytes::new()));
                }
            }
        }
        records
    }

    pub(super) fn group(&mut self, key: GroupKey) -> &mut Group {
        self.groups.entry(key).or_default()
    }

    fn append(&mut self, key: GroupKey, index: u64, term: u64, payload: &Bytes, ticket: u64) {
        let group = self.group(key);
        if group.slots.is_empty() {
            group.first = index;
        }
        let len = u32::try_from(payload.len()).expect("the size was checked");
        group.bytes += u64::from(len);
        let bytes = Some(payload.clone());
        group.slots.push_back(Slot { term, len, place: Place::Queued(ticket), bytes });
    }

    pub(super) fn truncate(&mut self, key: GroupKey, after: Option<u64>) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        let keep = after.map_or(0, |after| (after + 1).saturating_sub(group.first));
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).min(group.slots.len());
        let gone: Vec<Slot> = group.slots.drain(keep..).collect();
        self.release(key, gone);
    }

    /// Whether it changed anything.
    pub(super) fn purge(&mut self, key: GroupKey, index: u64, log_id: &Bytes) -> bool {
        let group = self.group(key);
        if group.purged.value.as_ref().is_some_and(|(purged, _)| *purged >= index) {
            return false;
        }
        group.purged.value = Some((index, log_id.clone()));
        let go = (index + 1).saturating_sub(group.first);
        let go = usize::try_from(go).unwrap_or(usize::MAX).min(group.slots.len());
        let gone: Vec<Slot> = group.slots.drain(..go).collect();
        group.first = group.first.max(index + 1);
        self.release(key, gone);
        true
    }

    fn forget(&mut self, key: GroupKey) {
        self.truncate(key, None);
        self.groups.remove(&key);
        self.advised.retain(|advised| *advised != key);
    }

    /// Takes removed slots out of the counts.
    fn release(&mut self, key: GroupKey, gone: Vec<Slot>) {
        let bytes: u64 = gone.iter().map(|slot| u64::from(slot.len)).sum();
        if let Some(group) = self.groups.get_mut(&key) {
            group.bytes -= bytes;
        }
        for slot in gone {
            if let Place::At(serial, _) = slot.place {
                self.cache_used -= slot.bytes.map_or(0, |bytes| bytes.len());
                self.unhold(serial, slot.len);
            }
        }
    }

    /// A segment that records may be written to, or were found in.
    pub(super) fn add_segment(&mut self, segment: Arc<Segment>) {
        let holding = Holding { entries: 0, bytes: 0, segment };
        self.segments.insert(holding.segment.head.serial, holding);
    }

    fn hold(&mut self, serial: u64, len: u32) {
        let holding = self.segments.get_mut(&serial).expect("it is being written or read");
        holding.entries += 1;
        holding.bytes += u64::from(len);
    }

    fn unhold(&mut self, serial: u64, len: u32) {
        let holding = self.segments.get_mut(&serial).expect("a segment in use is not removed");
        holding.entries -= 1;
        holding.bytes -= u64::from(len);
    }

    /// Takes in an entry found on disk. Entries of a group come in order.
    pub(super) fn found(&mut self, key: GroupKey, index: u64, slot: Slot) {
        if let Place::At(serial, _) = slot.place {
            self.hold(serial, slot.len);
        }
        let group = self.group(key);
        if group.slots.is_empty() {
            group.first = index;
        }
        group.bytes += u64::from(slot.len);
        group.slots.push_back(slot);
    }

    /// A record of this ticket now stands at `offset` of segment `serial`.
    pub(super) fn written(&mut self, record: &Record, ticket: u64, serial: u64, offset: u64) {
        let Some(group) = self.groups.get_mut(&record.key) else { return };
        match record.kind {
            Kind::Vote => group.vote.at = serial,
            Kind::Committed => group.committed.at = serial,
            Kind::Purge => group.purged.at = serial,
            Kind::TruncateAfter | Kind::TruncateAll | Kind::Forget => {}
            Kind::Entry => {
                let Some(slot) = group.slot(record.index) else { return };
                if slot.place == Place::Queued(ticket) {
                    slot.place = Place::At(serial, offset);
                    let len = slot.len;
                    self.hold(serial, len);
                    self.cached(record.key, record.index, len as usize);
                }
            }
            Kind::Carried => {
                let Some(slot) = group.slot(record.index) else { return };
                if let Place::At(before, _) = slot.place
                    && slot.term == record.term
                {
                    slot.place = Place::At(serial, offset);
                    let len = slot.len;
                    self.unhold(before, len);
                    self.hold(serial, len);
                }
            }
        }
    }

    /// Counts a payload in memory, and lets the oldest ones go.
    fn cached(&mut self, key: GroupKey, index: u64, len: usize) {
        self.cache_used += len;
        self.cache.push_back((key, index));
        while self.cache_used > self.cache_bytes || self.cache.len() > limits::WAL_CACHE_ENTRIES {
            let Some((key, index)) = self.cache.pop_front() else { break };
            let slot = self.groups.get_mut(&key).and_then(|group| group.slot(index));
            if let Some(slot) = slot
                && matches!(slot.place, Place::At(..))
                && let Some(bytes) = slot.bytes.take()
            {
                self.cache_used -= bytes.len();
            }
        }
    }

    /// Takes back what a refused submission appended, and all that was appended on top of it.
    pub(super) fn take_back(&mut self, key: GroupKey, ticket: u64) {
        *self.refusals.entry(key).or_default() += 1;
        let Some(group) = self.groups.get_mut(&key) else { return };
        while let Some(slot) = group.slots.back() {
            match slot.place {
                Place::Queued(of) if of >= ticket => {
                    group.bytes -= u64::from(slot.len);
                    group.slots.pop_back();
                }
                Place::Queued(_) | Place::At(..) => break,
            }
        }
    }

    /// The entries of a range that exist, at least one if there is one, and where to read them.
    pub(super) fn sources(
        &self,
        key: GroupKey,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Vec<Source> {
        let Some(group) = self.groups.get(&key) else { return Vec::new() };
        let from = range.start.max(group.first);
        let to = range.end.min(group.end());
        let mut sources = Vec::new();
        let mut bytes = 0usize;
        for index in from..to {
            let at = usize::try_from(index - group.first).expect("slots are in memory");
            let slot = &group.slots[at];
            bytes = bytes.saturating_add(slot.len as usize);
            if bytes > max_bytes && !sources.is_empty() {
                break;
            }
            sources.push(self.source(slot, index));
        }
        sources
    }

    fn source(&self, slot: &Slot, index: u64) -> Source {
        match (&slot.bytes, slot.place) {
            (Some(bytes), _) => {
                Source::Memory(Entry { index, term: slot.term, bytes: bytes.clone() })
            }
            (None, Place::At(serial, offset)) => Source::Disk {
                segment: self.segments[&serial].segment.clone(),
                offset,
                len: slot.len as usize,
                index,
                term: slot.term,
            },
            (None, Place::Queued(_)) => unreachable!("what is not written is in memory"),
        }
    }

    /// What still lives in a segment, as records that can be written again: marks first, then
    /// entries, up to about `max_bytes`. The flag says whether that is all of it.
    pub(super) fn living(
        &self,
        serial: u64,
        max_bytes: usize,
    ) -> (Vec<Record>, Vec<(GroupKey, Source)>, bool) {
        let mut marks = Vec::new();
        let mut entries = Vec::new();
        let mut bytes = 0usize;
        let all = self.segments[&serial].entries;
        for (key, group) in &self.groups {
            marks.extend(group.marks_at(*key, serial));
            if entries.len() as u64 == all {
                continue;
            }
            for (at, slot) in group.slots.iter().enumerate() {
                if matches!(slot.place, Place::At(in_serial, _) if in_serial == serial) {
                    if bytes > max_bytes {
                        return (marks, entries, false);
                    }
                    bytes += slot.len as usize;
                    entries.push((*key, self.source(slot, group.first + at as u64)));
                }
            }
        }
        (marks, entries, true)
    }

    /// The bytes each replica's entries have in a segment.
    pub(super) fn holders(&self, serial: u64) -> Vec<(GroupKey, u64)> {
        let held = |group: &Group| -> u64 {
            let here = |slot: &&Slot| matches!(slot.place, Place::At(at, _) if at == serial);
            group.slots.iter().filter(here).map(|slot| u64::from(slot.len)).sum()
        };
        let mut holders: Vec<(GroupKey, u64)> = self
            .groups
            .iter()
            .map(|(key, group)| (*key, held(group)))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        holders.sort_unstable();
        holders
    }
}

impl Group {
    /// The marks whose last record stands in a segment.
    fn marks_at(&self, key: GroupKey, serial: u64) -> Vec<Record> {
        let mut marks = Vec::new();
        if let (Some(vote), true) = (&self.vote.value, self.vote.at == serial) {
            marks.push(Record::mark(Kind::Vote, key, 0, vote.clone()));
        }
        if let (Some((index, log_id)), true) = (&self.purged.value, self.purged.at == serial) {
            marks.push(Record::mark(Kind::Purge, key, *index, log_id.clone()));
        }
        if let (Some(committed), true) = (&self.committed.value, self.committed.at == serial) {
            marks.push(Record::mark(Kind::Committed, key, 0, committed.clone()));
        }
        marks
    }

    /// What must be written after a refusal, so that the disk says again what memory says: nothing
    /// behind the last written entry, and the marks as they are.
    pub(super) fn restated(&self, key: GroupKey) -> Vec<Record> {
        let written = self.slots.iter().take_while(|slot| matches!(slot.place, Place::At(..)));
        let count = written.count() as u64;
        let cut = match count {
            0 => Record::mark(Kind::TruncateAll, key, 0, Bytes::new()),
            _ => Record::mark(Kind::TruncateAfter, key, self.first + count - 1, Bytes::new()),
        };
        let mut records = vec![cut];
        if let Some(vote) = &self.vote.value {
            records.push(Record::mark(Kind::Vote, key, 0, vote.clone()));
        }
        if let Some((index, log_id)) = &self.purged.value {
            records.push(Record::mark(Kind::Purge, key, *index, log_id.clone()));
        }
        records
    }
}
