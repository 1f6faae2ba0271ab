//! Replica: one machine, the index it has applied, its checkpoints and its working store.
//!
//! Promise: entries reach the machine one after the other, each once. A panic or an error in the
//! machine stops this replica and nothing else, and nothing is applied after that. A working store
//! that fails, as on a full disk, stops nothing: it stays lost until the checkpoint task has
//! rebuilt it, while entries are applied. Refused: applying entries out of order.
//!
//! Everything here blocks and is called from threads that may block.

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

use crate::blocking::{run_at_usual_priority, run_beside, runtime};
use crate::consensus::{EntryData, LogId, ReplicatedEntry, StoredMembership, TypeConfig, term_of};
use crate::disk::{
    CheckpointError, CheckpointMeta, Checkpoints, GroupKey, GroupStore, PinnedCheckpoint,
};
use crate::erased::{ErasedMachine, ErasedResponse};
use crate::error::Fatal;
use crate::limits;
use crate::long_entry::{LongEntry, Position};
use crate::machine::{ApplyStep, ChunkSource, FrozenState, LongWork, StoreWrite, WorkingStore};
use crate::store_backlog::StoreBacklog;

/// The last entry a replica has applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AppliedPosition {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// An entry, and the responder of its proposer if it was proposed here.
pub(crate) type ApplyItem = (ReplicatedEntry, Option<ApplyResponder<TypeConfig>>);

/// The state of one replica, except its log.
pub(crate) struct Replica {
    pub(crate) key: GroupKey,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) store: Arc<GroupStore>,
    inner: Mutex<Inner>,
    /// The way of changes to the store.
    pub(crate) backlog: StoreBacklog,
    applied: watch::Sender<AppliedPosition>,
    /// Payload bytes applied since the last checkpoint.
    since_checkpoint: AtomicU64,
    /// A checkpoint is due when `since_checkpoint` reaches this, in bytes.
    due_at_bytes: AtomicU64,
    min_due_bytes: u64,
    /// Why the replica stopped, if it did.
    failure: Mutex<Option<Fatal>>,
    /// When a leader last sent an append here; at first, when this replica started.
    leader_contact: Mutex<Instant>,
    /// A checkpoint was requested although none is due.
    checkpoint_requested: AtomicBool,
    /// Notified when the checkpoint task has something to do.
    pub(crate) checkpoint_notify: Arc<Notify>,
}

/// The machine and its position; locked for as long as either is used.
struct Inner {
    machine: Box<dyn ErasedMachine>,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// An entry that is being applied beside those behind it.
    long: Option<LongEntry>,
}

/// What the machine made of an entry.
enum EntryResult {
    Response(ErasedResponse),
    Long(LongWork),
}

/// A state to be written as a checkpoint.
pub(crate) struct PreparedCheckpoint {
    pub(crate) meta: CheckpointMeta,
    frozen: Box<dyn FrozenState>,
    /// How many of the bytes counted in `since_checkpoint` it covers.
    bytes: u64,
}

impl Replica {
    pub(crate) fn new(
        key: GroupKey,
        mut machine: Box<dyn ErasedMachine>,
        checkpoints: Checkpoints,
        store: Arc<GroupStore>,
        min_due_bytes: u64,
    ) -> Self {
        machine.attach(store.clone());
        let checkpoint_notify = Arc::new(Notify::new());
        let notify = checkpoint_notify.clone();
        store.on_lost(Box::new(move || notify.notify_one()));
        let inner =
            Inner { machine, applied: None, membership: StoredMembership::default(), long: None };
        Self {
            key,
            checkpoints,
            store,
            inner: Mutex::new(inner),
            backlog: StoreBacklog::default(),
            applied: watch::Sender::new(AppliedPosition::default()),
            since_checkpoint: AtomicU64::new(0),
            due_at_bytes: AtomicU64::new(with_jitter(min_due_bytes, key)),
            min_due_bytes,
            failure: Mutex::new(None),
            leader_contact: Mutex::new(Instant::now()),
            checkpoint_requested: AtomicBool::new(false),
            checkpoint_notify,
        }
    }

    pub(crate) fn applied(&self) -> watch::Receiver<AppliedPosition> {
        self.applied.subscribe()
    }

