//! Counters: the last number taken of each sequence of one branch:module.
//!
//! Promise: `next` only looks, so a refused write takes nothing; numbers rise, by at least the
//! rule's increment, and never below its start. Cloning is cheap. Refused: more than 15 digits.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::TableName;
use crate::limits::SEQUENCE_NUMBER_MAX;
use crate::reject::Reject;
use crate::sequence::SequenceRule;

/// The last number of each sequence, by table and field.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SequenceCounters(OrdMap<(TableName, Arc<str>), u64>);

impl SequenceCounters {
    /// The last number taken; `None` before the first.
    pub fn last(&self, table: &TableName, field: &str) -> Option<u64> {
        self.0.get(&(table.clone(), field.into())).copied()
    }

    /// The number a taker would get: the last plus the increment, at least the start.
    ///
    /// # Errors
    /// [`Reject::Sequence`] when the numbers are used up.
    pub fn next(&self, table: &TableName, field: &str, rule: &SequenceRule) -> Result<u64, Reject> {
        let last = self.last(table, field);
        let next = match last {
            // The start may have been raised since: numbers go on from there, never below.
            Some(last) => last.checked_add(rule.increment).map(|next| next.max(rule.start)),
            None => Some(rule.start),
        };
        next.filter(|next| *next <= SEQUENCE_NUMBER_MAX).ok_or_else(|| {
            let last = last.unwrap_or_default();
            Reject::Sequence {
                message: format!("the numbers of {table}.{field} are used up: the last was {last}"),
            }
        })
    }

    /// Notes that a number was taken. A counter is never lowered.
    pub fn take(&mut self, table: &TableName, field: &str, number: u64) {
        let last = self.0.entry((table.clone(), field.into())).or_insert(number);
        // A record may bring an older number of its own; the next one must still be new.
        *last = (*last).max(number);
    }

    /// Sets a counter, lower too: what a reset of a lenient module and a mending do.
    pub fn reset(&mut self, table: &TableName, field: &str, last: Option<u64>) {
        let key = (table.clone(), Arc::from(field));
        match last {
            Some(last) => self.0.insert(key, last),
            None => self.0.remove(&key),
        };
    }

    /// All counters, in order of table and field.
    pub fn iter(&self) -> impl Iterator<Item = (&TableName, &str, u64)> {
        self.0.iter().map(|((table, field), last)| (table, &**field, *last))
    }
}

impl Serialize for SequenceCounters {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // A map's order is its keys', so equal counters have equal bytes on every replica.
        let counters: Vec<_> = self.iter().collect();
        counters.serialize(to)
    }
}

impl<'de> Deserialize<'de> for SequenceCounters {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let counters = Vec::<(TableName, String, u64)>::deserialize(from)?;
        let entry = |(table, field, last): (TableName, String, u64)| ((table, field.into()), last);
        Ok(Self(counters.into_iter().map(entry).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn rule(start: u64, increment: u64) -> SequenceRule {
        SequenceRule { start, increment, ..SequenceRule::plain() }
    }

    #[test]
    fn numbers_start_and_rise_as_the_rule_says() {
        let table = TableName::parse("order_header").unwrap();
        let mut counters = SequenceCounters::default();
        assert_eq!(counters.next(&table, "id", &rule(1001, 1)), Ok(1001));
        assert_eq!(counters.last(&table, "id"), None, "looking takes nothing");
        counters.take(&table, "id", 1001);
        assert_eq!(counters.next(&table, "id", &rule(1001, 1)), Ok(1002));
        assert_eq!(counters.next(&table, "id", &rule(1001, 5)), Ok(1006));
        assert_eq!(counters.next(&table, "id", &rule(9000, 1)), Ok(9000), "the start was raised");
        assert_eq!(counters.next(&table, "no", &rule(1, 1)), Ok(1), "another field");
        counters.take(&table, "id", 5);
        assert_eq!(counters.last(&table, "id"), Some(1001), "never lowered");
        counters.reset(&table, "id", None);
        assert_eq!(counters.last(&table, "id"), None);
    }

    #[test]
    fn used_up_numbers_are_refused() {
        let table = TableName::parse("t").unwrap();
        let mut counters = SequenceCounters::default();
        counters.take(&table, "id", SEQUENCE_NUMBER_MAX);
        let refused = counters.next(&table, "id", &rule(1, 1)).unwrap_err();
        assert_eq!(refused.code(), "sequence-allocation-failed");
    }

    #[test]
    fn counters_decode_to_themselves() {
        let mut counters = SequenceCounters::default();
        for (table, field, last) in [("b", "id", 7), ("a", "no", 1), ("a", "id", 2)] {
            counters.take(&TableName::parse(table).unwrap(), field, last);
        }
        let bytes = codec::encode_as(codec::FormatKind::Test, &counters);
        assert_eq!(&bytes[..3], [240, 1, 3], "three counters, in order");
        assert_eq!(
            codec::decode_as::<SequenceCounters>(codec::FormatKind::Test, &bytes).unwrap(),
            counters
        );
    }
}
