//! Seeds: which table a seed file's rows belong to, and the record a seed row becomes.
//!
//! Seed files were written by hand over years, so their table names are matched loosely
//! (docs/original/schemas.md#seeds). Promise: one table takes its rows from one member of the file,
//! an exact name before any other; what matches no table (`settings`, `add_ons`, …) is left out, as
//! the original leaves it out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::command::Seed;
use crate::definition::Validation;
use crate::ids::{RecordKey, TableName};
use crate::module::version::{Lock, is_beyond};
use crate::reject::Reject;
use crate::schema::aliases::snake_case;
use crate::schema::{InsertContext, Schema, Table};
use crate::value::{Object, Value};

impl Schema {
    /// The table a seed file means by a name.
    pub fn seed_table(&self, name: &str) -> Option<&Arc<Table>> {
        let find = |name: &str| {
            self.table(name)
                .or_else(|| self.aliased(&self.conventions.seed_aliases, name))
                .or_else(|| self.resolve(name))
        };
        find(name).or_else(|| find(&snake_case(name)))
    }

    /// The rows a seed holds for each table, in the schema's order; tables without rows are left
    /// out. Items that are not objects are no rows.
    pub fn seed_rows<'a>(&'a self, seed: &'a Seed) -> Vec<(&'a Arc<Table>, Vec<&'a Object>)> {
        let sources = self.seed_sources(seed);
        self.tables
            .iter()
            .filter_map(|table| Some((table, rows_of(sources.get(&table.name)?.1))))
            .filter(|(_, rows)| !rows.is_empty())
            .collect()
    }

    /// The member of a seed that each table takes its rows from.
    fn seed_sources<'a>(&'a self, seed: &'a Seed) -> BTreeMap<&'a TableName, (&'a str, &'a Value)> {
        let mut sources: BTreeMap<&TableName, (&str, &Value)> = BTreeMap::new();
        for (name, rows) in seed.tables.iter() {
            let Some(table) = self.seed_table(name) else { continue };
            // Two members may mean one table; the exact name wins wherever it stands in the file.
            let source = sources.entry(&table.name).or_insert((&**name, rows));
            if table.name.as_str() == &**name {
                *source = (&**name, rows);
            }
        }
        sources
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

    /// What of a seed is left out when a branch is filled, and why: nobody who reads one may lose
    /// rows without a note.
    pub fn skipped_seed_rows(&self, seed: &Seed) -> Vec<SkippedRows> {
        let mut found = Vec::new();
        let mut unknown = Vec::new();
        let sources = self.seed_sources(seed);
        for (name, value) in seed.tables.iter() {
            let rows = rows_of(value).len();
            let Some(table) = self.seed_table(name) else {
                if !is_nothing(value) {
                    unknown.push((name.to_string(), rows));
                }
                continue;
            };
            let table = table.name.clone();
            let is_taken = sources.get(&table).is_some_and(|(taken, _)| **taken == **name);
            if !is_taken && !is_nothing(value) {
                found.push(SkippedRows::Again { table, name: name.to_string(), rows });
                continue;
            }
            let count = match value {
                Value::Array(items) => items.len() - rows,
                Value::Object(_) | Value::Null => 0,
                Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
            };
            if count > 0 {
                found.push(SkippedRows::NoRow { table, count });
            }
        }
        if !unknown.is_empty() {
            found.push(SkippedRows::NoTable(unknown));
        }
        for (table, rows) in self.seed_rows(seed) {
            let nameless = rows.iter().filter(|row| table.is_nameless(row)).count();
            if nameless > 0 {
                found.push(SkippedRows::NoKey { table: table.name.clone(), count: nameless });
            }
            let again = rows.len() - table.last_of_each(&rows).len();
            if again > 0 {
                found.push(SkippedRows::SameKey { table: table.name.clone(), count: again });
            }
        }
        found
    }
}

/// Rows of a seed that no branch is filled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkippedRows {
    /// Of tables that the module does not have: each by its name, with how many rows it has.
    NoTable(Vec<(String, usize)>),
    /// Of a table that the seed names twice, another name was taken.
    Again {
        /// The table.
        table: TableName,
        /// The name that was not taken.
        name: String,
        /// How many rows stand under it.
        rows: usize,
    },
    /// What stands where rows are, and is no record.
    NoRow {
        /// The table.
        table: TableName,
        /// How many.
        count: usize,
    },
    /// Rows that say something as their key which names no record. One not said is made up.
    NoKey {
        /// The table.
        table: TableName,
        /// How many.
        count: usize,
    },
    /// Rows that a later one with the same key stands in for.
    SameKey {
        /// The table.
        table: TableName,
        /// How many.
        count: usize,
    },
}

