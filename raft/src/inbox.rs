//! Inbox: what a replica answers to the calls of its peers.
//!
//! Promise: appends of one stream reach openraft in the order they were sent, although each came
//! as a message of its own. Refused: calls meant for another replica, calls from a node the sender
//! does not live on, entries while the disk takes no writes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use model::{NodeId, ReplicaId};
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::blocking::blocking;
use crate::consensus::{Types, Vote};
use crate::disk::Wal;
use crate::replica::Replica;
use crate::rpc::{Body, Call, Refusal, Response, Turn};
use crate::state_machine::Applier;
use crate::transfer::Arrivals;
use crate::verifier;

/// The receiving end of one replica.
pub(crate) struct Inbox {
    raft: Raft<Types, Applier>,
    replica: Arc<Replica>,
    wal: Arc<Wal>,
    turns: Turns,
    arrivals: Arrivals,
    patience: Duration,
}

impl Inbox {
    /// `patience`: how long an append waits for the one before it.
    pub(crate) fn new(
        raft: Raft<Types, Applier>,
        replica: Arc<Replica>,
        wal: Arc<Wal>,
        patience: Duration,
    ) -> Self {
        let (turns, arrivals) = (Turns::default(), Arrivals::default());
        Self { raft, replica, wal, turns, arrivals, patience }
    }

    pub(crate) async fn answer(&self, from: NodeId, call: Call) -> Response {
        let done = match self.check(from, &call) {
            Ok(()) => self.act(call.from, call.body).await,
            Err(refusal) => Err(refusal),
        };
        done.unwrap_or_else(Response::Refused)
    }

    fn check(&self, from: NodeId, call: &Call) -> Result<(), Refusal> {
        let here = ReplicaId(self.replica.key.replica);
        if call.to != here {
            return Err(Refusal::OtherReplica { here });
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // A sender this replica has not heard of yet may still be right: it may lag.
        let home = metrics.membership_config.get_node(&call.from.0);
        if home.is_some_and(|member| member.node != from) {
            return Err(Refusal::Impostor);
        }
        if let Some(failure) = self.replica.failure() {
            return Err(Refusal::Stopped(failure.0));
        }
        Ok(())
    }

    async fn act(&self, from: ReplicaId, body: Body) -> Result<Response, Refusal> {
        match body {
            Body::Append(turn, request) => self.append(from, turn, request).await,
            // The log keeps room for votes however full the disk is.
            Body::Vote(request) => {
                self.raft.vote(request).await.map(Response::Vote).map_err(stopped)
            }
            Body::PreVote(request) => {
                self.raft.pre_vote(request).await.map(Response::Vote).map_err(stopped)
            }
            Body::Transfer(request) => {
                self.writable()?;
                let answer = self.raft.handle_transfer_leader(request).await;
                answer.map(Response::Transfer).map_err(|error| Refusal::Stopped(error.to_string()))
            }
            Body::CheckpointBegin { vote, manifest } => {
                if let Some(higher) = self.higher_vote(&vote) {
                    return Ok(Response::Checkpoint(SnapshotResponse::new(higher)));
                }
                let replica = self.replica.clone();
                let missing = self.arrivals.begin(replica, vote, manifest).await?;
                Ok(Response::CheckpointNeeds(missing))
            }
            Body::CheckpointPiece { checkpoint, hash, offset, bytes } => {
                self.arrivals.piece(checkpoint, hash, offset, bytes).await?;
                Ok(Response::PieceTaken)
            }
            Body::CheckpointEnd { vote, checkpoint } => {
                let snapshot = self.arrivals.end(self.replica.clone(), checkpoint).await?;
                let done = self.raft.install_full_snapshot(vote, snapshot).await;
                done.map(Response::Checkpoint).map_err(|error| Refusal::Stopped(error.to_string()))
            }
            Body::ChunkPiece { hash, offset } => self.chunk_piece(hash, offset).await,
        }
    }

    async fn chunk_piece(&self, hash: [u8; 32], offset: u64) -> Result<Response, Refusal> {
        let replica = self.replica.clone();
        let read = blocking(move || verifier::piece(&replica, hash, offset)).await;
        match read {
            Ok(Ok(bytes)) => Ok(Response::ChunkPiece(bytes)),
            Ok(Err(error)) => Err(Refusal::Checkpoint(error.to_string())),
            Err(error) => Err(Refusal::Checkpoint(error.to_string())),
        }
    }

    async fn append(
        &self,
        from: ReplicaId,
        turn: Option<Turn>,
        request: AppendEntriesRequest<Types>,
    ) -> Result<Response, Refusal> {
        if !request.entries.is_empty() {
            self.writable()?;
        }
        let Some(turn) = turn else {
            let answer = self.raft.append_entries(request).await;
            return self.appended(answer);
        };
        if !self.turns.wait(from, turn, self.patience).await {
            return Err(Refusal::OutOfTurn);
        }
        // The first poll hands the request to openraft; its answer may take as long as it takes.
        let mut appending = pin!(self.raft.append_entries(request));
        let at_once = appending.as_mut().now_or_never();
        self.turns.pass(from, turn);
        let answer = match at_once {
            Some(answer) => answer,
            None => appending.await,
        };
        self.appended(answer)
    }

    /// Notes that a leader was heard, unless it is one of an earlier term.
    fn appended(
        &self,
        answer: Result<AppendEntriesResponse<Types>, RaftError<Types>>,
    ) -> Result<Response, Refusal> {
        if !matches!(answer, Ok(AppendEntriesResponse::HigherVote(_)) | Err(_)) {
            self.replica.hear_leader();
        }
        answer.map(Response::Append).map_err(stopped)
    }

    fn writable(&self) -> Result<(), Refusal> {
        self.wal.writable().map_err(|error| Refusal::DiskFull(error.to_string()))
    }

    /// This replica's vote, if it is for somebody later than the sender.
    fn higher_vote(&self, vote: &Vote) -> Option<Vote> {
        let metrics = self.raft.metrics();
        let ours = metrics.borrow_watched().vote;
        (ours.leader_id.term > vote.leader_id.term).then_some(ours)
    }
}

fn stopped<E: std::error::Error>(error: RaftError<Types, E>) -> Refusal {
    Refusal::Stopped(error.to_string())
}

/// Whose turn it is. One leader sends at a time, so one stream is remembered.
#[derive(Default)]
struct Turns {
    next: Mutex<Option<(ReplicaId, Turn)>>,
    moved: Notify,
}

impl Turns {
    /// Waits until every earlier append of the stream was passed on. `false`: that will not happen.
    async fn wait(&self, from: ReplicaId, turn: Turn, patience: Duration) -> bool {
        let waiting = async {
            loop {
                let mut moved = pin!(self.moved.notified());
                moved.as_mut().enable();
                if let Some(mine) = self.look(from, turn) {
                    return mine;
                }
                moved.await;
            }
        };
        tokio::time::timeout(patience, waiting).await.unwrap_or(false)
    }

