//! Catalogue: what group 0 replicates: the nodes, who holds which partition, and what the modules
//! and branches of the whole cluster are.
//!
//! Promise: the same entries in the same order give the same catalogue; a change whose id was
//! already applied changes nothing. Every node holds a copy, as voter or learner.
//! Refused: it decides nothing about a branch's data. A partition's leader copies what concerns a
//! branch into the partition's own log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::command::Seed;
use crate::definition::{DedupLimits, Definition, Validation, VersionRule};
use crate::hash::Hash;
use crate::ids::{
    BranchId, BranchKey, ModuleId, NodeId, PartitionId, PlacementEpoch, ReplicaId, TableName,
    Timestamp,
};
use crate::schema::Schema;
use crate::sequence::SequenceRules;
use crate::value::Value;

mod applied;
mod bounds;
mod flags;
mod level;
mod placement;
pub mod plan;
mod recent;
mod shared_collections;
mod writes;

use applied::{AppliedFromFiles, AppliedIds};
pub use bounds::{CatalogueKind, CatalogueUse};
pub use flags::{ALL_MODULES, FlagPlace, FullSyncFlags};
pub use placement::{partition_of, partition_of_topic, place, replicas_for};
pub use recent::CatalogueDiff;
use recent::RecentChanges;
use shared_collections::Item;
pub use shared_collections::{SharedList, SharedMap};

/// What group 0 replicates. A copy costs little and a change O(log n), whatever it holds: a copy is
/// published to every reader of a node after each change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Made at bootstrap; empty before.
    pub cluster_id: String,
    /// When the cluster was formed.
    pub formed_at: Timestamp,
    /// How many partitions there are, for ever; 0 before bootstrap.
    pub partitions: u16,
    /// The level the cluster has agreed on; 0 before bootstrap. What an older build could not read
    /// is written only from its level on.
    pub level: u16,
    /// Rises by one with each change of `placements`.
    pub epoch: PlacementEpoch,
    /// Rises by one with each change of modules, branches, patterns or sequences.
    pub revision: u64,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Who holds what.
    pub placements: Arc<BTreeMap<PartitionId, Placement>>,
    /// The modules, in the order they were added.
    pub modules: SharedList<ModuleConfig>,
    /// The configured branches, in the order they were added.
    pub branches: SharedList<BranchConfig>,
    /// Which modules a branch without an entry has: first pattern that matches its id.
    pub patterns: Vec<BranchPattern>,
    /// Which modules a branch has that no pattern matches.
    pub default_modules: Vec<ModuleId>,
    /// The numbering rules of all branches.
    pub sequences: Arc<SequenceRules>,
    /// Definitions stored by name (docs/original/rest.md#configuration): `global/<name>` or
    /// `branch/<branch>/<module>`.
    pub schemas: SharedMap<String, Arc<Value>>,
    /// Seed files stored by name, the newest twenty; nothing loads them by itself.
    pub seed_files: SharedMap<String, Arc<Value>>,
    /// Which clients are asked to begin again from a snapshot (docs/original/rest.md#management),
    /// by branch and module, `*` for all modules.
    pub full_sync: FullSyncFlags,
    /// Modules whose definition brings the records of every branch up to it.
    pub filled: Arc<BTreeSet<ModuleId>>,
    /// The last changes applied of each definition that nodes read from files, by its name, oldest
    /// first. A node that starts again proposes them again: were they forgotten like others, what
    /// requests changed since would be undone.
    applied_from_files: AppliedFromFiles,
    /// Ids of other changes already applied, oldest first.
    applied: AppliedIds,
    /// What the last changes were about; not part of what the nodes agree on.
    #[serde(skip)]
    recent: RecentChanges,
}

