//! RPC handler: handles the requests of other replicas.
//!
//! Promise: pipelined appends reach openraft in the order in which they were sent, although each is
//! a message of its own. Refused: requests for another replica; requests from another node than the
//! sender's; entries while the disk takes no writes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use model::{NodeId, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse};
use openraft::{EntryPayload, Raft};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::blocking::blocking;
use crate::checkpoint_transfer::IncomingTransfers;
use crate::consensus::{TypeConfig, Vote};
use crate::disk::Wal;
use crate::replica::Replica;
use crate::rpc::{PipelinePosition, RpcCall, RpcRejection, RpcRequest, RpcResponse};
use crate::state_machine::Applier;
use crate::verifier;

/// The RPC handler of one replica.
pub(crate) struct RpcHandler {
    raft: Raft<TypeConfig, Applier>,
    replica: Arc<Replica>,
    wal: Arc<Wal>,
    append_order: AppendOrder,
    incoming: IncomingTransfers,
    append_wait: Duration,
}

impl RpcHandler {
    /// `append_wait`: how long a pipelined append waits for the one before it.
    pub(crate) fn new(
        raft: Raft<TypeConfig, Applier>,
        replica: Arc<Replica>,
        wal: Arc<Wal>,
        append_wait: Duration,
    ) -> Self {
        let (append_order, incoming) = (AppendOrder::default(), IncomingTransfers::default());
        Self { raft, replica, wal, append_order, incoming, append_wait }
    }

    pub(crate) async fn handle(&self, from: NodeId, call: RpcCall) -> RpcResponse {
        let done = match self.check(from, &call) {
            Ok(()) => self.dispatch(call.from, call.body).await,
            Err(rejection) => Err(rejection),
        };
        done.unwrap_or_else(RpcResponse::Rejected)
    }

