//! Removed: where the rows stood that a table lost lately, by the names clients know them under.
//!
//! A client that reads a table page by page names the last row it saw; when that row is removed in
//! between, the list goes on from where it stood. Part of the state: every replica remembers the
//! same rows, and forgets the oldest first. A name whose row is there is that of a row that moved.

use std::sync::Arc;

use imbl::OrdMap;

use crate::ids::RecordKey;
use crate::limits::{REMOVED_NAME_BYTES_MAX, REMOVED_NAMES_MAX};
use crate::value::{Number, Object, Value};

/// The members, besides its key, a row is known by.
const IDS: [&str; 3] = ["id", "uid", "uuid"];

/// The places of rows removed lately.
#[derive(Debug, Clone, Default)]
pub(crate) struct Removed {
    /// By name: when it was removed, counted, and the ordinal it had.
    by_name: OrdMap<Arc<str>, (u64, u64)>,
    by_time: OrdMap<u64, Arc<str>>,
    next: u64,
}

impl Removed {
    /// The ordinal of a removed row that was known by this name.
    pub(crate) fn ordinal(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).map(|(_, ordinal)| *ordinal)
    }

    /// Remembers where a row stood that is removed now.
    pub(crate) fn remember(&mut self, ordinal: u64, key: &RecordKey, record: &Object) {
        self.push(Arc::clone(&key.0), ordinal);
        for id in IDS.iter().filter_map(|name| record.get(name)?.name_text()) {
            if id != key.as_str() {
                self.push(id.into(), ordinal);
            }
        }
    }

    /// Forgets the names a row has that is there now: they mean this one.
    pub(crate) fn forget(&mut self, key: &RecordKey, record: &Object) {
        if self.by_name.is_empty() {
            return;
        }
        self.take_out(key.as_str());
        for id in IDS.iter().filter_map(|name| record.get(name)?.name_text()) {
            self.take_out(&id);
        }
    }

    /// Adds a name as the one removed last.
    pub(crate) fn push(&mut self, name: Arc<str>, ordinal: u64) {
        if name.len() > REMOVED_NAME_BYTES_MAX {
            return;
        }
        self.take_out(&name);
        self.by_time.insert(self.next, Arc::clone(&name));
        self.by_name.insert(name, (self.next, ordinal));
        self.next += 1;
        while self.by_time.len() > REMOVED_NAMES_MAX {
            let oldest = self.by_time.get_min().map(|(_, name)| Arc::clone(name));
            self.take_out(&oldest.expect("there are more than none"));
        }
    }

    /// Names and ordinals, the one removed first in front: what a checkpoint holds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let ordinal = |name: &Arc<str>| self.by_name.get(name).map_or(0, |(_, ordinal)| *ordinal);
        self.by_time.values().map(move |name| (name, ordinal(name)))
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    fn take_out(&mut self, name: &str) {
        if let Some((time, _)) = self.by_name.remove(name) {
            self.by_time.remove(&time);
        }
    }
}

/// Whether a row is known by this name in one of its id fields.
pub(crate) fn has_id(record: &Object, name: &str) -> bool {
    IDS.iter().filter_map(|id| record.get(id)).any(|value| match value {
        Value::Number(number) => {
            Number::parse(name).is_some_and(|said| said.canonical() == number.canonical())
        }
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            value.key_text() == Some(name)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;

    fn key(text: &str) -> RecordKey {
        RecordKey(text.into())
    }

    #[test]
    fn a_removed_row_is_known_by_its_key_and_its_ids() {
        let mut removed = Removed::default();
        removed.remember(7, &key("k"), &object(r#"{"id":1.0,"uid":"u","uuid":null}"#));
        assert_eq!(
            [removed.ordinal("k"), removed.ordinal("1"), removed.ordinal("u")],
            [Some(7); 3]
        );
        removed.forget(&key("k"), &object(r#"{"id":"x"}"#));
        assert_eq!((removed.ordinal("k"), removed.ordinal("u")), (None, Some(7)));
    }

    #[test]
    fn the_rows_removed_first_are_forgotten_first() {
        let mut removed = Removed::default();
        let names: Vec<String> = (0..=REMOVED_NAMES_MAX).map(|n| n.to_string()).collect();
        for (ordinal, name) in (0..).zip(&names) {
            removed.remember(ordinal, &key(name), &Object::new());
        }
        assert_eq!((removed.ordinal("0"), removed.ordinal("1")), (None, Some(1)));
        assert_eq!(removed.iter().count(), REMOVED_NAMES_MAX);
        removed.remember(9, &key(&"x".repeat(REMOVED_NAME_BYTES_MAX + 1)), &Object::new());
        assert_eq!(removed.iter().count(), REMOVED_NAMES_MAX);
    }
}
