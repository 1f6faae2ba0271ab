//! Dialect: how a protocol calls what its clients ask for, and how it writes what a session says.
//! A session decides what is said, when and in which order, and says it as a [`ServerFrame`], which
//! is of no protocol; it knows no frame's name.
//!
//! A second dialect is a file beside `original` with its own `impl Dialect`, and a line in
//! `of_socket` that says which sockets speak it.

mod original;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use actors::{Cursor, FrameKey};
use bytes::Bytes;
use model::{
    BadJson, BranchId, BranchKey, Delta, Event, FullSyncFlag, Incarnation, ModuleId,
    ModuleSnapshot, Object, Offset, Timestamp, Value,
};
use serde::Serialize;

use crate::error::ApiError;
use crate::metrics::FrameKind;
use crate::scoped_store::PolicyClass;
use crate::wire::{QueryFrame, SnapshotFrame, SnapshotReason, TopicFrame};
use crate::ws::subscription::ResyncReason;

/// What a client asks for, whatever its protocol calls it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClientRequest {
    /// Enters a branch.
    Hello,
    Publish,
    Batch,
    Query,
    /// A snapshot of all modules, which is sent for this reason.
    Snapshot(SnapshotReason),
    /// Subscribes to a topic.
    Subscribe,
    Unsubscribe,
    /// Posts under a topic.
    Post,
    Ping,
    /// An answer to a ping of ours.
    Pong,
    Auth,
    /// Nothing that the protocol knows: what stands for the frame's type, if anything does.
    Unknown(Option<Value>),
}

/// A frame of a client.
pub(crate) struct ClientFrame {
    pub(crate) request: ClientRequest,
    /// What it says, under the names that docs/protocol.md gives its members.
    pub(crate) members: Object,
    /// How long the message was.
    pub(crate) bytes: usize,
}

/// A message that is no frame, and what of it says who waits for an answer.
pub(crate) struct UnreadableFrame {
    /// Why it cannot be read; `None` where it can, and is still no frame.
    pub(crate) error: Option<BadJson>,
    pub(crate) request: Option<ClientRequest>,
    pub(crate) request_id: Option<Value>,
    pub(crate) topic: Option<String>,
}

/// The level of a line of the log that a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Info,
    Warn,
    Error,
}

/// A module that goes on after the first cursor; what its client missed reaches to the offset.
pub(crate) type ResumedModule = (ModuleId, Cursor, Offset);

