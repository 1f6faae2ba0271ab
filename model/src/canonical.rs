//! Canonical: bytes that are equal for whatever means the same, however it was written.
//!
//! The members of every object are put in one order, and a number is its value: `1.0`, `1` and
//! `1e0` are equal, as a client that writes its request anew may send any of them. A number of more
//! than 28 digits is its text. Nothing reads these bytes back; they are only hashed. Where
//! JSON is a name, it has a canonical text instead.

use rust_decimal::Decimal;
use serde::ser::{self, Serialize};

use crate::hash::Hash;
use crate::value::Number;

/// Names what a value means: two have the same hash where they differ only in how they are written.
pub fn hash<T: Serialize>(value: &T) -> Hash {
    Hash(*blake3::hash(&bytes(value)).as_bytes())
}

/// The canonical bytes of a value.
///
/// # Panics
/// When a type cannot be written at all: none of ours refuses.
pub(crate) fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    // Most commands are shorter: no growing while they are hashed.
    let mut writer = CanonicalWriter(Vec::with_capacity(256));
    value.serialize(&mut writer).expect("our types can all be written");
    writer.0
}

struct CanonicalWriter(Vec<u8>);

/// A type's own complaint while it is written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct CanonicalError(String);

impl ser::Error for CanonicalError {
    fn custom<T: std::fmt::Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

impl CanonicalWriter {
    fn put<const N: usize>(&mut self, bytes: [u8; N]) -> Result<(), CanonicalError> {
        self.0.extend_from_slice(&bytes);
        Ok(())
    }

    /// Begins something of so many parts. Their number stands first, so that no two values have the
    /// same bytes: each part is read from the left without knowing what follows.
    fn put_len(&mut self, len: Option<usize>) -> Result<(), CanonicalError> {
        let len =
            len.ok_or_else(|| CanonicalError("a list whose length is not known".to_owned()))?;
        self.put((len as u64).to_le_bytes())
    }

    fn put_text(&mut self, text: &[u8]) -> Result<(), CanonicalError> {
        self.put_len(Some(text.len()))?;
        self.0.extend_from_slice(text);
        Ok(())
    }
}

/// The items of a list, tuple or struct, behind their number.
struct ElementWriter<'a>(&'a mut CanonicalWriter);

impl ElementWriter<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), CanonicalError> {
        item.serialize(&mut *self.0)
    }
}

/// The members of a map, behind their number, put in order when all are written.
struct MapWriter<'a> {
    writer: &'a mut CanonicalWriter,
    /// Where each member begins.
    starts: Vec<usize>,
}

impl<'a> ser::Serializer for &'a mut CanonicalWriter {
    type Ok = ();
    type Error = CanonicalError;
    type SerializeSeq = ElementWriter<'a>;
    type SerializeTuple = ElementWriter<'a>;
    type SerializeTupleStruct = ElementWriter<'a>;
    type SerializeTupleVariant = ElementWriter<'a>;
    type SerializeMap = MapWriter<'a>;
    type SerializeStruct = ElementWriter<'a>;
    type SerializeStructVariant = ElementWriter<'a>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Result<(), CanonicalError> {
        self.put([u8::from(value)])
    }

    fn serialize_i8(self, value: i8) -> Result<(), CanonicalError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), CanonicalError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), CanonicalError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), CanonicalError> {
        self.put(value.to_le_bytes())
    }

    fn serialize_u8(self, value: u8) -> Result<(), CanonicalError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), CanonicalError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), CanonicalError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), CanonicalError> {
        self.put(value.to_le_bytes())
    }

    fn serialize_f32(self, value: f32) -> Result<(), CanonicalError> {
        self.put(value.to_bits().to_le_bytes())
    }

    fn serialize_f64(self, value: f64) -> Result<(), CanonicalError> {
        self.put(value.to_bits().to_le_bytes())
    }

    fn serialize_char(self, value: char) -> Result<(), CanonicalError> {
        self.put(u32::from(value).to_le_bytes())
    }

    fn serialize_str(self, text: &str) -> Result<(), CanonicalError> {
        self.put_text(text.as_bytes())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), CanonicalError> {
        self.put_text(bytes)
    }

    fn serialize_none(self) -> Result<(), CanonicalError> {
        self.put([0])
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CanonicalError> {
        self.put([1])?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), CanonicalError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CanonicalError> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        place: u32,
        _: &'static str,
    ) -> Result<(), CanonicalError> {
        self.put(place.to_le_bytes())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        place: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), CanonicalError> {
        self.put(place.to_le_bytes())?;
        let start = self.0.len();
        value.serialize(&mut *self)?;
        // Only here is a number seen as one: everywhere else its digits are a text like any other.
        if (name, variant) == crate::value::POSTCARD_NUMBER {
            // What was just written is the number's text behind its length.
            let text = String::from_utf8_lossy(&self.0[start + 8..]).into_owned();
            self.0.truncate(start);
            self.put_text(value_of(text).as_bytes())?;
        }
        Ok(())
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<ElementWriter<'a>, CanonicalError> {
        self.put_len(len)?;
        Ok(ElementWriter(self))
    }

    fn serialize_tuple(self, len: usize) -> Result<ElementWriter<'a>, CanonicalError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        len: usize,
    ) -> Result<ElementWriter<'a>, CanonicalError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        place: u32,
        _: &'static str,
        len: usize,
    ) -> Result<ElementWriter<'a>, CanonicalError> {
        self.put(place.to_le_bytes())?;
        self.serialize_seq(Some(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<MapWriter<'a>, CanonicalError> {
        self.put_len(len)?;
        Ok(MapWriter { writer: self, starts: Vec::new() })
    }

    fn serialize_struct(
        self,
        _: &'static str,
        len: usize,
    ) -> Result<ElementWriter<'a>, CanonicalError> {
        self.serialize_seq(Some(len))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        place: u32,
        _: &'static str,
        len: usize,
    ) -> Result<ElementWriter<'a>, CanonicalError> {
        self.put(place.to_le_bytes())?;
        self.serialize_seq(Some(len))
    }
}

