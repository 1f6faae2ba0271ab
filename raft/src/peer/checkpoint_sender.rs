//! Checkpoint sender: sends a checkpoint to a replica that lacks purged entries.
//!
//! Promise: only chunks that the receiver lacks are sent. It says which those are.

use futures::{StreamExt, TryStreamExt, stream};
use openraft::raft::SnapshotResponse;

use super::{CallError, PeerClient};
use crate::blocking::blocking;
use crate::checkpoint_transfer::transfer_id;
use crate::consensus::{TypeConfig, Vote};
use crate::disk::{ChunkInfo, PinnedCheckpoint};
use crate::limits;
use crate::network::Priority;
use crate::rpc::{RpcRequest, RpcResponse};
use crate::state_machine::CheckpointHandle;

/// Sends a checkpoint to a replica and waits until it is installed there.
pub(super) async fn send(
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
