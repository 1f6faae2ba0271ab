//! Times: when a record says it was created and updated, in any of the spellings in use.

use rust_decimal::prelude::ToPrimitive;

use crate::ids::Timestamp;
use crate::value::{Object, Value};

const CREATED: [&str; 4] = ["createdAt", "created_at", "createDate", "create_date"];
const UPDATED: [&str; 4] = ["updatedAt", "updated_at", "modifyDate", "modify_date"];
const SAVED: [&str; 2] = ["savedAt", "saved_at"];
/// A number above it is a time in milliseconds; one below is not a time at all.
const MILLISECONDS_MIN: i64 = 1_000_000_000;

/// When a record was created, if it says so.
pub(crate) fn created(record: &Object) -> Option<Timestamp> {
    CREATED.iter().find_map(|name| time(record.get(name)?))
}

/// When a record was last updated, if it says so.
pub fn updated(record: &Object) -> Option<Timestamp> {
    UPDATED.iter().find_map(|name| time(record.get(name)?))
}

/// When a record was last saved, if it says so.
pub fn saved(record: &Object) -> Option<Timestamp> {
    SAVED.iter().find_map(|name| time(record.get(name)?))
}

/// Whether a field of this name holds one of these times.
pub(crate) fn is_time(name: &str) -> bool {
    CREATED.contains(&name) || UPDATED.contains(&name)
}

fn time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => Timestamp::parse(text.trim()),
        Value::Number(number) => {
            let milliseconds = number.to_decimal()?.to_i64()?;
            (milliseconds > MILLISECONDS_MIN).then_some(Timestamp(milliseconds))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(json: &str) -> Option<Timestamp> {
        updated(Value::from_json(json.as_bytes()).unwrap().as_object().unwrap())
    }

    #[test]
    fn a_time_is_found_in_any_spelling_and_nothing_else_is_a_time() {
        let day = Timestamp::parse("2026-11-21");
        assert_eq!(at(r#"{"updatedAt":"2026-11-21T00:00:00.000Z"}"#), day);
        assert_eq!(at(r#"{"updatedAt":null,"modify_date":"2026-11-21"}"#), day);
        assert_eq!(at(r#"{"updated_at":1795219200000}"#), Some(Timestamp(1_795_219_200_000)));
        assert_eq!(at(r#"{"updatedAt":7}"#), None);
        assert_eq!(at(r#"{"updatedAt":"soon"}"#), None);
        assert_eq!(at(r#"{"createdAt":"2026-11-21"}"#), None);
    }
}
