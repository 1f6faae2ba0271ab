//! Machine: this replica's copy of one partition: applies what was committed, in order, and
//! publishes the state after each entry for readers and followers.
//!
//! Promise: events leave memory only when both a durable checkpoint and the working store hold
//! them. A large command is decided beside the entries of other branches; those of its own wait.
//! Refused: nothing here decides anything; `model::Partition` does.
//!
//! How events are handed over from memory to disk: `freeze` keeps the state that goes into the
//! checkpoint; `checkpoint_durable` takes from it the last event of each branch; with each later
//! entry the machine looks whether the working store has reached the checkpoint's index, and once
//! it has, the machine drops those events. A restart reads them from the checkpoint, and a client
//! that asks for old events reads them from the store, so both must hold them.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    AppliedCommand, Batch, BatchPiece, Branch, BranchKey, Delta, LongCommand, LongOutcome, Offset,
    Outcome, Partition, PartitionEntry, Procedures, Read, Request, checkpoint, codec, store,
};
use parking_lot::Mutex;
use raft::{ApplyStep, ChunkSink, ChunkSource, Fatal, FrozenState, StoreWrite, WorkingStore};

use super::applied::{AppliedPartition, NewDelta};
use crate::limits::DISPLACED_PER_LINE;

/// This replica's copy of one partition.
pub(crate) struct PartitionMachine {
    state: Partition,
    /// What its commands may call, also after a restore.
    procedures: Procedures,
    applied: Arc<AppliedPartition>,
    /// The state last written to a checkpoint that is not durable yet.
    frozen: Arc<Mutex<Option<Partition>>>,
    /// What the last durable checkpoint holds and memory may still hold too.
    durable: Option<DurableCheckpoint>,
    /// A large command that is under way.
    long: Option<LongApply>,
}

/// A large command whose work is under way, beside the machine.
struct LongApply {
    key: BranchKey,
    /// The state before it.
    before: Arc<Partition>,
    /// What it came to, once the work has run.
    result: Arc<Mutex<Option<LongResult>>>,
}

type LongResult = Result<(LongOutcome, Vec<StoreWrite>), Fatal>;

/// The events that a durable checkpoint holds.
struct DurableCheckpoint {
    /// The index of the last entry in it.
    index: u64,
    /// The last event of every branch in it.
    heads: BTreeMap<BranchKey, Offset>,
}

impl PartitionMachine {
    pub(crate) fn new(applied: Arc<AppliedPartition>, procedures: Procedures) -> Self {
        let state = Partition::new(procedures.clone());
        Self { state, procedures, applied, frozen: Arc::default(), durable: None, long: None }
    }

    /// Lets go of the events that both the last checkpoint and the working store hold. The store
    /// is about a second behind, more while it is busy: what it lacks now leaves memory with a
    /// later entry. If it waited for a checkpoint that finds the store ahead of it, a node that is
    /// never at rest would hold all its events.
    ///
    /// Gives the state before, where some left: to be dropped elsewhere once nobody is shown it any
    /// more, for a single event may be a whole module.
    #[must_use]
    fn forget_stored_events(&mut self) -> Option<Partition> {
        let DurableCheckpoint { index, .. } = self.durable.as_ref()?;
        // What a large command comes to takes the place of its branch, with the events of before.
        if self.long.is_some() {
            return None;
        }
        if self.applied.store().is_none_or(|store| store.stored() < *index) {
            return None;
        }
        let DurableCheckpoint { heads, .. } = self.durable.take()?;
        let before = self.state.clone();
        self.state.forget_events(|key| heads.get(key).copied().unwrap_or_default());
        Some(before)
    }

    /// Whether an entry must wait for the large command that is under way: it is about the same
    /// branch, or has one as well.
    fn is_blocked(&self, entry: &PartitionEntry) -> bool {
        let Some(long) = &self.long else { return false };
        match entry {
            PartitionEntry::Batch(batch) => batch.commands.iter().any(|it| it.key == long.key),
            PartitionEntry::Piece(piece) => piece.is_last(),
        }
    }

