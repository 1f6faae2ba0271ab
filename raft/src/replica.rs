//! Replica: one machine, how far it has applied, its checkpoints and its working store.
//!
//! Promise: entries reach the machine one after the other, each once; a panic or an error in it
//! stops this replica and nothing else, and nothing is applied after that. Everything here blocks
//! and is called from threads that may. A working store that fails, as on a full disk, stops
//! nothing: it stays lost until the keeper has filled it. Refused: applying anything out of order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::codec;
use model::mutant::{self, Mutant};
use openraft::EntryPayload;
use openraft::storage::ApplyResponder;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::consensus::{Entry, LogEntry, LogId, Reply, StoredMembership, Types, term_of};
use crate::disk::{CheckpointError, CheckpointMeta, Checkpoints, GroupKey, GroupStore, Pinned};
use crate::error::Fatal;
use crate::limits;
use crate::machine::{Change, Frozen, Machine, Store};

/// How far a replica is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// An entry and the proposer that waits for it, if it was proposed here.
pub(crate) type Item = (LogEntry, Option<ApplyResponder<Types>>);

/// Everything one replica keeps besides its log.
pub(crate) struct Replica {
    pub(crate) key: GroupKey,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) store: Arc<GroupStore>,
    seat: Mutex<Seat>,
    applied: watch::Sender<Applied>,
    /// Payload bytes applied since the last checkpoint.
    since_checkpoint: AtomicU64,
    /// Bytes since the last checkpoint from which on a new one is due.
    due_at: AtomicU64,
    due_min: u64,
    failure: Mutex<Option<Fatal>>,
    /// Somebody else would be helped by a checkpoint of this replica.
    nudged: AtomicBool,
    /// Rung when the keeper has something to do.
    pub(crate) bell: Arc<Notify>,
}

