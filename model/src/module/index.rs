//! Index: which records of a table have these values in these fields.
//!
//! One shape for three questions: is the value taken (unique), is there anything to point at (the
//! far end of a foreign key), does anything still point here (the near end). Several records may
//! share a value: data that came in before a rule did is carried, never lost.

use std::sync::Arc;

use imbl::OrdSet;

use crate::ids::RecordKey;
use crate::schema::{FieldType, Table};
use crate::value::{Object, Value};

/// The fields of one index, in order.
pub(crate) type IndexFields = Vec<IndexField>;

/// A field of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexField {
    pub(crate) name: Arc<str>,
    /// What its values are read as: the kind of the field, or of the one it points at.
    pub(crate) kind: FieldType,
}

impl IndexField {
    /// A field of a table, as its own kind.
    pub(crate) fn of(table: &Table, name: &Arc<str>) -> Self {
        let kind = table.field(name).map_or(FieldType::Opaque, |field| field.kind);
        Self { name: Arc::clone(name), kind }
    }

    /// The text of its value in a record; `None` where there is none, or null.
    fn text(&self, record: &Object) -> Option<String> {
        self.kind.name_text(record.get(&self.name)?)
    }
}

/// Values of a set of fields, each with the keys of the records that have them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    entries: OrdSet<(Arc<str>, RecordKey)>,
}

impl Index {
    /// Follows one record's change.
    pub(crate) fn change(
        &mut self,
        key: &RecordKey,
        fields: &[IndexField],
        before: Option<&Object>,
        after: Option<&Object>,
    ) {
        let before = before.and_then(|record| values_text(record, fields));
        let after = after.and_then(|record| values_text(record, fields));
        if before == after {
            return;
        }
        if let Some(text) = before {
            self.entries.remove(&(text, key.clone()));
        }
        if let Some(text) = after {
            self.entries.insert((text, key.clone()));
        }
    }

    /// The first record with these values, other than `but`.
    pub(crate) fn find(&self, text: &Arc<str>, but: Option<&RecordKey>) -> Option<&RecordKey> {
        self.all(Arc::clone(text)).find(|key| Some(*key) != but)
    }

    /// All records with these values, in key order.
    pub(crate) fn all(&self, text: Arc<str>) -> impl Iterator<Item = &RecordKey> {
        let from = (Arc::clone(&text), RecordKey("".into()));
        self.entries.range(from..).take_while(move |(found, _)| *found == text).map(|(_, key)| key)
    }
}

/// The names of these fields, for people.
pub(crate) fn names(fields: &[IndexField]) -> String {
    let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
    names.join(", ")
}

/// The values of these fields as one text, equal where the values are; `None` where one of them is
/// missing or null, for null is equal to nothing.
pub(crate) fn values_text(record: &Object, fields: &[IndexField]) -> Option<Arc<str>> {
    if let [field] = fields {
        return field.text(record).map(Arc::from);
    }
    let texts: Option<Vec<Value>> =
        fields.iter().map(|field| field.text(record).map(Value::String)).collect();
    Some(Value::Array(texts?).to_json().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        Value::from_json(json.as_bytes()).unwrap().as_object().unwrap().clone()
    }

    fn text(json: &str, fields: &[&str]) -> Option<Arc<str>> {
        let field = |name: &&str| IndexField { name: Arc::from(*name), kind: FieldType::Opaque };
        let fields: IndexFields = fields.iter().map(field).collect();
        values_text(&object(json), &fields)
    }

    #[test]
    fn equal_values_have_equal_texts_and_null_has_none() {
        assert_eq!(text(r#"{"a":1.0}"#, &["a"]), text(r#"{"a":1}"#, &["a"]));
        assert_eq!(text(r#"{"a":null,"b":1}"#, &["a", "b"]), None);
        assert_eq!(text(r#"{"b":1}"#, &["a"]), None);
        assert_ne!(
            text(r#"{"a":"x\",\"y","b":"z"}"#, &["a", "b"]),
            text(r#"{"a":"x","b":"y\",\"z"}"#, &["a", "b"]),
        );
    }

    #[test]
    fn a_value_is_found_while_any_record_has_it() {
        let fields = vec![IndexField { name: "a".into(), kind: FieldType::String }];
        let mut index = Index::default();
        let (one, two) = (RecordKey("1".into()), RecordKey("2".into()));
        let record = object(r#"{"a":"x"}"#);
        index.change(&one, &fields, None, Some(&record));
        index.change(&two, &fields, None, Some(&record));
        let x: Arc<str> = "x".into();
        assert_eq!(index.find(&x, None), Some(&one));
        assert_eq!(index.find(&x, Some(&one)), Some(&two));
        index.change(&two, &fields, Some(&record), None);
        assert_eq!(index.find(&x, Some(&one)), None);
        assert_eq!(index.find(&"w".into(), None), None);
    }
}
