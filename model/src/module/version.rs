//! Version: a record's optimistic lock, under either rule (decision 23).
//!
//! `next`: a client sends the version its change makes, which is the stored one plus one; and 1
//! over 1 is let pass, as the original does. `read`: a client sends the version it read. In both
//! a change makes the stored version rise by one. A strict module's records all have a version: one
//! that is sent is checked, and versioned tables require it. A lenient module only knows versioned
//! tables, as the original.
//!
//! Promise: a strict module's version is 1 when a record is made, under `read`, and one more with
//! each change, whatever changes it. Under `next` a record may be made at the version that is sent.
//! No version is beyond [`VERSION_MAX`]: one that is sent beyond it is refused, and what a seed
//! says beyond it counts as not said.

use std::sync::{Arc, LazyLock};

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::command::{Precondition, RecordMutation};
use crate::definition::{Definition, Validation, VersionRule};
use crate::ids::RecordKey;
use crate::limits::VERSION_MAX;
use crate::module::plan::Plan;
use crate::reject::Reject;
use crate::schema::{FieldType, Table};
use crate::value::{Number, Object, Value};

/// The member that holds it. One text for all records of tables whose schema does not name it.
static VERSION: LazyLock<Arc<str>> = LazyLock::new(|| "version".into());

/// Whether the records of a table have a version, and whether a change must name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// They have none; a field named `version` is a field like any other.
    None,
    /// A version that is sent must be the right one.
    Checked,
    /// A change must send the version.
    Required,
}

impl Lock {
    /// The lock of a table under this definition.
    pub(crate) fn of(definition: &Definition, table: &Table) -> Self {
        Self::under(definition.validation, table)
    }

    /// The same, of a module that is strict or lenient.
    pub(crate) fn under(validation: Validation, table: &Table) -> Self {
        match validation {
            _ if table.versioned => Self::Required,
            Validation::Lenient => Self::None,
            // A text called `version` (a recipe's "v2") is data: the store keeps no number there.
            Validation::Strict => match table.field(&VERSION).map(|field| field.kind) {
                None | Some(FieldType::Integer | FieldType::Number) => Self::Checked,
                Some(_) => Self::None,
            },
        }
    }

    /// What was sent, without the version where the store sets it.
    pub(crate) fn take_out(self, record: &Object) -> Object {
        let mut record = record.clone();
        if self != Self::None {
            record.remove(&VERSION);
        }
        record
    }

    /// Sets the version of a record, at the end where the schema has no place for it.
    pub(crate) fn set(self, record: &mut Object, version: u64) {
        if self != Self::None {
            record.insert(Arc::clone(&VERSION), Value::from(version));
        }
    }

    /// Puts a version into what an insert projects, where the schema has a field for it: that field
    /// may be required, and the store is who fills it.
    pub(crate) fn fill(self, table: &Table, sent: &mut Object, version: u64) {
        if self != Self::None && table.fields.iter().any(|field| field.name == *VERSION) {
            sent.insert(Arc::clone(&VERSION), Value::from(version));
        }
    }
}

/// The version sent: the whole part of a number above zero, up to [`VERSION_MAX`].
pub(crate) fn sent(record: &Object) -> Option<u64> {
    let number = decimal(record.get(&VERSION)?)?;
    number.trunc().to_u64().filter(|version| (1..=VERSION_MAX).contains(version))
}

/// The version stored: at least 1.
pub(crate) fn stored(record: &Object) -> u64 {
    sent(record).unwrap_or(1)
}

/// The version of a record that an act on the module changes. At the limit it stays: the act is
/// about all its records.
pub(crate) fn risen(stored: u64) -> u64 {
    if stored < VERSION_MAX { stored + 1 } else { stored }
}

/// Whether a record says a version that no record can have.
pub(crate) fn is_beyond(record: &Object) -> bool {
    let Some(value) = record.get(&VERSION) else { return false };
    match decimal(value) {
        Some(number) => number > Decimal::from(VERSION_MAX),
        // What no decimal holds: a number of more digits, or none at all.
        None => {
            let long = match value {
                Value::Number(number) => Some(number.as_str().to_owned()),
                Value::String(text) => Number::parse(text.trim()).map(|n| n.as_str().to_owned()),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
            };
            long.is_some_and(|text| text.parse::<f64>().is_ok_and(|number| number > 1e15))
        }
    }
}

/// Whether two records are one but for their versions.
pub(super) fn is_same(one: &Object, other: &Object) -> bool {
    let said = |record: &Object| record.iter().filter(|(name, _)| **name != *VERSION).count();
    let mut members = one.iter().filter(|(name, _)| **name != *VERSION);
    said(one) == said(other) && members.all(|(name, value)| other.get(name) == Some(value))
}

fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(number) => number.to_decimal(),
        Value::String(text) => text.trim().parse::<Decimal>().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

impl Plan<'_> {
    /// The version a new record gets.
    pub(super) fn first_version(&self, table: &Table, mutation: &RecordMutation) -> u64 {
        match self.definition().version_rule {
            VersionRule::Read => 1,
            VersionRule::Next if table.field(&VERSION).is_none() => 1,
            VersionRule::Next => sent(&mutation.record).unwrap_or(1),
        }
    }

    /// The same of a strict module's record that this command removed and makes again: it is the
    /// record it was, changed.
    pub(super) fn counted_on(&self, first: u64, table: &Table, key: &RecordKey) -> u64 {
        match self.validation() {
            Validation::Strict => {
                let removed = self.removed(&table.name, key);
                removed.map_or(first, |removed| first.max(risen(stored(removed))))
            }
            Validation::Lenient => first,
        }
    }

    /// Refuses a version that no record can have.
    pub(super) fn check_bound(&self, table: &Table, record: &Object) -> Result<(), Reject> {
        if self.lock(table) == Lock::None || !is_beyond(record) {
            return Ok(());
        }
        let rule = format!("must be at most {VERSION_MAX}");
        Err(bad_version(table, record, rule, record.get(&VERSION)))
    }

    /// The version a change of a record gives it, if the one sent allows the change.
    pub(super) fn next_version(
        &self,
        table: &Table,
        mutation: &RecordMutation,
        key: &RecordKey,
        current: &Object,
    ) -> Result<u64, Reject> {
        let current = stored(current);
        let lock = self.lock(table);
        if lock == Lock::None {
            return Ok(current);
        }
        self.readable(table, &mutation.record, true)?;
        if current == VERSION_MAX {
            let rule = "cannot rise any more: remove the record and insert it anew".to_owned();
            return Err(bad_version(table, &mutation.record, rule, Some(&Value::from(current))));
        }
        let conflict = |message| Reject::VersionConflict {
            table: mutation.table.clone(),
            key: key.clone(),
            expected: sent(&mutation.record),
            current,
            message,
        };
        let Some(sent) = sent(&mutation.record) else {
            // A condition on the version has said what the body leaves out.
            let said = mutation
                .preconditions
                .iter()
                .any(|precondition| matches!(precondition, Precondition::VersionIs(_)));
            let may_pass = said || lock == Lock::Checked;
            return if may_pass {
                Ok(current + 1)
            } else {
                Err(conflict(missing(self.noun(table))))
            };
        };
        let fits = match self.definition().version_rule {
            VersionRule::Read => sent == current,
            VersionRule::Next => sent == current + 1 || (sent == 1 && current == 1),
        };
        if fits { Ok(current + 1) } else { Err(conflict(stale(self.noun(table), current, sent))) }
    }

    /// Checks the version a strict module's record is removed with, or saved anew with. A removal
    /// need not name one; it makes none, so under `next` the version read is as right as the next.
    pub(super) fn check_last_version(
        &self,
        table: &Table,
        mutation: &RecordMutation,
        key: &RecordKey,
        current: Option<&Object>,
    ) -> Result<(), Reject> {
        match self.definition().validation {
            Validation::Lenient => return Ok(()),
            Validation::Strict if self.lock(table) == Lock::None => return Ok(()),
            Validation::Strict => self.readable(table, &mutation.record, current.is_some())?,
        }
        let (sent, current) = (sent(&mutation.record), current.map(stored));
        let fits = match (sent, current, self.definition().version_rule) {
            (None, _, _) => true,
            (Some(sent), Some(current), VersionRule::Read) => sent == current,
            (Some(sent), Some(current), VersionRule::Next) => {
                sent == current || sent == current + 1
            }
            // A record of that version was read, and is gone. A new one may say that it is the
            // first.
            (Some(sent), None, VersionRule::Read) => sent == 1,
            (Some(_), None, VersionRule::Next) => true,
        };
        if fits {
            return Ok(());
        }
        let current = current.unwrap_or(0);
        Err(Reject::VersionConflict {
            table: mutation.table.clone(),
            key: key.clone(),
            expected: sent,
            current,
            message: stale(self.noun(table), current, sent.unwrap_or(0)),
        })
    }

    /// What messages call a record of a table.
    pub(super) fn noun(&self, table: &Table) -> &str {
        self.definition().schema.conventions.noun(table.name.as_str())
    }

    /// The lock of a table's records.
    pub(super) fn lock(&self, table: &Table) -> Lock {
        Lock::of(self.definition(), table)
    }

    /// Refuses a version that a strict module cannot read; `null` is none, and so is 0 of a record
    /// that is not there yet.
    pub(super) fn readable(
        &self,
        table: &Table,
        record: &Object,
        is_there: bool,
    ) -> Result<(), Reject> {
        let value = match record.get(&VERSION) {
            None | Some(Value::Null) => return Ok(()),
            Some(value) => value,
        };
        let is_whole = decimal(value).is_some_and(|number| {
            number.fract().is_zero()
                && !number.is_sign_negative()
                && number.to_u64().is_some_and(|version| version > 0 || !is_there)
        });
        match self.definition().validation {
            Validation::Strict if !is_whole => {
                let rule = "must be the version that was read, a whole number".to_owned();
                Err(bad_version(table, record, rule, Some(value)))
            }
            Validation::Strict | Validation::Lenient => Ok(()),
        }
    }
}