/// The machine and what it stands at; locked for as long as either is used.
struct Seat {
    machine: Box<dyn Machine>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// A state about to be written.
struct Prepared {
    meta: CheckpointMeta,
    frozen: Box<dyn Frozen>,
    /// What it covers of the bytes counted since the last one.
    bytes: u64,
}

impl Replica {
    pub(crate) fn new(
        key: GroupKey,
        mut machine: Box<dyn Machine>,
        checkpoints: Checkpoints,
        store: Arc<GroupStore>,
        due_min: u64,
    ) -> Self {
        machine.attach(store.clone());
        let bell = Arc::new(Notify::new());
        let ring = bell.clone();
        store.on_lost(Box::new(move || ring.notify_one()));
        let seat = Seat { machine, applied: None, membership: StoredMembership::default() };
        Self {
            key,
            checkpoints,
            store,
            seat: Mutex::new(seat),
            applied: watch::Sender::new(Applied::default()),
            since_checkpoint: AtomicU64::new(0),
            due_at: AtomicU64::new(jittered(due_min, key)),
            due_min,
            failure: Mutex::new(None),
            nudged: AtomicBool::new(false),
            bell,
        }
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// What openraft asks first.
    pub(crate) fn state(&self) -> (Option<LogId>, StoredMembership) {
        let seat = self.seat.lock();
        (seat.applied, seat.membership.clone())
    }

    /// Why it stopped, if it did.
    pub(crate) fn failure(&self) -> Option<Fatal> {
        self.failure.lock().clone()
    }

    /// Whether enough was applied since the last checkpoint.
    pub(crate) fn checkpoint_due(&self) -> bool {
        self.since_checkpoint.load(Ordering::Relaxed) >= self.due_at.load(Ordering::Relaxed)
    }

    /// Asks for a checkpoint although none is due: this replica's entries keep old log alive.
    pub(crate) fn nudge(&self) {
        self.nudged.store(true, Ordering::Relaxed);
        self.bell.notify_one();
    }

    pub(crate) fn take_nudge(&self) -> bool {
        self.nudged.swap(false, Ordering::Relaxed)
    }

    /// Gives the machine its newest checkpoint, if there is one. Returns that checkpoint's log id.
    pub(crate) fn restore_newest(&self) -> Result<Option<LogId>, Fatal> {
        match self.checkpoints.latest(self.key).map_err(fatal)? {
            Some(pinned) => self.restore(&pinned).map(Some),
            None => {
                if self.store.needs_rebuild() {
                    self.filled(self.begin_empty_store());
                }
                Ok(None)
            }
        }
    }

    /// Replaces the machine's state by a checkpoint's.
    pub(crate) fn restore(&self, pinned: &Pinned) -> Result<LogId, Fatal> {
        let id = self.guard("restoring a checkpoint", || {
            let mut seat = self.seat.lock();
            self.restore_into(&mut seat, pinned)
        })?;
        self.checkpoint_stands(pinned, u64::MAX);
        Ok(id)
    }

    fn restore_into(&self, seat: &mut Seat, pinned: &Pinned) -> Result<LogId, Fatal> {
        let meta = pinned.meta();
        let damaged = |error| Fatal(format!("{}: checkpoint {}: {error}", self.key, meta.index));
        let id: LogId = codec::decode(&meta.log_id).map_err(damaged)?;
        let membership = codec::decode(&meta.membership).map_err(damaged)?;
        if self.store.needs_rebuild() || self.store.stored() < meta.index {
            self.restore_both(seat, pinned)?;
        } else {
            seat.machine.restore(meta.index, pinned, None)?;
        }
        seat.applied = Some(id);
        seat.membership = membership;
        self.advance(id);
        Ok(id)
    }

    /// Restores the machine, and fills its store anew if that can be done now.
    fn restore_both(&self, seat: &mut Seat, pinned: &Pinned) -> Result<(), Fatal> {
        let index = pinned.meta().index;
        let filled = match self.store.rebuild() {
            Ok(mut rebuild) => {
                let mut put = |change: Change| rebuild.put(change);
                seat.machine.restore(index, pinned, Some(&mut put))?;
                rebuild.finish(index)
            }
            Err(error) => {
                seat.machine.restore(index, pinned, None)?;
                Err(error)
            }
        };
        self.filled(filled);
        Ok(())
    }

    fn begin_empty_store(&self) -> Result<(), Fatal> {
        self.store.rebuild()?.finish(0)
    }

    /// A store that could not be filled stays lost; the keeper, which was told, tries again.
    fn filled(&self, filled: Result<(), Fatal>) {
        if let Err(error) = filled {
            tracing::warn!(group = %self.key, %error, "the working store cannot be filled now");
        }
    }

    /// Applies entries in order and answers their proposers.
    pub(crate) fn apply(&self, items: Vec<Item>) -> Result<(), Fatal> {
        self.guard("applying an entry", || {
            let mut seat = self.seat.lock();
            for (entry, responder) in items {
                let reply = self.apply_one(&mut seat, &entry)?;
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
            Ok(())
        })?;
        if self.checkpoint_due() {
            self.bell.notify_one();
        }
        Ok(())
    }

    fn apply_one(&self, seat: &mut Seat, entry: &LogEntry) -> Result<Reply, Fatal> {
        let id = entry.log_id;
        let mut changes = Vec::new();
        let reply = match &entry.payload {
            EntryPayload::Blank => Reply(None),
            EntryPayload::Membership(membership) => {
                seat.membership = StoredMembership::new(Some(id), membership.clone());
                Reply(None)
            }
            EntryPayload::Normal(Entry(bytes)) => {
                self.since_checkpoint.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                // What the store holds was applied before this process began.
                let again = || id.index <= self.store.stored();
                if mutant::is(Mutant::ApplyTwiceAfterRestart) && again() {
                    seat.machine.apply(id.index, bytes, &mut Vec::new())?;
                }
                Reply(Some(seat.machine.apply(id.index, bytes, &mut changes)?))
            }
        };
        seat.applied = Some(id);
        self.store.write(id.index, changes);
        self.advance(id);
        Ok(reply)
    }

    /// Tells who waits for it. While a store is rebuilt, what was applied before stays applied.
    fn advance(&self, id: LogId) {
        let now = Applied { index: id.index, term: term_of(&id) };
        self.applied.send_if_modified(|applied| {
            let forward = (now.term, now.index) > (applied.term, applied.index);
            if forward {
                *applied = now;
            }
            forward
        });
    }

    /// Writes the present state as a checkpoint and returns it; the newest one if nothing changed
    /// since, none if nothing was ever applied. One at a time.
    pub(crate) fn write_checkpoint(&self) -> Result<Option<Pinned>, CheckpointError> {
        // Not held while writing: entries are applied meanwhile.
        let prepared = self.prepare(&self.seat.lock());
        let Some(prepared) = prepared else { return Ok(self.checkpoints.newest(self.key)) };
        let index = prepared.meta.index;
        let pinned = self.write(prepared)?;
        // A failure in it is found by the next apply, which refuses.
        let _ = self.guard("letting go of what a checkpoint holds", || {
            self.seat.lock().machine.checkpointed(index);
            Ok(())
        });
        Ok(pinned)
    }

    /// The state to be written, unless the newest checkpoint is of this very state.
    fn prepare(&self, seat: &Seat) -> Option<Prepared> {
        let id = seat.applied?;
        let newest = self.checkpoints.newest(self.key);
        if newest.is_some_and(|newest| newest.meta().index >= id.index) {
            return None;
        }
        let meta = CheckpointMeta {
            index: id.index,
            term: term_of(&id),
            log_id: codec::encode(&id).into(),
            membership: codec::encode(&seat.membership).into(),
            extra: bytes::Bytes::new(),
        };
        let bytes = self.since_checkpoint.load(Ordering::Relaxed);
        Some(Prepared { meta, frozen: seat.machine.freeze(), bytes })
    }

    fn write(&self, prepared: Prepared) -> Result<Option<Pinned>, CheckpointError> {
        self.checkpoints.write(self.key, prepared.meta, prepared.frozen)?;
        let pinned = self.checkpoints.newest(self.key);
        if let Some(pinned) = &pinned {
            self.checkpoint_stands(pinned, prepared.bytes);
        }
        Ok(pinned)
    }

    /// Fills a lost store anew while the replica runs, from a checkpoint of its very state: nobody
    /// sees the machine go back. Nothing is applied meanwhile. Where the checkpoint cannot be
    /// written or the store not be filled the store stays lost, and it can be tried again.
    pub(crate) fn mend_store(&self) -> Result<(), Fatal> {
        let mut seat = self.seat.lock();
        let written = match self.prepare(&seat) {
            Some(prepared) => self.write(prepared),
            None => Ok(self.checkpoints.newest(self.key)),
        };
        match written {
            Ok(Some(pinned)) => {
                self.guard("filling the store anew", || self.restore_into(&mut seat, &pinned))?;
            }
            Ok(None) => self.filled(self.begin_empty_store()),
            Err(error) => {
                tracing::warn!(group = %self.key, %error, "no checkpoint to fill the store from");
            }
        }
        Ok(())
    }

    /// Counts anew from a checkpoint that covers `bytes` of what was applied.
    fn checkpoint_stands(&self, pinned: &Pinned, bytes: u64) {
        let state: u64 = pinned.chunks().iter().map(|chunk| chunk.len).sum();
        self.due_at.store(jittered(self.due_min.max(state / 4), self.key), Ordering::Relaxed);
        let count = |since: u64| Some(since.saturating_sub(bytes));
        let _ = self.since_checkpoint.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// Makes a checkpoint that came from elsewhere this replica's own. It may already be.
    pub(crate) fn adopt(&self, pinned: &Pinned) -> Result<Pinned, CheckpointError> {
        let manifest = pinned.manifest();
        if let Some(newest) = self.checkpoints.newest(self.key)
            && newest.manifest() == manifest
        {
            return Ok(newest);
        }
        let mut incoming = self.checkpoints.incoming(self.key, &manifest)?;
        for chunk in incoming.missing() {
            let mut offset = 0;
            while offset < chunk.len {
                let left = usize::try_from(chunk.len - offset).unwrap_or(usize::MAX);
                let len = left.min(limits::CHECKPOINT_PIECE_BYTES);
                let piece = pinned.piece(chunk.hash, offset, len)?;
                incoming.put_chunk(chunk.hash, offset, &piece)?;
                offset += piece.len() as u64;
            }
        }
        incoming.finish()?;
        self.checkpoints.newest(self.key).ok_or_else(|| CheckpointError::Piece {
            reason: "the adopted checkpoint is gone".to_owned(),
        })
    }

    /// Runs the machine. What it fails with, panics included, is the end of this replica.
    fn guard<T>(&self, doing: &str, run: impl FnOnce() -> Result<T, Fatal>) -> Result<T, Fatal> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let words = panic
                .downcast_ref::<&str>()
                .map(|words| (*words).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no words".to_owned());
            Err(Fatal(format!("{}: panic while {doing}: {words}", self.key)))
        });
        if let Err(failure) = &result {
            tracing::error!(group = %self.key, %failure, "this replica stops: {doing} failed");
            *self.failure.lock() = Some(failure.clone());
        }
        result
    }
}

/// Spreads the groups of a node, so that they do not all write checkpoints at once.
fn jittered(bytes: u64, key: GroupKey) -> u64 {
    let spread = (u64::from(key.group) * 7 + key.replica * 3) % 32;
    bytes.saturating_add(bytes / 128 * spread)
}

fn fatal(error: impl std::fmt::Display) -> Fatal {
    Fatal(error.to_string())
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::consensus::log_id;
    use crate::disk::StoreFiles;
    use crate::testing::Tally;

    #[test]
    fn checkpoints_of_a_node_are_spread_but_never_early() {
        let due: Vec<u64> = (0..64)
            .map(|group| jittered(16 << 20, GroupKey { group, replica: u64::from(group) + 100 }))
            .collect();
        assert!(due.iter().all(|&bytes| ((16 << 20)..(20 << 20)).contains(&bytes)));
        let mut distinct = due;
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 8, "{distinct:?}");
    }

