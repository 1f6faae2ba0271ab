//! Feeds: the feeds of this node by branch:module, so that its sessions share one each, and by
//! number, so that what other nodes send finds its feed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{BranchKey, Delta, NodeId, Offset};
use parking_lot::Mutex;
use ractor::ActorRef;
use tokio::sync::{broadcast, mpsc};

use super::live::LiveUpdate;
use super::upstream::Attachment;
use crate::limits::{FEED_QUEUE_DELTAS, FOLLOWER_QUEUE_DELTAS};
use crate::store::SharedDelta;

/// The feeds of this node. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Feeds(Arc<Registry>);

#[derive(Default)]
struct Registry {
    next: AtomicU64,
    entries: Mutex<BTreeMap<BranchKey, Entry>>,
    /// Who starts feeds. One that failed stands here until it has a successor.
    supervisor: Mutex<Option<ActorRef<Message>>>,
}

/// Messages of the feeds' supervisor.
pub(crate) enum Message {
    /// Start this feed.
    Start(FeedStart),
    /// For tests: fail, as a defect would.
    #[cfg(test)]
    Panic,
}

/// What a feed is started with.
pub(crate) struct FeedStart {
    pub(super) updates: broadcast::Sender<LiveUpdate>,
    pub(super) incoming: mpsc::Receiver<LiveUpdate>,
    pub(super) registration: Registration,
}

/// A running feed, as seen from outside.
struct Entry {
    feed: u64,
    /// To its followers. Theirs close when the entry and the feed are gone.
    updates: broadcast::Sender<LiveUpdate>,
    /// To the feed. Bounded: what finds it full is dropped and read back from the log.
    incoming: mpsc::Sender<LiveUpdate>,
    attachment: Arc<Attachment>,
}

impl Entry {
    fn send(&self, update: LiveUpdate) {
        // A full queue loses the update: the feed notices by the next offset or position.
        let _ = self.incoming.try_send(update);
    }
}

/// A feed's place in the registry. Dropping it takes the feed out.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    pub(super) key: BranchKey,
    pub(super) feed: u64,
    pub(super) attachment: Arc<Attachment>,
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
    /// From now on this actor starts the feeds.
    pub(super) fn set_supervisor(&self, supervisor: ActorRef<Message>) {
        *self.0.supervisor.lock() = Some(supervisor);
    }

    /// Every later update of a branch:module this node holds no replica of. The first follower
    /// starts the feed. `None`: no supervisor is there to start it now; one that failed has a
    /// successor in a moment.
    pub(super) fn tap(&self, key: &BranchKey) -> Option<broadcast::Receiver<LiveUpdate>> {
        // Held until the entry is in: of two followers that come at once one starts the feed.
        let mut entries = self.0.entries.lock();
        if let Some(entry) = entries.get(key) {
            return Some(entry.updates.subscribe());
        }
        let feed = self.0.next.fetch_add(1, Ordering::AcqRel);
        let (updates, receiver) = broadcast::channel(FOLLOWER_QUEUE_DELTAS);
        let (incoming, queue) = mpsc::channel(FEED_QUEUE_DELTAS);
        let attachment = Arc::new(Attachment::default());
        let (to_followers, shared) = (updates.clone(), Arc::clone(&attachment));
        entries.insert(key.clone(), Entry { feed, updates, incoming, attachment });
        drop(entries);
        let registry = Arc::clone(&self.0);
        let registration = Registration { registry, key: key.clone(), feed, attachment: shared };
        let start = FeedStart { updates: to_followers, incoming: queue, registration };
        // Where nobody takes it, its registration goes with it.
        let supervisor = self.0.supervisor.lock().clone()?;
        supervisor.cast(Message::Start(start)).ok()?;
        Some(receiver)
    }

    /// Another node sends a delta. Whether the feed is one of this node's.
    pub(crate) fn deliver(&self, feed: u64, delta: Delta) -> bool {
        let entries = self.0.entries.lock();
        let Some(entry) = entries.get(&delta.key).filter(|entry| entry.feed == feed) else {
            return false;
        };
        entry.send(LiveUpdate::Delta(Arc::new(SharedDelta::new(Arc::new(delta)))));
        true
    }

    /// Another node sends the position of a feed. Whether the feed is one of this node's.
    pub(crate) fn note_position(&self, feed: u64, offset: Offset) -> bool {
        // It does not say of which branch it is; it comes every few seconds only.
        let entries = self.0.entries.lock();
        let Some(entry) = entries.values().find(|entry| entry.feed == feed) else { return false };
        entry.send(LiveUpdate::Position(offset));
        true
    }

    /// Another node serves a feed no longer.
    pub(crate) fn note_ended(&self, feed: u64) {
        for entry in self.0.entries.lock().values().filter(|entry| entry.feed == feed) {
            entry.attachment.lose();
        }
    }

    /// The link to a node broke or was made: the feeds that it sends attach again.
    pub(crate) fn link_changed(&self, peer: NodeId) {
        self.0.entries.lock().values().for_each(|entry| entry.attachment.link_changed(peer));
    }

    /// For tests: the feeds that run.
    #[cfg(test)]
    pub(crate) fn actors(&self) -> Vec<ractor::ActorCell> {
        let supervisor = self.0.supervisor.lock().clone();
        supervisor.map(|supervisor| supervisor.get_children()).unwrap_or_default()
    }

    /// For tests: the supervisor fails.
    #[cfg(test)]
    pub(super) fn panic_supervisor(&self) {
        let supervisor = self.0.supervisor.lock().clone().expect("it was started");
        supervisor.cast(Message::Panic).expect("it runs");
    }
}