/// One node, as all others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its number.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// Where clients reach it.
    pub http: String,
    /// Where peers reach it.
    pub peer: String,
    /// Names its data directory: a node that comes with another one is not the same node.
    /// Empty until the node has said so itself.
    pub data_id: String,
    /// The build it last started with.
    pub version: String,
    /// The highest level that build knows.
    pub level: u16,
}

/// Who holds one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Its replicas and their nodes.
    pub replicas: BTreeMap<ReplicaId, NodeId>,
    /// The replica that should lead.
    pub preferred: ReplicaId,
}

impl Placement {
    /// The replica a node holds.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas.iter().find(|(_, held_by)| **held_by == node).map(|(replica, _)| *replica)
    }

    /// The node that should lead.
    pub fn preferred_node(&self) -> Option<NodeId> {
        self.replicas.get(&self.preferred).copied()
    }
}

/// One module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleConfig {
    /// Its id.
    pub id: ModuleId,
    /// What people call it.
    pub label: String,
    /// What it is for.
    pub description: String,
    /// The tables as `GET /api/modules` lists them: the configured ones, then the schema's others.
    pub tables: Vec<TableName>,
    /// The definition as it was given, for `GET /api/schema` to show.
    pub source: Arc<Value>,
    /// The definition normalised.
    pub schema: Arc<Schema>,
    /// How much is enforced.
    pub validation: Validation,
    /// Which version clients send.
    pub version_rule: VersionRule,
    /// Rows for every branch that has no seed of its own.
    pub seed: Option<Arc<Seed>>,
    /// How much each branch remembers of what it decided.
    pub dedup: DedupLimits,
}

/// One configured branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BranchConfig {
    /// Its id.
    pub id: BranchId,
    /// What people call it.
    pub label: String,
    /// Its modules.
    pub modules: Vec<ModuleId>,
    /// Rows for its empty tables, by module.
    pub seeds: BTreeMap<ModuleId, Arc<Seed>>,
}

impl Item for ModuleConfig {
    type Id = ModuleId;

    fn id(&self) -> &ModuleId {
        &self.id
    }

    fn seed_bytes(&self) -> u64 {
        self.seed.as_ref().map_or(0, codec::encoded_len)
    }
}

impl Item for BranchConfig {
    type Id = BranchId;

    fn id(&self) -> &BranchId {
        &self.id
    }

    fn seed_bytes(&self) -> u64 {
        self.seeds.values().map(codec::encoded_len).sum()
    }

    fn modules(&self) -> &[ModuleId] {
        &self.modules
    }
}

/// Tells the clients of a branch that they should begin again from a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FullSyncFlag {
    /// `fsync-<uuid>`.
    pub id: String,
    /// Whose clients.
    pub branch: BranchId,
    /// A module's id, or `*`.
    pub module: String,
    /// Whether it stands.
    pub enabled: bool,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
    /// Who, in the words of whoever asked.
    pub requested_by: Option<String>,
    /// When it was last set or cleared.
    pub updated_at: Timestamp,
    /// Added by whoever asked.
    pub meta: Option<Value>,
    /// Who cleared it.
    pub cleared_by: Option<String>,
}

/// Which modules the branches have whose id matches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BranchPattern {
    /// A regular expression over the branch id.
    pub matches: String,
    /// Their modules.
    pub modules: Vec<ModuleId>,
}

/// One entry of group 0's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogueEntry {
    /// Its name for ever; a file read again gives the same id, so it changes nothing.
    pub id: String,
    /// The proposer's clock.
    pub at: Timestamp,
    /// What changes.
    pub change: CatalogueChange,
}

crate::versioned!(CatalogueEntry => CatalogueEntry, Catalogue => Catalogue);

impl CatalogueEntry {
    /// Whether a node proposed it out of a file, and will again when it starts.
    fn is_from_file(&self) -> bool {
        let of_files = matches!(
            self.change,
            CatalogueChange::Module(_)
                | CatalogueChange::Branch(_)
                | CatalogueChange::Patterns { .. }
                | CatalogueChange::Sequences(_)
        );
        // Requests store definitions too, under ids of theirs.
        let stores = matches!(self.change, CatalogueChange::PutSchema { .. });
        of_files || (stores && !self.id.starts_with("rest:"))
    }
}

