//! ReplicaGroup: one node's door to one group: propose, read, watch, change members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::ReplicaId;
use tokio::sync::watch;

use crate::error::{Fatal, ProposeError, ReadError};
use crate::types::{GroupId, GroupStatus, Member, Proposed};

/// One node's replica of one group. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaGroup(Arc<Inner>);

struct Inner {
    id: GroupId,
    replica: ReplicaId,
}

impl ReplicaGroup {
    /// Which group.
    pub fn id(&self) -> GroupId {
        self.0.id
    }

    /// Which replica of it.
    pub fn replica(&self) -> ReplicaId {
        self.0.replica
    }

    /// Begins a new group with these voters. Idempotent: an initialised group stays as it is.
    ///
    /// # Errors
    /// [`ProposeError::Unavailable`] when this replica is not among the members.
    pub async fn initialize(
        &self,
        members: BTreeMap<ReplicaId, Member>,
    ) -> Result<(), ProposeError> {
        let _ = members;
        unimplemented!()
    }

    /// Proposes an entry and waits until it is committed and applied here. With a term the
    /// proposal is fenced: refused unless this replica still leads exactly that term.
    ///
    /// # Errors
    /// See [`ProposeError`]: only `Indeterminate` leaves open whether the entry counts.
    pub async fn propose(&self, term: Option<u64>, entry: Bytes) -> Result<Proposed, ProposeError> {
        let _ = (term, entry);
        unimplemented!()
    }

    /// Leader only: after this, a read of the machine here is linearizable. Returns the index
    /// confirmed by a quorum, which has been applied here.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        unimplemented!()
    }

    /// Leader only: the index confirmed by a quorum, without waiting until it is applied. A read
    /// on any replica that has applied it is linearizable.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        unimplemented!()
    }

    /// Waits until this replica has applied `index`.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] when it has not by then.
    pub async fn wait_applied(&self, index: u64, timeout: Duration) -> Result<(), ReadError> {
        let _ = (index, timeout);
        unimplemented!()
    }

    /// The current values.
    pub fn status(&self) -> GroupStatus {
        unimplemented!()
    }

    /// Reports changes of leader, term, readiness, members and stopping at once, and those of the
    /// moving figures (log, applied, lag) a few times a second at most.
    pub fn watch(&self) -> watch::Receiver<GroupStatus> {
        unimplemented!()
    }

    /// Leader only: adds a replica that follows without a vote. Does not wait for it to catch up.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn add_learner(
        &self,
        replica: ReplicaId,
        member: Member,
    ) -> Result<(), ProposeError> {
        let _ = (replica, member);
        unimplemented!()
    }

    /// Leader only: makes exactly these replicas the voters; former voters leave the group.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn change_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<(), ProposeError> {
        let _ = voters;
        unimplemented!()
    }

    /// Leader only: asks another voter to lead. Returns once it was asked; `watch` tells the rest.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), ProposeError> {
        let _ = to;
        unimplemented!()
    }

    /// Writes a checkpoint now and returns when it is durable.
    ///
    /// # Errors
    /// [`Fatal`] when it cannot be written.
    pub async fn checkpoint(&self) -> Result<(), Fatal> {
        unimplemented!()
    }
}
