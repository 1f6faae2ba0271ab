//! StatusReporter: what an operator sees of the cluster, put together from what every node leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use model::{Catalogue, NodeId, PartitionId, Placement, Timestamp};
use raft::Priority;
use tokio::sync::watch;

use crate::client::{CatalogueClient, LeaderClient, LocalPartition, LocalPartitions};
use crate::control::machine::AppliedCatalogue;
use crate::handover::Handover;
use crate::limits::{BRANCH_WARNINGS_MAX, CLOCK_AHEAD_MAX_MS};
use crate::liveness::PeerLiveness;
use crate::memory::Memory;
use crate::message::{NodeReport, PeerReply, PeerRequest, Refusal, decode, encode};
use crate::peers::Peers;
use crate::status::{
    BranchStatus, CatalogueStatus, ClusterStatus, FileBudget, NodeStatus, PartitionStatus,
    ReplicaStatus,
};
use crate::store::NotReady;

/// How long a node is waited for; one that is down must not hold up the report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What this node knows about itself and asks the others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StatusReporter {
    pub(crate) node: NodeId,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) applied_catalogue: AppliedCatalogue,
    pub(crate) partitions: LocalPartitions,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) liveness: Arc<PeerLiveness>,
    pub(crate) handover: Handover,
    pub(crate) leaders: LeaderClient,
    pub(crate) catalogue_client: CatalogueClient,
    /// What an operator should know about how this node was started.
    pub(crate) warnings: Arc<[String]>,
    pub(crate) files: Option<FileBudget>,
    pub(crate) memory: Memory,
    /// The ids of the changes this node brings: it can serve once it has them all itself.
    pub(crate) brought: Arc<[String]>,
    pub(crate) draining: Arc<AtomicBool>,
}

impl StatusReporter {
    /// What this node leads.
    pub(crate) fn node_report(&self) -> NodeReport {
        let catalogue = self.catalogue.borrow().clone();
        let mut report = NodeReport { warnings: self.warnings.to_vec(), ..NodeReport::default() };
        report.warnings.extend(self.memory.warnings());
        let unfit = self.unfit();
        report.warnings.extend(
            unfit
                .into_iter()
                .map(|(reason, words)| format!("it should lead nothing ({reason}): {words}")),
        );
        for (id, local) in self.partitions.all() {
            if let Some(fatal) = local.group.status().stopped {
                report.warnings.push(format!("partition {id} stopped on this node: {fatal}"));
            }
            let status = local.group.status();
            // A leader without a quorum leads nothing, whatever it was last told.
            if status.is_leader && status.has_quorum {
                report.partitions.push(partition_status(id, &local, &catalogue));
                report.warnings.extend(self.unready(id, &local));
                report.warnings.extend(displaced(&local));
                report.branches.extend(branch_statuses(id, &local, self.node));
                report.warnings.extend(ignored_leaps(&local));
                report.warnings.extend(ahead_of(self.handover.clock.now(), &local));
            }
        }
        report
    }

    /// Why a leader is not ready: those that have no room for the blank entry of its term lack more
    /// than that one, for which the log reserves space.
    fn unready(&self, id: PartitionId, local: &LocalPartition) -> Option<String> {
        let status = local.group.status();
        if status.ready {
            return None;
        }
        let Some(Refusal::DiskFull { reason, .. }) =
            self.handover.refusal_for_full_disks(&local.group)
        else {
            return None;
        };
        let lags = status.lag.iter().filter(|(replica, _)| **replica != status.replica);
        let lags: Vec<String> = lags.map(|(_, lag)| lag.to_string()).collect();
        Some(format!(
            "partition {id} has a leader here that cannot begin: {reason} for the {} entries that \
             the others lack; writes and current reads wait until one of them has room",
            lags.join(" and ")
        ))
    }

