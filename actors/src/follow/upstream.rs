//! Upstream: a branch:module's live deltas as another node sends them, and its successor when that
//! node dies, loses its quorum or the link breaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{BranchKey, NodeId, Offset};
use raft::{GroupId, Priority};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::live::{LiveSource, LiveUpdate};
use crate::client::{CatalogueClient, LeaderClient, LeaderRequest, LocalPartitions};
use crate::limits::REQUEST_DEADLINE;
use crate::message::{PeerCast, PeerReply, PeerRequest, Refusal, encode};
use crate::peers::Peers;

/// An upstream that sends nothing for this long is asked again, or another is.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// Pause before another round of asking.
const ATTACH_PAUSE: Duration = Duration::from_millis(200);

/// What every feed of this node needs to reach an upstream. Cheap to clone.
#[derive(Clone)]
pub(crate) struct UpstreamContext {
    pub(crate) leaders: LeaderClient,
    pub(crate) catalogue_client: CatalogueClient,
    pub(crate) partitions: LocalPartitions,
    pub(crate) peers: Arc<dyn Peers>,
}

/// The live deltas of a branch:module from a node that holds a replica with a quorum, the leader
/// where it is known. Dropping it ends the feed there.
pub(super) struct Upstream {
    context: UpstreamContext,
    key: BranchKey,
    /// This node's number for the feed: what is sent for it carries the number.
    feed: u64,
    updates: mpsc::Receiver<LiveUpdate>,
    /// Told when a link broke or the other node ended the feed.
    lost: Arc<Notify>,
    node: Option<NodeId>,
    is_attached: bool,
    received_at: Instant,
}

impl Upstream {
    pub(super) fn new(
        context: UpstreamContext,
        key: BranchKey,
        feed: u64,
        updates: mpsc::Receiver<LiveUpdate>,
        lost: Arc<Notify>,
    ) -> Self {
        let (node, received_at) = (None, Instant::now());
        Self { context, key, feed, updates, lost, node, is_attached: false, received_at }
    }

    async fn next_update(&mut self) -> LiveUpdate {
        loop {
            // Kept as a field: if this is cancelled while it asks, the next call asks again.
            if !self.is_attached {
                let Some(offset) = self.attach().await else { return LiveUpdate::Ended };
                self.is_attached = true;
                self.received_at = Instant::now();
                // Whatever was lost in between, the follower sees that it has less than this.
                return LiveUpdate::Position(offset);
            }
            tokio::select! {
                biased;
                () = self.lost.notified() => self.is_attached = false,
                update = self.updates.recv() => {
                    self.received_at = Instant::now();
                    // The registry forgot this feed: nothing will come any more.
                    return update.unwrap_or(LiveUpdate::Ended);
                }
                // A healthy upstream sends its position every few seconds. One that died with its
                // link up, or stopped at a full queue, sends nothing.
                () = tokio::time::sleep_until(self.received_at + SILENCE_MAX) => {
                    self.is_attached = false;
                }
            }
        }
    }

    /// Asks a replica to send the deltas here until one does. The offset after which it will, or
    /// `None` where this node cannot follow the branch from afar: it is gone, or it is here now.
    async fn attach(&mut self) -> Option<Offset> {
        loop {
            let partition = self.context.catalogue_client.locate(&self.key).ok()?;
            if self.context.partitions.get(partition).is_some() {
                return None;
            }
            let request = FollowRequest { key: self.key.clone(), feed: self.feed };
            let deadline = Instant::now() + REQUEST_DEADLINE;
            let asked = self.context.leaders.ask(GroupId::from(partition), &request, deadline);
            if let Ok((node, offset)) = asked.await {
                // A former upstream that still lives would send everything twice.
                if self.node.is_some_and(|former| former != node) {
                    self.detach();
                }
                self.node = Some(node);
                return Some(offset);
            }
            // Nobody leads for longer than a request waits: followers wait as long as it takes.
            tokio::time::sleep(ATTACH_PAUSE).await;
        }
    }

    fn detach(&mut self) {
        if let Some(node) = self.node.take() {
            let unfollow = encode(&PeerCast::Unfollow { feed: self.feed });
            // A link that is down has forgotten the feed by itself; where its queue is full, what
            // comes for a feed that is not known here is answered with another `Unfollow`.
            let _ = self.context.peers.cast(node, Priority::Feed, unfollow);
        }
    }
}

impl LiveSource for Upstream {
    fn next(&mut self) -> BoxFuture<'_, LiveUpdate> {
        Box::pin(self.next_update())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Asks for the deltas of a branch:module from now on.
struct FollowRequest {
    key: BranchKey,
    feed: u64,
}

impl LeaderRequest for FollowRequest {
    type Answer = (NodeId, Offset);

    fn message(&self) -> (Priority, Bytes) {
        let (key, feed) = (self.key.clone(), self.feed);
        (Priority::Call, encode(&PeerRequest::Follow { key, feed }))
    }

    fn answer(&self, from: NodeId, reply: PeerReply) -> Option<(NodeId, Offset)> {
        if let PeerReply::Following(offset) = reply { Some((from, offset)) } else { None }
    }

    /// There was no replica here a moment ago. If there is one now, followers go to it.
    async fn perform(&self, _: Duration) -> Result<(NodeId, Offset), Refusal> {
        Err(Refusal::NotLeader { hint: None })
    }
}
