//! Root: starts group 0 and RootActor, which supervises the control actor, the partition actors and
//! the feeds' supervisor, and stops it all in the opposite order.
//!
//! Promise: each of them that fails has a successor, and partition actors outlive control actors.
//! Why they hang here and not under the control actor, which spawns them: an actor that ends takes
//! its children with it, so a defect in control would have ended every partition of the node.

use std::sync::Arc;
use std::time::Duration;

use model::{CatalogueEntry, NodeRecord, Procedures, ReplicaId};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use raft::{Fatal, GroupId, Groups};
use tokio_util::task::AbortOnDropHandle;

use crate::client::{CatalogueClient, ClusterStore, LeaderClient, LocalPartitions};
use crate::clock::{ClusterClock, WallClock};
use crate::condition::ConditionTask;
use crate::control::machine::CatalogueMachine;
use crate::control::{self, ControlActor, ControlArguments};
use crate::follow::{FeedMessage, FeedSupervisor, Follows};
use crate::handover::Handover;
use crate::liveness::PeerLiveness;
use crate::memory::Memory;
use crate::partition::branch_quota::BranchQuota;
use crate::peers::Peers;
use crate::status::FileBudget;
use crate::status::report::StatusReporter;

/// How long a drain waits for other nodes to take the lead.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What a node's actors are started with.
pub struct Config {
    /// This node, as the others shall know it.
    pub node: NodeRecord,
    /// The first nodes of the cluster, this one among them; their `http` and `data_id` may be
    /// empty, each node registers its own. All nodes must be given the same ids.
    pub initial: Vec<NodeRecord>,
    /// How many partitions a new cluster gets, for ever.
    pub partitions: u16,
    /// Changes of the catalogue that this node read from files. Same id, same change.
    pub entries: Vec<CatalogueEntry>,
    /// The replicas of this node.
    pub groups: Groups,
    /// The way to other nodes.
    pub peers: Arc<dyn Peers>,
    /// What an operator should know about how this node was started.
    pub warnings: Vec<String>,
    /// How this process shares out its open files, if it has seen to that.
    pub files: Option<FileBudget>,
    /// What this node may hold in memory, and what it holds.
    pub memory: Memory,
    /// This node's wall clock.
    pub clock: WallClock,
    /// How many branches one address may make by writes.
    pub branch_quota: BranchQuota,
    /// The stored procedures that commands may call. All nodes of a cluster have the same.
    pub procedures: Procedures,
    /// Of what all clients of a node share, what one address may hold alone, 1 to 100 percent; 100:
    /// addresses have no bound. Usually [`crate::limits::ADDRESS_PERCENT`].
    pub address_percent: u8,
}

