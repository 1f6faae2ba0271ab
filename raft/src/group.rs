//! Replica group: a node's interface to one group: read, watch, change members. Who knows its
//! machine proposes as well, through [`TypedGroup`](crate::TypedGroup).
//!
//! Promise: what is acknowledged is on the disks of a majority; a fenced proposal enters the log
//! only in its own term; a quorum confirms a read index after the call began. Refused: reads by
//! lease, and proposals while this node's disk takes no writes.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::mutant::{self, Mutant};
use model::{NodeId, ReplicaId};
use openraft::errors::{
    ClientWriteError, ForwardReason, ForwardToLeader, InitializeError, LinearizableReadError,
    RaftError,
};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, Raft, ReadPolicy};
use tokio::sync::{mpsc, oneshot, watch};

use crate::checkpoint_task::CheckpointRequest;
use crate::consensus::{Metrics, TypeConfig};
use crate::disk::{Wal, WalError};
use crate::error::{Fatal, ProposeError, ReadError};
use crate::limits;
use crate::machine::Machine;
use crate::replica::Replica;
use crate::rpc_handler::RpcHandler;
use crate::state_machine::Applier;
use crate::status;
use crate::types::{GroupId, GroupStatus, Member};

/// One node's replica of one group. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaGroup(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) id: GroupId,
    pub(crate) node: NodeId,
    /// The type of the replica's machine.
    pub(crate) machine_type: TypeId,
    pub(crate) raft: Raft<TypeConfig, Applier>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) wal: Arc<Wal>,
    pub(crate) rpc_handler: RpcHandler,
    pub(crate) status: watch::Receiver<GroupStatus>,
    pub(crate) checkpoint_requests: mpsc::Sender<CheckpointRequest>,
}

impl ReplicaGroup {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// The group.
    pub fn id(&self) -> GroupId {
        self.0.id
    }