/// What a session says to its client, whatever its protocol calls it.
#[derive(Clone, Copy)]
pub(crate) enum ServerFrame<'a> {
    /// The first frame of a socket.
    Hello { server_id: &'a str, at: Timestamp },
    /// A line of the log.
    Log {
        server_id: &'a str,
        level: LogLevel,
        message: &'a str,
        context: &'a Object,
        at: Timestamp,
    },
    /// Why a request was refused or failed, so that its client can match it.
    Error { request_id: Option<&'a Value>, error: &'a ApiError },
    /// Why a query was refused or failed.
    QueryError { request_id: Option<&'a Value>, message: &'a str, at: Timestamp },
    /// Why a frame about a topic was refused.
    TopicError {
        code: &'a str,
        message: &'a str,
        topic: Option<&'a str>,
        details: Option<&'a Object>,
    },
    /// The answer to a ping.
    Pong,
    /// The answer to an authentication.
    AuthAck,
    /// A topic is subscribed to.
    Subscribed { topic: &'a str },
    /// A topic is not subscribed to any more.
    Unsubscribed { topic: &'a str },
    /// These modules go on.
    Resumed { branch: &'a BranchId, modules: &'a [ResumedModule], request_id: Option<&'a Value> },
    /// A module cannot go on after its cursor, for this reason.
    Resync { branch: &'a BranchId, module: &'a str, reason: ResyncReason },
    /// A full-sync flag changed.
    FullSyncFlag(&'a FullSyncFlag),
    /// A publish was accepted and made this event.
    Ack { server_id: &'a str, key: &'a BranchKey, incarnation: Incarnation, event: &'a Event },
    /// A batch was accepted and made these events.
    BatchAck {
        server_id: &'a str,
        key: &'a BranchKey,
        incarnation: Incarnation,
        request_id: Option<&'a Value>,
        events: &'a [Arc<Event>],
    },
    /// An event of a delta, written once for every session of this node that shares the frame.
    Event {
        server_id: &'a str,
        delta: &'a Delta,
        event: &'a Event,
        /// Goes into those events that are to show it.
        snapshot: Option<&'a ModuleSnapshot>,
        /// Whether the record is shown also where its publish did not ask for that.
        with_record: bool,
    },
    /// A topic's message.
    Topic(&'a TopicFrame),
    /// All modules of a branch.
    Snapshot(&'a SnapshotFrame),
    /// The rows of a query.
    Rows(&'a QueryFrame),
}

impl ServerFrame<'_> {
    /// What it is counted as.
    pub(crate) fn kind(&self) -> FrameKind {
        match self {
            Self::Event { .. } => FrameKind::Event,
            Self::Ack { .. } | Self::BatchAck { .. } => FrameKind::Ack,
            Self::Snapshot(_) => FrameKind::Snapshot,
            Self::Topic(frame) if frame.snapshot.is_some() => FrameKind::Snapshot,
            Self::Hello { .. }
            | Self::Log { .. }
            | Self::Error { .. }
            | Self::QueryError { .. }
            | Self::TopicError { .. }
            | Self::Pong
            | Self::AuthAck
            | Self::Subscribed { .. }
            | Self::Unsubscribed { .. }
            | Self::Resumed { .. }
            | Self::Resync { .. }
            | Self::FullSyncFlag(_)
            | Self::Topic(_)
            | Self::Rows(_) => FrameKind::Control,
        }
    }
}

/// Frames that may be large: their rows are written one after the other as they are sent.
pub(crate) enum LargeFrame {
    Snapshot(SnapshotFrame),
    Rows(QueryFrame),
    /// With a module's state in it.
    Topic(TopicFrame),
}

impl LargeFrame {
    /// The frame as a dialect writes it.
    pub(crate) fn as_frame(&self) -> ServerFrame<'_> {
        match self {
            Self::Snapshot(frame) => ServerFrame::Snapshot(frame),
            Self::Rows(frame) => ServerFrame::Rows(frame),
            Self::Topic(frame) => ServerFrame::Topic(frame),
        }
    }
}

/// How a protocol reads and writes frames.
pub(crate) trait Dialect: Send + Sync {
    /// The number that no other dialect has: sessions share frames under it.
    fn id(&self) -> u16;

    /// Reads a message of a client.
    ///
    /// # Errors
    /// It is no frame.
    fn parse(&self, message: &[u8]) -> Result<ClientFrame, Box<UnreadableFrame>>;

    /// Whether a message brings the tables of a module, and may be as large as they are. It is only
    /// skimmed: nothing of it is kept.
    fn brings_snapshot(&self, message: &[u8]) -> bool;

    /// Writes a frame. One that is written empty is not sent: a protocol without a frame for
    /// something says nothing.
    ///
    /// # Errors
    /// A defect: it cannot be written.
    fn render(&self, frame: &ServerFrame<'_>) -> Result<Bytes, ApiError>;
}

/// The dialect of a socket.
pub(crate) fn of_socket() -> &'static dyn Dialect {
    &original::OriginalDialect
}

/// Which sessions of this node share the frames of a delta.
pub(crate) fn frame_key(dialect: &dyn Dialect, class: PolicyClass, with_records: bool) -> FrameKey {
    FrameKey { dialect: dialect.id(), policy_class: class.id(), with_records }
}

/// The frames of a delta, one for each event; empty where nothing is to be sent.
pub(crate) fn event_frames(
    dialect: &dyn Dialect,
    server_id: &str,
    delta: &Delta,
    snapshot: Option<&ModuleSnapshot>,
    with_record: bool,
) -> Vec<Bytes> {
    let frame = |event: &Arc<Event>| {
        let frame = ServerFrame::Event { server_id, delta, event, snapshot, with_record };
        // The defect is logged where it is found; the events around it are still sent.
        dialect.render(&frame).unwrap_or_default()
    };
    delta.events.iter().map(frame).collect()
}
