//! Recent: what the last changes of the catalogue were about, so that whoever follows it looks at
//! these alone, and at everything only where it is further behind.

use std::collections::BTreeSet;

use imbl::Vector;

use super::CatalogueChange;
use crate::ids::{BranchId, ModuleId};
use crate::limits::CATALOGUE_RECENT_CHANGES;

/// What one change is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Module(ModuleId),
    Branch(BranchId),
    /// No definition: which modules unlisted branches have.
    Nothing,
    Everything,
}

impl Subject {
    fn of(change: &CatalogueChange) -> Self {
        match change {
            CatalogueChange::Module(module) | CatalogueChange::AddModule(module) => {
                Self::Module(module.id.clone())
            }
            CatalogueChange::Branch(branch) | CatalogueChange::AddBranch(branch) => {
                Self::Branch(branch.id.clone())
            }
            CatalogueChange::GiveModule { branch, .. } => Self::Branch(branch.clone()),
            CatalogueChange::SetModule { module, .. } => Self::Module(module.clone()),
            CatalogueChange::PutSchema { module: Some(module), .. } => {
                Self::Module(module.id.clone())
            }
            CatalogueChange::PutSchema { module: None, .. }
            | CatalogueChange::Patterns { .. }
            | CatalogueChange::PutSeedFile { .. }
            | CatalogueChange::FullSync(_) => Self::Nothing,
            CatalogueChange::Sequences(_)
            | CatalogueChange::Form { .. }
            | CatalogueChange::Node(_)
            | CatalogueChange::RaiseLevel(_) => Self::Everything,
        }
    }
}

/// The subjects of the last changes that raised the revision, oldest first. Not part of what the
/// nodes agree on: one that was restored from a checkpoint knows none.
#[derive(Debug, Clone, Default)]
pub(super) struct RecentChanges {
    subjects: Vector<Subject>,
}

impl RecentChanges {
    pub(super) fn push(&mut self, change: &CatalogueChange) {
        self.subjects.push_back(Subject::of(change));
        if self.subjects.len() > CATALOGUE_RECENT_CHANGES {
            self.subjects.pop_front();
        }
    }

    /// What the last changes were about, so many of them; `None` where that many are not known, or
    /// one was about everything.
    pub(super) fn last(&self, changes: u64) -> Option<CatalogueDiff> {
        let changes = usize::try_from(changes).ok()?;
        let skipped = self.subjects.len().checked_sub(changes)?;
        let mut difference = CatalogueDiff::default();
        for subject in self.subjects.iter().skip(skipped) {
            match subject {
                Subject::Module(module) => _ = difference.modules.insert(module.clone()),
                Subject::Branch(branch) => _ = difference.branches.insert(branch.clone()),
                Subject::Nothing => {}
                Subject::Everything => return None,
            }
        }
        Some(difference)
    }
}

/// Copies with other knowledge of how they came to be are equal all the same.
impl PartialEq for RecentChanges {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What is another in one catalogue than in an earlier one, as far as definitions and seeds of
/// branches go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogueDiff {
    /// Modules whose definition or settings may be others.
    pub modules: BTreeSet<ModuleId>,
    /// Branches whose modules or seeds may be others.
    pub branches: BTreeSet<BranchId>,
}
