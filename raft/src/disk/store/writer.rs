//! Writer: the one thread that changes the database: gathers for about a second, then writes.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Instant;

use bytes::Bytes;

use super::database::{Database, Mark};
use super::{GroupStore, Shared};
use crate::disk::GroupKey;
use crate::error::Fatal;
use crate::limits::{STORE_GATHER, STORE_GATHER_BYTES};
use crate::machine::Change;

/// Bytes gathered by a writer without a thread.
#[cfg(any(test, feature = "testing"))]
const BY_HAND_BYTES: usize = 4 << 10;

/// What the writer is asked.
pub(super) enum Job {
    Open(Arc<GroupStore>),
    Write(Arc<GroupStore>, u64, Vec<Change>),
    Urge,
    Begin(Arc<GroupStore>, SyncSender<Result<u64, Fatal>>),
    Put(Arc<GroupStore>, u64, Vec<Change>),
    Finish(Arc<GroupStore>, u64, u64, SyncSender<Result<(), Fatal>>),
    Clear(Arc<GroupStore>, SyncSender<()>),
    /// A reader met an error in the database of this generation.
    Failed(u64, String),
    Stop,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    groups: BTreeMap<GroupKey, Arc<GroupStore>>,
    gathered: BTreeMap<GroupKey, Gathered>,
    bytes: usize,
    /// When the oldest gathered change came.
    since: Option<Instant>,
}

/// Changes of one replica that are not written yet; of one key the last.
#[derive(Default)]
struct Gathered {
    index: u64,
    changes: BTreeMap<Bytes, Change>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.ended();
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, groups: BTreeMap::new(), gathered: BTreeMap::new(), bytes: 0, since: None }
    }

    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let due = self.since.map(|since| STORE_GATHER.saturating_sub(since.elapsed()));
            let job = match due {
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => jobs.recv_timeout(due),
            };
            match job {
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return self.write_out(),
                Ok(job) => self.take(job),
                Err(RecvTimeoutError::Timeout) => self.write_out(),
            }
            if self.bytes >= STORE_GATHER_BYTES {
                self.write_out();
            }
        }
    }

    /// Without a thread: what was gathered is written once it is a page or somebody waits.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn do_now(&mut self, job: Job) {
        let stops = matches!(job, Job::Stop);
        self.take(job);
        if stops || self.bytes >= BY_HAND_BYTES {
            self.write_out();
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Open(store) => {
                self.groups.insert(store.group, store);
            }
            Job::Write(store, index, changes) => {
                self.shared.taken(changes.iter().map(size_of).sum());
                self.gather(&store, index, changes);
            }
            Job::Urge => self.write_out(),
            Job::Begin(store, reply) => {
                let begun = self.begin(&store);
                let _ = reply.send(begun); // Who no longer waits begins again.
            }
            Job::Put(store, generation, changes) => {
                self.shared.taken(changes.iter().map(size_of).sum());
                self.put(&store, generation, changes);
            }
            Job::Finish(store, generation, index, reply) => {
                let finished = self.finish(&store, generation, index);
                let _ = reply.send(finished); // Who no longer waits begins again.
            }
            Job::Clear(store, reply) => {
                self.gathered.remove(&store.group);
                self.attempt(|database| database.clear(store.group));
                store.handed.store(0, Ordering::Release);
                store.moved_to(0);
                let _ = reply.send(());
            }
            Job::Failed(generation, reason) => {
                if generation == self.shared.generation.load(Ordering::Acquire) {
                    self.replace(&reason);
                }
            }
            Job::Stop => {}
        }
    }

    fn gather(&mut self, store: &Arc<GroupStore>, index: u64, changes: Vec<Change>) {
        if store.needs_rebuild() {
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        let gathered = self.gathered.entry(store.group).or_default();
        gathered.index = index;
        for change in changes {
            self.bytes += size_of(&change);
            let (Change::Put(name, _) | Change::Delete(name)) = &change;
            gathered.changes.insert(name.clone(), change);
        }
    }

    fn write_out(&mut self) {
        self.since = None;
        self.bytes = 0;
        let gathered = std::mem::take(&mut self.gathered);
        if gathered.is_empty() {
            return;
        }
        let mut indexes = Vec::with_capacity(gathered.len());
        for (group, gathered) in gathered {
            let mark = Mark { index: gathered.index, rebuilding: false };
            let changes = gathered.changes.into_values();
            if !self.attempt(|database| database.write(group, changes, Some(mark))) {
                return;
            }
            indexes.push((group, gathered.index));
        }
        for (group, index) in indexes {
            if let Some(store) = self.groups.get(&group) {
                store.moved_to(index);
            }
        }
        self.attempt(Database::sync);
    }

    fn begin(&mut self, store: &Arc<GroupStore>) -> Result<u64, Fatal> {
        self.gathered.remove(&store.group);
        let mark = Mark { index: 0, rebuilding: true };
        let begun = self.attempt(|database| {
            database.clear(store.group)?;
            database.write(store.group, [], Some(mark))
        });
        store.moved_to(0);
        let generation = self.shared.generation.load(Ordering::Acquire);
        if begun { Ok(generation) } else { Err(failed()) }
    }

    fn put(&mut self, store: &Arc<GroupStore>, generation: u64, changes: Vec<Change>) {
        if self.shared.generation.load(Ordering::Acquire) == generation {
            self.attempt(|database| database.write(store.group, changes, None));
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
        let mark = Mark { index, rebuilding: false };
        let finished = self.attempt(|database| {
            database.write(store.group, [], Some(mark))?;
            database.sync()
        });
        let kept = if finished { store.rebuilt(index) } else { None };
        for (index, changes) in kept.ok_or_else(failed)? {
            self.gather(store, index, changes);
        }
        Ok(())
    }

    /// Calls the database; if it fails it is replaced. Whether it did not.
    fn attempt(&mut self, calls: impl FnOnce(&Database) -> Result<(), String>) -> bool {
        let result = match self.shared.database() {
            Ok(database) => catch_unwind(AssertUnwindSafe(|| calls(&database)))
                .unwrap_or_else(|_| Err("the working store's writer panicked".to_owned())),
            Err(fatal) => Err(fatal.0),
        };
        match result {
            Ok(()) => true,
            Err(reason) => {
                self.replace(&reason);
                false
            }
        }
    }

    /// The database failed: it is moved aside, a new one begun, and every replica told to fill it.
    fn replace(&mut self, reason: &str) {
        let dir = &self.shared.dir;
        tracing::error!(dir = %dir.display(), reason, "the working store failed and is begun anew");
        self.gathered.clear();
        let mut slot = self.shared.database.lock();
        if let Some(failed) = slot.take() {
            failed.abandon();
        }
        match Database::begin_anew(dir) {
            Ok(database) => *slot = Some(database),
            Err(reason) => tracing::error!(reason, "no new working store could be made"),
        }
        drop(slot);
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        self.groups.values().for_each(|store| store.lose());
    }
}

/// Bytes a change takes while it waits.
pub(super) fn size_of(change: &Change) -> usize {
    match change {
        Change::Put(name, value) => name.len() + value.len(),
        Change::Delete(name) => name.len(),
    }
}

fn failed() -> Fatal {
    Fatal("the working store was lost meanwhile".into())
}
