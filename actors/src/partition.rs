//! PartitionActor: one replica group and its branches on this node. It watches who leads. While
//! this replica does, it holds the proposer and the branch actors of that term; when it no longer
//! does, they go.
//!
//! Promise: a branch never has two actors at once, not of two terms either. A command whose branch
//! has no actor comes here, and the first one starts it; all others go straight to the branch's
//! actor, through `Activations`. What comes while an actor ends waits here for its successor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use model::{BranchKey, Catalogue, Outcome, Partition, PartitionId, Reject};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use raft::{GroupStatus, NodeFitness, TypedGroup};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::handover::Handover;
use crate::level_gate::LevelGate;
use crate::limits::{BRANCHES_PER_PARTITION_MAX, PASSIVATE_AFTER, PASSIVATION_BUFFER_MAX};
use crate::message::{BusyScope, Refusal};

pub(crate) mod activations;
pub(crate) mod applied;
pub(crate) mod branch;
pub(crate) mod branch_quota;
pub(crate) mod machine;
pub(crate) mod proposer;
mod transfer;
pub(crate) mod weight;

use activations::{Activations, BranchHandle, BranchMessage};
use applied::AppliedPartition;
use branch::{BranchActor, BranchArguments};
use branch_quota::{BranchBuckets, BranchQuota};
use machine::PartitionMachine;
use proposer::{OwnRank, Proposer, Submission};

/// How often a leader looks whether branches are idle and whether another node should lead.
const TICK: Duration = Duration::from_secs(1);
/// Messages of a partition actor.
pub(crate) enum Message {
    /// Have this decided by its branch, which has no actor that takes it.
    Submit(Submission),
    /// Leader, term or readiness changed.
    Status(GroupStatus),
    /// The catalogue changed.
    Catalogue,
    /// Time has passed.
    Tick,
    /// Give up the lead to whoever is fittest: this node is going away.
    Drain,
    /// Why this node should not lead has changed.
    Fitness,
    /// For tests: make one branch's actor fail.
    #[cfg(test)]
    PanicBranch(BranchKey),
    /// For tests: fail, as a defect would.
    #[cfg(test)]
    Panic,
    /// For tests: every branch counts as idle.
    #[cfg(test)]
    PassivateAll,
}

/// What a partition actor is spawned with.
pub(crate) struct PartitionArguments {
    pub(crate) partition: PartitionId,
    pub(crate) group: TypedGroup<PartitionMachine>,
    pub(crate) applied: Arc<AppliedPartition>,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) levels: LevelGate,
    pub(crate) handover: Handover,
    pub(crate) activations: Activations,
    pub(crate) branch_quota: BranchQuota,
}

/// Its state.
pub(crate) struct State {
    arguments: PartitionArguments,
    leadership: Option<Leadership>,
    /// The branch actors that have not ended, of this term or an earlier one, also those that take
    /// no commands any more.
    branch_actors: BTreeMap<BranchKey, SpawnedBranch>,
    /// The same, by actor.
    keys: BTreeMap<ActorId, BranchKey>,
    /// What each address may still make by writes, in this term and the next ones.
    buckets: BranchBuckets,
    draining: bool,
    transfer_tried: Option<Instant>,
    /// Branches whose definition may be missing and is to be looked at.
    definitions_due: BTreeSet<BranchKey>,
    /// The catalogue's revision up to which they are known; `None` in a term's beginning.
    definitions_known: Option<u64>,
    _watches: Vec<AbortOnDropHandle<()>>,
}

/// What a leader has for one term.
struct Leadership {
    term: u64,
    proposer: Proposer,
}

/// A branch actor that has not ended.
#[derive(Default)]
struct SpawnedBranch {
    /// What came while it ended, for its successor.
    waiting: VecDeque<Submission>,
}

pub(crate) struct PartitionActor;

