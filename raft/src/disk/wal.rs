//! Wal: the write-ahead log of a node, shared by all its groups.
//!
//! **Why one log.** What a replica acknowledges must be on disk, and the sync is what costs. The
//! entries, votes and metadata of all groups therefore go into one sequence of records, which one
//! thread writes. It takes everything that is queued as one *write batch*, writes it once, syncs it
//! once, and only then calls the submitters back, in order. Nothing waits for a timer; the slower
//! the disk, the larger the batch.
//!
//! **The format.** The log is a sequence of segment files, numbered by serials that never repeat
//! (`segment.rs`). A segment is a header and batches; a batch is a header and records
//! (`record.rs`):
//!
//! ```text
//!   0000000000000041.wal                 0000000000000042.wal                0000000000000043.wal
//!   [header|batch|batch|batch] <--link-- [header|batch|batch|batch|000000]   [header|0000000000]
//!    full, trimmed to its end             active                              spare, all zeroes
//! ```
//!
//! - Each batch names its predecessor: segment, end, checksum. The writer begins a batch only when
//!   the one before it is durable, so a valid batch proves all before it. *Damage before the last
//!   batch is therefore corruption, not a torn write*: the log is refused, with file and offset.
//!   Damage in the last batch cannot be told from a torn write; it is discarded with a warning.
//! - Checksums start from a seed that is made of the segment's serial and a random number. No
//!   payload, and no rest of an older file, can pass for a batch.
//! - Each batch names the oldest segment that is still needed (the *floor*), so that a missing file
//!   is detected.
//! - On open, the last segment with a batch is copied to a new one and synced before anything is
//!   reported. The header of the copy names the segments that it replaces.
//! - A segment is filled with zeroes and synced before it is used. Space that is only reserved
//!   would be converted by each batch, in the journal of the file system. If power is lost during
//!   that, the sync may still report success (seen on ext4: one in twenty power cuts lost a batch
//!   that had been acknowledged, none in hundreds since). It also makes each sync cheaper.
//!
//! **Removal and compaction.** A segment without live records is removed once a durable batch has
//! named a higher floor. If the oldest segment holds few live records (of a group that rarely
//! writes), they are first copied behind the newest batch, a bounded amount per pass. Only the
//! oldest segment is ever removed, so that a truncation outlives the entries it removed.
//!
//! **A full disk** is detected when the *spare* segment is created, before any record needs it, and
//! at the latest when half of the active one is used. From then on [`Wal::writable`] is an error,
//! so that nothing new is proposed or accepted from a leader. What is in flight still fits into the
//! active segment, whose last sixteenth is reserved for small writes (votes, metadata). What does
//! not fit is rejected with `StorageFull`: it is not written, the index drops what it appended, and
//! submissions of the same replica that build on it are rejected as well. Reads continue. The disk
//! is asked again when the writer needs space, and twice a second.
//!
//! **Refused**: to continue after a failed write or fsync, because the content of the disk is then
//! unknown (the `fatal` callback ends the process); to be opened twice; to skip damage; to leave
//! gaps between entries.
//!
//! `Committed` is a hint: it causes no write of its own, the next batch includes it, and its
//! callback does not wait. After a crash it may be older than what was submitted.

mod index;
mod recover;
mod segment_allocator;
mod shared;
mod sync_latency;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::disk::wal::index::EntrySource;
use crate::disk::wal::segment_allocator::SegmentAllocator;
use crate::disk::wal::shared::{PendingSubmission, State, WalShared};
use crate::disk::wal::sync_latency::SyncLatency;
use crate::disk::wal::writer::WalWriter;
use crate::disk::{Device, GroupKey, RealDevice};
use crate::fitness::NodeFitness;
use crate::limits;

/// One change of a replica's log. Payloads are opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOp {
    /// Appends entries `(index, term, bytes)`: consecutive, the first one right after the group's
    /// last. In an empty log the first may have any index, after a purge the one after the purge.
    Append {
        /// The replica.
        group: GroupKey,
        /// The entries, at most [`limits::WAL_ENTRY_BYTES_MAX`] bytes each.
        entries: Vec<(u64, u64, Bytes)>,
    },
    /// Saves the vote of this replica.
    Vote {
        /// The replica.
        group: GroupKey,
        /// The vote, encoded by the caller.
        vote: Bytes,
    },
    /// Saves what is known to be committed: a hint for a faster start. It causes no write of its
    /// own; the next batch includes it.
    Committed {
        /// The replica.
        group: GroupKey,
        /// The log id, encoded by the caller.
        committed: Bytes,
    },
    /// Removes every entry after `after`; all entries if `None`.
    TruncateAfter {
        /// The replica.
        group: GroupKey,
        /// The last index that stays.
        after: Option<u64>,
    },
    /// Removes every entry up to `index`, which a checkpoint covers. It may lie after the last one.
    Purge {
        /// The replica.
        group: GroupKey,
        /// The last index that goes.
        index: u64,
        /// Its log id, encoded by the caller.
        log_id: Bytes,
    },
    /// Removes everything of a replica.
    Forget {
        /// The replica.
        group: GroupKey,
    },
}