    /// Records that a leader which this replica accepts has sent an append.
    pub(crate) fn record_leader_contact(&self) {
        *self.leader_contact.lock() = Instant::now();
    }

    /// The time since a leader last sent an append.
    pub(crate) fn since_leader_contact(&self) -> Duration {
        self.leader_contact.lock().elapsed()
    }

    /// The last applied log id and the membership.
    pub(crate) fn state(&self) -> (Option<LogId>, StoredMembership) {
        let inner = self.inner.lock();
        (inner.applied, inner.membership.clone())
    }

    /// Why the replica stopped, if it did.
    pub(crate) fn failure(&self) -> Option<Fatal> {
        self.failure.lock().clone()
    }

    /// Whether enough was applied since the last checkpoint for a new one.
    pub(crate) fn checkpoint_due(&self) -> bool {
        self.since_checkpoint.load(Ordering::Relaxed) >= self.due_at_bytes.load(Ordering::Relaxed)
    }

    /// Payload bytes applied since the last checkpoint.
    pub(crate) fn bytes_since_checkpoint(&self) -> u64 {
        self.since_checkpoint.load(Ordering::Relaxed)
    }

    /// Requests a checkpoint although none is due, because entries of this replica keep an old log
    /// segment alive.
    pub(crate) fn request_checkpoint(&self) {
        self.checkpoint_requested.store(true, Ordering::Relaxed);
        self.checkpoint_notify.notify_one();
    }

    /// Whether a checkpoint was requested since the last call.
    pub(crate) fn take_checkpoint_request(&self) -> bool {
        self.checkpoint_requested.swap(false, Ordering::Relaxed)
    }

    /// Restores the machine from the newest checkpoint whose chunks it can read, if there is one.
    /// Returns the log id of that checkpoint.
    pub(crate) fn restore_newest(&self) -> Result<Option<LogId>, Fatal> {
        let restored = self.run_machine("restoring the newest checkpoint", || {
            let mut inner = self.inner.lock();
            let restore = |meta: &CheckpointMeta, source: &dyn ChunkSource| {
                inner.machine.restore(meta.index, source)
            };
            let loaded = self.checkpoints.load(self.key, restore).map_err(fatal)?;
            let Some((pinned, loaded)) = loaded else { return Ok(None) };
            loaded?;
            self.set_position(&mut inner, &pinned).map(Some)
        })?;
        // With a checkpoint, `set_position` has compared the store with it. Without one, a store
        // that was lost earlier would be noticed by nobody.
        if restored.is_none() && self.store.needs_rebuild() {
            self.checkpoint_notify.notify_one();
        }
        Ok(restored)
    }

    /// Replaces the machine's state by a checkpoint's.
    pub(crate) fn restore(&self, pinned: &PinnedCheckpoint) -> Result<LogId, Fatal> {
        self.run_machine("restoring a checkpoint", || {
            let mut inner = self.inner.lock();
            let index = pinned.meta().index;
            pinned.read(|source| inner.machine.restore(index, source)).map_err(fatal)??;
            self.set_position(&mut inner, pinned)
        })
    }

    /// The machine was restored from a checkpoint: takes over its position and membership.
    fn set_position(&self, inner: &mut Inner, pinned: &PinnedCheckpoint) -> Result<LogId, Fatal> {
        let meta = pinned.meta();
        let damaged = |error| Fatal(format!("{}: checkpoint {}: {error}", self.key, meta.index));
        let id: LogId =
            codec::decode_as(codec::FormatKind::RaftLogId, &meta.log_id).map_err(damaged)?;
        inner.membership = codec::decode_as(codec::FormatKind::RaftMembership, &meta.membership)
            .map_err(damaged)?;
        inner.applied = Some(id);
        // A long entry was about the state before; its thread finds it gone.
        inner.long = None;
        self.backlog.clear();
        // The entries between the two indexes will not be applied, so the store would miss their
        // changes.
        if self.store.stored() < meta.index {
            self.store.mark_lost();
        }
        self.publish_applied(id);
        // The checkpoint covers everything that was counted.
        self.reset_progress(u64::MAX);
        Ok(id)
    }

