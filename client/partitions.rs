//! LocalPartitions: the partitions this node holds a replica of, each with its actor.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::PartitionId;
use parking_lot::{Mutex, RwLock};
use ractor::{ActorId, ActorRef};
use raft::ReplicaGroup;

use crate::partition;
use crate::partition::machine::Published;

/// A partition this node holds a replica of.
#[derive(Clone)]
pub(crate) struct LocalPartition {
    pub(crate) actor: ActorRef<partition::Message>,
    pub(crate) group: ReplicaGroup,
    pub(crate) published: Arc<Published>,
}

/// A replica and what its machine shows.
pub(crate) type RunningReplica = (ReplicaGroup, Arc<Published>);

/// The partitions of this node.
#[derive(Clone, Default)]
pub(crate) struct LocalPartitions {
    running: Arc<RwLock<BTreeMap<PartitionId, LocalPartition>>>,
    /// Replicas whose actor failed: they wait for their next one.
    orphaned: Arc<Mutex<BTreeMap<PartitionId, RunningReplica>>>,
}

impl LocalPartitions {
    pub(crate) fn get(&self, id: PartitionId) -> Option<LocalPartition> {
        self.running.read().get(&id).cloned()
    }

    pub(crate) fn put(&self, id: PartitionId, partition: LocalPartition) {
        self.running.write().insert(id, partition);
    }

    pub(crate) fn all(&self) -> Vec<(PartitionId, LocalPartition)> {
        self.running.read().iter().map(|(id, partition)| (*id, partition.clone())).collect()
    }

    /// A partition's actor has failed; its replica goes on.
    pub(crate) fn forget_actor(&self, actor: ActorId) {
        let mut running = self.running.write();
        let found = running.iter().find(|(_, p)| p.actor.get_id() == actor).map(|(id, _)| *id);
        if let Some(id) = found
            && let Some(partition) = running.remove(&id)
        {
            self.keep_replica(id, (partition.group, partition.published));
        }
    }

    /// Keeps a replica that runs and has no actor until one is started.
    pub(crate) fn keep_replica(&self, id: PartitionId, replica: RunningReplica) {
        self.orphaned.lock().insert(id, replica);
    }

    /// The replica that waits for an actor, if there is one.
    pub(crate) fn take_replica(&self, id: PartitionId) -> Option<RunningReplica> {
        self.orphaned.lock().remove(&id)
    }
}
