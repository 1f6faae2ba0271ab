//! Version: a record's optimistic lock, under either rule (decision 12).
//!
//! `next`: a client sends the version its change makes, which is the stored one plus one; and 1
//! over 1 is let pass, as the original does. `read`: a client sends the version it read. In both
//! a change makes the stored version rise by one, and only versioned tables are checked.

use std::sync::{Arc, LazyLock};

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::command::{Guard, Verb};
use crate::definition::VersionRule;
use crate::ids::RecordKey;
use crate::module::plan::Plan;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

/// The member that holds it. One text for all records of tables whose schema does not name it.
static VERSION: LazyLock<Arc<str>> = LazyLock::new(|| "version".into());

/// What was sent, without the version where the table is versioned: there the store sets it.
pub(super) fn take_out(table: &Table, record: &Object) -> Object {
    let mut record = record.clone();
    if table.versioned {
        record.remove(&VERSION);
    }
    record
}

/// Sets the version of a record, at the end where the schema has no place for it.
pub(super) fn set(table: &Table, record: &mut Object, version: u64) {
    if table.versioned {
        record.insert(Arc::clone(&VERSION), Value::from(version));
    }
}

/// The version sent: the whole part of a number above zero.
pub(super) fn sent(record: &Object) -> Option<u64> {
    let number = match record.get(&VERSION)? {
        Value::Number(number) => number.to_decimal()?,
        Value::String(text) => text.trim().parse::<Decimal>().ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    number.trunc().to_u64().filter(|version| *version > 0)
}

/// The version stored: at least 1.
pub(super) fn stored(record: &Object) -> u64 {
    sent(record).unwrap_or(1)
}

impl Plan<'_> {
    /// The version a new record gets.
    pub(super) fn first_version(&self, table: &Table, verb: &Verb) -> u64 {
        match self.definition().version_rule {
            VersionRule::Read => 1,
            VersionRule::Next if table.field(&VERSION).is_none() => 1,
            VersionRule::Next => sent(&verb.record).unwrap_or(1),
        }
    }

    /// The version a change of a record gives it, if the one sent allows the change.
    pub(super) fn next_version(
        &self,
        table: &Table,
        verb: &Verb,
        key: &RecordKey,
        current: &Object,
    ) -> Result<u64, Reject> {
        let current = stored(current);
        if !table.versioned {
            return Ok(current);
        }
        let conflict = |message| Reject::VersionConflict {
            table: verb.table.clone(),
            key: key.clone(),
            expected: sent(&verb.record),
            current,
            message,
        };
        let Some(sent) = sent(&verb.record) else {
            // A condition on the version has said what the body leaves out.
            let said = verb.guards.iter().any(|guard| matches!(guard, Guard::VersionIs(_)));
            return if said { Ok(current + 1) } else { Err(conflict(missing(table))) };
        };
        let fits = match self.definition().version_rule {
            VersionRule::Read => sent == current,
            VersionRule::Next => sent == current + 1 || (sent == 1 && current == 1),
        };
        if fits {
            Ok(current + 1)
        } else {
            Err(conflict(stale(table.name.as_str(), current, sent)))
        }
    }
}

fn friendly(table: &str) -> &'static str {
    if table == "order_header" { "order" } else { "order item" }
}

fn missing(table: &Table) -> String {
    format!(
        "Update failed: version number is required for {}. Please include version field in your \
         request.",
        friendly(table.name.as_str())
    )
}

/// What a client with an old version is told.
pub(super) fn stale(table: &str, current: u64, sent: u64) -> String {
    format!(
        "Update failed: This {} has been modified (current version: {current}, your version: \
         {sent}). Please reload and try again.",
        friendly(table)
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
        let event = shop.verb(crate::testing::verb(action, "order_header", &record))?;
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
    fn other_tables_and_deletes_are_not_checked() {
        let mut shop = at_version(3, VersionRule::Next);
        shop.insert("dishes", r#"{"id":"d"}"#).unwrap();
        let dish = shop.save("dishes", r#"{"id":"d","code":"x"}"#).unwrap();
        assert_eq!(dish.record().unwrap().record.get("version"), None);
        shop.delete("order_header", r#"{"id":"o","version":1}"#).unwrap();
    }

    #[test]
    fn a_condition_on_the_version_is_checked_under_either_rule_and_says_what_the_body_leaves_out() {
        for rule in [VersionRule::Next, VersionRule::Read] {
            let mut shop = at_version(2, rule);
            let mut save = |version| {
                let guards = vec![Guard::VersionIs(version)];
                shop.verb(guarded(Action::Save, "order_header", r#"{"id":"o"}"#, guards))
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
}
