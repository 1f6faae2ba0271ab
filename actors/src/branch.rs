//! BranchActor: the single activation of one branch:module, on the partition's leader only. It
//! admits commands, sees to it that the branch has its definition first, and hands them to the
//! proposer. It never awaits the log.

use std::sync::Arc;
use std::time::Duration;

use model::{BranchKey, Catalogue, Command, CommandId, Origin, Request};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::limits::BRANCH_PERMITS;
use crate::message::{BusyScope, Refusal};
use crate::partition::machine::AppliedPartition;
use crate::partition::proposer::{OutcomeSender, Proposal, Proposer};

/// How long a definition on its way is waited for before it is sent again.
const DEFINE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The session of the cluster's own commands; `Writes` keeps clients from using it.
pub(crate) const CLUSTER_SESSION: &str = "@cluster";

/// A command and who waits for its outcome.
pub(crate) struct Submission {
    pub(crate) command: Command,
    pub(crate) reply: OutcomeSender,
}

/// What a branch actor is told.
#[cfg_attr(test, allow(clippy::large_enum_variant, reason = "the small one is for tests alone"))]
pub(crate) enum Message {
    Submit(Submission),
    /// For tests: fail, as a defect would.
    #[cfg(test)]
    Panic,
}

/// What a branch actor is started with.
pub(crate) struct BranchArguments {
    pub(crate) key: BranchKey,
    pub(crate) proposer: Proposer,
    pub(crate) applied: Arc<AppliedPartition>,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
}

/// Its state: nothing that is not also in the partition's machine.
pub(crate) struct State {
    arguments: BranchArguments,
    permits: Arc<Semaphore>,
    /// The catalogue revision whose definition was last sent, and when.
    defined: Option<(u64, Instant)>,
}

pub(crate) struct BranchActor;

impl Actor for BranchActor {
    type Msg = Message;
    type State = State;
    type Arguments = BranchArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<Message>,
        arguments: BranchArguments,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State { arguments, permits: Arc::new(Semaphore::new(BRANCH_PERMITS)), defined: None })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Submit(submission) => state.submit(submission),
            #[cfg(test)]
            Message::Panic => panic!("a test asked for it"),
        }
        Ok(())
    }
}

impl State {
    fn submit(&mut self, submission: Submission) {
        let Submission { command, mut reply } = submission;
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return reply.answer(Err(Refusal::Busy { what: BusyScope::Branch }));
        };
        reply.hold(permit);
        let prerequisites = self.prerequisites();
        self.arguments.proposer.enqueue(Proposal { prerequisites, command, reply: Some(reply) });
    }

    /// The definition and seed, if the branch lacks them and they are not on their way.
    fn prerequisites(&mut self) -> Vec<Command> {
        let catalogue = Arc::clone(&self.arguments.catalogue.borrow());
        let sent_lately = self.defined.is_some_and(|(revision, at)| {
            revision == catalogue.revision && at.elapsed() < DEFINE_AGAIN_AFTER
        });
        let settled = self.defined.is_some_and(|(revision, _)| revision == catalogue.revision)
            && self.arguments.applied.view().branch(&self.arguments.key).is_some();
        if sent_lately || settled {
            return Vec::new();
        }
        self.defined = Some((catalogue.revision, Instant::now()));
        missing_definition(&self.arguments.key, &catalogue, &self.arguments.applied)
    }
}

/// The commands that bring a branch's definition and seed up to the catalogue's; none if they are.
pub(crate) fn missing_definition(
    key: &BranchKey,
    catalogue: &Catalogue,
    applied: &AppliedPartition,
) -> Vec<Command> {
    let view = applied.view();
    let branch = view.branch(key);
    let mut commands = Vec::new();
    if let Some(wanted) = catalogue.definition(key)
        && branch.and_then(|branch| branch.definition()).is_none_or(|current| **current != wanted)
    {
        let name = format!("define:{}:{}", catalogue.revision, wanted.hash());
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
