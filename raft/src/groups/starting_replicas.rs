//! Starting replicas: counts the replicas of a node that are starting, so that other work can wait.
//!
//! A starting replica reads its state and its log from the disk while its group may lack a
//! majority. Rebuilding a store and verifying chunks would compete for that disk. Promise: who
//! waits continues once no replica is starting, or after a limited time, because a start that fails
//! may be retried for ever. Refused: an order among the starting replicas.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::limits;

/// The number of starting replicas of a node. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct StartingReplicas(Arc<watch::Sender<usize>>);

/// Counts one starting replica until it is dropped.
pub(crate) struct StartingGuard(StartingReplicas);

impl StartingReplicas {
    pub(crate) fn begin(&self) -> StartingGuard {
        self.0.send_modify(|count| *count += 1);
        StartingGuard(self.clone())
    }

    /// Waits until none is starting, for [`limits::START_WAIT_MAX`] at most.
    pub(crate) async fn wait_until_none(&self) {
        let mut count = self.0.subscribe();
        // The result is ignored: after the time limit, or when the node closes, the caller goes on.
        let _ = timeout(limits::START_WAIT_MAX, count.wait_for(|&count| count == 0)).await;
    }
}

impl Drop for StartingGuard {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waiting_for_starting_replicas_is_bounded() {
        let starting_replicas = StartingReplicas::default();
        assert!(starting_replicas.wait_until_none().now_or_never().is_some());
        let (one, other) = (starting_replicas.begin(), starting_replicas.begin());
        let mut waiting = Box::pin(starting_replicas.wait_until_none());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(one);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(other);
        assert!(waiting.now_or_never().is_some());

        let _stays = starting_replicas.begin();
        let begun = Instant::now();
        starting_replicas.wait_until_none().await;
        assert!(begun.elapsed() >= limits::START_WAIT_MAX);
    }
}
