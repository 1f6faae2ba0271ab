//! Wal: the one log of a node, shared by all its groups.
//!
//! **Why one.** What a replica acknowledges must be on disk, and making a disk durable is what
//! costs. So the entries, votes and marks of all groups go into one sequence of records, written by
//! one thread: each *turn* takes everything that was submitted meanwhile, writes it once, makes it
//! durable once, and only then calls back, in order. Nothing waits for a timer; the slower the
//! disk, the more one turn carries.
//!
//! **The format.** The log is a sequence of segment files, numbered by serials that never repeat
//! (`segment.rs`). A segment is a head and turns; a turn is a head and records (`record.rs`):
//!
//! ```text
//!   0000000000000041.wal              0000000000000042.wal             0000000000000043.wal
//!   [head|turn|turn|turn]  <--link--  [head|turn|turn|turn|000000]     [head|00000000000000]
//!    full, cut to its end              current                          next, all zeroes
//! ```
//!
//! - Every turn names its predecessor: segment, end, checksum. A turn is only begun when the one
//!   before it is durable, so a whole turn proves all before it: *damage before the last turn is no
//!   accident of a stop, it is corruption*, and the log is refused, naming file and offset. Damage
//!   in the last turn cannot be told from a torn write; it is cut, with a warning.
//! - Checksums start from a seed drawn from the segment's serial and a number nobody can foresee:
//!   no payload, and no rest of another file, can pass for a turn.
//! - Every turn names the oldest segment still needed (the *floor*), so a missing file is noticed.
//! - On open, the segment with the last turns is copied to a new one and made durable before
//!   anything is reported; the new one says which segments it replaces.
//!
//! - A segment is written full of zeroes, and made durable, before it is used. Room that is merely
//!   reserved would have to be turned into written room by each turn, in the file system's own log;
//!   when that fails because power goes or the disk does, the sync may still say that all is well
//!   (seen on ext4: one in twenty power cuts lost a turn that had been acknowledged, none in
//!   hundreds since). It also makes each sync cheaper.
//!
//! **What may go.** A segment nothing lives in is removed once a durable turn has said that it is
//! not needed. If little lives in the oldest one (a group that rarely writes, a vote, a mark) it is
//! written again behind the newest turn first, a bounded amount per turn. Only the oldest segment
//! is ever removed: a record that ends others (a truncation) outlives what it ends.
//!
//! **A full disk** is met when the *next* segment is made, before any record needs it, and at the
//! latest when half of the current one is used. From then on [`Wal::writable`] says no, so that
//! nothing new is proposed (or accepted from a leader), while what is in flight still fits into the
//! current one, whose last sixteenth is kept for small writes (votes, marks). What does not fit is
//! refused with `StorageFull`: it is not written, memory takes back what it appended, and what was
//! submitted for that replica on top of it is refused as well. Reading goes on. Room is looked for
//! when a turn needs it, and twice a second.
//!
//! **What it refuses**: to go on after a failed write or fsync (what is on disk is not known then:
//! the `fatal` hook ends the process); to be opened twice; to skip damage; to leave gaps between
//! entries.
//!
//! `Committed` is advice: it causes no write of its own, but rides along with the next turn, and
//! its callback does not wait. After a crash it may be older than what was submitted.

mod index;
mod recover;
mod segment_allocator;
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
use crate::disk::wal::writer::{PendingSubmission, Shared, State, Writer};
use crate::disk::{Device, GroupKey, RealDevice};
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
pub struct RecoveredLog {
    /// Every replica the log knows.
    pub groups: BTreeMap<GroupKey, GroupLogState>,
    /// A torn last write was cut: the file and the offset it began at.
    pub torn_write: Option<(PathBuf, u64)>,
}

/// How a log is opened.
pub struct WalConfig {
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Payload bytes of recent entries kept in memory.
    pub cache_bytes: usize,
    /// Sealed segments that may stand before the oldest is emptied by rewriting.
    pub compact_after_segments: usize,
    /// The disk; tests put a failing one here.
    pub device: Arc<dyn Device>,
    /// Called once, with words, when the log cannot go on: the process must exit.
    pub fatal: Box<dyn Fn(String) + Send + Sync>,
    /// For simulations: the log has no threads. This is called when something waits for
    /// [`Wal::run_queued`].
    pub inline_notify: Option<Box<dyn Fn() + Send + Sync>>,
}