/// What may change in the catalogue. Append-only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CatalogueChange {
    /// The cluster begins: applied once, refused afterwards.
    Form {
        /// The cluster's id.
        cluster_id: String,
        /// The first nodes.
        nodes: Vec<NodeRecord>,
        /// Who holds what; its length is the number of partitions for ever.
        placements: BTreeMap<PartitionId, Placement>,
    },
    /// A node says where it is reached and what its data directory is.
    Node(NodeRecord),
    /// A module is added or replaced.
    Module(Arc<ModuleConfig>),
    /// A branch is added or replaced.
    Branch(Arc<BranchConfig>),
    /// Which modules unlisted branches have.
    Patterns {
        /// In order of matching.
        patterns: Vec<BranchPattern>,
        /// Where none matches.
        defaults: Vec<ModuleId>,
    },
    /// The numbering rules.
    Sequences(SequenceRules),
    /// A module is added, unless there is one of this id.
    AddModule(Arc<ModuleConfig>),
    /// A branch is added, unless there is one of this id.
    AddBranch(Arc<BranchConfig>),
    /// A branch gets one more module; an unlisted branch is listed with those it had and this one.
    GiveModule {
        /// Whose.
        branch: BranchId,
        /// Which.
        module: ModuleId,
    },
    /// A definition is stored by name; the module that was made from it follows it.
    PutSchema {
        /// `global/<name>` or `branch/<branch>/<module>`.
        name: String,
        /// As it was sent.
        source: Arc<Value>,
        /// The module that follows it, if there is one.
        module: Option<Arc<ModuleConfig>>,
        /// Whether its records are brought up to it.
        fill: bool,
    },
    /// A seed file is stored by name.
    PutSeedFile {
        /// Its name.
        name: String,
        /// As it was sent.
        seed: Arc<Value>,
    },
    /// Full-sync flags are set or cleared, one for each branch and module.
    FullSync(Vec<FullSyncFlag>),
    /// What a module is called and how much it enforces; its definition stays.
    SetModule {
        /// Which.
        module: ModuleId,
        /// What changes.
        settings: ModuleSettings,
    },
    /// The cluster agrees on a level that every node's build knows. Levels never fall.
    RaiseLevel(u16),
}

/// What may change of a module besides its definition; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModuleSettings {
    /// What people call it.
    pub label: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// How much is enforced.
    pub validation: Option<Validation>,
    /// Which version clients send.
    pub version_rule: Option<VersionRule>,
    /// How much its branches remember of what they decided.
    pub dedup: Option<DedupLimits>,
    /// Whether records are brought up to what is enforced then.
    pub fill: bool,
}

impl ModuleSettings {
    /// The module with these settings.
    #[must_use]
    pub fn of(&self, module: &ModuleConfig) -> ModuleConfig {
        let mut module = module.clone();
        if let Some(label) = &self.label {
            module.label.clone_from(label);
        }
        if let Some(description) = &self.description {
            module.description.clone_from(description);
        }
        module.validation = self.validation.unwrap_or(module.validation);
        module.version_rule = self.version_rule.unwrap_or(module.version_rule);
        module.dedup = self.dedup.unwrap_or(module.dedup);
        module
    }
}

