//! Upstream: a branch:module's live deltas as another node sends them, and its successor when that
//! node dies, loses its quorum or the link breaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{BranchKey, NodeId, Offset};
use parking_lot::Mutex;
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

/// Which node sends a feed, and whether what it sent may be lost. The feed's upstream shares it
/// with whoever learns of broken links and ended feeds.
#[derive(Default)]
pub(super) struct Attachment {
    /// `None` while the feed looks for a node.
    node: Mutex<Option<NodeId>>,
    lost: Notify,
}

impl Attachment {
    /// What was sent to the feed may be lost: it attaches again.
    pub(super) fn lose(&self) {
        self.lost.notify_one();
    }

    /// The link to a node broke or was made.
    pub(super) fn link_changed(&self, peer: NodeId) {
        // A feed that looks for a node may have its answer, over this link, on the way. That one is
        // notified too; to attach twice costs one message.
        if self.node.lock().is_none_or(|node| node == peer) {
            self.lose();
        }
    }

    fn is_attached(&self) -> bool {
        self.node.lock().is_some()
    }
}

/// The live deltas of a branch:module from a node that holds a replica with a quorum, the leader
/// where it is known. Dropping it ends the feed there.
pub(super) struct Upstream {
    context: UpstreamContext,
    key: BranchKey,
    /// This node's number for the feed: what is sent for it carries the number.
    feed: u64,
    updates: mpsc::Receiver<LiveUpdate>,
    attachment: Arc<Attachment>,
    /// The node that sends, or the last one that did.
    node: Option<NodeId>,
    received_at: Instant,
}

impl Upstream {
    pub(super) fn new(
        context: UpstreamContext,
        key: BranchKey,
        feed: u64,
        updates: mpsc::Receiver<LiveUpdate>,
        attachment: Arc<Attachment>,
    ) -> Self {
        let (node, received_at) = (None, Instant::now());
        Self { context, key, feed, updates, attachment, node, received_at }
    }

    async fn next_update(&mut self) -> LiveUpdate {
        loop {
            // Kept outside of this call: if it is cancelled while it asks, the next one asks again.
            if !self.attachment.is_attached() {
                let Some(offset) = self.attach().await else { return LiveUpdate::Ended };
                self.received_at = Instant::now();
                // Whatever was lost in between, the follower sees that it has less than this.
                return LiveUpdate::Position(offset);
            }
            tokio::select! {
                biased;
                () = self.attachment.lost.notified() => *self.attachment.node.lock() = None,
                update = self.updates.recv() => {
                    self.received_at = Instant::now();
                    // The registry forgot this feed: nothing will come any more.
                    return update.unwrap_or(LiveUpdate::Ended);
                }
                // A healthy upstream sends its position every few seconds. One that died with its
                // link up, or stopped at a full queue, sends nothing.
                () = tokio::time::sleep_until(self.received_at + SILENCE_MAX) => {
                    *self.attachment.node.lock() = None;
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
                *self.attachment.node.lock() = Some(node);
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
