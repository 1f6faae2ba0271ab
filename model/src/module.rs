//! Module: a set of tables of records, and the changes one command makes to them.
//!
//! All maps are persistent: a plan takes a copy for nothing, changes the copy, and the copy
//! becomes the state at commit, or is dropped. That is the whole of "all or none".
//!
//! Promise: records keep the order they came in; a write costs the same whatever the number of
//! records; a table the definition no longer names keeps its records, unseen.

mod change;
mod children;
mod clock;
mod define;
mod delete;
pub(crate) mod fit;
mod index;
mod insert;
mod integrity;
mod merge;
mod numbering;
mod numbers;
mod operation;
mod plan;
mod precondition;
mod purge;
mod relations;
mod removed;
mod replace;
mod reserve;
mod reset;
mod restore;
mod rows;
mod save;
mod seed;
mod sequence;
mod settle;
pub(crate) mod version;

use std::sync::Arc;

use imbl::OrdMap;

use crate::ids::{RecordKey, TableName};
use crate::schema::Schema;
use crate::value::Object;

pub(crate) use children::refuse_same_keys;
pub(crate) use define::define;
pub(crate) use numbers::Numbers;
pub use numbers::{IgnoredLeap, Reservation, RuleSource};
pub use plan::RecordDiff;
pub(crate) use plan::{Draft, Plan, PlanContext, PlannedOperation, State};
pub(crate) use relations::Relations;
pub(crate) use removed::has_id;
pub(crate) use rows::{Row, Rows};

/// The records of one branch:module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Module {
    tables: OrdMap<TableName, Arc<Rows>>,
}

impl Module {
    /// The rows of a table, if it ever had one.
    pub(crate) fn rows(&self, table: &TableName) -> Option<&Arc<Rows>> {
        self.tables.get(table)
    }

    /// The record with this key.
    pub(crate) fn get(&self, table: &TableName, key: &RecordKey) -> Option<&Arc<Object>> {
        self.tables.get(table)?.get(key)
    }

    /// Adds a record or changes it in its place.
    pub(crate) fn put(
        &mut self,
        table: &TableName,
        key: RecordKey,
        record: Arc<Object>,
        relations: &Relations,
    ) {
        let rows = self.tables.entry(table.clone()).or_default();
        Arc::make_mut(rows).put(key, record, relations.indexes(table));
    }

    /// Takes a record out.
    pub(crate) fn remove(
        &mut self,
        table: &TableName,
        key: &RecordKey,
        relations: &Relations,
    ) -> Option<Arc<Object>> {
        let rows = self.tables.get_mut(table)?;
        Arc::make_mut(rows).remove(key, relations.indexes(table))
    }

    /// Puts a whole table in, as a checkpoint or a new definition gives it.
    pub(crate) fn set_rows(&mut self, table: TableName, rows: Rows) {
        self.tables.insert(table, Arc::new(rows));
    }

    /// Puts a table in that other branches hold as well.
    pub(crate) fn set_shared_rows(&mut self, table: TableName, rows: Arc<Rows>) {
        self.tables.insert(table, rows);
    }

    /// Every table that ever had a record, registered or not, in name order.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&TableName, &Arc<Rows>)> {
        self.tables.iter()
    }

    /// About how many bytes of memory all tables take.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.tables.values().map(|rows| rows.memory_bytes()).sum()
    }

    /// How many records the registered tables hold.
    pub(crate) fn count(&self, schema: &Schema) -> u64 {
        let rows = schema.tables.iter().filter_map(|table| self.rows(&table.name));
        rows.map(|rows| rows.len() as u64).sum()
    }
}
