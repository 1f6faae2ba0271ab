//! Random faults: netsplits, restarts and checkpoints while clients write, from a printed seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::NodeId;
use parking_lot::Mutex;
use raft::testing::RecordingMachine;
use raft::{GroupId, Groups, ProposeError};

use crate::cluster::Cluster;

const G: GroupId = GroupId(1);
const CLIENTS: usize = 4;
const FAULTS: usize = 12;

/// A small random number generator: one seed gives one schedule of faults.
struct Rng(u64);

impl Rng {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// The entries that clients have proposed, and those that were acknowledged.
#[derive(Default)]
struct ClientHistory {
    acknowledged: BTreeSet<Bytes>,
    proposed: BTreeSet<Bytes>,
}

type RunningNodes = Arc<Mutex<BTreeMap<NodeId, Groups>>>;

/// Proposes entries of its own, each once, to the node that it takes for the leader.
async fn client(
    number: usize,
    nodes: RunningNodes,
    history: Arc<Mutex<ClientHistory>>,
    stop: Arc<AtomicBool>,
) {
    let mut target = NodeId(1);
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let entry = Bytes::from(format!("{number}/{count}"));
        history.lock().proposed.insert(entry.clone());
        let group = nodes.lock().get(&target).and_then(|groups| groups.get(G));
        let Some(group) = group.and_then(|group| group.typed::<RecordingMachine>()) else {
            target = NodeId(target.0 % 3 + 1);
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let timeout = Duration::from_secs(2);
        match tokio::time::timeout(timeout, group.propose(None, entry.clone())).await {
            Ok(Ok(_)) => drop(history.lock().acknowledged.insert(entry)),
            Ok(Err(ProposeError::NotLeader { hint })) => {
                target = hint.unwrap_or(NodeId(target.0 % 3 + 1));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(Err(
                ProposeError::Unavailable { .. }
                | ProposeError::DiskFull { .. }
                | ProposeError::Indeterminate
                | ProposeError::Fatal(_),
            ))
            | Err(_) => target = NodeId(target.0 % 3 + 1),
        }
    }
}

async fn inject_fault(cluster: &mut Cluster, nodes: &RunningNodes, rng: &mut Rng) {
    let node = NodeId(rng.below(3) + 1);
    let runs = cluster.running().contains(&node);
    match rng.below(5) {
        0 => cluster.network.isolate(node),
        1 => cluster.network.reconnect_all(),
        2 if runs => {
            nodes.lock().remove(&node);
            cluster.close(node).await;
        }
        3 if runs => cluster.group(node, G).checkpoint().await.unwrap(),
        _ if !runs => {
            cluster.open(node).await;
            nodes.lock().insert(node, cluster.groups(node).clone());
        }
        _ => cluster.network.disconnect(node, NodeId(node.0 % 3 + 1)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_neither_lose_nor_duplicate_entries() {
    let seed = std::env::var("STORM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 2 + 1);
    println!("STORM_SEED={seed}");
    let mut rng = Rng(seed);
    let mut cluster =
        Cluster::start_with(3, [1], |config| config.checkpoint_log_bytes = 2 << 10).await;
    let running = cluster.running();
    let nodes: RunningNodes = Arc::default();
    nodes.lock().extend(running.iter().map(|&node| (node, cluster.groups(node).clone())));
    let (history, stop) =
        (Arc::<Mutex<ClientHistory>>::default(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(number, nodes.clone(), history.clone(), stop.clone())))
        .collect();
    for _ in 0..FAULTS {
        inject_fault(&mut cluster, &nodes, &mut rng).await;
        tokio::time::sleep(Duration::from_millis(rng.below(1500))).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    cluster.network.reconnect_all();
    for node in running {
        if !cluster.running().contains(&node) {
            cluster.open(node).await;
        }
    }
    cluster.propose(G, "calm").await;
    let leader = cluster.leader(G).await;
    cluster.group(leader, G).read_barrier().await.unwrap();
    let entries = cluster.machine(leader, G).entries();
    for node in cluster.running() {
        cluster.wait_for_entries(node, G, entries.len()).await;
        assert_eq!(cluster.machine(node, G).entries(), entries, "seed {seed}, node {node}");
    }
    let history = history.lock();
    let applied: BTreeSet<Bytes> =
        entries.iter().filter(|&entry| entry != "calm").cloned().collect();
    let calm = entries.iter().filter(|&entry| entry == "calm").count();
    assert_eq!(applied.len() + calm, entries.len(), "seed {seed}: an entry counts twice");
    let lost: Vec<_> = history.acknowledged.difference(&applied).collect();
    assert!(lost.is_empty(), "seed {seed}: acknowledged and lost: {lost:?}");
    let invented: Vec<_> = applied.difference(&history.proposed).collect();
    assert!(invented.is_empty(), "seed {seed}: {invented:?}");
    assert!(cluster.fatal.lock().is_empty());
}
