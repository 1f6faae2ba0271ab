//! Feeds: the live deltas of branches. A branch with a replica here is tapped at its machine. One
//! without is followed from afar by a FeedActor: one per branch:module and node, whatever the
//! number of sessions, started by the first follower and stopped some time after the last.
//!
//! DeltaStream on the link are a hint, the log is the truth: what does not follow on is read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::{Answer, BranchKey, Delta, NodeId, Offset, Read, ReadLevel};
use parking_lot::Mutex;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use raft::Priority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::client::ClusterStore;
use crate::limits::{
    ATTEMPT_TIMEOUT, CATCH_UP_EVENTS, FEED_QUEUE_DELTAS, FEEDS_MAX, FOLLOWER_QUEUE_DELTAS,
};
use crate::message::{PeerCast, PeerReply, PeerRequest, decode, encode};
use crate::store::SharedDelta;

/// A feed without followers is kept this long: a till that reloads finds it running.
const LINGER: Duration = Duration::from_secs(30);
/// A feed that hears nothing for this long follows again.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// Pause before following again.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// All feeds of this node, those it takes and those it serves.
#[derive(Clone, Default)]
pub(crate) struct Feeds(Arc<Inner>);

#[derive(Default)]
struct Inner {
    next: AtomicU64,
    taken: Mutex<BTreeMap<BranchKey, Taken>>,
    served: Mutex<BTreeMap<(NodeId, u64), AbortOnDropHandle<()>>>,
}

#[derive(Clone)]
struct Taken {
    feed: u64,
    actor: ActorRef<Message>,
    tap: broadcast::Sender<Arc<SharedDelta>>,
    room: Arc<Semaphore>,
}

impl Feeds {
    /// Every later delta of a branch this node holds no replica of.
    pub(crate) async fn tap(
        &self,
        store: &ClusterStore,
        key: &BranchKey,
    ) -> Result<broadcast::Receiver<Arc<SharedDelta>>, ractor::SpawnErr> {
        if let Some(taken) = self.0.taken.lock().get(key) {
            return Ok(taken.tap.subscribe());
        }
        let feed = self.0.next.fetch_add(1, Ordering::AcqRel);
        let (tap, receiver) = broadcast::channel(FOLLOWER_QUEUE_DELTAS);
        let start = Start { key: key.clone(), feed, tap: tap.clone(), store: store.clone() };
        let (actor, _) = Actor::spawn(None, FeedActor, start).await?;
        let taken = Taken { feed, actor, tap, room: Arc::new(Semaphore::new(FEED_QUEUE_DELTAS)) };
        let mut all = self.0.taken.lock();
        if let Some(other) = all.get(key) {
            // Another follower was quicker: one feed is enough.
            taken.actor.stop(None);
            return Ok(other.tap.subscribe());
        }
        all.insert(key.clone(), taken);
        Ok(receiver)
    }

    /// Serves a node that follows a branch here. Where the feed begins, or `None` at the limit.
    pub(crate) fn serve(
        &self,
        store: &ClusterStore,
        from: NodeId,
        feed: u64,
        key: &BranchKey,
        applied: &crate::partition::machine::AppliedPartition,
    ) -> Option<Offset> {
        let mut served = self.0.served.lock();
        served.retain(|_, pump| !pump.is_finished());
        if served.len() >= FEEDS_MAX {
            return None;
        }
        let peers = Arc::clone(&store.0.peers);
        let (offset, pump) = super::serve::pump(peers, from, feed, key, applied);
        served.insert((from, feed), pump);
        Some(offset)
    }

