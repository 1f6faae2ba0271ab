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
use crate::partition::machine::{PartitionMachine, Published};
use crate::partition::proposer::chance;
use crate::partition::{self, PartitionActor};

pub(crate) mod machine;

/// How often it looks again where nothing woke it.
const TURN: Duration = Duration::from_millis(500);
/// Most voters of group 0; every other node follows it as a learner (decision 12).
const VOTERS_MAX: usize = 5;

/// LocalPartitions that start at once: while one waits for the disk, another reads what came.
const PARTITIONS_AT_ONCE: usize = 4;

/// What the control actor is told.
pub(crate) enum Message {
    /// Look again.
    Turn,
}

/// What it is started with.
pub(crate) struct Start {
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
    start: Start,
    begun: bool,
    /// What this node has to tell the cluster, in order.
    to_tell: VecDeque<CatalogueEntry>,
    told_itself: bool,
    _watches: Vec<AbortOnDropHandle<()>>,
}

pub(crate) struct ControlActor;

impl Actor for ControlActor {
    type Msg = Message;
    type State = State;
    type Arguments = Start;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        mut start: Start,
    ) -> Result<State, ActorProcessingErr> {
        let to_tell = std::mem::take(&mut start.entries).into();
        let watch = AbortOnDropHandle::new(tokio::spawn(wake(myself, start.catalogue.clone())));
        Ok(State { start, begun: false, to_tell, told_itself: false, _watches: vec![watch] })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Turn => state.turn(&myself).await,
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
            state.start.running.forget_actor(who.get_id());
        }
        Ok(())
    }
}

async fn wake(actor: ActorRef<Message>, mut catalogue: watch::Receiver<Arc<Catalogue>>) {
    loop {
        if actor.cast(Message::Turn).is_err() {
            return;
        }
        // A change wakes it; otherwise it looks again after a while.
        if let Ok(Err(_)) = tokio::time::timeout(TURN, catalogue.changed()).await {
            return;
        }
    }
}

impl State {
    async fn turn(&mut self, myself: &ActorRef<Message>) {
        self.begin_group_0().await;
        self.let_all_follow().await;
        let catalogue = Arc::clone(&self.start.catalogue.borrow());
        if !catalogue.is_formed() {
            return self.form().await;
        }
        self.start_partitions(&catalogue, myself).await;
        self.learn_what_there_is().await;
        if self.tell_itself(&catalogue).await {
            self.tell_the_rest().await;
        }
    }

    /// The lowest of the first nodes begins group 0, with all of them, once.
    async fn begin_group_0(&mut self) {
        let lowest = self.start.initial.iter().map(|node| node.id).min();
        if self.begun || lowest != Some(self.start.node.id) {
            return;
        }
        let members = self
            .start
            .initial
            .iter()
            .take(VOTERS_MAX)
            .map(|node| (ReplicaId(node.id.0), Member { node: node.id }))
            .collect();
        match self.start.group.initialize(members).await {
            Ok(()) => self.begun = true,
            Err(error) => tracing::warn!(%error, "group 0 could not be begun yet"),
        }
    }

    /// Nodes that do not vote in group 0 follow it: its leader adds them.
    async fn let_all_follow(&self) {
        let status = self.start.group.status();
        if !status.ready {
            return;
        }
        for node in &self.start.initial {
            let replica = ReplicaId(node.id.0);
            if status.members.contains_key(&replica) {
                continue;
            }
            if let Err(error) =
                self.start.group.add_learner(replica, Member { node: node.id }).await
            {
                tracing::warn!(node = node.id.0, %error, "a node does not follow group 0 yet");
                return;
            }
        }
    }

    /// The leader of group 0 proposes the cluster: its id, its nodes, who holds what.
    async fn form(&self) {
        if !self.start.group.status().ready {
            return;
        }
        let nodes: Vec<NodeId> = self.start.initial.iter().map(|node| node.id).collect();
        let change = CatalogueChange::Form {
            cluster_id: chance().to_string(),
            nodes: self.start.initial.clone(),
            placements: cluster::place(self.start.partitions, &nodes, ReplicaId(1)),
        };
        if let Err(error) = self.start.catalogue_client.make("form".to_owned(), change).await {
            tracing::warn!(%error, "the cluster could not be formed yet");
        }
    }

    /// Before this node denies anything to a client, it has heard the whole catalogue once.
    async fn learn_what_there_is(&self) {
        if self.start.catalogue_client.is_initialized() {
            return;
        }
        if let Err(refusal) = self.start.catalogue_client.catch_up().await {
            tracing::info!(?refusal, "the catalogue is not complete on this node yet");
        }
    }

    /// Makes this node's addresses and data directory known. Whether they are.
    async fn tell_itself(&mut self, catalogue: &Catalogue) -> bool {
        let me = &self.start.node;
        if catalogue.nodes.get(&me.id) == Some(me) || self.told_itself {
            return true;
        }
        let id = format!("node:{}:{}", me.id, chance());
        match self.start.catalogue_client.make(id, CatalogueChange::Node(me.clone())).await {
            Ok(()) => self.told_itself = true,
            Err(error) => tracing::warn!(%error, "this node could not make itself known yet"),
        }
        self.told_itself
    }

    async fn tell_the_rest(&mut self) {
        while let Some(entry) = self.to_tell.front() {
            if let Err(error) =
                self.start.catalogue_client.make(entry.id.clone(), entry.change.clone()).await
            {
                tracing::warn!(%error, entry = entry.id, "a definition could not be brought in yet");
                return;
            }
            self.to_tell.pop_front();
        }
    }

    async fn start_partitions(&self, catalogue: &Catalogue, myself: &ActorRef<Message>) {
        let mine = catalogue.placements.iter().filter_map(|(&partition, placement)| {
            let replica = placement.replica_on(self.start.node.id)?;
            self.start.running.get(partition).is_none().then_some((partition, replica, placement))
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
        let (group, published) = match self.start.running.take_replica(partition) {
            Some(kept) => kept,
            None => {
                let published = Published::new();
                let machine = PartitionMachine::new(Arc::clone(&published));
                let group = self.start.groups.start(id, replica, Box::new(machine)).await?;
                (group, published)
            }
        };
        let start = partition::Start {
            partition,
            group: group.clone(),
            published: Arc::clone(&published),
            catalogue: self.start.catalogue.clone(),
            liveness: Arc::clone(&self.start.liveness),
        };
        match self.begin(start, replica, placement, myself).await {
            Ok(actor) => {
                self.start.running.put(partition, LocalPartition { actor, group, published });
                Ok(())
            }
            Err(error) => {
                // The replica runs, and a group runs only once: the next turn takes it from there.
                self.start.running.keep_replica(partition, (group, published));
                Err(error)
            }
        }
    }

    /// Begins the group, if that is for this replica to do, and starts the actor of a running one.
    async fn begin(
        &self,
        start: partition::Start,
        replica: ReplicaId,
        placement: &Placement,
        myself: &ActorRef<Message>,
    ) -> Result<ActorRef<partition::Message>, ActorProcessingErr> {
        if placement.preferred == replica {
            start.group.initialize(members(&placement.replicas)).await?;
        }
        let (actor, _) =
            Actor::spawn_linked(None, PartitionActor, start, myself.get_cell()).await?;
        Ok(actor)
    }
}

fn members(replicas: &BTreeMap<ReplicaId, NodeId>) -> BTreeMap<ReplicaId, Member> {
    replicas.iter().map(|(replica, node)| (*replica, Member { node: *node })).collect()
}
