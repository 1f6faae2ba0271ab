//! Topics: what clients say to each other, cluster-wide, without a place on any disk.
//!
//! One node owns a topic: the leader of the partition its name falls on. It numbers what is said
//! and gives each other node one copy. All nodes keep the last word, so that the next owner has it.
//!
//! Promise: whoever listens hears a topic's posts in one order, the same on every node; a post may
//! be missed when links break or ears are slow, the last one is not. Memory is bounded: beyond the
//! bound the topics nobody here listens to are forgotten, and no more ears are lent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, PartitionId};
use parking_lot::Mutex;
use raft::Priority;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::client::{ClusterStore, busy, final_word};
use crate::limits::{
    ATTEMPT_TIMEOUT, REQUEST_DEADLINE, RETRY_PAUSE, TOPIC_QUEUE_POSTS, TOPICS_BYTES_MAX, TOPICS_MAX,
};
use crate::message::{BusyScope, PeerCast, PeerReply, PeerRequest, Refusal, decode, encode};
use crate::store::{Post, RouteError, TopicSubscription};

/// How long to wait before a post that found no room on a link is sent again.
const SEND_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The order of posts: the owner's term, then its count. Later is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PostVersion {
    term: u64,
    count: u64,
}

/// The topics this node knows.
#[derive(Clone, Default)]
pub(crate) struct Topics(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    topics: BTreeMap<String, Topic>,
    /// Of all last posts.
    bytes: usize,
    /// Counts this node's own posts.
    count: u64,
    /// By node, the topics whose last word found no room on the link to it.
    unsent: BTreeMap<NodeId, BTreeSet<String>>,
}

struct Topic {
    last: Option<(PostVersion, Arc<Post>, usize)>,
    tap: broadcast::Sender<Arc<Post>>,
    used: Instant,
}

impl Default for Topic {
    fn default() -> Self {
        Self { last: None, tap: broadcast::channel(TOPIC_QUEUE_POSTS).0, used: Instant::now() }
    }
}

impl Topic {
    fn is_heard(&self) -> bool {
        self.tap.receiver_count() > 0
    }
}

impl Known {
    /// Takes a post, unless a later one is known. `bytes` is what it takes.
    fn take(&mut self, version: PostVersion, post: Arc<Post>, bytes: usize) {
        let topic = self.topics.entry(post.topic.clone()).or_default();
        if topic.last.as_ref().is_some_and(|(known, ..)| *known >= version) {
            return;
        }
        let before = topic.last.replace((version, Arc::clone(&post), bytes));
        topic.used = Instant::now();
        self.bytes += bytes;
        self.bytes -= before.map_or(0, |(_, _, bytes)| bytes);
        // Without an ear just now there is nobody to tell.
        let _ = topic.tap.send(post);
        self.make_room();
    }

    /// Forgets topics nobody here listens to, the longest unused first, and some more than needed,
    /// so that the next ones find room. Of topics that are heard at most the last word is
    /// forgotten.
    fn make_room(&mut self) {
        if self.topics.len() <= TOPICS_MAX && self.bytes <= TOPICS_BYTES_MAX {
            return;
        }
        let age = |(name, topic): (&String, &Topic)| (topic.is_heard(), topic.used, name.clone());
        let mut oldest: Vec<_> = self.topics.iter().map(age).collect();
        oldest.sort_unstable();
        let (count, bytes) = (TOPICS_MAX - TOPICS_MAX / 8, TOPICS_BYTES_MAX / 8 * 7);
        for (is_heard, _, name) in oldest {
            if (is_heard || self.topics.len() <= count) && self.bytes <= bytes {
                return;
            }
            let last = if is_heard {
                self.topics.get_mut(&name).and_then(|topic| topic.last.take())
            } else {
                self.topics.remove(&name).and_then(|topic| topic.last)
            };
            self.bytes -= last.map_or(0, |(_, _, bytes)| bytes);
        }
    }

    /// An ear for a topic; none where every topic there may be is heard.
    fn lend_ear(&mut self, topic: &str) -> Option<broadcast::Receiver<Arc<Post>>> {
        if !self.topics.contains_key(topic) && self.topics.len() >= TOPICS_MAX {
            let is_unheard = |topic: &Topic| !topic.is_heard();
            let unheard = self.topics.iter().filter(|(_, topic)| is_unheard(topic));
            let oldest = unheard.min_by_key(|(_, topic)| topic.used)?.0.clone();
            let last = self.topics.remove(&oldest).and_then(|topic| topic.last);
            self.bytes -= last.map_or(0, |(_, _, bytes)| bytes);
        }
        Some(self.topics.entry(topic.to_owned()).or_default().tap.subscribe())
    }
}

