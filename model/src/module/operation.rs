//! Operation: what changes of the module as a whole have in common, each shown by one event
//! (docs/original/socket.md#module-events).
//!
//! What it changed is found by comparing the tables it touched before and after it: first the
//! records that are gone, then those that came or changed, in their new order. Who takes them over
//! in this order has the tables as they are, order and all.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::{RecordKey, Revision};
use crate::limits::{ARCHIVE_SAMPLE, TABLES_NAMED_MAX};
use crate::module::Module;
use crate::module::plan::{Plan, RecordDiff};
use crate::read::{ArchiveEntry, ArchivedTable};
use crate::reject::Reject;
use crate::schema::Table;
use crate::value::{Object, Value};

impl Plan<'_> {
    /// Takes every record out of a table.
    pub(super) fn empty(&mut self, table: &Table) {
        let emptied = match self.module().rows(&table.name) {
            Some(rows) if rows.len() > 0 => rows.emptied(),
            Some(_) | None => return,
        };
        self.module_mut().set_rows(table.name.clone(), emptied);
    }

    /// How many records a table has.
    pub(super) fn count(&self, table: &Table) -> usize {
        self.module().rows(&table.name).map_or(0, |rows| rows.len())
    }

    /// Puts what these tables hold into the history. The entry's id.
    pub(super) fn keep(
        &mut self,
        tables: &[&Arc<Table>],
        reason: &str,
        requested_by: Option<&String>,
    ) -> String {
        let id = format!("purge-{}", self.uuid());
        let tables = tables.iter().map(|table| ArchivedTable {
            table: table.name.clone(),
            key_fields: Arc::clone(&table.key),
            first_keys: self.module().rows(&table.name).map_or_else(Vec::new, |rows| {
                rows.iter().take(ARCHIVE_SAMPLE).map(|(_, row)| row.key.clone()).collect()
            }),
            records: self.module().rows(&table.name).map_or_else(Vec::new, |rows| {
                rows.iter().map(|(_, row)| Arc::clone(&row.record)).collect()
            }),
        });
        let entry = Arc::new(ArchiveEntry {
            id: id.clone(),
            at: self.at(),
            reason: reason.to_owned(),
            requested_by: requested_by.cloned(),
            revision: self.revision(),
            tables: tables.collect(),
        });
        self.archive_mut().push(entry);
        id
    }

    /// What became of these tables' records since `before`.
    pub(super) fn touched(&self, before: &Module, tables: &[&Arc<Table>]) -> Vec<RecordDiff> {
        let mut diffs = Vec::new();
        for table in tables {
            let (old, new) = (before.rows(&table.name), self.module().rows(&table.name));
            let diff = |key: &RecordKey, before, after| RecordDiff {
                table: table.name.clone(),
                key: key.clone(),
                before,
                after,
            };
            for (_, row) in old.into_iter().flat_map(|rows| rows.iter()) {
                if new.and_then(|rows| rows.get(&row.key)).is_none() {
                    diffs.push(diff(&row.key, Some(Arc::clone(&row.record)), None));
                }
            }
            for (place, row) in new.into_iter().flat_map(|rows| rows.iter()) {
                let same_place = old.and_then(|rows| rows.ordinal(&row.key)) == Some(place);
                let was = old.and_then(|rows| rows.get(&row.key));
                if !same_place || was != Some(&row.record) {
                    diffs.push(diff(&row.key, was.cloned(), Some(Arc::clone(&row.record))));
                }
            }
        }
        diffs
    }

    /// The revision one change on.
    pub(super) fn next_revision(&self) -> Revision {
        self.revision().next()
    }
}

/// What became of one table that was to be emptied, as the wire shows it.
pub(super) fn emptied(table: &Table, removed: usize) -> Value {
    let status = if removed > 0 { "cleared" } else { "empty" };
    let shown: Object = [
        ("table", Value::from(table.name.as_str())),
        ("status", status.into()),
        ("removed", number(removed)),
    ]
    .into_iter()
    .collect();
    shown.into()
}

/// A count as a value.
pub(super) fn number(count: usize) -> Value {
    Value::from(count as u64)
}

/// Each name once, in order; refused where there are too many.
pub(super) fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<&'a str>, Reject> {
    let mut seen = BTreeSet::new();
    let names: Vec<&str> = names.filter(|name| seen.insert(*name)).collect();
    if names.len() > TABLES_NAMED_MAX {
        let message = format!("{} tables; at most {TABLES_NAMED_MAX} go at once", names.len());
        return Err(Reject::BadCommand { message });
    }
    Ok(names)
}
