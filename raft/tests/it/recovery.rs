//! What is left after a stop: everything acknowledged, on every node, however it is brought there.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use model::NodeId;
use raft::testing::{Tally, UNREAD};
use raft::{
    Answer, Change, ChunkSource, Fatal, Frozen, GroupId, Groups, GroupsConfig, Lane, Machine, Store,
};

use crate::cluster::{Cluster, patiently, replica};

const G: GroupId = GroupId(1);

fn entry(number: usize) -> Bytes {
    let mut entry = format!("{number:06}").into_bytes();
    entry.resize(200, b'.');
    entry.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_has_every_acknowledged_entry() {
    let mut cluster = Cluster::start(3, [1]).await;
    let first = cluster.leader(G).await;
    for number in 0..50 {
        cluster.propose(G, entry(number)).await;
    }
    cluster.close(first).await;
    let second = cluster.leader(G).await;
    assert_ne!(second, first);
    let expected: Vec<Bytes> = (0..50).map(entry).collect();
    assert_eq!(cluster.tally(second, G).entries(), expected);
    for number in 50..60 {
        cluster.propose(G, entry(number)).await;
    }
    cluster.open(first).await;
    cluster.counted(first, G, 60).await;
    assert_eq!(cluster.tally(first, G).entries(), (0..60).map(entry).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_all_nodes_everything_is_there() {
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
        cluster.counted(node, G, 130).await;
        assert_eq!(cluster.tally(node, G).entries(), expected, "node {node}");
    }
    assert_eq!(cluster.tally(leader, G).restored().0, 1, "from its checkpoint");
    cluster.counted(leader, GroupId(2), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_replica_leads_at_once_and_comes_back_with_everything() {
    let mut cluster = Cluster::start(1, [1]).await;
    for number in 0..20 {
        cluster.propose(G, entry(number)).await;
    }
    cluster.close(NodeId(1)).await;
    cluster.open(NodeId(1)).await;
    cluster.leader(G).await;
    let expected: Vec<Bytes> = (0..20).map(entry).collect();
    assert_eq!(cluster.tally(NodeId(1), G).entries(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_catches_up_by_log_then_by_checkpoint_of_which_only_news_is_sent() {
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
            forget_log(&cluster, count).await;
            count += 1;
        }
        let before = cluster.network.bytes(Lane::Bulk);
        cluster.open(away).await;
        cluster.counted(away, G, count).await;
        assert_eq!(cluster.tally(away, G).entries(), cluster.tally(NodeId(1), G).entries());
        sent.push(cluster.network.bytes(Lane::Bulk) - before);
        assert_eq!(sent[round] > 0, by_checkpoint, "round {round}: {sent:?}");
        let store = cluster.tally(away, G).store().unwrap();
        let applied = cluster.group(away, G).status().applied;
        patiently("the store", || async { (store.stored() >= applied).then_some(()) }).await;
        let scanned = scan(store).await;
        assert_eq!(scanned, cluster.tally(away, G).entries(), "round {round}");
    }
    assert!(sent[2] < sent[1], "what it has is not sent again: {sent:?}");
}

/// Writes two checkpoints everywhere, so that the log below the older one goes. Adds one entry.
async fn forget_log(cluster: &Cluster, count: usize) {
    for node in cluster.running() {
        cluster.group(node, G).checkpoint().await.unwrap();
    }
    let index = cluster.propose(G, entry(count)).await;
    for node in cluster.running() {
        cluster.counted(node, G, count + 1).await;
        cluster.group(node, G).checkpoint().await.unwrap();
    }
    for node in cluster.running() {
        cluster.status(node, G, |status| status.purged >= index - 1).await;
    }
}

async fn scan(store: Arc<dyn Store>) -> Vec<Bytes> {
    let scanned =
        tokio::task::spawn_blocking(move || store.scan(&[], &[0xff; 9], usize::MAX)).await;
    scanned.unwrap().unwrap().into_iter().map(|(_, value)| value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_written_by_itself_once_enough_was_applied() {
    let cluster = Cluster::tuned(1, [1], |config| config.checkpoint_log_bytes = 4 << 10).await;
    for number in 0..100 {
        cluster.propose(G, entry(number)).await;
    }
    let status = cluster.status(NodeId(1), G, |status| status.purged > 0).await;
    assert!(status.checkpoint > status.purged, "the log of the last checkpoint stays: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newest_checkpoint_that_is_lost_costs_nothing() {
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
    let shelf = std::fs::read_dir(cluster.dir(node).join("checkpoints")).unwrap();
    let shelf = shelf.map(|found| found.unwrap().path()).next().unwrap();
    let files = std::fs::read_dir(shelf).unwrap().map(|found| found.unwrap().path());
    let newest = files.filter(|file| file.extension().is_some_and(|e| e == "checkpoint")).max();
    std::fs::write(newest.unwrap(), b"").unwrap();
    cluster.open(node).await;
    cluster.leader(G).await;
    let expected: Vec<Bytes> = (0..60).map(entry).collect();
    assert_eq!(cluster.tally(node, G).entries(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_start_reads_is_mended_from_another_replica_while_this_one_serves() {
    let mut cluster = Cluster::start(3, [1]).await;
    cluster.propose(G, entry(0)).await;
    for node in cluster.running() {
        cluster.counted(node, G, 1).await;
        cluster.group(node, G).checkpoint().await.unwrap();
    }
    for damage in ["flip", "cut", "gone"] {
        cluster.close(NodeId(3)).await;
        let shelf = std::fs::read_dir(cluster.dir(NodeId(3)).join("checkpoints")).unwrap();
        let chunks = shelf.map(|found| found.unwrap().path()).next().unwrap().join("chunks");
        let mut files = std::fs::read_dir(chunks).unwrap().map(|found| found.unwrap().path());
        let whole = |file: &PathBuf| std::fs::read(file).is_ok_and(|b| b == UNREAD.as_bytes());
        let file = files.find(whole).unwrap();
        match damage {
            "flip" => std::fs::write(&file, UNREAD.to_uppercase()).unwrap(),
            "cut" => std::fs::write(&file, "r").unwrap(),
            _ => std::fs::remove_file(&file).unwrap(),
        }
        cluster.open(NodeId(3)).await;
        cluster.counted(NodeId(3), G, 1).await;
        patiently("the chunk", || async { whole(&file).then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_filled_anew() {
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
    let tally = cluster.tally(NodeId(1), G);
    assert_eq!(tally.entries(), (0..=100).map(entry).collect::<Vec<_>>());
    let (store, applied) = (tally.store().unwrap(), cluster.group(NodeId(1), G).status().applied);
    patiently("the store", || async { (store.stored() >= applied).then_some(()) }).await;
    assert_eq!(scan(store).await, tally.entries());
    assert_eq!(tally.restored(), (1, 1), "given the checkpoint, and asked to fill the store");
}

/// A machine that takes as long to start as somebody wants.
struct Slow {
    tally: Tally,
    goes_on: mpsc::Receiver<()>,
}

impl Machine for Slow {
    fn apply(&mut self, at: u64, entry: &[u8], to: &mut Vec<Change>) -> Result<Answer, Fatal> {
        self.tally.apply(at, entry, to)
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        self.tally.freeze()
    }

    fn restore(&mut self, index: u64, source: &dyn ChunkSource) -> Result<(), Fatal> {
        self.tally.restore(index, source)
    }

    fn checkpointed(&mut self, index: u64) {
        self.tally.checkpointed(index);
    }

    fn attach(&mut self, store: Arc<dyn Store>) {
        self.goes_on.recv().unwrap();
        self.tally.attach(store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_store_is_filled_while_another_replica_of_the_node_starts() {
    let mut cluster = Cluster::start(1, [1]).await;
    let node = NodeId(1);
    cluster.propose(G, entry(0)).await;
    cluster.group(node, G).checkpoint().await.unwrap();
    cluster.close(node).await;
    std::fs::remove_dir_all(cluster.dir(node).join("store")).unwrap();
    let config = GroupsConfig::new(node, cluster.dir(node), |reason| panic!("{reason}"));
    let groups = Groups::open(config, cluster.network.door(node)).await.unwrap();

    let (go_on, goes_on) = mpsc::channel();
    let slow = Box::new(Slow { tally: Tally::new(), goes_on });
    let mut starting = Box::pin(groups.start(GroupId(2), replica(GroupId(2), node), slow));
    assert!(starting.as_mut().now_or_never().is_none());
    let tally = Tally::new();
    groups.start(G, replica(G, node), Box::new(tally.clone())).await.unwrap();
    // Longer than it takes to fill it, were that done.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(tally.restored(), (1, 0));
    go_on.send(()).unwrap();
    starting.await.unwrap();
    patiently("the store", || async { (tally.restored() == (1, 1)).then_some(()) }).await;
    groups.shutdown().await;
}
