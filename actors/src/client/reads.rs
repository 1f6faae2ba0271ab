//! Reads: a replica here answers once it is as fresh as asked. Without one, or where it lags, the
//! leader does.

use std::sync::Arc;
use std::time::Duration;

use model::{Answer, Branch, BranchKey, NodeId, PartitionId, Read, ReadLevel};
use raft::Priority;
use tokio::time::Instant;

use super::{ClusterStore, LocalPartition, final_word, no_leader};
use crate::limits::{ATTEMPT_TIMEOUT, LAG_TIMEOUT, REQUEST_DEADLINE, RETRY_PAUSE};
use crate::message::{PeerReply, PeerRequest, Refusal, decode, encode};
use crate::offload::offload;
use crate::store::RouteError;

/// What a read can end in without an answer.
pub(crate) enum ReadFailure {
    Refused(Refusal),
    /// This replica does not have yet what was acknowledged; the leader, who said so, does.
    Lags {
        leader: NodeId,
    },
    Rejected(model::Reject),
}

impl From<Refusal> for ReadFailure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl ClusterStore {
    pub(crate) async fn look_up(
        &self,
        key: BranchKey,
        read: Read,
        level: ReadLevel,
    ) -> Result<Answer, RouteError> {
        let partition = self.find(&key).await?;
        let deadline = Instant::now() + REQUEST_DEADLINE;
        loop {
            let refusal = match self.try_read(partition, &key, &read, level).await {
                Ok(answer) => return Ok(answer),
                Err(ReadFailure::Rejected(reject)) => return Err(RouteError::Rejected(reject)),
                Err(ReadFailure::Refused(refusal)) => refusal,
                Err(ReadFailure::Lags { leader }) => Refusal::NotLeader { hint: Some(leader) },
            };
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(read_error(refusal));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_read(
        &self,
        partition: PartitionId,
        key: &BranchKey,
        read: &Read,
        level: ReadLevel,
    ) -> Result<Answer, ReadFailure> {
        let holder = match self.0.partitions.get(partition) {
            Some(local) => match self.read_here(partition, &local, key, read, level).await {
                Err(ReadFailure::Lags { leader }) => leader,
                done => return done,
            },
            None => self.leader_of(partition).ok_or_else(no_leader)?,
        };
        let ask = PeerRequest::Read { key: key.clone(), read: read.clone(), level };
        let reply = self
            .ask_leader(partition, holder, Priority::Bulk, encode(&ask), ATTEMPT_TIMEOUT)
            .await
            .map_err(|_| {
                self.forget_leader(partition);
                no_leader()
            })?;
        match offload(reply.len(), || decode(&reply)) {
            Ok(PeerReply::Answer(answer)) => Ok(answer),
            Ok(PeerReply::Rejected(reject)) => Err(ReadFailure::Rejected(reject)),
            Ok(PeerReply::Refused(refusal)) => {
                self.learn(partition, &refusal);
                Err(refusal.into())
            }
            Ok(_) | Err(_) => Err(no_leader().into()),
        }
    }

    /// Answers from this node's replica, once it is as fresh as asked.
    pub(crate) async fn read_here(
        &self,
        partition: PartitionId,
        local: &LocalPartition,
        key: &BranchKey,
        read: &Read,
        level: ReadLevel,
    ) -> Result<Answer, ReadFailure> {
        let view = match level {
            ReadLevel::Linearizable => {
                self.catch_up(partition, local).await?;
                local.applied.view()
            }
            ReadLevel::Session(offset) => {
                let seen = |view: &model::Partition| {
                    view.branch(key).is_some_and(|b| b.head().offset >= offset)
                };
                let view = local.applied.view();
                if seen(&view) {
                    view
                } else {
                    self.catch_up(partition, local).await?;
                    local.applied.view()
                }
            }
            ReadLevel::Stale => local.applied.view(),
        };
        if let Read::Events { after, limit } = read {
            return self.events(local, &view, key, *after, *limit).await;
        }
        let branch = self.branch_or_preview(&view, key)?;
        branch.read(read).map_err(ReadFailure::Rejected)
    }

    /// Waits until this replica has applied everything acknowledged before now.
    pub(crate) async fn catch_up(
        &self,
        partition: PartitionId,
        local: &LocalPartition,
    ) -> Result<(), ReadFailure> {
        let status = local.group.status();
        if status.is_leader {
            local.group.read_barrier().await.map_err(Refusal::from)?;
            return Ok(());
        }
        let Some((_, leader)) = status.leader else { return Err(no_leader().into()) };
        let message = encode(&PeerRequest::ReadIndex(partition));
        let reply = self
            .ask_leader(partition, leader, Priority::Call, message, ATTEMPT_TIMEOUT)
            .await
            .map_err(|_| no_leader())?;
        match decode(&reply) {
            Ok(PeerReply::Index(index)) => {
                let applied = local.group.wait_applied(index, LAG_TIMEOUT).await;
                applied.map_err(|_| ReadFailure::Lags { leader })
            }
            Ok(PeerReply::Refused(refusal)) => Err(refusal.into()),
            Ok(_) | Err(_) => Err(no_leader().into()),
        }
    }

    /// The branch as it is, or, if it was never written to, as its first write would find it.
    pub(crate) fn branch_or_preview(
        &self,
        view: &model::Partition,
        key: &BranchKey,
    ) -> Result<Branch, Refusal> {
        if let Some(branch) = view.branch(key) {
            return Ok(branch.clone());
        }
        let catalogue = self.0.catalogue.borrow();
        let definition = catalogue.definition(key).ok_or_else(|| Refusal::Unavailable {
            reason: format!("module {:?} is not defined", key.module),
            retry_after: Duration::from_secs(1),
        })?;
        let seed = catalogue.seed(key);
        let at = catalogue.formed_at;
        let procedures = self.0.procedures.clone();
        let definition = Arc::new(definition);
        Ok(Branch::preview(key.clone(), definition, seed.as_deref(), at, procedures))
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
            let stored =
                raft::blocking(move || applied.stored_events(&wanted, after, limit as usize));
            let stored = stored.await.map_err(|_| no_leader())?.map_err(Refusal::from)?;
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

/// A read without an answer changed nothing: it is never "indeterminate".
pub(crate) fn read_error(refusal: Refusal) -> RouteError {
    let known = if refusal == Refusal::Indeterminate { no_leader() } else { refusal };
    final_word(known, false)
}
