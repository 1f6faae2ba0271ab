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
use crate::partition::machine::Published;
use crate::partition::proposer::{Pending, Proposer, Waiting};

/// How long a definition on its way is waited for before it is sent again.
const DEFINE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The session of the cluster's own commands; `Writes` keeps clients from using it.
pub(crate) const OWN_SESSION: &str = "@cluster";

/// A command and who waits for its outcome.
pub(crate) struct Submission {
    pub(crate) command: Command,
    pub(crate) waiting: Waiting,
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
pub(crate) struct Start {
    pub(crate) key: BranchKey,
    pub(crate) proposer: Proposer,
    pub(crate) published: Arc<Published>,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
}

/// Its state: nothing that is not also in the partition's machine.
pub(crate) struct State {
    start: Start,
    permits: Arc<Semaphore>,
    /// The catalogue revision whose definition was last sent, and when.
    defined: Option<(u64, Instant)>,
}

pub(crate) struct BranchActor;

impl Actor for BranchActor {
    type Msg = Message;
    type State = State;
    type Arguments = Start;

    async fn pre_start(
        &self,
        _myself: ActorRef<Message>,
        start: Start,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State { start, permits: Arc::new(Semaphore::new(BRANCH_PERMITS)), defined: None })
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
        let Submission { command, mut waiting } = submission;
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return waiting.answer(Err(Refusal::Busy { what: BusyScope::Branch }));
        };
        waiting.hold(permit);
        let before = self.before();
        self.start.proposer.hand_in(Pending { before, command, waiting: Some(waiting) });
    }

    /// The definition and seed, if the branch lacks them and they are not on their way.
    fn before(&mut self) -> Vec<Command> {
        let catalogue = Arc::clone(&self.start.catalogue.borrow());
        let sent_lately = self.defined.is_some_and(|(revision, at)| {
            revision == catalogue.revision && at.elapsed() < DEFINE_AGAIN_AFTER
        });
        let settled = self.defined.is_some_and(|(revision, _)| revision == catalogue.revision)
            && self.start.published.view().branch(&self.start.key).is_some();
        if sent_lately || settled {
            return Vec::new();
        }
        self.defined = Some((catalogue.revision, Instant::now()));
        due(&self.start.key, &catalogue, &self.start.published)
    }
}

/// The commands that bring a branch's definition and seed up to the catalogue's; none if they are.
pub(crate) fn due(key: &BranchKey, catalogue: &Catalogue, published: &Published) -> Vec<Command> {
    let view = published.view();
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
        commands.push(own(key, name, request));
    }
    if let Some(seed) = catalogue.seed(key)
        && branch.is_none_or(|branch| !branch.seeded())
    {
        commands.push(own(key, "seed".to_owned(), Request::Seed(seed)));
    }
    commands
}

fn own(key: &BranchKey, request_id: String, request: Request) -> Command {
    Command {
        id: CommandId { session: OWN_SESSION.to_owned(), request: request_id },
        key: key.clone(),
        origin: Arc::new(Origin::default()),
        request,
    }
}