    /// The replica of the group on this node.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId(self.0.replica.key.replica)
    }

    /// Whether its machine is an `M`.
    pub(crate) fn has_machine<M: Machine>(&self) -> bool {
        self.0.machine_type == TypeId::of::<M>()
    }

    /// Initializes a new group with these voters. Idempotent: a group that is initialized already
    /// is left as it is.
    ///
    /// # Errors
    /// [`ProposeError::Unavailable`] when this replica is not a member, [`ProposeError::DiskFull`].
    pub async fn initialize(
        &self,
        members: BTreeMap<ReplicaId, Member>,
    ) -> Result<(), ProposeError> {
        self.writable()?;
        let members: BTreeMap<u64, Member> =
            members.into_iter().map(|(replica, member)| (replica.0, member)).collect();
        match self.0.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error @ InitializeError::NotInMembers(_))) => {
                Err(unavailable(error))
            }
            Err(RaftError::Fatal(error)) => Err(self.fatal_reason(&error).into()),
        }
    }

    /// Leader only: after this, a read of the machine here is linearizable. Returns the index that
    /// a quorum has confirmed and that is applied here.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        let index = self.read_index().await?;
        self.wait_for_applied(index).await?;
        Ok(index)
    }

    /// Leader only: the index that a quorum has confirmed, without waiting until it is applied. A
    /// read on any replica that has applied it is linearizable.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        if mutant::is(Mutant::ReadFromDeposedLeader) && self.status().is_leader {
            return Ok(self.status().applied);
        }
        match self.0.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(match self.leader_hint(&forward) {
                    Ok(hint) => ReadError::NotLeader { hint },
                    Err(reason) => {
                        ReadError::Unavailable { reason, retry_after: limits::RETRY_AFTER }
                    }
                })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                let reason = "no majority of the replicas answers now".to_owned();
                Err(ReadError::Unavailable { reason, retry_after: limits::RETRY_AFTER })
            }
            Err(RaftError::Fatal(error)) => Err(self.fatal_reason(&error).into()),
        }
    }

    /// Waits until this replica has applied `index`.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] after `timeout`; [`ReadError::Fatal`] when the replica stopped.
    pub async fn wait_applied(&self, index: u64, timeout: Duration) -> Result<(), ReadError> {
        tokio::time::timeout(timeout, self.wait_for_applied(index)).await.unwrap_or_else(|_| {
            let applied = self.0.replica.applied().borrow().index;
            let reason = format!("this replica is at {applied}, {index} is not here yet");
            Err(ReadError::Unavailable { reason, retry_after: limits::RETRY_AFTER })
        })
    }

    async fn wait_for_applied(&self, index: u64) -> Result<(), ReadError> {
        let (mut applied, mut status) = (self.0.replica.applied(), self.0.status.clone());
        // `biased`: an applied index counts, also if the replica stopped right after.
        tokio::select! {
            biased;
            _ = applied.wait_for(|applied| applied.index >= index) => Ok(()),
            stopped = status.wait_for(|status| status.stopped.is_some()) => {
                let reason = stopped.ok().and_then(|status| status.stopped.clone());
                Err(reason.unwrap_or_else(|| Fatal("the replica stopped".to_owned())).into())
            }
        }
    }

    /// Waits until the working store here has been given what was applied, where long entries keep
    /// it busy: whoever proposes one after the other waits in between, or the changes of several
    /// would wait in memory.
    pub async fn store_caught_up(&self) {
        self.0.replica.backlog.caught_up().await;
    }

    /// Whether many changes wait for the working store here: applying will soon wait for it, and
    /// whoever can wait with what it proposes does so before.
    pub fn is_store_busy(&self) -> bool {
        let replica = &self.0.replica;
        replica.backlog.bytes() + replica.store.queued_bytes() >= limits::STORE_BUSY_BYTES
    }

    /// The current status.
    pub fn status(&self) -> GroupStatus {
        status::read(&self.0.raft, &self.0.replica)
    }

    /// Waits until the leader is known to be on another node than `than`. Waits for ever if there
    /// is none.
    pub async fn led_by_another(&self, than: NodeId) {
        let mut status = self.0.status.clone();
        let is_another =
            |status: &GroupStatus| status.leader.is_some_and(|(_, leader)| leader != than);
        if status.wait_for(is_another).await.is_err() {
            std::future::pending().await
        }
    }

    /// Watches the status. Changes of leader, term, readiness, members and stopping are reported at
    /// once, those of the other figures (log, applied, lag) once a second at most.
    pub fn watch(&self) -> watch::Receiver<GroupStatus> {
        self.0.status.clone()
    }

    /// Leader only: adds a replica without a vote (a learner). Does not wait for it to catch up.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn add_learner(
        &self,
        replica: ReplicaId,
        member: Member,
    ) -> Result<(), ProposeError> {
        self.writable()?;
        self.finish_change(self.0.raft.add_learner(replica.0, member, false).await).await
    }

    /// Leader only: makes exactly these replicas the voters; other voters leave the group.
    ///
    /// # Errors
    /// See [`ProposeError`]; `Unavailable` also while an earlier change is in progress, or when one
    /// of them was not added as a learner first.
    pub async fn change_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<(), ProposeError> {
        self.writable()?;
        let voters: BTreeSet<u64> = voters.into_iter().map(|replica| replica.0).collect();
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.finish_change(self.0.raft.change_membership(change, false).await).await
    }

    /// Leader only: removes a replica without a vote from the group.
    ///
    /// # Errors
    /// See [`ProposeError`]; `Unavailable` also when it has a vote.
    pub async fn remove_learner(&self, replica: ReplicaId) -> Result<(), ProposeError> {
        self.writable()?;
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([replica.0]));
        self.finish_change(self.0.raft.change_membership(change, false).await).await
    }

    /// Leader only: asks another voter to become leader. Returns once the request was sent; `watch`
    /// reports whether it succeeds.
    ///
    /// # Errors
    /// See [`ProposeError`]; `Unavailable` also when `to` is not a voter.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), ProposeError> {
        // openraft reports neither case as an error.
        let status = self.status();
        if !status.is_leader {
            return Err(ProposeError::NotLeader { hint: status.leader.map(|(_, node)| node) });
        }
        if !status.members.get(&to).is_some_and(|&(_, voter)| voter) {
            return Err(unavailable(format!("replica {to} is not a voter of group {}", self.0.id)));
        }
        let sent = self.0.raft.trigger().transfer_leader(to.0).await;
        sent.map_err(|error| self.fatal_reason(&error).into())
    }

    /// Whether this replica may begin an election by itself when its group has no leader. It votes,
    /// and takes a leadership that is handed to it, either way. On at first.
    pub fn set_campaigns(&self, campaigns: bool) {
        self.0.raft.runtime_config().elect(campaigns);
    }

    /// Writes a checkpoint now and returns when it is durable.
    ///
    /// # Errors
    /// [`Fatal`] when it cannot be written, or when the replica stopped.
    pub async fn checkpoint(&self) -> Result<(), Fatal> {
        let (request, done) = oneshot::channel();
        let stopped = || Fatal("the replica stopped".to_owned());
        self.0.checkpoint_requests.send(request).await.map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(crate) fn writable(&self) -> Result<(), ProposeError> {
        self.0.wal.writable().map_err(|error| match error {
            WalError::Full { .. } => ProposeError::DiskFull { reason: error.to_string() },
            WalError::InUse { .. }
            | WalError::Corrupt { .. }
            | WalError::Version { .. }
            | WalError::Stopped { .. }
            | WalError::Io { .. } => unavailable(error),
        })
    }

    /// Ends a change of members: waits, for a second at most, until [`ReplicaGroup::status`] shows
    /// it. [`ReplicaGroup::watch`] may show it a little later.
    async fn finish_change(
        &self,
        result: Result<
            ClientWriteResponse<TypeConfig>,
            RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
        >,
    ) -> Result<(), ProposeError> {
        match result {
            Ok(written) => {
                let has_change = |metrics: &Metrics| {
                    metrics.membership_config.log_id().as_ref() >= Some(&written.log_id)
                };
                let waiting = self.0.raft.wait(Some(limits::STATUS_INTERVAL));
                // The result is ignored: the change is committed, whatever the metrics show.
                let _ = waiting.metrics(has_change, "the new members").await;
                Ok(())
            }
            Err(RaftError::APIError(error)) => Err(self.to_propose_error(error)),
            Err(RaftError::Fatal(_)) => Err(ProposeError::Indeterminate),
        }
    }

    pub(crate) fn to_propose_error(&self, error: ClientWriteError<TypeConfig>) -> ProposeError {
        match error {
            ClientWriteError::ForwardToLeader(forward) => match self.leader_hint(&forward) {
                Ok(hint) => ProposeError::NotLeader { hint },
                Err(reason) => unavailable(reason),
            },
            // The entry was in this leader's log, and another leader may have committed it.
            ClientWriteError::LogEntryDiscarded(_) => ProposeError::Indeterminate,
            ClientWriteError::ChangeMembershipError(error) => unavailable(error),
            ClientWriteError::PreconditionFailed(error) => unavailable(error),
        }
    }

    /// The node that leads instead, as far as it is known. Or, in words, why this replica cannot
    /// serve although it leads.
    fn leader_hint(&self, forward: &ForwardToLeader<TypeConfig>) -> Result<Option<NodeId>, String> {
        match forward.reason {
            ForwardReason::NotLeader => Ok(forward.leader_node.map(|member| member.node)),
            ForwardReason::LeadershipTransfer => {
                let hint = forward.leader_node.map(|member| member.node);
                match hint.filter(|&node| node != self.0.node) {
                    Some(node) => Ok(Some(node)),
                    None => Err(format!("group {} is changing its leader", self.0.id)),
                }
            }
            ForwardReason::LeaseExpired => {
                Err(format!("the leader of group {} has lost its quorum", self.0.id))
            }
        }
    }

    pub(crate) fn fatal_reason(&self, error: &openraft::errors::Fatal<TypeConfig>) -> Fatal {
        self.0.replica.failure().unwrap_or_else(|| Fatal(error.to_string()))
    }
}

fn unavailable(reason: impl std::fmt::Display) -> ProposeError {
    ProposeError::Unavailable { reason: reason.to_string(), retry_after: limits::RETRY_AFTER }
}