impl Topics {
    /// What another node says.
    pub(crate) fn receive(&self, version: PostVersion, post: Post, bytes: usize) {
        self.0.lock().take(version, Arc::new(post), bytes);
    }

    fn last(&self, topic: &str) -> Option<(PostVersion, Arc<Post>)> {
        let known = self.0.lock();
        let (version, post, _) = known.topics.get(topic)?.last.as_ref()?;
        Some((*version, Arc::clone(post)))
    }

    /// The topics somebody here listens to.
    fn heard(&self) -> Vec<String> {
        let known = self.0.lock();
        let heard = known.topics.iter().filter(|(_, topic)| topic.tap.receiver_count() > 0);
        heard.map(|(name, _)| name.clone()).collect()
    }
}

impl ClusterStore {
    /// Says something under a topic.
    pub(crate) async fn post(&self, post: Post) -> Result<(), RouteError> {
        let deadline = Instant::now() + REQUEST_DEADLINE;
        loop {
            let refusal = match self.ask_owner(&post.topic, &PeerRequest::Post(post.clone())).await
            {
                Ok(PeerReply::Posted) => return Ok(()),
                Ok(PeerReply::Refused(refusal)) => refusal,
                Ok(_) => Refusal::Indeterminate,
                Err(refusal) => refusal,
            };
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(final_word(refusal, false));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Listens to a topic. An owner that cannot be asked is asked when the link to it is back.
    /// Busy where this node hears as many topics as it may.
    pub(crate) async fn listen_to(&self, topic: String) -> Result<TopicSubscription, RouteError> {
        let ear = self.0.topics.0.lock().lend_ear(&topic);
        let next = ear.ok_or_else(|| busy(BusyScope::Node))?;
        self.ask_last(&topic).await;
        // What comes between the two is in both: an ear that hears a post twice hears no change.
        Ok(TopicSubscription { last: self.0.topics.last(&topic).map(|(_, post)| post), next })
    }

    /// A link was made anew: what was said over it in between is asked for.
    pub(crate) fn catch_up_topics(&self) {
        let heard = self.0.topics.heard();
        if heard.is_empty() {
            return;
        }
        let store = self.clone();
        tokio::spawn(async move {
            for topic in heard {
                store.ask_last(&topic).await;
            }
        });
    }

    async fn ask_last(&self, topic: &str) {
        let ask = PeerRequest::LastPost(topic.to_owned());
        if let Ok(PeerReply::LastPost(Some((version, post)))) = self.ask_owner(topic, &ask).await {
            let bytes = model::codec::bare(&post).len();
            self.0.topics.receive(version, post, bytes);
        }
    }

    async fn ask_owner(&self, topic: &str, ask: &PeerRequest) -> Result<PeerReply, Refusal> {
        let unowned = || Refusal::NotLeader { hint: None };
        let partition = self.partition_of_topic(topic).ok_or_else(unowned)?;
        let owner = self.leader_of(partition).ok_or_else(unowned)?;
        if owner == self.0.node {
            return Ok(if let PeerRequest::Post(post) = ask {
                self.post_here(post.clone())
            } else {
                self.last_post(topic)
            });
        }
        let answer = self.0.peers.call(owner, Priority::Call, encode(ask), ATTEMPT_TIMEOUT).await;
        let answer = answer.map_err(|_| Refusal::Indeterminate)?;
        decode(&answer).map_err(|_| Refusal::Indeterminate)
    }

    fn partition_of_topic(&self, topic: &str) -> Option<PartitionId> {
        let partitions = self.0.catalogue.borrow().partitions;
        (partitions > 0).then(|| model::cluster::partition_of_topic(topic, partitions))
    }

    /// On the owner: what was said last.
    pub(crate) fn last_post(&self, topic: &str) -> PeerReply {
        let last = self.0.topics.last(topic);
        PeerReply::LastPost(last.map(|(version, post)| (version, (*post).clone())))
    }

    /// On the owner: numbers a post and tells everybody.
    pub(crate) fn post_here(&self, post: Post) -> PeerReply {
        let partition = self.partition_of_topic(&post.topic);
        let local = partition.and_then(|partition| self.0.partitions.get(partition));
        let Some(status) = local.map(|local| local.group.status()).filter(|s| s.is_leader) else {
            return PeerReply::Refused(Refusal::NotLeader { hint: None });
        };
        let topic = post.topic.clone();
        let mut known = self.0.topics.0.lock();
        let last = known.topics.get(&topic).and_then(|topic| Some(topic.last.as_ref()?.0));
        // A later term has the last word, whatever clock or count the owner before had.
        let term = status.term.max(last.unwrap_or_default().term);
        known.count = known.count.max(last.unwrap_or_default().count) + 1;
        let version = PostVersion { term, count: known.count };
        let bytes = encode(&PeerCast::Posted { version, post: post.clone() });
        known.take(version, Arc::new(post), bytes.len());
        // Sent before the lock is let go: two posts leave in the order they were numbered.
        for node in self.others() {
            if self.0.peers.cast(node, Priority::Feed, bytes.clone()).is_err() {
                self.send_again(&mut known, node, topic.clone());
            }
        }
        PeerReply::Posted
    }

    fn others(&self) -> Vec<NodeId> {
        let catalogue = self.0.catalogue.borrow();
        catalogue.nodes.keys().copied().filter(|node| *node != self.0.node).collect()
    }

    /// A link had no room: the last word is sent until it is taken. One that is down asks itself
    /// when it is back. One task for each node, whatever the number of posts.
    fn send_again(&self, known: &mut Known, node: NodeId, topic: String) {
        let unsent = known.unsent.entry(node).or_default();
        let is_sending = !unsent.is_empty();
        unsent.insert(topic);
        if is_sending {
            return;
        }
        let store = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SEND_AGAIN_AFTER).await;
                let mut known = store.0.topics.0.lock();
                if !store.0.liveness.is_up(node) || store.send_unsent(&mut known, node) {
                    known.unsent.remove(&node);
                    return;
                }
            }
        });
    }

    /// Whether a node has now been sent the last word of all topics it lacks.
    fn send_unsent(&self, known: &mut Known, node: NodeId) -> bool {
        while let Some(topic) = known.unsent.get(&node).and_then(BTreeSet::first).cloned() {
            let last = known.topics.get(&topic).and_then(|topic| topic.last.as_ref());
            let message = last.map(|(version, post, _)| {
                encode(&PeerCast::Posted { version: *version, post: (**post).clone() })
            });
            let sent = message.map(|message| self.0.peers.cast(node, Priority::Feed, message));
            if sent.is_some_and(|sent| sent.is_err()) {
                return false;
            }
            known.unsent.get_mut(&node).map(|unsent| unsent.remove(&topic));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;

    fn post(topic: &str, n: u64) -> Post {
        Post { topic: topic.to_owned(), data: [("n", n)].into_iter().collect() }
    }

    fn version(term: u64, count: u64) -> PostVersion {
        PostVersion { term, count }
    }

    #[test]
    fn the_later_word_stands_in_whatever_order_the_two_come() {
        let topics = Topics::default();
        topics.receive(version(2, 1), post("t", 2), 10);
        topics.receive(version(1, 9), post("t", 1), 10);
        assert_eq!(*topics.last("t").unwrap().1, post("t", 2));
        assert_eq!(topics.0.lock().bytes, 10);
    }

    #[test]
    fn the_longest_unused_topics_are_forgotten_and_those_that_are_heard_are_not() {
        let topics = Topics::default();
        let lend = |name: &str| topics.0.lock().lend_ear(name);
        topics.receive(version(1, 1), post("heard", 0), 1);
        let _ear = lend("heard").unwrap();
        for n in 0..TOPICS_MAX as u64 + 5 {
            topics.receive(version(1, n), post(&format!("t{n}"), n), 1);
            assert!(topics.0.lock().topics.len() <= TOPICS_MAX);
        }
        assert!(topics.last("heard").is_some() && topics.last("t0").is_none());
        assert!(topics.last(&format!("t{}", TOPICS_MAX + 4)).is_some());
        topics.receive(version(9, 0), post("large", 0), TOPICS_BYTES_MAX + 1);
        assert!(topics.0.lock().bytes <= TOPICS_BYTES_MAX);
        assert!(topics.0.lock().topics.get("heard").unwrap().is_heard());
    }

    #[test]
    fn where_every_topic_is_heard_no_more_ears_are_lent_and_none_is_taken_back() {
        let topics = Topics::default();
        let lend = |name: &str| topics.0.lock().lend_ear(name);
        let mut ears: Vec<_> = (0..TOPICS_MAX).map(|n| lend(&n.to_string()).unwrap()).collect();
        assert!(lend("one more").is_none());
        assert!(lend("7").is_some(), "a topic that is heard anyway");
        topics.receive(version(1, 1), post("unheard", 0), 1);
        assert!(topics.0.lock().topics.len() <= TOPICS_MAX);
        assert!(ears.iter_mut().all(|ear| ear.try_recv() == Err(TryRecvError::Empty)));
        ears.pop();
        assert!(lend("one more").is_some());
    }
}
