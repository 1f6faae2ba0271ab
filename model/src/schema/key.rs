//! Key: the values that name a record within its table, and the one text for them.
//!
//! Everybody who needs a record's key asks here: records as they are sent and as they are stored,
//! and texts a client sends to name a record it was shown (decision 17).
//!
//! ```text
//! one field        its text as it is                                  north::bar
//! several fields   their texts joined by `::`                         north::7
//!                  … where that could be read in two ways, or says
//!                  `~:` or `~~`: each `:` beside another or at an
//!                  edge of its text as `~:`, and a `~` that would be
//!                  read as such a mark as `~~`                        A~:::1
//! a number         without exponent and useless zeros                 1.5
//! an instant       in UTC, with milliseconds          2026-11-21T18:30:00.000Z
//! JSON             without spaces, members by name              {"a":1,"b":2}
//! ```
//!
//! Promise: different values have different keys, whatever characters they hold, and a key is read
//! back to the values it was made of. Refused: a text that is no key of the table as it would be
//! written here; nothing is guessed from the left or the right.

use std::borrow::Cow;
use std::sync::Arc;

use crate::ids::RecordKey;
use crate::limits::RECORD_KEY_BYTES_MAX;
use crate::reject::Reject;
use crate::schema::spelling::is_empty;
use crate::schema::{Field, Table};
use crate::value::{Object, Value};

/// What joins the values of a key of several fields.
const SEPARATOR: &str = "::";
/// Before a `:` that joins nothing, and before itself.
const MARK: char = '~';

impl Table {
    /// The key of a record as sent or as stored.
    ///
    /// # Errors
    /// [`Reject::MissingKey`] naming the first key field without a value, and
    /// [`Reject::KeyTooLong`] over [`RECORD_KEY_BYTES_MAX`].
    pub fn key_of(&self, record: &Object) -> Result<RecordKey, Reject> {
        let values = self.sent_key(record)?;
        let parts: Vec<String> =
            values.iter().filter_map(|(field, value)| field.kind.name_text(value)).collect();
        let key = joined(&parts);
        if key.len() > RECORD_KEY_BYTES_MAX {
            let (table, bytes) = (self.name.to_string(), key.len() as u64);
            return Err(Reject::KeyTooLong { table, bytes });
        }
        Ok(RecordKey(key.into()))
    }

