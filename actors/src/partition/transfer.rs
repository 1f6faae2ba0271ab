//! Transfer: when a leader asks another replica to lead in its place.
//!
//! Promise: the preferred replica leads when all is well, and a node that goes away or is unfit
//! leads nothing that another could.
//! Refused: asking one that lacks much. From the moment it is asked this one leads no more, until
//! that one or another is elected.

use std::sync::Arc;
use std::time::Duration;

use model::ReplicaId;
use tokio::time::Instant;

use super::State;
use crate::handover::Candidates;
use crate::limits::LEAD_LAG_MAX;

/// A preferred leader must have been reachable and fit this long before it is asked to lead.
const PREFERRED_FIT_FOR: Duration = Duration::from_secs(10);
/// After a transfer was tried, it is not tried again for this long.
const TRANSFER_PAUSE: Duration = Duration::from_secs(60);

impl State {
    /// Leaders follow the placement: if another replica should lead and can, it is asked to.
    fn transfer_to_preferred(&mut self) {
        let catalogue = Arc::clone(&self.arguments.catalogue.borrow());
        let Some(placement) = catalogue.placements.get(&self.arguments.partition) else { return };
        if self.leadership.is_none() {
            return;
        }
        let preferred = placement.preferred;
        let status = self.arguments.group.status();
        let node = placement.preferred_node();
        let is_fit = preferred != status.replica
            // A node that comes and goes would take the lead each time, and clients pay for each
            // change with an election.
            && node.is_some_and(|node| {
                let liveness = &self.arguments.handover.liveness;
                liveness.may_lead(node) && liveness.fit_for(node) >= PREFERRED_FIT_FOR
            })
            && status.members.get(&preferred).is_some_and(|(_, voter)| *voter)
            // What it lacks it would have to catch up on while nobody leads.
            && status.lag.get(&preferred).is_some_and(|lag| *lag <= LEAD_LAG_MAX)
            && self.transfer_tried.is_none_or(|at| at.elapsed() >= TRANSFER_PAUSE);
        if is_fit {
            self.transfer(preferred);
        }
    }

    /// A node that goes away or is unfit gives its leaderships up; any other one to whom they
    /// belong.
    pub(super) fn transfer_where_due(&mut self) {
        if self.draining {
            // Also to one that is unfit: this one will not be there at all.
            self.transfer_to_fittest(Candidates::Any);
        } else if !self.arguments.handover.fitness.is_fit() {
            self.transfer_to_fittest(Candidates::Confirmed);
        } else {
            self.transfer_to_preferred();
        }
    }

    /// Asks the fittest other replica to lead, if this one does.
    fn transfer_to_fittest(&mut self, of: Candidates) {
        let status = self.arguments.group.status();
        let fittest = self.arguments.handover.fittest(&status, of);
        if let (true, Some(replica)) = (status.is_leader, fittest) {
            self.transfer(replica);
        }
    }

    fn transfer(&mut self, to: ReplicaId) {
        self.transfer_tried = Some(Instant::now());
        let (group, partition) = (self.arguments.group.clone(), self.arguments.partition);
        // A task of its own: branches must not wait for the answer of a peer.
        tokio::spawn(async move {
            match group.transfer_leader(to).await {
                Ok(()) => tracing::info!(
                    partition = partition.0,
                    replica = to.0,
                    "asked another replica to lead"
                ),
                Err(error) => tracing::warn!(
                    partition = partition.0,
                    %error,
                    "the lead could not be given away"
                ),
            }
        });
    }
}
