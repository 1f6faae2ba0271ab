//! Dialect: what a protocol calls the requests of its clients, and how it writes what a session
//! says. A session decides what is said, when and in which order; it knows no frame's name.
//!
//! A second dialect is a file beside `original` with its own `impl Dialect`, and a line in
//! `of_socket` that says which sockets speak it.

mod original;

use std::sync::Arc;

use bytes::Bytes;
use model::{
    BranchId, BranchKey, Delta, Event, FullSyncFlag, Incarnation, ModuleId, ModuleSnapshot, Object,
    Timestamp, Value,
};
use serde::Serialize;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::error::ApiError;
use crate::wire::{QueryFrame, SnapshotFrame, TopicFrame, WireCursor};

/// What a client asks for, whatever its protocol calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Enters a branch.
    Hello,
    Publish,
    Batch,
    Query,
    /// A snapshot of all modules, which is sent for this reason.
    Snapshot(&'static str),
    /// Subscribes to a topic.
    Subscribe,
    Unsubscribe,
    /// Posts under a topic.
    Post,
    Ping,
    /// An answer to a ping of ours.
    Pong,
    Auth,
}

/// How loud a line of the log is that a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Info,
    Warn,
    Error,
}

/// Frames that may be large: their rows are written one after the other as they are sent.
pub(crate) enum LargeFrame {
    /// All modules of a branch.
    Snapshot(SnapshotFrame),
    /// The rows of a query.
    Rows(QueryFrame),
    /// A topic's message with a module's state in it.
    Topic(TopicFrame),
}

/// How a protocol names and writes frames. A frame that is written empty is not sent: a protocol
/// without a frame for something says nothing.
pub(crate) trait Dialect: Send + Sync {
    /// What a frame of this type asks for.
    fn request(&self, frame_type: &str) -> Option<Request>;

    /// The first frame of a socket.
    fn hello(&self, server_id: &str, now: Timestamp) -> Utf8Bytes;

    /// A line of the log.
    fn log(
        &self,
        server_id: &str,
        level: LogLevel,
        message: &str,
        context: &Object,
        at: Timestamp,
    ) -> Utf8Bytes;

    /// Why a request was refused or failed, so that its client can match it.
    fn error(&self, request_id: Option<&Value>, error: &ApiError) -> Utf8Bytes;

    /// Why a query was refused or failed.
    fn query_error(&self, request_id: Option<&Value>, message: &str, at: Timestamp) -> Utf8Bytes;

    /// Why a frame about a topic was refused.
    fn topic_error(
        &self,
        code: &str,
        message: &str,
        topic: Option<&str>,
        details: Option<&Object>,
    ) -> Utf8Bytes;

    /// The answer to a ping.
    fn pong(&self) -> Utf8Bytes;

    /// The answer to an authentication.
    fn auth_ack(&self) -> Utf8Bytes;

    /// The answer to `event`, `subscribe` or `unsubscribe`.
    fn topic_ack(&self, event: &str, topic: &str) -> Utf8Bytes;

    /// These modules go on after the first cursor; what is missed reaches to the second.
    fn resumed(
        &self,
        branch: &BranchId,
        modules: &[(ModuleId, WireCursor, WireCursor)],
        request_id: Option<&Value>,
    ) -> Utf8Bytes;

    /// A module cannot go on after its cursor, for this reason.
    fn resync(&self, branch: &BranchId, module: &str, reason: &str) -> Utf8Bytes;

    /// A full-sync flag changed.
    fn directive(&self, flag: &FullSyncFlag) -> Utf8Bytes;

    /// A publish was accepted and made this event; `None` if it changed no record.
    fn ack(
        &self,
        server_id: &str,
        key: &BranchKey,
        incarnation: Incarnation,
        event: &Event,
    ) -> Option<Utf8Bytes>;

    /// A batch was accepted and made these events.
    fn batch_ack(
        &self,
        server_id: &str,
        key: &BranchKey,
        incarnation: Incarnation,
        request_id: Option<&Value>,
        events: &[Arc<Event>],
    ) -> Utf8Bytes;

    /// A topic's message.
    fn topic(&self, frame: &TopicFrame) -> Utf8Bytes;

    /// One frame for each event of a delta, the same for every session of this node. `snapshot`
    /// goes into those that are to show it; the record into those whose publish asked for it, or
    /// into all.
    fn events(
        &self,
        server_id: &str,
        delta: &Delta,
        snapshot: Option<&ModuleSnapshot>,
        with_records: bool,
    ) -> Vec<Bytes>;

    /// A large frame as it is; placeholders stand where its rows are to be written.
    ///
    /// # Errors
    /// A defect: it cannot be written.
    fn outline(&self, frame: &LargeFrame) -> Result<Bytes, ApiError>;
}

/// The dialect of a socket.
pub(crate) fn of_socket() -> &'static dyn Dialect {
    &original::Original
}