/// Why a change was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CatalogueError {
    /// There already is a cluster.
    #[error("this cluster was formed before, as {0}")]
    AlreadyFormed(String),
    /// There is no cluster yet.
    #[error("this cluster is not formed yet")]
    NotFormed,
    /// A known node came with another data directory.
    #[error(
        "node {0} is known with another data directory; replace the node by command, or give it its old directory"
    )]
    OtherData(NodeId),
    /// There already is a module of this id.
    #[error("there already is a module {0:?}")]
    ModuleExists(ModuleId),
    /// There already is a branch of this id.
    #[error("there already is a branch {0:?}")]
    BranchExists(BranchId),
    /// There is no module of this id.
    #[error("there is no module {0:?}")]
    NoModule(ModuleId),
    /// A node's build does not know the level.
    #[error("the build of node {node} does not know level {level}: upgrade that node first")]
    LevelTooLow {
        /// The first such node.
        node: NodeId,
        /// The level.
        level: u16,
    },
    /// A list is full.
    #[error("there are {max} {what} already, the limit")]
    Full {
        /// Of what.
        what: String,
        /// The limit.
        max: u32,
    },
    /// The bytes of one kind would be too many.
    #[error("{}", bounds::too_many_bytes(*kind, *held, *more))]
    TooManyBytes {
        /// Of what.
        kind: CatalogueKind,
        /// How many there are.
        held: u64,
        /// How many would come.
        more: u64,
    },
    /// A full-sync flag of a module that there is not.
    #[error("there is no module {0:?}")]
    UnknownModule(String),
}

impl Catalogue {
    /// Takes one agreed entry.
    ///
    /// # Errors
    /// [`CatalogueError`]; nothing changed.
    pub fn apply(&mut self, entry: &CatalogueEntry) -> Result<(), CatalogueError> {
        // A proposer that saw no answer proposes again: the second time must say what the first
        // did, and change nothing.
        if self.has_applied(&entry.id) {
            return Ok(());
        }
        let before = self.clone();
        if let Err(error) = self.take(entry).and_then(|()| self.check_bounds(&before)) {
            *self = before;
            return Err(error);
        }
        // The revision says that definitions must be copied into the partitions; nodes, flags and
        // seed files concern none of them.
        let concerns_definitions = match entry.change {
            CatalogueChange::Form { .. }
            | CatalogueChange::Node(_)
            | CatalogueChange::RaiseLevel(_)
            | CatalogueChange::FullSync(_)
            | CatalogueChange::PutSeedFile { .. } => false,
            CatalogueChange::Module(_)
            | CatalogueChange::Branch(_)
            | CatalogueChange::Patterns { .. }
            | CatalogueChange::Sequences(_)
            | CatalogueChange::AddModule(_)
            | CatalogueChange::AddBranch(_)
            | CatalogueChange::GiveModule { .. }
            | CatalogueChange::PutSchema { .. }
            | CatalogueChange::SetModule { .. } => true,
        };
        if concerns_definitions {
            self.revision += 1;
            self.recent.push(&entry.change);
        }
        // Only after success: a refused change may be proposed again once its reason is gone.
        self.remember(entry);
        Ok(())
    }

    /// Makes a change; where it is refused, part of it may be made.
    fn take(&mut self, entry: &CatalogueEntry) -> Result<(), CatalogueError> {
        match &entry.change {
            CatalogueChange::Form { cluster_id, nodes, placements } => {
                self.form(cluster_id, nodes, placements, entry.at)?;
            }
            CatalogueChange::Node(node) => self.put_node(node)?,
            CatalogueChange::Module(module) => {
                self.modules.put(Arc::clone(module));
                // Nobody asked for records to be brought up to this one.
                self.set_filled(&module.id, false);
            }
            CatalogueChange::Branch(branch) => self.branches.put(Arc::clone(branch)),
            CatalogueChange::Patterns { patterns, defaults } => {
                self.patterns.clone_from(patterns);
                self.default_modules.clone_from(defaults);
            }
            CatalogueChange::Sequences(rules) => self.sequences = Arc::new(rules.clone()),
            CatalogueChange::AddModule(module) => self.add_module(module)?,
            CatalogueChange::AddBranch(branch) => self.add_branch(branch)?,
            CatalogueChange::GiveModule { branch, module } => self.give_module(branch, module)?,
            CatalogueChange::PutSchema { name, source, module, fill } => {
                self.put_schema(name, source, module.as_ref());
                if let Some(module) = module {
                    self.set_filled(&module.id, *fill);
                }
            }
            CatalogueChange::PutSeedFile { name, seed } => self.put_seed_file(name, seed),
            CatalogueChange::FullSync(flags) => self.put_flags(flags)?,
            CatalogueChange::SetModule { module, settings } => self.set_module(module, settings)?,
            CatalogueChange::RaiseLevel(level) => self.raise_level(*level)?,
        }
        Ok(())
    }

