//! TopicTable: the topics one node knows, each with its last post and its subscribers, bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use model::NodeId;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::limits::{TOPIC_QUEUE_POSTS, TOPICS_BYTES_MAX, TOPICS_MAX, TOPICS_SUBSCRIBED_MAX};
use crate::message::PostVersion;
use crate::shares::{Exhausted, Requester, Share, ShareLimiter};
use crate::store::Post;

/// The topics this node knows.
pub(super) struct TopicTable {
    /// Of the topics that have subscribers.
    shares: ShareLimiter,
    topics: BTreeMap<String, Topic>,
    /// Of all last posts.
    bytes: usize,
    /// Counts this node's own posts.
    count: u64,
    /// By node, the topics whose last post found no room on the link to it.
    pub(super) unsent: BTreeMap<NodeId, BTreeSet<String>>,
}

struct Topic {
    last: Option<(PostVersion, Arc<Post>, usize)>,
    posts: broadcast::Sender<Arc<Post>>,
    used: Instant,
    /// Its place among those with subscribers: held by each of them, and taken by the first.
    share: Weak<Share>,
}

impl Default for Topic {
    fn default() -> Self {
        Self {
            last: None,
            posts: broadcast::channel(TOPIC_QUEUE_POSTS).0,
            used: Instant::now(),
            share: Weak::new(),
        }
    }
}

impl Topic {
    fn has_subscribers(&self) -> bool {
        self.posts.receiver_count() > 0
    }
}

impl TopicTable {
    /// An empty one, of whose topics one address may subscribe to this share.
    pub(super) fn new(address_percent: u8) -> Self {
        Self {
            shares: ShareLimiter::new(TOPICS_SUBSCRIBED_MAX, address_percent),
            topics: BTreeMap::new(),
            bytes: 0,
            count: 0,
            unsent: BTreeMap::new(),
        }
    }

    /// Takes a post in and passes it to subscribers, unless a later one is known. `bytes` is what
    /// it takes.
    pub(super) fn insert(&mut self, version: PostVersion, post: Arc<Post>, bytes: usize) {
        let topic = self.topics.entry(post.topic.clone()).or_default();
        // Two owners in turn may reach this node in the other order.
        if topic.last.as_ref().is_some_and(|(last, ..)| *last >= version) {
            return;
        }
        let before = topic.last.replace((version, Arc::clone(&post), bytes));
        topic.used = Instant::now();
        self.bytes += bytes;
        self.bytes -= before.map_or(0, |(_, _, bytes)| bytes);
        // Without a subscriber just now there is nobody to send it to.
        let _ = topic.posts.send(post);
        self.evict(0);
    }

    /// What all last posts take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last post of a topic.
    pub(super) fn last(&self, topic: &str) -> Option<(PostVersion, Arc<Post>)> {
        let (version, post, _) = self.topics.get(topic)?.last.as_ref()?;
        Some((*version, Arc::clone(post)))
    }

    /// The version of the next post of a topic, by its owner in this term.
    pub(super) fn next_version(&mut self, topic: &str, term: u64) -> PostVersion {
        let last = self.last(topic).map(|(version, _)| version).unwrap_or_default();
        self.count = self.count.max(last.count) + 1;
        PostVersion { term: term.max(last.term), count: self.count }
    }

    /// The topics somebody here subscribes to.
    pub(super) fn subscribed_topics(&self) -> Vec<String> {
        let subscribed = self.topics.iter().filter(|(_, topic)| topic.has_subscribers());
        subscribed.map(|(name, _)| name.clone()).collect()
    }

    /// A subscription to a topic, and its place, which is held for as long as the subscription is.
    ///
    /// # Errors
    /// Nobody subscribes to the topic yet, and there is no place for it.
    pub(super) fn subscribe(
        &mut self,
        requester: Requester,
        topic: &str,
    ) -> Result<(broadcast::Receiver<Arc<Post>>, Arc<Share>), Exhausted> {
        let share = match self.topics.get(topic).and_then(|topic| topic.share.upgrade()) {
            Some(share) => share,
            // Before anything is forgotten: who is refused costs nothing.
            None => Arc::new(self.shares.acquire(requester, 1)?),
        };
        if !self.topics.contains_key(topic) {
            self.evict(1);
        }
        let topic = self.topics.entry(topic.to_owned()).or_default();
        topic.share = Arc::downgrade(&share);
        Ok((topic.posts.subscribe(), share))
    }

