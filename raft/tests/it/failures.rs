//! Faults: netsplits, machines that fail, disks that are full.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::NodeId;
use raft::disk::{Device, RealDevice};
use raft::{GroupId, Priority, ProposeError, ReadError, UnfitReason};

use crate::cluster::{Cluster, TIMEOUT, eventually};

const G: GroupId = GroupId(1);

#[tokio::test(flavor = "multi_thread")]
async fn leader_without_quorum_commits_nothing() {
    let cluster = Cluster::start(3, [1]).await;
    cluster.propose(G, "before").await;
    let old = cluster.leader(G).await;
    let others: Vec<NodeId> = cluster.running().into_iter().filter(|&node| node != old).collect();
    cluster.network.isolate(old);
    let group = cluster.group(old, G);
    let isolated = tokio::spawn({
        let group = group.clone();
        async move { group.propose(None, Bytes::from_static(b"lonely")).await }
    });
    let read = group.read_barrier().await.unwrap_err();
    assert!(
        matches!(read, ReadError::Unavailable { .. } | ReadError::NotLeader { .. }),
        "{read:?}"
    );
    let new = cluster.leader_among(G, &others).await;
    cluster.group(new, G).propose(None, Bytes::from_static(b"after")).await.unwrap();
    assert_eq!(cluster.machine(old, G).entries(), ["before"]);
    cluster.network.reconnect_all();
    let outcome = tokio::time::timeout(TIMEOUT, isolated).await.unwrap().unwrap().unwrap_err();
    // Whether it was handed to the log before the quorum was missed is a matter of moments.
    assert!(
        matches!(outcome, ProposeError::Indeterminate | ProposeError::Unavailable { .. }),
        "{outcome:?}"
    );
    for node in cluster.running() {
        cluster.wait_for_entries(node, G, 2).await;
        assert_eq!(cluster.machine(node, G).entries(), ["before", "after"]);
    }
}

/// The leader is paused while the responses to its last entry are in flight. When it continues, one
/// of them commits the entry, and the leader sends the commit index to the other node, whose
/// response comes next: that response is from before the pause, and must confirm nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_an_earlier_append_does_not_confirm_a_later_one() {
    let cluster = Cluster::start(3, [1]).await;
    cluster.propose(G, "before").await;
    let old = cluster.leader(G).await;
    let others: Vec<NodeId> = cluster.running().into_iter().filter(|&node| node != old).collect();
    for &node in &others {
        cluster.wait_for_entries(node, G, 1).await;
    }
    let first = cluster.network.hold_responses(old, others[0], Priority::Log);
    let second = cluster.network.hold_responses(old, others[1], Priority::Log);
    let group = cluster.group(old, G);
    let paused = tokio::spawn({
        let group = group.clone();
        async move { group.propose(None, Bytes::from_static(b"paused")).await }
    });
    eventually("both have answered", || async {
        (first.responses() == 1 && second.responses() == 1).then_some(())
    })
    .await;
    cluster.network.isolate(old);
    let new = cluster.leader_among(G, &others).await;
    let after = cluster.group(new, G).propose(None, Bytes::from_static(b"after")).await.unwrap();
    let read = tokio::spawn(async move { group.read_index().await });
    // The leader has the read before the responses arrive.
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.release();
    eventually("the commit index is sent", || async { (second.requests() == 2).then_some(()) })
        .await;
    second.release();
    let read = tokio::time::timeout(TIMEOUT, read).await.unwrap().unwrap();
    assert!(read.is_err(), "{read:?}: entry {} was acknowledged before", after.index);
    cluster.network.reconnect_all();
    // The first leader may have committed it: the result depends on the order of messages.
    let _ = tokio::time::timeout(TIMEOUT, paused).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_failure_stops_its_group_only() {
    for (entry, reason) in [("panic", "panic while"), ("fatal", "as the entry demands")] {
        let cluster = Cluster::start(3, [1, 2]).await;
        cluster.propose(G, "fine").await;
        let leader = cluster.leader(G).await;
        let group = cluster.group(leader, G);
        let outcome = group.propose(None, Bytes::from_static(entry.as_bytes())).await.unwrap_err();
        assert!(matches!(outcome, ProposeError::Indeterminate | ProposeError::Fatal(_)));
        let status = cluster.status(leader, G, |status| status.stopped.is_some()).await;
        let stopped = status.stopped.unwrap();
        assert!(stopped.0.contains(reason), "{stopped}");
        assert!(!status.ready);
        // The next leader meets the same entry. The third is then alone, and may never learn that
        // the entry counts.
        eventually("the next leader's end", || async {
            let stopped = |&node: &NodeId| cluster.group(node, G).status().stopped.is_some();
            (cluster.running().iter().filter(|&node| stopped(node)).count() >= 2).then_some(())
        })
        .await;
        assert!(matches!(
            group.propose(None, Bytes::from_static(b"x")).await,
            Err(ProposeError::Fatal(_))
        ));
        assert!(matches!(group.read_barrier().await, Err(ReadError::Fatal(_))));
        cluster.propose(GroupId(2), "the other group goes on").await;
        assert!(cluster.fatal.lock().is_empty(), "the disk is not to blame");
    }
}

/// A disk that is full or slow on demand.
#[derive(Debug, Default)]
struct LimitedDevice {
    full: AtomicBool,
    slow: AtomicBool,
}

