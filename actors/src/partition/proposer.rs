//! Proposer: the only writer of a partition's log. It stamps, puts the commands of many branches
//! into one entry, proposes it, and sends each caller the outcome.
//!
//! Promise: commands enter the log in the order they were handed in. Everything of one proposer
//! is fenced by one term: once the leader has changed, nothing of it can be taken any more.
//! Refused: a command of a level that the cluster has not agreed on.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::mutant::{self, Mutant};
use model::{AppliedCommand, Batch, Command, Outcome, Reject, Timestamp};
use raft::{ProposeError, TypedGroup};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::machine::{AppliedPartition, PartitionMachine};
use crate::level_gate::LevelGate;
use crate::limits::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, NODE_PERMITS};
use crate::message::{BusyScope, Refusal};
use crate::offload::offload;

/// Where a command's outcome goes, and what is held until it is known.
pub(crate) struct OutcomeSender {
    answer: oneshot::Sender<Result<Outcome, Refusal>>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl OutcomeSender {
    /// A caller that waits. The permit bounds what waits on this node.
    pub(crate) fn new(
        permit: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<Result<Outcome, Refusal>>) {
        let (answer, outcome) = oneshot::channel();
        (Self { answer, permits: vec![permit] }, outcome)
    }

    /// Holds one more permit until the outcome is known.
    pub(crate) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.permits.push(permit);
    }

    /// Answers the caller; one that left needs no answer.
    pub(crate) fn answer(self, outcome: Result<Outcome, Refusal>) {
        // First: a caller that asks again as soon as it is answered must find its place free.
        drop(self.permits);
        let _ = self.answer.send(outcome);
    }
}

/// A command on its way into the log, after those it needs (its branch's definition and seed).
pub(crate) struct Proposal {
    pub(crate) prerequisites: Vec<Command>,
    pub(crate) command: Command,
    pub(crate) reply: Option<OutcomeSender>,
}

/// The way to a partition's proposer. Dropping the last one ends it: callers that still wait are
/// told that their outcome is unknown.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    levels: LevelGate,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Proposer {
    /// Starts proposing for the term this node leads.
    pub(crate) fn start(
        group: TypedGroup<PartitionMachine>,
        term: u64,
        applied: Arc<AppliedPartition>,
        levels: LevelGate,
    ) -> Self {
        let (queue, incoming) = mpsc::channel(NODE_PERMITS);
        let work = ProposerTask { group, term, applied, levels: levels.clone(), stamped: None };
        let task = tokio::spawn(work.run(incoming));
        Self { queue, levels, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Hands a command in; whether it was taken. Never waits: where the queue is full, whoever
    /// waits for the command is told at once.
    pub(crate) fn enqueue(&self, proposal: Proposal) -> bool {
        // Here and not when it is stamped: what may be written now may be written when its turn
        // comes.
        let (proposal, refusal) = match proposal.check(&self.levels) {
            Err(refusal) => (proposal, refusal),
            Ok(()) => match self.queue.try_send(proposal) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Full(proposal)) => {
                    (proposal, Refusal::Busy { what: BusyScope::Node })
                }
                // The term is over and the task with it; the entry was never proposed.
                Err(mpsc::error::TrySendError::Closed(proposal)) => {
                    (proposal, Refusal::NotLeader { hint: None })
                }
            },
        };
        // Nobody waits for what a leader proposes by itself: the caller proposes it again.
        if let Some(reply) = proposal.reply {
            reply.answer(Err(refusal));
        }
        false
    }
}

impl Proposal {
    /// Whether all of it may be written now.
    fn check(&self, levels: &LevelGate) -> Result<(), Refusal> {
        let mut commands = self.prerequisites.iter().chain([&self.command]);
        commands.try_for_each(|command| levels.check(command))
    }
}

struct ProposerTask {
    group: TypedGroup<PartitionMachine>,
    term: u64,
    applied: Arc<AppliedPartition>,
    levels: LevelGate,
    /// When the last batch was stamped, on the monotonic clock.
    stamped: Option<Instant>,
}

/// The commands of one entry and who waits for which of them.
#[derive(Default)]
struct BatchBuilder {
    commands: Vec<Command>,
    replies: Vec<(usize, OutcomeSender)>,
    bytes: usize,
}

impl BatchBuilder {
    fn add(&mut self, proposal: Proposal) {
        // All of a proposal, also where that is more than a batch should hold: with an entry's end
        // between a definition and the command that needs it, one could be lost without the other.
        for command in proposal.prerequisites.into_iter().chain([proposal.command]) {
            self.bytes += rough_bytes(&command);
            self.commands.push(command);
        }
        if let Some(reply) = proposal.reply {
            // The last command is the caller's; nobody waits for its prerequisites.
            self.replies.push((self.commands.len() - 1, reply));
        }
    }

    fn takes_more(&self) -> bool {
        self.commands.len() < BATCH_COMMANDS_MAX && self.bytes < BATCH_BYTES_MAX
    }
}

/// A command's size, near enough to bound a batch: exact sizes would cost a second encoding.
pub(crate) fn rough_bytes(command: &Command) -> usize {
    match &command.request {
        model::Request::Transaction(transaction) => {
            let record = |record: &model::Object| 64 + 48 * record.len();
            let sizes = transaction.mutations.iter().map(|mutation| match mutation {
                model::Mutation::Record(mutation) => record(&mutation.record),
                model::Mutation::ReplaceChildren(children) => {
                    64 + children.rows.iter().map(record).sum::<usize>()
                }
            });
            sizes.sum()
        }
        model::Request::Define(_) | model::Request::Fill(_) | model::Request::Seed(_) => 64 * 1024,
        model::Request::Reserve(_) => 128,
        #[cfg(feature = "next-level")]
        model::Request::ReserveAtNextLevel(_) => 128,
        model::Request::SetSequence(_) => 1024,
        model::Request::Call(call) => 128 + call.arguments.len(),
        model::Request::Reset(_) => 64 * 1024,
        model::Request::Replace(replace) => rough_rows(&replace.tables),
        model::Request::Purge(_) | model::Request::Restore(_) => 512,
    }
}

