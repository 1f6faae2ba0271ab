//! Topics: what clients publish to each other, cluster-wide, without a place on any disk.
//!
//! One node owns a topic: the leader of the partition its name falls on. It numbers the posts and
//! gives each other node one copy. All nodes keep the last post, so that the next owner has it.
//!
//! Promise: a subscriber receives a topic's posts in one order, the same on every node; a post may
//! be missed when links break or subscribers are slow, the last one is not. Memory is bounded:
//! beyond the bound the topics nobody here subscribes to are forgotten, and no more subscriptions
//! are given out.

mod table;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{Catalogue, NodeId, PartitionId};
use parking_lot::Mutex;
use raft::{GroupId, Priority};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{LeaderClient, LeaderRequest, LocalPartitions, retry, route_error};
use crate::limits::{ATTEMPT_TIMEOUT, REQUEST_DEADLINE};
use crate::liveness::PeerLiveness;
use crate::message::{BusyScope, PeerCast, PeerReply, PeerRequest, PostVersion, Refusal, encode};
use crate::peers::Peers;
use crate::shares::Requester;
use crate::store::{Post, RouteError, TopicPosts, TopicSubscription};

use table::TopicTable;

/// How long to wait before a post that found no room on a link is sent again.
const RESEND_AFTER: Duration = Duration::from_millis(200);

/// The topics of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Topics {
    node: NodeId,
    leaders: LeaderClient,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    partitions: LocalPartitions,
    peers: Arc<dyn Peers>,
    liveness: Arc<PeerLiveness>,
    table: Arc<Mutex<TopicTable>>,
}

impl Topics {
    pub(crate) fn new(
        node: NodeId,
        leaders: LeaderClient,
        catalogue: watch::Receiver<Arc<Catalogue>>,
        partitions: LocalPartitions,
        peers: Arc<dyn Peers>,
        liveness: Arc<PeerLiveness>,
        address_percent: u8,
    ) -> Self {
        let table = Arc::new(Mutex::new(TopicTable::new(address_percent)));
        Self { node, leaders, catalogue, partitions, peers, liveness, table }
    }

    /// Publishes under a topic. A post that is published twice, because the owner was lost with
    /// the answer, replaces itself.
    pub(crate) async fn publish(&self, post: Post) -> Result<(), RouteError> {
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let request = PublishRequest { topics: self, post };
        let published =
            retry(deadline, ATTEMPT_TIMEOUT, |timeout| self.attempt(&request, timeout)).await;
        published.map_err(route_error)
    }

    /// One attempt. Where the cluster is still forming, the next one may find an owner.
    async fn attempt(
        &self,
        request: &PublishRequest<'_>,
        timeout: Duration,
    ) -> Result<(), Refusal> {
        let group = self.group_of(&request.post.topic).ok_or_else(unowned)?;
        self.leaders.ask_once(group, request, timeout).await
    }

    /// Subscribes to a topic. An owner that cannot be asked is asked when the link to it is back.
    /// Busy where clients subscribe to as many topics as they may on this node: all of them, or
    /// those of this address.
    pub(crate) async fn subscribe(
        &self,
        requester: Requester,
        topic: String,
    ) -> Result<TopicSubscription, RouteError> {
        // Subscribed first: what is published while the owner is asked is in both, and a subscriber
        // that receives a post twice sees no change.
        let subscribed = self.table.lock().subscribe(requester, &topic);
        let (posts, place) =
            subscribed.map_err(|it| route_error(Refusal::exhausted(BusyScope::Topics, it)))?;
        self.fetch_last_post(&topic).await;
        let last = self.last_post_here(&topic).map(|(_, post)| post);
        Ok(TopicSubscription { last, posts: TopicPosts::new(posts, place) })
    }

    /// What another node published, or its owner sent. `bytes` is what it takes.
    pub(crate) fn receive(&self, version: PostVersion, post: Post, bytes: usize) {
        self.table.lock().insert(version, Arc::new(post), bytes);
    }

    /// A link was made anew: what was sent over it in between is asked for.
    pub(crate) fn catch_up(&self) {
        let subscribed = self.table.lock().subscribed_topics();
        if subscribed.is_empty() {
            return;
        }
        let topics = self.clone();
        tokio::spawn(async move {
            for topic in subscribed {
                topics.fetch_last_post(&topic).await;
            }
        });
    }

