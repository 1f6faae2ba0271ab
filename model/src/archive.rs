//! Archive: what purges and resets took out of a module, so that it can come back.
//!
//! Bounded in entries, records and bytes by dropping the oldest; the newest entry is always whole.
//! Entries never change, so that a checkpoint writes each of them once.

use std::sync::Arc;

use imbl::Vector;

use crate::codec;
use crate::limits::{
    ALLOCATION_BYTES, ARCHIVE_BYTES_MAX, ARCHIVE_ENTRIES_MAX, ARCHIVE_RECORDS_MAX,
};
use crate::read::ArchiveEntry;

/// The newest entries of one branch:module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Archive {
    /// Oldest first.
    entries: Vector<SizedEntry>,
}

/// An entry with its size.
#[derive(Debug, Clone)]
struct SizedEntry {
    entry: Arc<ArchiveEntry>,
    records: u64,
    bytes: u64,
}

impl SizedEntry {
    fn of(entry: Arc<ArchiveEntry>) -> Self {
        let records = || entry.tables.iter().flat_map(|table| &table.records);
        // Counted once, when it comes: entries never change.
        let bytes: usize = records().map(|record| codec::bare(&**record).len()).sum();
        Self { records: records().count() as u64, bytes: bytes as u64, entry }
    }
}

impl Archive {
    /// Adds the newest entry and drops the oldest ones that exceed the bounds with it.
    pub(crate) fn push(&mut self, entry: Arc<ArchiveEntry>) {
        self.restore(entry);
        // The newest stays whatever its size: without it a purge of a large module could not be
        // undone.
        while self.entries.len() > 1 && self.is_too_large() {
            self.entries.pop_front();
        }
    }

    /// Puts the next entry back, as a checkpoint names it: it passed the bounds when it was added.
    pub(crate) fn restore(&mut self, entry: Arc<ArchiveEntry>) {
        self.entries.push_back(SizedEntry::of(entry));
    }

    /// How many records its entries hold in all.
    pub(crate) fn records(&self) -> u64 {
        self.entries.iter().map(|entry| entry.records).sum()
    }

    /// About how many bytes of memory its entries take.
    pub(crate) fn memory_bytes(&self) -> u64 {
        // As they are written they take about a third of what they take as values.
        self.entries.iter().map(|entry| 3 * entry.bytes + entry.records * ALLOCATION_BYTES).sum()
    }

    fn is_too_large(&self) -> bool {
        let sum = |size: fn(&SizedEntry) -> u64| self.entries.iter().map(size).sum::<u64>();
        self.entries.len() > ARCHIVE_ENTRIES_MAX
            || sum(|entries| entries.records) > ARCHIVE_RECORDS_MAX
            || sum(|entries| entries.bytes) > ARCHIVE_BYTES_MAX
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<ArchiveEntry>> {
        self.iter().find(|entry| entry.id == id)
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<ArchiveEntry>> {
        self.entries.iter().map(|entries| &entries.entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Revision, TableName, Timestamp};
    use crate::read::ArchivedTable;
    use crate::testing::object;

    /// An entry of so many records of about so many bytes.
    fn entry(id: usize, records: usize, bytes: usize) -> Arc<ArchiveEntry> {
        let record = Arc::new(object(&format!(r#"{{"id":"{}"}}"#, "x".repeat(bytes))));
        Arc::new(ArchiveEntry {
            id: id.to_string(),
            at: Timestamp(0),
            reason: String::new(),
            requested_by: None,
            revision: Revision(1),
            tables: vec![ArchivedTable {
                table: TableName::parse("t").unwrap(),
                key_fields: [Arc::from("id")].into(),
                first_keys: Vec::new(),
                records: vec![record; records],
            }],
        })
    }

    fn ids(archive: &Archive) -> Vec<&str> {
        archive.iter().map(|entry| entry.id.as_str()).collect()
    }

    #[test]
    fn the_newest_entries_are_kept() {
        let mut archive = Archive::default();
        (0..ARCHIVE_ENTRIES_MAX + 2).for_each(|id| archive.push(entry(id, 1, 1)));
        assert_eq!(archive.iter().count(), ARCHIVE_ENTRIES_MAX);
        assert_eq!(ids(&archive)[0], "2");
        assert!(archive.get("1").is_none() && archive.get("51").is_some());
    }

    #[test]
    fn the_oldest_make_room_for_the_newest_which_is_always_whole() {
        let mut archive = Archive::default();
        (0..3).for_each(|id| archive.push(entry(id, 40_000, 1)));
        assert_eq!(ids(&archive), ["1", "2"], "three would be too many records");
        archive.push(entry(3, 40, 1_000_000));
        assert_eq!(ids(&archive), ["3"], "too large by itself, and kept");
        archive.push(entry(4, 1, 1));
        assert_eq!(ids(&archive), ["4"]);
    }
}
