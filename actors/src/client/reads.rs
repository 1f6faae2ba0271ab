//! Reads: a replica here answers once it is as fresh as asked. Without one another node's does,
//! the leader's first; where it lags, the leader's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{
    Answer, Branch, BranchKey, Catalogue, NodeId, PartitionId, Procedures, Read, ReadLevel, Reject,
};
use raft::{GroupId, Priority, ReplicaGroup, ScanLimit};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::CatalogueClient;
use crate::client::leader_client::{LeaderClient, LeaderRequest, leader_unknown, retry};
use crate::client::read_error;
use crate::client::{LocalPartition, LocalPartitions};
use crate::limits::{
    ATTEMPT_TIMEOUT, CATCH_UP_BYTES, LAG_TIMEOUT, REQUEST_DEADLINE, SETTLE_TIMEOUT,
};
use crate::message::{PeerReply, PeerRequest, Refusal, encode};
use crate::read_pool::ReadPool;
use crate::shares::Requester;
use crate::store::RouteError;

/// The way of a lookup to a replica that may answer it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reads {
    leaders: LeaderClient,
    catalogue_client: CatalogueClient,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    partitions: LocalPartitions,
    /// Those a branch that was never written to would have.
    procedures: Procedures,
    pool: ReadPool,
}

/// Why a replica on this node did not answer a read.
pub(crate) enum ReadFailure {
    Refused(Refusal),
    /// This replica does not have yet what was acknowledged; the leader, who said so, does.
    Lags {
        leader: NodeId,
    },
    Rejected(Reject),
}

impl From<Refusal> for ReadFailure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Reads {
    pub(crate) fn new(
        leaders: LeaderClient,
        catalogue_client: CatalogueClient,
        catalogue: watch::Receiver<Arc<Catalogue>>,
        partitions: LocalPartitions,
        procedures: Procedures,
        pool: ReadPool,
    ) -> Self {
        Self { leaders, catalogue_client, catalogue, partitions, procedures, pool }
    }

    /// Looks something up within `REQUEST_DEADLINE`.
    ///
    /// # Errors
    /// Never `Indeterminate`: a read without an answer changed nothing.
    pub(crate) async fn read(
        &self,
        requester: Requester,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> Result<Answer, RouteError> {
        let partition = self.catalogue_client.find(&key).await?;
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let lookup = Lookup { requester, key, read, level };
        let request = ReadRequest { partition, lookup };
        let answer =
            retry(deadline, ATTEMPT_TIMEOUT, |timeout| self.attempt(&request, timeout)).await;
        answer.map_err(read_error)?.map_err(RouteError::Rejected)
    }

    /// One attempt: the replica here, else one of another node, the leader's if it is known.
    async fn attempt(
        &self,
        request: &ReadRequest,
        timeout: Duration,
    ) -> Result<Result<Answer, Reject>, Refusal> {
        let group = GroupId::from(request.partition);
        let Some(local) = self.partitions.get(request.partition) else {
            return self.leaders.ask_once(group, request, timeout).await;
        };
        let ReadRequest { partition, lookup } = request;
        match self.read_here(*partition, &local, lookup).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(ReadFailure::Rejected(reject)) => Ok(Err(reject)),
            Err(ReadFailure::Refused(refusal)) => Err(refusal),
            // A replica that has just started may have the log of minutes before it: nobody waits
            // for that while the leader has the answer.
            Err(ReadFailure::Lags { leader }) => {
                self.leaders.ask_node(group, leader, request, timeout).await
            }
        }
    }

    /// Answers from this node's replica, once it is as fresh as asked.
    pub(crate) async fn read_here(
        &self,
        partition: PartitionId,
        local: &LocalPartition,
        lookup: &Lookup,
    ) -> Result<Answer, ReadFailure> {
        let Lookup { requester, key, read, level } = lookup;
        let view = match *level {
            ReadLevel::Linearizable => {
                self.catch_up(partition, local).await?;
                self.settled(local, key).await?;
                local.applied.view()
            }
            ReadLevel::Session(offset) => {
                let has_it = |view: &model::Partition| {
                    view.branch(key).is_some_and(|b| b.head().offset >= offset)
                };
                let view = local.applied.view();
                if has_it(&view) {
                    view
                } else {
                    self.catch_up(partition, local).await?;
                    self.settled(local, key).await?;
                    local.applied.view()
                }
            }
            ReadLevel::Stale => local.applied.view(),
        };
        if let Read::Events { after, limit } = read {
            return self.events(local, &view, key, *after, *limit).await;
        }
        let branch = self.branch_or_preview(&view, key)?;
        self.pool.read(*requester, branch, read).await?.map_err(ReadFailure::Rejected)
    }

    /// Waits until this replica has applied everything acknowledged before now.
    async fn catch_up(
        &self,
        partition: PartitionId,
        local: &LocalPartition,
    ) -> Result<(), ReadFailure> {
        let status = local.group.status();
        if status.is_leader {
            local.group.read_barrier().await.map_err(Refusal::from)?;
            return Ok(());
        }
        let Some((_, leader)) = status.leader else { return Err(leader_unknown().into()) };
        let request = ReadIndexRequest { partition, group: &local.group };
        let group = GroupId::from(partition);
        let index = self.leaders.ask_node(group, leader, &request, ATTEMPT_TIMEOUT).await?;
        let is_applied = tokio::select! {
            biased;
            applied = local.group.wait_applied(index, LAG_TIMEOUT) => applied.is_ok(),
            // The leader has the answer, and this replica will not for long.
            () = local.applied.held_up() => false,
        };
        if is_applied { Ok(()) } else { Err(ReadFailure::Lags { leader }) }
    }

