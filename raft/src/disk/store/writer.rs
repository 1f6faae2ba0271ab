//! StoreWriter: the one thread that changes the database.
//!
//! It buffers changes for about a second, so that of one key only the last change is written.
//! Promise: a database call that fails or panics replaces the database and tells every replica.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Instant;

use bytes::Bytes;

use super::database::{Database, StoreProgress};
use super::{GroupStore, StoreShared};
use crate::disk::GroupKey;
use crate::error::Fatal;
use crate::limits::{STORE_BUFFER_BYTES, STORE_BUFFER_TIME};
use crate::machine::StoreWrite;

/// Bytes that an inline writer buffers.
#[cfg(any(test, feature = "testing"))]
const INLINE_BUFFER_BYTES: usize = 4 << 10;

/// A job for the writer.
pub(super) enum Job {
    Open(Arc<GroupStore>),
    Write(Arc<GroupStore>, u64, Vec<StoreWrite>),
    Flush,
    BeginRebuild(Arc<GroupStore>, SyncSender<Result<u64, Fatal>>),
    RebuildPut(Arc<GroupStore>, u64, Vec<StoreWrite>),
    FinishRebuild(Arc<GroupStore>, u64, u64, SyncSender<Result<(), Fatal>>),
    Clear(Arc<GroupStore>, SyncSender<()>),
    /// A reader got an error from the database of this generation.
    DatabaseFailed(u64, String),
    Stop,
}

pub(super) struct StoreWriter {
    shared: Arc<StoreShared>,
    groups: BTreeMap<GroupKey, Arc<GroupStore>>,
    buffered: BTreeMap<GroupKey, BufferedChanges>,
    bytes: usize,
    /// When the oldest buffered change came.
    since: Option<Instant>,
}

/// Changes of one replica that are not written yet: the last one of each key.
#[derive(Default)]
struct BufferedChanges {
    index: u64,
    writes: BTreeMap<Bytes, StoreWrite>,
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.shared.writer_ended();
    }
}

