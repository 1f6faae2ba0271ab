//! Serve: what is done with messages that arrive: calls for the replicas and for the actors.
//!
//! Promise: each call gets exactly one answer. [`AnswerGuard`] is the guard: dropped without an
//! answer, it sends a failure.
//! Refused: calls past the bound, calls whose time is up, calls nobody is there for yet.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actors::Inbox;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::NodeId;
use parking_lot::RwLock;
use raft::Priority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::RaftInbox;
use super::frame::{CallFailure, PeerFrame, PeerFrameKind};
use super::priority_queues::{Outgoing, PriorityQueues};
use crate::limits::{
    ACTOR_CALLS_SERVED_MAX, ANSWER_BYTES_MAX, BUDGET_UNIT_BYTES, BULK_CALLS_AT_ONCE,
    LARGE_ANSWER_BYTES, LARGE_ANSWERS_BYTES_AT_ONCE, RAFT_CALLS_SERVED_MAX,
};

/// What bounds the calls of the peer that one connection serves, and where their answers go.
pub(super) struct ServedCalls {
    peer: NodeId,
    priority_queues: Arc<PriorityQueues>,
    /// Actor calls of the peer that may still be taken in.
    actor_permits: Arc<Semaphore>,
    /// Raft calls of the peer that may still be taken in.
    raft_permits: Arc<Semaphore>,
    /// Bulk calls of the peer that may still be worked on.
    bulk_work: Arc<Semaphore>,
    /// The budget for large answers, in units of [`BUDGET_UNIT_BYTES`].
    answer_budget: Arc<Semaphore>,
    /// Ends handlers whose answers nobody can be given any more.
    ended: CancellationToken,
}

impl ServedCalls {
    pub(super) fn new(
        peer: NodeId,
        priority_queues: Arc<PriorityQueues>,
        ended: CancellationToken,
    ) -> Self {
        Self {
            peer,
            priority_queues,
            actor_permits: Arc::new(Semaphore::new(ACTOR_CALLS_SERVED_MAX)),
            raft_permits: Arc::new(Semaphore::new(RAFT_CALLS_SERVED_MAX)),
            bulk_work: Arc::new(Semaphore::new(BULK_CALLS_AT_ONCE)),
            answer_budget: Arc::new(Semaphore::new(
                LARGE_ANSWERS_BYTES_AT_ONCE / BUDGET_UNIT_BYTES,
            )),
            ended,
        }
    }

    /// Refuses a call that was not begun. If even that does not fit, the caller's deadline ends it.
    pub(super) fn refuse(&self, call: &PeerFrame, failure: CallFailure) {
        if call.id == 0 {
            return;
        }
        let priority = answer_priority(call.priority);
        let message = Outgoing::new(PeerFrameKind::Failed, priority, call.id, failure.to_payload());
        let _ = self.priority_queues.put(message);
    }
}

/// Whom arriving messages are for. Both come after the link, because they are made with it, and
/// leave with it, because they hold it.
#[derive(Default)]
pub(super) struct Inboxes {
    raft: RwLock<Option<Arc<dyn RaftInbox>>>,
    inbox: RwLock<Option<Arc<dyn Inbox>>>,
}

impl Inboxes {
    pub(super) fn set_raft(&self, raft: Arc<dyn RaftInbox>) {
        *self.raft.write() = Some(raft);
    }

    pub(super) fn set_inbox(&self, inbox: Arc<dyn Inbox>) {
        *self.inbox.write() = Some(inbox);
    }

    /// Lets go of both.
    pub(super) fn clear(&self) {
        let raft = self.raft.write().take();
        let inbox = self.inbox.write().take();
        // Not under the locks: what ends with them may look in here.
        drop((raft, inbox));
    }

    /// Tells the actors about a link.
    pub(super) fn link_changed(&self, peer: NodeId, up: bool) {
        let inbox = self.inbox.read().clone();
        if let Some(inbox) = inbox {
            inbox.link_changed(peer, up);
        }
    }

    /// Hands a cast over. One that comes before the actors are there is lost, as a cast may be.
    pub(super) fn cast(&self, from: NodeId, payload: Bytes) {
        let inbox = self.inbox.read().clone();
        if let Some(inbox) = inbox {
            inbox.cast(from, payload);
        }
    }

