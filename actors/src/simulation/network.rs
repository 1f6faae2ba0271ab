//! Network: the links of a simulated cluster: slow, cut in one direction or both, losing calls.
//!
//! Promise: messages of one priority in one direction arrive in order, and a cast is lost only
//! where a link is cut. A node that crashed sends nothing more, whatever of it still runs.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use model::NodeId;
use parking_lot::Mutex;
use raft::simulated::Rng;
use raft::{Groups, Network, NetworkError, Priority};
use tokio::time::Instant;

use crate::{Inbox, PeerError, Peers};

/// For how long a cut link drops what is sent before the sender learns that it is broken.
const CUT_NOTICED: Duration = Duration::from_millis(400);
/// How far apart two messages of one priority arrive at least: with tokio's clock, which has
/// milliseconds, a shorter time would let the second overtake the first.
const MESSAGE_GAP: Duration = Duration::from_millis(1);
/// The shortest and longest latency of a message when no fault is injected.
pub(super) const USUAL_LATENCY: (Duration, Duration) =
    (Duration::from_micros(200), Duration::from_millis(2));

/// Who takes the messages for a node.
#[derive(Clone, Default)]
struct NodeHandlers {
    incarnation: u64,
    groups: Option<Groups>,
    inbox: Option<Arc<dyn Inbox>>,
}

/// The messages of one priority in one direction. It has an rng of its own, so that what happens
/// elsewhere at the same time does not change it.
struct OneWayQueue {
    rng: Rng,
    /// When the last message arrives.
    last: Instant,
}

struct State {
    handlers: BTreeMap<NodeId, NodeHandlers>,
    /// From, to: since when nothing passes.
    cut: BTreeMap<(NodeId, NodeId), Instant>,
    latency: (Duration, Duration),
    lost_per_mille: u64,
    seed: u64,
    queues: BTreeMap<(NodeId, NodeId, u8), OneWayQueue>,
    carried: u64,
    lost: u64,
    bulk: u64,
}

/// All links. Cheap to clone.
#[derive(Clone)]
pub(super) struct SimulatedNetwork(Arc<Mutex<State>>);

