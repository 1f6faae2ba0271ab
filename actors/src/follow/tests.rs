//! Stories of feeds: what a node without a replica, and the one that sends to it, do in trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Answer, Incarnation, NodeId, Offset, Read, ReadLevel};
use parking_lot::Mutex;

use super::live::LiveUpdate;
use crate::ClusterStore;
use crate::message::{PeerCast, PeerReply, PeerRequest, Refusal, decode, encode};
use crate::peers::Inbox;
use crate::store::{Cursor, FollowItem, Store as _};
use crate::testing::{Cluster, accept, insert, key, wait_until};

/// A node that is in no cluster of these tests.
const STRANGER: NodeId = NodeId(9);

/// A node that refuses every call, as one that has just started does, and keeps what is cast to it.
#[derive(Default)]
struct StartingNode(Mutex<Vec<PeerCast>>);

impl Inbox for StartingNode {
    fn call(&self, _: NodeId, _: Bytes) -> BoxFuture<'static, Bytes> {
        let refusal = PeerReply::Refused(Refusal::NotLeader { hint: None });
        Box::pin(async move { encode(&refusal) })
    }

    fn cast(&self, _: NodeId, message: Bytes) {
        self.0.lock().push(decode(&message).unwrap());
    }

    fn link_changed(&self, _: NodeId, _: bool) {}
}

/// A node that counts the requests to follow that come to it.
struct CountingNode {
    store: ClusterStore,
    follows: AtomicUsize,
}

impl Inbox for CountingNode {
    fn call(&self, from: NodeId, message: Bytes) -> BoxFuture<'static, Bytes> {
        if matches!(decode(&message), Ok(PeerRequest::Follow { .. })) {
            self.follows.fetch_add(1, Ordering::AcqRel);
        }
        self.store.call(from, message)
    }

    fn cast(&self, from: NodeId, message: Bytes) {
        self.store.cast(from, message);
    }

    fn link_changed(&self, peer: NodeId, up: bool) {
        self.store.link_changed(peer, up);
    }
}

/// A branch of which this node holds no replica.
fn branch_elsewhere(store: &ClusterStore) -> Option<&'static str> {
    let is_elsewhere = |branch: &&str| {
        let partition = store.0.catalogue_client.locate(&key(branch)).unwrap();
        store.0.partitions.get(partition).is_none()
    };
    ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().find(is_elsewhere)
}

