//! Spelled: JSON in its one spelling, whoever wrote it: for names and hashes.

use crate::value::{Number, Object, Value};

impl Value {
    /// JSON with the members of each object by name, and each number in its one spelling.
    pub(crate) fn spelled(&self) -> Self {
        match self {
            Value::Number(number) => {
                Number::parse(&number.canonical()).map_or_else(|| self.clone(), Value::Number)
            }
            Value::Array(items) => Value::Array(items.iter().map(Value::spelled).collect()),
            Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                // Clients build the same object in different orders; a name or a hash must not
                // depend on it.
                members.sort_unstable_by_key(|(name, _)| *name);
                let mut sorted = Object::with_capacity(members.len());
                for (name, value) in members {
                    sorted.push(name.clone(), value.spelled());
                }
                Value::Object(sorted)
            }
            Value::Null | Value::Bool(_) | Value::String(_) => self.clone(),
        }
    }
}
