//! CatalogueClient: what this node knows of the catalogue, and how a change of it reaches the
//! leader of group 0, from any node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::{
    BranchKey, Catalogue, CatalogueChange, CatalogueEntry, CatalogueError, NodeId, PartitionId,
    codec,
};
use raft::{GroupId, Priority, TypedGroup};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::leader_client::{LeaderClient, LeaderRequest};
use crate::client::{read_error, route_error};
use crate::control::machine::CatalogueMachine;
use crate::handover::Handover;
use crate::limits::{ATTEMPT_TIMEOUT, REQUEST_DEADLINE};
use crate::message::{PeerReply, PeerRequest, Refusal, encode};
use crate::store::{ChangeError, RouteError};

/// The catalogue, here and at the leader of group 0. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CatalogueClient {
    leaders: LeaderClient,
    group: TypedGroup<CatalogueMachine>,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    confirmation: Arc<Confirmation>,
    handover: Handover,
}

/// What the leader of group 0 has confirmed to this node since it was started.
struct Confirmation {
    /// Whether the copy here has ever been complete: on its disk, or confirmed.
    is_initialized: AtomicBool,
    /// The last round: when group 0 was asked, and what came of it.
    round: tokio::sync::Mutex<Option<(Instant, Result<(), Refusal>)>>,
}

impl CatalogueClient {
    /// `is_initialized`: the copy on this node's disk is of a formed cluster.
    pub(crate) fn new(
        leaders: LeaderClient,
        group: TypedGroup<CatalogueMachine>,
        catalogue: watch::Receiver<Arc<Catalogue>>,
        is_initialized: bool,
        handover: Handover,
    ) -> Self {
        let confirmation = Confirmation {
            is_initialized: AtomicBool::new(is_initialized),
            round: tokio::sync::Mutex::default(),
        };
        Self { leaders, group, catalogue, confirmation: Arc::new(confirmation), handover }
    }

    /// The last entry of group 0 applied here.
    pub(crate) fn applied(&self) -> u64 {
        self.group.status().applied
    }

    /// Whether the copy here can be answered from.
    pub(crate) fn is_initialized(&self) -> bool {
        self.confirmation.is_initialized.load(Ordering::Acquire)
    }

    /// The partition of a branch:module that exists or could.
    pub(crate) fn locate(&self, key: &BranchKey) -> Result<PartitionId, RouteError> {
        let catalogue = self.catalogue.borrow();
        let partition = catalogue.partition_of(key).ok_or_else(|| RouteError::Unavailable {
            reason: "the cluster is still forming".to_owned(),
            retry_after: Duration::from_secs(1),
        })?;
        if !catalogue.allows_branch(&key.branch) {
            return Err(RouteError::UnknownBranch(key.branch.to_string()));
        }
        if catalogue.module(&key.module).is_none() {
            return Err(RouteError::UnknownModule(key.module.to_string()));
        }
        Ok(partition)
    }

    /// The same, and a branch or module that is not known here may have been made elsewhere a
    /// moment ago: it is denied only by what the cluster has agreed on.
    pub(crate) async fn find(&self, key: &BranchKey) -> Result<PartitionId, RouteError> {
        match self.locate(key) {
            Err(RouteError::UnknownModule(_) | RouteError::UnknownBranch(_)) => {
                self.catch_up().await.map_err(read_error)?;
                self.locate(key)
            }
            located => located,
        }
    }

    /// Brings the copy here up to now. Group 0 is asked one at a time, and who came before it was
    /// asked has that round's answer, a refusal too: nobody waits for more than two rounds, however
    /// many ask and however long group 0 is silent.
    pub(crate) async fn catch_up(&self) -> Result<(), Refusal> {
        let came = Instant::now();
        // Held while group 0 is asked: to wait for it is to wait for that answer.
        let mut round = self.confirmation.round.lock().await;
        // A round that began before this caller came may lack what the caller knows of.
        if let Some((began, answer)) = &*round
            && *began >= came
        {
            return answer.clone();
        }
        let began = Instant::now();
        let asked = tokio::time::timeout(ATTEMPT_TIMEOUT, self.wait_until_current()).await;
        let answer = asked.unwrap_or_else(|_| Err(unconfirmed()));
        if answer.is_ok() {
            self.confirmation.is_initialized.store(true, Ordering::Release);
        }
        *round = Some((began, answer.clone()));
        answer
    }

