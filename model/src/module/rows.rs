//! Rows: one table's records, in the order they came in, found by key and by index.
//!
//! A record's place is its ordinal, given once and never again: a record changed keeps it, one
//! removed and inserted anew comes last; one that a replacement moves is remembered to have moved.
//! Cursors and pages rest on that, also where the row a cursor names was removed lately.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::ids::RecordKey;
use crate::limits::{REMOVED_NAMES_MAX, ROW_BYTES};
use crate::module::index::{Index, IndexFields};
use crate::module::removed::{Removed, has_id};
use crate::value::Object;

/// One record in its place.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) key: RecordKey,
    pub(crate) record: Arc<Object>,
}

/// About how many bytes of memory a row takes.
fn row_bytes(key: &RecordKey, record: &Object) -> u64 {
    ROW_BYTES + key.as_str().len() as u64 + record.memory_bytes()
}

/// One table's records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    next: u64,
    by_ordinal: OrdMap<u64, Row>,
    by_key: OrdMap<RecordKey, u64>,
    indexes: Vec<Index>,
    removed: Removed,
    /// About how many bytes of memory its rows take: kept with each change.
    bytes: u64,
    /// Whether another branch holds them, and they count there; until they are changed.
    is_shared: bool,
}

impl Rows {
    /// The same rows, held with another branch.
    pub(crate) fn shared(&self) -> Self {
        Self { is_shared: true, ..self.clone() }
    }

    /// Whether both hold the very same rows.
    #[cfg(test)]
    pub(crate) fn holds_with(&self, other: &Self) -> bool {
        self.by_ordinal.ptr_eq(&other.by_ordinal)
    }

    /// An empty table whose next record gets this ordinal.
    pub(crate) fn starting_at(next: u64) -> Self {
        Self { next, ..Self::default() }
    }

    pub(crate) fn get(&self, key: &RecordKey) -> Option<&Arc<Object>> {
        self.by_ordinal.get(self.by_key.get(key)?).map(|row| &row.record)
    }

    /// No rows, the next ordinal as it was, and the newest of them remembered as removed.
    pub(crate) fn emptied(&self) -> Self {
        let mut removed = self.removed.clone();
        let skipped = self.len().saturating_sub(REMOVED_NAMES_MAX);
        for (ordinal, row) in self.iter().skip(skipped) {
            removed.remember(ordinal, &row.key, &row.record);
        }
        Self { next: self.next, removed, ..Self::default() }
    }

    /// A record with its key as it is stored.
    pub(crate) fn row(&self, key: &RecordKey) -> Option<&Row> {
        self.by_ordinal.get(self.by_key.get(key)?)
    }

    pub(crate) fn ordinal(&self, key: &RecordKey) -> Option<u64> {
        self.by_key.get(key).copied()
    }

    /// The ordinal of the row a client means that names it by its key or by an id, also one that
    /// was removed lately.
    pub(crate) fn ordinal_named(&self, key: Option<&RecordKey>, name: &str) -> Option<u64> {
        let there = key.and_then(|key| self.ordinal(key));
        let removed = || {
            let by_key = key.and_then(|key| self.removed.ordinal(key.as_str()));
            by_key.or_else(|| self.removed.ordinal(name))
        };
        let by_id = || self.iter().find(|(_, row)| has_id(&row.record, name));
        there.or_else(removed).or_else(|| by_id().map(|(ordinal, _)| ordinal))
    }

    /// The names and places of the rows removed lately, the first removed in front.
    pub(crate) fn removed(&self) -> &Removed {
        &self.removed
    }

    pub(crate) fn put(&mut self, key: RecordKey, record: Arc<Object>, fields: &[IndexFields]) {
        self.is_shared = false;
        self.indexes.resize_with(fields.len(), Index::default);
        let ordinal = match self.by_key.get(&key) {
            Some(&ordinal) => ordinal,
            None => {
                self.by_key.insert(key.clone(), self.next);
                self.removed.forget(&key, &record);
                self.next += 1;
                self.next - 1
            }
        };
        let before = self.by_ordinal.get(&ordinal).map(|row| Arc::clone(&row.record));
        for (index, fields) in self.indexes.iter_mut().zip(fields) {
            index.change(&key, fields, before.as_deref(), Some(&record));
        }
        self.bytes += row_bytes(&key, &record);
        self.bytes -= before.map_or(0, |before| row_bytes(&key, &before));
        self.by_ordinal.insert(ordinal, Row { key, record });
    }

    /// Puts a record last that stands elsewhere: who names its old place means it all the same.
    pub(crate) fn move_last(
        &mut self,
        key: &RecordKey,
        record: Arc<Object>,
        fields: &[IndexFields],
    ) {
        let from = self.ordinal(key);
        self.remove(key, fields);
        self.put(key.clone(), record, fields);
        if let Some(from) = from {
            self.removed.push(Arc::clone(&key.0), from);
        }
    }

