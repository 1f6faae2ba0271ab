//! ControlActor: group 0 on this node. It forms the cluster once, makes this node known to it,
//! brings in what this node was started with, and starts the partitions placed here.
//!
//! Every turn looks at what is and takes the next step towards what should be; a step that fails
//! is tried again the next turn. So the order in which nodes start does not matter.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use model::{
    Catalogue, CatalogueChange, CatalogueEntry, NodeId, NodeRecord, PartitionId, Placement,
    ReplicaId, cluster,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use raft::{GroupId, Groups, Member, ReplicaGroup};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::client::{CatalogueClient, LocalPartition, LocalPartitions};
use crate::liveness::PeerLiveness;
use crate::partition::machine::{AppliedPartition, PartitionMachine};
use crate::partition::proposer::random;
use crate::partition::{self, PartitionActor, PartitionArguments};

pub(crate) mod machine;

/// How often it looks again where nothing woke it.
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);
/// Most voters of group 0; every other node follows it as a learner (decision 12).
const VOTERS_MAX: usize = 5;

/// Partitions that start at once: while one waits for the disk, another reads what came.
const PARTITIONS_AT_ONCE: usize = 4;

/// What the control actor is told.
pub(crate) enum Message {
    /// Look again.
    Reconcile,
}

/// What it is started with.
pub(crate) struct ControlArguments {
    pub(crate) node: NodeRecord,
    /// The first nodes; the lowest of them begins group 0.
    pub(crate) initial: Vec<NodeRecord>,
    pub(crate) partitions: u16,
    pub(crate) entries: Vec<CatalogueEntry>,
    pub(crate) groups: Groups,
    pub(crate) group: ReplicaGroup,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) liveness: Arc<PeerLiveness>,
    pub(crate) catalogue_client: CatalogueClient,
    pub(crate) running: LocalPartitions,
}

/// Its state.
pub(crate) struct State {
    arguments: ControlArguments,
    initialized: bool,
    /// What this node has to tell the cluster, in order.
    entries: VecDeque<CatalogueEntry>,
    registered: bool,
    _watches: Vec<AbortOnDropHandle<()>>,
}

pub(crate) struct ControlActor;

