//! Proposer: the only writer of a partition's log. It stamps, puts the commands of many branches
//! into one entry, proposes it, and sends each caller the outcome.
//!
//! Promises:
//! - the commands of one client for one branch enter the log in the order they were handed in;
//!   those of different clients take turns by weight (`fair_queue.rs`), and the leader's own come
//!   first;
//! - a large command goes into the log in pieces, those of others in between (`long.rs`);
//! - everything of one proposer is fenced by one term: once the leader has changed, nothing of it
//!   can be taken any more.
//!
//! Refused: a command of a level that the cluster has not agreed on.

mod long;
mod own_queue;
mod queue;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::mutant::{self, Mutant};
use model::{AppliedCommand, Batch, BranchKey, Command, Outcome, Reject};
use parking_lot::Mutex;
use raft::{ProposeError, ScanLimit, TypedGroup};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::long::LongProposer;
pub(crate) use self::own_queue::OwnRank;
use self::queue::{BatchBuilder, Queue, QueueEnd};
use super::applied::AppliedPartition;
use super::machine::PartitionMachine;
use super::weight::CommandCost;
use crate::handover::Handover;
use crate::level_gate::LevelGate;
use crate::message::Refusal;
use crate::offload::offload;
use crate::shares::{Requester, Share};

/// Where a command's outcome goes, and what is held until it is known.
pub(crate) struct OutcomeSender {
    answer: oneshot::Sender<Result<Outcome, Refusal>>,
    shares: Vec<Share>,
}

impl OutcomeSender {
    /// A caller that waits. The share bounds what waits on this node.
    pub(crate) fn new(share: Share) -> (Self, oneshot::Receiver<Result<Outcome, Refusal>>) {
        let (answer, outcome) = oneshot::channel();
        (Self { answer, shares: vec![share] }, outcome)
    }

    /// Holds one more share until the outcome is known.
    pub(crate) fn hold(&mut self, share: Share) {
        self.shares.push(share);
    }

    /// Whether nobody waits for the outcome any more.
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Answers the caller; one that left needs no answer.
    pub(crate) fn answer(self, outcome: Result<Outcome, Refusal>) {
        // First: a caller that asks again as soon as it is answered must find its place free.
        drop(self.shares);
        let _ = self.answer.send(outcome);
    }
}

/// A command, whose it is, and who waits for its outcome.
pub(crate) struct Submission {
    pub(crate) requester: Requester,
    pub(crate) cost: CommandCost,
    pub(crate) command: Command,
    pub(crate) reply: OutcomeSender,
}

/// The way to a partition's proposer. Dropping the last one ends it: callers that still wait are
/// told that their outcome is unknown.
#[derive(Clone)]
pub(crate) struct Proposer {
    term: u64,
    queue: Arc<Queue>,
    applied: Arc<AppliedPartition>,
    levels: LevelGate,
    _tasks: Arc<[AbortOnDropHandle<()>; 2]>,
}

impl Proposer {
    /// Starts proposing for the term this node leads.
    pub(crate) fn start(
        group: TypedGroup<PartitionMachine>,
        term: u64,
        applied: Arc<AppliedPartition>,
        levels: LevelGate,
        handover: Handover,
    ) -> Self {
        let queue = Arc::new(Queue::default());
        // Of the term before; this one's commands for its branch would hold up all others where
        // they are applied.
        queue.hold(applied.under_way());
        let elapsed = ElapsedTime::default();
        let long = LongProposer {
            elapsed: elapsed.clone(),
            group: group.clone(),
            term,
            applied: Arc::clone(&applied),
            levels: levels.clone(),
            handover: handover.clone(),
            queue: Arc::clone(&queue),
        };
        let work = ProposerTask {
            group,
            term,
            applied: Arc::clone(&applied),
            levels: levels.clone(),
            elapsed,
            handover,
        };
        let work = work.run(QueueEnd(Arc::clone(&queue)));
        let tasks = [tokio::spawn(work), tokio::spawn(long.run())].map(AbortOnDropHandle::new);
        Self { term, queue, applied, levels, _tasks: Arc::new(tasks) }
    }

    /// The term for which it proposes.
    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    /// Hands a client's command in. Never waits: where it cannot be taken, whoever waits for it is
    /// told at once.
    pub(crate) fn enqueue(&self, submission: Submission) {
        // Here and not when it is stamped: what may be written now may be written when its turn
        // comes.
        if let Err(refusal) = self.levels.check(&submission.command) {
            return submission.reply.answer(Err(refusal));
        }
        let is_long = long::is_long(&submission, &self.applied);
        if let Err(submission) = self.queue.push(submission, is_long) {
            // The term is over and the task with it; the command was never proposed.
            submission.reply.answer(Err(Refusal::NotLeader { hint: None }));
        }
    }

