//! Feeds: the feeds of this node by branch:module, so that its sessions share one each, and by
//! number, so that what other nodes send finds its feed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{BranchKey, Delta, Offset};
use parking_lot::Mutex;
use ractor::{ActorRef, MessagingErr};
use tokio::sync::{Notify, broadcast, mpsc};

use super::feed::{FeedSupervisor, StartFeed, SupervisorStart};
use super::live::LiveUpdate;
use crate::limits::{FEED_QUEUE_DELTAS, FOLLOWER_QUEUE_DELTAS};
use crate::store::SharedDelta;

/// The feeds of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Feeds {
    registry: Arc<Registry>,
    supervisor: ActorRef<StartFeed>,
}

#[derive(Default)]
struct Registry {
    next: AtomicU64,
    entries: Mutex<BTreeMap<BranchKey, Entry>>,
}

/// A running feed, as seen from outside.
struct Entry {
    feed: u64,
    /// To its followers. Theirs close when the entry and the feed are gone.
    updates: broadcast::Sender<LiveUpdate>,
    /// To the feed. Bounded: what finds it full is dropped and read back from the log.
    incoming: mpsc::Sender<LiveUpdate>,
    lost: Arc<Notify>,
}

/// A feed's place in the registry. Dropping it takes the feed out.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    key: BranchKey,
    pub(super) feed: u64,
    lost: Arc<Notify>,
}

impl Registration {
    /// Notified when what was sent to the feed may be lost.
    pub(super) fn lost(&self) -> Arc<Notify> {
        Arc::clone(&self.lost)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut entries = self.registry.entries.lock();
        // A successor may already stand under the same key.
        if entries.get(&self.key).is_some_and(|entry| entry.feed == self.feed) {
            entries.remove(&self.key);
        }
    }
}

impl Feeds {
    /// Starts the supervisor of this node's feeds beneath `root`.
    pub(crate) async fn start(
        start: SupervisorStart,
        root: ractor::ActorCell,
    ) -> Result<Self, ractor::SpawnErr> {
        let (supervisor, _) =
            ractor::Actor::spawn_linked(None, FeedSupervisor, start, root).await?;
        Ok(Self { registry: Arc::default(), supervisor })
    }

    /// Every later update of a branch:module this node holds no replica of. The first follower
    /// starts the feed.
    ///
    /// # Errors
    /// The supervisor is gone: this node is stopping.
    pub(super) fn tap(
        &self,
        key: &BranchKey,
    ) -> Result<broadcast::Receiver<LiveUpdate>, MessagingErr<()>> {
        // Held until the entry is in: of two followers that come at once one starts the feed.
        let mut entries = self.registry.entries.lock();
        if let Some(entry) = entries.get(key) {
            return Ok(entry.updates.subscribe());
        }
        let feed = self.registry.next.fetch_add(1, Ordering::AcqRel);
        let (updates, receiver) = broadcast::channel(FOLLOWER_QUEUE_DELTAS);
        let (incoming, queue) = mpsc::channel(FEED_QUEUE_DELTAS);
        let lost = Arc::new(Notify::new());
        let entry = Entry { feed, updates: updates.clone(), incoming, lost: Arc::clone(&lost) };
        entries.insert(key.clone(), entry);
        drop(entries);
        let registry = Arc::clone(&self.registry);
        let registration = Registration { registry, key: key.clone(), feed, lost };
        let start = StartFeed { key: key.clone(), updates, incoming: queue, registration };
        // Where it is not taken it comes back, and its registration goes with it.
        self.supervisor.cast(start).map_err(|error| error.map(drop))?;
        Ok(receiver)
    }

    /// Another node sends a delta. Whether the feed is one of this node's.
    pub(crate) fn deliver(&self, feed: u64, delta: Delta) -> bool {
        let shared = SharedDelta::new(Arc::new(delta));
        self.send(feed, LiveUpdate::Delta(Arc::new(shared)))
    }

    /// Another node sends the position of a feed. Whether the feed is one of this node's.
    pub(crate) fn note_position(&self, feed: u64, offset: Offset) -> bool {
        self.send(feed, LiveUpdate::Position(offset))
    }

    /// Another node serves a feed no longer.
    pub(crate) fn note_ended(&self, feed: u64) {
        for entry in self.registry.entries.lock().values().filter(|entry| entry.feed == feed) {
            entry.lost.notify_one();
        }
    }

    /// A link broke or was made: feeds over it attach again. Which those are only the feeds know,
    /// and to attach twice costs one message.
    pub(crate) fn link_changed(&self) {
        self.registry.entries.lock().values().for_each(|entry| entry.lost.notify_one());
    }

    fn send(&self, feed: u64, update: LiveUpdate) -> bool {
        let entries = self.registry.entries.lock();
        let Some(entry) = entries.values().find(|entry| entry.feed == feed) else { return false };
        // A full queue loses the update: the feed notices by the next offset or position.
        let _ = entry.incoming.try_send(update);
        true
    }

    /// For tests: the feeds that run.
    #[cfg(test)]
    pub(crate) fn actors(&self) -> Vec<ractor::ActorCell> {
        self.supervisor.get_children()
    }
}
