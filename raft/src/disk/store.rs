//! Store: the working store of all replicas, a sled database that is never the only copy.
//!
//! It holds what the machines of a node wrote, about a second behind `apply`, so that old events
//! and cold records need no memory. When its content is in doubt it is rebuilt from a checkpoint
//! and the log, while entries are applied. There is one database and one tree for all replicas;
//! keys begin with group and replica.
//!
//! Promise: changes become readable in order. The index up to which they are written is stored in
//! the same batch as the last of them. A database that does not open, fails or panics is moved
//! aside and a new one is created: no write of a client fails because of it.
//!
//! Refused: trust in sled's durability. Its `flush` does not reach the disk, so an fdatasync of
//! ours follows; values above 32 KiB are split, because sled would put large leaves into files that
//! it never syncs.
//!
//! After a kill or a loss of power the store is as of an earlier index, perhaps with parts of later
//! changes. Applying the log again writes those again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::blocking::lower_priority;
use crate::disk::GroupKey;
use crate::error::Fatal;
use crate::limits::{
    STORE_BATCH_BYTES, STORE_QUEUE_BYTES, STORE_QUEUE_LENGTH, STORE_REBUILD_BACKLOG_BYTES,
    STORE_REBUILD_HANDOVER_CHANGES,
};
use crate::machine::{ScanLimit, StoreWrite, WorkingStore};

mod database;
mod writer;

use database::Database;
use writer::Job;
pub(crate) use writer::write_size;

/// The working stores of all replicas of a node: one sled database, one writer thread.
pub struct StoreFiles {
    shared: Arc<StoreShared>,
    groups: Mutex<BTreeMap<GroupKey, Arc<GroupStore>>>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer and the stores of all replicas share.
struct StoreShared {
    dir: PathBuf,
    /// `None` while no new database can be created.
    database: Mutex<Option<Database>>,
    /// Increases when the database is replaced, so that errors and rebuilds of an older one are
    /// recognised.
    generation: AtomicU64,
    /// Bytes of changes of each replica that wait for the writer; `None` once it has ended.
    queued: Mutex<Option<BTreeMap<GroupKey, usize>>>,
    queue_space: Condvar,
    jobs: SyncSender<Job>,
    /// The writer, where it has no thread.
    #[cfg(any(test, feature = "testing"))]
    inline_writer: Mutex<Option<writer::StoreWriter>>,
}

impl StoreShared {
    fn database(&self) -> Result<Database, Fatal> {
        let database = self.database.lock().clone();
        database.ok_or_else(|| Fatal(format!("no working store in {}", self.dir.display())))
    }

    /// Sends changes of a replica to the writer once they and its queued ones are no more than
    /// `limit` bytes. Larger changes are sent when nothing of it is queued.
    fn enqueue(&self, group: GroupKey, bytes: usize, limit: usize, job: Job) {
        let mut queued = self.queued.lock();
        loop {
            let Some(all) = &mut *queued else { return };
            // Of this replica alone: one that changes much holds up no other.
            let own = all.entry(group).or_default();
            if *own == 0 || *own + bytes <= limit {
                *own += bytes;
                break;
            }
            self.queue_space.wait(&mut queued);
        }
        // Before sending: the channel may block, and the writer needs this lock to make space.
        drop(queued);
        self.send(job);
    }

    /// The writer has taken changes of this size off a replica's queue.
    fn release_queue(&self, group: GroupKey, bytes: usize) {
        let mut queued = self.queued.lock();
        if let Some(own) = queued.as_mut().and_then(|all| all.get_mut(&group)) {
            *own = own.saturating_sub(bytes);
        }
        self.queue_space.notify_all();
    }

    /// The writer has ended: callers that wait for space return.
    fn writer_ended(&self) {
        *self.queued.lock() = None;
        self.queue_space.notify_all();
    }