    /// Refuses a record whose key is longer than a key may be, for those who would otherwise carry
    /// megabytes to where it is refused. Costs little where no text in the key is long.
    ///
    /// # Errors
    /// [`Reject::KeyTooLong`].
    pub fn check_key_length(&self, record: &Object) -> Result<(), Reject> {
        let text = |name: &Arc<str>| {
            let sent = record.get(name).or_else(|| record.get(&self.field(name)?.column))?;
            Some(sent.as_str()?.len())
        };
        let bytes: usize = self.key.iter().filter_map(text).sum();
        if bytes <= RECORD_KEY_BYTES_MAX {
            return Ok(());
        }
        match self.key_of(record) {
            Err(refused @ Reject::KeyTooLong { .. }) => Err(refused),
            // What else is wrong with it the branch says, which knows what is stored.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The key fields with their values, as the wire's `primaryKey` shows them: one sent as
    /// `payment_id` is named `id`, and a referenced record is reduced to its id.
    ///
    /// # Errors
    /// [`Reject::MissingKey`] naming the first key field without a value.
    pub fn key_values(&self, record: &Object) -> Result<Object, Reject> {
        let mut values = Object::with_capacity(self.key.len());
        let sent = self.sent_key(record)?;
        for (name, (field, value)) in self.key.iter().zip(sent) {
            values.push(name.clone(), field.as_stored(value));
        }
        Ok(values)
    }

    /// The key fields, each with its value as it was sent.
    fn sent_key(&self, record: &Object) -> Result<Vec<(&Field, Value)>, Reject> {
        let value = |name: &Arc<str>| {
            let field = self.field(name)?;
            let value = self.sent_value(record, field)?;
            (!is_empty(&value)).then_some((field, value))
        };
        let missing = |name: &str| Reject::MissingKey {
            table: self.name.to_string(),
            field: name.to_owned(),
        };
        self.key.iter().map(|name| value(name).ok_or_else(|| missing(name))).collect()
    }

    /// The key a client names by its text, in any spelling of its values; `None` where no record
    /// of this table can have it.
    pub fn key_named(&self, text: &str) -> Option<RecordKey> {
        self.key_of(&self.fields_named(text)?).ok()
    }

    /// The key fields with the texts of their values, read from a key as it is written here; `None`
    /// where it is none.
    pub fn fields_named(&self, text: &str) -> Option<Object> {
        let parts = split(text, self.key.len())?;
        let values = parts.into_iter().map(|part| Value::String(part.into_owned()));
        Some(self.key.iter().cloned().zip(values).collect())
    }

    /// The key a client names by whatever value: its text or number, the values of its fields as a
    /// list, or an object with its fields.
    pub fn key_meant(&self, value: &Value) -> Option<RecordKey> {
        match value {
            Value::Object(fields) => self.key_of(fields).ok(),
            Value::Array(values) if values.len() == self.key.len() => {
                let fields = self.key.iter().cloned().zip(values.iter().cloned());
                self.key_of(&fields.collect()).ok()
            }
            Value::Array(_) => None,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.key_named(&value.name_text()?)
            }
        }
    }
}

/// The text of a key; no part is empty.
fn joined(parts: &[String]) -> String {
    if let [one] = parts {
        return one.clone();
    }
    // Nearly all keys: plain ones stay readable and equal to what clients join themselves.
    let plain = parts.join(SEPARATOR);
    if !is_marked(&plain) && split_plain(&plain, parts.len()).is_some() {
        return plain;
    }
    let marked: Vec<String> = parts.iter().map(|part| marked(part)).collect();
    marked.join(SEPARATOR)
}

/// The parts of a key of so many fields.
fn split(text: &str, count: usize) -> Option<Vec<Cow<'_, str>>> {
    if count == 1 {
        return (!text.is_empty()).then(|| vec![Cow::Borrowed(text)]);
    }
    if !is_marked(text) {
        let parts = split_plain(text, count)?;
        return Some(parts.into_iter().map(Cow::Borrowed).collect());
    }
    let parts = split_marked(text);
    // Only as it would be written: marks that are not needed may be a client's own joining.
    let is_ours =
        parts.len() == count && !parts.iter().any(String::is_empty) && joined(&parts) == text;
    is_ours.then(|| parts.into_iter().map(Cow::Owned).collect())
}

/// Whether a text holds a mark, so that it is read with marks.
fn is_marked(text: &str) -> bool {
    text.contains("~:") || text.contains("~~")
}

/// The only so many parts the text can be joined of; `None` where there are several ways, or none.
fn split_plain(text: &str, count: usize) -> Option<Vec<&str>> {
    // Taken as early as possible and as late as possible, the cuts are the same if there is but
    // one way.
    let (mut rest, mut early) = (text, Vec::with_capacity(count));
    for _ in 1..count {
        let start = rest.chars().next()?.len_utf8();
        let cut = start + rest.get(start..)?.find(SEPARATOR)?;
        early.push(&rest[..cut]);
        rest = &rest[cut + SEPARATOR.len()..];
    }
    early.push(rest);
    let (mut rest, mut late) = (text, Vec::with_capacity(count));
    for _ in 1..count {
        let end = rest.len() - rest.chars().next_back()?.len_utf8();
        let cut = rest.get(..end)?.rfind(SEPARATOR)?;
        late.push(&rest[cut + SEPARATOR.len()..]);
        rest = &rest[..cut];
    }
    late.push(rest);
    late.reverse();
    (early == late && !early.iter().any(|part| part.is_empty())).then_some(early)
}

