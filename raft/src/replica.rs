//! Replica: one machine, how far it has applied, its checkpoints and its working store.
//!
//! Promise: entries reach the machine one after the other, each once; a panic or an error in it
//! stops this replica and nothing else, and nothing is applied after that. Everything here blocks
//! and is called from threads that may. A working store that fails, as on a full disk, stops
//! nothing: it stays lost until the keeper has filled it, while entries are applied. Refused:
//! applying anything out of order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use model::codec;
use model::mutant::{self, Mutant};
use openraft::EntryPayload;
use openraft::storage::ApplyResponder;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::consensus::{Entry, LogEntry, LogId, Reply, StoredMembership, Types, term_of};
use crate::disk::{CheckpointError, CheckpointMeta, Checkpoints, GroupKey, GroupStore, Pinned};
use crate::error::Fatal;
use crate::limits;
use crate::machine::{ChunkSource, Frozen, Machine, Store};

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
    /// When a leader was last heard here; at first, when this replica started.
    heard_leader: Mutex<Instant>,
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
            heard_leader: Mutex::new(Instant::now()),
            nudged: AtomicBool::new(false),
            bell,
        }
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// A leader this replica accepts was heard.
    pub(crate) fn hear_leader(&self) {
        *self.heard_leader.lock() = Instant::now();
    }

    /// How long no leader was heard.
    pub(crate) fn leader_silence(&self) -> Duration {
        self.heard_leader.lock().elapsed()
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

    /// Gives the machine its newest checkpoint of which it reads no damaged chunk, if there is one.
    /// Returns that checkpoint's log id.
    pub(crate) fn restore_newest(&self) -> Result<Option<LogId>, Fatal> {
        let restored = self.guard("restoring the newest checkpoint", || {
            let mut seat = self.seat.lock();
            let restore = |meta: &CheckpointMeta, source: &dyn ChunkSource| {
                seat.machine.restore(meta.index, source)
            };
            let loaded = self.checkpoints.load(self.key, restore).map_err(fatal)?;
            let Some((pinned, loaded)) = loaded else { return Ok(None) };
            loaded?;
            self.stand_at(&mut seat, &pinned).map(Some)
        })?;
        if restored.is_none() && self.store.needs_rebuild() {
            self.bell.notify_one();
        }
        Ok(restored)
    }

    /// Replaces the machine's state by a checkpoint's.
    pub(crate) fn restore(&self, pinned: &Pinned) -> Result<LogId, Fatal> {
        self.guard("restoring a checkpoint", || {
            let mut seat = self.seat.lock();
            let index = pinned.meta().index;
            pinned.read(|source| seat.machine.restore(index, source)).map_err(fatal)??;
            self.stand_at(&mut seat, pinned)
        })
    }

    /// The machine's state is a checkpoint's now.
    fn stand_at(&self, seat: &mut Seat, pinned: &Pinned) -> Result<LogId, Fatal> {
        let meta = pinned.meta();
        let damaged = |error| Fatal(format!("{}: checkpoint {}: {error}", self.key, meta.index));
        let id: LogId = codec::decode_as(codec::Kind::RaftLogId, &meta.log_id).map_err(damaged)?;
        seat.membership =
            codec::decode_as(codec::Kind::RaftMembership, &meta.membership).map_err(damaged)?;
        seat.applied = Some(id);
        // What is between is handed to no store any more.
        if self.store.stored() < meta.index {
            self.store.lose();
        }
        self.advance(id);
        self.checkpoint_stands(u64::MAX);
        Ok(id)
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
            log_id: codec::encode_as(codec::Kind::RaftLogId, &id).into(),
            membership: codec::encode_as(codec::Kind::RaftMembership, &seat.membership).into(),
            extra: bytes::Bytes::new(),
        };
        let bytes = self.since_checkpoint.load(Ordering::Relaxed);
        Some(Prepared { meta, frozen: seat.machine.freeze(), bytes })
    }

    fn write(&self, prepared: Prepared) -> Result<Option<Pinned>, CheckpointError> {
        self.checkpoints.write(self.key, prepared.meta, prepared.frozen)?;
        let pinned = self.checkpoints.newest(self.key);
        if pinned.is_some() {
            self.checkpoint_stands(prepared.bytes);
        }
        Ok(pinned)
    }

    /// Fills a lost store anew, from a checkpoint of the present state. Entries are applied
    /// meanwhile: what they change is kept for the store, and follows.
    ///
    /// # Errors
    /// The checkpoint cannot be written, or the store not be filled now: it stays lost, nothing
    /// else happened, and it can be tried again.
    pub(crate) fn mend_store(&self) -> Result<(), Fatal> {
        let mut rebuild = self.store.rebuild()?;
        let (index, prepared, frozen) = {
            let seat = self.seat.lock();
            let Some(id) = seat.applied else { return rebuild.finish(0) };
            (id.index, self.prepare(&seat), seat.machine.freeze())
        };
        let newest = match prepared {
            Some(prepared) => self.write(prepared).map_err(fatal)?,
            None => self.checkpoints.newest(self.key),
        };
        let of_it = newest.filter(|newest| newest.meta().index == index);
        let pinned = of_it.ok_or_else(|| fatal("another checkpoint came meanwhile"))?;
        let fill =
            |source: &dyn ChunkSource| frozen.fill(source, &mut |change| rebuild.put(change));
        pinned.read(fill).map_err(fatal)??;
        rebuild.finish(index)
    }

    /// Counts anew from a checkpoint that covers `bytes` of what was applied.
    fn checkpoint_stands(&self, bytes: u64) {
        // Not the whole state: old events are in it, which no checkpoint writes again, and memory
        // holds what came since the last one.
        let written = self.checkpoints.written_bytes(self.key);
        self.due_at.store(jittered(self.due_min.max(written / 4), self.key), Ordering::Relaxed);
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
    use std::time::Duration;

    use bytes::Bytes;
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::consensus::log_id;
    use crate::disk::StoreFiles;
    use crate::machine::{Change, ChunkSink};
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
        replica: Arc<Replica>,
        tally: Tally,
        filling: Filling,
        files: Arc<StoreFiles>,
        _dir: tempfile::TempDir,
    }

    fn desk() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let key = GroupKey { group: 1, replica: 1 };
        let checkpoints = Checkpoints::open(&dir.path().join("checkpoints")).unwrap();
        let files = Arc::new(StoreFiles::open(&dir.path().join("store")).unwrap());
        let store = files.open_group(key).unwrap();
        let (tally, filling): (_, Filling) = (Tally::new(), Arc::new(Mutex::new(Box::new(|| ()))));
        let machine = Watched { tally: tally.clone(), filling: filling.clone() };
        let replica = Replica::new(key, Box::new(machine), checkpoints, store, 1 << 20);
        assert_eq!(replica.restore_newest().unwrap(), None);
        Desk { replica: Arc::new(replica), tally, filling, files, _dir: dir }
    }

    /// What a test does in the middle of filling a store.
    type Filling = Arc<Mutex<Box<dyn Fn() + Send>>>;

    /// A tally whose store is filled while a test does something.
    struct Watched {
        tally: Tally,
        filling: Filling,
    }

    struct WatchedFrozen {
        frozen: Box<dyn Frozen>,
        filling: Filling,
    }

    impl Frozen for WatchedFrozen {
        fn write(self: Box<Self>, sink: &mut dyn ChunkSink) {
            self.frozen.write(sink);
        }

        fn fill(&self, source: &dyn ChunkSource, put: &mut dyn FnMut(Change)) -> Result<(), Fatal> {
            self.frozen.fill(source, put)?;
            (self.filling.lock())();
            Ok(())
        }
    }

    impl Machine for Watched {
        fn apply(
            &mut self,
            index: u64,
            entry: &[u8],
            changes: &mut Vec<Change>,
        ) -> Result<crate::machine::Answer, Fatal> {
            self.tally.apply(index, entry, changes)
        }

        fn freeze(&self) -> Box<dyn Frozen> {
            let filling = Arc::clone(&self.filling);
            Box::new(WatchedFrozen { frozen: self.tally.freeze(), filling })
        }

        fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal> {
            self.tally.restore(index, source)
        }

        fn checkpointed(&mut self, index: u64) {
            self.tally.checkpointed(index);
        }

        fn attach(&mut self, store: Arc<dyn Store>) {
            self.tally.attach(store);
        }
    }

    fn entries(indexes: std::ops::Range<u64>) -> Vec<Item> {
        let entry = |index: u64| Entry(index.to_string().into());
        indexes.map(|index| (LogEntry::new_normal(log_id(1, index), entry(index)), None)).collect()
    }

    /// What the store holds once it has come to an entry.
    fn stored(desk: &Desk, index: u64) -> Vec<Bytes> {
        assert!(desk.replica.store.wait(index, Duration::from_secs(60)));
        let stored = desk.replica.store.scan(&[], &[0xff; 9], usize::MAX).unwrap();
        stored.into_iter().map(|(_, value)| value).collect()
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
        assert_eq!((desk.tally.count(), desk.tally.restored()), (150, (0, 1)));
        desk.replica.apply(entries(150..160)).unwrap();
        assert_eq!(stored(&desk, 159), desk.tally.entries());
    }

    #[test]
    fn entries_are_applied_while_a_store_is_filled_and_follow_into_it() {
        let desk = desk();
        desk.replica.apply(entries(0..100)).unwrap();
        desk.replica.store.lose();
        let (begun, is_begun) = std::sync::mpsc::channel();
        let (applied, is_applied) = std::sync::mpsc::channel();
        *desk.filling.lock() = Box::new(move || {
            begun.send(()).unwrap();
            is_applied.recv_timeout(Duration::from_secs(60)).expect("applied while it is filled");
        });
        let replica = Arc::clone(&desk.replica);
        let mending = std::thread::spawn(move || replica.mend_store());
        is_begun.recv().unwrap();
        desk.replica.apply(entries(100..200)).unwrap();
        applied.send(()).unwrap();
        mending.join().unwrap().unwrap();
        desk.replica.apply(entries(200..250)).unwrap();
        assert_eq!(stored(&desk, 249), desk.tally.entries());
    }

    #[test]
    fn a_store_that_is_lost_while_it_is_filled_is_filled_once_more() {
        let desk = desk();
        desk.replica.apply(entries(0..100)).unwrap();
        desk.replica.store.lose();
        let store = desk.replica.store.clone();
        *desk.filling.lock() = Box::new(move || store.lose());
        desk.replica.mend_store().unwrap_err();
        assert!(desk.replica.store.needs_rebuild());
        *desk.filling.lock() = Box::new(|| ());
        desk.replica.apply(entries(100..150)).unwrap();
        desk.replica.mend_store().unwrap();
        assert_eq!(stored(&desk, 149), desk.tally.entries());
    }

    #[test]
    fn a_store_that_cannot_be_filled_stops_no_replica_and_is_filled_once_it_can_be() {
        let desk = desk();
        desk.replica.apply(entries(0..100)).unwrap();
        desk.replica.write_checkpoint().unwrap();
        desk.replica.store.lose();
        let files = Arc::clone(&desk.files);
        *desk.filling.lock() = Box::new(move || files.fail());
        for _ in 0..10 {
            desk.replica.mend_store().unwrap_err();
            assert!(desk.replica.store.needs_rebuild());
        }
        desk.replica.apply(entries(100..150)).unwrap();
        assert_eq!((desk.replica.failure(), desk.tally.count()), (None, 150));
        assert!(desk.replica.restore_newest().unwrap().is_some(), "it also starts so");
        desk.replica.apply(entries(100..150)).unwrap();
        *desk.filling.lock() = Box::new(|| ());
        desk.replica.mend_store().unwrap();
        assert_eq!(stored(&desk, 149).len(), 150);
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
