//! Typed group: a replica group together with the type of its machine, so that a proposal is
//! answered by that machine's response.
//!
//! Promise: a response is always of the machine that applied the entry. Refused: proposing to a
//! group whose machine is not known; [`ReplicaGroup`] alone does not propose.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use bytes::Bytes;

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
        let (index, response) = self.group.propose_erased(term, entry).await?;
        // The group was started with an `M`, and a machine has a response to every proposed entry.
        // If that did not hold, the entry would be applied all the same, so nothing but "unknown"
        // is true.
        let response = response.into_response::<M>().ok_or(ProposeError::Indeterminate)?;
        Ok(AppliedEntry { index, response })
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
