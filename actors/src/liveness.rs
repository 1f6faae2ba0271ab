//! PeerLiveness: which peers this node has a link to, and since when; and which are about to stop.

use std::collections::BTreeMap;
use std::time::Duration;

use model::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Which peers this node has a link to.
#[derive(Default)]
pub(crate) struct PeerLiveness(Mutex<BTreeMap<NodeId, LinkStatus>>);

struct LinkStatus {
    since: Instant,
    /// The peer said that it stops soon.
    is_draining: bool,
}

impl PeerLiveness {
    /// A link was made or broke. One that takes the place of another goes on being up, but its peer
    /// no longer drains: it may have been restarted.
    pub(crate) fn link_changed(&self, peer: NodeId, up: bool) {
        let mut links = self.0.lock();
        if up {
            let new = LinkStatus { since: Instant::now(), is_draining: false };
            links.entry(peer).or_insert(new).is_draining = false;
        } else {
            links.remove(&peer);
        }
    }

    /// A peer stops soon: it is to be given no lead.
    pub(crate) fn set_draining(&self, peer: NodeId) {
        if let Some(link) = self.0.lock().get_mut(&peer) {
            link.is_draining = true;
        }
    }

    /// Whether a peer may be given a lead: it is linked, and does not stop soon.
    pub(crate) fn may_lead(&self, peer: NodeId) -> bool {
        self.0.lock().get(&peer).is_some_and(|link| !link.is_draining)
    }

    /// Whether there is a link now.
    pub(crate) fn is_up(&self, peer: NodeId) -> bool {
        self.0.lock().contains_key(&peer)
    }

    /// How long there has been a link without a break; zero without one.
    pub(crate) fn up_for(&self, peer: NodeId) -> Duration {
        self.0.lock().get(&peer).map_or(Duration::ZERO, |link| link.since.elapsed())
    }
}