    /// Begins to answer a call. A call for the replicas comes back as a future for the caller to
    /// poll; a call for the actors runs in a task of its own until the connection ends.
    pub(super) fn answer(
        &self,
        served: &Arc<ServedCalls>,
        frame: PeerFrame,
    ) -> Option<BoxFuture<'static, ()>> {
        let is_raft = frame.kind == PeerFrameKind::RaftCall;
        let permits = if is_raft { &served.raft_permits } else { &served.actor_permits };
        if frame.remaining_ms == 0 {
            served.refuse(&frame, CallFailure::Expired);
            return None;
        }
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            served.refuse(&frame, CallFailure::Busy);
            return None;
        };
        let Some(work) = self.begin(served.peer, &frame) else {
            served.refuse(&frame, CallFailure::Starting);
            return None;
        };
        let answering = AnswerGuard {
            served: Arc::clone(served),
            priority: answer_priority(frame.priority),
            id: frame.id,
            permit: Some(permit),
        };
        let deadline = Instant::now() + Duration::from_millis(frame.remaining_ms.into());
        let bulk =
            (frame.priority == Priority::Bulk && !is_raft).then(|| Arc::clone(&served.bulk_work));
        let answer = async move {
            // What a bulk call brings up may be large: so many at once. A closed
            // semaphore would be a defect; it is never closed.
            let _at_work = match bulk {
                Some(bulk) => bulk.acquire_owned().await.ok(),
                None => None,
            };
            // A panic in the handler is its own; the guard answers for it.
            if let Ok(payload) = AssertUnwindSafe(work).catch_unwind().await {
                answering.answer(payload, deadline).await;
            }
        };
        if is_raft {
            return Some(Box::pin(answer));
        }
        let ended = served.ended.clone();
        tokio::spawn(async move { ended.run_until_cancelled(answer).await });
        None
    }

    /// The work a call asks for, not begun yet; `None` where nobody is there for it.
    fn begin(&self, from: NodeId, call: &PeerFrame) -> Option<BoxFuture<'static, Bytes>> {
        let payload = call.payload.clone();
        if call.kind == PeerFrameKind::RaftCall {
            let raft = self.raft.read().clone()?;
            return Some(Box::pin(async move { raft.handle(from, payload).await }));
        }
        let inbox = self.inbox.read().clone()?;
        Some(Box::pin(async move { inbox.call(from, payload).await }))
    }
}

/// The priority of an answer: as urgent as its call, but never behind other calls.
fn answer_priority(call: Priority) -> Priority {
    match call {
        Priority::Urgent => Priority::Urgent,
        Priority::Log | Priority::Call | Priority::Feed => Priority::Log,
        Priority::Bulk => Priority::Bulk,
    }
}

/// The duty to answer one call.
struct AnswerGuard {
    served: Arc<ServedCalls>,
    priority: Priority,
    id: u64,
    /// Taken by the answer.
    permit: Option<OwnedSemaphorePermit>,
}

impl AnswerGuard {
    /// Sends the answer. How large it is, nobody knew when the call was sent: a large one goes in
    /// pieces behind everything that is urgent on this connection, once the budget has space for
    /// it.
    async fn answer(mut self, payload: Bytes, deadline: Instant) {
        if payload.len() > ANSWER_BYTES_MAX {
            return self.send(PeerFrameKind::Failed, CallFailure::TooLarge.to_payload(), None);
        }
        if payload.len() <= LARGE_ANSWER_BYTES {
            return self.send(PeerFrameKind::Answer, payload, None);
        }
        let units = payload.len().div_ceil(BUDGET_UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let budget = Arc::clone(&self.served.answer_budget).acquire_many_owned(units);
        match tokio::time::timeout_at(deadline, budget).await {
            Ok(Ok(budget)) => {
                self.priority = Priority::Bulk;
                self.send(PeerFrameKind::Answer, payload, Some(budget));
            }
            // Nobody waits for it any more.
            Ok(Err(_)) | Err(_) => {
                self.send(PeerFrameKind::Failed, CallFailure::Dropped.to_payload(), None)
            }
        }
    }

    fn send(&mut self, kind: PeerFrameKind, payload: Bytes, budget: Option<OwnedSemaphorePermit>) {
        let permit = self.permit.take();
        let new = Outgoing::new(kind, self.priority, self.id, payload);
        let message = Outgoing { permit, budget, ..new };
        // A closed connection has ended the call already.
        let _ = self.served.priority_queues.put(message);
    }
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.send(PeerFrameKind::Failed, CallFailure::Dropped.to_payload(), None);
        }
    }
}