    /// What another node says about a feed. Never blocks.
    pub(crate) fn receive(&self, from: NodeId, cast: PeerCast) {
        match cast {
            PeerCast::Delta { feed, delta } => self.hand(feed, |room| {
                // Without room the delta is dropped here and read back from the log.
                let permit = Arc::clone(room).try_acquire_owned().ok()?;
                Some(Message::Delta { delta: Arc::new(delta), _permit: permit })
            }),
            PeerCast::Position { feed, offset } => {
                self.hand(feed, |_| Some(Message::Stands(offset)))
            }
            PeerCast::FeedEnded { feed } => self.hand(feed, |_| Some(Message::Broken)),
            PeerCast::Unfollow { feed } => {
                self.0.served.lock().remove(&(from, feed));
            }
            PeerCast::Posted { .. } | PeerCast::Draining => {
                tracing::warn!("this is no matter of a feed")
            }
        }
    }

    fn hand(&self, feed: u64, message: impl FnOnce(&Arc<Semaphore>) -> Option<Message>) {
        let taken = self.0.taken.lock().values().find(|taken| taken.feed == feed).cloned();
        if let Some(taken) = taken
            && let Some(message) = message(&taken.room)
        {
            // A feed that just ended needs no more.
            let _ = taken.actor.cast(message);
        }
    }

    /// A link broke or was made: feeds over it follow again, those served on it are over.
    pub(crate) fn link_changed(&self, peer: NodeId) {
        self.0.served.lock().retain(|(node, _), _| *node != peer);
        for taken in self.0.taken.lock().values() {
            let _ = taken.actor.cast(Message::Broken);
        }
    }

    fn forget(&self, key: &BranchKey, feed: u64) {
        let mut taken = self.0.taken.lock();
        if taken.get(key).is_some_and(|known| known.feed == feed) {
            taken.remove(key);
        }
    }
}

/// What a feed is receive.
enum Message {
    /// The next delta, as the other node sent it.
    Delta { delta: Arc<Delta>, _permit: OwnedSemaphorePermit },
    /// The log stands here.
    Stands(Offset),
    /// DeltaStream read back from the log; `true` if there are more.
    Mended(Vec<Arc<Delta>>, bool),
    /// The log could not be read.
    NotMended,
    /// The other node serves this feed from this offset on.
    Following(NodeId, Offset),
    /// The feed may have lost something.
    Broken,
    /// Time has passed.
    Tick,
}

struct Start {
    key: BranchKey,
    feed: u64,
    tap: broadcast::Sender<Arc<SharedDelta>>,
    store: ClusterStore,
}

struct State {
    start: Start,
    /// The last offset given to the followers; `None` until the feed first stands.
    last: Option<Offset>,
    upstream: Option<NodeId>,
    heard: Instant,
    used: Instant,
    following: Option<AbortOnDropHandle<()>>,
    mending: Option<AbortOnDropHandle<()>>,
    _tick: AbortOnDropHandle<()>,
}

struct FeedActor;

