//! Branch: one branch:module as a value. `plan` checks everything and changes nothing; `commit`
//! changes everything and cannot fail.
//!
//! Cloning a `Branch` is cheap (its maps share their nodes), so a reader takes a clone and reads
//! at leisure while writes go on.

use std::sync::Arc;

use crate::definition::Definition;
use crate::delta::{Event, Hash};
use crate::ids::{BranchKey, Offset, Timestamp};
use crate::read::{Answer, Head, Read};
use crate::reject::Reject;

/// One branch:module.
#[derive(Debug, Clone)]
pub struct Branch {
    key: BranchKey,
}

impl Branch {
    /// A module that does not exist yet, as a reader sees it: defined, seeded, at offset 0.
    pub fn imagined(
        key: BranchKey,
        definition: Arc<Definition>,
        seed: Option<&crate::command::Seed>,
        at: Timestamp,
    ) -> Self {
        let _ = (definition, seed, at);
        Self { key }
    }

    /// Whose state this is.
    pub fn key(&self) -> &BranchKey {
        &self.key
    }

    /// The rules in force; `None` before the first `Define`.
    pub fn definition(&self) -> Option<&Arc<Definition>> {
        None
    }

    /// Whether a `Seed` has been taken.
    pub fn seeded(&self) -> bool {
        false
    }

    /// The counters.
    pub fn head(&self) -> Head {
        unimplemented!()
    }

    /// Answers a lookup.
    ///
    /// # Errors
    /// [`Reject::UnknownTable`] for a page of a table that is not registered.
    pub fn read(&self, read: &Read) -> Result<Answer, Reject> {
        let _ = read;
        unimplemented!()
    }

    /// The events after an offset that memory still holds; `None` when the next one is no longer
    /// among them (it is in the store then).
    pub fn events_after(&self, after: Offset) -> Option<Vec<Arc<Event>>> {
        let _ = after;
        unimplemented!()
    }

    /// The hash of the last event: equal logs have equal heads.
    pub fn chain_head(&self) -> Hash {
        unimplemented!()
    }

    /// The hash of everything two replicas must agree on.
    pub fn state_hash(&self) -> Hash {
        unimplemented!()
    }
}
