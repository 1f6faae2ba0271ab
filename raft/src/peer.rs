//! Peer: openraft's way to another replica, over this room's [`Network`].
//!
//! Promise: heartbeats and votes go on the urgent lane and never wait behind entries; entries are
//! sent without waiting for each other and answered in order; a call is given up before the
//! election it could delay. An answer never speaks for an append that was sent after it: openraft
//! takes all appends that end at the same entry as answered by the first answer, and would confirm
//! a read by one that is older than the read.
//! Refused: nothing is queued here; the link's bounds are the bounds.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use model::{NodeId, ReplicaId};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;

use crate::consensus::{LogId, StoredMembership, Types, Vote};
use crate::limits;
use crate::network::{Lane, Network, NetworkError};
use crate::rpc::{Body, Call, Refusal, Response, Turn};
use crate::state_machine::Checkpointed;
use crate::timing::Timing;
use crate::transfer;
use crate::types::{GroupId, Member};

type Rpc<T> = Result<T, RPCError<Types>>;

/// Makes the ways to the other replicas of one group.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Shared>);

struct Shared {
    network: Arc<dyn Network>,
    group: GroupId,
    replica: ReplicaId,
    call_timeout: Duration,
    streams: AtomicU64,
}

impl Peers {
    /// `stream_base`: a number no earlier process of this replica counted streams from.
    pub(crate) fn new(
        network: Arc<dyn Network>,
        group: GroupId,
        replica: ReplicaId,
        timing: &Timing,
        stream_base: u64,
    ) -> Self {
        Self(Arc::new(Shared {
            network,
            group,
            replica,
            call_timeout: timing.call_timeout(),
            streams: AtomicU64::new(stream_base),
        }))
    }

    /// The ways to all others of a membership, for what is large.
    pub(crate) fn others(&self, membership: &StoredMembership) -> Vec<Peer> {
        let others = membership.nodes().filter(|&(&id, _)| id != self.0.replica.0);
        others.map(|(&id, member)| self.peer(id, member, Lane::Bulk)).collect()
    }

