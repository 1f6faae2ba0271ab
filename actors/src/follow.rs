//! Follow: how every change of a branch:module reaches those who follow it, on whatever node.
//!
//! ```text
//!   replica here ── its machine ────────────── LogFollower ── session
//!   replica elsewhere ── FeedServer ══ Upstream ── LogFollower ── Feed ── LogFollower ── session
//! ```
//!
//! What is live may lose deltas: queues are bounded, links break, nodes die. The log is the truth.
//! [`LogFollower`] alone knows how to go from one to the other; a feed is one node's follower of
//! a branch:module, whatever the number of sessions behind it.

mod feed;
mod feeds;
mod follower;
mod live;
mod server;
#[cfg(test)]
mod tests;
mod upstream;

use std::time::Duration;

use futures::future::BoxFuture;
use model::{Answer, BranchKey, ModuleSnapshot, Read, ReadLevel};
use tokio_util::sync::CancellationToken;

pub(crate) use feed::FeedSupervisor;
pub(crate) use feeds::{Feeds, Message as FeedMessage};
pub(crate) use server::FeedServer;
pub(crate) use upstream::UpstreamContext;

use crate::client::{Reads, read_error};
use crate::message::Refusal;
use crate::shares::Requester;
use crate::store::{Cursor, DeltaStream, Follow, FollowItem, RouteError};
use follower::LogFollower;
use live::{LiveChannel, Tap};

/// How often a served feed sends its position: finds a lost last delta.
const POSITION_INTERVAL: Duration = Duration::from_secs(5);

/// The follows of this node, those it takes and those it serves. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Follows {
    pub(crate) reads: Reads,
    pub(crate) upstream: UpstreamContext,
    pub(crate) feeds: Feeds,
    pub(crate) server: FeedServer,
    /// Cancelled when this node goes away: every stream ends then.
    pub(crate) stopped: CancellationToken,
}

impl Follows {
    /// Follows a branch:module from the state of now, or from the event after a cursor.
    pub(crate) async fn follow(
        &self,
        key: BranchKey,
        after: Option<Cursor>,
    ) -> Result<Follow, RouteError> {
        // Live first, then the state: what happens in between is in both and given once. The
        // other way round it would be in neither.
        let channel = self.tap(&key).await?;
        let tap = Tap::new(self.clone(), key.clone(), channel);
        if let Some(cursor) = after {
            // Nobody has looked what came after the cursor: the log is read before anything live.
            let stream = LogFollower::behind(self.reads.clone(), key, cursor, tap);
            return Ok(Follow { snapshot: None, stream: self.until_stopped(stream) });
        }
        let answer = self
            .reads
            .read(Requester::default(), key.clone(), Read::Snapshot, ReadLevel::Linearizable)
            .await?;
        let Answer::Snapshot(snapshot) = answer else {
            return Err(read_error(Refusal::Indeterminate));
        };
        let stream = LogFollower::new(self.reads.clone(), key, cursor_of(&snapshot), tap);
        Ok(Follow { snapshot: Some(snapshot), stream: self.until_stopped(stream) })
    }

    fn until_stopped(&self, follower: LogFollower<Tap>) -> Box<dyn DeltaStream> {
        Box::new(FollowStream { follower, stopped: self.stopped.clone() })
    }

    /// Every later delta of a branch, from the replica here or from afar.
    async fn tap(&self, key: &BranchKey) -> Result<LiveChannel, RouteError> {
        let partition = self.upstream.catalogue_client.find(key).await?;
        if let Some(local) = self.upstream.partitions.get(partition) {
            return Ok(LiveChannel::Replica(local.applied.subscribe(key).1));
        }
        let channel = self.feeds.tap(key).ok_or_else(|| RouteError::Unavailable {
            reason: "this node is about to start its feeds".to_owned(),
            retry_after: Duration::from_secs(1),
        })?;
        Ok(LiveChannel::Feed(channel))
    }
}

/// What a client of this node follows: a follower, for as long as the node runs.
struct FollowStream {
    follower: LogFollower<Tap>,
    stopped: CancellationToken,
}

impl DeltaStream for FollowStream {
    fn next(&mut self) -> BoxFuture<'_, Option<FollowItem>> {
        Box::pin(async {
            tokio::select! {
                biased;
                // Here and not in the follower's parts: one that is behind waits for replicas for
                // as long as it takes, and on a node that goes away none comes.
                () = self.stopped.cancelled() => None,
                item = self.follower.next_item() => item,
            }
        })
    }
}

/// The cursor of a snapshot.
fn cursor_of(snapshot: &ModuleSnapshot) -> Cursor {
    Cursor { incarnation: snapshot.head.incarnation, offset: snapshot.head.offset }
}
