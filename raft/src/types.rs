//! Types: groups, members and the status of a replica, as the public interface uses them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use model::{NodeId, PartitionId, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::error::Fatal;

/// Names a replica group, the same on every node: 0 is the cluster's own, p is partition p's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u16);

impl GroupId {
    /// Group 0, which keeps the cluster's catalogue.
    pub const CLUSTER: Self = Self(0);
}

impl From<PartitionId> for GroupId {
    fn from(partition: PartitionId) -> Self {
        Self(partition.0)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The node of a replica. Its address is not part of it: the catalogue and the peer link know that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node that holds the replica.
    pub node: NodeId,
}

/// The result of a proposal that was committed and applied here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedEntry<R> {
    /// The entry's index in the group's log.
    pub index: u64,
    /// The machine's response.
    pub response: R,
}

/// The status of a replica: its own state, and what it knows of its leader and its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// This replica.
    pub replica: ReplicaId,
    /// Who leads, as far as this replica knows.
    pub leader: Option<(ReplicaId, NodeId)>,
    /// Whether this replica leads.
    pub is_leader: bool,
    /// The current term; while `is_leader`, what a fenced proposal names.
    pub term: u64,
    /// Whether this replica leads and has applied an entry of its own term: its state holds
    /// everything that was ever acknowledged.
    pub ready: bool,
    /// The last index in the log, 0 for an empty one.
    pub last_log: u64,
    /// The last index known here to be committed, 0 for none.
    pub committed: u64,
    /// The last index applied here, 0 for none.
    pub applied: u64,
    /// The index of the last checkpoint, 0 for none.
    pub checkpoint: u64,
    /// The index up to which the log is purged, 0 for none.
    pub purged: u64,
    /// All members of the group: the node of each, and whether it is a voter.
    pub members: BTreeMap<ReplicaId, (NodeId, bool)>,
    /// How many entries each other replica lacks; empty unless this replica leads.
    pub lag: BTreeMap<ReplicaId, u64>,
    /// How long ago a quorum last confirmed this leader; `None` unless this replica leads.
    pub since_quorum: Option<Duration>,
    /// Whether the group has a quorum, as far as this replica can tell: a leader was confirmed by a
    /// quorum lately, a follower has had an append from its leader lately. `leader` alone does not
    /// show that: it keeps the last leader while nobody can be elected.
    pub has_quorum: bool,
    /// Why this replica stopped, if it did. It handles no request any more.
    pub stopped: Option<Fatal>,
}

/// Counters of a node's disk since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Write batches of the log: each is one write and one fsync.
    pub write_batches: u64,
    /// Times the disk was asked to make the log durable.
    pub fsyncs: u64,
    /// Time spent in that.
    pub fsync_time: Duration,
    /// Bytes written to the log.
    pub log_bytes: u64,
    /// Operations written to the log.
    pub log_ops: u64,
    /// Submissions rejected because the disk was full.
    pub rejected: u64,
    /// Bytes of the log that were copied so that old segments could be removed.
    pub compacted_bytes: u64,
    /// Segment files that exist now.
    pub log_segments: u64,
    /// Entries read from files because memory no longer held them.
    pub log_disk_reads: u64,
    /// Bytes of the working store's files.
    pub store_bytes: u64,
}
