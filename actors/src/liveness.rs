//! PeerLiveness: which peers this node has a link to, and since when; which are about to stop; and
//! which say that they should not lead.

use std::collections::BTreeMap;
use std::time::Duration;

use model::NodeId;
use parking_lot::Mutex;
use raft::UnfitReason;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::message::NodeCondition;

/// Which peers this node has a link to.
#[derive(Default)]
pub(crate) struct PeerLiveness(Mutex<BTreeMap<NodeId, LinkStatus>>, Notify);

struct LinkStatus {
    since: Instant,
    /// The peer said that it stops soon.
    is_draining: bool,
    /// The peer says that it should not lead.
    is_unfit: bool,
    /// Its disk takes no more of the log.
    is_full: bool,
    /// Since when it says that it may lead, or the link stands.
    fit_since: Instant,
    /// When it said last what it is like.
    said: Option<Instant>,
}

impl PeerLiveness {
    /// A link was made or broke. One that takes the place of another goes on being up, but its peer
    /// no longer drains: it may have been restarted.
    pub(crate) fn link_changed(&self, peer: NodeId, up: bool) {
        let mut links = self.0.lock();
        if up {
            let now = Instant::now();
            // Fit until it says otherwise: a build that says nothing of itself is no worse for it.
            let new = LinkStatus {
                since: now,
                is_draining: false,
                is_unfit: false,
                is_full: false,
                fit_since: now,
                said: None,
            };
            links.entry(peer).or_insert(new).is_draining = false;
            self.1.notify_one();
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

    /// A peer says what it is like.
    pub(crate) fn set_condition(&self, peer: NodeId, condition: &NodeCondition) {
        if let Some(link) = self.0.lock().get_mut(&peer) {
            let is_fit = condition.unfit.is_empty();
            if is_fit && link.is_unfit {
                link.fit_since = Instant::now();
            }
            link.is_unfit = !is_fit;
            link.said = Some(Instant::now());
            link.is_full = condition.has(UnfitReason::DiskFull);
        }
    }

    /// How long ago a peer said what it is like; none where it has not.
    pub(crate) fn said_ago(&self, peer: NodeId) -> Option<Duration> {
        self.0.lock().get(&peer)?.said.map(|said| said.elapsed())
    }

    /// The peers whose disks take no more of the log.
    pub(crate) fn full_disks(&self) -> Vec<NodeId> {
        let links = self.0.lock();
        links.iter().filter(|(_, link)| link.is_full).map(|(peer, _)| *peer).collect()
    }

    /// Whether a peer may be given a lead: it is linked, does not stop soon, and is fit.
    pub(crate) fn may_lead(&self, peer: NodeId) -> bool {
        self.0.lock().get(&peer).is_some_and(|link| !link.is_draining && !link.is_unfit)
    }

    /// Whether a peer may be given a lead where nobody better is left: it may be unfit.
    pub(crate) fn stays(&self, peer: NodeId) -> bool {
        self.0.lock().get(&peer).is_some_and(|link| !link.is_draining)
    }

    /// Returns when a link was made since the last call.
    pub(crate) async fn new_link(&self) {
        self.1.notified().await;
    }

    /// The peers there is a link to.
    pub(crate) fn linked(&self) -> Vec<NodeId> {
        self.0.lock().keys().copied().collect()
    }

    /// Whether there is a link now.
    pub(crate) fn is_up(&self, peer: NodeId) -> bool {
        self.0.lock().contains_key(&peer)
    }

    /// How long there has been a link without a break to a peer that was fit all the time; zero
    /// where that is not so now.
    pub(crate) fn fit_for(&self, peer: NodeId) -> Duration {
        let links = self.0.lock();
        let fit = links.get(&peer).filter(|link| !link.is_unfit);
        fit.map_or(Duration::ZERO, |link| link.since.max(link.fit_since).elapsed())
    }
}
