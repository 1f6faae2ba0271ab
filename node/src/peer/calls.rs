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

use super::frame::Failure;
use crate::limits::{NEXT_PIECE_MAX, PENDING_CALLS_MAX};

/// Why a call ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallFailed {
    /// It certainly did nothing.
    NotSent(String),
    /// It may have done something.
    NoAnswer(String),
    /// The peer has too much to do; it did nothing.
    Busy,
}

impl From<Failure> for CallFailed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Busy => Self::Busy,
            Failure::Starting => Self::NotSent("it is still starting".into()),
            Failure::Unsupported => Self::NotSent("its build does not know such calls".into()),
            Failure::Expired => Self::NotSent("the deadline had passed on arrival".into()),
            Failure::Dropped => Self::NoAnswer("it gave the call up".into()),
            Failure::TooLarge => Self::NoAnswer("its answer is larger than any may be".into()),
        }
    }
}

/// How a call ended.
pub(super) type CallResult = Result<Bytes, CallFailed>;

/// The calls waiting for an answer.
pub(super) struct Calls {
    waiting: Mutex<Waiting>,
    next: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    by_id: HashMap<u64, Call>,
    closed: bool,
}

struct Call {
    deadline: Instant,
    result: oneshot::Sender<CallResult>,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::new(Waiting::default()), next: AtomicU64::new(1) }
    }

    /// A number no other message of this connection has.
    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for the answer to `id`; `None` when too many wait already.
    ///
    /// # Errors
    /// [`CallFailed::NotSent`] when the connection is closed.
    pub(super) fn expect(
        &self,
        id: u64,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<CallResult>, CallFailed> {
        let (result, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(CallFailed::NotSent("the connection broke".into()));
        }
        if waiting.by_id.len() >= PENDING_CALLS_MAX {
            return Err(CallFailed::Busy);
        }
        waiting.by_id.insert(id, Call { deadline, result });
        Ok(receiver)
    }

    /// Ends a call. One that is not waited for any more is nobody's business.
    pub(super) fn end(&self, id: u64, result: CallResult) {
        let call = self.waiting.lock().by_id.remove(&id);
        if let Some(call) = call {
            let _ = call.result.send(result);
        }
    }

    /// A piece of a call's answer has come: the rest is waited for a while longer.
    pub(super) fn progress(&self, id: u64, now: Instant) {
        if let Some(call) = self.waiting.lock().by_id.get_mut(&id) {
            call.deadline = call.deadline.max(now + NEXT_PIECE_MAX);
        }
    }

    /// Forgets a call whose caller stopped waiting.
    pub(super) fn forget(&self, id: u64) {
        self.waiting.lock().by_id.remove(&id);
    }

    /// Ends what is overdue.
    pub(super) fn sweep(&self, now: Instant) {
        let overdue: Vec<Call> = {
            let mut waiting = self.waiting.lock();
            if waiting.by_id.is_empty() {
                return;
            }
            waiting.by_id.extract_if(|_, call| call.deadline <= now).map(|(_, call)| call).collect()
        };
        for call in overdue {
            let _ = call.result.send(Err(CallFailed::NoAnswer("the deadline passed".into())));
        }
    }

    /// Ends everything: the connection broke.
    pub(super) fn close(&self, reason: &str) {
        let all = {
            let mut waiting = self.waiting.lock();
            waiting.closed = true;
            std::mem::take(&mut waiting.by_id)
        };
        for call in all.into_values() {
            let _ = call.result.send(Err(CallFailed::NoAnswer(reason.to_owned())));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().by_id.len()
    }
}
