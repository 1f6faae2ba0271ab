//! Bounds: how many bytes of each kind the catalogue may hold. Every node keeps all of it in
//! memory, and clients bring most of it.
//!
//! Promise: what is known in O(1) is compared after each change, so a change that would pass a
//! bound changes nothing; one that makes less of a kind is always taken.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Catalogue, CatalogueEntry, CatalogueError};
use crate::limits::{
    CATALOGUE_BRANCH_BYTES_MAX, CATALOGUE_BRANCHES_MAX, CATALOGUE_DEFINITION_BYTES_MAX,
    CATALOGUE_FLAG_BYTES_MAX, CATALOGUE_FLAGS_MAX, CATALOGUE_MODULES_MAX,
    CATALOGUE_NAMES_BYTES_MAX, CATALOGUE_SCHEMA_BYTES_MAX, CATALOGUE_SCHEMAS_MAX,
    CATALOGUE_SEED_BYTES_MAX, CATALOGUE_SEED_FILE_BYTES_MAX,
};

/// A kind of what the catalogue holds. Append-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CatalogueKind {
    /// The modules: their definitions as they were sent and as they are enforced, and settings.
    Definitions,
    /// Rows to begin with, of modules and of branches.
    Seeds,
    /// The configured branches: ids, labels and lists of modules.
    Branches,
    /// Full-sync flags, set or cleared.
    Flags,
    /// Definitions stored by name.
    StoredSchemas,
    /// Seed files stored by name.
    SeedFiles,
    /// Ids of changes that were applied, kept so that none is applied twice.
    Names,
}

impl CatalogueKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Definitions,
        Self::Seeds,
        Self::Branches,
        Self::Flags,
        Self::StoredSchemas,
        Self::SeedFiles,
        Self::Names,
    ];

    /// Its name in status and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Definitions => "definitions",
            Self::Seeds => "seeds",
            Self::Branches => "branches",
            Self::Flags => "flags",
            Self::StoredSchemas => "schemas",
            Self::SeedFiles => "seedFiles",
            Self::Names => "names",
        }
    }

    /// Most bytes of it, as they are encoded.
    pub fn bytes_max(self) -> u64 {
        match self {
            Self::Definitions => CATALOGUE_DEFINITION_BYTES_MAX,
            Self::Seeds => CATALOGUE_SEED_BYTES_MAX,
            Self::Branches => CATALOGUE_BRANCH_BYTES_MAX,
            Self::Flags => CATALOGUE_FLAG_BYTES_MAX,
            Self::StoredSchemas => CATALOGUE_SCHEMA_BYTES_MAX,
            Self::SeedFiles => CATALOGUE_SEED_FILE_BYTES_MAX,
            Self::Names => CATALOGUE_NAMES_BYTES_MAX,
        }
    }

    /// Most of it, counted; `None` where only bytes are.
    fn count_max(self) -> Option<usize> {
        match self {
            Self::Definitions => Some(CATALOGUE_MODULES_MAX),
            Self::Branches => Some(CATALOGUE_BRANCHES_MAX),
            Self::Flags => Some(CATALOGUE_FLAGS_MAX),
            Self::StoredSchemas => Some(CATALOGUE_SCHEMAS_MAX),
            Self::Seeds | Self::SeedFiles | Self::Names => None,
        }
    }

    /// What is counted, in words.
    fn noun(self) -> &'static str {
        match self {
            Self::Definitions => "modules",
            Self::Seeds => "rows to begin with",
            Self::Branches => "branches",
            Self::Flags => "full-sync flags",
            Self::StoredSchemas => "schemas",
            Self::SeedFiles => "seed files",
            Self::Names => "ids of changes",
        }
    }

    /// How to make room, in words.
    fn remedy(self) -> &'static str {
        match self {
            Self::Definitions => "give a module a shorter definition",
            Self::Seeds => "let branches begin with fewer rows, and write the others to them",
            Self::Branches => "use branches without listing them, or give them shorter labels",
            Self::Flags => "clear flags: those that are cleared give way to new ones",
            Self::StoredSchemas => "store a shorter definition under a name that is taken",
            Self::SeedFiles => "store fewer rows",
            Self::Names => "ask again later",
        }
    }
}

impl fmt::Display for CatalogueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noun())
    }
}

/// How much the catalogue holds of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueUse {
    /// The kind.
    pub kind: CatalogueKind,
    /// Its bytes, as they are encoded in the log and in a checkpoint. What they take of memory is
    /// three to five times as much: see [`Catalogue::memory_estimate`].
    pub bytes: u64,
    /// Most bytes there may be.
    pub bytes_max: u64,
}

/// Bytes of memory for each encoded byte, by estimate: values are trees of small allocations.
const MEMORY_FACTOR: u64 = 4;

impl Catalogue {
    /// How many bytes it holds of each kind. O(1).
    pub fn used(&self) -> [CatalogueUse; CatalogueKind::ALL.len()] {
        CatalogueKind::ALL.map(|kind| CatalogueUse {
            kind,
            bytes: self.bytes_of(kind),
            bytes_max: kind.bytes_max(),
        })
    }