    fn send(&self, job: Job) {
        #[cfg(any(test, feature = "testing"))]
        if let Some(writer) = &mut *self.inline_writer.lock() {
            return writer.run_inline(job);
        }
        // The writer ends only when the store is dropped; what is sent later is not needed.
        let _ = self.jobs.send(job);
    }
}

impl StoreFiles {
    /// Opens the database in `dir`. One that does not open is moved aside and a new one is created;
    /// `stored()` of every replica is then 0.
    ///
    /// # Errors
    /// The error of the system when no database can be created.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let database = Database::open_or_create(dir).map_err(io::Error::other)?;
        let (jobs, receiver) = sync_channel(STORE_QUEUE_LENGTH);
        let shared = Arc::new(StoreShared {
            dir: dir.to_owned(),
            database: Mutex::new(Some(database)),
            generation: AtomicU64::new(0),
            queued: Mutex::new(Some(BTreeMap::new())),
            queue_space: Condvar::new(),
            jobs,
            #[cfg(any(test, feature = "testing"))]
            inline_writer: Mutex::default(),
        });
        let work = writer::StoreWriter::new(Arc::clone(&shared));
        #[cfg(any(test, feature = "testing"))]
        if crate::simulated::is_active() {
            *shared.inline_writer.lock() = Some(work);
            return Ok(Self { shared, groups: Mutex::default(), writer: None });
        }
        let run = move || {
            // It may lie behind: events stay in memory until it has them.
            lower_priority();
            work.run(&receiver);
        };
        let writer = std::thread::Builder::new().name("store".into()).spawn(run)?;
        Ok(Self { shared, groups: Mutex::default(), writer: Some(writer) })
    }

    /// The store of one replica: always the same object for the same replica.
    ///
    /// # Errors
    /// [`Fatal`] when there is no database.
    pub fn open_group(&self, group: GroupKey) -> Result<Arc<GroupStore>, Fatal> {
        // Held to the end, so that there is one object for a replica, and the writer knows it.
        let mut groups = self.groups.lock();
        if let Some(store) = groups.get(&group) {
            return Ok(Arc::clone(store));
        }
        let generation = self.shared.generation.load(Ordering::Acquire);
        let progress = match self.shared.database()?.progress(group) {
            Ok(progress) => progress,
            Err(reason) => {
                // The replica starts all the same, with a store that is to be rebuilt.
                self.shared.send(Job::DatabaseFailed(generation, reason));
                database::StoreProgress::default()
            }
        };
        let store = Arc::new(GroupStore {
            group,
            shared: Arc::clone(&self.shared),
            stored_index: Mutex::new(progress.index),
            stored_changed: Condvar::new(),
            submitted: AtomicU64::new(progress.index),
            lost: AtomicBool::new(progress.rebuilding),
            backlog: Mutex::default(),
            backlog_changed: Condvar::new(),
            on_lost: Mutex::default(),
        });
        groups.insert(group, Arc::clone(&store));
        self.shared.send(Job::Open(Arc::clone(&store)));
        Ok(store)
    }

    /// Size of the database's files in bytes.
    pub fn size_on_disk(&self) -> u64 {
        self.shared.database().map_or(0, |database| database.size())
    }
}

#[cfg(test)]
impl StoreFiles {
    /// Makes the database fail.
    pub(crate) fn fail(&self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        self.shared.send(Job::DatabaseFailed(generation, "a failure that a test requested".into()));
    }
}

impl Drop for StoreFiles {
    fn drop(&mut self) {
        self.shared.send(Job::Stop);
        // The inline writer and `shared` refer to each other; without this neither is dropped.
        #[cfg(any(test, feature = "testing"))]
        drop(self.shared.inline_writer.lock().take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the working store's writer panicked");
        }
    }
}

