//! CheckpointTask: writes a replica's checkpoints when they are due, shortens its log, mends its store.
//!
//! Promise: a checkpoint that cannot be written (a full disk) stops nothing; it is tried again.
//! The log is shortened only below the older of the last two checkpoints. Before a lost store is
//! filled, replicas of the node that start go first: they need the disk.

use std::sync::Arc;
use std::time::Duration;

use model::mutant::{self, Mutant};
use openraft::Raft;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::consensus::TypeConfig;
use crate::error::Fatal;
use crate::groups::StartingReplicas;
use crate::limits;
use crate::replica::Replica;
use crate::state_machine::Applier;

/// Somebody who wants a checkpoint now, and waits for it.
pub(crate) type CheckpointRequest = oneshot::Sender<Result<(), Fatal>>;

/// Looks after one replica.
pub(crate) struct CheckpointTask {
    pub(crate) replica: Arc<Replica>,
    pub(crate) raft: Raft<TypeConfig, Applier>,
    /// One for each checkpoint that may be written at a time on this node.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) starting_replicas: StartingReplicas,
}

impl CheckpointTask {
    /// Runs until the group is dropped.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<CheckpointRequest>) {
        let mut retry_at = None;
        loop {
            let request = tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => Some(request),
                    None => return,
                },
                () = self.replica.checkpoint_notify.notified(), if retry_at.is_none() => None,
                () = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now)),
                    if retry_at.is_some() => None,
            };
            let result = self.run_once(request.is_some()).await;
            retry_at = result.is_err().then(|| Instant::now() + retry_delay());
            if let Some(request) = request {
                let _ = request.send(result);
            }
            if self.replica.failure().is_some() {
                let _ = self.raft.shutdown().await;
                return;
            }
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
        if store_lost {
            self.starting_replicas.wait_until_none().await;
        }
        let _permit = self.permits.acquire().await.map_err(node_stopping)?;
        if store_lost {
            tracing::warn!(group = %self.replica.key, "the working store was lost; it is filled");
            let replica = self.replica.clone();
            let rebuilt = blocking(move || replica.rebuild_store()).await.map_err(node_stopping)?;
            if let Err(error) = rebuilt {
                tracing::warn!(group = %self.replica.key, %error, "the store cannot be filled now");
            }
        }
        // Also where the store stays lost: it is filled from a checkpoint, and the log is cut.
        let checkpoint = self.checkpoint().await;
        if let Err(error) = &checkpoint {
            tracing::warn!(group = %self.replica.key, %error, "no checkpoint; trying again later");
        }
        checkpoint?;
        if self.replica.store.needs_rebuild() {
            return Err(Fatal("the working store could not be filled anew yet".to_owned()));
        }
        Ok(())
    }

    async fn checkpoint(&self) -> Result<(), Fatal> {
        let replica = self.replica.clone();
        let written = blocking(move || replica.write_checkpoint()).await;
        written.map_err(node_stopping)?.map_err(|error| Fatal(error.to_string()))?;
        // openraft hears of it, and then lets go of the log the older checkpoint covers. That the
        // core has stopped meanwhile is no failure of the checkpoint.
        let _ = self.raft.trigger().snapshot().await;
        let (checkpoints, key) = (&self.replica.checkpoints, self.replica.key);
        let mut below = checkpoints.oldest_index(key);
        if mutant::is(Mutant::PurgeWalBeforeCheckpointDurable) {
            // openraft lets go of nothing above the last checkpoint it has heard of.
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
