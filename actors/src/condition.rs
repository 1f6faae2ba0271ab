//! Condition: what nodes tell each other of themselves, and what follows for who leads.
//!
//! Each node asks those it is linked with once a second, and tells them at once when it becomes
//! unfit. A node that is unfit hands group 0 over here; its partitions' actors hand over theirs.
//!
//! Promise: while others are fit, an unfit node begins no election for [`CAMPAIGN_AFTER`]; after
//! that it does, because it may be the only one that has the whole log.
//! Refused: deciding who leads. Elections do that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use model::NodeId;
use raft::{GroupId, Groups, Priority, ReplicaGroup, UnfitReason};
use tokio::time::Instant;

use crate::handover::{Candidates, Handover};
use crate::memory::Memory;
use crate::message::{PeerCast, PeerReply, PeerRequest, decode, encode};
use crate::peers::Peers;

/// How often peers are asked: what they say is at most this old, and a lead is handed over within
/// two seconds.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often an unfit node tries again to hand over, and looks whether it must campaign.
const ACT_EVERY: Duration = Duration::from_millis(500);
/// How long an unfit node leaves a group without a leader to the others: several elections.
const CAMPAIGN_AFTER: Duration = Duration::from_secs(3);

/// Asks peers and acts on what this node and they are like.
#[derive(Clone)]
pub(crate) struct ConditionTask {
    pub(crate) groups: Groups,
    pub(crate) group_0: ReplicaGroup,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) handover: Handover,
    pub(crate) memory: Memory,
}

impl ConditionTask {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        // Apart: a peer that does not answer must not hold up what this node does about itself.
        tokio::join!(self.ask_peers(), self.act());
    }

    async fn ask_peers(&self) {
        let liveness = &self.handover.liveness;
        loop {
            self.ask_all().await;
            // Also where nothing is stamped, so that a wrong clock is known before it matters.
            self.handover.clock.now();
            self.look_at_memory();
            // A new link at once: this node may be elected before the next round. Elapsed or
            // linked: either way it asks again.
            let _ = tokio::time::timeout(ASK_EVERY, liveness.new_link()).await;
        }
    }

    /// Whether the process has grown over what it may hold, as was measured last.
    fn look_at_memory(&self) {
        let was = self.handover.fitness.has(UnfitReason::MemoryPressure);
        let words = self.memory.is_under_pressure(was).then(|| {
            let limit = self.memory.limit() >> 20;
            format!("its process holds more than the {limit} MiB it may (memory_max_mib)")
        });
        self.handover.fitness.set(UnfitReason::MemoryPressure, words);
    }

    async fn ask_all(&self) {
        let linked = self.handover.liveness.linked();
        join_all(linked.into_iter().map(|peer| self.ask(peer))).await;
    }

    async fn ask(&self, peer: NodeId) {
        let (message, asked) = (encode(&PeerRequest::Condition), Instant::now());
        // Without an answer what was said before holds: the link says whether the peer is there.
        // A build that does not know the question refuses it, and counts as fit.
        if let Ok(reply) = self.peers.call(peer, Priority::Urgent, message, ASK_TIMEOUT).await
            && let Ok(PeerReply::Condition(condition)) = decode(&reply)
        {
            let round_trip = asked.elapsed();
            self.handover.clock.observe(peer, condition.clock_millis, round_trip);
            self.handover.liveness.set_condition(peer, &condition);
        }
    }

    async fn act(&self) {
        let mut reasons = self.handover.fitness.watch();
        let mut leaderless = BTreeMap::new();
        loop {
            let is_fit = reasons.borrow_and_update().is_empty();
            self.report();
            if !is_fit {
                self.hand_over_group_0().await;
            }
            self.set_campaigns(is_fit, &mut leaderless);
            // While it is fit nothing happens before something changes.
            let changed = async {
                if reasons.changed().await.is_ok() {
                    // Before any lead is handed over, so that none is given back, nor given to one
                    // that has become unfit, too.
                    self.tell_peers();
                    self.ask_all().await;
                }
            };
            if is_fit {
                changed.await;
            } else {
                // Elapsed or changed: either way it is looked again.
                let _ = tokio::time::timeout(ACT_EVERY, changed).await;
            }
        }
    }

    fn tell_peers(&self) {
        let cast = encode(&PeerCast::Condition(self.handover.condition()));
        for peer in self.handover.liveness.linked() {
            // One that does not get it asks within a second.
            let _ = self.peers.cast(peer, Priority::Urgent, cast.clone());
        }
    }

    fn report(&self) {
        let reasons = self.handover.fitness.reasons();
        for reason in UnfitReason::ALL {
            let holds = if reasons.contains_key(&reason) { 1.0 } else { 0.0 };
            metrics::gauge!("mishkah_unfit", "reason" => reason.name()).set(holds);
        }
    }

    async fn hand_over_group_0(&self) {
        let status = self.group_0.status();
        let fittest =
            self.handover.fittest(&status, Candidates::Confirmed).filter(|_| status.is_leader);
        let Some(to) = fittest else { return };
        match self.group_0.transfer_leader(to).await {
            Ok(()) => tracing::info!(replica = to.0, "asked another replica to lead group 0"),
            Err(error) => tracing::warn!(%error, "the lead of group 0 could not be given away"),
        }
    }

    /// Whether the replicas here begin elections by themselves. `leaderless`: since when groups
    /// have had no leader, as far as this node knows.
    fn set_campaigns(&self, is_fit: bool, leaderless: &mut BTreeMap<GroupId, Instant>) {
        let mut seen = BTreeMap::new();
        for (id, group) in self.groups.all() {
            let status = group.status();
            // A leader that is gone stays known until a vote changes, and a pre-vote changes none.
            if !status.has_quorum {
                seen.insert(id, leaderless.get(&id).copied().unwrap_or_else(Instant::now));
            }
            let waited = seen.get(&id).is_some_and(|since| since.elapsed() >= CAMPAIGN_AFTER);
            let others = status.members.iter().any(|(replica, (node, voter))| {
                *voter && *replica != status.replica && self.handover.liveness.may_lead(*node)
            });
            group.set_campaigns(is_fit || waited || !others);
        }
        *leaderless = seen;
    }
}
