//! ControlActor: group 0 on this node. It forms the cluster once, registers this node, brings in
//! what this node was started with, and starts the partitions placed here.
//!
//! `model::cluster::plan` decides which step comes next; this actor observes, executes one step,
//! and looks again. A step that fails is postponed, so that it holds up no other, and tried again
//! in the next round.
//!
//! Promise: when this actor fails, RootActor starts a successor, which observes everything anew and
//! goes on. Partition actors hang under RootActor too, so they outlive it.
//! Refused: deciding what comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use model::cluster::plan::{Observation, Step, next_step};
use model::{
    Catalogue, CatalogueChange, CatalogueEntry, NodeId, NodeRecord, PartitionId, Placement,
    Procedures, ReplicaId,
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use raft::{GroupId, Groups, Member, TypedGroup};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::client::{CatalogueClient, LocalPartition, LocalPartitions};
use crate::handover::Handover;
use crate::level_gate::LevelGate;
use crate::partition::activations::Activations;
use crate::partition::applied::AppliedPartition;
use crate::partition::branch_quota::BranchQuota;
use crate::partition::machine::PartitionMachine;
use crate::partition::proposer::random;
use crate::partition::{PartitionActor, PartitionArguments};

pub(crate) mod machine;

use machine::CatalogueMachine;

/// How soon postponed steps are tried again where no change of the catalogue comes before.
const ROUND_INTERVAL: Duration = Duration::from_millis(500);

/// Partitions that start at once: while one waits for the disk, another reads what came.
const PARTITIONS_AT_ONCE: usize = 4;

/// Messages of the control actor.
pub(crate) enum Message {
    /// Take the next step.
    Step {
        /// Whether steps that failed are tried again.
        new_round: bool,
        /// Whether there was a step to take.
        taken: oneshot::Sender<bool>,
    },
    /// For tests: fail, as a defect would.
    #[cfg(test)]
    Panic,
}

/// What a control actor is spawned with. Cloned for each successor.
#[derive(Clone)]
pub(crate) struct ControlArguments {
    pub(crate) node: NodeRecord,
    /// The first nodes; the lowest of them initializes group 0.
    pub(crate) initial: Vec<NodeRecord>,
    pub(crate) partitions: u16,
    pub(crate) entries: Arc<[CatalogueEntry]>,
    pub(crate) groups: Groups,
    pub(crate) group: TypedGroup<CatalogueMachine>,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) handover: Handover,
    pub(crate) catalogue_client: CatalogueClient,
    pub(crate) running: LocalPartitions,
    pub(crate) procedures: Procedures,
    pub(crate) branch_quota: BranchQuota,
    /// Of what clients share, what one address may hold, in percent.
    pub(crate) address_percent: u8,
}

/// Its state.
pub(crate) struct State {
    arguments: ControlArguments,
    /// The supervisor of the partition actors it spawns.
    root: ActorCell,
    observed: Observation,
    _driver: AbortOnDropHandle<()>,
}

pub(crate) struct ControlActor;

impl Actor for ControlActor {
    type Msg = Message;
    type State = State;
    type Arguments = (ControlArguments, ActorCell);

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        (arguments, root): (ControlArguments, ActorCell),
    ) -> Result<State, ActorProcessingErr> {
        let observed = Observation {
            node: arguments.node.clone(),
            initial: arguments.initial.iter().map(|node| node.id).collect(),
            partitions: arguments.partitions,
            group_0_members: BTreeSet::new(),
            leads_group_0: false,
            running: BTreeSet::new(),
            catalogue_complete: false,
            entries: arguments.entries.iter().map(|entry| entry.id.clone()).collect(),
            done: Vec::new(),
            postponed: Vec::new(),
        };
        let driver =
            AbortOnDropHandle::new(tokio::spawn(drive(myself, arguments.catalogue.clone())));
        Ok(State { arguments, root, observed, _driver: driver })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Step { new_round, taken } => {
                if new_round {
                    state.begin_round();
                }
                // The driver ends with this actor: nobody needs an answer that nobody receives.
                let _ = taken.send(state.take_step().await);
            }
            #[cfg(test)]
            Message::Panic => panic!("a test asked for it"),
        }
        Ok(())
    }
}

/// Has the actor take one step after the other until there is none, then waits for a change. One
/// message at a time: steps that take long must not pile up others behind them.
async fn drive(actor: ActorRef<Message>, mut catalogue: watch::Receiver<Arc<Catalogue>>) {
    let mut new_round = true;
    loop {
        let (taken, was_taken) = oneshot::channel();
        if actor.cast(Message::Step { new_round, taken }).is_err() {
            return;
        }
        // No answer: the actor failed, and its successor has a driver of its own.
        let Ok(was_taken) = was_taken.await else { return };
        new_round = !was_taken;
        if new_round
            && let Ok(Err(_)) = tokio::time::timeout(ROUND_INTERVAL, catalogue.changed()).await
        {
            return; // Group 0's machine is gone: this node stops.
        }
    }
}

impl State {
    /// Steps that failed are tried again. What was done in the last round shows by now wherever it
    /// can be observed; what only the catalogue shows may take longer, and is not proposed twice.
    fn begin_round(&mut self) {
        self.observed.postponed.clear();
        self.observed.done.retain(|step| match step {
            Step::RegisterNode | Step::BringInEntry { .. } => true,
            Step::InitializeGroup0 { .. }
            | Step::AddLearner(_)
            | Step::FormCluster { .. }
            | Step::StartPartitions(_)
            | Step::CatchUpCatalogue => false,
        });
    }

    fn observe(&mut self) {
        let status = self.arguments.group.status();
        let observed = &mut self.observed;
        observed.group_0_members = status.members.values().map(|(node, _)| *node).collect();
        observed.leads_group_0 = status.ready;
        observed.running = self.arguments.running.all().into_iter().map(|(id, _)| id).collect();
        observed.catalogue_complete = self.arguments.catalogue_client.is_initialized();
    }