    /// What the last posts of all topics take, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.table.lock().bytes() as u64
    }

    /// Asks the owner for the last post, once: a subscriber is not kept waiting for an election.
    async fn fetch_last_post(&self, topic: &str) {
        let Some(group) = self.group_of(topic) else { return };
        let request = LastPostRequest { topics: self, topic };
        let asked = self.leaders.ask_once(group, &request, ATTEMPT_TIMEOUT).await;
        if let Ok(Some((version, post))) = asked {
            let bytes = model::codec::bare(&post).len();
            self.receive(version, post, bytes);
        }
    }

    /// On the owner: the last post.
    pub(crate) fn last_post(&self, topic: &str) -> Option<(PostVersion, Post)> {
        self.last_post_here(topic).map(|(version, post)| (version, (*post).clone()))
    }

    fn last_post_here(&self, topic: &str) -> Option<(PostVersion, Arc<Post>)> {
        self.table.lock().last(topic)
    }

    /// On the owner: numbers a post and sends it to every node.
    pub(crate) fn publish_as_owner(&self, post: Post) -> Result<(), Refusal> {
        let partition = self.partition_of(&post.topic).ok_or_else(unowned)?;
        let local = self.partitions.get(partition).ok_or_else(unowned)?;
        let status = local.group.status();
        if !status.is_leader {
            return Err(unowned());
        }
        let topic = post.topic.clone();
        let mut table = self.table.lock();
        // A later term has the last word, whatever clock or count the owner before had.
        let version = table.next_version(&topic, status.term);
        let bytes = encode(&PeerCast::Posted { version, post: post.clone() });
        table.insert(version, Arc::new(post), bytes.len());
        // Sent before the lock is let go: two posts leave in the order they were numbered.
        for node in self.other_nodes() {
            if self.peers.cast(node, Priority::Feed, bytes.clone()).is_err() {
                self.schedule_resend(&mut table, node, topic.clone());
            }
        }
        Ok(())
    }

    fn group_of(&self, topic: &str) -> Option<GroupId> {
        self.partition_of(topic).map(GroupId::from)
    }

    /// `None` while the cluster is forming.
    fn partition_of(&self, topic: &str) -> Option<PartitionId> {
        let partitions = self.catalogue.borrow().partitions;
        (partitions > 0).then(|| model::cluster::partition_of_topic(topic, partitions))
    }

    fn other_nodes(&self) -> Vec<NodeId> {
        let catalogue = self.catalogue.borrow();
        catalogue.nodes.keys().copied().filter(|node| *node != self.node).collect()
    }

    /// A link had no room: the last post is sent until it is taken. A node whose link is down asks
    /// itself when it is back. One task for each node, whatever the number of posts.
    fn schedule_resend(&self, table: &mut TopicTable, node: NodeId, topic: String) {
        let unsent = table.unsent.entry(node).or_default();
        let is_scheduled = !unsent.is_empty();
        unsent.insert(topic);
        if is_scheduled {
            return;
        }
        let topics = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RESEND_AFTER).await;
                // Held over sending, as where a post is numbered: none overtakes another.
                let mut table = topics.table.lock();
                if !topics.liveness.is_up(node) || topics.resend(&mut table, node) {
                    table.unsent.remove(&node);
                    return;
                }
            }
        });
    }

    /// Whether a node has now been sent the last post of all topics it lacks.
    fn resend(&self, table: &mut TopicTable, node: NodeId) -> bool {
        while let Some(topic) = table.unsent.get(&node).and_then(BTreeSet::first).cloned() {
            // One that was forgotten meanwhile is not owed any more.
            let message = table.last(&topic).map(|(version, post)| {
                encode(&PeerCast::Posted { version, post: (*post).clone() })
            });
            let sent = message.map(|message| self.peers.cast(node, Priority::Feed, message));
            if sent.is_some_and(|sent| sent.is_err()) {
                return false;
            }
            table.unsent.get_mut(&node).map(|unsent| unsent.remove(&topic));
        }
        true
    }
}

struct PublishRequest<'a> {
    topics: &'a Topics,
    post: Post,
}

impl LeaderRequest for PublishRequest<'_> {
    type Answer = ();

    fn message(&self) -> (Priority, Bytes) {
        (Priority::Call, encode(&PeerRequest::Post(self.post.clone())))
    }

    fn answer(&self, _: NodeId, reply: PeerReply) -> Option<()> {
        matches!(reply, PeerReply::Posted).then_some(())
    }

    async fn perform(&self, _: Duration) -> Result<(), Refusal> {
        self.topics.publish_as_owner(self.post.clone())
    }
}

struct LastPostRequest<'a> {
    topics: &'a Topics,
    topic: &'a str,
}

impl LeaderRequest for LastPostRequest<'_> {
    type Answer = Option<(PostVersion, Post)>;

    fn message(&self) -> (Priority, Bytes) {
        (Priority::Call, encode(&PeerRequest::LastPost(self.topic.to_owned())))
    }

    fn answer(&self, _: NodeId, reply: PeerReply) -> Option<Option<(PostVersion, Post)>> {
        if let PeerReply::LastPost(last) = reply { Some(last) } else { None }
    }

    async fn perform(&self, _: Duration) -> Result<Option<(PostVersion, Post)>, Refusal> {
        Ok(self.topics.last_post(self.topic))
    }
}

fn unowned() -> Refusal {
    Refusal::NotLeader { hint: None }
}
