//! Applied: what a replica's machine shows the rest of the node: the state after each entry, and
//! what each newly changed.
//!
//! Promise: a follower that subscribes to a branch sees a state and then every delta after it, none
//! twice. While a large command is under way, the state shows its branch as before it, and who must
//! see it can wait. Refused: changing anything; `machine.rs` does.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use model::{BranchKey, Delta, Event, Offset, Partition, PriorRecords, codec, store};
use parking_lot::Mutex;
use raft::{Fatal, ScanLimit, WorkingStore};
use tokio::sync::{broadcast, watch};

use crate::limits::FOLLOWER_QUEUE_DELTAS;
use crate::store::SharedDelta;

/// A delta and what its records were before, which only followers want: the proposer's answer goes
/// without.
pub(super) type NewDelta = (Arc<Delta>, Vec<PriorRecords>);

type DeltaSender = broadcast::Sender<Arc<SharedDelta>>;

/// What a replica's machine shows the rest of the node.
pub(crate) struct AppliedPartition {
    view: ArcSwap<Partition>,
    /// Held while `view` is replaced.
    fanout: Mutex<Fanout>,
    long: watch::Sender<LongProgress>,
    store: OnceLock<Arc<dyn WorkingStore>>,
}

/// How far large commands are.
#[derive(Default)]
struct LongProgress {
    /// The branch of the one under way, which the view shows as before.
    branch: Option<BranchKey>,
    /// Whether an entry waits for it, and with it all behind.
    holds_up: bool,
    /// How many were finished by now.
    finished: u64,
}

/// A state at an index.
pub(crate) struct IndexedView {
    pub(crate) index: u64,
    pub(crate) state: Arc<Partition>,
    /// Whether it is of the last entry that reached the machine.
    pub(crate) is_newest: bool,
}

/// What changes together with the state.
#[derive(Default)]
struct Fanout {
    /// The index of the entry after which the state is so.
    index: u64,
    /// Before a large command that is under way: that entry's index, and the state then. What the
    /// view shows meanwhile is of no one index.
    before: Option<(u64, Arc<Partition>)>,
    senders: BTreeMap<BranchKey, DeltaSender>,
}

impl AppliedPartition {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            view: ArcSwap::from_pointee(Partition::default()),
            fanout: Mutex::default(),
            long: watch::Sender::default(),
            store: OnceLock::new(),
        })
    }

    /// The state after the last entry applied here.
    pub(crate) fn view(&self) -> Arc<Partition> {
        self.view.load_full()
    }

    /// A state, and the index of the entry after which it is so: of the last entry applied here, or
    /// of the one before a large command that is under way.
    pub(crate) fn indexed_view(&self) -> IndexedView {
        // Under the lock, so that the index is that of the view.
        let fanout = self.fanout.lock();
        match &fanout.before {
            Some((index, state)) => {
                IndexedView { index: *index, state: Arc::clone(state), is_newest: false }
            }
            None => IndexedView { index: fanout.index, state: self.view(), is_newest: true },
        }
    }

    /// The branch whose large command is under way, if there is one.
    pub(crate) fn under_way(&self) -> Option<BranchKey> {
        self.long.borrow().branch.clone()
    }

    /// Waits until the view shows what was applied to this branch by now, where its large command
    /// is under way.
    pub(crate) async fn settled(&self, key: &BranchKey) {
        let mut long = self.long.subscribe();
        let by_now = long.borrow().finished;
        // By the count as well: the next one of the branch may be under way before this task is
        // woken. The sender lives as long as `self`.
        let is_settled =
            |long: &LongProgress| long.branch.as_ref() != Some(key) || long.finished > by_now;
        let _ = long.wait_for(is_settled).await;
    }

    /// Ends when nothing more is applied here before a large command is finished: what others have
    /// by now will not show for long.
    pub(crate) async fn held_up(&self) {
        let _ = self.long.subscribe().wait_for(|long| long.holds_up).await;
    }

    /// An entry waits for the large command that is under way.
    pub(super) fn hold_up(&self) {
        self.long.send_modify(|long| long.holds_up = true);
    }

    /// A large command of this branch is under way from here on.
    pub(super) fn begin_long(&self, key: BranchKey, before: Arc<Partition>) {
        let mut fanout = self.fanout.lock();
        fanout.before = Some((fanout.index, before));
        drop(fanout);
        self.long.send_modify(|long| long.branch = Some(key));
    }

    /// It is finished, or gone with the state it was about.
    pub(super) fn end_long(&self) {
        self.fanout.lock().before = None;
        self.long.send_modify(|long| {
            *long = LongProgress { finished: long.finished + 1, ..LongProgress::default() };
        });
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
        limit: ScanLimit,
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

    /// The index of the last entry that was published.
    pub(super) fn index(&self) -> u64 {
        self.fanout.lock().index
    }

    /// The working store, once there is one.
    pub(super) fn store(&self) -> Option<&Arc<dyn WorkingStore>> {
        self.store.get()
    }

    /// Takes the working store. A second one would be a defect of the caller; the first stays.
    pub(super) fn attach(&self, store: Arc<dyn WorkingStore>) {
        let _ = self.store.set(store);
    }

    /// Publishes another state, which the one before did not lead to. It may be from another
    /// replica and lie ahead: the deltas in between are never sent, and followers begin again from
    /// their cursors.
    pub(super) fn replace(&self, index: u64, view: Partition) {
        let mut fanout = self.fanout.lock();
        *fanout = Fanout { index, ..Fanout::default() };
        self.view.store(Arc::new(view));
        drop(fanout);
        self.end_long();
    }

    /// Publishes the state after an entry, and what the entry newly changed.
    pub(super) fn publish(&self, index: u64, view: Partition, deltas: Vec<NewDelta>) {
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
