//! Checkpoint transfer: sends a checkpoint from a leader to a replica that lacks purged entries.
//!
//! Promise: only chunks that the receiver lacks are sent, also after an attempt that was broken off
//! while the receiver keeps running. A checkpoint is installed only when it is complete, verified
//! and durable. Refused: a checkpoint of a later term than the sender's.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use openraft::raft::SnapshotResponse;
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;

use crate::blocking::blocking;
use crate::consensus::{TypeConfig, Vote, term_of};
use crate::disk::{CheckpointError, ChunkInfo, IncomingCheckpoint, PinnedCheckpoint};
use crate::limits;
use crate::network::Priority;
use crate::peer::{CallError, PeerClient};
use crate::replica::Replica;
use crate::rpc::{RpcRejection, RpcRequest, RpcResponse};
use crate::state_machine::{CheckpointHandle, snapshot};

/// Sends a checkpoint to a replica and waits until it is installed there.
pub(crate) async fn send(
    peer: &PeerClient,
    vote: Vote,
    CheckpointHandle(pinned): CheckpointHandle,
) -> Result<SnapshotResponse<TypeConfig>, CallError> {
    let pinned = pinned.ok_or_else(|| CallError::Local("nothing was applied yet".to_owned()))?;
    let manifest = pinned.manifest();
    let checkpoint = transfer_id(&manifest);
    let begin = RpcRequest::CheckpointBegin { vote, manifest };
    let timeout = limits::CHECKPOINT_PIECE_TIMEOUT;
    let offer = peer.call(Priority::Bulk, begin, timeout).await?;
    // The receiver has voted in a later term: openraft must learn that instead.
    if let RpcResponse::Checkpoint(response) = offer {
        return Ok(response);
    }
    let RpcResponse::MissingChunks(missing) = offer else { return Err(peer.unexpected()) };
    let chunks: Vec<ChunkInfo> =
        pinned.chunks().iter().filter(|chunk| missing.contains(&chunk.hash)).cloned().collect();
    tracing::info!(
        index = pinned.meta().index,
        chunks = pinned.chunks().len(),
        missing = chunks.len(),
        "sending a checkpoint"
    );
    stream::iter(chunks)
        .map(|chunk| send_chunk(peer, checkpoint, pinned.clone(), chunk))
        .buffer_unordered(limits::CHECKPOINT_CHUNKS_IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    let end = RpcRequest::CheckpointEnd { vote, checkpoint };
    let done = peer.call(Priority::Bulk, end, limits::CHECKPOINT_INSTALL_TIMEOUT).await?;
    let RpcResponse::Checkpoint(response) = done else { return Err(peer.unexpected()) };
    Ok(response)
}

/// Sends the pieces of a chunk one after the other.
async fn send_chunk(
    peer: &PeerClient,
    checkpoint: u64,
    pinned: PinnedCheckpoint,
    chunk: ChunkInfo,
) -> Result<(), CallError> {
    let mut offset = 0;
    loop {
        let remaining = usize::try_from(chunk.len - offset).unwrap_or(usize::MAX);
        let len = remaining.min(limits::CHECKPOINT_PIECE_BYTES);
        let (pinned, hash) = (pinned.clone(), chunk.hash);
        let read = blocking(move || pinned.read_piece(hash, offset, len)).await;
        let bytes = match read {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return Err(CallError::Local(error.to_string())),
            Err(error) => return Err(CallError::Local(error.to_string())),
        };
        // Each piece waits for the response to the one before, as the receiver takes no gaps.
        let sent = bytes.len() as u64;
        let piece = RpcRequest::CheckpointPiece { checkpoint, hash, offset, bytes };
        let stored = peer.call(Priority::Bulk, piece, limits::CHECKPOINT_PIECE_TIMEOUT).await?;
        let RpcResponse::PieceStored = stored else { return Err(peer.unexpected()) };
        offset += sent;
        if offset >= chunk.len || sent == 0 {
            return Ok(());
        }
    }
}

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
fn transfer_id(manifest: &[u8]) -> u64 {
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
