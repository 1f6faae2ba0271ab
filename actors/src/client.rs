//! ClusterStore: the one door to branches. It finds who leads a branch's partition, here or on another
//! node, and tries within the deadline, always under the same command id: so a caller sees
//! latency, not the cluster's troubles.
//!
//! Promise: `Unavailable` and `Busy` mean nothing was done. Once a command may have reached a
//! leader and no outcome is known, the answer is `Indeterminate`, never "failed".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::{
    BranchKey, Catalogue, Command, NodeId, Outcome, PartitionId, Procedures, Request,
    SERVER_SESSION,
};
use parking_lot::{Mutex, RwLock};
use ractor::{ActorId, ActorRef};
use raft::{Priority, TypedGroup};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::control::machine::AppliedCatalogue;
use crate::limits::{
    ATTEMPT_TIMEOUT, LARGE_COMMAND_BYTES, NODE_PERMITS, REQUEST_DEADLINE, RETRY_PAUSE,
};
use crate::liveness::PeerLiveness;
use crate::message::{BusyScope, PeerCast, PeerReply, PeerRequest, Refusal, decode, encode};
use crate::offload::offload;
use crate::partition;
use crate::partition::activations::Activations;
use crate::partition::branch::Submission;
use crate::partition::machine::{AppliedPartition, PartitionMachine};
use crate::partition::proposer::{OutcomeSender, rough_bytes};
use crate::peers::{PeerError, Peers};
use crate::status::FileBudget;
use crate::store::RouteError;

pub(crate) mod catalogue;
mod cluster_store;
pub(crate) mod reads;

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

/// The one door to branches. Cheap to clone.
#[derive(Clone)]
pub struct ClusterStore(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    /// Where group 0 stands here.
    pub(crate) applied_catalogue: AppliedCatalogue,
    pub(crate) partitions: LocalPartitions,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) liveness: Arc<PeerLiveness>,
    pub(crate) catalogue_client: catalogue::CatalogueClient,
    pub(crate) draining: AtomicBool,
    pub(crate) warnings: Vec<String>,
    pub(crate) files: Option<FileBudget>,
    /// The ids of the catalogue_client this node brings: it can serve once it knows them all itself.
    pub(crate) brought: Vec<String>,
    permits: Arc<Semaphore>,
    /// Who was last seen to lead a partition this node holds no replica of.
    hints: Mutex<BTreeMap<PartitionId, NodeId>>,
    pub(crate) feeds: crate::follow::remote::Feeds,
    pub(crate) procedures: Procedures,
    pub(crate) topics: crate::topics::Topics,
}

/// What a store is made of.
pub(crate) struct Parts {
    pub(crate) node: NodeId,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    /// Where group 0 stands here.
    pub(crate) applied_catalogue: AppliedCatalogue,
    pub(crate) partitions: LocalPartitions,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) liveness: Arc<PeerLiveness>,
    pub(crate) catalogue_client: catalogue::CatalogueClient,
    pub(crate) warnings: Vec<String>,
    pub(crate) files: Option<FileBudget>,
    /// The ids of the catalogue_client this node brings: it can serve once it knows them all itself.
    pub(crate) brought: Vec<String>,
    pub(crate) feeds: crate::follow::remote::Feeds,
    pub(crate) procedures: Procedures,
}

/// What one attempt gave, when it gave no outcome.
enum Attempt {
    /// Nothing was done: another attempt is safe and may help.
    Again(Refusal),
    /// It may have been done: another attempt under the same id is safe and may tell.
    Unknown,
}

