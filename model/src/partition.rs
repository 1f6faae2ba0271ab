//! Partition: the state one Raft group replicates: its branches, its log uptime, its time.
//!
//! Given the same batches in the same order, two partitions are equal, byte for byte.

pub(crate) mod long;
pub(crate) mod schemas;
pub(crate) mod tables;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::batch_piece::{BatchPiece, StagedBatch};
use crate::branch::{ApplyContext, Branch};
use crate::codec::{self, CodecError};
use crate::command::{Batch, Command, Request};
use crate::delta::{Delta, PriorRecords};
use crate::entropy::Entropy;
use crate::ids::{BranchId, BranchKey, ModuleId, Offset};
use crate::module::IgnoredLeap;
use crate::mutant::{self, Mutant};
use crate::outcome::Outcome;
use crate::partition::long::{LongCommand, LongOutcome};
use crate::partition::schemas::Schemas;
use crate::partition::tables::SharedTables;
use crate::procedure::Procedures;

/// The state one Raft group replicates. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Partition {
    pub(crate) uptime_ms: u64,
    /// The highest level applied.
    pub(crate) level: u16,
    pub(crate) branches: OrdMap<BranchKey, Arc<Branch>>,
    /// The same, by module. Not part of what replicas agree on.
    pub(crate) by_module: OrdMap<ModuleId, OrdSet<BranchId>>,
    /// The pieces of a large command that is not whole yet.
    pub(crate) staged: Option<StagedBatch>,
    /// Not part of what replicas agree on: only where equal schemas are found again.
    pub(crate) schemas: Schemas,
    /// Nor this: where equal tables are.
    pub(crate) tables: SharedTables,
    /// Nor is this: what this build can run.
    pub(crate) procedures: Procedures,
    /// Nor is this: about how many bytes of memory its branches take.
    pub(crate) memory_bytes: u64,
}

/// What applying one command gave.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedCommand {
    /// Whose command it was.
    pub key: BranchKey,
    /// What was decided. For a repeated command whose events memory no longer holds,
    /// `repeated_at` says where they are and the delta is empty.
    pub outcome: Outcome,
    /// First offset and number of events to read back from the store, for such a command.
    pub repeated_at: Option<(Offset, u32)>,
    /// What the records of its events were before, one entry for each event; empty where it changed
    /// nothing now.
    pub prior: Vec<PriorRecords>,
    /// How many older decisions of clients gave way for this one before their time.
    pub displaced: u64,
    /// Numbers that came with it and are not followed, for the log to report.
    pub leaps: Vec<Arc<IgnoredLeap>>,
}

impl Partition {
    /// Without branches, for commands that may call these procedures.
    pub fn new(procedures: Procedures) -> Self {
        Self { procedures, ..Self::default() }
    }

    /// Applies one agreed batch: every command is planned and committed in order. A batch of a
    /// level this build does not know is not decoded ([`Batch::decode`]), so it never comes here.
    pub fn apply(&mut self, batch: &Batch) -> Vec<AppliedCommand> {
        // A leader that is a little behind may propose a lower level; what was written stays
        // written.
        self.level = self.level.max(batch.level);
        // The log's own time, so that all replicas forget the same outcomes at the same entry.
        self.uptime_ms = self.uptime_ms.saturating_add(batch.elapsed_ms);
        self.staged = self.staged.take().filter(|staged| !staged.is_stale(self.uptime_ms));
        if mutant::is(Mutant::ReuseSequenceNumberAfterFailover)
            && batch.entropy.starts_with(&mutant::FIRST_OF_TERM)
        {
            self.forget_last_numbers();
        }
        let applied = (0..).zip(&batch.commands).map(|(place, command)| {
            let stamp = ApplyContext {
                at: batch.stamped,
                uptime_ms: self.uptime_ms,
                entropy: Entropy::new(batch.entropy, place),
                #[cfg(feature = "next-level")]
                level: self.level,
            };
            self.apply_one(command, stamp)
        });
        applied.collect()
    }

