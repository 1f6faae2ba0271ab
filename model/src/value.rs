//! Value: JSON that also survives postcard, with numbers and key order kept exactly as given.
//!
//! `0.10` stays `0.10` and `1234567890123456.789` keeps every digit, because a number is its text
//! until somebody computes with it as a decimal. `serde_json::Value` can promise neither, and
//! postcard cannot read it back.
//!
//! Refused: nesting deeper than [`DEPTH_MAX`], a lone surrogate, anything `serde_json` refuses.
//! Of a key given twice the last value wins, in the first one's place, as in JavaScript.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::de::{self, DeserializeOwned};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::limits::ALLOCATION_BYTES;

mod json_error;
mod spelled;

pub use json_error::BadJson;

/// Deepest nesting of arrays and objects that is read.
pub const DEPTH_MAX: usize = 64;
/// Longest number that is read, in characters: far beyond any decimal, short of a memory attack.
pub const NUMBER_CHARS_MAX: usize = 400;

/// One JSON value.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as its text.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

/// A JSON number as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(Box<str>);

impl Number {
    /// Takes a text that is a JSON number; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        // `RawValue` accepts any JSON and spaces around it; a number has neither.
        let starts = text.bytes().next().is_some_and(|b| b == b'-' || b.is_ascii_digit());
        let raw = (starts && text.len() <= NUMBER_CHARS_MAX)
            .then(|| serde_json::from_str::<&RawValue>(text).ok())
            .flatten()?;
        (raw.get().len() == text.len()).then(|| Self(text.into()))
    }

    /// The number as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The exact value, if it has at most 28 digits.
    pub fn to_decimal(&self) -> Option<Decimal> {
        match self.0.split_once(['e', 'E']) {
            None => Decimal::from_str_exact(&self.0).ok(),
            Some((mantissa, exponent)) => {
                Decimal::from_str_exact(&shifted(mantissa, exponent.parse().ok()?)?).ok()
            }
        }
    }

    /// The value as a whole number, if it is one that fits.
    pub fn to_u64(&self) -> Option<u64> {
        use rust_decimal::prelude::ToPrimitive;
        self.0
            .parse()
            .ok()
            .or_else(|| self.to_decimal().filter(|decimal| decimal.fract().is_zero())?.to_u64())
    }
}