/// Large tables go alone: an entry must not hold up a heartbeat.
fn rough_rows(tables: &model::Object) -> usize {
    let rows = |value: &model::Value| value.as_array().map_or(1, <[model::Value]>::len);
    tables.iter().map(|(_, value)| 512 * rows(value)).sum()
}

impl ProposerTask {
    async fn run(mut self, mut incoming: mpsc::Receiver<Proposal>) {
        // One entry at a time: what comes while it is on its way is in the next one. So batches
        // grow by themselves under load, a command alone waits for no companions, and the order of
        // the queue is the order of the log.
        while let Some(first) = incoming.recv().await {
            let mut builder = BatchBuilder::default();
            builder.add(first);
            while builder.takes_more() {
                match incoming.try_recv() {
                    Ok(proposal) => builder.add(proposal),
                    Err(_) => break,
                }
            }
            self.propose(builder).await;
        }
    }

    async fn propose(&mut self, builder: BatchBuilder) {
        let BatchBuilder { commands, mut replies, bytes } = builder;
        metrics::histogram!("mishkah_batch_commands").record(commands.len() as f64);
        // Stamped once, here: replicas that apply the entry read no clock and draw no numbers, so
        // that they cannot differ.
        let batch = self.stamp(commands);
        if mutant::is(Mutant::AcknowledgeBeforeCommit) {
            let applied = model::Partition::clone(&self.applied.view()).apply(&batch);
            self.answer(&applied, std::mem::take(&mut replies));
        }
        // Encoded once, also for the followers; large entries beside the thread of the heartbeats.
        let entry = offload(bytes, move || batch.encode()).into();
        // Fenced by the term: an entry of this proposer must not come into the log of a later term,
        // even of this very node, because the leaders in between may have decided
        // what it was not stamped after.
        let result = self.group.propose(Some(self.term), entry).await;
        let refusal = match result {
            Ok(entry) => return self.answer(&entry.response, replies),
            Err(error) => {
                if !matches!(error, ProposeError::NotLeader { .. }) {
                    tracing::debug!(group = self.group.id().0, %error, "a proposal has no outcome");
                }
                Refusal::from(error)
            }
        };
        // One entry, one fate: what is not known of the entry is not known of any command in it.
        for (_, reply) in replies {
            reply.answer(Err(refusal.clone()));
        }
    }

    fn answer(&self, applied: &[AppliedCommand], replies: Vec<(usize, OutcomeSender)>) {
        for (place, reply) in replies {
            // The machine answers every command, so this is a defect; the command was decided all
            // the same, and the caller learns how under the same id.
            let Some(applied) = applied.get(place) else {
                reply.answer(Err(Refusal::Indeterminate));
                continue;
            };
            match (&applied.outcome, applied.repeated_at) {
                // The definition of the same proposal was refused or is in a later entry of another
                // leader. Nothing was done, so this is no outcome of the command.
                (Outcome::Rejected(Reject::Undefined), _) => {
                    reply.answer(Err(Refusal::Unavailable {
                        reason: "this module's definition is on its way".to_owned(),
                        retry_after: Duration::from_millis(20),
                    }));
                }
                (outcome, None) => {
                    reply.answer(Ok(outcome.clone()));
                }
                (_, Some(_)) => self.answer_from_store(applied.clone(), reply),
            }
        }
    }

    /// A command decided so long ago that its events left memory: they are read back.
    fn answer_from_store(&self, applied: AppliedCommand, reply: OutcomeSender) {
        let partition = Arc::clone(&self.applied);
        // A task of its own: reading the disk must not hold up the answers and entries behind it.
        tokio::spawn(raft::blocking(move || {
            reply.answer(repeated_outcome(&partition, applied));
        }));
    }

    fn stamp(&mut self, commands: Vec<Command>) -> Batch {
        let now = Instant::now();
        let last = self.stamped.replace(now);
        // From the monotonic clock, and nothing for the time before this term: log uptime counts
        // only while a leader ran, so that a wall clock set forward expires nothing.
        let elapsed = last.map_or(Duration::ZERO, |last| now - last);
        let mut entropy = *random().as_bytes();
        if mutant::is(Mutant::ReuseSequenceNumberAfterFailover) && last.is_none() {
            entropy[..8].copy_from_slice(&mutant::FIRST_OF_TERM);
        }
        // No command needs more: `enqueue` has refused those.
        let level = self.levels.writing_level();
        #[cfg(feature = "next-level")]
        let commands = at_next_level(level, commands);
        Batch {
            level,
            stamped: wall_clock(),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            entropy,
            commands,
        }
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
    let events = partition.stored_events(&applied.key, after, count as usize)?;
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

/// This node's wall clock: read here, once per entry, and nowhere else on the write path.
pub(crate) fn wall_clock() -> Timestamp {
    #[cfg(any(test, feature = "simulation"))]
    if let Some(millis) = raft::simulated::wall_millis() {
        return Timestamp(i64::try_from(millis).unwrap_or(i64::MAX));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
