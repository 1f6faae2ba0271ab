//! Key: the values that name a record within its table.

use crate::ids::RecordKey;
use crate::reject::Reject;
use crate::schema::{Field, Kind, Table};
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
            push_text(&mut text, &value);
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
            let value = self.field(name).and_then(|field| {
                let value = self.sent_value(record, field)?;
                Some(field.as_number(&value).unwrap_or(value))
            });
            let value = value.filter(|value| !is_empty(value)).ok_or_else(|| {
                Reject::MissingKey { table: self.name.to_string(), field: name.to_string() }
            })?;
            values.push(name.clone(), value);
        }
        Ok(values)
    }
}

impl Field {
    /// A number sent as text names the record that stores it as a number.
    fn as_number(&self, value: &Value) -> Option<Value> {
        let numeric = matches!(self.kind, Kind::Integer | Kind::Number);
        (numeric && !is_empty(value)).then(|| self.coerce(value)).filter(|read| !read.is_null())
    }
}

/// `1`, `1.0` and `1e0` name the same record, as they do in JavaScript.
fn push_text(text: &mut String, value: &Value) {
    match value {
        Value::Number(number) => match number.to_decimal() {
            Some(decimal) => text.push_str(&decimal.normalize().to_string()),
            None => text.push_str(number.as_str()),
        },
        Value::String(part) => text.push_str(part),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            text.push_str(&value.to_json());
        }
    }
}

/// What stands for nothing in a key: `null`, and the empty text.
fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

#[cfg(test)]
mod tests {
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
}
