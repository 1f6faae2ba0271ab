//! Populate: references written out as `{id, name}` (docs/original/schemas.md#references).
//!
//! Each value of a field that points at another table is shown with the name of what it points at,
//! under the field's own name and under its column's name. What cannot be looked up is its own
//! name; `null` stays `null`.

use crate::module::Module;
use crate::schema::{Field, Schema, Table};
use crate::value::{Object, Value};

/// What stands for a record's name, the first that says something.
const NAMES: [&str; 3] = ["name", "label", "title"];

/// The references of one table, ready to be written out.
pub(crate) struct Populate<'a> {
    module: &'a Module,
    fields: Vec<(&'a Field, Option<&'a Table>)>,
}

impl<'a> Populate<'a> {
    /// The references of a table. A target is looked up only by a key named `id`.
    pub(crate) fn of(schema: &'a Schema, module: &'a Module, table: &'a Table) -> Self {
        let target = |name: &str| {
            let table: &Table = schema.table(name)?;
            // As the original: any other key shows the value itself as its name.
            (table.key.len() == 1 && &*table.key[0] == "id").then_some(table)
        };
        let fields = table.fields.iter().filter_map(|field| {
            let reference = field.references.as_ref()?;
            Some((field, target(&reference.table)))
        });
        Self { module, fields: fields.collect() }
    }

    /// A record with its references written out.
    pub(crate) fn record(&self, record: &Object) -> Object {
        let mut shown = record.clone();
        for (field, target) in &self.fields {
            let Some(value) = record.get(&field.name).filter(|value| !value.is_null()) else {
                continue;
            };
            let expanded = Value::Object(self.expanded(value, *target));
            // The column's name first, so that a field of that very name is shown as itself.
            if field.column != field.name {
                shown.insert(field.column.clone(), expanded.clone());
            }
            shown.insert(field.name.clone(), expanded);
        }
        shown
    }

    /// A merge keeps an object as it was sent: its `id` is what it points at.
    fn expanded(&self, value: &Value, target: Option<&Table>) -> Object {
        let id = value.get("id").unwrap_or(value);
        let name = target.and_then(|table| self.name_in(table, id));
        let name = name.unwrap_or_else(|| match id.key_text() {
            Some(text) => text.into(),
            None => id.to_json().into(),
        });
        [("id", id.clone()), ("name", name)].into_iter().collect()
    }

    fn name_in(&self, table: &Table, id: &Value) -> Option<Value> {
        let key = table.key_of(&[("id", id.clone())].into_iter().collect()).ok()?;
        let found = self.module.get(&table.name, &key)?;
        let has_text = |value: &&Value| !value.is_null() && value.as_str() != Some("");
        NAMES.iter().find_map(|name| found.get(name).filter(has_text)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::{RecordKey, TableName};
    use crate::module::Relations;
    use crate::testing::{object, reference, schema, table};

    #[test]
    fn references_are_written_out_under_both_names() {
        let mut line = table("line", &["id", "itemId", "orderId", "statusId", "sectionId"]);
        for (place, column, target) in [
            (1, "item_id", "items"),
            (2, "order_id", "orders"),
            (3, "status_id", "gone"),
            (4, "section_id", "items"),
        ] {
            line.fields[place].column = column.into();
            line.fields[place].references = Some(reference(target, "id"));
        }
        let mut all = schema(&[("items", &["id", "name", "label"]), ("orders", &["id"])]);
        all.tables.push(Arc::new(line));
        let mut module = Module::default();
        let mut put = |table: &str, id: &str, json: &str| {
            let table = TableName::parse(table).unwrap();
            let record = Arc::new(object(json));
            module.put(&table, RecordKey(id.into()), record, &Relations::default());
        };
        put("items", "i1", r#"{"id":"i1","name":"","label":"Soup"}"#);
        put("orders", "o1", r#"{"id":"o1"}"#);
        let populate = Populate::of(&all, &module, all.table("line").unwrap());
        let record = object(
            r#"{"id":"l1","itemId":"i1","orderId":{"id":"o1","x":1},"statusId":"","sectionId":null}"#,
        );
        assert_eq!(
            Value::from(populate.record(&record)).to_json(),
            concat!(
                r#"{"id":"l1","itemId":{"id":"i1","name":"Soup"},"orderId":{"id":"o1","name":"o1"},"#,
                r#""statusId":{"id":"","name":""},"sectionId":null,"#,
                r#""item_id":{"id":"i1","name":"Soup"},"order_id":{"id":"o1","name":"o1"},"#,
                r#""status_id":{"id":"","name":""}}"#,
            )
        );
    }
}
