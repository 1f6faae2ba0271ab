//! Spelling: what a value of some kind says, in whichever of its spellings it was written.
//!
//! `1.50` and `"1.5"` are one number, `true` and `"yes"` one boolean, `10:00:00Z` and
//! `12:00:00+02:00` of one day one instant, and JSON is the same with its members in any order.
//! Everybody who names a record, looks it up or compares it asks here (decision 17), so that two
//! spellings are one value everywhere or nowhere.
//!
//! Promise: values that say the same have one name, values that do not have two, and a name says
//! what it was made of. Values are stored as they were sent; only their names and comparisons are
//! made here. What cannot be read as its kind says nothing but itself.

use std::borrow::Cow;
use std::cmp::Ordering;

use jiff::civil::Time;

use crate::ids::Timestamp;
use crate::magnitude::Magnitude;
use crate::schema::{Field, FieldType, Table};
use crate::value::{Number, Value};

/// A value, read as one of a kind.
#[derive(Debug)]
pub(crate) enum TypedValue {
    /// Of a boolean.
    Boolean(bool),
    /// Of a number.
    Number(Number),
    /// Of a timestamp, or of a date: its first moment.
    Instant(jiff::Timestamp),
    /// Of a time of day.
    Time(Time),
    /// Of JSON.
    Json(Value),
}

