//! Network: the wires of a simulated cluster: late, cut in one direction or both, losing calls.
//!
//! Promise: what goes over one lane in one direction arrives in order, and a cast is lost only
//! where a wire is cut. A node that ended sends nothing more, whatever of it still runs.

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

/// For how long a cut wire swallows what is sent before its link is known to be broken.
const SWALLOWS: Duration = Duration::from_millis(400);
/// How far apart two messages of one lane arrive at least: tokio's clock has milliseconds.
const APART: Duration = Duration::from_millis(1);
/// How long a message is under way when nothing is wrong.
pub(super) const USUAL: (Duration, Duration) =
    (Duration::from_micros(200), Duration::from_millis(2));

/// What one node's ends of the wires are fastened to.
#[derive(Clone, Default)]
struct Ends {
    life: u64,
    groups: Option<Groups>,
    inbox: Option<Arc<dyn Inbox>>,
}

/// One lane in one direction. Its chance is its own, so that what goes on elsewhere at the same
/// moment does not change it.
struct Way {
    dice: Rng,
    /// When the last message arrives.
    last: Instant,
}

struct State {
    ends: BTreeMap<NodeId, Ends>,
    /// From, to: since when nothing passes.
    cut: BTreeMap<(NodeId, NodeId), Instant>,
    delay: (Duration, Duration),
    lost_per_mille: u64,
    seed: u64,
    lanes: BTreeMap<(NodeId, NodeId, u8), Way>,
    carried: u64,
    lost: u64,
    bulk: u64,
}

/// All wires. Cheap to clone.
#[derive(Clone)]
pub(super) struct Wires(Arc<Mutex<State>>);