impl WalConfig {
    /// The defaults of `limits`, the real disk, and what to do when the log cannot go on.
    pub fn new(fatal: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self {
            segment_bytes: limits::WAL_SEGMENT_BYTES,
            cache_bytes: limits::WAL_CACHE_BYTES,
            compact_after_segments: limits::WAL_COMPACT_AFTER_SEGMENTS,
            device: Arc::new(RealDevice),
            fatal: Box::new(fatal),
            inline_notify: None,
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
    /// An earlier write or fsync failed; what is on disk is not known any more.
    #[error("the log stopped: {reason}")]
    Stopped {
        /// In words.
        reason: String,
    },
    /// The system refused something that is neither.
    #[error("{} cannot be used: {source}", path.display())]
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
    pub write_batches: AtomicU64,
    /// Times the disk was asked to make writes durable.
    pub fsyncs: AtomicU64,
    /// Microseconds spent in that.
    pub fsync_micros: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// Operations written.
    pub ops: AtomicU64,
    /// Submissions refused because the disk was full.
    pub rejected: AtomicU64,
    /// Bytes rewritten so that old segments could go.
    pub compacted_bytes: AtomicU64,
    /// Segment files that exist now.
    pub segments: AtomicU64,
    /// Entries read from files because memory no longer held them.
    pub disk_reads: AtomicU64,
}

impl Op {
    /// Whose log it changes.
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

/// A log without threads.
struct InlineWriter {
    writer: Mutex<Writer>,
    notify: Box<dyn Fn() + Send + Sync>,
}

/// The one log of a node. Dropping it writes what is queued and waits for that.
pub struct Wal {
    shared: Arc<Shared>,
    dir: PathBuf,
    threads: Vec<JoinHandle<()>>,
    /// What the threads would do, where there are none.
    inline: Option<InlineWriter>,
    /// Held while the log is open.
    _lock: File,
}

impl Wal {
    /// Opens the log in a directory of its own, which is created if needed.
    ///
    /// # Errors
    /// [`WalError`]: damage is refused, never skipped.
    pub fn open(dir: &Path, mut config: WalConfig) -> Result<(Self, RecoveredLog), WalError> {
        config.segment_bytes = config.segment_bytes.max(limits::WAL_SEGMENT_BYTES_MIN);
        let lock = lock(dir, &*config.device)?;
        let mut opened = recover::open(dir, &config)?;
        let recovered = std::mem::take(&mut opened.recovered);
        let counters = WalCounters::default();
        counters.segments.store(opened.index.segments.len() as u64, Relaxed);
        let index = std::mem::take(&mut opened.index);
        let shared = Arc::new(Shared {
            state: Mutex::new(State { index, ..State::default() }),
            work_queued: Condvar::new(),
            queue_space: Condvar::new(),
            segment_requested: Condvar::new(),
            allocation_done: Condvar::new(),
            counters,
        });
        let allocator = SegmentAllocator {
            shared: shared.clone(),
            dir: dir.to_owned(),
            device: config.device.clone(),
            segment_bytes: config.segment_bytes,
        };
        let notify = config.inline_notify.take();
        let mut writer = Writer::new(shared.clone(), dir.to_owned(), config, opened);
        let (dir, threads) = (dir.to_owned(), Vec::new());
        let mut wal = Self { shared, dir, threads, inline: None, _lock: lock };
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

    /// Hands operations to the log's thread and returns; `done` is called when they are on disk.
    /// What was submitted can be read at once. Submissions are written in the order of the calls.
    /// Blocks only while the queue is full, which means the disk has stalled.
    ///
    /// `done` is told `StorageFull` when there was no room (nothing of it is written),
    /// `InvalidInput` when an entry would leave a gap or is too large, and anything else when the
    /// log is dead. For advice alone it is called at once.
    pub fn submit(&self, ops: Vec<Op>, done: SubmitCallback) {
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
        if let Some(error) = rejected {
            drop(state);
            return done(Err(error));
        }
        let mut groups: Vec<(GroupKey, u64)> = Vec::new();
        for key in ops.iter().map(Op::group) {
            let rejections = state.index.rejections.get(&key).copied().unwrap_or(0);
            if !groups.contains(&(key, rejections)) {
                groups.push((key, rejections));
            }
        }
        state.sequence += 1;
        let sequence = state.sequence;
        let only_committed = ops.iter().all(|op| matches!(op, Op::Committed { .. }));
        let records = state.index.apply(ops, sequence);
        if only_committed {
            drop(state);
            return done(Ok(()));
        }
        let submission = PendingSubmission { records, sequence, groups, done: Some(done) };
        state.queued_bytes += submission.size();
        state.queue.push_back(submission);
        self.shared.work_queued.notify_one();
        drop(state);
        if let Some(inline) = &self.inline {
            (inline.notify)();
        }
    }

    /// Without threads: does what waits, here and now, and calls back.
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
        let sources = self.shared.state.lock().index.sources(group, range, max_bytes);
        let from_disk = sources.iter().filter(|source| matches!(source, EntrySource::Disk { .. }));
        self.shared.counters.disk_reads.fetch_add(from_disk.count() as u64, Relaxed);
        sources.into_iter().map(|source| source.read(group)).collect()
    }

    /// What the log holds of a replica now, submissions still under way included.
    pub fn state(&self, group: GroupKey) -> GroupLogState {
        let state = self.shared.state.lock();
        state.index.groups.get(&group).map(index::GroupIndex::state).unwrap_or_default()
    }

    /// Payload bytes of a replica's entries: what a checkpoint now would allow to purge.
    pub fn live_bytes(&self, group: GroupKey) -> u64 {
        self.shared.state.lock().index.groups.get(&group).map_or(0, |group| group.bytes)
    }

    /// The replicas whose entries keep the oldest segment alive, with their bytes in it: those a
    /// checkpoint would help most. Empty while few segments stand.
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

    /// Whether entries should be proposed (or accepted from a leader) now. Cheap. It says no as
    /// soon as the segment after the current one cannot be made, while what is in flight
    /// still has room.
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

    /// What was counted.
    pub fn counters(&self) -> &WalCounters {
        &self.shared.counters
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work_queued.notify_all();
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