/// What becomes of a message that is sent.
enum MessageFate {
    At(Instant),
    Dropped,
    Refused(&'static str),
}

impl SimulatedNetwork {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            handlers: BTreeMap::new(),
            cut: BTreeMap::new(),
            latency: USUAL_LATENCY,
            lost_per_mille: 0,
            seed,
            queues: BTreeMap::new(),
            carried: 0,
            lost: 0,
            bulk: 0,
        })))
    }

    /// The network as one incarnation of a node uses it.
    pub(super) fn node(&self, node: NodeId, incarnation: u64) -> Arc<NodeNetwork> {
        let handlers = NodeHandlers { incarnation, ..NodeHandlers::default() };
        self.0.lock().handlers.insert(node, handlers);
        Arc::new(NodeNetwork { network: self.clone(), node, incarnation })
    }

    pub(super) fn attach_groups(&self, node: NodeId, groups: Groups) {
        if let Some(handlers) = self.0.lock().handlers.get_mut(&node) {
            handlers.groups = Some(groups);
        }
    }

    pub(super) fn attach_inbox(&self, node: NodeId, inbox: Arc<dyn Inbox>) {
        if let Some(handlers) = self.0.lock().handlers.get_mut(&node) {
            handlers.inbox = Some(inbox);
        }
    }

    /// Nothing reaches the node any more, and nothing that it sends leaves it.
    pub(super) fn detach(&self, node: NodeId) {
        self.0.lock().handlers.remove(&node);
    }

    /// Drops everything in this direction.
    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.0.lock().cut.entry((from, to)).or_insert_with(Instant::now);
    }

    pub(super) fn heal(&self, from: NodeId, to: NodeId) {
        self.0.lock().cut.remove(&(from, to));
    }

    /// Whether the link between two nodes is up: neither direction is cut, and both run.
    pub(super) fn is_linked(&self, a: NodeId, b: NodeId) -> bool {
        let state = self.0.lock();
        let cut = state.cut.contains_key(&(a, b)) || state.cut.contains_key(&(b, a));
        let runs =
            |node| state.handlers.get(&node).is_some_and(|it: &NodeHandlers| it.inbox.is_some());
        !cut && runs(a) && runs(b)
    }

    pub(super) fn set_latency(&self, latency: (Duration, Duration)) {
        self.0.lock().latency = latency;
    }

    pub(super) fn set_loss(&self, per_mille: u64) {
        self.0.lock().lost_per_mille = per_mille;
    }

    /// Messages carried, lost, and carried with checkpoints.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let state = self.0.lock();
        (state.carried, state.lost, state.bulk)
    }

    /// The directions that are cut.
    pub(super) fn cuts(&self) -> BTreeSet<(NodeId, NodeId)> {
        self.0.lock().cut.keys().copied().collect()
    }

    fn send(
        &self,
        (from, incarnation): (NodeId, u64),
        to: NodeId,
        priority: Priority,
        may_lose: bool,
    ) -> MessageFate {
        let mut state = self.0.lock();
        // A crashed incarnation still shuts down, and must not speak for the one after it.
        if state.handlers.get(&from).is_none_or(|sender| sender.incarnation != incarnation) {
            return MessageFate::Refused("this node has crashed");
        }
        if let Some(since) = state.cut.get(&(from, to)) {
            let fresh = since.elapsed() < CUT_NOTICED;
            state.lost += 1;
            return if fresh {
                MessageFate::Dropped
            } else {
                MessageFate::Refused("the link is broken")
            };
        }
        if !state.handlers.contains_key(&to) {
            return MessageFate::Refused("it does not run");
        }
        let (seed, lost, (shortest, longest)) = (state.seed, state.lost_per_mille, state.latency);
        let now = Instant::now();
        let link = state.queues.entry((from, to, priority as u8)).or_insert_with(|| OneWayQueue {
            rng: Rng(seed ^ (from.0 << 40 | to.0 << 20 | priority as u64)),
            last: now,
        });
        // Both are drawn for every message: one that is lost must not change the next latency.
        let (is_lost, latency) = (link.rng.random_bool(lost), link.rng.between(shortest, longest));
        if may_lose && is_lost {
            state.lost += 1;
            return MessageFate::Dropped;
        }
        let due = (now + latency).max(link.last + MESSAGE_GAP);
        link.last = due;
        state.carried += 1;
        state.bulk += u64::from(priority == Priority::Bulk);
        MessageFate::At(due)
    }

    /// Who takes a message that was under way; `None`: the link was cut or the node crashed
    /// meanwhile.
    fn receiver(&self, from: NodeId, to: NodeId) -> Option<NodeHandlers> {
        let state = self.0.lock();
        (!state.cut.contains_key(&(from, to))).then(|| state.handlers.get(&to).cloned()).flatten()
    }

    /// A message and its answer. Never ends where one of the two was dropped: the caller has a
    /// timeout.
    async fn round_trip<F>(
        self,
        (from, incarnation): (NodeId, u64),
        to: NodeId,
        priority: Priority,
        handle: impl FnOnce(NodeHandlers) -> Option<F> + Send,
    ) -> Result<Bytes, NetworkError>
    where
        F: Future<Output = Bytes> + Send + 'static,
    {
        let unreachable =
            |reason: &str| NetworkError::Unreachable { node: to, reason: reason.into() };
        match self.send((from, incarnation), to, priority, true) {
            MessageFate::At(due) => tokio::time::sleep_until(due).await,
            MessageFate::Dropped => return pending().await,
            MessageFate::Refused(reason) => return Err(unreachable(reason)),
        }
        let Some(receiver) = self.receiver(from, to) else { return pending().await };
        let answering = receiver.incarnation;
        let Some(work) = handle(receiver) else { return Err(unreachable("it is still starting")) };
        // A task of its own, as over sockets: a caller that gives up does not stop the work.
        let Ok(answer) = tokio::spawn(work).await else { return pending().await };
        match self.send((to, answering), from, priority, true) {
            MessageFate::At(due) => tokio::time::sleep_until(due).await,
            MessageFate::Dropped | MessageFate::Refused(_) => return pending().await,
        }
        // An answer to a crashed incarnation is not one to its successor.
        match self.receiver(to, from) {
            Some(caller) if caller.incarnation == incarnation => Ok(answer),
            Some(_) | None => pending().await,
        }
    }
}

/// The network as one incarnation of a node uses it.
pub(super) struct NodeNetwork {
    network: SimulatedNetwork,
    node: NodeId,
    incarnation: u64,
}

async fn within<T>(
    to: NodeId,
    timeout: Duration,
    work: impl Future<Output = Result<T, NetworkError>>,
) -> Result<T, NetworkError> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(NetworkError::NoAnswer { node: to, reason: "no answer in time".into() })
    })
}

impl Network for NodeNetwork {
    fn call(
        &self,
        to: NodeId,
        priority: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        let (network, from) = (self.network.clone(), (self.node, self.incarnation));
        Box::pin(within(
            to,
            timeout,
            network.round_trip(from, to, priority, move |receiver| {
                let groups = receiver.groups?;
                Some(async move { groups.handle(from.0, message).await })
            }),
        ))
    }
}

impl Peers for NodeNetwork {
    fn call(
        &self,
        to: NodeId,
        priority: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (network, from) = (self.network.clone(), (self.node, self.incarnation));
        Box::pin(within(
            to,
            timeout,
            network.round_trip(from, to, priority, move |receiver| {
                let inbox = receiver.inbox?;
                Some(async move { inbox.call(from.0, message).await })
            }),
        ))
    }

    fn cast(&self, to: NodeId, priority: Priority, message: Bytes) -> Result<(), PeerError> {
        let (network, from) = (self.network.clone(), self.node);
        match network.send((from, self.incarnation), to, priority, false) {
            MessageFate::At(due) => {
                tokio::spawn(async move {
                    tokio::time::sleep_until(due).await;
                    if let Some(inbox) = network.receiver(from, to).and_then(|it| it.inbox) {
                        inbox.cast(from, message);
                    }
                });
                Ok(())
            }
            MessageFate::Dropped => Ok(()),
            MessageFate::Refused(reason) => {
                Err(PeerError::Unreachable { node: to, reason: reason.into() })
            }
        }
    }
}
