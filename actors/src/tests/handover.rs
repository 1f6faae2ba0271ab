//! Stories about nodes that should not lead: who leads instead, and what callers see meanwhile.

use std::sync::Arc;
use std::time::Duration;

use model::{CatalogueChange, NodeId, VersionRule};
use raft::disk::DiskFaults;
use raft::{GroupId, UnfitReason};

use crate::message::NodeCondition;
use crate::store::{RouteError, Store};
use crate::testing::{Cluster, MEMORY_MAX, TestNode, accept, insert, key, wait_until};

/// Whether a node leads anything at all.
fn leads(cluster: &Cluster, place: usize) -> bool {
    cluster.nodes[place].groups.all().values().any(|group| group.status().is_leader)
}

/// Has the node at this place lead group 0.
async fn lead_group_0(cluster: &Cluster, place: usize) {
    let group = |place: usize| cluster.nodes[place].groups.get(GroupId::CLUSTER).unwrap();
    let to = group(place).replica();
    wait_until("it leads group 0", || {
        let leader = (0..3).find(|place| group(*place).status().is_leader);
        if let Some(leader) = leader.filter(|leader| *leader != place) {
            let leader = group(leader);
            tokio::spawn(async move { leader.transfer_leader(to).await });
        }
        leader == Some(place)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfit_node_leads_nothing_and_serves() {
    let cluster = Cluster::start(3).await;
    accept(&cluster.store(0), insert("dar", "n0", "x")).await;
    let place = cluster.leader_of("dar");
    lead_group_0(&cluster, place).await;
    let (node, store) = (cluster.nodes[place].id, cluster.store(place));
    let (memory, fitness) = (&cluster.nodes[place].memory, cluster.nodes[place].groups.fitness());
    memory.state_process(MEMORY_MAX + 1, 0);
    wait_until("it is unfit", || fitness.has(UnfitReason::MemoryPressure)).await;
    // Also through the node itself: it finds whoever leads now.
    for n in 1..=20 {
        accept(&store, insert("dar", &format!("n{n}"), "x")).await;
    }
    wait_until("it leads nothing", || !leads(&cluster, place)).await;
    assert_eq!(super::notes_of(&store, "dar").await.len(), 21);
    assert!(store.ready().is_ok());
    assert_eq!(store.unfit()[0].0, "memory-pressure");
    let warnings = cluster.store((place + 1) % 3).status().await.warnings;
    let said = format!("node {node}: it should lead nothing (memory-pressure)");
    assert!(warnings.iter().any(|warning| warning.starts_with(&said)), "{warnings:?}");
    for other in (0..3).filter(|other| *other != place) {
        let store = cluster.store(other);
        wait_until("the others know", || !store.0.liveness.may_lead(node)).await;
    }
    memory.state_process(0, 0);
    let other = cluster.store((place + 1) % 3);
    wait_until("it may lead again", || other.0.liveness.may_lead(node)).await;
    assert!(store.unfit().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_full_disk_costs_no_write() {
    let cluster = Cluster::on_disks(3).await;
    accept(&cluster.store(0), insert("dar", "n0", "x")).await;
    let place = cluster.leader_of("dar");
    let disks = cluster.disks.as_ref().unwrap();
    disks[place].fail(DiskFaults { full: true, ..DiskFaults::default() });
    let text = "x".repeat(2_000);
    for n in 1..=100 {
        let through = cluster.store(n % 3);
        accept(&through, insert("dar", &format!("n{n}"), &text)).await;
    }
    wait_until("another node leads", || !leads(&cluster, place)).await;
    assert!(cluster.nodes[place].groups.fitness().has(UnfitReason::DiskFull));
    disks[place].fail(DiskFaults::default());
    wait_until("it has room", || cluster.nodes[place].groups.fitness().is_fit()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_met_full_disks_comes_later() {
    let cluster = Cluster::start(3).await;
    accept(&cluster.store(0), insert("dar", "n0", "x")).await;
    let place = cluster.leader_of("dar");
    let store = cluster.store(place);
    lead_group_0(&cluster, (place + 1) % 3).await;
    let partition = store.0.catalogue_client.locate(&key("dar")).unwrap();
    let definition = || {
        let view = store.0.partitions.get(partition).unwrap().applied.view();
        view.branch(&key("dar")).unwrap().definition().unwrap().version_rule
    };
    // The leader of the branch takes both others for full, whatever they say.
    let full = NodeCondition { unfit: vec!["disk-full".to_owned()], clock_millis: 0 };
    let others: Vec<NodeId> = store.0.liveness.linked();
    let liveness = Arc::clone(&store.0.liveness);
    let says = tokio::spawn(async move {
        loop {
            others.iter().for_each(|node| liveness.set_condition(*node, &full));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let catalogue = store.0.catalogue.clone();
    let known = catalogue.borrow().revision;
    let mut changes = crate::testing::notes().into_iter().map(|entry| entry.change);
    let Some(CatalogueChange::Module(mut module)) = changes.next() else { panic!("a module") };
    Arc::make_mut(&mut module).version_rule = VersionRule::Read;
    let changed = cluster.store((place + 1) % 3);
    changed.change("read".to_owned(), CatalogueChange::Module(module)).await.unwrap();
    wait_until("the leader knows of it", || catalogue.borrow().revision > known).await;
    // Time for it to be handed in and refused.
    tokio::time::sleep(Duration::from_millis(300)).await;
    says.abort();
    wait_until("the branch follows", || definition() == VersionRule::Read).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_begin_says_why() {
    let cluster = Cluster::start(3).await;
    accept(&cluster.store(0), insert("dar", "n0", "x")).await;
    let (old, new) = (cluster.leader_of("dar"), (cluster.leader_of("dar") + 1) % 3);
    let partition = cluster.store(0).0.catalogue_client.locate(&key("dar")).unwrap();
    let group = |place: usize| cluster.nodes[place].groups.get(partition.into()).unwrap();
    // Elected it is, but nobody confirms an entry: as if the others had no room for it.
    let held = cluster.hold_log(new);
    let store = cluster.store(new);
    let full = NodeCondition { unfit: vec!["disk-full".to_owned()], clock_millis: 0 };
    let (liveness, others) = (Arc::clone(&store.0.liveness), store.0.liveness.linked());
    let says = tokio::spawn(async move {
        loop {
            others.iter().for_each(|node| liveness.set_condition(*node, &full));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    group(old).transfer_leader(group(new).replica()).await.unwrap();
    // Its heartbeats are answered: until the first is, the status shows no leader at all.
    wait_until("the other one leads", || {
        let status = group(new).status();
        status.is_leader && status.has_quorum
    })
    .await;
    let refused = store.submit(insert("dar", "n1", "x")).await;
    let Err(RouteError::Unavailable { reason, .. }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("of 3 replicas 2 have a full disk"), "{reason}");
    let warnings = store.status().await.warnings;
    let is_said = |warning: &String| warning.contains("has a leader here that cannot begin");
    assert!(warnings.iter().any(is_said), "{warnings:?}");
    says.abort();
    held.into_iter().for_each(raft::testing::HeldResponses::release);
    while store.submit(insert("dar", "n2", "x")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!store.status().await.warnings.iter().any(is_said));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_has_room_writes_are_refused_at_once() {
    for nodes in [1, 3] {
        let cluster = Cluster::on_disks(nodes).await;
        let disks = cluster.disks.as_ref().unwrap();
        for disk in disks {
            disk.fail(DiskFaults { full: true, ..DiskFaults::default() });
        }
        let text = "x".repeat(8_000);
        let (mut accepted, mut refusal) = (0, None);
        for n in 0..200 {
            match cluster.store(0).submit(insert("dar", &format!("n{n}"), &text)).await {
                Ok(_) => accepted += 1,
                // A disk of the others was full before this node knew of it.
                Err(RouteError::Indeterminate) => {}
                Err(error) => {
                    refusal = Some(error);
                    break;
                }
            }
        }
        let Some(RouteError::Unavailable { reason, retry_after }) = refusal else {
            panic!("{refusal:?}")
        };
        let is_said = reason.contains("no room for the next log") || reason.contains("full disk");
        assert!(is_said, "{reason}");
        assert_eq!(retry_after, crate::limits::DISK_FULL_RETRY_AFTER);
        let held = super::notes_of(&cluster.store(0), "dar").await.len();
        assert!(held >= accepted, "{held} of {accepted}");
        disks.iter().for_each(|disk| disk.fail(DiskFaults::default()));
        let is_fit = |node: &TestNode| node.groups.fitness().is_fit();
        wait_until("all have room", || cluster.nodes.iter().all(is_fit)).await;
        // Until the leader knows of the others' room, which takes it a second.
        while cluster.store(0).submit(insert("dar", "after", "x")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_leaps_stamps_none_of_it() {
    let cluster = Cluster::start(3).await;
    accept(&cluster.store(0), insert("dar", "n0", "x")).await;
    let place = cluster.leader_of("dar");
    let leader = &cluster.nodes[place];
    leader.clock.set_skew_ms(317 * 365 * 86_400_000);
    for n in 1..=20 {
        accept(&cluster.store(place), insert("dar", &format!("n{n}"), "x")).await;
    }
    wait_until("it leads nothing", || !leads(&cluster, place)).await;
    assert_eq!(cluster.store(place).unfit()[0].0, "clock-off");
    leader.clock.set_skew_ms(0);
    accept(&cluster.store(place), insert("dar", "after", "x")).await;
    wait_until("its clock is right", || leader.groups.fitness().is_fit()).await;
    let partition = cluster.store(0).0.catalogue_client.locate(&key("dar")).unwrap();
    let view = cluster.store(place).0.partitions.get(partition).unwrap().applied.view();
    let head = view.branch(&key("dar")).unwrap().head();
    let ahead = head.last_updated_at.0 - crate::WallClock::default().millis();
    assert!(ahead < 60_000, "{ahead} ms");
}
