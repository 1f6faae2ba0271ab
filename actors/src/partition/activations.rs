//! Activations: the branch actors of a partition that take commands, by branch; the way from the
//! store to a branch without a detour through the partition's actor.
//!
//! Promise: a command is either in the queue of its branch's actor, refused because too much waits
//! there, or given back. PartitionActor puts actors in; an actor that goes to sleep takes itself
//! out, and one that has ended is taken out by PartitionActor.
//! Refused: starting an actor. Only PartitionActor does, so that a branch never has two.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use model::{BranchKey, Request};
use parking_lot::{Mutex, RwLock};
use ractor::{ActorId, ActorRef, MessagingErr};
use tokio::time::Instant;

use super::proposer::Submission;
use crate::limits::{BRANCH_BULK_PERMITS, BRANCH_WEIGHT_MAX};
use crate::message::{BusyScope, Refusal};
use crate::shares::{Requester, Share, ShareLimiter};

/// Messages of a branch actor.
#[allow(clippy::large_enum_variant, reason = "the large one is nearly every message")]
pub(crate) enum BranchMessage {
    /// Hand this to the proposer; it was admitted.
    Submit(Submission),
    /// Go to sleep, unless something was admitted within this time.
    Passivate { idle_for: Duration },
    /// For tests: fail, as a defect would.
    #[cfg(test)]
    Panic,
}

/// The branch actors of one partition that take commands. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Activations {
    handles: Arc<RwLock<HashMap<BranchKey, BranchHandle>>>,
    /// Of what may wait for one branch, what one address may hold, in percent.
    address_percent: u8,
}

impl Activations {
    /// None yet. Of what may wait for one branch, one address may hold this share, in percent.
    pub(crate) fn new(address_percent: u8) -> Self {
        Self { handles: Arc::default(), address_percent }
    }

    /// What may wait for a branch that has nothing waiting yet.
    pub(super) fn admission(&self) -> Arc<Admission> {
        Admission::new(self.address_percent)
    }

    /// Puts a command into the queue of its branch's actor, or answers it with `Busy`. Never waits.
    ///
    /// # Errors
    /// The submission, untouched: no actor takes commands of this branch now.
    #[expect(clippy::result_large_err, reason = "it is given back whole, to be sent elsewhere")]
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Submission> {
        // Cloned, so that no lock is held while the command is sent.
        let handle = self.handles.read().get(&submission.command.key).cloned();
        match handle {
            Some(handle) => handle.submit(submission),
            None => Err(submission),
        }
    }

    /// Whether a client's write of this weight would be admitted now, or which of the branch's
    /// bounds is exhausted. `None`: no actor takes commands of the branch, here at least.
    pub(crate) fn check(
        &self,
        key: &BranchKey,
        requester: Requester,
        weight: u64,
    ) -> Option<Result<(), Refusal>> {
        let handles = self.handles.read();
        let checked = handles.get(key)?.admission.writes.check(requester, weight);
        Some(checked.map_err(|it| Refusal::exhausted(BusyScope::Branch, it)))
    }

    /// An actor takes commands from now on.
    pub(super) fn insert(&self, key: BranchKey, handle: BranchHandle) {
        self.handles.write().insert(key, handle);
    }

    /// This actor takes no more. Another one that has come in its place stays.
    pub(super) fn remove(&self, key: &BranchKey, actor: ActorId) {
        let mut handles = self.handles.write();
        if handles.get(key).is_some_and(|handle| handle.actor.get_id() == actor) {
            handles.remove(key);
        }
    }

    /// None takes commands any more. Gives those that did.
    pub(super) fn take_all(&self) -> Vec<BranchHandle> {
        self.handles.write().drain().map(|(_, handle)| handle).collect()
    }

    /// The actors that have admitted nothing for so long.
    pub(super) fn idle(&self, idle_for: Duration) -> Vec<ActorRef<BranchMessage>> {
        let handles = self.handles.read();
        let idle = handles.values().filter(|handle| handle.admission.idle_for() >= idle_for);
        idle.map(|handle| handle.actor.clone()).collect()
    }

    #[cfg(test)]
    pub(crate) fn actor(&self, key: &BranchKey) -> Option<ActorRef<BranchMessage>> {
        self.handles.read().get(key).map(|handle| handle.actor.clone())
    }
}

/// The way to one branch's actor.
#[derive(Clone)]
pub(crate) struct BranchHandle {
    pub(super) actor: ActorRef<BranchMessage>,
    admission: Arc<Admission>,
}

impl BranchHandle {
    pub(super) fn new(actor: ActorRef<BranchMessage>, admission: Arc<Admission>) -> Self {
        Self { actor, admission }
    }