    fn apply_one(&mut self, command: &Command, stamp: ApplyContext) -> AppliedCommand {
        let shared = self.with_shared_schema(command);
        let command = shared.as_ref().unwrap_or(command);
        // A branch is copied only where a snapshot of the partition still holds it.
        if let Some(branch) = self.branches.get_mut(&command.key) {
            let branch = Arc::make_mut(branch);
            let before = branch.memory_bytes();
            let applied = branch.apply(command, stamp);
            share(branch, &command.request, &mut self.schemas, &mut self.tables);
            self.memory_bytes = self.memory_bytes - before + branch.memory_bytes();
            return applied;
        }
        let mut branch = Branch::new(command.key.clone(), self.procedures.clone());
        let applied = branch.apply(command, stamp);
        share(&mut branch, &command.request, &mut self.schemas, &mut self.tables);
        // Only a definition makes a branch: whatever else was asked is asked again after it.
        if branch.definition().is_some() {
            self.put_branch(branch);
        }
        applied
    }

    /// Takes a piece of a large command. With the last one, the work that is left to do: its branch
    /// must not be changed before [`Partition::finish`] has taken what came of it.
    pub fn stage(&mut self, piece: BatchPiece) -> Option<LongCommand> {
        self.level = self.level.max(piece.level);
        self.uptime_ms = self.uptime_ms.saturating_add(piece.elapsed_ms);
        let is_last = piece.is_last();
        self.staged = StagedBatch::with(self.staged.take(), piece, self.uptime_ms);
        let staged = if is_last { self.staged.take()? } else { return None };
        let new = || Branch::new(staged.key().clone(), self.procedures.clone());
        let branch = self.branch(staged.key()).cloned().unwrap_or_else(new);
        Some(LongCommand { staged, branch, uptime_ms: self.uptime_ms, level: self.level })
    }

    /// Takes over what a large command came to.
    pub fn finish(&mut self, outcome: LongOutcome) -> AppliedCommand {
        let LongOutcome { mut branch, begins, applied } = outcome;
        if let Some(request) = &begins {
            // A definition brought its own copy of the schema.
            if matches!(request, Request::Define(_) | Request::Fill(_))
                && let Some(definition) = branch.definition.as_mut()
            {
                let schema = self.schemas.share(Arc::clone(&definition.schema));
                Arc::make_mut(definition).schema = schema;
            }
            share(&mut branch, request, &mut self.schemas, &mut self.tables);
        }
        match self.branches.get_mut(&applied.key) {
            Some(before) => {
                self.memory_bytes =
                    self.memory_bytes - before.memory_bytes() + branch.memory_bytes();
                *before = Arc::new(branch);
            }
            // Only a definition makes a branch, here as well.
            None if branch.definition().is_some() => self.put_branch(branch),
            None => {}
        }
        applied
    }

    /// Takes a branch that is new here.
    pub(crate) fn put_branch(&mut self, branch: Branch) {
        self.memory_bytes += branch.memory_bytes();
        let BranchKey { branch: id, module } = branch.key.clone();
        match self.by_module.get_mut(&module) {
            Some(ids) => _ = ids.insert(id),
            None => _ = self.by_module.insert(module, OrdSet::unit(id)),
        }
        self.branches.insert(branch.key.clone(), Arc::new(branch));
    }

    /// What [`Mutant::ReuseSequenceNumberAfterFailover`] does: every counter goes one step back.
    fn forget_last_numbers(&mut self) {
        let keys: Vec<BranchKey> = self.branches.keys().cloned().collect();
        for key in keys {
            let Some(branch) = self.branches.get_mut(&key) else { continue };
            let counters = &mut Arc::make_mut(branch).numbers.counters;
            let taken: Vec<_> = counters
                .iter()
                .map(|(table, field, last)| (table.clone(), field.to_owned(), last))
                .collect();
            for (table, field, last) in taken {
                counters.reset(&table, &field, last.checked_sub(1));
            }
        }
    }

