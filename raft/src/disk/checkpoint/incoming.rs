//! Incoming: a checkpoint on its way from another replica.
//!
//! Pieces go into a folder of their own; only a chunk whose hash is right is ever moved out of it,
//! and only when all are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::checkpoint::checkpoint_dir::{CheckpointDir, PinnedChunks};
use crate::disk::checkpoint::manifest::{Manifest, hex};
use crate::disk::device::retry_shortage;
use crate::disk::{CheckpointError, CheckpointId, CheckpointMeta, ChunkInfo};

/// A chunk on its way in.
#[derive(Debug)]
struct IncomingChunk {
    chunk: ChunkInfo,
    received: u64,
    hasher: blake3::Hasher,
    file: Option<File>,
    complete: bool,
}

/// A checkpoint on its way in. Dropped before [`IncomingCheckpoint::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct IncomingCheckpoint {
    dir: Arc<CheckpointDir>,
    manifest: Manifest,
    place: PathBuf,
    chunks: BTreeMap<[u8; 32], IncomingChunk>,
    /// Keeps the chunks that are here already from being collected.
    _reserved: PinnedChunks,
}

impl IncomingCheckpoint {
    pub(super) fn begin(dir: Arc<CheckpointDir>, manifest: &[u8]) -> Result<Self, CheckpointError> {
        let manifest = Manifest::decode(manifest, "received".as_ref())
            .map_err(|error| CheckpointError::read_piece(error.to_string()))?;
        let hashes = manifest.chunks.iter().map(|chunk| chunk.hash).collect();
        let (pinned_chunks, place) = dir.pin_chunks(hashes)?;
        let mut incoming =
            Self { dir, manifest, place, chunks: BTreeMap::new(), _reserved: pinned_chunks };
        for chunk in &incoming.manifest.chunks {
            if incoming.dir.read_chunk(chunk).is_err() {
                let chunk = chunk.clone();
                let hasher = blake3::Hasher::new();
                let new = IncomingChunk { chunk, received: 0, hasher, file: None, complete: false };
                incoming.chunks.insert(new.chunk.hash, new);
            }
        }
        let empty: Vec<[u8; 32]> = incoming.missing_where(|chunks| chunks.chunk.len == 0);
        for hash in empty {
            incoming.put_chunk(hash, 0, &[])?;
        }
        Ok(incoming)
    }

    /// What the sender said about it.
    pub fn meta(&self) -> &CheckpointMeta {
        &self.manifest.meta
    }

    /// The chunks that are not here yet, in order.
    pub fn missing(&self) -> Vec<ChunkInfo> {
        let mut listed = BTreeSet::new();
        let is_missing = |chunk: &&ChunkInfo| {
            self.chunks.get(&chunk.hash).is_some_and(|chunks| !chunks.complete)
        };
        let missing = self.manifest.chunks.iter().filter(is_missing);
        missing.filter(|chunk| listed.insert(chunk.hash)).cloned().collect()
    }

    fn missing_where(&self, is: impl Fn(&IncomingChunk) -> bool) -> Vec<[u8; 32]> {
        let missing = self.chunks.values().filter(|chunks| !chunks.complete && is(chunks));
        missing.map(|chunks| chunks.chunk.hash).collect()
    }

    /// A piece of a chunk; pieces of one chunk come in order, a repeated one is ignored.
    ///
    /// # Errors
    /// When the piece does not fit, or the chunk it completes has another hash (it starts over).
    pub fn put_chunk(
        &mut self,
        hash: [u8; 32],
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), CheckpointError> {
        let path = self.place.join(hex(&hash));
        let Some(chunks) = self.chunks.get_mut(&hash) else {
            return Err(CheckpointError::read_piece("no chunk that is missing"));
        };
        let end = offset.saturating_add(bytes.len() as u64);
        if end > chunks.chunk.len || offset > chunks.received {
            return Err(CheckpointError::read_piece(format!(
                "bytes {offset} to {end} of {} when {} are here",
                chunks.chunk.len, chunks.received
            )));
        }
        let known = usize::try_from(chunks.received - offset).unwrap_or(usize::MAX);
        if chunks.complete || (known >= bytes.len() && end < chunks.chunk.len) {
            return Ok(());
        }
        let new = &bytes[known.min(bytes.len())..];
        let io = |error| CheckpointError::io(&path)(error);
        let file = match chunks.file.take() {
            Some(file) => file,
            None => retry_shortage(|| File::create(&path)).map_err(io)?,
        };
        file.write_all_at(new, chunks.received).map_err(io)?;
        chunks.hasher.update(new);
        chunks.received = end.max(chunks.received);
        if chunks.received < chunks.chunk.len {
            chunks.file = Some(file);
            return Ok(());
        }
        if *chunks.hasher.finalize().as_bytes() != hash {
            chunks.received = 0;
            chunks.hasher = blake3::Hasher::new();
            return Err(CheckpointError::read_piece("the chunk that came has another hash"));
        }
        file.sync_all().map_err(io)?;
        chunks.complete = true;
        Ok(())
    }

    /// Makes it this replica's newest checkpoint, as durable as one written here.
    ///
    /// # Errors
    /// When something is missing or the system refuses; nothing counts.
    pub fn finish(mut self) -> Result<CheckpointId, CheckpointError> {
        let missing = self.missing_where(|_| true).len();
        if missing > 0 {
            return Err(CheckpointError::read_piece(format!("{missing} chunks did not come")));
        }
        let chunks = std::mem::take(&mut self.chunks);
        let received: Vec<(ChunkInfo, PathBuf)> = chunks
            .into_values()
            .map(|chunk| (chunk.chunk.clone(), self.place.join(hex(&chunk.chunk.hash))))
            .collect();
        self.dir.install(self.manifest.clone(), &received)
    }
}

impl Drop for IncomingCheckpoint {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.place) {
            tracing::warn!(dir = %self.place.display(), %error, "an incoming checkpoint's rest");
        }
    }
}
