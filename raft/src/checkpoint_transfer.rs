//! Checkpoint transfer: receives a checkpoint from a leader, for a replica that lacks purged
//! entries. `peer/checkpoint_sender.rs` sends it.
//!
//! Promise: chunks that are here already are not asked for, also after an attempt that was broken
//! off while this node keeps running. A checkpoint is installed only when it is complete, verified
//! and durable. Refused: a checkpoint of a later term than the sender's.

use std::sync::Arc;

use bytes::Bytes;
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;

use crate::blocking::blocking;
use crate::consensus::{TypeConfig, Vote, term_of};
use crate::disk::{CheckpointError, IncomingCheckpoint};
use crate::replica::Replica;
use crate::rpc::RpcRejection;
use crate::state_machine::{CheckpointHandle, snapshot};

/// The receiving side of one replica, with at most one transfer.
#[derive(Clone, Default)]
pub(crate) struct IncomingTransfers(Arc<Mutex<Option<IncomingTransfer>>>);

struct IncomingTransfer {
    checkpoint: u64,
    incoming: IncomingCheckpoint,
}

impl IncomingTransfers {
    /// Begins or continues a transfer, and returns the hashes of the missing chunks. Chunks that an
    /// earlier attempt for the same checkpoint has received are kept.
    pub(crate) async fn begin(
        &self,
        replica: Arc<Replica>,
        vote: Vote,
        manifest: Bytes,
    ) -> Result<Vec<[u8; 32]>, RpcRejection> {
        let transfers = self.0.clone();
        run_blocking(move || {
            let checkpoint = transfer_id(&manifest);
            // An earlier attempt was installed and only its response was lost. `end` handles that.
            if is_newest(&replica, checkpoint) {
                return Ok(Vec::new());
            }
            let mut transfer = transfers.lock();
            if transfer.as_ref().is_none_or(|transfer| transfer.checkpoint != checkpoint) {
                let incoming = replica.checkpoints.incoming(replica.key, &manifest)?;
                *transfer = Some(IncomingTransfer { checkpoint, incoming });
            }
            let incoming = transfer.as_ref().map(|transfer| &transfer.incoming);
            let term = incoming.map_or(0, |incoming| incoming.meta().term);
            // A leader cannot have entries of a term after its own.
            if term > vote.leader_id.term {
                *transfer = None;
                let reason = "the checkpoint is of a later term than its sender".to_owned();
                return Err(CheckpointError::Piece { reason });
            }
            let missing = incoming.map(IncomingCheckpoint::missing).unwrap_or_default();
            Ok(missing.into_iter().map(|chunk| chunk.hash).collect())
        })
        .await
    }

    /// Stores a piece of a missing chunk.
    pub(crate) async fn piece(
        &self,
        checkpoint: u64,
        hash: [u8; 32],
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), RpcRejection> {
        let transfers = self.0.clone();
        run_blocking(move || {
            let mut transfer = transfers.lock();
            match transfer.as_mut().filter(|transfer| transfer.checkpoint == checkpoint) {
                Some(transfer) => transfer.incoming.put_chunk(hash, offset, &bytes),
                None => Err(unknown_transfer()),
            }
        })
        .await
    }

    /// Ends a transfer: makes the checkpoint durable, as the newest one of this replica.
    pub(crate) async fn end(
        &self,
        replica: Arc<Replica>,
        checkpoint: u64,
    ) -> Result<SnapshotOf<TypeConfig, CheckpointHandle>, RpcRejection> {
        let transfers = self.0.clone();
        run_blocking(move || {
            let mut transfer = transfers.lock();
            match transfer.take_if(|transfer| transfer.checkpoint == checkpoint) {
                Some(whole) => drop(whole.incoming.finish()?),
                // An earlier attempt was installed, and only its response was lost.
                None if is_newest(&replica, checkpoint) => {}
                None => return Err(unknown_transfer()),
            }
            let pinned = replica.checkpoints.newest(replica.key).ok_or_else(unknown_transfer)?;
            let reason =
                |error: std::io::Error| CheckpointError::Piece { reason: error.to_string() };
            let snapshot = snapshot(pinned).map_err(reason)?;
            let term = snapshot.meta.last_log_id.as_ref().map_or(0, term_of);
            tracing::info!(group = %replica.key, term, "a checkpoint arrived");
            Ok(snapshot)
        })
        .await
    }
}

/// Whether this checkpoint is already the newest one of the replica.
fn is_newest(replica: &Replica, checkpoint: u64) -> bool {
    let newest = replica.checkpoints.newest(replica.key);
    newest.is_some_and(|newest| transfer_id(&newest.manifest()) == checkpoint)
}

fn unknown_transfer() -> CheckpointError {
    CheckpointError::Piece { reason: "no such checkpoint is being received".to_owned() }
}

/// Identifies a checkpoint during its transfer.
pub(crate) fn transfer_id(manifest: &[u8]) -> u64 {
    let hash = blake3::hash(manifest);
    hash.as_bytes().iter().take(8).fold(0, |transfer_id, &byte| transfer_id << 8 | u64::from(byte))
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CheckpointError> + Send + 'static,
) -> Result<T, RpcRejection> {
    match blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(RpcRejection::Checkpoint(error.to_string())),
        Err(error) => Err(RpcRejection::Checkpoint(error.to_string())),
    }
}
