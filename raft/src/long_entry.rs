//! LongEntry: an entry that takes long, applied beside those behind it.
//!
//! Why: replacing or emptying a module of a hundred thousand rows takes a second. If the entries of
//! other branches behind it waited, so would their clients.
//!
//! Promise: its work runs once, on the thread that was started for it or on whichever needs it
//! first, and who needs it meanwhile waits. Refused: two at a time of one replica.

use std::sync::Arc;

use openraft::storage::ApplyResponder;
use parking_lot::Mutex;

use crate::consensus::{LogId, StoredMembership, TypeConfig};
use crate::machine::LongWork;

/// An entry whose work is under way.
pub(crate) struct LongEntry {
    pub(crate) id: LogId,
    /// Of its proposer, if it was proposed here.
    pub(crate) responder: Option<ApplyResponder<TypeConfig>>,
    pub(crate) task: Arc<LongTask>,
    /// Where the replica was before it: a checkpoint that is written meanwhile is as of there.
    pub(crate) before: Position,
}

impl LongEntry {
    pub(crate) fn new(
        id: LogId,
        responder: Option<ApplyResponder<TypeConfig>>,
        work: LongWork,
        before: Position,
    ) -> Self {
        Self { id, responder, task: Arc::new(LongTask(Mutex::new(Some(work)))), before }
    }
}

/// Where a replica is.
#[derive(Clone)]
pub(crate) struct Position {
    /// The last entry.
    pub(crate) applied: Option<LogId>,
    /// The members by then.
    pub(crate) membership: StoredMembership,
    /// Payload bytes applied since the last checkpoint.
    pub(crate) since_checkpoint: u64,
}

/// Work that runs once.
pub(crate) struct LongTask(Mutex<Option<LongWork>>);

impl LongTask {
    /// Runs the work, or waits until whoever runs it is done.
    pub(crate) fn run(&self) {
        // The lock is held while it runs: that is what others wait for.
        let mut work = self.0.lock();
        if let Some(work) = work.take() {
            work();
        }
    }
}
