//! Store: sled, the working store, never the only copy.
//!
//! What the machines of a node wrote lies here some moments behind `apply`, so that old events and
//! cold records need no memory. It is filled again from a checkpoint and the log, while entries are
//! applied, whenever there is doubt. One database and one tree for all replicas; keys begin with
//! group and replica.
//!
//! Promise: changes become readable in order, and the mark that tells up to which index they are
//! is written in the same batch as the last of them. A database that does not open, fails or
//! panics is moved aside and a new one begun: no write of a client ever fails for it.
//!
//! Refused: sled's `flush` does not reach the disk, so it is followed by our own fdatasync; values
//! above 32 KiB are cut into parts, because sled would put large leaves into files it never syncs.
//!
//! After a kill or a loss of power the store is as of an earlier mark, or ahead of it by parts of
//! later changes: applying the log again writes those again.

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

use crate::disk::GroupKey;
use crate::error::Fatal;
use crate::limits::{
    STORE_BATCH_BYTES, STORE_KEPT_BYTES, STORE_PUT_CHANGES, STORE_QUEUE_BYTES, STORE_QUEUE_LENGTH,
};
use crate::machine::{Change, Store};

mod database;
mod writer;

use database::Database;
use writer::{Job, size_of};

/// The working stores of all replicas of a node: one sled database, one writer thread.
pub struct StoreFiles {
    shared: Arc<Shared>,
    groups: Mutex<BTreeMap<GroupKey, Arc<GroupStore>>>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer and the replicas' stores share.
struct Shared {
    dir: PathBuf,
    /// `None` while not even a new database can be made.
    database: Mutex<Option<Database>>,
    /// Rises when the database is replaced.
    generation: AtomicU64,
    /// Bytes of changes that wait for the writer; `None` once it has ended.
    queued: Mutex<Option<usize>>,
    room: Condvar,
    jobs: SyncSender<Job>,
    /// The writer, where it has no thread.
    #[cfg(any(test, feature = "testing"))]
    hand: Mutex<Option<writer::Writer>>,
}

impl Shared {
    fn database(&self) -> Result<Database, Fatal> {
        let database = self.database.lock().clone();
        database.ok_or_else(|| Fatal(format!("no working store in {}", self.dir.display())))
    }

    /// Sends changes to the writer once they and those that wait are no more than `most`. Changes
    /// that are larger than that are sent when none waits.
    fn hand_over(&self, bytes: usize, most: usize, job: Job) {
        let mut queued = self.queued.lock();
        while queued.is_some_and(|queued| queued > 0 && queued + bytes > most) {
            self.room.wait(&mut queued);
        }
        let Some(before) = *queued else { return };
        *queued = Some(before + bytes);
        drop(queued);
        self.send(job);
    }

    /// The writer took changes of this size.
    fn taken(&self, bytes: usize) {
        let mut queued = self.queued.lock();
        *queued = queued.map(|queued| queued - bytes);
        self.room.notify_all();
    }

    /// The writer has ended: nobody waits for it any more.
    fn ended(&self) {
        *self.queued.lock() = None;
        self.room.notify_all();
    }

    fn send(&self, job: Job) {
        #[cfg(any(test, feature = "testing"))]
        if let Some(writer) = &mut *self.hand.lock() {
            return writer.do_now(job);
        }
        // The writer ends only with the store; nobody waits for what comes after.
        let _ = self.jobs.send(job);
    }
}

impl StoreFiles {
    /// Opens the database below `dir`. One that does not open is moved aside and a new one started:
    /// every group then finds `stored()` 0.
    ///
    /// # Errors
    /// When not even a new one can be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let database = Database::open_or_begin(dir).map_err(io::Error::other)?;
        let (jobs, incoming) = sync_channel(STORE_QUEUE_LENGTH);
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            database: Mutex::new(Some(database)),
            generation: AtomicU64::new(0),
            queued: Mutex::new(Some(0)),
            room: Condvar::new(),
            jobs,
            #[cfg(any(test, feature = "testing"))]
            hand: Mutex::default(),
        });
        let work = writer::Writer::new(Arc::clone(&shared));
        #[cfg(any(test, feature = "testing"))]
        if crate::simulated::is_on() {
            *shared.hand.lock() = Some(work);
            return Ok(Self { shared, groups: Mutex::default(), writer: None });
        }
        let writer =
            std::thread::Builder::new().name("store".into()).spawn(move || work.run(&incoming))?;
        Ok(Self { shared, groups: Mutex::default(), writer: Some(writer) })
    }

    /// One replica's part of it. The same object for the same replica.
    ///
    /// # Errors
    /// When not even a new database can be made.
    pub fn open_group(&self, group: GroupKey) -> Result<Arc<GroupStore>, Fatal> {
        let mut groups = self.groups.lock();
        if let Some(store) = groups.get(&group) {
            return Ok(Arc::clone(store));
        }
        let generation = self.shared.generation.load(Ordering::Acquire);
        let mark = match self.shared.database()?.mark(group) {
            Ok(mark) => mark,
            Err(reason) => {
                self.shared.send(Job::Failed(generation, reason));
                database::Mark::default()
            }
        };
        let store = Arc::new(GroupStore {
            group,
            shared: Arc::clone(&self.shared),
            progress: Mutex::new(mark.index),
            moved: Condvar::new(),
            handed: AtomicU64::new(mark.index),
            lost: AtomicBool::new(mark.rebuilding),
            later: Mutex::default(),
            moved_on: Condvar::new(),
            on_lost: Mutex::default(),
        });
        groups.insert(group, Arc::clone(&store));
        self.shared.send(Job::Open(Arc::clone(&store)));
        Ok(store)
    }

    /// Bytes of the database's files.
    pub fn size_on_disk(&self) -> u64 {
        self.shared.database().map_or(0, |database| database.size())
    }
}