/// A part so that nothing in it is read as the separator or a mark.
fn marked(part: &str) -> String {
    let mut text = String::with_capacity(part.len() + 4);
    let (mut before, mut rest) = (None, part.chars().peekable());
    while let Some(char) = rest.next() {
        let next = rest.peek().copied();
        // Only what would be misread is marked, so that a key has exactly one spelling.
        let is_read_as_mark = match char {
            ':' => matches!(before, None | Some(':')) || matches!(next, None | Some(':')),
            MARK => matches!(next, None | Some(':' | MARK)),
            _ => false,
        };
        if is_read_as_mark {
            text.push(MARK);
        }
        text.push(char);
        before = Some(char);
    }
    text
}

fn split_marked(text: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        match (char, rest.peek()) {
            (MARK, Some(&literal @ (':' | MARK))) => {
                part.push(literal);
                rest.next();
            }
            (':', Some(':')) => {
                parts.push(std::mem::take(&mut part));
                rest.next();
            }
            _ => part.push(char),
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::Schema;

    fn key(record: &str) -> Result<RecordKey, Reject> {
        let doc = r#"[{"name":"t","fields":[
            {"name":"orderId","type":"text","primaryKey":true,"references":"orders(id)"},
            {"name":"place","type":"integer","primaryKey":true},
            {"name":"note","type":"text"}]}]"#;
        let schema =
            Schema::from_definition("m", &Value::from_json(doc.as_bytes()).unwrap()).unwrap();
        let record = Value::from_json(record.as_bytes()).unwrap();
        schema.tables[0].key_of(record.as_object().unwrap())
    }

    #[test]
    fn a_key_is_the_same_however_it_is_sent() {
        for record in [
            r#"{"orderId":"o","place":1}"#,
            r#"{"place":"1","order_id":"o","note":"x"}"#,
            r#"{"place":"1.0","orderId":"o"}"#,
            r#"{"orderId":{"id":"o","name":"n"},"place":1.0}"#,
            r#"{"orderId":"","order_id":"o","place":1e0}"#,
        ] {
            assert_eq!(key(record).unwrap().as_str(), "o::1", "{record}");
        }
    }

    #[test]
    fn a_missing_part_is_named() {
        for record in [r#"{"orderId":"o"}"#, r#"{"orderId":"o","place":null}"#] {
            assert_eq!(
                key(record).unwrap_err().to_string(),
                "Missing primary key field \"place\" for table \"t\""
            );
        }
    }

    /// A table whose key has so many text fields.
    fn texts(count: usize) -> Table {
        let field = |n| format!(r#"{{"name":"f{n}","type":"text","primaryKey":true}}"#);
        let fields: Vec<String> = (0..count).map(field).collect();
        let doc = format!(r#"[{{"name":"t","fields":[{}]}}]"#, fields.join(","));
        let doc = Value::from_json(doc.as_bytes()).unwrap();
        (*Schema::from_definition("m", &doc).unwrap().tables[0]).clone()
    }

    fn key_of_texts(parts: &[&str]) -> String {
        let fields = parts.iter().enumerate().map(|(n, part)| (format!("f{n}"), *part));
        texts(parts.len()).key_of(&fields.collect()).unwrap().to_string()
    }

    #[test]
    fn a_key_is_marked_only_where_it_could_be_misread() {
        for (parts, key) in [
            (&["a", "b"][..], "a::b"),
            (&["a:b", "c:d"], "a:b::c:d"),
            (&["~a", "b~c"], "~a::b~c"),
            (&[":a", "b:"], ":a::b:"),
            (&["A:", "1"], "A~:::1"),
            (&["A", ":1"], "A::~:1"),
            (&["north", "bar::1"], "north::bar~:~:1"),
            (&["north::bar", "1"], "north~:~:bar::1"),
            (&["a~", "b"], "a~~::b"),
            (&["a~~b", "c"], "a~~~b::c"),
            (&["north", "bar", "1"], "north::bar::1"),
            (&["%3A", "\\:"], "%3A::\\:"),
        ] {
            assert_eq!(key_of_texts(parts), key);
        }
        assert_eq!(key_of_texts(&["a::b~:"]), "a::b~:", "a single field is its text");
    }

    #[test]
    fn what_a_client_joined_itself_and_can_be_misread_names_nothing() {
        let named = |text: &str| texts(2).key_named(text).map(|key| key.to_string());
        assert_eq!(named("a::b").as_deref(), Some("a::b"));
        assert_eq!(named("A~:::1").as_deref(), Some("A~:::1"));
        for text in ["A:::1", "north::bar::1", "a", "", "::", "a::", "::b", "a~~::b::c", "a~:b::c"]
        {
            assert_eq!(named(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_is_found_in_any_spelling_of_its_numbers_and_truths() {
        let doc = r#"[{"name":"t","fields":[
            {"name":"code","type":"decimal","primaryKey":true},
            {"name":"open","type":"boolean","primaryKey":true}]}]"#;
        let schema =
            Schema::from_definition("m", &Value::from_json(doc.as_bytes()).unwrap()).unwrap();
        let table = &schema.tables[0];
        for text in ["6221031490017::true", "6221031490017.0::1", "6.221031490017e12::yes"] {
            assert_eq!(table.key_named(text).unwrap().as_str(), "6221031490017::true", "{text}");
        }
        for json in ["[6221031490017.00,true]", r#"{"code":"6221031490017","open":"1"}"#] {
            let value = Value::from_json(json.as_bytes()).unwrap();
            assert_eq!(table.key_meant(&value).unwrap().as_str(), "6221031490017::true", "{json}");
        }
        assert_eq!(texts(1).key_named("1.0").unwrap().as_str(), "1.0", "texts are texts");
    }

    #[test]
    fn a_key_has_at_most_so_many_bytes_over_all_its_fields() {
        let most = "k".repeat(RECORD_KEY_BYTES_MAX);
        assert_eq!(key_of_texts(&[&most]).len(), RECORD_KEY_BYTES_MAX);
        let half = "k".repeat(RECORD_KEY_BYTES_MAX / 2);
        let fields = [("f0", half.as_str()), ("f1", half.as_str())].into_iter().collect();
        let refused = texts(2).key_of(&fields).unwrap_err();
        assert_eq!(refused, Reject::KeyTooLong { table: "t".to_owned(), bytes: 1026 });
        assert_eq!(
            refused.to_string(),
            "the key of a record of t has 1026 bytes; at most 1024 are taken, all its fields together"
        );
        let long = [("f0", most.as_str()), ("f1", "k")].into_iter().collect();
        let refused = Reject::KeyTooLong { table: "t".to_owned(), bytes: 1027 };
        assert_eq!(texts(2).check_key_length(&long), Err(refused));
        let fits = [("f0", half.as_str()), ("f1", "k")].into_iter().collect();
        assert_eq!(texts(2).check_key_length(&fits), Ok(()));
        assert_eq!(
            texts(2).check_key_length(&Object::new()),
            Ok(()),
            "the branch says what is missing"
        );
        assert_eq!(texts(1).key_named(&format!("{most}k")), None, "nothing has such a key");
    }

    /// Texts made of what keys are made of.
    fn any_part() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[:~a1%\\\\]{1,6}", 1 => "\\PC{1,5}", 1 => Just("ن".to_owned())]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        #[test]
        fn a_key_is_read_back_to_its_values(parts in prop::collection::vec(any_part(), 1..4)) {
            let table = texts(parts.len());
            let fields = parts.iter().enumerate().map(|(n, part)| (format!("f{n}"), part.as_str()));
            let fields: Object = fields.collect();
            let key = table.key_of(&fields).unwrap();
            prop_assert_eq!(table.fields_named(key.as_str()), Some(fields));
            prop_assert_eq!(table.key_named(key.as_str()), Some(key));
        }

        #[test]
        fn a_text_is_read_only_as_it_is_written(text in any_part(), count in 1_usize..4) {
            let table = texts(count);
            if let Some(key) = table.key_named(&text) {
                prop_assert_eq!(key.as_str(), text);
            }
        }
    }
}