    #[expect(clippy::result_large_err, reason = "it is given back whole, to be sent elsewhere")]
    fn submit(&self, mut submission: Submission) -> Result<(), Submission> {
        // Before it is sent: the actor's queue itself has no bound, its permits are the bound.
        match self.admission.admit(&submission) {
            Ok(share) => share.into_iter().for_each(|share| submission.reply.hold(share)),
            Err(refusal) => {
                submission.reply.answer(Err(refusal));
                return Ok(());
            }
        }
        match self.actor.cast(BranchMessage::Submit(submission)) {
            // The actor has ended, or ends and has closed its queue: it has done nothing with it.
            Err(MessagingErr::SendErr(BranchMessage::Submit(submission))) => Err(submission),
            // Sent; or, by a defect, lost with its sender, so that the caller hears "unknown".
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// What a command does to a branch, as far as its admission is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommandClass {
    /// A client's write: small, many at once.
    Write,
    /// A bulk operation: rewrites a module as a whole and may be megabytes.
    Bulk,
    /// The leader's own: definitions and seeds.
    Cluster,
}

impl CommandClass {
    fn of(request: &Request) -> Self {
        match request {
            Request::Transaction(_)
            | Request::Reserve(_)
            | Request::SetSequence(_)
            | Request::MendClock(_)
            | Request::Call(_) => Self::Write,
            #[cfg(feature = "next-level")]
            Request::ReserveAtNextLevel(_) => Self::Write,
            Request::Purge(_) | Request::Restore(_) | Request::Reset(_) | Request::Replace(_) => {
                Self::Bulk
            }
            Request::Define(_) | Request::Fill(_) | Request::Seed(_) => Self::Cluster,
        }
    }
}

/// How much may wait for one branch, by class, so that bulk operations cannot take all places of
/// writes, nor writes those of bulk operations; and of whom, so that no client can take all.
pub(crate) struct Admission {
    /// By weight.
    writes: ShareLimiter,
    /// By number.
    bulk: ShareLimiter,
    last_admitted: Mutex<Instant>,
}

impl Admission {
    fn new(address_percent: u8) -> Arc<Self> {
        Arc::new(Self {
            writes: ShareLimiter::new(BRANCH_WEIGHT_MAX, address_percent),
            bulk: ShareLimiter::new(BRANCH_BULK_PERMITS, address_percent),
            last_admitted: Mutex::new(Instant::now()),
        })
    }

    /// A place for a command, held until its outcome is known. The leader's own commands need none:
    /// each definition is sent once a second at most.
    fn admit(&self, submission: &Submission) -> Result<Option<Share>, Refusal> {
        let Submission { requester, cost, command, .. } = submission;
        let share = match CommandClass::of(&command.request) {
            CommandClass::Write => self.writes.acquire(*requester, cost.weight),
            CommandClass::Bulk => self.bulk.acquire(*requester, 1),
            CommandClass::Cluster => return Ok(None),
        };
        let share = share.map_err(|it| Refusal::exhausted(BusyScope::Branch, it))?;
        *self.last_admitted.lock() = Instant::now();
        Ok(Some(share))
    }

    /// How long nothing was admitted.
    pub(super) fn idle_for(&self) -> Duration {
        self.last_admitted.lock().elapsed()
    }
}

#[cfg(test)]
mod tests {
    use model::{Command, Object, Request, Seed};

    use super::super::proposer::OutcomeSender;
    use super::super::weight::CommandCost;
    use super::*;
    use crate::limits::ADDRESS_PERCENT;
    use crate::testing::insert;

    fn submission(request: Request, connection: u64) -> Submission {
        let command = Command { request, ..insert("dar", "n1", "x") };
        let node = ShareLimiter::new(10, ADDRESS_PERCENT);
        let reply = OutcomeSender::new(node.acquire(Requester::default(), 1).unwrap()).0;
        let requester = Requester { address: Some([10, 0, 0, 1].into()), connection };
        Submission { requester, cost: CommandCost::of(&command), command, reply }
    }

    fn write(connection: u64) -> Submission {
        submission(insert("dar", "n1", "x").request, connection)
    }

    fn seed() -> Submission {
        submission(Request::Seed(Arc::new(Seed { tables: Object::new() })), 1)
    }

    #[tokio::test]
    async fn writes_that_wait_take_no_place_of_the_leaders_commands() {
        let admission = Admission::new(ADDRESS_PERCENT);
        let mut held = Vec::new();
        while let Ok(share) = admission.admit(&write(1)) {
            held.push(share);
        }
        assert!(!held.is_empty());
        let refused = admission.admit(&write(1)).unwrap_err();
        assert!(
            matches!(refused, Refusal::Exhausted { what: BusyScope::Branch, .. }),
            "{refused:?}"
        );
        assert!(admission.admit(&seed()).unwrap().is_none(), "it needs no place");
        assert!(admission.admit(&write(2)).unwrap().is_some(), "another client finds a place");
        held.pop();
        assert!(admission.admit(&write(1)).unwrap().is_some(), "one place is free again");
    }

    #[tokio::test]
    async fn bulk_operations_and_writes_have_places_of_their_own() {
        let admission = Admission::new(ADDRESS_PERCENT);
        assert_eq!(CommandClass::of(&write(1).command.request), CommandClass::Write);
        assert_eq!(CommandClass::of(&seed().command.request), CommandClass::Cluster);
        let _held: Vec<_> = (0..)
            .map_while(|n| {
                let requester = Requester { connection: n, ..Requester::default() };
                admission.bulk.acquire(requester, 1).ok()
            })
            .collect();
        assert!(admission.admit(&write(1)).unwrap().is_some(), "bulk operations took no place");
    }
}