    /// Applies entries in order and responds to their proposers; to that of a long one once it is
    /// finished.
    pub(crate) fn apply(self: &Arc<Self>, items: Vec<ApplyItem>) -> Result<(), Fatal> {
        self.run_machine("applying an entry", || {
            // Held for all of them: a checkpoint must not be frozen between the machine's state and
            // the position.
            let mut inner = self.inner.lock();
            items.into_iter().try_for_each(|item| self.apply_one(&mut inner, item))
        })?;
        if self.checkpoint_due() {
            self.checkpoint_notify.notify_one();
        }
        Ok(())
    }

    fn apply_one(self: &Arc<Self>, inner: &mut Inner, item: ApplyItem) -> Result<(), Fatal> {
        let (entry, responder) = item;
        let id = entry.log_id;
        let mut writes = Vec::new();
        let response = match &entry.payload {
            EntryPayload::Blank => ErasedResponse::NONE,
            EntryPayload::Membership(membership) => {
                inner.membership = StoredMembership::new(Some(id), membership.clone());
                ErasedResponse::NONE
            }
            EntryPayload::Normal(EntryData(bytes)) => {
                let mut result = self.run_entry(inner, id.index, bytes, &mut writes)?;
                // For the mutant only: what the store holds was applied before this process began.
                let again = || id.index <= self.store.stored();
                if mutant::is(Mutant::ApplyTwiceAfterRestart)
                    && matches!(result, EntryResult::Response(_))
                    && again()
                {
                    result = self.run_entry(inner, id.index, bytes, &mut Vec::new())?;
                }
                let bytes = bytes.len() as u64;
                match result {
                    EntryResult::Response(response) => {
                        self.since_checkpoint.fetch_add(bytes, Ordering::Relaxed);
                        response
                    }
                    EntryResult::Long(work) => {
                        let before = self.position(inner);
                        self.since_checkpoint.fetch_add(bytes, Ordering::Relaxed);
                        self.begin_long(inner, LongEntry::new(id, responder, work, before));
                        return Ok(());
                    }
                }
            }
        };
        inner.applied = Some(id);
        // Also without changes, as the store must know up to which index it is complete. Before the
        // index is published: who waits for it may ask the store.
        self.backlog.write(&self.store, id.index, writes);
        self.publish_applied(id);
        if let Some(responder) = responder {
            responder.send(response);
        }
        Ok(())
    }

    /// Gives the machine an entry, once it is not blocked by a long one.
    fn run_entry(
        self: &Arc<Self>,
        inner: &mut Inner,
        index: u64,
        bytes: &[u8],
        writes: &mut Vec<StoreWrite>,
    ) -> Result<EntryResult, Fatal> {
        // What waits behind a long entry is bounded: it must be finished for more.
        if inner.long.is_some() && self.backlog.is_full() {
            self.finish_long(inner)?;
        }
        loop {
            match inner.machine.apply(index, bytes, writes)? {
                ApplyStep::Done(response) => return Ok(EntryResult::Response(response)),
                ApplyStep::Long(work) => return Ok(EntryResult::Long(work)),
                ApplyStep::Blocked if inner.long.is_some() => self.finish_long(inner)?,
                ApplyStep::Blocked => {
                    return Err(Fatal("an entry is blocked by no other".to_owned()));
                }
            }
        }
    }

    /// Goes on to the entries behind a long one, whose work another thread does.
    fn begin_long(self: &Arc<Self>, inner: &mut Inner, long: LongEntry) {
        let (id, task) = (long.id, Arc::clone(&long.task));
        inner.long = Some(long);
        inner.applied = Some(id);
        self.backlog.hold(id.index);
        self.publish_applied(id);
        let (replica, runtime) = (Arc::clone(self), runtime());
        run_beside(move || {
            // An error has stopped the replica, and has been logged.
            let run = || {
                task.run();
                Ok(())
            };
            let is_run = replica.run_machine("applying a long entry", run).is_ok();
            run_at_usual_priority(runtime, move || {
                if !is_run {
                    // Its caller is told that the outcome is unknown, and the group stops.
                    replica.inner.lock().long = None;
                    replica.checkpoint_notify.notify_one();
                } else {
                    let _ = replica.run_machine("finishing a long entry", || {
                        let mut inner = replica.inner.lock();
                        // It may be finished: entries behind it needed it. Or gone with the state.
                        match &inner.long {
                            Some(long) if long.id == id => replica.finish_long(&mut inner),
                            Some(_) | None => Ok(()),
                        }
                    });
                }
                replica.backlog.drain(&replica.store);
            });
        });
    }

