//! Cluster: the nodes of a simulated cluster, and how each starts and crashes.
//!
//! Promise: what runs is what a node runs, from the store down to the log. A node that crashed
//! leaves nothing behind but its files: its next incarnation has a copy of them, so that whatever
//! of the old one still shuts down cannot touch it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{CatalogueEntry, NodeId, NodeRecord};
use parking_lot::Mutex;
use raft::disk::{CrashKind, DiskFaults, SimulatedDir, SimulatedDisk};
use raft::simulated::Rng;
use raft::{GroupId, Groups, GroupsConfig};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::SimulationConfig;
use super::network::SimulatedNetwork;
use super::schedule::{NODES, PARTITIONS};
use crate::{ActorTree, ClusterStore, WallClock};

/// Size of a log segment: small, so that many come and go.
const SEGMENT_BYTES: u64 = 128 << 10;
/// Log after which a checkpoint is due: small, so that many are written and sent.
const CHECKPOINT_BYTES: u64 = 12 << 10;
/// The longest latency of a disk without a fault, in milliseconds.
pub(super) const DISK_LATENCY_MS: u64 = 3;
/// How long until a log has noticed that its disk is full.
const FULL_DISK_NOTICED: Duration = Duration::from_secs(1);
/// How soon a broken link is noticed, and a new one made.
const LINK_NOTICED: Duration = Duration::from_millis(300);

/// A node that runs.
pub(super) struct RunningNode {
    pub(super) store: ClusterStore,
    pub(super) groups: Groups,
    pub(super) disk: Arc<SimulatedDisk>,
    pub(super) clock: WallClock,
    /// Cancelled when this incarnation crashes.
    pub(super) crashed: CancellationToken,
    running: ActorTree,
    /// The longest latency of its disk, in milliseconds.
    disk_latency_ms: Arc<Mutex<u64>>,
}

struct NodeSlot {
    dir: PathBuf,
    incarnation: u64,
    running: Option<RunningNode>,
}

/// A log that could not go on: its node, the node's incarnation, and why.
pub(super) type LogFailure = (u64, u64, String);

/// All nodes.
pub(super) struct SimulatedCluster {
    nodes: Mutex<BTreeMap<u64, NodeSlot>>,
    pub(super) network: SimulatedNetwork,
    pub(super) root: SimulatedDir,
    rng: Mutex<Rng>,
    /// What the cluster is configured with.
    entries: Vec<CatalogueEntry>,
    /// Disks report a sync as done and do nothing for it.
    ignored_syncs: bool,
    log_failures: mpsc::Sender<LogFailure>,
}

fn record(id: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId(id),
        name: format!("node-{id}"),
        http: String::new(),
        peer: String::new(),
        data_id: format!("data-{id}"),
        version: "simulated".into(),
        level: model::codec::LEVEL,
    }
}

impl SimulatedCluster {
    pub(super) fn new(
        config: SimulationConfig,
        entries: Vec<CatalogueEntry>,
        log_failures: mpsc::Sender<LogFailure>,
    ) -> std::io::Result<Self> {
        let (seed, ignored_syncs) = (config.seed, config.ignored_syncs);
        let root = SimulatedDir::new()?;
        let slot = |id: u64| {
            let dir = root.subdir(&format!("{id}-0"));
            (id, NodeSlot { dir, incarnation: 0, running: None })
        };
        let nodes = Mutex::new((1..=NODES).map(slot).collect());
        // Each has a stream of its own: a draw of one must not change those of the other.
        let network = SimulatedNetwork::new(seed ^ 0x0001_3155);
        let rng = Mutex::new(Rng(seed ^ 0xF1EE7));
        Ok(Self { nodes, network, root, rng, entries, ignored_syncs, log_failures })
    }

    /// Starts a node. `Err`: it refuses what is on its disk, and why.
    pub(super) async fn start(&self, id: u64) -> Result<(), String> {
        self.start_on(id, self.no_fault()).await
    }