    struct Desk {
        replica: Replica,
        tally: Tally,
        /// Whether the disk has no room for what a store is filled with.
        is_full: Arc<AtomicBool>,
        _files: Arc<StoreFiles>,
        _dir: tempfile::TempDir,
    }

    fn desk() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let key = GroupKey { group: 1, replica: 1 };
        let checkpoints = Checkpoints::open(&dir.path().join("checkpoints")).unwrap();
        let files = Arc::new(StoreFiles::open(&dir.path().join("store")).unwrap());
        let store = files.open_group(key).unwrap();
        let (tally, is_full) = (Tally::new(), Arc::new(AtomicBool::new(false)));
        let machine = OnFullDisk(tally.clone(), files.clone(), is_full.clone());
        let replica = Replica::new(key, Box::new(machine), checkpoints, store, 1 << 20);
        assert_eq!(replica.restore_newest().unwrap(), None);
        Desk { replica, tally, is_full, _files: files, _dir: dir }
    }

    /// A tally whose store fails each time it is filled, while the disk is full.
    struct OnFullDisk(Tally, Arc<StoreFiles>, Arc<AtomicBool>);

    impl Machine for OnFullDisk {
        fn apply(
            &mut self,
            index: u64,
            entry: &[u8],
            changes: &mut Vec<Change>,
        ) -> Result<crate::machine::Answer, Fatal> {
            self.0.apply(index, entry, changes)
        }