/// Called on the log's own thread once a submission is durable, or never will be. It must neither
/// block nor submit: with a full queue it would wait for itself. `StorageFull` means that nothing
/// was written and that the log continues. After any other error of a valid submission the log has
/// stopped.
pub type SubmitCallback = Box<dyn FnOnce(io::Result<()>) + Send>;

/// An entry as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its payload.
    pub bytes: Bytes,
}

/// What the log holds of one replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupLogState {
    /// The last vote.
    pub vote: Option<Bytes>,
    /// What was last known to be committed; it may lag.
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
pub struct RecoveredLog {
    /// Every replica the log knows.
    pub groups: BTreeMap<GroupKey, GroupLogState>,
    /// The torn last write that was discarded: the file, and the offset at which it began.
    pub torn_write: Option<(PathBuf, u64)>,
}

/// How a log is opened.
pub struct WalConfig {
    /// Size of a segment, in bytes.
    pub segment_bytes: u64,
    /// Payload bytes of recent entries kept in memory.
    pub cache_bytes: usize,
    /// Full segments that may exist before the oldest is compacted.
    pub compact_after_segments: usize,
    /// The disk; tests set a failing one.
    pub device: Arc<dyn Device>,
    /// Set to `DiskFull` at once when the next segment cannot be created.
    pub fitness: NodeFitness,
    /// Called once, with the reason, when the log has stopped: the process must exit.
    pub fatal: Box<dyn Fn(String) + Send + Sync>,
    /// For simulations: an inline log, which has no threads. This is called when a submission waits
    /// for [`Wal::run_queued`].
    pub inline_notify: Option<Box<dyn Fn() + Send + Sync>>,
}

impl WalConfig {
    /// The defaults of `limits`, on the real disk. `fatal`: see [`WalConfig::fatal`].
    pub fn new(fatal: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self {
            segment_bytes: limits::WAL_SEGMENT_BYTES,
            cache_bytes: limits::WAL_CACHE_BYTES,
            compact_after_segments: limits::WAL_COMPACT_AFTER_SEGMENTS,
            device: Arc::new(RealDevice),
            fitness: NodeFitness::default(),
            fatal: Box::new(fatal),
            inline_notify: None,
        }
    }
}