impl ClusterStore {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            node: parts.node,
            catalogue: parts.catalogue,
            applied_catalogue: parts.applied_catalogue,
            partitions: parts.partitions,
            peers: parts.peers,
            liveness: parts.liveness,
            catalogue_client: parts.catalogue_client,
            warnings: parts.warnings,
            files: parts.files,
            brought: parts.brought,
            feeds: parts.feeds,
            procedures: parts.procedures,
            topics: crate::topics::Topics::default(),
            draining: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(NODE_PERMITS)),
            hints: Mutex::default(),
        }))
    }

    /// The partition of a branch:module that exists or could.
    pub(crate) fn locate(&self, key: &BranchKey) -> Result<PartitionId, RouteError> {
        let catalogue = self.0.catalogue.borrow();
        let partition = catalogue.partition_of(key).ok_or_else(|| RouteError::Unavailable {
            reason: "the cluster is still forming".to_owned(),
            retry_after: Duration::from_secs(1),
        })?;
        if !catalogue.knows_branch(&key.branch) {
            return Err(RouteError::UnknownBranch(key.branch.to_string()));
        }
        if catalogue.module(&key.module).is_none() {
            return Err(RouteError::UnknownModule(key.module.to_string()));
        }
        Ok(partition)
    }

    /// The same, and a branch or module that is not known here may have been made elsewhere a
    /// moment ago: it is denied only by what the cluster has agreed on.
    pub(crate) async fn find(&self, key: &BranchKey) -> Result<PartitionId, RouteError> {
        match self.locate(key) {
            Err(RouteError::UnknownModule(_) | RouteError::UnknownBranch(_)) => {
                self.0.catalogue_client.catch_up().await.map_err(reads::read_error)?;
                self.locate(key)
            }
            known => known,
        }
    }

    pub(crate) async fn submit_with_retries(
        &self,
        mut command: Command,
    ) -> Result<Outcome, RouteError> {
        let partition = self.find(&command.key).await?;
        // The cluster's own commands have a session that no client can name.
        if command.id.session.starts_with('@') && command.id.session != SERVER_SESSION {
            command.id.session.insert(0, '@');
        }
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let mut maybe_done = false;
        loop {
            let refusal = match self.attempt(partition, &command, deadline).await {
                Ok(outcome) => return Ok(outcome),
                Err(Attempt::Again(Refusal::Busy { what })) if !maybe_done => {
                    return Err(busy(what));
                }
                Err(Attempt::Again(refusal)) => refusal,
                Err(Attempt::Unknown) => {
                    maybe_done = true;
                    Refusal::Indeterminate
                }
            };
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(final_word(refusal, maybe_done));
            }
            metrics::counter!("mishkah_router_retries_total").increment(1);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        partition: PartitionId,
        command: &Command,
        deadline: Instant,
    ) -> Result<Outcome, Attempt> {
        let Some(leader) = self.leader_of(partition) else {
            return Err(Attempt::Again(no_leader()));
        };
        let timeout = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT_TIMEOUT);
        if leader == self.0.node {
            return self.decide_here(partition, command.clone(), timeout).await.map_err(attempt);
        }
        let message =
            offload(rough_bytes(command), || encode(&PeerRequest::Submit(command.clone())));
        let lane = lane_of(command, message.len());
        let reply = match self.ask_leader(partition, leader, lane, message, timeout).await {
            Ok(reply) => reply,
            Err(PeerError::NoAnswer { .. }) => {
                self.forget_leader(partition);
                return Err(Attempt::Unknown);
            }
            Err(PeerError::Unreachable { .. } | PeerError::Full { .. }) => {
                self.forget_leader(partition);
                return Err(Attempt::Again(no_leader()));
            }
        };
        match offload(reply.len(), || decode(&reply)) {
            Ok(PeerReply::Outcome(outcome)) => Ok(outcome),
            Ok(PeerReply::Refused(refusal)) => {
                self.learn(partition, &refusal);
                Err(attempt(refusal))
            }
            Ok(_) | Err(_) => Err(Attempt::Unknown),
        }
    }

    /// Asks the leader of a partition. One that has lost its office meanwhile, because it hangs or
    /// is cut off, is waited for no longer than until its successor is known here.
    pub(crate) async fn ask_leader(
        &self,
        partition: PartitionId,
        leader: NodeId,
        lane: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let call = self.0.peers.call(leader, lane, message, timeout);
        let Some(local) = self.0.partitions.get(partition) else { return call.await };
        tokio::select! {
            biased;
            reply = call => reply,
            () = local.group.led_by_another(leader) => {
                Err(PeerError::NoAnswer { node: leader, reason: "another node leads now".to_owned() })
            }
        }
    }

    /// Has a command decided by this node's replica, if it leads.
    pub(crate) async fn decide_here(
        &self,
        partition: PartitionId,
        command: Command,
        timeout: Duration,
    ) -> Result<Outcome, Refusal> {
        let Some(local) = self.0.partitions.get(partition) else {
            return Err(Refusal::NotLeader { hint: None });
        };
        let permit = Arc::clone(&self.0.permits)
            .try_acquire_owned()
            .map_err(|_| Refusal::Busy { what: BusyScope::Node })?;
        let (reply, outcome) = OutcomeSender::new(permit);
        let submission = Submission { command, reply };
        // Straight to the branch's actor. Without one, or while it ends, the partition's actor
        // starts the next.
        if let Err(submission) = local.activations.submit(submission)
            && local.actor.cast(partition::Message::Submit(submission)).is_err()
        {
            return Err(no_leader());
        }
        match tokio::time::timeout(timeout, outcome).await {
            Ok(Ok(outcome)) => outcome,
            // The branch's actor failed with the command in its hands, or the log is slow.
            Ok(Err(_)) | Err(_) => Err(Refusal::Indeterminate),
        }
    }

    /// Who leads a partition, as far as this node knows.
    pub(crate) fn leader_of(&self, partition: PartitionId) -> Option<NodeId> {
        if let Some(local) = self.0.partitions.get(partition) {
            return local.group.status().leader.map(|(_, node)| node);
        }
        if let Some(hint) = self.0.hints.lock().get(&partition) {
            return Some(*hint);
        }
        let catalogue = self.0.catalogue.borrow();
        let placement = catalogue.placements.get(&partition)?;
        let up = |node: &&NodeId| self.0.liveness.is_up(**node);
        placement
            .preferred_node()
            .filter(|node| up(&node))
            .or_else(|| placement.replicas.values().find(up).copied())
    }

    fn learn(&self, partition: PartitionId, refusal: &Refusal) {
        if let Refusal::NotLeader { hint } = refusal {
            let mut hints = self.0.hints.lock();
            match hint {
                Some(node) => hints.insert(partition, *node),
                None => hints.remove(&partition),
            };
        }
    }

    fn forget_leader(&self, partition: PartitionId) {
        self.0.hints.lock().remove(&partition);
    }

    /// From now on this node is not ready, and its partitions are led elsewhere where possible.
    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        let leaving = encode(&PeerCast::Draining);
        for node in self.0.catalogue.borrow().nodes.keys().filter(|node| **node != self.0.node) {
            // A peer that is linked only later gives no lead before the link has stood for a while.
            let _ = self.0.peers.cast(*node, Priority::Call, leaving.clone());
        }
        for (_, partition) in self.0.partitions.all() {
            // An actor that ended leads nothing.
            let _ = partition.actor.cast(partition::Message::Drain);
        }
    }
}