impl SkippedRows {
    /// The table it is about, the first one of several, as the seed or the module calls it.
    pub fn table(&self) -> &str {
        match self {
            Self::NoTable(tables) => tables.first().map_or("", |(name, _)| name),
            Self::Again { table, .. }
            | Self::NoRow { table, .. }
            | Self::NoKey { table, .. }
            | Self::SameKey { table, .. } => table.as_str(),
        }
    }
}

impl fmt::Display for SkippedRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable(tables) => {
                let shown = |(name, rows): &(String, usize)| format!("{name:?} ({rows} rows)");
                let shown: Vec<String> = tables.iter().map(shown).collect();
                write!(f, "the module has no table {}", shown.join(", "))
            }
            Self::Again { table, name, rows } => write!(
                f,
                "{name:?} ({rows} rows) means {table} too, which the seed names in another way"
            ),
            Self::NoRow { table, count } => {
                write!(f, "{count} values of {table} are no rows; a row is an object")
            }
            Self::NoKey { table, count } => {
                write!(f, "{count} rows of {table} have an empty or unreadable key")
            }
            Self::SameKey { table, count } => {
                write!(f, "{count} rows of {table} have the key of a later one, which is taken")
            }
        }
    }
}

/// Whether a member of a seed says that there are no rows.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(row) => row.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
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
    /// Whether a row says something as its key that names no record.
    fn is_nameless(&self, row: &Object) -> bool {
        let odd = |value: &Value| value.name_text().is_none_or(|text| text.is_empty());
        let is_numbered = |name: &str| self.field(name).is_some_and(|it| it.sequence.is_some());
        self.key.iter().any(|name| row.get(name).is_some_and(odd) && !is_numbered(name))
    }

    /// The rows, of those with one key the last one in the first one's place.
    pub(crate) fn last_of_each<'a>(&self, rows: &[&'a Object]) -> Vec<&'a Object> {
        let mut places: BTreeMap<RecordKey, usize> = BTreeMap::new();
        let mut kept: Vec<&Object> = Vec::with_capacity(rows.len());
        for row in rows {
            let place = match self.key_of(row) {
                Ok(key) => *places.entry(key).or_insert(kept.len()),
                Err(_) => kept.len(),
            };
            match kept.get_mut(place) {
                Some(before) => *before = row,
                None => kept.push(row),
            }
        }
        kept
    }

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
        // A seed is taken as it is even by a strict module: a shop's data must load.
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
        crate::testing::conventional(&Value::Array(tables.collect()))
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
    fn what_a_seed_loses_is_told() {
        let schema = schema(&["menu_items", "pos_database"]);
        let noted = |text: &str| -> Vec<String> {
            schema.skipped_seed_rows(&seed(text)).iter().map(ToString::to_string).collect()
        };
        for (text, words) in [
            (
                r#"{"ghost":[{"id":1}],"menoo":[{},{}],"not":"list","none":[],"no":null}"#,
                r#"the module has no table "ghost" (1 rows), "menoo" (2 rows), "not" (0 rows)"#,
            ),
            (r#"{"menu_items":"list"}"#, "1 values of menu_items are no rows; a row is an object"),
            (r#"{"menu_items":[1,{"id":"a"},null]}"#, "2 values of menu_items are no rows"),
            (
                r#"{"menu_items":[{"id":1},{"id":"1"},{"id":"2"},{"id":1.0}]}"#,
                "2 rows of menu_items have the key of a later one, which is taken",
            ),
            (
                r#"{"menu_items":[{"id":""},{"id":null},{}]}"#,
                "2 rows of menu_items have an empty or unreadable key",
            ),
            (
                r#"{"items":[{"id":"a"}],"menu_items":[]}"#,
                r#""items" (1 rows) means menu_items too, which the seed names in another way"#,
            ),
        ] {
            let noted = noted(text);
            assert_eq!(noted.len(), 1, "{noted:?} for {text}");
            assert!(noted[0].starts_with(words), "{noted:?} for {text}");
        }
        assert_eq!(noted(r#"{"items":[{"id":"a"},{}],"stores":{"orders":[]}}"#), [""; 0]);
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
