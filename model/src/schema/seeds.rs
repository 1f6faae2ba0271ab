//! Seeds: which table a seed file's rows belong to, and the record a seed row becomes.
//!
//! Seed files were written by hand over years, so their table names are matched loosely
//! (contract.md 4.6). Promise: one table takes its rows from one member of the file, an exact name
//! before any other; what matches no table (`settings`, `add_ons`, …) is left out, as the original
//! leaves it out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::Seed;
use crate::definition::Validation;
use crate::ids::TableName;
use crate::module::version::{Lock, is_beyond};
use crate::reject::Reject;
use crate::schema::aliases::snake_case;
use crate::schema::{InsertContext, Schema, Table};
use crate::value::{Object, Value};

/// What seed files say, besides the aliases clients use, and the table they mean.
const SEED_ALIASES: [(&str, &str); 4] = [
    ("items", "menu_items"),
    ("categories", "menu_categories"),
    ("drivers", "delivery_drivers"),
    ("stores", "pos_database"),
];

impl Schema {
    /// The table a seed file means by a name.
    pub fn seed_table(&self, name: &str) -> Option<&Arc<Table>> {
        let find = |name: &str| {
            self.table(name)
                .or_else(|| self.aliased(&SEED_ALIASES, name))
                .or_else(|| self.resolve(name))
        };
        find(name).or_else(|| find(&snake_case(name)))
    }

    /// The rows a seed holds for each table, in the schema's order; tables without rows are left
    /// out. Items that are not objects are no rows.
    pub fn seed_rows<'a>(&'a self, seed: &'a Seed) -> Vec<(&'a Arc<Table>, Vec<&'a Object>)> {
        let mut sources: BTreeMap<&TableName, (bool, &Value)> = BTreeMap::new();
        for (name, rows) in seed.tables.iter() {
            let Some(table) = self.seed_table(name) else { continue };
            let exact = table.name.as_str() == &**name;
            let source = sources.entry(&table.name).or_insert((exact, rows));
            if exact && !source.0 {
                *source = (exact, rows);
            }
        }
        self.tables
            .iter()
            .filter_map(|table| Some((table, rows_of(sources.get(&table.name)?.1))))
            .filter(|(_, rows)| !rows.is_empty())
            .collect()
    }

    /// For each table how many rows of a seed are left out when a branch is filled, because what
    /// they say as their key names no record. A key that is not said at all is made up.
    pub fn seed_rows_left_out(&self, seed: &Seed) -> Vec<(TableName, usize)> {
        let odd = |value: &Value| value.name_text().is_none_or(|text| text.is_empty());
        let count = |(table, rows): (&Arc<Table>, Vec<&Object>)| {
            let nameless =
                |row: &&&Object| table.key.iter().any(|name| row.get(name).is_some_and(odd));
            (table.name.clone(), rows.iter().filter(nameless).count())
        };
        let counted = self.seed_rows(seed).into_iter().map(count);
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// For each table how many rows of a seed say a version that no record can have: they begin at
    /// version 1. Only tables whose version the store counts.
    pub fn seed_versions_beyond(
        &self,
        seed: &Seed,
        validation: Validation,
    ) -> Vec<(TableName, usize)> {
        let rows = self.seed_rows(seed).into_iter();
        let locked = rows.filter(|(table, _)| Lock::under(validation, table) != Lock::None);
        let counted = locked.map(|(table, rows)| {
            (table.name.clone(), rows.into_iter().filter(|row| is_beyond(row)).count())
        });
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

/// A seed's value is an array of rows or a single row.
fn rows_of(value: &Value) -> Vec<&Object> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_object).collect(),
        Value::Object(row) => vec![row],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

impl Table {
    /// The record a seed row becomes: projected as by a lenient insert, then every member of the
    /// row set over it as it stands, fields the schema does not know included.
    ///
    /// # Errors
    /// None today: a lenient insert refuses nothing.
    pub fn project_seed(
        &self,
        row: &Object,
        ctx: &mut InsertContext<'_>,
    ) -> Result<Object, Reject> {
        let mut lenient = InsertContext {
            validation: Validation::Lenient,
            branch: ctx.branch,
            client: ctx.client,
            at: ctx.at,
            entropy: ctx.entropy,
        };
        let mut record = self.project_insert(row, &mut lenient)?;
        for (name, value) in row.iter() {
            // The schema's own text of the name is shared by all records; a row's is not.
            let own = self.fields.iter().find(|field| field.name == *name);
            record.insert(own.map_or_else(|| name.clone(), |f| f.name.clone()), value.clone());
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Entropy;
    use crate::ids::{BranchId, Timestamp};

    fn value(text: &str) -> Value {
        Value::from_json(text.as_bytes()).unwrap()
    }

    fn schema(names: &[&str]) -> Schema {
        let tables = names.iter().map(|name| {
            value(&format!(
                r#"{{"name":"{name}","fields":[{{"name":"id","type":"text","primaryKey":true}},
                {{"name":"unitPrice","type":"decimal"}}]}}"#
            ))
        });
        Schema::from_definition("pos", &Value::Array(tables.collect())).unwrap()
    }

    fn seed(text: &str) -> Seed {
        Seed { tables: value(text).as_object().unwrap().clone() }
    }

    #[test]
    fn names_are_matched_loosely() {
        let schema = schema(&["menu_items", "pos_database", "table_lock", "audit_events"]);
        let name = |sent| schema.seed_table(sent).map(|table| table.name.to_string());
        for (sent, table) in [
            ("menu_items", "menu_items"),
            ("items", "menu_items"),
            ("MenuItems", "menu_items"),
            ("stores", "pos_database"),
            ("tableLocks", "table_lock"),
            ("auditEvents", "audit_events"),
        ] {
            assert_eq!(name(sent).as_deref(), Some(table), "{sent}");
        }
        assert_eq!(name("settings"), None);
    }

    #[test]
    fn an_exact_name_wins_and_a_single_row_is_a_row() {
        let schema = schema(&["menu_items", "pos_database"]);
        let seed = seed(
            r#"{"items":[{"id":"a"}],"menu_items":[{"id":"b"},7],"stores":{"orders":[]},"x":[{}]}"#,
        );
        let rows = schema.seed_rows(&seed);
        let counts: Vec<_> = rows.iter().map(|(t, rows)| (t.name.as_str(), rows.len())).collect();
        assert_eq!(counts, [("menu_items", 1), ("pos_database", 1)]);
        assert_eq!(rows[0].1[0].get("id"), Some(&Value::from("b")));
    }

    #[test]
    fn a_seed_row_keeps_what_the_schema_does_not_know() {
        let schema = schema(&["menu_items"]);
        let branch = BranchId::parse("dar").unwrap();
        let mut entropy = Entropy::new([0; 16], 0);
        let mut ctx = InsertContext {
            validation: Validation::Strict,
            branch: &branch,
            client: None,
            at: Timestamp(0),
            entropy: &mut entropy,
        };
        let row = value(r#"{"unit_price":"7.50","id":1,"media":{"a":1}}"#);
        let record = schema.tables[0].project_seed(row.as_object().unwrap(), &mut ctx).unwrap();
        assert_eq!(
            Value::from(record).to_json(),
            r#"{"id":1,"unitPrice":7.50,"unit_price":"7.50","media":{"a":1}}"#
        );
    }
}
