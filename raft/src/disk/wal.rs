//! Wal: the one log of a node, shared by all its groups.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use crate::disk::{Device, GroupKey, Machinery};
use crate::limits;

/// What is done to one group's log. Payloads are opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Entries `(index, term, bytes)`: consecutive, the first one right behind the group's last.
    /// In an empty log the first may have any index, after a purge the one behind the purge.
    Append {
        /// Whose.
        group: GroupKey,
        /// What.
        entries: Vec<(u64, u64, Bytes)>,
    },
    /// The vote this replica gave.
    Vote {
        /// Whose.
        group: GroupKey,
        /// The vote, encoded by the caller.
        vote: Bytes,
    },
    /// What is known to be committed: advice for a faster start. It causes no write of its own, it
    /// rides along with the next turn.
    Committed {
        /// Whose.
        group: GroupKey,
        /// The log id, encoded by the caller.
        committed: Bytes,
    },
    /// Removes every entry behind `after`; all entries if `None`.
    TruncateAfter {
        /// Whose.
        group: GroupKey,
        /// The last index that stays.
        after: Option<u64>,
    },
    /// Removes every entry up to `index`, which a checkpoint covers; it may lie behind the last.
    Purge {
        /// Whose.
        group: GroupKey,
        /// The last index that goes.
        index: u64,
        /// Its log id, encoded by the caller.
        log_id: Bytes,
    },
    /// Removes all that is known of a replica.
    Forget {
        /// Whose.
        group: GroupKey,
    },
}

/// Called on the log's own thread once a submission is on disk, or never will be. It must neither
/// block nor submit (a full queue would wait for itself). `StorageFull`: nothing was written and
/// nothing is broken; any other error is the end of this log.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// An entry as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its payload.
    pub bytes: Bytes,
}

/// What the log holds of one replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupLog {
    /// The last vote.
    pub vote: Option<Bytes>,
    /// What was last known to be committed; may lag.
    pub committed: Option<Bytes>,
    /// The last purge: its index and log id.
    pub purged: Option<(u64, Bytes)>,
    /// The first entry's index, if there is one.
    pub first: Option<u64>,
    /// The last entry's index and term, if there is one.
    pub last: Option<(u64, u64)>,
}

/// What was found when the log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Every replica the log knows.
    pub groups: BTreeMap<GroupKey, GroupLog>,
    /// A torn last write was cut: the file and the offset it began at.
    pub cut: Option<(PathBuf, u64)>,
}

/// How a log is opened.
pub struct WalConfig {
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Payload bytes of recent entries kept in memory.
    pub cache_bytes: usize,
    /// Sealed segments that may stand before the oldest is emptied by rewriting.
    pub carry_after_segments: usize,
    /// The disk; tests put a failing one here.
    pub device: Arc<dyn Device>,
    /// Called once, with words, when the log cannot go on: the process must exit.
    pub fatal: Box<dyn Fn(String) + Send + Sync>,
}

impl WalConfig {
    /// The defaults of `limits`, the real disk, and what to do when the log cannot go on.
    pub fn new(fatal: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self {
            segment_bytes: limits::WAL_SEGMENT_BYTES,
            cache_bytes: limits::WAL_CACHE_BYTES,
            carry_after_segments: limits::WAL_CARRY_AFTER_SEGMENTS,
            device: Arc::new(Machinery),
            fatal: Box::new(fatal),
        }
    }
}

/// Why the log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Another process has this directory.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file is not what was written.
    #[error("log file {} is damaged at offset {offset}: {reason}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// In words.
        reason: String,
    },
    /// Written by a newer (or foreign) build.
    #[error("log file {} has format {found}; this build reads format {known}", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// The format found.
        found: u8,
        /// The format this build writes.
        known: u8,
    },
    /// There is no room for the next segment. Writes are refused until there is; reads go on.
    #[error("no room for the next log segment in {}: {needed} bytes needed, {free} free", dir.display())]
    Full {
        /// The directory.
        dir: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// An earlier write or fsync failed; what is on disk is not known any more.
    #[error("the log stopped: {reason}")]
    Dead {
        /// In words.
        reason: String,
    },
    /// The system refused something that is neither.
    #[error("{} cannot be used", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What the log counted since it was opened.
#[derive(Debug, Default)]
pub struct WalCounters {
    /// Turns written.
    pub turns: AtomicU64,
    /// Times the disk was asked to make writes durable.
    pub fsyncs: AtomicU64,
    /// Microseconds spent in that.
    pub fsync_micros: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Operations written.
    pub ops: AtomicU64,
    /// Submissions refused because the disk was full.
    pub refused: AtomicU64,
    /// Bytes rewritten so that old segments could go.
    pub carried_bytes: AtomicU64,
    /// Segment files that exist now.
    pub segments: AtomicU64,
    /// Entries read from files because memory no longer held them.
    pub disk_reads: AtomicU64,
}

/// The one log of a node.
pub struct Wal {}

impl Wal {
    /// Opens the log in a directory of its own, which is created if needed.
    ///
    /// # Errors
    /// [`WalError`]: damage is refused, never skipped.
    pub fn open(dir: &Path, config: WalConfig) -> Result<(Self, Recovered), WalError> {
        let _ = (dir, config);
        unimplemented!()
    }

    /// Hands operations to the log's thread and returns; `done` is called when they are on disk.
    /// What was submitted can be read at once. Submissions are written in the order of the calls.
    /// Blocks only while the queue is full, which means the disk has stalled.
    pub fn submit(&self, ops: Vec<Op>, done: Done) {
        let _ = (ops, done);
        unimplemented!()
    }

    /// The entries of a range that exist, at least one if there is one, no more than fit into
    /// `max_bytes` otherwise. Blocks on disk for entries memory no longer holds.
    ///
    /// # Errors
    /// [`WalError::Corrupt`] when an entry is not what was written.
    pub fn read(
        &self,
        group: GroupKey,
        range: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, WalError> {
        let _ = (group, range, max_bytes);
        unimplemented!()
    }

    /// What the log holds of a replica now, submissions still under way included.
    pub fn state(&self, group: GroupKey) -> GroupLog {
        let _ = group;
        unimplemented!()
    }

    /// Payload bytes of a replica's entries: what a checkpoint now would allow to purge.
    pub fn live_bytes(&self, group: GroupKey) -> u64 {
        let _ = group;
        unimplemented!()
    }

    /// The replicas whose entries keep the oldest segment alive, with their bytes in it: those a
    /// checkpoint would help most. Empty while few segments stand.
    pub fn holding(&self) -> Vec<(GroupKey, u64)> {
        unimplemented!()
    }

    /// Whether entries should be proposed (or accepted from a leader) now. Cheap. It says no as soon
    /// as the segment after the current one cannot be preallocated, while what is in flight still
    /// has room.
    ///
    /// # Errors
    /// [`WalError::Full`], [`WalError::Dead`].
    pub fn writable(&self) -> Result<(), WalError> {
        unimplemented!()
    }

    /// What was counted.
    pub fn counters(&self) -> &WalCounters {
        unimplemented!()
    }
}