    fn apply_batch(
        &mut self,
        index: u64,
        batch: &Batch,
        writes: &mut Vec<StoreWrite>,
    ) -> Vec<AppliedCommand> {
        let mut applied = self.state.apply(batch);
        // Before the state is published: readers hold on to what they were given, so events let go
        // of later would stay in memory until the next entry.
        let forgotten = self.forget_stored_events();
        self.report(&applied);
        let deltas: Vec<_> = applied.iter_mut().filter_map(new_delta).collect();
        for (delta, _) in &deltas {
            writes.extend(store::changes(delta).into_iter().map(put_change));
        }
        // A seed makes records without events, so no delta shows them to the store. All records of
        // the branch: which of them the seed brought is not known here, and writing one again is
        // harmless.
        for command in &batch.commands {
            if let (Request::Seed(_), Some(branch)) =
                (&command.request, self.state.branch(&command.key))
            {
                put_records(branch, &mut |write| writes.push(write));
            }
        }
        // Before the answer is given to the proposer: who reads at this leader after its write was
        // acknowledged must find it.
        self.applied.publish(index, self.state.clone(), deltas);
        if let Some(forgotten) = forgotten {
            raft::drop_beside(forgotten);
        }
        applied
    }

    /// Takes a piece of a large command. With the last one its work begins, which touches nothing
    /// but its branch; until it is finished, entries of other branches are applied and its own are
    /// blocked.
    fn stage(&mut self, index: u64, piece: BatchPiece) -> ApplyStep<Vec<AppliedCommand>> {
        let before = piece.is_last().then(|| Arc::new(self.state.clone()));
        let (Some(command), Some(before)) = (self.state.stage(piece), before) else {
            self.applied.publish(index, self.state.clone(), Vec::new());
            return ApplyStep::Done(Vec::new());
        };
        let (key, result) = (command.key().clone(), Arc::new(Mutex::new(None)));
        self.applied.begin_long(key.clone(), Arc::clone(&before));
        self.applied.publish(index, self.state.clone(), Vec::new());
        self.long = Some(LongApply { key, before, result: Arc::clone(&result) });
        ApplyStep::Long(Box::new(move || *result.lock() = Some(run_long(command))))
    }

    /// Says what an operator should know of what was applied.
    fn report(&self, applied: &[AppliedCommand]) {
        log_displaced(&self.state, applied);
        applied.iter().for_each(log_leaps);
    }
}

/// Decides a large command and works out what the store is to hold of it.
fn run_long(command: LongCommand) -> LongResult {
    let outcome = command.run().map_err(|error| Fatal(error.to_string()))?;
    let delta = delta_of(&outcome.applied);
    let changes = delta.map(|delta| store::changes(delta)).unwrap_or_default();
    Ok((outcome, changes.into_iter().map(put_change).collect()))
}

impl raft::Machine for PartitionMachine {
    /// What each command of the entry came to, in their order.
    type Response = Vec<AppliedCommand>;

    fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        writes: &mut Vec<StoreWrite>,
    ) -> Result<ApplyStep<Self::Response>, Fatal> {
        let entry = PartitionEntry::decode(entry).map_err(|error| Fatal(error.to_string()))?;
        if self.is_blocked(&entry) {
            self.applied.hold_up();
            return Ok(ApplyStep::Blocked);
        }
        Ok(match entry {
            PartitionEntry::Batch(batch) => {
                ApplyStep::Done(self.apply_batch(index, &batch, writes))
            }
            PartitionEntry::Piece(piece) => self.stage(index, piece),
        })
    }

    fn finish_long(&mut self, writes: &mut Vec<StoreWrite>) -> Result<Self::Response, Fatal> {
        let nothing = || Fatal("a large command has no result".to_owned());
        let LongApply { before, result, .. } = self.long.take().ok_or_else(nothing)?;
        let (outcome, changes) = result.lock().take().ok_or_else(nothing)??;
        *writes = changes;
        let is_seed = outcome.is_seed();
        let mut applied = vec![self.state.finish(outcome)];
        if is_seed && let Some(branch) = self.state.branch(&applied[0].key) {
            put_records(branch, &mut |write| writes.push(write));
        }
        let forgotten = self.forget_stored_events();
        self.report(&applied);
        let deltas = applied.iter_mut().filter_map(new_delta).collect();
        self.applied.publish(self.applied.index(), self.state.clone(), deltas);
        self.applied.end_long();
        // Its rows are dropped one by one, which takes as long as to make them.
        raft::drop_beside((before, forgotten));
        Ok(applied)
    }

    fn freeze(&self) -> Box<dyn FrozenState> {
        let state = self.long.as_ref().map_or(&self.state, |long| &*long.before);
        // Kept until the checkpoint is durable: only then is it known which events are on disk. A
        // later freeze takes its place, and one whose checkpoint failed is never asked about.
        *self.frozen.lock() = Some(state.clone());
        Box::new(FrozenPartition(state.clone()))
    }

    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal> {
        self.state = Partition::from_chunks(source, self.procedures.clone())
            .map_err(|error| Fatal(error.to_string()))?;
        self.long = None;
        *self.frozen.lock() = None;
        self.applied.replace(index, self.state.clone());
        // It is about a state that this one does not descend from.
        self.durable = None;
        Ok(())
    }

    fn checkpoint_durable(&mut self, index: u64) {
        // Taken: the frozen state shares memory with the present one, and would keep its events.
        let Some(frozen) = self.frozen.lock().take() else { return };
        let heads = frozen.branches().map(|branch| (branch.key().clone(), branch.head().offset));
        self.durable = Some(DurableCheckpoint { index, heads: heads.collect() });
        raft::drop_beside(frozen);
        self.drop_stored();
    }

    fn drop_stored(&mut self) {
        let forgotten = self.forget_stored_events();
        if forgotten.is_some() {
            self.applied.publish(self.applied.index(), self.state.clone(), Vec::new());
            raft::drop_beside(forgotten);
        }
    }

    fn attach(&mut self, store: Arc<dyn WorkingStore>) {
        self.applied.attach(store);
    }
}

struct FrozenPartition(Partition);

impl FrozenState for FrozenPartition {
    fn write(self: Box<Self>, sink: &mut dyn ChunkSink) {
        self.0.chunks(sink);
    }

    /// All events, then all records as they are.
    fn fill(&self, source: &dyn ChunkSource, put: &mut dyn FnMut(StoreWrite)) -> Result<(), Fatal> {
        for name in source.names().into_iter().filter(|name| checkpoint::is_event_chunk(name)) {
            let bytes =
                source.get(&name).ok_or_else(|| Fatal(format!("chunk {name:?} is gone")))?;
            let segment = Partition::read_segment(&bytes)
                .map_err(|error| Fatal(format!("chunk {name:?}: {error}")))?;
            for event in &segment.events {
                let key = store::event_key(&segment.key, event.offset);
                put(StoreWrite::Put(key.into(), codec::encode(&**event).into()));
            }
        }
        self.0.branches().for_each(|branch| put_records(branch, put));
        Ok(())
    }
}

/// Outcomes that gave way before their time are counted, and logged now and then.
fn log_displaced(state: &Partition, applied: &[AppliedCommand]) {
    for one in applied.iter().filter(|one| one.displaced > 0) {
        metrics::counter!("mishkah_dedup_displaced_total").increment(one.displaced);
        let total = state.branch(&one.key).map_or(0, |branch| branch.dedup().displaced);
        // The first of them, and then one line for so many.
        if total / DISPLACED_PER_LINE != (total - one.displaced.min(total)) / DISPLACED_PER_LINE
            || total == one.displaced
        {
            tracing::warn!(
                branch = %one.key,
                displaced = total,
                "the dedup table is full: the oldest outcomes over an hour old give way before \
                 their 24 hours; raise the module's dedupBytes"
            );
        }
    }
}

/// Logs numbers that a command brought and their sequences do not follow.
fn log_leaps(applied: &AppliedCommand) {
    for leap in &applied.leaps {
        tracing::warn!(
            branch = %applied.key.branch,
            module = %applied.key.module,
            table = %leap.table,
            field = leap.field,
            id = leap.text,
            counter = leap.counter,
            "a number is too far over its sequence's counter and is not followed"
        );
    }
}

/// What a command newly changed; a remembered answer changed nothing now.
fn new_delta(applied: &mut AppliedCommand) -> Option<NewDelta> {
    let delta = Arc::clone(delta_of(applied)?);
    Some((delta, std::mem::take(&mut applied.prior)))
}

/// The same, without what its records were before.
fn delta_of(applied: &AppliedCommand) -> Option<&Arc<Delta>> {
    match &applied.outcome {
        Outcome::Accepted(accepted) if !accepted.repeated && !accepted.delta.events.is_empty() => {
            Some(&accepted.delta)
        }
        Outcome::Accepted(_) | Outcome::Rejected(_) => None,
    }
}