    /// Remembers a change as applied: of a definition that nodes read from files the last few for
    /// ever, of requests as long as a retry may come.
    fn remember(&mut self, entry: &CatalogueEntry) {
        match entry.id.rsplit_once(':').filter(|_| entry.is_from_file()) {
            Some((name, _)) => self.applied_from_files.push(name, &entry.id),
            None => self.applied.push(&entry.id),
        }
    }

    fn form(
        &mut self,
        cluster_id: &str,
        nodes: &[NodeRecord],
        placements: &BTreeMap<PartitionId, Placement>,
        at: Timestamp,
    ) -> Result<(), CatalogueError> {
        if self.is_formed() {
            return Err(CatalogueError::AlreadyFormed(self.cluster_id.clone()));
        }
        cluster_id.clone_into(&mut self.cluster_id);
        self.level = codec::FIRST_LEVEL;
        self.formed_at = at;
        self.partitions = u16::try_from(placements.len())
            .expect("a partition's number is a u16, so is their count");
        self.placements = Arc::new(placements.clone());
        self.epoch.0 += 1;
        self.nodes = nodes.iter().map(|node| (node.id, node.clone())).collect();
        Ok(())
    }

    fn put_node(&mut self, node: &NodeRecord) -> Result<(), CatalogueError> {
        if !self.is_formed() {
            return Err(CatalogueError::NotFormed);
        }
        // A node with an empty directory under an old number has lost its vote and its log: it must
        // not pass for the one that promised.
        if let Some(known) = self.nodes.get(&node.id)
            && !known.data_id.is_empty()
            && known.data_id != node.data_id
        {
            return Err(CatalogueError::OtherData(node.id));
        }
        // It could not read what the cluster writes already.
        if node.level < self.level {
            return Err(CatalogueError::LevelTooLow { node: node.id, level: self.level });
        }
        self.nodes.insert(node.id, node.clone());
        Ok(())
    }

    /// Whether a change of this id was applied.
    pub fn has_applied(&self, id: &str) -> bool {
        let from_file = id.rsplit_once(':');
        from_file.is_some_and(|(name, _)| self.applied_from_files.contains(name, id))
            || self.applied.contains(id)
    }

    /// The id of the last change applied whose id begins so: of several requests under one name
    /// the last one is what stands.
    pub fn last_applied_under(&self, beginning: &str) -> Option<&str> {
        self.applied.last_under(beginning)
    }

    /// What definitions and seeds of branches may be others than at an earlier revision; `None`
    /// where that is not known any more, and all of them may be.
    pub fn changed_since(&self, revision: u64) -> Option<CatalogueDiff> {
        self.recent.last(self.revision.checked_sub(revision)?)
    }

    /// Whether the definition and the seed of a branch:module are those of an earlier revision, as
    /// far as that is known.
    pub fn is_unchanged_since(&self, revision: u64, key: &BranchKey) -> bool {
        let is_other = |difference: CatalogueDiff| {
            difference.modules.contains(&key.module) || difference.branches.contains(&key.branch)
        };
        self.changed_since(revision).is_some_and(|difference| !is_other(difference))
    }

    /// BLAKE3 of all of it: nodes that have applied the same entries have the same.
    pub fn state_hash(&self) -> Hash {
        Hash(*blake3::hash(&crate::codec::bare(self)).as_bytes())
    }