impl Actor for ControlActor {
    type Msg = Message;
    type State = State;
    type Arguments = ControlArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        mut arguments: ControlArguments,
    ) -> Result<State, ActorProcessingErr> {
        let entries = std::mem::take(&mut arguments.entries).into();
        let watch = AbortOnDropHandle::new(tokio::spawn(watch_catalogue(
            myself,
            arguments.catalogue.clone(),
        )));
        Ok(State {
            arguments,
            initialized: false,
            entries,
            registered: false,
            _watches: vec![watch],
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Reconcile => state.reconcile(&myself).await,
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(who, error) = &event {
            tracing::error!(%error, "a partition actor failed and is started again");
            state.arguments.running.forget_actor(who.get_id());
        }
        Ok(())
    }
}

async fn watch_catalogue(actor: ActorRef<Message>, mut catalogue: watch::Receiver<Arc<Catalogue>>) {
    loop {
        if actor.cast(Message::Reconcile).is_err() {
            return;
        }
        // A change wakes it; otherwise it looks again after a while.
        if let Ok(Err(_)) = tokio::time::timeout(RECONCILE_INTERVAL, catalogue.changed()).await {
            return;
        }
    }
}

impl State {
    async fn reconcile(&mut self, myself: &ActorRef<Message>) {
        self.initialize_group_0().await;
        self.add_learners().await;
        let catalogue = Arc::clone(&self.arguments.catalogue.borrow());
        if !catalogue.is_formed() {
            return self.form().await;
        }
        self.start_partitions(&catalogue, myself).await;
        self.catch_up_catalogue().await;
        if self.register_node(&catalogue).await {
            self.bring_in_entries().await;
        }
    }

    /// The lowest of the first nodes begins group 0, with all of them, once.
    async fn initialize_group_0(&mut self) {
        let lowest = self.arguments.initial.iter().map(|node| node.id).min();
        if self.initialized || lowest != Some(self.arguments.node.id) {
            return;
        }
        let members = self
            .arguments
            .initial
            .iter()
            .take(VOTERS_MAX)
            .map(|node| (ReplicaId(node.id.0), Member { node: node.id }))
            .collect();
        match self.arguments.group.initialize(members).await {
            Ok(()) => self.initialized = true,
            Err(error) => tracing::warn!(%error, "group 0 could not be begun yet"),
        }
    }

    /// Nodes that do not vote in group 0 follow it: its leader adds them.
    async fn add_learners(&self) {
        let status = self.arguments.group.status();
        if !status.ready {
            return;
        }
        for node in &self.arguments.initial {
            let replica = ReplicaId(node.id.0);
            if status.members.contains_key(&replica) {
                continue;
            }
            if let Err(error) =
                self.arguments.group.add_learner(replica, Member { node: node.id }).await
            {
                tracing::warn!(node = node.id.0, %error, "a node does not follow group 0 yet");
                return;
            }
        }
    }

    /// The leader of group 0 proposes the cluster: its id, its nodes, who holds what.
    async fn form(&self) {
        if !self.arguments.group.status().ready {
            return;
        }
        let nodes: Vec<NodeId> = self.arguments.initial.iter().map(|node| node.id).collect();
        let change = CatalogueChange::Form {
            cluster_id: random().to_string(),
            nodes: self.arguments.initial.clone(),
            placements: cluster::place(self.arguments.partitions, &nodes, ReplicaId(1)),
        };
        if let Err(error) = self.arguments.catalogue_client.make("form".to_owned(), change).await {
            tracing::warn!(%error, "the cluster could not be formed yet");
        }
    }

    /// Before this node denies anything to a client, it has heard the whole catalogue once.
    async fn catch_up_catalogue(&self) {
        if self.arguments.catalogue_client.is_initialized() {
            return;
        }
        if let Err(refusal) = self.arguments.catalogue_client.catch_up().await {
            tracing::info!(?refusal, "the catalogue is not complete on this node yet");
        }
    }

    /// Makes this node's addresses and data directory known. Whether they are.
    async fn register_node(&mut self, catalogue: &Catalogue) -> bool {
        let me = &self.arguments.node;
        if catalogue.nodes.get(&me.id) == Some(me) || self.registered {
            return true;
        }
        let id = format!("node:{}:{}", me.id, random());
        match self.arguments.catalogue_client.make(id, CatalogueChange::Node(me.clone())).await {
            Ok(()) => self.registered = true,
            Err(error) => tracing::warn!(%error, "this node could not make itself known yet"),
        }
        self.registered
    }

    async fn bring_in_entries(&mut self) {
        while let Some(entry) = self.entries.front() {
            if let Err(error) =
                self.arguments.catalogue_client.make(entry.id.clone(), entry.change.clone()).await
            {
                tracing::warn!(%error, entry = entry.id, "a definition could not be brought in yet");
                return;
            }
            self.entries.pop_front();
        }
    }

    async fn start_partitions(&self, catalogue: &Catalogue, myself: &ActorRef<Message>) {
        let mine = catalogue.placements.iter().filter_map(|(&partition, placement)| {
            let replica = placement.replica_on(self.arguments.node.id)?;
            self.arguments
                .running
                .get(partition)
                .is_none()
                .then_some((partition, replica, placement))
        });
        let start = async |(partition, replica, placement)| {
            if let Err(error) = self.start_partition(partition, replica, placement, myself).await {
                tracing::error!(partition = partition.0, %error, "a partition did not start on this node");
            }
        };
        futures::stream::iter(mine).for_each_concurrent(PARTITIONS_AT_ONCE, start).await;
    }

    async fn start_partition(
        &self,
        partition: PartitionId,
        replica: ReplicaId,
        placement: &Placement,
        myself: &ActorRef<Message>,
    ) -> Result<(), ActorProcessingErr> {
        let id = GroupId::from(partition);
        let (group, applied) = match self.arguments.running.take_replica(partition) {
            Some(kept) => kept,
            None => {
                let applied = AppliedPartition::new();
                let machine = PartitionMachine::new(Arc::clone(&applied));
                let group = self.arguments.groups.start(id, replica, Box::new(machine)).await?;
                (group, applied)
            }
        };
        let arguments = PartitionArguments {
            partition,
            group: group.clone(),
            applied: Arc::clone(&applied),
            catalogue: self.arguments.catalogue.clone(),
            liveness: Arc::clone(&self.arguments.liveness),
        };
        match self.spawn_actor(arguments, replica, placement, myself).await {
            Ok(actor) => {
                self.arguments.running.put(partition, LocalPartition { actor, group, applied });
                Ok(())
            }
            Err(error) => {
                // The replica runs, and a group runs only once: the next turn takes it from there.
                self.arguments.running.keep_replica(partition, (group, applied));
                Err(error)
            }
        }
    }

    /// Begins the group, if that is for this replica to do, and starts the actor of a running one.
    async fn spawn_actor(
        &self,
        arguments: PartitionArguments,
        replica: ReplicaId,
        placement: &Placement,
        myself: &ActorRef<Message>,
    ) -> Result<ActorRef<partition::Message>, ActorProcessingErr> {
        if placement.preferred == replica {
            arguments.group.initialize(members(&placement.replicas)).await?;
        }
        let (actor, _) =
            Actor::spawn_linked(None, PartitionActor, arguments, myself.get_cell()).await?;
        Ok(actor)
    }
}

fn members(replicas: &BTreeMap<ReplicaId, NodeId>) -> BTreeMap<ReplicaId, Member> {
    replicas.iter().map(|(replica, node)| (*replica, Member { node: *node })).collect()
}
