//! PartitionActor: one replica group and its branches on this node. It watches who leads. While
//! this replica does, it holds the proposer and the branch actors of that term; when it no longer
//! does, they go. Branch actors are reached through it alone, so that none is spoken to while it
//! is being stopped.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use model::{BranchKey, Catalogue, Outcome, Partition, PartitionId, Reject};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use raft::{GroupStatus, ReplicaGroup};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::branch::{self, BranchActor, BranchArguments, Submission};
use crate::limits::{BRANCHES_PER_PARTITION_MAX, PASSIVATE_AFTER, PASSIVATION_BUFFER_MAX};
use crate::liveness::PeerLiveness;
use crate::message::{BusyScope, Refusal};

pub(crate) mod machine;
pub(crate) mod proposer;

use machine::AppliedPartition;
use proposer::{Proposal, Proposer};

/// How often a leader looks whether branches are idle and whether another node should lead.
const TICK: Duration = Duration::from_secs(1);
/// A preferred leader must have been reachable this long before it is given the lead back.
const PREFERRED_UP_FOR: Duration = Duration::from_secs(10);
/// A preferred leader may lack at most this many entries.
const PREFERRED_LAG_MAX: u64 = 64;
/// After a transfer was tried, it is not tried again for this long.
const TRANSFER_PAUSE: Duration = Duration::from_secs(60);

/// What a partition actor is told.
pub(crate) enum Message {
    /// Have this decided by its branch.
    Submit(Submission),
    /// Leader, term or readiness changed.
    Status(GroupStatus),
    /// The catalogue changed.
    Catalogue,
    /// Time has passed.
    Tick,
    /// Give up the lead to whoever is fittest: this node is going away.
    Drain,
    /// For tests: make one branch's actor fail.
    #[cfg(test)]
    PanicBranch(BranchKey),
    /// For tests: every branch counts as idle.
    #[cfg(test)]
    PassivateAll,
}

/// What a partition actor is started with.
pub(crate) struct PartitionArguments {
    pub(crate) partition: PartitionId,
    pub(crate) group: ReplicaGroup,
    pub(crate) applied: Arc<AppliedPartition>,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) liveness: Arc<PeerLiveness>,
}

/// Its state.
pub(crate) struct State {
    arguments: PartitionArguments,
    leadership: Option<Leadership>,
    /// Actors that were told to stop, by actor: what has come for their branch since.
    stopping: BTreeMap<ActorId, PassivatingBranch>,
    draining: bool,
    transfer_tried: Option<Instant>,
    _watches: Vec<AbortOnDropHandle<()>>,
}

struct Leadership {
    term: u64,
    proposer: Proposer,
    branches: BTreeMap<BranchKey, Activation>,
}

struct Activation {
    actor: ActorRef<branch::Message>,
    used: Instant,
}