    /// Waits until what was applied to this branch shows, where it takes long. A replica that does
    /// not lead waits for as long as for one that lags: its leader may have the answer.
    async fn settled(&self, local: &LocalPartition, key: &BranchKey) -> Result<(), ReadFailure> {
        let status = local.group.status();
        let other = status.leader.filter(|_| !status.is_leader).map(|(_, node)| node);
        let wait = if other.is_some() { LAG_TIMEOUT } else { SETTLE_TIMEOUT };
        let settled = tokio::time::timeout(wait, local.applied.settled(key)).await;
        settled.map_err(|_| match other {
            Some(leader) => ReadFailure::Lags { leader },
            None => ReadFailure::Refused(Refusal::Unavailable {
                reason: "a large change of this branch:module is being applied".to_owned(),
                retry_after: Duration::from_secs(1),
            }),
        })
    }

    /// On the leader of a partition: the index that a reader must have applied.
    ///
    /// # Errors
    /// `NotLeader` where this node holds no replica of it, or one that does not lead.
    pub(crate) async fn index(&self, partition: PartitionId) -> Result<u64, Refusal> {
        let local = self.partitions.get(partition).ok_or(Refusal::NotLeader { hint: None })?;
        Ok(local.group.read_index().await?)
    }

    /// The branch as it is, or, if it was never written to, as its first write would find it.
    fn branch_or_preview(
        &self,
        view: &model::Partition,
        key: &BranchKey,
    ) -> Result<Arc<Branch>, Refusal> {
        if let Some(branch) = view.shared_branch(key) {
            return Ok(branch);
        }
        let catalogue = self.catalogue.borrow();
        let definition = catalogue.definition(key).ok_or_else(|| Refusal::Unavailable {
            reason: format!("module {:?} is not defined", key.module),
            retry_after: Duration::from_secs(1),
        })?;
        let seed = catalogue.seed(key);
        let at = catalogue.formed_at;
        let procedures = self.procedures.clone();
        let definition = Arc::new(definition);
        let seed = seed.as_deref();
        Ok(Arc::new(Branch::preview(key.clone(), definition, seed, at, procedures)))
    }

    /// A stretch of the log: from memory, else from the working store.
    async fn events(
        &self,
        local: &LocalPartition,
        view: &model::Partition,
        key: &BranchKey,
        after: model::Offset,
        limit: u32,
    ) -> Result<Answer, ReadFailure> {
        let branch = self.branch_or_preview(view, key)?;
        let head = branch.head();
        let mut events = branch.events_after(after);
        if events.is_none() {
            let (applied, wanted) = (Arc::clone(&local.applied), key.clone());
            // Of many large events the first ones: who asked sees that the log goes on.
            let most = ScanLimit { rows: limit as usize, bytes: CATCH_UP_BYTES };
            let stored = raft::blocking(move || applied.stored_events(&wanted, after, most));
            let stored = stored.await.map_err(|_| leader_unknown())?.map_err(Refusal::from)?;
            // The store lies some moments behind: what does not join on would be a gap.
            let joins = stored.first().is_some_and(|event| event.offset == after.next());
            events = joins.then_some(stored);
        }
        if let Some(events) = &mut events {
            events.truncate(limit as usize);
        }
        Ok(Answer::Events(model::Events {
            incarnation: head.incarnation,
            last: head.offset,
            events,
        }))
    }
}

/// What is looked up, and for whom.
pub(crate) struct Lookup {
    pub(crate) requester: Requester,
    pub(crate) key: BranchKey,
    pub(crate) read: Read,
    pub(crate) level: ReadLevel,
}

struct ReadRequest {
    partition: PartitionId,
    lookup: Lookup,
}

impl LeaderRequest for ReadRequest {
    type Answer = Result<Answer, Reject>;

    fn message(&self) -> (Priority, Bytes) {
        let Lookup { requester, key, read, level } = &self.lookup;
        let (requester, key, read, level) = (*requester, key.clone(), read.clone(), *level);
        let message = if requester == Requester::default() {
            encode(&PeerRequest::Read { key, read, level })
        } else {
            encode(&PeerRequest::ReadFor { requester, key, read, level })
        };
        // An answer may be as large as a branch is.
        (Priority::Bulk, message)
    }

    fn answer(&self, _: NodeId, reply: PeerReply) -> Option<Result<Answer, Reject>> {
        match reply {
            PeerReply::Answer(answer) => Some(Ok(answer)),
            PeerReply::Rejected(reject) => Some(Err(reject)),
            PeerReply::Outcome(_)
            | PeerReply::Index(_)
            | PeerReply::Changed(_)
            | PeerReply::Status(_)
            | PeerReply::Refused(_)
            | PeerReply::Following(_)
            | PeerReply::Posted
            | PeerReply::LastPost(_)
            | PeerReply::Condition(_) => None,
        }
    }

    /// There was no replica here a moment ago. If there is one now, the next attempt finds it.
    async fn perform(&self, _: Duration) -> Result<Result<Answer, Reject>, Refusal> {
        Err(Refusal::NotLeader { hint: None })
    }
}

struct ReadIndexRequest<'a> {
    partition: PartitionId,
    group: &'a ReplicaGroup,
}

impl LeaderRequest for ReadIndexRequest<'_> {
    type Answer = u64;

    fn message(&self) -> (Priority, Bytes) {
        (Priority::Call, encode(&PeerRequest::ReadIndex(self.partition)))
    }

    fn answer(&self, _: NodeId, reply: PeerReply) -> Option<u64> {
        if let PeerReply::Index(index) = reply { Some(index) } else { None }
    }

    async fn perform(&self, _: Duration) -> Result<u64, Refusal> {
        Ok(self.group.read_index().await?)
    }
}
