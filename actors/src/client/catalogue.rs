//! CatalogueClient: how a change of the catalogue reaches the leader of group 0, from any node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use model::{Catalogue, CatalogueChange, CatalogueEntry, ChangeRefused, NodeId, codec};
use raft::{Priority, TypedGroup};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::control::machine::CatalogueMachine;
use crate::limits::{ATTEMPT_TIMEOUT, REQUEST_DEADLINE};
use crate::message::{PeerReply, PeerRequest, Refusal, decode, encode};
use crate::partition::proposer::wall_clock;
use crate::peers::Peers;
use crate::store::ChangeError;

/// The way of a change into group 0.
#[derive(Clone)]
pub(crate) struct CatalogueClient {
    node: NodeId,
    group: TypedGroup<CatalogueMachine>,
    catalogue: watch::Receiver<Arc<Catalogue>>,
    peers: Arc<dyn Peers>,
    heard: Arc<Heard>,
}

/// What this node has heard from the leader of group 0 since it was started.
struct Heard {
    /// Whether its copy of the catalogue has ever been complete: on its disk, or confirmed.
    is_initialized: AtomicBool,
    /// The last time group 0 was asked: when, and what came of it.
    round: tokio::sync::Mutex<Option<(Instant, Result<(), Refusal>)>>,
}

impl CatalogueClient {
    /// `is_initialized`: the copy on this node's disk is of a formed cluster.
    pub(crate) fn new(
        node: NodeId,
        group: TypedGroup<CatalogueMachine>,
        catalogue: watch::Receiver<Arc<Catalogue>>,
        peers: Arc<dyn Peers>,
        is_initialized: bool,
    ) -> Self {
        let heard = Heard {
            is_initialized: AtomicBool::new(is_initialized),
            round: tokio::sync::Mutex::default(),
        };
        Self { node, group, catalogue, peers, heard: Arc::new(heard) }
    }

    /// The last entry of group 0 applied here.
    pub(crate) fn applied(&self) -> u64 {
        self.group.status().applied
    }

    /// Whether the copy here can be answered from.
    pub(crate) fn is_initialized(&self) -> bool {
        self.heard.is_initialized.load(Ordering::Acquire)
    }

    /// Brings the copy here up to now. Group 0 is asked one at a time, and who came before it was
    /// asked has that round's answer, a refusal too: nobody waits for more than two rounds, however
    /// many ask and however long group 0 is silent.
    pub(crate) async fn catch_up(&self) -> Result<(), Refusal> {
        let came = Instant::now();
        // Held while group 0 is asked: to wait for it is to wait for that answer.
        let mut round = self.heard.round.lock().await;
        if let Some((began, answer)) = &*round
            && *began >= came
        {
            return answer.clone();
        }
        let began = Instant::now();
        let asked = tokio::time::timeout(ATTEMPT_TIMEOUT, self.ask_group_0()).await;
        let answer = asked.unwrap_or_else(|_| Err(silent()));
        if answer.is_ok() {
            self.heard.is_initialized.store(true, Ordering::Release);
        }
        *round = Some((began, answer.clone()));
        answer
    }

    /// Waits until the copy here has all that group 0 had agreed on when it was asked.
    async fn ask_group_0(&self) -> Result<(), Refusal> {
        let leader = self.leader().ok_or_else(silent)?;
        let asked = self.while_it_leads(leader, self.ask_index(leader)).await;
        let index = asked.ok_or_else(silent)??;
        Ok(self.group.wait_applied(index, ATTEMPT_TIMEOUT).await?)
    }

    async fn ask_index(&self, leader: NodeId) -> Result<u64, Refusal> {
        if leader == self.node {
            return self.index().await;
        }
        let message = encode(&PeerRequest::CatalogueIndex);
        let answer = self.peers.call(leader, Priority::Bulk, message, ATTEMPT_TIMEOUT).await;
        match answer.map(|answer| decode(&answer)) {
            Ok(Ok(PeerReply::Index(index))) => Ok(index),
            Ok(Ok(PeerReply::Refused(refusal))) => Err(refusal),
            Ok(Ok(_) | Err(_)) | Err(_) => Err(silent()),
        }
    }

    /// What a leader of group 0 answers. `None`: another node leads now; one that hangs or is cut
    /// off is waited for no longer than until its successor is known here.
    async fn while_it_leads<T>(
        &self,
        leader: NodeId,
        asked: impl Future<Output = T> + Send,
    ) -> Option<T> {
        tokio::select! {
            biased;
            answer = asked => Some(answer),
            () = self.group.led_by_another(leader) => None,
        }
    }

    /// Who leads group 0, as far as this node is_initialized.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.group.status().leader.map(|(_, leader)| leader)
    }

    /// On the leader of group 0: the index that a reader must have applied.
    pub(crate) async fn index(&self) -> Result<u64, Refusal> {
        Ok(self.group.read_index().await?)
    }

    /// Has group 0 take a change; tries again, under the same id, until the deadline.
    pub(crate) async fn make(
        &self,
        id: String,
        change: CatalogueChange,
    ) -> Result<(), ChangeError> {
        let entry = CatalogueEntry { id, at: wall_clock(), change };
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let mut why = "no leader is known".to_owned();
        while Instant::now() < deadline {
            match self.leader() {
                Some(leader) => {
                    let asked = self.while_it_leads(leader, self.ask(leader, &entry));
                    match tokio::time::timeout_at(deadline, asked).await {
                        Ok(Some(Ok(result))) => return Ok(result?),
                        Ok(Some(Err(refusal))) => why = format!("{refusal:?}"),
                        Ok(None) | Err(_) => why = format!("node {leader} did not answer"),
                    }
                }
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
        let message = encode(&PeerRequest::Change(entry.clone()));
        let answer = self
            .peers
            .call(leader, Priority::Bulk, message, ATTEMPT_TIMEOUT)
            .await
            .map_err(|_| Refusal::Indeterminate)?;
        match decode(&answer) {
            Ok(PeerReply::Changed(result)) => Ok(result),
            Ok(PeerReply::Refused(refusal)) => Err(refusal),
            Ok(_) | Err(_) => Err(Refusal::Indeterminate),
        }
    }

    /// On the leader of group 0: proposes the change. What a majority does not take in time, as
    /// where there is none, has no outcome; the same id may be asked again.
    pub(crate) async fn decide(
        &self,
        entry: &CatalogueEntry,
    ) -> Result<Result<(), ChangeRefused>, Refusal> {
        let level = self.catalogue.borrow().writing_level();
        let proposal = self.group.propose(None, codec::encode_entry(level, entry).into());
        let proposed = tokio::time::timeout(ATTEMPT_TIMEOUT, proposal).await;
        Ok(proposed.map_err(|_| Refusal::Indeterminate)??.response)
    }
}

fn silent() -> Refusal {
    Refusal::Unavailable {
        reason: "nobody confirms now what the cluster holds".to_owned(),
        retry_after: Duration::from_secs(1),
    }
}