impl Actor for PartitionActor {
    type Msg = Message;
    type State = State;
    type Arguments = PartitionArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        arguments: PartitionArguments,
    ) -> Result<State, ActorProcessingErr> {
        let watches = vec![
            AbortOnDropHandle::new(tokio::spawn(watch_status(
                myself.clone(),
                arguments.group.clone(),
            ))),
            AbortOnDropHandle::new(tokio::spawn(watch_catalogue(
                myself.clone(),
                arguments.catalogue.clone(),
            ))),
            AbortOnDropHandle::new(tokio::spawn(watch_fitness(
                myself.clone(),
                arguments.handover.fitness.clone(),
            ))),
            AbortOnDropHandle::new(tokio::spawn(tick(myself))),
        ];
        Ok(State {
            buckets: BranchBuckets::new(arguments.branch_quota),
            arguments,
            leadership: None,
            branch_actors: BTreeMap::new(),
            keys: BTreeMap::new(),
            draining: false,
            transfer_tried: None,
            definitions_due: BTreeSet::new(),
            definitions_known: None,
            _watches: watches,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Submit(submission) => state.submit(&myself, submission).await,
            Message::Status(status) => state.update_leadership(&status),
            Message::Catalogue => state.define_configured(),
            Message::Tick => {
                let lost = state.leadership.as_ref().is_some_and(|it| it.proposer.take_own_lost());
                if lost {
                    // Which of them is not known.
                    state.definitions_known = None;
                    state.define_configured();
                } else if !state.definitions_due.is_empty() {
                    state.define_due();
                }
                passivate(&state.arguments.activations, PASSIVATE_AFTER);
                // Again while it should not lead: a peer that has not heard of that may have given
                // the lead back, or was not fit itself before.
                state.transfer_where_due();
            }
            Message::Drain => {
                state.draining = true;
                state.transfer_where_due();
            }
            Message::Fitness => state.transfer_where_due(),
            #[cfg(test)]
            Message::PassivateAll => passivate(&state.arguments.activations, Duration::ZERO),
            #[cfg(test)]
            Message::Panic => panic!("a test asked for it"),
            #[cfg(test)]
            Message::PanicBranch(key) => {
                if let Some(actor) = state.arguments.activations.actor(&key) {
                    let _ = actor.cast(BranchMessage::Panic);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => {
                tracing::error!(partition = state.arguments.partition.0, %error, "a branch actor failed");
                metrics::counter!("mishkah_branch_actor_failures_total").increment(1);
                state.branch_actor_ended(&myself, who.get_id()).await;
            }
            SupervisionEvent::ActorTerminated(who, _, _) => {
                state.branch_actor_ended(&myself, who.get_id()).await;
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

async fn watch_status(actor: ActorRef<Message>, group: TypedGroup<PartitionMachine>) {
    let mut status = group.watch();
    let mut last = None;
    loop {
        let now = status.borrow_and_update().clone();
        let shown = (now.term, now.is_leader, now.ready, now.stopped.is_some());
        if last != Some(shown) {
            last = Some(shown);
            if actor.cast(Message::Status(now)).is_err() {
                return;
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

async fn watch_catalogue(actor: ActorRef<Message>, mut catalogue: watch::Receiver<Arc<Catalogue>>) {
    while catalogue.changed().await.is_ok() {
        if actor.cast(Message::Catalogue).is_err() {
            return;
        }
    }
}

async fn watch_fitness(actor: ActorRef<Message>, fitness: NodeFitness) {
    let mut reasons = fitness.watch();
    while reasons.changed().await.is_ok() {
        if actor.cast(Message::Fitness).is_err() {
            return;
        }
    }
}

async fn tick(actor: ActorRef<Message>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if actor.cast(Message::Tick).is_err() {
            return;
        }
    }
}

impl State {
    async fn submit(&mut self, myself: &ActorRef<Message>, submission: Submission) {
        // The first of several commands for a branch without an actor has had one started; the
        // others were on their way here by then.
        let Err(submission) = self.arguments.activations.submit(submission) else { return };
        let Some(leadership) = &self.leadership else {
            return submission.reply.answer(Err(self.not_leading()));
        };
        let key = submission.command.key.clone();
        if let Some(spawned) = self.branch_actors.get_mut(&key) {
            // Its actor takes no more commands and has not ended. A successor now would be a second
            // one at work on the same branch.
            if spawned.waiting.len() < PASSIVATION_BUFFER_MAX {
                spawned.waiting.push_back(submission);
            } else {
                submission.reply.answer(Err(Refusal::Busy { what: BusyScope::Branch }));
            }
            return;
        }
        let view = self.arguments.applied.view();
        if let Some(reject) = branch_limit_reached(&view, &key, BRANCHES_PER_PARTITION_MAX) {
            return submission.reply.answer(Ok(Outcome::Rejected(reject)));
        }
        // Only the first command for a branch comes here; those behind it find its actor.
        if view.branch(&key).is_none()
            && let catalogue = Arc::clone(&self.arguments.catalogue.borrow())
            && !is_listed(&catalogue, &key)
            && let Err(reached) = self.buckets.take(submission.requester, catalogue.partitions)
        {
            return submission.reply.answer(Err(Refusal::BranchQuota(reached)));
        }
        let handle = match spawn_branch(&self.arguments, leadership, key.clone(), myself).await {
            Ok(handle) => handle,
            Err(error) => {
                tracing::error!(%error, %key, "a branch actor did not start");
                return submission.reply.answer(Err(unavailable("the branch is starting")));
            }
        };
        self.keys.insert(handle.actor.get_id(), key.clone());
        self.branch_actors.insert(key.clone(), SpawnedBranch::default());
        self.arguments.activations.insert(key, handle);
        if let Err(submission) = self.arguments.activations.submit(submission) {
            // It has failed already: nothing was done, and the store asks again.
            submission.reply.answer(Err(unavailable("the branch is starting")));
        }
    }

    /// Why nothing is taken here.
    fn not_leading(&self) -> Refusal {
        let PartitionArguments { group, handover, .. } = &self.arguments;
        let status = group.status();
        // Elected, and no majority has room for what it lacks of the leader's log: nobody else
        // could lead either, and a caller that asks again until its deadline is not told why.
        let full = status.is_leader.then(|| handover.refusal_for_full_disks(group)).flatten();
        full.unwrap_or_else(|| Refusal::NotLeader { hint: status.leader.map(|(_, node)| node) })
    }

    fn update_leadership(&mut self, status: &GroupStatus) {
        let term = status.ready.then_some(status.term);
        if self.leadership.as_ref().map(|leadership| leadership.term) == term {
            return;
        }
        if let Some(former) = self.leadership.take() {
            tracing::info!(
                partition = self.arguments.partition.0,
                term = former.term,
                "no longer leads"
            );
            // Out of the map before anything of a new term is put in. What is queued at these
            // actors is dropped with them: their proposer is fenced by the former term, so none of
            // it could be taken any more, and the store asks the next leader under the same id.
            let former = self.arguments.activations.take_all();
            former.iter().for_each(|handle| handle.actor.stop(None));
        }
        if let Some(term) = term {
            tracing::info!(partition = self.arguments.partition.0, term, "leads");
            let applied = Arc::clone(&self.arguments.applied);
            let proposer = Proposer::start(
                self.arguments.group.clone(),
                term,
                applied,
                self.arguments.levels.clone(),
                self.arguments.handover.clone(),
            );
            self.leadership = Some(Leadership { term, proposer });
            self.definitions_known = None;
            self.define_configured();
        }
    }

    /// Configured branches exist without being written to: their definition and seed go into the
    /// log as soon as this replica leads, and again when the catalogue changes them. Once all were
    /// looked at, only those are that a change concerns.
    fn define_configured(&mut self) {
        if self.leadership.is_none() {
            return;
        }
        let catalogue = Arc::clone(&self.arguments.catalogue.borrow());
        let known = self.definitions_known.replace(catalogue.revision);
        let view = self.arguments.applied.view();
        let partition = self.arguments.partition;
        let is_here = |key: &BranchKey| catalogue.partition_of(key) == Some(partition);
        let keys = concerned(&catalogue, &view, known);
        self.definitions_due.extend(keys.filter(is_here));
        self.define_due();
    }

    /// Straight to the proposer: an actor for each branch of the catalogue would be started for
    /// nothing else. What the queue has no place for is for the next tick.
    fn define_due(&mut self) {
        let Some(leadership) = &self.leadership else { return self.definitions_due.clear() };
        let mut again = Vec::new();
        while let Some(key) = self.definitions_due.pop_first() {
            // The newest for each: a branch's actor may have followed a newer one meanwhile.
            let catalogue = Arc::clone(&self.arguments.catalogue.borrow());
            // Asked before the branch is looked at: what is applied in between is seen there.
            let was_under_way = leadership.proposer.is_own_under_way(&key);
            let (applied, term) = (&self.arguments.applied, leadership.proposer.term());
            let due = branch::missing_definition(&key, &catalogue, applied, term);
            if due.is_empty() {
                // What is on its way may be of a definition that was taken back.
                if leadership.proposer.withdraw_own(&key, catalogue.revision) || was_under_way {
                    again.push(key);
                }
                continue;
            }
            let (proposer, revision) = (&leadership.proposer, catalogue.revision);
            if proposer.enqueue_own(&key, revision, due, OwnRank::Usual).is_err() {
                self.definitions_due.insert(key);
                break;
            }
        }
        self.definitions_due.extend(again);
    }

    /// A branch actor has ended: what waited for that goes to its successor.
    async fn branch_actor_ended(&mut self, myself: &ActorRef<Message>, id: ActorId) {
        let Some(key) = self.keys.remove(&id) else { return };
        // One that failed is still in the map.
        self.arguments.activations.remove(&key, id);
        let Some(spawned) = self.branch_actors.remove(&key) else { return };
        for submission in spawned.waiting {
            self.submit(myself, submission).await;
        }
    }
}

/// The branches, of all partitions, whose definition may be another than at this revision of the
/// catalogue: those of a module or branch that changed since; all of them where it is not known
/// what changed. A branch that came into being by being written to follows its module as well.
fn concerned<'a>(
    catalogue: &'a Catalogue,
    view: &'a Partition,
    known: Option<u64>,
) -> Box<dyn Iterator<Item = BranchKey> + 'a> {
    let written = view.branches().map(|branch| branch.key().clone());
    let Some(changed) = known.and_then(|revision| catalogue.changed_since(revision)) else {
        return Box::new(catalogue.configured().chain(written));
    };
    let branches = changed.branches.into_iter().flat_map(move |id| {
        let modules = catalogue.branch(&id).map(|branch| catalogue.modules_configured(branch));
        modules.into_iter().flatten().collect::<Vec<_>>()
    });
    if changed.modules.is_empty() {
        return Box::new(branches);
    }
    // By module: to look at all branches would hold up the cluster's thread for a module that few
    // have, in each partition that this node leads.
    let of_modules = changed.modules.into_iter().flat_map(move |module| {
        let listed = catalogue.configured_of(&module).collect::<Vec<_>>();
        listed.into_iter().chain(view.keys_of(&module).collect::<Vec<_>>())
    });
    Box::new(branches.chain(of_modules))
}

/// Asks the actors of branches without work for this long to go to sleep. They decide: a command
/// may be on its way to one. The next command starts an actor anew.
fn passivate(activations: &Activations, idle_for: Duration) {
    for actor in activations.idle(idle_for) {
        // One that has ended sleeps already.
        let _ = actor.cast(BranchMessage::Passivate { idle_for });
    }
}

/// Whether a branch that does not exist yet would be one too many.
fn branch_limit_reached(view: &Partition, key: &BranchKey, most: usize) -> Option<Reject> {
    let full = view.branch(key).is_none() && view.branch_count() >= most;
    full.then(|| Reject::BadCommand {
        message: format!(
            "{key} does not exist, and its partition holds {most} branches, the most it may"
        ),
    })
}

/// Whether the catalogue lists a branch: it is made whether it is written to or not.
fn is_listed(catalogue: &Catalogue, key: &BranchKey) -> bool {
    let listed = catalogue.branch(&key.branch);
    let mut keys = listed.into_iter().flat_map(|branch| catalogue.modules_configured(branch));
    keys.any(|listed| listed == *key)
}

async fn spawn_branch(
    arguments: &PartitionArguments,
    leadership: &Leadership,
    key: BranchKey,
    myself: &ActorRef<Message>,
) -> Result<BranchHandle, ractor::SpawnErr> {
    let admission = arguments.activations.admission();
    let arguments = BranchArguments {
        key,
        proposer: leadership.proposer.clone(),
        applied: Arc::clone(&arguments.applied),
        catalogue: arguments.catalogue.clone(),
        admission: Arc::clone(&admission),
        activations: arguments.activations.clone(),
    };
    let (actor, _) = Actor::spawn_linked(None, BranchActor, arguments, myself.get_cell()).await?;
    Ok(BranchHandle::new(actor, admission))
}

fn unavailable(reason: &str) -> Refusal {
    Refusal::Unavailable { reason: reason.to_owned(), retry_after: Duration::from_millis(100) }
}

#[cfg(test)]
mod tests {
    use model::{BranchId, ModuleId};

    use super::*;

    #[test]
    fn writes_make_only_so_many_branches() {
        let key = BranchKey::new(BranchId::parse("dar").unwrap(), ModuleId::parse("pos").unwrap());
        let view = Partition::default();
        assert_eq!(branch_limit_reached(&view, &key, 1), None);
        let refused = branch_limit_reached(&view, &key, 0).unwrap().to_string();
        assert!(refused.contains("holds 0 branches, the most it may"), "{refused}");
    }
}
