//! Fleet: the nodes of a simulated cluster, how each begins and ends its lives.
//!
//! Promise: what runs is what a node runs, from the router down to the log. A node that ended
//! leaves nothing behind but its files: its next life has a copy of them, so that whatever of the
//! old one still ends in peace cannot touch it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, NodeRecord};
use parking_lot::Mutex;
use raft::disk::{CrashKind, DiskFaults, SimulatedDir, SimulatedDisk};
use raft::simulated::Rng;
use raft::{GroupId, Groups, GroupsConfig};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::network::Wires;
use super::schedule::{NODES, PARTITIONS};
use crate::{ActorTree, ClusterStore};

/// Size of a log segment: small, so that many come and go.
const SEGMENT_BYTES: u64 = 128 << 10;
/// Log after which a checkpoint is due: small, so that many are written and sent.
const CHECKPOINT_BYTES: u64 = 12 << 10;
/// How long until a log has noticed that its disk is full.
const NOTICED: Duration = Duration::from_secs(1);
/// How soon a broken link is noticed, and a new one made.
const LINK_NOTICED: Duration = Duration::from_millis(300);

/// A node that runs.
pub(super) struct Up {
    pub(super) router: ClusterStore,
    pub(super) groups: Groups,
    pub(super) disk: Arc<SimulatedDisk>,
    /// Fires when this life ends.
    pub(super) ended: CancellationToken,
    running: ActorTree,
    /// The most milliseconds its disk takes for a turn.
    pace: Arc<Mutex<u64>>,
}

struct Node {
    dir: PathBuf,
    life: u64,
    up: Option<Up>,
}

/// A log that could not go on: whose, in which life, and why.
pub(super) type Fatality = (u64, u64, String);

/// All nodes.
pub(super) struct Fleet {
    nodes: Mutex<BTreeMap<u64, Node>>,
    pub(super) wires: Wires,
    pub(super) room: SimulatedDir,
    dice: Mutex<Rng>,
    /// Disks say that what they were given is durable, and do nothing for it.
    lying: bool,
    fatal: mpsc::Sender<Fatality>,
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

impl Fleet {
    pub(super) fn new(plan: super::Plan, fatal: mpsc::Sender<Fatality>) -> std::io::Result<Self> {
        let (seed, lying) = (plan.seed, plan.lying);
        let room = SimulatedDir::new()?;
        let node = |id: u64| (id, Node { dir: room.subdir(&format!("{id}-0")), life: 0, up: None });
        let nodes = Mutex::new((1..=NODES).map(node).collect());
        let (wires, dice) = (Wires::new(seed ^ 0x0001_3155), Mutex::new(Rng(seed ^ 0xF1EE7)));
        Ok(Self { nodes, wires, room, dice, lying, fatal })
    }

    /// Begins a node's life. `Err`: what it keeps is refused, in words.
    pub(super) async fn start(&self, id: u64) -> Result<(), String> {
        self.start_on(id, self.sound()).await
    }

    /// Begins a node's life on a disk that fails like this once it was opened.
    pub(super) async fn start_on(&self, id: u64, failing: DiskFaults) -> Result<(), String> {
        let (dir, life) = {
            let nodes = self.nodes.lock();
            let node = &nodes[&id];
            if node.up.is_some() {
                return Ok(());
            }
            (node.dir.clone(), node.life)
        };
        let disk = Arc::new(SimulatedDisk::new(self.roll()));
        disk.fail(self.sound());
        let pace = Arc::new(Mutex::new(3));
        let fatal = self.fatal.clone();
        let mut config = GroupsConfig::new(NodeId(id), dir, move |reason| {
            // Nobody listens once the run is over.
            let _ = fatal.try_send((id, life, reason));
        });
        config.device = disk.clone();
        config.log_segment_bytes = SEGMENT_BYTES;
        config.checkpoint_log_bytes = CHECKPOINT_BYTES;
        let (most, dice) = (pace.clone(), Mutex::new(Rng(self.roll())));
        config.disk_latency = Some(Arc::new(move || {
            let most = Duration::from_millis(*most.lock());
            dice.lock().between(Duration::from_micros(100), most)
        }));
        let door = self.wires.door(NodeId(id), life);
        let opened = Groups::open(config, door.clone()).await;
        let groups = opened.map_err(|error| error.to_string())?;
        if failing != self.sound() {
            disk.fail(failing);
            tokio::time::sleep(NOTICED).await;
        }
        self.wires.join(NodeId(id), groups.clone());
        let running = crate::start(crate::Config {
            node: record(id),
            initial: (1..=NODES).map(record).collect(),
            partitions: PARTITIONS,
            entries: super::workload::catalogue(),
            groups: groups.clone(),
            peers: door,
            warnings: Vec::new(),
            files: None,
            procedures: model::Procedures::default(),
        });
        let running = match running.await {
            Ok(running) => running,
            Err(error) => {
                groups.shutdown().await;
                return Err(error.to_string());
            }
        };
        let router = running.store();
        self.wires.listen(NodeId(id), Arc::new(router.clone()));
        let up = Up { router, groups, disk, ended: CancellationToken::new(), running, pace };
        if let Some(node) = self.nodes.lock().get_mut(&id) {
            node.up = Some(up);
        }
        self.notice_links(id);
        Ok(())
    }