impl Device for LimitedDevice {
    fn preallocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        RealDevice.preallocate(file, bytes)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        RealDevice.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.slow.load(Ordering::SeqCst) {
            std::thread::sleep(SLOW_SYNC);
        }
        RealDevice.sync(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDevice.sync_dir(dir)
    }

    fn free(&self, dir: &Path) -> u64 {
        RealDevice.free(dir)
    }

    fn nonce(&self) -> u64 {
        RealDevice.nonce()
    }
}

/// How long a sync of a slow disk takes, and longer than one may take in these tests.
const SLOW_SYNC: Duration = Duration::from_millis(400);

/// Three nodes, each with a disk of its own.
async fn cluster_on(devices: &[Arc<LimitedDevice>; 3]) -> Cluster {
    let devices = devices.clone();
    Cluster::start_with(3, [1], move |config| {
        config.log_segment_bytes = 64 << 10;
        config.sync_slow_after = SLOW_SYNC / 2;
        config.device = devices[usize::try_from(config.node.0).unwrap() - 1].clone();
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_is_full_can_hand_over() {
    let devices: [Arc<LimitedDevice>; 3] = Default::default();
    let cluster = cluster_on(&devices).await;
    let old = cluster.leader(G).await;
    let disk = &devices[usize::try_from(old.0).unwrap() - 1];
    disk.full.store(true, Ordering::SeqCst);
    let entry = Bytes::from(vec![7; 4 << 10]);
    let group = cluster.group(old, G);
    let mut acknowledged = 0;
    // Until its own disk is full: those of the others are not.
    while !matches!(group.propose(None, entry.clone()).await, Err(ProposeError::DiskFull { .. })) {
        acknowledged += 1;
        assert!(acknowledged < 100, "it never fills");
    }
    let others: Vec<NodeId> = cluster.running().into_iter().filter(|&node| node != old).collect();
    let to = cluster.group(others[0], G).replica();
    group.transfer_leader(to).await.unwrap();
    let new = cluster.leader_among(G, &others).await;
    // The one that has no space follows, and the group commits at the other two.
    for _ in 0..40 {
        cluster.group(new, G).propose(None, entry.clone()).await.unwrap();
        acknowledged += 1;
    }
    assert!(cluster.groups(old).fitness().has(UnfitReason::DiskFull));
    assert!(cluster.groups(new).fitness().is_fit());
    disk.full.store(false, Ordering::SeqCst);
    for node in cluster.running() {
        cluster.wait_for_entries(node, G, acknowledged).await;
    }
    assert!(cluster.fatal.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_syncs_slowly_is_unfit_until_it_is_quick() {
    let devices: [Arc<LimitedDevice>; 3] = Default::default();
    let cluster = cluster_on(&devices).await;
    let leader = cluster.leader(G).await;
    let disk = &devices[usize::try_from(leader.0).unwrap() - 1];
    let fitness = cluster.groups(leader).fitness();
    disk.slow.store(true, Ordering::SeqCst);
    eventually("slowness", || async {
        cluster.propose(G, "x").await;
        fitness.has(UnfitReason::DiskSlow).then_some(())
    })
    .await;
    let mut others = cluster.running().into_iter().filter(|&node| node != leader);
    assert!(others.all(|node| cluster.groups(node).fitness().is_fit()));
    disk.slow.store(false, Ordering::SeqCst);
    eventually("quickness", || async {
        cluster.propose(G, "x").await;
        fitness.is_fit().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_rejects_proposals_until_space_returns() {
    let device = Arc::new(LimitedDevice::default());
    let limited = device.clone();
    let cluster = Cluster::start_with(1, [1], move |config| {
        config.log_segment_bytes = 64 << 10;
        config.device = limited.clone();
    })
    .await;
    let leader = cluster.leader(G).await;
    let group = cluster.group(leader, G);
    let entry = Bytes::from(vec![7; 4 << 10]);
    group.propose(None, entry.clone()).await.unwrap();
    device.full.store(true, Ordering::SeqCst);
    let mut acknowledged = 1;
    let reason = loop {
        match group.propose(None, entry.clone()).await {
            Ok(_) => acknowledged += 1,
            Err(ProposeError::DiskFull { reason }) => break reason,
            Err(error) => panic!("{error:?}"),
        }
        assert!(acknowledged < 100, "it never fills");
    };
    let dir = cluster.dir(leader);
    assert!(reason.contains(&dir.display().to_string()), "{reason}");
    assert!(cluster.groups(leader).writable().is_err());
    let fitness = cluster.groups(leader).fitness();
    assert!(fitness.has(UnfitReason::DiskFull), "whoever is refused finds why");
    assert_eq!(cluster.machine(leader, G).count(), acknowledged);
    group.read_barrier().await.unwrap();
    device.full.store(false, Ordering::SeqCst);
    eventually("space", || async { cluster.groups(leader).writable().ok() }).await;
    eventually("fitness", || async { fitness.is_fit().then_some(()) }).await;
    group.propose(None, entry).await.unwrap();
    assert_eq!(cluster.machine(leader, G).count(), acknowledged + 1);
    assert!(group.status().stopped.is_none());
    assert!(cluster.fatal.lock().is_empty());
}