    pub(crate) async fn cluster_status(&self) -> ClusterStatus {
        let catalogue = self.catalogue.borrow().clone();
        let others = catalogue.nodes.keys().filter(|node| **node != self.node);
        let asked = join_all(others.map(|node| self.ask_report(*node))).await;
        let mut led: BTreeMap<PartitionId, PartitionStatus> = BTreeMap::new();
        let mut branches = BTreeMap::new();
        let troubles: BTreeMap<NodeId, String> = self.peers.troubles().into_iter().collect();
        let mut warnings = self.membership_warnings(&catalogue, &troubles);
        let here = (self.node, Some(self.node_report()));
        for (node, report) in asked.into_iter().chain([here]) {
            let Some(report) = report else {
                let why = troubles.get(&node).map_or_else(String::new, |why| format!(" ({why})"));
                warnings.push(format!("node {node} cannot be reached{why}"));
                continue;
            };
            warnings.extend(report.warnings.into_iter().map(|text| format!("node {node}: {text}")));
            for status in report.partitions {
                let newer =
                    led.get(&PartitionId(status.id)).is_none_or(|known| known.term < status.term);
                if newer {
                    led.insert(PartitionId(status.id), status);
                }
            }
            for status in report.branches {
                branches.insert((status.branch.clone(), status.module.clone()), status);
            }
        }
        let missing: Vec<_> =
            catalogue.placements.keys().filter(|id| !led.contains_key(id)).copied().collect();
        if !missing.is_empty() {
            warnings.push(format!("no leader for {} partitions", missing.len()));
        }
        for id in missing {
            led.insert(id, leaderless(id, &catalogue.placements[&id]));
        }
        let nodes = self.node_statuses(&catalogue, &led);
        ClusterStatus {
            cluster_id: catalogue.cluster_id.clone(),
            answered_by: self.node.0,
            placement_epoch: catalogue.epoch.0,
            level: catalogue.level,
            warnings,
            files: self.files,
            memory: Some(self.memory.status()),
            catalogue: CatalogueStatus::of(&catalogue),
            nodes,
            partitions: led.into_values().collect(),
            branches: branches.into_values().collect(),
        }
    }

    /// What is wrong with this node's own place: it has none, or the cluster does not know it.
    fn membership_warnings(
        &self,
        catalogue: &Catalogue,
        troubles: &BTreeMap<NodeId, String>,
    ) -> Vec<String> {
        let node = self.node;
        if catalogue.is_formed() {
            let is_member = catalogue.nodes.contains_key(&node);
            let stranger = || {
                format!(
                    "node {node} is not a member of cluster {}: it serves nothing",
                    catalogue.cluster_id
                )
            };
            return (!is_member).then(stranger).into_iter().collect();
        }
        let alone = format!(
            "node {node} is in no cluster yet: it serves nothing until a majority of the first \
             nodes it was given (peers) has formed one, or has taken it in"
        );
        let reasons = troubles.iter().map(|(peer, why)| format!("node {peer}: {why}"));
        std::iter::once(alone).chain(reasons).collect()
    }

    async fn ask_report(&self, node: NodeId) -> (NodeId, Option<NodeReport>) {
        let message = encode(&PeerRequest::Status);
        let reply = self.peers.call(node, Priority::Call, message, REPORT_TIMEOUT).await;
        let report = match reply.ok().and_then(|bytes| decode(&bytes).ok()) {
            Some(PeerReply::Status(report)) => Some(report),
            _ => None,
        };
        (node, report)
    }

    fn node_statuses(
        &self,
        catalogue: &Catalogue,
        led: &BTreeMap<PartitionId, PartitionStatus>,
    ) -> Vec<NodeStatus> {
        let count = |amount: usize| u32::try_from(amount).unwrap_or(u32::MAX);
        catalogue
            .nodes
            .values()
            .map(|node| NodeStatus {
                id: node.id.0,
                name: node.name.clone(),
                http: node.http.clone(),
                peer: node.peer.clone(),
                reachable: node.id == self.node || self.liveness.is_up(node.id),
                leads: count(led.values().filter(|p| p.leader == Some(node.id.0)).count()),
                replicas: count(
                    catalogue
                        .placements
                        .values()
                        .filter(|placement| placement.replica_on(node.id).is_some())
                        .count(),
                ),
                version: node.version.clone(),
                level: node.level,
            })
            .collect()
    }

    /// Why this node should lead nothing now, by the reasons' names; none where it may.
    pub(crate) fn unfit(&self) -> Vec<(&'static str, String)> {
        let reasons = self.handover.fitness.reasons();
        reasons.into_iter().map(|(reason, unfit)| (reason.name(), unfit.words)).collect()
    }

    /// From now on this node is not ready.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether this node can serve, and if not, what is missing.
    pub(crate) fn readiness(&self) -> Result<(), NotReady> {
        if self.draining.load(Ordering::Acquire) {
            return Err(NotReady::new("draining", "this node is draining"));
        }
        let catalogue = self.catalogue.borrow().clone();
        if !catalogue.is_formed() {
            return Err(NotReady::new("forming", "the cluster is still forming"));
        }
        let missing = self.brought.iter().filter(|id| !catalogue.has_applied(id)).count();
        if missing > 0 {
            let message =
                format!("{missing} of the definitions this node brings are not known yet");
            return Err(NotReady::new("definitions-missing", message));
        }
        let serves = |(id, placement): &(&PartitionId, &Placement)| self.serves(**id, placement);
        let without_leader =
            catalogue.placements.iter().filter(|partition| !serves(partition)).count();
        if without_leader > 0 {
            let message = format!("{without_leader} partitions have no majority at work");
            return Err(NotReady { reason: "no-majority", message, without_leader });
        }
        Ok(())
    }

