//! Tables: equal tables of a partition's branches, held once. Branches of one module begin with the
//! same rows, and most of these never change: a thousand shops would hold a thousand menus.
//!
//! Promise: a branch that changes a shared table has its own from then on. Not part of what
//! replicas agree on: which tables are found again changes no record.

use std::sync::Arc;

use imbl::OrdMap;

use crate::codec;
use crate::hash::Hash;
use crate::ids::TableName;
use crate::limits::{SHARED_TABLE_ROWS_MAX, SHARED_TABLES_MAX};
use crate::module::{Module, Relations, Rows};

/// A table, and what its indexes follow.
#[derive(Debug, Clone)]
struct SharedTable {
    relations: Arc<Relations>,
    /// As the branch holds it that had it first.
    rows: Arc<Rows>,
    /// As the others hold it.
    shared: Arc<Rows>,
}

/// The tables that are found again, by content.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedTables(OrdMap<Hash, SharedTable>);

impl SharedTables {
    /// Puts tables that are already held in the place of equal ones of this module; the others are
    /// found from now on. `relations` are those that the module's indexes follow.
    pub(crate) fn share(&mut self, module: &mut Module, relations: &Arc<Relations>) {
        let tables: Vec<(TableName, Arc<Rows>)> = module
            .tables()
            .filter(|(_, rows)| is_shareable(rows))
            .map(|(name, rows)| (name.clone(), Arc::clone(rows)))
            .collect();
        for (name, rows) in tables {
            let hash = content(&name, &rows);
            match self.0.get(&hash) {
                Some(held) if Arc::ptr_eq(&held.relations, relations) => {
                    module.set_shared_rows(name, Arc::clone(&held.shared));
                }
                // Of another definition: its indexes are others.
                Some(_) => {}
                None => {
                    let (relations, shared) = (Arc::clone(relations), Arc::new(rows.shared()));
                    self.hold(hash, SharedTable { relations, rows, shared });
                }
            }
        }
    }

    /// Lets go of tables that no two branches hold: nothing is shared of them, and they would stay
    /// in memory when their branch has others.
    pub(crate) fn forget_alone(&mut self) {
        let alone: Vec<Hash> = self
            .0
            .iter()
            .filter(|(_, held)| {
                Arc::strong_count(&held.rows) <= 2 && Arc::strong_count(&held.shared) == 1
            })
            .map(|(hash, _)| *hash)
            .collect();
        alone.iter().for_each(|hash| _ = self.0.remove(hash));
    }

    fn hold(&mut self, hash: Hash, table: SharedTable) {
        if self.0.len() >= SHARED_TABLES_MAX {
            self.forget_alone();
        }
        if self.0.len() < SHARED_TABLES_MAX {
            self.0.insert(hash, table);
        }
    }
}

/// Large tables are looked through for nothing: they differ.
fn is_shareable(rows: &Rows) -> bool {
    (1..=SHARED_TABLE_ROWS_MAX).contains(&rows.len()) && rows.removed().is_empty()
}

fn content(name: &TableName, rows: &Rows) -> Hash {
    let mut bytes = codec::bare(&(name, rows.next()));
    for (ordinal, row) in rows.iter() {
        codec::append(&(ordinal, &row.key, &*row.record), &mut bytes);
    }
    Hash(*blake3::hash(&bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::command::Request;
    use crate::definition::{Validation, VersionRule};
    use crate::ids::{BranchId, TableName};
    use crate::partition::Partition;
    use crate::testing::{Shop, definition};

    const MENU: &str = r#"{"dishes":[{"id":"d1","updatedAt":"2026-01-01T00:00:00Z"}],
        "tickets":[{"id":"t1"}]}"#;

    /// Two branches with the same menu.
    fn shops() -> Shop {
        let mut shop = Shop::lenient();
        shop.seed(MENU).unwrap();
        shop.key.branch = BranchId::parse("other").unwrap();
        let define = definition(Validation::Lenient, VersionRule::Next);
        shop.run(Request::Define(Arc::new(define))).unwrap();
        shop.seed(MENU).unwrap();
        shop
    }

    fn is_shared(partition: &Partition, table: &str) -> bool {
        let table = TableName::parse(table).unwrap();
        let rows: Vec<_> =
            partition.branches().map(|branch| branch.module.rows(&table).unwrap()).collect();
        rows[0].holds_with(rows[1])
    }

    #[test]
    fn branches_with_the_same_seed_hold_its_rows_once() {
        let mut shop = shops();
        assert!(is_shared(&shop.partition, "dishes") && is_shared(&shop.partition, "tickets"));
        let taken = || shop.partition.branches().map(|branch| branch.module.memory_bytes());
        assert_eq!(taken().filter(|bytes| *bytes > 0).count(), 1, "and they count once");
        let relations: Vec<_> =
            shop.partition.branches().map(|branch| Arc::clone(&branch.relations)).collect();
        assert!(Arc::ptr_eq(&relations[0], &relations[1]), "and what is derived of a definition");
        shop.insert("tickets", r#"{"id":"t2"}"#).unwrap();
        assert!(!is_shared(&shop.partition, "tickets"), "who changes a table has its own");
        assert_eq!(shop.rows("tickets").len(), 2);
        let taken = shop.partition.branches().map(|branch| branch.module.memory_bytes());
        assert_eq!(taken.filter(|bytes| *bytes > 0).count(), 2, "which counts");
        shop.key.branch = BranchId::parse("dar").unwrap();
        assert_eq!(shop.rows("tickets").len(), 1, "the other branch has what it had");
    }

    #[test]
    fn a_checkpoint_brings_them_back_as_one() {
        let mut shop = shops();
        let hash = shop.partition.state_hash();
        shop.restore();
        assert!(is_shared(&shop.partition, "dishes"));
        assert_eq!(shop.partition.state_hash(), hash);
    }
}
