//! Reach: which peers this node has a link to, and since when.

use std::collections::BTreeMap;
use std::time::Duration;

use model::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Which peers this node has a link to.
#[derive(Default)]
pub(crate) struct Reach {
    since: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Reach {
    /// A link was made or broke.
    pub(crate) fn changed(&self, peer: NodeId, up: bool) {
        let mut since = self.since.lock();
        if up {
            since.entry(peer).or_insert_with(Instant::now);
        } else {
            since.remove(&peer);
        }
    }

    /// Whether there is a link now.
    pub(crate) fn is_up(&self, peer: NodeId) -> bool {
        self.since.lock().contains_key(&peer)
    }

    /// How long there has been a link without a break; zero without one.
    pub(crate) fn up_for(&self, peer: NodeId) -> Duration {
        self.since.lock().get(&peer).map_or(Duration::ZERO, Instant::elapsed)
    }
}
