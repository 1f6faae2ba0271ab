//! Network: how this room's messages reach other nodes. Sockets live in `node`; tests use memory.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::NodeId;

/// How urgent a message is. A lower lane never waits for a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Heartbeats, votes, link pings.
    Urgent,
    /// Log entries, answers to calls.
    Log,
    /// Calls between routers.
    Call,
    /// Deltas.
    Feed,
    /// Checkpoints and large reads: a connection of its own.
    Bulk,
}

/// Why a message got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There is no connection; the message was not sent.
    #[error("node {node} cannot be reached: {reason}")]
    Unreachable {
        /// The peer.
        node: NodeId,
        /// In words.
        reason: String,
    },
    /// The connection's queue is full; the message was not sent.
    #[error("the queue to node {node} is full")]
    Full {
        /// The peer.
        node: NodeId,
    },
    /// It was (perhaps) sent and no answer came: the peer may have acted on it.
    #[error("node {node} did not answer: {reason}")]
    NoAnswer {
        /// The peer.
        node: NodeId,
        /// In words.
        reason: String,
    },
}

/// Carries messages between nodes.
pub trait Network: Send + Sync + 'static {
    /// Sends a message to the `raft::Groups` of another node and waits for its answer.
    fn call(
        &self,
        to: NodeId,
        priority: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>>;
}
