//! Agreement while nothing fails: elections, proposals, reads, fencing, leadership on request.

use bytes::Bytes;
use futures::future::join_all;
use model::NodeId;
use raft::{GroupId, Priority, ProposeError, ReadError};

use crate::cluster::{Cluster, TIMEOUT, replica};

const G: GroupId = GroupId(1);

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_apply_the_same_entries_in_the_same_order() {
    let cluster = Cluster::start(3, [1]).await;
    let leader = cluster.leader(G).await;
    let group = cluster.group(leader, G);
    let proposals = (0..500u32).map(|entry| {
        let group = group.clone();
        async move { group.propose(None, Bytes::from(entry.to_string())).await.unwrap() }
    });
    let proposed = join_all(proposals).await;
    let mut indexes: Vec<u64> = proposed.iter().map(|proposed| proposed.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 500, "each has an index of its own");
    let entries = cluster.machine(leader, G).entries();
    assert_eq!(entries.len(), 500, "each counts once");
    for (proposal, proposed) in proposed.iter().enumerate() {
        let count = usize::try_from(proposed.response).unwrap();
        assert_eq!(entries[count - 1], proposal.to_string(), "the response belongs to the entry");
    }
    for node in cluster.running() {
        cluster.wait_for_entries(node, G, 500).await;
        assert_eq!(cluster.machine(node, G).entries(), entries, "node {node}");
    }
    assert!(cluster.fatal.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn initializing_again_changes_nothing() {
    let cluster = Cluster::start(1, [1]).await;
    cluster.leader(G).await;
    let group = cluster.group(NodeId(1), G);
    let before = group.status().members;
    group.initialize([(replica(G, NodeId(9)), raft::Member { node: NodeId(9) })].into()).await.ok();
    assert_eq!(group.status().members, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn fenced_proposal_is_rejected_in_another_term() {
    let cluster = Cluster::start(3, [1]).await;
    let leader = cluster.leader(G).await;
    let group = cluster.group(leader, G);
    let term = group.status().term;
    group.propose(Some(term), Bytes::from_static(b"mine")).await.unwrap();
    for other in [term - 1, term + 1] {
        let refused = group.propose(Some(other), Bytes::from_static(b"late")).await.unwrap_err();
        assert!(matches!(refused, ProposeError::NotLeader { .. }), "{refused:?}");
    }
    assert_eq!(cluster.machine(leader, G).count(), 1);

    let next = NodeId(leader.0 % 3 + 1);
    group.transfer_leader(replica(G, next)).await.unwrap();
    cluster.status(next, G, |status| status.ready).await;
    let group = cluster.group(next, G);
    let refused = group.propose(Some(term), Bytes::from_static(b"late")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::NotLeader { .. }), "{refused:?}");
    let now = group.status().term;
    assert!(now > term);
    group.propose(Some(now), Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(cluster.machine(next, G).entries(), ["mine", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_transfer_elects_the_requested_replica() {
    let cluster = Cluster::start(3, [1]).await;
    let leader = cluster.leader(G).await;
    let next = NodeId(leader.0 % 3 + 1);
    let group = cluster.group(leader, G);
    assert!(group.transfer_leader(replica(G, NodeId(77))).await.is_err(), "not a voter");
    group.transfer_leader(replica(G, next)).await.unwrap();
    for node in cluster.running() {
        let status = cluster
            .status(node, G, |status| status.leader.is_some_and(|(_, node)| node == next))
            .await;
        assert_eq!(status.leader, Some((replica(G, next), next)));
    }
    cluster.status(next, G, |status| status.ready).await;
    let refused = group.propose(None, Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { hint: Some(next) });
    assert_eq!(
        group.transfer_leader(replica(G, leader)).await,
        Err(ProposeError::NotLeader { hint: Some(next) })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn read_barrier_sees_acknowledged_entries_on_leader_only() {
    let cluster = Cluster::start(3, [1]).await;
    let leader = cluster.leader(G).await;
    let group = cluster.group(leader, G);
    for count in 1..=20 {
        let index = group.propose(None, Bytes::from_static(b"x")).await.unwrap().index;
        assert!(group.read_barrier().await.unwrap() >= index);
        assert_eq!(cluster.machine(leader, G).count(), count);
        let confirmed = group.read_index().await.unwrap();
        let follower = NodeId(leader.0 % 3 + 1);
        cluster.group(follower, G).wait_applied(confirmed, TIMEOUT).await.unwrap();
        assert_eq!(cluster.machine(follower, G).count(), count, "a follower's read is as fresh");
    }
    let follower = cluster.group(NodeId(leader.0 % 3 + 1), G);
    assert_eq!(follower.read_barrier().await, Err(ReadError::NotLeader { hint: Some(leader) }));
    let far = group.status().last_log + 1000;
    let late = follower.wait_applied(far, std::time::Duration::from_millis(1)).await;
    assert!(matches!(late, Err(ReadError::Unavailable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn seventeen_groups_elect_and_keep_leaders_while_idle() {
    let cluster = Cluster::start(3, 0..17).await;
    for group in (0..17).map(GroupId) {
        let leader = cluster.leader(group).await;
        let proposed = cluster.group(leader, group).propose(None, Bytes::from_static(b"x")).await;
        assert_eq!(proposed.unwrap().response, 1);
    }
    let terms: Vec<u64> =
        (0..17).map(|group| cluster.group(NodeId(1), GroupId(group)).status().term).collect();
    let heartbeats = cluster.network.messages_sent(Priority::Urgent);
    crate::cluster::eventually("heartbeats", || async {
        (cluster.network.messages_sent(Priority::Urgent) > heartbeats + 17 * 40).then_some(())
    })
    .await;
    for group in (0..17).map(GroupId) {
        for node in cluster.running() {
            cluster.wait_for_entries(node, group, 1).await;
        }
    }
    let leader_changes = (0..17)
        .filter(|&group| {
            cluster.group(NodeId(1), GroupId(group)).status().term != terms[usize::from(group)]
        })
        .count();
    assert!(leader_changes <= 3, "an idle group keeps its leader; {leader_changes} of 17 did not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_takes_proposals_only_for_its_own_machine() {
    struct Other;
    impl raft::Machine for Other {
        type Response = ();

        fn apply(
            &mut self,
            _: u64,
            _: &[u8],
            _: &mut Vec<raft::StoreWrite>,
        ) -> Result<raft::ApplyStep<()>, raft::Fatal> {
            Ok(raft::ApplyStep::Done(()))
        }

        fn freeze(&self) -> Box<dyn raft::FrozenState> {
            unreachable!("it never runs")
        }

        fn restore(&mut self, _: u64, _: &dyn raft::ChunkSource) -> Result<(), raft::Fatal> {
            Ok(())
        }

        fn checkpoint_durable(&mut self, _: u64) {}

        fn attach(&mut self, _: std::sync::Arc<dyn raft::WorkingStore>) {}
    }
    let cluster = Cluster::start(1, [1]).await;
    let group = cluster.group(NodeId(1), G);
    assert!(group.typed::<raft::testing::RecordingMachine>().is_some());
    assert!(group.typed::<Other>().is_none());
}
