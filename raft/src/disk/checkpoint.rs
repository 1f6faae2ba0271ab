//! Checkpoint: the second form of the truth.
//!
//! A checkpoint is what a machine is made of at one index, as named chunks. A chunk is a file named
//! by the hash of its content, so what did not change since the last checkpoint is neither written
//! nor sent again; a manifest lists names, hashes and lengths, and carries a hash of itself.
//!
//! ```text
//!   checkpoints/00007-0000000000000003/          one folder for each replica
//!       0000000000000011.checkpoint              the older of the last two
//!       0000000000000012.checkpoint              the newest
//!       chunks/3f79bb7b...  chunks/a1c9...       shared by both
//!       incoming-0/                              on its way from another replica
//! ```
//!
//! **Promise.** Every file is written under another name, fsynced, renamed, its directory fsynced,
//! and read back; the manifest comes last, so a checkpoint is there whole or not at all. The last
//! two are kept, and the log is only purged below the older one: should the newest turn out to be
//! damaged, the older one and the log still give the same state. A chunk somebody still reads or
//! sends is not removed.
//!
//! **Refused.** A byte that is not what was written is never handed out: whoever reads checks the
//! hash, and the error names the file. A start reads what it loads into memory and what the newest
//! has that the older lacks; the rest is looked at afterwards, and mended from another replica.

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

/// What a checkpoint says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointMeta {
    /// The last entry it contains.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// That entry's log id, encoded by the caller.
    pub log_id: Bytes,
    /// The membership at that entry, encoded by the caller.
    pub membership: Bytes,
    /// Whatever else the caller wants to find again.
    pub extra: Bytes,
}

/// One checkpoint of one replica on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckpointId {
    /// Whose.
    pub group: GroupKey,
    /// Counts the checkpoints of this replica here.
    pub serial: u64,
    /// The last entry it contains.
    pub index: u64,
}

/// A chunk as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkInfo {
    /// The machine's name for it.
    pub name: String,
    /// BLAKE3 of its content.
    pub hash: [u8; 32],
    /// Bytes.
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
        /// In words.
        reason: String,
    },
    /// The machine kept a chunk the previous checkpoint does not have.
    #[error("chunk {name:?} cannot be kept: the previous checkpoint has none of this name")]
    NotKept {
        /// The chunk's name.
        name: String,
    },
    /// A piece that came does not belong where it says.
    #[error("a piece of a checkpoint does not fit: {reason}")]
    Piece {
        /// In words.
        reason: String,
    },
    /// The system refused something.
    #[error("checkpoint file {} cannot be used: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why; `StorageFull` can be tried again later.
        source: std::io::Error,
    },
}

impl CheckpointError {
    fn damaged(file: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), reason: reason.into() }
    }

    fn read_piece(reason: impl Into<String>) -> Self {
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
    /// When the system refuses.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        create_dir_durably(dir)?;
        Ok(Self { dir: dir.to_owned(), dirs: Arc::default() })
    }

    /// Writes a frozen state. When it returns, the checkpoint is durable and was read back, and all
    /// but the last two are gone, this one too if two of later entries stand. Blocks for long; one
    /// at a time per replica.
    ///
    /// # Errors
    /// Nothing counts; the earlier checkpoints stand.
    pub fn write(
        &self,
        group: GroupKey,
        meta: CheckpointMeta,
        frozen: Box<dyn FrozenState>,
    ) -> Result<CheckpointId, CheckpointError> {
        self.dir(group)?.write(meta, frozen)
    }

    /// Lends the chunks of the newest checkpoint to `load`. Where one is damaged that it reads, or
    /// that the older checkpoint lacks, the newest is set aside, with a warning that names the
    /// file, and the older one is lent. What both share and `load` does not read is not looked at,
    /// so that a start takes no longer the more history there is: see [`Checkpoints::verify_requests`].
    ///
    /// # Errors
    /// When there are checkpoints and all are damaged; they stay, so that the next start says so
    /// too.
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
            let known: Option<BTreeSet<[u8; 32]>> = older.map(hashes);
            let is_new = |chunk: &ChunkInfo| {
                known.as_ref().is_some_and(|known| !known.contains(&chunk.hash))
            };
            let loaded = pinned.read_and_verify(|source| load(pinned.meta(), source), is_new)?;
            Ok((pinned, loaded))
        })
    }

    /// Rung when chunks of the newest checkpoint should be looked at: after a start, which read
    /// only some, and when somebody met a damaged one.
    ///
    /// # Errors
    /// When the system refuses to look at the replica's folder.
    pub fn verify_requests(&self, group: GroupKey) -> Result<Arc<Notify>, CheckpointError> {
        Ok(self.dir(group)?.verify_requests.clone())
    }

    /// The newest checkpoint, without reading its chunks: for sending, where hashes are checked.
    pub fn newest(&self, group: GroupKey) -> Option<PinnedCheckpoint> {
        let dir = self.dir(group).ok()?;
        let stored = dir.newest()?;
        Some(PinnedCheckpoint::new(dir, stored))
    }

    /// The index below which the log may be purged: that of the older of the last two checkpoints.
    /// `None` until there are two.
    pub fn oldest_index(&self, group: GroupKey) -> Option<u64> {
        self.dir(group).ok()?.oldest_index()
    }

    /// Bytes that the newest checkpoint had to write: its manifest, and the chunks that the one
    /// before it lacks. 0 where there is none.
    pub fn written_bytes(&self, group: GroupKey) -> u64 {
        self.dir(group).map_or(0, |dir| dir.written_bytes())
    }

    /// Begins to receive a checkpoint from another replica. Blocks: what is here already is read.
    ///
    /// # Errors
    /// When the manifest is not one.
    pub fn incoming(
        &self,
        group: GroupKey,
        manifest: &[u8],
    ) -> Result<IncomingCheckpoint, CheckpointError> {
        IncomingCheckpoint::begin(self.dir(group)?, manifest)
    }

    /// Removes everything of a replica.
    ///
    /// # Errors
    /// When the system refuses.
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

/// Writes a file whole: under another name, fsynced, renamed. Its directory is the caller's to
/// sync.
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
        fs::rename(&unfinished, path)
    })();
    written.map_err(|error| {
        // Best effort: the next start removes it too.
        let _ = fs::remove_file(&unfinished);
        CheckpointError::io(path)(error)
    })
}

/// What a file not yet whole is called.
const TEMP_SUFFIX: &str = ".new";
