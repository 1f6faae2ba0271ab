//! The other end of a feed: pumps a local branch's deltas to a node that follows it from afar.

use std::sync::Arc;
use std::time::Duration;

use model::{BranchKey, NodeId, Offset};
use raft::Priority;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::task::AbortOnDropHandle;

use crate::limits::PUSHED_BYTES_MAX;
use crate::message::{PeerCast, encode};
use crate::offload::event_bytes;
use crate::partition::machine::AppliedPartition;
use crate::peers::{PeerError, Peers};
use crate::store::SharedDelta;

/// How often a feed says where it stands: finds a lost last delta.
pub(crate) const POSITION_INTERVAL: Duration = Duration::from_secs(5);

/// Starts pumping. Returns where the feed begins.
pub(crate) fn pump(
    peers: Arc<dyn Peers>,
    to: NodeId,
    feed: u64,
    key: &BranchKey,
    applied: &AppliedPartition,
) -> (Offset, AbortOnDropHandle<()>) {
    let (view, live) = applied.subscribe(key);
    let offset = view.branch(key).map(|b| b.head().offset).unwrap_or_default();
    let pump = Pump { peers, to, feed, offset };
    (offset, AbortOnDropHandle::new(tokio::spawn(pump.run(live))))
}

struct Pump {
    peers: Arc<dyn Peers>,
    to: NodeId,
    feed: u64,
    offset: Offset,
}

impl Pump {
    async fn run(mut self, mut live: Receiver<Arc<SharedDelta>>) {
        loop {
            let sent = match tokio::time::timeout(POSITION_INTERVAL, live.recv()).await {
                Ok(Ok(shared)) => self.push(&shared),
                Err(_) => self.cast(&PeerCast::Position { feed: self.feed, offset: self.offset }),
                Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => {
                    // The follower asks again and mends the gap from the log.
                    let _ = self.cast(&PeerCast::FeedEnded { feed: self.feed });
                    return;
                }
            };
            if sent.is_err() {
                return; // The link is down or full: the follower notices, and follows again.
            }
        }
    }

    fn push(&mut self, shared: &SharedDelta) -> Result<(), PeerError> {
        self.offset = shared.delta.last().unwrap_or(self.offset);
        let stands = PeerCast::Position { feed: self.feed, offset: self.offset };
        let rough: usize = shared.delta.events.iter().map(|e| event_bytes(&e.change)).sum();
        if rough > PUSHED_BYTES_MAX {
            return self.cast(&stands);
        }
        let delta = (*shared.delta).clone();
        let pushed = encode(&PeerCast::Delta { feed: self.feed, delta });
        if pushed.len() > PUSHED_BYTES_MAX {
            return self.cast(&stands);
        }
        self.peers.cast(self.to, Priority::Feed, pushed)
    }

    fn cast(&self, cast: &PeerCast) -> Result<(), PeerError> {
        self.peers.cast(self.to, Priority::Feed, encode(cast))
    }
}