fn put_change(write: store::StoreChange) -> StoreWrite {
    let key = write.key.into();
    match write.value {
        Some(value) => StoreWrite::Put(key, value.into()),
        None => StoreWrite::Delete(key),
    }
}

/// All records of a branch as they are: what a seed or a checkpoint brings makes no events.
fn put_records(branch: &Branch, put: &mut dyn FnMut(StoreWrite)) {
    let Ok(model::Answer::Snapshot(snapshot)) = branch.read(&Read::Snapshot) else { return };
    let Some(definition) = branch.definition() else { return };
    for (name, rows) in &snapshot.tables {
        let Some(table) = definition.schema.table(name.as_str()) else { continue };
        for row in rows {
            let Ok(key) = table.key_of(row) else { continue }; // A stored record has its key.
            let key = store::record_key(branch.key(), name, &key);
            put(StoreWrite::Put(key.into(), codec::encode(&**row).into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use futures::FutureExt as _;
    use model::{Command, CommandId, Definition, Origin, Schema, Timestamp, Value};
    use raft::{Machine as _, ScanLimit};

    use bytes::Bytes;

    use super::*;
    use crate::partition::applied::IndexedView;
    use crate::status::replicas::whole_log;
    use crate::testing::{insert, key};

    /// A checkpoint in memory.
    #[derive(Default)]
    struct Chunks(BTreeMap<String, Vec<u8>>);

    impl ChunkSink for Chunks {
        fn put(&mut self, name: &str, bytes: Vec<u8>) {
            self.0.insert(name.to_owned(), bytes);
        }

        fn keep(&mut self, name: &str) {
            assert!(self.0.contains_key(name), "{name} was written before");
        }
    }

    impl ChunkSource for Chunks {
        fn get(&self, name: &str) -> Option<Vec<u8>> {
            self.0.get(name).cloned()
        }

        fn names(&self) -> Vec<String> {
            self.0.keys().cloned().collect()
        }
    }

    fn define() -> Command {
        let tables =
            br#"{"tables":{"note":{"fields":{"id":{"type":"string","primaryKey":true}}}}}"#;
        let schema = Schema::from_definition("notes", &Value::from_json(tables).unwrap()).unwrap();
        let definition = Definition {
            schema: Arc::new(schema),
            validation: model::Validation::Lenient,
            version_rule: model::VersionRule::Next,
            sequences: BTreeMap::new(),
            dedup: model::DedupLimits::default(),
        };
        Command {
            id: CommandId { session: "@".to_owned(), request: "define".to_owned() },
            key: key("dar"),
            origin: Arc::new(Origin::default()),
            request: Request::Define(Arc::new(definition)),
        }
    }

    fn entry(index: u64) -> Vec<u8> {
        let command =
            if index == 1 { define() } else { insert("dar", &format!("n{}", index / 2), "x") };
        let batch = Batch {
            level: codec::LEVEL,
            stamped: Timestamp(1_000 + i64::try_from(index).unwrap()),
            elapsed_ms: 7,
            entropy: [3; 16],
            commands: vec![command],
        };
        batch.encode()
    }

    struct Replica(PartitionMachine);

    impl Replica {
        fn new() -> Self {
            Self(PartitionMachine::new(AppliedPartition::new(), Procedures::default()))
        }

        fn apply(&mut self, indexes: std::ops::RangeInclusive<u64>) {
            for index in indexes {
                self.0.apply(index, &entry(index), &mut Vec::new()).unwrap();
            }
        }

        fn checkpoint(&self, into: &mut Chunks) {
            self.0.freeze().write(into);
        }

        fn applied_state(&self) -> (u64, String) {
            let IndexedView { index, state, .. } = self.0.applied.indexed_view();
            (index, state.state_hash().to_string())
        }
    }

    /// A working store that cannot be read so many times, and lacks so many of the newest entries.
    #[derive(Default)]
    struct MemoryStore {
        rows: Mutex<BTreeMap<Bytes, Bytes>>,
        failures: Mutex<usize>,
        lag: Mutex<u64>,
    }

    impl WorkingStore for MemoryStore {
        fn stored(&self) -> u64 {
            u64::MAX - *self.lag.lock()
        }

        fn scan(
            &self,
            from: &[u8],
            to: &[u8],
            limit: ScanLimit,
        ) -> Result<Vec<(Bytes, Bytes)>, Fatal> {
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(Fatal("corrupt".to_owned()));
            }
            let rows = self.rows.lock();
            let found = rows.iter().filter(|(key, _)| key[..] >= *from && key[..] < *to);
            Ok(found.take(limit.rows).map(|(key, value)| (key.clone(), value.clone())).collect())
        }
    }

    #[test]
    fn a_log_is_broken_only_by_what_stays_unreadable() {
        let (mut live, store) = (Replica::new(), Arc::new(MemoryStore::default()));
        live.0.attach(store.clone());
        let mut writes = Vec::new();
        for index in 1..=1100 {
            live.0.apply(index, &entry(index), &mut writes).unwrap();
        }
        for write in writes {
            if let StoreWrite::Put(key, value) = write {
                store.rows.lock().insert(key, value);
            }
        }
        live.0.state.forget_events(|_| Offset(300));
        live.apply(1101..=1102);
        let IndexedView { state, .. } = live.0.applied.indexed_view();
        let branch = state.branch(&key("dar")).unwrap();
        assert!(branch.first_event() > Some(Offset(1)), "some have left memory");
        let verify = |timeout| whole_log(&live.0.applied, branch, timeout);
        assert_eq!(verify(Duration::ZERO), Ok(()));
        *store.failures.lock() = 1;
        assert_eq!(verify(Duration::ZERO).unwrap_err().reason, "corrupt");
        *store.failures.lock() = 3;
        assert_eq!(verify(Duration::from_secs(60)), Ok(()), "it was filled anew meanwhile");
        store.rows.lock().clear();
        let missing = verify(Duration::ZERO).unwrap_err();
        assert_eq!(
            (missing.offset, &*missing.reason),
            (Offset(1), "the working store does not hold it")
        );
    }

    #[test]
    fn events_leave_memory_once_checkpoint_and_store_hold_them() {
        let (mut live, store) = (Replica::new(), Arc::new(MemoryStore::default()));
        live.0.attach(store.clone());
        live.apply(1..=1400);
        let first = |live: &Replica| {
            let state = live.0.applied.view();
            state.branch(&key("dar")).unwrap().first_event()
        };
        *store.lag.lock() = u64::MAX - 1399;
        let mut checkpoint = Chunks::default();
        live.checkpoint(&mut checkpoint);
        live.0.checkpoint_durable(1400);
        live.apply(1401..=1401);
        assert_eq!(first(&live), Some(Offset(1)), "the store lacks one of them");
        *store.lag.lock() = u64::MAX - 1400;
        live.0.drop_stored();
        assert_eq!(first(&live), Some(Offset(257)), "neither an entry nor a second checkpoint");
    }

    /// The pieces of a batch that inserts into this branch.
    fn pieces(branch: &str, name: &str) -> Vec<Vec<u8>> {
        let batch = Batch {
            level: codec::LEVEL,
            stamped: Timestamp(5_000),
            elapsed_ms: 0,
            entropy: [9; 16],
            commands: vec![insert(branch, name, "x")],
        };
        BatchPiece::split(&batch, 50).iter().map(BatchPiece::encode).collect()
    }

    #[test]
    fn a_large_command_brings_no_events_back_that_left_memory() {
        let mut live = Replica::new();
        live.0.attach(Arc::new(MemoryStore::default()));
        live.apply(1..=1400);
        live.checkpoint(&mut Chunks::default());
        let mut work = None;
        for (index, piece) in (1401..).zip(pieces("dar", "large")) {
            if let ApplyStep::Long(long) = live.0.apply(index, &piece, &mut Vec::new()).unwrap() {
                work = Some(long);
            }
        }
        live.0.checkpoint_durable(1400);
        work.unwrap()();
        live.0.finish_long(&mut Vec::new()).unwrap();
        let state = live.0.applied.view();
        assert_eq!(state.branch(&key("dar")).unwrap().first_event(), Some(Offset(257)));
    }

    #[test]
    fn a_command_in_pieces_is_decided_beside_other_branches() {
        let mut live = Replica::new();
        live.apply(1..=10);
        let before = live.applied_state();
        let mut index = 10;
        let mut work = None;
        for piece in pieces("dar", "large") {
            index += 1;
            match live.0.apply(index, &piece, &mut Vec::new()).unwrap() {
                ApplyStep::Done(applied) => assert!(applied.is_empty() && work.is_none()),
                ApplyStep::Long(long) => work = Some(long),
                ApplyStep::Blocked => panic!("nothing is under way"),
            }
        }
        assert_eq!(live.0.applied.under_way(), Some(key("dar")));
        let IndexedView { index: at, is_newest, .. } = live.0.applied.indexed_view();
        assert_eq!((at, is_newest), (index - 1, false), "of the last one that is whole");
        let is_held_up = |live: &Replica| live.0.applied.held_up().now_or_never().is_some();
        assert!(!is_held_up(&live), "readers of other branches have what others have");
        let blocked = live.0.apply(index + 1, &entry(12), &mut Vec::new()).unwrap();
        assert!(matches!(blocked, ApplyStep::Blocked), "its branch waits");
        assert!(is_held_up(&live), "readers go elsewhere");
        let mut checkpoint = Chunks::default();
        live.checkpoint(&mut checkpoint);
        let mut other = Replica::new();
        other.0.restore(index - 1, &checkpoint).unwrap();
        assert_ne!(other.applied_state(), before, "the pieces before the last are in it");
        work.unwrap()();
        let mut writes = Vec::new();
        let applied = live.0.finish_long(&mut writes).unwrap();
        assert!(matches!(applied[0].outcome, Outcome::Accepted(_)) && !writes.is_empty());
        assert_eq!(live.0.applied.under_way(), None);
        assert!(!is_held_up(&live));
        let last = pieces("dar", "large").pop().unwrap();
        let ApplyStep::Long(work) = other.0.apply(index, &last, &mut Vec::new()).unwrap() else {
            panic!("the last piece")
        };
        work();
        other.0.finish_long(&mut Vec::new()).unwrap();
        assert_eq!(other.applied_state(), live.applied_state());
    }

    #[tokio::test]
    async fn readers_of_a_branch_wait_for_its_large_command_alone() {
        let mut live = Replica::new();
        live.apply(1..=10);
        let mut work = None;
        for (index, piece) in (11..).zip(pieces("dar", "large")) {
            if let ApplyStep::Long(long) = live.0.apply(index, &piece, &mut Vec::new()).unwrap() {
                work = Some(long);
            }
        }
        let applied = Arc::clone(&live.0.applied);
        applied.settled(&key("other")).await;
        let reader = tokio::spawn(async move { applied.settled(&key("dar")).await });
        tokio::task::yield_now().await;
        assert!(!reader.is_finished());
        work.unwrap()();
        live.0.finish_long(&mut Vec::new()).unwrap();
        // The next one at once, before the reader runs.
        for (index, piece) in (40..).zip(pieces("dar", "again")) {
            live.0.apply(index, &piece, &mut Vec::new()).unwrap();
        }
        reader.await.unwrap();
    }

    #[test]
    fn replicas_have_one_state_hash_however_they_came_to_it() {
        let mut live = Replica::new();
        live.apply(1..=700);
        let mut checkpoint = Chunks::default();
        live.checkpoint(&mut checkpoint);
        live.0.state.forget_events(|_| Offset(300));
        let mut installed = Replica::new();
        installed.0.restore(700, &checkpoint).unwrap();
        assert_eq!(installed.applied_state(), live.applied_state());
        live.apply(701..=900);
        let mut replayed = Replica::new();
        replayed.apply(1..=900);
        installed.apply(701..=900);
        assert_eq!(
            installed.applied_state(),
            live.applied_state(),
            "by a checkpoint and the log after it"
        );
        assert_eq!(replayed.applied_state(), live.applied_state(), "by the whole log");
        live.checkpoint(&mut checkpoint);
        let mut restarted = Replica::new();
        restarted.0.restore(900, &checkpoint).unwrap();
        assert_eq!(restarted.applied_state(), live.applied_state(), "by its own checkpoint");
        replayed.apply(901..=901);
        assert_ne!(
            replayed.applied_state().1,
            live.applied_state().1,
            "a repeat alone moves the time"
        );
    }
}
