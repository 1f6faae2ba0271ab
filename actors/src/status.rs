//! What an operator sees of the cluster: plain data, the same for a table, for JSON and a console.

pub(crate) mod replicas;
pub(crate) mod report;

use serde::{Deserialize, Serialize};

use crate::memory::MemoryStatus;

/// The cluster as one node sees it: `GET /api/cluster/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The cluster's id, made at bootstrap.
    pub cluster_id: String,
    /// The node that answers.
    pub answered_by: u64,
    /// The placement table's number.
    pub placement_epoch: u64,
    /// What an operator should know now, in words: `open to all`, `no leader for 3 partitions`.
    pub warnings: Vec<String>,
    /// How the answering node shares out its open files, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FileBudget>,
    /// What the answering node holds in memory, by class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStatus>,
    /// The level the cluster has agreed on: what older builds could not read is written from there
    /// on.
    pub level: u16,
    /// How much the catalogue holds of each kind, and may hold.
    #[serde(default)]
    pub catalogue: Vec<CatalogueStatus>,
    /// All nodes.
    pub nodes: Vec<NodeStatus>,
    /// All partitions; group 0 is not among them.
    pub partitions: Vec<PartitionStatus>,
    /// The branches that exist or are configured.
    pub branches: Vec<BranchStatus>,
}

/// How much the catalogue, which every node holds, has of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueStatus {
    /// `definitions`, `seeds`, `branches`, `flags`, `schemas`, `seedFiles` or `names`.
    pub kind: String,
    /// Bytes, as they are encoded.
    pub bytes: u64,
    /// Most bytes there may be; beyond, changes are refused with `catalogue-full`.
    pub bytes_max: u64,
}

impl CatalogueStatus {
    /// All kinds of a catalogue.
    pub fn of(catalogue: &model::Catalogue) -> Vec<Self> {
        let shown = catalogue.used().into_iter().map(|used| Self {
            kind: used.kind.name().to_owned(),
            bytes: used.bytes,
            bytes_max: used.bytes_max,
        });
        shown.collect()
    }
}

/// How a process shares out its open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileBudget {
    /// How many it may have (`RLIMIT_NOFILE`).
    pub file_limit: u64,
    /// How many are kept for the log, checkpoints, the store and peers.
    pub reserved: u64,
    /// Connections of clients at once; the next wait in the system's queue.
    pub connections_max: u64,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where clients reach it, `127.0.0.1:3200`.
    pub http: String,
    /// Where peers reach it.
    pub peer: String,
    /// Whether the answering node has a link to it (always true for itself).
    pub reachable: bool,
    /// Partitions it leads.
    pub leads: u32,
    /// Partitions it holds a replica of.
    pub replicas: u32,
    /// The build it runs.
    pub version: String,
    /// The highest level its build knows.
    pub level: u16,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// 1 to P.
    pub id: u16,
    /// The node that leads it, if one is known.
    pub leader: Option<u64>,
    /// The node that should lead it.
    pub preferred: u64,
    /// Its Raft term.
    pub term: u64,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Its node.
    pub node: u64,
    /// Its number, never reused.
    pub replica: u64,
    /// Entries it has not confirmed yet, as the leader knows; `None` where no leader was asked.
    pub lag: Option<u64>,
}

/// One branch:module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BranchStatus {
    /// The branch.
    pub branch: String,
    /// The module.
    pub module: String,
    /// Its partition.
    pub partition: u16,
    /// The node that leads it, if one is known.
    pub leader: Option<u64>,
    /// The module's revision here; `None` if it has no data on this node.
    pub revision: Option<u64>,
}

/// What a node holds itself: `GET /api/cluster/replicas`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalReplicas {
    /// The node that answers.
    pub node: u64,
    /// Its replicas, by partition, group 0 first.
    pub replicas: Vec<LocalReplica>,
}

/// One replica as its own node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalReplica {
    /// Its partition, 1 to P, or 0: group 0, which holds the catalogue.
    pub partition: u16,
    /// The index of the last entry applied.
    pub applied: u64,
    /// BLAKE3, in hex, of everything that replicas agree on, at exactly that index. Replicas of a
    /// partition that have applied the same have the same.
    pub state_hash: String,
    /// Where a log is not the one that was written, if that was looked for and found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_chain: Option<BrokenLog>,
}

/// The first event of a replica that does not fit its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokenLog {
    /// The branch.
    pub branch: String,
    /// The module.
    pub module: String,
    /// The event.
    pub sequence: u64,
    /// What differs, in words.
    pub reason: String,
}