    /// Whether the cluster has begun.
    pub fn is_formed(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// The partition of a branch:module; `None` before the cluster is formed.
    pub fn partition_of(&self, key: &BranchKey) -> Option<PartitionId> {
        (self.partitions > 0).then(|| partition_of(key, self.partitions))
    }

    /// A module by its id.
    pub fn module(&self, id: &ModuleId) -> Option<&Arc<ModuleConfig>> {
        self.modules.get(id)
    }

    /// How strictly a module reads what it is sent. What is sent to a module that is not known is
    /// refused for that alone.
    pub fn validation_of(&self, id: &ModuleId) -> Validation {
        self.module(id).map_or(Validation::Lenient, |module| module.validation)
    }

    /// A configured branch by its id.
    pub fn branch(&self, id: &BranchId) -> Option<&Arc<BranchConfig>> {
        self.branches.get(id)
    }

    /// The modules a branch has: configured, else by the first matching pattern, else the
    /// defaults. Modules that do not exist are left out, so any branch id has an answer.
    pub fn modules_of(&self, branch: &BranchId) -> Vec<ModuleId> {
        let listed = match self.branch(branch) {
            Some(config) => &config.modules,
            None => {
                let pattern = self.pattern_of(branch);
                pattern.map_or(&self.default_modules, |pattern| &pattern.modules)
            }
        };
        listed.iter().filter(|id| self.module(id).is_some()).cloned().collect()
    }

    /// Whether a branch of this id is configured, or could be: by a pattern that matches it, or
    /// because the defaults give every other branch its modules.
    pub fn allows_branch(&self, branch: &BranchId) -> bool {
        !self.default_modules.is_empty()
            || self.branch(branch).is_some()
            || self.pattern_of(branch).is_some()
    }

    fn pattern_of(&self, branch: &BranchId) -> Option<&BranchPattern> {
        self.patterns.iter().find(|pattern| {
            regex_lite::Regex::new(&pattern.matches)
                .is_ok_and(|regex| regex.is_match(branch.as_str()))
        })
    }

    /// The rules of a branch:module; `None` if there is no such module. Any module may be used by
    /// any branch (docs/original/socket.md#requests: a publish's module need not be in the branch's
    /// list).
    pub fn definition(&self, key: &BranchKey) -> Option<Definition> {
        let module = self.module(&key.module)?;
        Some(Definition {
            schema: Arc::clone(&module.schema),
            validation: module.validation,
            version_rule: module.version_rule,
            sequences: self.sequences.rules_with(&key.branch, &key.module, &module.schema),
            dedup: module.dedup,
        })
    }

    /// The rows a branch:module begins with.
    pub fn seed(&self, key: &BranchKey) -> Option<Arc<Seed>> {
        self.branch(&key.branch)
            .and_then(|branch| branch.seeds.get(&key.module).cloned())
            .or_else(|| self.module(&key.module)?.seed.clone())
    }

    /// The branch:modules that are configured, in order: these exist without being written to.
    pub fn configured(&self) -> impl Iterator<Item = BranchKey> {
        self.branches.iter().flat_map(|branch| self.modules_configured(branch))
    }

    /// Those of one module. O(those).
    pub fn configured_of(&self, module: &ModuleId) -> impl Iterator<Item = BranchKey> {
        let exists = self.module(module).is_some();
        let branches = self.branches.of_module(module).filter(move |_| exists);
        branches.map(|branch| BranchKey::new(branch.clone(), module.clone()))
    }

    /// The modules of one configured branch, as far as they exist.
    pub fn modules_configured(&self, branch: &BranchConfig) -> impl Iterator<Item = BranchKey> {
        branch
            .modules
            .iter()
            .filter(|id| self.module(id).is_some())
            .map(|module| BranchKey::new(branch.id.clone(), module.clone()))
    }
}
