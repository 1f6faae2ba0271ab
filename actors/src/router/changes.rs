//! Changes: how a change of the catalogue reaches the leader of group 0, from any node.

use std::sync::Arc;
use std::time::Duration;

use model::{CatalogueEntry, Change, ChangeRefused, NodeId, codec};
use raft::{Lane, ReplicaGroup};
use tokio::time::Instant;

use crate::door::ChangeError;
use crate::limits::REQUEST_DEADLINE;
use crate::message::{Ask, Refusal, Reply, decode, encode};
use crate::partition::proposer::wall_clock;
use crate::peers::Peers;

/// The way of a change into group 0.
#[derive(Clone)]
pub(crate) struct Changes {
    node: NodeId,
    group: ReplicaGroup,
    peers: Arc<dyn Peers>,
}

impl Changes {
    pub(crate) fn new(node: NodeId, group: ReplicaGroup, peers: Arc<dyn Peers>) -> Self {
        Self { node, group, peers }
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
