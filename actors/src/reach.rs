//! Reach: which peers this node has a link to, and since when; and which of them are about to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Which peers this node has a link to.
#[derive(Default)]
pub(crate) struct Reach {
    since: Mutex<BTreeMap<NodeId, Instant>>,
    /// Peers that said they stop soon; a new link is a new start.
    leaving: Mutex<BTreeSet<NodeId>>,
}

impl Reach {
    /// A link was made or broke.
    pub(crate) fn changed(&self, peer: NodeId, up: bool) {
        self.leaving.lock().remove(&peer);
        let mut since = self.since.lock();
        if up {
            since.entry(peer).or_insert_with(Instant::now);
        } else {
            since.remove(&peer);
        }
    }

    /// A peer stops soon: it is to be given no lead.
    pub(crate) fn leaves(&self, peer: NodeId) {
        self.leaving.lock().insert(peer);
    }

    /// Whether a peer may be given a lead: it is linked, and does not stop soon.
    pub(crate) fn may_lead(&self, peer: NodeId) -> bool {
        self.is_up(peer) && !self.leaving.lock().contains(&peer)
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
