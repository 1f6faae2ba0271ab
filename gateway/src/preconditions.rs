//! Preconditions: what a client believes about a record, read from JSON.
//!
//! Read for a save and for each change of a batch; publishes, `POST …/events` and the routes of one
//! table read no conditions but a version.
//!
//! Promise: a condition that cannot be read is refused, never ignored. `null` says nothing, and nor
//! does an empty text, as in the original; but an empty text is no version.

use model::limits::VERSION_MAX;
use model::{Object, Precondition, Timestamp, Validation, Value};

use crate::error::{ApiError, Problem};
use crate::known_members;

/// The names of the member that holds the conditions.
pub(crate) const NAMES: [&str; 4] = ["concurrency", "expected", "guard", "guards"];
/// The conditions of `concurrency`, in the order in which the first that fails is told.
pub(crate) fn read(body: &Object, marker: Option<&str>) -> Result<Vec<Precondition>, ApiError> {
    let mut preconditions = Vec::new();
    let none = Object::new();
    let given = match first(body, &NAMES) {
        None => &none,
        Some((name, value)) => value.as_object().ok_or_else(|| wrong(name, "an object"))?,
    };
    // Also for a lenient module: a write under a condition nobody reads is another write.
    known_members::CONDITIONS.members(given, Validation::Strict)?;
    // Both are read: one that cannot be read is not hidden by the other.
    let (require, disallow) = (flag(given, "requireExisting")?, flag(given, "disallowCreate")?);
    if require || disallow {
        preconditions.push(Precondition::MustExist);
    }
    if let Some((name, value)) = first(given, &["requireSnapshotMarker"]) {
        let day = value.key_text().ok_or_else(|| wrong(name, "a day, as in 2026-11-21"))?;
        preconditions.push(Precondition::CommitDay { expected: Some(day.to_owned()) });
    }
    if flag(given, "enforceSnapshot")? {
        preconditions.push(Precondition::CommitDay { expected: marker.map(str::to_owned) });
    }
    if let Some((name, value)) = first(given, &["expectedPaymentState", "paymentState"]) {
        preconditions.push(compat::payment_state_is(words(name, value)?));
    }
    if let Some((name, value)) = first(given, &["rejectPaymentStates"]) {
        preconditions.push(compat::payment_state_is_not(words(name, value)?));
    }
    if let Some((name, value)) = first(given, &["allowedPaymentStates"]) {
        preconditions.push(compat::payment_state_allowed(words(name, value)?));
    }
    const SINCE: [&str; 3] = ["ifNotModifiedSince", "ifModifiedBefore", "expectedUpdatedAt"];
    if let Some((name, value)) = first(given, &SINCE) {
        let since = time(value).ok_or_else(|| wrong(name, "a time"))?;
        preconditions.push(Precondition::UnmodifiedSince(since));
    }
    let known = first(given, &["lastKnownId"]).or_else(|| first(body, &["lastKnownId"]));
    if let Some((_, value)) = known {
        preconditions.push(Precondition::LastKnown(value.clone()));
    }
    preconditions.extend(version(given, "expectedVersion")?);
    Ok(preconditions)
}

/// The condition that the record has exactly the version a member of this name says.
pub(crate) fn version(
    object: &Object,
    name: &'static str,
) -> Result<Option<Precondition>, ApiError> {
    let Some(value) = object.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let version = value
        .as_u64()
        .filter(|version| *version <= VERSION_MAX)
        .ok_or_else(|| wrong(name, &format!("a whole number from 0 to {VERSION_MAX}")))?;
    Ok(Some(Precondition::VersionIs(version)))
}

/// The first of these members that says something.
fn first<'a>(object: &'a Object, names: &[&'static str]) -> Option<(&'static str, &'a Value)> {
    let said = |value: &&Value| !value.is_null() && value.as_str() != Some("");
    names.iter().find_map(|name| Some((*name, object.get(name).filter(said)?)))
}

/// Whether a condition without a value is asked for.
fn flag(object: &Object, name: &'static str) -> Result<bool, ApiError> {
    let Some((name, value)) = first(object, &[name]) else { return Ok(false) };
    value.as_bool().ok_or_else(|| wrong(name, "true or false"))
}

fn words(name: &'static str, value: &Value) -> Result<Vec<String>, ApiError> {
    let one = |value: &Value| value.key_text().map(str::to_owned);
    let words = match value.as_array() {
        Some(items) => items.iter().map(one).collect(),
        None => one(value).map(|word| vec![word]),
    };
    words.ok_or_else(|| wrong(name, "a text or a list of texts"))
}

fn time(value: &Value) -> Option<Timestamp> {
    let millis = value.key_text()?.parse().ok().map(Timestamp);
    millis.or_else(|| Timestamp::parse(value.as_str()?))
}

fn wrong(name: &str, right: &str) -> ApiError {
    ApiError::new(Problem::InvalidBody, format!("{name} must be {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(json: &str) -> Result<Vec<Precondition>, ApiError> {
        let body = Value::from_json(json.as_bytes()).unwrap();
        read(body.as_object().unwrap(), Some("2026-11-21"))
    }

    #[test]
    fn conditions_become_preconditions_in_their_order() {
        let all = conditions(
            r#"{"concurrency":{"lastKnownId":"a","ifModifiedBefore":"2020-01-01",
            "allowedPaymentStates":["open"],"rejectPaymentStates":"paid","paymentState":"x",
            "enforceSnapshot":true,"requireSnapshotMarker":"2026-11-20","disallowCreate":true,
            "expectedVersion":3}}"#,
        );
        let marker = |day: &str| Precondition::CommitDay { expected: Some(day.into()) };
        assert_eq!(
            all.unwrap(),
            [
                Precondition::MustExist,
                marker("2026-11-20"),
                marker("2026-11-21"),
                compat::payment_state_is(vec!["x".into()]),
                compat::payment_state_is_not(vec!["paid".into()]),
                compat::payment_state_allowed(vec!["open".into()]),
                Precondition::UnmodifiedSince(Timestamp::parse("2020-01-01").unwrap()),
                Precondition::LastKnown("a".into()),
                Precondition::VersionIs(3),
            ]
        );
        assert_eq!(conditions("{}").unwrap(), []);
        assert_eq!(conditions(r#"{"guard":{"expectedVersion":null}}"#).unwrap(), []);
        let empty = conditions(r#"{"guard":{"expectedVersion":""}}"#).unwrap_err();
        assert!(empty.message().starts_with("expectedVersion must be"), "{}", empty.message());
        assert_eq!(
            conditions(r#"{"guard":{"requireExisting":true}}"#).unwrap(),
            [Precondition::MustExist]
        );
    }

    #[test]
    fn an_unreadable_condition_is_refused_not_ignored() {
        for bad in [
            r#"{"concurrency":5}"#,
            r#"{"concurrency":{"paymentState":{}}}"#,
            r#"{"concurrency":{"expectedUpdatedAt":"soon"}}"#,
            r#"{"concurrency":{"expectedVersion":-1}}"#,
            r#"{"concurrency":{"expectedVersion":1000000000000000}}"#,
            r#"{"concurrency":{"expectedVerison":1}}"#,
            r#"{"concurrency":{"requireExisting":"true"}}"#,
            r#"{"concurrency":{"requireExisting":true,"disallowCreate":1}}"#,
            r#"{"concurrency":{"enforceSnapshot":"yes"}}"#,
            r#"{"concurrency":{"requireSnapshotMarker":{}}}"#,
        ] {
            assert_eq!(conditions(bad).unwrap_err().problem(), Problem::InvalidBody, "{bad}");
        }
    }
}
