//! Plan: which step a node takes next towards what the catalogue says should be.
//!
//! Promise: the same catalogue and the same observation give the same step; a step that is done is
//! not planned again; when every step has been done or postponed, there is nothing to do. So the
//! order in which nodes start does not matter, and a control actor that is started again goes on
//! where the last one was.
//! Refused: doing anything. `actors/src/control.rs` executes one step, looks, and asks again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::placement::place;
use super::{Catalogue, NodeRecord, Placement};
use crate::ids::{NodeId, PartitionId, ReplicaId};

/// Most voters of group 0; every other node follows it as a learner (decision 12).
pub const CLUSTER_VOTERS_MAX: usize = 5;

/// One step of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Initialize group 0 with these voters.
    InitializeGroup0 {
        /// The first of the initial nodes.
        voters: Vec<NodeId>,
    },
    /// Add a node to group 0, without a vote.
    AddLearner(NodeId),
    /// Propose the cluster, with this placement.
    FormCluster {
        /// Who holds what.
        placements: BTreeMap<PartitionId, Placement>,
    },
    /// Start this node's replicas of these partitions and their actors.
    StartPartitions(Vec<PartitionId>),
    /// Bring this node's copy of the catalogue up to now.
    CatchUpCatalogue,
    /// Write this node's record into the catalogue.
    RegisterNode,
    /// Propose a change that this node was started with.
    BringInEntry {
        /// The change's id.
        id: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InitializeGroup0 { .. } => f.write_str("initialize group 0"),
            Self::AddLearner(node) => write!(f, "add node {node} to group 0"),
            Self::FormCluster { .. } => f.write_str("form the cluster"),
            Self::StartPartitions(partitions) => {
                write!(f, "start {} partitions", partitions.len())
            }
            Self::CatchUpCatalogue => f.write_str("bring the catalogue up to now"),
            Self::RegisterNode => f.write_str("register this node"),
            Self::BringInEntry { id } => write!(f, "bring in the change {id}"),
        }
    }
}

/// What a node sees of itself and of group 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// This node, as the others shall know it.
    pub node: NodeRecord,
    /// The first nodes of the cluster, in order; the lowest of them initializes group 0.
    pub initial: Vec<NodeId>,
    /// How many partitions a new cluster gets.
    pub partitions: u16,
    /// The nodes that are members of group 0, as far as this node's replica knows.
    pub group_0_members: BTreeSet<NodeId>,
    /// Whether this node leads group 0 and has applied everything before its term.
    pub leads_group_0: bool,
    /// Partitions whose actor runs here.
    pub running: BTreeSet<PartitionId>,
    /// Whether this node's copy of the catalogue has ever been complete.
    pub catalogue_complete: bool,
    /// The ids of the changes this node was started with, in the order they are brought in.
    pub entries: Vec<String>,
    /// Steps this process has done although neither group 0 nor the catalogue shows it here yet.
    pub done: Vec<Step>,
    /// Steps that failed. They are left out until the caller removes them from here; of
    /// partitions that did not start, each is in a step of its own.
    pub postponed: Vec<Step>,
}

impl Observation {
    fn is_open(&self, step: &Step) -> bool {
        !self.done.contains(step) && !self.postponed.contains(step)
    }
}

/// The next step of this node; `None` when there is nothing to do now.
///
/// A step that is postponed does not hold up those that do not need it: a learner that cannot be
/// reached keeps no cluster from being formed, and a partition whose disk is damaged keeps no
/// other partition from starting.
pub fn next_step(catalogue: &Catalogue, observed: &Observation) -> Option<Step> {
    let group_0 = || initialize_group_0(observed).or_else(|| add_learner(observed));
    if !catalogue.is_formed() {
        // Everything else reads the catalogue, so nothing else can be done before.
        return group_0().or_else(|| form_cluster(observed));
    }
    group_0()
        .or_else(|| start_partitions(catalogue, observed))
        .or_else(|| catch_up(observed))
        .or_else(|| register_node(catalogue, observed))
        .or_else(|| bring_in_entry(catalogue, observed))
}

/// Exactly one node may initialize a group, or two groups could come of it.
fn initialize_group_0(observed: &Observation) -> Option<Step> {
    let is_lowest = observed.initial.iter().min() == Some(&observed.node.id);
    if !is_lowest || !observed.group_0_members.is_empty() {
        return None;
    }
    let voters = observed.initial.iter().take(CLUSTER_VOTERS_MAX).copied().collect();
    Some(Step::InitializeGroup0 { voters }).filter(|step| observed.is_open(step))
}

fn add_learner(observed: &Observation) -> Option<Step> {
    if !observed.leads_group_0 {
        return None;
    }
    let missing = observed.initial.iter().filter(|node| !observed.group_0_members.contains(node));
    missing.map(|node| Step::AddLearner(*node)).find(|step| observed.is_open(step))
}

fn form_cluster(observed: &Observation) -> Option<Step> {
    // Any node could propose it and only the first proposal counts. One proposer makes no noise.
    if !observed.leads_group_0 || observed.initial.is_empty() {
        return None;
    }
    let placements = place(observed.partitions, &observed.initial, ReplicaId(1));
    Some(Step::FormCluster { placements }).filter(|step| observed.is_open(step))
}

fn start_partitions(catalogue: &Catalogue, observed: &Observation) -> Option<Step> {
    let is_held = |placement: &Placement| placement.replica_on(observed.node.id).is_some();
    let missing: Vec<PartitionId> = catalogue
        .placements
        .iter()
        .filter(|(partition, placement)| {
            is_held(placement) && !observed.running.contains(*partition)
        })
        .map(|(partition, _)| *partition)
        .filter(|partition| observed.is_open(&Step::StartPartitions(vec![*partition])))
        .collect();
    (!missing.is_empty()).then_some(Step::StartPartitions(missing))
}

/// Before this node denies anything to a client, its copy has been complete once.
fn catch_up(observed: &Observation) -> Option<Step> {
    let is_due = !observed.catalogue_complete && observed.is_open(&Step::CatchUpCatalogue);
    is_due.then_some(Step::CatchUpCatalogue)
}

fn is_registered(catalogue: &Catalogue, observed: &Observation) -> bool {
    catalogue.nodes.get(&observed.node.id) == Some(&observed.node)
        || observed.done.contains(&Step::RegisterNode)
}

fn register_node(catalogue: &Catalogue, observed: &Observation) -> Option<Step> {
    let is_due = !is_registered(catalogue, observed) && observed.is_open(&Step::RegisterNode);
    is_due.then_some(Step::RegisterNode)
}

/// One after the other: a later change may build on an earlier one, as a branch on its modules. And
/// not before the node is registered: one with another data directory must bring in nothing.
fn bring_in_entry(catalogue: &Catalogue, observed: &Observation) -> Option<Step> {
    if !is_registered(catalogue, observed) {
        return None;
    }
    let step = |id: &String| Step::BringInEntry { id: id.clone() };
    let mut open = observed.entries.iter().filter(|id| !catalogue.has_applied(id)).map(step);
    open.find(|step| !observed.done.contains(step))
        .filter(|step| !observed.postponed.contains(step))
}

#[cfg(test)]
mod scripts;
#[cfg(test)]
mod tests;
