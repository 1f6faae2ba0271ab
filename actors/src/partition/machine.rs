//! Machine: this replica's copy of one partition: applies what was committed, in order, and
//! publishes the state after each entry for readers and followers.
//!
//! Promise: a follower that subscribes to a branch sees a state and then every delta after it, none
//! twice. Events leave memory only when both a durable checkpoint and the working store hold them.
//! Refused: nothing here decides anything; `model::Partition` does.
//!
//! How events are handed over from memory to disk: `freeze` keeps the state that goes into the
//! checkpoint; `checkpoint_durable` takes from it the last event of each branch; with each later
//! entry the machine looks whether the working store has reached the checkpoint's index, and once
//! it has, the machine drops those events. A restart reads them from the checkpoint, and a client
//! that asks for old events reads them from the store, so both must hold them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use model::{
    AppliedCommand, Batch, Branch, BranchKey, Delta, Event, Offset, Outcome, Partition,
    PriorRecords, Procedures, Read, Request, checkpoint, codec, store,
};
use parking_lot::Mutex;
use raft::{ChunkSink, ChunkSource, Fatal, FrozenState, StoreWrite, WorkingStore};
use tokio::sync::broadcast;

use crate::limits::{DISPLACED_PER_LINE, FOLLOWER_QUEUE_DELTAS};
use crate::store::SharedDelta;

type DeltaSender = broadcast::Sender<Arc<SharedDelta>>;

/// What a replica's machine shows the rest of the node.
pub(crate) struct AppliedPartition {
    view: ArcSwap<Partition>,
    /// Held while `view` is replaced.
    fanout: Mutex<Fanout>,
    store: OnceLock<Arc<dyn WorkingStore>>,
}

/// What changes together with the state.
#[derive(Default)]
struct Fanout {
    /// The index of the entry after which the state is so.
    index: u64,
    senders: BTreeMap<BranchKey, DeltaSender>,
}

impl AppliedPartition {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            view: ArcSwap::from_pointee(Partition::default()),
            fanout: Mutex::default(),
            store: OnceLock::new(),
        })
    }

    /// The state after the last entry applied here.
    pub(crate) fn view(&self) -> Arc<Partition> {
        self.view.load_full()
    }

    /// The state after the last entry applied here, and that entry's index.
    pub(crate) fn indexed_view(&self) -> (u64, Arc<Partition>) {
        // Under the lock, so that the index is that of the view.
        let fanout = self.fanout.lock();
        (fanout.index, self.view())
    }

    /// The state of now, and every later delta of the branch.
    pub(crate) fn subscribe(
        &self,
        key: &BranchKey,
    ) -> (Arc<Partition>, broadcast::Receiver<Arc<SharedDelta>>) {
        // Held until the view is read, so that nothing is published in between.
        let mut fanout = self.fanout.lock();
        let senders = &mut fanout.senders;
        let receiver = match senders.get(key) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = broadcast::channel(FOLLOWER_QUEUE_DELTAS);
                senders.insert(key.clone(), sender);
                receiver
            }
        };
        (self.view(), receiver)
    }

    /// Events from the working store, which may lie some moments behind. Blocks on disk.
    pub(crate) fn stored_events(
        &self,
        key: &BranchKey,
        after: Offset,
        limit: usize,
    ) -> Result<Vec<Arc<Event>>, Fatal> {
        let Some(store) = self.store.get() else { return Ok(Vec::new()) };
        let from = store::event_key(key, after.next());
        let to = store::event_key(key, Offset(u64::MAX));
        store
            .scan(&from, &to, limit)?
            .into_iter()
            .map(|(_, bytes)| codec::decode(&bytes).map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(|error| Fatal(format!("the working store holds a bad event: {error}")))
    }

    fn publish(&self, index: u64, view: Partition, deltas: Vec<NewDelta>) {
        // Held over both: a follower that subscribes sees a view and then every delta after it. If
        // the view changed between the two, it would miss a delta or get one twice.
        let mut fanout = self.fanout.lock();
        fanout.index = index;
        self.view.store(Arc::new(view));
        for (delta, prior) in deltas {
            let Some(sender) = fanout.senders.get(&delta.key) else { continue };
            let key = delta.key.clone();
            if sender.send(Arc::new(SharedDelta::with_prior(delta, prior))).is_err() {
                fanout.senders.remove(&key); // The last follower left.
            }
        }
    }
}

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
}

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
        Self { state, procedures, applied, frozen: Arc::default(), durable: None }
    }

    /// Lets go of the events that both the last checkpoint and the working store hold. The store
    /// is about a second behind, more while it is busy: what it lacks now leaves memory with a
    /// later entry. If it waited for a checkpoint that finds the store ahead of it, a node that is
    /// never at rest would hold all its events.
    fn forget_stored_events(&mut self) {
        let Some(DurableCheckpoint { index, .. }) = &self.durable else { return };
        if self.applied.store.get().is_none_or(|store| store.stored() < *index) {
            return;
        }
        let Some(DurableCheckpoint { heads, .. }) = self.durable.take() else { return };
        self.state.forget_events(|key| heads.get(key).copied().unwrap_or_default());
    }
}