fn bad_version(table: &Table, record: &Object, rule: String, value: Option<&Value>) -> Reject {
    Reject::BadVersion {
        table: table.name.to_string(),
        key: table.key_of(record).unwrap_or_else(|_| RecordKey("".into())),
        rule,
        value: Reject::show(value.unwrap_or(&Value::Null)),
    }
}

fn missing(noun: &str) -> String {
    format!(
        "Update failed: version number is required for {noun}. Please include version field in \
         your request."
    )
}

/// What a client with an old version is told.
pub(super) fn stale(noun: &str, current: u64, sent: u64) -> String {
    format!(
        "Update failed: This {noun} has been modified (current version: {current}, your version: \
         {sent}). Please reload and try again."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Action;
    use crate::definition::Validation;
    use crate::testing::{Shop, guarded, object};

    /// A shop with the order `o` at a version.
    fn at_version(version: u64, rule: VersionRule) -> Shop {
        let mut shop = Shop::with(Validation::Lenient, rule);
        shop.insert("order_header", r#"{"id":"o"}"#).unwrap();
        for next in 2..=version {
            let sent = if rule == VersionRule::Next { next } else { next - 1 };
            shop.merge("order_header", &format!(r#"{{"id":"o","version":{sent}}}"#)).unwrap();
        }
        shop
    }

    fn change(shop: &mut Shop, action: Action, version: &str) -> Result<u64, Reject> {
        let record = format!(r#"{{"id":"o","note":"new"{version}}}"#);
        let event = shop.mutation(crate::testing::mutation(action, "order_header", &record))?;
        Ok(event.record().unwrap().record.get("version").unwrap().as_u64().unwrap())
    }

    #[test]
    fn next_wants_the_stored_version_plus_one() {
        for action in [Action::Merge, Action::Save] {
            let mut shop = at_version(2, VersionRule::Next);
            assert_eq!(change(&mut shop, action, r#","version":3"#), Ok(3));
            for stale in ["2", "3", "5"] {
                let reject = change(&mut shop, action, &format!(r#","version":{stale}"#));
                assert_eq!(
                    reject.unwrap_err().to_string(),
                    format!(
                        "Update failed: This order has been modified (current version: 3, your \
                         version: {stale}). Please reload and try again."
                    )
                );
            }
            for absent in ["", r#","version":0"#, r#","version":-1"#, r#","version":"x""#] {
                let reject = change(&mut shop, action, absent).unwrap_err();
                assert_eq!(
                    reject.to_string(),
                    "Update failed: version number is required for order. Please include version \
                     field in your request."
                );
            }
            assert_eq!(change(&mut shop, action, r#","version":4.9"#), Ok(4));
        }
    }

    #[test]
    fn next_lets_one_over_one_pass_as_a_merge_and_a_save_replaces() {
        let mut shop = at_version(1, VersionRule::Next);
        assert_eq!(change(&mut shop, Action::Merge, r#","version":1"#), Ok(2));
        assert!(change(&mut shop, Action::Merge, r#","version":1"#).is_err());
        shop.merge("order_header", r#"{"id":"o","n":4,"version":3}"#).unwrap();
        assert_eq!(change(&mut shop, Action::Save, r#","version":1"#), Ok(1));
        let row = &shop.rows("order_header")[0];
        assert!(row.starts_with(r#"{"id":"o","note":"new","n":null"#), "{row}");
    }

    #[test]
    fn read_wants_the_stored_version_and_never_replaces() {
        for action in [Action::Merge, Action::Save] {
            let mut shop = at_version(2, VersionRule::Read);
            assert!(change(&mut shop, action, r#","version":3"#).is_err());
            assert!(change(&mut shop, action, r#","version":1"#).is_err());
            assert!(change(&mut shop, action, "").is_err());
            assert_eq!(change(&mut shop, action, r#","version":2"#), Ok(3));
        }
    }

    #[test]
    fn a_conflict_tells_both_versions_and_an_item_is_called_one() {
        let mut shop = at_version(1, VersionRule::Next);
        shop.insert("order_line", r#"{"id":"l","orderId":"o"}"#).unwrap();
        let Err(Reject::VersionConflict { table, key, expected, current, message }) =
            shop.merge("order_line", r#"{"id":"l","version":7}"#)
        else {
            panic!("7 is not 2")
        };
        assert_eq!((table.as_str(), key.as_str()), ("order_line", "l"));
        assert_eq!((expected, current), (Some(7), 1));
        assert!(message.contains("This order item has"), "{message}");
    }

    #[test]
    fn a_version_condition_stands_in_for_the_one_in_the_body() {
        for rule in [VersionRule::Next, VersionRule::Read] {
            let mut shop = at_version(2, rule);
            let mut save = |version| {
                let preconditions = vec![Precondition::VersionIs(version)];
                shop.mutation(guarded(Action::Save, "order_header", r#"{"id":"o"}"#, preconditions))
            };
            assert_eq!(save(1).unwrap_err().code(), "version-conflict");
            assert_eq!(stored(&save(2).unwrap().record().unwrap().record), 3);
            assert_eq!(save(0).unwrap_err().code(), "version-conflict", "0 is: not there yet");
        }
    }

    #[test]
    fn a_version_is_the_whole_part_of_a_number_above_zero() {
        let read = |json| sent(&object(json));
        assert_eq!(read(r#"{"version":2.7}"#), Some(2));
        assert_eq!(read(r#"{"version":"3"}"#), Some(3));
        for none in [r#"{"version":0.5}"#, r#"{"version":true}"#, r#"{"version":null}"#, "{}"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn a_strict_module_checks_a_version_on_every_table() {
        let mut shop = Shop::strict();
        let made = shop.insert("dishes", r#"{"id":"d","version":9}"#).unwrap();
        let version = |event: &crate::delta::Event| {
            event.record().unwrap().record.get("version").and_then(Value::as_u64)
        };
        assert_eq!(version(&made), Some(1), "the store counts");
        let changed = shop.merge("dishes", r#"{"id":"d","kitchen":"bar","version":1}"#).unwrap();
        assert_eq!(version(&changed), Some(2));
        for stale in ["1", "3"] {
            let record = format!(r#"{{"id":"d","version":{stale}}}"#);
            for refused in [
                shop.merge("dishes", &record),
                shop.save("dishes", &record),
                shop.delete("dishes", &record),
            ] {
                assert_eq!(refused.unwrap_err().code(), "version-conflict", "{stale}");
            }
        }
        let unread = shop.merge("dishes", r#"{"id":"d","version":"two"}"#).unwrap_err();
        assert!(unread.to_string().contains("must be the version that was read"), "{unread}");
        assert_eq!(version(&shop.merge("dishes", r#"{"id":"d"}"#).unwrap()), Some(3));
        shop.delete("dishes", r#"{"id":"d","version":3}"#).unwrap();
        let gone = shop.save("dishes", r#"{"id":"d","version":3}"#).unwrap_err();
        assert_eq!(gone.code(), "version-conflict", "what was read is gone");
        shop.save("dishes", r#"{"id":"d","version":1}"#).unwrap();
    }

    #[test]
    fn a_field_called_version_is_filled_or_left_by_its_kind() {
        let mut shop = Shop::strict();
        shop.redefine(|definition| {
            let doc = r#"{"tables":{"a":{"fields":{"id":{"type":"text"},
                "version":{"type":"integer","nullable":false}}},
                "b":{"fields":{"id":{"type":"text"},"version":{"type":"text"}}}}}"#;
            let doc = Value::from_json(doc.as_bytes()).unwrap();
            let schema = crate::testing::conventional(&doc);
            definition.schema = Arc::new(schema);
        })
        .unwrap();
        let made = shop.insert("a", r#"{"id":"x"}"#).unwrap();
        assert_eq!(made.record().unwrap().record.get("version"), Some(&Value::from(1_u64)));
        let made = shop.insert("b", r#"{"id":"x","version":"v2"}"#).unwrap();
        assert_eq!(made.record().unwrap().record.get("version"), Some(&Value::from("v2")));
        shop.merge("b", r#"{"id":"x","version":"v3"}"#).unwrap();
    }
}
