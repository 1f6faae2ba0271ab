//! BranchActor: the single activation of one branch:module, on the partition's leader only. It
//! stands between the store and the proposer: it has the branch's queue, whose places
//! `activations.rs` gives out by class; it sees to it that the branch has its definition first; and
//! it goes to sleep when nothing was asked for long.
//!
//! Promise: a branch has one such actor at a time, and a command that was admitted is handed to the
//! proposer in the order of the queue. It never awaits the log.
//! Refused: any state that is not also in the partition's machine; a successor starts with nothing.

use std::sync::Arc;
use std::time::Duration;

use model::{BranchKey, Catalogue, Command, CommandId, Origin, Request};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::time::Instant;

use super::activations::{Activations, Admission, BranchMessage};
use super::applied::AppliedPartition;
use super::proposer::{OwnRank, Proposer, Submission};

/// How long a definition on its way is waited for before it is sent again.
const DEFINE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The same at most: each wait is twice the one before.
const DEFINE_AGAIN_MAX: Duration = Duration::from_secs(600);
/// The session of the cluster's own commands; the store keeps clients from using it.
pub(crate) const CLUSTER_SESSION: &str = "@cluster";

/// What a branch actor is spawned with.
pub(crate) struct BranchArguments {
    pub(crate) key: BranchKey,
    pub(crate) proposer: Proposer,
    pub(crate) applied: Arc<AppliedPartition>,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) activations: Activations,
}

/// Its state.
pub(crate) struct State {
    arguments: BranchArguments,
    definition: DefinitionState,
}

pub(crate) struct BranchActor;

impl Actor for BranchActor {
    type Msg = BranchMessage;
    type State = State;
    type Arguments = BranchArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<BranchMessage>,
        arguments: BranchArguments,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State { arguments, definition: DefinitionState::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<BranchMessage>,
        message: BranchMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            BranchMessage::Submit(submission) => state.submit(submission),
            BranchMessage::Passivate { idle_for } => state.passivate(&myself, idle_for),
            #[cfg(test)]
            BranchMessage::Panic => panic!("a test asked for it"),
        }
        Ok(())
    }
}

impl State {
    fn submit(&mut self, submission: Submission) {
        let BranchArguments { key, catalogue, applied, proposer, .. } = &self.arguments;
        let catalogue = Arc::clone(&catalogue.borrow());
        // What is needed is in the log before the command that needs it, whosever turn it is. Where
        // it is lost without the command, the branch refuses that one as undefined, and the store
        // asks again.
        let due = self.definition.commands_due(key, &catalogue, applied, proposer.term());
        if !due.is_empty() {
            let revision = catalogue.revision;
            if let Err(refusal) = proposer.enqueue_own(key, revision, due, OwnRank::Needed) {
                return submission.reply.answer(Err(refusal));
            }
            self.definition.sent(catalogue.revision);
        }
        proposer.enqueue(submission);
    }

    /// Only this actor can tell: a command may have been admitted since it was asked to sleep.
    fn passivate(&self, myself: &ActorRef<BranchMessage>, idle_for: Duration) {
        let BranchArguments { key, admission, activations, .. } = &self.arguments;
        if admission.idle_for() < idle_for {
            return;
        }
        // First out of the map, then closed: whoever still finds the actor there may send to it.
        activations.remove(key, myself.get_id());
        // What is queued is still handled. What is sent from now on is given back to its sender,
        // who turns to the partition's actor; that one starts a successor once this one has ended.
        if let Err(error) = myself.drain() {
            tracing::debug!(%error, %key, "a branch actor that goes to sleep has ended already");
        }
    }
}

/// What this actor knows of the branch's definition.
#[derive(Default)]
enum DefinitionState {
    /// Nothing yet: the one in force may be older than the catalogue's.
    #[default]
    Unknown,
    /// The one of this revision of the catalogue was handed to the proposer then. It may be lost
    /// with the leadership or the disk, and it may be refused by the branch's records.
    Sent {
        /// The catalogue's revision.
        revision: u64,
        /// When it is sent again if it is still missing.
        again_at: Instant,
        /// How long that was waited for.
        pause: Duration,
    },
    /// The branch had the one of this revision.
    InForce(u64),
}

