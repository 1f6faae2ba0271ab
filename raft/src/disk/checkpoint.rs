//! Checkpoint: the state of a replica at one index, on disk. openraft calls it a snapshot.
//!
//! A checkpoint consists of named chunks. A chunk is a file that is named by the hash of its
//! content, so a chunk that did not change since the last checkpoint is neither written nor sent
//! again. A manifest lists names, hashes and lengths, and ends with a hash of itself.
//!
//! ```text
//!   checkpoints/00007-0000000000000003/          one directory for each replica
//!       0000000000000011.checkpoint              the older of the last two
//!       0000000000000012.checkpoint              the newest
//!       chunks/3f79bb7b...  chunks/a1c9...       shared by both
//!       incoming-0/                              received from another replica, not complete
//! ```
//!
//! **Promise.** Each file is written under a temporary name, synced, renamed, its directory synced,
//! and read back. The manifest comes last, so a checkpoint exists as a whole or not at all. The
//! last two are kept, and the log is purged only below the older one: if the newest is damaged, the
//! older one and the log give the same state. A chunk that is being read or sent is not removed.
//!
//! **Refused.** Bytes that are not what was written are never returned: each reader checks the
//! hash, and the error names the file. A start reads the chunks it loads into memory, and those
//! that the newest checkpoint has and the older one lacks. The other chunks are verified
//! afterwards, and repaired from another replica.

mod checkpoint_dir;
mod incoming;
mod manifest;
mod pinned;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::mutant::{self, Mutant};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::disk::GroupKey;
use crate::disk::checkpoint::checkpoint_dir::{CheckpointDir, StoredCheckpoint};
use crate::disk::device::{retry_shortage, sync_dir};
use crate::machine::{ChunkSource, FrozenState};

pub use incoming::IncomingCheckpoint;
pub use pinned::PinnedCheckpoint;

/// The metadata of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointMeta {
    /// The index of the last entry it contains.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The log id of that entry, encoded by the caller.
    pub log_id: Bytes,
    /// The membership at that entry, encoded by the caller.
    pub membership: Bytes,
    /// Any other data of the caller.
    pub extra: Bytes,
}

/// Identifies a checkpoint of a replica on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckpointId {
    /// The replica.
    pub group: GroupKey,
    /// The number of the checkpoint among those of this replica here.
    pub serial: u64,
    /// The index of the last entry it contains.
    pub index: u64,
}

/// A chunk as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkInfo {
    /// The name that the machine gave it.
    pub name: String,
    /// The BLAKE3 hash of its content.
    pub hash: [u8; 32],
    /// Its length in bytes.
    pub len: u64,
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file is not what was written.
    #[error("checkpoint file {} is damaged: {reason}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The reason, in words.
        reason: String,
    },
    /// The machine wanted to keep a chunk that the previous checkpoint does not have.
    #[error("chunk {name:?} cannot be kept: the previous checkpoint has none of this name")]
    NotKept {
        /// The chunk's name.
        name: String,
    },
    /// A received piece of a chunk does not belong where it says.
    #[error("a piece of a checkpoint does not fit: {reason}")]
    Piece {
        /// The reason, in words.
        reason: String,
    },
    /// The system refused something.
    #[error("checkpoint file {} cannot be used: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why; after `StorageFull` the caller can retry later.
        source: std::io::Error,
    },
}

impl CheckpointError {
    fn damaged(file: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), reason: reason.into() }
    }

    fn invalid_piece(reason: impl Into<String>) -> Self {
        Self::Piece { reason: reason.into() }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// All checkpoints of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
    dirs: Arc<Mutex<BTreeMap<GroupKey, Arc<CheckpointDir>>>>,
}