/// Why the log cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Another process has opened this directory.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The file is not what was written.
    #[error(
        "log file {} is damaged at offset {offset}: {reason}; nothing was changed. Bring this node's \
         data directory back from a copy: the other replicas hold what is missing in it",
        file.display()
    )]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// The reason, in words.
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
    /// There is no space for the next segment. Writes are rejected until there is; reads continue.
    #[error(
        "no room for the next log segment in {}: {needed} bytes needed, {free} free (where that is \
         enough, the process is out of open files or memory: its log says so)",
        dir.display()
    )]
    Full {
        /// The directory.
        dir: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// An earlier write or fsync failed, and the content of the disk is unknown.
    #[error("the log stopped: {reason}")]
    Stopped {
        /// The reason, in words.
        reason: String,
    },
    /// Any other error of the system.
    #[error("{} cannot be used: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Counters since the log was opened.
#[derive(Debug, Default)]
pub struct WalCounters {
    /// Batches written.
    pub write_batches: AtomicU64,
    /// Times the disk was asked to make writes durable.
    pub fsyncs: AtomicU64,
    /// Microseconds spent in that.
    pub fsync_micros: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Operations written.
    pub ops: AtomicU64,
    /// Submissions rejected because the disk was full.
    pub rejected: AtomicU64,
    /// Bytes copied so that old segments could be removed.
    pub compacted_bytes: AtomicU64,
    /// Segment files that exist now.
    pub segments: AtomicU64,
    /// Entries read from files because memory no longer held them.
    pub disk_reads: AtomicU64,
}

impl LogOp {
    /// The replica whose log it changes.
    pub fn group(&self) -> GroupKey {
        match self {
            Self::Append { group, .. }
            | Self::Vote { group, .. }
            | Self::Committed { group, .. }
            | Self::TruncateAfter { group, .. }
            | Self::Purge { group, .. }
            | Self::Forget { group } => *group,
        }
    }
}

/// The writer of an inline log, and whom to notify when a submission waits for it.
struct InlineWriter {
    writer: Mutex<WalWriter>,
    notify: Box<dyn Fn() + Send + Sync>,
}

/// The log of a node. Dropping it writes what is queued and waits for that.
pub struct Wal {
    shared: Arc<WalShared>,
    dir: PathBuf,
    device: Arc<dyn Device>,
    threads: Vec<JoinHandle<()>>,
    /// The writer, where it has no thread.
    inline: Option<InlineWriter>,
    /// Held while somebody looks at the disk.
    looking: Mutex<()>,
    /// Held while the log is open.
    _lock: File,
}

impl Wal {
    /// Opens the log in a directory of its own, which is created if needed.
    ///
    /// # Errors
    /// [`WalError`]: a damaged log is refused; damage is never skipped.
    pub fn open(dir: &Path, mut config: WalConfig) -> Result<(Self, RecoveredLog), WalError> {
        config.segment_bytes = config.segment_bytes.max(limits::WAL_SEGMENT_BYTES_MIN);
        // Before anything is read: recovery writes a segment and removes others.
        let lock = lock(dir, &*config.device)?;
        let mut opened = recover::open(dir, &config)?;
        let recovered = std::mem::take(&mut opened.recovered);
        let counters = WalCounters::default();
        counters.segments.store(opened.index.segments.len() as u64, Relaxed);
        let index = std::mem::take(&mut opened.index);
        let shared = Arc::new(WalShared {
            state: Mutex::new(State { index, ..State::default() }),
            work_queued: Condvar::new(),
            queue_space: Condvar::new(),
            segment_requested: Condvar::new(),
            allocation_done: Condvar::new(),
            sync_latency: SyncLatency::default(),
            counters,
        });
        let allocator = SegmentAllocator {
            shared: shared.clone(),
            dir: dir.to_owned(),
            device: config.device.clone(),
            fitness: config.fitness.clone(),
            segment_bytes: config.segment_bytes,
        };
        let device = config.device.clone();
        let notify = config.inline_notify.take();
        let mut writer = WalWriter::new(shared.clone(), dir.to_owned(), config, opened);
        let (dir, threads) = (dir.to_owned(), Vec::new());
        let mut wal = Self {
            shared,
            dir,
            device,
            threads,
            inline: None,
            looking: Mutex::default(),
            _lock: lock,
        };
        if let Some(notify) = notify {
            writer.allocator = Some(allocator);
            wal.inline = Some(InlineWriter { writer: Mutex::new(writer), notify });
        } else {
            wal.spawn("wal", move || writer.run())?;
            wal.spawn("wal-spare", move || allocator.run())?;
        }
        Ok((wal, recovered))
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), WalError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(|source| WalError::Io { path: self.dir.clone(), source })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Queues operations for the writer and returns; `done` is called when they are durable. They
    /// can be read at once. Submissions are written in the order of the calls. Blocks only while
    /// the queue is full, which means that the disk has stalled.
    ///
    /// `done` gets `StorageFull` when there was no space (nothing of the submission is written),
    /// `InvalidInput` when an entry would leave a gap or is too large, and another error when the
    /// log has stopped. For committed indexes alone it is called at once.
    pub fn submit(&self, ops: Vec<LogOp>, done: SubmitCallback) {
        let mut state = self.shared.state.lock();
        while state.stopped.is_none()
            && (state.queued_bytes >= limits::WAL_QUEUE_BYTES
                || state.queue.len() >= limits::WAL_QUEUE_LENGTH)
        {
            self.shared.queue_space.wait(&mut state);
        }
        let rejected = match &state.stopped {
            Some(reason) => Some(writer::stopped_error(reason)),
            None => state.index.check(&ops).err().map(invalid),
        };
        // Callbacks run without the lock: they may call into the log.
        if let Some(error) = rejected {
            drop(state);
            return done(Err(error));
        }
        // Remembers what the caller has seen: if a replica's count has grown by the time the writer
        // takes this submission, it builds on a rejected one.
        let mut groups: Vec<(GroupKey, u64)> = Vec::new();
        for key in ops.iter().map(LogOp::group) {
            let rejections = state.index.rejections.get(&key).copied().unwrap_or(0);
            if !groups.contains(&(key, rejections)) {
                groups.push((key, rejections));
            }
        }
        state.sequence += 1;
        let sequence = state.sequence;
        let only_committed = ops.iter().all(|op| matches!(op, LogOp::Committed { .. }));
        // Index and queue change under one lock, so that the order of the records on disk is the
        // order in which the index changed.
        let records = state.index.apply(ops, sequence);
        if only_committed {
            drop(state);
            return done(Ok(()));
        }
        let submission = PendingSubmission { records, sequence, groups, done: Some(done) };
        // A large one counts as its caller's permits do: who has permits never waits here, least of
        // all on the thread of the heartbeats.
        state.queued_bytes += submission.size().min(limits::LOG_LARGE_IN_FLIGHT_BYTES);
        state.queue.push_back(submission);
        self.shared.work_queued.notify_one();
        drop(state);
        if let Some(inline) = &self.inline {
            (inline.notify)();
        }
    }

    /// For an inline log: writes what is queued on this thread, and calls back.
    pub fn run_queued(&self) {
        if let Some(inline) = &self.inline {
            inline.writer.lock().run_queued();
        }
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
    ) -> Result<Vec<StoredEntry>, WalError> {
        // The lock is held for the look-up only. Reading needs none: a source holds its segment
        // open, also if the file is removed meanwhile.
        let sources = self.shared.state.lock().index.sources(group, range, max_bytes);
        let from_disk = sources.iter().filter(|source| matches!(source, EntrySource::Disk { .. }));
        self.shared.counters.disk_reads.fetch_add(from_disk.count() as u64, Relaxed);
        sources.into_iter().map(|source| source.read(group)).collect()
    }

    /// The state of a replica's log, including submissions that are not durable yet.
    pub fn state(&self, group: GroupKey) -> GroupLogState {
        let state = self.shared.state.lock();
        state.index.groups.get(&group).map(index::GroupIndex::state).unwrap_or_default()
    }

    /// Payload bytes of a replica's live entries.
    pub fn live_bytes(&self, group: GroupKey) -> u64 {
        self.shared.state.lock().index.groups.get(&group).map_or(0, |group| group.bytes)
    }

    /// The replicas that have live entries in the oldest segment, with their payload bytes in it: a
    /// checkpoint of those frees the most space. Empty while there are few segments.
    pub fn oldest_segment_usage(&self) -> Vec<(GroupKey, u64)> {
        let state = self.shared.state.lock();
        match state.index.segments.first_key_value() {
            Some((serial, _))
                if state.index.segments.len() > limits::WAL_COMPACT_AFTER_SEGMENTS =>
            {
                state.index.usage_by_group(*serial)
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Whether entries should be proposed, or accepted from a leader. Cheap. It is an error as soon
    /// as the spare segment cannot be created, while what is in flight still has space.
    ///
    /// # Errors
    /// [`WalError::Full`], [`WalError::Stopped`].
    pub fn writable(&self) -> Result<(), WalError> {
        let state = self.shared.state.lock();
        if let Some(reason) = &state.stopped {
            return Err(WalError::Stopped { reason: reason.clone() });
        }
        match state.full {
            Some((needed, free)) => Err(WalError::Full { dir: self.dir.clone(), needed, free }),
            None => Ok(()),
        }
    }

    /// The right to look at the disk, which may hang; none while somebody else looks.
    pub(crate) fn try_look(&self) -> Option<parking_lot::MutexGuard<'_, ()>> {
        self.looking.try_lock()
    }

    /// Bytes that are free on the disk of the log.
    pub fn free_bytes(&self) -> u64 {
        self.device.free(&self.dir)
    }

    /// How long the last syncs took.
    pub(crate) fn sync_latency(&self) -> &SyncLatency {
        &self.shared.sync_latency
    }

    /// The counters of this log.
    pub fn counters(&self) -> &WalCounters {
        &self.shared.counters
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work_queued.notify_all();
        // An inline log has no thread that would notice `closed`.
        self.run_queued();
        for thread in self.threads.drain(..) {
            // The last owner may be a callback, on the very thread that would be waited for.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the log panicked at its end");
            }
        }
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}

/// Creates the directory if needed and takes it for this process alone.
fn lock(dir: &Path, device: &dyn Device) -> Result<File, WalError> {
    let io = |source| WalError::Io { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(io)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        device.sync_dir(parent).map_err(io)?;
    }
    let lock = File::create(dir.join("lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(WalError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}