/// A number's digits with the point moved, `1.25` by 3 as `1250`; `None` where no decimal reaches.
/// The decimal library's own reader rounds a long mantissa, which is not what exact means.
fn shifted(mantissa: &str, by: i32) -> Option<String> {
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    // A decimal has 28 digits: a larger exponent would only make a text that nothing reads, and one
    // of a client's choosing would fill memory.
    let zeros = "0".repeat(usize::try_from(by.unsigned_abs()).ok().filter(|by| *by <= 64)?);
    let moved = if by < 0 {
        let whole = format!("{zeros}{whole}");
        let (whole, small) = whole.split_at(whole.len() - zeros.len());
        format!("{whole}.{small}{fraction}")
    } else {
        let fraction = format!("{fraction}{zeros}");
        let (large, fraction) = fraction.split_at(zeros.len());
        format!("{whole}{large}.{fraction}")
    };
    let trimmed = moved.trim_end_matches('0').trim_end_matches('.').trim_start_matches('0');
    let zero = if trimmed.is_empty() || trimmed.starts_with('.') { "0" } else { "" };
    Some(format!("{sign}{zero}{trimmed}"))
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<Decimal> for Number {
    fn from(number: Decimal) -> Self {
        Self(number.to_string().into())
    }
}

impl Value {
    /// Reads JSON text.
    ///
    /// # Errors
    /// [`BadJson`] with serde_json's reason, or that it nests too deep, and the place.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BadJson> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| BadJson::at(bytes, error.valid_up_to(), "not UTF-8"))?;
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| BadJson::of_reader(bytes, 0, &error))?;
        from_raw(raw, 0, text)
    }

    /// The text or number under a path of member names, also out of text that
    /// [`from_json`](Self::from_json) refuses: for telling its sender which request was refused.
    pub fn find_in_json(bytes: &[u8], path: &[&str]) -> Option<Self> {
        json_error::scalar(bytes, path)
    }

    /// Writes JSON text without spaces.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a Value is always JSON")
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// The items of an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }

    /// The value of a bool.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// The number, if it is a whole one that fits.
    pub fn as_u64(&self) -> Option<u64> {
        if let Self::Number(number) = self { number.to_u64() } else { None }
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// A member of an object; `None` also where this is no object.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.as_object()?.get(name)
    }

    /// What a string or number key shows as: the text, the number's text; `None` for the rest.
    pub fn key_text(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Number(number) => Some(number.as_str()),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Null | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The text it is compared and named by in keys and indexes: a number's one spelling, so that
    /// `1.0` and `1` are one, and a list's or object's too; `None` for `null`, which is equal to
    /// nothing. Of a field, [`FieldType::name_text`](crate::FieldType::name_text) is asked instead.
    pub fn name_text(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Number(number) => Some(number.canonical().into_owned()),
            Self::String(text) => Some(text.clone()),
            Self::Bool(_) => Some(self.to_json()),
            Self::Array(_) | Self::Object(_) => Some(self.spelled().to_json()),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Self {
        Self::Array(items)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl Value {
    /// About how many bytes of memory it takes beside its own place.
    fn memory_bytes(&self) -> u64 {
        match self {
            Self::Null | Self::Bool(_) => 0,
            Self::Number(number) => ALLOCATION_BYTES + number.as_str().len() as u64,
            Self::String(text) => ALLOCATION_BYTES + text.len() as u64,
            Self::Array(values) => {
                let own = (values.len() * size_of::<Self>()) as u64;
                values
                    .iter()
                    .map(Self::memory_bytes)
                    .fold(ALLOCATION_BYTES + own, u64::wrapping_add)
            }
            Self::Object(object) => ALLOCATION_BYTES + object.memory_bytes(),
        }
    }
}

/// The members of a JSON object, in the order given. Names are shared text: the records of a
/// table share the schema's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object(Vec<(Arc<str>, Value)>);

crate::versioned!(Object => Record);

impl Object {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty object with capacity for this many members.
    pub fn with_capacity(members: usize) -> Self {
        Self(Vec::with_capacity(members))
    }

    /// About how many bytes of memory it takes: its members and their texts. Names are not counted,
    /// which the records of a table share.
    pub(crate) fn memory_bytes(&self) -> u64 {
        const MEMBER: usize = size_of::<(Arc<str>, Value)>();
        let texts: u64 = self.0.iter().map(|(_, value)| value.memory_bytes()).sum();
        (self.0.len() * MEMBER) as u64 + texts
    }

    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| &**key == name).map(|(_, value)| value)
    }

    /// Sets a member: in its place if it exists, else at the end. Returns the old value.
    pub fn insert(
        &mut self,
        name: impl Into<Arc<str>> + AsRef<str>,
        value: Value,
    ) -> Option<Value> {
        match self.0.iter_mut().find(|(key, _)| **key == *name.as_ref()) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((name.into(), value));
                None
            }
        }
    }

    /// Takes a member out, keeping the order of the rest.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let place = self.0.iter().position(|(key, _)| &**key == name)?;
        Some(self.0.remove(place).1)
    }

    /// Adds a member known to be new. For building in schema order without a search.
    pub fn push(&mut self, name: Arc<str>, value: Value) {
        debug_assert!(self.get(&name).is_none(), "{name} is already a member");
        self.0.push((name, value));
    }

    /// The members in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Arc<str>, &Value)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<Arc<str>> + AsRef<str>, V: Into<Value>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        // A linear search for each member would make a large object of a client quadratic.
        let mut seen = BTreeMap::new();
        let mut object = Self::new();
        for (name, value) in members {
            let (name, value) = (name.into(), value.into());
            if let Some(&place) = seen.get(&name) {
                let member: &mut (Arc<str>, Value) = &mut object.0[place];
                member.1 = value;
            } else {
                seen.insert(Arc::clone(&name), object.0.len());
                object.0.push((name, value));
            }
        }
        object
    }
}