/// The working store of one replica.
pub struct GroupStore {
    group: GroupKey,
    shared: Arc<StoreShared>,
    /// The index up to which changes can be read.
    stored_index: Mutex<u64>,
    stored_changed: Condvar,
    /// The index up to which changes were given to the writer.
    submitted: AtomicU64,
    /// Whether the content must not be used.
    lost: AtomicBool,
    /// What is written during a rebuild.
    backlog: Mutex<Option<RebuildBacklog>>,
    /// Notified when `backlog` is taken or dropped.
    backlog_changed: Condvar,
    on_lost: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl GroupStore {
    /// Gives the writes of an index to the writer, which writes them within about a second.
    /// Changes of an index that is stored already are skipped. During a rebuild they are kept until
    /// it is finished, and a lost store ignores them. Blocks only while the queue is full. One
    /// caller at a time.
    pub fn write(self: &Arc<Self>, index: u64, writes: Vec<StoreWrite>) {
        let bytes = writes.iter().map(write_size).sum();
        // Skips what a replay after a restart applies again.
        if self.submitted.fetch_max(index, Ordering::AcqRel) >= index {
            return;
        }
        let mut backlog = self.backlog.lock();
        while backlog.as_ref().is_some_and(|backlog| backlog.is_full_for(bytes)) {
            self.backlog_changed.wait(&mut backlog);
        }
        // A rebuild is filled with the state of an earlier index; these changes follow it.
        if let Some(backlog) = &mut *backlog {
            return backlog.keep(bytes, index, writes);
        }
        drop(backlog);
        if !self.needs_rebuild() {
            let job = Job::Write(Arc::clone(self), index, writes);
            self.shared.enqueue(self.group, bytes, STORE_QUEUE_BYTES, job);
        }
    }

    /// Bytes of changes that wait for the writer.
    pub fn queued_bytes(&self) -> usize {
        let queued = self.shared.queued.lock();
        queued.as_ref().and_then(|all| all.get(&self.group)).copied().unwrap_or_default()
    }

    /// Makes the writer write at once, and waits until `index` can be read. `false`: that took
    /// longer than `timeout`, or the store is lost. Blocks.
    pub fn wait(&self, index: u64, timeout: Duration) -> bool {
        if self.stored() < index {
            self.shared.send(Job::Flush);
        }
        let deadline = Instant::now() + timeout;
        let mut stored_index = self.stored_index.lock();
        while *stored_index < index && !self.needs_rebuild() {
            if self.stored_changed.wait_until(&mut stored_index, deadline).timed_out() {
                break;
            }
        }
        *stored_index >= index
    }

    /// Whether the content must not be used: the database was lost, or a rebuild did not finish.
    /// Remains `true` until a [`StoreRebuild`] is finished.
    pub fn needs_rebuild(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Sets a callback that is called when this store is lost and must be rebuilt, on the thread of
    /// the writer or of whoever reports the loss. It must not block.
    pub fn on_lost(&self, lost: Box<dyn Fn() + Send + Sync>) {
        *self.on_lost.lock() = Some(lost);
    }

    /// Clears the replica's part and begins a rebuild from a checkpoint. What is written from now
    /// on is kept, and follows when the rebuild is finished. The state for the rebuild must
    /// therefore be taken after this call. Blocks. One at a time.
    ///
    /// # Errors
    /// [`Fatal`] when there is no database.
    pub fn rebuild(self: &Arc<Self>) -> Result<StoreRebuild, Fatal> {
        // First, so that `write` sends nothing more to the part that is cleared.
        self.set_lost();
        let (reply, started) = sync_channel(1);
        self.shared.send(Job::BeginRebuild(Arc::clone(self), reply));
        let generation = started.recv().map_err(|_| closed())??;
        *self.backlog.lock() = Some(RebuildBacklog::default());
        Ok(StoreRebuild { store: Arc::clone(self), generation, writes: Vec::new(), bytes: 0 })
    }

    /// Removes everything of this replica. Blocks.
    pub fn clear(self: &Arc<Self>) {
        let (reply, cleared) = sync_channel(1);
        self.shared.send(Job::Clear(Arc::clone(self), reply));
        // No answer means that the store is closing. What is left belongs to a replica id that is
        // never used again.
        let _ = cleared.recv();
    }

    fn set_stored(&self, index: u64) {
        *self.stored_index.lock() = index;
        self.stored_changed.notify_all();
    }

    /// Declares the content unusable: the database is gone, or the next changes will not follow
    /// what is stored. A rebuild in progress will fail.
    pub fn mark_lost(&self) {
        self.drop_backlog();
        self.set_lost();
        self.set_stored(0);
        if let Some(lost) = &*self.on_lost.lock() {
            lost();
        }
    }

    /// Ends a rebuild that has reached `index`. Returns what was written meanwhile and must be
    /// written next. `None`: the store was lost again.
    fn complete_rebuild(&self, index: u64) -> Option<Vec<(u64, Vec<StoreWrite>)>> {
        // Under one lock: a `write` comes either into this backlog or, once `lost` is false, to the
        // writer behind it. Either way the order of the indexes is kept.
        let mut backlog = self.backlog.lock();
        let backlog = backlog.take()?.writes;
        self.lost.store(false, Ordering::Release);
        self.set_stored(index);
        self.backlog_changed.notify_all();
        Some(backlog.into_iter().filter(|&(at, _)| at > index).collect())
    }

    fn set_lost(&self) {
        self.lost.store(true, Ordering::Release);
        // An index that was given to the old database must be given to the new one again.
        self.submitted.store(0, Ordering::Release);
    }

    fn drop_backlog(&self) {
        *self.backlog.lock() = None;
        self.backlog_changed.notify_all();
    }
}

/// Changes that are written during a rebuild, by index.
#[derive(Default)]
struct RebuildBacklog {
    /// Whether it has a bound. Not before the state for the rebuild is taken: whoever takes it may
    /// wait for the very entries whose changes would wait here.
    is_bounded: bool,
    bytes: usize,
    writes: Vec<(u64, Vec<StoreWrite>)>,
}

impl RebuildBacklog {
    fn is_full_for(&self, bytes: usize) -> bool {
        self.is_bounded && self.bytes > 0 && self.bytes + bytes > STORE_REBUILD_BACKLOG_BYTES
    }

    fn keep(&mut self, bytes: usize, index: u64, writes: Vec<StoreWrite>) {
        self.bytes += bytes;
        self.writes.push((index, writes));
    }
}

impl WorkingStore for GroupStore {
    fn stored(&self) -> u64 {
        *self.stored_index.lock()
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: ScanLimit) -> Result<Vec<(Bytes, Bytes)>, Fatal> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let scanned = self.shared.database()?.scan(self.group, from, to, limit);
        scanned.map_err(|reason| {
            self.shared.send(Job::DatabaseFailed(generation, reason.clone()));
            Fatal(reason)
        })
    }
}

fn closed() -> Fatal {
    Fatal("the working store is closing".into())
}

/// A rebuild of a store. If it is dropped before [`StoreRebuild::finish`], the store still needs a
/// rebuild.
pub struct StoreRebuild {
    store: Arc<GroupStore>,
    generation: u64,
    writes: Vec<StoreWrite>,
    bytes: usize,
}

impl StoreRebuild {
    /// The state for the rebuild is taken: from now on, who has more changes than the backlog holds
    /// waits for the rebuild.
    pub fn state_taken(&self) {
        if let Some(backlog) = &mut *self.store.backlog.lock() {
            backlog.is_bounded = true;
        }
    }