    /// About how many bytes of memory it takes: its encoded bytes, times what a tree of values
    /// takes for each. O(1). Nodes, placements and numbering rules, a few kilobytes, do not count.
    pub fn memory_estimate(&self) -> u64 {
        self.used().iter().map(|used| used.bytes).sum::<u64>() * MEMORY_FACTOR
    }

    fn bytes_of(&self, kind: CatalogueKind) -> u64 {
        match kind {
            CatalogueKind::Definitions => self.modules.bytes(),
            CatalogueKind::Seeds => self.modules.seed_bytes() + self.branches.seed_bytes(),
            CatalogueKind::Branches => self.branches.bytes(),
            CatalogueKind::Flags => self.full_sync.bytes(),
            CatalogueKind::StoredSchemas => self.schemas.bytes(),
            CatalogueKind::SeedFiles => self.seed_files.bytes(),
            CatalogueKind::Names => self.applied.bytes() + self.applied_from_files.bytes(),
        }
    }

    fn count_of(&self, kind: CatalogueKind) -> usize {
        match kind {
            CatalogueKind::Definitions => self.modules.len(),
            CatalogueKind::Branches => self.branches.len(),
            CatalogueKind::Flags => self.full_sync.len(),
            CatalogueKind::StoredSchemas => self.schemas.len(),
            CatalogueKind::Seeds | CatalogueKind::SeedFiles | CatalogueKind::Names => 0,
        }
    }

    /// The bound that a change would lead past, if it would.
    pub fn exceeded_bound(&self, entry: &CatalogueEntry) -> Option<CatalogueError> {
        // A copy costs nothing, so it is simply tried.
        match self.clone().apply(entry) {
            Err(full @ (CatalogueError::Full { .. } | CatalogueError::TooManyBytes { .. })) => {
                Some(full)
            }
            Ok(()) | Err(_) => None,
        }
    }

    /// Whether a change has led past a bound. Ids of changes make room themselves.
    ///
    /// Decided where entries are applied, since only there it is known what came before. A refusal
    /// is then a part of what the log says: every node refuses the same, because what is counted is
    /// a function of the entries before, and the same after a restart. Other bounds, or another
    /// encoding of what they count, would make another catalogue of the same log; so once level 1
    /// is released, both change with a level only. Until then no log is kept that a build before
    /// these bounds wrote.
    pub(super) fn check_bounds(&self, before: &Self) -> Result<(), CatalogueError> {
        let bounded = CatalogueKind::ALL.into_iter().filter(|kind| *kind != CatalogueKind::Names);
        for kind in bounded {
            let (count, earlier) = (self.count_of(kind), before.count_of(kind));
            if let Some(max) = kind.count_max().filter(|max| count > *max && count > earlier) {
                let max = u32::try_from(max).unwrap_or(u32::MAX);
                return Err(CatalogueError::Full { what: kind.noun().to_owned(), max });
            }
            let (bytes, earlier) = (self.bytes_of(kind), before.bytes_of(kind));
            if bytes > kind.bytes_max() && bytes > earlier {
                let more = bytes - earlier;
                return Err(CatalogueError::TooManyBytes { kind, held: earlier, more });
            }
        }
        Ok(())
    }
}

