//! Serve: what is done with messages that arrive: calls for the replicas and for the actors.
//!
//! Promise: each call gets exactly one answer. [`Answering`] is the guard: dropped without an
//! answer, it sends a failure.
//! Refused: calls past the bound, calls whose time is up, calls nobody is there for yet.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actors::Inbox;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::NodeId;
use parking_lot::RwLock;
use raft::Lane;
use tokio::sync::OwnedSemaphorePermit;

use super::RaftInbox;
use super::connection::Connection;
use super::frame::{Failure, Frame, Kind};
use super::lanes::Outgoing;
use crate::limits::{BULK_MESSAGE_BYTES_MAX, CONTROL_PAYLOAD_BYTES_MAX};

/// Whom arriving messages are for. Both come after the link, because they are made with it, and
/// leave with it, because they hold it.
#[derive(Default)]
pub(super) struct Served {
    raft: RwLock<Option<Arc<dyn RaftInbox>>>,
    inbox: RwLock<Option<Arc<dyn Inbox>>>,
}

impl Served {
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
        frame: Frame,
    ) -> Option<BoxFuture<'static, ()>> {
        let is_raft = frame.kind == Kind::RaftCall;
        let permits = if is_raft { &connection.raft_permits } else { &connection.actor_permits };
        if frame.remaining_ms == 0 {
            Answering::refuse(connection, &frame, Failure::Expired);
            return None;
        }
        let Ok(permit) = Arc::clone(permits).try_acquire_owned() else {
            Answering::refuse(connection, &frame, Failure::Busy);
            return None;
        };
        let Some(work) = self.begin(connection.peer, &frame) else {
            Answering::refuse(connection, &frame, Failure::Starting);
            return None;
        };
        let answering = Answering {
            connection: Arc::clone(connection),
            lane: answer_lane(frame.lane),
            id: frame.id,
            permit: Some(permit),
        };
        let answer = async move {
            // A panic in the handler is its own; the guard answers for it.
            if let Ok(payload) = AssertUnwindSafe(work).catch_unwind().await {
                answering.answer(payload);
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
    fn begin(&self, from: NodeId, call: &Frame) -> Option<BoxFuture<'static, Bytes>> {
        let payload = call.payload.clone();
        if call.kind == Kind::RaftCall {
            let raft = self.raft.read().clone()?;
            return Some(Box::pin(async move { raft.handle(from, payload).await }));
        }
        let inbox = self.inbox.read().clone()?;
        Some(Box::pin(async move { inbox.call(from, payload).await }))
    }
}

/// The lane an answer travels in: as urgent as its call, but never behind other calls.
fn answer_lane(call: Lane) -> Lane {
    match call {
        Lane::Urgent => Lane::Urgent,
        Lane::Log | Lane::Call | Lane::Feed => Lane::Log,
        Lane::Bulk => Lane::Bulk,
    }
}

/// The duty to answer one call.
pub(super) struct Answering {
    connection: Arc<Connection>,
    lane: Lane,
    id: u64,
    /// Taken by the answer.
    permit: Option<OwnedSemaphorePermit>,
}

impl Answering {
    fn answer(mut self, payload: Bytes) {
        let most = match self.lane {
            Lane::Urgent | Lane::Log | Lane::Call | Lane::Feed => CONTROL_PAYLOAD_BYTES_MAX,
            Lane::Bulk => BULK_MESSAGE_BYTES_MAX,
        };
        if payload.len() > most {
            self.send(Kind::Failed, Failure::TooLarge.to_payload());
        } else {
            self.send(Kind::Answer, payload);
        }
    }

    fn send(&mut self, kind: Kind, payload: Bytes) {
        let permit = self.permit.take();
        let message = Outgoing { permit, ..Outgoing::new(kind, self.lane, self.id, payload) };
        // A closed connection has told the caller already.
        let _ = self.connection.lanes.put(message);
    }

    /// Refuses a call that was not begun. If even that does not fit, the caller's deadline ends it.
    pub(super) fn refuse(connection: &Connection, call: &Frame, failure: Failure) {
        if call.id == 0 {
            return;
        }
        let lane = answer_lane(call.lane);
        let message = Outgoing::new(Kind::Failed, lane, call.id, failure.to_payload());
        let _ = connection.lanes.put(message);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if self.permit.is_some() {
            self.send(Kind::Failed, Failure::Dropped.to_payload());
        }
    }
}
