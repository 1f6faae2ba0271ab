//! Cluster: nodes with their directories, connected in memory, that tests stop and start.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{NodeId, ReplicaId};
use parking_lot::Mutex;
use raft::testing::{MemoryNetwork, RecordingMachine};
use raft::{GroupId, GroupStatus, Groups, GroupsConfig, Member, ProposeError, TypedGroup};
use tempfile::TempDir;

/// Longer than anything takes that should happen.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// Several nodes; node n holds replica `100 * group + n` of every group.
pub(crate) struct Cluster {
    pub(crate) network: MemoryNetwork,
    pub(crate) fatal: Arc<Mutex<Vec<String>>>,
    dir: TempDir,
    nodes: BTreeMap<NodeId, Node>,
    groups: Vec<GroupId>,
    tune: Box<dyn Fn(&mut GroupsConfig) + Send>,
}

struct Node {
    groups: Groups,
    machines: BTreeMap<GroupId, RecordingMachine>,
}

/// The replica of a group on a node.
pub(crate) fn replica(group: GroupId, node: NodeId) -> ReplicaId {
    ReplicaId(u64::from(group.0) * 100 + node.0)
}

impl Cluster {
    /// Starts nodes 1 to `nodes` and initializes these groups with a replica on each.
    pub(crate) async fn start(nodes: u64, groups: impl IntoIterator<Item = u16>) -> Self {
        Self::start_with(nodes, groups, |_| ()).await
    }

    /// Like [`Cluster::start`], with another configuration.
    pub(crate) async fn start_with(
        nodes: u64,
        groups: impl IntoIterator<Item = u16>,
        tune: impl Fn(&mut GroupsConfig) + Send + 'static,
    ) -> Self {
        #[cfg(feature = "mutants")]
        crate::mutants::choose();
        let mut cluster = Self {
            network: MemoryNetwork::new(),
            fatal: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            nodes: BTreeMap::new(),
            groups: groups.into_iter().map(GroupId).collect(),
            tune: Box::new(tune),
        };
        for node in 1..=nodes {
            cluster.open(NodeId(node)).await;
        }
        for group in cluster.groups.clone() {
            let members = (1..=nodes)
                .map(NodeId)
                .map(|node| (replica(group, node), Member { node }))
                .collect();
            cluster.group(NodeId(1), group).initialize(members).await.unwrap();
        }
        cluster
    }

    pub(crate) fn dir(&self, node: NodeId) -> std::path::PathBuf {
        self.dir.path().join(node.to_string())
    }

    /// Opens a node that is closed, and starts all groups on it.
    pub(crate) async fn open(&mut self, node: NodeId) {
        let fatal = self.fatal.clone();
        let mut config = GroupsConfig::new(node, self.dir(node), move |reason| {
            fatal.lock().push(reason);
        });
        (self.tune)(&mut config);
        let groups = Groups::open(config, self.network.endpoint(node)).await.unwrap();
        self.network.join(node, groups.clone());
        let mut machines = BTreeMap::new();
        for &group in &self.groups {
            let machine = RecordingMachine::new();
            groups.start(group, replica(group, node), machine.clone()).await.unwrap();
            machines.insert(group, machine);
        }
        self.nodes.insert(node, Node { groups, machines });
    }

    /// Stops a node; its directory stays.
    pub(crate) async fn close(&mut self, node: NodeId) {
        let stopped = self.nodes.remove(&node).expect("the node runs");
        self.network.leave(node);
        stopped.groups.shutdown().await;
    }

    pub(crate) fn groups(&self, node: NodeId) -> &Groups {
        &self.nodes[&node].groups
    }

    pub(crate) fn group(&self, node: NodeId, group: GroupId) -> TypedGroup<RecordingMachine> {
        let running = self.nodes[&node].groups.get(group).expect("the group runs");
        running.typed().expect("every group here records")
    }

    pub(crate) fn machine(&self, node: NodeId, group: GroupId) -> &RecordingMachine {
        &self.nodes[&node].machines[&group]
    }

    pub(crate) fn running(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Waits until one of the running nodes leads and is ready.
    pub(crate) async fn leader(&self, group: GroupId) -> NodeId {
        self.leader_among(group, &self.running()).await
    }

    /// Like [`Cluster::leader`], among some nodes only.
    pub(crate) async fn leader_among(&self, group: GroupId, nodes: &[NodeId]) -> NodeId {
        eventually("a leader", || async {
            nodes.iter().copied().find(|&node| self.group(node, group).status().ready)
        })
        .await
    }

    /// Proposes at the leader until the entry is acknowledged. It may be committed twice.
    pub(crate) async fn propose(&self, group: GroupId, entry: impl Into<Bytes>) -> u64 {
        self.propose_among(group, entry.into(), &self.running()).await
    }

    /// Proposes `x` without one node, whose replica of the group does not run.
    pub(crate) async fn propose_without(&self, group: GroupId, without: NodeId) -> u64 {
        let nodes: Vec<NodeId> =
            self.running().into_iter().filter(|&node| node != without).collect();
        self.propose_among(group, Bytes::from_static(b"x"), &nodes).await
    }

    async fn propose_among(&self, group: GroupId, entry: Bytes, nodes: &[NodeId]) -> u64 {
        eventually("an acknowledgement", || async {
            let leader = self.leader_among(group, nodes).await;
            match self.group(leader, group).propose(None, entry.clone()).await {
                Ok(proposed) => Some(proposed.index),
                Err(ProposeError::NotLeader { .. } | ProposeError::Unavailable { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await
    }

    /// Waits until a node's machine has `count` entries.
    pub(crate) async fn wait_for_entries(&self, node: NodeId, group: GroupId, count: usize) {
        eventually("entries", || async {
            (self.machine(node, group).count() >= count).then_some(())
        })
        .await;
    }

    /// Waits until the status of a node's replica meets the predicate.
    pub(crate) async fn status(
        &self,
        node: NodeId,
        group: GroupId,
        predicate: impl FnMut(&GroupStatus) -> bool,
    ) -> GroupStatus {
        let mut watch = self.group(node, group).watch();
        let status = tokio::time::timeout(TIMEOUT, watch.wait_for(predicate)).await;
        status.expect("the status never met the predicate").unwrap().clone()
    }
}

/// Polls until there is a value.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut poll: impl FnMut() -> F,
) -> T {
    let polling = async {
        loop {
            if let Some(found) = poll().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, polling).await.unwrap_or_else(|_| panic!("never came: {what}"))
}
