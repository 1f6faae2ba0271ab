//! Changes: how a change of the catalogue reaches the leader of group 0, from any node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{CatalogueEntry, Change, ChangeRefused, NodeId, codec};
use raft::{Lane, ReplicaGroup};
use tokio::time::Instant;

use crate::door::ChangeError;
use crate::limits::{ATTEMPT_TIMEOUT, REQUEST_DEADLINE};
use crate::message::{Ask, Refusal, Reply, decode, encode};
use crate::partition::proposer::wall_clock;
use crate::peers::Peers;
use crate::router::no_leader;

/// The way of a change into group 0.
#[derive(Clone)]
pub(crate) struct Changes {
    node: NodeId,
    group: ReplicaGroup,
    peers: Arc<dyn Peers>,
    heard: Arc<Heard>,
}

/// What this node has heard from the leader of group 0 since it was started.
struct Heard {
    /// Whether its copy of the catalogue has ever been complete: on its disk, or confirmed.
    knows: AtomicBool,
    /// When the last confirmation was asked for: who came before that is served by it.
    asked_at: tokio::sync::Mutex<Option<Instant>>,
}

impl Changes {
    /// `knows`: the copy on this node's disk is of a formed cluster.
    pub(crate) fn new(
        node: NodeId,
        group: ReplicaGroup,
        peers: Arc<dyn Peers>,
        knows: bool,
    ) -> Self {
        let heard =
            Heard { knows: AtomicBool::new(knows), asked_at: tokio::sync::Mutex::default() };
        Self { node, group, peers, heard: Arc::new(heard) }
    }

    /// Whether the copy here can be answered from.
    pub(crate) fn knows(&self) -> bool {
        self.heard.knows.load(Ordering::Acquire)
    }

    /// Brings the copy here up to now. However many ask at once, group 0 is asked one at a time.
    pub(crate) async fn catch_up(&self) -> Result<(), Refusal> {
        let came = Instant::now();
        let mut asked_at = self.heard.asked_at.lock().await;
        if asked_at.is_some_and(|asked| asked >= came) {
            return Ok(());
        }
        let began = Instant::now();
        let index = self.confirmed_index().await?;
        self.group.wait_applied(index, ATTEMPT_TIMEOUT).await?;
        *asked_at = Some(began);
        self.heard.knows.store(true, Ordering::Release);
        Ok(())
    }

    async fn confirmed_index(&self) -> Result<u64, Refusal> {
        let Some((_, leader)) = self.group.status().leader else { return Err(no_leader()) };
        if leader == self.node {
            return self.index().await;
        }
        let message = encode(&Ask::CatalogueIndex);
        let answer = self.peers.call(leader, Lane::Bulk, message, ATTEMPT_TIMEOUT).await;
        match answer.map(|answer| decode(&answer)) {
            Ok(Ok(Reply::Index(index))) => Ok(index),
            Ok(Ok(Reply::Refused(refusal))) => Err(refusal),
            Ok(Ok(_) | Err(_)) | Err(_) => Err(no_leader()),
        }
    }

    /// On the leader of group 0: the index that a reader must have applied.
    pub(crate) async fn index(&self) -> Result<u64, Refusal> {
        Ok(self.group.read_index().await?)
    }

    /// Has group 0 take a change; tries again, under the same id, until the deadline.
    pub(crate) async fn make(&self, id: String, change: Change) -> Result<(), ChangeError> {
        let entry = CatalogueEntry { id, at: wall_clock(), change };
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let mut why = "no leader is known".to_owned();
        while Instant::now() < deadline {
            match self.group.status().leader {
                Some((_, leader)) => match self.ask(leader, &entry).await {
                    Ok(result) => return Ok(result?),
                    Err(refusal) => why = format!("{refusal:?}"),
                },
                None => "no leader is known".clone_into(&mut why),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(ChangeError::Undecided(why))
    }

    async fn ask(
        &self,
        leader: NodeId,
        entry: &CatalogueEntry,
    ) -> Result<Result<(), ChangeRefused>, Refusal> {
        if leader == self.node {
            return self.decide(entry).await;
        }
        let message = encode(&Ask::Change(entry.clone()));
        let answer = self
            .peers
            .call(leader, Lane::Bulk, message, REQUEST_DEADLINE)
            .await
            .map_err(|_| Refusal::Indeterminate)?;
        match decode(&answer) {
            Ok(Reply::Changed(result)) => Ok(result),
            Ok(Reply::Refused(refusal)) => Err(refusal),
            Ok(_) | Err(_) => Err(Refusal::Indeterminate),
        }
    }

    /// On the leader of group 0: proposes the change.
    pub(crate) async fn decide(
        &self,
        entry: &CatalogueEntry,
    ) -> Result<Result<(), ChangeRefused>, Refusal> {
        let proposed = self.group.propose(None, codec::encode(entry).into()).await?;
        let result = proposed.answer.0.downcast::<Result<(), ChangeRefused>>();
        result.map(|result| (*result).clone()).map_err(|_| Refusal::Indeterminate)
    }
}