    /// A `Define` with the schema this partition already holds, if it holds an equal one.
    fn with_shared_schema(&mut self, command: &Command) -> Option<Command> {
        let (Request::Define(definition) | Request::Fill(definition)) = &command.request else {
            return None;
        };
        // The command brought its own copy through the log; a thousand branches would keep a
        // thousand.
        let mut definition = (**definition).clone();
        definition.schema = self.schemas.share(definition.schema);
        let definition = Arc::new(definition);
        let fills = matches!(command.request, Request::Fill(_));
        let request = if fills { Request::Fill(definition) } else { Request::Define(definition) };
        Some(Command { request, ..command.clone() })
    }

    /// One branch's state.
    pub fn branch(&self, key: &BranchKey) -> Option<&Branch> {
        self.branches.get(key).map(|branch| &**branch)
    }

    /// The same, shared: as it is now, whatever is applied later.
    pub fn shared_branch(&self, key: &BranchKey) -> Option<Arc<Branch>> {
        self.branches.get(key).map(Arc::clone)
    }

    /// All branches, in key order.
    pub fn branches(&self) -> impl Iterator<Item = &Branch> {
        self.branches.values().map(|branch| &**branch)
    }

    /// The keys of those of a module, in order. O(those).
    pub fn keys_of(&self, module: &ModuleId) -> impl Iterator<Item = BranchKey> {
        let branches = self.by_module.get(module).into_iter().flatten();
        branches.map(|branch| BranchKey::new(branch.clone(), module.clone()))
    }

    /// About how many bytes of memory its branches take, and the pieces of a large command.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes + self.staged.as_ref().map_or(0, StagedBatch::memory_bytes)
    }

    /// How many branches there are. O(1).
    pub fn branch_count(&self) -> usize {
        self.branches.len()
    }

    /// The log's uptime: the leaders' monotonic time that passed while this log was written.
    pub fn uptime_ms(&self) -> u64 {
        self.uptime_ms
    }

    /// Lets go of events a store now holds, down to the recent window every branch keeps.
    ///
    /// `stored` must not exceed what the last finished checkpoint holds: a sealed
    /// segment that memory let go is only kept by name from then on.
    pub fn forget_events(&mut self, stored: impl Fn(&BranchKey) -> Offset) {
        let keys: Vec<BranchKey> = self.branches.keys().cloned().collect();
        for key in keys {
            let stored = stored(&key);
            let branch = self.branches.get_mut(&key).expect("the key was just read");
            // Asked first, for `make_mut` copies a branch that a reader holds.
            if branch.events.can_forget(stored) {
                let branch = Arc::make_mut(branch);
                let before = branch.memory_bytes();
                branch.events.forget(stored);
                self.memory_bytes = self.memory_bytes - before + branch.memory_bytes();
            }
        }
    }

    /// Reads one event chunk, sealed or tail, so that a store can be filled again. Which chunks
    /// hold events, [`is_event_chunk`](crate::checkpoint::is_event_chunk) says.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are no such chunk.
    pub fn read_segment(bytes: &[u8]) -> Result<Delta, CodecError> {
        codec::decode(bytes)
    }
}

/// What a branch begins with is held once where other branches begin with the same.
fn share(branch: &mut Branch, request: &Request, schemas: &mut Schemas, tables: &mut SharedTables) {
    match request {
        Request::Define(_) | Request::Fill(_) => {
            if let Some(definition) = &branch.definition {
                let derived = Arc::clone(&branch.relations);
                branch.relations = schemas.share_relations(definition, derived);
            }
        }
        Request::Seed(_) => tables.share(&mut branch.module, &branch.relations),
        Request::Transaction(_)
        | Request::Call(_)
        | Request::Reserve(_)
        | Request::Purge(_)
        | Request::Restore(_)
        | Request::Reset(_)
        | Request::Replace(_)
        | Request::SetSequence(_)
        | Request::MendClock(_) => {}
        #[cfg(feature = "next-level")]
        Request::ReserveAtNextLevel(_) => {}
    }
}

