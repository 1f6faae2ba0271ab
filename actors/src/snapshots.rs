//! Snapshots: the whole state of a branch:module as it is read, made once for all who read it.
//!
//! Promise: readers of one state share one list of its records, however many they are and however
//! slowly they take it; a hundred that stop reading hold what one holds.
//! Refused: keeping anything. A snapshot lives as long as a reader has it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use model::{Answer, Branch, ModuleSnapshot, Read, Reject};
use parking_lot::{Mutex, MutexGuard};

/// Entries from which those without a reader are dropped.
const ENTRIES: usize = 64;

/// The snapshots that are being read on one node, by the address of the state that each is of: who
/// reads another state of the same branch waits for nobody. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Snapshots(Arc<Mutex<HashMap<usize, Arc<StateSnapshot>>>>);

/// The snapshot of one state of a branch.
struct StateSnapshot {
    /// Keeps the address from being given to another state.
    _of: Weak<Branch>,
    /// Locked while it is made.
    snapshot: Mutex<Weak<ModuleSnapshot>>,
}

impl Snapshots {
    /// The whole state of a branch.
    pub(crate) fn read(&self, branch: &Arc<Branch>) -> Result<Answer, Reject> {
        let state =
            Arc::clone(self.entries().entry(Arc::as_ptr(branch).addr()).or_insert_with(|| {
                let _of = Arc::downgrade(branch);
                Arc::new(StateSnapshot { _of, snapshot: Mutex::default() })
            }));
        // Held while it is made: those who ask for the same meanwhile wait, and get it too.
        let mut made = state.snapshot.lock();
        if let Some(snapshot) = made.upgrade() {
            return Ok(Answer::Snapshot(snapshot));
        }
        let answer = branch.read(&Read::Snapshot)?;
        if let Answer::Snapshot(snapshot) = &answer {
            *made = Arc::downgrade(snapshot);
        }
        Ok(answer)
    }

    /// The entries, without those that nobody reads where they have become many.
    fn entries(&self) -> MutexGuard<'_, HashMap<usize, Arc<StateSnapshot>>> {
        let mut entries = self.0.lock();
        if entries.len() >= ENTRIES {
            entries.retain(|_, state| {
                // One that somebody else holds is being made.
                Arc::strong_count(state) > 1 || state.snapshot.lock().strong_count() > 0
            });
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use model::{CatalogueChange, Definition, Procedures, Timestamp, VersionRule};

    use super::*;
    use crate::testing::{key, notes};

    /// A branch without records.
    fn branch(name: &str) -> Branch {
        let changes = notes().into_iter().map(|entry| entry.change);
        let module = changes.filter_map(|change| {
            if let CatalogueChange::Module(module) = change { Some(module) } else { None }
        });
        let module = module.last().unwrap();
        let definition = Definition {
            schema: Arc::clone(&module.schema),
            sequences: Default::default(),
            validation: module.validation,
            version_rule: VersionRule::Next,
            dedup: module.dedup,
        };
        let (key, at) = (key(name), Timestamp::default());
        Branch::preview(key, Arc::new(definition), None, at, Procedures::default())
    }

    fn snapshot(snapshots: &Snapshots, branch: &Arc<Branch>) -> Arc<ModuleSnapshot> {
        match snapshots.read(branch) {
            Ok(Answer::Snapshot(snapshot)) => snapshot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn readers_of_one_state_share_its_snapshot() {
        let (snapshots, state) = (Snapshots::default(), Arc::new(branch("dar")));
        let first = snapshot(&snapshots, &state);
        assert!(Arc::ptr_eq(&first, &snapshot(&snapshots, &state)));
        let changed = Arc::new((*state).clone());
        assert!(!Arc::ptr_eq(&first, &snapshot(&snapshots, &changed)), "it is another state");
    }

    #[test]
    fn a_snapshot_is_kept_no_longer_than_it_is_read() {
        let (snapshots, state) = (Snapshots::default(), Arc::new(branch("dar")));
        let read = snapshot(&snapshots, &state);
        let watched = Arc::downgrade(&read);
        drop(read);
        assert!(watched.upgrade().is_none());
    }

    #[test]
    fn entries_that_nobody_reads_do_not_add_up() {
        let snapshots = Snapshots::default();
        for n in 0..3 * ENTRIES {
            drop(snapshot(&snapshots, &Arc::new(branch(&format!("b{n}")))));
        }
        assert!(snapshots.0.lock().len() <= ENTRIES);
    }
}
