//! Checkpoint: the second form of the truth.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::disk::GroupKey;
use crate::machine::{ChunkSource, Frozen};

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
    #[error("checkpoint file {} cannot be used", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why; `StorageFull` can be tried again later.
        source: std::io::Error,
    },
}

/// All checkpoints of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checkpoints {}

impl Checkpoints {
    /// Opens the directory, which is created if needed, and clears what a crash left half-written.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let _ = dir;
        unimplemented!()
    }

    /// Writes a frozen state. When it returns, the checkpoint is durable and was read back, and all
    /// but the last two are gone. Blocks for long; one at a time per replica.
    ///
    /// # Errors
    /// Nothing counts; the earlier checkpoints stand.
    pub fn write(
        &self,
        group: GroupKey,
        meta: CheckpointMeta,
        frozen: Box<dyn Frozen>,
    ) -> Result<CheckpointId, CheckpointError> {
        let _ = (group, meta, frozen);
        unimplemented!()
    }

    /// The newest checkpoint whose every byte is what was written. A damaged one is set aside, with a
    /// warning that names the file, and the older one is taken. Reads everything: for starts.
    ///
    /// # Errors
    /// When there were checkpoints and all are damaged.
    pub fn latest(&self, group: GroupKey) -> Result<Option<Pinned>, CheckpointError> {
        let _ = group;
        unimplemented!()
    }

    /// The newest checkpoint, without reading its chunks: for sending, where hashes are checked.
    pub fn newest(&self, group: GroupKey) -> Option<Pinned> {
        let _ = group;
        unimplemented!()
    }

    /// The index below which the log may be purged: that of the older of the last two checkpoints.
    /// `None` until there are two.
    pub fn oldest_index(&self, group: GroupKey) -> Option<u64> {
        let _ = group;
        unimplemented!()
    }

    /// Begins to receive a checkpoint from another replica.
    ///
    /// # Errors
    /// When the manifest is not one.
    pub fn incoming(&self, group: GroupKey, manifest: &[u8]) -> Result<Incoming, CheckpointError> {
        let _ = (group, manifest);
        unimplemented!()
    }

    /// Removes everything of a replica.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn forget(&self, group: GroupKey) -> Result<(), CheckpointError> {
        let _ = group;
        unimplemented!()
    }
}

/// A checkpoint that is not collected while this handle lives.
#[derive(Debug, Clone)]
pub struct Pinned {}

impl Pinned {
    /// Which.
    pub fn id(&self) -> CheckpointId {
        unimplemented!()
    }

    /// What it says about itself.
    pub fn meta(&self) -> &CheckpointMeta {
        unimplemented!()
    }

    /// The manifest as it is sent to another replica; see [`Checkpoints::incoming`].
    pub fn manifest(&self) -> Bytes {
        unimplemented!()
    }

    /// All chunks, in the order they were written.
    pub fn chunks(&self) -> &[ChunkInfo] {
        unimplemented!()
    }

    /// A piece of a chunk, for sending; the receiver checks the hash of the whole.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn piece(&self, hash: [u8; 32], offset: u64, len: usize) -> Result<Bytes, CheckpointError> {
        let _ = (hash, offset, len);
        unimplemented!()
    }
}

impl ChunkSource for Pinned {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let _ = name;
        unimplemented!()
    }

    fn names(&self) -> Vec<String> {
        unimplemented!()
    }
}

/// A checkpoint on its way in. Dropped before [`Incoming::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {}

impl Incoming {
    /// What the sender said about it.
    pub fn meta(&self) -> &CheckpointMeta {
        unimplemented!()
    }

    /// The chunks that are not here yet, in order.
    pub fn missing(&self) -> Vec<ChunkInfo> {
        unimplemented!()
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
        let _ = (hash, offset, bytes);
        unimplemented!()
    }

    /// Makes it this replica's newest checkpoint, as durable as one written here.
    ///
    /// # Errors
    /// When something is missing or the system refuses; nothing counts.
    pub fn finish(self) -> Result<CheckpointId, CheckpointError> {
        unimplemented!()
    }
}