    /// What is brought in is not looked at again with each change of the catalogue.
    fn forget_brought(&mut self, catalogue: &Catalogue) {
        let entries = &mut self.observed.entries;
        let brought = entries.iter().take_while(|id| catalogue.has_applied(id)).count();
        for id in entries.drain(..brought) {
            self.observed.done.retain(|step| *step != Step::BringInEntry { id: id.clone() });
        }
    }

    /// Takes the next step. Whether there was one.
    async fn take_step(&mut self) -> bool {
        self.observe();
        let catalogue = Arc::clone(&self.arguments.catalogue.borrow());
        self.forget_brought(&catalogue);
        let Some(step) = next_step(&catalogue, &self.observed) else { return false };
        if let Step::StartPartitions(partitions) = &step {
            let failed = self.start_partitions(partitions, &catalogue).await;
            // Each alone, so that the next step is for the others. Those that started are observed.
            let failed = failed.into_iter().map(|partition| Step::StartPartitions(vec![partition]));
            self.observed.postponed.extend(failed);
            return true;
        }
        match self.execute(&step).await {
            Ok(()) => self.observed.done.push(step),
            Err(error) => {
                tracing::warn!(%error, "it is tried again, after it failed: {step}");
                self.observed.postponed.push(step);
            }
        }
        true
    }

    /// Executes a step. Each is safe to repeat: who fails in the middle of one leaves it to its
    /// successor.
    async fn execute(&self, step: &Step) -> Result<(), ActorProcessingErr> {
        let ControlArguments { node, initial, group, catalogue_client, .. } = &self.arguments;
        match step {
            Step::InitializeGroup0 { voters } => {
                let member = |node: &NodeId| (ReplicaId(node.0), Member { node: *node });
                group.initialize(voters.iter().map(member).collect()).await?;
            }
            Step::AddLearner(node) => {
                group.add_learner(ReplicaId(node.0), Member { node: *node }).await?;
            }
            Step::FormCluster { placements } => {
                let (cluster_id, nodes) = (random().to_string(), initial.clone());
                let placements = placements.clone();
                let change = CatalogueChange::Form { cluster_id, nodes, placements };
                catalogue_client.make("form".to_owned(), change).await?;
            }
            Step::StartPartitions(_) => {} // `take_step` has done it: some may fail and some not.
            Step::CatchUpCatalogue => {
                let refused = |refusal| ActorProcessingErr::from(format!("{refusal:?}"));
                catalogue_client.catch_up().await.map_err(refused)?;
            }
            Step::RegisterNode => {
                // The same record again, after another one, must not count as taken before.
                let id = format!("node:{}:{}", node.id, random());
                catalogue_client.make(id, CatalogueChange::Node(node.clone())).await?;
            }
            Step::BringInEntry { id } => {
                let entry = self.arguments.entries.iter().find(|entry| entry.id == *id);
                let entry = entry.ok_or_else(|| format!("no change {id} was brought"))?;
                catalogue_client.make(entry.id.clone(), entry.change.clone()).await?;
            }
        }
        Ok(())
    }

    /// Starts these partitions, several at once. Gives those that failed.
    async fn start_partitions(
        &self,
        partitions: &[PartitionId],
        catalogue: &Catalogue,
    ) -> Vec<PartitionId> {
        let start = async |partition| {
            let placement = catalogue.placements.get(&partition)?;
            let replica = placement.replica_on(self.arguments.node.id)?;
            let error = self.start_partition(partition, replica, placement).await.err()?;
            tracing::error!(
                partition = partition.0,
                %error,
                "a partition did not start on this node"
            );
            Some(partition)
        };
        let started = futures::stream::iter(partitions.iter().copied())
            .map(start)
            .buffer_unordered(PARTITIONS_AT_ONCE);
        started.filter_map(std::future::ready).collect().await
    }

    async fn start_partition(
        &self,
        partition: PartitionId,
        replica: ReplicaId,
        placement: &Placement,
    ) -> Result<(), ActorProcessingErr> {
        let ControlArguments { groups, catalogue, handover, running, .. } = &self.arguments;
        let (group, applied) = match running.replica_without_actor(partition) {
            Some(kept) => kept,
            None => {
                let applied = AppliedPartition::new();
                let procedures = self.arguments.procedures.clone();
                let machine = PartitionMachine::new(Arc::clone(&applied), procedures);
                let group = groups.start(GroupId::from(partition), replica, machine).await?;
                // Kept at once: a group runs only once, so that a replica which nobody knows of
                // could never be given an actor.
                running.keep_replica(partition, (group.clone(), Arc::clone(&applied)));
                (group, applied)
            }
        };
        if placement.preferred == replica {
            group.initialize(members(&placement.replicas)).await?;
        }
        let activations = Activations::new(self.arguments.address_percent);
        let arguments = PartitionArguments {
            partition,
            group: group.clone(),
            applied: Arc::clone(&applied),
            catalogue: catalogue.clone(),
            levels: LevelGate::new(catalogue.clone(), self.arguments.procedures.clone()),
            handover: handover.clone(),
            activations: activations.clone(),
            branch_quota: self.arguments.branch_quota,
        };
        let (actor, _) =
            Actor::spawn_linked(None, PartitionActor, arguments, self.root.clone()).await?;
        running.put(partition, LocalPartition { actor, activations, group, applied });
        Ok(())
    }
}

fn members(replicas: &BTreeMap<ReplicaId, NodeId>) -> BTreeMap<ReplicaId, Member> {
    replicas.iter().map(|(replica, node)| (*replica, Member { node: *node })).collect()
}
