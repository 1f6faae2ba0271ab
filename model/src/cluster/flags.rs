//! Flags: which clients are asked to begin again from a snapshot, by branch and module. Where there
//! is no more room, flags that were cleared give way, the longest cleared first.

use std::sync::Arc;

use imbl::OrdSet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::FullSyncFlag;
use super::shared_collections::SharedMap;
use crate::ids::{BranchId, Timestamp};
use crate::limits::{CATALOGUE_FLAG_BYTES_MAX, CATALOGUE_FLAGS_MAX};

/// Means every module of a branch.
pub const ALL_MODULES: &str = "*";

/// Whose flag it is: a branch, and a module's id or `*`.
pub type FlagPlace = (BranchId, String);

/// The full-sync flags there are, set or cleared.
#[derive(Debug, Clone, Default)]
pub struct FullSyncFlags {
    flags: SharedMap<FlagPlace, Arc<FullSyncFlag>>,
    /// Those that were cleared, the longest cleared first.
    cleared: OrdSet<(Timestamp, FlagPlace)>,
}

impl FullSyncFlags {
    /// The flag of this branch and module.
    pub fn get(&self, place: &FlagPlace) -> Option<&Arc<FullSyncFlag>> {
        self.flags.get(place)
    }

    /// All, by branch and module.
    pub fn values(&self) -> impl Iterator<Item = &Arc<FullSyncFlag>> {
        self.flags.values()
    }

    /// Those of a branch, by module.
    pub fn of_branch<'a>(
        &'a self,
        branch: &'a BranchId,
    ) -> impl Iterator<Item = &'a Arc<FullSyncFlag>> {
        // The empty module sorts before all: the range begins with the branch's first flag.
        let of_branch = self.flags.iter_from(&(branch.clone(), String::new()));
        of_branch.take_while(move |((of, _), _)| of == branch).map(|(_, flag)| flag)
    }

    /// Puts a flag in its place; at the bound, flags that were cleared give way.
    pub fn put(&mut self, flag: FullSyncFlag) {
        let place = (flag.branch.clone(), flag.module.clone());
        let (is_set, at) = (flag.enabled, flag.updated_at);
        if let Some(old) = self.flags.insert(place.clone(), Arc::new(flag)) {
            self.cleared.remove(&(old.updated_at, place.clone()));
        }
        // First, because it may be the only one that can give way.
        if !is_set {
            self.cleared.insert((at, place));
        }
        while self.is_over() {
            let Some((at, oldest)) = self.cleared.get_min().cloned() else { break };
            self.flags.remove(&oldest);
            self.cleared.remove(&(at, oldest));
        }
    }

    fn is_over(&self) -> bool {
        self.flags.len() > CATALOGUE_FLAGS_MAX || self.flags.bytes() > CATALOGUE_FLAG_BYTES_MAX
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.flags.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// Their bytes, as they are encoded. O(1).
    pub fn bytes(&self) -> u64 {
        self.flags.bytes()
    }
}

impl PartialEq for FullSyncFlags {
    fn eq(&self, other: &Self) -> bool {
        self.flags == other.flags
    }
}

impl Serialize for FullSyncFlags {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.flags.serialize(to)
    }
}

impl<'de> Deserialize<'de> for FullSyncFlags {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let flags = SharedMap::<FlagPlace, Arc<FullSyncFlag>>::deserialize(from)?;
        let cleared = flags.iter().filter(|(_, flag)| !flag.enabled);
        let cleared = cleared.map(|(place, flag)| (flag.updated_at, place.clone())).collect();
        Ok(Self { flags, cleared })
    }
}