/// What is said where a bound would be passed, with the way to make room.
pub(super) fn too_many_bytes(kind: CatalogueKind, held: u64, more: u64) -> String {
    let (name, max, remedy) = (kind.name(), kind.bytes_max(), kind.remedy());
    format!(
        "the {kind} of this cluster hold {held} of at most {max} bytes, and this would add {more} \
         ({name:?} under \"catalogue\" in GET /api/cluster/status); to make room, {remedy}"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::{BranchConfig, CatalogueChange, CatalogueDiff, FullSyncFlag};
    use crate::codec;
    use crate::ids::{BranchId, BranchKey, ModuleId, Timestamp};
    use crate::limits::CATALOGUE_RECENT_CHANGES;
    use crate::value::Value;

    fn take(catalogue: &mut Catalogue, change: CatalogueChange) -> Result<(), CatalogueError> {
        let id = format!("rest:{}", catalogue.applied.bytes());
        catalogue.apply(&CatalogueEntry { id, at: Timestamp(0), change })
    }

    fn branch(name: &str) -> CatalogueChange {
        let id = BranchId::parse(name).unwrap();
        let (label, modules, seeds) = (name.to_owned(), Vec::new(), Default::default());
        CatalogueChange::AddBranch(Arc::new(BranchConfig { id, label, modules, seeds }))
    }

    fn flag(branch: &str, enabled: bool, at: i64, reason: usize) -> CatalogueChange {
        CatalogueChange::FullSync(vec![FullSyncFlag {
            id: String::new(),
            branch: BranchId::parse(branch).unwrap(),
            module: "*".to_owned(),
            enabled,
            reason: Some("x".repeat(reason)),
            requested_by: None,
            updated_at: Timestamp(at),
            meta: None,
            cleared_by: None,
        }])
    }

    fn stored(name: &str, bytes: usize) -> CatalogueChange {
        let source = Arc::new(Value::from("x".repeat(bytes)));
        CatalogueChange::PutSchema { name: name.to_owned(), source, module: None, fill: false }
    }

    #[test]
    fn bytes_beyond_a_bound_are_refused_and_change_nothing() {
        let mut catalogue = Catalogue::default();
        take(&mut catalogue, stored("a", 40 << 20)).unwrap();
        let before = catalogue.clone();
        let refused = take(&mut catalogue, stored("b", 40 << 20)).unwrap_err();
        assert_eq!(catalogue, before);
        let said = refused.to_string();
        assert!(said.contains("of at most 67108864 bytes"), "{said}");
        assert!(said.contains("to make room, store a shorter definition"), "{said}");
        take(&mut catalogue, stored("a", 1 << 20)).expect("less of a kind is always taken");
        take(&mut catalogue, stored("b", 40 << 20)).expect("there is room again");
    }

    #[test]
    fn a_change_without_room_is_known_before_it_is_logged() {
        let mut catalogue = Catalogue::default();
        take(&mut catalogue, stored("a", 40 << 20)).unwrap();
        let entry = |id: &str| {
            let change = stored("b", 40 << 20);
            CatalogueEntry { id: id.to_owned(), at: Timestamp(0), change }
        };
        assert!(catalogue.exceeded_bound(&entry("new")).is_some());
        let repeated = "rest:0";
        assert!(catalogue.exceeded_bound(&entry(repeated)).is_none(), "it was taken before");
    }

    #[test]
    fn cleared_flags_give_way_longest_cleared_first() {
        let mut catalogue = Catalogue::default();
        take(&mut catalogue, flag("a", false, 2, 6 << 20)).unwrap();
        take(&mut catalogue, flag("b", false, 1, 6 << 20)).unwrap();
        take(&mut catalogue, flag("c", true, 3, 6 << 20)).unwrap();
        let left: Vec<String> =
            catalogue.full_sync.values().map(|flag| flag.branch.to_string()).collect();
        assert_eq!(left, ["a", "c"]);
        take(&mut catalogue, flag("d", true, 4, 6 << 20)).unwrap();
        let refused = take(&mut catalogue, flag("e", true, 5, 6 << 20)).unwrap_err();
        assert!(refused.to_string().contains("cleared give way"), "those that stand do not");
    }

    #[test]
    fn what_is_held_is_counted_the_same_after_a_restart() {
        let mut catalogue = Catalogue::default();
        take(&mut catalogue, branch("dar")).unwrap();
        take(&mut catalogue, stored("a", 100)).unwrap();
        take(&mut catalogue, flag("dar", false, 1, 10)).unwrap();
        let read: Catalogue = codec::decode(&codec::encode(&catalogue)).unwrap();
        assert_eq!((&read, read.used()), (&catalogue, catalogue.used()));
        assert!(read.changed_since(0).is_none(), "what changed before is not known any more");
    }

    #[test]
    fn a_follower_hears_what_a_change_is_about() {
        let mut catalogue = Catalogue::default();
        take(&mut catalogue, branch("dar")).unwrap();
        let known = catalogue.revision;
        assert_eq!(catalogue.changed_since(known), Some(CatalogueDiff::default()));
        take(&mut catalogue, branch("remal")).unwrap();
        take(&mut catalogue, flag("dar", true, 1, 10)).unwrap();
        let changed = catalogue.changed_since(known).unwrap();
        let branches: Vec<&str> = changed.branches.iter().map(BranchId::as_str).collect();
        assert_eq!((branches, changed.modules.len()), (vec!["remal"], 0));
        let key = |branch: &str| {
            BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse("pos").unwrap())
        };
        assert!(catalogue.is_unchanged_since(known, &key("dar")));
        assert!(!catalogue.is_unchanged_since(known, &key("remal")));
        for n in 0..CATALOGUE_RECENT_CHANGES {
            take(&mut catalogue, branch(&format!("b{n}"))).unwrap();
        }
        assert_eq!(catalogue.changed_since(known), None, "too far behind: look at everything");
    }

    /// Counts instead of times: what one change writes anew does not grow with what there is.
    #[test]
    fn a_change_copies_no_more_of_a_large_catalogue() {
        for count in [1_000, 10_000, 100_000 - 1] {
            let mut catalogue = Catalogue::default();
            for n in 0..count {
                let id = BranchId::parse(&format!("b{n}")).unwrap();
                let (label, modules, seeds) = (String::new(), Vec::new(), Default::default());
                catalogue.branches.put(Arc::new(BranchConfig { id, label, modules, seeds }));
            }
            let before = catalogue.clone();
            take(&mut catalogue, branch("new")).unwrap();
            assert_eq!(catalogue.branches.len(), count + 1);
            let anew = catalogue.branches.copied_from(&before.branches);
            assert!(anew <= 128, "{anew} entries of {count} were copied");
        }
    }
}
