//! LeaderClient: how this node asks the replica of a group that can answer, wherever it is: its
//! leader, and for follows and reads that need not be the newest any other. Writes, reads, changes
//! of the catalogue, topics and follows all go through here.
//!
//! Promise: [`retry`] ends within its deadline. `Busy`, `Unavailable` and `NotLeader` mean that
//! nothing was done. Once one attempt may have reached a leader and no outcome is known, what it
//! ends with is `Indeterminate`, whatever later attempts said.
//!
//! It never decides who leads. It takes the leader from the status of the replica on this node,
//! else from another node's redirect, else it asks any replica that is linked; a node that cannot
//! answer what it is asked, as it does not lead or has no quorum, refuses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{Catalogue, NodeId, PartitionId};
use parking_lot::Mutex;
use raft::{GroupId, Priority, ReplicaGroup};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::LocalPartitions;
use crate::limits::{ATTEMPT_TIMEOUT, RETRY_PAUSE};
use crate::liveness::PeerLiveness;
use crate::message::{PeerReply, Refusal, decode};
use crate::offload::offload;
use crate::peers::{PeerError, Peers};

/// Something that the leader of a group does, or a replica that the request leaves it to.
pub(crate) trait LeaderRequest: Sync {
    /// What it gives.
    type Answer: Send;

    /// The request as it is sent to another node, and its priority on the way.
    fn message(&self) -> (Priority, Bytes);

    /// What the reply of another node means; `None` where it answers something else.
    fn answer(&self, from: NodeId, reply: PeerReply) -> Option<Self::Answer>;

    /// How long one attempt may take.
    fn attempt_timeout(&self) -> Duration {
        ATTEMPT_TIMEOUT
    }

    /// Does it on this node, which was the leader a moment ago.
    fn perform(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<Self::Answer, Refusal>> + Send;
}

/// The way to the leader of every replica group. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LeaderClient(Arc<Inner>);

struct Inner {
    node: NodeId,
    group_0: ReplicaGroup,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    partitions: LocalPartitions,
    peers: Arc<dyn Peers>,
    liveness: Arc<PeerLiveness>,
    /// What was last learned of groups that this node holds no replica of.
    hints: Mutex<BTreeMap<GroupId, Hint>>,
}

/// What an attempt taught of a group that has no replica here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hint {
    /// It was said to lead.
    Leads(NodeId),
    /// It did not answer, or knows of no leader: it may have just started.
    Failed(NodeId),
}

impl LeaderClient {
    pub(crate) fn new(
        node: NodeId,
        group_0: ReplicaGroup,
        catalogue: watch::Receiver<Arc<Catalogue>>,
        partitions: LocalPartitions,
        peers: Arc<dyn Peers>,
        liveness: Arc<PeerLiveness>,
    ) -> Self {
        let hints = Mutex::default();
        Self(Arc::new(Inner { node, group_0, catalogue, partitions, peers, liveness, hints }))
    }

