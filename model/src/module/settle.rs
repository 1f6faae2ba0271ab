//! Settle: what stays of tables that were replaced, restored or begun again.
//!
//! A record whose key was there before is the record it was. In a strict module it keeps its place,
//! and its version rises by one where it is another, so that who read it before is told; new rows
//! stand behind. In a lenient module records are as they were sent, in the order they were sent in,
//! and keep their places as far as that is the order they stood in.

use std::sync::Arc;

use crate::definition::Validation;
use crate::module::plan::Plan;
use crate::module::version::{self, Lock};
use crate::module::{Module, Rows};
use crate::schema::Table;
use crate::value::Object;

impl Plan<'_> {
    /// Settles tables that were emptied and filled since `before`.
    pub(super) fn settle(&mut self, before: &Module, tables: &[&Arc<Table>]) {
        for table in tables {
            let (old, new) = (before.rows(&table.name), self.module().rows(&table.name));
            let (Some(old), Some(new)) = (old, new) else { continue };
            let settled = self.settled(table, old, new);
            self.module_mut().set_rows(table.name.clone(), settled);
        }
    }

    fn settled(&self, table: &Table, old: &Rows, new: &Rows) -> Rows {
        let indexes = self.relations().indexes(&table.name);
        let mut rows = old.clone();
        for (_, row) in old.iter().filter(|(_, row)| new.get(&row.key).is_none()) {
            rows.remove(&row.key, indexes);
        }
        let lock = self.lock(table);
        // The place of the row before; none once a row stands elsewhere than it did.
        let mut last = Some(0);
        for (_, row) in new.iter() {
            let ordinal = old.ordinal(&row.key);
            match self.validation() {
                Validation::Strict => {
                    let record = kept(lock, old.get(&row.key), &row.record);
                    rows.put(row.key.clone(), record, indexes);
                }
                Validation::Lenient => {
                    last = ordinal.filter(|ordinal| last.is_some_and(|last| last <= *ordinal));
                    match last {
                        Some(_) => rows.put(row.key.clone(), Arc::clone(&row.record), indexes),
                        None => rows.move_last(&row.key, Arc::clone(&row.record), indexes),
                    }
                }
            }
        }
        rows
    }
}

/// The record a strict module stores over the one that was there.
fn kept(lock: Lock, was: Option<&Arc<Object>>, now: &Arc<Object>) -> Arc<Object> {
    let Some(was) = was.filter(|_| lock != Lock::None) else { return Arc::clone(now) };
    if version::is_same(was, now) {
        return Arc::clone(was);
    }
    let mut record = (**now).clone();
    // What comes back from the history may have been changed more often than what is there.
    let next = version::risen(version::stored(was)).max(version::stored(now));
    lock.set(&mut record, next);
    Arc::new(record)
}

#[cfg(test)]
mod tests;
