//! Peer: openraft's RPC client for another replica, over the crate's [`Network`].
//!
//! Promise: heartbeats and votes have priority `Urgent` and never wait behind entries. Appends are
//! pipelined, and their responses are returned in order. A call is given up before the election
//! that it could delay. A response never confirms an append that was sent after the one it answers;
//! see [`PendingAppends`]. Refused: queueing here; only the connection limits what is in flight.

mod checkpoint_sender;

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

use crate::consensus::{LogId, StoredMembership, TypeConfig, Vote};
use crate::limits;
use crate::network::{Network, NetworkError, Priority};
use crate::rpc::{PipelinePosition, RpcCall, RpcRejection, RpcRequest, RpcResponse};
use crate::state_machine::CheckpointHandle;
use crate::timing::Timing;
use crate::types::{GroupId, Member};

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;

/// Creates clients for the other replicas of one group. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PeerClients(Arc<PeerShared>);

struct PeerShared {
    network: Arc<dyn Network>,
    group: GroupId,
    replica: ReplicaId,
    call_timeout: Duration,
    next_stream: AtomicU64,
}

impl PeerClients {
    /// `stream_base`: the first stream number; no earlier process of this replica began with it.
    pub(crate) fn new(
        network: Arc<dyn Network>,
        group: GroupId,
        replica: ReplicaId,
        timing: &Timing,
        stream_base: u64,
    ) -> Self {
        Self(Arc::new(PeerShared {
            network,
            group,
            replica,
            call_timeout: timing.call_timeout(),
            next_stream: AtomicU64::new(stream_base),
        }))
    }

    /// A client with priority `Bulk` for each other replica of a membership.
    pub(crate) fn bulk_clients(&self, membership: &StoredMembership) -> Vec<PeerClient> {
        let others = membership.nodes().filter(|&(&id, _)| id != self.0.replica.0);
        others.map(|(&id, member)| self.client(id, member, Priority::Bulk)).collect()
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

/// A client for one other replica. openraft creates one for heartbeats, one for entries and one for
/// snapshots.
#[derive(Clone)]
pub(crate) struct PeerClient {
    shared: Arc<PeerShared>,
    to: ReplicaId,
    node: NodeId,
    /// The priority of appends: `Urgent` for heartbeats, `Log` for entries.
    priority: Priority,
}

/// Why a call has no usable response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("replica {to} rejected the call: {rejection}")]
    Rejected { to: ReplicaId, rejection: RpcRejection },
    #[error("replica {to} sent a response of another kind")]
    Unexpected { to: ReplicaId },
    /// What should be sent cannot be read on this node.
    #[error("{0}")]
    Local(String),
}

impl PeerClient {
    /// Sends a request and waits for the response. The future owns everything it needs, so that
    /// several can be in flight.
    pub(crate) fn call(
        &self,
        priority: Priority,
        body: RpcRequest,
        timeout: Duration,
    ) -> impl Future<Output = Result<RpcResponse, CallError>> + Send + use<> {
        let Self { to, node, .. } = *self;
        let call =
            RpcCall { group: self.shared.group, from: self.shared.replica, to, body }.encode();
        let (priority, timeout) = route_by_size(priority, timeout, call.len());
        let response = self.shared.network.call(node, priority, call, timeout);
        async move {
            let bytes = response.await?;
            match RpcResponse::decode(&bytes) {
                Ok(RpcResponse::Rejected(rejection)) => Err(CallError::Rejected { to, rejection }),
                Ok(response) => Ok(response),
                Err(error) => {
                    tracing::warn!(to = to.0, node = node.0, %error, "undecodable response");
                    Err(CallError::Unexpected { to })
                }
            }
        }
    }

    /// The error for a response of another kind than requested.
    pub(crate) fn unexpected(&self) -> CallError {
        CallError::Unexpected { to: self.to }
    }

