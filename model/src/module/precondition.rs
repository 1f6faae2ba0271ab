//! Precondition: what whoever asks wants to hold of the existing record, of the log and of the day,
//! before its change (docs/original/rest.md#save).

use std::sync::Arc;

use crate::command::{FieldCondition, Holds, Precondition, RecordMutation};
use crate::ids::{RecordKey, Timestamp};
use crate::module::plan::Plan;
use crate::module::version;
use crate::query::times;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

/// Where a cursor may hold a key.
const CURSOR: [&str; 7] = ["key", "id", "uuid", "uid", "primaryKey", "primary", "value"];

impl Plan<'_> {
    /// Checks a transaction's preconditions in order.
    pub(super) fn check_transaction(&self, preconditions: &[Precondition]) -> Result<(), Reject> {
        for precondition in preconditions {
            match precondition {
                Precondition::LastEvent(named) => self.check_last_event(named.as_ref())?,
                Precondition::CommitDay { expected } => self.check_day(expected.as_deref())?,
                Precondition::MustExist
                | Precondition::VersionIs(_)
                | Precondition::Field(_)
                | Precondition::UnmodifiedSince(_)
                | Precondition::Change(_)
                | Precondition::LastKnown(_) => {
                    let message = "a condition on a record belongs to its mutation".to_owned();
                    return Err(Reject::BadCommand { message });
                }
            }
        }
        Ok(())
    }

    fn check_last_event(&self, named: Option<&String>) -> Result<(), Reject> {
        let last = self.last_event();
        if last == named {
            return Ok(());
        }
        Err(Reject::LastEvent { expected: last.cloned(), received: named.cloned() })
    }

    fn check_day(&self, expected: Option<&str>) -> Result<(), Reject> {
        let actual = self.at().to_day();
        check(expected == Some(&*actual), "snapshot-mismatch", || {
            [("expected", expected.map(str::to_owned).into()), ("actual", actual.into())]
        })
    }

    /// Checks a mutation's preconditions in order; the first that does not hold refuses the
    /// command.
    pub(super) fn check_preconditions(
        &self,
        table: &Table,
        mutation: &RecordMutation,
    ) -> Result<(), Reject> {
        if mutation.preconditions.is_empty() {
            return Ok(());
        }
        self.check_comparisons(table, mutation)?;
        let existing = self.record_in_question(table, mutation);
        let existing = existing.as_deref();
        for precondition in &mutation.preconditions {
            match precondition {
                Precondition::VersionIs(expected) => {
                    self.check_version(table, mutation, *expected, existing)?
                }
                Precondition::MustExist => {
                    let message = "Existing record required but not found.";
                    check(existing.is_some(), "record-not-found", || {
                        [("message", Value::from(message))]
                    })?;
                }
                Precondition::CommitDay { expected } => self.check_day(expected.as_deref())?,
                Precondition::LastEvent(named) => self.check_last_event(named.as_ref())?,
                Precondition::Field(condition) => check_field(condition, existing)?,
                Precondition::UnmodifiedSince(threshold) => check_time(*threshold, existing)?,
                Precondition::LastKnown(cursor) => {
                    check(self.named_by(table, cursor).is_some(), "stale-cursor", || {
                        [("lastKnownId", cursor.clone())]
                    })?;
                }
                // There is no record after the change yet: `Plan::put` and a delete ask it.
                Precondition::Change(_) => {}
            }
        }
        Ok(())
    }

    /// A record that does not exist has version 0.
    fn check_version(
        &self,
        table: &Table,
        mutation: &RecordMutation,
        expected: u64,
        existing: Option<&Object>,
    ) -> Result<(), Reject> {
        let current = existing.map_or(0, version::stored);
        if current == expected {
            return Ok(());
        }
        Err(Reject::VersionConflict {
            table: mutation.table.clone(),
            key: table.key_of(&mutation.record).unwrap_or_else(|_| RecordKey("".into())),
            expected: Some(expected),
            current,
            message: version::stale(self.noun(table), current, expected),
        })
    }

    /// The record with the mutation's key, else the one a cursor names.
    fn record_in_question(&self, table: &Table, mutation: &RecordMutation) -> Option<Arc<Object>> {
        let by_key = table.key_of(&mutation.record).ok();
        let found = by_key.and_then(|key| self.module().get(&table.name, &key));
        found.cloned().or_else(|| {
            mutation.preconditions.iter().find_map(|precondition| match precondition {
                Precondition::LastKnown(cursor) => self.named_by(table, cursor),
                Precondition::MustExist
                | Precondition::CommitDay { .. }
                | Precondition::LastEvent(_)
                | Precondition::Field(_)
                | Precondition::UnmodifiedSince(_)
                | Precondition::Change(_)
                | Precondition::VersionIs(_) => None,
            })
        })
    }

    /// The record a cursor names: a key, or an object that holds one.
    fn named_by(&self, table: &Table, cursor: &Value) -> Option<Arc<Object>> {
        let named =
            |value: &Value| self.module().get(&table.name, &table.key_meant(value)?).cloned();
        let by_member = || CURSOR.iter().find_map(|name| named(cursor.get(name)?));
        by_member().or_else(|| named(cursor))
    }
}

