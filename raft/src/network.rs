//! Network: how messages between replicas reach other nodes. Sockets are in the crate `node`; tests
//! use memory.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::NodeId;

/// The priority of a message, highest first. A message never waits for one of a lower priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Heartbeats, votes, link pings.
    Urgent,
    /// Log entries, responses to calls.
    Log,
    /// Calls between routers.
    Call,
    /// Deltas.
    Feed,
    /// Checkpoints and large reads: a connection of its own.
    Bulk,
}

/// Why a message got no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There is no connection; the message was not sent.
    #[error("node {node} cannot be reached: {reason}")]
    Unreachable {
        /// The peer.
        node: NodeId,
        /// The reason, in words.
        reason: String,
    },
    /// The connection's queue is full; the message was not sent.
    #[error("the queue to node {node} is full")]
    Full {
        /// The peer.
        node: NodeId,
    },
    /// The message may have been sent and no response came: the peer may have acted on it.
    #[error("node {node} did not answer: {reason}")]
    NoAnswer {
        /// The peer.
        node: NodeId,
        /// The reason, in words.
        reason: String,
    },
}

/// Carries messages between nodes.
pub trait Network: Send + Sync + 'static {
    /// Sends a message to the `raft::Groups` of another node and waits for the response, for
    /// `timeout` at most.
    fn call(
        &self,
        to: NodeId,
        priority: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>>;
}
