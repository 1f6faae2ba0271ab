//! Checkpoint task: writes the checkpoints of a replica, purges its log and rebuilds its store.
//!
//! Promise: a checkpoint that cannot be written, as on a full disk, stops nothing and is retried.
//! The log is purged only up to the older of the last two checkpoints. Refused: rebuilding a lost
//! store while replicas of the node start, because they need the disk.

use std::sync::Arc;
use std::time::Duration;

use model::mutant::{self, Mutant};
use openraft::Raft;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::blocking::{blocking, low_priority};
use crate::consensus::TypeConfig;
use crate::error::Fatal;
use crate::groups::starting_replicas::StartingReplicas;
use crate::limits;
use crate::replica::Replica;
use crate::state_machine::Applier;

/// A request for a checkpoint now; the sender is answered when it is durable.
pub(crate) type CheckpointRequest = oneshot::Sender<Result<(), Fatal>>;

/// The task of one replica.
pub(crate) struct CheckpointTask {
    pub(crate) replica: Arc<Replica>,
    pub(crate) raft: Raft<TypeConfig, Applier>,
    /// One permit for each checkpoint that may be written at the same time on this node.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) starting_replicas: StartingReplicas,
}

impl CheckpointTask {
    /// Runs until the group is dropped or the replica has failed.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<CheckpointRequest>) {
        let mut retry_at = None;
        let mut last_bytes = 0;
        loop {
            let request = tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
                // After a failure only the timer counts: with a full disk every apply would notify.
                () = self.replica.checkpoint_notify.notified(), if retry_at.is_none() => None,
                () = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now)),
                    if retry_at.is_some() => None,
                () = tokio::time::sleep(limits::CHECKPOINT_REST), if retry_at.is_none() => {
                    self.request_at_rest(&mut last_bytes);
                    let replica = Arc::clone(&self.replica);
                    // An error: the node is stopping.
                    let _ = blocking(move || replica.drop_stored()).await;
                    None
                }
            };
            let result = self.run_once(request.is_some()).await;
            retry_at = result.is_err().then(|| Instant::now() + retry_delay());
            if let Some(request) = request {
                let _ = request.send(result);
            }
            // openraft notices a failed apply only; it is stopped after any other failure as well.
            if self.replica.failure().is_some() {
                let _ = self.raft.shutdown().await;
                return;
            }
        }
    }

    /// Requests a checkpoint where little was applied for a while and much was before: events that
    /// a checkpoint holds may leave memory, and the log is short at the next start.
    fn request_at_rest(&self, last_bytes: &mut u64) {
        let bytes = self.replica.bytes_since_checkpoint();
        let before = std::mem::replace(last_bytes, bytes);
        let is_at_rest = bytes.saturating_sub(before) < limits::CHECKPOINT_REST_BYTES / 16;
        if is_at_rest && bytes >= limits::CHECKPOINT_REST_BYTES {
            self.replica.request_checkpoint();
        }
    }

    async fn run_once(&self, requested: bool) -> Result<(), Fatal> {
        let store_lost = self.replica.store.needs_rebuild();
        if !(store_lost
            || requested
            || self.replica.checkpoint_due()
            || self.replica.take_checkpoint_request())
        {
            return Ok(());
        }
        // Before the permit is taken: other replicas may write checkpoints meanwhile.
        if store_lost {
            self.starting_replicas.wait_until_none().await;
        }
        let _permit = self.permits.acquire().await.map_err(node_stopping)?;
        if store_lost {
            tracing::warn!(group = %self.replica.key, "the working store was lost and is rebuilt");
            let replica = self.replica.clone();
            let rebuilt =
                low_priority(move || replica.rebuild_store()).await.map_err(node_stopping)?;
            if let Err(error) = rebuilt {
                tracing::warn!(group = %self.replica.key, %error, "no rebuild of the store now");
            }
        }
        // Also if the store is still lost: the log must be purged all the same.
        let checkpoint = self.checkpoint().await;
        if let Err(error) = &checkpoint {
            tracing::warn!(group = %self.replica.key, %error, "no checkpoint; retrying later");
        }
        checkpoint?;
        if self.replica.store.needs_rebuild() {
            return Err(Fatal("the working store could not be rebuilt yet".to_owned()));
        }
        Ok(())
    }

    async fn checkpoint(&self) -> Result<(), Fatal> {
        // Each step at its priority: the first and the last take the lock that applying waits for.
        let replica = self.replica.clone();
        let prepared = blocking(move || replica.prepare_checkpoint()).await;
        if let Some(prepared) = prepared.map_err(node_stopping)? {
            let (replica, index) = (self.replica.clone(), prepared.meta.index);
            let written = low_priority(move || replica.write(prepared)).await;
            written.map_err(node_stopping)?.map_err(|error| Fatal(error.to_string()))?;
            let replica = self.replica.clone();
            let dropped = blocking(move || replica.checkpoint_durable(index)).await;
            dropped.map_err(node_stopping)?;
        }
        // openraft must know the checkpoint before it is told to purge. Errors are ignored: that
        // openraft has stopped meanwhile is no failure of the checkpoint.
        let _ = self.raft.trigger().snapshot().await;
        let (checkpoints, key) = (&self.replica.checkpoints, self.replica.key);
        let mut below = checkpoints.oldest_index(key);
        if mutant::is(Mutant::PurgeWalBeforeCheckpointDurable) {
            // openraft purges nothing above the last checkpoint that it knows.
            tokio::time::sleep(limits::RETRY_AFTER).await;
            below = checkpoints.newest(key).map(|newest| newest.meta().index);
        }
        if let Some(index) = below {
            let _ = self.raft.trigger().purge_log(index).await;
        }
        Ok(())
    }
}

fn retry_delay() -> Duration {
    limits::CHECKPOINT_RETRY
}

fn node_stopping(error: impl std::fmt::Display) -> Fatal {
    Fatal(format!("the node is stopping: {error}"))
}
