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

use crate::checkpoint_transfer;
use crate::consensus::{LogId, StoredMembership, TypeConfig, Vote};
use crate::limits;
use crate::network::{Network, NetworkError, Priority};
use crate::rpc::{PipelinePosition, RpcCall, RpcRejection, RpcRequest, RpcResponse};
use crate::state_machine::CheckpointHandle;
use crate::timing::Timing;
use crate::types::{GroupId, Member};

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// Makes the ways to the other replicas of one group.
#[derive(Clone)]
pub(crate) struct PeerClients(Arc<Shared>);

struct Shared {
    network: Arc<dyn Network>,
    group: GroupId,
    replica: ReplicaId,
    call_timeout: Duration,
    next_stream: AtomicU64,
}

impl PeerClients {
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
            next_stream: AtomicU64::new(stream_base),
        }))
    }

    /// The ways to all others of a membership, for what is large.
    pub(crate) fn bulk_clients(&self, membership: &StoredMembership) -> Vec<PeerClient> {
        let bulk_clients = membership.nodes().filter(|&(&id, _)| id != self.0.replica.0);
        bulk_clients.map(|(&id, member)| self.client(id, member, Priority::Bulk)).collect()
    }

    fn client(&self, to: u64, member: &Member, priority: Priority) -> PeerClient {
        PeerClient { shared: self.0.clone(), to: ReplicaId(to), node: member.node, priority }
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerClients {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, node: &Member) -> PeerClient {
        self.client(target, node, Priority::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> PeerClient {
        self.client(target, node, Priority::Urgent)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> PeerClient {
        self.client(target, node, Priority::Bulk)
    }
}

/// The way to one other replica, for one purpose.
#[derive(Clone)]
pub(crate) struct PeerClient {
    shared: Arc<Shared>,
    to: ReplicaId,
    node: NodeId,
    /// Where appends go: urgent for heartbeats, log for entries.
    priority: Priority,
}

/// Why a call has no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RpcError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("replica {to} refused: {rejection}")]
    Rejected { to: ReplicaId, rejection: RpcRejection },
    #[error("replica {to} answered what was not asked")]
    Unexpected { to: ReplicaId },
    /// What was to be sent cannot be read here.
    #[error("{0}")]
    Local(String),
}

impl PeerClient {
    /// Calls and waits; the future owns everything it needs, so that several can be under way.
    pub(crate) fn call(
        &self,
        priority: Priority,
        body: RpcRequest,
        timeout: Duration,
    ) -> impl Future<Output = Result<RpcResponse, RpcError>> + Send + use<> {
        let Self { to, node, .. } = *self;
        let call =
            RpcCall { group: self.shared.group, from: self.shared.replica, to, body }.encode();
        let (priority, timeout) = route_by_size(priority, timeout, call.len());
        let answer = self.shared.network.call(node, priority, call, timeout);
        async move {
            let bytes = answer.await?;
            match RpcResponse::decode(&bytes) {
                Ok(RpcResponse::Rejected(rejection)) => Err(RpcError::Rejected { to, rejection }),
                Ok(response) => Ok(response),
                Err(error) => {
                    tracing::warn!(to = to.0, node = node.0, %error, "an answer that cannot be read");
                    Err(RpcError::Unexpected { to })
                }
            }
        }
    }

    /// An answer of a kind that was not asked for.
    pub(crate) fn unexpected(&self) -> RpcError {
        RpcError::Unexpected { to: self.to }
    }

    fn append(
        &self,
        position: Option<PipelinePosition>,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> impl Future<Output = Rpc<AppendEntriesResponse<TypeConfig>>> + Send + use<> {
        let client = self.clone();
        let timeout = self.shared.call_timeout;
        let call = self.call(self.priority, RpcRequest::Append(position, request), timeout);
        async move {
            match call.await {
                Ok(RpcResponse::Append(response)) => Ok(response),
                Ok(_) => {
                    Err(client.to_rpc_error(RPCTypes::AppendEntries, client.unexpected(), timeout))
                }
                Err(error) => Err(client.to_rpc_error(RPCTypes::AppendEntries, error, timeout)),
            }
        }
    }

    async fn request_vote(
        &self,
        body: RpcRequest,
        option: &RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let timeout = option.soft_ttl().min(self.shared.call_timeout);
        match self.call(Priority::Urgent, body, timeout).await {
            Ok(RpcResponse::Vote(response)) => Ok(response),
            Ok(_) => Err(self.to_rpc_error(RPCTypes::Vote, self.unexpected(), timeout)),
            Err(error) => Err(self.to_rpc_error(RPCTypes::Vote, error, timeout)),
        }
    }

    /// In openraft's words: it backs off from what is unreachable, and soon retries the rest.
    fn to_rpc_error(
        &self,
        action: RPCTypes,
        error: RpcError,
        timeout: Duration,
    ) -> RPCError<TypeConfig> {
        match &error {
            RpcError::Network(NetworkError::NoAnswer { .. }) => {
                let (id, target) = (self.shared.replica.0, self.to.0);
                RPCError::Timeout(Timeout { action, id, target, timeout })
            }
            RpcError::Network(NetworkError::Full { .. })
            | RpcError::Rejected { rejection: RpcRejection::OutOfOrder, .. } => {
                RPCError::Network(openraft::errors::NetworkError::new(&error))
            }
            RpcError::Network(NetworkError::Unreachable { .. })
            | RpcError::Rejected { .. }
            | RpcError::Unexpected { .. }
            | RpcError::Local(_) => RPCError::Unreachable(Unreachable::new(&error)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = CheckpointHandle;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        self.append(None, rpc).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.priority == Priority::Urgent {
            return stream_append_sequential(self, input, option);
        }
        let stream = self.shared.next_stream.fetch_add(1, Ordering::Relaxed);
        let client = self.clone();
        let pending = PendingAppends::default();
        let sent = pending.clone();
        let answers = input
            .enumerate()
            .map(move |(number, request)| {
                let previous = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(previous);
                sent.push(last);
                let call = client
                    .append(Some(PipelinePosition { stream, number: number as u64 }), request);
                async move { Ok((call.await?, previous, last)) }
            })
            .buffered(limits::APPENDS_IN_FLIGHT);
        // After the first answer that is not a full success, what follows it is void.
        let results = answers.scan(true, move |continues, answer| {
            let item = continues.then(|| {
                let (item, full_success) = to_stream_result(answer);
                *continues = full_success;
                let superseded = pending.complete_oldest();
                (!(full_success && superseded)).then_some(item)
            });
            async move { item }
        });
        let results = results.filter_map(|item| async move { item });
        Box::pin(async move { Ok(results.boxed()) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.request_vote(RpcRequest::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.request_vote(RpcRequest::PreVote(rpc), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, CheckpointHandle>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = checkpoint_transfer::send(self, vote, snapshot.snapshot);
        tokio::select! {
            biased;
            sent = sending => sent.map_err(|error| {
                let timeout = self.shared.call_timeout;
                StreamingError::from(self.to_rpc_error(RPCTypes::InstallSnapshot, error, timeout))
            }),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let timeout = option.soft_ttl().min(self.shared.call_timeout);
        match self.call(Priority::Urgent, RpcRequest::TransferLeader(req), timeout).await {
            Ok(RpcResponse::TransferLeader(response)) => Ok(response),
            Ok(_) => Err(self.to_rpc_error(RPCTypes::TransferLeader, self.unexpected(), timeout)),
            Err(error) => Err(self.to_rpc_error(RPCTypes::TransferLeader, error, timeout)),
        }
    }
}

/// Where a message of this size goes, and how long it may take: a large entry travels with the
/// bulk, where it holds up no other, and has the time it needs on a slow link. Who leads is not at
/// stake meanwhile: heartbeats go their own way.
fn route_by_size(priority: Priority, timeout: Duration, bytes: usize) -> (Priority, Duration) {
    if bytes <= limits::LARGE_CALL_BYTES {
        return (priority, timeout);
    }
    let slowest = bytes as u64 * 1000 / limits::SLOWEST_LINK_BYTES_PER_SECOND;
    (Priority::Bulk, timeout + Duration::from_millis(slowest))
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
struct PendingAppends(Arc<Mutex<VecDeque<Option<LogId>>>>);

impl PendingAppends {
    fn push(&self, last: Option<LogId>) {
        self.0.lock().push_back(last);
    }

    /// The oldest was answered: whether the next one ends at the same entry.
    fn complete_oldest(&self) -> bool {
        let mut pending = self.0.lock();
        let answered = pending.pop_front();
        answered.is_some_and(|last| pending.front() == Some(&last))
    }
}

type AppendOutcome = (AppendEntriesResponse<TypeConfig>, Option<LogId>, Option<LogId>);

/// The answer in openraft's words, and whether the stream goes on after it.
fn to_stream_result(answer: Rpc<AppendOutcome>) -> (Rpc<StreamAppendResult<TypeConfig>>, bool) {
    let (response, previous, last) = match answer {
        Ok(answered) => answered,
        Err(error) => return (Err(error), false),
    };
    let full_success = match &response {
        AppendEntriesResponse::Success => true,
        AppendEntriesResponse::PartialSuccess(upto) => *upto == last,
        AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => false,
    };
    if response.is_conflict() && previous.is_none() {
        let reason = std::io::Error::other("a conflict with the start of the log");
        return (Err(RPCError::Unreachable(Unreachable::new(&reason))), false);
    }
    (Ok(response.into_stream_result(previous, last)), full_success)
}