impl DefinitionState {
    /// The commands that must come before the branch's next one: its definition and seed, if it
    /// lacks the catalogue's and they are not on their way.
    fn commands_due(
        &mut self,
        key: &BranchKey,
        catalogue: &Catalogue,
        applied: &AppliedPartition,
        term: u64,
    ) -> Vec<Command> {
        match *self {
            Self::InForce(revision) if revision == catalogue.revision => return Vec::new(),
            // A change that is about others costs this branch no look at its definition.
            Self::InForce(revision) if catalogue.is_unchanged_since(revision, key) => {
                *self = Self::InForce(catalogue.revision);
                return Vec::new();
            }
            Self::Sent { revision, again_at, .. }
                if revision == catalogue.revision && Instant::now() < again_at =>
            {
                return Vec::new();
            }
            Self::Unknown | Self::Sent { .. } | Self::InForce(_) => {}
        }
        // Sent and still missing: it was lost, or the branch refused it. Which of them is not known
        // here; so it is sent again, and ever more rarely, for each time it goes through the log.
        let due = missing_definition(key, catalogue, applied, term);
        if due.is_empty() {
            *self = Self::InForce(catalogue.revision);
        }
        due
    }

    /// The definition of this revision was handed to the proposer.
    fn sent(&mut self, revision: u64) {
        let pause = match *self {
            Self::Sent { revision: before, pause, .. } if before == revision => {
                (pause * 2).min(DEFINE_AGAIN_MAX)
            }
            Self::Unknown | Self::Sent { .. } | Self::InForce(_) => DEFINE_AGAIN_AFTER,
        };
        *self = Self::Sent { revision, again_at: Instant::now() + pause, pause };
    }
}

/// The commands that bring a branch's definition and seed up to the catalogue's; none if they are.
/// They are those of the leader of this term.
pub(super) fn missing_definition(
    key: &BranchKey,
    catalogue: &Catalogue,
    applied: &AppliedPartition,
    term: u64,
) -> Vec<Command> {
    let view = applied.view();
    let branch = view.branch(key);
    let mut commands = Vec::new();
    if let Some(wanted) = catalogue.definition(key)
        && branch.and_then(|branch| branch.definition()).is_none_or(|current| **current != wanted)
    {
        // Of the term: a leader with an older catalogue may have put an older definition behind
        // this one, and under the same id this one would be a repeat, and do nothing.
        let name = format!("define:{term}:{}:{}", catalogue.revision, wanted.hash());
        let request = if catalogue.filled.contains(&key.module) {
            Request::Fill(Arc::new(wanted))
        } else {
            Request::Define(Arc::new(wanted))
        };
        commands.push(cluster_command(key, name, request));
    }
    if let Some(seed) = catalogue.seed(key)
        && branch.is_none_or(|branch| !branch.seeded())
    {
        commands.push(cluster_command(key, "seed".to_owned(), Request::Seed(seed)));
    }
    commands
}

fn cluster_command(key: &BranchKey, request_id: String, request: Request) -> Command {
    Command {
        id: CommandId { session: CLUSTER_SESSION.to_owned(), request: request_id },
        key: key.clone(),
        origin: Arc::new(Origin::default()),
        request,
    }
}

#[cfg(test)]
mod tests {
    use model::{Batch, CatalogueChange, CatalogueEntry, Procedures, Timestamp, codec};
    use raft::Machine as _;

    use super::*;
    use crate::partition::machine::PartitionMachine;
    use crate::testing::{key, notes};

    #[test]
    fn an_older_definition_of_a_later_term_is_replaced() {
        let (key, applied) = (key("dar"), AppliedPartition::new());
        let mut machine = PartitionMachine::new(Arc::clone(&applied), Procedures::default());
        let mut older = Catalogue::default();
        notes().iter().for_each(|entry| older.apply(entry).unwrap());
        let mut newer = older.clone();
        let mut module = newer.module(&key.module).unwrap().as_ref().clone();
        module.dedup.bytes_max *= 2;
        let change = CatalogueChange::Module(Arc::new(module));
        let at = Timestamp::default();
        newer.apply(&CatalogueEntry { id: "newer".to_owned(), at, change }).unwrap();
        // The leader of term 2 begins with the older catalogue, and then has the newer one.
        for (place, (term, catalogue)) in [(1, &newer), (2, &older), (2, &newer)].iter().enumerate()
        {
            let commands = missing_definition(&key, catalogue, &applied, *term);
            assert_eq!(commands.len(), 1, "of entry {place}");
            let stamped = Timestamp(1_000);
            let batch =
                Batch { level: codec::LEVEL, stamped, elapsed_ms: 7, entropy: [3; 16], commands };
            machine.apply(place as u64 + 1, &batch.encode(), &mut Vec::new()).unwrap();
            assert!(missing_definition(&key, catalogue, &applied, *term).is_empty());
        }
    }
}
