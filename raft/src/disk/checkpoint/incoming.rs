//! Incoming: a checkpoint on its way from another replica.
//!
//! Pieces go into a folder of their own; only a chunk whose hash is right is ever moved out of it,
//! and only when all are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::checkpoint::manifest::{Manifest, hex};
use crate::disk::checkpoint::shelf::{Reserved, Shelf};
use crate::disk::device::opened;
use crate::disk::{CheckpointError, CheckpointId, CheckpointMeta, ChunkInfo};

/// A chunk on its way in.
#[derive(Debug)]
struct Arriving {
    chunk: ChunkInfo,
    received: u64,
    hasher: blake3::Hasher,
    file: Option<File>,
    whole: bool,
}

/// A checkpoint on its way in. Dropped before [`Incoming::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    shelf: Arc<Shelf>,
    manifest: Manifest,
    place: PathBuf,
    arriving: BTreeMap<[u8; 32], Arriving>,
    /// Keeps the chunks that are here already from being collected.
    _reserved: Reserved,
}

impl Incoming {
    pub(super) fn begin(shelf: Arc<Shelf>, manifest: &[u8]) -> Result<Self, CheckpointError> {
        let manifest = Manifest::decode(manifest, "received".as_ref())
            .map_err(|error| CheckpointError::piece(error.to_string()))?;
        let hashes = manifest.chunks.iter().map(|chunk| chunk.hash).collect();
        let (reserved, place) = shelf.reserve(hashes)?;
        let mut incoming =
            Self { shelf, manifest, place, arriving: BTreeMap::new(), _reserved: reserved };
        for chunk in &incoming.manifest.chunks {
            if incoming.shelf.read_chunk(chunk).is_err() {
                let chunk = chunk.clone();
                let hasher = blake3::Hasher::new();
                let new = Arriving { chunk, received: 0, hasher, file: None, whole: false };
                incoming.arriving.insert(new.chunk.hash, new);
            }
        }
        let empty: Vec<[u8; 32]> = incoming.missing_where(|arriving| arriving.chunk.len == 0);
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
            self.arriving.get(&chunk.hash).is_some_and(|arriving| !arriving.whole)
        };
        let missing = self.manifest.chunks.iter().filter(is_missing);
        missing.filter(|chunk| listed.insert(chunk.hash)).cloned().collect()
    }

    fn missing_where(&self, is: impl Fn(&Arriving) -> bool) -> Vec<[u8; 32]> {
        let missing = self.arriving.values().filter(|arriving| !arriving.whole && is(arriving));
        missing.map(|arriving| arriving.chunk.hash).collect()
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
        let Some(arriving) = self.arriving.get_mut(&hash) else {
            return Err(CheckpointError::piece("no chunk that is missing"));
        };
        let end = offset.saturating_add(bytes.len() as u64);
        if end > arriving.chunk.len || offset > arriving.received {
            return Err(CheckpointError::piece(format!(
                "bytes {offset} to {end} of {} when {} are here",
                arriving.chunk.len, arriving.received
            )));
        }
        let known = usize::try_from(arriving.received - offset).unwrap_or(usize::MAX);
        if arriving.whole || (known >= bytes.len() && end < arriving.chunk.len) {
            return Ok(());
        }
        let new = &bytes[known.min(bytes.len())..];
        let io = |error| CheckpointError::io(&path)(error);
        let file = match arriving.file.take() {
            Some(file) => file,
            None => opened(|| File::create(&path)).map_err(io)?,
        };
        file.write_all_at(new, arriving.received).map_err(io)?;
        arriving.hasher.update(new);
        arriving.received = end.max(arriving.received);
        if arriving.received < arriving.chunk.len {
            arriving.file = Some(file);
            return Ok(());
        }
        if *arriving.hasher.finalize().as_bytes() != hash {
            arriving.received = 0;
            arriving.hasher = blake3::Hasher::new();
            return Err(CheckpointError::piece("the chunk that came has another hash"));
        }
        file.sync_all().map_err(io)?;
        arriving.whole = true;
        Ok(())
    }

    /// Makes it this replica's newest checkpoint, as durable as one written here.
    ///
    /// # Errors
    /// When something is missing or the system refuses; nothing counts.
    pub fn finish(mut self) -> Result<CheckpointId, CheckpointError> {
        let missing = self.missing_where(|_| true).len();
        if missing > 0 {
            return Err(CheckpointError::piece(format!("{missing} chunks did not come")));
        }
        let arriving = std::mem::take(&mut self.arriving);
        let received: Vec<(ChunkInfo, PathBuf)> = arriving
            .into_values()
            .map(|arrived| (arrived.chunk.clone(), self.place.join(hex(&arrived.chunk.hash))))
            .collect();
        self.shelf.take_in(self.manifest.clone(), &received)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.place) {
            tracing::warn!(dir = %self.place.display(), %error, "an incoming checkpoint's rest");
        }
    }
}
