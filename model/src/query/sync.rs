//! Sync: the rows a client lacks that holds each table up to a row (docs/original/rules.md#deltas).
//!
//! Promise: rows come in the order they came in, those after the cursor's. A cursor whose row is
//! gone says so, and all rows come back. Refused: a table that is not registered. What was changed
//! or removed before the cursor is not reported here; the event log has it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::module::{Module, Row, Rows, has_id};
use crate::read::{CursorStatus, SyncQuery, TableDelta};
use crate::reject::Reject;
use crate::schema::{Schema, Table};
use crate::value::Value;

/// Answers a sync query, table by table.
pub(crate) fn sync(
    schema: &Schema,
    module: &Module,
    module_id: &str,
    query: &SyncQuery,
) -> Result<Vec<TableDelta>, Reject> {
    let named = |name: &String| {
        schema.resolve(name).ok_or_else(|| Reject::UnknownTable {
            table: name.clone(),
            module: module_id.to_owned(),
        })
    };
    let cursors: Vec<(&Arc<Table>, &[Value])> = query
        .cursors
        .iter()
        .map(|(name, cursor)| Ok((named(name)?, cursor.as_slice())))
        .collect::<Result<_, Reject>>()?;
    let mut wanted: Vec<&Arc<Table>> = match &query.tables {
        Some(names) => names.iter().map(named).collect::<Result<_, Reject>>()?,
        None if cursors.is_empty() => schema.tables.iter().collect(),
        None => cursors.iter().map(|(table, _)| *table).collect(),
    };
    let mut seen = BTreeSet::new();
    // A table named twice, or by an alias too, is answered once.
    wanted.retain(|table| seen.insert(&table.name));
    let delta = |table: &Arc<Table>| {
        let cursor = cursors.iter().find(|(of, _)| of.name == table.name);
        table_delta(module, table, cursor.map_or(&[], |(_, cursor)| cursor))
    };
    Ok(wanted.into_iter().map(delta).collect())
}

fn table_delta(module: &Module, table: &Table, cursor: &[Value]) -> TableDelta {
    let none = Rows::default();
    let rows = module.rows(&table.name).map_or(&none, |rows| &**rows);
    let place = last_named(table, rows, cursor);
    let fate = match place {
        Some(_) => CursorStatus::Matched,
        // There is nothing to have missed in an empty table.
        None if cursor.is_empty() || rows.len() == 0 => CursorStatus::None,
        None => CursorStatus::Missed,
    };
    let all = || rows.iter().map(|(_, row)| row);
    TableDelta {
        table: table.name.clone(),
        key_fields: Arc::clone(&table.key),
        rows: match place {
            Some(ordinal) => rows.after(ordinal).map(|row| Arc::clone(&row.record)).collect(),
            None => all().map(|row| Arc::clone(&row.record)).collect(),
        },
        last: all().next_back().map(|row| (row.key.clone(), Arc::clone(&row.record))),
        total: rows.len(),
        cursor: fate,
    }
}

/// The ordinal of the last row that any part of the cursor names. A row that was removed is a miss:
/// its client still holds it, and does not learn here that it was removed.
fn last_named(table: &Table, rows: &Rows, cursor: &[Value]) -> Option<u64> {
    // A key is looked up; only names that are none cost a walk over the table.
    let by_key = cursor.iter().filter_map(|value| rows.ordinal(&table.key_meant(value)?));
    by_key.max().or_else(|| {
        let names: Vec<String> = cursor.iter().filter_map(Value::name_text).collect();
        if names.is_empty() {
            return None;
        }
        let named = |row: &Row| names.iter().any(|name| has_id(&row.record, name));
        rows.iter().rev().find(|(_, row)| named(row)).map(|(ordinal, _)| ordinal)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RecordKey, TableName};
    use crate::module::Relations;
    use crate::testing::{object, schema};
    use crate::value::Object;

    fn deltas(query: &SyncQuery) -> Vec<String> {
        let schema = schema(&[("dish", &["id", "uid"]), ("order_line", &["id"]), ("tea", &["id"])]);
        let mut module = Module::default();
        for (table, id) in [("dish", "a"), ("dish", "b"), ("dish", "c"), ("order_line", "l")] {
            let table = TableName::parse(table).unwrap();
            let record = object(&format!(r#"{{"id":"{id}","uid":"u-{id}"}}"#));
            module.put(&table, RecordKey(id.into()), Arc::new(record), &Relations::default());
        }
        let shown = |delta: TableDelta| {
            let id = |row: &Object| row.get("id").and_then(Value::as_str).unwrap().to_owned();
            let rows: String = delta.rows.iter().map(|row| id(row)).collect();
            let last = delta.last.map_or_else(|| "-".to_owned(), |(_, row)| id(&row));
            format!("{} {rows} of {} to {last} {:?}", delta.table, delta.total, delta.cursor)
        };
        sync(&schema, &module, "pos", query).unwrap().into_iter().map(shown).collect()
    }

    fn cursor(table: &str, texts: &[&str]) -> (String, Vec<Value>) {
        (table.to_owned(), texts.iter().map(|text| Value::from(*text)).collect())
    }

    #[test]
    fn without_cursors_everything_comes_back() {
        assert_eq!(
            deltas(&SyncQuery::default()),
            ["dish abc of 3 to c None", "order_line l of 1 to l None", "tea  of 0 to - None"]
        );
    }

    #[test]
    fn the_rows_after_the_last_row_named_come_back() {
        let after = |texts| SyncQuery { cursors: vec![cursor("dish", texts)], tables: None };
        assert_eq!(deltas(&after(&["a"])), ["dish bc of 3 to c Matched"]);
        assert_eq!(deltas(&after(&["a", "b"])), ["dish c of 3 to c Matched"]);
        assert_eq!(deltas(&after(&["u-b"])), ["dish c of 3 to c Matched"]);
        assert_eq!(deltas(&after(&["c"])), ["dish  of 3 to c Matched"]);
        assert_eq!(deltas(&after(&[])), ["dish abc of 3 to c None"]);
    }

    #[test]
    fn a_lost_cursor_is_reported_unless_the_table_is_empty() {
        let cursors = vec![cursor("dish", &["ghost"]), cursor("tea", &["ghost"])];
        assert_eq!(
            deltas(&SyncQuery { cursors, tables: None }),
            ["dish abc of 3 to c Missed", "tea  of 0 to - None"]
        );
    }

    #[test]
    fn tables_may_be_chosen_by_any_of_their_names_and_come_once() {
        let tables = ["order_lines", "dish", "order_line"].map(str::to_owned).to_vec();
        let cursors = vec![cursor("order_lines", &["l"]), cursor("tea", &["x"])];
        assert_eq!(
            deltas(&SyncQuery { tables: Some(tables), cursors }),
            ["order_line  of 1 to l Matched", "dish abc of 3 to c None"]
        );
        assert_eq!(
            deltas(&SyncQuery { tables: Some(Vec::new()), ..SyncQuery::default() }).len(),
            0
        );
        let unknown = SyncQuery { tables: Some(vec!["zz".to_owned()]), ..SyncQuery::default() };
        let refused = sync(&schema(&[]), &Module::default(), "pos", &unknown).unwrap_err();
        assert_eq!(refused.code(), "table-not-found");
    }
}
