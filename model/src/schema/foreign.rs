//! Foreign: how a value is found in what was sent, and how a referenced record becomes its id.
//!
//! Clients read references populated as `{id, name}` and send them back so; both an insert and a
//! merge reduce them to the id (the original did so at insert only, and stored the object at
//! merge). The snake_case twin of a field's name is accepted by both alike, unless another field
//! of the table has that very name.

use crate::schema::{Field, Table};
use crate::value::{Object, Value};

impl Table {
    /// What was sent for a field: under its name, else, if that is missing, `null` or empty,
    /// under its column's. References are reduced. `None` where nothing was sent.
    pub fn sent_value(&self, sent: &Object, field: &Field) -> Option<Value> {
        let named = sent.get(&field.name);
        let value = match named {
            Some(value) if !value.is_null() && value.as_str() != Some("") => Some(value),
            Some(_) | None => self.twin_value(sent, field).or(named),
        };
        value.map(|value| if field.references.is_some() { reduce(value) } else { value.clone() })
    }

    fn twin_value<'a>(&self, sent: &'a Object, field: &Field) -> Option<&'a Value> {
        if field.column == field.name || self.fields.iter().any(|f| f.name == field.column) {
            return None;
        }
        sent.get(&field.column)
    }
}

/// A referenced record becomes its `id`, else its `name`; anything else stays what it is.
fn reduce(value: &Value) -> Value {
    let part = |name| value.get(name).filter(|part| part.key_text().is_some_and(|t| !t.is_empty()));
    part("id").or_else(|| part("name")).unwrap_or(value).clone()
}