impl TypedValue {
    /// Whether both say the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Json(a), Self::Json(b)) => a.spelled() == b.spelled(),
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// Which is greater; JSON has no order.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Boolean(a), Self::Boolean(b)) => Some(a.cmp(b)),
            (Self::Number(a), Self::Number(b)) => Some(Magnitude::of(a).cmp(&Magnitude::of(b))),
            (Self::Instant(a), Self::Instant(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// Its one spelling.
    pub(crate) fn name(&self, kind: FieldType) -> String {
        match self {
            Self::Boolean(boolean) => boolean.to_string(),
            Self::Number(number) => number.canonical().into_owned(),
            Self::Instant(at) if kind == FieldType::Date => day(*at),
            Self::Instant(at) => iso(*at),
            Self::Time(time) => time.to_string(),
            Self::Json(value) => value.spelled().to_json(),
        }
    }
}

impl FieldType {
    /// What a value says as one of this kind; `None` where it says nothing but itself: a text, or
    /// what cannot be read.
    pub(crate) fn typed(self, value: &Value) -> Option<TypedValue> {
        match self {
            Self::String | Self::Opaque => None,
            Self::Integer | Self::Number => {
                // Read as a lenient write reads it, or a condition would not find what such a write
                // stored.
                let Value::Number(number) = self.coerced(value) else { return None };
                // Coercion makes 0 of an empty text; as a name that would be the record 0.
                (!is_empty(value)).then_some(TypedValue::Number(number))
            }
            Self::Boolean => boolean(value).map(TypedValue::Boolean),
            Self::Timestamp => Timestamp::instant(&scalar_text(value)?).map(TypedValue::Instant),
            Self::Date => {
                let text = scalar_text(value)?;
                let day =
                    || Timestamp::instant(&text.parse::<jiff::civil::Date>().ok()?.to_string());
                Timestamp::instant(&text).or_else(day).map(TypedValue::Instant)
            }
            Self::Time => time(&scalar_text(value)?).map(TypedValue::Time),
            Self::Json => match value {
                Value::Array(_) | Value::Object(_) | Value::Number(_) => {
                    Some(TypedValue::Json(value.clone()))
                }
                Value::String(text) => json_in(text).map(TypedValue::Json),
                Value::Null | Value::Bool(_) => None,
            },
        }
    }

    /// Whether two values are one as values of this kind, in whichever spelling.
    pub(super) fn is_same(self, a: &Value, b: &Value) -> bool {
        match (self.typed(a), self.typed(b), a, b) {
            (Some(a), Some(b), ..) => a.is_same(&b),
            (None, None, Value::Number(a), Value::Number(b)) => a.canonical() == b.canonical(),
            (None, None, ..) => a == b,
            (Some(_), None, ..) | (None, Some(_), ..) => false,
        }
    }

    /// The text a value is named by in keys and indexes, equal where the values are; `None` for
    /// `null`, which is equal to nothing.
    pub fn name_text(self, value: &Value) -> Option<String> {
        match self.typed(value) {
            Some(typed) => Some(typed.name(self)),
            None => value.name_text(),
        }
    }
}

impl Field {
    /// A value that was sent in another form than it is stored in, as it is stored: an instant is
    /// stored in whatever spelling it was sent.
    pub(super) fn as_stored(&self, value: Value) -> Value {
        match self.kind.typed(&value) {
            Some(TypedValue::Boolean(boolean)) => Value::Bool(boolean),
            Some(TypedValue::Number(number)) => Value::Number(number),
            Some(TypedValue::Json(json @ (Value::Array(_) | Value::Object(_)))) => json,
            Some(TypedValue::Instant(_) | TypedValue::Time(_) | TypedValue::Json(_)) | None => {
                value
            }
        }
    }

    /// The rule that a value breaks which a condition compares this field with: one of the kind's
    /// own where it cannot be of it. `None` where it can, in whatever spelling.
    pub(crate) fn misread(&self, value: &Value) -> Option<String> {
        let is_other = match (self.kind, value) {
            (_, Value::Null) => false,
            (FieldType::String, _) => !matches!(value, Value::String(_) | Value::Number(_)),
            (FieldType::Integer | FieldType::Number, Value::Bool(_)) => true,
            _ => self.kind.typed(value).is_none(),
        };
        self.of_kind(value).err().filter(|_| is_other)
    }
}

impl Table {
    /// The kind of what names its records; of several fields together, any.
    pub fn name_kind(&self) -> FieldType {
        let [name] = &self.key[..] else { return FieldType::Opaque };
        self.field(name).map_or(FieldType::Opaque, |field| field.kind)
    }
}

/// A boolean as it may be sent; `None` where it is none.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    let text = scalar_text(value)?;
    let is =
        |words: &[&str]| words.iter().any(|scalar_text| text.eq_ignore_ascii_case(scalar_text));
    let yes = is(&["true", "1", "yes", "on"]);
    (yes || is(&["false", "0", "no", "off"])).then_some(yes)
}

/// The time of day that a text says; none where it says a day besides, which would be lost.
pub(super) fn time(text: &str) -> Option<Time> {
    // The library reads the time out of a whole instant.
    text.parse().ok().filter(|_| text.parse::<jiff::civil::DateTime>().is_err())
}

/// What stands for nothing in a key: `null`, and the empty text.
pub(super) fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

/// The text of a string, a boolean or a number; a number in its one spelling.
pub(super) fn scalar_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Number(number) => Some(number.canonical()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            value.key_text().map(Cow::Borrowed)
        }
    }
}

/// The list, object or number that a text says. Any other text is a text in JSON too.
fn json_in(text: &str) -> Option<Value> {
    let read = Value::from_json(text.as_bytes()).ok()?;
    matches!(read, Value::Array(_) | Value::Object(_) | Value::Number(_)).then_some(read)
}

/// An instant as JavaScript's `toISOString` writes it, with more digits only where it has them:
/// two instants are never one.
fn iso(at: jiff::Timestamp) -> String {
    match at.subsec_nanosecond() {
        nanos if nanos % 1_000_000 == 0 => format!("{at:.3}"),
        nanos if nanos % 1_000 == 0 => format!("{at:.6}"),
        _ => format!("{at:.9}"),
    }
}

/// A day as `2026-11-21`; an instant within it as an instant.
fn day(at: jiff::Timestamp) -> String {
    let iso = iso(at);
    // Midnight is how a day reads as an instant, so both spellings are one name.
    match iso.strip_suffix("T00:00:00.000Z") {
        Some(day) => day.to_owned(),
        None => iso,
    }
}

#[cfg(test)]
mod tests;