fn check<const N: usize>(
    holds: bool,
    code: &str,
    details: impl FnOnce() -> [(&'static str, Value); N],
) -> Result<(), Reject> {
    if holds {
        return Ok(());
    }
    Err(Reject::Precondition { code: code.to_owned(), details: details().into_iter().collect() })
}

/// Only `Listed` asks for a record: the others speak of what it says where there is one.
fn check_field(condition: &FieldCondition, existing: Option<&Object>) -> Result<(), Reject> {
    let FieldCondition { fields, values, holds, code, member } = condition;
    let said = |record: &'_ Object| -> Option<String> {
        let text = |name: &String| record.get(name)?.key_text().filter(|text| !text.is_empty());
        fields.iter().find_map(text).map(str::to_owned)
    };
    let actual = existing.and_then(said);
    let listed = actual.as_ref().is_some_and(|actual| values.contains(actual));
    let holds = match holds {
        Holds::Listed => listed,
        Holds::NotListed => !listed,
        Holds::ListedOrAbsent => listed || existing.is_none(),
    };
    if holds {
        return Ok(());
    }
    let shown = match &values[..] {
        [one] => one.as_str().into(),
        _ => Value::Array(values.iter().map(|value| value.as_str().into()).collect()),
    };
    let details = [(member.as_str(), shown), ("actual", actual.into())];
    Err(Reject::Precondition { code: code.clone(), details: details.into_iter().collect() })
}

fn check_time(threshold: Timestamp, existing: Option<&Object>) -> Result<(), Reject> {
    let updated = existing.and_then(times::updated);
    let Some(updated) = updated.filter(|updated| *updated > threshold) else { return Ok(()) };
    check(false, "concurrent-update", || {
        [("updatedAt", updated.to_iso().into()), ("threshold", threshold.to_iso().into())]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Action;
    use crate::testing::{Shop, guarded, object};

    /// A shop with one paid order of 10:00 on the 21st.
    fn shop() -> Shop {
        let mut shop = Shop::lenient();
        let order = r#"{"id":"o","paymentState":"paid","updatedAt":"2026-11-21T09:00:00Z"}"#;
        shop.insert("order_header", order).unwrap();
        shop
    }

    /// The refusal of a save under these preconditions, as code and details.
    fn refusal(json: &str, preconditions: Vec<Precondition>) -> Option<(String, String)> {
        let mutation = guarded(Action::Save, "order_header", json, preconditions);
        match shop().mutation(mutation) {
            Ok(_) => None,
            Err(Reject::Precondition { code, details }) => {
                Some((code, Value::Object(details).to_json()))
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn state(holds: Holds, values: &[&str]) -> Precondition {
        Precondition::Field(FieldCondition {
            fields: ["state", "paymentState"].map(str::to_owned).to_vec(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            holds,
            code: "wrong-state".to_owned(),
            member: "wanted".to_owned(),
        })
    }

    /// Whether a condition on the state of the paid order holds.
    fn allows(holds: Holds, values: &[&str]) -> bool {
        refusal(r#"{"id":"o","version":1}"#, vec![state(holds, values)]).is_none()
    }

    #[test]
    fn the_business_day_is_the_day_of_the_commit() {
        let marker =
            |day: Option<&str>| Precondition::CommitDay { expected: day.map(str::to_owned) };
        assert_eq!(refusal(r#"{"id":"n"}"#, vec![marker(Some("2026-11-21"))]), None);
        let (code, details) = refusal(r#"{"id":"n"}"#, vec![marker(Some("old"))]).unwrap();
        assert_eq!(code, "snapshot-mismatch");
        assert_eq!(details, r#"{"expected":"old","actual":"2026-11-21"}"#);
        let (_, details) = refusal(r#"{"id":"n"}"#, vec![marker(None)]).unwrap();
        assert_eq!(details, r#"{"expected":null,"actual":"2026-11-21"}"#);
    }

    #[test]
    fn a_field_says_what_is_listed_or_not() {
        assert!(allows(Holds::Listed, &["open", "paid"]) && !allows(Holds::Listed, &["open"]));
        assert!(allows(Holds::NotListed, &["open"]) && !allows(Holds::NotListed, &["paid"]));
        let refused = vec![state(Holds::ListedOrAbsent, &["open", "void"])];
        let (code, details) = refusal(r#"{"id":"o","version":1}"#, refused).unwrap();
        assert_eq!(code, "wrong-state");
        assert_eq!(details, r#"{"wanted":["open","void"],"actual":"paid"}"#);
        let (_, details) = refusal(r#"{"id":"n"}"#, vec![state(Holds::Listed, &["open"])]).unwrap();
        assert_eq!(details, r#"{"wanted":"open","actual":null}"#, "there is no record");
        for holds in [Holds::ListedOrAbsent, Holds::NotListed] {
            assert_eq!(refusal(r#"{"id":"n"}"#, vec![state(holds, &["open"])]), None);
        }
    }

    #[test]
    fn a_transaction_has_no_condition_on_a_record() {
        let mutation = RecordMutation::new(Action::Insert, "tickets", object(r#"{"id":"t"}"#));
        let mut transaction = crate::Transaction::of([mutation]);
        transaction.preconditions = vec![Precondition::MustExist];
        let refused = shop().run(crate::Request::Transaction(transaction.clone())).unwrap_err();
        assert_eq!(refused.code(), "bad-command");
        transaction.preconditions =
            vec![Precondition::CommitDay { expected: Some("2026-11-21".to_owned()) }];
        shop().run(crate::Request::Transaction(transaction)).unwrap();
    }

    #[test]
    fn a_cursor_names_the_record_when_the_verb_does_not() {
        for cursor in [r#"{"key":"o"}"#, r#"{"id":"o"}"#, r#"{"primaryKey":{"id":"o"}}"#] {
            let cursor = Precondition::LastKnown(Value::Object(object(cursor)));
            assert_eq!(refusal(r#"{"id":"n"}"#, vec![cursor, Precondition::MustExist]), None);
        }
        let (code, details) =
            refusal(r#"{"id":"n"}"#, vec![Precondition::LastKnown("ghost".into())]).unwrap();
        assert_eq!(
            (code.as_str(), details.as_str()),
            ("stale-cursor", r#"{"lastKnownId":"ghost"}"#)
        );
    }

    #[test]
    fn the_first_guard_that_fails_is_told() {
        let preconditions = vec![Precondition::LastKnown("ghost".into()), Precondition::MustExist];
        assert_eq!(refusal(r#"{"id":"n"}"#, preconditions).unwrap().0, "stale-cursor");
    }
}