/// Why a node's actors did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Group 0's replica is refused by its disk.
    #[error(transparent)]
    Group(#[from] Fatal),
    /// An actor did not start.
    #[error("an actor did not start: {0}")]
    Actor(#[from] ractor::SpawnErr),
}

/// The running actors of a node.
pub struct ActorTree {
    store: ClusterStore,
    pub(crate) root: ActorRef<Message>,
    conditions: AbortOnDropHandle<()>,
}

/// Starts the tree. The cluster forms by itself, in whatever order its nodes start.
///
/// # Errors
/// [`StartError`], with what to do about it where something can be done.
pub async fn start(config: Config) -> Result<ActorTree, StartError> {
    let (machine, catalogue) = CatalogueMachine::new();
    let applied_catalogue = machine.applied_catalogue();
    let id = config.node.id;
    let group_0 = config.groups.start(GroupId::CLUSTER, ReplicaId(id.0), machine).await?;
    let liveness = Arc::new(PeerLiveness::default());
    let partitions = LocalPartitions::default();
    let leaders = LeaderClient::new(
        id,
        (*group_0).clone(),
        catalogue.clone(),
        partitions.clone(),
        Arc::clone(&config.peers),
        Arc::clone(&liveness),
    );
    let (groups, fitness) = (config.groups.clone(), config.groups.fitness().clone());
    let clock = ClusterClock::new(config.clock, fitness.clone());
    let handover = Handover { groups, fitness, clock, liveness: Arc::clone(&liveness) };
    let catalogue_client = CatalogueClient::new(
        leaders.clone(),
        group_0.clone(),
        catalogue.clone(),
        catalogue.borrow().is_formed(),
        handover.clone(),
    );
    let conditions = ConditionTask {
        groups: config.groups.clone(),
        group_0: (*group_0).clone(),
        peers: Arc::clone(&config.peers),
        handover: handover.clone(),
        memory: config.memory.clone(),
    };
    let reporter = StatusReporter {
        node: id,
        catalogue: catalogue.clone(),
        applied_catalogue,
        partitions: partitions.clone(),
        peers: Arc::clone(&config.peers),
        liveness,
        handover: handover.clone(),
        leaders: leaders.clone(),
        catalogue_client: catalogue_client.clone(),
        warnings: config.warnings.into(),
        files: config.files,
        memory: config.memory,
        brought: config.entries.iter().map(|entry| entry.id.clone()).collect(),
        draining: Arc::default(),
    };
    let procedures = config.procedures.clone();
    let control = ControlArguments {
        node: config.node,
        initial: config.initial,
        partitions: config.partitions,
        entries: config.entries.into(),
        groups: config.groups,
        group: group_0,
        catalogue,
        handover,
        catalogue_client,
        running: partitions,
        procedures: config.procedures,
        branch_quota: config.branch_quota,
        address_percent: config.address_percent,
    };
    let store = ClusterStore::new(leaders, reporter, procedures, config.address_percent);
    let arguments = RootArguments { control, follows: store.0.follows.clone() };
    let (root, _) = Actor::spawn(None, RootActor, arguments).await?;
    let conditions = AbortOnDropHandle::new(tokio::spawn(conditions.run()));
    Ok(ActorTree { store, root, conditions })
}

impl ActorTree {
    /// The store, for the gateway and for other nodes.
    pub fn store(&self) -> ClusterStore {
        self.store.clone()
    }

    /// Makes this node not ready, and waits a while until it leads nothing that another could.
    pub async fn drain(&self) {
        self.store.drain();
        let deadline = tokio::time::Instant::now() + DRAIN_MAX;
        let leads_alone = |store: &ClusterStore| {
            store.0.partitions.all().iter().any(|(_, partition)| {
                let status = partition.group.status();
                status.is_leader && status.members.len() > 1
            })
        };
        while leads_alone(&self.store) && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the tree. The replicas stop with their `Groups`.
    pub async fn stop(&self) {
        // First: a follower whose source ends would look for another one.
        self.store.0.follows.stopped.cancel();
        self.conditions.abort();
        self.root.stop_children_and_wait(None, None).await;
        if let Err(error) = self.root.stop_and_wait(None, None).await {
            tracing::warn!(%error, "the actors' tree did not stop cleanly");
        }
    }
}

/// How long after an actor failed its successor is started: one that fails at once must not keep a
/// processor busy.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Messages of the root actor.
pub(crate) enum Message {
    /// Start a control actor in place of one that failed.
    StartControl,
    /// Start a supervisor of feeds in place of one that failed.
    StartFeeds,
    /// For tests: make the control actor fail.
    #[cfg(test)]
    PanicControl,
}

/// What the actors beneath it are started with.
struct RootArguments {
    control: ControlArguments,
    follows: Follows,
}

/// Its state.
struct State {
    arguments: RootArguments,
    control: ActorRef<control::Message>,
    feeds: ActorRef<FeedMessage>,
}

struct RootActor;

impl Actor for RootActor {
    type Msg = Message;
    type State = State;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: RootArguments,
    ) -> Result<State, ActorProcessingErr> {
        let control = spawn_control(&myself, arguments.control.clone()).await?;
        let feeds = spawn_feeds(&myself, arguments.follows.clone()).await?;
        Ok(State { arguments, control, feeds })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::StartControl => {
                match spawn_control(&myself, state.arguments.control.clone()).await {
                    Ok(control) => state.control = control,
                    Err(error) => {
                        tracing::error!(%error, "the control actor did not start; tried again");
                        myself.send_after(RESTART_PAUSE, || Message::StartControl);
                    }
                }
            }
            Message::StartFeeds => {
                match spawn_feeds(&myself, state.arguments.follows.clone()).await {
                    Ok(feeds) => state.feeds = feeds,
                    Err(error) => {
                        tracing::error!(%error, "the feeds' supervisor did not start; tried again");
                        myself.send_after(RESTART_PAUSE, || Message::StartFeeds);
                    }
                }
            }
            #[cfg(test)]
            Message::PanicControl => state.control.cast(control::Message::Panic)?,
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        // Only failures: an actor that was stopped belongs to a tree that is being stopped.
        let SupervisionEvent::ActorFailed(who, error) = event else { return Ok(()) };
        if who.get_id() == state.control.get_id() {
            tracing::error!(%error, "the control actor failed and is started again");
            myself.send_after(RESTART_PAUSE, || Message::StartControl);
        } else if who.get_id() == state.feeds.get_id() {
            // Its feeds ended with it: their followers tap again until there is a successor.
            tracing::error!(%error, "the feeds' supervisor failed and is started again");
            myself.send_after(RESTART_PAUSE, || Message::StartFeeds);
        } else {
            // The control actor finds the partition without an actor and gives it one.
            tracing::error!(%error, "a partition actor failed and is started again");
            state.arguments.control.running.forget_actor(who.get_id());
        }
        Ok(())
    }
}

async fn spawn_control(
    root: &ActorRef<Message>,
    arguments: ControlArguments,
) -> Result<ActorRef<control::Message>, ractor::SpawnErr> {
    let arguments = (arguments, root.get_cell());
    let (control, _) = Actor::spawn_linked(None, ControlActor, arguments, root.get_cell()).await?;
    Ok(control)
}

async fn spawn_feeds(
    root: &ActorRef<Message>,
    follows: Follows,
) -> Result<ActorRef<FeedMessage>, ractor::SpawnErr> {
    let (feeds, _) = Actor::spawn_linked(None, FeedSupervisor, follows, root.get_cell()).await?;
    Ok(feeds)
}
