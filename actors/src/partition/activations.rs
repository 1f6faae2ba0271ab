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

use model::{BranchKey, Command, Request};
use parking_lot::{Mutex, RwLock};
use ractor::{ActorId, ActorRef, MessagingErr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::proposer::OutcomeSender;
use crate::limits::{BRANCH_BULK_PERMITS, BRANCH_PERMITS};
use crate::message::{BusyScope, Refusal};

/// A command and who waits for its outcome.
pub(crate) struct Submission {
    pub(crate) command: Command,
    pub(crate) reply: OutcomeSender,
}

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
#[derive(Clone, Default)]
pub(crate) struct Activations(Arc<RwLock<HashMap<BranchKey, BranchHandle>>>);

impl Activations {
    /// Puts a command into the queue of its branch's actor, or answers it with `Busy`. Never waits.
    ///
    /// # Errors
    /// The submission, untouched: no actor takes commands of this branch now.
    #[expect(clippy::result_large_err, reason = "it is given back whole, to be sent elsewhere")]
    pub(crate) fn submit(&self, submission: Submission) -> Result<(), Submission> {
        // Cloned, so that no lock is held while the command is sent.
        let handle = self.0.read().get(&submission.command.key).cloned();
        match handle {
            Some(handle) => handle.submit(submission),
            None => Err(submission),
        }
    }

    /// An actor takes commands from now on.
    pub(super) fn insert(&self, key: BranchKey, handle: BranchHandle) {
        self.0.write().insert(key, handle);
    }

    /// This actor takes no more. Another one that has come in its place stays.
    pub(super) fn remove(&self, key: &BranchKey, actor: ActorId) {
        let mut handles = self.0.write();
        if handles.get(key).is_some_and(|handle| handle.actor.get_id() == actor) {
            handles.remove(key);
        }
    }

    /// None takes commands any more. Gives those that did.
    pub(super) fn take_all(&self) -> Vec<BranchHandle> {
        self.0.write().drain().map(|(_, handle)| handle).collect()
    }

    /// The actors that have admitted nothing for so long.
    pub(super) fn idle(&self, idle_for: Duration) -> Vec<ActorRef<BranchMessage>> {
        let handles = self.0.read();
        let idle = handles.values().filter(|handle| handle.admission.idle_for() >= idle_for);
        idle.map(|handle| handle.actor.clone()).collect()
    }

    #[cfg(test)]
    pub(crate) fn actor(&self, key: &BranchKey) -> Option<ActorRef<BranchMessage>> {
        self.0.read().get(key).map(|handle| handle.actor.clone())
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
        match self.admission.admit(&submission.command.request) {
            Ok(permit) => permit.into_iter().for_each(|permit| submission.reply.hold(permit)),
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
/// writes, nor writes those of bulk operations.
pub(crate) struct Admission {
    writes: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    last_admitted: Mutex<Instant>,
}

impl Admission {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            writes: Arc::new(Semaphore::new(BRANCH_PERMITS)),
            bulk: Arc::new(Semaphore::new(BRANCH_BULK_PERMITS)),
            last_admitted: Mutex::new(Instant::now()),
        })
    }

    /// A place for a command, held until its outcome is known. The leader's own commands need none:
    /// each definition is sent once a second at most.
    fn admit(&self, request: &Request) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let places = match CommandClass::of(request) {
            CommandClass::Write => &self.writes,
            CommandClass::Bulk => &self.bulk,
            CommandClass::Cluster => return Ok(None),
        };
        let permit = Arc::clone(places).try_acquire_owned();
        let permit = permit.map_err(|_| Refusal::Busy { what: BusyScope::Branch })?;
        *self.last_admitted.lock() = Instant::now();
        Ok(Some(permit))
    }

    /// How long nothing was admitted.
    pub(super) fn idle_for(&self) -> Duration {
        self.last_admitted.lock().elapsed()
    }
}

#[cfg(test)]
mod tests {
    use model::{Object, Request, Seed};

    use super::*;
    use crate::testing::insert;

    fn seed() -> Request {
        Request::Seed(Arc::new(Seed { tables: Object::new() }))
    }

    #[tokio::test]
    async fn writes_that_wait_take_no_place_of_the_leaders_commands() {
        let (admission, write) = (Admission::new(), insert("dar", "n1", "x").request);
        let mut held = Vec::new();
        while let Ok(permit) = admission.admit(&write) {
            held.push(permit);
        }
        assert_eq!(held.len(), BRANCH_PERMITS);
        assert_eq!(admission.admit(&write).unwrap_err(), Refusal::Busy { what: BusyScope::Branch });
        assert!(admission.admit(&seed()).unwrap().is_none(), "it needs no place");
        held.pop();
        assert!(admission.admit(&write).unwrap().is_some(), "one place is free again");
    }

    #[tokio::test]
    async fn bulk_operations_and_writes_have_places_of_their_own() {
        let (admission, write) = (Admission::new(), insert("dar", "n1", "x").request);
        assert_eq!(CommandClass::of(&write), CommandClass::Write);
        assert_eq!(CommandClass::of(&seed()), CommandClass::Cluster);
        let held: Vec<_> = (0..BRANCH_BULK_PERMITS)
            .map(|_| Arc::clone(&admission.bulk).try_acquire_owned().unwrap())
            .collect();
        assert!(admission.admit(&write).unwrap().is_some(), "bulk operations took no place of it");
        drop(held);
    }
}