    /// Ends a node's life. Gives where what it keeps lies now; `None` if it does not run.
    pub(super) fn end(&self, id: u64, ending: CrashKind) -> std::io::Result<Option<PathBuf>> {
        let mut nodes = self.nodes.lock();
        let Some(node) = nodes.get_mut(&id) else { return Ok(None) };
        let Some(up) = node.up.take() else { return Ok(None) };
        self.wires.leave(NodeId(id));
        up.ended.cancel();
        node.life += 1;
        let next = self.room.subdir(&format!("{id}-{}", node.life));
        let old = std::mem::replace(&mut node.dir, next.clone());
        up.disk.crash(ending, &old, &next)?;
        drop(nodes);
        tokio::spawn(async move {
            up.running.stop().await;
            up.groups.shutdown().await;
        });
        self.notice_links(id);
        Ok(Some(next))
    }

    /// Ends every node in peace, so that nothing of them outlives the run.
    pub(super) async fn shut(&self) {
        let ups: Vec<Up> = {
            let mut nodes = self.nodes.lock();
            nodes.values_mut().filter_map(|node| node.up.take()).collect()
        };
        for up in ups {
            up.ended.cancel();
            up.running.stop().await;
            up.groups.shutdown().await;
        }
        (1..=NODES).for_each(|id| self.wires.leave(NodeId(id)));
    }

    /// After a while the routers hear which of a node's links stand.
    pub(super) fn notice_links(&self, id: u64) {
        let wires = self.wires.clone();
        let mut pairs: Vec<(ClusterStore, u64, u64)> = Vec::new();
        for (&other, node) in self.nodes.lock().iter().filter(|(other, _)| **other != id) {
            let Some(up) = &node.up else { continue };
            pairs.push((up.router.clone(), other, id));
        }
        if let Some(router) = self.router(id) {
            let others = (1..=NODES).filter(|other| *other != id);
            pairs.extend(others.map(|other| (router.clone(), id, other)));
        }
        tokio::spawn(async move {
            tokio::time::sleep(LINK_NOTICED).await;
            for (router, here, there) in pairs {
                let stands = wires.linked(NodeId(here), NodeId(there));
                crate::Inbox::link_changed(&router, NodeId(there), stands);
            }
        });
    }

    fn roll(&self) -> u64 {
        self.dice.lock().next_u64()
    }

    /// The router of a node, if it runs.
    pub(super) fn router(&self, id: u64) -> Option<ClusterStore> {
        self.nodes.lock().get(&id)?.up.as_ref().map(|up| up.router.clone())
    }

    /// The router of a node that runs, and what fires when it does no more.
    pub(super) fn client(&self, id: u64) -> Option<(ClusterStore, CancellationToken)> {
        let nodes = self.nodes.lock();
        let up = nodes.get(&id)?.up.as_ref()?;
        Some((up.router.clone(), up.ended.clone()))
    }

    /// The nodes that run.
    pub(super) fn up(&self) -> Vec<u64> {
        self.nodes.lock().iter().filter(|(_, node)| node.up.is_some()).map(|(id, _)| *id).collect()
    }

    /// How many lives a node has ended.
    pub(super) fn life(&self, id: u64) -> u64 {
        self.nodes.lock().get(&id).map_or(0, |node| node.life)
    }

    /// Where a node keeps what it keeps.
    pub(super) fn dir(&self, id: u64) -> Option<PathBuf> {
        self.nodes.lock().get(&id).map(|node| node.dir.clone())
    }

    /// Does something with a node that runs.
    pub(super) fn with<T>(&self, id: u64, act: impl FnOnce(&Up) -> T) -> Option<T> {
        self.nodes.lock().get(&id)?.up.as_ref().map(act)
    }

    /// Who leads a group now.
    pub(super) fn leader(&self, group: u16) -> Option<u64> {
        let nodes = self.nodes.lock();
        let leads = |node: &Node| {
            let group = node.up.as_ref()?.groups.get(GroupId(group))?;
            let status = group.status();
            (status.is_leader && status.stopped.is_none()).then_some(status.term)
        };
        let found = nodes.iter().filter_map(|(id, node)| Some((leads(node)?, *id)));
        found.max().map(|(_, id)| id)
    }

    /// What a disk does when no fault strikes it.
    pub(super) fn sound(&self) -> DiskFaults {
        DiskFaults { ignored_syncs: self.lying, ..DiskFaults::default() }
    }

    pub(super) fn fail(&self, id: u64, failing: DiskFaults) {
        self.with(id, |up| up.disk.fail(failing));
    }

    pub(super) fn pace(&self, id: u64, most: u64) {
        self.with(id, |up| *up.pace.lock() = most);
    }
}
