//! Long: commands that take long, from the queue into the log.
//!
//! Why: a command of many megabytes in one entry holds up every entry behind it, and one that
//! rewrites a large module holds up all that are applied behind it. So such a command goes into the
//! log in pieces, one after the other, while the proposer goes on with small ones in between; with
//! its last piece it is applied beside the others (`machine.rs`).
//!
//! Promise: one at a time of a partition. Until its last piece is proposed nothing of it can be
//! done, so whatever goes wrong before is told as such.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use model::{AppliedCommand, Batch, BatchPiece, Branch, BranchKey, Command, Request};
use raft::{ProposeError, TypedGroup};

use super::queue::{LongSubmission, Queue};
use super::{ElapsedTime, Submission, answer, millis, random};
use crate::handover::Handover;
use crate::level_gate::LevelGate;
use crate::limits::{LONG_ROWS, PIECE_BYTES};
use crate::message::Refusal;
use crate::partition::applied::AppliedPartition;
use crate::partition::machine::PartitionMachine;
use crate::partition::weight::is_bulk;

/// The same where time is simulated: commands there are small, and many should be in pieces.
#[cfg(any(test, feature = "simulation"))]
const SIMULATED_PIECE_BYTES: usize = 200;

/// And modules small, of which many should count as large.
#[cfg(any(test, feature = "simulation"))]
const SIMULATED_LONG_ROWS: u64 = 4;

/// Rows of a large branch.
fn long_rows() -> u64 {
    #[cfg(any(test, feature = "simulation"))]
    if raft::simulated::is_active() {
        return SIMULATED_LONG_ROWS;
    }
    LONG_ROWS
}

/// Bytes of a piece.
fn piece_bytes() -> usize {
    #[cfg(any(test, feature = "simulation"))]
    if raft::simulated::is_active() {
        return SIMULATED_PIECE_BYTES;
    }
    PIECE_BYTES
}

/// Whether a command takes long: it is large itself, or rewrites a large module.
pub(super) fn is_long(submission: &Submission, applied: &AppliedPartition) -> bool {
    let Command { key, request, .. } = &submission.command;
    submission.cost.bytes > piece_bytes() || is_bulk(request) && is_large(applied, key)
}

/// Whether what goes through all of a branch takes long: its module, and what a restore may bring
/// back.
pub(super) fn is_large(applied: &AppliedPartition, key: &BranchKey) -> bool {
    let view = applied.view();
    let rows = view.branch(key).map_or(0, |branch| branch.head().rows + branch.archived_rows());
    rows > long_rows()
}

/// Proposes what takes long, for the term this node leads.
pub(super) struct LongProposer {
    pub(super) elapsed: ElapsedTime,
    pub(super) group: TypedGroup<PartitionMachine>,
    pub(super) term: u64,
    pub(super) applied: Arc<AppliedPartition>,
    pub(super) levels: LevelGate,
    pub(super) handover: Handover,
    pub(super) queue: Arc<Queue>,
}

impl LongProposer {
    pub(super) async fn run(self) {
        // One of an earlier term may be under way, and holds its branch.
        if let Some(key) = self.applied.under_way() {
            self.applied.settled(&key).await;
        }
        self.queue.hold(None);
        loop {
            match self.queue.next_long().await {
                LongSubmission::Client(submission) => self.propose_for_client(submission).await,
                LongSubmission::Own(commands) => self.propose_own(commands).await,
            }
            self.queue.hold(None);
            self.group.store_caught_up().await;
        }
    }

    async fn propose_for_client(&self, submission: Submission) {
        let Submission { requester, command, reply, .. } = submission;
        let key = command.key.clone();
        match self.propose(command, || reply.is_abandoned()).await {
            Ok(applied) => answer(&self.applied, &applied, vec![(0, reply)]),
            Err(refusal) => reply.answer(Err(refusal)),
        }
        self.queue.finish_long(requester, key);
    }

    async fn propose_own(&self, commands: Vec<Command>) {
        for command in commands {
            // What the term before had under way may have done it meanwhile.
            if self.applied.view().branch(&command.key).is_some_and(|it| is_done(&command, it)) {
                continue;
            }
            if let Err(refusal) = self.propose(command, || false).await {
                tracing::debug!(?refusal, "a large branch's definition did not come into the log");
                self.queue.own_lost.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    /// What the command came to.
    async fn propose(
        &self,
        command: Command,
        is_abandoned: impl Fn() -> bool,
    ) -> Result<Vec<AppliedCommand>, Refusal> {
        if let Some(refusal) = self.handover.refusal_for_full_disks(&self.group) {
            return Err(refusal);
        }
        let key = command.key.clone();
        let batch = self.stamp(command);
        let split = raft::blocking(move || BatchPiece::split(&batch, piece_bytes())).await;
        let mut pieces = split.map_err(|_| Refusal::NotLeader { hint: None })?;
        let last = pieces.pop().ok_or(Refusal::Indeterminate)?;
        for piece in pieces {
            // Nobody waits for it, and nothing of it is done without the last piece.
            if is_abandoned() {
                return Err(given_up());
            }
            let proposed = self.group.propose(Some(self.term), self.encode(piece)).await;
            proposed.map_err(|error| self.refusal_of_piece(error))?;
        }
        // From the last piece on the branch is rewritten.
        self.queue.hold(Some(key));
        match self.group.propose(Some(self.term), self.encode(last)).await {
            // Its pieces were not all there any more: too long passed between two of them.
            Ok(entry) if entry.response.is_empty() => Err(given_up()),
            Ok(entry) => Ok(entry.response),
            Err(error) => Err(self.handover.refusal(error, &self.group)),
        }
    }

    /// Why a command was not done of which a piece did not come into the log, as far as is known.
    fn refusal_of_piece(&self, error: ProposeError) -> Refusal {
        let refusal = self.handover.refusal(error, &self.group);
        // Whether the piece is there or not.
        if refusal == Refusal::Indeterminate { given_up() } else { refusal }
    }

    /// A piece as it goes into the log now: it tells the time as every entry does, or the next one
    /// would tell all that passed since the last, and the pieces would seem to be left over.
    fn encode(&self, piece: BatchPiece) -> Bytes {
        BatchPiece { elapsed_ms: millis(self.elapsed.take()), ..piece }.encode().into()
    }

    fn stamp(&self, command: Command) -> Batch {
        Batch {
            level: self.levels.writing_level(),
            stamped: self.handover.clock.now(),
            // The pieces tell the time.
            elapsed_ms: 0,
            entropy: *random().as_bytes(),
            commands: vec![command],
        }
    }
}

/// Whether what the leader asks of a branch is so already.
fn is_done(command: &Command, branch: &Branch) -> bool {
    if let Request::Define(wanted) | Request::Fill(wanted) = &command.request {
        return branch.definition() == Some(wanted);
    }
    matches!(command.request, Request::Seed(_)) && branch.seeded()
}

fn given_up() -> Refusal {
    Refusal::Unavailable {
        reason: "the leader changed before all of a large request was in the log".to_owned(),
        retry_after: Duration::from_millis(100),
    }
}