    /// Asks the leader of a group until it answers, under one deadline. Asking twice must be safe:
    /// a command and a change of the catalogue have an id under which they are decided once.
    ///
    /// # Errors
    /// The last refusal, `Indeterminate` if any attempt may have been carried out.
    pub(crate) async fn ask<R: LeaderRequest>(
        &self,
        group: GroupId,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Answer, Refusal> {
        let attempt_timeout = request.attempt_timeout();
        retry(deadline, attempt_timeout, |timeout| self.ask_once(group, request, timeout)).await
    }

    /// One attempt: whoever leads now, as far as this node knows, is asked once.
    ///
    /// # Errors
    /// `NotLeader` if nobody is known to lead or the leader cannot be reached; what it refused
    /// with; `Indeterminate` if it was sent the request and did not answer.
    pub(crate) async fn ask_once<R: LeaderRequest>(
        &self,
        group: GroupId,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Answer, Refusal> {
        let leader = self.leader_of(group).ok_or(Refusal::NotLeader { hint: None })?;
        if leader != self.0.node {
            return self.ask_node(group, leader, request, timeout).await;
        }
        let answer = request.perform(timeout).await;
        if let Err(refusal) = &answer {
            // Another node may have said that this one leads; it knows better.
            self.follow_redirect(group, leader, refusal);
        }
        answer
    }

    /// The same, of a node that is known to lead or, for a read, to have applied enough.
    ///
    /// # Errors
    /// See [`Self::ask_once`].
    pub(crate) async fn ask_node<R: LeaderRequest>(
        &self,
        group: GroupId,
        leader: NodeId,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Answer, Refusal> {
        let (priority, message) = request.message();
        let reply = match self.call(group, leader, priority, message, timeout).await {
            Ok(reply) => reply,
            // The next attempt goes to another replica, which knows who leads or will lead itself.
            Err(error) => {
                self.0.hints.lock().insert(group, Hint::Failed(leader));
                return Err(match error {
                    // It was sent and may have been carried out.
                    PeerError::NoAnswer { .. } => Refusal::Indeterminate,
                    // It never left this node.
                    PeerError::Unreachable { .. } | PeerError::Full { .. } => {
                        Refusal::NotLeader { hint: None }
                    }
                });
            }
        };
        match offload(reply.len(), || decode(&reply)) {
            Ok(PeerReply::Refused(refusal)) => {
                self.follow_redirect(group, leader, &refusal);
                Err(refusal)
            }
            // An answer that cannot be understood does not say that nothing was done.
            Ok(reply) => request.answer(leader, reply).ok_or(Refusal::Indeterminate),
            Err(_) => Err(Refusal::Indeterminate),
        }
    }

    /// Sends a message to a leader and waits for the answer. A leader that hangs or is cut off
    /// answers nobody, while its followers elect another after a second. The replica here learns
    /// of that and ends the wait; without one, only the timeout does.
    async fn call(
        &self,
        group: GroupId,
        leader: NodeId,
        priority: Priority,
        message: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let call = self.0.peers.call(leader, priority, message, timeout);
        let Some(local) = self.group(group) else { return call.await };
        tokio::select! {
            // An answer that is there counts, also where a successor became known with it.
            biased;
            reply = call => reply,
            () = local.led_by_another(leader) => {
                Err(PeerError::NoAnswer { node: leader, reason: "another node leads now".to_owned() })
            }
        }
    }

    /// Who leads a group, as far as this node knows; where it does not, the replica to ask next.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        // A replica here takes part in elections: no redirect is newer than its status.
        if let Some(local) = self.group(group) {
            return local.status().leader.map(|(_, node)| node);
        }
        let failed = match self.0.hints.lock().get(&group) {
            Some(Hint::Leads(node)) => return Some(*node),
            Some(Hint::Failed(node)) => Some(*node),
            None => None,
        };
        // No redirect yet. Any replica will do to begin with: it redirects to the leader.
        let catalogue = self.0.catalogue.borrow();
        let placement = catalogue.placements.get(&PartitionId(group.0))?;
        let replicas: Vec<NodeId> = placement.replicas.values().copied().collect();
        next_replica(&replicas, placement.preferred_node(), failed, |node| {
            self.0.liveness.is_up(node)
        })
    }

    /// The replica of a group on this node.
    fn group(&self, id: GroupId) -> Option<ReplicaGroup> {
        if id == GroupId::CLUSTER {
            return Some(self.0.group_0.clone());
        }
        self.0.partitions.get(PartitionId(id.0)).map(|local| (*local.group).clone())
    }

    fn follow_redirect(&self, group: GroupId, from: NodeId, refusal: &Refusal) {
        if let Refusal::NotLeader { hint } = refusal {
            let hint = hint.map_or(Hint::Failed(from), Hint::Leads);
            self.0.hints.lock().insert(group, hint);
        }
    }
}

/// Which linked replica is asked where nobody is known to lead: the preferred one, and after one
/// that failed the next in order. A node that has just started is linked before it has its replica,
/// so asking the preferred one again and again might never end.
fn next_replica(
    replicas: &[NodeId],
    preferred: Option<NodeId>,
    failed: Option<NodeId>,
    is_up: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let place = |node| replicas.iter().position(|replica| *replica == node);
    let first = match failed.and_then(place) {
        Some(failed) => failed + 1,
        None => preferred.and_then(place).unwrap_or(0),
    };
    // The one that failed comes last: where no other is linked, it is asked again.
    let in_order = replicas.iter().cycle().skip(first).take(replicas.len());
    in_order.copied().find(|node| is_up(*node))
}

/// Attempts something until it is done or the deadline leaves no time for another attempt. Each
/// attempt is given how long it may take: `attempt_timeout`, or what is left.
///
/// # Errors
/// The last refusal; `Busy` and `DiskFull` at once; `Indeterminate` if any attempt may have been
/// carried out.
pub(crate) async fn retry<T, F>(
    deadline: Instant,
    attempt_timeout: Duration,
    mut attempt: impl FnMut(Duration) -> F,
) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Refusal>>,
{
    let mut maybe_done = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let refusal = match attempt(left.min(attempt_timeout)).await {
            Ok(answer) => return Ok(answer),
            Err(refusal) => refusal,
        };
        match refusal {
            // The caller relies on these meaning that nothing was done, so an earlier attempt that
            // may have been carried out counts for more than the refusal of a later one.
            Refusal::Busy { .. }
            | Refusal::Exhausted { .. }
            | Refusal::MemoryFull(_)
            | Refusal::BranchQuota(_)
            | Refusal::DiskFull { .. }
                if !maybe_done =>
            {
                return Err(refusal);
            }
            Refusal::Indeterminate => maybe_done = true,
            Refusal::Busy { .. }
            | Refusal::Exhausted { .. }
            | Refusal::MemoryFull(_)
            | Refusal::BranchQuota(_)
            | Refusal::DiskFull { .. }
            | Refusal::NotLeader { .. }
            | Refusal::Unavailable { .. } => {}
        }
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(if maybe_done { Refusal::Indeterminate } else { refusal });
        }
        metrics::counter!("mishkah_leader_client_retries_total").increment(1);
        // Between two leaders there is none: without a pause every caller would spin meanwhile.
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Nobody leads, or nobody is known to: nothing was done.
pub(crate) fn leader_unknown() -> Refusal {
    Refusal::Unavailable {
        reason: "no leader is known for this branch's partition".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::message::BusyScope;

    /// What is reported after these attempts, the last of which is repeated until the deadline.
    async fn result_of(attempts: Vec<Result<u64, Refusal>>) -> Result<u64, Refusal> {
        let mut left = VecDeque::from(attempts);
        let deadline = Instant::now() + Duration::from_millis(200);
        let attempt = |_| {
            let next = if left.len() > 1 { left.pop_front() } else { left.front().cloned() };
            std::future::ready(next.expect("one at least"))
        };
        retry(deadline, ATTEMPT_TIMEOUT, attempt).await
    }

    #[test]
    fn after_a_replica_that_failed_the_next_one_is_asked() {
        let nodes = [1, 2, 3].map(NodeId);
        let next = |failed: Option<u64>, up: &[u64]| {
            let is_up = |node: NodeId| up.contains(&node.0);
            next_replica(&nodes, Some(NodeId(2)), failed.map(NodeId), is_up).map(|node| node.0)
        };
        assert_eq!(next(None, &[1, 2, 3]), Some(2), "the preferred one first");
        assert_eq!(next(None, &[1, 3]), Some(3));
        assert_eq!(next(Some(2), &[1, 2, 3]), Some(3), "not the preferred one again");
        assert_eq!(next(Some(3), &[1, 2, 3]), Some(1));
        assert_eq!(next(Some(2), &[2]), Some(2), "there is no other");
        assert_eq!(next(Some(9), &[1, 2, 3]), Some(2), "it holds a replica no more");
        assert_eq!(next(None, &[]), None);
    }

    #[tokio::test]
    async fn a_later_refusal_does_not_hide_an_unknown_outcome() {
        let busy = Err(Refusal::Busy { what: BusyScope::Node });
        let unknown = Err(Refusal::Indeterminate);
        let not_leader = Err(Refusal::NotLeader { hint: None });
        assert_eq!(result_of(vec![not_leader.clone(), Ok(1)]).await, Ok(1));
        assert_eq!(result_of(vec![unknown.clone(), Ok(1)]).await, Ok(1), "the same id tells");
        assert_eq!(result_of(vec![unknown.clone(), not_leader.clone()]).await, unknown);
        assert_eq!(result_of(vec![unknown.clone(), busy.clone()]).await, unknown);
        assert_eq!(result_of(vec![not_leader.clone()]).await, not_leader);
    }

    #[tokio::test]
    async fn busy_is_reported_at_once_where_nothing_was_done() {
        let busy = Err(Refusal::Busy { what: BusyScope::Branch });
        assert_eq!(result_of(vec![busy.clone(), Ok(1)]).await, busy);
    }
}
