//! Calls: what this node asked over one connection and waits for.
//!
//! Promise: every call ends: by its answer, by its deadline (at most one sweep late), or at once
//! when the connection breaks. A caller that stops waiting leaves nothing behind.
//! Refused: a call too many, at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::frame::CallFailure;
use crate::limits::{NEXT_PIECE_MAX, PENDING_CALLS_MAX};

/// Why a call ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PeerCallError {
    /// It certainly did nothing.
    NotSent(String),
    /// It may have done something.
    NoAnswer(String),
    /// The peer has too much to do; it did nothing.
    Busy,
}

impl From<CallFailure> for PeerCallError {
    fn from(failure: CallFailure) -> Self {
        match failure {
            CallFailure::Busy => Self::Busy,
            CallFailure::Starting => Self::NotSent("it is still starting".into()),
            CallFailure::Unsupported => Self::NotSent("its build does not know such calls".into()),
            CallFailure::Expired => Self::NotSent("the deadline had passed on arrival".into()),
            CallFailure::Dropped => Self::NoAnswer("it gave the call up".into()),
            CallFailure::TooLarge => Self::NoAnswer("its answer is larger than any may be".into()),
        }
    }
}

/// How a call ended.
pub(super) type CallResult = Result<Bytes, PeerCallError>;

/// The calls waiting for an answer.
pub(super) struct Calls {
    pending: Mutex<PendingCalls>,
    next: AtomicU64,
}

#[derive(Default)]
struct PendingCalls {
    by_id: HashMap<u64, PendingCall>,
    closed: bool,
}

struct PendingCall {
    deadline: Instant,
    result: oneshot::Sender<CallResult>,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { pending: Mutex::new(PendingCalls::default()), next: AtomicU64::new(1) }
    }

    /// A number no other message of this connection has.
    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for the answer to `id`; `None` when too many wait already.
    ///
    /// # Errors
    /// [`PeerCallError::NotSent`] when the connection is closed.
    pub(super) fn expect(
        &self,
        id: u64,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<CallResult>, PeerCallError> {
        let (result, receiver) = oneshot::channel();
        let mut pending = self.pending.lock();
        if pending.closed {
            return Err(PeerCallError::NotSent("the connection broke".into()));
        }
        if pending.by_id.len() >= PENDING_CALLS_MAX {
            return Err(PeerCallError::Busy);
        }
        pending.by_id.insert(id, PendingCall { deadline, result });
        Ok(receiver)
    }

    /// Ends a call. One that is not waited for any more is nobody's business.
    pub(super) fn end(&self, id: u64, result: CallResult) {
        // Removed under the lock, so that an answer and the sweep never both end one call.
        let call = self.pending.lock().by_id.remove(&id);
        if let Some(call) = call {
            let _ = call.result.send(result);
        }
    }

    /// A piece of a call's answer has come: the rest is waited for a while longer.
    pub(super) fn progress(&self, id: u64, now: Instant) {
        if let Some(call) = self.pending.lock().by_id.get_mut(&id) {
            call.deadline = call.deadline.max(now + NEXT_PIECE_MAX);
        }
    }

    /// Forgets a call whose caller stopped waiting.
    pub(super) fn forget(&self, id: u64) {
        self.pending.lock().by_id.remove(&id);
    }

    /// Ends what is overdue.
    pub(super) fn sweep(&self, now: Instant) {
        let overdue: Vec<PendingCall> = {
            let mut pending = self.pending.lock();
            if pending.by_id.is_empty() {
                return;
            }
            pending.by_id.extract_if(|_, call| call.deadline <= now).map(|(_, call)| call).collect()
        };
        // Outside the lock: a caller that wakes may make its next call at once.
        for call in overdue {
            let _ = call.result.send(Err(PeerCallError::NoAnswer("the deadline passed".into())));
        }
    }

    /// Ends everything: the connection broke.
    pub(super) fn close(&self, reason: &str) {
        let all = {
            let mut pending = self.pending.lock();
            pending.closed = true;
            std::mem::take(&mut pending.by_id)
        };
        for call in all.into_values() {
            let _ = call.result.send(Err(PeerCallError::NoAnswer(reason.to_owned())));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pending.lock().by_id.len()
    }
}
