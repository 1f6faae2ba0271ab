//! Testing: whole trees of actors in one process, connected in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{
    Action, BranchId, BranchKey, BranchPattern, CatalogueChange, CatalogueEntry, Command,
    CommandId, ModuleConfig, ModuleId, NodeId, NodeRecord, Object, Origin, Outcome, RecordMutation,
    Request, Schema, Timestamp, Transaction, Validation, Value, VersionRule,
};
use parking_lot::Mutex;
use raft::disk::SimulatedDisk;
use raft::testing::{HeldResponses, MemoryNetwork};
use raft::{Groups, GroupsConfig, Priority, Timing};
use tempfile::TempDir;

use crate::message::{PeerRequest, decode};
use crate::{
    ActorTree, BranchQuota, ClusterStore, Inbox, Memory, PeerError, Peers, Store, WallClock,
};

/// The actors' side of the wires: one inbox a node, and the nodes that hang: they take what is
/// sent to them and never answer; how much it was is counted.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<BTreeMap<NodeId, Arc<dyn Inbox>>>>, Arc<Mutex<BTreeMap<NodeId, usize>>>);

struct MemoryPeers {
    node: NodeId,
    wires: Wires,
}

impl MemoryPeers {
    fn inbox(&self, to: NodeId) -> Result<Arc<dyn Inbox>, PeerError> {
        let inbox = self.wires.0.lock().get(&to).cloned();
        inbox.ok_or_else(|| PeerError::Unreachable { node: to, reason: "nobody listens".into() })
    }
}

impl Peers for MemoryPeers {
    fn call(
        &self,
        to: NodeId,
        _: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (inbox, from) = (self.inbox(to), self.node);
        if let Some(taken) = self.wires.1.lock().get_mut(&to) {
            // Nodes ask each other for their condition all the time.
            if !matches!(decode(&message), Ok(PeerRequest::Condition)) {
                *taken += 1;
            }
            return Box::pin(std::future::pending());
        }
        Box::pin(async move {
            let answer = tokio::time::timeout(timeout, inbox?.call(from, message)).await;
            answer.map_err(|_| PeerError::NoAnswer { node: to, reason: "timeout".into() })
        })
    }

    fn cast(&self, to: NodeId, _: Priority, message: Bytes) -> Result<(), PeerError> {
        self.inbox(to)?.cast(self.node, message);
        Ok(())
    }
}

/// What a node may hold: more than any test does.
pub(crate) const MEMORY_MAX: u64 = 1 << 40;

/// One node's tree.
pub(crate) struct TestNode {
    pub(crate) id: NodeId,
    pub(crate) running: ActorTree,
    pub(crate) groups: Groups,
    pub(crate) clock: WallClock,
    pub(crate) memory: Memory,
    _dir: TempDir,
}

/// Some nodes, connected.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<TestNode>,
    network: MemoryNetwork,
    wires: Wires,
    timing: Timing,
    branch_quota: BranchQuota,
    /// By place, where nodes have disks that can fail.
    pub(crate) disks: Option<Vec<Arc<SimulatedDisk>>>,
}

fn record(id: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId(id),
        name: format!("node-{id}"),
        http: String::new(),
        peer: String::new(),
        data_id: format!("data-{id}"),
        version: "test".into(),
        level: model::codec::LEVEL,
    }
}

/// A module `notes` with one table `note {id, text}` for every branch.
pub(crate) fn notes() -> Vec<CatalogueEntry> {
    let source = br#"{"tables":{"note":{"fields":{
        "id":{"type":"string","primaryKey":true},"text":{"type":"string"}}}}}"#;
    let source = Value::from_json(source).unwrap();
    let id = ModuleId::parse("notes").unwrap();
    let module = ModuleConfig {
        schema: Arc::new(Schema::from_definition("notes", &source).unwrap()),
        id: id.clone(),
        label: "Notes".into(),
        description: String::new(),
        tables: Vec::new(),
        source: Arc::new(source),
        validation: Validation::Lenient,
        version_rule: VersionRule::Next,
        seed: None,
        dedup: model::DedupLimits::default(),
    };
    let patterns: Vec<BranchPattern> = Vec::new();
    let changes = [
        CatalogueChange::Module(Arc::new(module)),
        CatalogueChange::Patterns { patterns, defaults: vec![id] },
    ];
    let entry = |(place, change)| CatalogueEntry {
        id: format!("test:{place}"),
        at: Timestamp::default(),
        change,
    };
    changes.into_iter().enumerate().map(entry).collect()
}

impl Cluster {
    /// Starts this many nodes and waits until each can serve.
    pub(crate) async fn start(nodes: u64) -> Self {
        Self::timed(nodes, Timing::default()).await
    }

    /// The same, with something done to each tree as soon as it was started.
    pub(crate) async fn start_with(nodes: u64, started: impl Fn(&ActorTree)) -> Self {
        Self::open(nodes, Timing::default(), BranchQuota::default(), None, started).await
    }

    /// The same, where one address may make so many branches.
    pub(crate) async fn with_branches(nodes: u64, branch_quota: BranchQuota) -> Self {
        Self::open(nodes, Timing::default(), branch_quota, None, |_| ()).await
    }

    /// The same, each on a disk that can fail, with small segments of the log.
    pub(crate) async fn on_disks(nodes: u64) -> Self {
        Self::open(nodes, Timing::default(), BranchQuota::default(), Some(Vec::new()), |_| ()).await
    }

    /// The same, with other elections.
    pub(crate) async fn timed(nodes: u64, timing: Timing) -> Self {
        Self::open(nodes, timing, BranchQuota::default(), None, |_| ()).await
    }