    /// Forgets topics nobody here subscribes to, the longest unused first, and some more than
    /// needed, so that the next ones find room. Of topics with subscribers at most the last post
    /// is forgotten: there are fewer than are left.
    fn evict(&mut self, coming: usize) {
        if self.topics.len() + coming <= TOPICS_MAX && self.bytes <= TOPICS_BYTES_MAX {
            return;
        }
        let age =
            |(name, topic): (&String, &Topic)| (topic.has_subscribers(), topic.used, name.clone());
        let mut oldest: Vec<_> = self.topics.iter().map(age).collect();
        oldest.sort_unstable();
        let (count, bytes) = (TOPICS_MAX - TOPICS_MAX / 8, TOPICS_BYTES_MAX / 8 * 7);
        for (has_subscribers, _, name) in oldest {
            if (has_subscribers || self.topics.len() <= count) && self.bytes <= bytes {
                return;
            }
            let last = if has_subscribers {
                self.topics.get_mut(&name).and_then(|topic| topic.last.take())
            } else {
                self.topics.remove(&name).and_then(|topic| topic.last)
            };
            self.bytes -= last.map_or(0, |(_, _, bytes)| bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;
    use crate::limits::ADDRESS_PERCENT;

    fn post(topic: &str, n: u64) -> Arc<Post> {
        Arc::new(Post { topic: topic.to_owned(), data: [("n", n)].into_iter().collect() })
    }

    fn version(term: u64, count: u64) -> PostVersion {
        PostVersion { term, count }
    }

    #[test]
    fn the_later_post_stands_in_whatever_order_the_two_come() {
        let mut table = TopicTable::new(ADDRESS_PERCENT);
        table.insert(version(2, 1), post("t", 2), 10);
        table.insert(version(1, 9), post("t", 1), 10);
        assert_eq!(table.last("t").unwrap().1, post("t", 2));
        assert_eq!(table.bytes, 10);
    }

    #[test]
    fn unused_topics_are_forgotten_and_subscribed_ones_are_not() {
        let mut table = TopicTable::new(ADDRESS_PERCENT);
        table.insert(version(1, 1), post("subscribed", 0), 1);
        let _posts = table.subscribe(Requester::default(), "subscribed").unwrap();
        for n in 0..TOPICS_MAX as u64 + 5 {
            table.insert(version(1, n), post(&format!("t{n}"), n), 1);
            assert!(table.topics.len() <= TOPICS_MAX);
        }
        assert!(table.last("subscribed").is_some() && table.last("t0").is_none());
        assert!(table.last(&format!("t{}", TOPICS_MAX + 4)).is_some());
        table.insert(version(9, 0), post("large", 0), TOPICS_BYTES_MAX + 1);
        assert!(table.bytes <= TOPICS_BYTES_MAX);
        assert!(table.topics.get("subscribed").unwrap().has_subscribers());
    }

    #[test]
    fn at_the_bound_no_more_topics_can_be_subscribed_to() {
        let mut table = TopicTable::new(ADDRESS_PERCENT);
        let node = Requester::default();
        let mut all: Vec<_> = (0..TOPICS_SUBSCRIBED_MAX)
            .map(|n| table.subscribe(node, &n.to_string()).unwrap())
            .collect();
        assert!(table.subscribe(node, "one more").is_err());
        assert!(table.subscribe(node, "7").is_ok(), "a topic that has subscribers anyway");
        for n in 0..TOPICS_MAX as u64 {
            table.insert(version(1, n), post(&format!("t{n}"), n), 1);
            assert!(table.topics.len() <= TOPICS_MAX);
        }
        assert!(
            all.iter_mut().all(|(posts, _)| posts.try_recv() == Err(TryRecvError::Empty)),
            "none is taken back"
        );
        all.pop();
        assert!(table.subscribe(node, "one more").is_ok());
    }

    #[test]
    fn one_address_leaves_topics_to_others() {
        let mut table = TopicTable::new(ADDRESS_PERCENT);
        let of = |address: u8, connection| Requester {
            address: Some([10, 0, 0, address].into()),
            connection,
        };
        // As many sockets with as many topics each as one may have.
        let mut held = Vec::new();
        for (socket, n) in (0..51).flat_map(|socket| (0..200).map(move |n| (socket, n))) {
            held.extend(table.subscribe(of(1, socket), &format!("{socket}:{n}")));
        }
        assert!(held.len() as u64 <= TOPICS_SUBSCRIBED_MAX / 2);
        for n in 0..200 {
            held.push(table.subscribe(of(2, 0), &format!("other:{n}")).unwrap());
        }
    }

    #[test]
    fn a_topic_is_held_until_its_last_subscriber_leaves() {
        let mut table = TopicTable::new(ADDRESS_PERCENT);
        let first = table.subscribe(Requester::default(), "t").unwrap();
        let second = table.subscribe(Requester::default(), "t").unwrap();
        assert_eq!(table.shares.used(), 1);
        drop(first);
        assert_eq!(table.shares.used(), 1);
        drop(second);
        assert_eq!(table.shares.used(), 0);
    }
}
