//! Pinned checkpoint: a checkpoint that is being read, sent or repaired.
//!
//! Promise: while a handle lives, none of its chunks is removed. A chunk that is not what was
//! written is never returned, and finding one requests a verification of all chunks.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::checkpoint::checkpoint_dir::{CheckpointDir, StoredCheckpoint};
use crate::disk::device::retry_shortage;
use crate::disk::{CheckpointError, CheckpointId, CheckpointMeta, ChunkInfo};
use crate::machine::ChunkSource;

/// A checkpoint that is not removed while this handle lives.
#[derive(Debug, Clone)]
pub struct PinnedCheckpoint {
    dir: Arc<CheckpointDir>,
    stored: Arc<StoredCheckpoint>,
}

impl PinnedCheckpoint {
    pub(super) fn new(dir: Arc<CheckpointDir>, stored: Arc<StoredCheckpoint>) -> Self {
        Self { dir, stored }
    }

    /// Its identity.
    pub fn id(&self) -> CheckpointId {
        self.stored.id
    }

    /// Its metadata.
    pub fn meta(&self) -> &CheckpointMeta {
        &self.stored.manifest.meta
    }

    /// The manifest as it is sent to another replica; see `Checkpoints::incoming`.
    pub fn manifest(&self) -> Bytes {
        self.stored.bytes.clone()
    }

    /// All chunks, in the order in which they were written.
    pub fn chunks(&self) -> &[ChunkInfo] {
        &self.stored.manifest.chunks
    }

    /// Gives the chunks to `reader`. Blocks.
    ///
    /// # Errors
    /// The error of the first damaged chunk that `reader` asked for; its result is dropped.
    pub fn read<T>(
        &self,
        reader: impl FnOnce(&dyn ChunkSource) -> T,
    ) -> Result<T, CheckpointError> {
        self.read_and_verify(reader, |_| false)
    }

    /// Like [`PinnedCheckpoint::read`], and also verifies the chunks that `reader` did not ask for
    /// and `must_verify` selects.
    pub(super) fn read_and_verify<T>(
        &self,
        reader: impl FnOnce(&dyn ChunkSource) -> T,
        must_verify: impl Fn(&ChunkInfo) -> bool,
    ) -> Result<T, CheckpointError> {
        let reading = ReadSession {
            pinned: self,
            by_name: self.stored.manifest.by_name(),
            read: RefCell::default(),
            damage: RefCell::default(),
        };
        let made = reader(&reading);
        // A `ChunkSource` cannot return an error, so the first one was kept aside.
        let ReadSession { read, damage, .. } = reading;
        damage.into_inner().map_or(Ok(()), Err)?;
        let read = read.into_inner();
        let unread = self.chunks().iter().filter(|chunk| !read.contains(&chunk.hash));
        unread.filter(|chunk| must_verify(chunk)).try_for_each(|chunk| self.verify(chunk))?;
        Ok(made)
    }

    /// Reads `len` bytes of a chunk from `offset` on, fewer at its end. The first piece is returned
    /// only if the whole chunk is what was written. Blocks.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`]; [`CheckpointError::Piece`] when the checkpoint has no such
    /// chunk; [`CheckpointError::Io`].
    pub fn read_piece(
        &self,
        hash: [u8; 32],
        offset: u64,
        len: usize,
    ) -> Result<Bytes, CheckpointError> {
        let chunk = self.chunks().iter().find(|chunk| chunk.hash == hash);
        let chunk = chunk.ok_or_else(|| CheckpointError::invalid_piece("no such chunk"))?;
        // Verified once for all pieces. The receiver checks the hash of the whole chunk again.
        if offset == 0 {
            let mut bytes = Bytes::from(self.chunk(chunk)?);
            bytes.truncate(len);
            return Ok(bytes);
        }
        let path = self.dir.chunk_path(&hash);
        let left = usize::try_from(chunk.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        let read = retry_shortage(|| fs::File::open(&path))
            .and_then(|file| file.read_exact_at(&mut bytes, offset));
        read.map_err(CheckpointError::io(&path))?;
        Ok(bytes.into())
    }

    /// Checks that a chunk is what was written. Reads all of it; blocks.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`], which names the file; [`CheckpointError::Io`].
    pub fn verify(&self, chunk: &ChunkInfo) -> Result<(), CheckpointError> {
        self.dir.read_chunk(chunk).map(drop)
    }

    /// Writes a damaged chunk again, with bytes from another replica. When it returns, they are
    /// durable and were read back. Blocks.
    ///
    /// # Errors
    /// [`CheckpointError::Piece`] when the bytes have another hash, and nothing was changed;
    /// [`CheckpointError::Io`].
    pub fn repair(&self, chunk: &ChunkInfo, bytes: &[u8]) -> Result<(), CheckpointError> {
        // Before anything is written: the bytes come from another node.
        if *blake3::hash(bytes).as_bytes() != chunk.hash {
            return Err(CheckpointError::invalid_piece("the chunk that came has another hash"));
        }
        self.dir.repair(chunk, bytes)
    }

    fn chunk(&self, chunk: &ChunkInfo) -> Result<Vec<u8>, CheckpointError> {
        self.dir.read_chunk(chunk).inspect_err(|_| self.dir.verify_requests.notify_one())
    }
}

/// The chunks of a checkpoint during one call of [`PinnedCheckpoint::read`].
struct ReadSession<'a> {
    pinned: &'a PinnedCheckpoint,
    by_name: HashMap<&'a str, &'a ChunkInfo>,
    /// The chunks that were asked for.
    read: RefCell<BTreeSet<[u8; 32]>>,
    /// The error of the first damaged one.
    damage: RefCell<Option<CheckpointError>>,
}

impl ChunkSource for ReadSession<'_> {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let chunk = *self.by_name.get(name)?;
        self.read.borrow_mut().insert(chunk.hash);
        match self.pinned.chunk(chunk) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.damage.borrow_mut().get_or_insert(error);
                None
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.pinned.chunks().iter().map(|chunk| chunk.name.clone()).collect()
    }
}
