//! Handover: to whom a leader that should not lead hands over, and what its callers are told
//! meanwhile.
//!
//! Promise: a full disk is refused at once where nobody else can lead, and left to another attempt,
//! which finds the next leader, for as long as one may still take over.

use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, ReplicaId};
use raft::{GroupStatus, Groups, NodeFitness, ProposeError, ReplicaGroup, UnfitReason};

use crate::clock::ClusterClock;
use crate::limits::{DISK_FULL_RETRY_AFTER, HANDOVER_WAIT, LEAD_LAG_MAX};
use crate::liveness::PeerLiveness;
use crate::message::{NodeCondition, Refusal};

/// Which other replicas are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidates {
    /// Those that have said that they are fit since this node became unfit. What fills one disk may
    /// fill theirs, and a lead that is given to such a node is lost to all.
    Confirmed,
    /// Those that have said nothing else.
    Believed,
    /// Also those that are unfit, where there is no better.
    Any,
}

/// What decides whether this node leads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handover {
    /// The replicas here, and their disk.
    pub(crate) groups: Groups,
    /// Whether this node should lead.
    pub(crate) fitness: NodeFitness,
    /// What time it is: a leader stamps it.
    pub(crate) clock: ClusterClock,
    /// Which others could.
    pub(crate) liveness: Arc<PeerLiveness>,
}

impl Handover {
    /// The same as it is at this moment: a lead may come here next.
    pub(crate) async fn condition_now(&self) -> NodeCondition {
        self.groups.look_at_disk().await;
        self.condition()
    }

    /// What this node says of itself to others.
    pub(crate) fn condition(&self) -> NodeCondition {
        let reasons = self.fitness.reasons();
        NodeCondition {
            unfit: reasons.keys().map(|reason| reason.name().to_owned()).collect(),
            clock_millis: self.clock.own_millis(),
        }
    }

    /// The other replica that could lead best: a voter that is fit, and of these the one that lacks
    /// least.
    pub(crate) fn fittest(&self, status: &GroupStatus, of: Candidates) -> Option<ReplicaId> {
        let others = status
            .members
            .iter()
            .filter(|(replica, (_, voter))| *voter && **replica != status.replica);
        let candidates = others.filter_map(|(replica, (node, _))| {
            let is_unfit = !self.liveness.may_lead(*node);
            let accepted = match of {
                Candidates::Confirmed => !is_unfit && self.is_confirmed(*node),
                Candidates::Believed => !is_unfit,
                Candidates::Any => !is_unfit || self.liveness.stays(*node),
            };
            let lag = *status.lag.get(replica)?;
            // While a lead is on its way nobody leads: only a node that goes away accepts that it
            // takes long.
            let is_near = of == Candidates::Any || lag <= LEAD_LAG_MAX;
            (accepted && is_near).then_some((is_unfit, lag, *replica))
        });
        candidates.min().map(|(_, _, replica)| replica)
    }

    /// Whether a peer has said what it is like since this node became unfit.
    fn is_confirmed(&self, peer: NodeId) -> bool {
        self.liveness.said_ago(peer).is_some_and(|ago| ago < self.fitness.unfit_for())
    }

    /// Refuses to propose what no majority could write: the entry would wait in the leader's log,
    /// and its caller for an outcome that nobody knows. `None`: there is room, as far as is known.
    pub(crate) fn refusal_for_full_disks(&self, group: &ReplicaGroup) -> Option<Refusal> {
        let full = self.liveness.full_disks();
        // Nearly always: nothing more is looked at for each entry.
        if full.is_empty() {
            return None;
        }
        let status = group.status();
        let voters = status.members.iter().filter(|(_, (_, voter))| *voter);
        let (mut all, mut with_space) = (0, 0);
        for (replica, (node, _)) in voters {
            let is_full = match *replica == status.replica {
                true => self.fitness.has(UnfitReason::DiskFull),
                false => full.contains(node),
            };
            all += 1;
            with_space += u32::from(!is_full);
        }
        (with_space <= all / 2).then(|| Refusal::DiskFull {
            reason: format!("of {all} replicas {} have a full disk: no majority", all - with_space),
            retry_after: DISK_FULL_RETRY_AFTER,
        })
    }

    /// What a caller is told whose command was not taken.
    pub(crate) fn refusal(&self, error: ProposeError, group: &ReplicaGroup) -> Refusal {
        let ProposeError::DiskFull { reason } = error else { return Refusal::from(error) };
        let status = group.status();
        // No longer leading: the next attempt is told who does.
        let is_handing_over =
            !status.is_leader || self.fittest(&status, Candidates::Believed).is_some();
        let full = self.fitness.reasons().get(&UnfitReason::DiskFull).map(|it| it.since.elapsed());
        if is_handing_over && full.unwrap_or_default() < HANDOVER_WAIT {
            return Refusal::Unavailable { reason, retry_after: Duration::from_millis(100) };
        }
        Refusal::DiskFull { reason, retry_after: DISK_FULL_RETRY_AFTER }
    }
}
