//! FeedServer: the other end of a feed: sends a local branch's deltas to a node that follows it
//! from afar. It mends nothing: what it drops the other node notices.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{BranchKey, NodeId, Offset};
use parking_lot::Mutex;
use raft::{Priority, ReplicaGroup};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::task::AbortOnDropHandle;

use super::POSITION_INTERVAL;
use crate::client::LocalPartition;
use crate::limits::{FEEDS_MAX, PUSHED_BYTES_MAX};
use crate::message::{PeerCast, encode};
use crate::offload::event_bytes;
use crate::peers::{PeerError, Peers};
use crate::store::SharedDelta;

/// The feeds this node serves, by the node that follows and its number for the feed. Cheap to
/// clone.
#[derive(Clone)]
pub(crate) struct FeedServer {
    peers: Arc<dyn Peers>,
    running: Arc<Mutex<Pumps>>,
}

/// The task that sends each feed.
type Pumps = BTreeMap<(NodeId, u64), AbortOnDropHandle<()>>;

impl FeedServer {
    pub(crate) fn new(peers: Arc<dyn Peers>) -> Self {
        Self { peers, running: Arc::default() }
    }

    /// Begins to send a branch's deltas. The offset after which it does, or `None` at the limit, or
    /// where this replica has no quorum.
    pub(crate) fn start(
        &self,
        to: NodeId,
        feed: u64,
        key: &BranchKey,
        local: &LocalPartition,
    ) -> Option<Offset> {
        let group: ReplicaGroup = (*local.group).clone();
        // A replica that is cut off from the others has nothing new to send: another is asked.
        if !group.status().has_quorum {
            return None;
        }
        let mut running = self.running.lock();
        // A feed that attaches again takes the place it has.
        if running.len() >= FEEDS_MAX && !running.contains_key(&(to, feed)) {
            return None;
        }
        // State and tap are of one moment: the first delta sent is the one after this offset.
        let (view, live) = local.applied.subscribe(key);
        let offset = view.branch(key).map(|b| b.head().offset).unwrap_or_default();
        let pump = Pump { peers: Arc::clone(&self.peers), group, to, feed, offset };
        // Not held by the task: the pumps end with the server.
        let pumps = Arc::downgrade(&self.running);
        let work = async move {
            pump.run(live).await;
            if let Some(pumps) = pumps.upgrade() {
                leave(&pumps, (to, feed));
            }
        };
        // One that sent to this feed before is dropped, and ends.
        running.insert((to, feed), AbortOnDropHandle::new(tokio::spawn(work)));
        Some(offset)
    }

    /// A node no longer follows.
    pub(crate) fn stop(&self, to: NodeId, feed: u64) {
        self.running.lock().remove(&(to, feed));
    }

    /// A link broke or was made anew: whoever follows over it asks again.
    pub(crate) fn link_changed(&self, peer: NodeId) {
        self.running.lock().retain(|(node, _), _| *node != peer);
    }
}

/// The task that calls this has ended, and gives its place back: looking for such whenever a feed
/// begins would cost as much as there are feeds.
fn leave(pumps: &Mutex<Pumps>, place: (NodeId, u64)) {
    let mut running = pumps.lock();
    // Its place may be another's by now.
    if running.get(&place).is_some_and(|pump| pump.as_ref().id() == tokio::task::id()) {
        running.remove(&place);
    }
}

struct Pump {
    peers: Arc<dyn Peers>,
    group: ReplicaGroup,
    to: NodeId,
    feed: u64,
    offset: Offset,
}

impl Pump {
    async fn run(mut self, mut live: Receiver<Arc<SharedDelta>>) {
        loop {
            let sent = match tokio::time::timeout(POSITION_INTERVAL, live.recv()).await {
                Ok(Ok(shared)) => self.push(&shared),
                // Silence of a replica that others do not reach says nothing of the log.
                Err(_) if !self.group.status().has_quorum => {
                    let _ = self.cast(&PeerCast::FeedEnded { feed: self.feed });
                    return;
                }
                Err(_) => self.cast(&PeerCast::Position { feed: self.feed, offset: self.offset }),
                Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => {
                    // The follower attaches again and reads what it missed from the log.
                    let _ = self.cast(&PeerCast::FeedEnded { feed: self.feed });
                    return;
                }
            };
            if sent.is_err() {
                return; // The link is down or full: the follower notices, and attaches again.
            }
        }
    }

    fn push(&mut self, shared: &SharedDelta) -> Result<(), PeerError> {
        self.offset = shared.delta.last().unwrap_or(self.offset);
        let position = PeerCast::Position { feed: self.feed, offset: self.offset };
        // A large delta would hold up what else is on the link; the follower reads it instead.
        let rough: usize = shared.delta.events.iter().map(|e| event_bytes(&e.change)).sum();
        if rough > PUSHED_BYTES_MAX {
            return self.cast(&position);
        }
        let delta = (*shared.delta).clone();
        let pushed = encode(&PeerCast::Delta { feed: self.feed, delta });
        if pushed.len() > PUSHED_BYTES_MAX {
            return self.cast(&position);
        }
        self.peers.cast(self.to, Priority::Feed, pushed)
    }

    fn cast(&self, cast: &PeerCast) -> Result<(), PeerError> {
        self.peers.cast(self.to, Priority::Feed, encode(cast))
    }
}