    /// Hands in what a branch lacks by a catalogue of this revision, in place of what was handed in
    /// before. Needed: a client's command that is handed in next comes behind it; else clients'
    /// commands take turns with it. Whether some did not come into the log,
    /// [`Proposer::take_own_lost`] says.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(crate) fn enqueue_own(
        &self,
        key: &BranchKey,
        revision: u64,
        lacks: Vec<Command>,
        rank: OwnRank,
    ) -> Result<(), Refusal> {
        lacks.iter().try_for_each(|command| self.levels.check(command))?;
        let is_long = long::is_large(&self.applied, key);
        self.queue.push_own(key.clone(), revision, lacks, (rank, is_long))
    }

    /// Whether something that may change a branch's definition is on its way into the log.
    pub(crate) fn is_own_under_way(&self, key: &BranchKey) -> bool {
        self.queue.is_own_under_way(key)
    }

    /// A branch lacks nothing by a catalogue of this revision: what was handed in for it is taken
    /// back. `true`: it has to be looked at again.
    pub(crate) fn withdraw_own(&self, key: &BranchKey, revision: u64) -> bool {
        self.queue.withdraw_own(key, revision)
    }

    /// Whether some of the leader's own commands did not come into the log since this was asked
    /// last: what they were to do has to be looked at again.
    pub(crate) fn take_own_lost(&self) -> bool {
        self.queue.own_lost.swap(false, Ordering::Relaxed)
    }
}

struct ProposerTask {
    group: TypedGroup<PartitionMachine>,
    term: u64,
    applied: Arc<AppliedPartition>,
    levels: LevelGate,
    handover: Handover,
    elapsed: ElapsedTime,
}

/// The monotonic time between the entries of one proposer. Clones are the same.
#[derive(Clone, Default)]
struct ElapsedTime(Arc<Mutex<Option<Instant>>>);

impl ElapsedTime {
    /// Since this was asked last; `None` at first. Nothing is told of the time before a term: log
    /// uptime counts only while a leader ran, so that a wall clock set forward expires nothing.
    fn take(&self) -> Option<Duration> {
        let now = Instant::now();
        self.0.lock().replace(now).map(|last| now - last)
    }
}

