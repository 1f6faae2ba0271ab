//! LocalPartitions: the partitions this node holds a replica of, each with its actor.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::PartitionId;
use parking_lot::{Mutex, RwLock};
use ractor::{ActorId, ActorRef};
use raft::TypedGroup;

use crate::partition;
use crate::partition::activations::Activations;
use crate::partition::applied::AppliedPartition;
use crate::partition::machine::PartitionMachine;

/// A partition this node holds a replica of.
#[derive(Clone)]
pub(crate) struct LocalPartition {
    pub(crate) actor: ActorRef<partition::Message>,
    /// Its branch actors, where this node leads it.
    pub(crate) activations: Activations,
    pub(crate) group: TypedGroup<PartitionMachine>,
    pub(crate) applied: Arc<AppliedPartition>,
}

/// A replica and what its machine shows.
pub(crate) type PartitionReplica = (TypedGroup<PartitionMachine>, Arc<AppliedPartition>);

/// The partitions of this node.
#[derive(Clone, Default)]
pub(crate) struct LocalPartitions {
    running: Arc<RwLock<BTreeMap<PartitionId, LocalPartition>>>,
    /// Replicas that run and have no actor yet, or none any more.
    orphaned: Arc<Mutex<BTreeMap<PartitionId, PartitionReplica>>>,
}

impl LocalPartitions {
    pub(crate) fn get(&self, id: PartitionId) -> Option<LocalPartition> {
        self.running.read().get(&id).cloned()
    }

    /// A partition has its replica and its actor.
    pub(crate) fn put(&self, id: PartitionId, partition: LocalPartition) {
        self.running.write().insert(id, partition);
        self.orphaned.lock().remove(&id);
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
            self.keep_replica(id, (partition.group, partition.applied));
        }
    }

    /// Keeps a replica that runs and has no actor until one is started.
    pub(crate) fn keep_replica(&self, id: PartitionId, replica: PartitionReplica) {
        self.orphaned.lock().insert(id, replica);
    }

    /// The replica that waits for an actor, if there is one. It waits until [`Self::put`].
    pub(crate) fn replica_without_actor(&self, id: PartitionId) -> Option<PartitionReplica> {
        self.orphaned.lock().get(&id).cloned()
    }
}