        fn freeze(&self) -> Box<dyn Frozen> {
            self.0.freeze()
        }

        fn restore(
            &mut self,
            index: u64,
            source: &dyn crate::machine::ChunkSource,
            rebuild: Option<&mut dyn FnMut(Change)>,
        ) -> Result<(), Fatal> {
            self.0.restore(index, source, rebuild)?;
            if self.2.load(Ordering::Relaxed) {
                self.1.fail();
            }
            Ok(())
        }

        fn checkpointed(&mut self, index: u64) {
            self.0.checkpointed(index);
        }

        fn attach(&mut self, store: Arc<dyn Store>) {
            self.0.attach(store);
        }
    }

    fn entries(indexes: std::ops::Range<u64>) -> Vec<Item> {
        let entry = |index: u64| Entry(index.to_string().into());
        indexes.map(|index| (LogEntry::new_normal(log_id(1, index), entry(index)), None)).collect()
    }

    #[test]
    fn a_store_that_was_lost_while_running_is_filled_anew_and_the_machine_does_not_go_back() {
        let desk = desk();
        desk.replica.apply(entries(0..100)).unwrap();
        desk.replica.write_checkpoint().unwrap();
        desk.replica.apply(entries(100..150)).unwrap();
        drop(desk.replica.store.rebuild().unwrap());
        assert!(desk.replica.store.needs_rebuild());
        desk.replica.mend_store().unwrap();
        assert!(!desk.replica.store.needs_rebuild());
        assert_eq!(desk.replica.state().0, Some(log_id(1, 149)));
        assert_eq!(desk.tally.count(), 150);
        desk.replica.apply(entries(150..160)).unwrap();
        assert!(desk.replica.store.wait(159, std::time::Duration::from_secs(60)));
        let stored = desk.replica.store.scan(&[], &[0xff; 9], usize::MAX).unwrap();
        let stored: Vec<bytes::Bytes> = stored.into_iter().map(|(_, value)| value).collect();
        assert_eq!(stored, desk.tally.entries());
    }

