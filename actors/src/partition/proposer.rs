//! Proposer: the one hand that writes to a partition's log. It stamps, packs the commands of many
//! branches into one entry, proposes, and gives each caller its outcome.
//!
//! Promise: commands enter the log in the order they were handed in. Everything of one proposer
//! is fenced by one term: once the leader has changed, nothing of it can be taken any more.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::mutant::{self, Mutant};
use model::{Applied, Batch, Catalogue, Command, Outcome, Reject, Timestamp};
use raft::{ProposeError, ReplicaGroup};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::machine::AppliedPartition;
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

/// The way to a partition's proposer. Dropping the last one lets it finish and end.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    _task: Arc<AbortOnDropHandle<()>>,
}

impl Proposer {
    /// Starts proposing for the term this node leads.
    pub(crate) fn start(
        group: ReplicaGroup,
        term: u64,
        applied: Arc<AppliedPartition>,
        catalogue: watch::Receiver<Arc<Catalogue>>,
    ) -> Self {
        let (queue, incoming) = mpsc::channel(NODE_PERMITS);
        let work = ProposerTask { group, term, applied, catalogue, stamped: None };
        let task = tokio::spawn(work.run(incoming));
        Self { queue, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// Hands a command in. Never waits: a full queue is answered at once.
    pub(crate) fn enqueue(&self, proposal: Proposal) {
        let refused = match self.queue.try_send(proposal) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(proposal)) => {
                (proposal, Refusal::Busy { what: BusyScope::Node })
            }
            Err(mpsc::error::TrySendError::Closed(proposal)) => {
                (proposal, Refusal::NotLeader { hint: None })
            }
        };
        if let (Proposal { reply: Some(reply), .. }, refusal) = refused {
            reply.answer(Err(refusal));
        }
    }
}

struct ProposerTask {
    group: ReplicaGroup,
    term: u64,
    applied: Arc<AppliedPartition>,
    /// Says which level the cluster has agreed on.
    catalogue: watch::Receiver<Arc<Catalogue>>,
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
        for command in proposal.prerequisites.into_iter().chain([proposal.command]) {
            self.bytes += rough_bytes(&command);
            self.commands.push(command);
        }
        if let Some(reply) = proposal.reply {
            self.replies.push((self.commands.len() - 1, reply));
        }
    }

    fn has_room(&self) -> bool {
        self.commands.len() < BATCH_COMMANDS_MAX && self.bytes < BATCH_BYTES_MAX
    }
}

/// A command's size, near enough to bound a batch: exact sizes would cost a second encoding.
pub(crate) fn rough_bytes(command: &Command) -> usize {
    match &command.request {
        model::Request::Write(write) => {
            write.mutations.iter().map(|mutation| 64 + 48 * mutation.record.len()).sum()
        }
        model::Request::Define(_) | model::Request::Fill(_) | model::Request::Seed(_) => 64 * 1024,
        model::Request::Reserve(_) => 128,
        #[cfg(feature = "next-level")]
        model::Request::ReserveAtNextLevel(_) => 128,
        model::Request::SetSequence(_) => 1024,
        model::Request::SaveOrder(order) => {
            let parts = [&order.lines, &order.payments, &order.status_logs];
            let sent: usize = parts.into_iter().flatten().map(Vec::len).sum();
            let logs: usize = order.line_status_logs.iter().flatten().map(Vec::len).sum();
            64 * 48 * (1 + sent + logs)
        }
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
        while let Some(first) = incoming.recv().await {
            let mut builder = BatchBuilder::default();
            builder.add(first);
            while builder.has_room() {
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
        let batch = self.stamp(commands);
        if mutant::is(Mutant::AcknowledgeBeforeCommit) {
            let applied = model::Partition::clone(&self.applied.view()).apply(&batch);
            self.answer(&applied, std::mem::take(&mut replies));
        }
        let entry = offload(bytes, move || batch.encode()).into();
        let result = self.group.propose(Some(self.term), entry).await;
        let refusal = match result {
            Ok(proposed) => match proposed.answer.0.downcast::<Vec<Applied>>() {
                Ok(applied) => return self.answer(&applied, replies),
                Err(_) => Refusal::Indeterminate,
            },
            Err(error) => {
                if !matches!(error, ProposeError::NotLeader { .. }) {
                    tracing::debug!(group = self.group.id().0, %error, "a proposal has no outcome");
                }
                Refusal::from(error)
            }
        };
        for (_, reply) in replies {
            reply.answer(Err(refusal.clone()));
        }
    }

    fn answer(&self, applied: &[Applied], replies: Vec<(usize, OutcomeSender)>) {
        for (place, reply) in replies {
            let Some(applied) = applied.get(place) else {
                reply.answer(Err(Refusal::Indeterminate));
                continue;
            };
            match (&applied.outcome, applied.repeated_at) {
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
    fn answer_from_store(&self, applied: Applied, reply: OutcomeSender) {
        let partition = Arc::clone(&self.applied);
        tokio::spawn(raft::blocking(move || {
            reply.answer(repeated_outcome(&partition, applied));
        }));
    }

    fn stamp(&mut self, commands: Vec<Command>) -> Batch {
        let now = Instant::now();
        let last = self.stamped.replace(now);
        let elapsed = last.map_or(Duration::ZERO, |last| now - last);
        let mut entropy = *random().as_bytes();
        if mutant::is(Mutant::ReuseSequenceNumberAfterFailover) && last.is_none() {
            entropy[..8].copy_from_slice(&mutant::FIRST_OF_TERM);
        }
        let level = self.catalogue.borrow().writing_level();
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

/// What only level 2 can say, where the cluster has agreed on it.
#[cfg(feature = "next-level")]
fn at_next_level(level: u16, mut commands: Vec<Command>) -> Vec<Command> {
    use model::Request;
    for command in commands.iter_mut().filter(|_| level >= 2) {
        if let Request::Reserve(reserve) = &command.request {
            command.request = Request::ReserveAtNextLevel(reserve.clone());
        }
    }
    commands
}

fn repeated_outcome(
    partition: &AppliedPartition,
    mut applied: Applied,
) -> Result<Outcome, Refusal> {
    let Some((first, count)) = applied.repeated_at else { return Ok(applied.outcome) };
    let after = model::Offset(first.0 - 1);
    let events = partition.stored_events(&applied.key, after, count as usize)?;
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