struct PassivatingBranch {
    key: BranchKey,
    buffered: VecDeque<Submission>,
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
            AbortOnDropHandle::new(tokio::spawn(tick(myself))),
        ];
        Ok(State {
            arguments,
            leadership: None,
            stopping: BTreeMap::new(),
            draining: false,
            transfer_tried: None,
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
                state.passivate(PASSIVATE_AFTER);
                if state.draining {
                    state.transfer_to_fittest(); // What it was given back in the meantime.
                } else {
                    state.transfer_to_preferred();
                }
            }
            Message::Drain => {
                state.draining = true;
                state.transfer_to_fittest();
            }
            #[cfg(test)]
            Message::PassivateAll => state.passivate(Duration::ZERO),
            #[cfg(test)]
            Message::PanicBranch(key) => {
                if let Some(active) = state.leadership.as_ref().and_then(|l| l.branches.get(&key)) {
                    let _ = active.actor.cast(branch::Message::Panic);
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

async fn watch_status(actor: ActorRef<Message>, group: ReplicaGroup) {
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
        let key = &submission.command.key;
        if let Some(stopping) = self.stopping.values_mut().find(|stopping| stopping.key == *key) {
            if stopping.buffered.len() < PASSIVATION_BUFFER_MAX {
                stopping.buffered.push_back(submission);
            } else {
                submission.reply.answer(Err(Refusal::Busy { what: BusyScope::Branch }));
            }
            return;
        }
        let Some(leadership) = &mut self.leadership else {
            let hint = self.arguments.group.status().leader.map(|(_, node)| node);
            return submission.reply.answer(Err(Refusal::NotLeader { hint }));
        };
        if !leadership.branches.contains_key(key) {
            if let Some(reject) = branch_limit_reached(
                &self.arguments.applied.view(),
                key,
                BRANCHES_PER_PARTITION_MAX,
            ) {
                return submission.reply.answer(Ok(Outcome::Rejected(reject)));
            }
            let actor = match activate(&self.arguments, leadership, key.clone(), myself).await {
                Ok(actor) => actor,
                Err(error) => {
                    tracing::error!(%error, %key, "a branch actor did not start");
                    return submission.reply.answer(Err(unavailable("the branch is starting")));
                }
            };
            leadership.branches.insert(key.clone(), Activation { actor, used: Instant::now() });
        }
        let active = leadership.branches.get_mut(key).expect("inserted above");
        active.used = Instant::now();
        // An actor that just failed drops the message: its caller asks again, same id.
        let _ = active.actor.cast(branch::Message::Submit(submission));
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
            former.branches.values().for_each(|active| active.actor.stop(None));
        }
        if let Some(term) = term {
            tracing::info!(partition = self.arguments.partition.0, term, "leads");
            let applied = Arc::clone(&self.arguments.applied);
            let proposer = Proposer::start(
                self.arguments.group.clone(),
                term,
                applied,
                self.arguments.catalogue.clone(),
            );
            self.leadership = Some(Leadership { term, proposer, branches: BTreeMap::new() });
            self.define_configured();
        }
    }

    /// Configured branches exist without being written to: their definition and seed go into the
    /// log as soon as somebody leads, and again when the catalogue changes them.
    fn define_configured(&self) {
        let Some(leadership) = &self.leadership else { return };
        let catalogue = Arc::clone(&self.arguments.catalogue.borrow());
        // A branch that came into being by being written to follows its module as well.
        let view = self.arguments.applied.view();
        let mut keys: BTreeSet<model::BranchKey> = catalogue.configured().collect();
        keys.extend(view.branches().map(|branch| branch.key().clone()));
        for key in keys {
            if catalogue.partition_of(&key) != Some(self.arguments.partition) {
                continue;
            }
            let mut due = branch::missing_definition(&key, &catalogue, &self.arguments.applied);
            if let Some(command) = due.pop() {
                leadership.proposer.enqueue(Proposal { prerequisites: due, command, reply: None });
            }
        }
    }

    /// Ends the actors of branches without work for this long. They begin again when asked.
    fn passivate(&mut self, idle_for: Duration) {
        let Some(leadership) = &mut self.leadership else { return };
        let idle: Vec<_> = leadership
            .branches
            .iter()
            .filter(|(_, active)| active.used.elapsed() >= idle_for)
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            let Some(active) = leadership.branches.remove(&key) else { continue };
            // What is queued is still handled; what comes from now on is buffered.
            if active.actor.drain().is_ok() {
                let stopping = PassivatingBranch { key, buffered: VecDeque::new() };
                self.stopping.insert(active.actor.get_id(), stopping);
            }
        }
    }

    /// Leaders follow the placement: if another node should lead and can, it is asked to.
    fn transfer_to_preferred(&mut self) {
        let catalogue = Arc::clone(&self.arguments.catalogue.borrow());
        let Some(placement) = catalogue.placements.get(&self.arguments.partition) else { return };
        if self.leadership.is_none() {
            return;
        }
        let preferred = placement.preferred;
        let status = self.arguments.group.status();
        let node = placement.preferred_node();
        let fit = preferred != status.replica
            && node.is_some_and(|node| {
                let liveness = &self.arguments.liveness;
                liveness.may_lead(node) && liveness.up_for(node) >= PREFERRED_UP_FOR
            })
            && status.members.get(&preferred).is_some_and(|(_, voter)| *voter)
            && status.lag.get(&preferred).is_some_and(|lag| *lag <= PREFERRED_LAG_MAX)
            && self.transfer_tried.is_none_or(|at| at.elapsed() >= TRANSFER_PAUSE);
        if fit {
            self.transfer(preferred);
        }
    }

    /// Asks the fittest other replica to lead, if this one does.
    fn transfer_to_fittest(&mut self) {
        let status = self.arguments.group.status();
        let fittest = status
            .members
            .iter()
            .filter(|(replica, (_, voter))| *voter && **replica != status.replica)
            .filter(|(_, (node, _))| self.arguments.liveness.may_lead(*node))
            .filter_map(|(replica, _)| Some((status.lag.get(replica)?, *replica)))
            .min();
        if let (true, Some((_, replica))) = (status.is_leader, fittest) {
            self.transfer(replica);
        }
    }

    fn transfer(&mut self, to: model::ReplicaId) {
        self.transfer_tried = Some(Instant::now());
        let (group, partition) = (self.arguments.group.clone(), self.arguments.partition);
        tokio::spawn(async move {
            match group.transfer_leader(to).await {
                Ok(()) => {
                    tracing::info!(
                        partition = partition.0,
                        replica = to.0,
                        "asked another replica to lead"
                    )
                }
                Err(error) => {
                    tracing::warn!(partition = partition.0, %error, "the lead could not be given away")
                }
            }
        });
    }

    /// A branch actor has ended: what was buffered for it goes to its successor.
    async fn branch_actor_ended(&mut self, myself: &ActorRef<Message>, id: ActorId) {
        if let Some(leadership) = &mut self.leadership {
            leadership.branches.retain(|_, active| active.actor.get_id() != id);
        }
        if let Some(stopping) = self.stopping.remove(&id) {
            for submission in stopping.buffered {
                self.submit(myself, submission).await;
            }
        }
    }
}

/// Whether a branch that does not exist yet would be one too many.
fn branch_limit_reached(view: &Partition, key: &BranchKey, most: usize) -> Option<Reject> {
    let full = view.branch(key).is_none() && view.branches().count() >= most;
    full.then(|| Reject::BadCommand {
        message: format!(
            "{key} does not exist, and its partition holds {most} branches, the most it may"
        ),
    })
}

async fn activate(
    arguments: &PartitionArguments,
    leadership: &Leadership,
    key: BranchKey,
    myself: &ActorRef<Message>,
) -> Result<ActorRef<branch::Message>, ractor::SpawnErr> {
    let arguments = BranchArguments {
        key,
        proposer: leadership.proposer.clone(),
        applied: Arc::clone(&arguments.applied),
        catalogue: arguments.catalogue.clone(),
    };
    let (actor, _) = Actor::spawn_linked(None, BranchActor, arguments, myself.get_cell()).await?;
    Ok(actor)
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