    /// Starts a node on a disk that has these faults from the moment its log was opened.
    pub(super) async fn start_on(&self, id: u64, faults: DiskFaults) -> Result<(), String> {
        let (dir, incarnation) = {
            let nodes = self.nodes.lock();
            let slot = &nodes[&id];
            if slot.running.is_some() {
                return Ok(());
            }
            (slot.dir.clone(), slot.incarnation)
        };
        let disk = Arc::new(SimulatedDisk::new(self.next_u64()));
        disk.fail(self.no_fault());
        let disk_latency_ms = Arc::new(Mutex::new(DISK_LATENCY_MS));
        let config = self.groups_config((id, incarnation), dir, &disk, &disk_latency_ms);
        let peers = self.network.node(NodeId(id), incarnation);
        let opened = Groups::open(config, peers.clone()).await;
        let groups = opened.map_err(|error| error.to_string())?;
        if faults != self.no_fault() {
            disk.fail(faults);
            // The log meets the fault before the node begins: a node must start on it.
            tokio::time::sleep(FULL_DISK_NOTICED).await;
        }
        self.network.attach_groups(NodeId(id), groups.clone());
        let clock = WallClock::default();
        let running = crate::start(crate::Config {
            node: record(id),
            initial: (1..=NODES).map(record).collect(),
            partitions: PARTITIONS,
            entries: self.entries.clone(),
            groups: groups.clone(),
            peers,
            warnings: Vec::new(),
            files: None,
            memory: crate::Memory::unlimited(),
            clock: clock.clone(),
            branch_quota: crate::BranchQuota::default(),
            procedures: model::Procedures::default(),
            address_percent: crate::limits::ADDRESS_PERCENT,
        });
        let running = match running.await {
            Ok(running) => running,
            Err(error) => {
                groups.shutdown().await;
                return Err(error.to_string());
            }
        };
        let store = running.store();
        self.network.attach_inbox(NodeId(id), Arc::new(store.clone()));
        let crashed = CancellationToken::new();
        let node = RunningNode { store, groups, disk, clock, crashed, running, disk_latency_ms };
        if let Some(slot) = self.nodes.lock().get_mut(&id) {
            slot.running = Some(node);
        }
        self.report_links(id);
        Ok(())
    }

    fn groups_config(
        &self,
        (id, incarnation): (u64, u64),
        dir: PathBuf,
        disk: &Arc<SimulatedDisk>,
        disk_latency_ms: &Arc<Mutex<u64>>,
    ) -> GroupsConfig {
        let log_failures = self.log_failures.clone();
        let mut config = GroupsConfig::new(NodeId(id), dir, move |reason| {
            // Nobody receives once the run is over.
            let _ = log_failures.try_send((id, incarnation, reason));
        });
        config.device = disk.clone();
        config.log_segment_bytes = SEGMENT_BYTES;
        config.checkpoint_log_bytes = CHECKPOINT_BYTES;
        let (longest, rng) = (disk_latency_ms.clone(), Mutex::new(Rng(self.next_u64())));
        config.disk_latency = Some(Arc::new(move || {
            let longest = Duration::from_millis(*longest.lock());
            rng.lock().between(Duration::from_micros(100), longest)
        }));
        config
    }

    /// Crashes a node. Gives the directory of its next incarnation; `None` if it does not run.
    pub(super) fn crash(&self, id: u64, kind: CrashKind) -> std::io::Result<Option<PathBuf>> {
        let mut nodes = self.nodes.lock();
        let Some(slot) = nodes.get_mut(&id) else { return Ok(None) };
        let Some(node) = slot.running.take() else { return Ok(None) };
        // Detached first: what still runs of this incarnation must reach nobody, and no client
        // may take an answer from it.
        self.network.detach(NodeId(id));
        node.crashed.cancel();
        slot.incarnation += 1;
        let next = self.root.subdir(&format!("{id}-{}", slot.incarnation));
        let old = std::mem::replace(&mut slot.dir, next.clone());
        node.disk.crash(kind, &old, &next)?;
        drop(nodes);
        tokio::spawn(async move {
            node.running.stop().await;
            node.groups.shutdown().await;
        });
        self.report_links(id);
        Ok(Some(next))
    }

