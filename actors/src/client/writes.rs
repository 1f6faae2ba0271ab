//! Writes: has a command decided by the leader of its partition, always under the same id: so a
//! caller sees latency, not the cluster's troubles.

use std::time::Duration;

use bytes::Bytes;
use model::{Command, NodeId, Outcome, PartitionId, SERVER_SESSION};
use raft::{GroupId, Priority};
use tokio::time::Instant;

use crate::client::CatalogueClient;
use crate::client::LocalPartitions;
use crate::client::leader_client::{LeaderClient, LeaderRequest, leader_unknown};
use crate::client::recent_refusals::RecentRefusals;
use crate::client::route_error;
use crate::level_gate::LevelGate;
use crate::limits::{
    ATTEMPT_TIMEOUT, LARGE_COMMAND_BYTES, LONG_DEADLINE, NODE_WEIGHT_MAX, PIECE_BYTES,
    REQUEST_DEADLINE,
};
use crate::memory::{Memory, MemoryClass};
use crate::message::{BusyScope, PeerReply, PeerRequest, Refusal, encode};
use crate::offload::offload;
use crate::partition;
use crate::partition::proposer::{OutcomeSender, Submission};
use crate::partition::weight::{CommandCost, is_bulk, weight_of_body};
use crate::shares::{Requester, ShareLimiter};
use crate::store::{RouteError, WriteHead};

/// The way of a command to its leader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Writes {
    leaders: LeaderClient,
    catalogue_client: CatalogueClient,
    partitions: LocalPartitions,
    levels: LevelGate,
    /// Bounds the commands that wait on this node, by weight.
    shares: ShareLimiter,
    memory: Memory,
    /// What leaders on other nodes refused a moment ago.
    refusals: RecentRefusals,
}

impl Writes {
    pub(crate) fn new(
        leaders: LeaderClient,
        catalogue_client: CatalogueClient,
        partitions: LocalPartitions,
        levels: LevelGate,
        memory: Memory,
        address_percent: u8,
    ) -> Self {
        let shares = ShareLimiter::new(NODE_WEIGHT_MAX, address_percent);
        let refusals = RecentRefusals::default();
        Self { leaders, catalogue_client, partitions, levels, shares, memory, refusals }
    }

    /// Whether a write would find a place, as far as its head tells: asked before its body is read,
    /// so that a refusal costs next to nothing. What is taken for the write is taken by
    /// [`Self::submit`], by its true weight.
    ///
    /// # Errors
    /// What its leader would answer.
    pub(crate) fn check(&self, requester: Requester, head: &WriteHead) -> Result<(), RouteError> {
        // What is wrong with the branch is said by whoever looks it up.
        let Ok(partition) = self.catalogue_client.locate(&head.key) else { return Ok(()) };
        let weight = weight_of_body(head.bytes);
        let local = self.partitions.get(partition);
        let here = local.and_then(|it| it.activations.check(&head.key, requester, weight));
        let checked = match here {
            Some(branch) => self.check_here(requester, head, weight).and(branch),
            None => self.refusals.check(&head.key, requester, weight),
        };
        checked.map_err(route_error)
    }

    /// Whether this node, which leads the branch, has room for a write of it.
    fn check_here(
        &self,
        requester: Requester,
        head: &WriteHead,
        weight: u64,
    ) -> Result<(), Refusal> {
        if head.adds {
            self.memory.check(MemoryClass::Branches, 0).map_err(Refusal::MemoryFull)?;
        }
        let checked = self.shares.check(requester, weight);
        checked.map_err(|it| Refusal::exhausted(BusyScope::Node, it))
    }

    /// Has a command decided, once, within `REQUEST_DEADLINE`; one that takes long, within
    /// `LONG_DEADLINE`.
    ///
    /// # Errors
    /// `Indeterminate` if it may have been decided; any other error if it was not.
    pub(crate) async fn submit(
        &self,
        requester: Requester,
        mut command: Command,
    ) -> Result<Outcome, RouteError> {
        let partition = self.catalogue_client.find(&command.key).await?;
        // The proposer asks again, for the log. Asked here as well because the leader may be of a
        // build that cannot read the message, and could not say why it refuses.
        if self.levels.check(&command).is_err() {
            // This node's copy of the catalogue may be from before the level was raised.
            self.catalogue_client.catch_up().await.map_err(route_error)?;
            self.levels.check(&command).map_err(route_error)?;
        }
        // The cluster's own commands have a session that no client can name.
        if command.id.session.starts_with('@') && command.id.session != SERVER_SESSION {
            command.id.session.insert(0, '@');
        }
        let cost = CommandCost::of(&command);
        let deadline = Instant::now() + deadline(&command, cost);
        let request = SubmitRequest { writes: self, partition, requester, command, cost };
        let asked = self.leaders.ask(GroupId::from(partition), &request, deadline).await;
        // Of writes alone: bulk operations have places of their own, and theirs being taken says
        // nothing of those of writes.
        if let Err(refusal @ Refusal::Exhausted { .. }) = &asked
            && !is_bulk(&request.command.request)
        {
            self.refusals.insert(&request.command.key, requester, cost.weight, refusal);
        }
        if cost.bytes > PIECE_BYTES {
            // Of perhaps a hundred thousand values, which are let go of one by one.
            raft::drop_beside(request.command);
        }
        asked.map_err(route_error)
    }