/// Asks a node to send a branch's deltas to the stranger.
async fn follow(store: &ClusterStore, branch: &str) -> PeerReply {
    let request = encode(&PeerRequest::Follow { key: key(branch), feed: 1 });
    decode(&store.call(STRANGER, request).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preferred_node_without_its_replica_is_passed_over() {
    let cluster = Cluster::start(4).await;
    let found = (0..4).find_map(|place| Some((place, branch_elsewhere(&cluster.store(place))?)));
    let (place, branch) = found.expect("three copies leave one node out");
    let store = cluster.store(place);
    let partition = store.0.catalogue_client.locate(&key(branch)).unwrap();
    let preferred = store.catalogue().placements[&partition].preferred_node().unwrap();
    cluster.put_inbox(preferred, Arc::new(StartingNode::default()));
    let answer = store.read(key(branch), Read::Head, ReadLevel::Stale).await;
    assert!(matches!(answer, Ok(Answer::Head(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_without_a_quorum_serves_no_feed() {
    let cluster = Cluster::start(3).await;
    let (store, stranger) = (cluster.store(0), Arc::new(StartingNode::default()));
    cluster.put_inbox(STRANGER, Arc::<StartingNode>::clone(&stranger));
    assert!(matches!(follow(&store, "dar").await, PeerReply::Following(_)));
    let partition = store.0.catalogue_client.locate(&key("dar")).unwrap();
    let local = store.0.partitions.get(partition).unwrap();
    cluster.deafen(0);
    wait_until("it has no quorum", || !local.group.status().has_quorum).await;
    // Not the position that it stands at: that would look healthy.
    let has_ended = || {
        let casts = stranger.0.lock();
        casts.iter().any(|cast| matches!(cast, PeerCast::FeedEnded { feed: 1 }))
    };
    wait_until("the feed has ended", has_ended).await;
    let refused = follow(&store, "dar").await;
    assert!(matches!(refused, PeerReply::Refused(Refusal::NotLeader { hint: None })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_nobody_knows_is_ended_at_its_server() {
    let cluster = Cluster::start(1).await;
    let stranger = Arc::new(StartingNode::default());
    cluster.put_inbox(STRANGER, Arc::<StartingNode>::clone(&stranger));
    let position = PeerCast::Position { feed: 7, offset: Offset(3) };
    cluster.store(0).cast(STRANGER, encode(&position));
    let casts = stranger.0.lock();
    assert!(matches!(casts[..], [PeerCast::Unfollow { feed: 7 }]), "{casts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_repeats_its_position_on_a_quiet_branch() {
    let cluster = Cluster::start(2).await;
    let store = cluster.store(0);
    let branch = branch_elsewhere(&store).expect("one copy leaves one node out");
    accept(&store, insert(branch, "n1", "x")).await;
    let mut updates = store.0.follows.feeds.tap(&key(branch)).unwrap();
    for _ in 0..3 {
        let next = tokio::time::timeout(Duration::from_secs(60), updates.recv()).await;
        let update = next.expect("an update comes").unwrap();
        assert!(matches!(update, LiveUpdate::Position(Offset(1))), "{update:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_feeds_over_a_changed_link_attach_again() {
    let cluster = Cluster::start(2).await;
    let (store, sender) = (cluster.store(0), cluster.nodes[1].id);
    let counting = CountingNode { store: cluster.store(1), follows: AtomicUsize::new(0) };
    let counting = Arc::new(counting);
    cluster.put_inbox(sender, Arc::<CountingNode>::clone(&counting));
    let follows = || counting.follows.load(Ordering::Acquire);
    let branch = branch_elsewhere(&store).expect("one copy leaves one node out");
    let mut updates = store.0.follows.feeds.tap(&key(branch)).unwrap();
    let update = updates.recv().await.unwrap();
    assert!(matches!(update, LiveUpdate::Position(Offset(0))), "it is attached: {update:?}");
    let before = follows();

    store.link_changed(STRANGER, true);
    accept(&store, insert(branch, "n1", "x")).await;
    while !matches!(updates.recv().await.unwrap(), LiveUpdate::Delta(_)) {}
    assert_eq!(follows(), before, "what comes over its own link cannot be lost");

    store.link_changed(sender, true);
    wait_until("it has attached again", || follows() > before).await;
    accept(&store, insert(branch, "n2", "x")).await;
    while !matches!(updates.recv().await.unwrap(), LiveUpdate::Delta(_)) {}
    assert_eq!(follows(), before + 1, "once for one change");
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_outlive_the_supervisor_of_feeds() {
    let cluster = Cluster::start(2).await;
    let (store, writer) = (cluster.store(0), cluster.store(1));
    let branch = branch_elsewhere(&store).expect("one copy leaves one node out");
    let feeds = &store.0.follows.feeds;
    let mut follow = store.follow(key(branch), None).await.unwrap();
    for round in 0..2_u64 {
        wait_until("a feed runs", || feeds.actors().len() == 1).await;
        feeds.panic_supervisor();
        wait_until("the feed ended with its supervisor", || feeds.actors().is_empty()).await;
        // Nobody feeds this node now: the first is read from the log, and so is what comes before
        // the next feed is attached.
        for n in 1..=3 {
            let offset = 3 * round + n;
            accept(&writer, insert(branch, &format!("n{offset}"), "x")).await;
            let next = tokio::time::timeout(Duration::from_secs(60), follow.stream.next()).await;
            let Ok(Some(FollowItem::Delta(shared))) = next else { panic!("a delta follows") };
            assert_eq!(shared.delta.last(), Some(Offset(offset)));
        }
    }
    wait_until("a feed runs", || feeds.actors().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_follow_ends_when_its_node_stops() {
    let mut cluster = Cluster::start(2).await;
    let store = cluster.store(0);
    let elsewhere = branch_elsewhere(&store).expect("one copy leaves one node out");
    let here = branch_elsewhere(&cluster.store(1)).expect("and the other one, too");
    let mut follows = Vec::new();
    for branch in [here, elsewhere] {
        follows.push(store.follow(key(branch), None).await.unwrap());
        // One that has its log to read, and finds no replica to read it from.
        let behind = Cursor { incarnation: Incarnation(1), offset: Offset(0) };
        follows.push(store.follow(key(branch), Some(behind)).await.unwrap());
    }
    cluster.kill(0).await;
    for mut follow in follows {
        let next = tokio::time::timeout(Duration::from_secs(60), follow.stream.next()).await;
        assert!(next.expect("it ends").is_none());
    }
}
