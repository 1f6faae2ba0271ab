//! Root: the root of the actors' tree: starts group 0 and the control actor, which starts the
//! rest, and stops it all in the opposite order.

use std::sync::Arc;
use std::time::Duration;

use model::{CatalogueEntry, NodeRecord, ReplicaId};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use raft::{Fatal, GroupId, Groups};

use crate::client::{CatalogueClient, ClusterStore, LeaderClient, LocalPartitions};
use crate::control::machine::CatalogueMachine;
use crate::control::{ControlActor, ControlArguments};
use crate::liveness::PeerLiveness;
use crate::peers::Peers;
use crate::status::FileBudget;
use crate::status::report::StatusReporter;

/// How long a drain waits for other nodes to take the lead.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What this crate is started with.
pub struct Config {
    /// This node, as the others shall know it.
    pub node: NodeRecord,
    /// The first nodes of the cluster, this one among them; their `http` and `data_id` may be
    /// empty, each node tells its own. All nodes must be given the same ids.
    pub initial: Vec<NodeRecord>,
    /// How many partitions a new cluster gets, for ever.
    pub partitions: u16,
    /// Changes of the catalogue this node brings: what it read from files. Same id, same change.
    pub entries: Vec<CatalogueEntry>,
    /// The replicas of this node.
    pub groups: Groups,
    /// The way to other nodes.
    pub peers: Arc<dyn Peers>,
    /// What an operator should know about how this node was started.
    pub warnings: Vec<String>,
    /// How this process shares out its open files, if it has seen to that.
    pub files: Option<FileBudget>,
}

/// Why this crate did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Group 0's replica is refused by its disk.
    #[error(transparent)]
    Group(#[from] Fatal),
    /// An actor did not start.
    #[error("an actor did not start: {0}")]
    Actor(#[from] ractor::SpawnErr),
}

/// The running tree.
pub struct ActorTree {
    store: ClusterStore,
    root: ActorRef<()>,
}

/// Starts the tree. The cluster forms by itself, in whatever order its nodes start.
///
/// # Errors
/// [`StartError`], with what to do about it where something can be done.
pub async fn start(config: Config) -> Result<ActorTree, StartError> {
    let (machine, catalogue) = CatalogueMachine::new();
    let applied_catalogue = machine.applied_catalogue();
    let id = config.node.id;
    let group_0 = config.groups.start(GroupId::CLUSTER, ReplicaId(id.0), Box::new(machine)).await?;
    let liveness = Arc::new(PeerLiveness::default());
    let partitions = LocalPartitions::default();
    let is_initialized = catalogue.borrow().is_formed();
    let leaders = LeaderClient::new(
        id,
        group_0.clone(),
        catalogue.clone(),
        partitions.clone(),
        Arc::clone(&config.peers),
        Arc::clone(&liveness),
    );
    let catalogue_client =
        CatalogueClient::new(leaders.clone(), group_0.clone(), catalogue.clone(), is_initialized);
    let (root, _) = Actor::spawn(None, RootActor, ()).await?;
    let reporter = StatusReporter {
        node: id,
        catalogue: catalogue.clone(),
        applied_catalogue,
        partitions: partitions.clone(),
        peers: Arc::clone(&config.peers),
        liveness: Arc::clone(&liveness),
        leaders: leaders.clone(),
        catalogue_client: catalogue_client.clone(),
        warnings: config.warnings.into(),
        files: config.files,
        brought: config.entries.iter().map(|entry| entry.id.clone()).collect(),
        draining: Arc::default(),
    };
    let store = ClusterStore::start(leaders, reporter, &root.get_cell()).await?;
    let control = ControlArguments {
        node: config.node,
        initial: config.initial,
        partitions: config.partitions,
        entries: config.entries,
        groups: config.groups,
        group: group_0,
        catalogue,
        liveness,
        catalogue_client,
        running: partitions,
    };
    let (_, _) = Actor::spawn_linked(None, ControlActor, control, root.get_cell()).await?;
    Ok(ActorTree { store, root })
}

impl ActorTree {
    /// The cluster's branches, for the gateway and for other nodes.
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
        self.root.stop_children_and_wait(None, None).await;
        if let Err(error) = self.root.stop_and_wait(None, None).await {
            tracing::warn!(%error, "the actors' tree did not stop cleanly");
        }
    }
}

struct RootActor;

impl Actor for RootActor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        _: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, error) = event {
            tracing::error!(%error, "the control actor failed: this node changes nothing more");
        }
        Ok(())
    }
}
