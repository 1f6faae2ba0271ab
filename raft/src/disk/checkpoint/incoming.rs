//! Incoming checkpoint: a checkpoint that is received from another replica.
//!
//! Pieces are written to a directory of their own. Promise: a chunk is moved out of it only if its
//! hash is right, and only when all chunks are there. Refused: pieces that leave a gap or belong to
//! no missing chunk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::checkpoint::checkpoint_dir::{CheckpointDir, PinnedChunks};
use crate::disk::checkpoint::manifest::{Manifest, hex};
use crate::disk::device::retry_shortage;
use crate::disk::{CheckpointError, CheckpointId, CheckpointMeta, ChunkInfo};

/// A chunk that is being received.
#[derive(Debug)]
struct IncomingChunk {
    info: ChunkInfo,
    received: u64,
    hasher: blake3::Hasher,
    file: Option<File>,
    complete: bool,
}

/// A checkpoint that is being received. If it is dropped before [`IncomingCheckpoint::finish`], all
/// that was received is removed.
#[derive(Debug)]
pub struct IncomingCheckpoint {
    dir: Arc<CheckpointDir>,
    manifest: Manifest,
    incoming_dir: PathBuf,
    chunks: BTreeMap<[u8; 32], IncomingChunk>,
    /// Keeps the chunks that are here already from being removed.
    _pinned: PinnedChunks,
}

impl IncomingCheckpoint {
    pub(super) fn begin(dir: Arc<CheckpointDir>, manifest: &[u8]) -> Result<Self, CheckpointError> {
        let manifest = Manifest::decode(manifest, "received".as_ref())
            .map_err(|error| CheckpointError::invalid_piece(error.to_string()))?;
        let hashes = manifest.chunks.iter().map(|chunk| chunk.hash).collect();
        let (pinned_chunks, incoming_dir) = dir.pin_chunks(hashes)?;
        let mut incoming =
            Self { dir, manifest, incoming_dir, chunks: BTreeMap::new(), _pinned: pinned_chunks };
        // After they are pinned: a chunk that is found here now must still be here at the end.
        for chunk in &incoming.manifest.chunks {
            if incoming.dir.read_chunk(chunk).is_err() {
                let info = chunk.clone();
                let hasher = blake3::Hasher::new();
                let new = IncomingChunk { info, received: 0, hasher, file: None, complete: false };
                incoming.chunks.insert(new.info.hash, new);
            }
        }
        // No piece will come for an empty chunk.
        let empty: Vec<[u8; 32]> = incoming.missing_where(|chunk| chunk.info.len == 0);
        for hash in empty {
            incoming.put_chunk(hash, 0, &[])?;
        }
        Ok(incoming)
    }

    /// The metadata of the checkpoint, as sent.
    pub fn meta(&self) -> &CheckpointMeta {
        &self.manifest.meta
    }

    /// The chunks that are not complete yet, in the order of the manifest, each content once.
    pub fn missing(&self) -> Vec<ChunkInfo> {
        let mut listed = BTreeSet::new();
        let is_missing =
            |chunk: &&ChunkInfo| self.chunks.get(&chunk.hash).is_some_and(|chunk| !chunk.complete);
        let missing = self.manifest.chunks.iter().filter(is_missing);
        missing.filter(|chunk| listed.insert(chunk.hash)).cloned().collect()
    }

    fn missing_where(&self, is: impl Fn(&IncomingChunk) -> bool) -> Vec<[u8; 32]> {
        let missing = self.chunks.values().filter(|chunk| !chunk.complete && is(chunk));
        missing.map(|chunk| chunk.info.hash).collect()
    }

    /// Adds a piece of a chunk. The pieces of a chunk must come in order; a repeated one is
    /// ignored.
    ///
    /// # Errors
    /// [`CheckpointError::Piece`] when the piece does not fit, or when the complete chunk has
    /// another hash: the chunk then starts over. [`CheckpointError::Io`].
    pub fn put_chunk(
        &mut self,
        hash: [u8; 32],
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), CheckpointError> {
        let path = self.incoming_dir.join(hex(&hash));
        let Some(chunk) = self.chunks.get_mut(&hash) else {
            return Err(CheckpointError::invalid_piece("no chunk that is missing"));
        };
        let end = offset.saturating_add(bytes.len() as u64);
        if end > chunk.info.len || offset > chunk.received {
            return Err(CheckpointError::invalid_piece(format!(
                "bytes {offset} to {end} of {} when {} are here",
                chunk.info.len, chunk.received
            )));
        }
        let known = usize::try_from(chunk.received - offset).unwrap_or(usize::MAX);
        // A repeated piece, but not the last one of a chunk: completing it may have failed.
        if chunk.complete || (known >= bytes.len() && end < chunk.info.len) {
            return Ok(());
        }
        let new = &bytes[known.min(bytes.len())..];
        let io = |error| CheckpointError::io(&path)(error);
        let file = match chunk.file.take() {
            Some(file) => file,
            None => retry_shortage(|| File::create(&path)).map_err(io)?,
        };
        file.write_all_at(new, chunk.received).map_err(io)?;
        chunk.hasher.update(new);
        chunk.received = end.max(chunk.received);
        if chunk.received < chunk.info.len {
            chunk.file = Some(file);
            return Ok(());
        }
        // The hash is computed over the received bytes; `finish` reads the files back as well.
        if *chunk.hasher.finalize().as_bytes() != hash {
            chunk.received = 0;
            chunk.hasher = blake3::Hasher::new();
            return Err(CheckpointError::invalid_piece("the chunk that came has another hash"));
        }
        // Synced here, before the rename that gives the chunk its final name.
        file.sync_all().map_err(io)?;
        chunk.complete = true;
        Ok(())
    }

    /// Makes it a checkpoint of this replica, as durable as one that was written here.
    ///
    /// # Errors
    /// [`CheckpointError::Piece`] when a chunk is missing; [`CheckpointError::Io`]. There is no
    /// checkpoint then.
    pub fn finish(mut self) -> Result<CheckpointId, CheckpointError> {
        let missing = self.missing_where(|_| true).len();
        if missing > 0 {
            return Err(CheckpointError::invalid_piece(format!("{missing} chunks did not come")));
        }
        let chunks = std::mem::take(&mut self.chunks);
        let received: Vec<(ChunkInfo, PathBuf)> = chunks
            .into_values()
            .map(|chunk| (chunk.info.clone(), self.incoming_dir.join(hex(&chunk.info.hash))))
            .collect();
        self.dir.install(self.manifest.clone(), &received)
    }
}

impl Drop for IncomingCheckpoint {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.incoming_dir) {
            let dir = self.incoming_dir.display();
            tracing::warn!(%dir, %error, "received chunks were not removed");
        }
    }
}
