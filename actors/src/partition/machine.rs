//! Machine: this replica's copy of one partition: applies what was committed, in order, and
//! publishes the state after each entry for readers and followers.
//!
//! Promise: a follower that taps a branch sees a state and then every delta after it, none twice.
//! Refused: nothing here decides anything; `model::Partition` does.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use model::{Applied, Batch, BranchKey, Delta, Effect, Event, Offset, Outcome, Partition, codec};
use parking_lot::Mutex;
use raft::{Answer, Change, ChunkSink, ChunkSource, Fatal, Frozen, Store};
use tokio::sync::broadcast;

use crate::door::SharedDelta;
use crate::limits::FOLLOWER_QUEUE_DELTAS;

type Tap = broadcast::Sender<Arc<SharedDelta>>;

/// What a replica's machine shows the rest of the node.
pub(crate) struct Published {
    view: ArcSwap<Partition>,
    taps: Mutex<BTreeMap<BranchKey, Tap>>,
    store: OnceLock<Arc<dyn Store>>,
}

impl Published {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            view: ArcSwap::from_pointee(Partition::default()),
            taps: Mutex::default(),
            store: OnceLock::new(),
        })
    }

    /// The state after the last entry applied here.
    pub(crate) fn view(&self) -> Arc<Partition> {
        self.view.load_full()
    }

    /// The state of now, and every later delta of the branch.
    pub(crate) fn tap(
        &self,
        key: &BranchKey,
    ) -> (Arc<Partition>, broadcast::Receiver<Arc<SharedDelta>>) {
        let mut taps = self.taps.lock();
        let receiver = match taps.get(key) {
            Some(tap) => tap.subscribe(),
            None => {
                let (tap, receiver) = broadcast::channel(FOLLOWER_QUEUE_DELTAS);
                taps.insert(key.clone(), tap);
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

    fn publish(&self, view: Partition, deltas: Vec<Arc<Delta>>) {
        let mut taps = self.taps.lock();
        self.view.store(Arc::new(view));
        for delta in deltas {
            let Some(tap) = taps.get(&delta.key) else { continue };
            let key = delta.key.clone();
            if tap.send(Arc::new(SharedDelta::new(delta))).is_err() {
                taps.remove(&key); // The last follower left.
            }
        }
    }
}

/// This replica's copy of one partition.
pub(crate) struct PartitionMachine {
    state: Partition,
    published: Arc<Published>,
    /// The state last written to a checkpoint that is not durable yet.
    frozen: Arc<Mutex<Option<Partition>>>,
}

impl PartitionMachine {
    pub(crate) fn new(published: Arc<Published>) -> Self {
        Self { state: Partition::default(), published, frozen: Arc::default() }
    }
}

impl raft::Machine for PartitionMachine {
    fn apply(
        &mut self,
        _index: u64,
        entry: &[u8],
        changes: &mut Vec<Change>,
    ) -> Result<Answer, Fatal> {
        let batch: Batch = codec::decode(entry).map_err(|error| Fatal(error.to_string()))?;
        let applied = self.state.apply(&batch).map_err(|halt| Fatal(halt.to_string()))?;
        let deltas: Vec<_> = applied.iter().filter_map(fresh_delta).collect();
        for delta in &deltas {
            delta.events.iter().for_each(|event| put_event(&delta.key, event, changes));
        }
        self.published.publish(self.state.clone(), deltas);
        Ok(Answer(Arc::new(applied)))
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        *self.frozen.lock() = Some(self.state.clone());
        Box::new(FrozenPartition(self.state.clone()))
    }

    fn restore(
        &mut self,
        _index: u64,
        source: &dyn ChunkSource,
        rebuild: Option<&mut dyn FnMut(Change)>,
    ) -> Result<(), Fatal> {
        self.state = Partition::from_chunks(source).map_err(|error| Fatal(error.to_string()))?;
        if let Some(put) = rebuild {
            rebuild_store(&self.state, source, put)?;
        }
        let mut taps = self.published.taps.lock();
        // Followers of the state that was replaced begin again from their cursors.
        taps.clear();
        self.published.view.store(Arc::new(self.state.clone()));
        Ok(())
    }

    fn checkpointed(&mut self, index: u64) {
        let Some(frozen) = self.frozen.lock().take() else { return };
        let behind = |store: &Arc<dyn Store>| store.stored() < index;
        if self.published.store.get().is_none_or(behind) {
            return; // The store does not hold them yet; the next checkpoint lets them go.
        }
        self.state.forget_events(|key| {
            frozen.branch(key).map(|branch| branch.head().offset).unwrap_or_default()
        });
    }

    fn attach(&mut self, store: Arc<dyn Store>) {
        // A second call would be a defect of the caller; the first store stays.
        let _ = self.published.store.set(store);
    }
}

struct FrozenPartition(Partition);

impl Frozen for FrozenPartition {
    fn write(self: Box<Self>, sink: &mut dyn ChunkSink) {
        self.0.chunks(sink);
    }
}

/// What a command newly changed; a remembered answer changed nothing now.
fn fresh_delta(applied: &Applied) -> Option<Arc<Delta>> {
    match &applied.outcome {
        Outcome::Accepted(accepted) if !accepted.repeated && !accepted.delta.events.is_empty() => {
            Some(Arc::clone(&accepted.delta))
        }
        Outcome::Accepted(_) | Outcome::Rejected(_) => None,
    }
}

fn put_event(key: &BranchKey, event: &Event, changes: &mut Vec<Change>) {
    changes
        .push(Change::Put(store::event_key(key, event.offset).into(), codec::encode(event).into()));
    let record: Bytes = store::record_key(key, &event.table, &event.key).into();
    changes.push(match event.effect {
        Effect::Insert | Effect::Merge => Change::Put(record, codec::encode(&*event.record).into()),
        Effect::Delete => Change::Delete(record),
    });
}

fn rebuild_store(
    _state: &Partition,
    _source: &dyn ChunkSource,
    _put: &mut dyn FnMut(Change),
) -> Result<(), Fatal> {
    Ok(())
}

mod store {
    use model::{BranchKey, Offset, RecordKey, TableName};
    pub(super) fn event_key(key: &BranchKey, offset: Offset) -> Vec<u8> {
        model::codec::encode(&(key, offset))
    }
    pub(super) fn record_key(key: &BranchKey, table: &TableName, record: &RecordKey) -> Vec<u8> {
        model::codec::encode(&(key, table, record))
    }
}
