//! Foreign: how a value is found in what was sent, and how a referenced record becomes its id.
//!
//! Clients read references populated as `{id, name}` and send them back so; both an insert and a
//! merge reduce them to the id (the original did so at insert only, and stored the object at
//! merge). The column name of a field is accepted by both alike, unless another field
//! of the table has that very name.

use crate::schema::{Field, Table};
use crate::value::{Object, Value};

impl Table {
    /// What an insert takes for a field: what was sent under its name, else, where that is
    /// missing, `null` or empty, under its column's. `None` where nothing was sent.
    pub fn sent_value(&self, sent: &Object, field: &Field) -> Option<Value> {
        let named = sent.get(&field.name);
        let full = named.filter(|value| !value.is_null() && value.as_str() != Some(""));
        full.or_else(|| self.column_value(sent, field)).or(named).map(|value| field.reduced(value))
    }

    /// What a merge takes for a field: what was sent under its name, `null` and empty text too,
    /// else under its column's. `None` where nothing was sent.
    pub(super) fn patched_value(&self, patch: &Object, field: &Field) -> Option<Value> {
        let sent = patch.get(&field.name).or_else(|| self.column_value(patch, field));
        sent.map(|value| field.reduced(value))
    }

    /// What stands under the name of a field's column, unless another field has that very name.
    pub(crate) fn column_value<'a>(&self, sent: &'a Object, field: &Field) -> Option<&'a Value> {
        if field.column == field.name {
            return None;
        }
        let value = sent.get(&field.column)?;
        // Another field of that very name owns the value; taking it twice would copy it.
        (!self.fields.iter().any(|other| other.name == field.column)).then_some(value)
    }
}

impl Field {
    /// In a field that references, a record becomes its `id`, else its `name`; anything else
    /// stays what it is.
    pub(crate) fn reduced(&self, value: &Value) -> Value {
        if self.references.is_none() {
            return value.clone();
        }
        let part = |name| {
            let part = value.get(name)?;
            part.key_text().is_some_and(|text| !text.is_empty()).then_some(part)
        };
        part("id").or_else(|| part("name")).unwrap_or(value).clone()
    }
}
