//! StoreBacklog: the changes of entries behind a long one, until the working store may have them.
//!
//! Why: the store's index says that it has everything up to there, so the changes of later entries
//! wait for those of the long one. They are given to the store by the thread of the long entry: a
//! store that is busy must not hold up what is applied.
//!
//! Promise: changes reach the store in the order of their indexes. Refused: more than
//! [`STORE_BACKLOG_BYTES`]; whoever has more waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::disk::{GroupStore, write_size};
use crate::limits::STORE_BACKLOG_BYTES;
use crate::machine::StoreWrite;

/// The way of a replica's changes to its store.
#[derive(Default)]
pub(crate) struct StoreBacklog {
    state: Mutex<State>,
    drained: Condvar,
}

#[derive(Default)]
struct State {
    /// What waits, by index.
    changes: BTreeMap<u64, Vec<StoreWrite>>,
    bytes: usize,
    /// The entry that is not finished: what is behind it waits.
    held: Option<u64>,
    is_draining: bool,
}

impl StoreBacklog {
    /// The changes of this entry come later: those behind it wait for them.
    pub(crate) fn hold(&self, index: u64) {
        self.state.lock().held = Some(index);
    }

    /// Whether the next changes would wait for room.
    pub(crate) fn is_full(&self) -> bool {
        self.state.lock().bytes >= STORE_BACKLOG_BYTES
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
        state.keep(index, writes);
    }

    /// The entry that changes wait for is finished, and these are its own. [`StoreBacklog::drain`]
    /// gives them out.
    pub(crate) fn release(&self, index: u64, writes: Vec<StoreWrite>) {
        let mut state = self.state.lock();
        state.keep(index, writes);
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
        self.drained.notify_all();
    }

    /// The state was replaced: what waits is about another one.
    pub(crate) fn clear(&self) {
        let mut state = self.state.lock();
        state.changes.clear();
        (state.bytes, state.held) = (0, None);
        self.drained.notify_all();
    }
}

impl State {
    fn keep(&mut self, index: u64, writes: Vec<StoreWrite>) {
        self.bytes += size(&writes);
        self.changes.insert(index, writes);
    }

    fn take_first(&mut self) -> Option<(u64, Vec<StoreWrite>)> {
        let first = *self.changes.first_key_value()?.0;
        if self.held.is_some_and(|held| held <= first) {
            return None;
        }
        let (index, writes) = self.changes.pop_first()?;
        self.bytes -= size(&writes);
        Some((index, writes))
    }
}

fn size(writes: &[StoreWrite]) -> usize {
    writes.iter().map(write_size).sum()
}
