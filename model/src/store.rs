//! Store: how the working store's keys are laid out, and what one command changes there. The store
//! itself is opaque to this crate, and this crate's keys are opaque to the store.
//!
//! Keys sort as the data does: all of a branch:module together, events by offset. Every part of
//! variable length carries its length, so that no two keys meet. Fixed: on disks from now on.

use crate::codec;
use crate::delta::{Delta, Effect, EventChange};
use crate::ids::{BranchKey, Offset, RecordKey, TableName};

const EVENT: u8 = b'e';
const RECORD: u8 = b'r';

/// One change of the working store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreChange {
    /// Where.
    pub key: Vec<u8>,
    /// What is there from now on; `None` for nothing.
    pub value: Option<Vec<u8>>,
}

/// What all event keys of a branch:module begin with.
pub fn event_prefix(branch: &BranchKey) -> Vec<u8> {
    prefix(EVENT, branch)
}

/// The key of one event; its value is the event's codec bytes.
pub fn event_key(branch: &BranchKey, offset: Offset) -> Vec<u8> {
    let mut key = event_prefix(branch);
    // Big endian, so that keys sort as offsets do.
    key.extend(offset.0.to_be_bytes());
    key
}

/// What all record keys of a branch:module begin with.
pub fn record_prefix(branch: &BranchKey) -> Vec<u8> {
    prefix(RECORD, branch)
}

/// The key of one record; its value is the record's codec bytes.
pub fn record_key(branch: &BranchKey, table: &TableName, record: &RecordKey) -> Vec<u8> {
    let mut key = record_prefix(branch);
    push(&mut key, table.as_str());
    // Last and without a length: nothing follows that it could run into.
    key.extend(record.as_str().as_bytes());
    key
}

/// What an accepted command changes in the store: its events, and the records as they are after
/// each of them, in order.
pub fn changes(delta: &Delta) -> Vec<StoreChange> {
    // In order: a later event of one command may change a record that an earlier one made.
    let mut changes = Vec::with_capacity(delta.events.len() * 2);
    for event in &delta.events {
        changes.push(StoreChange {
            key: event_key(&delta.key, event.offset),
            value: Some(codec::encode(&**event)),
        });
        match &event.change {
            EventChange::Record(change) => changes.push(StoreChange {
                key: record_key(&delta.key, &change.table, &change.key),
                value: match change.effect {
                    Effect::Insert | Effect::Merge => Some(codec::encode(&*change.record)),
                    Effect::Delete => None,
                },
            }),
            EventChange::Module(change) => {
                changes.extend(change.records.iter().map(|(table, key, record)| StoreChange {
                    key: record_key(&delta.key, table, key),
                    value: record.as_deref().map(codec::encode),
                }));
            }
        }
    }
    changes
}

fn prefix(space: u8, branch: &BranchKey) -> Vec<u8> {
    let mut key = vec![space];
    push(&mut key, branch.branch.as_str());
    push(&mut key, branch.module.as_str());
    key
}

fn push(key: &mut Vec<u8>, part: &str) {
    let length = u16::try_from(part.len()).expect("names have at most 128 bytes");
    key.extend(length.to_be_bytes());
    key.extend(part.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BranchId, ModuleId};

    #[test]
    fn an_act_on_the_module_changes_every_record_it_names() {
        let mut shop = crate::testing::Shop::lenient();
        shop.insert("tickets", r#"{"id":"a"}"#).unwrap();
        shop.insert("tickets", r#"{"id":"b"}"#).unwrap();
        let tables = crate::testing::object(r#"{"tickets":[{"id":"b","n":1},{"id":"c"}]}"#);
        let replace = crate::Replace { tables: tables.into(), revision: None };
        let accepted = shop.run(crate::Request::Replace(replace)).unwrap();
        let table = TableName::parse("tickets").unwrap();
        let record = |id: &str| record_key(&shop.key, &table, &RecordKey(id.into()));
        let stored = |json| Some(codec::encode(&crate::testing::object(json)));
        let event = codec::encode(&*accepted.delta.events[0]);
        let expected = [
            (event_key(&shop.key, Offset(3)), Some(event)),
            (record("a"), None),
            (record("b"), stored(r#"{"id":"b","n":1}"#)),
            (record("c"), stored(r#"{"id":"c"}"#)),
        ];
        let expected = expected.map(|(key, value)| StoreChange { key, value });
        assert_eq!(changes(&accepted.delta), expected);
    }

    #[test]
    fn keys_are_pinned_and_sort_by_offset() {
        let branch =
            |name| BranchKey::new(BranchId::parse(name).unwrap(), ModuleId::parse("pos").unwrap());
        let dar = branch("dar");
        assert_eq!(
            event_key(&dar, Offset(258)),
            *b"e\x00\x03dar\x00\x03pos\x00\x00\x00\x00\x00\x00\x01\x02",
        );
        let table = TableName::parse("t").unwrap();
        assert_eq!(
            record_key(&dar, &table, &RecordKey("7".into())),
            *b"r\x00\x03dar\x00\x03pos\x00\x01t7",
        );
        assert!(event_key(&dar, Offset(255)) < event_key(&dar, Offset(256)));
        assert!(!event_key(&branch("darx"), Offset(1)).starts_with(&event_prefix(&dar)));
    }
}