impl IntoIterator for Object {
    type Item = (Arc<str>, Value);
    type IntoIter = std::vec::IntoIter<(Arc<str>, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Reads a part of `whole`; only that says where in it something is wrong.
fn from_raw(raw: &RawValue, depth: usize, whole: &str) -> Result<Value, BadJson> {
    let text = raw.get();
    // A raw value is a slice of the text it was read from.
    let begin = || (text.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    let bad = |reason: String| BadJson::at(whole.as_bytes(), begin(), reason);
    let read = |error: serde_json::Error| BadJson::of_reader(whole.as_bytes(), begin(), &error);
    let deeper = || match depth < DEPTH_MAX {
        true => Ok(()),
        false => Err(bad(format!("nested deeper than {DEPTH_MAX}"))),
    };
    Ok(match text.as_bytes().first() {
        // Nested values stay text until their depth is known: a parser that descends by itself
        // would use the stack as deep as the sender likes.
        Some(b'{') => {
            deeper()?;
            let RawMembers(members) = serde_json::from_str(text).map_err(read)?;
            let members: Result<Vec<_>, _> = members
                .into_iter()
                .map(|(name, raw)| Ok((name, from_raw(raw, depth + 1, whole)?)))
                .collect();
            Value::Object(members?.into_iter().collect())
        }
        Some(b'[') => {
            deeper()?;
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(read)?;
            let items = items.into_iter().map(|raw| from_raw(raw, depth + 1, whole));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Some(b'"') => Value::String(serde_json::from_str(text).map_err(read)?),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        _ if text.len() <= NUMBER_CHARS_MAX => Value::Number(Number(text.into())),
        _ => return Err(bad(format!("a number of more than {NUMBER_CHARS_MAX} characters"))),
    })
}

/// An object's members still as text.
struct RawMembers<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<RawMembers<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(RawMembers(members))
            }
        }
        from.deserialize_map(Visitor)
    }
}

/// The type and variant under which a number is given to a serializer that is not for people.
pub(crate) const POSTCARD_NUMBER: (&str, &str) = ("Packed", "Number");

/// How a value looks to postcard. Append-only.
#[derive(Deserialize)]
enum PostcardValue {
    Null,
    Bool(bool),
    Number(Box<str>),
    String(String),
    Array(Vec<Value>),
    Object(Object),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // postcard cannot read a value whose type it does not know: there it is an enum.
        if !to.is_human_readable() {
            return self.pack(to);
        }
        match self {
            Self::Null => to.serialize_unit(),
            Self::Bool(value) => to.serialize_bool(*value),
            Self::Number(number) => {
                RawValue::from_string(number.0.to_string()).map_err(S::Error::custom)?.serialize(to)
            }
            Self::String(text) => to.serialize_str(text),
            Self::Array(items) => {
                let mut seq = to.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Object(object) => object.serialize(to),
        }
    }
}

impl Value {
    /// Writes what [`PostcardValue`] reads, without a copy: variant indexes and names must be
    /// equal.
    fn pack<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        const NAME: &str = POSTCARD_NUMBER.0;
        match self {
            Self::Null => to.serialize_unit_variant(NAME, 0, "Null"),
            Self::Bool(value) => to.serialize_newtype_variant(NAME, 1, "Bool", value),
            Self::Number(number) => {
                to.serialize_newtype_variant(NAME, 2, POSTCARD_NUMBER.1, &*number.0)
            }
            Self::String(text) => to.serialize_newtype_variant(NAME, 3, "String", text),
            Self::Array(items) => to.serialize_newtype_variant(NAME, 4, "Array", items),
            Self::Object(object) => to.serialize_newtype_variant(NAME, 5, "Object", object),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(&**name, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            let raw = Box::<RawValue>::deserialize(from)?;
            return from_raw(&raw, 0, raw.get()).map_err(de::Error::custom);
        }
        unpack(from)
    }
}

