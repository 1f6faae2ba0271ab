//! ClusterStore: the cluster behind the trait [`Store`]. It decides nothing: each method belongs
//! to one part, which is named in its body.

use std::sync::Arc;

use futures::future::BoxFuture;
#[cfg(any(test, feature = "simulation"))]
use model::Hash;
use model::{
    Answer, BranchKey, Catalogue, CatalogueChange, Command, NodeId, Outcome, Procedures, Read,
    ReadLevel,
};
use raft::Priority;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::{CatalogueClient, LeaderClient, LocalPartitions, Reads, Writes, read_error};
use crate::follow::{FeedServer, Feeds, Follows, UpstreamContext};
use crate::level_gate::LevelGate;
use crate::liveness::PeerLiveness;
use crate::memory::MemoryClass;
use crate::message::{PeerCast, encode};
use crate::partition;
use crate::peers::Peers;
use crate::read_pool::ReadPool;
use crate::shares::Requester;
use crate::status::report::StatusReporter;
use crate::status::{ClusterStatus, LocalReplicas};
use crate::store::{
    ChangeError, Cursor, Follow, NotReady, Post, RouteError, Store, TopicSubscription, WriteHead,
};
use crate::topics::Topics;

/// Every branch of the cluster, as this node reaches it. Cheap to clone.
#[derive(Clone)]
pub struct ClusterStore(pub(crate) Arc<Inner>);

/// What it delegates to.
pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) partitions: LocalPartitions,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) liveness: Arc<PeerLiveness>,
    pub(crate) catalogue_client: CatalogueClient,
    pub(crate) reads: Reads,
    pub(crate) writes: Writes,
    pub(crate) follows: Follows,
    pub(crate) topics: Topics,
    pub(crate) reporter: StatusReporter,
}

impl Store for ClusterStore {
    fn submit_for(
        &self,
        requester: Requester,
        command: Command,
    ) -> BoxFuture<'static, Result<Outcome, RouteError>> {
        let writes = self.0.writes.clone();
        Box::pin(async move { writes.submit(requester, command).await })
    }

    fn check_write(&self, requester: Requester, head: &WriteHead) -> Result<(), RouteError> {
        self.0.writes.check(requester, head)
    }

    fn read_for(
        &self,
        requester: Requester,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> BoxFuture<'static, Result<Answer, RouteError>> {
        let reads = self.0.reads.clone();
        Box::pin(async move { reads.read(requester, key, read, level).await })
    }

    fn follow(
        &self,
        key: BranchKey,
        after: Option<Cursor>,
    ) -> BoxFuture<'static, Result<Follow, RouteError>> {
        let follows = self.0.follows.clone();
        Box::pin(async move { follows.follow(key, after).await })
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.0.catalogue.borrow())
    }

    fn catalogues(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.0.catalogue.clone()
    }

    fn is_initialized(&self) -> bool {
        self.0.catalogue_client.is_initialized()
    }

    fn catch_up(&self) -> BoxFuture<'static, Result<(), RouteError>> {
        let catalogue_client = self.0.catalogue_client.clone();
        Box::pin(async move { catalogue_client.catch_up().await.map_err(read_error) })
    }

    fn change(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> BoxFuture<'static, Result<(), ChangeError>> {
        let catalogue_client = self.0.catalogue_client.clone();
        Box::pin(async move { catalogue_client.change(id, change).await })
    }

    fn publish(&self, post: Post) -> BoxFuture<'static, Result<(), RouteError>> {
        let topics = self.0.topics.clone();
        Box::pin(async move { topics.publish(post).await })
    }

    fn subscribe_for(
        &self,
        requester: Requester,
        topic: String,
    ) -> BoxFuture<'static, Result<TopicSubscription, RouteError>> {
        let topics = self.0.topics.clone();
        Box::pin(async move { topics.subscribe(requester, topic).await })
    }

    fn status(&self) -> BoxFuture<'static, ClusterStatus> {
        let reporter = self.0.reporter.clone();
        Box::pin(async move { reporter.cluster_status().await })
    }

    fn replicas(&self, verify: bool) -> BoxFuture<'static, LocalReplicas> {
        let reporter = self.0.reporter.clone();
        Box::pin(async move { reporter.local_replicas(verify).await })
    }

    fn ready(&self) -> Result<(), NotReady> {
        self.0.reporter.readiness()
    }

    fn unfit(&self) -> Vec<(&'static str, String)> {
        self.0.reporter.unfit()
    }
}

impl ClusterStore {
    /// States what the branches, topics and the catalogue of this node hold in memory.
    pub fn state_memory(&self) {
        let memory = &self.0.reporter.memory;
        memory.state(MemoryClass::Topics, self.0.topics.bytes());
        let partitions = self.0.partitions.all().into_iter();
        let branches = partitions.map(|(_, local)| local.applied.view().memory_bytes()).sum();
        memory.state(MemoryClass::Branches, branches);
        let catalogue = self.0.reporter.catalogue.borrow().memory_estimate();
        memory.state(MemoryClass::Catalogue, catalogue);
    }

    /// Puts the parts together.
    pub(crate) fn new(
        leaders: LeaderClient,
        reporter: StatusReporter,
        procedures: Procedures,
        address_percent: u8,
    ) -> Self {
        let StatusReporter {
            node, catalogue, partitions, peers, liveness, catalogue_client, ..
        } = reporter.clone();
        let levels = LevelGate::new(catalogue.clone(), procedures.clone());
        let reads = Reads::new(
            leaders.clone(),
            catalogue_client.clone(),
            catalogue.clone(),
            partitions.clone(),
            procedures,
            ReadPool::new(address_percent),
        );
        let upstream = UpstreamContext {
            leaders: leaders.clone(),
            catalogue_client: catalogue_client.clone(),
            partitions: partitions.clone(),
            peers: Arc::clone(&peers),
        };
        let server = FeedServer::new(Arc::clone(&peers));
        let follows = Follows {
            reads: reads.clone(),
            upstream,
            feeds: Feeds::default(),
            server,
            stopped: CancellationToken::new(),
        };
        let topics = Topics::new(
            node,
            leaders.clone(),
            catalogue.clone(),
            partitions.clone(),
            Arc::clone(&peers),
            Arc::clone(&liveness),
            address_percent,
        );
        let writes = Writes::new(
            leaders,
            catalogue_client.clone(),
            partitions.clone(),
            levels,
            reporter.memory.clone(),
            address_percent,
        );
        Self(Arc::new(Inner {
            node,
            catalogue,
            partitions,
            peers,
            liveness,
            catalogue_client,
            reads,
            writes,
            follows,
            topics,
            reporter,
        }))
    }

    /// From now on this node is not ready, and its partitions are led elsewhere where possible.
    pub(crate) fn drain(&self) {
        self.0.reporter.set_draining();
        // Said before the leads are given up, so that none of the others gives one back.
        let draining = encode(&PeerCast::Draining);
        for node in self.0.catalogue.borrow().nodes.keys().filter(|node| **node != self.0.node) {
            // A peer that is linked only later gives no lead before the link has stood for a while.
            let _ = self.0.peers.cast(*node, Priority::Call, draining.clone());
        }
        for (_, partition) in self.0.partitions.all() {
            // An actor that ended leads nothing.
            let _ = partition.actor.cast(partition::Message::Drain);
        }
    }

    /// How far group 0 has applied here, and the hash of the catalogue at exactly that index.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn group_0(&self) -> (u64, Hash) {
        self.0.reporter.group_0()
    }
}