impl StoreWriter {
    pub(super) fn new(shared: Arc<StoreShared>) -> Self {
        Self { shared, groups: BTreeMap::new(), buffered: BTreeMap::new(), bytes: 0, since: None }
    }

    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let due = self.since.map(|since| STORE_BUFFER_TIME.saturating_sub(since.elapsed()));
            let job = match due {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => jobs.recv_timeout(due),
            };
            match job {
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return self.flush_buffer(),
                Ok(job) => self.handle(job),
                Err(RecvTimeoutError::Timeout) => self.flush_buffer(),
            }
            if self.bytes >= STORE_BUFFER_BYTES {
                self.flush_buffer();
            }
        }
    }

    /// For an inline writer: handles a job, and writes the buffer once it is a page or the store
    /// closes.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn run_inline(&mut self, job: Job) {
        let stops = matches!(job, Job::Stop);
        self.handle(job);
        if stops || self.bytes >= INLINE_BUFFER_BYTES {
            self.flush_buffer();
        }
    }

    fn handle(&mut self, job: Job) {
        match job {
            Job::Open(store) => {
                self.groups.insert(store.group, store);
            }
            Job::Write(store, index, writes) => {
                self.shared.release_queue(store.group, writes.iter().map(write_size).sum());
                self.buffer(&store, index, writes);
            }
            Job::Flush => self.flush_buffer(),
            Job::BeginRebuild(store, reply) => {
                let started = self.begin(&store);
                let _ = reply.send(started); // Who no longer waits begins again.
            }
            Job::RebuildPut(store, generation, writes) => {
                self.shared.release_queue(store.group, writes.iter().map(write_size).sum());
                self.put(&store, generation, writes);
            }
            Job::FinishRebuild(store, generation, index, reply) => {
                let finished = self.finish(&store, generation, index);
                let _ = reply.send(finished); // Who no longer waits begins again.
            }
            Job::Clear(store, reply) => {
                // What is buffered would be written behind the clearing.
                self.buffered.remove(&store.group);
                self.with_database(|database| database.clear(store.group));
                store.submitted.store(0, Ordering::Release);
                store.set_stored(0);
                let _ = reply.send(());
            }
            Job::DatabaseFailed(generation, reason) => {
                // Many readers may report the same failure; the new database is not to blame.
                if generation == self.shared.generation.load(Ordering::Acquire) {
                    self.replace_database(&reason);
                }
            }
            Job::Stop => {}
        }
    }

    fn buffer(&mut self, store: &Arc<GroupStore>, index: u64, writes: Vec<StoreWrite>) {
        // Sent before the store was lost: a rebuild will bring these changes.
        if store.needs_rebuild() {
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        let buffered = self.buffered.entry(store.group).or_default();
        buffered.index = index;
        for write in writes {
            self.bytes += write_size(&write);
            let (StoreWrite::Put(name, _) | StoreWrite::Delete(name)) = &write;
            let before = buffered.writes.insert(name.clone(), write);
            self.bytes -= before.as_ref().map_or(0, write_size);
        }
    }

    fn flush_buffer(&mut self) {
        self.since = None;
        self.bytes = 0;
        let buffered = std::mem::take(&mut self.buffered);
        if buffered.is_empty() {
            return;
        }
        let mut indexes = Vec::with_capacity(buffered.len());
        // One replica after the other: the index of a replica is in the batch of its last change.
        for (group, buffered) in buffered {
            let progress = StoreProgress { index: buffered.index, rebuilding: false };
            let writes = buffered.writes.into_values();
            if !self.with_database(|database| database.write(group, writes, Some(progress))) {
                return;
            }
            indexes.push((group, buffered.index));
        }
        // Only after all are written: if the database fails in between, every store is lost, and no
        // index must be reported afterwards.
        for (group, index) in indexes {
            if let Some(store) = self.groups.get(&group) {
                store.set_stored(index);
            }
        }
        self.with_database(Database::sync);
    }

    fn begin(&mut self, store: &Arc<GroupStore>) -> Result<u64, Fatal> {
        self.buffered.remove(&store.group);
        // Stored with the flag: after a crash the half-filled part is recognised.
        let progress = StoreProgress { index: 0, rebuilding: true };
        let started = self.with_database(|database| {
            database.clear(store.group)?;
            database.write(store.group, [], Some(progress))
        });
        store.set_stored(0);
        let generation = self.shared.generation.load(Ordering::Acquire);
        if started { Ok(generation) } else { Err(failed()) }
    }

    fn put(&mut self, store: &Arc<GroupStore>, generation: u64, writes: Vec<StoreWrite>) {
        if self.shared.generation.load(Ordering::Acquire) == generation {
            self.with_database(|database| database.write(store.group, writes, None));
        }
    }

    fn finish(
        &mut self,
        store: &Arc<GroupStore>,
        generation: u64,
        index: u64,
    ) -> Result<(), Fatal> {
        if self.shared.generation.load(Ordering::Acquire) != generation {
            return Err(failed());
        }
        let progress = StoreProgress { index, rebuilding: false };
        let finished = self.with_database(|database| {
            database.write(store.group, [], Some(progress))?;
            database.sync()
        });
        // After the flag is cleared on disk. The backlog comes behind the rebuild in the buffer.
        let backlog = if finished { store.complete_rebuild(index) } else { None };
        for (index, writes) in backlog.ok_or_else(failed)? {
            self.buffer(store, index, writes);
        }
        Ok(())
    }

    /// Calls the database and replaces it if that fails. Returns whether it succeeded.
    fn with_database(&mut self, calls: impl FnOnce(&Database) -> Result<(), String>) -> bool {
        let result = match self.shared.database() {
            Ok(database) => catch_unwind(AssertUnwindSafe(|| calls(&database)))
                .unwrap_or_else(|_| Err("the working store's writer panicked".to_owned())),
            Err(fatal) => Err(fatal.0),
        };
        match result {
            Ok(()) => true,
            Err(reason) => {
                self.replace_database(&reason);
                false
            }
        }
    }

    /// Moves a failed database aside, creates a new one, and tells every replica to rebuild.
    fn replace_database(&mut self, reason: &str) {
        let dir = &self.shared.dir;
        tracing::error!(dir = %dir.display(), reason, "the working store failed and is replaced");
        self.buffered.clear();
        let mut slot = self.shared.database.lock();
        if let Some(failed) = slot.take() {
            failed.abandon();
        }
        match Database::create_new(dir) {
            Ok(database) => *slot = Some(database),
            Err(reason) => tracing::error!(reason, "no new working store could be made"),
        }
        drop(slot);
        // Before the replicas are told: a rebuild that they begin must get the new generation.
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        self.groups.values().for_each(|store| store.mark_lost());
    }
}

/// Bytes that a change takes in the queue.
pub(crate) fn write_size(write: &StoreWrite) -> usize {
    match write {
        StoreWrite::Put(name, value) => name.len() + value.len(),
        StoreWrite::Delete(name) => name.len(),
    }
}

fn failed() -> Fatal {
    Fatal("the working store was lost meanwhile".into())
}
