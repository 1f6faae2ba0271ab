//! Placement: from a list of nodes to who should hold what. A proposal, never the truth: the
//! agreed table is replicated in group 0, so that every move is deliberate.
//!
//! Rendezvous hashing keeps a partition where it was when a node comes or goes. A cap on replicas
//! and a quota on leaders keep random hashes from loading one node more than the others.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::Placement;
use crate::ids::{BranchKey, NodeId, PartitionId, ReplicaId};

/// The hash rule's version: part of every cluster's data, never changed.
const RULE: u8 = 1;

/// The partition of a branch:module among `partitions`. Ids are length-prefixed, because branch
/// ids may contain any separator.
pub fn partition_of(key: &BranchKey, partitions: u16) -> PartitionId {
    let mut bytes = vec![RULE];
    for part in [key.branch.as_str(), key.module.as_str()] {
        bytes.extend((part.len() as u64).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    let place = xxh3_64(&bytes) % u64::from(partitions);
    PartitionId(u16::try_from(place).expect("less than a u16") + 1)
}

/// The partition whose leader owns a topic, among `partitions`.
pub fn partition_of_topic(topic: &str, partitions: u16) -> PartitionId {
    let mut bytes = vec![RULE];
    // A space of its own, so that a topic and a branch of one name do not share a place by rule.
    bytes.extend(b"topic");
    bytes.extend(topic.as_bytes());
    let place = xxh3_64(&bytes) % u64::from(partitions);
    PartitionId(u16::try_from(place).expect("less than a u16") + 1)
}

fn score(partition: PartitionId, node: NodeId) -> u64 {
    let mut bytes = vec![RULE];
    bytes.extend(partition.0.to_le_bytes());
    bytes.extend(node.0.to_le_bytes());
    xxh3_64(&bytes)
}

/// How many replicas a partition has on this many nodes: 1 on one or two, else 3 (decision 12).
pub fn replicas_for(nodes: usize) -> usize {
    if nodes < 3 { 1 } else { 3 }
}

/// Proposes who holds `partitions` partitions, numbering replicas from `first_replica`.
///
/// # Panics
/// Without nodes.
pub fn place(
    partitions: u16,
    nodes: &[NodeId],
    first_replica: ReplicaId,
) -> BTreeMap<PartitionId, Placement> {
    assert!(!nodes.is_empty(), "a cluster has at least one node");
    let copies = replicas_for(nodes.len());
    let total = usize::from(partitions);
    // Hashes alone would give some node half as much again as another.
    let cap = (copies * total).div_ceil(nodes.len());
    let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut leads: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut next_replica = first_replica;
    let mut table = BTreeMap::new();
    for partition in (1..=partitions).map(PartitionId) {
        let mut ranked = nodes.to_vec();
        // Ties by node id: every node must propose the same table.
        ranked.sort_by_key(|node| (std::cmp::Reverse(score(partition, *node)), *node));
        let free = |node: &NodeId| held.get(node).copied().unwrap_or(0) < cap;
        // Full nodes stay in the list, behind: with few nodes a partition needs them all the same.
        let (roomy, full): (Vec<_>, Vec<_>) = ranked.into_iter().partition(free);
        let chosen: Vec<NodeId> = roomy.into_iter().chain(full).take(copies).collect();
        let leader = pick_leader(&chosen, &mut leads, total, nodes.len());
        let mut placement = Placement { replicas: BTreeMap::new(), preferred: next_replica };
        for node in chosen {
            *held.entry(node).or_default() += 1;
            if node == leader {
                placement.preferred = next_replica;
            }
            placement.replicas.insert(next_replica, node);
            next_replica.0 += 1;
        }
        table.insert(partition, placement);
    }
    table
}

/// The best-ranked holder that is below its share: every node leads the same number of
/// partitions, or one more.
fn pick_leader(
    chosen: &[NodeId],
    leads: &mut BTreeMap<NodeId, usize>,
    partitions: usize,
    nodes: usize,
) -> NodeId {
    let (share, extra) = (partitions / nodes, partitions % nodes);
    // The partitions that do not divide evenly go to one node each, not all to the first.
    let extras_used = leads.values().filter(|count| **count > share).count();
    let below = |node: &NodeId| {
        let count = leads.get(node).copied().unwrap_or(0);
        count < share || (count == share && extras_used < extra)
    };
    let least = |node: &&NodeId| leads.get(node).copied().unwrap_or(0);
    let leader = chosen.iter().find(|node| below(node)).or_else(|| chosen.iter().min_by_key(least));
    let leader = *leader.expect("a partition has at least one replica");
    *leads.entry(leader).or_default() += 1;
    leader
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BranchId, ModuleId};

    fn key(branch: &str) -> BranchKey {
        BranchKey::new(BranchId::parse(branch).unwrap(), ModuleId::parse("pos").unwrap())
    }

    fn leaders(nodes: u64) -> (BTreeMap<PartitionId, Placement>, BTreeMap<NodeId, usize>) {
        let ids: Vec<_> = (1..=nodes).map(NodeId).collect();
        let table = place(16, &ids, ReplicaId(1));
        let mut leads = BTreeMap::new();
        for placement in table.values() {
            *leads.entry(placement.preferred_node().unwrap()).or_default() += 1;
        }
        (table, leads)
    }

    #[test]
    fn every_node_leads_its_share_or_one_more() {
        for (nodes, share) in [(1, 16), (2, 8), (3, 5), (4, 4), (5, 3)] {
            let (table, leads) = leaders(nodes);
            assert!(leads.values().all(|n| *n == share || *n == share + 1), "{nodes}: {leads:?}");
            let copies = replicas_for(usize::try_from(nodes).unwrap());
            assert!(table.values().all(|placement| placement.replicas.len() == copies));
        }
    }

    #[test]
    fn replica_ids_are_never_used_twice() {
        let (table, _) = leaders(3);
        let mut ids: Vec<_> = table.values().flat_map(|p| p.replicas.keys()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 48);
    }

    #[test]
    fn the_two_sample_branches_are_led_by_different_nodes_of_three() {
        let (table, _) = leaders(3);
        let leader = |branch| table[&partition_of(&key(branch), 16)].preferred_node();
        assert_ne!(leader("dar"), leader("remal"));
    }

    #[test]
    fn where_a_branch_lives_is_pinned_for_ever() {
        assert_eq!(partition_of(&key("dar"), 16), PartitionId(7));
        assert_eq!(partition_of(&key("remal"), 16), PartitionId(5));
    }
}