    /// Finishes the long entry, if there is one; does its work or waits for it.
    fn finish_long(&self, inner: &mut Inner) -> Result<(), Fatal> {
        let Some(long) = inner.long.take() else { return Ok(()) };
        long.task.run();
        let mut writes = Vec::new();
        let response = inner.machine.finish_long(&mut writes)?;
        self.backlog.release(long.id.index, writes);
        // Elsewhere the thread of the entry does it, which may wait for the store.
        #[cfg(any(test, feature = "testing"))]
        if crate::simulated::is_active() {
            self.backlog.drain(&self.store);
        }
        if let Some(responder) = long.responder {
            responder.send(response);
        }
        Ok(())
    }

    /// Where the machine's frozen state is: before a long entry that is not finished.
    fn position(&self, inner: &Inner) -> Position {
        match &inner.long {
            Some(long) => long.before.clone(),
            None => Position {
                applied: inner.applied,
                membership: inner.membership.clone(),
                since_checkpoint: self.since_checkpoint.load(Ordering::Relaxed),
            },
        }
    }

    /// Publishes the applied position. It never goes back, also if an older checkpoint is restored.
    fn publish_applied(&self, id: LogId) {
        let now = AppliedPosition { index: id.index, term: term_of(&id) };
        self.applied.send_if_modified(|applied| {
            let forward = (now.term, now.index) > (applied.term, applied.index);
            if forward {
                *applied = now;
            }
            forward
        });
    }

    /// Writes the present state as a checkpoint and returns it. Returns the newest one if nothing
    /// changed since, and `None` if nothing was ever applied. One at a time.
    pub(crate) fn write_checkpoint(&self) -> Result<Option<PinnedCheckpoint>, CheckpointError> {
        let Some(prepared) = self.prepare_checkpoint() else {
            return Ok(self.checkpoints.newest(self.key));
        };
        let index = prepared.meta.index;
        let pinned = self.write(prepared)?;
        self.checkpoint_durable(index);
        Ok(pinned)
    }

    /// The first step of it: the state to be written, `None` if the newest checkpoint is of it. In
    /// moments, and entries are applied while it is written.
    pub(crate) fn prepare_checkpoint(&self) -> Option<PreparedCheckpoint> {
        self.prepare(&self.inner.lock())
    }

    /// The last step of it: what the checkpoint at this index holds may leave memory.
    pub(crate) fn checkpoint_durable(&self, index: u64) {
        // Ignored: the checkpoint is valid, and after a failure the next apply is an error.
        let _ = self.run_machine("dropping what a checkpoint holds", || {
            self.inner.lock().machine.checkpoint_durable(index);
            Ok(())
        });
    }

    /// The same of what the store did not hold then: nothing may be applied for long.
    pub(crate) fn drop_stored(&self) {
        // Ignored: as above.
        let _ = self.run_machine("dropping what the store holds", || {
            self.inner.lock().machine.drop_stored();
            Ok(())
        });
    }

    /// Freezes the state, unless the newest checkpoint covers it already.
    fn prepare(&self, inner: &Inner) -> Option<PreparedCheckpoint> {
        let Position { applied, membership, since_checkpoint } = self.position(inner);
        let id = applied?;
        let newest = self.checkpoints.newest(self.key);
        if newest.is_some_and(|newest| newest.meta().index >= id.index) {
            return None;
        }
        let meta = CheckpointMeta {
            index: id.index,
            term: term_of(&id),
            log_id: codec::encode_as(codec::FormatKind::RaftLogId, &id).into(),
            membership: codec::encode_as(codec::FormatKind::RaftMembership, &membership).into(),
            extra: bytes::Bytes::new(),
        };
        Some(PreparedCheckpoint { meta, frozen: inner.machine.freeze(), bytes: since_checkpoint })
    }