    fn append(
        &self,
        position: Option<PipelinePosition>,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> impl Future<Output = RpcResult<AppendEntriesResponse<TypeConfig>>> + Send + use<> {
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
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        let timeout = option.soft_ttl().min(self.shared.call_timeout);
        match self.call(Priority::Urgent, body, timeout).await {
            Ok(RpcResponse::Vote(response)) => Ok(response),
            Ok(_) => Err(self.to_rpc_error(RPCTypes::Vote, self.unexpected(), timeout)),
            Err(error) => Err(self.to_rpc_error(RPCTypes::Vote, error, timeout)),
        }
    }

    /// The error as openraft's. The kind decides what openraft does: it backs off from a target
    /// that is unreachable, and soon retries after the other errors.
    fn to_rpc_error(
        &self,
        action: RPCTypes,
        error: CallError,
        timeout: Duration,
    ) -> RPCError<TypeConfig> {
        match &error {
            CallError::Network(NetworkError::NoAnswer { .. }) => {
                let (id, target) = (self.shared.replica.0, self.to.0);
                RPCError::Timeout(Timeout { action, id, target, timeout })
            }
            CallError::Network(NetworkError::Full { .. })
            | CallError::Rejected { rejection: RpcRejection::OutOfOrder, .. } => {
                RPCError::Network(openraft::errors::NetworkError::new(&error))
            }
            CallError::Network(NetworkError::Unreachable { .. })
            | CallError::Rejected { .. }
            | CallError::Unexpected { .. }
            | CallError::Local(_) => RPCError::Unreachable(Unreachable::new(&error)),
        }
    }
}

impl RaftNetworkV2<TypeConfig> for PeerClient {
    type SnapshotData = CheckpointHandle;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<TypeConfig>> {
        self.append(None, rpc).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        // Heartbeats are sent one after the other and carry no pipeline position, so that they
        // never wait for an append.
        if self.priority == Priority::Urgent {
            return stream_append_sequential(self, input, option);
        }
        let stream = self.shared.next_stream.fetch_add(1, Ordering::Relaxed);
        let client = self.clone();
        let pending = PendingAppends::default();
        let sent = pending.clone();
        let responses = input
            .enumerate()
            .map(move |(number, request)| {
                let previous = request.prev_log_id;
                let last = request.entries.last().map(|entry| entry.log_id).or(previous);
                // In the order of sending, and before the call is polled: responses come back in
                // this order, as `buffered` keeps it.
                sent.push(last);
                let call = client
                    .append(Some(PipelinePosition { stream, number: number as u64 }), request);
                async move { Ok((call.await?, previous, last)) }
            })
            .buffered(limits::APPENDS_IN_FLIGHT);
        // After the first response that is not a full success the stream ends: the follower lacks
        // what the later appends build on, and openraft begins a new stream.
        let results = responses.scan(true, move |continues, response| {
            let item = continues.then(|| {
                let (item, full_success) = to_stream_result(response);
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
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.request_vote(RpcRequest::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.request_vote(RpcRequest::PreVote(rpc), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<TypeConfig, CheckpointHandle>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending = checkpoint_sender::send(self, vote, snapshot.snapshot);
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
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        let timeout = option.soft_ttl().min(self.shared.call_timeout);
        match self.call(Priority::Urgent, RpcRequest::TransferLeader(req), timeout).await {
            Ok(RpcResponse::TransferLeader(response)) => Ok(response),
            Ok(_) => Err(self.to_rpc_error(RPCTypes::TransferLeader, self.unexpected(), timeout)),
            Err(error) => Err(self.to_rpc_error(RPCTypes::TransferLeader, error, timeout)),
        }
    }
}

/// The priority and the timeout of a message of this size. A large one goes over the bulk
/// connection, where it holds up no other, and gets the time that it needs on a slow link. That
/// endangers no leader: heartbeats have a connection of their own.
fn route_by_size(priority: Priority, timeout: Duration, bytes: usize) -> (Priority, Duration) {
    if bytes <= limits::LARGE_CALL_BYTES {
        return (priority, timeout);
    }
    let slowest = bytes as u64 * 1000 / limits::SLOWEST_LINK_BYTES_PER_SECOND;
    (Priority::Bulk, timeout + Duration::from_millis(slowest))
}

/// The last log ids of the appends of a stream that are sent and not answered, oldest first.
///
/// openraft applies a response "everything up to entry 7 is stored" to each append that ends at 7
/// or before, and takes the sending time of the last of them as a time at which the quorum still
/// followed. An append without entries, which carries a new commit index, ends where the one before
/// it ends. After a pause of the leader, the response to the earlier append would therefore confirm
/// the later one, and a read that came in between, although another leader was elected meanwhile.
/// The earlier response is dropped: the later one reports the same entries.
#[derive(Clone, Default)]
struct PendingAppends(Arc<Mutex<VecDeque<Option<LogId>>>>);

impl PendingAppends {
    fn push(&self, last: Option<LogId>) {
        self.0.lock().push_back(last);
    }

    /// Removes the oldest append, which was answered. Returns whether the next one ends at the same
    /// entry, so that the response to that one says as much.
    fn complete_oldest(&self) -> bool {
        let mut pending = self.0.lock();
        let oldest = pending.pop_front();
        oldest.is_some_and(|last| pending.front() == Some(&last))
    }
}

/// A response, and the log ids before and at the end of the append it answers.
type AppendOutcome = (AppendEntriesResponse<TypeConfig>, Option<LogId>, Option<LogId>);

/// The response as openraft's stream result, and whether the stream continues after it.
fn to_stream_result(
    result: RpcResult<AppendOutcome>,
) -> (RpcResult<StreamAppendResult<TypeConfig>>, bool) {
    let (response, previous, last) = match result {
        Ok(outcome) => outcome,
        Err(error) => return (Err(error), false),
    };
    let full_success = match &response {
        AppendEntriesResponse::Success => true,
        AppendEntriesResponse::PartialSuccess(upto) => *upto == last,
        AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => false,
    };
    // openraft unwraps the predecessor of a conflict, and would panic.
    if response.is_conflict() && previous.is_none() {
        let reason = std::io::Error::other("a conflict with the start of the log");
        return (Err(RPCError::Unreachable(Unreachable::new(&reason))), false);
    }
    (Ok(response.into_stream_result(previous, last)), full_success)
}