/// The lane of a command on its way to its leader: large ones, and those whose answer may be
/// large, go with the bulk.
fn lane_of(command: &Command, bytes: usize) -> Priority {
    let acts_on_module = matches!(
        command.request,
        Request::Purge(_) | Request::Restore(_) | Request::Reset(_) | Request::Replace(_)
    );
    if acts_on_module || bytes > LARGE_COMMAND_BYTES { Priority::Bulk } else { Priority::Call }
}

fn attempt(refusal: Refusal) -> Attempt {
    match refusal {
        Refusal::Indeterminate => Attempt::Unknown,
        Refusal::NotLeader { .. } | Refusal::Busy { .. } | Refusal::Unavailable { .. } => {
            Attempt::Again(refusal)
        }
    }
}

fn no_leader() -> Refusal {
    Refusal::Unavailable {
        reason: "no leader is known for this branch's partition".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}

pub(crate) fn busy(what: BusyScope) -> RouteError {
    let what = match what {
        BusyScope::Branch => "this branch",
        BusyScope::Node => "this node",
    };
    RouteError::Busy { what, retry_after: Duration::from_secs(1) }
}

pub(crate) fn final_word(refusal: Refusal, maybe_done: bool) -> RouteError {
    match refusal {
        _ if maybe_done => RouteError::Indeterminate,
        Refusal::Indeterminate => RouteError::Indeterminate,
        Refusal::Busy { what } => busy(what),
        Refusal::Unavailable { reason, retry_after } => {
            RouteError::Unavailable { reason, retry_after }
        }
        Refusal::NotLeader { .. } => final_word(no_leader(), false),
    }
}
