//! Notation: the shape of a JSON value in one line, as docs/protocol.md writes shapes.
//!
//! ```text
//!   text  int  number  flag  any  object      what a member holds
//!   'open'|'closed'                           one of these words
//!   [text]                                    a list
//!   {id: text, label?: text, *: any}          members; `?` may be missing, `*` any other name
//!   Record                                    a named shape of `shapes`
//!   int?                                      or null
//! ```

use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};

/// Reads one shape.
///
/// # Errors
/// In words, where the notation is not kept.
pub(crate) fn read(text: &str) -> Result<RefOr<Schema>, String> {
    let mut reader = NotationReader { rest: text.trim() };
    let shape = reader.shape()?;
    if reader.rest.is_empty() {
        return Ok(shape);
    }
    Err(format!("{:?} follows the shape {text:?}", reader.rest))
}

struct NotationReader<'a> {
    rest: &'a str,
}

impl<'a> NotationReader<'a> {
    fn shape(&mut self) -> Result<RefOr<Schema>, String> {
        let plain = match self.rest.chars().next() {
            Some('{') => self.object()?,
            Some('[') => {
                self.expect('[')?;
                let items = self.shape()?;
                self.expect(']')?;
                ArrayBuilder::new().items(items).into()
            }
            Some('\'') => self.words()?,
            Some(_) | None => self.named()?,
        };
        if !self.take('?') {
            return Ok(plain);
        }
        let null = ObjectBuilder::new().schema_type(Type::Null);
        Ok(RefOr::T(AnyOfBuilder::new().item(plain).item(null).into()))
    }

    fn object(&mut self) -> Result<RefOr<Schema>, String> {
        self.expect('{')?;
        let mut object = ObjectBuilder::new().schema_type(Type::Object);
        while !self.take('}') {
            if self.take('*') {
                self.expect(':')?;
                object =
                    object.additional_properties(Some(AdditionalProperties::RefOr(self.shape()?)));
            } else {
                let name = self.word();
                if name.is_empty() {
                    return Err(format!("a member's name is missing before {:?}", self.rest));
                }
                if !self.take('?') {
                    object = object.required(name);
                }
                self.expect(':')?;
                object = object.property(name, self.shape()?);
            }
            if !self.take(',') && !self.rest.starts_with('}') {
                return Err(format!("',' or '}}' is missing before {:?}", self.rest));
            }
        }
        Ok(object.into())
    }

    fn words(&mut self) -> Result<RefOr<Schema>, String> {
        let mut words = Vec::new();
        loop {
            self.expect('\'')?;
            let (word, rest) = self.rest.split_once('\'').ok_or("a word has no end")?;
            words.push(word.to_owned());
            self.rest = rest.trim_start();
            if !self.take('|') {
                break;
            }
        }
        Ok(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into())
    }

    fn named(&mut self) -> Result<RefOr<Schema>, String> {
        let of = |r#type: Type| ObjectBuilder::new().schema_type(r#type).into();
        Ok(match self.word() {
            "text" => of(Type::String),
            "int" => of(Type::Integer),
            "number" => of(Type::Number),
            "flag" => of(Type::Boolean),
            "object" => of(Type::Object),
            "any" => ObjectBuilder::new().schema_type(SchemaType::AnyValue).into(),
            name if name.starts_with(|first: char| first.is_ascii_uppercase()) => {
                RefOr::Ref(Ref::from_schema_name(name))
            }
            name => return Err(format!("{name:?} before {:?} is no shape", self.rest)),
        })
    }

    /// Letters, digits, `_`, `-` and `$`, as many as there are.
    fn word(&mut self) -> &'a str {
        let is_in = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
        let end = self.rest.find(|c| !is_in(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn take(&mut self, mark: char) -> bool {
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, mark: char) -> Result<(), String> {
        if self.take(mark) {
            return Ok(());
        }
        Err(format!("{mark:?} is missing before {:?}", self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        serde_json::to_string(&read(text).unwrap()).unwrap()
    }

    #[test]
    fn shapes_are_read_as_they_are_written() {
        assert_eq!(json("text"), r#"{"type":"string"}"#);
        assert_eq!(json("[ int ]"), r#"{"type":"array","items":{"type":"integer"}}"#);
        assert_eq!(json("'a'|'b'"), r#"{"type":"string","enum":["a","b"]}"#);
        assert_eq!(json("Record"), r##"{"$ref":"#/components/schemas/Record"}"##);
        assert_eq!(json("int?"), r#"{"anyOf":[{"type":"integer"},{"type":"null"}]}"#);
        let object: serde_json::Value =
            serde_json::from_str(&json("{id: text, at?: any, *: flag}")).unwrap();
        assert_eq!(object["required"], serde_json::json!(["id"]));
        assert_eq!(object["properties"]["at"], serde_json::json!({}));
        assert_eq!(object["additionalProperties"]["type"], "boolean");
    }

    #[test]
    fn what_is_not_in_the_notation_is_refused() {
        for bad in ["", "{", "[text", "{: text}", "{a text}", "{a: text b: text}", "tex", "int int"]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