    /// Adds a change. Blocks while the queue is full. Errors of the database are reported by
    /// [`StoreRebuild::finish`].
    pub fn put(&mut self, write: StoreWrite) {
        self.bytes += write_size(&write);
        self.writes.push(write);
        if self.writes.len() >= STORE_REBUILD_HANDOVER_CHANGES || self.bytes >= STORE_BATCH_BYTES {
            self.enqueue();
        }
    }

    fn enqueue(&mut self) {
        let writes = std::mem::take(&mut self.writes);
        let bytes = std::mem::take(&mut self.bytes);
        let job = Job::RebuildPut(Arc::clone(&self.store), self.generation, writes);
        // What is applied meanwhile is kept in the backlog: apply does not wait for this.
        let store = &self.store;
        store.shared.enqueue(store.group, bytes, STORE_QUEUE_BYTES / 2, job);
    }

    /// Ends the rebuild: all changes up to `index` were added. Blocks until they can be read. What
    /// was written meanwhile follows.
    ///
    /// # Errors
    /// [`Fatal`] when the store was lost meanwhile: begin again.
    pub fn finish(mut self, index: u64) -> Result<(), Fatal> {
        self.enqueue();
        let (reply, finished) = sync_channel(1);
        let job = Job::FinishRebuild(Arc::clone(&self.store), self.generation, index, reply);
        self.store.shared.send(job);
        finished.recv().map_err(|_| closed())?
    }
}

impl Drop for StoreRebuild {
    fn drop(&mut self) {
        self.store.drop_backlog();
    }
}

#[cfg(test)]
mod tests;
