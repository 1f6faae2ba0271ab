//! Precondition: what a client wants to hold of the existing record before its change
//! (docs/original/rest.md#save).

use std::sync::Arc;

use crate::command::{Mutation, Precondition};
use crate::ids::{RecordKey, Timestamp};
use crate::module::plan::Plan;
use crate::module::version;
use crate::query::times;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

/// Where a record's payment state may stand, in the order looked at.
const PAYMENT_STATE: [&str; 4] =
    ["paymentState", "payment_state", "paymentStateId", "payment_state_id"];
/// Where a cursor may hold a key.
const CURSOR: [&str; 7] = ["key", "id", "uuid", "uid", "primaryKey", "primary", "value"];

impl Plan<'_> {
    /// Checks a mutation's preconditions in order; the first that does not hold refuses the
    /// command.
    pub(super) fn check_preconditions(
        &self,
        table: &Table,
        mutation: &Mutation,
    ) -> Result<(), Reject> {
        if mutation.preconditions.is_empty() {
            return Ok(());
        }
        let existing = self.record_in_question(table, mutation);
        let existing = existing.as_deref();
        for precondition in &mutation.preconditions {
            match precondition {
                Precondition::VersionIs(expected) => {
                    check_version(table, mutation, *expected, existing)?
                }
                Precondition::MustExist => {
                    let message = "Existing record required but not found.";
                    check(existing.is_some(), "record-not-found", || {
                        [("message", Value::from(message))]
                    })?;
                }
                Precondition::SnapshotMarker { expected } => {
                    let actual = self.at().to_day();
                    check(expected.as_ref() == Some(&actual), "snapshot-mismatch", || {
                        [("expected", expected.clone().into()), ("actual", actual.into())]
                    })?;
                }
                Precondition::PaymentStateIs(states)
                | Precondition::PaymentStateIsNot(states)
                | Precondition::PaymentStateAllowed(states) => {
                    check_payment_state(precondition, states, existing)?;
                }
                Precondition::UnmodifiedSince(threshold) => check_time(*threshold, existing)?,
                Precondition::LastKnown(cursor) => {
                    check(self.named_by(table, cursor).is_some(), "stale-cursor", || {
                        [("lastKnownId", cursor.clone())]
                    })?;
                }
            }
        }
        Ok(())
    }

    /// The record with the mutation's key, else the one a cursor names.
    fn record_in_question(&self, table: &Table, mutation: &Mutation) -> Option<Arc<Object>> {
        let by_key = table.key_of(&mutation.record).ok();
        let found = by_key.and_then(|key| self.module().get(&table.name, &key));
        found.cloned().or_else(|| {
            mutation.preconditions.iter().find_map(|precondition| match precondition {
                Precondition::LastKnown(cursor) => self.named_by(table, cursor),
                Precondition::MustExist
                | Precondition::SnapshotMarker { .. }
                | Precondition::PaymentStateIs(_)
                | Precondition::PaymentStateIsNot(_)
                | Precondition::PaymentStateAllowed(_)
                | Precondition::UnmodifiedSince(_)
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

/// A record that does not exist has version 0.
fn check_version(
    table: &Table,
    mutation: &Mutation,
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
        message: version::stale(table.name.as_str(), current, expected),
    })
}

/// Only `PaymentStateIs` asks for a record: the others speak of a state where there is one.
fn check_payment_state(
    precondition: &Precondition,
    states: &[String],
    existing: Option<&Object>,
) -> Result<(), Reject> {
    let actual = existing.and_then(|record| {
        PAYMENT_STATE.iter().find_map(|name| record.get(name)?.key_text().filter(|t| !t.is_empty()))
    });
    let listed = actual.is_some_and(|actual| states.iter().any(|state| state == actual));
    let (holds, code, word) = match precondition {
        Precondition::PaymentStateIs(_) => (listed, "payment-state-conflict", "expected"),
        Precondition::PaymentStateIsNot(_) => (!listed, "payment-state-rejected", "rejected"),
        Precondition::PaymentStateAllowed(_) => {
            (listed || existing.is_none(), "payment-state-not-allowed", "allowed")
        }
        Precondition::MustExist
        | Precondition::SnapshotMarker { .. }
        | Precondition::UnmodifiedSince(_)
        | Precondition::LastKnown(_)
        | Precondition::VersionIs(_) => return Ok(()),
    };
    check(holds, code, || {
        let mut listed: Vec<Value> = states.iter().map(|state| state.as_str().into()).collect();
        let listed = if listed.len() == 1 { listed.remove(0) } else { Value::Array(listed) };
        [(word, listed), ("actual", actual.into())]
    })
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

    fn paid(precondition: impl Fn(Vec<String>) -> Precondition, states: &[&str]) -> Option<String> {
        let states = states.iter().map(|state| (*state).to_owned()).collect();
        refusal(r#"{"id":"o","version":1}"#, vec![precondition(states)]).map(|(code, _)| code)
    }

    #[test]
    fn a_record_that_must_exist() {
        assert_eq!(refusal(r#"{"id":"o","version":2}"#, vec![Precondition::MustExist]), None);
        let (code, details) = refusal(r#"{"id":"ghost"}"#, vec![Precondition::MustExist]).unwrap();
        assert_eq!(code, "record-not-found");
        assert_eq!(details, r#"{"message":"Existing record required but not found."}"#);
    }

    #[test]
    fn the_business_day_is_the_day_of_the_commit() {
        let marker =
            |day: Option<&str>| Precondition::SnapshotMarker { expected: day.map(str::to_owned) };
        assert_eq!(refusal(r#"{"id":"n"}"#, vec![marker(Some("2026-11-21"))]), None);
        let (code, details) = refusal(r#"{"id":"n"}"#, vec![marker(Some("old"))]).unwrap();
        assert_eq!(code, "snapshot-mismatch");
        assert_eq!(details, r#"{"expected":"old","actual":"2026-11-21"}"#);
        let (_, details) = refusal(r#"{"id":"n"}"#, vec![marker(None)]).unwrap();
        assert_eq!(details, r#"{"expected":null,"actual":"2026-11-21"}"#);
    }

    #[test]
    fn the_payment_state_is_or_is_not_or_is_among() {
        assert_eq!(paid(Precondition::PaymentStateIs, &["paid"]), None);
        assert_eq!(
            paid(Precondition::PaymentStateIs, &["open"]).as_deref(),
            Some("payment-state-conflict")
        );
        assert_eq!(paid(Precondition::PaymentStateIsNot, &["open"]), None);
        assert_eq!(
            paid(Precondition::PaymentStateIsNot, &["open", "paid"]).as_deref(),
            Some("payment-state-rejected")
        );
        assert_eq!(paid(Precondition::PaymentStateAllowed, &["open", "paid"]), None);
        let refused = refusal(
            r#"{"id":"o","version":1}"#,
            vec![Precondition::PaymentStateAllowed(vec!["open".to_owned(), "void".to_owned()])],
        );
        let (code, details) = refused.unwrap();
        assert_eq!(code, "payment-state-not-allowed");
        assert_eq!(details, r#"{"allowed":["open","void"],"actual":"paid"}"#);
        let states = vec!["open".to_owned()];
        let new = refusal(r#"{"id":"n"}"#, vec![Precondition::PaymentStateAllowed(states.clone())]);
        assert_eq!(new, None, "a new order has no state yet");
        assert!(refusal(r#"{"id":"n"}"#, vec![Precondition::PaymentStateIs(states)]).is_some());
    }

    #[test]
    fn a_record_changed_since_is_refused_with_both_times() {
        let since = |text| Precondition::UnmodifiedSince(Timestamp::parse(text).unwrap());
        let same = since("2026-11-21T09:00:00Z");
        assert_eq!(refusal(r#"{"id":"o","version":1}"#, vec![same]), None);
        let (code, details) =
            refusal(r#"{"id":"o","version":1}"#, vec![since("2026-11-21")]).unwrap();
        assert_eq!(code, "concurrent-update");
        assert_eq!(
            details,
            r#"{"updatedAt":"2026-11-21T09:00:00.000Z","threshold":"2026-11-21T00:00:00.000Z"}"#
        );
        assert_eq!(refusal(r#"{"id":"n"}"#, vec![since("2020-01-01")]), None);
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