impl raft::Machine for PartitionMachine {
    /// What each command of the entry came to, in their order.
    type Response = Vec<AppliedCommand>;

    fn apply(
        &mut self,
        index: u64,
        entry: &[u8],
        writes: &mut Vec<StoreWrite>,
    ) -> Result<Self::Response, Fatal> {
        let batch = Batch::decode(entry).map_err(|error| Fatal(error.to_string()))?;
        let mut applied = self.state.apply(&batch);
        // Before the state is published: readers hold on to what they were given, so events let go
        // of later would stay in memory until the next entry.
        self.forget_stored_events();
        log_displaced(&self.state, &applied);
        applied.iter().for_each(log_leaps);
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
        Ok(applied)
    }

    fn freeze(&self) -> Box<dyn FrozenState> {
        // Kept until the checkpoint is durable: only then is it known which events are on disk. A
        // later freeze takes its place, and one whose checkpoint failed is never asked about.
        *self.frozen.lock() = Some(self.state.clone());
        Box::new(FrozenPartition(self.state.clone()))
    }

    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal> {
        self.state = Partition::from_chunks(source, self.procedures.clone())
            .map_err(|error| Fatal(error.to_string()))?;
        let mut fanout = self.applied.fanout.lock();
        // The checkpoint may be from another replica and lie ahead: the deltas in between are never
        // sent. Followers of the state that was replaced begin again from their cursors.
        *fanout = Fanout { index, senders: BTreeMap::new() };
        self.applied.view.store(Arc::new(self.state.clone()));
        // It is about a state that this one does not descend from.
        self.durable = None;
        Ok(())
    }

    fn checkpoint_durable(&mut self, index: u64) {
        // Taken: the frozen state shares memory with the present one, and would keep its events.
        let Some(frozen) = self.frozen.lock().take() else { return };
        let heads = frozen.branches().map(|branch| (branch.key().clone(), branch.head().offset));
        self.durable = Some(DurableCheckpoint { index, heads: heads.collect() });
        self.forget_stored_events();
    }

    fn attach(&mut self, store: Arc<dyn WorkingStore>) {
        // A second call would be a defect of the caller; the first store stays.
        let _ = self.applied.store.set(store);
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

/// A delta and what its records were before, which only followers want: the proposer's answer goes
/// without.
type NewDelta = (Arc<Delta>, Vec<PriorRecords>);

/// What a command newly changed; a remembered answer changed nothing now.
fn new_delta(applied: &mut AppliedCommand) -> Option<NewDelta> {
    match &applied.outcome {
        Outcome::Accepted(accepted) if !accepted.repeated && !accepted.delta.events.is_empty() => {
            Some((Arc::clone(&accepted.delta), std::mem::take(&mut applied.prior)))
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

    use model::{Command, CommandId, Definition, Origin, Schema, Timestamp, Value};
    use raft::Machine as _;

    use bytes::Bytes;

    use super::*;
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
            let (index, state) = self.0.applied.indexed_view();
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

        fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fatal> {
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(Fatal("corrupt".to_owned()));
            }
            let rows = self.rows.lock();
            let found = rows.iter().filter(|(key, _)| key[..] >= *from && key[..] < *to);
            Ok(found.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
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
        let (_, state) = live.0.applied.indexed_view();
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
        live.apply(1402..=1402);
        assert_eq!(first(&live), Some(Offset(257)), "no second checkpoint was needed");
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
