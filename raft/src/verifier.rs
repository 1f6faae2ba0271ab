//! Verifier: looks at the chunks a replica did not read when it started, and mends damaged ones.
//!
//! Promise: every chunk of the newest checkpoint is read once after a start, and again when
//! somebody meets a damaged one; what is damaged is fetched from another replica by its hash, and
//! tried again until it is mended or no longer needed. Refused: haste. One replica of a node is
//! looked at at a time, half of the time, after those that start, for clients and the log share the
//! disk.

use std::sync::Arc;

use bytes::BytesMut;
use futures::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};

use crate::blocking::blocking;
use crate::disk::{CheckpointError, ChunkInfo, Pinned};
use crate::error::Fatal;
use crate::groups::Starts;
use crate::limits;
use crate::network::Lane;
use crate::peer::{CallError, Peer, Peers};
use crate::replica::Replica;
use crate::rpc::{Body, Response};

/// Looks after the chunks of one replica.
pub(crate) struct Verifier {
    pub(crate) replica: Arc<Replica>,
    pub(crate) peers: Peers,
    /// The one that looks, of all replicas of this node.
    pub(crate) permit: Arc<Semaphore>,
    pub(crate) starts: Starts,
    pub(crate) doubted: Arc<Notify>,
}

impl Verifier {
    /// Runs until it is aborted.
    pub(crate) async fn run(self) {
        loop {
            self.doubted.notified().await;
            if let Err(error) = self.look().await {
                tracing::warn!(group = %self.replica.key, %error, "chunks were not looked at");
            }
        }
    }

    async fn look(&self) -> Result<(), Fatal> {
        let mut known = None;
        loop {
            let permit = self.permit.acquire().await.map_err(fatal)?;
            let damaged = match known.take() {
                Some(damaged) => damaged,
                None => self.damaged().await?,
            };
            let left = self.mend(damaged).await?;
            drop(permit);
            if left.is_empty() {
                return Ok(());
            }
            let group = self.replica.key;
            tracing::warn!(%group, chunks = left.len(), "damaged chunks are not mended yet");
            sleep(limits::CHUNK_RETRY).await;
            // Somebody may have met another one.
            known = self.doubted.notified().now_or_never().is_none().then_some(left);
        }
    }

    /// The chunks of the newest checkpoint that are not what was written.
    async fn damaged(&self) -> Result<Vec<ChunkInfo>, Fatal> {
        let mut damaged = Vec::new();
        self.starts.let_go_first().await;
        let Some(pinned) = self.newest() else { return Ok(damaged) };
        for chunk in pinned.chunks() {
            let begun = Instant::now();
            let (reading, read) = (pinned.clone(), chunk.clone());
            let verified = blocking(move || reading.verify(&read)).await.map_err(fatal)?;
            if let Err(error) = verified {
                let group = self.replica.key;
                tracing::warn!(%group, %error, "it is asked of the other replicas");
                damaged.push(chunk.clone());
            }
            sleep(begun.elapsed()).await;
        }
        Ok(damaged)
    }

    /// Mends what is still needed and can be; returns the rest.
    async fn mend(&self, damaged: Vec<ChunkInfo>) -> Result<Vec<ChunkInfo>, Fatal> {
        let mut left = Vec::new();
        let Some(pinned) = self.newest() else { return Ok(left) };
        for chunk in damaged {
            if pinned.chunks().contains(&chunk) && !self.mend_chunk(&pinned, &chunk).await? {
                left.push(chunk);
            }
        }
        Ok(left)
    }

    /// Whether one of the other replicas had it.
    async fn mend_chunk(&self, pinned: &Pinned, chunk: &ChunkInfo) -> Result<bool, Fatal> {
        let group = self.replica.key;
        let replica = self.replica.clone();
        let membership = blocking(move || replica.state().1).await.map_err(fatal)?;
        for peer in self.peers.others(&membership) {
            let name = &chunk.name;
            let bytes = match fetch(&peer, chunk).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::debug!(%group, chunk = name, %error, "it is not there");
                    continue;
                }
            };
            let (mending, mended) = (pinned.clone(), chunk.clone());
            match blocking(move || mending.mend(&mended, &bytes)).await.map_err(fatal)? {
                Ok(()) => {
                    tracing::info!(%group, chunk = name, "a damaged chunk was mended");
                    return Ok(true);
                }
                Err(error) => tracing::warn!(%group, chunk = name, %error, "it stays damaged"),
            }
        }
        Ok(false)
    }

    fn newest(&self) -> Option<Pinned> {
        self.replica.checkpoints.newest(self.replica.key)
    }
}

/// A chunk, from another replica's newest checkpoint.
async fn fetch(peer: &Peer, chunk: &ChunkInfo) -> Result<BytesMut, CallError> {
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < chunk.len {
        let ask = Body::ChunkPiece { hash: chunk.hash, offset: bytes.len() as u64 };
        let answer = peer.call(Lane::Bulk, ask, limits::CHECKPOINT_PIECE_TIMEOUT).await?;
        let Response::ChunkPiece(piece) = answer else { return Err(peer.unexpected()) };
        if piece.is_empty() {
            return Err(peer.unexpected());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// A piece of a chunk of this replica's newest checkpoint, for another replica. Blocks.
///
/// # Errors
/// When it has none of this hash, or its own is damaged.
pub(crate) fn piece(
    replica: &Replica,
    hash: [u8; 32],
    offset: u64,
) -> Result<bytes::Bytes, CheckpointError> {
    let newest = replica.checkpoints.newest(replica.key);
    let none = || CheckpointError::Piece { reason: "there is no checkpoint here".to_owned() };
    newest.ok_or_else(none)?.piece(hash, offset, limits::CHECKPOINT_PIECE_BYTES)
}

fn fatal(error: impl std::fmt::Display) -> Fatal {
    Fatal(error.to_string())
}