    /// Whether it is this one's turn; `None`: not yet.
    fn look(&self, from: ReplicaId, turn: Turn) -> Option<bool> {
        let mut next = self.next.lock();
        if turn.number == 0 {
            *next = Some((from, turn));
            return Some(true);
        }
        match *next {
            Some((sender, next)) if sender == from && next.stream == turn.stream => {
                // What was passed already is a message that came twice.
                (turn.number <= next.number).then_some(turn.number == next.number)
            }
            Some(_) | None => None,
        }
    }

    fn pass(&self, from: ReplicaId, turn: Turn) {
        let mut next = self.next.lock();
        if *next == Some((from, turn)) {
            let number = turn.number + 1;
            *next = Some((from, Turn { number, ..turn }));
            drop(next);
            self.moved.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);
    const FROM: ReplicaId = ReplicaId(1);

    fn turn(stream: u64, number: u64) -> Turn {
        Turn { stream, number }
    }

    #[tokio::test]
    async fn appends_take_their_turn_however_they_come_in() {
        let turns = Arc::new(Turns::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in [3, 1, 2, 0] {
            let (turns, order) = (turns.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                assert!(turns.wait(FROM, turn(5, number), PATIENCE).await);
                order.lock().push(number);
                turns.pass(FROM, turn(5, number));
            }));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn a_repeated_append_and_one_whose_predecessor_never_came_are_refused() {
        let turns = Turns::default();
        assert!(turns.wait(FROM, turn(5, 0), PATIENCE).await);
        turns.pass(FROM, turn(5, 0));
        assert!(turns.wait(FROM, turn(5, 1), PATIENCE).await);
        turns.pass(FROM, turn(5, 1));
        assert!(!turns.wait(FROM, turn(5, 1), PATIENCE).await, "it came twice");
        assert!(!turns.wait(FROM, turn(5, 3), Duration::ZERO).await, "2 is missing");
        assert!(!turns.wait(FROM, turn(4, 1), Duration::ZERO).await, "an old stream");
        assert!(turns.wait(ReplicaId(2), turn(1, 0), PATIENCE).await, "a new leader begins");
    }
}