/// Milliseconds, as entries have them.
fn millis(elapsed: Option<Duration>) -> u64 {
    u64::try_from(elapsed.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

impl ProposerTask {
    async fn run(mut self, queue: QueueEnd) {
        // One entry at a time: what comes while it is on its way is in the next one. So batches
        // grow by themselves under load, a command alone waits for no companions, and the order in
        // which the queue gives them is the order of the log. Ends with the last `Proposer`.
        loop {
            let builder = queue.next(|| self.group.is_store_busy()).await;
            let has_own = builder.has_own();
            if !self.propose(builder).await && has_own {
                queue.0.own_lost.store(true, Ordering::Relaxed);
            }
            queue.0.finish_batch();
        }
    }

    /// Proposes an entry and answers those who wait. `false`: as far as is known it is not in the
    /// log.
    async fn propose(&mut self, builder: BatchBuilder) -> bool {
        let BatchBuilder { commands, mut replies, bytes, .. } = builder;
        if let Some(refusal) = self.handover.refusal_for_full_disks(&self.group) {
            refuse(replies, &refusal);
            return false;
        }
        metrics::histogram!("mishkah_batch_commands").record(commands.len() as f64);
        // Stamped once, here: replicas that apply the entry read no clock and draw no numbers, so
        // that they cannot differ.
        let batch = self.stamp(commands);
        if mutant::is(Mutant::AcknowledgeBeforeCommit) {
            let applied = model::Partition::clone(&self.applied.view()).apply(&batch);
            answer(&self.applied, &applied, std::mem::take(&mut replies));
        }
        // Encoded once, also for the followers; large entries beside the thread of the heartbeats.
        let entry = offload(bytes, move || batch.encode()).into();
        // Fenced by the term: an entry of this proposer must not come into the log of a later term,
        // even of this very node, because the leaders in between may have decided
        // what it was not stamped after.
        let result = self.group.propose(Some(self.term), entry).await;
        let refusal = match result {
            Ok(entry) => {
                answer(&self.applied, &entry.response, replies);
                return true;
            }
            Err(error) => {
                if !matches!(error, ProposeError::NotLeader { .. }) {
                    tracing::debug!(group = self.group.id().0, %error, "a proposal has no outcome");
                }
                self.handover.refusal(error, &self.group)
            }
        };
        refuse(replies, &refusal);
        false
    }

    fn stamp(&mut self, commands: Vec<Command>) -> Batch {
        let elapsed = self.elapsed.take();
        let mut entropy = *random().as_bytes();
        if mutant::is(Mutant::ReuseSequenceNumberAfterFailover) && elapsed.is_none() {
            entropy[..8].copy_from_slice(&mutant::FIRST_OF_TERM);
        }
        // No command needs more: `enqueue` has refused those.
        let level = self.levels.writing_level();
        #[cfg(feature = "next-level")]
        let commands = at_next_level(level, commands);
        Batch {
            level,
            stamped: self.handover.clock.now(),
            elapsed_ms: millis(elapsed),
            entropy,
            commands,
        }
    }
}

/// Tells those who wait what their commands came to.
fn answer(
    partition: &Arc<AppliedPartition>,
    applied: &[AppliedCommand],
    replies: Vec<(usize, OutcomeSender)>,
) {
    for (place, reply) in replies {
        // The machine answers every command, so this is a defect; the command was decided all
        // the same, and the caller learns how under the same id.
        let Some(applied) = applied.get(place) else {
            reply.answer(Err(Refusal::Indeterminate));
            continue;
        };
        match (&applied.outcome, applied.repeated_at) {
            // The definition was refused, or was lost and is in a later entry. Nothing was done, so
            // this is no outcome of the command.
            (Outcome::Rejected(Reject::Undefined), _) => {
                reply.answer(Err(Refusal::Unavailable {
                    reason: "this module's definition is on its way".to_owned(),
                    retry_after: Duration::from_millis(20),
                }));
            }
            (outcome, None) => {
                reply.answer(Ok(outcome.clone()));
            }
            (_, Some(_)) => answer_from_store(partition, applied.clone(), reply),
        }
    }
}

/// A command decided so long ago that its events left memory: they are read back.
fn answer_from_store(
    partition: &Arc<AppliedPartition>,
    applied: AppliedCommand,
    reply: OutcomeSender,
) {
    let partition = Arc::clone(partition);
    // A task of its own: reading the disk must not hold up the answers and entries behind it.
    tokio::spawn(raft::blocking(move || {
        reply.answer(repeated_outcome(&partition, applied));
    }));
}

/// One entry, one fate: what is not known of the entry is not known of any command in it.
fn refuse(replies: Vec<(usize, OutcomeSender)>, refusal: &Refusal) {
    for (_, reply) in replies {
        reply.answer(Err(refusal.clone()));
    }
}

/// What only the next level can say, where the cluster has agreed on it.
#[cfg(feature = "next-level")]
fn at_next_level(level: u16, mut commands: Vec<Command>) -> Vec<Command> {
    use model::Request;
    for command in commands.iter_mut().filter(|_| level >= model::codec::NEXT_LEVEL) {
        if let Request::Reserve(reserve) = &command.request {
            command.request = Request::ReserveAtNextLevel(reserve.clone());
        }
    }
    commands
}

fn repeated_outcome(
    partition: &AppliedPartition,
    mut applied: AppliedCommand,
) -> Result<Outcome, Refusal> {
    let Some((first, count)) = applied.repeated_at else { return Ok(applied.outcome) };
    // Offsets begin with 1.
    let after = model::Offset(first.0 - 1);
    let events = partition.stored_events(&applied.key, after, ScanLimit::rows(count as usize))?;
    // The store is written behind the machine, or is just being rebuilt: fewer events would be a
    // wrong answer, so the caller asks again.
    if events.len() < count as usize {
        return Err(Refusal::Unavailable {
            reason: "the answer to this earlier request is not readable yet".to_owned(),
            retry_after: Duration::from_secs(1),
        });
    }
    if let Outcome::Accepted(accepted) = &mut applied.outcome {
        Arc::make_mut(&mut accepted.delta).events = events;
    }
    Ok(applied.outcome)
}

/// A number nobody can foresee.
pub(crate) fn random() -> uuid::Uuid {
    #[cfg(any(test, feature = "simulation"))]
    if let (Some(high), Some(low)) = (raft::simulated::next_u64(), raft::simulated::next_u64()) {
        return uuid::Uuid::from_u64_pair(high, low);
    }
    uuid::Uuid::new_v4()
}