/// Where a checkpoint's chunks go.
pub trait ChunkSink {
    /// A chunk with this content.
    fn put(&mut self, name: &str, bytes: Vec<u8>);
    /// The chunk of this name is unchanged since the last checkpoint or restore.
    fn keep(&mut self, name: &str);
}

/// Where a checkpoint's chunks come from.
pub trait ChunkSource {
    /// The content of a chunk, `None` if there is none of this name.
    fn get(&self, name: &str) -> Option<Vec<u8>>;
    /// All names, in order.
    fn names(&self) -> Vec<String>;
}

/// A chunk that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("checkpoint chunk {name:?}: {reason}")]
pub struct BadChunk {
    /// Which.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Action, Transaction};
    use crate::reject::Reject;
    use crate::testing::{Shop, mutation};

    fn write(shop: &mut Shop) -> Command {
        let mutations = vec![mutation(Action::Insert, "tickets", "{}")];
        shop.command(Request::Transaction(Transaction::of(mutations)))
    }

    #[test]
    fn only_a_definition_makes_a_branch() {
        let mut shop = Shop::undefined();
        let command = write(&mut shop);
        let applied = shop.apply_one(command.clone());
        assert_eq!(applied.outcome, Outcome::Rejected(Reject::Undefined));
        assert!(shop.partition.branch(&shop.key).is_none());
        let define = Request::Define(Arc::new(crate::testing::definition(
            crate::Validation::Lenient,
            crate::VersionRule::Next,
        )));
        let define = shop.command(define);
        let applied = shop.apply(vec![define, command]);
        assert!(matches!(applied[1].outcome, Outcome::Accepted(_)), "nothing was remembered");
    }

    #[test]
    fn a_clone_is_not_disturbed() {
        let mut shop = Shop::lenient();
        shop.insert("tickets", "{}").unwrap();
        let copy = shop.partition.clone();
        let hash = copy.state_hash();
        shop.insert("tickets", "{}").unwrap();
        assert_eq!(copy.state_hash(), hash);
        assert_ne!(shop.partition.state_hash(), hash);
    }

    #[test]
    fn what_a_partition_takes_is_the_sum_over_its_branches() {
        let sum =
            |partition: &Partition| partition.branches().map(Branch::memory_bytes).sum::<u64>();
        let mut shop = Shop::lenient();
        for n in 0..600 {
            shop.insert("tickets", &format!(r#"{{"id":"{n}"}}"#)).unwrap();
        }
        let full = shop.partition.memory_bytes();
        assert_eq!(full, sum(&shop.partition));
        shop.partition.forget_events(|_| Offset(256));
        assert!(shop.partition.memory_bytes() < full);
        assert_eq!(shop.partition.memory_bytes(), sum(&shop.partition));
    }

    #[test]
    fn branches_are_found_by_their_module() {
        let mut shop = Shop::lenient();
        shop.key.branch = crate::BranchId::parse("other").unwrap();
        let definition =
            crate::testing::definition(crate::Validation::Strict, crate::VersionRule::Read);
        shop.run(Request::Define(Arc::new(definition))).unwrap();
        for _ in 0..2 {
            let of = |module: &str| {
                let module = ModuleId::parse(module).unwrap();
                shop.partition
                    .keys_of(&module)
                    .map(|key| key.branch.to_string())
                    .collect::<Vec<_>>()
            };
            assert_eq!((of("pos"), of("gym")), (vec!["dar".to_owned(), "other".into()], vec![]));
            shop.restore();
        }
    }

    #[test]
    fn equal_schemas_are_held_once() {
        let mut shop = Shop::lenient();
        let schema = Arc::clone(&shop.branch().definition().unwrap().schema);
        shop.key.branch = crate::BranchId::parse("other").unwrap();
        let definition =
            crate::testing::definition(crate::Validation::Strict, crate::VersionRule::Read);
        shop.run(Request::Define(Arc::new(definition))).unwrap();
        assert!(Arc::ptr_eq(&shop.branch().definition().unwrap().schema, &schema));
    }
}
