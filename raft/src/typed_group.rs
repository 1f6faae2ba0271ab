//! Typed group: a replica group together with the type of its machine, so that a proposal is
//! answered by that machine's response.
//!
//! Promise: a response is always of the machine that applied the entry. Refused: proposing to a
//! group whose machine is not known; [`ReplicaGroup`] alone does not propose.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use bytes::Bytes;
use openraft::vote::leader_id_std::CommittedLeaderId;

use crate::consensus::{EntryData, ProposalResponder};
use crate::error::ProposeError;
use crate::group::ReplicaGroup;
use crate::machine::Machine;
use crate::types::AppliedEntry;

/// One node's replica of a group whose machine is an `M`. Cheap to clone.
pub struct TypedGroup<M> {
    group: ReplicaGroup,
    /// A function's result: the handle owns no machine, and is `Send` and `Sync` whatever `M` is.
    machine: PhantomData<fn() -> M>,
}

impl ReplicaGroup {
    /// The same replica as a group that takes proposals. `None`: its machine is not an `M`.
    pub fn typed<M: Machine>(&self) -> Option<TypedGroup<M>> {
        self.has_machine::<M>().then(|| TypedGroup::new(self.clone()))
    }
}

impl<M: Machine> TypedGroup<M> {
    /// The caller has checked that the group's machine is an `M`.
    pub(crate) fn new(group: ReplicaGroup) -> Self {
        Self { group, machine: PhantomData }
    }

    /// Proposes an entry and waits until it is committed and applied here. With a term the proposal
    /// is fenced: it is rejected unless this replica still leads in exactly that term.
    ///
    /// # Errors
    /// See [`ProposeError`]: only after `Indeterminate` the entry may be committed. A caller that
    /// stops waiting after this was first polled must treat that as `Indeterminate` as well.
    pub async fn propose(
        &self,
        term: Option<u64>,
        entry: Bytes,
    ) -> Result<AppliedEntry<M::Response>, ProposeError> {
        self.group.writable()?;
        let (responder, response) = ProposalResponder::new();
        let mut write = self.group.inner().raft.write(EntryData(entry)).responder(responder);
        // openraft checks the term in its own task, where it appends: a change of leader between
        // the caller's decision and the append cannot slip through.
        if let Some(term) = term {
            write = write.with_leader(CommittedLeaderId::new(term));
        }
        if let Err(error) = write.await {
            return Err(self.group.fatal_reason(&error).into());
        }
        let written = match response.await {
            Ok(Ok(written)) => written,
            Ok(Err(error)) => return Err(self.group.to_propose_error(error)),
            // openraft ended while it held the proposal; the entry may be in the log.
            Err(_) => return Err(ProposeError::Indeterminate),
        };
        // The group was started with an `M`, and a machine has a response to every proposed entry.
        // If that did not hold, the entry would be applied all the same, so nothing but "unknown"
        // is true.
        let response = written.data.into_response::<M>().ok_or(ProposeError::Indeterminate)?;
        Ok(AppliedEntry { index: written.log_id.index, response })
    }
}

// Not derived: that would demand the same of `M`.
impl<M> Clone for TypedGroup<M> {
    fn clone(&self) -> Self {
        Self { group: self.group.clone(), machine: PhantomData }
    }
}

impl<M> Deref for TypedGroup<M> {
    type Target = ReplicaGroup;

    fn deref(&self) -> &ReplicaGroup {
        &self.group
    }
}

impl<M> fmt::Debug for TypedGroup<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedGroup({})", self.group.id())
    }
}
