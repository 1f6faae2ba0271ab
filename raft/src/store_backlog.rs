//! StoreBacklog: the changes of entries behind a long one, until the working store may have them.
//!
//! Why: the store's index says that it has everything up to there, so the changes of later entries
//! wait for those of the long one. They are given to the store by the thread of the long entry: a
//! store that is busy must not hold up what is applied.
//!
//! Promise: changes reach the store in the order of their indexes. Refused: more than
//! [`STORE_BACKLOG_BYTES`] of entries behind a long one; applying waits then. What a long one has
//! itself is as large as it is: whoever proposes them waits for [`StoreBacklog::caught_up`], so
//! that no more than one of them is here.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::disk::{GroupStore, write_size};
use crate::limits::STORE_BACKLOG_BYTES;
use crate::machine::StoreWrite;

/// The way of a replica's changes to its store.
#[derive(Default)]
pub(crate) struct StoreBacklog {
    state: Mutex<State>,
    drained: Condvar,
    /// Whether something waits, or will.
    is_behind: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// What waits, by index, and how many bytes of it are counted.
    changes: BTreeMap<u64, (usize, Vec<StoreWrite>)>,
    bytes: usize,
    /// The entry that is not finished: what is behind it waits.
    held: Option<u64>,
    is_draining: bool,
}

impl StoreBacklog {
    /// The changes of this entry come later: those behind it wait for them.
    pub(crate) fn hold(&self, index: u64) {
        self.state.lock().held = Some(index);
        self.is_behind.send_replace(true);
    }

    /// Waits until the store has been given everything.
    pub(crate) async fn caught_up(&self) {
        // The sender lives as long as `self`.
        let _ = self.is_behind.subscribe().wait_for(|is_behind| !is_behind).await;
    }

    /// Whether the next changes would wait for room.
    pub(crate) fn is_full(&self) -> bool {
        self.state.lock().bytes >= STORE_BACKLOG_BYTES
    }

    /// Bytes of changes that wait behind a long entry.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Gives the changes of an index to the store, or keeps them for it. One caller at a time.
    pub(crate) fn write(&self, store: &Arc<GroupStore>, index: u64, writes: Vec<StoreWrite>) {
        let mut state = self.state.lock();
        // Behind an entry that is not finished, waiting for room would be waiting for oneself:
        // whoever applies has asked `is_full` before.
        while state.held.is_none() && state.is_draining && state.bytes >= STORE_BACKLOG_BYTES {
            self.drained.wait(&mut state);
        }
        if state.held.is_none() && !state.is_draining && state.changes.is_empty() {
            drop(state);
            return store.write(index, writes);
        }
        let bytes = writes.iter().map(write_size).sum();
        state.keep(index, bytes, writes);
    }

    /// The entry that changes wait for is finished, and these are its own. [`StoreBacklog::drain`]
    /// gives them out.
    pub(crate) fn release(&self, index: u64, writes: Vec<StoreWrite>) {
        let mut state = self.state.lock();
        // Not counted: those behind it are not to wait for its size.
        state.keep(index, 0, writes);
        state.held = None;
    }

    /// Gives the store what waits for no entry. Blocks while the store is busy; a second caller
    /// leaves it to the first.
    pub(crate) fn drain(&self, store: &Arc<GroupStore>) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_draining, true) {
            return;
        }
        while let Some((index, writes)) = state.take_first() {
            // Before it is written: the store has a bound of its own for it.
            self.drained.notify_all();
            drop(state);
            store.write(index, writes);
            state = self.state.lock();
        }
        state.is_draining = false;
        if state.changes.is_empty() && state.held.is_none() {
            self.is_behind.send_replace(false);
        }
        self.drained.notify_all();
    }

    /// The state was replaced: what waits is about another one.
    pub(crate) fn clear(&self) {
        let mut state = self.state.lock();
        state.changes.clear();
        (state.bytes, state.held) = (0, None);
        self.is_behind.send_replace(false);
        self.drained.notify_all();
    }
}

impl State {
    fn keep(&mut self, index: u64, bytes: usize, writes: Vec<StoreWrite>) {
        self.bytes += bytes;
        self.changes.insert(index, (bytes, writes));
    }

    fn take_first(&mut self) -> Option<(u64, Vec<StoreWrite>)> {
        let first = *self.changes.first_key_value()?.0;
        if self.held.is_some_and(|held| held <= first) {
            return None;
        }
        let (index, (bytes, writes)) = self.changes.pop_first()?;
        self.bytes -= bytes;
        Some((index, writes))
    }
}