    #[test]
    fn a_store_that_cannot_be_filled_stops_no_replica_and_is_filled_once_it_can_be() {
        let desk = desk();
        desk.replica.apply(entries(0..100)).unwrap();
        desk.replica.write_checkpoint().unwrap();
        drop(desk.replica.store.rebuild().unwrap());
        desk.is_full.store(true, Ordering::Relaxed);
        for _ in 0..10 {
            desk.replica.mend_store().unwrap();
            assert!(desk.replica.store.needs_rebuild());
        }
        desk.replica.apply(entries(100..150)).unwrap();
        assert_eq!((desk.replica.failure(), desk.tally.count()), (None, 150));
        assert!(desk.replica.restore_newest().unwrap().is_some(), "it also starts so");
        desk.replica.apply(entries(100..150)).unwrap();
        desk.is_full.store(false, Ordering::Relaxed);
        desk.replica.mend_store().unwrap();
        assert!(!desk.replica.store.needs_rebuild());
        let stored = desk.replica.store.scan(&[], &[0xff; 9], usize::MAX).unwrap();
        assert_eq!(stored.len(), 150);
    }

    #[test]
    fn after_a_failure_nothing_is_applied_any_more_and_the_reason_stays() {
        let desk = desk();
        desk.replica.apply(entries(0..3)).unwrap();
        let poison = LogEntry::new_normal(log_id(1, 3), Entry("panic".into()));
        let failure = desk.replica.apply(vec![(poison, None)]).unwrap_err();
        assert!(failure.0.contains("panic while applying an entry: asked to"), "{failure}");
        assert_eq!(desk.replica.apply(entries(4..5)), Err(failure.clone()));
        assert_eq!(desk.replica.failure(), Some(failure));
        assert_eq!(desk.tally.count(), 3);
    }
}