impl Actor for FeedActor {
    type Msg = Message;
    type State = State;
    type Arguments = Start;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        start: Start,
    ) -> Result<State, ActorProcessingErr> {
        let ticking = myself.clone();
        let tick = tokio::spawn(async move {
            while ticking.cast(Message::Tick).is_ok() {
                tokio::time::sleep(super::serve::POSITION_INTERVAL).await;
            }
        });
        let mut state = State {
            start,
            last: None,
            upstream: None,
            heard: Instant::now(),
            used: Instant::now(),
            following: None,
            mending: None,
            _tick: AbortOnDropHandle::new(tick),
        };
        state.follow(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.heard = if matches!(message, Message::Tick) { state.heard } else { Instant::now() };
        match message {
            Message::Delta { delta, .. } => state.pushed(&myself, delta),
            Message::Stands(offset) => state.stands(&myself, offset),
            Message::Mended(deltas, more) => {
                state.mending = None;
                deltas.into_iter().for_each(|delta| state.give(delta));
                if more {
                    state.mend(&myself);
                }
            }
            Message::NotMended => state.mending = None,
            Message::Following(node, offset) => {
                state.upstream = Some(node);
                state.following = None;
                state.last.get_or_insert(offset);
                state.stands(&myself, offset);
            }
            Message::Broken => state.follow(&myself),
            Message::Tick => state.tick(&myself),
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Message>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Start { key, feed, store, .. } = &state.start;
        store.0.feeds.forget(key, *feed);
        if let Some(node) = state.upstream {
            // A link that is down has forgotten the feed by itself.
            let _ = store.0.peers.cast(
                node,
                Priority::Feed,
                encode(&PeerCast::Unfollow { feed: *feed }),
            );
        }
        Ok(())
    }
}

impl State {
    fn give(&mut self, delta: Arc<Delta>) {
        let next = self.last.map(Offset::next);
        let fits = delta.events.first().is_some_and(|event| Some(event.offset) == next);
        if fits {
            self.last = delta.last();
            // Without a follower just now there is nobody to tell.
            let _ = self.start.tap.send(Arc::new(SharedDelta::new(delta)));
        }
    }

    fn pushed(&mut self, myself: &ActorRef<Message>, delta: Arc<Delta>) {
        let end = delta.last().unwrap_or_default();
        self.give(delta);
        self.stands(myself, end);
    }

    /// The log is known to liveness `offset`: what is missing up to there is read back.
    fn stands(&mut self, myself: &ActorRef<Message>, offset: Offset) {
        if self.last.is_some_and(|last| last < offset) {
            self.mend(myself);
        }
    }

    fn mend(&mut self, myself: &ActorRef<Message>) {
        let Some(after) = self.last else { return };
        if self.mending.is_some() {
            return;
        }
        let (store, key, myself) =
            (self.start.store.clone(), self.start.key.clone(), myself.clone());
        self.mending = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let read = Read::Events { after, limit: CATCH_UP_EVENTS };
            let answer = store.look_up(key.clone(), read, ReadLevel::Stale).await;
            let message = match answer {
                Ok(Answer::Events(found)) => match found.events {
                    Some(events) => {
                        let more = events.last().is_some_and(|event| event.offset < found.last);
                        let delta = Delta { key, incarnation: found.incarnation, events };
                        Message::Mended(vec![Arc::new(delta)], more)
                    }
                    None => Message::NotMended,
                },
                Ok(_) | Err(_) => Message::NotMended,
            };
            // A feed that just ended needs no more.
            let _ = myself.cast(message);
        })));
    }

    fn follow(&mut self, myself: &ActorRef<Message>) {
        if self.following.is_some() {
            return;
        }
        let (store, key, feed, myself) =
            (self.start.store.clone(), self.start.key.clone(), self.start.feed, myself.clone());
        self.following = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                if let Some((node, offset)) = ask_to_follow(&store, &key, feed).await {
                    // A feed that just ended needs no more.
                    let _ = myself.cast(Message::Following(node, offset));
                    return;
                }
                tokio::time::sleep(FOLLOW_PAUSE).await;
            }
        })));
    }

    fn tick(&mut self, myself: &ActorRef<Message>) {
        if self.start.tap.receiver_count() > 0 {
            self.used = Instant::now();
        }
        if self.used.elapsed() > LINGER {
            return myself.stop(None);
        }
        if self.heard.elapsed() > SILENCE_MAX {
            self.heard = Instant::now();
            self.follow(myself);
        }
    }
}

async fn ask_to_follow(
    store: &ClusterStore,
    key: &BranchKey,
    feed: u64,
) -> Option<(NodeId, Offset)> {
    let partition = store.locate(key).ok()?;
    let holder = store.leader_of(partition)?;
    let message = encode(&PeerRequest::Follow { key: key.clone(), feed });
    let reply = store.0.peers.call(holder, Priority::Call, message, ATTEMPT_TIMEOUT).await.ok()?;
    match decode(&reply) {
        Ok(PeerReply::Following(offset)) => Some((holder, offset)),
        _ => None,
    }
}