impl Checkpoints {
    /// Opens the directory, which is created if needed.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        create_dir_durably(dir)?;
        Ok(Self { dir: dir.to_owned(), dirs: Arc::default() })
    }

    /// Writes a frozen state as a checkpoint. When it returns, the checkpoint is durable and was
    /// read back, and all but the last two are removed: also this one, if there are two with a
    /// higher index. Blocks for long; one at a time per replica.
    ///
    /// # Errors
    /// Any [`CheckpointError`]: no checkpoint was written, and the earlier ones are unchanged.
    pub fn write(
        &self,
        group: GroupKey,
        meta: CheckpointMeta,
        frozen: Box<dyn FrozenState>,
    ) -> Result<CheckpointId, CheckpointError> {
        self.dir(group)?.write(meta, frozen)
    }

    /// Gives the chunks of the newest checkpoint to `load`. If a chunk is damaged that `load` reads
    /// or that the older checkpoint lacks, the newest is renamed with a warning, and `load` gets
    /// the older one. A chunk that both share and `load` does not read is not verified, so that a
    /// start does not take longer with more history: see [`Checkpoints::verify_requests`].
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] when there are checkpoints and all are damaged. They are kept,
    /// so that the next start reports the same.
    pub fn load<T>(
        &self,
        group: GroupKey,
        mut load: impl FnMut(&CheckpointMeta, &dyn ChunkSource) -> T,
    ) -> Result<Option<(PinnedCheckpoint, T)>, CheckpointError> {
        let dir = self.dir(group)?;
        dir.load(|stored, older| {
            let pinned = PinnedCheckpoint::new(dir.clone(), stored.clone());
            let hashes =
                |older: &StoredCheckpoint| older.manifest.chunks.iter().map(|c| c.hash).collect();
            // Damage in a chunk that both share cannot be avoided by loading the older one. Without
            // an older one there is nothing to fall back to at all.
            let known: Option<BTreeSet<[u8; 32]>> = older.map(hashes);
            let is_new = |chunk: &ChunkInfo| {
                known.as_ref().is_some_and(|known| !known.contains(&chunk.hash))
            };
            let loaded = pinned.read_and_verify(|source| load(pinned.meta(), source), is_new)?;
            Ok((pinned, loaded))
        })
    }

    /// Notified when the chunks of the newest checkpoint should be verified: after a start, which
    /// reads only some, and after a reader found a damaged one.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] when the replica's directory cannot be read.
    pub fn verify_requests(&self, group: GroupKey) -> Result<Arc<Notify>, CheckpointError> {
        Ok(self.dir(group)?.verify_requests.clone())
    }

    /// The newest checkpoint. Its chunks are not read here; readers of it check their hashes.
    pub fn newest(&self, group: GroupKey) -> Option<PinnedCheckpoint> {
        let dir = self.dir(group).ok()?;
        let stored = dir.newest()?;
        Some(PinnedCheckpoint::new(dir, stored))
    }

    /// The index up to which the log may be purged: that of the older of the last two checkpoints.
    /// `None` until there are two.
    pub fn oldest_index(&self, group: GroupKey) -> Option<u64> {
        self.dir(group).ok()?.oldest_index()
    }

    /// Bytes that were written for the newest checkpoint: its manifest, and the chunks that the one
    /// before it lacks. 0 without a checkpoint.
    pub fn written_bytes(&self, group: GroupKey) -> u64 {
        self.dir(group).map_or(0, |dir| dir.written_bytes())
    }

    /// Begins to receive a checkpoint from another replica. Blocks: chunks that are here already
    /// are read and verified.
    ///
    /// # Errors
    /// [`CheckpointError::Piece`] when the manifest is damaged.
    pub fn incoming(
        &self,
        group: GroupKey,
        manifest: &[u8],
    ) -> Result<IncomingCheckpoint, CheckpointError> {
        IncomingCheckpoint::begin(self.dir(group)?, manifest)
    }

    /// Removes all checkpoints of a replica.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn forget(&self, group: GroupKey) -> Result<(), CheckpointError> {
        self.dirs.lock().remove(&group);
        let dir = self.dir_of(group);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(CheckpointError::io(&dir)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn dir_of(&self, group: GroupKey) -> PathBuf {
        self.dir.join(format!("{:05}-{:016x}", group.group, group.replica))
    }

    /// The directory of a replica. One object for each replica: it holds the locks.
    fn dir(&self, group: GroupKey) -> Result<Arc<CheckpointDir>, CheckpointError> {
        let mut dirs = self.dirs.lock();
        if let Some(dir) = dirs.get(&group) {
            return Ok(dir.clone());
        }
        let dir = Arc::new(CheckpointDir::open(self.dir_of(group), group)?);
        dirs.insert(group, dir.clone());
        Ok(dir)
    }
}

/// Creates a directory whose name survives a loss of power.
fn create_dir_durably(dir: &Path) -> Result<(), CheckpointError> {
    if dir.is_dir() {
        return Ok(());
    }
    let made = fs::create_dir_all(dir).and_then(|()| match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        Some(_) | None => Ok(()),
    });
    made.map_err(CheckpointError::io(dir))
}

/// Writes a file under a temporary name, syncs it and renames it. The caller syncs the directory.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(TEMP_SUFFIX);
    let unfinished = PathBuf::from(unfinished);
    let written = (|| {
        let file = retry_shortage(|| fs::File::create(&unfinished))?;
        file.write_all_at(bytes, 0)?;
        if !mutant::is(Mutant::PurgeWalBeforeCheckpointDurable) {
            file.sync_all()?;
        }
        // Only after the sync: the name promises the whole content.
        fs::rename(&unfinished, path)
    })();
    written.map_err(|error| {
        // Best effort: the next start removes it as well.
        let _ = fs::remove_file(&unfinished);
        CheckpointError::io(path)(error)
    })
}

/// The end of the name of a file that is not complete.
const TEMP_SUFFIX: &str = ".new";