    /// Has a command decided by this node's replica, if it leads.
    ///
    /// # Errors
    /// `Indeterminate` if it was handed to the proposer and has no outcome in time.
    pub(crate) async fn submit_here(
        &self,
        partition: PartitionId,
        requester: Requester,
        command: Command,
        cost: CommandCost,
        timeout: Duration,
    ) -> Result<Outcome, Refusal> {
        let Some(local) = self.partitions.get(partition) else {
            return Err(Refusal::NotLeader { hint: None });
        };
        // Decided here and not where it is applied: every replica must apply what is in the log.
        // What makes room is taken whatever there is.
        if command.request.adds() {
            self.memory.check(MemoryClass::Branches, 0).map_err(Refusal::MemoryFull)?;
        }
        let share = self.shares.acquire(requester, cost.weight);
        let share = share.map_err(|it| Refusal::exhausted(BusyScope::Node, it))?;
        let (reply, outcome) = OutcomeSender::new(share);
        let submission = Submission { requester, cost, command, reply };
        // Straight to the branch's actor. Without one, or while it ends, the partition's actor
        // starts the next.
        if let Err(submission) = local.activations.submit(submission)
            && local.actor.cast(partition::Message::Submit(submission)).is_err()
        {
            return Err(leader_unknown());
        }
        match tokio::time::timeout(timeout, outcome).await {
            Ok(Ok(outcome)) => outcome,
            // The branch's actor failed with the command in its hands, or the log is slow: either
            // way the command may be in the log.
            Ok(Err(_)) | Err(_) => Err(Refusal::Indeterminate),
        }
    }
}

struct SubmitRequest<'a> {
    writes: &'a Writes,
    partition: PartitionId,
    requester: Requester,
    command: Command,
    cost: CommandCost,
}

impl LeaderRequest for SubmitRequest<'_> {
    type Answer = Outcome;

    fn message(&self) -> (Priority, Bytes) {
        let encoded = || encode(&PeerRequest::SubmitFor(self.requester, self.command.clone()));
        let message = offload(self.cost.bytes, encoded);
        (priority_of(&self.command, message.len()), message)
    }

    fn answer(&self, _: NodeId, reply: PeerReply) -> Option<Outcome> {
        if let PeerReply::Outcome(outcome) = reply { Some(outcome) } else { None }
    }

    fn attempt_timeout(&self) -> Duration {
        attempt_timeout(&self.command, self.cost)
    }

    async fn perform(&self, timeout: Duration) -> Result<Outcome, Refusal> {
        let Self { writes, partition, requester, command, cost } = self;
        writes.submit_here(*partition, *requester, command.clone(), *cost, timeout).await
    }
}

/// Whether a command takes long, as far as it says itself: in the log, or where it is applied.
fn is_long(command: &Command, cost: CommandCost) -> bool {
    is_bulk(&command.request) || cost.bytes > PIECE_BYTES
}

/// How long a command may take in all.
fn deadline(command: &Command, cost: CommandCost) -> Duration {
    if is_long(command, cost) { LONG_DEADLINE } else { REQUEST_DEADLINE }
}

/// How long one attempt waits for its outcome. All the time there is for a command that takes long:
/// a second attempt beside the first would only stand behind it. Where the leader changes, the
/// attempt ends by that.
pub(crate) fn attempt_timeout(command: &Command, cost: CommandCost) -> Duration {
    if is_long(command, cost) { LONG_DEADLINE } else { ATTEMPT_TIMEOUT }
}

/// The priority of a command on its way to its leader: large ones, and those whose answer may be
/// large, go with the bulk.
fn priority_of(command: &Command, bytes: usize) -> Priority {
    if is_bulk(&command.request) || bytes > LARGE_COMMAND_BYTES {
        Priority::Bulk
    } else {
        Priority::Call
    }
}
