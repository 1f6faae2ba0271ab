//! Verifier: reads the chunks that a replica did not read when it started, and repairs damaged
//! ones.
//!
//! Promise: each chunk of the newest checkpoint is read once after a start, and again after a
//! reader found a damaged one. A damaged chunk is fetched from another replica by its hash; that is
//! retried until it is repaired or no longer needed. Refused: speed. One replica of a node is
//! verified at a time, at half of the disk's speed, and after starting replicas, because clients
//! and the log use the same disk.

use std::sync::Arc;

use bytes::BytesMut;
use futures::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};

use crate::blocking::blocking;
use crate::disk::{CheckpointError, ChunkInfo, PinnedCheckpoint};
use crate::error::Fatal;
use crate::groups::starting_replicas::StartingReplicas;
use crate::limits;
use crate::network::Priority;
use crate::peer::{CallError, PeerClient, PeerClients};
use crate::replica::Replica;
use crate::rpc::{RpcRequest, RpcResponse};

/// Verifies the chunks of one replica.
pub(crate) struct Verifier {
    pub(crate) replica: Arc<Replica>,
    pub(crate) peers: PeerClients,
    /// The permit to verify, one for all replicas of this node.
    pub(crate) permit: Arc<Semaphore>,
    pub(crate) starting_replicas: StartingReplicas,
    pub(crate) verify_requests: Arc<Notify>,
}

impl Verifier {
    /// Runs until it is aborted.
    pub(crate) async fn run(self) {
        loop {
            self.verify_requests.notified().await;
            if let Err(error) = self.verify_all().await {
                tracing::warn!(group = %self.replica.key, %error, "chunks were not verified");
            }
        }
    }

    async fn verify_all(&self) -> Result<(), Fatal> {
        let mut known = None;
        loop {
            let permit = self.permit.acquire().await.map_err(fatal)?;
            let damaged = match known.take() {
                Some(damaged) => damaged,
                None => self.find_damaged().await?,
            };
            let remaining = self.repair(damaged).await?;
            drop(permit);
            if remaining.is_empty() {
                return Ok(());
            }
            let group = self.replica.key;
            tracing::warn!(%group, chunks = remaining.len(), "damaged chunks are not repaired yet");
            sleep(limits::CHUNK_RETRY).await;
            // A reader may have found another one: then all chunks are read again.
            known = self.verify_requests.notified().now_or_never().is_none().then_some(remaining);
        }
    }

    /// The damaged chunks of the newest checkpoint.
    async fn find_damaged(&self) -> Result<Vec<ChunkInfo>, Fatal> {
        let mut damaged = Vec::new();
        self.starting_replicas.wait_until_none().await;
        let Some(pinned) = self.newest() else { return Ok(damaged) };
        for chunk in pinned.chunks() {
            let started = Instant::now();
            let (reading, read) = (pinned.clone(), chunk.clone());
            let verified = blocking(move || reading.verify(&read)).await.map_err(fatal)?;
            if let Err(error) = verified {
                let group = self.replica.key;
                tracing::warn!(%group, %error, "the chunk is requested from the other replicas");
                damaged.push(chunk.clone());
            }
            // As long as the read took: at most half of the disk's time is used.
            sleep(started.elapsed()).await;
        }
        Ok(damaged)
    }

    /// Repairs the chunks that are still needed. Returns those that could not be repaired.
    async fn repair(&self, damaged: Vec<ChunkInfo>) -> Result<Vec<ChunkInfo>, Fatal> {
        let mut remaining = Vec::new();
        let Some(pinned) = self.newest() else { return Ok(remaining) };
        for chunk in damaged {
            // A later checkpoint may not have the chunk any more.
            if pinned.chunks().contains(&chunk) && !self.repair_chunk(&pinned, &chunk).await? {
                remaining.push(chunk);
            }
        }
        Ok(remaining)
    }

    /// Repairs a chunk from the first replica that has it. Returns whether one had it.
    async fn repair_chunk(
        &self,
        pinned: &PinnedCheckpoint,
        chunk: &ChunkInfo,
    ) -> Result<bool, Fatal> {
        let group = self.replica.key;
        let replica = self.replica.clone();
        let membership = blocking(move || replica.state().1).await.map_err(fatal)?;
        for peer in self.peers.bulk_clients(&membership) {
            let name = &chunk.name;
            let bytes = match fetch(&peer, chunk).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::debug!(%group, chunk = name, %error, "the replica lacks the chunk");
                    continue;
                }
            };
            let (repairing, repaired) = (pinned.clone(), chunk.clone());
            match blocking(move || repairing.repair(&repaired, &bytes)).await.map_err(fatal)? {
                Ok(()) => {
                    tracing::info!(%group, chunk = name, "a damaged chunk was repaired");
                    return Ok(true);
                }
                Err(error) => {
                    tracing::warn!(%group, chunk = name, %error, "the chunk was not repaired")
                }
            }
        }
        Ok(false)
    }

    fn newest(&self) -> Option<PinnedCheckpoint> {
        self.replica.checkpoints.newest(self.replica.key)
    }
}

/// Fetches a chunk from another replica's newest checkpoint.
async fn fetch(peer: &PeerClient, chunk: &ChunkInfo) -> Result<BytesMut, CallError> {
    let mut bytes = BytesMut::new();
    // An empty piece would never end this loop, so it is an error.
    while (bytes.len() as u64) < chunk.len {
        let request = RpcRequest::ChunkPiece { hash: chunk.hash, offset: bytes.len() as u64 };
        let response = peer.call(Priority::Bulk, request, limits::CHECKPOINT_PIECE_TIMEOUT).await?;
        let RpcResponse::ChunkPiece(piece) = response else { return Err(peer.unexpected()) };
        if piece.is_empty() {
            return Err(peer.unexpected());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Reads a piece of a chunk of this replica's newest checkpoint, for another replica. Blocks.
///
/// # Errors
/// When the checkpoint has no chunk with this hash, or the chunk is damaged.
pub(crate) fn read_piece(
    replica: &Replica,
    hash: [u8; 32],
    offset: u64,
) -> Result<bytes::Bytes, CheckpointError> {
    let newest = replica.checkpoints.newest(replica.key);
    let none = || CheckpointError::Piece { reason: "there is no checkpoint here".to_owned() };
    newest.ok_or_else(none)?.read_piece(hash, offset, limits::CHECKPOINT_PIECE_BYTES)
}

fn fatal(error: impl std::fmt::Display) -> Fatal {
    Fatal(error.to_string())
}