    fn check(&self, from: NodeId, call: &RpcCall) -> Result<(), RpcRejection> {
        let here = ReplicaId(self.replica.key.replica);
        if call.to != here {
            return Err(RpcRejection::WrongReplica { here });
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // An unknown sender is accepted: this replica may not have its membership entry yet.
        let sender_home = metrics.membership_config.get_node(&call.from.0);
        if sender_home.is_some_and(|member| member.node != from) {
            return Err(RpcRejection::WrongSenderNode);
        }
        if let Some(failure) = self.replica.failure() {
            return Err(RpcRejection::Stopped(failure.0));
        }
        Ok(())
    }

    async fn dispatch(
        &self,
        from: ReplicaId,
        body: RpcRequest,
    ) -> Result<RpcResponse, RpcRejection> {
        match body {
            RpcRequest::Append(position, request) => self.append(from, position, request).await,
            // Without `writable`: the log reserves space for votes on a full disk, and the group
            // must be able to elect a leader among the replicas that have space.
            RpcRequest::Vote(request) => {
                self.raft.vote(request).await.map(RpcResponse::Vote).map_err(stopped_rejection)
            }
            RpcRequest::PreVote(request) => {
                self.raft.pre_vote(request).await.map(RpcResponse::Vote).map_err(stopped_rejection)
            }
            RpcRequest::TransferLeader(request) => {
                self.writable()?;
                let response = self.raft.handle_transfer_leader(request).await;
                response
                    .map(RpcResponse::TransferLeader)
                    .map_err(|error| RpcRejection::Stopped(error.to_string()))
            }
            RpcRequest::CheckpointBegin { vote, manifest } => {
                // Before anything is transferred for a leader that is deposed.
                if let Some(higher) = self.higher_vote(&vote) {
                    return Ok(RpcResponse::Checkpoint(SnapshotResponse::new(higher)));
                }
                let replica = self.replica.clone();
                let missing = self.incoming.begin(replica, vote, manifest).await?;
                Ok(RpcResponse::MissingChunks(missing))
            }
            RpcRequest::CheckpointPiece { checkpoint, hash, offset, bytes } => {
                self.incoming.piece(checkpoint, hash, offset, bytes).await?;
                Ok(RpcResponse::PieceStored)
            }
            RpcRequest::CheckpointEnd { vote, checkpoint } => {
                let snapshot = self.incoming.end(self.replica.clone(), checkpoint).await?;
                let done = self.raft.install_full_snapshot(vote, snapshot).await;
                done.map(RpcResponse::Checkpoint)
                    .map_err(|error| RpcRejection::Stopped(error.to_string()))
            }
            RpcRequest::ChunkPiece { hash, offset } => self.chunk_piece(hash, offset).await,
        }
    }

    async fn chunk_piece(&self, hash: [u8; 32], offset: u64) -> Result<RpcResponse, RpcRejection> {
        let replica = self.replica.clone();
        let read = blocking(move || verifier::read_piece(&replica, hash, offset)).await;
        match read {
            Ok(Ok(bytes)) => Ok(RpcResponse::ChunkPiece(bytes)),
            Ok(Err(error)) => Err(RpcRejection::Checkpoint(error.to_string())),
            Err(error) => Err(RpcRejection::Checkpoint(error.to_string())),
        }
    }

    async fn append(
        &self,
        from: ReplicaId,
        position: Option<PipelinePosition>,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<RpcResponse, RpcRejection> {
        // Heartbeats pass, so that a full disk does not start elections. So does the blank entry of
        // a new leader, for which the log reserves space: where no majority has any, somebody still
        // leads, serves reads, and says why nothing is written.
        if request.entries.iter().any(|entry| !matches!(entry.payload, EntryPayload::Blank)) {
            self.writable()?;
        }
        let Some(position) = position else {
            let response = self.raft.append_entries(request).await;
            return self.finish_append(response);
        };
        if !self.append_order.wait(from, position, self.append_wait).await {
            return Err(RpcRejection::OutOfOrder);
        }
        // The first poll queues the request in openraft. From then on the order is kept there, so
        // the next append need not wait for this one's response.
        let mut appending = pin!(self.raft.append_entries(request));
        let first_poll = appending.as_mut().now_or_never();
        self.append_order.advance(from, position);
        let response = match first_poll {
            Some(response) => response,
            None => appending.await,
        };
        self.finish_append(response)
    }

    /// Records the contact with the leader, unless it is the leader of an earlier term.
    fn finish_append(
        &self,
        response: Result<AppendEntriesResponse<TypeConfig>, RaftError<TypeConfig>>,
    ) -> Result<RpcResponse, RpcRejection> {
        if !matches!(response, Ok(AppendEntriesResponse::HigherVote(_)) | Err(_)) {
            self.replica.record_leader_contact();
        }
        response.map(RpcResponse::Append).map_err(stopped_rejection)
    }

    fn writable(&self) -> Result<(), RpcRejection> {
        self.wal.writable().map_err(|error| RpcRejection::DiskFull(error.to_string()))
    }

    /// This replica's vote, if it is of a later term than the sender's.
    fn higher_vote(&self, vote: &Vote) -> Option<Vote> {
        let metrics = self.raft.metrics();
        let ours = metrics.borrow_watched().vote;
        (ours.leader_id.term > vote.leader_id.term).then_some(ours)
    }
}

fn stopped_rejection<E: std::error::Error>(error: RaftError<TypeConfig, E>) -> RpcRejection {
    RpcRejection::Stopped(error.to_string())
}

/// Keeps pipelined appends in order. Only one leader sends at a time, so it holds one stream: the
/// sender and the position that comes next.
#[derive(Default)]
struct AppendOrder {
    next: Mutex<Option<(ReplicaId, PipelinePosition)>>,
    advanced: Notify,
}

impl AppendOrder {
    /// Waits until every earlier append of the stream was given to openraft. `false`: the position
    /// was used already, or that took longer than `append_wait`.
    async fn wait(
        &self,
        from: ReplicaId,
        position: PipelinePosition,
        append_wait: Duration,
    ) -> bool {
        let waiting = async {
            loop {
                // Registered before the check, or an advance in between would be missed.
                let mut advanced = pin!(self.advanced.notified());
                advanced.as_mut().enable();
                if let Some(mine) = self.poll(from, position) {
                    return mine;
                }
                advanced.await;
            }
        };
        tokio::time::timeout(append_wait, waiting).await.unwrap_or(false)
    }

    /// Whether this position is next. `None`: earlier ones are missing.
    fn poll(&self, from: ReplicaId, position: PipelinePosition) -> Option<bool> {
        let mut next = self.next.lock();
        // Position 0 begins a stream and ends the one before it: the sender has given that one up.
        if position.number == 0 {
            *next = Some((from, position));
            return Some(true);
        }
        match *next {
            Some((sender, next)) if sender == from && next.stream == position.stream => {
                // A lower position is a message that came twice.
                (position.number <= next.number).then_some(position.number == next.number)
            }
            Some(_) | None => None,
        }
    }

    /// The append at this position was given to openraft: lets the next one through.
    fn advance(&self, from: ReplicaId, position: PipelinePosition) {
        let mut next = self.next.lock();
        // Another stream may have begun meanwhile.
        if *next == Some((from, position)) {
            let number = position.number + 1;
            *next = Some((from, PipelinePosition { number, ..position }));
            drop(next);
            self.advanced.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPEND_WAIT: Duration = Duration::from_secs(60);
    const FROM: ReplicaId = ReplicaId(1);

    fn position(stream: u64, number: u64) -> PipelinePosition {
        PipelinePosition { stream, number }
    }

    #[tokio::test]
    async fn appends_are_processed_in_stream_order() {
        let append_order = Arc::new(AppendOrder::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for number in [3, 1, 2, 0] {
            let (append_order, order) = (append_order.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                assert!(append_order.wait(FROM, position(5, number), APPEND_WAIT).await);
                order.lock().push(number);
                append_order.advance(FROM, position(5, number));
            }));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn append_with_wrong_position_is_rejected() {
        let append_order = AppendOrder::default();
        assert!(append_order.wait(FROM, position(5, 0), APPEND_WAIT).await);
        append_order.advance(FROM, position(5, 0));
        assert!(append_order.wait(FROM, position(5, 1), APPEND_WAIT).await);
        append_order.advance(FROM, position(5, 1));
        assert!(!append_order.wait(FROM, position(5, 1), APPEND_WAIT).await, "it came twice");
        assert!(!append_order.wait(FROM, position(5, 3), Duration::ZERO).await, "2 is missing");
        assert!(!append_order.wait(FROM, position(4, 1), Duration::ZERO).await, "an old stream");
        assert!(
            append_order.wait(ReplicaId(2), position(1, 0), APPEND_WAIT).await,
            "a new leader begins"
        );
    }
}
