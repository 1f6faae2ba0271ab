//! Decimals: a row whose exact decimals are texts, for readers that would make floats of numbers.

use crate::schema::{FieldType, Table};
use crate::value::{Object, Value};

impl Table {
    /// The row with the numbers of its decimal fields as texts, digit for digit. Whole numbers and
    /// what the schema does not know stay as they are.
    pub fn decimals_as_text(&self, row: &Object) -> Object {
        let is_decimal = |name: &str| {
            self.fields.iter().any(|field| *field.name == *name && field.kind == FieldType::Number)
        };
        let mut shown = Object::with_capacity(row.len());
        for (name, value) in row.iter() {
            let text = match value {
                Value::Number(number) if is_decimal(name) => Some(number.as_str().into()),
                Value::Number(_) | Value::Null | Value::Bool(_) | Value::String(_) => None,
                Value::Array(_) | Value::Object(_) => None,
            };
            shown.push(name.clone(), text.unwrap_or_else(|| value.clone()));
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use crate::schema::Schema;
    use crate::value::Value;

    #[test]
    fn decimals_are_texts_digit_for_digit_and_nothing_else_is() {
        let definition = r#"[{"name":"t","fields":[{"name":"id","type":"integer"},
            {"name":"price","type":"decimal"},{"name":"tip","type":"decimal"}]}]"#;
        let definition = Value::from_json(definition.as_bytes()).unwrap();
        let schema = Schema::from_definition("m", &definition).unwrap();
        let row = br#"{"id":7,"price":10.50,"tip":null,"other":1.5}"#;
        let row = Value::from_json(row).unwrap();
        let shown = schema.tables[0].decimals_as_text(row.as_object().unwrap());
        let expected = r#"{"id":7,"price":"10.50","tip":null,"other":1.5}"#;
        assert_eq!(Value::Object(shown).to_json(), expected);
    }
}
