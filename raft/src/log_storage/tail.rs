//! Tail: the last entries of a group, decoded, so that apply and followers that keep up never wait
//! for the disk.
//!
//! Promise: it returns entries that were appended and not truncated since, without gaps. It is
//! bounded by [`limits::TAIL_BYTES`], except that the last entry always stays.

use std::collections::VecDeque;
use std::ops::Range;

use openraft::EntryPayload;

use crate::consensus::{EntryData, ReplicatedEntry};
use crate::limits;

/// The last entries, decoded.
#[derive(Default)]
pub(super) struct Tail {
    entries: VecDeque<ReplicatedEntry>,
    bytes: usize,
}

impl Tail {
    pub(super) fn append(&mut self, entries: Vec<ReplicatedEntry>) {
        for entry in entries {
            let follows = self.entries.back().map(|last| last.log_id.index + 1);
            // After a checkpoint from another replica the log continues behind a gap.
            if follows.is_some_and(|index| index != entry.log_id.index) {
                self.entries.clear();
                self.bytes = 0;
            }
            self.bytes += size(&entry);
            self.entries.push_back(entry);
        }
        while self.bytes > limits::TAIL_BYTES && self.entries.len() > 1 {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= size(&entry);
        }
    }

    pub(super) fn truncate_after(&mut self, after: Option<u64>) {
        let stays =
            |entry: &ReplicatedEntry| after.is_some_and(|after| entry.log_id.index <= after);
        while self.entries.back().is_some_and(|entry| !stays(entry)) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= size(&entry);
            }
        }
    }

    pub(super) fn purge(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= index) {
            self.drop_first();
        }
    }

    /// The first entries of a range: at least one, otherwise no more than fit into `max_bytes`.
    /// `None`: the first one is not in memory.
    pub(super) fn get(&self, range: &Range<u64>, max_bytes: usize) -> Option<Vec<ReplicatedEntry>> {
        let first = self.entries.front()?.log_id.index;
        let skip = usize::try_from(range.start.checked_sub(first)?).ok()?;
        let mut found: Vec<ReplicatedEntry> = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.iter().skip(skip) {
            bytes += size(entry);
            if entry.log_id.index >= range.end || (!found.is_empty() && bytes > max_bytes) {
                break;
            }
            found.push(entry.clone());
        }
        (!found.is_empty()).then_some(found)
    }
}

/// What an entry costs in memory, roughly.
fn size(entry: &ReplicatedEntry) -> usize {
    const ENTRY: usize = 64;
    match &entry.payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY,
        EntryPayload::Normal(EntryData(bytes)) => ENTRY + bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::consensus::log_id;

    fn entry(index: u64, bytes: &[u8]) -> ReplicatedEntry {
        ReplicatedEntry::new_normal(log_id(1, index), EntryData(Bytes::copy_from_slice(bytes)))
    }

    fn indexes(entries: Option<Vec<ReplicatedEntry>>) -> Option<Vec<u64>> {
        entries.map(|entries| entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn tail_returns_a_contiguous_prefix_or_nothing() {
        let mut tail = Tail::default();
        assert!(tail.get(&(0..9), usize::MAX).is_none());
        tail.append((5..9).map(|index| entry(index, b"four")).collect());
        assert_eq!(indexes(tail.get(&(6..8), usize::MAX)), Some(vec![6, 7]));
        assert_eq!(indexes(tail.get(&(5..99), usize::MAX)), Some(vec![5, 6, 7, 8]));
        assert_eq!(indexes(tail.get(&(5..9), 1)), Some(vec![5]), "at least one");
        assert_eq!(indexes(tail.get(&(4..9), usize::MAX)), None, "4 is not here");
        assert_eq!(indexes(tail.get(&(9..10), usize::MAX)), None, "9 is not here");
        tail.truncate_after(Some(6));
        tail.purge(5);
        assert_eq!(indexes(tail.get(&(6..9), usize::MAX)), Some(vec![6]));
        tail.append(vec![entry(20, b"a gap empties it")]);
        assert_eq!(indexes(tail.get(&(6..9), usize::MAX)), None);
        tail.truncate_after(None);
        assert_eq!(tail.bytes, 0);
    }

    #[test]
    fn tail_is_bounded_by_bytes() {
        let mut tail = Tail::default();
        let big = vec![0; limits::TAIL_BYTES / 4];
        tail.append((0..10).map(|index| entry(index, &big)).collect());
        assert!(tail.bytes <= limits::TAIL_BYTES);
        assert_eq!(tail.entries.back().unwrap().log_id.index, 9);
        tail.append(vec![entry(10, &vec![0; limits::TAIL_BYTES * 2])]);
        assert_eq!(tail.entries.len(), 1, "the last one always stays");
    }
}