    /// The ordinal of a row that was moved since it stood at this one.
    pub(crate) fn moved_from(&self, key: &RecordKey, ordinal: u64) -> Option<u64> {
        let now = self.ordinal(key)?;
        self.removed.ordinal(key.as_str()).filter(|from| *from >= ordinal).map(|_| now)
    }

    pub(crate) fn remove(
        &mut self,
        key: &RecordKey,
        fields: &[IndexFields],
    ) -> Option<Arc<Object>> {
        let ordinal = self.by_key.remove(key)?;
        self.is_shared = false;
        let row = self.by_ordinal.remove(&ordinal).expect("every key has its place");
        for (index, fields) in self.indexes.iter_mut().zip(fields) {
            index.change(key, fields, Some(&row.record), None);
        }
        self.bytes -= row_bytes(key, &row.record);
        self.removed.remember(ordinal, key, &row.record);
        Some(row.record)
    }

    /// Puts a record back at the ordinal a checkpoint names. Indexes are built afterwards.
    pub(crate) fn restore(&mut self, ordinal: u64, row: Row) {
        self.by_key.insert(row.key.clone(), ordinal);
        self.next = self.next.max(ordinal + 1);
        self.bytes += row_bytes(&row.key, &row.record);
        self.by_ordinal.insert(ordinal, row);
    }

    /// Remembers a removed row again, as a checkpoint names it; in the order they were removed.
    pub(crate) fn restore_removed(&mut self, name: Arc<str>, ordinal: u64) {
        self.removed.push(name, ordinal);
    }

    /// Builds the indexes over the records there are.
    pub(crate) fn index(&mut self, fields: &[IndexFields]) {
        self.indexes.clear();
        for fields in fields {
            let mut index = Index::default();
            for row in self.by_ordinal.values() {
                index.change(&row.key, fields, None, Some(&row.record));
            }
            self.indexes.push(index);
        }
    }

    /// The index at this place of the table's relations; `None` while the table never had a row.
    pub(crate) fn index_at(&self, place: usize) -> Option<&Index> {
        self.indexes.get(place)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_ordinal.len()
    }

    /// About how many bytes of memory its rows take; none where another branch holds them.
    pub(crate) fn memory_bytes(&self) -> u64 {
        if self.is_shared { 0 } else { self.bytes }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// In insertion order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Row)> {
        self.by_ordinal.iter().map(|(ordinal, row)| (*ordinal, row))
    }

    /// In insertion order, those after an ordinal.
    pub(crate) fn after(&self, ordinal: u64) -> impl DoubleEndedIterator<Item = &Row> {
        self.by_ordinal.range((Bound::Excluded(ordinal), Bound::Unbounded)).map(|(_, row)| row)
    }

    /// In insertion order, those before an ordinal.
    pub(crate) fn before(&self, ordinal: u64) -> impl DoubleEndedIterator<Item = &Row> {
        self.by_ordinal.range(..ordinal).map(|(_, row)| row)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> RecordKey {
        RecordKey(text.into())
    }

    fn record(n: u64) -> Arc<Object> {
        Arc::new([("n", n)].into_iter().collect())
    }

    fn order(rows: &Rows) -> Vec<String> {
        rows.iter().map(|(_, row)| row.key.to_string()).collect()
    }

    #[test]
    fn changed_records_keep_their_place_new_ones_come_last() {
        let mut rows = Rows::default();
        for name in ["c", "a", "b"] {
            rows.put(key(name), record(1), &[]);
        }
        rows.put(key("c"), record(2), &[]);
        assert_eq!(order(&rows), ["c", "a", "b"]);
        assert_eq!(rows.get(&key("c")), Some(&record(2)));
        assert_eq!(rows.remove(&key("c"), &[]), Some(record(2)));
        assert_eq!(rows.remove(&key("c"), &[]), None);
        rows.put(key("c"), record(3), &[]);
        assert_eq!(order(&rows), ["a", "b", "c"]);
        assert_eq!(rows.ordinal(&key("c")), Some(3), "an ordinal is never given twice");
    }

    proptest! {
        #[test]
        fn what_rows_take_is_the_sum_over_them(
            steps in proptest::collection::vec((0..5_u8, 0..6_u8, 0..u64::MAX), 0..40),
        ) {
            let mut rows = Rows::default();
            for (step, name, n) in steps {
                let key = key(&format!("key-{name}"));
                match step {
                    0 => drop(rows.remove(&key, &[])),
                    1 => rows.move_last(&key, record(n), &[]),
                    2 if n % 8 == 0 => rows = rows.emptied(),
                    _ => rows.put(key, record(n), &[]),
                }
                let sum: u64 = rows.iter().map(|(_, row)| row_bytes(&row.key, &row.record)).sum();
                prop_assert_eq!(rows.memory_bytes(), sum);
            }
        }
    }

    #[test]
    fn a_copy_stays_as_it_was() {
        let mut rows = Rows::default();
        rows.put(key("a"), record(1), &[]);
        let copy = rows.clone();
        rows.remove(&key("a"), &[]);
        assert_eq!((rows.len(), copy.len()), (0, 1));
    }
}