/// A number's value, if it has at most 28 digits; else its text.
fn value_of(text: String) -> String {
    match Number::parse(&text).and_then(|number| number.to_decimal()) {
        Some(decimal) if decimal.is_zero() => Decimal::ZERO.to_string(),
        Some(decimal) => decimal.normalize().to_string(),
        None => text,
    }
}

macro_rules! items {
    ($($trait:ident $method:ident;)*) => {
        $(impl ser::$trait for ElementWriter<'_> {
            type Ok = ();
            type Error = CanonicalError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
                self.item(value)
            }

            fn end(self) -> Result<(), CanonicalError> {
                Ok(())
            }
        })*
    };
}

items! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! fields {
    ($($trait:ident)*) => {
        $(impl ser::$trait for ElementWriter<'_> {
            type Ok = ();
            type Error = CanonicalError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), CanonicalError> {
                self.item(value)
            }

            fn end(self) -> Result<(), CanonicalError> {
                Ok(())
            }
        })*
    };
}

fields!(SerializeStruct SerializeStructVariant);

impl ser::SerializeMap for MapWriter<'_> {
    type Ok = ();
    type Error = CanonicalError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CanonicalError> {
        self.starts.push(self.writer.0.len());
        key.serialize(&mut *self.writer)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CanonicalError> {
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), CanonicalError> {
        if let Some(first) = self.starts.first().copied() {
            let written = self.writer.0.split_off(first);
            let ends = self.starts.iter().skip(1).map(|next| next - first).chain([written.len()]);
            let mut members: Vec<&[u8]> = self
                .starts
                .iter()
                .zip(ends)
                .map(|(start, end)| &written[start - first..end])
                .collect();
            // By their bytes, not their names: the order only has to be the same for equal members.
            members.sort_unstable();
            members.iter().for_each(|member| self.writer.0.extend_from_slice(member));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn of(json: &str) -> Vec<u8> {
        bytes(&Value::from_json(json.as_bytes()).unwrap())
    }

    #[test]
    fn the_order_of_members_does_not_count_at_any_depth() {
        let one = of(r#"{"a":1,"b":[{"x":true,"y":{"p":null,"q":"r"}}]}"#);
        let two = of(r#"{"b":[{"y":{"q":"r","p":null},"x":true}],"a":1}"#);
        assert_eq!(one, two);
    }

    #[test]
    fn the_order_of_items_does() {
        assert_ne!(of("[1,2]"), of("[2,1]"));
    }

    #[test]
    fn a_number_is_its_value() {
        for (one, two) in [("1.0", "1"), ("1e2", "100.00"), ("-0", "0.0"), ("0.10", "0.1")] {
            assert_eq!(of(one), of(two), "{one} {two}");
        }
    }

    #[test]
    fn what_differs_has_other_bytes() {
        let all = [
            "1",
            "2",
            r#""1""#,
            "null",
            "false",
            "true",
            "[]",
            "{}",
            "[[]]",
            "[[],[]]",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1,"b":1}"#,
            r#"{"b":1}"#,
            r#"["a"]"#,
            r#"["a",""]"#,
            r#"["","a"]"#,
            "0.10000000000000000000000000000000000001",
            "0.10000000000000000000000000000000000002",
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().map(|json| of(json)).collect();
        assert_eq!(distinct.len(), all.len());
    }
}