    /// Stops every node well, so that nothing of them outlives the run.
    pub(super) async fn stop_all(&self) {
        let running: Vec<RunningNode> = {
            let mut nodes = self.nodes.lock();
            nodes.values_mut().filter_map(|slot| slot.running.take()).collect()
        };
        for node in running {
            node.crashed.cancel();
            node.running.stop().await;
            node.groups.shutdown().await;
        }
        (1..=NODES).for_each(|id| self.network.detach(NodeId(id)));
    }

    /// Tells the stores, after a while, which links of a node are up.
    pub(super) fn report_links(&self, id: u64) {
        let network = self.network.clone();
        let mut pairs: Vec<(ClusterStore, u64, u64)> = Vec::new();
        for (&other, slot) in self.nodes.lock().iter().filter(|(other, _)| **other != id) {
            let Some(node) = &slot.running else { continue };
            pairs.push((node.store.clone(), other, id));
        }
        if let Some(store) = self.store(id) {
            let others = (1..=NODES).filter(|other| *other != id);
            pairs.extend(others.map(|other| (store.clone(), id, other)));
        }
        tokio::spawn(async move {
            tokio::time::sleep(LINK_NOTICED).await;
            for (store, here, there) in pairs {
                // As it is by then: the link may have changed again meanwhile.
                let is_up = network.is_linked(NodeId(here), NodeId(there));
                crate::Inbox::link_changed(&store, NodeId(there), is_up);
            }
        });
    }

    fn next_u64(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    /// The store of a node, if it runs.
    pub(super) fn store(&self, id: u64) -> Option<ClusterStore> {
        self.with_node(id, |node| node.store.clone())
    }

    /// The store of a node that runs, and the token that is cancelled when it crashes.
    pub(super) fn client(&self, id: u64) -> Option<(ClusterStore, CancellationToken)> {
        self.with_node(id, |node| (node.store.clone(), node.crashed.clone()))
    }

    /// The nodes that run.
    pub(super) fn running_nodes(&self) -> Vec<u64> {
        let nodes = self.nodes.lock();
        nodes.iter().filter(|(_, slot)| slot.running.is_some()).map(|(id, _)| *id).collect()
    }

    /// How often a node has crashed.
    pub(super) fn incarnation(&self, id: u64) -> u64 {
        self.nodes.lock().get(&id).map_or(0, |slot| slot.incarnation)
    }

    /// A node's data directory.
    pub(super) fn dir(&self, id: u64) -> Option<PathBuf> {
        self.nodes.lock().get(&id).map(|slot| slot.dir.clone())
    }

    /// Calls a function with a node that runs.
    pub(super) fn with_node<T>(&self, id: u64, f: impl FnOnce(&RunningNode) -> T) -> Option<T> {
        self.nodes.lock().get(&id)?.running.as_ref().map(f)
    }

    /// The leader of a group: of several nodes that take themselves for it, that of the last term.
    pub(super) fn leader(&self, group: u16) -> Option<u64> {
        let nodes = self.nodes.lock();
        let term = |slot: &NodeSlot| {
            let group = slot.running.as_ref()?.groups.get(GroupId(group))?;
            let status = group.status();
            (status.is_leader && status.stopped.is_none()).then_some(status.term)
        };
        let leaders = nodes.iter().filter_map(|(id, slot)| Some((term(slot)?, *id)));
        leaders.max().map(|(_, id)| id)
    }

    /// How a disk behaves without an injected fault.
    pub(super) fn no_fault(&self) -> DiskFaults {
        DiskFaults { ignored_syncs: self.ignored_syncs, ..DiskFaults::default() }
    }

    pub(super) fn set_disk_faults(&self, id: u64, faults: DiskFaults) {
        self.with_node(id, |node| node.disk.fail(faults));
    }

    pub(super) fn set_disk_latency(&self, id: u64, longest_ms: u64) {
        self.with_node(id, |node| *node.disk_latency_ms.lock() = longest_ms);
    }

    /// Sets how many milliseconds more the wall clock of a node shows.
    pub(super) fn set_clock_skew(&self, id: u64, skew_ms: i64) {
        self.with_node(id, |node| node.clock.set_skew_ms(skew_ms));
    }
}