/// What becomes of a message that is handed to a wire.
enum Fate {
    Arrives(Instant),
    Swallowed,
    Refused(&'static str),
}

impl Wires {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            ends: BTreeMap::new(),
            cut: BTreeMap::new(),
            delay: USUAL,
            lost_per_mille: 0,
            seed,
            lanes: BTreeMap::new(),
            carried: 0,
            lost: 0,
            bulk: 0,
        })))
    }

    /// What a node in one of its lives sees of them.
    pub(super) fn door(&self, node: NodeId, life: u64) -> Arc<Door> {
        self.0.lock().ends.insert(node, Ends { life, ..Ends::default() });
        Arc::new(Door { wires: self.clone(), node, life })
    }

    pub(super) fn join(&self, node: NodeId, groups: Groups) {
        if let Some(ends) = self.0.lock().ends.get_mut(&node) {
            ends.groups = Some(groups);
        }
    }

    pub(super) fn listen(&self, node: NodeId, inbox: Arc<dyn Inbox>) {
        if let Some(ends) = self.0.lock().ends.get_mut(&node) {
            ends.inbox = Some(inbox);
        }
    }

    pub(super) fn leave(&self, node: NodeId) {
        self.0.lock().ends.remove(&node);
    }

    /// Nothing passes in this direction.
    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.0.lock().cut.entry((from, to)).or_insert_with(Instant::now);
    }

    pub(super) fn heal(&self, from: NodeId, to: NodeId) {
        self.0.lock().cut.remove(&(from, to));
    }

    /// Whether a link between the two stands: both directions pass and both listen.
    pub(super) fn linked(&self, a: NodeId, b: NodeId) -> bool {
        let state = self.0.lock();
        let cut = state.cut.contains_key(&(a, b)) || state.cut.contains_key(&(b, a));
        let listens = |node| state.ends.get(&node).is_some_and(|ends: &Ends| ends.inbox.is_some());
        !cut && listens(a) && listens(b)
    }

    pub(super) fn delay(&self, delay: (Duration, Duration)) {
        self.0.lock().delay = delay;
    }

    pub(super) fn lose(&self, per_mille: u64) {
        self.0.lock().lost_per_mille = per_mille;
    }

    /// Messages carried, lost, and carried with checkpoints.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let state = self.0.lock();
        (state.carried, state.lost, state.bulk)
    }

    /// The nodes whose wires are cut in any direction.
    pub(super) fn cut_off(&self) -> BTreeSet<(NodeId, NodeId)> {
        self.0.lock().cut.keys().copied().collect()
    }

    fn send(&self, from: NodeId, life: u64, to: NodeId, lane: Priority, may_lose: bool) -> Fate {
        let mut state = self.0.lock();
        if state.ends.get(&from).is_none_or(|ends| ends.life != life) {
            return Fate::Refused("this node has ended");
        }
        if let Some(since) = state.cut.get(&(from, to)) {
            let fresh = since.elapsed() < SWALLOWS;
            state.lost += 1;
            return if fresh { Fate::Swallowed } else { Fate::Refused("the link is broken") };
        }
        if !state.ends.contains_key(&to) {
            return Fate::Refused("nobody listens");
        }
        let (seed, lost, (least, most)) = (state.seed, state.lost_per_mille, state.delay);
        let now = Instant::now();
        let way = state.lanes.entry((from, to, lane as u8)).or_insert_with(|| Way {
            dice: Rng(seed ^ (from.0 << 40 | to.0 << 20 | lane as u64)),
            last: now,
        });
        let (is_lost, late) = (way.dice.chance(lost), way.dice.between(least, most));
        if may_lose && is_lost {
            state.lost += 1;
            return Fate::Swallowed;
        }
        let due = (now + late).max(way.last + APART);
        way.last = due;
        state.carried += 1;
        state.bulk += u64::from(lane == Priority::Bulk);
        Fate::Arrives(due)
    }

    /// Whether what was under way still arrives.
    fn arrives(&self, from: NodeId, to: NodeId) -> Option<Ends> {
        let state = self.0.lock();
        (!state.cut.contains_key(&(from, to))).then(|| state.ends.get(&to).cloned()).flatten()
    }

    /// A way there and back. Pending for ever where something was swallowed.
    async fn round<F>(
        self,
        (from, life): (NodeId, u64),
        to: NodeId,
        lane: Priority,
        handle: impl FnOnce(Ends) -> Option<F> + Send,
    ) -> Result<Bytes, NetworkError>
    where
        F: Future<Output = Bytes> + Send + 'static,
    {
        let unreachable =
            |reason: &str| NetworkError::Unreachable { node: to, reason: reason.into() };
        match self.send(from, life, to, lane, true) {
            Fate::Arrives(due) => tokio::time::sleep_until(due).await,
            Fate::Swallowed => return pending().await,
            Fate::Refused(reason) => return Err(unreachable(reason)),
        }
        let Some(ends) = self.arrives(from, to) else { return pending().await };
        let there = ends.life;
        let Some(work) = handle(ends) else { return Err(unreachable("it is still starting")) };
        // A task of its own, as over sockets: who gives up waiting does not stop the work.
        let Ok(answer) = tokio::spawn(work).await else { return pending().await };
        match self.send(to, there, from, lane, true) {
            Fate::Arrives(due) => tokio::time::sleep_until(due).await,
            Fate::Swallowed | Fate::Refused(_) => return pending().await,
        }
        match self.arrives(to, from) {
            Some(ends) if ends.life == life => Ok(answer),
            Some(_) | None => pending().await,
        }
    }
}

/// One node's side of all wires, for one of its lives.
pub(super) struct Door {
    wires: Wires,
    node: NodeId,
    life: u64,
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

impl Network for Door {
    fn call(
        &self,
        to: NodeId,
        lane: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        let (wires, from) = (self.wires.clone(), (self.node, self.life));
        Box::pin(within(
            to,
            timeout,
            wires.round(from, to, lane, move |ends| {
                let groups = ends.groups?;
                Some(async move { groups.handle(from.0, message).await })
            }),
        ))
    }
}

impl Peers for Door {
    fn call(
        &self,
        to: NodeId,
        lane: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (wires, from) = (self.wires.clone(), (self.node, self.life));
        Box::pin(within(
            to,
            timeout,
            wires.round(from, to, lane, move |ends| {
                let inbox = ends.inbox?;
                Some(async move { inbox.call(from.0, message).await })
            }),
        ))
    }

    fn cast(&self, to: NodeId, lane: Priority, message: Bytes) -> Result<(), PeerError> {
        let (wires, from) = (self.wires.clone(), self.node);
        match wires.send(from, self.life, to, lane, false) {
            Fate::Arrives(due) => {
                tokio::spawn(async move {
                    tokio::time::sleep_until(due).await;
                    if let Some(inbox) = wires.arrives(from, to).and_then(|ends| ends.inbox) {
                        inbox.cast(from, message);
                    }
                });
                Ok(())
            }
            Fate::Swallowed => Ok(()),
            Fate::Refused(reason) => {
                Err(PeerError::Unreachable { node: to, reason: reason.into() })
            }
        }
    }
}
