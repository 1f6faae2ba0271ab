//! Snapshots: the whole state of a branch:module as it is read, made once for all who read it.
//!
//! Promise: readers of one state share one list of its records, however many they are and however
//! slowly they take it; a hundred that stop reading hold what one holds.
//! Refused: keeping anything. A snapshot lives as long as a reader has it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use model::{Answer, Branch, BranchKey, ModuleSnapshot, Read, Reject};
use parking_lot::Mutex;

/// Entries from which those without a reader are dropped.
const ENTRIES: usize = 64;

/// The snapshots that are being read on one node. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Snapshots(Arc<Mutex<BTreeMap<BranchKey, Arc<Mutex<LastSnapshot>>>>>);

/// The snapshot of a branch that was read last, and of which state it is.
#[derive(Default)]
struct LastSnapshot {
    of: Weak<Branch>,
    snapshot: Weak<ModuleSnapshot>,
}

impl Snapshots {
    /// The whole state of a branch.
    pub(crate) fn read(&self, branch: &Arc<Branch>) -> Result<Answer, Reject> {
        let last = Arc::clone(self.entries().entry(branch.key().clone()).or_default());
        // Held while it is made: those who ask for the same meanwhile wait, and get it too.
        let mut last = last.lock();
        // A state that changes is another value: one that is still there under this address is the
        // one that the snapshot was made of.
        if let (true, Some(snapshot)) =
            (std::ptr::eq(last.of.as_ptr(), Arc::as_ptr(branch)), last.snapshot.upgrade())
        {
            return Ok(Answer::Snapshot(snapshot));
        }
        let answer = branch.read(&Read::Snapshot)?;
        if let Answer::Snapshot(snapshot) = &answer {
            *last = LastSnapshot { of: Arc::downgrade(branch), snapshot: Arc::downgrade(snapshot) };
        }
        Ok(answer)
    }

    /// The entries, without those that nobody reads where they have become many.
    fn entries(
        &self,
    ) -> parking_lot::MutexGuard<'_, BTreeMap<BranchKey, Arc<Mutex<LastSnapshot>>>> {
        let mut entries = self.0.lock();
        if entries.len() >= ENTRIES {
            entries.retain(|_, last| {
                // One that is locked is being made.
                last.try_lock().is_none_or(|last| last.snapshot.strong_count() > 0)
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
