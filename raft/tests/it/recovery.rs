//! What is left after a stop: everything acknowledged, on every node, however it is brought there.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use model::NodeId;
use raft::testing::{RecordingMachine, UNREAD_CHUNK};
use raft::{
    ApplyStep, ChunkSource, Fatal, FrozenState, GroupId, Groups, GroupsConfig, Machine, Priority,
    StoreWrite, WorkingStore,
};

use crate::cluster::{Cluster, eventually, replica};

const G: GroupId = GroupId(1);

fn entry(number: usize) -> Bytes {
    let mut entry = format!("{number:06}").into_bytes();
    entry.resize(200, b'.');
    entry.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_leader_has_every_acknowledged_entry() {
    let mut cluster = Cluster::start(3, [1]).await;
    let first = cluster.leader(G).await;
    for number in 0..50 {
        cluster.propose(G, entry(number)).await;
    }
    cluster.close(first).await;
    let second = cluster.leader(G).await;
    assert_ne!(second, first);
    let expected: Vec<Bytes> = (0..50).map(entry).collect();
    assert_eq!(cluster.machine(second, G).entries(), expected);
    for number in 50..60 {
        cluster.propose(G, entry(number)).await;
    }
    cluster.open(first).await;
    cluster.wait_for_entries(first, G, 60).await;
    assert_eq!(cluster.machine(first, G).entries(), (0..60).map(entry).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_survive_restart_of_all_nodes() {
    let mut cluster = Cluster::start(3, [1, 2]).await;
    for number in 0..100 {
        cluster.propose(G, entry(number)).await;
    }
    cluster.propose(GroupId(2), "other").await;
    let leader = cluster.leader(G).await;
    cluster.group(leader, G).checkpoint().await.unwrap();
    for number in 100..130 {
        cluster.propose(G, entry(number)).await;
    }
    let term = cluster.group(leader, G).status().term;
    for node in cluster.running() {
        cluster.close(node).await;
    }
    for node in [1, 2, 3].map(NodeId) {
        cluster.open(node).await;
        let local = cluster.groups(node).local();
        assert_eq!(local.len(), 2, "{local:?}");
    }
    let expected: Vec<Bytes> = (0..130).map(entry).collect();
    let leader_now = cluster.leader(G).await;
    assert!(cluster.group(leader_now, G).status().term > term, "leading is never inherited");
    for node in cluster.running() {
        cluster.wait_for_entries(node, G, 130).await;
        assert_eq!(cluster.machine(node, G).entries(), expected, "node {node}");
    }
    assert_eq!(cluster.machine(leader, G).restored().0, 1, "from its checkpoint");
    cluster.wait_for_entries(leader, GroupId(2), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_replica_leads_and_keeps_entries_over_restart() {
    let mut cluster = Cluster::start(1, [1]).await;
    for number in 0..20 {
        cluster.propose(G, entry(number)).await;
    }
    cluster.close(NodeId(1)).await;
    cluster.open(NodeId(1)).await;
    cluster.leader(G).await;
    let expected: Vec<Bytes> = (0..20).map(entry).collect();
    assert_eq!(cluster.machine(NodeId(1), G).entries(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_transfer_sends_only_missing_chunks() {
    let mut cluster = Cluster::start(3, [1]).await;
    cluster.leader(G).await;
    let away = NodeId(3);
    let mut count = 0;
    let mut sent = Vec::new();
    for (round, by_checkpoint) in [(0, false), (1, true), (2, true)] {
        cluster.close(away).await;
        for _ in 0..400 {
            cluster.propose(G, entry(count)).await;
            count += 1;
        }
        if by_checkpoint {
            purge_log(&cluster, count).await;
            count += 1;
        }
        let before = cluster.network.bytes_sent(Priority::Bulk);
        cluster.open(away).await;
        cluster.wait_for_entries(away, G, count).await;
        assert_eq!(cluster.machine(away, G).entries(), cluster.machine(NodeId(1), G).entries());
        sent.push(cluster.network.bytes_sent(Priority::Bulk) - before);
        assert_eq!(sent[round] > 0, by_checkpoint, "round {round}: {sent:?}");
        let store = cluster.machine(away, G).store().unwrap();
        let applied = cluster.group(away, G).status().applied;
        eventually("the store", || async { (store.stored() >= applied).then_some(()) }).await;
        let scanned = scan(store).await;
        assert_eq!(scanned, cluster.machine(away, G).entries(), "round {round}");
    }
    assert!(sent[2] < sent[1], "what it has is not sent again: {sent:?}");
}

/// Writes two checkpoints everywhere, so that the log below the older one goes. Adds one entry.
async fn purge_log(cluster: &Cluster, count: usize) {
    for node in cluster.running() {
        cluster.group(node, G).checkpoint().await.unwrap();
    }
    let index = cluster.propose(G, entry(count)).await;
    for node in cluster.running() {
        cluster.wait_for_entries(node, G, count + 1).await;
        cluster.group(node, G).checkpoint().await.unwrap();
    }
    for node in cluster.running() {
        cluster.status(node, G, |status| status.purged >= index - 1).await;
    }
}

async fn scan(store: Arc<dyn WorkingStore>) -> Vec<Bytes> {
    let scanned = tokio::task::spawn_blocking(move || {
        store.scan(&[], &[0xff; 9], raft::ScanLimit::rows(usize::MAX))
    })
    .await;
    scanned.unwrap().unwrap().into_iter().map(|(_, value)| value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_is_written_after_enough_log_bytes() {
    let cluster = Cluster::start_with(1, [1], |config| config.checkpoint_log_bytes = 4 << 10).await;
    for number in 0..100 {
        cluster.propose(G, entry(number)).await;
    }
    let status = cluster.status(NodeId(1), G, |status| status.purged > 0).await;
    assert!(status.checkpoint > status.purged, "the log of the last checkpoint stays: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_written_at_rest_though_none_is_due() {
    let cluster = Cluster::start(1, [1]).await;
    for _ in 0..3 {
        cluster.propose(G, vec![b'x'; 1 << 20]).await;
    }
    let status = cluster.status(NodeId(1), G, |status| status.checkpoint > 0).await;
    assert_eq!(status.checkpoint, status.applied, "it is of all that was applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_newest_checkpoint_loses_no_entries() {
    let mut cluster = Cluster::start(1, [1]).await;
    let node = NodeId(1);
    for round in 0..3 {
        for number in 0..20 {
            cluster.propose(G, entry(round * 20 + number)).await;
        }
        cluster.group(node, G).checkpoint().await.unwrap();
    }
    cluster.status(node, G, |status| status.purged > 0).await;
    // Longer than it takes to cut too much, were that done.
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.close(node).await;
    let dir = std::fs::read_dir(cluster.dir(node).join("checkpoints")).unwrap();
    let dir = dir.map(|found| found.unwrap().path()).next().unwrap();
    let files = std::fs::read_dir(dir).unwrap().map(|found| found.unwrap().path());
    let newest = files.filter(|file| file.extension().is_some_and(|e| e == "checkpoint")).max();
    std::fs::write(newest.unwrap(), b"").unwrap();
    cluster.open(node).await;
    cluster.leader(G).await;
    let expected: Vec<Bytes> = (0..60).map(entry).collect();
    assert_eq!(cluster.machine(node, G).entries(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_unread_chunk_is_repaired_from_another_replica() {
    let mut cluster = Cluster::start(3, [1]).await;
    cluster.propose(G, entry(0)).await;
    for node in cluster.running() {
        cluster.wait_for_entries(node, G, 1).await;
        cluster.group(node, G).checkpoint().await.unwrap();
    }
    for damage in ["flip", "cut", "gone"] {
        cluster.close(NodeId(3)).await;
        let dir = std::fs::read_dir(cluster.dir(NodeId(3)).join("checkpoints")).unwrap();
        let chunks = dir.map(|found| found.unwrap().path()).next().unwrap().join("chunks");
        let mut files = std::fs::read_dir(chunks).unwrap().map(|found| found.unwrap().path());
        let whole =
            |file: &PathBuf| std::fs::read(file).is_ok_and(|b| b == UNREAD_CHUNK.as_bytes());
        let file = files.find(whole).unwrap();
        match damage {
            "flip" => std::fs::write(&file, UNREAD_CHUNK.to_uppercase()).unwrap(),
            "cut" => std::fs::write(&file, "r").unwrap(),
            _ => std::fs::remove_file(&file).unwrap(),
        }
        cluster.open(NodeId(3)).await;
        cluster.wait_for_entries(NodeId(3), G, 1).await;
        eventually("the chunk", || async { whole(&file).then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_store_is_rebuilt() {
    let mut cluster = Cluster::start(1, [1]).await;
    for number in 0..100 {
        cluster.propose(G, entry(number)).await;
    }
    cluster.group(NodeId(1), G).checkpoint().await.unwrap();
    cluster.propose(G, entry(100)).await;
    cluster.close(NodeId(1)).await;
    std::fs::remove_dir_all(cluster.dir(NodeId(1)).join("store")).unwrap();
    cluster.open(NodeId(1)).await;
    cluster.leader(G).await;
    let machine = cluster.machine(NodeId(1), G);
    assert_eq!(machine.entries(), (0..=100).map(entry).collect::<Vec<_>>());
    let (store, applied) = (machine.store().unwrap(), cluster.group(NodeId(1), G).status().applied);
    eventually("the store", || async { (store.stored() >= applied).then_some(()) }).await;
    assert_eq!(scan(store).await, machine.entries());
    assert_eq!(machine.restored(), (1, 1), "given the checkpoint, and asked to fill the store");
}

/// A machine that takes as long to start as somebody wants.
struct SlowMachine {
    machine: RecordingMachine,
    may_attach: mpsc::Receiver<()>,
}

impl Machine for SlowMachine {
    type Response = u64;

    fn apply(
        &mut self,
        at: u64,
        entry: &[u8],
        to: &mut Vec<StoreWrite>,
    ) -> Result<ApplyStep<u64>, Fatal> {
        self.machine.apply(at, entry, to)
    }

    fn freeze(&self) -> Box<dyn FrozenState> {
        self.machine.freeze()
    }

    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal> {
        self.machine.restore(index, source)
    }

    fn checkpoint_durable(&mut self, index: u64) {
        self.machine.checkpoint_durable(index);
    }

    fn attach(&mut self, store: Arc<dyn WorkingStore>) {
        self.may_attach.recv().unwrap();
        self.machine.attach(store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_rebuild_waits_for_starting_replicas() {
    let mut cluster = Cluster::start(1, [1]).await;
    let node = NodeId(1);
    cluster.propose(G, entry(0)).await;
    cluster.group(node, G).checkpoint().await.unwrap();
    cluster.close(node).await;
    std::fs::remove_dir_all(cluster.dir(node).join("store")).unwrap();
    let config = GroupsConfig::new(node, cluster.dir(node), |reason| panic!("{reason}"));
    let groups = Groups::open(config, cluster.network.endpoint(node)).await.unwrap();

    let (allow_attach, may_attach) = mpsc::channel();
    let slow_machine = SlowMachine { machine: RecordingMachine::new(), may_attach };
    let mut starting = Box::pin(groups.start(GroupId(2), replica(GroupId(2), node), slow_machine));
    assert!(starting.as_mut().now_or_never().is_none());
    let machine = RecordingMachine::new();
    groups.start(G, replica(G, node), machine.clone()).await.unwrap();
    // Longer than it takes to fill it, were that done.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(machine.restored(), (1, 0));
    allow_attach.send(()).unwrap();
    starting.await.unwrap();
    eventually("the store", || async { (machine.restored() == (1, 1)).then_some(()) }).await;
    groups.shutdown().await;
}
