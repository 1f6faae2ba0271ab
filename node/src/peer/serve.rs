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
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::RaftInbox;
use super::connection::Connection;
use super::frame::{CallFailure, PeerFrame, PeerFrameKind};
use super::priority_queues::Outgoing;
use crate::limits::{ANSWER_BYTES_MAX, BUDGET_UNIT_BYTES, LARGE_ANSWER_BYTES};

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
        connection: &Arc<Connection>,
        frame: PeerFrame,
    ) -> Option<BoxFuture<'static, ()>> {
        let is_raft = frame.kind == PeerFrameKind::RaftCall;
        let permits = if is_raft { &connection.raft_permits } else { &connection.actor_permits };
        if frame.remaining_ms == 0 {
            AnswerGuard::refuse(connection, &frame, CallFailure::Expired);
            return None;
        }
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            AnswerGuard::refuse(connection, &frame, CallFailure::Busy);
            return None;
        };
        let Some(work) = self.begin(connection.peer, &frame) else {
            AnswerGuard::refuse(connection, &frame, CallFailure::Starting);
            return None;
        };
        let answering = AnswerGuard {
            connection: Arc::clone(connection),
            priority: answer_priority(frame.priority),
            id: frame.id,
            permit: Some(permit),
        };
        let deadline = Instant::now() + Duration::from_millis(frame.remaining_ms.into());
        let bulk = (frame.priority == Priority::Bulk && !is_raft)
            .then(|| Arc::clone(&connection.bulk_work));
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
        let ended = connection.ended.clone();
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
pub(super) struct AnswerGuard {
    connection: Arc<Connection>,
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
        let budget = Arc::clone(&self.connection.answer_budget).acquire_many_owned(units);
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
        let _ = self.connection.priority_queues.put(message);
    }

    /// Refuses a call that was not begun. If even that does not fit, the caller's deadline ends it.
    pub(super) fn refuse(connection: &Connection, call: &PeerFrame, failure: CallFailure) {
        if call.id == 0 {
            return;
        }
        let priority = answer_priority(call.priority);
        let message = Outgoing::new(PeerFrameKind::Failed, priority, call.id, failure.to_payload());
        let _ = connection.priority_queues.put(message);
    }
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.send(PeerFrameKind::Failed, CallFailure::Dropped.to_payload(), None);
        }
    }
}