    /// Whether a majority of a partition is at work, as far as this node can tell: by its own
    /// replica, else by whom it is linked with.
    fn serves(&self, id: PartitionId, placement: &Placement) -> bool {
        if let Some(local) = self.partitions.get(id) {
            return local.group.status().has_quorum;
        }
        let is_up = |node: &&NodeId| self.liveness.is_up(**node);
        let up = placement.replicas.values().filter(is_up).count();
        placement.replica_on(self.node).is_none()
            && up > placement.replicas.len() / 2
            && self.leaders.leader_of(id.into()).is_some()
    }
}

fn partition_status(
    id: PartitionId,
    local: &LocalPartition,
    catalogue: &Catalogue,
) -> PartitionStatus {
    let status = local.group.status();
    let preferred = catalogue.placements.get(&id).and_then(Placement::preferred_node);
    let replicas = status
        .members
        .iter()
        .map(|(replica, (node, _))| ReplicaStatus {
            node: node.0,
            replica: replica.0,
            lag: if *replica == status.replica {
                Some(0)
            } else {
                status.lag.get(replica).copied()
            },
        })
        .collect();
    PartitionStatus {
        id: id.0,
        leader: status.leader.map(|(_, node)| node.0),
        preferred: preferred.map_or(0, |node| node.0),
        term: status.term,
        replicas,
    }
}

/// Which branches forgot outcomes before their time, for want of room.
fn displaced(local: &LocalPartition) -> Vec<String> {
    let view = local.applied.view();
    let forgetful = view.branches().filter_map(|branch| {
        let displaced = branch.dedup().displaced;
        (displaced > 0).then(|| {
            format!(
                "{}: {displaced} outcomes gave way before their 24 hours; raise dedupBytes",
                branch.key()
            )
        })
    });
    forgetful.take(BRANCH_WARNINGS_MAX).collect()
}

fn branch_statuses(
    id: PartitionId,
    local: &LocalPartition,
    leader: NodeId,
) -> impl Iterator<Item = BranchStatus> {
    let view = local.applied.view();
    let statuses: Vec<_> = view
        .branches()
        .map(|branch| BranchStatus {
            branch: branch.key().branch.to_string(),
            module: branch.key().module.to_string(),
            partition: id.0,
            leader: Some(leader.0),
            revision: Some(branch.head().revision.0),
        })
        .collect();
    statuses.into_iter()
}

/// Sequences that do not follow a number among their records, the first few in words.
fn ignored_leaps(local: &LocalPartition) -> Vec<String> {
    let view = local.applied.view();
    let all = view.branches().flat_map(|branch| {
        let key = branch.key();
        branch.ignored_leaps().map(move |leap| {
            let (table, field) = (&leap.table, &leap.field);
            format!(
                "sequence {table}.{field} of {}/{} stands at {} and does not follow {:?}; \
                 PUT /api/branches/{}/modules/{}/sequences/{table}/{field} sets it",
                key.branch, key.module, leap.counter, leap.text, key.branch, key.module
            )
        })
    });
    all.take(BRANCH_WARNINGS_MAX).collect()
}

/// Branches whose commit times a wrong clock set ahead, the first few in words.
fn ahead_of(now: Timestamp, local: &LocalPartition) -> Vec<String> {
    let view = local.applied.view();
    let bound = now.0.saturating_add(CLOCK_AHEAD_MAX_MS);
    let ahead = view.branches().filter(|branch| branch.last_commit_at().0 > bound);
    let all = ahead.map(|branch| {
        let (key, at) = (branch.key(), branch.last_commit_at().to_iso());
        format!(
            "{}/{} is stamped {at}, which a wrong clock once said; POST \
             /api/branches/{}/modules/{}/clock brings it back",
            key.branch, key.module, key.branch, key.module
        )
    });
    all.take(BRANCH_WARNINGS_MAX).collect()
}

fn leaderless(id: PartitionId, placement: &Placement) -> PartitionStatus {
    PartitionStatus {
        id: id.0,
        leader: None,
        preferred: placement.preferred_node().map_or(0, |node| node.0),
        term: 0,
        replicas: placement
            .replicas
            .iter()
            .map(|(replica, node)| ReplicaStatus { node: node.0, replica: replica.0, lag: None })
            .collect(),
    }
}