#[cfg(test)]
impl StoreFiles {
    /// The database fails now.
    pub(crate) fn fail(&self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        self.shared.send(Job::Failed(generation, "a test says so".into()));
    }
}

impl Drop for StoreFiles {
    fn drop(&mut self) {
        self.shared.send(Job::Stop);
        // It holds what holds it.
        #[cfg(any(test, feature = "testing"))]
        drop(self.shared.hand.lock().take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the working store's writer panicked");
        }
    }
}

/// One replica's working store.
pub struct GroupStore {
    group: GroupKey,
    shared: Arc<Shared>,
    /// The index up to which changes can be read.
    progress: Mutex<u64>,
    moved: Condvar,
    /// The index up to which changes were handed over.
    handed: AtomicU64,
    lost: AtomicBool,
    /// While it is rebuilt.
    later: Mutex<Option<Later>>,
    /// Rung when `later` is no more.
    moved_on: Condvar,
    on_lost: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl GroupStore {
    /// Hands over the changes of an index, to be written within about a second. Changes of an index
    /// already stored are skipped; while the store is rebuilt they are kept until that is finished,
    /// and a store that is lost ignores them. Blocks only while as much waits as may. One caller at
    /// a time.
    pub fn write(self: &Arc<Self>, index: u64, changes: Vec<Change>) {
        let bytes = changes.iter().map(size_of).sum();
        if self.handed.fetch_max(index, Ordering::AcqRel) >= index {
            return;
        }
        let mut later = self.later.lock();
        while later.as_ref().is_some_and(|later| later.is_full_for(bytes)) {
            self.moved_on.wait(&mut later);
        }
        if let Some(later) = &mut *later {
            return later.keep(bytes, index, changes);
        }
        drop(later);
        if !self.needs_rebuild() {
            let job = Job::Write(Arc::clone(self), index, changes);
            self.shared.hand_over(bytes, STORE_QUEUE_BYTES, job);
        }
    }

    /// Waits until `index` can be read, urging the writer. `false`: it did not come to that in
    /// time, or the store is lost. Blocks.
    pub fn wait(&self, index: u64, timeout: Duration) -> bool {
        if self.stored() < index {
            self.shared.send(Job::Urge);
        }
        let deadline = Instant::now() + timeout;
        let mut progress = self.progress.lock();
        while *progress < index && !self.needs_rebuild() {
            if self.moved.wait_until(&mut progress, deadline).timed_out() {
                break;
            }
        }
        *progress >= index
    }

    /// Whether what is stored cannot be used: the database was lost, or a rebuild did not finish.
    /// Stays so until [`GroupStore::rebuild`] was finished.
    pub fn needs_rebuild(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Calls `lost` (on a thread of the store) when the database fails and this replica must
    /// rebuild.
    pub fn on_lost(&self, lost: Box<dyn Fn() + Send + Sync>) {
        *self.on_lost.lock() = Some(lost);
    }

    /// Empties the replica's part and begins to fill it anew from a checkpoint. What is written
    /// from now on is kept and follows when that is finished: the checkpoint's state is to be taken
    /// after this. Blocks. One at a time.
    ///
    /// # Errors
    /// When not even a new database can be made.
    pub fn rebuild(self: &Arc<Self>) -> Result<Rebuild, Fatal> {
        self.hold_nothing();
        let (reply, begun) = sync_channel(1);
        self.shared.send(Job::Begin(Arc::clone(self), reply));
        let generation = begun.recv().map_err(|_| closed())??;
        *self.later.lock() = Some(Later::default());
        Ok(Rebuild { store: Arc::clone(self), generation, changes: Vec::new(), bytes: 0 })
    }

    /// Removes everything of this replica. Blocks.
    pub fn clear(self: &Arc<Self>) {
        let (reply, cleared) = sync_channel(1);
        self.shared.send(Job::Clear(Arc::clone(self), reply));
        // Without a writer the store is closing, and what is left is skipped when opened again.
        let _ = cleared.recv();
    }

    fn moved_to(&self, index: u64) {
        *self.progress.lock() = index;
        self.moved.notify_all();
    }

    /// Nothing that is stored can be used any more: the database is gone, or what comes next does
    /// not follow it. A rebuild under way comes to nothing.
    pub fn lose(&self) {
        self.keep_no_more();
        self.hold_nothing();
        self.moved_to(0);
        if let Some(lost) = &*self.on_lost.lock() {
            lost();
        }
    }

    /// A rebuild has brought the store to `index`: what was kept meanwhile, to be written next.
    /// `None`: it was lost again.
    fn rebuilt(&self, index: u64) -> Option<Vec<(u64, Vec<Change>)>> {
        let mut later = self.later.lock();
        let kept = later.take()?.changes;
        self.lost.store(false, Ordering::Release);
        self.moved_to(index);
        self.moved_on.notify_all();
        Some(kept.into_iter().filter(|&(at, _)| at > index).collect())
    }

    fn hold_nothing(&self) {
        self.lost.store(true, Ordering::Release);
        // Whatever is applied next is new to it.
        self.handed.store(0, Ordering::Release);
    }

    fn keep_no_more(&self) {
        *self.later.lock() = None;
        self.moved_on.notify_all();
    }
}

/// What is written while the store is rebuilt.
#[derive(Default)]
struct Later {
    bytes: usize,
    changes: Vec<(u64, Vec<Change>)>,
}

impl Later {
    fn is_full_for(&self, bytes: usize) -> bool {
        self.bytes > 0 && self.bytes + bytes > STORE_KEPT_BYTES
    }

    fn keep(&mut self, bytes: usize, index: u64, changes: Vec<Change>) {
        self.bytes += bytes;
        self.changes.push((index, changes));
    }
}

impl Store for GroupStore {
    fn stored(&self) -> u64 {
        *self.progress.lock()
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, Fatal> {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let scanned = self.shared.database()?.scan(self.group, from, to, limit);
        scanned.map_err(|reason| {
            self.shared.send(Job::Failed(generation, reason.clone()));
            Fatal(reason)
        })
    }
}

fn closed() -> Fatal {
    Fatal("the working store is closing".into())
}

/// A working store being filled anew. Dropped before [`Rebuild::finish`], the store still needs
/// one.
pub struct Rebuild {
    store: Arc<GroupStore>,
    generation: u64,
    changes: Vec<Change>,
    bytes: usize,
}

impl Rebuild {
    /// The next change. Blocks while the bounded queue is full. A failing database is noticed at
    /// the end.
    pub fn put(&mut self, change: Change) {
        self.bytes += size_of(&change);
        self.changes.push(change);
        if self.changes.len() >= STORE_PUT_CHANGES || self.bytes >= STORE_BATCH_BYTES {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        let bytes = std::mem::take(&mut self.bytes);
        let job = Job::Put(Arc::clone(&self.store), self.generation, changes);
        // Room is left for what is applied: that must not wait for a rebuild.
        self.store.shared.hand_over(bytes, STORE_QUEUE_BYTES / 2, job);
    }

    /// All changes up to `index` were put. Blocks until they can be read; what was written since
    /// follows by itself.
    ///
    /// # Errors
    /// When the store was lost meanwhile: begin again.
    pub fn finish(mut self, index: u64) -> Result<(), Fatal> {
        self.hand_over();
        let (reply, finished) = sync_channel(1);
        let job = Job::Finish(Arc::clone(&self.store), self.generation, index, reply);
        self.store.shared.send(job);
        finished.recv().map_err(|_| closed())?
    }
}

impl Drop for Rebuild {
    fn drop(&mut self) {
        self.store.keep_no_more();
    }
}

#[cfg(test)]
mod tests;