    async fn open(
        nodes: u64,
        timing: Timing,
        branch_quota: BranchQuota,
        disks: Option<Vec<Arc<SimulatedDisk>>>,
        started: impl Fn(&ActorTree),
    ) -> Self {
        let (network, wires) = (MemoryNetwork::new(), Wires::default());
        let mut cluster = Self { nodes: Vec::new(), network, wires, timing, branch_quota, disks };
        for id in 1..=nodes {
            cluster.start_node(id, nodes).await;
            started(&cluster.nodes[cluster.nodes.len() - 1].running);
        }
        for node in &cluster.nodes {
            cluster.ready(&node.running.store()).await;
        }
        cluster
    }

    async fn start_node(&mut self, id: u64, nodes: u64) {
        let dir = TempDir::new().unwrap();
        let mut config = GroupsConfig::new(NodeId(id), dir.path(), |reason| panic!("{reason}"));
        config.timing = self.timing;
        if let Some(disks) = &mut self.disks {
            let disk = Arc::new(SimulatedDisk::new(id));
            disks.push(disk.clone());
            config.device = disk;
            config.log_segment_bytes = 64 << 10;
        }
        let groups = Groups::open(config, self.network.endpoint(NodeId(id))).await.unwrap();
        self.network.join(NodeId(id), groups.clone());
        let (clock, memory) = (WallClock::default(), Memory::new(MEMORY_MAX));
        let running = crate::start(crate::Config {
            node: record(id),
            initial: (1..=nodes).map(record).collect(),
            partitions: 4,
            entries: notes(),
            groups: groups.clone(),
            peers: Arc::new(MemoryPeers { node: NodeId(id), wires: self.wires.clone() }),
            warnings: Vec::new(),
            files: None,
            memory: memory.clone(),
            clock: clock.clone(),
            branch_quota: self.branch_quota,
            procedures: model::Procedures::default(),
            address_percent: crate::limits::ADDRESS_PERCENT,
        });
        let running = running.await.unwrap();
        let store = running.store();
        for other in &self.nodes {
            store.link_changed(other.id, true);
            other.running.store().link_changed(NodeId(id), true);
        }
        self.wires.0.lock().insert(NodeId(id), Arc::new(store));
        self.nodes.push(TestNode { id: NodeId(id), running, groups, clock, memory, _dir: dir });
    }

    async fn ready(&self, store: &ClusterStore) {
        wait_until("a node can serve", || store.ready().is_ok()).await;
    }

    /// The place of the node that leads a branch's partition.
    pub(crate) fn leader_of(&self, branch: &str) -> usize {
        let store = self.store(0);
        let partition = store.0.catalogue_client.locate(&key(branch)).unwrap();
        self.place_of(
            store.0.follows.upstream.leaders.leader_of(partition.into()).expect("somebody leads"),
        )
    }

    /// Where a node stands among the nodes.
    pub(crate) fn place_of(&self, id: NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == id).expect("a node of this cluster")
    }

    pub(crate) fn store(&self, node: usize) -> ClusterStore {
        self.nodes[node].running.store()
    }

    /// The node at this place takes what is sent to it and never answers again; its replicas hear
    /// nothing and are not heard.
    pub(crate) fn hang(&self, place: usize) {
        let node = self.nodes[place].id;
        self.wires.1.lock().insert(node, 0);
        self.deafen(place);
    }

    /// The replicas of the node at this place hear nothing and are not heard; the node still is.
    pub(crate) fn deafen(&self, place: usize) {
        self.network.isolate(self.nodes[place].id);
    }

    /// The node at this place hears no answer to what it sends of its log, until these are
    /// released.
    pub(crate) fn hold_log(&self, place: usize) -> Vec<HeldResponses> {
        let own = self.nodes[place].id;
        let others = self.nodes.iter().map(|node| node.id).filter(|id| *id != own);
        others.map(|other| self.network.hold_responses(own, other, Priority::Log)).collect()
    }

    /// From now on this takes what is sent to a node.
    pub(crate) fn put_inbox(&self, node: NodeId, inbox: Arc<dyn Inbox>) {
        self.wires.0.lock().insert(node, inbox);
    }

    /// How many calls a node that hangs has taken, those for its condition aside.
    pub(crate) fn taken(&self, place: usize) -> usize {
        self.wires.1.lock().get(&self.nodes[place].id).copied().unwrap_or_default()
    }

    /// The node at this place leaves without a word.
    pub(crate) async fn kill(&mut self, place: usize) -> NodeId {
        let node = self.nodes.remove(place);
        self.wires.0.lock().remove(&node.id);
        self.network.leave(node.id);
        for other in &self.nodes {
            other.running.store().link_changed(node.id, false);
        }
        node.running.stop().await;
        node.groups.shutdown().await;
        node.id
    }
}

/// Waits for something that must become true; the limit only keeps a broken test from hanging.
pub(crate) async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited a minute in vain until {what}");
}

pub(crate) fn key(branch: &str) -> BranchKey {
    BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse("notes").unwrap())
}

/// An insert of one note.
pub(crate) fn insert(branch: &str, note: &str, text: &str) -> Command {
    let record: Object = [("id", note), ("text", text)].into_iter().collect();
    let mutation = RecordMutation::new(Action::Insert, "note", record);
    Command {
        id: CommandId { session: String::new(), request: format!("insert-{note}") },
        key: key(branch),
        origin: Arc::new(Origin::default()),
        request: Request::Transaction(Transaction::of(vec![mutation])),
    }
}

/// Submits and expects acceptance; gives the offset of the event.
pub(crate) async fn accept(store: &ClusterStore, command: Command) -> u64 {
    match store.submit(command).await {
        Ok(Outcome::Accepted(accepted)) => accepted.delta.last().unwrap().0,
        other => panic!("expected acceptance, got {other:?}"),
    }
}
