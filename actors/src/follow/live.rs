//! Live: where a follower's deltas come from as they happen. A source may lose some, as long as the
//! follower can notice: by the offset of the next delta, by a position, or by a `Gap`.

use std::sync::Arc;

use futures::future::BoxFuture;
use model::{BranchKey, Offset};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::Follows;
use crate::limits::RETRY_PAUSE;
use crate::store::SharedDelta;

/// One thing a source gives.
#[derive(Debug, Clone)]
pub(crate) enum LiveUpdate {
    /// A change, usually the next.
    Delta(Arc<SharedDelta>),
    /// The log reaches this offset: who has less has missed something.
    Position(Offset),
    /// Some may have been lost, and nobody knows how many.
    Gap,
    /// There will be no more from this source: the branch is unknown by now, or a replica has come
    /// here, which is tapped instead.
    Ended,
}

/// Where live deltas come from.
pub(crate) trait LiveSource: Send {
    /// The next update. Cancel-safe: what is not returned is not lost.
    fn next(&mut self) -> BoxFuture<'_, LiveUpdate>;
}

/// What a tap reads from.
pub(super) enum LiveChannel {
    /// The machine of the replica on this node.
    Replica(Receiver<Arc<SharedDelta>>),
    /// This node's feed of a replica elsewhere.
    Feed(Receiver<LiveUpdate>),
}

impl LiveChannel {
    async fn recv(&mut self) -> Result<LiveUpdate, RecvError> {
        match self {
            Self::Replica(deltas) => deltas.recv().await.map(LiveUpdate::Delta),
            Self::Feed(updates) => updates.recv().await,
        }
    }
}

/// A source on this node: the replica's machine or the feed, and its successor when it ends.
pub(super) struct Tap {
    follows: Follows,
    key: BranchKey,
    channel: LiveChannel,
}

impl Tap {
    pub(super) fn new(follows: Follows, key: BranchKey, channel: LiveChannel) -> Self {
        Self { follows, key, channel }
    }

    async fn next_update(&mut self) -> LiveUpdate {
        match self.channel.recv().await {
            Ok(update) => update,
            // The follower was slower than the queue is long.
            Err(RecvError::Lagged(_)) => LiveUpdate::Gap,
            // The replica was replaced by a checkpoint, or the feed ended or failed: its successor
            // is tapped, and what came between the two is read from the log.
            Err(RecvError::Closed) => self.tap_again().await,
        }
    }

    /// Taps the successor, for as long as it takes to have one: the feeds' supervisor may have
    /// failed as well, or group 0 may have no leader now.
    async fn tap_again(&mut self) -> LiveUpdate {
        loop {
            tokio::time::sleep(RETRY_PAUSE).await;
            match self.follows.tap(&self.key).await {
                Ok(channel) => {
                    self.channel = channel;
                    return LiveUpdate::Gap;
                }
                Err(error) if error.is_temporary() => {}
                Err(_) => return LiveUpdate::Ended,
            }
        }
    }
}

impl LiveSource for Tap {
    fn next(&mut self) -> BoxFuture<'_, LiveUpdate> {
        Box::pin(self.next_update())
    }
}