fn unpack<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    Ok(match PostcardValue::deserialize(from)? {
        PostcardValue::Null => Value::Null,
        PostcardValue::Bool(value) => Value::Bool(value),
        PostcardValue::Number(text) => Value::Number(Number(text)),
        PostcardValue::String(text) => Value::String(text),
        PostcardValue::Array(items) => Value::Array(items),
        PostcardValue::Object(object) => Value::Object(object),
    })
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            return match Value::deserialize(from)? {
                Value::Object(object) => Ok(object),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_) => Err(de::Error::custom("expected a JSON object")),
            };
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                // The size comes from the bytes: damaged ones must not reserve all memory.
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(0).min(1024));
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    members.push((Arc::from(name), value));
                }
                Ok(Object(members))
            }
        }
        from.deserialize_map(Visitor)
    }
}

/// Reads a typed value out of a [`Value`], by way of its JSON.
///
/// # Errors
/// The reader's reason, with the field's name.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, BadJson> {
    // By way of text, so that a number's digits reach the reader as they were written.
    let json = value.to_json();
    serde_json::from_str(&json).map_err(|error| BadJson::of_reader(json.as_bytes(), 0, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn numbers_and_order_come_back_as_they_were_given() {
        let text = r#"{"b":0.10,"a":1234567890123456.789,"c":[1e3,-0],"d":{"z":"ن","y":null}}"#;
        let value = Value::from_json(text.as_bytes()).unwrap();
        assert_eq!(value.to_json(), text);
        assert_eq!(
            codec::decode_as::<Value>(
                codec::FormatKind::Test,
                &codec::encode_as(codec::FormatKind::Test, &value)
            )
            .unwrap(),
            value
        );
    }

    #[test]
    fn of_a_key_given_twice_the_last_value_wins_in_the_first_place() {
        let value = Value::from_json(br#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(value.to_json(), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn what_is_too_deep_or_broken_is_refused() {
        let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Value::from_json(nest(64).as_bytes()).is_ok());
        let deep = Value::from_json(nest(65).as_bytes()).unwrap_err();
        assert_eq!(deep.reason, "nested deeper than 64");
        for bad in ["", "{", r#""\ud800""#, "01", "{\"a\":}", "1 2"] {
            assert!(Value::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Value::from_json(&[b'"', 0xff, b'"']).is_err());
    }

    #[test]
    fn a_number_is_exact_as_a_decimal() {
        let number = Number::parse("0.10").unwrap();
        assert_eq!(number.to_decimal(), Some(Decimal::new(10, 2)));
        assert_eq!(Number::parse("1.0").unwrap().to_u64(), Some(1));
        assert_eq!(Number::parse("1e2").unwrap().to_u64(), Some(100));
        assert_eq!(Number::parse("-1").unwrap().to_u64(), None);
        assert!(Number::parse("NaN").is_none() && Number::parse("1 ").is_none());
        for (text, plain) in [
            ("1.25e3", Some("1250")),
            ("-12.5E-4", Some("-0.00125")),
            ("1.5e0", Some("1.5")),
            ("100e-2", Some("1")),
            ("0e60", Some("0")),
            ("1e+2", Some("100")),
            ("1.00000000000000000000000000000000001e0", None),
            ("1e64", None),
            ("1e99999999999", None),
        ] {
            let decimal = Number::parse(text).unwrap().to_decimal();
            assert_eq!(decimal.map(|decimal| decimal.to_string()).as_deref(), plain, "{text}");
        }
    }
}