    /// Writes such a state, which takes long.
    pub(crate) fn write(
        &self,
        prepared: PreparedCheckpoint,
    ) -> Result<Option<PinnedCheckpoint>, CheckpointError> {
        self.checkpoints.write(self.key, prepared.meta, prepared.frozen)?;
        let pinned = self.checkpoints.newest(self.key);
        if pinned.is_some() {
            self.reset_progress(prepared.bytes);
        }
        Ok(pinned)
    }

    /// Rebuilds a lost store from a checkpoint of the present state. Entries are applied meanwhile;
    /// their changes are kept for the store, and follow.
    ///
    /// # Errors
    /// The checkpoint cannot be written, or the store cannot be filled. The store stays lost,
    /// nothing else has changed, and the caller can retry.
    pub(crate) fn rebuild_store(&self) -> Result<(), Fatal> {
        // Before the state is frozen: from here on the store keeps the changes of later entries, so
        // that none falls between the frozen state and the backlog.
        let mut rebuild = self.store.rebuild()?;
        let (index, prepared, frozen) = {
            let inner = self.inner.lock();
            let Some(id) = self.position(&inner).applied else { return rebuild.finish(0) };
            (id.index, self.prepare(&inner), inner.machine.freeze())
        };
        rebuild.state_taken();
        let newest = match prepared {
            Some(prepared) => self.write(prepared).map_err(fatal)?,
            None => self.checkpoints.newest(self.key),
        };
        // The chunks must be those of the frozen state. A newer checkpoint may have come from
        // another replica in between.
        let matching = newest.filter(|newest| newest.meta().index == index);
        let pinned = matching.ok_or_else(|| fatal("another checkpoint came meanwhile"))?;
        let fill = |source: &dyn ChunkSource| frozen.fill(source, &mut |write| rebuild.put(write));
        pinned.read(fill).map_err(fatal)??;
        rebuild.finish(index)
    }

    /// Restarts the count after a checkpoint that covers `bytes` of what was applied.
    fn reset_progress(&self, bytes: u64) {
        // A quarter of what was written, not of the whole state: that grows with old events, which
        // are never written again, while memory holds everything since the last checkpoint.
        let written = self.checkpoints.written_bytes(self.key);
        self.due_at_bytes
            .store(with_jitter(self.min_due_bytes.max(written / 4), self.key), Ordering::Relaxed);
        let count = |since: u64| Some(since.saturating_sub(bytes));
        let _ = self.since_checkpoint.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// Copies a checkpoint into this replica's directory, unless it is the newest one there.
    pub(crate) fn import(
        &self,
        pinned: &PinnedCheckpoint,
    ) -> Result<PinnedCheckpoint, CheckpointError> {
        // Normally the transfer has installed it already, and nothing is copied.
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
                let piece = pinned.read_piece(chunk.hash, offset, len)?;
                incoming.put_chunk(chunk.hash, offset, &piece)?;
                offset += piece.len() as u64;
            }
        }
        incoming.finish()?;
        self.checkpoints.newest(self.key).ok_or_else(|| CheckpointError::Piece {
            reason: "the adopted checkpoint is gone".to_owned(),
        })
    }

    /// Calls the machine. An error or a panic in it stops this replica for good.
    fn run_machine<T>(
        &self,
        doing: &str,
        run: impl FnOnce() -> Result<T, Fatal>,
    ) -> Result<T, Fatal> {
        // After a failure the state is undefined: nothing may read it or change it any more.
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        let result = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let message = panic
                .downcast_ref::<&str>()
                .map(|message| (*message).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no words".to_owned());
            Err(Fatal(format!("{}: panic while {doing}: {message}", self.key)))
        });
        if let Err(failure) = &result {
            tracing::error!(group = %self.key, %failure, "this replica stops: {doing} failed");
            *self.failure.lock() = Some(failure.clone());
        }
        result
    }
}

/// Adds up to a quarter, by group and replica, so that the groups of a node do not all write
/// checkpoints at once.
fn with_jitter(bytes: u64, key: GroupKey) -> u64 {
    let spread = (u64::from(key.group) * 7 + key.replica * 3) % 32;
    bytes.saturating_add(bytes / 128 * spread)
}

fn fatal(error: impl std::fmt::Display) -> Fatal {
    Fatal(error.to_string())
}

#[cfg(test)]
mod tests;
