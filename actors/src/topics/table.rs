//! TopicTable: the topics one node knows, each with its last post and its subscribers, bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::NodeId;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::limits::{TOPIC_QUEUE_POSTS, TOPICS_BYTES_MAX, TOPICS_MAX};
use crate::message::PostVersion;
use crate::store::Post;

/// The topics this node knows.
#[derive(Default)]
pub(super) struct TopicTable {
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
}

impl Default for Topic {
    fn default() -> Self {
        Self { last: None, posts: broadcast::channel(TOPIC_QUEUE_POSTS).0, used: Instant::now() }
    }
}

impl Topic {
    fn has_subscribers(&self) -> bool {
        self.posts.receiver_count() > 0
    }
}

impl TopicTable {
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
        self.evict();
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

    /// A subscription to a topic; none where every topic there may be has subscribers.
    pub(super) fn subscribe(&mut self, topic: &str) -> Option<broadcast::Receiver<Arc<Post>>> {
        if !self.topics.contains_key(topic) && self.topics.len() >= TOPICS_MAX {
            let has_none = |topic: &Topic| !topic.has_subscribers();
            let without = self.topics.iter().filter(|(_, topic)| has_none(topic));
            let oldest = without.min_by_key(|(_, topic)| topic.used)?.0.clone();
            let last = self.topics.remove(&oldest).and_then(|topic| topic.last);
            self.bytes -= last.map_or(0, |(_, _, bytes)| bytes);
        }
        Some(self.topics.entry(topic.to_owned()).or_default().posts.subscribe())
    }

    /// Forgets topics nobody here subscribes to, the longest unused first, and some more than
    /// needed, so that the next ones find room. Of topics with subscribers at most the last post
    /// is forgotten.
    fn evict(&mut self) {
        if self.topics.len() <= TOPICS_MAX && self.bytes <= TOPICS_BYTES_MAX {
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

    fn post(topic: &str, n: u64) -> Arc<Post> {
        Arc::new(Post { topic: topic.to_owned(), data: [("n", n)].into_iter().collect() })
    }

    fn version(term: u64, count: u64) -> PostVersion {
        PostVersion { term, count }
    }

    #[test]
    fn the_later_post_stands_in_whatever_order_the_two_come() {
        let mut table = TopicTable::default();
        table.insert(version(2, 1), post("t", 2), 10);
        table.insert(version(1, 9), post("t", 1), 10);
        assert_eq!(table.last("t").unwrap().1, post("t", 2));
        assert_eq!(table.bytes, 10);
    }

    #[test]
    fn unused_topics_are_forgotten_and_subscribed_ones_are_not() {
        let mut table = TopicTable::default();
        table.insert(version(1, 1), post("subscribed", 0), 1);
        let _posts = table.subscribe("subscribed").unwrap();
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
        let mut table = TopicTable::default();
        let mut all: Vec<_> =
            (0..TOPICS_MAX).map(|n| table.subscribe(&n.to_string()).unwrap()).collect();
        assert!(table.subscribe("one more").is_none());
        assert!(table.subscribe("7").is_some(), "a topic that has subscribers anyway");
        table.insert(version(1, 1), post("without", 0), 1);
        assert!(table.topics.len() <= TOPICS_MAX);
        assert!(
            all.iter_mut().all(|posts| posts.try_recv() == Err(TryRecvError::Empty)),
            "none is taken back"
        );
        all.pop();
        assert!(table.subscribe("one more").is_some());
    }
}
