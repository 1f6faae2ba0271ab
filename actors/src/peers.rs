//! Peers: how the clients and feeds of this node speak to other nodes. Sockets live in
//! `node`, which implements [`Peers`] and hands what arrives to an [`Inbox`].

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::NodeId;
pub use raft::{NetworkError as PeerError, Priority};

/// Carries messages to the actors of other nodes.
pub trait Peers: Send + Sync + 'static {
    /// Sends a message and waits for its answer. Messages of more than 4 MiB need `Priority::Bulk`;
    /// answers of any size that is ever given come back whatever the priority of their call was.
    fn call(
        &self,
        to: NodeId,
        priority: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>>;

    /// Sends a message that has no answer. Never waits.
    ///
    /// # Errors
    /// [`PeerError::Unreachable`] or [`PeerError::Full`]: it was not sent.
    fn cast(&self, to: NodeId, priority: Priority, message: Bytes) -> Result<(), PeerError>;

    /// The nodes there is no link to, each with the reason in words: it refuses this node, or
    /// cannot be reached. What is not known is left out.
    fn troubles(&self) -> Vec<(NodeId, String)> {
        Vec::new()
    }
}

/// Takes what arrives from other nodes.
pub trait Inbox: Send + Sync + 'static {
    /// A call: the answer goes back on the same link. Never fails: what went wrong is inside.
    fn call(&self, from: NodeId, message: Bytes) -> BoxFuture<'static, Bytes>;
    /// A cast. Must not block.
    fn cast(&self, from: NodeId, message: Bytes);
    /// The link to a peer broke or was made anew: what was cast on it may be lost.
    fn link_changed(&self, peer: NodeId, up: bool);
}
