//! Groups: all replicas of one node: one log file, one network, one door for peers' messages.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use model::{NodeId, ReplicaId};

use crate::error::Fatal;
use crate::group::ReplicaGroup;
use crate::machine::Machine;
use crate::network::Network;
use crate::timing::{Timing, TimingError};
use crate::types::GroupId;

/// How a node keeps its replicas.
#[derive(Clone)]
pub struct GroupsConfig {
    /// This node.
    pub node: NodeId,
    /// Where log, checkpoints and store live.
    pub dir: PathBuf,
    /// How soon a silent leader is replaced.
    pub timing: Timing,
    /// A checkpoint is due once this much log has been written since the last one, or a quarter
    /// of the state if that is more.
    pub checkpoint_log_bytes_min: u64,
    /// Called once, with the reason, when the whole disk can no longer be trusted: after a failed
    /// fsync nothing that follows can be promised, so the process must end.
    pub on_fatal: Arc<dyn Fn(String) + Send + Sync>,
}

/// Why the groups of a node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The timing contradicts itself.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// The disk's content is refused, or cannot be read.
    #[error(transparent)]
    Disk(#[from] Fatal),
}

/// All replicas of one node. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {}

impl Groups {
    /// Opens log, checkpoints and store. No replica runs yet.
    ///
    /// # Errors
    /// [`OpenError`], with what to do about it.
    pub async fn open(config: GroupsConfig, network: Arc<dyn Network>) -> Result<Self, OpenError> {
        let _ = (config, network);
        unimplemented!()
    }

    /// The replicas that have state on this disk, in order.
    pub fn local(&self) -> Vec<(GroupId, ReplicaId)> {
        unimplemented!()
    }

    /// Starts a replica: gives the machine its checkpoint, replays what was committed, and joins
    /// the group.
    ///
    /// # Errors
    /// [`Fatal`] when its state on disk is refused, or another replica of the group runs here.
    pub async fn start(
        &self,
        group: GroupId,
        replica: ReplicaId,
        machine: Box<dyn Machine>,
    ) -> Result<ReplicaGroup, Fatal> {
        let _ = (group, replica, machine);
        unimplemented!()
    }

    /// The running replica of a group.
    pub fn get(&self, group: GroupId) -> Option<ReplicaGroup> {
        let _ = group;
        unimplemented!()
    }

    /// Answers a message another node's replica sent through [`Network::call`].
    pub async fn handle(&self, from: NodeId, message: Bytes) -> Bytes {
        let _ = (from, message);
        unimplemented!()
    }

    /// Stops the replica of a group; its state stays on disk.
    pub async fn stop(&self, group: GroupId) {
        let _ = group;
        unimplemented!()
    }

    /// Stops every replica, then syncs and closes the disk.
    pub async fn shutdown(&self) {
        unimplemented!()
    }

    /// Whether the disk takes writes; if not, why, in words.
    ///
    /// # Errors
    /// The reason, naming the directory.
    pub fn writable(&self) -> Result<(), String> {
        unimplemented!()
    }
}
