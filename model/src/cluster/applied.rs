//! Applied: which changes of the catalogue were applied lately, so that one that is proposed again
//! changes nothing. Found in O(log n), whatever the number of those that are remembered.

use std::collections::VecDeque;
use std::sync::Arc;

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::shared_collections::SharedMap;
use crate::limits::{
    CATALOGUE_CHANGES_REMEMBERED, CATALOGUE_NAMES_BYTES_MAX, CATALOGUE_VERSIONS_REMEMBERED,
};

/// The ids of the last changes, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct AppliedIds {
    order: Vector<Arc<str>>,
    /// When each was applied, counted.
    times: OrdMap<Arc<str>, u64>,
    next: u64,
    bytes: u64,
}

impl AppliedIds {
    pub(super) fn contains(&self, id: &str) -> bool {
        self.times.contains_key(id)
    }

    /// Remembers one more; the oldest are forgotten beyond the bounds.
    pub(super) fn push(&mut self, id: &str) {
        let id: Arc<str> = id.into();
        self.bytes += id.len() as u64;
        self.times.insert(Arc::clone(&id), self.next);
        self.order.push_back(id);
        self.next += 1;
        while self.order.len() > CATALOGUE_CHANGES_REMEMBERED
            || self.bytes > CATALOGUE_NAMES_BYTES_MAX
        {
            let Some(oldest) = self.order.pop_front() else { return };
            self.bytes -= oldest.len() as u64;
            self.times.remove(&oldest);
        }
    }

    /// The last one whose id begins so.
    pub(super) fn last_under(&self, beginning: &str) -> Option<&str> {
        let first: Arc<str> = beginning.into();
        let under = self.times.range(first..).take_while(|(id, _)| id.starts_with(beginning));
        under.max_by_key(|(_, time)| **time).map(|(id, _)| &**id)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl PartialEq for AppliedIds {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Serialize for AppliedIds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.order.iter())
    }
}

impl<'de> Deserialize<'de> for AppliedIds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut ids = Self::default();
        Vec::<String>::deserialize(from)?.iter().for_each(|id| ids.push(id));
        Ok(ids)
    }
}

/// The last changes of each definition that nodes read from files, by its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct AppliedFromFiles(SharedMap<String, Arc<VecDeque<String>>>);

impl AppliedFromFiles {
    pub(super) fn contains(&self, name: &str, id: &str) -> bool {
        self.0.get(name).is_some_and(|applied| applied.iter().any(|applied| applied == id))
    }

    /// Remembers one more. Bounded per definition, not over all: a busy one must not push out a
    /// quiet one's.
    pub(super) fn push(&mut self, name: &str, id: &str) {
        let mut versions = self.0.get(name).map_or_else(VecDeque::new, |ids| (**ids).clone());
        versions.push_back(id.to_owned());
        if versions.len() > CATALOGUE_VERSIONS_REMEMBERED {
            versions.pop_front();
        }
        self.0.insert(name.to_owned(), Arc::new(versions));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}
