//! Errors of proposals and reads, sorted by who must act (ARCHITECTURE.md, errors).

use std::time::Duration;

use model::NodeId;

/// Why a proposal failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead; nothing was proposed. The router asks the node hinted at.
    #[error("this replica does not lead the partition")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        hint: Option<NodeId>,
    },
    /// Nothing was proposed: the disk of this replica is full. Another replica may have space, so
    /// the leadership is on its way there where one can take it.
    #[error("{reason}")]
    DiskFull {
        /// In words, for logs and for the client.
        reason: String,
    },
    /// Nothing was proposed and nobody can take it now: no leader, no quorum, or the node is
    /// shutting down.
    #[error("{reason}")]
    Unavailable {
        /// In words, for logs and for the client.
        reason: String,
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// The entry was proposed, and it is not known whether it will be committed. Retry with the
    /// same id.
    #[error("the outcome is not known yet; retry with the same id")]
    Indeterminate,
    /// This replica is broken and stopped.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// Why a linearizable read cannot be served here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This replica does not lead.
    #[error("this replica does not lead the partition")]
    NotLeader {
        /// Who leads, as far as this replica knows.
        hint: Option<NodeId>,
    },
    /// A quorum did not confirm the leader in time.
    #[error("{reason}")]
    Unavailable {
        /// The reason, in words.
        reason: String,
        /// When a retry makes sense.
        retry_after: Duration,
    },
    /// This replica is broken and stopped.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// The replica, or the whole disk, cannot continue; the log tells the operator. Never retried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);