    fn peer(&self, to: u64, member: &Member, lane: Lane) -> Peer {
        Peer { shared: self.0.clone(), to: ReplicaId(to), node: member.node, lane }
    }
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Member) -> Peer {
        self.peer(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Peer {
        self.peer(target, node, Lane::Urgent)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Peer {
        self.peer(target, node, Lane::Bulk)
    }
}

/// The way to one other replica, for one purpose.
#[derive(Clone)]
pub(crate) struct Peer {
    shared: Arc<Shared>,
    to: ReplicaId,
    node: NodeId,
    /// Where appends go: urgent for heartbeats, log for entries.
    lane: Lane,
}

/// Why a call has no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("replica {to} refused: {refusal}")]
    Refused { to: ReplicaId, refusal: Refusal },
    #[error("replica {to} answered what was not asked")]
    Unexpected { to: ReplicaId },
    /// What was to be sent cannot be read here.
    #[error("{0}")]
    Local(String),
}

impl Peer {
    /// Calls and waits; the future owns everything it needs, so that several can be under way.
    pub(crate) fn call(
        &self,
        lane: Lane,
        body: Body,
        timeout: Duration,
    ) -> impl Future<Output = Result<Response, CallError>> + Send + use<> {
        let Self { to, node, .. } = *self;
        let call = Call { group: self.shared.group, from: self.shared.replica, to, body }.encode();
        let (lane, timeout) = for_size(lane, timeout, call.len());
        let answer = self.shared.network.call(node, lane, call, timeout);
        async move {
            let bytes = answer.await?;
            match Response::decode(&bytes) {
                Ok(Response::Refused(refusal)) => Err(CallError::Refused { to, refusal }),
                Ok(response) => Ok(response),
                Err(error) => {
                    tracing::warn!(to = to.0, node = node.0, %error, "an answer that cannot be read");
                    Err(CallError::Unexpected { to })
                }
            }
        }
    }

    /// An answer of a kind that was not asked for.
    pub(crate) fn unexpected(&self) -> CallError {
        CallError::Unexpected { to: self.to }
    }

    fn append(
        &self,
        turn: Option<Turn>,
        request: AppendEntriesRequest<Types>,
    ) -> impl Future<Output = Rpc<AppendEntriesResponse<Types>>> + Send + use<> {
        let peer = self.clone();
        let timeout = self.shared.call_timeout;
        let call = self.call(self.lane, Body::Append(turn, request), timeout);
        async move {
            match call.await {
                Ok(Response::Append(response)) => Ok(response),
                Ok(_) => Err(peer.failed(RPCTypes::AppendEntries, peer.unexpected(), timeout)),
                Err(error) => Err(peer.failed(RPCTypes::AppendEntries, error, timeout)),
            }
        }
    }

    async fn ask_vote(&self, body: Body, option: &RPCOption) -> Rpc<VoteResponse<Types>> {
        let timeout = option.soft_ttl().min(self.shared.call_timeout);
        match self.call(Lane::Urgent, body, timeout).await {
            Ok(Response::Vote(response)) => Ok(response),
            Ok(_) => Err(self.failed(RPCTypes::Vote, self.unexpected(), timeout)),
            Err(error) => Err(self.failed(RPCTypes::Vote, error, timeout)),
        }
    }

    /// In openraft's words: it backs off from what is unreachable, and soon retries the rest.
    fn failed(&self, action: RPCTypes, error: CallError, timeout: Duration) -> RPCError<Types> {
        match &error {
            CallError::Network(NetworkError::NoAnswer { .. }) => {
                let (id, target) = (self.shared.replica.0, self.to.0);
                RPCError::Timeout(Timeout { action, id, target, timeout })
            }
            CallError::Network(NetworkError::Full { .. })
            | CallError::Refused { refusal: Refusal::OutOfTurn, .. } => {
                RPCError::Network(openraft::errors::NetworkError::new(&error))
            }
            CallError::Network(NetworkError::Unreachable { .. })
            | CallError::Refused { .. }
            | CallError::Unexpected { .. }
            | CallError::Local(_) => RPCError::Unreachable(Unreachable::new(&error)),
        }
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Checkpointed;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Rpc<AppendEntriesResponse<Types>> {
        self.append(None, rpc).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<Types>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.lane == Lane::Urgent {
            return stream_append_sequential(self, input, option);
        }
        let stream = self.shared.streams.fetch_add(1, Ordering::Relaxed);
        let peer = self.clone();
        let unanswered = Unanswered::default();
        let sent = unanswered.clone();
        let answers = input
            .enumerate()
            .map(move |(number, request)| {
                let previous = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(previous);
                sent.push(last);
                let call = peer.append(Some(Turn { stream, number: number as u64 }), request);
                async move { Ok((call.await?, previous, last)) }
            })
            .buffered(limits::APPENDS_IN_FLIGHT);
        // After the first answer that is not a full success, what follows it is void.
        let results = answers.scan(true, move |go_on, answer| {
            let item = go_on.then(|| {
                let (item, whole) = judge(answer);
                *go_on = whole;
                let next_says_it = unanswered.next_ends_there_too();
                (!(whole && next_says_it)).then_some(item)
            });
            async move { item }
        });
        let results = results.filter_map(|item| async move { item });
        Box::pin(async move { Ok(results.boxed()) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<Types>> {
        self.ask_vote(Body::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<Types>> {
        self.ask_vote(Body::PreVote(rpc), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<Types, Checkpointed>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let sending = transfer::send(self, vote, snapshot.snapshot);
        tokio::select! {
            biased;
            sent = sending => sent.map_err(|error| {
                let timeout = self.shared.call_timeout;
                StreamingError::from(self.failed(RPCTypes::InstallSnapshot, error, timeout))
            }),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<Types>> {
        let timeout = option.soft_ttl().min(self.shared.call_timeout);
        match self.call(Lane::Urgent, Body::Transfer(req), timeout).await {
            Ok(Response::Transfer(response)) => Ok(response),
            Ok(_) => Err(self.failed(RPCTypes::TransferLeader, self.unexpected(), timeout)),
            Err(error) => Err(self.failed(RPCTypes::TransferLeader, error, timeout)),
        }
    }
}

/// Where a message of this size goes, and how long it may take: a large entry travels with the
/// bulk, where it holds up no other, and has the time it needs on a slow link. Who leads is not at
/// stake meanwhile: heartbeats go their own way.
fn for_size(lane: Lane, timeout: Duration, bytes: usize) -> (Lane, Duration) {
    if bytes <= limits::LARGE_CALL_BYTES {
        return (lane, timeout);
    }
    let slowest = bytes as u64 * 1000 / limits::SLOWEST_LINK_BYTES_PER_SECOND;
    (Lane::Bulk, timeout + Duration::from_millis(slowest))
}

/// Where the appends of a stream end that are sent and not answered, oldest first.
///
/// openraft counts an answer "everything up to entry 7 is here" for each append that ends at 7 or
/// before, and takes the time at which the last of them was sent as a moment at which the quorum
/// still followed. An append without entries, sent to tell of a commit, ends where the one before
/// it ends. After a pause the answer to the former could so confirm the latter, and with it a read
/// that came in between, although another leader was elected meanwhile. The former's answer is
/// therefore left out: the latter's says the same.
#[derive(Clone, Default)]
struct Unanswered(Arc<Mutex<VecDeque<Option<LogId>>>>);

impl Unanswered {
    fn push(&self, last: Option<LogId>) {
        self.0.lock().push_back(last);
    }

    /// The oldest was answered: whether the next one ends at the same entry.
    fn next_ends_there_too(&self) -> bool {
        let mut unanswered = self.0.lock();
        let answered = unanswered.pop_front();
        answered.is_some_and(|last| unanswered.front() == Some(&last))
    }
}

type Answered = (AppendEntriesResponse<Types>, Option<LogId>, Option<LogId>);

/// The answer in openraft's words, and whether the stream goes on after it.
fn judge(answer: Rpc<Answered>) -> (Rpc<StreamAppendResult<Types>>, bool) {
    let (response, previous, last) = match answer {
        Ok(answered) => answered,
        Err(error) => return (Err(error), false),
    };
    let whole = match &response {
        AppendEntriesResponse::Success => true,
        AppendEntriesResponse::PartialSuccess(upto) => *upto == last,
        AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => false,
    };
    if response.is_conflict() && previous.is_none() {
        let nonsense = std::io::Error::other("a conflict with the start of the log");
        return (Err(RPCError::Unreachable(Unreachable::new(&nonsense))), false);
    }
    (Ok(response.into_stream_result(previous, last)), whole)
}