    /// Waits until the copy here has all that group 0 had agreed on when it was asked. One attempt:
    /// many wait for it, and each of them may try again.
    async fn wait_until_current(&self) -> Result<(), Refusal> {
        let request = IndexRequest(self);
        let asked = self.leaders.ask_once(GroupId::CLUSTER, &request, ATTEMPT_TIMEOUT);
        let index = asked.await.map_err(|refusal| match refusal {
            Refusal::NotLeader { .. } | Refusal::Indeterminate => unconfirmed(),
            Refusal::Busy { .. }
            | Refusal::Exhausted { .. }
            | Refusal::Unavailable { .. }
            | Refusal::MemoryFull(_)
            | Refusal::BranchQuota(_)
            | Refusal::DiskFull { .. } => refusal,
        })?;
        Ok(self.group.wait_applied(index, ATTEMPT_TIMEOUT).await?)
    }

    /// Who leads group 0, as far as this node knows.
    #[cfg(test)]
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.leaders.leader_of(GroupId::CLUSTER)
    }

    /// On the leader of group 0: the index that a reader must have applied.
    pub(crate) async fn index(&self) -> Result<u64, Refusal> {
        Ok(self.group.read_index().await?)
    }

    /// Has group 0 take a change, once under this id, and waits until this node's copy has it.
    pub(crate) async fn change(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> Result<(), ChangeError> {
        self.make(id.clone(), change).await?;
        let has_it = |catalogue: &Arc<Catalogue>| catalogue.has_applied(&id);
        let mut catalogue = self.catalogue.clone();
        match tokio::time::timeout(REQUEST_DEADLINE, catalogue.wait_for(has_it)).await {
            Ok(Ok(_)) => Ok(()),
            // Agreed, but not here yet: the same id tells once it is.
            Ok(Err(_)) | Err(_) => {
                Err(ChangeError::Undecided("this node lags behind group 0".to_owned()))
            }
        }
    }

    /// Has group 0 take a change; tries again, under the same id, until the deadline.
    pub(crate) async fn make(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> Result<(), ChangeError> {
        // As for commands: the leader may be of a build that cannot read the change.
        let undecided = |refusal| ChangeError::Undecided(route_error(refusal).to_string());
        let agreed = Arc::clone(&self.catalogue.borrow());
        agreed.check_level(change.level()).map_err(|error| undecided(Refusal::from(error)))?;
        let entry = CatalogueEntry { id, at: self.handover.clock.now(), change };
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let request = ChangeRequest { client: self, entry };
        let asked = self.leaders.ask(GroupId::CLUSTER, &request, deadline);
        // An attempt begun just before the deadline may not outlast it.
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(refusal)) => Err(undecided(refusal)),
            Err(_) => Err(undecided(Refusal::Indeterminate)),
        }
    }

    /// On the leader of group 0: proposes the change. What a majority does not take in time, as
    /// where there is none, has no outcome; the same id may be asked again.
    pub(crate) async fn propose(
        &self,
        entry: &CatalogueEntry,
    ) -> Result<Result<(), CatalogueError>, Refusal> {
        let catalogue = Arc::clone(&self.catalogue.borrow());
        catalogue.check_level(entry.change.level())?;
        // Also refused where it is applied; here it does not go through every node's log before.
        if let Some(refused) = catalogue.exceeded_bound(entry) {
            return Ok(Err(refused));
        }
        let level = catalogue.writing_level();
        let proposal = self.group.propose(None, codec::encode_entry(level, entry).into());
        let proposed = tokio::time::timeout(ATTEMPT_TIMEOUT, proposal).await;
        let proposed = proposed.map_err(|_| Refusal::Indeterminate)?;
        let applied = proposed.map_err(|error| self.handover.refusal(error, &self.group))?;
        Ok(applied.response)
    }
}

struct ChangeRequest<'a> {
    client: &'a CatalogueClient,
    entry: CatalogueEntry,
}

impl LeaderRequest for ChangeRequest<'_> {
    type Answer = Result<(), CatalogueError>;

    fn message(&self) -> (Priority, Bytes) {
        (Priority::Bulk, encode(&PeerRequest::Change(self.entry.clone())))
    }

    fn answer(&self, _: NodeId, reply: PeerReply) -> Option<Result<(), CatalogueError>> {
        if let PeerReply::Changed(result) = reply { Some(result) } else { None }
    }

    async fn perform(&self, _: Duration) -> Result<Result<(), CatalogueError>, Refusal> {
        self.client.propose(&self.entry).await
    }
}

/// Up to where group 0 has agreed.
struct IndexRequest<'a>(&'a CatalogueClient);

impl LeaderRequest for IndexRequest<'_> {
    type Answer = u64;

    fn message(&self) -> (Priority, Bytes) {
        (Priority::Bulk, encode(&PeerRequest::CatalogueIndex))
    }

    fn answer(&self, _: NodeId, reply: PeerReply) -> Option<u64> {
        if let PeerReply::Index(index) = reply { Some(index) } else { None }
    }

    async fn perform(&self, _: Duration) -> Result<u64, Refusal> {
        self.0.index().await
    }
}

fn unconfirmed() -> Refusal {
    Refusal::Unavailable {
        reason: "nobody confirms now what the cluster holds".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}
