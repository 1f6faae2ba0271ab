//! Key: the values that name a record within its table.

use crate::ids::RecordKey;
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

/// What joins the values of a key of several fields.
pub const KEY_SEPARATOR: &str = "::";

impl Table {
    /// The key of a record as sent or as stored: its key fields' values joined by `::`.
    ///
    /// # Errors
    /// [`Reject::MissingKey`] naming the first key field without a value.
    pub fn key_of(&self, record: &Object) -> Result<RecordKey, Reject> {
        let mut text = String::new();
        for (place, (_, value)) in self.key_values(record)?.into_iter().enumerate() {
            if place > 0 {
                text.push_str(KEY_SEPARATOR);
            }
            match value.key_text() {
                Some(part) => text.push_str(part),
                None => text.push_str(&value.to_json()),
            }
        }
        Ok(RecordKey(text.into()))
    }

    /// The key fields with their values, as the wire's `primaryKey` shows them: one sent as
    /// `payment_id` is named `id`, and a referenced record is reduced to its id.
    ///
    /// # Errors
    /// [`Reject::MissingKey`] naming the first key field without a value.
    pub fn key_values(&self, record: &Object) -> Result<Object, Reject> {
        let mut values = Object::with_capacity(self.key.len());
        for name in self.key.iter() {
            let value = self.field(name).and_then(|field| self.sent_value(record, field));
            let value = value.filter(|value| !is_empty(value)).ok_or_else(|| {
                Reject::MissingKey { table: self.name.to_string(), field: name.to_string() }
            })?;
            values.push(name.clone(), value);
        }
        Ok(values)
    }
}

/// What stands for nothing in a key: `null`, and the empty text.
fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}
