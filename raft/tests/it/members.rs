//! Who belongs to a group: replicas come, gain a vote, leave, and never come back under an old id.

use std::collections::BTreeSet;

use model::{NodeId, ReplicaId};
use raft::testing::RecordingMachine;
use raft::{GroupId, Member, ProposeError};

use crate::cluster::{Cluster, eventually, replica};

const G: GroupId = GroupId(1);

#[tokio::test(flavor = "multi_thread")]
async fn group_moves_from_one_node_to_another() {
    let mut cluster = Cluster::start(3, [1]).await;
    for _ in 0..20 {
        cluster.propose(G, "x").await;
    }
    let leader = cluster.leader(G).await;
    let group = cluster.group(leader, G);
    let newcomer = NodeId(4);
    let with_newcomer = BTreeSet::from([replica(G, leader), replica(G, newcomer)]);
    let refused = group.change_voters(with_newcomer).await;
    assert!(matches!(refused, Err(ProposeError::Unavailable { .. })), "a learner first");

    cluster.open(newcomer).await;
    group.add_learner(replica(G, newcomer), Member { node: newcomer }).await.unwrap();
    cluster.wait_for_entries(newcomer, G, 20).await;
    assert_eq!(group.status().members[&replica(G, newcomer)], (newcomer, false));
    let leaves = NodeId(leader.0 % 3 + 1);
    let voters: BTreeSet<ReplicaId> = [1, 2, 3, 4]
        .map(NodeId)
        .into_iter()
        .filter(|&node| node != leaves)
        .map(|node| replica(G, node))
        .collect();
    group.change_voters(voters.clone()).await.unwrap();
    let members = group.status().members;
    assert_eq!(members.keys().copied().collect::<BTreeSet<_>>(), voters);
    assert!(members.values().all(|&(_, voter)| voter));
    cluster.groups(leaves).stop(G).await;
    assert!(cluster.groups(leaves).get(G).is_none());
    cluster.groups(leaves).forget(G, replica(G, leaves)).await.unwrap();
    cluster.propose_without(G, leaves).await;
    cluster.wait_for_entries(newcomer, G, 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remove_learner_rejects_voters() {
    let mut cluster = Cluster::start(1, [1]).await;
    cluster.leader(G).await;
    let group = cluster.group(NodeId(1), G);
    cluster.open(NodeId(2)).await;
    let learner = replica(G, NodeId(2));
    group.add_learner(learner, Member { node: NodeId(2) }).await.unwrap();
    cluster.status(NodeId(2), G, |status| status.leader.is_some()).await;
    group.remove_learner(learner).await.unwrap();
    assert!(!group.status().members.contains_key(&learner));
    assert!(group.remove_learner(replica(G, NodeId(1))).await.is_err());
    cluster.propose(G, "x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_for_a_removed_replica_is_rejected_by_its_successor() {
    let cluster = Cluster::start(3, [1]).await;
    cluster.propose(G, "x").await;
    let leader = cluster.leader(G).await;
    let node = NodeId(leader.0 % 3 + 1);
    cluster.wait_for_entries(node, G, 1).await;
    cluster.groups(node).stop(G).await;
    let (successor, machine) = (ReplicaId(9999), RecordingMachine::new());
    let started = cluster.groups(node).start(G, successor, machine.clone()).await.unwrap();
    for _ in 0..20 {
        cluster.propose_without(G, node).await;
    }
    assert_eq!(machine.count(), 0);
    assert!(started.status().members.is_empty(), "it knows of no group");
    let group = cluster.group(leader, G);
    group.add_learner(successor, Member { node }).await.unwrap();
    eventually("the successor's entries", || async { (machine.count() >= 21).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn group_runs_at_most_once_on_a_node() {
    let cluster = Cluster::start(1, [1]).await;
    let again = cluster.groups(NodeId(1)).start(G, ReplicaId(5), RecordingMachine::new()).await;
    assert!(again.is_err_and(|fatal| fatal.0.contains("already runs")));
    let forget = cluster.groups(NodeId(1)).forget(G, replica(G, NodeId(1))).await;
    assert!(forget.is_err(), "it runs");
}
